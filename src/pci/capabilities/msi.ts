/**
 * MSI (PCIe 7.7.1): one 64-bit address and one data word for up to 32 vectors, told apart by the low bits
 * of the data. With per-vector masking a masked vector stays pending and is sent when its mask opens.
 * Extended message data is left out. Next: msix.ts.
 */
import { bank, bits, flag, r16, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, capabilityHeader } from '../capability.js'
import { CAPABILITY } from '../ids.js'
import type { SendMessage } from './msix.js'

const registers = {
  Header: capabilityHeader(CAPABILITY.MSI),
  Message_Control: r16(0x02, 'PCIe 7.7.1.2', {
    Per_Vector_Masking: flag(8, 'ro', 'Mask and Pending exist'),
    Address_64: flag(7, 'ro', 'Message_Upper_Address exists'),
    Multiple_Message_Enable: bits(6, 4, 'rw', 'log2 of the vectors software gives'),
    Multiple_Message_Capable: bits(3, 1, 'ro', 'log2 of the vectors asked for'),
    MSI_Enable: flag(0, 'rw', 'messages are sent, INTx is not'),
  }),
  Message_Address: r32(0x04, 'PCIe 7.7.1.3', { ADDR: bits(31, 2, 'rw', 'address 31:2') }),
  Message_Upper_Address: r32(0x08, 'PCIe 7.7.1.4', { ADDR: bits(31, 0, 'rw', 'address 63:32') }),
  Message_Data: r16(0x0c, 'PCIe 7.7.1.5', { DATA: bits(15, 0, 'rw', 'the low bits vary') }),
}

/** The capability structure without per-vector masking. */
export const MSI = bank('MSI capability', registers)

/** The capability structure with per-vector masking. */
export const MSI_MASKING = bank('MSI capability with masking', {
  ...registers,
  Mask: r32(0x10, 'PCIe 7.7.1.7', { BITS: bits(31, 0, 'rw', 'a bit a vector: not sent') }),
  Pending: r32(0x14, 'PCIe 7.7.1.8', { BITS: bits(31, 0, 'ro', 'a bit a vector: waits') }),
})

/** MSI of one function. */
export class MsiCapability implements Capability {
  readonly id = CAPABILITY.MSI
  readonly extended = false
  readonly file: RegisterFile<typeof MSI> | RegisterFile<typeof MSI_MASKING>
  /** Vectors asked for: a power of two up to 32. */
  readonly vectors: number
  /** Where messages go; the function sets it. */
  send: SendMessage = () => {}
  /** The enable may have changed; the function sets it. */
  changed: () => void = () => {}
  readonly #masking: RegisterFile<typeof MSI_MASKING> | undefined

  constructor(vectors: number, masking: boolean) {
    if (![1, 2, 4, 8, 16, 32].includes(vectors))
      throw new RangeError(`${vectors} vectors: MSI has a power of two up to 32`)
    this.vectors = vectors
    const Message_Control = () => {
      this.changed()
      this.#flush()
    }
    if (masking) {
      const onWrite = { Message_Control, Mask: () => this.#flush() }
      this.#masking = new RegisterFile(MSI_MASKING, { onWrite })
    }
    this.file = this.#masking ?? new RegisterFile(MSI, { onWrite: { Message_Control } })
    this.reset()
  }

  /** Whether messages are sent at all. */
  get enabled(): boolean {
    return this.file.regs.Message_Control.MSI_Enable
  }

  /** Vectors that software gave, at most those asked for. */
  get given(): number {
    return Math.min(1 << this.file.regs.Message_Control.Multiple_Message_Enable, this.vectors)
  }

  /** Whether masks exist. */
  get masking(): boolean {
    return this.#masking !== undefined
  }

  /** Raises a vector. With fewer given than asked for, vectors share messages: the number is taken modulo. */
  raise(vector: number): void {
    if (!this.enabled || vector < 0 || vector >= this.vectors) return
    const message = vector % this.given
    const bit = 1 << message
    const regs = this.#masking?.regs
    if (regs && (regs.Mask.BITS & bit) !== 0) regs.Pending.BITS = (regs.Pending.BITS | bit) >>> 0
    else this.#deliver(message)
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    const { Message_Control } = this.file.regs
    Message_Control.Per_Vector_Masking = this.masking
    Message_Control.Address_64 = true
    Message_Control.Multiple_Message_Capable = Math.log2(this.vectors)
  }

  #deliver(message: number): void {
    const { Message_Address, Message_Upper_Address, Message_Data } = this.file.regs
    const data = (Message_Data.DATA & ~(this.given - 1)) | message
    this.send(Message_Upper_Address.ADDR | 0, (Message_Address.ADDR << 2) | 0, data)
  }

  #flush(): void {
    const regs = this.#masking?.regs
    if (!regs || !this.enabled) return
    const open = regs.Pending.BITS & ~regs.Mask.BITS
    regs.Pending.BITS = (regs.Pending.BITS & ~open) >>> 0
    for (let left = open; left !== 0; left &= left - 1) this.#deliver(31 - Math.clz32(left & -left))
  }
}

/** MSI capability: 1 to 32 vectors, a power of two; 64-bit address; masks unless told otherwise. */
export const msi =
  (options: { vectors: number; masking?: boolean }): CapabilityFactory =>
  () =>
    new MsiCapability(options.vectors, options.masking ?? true)
