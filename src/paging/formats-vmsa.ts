/**
 * VMSAv8-64 tables, stage 1 and 2, 4, 16 and 64 KB granules (Arm ARM D8.2, D8.3), as cores and SMMUv3 share them.
 * LPA2 is left out, and so are dirty state (DBM) and memory types. TBI, EPD and the choice of TTBR are the caller's.
 */
import type { BitRange, Gathered, LevelFormat, PageTableFormat } from './format.js'
import {
  ACCESS_FLAGS1,
  ACCESS_FLAGS2,
  ACCESS_SMAP,
  ACCESS_SMEP,
  PERM_EXECUTE,
  PERM_GLOBAL,
  PERM_READ,
  PERM_USER_EXECUTE,
  PERM_USER_READ,
  PERM_USER_WRITE,
  PERM_WRITE,
} from './walk.js'

/** What TCR, VTCR or a descriptor of the SMMU selects. */
export interface VmsaOptions {
  readonly stage?: 1 | 2
  /** Granule in KB. Default 4. */
  readonly granule?: 4 | 16 | 64
  /** Input width, 64 - TnSZ: 25 to 48, with 64 KB to 52. Default 48. */
  readonly inputBits?: number
  /** Stage 2: start level (SL0), where up to 16 tables may be concatenated. Default: the highest one needed. */
  readonly startLevel?: 0 | 1 | 2 | 3
  /** Output width (IPS, PS): wider addresses are address size faults. Default 48. */
  readonly outputBits?: number
  /** 64 KB only: bits 15:12 of an entry are address bits 51:48 (FEAT_LPA), zero where `outputBits` is below 52. */
  readonly wide?: boolean
  /** Stage 1: the upper range (TTBR1), whose addresses have ones above. Default false. */
  readonly upper?: boolean
  /** Stage 1: table entries limit what is below them; false with TCR.HPD. Default true. */
  readonly hierarchical?: boolean
}

/** Bits of a descriptor (Arm ARM D8.3.1). */
// biome-ignore format: table
export const VMSA_ENTRY = {
  valid:     1n << 0n,
  table:     1n << 1n,   // table, or page at level 3; clear: block
  AP1:       1n << 6n,   // stage 1: EL0 may access
  AP2:       1n << 7n,   // stage 1: read-only
  S2AP_R:    1n << 6n,   // stage 2: readable
  S2AP_W:    1n << 7n,   // stage 2: writable
  AF:        1n << 10n,  // accessed; clear without hardware update: access flag fault
  nG:        1n << 11n,  // stage 1: of one ASID
  contiguous:1n << 52n,  // one of a run that a cache may keep as one
  PXN:       1n << 53n,  // stage 1: EL1 may not execute
  UXN:       1n << 54n,  // stage 1: EL0 may not execute
  XN0:       1n << 53n,  // stage 2, XN[1:0]: 0 all, 1 EL0 only, 2 none, 3 EL1 only
  XN1:       1n << 54n,
  PXNTable:  1n << 59n,  // table entries: nothing below is executable at EL1
  UXNTable:  1n << 60n,  //   nor at EL0
  APTable0:  1n << 61n,  //   nor accessible at EL0
  APTable1:  1n << 62n,  //   nor writable
}

// Levels 0 to 3 of each granule: low end of the index, whether blocks exist, span of a contiguous run. With wide
// addresses 64 KB tables also have blocks at level 1 (Arm ARM D8.3.1), of 4 TB and without runs.
// biome-ignore format: table
const LEVELS = {
  4:  [[39, false, 0], [30, true,  34], [21, true, 25], [12, true, 16]],
  16: [[47, false, 0], [36, false, 0],  [25, true, 30], [14, true, 21]],
  64: [[52, false, 0], [42, false, 0],  [29, true, 34], [16, true, 21]],
} as const

/** Stage 1 permissions for EL1 and EL0 (Arm ARM D8.4.1). ACCESS_SMAP is PAN, ACCESS_SMEP is WXN. */
export function stage1Permissions({ low, leafHigh, tablesHigh }: Gathered, modes: number): number {
  const [pxnTable, uxnTable, noUser, noWrite] = [0, 1, 2, 3].map(i => (tablesHigh >> i) & 1)
  const user = (low & 1) !== 0 && !noUser
  const writable = (low & 2) === 0 && !noWrite
  const wxn = (modes & ACCESS_SMEP) !== 0
  let rights = PERM_READ
  if (writable) rights |= PERM_WRITE
  if (user) rights |= writable ? PERM_USER_READ | PERM_USER_WRITE : PERM_USER_READ
  // What EL0 can write, EL1 never executes.
  const pxn = (leafHigh & 1) !== 0 || pxnTable || (user && writable) || (wxn && writable)
  const uxn = (leafHigh & 2) !== 0 || uxnTable || (wxn && user && writable)
  if (!pxn) rights |= PERM_EXECUTE
  if (!uxn) rights |= PERM_USER_EXECUTE
  if (user && (modes & ACCESS_SMAP) !== 0) rights &= ~(PERM_READ | PERM_WRITE)
  return rights
}

