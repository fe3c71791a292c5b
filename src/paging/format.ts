/**
 * What a page-table format is: levels, where an entry keeps its address, which bits are reserved, and
 * how its permission bits add up. Plain data and, for permissions, one rule that is tabulated when a
 * walker is made and never runs during a walk. Next: formats-x86.ts, formats-vtd.ts, formats-vmsa.ts.
 */

/** Bits high:low of an 8-byte entry or of an address, as the specification prints them. */
export type BitRange = readonly [hi: number, lo: number]

/** One bit of an entry and the value it must have. */
export interface Mark {
  readonly bit: number
  readonly value: 0 | 1
}

/** One level of tables. */
export interface LevelFormat {
  /** The specification's name of an entry here. */
  readonly name: string
  /** Its number in the specification's counting. */
  readonly level: number
  /** Address bits that index a table of this level; the next level goes on below them. */
  readonly index: BitRange
  /** Bits that must be zero in an entry that refers to a table. Absent: no such entries at this level. */
  readonly table?: readonly BitRange[]
  /** Bits that must be zero in an entry that maps a page or block. Absent: none at this level. */
  readonly leaf?: readonly BitRange[]
  /** log2 of the span of a run of entries with the contiguous hint; absent: no hint at this level. */
  readonly contiguous?: number
}

/** The permission bits of a walk, gathered from its entries. Each member starts at bit 0. */
export interface Gathered {
  /** The `low` range. */
  readonly low: number
  /** The `leafHigh` range. */
  readonly leafHigh: number
  /** The `tablesHigh` range. */
  readonly tablesHigh: number
}

/** Which entry bits decide permissions, and how. */
export interface Permissions {
  /** Bits in 31:0 that grant. */
  readonly low: BitRange
  /** `every`: a bit counts when set in every entry of the walk; `leaf`: the leaf's alone. */
  readonly lowFrom: 'every' | 'leaf'
  /** Bits in 63:32 of the leaf. */
  readonly leafHigh?: BitRange
  /** Bits in 63:32 of table entries; one counts when set in any of them. */
  readonly tablesHigh?: BitRange
  /** A leaf with this mark is global. */
  readonly global?: Mark
  /** PERM_* granted by these bits under these ACCESS_WP, SMEP, SMAP and AC modes. */
  rule(bits: Gathered, modes: number): number
}

/** Accessed and dirty flags: bit numbers, all in 31:0. */
export interface Flags {
  /** In table entries. */
  readonly table?: number
  /** In leaves. */
  readonly leaf: number
  /** In leaves, on writes. */
  readonly dirty?: number
  /** In every entry, under ACCESS_EXTENDED. */
  readonly extended?: number
  /** The access bit under which the walker sets them; 0: always. */
  readonly when: number
  /** What a clear leaf flag means when the walker does not set it. */
  readonly otherwise: 'ignored' | 'fault'
}

/** How a builder spells entries. */
export interface Spelling {
  /** A table entry but for its address; must grant everything. */
  readonly table: bigint
  /** A leaf but for its address and its page-or-block mark; accessed and dirty flags are the format's choice. */
  leaf(permissions: number): bigint
}

/** Names of entry bits, for printing. */
export interface BitNames {
  readonly table: Readonly<Record<string, bigint>>
  readonly leaf: Readonly<Record<string, bigint>>
}

/** A page-table format. */
export interface PageTableFormat {
  readonly name: string
  readonly spec: string
  /** The stage it is used as. */
  readonly stage: 1 | 2
  /** From the root down. */
  readonly levels: readonly LevelFormat[]
  /** Width of an input address, and what must stand above it: copies of its top bit, zeros or ones. */
  readonly input: { readonly bits: number; readonly above: 'sign' | 'zeros' | 'ones' }
  /** Bits where an entry keeps an address; the unit's own width is a matter of reserved bits. */
  readonly address: BitRange
  /** True when bits 15:12 of an entry, below its address, are address bits 51:48. Walkers only. */
  readonly wideAddress?: boolean
  /** An entry is present when any of these bits is set; all in 31:0. */
  readonly present: BitRange
  /** What tells a block from a table above the last level. */
  readonly block: Mark
  /** What an entry of the last level must have to be a page; absent: nothing. */
  readonly page?: Mark
  /** What a block or table is where the level knows none. */
  readonly misplaced: 'reserved' | 'notPresent'
  /** What a reserved bit means; `addressSize` where only address bits are reserved. Default reserved. */
  readonly reservedIs?: 'reserved' | 'addressSize'
  /** True when bit 63 is reserved without ACCESS_NXE. */
  readonly executeDisable?: boolean
  /** True when tables must not lie in the interrupt address range 0xFEEx_xxxx. */
  readonly refusesInterruptRange?: boolean
  /** Leaf bit of the contiguous hint. */
  readonly contiguousBit?: number
  readonly permissions: Permissions
  readonly flags?: Flags
  readonly spelling: Spelling
  readonly bits: BitNames
}

/** A range of one bit. */
export const bit = (n: number): BitRange => [n, n]

/** The mask of a range. */
export const maskOf = ([hi, lo]: BitRange): bigint =>
  ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo)

/** The mask of several ranges. */
export const masksOf = (ranges: readonly BitRange[]): bigint =>
  ranges.reduce((mask, range) => mask | maskOf(range), 0n)

/** log2 of what one entry of a level maps. */
export const spanBits = (level: LevelFormat): number => level.index[1]

/** Bits that must be zero because physical addresses are only `width` bits wide (at most 52). */
export const beyond = (width: number): readonly BitRange[] => (width < 52 ? [[51, width]] : [])
