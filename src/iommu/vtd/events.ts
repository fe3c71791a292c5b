/**
 * Event interrupts of a unit: fault, invalidation completion, page request (VT-d 7.3, 6.5.2.10, 7.5).
 * One control, data, address and upper-address register each. They never pass interrupt remapping.
 */
import { MESSAGE_BASE } from '../../pci/request.js'
import type { MessageSink } from '../../pci/upstream.js'

interface Control {
  IM: boolean
  IP: boolean
}

/** Requester id that a unit's own messages carry: no function is behind it. */
export const UNIT_REQUESTER = 0xffff

/**
 * The address of an interrupt message to APIC id `destination`. Ids above 255 have no place in a 32-bit
 * message; their bits 14:8 go into address bits 11:5, as virtual machines extend the format.
 */
export const messageAddress = (destination: number, logical: boolean, hint: boolean): number =>
  (MESSAGE_BASE |
    ((destination & 0xff) << 12) |
    (((destination >>> 8) & 0x7f) << 5) |
    (hint ? 8 : 0) |
    (logical ? 4 : 0)) >>>
  0

/** One event interrupt. */
export class EventInterrupt {
  readonly #control: Control
  readonly #data: { IMD: number }
  readonly #address: { MA: number }
  readonly #upper: { MUA: number }
  readonly #sink: MessageSink

  constructor(
    control: Control,
    data: { IMD: number },
    address: { MA: number },
    upper: { MUA: number },
    sink: MessageSink,
  ) {
    this.#control = control
    this.#data = data
    this.#address = address
    this.#upper = upper
    this.#sink = sink
  }

  /** An interrupt condition arose: sends the message, or holds it in IP while IM is set. */
  raise(): void {
    this.#control.IP = true
    this.deliver()
  }

  /** Sends what is pending, if it may: after software wrote the control register. */
  deliver(): void {
    if (!this.#control.IP || this.#control.IM) return
    this.#control.IP = false
    const extended = ((this.#upper.MUA >>> 8) & 0x7f) << 5
    this.#sink.message(
      UNIT_REQUESTER,
      ((this.#address.MA << 2) | extended) >>> 0,
      this.#data.IMD >>> 0,
    )
  }

  /** Software served every condition: nothing is pending any more. */
  serviced(): void {
    this.#control.IP = false
  }
}
