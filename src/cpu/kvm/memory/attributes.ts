// Attributes of guest-physical pages (KVM_SET_MEMORY_ATTRIBUTES): which pages are private. Shared is what every page
// is until told otherwise; private pages are kept as ranges, so a call costs by the ranges it touches, not its width.

import { IntervalMap } from '../../../base/interval-map.js'

/** The private pages of one VM, by guest frame number (gfn). */
export class MemoryAttributes {
  readonly #private = new IntervalMap<true>()

  /** Ranges of private pages. */
  get ranges(): number {
    return this.#private.size
  }

  isPrivate(gfn: number): boolean {
    return this.#private.find(gfn) === true
  }

  /** Whether every page of [first, first + pages) is private, or every one shared. */
  all(first: number, pages: number, isPrivate: boolean): boolean {
    const last = first + pages - 1
    if (!isPrivate) return !this.#private.overlaps(first, last)
    let next = first
    for (const { start, end } of this.#private.entries(first, last)) {
      if (start > next) return false
      next = end + 1
    }
    return next > last
  }

  /** Makes every page of [first, first + pages) private, or shared. */
  set(first: number, pages: number, isPrivate: boolean): void {
    const last = first + pages - 1
    let [start, end] = [first, last]
    // One page more on each side, so that neighbours grow together.
    for (const range of [...this.#private.entries(first - 1, last + 1)]) {
      this.#private.remove(range.start)
      if (isPrivate) {
        start = Math.min(start, range.start)
        end = Math.max(end, range.end)
      } else {
        if (range.start < first)
          this.#private.insert(range.start, Math.min(range.end, first - 1), true)
        if (range.end > last) this.#private.insert(Math.max(range.start, last + 1), range.end, true)
      }
    }
    if (isPrivate) this.#private.insert(start, end, true)
  }

  /** The private ranges that share a page with [first, last], cut to it, ascending. */
  *privateRanges(
    first = 0,
    last = Number.MAX_SAFE_INTEGER,
  ): Generator<{ readonly first: number; readonly last: number }> {
    for (const { start, end } of this.#private.entries(first, last))
      yield { first: Math.max(start, first), last: Math.min(end, last) }
  }
}
