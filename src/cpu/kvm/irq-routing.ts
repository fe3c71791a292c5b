// Interrupts into a VM from outside: KVM_SIGNAL_MSI, routes of interrupt numbers (KVM_SET_GSI_ROUTING) and eventfds
// bound to them (KVM_IRQFD). There is no IOAPIC and no PIC: routes to their pins are accepted and lead nowhere.

import type { StructValue } from '../../base/struct.js'
import { EventFd } from '../../sys/eventfd.js'
import type { Process } from '../../sys/process.js'
import { DELIVERY, type IpiCommand, type LocalApic } from '../x86/apic.js'
import { refuse } from './arguments.js'
import * as uapi from './uapi.js'

type RoutingEntry = StructValue<(typeof uapi.kvm_irq_routing_entry)['members']>

/** A message as a device writes it. */
export interface Message {
  readonly addressLow: number
  readonly addressHigh: number
  readonly data: number
}

const IRQCHIPS = 3
const PINS = 24

/** Delivers messages to the local APICs of a VM. */
export class IrqRouting {
  readonly #apics: () => Iterable<LocalApic>
  readonly #maxRoutes: number
  #routes = new Map<number, Message[]>()
  readonly #irqfds = new Map<EventFd, { readonly gsi: number; readonly stop: () => void }>()

  constructor(apics: () => Iterable<LocalApic>, maxRoutes: number) {
    this.#apics = apics
    this.#maxRoutes = maxRoutes
  }

  /**
   * Delivers an MSI (SDM vol. 3, 11.11): the number of APICs that took it. Lowest priority goes to the one with the
   * lowest processor priority.
   */
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

  /** Replaces all routes. EINVAL leaves the old ones. */
  set(entries: Iterable<RoutingEntry>): void {
    const routes = new Map<number, Message[]>()
    for (const e of entries) {
      if (e.gsi >= this.#maxRoutes || e.flags !== 0) throw refuse('EINVAL', `route of ${e.gsi}`)
      const of = routes.get(e.gsi) ?? []
      routes.set(e.gsi, of)
      if (e.type === uapi.KVM_IRQ_ROUTING_MSI) {
        const { address_lo, address_hi, data } = e.u.msi
        of.push({ addressLow: address_lo, addressHigh: address_hi, data })
      } else if (
        e.type !== uapi.KVM_IRQ_ROUTING_IRQCHIP ||
        e.u.irqchip.irqchip >= IRQCHIPS ||
        e.u.irqchip.pin >= PINS
      )
        throw refuse('EINVAL', `route of ${e.gsi}: type ${e.type}`)
    }
    this.#routes = routes
  }

  /** Raises an interrupt number once. */
  raise(gsi: number): void {
    for (const message of this.#routes.get(gsi) ?? []) this.message(message)
  }

  /** KVM_IRQFD. An eventfd that has been signalled already raises its interrupt at once. */
  irqfd(fd: number, gsi: number, flags: number, caller: Process): void {
    if ((flags & ~uapi.KVM_IRQFD_FLAG_DEASSIGN) !== 0)
      throw refuse('EINVAL', `irqfd flags ${flags}`)
    const file = caller.fds.description(fd | 0, 'ioctl').file
    if (!(file instanceof EventFd)) throw refuse('EINVAL', `${fd} is a ${file.kind}, no eventfd`)
    if ((flags & uapi.KVM_IRQFD_FLAG_DEASSIGN) !== 0) {
      if (this.#irqfds.get(file)?.gsi === gsi) this.#drop(file)
      return
    }
    if (gsi >= this.#maxRoutes) throw refuse('EINVAL', `interrupt number ${gsi}`)
    if (this.#irqfds.has(file)) throw refuse('EBUSY', `eventfd ${fd} has an interrupt already`)
    caller.kernel.failures.step('an irqfd')
    const fire = () => {
      if (file.take() > 0n) this.raise(gsi)
    }
    const stopSignal = file.onSignal(fire)
    const stopRelease = file.onRelease(() => this.#drop(file))
    this.#irqfds.set(file, {
      gsi,
      stop: () => {
        stopSignal()
        stopRelease()
      },
    })
    if (file.count > 0n) fire()
  }

  /** Lets go of every eventfd. */
  release(): void {
    for (const file of [...this.#irqfds.keys()]) this.#drop(file)
  }

  #drop(file: EventFd): void {
    this.#irqfds.get(file)?.stop()
    this.#irqfds.delete(file)
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
