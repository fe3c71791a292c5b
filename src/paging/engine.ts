/**
 * The engine: one stage of translation over one set of tables, every case of it. Index, read, present,
 * reserved, descend; then permissions and flags. All state is in 32-bit halves; entries in RAM cost an
 * array index. A stage whose tables lie behind another stage has that one as `inner` and asks it for
 * every entry. The ordinary case takes a shorter way: stage.ts.
 */
import {
  CONTIGUOUS_BITS,
  type Compiled,
  compile,
  INDEX_BITS,
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
  TABLE_RESERVED_HI,
  TABLE_RESERVED_LO,
} from './compiled.js'
import type { PageTableFormat } from './format.js'
import {
  ACCESS_EXECUTE,
  ACCESS_EXTENDED,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_SMAP,
  ACCESS_SMEP,
  ACCESS_USER,
  ACCESS_WRITE,
  DURING,
  type During,
  type EntrySource,
  type EntryWindow,
  FAILURE,
  type FailureCode,
  PERM_GLOBAL,
  type Walk,
} from './walk.js'

const TWO32 = 0x1_0000_0000
/** An address from halves. */
export const addressOf = (hi: number, lo: number): number => (hi >>> 0) * TWO32 + (lo >>> 0)
/** Bits 63:32 of an address. */
export const highOf = (address: number): number => (address > 0xffff_ffff ? address / TWO32 : 0) | 0

const NO_WORDS: EntryWindow['words'] = new Int32Array(2)
/** Masks the mode bits of an access, shifted down. */
export const MODES = 15

/** One stage of translation, complete. Results are its fields, read before the next `translate`. */
export class TableWalk {
  readonly compiled: Compiled
  protected readonly source: EntrySource
  /** The stage that this one's table addresses go through. */
  readonly inner: TableWalk | undefined

  /** Root of the tables, as halves; set before `translate`. */
  rootHi = 0
  rootLo = 0

  /** Output of a translation, its PERM_*, log2 of its page, and the flags a write would still set. */
  outHi = 0
  outLo = 0
  rights = 0
  pageBits = 12
  clean = 0
  /** Flags that this access has to set, left over for `setFlags`. */
  missing = 0
  /** Where the walk stopped: steps from the root, and the entry's raw value. */
  depth = -1
  entryLo = 0
  entryHi = 0
  /** True when it was `inner` that failed, and for what. */
  innerFailed = false
  innerDuring: During = DURING.entry

  /** Address of the entry at each depth, as hi, lo pairs, in the space the tables live in. */
  readonly trail = new Int32Array(2 * 5)

  protected readonly rows: Int32Array
  /**
   * The RAM that entries are read from by index while the source's generation stays the same: the entry at
   * bits `windowHi`:lo is at word (lo >>> 2) + `bias`, if that is below `limit`.
   */
  protected words = NO_WORDS
  protected windowHi = 0
  protected bias = 0
  protected limit = 0
  protected generation = -1

  constructor(format: PageTableFormat, source: EntrySource, inner?: TableWalk) {
    this.compiled = compile(format)
    this.rows = this.compiled.rows
    this.source = source
    this.inner = inner
  }

  /** Sets the root from an address. */
  setRoot(root: number): void {
    this.rootHi = highOf(root)
    this.rootLo = root & this.compiled.rootMask
  }

