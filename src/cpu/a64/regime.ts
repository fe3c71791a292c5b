// The EL1&0 stage 1 translation regime (DDI 0487, D8.1, D8.2): what SCTLR_EL1, TCR_EL1, TTBRn_EL1 and MAIR_EL1 make of an
// address, and the fault status where they make nothing of it. Tables are paging/'s; who keeps results is mmu.ts.
// Armv8.0: no hardware access flag, no PAN, no HPD. TnSZ outside 16 to 39 counts as the nearer of the two.

import { highHalf, lowHalf } from '../../base/addr.js'
import { addressOf, TableWalk } from '../../paging/engine.js'
import type { PageTableFormat } from '../../paging/format.js'
import { vmsaFormat } from '../../paging/formats-vmsa.js'
import {
  ACCESS_SMEP,
  type EntrySource,
  FAILURE,
  type FailureCode,
  PERM_ALL,
  PERM_GLOBAL,
} from '../../paging/walk.js'
import { PHYSICAL_BITS } from './id-registers.js'
import { SCTLR } from './system-register-table.js'

/** Fault status codes, DFSC and IFSC (D24.2, ESR_EL1); the first four have the level added. */
// biome-ignore format: table
export const FSC = {
  ADDRESS_SIZE: 0x00, TRANSLATION: 0x04, ACCESS_FLAG: 0x08, PERMISSION: 0x0c,
  EXTERNAL: 0x10, EXTERNAL_ON_WALK: 0x14, ALIGNMENT: 0x21, DEBUG: 0x22,
} as const

/** The registers that the regime is made of, by value. */
export interface RegimeRegisters {
  readonly sctlr: bigint
  readonly tcr: bigint
  readonly ttbr0: bigint
  readonly ttbr1: bigint
  readonly mair: bigint
}

/** One of the two ranges of addresses. */
interface Range {
  /** EPDn is clear. */
  walks: boolean
  /** The table base is wider than addresses are. */
  misplaced: boolean
  root: number
  /** Bits 63:56 of addresses are ignored. */
  tagged: boolean
  tables: TableWalk
}

/** Widths by TCR_EL1.IPS. */
const SIZES = [32, 36, 40, 42, 44, 48, 48, 48]
/** Granules in KB by TG0, and by TG1; reserved encodings count as 4 KB. */
const TG0 = [4, 64, 16, 4] as const
const TG1 = [4, 16, 4, 64] as const

const BADDR = 0xffff_ffff_fffen

/** A Device type, in a byte of MAIR_EL1. */
const isDevice = (attribute: number): boolean => attribute >> 4 === 0

/** Formats made before: the same parameters give the same object, which is compiled once. 3 * 24 * 7 * 2 at most. */
const formats = new Map<string, PageTableFormat>()

/** Normal memory, inner and outer non-cacheable: outer shareable whatever its entry says, as Device memory is. */
const NON_CACHEABLE = 0x44

/** What the tables say of an address under the current registers. Fields count after `translate`. */
export class Regime {
  /** SCTLR_EL1.M. */
  enabled = false
  asid = 0
  /** Physical address, PERM_* with PERM_GLOBAL, size of the page or run, memory attribute byte, shareability. */
  output = 0
  permissions = 0
  pageBits = 12
  attribute = 0
  shareability = 2
  /** Address of the entry that could not be read, after `FSC.EXTERNAL_ON_WALK`. */
  unreadableAt = -1.5
  readonly #source: EntrySource
  readonly #made = new Map<string, TableWalk>()
  readonly #ranges: [Range, Range]
  #modes = 0
  #outputBits = PHYSICAL_BITS
  #mair = new Uint8Array(8)

  constructor(source: EntrySource, registers: RegimeRegisters) {
    this.#source = source
    const range = (): Range => ({
      walks: false,
      misplaced: false,
      root: 0,
      tagged: false,
      tables: this.#tables(4, 48, PHYSICAL_BITS, false),
    })
    this.#ranges = [range(), range()]
    this.configure(registers)
  }

