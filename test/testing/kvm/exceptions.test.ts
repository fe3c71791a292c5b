import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { ARM64_GUEST, ARM64_REG, getOneReg, showToEl0 } from '../../../src/testing/kvm/arm64.js'
import * as library from '../../../src/testing/kvm/exceptions.js'
import { GuestVm } from '../../../src/testing/kvm/guest-vm.js'
import {
  GuestAssertionError,
  UCALL,
  UnhandledExceptionError,
} from '../../../src/testing/kvm/ucall.js'

const {
  ESR_EC_BRK_INS,
  ESR_EC_SVC64,
  VECTOR_ERROR_CURRENT,
  VECTOR_ERROR_LOWER_64,
  VECTOR_FIQ_CURRENT,
  VECTOR_FIQ_LOWER_64,
  VECTOR_IRQ_CURRENT,
  VECTOR_IRQ_LOWER_64,
  VECTOR_SYNC_CURRENT,
  VECTOR_SYNC_LOWER_64,
  vcpu_init_descriptor_tables,
  vm_init_descriptor_tables,
  vm_install_exception_handler,
  vm_install_sync_handler,
  vm_install_vector_handler,
} = library

const image = (name: string) =>
  new Uint8Array(readFileSync(resolve(import.meta.dirname, '../../../guests/built/tests', name)))
const IMAGE = image('exceptions-arm64.elf')
const IMAGE_V2 = image('exceptions-v2-arm64.elf')

/** The bytes of a function of an image. */
function codeOf(name: string, symbol: string, length: number) {
  const vm = guest(image(name))
  return { bytes: vm.bytes(vm.symbol(symbol), length) }
}

/** All VMs here share a machine. */
const { sys } = ARM64_GUEST.machine()
const open: GuestVm[] = []
afterEach(() => {
  for (const vm of open.splice(0)) vm.close()
})

/** A VM that the test leaves behind. */
function guest(elf = IMAGE): GuestVm {
  const vm = new GuestVm(ARM64_GUEST, elf, { sys })
  open.push(vm)
  return vm
}

/** A VM with tables and a vCPU with vectors, about to call a function. */
function prepared(entry: string, args: bigint[] = [], elf = IMAGE) {
  const vm = guest(elf)
  vm_init_descriptor_tables(vm)
  const vcpu = vm.vcpu(entry, ...args)
  vcpu_init_descriptor_tables(vcpu)
  for (const name of ['el0_svc', 'el0_wait']) showToEl0(vm, vm.symbol(name), 4)
  return { vm, vcpu }
}

const frameOf = (vm: GuestVm) => {
  const at = vm.symbol('frame')
  return {
    sp: vm.read64(at + 248n),
    pc: vm.read64(at + 256n),
    pstate: vm.read64(at + 264n),
    address: vm.read64(vm.symbol('frame_address')),
    spEl0: vm.read64(vm.symbol('frame_sp_el0')),
  }
}

describe('tables', () => {
  it('A-12: vm_init puts the address of a zeroed table into a guest global, vcpu_init sets VBAR_EL1', () => {
    const vm = guest()
    const global = vm.symbol('exception_handlers')
    expect(vm.read64(global)).toBe(0n)
    vm_init_descriptor_tables(vm)
    const table = vm.read64(global)
    expect(vm.bytes(table, 16 * 64 * 8).every(v => v === 0)).toBe(true)
    const [one, two] = [vm.vcpu('guest_spin'), vm.vcpu('guest_spin')]
    vcpu_init_descriptor_tables(one)
    const vbar = ARM64_REG.system('VBAR_EL1')
    expect(getOneReg(one, vbar)).toBe(vm.symbol('vectors'))
    expect(getOneReg(two, vbar), 'the other keeps its reset value').toBe(0n)
    expect(vm.symbol('vectors') % 2048n, 'A-1').toBe(0n)
  })

  it('A-12: without either an exception does not reach a handler', () => {
    const vm = guest()
    expect(() =>
      vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, ESR_EC_BRK_INS, 'record'),
    ).toThrow(/vm_init_descriptor_tables/)
    const vcpu = vm.vcpu('undefined_instruction')
    vcpu_init_descriptor_tables(vcpu)
    expect(() => vcpu.run()).toThrow(UnhandledExceptionError)
  })

  it.each([
    ['a vector that is not synchronous', () => [VECTOR_IRQ_CURRENT, ESR_EC_BRK_INS]],
    ['a vector past the last', () => [16, ESR_EC_BRK_INS]],
    ['a class past the last', () => [VECTOR_SYNC_CURRENT, 64]],
    ['a negative class', () => [VECTOR_SYNC_CURRENT, -1]],
  ])('A-14: the synchronous form refuses %s', (_, numbers) => {
    const vm = guest()
    vm_init_descriptor_tables(vm)
    const [vector, ec] = numbers() as [number, number]
    expect(() => vm_install_sync_handler(vm, vector, ec, 'record')).toThrow()
    expect(() => vm_install_exception_handler(vm, vector, ec, 'record')).toThrow()
  })

  it.each([0, 4, 8, 12, 16])('A-14: the other form refuses vector %i', vector => {
    const vm = guest()
    vm_init_descriptor_tables(vm)
    expect(() => vm_install_exception_handler(vm, vector, 'record')).toThrow()
  })

  it('A-13, A-14: the later names and the older ones fill the same places, class 0 for what has none', () => {
    const vm = guest()
    vm_init_descriptor_tables(vm)
    const table = vm.read64(vm.symbol('exception_handlers'))
    const at = (vector: number, ec: number) => vm.read64(table + BigInt(8 * (64 * vector + ec)))
    vm_install_sync_handler(vm, 4, 63, 'record')
    vm_install_exception_handler(vm, 8, 1, vm.symbol('change'))
    vm_install_exception_handler(vm, 5, 'record')
    vm_install_vector_handler(vm, 11, 'change')
    expect([at(4, 63), at(8, 1), at(5, 0), at(11, 0)]).toEqual(
      ['record', 'change', 'record', 'change'].map(name => vm.symbol(name)),
    )
  })
})

