/**
 * VT-d paging structures: first stage (9.7 of the specification, x86-64's with the extended-accessed flag) and
 * second stage. Memory types (EMT, IPAT, PAT) are ignored. Whether a request may use a stage at all
 * (SRE, ERE, AW) is the caller's business: iommu/vtd.
 */
import { beyond, bit, type Gathered, type LevelFormat, type PageTableFormat } from './format.js'
import { X86_ENTRY, type X86Options, x86Like } from './formats-x86.js'
import {
  ACCESS_FLAGS2,
  PERM_EXECUTE,
  PERM_READ,
  PERM_USER_EXECUTE,
  PERM_USER_READ,
  PERM_USER_WRITE,
  PERM_WRITE,
} from './walk.js'

/** First-stage tables; `physicalBits` is the host address width (HAW), 1 GB pages need CAP_REG.FS1GP. */
export function vtdFirstStage(options: X86Options = {}): PageTableFormat {
  const names = ['FS-PML5E', 'FS-PML4E', 'FS-PDPE', 'FS-PDE', 'FS-PTE'] as const
  const format = x86Like('VT-d first-stage', 'VT-d 9.7', names, options)
  const { EA } = X86_ENTRY
  return {
    ...format,
    bits: { table: { ...format.bits.table, EA }, leaf: { ...format.bits.leaf, EA } },
    refusesInterruptRange: true,
    flags: { table: 5, leaf: 5, dirty: 6, extended: 10, when: 0, otherwise: 'ignored' },
  }
}

/** What varies between units and contexts. */
export interface SecondStageOptions {
  readonly levels?: 3 | 4 | 5
  /** HAW: address bits from here to 51 are reserved. Default 52. */
  readonly physicalBits?: number
  /** Input width, at most that of the levels (39, 48, 57): the lesser of AW and MGAW. Default: the levels'. */
  readonly inputBits?: number
  /** CAP_REG.SSLPS bit 0: 2 MB pages. Default true. */
  readonly megabytePages?: boolean
  /** CAP_REG.SSLPS bit 1: 1 GB pages. Default true. */
  readonly gigabytePages?: boolean
  /** ECAP_REG.SC: bit 11 of a leaf forces snooping; otherwise it is reserved. Default true. */
  readonly snoopControl?: boolean
  /** ECAP_REG.DT: bit 62 of a leaf marks a transient mapping; otherwise it is reserved. Default false. */
  readonly transientMapping?: boolean
  /** Bit 2 of every entry grants fetches; otherwise it is ignored and what can be read can be fetched. Default false. */
  readonly execute?: boolean
}

/** Bits of a second-stage entry (VT-d 9.8). */
// biome-ignore format: table
export const SECOND_STAGE_ENTRY = {
  R:   1n << 0n,   // reads allowed
  W:   1n << 1n,   // writes allowed; an entry is present with R or W
  X:   1n << 2n,   // fetches allowed, where the unit knows it
  PS:  1n << 7n,   // maps a page, in SS-PDPE and SS-PDE
  A:   1n << 8n,   // accessed, under SSADE
  D:   1n << 9n,   // dirty, in leaves, under SSADE
  SNP: 1n << 11n,  // snoop, in leaves, with snoop control
  TM:  1n << 62n,  // transient mapping, in leaves, with device-TLBs
}

const readable = PERM_READ | PERM_USER_READ
const writable = PERM_WRITE | PERM_USER_WRITE
const fetchable = PERM_EXECUTE | PERM_USER_EXECUTE

function rule(execute: boolean): (bits: Gathered) => number {
  return ({ low }) => {
    const fetch = execute ? (low & 4) !== 0 : (low & 1) !== 0
    return (
      ((low & 1) !== 0 ? readable : 0) | ((low & 2) !== 0 ? writable : 0) | (fetch ? fetchable : 0)
    )
  }
}

/** Second-stage tables: IOVA or GPA to HPA. */
export function vtdSecondStage(options: SecondStageOptions = {}): PageTableFormat {
  const { levels = 4, physicalBits = 52, execute = false } = options
  const { megabytePages = true, gigabytePages = true } = options
  const table = [...beyond(physicalBits), bit(11)]
  const leaf = [
    ...beyond(physicalBits),
    ...(options.snoopControl === false ? [bit(11)] : []),
    ...(options.transientMapping === true ? [] : [bit(62)]),
  ]
  // biome-ignore format: table
  const all: readonly LevelFormat[] = [
    { name: 'SS-PML5E', level: 5, index: [56, 48], table },
    { name: 'SS-PML4E', level: 4, index: [47, 39], table },
    { name: 'SS-PDPE',  level: 3, index: [38, 30], table, ...(gigabytePages && { leaf: [...leaf, [29, 12]] }) },
    { name: 'SS-PDE',   level: 2, index: [29, 21], table, ...(megabytePages && { leaf: [...leaf, [20, 12]] }) },
    { name: 'SS-PTE',   level: 1, index: [20, 12], leaf },
  ]
  const { R, W, X, A, D, SNP, TM } = SECOND_STAGE_ENTRY
  const rights = execute ? { R, W, X } : { R, W }
  const width = 12 + levels * 9
  return {
    name: `VT-d second-stage, ${levels}-level`,
    spec: 'VT-d 9.8',
    stage: 2,
    levels: all.slice(5 - levels),
    input: { bits: Math.min(options.inputBits ?? width, width), above: 'zeros' },
    address: [51, 12],
    present: execute ? [2, 0] : [1, 0],
    block: { bit: 7, value: 1 },
    misplaced: 'reserved',
    permissions: { low: execute ? [2, 0] : [1, 0], lowFrom: 'every', rule: rule(execute) },
    flags: { table: 8, leaf: 8, dirty: 9, when: ACCESS_FLAGS2, otherwise: 'ignored' },
    spelling: {
      table: execute ? R | W | X : R | W,
      leaf: permissions =>
        ((permissions & readable) !== 0 ? R : 0n) |
        ((permissions & writable) !== 0 ? W : 0n) |
        (execute && (permissions & fetchable) !== 0 ? X : 0n),
    },
    bits: { table: { ...rights, A }, leaf: { ...rights, A, D, SNP, TM } },
  }
}

/** 4-level first stage of a unit with 52 address bits. */
export const VTD_FIRST_STAGE_4LEVEL = vtdFirstStage()
/** 4-level second stage of a unit with 52 address bits and every page size. */
export const VTD_SECOND_STAGE_4LEVEL = vtdSecondStage()