/** Stage 2 permissions (Arm ARM D8.4.2, FEAT_XNX). */
export function stage2Permissions({ low, leafHigh }: Gathered): number {
  let rights = 0
  if ((low & 1) !== 0) rights |= PERM_READ | PERM_USER_READ
  if ((low & 2) !== 0) rights |= PERM_WRITE | PERM_USER_WRITE
  if (leafHigh === 0 || leafHigh === 3) rights |= PERM_EXECUTE
  if (leafHigh < 2) rights |= PERM_USER_EXECUTE
  return rights
}

function stage1Leaf(permissions: number): bigint {
  const { valid, AF, AP1, AP2, nG, PXN, UXN } = VMSA_ENTRY
  let entry = valid | AF
  if ((permissions & (PERM_USER_READ | PERM_USER_WRITE)) !== 0) entry |= AP1
  if ((permissions & (PERM_WRITE | PERM_USER_WRITE)) === 0) entry |= AP2
  if ((permissions & PERM_GLOBAL) === 0) entry |= nG
  if ((permissions & PERM_EXECUTE) === 0) entry |= PXN
  if ((permissions & PERM_USER_EXECUTE) === 0) entry |= UXN
  return entry
}

function stage2Leaf(permissions: number): bigint {
  const { valid, AF, S2AP_R, S2AP_W, XN0, XN1 } = VMSA_ENTRY
  let entry = valid | AF
  if ((permissions & (PERM_READ | PERM_USER_READ)) !== 0) entry |= S2AP_R
  if ((permissions & (PERM_WRITE | PERM_USER_WRITE)) !== 0) entry |= S2AP_W
  const el1 = (permissions & PERM_EXECUTE) !== 0
  const el0 = (permissions & PERM_USER_EXECUTE) !== 0
  if (!el0) entry |= XN1
  if (el1 !== el0) entry |= XN0
  return entry
}

/** Tables of VMSAv8-64. An Error for a width and start level that do not go together. */
export function vmsaFormat(options: VmsaOptions = {}): PageTableFormat {
  const { stage = 1, granule = 4, inputBits = 48, outputBits = 48, upper = false } = options
  const { hierarchical = true, wide = false } = options
  const shape = LEVELS[granule]
  const natural = shape.findIndex(([lo]) => lo < inputBits)
  const start = options.startLevel ?? natural
  const name = `VMSAv8-64 stage ${stage}, ${granule} KB, ${inputBits} bits`
  if (wide && granule !== 64) throw new Error(`${name}: wide addresses need 64 KB`)
  const tooWide: readonly BitRange[] = [
    ...(outputBits < 48 ? [[47, outputBits] as const] : []),
    ...(wide && outputBits < 52 ? [[15, 12] as const] : []),
  ]
  const tables = 2 ** (inputBits - 1 - (shape[start]![0] + Math.log2(granule * 128) - 1))
  if (start < natural || tables > (stage === 2 ? 16 : 1)) {
    throw new Error(`${name}: no start at level ${start}`)
  }
  const levels = shape.slice(start).map(([lo, blocks, contiguous], i): LevelFormat => {
    const level = start + i
    const hi = i === 0 ? inputBits - 1 : shape[level - 1]![0] - 1
    return {
      name: level === 3 ? 'level 3 page' : `level ${level}`,
      level,
      index: [hi, lo],
      ...(level < 3 && { table: tooWide }),
      ...((blocks || (wide && level === 1)) && { leaf: tooWide }),
      ...(contiguous > 0 && { contiguous }),
    }
  })
  const common = {
    name,
    levels,
    input: { bits: inputBits, above: upper ? ('ones' as const) : ('zeros' as const) },
    address: [47, Math.log2(granule * 1024)] as const,
    wideAddress: wide,
    present: [0, 0] as const,
    block: { bit: 1, value: 0 as const },
    page: { bit: 1, value: 1 as const },
    misplaced: 'notPresent' as const,
    reservedIs: 'addressSize' as const,
    contiguousBit: 52,
  }
  const { AP1, AP2, S2AP_R, S2AP_W, AF, nG, contiguous, PXN, UXN, XN0, XN1 } = VMSA_ENTRY
  const { PXNTable, UXNTable, APTable0, APTable1 } = VMSA_ENTRY
  const low: BitRange = [7, 6]
  const leafHigh: BitRange = [54, 53]
  if (stage === 2) {
    return {
      ...common,
      spec: 'Arm ARM D8.2, D8.3: stage 2',
      stage,
      permissions: { low, lowFrom: 'leaf', leafHigh, rule: stage2Permissions },
      flags: { leaf: 10, when: ACCESS_FLAGS2, otherwise: 'fault' },
      spelling: { table: VMSA_ENTRY.valid, leaf: stage2Leaf },
      bits: { table: {}, leaf: { S2AP_R, S2AP_W, AF, contiguous, XN0, XN1 } },
    }
  }
  return {
    ...common,
    spec: 'Arm ARM D8.2, D8.3: stage 1',
    stage,
    permissions: {
      low,
      lowFrom: 'leaf',
      leafHigh,
      ...(hierarchical && { tablesHigh: [62, 59] as const }),
      global: { bit: 11, value: 0 },
      rule: stage1Permissions,
    },
    flags: { leaf: 10, when: ACCESS_FLAGS1, otherwise: 'fault' },
    spelling: { table: VMSA_ENTRY.valid, leaf: stage1Leaf },
    bits: {
      table: { PXNTable, UXNTable, APTable0, APTable1 },
      leaf: { AP1, AP2, AF, nG, contiguous, PXN, UXN },
    },
  }
}
