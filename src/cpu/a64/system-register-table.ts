// The system registers of EL0 and EL1 (DDI 0487, D24; debug ones D24.3): name, encoding, access, reset, writable bits.
// Behaviour beyond storing is added by whoever owns it: system-registers.ts, os-lock.ts, debug-registers.ts, GIC, timer.
// Registers of EL2 and EL3, of the PMU and of extensions are absent: UNDEFINED.

import {
  BREAKPOINTS,
  CLIDR,
  CONTEXT_BREAKPOINTS,
  CTR,
  DCZID,
  ID_AA64DFR0,
  ID_AA64ISAR0,
  ID_AA64MMFR0,
  ID_AA64PFR0,
  MIDR,
  WATCHPOINTS,
} from './id-registers.js'
import { systemKey } from './ports.js'

/** What software of an exception level may do with a register; '--' is UNDEFINED there. */
export type RegisterAccess = 'rw' | 'r-' | '-w' | '--'

/**
 * Control bits that a group of registers is subject to (traps.ts). `vm`: HCR_EL2.TVM and TRVM. `id1` to `id3`: TID1 to
 * TID3. `actlr`: TACR. `fp-control`: CPTR_EL2.TCPAC. `debug`, `os-debug`, `debug-rom`: MDCR_EL2.TDA, TDOSA, TDRA.
 * `ctr`, `daif`, `dcc`, `cnt-*`: EL0 accesses that EL1 may take away.
 */
export type RegisterGroup =
  | ''
  | 'vm'
  | 'id1'
  | 'id2'
  | 'ctr'
  | 'id3'
  | 'actlr'
  | 'fp-control'
  | 'debug'
  | 'dcc'
  | 'os-debug'
  | 'debug-rom'
  | 'daif'
  | 'cnt-frq'
  | 'cnt-pct'
  | 'cnt-vct'
  | 'cnt-p'
  | 'cnt-v'

/** Who reads a register other than by MRS, and so needs a context synchronisation event after a write. */
export type IndirectUse = '' | 'translation' | 'debug' | 'fp'

/** One register. */
export interface SystemRegisterRow {
  readonly key: number
  readonly el1: RegisterAccess
  readonly el0: RegisterAccess
  readonly reset: bigint
  /** Bits that a write changes; the others keep their reset value. */
  readonly mask: bigint
  readonly group: RegisterGroup
  readonly use: IndirectUse
  /** The register exists once somebody provides it. */
  readonly elsewhere: boolean
}

type Encoding = readonly [number, number, number, number, number]
type Rest = Partial<Omit<SystemRegisterRow, 'key' | 'el1' | 'el0'>>

const ALL = (1n << 64n) - 1n
const WORD = 0xffff_ffffn

const row = (
  encoding: Encoding,
  el1: RegisterAccess,
  el0: RegisterAccess,
  rest: Rest = {},
): SystemRegisterRow => ({
  key: systemKey(...encoding),
  el1,
  el0,
  reset: 0n,
  mask: 0n,
  group: '',
  use: '',
  elsewhere: false,
  ...rest,
})

/** Bits of SCTLR_EL1 (D24.2). */
// biome-ignore format: table
export const SCTLR = {
  M: 1 << 0, A: 1 << 1, C: 1 << 2, SA: 1 << 3, SA0: 1 << 4, UMA: 1 << 9, I: 1 << 12, DZE: 1 << 14, UCT: 1 << 15,
  nTWI: 1 << 16, nTWE: 1 << 18, WXN: 1 << 19, UCI: 1 << 26,
} as const

/** RES1 without AArch32: ITD and SED, and bits 29, 28, 23, 22, 20, 11. Data is little-endian: EE and E0E are fixed. */
const SCTLR_ONES = 0x30d0_0980n
const SCTLR_MASK = BigInt(Object.values(SCTLR).reduce((a, b) => a | b))
const SCTLR_RESET = SCTLR_ONES | BigInt(SCTLR.nTWI | SCTLR.nTWE | SCTLR.SA | SCTLR.SA0)

