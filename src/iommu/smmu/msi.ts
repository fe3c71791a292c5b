/**
 * Interrupts of the unit: global errors, event queue, PRI queue, CMD_SYNC (IHI 0070 3.18). Each is a
 * message, which is a write of a word to any physical address, or a wire where its address is zero. A write
 * to the doorbell is an interrupt; anywhere else it is a word of memory that software may watch.
 */
import type { LiveRegisters } from '../../base/registers.js'
import type { MessageSink } from '../../pci/upstream.js'
import type { SmmuConfig } from './config.js'
import type { GlobalErrors } from './global-errors.js'
import type { GlobalError, SMMU_REGISTERS } from './registers.js'

/** Requester id that a unit's own messages carry: no function is behind it. */
export const UNIT_REQUESTER = 0xffff

/** An interrupt that has a wire of its own. */
export type SmmuWire = 'gerror' | 'eventq' | 'priq' | 'sync'

/** Where interrupts go. */
export interface InterruptOutputs {
  readonly messages: MessageSink
  readonly memory: { writeU32(addr: number, value: number): boolean }
  readonly wire: ((wire: SmmuWire) => void) | undefined
}

/** The interrupts of one unit. */
export class Interrupts {
  readonly #regs: LiveRegisters<typeof SMMU_REGISTERS>
  readonly #config: SmmuConfig
  readonly #out: InterruptOutputs
  /** Set when the unit is complete: aborted messages are errors of their own. */
  errors: GlobalErrors | undefined = undefined

  constructor(
    regs: LiveRegisters<typeof SMMU_REGISTERS>,
    config: SmmuConfig,
    out: InterruptOutputs,
  ) {
    this.#regs = regs
    this.#config = config
    this.#out = out
  }

  globalError(): void {
    const { IRQ_CTRLACK, GERROR_IRQ_CFG0, GERROR_IRQ_CFG1 } = this.#regs
    if (IRQ_CTRLACK.GERROR_IRQEN)
      this.#send('gerror', GERROR_IRQ_CFG0.ADDR, GERROR_IRQ_CFG1.DATA, 'MSI_GERROR_ABT_ERR')
  }

  eventQueue(): void {
    const { IRQ_CTRLACK, EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1 } = this.#regs
    if (IRQ_CTRLACK.EVENTQ_IRQEN)
      this.#send('eventq', EVENTQ_IRQ_CFG0.ADDR, EVENTQ_IRQ_CFG1.DATA, 'MSI_EVENTQ_ABT_ERR')
  }

  priQueue(): void {
    const { IRQ_CTRLACK, PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1 } = this.#regs
    if (IRQ_CTRLACK.PRIQ_IRQEN)
      this.#send('priq', PRIQ_IRQ_CFG0.ADDR, PRIQ_IRQ_CFG1.DATA, 'MSI_PRIQ_ABT_ERR')
  }

  /** Completion of a CMD_SYNC with CS = SIG_IRQ. */
  sync(address: number, data: number): void {
    this.#send('sync', address, data, 'MSI_CMDQ_ABT_ERR')
  }

  /** A dword written to a physical address by way of a message; false when nothing is there. */
  deliver(requester: number, address: number, data: number): boolean {
    const { base, size } = this.#config.doorbell
    if (address >= base && address < base + size) {
      this.#out.messages.message(requester, address, data >>> 0)
      return true
    }
    return this.#out.memory.writeU32(address, data)
  }

  #send(wire: SmmuWire, address: number, data: number, error: GlobalError): void {
    if (!this.#config.msi || address === 0) this.#out.wire?.(wire)
    else if (!this.deliver(UNIT_REQUESTER, address % 2 ** this.#config.outputAddressBits, data))
      this.errors?.raise(error)
  }
}
