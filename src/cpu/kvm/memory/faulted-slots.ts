// The second dimension of a VM with private memory: what a guest-physical page leads to is found when the guest first
// touches it, by the page's attribute, and stays until that changes. A private page is bytes of the slot's guest_memfd,
// a shared one the owner's memory. The numbered steps are those of the kernel's fault handler (D.2 of the tests' names).

import { PAGE_SIZE } from '../../../base/addr.js'
import { ErrnoError, type ErrnoName } from '../../../base/errno.js'
import { IntervalMap } from '../../../base/interval-map.js'
import type { TraceEvents, TracePoint } from '../../../base/trace.js'
import type { Region } from '../../../mem/address-space.js'
import { DirtyLog } from '../../../mem/dirty-log.js'
import type { Extent } from '../../../mem/process-memory.js'
import type { RamRegion } from '../../../mem/ram.js'
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../uapi/common.js'
import type { MemoryAttributes } from './attributes.js'
import type { Invalidations } from './invalidations.js'
import {
  blockOf,
  LEVEL_PAGES,
  levelOfOrder,
  type MappingLevel,
  MappingLevels,
} from './mapping-levels.js'
import type { Slot } from './slot.js'
import {
  collectRegion,
  DeviceWindow,
  type MappingParts,
  type SlotMappings,
} from './slot-mappings.js'
import type { WithdrawnCopies } from './withdrawn-copies.js'

/** What faulting needs beside what every slot table has. */
export interface FaultParts extends MappingParts {
  readonly attributes: MemoryAttributes
  readonly invalidations: Invalidations
  readonly copies: WithdrawnCopies
  readonly mapped: TracePoint<TraceEvents['kvm.map']>
  /** Executable pages are 4 KiB, as with the workaround for instruction fetches from large pages. */
  readonly smallCode: boolean
}

/** How the guest touched a page. */
export interface FaultAccess {
  /** Whether the access itself is private; by default it is what the page is, as in a software-protected VM. */
  readonly isPrivate?: boolean
  readonly fetch?: boolean
}

/** What came of a fault. */
export type FaultOutcome =
  /** Mapped, in a block of this level. */
  | { readonly kind: 'mapped'; readonly level: MappingLevel }
  /** Nothing is there: the access is MMIO. */
  | { readonly kind: 'mmio' }
  /** The owner has no memory there, or none for this access. */
  | { readonly kind: 'no-memory' }
  /** KVM_EXIT_MEMORY_FAULT: the owner must settle it. */
  | { readonly kind: 'exit'; readonly isPrivate: boolean; readonly code: ErrnoName }

/** A fault that the owner must settle. */
export interface MemoryFault {
  /** The page. */
  readonly gpa: number
  /** Whether the access was private. */
  readonly isPrivate: boolean
  /** What KVM_RUN fails with. */
  readonly code: ErrnoName
}

/** One mapped block. */
interface Leaf {
  readonly region: Region
  readonly level: MappingLevel
  readonly isPrivate: boolean
}

/** What a page has to lead to, before it is mapped. */
interface Found {
  readonly level: MappingLevel
  readonly install: () => Region
  readonly readOnly: boolean
}

const EXIT_EFAULT = (isPrivate: boolean): FaultOutcome => ({
  kind: 'exit',
  isPrivate,
  code: 'EFAULT',
})

/** Slots in guest-physical memory, page by page. */
export class FaultedSlots implements SlotMappings {
  /** Runs between looking a page up and mapping it, where another thread may come in between: for tests. */
  pause: (() => void) | undefined
  readonly #parts: FaultParts
  readonly #leaves = new IntervalMap<Leaf>()
  readonly #readOnly = new Set<RamRegion>()
  #exit: MemoryFault | undefined
  #last: { readonly gfn: number; readonly outcome: FaultOutcome } | undefined

  constructor(parts: FaultParts) {
    this.#parts = parts
  }

