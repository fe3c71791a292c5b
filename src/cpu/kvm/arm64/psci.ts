// PSCI 1.1 and the part of the SMC calling convention that announces it (DEN 0022, DEN 0028): what an HVC or SMC with such a
// function id does to the vCPUs of a VM. No hibernation, no statistics, no memory protection: NOT_SUPPORTED.

/** A vCPU as PSCI sees it. */
export interface PsciCpu {
  /** Aff3.Aff2.Aff1.Aff0 in MPIDR_EL1's places. */
  readonly affinity: bigint
  /** Whether it runs or may run; CPU_OFF and initialisation by KVM_ARM_VCPU_POWER_OFF make it false. */
  readonly powered: boolean
  /** Resets it and lets it run at `entry` with `context` in X0. */
  powerOn(entry: bigint, context: bigint): void
  powerOff(): void
}

/** What a call comes to. */
export type PsciOutcome =
  /** X0 gets `value` and the caller goes on. */
  | { readonly kind: 'return'; readonly value: bigint }
  /** The caller waits for an interrupt, then X0 is SUCCESS. */
  | { readonly kind: 'suspend' }
  /** The caller is off. */
  | { readonly kind: 'off' }
  /** The VM's owner is told: KVM_EXIT_SYSTEM_EVENT. */
  | {
      readonly kind: 'system-event'
      readonly event: 'shutdown' | 'reset'
      /** KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2 */
      readonly reset2: boolean
    }

/** Function ids; with bit 30 set the form with 64-bit arguments, where there is one. */
export const PSCI = {
  VERSION: 0x8400_0000,
  CPU_SUSPEND: 0x8400_0001,
  CPU_OFF: 0x8400_0002,
  CPU_ON: 0x8400_0003,
  AFFINITY_INFO: 0x8400_0004,
  MIGRATE_INFO_TYPE: 0x8400_0006,
  SYSTEM_OFF: 0x8400_0008,
  SYSTEM_RESET: 0x8400_0009,
  FEATURES: 0x8400_000a,
  SYSTEM_RESET2: 0x8400_0012,
  SMCCC_VERSION: 0x8000_0000,
  SMCCC_ARCH_FEATURES: 0x8000_0001,
} as const

/** Results, DEN 0022 5.2.2. */
export const PSCI_RESULT = {
  SUCCESS: 0n,
  NOT_SUPPORTED: -1n,
  INVALID_PARAMETERS: -2n,
  DENIED: -3n,
  ALREADY_ON: -4n,
} as const

const WIDE = 0x4000_0000
const HAVE_WIDE: ReadonlySet<number> = new Set([
  PSCI.CPU_SUSPEND,
  PSCI.CPU_ON,
  PSCI.AFFINITY_INFO,
  PSCI.SYSTEM_RESET2,
])
const KNOWN: ReadonlySet<number> = new Set(Object.values(PSCI))
const VERSION_0_2 = 2
const VERSION_1_1 = 0x1_0001
const TRUSTED_OS_NOT_PRESENT = 2n
/** MPIDR_EL1's affinity fields. */
const AFFINITY = 0xff_00ff_ffffn

const answer = (value: bigint): PsciOutcome => ({ kind: 'return', value })

/** Calls that came with a later version than 0.2. */
const SINCE: ReadonlyMap<number, number> = new Map([
  [PSCI.FEATURES, 0x1_0000],
  [PSCI.SYSTEM_RESET2, 0x1_0001],
])

/**
 * Carries out a call. `args` are X1 to X3 (W1 to W3 for the 32-bit forms), `cpus` every vCPU of the VM, `version` the
 * PSCI that the VM speaks (major in the upper half): 0.2 to 1.1, or 0.1, of which no call is known.
 */
export function psciCall(
  id: number,
  args: readonly [bigint, bigint, bigint],
  caller: PsciCpu,
  cpus: Iterable<PsciCpu>,
  version: number = VERSION_1_1,
): PsciOutcome {
  const wide = (id & WIDE) !== 0
  const call = (id & ~WIDE) >>> 0
  if ((wide && !HAVE_WIDE.has(call)) || version < (SINCE.get(call) ?? VERSION_0_2))
    return answer(PSCI_RESULT.NOT_SUPPORTED)
  const [first, second, third] = wide ? args : args.map(a => a & 0xffff_ffffn)
  switch (call) {
    case PSCI.VERSION:
      return answer(BigInt(version))
    case PSCI.SMCCC_VERSION:
      return answer(BigInt(VERSION_1_1))
    case PSCI.FEATURES:
      return answer(features(Number(first! & 0xffff_ffffn), version))
    case PSCI.CPU_SUSPEND:
      return { kind: 'suspend' }
    case PSCI.CPU_OFF:
      caller.powerOff()
      return { kind: 'off' }
    case PSCI.CPU_ON:
      return answer(cpuOn(first!, second!, third!, cpus))
    case PSCI.AFFINITY_INFO:
      return answer(affinityInfo(first!, second!, cpus))
    case PSCI.MIGRATE_INFO_TYPE:
      return answer(TRUSTED_OS_NOT_PRESENT)
    case PSCI.SYSTEM_OFF:
      return { kind: 'system-event', event: 'shutdown', reset2: false }
    case PSCI.SYSTEM_RESET:
      return { kind: 'system-event', event: 'reset', reset2: false }
    case PSCI.SYSTEM_RESET2:
      // Type 0 is an architectural warm reset; vendors' types have bit 31 set.
      if (first !== 0n && (first! & 0x8000_0000n) === 0n)
        return answer(PSCI_RESULT.INVALID_PARAMETERS)
      return { kind: 'system-event', event: 'reset', reset2: true }
  }
  return answer(PSCI_RESULT.NOT_SUPPORTED)
}

function features(id: number, version: number): bigint {
  const call = (id & ~WIDE) >>> 0
  const wide = (id & WIDE) !== 0
  const there = KNOWN.has(call) && version >= (SINCE.get(call) ?? VERSION_0_2)
  const known = there && (!wide || HAVE_WIDE.has(call))
  // SMCCC_ARCH_FEATURES is asked about by itself: nothing it could announce is here.
  if (!known || call === PSCI.SMCCC_ARCH_FEATURES) return PSCI_RESULT.NOT_SUPPORTED
  return PSCI_RESULT.SUCCESS
}

function cpuOn(target: bigint, entry: bigint, context: bigint, cpus: Iterable<PsciCpu>): bigint {
  if ((target & ~AFFINITY) !== 0n) return PSCI_RESULT.INVALID_PARAMETERS
  for (const cpu of cpus) {
    if ((cpu.affinity & AFFINITY) !== target) continue
    if (cpu.powered) return PSCI_RESULT.ALREADY_ON
    cpu.powerOn(entry, context)
    return PSCI_RESULT.SUCCESS
  }
  return PSCI_RESULT.INVALID_PARAMETERS
}

// 0 when any processor of the affinity instance is on, 1 when all are off.
function affinityInfo(target: bigint, level: bigint, cpus: Iterable<PsciCpu>): bigint {
  if (level > 3n || (target & ~AFFINITY) !== 0n) return PSCI_RESULT.INVALID_PARAMETERS
  const ignored = level === 3n ? 0xff_ffffn : (1n << (8n * level)) - 1n
  const mask = AFFINITY & ~ignored
  let found = false
  for (const cpu of cpus) {
    if ((cpu.affinity & mask) !== (target & mask)) continue
    if (cpu.powered) return 0n
    found = true
  }
  return found ? 1n : PSCI_RESULT.INVALID_PARAMETERS
}
