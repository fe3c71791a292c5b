// A VMM for the guest in guests/x86_64/private: a software-protected VM whose data lies in slots that share one
// guest_memfd, several vCPUs taken in turns, conversions on the guest's hypercall, and a device that may copy its pages.

import { ErrnoError } from '../base/errno.js'
import {
  KVM_CAP_EXIT_HYPERCALL,
  KVM_CREATE_GUEST_MEMFD,
  KVM_CREATE_VCPU,
  KVM_CREATE_VM,
  KVM_ENABLE_CAP,
  KVM_EXIT_HYPERCALL,
  KVM_EXIT_IO,
  KVM_EXIT_MEMORY_FAULT,
  KVM_GET_SREGS,
  KVM_GET_SUPPORTED_CPUID,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_RUN,
  KVM_SET_CPUID2,
  KVM_SET_MEMORY_ATTRIBUTES,
  KVM_SET_REGS,
  KVM_SET_SREGS,
  KVM_SET_USER_MEMORY_REGION2,
  KVM_X86_SW_PROTECTED_VM,
  kvm_cpuid2,
  kvm_create_guest_memfd,
  kvm_enable_cap,
  kvm_memory_attributes,
  kvm_regs,
  kvm_run,
  kvm_sregs,
  kvm_userspace_memory_region2,
} from '../cpu/kvm/uapi.js'
import type { Mapping } from '../mem/vma.js'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../sys/open-file.js'
import type { Sys } from '../sys/sys.js'
import type { CopyDevice } from './copy-device.js'
import { prepareGuest } from './guest-boot.js'

/** What the guest runs (guests/x86_64/private/main.c). */
export type PrivateProgram = 'conversions' | 'holes' | 'tour'

/** How the guest machine is made. */
export interface PrivateGuestOptions {
  readonly sys: Sys
  readonly image: Uint8Array
  readonly program: PrivateProgram
  /** Default 1. */
  readonly vcpus?: number
  /** Slots that the data is cut into, all of one file; default 1. A divisor of the data. */
  readonly slots?: number
  /** Bytes between the words of a page that are written and looked at; default 4088: the first and the last. */
  readonly step?: number
  /** The device that the tour uses. */
  readonly device?: CopyDevice
  /** A VMM that forgets to unmap what becomes private for the device. */
  readonly forgetful?: boolean
  readonly tell?: (event: PrivateGuestEvent) => void
}

/** What happens, for people. */
export type PrivateGuestEvent =
  | { readonly kind: 'say'; readonly vcpu: number; readonly text: string }
  | {
      readonly kind: 'convert'
      readonly vcpu: number
      readonly gpa: number
      readonly bytes: number
      readonly toPrivate: boolean
    }
  | { readonly kind: 'host'; readonly gpa: number; readonly byte: number }
  | {
      readonly kind: 'device'
      readonly gpa: number
      readonly write: boolean
      readonly done: boolean
    }
  | { readonly kind: 'punch'; readonly gpa: number; readonly bytes: number }

/** What a run came to. */
export interface PrivateGuestEnd {
  /** vCPUs that finished their program. */
  readonly done: number
  /** Why it ended otherwise. */
  readonly failure: string | undefined
  readonly conversions: number
}

/** Where the guest's data begins, and how much of it each vCPU has: 2 MiB and a page, in 4 MiB. */
export const PRIVATE_BASE = 0x4000_0000
export const AREA_STRIDE = 4 << 20
const RAM = 2 << 20
const PAGE = 4096
/** The step that looks at both ends of a page. */
const ENDS = PAGE - 8
const DATA_SLOT = 10
const STACKS = 0xa_0000
/** Where the device's own page is, in its address space. */
const SCRATCH_IOVA = 0x1000_0000
const PROGRAMS: Readonly<Record<PrivateProgram, bigint>> = { conversions: 1n, holes: 2n, tour: 3n }
const PORT_REQUEST = 0xe5
/** What the guest asks for: `enum request_kind` of its source. */
// biome-ignore format: table
const REQUEST = {
  SYNC_SHARED: 1, SYNC_PRIVATE: 2, FALLOCATE: 3,    PUNCH: 4,     DONE: 5,
  FAIL: 6,        DEVICE_READ: 7,  DEVICE_WRITE: 8, HOST_READ: 9, SAY: 10,
} as const
const ENCRYPTED = 1n << 4n

