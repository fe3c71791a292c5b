// What the processor says it is: an Armv8.0-A core with CRC32 and LSE, AArch64 only, of nobody's make.
// Fields that are absent are zero, which is "not implemented" for all of them. Next: system-register-table.ts.

/** log2 of the line of every cache, in bytes. */
const LINE = 6
/** log2 of the block that DC ZVA clears, in bytes. */
export const ZVA_BLOCK = 6

/** Breakpoints, of which the last `CONTEXT_BREAKPOINTS` compare CONTEXTIDR_EL1 too, and watchpoints. */
export const BREAKPOINTS = 6
export const CONTEXT_BREAKPOINTS = 2
export const WATCHPOINTS = 4

/** MIDR_EL1: implementer 0 (software), architecture by ID registers, part 0x564. */
export const MIDR = 0x000f_5640n

/** ID_AA64PFR0_EL1: AArch64 at EL0 and EL1, FP and Advanced SIMD, GIC registers; branch targets and data kept apart. */
export const ID_AA64PFR0 = (1n << 0n) | (1n << 4n) | (1n << 24n) | (1n << 56n) | (1n << 60n)

/** ID_AA64DFR0_EL1: Armv8 debug, no PMU, no trace, no OS Double Lock. */
export const ID_AA64DFR0 =
  6n |
  (BigInt(BREAKPOINTS - 1) << 12n) |
  (BigInt(WATCHPOINTS - 1) << 20n) |
  (BigInt(CONTEXT_BREAKPOINTS - 1) << 28n) |
  (15n << 36n)

/** ID_AA64ISAR0_EL1: CRC32, LSE atomics. */
export const ID_AA64ISAR0 = (1n << 16n) | (2n << 20n)

/** ID_AA64MMFR0_EL1: 44-bit physical addresses, 16-bit ASIDs, little-endian, granules of 4, 16 and 64 KB. */
export const ID_AA64MMFR0 = 4n | (2n << 4n) | (1n << 20n)
/** What PARange says. */
export const PHYSICAL_BITS = 44

/** CLIDR_EL1: instruction and data caches at level 1, unified at 2; coherency at 2, unification at 1. */
export const CLIDR = 3n | (4n << 3n) | (1n << 21n) | (2n << 24n) | (1n << 27n)

/** CTR_EL0: lines of 64 bytes, PIPT instruction cache, reservation and write-back granules of 64 bytes. */
export const CTR =
  BigInt(LINE - 2) |
  (3n << 14n) |
  (BigInt(LINE - 2) << 16n) |
  (BigInt(LINE - 2) << 20n) |
  (BigInt(LINE - 2) << 24n) |
  (1n << 31n)

/** DCZID_EL0: log2 of the words that DC ZVA clears. */
export const DCZID = BigInt(ZVA_BLOCK - 2)

const geometry = (sets: number, ways: number, policy: number): bigint =>
  (BigInt(policy) << 28n) | (BigInt(sets - 1) << 13n) | (BigInt(ways - 1) << 3n) | BigInt(LINE - 4)

/** CCSIDR_EL1 by CSSELR_EL1: L1 data, L1 instruction, L2; zero elsewhere. */
export const CCSIDR: readonly bigint[] = [
  geometry(256, 2, 7), // 32 KB
  geometry(256, 3, 2), // 48 KB
  geometry(2048, 16, 7), // 2 MB
]

/** MPIDR_EL1 of a vCPU: 16 to a cluster, as KVM numbers them. */
export const mpidr = (id: number): bigint =>
  (1n << 31n) |
  BigInt(id & 15) |
  (BigInt((id >> 4) & 0xff) << 8n) |
  (BigInt((id >> 12) & 0xff) << 16n)
