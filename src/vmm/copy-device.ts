// A dma-copy device held through VFIO (container, group, type1v2), for VMMs that let it move pages of their guest: maps
// and unmaps ranges of the process for it, starts copies, says how they ended.

import type { Sys } from '../sys/sys.js'
import { s32 } from '../sys/sys.js'
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_region_info,
} from '../vfio/uapi/vfio.js'

// Registers of the device's BAR 0, and two bits of its status.
const [SRC, DST, LEN, CTRL, STATUS] = [0x00, 0x08, 0x10, 0x18, 0x1c]
const [DONE, FAULT] = [1, 2]

/** A dma-copy device and its container. */
export class CopyDevice {
  readonly #sys: Sys
  readonly #container: number
  readonly #group: number
  readonly #device: number
  readonly #bar0: bigint
  readonly #settle: () => void

  /** `group` is the group's file, `at` the function's address; `settle` lets the device's work happen. */
  constructor(sys: Sys, group: string, at: string, settle: () => void) {
    this.#sys = sys
    this.#settle = settle
    this.#container = sys.open('/dev/vfio/vfio')
    this.#group = sys.open(group)
    sys.ioctl(this.#group, VFIO_GROUP_SET_CONTAINER, s32(this.#container))
    sys.ioctl(this.#container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
    this.#device = sys.ioctl(this.#group, VFIO_GROUP_GET_DEVICE_FD, at)
    this.#bar0 = this.#region(VFIO_PCI_BAR0_REGION_INDEX)
    const config = this.#region(VFIO_PCI_CONFIG_REGION_INDEX)
    sys.pwrite(this.#device, Uint8Array.of(6, 0), config + 4n) // memory space, bus master
  }

  /** Lets the device reach process memory at an I/O virtual address. ErrnoError as VFIO refuses. */
  map(iova: number, vaddr: bigint, size: number): void {
    const map = vfio_iommu_type1_dma_map({
      flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
      vaddr,
      iova: BigInt(iova),
      size: BigInt(size),
    })
    this.#sys.ioctl(this.#container, VFIO_IOMMU_MAP_DMA, map)
  }

  /** Takes it away; whatever is not mapped there is skipped. */
  unmap(iova: number, size: number): void {
    const unmap = vfio_iommu_type1_dma_unmap({ iova: BigInt(iova), size: BigInt(size) })
    this.#sys.ioctl(this.#container, VFIO_IOMMU_UNMAP_DMA, unmap)
  }

  /** Copies between I/O virtual addresses; false when a request was refused. */
  copy(source: number, target: number, bytes: number): boolean {
    this.start(source, target, bytes)
    this.#settle()
    return this.finished()
  }

  /** Starts a copy and does not wait. */
  start(source: number, target: number, bytes: number): void {
    this.#poke(STATUS, 4, DONE | FAULT)
    this.#poke(SRC, 8, source)
    this.#poke(DST, 8, target)
    this.#poke(LEN, 4, bytes)
    this.#poke(CTRL, 4, 1)
  }

  /** Whether the last copy ended well. */
  finished(): boolean {
    const status = this.#sys.pread(this.#device, 4, this.#bar0 + BigInt(STATUS))[0]!
    return (status & (DONE | FAULT)) === DONE
  }

  close(): void {
    for (const fd of [this.#device, this.#group, this.#container]) this.#sys.close(fd)
  }

  #region(index: number): bigint {
    const info = vfio_region_info({ index })
    this.#sys.ioctl(this.#device, VFIO_DEVICE_GET_REGION_INFO, info)
    return info.offset
  }

  #poke(register: number, size: 4 | 8, value: number): void {
    const bytes = new Uint8Array(8)
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true)
    this.#sys.pwrite(this.#device, bytes.subarray(0, size), this.#bar0 + BigInt(register))
  }
}