/** Every field of Armv8.0: no HA, HD, HPD. */
const TCR_MASK = 0x77_ffff_ffbfn

/** Bits of MDSCR_EL1 that software may always write. */
export const MDSCR = { SS: 1 << 0, TDCC: 1 << 12, KDE: 1 << 13, MDE: 1 << 15 } as const
const MDSCR_MASK = BigInt(Object.values(MDSCR).reduce((a, b) => a | b))
/** Those that it may write under the OS Lock besides: ERR, HDE, TDA, INTdis, TXU, RXO, TXfull, RXfull. */
export const MDSCR_LOCKED_MASK = MDSCR_MASK | 0x6ce0_4040n

/** Registers by name, in the order of the manual's encoding index. */
// biome-ignore format: table
const NAMED = {
  // debug: op0 = 2
  OSDTRRX_EL1:      row([2, 0, 0, 0, 2],   'rw', '--', { group: 'debug' }),     // no debug channel: zero
  MDCCINT_EL1:      row([2, 0, 0, 2, 0],   'rw', '--', { group: 'debug' }),
  MDSCR_EL1:        row([2, 0, 0, 2, 2],   'rw', '--', { group: 'debug', mask: MDSCR_MASK, use: 'debug' }),
  OSDTRTX_EL1:      row([2, 0, 0, 3, 2],   'rw', '--', { group: 'debug' }),
  OSECCR_EL1:       row([2, 0, 0, 6, 2],   'rw', '--', { group: 'debug' }),
  MDRAR_EL1:        row([2, 0, 1, 0, 0],   'r-', '--', { group: 'debug-rom' }), // no ROM table
  OSLAR_EL1:        row([2, 0, 1, 0, 4],   '-w', '--', { group: 'os-debug' }),
  OSLSR_EL1:        row([2, 0, 1, 1, 4],   'r-', '--', { group: 'os-debug', reset: 8n }),
  OSDLR_EL1:        row([2, 0, 1, 3, 4],   'rw', '--', { group: 'os-debug' }),  // no Double Lock: RAZ/WI
  DBGPRCR_EL1:      row([2, 0, 1, 4, 4],   'rw', '--', { group: 'os-debug' }),
  DBGCLAIMSET_EL1:  row([2, 0, 7, 8, 6],   'rw', '--', { group: 'debug' }),
  DBGCLAIMCLR_EL1:  row([2, 0, 7, 9, 6],   'rw', '--', { group: 'debug' }),
  DBGAUTHSTATUS_EL1:row([2, 0, 7, 14, 6],  'r-', '--', { group: 'debug' }),
  MDCCSR_EL0:       row([2, 3, 0, 1, 0],   'r-', 'r-', { group: 'dcc' }),
  DBGDTR_EL0:       row([2, 3, 0, 4, 0],   'rw', 'rw', { group: 'dcc' }),
  DBGDTRRX_EL0:     row([2, 3, 0, 5, 0],   'rw', 'rw', { group: 'dcc' }),       // DBGDTRTX_EL0 when written

  // identification: op0 = 3, CRn = 0
  MIDR_EL1:         row([3, 0, 0, 0, 0],   'r-', '--', { reset: MIDR }),
  MPIDR_EL1:        row([3, 0, 0, 0, 5],   'r-', '--', { reset: 1n << 31n }),
  REVIDR_EL1:       row([3, 0, 0, 0, 6],   'r-', '--', { group: 'id1' }),
  ID_AA64PFR0_EL1:  row([3, 0, 0, 4, 0],   'r-', '--', { group: 'id3', reset: ID_AA64PFR0 }),
  ID_AA64DFR0_EL1:  row([3, 0, 0, 5, 0],   'r-', '--', { group: 'id3', reset: ID_AA64DFR0 }),
  ID_AA64ISAR0_EL1: row([3, 0, 0, 6, 0],   'r-', '--', { group: 'id3', reset: ID_AA64ISAR0 }),
  ID_AA64MMFR0_EL1: row([3, 0, 0, 7, 0],   'r-', '--', { group: 'id3', reset: ID_AA64MMFR0 }),
  CCSIDR_EL1:       row([3, 1, 0, 0, 0],   'r-', '--', { group: 'id2' }),
  CLIDR_EL1:        row([3, 1, 0, 0, 1],   'r-', '--', { group: 'id2', reset: CLIDR }),
  AIDR_EL1:         row([3, 1, 0, 0, 7],   'r-', '--', { group: 'id1' }),
  CSSELR_EL1:       row([3, 2, 0, 0, 0],   'rw', '--', { group: 'id2', mask: 15n }),
  CTR_EL0:          row([3, 3, 0, 0, 1],   'r-', 'r-', { group: 'ctr', reset: CTR }),
  DCZID_EL0:        row([3, 3, 0, 0, 7],   'r-', 'r-', { reset: DCZID }),

  // control and translation
  SCTLR_EL1:        row([3, 0, 1, 0, 0],   'rw', '--', { group: 'vm', reset: SCTLR_RESET, mask: SCTLR_MASK, use: 'translation' }),
  ACTLR_EL1:        row([3, 0, 1, 0, 1],   'rw', '--', { group: 'actlr' }),
  CPACR_EL1:        row([3, 0, 1, 0, 2],   'rw', '--', { group: 'fp-control', mask: 3n << 20n, use: 'fp' }),
  TTBR0_EL1:        row([3, 0, 2, 0, 0],   'rw', '--', { group: 'vm', mask: ALL ^ 1n, use: 'translation' }),
  TTBR1_EL1:        row([3, 0, 2, 0, 1],   'rw', '--', { group: 'vm', mask: ALL ^ 1n, use: 'translation' }),
  TCR_EL1:          row([3, 0, 2, 0, 2],   'rw', '--', { group: 'vm', mask: TCR_MASK, use: 'translation' }),
  SPSR_EL1:         row([3, 0, 4, 0, 0],   'rw', '--', { mask: WORD }),
  ELR_EL1:          row([3, 0, 4, 0, 1],   'rw', '--', { mask: ALL }),
  SP_EL0:           row([3, 0, 4, 1, 0],   'rw', '--', { mask: ALL }),
  SPSel:            row([3, 0, 4, 2, 0],   'rw', '--', { mask: 1n }),
  CurrentEL:        row([3, 0, 4, 2, 2],   'r-', '--'),
  DAIF:             row([3, 3, 4, 2, 1],   'rw', 'rw', { group: 'daif', mask: 0x3c0n }),
  AFSR0_EL1:        row([3, 0, 5, 1, 0],   'rw', '--', { group: 'vm' }),
  AFSR1_EL1:        row([3, 0, 5, 1, 1],   'rw', '--', { group: 'vm' }),
  ESR_EL1:          row([3, 0, 5, 2, 0],   'rw', '--', { group: 'vm', mask: WORD }),
  FAR_EL1:          row([3, 0, 6, 0, 0],   'rw', '--', { group: 'vm', mask: ALL }),
  PAR_EL1:          row([3, 0, 7, 4, 0],   'rw', '--', { mask: ALL }),
  MAIR_EL1:         row([3, 0, 10, 2, 0],  'rw', '--', { group: 'vm', mask: ALL, use: 'translation' }),
  AMAIR_EL1:        row([3, 0, 10, 3, 0],  'rw', '--', { group: 'vm' }),
  VBAR_EL1:         row([3, 0, 12, 0, 0],  'rw', '--', { mask: ALL ^ 0x7ffn }),
  ISR_EL1:          row([3, 0, 12, 1, 0],  'r-', '--'),
  CONTEXTIDR_EL1:   row([3, 0, 13, 0, 1],  'rw', '--', { group: 'vm', mask: WORD, use: 'debug' }),
  TPIDR_EL1:        row([3, 0, 13, 0, 4],  'rw', '--', { mask: ALL }),
  TPIDR_EL0:        row([3, 3, 13, 0, 2],  'rw', 'rw', { mask: ALL }),
  TPIDRRO_EL0:      row([3, 3, 13, 0, 3],  'rw', 'r-', { mask: ALL }),

  // generic timer, provided by timer.ts
  CNTKCTL_EL1:      row([3, 0, 14, 1, 0],  'rw', '--', { mask: 0x3ffn }),
  CNTFRQ_EL0:       row([3, 3, 14, 0, 0],  'r-', 'r-', { group: 'cnt-frq', elsewhere: true }),
  CNTPCT_EL0:       row([3, 3, 14, 0, 1],  'r-', 'r-', { group: 'cnt-pct', elsewhere: true }),
  CNTVCT_EL0:       row([3, 3, 14, 0, 2],  'r-', 'r-', { group: 'cnt-vct', elsewhere: true }),
  CNTP_TVAL_EL0:    row([3, 3, 14, 2, 0],  'rw', 'rw', { group: 'cnt-p', elsewhere: true }),
  CNTP_CTL_EL0:     row([3, 3, 14, 2, 1],  'rw', 'rw', { group: 'cnt-p', elsewhere: true }),
  CNTP_CVAL_EL0:    row([3, 3, 14, 2, 2],  'rw', 'rw', { group: 'cnt-p', elsewhere: true }),
  CNTV_TVAL_EL0:    row([3, 3, 14, 3, 0],  'rw', 'rw', { group: 'cnt-v', elsewhere: true }),
  CNTV_CTL_EL0:     row([3, 3, 14, 3, 1],  'rw', 'rw', { group: 'cnt-v', elsewhere: true }),
  CNTV_CVAL_EL0:    row([3, 3, 14, 3, 2],  'rw', 'rw', { group: 'cnt-v', elsewhere: true }),

  // GIC CPU interface, provided by gic/
  ICC_PMR_EL1:      row([3, 0, 4, 6, 0],   'rw', '--', { elsewhere: true }),
  ICC_IAR0_EL1:     row([3, 0, 12, 8, 0],  'r-', '--', { elsewhere: true }),
  ICC_EOIR0_EL1:    row([3, 0, 12, 8, 1],  '-w', '--', { elsewhere: true }),
  ICC_HPPIR0_EL1:   row([3, 0, 12, 8, 2],  'r-', '--', { elsewhere: true }),
  ICC_BPR0_EL1:     row([3, 0, 12, 8, 3],  'rw', '--', { elsewhere: true }),
  ICC_AP0R0_EL1:    row([3, 0, 12, 8, 4],  'rw', '--', { elsewhere: true }),
  ICC_AP0R1_EL1:    row([3, 0, 12, 8, 5],  'rw', '--', { elsewhere: true }),
  ICC_AP0R2_EL1:    row([3, 0, 12, 8, 6],  'rw', '--', { elsewhere: true }),
  ICC_AP0R3_EL1:    row([3, 0, 12, 8, 7],  'rw', '--', { elsewhere: true }),
  ICC_AP1R0_EL1:    row([3, 0, 12, 9, 0],  'rw', '--', { elsewhere: true }),
  ICC_AP1R1_EL1:    row([3, 0, 12, 9, 1],  'rw', '--', { elsewhere: true }),
  ICC_AP1R2_EL1:    row([3, 0, 12, 9, 2],  'rw', '--', { elsewhere: true }),
  ICC_AP1R3_EL1:    row([3, 0, 12, 9, 3],  'rw', '--', { elsewhere: true }),
  ICC_DIR_EL1:      row([3, 0, 12, 11, 1], '-w', '--', { elsewhere: true }),
  ICC_RPR_EL1:      row([3, 0, 12, 11, 3], 'r-', '--', { elsewhere: true }),
  ICC_SGI1R_EL1:    row([3, 0, 12, 11, 5], '-w', '--', { elsewhere: true }),
  ICC_ASGI1R_EL1:   row([3, 0, 12, 11, 6], '-w', '--', { elsewhere: true }),
  ICC_SGI0R_EL1:    row([3, 0, 12, 11, 7], '-w', '--', { elsewhere: true }),
  ICC_IAR1_EL1:     row([3, 0, 12, 12, 0], 'r-', '--', { elsewhere: true }),
  ICC_EOIR1_EL1:    row([3, 0, 12, 12, 1], '-w', '--', { elsewhere: true }),
  ICC_HPPIR1_EL1:   row([3, 0, 12, 12, 2], 'r-', '--', { elsewhere: true }),
  ICC_BPR1_EL1:     row([3, 0, 12, 12, 3], 'rw', '--', { elsewhere: true }),
  ICC_CTLR_EL1:     row([3, 0, 12, 12, 4], 'rw', '--', { elsewhere: true }),
  ICC_SRE_EL1:      row([3, 0, 12, 12, 5], 'rw', '--', { elsewhere: true }),
  ICC_IGRPEN0_EL1:  row([3, 0, 12, 12, 6], 'rw', '--', { elsewhere: true }),
  ICC_IGRPEN1_EL1:  row([3, 0, 12, 12, 7], 'rw', '--', { elsewhere: true }),
} satisfies Record<string, SystemRegisterRow>