  /** Takes the registers as they are. */
  configure({ sctlr, tcr, ttbr0, ttbr1, mair }: RegimeRegisters): void {
    const control = Number(tcr & 0xffff_ffffn)
    const above = Number((tcr >> 32n) & 0xffn)
    this.enabled = (Number(sctlr) & SCTLR.M) !== 0
    this.#modes = (Number(sctlr) & SCTLR.WXN) !== 0 ? ACCESS_SMEP : 0
    this.#outputBits = Math.min(SIZES[above & 7]!, PHYSICAL_BITS)
    this.asid = Number(((control & (1 << 22)) !== 0 ? ttbr1 : ttbr0) >> 48n)
    if ((above & 0x10) === 0) this.asid &= 0xff
    for (let i = 0; i < 8; i++) this.#mair[i] = Number((mair >> BigInt(8 * i)) & 0xffn)
    const [lower, upper] = this.#ranges
    this.#configureRange(lower, ttbr0, {
      granule: TG0[(control >>> 14) & 3]!,
      size: control & 63,
      walks: (control & (1 << 7)) === 0,
      tagged: (above & 0x20) !== 0,
      upper: false,
    })
    this.#configureRange(upper, ttbr1, {
      granule: TG1[(control >>> 30) & 3]!,
      size: (control >>> 16) & 63,
      walks: (control & (1 << 23)) === 0,
      tagged: (above & 0x40) !== 0,
      upper: true,
    })
  }

  /** The high half of an address without its tag: bits 63:56 as bit 55, in a range that ignores them. */
  untagged(hi: number): number {
    return this.#ranges[(hi >>> 23) & 1]!.tagged ? (hi << 8) >> 8 : hi
  }

  /**
   * Translates an address without tag for ACCESS_* (READ, WRITE, EXECUTE, USER, PROBE). 0 with the fields set, or
   * minus one minus the fault status code.
   */
  translate(hi: number, lo: number, access: number): number {
    if (!this.enabled) return this.#flat(hi, lo)
    const range = this.#ranges[(hi >>> 23) & 1]!
    if (!range.walks) return -1 - FSC.TRANSLATION
    if (range.misplaced) return -1 - FSC.ADDRESS_SIZE
    const { tables } = range
    tables.setRoot(range.root)
    const failure = tables.translate(hi, lo, access | this.#modes)
    if (failure !== FAILURE.none) return this.#fault(tables, failure)
    this.output = addressOf(tables.outHi, tables.outLo)
    this.permissions = tables.rights
    this.pageBits = tables.pageBits
    this.attribute = this.#mair[(tables.entryLo >> 2) & 7]!
    const outer = isDevice(this.attribute) || this.attribute === NON_CACHEABLE
    this.shareability = outer ? 2 : (tables.entryLo >> 8) & 3
    return 0
  }

  /** Whether the last translation led to memory of a Device type. */
  get device(): boolean {
    return isDevice(this.attribute)
  }

  // Stage 1 is off: addresses are physical, data is Device-nGnRnE.
  #flat(hi: number, lo: number): number {
    if (hi >>> (PHYSICAL_BITS - 32) !== 0) return -1 - FSC.ADDRESS_SIZE
    this.output = addressOf(hi, lo)
    this.permissions = PERM_ALL | PERM_GLOBAL
    this.pageBits = 12
    this.attribute = 0
    this.shareability = 2
    return 0
  }

  #fault(tables: TableWalk, failure: FailureCode): number {
    const { depth } = tables
    const level = depth < 0 ? 0 : tables.compiled.format.levels[depth]!.level
    switch (failure) {
      case FAILURE.notPresent:
        return -1 - (FSC.TRANSLATION | level)
      case FAILURE.addressSize:
        // An input that is too wide met no entry; of an entry it is the output that is.
        return -1 - (depth < 0 ? FSC.TRANSLATION : FSC.ADDRESS_SIZE | level)
      case FAILURE.accessFlag:
        return -1 - (FSC.ACCESS_FLAG | level)
      case FAILURE.unreadable:
        this.unreadableAt = addressOf(tables.trail[2 * depth]!, tables.trail[2 * depth + 1]!)
        return -1 - (FSC.EXTERNAL_ON_WALK | level)
    }
    return -1 - (FSC.PERMISSION | level)
  }

  #configureRange(
    range: Range,
    ttbr: bigint,
    o: { granule: 4 | 16 | 64; size: number; walks: boolean; tagged: boolean; upper: boolean },
  ): void {
    const base = ttbr & BADDR
    const inputBits = 64 - Math.min(Math.max(o.size, 16), 39)
    range.walks = o.walks
    range.tagged = o.tagged
    range.misplaced = base >> BigInt(this.#outputBits) !== 0n
    range.root = addressOf(highHalf(base), lowHalf(base))
    range.tables = this.#tables(o.granule, inputBits, this.#outputBits, o.upper)
  }

  #tables(granule: 4 | 16 | 64, inputBits: number, outputBits: number, upper: boolean): TableWalk {
    const key = `${granule} ${inputBits} ${outputBits} ${upper}`
    let tables = this.#made.get(key)
    if (tables === undefined) {
      const format = formats.get(key) ?? vmsaFormat({ granule, inputBits, outputBits, upper })
      formats.set(key, format)
      tables = new TableWalk(format, this.#source)
      this.#made.set(key, tables)
    }
    return tables
  }
}
