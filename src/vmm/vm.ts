// The VMM's side of KVM: one VM, one vCPU in long mode, memory slots, and the loop around KVM_RUN.

import { ErrnoError } from '../base/errno.js'
import {
  KVM_CREATE_IRQCHIP,
  KVM_CREATE_VCPU,
  KVM_CREATE_VM,
  KVM_EXIT_HLT,
  KVM_EXIT_INTR,
  KVM_EXIT_IO,
  KVM_EXIT_IO_OUT,
  KVM_EXIT_MMIO,
  KVM_EXIT_SHUTDOWN,
  KVM_GET_SREGS,
  KVM_GET_SUPPORTED_CPUID,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_RUN,
  KVM_SET_CPUID2,
  KVM_SET_REGS,
  KVM_SET_SREGS,
  KVM_SET_USER_MEMORY_REGION,
  KVM_SIGNAL_MSI,
  kvm_cpuid2,
  kvm_msi,
  kvm_regs,
  kvm_run,
  kvm_sregs,
  kvm_userspace_memory_region,
} from '../cpu/kvm/uapi.js'
import type { Mapping } from '../mem/vma.js'
import type { Sys } from '../sys/sys.js'
import type { EntryState } from './guest-boot.js'

/** What the guest does outside its memory, for whoever emulates it. */
export interface GuestDevices {
  /** OUT to a port; false when nothing is there. */
  portWrite(port: number, size: number, value: number): void
  portRead(port: number, size: number): number
  mmioRead(address: number, size: number): bigint
  mmioWrite(address: number, size: number, value: bigint): void
}

/** Why the vCPU stopped for good, or that it only paused. */
export type Pause =
  | { readonly kind: 'again' }
  | { readonly kind: 'halted' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'unexpected'; readonly reason: number }

/** What may differ from one VM to the next. */
export interface VmOptions {
  /** KVM_CREATE_VM's argument. */
  readonly type?: number
  /** Runs with the VM's descriptor before there is a vCPU. */
  readonly prepare?: (vm: number) => void
  /** Changes the leaves that the vCPU gets. */
  readonly cpuid?: (leaves: ReturnType<typeof kvm_cpuid2>) => void
}

/** One virtual machine with one vCPU. */
export class Vm {
  readonly #sys: Sys
  readonly #kvm: number
  readonly #vm: number
  readonly #vcpu: number
  readonly #run
  readonly #mapping: Mapping
  readonly #page: Uint8Array
  readonly #slots = new Map<number, bigint>()

