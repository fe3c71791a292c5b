// A guest with private memory: the guest of test/cpu/kvm in a software-protected VM, with calls for files, slots with
// files and attributes, and single accesses of the guest's processor to look through.
import { ErrnoError } from '../../../src/base/errno.js'
import type { GuestMemfdOptions } from '../../../src/cpu/kvm/memory/private-memory.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import type { Vm } from '../../../src/cpu/kvm/vm.js'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../../src/sys/open-file.js'
import { AT, Guest } from '../kvm/guest.js'

export const PAGE = 4096
export const MIB2 = 2 ** 21
/** Where tests put private memory: 1 GiB, which the guest maps as one page. */
export const GPA = 0x4000_0000
export const PUNCH = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
export const ALLOCATE = FALLOC_FL_KEEP_SIZE
/** Code of one access through RBX: a byte read, which goes out at port 0x10, or AL written. */
const READ = AT.CODE
const WRITE = AT.CODE + 16

/** A slot as tests describe it. */
export interface SlotInit {
  readonly slot?: number
  readonly flags?: number
  readonly gpa?: number
  readonly size?: number
  readonly user?: bigint
  readonly memfd?: number
  readonly offset?: bigint
}

export interface PrivateGuestOptions {
  readonly type?: number
  readonly memfd?: GuestMemfdOptions
}

/** A VM with private memory and one vCPU. */
export class PrivateGuest extends Guest {
  constructor({ type = uapi.KVM_X86_SW_PROTECTED_VM, memfd = {} }: PrivateGuestOptions = {}) {
    super({ type, parts: { guestMemfd: memfd } })
    this.code('8a 03 e6 10 eb fe', READ) // mov (%rbx),%al; out %al,$0x10
    this.code('88 03 e6 10 eb fe', WRITE) // mov %al,(%rbx); out %al,$0x10
  }

  get kvm(): Vm {
    return [...this.host.kvm.vms][0]!
  }

  createMemfd(size: number | bigint, flags = 0n): number {
    const args = uapi.kvm_create_guest_memfd({ size: BigInt(size), flags })
    return this.sys.ioctl(this.vm, uapi.KVM_CREATE_GUEST_MEMFD, args)
  }

  /** KVM_SET_USER_MEMORY_REGION2, by default of a page with a file at GPA. */
  slot2({
    slot = 1,
    flags,
    gpa = GPA,
    size = PAGE,
    user = 0n,
    memfd,
    offset = 0n,
  }: SlotInit): void {
    const region = uapi.kvm_userspace_memory_region2({
      slot,
      flags: flags ?? (memfd === undefined ? 0 : uapi.KVM_MEM_GUEST_MEMFD),
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(size),
      userspace_addr: user,
      guest_memfd: memfd ?? 0,
      guest_memfd_offset: offset,
    })
    this.sys.ioctl(this.vm, uapi.KVM_SET_USER_MEMORY_REGION2, region)
  }

  /** A slot at GPA with memory for both kinds of page. `at` places the owner's part. */
  memory(
    size: number,
    { gpa = GPA, slot = 1, at }: { gpa?: number; slot?: number; at?: bigint } = {},
  ) {
    const shared = this.sys.process.memory.mmap(size, { at })
    const memfd = this.createMemfd(size)
    this.slot2({ slot, gpa, size, user: shared.vaddr, memfd })
    return { shared, memfd }
  }

  attributes(gpa: number, size: number, isPrivate: boolean): void {
    const attributes = isPrivate ? BigInt(uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0n
    const call = uapi.kvm_memory_attributes({
      address: BigInt(gpa),
      size: BigInt(size),
      attributes,
    })
    this.sys.ioctl(this.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, call)
  }

  /** What the guest reads at an address, or how KVM_RUN ended otherwise. */
  peek(gpa: number): number | string {
    this.setRegs({ rip: BigInt(READ), rbx: BigInt(gpa) })
    const reason = this.enter()
    if (reason === uapi.KVM_EXIT_IO) return this.page[4096]!
    return this.#other(reason)
  }

  /** Lets the guest write a byte; `undefined`, or how KVM_RUN ended otherwise. */
  poke(gpa: number, value: number): string | undefined {
    this.setRegs({ rip: BigInt(WRITE), rbx: BigInt(gpa), rax: BigInt(value) })
    const reason = this.enter()
    return reason === uapi.KVM_EXIT_IO ? undefined : this.#other(reason)
  }

  /** How a page is mapped: level, and P for private or S for shared; undefined when it is not. */
  mapped(gpa: number): string | undefined {
    const m = this.kvm.privateMemory!.mappings.mappingAt(gpa / PAGE)
    return m && `${m.level}${m.isPrivate ? 'P' : 'S'}`
  }

  preFault(gpa: number | bigint, size: number | bigint, flags = 0n) {
    const range = uapi.kvm_pre_fault_memory({ gpa: BigInt(gpa), size: BigInt(size), flags })
    let error = ''
    try {
      this.sys.ioctl(this.vcpu, uapi.KVM_PRE_FAULT_MEMORY, range)
    } catch (e) {
      if (!(e instanceof ErrnoError)) throw e
      error = e.code
    }
    return { error, gpa: Number(range.gpa), left: Number(range.size) }
  }

  #other(reason: number | string): string {
    // A half-done access must not answer the next one.
    if (reason === uapi.KVM_EXIT_MMIO) {
      this.enter()
      return 'MMIO'
    }
    if (reason !== 'EFAULT') return String(reason)
    if (this.run.exit_reason !== uapi.KVM_EXIT_MEMORY_FAULT) return 'EFAULT'
    const { gpa, size, flags } = this.run.u.memory_fault
    return `fault ${flags} ${gpa.toString(16)}+${size}`
  }
}

/** The errno of a call, or '' when it succeeds. */
export function errno(call: () => unknown): string {
  try {
    call()
    return ''
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}
