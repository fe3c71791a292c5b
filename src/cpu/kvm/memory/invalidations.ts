// The bookkeeping between faults and those who take mappings away, by guest frame number: a fault notes the sequence,
// looks things up, and installs what it found only if nothing it depends on was invalidated since.

/** Invalidations of one VM's guest-physical mappings. */
export class Invalidations {
  #sequence = 0
  #open = 0
  /** Union of the ranges under invalidation, [first, last]. */
  #first = Infinity
  #last = -1

  /** Counts invalidations that have ended. */
  get sequence(): number {
    return this.#sequence
  }

  /** Invalidations that have begun and not ended. */
  get open(): number {
    return this.#open
  }

  /** An invalidation begins; its ranges follow by `add`. */
  begin(): void {
    this.#open++
    if (this.#open === 1) {
      this.#first = Infinity
      this.#last = -1
    }
  }

  /** Pages [first, last] are under invalidation until the last one that is open ends. */
  add(first: number, last: number): void {
    if (this.#open === 0) throw new Error('a range without an invalidation')
    this.#first = Math.min(this.#first, first)
    this.#last = Math.max(this.#last, last)
  }

  /** An invalidation ends. More ends than begins are an Error. */
  end(): void {
    if (this.#open === 0) throw new Error('an invalidation ended that never began')
    this.#sequence++
    this.#open--
  }

  /** Whether a fault on a page that began at `sequence` must look again. */
  stale(sequence: number, gfn: number): boolean {
    if (this.#open > 0 && gfn >= this.#first && gfn <= this.#last) return true
    return sequence !== this.#sequence
  }
}