  constructor(sys: Sys, options: VmOptions = {}) {
    this.#sys = sys
    this.#kvm = sys.open('/dev/kvm')
    this.#vm = sys.ioctl(this.#kvm, KVM_CREATE_VM, options.type ?? 0)
    sys.ioctl(this.#vm, KVM_CREATE_IRQCHIP)
    options.prepare?.(this.#vm)
    this.#vcpu = sys.ioctl(this.#vm, KVM_CREATE_VCPU, 0)
    const length = sys.ioctl(this.#kvm, KVM_GET_VCPU_MMAP_SIZE)
    this.#mapping = sys.mmap({ fd: this.#vcpu, offset: 0n, length })
    this.#page = this.#mapping.bytes
    this.#run = kvm_run.at(this.#page)
    const cpuid = kvm_cpuid2({ nent: 80 }, 80 * 40)
    sys.ioctl(this.#kvm, KVM_GET_SUPPORTED_CPUID, cpuid)
    options.cpuid?.(cpuid)
    sys.ioctl(this.#vcpu, KVM_SET_CPUID2, cpuid)
  }

  /** The VM's descriptor, for calls that this class does not make. */
  get fd(): number {
    return this.#vm
  }

  /** The vCPU's descriptor and mapped pages, for a debugger. */
  get cpu(): { readonly fd: number; readonly page: Uint8Array } {
    return { fd: this.#vcpu, page: this.#page }
  }

  /** Puts `size` bytes at process address `vaddr` at guest address `gpa`; size 0 takes the slot away. */
  setSlot(slot: number, gpa: number, size: number, vaddr: bigint): void {
    if (size === 0 && !this.#slots.has(slot)) return
    const region = kvm_userspace_memory_region({
      slot,
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(size),
      userspace_addr: vaddr,
    })
    this.#sys.ioctl(this.#vm, KVM_SET_USER_MEMORY_REGION, region)
    if (size === 0) this.#slots.delete(slot)
    else this.#slots.set(slot, vaddr)
  }

  /** The same for an address of the guest's choosing: false when the kernel refuses it (an overlap, say). */
  trySlot(slot: number, gpa: number, size: number, vaddr: bigint): boolean {
    try {
      this.setSlot(slot, gpa, size, vaddr)
      return true
    } catch (error) {
      if (error instanceof ErrnoError) return false
      throw error
    }
  }

  /** Enters 64-bit mode at `entry` with flat segments, paging on and interrupts off. */
  setEntry(entry: EntryState): void {
    const sregs = kvm_sregs()
    this.#sys.ioctl(this.#vcpu, KVM_GET_SREGS, sregs)
    const flat = { base: 0n, limit: 0xffff_ffff, s: 1, present: 1, g: 1, dpl: 0, unusable: 0 }
    Object.assign(sregs.cs, { ...flat, selector: 8, type: 11, l: 1, db: 0 })
    for (const segment of [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss])
      Object.assign(segment, { ...flat, selector: 16, type: 3, l: 0, db: 1 })
    Object.assign(sregs.gdt, { base: entry.gdtBase, limit: entry.gdtLimit })
    Object.assign(sregs.idt, { base: 0n, limit: 0 })
    sregs.cr3 = entry.cr3
    sregs.cr4 = 0x20n // PAE
    sregs.cr0 = 0x8001_0011n // PG, WP, ET, PE
    sregs.efer = 0x501n // LMA, LME, SCE
    this.#sys.ioctl(this.#vcpu, KVM_SET_SREGS, sregs)
    const { rip, rsp, rdi } = entry
    this.#sys.ioctl(this.#vcpu, KVM_SET_REGS, kvm_regs({ rip, rsp, rdi, rflags: 2n }))
  }

  /** Delivers a message-signalled interrupt to the guest. */
  signalMsi(address: number, data: number): void {
    this.#sys.ioctl(this.#vm, KVM_SIGNAL_MSI, kvm_msi({ address_lo: address, data }))
  }

  /** Makes KVM_RUN return before the next instruction, once. */
  kick(): void {
    this.#run.immediate_exit = 1
  }

  /** Runs the vCPU until it needs us, and serves what it needs. */
  runOnce(devices: GuestDevices): Pause {
    try {
      this.#sys.ioctl(this.#vcpu, KVM_RUN)
    } catch (error) {
      if (!(error instanceof ErrnoError) || error.code !== 'EINTR') throw error
      const kicked = this.#run.immediate_exit !== 0
      this.#run.immediate_exit = 0
      return { kind: kicked ? 'again' : 'halted' }
    }
    switch (this.#run.exit_reason) {
      case KVM_EXIT_IO:
        this.#io(devices)
        return { kind: 'again' }
      case KVM_EXIT_MMIO:
        this.#mmio(devices)
        return { kind: 'again' }
      case KVM_EXIT_INTR:
        return { kind: 'again' }
      case KVM_EXIT_HLT:
        return { kind: 'halted' }
      case KVM_EXIT_SHUTDOWN:
        return { kind: 'shutdown' }
      default:
        return { kind: 'unexpected', reason: this.#run.exit_reason }
    }
  }

  close(): void {
    // The mapping would keep the vCPU, and with it the VM.
    this.#sys.munmap(this.#mapping.vaddr, this.#page.length)
    this.#sys.close(this.#vcpu)
    this.#sys.close(this.#vm)
    this.#sys.close(this.#kvm)
  }

  #io(devices: GuestDevices): void {
    const { direction, size, port, count, data_offset } = this.#run.u.io
    const view = new DataView(this.#page.buffer, this.#page.byteOffset + Number(data_offset))
    for (let i = 0; i < count; i++) {
      const at = i * size
      if (direction === KVM_EXIT_IO_OUT)
        devices.portWrite(
          port,
          size,
          size === 1
            ? view.getUint8(at)
            : size === 2
              ? view.getUint16(at, true)
              : view.getUint32(at, true),
        )
      else {
        const value = devices.portRead(port, size)
        if (size === 1) view.setUint8(at, value)
        else if (size === 2) view.setUint16(at, value, true)
        else view.setUint32(at, value, true)
      }
    }
  }

  #mmio(devices: GuestDevices): void {
    const { phys_addr, data, len, is_write } = this.#run.u.mmio
    const address = Number(phys_addr)
    const view = new DataView(data.buffer, data.byteOffset, 8)
    if (is_write) {
      const mask = len === 8 ? 0xffff_ffff_ffff_ffffn : (1n << BigInt(8 * len)) - 1n
      devices.mmioWrite(address, len, view.getBigUint64(0, true) & mask)
    } else view.setBigUint64(0, devices.mmioRead(address, len), true)
  }
}
