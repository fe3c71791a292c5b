// Address space identifiers, each of which carries a guest's memory key in the memory controller (rule C-14).
// 1..max; guests with encrypted register state have those below `minPlain`, the others those from it on.

/** Which of the two ranges a guest draws from. */
export type AsidKind = 'plain' | 'encrypted-state'

/** A platform's ASIDs. */
export class AsidPool {
  readonly max: number
  /** Lowest ASID of a plain SEV guest (CPUID 8000_001F EDX). */
  readonly minPlain: number
  readonly #used = new Set<number>()

  /** RangeError unless 1 <= minPlain <= max + 1. */
  constructor(max: number, minPlain: number) {
    if (!(Number.isInteger(max) && max >= 1 && minPlain >= 1 && minPlain <= max + 1))
      throw new RangeError(`ASIDs 1 to ${max}, plain guests from ${minPlain}`)
    this.max = max
    this.minPlain = minPlain
  }

  /** ASIDs in use, ascending. */
  get used(): readonly number[] {
    return [...this.#used].sort((a, b) => a - b)
  }

  /** Whether the range of a kind has any ASID at all. */
  offers(kind: AsidKind): boolean {
    const [low, high] = this.#range(kind)
    return low <= high
  }

  /** Takes the lowest free ASID of a kind; undefined: exhausted. */
  take(kind: AsidKind): number | undefined {
    const [low, high] = this.#range(kind)
    for (let asid = low; asid <= high; asid++) {
      if (this.#used.has(asid)) continue
      this.#used.add(asid)
      return asid
    }
    return undefined
  }

  /** Takes one by number, for a restored guest; false when it is taken or out of range. */
  claim(asid: number): boolean {
    if (asid < 1 || asid > this.max || this.#used.has(asid)) return false
    this.#used.add(asid)
    return true
  }

  /** Gives one back. */
  free(asid: number): void {
    if (!this.#used.delete(asid)) throw new Error(`ASID ${asid} is not in use`)
  }

  #range(kind: AsidKind): readonly [number, number] {
    return kind === 'plain' ? [this.minPlain, this.max] : [1, this.minPlain - 1]
  }
}
