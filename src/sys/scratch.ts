/**
 * Where ioctl arguments live during a call: a few pages of the process's memory, one place per depth of
 * nested calls. An argument ends where its mapping ends, so a driver that reads or writes past what the
 * program gave it faults, instead of meeting whatever lies next to it.
 */
import { PAGE_SIZE } from '../base/addr.js'
import type { ProcessMemory } from '../mem/process-memory.js'
import { copy } from '../mem/ram.js'

/** One place for an argument. */
export class ScratchSlot {
  /** Address of the argument during the call. */
  address = 0
  /** Address after the last byte of the mapping. */
  end = 0
  size = 0
  bytes: Uint8Array = new Uint8Array(0)
}

/** The argument places of one process. */
export class Scratch {
  readonly #memory: ProcessMemory
  readonly #slots: ScratchSlot[] = []
  #depth = 0

  constructor(memory: ProcessMemory) {
    this.#memory = memory
    this.#slots.push(this.#map(new ScratchSlot(), PAGE_SIZE))
  }

  /** Places `bytes` and returns where. Every `enter` needs its `leave`. */
  enter(bytes: Uint8Array): ScratchSlot {
    let slot = this.#slots[this.#depth]
    if (slot === undefined || slot.size < bytes.length) slot = this.#make(bytes.length)
    this.#depth++
    // Aligned for any member; the few bytes this may leave behind the argument belong to nobody.
    const offset = (slot.size - bytes.length) & ~7
    slot.address = slot.end - slot.size + offset
    copy(bytes, 0, slot.bytes, offset, bytes.length)
    return slot
  }

  /** Reads the argument back and frees its place. */
  leave(slot: ScratchSlot, bytes: Uint8Array): void {
    this.#depth--
    copy(slot.bytes, slot.address - (slot.end - slot.size), bytes, 0, bytes.length)
  }

  #make(length: number): ScratchSlot {
    const slot = this.#slots[this.#depth] ?? new ScratchSlot()
    this.#slots[this.#depth] = slot
    if (slot.size > 0) this.#memory.munmap(slot.end - slot.size, slot.size)
    return this.#map(slot, Math.ceil(length / PAGE_SIZE) * PAGE_SIZE)
  }

  #map(slot: ScratchSlot, size: number): ScratchSlot {
    const mapping = this.#memory.mmap(size)
    slot.size = size
    slot.end = Number(mapping.vaddr) + size
    slot.bytes = mapping.bytes
    return slot
  }
}
