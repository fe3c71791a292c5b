// How large the pages of a slot may be mapped: 2 MiB and 1 GiB blocks are out where the slot begins or ends inside
// them, where guest-physical and the owner's addresses are not aligned alike, and where private and shared pages mix.

import { PAGE_SIZE } from '../../../base/addr.js'
import type { MemoryAttributes } from './attributes.js'
import type { Slot } from './slot.js'

/** Mapping levels: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB. */
export type MappingLevel = 1 | 2 | 3

/** Pages of a block of each level; index 0 is nothing. */
export const LEVEL_PAGES = [0, 1, 2 ** 9, 2 ** 18] as const
const LARGE = [2, 3] as const

/** The level that memory of 2^order contiguous pages allows. Orders other than 0, 9 and 18 are odd, and work. */
export const levelOfOrder = (order: number): MappingLevel => (order >= 18 ? 3 : order >= 9 ? 2 : 1)

/** First page of the block of a level that holds a page. */
export const blockOf = (gfn: number, level: MappingLevel): number =>
  gfn - (gfn % LEVEL_PAGES[level])

/** Mixed blocks of one slot, and what else bounds its mappings. */
export class MappingLevels {
  readonly #slot: Slot
  readonly #attributes: MemoryAttributes
  /** First pages of blocks with private and shared pages, by level. */
  readonly #mixed: Record<2 | 3, Set<number>> = { 2: new Set(), 3: new Set() }

  /** As the attributes are when the slot is created. */
  constructor(slot: Slot, attributes: MemoryAttributes) {
    this.#slot = slot
    this.#attributes = attributes
    for (const level of LARGE) {
      // Only a block in which a private range begins or ends can be mixed.
      for (const range of attributes.privateRanges(slot.first, slot.last)) {
        this.#look(blockOf(range.first, level), level)
        this.#look(blockOf(range.last, level), level)
      }
    }
  }

  /** Whether the block of a page has both private and shared pages. */
  mixed(gfn: number, level: 2 | 3): boolean {
    return this.#mixed[level].has(blockOf(gfn, level))
  }

  /** The largest level at most `most` that a page may be mapped at as far as the slot and attributes go. */
  most(gfn: number, most: MappingLevel = 3): MappingLevel {
    if (most === 3 && this.#allowed(gfn, 3)) return 3
    return most >= 2 && this.#allowed(gfn, 2) ? 2 : 1
  }

  /**
   * The attributes of [first, last], inside the slot, are all the same now: the blocks at its two ends are looked at
   * anew, those between are not mixed. Levels upwards: a 1 GiB block is looked at by what its 2 MiB blocks became.
   */
  changed(first: number, last: number): void {
    for (const level of LARGE) {
      const pages = LEVEL_PAGES[level]
      const mixed = this.#mixed[level]
      const [head, tail] = [blockOf(first, level), blockOf(last, level)]
      if ((tail - head) / pages > mixed.size) {
        for (const block of mixed) if (block > head && block < tail) mixed.delete(block)
      } else for (let block = head + pages; block < tail; block += pages) mixed.delete(block)
      this.#look(head, level)
      if (tail !== head) this.#look(tail, level)
    }
  }

  // Blocks that reach out of the slot are never large, mixed or not.
  #look(block: number, level: 2 | 3): void {
    if (!this.#inside(block, level)) return
    if (this.#uniform(block, level)) this.#mixed[level].delete(block)
    else this.#mixed[level].add(block)
  }

  #uniform(block: number, level: 2 | 3): boolean {
    const attributes = this.#attributes
    const kind = attributes.isPrivate(block)
    if (level === 2) return attributes.all(block, LEVEL_PAGES[2], kind)
    for (let at = block; at < block + LEVEL_PAGES[3]; at += LEVEL_PAGES[2])
      if (this.#mixed[2].has(at) || attributes.isPrivate(at) !== kind) return false
    return true
  }

  #inside(block: number, level: 2 | 3): boolean {
    const { first, last } = this.#slot
    return block >= first && block + LEVEL_PAGES[level] - 1 <= last
  }

  #allowed(gfn: number, level: 2 | 3): boolean {
    const { first, user } = this.#slot
    const pages = LEVEL_PAGES[level]
    if (first % pages !== (user / PAGE_SIZE) % pages) return false
    const block = blockOf(gfn, level)
    return this.#inside(block, level) && !this.#mixed[level].has(block)
  }
}
