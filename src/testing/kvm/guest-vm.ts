// A VM for a guest test: a program of guests/lib in memory of its own, started at any of its functions through the
// KVM ioctls. What it reports comes back as values; what it asserts in vain, and exceptions nobody handles, as errors.

import {
  KVM_CREATE_VCPU,
  KVM_CREATE_VM,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_RUN,
  KVM_SET_USER_MEMORY_REGION,
  kvm_userspace_memory_region,
} from '../../cpu/kvm/uapi/common.js'
import type { Mapping } from '../../mem/vma.js'
import type { Sys } from '../../sys/sys.js'
import { loadElf } from '../../vmm/elf.js'
import type { GuestArchitecture } from './architecture.js'
import { type ElfSymbol, symbolsOf, textAt } from './elf-symbols.js'
import { assert_on_unhandled_exception } from './exceptions.js'
import { assertionOf, readUcall, UCALL, UCALL_BYTES, type Ucall } from './ucall.js'

const RAM_BYTES = 1 << 20
const STACK_BYTES = 0x4000

/** Why a vCPU stopped. */
export type GuestStop =
  /** GUEST_SYNC with its values. */
  | { readonly kind: 'sync'; readonly args: readonly bigint[] }
  /** GUEST_DONE, or the function returned. */
  | { readonly kind: 'done' }
  /** Any other exit: KVM_EXIT_*; the rest is in the vCPU's `page`. */
  | { readonly kind: 'exit'; readonly reason: number }

/** What may differ from one guest VM to the next. */
export interface GuestVmOptions {
  /** Bytes of guest memory. Default 1 MiB. */
  readonly ramBytes?: number
  /** The process to make the calls in. Default: one of a machine of its own. */
  readonly sys?: Sys
}

/**
 * A VM with a guest program.
 *
 * @example
 * const vm = new GuestVm(ARM64_GUEST, image)
 * vm_init_descriptor_tables(vm)
 * vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, ESR_EC_BRK_INS, 'on_brk')
 * const vcpu = vm.vcpu('test', 1n, 2n)
 * vcpu_init_descriptor_tables(vcpu)
 * expect(vcpu.run()).toEqual({ kind: 'done' })
 */
export class GuestVm {
  readonly architecture: GuestArchitecture
  readonly sys: Sys
  readonly fd: number
  readonly ramBytes: number
  readonly #symbols: ReadonlyMap<string, ElfSymbol>
  readonly #memory: Mapping
  readonly #kvm: number
  readonly #view: DataView
  /** Offset of the last page that `alloc` gave away; it takes from the end. */
  #free: number
  #vcpus = 0
  readonly #held: { fd: number; vaddr: bigint; length: number }[] = []

  constructor(architecture: GuestArchitecture, image: Uint8Array, options: GuestVmOptions = {}) {
    const { ramBytes = RAM_BYTES, sys = architecture.machine().sys } = options
    this.architecture = architecture
    this.sys = sys
    this.ramBytes = ramBytes
    this.#symbols = symbolsOf(image)
    this.#kvm = sys.open('/dev/kvm')
    this.fd = sys.ioctl(this.#kvm, KVM_CREATE_VM, 0)
    this.#memory = sys.mmap(ramBytes)
    const { bytes, vaddr } = this.#memory
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, ramBytes)
    this.#free = ramBytes
    loadElf(image, bytes, architecture.target)
    const guest_phys_addr = BigInt(architecture.target.ramBase)
    const memory_size = BigInt(ramBytes)
    const region = { guest_phys_addr, memory_size, userspace_addr: vaddr }
    sys.ioctl(this.fd, KVM_SET_USER_MEMORY_REGION, kvm_userspace_memory_region(region))
    architecture.prepare(this)
  }

  /** Address of a function or global of the guest. */
  symbol(name: string): bigint {
    const symbol = this.#symbols.get(name)
    if (symbol === undefined) throw new Error(`the guest has no ${name}`)
    return symbol.address
  }

  /** Guest memory at an address. */
  bytes(at: bigint, length: number): Uint8Array {
    const offset = Number(at) - this.architecture.target.ramBase
    if (offset < 0 || offset + length > this.ramBytes)
      throw new Error(`0x${at.toString(16)} is not in the guest's memory`)
    return this.#memory.bytes.subarray(offset, offset + length)
  }

