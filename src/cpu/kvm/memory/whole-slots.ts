// Slots of VMs without private memory, mapped whole: plain memory becomes RAM over the same bytes, a mapped BAR a
// window to the device. What the owner maps anew under a slot is put back before the guest runs or when it is touched.

import { PAGE_SIZE } from '../../../base/addr.js'
import type { Region } from '../../../mem/address-space.js'
import { DirtyLog } from '../../../mem/dirty-log.js'
import type { RamRegion } from '../../../mem/ram.js'
import { KVM_MEM_READONLY } from '../uapi/common.js'
import type { Slot } from './slot.js'
import {
  collectRegion,
  DeviceWindow,
  type MappingParts,
  type SlotMappings,
} from './slot-mappings.js'

/** Whole slots in guest-physical memory. */
export class WholeSlots implements SlotMappings {
  readonly #parts: MappingParts
  readonly #regions = new Map<Slot, Region[]>()
  readonly #stale = new Set<Slot>()
  readonly #readOnly = new Set<RamRegion>()
  readonly #stop: () => void

  constructor(parts: MappingParts) {
    this.#parts = parts
    this.#stop = parts.user.onInvalidate((first, pages) => this.#invalidate(first, pages))
  }

  add(slot: Slot): void {
    this.#regions.set(slot, [])
    this.#populate(slot, 0)
    this.#parts.changed()
  }

  remove(slot: Slot): void {
    this.#stale.delete(slot)
    this.#unmap(slot)
    this.#regions.delete(slot)
    this.#parts.changed()
  }

  refresh(): void {
    if (this.#stale.size === 0) return
    for (const slot of this.#stale) this.#populate(slot, 0)
    this.#stale.clear()
    this.#parts.changed()
  }

  populate(address: number): boolean {
    const { memory, slotAt, changed } = this.#parts
    const slot = slotAt(Math.floor(address / PAGE_SIZE))
    if (slot === undefined) return false
    this.#populate(slot, Math.floor((address - slot.base) / PAGE_SIZE))
    const appeared = memory.ramAt(address) ?? memory.mmioAt(address)
    if (appeared === undefined) return false
    changed()
    return true
  }

  isFault(address: number, write: boolean): boolean {
    const slot = this.#parts.slotAt(Math.floor(address / PAGE_SIZE))
    return slot !== undefined && !(write && (slot.flags & KVM_MEM_READONLY) !== 0)
  }

  readOnly(ram: RamRegion): boolean {
    return this.#readOnly.has(ram)
  }

  collect(slot: Slot): void {
    for (const region of this.#regions.get(slot) ?? []) collectRegion(slot, region)
  }

  release(): void {
    this.#stop()
  }

  #unmap(slot: Slot): void {
    for (const region of this.#regions.get(slot)!) {
      collectRegion(slot, region)
      this.#parts.memory.remove(region)
      if (region.kind === 'ram') this.#readOnly.delete(region)
    }
    this.#regions.set(slot, [])
  }

  // Finds memory from page `first` of the slot on, up to the first hole or to what is there already.
  #populate(slot: Slot, first: number): void {
    const { memory } = this.#parts
    for (let page = first; page < slot.pages; ) {
      const at = slot.base + page * PAGE_SIZE
      if (memory.ramAt(at) !== undefined || memory.mmioAt(at) !== undefined) return
      const found = this.#put(slot, page)
      if (found === 0) return
      page += found
    }
  }

  // Puts one run of the owner's memory in place; returns its pages, 0 for a hole.
  #put(slot: Slot, page: number): number {
    const { memory, user } = this.#parts
    const regions = this.#regions.get(slot)!
    const at = slot.base + page * PAGE_SIZE
    const vaddr = slot.user + page * PAGE_SIZE
    const next = regions.reduce((low, r) => (r.base > at ? Math.min(low, r.base) : low), Infinity)
    const room = Math.min(slot.pages - page, (next - at) / PAGE_SIZE)
    const device = user.deviceAt(vaddr)
    if (device !== undefined) {
      const pages = Math.min(room, device.length / PAGE_SIZE)
      const target = new DeviceWindow(device.space, device.hpa)
      regions.push(memory.addMmio(at, pages * PAGE_SIZE, target, `slot ${slot.id}`))
      return pages
    }
    const extent = user.extentAt(vaddr)
    if (extent === undefined || !extent.readable) return 0
    const pages = Math.min(room, extent.last - vaddr / PAGE_SIZE + 1)
    const ram = memory.addRam(at, user.bytesAt(vaddr, pages * PAGE_SIZE)!)
    if (!extent.writable || (slot.flags & KVM_MEM_READONLY) !== 0) this.#readOnly.add(ram)
    if (slot.dirty !== undefined) ram.dirty = new DirtyLog(pages)
    regions.push(ram)
    return pages
  }

  #invalidate(firstPage: number, pages: number): void {
    for (const slot of this.#parts.slots()) {
      const first = slot.user / PAGE_SIZE
      if (firstPage >= first + slot.pages || first >= firstPage + pages) continue
      this.#unmap(slot)
      this.#stale.add(slot)
      this.#parts.changed()
    }
  }
}