/** Names that code may ask for. */
export type SystemRegisterName = keyof typeof NAMED

/** The value of a breakpoint or watchpoint: an address without bits 1:0. Context breakpoints have all of 31:0. */
const ADDRESS = ALL ^ 3n
/** E, PMC, BAS, HMC, SSC, LBN, BT. */
const BCR_MASK = 0xff_e1e7n
/** E, PAC, LSC, BAS, HMC, SSC, LBN, WT, MASK. */
const WCR_MASK = 0x1f1f_ffffn

function* numbered(): Generator<[string, SystemRegisterRow]> {
  const debug = { group: 'debug', use: 'debug' } as const
  for (let n = 0; n < BREAKPOINTS; n++) {
    const mask = n < BREAKPOINTS - CONTEXT_BREAKPOINTS ? ADDRESS : ALL
    yield [`DBGBVR${n}_EL1`, row([2, 0, 0, n, 4], 'rw', '--', { ...debug, mask })]
    yield [`DBGBCR${n}_EL1`, row([2, 0, 0, n, 5], 'rw', '--', { ...debug, mask: BCR_MASK })]
  }
  for (let n = 0; n < WATCHPOINTS; n++) {
    yield [`DBGWVR${n}_EL1`, row([2, 0, 0, n, 6], 'rw', '--', { ...debug, mask: ADDRESS })]
    yield [`DBGWCR${n}_EL1`, row([2, 0, 0, n, 7], 'rw', '--', { ...debug, mask: WCR_MASK })]
  }
  // The rest of the identification space reads as zero: AArch32 views, fields of later versions.
  const named = new Set(Object.values(NAMED).map(r => r.key))
  for (let crm = 1; crm < 8; crm++) {
    for (let op2 = 0; op2 < 8; op2++) {
      const r = row([3, 0, 0, crm, op2], 'r-', '--', { group: 'id3' })
      if (!named.has(r.key)) yield [`ID_3_0_0_${crm}_${op2}`, r]
    }
  }
}

/** Every register, by name. Unnamed identification registers are called `ID_` and their encoding. */
export const SYSTEM_REGISTERS: ReadonlyMap<string, SystemRegisterRow> = new Map([
  ...Object.entries<SystemRegisterRow>(NAMED),
  ...numbered(),
])

/** The encoding of a register that code asks for by name. */
export const keyOf = (name: SystemRegisterName): number => NAMED[name].key
