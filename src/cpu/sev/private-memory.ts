// Guest memory as a processor under a guest's key sees it (rules C-23, C-24). Host RAM holds what the bus would show,
// ciphertext and shared bytes alike, and is all there is: a page in use by the processor has a plaintext copy, made
// when first touched and settled, block by block, before anybody else can look. So the processor works at full speed,
// and devices, the host and shared mappings see what they would see. Next: memory-key.ts; x86/mmu.ts uses this.

import type { AddressSpace } from '../../mem/address-space.js'
import { DirtyLog } from '../../mem/dirty-log.js'
import { RamRegion } from '../../mem/ram.js'
import type { EntryInto, EntrySource } from '../../paging/walk.js'
import { BLOCK, type MemoryKey } from './memory-key.js'

const PAGE = 4096
const BLOCKS = PAGE / BLOCK
/** Copies kept, used or not: beyond it they are made anew. */
const MOST_COPIES = 4096

/** The plaintext of one page. It is RAM to whoever reads and writes it, and remembers which blocks were written. */
export class PlainPage extends RamRegion {
  /** What the page held when the plaintext was last right, to be compared. */
  readonly cipher = new Uint8Array(PAGE)
  readonly cipherWords = new Int32Array(this.cipher.buffer)
  readonly #written = new Uint8Array(BLOCKS)
  /** Plaintext is right, and the only one allowed to look is its processor. */
  active = false
  /** `cipher` and the plaintext belong together. */
  known = false
  /** The RAM it is the plaintext of. */
  home: RamRegion
  offset = 0
  #touched = false

  constructor(home: RamRegion) {
    super(0, new Uint8Array(PAGE))
    this.home = home
    // Makes writers call `wrote`.
    this.dirty = new DirtyLog(1)
  }

  override wrote(offset: number, length: number): void {
    this.#touched = true
    const last = (offset + length - 1) >>> 4
    for (let block = offset >>> 4; block <= last; block++) this.#written[block] = 1
  }

  /** Calls `run` for each stretch of written blocks, in bytes, and forgets them. */
  takeWritten(run: (start: number, end: number) => void): void {
    if (!this.#touched) return
    this.#touched = false
    const written = this.#written
    for (let block = 0; block < BLOCKS; block++) {
      if (written[block] === 0) continue
      const first = block
      while (block < BLOCKS && written[block] === 1) written[block++] = 0
      run(first * BLOCK, block * BLOCK)
    }
  }
}

/** What private memory is made of. */
export interface PrivateMemoryParts {
  /** Guest-physical memory: ciphertext and shared bytes. */
  readonly memory: AddressSpace
  readonly key: MemoryKey
  /** Host physical address of a byte of guest RAM: what the key is tweaked by. */
  hostAddress(ram: RamRegion, offset: number): number
  /** Hears that a page now has encrypted bytes in it, or is about to be written unencrypted. */
  became(hostAddress: number, encrypted: boolean): void
}

/** A guest's memory under its key. */
export class PrivateMemory {
  /** Counts the times that plaintext was put away, for whoever remembers where it is. */
  generation = 0
  /** High half of the table entry read last: at the end of a walk, the leaf's. */
  lastEntryHigh = 0
  /** Runs when plaintext is put away: translations that lead to it must go. */
  onSettle: () => void = () => {}
  /** Runs when a page gets plaintext: translations that lead to its own bytes must go. */
  onActivate: (page: PlainPage) => void = () => {}
  /**
   * As memory that tables are read from: entry by entry, never by a window of words, so that the last one is known.
   */
  readonly tables: EntrySource = {
    readEntry: (at, into) => this.#readEntry(at, into),
    orEntry: (at, lo, hi) => this.#orEntry(at, lo, hi),
  }
  readonly #parts: PrivateMemoryParts
  readonly #copies = new Map<number, PlainPage>()
  #active: PlainPage[] = []

  constructor(parts: PrivateMemoryParts) {
    this.#parts = parts
  }

  /** Pages whose plaintext is out now. */
  get activePages(): number {
    return this.#active.length
  }

