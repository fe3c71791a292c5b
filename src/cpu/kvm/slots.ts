// Memory slots (KVM_SET_USER_MEMORY_REGION): ranges of the owner's memory at guest-physical addresses. Plain memory
// becomes RAM over the same bytes, a mapped BAR a window to the device. The owner may unmap and map again under a
// slot; what is not there when the guest touches it is EFAULT to the owner, not a fault of the guest.

import { hex, PAGE_SIZE } from '../../base/addr.js'
import type { StructValue } from '../../base/struct.js'
import type { AddressSpace, MmioTarget, Region } from '../../mem/address-space.js'
import { DirtyLog } from '../../mem/dirty-log.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import type { RamRegion } from '../../mem/ram.js'
import { refuse } from './arguments.js'
import {
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  type kvm_userspace_memory_region,
} from './uapi/common.js'

type MemoryRegion = StructValue<(typeof kvm_userspace_memory_region)['members']>

/** Slots a user may have (KVM_CAP_NR_MEMSLOTS): 2^15 - 1 less the three that KVM keeps. */
export const USER_SLOTS = 32764
const MAX_PAGES = 2 ** 31 - 1
/** End of user space with 4-level page tables. */
const USER_TOP = 0x7fff_ffff_f000n
const PAGE_BITS = BigInt(PAGE_SIZE - 1)

interface Slot {
  readonly id: number
  readonly base: number
  readonly pages: number
  readonly user: number
  readonly flags: number
  regions: Region[]
  /** Dirty pages, while KVM_MEM_LOG_DIRTY_PAGES is set. */
  dirty: DirtyLog | undefined
}

/** A device's registers, mapped by the owner, as the guest sees them. */
class DeviceWindow implements MmioTarget {
  readonly #space: AddressSpace
  readonly #hpa: number

  constructor(space: AddressSpace, hpa: number) {
    this.#space = space
    this.#hpa = hpa
  }

  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    return this.#space.load(this.#hpa + offset, size)
  }

  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.#space.store(this.#hpa + offset, size, value)
  }

  write64(offset: number, bytes: Uint8Array, deferrable: boolean): boolean {
    const at = this.#hpa + offset
    return deferrable ? this.#space.writeDeferrable(at, bytes) : this.#space.write(at, bytes)
  }
}

/** The slots of one VM. */
export class SlotTable {
  readonly #memory: AddressSpace
  readonly #user: ProcessMemory
  readonly #addressBits: number
  readonly #changed: () => void
  readonly #slots = new Map<number, Slot>()
  readonly #stale = new Set<Slot>()
  readonly #readOnly = new Set<RamRegion>()
  readonly #stop: () => void

  /**
   * Guest-physical addresses have `addressBits`. `changed` runs whenever translations to guest-physical memory must
   * be dropped.
   */
  constructor(memory: AddressSpace, user: ProcessMemory, addressBits: number, changed: () => void) {
    this.#memory = memory
    this.#user = user
    this.#addressBits = addressBits
    this.#changed = changed
    this.#stop = user.onInvalidate((first, pages) => this.#invalidate(first, pages))
  }

  /** Creates, moves, changes or deletes a slot. Checks and errno are in the kernel's order. */
  set(r: MemoryRegion): void {
    if ((r.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) !== 0)
      throw refuse('EINVAL', `memory flags ${hex(r.flags)}`)
    if ((r.memory_size & PAGE_BITS) !== 0n) throw unaligned('memory_size', r.memory_size)
    if ((r.guest_phys_addr & PAGE_BITS) !== 0n)
      throw unaligned('guest_phys_addr', r.guest_phys_addr)
    const end = r.userspace_addr + r.memory_size
    if ((r.userspace_addr & PAGE_BITS) !== 0n || end > USER_TOP)
      throw unaligned('userspace_addr', r.userspace_addr)
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
      this.#changed()
      return
    }
    const base = Number(r.guest_phys_addr)
    const user = Number(r.userspace_addr)
    if (old !== undefined) {
      const fixed = user !== old.user || pages !== old.pages
      if (fixed || ((r.flags ^ old.flags) & KVM_MEM_READONLY) !== 0)
        throw refuse('EINVAL', `slot ${id} can be moved or deleted, not changed`)
      if (base === old.base && r.flags === old.flags) return
    }
    if (base !== old?.base) this.#refuseOverlap(id, base, pages)
    const logged = (r.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
    const kept = base === old?.base ? old.dirty : undefined
    const { failures } = this.#user.frames
    failures.step('a memory slot')
    if (logged && kept === undefined) failures.step('a dirty bitmap')
    if (old !== undefined) this.#remove(old)
    const dirty = logged ? (kept ?? new DirtyLog(pages)) : undefined
    const slot: Slot = { id, base, pages, user, flags: r.flags, regions: [], dirty }
    this.#slots.set(id, slot)
    this.#populate(slot, 0)
    this.#changed()
  }

  /** The bitmap of a slot's dirty pages, which starts again from none; undefined: no such log. */
  dirtyPages(id: number): Uint8Array | undefined {
    const slot = this.#slots.get(id)
    if (slot?.dirty === undefined) return undefined
    this.#collect(slot)
    const bitmap = slot.dirty.bitmap()
    slot.dirty.clear()
    return bitmap
  }

  /** Whether writes of the guest to this RAM leave the VM. */
  readOnly(ram: RamRegion): boolean {
    return this.#readOnly.has(ram)
  }