describe('the frame', () => {
  it('A-7, A-8, A-9, A-10: holds everything at its place; pc, pstate and registers that a handler changes are changed', () => {
    const { vm, vcpu } = prepared('frame_contents')
    vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, ESR_EC_BRK_INS, 'change')
    expect(vcpu.finish()).toEqual([])
    expect(vm.read64(vm.symbol('handled')), 'the second BRK was passed over').toBe(1n)
  })

  it.each([
    ['v3: SP_EL1 at the moment of the exception', IMAGE, 0n],
    ['v2: 272 less', IMAGE_V2, 272n],
  ])('A-10: from EL1, %s', (_, elf, less) => {
    const { vm, vcpu } = prepared('undefined_instruction', [], elf)
    vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, 0, 'record_and_skip')
    vcpu.finish()
    const { sp, address } = frameOf(vm)
    expect(sp).toBe(address + 272n - less)
  })

  it.each([
    ['v3: SP_EL1', IMAGE, 'above the frame'],
    ['v2: SP_EL0', IMAGE_V2, 'SP_EL0'],
  ])('A-10: from EL0, %s', (_, elf, what) => {
    const { vm, vcpu } = prepared('svc_at_el0', [], elf)
    vm_install_sync_handler(vm, VECTOR_SYNC_LOWER_64, ESR_EC_SVC64, 'record_interrupt')
    expect(vcpu.run()).toMatchObject({ kind: 'sync' })
    const { sp, address, spEl0, pc, pstate } = frameOf(vm)
    expect(spEl0).toBe(0x7770n)
    expect(sp).toBe(what === 'SP_EL0' ? 0x7770n : address + 272n)
    expect([pc, pstate & 0xfn]).toEqual([vm.symbol('el0_svc') + 4n, 0n])
  })
})

describe('dispatch', () => {
  const interrupts = [
    { what: 'IRQ', input: 0, vectors: [VECTOR_IRQ_CURRENT, VECTOR_IRQ_LOWER_64] },
    { what: 'FIQ', input: 1, vectors: [VECTOR_FIQ_CURRENT, VECTOR_FIQ_LOWER_64] },
    { what: 'SError', input: 2, vectors: [VECTOR_ERROR_CURRENT, VECTOR_ERROR_LOWER_64] },
  ].flatMap(i => i.vectors.map(vector => ({ ...i, vector })))

  it.each(interrupts)(
    'A-15: a handler for $what is called through vector $vector',
    ({ what, input, vector }) => {
      const { vm, vcpu } = prepared(vector < 8 ? 'wait_here' : 'wait_at_el0')
      vm_install_exception_handler(vm, vector, 'record_interrupt')
      expect(vcpu.run().kind).toBe('sync')
      if (what === 'SError') {
        const events = uapi.kvm_vcpu_events({ exception: { serror_pending: 1 } })
        vm.sys.ioctl(vcpu.fd, uapi.KVM_SET_VCPU_EVENTS, events)
      } else vm.sys.ioctl(vm.fd, uapi.KVM_IRQ_LINE, uapi.kvm_irq_level({ irq: input, level: 1 }))
      const stop = vcpu.run()
      expect(stop.kind === 'sync' && stop.args[0]).toBe(1n)
      expect(frameOf(vm).pstate & 0xfn).toBe(vector < 8 ? 5n : 0n)
    },
  )

  it('A-16: handlers belong to a VM', () => {
    const one = prepared('undefined_instruction')
    const two = prepared('undefined_instruction')
    vm_install_sync_handler(one.vm, VECTOR_SYNC_CURRENT, 0, 'record_and_skip')
    expect(one.vcpu.finish()).toEqual([])
    expect(() => two.vcpu.run()).toThrow(UnhandledExceptionError)
  })
})

