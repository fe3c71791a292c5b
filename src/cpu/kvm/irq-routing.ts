// Interrupts into a VM from outside: KVM_SIGNAL_MSI, routes of interrupt numbers (KVM_SET_GSI_ROUTING) and eventfds
// bound to them (KVM_IRQFD). Where messages and pins lead is the architecture's: see IrqTarget.

import type { ErrnoName } from '../../base/errno.js'
import type { StructValue } from '../../base/struct.js'
import { EventFd } from '../../sys/eventfd.js'
import type { Process } from '../../sys/process.js'
import { copyIn, refuse } from './arguments.js'
import { MAX_ROUTES } from './extensions.js'
import * as uapi from './uapi/common.js'

type RoutingEntry = StructValue<(typeof uapi.kvm_irq_routing_entry)['members']>

/** A message as a device writes it. */
export interface Message {
  readonly addressLow: number
  readonly addressHigh: number
  readonly data: number
  /** Who writes it, where the owner says so (KVM_MSI_VALID_DEVID). */
  readonly device: number | undefined
}

/** The interrupt controllers of a VM, as routes see them. */
export interface IrqTarget {
  /** Flags of KVM_SIGNAL_MSI and of message routes that it takes. */
  readonly messageFlags: number
  /** Whether there are controllers to deliver to. */
  readonly present: boolean
  /** Delivers a message: how many took it, or why it could not be tried. */
  message(message: Message): number | ErrnoName
  /** Whether a route may lead to this pin. */
  hasPin(irqchip: number, pin: number): boolean
  /** Raises and lowers a pin. */
  pulse(irqchip: number, pin: number): void
  /** The pin that an interrupt number without routes means, if any. */
  defaultPin(gsi: number): number | undefined
}

type Route = { readonly message: Message } | { readonly irqchip: number; readonly pin: number }

/** Routes and eventfds of a VM. */
export class IrqRouting {
  readonly #target: IrqTarget
  /** Undefined until the first KVM_SET_GSI_ROUTING. */
  #routes: Map<number, Route[]> | undefined
  readonly #irqfds = new Map<EventFd, { readonly gsi: number; readonly stop: () => void }>()

  constructor(target: IrqTarget) {
    this.#target = target
  }

  get target(): IrqTarget {
    return this.#target
  }

  /** Replaces all routes. EINVAL leaves the old ones. */
  set(entries: Iterable<RoutingEntry>): void {
    const routes = new Map<number, Route[]>()
    for (const e of entries) {
      const message = e.type === uapi.KVM_IRQ_ROUTING_MSI
      const flags = message ? this.#target.messageFlags : 0
      if (e.gsi >= MAX_ROUTES || (e.flags & ~flags) !== 0)
        throw refuse('EINVAL', `route of ${e.gsi}`)
      const of = routes.get(e.gsi) ?? []
      routes.set(e.gsi, of)
      if (message) of.push({ message: messageOf(e.u.msi, e.flags) })
      else {
        const { irqchip, pin } = e.u.irqchip
        if (e.type !== uapi.KVM_IRQ_ROUTING_IRQCHIP || !this.#target.hasPin(irqchip, pin))
          throw refuse('EINVAL', `route of ${e.gsi}: type ${e.type}`)
        of.push({ irqchip, pin })
      }
    }
    this.#routes = routes
  }

  /** Raises an interrupt number once. */
  raise(gsi: number): void {
    if (this.#routes === undefined) {
      const pin = this.#target.defaultPin(gsi)
      if (pin !== undefined) this.#target.pulse(0, pin)
      return
    }
    for (const route of this.#routes.get(gsi) ?? [])
      if ('message' in route) this.#target.message(route.message)
      else this.#target.pulse(route.irqchip, route.pin)
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
    if (gsi >= MAX_ROUTES) throw refuse('EINVAL', `interrupt number ${gsi}`)
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
}

/** KVM_SIGNAL_MSI: how many took the message. EINVAL, and what the target says. */
export function signalMsi({ target }: IrqRouting, arg: number, caller: Process): number {
  const msi = copyIn(caller, arg, uapi.kvm_msi)
  if (!target.present || (msi.flags & ~target.messageFlags) !== 0)
    throw refuse('EINVAL', 'nobody takes this message')
  const taken = target.message(messageOf(msi, msi.flags))
  if (typeof taken === 'string') throw refuse(taken, 'nobody takes this message')
  return taken
}

function messageOf(
  m: { address_lo: number; address_hi: number; data: number; devid: number },
  flags: number,
): Message {
  return {
    addressLow: m.address_lo,
    addressHigh: m.address_hi,
    data: m.data,
    device: (flags & uapi.KVM_MSI_VALID_DEVID) !== 0 ? m.devid : undefined,
  }
}
