// Memory slots (KVM_SET_USER_MEMORY_REGION and its second form): ranges of the owner's memory at guest-physical
// addresses, some with a guest_memfd for what the guest keeps private. This is the table and its rules; how slots
// become memory of the guest is in memory/. The owner may unmap and map again under a slot; what is not there when
// the guest touches it is EFAULT to the owner, not a fault of the guest.

import { hex, PAGE_SIZE } from '../../base/addr.js'
import { IntervalMap } from '../../base/interval-map.js'
import { DirtyLog } from '../../mem/dirty-log.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import type { RamRegion } from '../../mem/ram.js'
import { refuse } from './arguments.js'
import type { GuestMemfd } from './memory/guest-memfd.js'
import { Slot } from './memory/slot.js'
import type { MappingParts, SlotMappings } from './memory/slot-mappings.js'
import { KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from './uapi/common.js'

/** What both forms of the call say. */
export interface SlotRequest {
  /** Low 16 bits the slot, high 16 the address space. */
  readonly slot: number
  readonly flags: number
  readonly guest_phys_addr: bigint
  /** Bytes; 0 deletes. */
  readonly memory_size: bigint
  readonly userspace_addr: bigint
}

/** What the second form adds: the file, looked up when everything else is right, and an offset into it. */
export interface MemfdRequest {
  readonly offset: bigint
  /** EBADF, EINVAL. */
  find(): GuestMemfd
}

/** Slots a user may have (KVM_CAP_NR_MEMSLOTS): 2^15 - 1 less the three that KVM keeps. */
export const USER_SLOTS = 32764
const MAX_PAGES = 2 ** 31 - 1
/** End of user space with 4-level page tables. */
const USER_TOP = 0x7fff_ffff_f000n
const PAGE_BITS = BigInt(PAGE_SIZE - 1)
const TOP = 1n << 64n

/** What a slot table is made of. */
export interface SlotTableParts extends Pick<MappingParts, 'memory' | 'user' | 'changed'> {
  /** Bits of guest-physical addresses. */
  readonly addressBits: number
  /** Who puts slots into guest-physical memory. */
  readonly mappings: (parts: MappingParts) => SlotMappings
  /** Whether slots may have a guest_memfd. */
  readonly memfds: boolean
}

/** The slots of one VM. */
export class SlotTable {
  readonly #user: ProcessMemory
  readonly #addressBits: number
  readonly #memfds: boolean
  readonly #slots = new Map<number, Slot>()
  readonly #byPage = new IntervalMap<Slot>()
  readonly #mappings: SlotMappings

  constructor(parts: SlotTableParts) {
    const { memory, user, changed } = parts
    this.#user = user
    this.#addressBits = parts.addressBits
    this.#memfds = parts.memfds
    this.#mappings = parts.mappings({
      memory,
      user,
      changed,
      slotAt: gfn => this.#byPage.find(gfn),
      slots: () => this.#slots.values(),
    })
  }

  /** Creates, moves, changes or deletes a slot. Checks and errno are in the kernel's order. */
  set(r: SlotRequest, memfd?: MemfdRequest): void {
    const withFile = (r.flags & KVM_MEM_GUEST_MEMFD) !== 0
    this.#checkFlags(r.flags, withFile && memfd !== undefined)
    if ((r.memory_size & PAGE_BITS) !== 0n) throw unaligned('memory_size', r.memory_size)
    if ((r.guest_phys_addr & PAGE_BITS) !== 0n)
      throw unaligned('guest_phys_addr', r.guest_phys_addr)
    const end = r.userspace_addr + r.memory_size
    if ((r.userspace_addr & PAGE_BITS) !== 0n || end > USER_TOP)
      throw unaligned('userspace_addr', r.userspace_addr)
    const offset = withFile ? memfd!.offset : 0n
    if ((offset & PAGE_BITS) !== 0n || offset + r.memory_size >= TOP)
      throw unaligned('guest_memfd_offset', offset)
    const id = r.slot & 0xffff
    if (r.slot >>> 16 !== 0 || id >= USER_SLOTS)
      throw refuse('EINVAL', `slot ${hex(r.slot)} of ${USER_SLOTS}`)
    const last = r.guest_phys_addr + r.memory_size
    const pages = Number(r.memory_size / BigInt(PAGE_SIZE))
    if (last > 1n << BigInt(this.#addressBits) || pages > MAX_PAGES)
      throw refuse('EINVAL', `${hex(r.memory_size)} bytes at ${hex(r.guest_phys_addr)}`)

    const old = this.#slots.get(id)
    if (pages === 0) {
      if (old === undefined) throw refuse('EINVAL', `slot ${id} does not exist`)
      this.#remove(old)
      return
    }
    const base = Number(r.guest_phys_addr)
    const user = Number(r.userspace_addr)
    if (old !== undefined) {
      const fixed = withFile || user !== old.user || pages !== old.pages
      if (fixed || ((r.flags ^ old.flags) & (KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD)) !== 0)
        throw refuse('EINVAL', `slot ${id} can be moved or deleted, not changed`)
      if (base === old.base && r.flags === old.flags) return
    }
    if (base !== old?.base) this.#refuseOverlap(id, base / PAGE_SIZE, pages)
    const logged = (r.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
    const kept = base === old?.base ? old.dirty : undefined
    const { failures } = this.#user.frames
    failures.step('a memory slot')
    if (logged && kept === undefined) failures.step('a dirty bitmap')
    const dirty = logged ? (kept ?? new DirtyLog(pages)) : undefined
    const slot = new Slot({ id, base, pages, user, flags: r.flags, dirty })
    if (withFile) bind(slot, memfd!.find(), offset)
    if (old !== undefined) this.#remove(old)
    this.#slots.set(id, slot)
    this.#byPage.insert(slot.first, slot.last, slot)
    this.#mappings.add(slot)
  }

  /** The bitmap of a slot's dirty pages, which starts again from none; undefined: no such log. */
  dirtyPages(id: number): Uint8Array | undefined {
    const slot = this.#slots.get(id)
    if (slot?.dirty === undefined) return undefined
    this.#mappings.collect(slot)
    const bitmap = slot.dirty.bitmap()
    slot.dirty.clear()
    return bitmap
  }

  /** Whether writes of the guest to this RAM leave the VM. */
  readOnly(ram: RamRegion): boolean {
    return this.#mappings.readOnly(ram)
  }

  /** Puts back what the owner mapped anew under existing slots. */
  refresh(): void {
    this.#mappings.refresh()
  }

  /** Makes memory appear at an address where the guest finds none; false when there is none. */
  populate(address: number, fetch = false): boolean {
    return this.#mappings.populate(address, fetch)
  }

  /** Whether an access that found no memory is EFAULT to the owner; otherwise it is MMIO. */
  isFault(address: number, write: boolean): boolean {
    return this.#mappings.isFault(address, write)
  }

  /** Every slot, in order of creation. */
  [Symbol.iterator](): Iterator<Slot> {
    return this.#slots.values()
  }

  /** The slot of an id. */
  get(id: number): Slot | undefined {
    return this.#slots.get(id)
  }

  /** The slot at a guest-physical address. */
  at(address: number): Slot | undefined {
    return this.#byPage.find(Math.floor(address / PAGE_SIZE))
  }

  /** Forgets every slot. */
  release(): void {
    for (const slot of [...this.#slots.values()]) this.#remove(slot)
    this.#mappings.release()
  }

  #checkFlags(flags: number, withFile: boolean): void {
    let known = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY
    // Neither logging nor emulated writes are for private memory.
    if (withFile) known = this.#memfds ? KVM_MEM_GUEST_MEMFD : 0
    if ((flags & ~known) !== 0) throw refuse('EINVAL', `memory flags ${hex(flags)}`)
  }

  #refuseOverlap(id: number, first: number, pages: number): void {
    for (const { value } of this.#byPage.entries(first, first + pages - 1))
      if (value.id !== id) throw refuse('EEXIST', `slot ${id} would overlap slot ${value.id}`)
  }

  #remove(slot: Slot): void {
    this.#mappings.collect(slot)
    this.#slots.delete(slot.id)
    this.#byPage.remove(slot.first)
    this.#mappings.remove(slot)
  }
}

/** Binds part of a file to a new slot. EINVAL: past the end of the file; EEXIST: part of it is bound. */
function bind(slot: Slot, file: GuestMemfd, offset: bigint): void {
  const page = Number(offset / BigInt(PAGE_SIZE))
  if (page + slot.pages > file.pages)
    throw refuse('EINVAL', `${slot.pages} pages from ${page} of a file of ${file.pages}`)
  if (!file.bind(slot, page)) throw refuse('EEXIST', 'that part of the file has a slot already')
}

const unaligned = (what: string, value: bigint) =>
  refuse('EINVAL', `${what} ${hex(value)} is not a page address of user space`)
