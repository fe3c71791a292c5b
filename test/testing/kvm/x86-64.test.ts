// The guest exception library on x86-64, where vectors have no classes and a report carries the vector alone.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import {
  GP_VECTOR,
  UD_VECTOR,
  vcpu_init_descriptor_tables,
  vm_init_descriptor_tables,
  vm_install_exception_handler,
  vm_install_sync_handler,
  vm_install_vector_handler,
} from '../../../src/testing/kvm/exceptions.js'
import { GuestVm } from '../../../src/testing/kvm/guest-vm.js'
import { UCALL } from '../../../src/testing/kvm/ucall.js'
import { X86_64_GUEST } from '../../../src/testing/kvm/x86-64.js'

const IMAGE = new Uint8Array(
  readFileSync(resolve(import.meta.dirname, '../../../guests/built/tests/exceptions-x86_64.elf')),
)
const { sys } = X86_64_GUEST.machine()
const open: GuestVm[] = []
afterEach(() => {
  for (const vm of open.splice(0)) vm.close()
})

function prepared(entry: string, ...args: bigint[]) {
  const vm = new GuestVm(X86_64_GUEST, IMAGE, { sys })
  open.push(vm)
  vm_init_descriptor_tables(vm)
  const vcpu = vm.vcpu(entry, ...args)
  vcpu_init_descriptor_tables(vcpu)
  return { vm, vcpu }
}

describe('x86-64', () => {
  it('A-8, A-12: a handler sees the frame, and what it changes is changed', () => {
    const { vm, vcpu } = prepared('frame_contents')
    vm_install_exception_handler(vm, UD_VECTOR, 'change')
    expect(vcpu.finish()).toEqual([BigInt(UD_VECTOR)])
  })

  it('A-18, A-22: an exception without handler is reported by its vector alone', () => {
    const { vcpu } = prepared('undefined_instruction')
    expect(() => vcpu.run()).toThrow(expect.objectContaining({ vector: UD_VECTOR, ec: undefined }))
    expect(vcpu.ucall()).toMatchObject({ cmd: UCALL.UNHANDLED })
    expect(vcpu.ucall()?.args.slice(0, 3)).toEqual([BigInt(UD_VECTOR), 0n, 0n])
  })

  it('A-19: the message names the vector', () => {
    const { vcpu } = prepared('read_nothing')
    expect(() => vcpu.run()).toThrow(/vector 0xe$/)
  })

  it('A-22: a handler that is there keeps the report from being made', () => {
    const { vm, vcpu } = prepared('undefined_instruction')
    vm_install_vector_handler(vm, UD_VECTOR, 'change')
    expect(vcpu.run()).toEqual({ kind: 'done' })
  })

  it('A-14: there is no synchronous form, and 256 vectors', () => {
    const { vm } = prepared('undefined_instruction')
    expect(() => vm_install_sync_handler(vm, GP_VECTOR, 0, 'record')).toThrow()
    expect(() => vm_install_exception_handler(vm, 256, 'record')).toThrow()
    vm_install_exception_handler(vm, 255, 'record')
    const table = vm.read64(vm.symbol('exception_handlers'))
    expect(vm.read64(table + 8n * 255n)).toBe(vm.symbol('record'))
  })

  it('A-12: vectors without a table are refused', () => {
    const vm = new GuestVm(X86_64_GUEST, IMAGE, { sys })
    open.push(vm)
    expect(() => vcpu_init_descriptor_tables(vm.vcpu('guest_spin'))).toThrow(/comes first/)
  })

  it('A-23: GUEST_ASSERT_EQ is the same', () => {
    const { vcpu } = prepared('failing_assertion')
    expect(() => vcpu.run()).toThrow(/^GUEST_ASSERT_EQ\(two \+ 2, 5\) at .*: 0x4 != 0x5$/)
  })
})