  add(slot: Slot): void {
    slot.levels = new MappingLevels(slot, this.#parts.attributes)
    this.#parts.copies.slotAdded(slot)
  }

  remove(slot: Slot): void {
    this.unmap(slot.first, slot.last)
    slot.memfd?.file.unbind(slot)
    this.#parts.copies.slotRemoved(slot)
  }

  refresh(): void {}

  populate(address: number, fetch = false): boolean {
    const gfn = Math.floor(address / PAGE_SIZE)
    const outcome = this.fault(gfn, { fetch })
    this.#last = { gfn, outcome }
    return outcome.kind === 'mapped'
  }

  isFault(address: number, write: boolean): boolean {
    const { attributes, slotAt } = this.#parts
    const exit = this.exitAt(address)
    const page = address - (address % PAGE_SIZE)
    this.#exit = exit && { gpa: page, isPrivate: exit.isPrivate, code: exit.code }
    const gfn = Math.floor(address / PAGE_SIZE)
    if (attributes.isPrivate(gfn)) return true
    const slot = slotAt(gfn)
    return slot !== undefined && !(write && (slot.flags & KVM_MEM_READONLY) !== 0)
  }

  /** The last fault of the page at an address, when it was one that the owner is told of by KVM_EXIT_MEMORY_FAULT. */
  exitAt(address: number): Extract<FaultOutcome, { kind: 'exit' }> | undefined {
    const gfn = Math.floor(address / PAGE_SIZE)
    return this.#last?.gfn === gfn && this.#last.outcome.kind === 'exit'
      ? this.#last.outcome
      : undefined
  }

  /** What KVM_EXIT_MEMORY_FAULT tells of the access that was found to be a fault last; told once. */
  takeExit(): MemoryFault | undefined {
    const exit = this.#exit
    this.#exit = undefined
    return exit
  }

  readOnly(ram: RamRegion): boolean {
    return this.#readOnly.has(ram)
  }

  collect(slot: Slot): void {
    for (const { value } of this.#leaves.entries(slot.first, slot.last))
      collectRegion(slot, value.region)
  }

  release(): void {}

  /** How a page is mapped now: level and kind; undefined when the guest has not touched it since it changed. */
  mappingAt(
    gfn: number,
  ): { readonly level: MappingLevel; readonly isPrivate: boolean } | undefined {
    return this.#leaves.find(gfn)
  }

  /** Blocks mapped now. */
  get mappings(): number {
    return this.#leaves.size
  }

  /** Takes away every mapping that holds a page of [first, last], whole. */
  unmap(first: number, last: number): void {
    const gone = [...this.#leaves.entries(first, last)]
    if (gone.length === 0) return
    const { memory, slotAt, changed } = this.#parts
    for (const { start, value } of gone) {
      const { region } = value
      const slot = slotAt(start)
      if (slot !== undefined) collectRegion(slot, region)
      this.#leaves.remove(start)
      memory.remove(region)
      if (region.kind === 'ram') this.#readOnly.delete(region)
    }
    changed()
  }

  /** Handles a fault of the guest on a page. */
  fault(gfn: number, access: FaultAccess = {}): FaultOutcome {
    const { attributes, invalidations, slotAt } = this.#parts
    for (;;) {
      // 1. What is invalidated from here on makes the answer stale.
      const { sequence } = invalidations
      // 2. The slot. 3. An access of the other kind than the page is the owner's to settle, slot or not.
      const slot = slotAt(gfn)
      const isPrivate = access.isPrivate ?? attributes.isPrivate(gfn)
      if (isPrivate !== attributes.isPrivate(gfn)) return EXIT_EFAULT(isPrivate)
      if (slot === undefined) return isPrivate ? EXIT_EFAULT(true) : { kind: 'mmio' }
      if (!invalidations.stale(sequence, gfn)) {
        // 4. to 8. Its page, and how much around it.
        const found =
          isPrivate || slot.fileOnly
            ? this.#findPrivate(slot, gfn, isPrivate, access)
            : this.#findShared(slot, gfn, access)
        if ('kind' in found) return found
        this.pause?.()
        // 9. Only what nobody invalidated meanwhile is mapped.
        if (!invalidations.stale(sequence, gfn)) {
          this.#install(gfn, isPrivate, found)
          return { kind: 'mapped', level: found.level }
        }
      } else if (this.pause === undefined) {
        throw new Error('a fault in the middle of an invalidation')
      } else this.pause()
    }
  }

  // Host page protection does not count: a private page is writable.
  #findPrivate(
    slot: Slot,
    gfn: number,
    isPrivate: boolean,
    { fetch }: FaultAccess,
  ): Found | FaultOutcome {
    const { memfd } = slot
    if (memfd === undefined) return EXIT_EFAULT(isPrivate)
    const index = memfd.page + gfn - slot.first
    let folio: { readonly index: number; readonly frame: number; readonly order: number }
    try {
      folio = memfd.file.folio(index)
    } catch (error) {
      if (error instanceof ErrnoError) return { kind: 'exit', isPrivate, code: error.code }
      throw error
    }
    const end = folio.index + 2 ** folio.order
    let level = this.#most(slot, gfn, levelOfOrder(folio.order), fetch)
    while (level > 1) {
      const start = index - (gfn - blockOf(gfn, level))
      const frame = folio.frame + start - folio.index
      const inside = start >= folio.index && start + LEVEL_PAGES[level] <= end
      if (inside && frame % LEVEL_PAGES[level] === 0) break
      level = below(level)
    }
    const block = blockOf(gfn, level)
    const { frames } = this.#parts.user
    const hpa = (folio.frame + index - folio.index - (gfn - block)) * PAGE_SIZE
    const install = () =>
      this.#parts.memory.addRam(block * PAGE_SIZE, frames.bytes(hpa, LEVEL_PAGES[level]))
    return { level, readOnly: false, install }
  }

  #findShared(slot: Slot, gfn: number, { fetch }: FaultAccess): Found | FaultOutcome {
    const { user, memory } = this.#parts
    const vaddr = slot.userPage(gfn) * PAGE_SIZE
    const extent = user.extentAt(vaddr)
    if (extent === undefined || !extent.readable) return { kind: 'no-memory' }
    const logged = (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
    let level: MappingLevel = logged ? 1 : this.#most(slot, gfn, 3, fetch)
    while (level > 1 && !holds(extent, slot.userPage(blockOf(gfn, level)), LEVEL_PAGES[level]))
      level = below(level)
    const block = blockOf(gfn, level)
    const at = block * PAGE_SIZE
    const bytes = LEVEL_PAGES[level] * PAGE_SIZE
    const start = slot.userPage(block) * PAGE_SIZE
    const readOnly = !extent.writable || (slot.flags & KVM_MEM_READONLY) !== 0
    const install = () => {
      const device = user.deviceAt(start)
      if (device !== undefined) {
        const target = new DeviceWindow(device.space, device.hpa)
        return memory.addMmio(at, bytes, target, `slot ${slot.id}`)
      }
      const ram = memory.addRam(at, user.bytesAt(start, bytes)!)
      if (logged) ram.dirty = new DirtyLog(1)
      return ram
    }
    return { level, readOnly, install }
  }

  #most(slot: Slot, gfn: number, most: MappingLevel, fetch: boolean | undefined): MappingLevel {
    if (fetch === true && this.#parts.smallCode) return 1
    return slot.levels!.most(gfn, most)
  }

  #install(gfn: number, isPrivate: boolean, { level, install, readOnly }: Found): void {
    const block = blockOf(gfn, level)
    const last = block + LEVEL_PAGES[level] - 1
    this.unmap(block, last)
    const region = install()
    if (readOnly && region.kind === 'ram') this.#readOnly.add(region)
    this.#leaves.insert(block, last, { region, level, isPrivate })
    const { mapped } = this.#parts
    if (mapped.on) mapped.emit({ gpa: block * PAGE_SIZE, level, private: isPrivate })
  }
}

const below = (level: MappingLevel): MappingLevel => (level === 3 ? 2 : 1)

const holds = (extent: Extent, first: number, pages: number): boolean =>
  first >= extent.first && first + pages - 1 <= extent.last
