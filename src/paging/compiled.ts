/**
 * A format turned into masks and shifts, once, so that every format walks through the same few
 * instructions. Nothing here runs during a walk. Who uses it: walker.ts, builder.ts.
 */
import { highHalf, lowHalf } from '../base/addr.js'
import { type BitRange, type LevelFormat, maskOf, masksOf, type PageTableFormat } from './format.js'
import { ACCESS_WP, FAILURE, type FailureCode, PERM_GLOBAL, PERM_READ } from './walk.js'

/** Words per level in `Compiled.rows`. */
export const ROW = 16
/** Number of index bits. */
export const INDEX_BITS = 0
/** An entry is a leaf when (lo & LEAF_MASK) === LEAF_VALUE. */
export const LEAF_MASK = 1
export const LEAF_VALUE = 2
/** Bits that must be zero in a table entry; all ones where there are no tables. */
export const TABLE_RESERVED_LO = 3
export const TABLE_RESERVED_HI = 4
/** Bits that must be zero in a leaf; all ones where there are no leaves. */
export const LEAF_RESERVED_LO = 5
export const LEAF_RESERVED_HI = 6
/** Where a leaf keeps its address. */
export const LEAF_ADDRESS_LO = 7
export const LEAF_ADDRESS_HI = 8
/** The input bits that pass through a leaf. */
export const OFFSET_LO = 9
export const OFFSET_HI = 10
/** log2 of a leaf's size, and of a run of contiguous leaves. */
export const PAGE_BITS = 11
export const CONTIGUOUS_BITS = 12

/** A format as masks. `Lo` and `Hi` are bits 31:0 and 63:32. */
export interface Compiled {
  readonly format: PageTableFormat
  readonly rows: Int32Array
  /** Clears the bits of a root's low half that the size of the root table makes zero. */
  readonly rootMask: number
  /** How far an input is shifted left to bring its top index to bit 63. */
  readonly align: number
  /** Bits of an input that must agree with `aboveOnes`, or with the sign bit. */
  readonly aboveLo: number
  readonly aboveHi: number
  readonly aboveOnes: number
  /** Shift that brings the sign bit, of `hi`, to bit 31; -1 when inputs are not signed. */
  readonly signShift: number
  readonly aboveFailure: FailureCode
  readonly present: number
  /** Depth of the last level. */
  readonly last: number
  /** True when every level indexes by 9 bits and tables are pages: stage.ts then takes its short way. */
  readonly quick: boolean
  /** An entry that agrees with `tableWant` in `tableMaskLo`, and is zero in `tableMaskHi`, is a valid table. */
  readonly tableWant: number
  readonly tableMaskLo: number
  readonly tableMaskHi: number
  /** The same of a page: a leaf of the last level. */
  readonly pageWant: number
  readonly pageMaskLo: number
  readonly pageMaskHi: number
  /** Bits of a leaf that reading needs. */
  readonly leafReads: number
  readonly tableLo: number
  readonly tableHi: number
  /** Bits of an entry's low half that, 4 up, are address bits of its high half. */
  readonly wide: number
  /** Bits of an entry's high half that are reserved without ACCESS_NXE. */
  readonly withoutNxe: number
  readonly contiguousHi: number
  /** -1 when low permission bits are the leaf's alone, 0 when they count in every entry. */
  readonly leafOnly: number
  readonly lowShift: number
  readonly lowMask: number
  readonly leafShift: number
  readonly leafMask: number
  readonly tablesShift: number
  readonly tablesMask: number
  readonly globalMask: number
  readonly globalClear: number
  /** PERM_* by gathered bits << 4 | modes. */
  readonly rights: Uint8Array
  readonly tableFlag: number
  readonly leafFlag: number
  readonly dirtyFlag: number
  readonly extendedFlag: number
  /** Access bits that turn flag updates on; 0: always on. */
  readonly flagsWhen: number
  readonly flagsFault: boolean
}

const one = (bit: number | undefined): number => (bit === undefined ? 0 : 1 << bit)
const width = ([hi, lo]: BitRange): number => hi - lo + 1

const compiled = new WeakMap<PageTableFormat, Compiled>()

/** The masks of a format, made once; an Error when the format contradicts itself. */
export function compile(format: PageTableFormat): Compiled {
  let known = compiled.get(format)
  if (known === undefined) {
    known = compileNew(format)
    compiled.set(format, known)
  }
  return known
}