describe('what nobody handles', () => {
  it('A-18, A-19: is reported with vector and class, and fails the run with both', () => {
    const { vcpu } = prepared('undefined_instruction')
    expect(() => vcpu.run()).toThrow(
      expect.objectContaining({
        vector: VECTOR_SYNC_CURRENT,
        ec: 0,
        message: expect.stringMatching(/vector 0x4, ec 0x0/),
      }),
    )
    expect(vcpu.ucall()).toMatchObject({ cmd: UCALL.UNHANDLED })
    expect(vcpu.ucall()?.args.slice(0, 3)).toEqual([4n, 0n, 1n])
  })

  it('A-18: an interrupt has no class to report', () => {
    const { vm, vcpu } = prepared('wait_here')
    vcpu.run()
    vm.sys.ioctl(vm.fd, uapi.KVM_IRQ_LINE, uapi.kvm_irq_level({ irq: 0, level: 1 }))
    expect(() => vcpu.run()).toThrow(
      expect.objectContaining({ vector: VECTOR_IRQ_CURRENT, ec: undefined }),
    )
    expect(vcpu.ucall()?.args.slice(0, 3)).toEqual([5n, 0n, 0n])
  })

  it('A-11, A-20: slot 0 saves nothing and is reported as a vector, although it is synchronous', () => {
    const { vcpu } = prepared('from_sp0')
    expect(() => vcpu.run()).toThrow(expect.objectContaining({ vector: 0, ec: undefined }))
    expect(vcpu.ucall()?.args.slice(0, 3)).toEqual([0n, 0n, 0n])
  })

  it('A-21: the guest does not come back from the report', () => {
    const { vm, vcpu } = prepared('undefined_instruction')
    expect(() => vcpu.run()).toThrow(UnhandledExceptionError)
    const run = uapi.kvm_run.at(vcpu.page)
    run.immediate_exit = 1
    expect(() => vm.sys.ioctl(vcpu.fd, uapi.KVM_RUN)).toThrow(/EINTR/)
    run.immediate_exit = 0
    vm.sys.ioctl(
      vcpu.fd,
      uapi.KVM_SET_GUEST_DEBUG,
      uapi.kvm_guest_debug({ control: uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_SINGLESTEP }),
    )
    const spin = vm.symbol('guest_spin')
    for (let i = 0; i < 40; i++) vm.sys.ioctl(vcpu.fd, uapi.KVM_RUN)
    const pc = getOneReg(vcpu, ARM64_REG.pc)
    expect([pc >= spin - 0x100n, pc <= spin + 0x100n], 'near the end of the reporter').toBeTruthy()
    expect(vm.read64(vm.symbol('handled'))).toBe(0n)
    const before = pc
    vm.sys.ioctl(vcpu.fd, uapi.KVM_RUN)
    vm.sys.ioctl(vcpu.fd, uapi.KVM_RUN)
    expect(getOneReg(vcpu, ARM64_REG.pc)).toBe(before)
  })

  it('a data abort is a class of its own', () => {
    const { vcpu } = prepared('read_nothing')
    expect(() => vcpu.run()).toThrow(/ec 0x25/)
  })
})

describe('assertions', () => {
  it('A-23: GUEST_ASSERT_EQ gives both values, their source and its place', () => {
    const { vcpu } = prepared('failing_assertion')
    expect(() => vcpu.run()).toThrow(GuestAssertionError)
    const again = prepared('failing_assertion')
    expect(() => again.vcpu.run()).toThrow(
      /^GUEST_ASSERT_EQ\(two \+ 2, 5\) at .*exceptions\.c:\d+: 0x4 != 0x5$/,
    )
  })

  it('A-23: the accessors take the zero register', () => {
    const { bytes } = codeOf('debug-arm64.elf', 'reset_debug', 256)
    const words = new Uint32Array(bytes.slice().buffer)
    // msr osdlr_el1, xzr: write_sysreg(0, osdlr_el1)
    expect([...words]).toContain(0xd510_139f)
  })
})
