/**
 * Which pages of a region were written: a bitset, one bit a 4 KiB page, in the form the kernel's dirty
 * bitmaps have (bit k of little-endian 64-bit words).
 */
import { BitSet } from 'bitset'

/** Dirty pages of `pages` pages. */
export class DirtyLog {
  readonly pages: number
  #set = new BitSet()

  constructor(pages: number) {
    this.pages = pages
  }

  /** Records a write of `length` bytes at byte `offset`; parts outside the log are ignored. */
  mark(offset: number, length: number): void {
    if (length <= 0) return
    const last = Math.min(Math.floor((offset + length - 1) / 4096), this.pages - 1)
    for (let page = Math.max(Math.floor(offset / 4096), 0); page <= last; page++) {
      this.#set.set(page)
    }
  }

  has(page: number): boolean {
    return page < this.pages && this.#set.get(page) === 1
  }

  /** Number of dirty pages. */
  get count(): number {
    return this.#set.cardinality()
  }

  /** The bitmap of all pages in whole 64-bit words, little-endian. */
  bitmap(): Uint8Array {
    const words = new Int32Array(Math.ceil(this.pages / 64) * 2)
    for (let i = 0; i < words.length; i++) words[i] = this.#set.data[i] ?? 0
    return new Uint8Array(words.buffer)
  }

  /** Forgets everything. */
  clear(): void {
    this.#set = new BitSet()
  }
}
