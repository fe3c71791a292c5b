// A VFIO device as a function of the guest machine: its configuration space, its BARs at guest
// addresses (mapped straight to the device where VFIO allows it), and its interrupts.

import type { Sys } from '../sys/sys.js'
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  vfio_region_info,
} from '../vfio/uapi/vfio.js'
import { COMMAND, GuestConfigSpace } from './config-space.js'
import { GuestMsix, type RaiseMsi } from './msix.js'

/** One BAR of the function in the guest. */
export interface GuestBar {
  readonly index: number
  /** Bytes, a power of two. */
  readonly size: number
  /** Where the region starts in the device's file. */
  readonly region: bigint
  /** Process address of the mapped BAR; undefined where every access is trapped. */
  readonly vaddr: bigint | undefined
}

/** A passed-through function. */
export class Passthrough {
  readonly config: GuestConfigSpace
  readonly bars: readonly GuestBar[]
  readonly msix: GuestMsix | undefined
  readonly #sys: Sys
  readonly #device: number
  readonly #msixBar: number = -1
  readonly #msixOffset: number = 0

  /**
   * `device` is a VFIO device fd; BARs are placed from guest address `window` upwards. `pasidBits`: see
   * GuestConfigSpace.
   */
  constructor(sys: Sys, device: number, window: number, raise: RaiseMsi, pasidBits = 0) {
    this.#sys = sys
    this.#device = device
    const config = this.#region(VFIO_PCI_CONFIG_REGION_INDEX)
    const regions = []
    for (let index = 0; index <= VFIO_PCI_BAR5_REGION_INDEX; index++)
      regions.push(this.#region(index))
    const sizes = regions.map(r => Number(r.size))
    this.config = new GuestConfigSpace(
      sys,
      device,
      config.offset,
      Number(config.size),
      sizes,
      pasidBits,
    )

    const capability = this.config.msix
    if (capability) {
      const vectors = Number(this.config.read(capability + 2, 2) & 0x7ffn) + 1
      const table = Number(this.config.read(capability + 4, 4))
      this.#msixBar = table & 7
      this.#msixOffset = table & ~7
      this.msix = new GuestMsix(sys, device, vectors, raise)
    }
    this.bars = regions.flatMap((region, index) =>
      region.size === 0n ? [] : [this.#bar(index, region)],
    )
    this.#place(window)
  }

  /** Memory decode as the guest set it. */
  get decoding(): boolean {
    return (this.config.command & COMMAND.MEMORY) !== 0
  }

  /** The guest's read of a trapped BAR. */
  readBar(bar: GuestBar, offset: number, size: number): bigint {
    const inTable = this.#inTable(bar, offset)
    if (inTable !== undefined) return this.msix!.read(inTable, size)
    const bytes = new Uint8Array(8)
    this.#sys.pread(this.#device, bytes.subarray(0, size), bar.region + BigInt(offset))
    return new DataView(bytes.buffer).getBigUint64(0, true)
  }

  /** The guest's write of a trapped BAR. */
  writeBar(bar: GuestBar, offset: number, size: number, value: bigint): void {
    const inTable = this.#inTable(bar, offset)
    if (inTable !== undefined) {
      this.msix!.write(inTable, size, value)
      return
    }
    const bytes = new Uint8Array(8)
    new DataView(bytes.buffer).setBigUint64(0, value, true)
    this.#sys.pwrite(this.#device, bytes.subarray(0, size), bar.region + BigInt(offset))
  }

  /** Takes over what the guest changed in the MSI-X capability. */
  updateInterrupts(): void {
    this.msix?.control(this.config.msixEnabled, this.config.msixMasked)
  }

  close(): void {
    this.msix?.close()
    for (const bar of this.bars) if (bar.vaddr !== undefined) this.#sys.munmap(bar.vaddr, bar.size)
    this.#sys.close(this.#device)
  }

  #region(index: number) {
    const info = vfio_region_info({ index })
    this.#sys.ioctl(this.#device, VFIO_DEVICE_GET_REGION_INFO, info)
    return info
  }

  #bar(index: number, region: ReturnType<typeof vfio_region_info>): GuestBar {
    const size = Number(region.size)
    const direct = (region.flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0 && index !== this.#msixBar
    const vaddr = direct
      ? this.#sys.mmap({ fd: this.#device, offset: region.offset, length: size }).vaddr
      : undefined
    return { index, size, region: region.offset, vaddr }
  }

  /** Firmware's part: naturally aligned addresses, largest first; no BAR smaller than a page. */
  #place(window: number): void {
    let at = window
    for (const bar of [...this.bars].sort((a, b) => b.size - a.size)) {
      const align = Math.max(bar.size, 4096)
      at = Math.ceil(at / align) * align
      this.config.setBar(bar.index, at)
      at += align
    }
  }

  #inTable(bar: GuestBar, offset: number): number | undefined {
    if (!this.msix || bar.index !== this.#msixBar) return undefined
    const at = offset - this.#msixOffset
    return at >= 0 && at < this.msix.size ? at : undefined
  }
}
