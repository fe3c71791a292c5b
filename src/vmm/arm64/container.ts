// The VMM's side of a VFIO container under profile N13: guest RAM for DMA, the guest's whole table of context descriptors
// behind one device, invalidations, and the guest address of interrupt messages. A container holds one group, as each
// group may have a table of its own.

import {
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
  IOMMU_INV_ADDR_FLAGS_ARCHID,
  IOMMU_INV_ADDR_FLAGS_LEAF,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_DOMAIN,
  IOMMU_INV_GRANU_PASID,
  IOMMU_PASID_CONFIG_ABORT,
  IOMMU_PASID_CONFIG_BYPASS,
  IOMMU_PASID_CONFIG_TRANSLATE,
  IOMMU_PASID_FORMAT_SMMUV3,
  iommu_cache_invalidate_info,
  iommu_pasid_table_config,
  PASID_TABLE_CFG_VERSION_1,
  PASID_TABLE_SMMUV3_CFG_VERSION_1,
} from '../../iommu/uapi.js'
import type { Sys } from '../../sys/sys.js'
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_IOMMU_BIND_MSI,
  VFIO_IOMMU_CACHE_INVALIDATE,
  VFIO_IOMMU_SET_MSI_BINDING,
  VFIO_IOMMU_SET_PASID_TABLE,
  VFIO_PASID_TABLE_FLAG_SET,
  vfio_iommu_type1_cache_invalidate,
  vfio_iommu_type1_set_msi_binding,
  vfio_iommu_type1_set_pasid_table,
} from '../../vfio/uapi/vfio.js'
import { mapDma, openNesting } from '../container.js'

/** What a stream table entry asks for. */
export type StreamConfig =
  | { readonly kind: 'abort' | 'bypass' }
  | {
      readonly kind: 'translate'
      /** Guest physical address of the descriptors, log2 of how many, S1Fmt and S1DSS of the entry. */
      readonly table: number
      readonly contextBits: number
      readonly format: number
      readonly dss: number
    }

/** What an invalidation names. Nothing: everything of the guest's. */
export interface Invalidation {
  readonly cache: 'contexts' | 'tlb' | 'device-tlb'
  readonly pasid?: number
  readonly asid?: number
  readonly address?: bigint
  /** 4 KB pages from `address` on. */
  readonly pages?: number
  readonly leaf?: boolean
}

const CACHE = {
  contexts: IOMMU_CACHE_INV_TYPE_PASID,
  tlb: IOMMU_CACHE_INV_TYPE_IOTLB,
  'device-tlb': IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
} as const
const CONFIG = {
  translate: IOMMU_PASID_CONFIG_TRANSLATE,
  bypass: IOMMU_PASID_CONFIG_BYPASS,
  abort: IOMMU_PASID_CONFIG_ABORT,
} as const

const NO_TABLE = { table: 0, contextBits: 0, format: 0, dss: 0 }

/** A nesting container with one group. Every method may throw the ioctl's ErrnoError. */
export class TableContainer {
  readonly #sys: Sys
  readonly #container: number
  readonly #group: number

  constructor(sys: Sys, groupPath: string) {
    this.#sys = sys
    const { container, group } = openNesting(sys, groupPath)
    this.#container = container
    this.#group = group
  }

  /** Opens a device of the group: `0000:bb:dd.f`. */
  openDevice(name: string): number {
    return this.#sys.ioctl(this.#group, VFIO_GROUP_GET_DEVICE_FD, name)
  }

  /** Makes `size` bytes at process address `vaddr` the guest's memory from `gpa` on. */
  map(vaddr: bigint, gpa: bigint, size: bigint): void {
    mapDma(this.#sys, this.#container, vaddr, gpa, size)
  }

  /** Lets interrupt messages of the device go where the guest's page at `gpa` is. */
  bindMessages(gpa: number): void {
    const at = BigInt(gpa)
    const binding = { flags: VFIO_IOMMU_BIND_MSI, iova: at, gpa: at, size: 4096n }
    this.#call(VFIO_IOMMU_SET_MSI_BINDING, vfio_iommu_type1_set_msi_binding(binding))
  }

  /** Puts the guest's stage in front of the device. Between one table and the next nothing passes. */
  setTable(stream: StreamConfig): void {
    if (stream.kind === 'translate') this.#setTable({ kind: 'abort' })
    this.#setTable(stream)
  }

  /** Drops what is cached of the guest's stage. */
  invalidate({ cache, pasid, asid, address, pages = 0, leaf = false }: Invalidation): void {
    const named = pasid !== undefined || asid !== undefined
    const flags =
      (pasid === undefined ? 0 : IOMMU_INV_ADDR_FLAGS_PASID) |
      (asid === undefined ? 0 : IOMMU_INV_ADDR_FLAGS_ARCHID)
    const info = iommu_cache_invalidate_info({
      version: IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
      cache: CACHE[cache],
      granularity:
        address !== undefined
          ? IOMMU_INV_GRANU_ADDR
          : named
            ? IOMMU_INV_GRANU_PASID
            : IOMMU_INV_GRANU_DOMAIN,
    })
    const ids = { pasid: BigInt(pasid ?? 0), archid: asid ?? 0 }
    if (address !== undefined)
      Object.assign(info.granu.addr_info, {
        ...ids,
        flags: flags | (leaf ? IOMMU_INV_ADDR_FLAGS_LEAF : 0),
        addr: address,
        granule_size: 4096n,
        nb_granules: BigInt(pages),
      })
    else Object.assign(info.granu.pasid_info, { ...ids, flags })
    this.#call(VFIO_IOMMU_CACHE_INVALIDATE, vfio_iommu_type1_cache_invalidate({ info }))
  }

  /** Closes group and container; the table and what is mapped go with them. */
  close(): void {
    this.#sys.close(this.#group)
    this.#sys.close(this.#container)
  }

  #setTable(stream: StreamConfig): void {
    const { table, contextBits, format, dss } = stream.kind === 'translate' ? stream : NO_TABLE
    const config = iommu_pasid_table_config({
      version: PASID_TABLE_CFG_VERSION_1,
      format: IOMMU_PASID_FORMAT_SMMUV3,
      config: CONFIG[stream.kind],
      base_ptr: BigInt(table),
      pasid_bits: contextBits,
      smmuv3: { version: PASID_TABLE_SMMUV3_CFG_VERSION_1, s1fmt: format, s1dss: dss },
    })
    const set = { flags: VFIO_PASID_TABLE_FLAG_SET, config }
    this.#call(VFIO_IOMMU_SET_PASID_TABLE, vfio_iommu_type1_set_pasid_table(set))
  }

  #call(command: number, argument: Parameters<Sys['ioctl']>[2]): void {
    this.#sys.ioctl(this.#container, command, argument)
  }
}
