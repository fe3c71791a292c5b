/**
 * Writes tables in any format: what drivers and tests do, hardware never. Addresses are numbers of 4 KiB
 * pages, so that 64-bit ones are exact. Tables come from the caller and go back to it.
 * Reading them is the walkers' business: walker.ts.
 */
import { hex, highHalf, lowHalf } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { maskOf, type PageTableFormat } from './format.js'
import type { EntryInto } from './walk.js'

/** Memory that holds tables; `mem/address-space.ts` is one. */
export interface TableMemory {
  readEntry(at: number, into: EntryInto): boolean
  writeU32(at: number, value: number): boolean
}

/** Where tables come from. */
export interface TableFrames {
  /** The address of a zeroed table of `TableBuilder.tableBytes`. What it throws leaves the tables as they were before that entry. */
  allocTable(): number
  /** Takes a table back that nothing refers to any more. Without it, tables stay linked when empty. */
  freeTable?(at: number): void
}

const TWO20 = 0x10_0000
const PERMISSION_KINDS = 128

/** A writer of tables in one format. */
export class TableBuilder implements EntryInto {
  readonly format: PageTableFormat
  /** Size and alignment of a table, and of the root's, which the caller makes. */
  readonly tableBytes: number
  readonly rootBytes: number
  entryLo = 0
  entryHi = 0
  readonly #memory: TableMemory
  readonly #frames: TableFrames
  /** Pages mapped by an entry of each depth, and entries of a table there. */
  readonly #spans: number[]
  readonly #counts: number[]
  readonly #perPage: number[]
  /** One more than the highest input page. */
  readonly #pageLimit: number
  readonly #blocks: boolean[]
  readonly #last: number
  readonly #present: number
  /** Leaves by permissions, page and block; a table. */
  readonly #pageLo: Int32Array
  readonly #pageHi: Int32Array
  readonly #blockLo: Int32Array
  readonly #blockHi: Int32Array
  readonly #tableLo: number
  readonly #tableHi: number
  readonly #addressLo: number
  readonly #addressHi: number
  readonly #markMask: number
  readonly #blockMark: number

  constructor(format: PageTableFormat, memory: TableMemory, frames: TableFrames) {
    const { levels, spelling, block, page } = format
    this.format = format
    this.#memory = memory
    this.#frames = frames
    this.#spans = levels.map(level => 2 ** (level.index[1] - 12))
    this.#counts = levels.map(level => 2 ** (level.index[0] - level.index[1] + 1))
    this.#perPage = this.#spans.map(span => 1 / span)
    this.#pageLimit = 2 ** (format.input.above === 'zeros' ? format.input.bits - 12 : 52)
    this.rootBytes = this.#counts[0]! * 8
    this.tableBytes = this.#counts.at(-1)! * 8
    this.#blocks = levels.map(level => level.leaf !== undefined)
    this.#last = levels.length - 1
    this.#present = lowHalf(maskOf(format.present))
    const leaves = Array.from({ length: PERMISSION_KINDS }, (_, p) => spelling.leaf(p))
    const marked = (value: bigint, mark = block): bigint =>
      value | (BigInt(mark.value) << BigInt(mark.bit))
    const pages = leaves.map(leaf => (page === undefined ? leaf : marked(leaf, page)))
    const blocks = leaves.map(leaf => marked(leaf))
    const table = spelling.table | (BigInt(1 - block.value) << BigInt(block.bit))
    this.#pageLo = Int32Array.from(pages, lowHalf)
    this.#pageHi = Int32Array.from(pages, highHalf)
    this.#blockLo = Int32Array.from(blocks, lowHalf)
    this.#blockHi = Int32Array.from(blocks, highHalf)
    this.#tableLo = lowHalf(table)
    this.#tableHi = highHalf(table)
    this.#addressLo = lowHalf(maskOf(format.address))
    this.#addressHi = highHalf(maskOf(format.address))
    this.#markMask = 1 << block.bit
    this.#blockMark = block.value << block.bit
  }

  /**
   * Maps `pages` pages at `page` to those at `outputPage` with these PERM_*, by blocks of up to 2^largest
   * bytes where both are aligned. EEXIST, with nothing mapped, when a page is mapped already; EINVAL when the
   * format has no page so small or no address so wide.
   */
  map(
    root: number,
    page: number,
    outputPage: number,
    pages: number,
    permissions: number,
    largest = 12,
  ): void {
    const unit = this.#spans[this.#last]!
    if (unit > 1 && (page % unit !== 0 || outputPage % unit !== 0 || pages % unit !== 0)) {
      throw new ErrnoError('EINVAL', `map: ${this.format.name} maps multiples of ${unit} pages`)
    }
    if (!(page + pages <= this.#pageLimit)) {
      throw new ErrnoError('EINVAL', `map: page ${hex(page)} is too high for ${this.format.name}`)
    }
    const limit = largest === 12 ? 1 : 2 ** (largest - 12)
    let done = 0
    try {
      while (done < pages) {
        done += this.#mapOne(
          root,
          page + done,
          outputPage + done,
          pages - done,
          permissions & (PERMISSION_KINDS - 1),
          limit,
        )
      }
    } catch (error) {
      if (done > 0) this.unmap(root, page, done)
      throw error
    }
  }

