/**
 * The queues that the unit writes: events and page requests (IHI 0070 3.5, 7.2, 7.4, 8.1). Indices carry a
 * wrap bit above them; a full queue loses records and says so by OVFLG. An address that takes no write is a
 * global error, after which nothing is written until software acknowledged it. Commands: execute.ts.
 */
import type { GlobalErrors } from './global-errors.js'

/** The address and size of a queue, as registers hold them. */
export interface QueueBase {
  readonly ADDR: number
  readonly LOG2SIZE: number
}

/** What an output queue stands on. */
export interface OutputQueueRegisters {
  readonly base: QueueBase
  readonly producer: { WR: number; OVFLG: boolean }
  readonly consumer: { RD: number; OVACKFLG: boolean }
  /** The queue's enable bit, as acknowledged. */
  enabled(): boolean
}

/** log2 of the entries of a queue: no more than the unit has. */
export const queueBits = (base: QueueBase, most: number): number => Math.min(base.LOG2SIZE, most)

/** The address of a queue: aligned to its size. */
export function queueAddress(base: QueueBase, bits: number, entry: number): number {
  const bytes = entry << bits
  return Math.floor(base.ADDR / bytes) * bytes
}

/** A queue with the unit as producer. */
export class OutputQueue {
  readonly #r: OutputQueueRegisters
  readonly #memory: { write(addr: number, from: Uint8Array): boolean }
  readonly #errors: GlobalErrors
  readonly #error: 'EVENTQ_ABT_ERR' | 'PRIQ_ABT_ERR'
  readonly #mostBits: number
  readonly #filled: () => void

  /** `filled` runs when an empty queue received an entry. */
  constructor(
    registers: OutputQueueRegisters,
    memory: { write(addr: number, from: Uint8Array): boolean },
    errors: GlobalErrors,
    error: 'EVENTQ_ABT_ERR' | 'PRIQ_ABT_ERR',
    mostBits: number,
    filled: () => void,
  ) {
    this.#r = registers
    this.#memory = memory
    this.#errors = errors
    this.#error = error
    this.#mostBits = mostBits
    this.#filled = filled
  }

  /** True while an entry could be written. */
  get writable(): boolean {
    return this.usable && !this.full
  }

  /** True while the queue is enabled and has no unacknowledged error. */
  get usable(): boolean {
    return this.#r.enabled() && !this.#errors.active(this.#error)
  }

  get full(): boolean {
    const bits = queueBits(this.#r.base, this.#mostBits)
    const all = (2 << bits) - 1
    return ((this.#r.producer.WR - this.#r.consumer.RD) & all) >= 1 << bits
  }

  /** Where the next entry goes, wrap bit included. */
  get position(): number {
    return this.#r.producer.WR
  }

  /** True while software has taken every entry. */
  get empty(): boolean {
    const all = (2 << queueBits(this.#r.base, this.#mostBits)) - 1
    return ((this.#r.producer.WR ^ this.#r.consumer.RD) & all) === 0
  }

  /** True from an overflow until software acknowledged it. */
  get overflowed(): boolean {
    return this.#r.producer.OVFLG !== this.#r.consumer.OVACKFLG
  }

  /** Notes that a record was lost because the queue is full. */
  overflow(): void {
    this.#r.producer.OVFLG = !this.#r.consumer.OVACKFLG
  }

  /** Appends an entry; false when it was lost: disabled, in error, full (then OVFLG tells), or not writable. */
  push(entry: Uint8Array): boolean {
    if (!this.usable) return false
    if (this.full) {
      this.overflow()
      return false
    }
    const { base, producer } = this.#r
    const bits = queueBits(base, this.#mostBits)
    const all = (2 << bits) - 1
    const at = queueAddress(base, bits, entry.length) + (producer.WR & (all >> 1)) * entry.length
    if (!this.#memory.write(at, entry)) {
      this.#errors.raise(this.#error)
      return false
    }
    const { empty } = this
    producer.WR = (producer.WR + 1) & all
    if (empty) this.#filled()
    return true
  }
}