function compileNew(format: PageTableFormat): Compiled {
  const { levels, input, permissions, flags } = format
  const need = (ok: boolean, what: string): void => {
    if (!ok) throw new Error(`page-table format ${format.name}: ${what}`)
  }
  need(levels.length > 0 && levels.length <= 5, 'one to five levels')
  levels.forEach((level, i) => {
    const next = levels[i + 1]
    if (next) need(next.index[0] === level.index[1] - 1, `${next.name} does not follow`)
    if (!next) need(level.table === undefined, `${level.name} is last and cannot be a table`)
  })

  const rows = new Int32Array(levels.length * ROW)
  levels.forEach((level, i) => {
    rows.set(row(format, level, i === levels.length - 1), i * ROW)
  })

  const [top] = levels[0]!.index
  need(input.bits <= top + 1 && input.bits > levels.at(-1)!.index[0], 'input width')
  const above = (1n << 64n) - (1n << BigInt(input.bits))
  const signed = input.above === 'sign'
  need(!signed || input.bits > 32, 'signed inputs are wider than 32 bits')

  const { low: lowRange, leafHigh, tablesHigh, global } = permissions
  const lowBits = width(lowRange)
  const leafBits = leafHigh === undefined ? 0 : width(leafHigh)
  const tablesBits = tablesHigh === undefined ? 0 : width(tablesHigh)
  const gathered = lowBits + leafBits + tablesBits
  need(lowRange[0] < 32 && (leafHigh?.[1] ?? 32) >= 32, 'permission halves')
  need(gathered <= 12, 'too many permission bits')
  const field = (range: BitRange | undefined, at: number): { shift: number; mask: number } => {
    if (range === undefined) return { shift: 0, mask: 0 }
    const shift = (range[1] & 31) - at
    need(shift >= 0, 'a permission field lies too low')
    return { shift, mask: ((1 << width(range)) - 1) << at }
  }
  const lowField = field(lowRange, 0)
  const leafField = field(leafHigh, lowBits)
  const tablesField = field(tablesHigh, lowBits + leafBits)

  const rights = new Uint8Array(1 << (gathered + 4))
  for (let g = 0; g < 1 << gathered; g++) {
    const bits = {
      low: g & ((1 << lowBits) - 1),
      leafHigh: (g >>> lowBits) & ((1 << leafBits) - 1),
      tablesHigh: g >>> (lowBits + leafBits),
    }
    for (let m = 0; m < 16; m++) {
      rights[(g << 4) | m] = permissions.rule(bits, m * ACCESS_WP) & ~PERM_GLOBAL
    }
  }

  const anyTable = levels.reduce((mask, level) => mask | masksOf(level.table ?? []), 0n)
  const readBits = [0, ...Array.from({ length: lowBits }, (_, i) => 1 << i)]
  const none = { leafHigh: 0, tablesHigh: 0 }
  const readBit = readBits.find(b => (permissions.rule({ low: b, ...none }, 0) & PERM_READ) !== 0)
  const reads = (readBit ?? 0) << lowRange[1]
  const everyReads = permissions.lowFrom === 'every'
  // Pages that leave room for them index by more than 9 bits: stage.ts never meets such addresses.
  need(format.wideAddress !== true || format.address[1] === 16, 'no room for wide addresses')
  const lastRow = rows.subarray(-ROW)
  const address = maskOf(format.address)
  return {
    format,
    rows,
    rootMask: -Math.max(64, 8 << width(levels[0]!.index)),
    align: 63 - top,
    aboveLo: lowHalf(above),
    aboveHi: highHalf(above),
    aboveOnes: input.above === 'ones' ? -1 : 0,
    signShift: signed ? 64 - input.bits : -1,
    aboveFailure: signed ? FAILURE.nonCanonical : FAILURE.addressSize,
    present: lowHalf(maskOf(format.present)),
    last: levels.length - 1,
    quick:
      levels.every(level => width(level.index) === 9) &&
      levels.every(level => level.leaf === undefined || level.index[1] < 32) &&
      top > 32,
    tableWant: 1 | ((1 - format.block.value) << format.block.bit) | (everyReads ? reads : 0),
    tableMaskLo: lowHalf(anyTable) | (1 << format.block.bit) | 1 | (everyReads ? reads : 0),
    tableMaskHi: highHalf(anyTable),
    pageWant: 1 | (lastRow[LEAF_VALUE] ?? 0),
    pageMaskLo: 1 | (lastRow[LEAF_MASK] ?? 0) | (lastRow[LEAF_RESERVED_LO] ?? 0),
    pageMaskHi: lastRow[LEAF_RESERVED_HI] ?? 0,
    leafReads: 1 | reads,
    tableLo: lowHalf(address),
    tableHi: highHalf(address),
    wide: format.wideAddress === true ? 0xf000 : 0,
    withoutNxe: format.executeDisable === true ? 1 << 31 : 0,
    contiguousHi: format.contiguousBit === undefined ? 0 : 1 << (format.contiguousBit - 32),
    leafOnly: permissions.lowFrom === 'leaf' ? -1 : 0,
    lowShift: lowField.shift,
    lowMask: lowField.mask,
    leafShift: leafField.shift,
    leafMask: leafField.mask,
    tablesShift: tablesField.shift,
    tablesMask: tablesField.mask,
    globalMask: one(global?.bit),
    globalClear: global?.value === 0 ? -1 : 0,
    rights,
    tableFlag: one(flags?.table),
    leafFlag: one(flags?.leaf),
    dirtyFlag: one(flags?.dirty),
    extendedFlag: one(flags?.extended),
    flagsWhen: flags?.when ?? 0,
    flagsFault: flags?.otherwise === 'fault',
  }
}

function row(format: PageTableFormat, level: LevelFormat, last: boolean): Int32Array {
  const r = new Int32Array(ROW)
  const mark = last ? format.page : format.block
  const below = (1n << BigInt(level.index[1])) - 1n
  const table = level.table === undefined ? -1n : masksOf(level.table)
  const leaf = level.leaf === undefined ? -1n : masksOf(level.leaf)
  const address = maskOf(format.address) & ~below
  r[INDEX_BITS] = width(level.index)
  r[LEAF_MASK] = mark === undefined ? 0 : 1 << mark.bit
  r[LEAF_VALUE] = mark === undefined ? 0 : mark.value << mark.bit
  r[TABLE_RESERVED_LO] = lowHalf(table)
  r[TABLE_RESERVED_HI] = highHalf(table)
  r[LEAF_RESERVED_LO] = lowHalf(leaf)
  r[LEAF_RESERVED_HI] = highHalf(leaf)
  r[LEAF_ADDRESS_LO] = lowHalf(address)
  r[LEAF_ADDRESS_HI] = highHalf(address)
  r[OFFSET_LO] = lowHalf(below)
  r[OFFSET_HI] = highHalf(below)
  r[PAGE_BITS] = level.index[1]
  r[CONTIGUOUS_BITS] = level.contiguous ?? level.index[1]
  return r
}
