/**
 * VMSAv8-64 translation tables (Arm ARM D8): stage 1 of the EL1&0 and EL2 regimes, and stage 2, with 4, 16
 * and 64 KB granules. Output addresses are at most 48 bits: 52-bit descriptors (LPA, LPA2) are not modelled,
 * nor are permission indirection and stage 2 execute control by privilege. Bits that the architecture calls
 * RES0 are ignored, as processors do; `reserved` here means only an address beyond the output size.
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

/** A granule, by the log2 of its bytes. */
export type VmsaGranule = 12 | 14 | 16

/** Bits of a descriptor (Arm ARM D8.3). */
// biome-ignore format: table
export const VMSA_DESCRIPTOR = {
  VALID:    1n << 0n,
  TABLE:    1n << 1n,   // a table above level 3, a page at level 3
  AP1:      1n << 6n,   // stage 1: unprivileged access; stage 2 (S2AP0): reads
  AP2:      1n << 7n,   // stage 1: read-only; stage 2 (S2AP1): writes
  SH_INNER: 3n << 8n,
  AF:       1n << 10n,  // accessed
  nG:       1n << 11n,  // stage 1: belongs to one ASID
  DBM:      1n << 51n,  // dirty state is kept in AP2, or S2AP1
  CONT:     1n << 52n,  // one of a run of alike entries
  PXN:      1n << 53n,  // stage 1: no privileged fetches
  UXN:      1n << 54n,  // stage 1: no unprivileged fetches (EL2: none at all); stage 2: none at all
  PXNTable: 1n << 59n,
  UXNTable: 1n << 60n,
  APTable0: 1n << 61n,  // no unprivileged access below
  APTable1: 1n << 62n,  // no writes below
}

/** What both stages have in common. */
interface VmsaOptions {
  readonly granule: VmsaGranule
  /** Bits of an input address: 64 - TxSZ. */
  readonly inputBits: number
  /** Bits of an output address, at most 48: a wider one in a descriptor is an address size fault. */
  readonly outputBits?: number
  /** False: the access flag is not looked at (AFFD). With ACCESS_FLAGS1 or 2 the walker sets it instead. */
  readonly accessFlag?: boolean
}

/** What varies between stage 1 tables. */
export interface VmsaStage1Options extends VmsaOptions {
  /** Tables of the upper range (TTB1): the bits above an input are ones. */
  readonly upper?: boolean
  /** False in the EL2 regime, which knows one privilege. Default true. */
  readonly unprivileged?: boolean
  /** False: permissions in table descriptors are not looked at (HAD, HPD). Default true. */
  readonly hierarchical?: boolean
  /**
   * A clean page that dirty state management would let be written (DBM) counts as writable. Whoever
   * translates a write by it has to clear AP2. Default false.
   */
  readonly writableClean?: boolean
}

/** What varies between stage 2 tables. */
export interface VmsaStage2Options extends VmsaOptions {
  /** Level of the first table; several may lie side by side. Default: what the input needs. */
  readonly startLevel?: number
  /** Dirty state is set on writes to DBM pages, under ACCESS_FLAGS2. */
  readonly dirty?: boolean
}

/** Level at which walks of an input of this width begin. */
export const vmsaStartLevel = (granule: VmsaGranule, inputBits: number): number =>
  4 - Math.ceil((inputBits - granule) / (granule - 3))

/** log2 of the span of contiguous entries (Arm ARM table D8-73), by granule and level. */
const CONTIGUOUS: Readonly<Record<VmsaGranule, readonly (number | undefined)[]>> = {
  12: [undefined, 34, 25, 16],
  14: [undefined, undefined, 30, 21],
  16: [undefined, undefined, 34, 21],
}
/** Lowest level with blocks. */
const BLOCK: Readonly<Record<VmsaGranule, number>> = { 12: 1, 14: 2, 16: 2 }

