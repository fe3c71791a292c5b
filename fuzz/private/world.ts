// A machine with a software-protected VM of two vCPUs, a dma-copy device of the same owner, and the calls that programs
// make of them. Code of the guest is two instructions: a byte read, or written, through RBX.

import { ErrnoError } from '../../src/base/errno.js'
import type { GuestMemfdOptions } from '../../src/cpu/kvm/memory/private-memory.js'
import * as uapi from '../../src/cpu/kvm/uapi.js'
import { createMachine, type Machine, type MachineDescription } from '../../src/machine.js'
import { ConfidentialPages } from '../../src/mem/confidential.js'
import type { Mapping } from '../../src/mem/vma.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../src/sys/open-file.js'
import type { Sys } from '../../src/sys/sys.js'
import { CopyDevice } from '../../src/vmm/copy-device.js'
import { FILE_PAGES, type ModelSlot, USER_PAGES } from './model.js'

const PAGE = 4096
const AT = '0000:01:00.0'
/** Guest-physical address of guest frame 0 of the model, of the device's own page, and of the guest's code. */
const BASE = 0x4000_0000
const SCRATCH = 0x1000_0000
const [READ, WRITE] = [0x8000, 0x8010]
const [PML4, PDPT] = [0x1000, 0x2000]
const RAM = 0x10000

/** How the world is made; the defects that tests plant come by `spoil`. */
export interface WorldOptions {
  readonly memfd?: GuestMemfdOptions
  readonly spoil?: (world: PrivateWorld) => void
  /** Whether the machine keeps its history. */
  readonly record?: boolean
}

interface Cpu {
  readonly fd: number
  readonly page: Uint8Array
  readonly run: ReturnType<typeof uapi.kvm_run.at>
  readonly map: Mapping
}

/** The product, under a program. */
export class PrivateWorld {
  readonly machine: Machine
  readonly sys: Sys
  readonly device: CopyDevice
  readonly states: ConfidentialPages
  readonly vm: number
  readonly memfd: number
  readonly #kvm: number
  readonly cpus: Cpu[] = []
  readonly #scratch: Mapping
  readonly #user: bigint
  readonly #start: number

