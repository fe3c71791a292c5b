/**
 * x86-64 page tables, 4- and 5-level (SDM vol. 3, 5.5). PKE, PKS and shadow stacks are not modelled;
 * their bits are ignored. VT-d's first stage (formats-vtd.ts) is the same but for its names.
 */
import { type BitRange, beyond, type Gathered, type PageTableFormat } from './format.js'
import {
  ACCESS_AC,
  ACCESS_SMAP,
  ACCESS_SMEP,
  ACCESS_WP,
  PERM_EXECUTE,
  PERM_GLOBAL,
  PERM_READ,
  PERM_USER_EXECUTE,
  PERM_USER_READ,
  PERM_USER_WRITE,
  PERM_WRITE,
} from './walk.js'

/** What varies between processors. */
export interface X86Options {
  readonly levels?: 4 | 5
  /** MAXPHYADDR: address bits from here to 51 are reserved. Default 52. */
  readonly physicalBits?: number
  /** 1 GB pages (CPUID 8000_0001h EDX bit 26). Default true. */
  readonly gigabytePages?: boolean
  /**
   * Bit of an entry that asks for encryption (CPUID 8000_001Fh EBX 5:0). It is neither reserved nor part of the
   * address; `physicalBits` is then at most its number.
   */
  readonly encryptionBit?: number
}

/** Bits of an entry (SDM vol. 3, tables 5-14 to 5-20). */
// biome-ignore format: table
export const X86_ENTRY = {
  P:   1n << 0n,   // present
  RW:  1n << 1n,   // writes allowed
  US:  1n << 2n,   // user accesses allowed
  PWT: 1n << 3n,   // memory type, with PCD and PAT: ignored here
  PCD: 1n << 4n,
  A:   1n << 5n,   // accessed
  D:   1n << 6n,   // dirty, in leaves
  PS:  1n << 7n,   // maps a page, in PDPTE and PDE; PAT in a PTE
  G:   1n << 8n,   // global, in leaves
  EA:  1n << 10n,  // VT-d: extended accessed; ignored by processors
  XD:  1n << 63n,  // no fetches
}

const FULL = PERM_READ | PERM_WRITE | PERM_EXECUTE

/** Access rights of x86 paging (SDM vol. 3, 5.6.1). */
export function x86Permissions({ low, leafHigh, tablesHigh }: Gathered, modes: number): number {
  const writable = (low & 1) !== 0
  const user = (low & 2) !== 0
  const fetch = leafHigh === 0 && tablesHigh === 0
  let rights = FULL
  if (!writable && (modes & ACCESS_WP) !== 0) rights &= ~PERM_WRITE
  if (!fetch || (user && (modes & ACCESS_SMEP) !== 0)) rights &= ~PERM_EXECUTE
  if (user && (modes & ACCESS_SMAP) !== 0 && (modes & ACCESS_AC) === 0) {
    rights &= ~(PERM_READ | PERM_WRITE)
  }
  if (user) {
    rights |= PERM_USER_READ
    if (writable) rights |= PERM_USER_WRITE
    if (fetch) rights |= PERM_USER_EXECUTE
  }
  return rights
}

/** An x86 leaf granting these permissions; supervisor-only without PERM_USER_READ. */
export function x86Leaf(permissions: number): bigint {
  const { P, RW, US, G, XD } = X86_ENTRY
  let entry = P
  if ((permissions & (PERM_WRITE | PERM_USER_WRITE)) !== 0) entry |= RW
  if ((permissions & PERM_USER_READ) !== 0) entry |= US
  if ((permissions & PERM_GLOBAL) !== 0) entry |= G
  if ((permissions & (PERM_EXECUTE | PERM_USER_EXECUTE)) === 0) entry |= XD
  return entry
}

const without = (ranges: readonly BitRange[], hole: number | undefined): readonly BitRange[] =>
  ranges.flatMap(([hi, lo]): readonly BitRange[] => {
    if (hole === undefined || hole > hi || hole < lo) return [[hi, lo]]
    const above: BitRange = [hi, hole + 1]
    const below: BitRange = [hole - 1, lo]
    return [above, below].filter(([high, low]) => high >= low)
  })

/** The family of x86-64 formats; `names` are the entries' from PML5 down. */
export function x86Like(
  name: string,
  spec: string,
  names: readonly [string, string, string, string, string],
  { levels = 4, physicalBits = 52, gigabytePages = true, encryptionBit }: X86Options,
): PageTableFormat {
  const wide = without(beyond(physicalBits), encryptionBit)
  const { P, RW, US, A, D, G, XD } = X86_ENTRY
  const [pml5e, pml4e, pdpte, pde, pte] = names
  // biome-ignore format: table
  const all = [
    { name: pml5e, level: 5, index: [56, 48], table: wide },
    { name: pml4e, level: 4, index: [47, 39], table: wide },
    { name: pdpte, level: 3, index: [38, 30], table: wide,
      ...(gigabytePages && { leaf: [...wide, [29, 13]] as const }) },
    { name: pde,   level: 2, index: [29, 21], table: wide, leaf: [...wide, [20, 13]] },
    { name: pte,   level: 1, index: [20, 12], leaf: wide },
  ] as const
  return {
    name: `${name}, ${levels}-level`,
    spec,
    stage: 1,
    levels: levels === 5 ? all : all.slice(1),
    input: { bits: levels === 5 ? 57 : 48, above: 'sign' },
    address: [encryptionBit === undefined ? 51 : physicalBits - 1, 12],
    present: [0, 0],
    block: { bit: 7, value: 1 },
    misplaced: 'reserved',
    executeDisable: true,
    permissions: {
      low: [2, 1],
      lowFrom: 'every',
      leafHigh: [63, 63],
      tablesHigh: [63, 63],
      global: { bit: 8, value: 1 },
      rule: x86Permissions,
    },
    flags: { table: 5, leaf: 5, dirty: 6, when: 0, otherwise: 'ignored' },
    spelling: { table: P | RW | US, leaf: x86Leaf },
    bits: { table: { P, RW, US, A, XD }, leaf: { P, RW, US, A, D, G, XD } },
  }
}

/** A processor's page tables. */
export const x86Format = (options: X86Options = {}): PageTableFormat =>
  x86Like('x86-64', 'SDM vol. 3, 5.5', ['PML5E', 'PML4E', 'PDPTE', 'PDE', 'PTE'], options)

/** 4-level tables of a processor with 52 physical address bits and 1 GB pages. */
export const X86_4LEVEL = x86Format()
/** The same, 5-level. */
export const X86_5LEVEL = x86Format({ levels: 5 })
