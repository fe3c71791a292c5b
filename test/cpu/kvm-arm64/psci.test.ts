// PSCI by itself, over stand-ins for vCPUs (DEN 0022).
import { describe, expect, it } from 'vitest'
import { PSCI, PSCI_RESULT, psciCall } from '../../../src/cpu/kvm/arm64/psci.js'

const W = 0x4000_0000

function world(...affinities: bigint[]) {
  const started: string[] = []
  const cpus = affinities.map((affinity, i) => ({
    affinity: affinity | 0x8000_0000n,
    powered: i === 0,
    powerOn(entry: bigint, context: bigint) {
      this.powered = true
      started.push(`${i} at ${entry.toString(16)} with ${context.toString(16)}`)
    },
    powerOff() {
      this.powered = false
    },
  }))
  const call = (id: number, a = 0n, b = 0n, c = 0n) => psciCall(id, [a, b, c], cpus[0]!, cpus)
  return {
    cpus,
    started,
    call,
    result: (...args: Parameters<typeof call>) => {
      const outcome = call(...args)
      return outcome.kind === 'return' ? outcome.value : outcome.kind
    },
  }
}

describe('what is there (5.3, 5.15)', () => {
  it.each([
    ['PSCI_VERSION', PSCI.VERSION, 0n, 0x1_0001n],
    ['SMCCC_VERSION', PSCI.SMCCC_VERSION, 0n, 0x1_0001n],
    ['MIGRATE_INFO_TYPE: no trusted OS', PSCI.MIGRATE_INFO_TYPE, 0n, 2n],
    ['FEATURES of CPU_ON, 64 bits', PSCI.FEATURES, BigInt(PSCI.CPU_ON | W), 0n],
    ['FEATURES of SYSTEM_OFF', PSCI.FEATURES, BigInt(PSCI.SYSTEM_OFF), 0n],
    ['FEATURES of SMCCC_VERSION', PSCI.FEATURES, BigInt(PSCI.SMCCC_VERSION), 0n],
    ['FEATURES of a 64-bit form there is not', PSCI.FEATURES, BigInt(PSCI.SYSTEM_OFF | W), -1n],
    ['FEATURES of SYSTEM_SUSPEND', PSCI.FEATURES, 0x8400_000en, -1n],
    ['an id that is nothing', 0x8400_001f, 0n, -1n],
    ['SMCCC_ARCH_FEATURES of a workaround', PSCI.SMCCC_ARCH_FEATURES, 0x8000_8000n, -1n],
  ])('%s', (_, id, argument, value) => {
    expect(world(0n).result(id, argument)).toBe(value)
  })
})

describe('CPU_ON (5.6)', () => {
  it('starts the named processor, once', () => {
    const w = world(0n, 1n, 0x1_0000_0002n)
    expect(w.result(PSCI.CPU_ON | W, 0x1_0000_0002n, 0x4000_1000n, 0xabcn)).toBe(
      PSCI_RESULT.SUCCESS,
    )
    expect(w.started).toEqual(['2 at 40001000 with abc'])
    expect(w.result(PSCI.CPU_ON | W, 0x1_0000_0002n, 0n, 0n)).toBe(PSCI_RESULT.ALREADY_ON)
  })

  it('of 32 bits looks at W registers', () => {
    const w = world(0n, 1n)
    expect(w.result(PSCI.CPU_ON, 0xffff_ffff_0000_0001n, 0x1_4000_0000n, 0x7_0000_0005n)).toBe(0n)
    expect(w.started).toEqual(['1 at 40000000 with 5'])
  })

  it.each([
    ['one that is not there', 7n],
    ['bits that are no affinity', 0x8000_0001n],
  ])('of %s is refused', (_, target) => {
    expect(world(0n, 1n).result(PSCI.CPU_ON | W, target)).toBe(PSCI_RESULT.INVALID_PARAMETERS)
  })
})

it('CPU_OFF stops the caller, and AFFINITY_INFO tells who is on (5.5, 5.7)', () => {
  const w = world(0n, 1n, 0x100n)
  const info = (target: bigint, level: bigint) => w.result(PSCI.AFFINITY_INFO | W, target, level)
  expect([
    info(0n, 0n),
    info(1n, 0n),
    info(0n, 1n),
    info(0x100n, 1n),
    info(0n, 2n),
    info(5n, 3n),
  ]).toEqual([0n, 1n, 0n, 1n, 0n, 0n])
  expect([info(9n, 0n), info(0n, 4n)]).toEqual([-2n, -2n])
  expect(w.result(PSCI.CPU_OFF)).toBe('off')
  expect([info(0n, 0n), info(0n, 3n)]).toEqual([1n, 1n])
})

it.each([
  ['SYSTEM_OFF', PSCI.SYSTEM_OFF, 0n, 'shutdown', false],
  ['SYSTEM_RESET', PSCI.SYSTEM_RESET, 0n, 'reset', false],
  ['SYSTEM_RESET2, warm', PSCI.SYSTEM_RESET2, 0n, 'reset', true],
  ["SYSTEM_RESET2, a vendor's", PSCI.SYSTEM_RESET2, 0x8000_0001n, 'reset', true],
])('%s is told to the owner', (_, id, type, event, reset2) => {
  expect(world(0n).call(id, type)).toEqual({ kind: 'system-event', event, reset2 })
})

it('SYSTEM_RESET2 of a reserved type is refused; CPU_SUSPEND waits', () => {
  const w = world(0n)
  expect([w.result(PSCI.SYSTEM_RESET2, 5n), w.result(PSCI.CPU_SUSPEND | W)]).toEqual([
    -2n,
    'suspend',
  ])
})
