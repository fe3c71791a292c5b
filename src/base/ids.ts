/**
 * Small integer ids: PASIDs, domain ids, descriptors, frames. The sets are `bitset`s; above the set of
 * held ids stand summaries (a bit a word, a bit a word of those, …), so that the lowest free id and the
 * next held one are found in a few steps whether ten ids are held or a million.
 */
import { BitSet } from 'bitset'

const MAX_ID = 2 ** 24 - 1

/** Ids from `min` to `max`, both included, handed out lowest first. */
export class IdAllocator {
  readonly min: number
  readonly max: number
  #count = 0
  // Level 0 has a bit per id; bit w of level n + 1 tells of word w of level n: some bit set, all bits set.
  readonly #ids = new BitSet()
  readonly #some: number[][] = []
  readonly #all: number[][] = []

  /** `max` is at most 2^24-1. */
  constructor(min: number, max: number) {
    if (!(min >= 0 && min <= max && max <= MAX_ID)) throw new Error(`ids ${min} to ${max}`)
    this.min = min
    this.max = max
    this.#some.push(this.#ids.data)
    this.#all.push(this.#ids.data)
    for (let words = (max >> 5) + 1; words > 1; words = ((words - 1) >> 5) + 1) {
      this.#some.push(new BitSet().data)
      this.#all.push(new BitSet().data)
    }
  }

  /** Number of ids held. */
  get count(): number {
    return this.#count
  }

  has(id: number): boolean {
    return id >= this.min && id <= this.max && this.#ids.get(id) === 1
  }

  /** Takes the lowest free id in [min, max]; -1 when there is none. */
  alloc(min = this.min, max = this.max): number {
    const id = this.nextFree(min)
    if (id < 0 || id > max) return -1
    this.#hold(id)
    return id
  }

  /** Takes this id; false when it is held already or out of range. */
  take(id: number): boolean {
    if (!(id >= this.min && id <= this.max) || this.#ids.get(id) === 1) return false
    this.#hold(id)
    return true
  }

  /** Gives an id back; false when it was not held. */
  free(id: number): boolean {
    if (!this.has(id)) return false
    this.#count--
    const ids = this.#some[0]!
    let w = id >>> 5
    let wasFull = ids[w] === -1
    ids[w] = ids[w]! & ~(1 << id)
    let empty = ids[w] === 0
    for (let level = 1; level < this.#some.length && (wasFull || empty); level++) {
      const mask = ~(1 << w)
      w >>>= 5
      if (wasFull) {
        const all = this.#all[level]!
        wasFull = all[w] === -1
        all[w] = all[w]! & mask
      }
      if (empty) {
        const some = this.#some[level]!
        some[w] = some[w]! & mask
        empty = some[w] === 0
      }
    }
    return true
  }

  /** The lowest free id not below `from`, -1 when there is none. */
  nextFree(from: number): number {
    return search(this.#all, -1, Math.max(from, this.min), this.max)
  }

  /** The lowest held id not below `from`, -1 when there is none: the step of a walk that allocates nothing. */
  next(from: number): number {
    return search(this.#some, 0, Math.max(from, this.min), this.max)
  }

  /** Held ids of a range, ascending. Ids may be freed on the way. */
  *held(from = this.min, to = this.max): Generator<number> {
    for (let id = this.next(from); id >= 0 && id <= to; id = this.next(id + 1)) yield id
  }

  #grow(word: number): void {
    for (let level = 0, w = word; level < this.#some.length; level++, w >>>= 5) {
      const some = this.#some[level]!
      const all = this.#all[level]!
      while (some.length <= w) some.push(0)
      while (all.length <= w) all.push(0)
    }
  }

  #hold(id: number): void {
    this.#count++
    const ids = this.#some[0]!
    let w = id >>> 5
    if (w >= ids.length) this.#grow(w)
    let wasEmpty = ids[w] === 0
    ids[w] = ids[w]! | (1 << id)
    let full = ids[w] === -1
    for (let level = 1; level < this.#some.length && (wasEmpty || full); level++) {
      const mask = 1 << w
      w >>>= 5
      if (wasEmpty) {
        const some = this.#some[level]!
        wasEmpty = some[w] === 0
        some[w] = some[w]! | mask
      }
      if (full) {
        const all = this.#all[level]!
        all[w] = all[w]! | mask
        full = all[w] === -1
      }
    }
  }
}

// The lowest bit of level 0, from `from` to `max`, that differs from those of the word `dull` (0 or -1).
function search(levels: number[][], dull: number, from: number, max: number): number {
  if (from > max) return -1
  let bit = from
  for (let level = 0; level < levels.length; level++) {
    const words = levels[level]!
    const w = bit >>> 5
    const found = (wordAt(words, w) ^ dull) & (-1 << bit)
    if (found !== 0) {
      bit = (w << 5) | lowest(found)
      for (let down = level - 1; down >= 0; down--) {
        bit = (bit << 5) | lowest(wordAt(levels[down]!, bit) ^ dull)
      }
      return bit > max ? -1 : bit
    }
    bit = w + 1
  }
  return -1
}

// The sets grow as ids are held; what they do not reach yet is free.
const wordAt = (words: number[], w: number): number => (w < words.length ? words[w]! : 0)
const lowest = (word: number): number => 31 - Math.clz32(word & -word)
