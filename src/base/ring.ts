/**
 * Producer and consumer indices of a circular queue in memory, both ways hardware tells full from
 * empty: one slot left unused (VT-d 6.5.2), or a wrap bit above the index (SMMUv3 3.5.1).
 * Only the arithmetic; the entries are the queue owner's.
 */

/** The arithmetic of a ring of 2^log2Entries slots. Indices are raw register values, wrap bit included. */
export class Ring {
  readonly entries: number
  readonly wrapBit: boolean
  readonly #mask: number
  /** Raw indices run from 0 to this. */
  readonly #rawMask: number

  /** `log2Entries` is 0 to 30 (1 or more without a wrap bit, where one slot stays unused). */
  constructor(log2Entries: number, wrapBit: boolean) {
    if (!(log2Entries >= (wrapBit ? 0 : 1) && log2Entries <= 30)) {
      throw new Error(`a ring of 2^${log2Entries} entries`)
    }
    this.entries = 2 ** log2Entries
    this.wrapBit = wrapBit
    this.#mask = this.entries - 1
    this.#rawMask = wrapBit ? this.entries * 2 - 1 : this.#mask
  }

  /** Entries that can be in the ring at once. */
  get capacity(): number {
    return this.wrapBit ? this.entries : this.entries - 1
  }

  /** The slot a raw index points at. */
  slot(index: number): number {
    return index & this.#mask
  }

  /** The raw index after `index`. */
  next(index: number): number {
    return (index + 1) & this.#rawMask
  }

  /** Entries between consumer and producer; with a wrap bit, more than `capacity` means corrupt indices. */
  used(producer: number, consumer: number): number {
    return (producer - consumer) & this.#rawMask
  }

  isEmpty(producer: number, consumer: number): boolean {
    return this.used(producer, consumer) === 0
  }

  isFull(producer: number, consumer: number): boolean {
    return this.used(producer, consumer) >= this.capacity
  }
}