  constructor(options: WorldOptions = {}) {
    const { memfd = { order: 2 } } = options
    const machine = createMachine(describeWorld(memfd, options.record))
    this.machine = machine
    this.#start = machine.kernel.frames.used
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    this.sys = sys
    this.device = new CopyDevice(sys, machine.groupOf(AT), AT, () => machine.settle())
    this.#scratch = sys.mmap(PAGE)
    this.device.map(SCRATCH, this.#scratch.vaddr, PAGE)
    this.#kvm = sys.open('/dev/kvm')
    this.vm = sys.ioctl(this.#kvm, uapi.KVM_CREATE_VM, uapi.KVM_X86_SW_PROTECTED_VM)
    this.states = ConfidentialPages.of(machine.memory)
    const ram = sys.mmap(RAM)
    prepare(ram.bytes)
    this.#region(100, 0, RAM, ram.vaddr)
    const size = BigInt(FILE_PAGES * PAGE)
    const create = uapi.kvm_create_guest_memfd({ size })
    this.memfd = sys.ioctl(this.vm, uapi.KVM_CREATE_GUEST_MEMFD, create)
    const whole = sys.mmap(USER_PAGES * PAGE)
    this.#user = whole.vaddr
    if (!options.record) {
      // Page by page, so that the owner can take one away and put another there: no call that a history keeps.
      sys.munmap(whole.vaddr, USER_PAGES * PAGE)
      for (let i = 0; i < USER_PAGES; i++) this.mapUser(i)
    }
    for (let i = 0; i < 2; i++) this.cpus.push(this.#cpu(i))
    options.spoil?.(this)
  }

  // ---- the owner's memory ----

  mapUser(page: number): void {
    this.sys.process.memory.mmap(PAGE, { at: this.#user + BigInt(page * PAGE) })
  }

  unmapUser(page: number): void {
    this.sys.munmap(this.#user + BigInt(page * PAGE), PAGE)
  }

  /** Every byte of a page of the owner's. */
  hostWrite(page: number, value: number): void {
    this.#bytes(page).fill(value)
  }

  hostRead(page: number): number {
    return this.#bytes(page)[0]!
  }

  // ---- KVM ----

  attributes(first: number, pages: number, isPrivate: boolean): void {
    const call = uapi.kvm_memory_attributes({
      address: BigInt(BASE + first * PAGE),
      size: BigInt(pages * PAGE),
      attributes: isPrivate ? BigInt(uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0n,
    })
    this.sys.ioctl(this.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, call)
  }

  addSlot(id: number, { first, pages, user, file }: ModelSlot): string {
    const vaddr = this.#user + BigInt(user * PAGE)
    return errnoOf(() => this.#region(id, BASE + first * PAGE, pages * PAGE, vaddr, file))
  }

  deleteSlot(id: number): void {
    this.#region(id, 0, 0, 0n)
  }

  punch(first: number, pages: number): void {
    const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    this.sys.fallocate(this.memfd, mode, first * PAGE, pages * PAGE)
  }

  allocate(first: number, pages: number): void {
    this.sys.fallocate(this.memfd, FALLOC_FL_KEEP_SIZE, first * PAGE, pages * PAGE)
  }

  closeFile(): void {
    this.sys.close(this.memfd)
  }

  /** What a vCPU reads in a guest frame, at its first and last byte; or how it ended. */
  guestRead(cpu: number, gfn: number): number | string {
    const [a, b] = [0, PAGE - 1].map(at => this.#enter(cpu, READ, BASE + gfn * PAGE + at, 0))
    return a === b ? a! : `${a} and ${b} in one page`
  }

  /** Lets a vCPU write a guest frame, at its first and last byte. */
  guestWrite(cpu: number, gfn: number, value: number): string {
    for (const at of [0, PAGE - 1]) {
      const end = this.#enter(cpu, WRITE, BASE + gfn * PAGE + at, value)
      if (typeof end === 'string') return end
    }
    return ''
  }

  // ---- the device ----

  mapDma(page: number): string {
    return errnoOf(() => this.device.map(page * PAGE, this.#user + BigInt(page * PAGE), PAGE))
  }

  unmapDma(page: number): void {
    this.device.unmap(page * PAGE, PAGE)
  }

  deviceRead(page: number): number | undefined {
    this.#scratch.bytes.fill(0xee)
    const done = this.device.copy(page * PAGE, SCRATCH, PAGE)
    const first = this.#scratch.bytes[0]!
    return done ? first : first === 0xee ? undefined : first
  }

  deviceWrite(page: number, value: number): boolean {
    this.#scratch.bytes.fill(value)
    return this.device.copy(SCRATCH, page * PAGE, PAGE)
  }

  // ---- the end ----

  /** Ends the process; how many frames and marked pages are left then. */
  end(): { frames: number; marked: number } {
    this.sys.exit()
    this.machine.settle()
    const { frames } = this.machine.kernel
    return { frames: frames.used - this.#start, marked: this.states.count }
  }

  #bytes(page: number): Uint8Array {
    return this.sys.process.memory.bytesAt(this.#user + BigInt(page * PAGE), PAGE)!
  }

  #region(slot: number, gpa: number, size: number, user: bigint, file = -1): void {
    const backed = file < 0 ? {} : { flags: uapi.KVM_MEM_GUEST_MEMFD, guest_memfd: this.memfd }
    const region = uapi.kvm_userspace_memory_region2({
      slot,
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(size),
      userspace_addr: user,
      ...backed,
      guest_memfd_offset: BigInt(Math.max(file, 0) * PAGE),
    })
    this.sys.ioctl(this.vm, uapi.KVM_SET_USER_MEMORY_REGION2, region)
  }

  #cpu(id: number): Cpu {
    const { sys } = this
    const fd = sys.ioctl(this.vm, uapi.KVM_CREATE_VCPU, id)
    const length = sys.ioctl(this.#kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
    const map = sys.mmap({ fd, offset: 0, length })
    const sregs = uapi.kvm_sregs()
    sys.ioctl(fd, uapi.KVM_GET_SREGS, sregs)
    const flat = { base: 0n, limit: 0xffff_ffff, s: 1, present: 1, g: 1, dpl: 0, unusable: 0 }
    Object.assign(sregs.cs, { ...flat, selector: 8, type: 11, l: 1, db: 0 })
    for (const segment of [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss])
      Object.assign(segment, { ...flat, selector: 16, type: 3, l: 0, db: 1 })
    Object.assign(sregs, { cr3: BigInt(PML4), cr4: 0x20n, cr0: 0x8001_0011n, efer: 0x501n })
    sys.ioctl(fd, uapi.KVM_SET_SREGS, sregs)
    return { fd, map, page: map.bytes, run: uapi.kvm_run.at(map.bytes) }
  }

  #enter(cpu: number, rip: number, at: number, value: number): number | string {
    const { fd, page, run } = this.cpus[cpu]!
    const regs = uapi.kvm_regs({
      rip: BigInt(rip),
      rbx: BigInt(at),
      rax: BigInt(value),
      rflags: 2n,
    })
    this.sys.ioctl(fd, uapi.KVM_SET_REGS, regs)
    const code = errnoOf(() => this.sys.ioctl(fd, uapi.KVM_RUN))
    if (code === 'EFAULT' && run.exit_reason === uapi.KVM_EXIT_MEMORY_FAULT) {
      const { flags, gpa, size } = run.u.memory_fault
      const right = flags === 8n && gpa === BigInt(at - (at % PAGE)) && size === 4096n
      return right ? 'fault' : `fault ${flags} ${gpa} ${size}`
    }
    if (code !== '') return code
    if (run.exit_reason === uapi.KVM_EXIT_IO) return page[PAGE]!
    if (run.exit_reason !== uapi.KVM_EXIT_MMIO) return `exit ${run.exit_reason}`
    this.sys.ioctl(fd, uapi.KVM_RUN)
    return 'MMIO'
  }
}

/** The machine of a world. */
export const describeWorld = (
  guestMemfd: GuestMemfdOptions,
  record = false,
): MachineDescription => ({
  devices: [{ at: AT, model: dmaCopy }],
  ramBytes: 8 << 20,
  guestMemfd,
  record,
})

/** The guest's RAM: an identity map of 4 GiB in 1 GiB pages, and its two programs. */
function prepare(ram: Uint8Array): void {
  const view = new DataView(ram.buffer, ram.byteOffset, ram.length)
  view.setBigUint64(PML4, BigInt(PDPT) | 3n, true)
  for (let gb = 0; gb < 4; gb++) view.setBigUint64(PDPT + 8 * gb, (BigInt(gb) << 30n) | 0x83n, true)
  ram.set([0x8a, 0x03, 0xe6, 0x10, 0xeb, 0xfe], READ) // mov (%rbx),%al; out %al,$0x10; jmp .
  ram.set([0x88, 0x03, 0xe6, 0x10, 0xeb, 0xfe], WRITE) // mov %al,(%rbx); out %al,$0x10; jmp .
}

/** The errno of a call, or ''. Anything else that it throws is the model's to see. */
function errnoOf(call: () => unknown): string {
  try {
    call()
    return ''
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}
