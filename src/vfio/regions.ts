// Regions of a vfio-pci device file: BARs, configuration space, and what an extension adds. A region's file offset
// is its index << 40. uapi linux/vfio.h, vfio_region_info; access rules: drivers/vfio/pci of 5.9.
import { ErrnoError } from '../base/errno.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { MmapBacking } from '../mem/vma.js'
import type { Bar } from '../pci/bar.js'
import type { PciFunction } from '../pci/function.js'
import type { CapabilityChain } from './capability-chain.js'
import type { VirtualConfig } from './config.js'
import {
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_info_cap_header,
} from './uapi/vfio.js'

const READ_WRITE = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
const MSIX_ENTRY = 16

/** File offset of a region. */
export const regionOffset = (index: number): number => index * 2 ** 40
/** The region that a file offset is in. */
export const regionIndex = (offset: number): number => Math.floor(offset / 2 ** 40)

/** One region. Offsets are the region's own. */
export interface Region {
  /** Bytes; 0 for one that is not implemented. */
  readonly size: number
  /** VFIO_REGION_INFO_FLAG_*. */
  readonly flags: number
  /** Adds the capabilities of its info. */
  describe?(chain: CapabilityChain): void
  read(into: Uint8Array, offset: number): number
  write(from: Uint8Array, offset: number): number
  mmap?(length: number, offset: number): MmapBacking
}

const refuse = (code: 'EINVAL' | 'EFAULT' | 'EIO', what: string, syscall: string) =>
  new ErrnoError(code, what, syscall)

/** A region index without anything behind it: an absent BAR, the ROM. */
export const ABSENT: Region = {
  size: 0,
  flags: 0,
  read: () => {
    throw refuse('EINVAL', 'pread: the region is not implemented', 'pread')
  },
  write: () => {
    throw refuse('EINVAL', 'pwrite: the region is not implemented', 'pwrite')
  },
}

/** Configuration space, 4096 bytes. */
export class ConfigRegion implements Region {
  readonly flags = READ_WRITE
  readonly size: number
  readonly #config: VirtualConfig

  constructor(config: VirtualConfig) {
    this.#config = config
    this.size = config.size
  }

  read(into: Uint8Array, offset: number): number {
    if (offset + into.length > this.size)
      throw refuse('EFAULT', 'pread: past the end of configuration space', 'pread')
    this.#config.read(offset, into)
    return into.length
  }

  write(from: Uint8Array, offset: number): number {
    if (offset + from.length > this.size)
      throw refuse('EFAULT', 'pwrite: past the end of configuration space', 'pwrite')
    this.#config.write(offset, from)
    return from.length
  }
}

/**
 * A memory BAR, reached at its address in host memory. The MSI-X table in it belongs to the kernel: reads of it are
 * all-ones, writes are dropped. A mapping reaches the device itself, table included.
 */
export class BarRegion implements Region {
  readonly flags = READ_WRITE | VFIO_REGION_INFO_FLAG_MMAP
  readonly size: number
  readonly #fn: PciFunction
  readonly #bar: Bar
  readonly #memory: AddressSpace
  readonly #tableStart: number
  readonly #tableEnd: number

  constructor(fn: PciFunction, bar: Bar, memory: AddressSpace) {
    this.#fn = fn
    this.#bar = bar
    this.#memory = memory
    this.size = bar.size
    const msix = fn.msix?.tableBar === bar.index ? fn.msix : undefined
    this.#tableStart = msix ? msix.tableOffset : this.size
    this.#tableEnd = msix ? msix.tableOffset + msix.vectors * MSIX_ENTRY : this.size
  }

  describe(chain: CapabilityChain): void {
    if (this.#tableEnd > this.#tableStart)
      chain.add(vfio_info_cap_header(), VFIO_REGION_INFO_CAP_MSIX_MAPPABLE)
  }

  read(into: Uint8Array, offset: number): number {
    const length = this.#check(into.length, offset, 'pread')
    this.#split(offset, length, (at, bytes, table) => {
      if (table) into.fill(0xff, at - offset, at - offset + bytes)
      else this.#memory.read(this.#bar.address() + at, into, at - offset, bytes)
    })
    return length
  }

  write(from: Uint8Array, offset: number): number {
    const length = this.#check(from.length, offset, 'pwrite')
    this.#split(offset, length, (at, bytes, table) => {
      if (!table) this.#memory.write(this.#bar.address() + at, from, at - offset, bytes)
    })
    return length
  }

  /** Whether `length` bytes at `offset` are in the BAR and outside the MSI-X table. */
  holds(offset: number, length: number): boolean {
    const end = offset + length
    return end <= this.size && (end <= this.#tableStart || offset >= this.#tableEnd)
  }

  /** Writes as `write` does, but silently nothing while memory decoding is off. */
  ring(from: Uint8Array, offset: number): void {
    if (this.#fn.memoryEnabled) this.#memory.write(this.#bar.address() + offset, from)
  }

  mmap(_length: number, offset: number): MmapBacking {
    return { space: this.#memory, hpa: this.#bar.address() + offset }
  }

  #check(length: number, offset: number, syscall: string): number {
    if (offset >= this.size) throw refuse('EINVAL', `${syscall}: past the end of the BAR`, syscall)
    if (!this.#fn.memoryEnabled)
      throw refuse('EIO', `${syscall}: memory decoding of the device is off`, syscall)
    return Math.min(length, this.size - offset)
  }

  // The pieces of a range before, in and after the MSI-X table.
  #split(
    offset: number,
    length: number,
    piece: (at: number, bytes: number, table: boolean) => void,
  ): void {
    const end = offset + length
    const cut = (at: number) => Math.min(Math.max(at, offset), end)
    const from = cut(this.#tableStart)
    const to = cut(this.#tableEnd)
    if (from > offset) piece(offset, from - offset, false)
    if (to > from) piece(from, to - from, true)
    if (end > to) piece(to, end - to, false)
  }
}