  /** Puts back what the owner mapped anew under existing slots. */
  refresh(): void {
    if (this.#stale.size === 0) return
    for (const slot of this.#stale) this.#populate(slot, 0)
    this.#stale.clear()
    this.#changed()
  }

  /** Looks for memory the owner may have put under a slot since; true when there now is some at `address`. */
  populate(address: number): boolean {
    const slot = this.#at(address)
    if (slot === undefined) return false
    this.#populate(slot, Math.floor((address - slot.base) / PAGE_SIZE))
    const appeared = this.#memory.ramAt(address) ?? this.#memory.mmioAt(address)
    if (appeared === undefined) return false
    this.#changed()
    return true
  }

  /** Whether an access that found no memory is EFAULT to the owner; otherwise it is MMIO. */
  isFault(address: number, write: boolean): boolean {
    const slot = this.#at(address)
    return slot !== undefined && !(write && (slot.flags & KVM_MEM_READONLY) !== 0)
  }

  /** Forgets every slot. */
  release(): void {
    this.#stop()
    for (const slot of [...this.#slots.values()]) this.#remove(slot)
  }

  #at(address: number): Slot | undefined {
    for (const slot of this.#slots.values()) {
      if (address >= slot.base && address < slot.base + slot.pages * PAGE_SIZE) return slot
    }
    return undefined
  }

  #refuseOverlap(id: number, base: number, pages: number): void {
    const end = base + pages * PAGE_SIZE
    for (const slot of this.#slots.values()) {
      if (slot.id !== id && base < slot.base + slot.pages * PAGE_SIZE && slot.base < end)
        throw refuse('EEXIST', `slot ${id} would overlap slot ${slot.id}`)
    }
  }

  #remove(slot: Slot): void {
    this.#slots.delete(slot.id)
    this.#stale.delete(slot)
    this.#unmap(slot)
  }

  #unmap(slot: Slot): void {
    this.#collect(slot)
    for (const region of slot.regions) {
      this.#memory.remove(region)
      if (region.kind === 'ram') this.#readOnly.delete(region)
    }
    slot.regions = []
  }

  // Finds memory from page `first` of the slot on, up to the first hole or to what is there already.
  #populate(slot: Slot, first: number): void {
    for (let page = first; page < slot.pages; ) {
      const at = slot.base + page * PAGE_SIZE
      if (this.#memory.ramAt(at) !== undefined || this.#memory.mmioAt(at) !== undefined) return
      const found = this.#put(slot, page)
      if (found === 0) return
      page += found
    }
  }

  // Puts one run of the owner's memory in place; returns its pages, 0 for a hole.
  #put(slot: Slot, page: number): number {
    const at = slot.base + page * PAGE_SIZE
    const vaddr = slot.user + page * PAGE_SIZE
    const next = slot.regions.reduce(
      (low, r) => (r.base > at ? Math.min(low, r.base) : low),
      Infinity,
    )
    const room = Math.min(slot.pages - page, (next - at) / PAGE_SIZE)
    const device = this.#user.deviceAt(vaddr)
    if (device !== undefined) {
      const pages = Math.min(room, device.length / PAGE_SIZE)
      const target = new DeviceWindow(device.space, device.hpa)
      slot.regions.push(this.#memory.addMmio(at, pages * PAGE_SIZE, target, `slot ${slot.id}`))
      return pages
    }
    const run = this.#memoryRun(vaddr / PAGE_SIZE, room)
    if (run.pages === 0) return 0
    const ram = this.#memory.addRam(at, this.#user.bytesAt(vaddr, run.pages * PAGE_SIZE)!)
    if (!run.writable || (slot.flags & KVM_MEM_READONLY) !== 0) this.#readOnly.add(ram)
    if (slot.dirty !== undefined) ram.dirty = new DirtyLog(run.pages)
    slot.regions.push(ram)
    return run.pages
  }

  // Pages of plain memory with one protection. Nothing stays pinned: a slot pins no memory.
  #memoryRun(vpage: number, most: number): { pages: number; writable: boolean } {
    for (const writable of [true, false]) {
      const { hpaPage, pages, reserved } = this.#user.pinRun(vpage, most, writable)
      if (pages > 0 && !reserved) {
        this.#user.unpin(hpaPage, pages)
        return { pages, writable }
      }
    }
    // Memory of the kernel that the owner shares cannot be pinned; a byte read and put back tells its protection.
    const at = vpage * PAGE_SIZE
    const byte = new Uint8Array(1)
    if (this.#user.bytesAt(at, PAGE_SIZE) === undefined || !this.#user.copyIn(at, byte))
      return { pages: 0, writable: false }
    return { pages: 1, writable: this.#user.copyOut(at, byte) }
  }

  // Moves the marks of a slot's regions to the slot.
  #collect(slot: Slot): void {
    for (const region of slot.regions) {
      const log = region.kind === 'ram' ? region.dirty : undefined
      if (log === undefined) continue
      const offset = region.base - slot.base
      for (let page = 0; page < log.pages; page++)
        if (log.has(page)) slot.dirty?.mark(offset + page * PAGE_SIZE, 1)
      log.clear()
    }
  }

  #invalidate(firstPage: number, pages: number): void {
    for (const slot of this.#slots.values()) {
      const first = slot.user / PAGE_SIZE
      if (firstPage >= first + slot.pages || first >= firstPage + pages) continue
      this.#unmap(slot)
      this.#stale.add(slot)
      this.#changed()
    }
  }
}

const unaligned = (what: string, value: bigint) =>
  refuse('EINVAL', `${what} ${hex(value)} is not a page address of user space`)
