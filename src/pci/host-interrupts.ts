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
  readonly run: (index: number) => void
  /** Which of its block. */
  readonly index: number
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
   * count, as an interrupt translation service has it by DeviceID. `count`, a power of two up to 32, takes a
   * block whose data differ in their low bits, as MSI needs it; `vector` is its first, each is freed by itself
   * and the handler is told which. ENOSPC when all are taken.
   */
  allocate(handler: (index: number) => void, owner?: number, count = 1): HostVector {
    const vector = count === 1 ? (this.#free.pop() ?? this.#handlers.length) : this.#block(count)
    if (vector + count > 256 * PER_DESTINATION)
      throw new ErrnoError('ENOSPC', 'every interrupt vector is taken')
    for (let index = 0; index < count; index++)
      this.#handlers[vector + index] = { run: handler, index, owner }
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

  // The lowest free block, out of the free list; what it skips at the end of the vectors goes there.
  #block(count: number): number {
    let at = 0
    const free = (v: number) => this.#handlers[v] === undefined
    const fits = () => {
      if ((FIRST + (at % PER_DESTINATION)) % count !== 0) return false
      for (let i = 0; i < count; i++) if (!free(at + i)) return false
      return true
    }
    while (!fits()) at++
    if (at + count > 256 * PER_DESTINATION) return at
    const taken = this.#free.splice(0).filter(v => v < at || v >= at + count)
    for (let v = this.#handlers.length; v < at; v++) {
      this.#handlers[v] = undefined
      taken.push(v)
    }
    this.#free.push(...taken)
    return at
  }

  message(requester: number, address: number, data: number): void {
    const destination = (address >>> 12) & 0xff
    const within = (data & 0xff) - FIRST
    const known = within >= 0 && within < PER_DESTINATION
    const handler = known ? this.#handlers[destination * PER_DESTINATION + within] : undefined
    if (handler && (handler.owner === undefined || handler.owner === requester))
      handler.run(handler.index)
    else this.spurious++
  }
}

/** Gives back a block of `count` vectors from `first`. */
export function freeVectors(interrupts: HostInterrupts, first: number, count: number): void {
  for (let v = first; v < first + count; v++) interrupts.free(v)
}