  read64(at: bigint): bigint {
    return this.#view.getBigUint64(this.bytes(at, 8).byteOffset - this.#view.byteOffset, true)
  }

  write64(at: bigint, value: bigint): void {
    this.#view.setBigUint64(this.bytes(at, 8).byteOffset - this.#view.byteOffset, value, true)
  }

  /** A string of the guest. */
  text(at: bigint): string {
    const offset = Number(at) - this.architecture.target.ramBase
    return textAt(this.#memory.bytes, offset)
  }

  /** Zeroed guest memory that nobody else uses, page-aligned; its address. */
  alloc(bytes: number): bigint {
    this.#free -= Math.ceil(bytes / 4096) * 4096
    const at = BigInt(this.architecture.target.ramBase + this.#free)
    this.bytes(at, bytes).fill(0)
    return at
  }

  /** A new vCPU that will call a function of the guest. */
  vcpu(entry: string, ...args: readonly bigint[]): GuestVcpu {
    const fd = this.sys.ioctl(this.fd, KVM_CREATE_VCPU, this.#vcpus++)
    const length = this.sys.ioctl(this.#kvm, KVM_GET_VCPU_MMAP_SIZE)
    const { bytes: page, vaddr } = this.sys.mmap({ fd, offset: 0n, length })
    const stack = this.alloc(STACK_BYTES) + BigInt(STACK_BYTES)
    const vcpu = new GuestVcpu(this, fd, page, stack)
    this.#held.push({ fd, vaddr, length })
    vcpu.call(entry, ...args)
    return vcpu
  }

  /** Gives the machine back what it holds: descriptors and memory. Nothing of it may be used after that. */
  close(): void {
    for (const { fd, vaddr, length } of this.#held.splice(0)) {
      this.sys.munmap(vaddr, length)
      this.sys.close(fd)
    }
    this.sys.close(this.fd)
    this.sys.close(this.#kvm)
    this.sys.munmap(this.#memory.vaddr, this.ramBytes)
  }
}

/** A vCPU of a guest VM. */
export class GuestVcpu {
  readonly vm: GuestVm
  readonly fd: number
  /** `struct kvm_run`. */
  readonly page: Uint8Array
  /** Its stack's end. */
  readonly stack: bigint

  constructor(vm: GuestVm, fd: number, page: Uint8Array, stack: bigint) {
    this.vm = vm
    this.fd = fd
    this.page = page
    this.stack = stack
  }

  /**
   * Resets it and makes it call a function of the guest with an empty stack. Its exceptions go to the reset state's
   * vectors again: `vcpu_init_descriptor_tables` comes after.
   */
  call(entry: string, ...args: readonly bigint[]): void {
    this.vm.architecture.start(this, this.vm.symbol(entry), args)
  }

  /** KVM_RUN until something reaches the host. Throws GuestAssertionError and UnhandledExceptionError. */
  run(): GuestStop {
    this.vm.sys.ioctl(this.fd, KVM_RUN)
    assert_on_unhandled_exception(this)
    const report = this.ucall()
    if (report === undefined) {
      const reason = new DataView(this.page.buffer, this.page.byteOffset).getUint32(8, true)
      return { kind: 'exit', reason }
    }
    if (report.cmd === UCALL.ABORT) throw assertionOf(report, at => this.vm.text(at))
    return report.cmd === UCALL.DONE ? { kind: 'done' } : { kind: 'sync', args: report.args }
  }

  /** Runs until it is done; the first values of its GUEST_SYNCs. An Error for any other exit. */
  finish(): bigint[] {
    const seen: bigint[] = []
    for (;;) {
      const stop = this.run()
      if (stop.kind === 'done') return seen
      if (stop.kind === 'exit') throw new Error(`the guest left with KVM_EXIT_* ${stop.reason}`)
      seen.push(stop.args[0]!)
    }
  }

  /** The report that the last run ended in, if it did (`get_ucall`). */
  ucall(): Ucall | undefined {
    const at = this.vm.architecture.reportAt(this)
    return at === undefined ? undefined : readUcall(this.vm.bytes(at, UCALL_BYTES).slice())
  }
}