interface PrivateVcpu {
  readonly fd: number
  readonly map: Mapping
  readonly page: Uint8Array
  readonly run: ReturnType<typeof kvm_run.at>
  /** Conversions allocate or punch the file too. */
  fallocate: boolean
  done: boolean
}

/** One such guest. */
export class PrivateGuest {
  readonly #options: PrivateGuestOptions
  readonly #sys: Sys
  readonly #vm: number
  readonly #ram: Mapping
  readonly #shared: Mapping
  readonly #memfd: number
  readonly #scratch: Mapping | undefined
  readonly #vcpus: PrivateVcpu[] = []
  readonly #files: number[] = []
  #conversions = 0
  #failure: string | undefined

  constructor(options: PrivateGuestOptions) {
    const { sys, image, vcpus = 1, slots = 1, device } = options
    this.#options = options
    this.#sys = sys
    const kvm = this.#keep(sys.open('/dev/kvm'))
    this.#vm = this.#keep(sys.ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM))
    const exits = kvm_enable_cap({
      cap: KVM_CAP_EXIT_HYPERCALL,
      args: [1n << BigInt(KVM_HC_MAP_GPA_RANGE), 0n, 0n, 0n],
    })
    sys.ioctl(this.#vm, KVM_ENABLE_CAP, exits)
    this.#ram = sys.mmap(RAM)
    this.#slot(0, 0, RAM, this.#ram.vaddr)
    const bytes = vcpus * AREA_STRIDE
    this.#shared = sys.mmap(bytes)
    const size = BigInt(bytes)
    this.#memfd = this.#keep(
      sys.ioctl(this.#vm, KVM_CREATE_GUEST_MEMFD, kvm_create_guest_memfd({ size })),
    )
    const piece = bytes / slots
    for (let i = 0; i < slots; i++) {
      const at = this.#shared.vaddr + BigInt(i * piece)
      this.#slot(DATA_SLOT + i, PRIVATE_BASE + i * piece, piece, at, i * piece)
    }
    const info = { ramBytes: RAM, ecamBase: 0, iommuBase: 0 }
    const entry = prepareGuest(this.#ram.bytes, image, info)
    for (let i = 0; i < vcpus; i++) this.#vcpus.push(this.#vcpu(kvm, i, entry))
    if (device !== undefined) {
      this.#scratch = sys.mmap(PAGE)
      device.map(SCRATCH_IOVA, this.#scratch.vaddr, PAGE)
      // The first page is all that the tour needs; what is private is not mapped.
      device.map(PRIVATE_BASE, this.#shared.vaddr, PAGE)
    }
  }

  /** The VM's descriptor. */
  get vm(): number {
    return this.#vm
  }

  /** Takes the vCPUs in turns until all are done, or one fails. */
  run(): PrivateGuestEnd {
    while (this.#failure === undefined && this.#vcpus.some(v => !v.done)) {
      for (const [i, vcpu] of this.#vcpus.entries()) if (!vcpu.done) this.#enter(i, vcpu)
    }
    const done = this.#vcpus.filter(v => v.done).length
    return { done, failure: this.#failure, conversions: this.#conversions }
  }

  /** Closes everything, the VM before its file: the file still can be used then. */
  close(): void {
    const { device } = this.#options
    device?.unmap(0, 2 ** 40)
    for (const { map } of this.#vcpus) this.#sys.munmap(map.vaddr, map.length)
    for (const fd of this.#files) if (fd !== this.#memfd) this.#sys.close(fd)
    const { size } = this.#sys.fstat(this.#memfd)
    this.#sys.fallocate(this.#memfd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, size)
    this.#sys.close(this.#memfd)
  }

  #keep(fd: number): number {
    this.#files.push(fd)
    return fd
  }

  #slot(slot: number, gpa: number, size: number, user: bigint, offset?: number): void {
    const file =
      offset === undefined
        ? {}
        : {
            flags: KVM_MEM_GUEST_MEMFD,
            guest_memfd: this.#memfd,
            guest_memfd_offset: BigInt(offset),
          }
    const region = kvm_userspace_memory_region2({
      slot,
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(size),
      userspace_addr: user,
      ...file,
    })
    this.#sys.ioctl(this.#vm, KVM_SET_USER_MEMORY_REGION2, region)
  }

  #vcpu(kvm: number, i: number, entry: ReturnType<typeof prepareGuest>): PrivateVcpu {
    const sys = this.#sys
    const fd = this.#keep(sys.ioctl(this.#vm, KVM_CREATE_VCPU, i))
    const length = sys.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE)
    const map = sys.mmap({ fd, offset: 0, length })
    const page = map.bytes
    const cpuid = kvm_cpuid2({ nent: 80 }, 80 * 40)
    sys.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid)
    sys.ioctl(fd, KVM_SET_CPUID2, cpuid)
    const sregs = kvm_sregs()
    sys.ioctl(fd, KVM_GET_SREGS, sregs)
    const flat = { base: 0n, limit: 0xffff_ffff, s: 1, present: 1, g: 1, dpl: 0, unusable: 0 }
    Object.assign(sregs.cs, { ...flat, selector: 8, type: 11, l: 1, db: 0 })
    for (const segment of [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss])
      Object.assign(segment, { ...flat, selector: 16, type: 3, l: 0, db: 1 })
    Object.assign(sregs.gdt, { base: entry.gdtBase, limit: entry.gdtLimit })
    sregs.cr3 = entry.cr3
    sregs.cr4 = 0x20n
    sregs.cr0 = 0x8001_0011n
    sregs.efer = 0x501n
    sys.ioctl(fd, KVM_SET_SREGS, sregs)
    const { program, step = ENDS } = this.#options
    const regs = kvm_regs({
      rip: entry.rip,
      rsp: BigInt(STACKS - i * PAGE - 8),
      rdi: PROGRAMS[program],
      rsi: BigInt(PRIVATE_BASE + i * AREA_STRIDE),
      rdx: BigInt(step),
      rflags: 2n,
    })
    sys.ioctl(fd, KVM_SET_REGS, regs)
    return { fd, map, page, run: kvm_run.at(page), fallocate: false, done: false }
  }

  #enter(i: number, vcpu: PrivateVcpu): void {
    const { run } = vcpu
    try {
      this.#sys.ioctl(vcpu.fd, KVM_RUN)
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
      const { gpa } = run.u.memory_fault
      const where = run.exit_reason === KVM_EXIT_MEMORY_FAULT ? ` at 0x${gpa.toString(16)}` : ''
      this.#failure = `vCPU ${i}: ${error.code}${where}`
      return
    }
    if (run.exit_reason === KVM_EXIT_HYPERCALL) this.#hypercall(i, vcpu)
    else if (run.exit_reason === KVM_EXIT_IO && run.u.io.port === PORT_REQUEST)
      this.#request(i, vcpu)
    else this.#failure = `vCPU ${i}: exit ${run.exit_reason}`
  }

  #hypercall(vcpu: number, { run, fallocate }: PrivateVcpu): void {
    const [gpa, pages, attributes] = [0, 1, 2].map(n => run.u.hypercall.args.get(n))
    const [at, bytes] = [Number(gpa), Number(pages) * PAGE]
    const toPrivate = (attributes! & ENCRYPTED) !== 0n
    this.#convert(at, bytes, toPrivate, fallocate)
    this.#conversions++
    this.#options.tell?.({ kind: 'convert', vcpu, gpa: at, bytes, toPrivate })
    run.u.hypercall.ret = 0n
  }

  // Devices lose a page before it becomes private, and have it again after it is shared.
  #convert(gpa: number, bytes: number, toPrivate: boolean, fallocate: boolean): void {
    const { device, forgetful } = this.#options
    if (toPrivate && !forgetful) device?.unmap(gpa, bytes)
    if (fallocate) this.#fallocate(gpa, bytes, toPrivate)
    const call = kvm_memory_attributes({
      address: BigInt(gpa),
      size: BigInt(bytes),
      attributes: toPrivate ? BigInt(KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0n,
    })
    this.#sys.ioctl(this.#vm, KVM_SET_MEMORY_ATTRIBUTES, call)
    if (!toPrivate && !forgetful)
      device?.map(gpa, this.#shared.vaddr + BigInt(gpa - PRIVATE_BASE), bytes)
  }

  #fallocate(gpa: number, bytes: number, allocate: boolean): void {
    const mode = allocate ? FALLOC_FL_KEEP_SIZE : FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    this.#sys.fallocate(this.#memfd, mode, gpa - PRIVATE_BASE, bytes)
  }

  #request(i: number, vcpu: PrivateVcpu): void {
    const view = new DataView(vcpu.page.buffer, vcpu.page.byteOffset + PAGE)
    const at = view.getUint32(0, true)
    const { bytes } = this.#ram
    const ram = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const word = (n: number) => Number(ram.getBigUint64(at + 8 * n, true))
    const answer = (value: number) => ram.setBigUint64(at + 32, BigInt(value), true)
    const [kind, gpa, size, pattern, fresh] = [0, 1, 2, 3, 4].map(word) as [
      number,
      number,
      number,
      number,
      number,
    ]
    const data = this.#shared.bytes.subarray(gpa - PRIVATE_BASE, gpa - PRIVATE_BASE + size)
    const tell = this.#options.tell ?? (() => {})
    switch (kind) {
      case REQUEST.SYNC_SHARED:
      case REQUEST.SYNC_PRIVATE:
        this.#look(i, gpa, data, pattern)
        if (kind === REQUEST.SYNC_SHARED) data.fill(fresh)
        return
      case REQUEST.FALLOCATE:
        vcpu.fallocate = pattern !== 0
        return
      case REQUEST.PUNCH:
        this.#fallocate(gpa, size, false)
        tell({ kind: 'punch', gpa, bytes: size })
        return
      case REQUEST.DONE:
        vcpu.done = true
        return
      case REQUEST.FAIL:
        this.#failure = `vCPU ${i}, line ${size}: ${hex(fresh)} at ${hex(gpa)}, not ${hex(pattern)}`
        return
      case REQUEST.DEVICE_READ:
      case REQUEST.DEVICE_WRITE: {
        const write = kind === REQUEST.DEVICE_WRITE
        const done = this.#device(gpa, write, pattern)
        answer(Number(done))
        tell({ kind: 'device', gpa, write, done })
        return
      }
      case REQUEST.HOST_READ: {
        const byte = this.#shared.bytes[gpa - PRIVATE_BASE]!
        answer(byte)
        tell({ kind: 'host', gpa, byte })
        return
      }
      case REQUEST.SAY:
        tell({ kind: 'say', vcpu: i, text: textAt(bytes, gpa) })
        return
      default:
        this.#failure = `vCPU ${i}: request ${kind}`
    }
  }

  // Where the guest looks too: it writes no more than that.
  #look(vcpu: number, gpa: number, data: Uint8Array, pattern: number): void {
    const { step = ENDS } = this.#options
    for (let page = 0; page < data.length; page += PAGE)
      for (let at = page; at < page + PAGE; at += step)
        if (data[at] !== pattern) {
          this.#failure ??= `vCPU ${vcpu}: the host sees ${hex(data[at]!)} at ${hex(gpa + at)}, not ${hex(pattern)}`
          return
        }
  }

  #device(gpa: number, write: boolean, byte: number): boolean {
    const { device } = this.#options
    if (device === undefined || this.#scratch === undefined) return false
    if (write) this.#scratch.bytes.fill(byte)
    return write ? device.copy(SCRATCH_IOVA, gpa, PAGE) : device.copy(gpa, SCRATCH_IOVA, PAGE)
  }
}

const hex = (n: number) => `0x${n.toString(16)}`

function textAt(ram: Uint8Array, at: number): string {
  return new TextDecoder().decode(ram.subarray(at, ram.indexOf(0, at)))
}
