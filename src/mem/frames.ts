/**
 * Page frames of a RAM region: who owns physical memory of the machine. Frames are counted: a mapping
 * holds one reference, each pin another, and the last one to go frees the frame.
 * Next: process-memory.ts.
 */
import { hex, PAGE_SIZE } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { Failures } from '../base/failures.js'
import { IdAllocator } from '../base/ids.js'
import type { AddressSpace } from './address-space.js'
import type { RamRegion } from './ram.js'

/** Hands out zeroed 4 KiB frames of a RAM region, by host physical address. */
export class FrameAllocator {
  readonly space: AddressSpace
  readonly ram: RamRegion
  /** Steps of this memory's users that can be made to fail. */
  readonly failures = new Failures()
  /** First frame number, so that frame numbers are addresses / 4096. */
  readonly #first: number
  readonly #held: IdAllocator
  readonly #references: Int32Array
  readonly #reserved: number
  #pins = 0

  /** The first `reserved` bytes of the region (rounded up to a page) are never handed out. */
  constructor(space: AddressSpace, ram: RamRegion, reserved = 0) {
    if (ram.base % PAGE_SIZE !== 0 || ram.size % PAGE_SIZE !== 0) {
      throw new Error(`RAM at ${hex(ram.base)} is not made of whole pages`)
    }
    this.space = space
    this.ram = ram
    this.#first = ram.base / PAGE_SIZE
    this.#reserved = Math.ceil(reserved / PAGE_SIZE)
    const frames = ram.size / PAGE_SIZE
    if (this.#reserved >= frames) throw new Error('every frame of the region is reserved')
    this.#held = new IdAllocator(this.#reserved, frames - 1)
    this.#references = new Int32Array(frames)
  }

  /** Frames in use. */
  get used(): number {
    return this.#held.count
  }

  /** Frames that can be handed out, used or not. */
  get total(): number {
    return this.#held.max - this.#held.min + 1
  }

  /** Pins held by all processes together, for leak checks. */
  get pins(): number {
    return this.#pins
  }

  /**
   * The address of `pages` contiguous zeroed frames, its frame number a multiple of `alignPages`, with
   * one reference each. ErrnoError ENOMEM, of that system call, when there is no such run.
   */
  alloc(pages = 1, alignPages = 1, syscall = 'ioctl'): number {
    if (this.failures.armed) this.failures.step(`${pages} page frames`, 'ENOMEM', syscall)
    const start = this.#findRun(pages, alignPages)
    if (start < 0) throw new ErrnoError('ENOMEM', `no run of ${pages} free page frames`, syscall)
    for (let i = start; i < start + pages; i++) {
      this.#held.take(i)
      this.#references[i] = 1
    }
    const offset = start * PAGE_SIZE
    this.ram.bytes.fill(0, offset, offset + pages * PAGE_SIZE)
    return this.ram.base + offset
  }

  /** Drops one reference of each of `pages` frames from `hpa` on; those without others are free again. */
  free(hpa: number, pages = 1): void {
    const first = this.#index(hpa / PAGE_SIZE)
    for (let i = first; i < first + pages; i++) this.#put(i)
  }

  /** Adds a reference to each of `pages` frames in use. */
  get(hpa: number, pages = 1): void {
    const first = this.#index(hpa / PAGE_SIZE)
    for (let i = first; i < first + pages; i++) this.#get(i)
  }

  /** Pins a frame, by frame number (address / 4096). */
  pin(frame: number): void {
    this.#get(this.#index(frame))
    this.#pins++
  }

  /** Takes a pin back. */
  unpin(frame: number): void {
    this.#put(this.#index(frame))
    this.#pins--
  }

  /** References of the frame at an address; 0 when it is free. */
  references(hpa: number): number {
    return this.#references[this.#index(Math.floor(hpa / PAGE_SIZE))]!
  }

  /** The bytes of `pages` frames from `hpa` on. */
  bytes(hpa: number, pages = 1): Uint8Array {
    const offset = hpa - this.ram.base
    return this.ram.bytes.subarray(offset, offset + pages * PAGE_SIZE)
  }

  #index(frame: number): number {
    const i = frame - this.#first
    if (!(i >= 0 && i < this.#references.length)) {
      throw new Error(`${hex(frame * PAGE_SIZE)} is not in this RAM`)
    }
    return i
  }

  #get(i: number): void {
    if (this.#references[i]! <= 0) throw new Error(`frame ${i + this.#first} is free`)
    this.#references[i]!++
  }

  #put(i: number): void {
    const left = --this.#references[i]!
    if (left < 0) throw new Error(`frame ${i + this.#first} is freed twice`)
    if (left === 0) this.#held.free(i)
  }

  #findRun(pages: number, align: number): number {
    if (pages === 1 && align === 1) return this.#held.nextFree(0)
    let start = this.#held.nextFree(0)
    while (start >= 0) {
      start = Math.ceil((start + this.#first) / align) * align - this.#first
      if (start + pages - 1 > this.#held.max) return -1
      const taken = this.#held.next(start)
      if (taken < 0 || taken >= start + pages) return start
      start = this.#held.nextFree(taken)
    }
    return -1
  }
}
