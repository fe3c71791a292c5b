// arm64 guests of tests: EL1 with translation on, memory one to one from 1 GiB, devices below. EL0 sees what it is shown.

import { systemKey } from '../../cpu/a64/ports.js'
import { keyOf, type SystemRegisterName } from '../../cpu/a64/system-register-table.js'
import * as uapi from '../../cpu/kvm/uapi/arm64.js'
import { createMachine } from '../../machine.js'
import type { Mapping } from '../../mem/vma.js'
import { VMSA_ENTRY } from '../../paging/formats-vmsa.js'
import { ARM64_IMAGE } from '../../vmm/elf.js'
import type { GuestArchitecture } from './architecture.js'
import type { GuestVcpu, GuestVm } from './guest-vm.js'

/** Where reports leave the guest: nothing is there. */
const UCALL_ADDRESS = 0x0900_0000n

const { valid, table, AP1, AP2, AF, PXN, UXN } = VMSA_ENTRY
const INNER_SHAREABLE = 3n << 8n
/** AttrIndx 0 is Normal write-back, 1 Device-nGnRE. */
const MAIR = 0x04ffn
const MEMORY = valid | table | AF | INNER_SHAREABLE
const DEVICES = valid | AF | (1n << 2n) | PXN | UXN

/** 39 bits below, nothing above; 4 KB, write-back, inner shareable; 16-bit ASIDs. */
const TCR = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 23n) | (1n << 36n)
const SCTLR_M = 1n
/** EL1h, everything masked. */
const PSTATE = 0x3c5n

const core = (word: number): bigint =>
  uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | BigInt(word)

/** Ids of one-registers: X0 to X30, SP_EL0, PC, PSTATE, SP_EL1, and system registers by name or encoding. */
export const ARM64_REG = {
  x: (n: number) => core(2 * n),
  sp_el0: core(62),
  pc: core(64),
  pstate: core(66),
  sp_el1: core(68),
  elr_el1: core(70),
  system: (name: SystemRegisterName | Parameters<typeof systemKey>): bigint =>
    uapi.KVM_REG_ARM64 |
    uapi.KVM_REG_SIZE_U64 |
    uapi.KVM_REG_ARM64_SYSREG |
    BigInt(typeof name === 'string' ? keyOf(name) : systemKey(...name)),
} as const

/** Where values of registers pass between a process and KVM: a page a vCPU. */
const pages = new WeakMap<GuestVcpu, Mapping>()

function pageOf(vcpu: GuestVcpu): Mapping {
  const page = pages.get(vcpu) ?? vcpu.vm.sys.mmap(4096)
  pages.set(vcpu, page)
  return page
}

/** KVM_GET_ONE_REG of a 64-bit register. */
export function getOneReg(vcpu: GuestVcpu, id: bigint): bigint {
  const { bytes, vaddr: addr } = pageOf(vcpu)
  vcpu.vm.sys.ioctl(vcpu.fd, uapi.KVM_GET_ONE_REG, uapi.kvm_one_reg({ id, addr }))
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
}

/** KVM_SET_ONE_REG of a 64-bit register. */
export function setOneReg(vcpu: GuestVcpu, id: bigint, value: bigint): void {
  const { bytes, vaddr: addr } = pageOf(vcpu)
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, value, true)
  vcpu.vm.sys.ioctl(vcpu.fd, uapi.KVM_SET_ONE_REG, uapi.kvm_one_reg({ id, addr }))
}

/** Roots of the VMs' tables. */
const roots = new WeakMap<GuestVm, bigint>()

/** Address of the last-level entry of a page of memory. */
function entryAt(vm: GuestVm, page: bigint): bigint {
  const level2 = vm.read64(roots.get(vm)! + 8n * (page >> 30n)) & ~0xfffn
  const level3 = vm.read64(level2 + 8n * ((page >> 21n) & 511n)) & ~0xfffn
  return level3 + 8n * ((page >> 12n) & 511n)
}

/** Lets EL0 read and execute whole pages of the guest's memory, before it runs; EL1 may not write them any more. */
export function showToEl0(vm: GuestVm, from: bigint, bytes: number): void {
  for (let page = from & ~0xfffn; page < from + BigInt(bytes); page += 4096n)
    vm.write64(entryAt(vm, page), page | MEMORY | AP1 | AP2 | PXN)
}

function makeTables(vm: GuestVm): void {
  const base = BigInt(vm.architecture.target.ramBase)
  const root = vm.alloc(4096)
  const level2 = vm.alloc(4096)
  roots.set(vm, root)
  vm.write64(root, DEVICES)
  vm.write64(root + 8n * (base >> 30n), level2 | valid | table)
  for (let at = 0n; at < BigInt(vm.ramBytes); at += 1n << 21n)
    vm.write64(level2 + 8n * (at >> 21n), vm.alloc(4096) | valid | table)
  for (let at = 0n; at < BigInt(vm.ramBytes); at += 4096n)
    vm.write64(entryAt(vm, base + at), (base + at) | MEMORY | UXN)
}

/** arm64, for GuestVm. */
export const ARM64_GUEST: GuestArchitecture = {
  target: ARM64_IMAGE,
  vectors: 16,
  classes: 64,
  isSynchronous: vector => vector % 4 === 0,
  machine: () => createMachine({ cpu: 'arm64', ramBytes: 32 << 20 }),

  prepare(vm) {
    makeTables(vm)
    vm.write64(vm.symbol('ucall_address'), UCALL_ADDRESS)
  },

  start(vcpu, at, args) {
    const { sys, fd } = vcpu.vm
    const init = uapi.kvm_vcpu_init({})
    sys.ioctl(fd, uapi.KVM_ARM_PREFERRED_TARGET, init)
    init.features.set(0, 1 << uapi.KVM_ARM_VCPU_PSCI_0_2)
    sys.ioctl(vcpu.fd, uapi.KVM_ARM_VCPU_INIT, init)
    const system = (name: SystemRegisterName, value: bigint) =>
      setOneReg(vcpu, ARM64_REG.system(name), value)
    system('MAIR_EL1', MAIR)
    const size = getOneReg(vcpu, ARM64_REG.system('ID_AA64MMFR0_EL1')) & 7n
    system('TCR_EL1', TCR | (size << 32n))
    system('TTBR0_EL1', roots.get(vcpu.vm)!)
    system('CPACR_EL1', 3n << 20n)
    system('SCTLR_EL1', getOneReg(vcpu, ARM64_REG.system('SCTLR_EL1')) | SCTLR_M)
    args.forEach((value, n) => {
      setOneReg(vcpu, ARM64_REG.x(n), value)
    })
    setOneReg(vcpu, ARM64_REG.x(8), at)
    setOneReg(vcpu, ARM64_REG.sp_el1, vcpu.stack)
    setOneReg(vcpu, ARM64_REG.pstate, PSTATE)
    setOneReg(vcpu, ARM64_REG.pc, vcpu.vm.symbol('guest_start'))
  },

  enterVectors(vcpu) {
    setOneReg(vcpu, ARM64_REG.system('VBAR_EL1'), vcpu.vm.symbol('vectors'))
  },

  reportAt({ page }) {
    const run = uapi.kvm_run.at(page)
    const { phys_addr, is_write, len, data } = run.u.mmio
    if (run.exit_reason !== uapi.KVM_EXIT_MMIO || phys_addr !== UCALL_ADDRESS) return undefined
    if (is_write === 0 || len !== 8) return undefined
    return new DataView(data.buffer, data.byteOffset).getBigUint64(0, true)
  },
}