  /**
   * Unmaps what is mapped in a range and answers how many pages that was. A block that the range covers in
   * part is split first. Tables whose whole span lies in the range are given back.
   */
  unmap(root: number, page: number, pages: number): number {
    const unit = this.#spans[this.#last]!
    if (pages === unit) {
      const at = this.entryAt(root, page)
      if (at >= 0) {
        if (!this.#read(at)) return 0
        this.#clear(at)
        return unit
      }
    }
    return this.#unmapTable(root, 0, page, pages)
  }

  /** The address of the entry of `depth` that serves a page; -1 when the tables do not reach it. */
  entryAt(root: number, page: number, depth = this.#last): number {
    let table = root
    for (let d = 0; ; d++) {
      const at = table + this.#index(page, d) * 8
      if (d === depth) return at
      if (!this.#read(at) || this.#isLeaf(d)) return -1
      table = this.#address()
    }
  }

  #mapOne(
    root: number,
    page: number,
    outputPage: number,
    pages: number,
    permissions: number,
    limit: number,
  ): number {
    let table = root
    for (let d = 0; ; d++) {
      const span = this.#spans[d]!
      const at = table + this.#index(page, d) * 8
      const present = this.#read(at)
      if (present && this.#isLeaf(d)) {
        throw new ErrnoError('EEXIST', `map: page ${hex(page)} is mapped`)
      }
      if (d === this.#last) {
        this.#write(at, outputPage, this.#pageLo[permissions]!, this.#pageHi[permissions]!)
        return span
      }
      if (
        !present &&
        span <= limit &&
        span <= pages &&
        this.#blocks[d]! &&
        page % span === 0 &&
        outputPage % span === 0
      ) {
        this.#write(at, outputPage, this.#blockLo[permissions]!, this.#blockHi[permissions]!)
        return span
      }
      if (present) table = this.#address()
      else {
        table = this.#frames.allocTable()
        this.#write(at, table / 4096, this.#tableLo, this.#tableHi)
      }
    }
  }

  #unmapTable(table: number, d: number, page: number, pages: number): number {
    const span = this.#spans[d]!
    const first = this.#index(page, d)
    const within = page % span
    let removed = 0
    // Page numbers relative to the span of entry `first`.
    for (let i = first, start = 0; start < within + pages && i < this.#counts[d]!; i++) {
      const from = Math.max(start, within)
      const to = Math.min(start + span, within + pages)
      const at = table + i * 8
      const whole = to - from === span
      if (this.#read(at)) {
        if (this.#isLeaf(d) && whole) {
          this.#clear(at)
          removed += span
        } else {
          const below = this.#isLeaf(d) ? this.#split(at, d) : this.#address()
          removed += this.#unmapTable(below, d + 1, page - within + from, to - from)
          if (whole && this.#frames.freeTable !== undefined) {
            this.#clear(at)
            this.#frames.freeTable(below)
          }
        }
      }
      start += span
    }
    return removed
  }

  // Replaces a block by a table of the next smaller leaves with the same bits.
  #split(at: number, d: number): number {
    const { entryLo, entryHi } = this
    const output = this.#address() / 4096
    const table = this.#frames.allocTable()
    const span = this.#spans[d + 1]!
    const { block, page } = this.format
    const mark = d + 1 === this.#last ? page : block
    let lo = entryLo & ~this.#addressLo & ~this.#markMask
    if (mark !== undefined) lo |= mark.value << mark.bit
    const hi = entryHi & ~this.#addressHi
    for (let i = 0; i < this.#counts[d + 1]!; i++)
      this.#write(table + i * 8, output + i * span, lo, hi)
    this.#write(at, table / 4096, this.#tableLo, this.#tableHi)
    return table
  }

  #index(page: number, d: number): number {
    // Spans are powers of two: the product is exact, and the mask drops its fraction.
    return (page * this.#perPage[d]!) & (this.#counts[d]! - 1)
  }

  // Reads an entry; true when it is present.
  #read(at: number): boolean {
    if (!this.#memory.readEntry(at, this)) throw new Error(`no table at ${hex(at)}`)
    return (this.entryLo & this.#present) !== 0
  }

  #isLeaf(d: number): boolean {
    return d === this.#last || (this.entryLo & this.#markMask) === this.#blockMark
  }

  #address(): number {
    const lo = (this.entryLo & this.#addressLo) >>> 0
    return (this.entryHi & this.#addressHi) * 0x1_0000_0000 + lo
  }

  // The half with the present bits goes last.
  #write(at: number, page: number, lo: number, hi: number): void {
    this.#memory.writeU32(at + 4, (page / TWO20) | hi)
    this.#memory.writeU32(at, (page << 12) | lo)
  }

  #clear(at: number): void {
    this.#memory.writeU32(at, 0)
    this.#memory.writeU32(at + 4, 0)
  }
}