function levels(
  names: readonly string[],
  start: number,
  { granule, inputBits, outputBits = 48 }: VmsaOptions,
): LevelFormat[] {
  const stride = granule - 3
  const beyond: readonly BitRange[] = outputBits < 48 ? [[47, outputBits]] : []
  const all: LevelFormat[] = []
  for (let level = start; level <= 3; level++) {
    const low = granule + (3 - level) * stride
    const contiguous = CONTIGUOUS[granule][level]
    all.push({
      name: names[level]!,
      level,
      index: [level === start ? inputBits - 1 : low + stride - 1, low],
      ...(level < 3 && { table: beyond }),
      ...(level >= BLOCK[granule] && { leaf: beyond }),
      ...(contiguous !== undefined && { contiguous }),
    })
  }
  return all
}

const common = {
  present: [0, 0],
  block: { bit: 1, value: 0 },
  page: { bit: 1, value: 1 },
  misplaced: 'notPresent',
  contiguousBit: 52,
} as const

const { VALID, TABLE, AP1, AP2, SH_INNER, AF, nG, PXN, UXN } = VMSA_DESCRIPTOR
const STAGE1_NAMES = ['L0', 'L1', 'L2', 'L3'].map(l => `stage 1 ${l}`)
const STAGE2_NAMES = ['L0', 'L1', 'L2', 'L3'].map(l => `stage 2 ${l}`)

/** Permissions of a stage 1 walk of the EL1&0 regime (Arm ARM D8.4): AP, PXN, UXN and what tables take away. */
function twoPrivileges(clean: boolean): (bits: Gathered, modes: number) => number {
  const xn = clean ? 2 : 0
  return ({ low, leafHigh, tablesHigh }, modes) => {
    const user = (low & 1) !== 0 && (tablesHigh & 4) === 0
    const dirty = (low & 2) === 0 || (clean && (leafHigh & 1) !== 0)
    const writable = dirty && (tablesHigh & 8) === 0
    const noWritableExecute = (modes & ACCESS_SMEP) !== 0
    let rights = PERM_READ
    if (writable) rights |= PERM_WRITE
    if (user) rights |= writable ? PERM_USER_READ | PERM_USER_WRITE : PERM_USER_READ
    if (user && (modes & ACCESS_SMAP) !== 0) rights &= ~(PERM_READ | PERM_WRITE)
    const privilegedFetch = ((leafHigh >> xn) & 1) === 0 && (tablesHigh & 1) === 0
    // What the unprivileged may write the privileged never execute.
    if (privilegedFetch && !(user && writable) && !(writable && noWritableExecute))
      rights |= PERM_EXECUTE
    const userFetch = ((leafHigh >> xn) & 2) === 0 && (tablesHigh & 2) === 0
    if (userFetch && !(user && writable && noWritableExecute)) rights |= PERM_USER_EXECUTE
    return rights
  }
}

/** The same of the EL2 regime: AP1 and PXN mean nothing. */
function onePrivilege(clean: boolean): (bits: Gathered, modes: number) => number {
  const xn = clean ? 2 : 0
  return ({ low, leafHigh, tablesHigh }, modes) => {
    const dirty = (low & 2) === 0 || (clean && (leafHigh & 1) !== 0)
    const writable = dirty && (tablesHigh & 8) === 0
    const fetch =
      ((leafHigh >> xn) & 2) === 0 &&
      (tablesHigh & 2) === 0 &&
      !(writable && (modes & ACCESS_SMEP) !== 0)
    const rights = PERM_READ | (writable ? PERM_WRITE : 0) | (fetch ? PERM_EXECUTE : 0)
    return rights | (rights << 3)
  }
}

function stage1Leaf(permissions: number): bigint {
  let entry = VALID | AF | SH_INNER
  if ((permissions & PERM_USER_READ) !== 0) entry |= AP1
  if ((permissions & (PERM_WRITE | PERM_USER_WRITE)) === 0) entry |= AP2
  if ((permissions & PERM_GLOBAL) === 0) entry |= nG
  if ((permissions & PERM_EXECUTE) === 0) entry |= PXN
  if ((permissions & PERM_USER_EXECUTE) === 0) entry |= UXN
  return entry
}