  /**
   * Translates an input address. Answers FAILURE.none with the results in the fields, or why not.
   * With `inner`, flags are not set but left in `missing`: the owner of both stages decides when.
   */
  translate(hi: number, lo: number, access: number): FailureCode {
    const c = this.compiled
    const rows = this.rows
    const inner = this.inner
    const trail = this.trail
    const inHi = hi
    const inLo = lo
    const above = c.signShift < 0 ? c.aboveOnes : (hi << c.signShift) >> 31
    if ((((hi ^ above) & c.aboveHi) | ((lo ^ above) & c.aboveLo)) !== 0) {
      return this.#stop(c.aboveFailure, -1, 0, 0)
    }
    if (this.source.generation !== this.generation) this.#forgetWindow()

    const align = c.align
    if (align < 32) {
      hi = (hi << align) | (lo >>> (32 - align))
      lo <<= align
    } else {
      hi = lo << (align - 32)
      lo = 0
    }
    const withoutNxe = (access & ACCESS_NXE) !== 0 ? 0 : c.withoutNxe
    let tableHi = this.rootHi
    let tableLo = this.rootLo
    let tables = -1
    let tablesHigh = 0

    for (let i = 0, p = 0; ; i++, p += ROW) {
      const bits = rows[p + INDEX_BITS]!
      let atHi = tableHi
      let atLo = tableLo | ((hi >>> -bits) << 3)
      hi = (hi << bits) | (lo >>> -bits)
      lo <<= bits
      trail[2 * i] = atHi
      trail[2 * i + 1] = atLo

      if (inner !== undefined) {
        const refused = inner.translate(
          atHi,
          atLo,
          ACCESS_READ | (access & (ACCESS_FLAGS2 | ACCESS_PROBE)),
        )
        if (refused !== FAILURE.none) return this.#stopInner(refused, i, DURING.entry)
        atHi = inner.outHi
        atLo = inner.outLo
      }

      const failure = this.#fetch(atHi, atLo)
      if (failure !== FAILURE.none) return this.#stop(failure, i, 0, 0)
      const entryLo = this.entryLo
      const entryHi = this.entryHi

      if ((entryLo & c.present) === 0) return this.#stop(FAILURE.notPresent, i, entryLo, entryHi)
      if ((entryLo & rows[p + LEAF_MASK]!) !== rows[p + LEAF_VALUE]!) {
        if (
          ((entryLo & rows[p + TABLE_RESERVED_LO]!) |
            (entryHi & (rows[p + TABLE_RESERVED_HI]! | withoutNxe))) !==
          0
        ) {
          return this.#stopReserved(p + TABLE_RESERVED_LO, i, entryLo, entryHi)
        }
        tables &= entryLo
        tablesHigh |= entryHi
        tableHi = (entryHi & c.tableHi) | ((entryLo & c.wide) << 4)
        tableLo = entryLo & c.tableLo
        continue
      }
      if (
        ((entryLo & rows[p + LEAF_RESERVED_LO]!) |
          (entryHi & (rows[p + LEAF_RESERVED_HI]! | withoutNxe))) !==
        0
      ) {
        return this.#stopReserved(p + LEAF_RESERVED_LO, i, entryLo, entryHi)
      }

      this.innerFailed = false
      this.depth = i
      this.entryLo = entryLo
      this.entryHi = entryHi
      this.outHi =
        (entryHi & rows[p + LEAF_ADDRESS_HI]!) |
        ((entryLo & c.wide) << 4) |
        (inHi & rows[p + OFFSET_HI]!)
      this.outLo = (entryLo & rows[p + LEAF_ADDRESS_LO]!) | (inLo & rows[p + OFFSET_LO]!)
      this.pageBits =
        (entryHi & c.contiguousHi) !== 0 ? rows[p + CONTIGUOUS_BITS]! : rows[p + PAGE_BITS]!
      return this.#grant(tables, tablesHigh, entryLo, entryHi, access)
    }
  }

  /** Sets the flags that the last translation found missing, entry by entry from the root. */
  setFlags(access: number): FailureCode {
    const { tableFlag, leafFlag, dirtyFlag, extendedFlag } = this.compiled
    const extended = (access & ACCESS_EXTENDED) !== 0 ? extendedFlag : 0
    const last = this.depth
    const leafLo = this.entryLo
    const leafHi = this.entryHi
    const inner = this.inner
    this.missing = 0
    for (let i = 0; i <= last; i++) {
      const dirty = (access & ACCESS_WRITE) !== 0 ? dirtyFlag : 0
      const flags = (i === last ? leafFlag | dirty : tableFlag) | extended
      let atHi = this.trail[2 * i]!
      let atLo = this.trail[2 * i + 1]!
      if (inner !== undefined) {
        // Read first: whether the entry may be written counts only when it must be.
        const again = ACCESS_READ | (access & ACCESS_FLAGS2)
        let failure = inner.translate(atHi, atLo, again)
        if (failure === FAILURE.none) {
          this.#fetch(inner.outHi, inner.outLo)
          if ((flags & ~this.entryLo) === 0) continue
          failure = inner.translate(atHi, atLo, again | ACCESS_WRITE)
        }
        if (failure !== FAILURE.none) return this.#stopInner(failure, i, DURING.flags)
        atHi = inner.outHi
        atLo = inner.outLo
      } else {
        this.#fetch(atHi, atLo)
        if ((flags & ~this.entryLo) === 0) continue
      }
      if (!this.source.orEntry(addressOf(atHi, atLo), flags, 0)) {
        return this.#stop(FAILURE.flagUpdate, i, this.entryLo, this.entryHi)
      }
    }
    this.entryLo = leafLo
    this.entryHi = leafHi
    return FAILURE.none
  }

  /** Writes where this stage stopped into a Walk. */
  report(w: Walk, failure: FailureCode, during: During): void {
    const { format } = this.compiled
    const depth = this.depth
    w.failure = failure
    w.stage = format.stage
    w.during = during
    w.depth = depth
    w.level = format.levels[Math.max(depth, 0)]!.level
    w.entryAt = depth < 0 ? -1 : addressOf(this.trail[2 * depth]!, this.trail[2 * depth + 1]!)
    w.entryLo = this.entryLo
    w.entryHi = this.entryHi
  }

