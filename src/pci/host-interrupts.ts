/**
 * The host's interrupt controller as far as messages go: vectors with handlers, each at a message
 * address (Intel SDM vol. 3, 11.11: destination in address bits 19:12, vector in data bits 7:0).
 * Priorities, levels and processors are not modelled.
 */
import { ErrnoError } from '../base/errno.js'
import { MESSAGE_BASE } from './request.js'
import type { MessageSink } from './upstream.js'

/** A vector handed out: program `address` and `data` into a device or an interrupt remapping entry. */
export interface HostVector {
  readonly address: number
  readonly data: number
  readonly vector: number
}

/** Vectors below this are the processor's own. */
const FIRST = 0x30
const PER_DESTINATION = 0xf0 - FIRST

interface Handler {
  readonly run: () => void
  /** The only requester that may raise it; undefined: any. */
  readonly owner: number | undefined
}

/** Message-signalled interrupts of the host. */
export class HostInterrupts implements MessageSink {
  /** Messages that reached no handler, or one that is not for their sender. */
  spurious = 0
  readonly #handlers: (Handler | undefined)[] = []
  readonly #free: number[] = []

  /**
   * Takes a vector, the lowest never used or the one freed last. With `owner` only messages of that requester
   * count, as an interrupt translation service has it by DeviceID. ENOSPC when all are taken.
   */
  allocate(handler: () => void, owner?: number): HostVector {
    const vector = this.#free.pop() ?? this.#handlers.length
    if (vector >= 256 * PER_DESTINATION)
      throw new ErrnoError('ENOSPC', 'every interrupt vector is taken')
    this.#handlers[vector] = { run: handler, owner }
    const destination = Math.floor(vector / PER_DESTINATION)
    return {
      address: MESSAGE_BASE + destination * 0x1000,
      data: FIRST + (vector % PER_DESTINATION),
      vector,
    }
  }

  /** Gives a vector back; messages to it are spurious from now on. */
  free(vector: number): void {
    if (!this.#handlers[vector]) throw new Error(`interrupt vector ${vector} is not allocated`)
    this.#handlers[vector] = undefined
    this.#free.push(vector)
  }

  /** Vectors held. */
  get used(): number {
    return this.#handlers.length - this.#free.length
  }

  message(requester: number, address: number, data: number): void {
    const destination = (address >>> 12) & 0xff
    const within = (data & 0xff) - FIRST
    const known = within >= 0 && within < PER_DESTINATION
    const handler = known ? this.#handlers[destination * PER_DESTINATION + within] : undefined
    if (handler && (handler.owner === undefined || handler.owner === requester)) handler.run()
    else this.spurious++
  }
}
