/**
 * The ordinary case of a stage, made short: 9 index bits a level, tables in one region of RAM, nothing
 * reserved or refused, no flag to set. It makes no call and decides nothing: whatever it does not
 * recognise starts over in engine.ts. Who wraps it: walker.ts, nested.ts.
 */
import {
  LEAF_ADDRESS_HI,
  LEAF_ADDRESS_LO,
  LEAF_MASK,
  LEAF_RESERVED_HI,
  LEAF_RESERVED_LO,
  LEAF_VALUE,
  OFFSET_HI,
  OFFSET_LO,
  PAGE_BITS,
  ROW,
} from './compiled.js'
import { MODES, TableWalk } from './engine.js'
import type { PageTableFormat } from './format.js'
import {
  ACCESS_EXECUTE,
  ACCESS_EXTENDED,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  type EntrySource,
  FAILURE,
  type FailureCode,
  PERM_GLOBAL,
} from './walk.js'

/** Address bits in the high half of an entry. */
const ADDRESS_HI = 0xf_ffff
/** Address bits of a table in the low half of an entry, as words. */
const TABLE_WORD = 0x3fff_fc00

/** One stage, quick where it can be. */
export class Stage extends TableWalk {
  readonly #inner: Stage | undefined
  #access = -1
  #wanted = 0
  #modes = 0
  #tablesHi = 0
  #leafHi = 0
  #tableFlags = 0
  #leafFlags = 0
  #dirtyFlag = 0

  constructor(format: PageTableFormat, source: EntrySource, inner?: Stage) {
    super(format, source, inner)
    this.#inner = inner
  }

  override translate(hi: number, lo: number, access: number): FailureCode {
    const c = this.compiled
    const above = c.signShift < 0 ? c.aboveOnes : (hi << c.signShift) >> 31
    if (
      (((hi ^ above) & c.aboveHi) | ((lo ^ above) & c.aboveLo)) !== 0 ||
      this.source.generation !== this.generation ||
      !c.quick
    ) {
      return super.translate(hi, lo, access)
    }
    const inner = this.#inner
    if (inner !== undefined) return this.#translateThrough(inner, hi, lo, access)

    const words = this.words
    const windowHi = this.windowHi
    const bias = this.bias
    const limit = this.limit
    if (this.rootHi !== windowHi) return super.translate(hi, lo, access)
    const want = c.tableWant
    const maskLo = c.tableMaskLo
    const maskHi = c.tableMaskHi | ADDRESS_HI
    let left = (hi << c.align) | (lo >>> (32 - c.align))
    let right = lo << c.align
    let table = this.rootLo
    let tables = -1
    let tablesHigh = 0
    for (let n = c.last; ; n--) {
      const word = (((table >>> 2) & TABLE_WORD) + (bias | ((left >>> 22) & 0x3fe))) | 0
      if (word >>> 0 >= limit) return super.translate(hi, lo, access)
      const entryLo = words[word]!
      const entryHi = words[word | 1]!
      if (n === 0 || (((entryLo ^ want) & maskLo) | ((entryHi ^ windowHi) & maskHi)) !== 0) {
        return this.#leaf(n, entryLo, entryHi, hi, lo) &&
          this.#granted(tables, tablesHigh, entryLo, entryHi, access)
          ? FAILURE.none
          : super.translate(hi, lo, access)
      }
      table = entryLo
      tables &= entryLo
      tablesHigh |= entryHi
      left = (left << 9) | (right >>> 23)
      right <<= 9
    }
  }

