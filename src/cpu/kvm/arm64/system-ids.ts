// System registers of KVM_GET_ONE_REG and KVM_GET_REG_LIST: which there are and what a value must be to be taken.
// The list is that of a vCPU of Armv8.0 without PMU and SVE: it includes all sixteen pairs of break- and watchpoints
// and the AArch32 registers that a hypervisor keeps, whether or not the processor has them.

import { systemKey } from '../../a64/ports.js'
import * as uapi from '../uapi/arm64.js'
import { systemId } from './ids.js'

/** Encodings that this file's callers treat apart. */
// biome-ignore format: table
export const KEY = {
  OSLSR: systemKey(2, 0, 1, 1, 4),    MPIDR: systemKey(3, 0, 0, 0, 5),
  CNTPCT: systemKey(3, 3, 14, 0, 1),  CNTVCT: systemKey(3, 3, 14, 0, 2),  CNTV_CVAL: systemKey(3, 3, 14, 3, 2),
  PFR0: systemKey(3, 0, 0, 4, 0),     DFR0: systemKey(3, 0, 0, 5, 0),
  ISAR0: systemKey(3, 0, 0, 6, 0),    MMFR0: systemKey(3, 0, 0, 7, 0),
} as const

// biome-ignore format: table
const PLAIN = [
  [2, 0, 0, 2, 0],   // MDCCINT_EL1
  [2, 0, 0, 2, 2],   // MDSCR_EL1
  [2, 0, 1, 1, 4],   // OSLSR_EL1
  [2, 4, 0, 7, 0],   // DBGVCR32_EL2
  [3, 0, 0, 0, 0],   // MIDR_EL1
  [3, 0, 0, 0, 5],   // MPIDR_EL1
  [3, 0, 0, 0, 6],   // REVIDR_EL1
  [3, 0, 1, 0, 0],   // SCTLR_EL1
  [3, 0, 1, 0, 1],   // ACTLR_EL1
  [3, 0, 1, 0, 2],   // CPACR_EL1
  [3, 0, 2, 0, 0],   // TTBR0_EL1
  [3, 0, 2, 0, 1],   // TTBR1_EL1
  [3, 0, 2, 0, 2],   // TCR_EL1
  [3, 0, 5, 1, 0],   // AFSR0_EL1
  [3, 0, 5, 1, 1],   // AFSR1_EL1
  [3, 0, 5, 2, 0],   // ESR_EL1
  [3, 0, 6, 0, 0],   // FAR_EL1
  [3, 0, 7, 4, 0],   // PAR_EL1
  [3, 0, 10, 2, 0],  // MAIR_EL1
  [3, 0, 10, 3, 0],  // AMAIR_EL1
  [3, 0, 12, 0, 0],  // VBAR_EL1
  [3, 0, 12, 1, 1],  // DISR_EL1
  [3, 0, 13, 0, 1],  // CONTEXTIDR_EL1
  [3, 0, 13, 0, 4],  // TPIDR_EL1
  [3, 0, 14, 1, 0],  // CNTKCTL_EL1
  [3, 1, 0, 0, 1],   // CLIDR_EL1
  [3, 1, 0, 0, 7],   // AIDR_EL1
  [3, 2, 0, 0, 0],   // CSSELR_EL1
  [3, 3, 0, 0, 1],   // CTR_EL0
  [3, 3, 13, 0, 2],  // TPIDR_EL0
  [3, 3, 13, 0, 3],  // TPIDRRO_EL0
  [3, 3, 14, 0, 1],  // CNTPCT_EL0
  [3, 3, 14, 0, 2],  // CNTVCT_EL0
  [3, 3, 14, 2, 1],  // CNTP_CTL_EL0
  [3, 3, 14, 2, 2],  // CNTP_CVAL_EL0
  [3, 3, 14, 3, 1],  // CNTV_CTL_EL0
  [3, 3, 14, 3, 2],  // CNTV_CVAL_EL0
  [3, 4, 3, 0, 0],   // DACR32_EL2
  [3, 4, 5, 0, 1],   // IFSR32_EL2
  [3, 4, 5, 3, 0],   // FPEXC32_EL2
] as const

