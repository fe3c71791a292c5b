/**
 * Tables of one stage as a driver keeps them: map, unmap and look up by page number, large pages where they
 * fit, tables given back when a whole span is unmapped. Frames of tables that were taken out are held until
 * `release`, since a unit may still walk them. Entries are words of RAM, 512 to a table; the last leaf table
 * is remembered, so that a single page costs no walk. Formats: vtd/driver-second-stage.ts, smmu/driver-stages.ts.
 */
import { ErrnoError } from '../base/errno.js'
import type { FrameAllocator } from '../mem/frames.js'

const ENTRIES = 512
/** IOMMU_READ and IOMMU_WRITE. */
const ACCESS = 3
/** Pages that an entry of a level maps; level 1 is a 4 KiB page's. */
const SPAN = [0, 1, 2 ** 9, 2 ** 18, 2 ** 27, 2 ** 36]
const HI = 2 ** 20 // pages in 2^32 bytes
/** Host page numbers end here (52-bit addresses). */
const HPA_PAGES = 2 ** 40

/** Low bits of entries in one format. The high words of all entries are address only. */
export interface EntryFormat {
  /** An entry is present when any of these is set. */
  readonly present: number
  /** Low bits of an entry that leads to a table. */
  readonly table: number
  /** Low bits of an entry that maps a page, by access (IOMMU_READ, IOMMU_WRITE): at the last level, and above it. */
  readonly page: readonly number[]
  readonly large: readonly number[]
  /** Above the last level an entry maps a page when these bits have this value. */
  readonly largeMask: number
  readonly largeValue: number
  /** Which bits of `page` and `large` say what access there is. */
  readonly accessMask: number
}

/** What the unit's tables may look like. */
export interface StageShape {
  readonly levels: 3 | 4 | 5
  /** Bits of input addresses, at most those of the levels. */
  readonly width: number
  /** Highest level that may map a page: 1 for 4 KiB only, 2 with 2 MiB, 3 with 1 GiB. */
  readonly largest: 1 | 2 | 3
  /** Root tables that follow each other as one, for more input bits than the levels have; default 1. */
  readonly roots?: number
}

/** One address space in tables. */
export class StageTables {
  /** Address of the root table. */
  readonly root: number
  readonly width: number
  readonly levels: number
  readonly pageSizes: readonly number[]
  /** Entries above leaves changed since `release`: a unit's paging-structure caches may be stale. */
  tablesChanged = false
  readonly #frames: FrameAllocator
  readonly #format: EntryFormat
  readonly #present: number
  readonly #words: Int32Array
  readonly #base: number
  readonly #roots: number
  readonly #largest: number
  readonly #last: number
  readonly #freed: number[] = []
  // Entries that the map under way has put tables behind, upper ones first.
  readonly #made: number[] = []
  // Which 2 MiB span the remembered leaf table serves, and its first word.
  #span = -1
  #leaf = 0

  /** ENOMEM when there is no frame for the root. */
  constructor(
    frames: FrameAllocator,
    format: EntryFormat,
    { levels, width, largest, roots = 1 }: StageShape,
  ) {
    this.#frames = frames
    this.#format = format
    this.#present = format.present
    this.#words = frames.ram.words
    this.#base = frames.ram.base
    this.levels = levels
    this.#roots = roots
    this.#largest = largest
    this.width = Math.min(width, 12 + 9 * levels + Math.log2(roots))
    this.#last = 2 ** (this.width - 12) - 1
    this.pageSizes = [12, 21, 30].slice(0, largest).map(bits => 2 ** bits)
    this.root = frames.alloc(roots, roots)
  }