  // The same with every table behind another stage.
  #translateThrough(inner: Stage, hi: number, lo: number, access: number): FailureCode {
    if (inner.generation !== this.source.generation) return super.translate(hi, lo, access)
    const c = this.compiled
    const words = inner.words
    const want = c.tableWant
    const maskLo = c.tableMaskLo
    const maskHi = c.tableMaskHi
    const flags = (access & ACCESS_FLAGS2) !== 0
    let left = (hi << c.align) | (lo >>> (32 - c.align))
    let right = lo << c.align
    let entryHi = this.rootHi
    let entryLo = this.rootLo
    let tables = -1
    let tablesHigh = 0
    for (let n = c.last; ; n--) {
      const at = (entryLo & ~0xfff) | ((left >>> 20) & 0xff8)
      const word = inner.locate(entryHi & 0xf_ffff, at, flags)
      if (word < 0) return super.translate(hi, lo, access)
      entryLo = words[word]!
      entryHi = words[word | 1]!
      if (n === 0 || (((entryLo ^ want) & maskLo) | (entryHi & maskHi)) !== 0) {
        return this.#leaf(n, entryLo, entryHi, hi, lo) &&
          this.#granted(tables, tablesHigh, entryLo, entryHi, access)
          ? FAILURE.none
          : super.translate(hi, lo, access)
      }
      tables &= entryLo
      tablesHigh |= entryHi
      left = (left << 9) | (right >>> 23)
      right <<= 9
    }
  }

  // Takes the output from an entry of level n above the last; false unless it is an ordinary leaf.
  #leaf(n: number, entryLo: number, entryHi: number, hi: number, lo: number): boolean {
    const c = this.compiled
    this.depth = c.last - n
    if (n === 0) {
      this.outHi = entryHi & c.tableHi
      this.outLo = (entryLo & ~0xfff) | (lo & 0xfff)
      this.pageBits = 12
      return (((entryLo ^ c.pageWant) & c.pageMaskLo) | (entryHi & c.pageMaskHi)) === 0
    }
    const rows = this.rows
    const row = (c.last - n) * ROW
    this.outHi = (entryHi & rows[row | LEAF_ADDRESS_HI]!) | (hi & rows[row | OFFSET_HI]!)
    this.outLo = (entryLo & rows[row | LEAF_ADDRESS_LO]!) | (lo & rows[row | OFFSET_LO]!)
    this.pageBits = rows[row | PAGE_BITS]!
    return (
      (((entryLo ^ rows[row | LEAF_VALUE]!) & rows[row | LEAF_MASK]!) |
        (~entryLo & 1) |
        (entryLo & rows[row | LEAF_RESERVED_LO]!) |
        (entryHi & rows[row | LEAF_RESERVED_HI]!)) ===
      0
    )
  }

  // True when the entries grant the access and have no flag to be set.
  #granted(
    tables: number,
    tablesHigh: number,
    entryLo: number,
    entryHi: number,
    access: number,
  ): boolean {
    if (access !== this.#access) this.#prepare(access)
    const c = this.compiled
    const gathered =
      ((((tables | c.leafOnly) & entryLo) >>> c.lowShift) & c.lowMask) |
      ((entryHi >>> c.leafShift) & c.leafMask) |
      ((tablesHigh >>> c.tablesShift) & c.tablesMask)
    const rights = c.rights[(gathered << 4) | this.#modes]!
    this.rights = ((entryLo ^ c.globalClear) & c.globalMask) !== 0 ? rights | PERM_GLOBAL : rights
    this.clean = ~entryLo & this.#dirtyFlag
    this.missing = 0
    return (
      ((entryHi & this.#leafHi) |
        (tablesHigh & this.#tablesHi) |
        (~tables & this.#tableFlags) |
        (~entryLo & this.#leafFlags) |
        (~rights & this.#wanted)) ===
      0
    )
  }

  // What an access asks of the entries, worked out when it differs from the one before.
  #prepare(access: number): void {
    const c = this.compiled
    const nxe = (access & ACCESS_NXE) !== 0
    const maintained = c.flagsWhen === 0 || (access & c.flagsWhen) !== 0
    const extended = (access & ACCESS_EXTENDED) !== 0 ? c.extendedFlag : 0
    const dirty = (access & ACCESS_WRITE) !== 0 ? c.dirtyFlag : 0
    const wanted = access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE)
    this.#access = access
    this.#wanted = (access & ACCESS_USER) !== 0 ? wanted << 3 : wanted
    this.#modes = (access >>> 4) & MODES
    this.#tablesHi = nxe ? 0 : c.withoutNxe
    this.#leafHi = this.#tablesHi | c.contiguousHi
    this.#tableFlags = maintained ? c.tableFlag | extended : 0
    this.#leafFlags = maintained ? c.leafFlag | extended | dirty : c.flagsFault ? c.leafFlag : 0
    this.#dirtyFlag = maintained ? c.dirtyFlag : 0
  }

  /**
   * The word of the window that an address of this innermost stage leads to when it is read; -1 when that
   * takes more than reading entries. `flags`: accessed flags are kept, and must be set already.
   */
  locate(hi: number, lo: number, flags: boolean): number {
    const c = this.compiled
    const windowHi = this.windowHi
    const beyond = (hi & c.aboveHi) | (lo & c.aboveLo) | (this.rootHi ^ windowHi)
    if (beyond !== 0 || !c.quick) return -1
    const words = this.words
    const bias = this.bias
    const limit = this.limit
    const tableFlag = flags ? c.tableFlag : 0
    const want = c.tableWant | tableFlag
    const maskLo = c.tableMaskLo | tableFlag
    const maskHi = c.tableMaskHi | ADDRESS_HI
    let left = (hi << c.align) | (lo >>> (32 - c.align))
    let right = lo << c.align
    let table = this.rootLo
    for (let n = c.last; ; n--) {
      const word = (((table >>> 2) & TABLE_WORD) + (bias | ((left >>> 22) & 0x3fe))) | 0
      if (word >>> 0 >= limit) return -1
      const entryLo = words[word]!
      const entryHi = words[word | 1]!
      if (n === 0 || (((entryLo ^ want) & maskLo) | ((entryHi ^ windowHi) & maskHi)) !== 0) {
        const needed = c.leafReads | (flags || c.flagsFault ? c.leafFlag : 0)
        let out = (entryLo & ~0xfff) | (lo & 0xfff)
        if (n !== 0) {
          if (!this.#leaf(n, entryLo, entryHi, hi, lo)) return -1
          out = this.outLo
        } else if ((((entryLo ^ c.pageWant) & c.pageMaskLo) | (entryHi & c.pageMaskHi)) !== 0) {
          return -1
        }
        const at = ((out >>> 2) + bias) | 0
        const elsewhere = (~entryLo & needed) | ((entryHi ^ windowHi) & ADDRESS_HI)
        return elsewhere === 0 && at >>> 0 < limit ? at : -1
      }
      table = entryLo
      left = (left << 9) | (right >>> 23)
      right <<= 9
    }
  }
}
