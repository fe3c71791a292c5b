// The debug exceptions of A-28 as a compiled guest meets them, through the KVM ioctls (guests/tests/arm64/debug.c).
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { BREAKPOINTS, CONTEXT_BREAKPOINTS, WATCHPOINTS } from '../../../src/cpu/a64/id-registers.js'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { ARM64_GUEST, ARM64_REG, getOneReg, setOneReg } from '../../../src/testing/kvm/arm64.js'
import {
  ESR_EC_BRK_INS,
  ESR_EC_HW_BP_CURRENT,
  ESR_EC_SSTEP_CURRENT,
  ESR_EC_SVC64,
  ESR_EC_WP_CURRENT,
  VECTOR_SYNC_CURRENT,
  vcpu_init_descriptor_tables,
  vm_init_descriptor_tables,
  vm_install_sync_handler,
} from '../../../src/testing/kvm/exceptions.js'
import { GuestVm } from '../../../src/testing/kvm/guest-vm.js'

const IMAGE = new Uint8Array(
  readFileSync(resolve(import.meta.dirname, '../../../guests/built/tests/debug-arm64.elf')),
)

function debugVm(): GuestVm {
  const vm = new GuestVm(ARM64_GUEST, IMAGE)
  vm_init_descriptor_tables(vm)
  for (const [ec, handler] of [
    [ESR_EC_BRK_INS, 'brk_handler'],
    [ESR_EC_HW_BP_CURRENT, 'breakpoint_handler'],
    [ESR_EC_WP_CURRENT, 'watchpoint_handler'],
    [ESR_EC_SSTEP_CURRENT, 'step_handler'],
    [ESR_EC_SVC64, 'svc_handler'],
  ] as const)
    vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, ec, handler)
  return vm
}

const vm = debugVm()
const vcpu = vm.vcpu('guest_spin')

/** Calls a function of the guest and expects it to return. */
function call(entry: string, ...args: number[]): void {
  vcpu.call(entry, ...args.map(BigInt))
  vcpu_init_descriptor_tables(vcpu)
  expect(vcpu.run()).toEqual({ kind: 'done' })
}

const numbers = (count: number, first = 0) => Array.from({ length: count }, (_, n) => first + n)
const contexts = numbers(CONTEXT_BREAKPOINTS, BREAKPOINTS - CONTEXT_BREAKPOINTS)

describe('a guest that debugs itself', () => {
  it.each(numbers(BREAKPOINTS).flatMap(b => numbers(WATCHPOINTS).map(w => [b, w] as const)))(
    'A-28, A-29: BRK, breakpoint %i, SVC and BRK under it, watchpoint %i, three steps',
    (breakpoint, watchpoint) => call('debug_cases', breakpoint, watchpoint),
  )

  it.each(numbers(BREAKPOINTS).map(n => [n, n % WATCHPOINTS] as const))(
    'B-5 to B-8, B-19: the same under the OS Lock, and with it open again: breakpoint %i, watchpoint %i',
    (breakpoint, watchpoint) => call('lock_cases', breakpoint, watchpoint),
  )

  const linked = contexts.flatMap(c =>
    numbers(BREAKPOINTS)
      .filter(b => b !== c)
      .flatMap(b => numbers(WATCHPOINTS).map(w => [b, w, c] as const)),
  )
  it.each(linked)('A-28: breakpoint %i and watchpoint %i linked to context %i', (b, w, c) =>
    call('linked_cases', b, w, c),
  )
})

const debugging = (control: number) =>
  vm.sys.ioctl(vcpu.fd, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug({ control }))
const STEP = uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_SINGLESTEP

describe('a host that steps it', () => {
  it('A-30: 10,000 steps, each one instruction on, while the guest writes and reads back debug registers', () => {
    vcpu.call('write_and_read_back', 1000n)
    vcpu_init_descriptor_tables(vcpu)
    expect(vcpu.run()).toMatchObject({ kind: 'sync' })
    debugging(STEP)
    let pc = getOneReg(vcpu, ARM64_REG.pc)
    let straight = 0
    for (let i = 0; i < 10_000; i++) {
      const stop = vcpu.run()
      if (stop.kind !== 'exit' || stop.reason !== uapi.KVM_EXIT_DEBUG)
        expect.fail(`step ${i} ended in ${stop.kind}`)
      const at = getOneReg(vcpu, ARM64_REG.pc)
      if (at === pc + 4n) straight++
      else expect(at, `step ${i}: a branch of the loop`).not.toBe(pc)
      pc = at
    }
    expect(straight).toBeGreaterThan(8_000)
    debugging(0)
    expect(vcpu.run(), 'dropping SINGLESTEP ends it; every value matched').toMatchObject({
      kind: 'sync',
      args: expect.arrayContaining([1n]),
    })
  })

  it('A-31: a load-exclusive, store-exclusive loop completes only when it is not stepped', () => {
    vcpu.call('exclusive_increment')
    vcpu_init_descriptor_tables(vcpu)
    vcpu.run()
    debugging(STEP)
    const syndromes = new Set<number>()
    for (let i = 0; i < 200; i++) {
      expect(vcpu.run()).toEqual({ kind: 'exit', reason: uapi.KVM_EXIT_DEBUG })
      syndromes.add(uapi.kvm_run.at(vcpu.page).u.debug.arch.hsr)
    }
    // ISV, and EX after the load-exclusive
    expect([...syndromes].sort()).toEqual([0xcb00_0022, 0xcb00_0062])
    debugging(0)
    expect(vcpu.run()).toMatchObject({ kind: 'sync' })
  })
})

describe('saved and restored', () => {
  it('A-34: debug registers written to a fresh VM by one-register calls fire there', () => {
    const [BVR, BCR] = [ARM64_REG.system([2, 0, 0, 3, 4]), ARM64_REG.system([2, 0, 0, 3, 5])]
    const MDSCR = ARM64_REG.system('MDSCR_EL1')
    vcpu.call('guest_spin')
    const at = vm.symbol('guest_spin')
    for (const [id, value] of [
      [BVR, at],
      [BCR, 0x1e7n],
      [MDSCR, 0xa000n],
    ] as const)
      setOneReg(vcpu, id, value)
    const saved = [BVR, BCR, MDSCR].map(id => [id, getOneReg(vcpu, id)] as const)
    // No handlers there: the exception is told as it is.
    const other = new GuestVm(ARM64_GUEST, IMAGE)
    vm_init_descriptor_tables(other)
    const fresh = other.vcpu('guest_spin')
    vcpu_init_descriptor_tables(fresh)
    for (const [id, value] of saved) setOneReg(fresh, id, value)
    setOneReg(fresh, ARM64_REG.pstate, 5n)
    expect(() => fresh.run()).toThrow(
      expect.objectContaining({ vector: VECTOR_SYNC_CURRENT, ec: ESR_EC_HW_BP_CURRENT }),
    )
  })
})