/** Stage 1 tables. ACCESS_SMEP stands for WXN, ACCESS_SMAP for PAN, ACCESS_FLAGS1 for HA. */
export function vmsaStage1(options: VmsaStage1Options): PageTableFormat {
  const { granule, inputBits, upper = false, unprivileged = true, hierarchical = true } = options
  const { writableClean = false } = options
  const rule = unprivileged ? twoPrivileges(writableClean) : onePrivilege(writableClean)
  return {
    ...common,
    name: `VMSAv8-64 stage 1, ${2 ** (granule - 10)} KB granule, ${inputBits} bits`,
    spec: 'Arm ARM D8.2',
    stage: 1,
    levels: levels(STAGE1_NAMES, vmsaStartLevel(granule, inputBits), options),
    input: { bits: inputBits, above: upper ? 'ones' : 'zeros' },
    address: [47, granule],
    permissions: {
      low: [7, 6],
      lowFrom: 'leaf',
      leafHigh: writableClean ? [54, 51] : [54, 53],
      ...(hierarchical && { tablesHigh: [62, 59] as const }),
      ...(unprivileged && { global: { bit: 11, value: 0 } as const }),
      rule,
    },
    ...(options.accessFlag !== false && {
      flags: { leaf: 10, when: ACCESS_FLAGS1, otherwise: 'fault' } as const,
    }),
    spelling: { table: VALID | TABLE, leaf: stage1Leaf },
  }
}

const readable = PERM_READ | PERM_USER_READ
const writable = PERM_WRITE | PERM_USER_WRITE
const fetchable = PERM_EXECUTE | PERM_USER_EXECUTE

/** Stage 2 tables: IPA to PA. ACCESS_FLAGS2 stands for S2HA. */
export function vmsaStage2(options: VmsaStage2Options): PageTableFormat {
  const { granule, inputBits, dirty = false } = options
  return {
    ...common,
    name: `VMSAv8-64 stage 2, ${2 ** (granule - 10)} KB granule, ${inputBits} bits`,
    spec: 'Arm ARM D8.2',
    stage: 2,
    levels: levels(STAGE2_NAMES, options.startLevel ?? vmsaStartLevel(granule, inputBits), options),
    input: { bits: inputBits, above: 'zeros' },
    address: [47, granule],
    permissions: {
      low: [7, 6],
      lowFrom: 'leaf',
      leafHigh: dirty ? [54, 51] : [54, 54],
      rule: ({ low, leafHigh }) => {
        const write = (low & 2) !== 0 || (dirty && (leafHigh & 1) !== 0)
        const fetch = ((leafHigh >> (dirty ? 3 : 0)) & 1) === 0
        return ((low & 1) !== 0 ? readable : 0) | (write ? writable : 0) | (fetch ? fetchable : 0)
      },
    },
    ...(options.accessFlag !== false && {
      flags: {
        leaf: 10,
        ...(dirty && { dirty: 7 }),
        when: ACCESS_FLAGS2,
        otherwise: 'fault',
      } as const,
    }),
    spelling: {
      table: VALID | TABLE,
      leaf: permissions =>
        VALID |
        AF |
        SH_INNER |
        ((permissions & readable) !== 0 ? AP1 : 0n) |
        ((permissions & writable) !== 0 ? AP2 : 0n) |
        ((permissions & fetchable) !== 0 ? 0n : UXN),
    },
  }
}

/** Stage 1 of a 48-bit EL1&0 space with 4 KB pages. */
export const VMSA_4K_STAGE1 = vmsaStage1({ granule: 12, inputBits: 48 })
/** Stage 2 of a 48-bit space with 4 KB pages. */
export const VMSA_4K_STAGE2 = vmsaStage2({ granule: 12, inputBits: 48 })
