// x86-64 guests of tests: 64-bit mode at CPL 0, memory one to one from 0, a descriptor table of the library's entries.

import * as uapi from '../../cpu/kvm/uapi.js'
import { createMachine } from '../../machine.js'
import { X86_64_IMAGE } from '../../vmm/elf.js'
import type { GuestArchitecture } from './architecture.js'
import type { GuestVcpu, GuestVm } from './guest-vm.js'

/** Where reports leave the guest, their address in RDI. */
const UCALL_PORT = 0x1000

const CODE = 0x08
const DATA = 0x10
const PRESENT_WRITABLE = 3n
const LARGE = 0x80n
/** PE, MP, ET, NE, WP, PG; PAE; SCE, LME, LMA, NXE. */
const [CR0, CR4, EFER] = [0x8001_0033n, 0x20n, 0xd01n]
/** Bytes between two entries of guests/lib/x86_64/handlers.S. */
const ENTRY_BYTES = 16n

/** Tables of a VM. */
interface Tables {
  readonly root: bigint
  readonly gdt: bigint
  idt: bigint
}
const tables = new WeakMap<GuestVm, Tables>()

/** 4 GiB one to one, in pages of 2 MiB; two flat segments. */
function makeTables(vm: GuestVm): void {
  const [root, pdpt, gdt] = [vm.alloc(4096), vm.alloc(4096), vm.alloc(4096)]
  vm.write64(root, pdpt | PRESENT_WRITABLE)
  for (let gb = 0n; gb < 4n; gb++) {
    const pd = vm.alloc(4096)
    vm.write64(pdpt + 8n * gb, pd | PRESENT_WRITABLE)
    for (let i = 0n; i < 512n; i++)
      vm.write64(pd + 8n * i, ((512n * gb + i) << 21n) | LARGE | PRESENT_WRITABLE)
  }
  vm.write64(gdt + BigInt(CODE), 0x00af_9b00_0000_ffffn)
  vm.write64(gdt + BigInt(DATA), 0x00cf_9300_0000_ffffn)
  tables.set(vm, { root, gdt, idt: 0n })
}

/** Interrupt gates to the library's entries. */
function makeIdt(vm: GuestVm): void {
  const idt = vm.alloc(4096)
  const entries = vm.symbol('idt_entries')
  for (let vector = 0n; vector < 256n; vector++) {
    const to = entries + vector * ENTRY_BYTES
    const low = (to & 0xffffn) | (BigInt(CODE) << 16n) | (0x8en << 40n) | ((to >> 16n) << 48n)
    vm.write64(idt + 16n * vector, BigInt.asUintN(64, low))
    vm.write64(idt + 16n * vector + 8n, to >> 32n)
  }
  tables.get(vm)!.idt = idt
}

function changeSregs(
  { vm, fd }: GuestVcpu,
  change: (s: ReturnType<typeof uapi.kvm_sregs>) => void,
): void {
  const s = uapi.kvm_sregs()
  vm.sys.ioctl(fd, uapi.KVM_GET_SREGS, s)
  change(s)
  vm.sys.ioctl(fd, uapi.KVM_SET_SREGS, s)
}

function enterLongMode(vcpu: GuestVcpu): void {
  const { root, gdt } = tables.get(vcpu.vm)!
  changeSregs(vcpu, s => {
    const flat = { base: 0n, limit: 0xffff_ffff, s: 1, present: 1, g: 1, dpl: 0, unusable: 0 }
    Object.assign(s.cs, { ...flat, selector: CODE, type: 11, l: 1, db: 0 })
    for (const d of [s.ds, s.es, s.fs, s.gs, s.ss])
      Object.assign(d, { ...flat, selector: DATA, type: 3, l: 0, db: 1 })
    Object.assign(s.gdt, { base: gdt, limit: 23 })
    s.cr0 = CR0
    s.cr3 = root
    s.cr4 = CR4
    s.efer = EFER
  })
}

/** x86-64, for GuestVm. */
export const X86_64_GUEST: GuestArchitecture = {
  target: X86_64_IMAGE,
  vectors: 256,
  classes: 1,
  isSynchronous: () => false,
  machine: () => createMachine({ ramBytes: 32 << 20 }),
  prepare: makeTables,
  prepareVectors: makeIdt,

  start(vcpu, at, args) {
    const { sys } = vcpu.vm
    const leaves = uapi.kvm_cpuid2({ nent: 80 }, 80 * uapi.kvm_cpuid_entry2.size)
    const kvm = sys.open('/dev/kvm')
    sys.ioctl(kvm, uapi.KVM_GET_SUPPORTED_CPUID, leaves)
    sys.close(kvm)
    sys.ioctl(vcpu.fd, uapi.KVM_SET_CPUID2, leaves)
    enterLongMode(vcpu)
    const [rdi, rsi, rdx, rcx, r8, r9] = args
    // The stack is as a call leaves it.
    const rsp = vcpu.stack - 16n
    const given = { rdi, rsi, rdx, rcx, r8, r9 }
    const known = Object.entries(given).filter(([, value]) => value !== undefined)
    const regs = { ...Object.fromEntries(known), rax: at, rsp, rflags: 2n }
    const rip = vcpu.vm.symbol('guest_start')
    sys.ioctl(vcpu.fd, uapi.KVM_SET_REGS, uapi.kvm_regs({ ...regs, rip }))
  },

  enterVectors(vcpu) {
    const { idt } = tables.get(vcpu.vm)!
    if (idt === 0n) throw new Error('vm_init_descriptor_tables comes first')
    changeSregs(vcpu, s => {
      Object.assign(s.idt, { base: idt, limit: 4095 })
    })
  },

  reportAt(vcpu) {
    const run = uapi.kvm_run.at(vcpu.page)
    const { port, direction } = run.u.io
    if (run.exit_reason !== uapi.KVM_EXIT_IO || port !== UCALL_PORT) return undefined
    if (direction !== uapi.KVM_EXIT_IO_OUT) return undefined
    const regs = uapi.kvm_regs()
    vcpu.vm.sys.ioctl(vcpu.fd, uapi.KVM_GET_REGS, regs)
    return regs.rdi
  },
}
