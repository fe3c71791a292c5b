// Interrupts to local APICs: messages of devices (SDM vol. 3, 11.11) and between processors. There is no IOAPIC and
// no PIC: routes to their pins are accepted and lead nowhere.

import { DELIVERY, type IpiCommand, type LocalApic } from '../../x86/apic.js'
import type { IrqTarget, Message } from '../irq-routing.js'

const IRQCHIPS = 3
const PINS = 24

/** The local APICs of a VM. `present` tells whether the kernel has them. */
export class ApicMessages implements IrqTarget {
  readonly messageFlags = 0
  readonly #apics: () => Iterable<LocalApic>
  readonly #present: () => boolean

  constructor(apics: () => Iterable<LocalApic>, present: () => boolean) {
    this.#apics = apics
    this.#present = present
  }

  get present(): boolean {
    return this.#present()
  }

  /** Delivers an MSI; lowest priority goes to the APIC with the lowest processor priority. */
  message({ addressLow, data }: Message): number {
    const mode = (data >>> 8) & 7
    const logical = (addressLow & 4) !== 0
    const destination = (addressLow >>> 12) & 0xff
    return this.#deliver(data & 0xff, mode, destination, logical, (data & 0x8000) !== 0)
  }

  /** Delivers an inter-processor interrupt. */
  command(command: IpiCommand, from: LocalApic): void {
    const { vector, mode, shorthand, destination, logical } = command
    if (shorthand === 0) this.#deliver(vector, mode, destination, logical, false)
    else
      for (const apic of this.#apics())
        if (shorthand === 2 || apic !== from) apic.deliver(vector, mode)
  }

  hasPin(irqchip: number, pin: number): boolean {
    return irqchip < IRQCHIPS && pin < PINS
  }

  pulse(): void {}

  defaultPin(): undefined {
    return undefined
  }

  #deliver(
    vector: number,
    mode: number,
    destination: number,
    logical: boolean,
    level: boolean,
  ): number {
    const accepting = [...this.#apics()].filter(a => a.accepts(destination, logical))
    if (mode === DELIVERY.LOWEST && accepting.length > 1) {
      accepting.sort((a, b) => a.processorPriority - b.processorPriority)
      accepting.length = 1
    }
    return accepting.filter(a => a.deliver(vector, mode, level)).length
  }
}