  /** The plaintext of the RAM page that holds a guest-physical address; undefined where there is no whole RAM page. */
  page(address: number): PlainPage | undefined {
    const { memory, hostAddress } = this.#parts
    const guestPage = address - (address % PAGE)
    const ram = memory.ramAt(guestPage)
    if (ram === undefined || guestPage + PAGE > ram.base + ram.size) return undefined
    const host = hostAddress(ram, guestPage - ram.base)
    let page = this.#copies.get(host)
    if (page?.active) return page
    if (page === undefined) {
      if (this.#copies.size >= MOST_COPIES) this.#forgetIdle()
      page = new PlainPage(ram)
      this.#copies.set(host, page)
    }
    page.home = ram
    page.offset = guestPage - ram.base
    this.#learn(page, host)
    page.active = true
    this.#active.push(page)
    this.onActivate(page)
    return page
  }

  /** The page is about to be used unencrypted: its plaintext goes where it belongs. `write`: it will be written. */
  share(address: number, write: boolean): void {
    const { memory, hostAddress, became } = this.#parts
    const guestPage = address - (address % PAGE)
    const ram = memory.ramAt(guestPage)
    if (ram === undefined || guestPage + PAGE > ram.base + ram.size) return
    const host = hostAddress(ram, guestPage - ram.base)
    const page = this.#copies.get(host)
    if (page?.active) {
      this.#putAway(page, host)
      this.#active = this.#active.filter(p => p !== page)
      this.generation++
      this.onSettle()
    }
    if (write) became(host, false)
  }

  /** Puts all plaintext away: from here on anybody may look at memory, or change it. */
  settle(): void {
    if (this.#active.length === 0) return
    const { hostAddress } = this.#parts
    for (const page of this.#active) this.#putAway(page, hostAddress(page.home, page.offset))
    this.#active = []
    this.generation++
    this.onSettle()
  }

  // ---- as memory that code is fetched from ----

  /** The plaintext page that holds an address, as a region at its guest-physical place. */
  ramAt(
    address: number,
  ): { readonly base: number; readonly size: number; readonly bytes: Uint8Array } | undefined {
    const plain = address % CIPHERED
    const page = this.page(plain)
    if (page === undefined) return undefined
    return { base: address - (address % PAGE), size: PAGE, bytes: page.bytes }
  }

  /** Reads plaintext; all-ones where there is no RAM, and then false. */
  read(address: number, into: Uint8Array, start = 0, length = into.length - start): boolean {
    let complete = true
    for (let done = 0; done < length; ) {
      const at = (address % CIPHERED) + done
      const piece = Math.min(length - done, PAGE - (at % PAGE))
      const bytes = this.page(at)?.bytes
      if (bytes === undefined) {
        complete = this.#parts.memory.read(at, into, start + done, piece) && complete
      } else {
        into.set(bytes.subarray(at % PAGE, (at % PAGE) + piece), start + done)
      }
      done += piece
    }
    return complete
  }

  /** Writes plaintext inside one page of RAM. */
  write(address: number, from: Uint8Array, start: number, length: number): void {
    const at = address % CIPHERED
    const page = this.page(at)
    if (page === undefined) return
    page.bytes.set(from.subarray(start, start + length), at % PAGE)
    page.wrote(at % PAGE, length)
  }

  // ---- inside ----

  #readEntry(at: number, into: EntryInto): boolean {
    const page = this.page(at)
    if (page === undefined) return this.#parts.memory.readEntry(at, into)
    const i = (at % PAGE) >>> 2
    into.entryLo = page.words[i]!
    into.entryHi = page.words[i + 1]!
    this.lastEntryHigh = into.entryHi
    return true
  }

  #orEntry(at: number, lo: number, hi: number): boolean {
    const page = this.page(at)
    if (page === undefined) return this.#parts.memory.orEntry(at, lo, hi)
    const i = (at % PAGE) >>> 2
    page.words[i] = page.words[i]! | lo
    page.words[i + 1] = page.words[i + 1]! | hi
    page.wrote(at % PAGE, 8)
    return true
  }

  // Makes the plaintext right again: only blocks that changed are decrypted. Most often none has.
  #learn(page: PlainPage, host: number): void {
    const { home, offset, cipher, cipherWords } = page
    const now = home.words
    const base = offset >>> 2
    let from = 0
    while (from < BLOCKS) {
      if (page.known) {
        let word = from * 4
        while (word < PAGE / 4 && now[base + word] === cipherWords[word]) word++
        from = word >>> 2
        if (from === BLOCKS) break
      }
      let to = from + 1
      while (to < BLOCKS && !(page.known && sameBlock(now, base, cipherWords, to * 4))) to++
      const [start, end] = [from * BLOCK, to * BLOCK]
      cipher.set(home.bytes.subarray(offset + start, offset + end), start)
      const plain = page.bytes.subarray(start, end)
      plain.set(cipher.subarray(start, end))
      this.#parts.key.decrypt(plain, host + start)
      from = to
    }
    page.known = true
  }

  #putAway(page: PlainPage, host: number): void {
    page.active = false
    let wrote = false
    page.takeWritten((start, end) => {
      const { home, offset, cipher } = page
      const bytes = cipher.subarray(start, end)
      bytes.set(page.bytes.subarray(start, end))
      this.#parts.key.encrypt(bytes, host + start)
      home.bytes.set(bytes, offset + start)
      if (home.dirty !== undefined) home.wrote(offset + start, end - start)
      wrote = true
    })
    if (wrote) this.#parts.became(host, true)
  }

  #forgetIdle(): void {
    for (const [host, page] of this.#copies) if (!page.active) this.#copies.delete(host)
  }
}

/**
 * Added to the physical address of a private access between translation and memory. No physical address has this
 * bit, and sums with an offset stay exact.
 */
export const CIPHERED = 2 ** 52

const sameBlock = (a: Int32Array, base: number, b: Int32Array, at: number): boolean =>
  a[base + at] === b[at] &&
  a[base + at + 1] === b[at + 1] &&
  a[base + at + 2] === b[at + 2] &&
  a[base + at + 3] === b[at + 3]
