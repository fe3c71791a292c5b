/**
 * MSI-X (PCIe 7.7.2): the capability, and the table and pending bits in a BAR of their own. A masked
 * interrupt stays pending and is sent when the mask opens; with MSI-X disabled interrupts are lost,
 * unless the device asserts its pin then.
 */
import { bank, bits, flag, r16, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import type { MmioTarget } from '../../mem/address-space.js'
import { type BarSpec, barSize } from '../bar.js'
import { type Capability, type CapabilityFactory, capabilityHeader } from '../capability.js'
import { CAPABILITY } from '../ids.js'

/** The capability structure. */
export const MSIX = bank('MSI-X capability', {
  Header: capabilityHeader(CAPABILITY.MSIX),
  Message_Control: r16(0x02, 'PCIe 7.7.2.2', {
    MSIX_Enable: flag(15, 'rw', 'messages are sent'),
    Function_Mask: flag(14, 'rw', 'all vectors are masked'),
    Table_Size: bits(10, 0, 'ro', 'vectors less one'),
  }),
  Table: r32(0x04, 'PCIe 7.7.2.3', {
    Offset: bits(31, 3, 'ro', 'in the BAR, in units of 8 bytes'),
    BIR: bits(2, 0, 'ro', 'which BAR'),
  }),
  PBA: r32(0x08, 'PCIe 7.7.2.4', {
    Offset: bits(31, 3, 'ro', 'in the BAR, in units of 8 bytes'),
    BIR: bits(2, 0, 'ro', 'which BAR'),
  }),
})

/** Bytes of a table entry: address low, address high, data, vector control (PCIe 7.7.2.5 to 7.7.2.8). */
const ENTRY = 16
const MASK_BIT = 1

/** Sends a message write: address halves and the dword. */
export type SendMessage = (hi: number, lo: number, data: number) => void

/** MSI-X of one function. */
export class MsixCapability implements Capability {
  readonly id = CAPABILITY.MSIX
  readonly extended = false
  readonly file: RegisterFile<typeof MSIX>
  readonly bar: BarSpec
  readonly vectors: number
  readonly tableBar: number
  /** Byte offsets in the BAR. */
  readonly tableOffset = 0
  readonly pbaOffset: number
  /** Where messages go; the function sets it. */
  send: SendMessage = () => {}
  /** The enable may have changed; the function sets it. */
  changed: () => void = () => {}
  readonly #table: Uint8Array
  readonly #words: DataView
  readonly #pending: Uint8Array

  constructor(vectors: number, bar: number) {
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048)
      throw new RangeError(`${vectors} vectors: MSI-X has 1 to 2048`)
    this.vectors = vectors
    this.tableBar = bar
    const half = barSize(vectors * ENTRY * 2) / 2
    this.pbaOffset = half
    this.#table = new Uint8Array(vectors * ENTRY)
    this.#words = new DataView(this.#table.buffer)
    this.#pending = new Uint8Array(((vectors + 63) >> 6) * 8)
    this.bar = { index: bar, size: half * 2, target: this.#target() }
    const Message_Control = () => {
      this.changed()
      this.#flush()
    }
    this.file = new RegisterFile(MSIX, { onWrite: { Message_Control } })
    this.reset()
  }

  /** Whether messages are sent at all. */
  get enabled(): boolean {
    return this.file.regs.Message_Control.MSIX_Enable
  }

  /** Raises a vector: sends its message, or makes it pending while masked. */
  raise(vector: number): void {
    if (!this.enabled || vector < 0 || vector >= this.vectors) return
    if (this.#masked(vector)) this.#pending[vector >> 3]! |= 1 << (vector & 7)
    else this.#deliver(vector)
  }

  /** Whether a vector waits for its mask to open. */
  isPending(vector: number): boolean {
    return (this.#pending[vector >> 3]! & (1 << (vector & 7))) !== 0
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    const r = this.file.regs
    r.Message_Control.Table_Size = this.vectors - 1
    r.Table.BIR = this.tableBar
    r.Table.Offset = this.tableOffset >> 3
    r.PBA.BIR = this.tableBar
    r.PBA.Offset = this.pbaOffset >> 3
    this.#table.fill(0)
    for (let v = 0; v < this.vectors; v++) this.#table[v * ENTRY + 12] = MASK_BIT
    this.#pending.fill(0)
  }

  save(): unknown {
    return { table: this.#table.slice(), pending: this.#pending.slice() }
  }

  restore(state: unknown): void {
    const { table, pending } = state as { table: Uint8Array; pending: Uint8Array }
    this.#table.set(table)
    this.#pending.set(pending)
  }

  #masked(vector: number): boolean {
    const { Function_Mask } = this.file.regs.Message_Control
    return Function_Mask || (this.#table[vector * ENTRY + 12]! & MASK_BIT) !== 0
  }

  #deliver(vector: number): void {
    const at = vector * ENTRY
    this.#pending[vector >> 3]! &= ~(1 << (vector & 7))
    const lo = this.#words.getInt32(at, true) & ~3
    const hi = this.#words.getInt32(at + 4, true)
    this.send(hi, lo, this.#words.getUint32(at + 8, true))
  }

  #flush(): void {
    if (!this.enabled) return
    for (let i = 0; i < this.#pending.length; i++)
      for (let left = this.#pending[i]!; left !== 0; left &= left - 1) {
        const vector = i * 8 + 31 - Math.clz32(left & -left)
        if (!this.#masked(vector)) this.#deliver(vector)
      }
  }

  #target(): MmioTarget {
    return {
      read: (offset, size) => {
        let value = 0n
        for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#byte(offset + i))
        return value
      },
      write: (offset, size, value) => {
        for (let i = 0; i < size; i++) {
          const at = offset + i
          if (at >= this.#table.length) break
          const byte = Number((value >> BigInt(8 * i)) & 0xffn)
          // Vector Control has one bit; the others are reserved (PCIe 7.7.2.8).
          if ((at & 15) < 12) this.#table[at] = byte
          else if ((at & 15) === 12) this.#table[at] = byte & MASK_BIT
        }
        this.#flush()
      },
    }
  }

  #byte(offset: number): number {
    if (offset < this.#table.length) return this.#table[offset]!
    return this.#pending[offset - this.pbaOffset] ?? 0
  }
}

/** MSI-X capability: 1 to 2048 vectors, table and pending bits in BAR `bar`. */
export const msix =
  (options: { vectors: number; bar: number }): CapabilityFactory =>
  () =>
    new MsixCapability(options.vectors, options.bar)