const debugKeys = Array.from({ length: 64 }, (_, i) => systemKey(2, 0, 0, i >> 2, 4 + (i & 3)))
const idKeys = Array.from({ length: 56 }, (_, i) => systemKey(3, 0, 0, 1 + (i >> 3), i & 7))

/** Encodings in the list, ascending, as KVM gives them. */
export const SYSTEM_KEYS: readonly number[] = [
  ...PLAIN.map(([op0, op1, crn, crm, op2]) => systemKey(op0, op1, crn, crm, op2)),
  ...debugKeys,
  ...idKeys,
].sort((a, b) => a - b)
const LISTED: ReadonlySet<number> = new Set(SYSTEM_KEYS)
const IDENTIFICATION: ReadonlySet<number> = new Set(idKeys)

/** Whether an encoding is one of the 56 with CRm 1 to 7 that identify features. */
export const isFeatureId = (key: number): boolean => IDENTIFICATION.has(key)

/** The AArch32 ones of those, which take any value and keep none: there is no AArch32. */
export const isAarch32Id = (key: number): boolean =>
  isFeatureId(key) && key < systemKey(3, 0, 0, 4, 0) && !UNALLOCATED.has(key)
const UNALLOCATED: ReadonlySet<number> = new Set([
  systemKey(3, 0, 0, 3, 3),
  systemKey(3, 0, 0, 3, 7),
])

/** The encoding behind an id, or undefined. The virtual timer's comparator and counter have each other's ids. */
export function systemKeyOf(id: bigint): number | undefined {
  if (id === uapi.KVM_REG_ARM_TIMER_CVAL) return KEY.CNTV_CVAL
  if (id === uapi.KVM_REG_ARM_TIMER_CNT) return KEY.CNTVCT
  const key = Number(id & 0xffffn)
  return id === systemId(key) && LISTED.has(key) ? key : undefined
}

/** Ids of system registers, in KVM's order. */
export const SYSTEM_IDS: readonly bigint[] = SYSTEM_KEYS.map(key =>
  key === KEY.CNTV_CVAL
    ? uapi.KVM_REG_ARM_TIMER_CVAL
    : key === KEY.CNTVCT
      ? uapi.KVM_REG_ARM_TIMER_CNT
      : systemId(key),
)

/** Caches that the demultiplexed ids can name: seven levels, data and instruction. */
export const CACHES = 14
const DEMUX = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX
/** Ids of CCSIDR_EL1 by cache. */
export const DEMUX_IDS: readonly bigint[] = Array.from(
  { length: CACHES },
  (_, i) => DEMUX | BigInt(i),
)

/** Cache that a demultiplexed id names (CSSELR_EL1's value), or undefined. */
export function cacheOf(id: bigint): number | undefined {
  const cache = Number(id & uapi.KVM_REG_ARM_DEMUX_VAL_MASK)
  return id === (DEMUX | BigInt(cache)) && cache < CACHES ? cache : undefined
}

/** Fields of feature registers that a VM may be given less of than there is: position and width. */
// biome-ignore format: table
const LOWERABLE: ReadonlyMap<number, readonly (readonly [at: number, width: number])[]> = new Map([
  [KEY.ISAR0, [[16, 4], [20, 4]]],     // CRC32, Atomic
  [KEY.MMFR0, [[0, 4], [4, 4]]],       // PARange, ASIDBits
  [KEY.PFR0,  [[56, 4], [60, 4]]],     // CSV2, CSV3
])

/** Whether a feature register of which `most` is there may have `value`: fields of LOWERABLE as low or lower, the rest equal. */
export function isFeatureValue(key: number, most: bigint, value: bigint): boolean {
  let rest = most ^ value
  for (const [at, width] of LOWERABLE.get(key) ?? []) {
    const mask = (2n ** BigInt(width) - 1n) * 2n ** BigInt(at)
    if ((value & mask) > (most & mask)) return false
    rest &= ~mask
  }
  return rest === 0n
}
