/**
 * One stretch of a process's address space, and what lies behind it: frames of host RAM, bytes the
 * kernel shares with the process, or a window of physical addresses (a device's registers).
 * Next: process-memory.ts keeps them in order.
 */
import { hex, PAGE_SIZE } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { AddressSpace } from './address-space.js'

/** Protection bits of mmap(2). */
export const PROT_NONE = 0
export const PROT_READ = 1
export const PROT_WRITE = 2
export const PROT_EXEC = 4

/** A window of physical addresses (PFNMAP): not pinnable, not accounted. `hpa` is page aligned. */
export interface DeviceBacking {
  readonly space: AddressSpace
  readonly hpa: number
}

/** Memory of the kernel outside host RAM, shared with the process (a vCPU's run page): not pinnable. */
export interface BytesBacking {
  readonly bytes: Uint8Array
}

/**
 * Frames of host RAM that a file holds: pinnable. Pages of the mapping past `pages` are past the end of what the
 * file shows: the kernel's copies fault there (EFAULT), and a program would get SIGBUS.
 */
export interface FrameBacking {
  /** Number of the first frame. */
  readonly frame: number
  readonly pages: number
}

/** What a mapping shows. */
export type MmapBacking = DeviceBacking | BytesBacking | FrameBacking

/** Something a mapping keeps alive, as a vma keeps its file. */
export interface VmaOwner {
  get(): void
  put(): void
}

/** A stretch of pages with one protection and one backing. */
export class Vma {
  /** First and last page number of the stretch. */
  readonly first: number
  readonly last: number
  /** Address and length of the stretch in bytes. */
  readonly start: number
  readonly size: number
  readonly prot: number
  /** Whether it may be read now: never past the end of a file. */
  readonly readable: boolean
  readonly writable: boolean
  /** Past the end of what a file shows. */
  readonly absent: boolean
  /** Fork shares it rather than copying. */
  readonly shared: boolean
  /** Frame number of the first page, for frames; -1 otherwise. */
  readonly frame: number
  /** All its bytes, unless it is a device window. */
  readonly bytes: Uint8Array | undefined
  readonly device: DeviceBacking | undefined
  readonly owner: VmaOwner | undefined

  constructor(init: {
    first: number
    last: number
    prot: number
    shared: boolean
    frame?: number
    bytes?: Uint8Array | undefined
    device?: DeviceBacking | undefined
    owner?: VmaOwner | undefined
    absent?: boolean
  }) {
    this.first = init.first
    this.last = init.last
    this.start = init.first * PAGE_SIZE
    this.size = (init.last - init.first + 1) * PAGE_SIZE
    this.prot = init.prot
    this.absent = init.absent ?? false
    this.readable = (init.prot & PROT_READ) !== 0 && !this.absent
    this.writable = (init.prot & PROT_WRITE) !== 0 && !this.absent
    this.shared = init.shared
    this.frame = init.frame ?? -1
    this.bytes = init.bytes
    this.device = init.device
    this.owner = init.owner
  }

  get pages(): number {
    return this.last - this.first + 1
  }

  /** The part of it from page `first` to page `last`, with another protection if one is given. */
  part(first: number, last: number, prot = this.prot): Vma {
    const skipped = first - this.first
    const at = skipped * PAGE_SIZE
    return new Vma({
      first,
      last,
      prot,
      shared: this.shared,
      frame: this.frame < 0 ? -1 : this.frame + skipped,
      bytes: this.bytes?.subarray(at, at + (last - first + 1) * PAGE_SIZE),
      device: this.device && { space: this.device.space, hpa: this.device.hpa + at },
      owner: this.owner,
      absent: this.absent,
    })
  }
}

/** What `mmap` gives a program. */
export class Mapping {
  readonly vaddr: bigint
  readonly length: number
  /** What lies behind it. */
  readonly vma: Vma

  constructor(vma: Vma, length: number) {
    this.vaddr = BigInt(vma.start)
    this.length = length
    this.vma = vma
  }

  /** The memory itself. A device window has no bytes (Error): use `load` and `store`. */
  get bytes(): Uint8Array {
    const bytes = this.vma.bytes
    if (this.vma.absent) throw sigbus(this.vaddr)
    if (bytes === undefined) {
      throw new Error(`${hex(this.vaddr)} maps device registers: use load and store`)
    }
    return bytes.length === this.length ? bytes : bytes.subarray(0, this.length)
  }

  /** One little-endian load as a processor does it: device registers see one access of that size. */
  load(offset: number, size: 1 | 2 | 4 | 8): bigint {
    const device = this.#device(offset, size)
    if (device !== undefined) return device.space.load(device.hpa + offset, size)
    let value = 0n
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[offset + i]!)
    return value
  }

  /** One little-endian store. */
  store(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    const device = this.#device(offset, size)
    if (device !== undefined) device.space.store(device.hpa + offset, size, value)
    else
      for (let i = 0; i < size; i++)
        this.bytes[offset + i] = Number((value >> BigInt(8 * i)) & 0xffn)
  }

  #device(offset: number, size: number): DeviceBacking | undefined {
    if (!(offset >= 0 && offset + size <= this.length)) {
      throw new RangeError(`${size} bytes at ${offset} of a mapping of ${this.length}`)
    }
    return this.vma.device
  }
}

const sigbus = (vaddr: bigint) =>
  new ErrnoError('EFAULT', `SIGBUS: nothing lies behind ${hex(vaddr)}`, 'mmap')
