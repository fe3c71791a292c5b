// What a slot table asks of those who put slots into guest-physical memory: whole-slots.ts does it at once, for VMs
// whose memory is all shared; faulted-slots.ts page by page, as the guest touches it, for VMs with private memory.

import type { AddressSpace, MmioTarget, Region } from '../../../mem/address-space.js'
import type { DirtyLog } from '../../../mem/dirty-log.js'
import type { ProcessMemory } from '../../../mem/process-memory.js'
import type { RamRegion } from '../../../mem/ram.js'
import type { Slot } from './slot.js'

/** What mappings are made in, and of. */
export interface MappingParts {
  /** Guest-physical memory. */
  readonly memory: AddressSpace
  /** The owner's. */
  readonly user: ProcessMemory
  /** Runs whenever translations to guest-physical memory must be dropped. */
  readonly changed: () => void
  /** The slot at a guest frame number. */
  readonly slotAt: (gfn: number) => Slot | undefined
  readonly slots: () => Iterable<Slot>
}

/** Slots as guest-physical memory. */
export interface SlotMappings {
  /** A slot is new. */
  add(slot: Slot): void
  /** A slot goes: its pages are no longer there. */
  remove(slot: Slot): void
  /** Before the guest runs. */
  refresh(): void
  /** Makes memory appear at an address where none is mapped, for data or `fetch`es; false when there is none. */
  populate(address: number, fetch?: boolean): boolean
  /** Whether an access that found no memory is the owner's fault; otherwise it is MMIO. */
  isFault(address: number, write: boolean): boolean
  /** Whether writes of the guest to this RAM leave the VM. */
  readOnly(ram: RamRegion): boolean
  /** Moves the marks of written pages to the slot's log. */
  collect(slot: Slot): void
  /** The VM is gone. */
  release(): void
}

/** Moves the marks of a slot's region to the slot. */
export function collectRegion(slot: Slot, region: Region): void {
  const log: DirtyLog | undefined = region.kind === 'ram' ? region.dirty : undefined
  if (log === undefined) return
  const offset = region.base - slot.base
  for (let page = 0; page < log.pages; page++)
    if (log.has(page)) slot.dirty?.mark(offset + page * 4096, 1)
  log.clear()
}

/** A device's registers, mapped by the owner, as the guest sees them. */
export class DeviceWindow implements MmioTarget {
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
