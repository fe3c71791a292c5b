/**
 * Where ioctl arguments live during a call: a few pages of the process's memory, one place per depth of
 * nested calls. An argument ends where its mapping ends, so a driver that reads or writes past what the
 * program gave it faults, instead of meeting whatever lies next to it.
 */
import { PAGE_SIZE } from '../base/addr.js'
import type { ProcessMemory } from '../mem/process-memory.js'

/** Views are kept for arguments shorter than this. */
const KEPT = 256

/** One place for an argument. */
export class ScratchSlot {
  /** Address of the argument during the call. */
  address = 0
  readonly size: number
  readonly #start: number
  readonly #bytes: Uint8Array
  /** Where an argument lies, by its length: the same calls come again and again. */
  readonly #views: (Uint8Array | undefined)[] = new Array(KEPT).fill(undefined)

  /** A place in a mapping of the process. */
  constructor(start: number, bytes: Uint8Array) {
    this.#start = start
    this.#bytes = bytes
    this.size = bytes.length
  }

  put(bytes: Uint8Array): void {
    const { length } = bytes
    this.address = this.#start + this.#offset(length)
    this.#view(length).set(bytes)
  }

  take(bytes: Uint8Array): void {
    bytes.set(this.#view(bytes.length))
  }

  /** Gives the mapping back. */
  free(memory: ProcessMemory): void {
    memory.munmap(this.#start, this.size)
  }

  // Aligned for any member; the few bytes this may leave behind the argument belong to nobody.
  #offset(length: number): number {
    return (this.size - length) & ~7
  }

  #view(length: number): Uint8Array {
    const known = length < KEPT ? this.#views[length] : undefined
    if (known !== undefined) return known
    const offset = this.#offset(length)
    const view = this.#bytes.subarray(offset, offset + length)
    if (length < KEPT) this.#views[length] = view
    return view
  }
}

/** The argument places of one process. */
export class Scratch {
  readonly #memory: ProcessMemory
  readonly #slots: ScratchSlot[] = []
  #depth = 0

  constructor(memory: ProcessMemory) {
    this.#memory = memory
    this.#slots.push(this.#map(PAGE_SIZE))
  }

  /** Places `bytes` and returns where. Every `enter` needs its `leave`. */
  enter(bytes: Uint8Array): ScratchSlot {
    let slot = this.#slots[this.#depth]
    if (slot === undefined || slot.size < bytes.length) slot = this.#make(bytes.length)
    this.#depth++
    slot.put(bytes)
    return slot
  }

  /** Reads the argument back and frees its place. */
  leave(slot: ScratchSlot, bytes: Uint8Array): void {
    this.#depth--
    slot.take(bytes)
  }

  #make(length: number): ScratchSlot {
    const slot = this.#map(Math.ceil(length / PAGE_SIZE) * PAGE_SIZE)
    this.#slots[this.#depth]?.free(this.#memory)
    this.#slots[this.#depth] = slot
    return slot
  }

  #map(size: number): ScratchSlot {
    const mapping = this.#memory.mmap(size)
    return new ScratchSlot(Number(mapping.vaddr), mapping.bytes)
  }
}