  // Permissions of a complete walk, then what flags it has to leave.
  #grant(
    tables: number,
    tablesHigh: number,
    leafLo: number,
    leafHi: number,
    access: number,
  ): FailureCode {
    const c = this.compiled
    const gathered =
      ((((tables | c.leafOnly) & leafLo) >>> c.lowShift) & c.lowMask) |
      ((leafHi >>> c.leafShift) & c.leafMask) |
      ((tablesHigh >>> c.tablesShift) & c.tablesMask)
    const rights = c.rights[(gathered << 4) | ((access >>> 4) & MODES)]!
    const global = ((leafLo ^ c.globalClear) & c.globalMask) !== 0 ? PERM_GLOBAL : 0
    this.rights = rights | global

    const maintained = c.flagsWhen === 0 || (access & c.flagsWhen) !== 0
    if (!maintained && c.flagsFault && (leafLo & c.leafFlag) === 0) return FAILURE.accessFlag
    const held = (access & ACCESS_USER) !== 0 ? rights >>> 3 : rights
    if ((access & ~held & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE)) !== 0) {
      return this.#refusal(gathered, access)
    }
    this.clean = 0
    this.missing = 0
    if (maintained) {
      const extended = (access & ACCESS_EXTENDED) !== 0 ? c.extendedFlag : 0
      const dirty = (access & ACCESS_WRITE) !== 0 ? c.dirtyFlag : 0
      this.clean = ~leafLo & c.dirtyFlag
      this.missing =
        (~tables & (c.tableFlag | extended)) | (~leafLo & (c.leafFlag | extended | dirty))
      if (this.missing !== 0 && (access & ACCESS_PROBE) === 0) {
        this.clean &= ~dirty
        if (this.inner === undefined) return this.setFlags(access)
      }
    }
    return FAILURE.none
  }

  // Which permission was lacking, in the order VT-d numbers them (SGN.2, 3, 6, 7).
  #refusal(gathered: number, access: number): FailureCode {
    const { rights } = this.compiled
    const wanted = access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE)
    const user = (access & ACCESS_USER) !== 0
    const under = (modes: number): number => {
      const r = rights[(gathered << 4) | ((modes >>> 4) & MODES)]!
      return wanted & ~(user ? r >>> 3 : r)
    }
    const lacking = under(access)
    const all = rights[(gathered << 4) | ((access >>> 4) & MODES)]!
    if (user && all >>> 3 === 0) return FAILURE.user
    if ((lacking & ACCESS_EXECUTE) !== 0) {
      return (under(access & ~ACCESS_SMEP) & ACCESS_EXECUTE) === 0 ? FAILURE.smep : FAILURE.execute
    }
    if ((under(access & ~ACCESS_SMAP) & lacking) !== lacking) return FAILURE.smap
    return (lacking & ACCESS_WRITE) !== 0 ? FAILURE.write : FAILURE.read
  }

  // Reads an entry, and moves the window to it when it lies elsewhere.
  #fetch(hi: number, lo: number): FailureCode {
    const word = ((lo >>> 2) + this.bias) | 0
    if (hi === this.windowHi && word >>> 0 < this.limit) {
      this.entryLo = this.words[word]!
      this.entryHi = this.words[word | 1]!
      return FAILURE.none
    }
    if (hi === 0 && lo >>> 20 === 0xfee && this.compiled.format.refusesInterruptRange === true) {
      return FAILURE.interruptRange
    }
    const at = addressOf(hi, lo)
    if (!this.source.readEntry(at, this)) return FAILURE.unreadable
    const region = this.source.ramAt?.(at)
    if (region !== undefined && region.base % 4096 === 0) {
      this.words = region.words
      this.windowHi = hi
      this.bias = (hi * (TWO32 / 4) - region.base / 4) | 0
      this.limit = Math.floor(region.size / 4096) * 1024
    }
    return FAILURE.none
  }

  #forgetWindow(): void {
    this.words = NO_WORDS
    this.limit = 0
    this.generation = this.source.generation ?? -1
  }

  #stop(failure: FailureCode, depth: number, entryLo: number, entryHi: number): FailureCode {
    this.depth = depth
    this.entryLo = entryLo
    this.entryHi = entryHi
    this.innerFailed = false
    return failure
  }

  #stopReserved(row: number, depth: number, entryLo: number, entryHi: number): FailureCode {
    const { misplaced, reservedIs = 'reserved' } = this.compiled.format
    const none = this.rows[row] === -1 && this.rows[row + 1] === -1
    return this.#stop(FAILURE[none ? misplaced : reservedIs], depth, entryLo, entryHi)
  }

  #stopInner(failure: FailureCode, depth: number, during: During): FailureCode {
    this.depth = depth
    this.entryLo = 0
    this.entryHi = 0
    this.innerFailed = true
    this.innerDuring = during
    return failure
  }
}