  /**
   * Maps pages; nothing is mapped when it fails. EINVAL outside the input width or without access, EEXIST on a
   * page that is mapped, ENOMEM.
   */
  map(page: number, hpaPage: number, pages: number, prot: number): void {
    const access = prot & ACCESS
    if (!(page >= 0 && pages > 0 && page + pages - 1 <= this.#last) || access === 0)
      throw new ErrnoError('EINVAL', `map: ${pages} pages at page ${page}, access ${prot}`)
    if (!(hpaPage >= 0 && hpaPage + pages <= HPA_PAGES))
      throw new ErrnoError('EINVAL', `map: host page ${hpaPage} is no physical address`)
    const leaf = pages === 1 ? this.#find(page) : -1
    if (leaf >= 0) {
      this.#mapPage(leaf, page, hpaPage, access)
      return
    }
    let done = 0
    this.#made.length = 0
    try {
      while (done < pages)
        done += this.#mapLargest(page + done, hpaPage + done, pages - done, access)
    } catch (error) {
      this.#undo(page, done)
      throw error
    }
  }

  /** Unmaps what is mapped in the range and says how many pages that was. ENOMEM when a large page must be split. */
  unmap(page: number, pages: number): number {
    if (page > this.#last) return 0
    if (pages === 1) {
      const leaf = this.#find(page)
      if (leaf >= 0) return this.#clear(leaf + (page % ENTRIES) * 2)
    }
    const last = Math.min(page + pages - 1, this.#last)
    return last < page ? 0 : this.#unmapRange(this.#word(this.root), this.levels, 0, page, last)
  }

  /** Host page behind a page; -1 when it is not mapped. */
  lookup(page: number): number {
    if (page > this.#last) return -1
    let table = this.#word(this.root)
    for (let level = this.levels; level > 0; level--) {
      const at = table + this.#index(page, level) * 2
      const lo = this.#words[at]!
      if ((lo & this.#present) === 0) return -1
      if (level === 1 || this.#isLarge(lo)) return this.#target(at) + (page % SPAN[level]!)
      table = this.#tableAt(at)
    }
    return -1
  }

  /**
   * Visits the runs of pages whose entries have `flag` set in a range, clearing it unless `keep`; false when
   * there is none. A large page counts whole.
   */
  dirty(
    page: number,
    pages: number,
    flag: number,
    keep: boolean,
    visit: (page: number, pages: number) => void,
  ): boolean {
    let found = false
    const last = Math.min(page + pages - 1, this.#last)
    const descend = (table: number, level: number, base: number): void => {
      const span = SPAN[level]!
      const entries = level === this.levels ? ENTRIES * this.#roots : ENTRIES
      const to = Math.min(entries - 1, Math.floor((last - base) / span))
      for (let i = Math.max(0, Math.floor((page - base) / span)); i <= to; i++) {
        const at = table + i * 2
        const lo = this.#words[at]!
        if ((lo & this.#present) === 0) continue
        if (level > 1 && !this.#isLarge(lo)) descend(this.#tableAt(at), level - 1, base + i * span)
        else if ((lo & flag) !== 0) {
          found = true
          visit(base + i * span, span)
          if (keep) continue
          this.#words[at] = lo & ~flag
          if (this.#frames.ram.dirty !== undefined) this.#frames.ram.wrote(at * 4, 8, 'driver')
        }
      }
    }
    if (page <= last) descend(this.#word(this.root), this.levels, 0)
    return found
  }

  /** The caches hold nothing old any more: frames of tables that were taken out can be reused. */
  release(): void {
    this.tablesChanged = false
    while (this.#freed.length > 0) this.#frames.free(this.#freed.pop()!)
  }

  /** Gives every table back. Nothing may use the root any more. */
  free(): void {
    this.#forget(this.#word(this.root), this.levels, this.#roots)
    this.release()
    this.#span = -1
  }

  #mapPage(leaf: number, page: number, hpaPage: number, access: number): void {
    const at = leaf + (page % ENTRIES) * 2
    if ((this.#words[at]! & this.#present) !== 0) throw mapped(page)
    this.#put(at, hpaPage, this.#format.page[access]!)
  }

  /** Maps one entry of the largest size that fits; answers its pages. */
  #mapLargest(page: number, hpaPage: number, pages: number, access: number): number {
    let table = this.#word(this.root)
    for (let level = this.levels; level > 1; level--) {
      const span = SPAN[level]!
      const at = table + this.#index(page, level) * 2
      const lo = this.#words[at]!
      const present = (lo & this.#present) !== 0
      if (present && this.#isLarge(lo)) throw mapped(page)
      const fits = level <= this.#largest && pages >= span && page % span === 0
      if (!present && fits && hpaPage % span === 0) {
        this.#put(at, hpaPage, this.#format.large[access]!)
        return span
      }
      if (!present) {
        this.#link(at, this.#frames.alloc())
        this.#made.push(at)
      }
      table = this.#tableAt(at)
    }
    this.#span = Math.floor(page / ENTRIES)
    this.#leaf = table
    this.#mapPage(table, page, hpaPage, access)
    return 1
  }

  /**
   * Takes the first pages of a map back, and the tables it made. No unit looked at them meanwhile, so they are free at
   * once; those that were taken out before keep waiting for `release`.
   */
  #undo(page: number, pages: number): void {
    const waiting = this.#freed.length
    const changed = this.tablesChanged
    if (pages > 0) this.unmap(page, pages)
    while (this.#made.length > 0) {
      const at = this.#made.pop()!
      if ((this.#words[at]! & this.#present) === 0) continue
      this.#freed.push(this.#base + this.#tableAt(at) * 4)
      this.#clear(at)
    }
    while (this.#freed.length > waiting) this.#frames.free(this.#freed.pop()!)
    this.tablesChanged = changed
    this.#span = -1
  }

  /** First word of the leaf table that serves a page; -1 when there is none, also under a large page. */
  #find(page: number): number {
    const span = Math.floor(page / ENTRIES)
    if (span === this.#span) return this.#leaf
    let table = this.#word(this.root)
    for (let level = this.levels; level > 1; level--) {
      const at = table + this.#index(page, level) * 2
      const lo = this.#words[at]!
      if ((lo & this.#present) === 0 || this.#isLarge(lo)) return -1
      table = this.#tableAt(at)
    }
    this.#span = span
    this.#leaf = table
    return table
  }

  #unmapRange(table: number, level: number, base: number, first: number, last: number): number {
    const span = SPAN[level]!
    let unmapped = 0
    const from = Math.max(0, Math.floor((first - base) / span))
    const entries = level === this.levels ? ENTRIES * this.#roots : ENTRIES
    const to = Math.min(entries - 1, Math.floor((last - base) / span))
    for (let i = from; i <= to; i++) {
      const at = table + i * 2
      const lo = this.#words[at]!
      if ((lo & this.#present) === 0) continue
      const start = base + i * span
      const whole = first <= start && start + span - 1 <= last
      const page = level === 1 || this.#isLarge(lo)
      if (page && whole) {
        this.#clear(at)
        unmapped += span
        continue
      }
      if (page) this.#splitLarge(at, level)
      unmapped += this.#unmapRange(this.#tableAt(at), level - 1, start, first, last)
      if (whole) this.#unlink(at, level)
    }
    return unmapped
  }

  /** Turns a large page into a table of the next smaller size. */
  #splitLarge(at: number, level: number): void {
    const hpaPage = this.#target(at)
    const { page, large, accessMask } = this.#format
    const access = this.#words[at]! & accessMask
    const bits = (level > 2 ? large : page)[large.findIndex(l => (l & accessMask) === access)]!
    const frame = this.#frames.alloc()
    const table = this.#word(frame)
    const span = SPAN[level - 1]!
    for (let i = 0; i < ENTRIES; i++) this.#put(table + i * 2, hpaPage + i * span, bits)
    this.#link(at, frame)
    this.tablesChanged = true
  }

  #unlink(at: number, level: number): void {
    const table = this.#tableAt(at)
    this.#clear(at)
    this.#forget(table, level - 1)
    this.tablesChanged = true
    this.#span = -1
  }

  /** Puts the frames of a table and of those below it on the list of freed ones. */
  #forget(table: number, level: number, tables = 1): void {
    for (let i = 0; level > 1 && i < ENTRIES * tables; i++) {
      const lo = this.#words[table + i * 2]!
      if ((lo & this.#present) !== 0 && !this.#isLarge(lo))
        this.#forget(this.#tableAt(table + i * 2), level - 1)
    }
    for (let i = 0; i < tables; i++) this.#freed.push(this.#base + table * 4 + i * 4096)
  }

  #link(at: number, frame: number): void {
    this.#put(at, frame / 4096, this.#format.table)
  }

  /** Writes an entry, its low word with the access bits last. */
  #put(at: number, hpaPage: number, bits: number): void {
    this.#words[at + 1] = hpaPage / HI
    this.#words[at] = (hpaPage << 12) | bits
    if (this.#frames.ram.dirty !== undefined) this.#frames.ram.wrote(at * 4, 8, 'driver')
  }

  /** Clears an entry, access bits first; 1 when it was present. */
  #clear(at: number): number {
    if ((this.#words[at]! & this.#present) === 0) return 0
    this.#words[at] = 0
    this.#words[at + 1] = 0
    if (this.#frames.ram.dirty !== undefined) this.#frames.ram.wrote(at * 4, 8, 'driver')
    return 1
  }

  #target(at: number): number {
    return (this.#words[at + 1]! >>> 0) * HI + (this.#words[at]! >>> 12)
  }

  #isLarge(lo: number): boolean {
    return (lo & this.#format.largeMask) === this.#format.largeValue
  }

  /** Place of a page's entry in a table; the roots count as one table. */
  #index(page: number, level: number): number {
    const index = Math.floor(page / SPAN[level]!)
    return level === this.levels ? index : index % ENTRIES
  }

  #tableAt(at: number): number {
    return this.#word(this.#target(at) * 4096)
  }

  #word(hpa: number): number {
    return (hpa - this.#base) / 4
  }
}

const mapped = (page: number) => new ErrnoError('EEXIST', `map: page ${page} is mapped`)
