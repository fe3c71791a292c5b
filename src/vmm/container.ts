// The VMM's side of a VFIO nesting container: guest RAM mapped for DMA, PASIDs, page-table bindings and
// invalidations. Everything here is an ioctl that any program could issue.

import { ErrnoError } from '../base/errno.js'
import type { AnyStruct } from '../base/struct.js'
import {
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
  IOMMU_INV_ADDR_FLAGS_LEAF,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_PASID,
  IOMMU_INV_PASID_FLAGS_PASID,
  iommu_cache_invalidate_info,
  iommu_gpasid_bind_data,
  iommu_nesting_info,
} from '../iommu/uapi.js'
import { type Sys, s32 } from '../sys/sys.js'
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_TYPE1_INFO_CAP_NESTING,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_group_status,
  vfio_info_cap_header,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_info,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from '../vfio/uapi/vfio.js'

const VTD_FORMAT = 1
const BIND_VERSION = 1
const GPASID_VAL = 1n

/** A container with one group, nesting enabled. Every method may throw the ioctl's ErrnoError. */
export class NestingContainer {
  readonly #sys: Sys
  readonly #container: number
  readonly #group: number
  /** What the kernel said about nesting: features, address width, PASID bits, VT-d registers. */
  readonly nesting: ReturnType<typeof iommu_nesting_info>

  /** Opens the container and the group at `groupPath` and sets the nesting IOMMU type. */
  constructor(sys: Sys, groupPath: string) {
    this.#sys = sys
    const { container, group } = openNesting(sys, groupPath)
    this.#container = container
    this.#group = group
    this.nesting = this.#readNesting()
  }

  /** The container's descriptor, for calls that this class does not make. */
  get fd(): number {
    return this.#container
  }

  /** Opens a device of the group: `0000:bb:dd.f`. */
  openDevice(name: string): number {
    return this.#sys.ioctl(this.#group, VFIO_GROUP_GET_DEVICE_FD, name)
  }

  /** Makes `size` bytes at process address `vaddr` the device's memory from `iova` on. */
  map(vaddr: bigint, iova: bigint, size: bigint): void {
    mapDma(this.#sys, this.#container, vaddr, iova, size)
  }

  /** The lowest free PASID of [min, max]. */
  allocPasid(min: number, max: number): number {
    const flags = VFIO_IOMMU_FLAG_ALLOC_PASID
    return this.#pasidRequest(flags, min, max)
  }

  freePasid(pasid: number): void {
    this.#pasidRequest(VFIO_IOMMU_FLAG_FREE_PASID, pasid, pasid)
  }

  /** Lets the device use the first-stage table at guest physical `root` under `pasid`. */
  bind(pasid: number, root: number, options: { supervisor: boolean; addressWidth: number }): void {
    this.#nestingOp(VFIO_IOMMU_NESTING_OP_BIND_PGTBL, this.#bindData(pasid, root, options))
  }

  unbind(pasid: number): void {
    const data = this.#bindData(pasid, 0, { supervisor: false, addressWidth: 48 })
    this.#nestingOp(VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL, data)
  }

  /** Drops every cached first-stage translation of `pasid`. */
  invalidatePasid(pasid: number): void {
    const info = iommu_cache_invalidate_info({
      version: IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
      cache: IOMMU_CACHE_INV_TYPE_IOTLB,
      granularity: IOMMU_INV_GRANU_PASID,
    })
    info.granu.pasid_info.flags = IOMMU_INV_PASID_FLAGS_PASID
    info.granu.pasid_info.pasid = BigInt(pasid)
    this.#nestingOp(VFIO_IOMMU_NESTING_OP_CACHE_INVLD, info)
  }

  /** Drops cached first-stage translations of `pages` pages from `address` on. */
  invalidatePages(pasid: number, address: bigint, pages: number, leaf: boolean): void {
    const info = iommu_cache_invalidate_info({
      version: IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
      cache: IOMMU_CACHE_INV_TYPE_IOTLB,
      granularity: IOMMU_INV_GRANU_ADDR,
    })
    info.granu.addr_info = {
      flags: IOMMU_INV_ADDR_FLAGS_PASID | (leaf ? IOMMU_INV_ADDR_FLAGS_LEAF : 0),
      archid: 0,
      pasid: BigInt(pasid),
      addr: address,
      granule_size: 4096n,
      nb_granules: BigInt(pages),
    } as typeof info.granu.addr_info
    this.#nestingOp(VFIO_IOMMU_NESTING_OP_CACHE_INVLD, info)
  }

  /** Closes group and container; what is still bound or mapped goes with them. */
  close(): void {
    this.#sys.close(this.#group)
    this.#sys.close(this.#container)
  }

  #pasidRequest(flags: number, min: number, max: number): number {
    const request = vfio_iommu_type1_pasid_request({ flags, range: { min, max } })
    return this.#sys.ioctl(this.#container, VFIO_IOMMU_PASID_REQUEST, request)
  }

  #bindData(pasid: number, root: number, o: { supervisor: boolean; addressWidth: number }) {
    const data = iommu_gpasid_bind_data({
      version: BIND_VERSION,
      format: VTD_FORMAT,
      addr_width: o.addressWidth,
      flags: GPASID_VAL,
      gpgd: BigInt(root),
      hpasid: BigInt(pasid),
      gpasid: BigInt(pasid),
    })
    data.vendor.vtd.flags = o.supervisor ? 1n : 0n
    return data
  }

  #nestingOp(op: number, payload: { readonly bytes: Uint8Array }): void {
    const request = vfio_iommu_type1_nesting_op({ flags: op, data: payload.bytes })
    this.#sys.ioctl(this.#container, VFIO_IOMMU_NESTING_OP, request)
  }

  #readNesting(): ReturnType<typeof iommu_nesting_info> {
    const probe = vfio_iommu_type1_info()
    this.#sys.ioctl(this.#container, VFIO_IOMMU_GET_INFO, probe)
    const info = vfio_iommu_type1_info(
      { argsz: probe.argsz },
      probe.argsz - vfio_iommu_type1_info.size,
    )
    this.#sys.ioctl(this.#container, VFIO_IOMMU_GET_INFO, info)
    const at = findCapability(info.bytes, info.cap_offset, VFIO_IOMMU_TYPE1_INFO_CAP_NESTING)
    if (at === undefined)
      throw new ErrnoError('ENODEV', 'VFIO_IOMMU_GET_INFO: no nesting capability')
    return iommu_nesting_info.at(info.bytes, at + vfio_info_cap_header.size)
  }
}

/** Opens a container and the group at `groupPath`, and sets the nesting IOMMU type. Refusals are ErrnoErrors. */
export function openNesting(sys: Sys, groupPath: string): { container: number; group: number } {
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(groupPath)
  if (sys.ioctl(container, VFIO_GET_API_VERSION) !== VFIO_API_VERSION)
    throw new ErrnoError('EINVAL', 'VFIO_GET_API_VERSION: not version 0')
  if (sys.ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1_NESTING_IOMMU) !== 1)
    throw new ErrnoError('ENODEV', 'VFIO_CHECK_EXTENSION: no nesting IOMMU type')
  const status = vfio_group_status()
  sys.ioctl(group, VFIO_GROUP_GET_STATUS, status)
  if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
    throw new ErrnoError('EINVAL', `${groupPath}: group is not viable`)
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
  return { container, group }
}

/** MAP_DMA: `size` bytes at process address `vaddr` from `iova` on, to read and to write. */
export function mapDma(
  sys: Sys,
  container: number,
  vaddr: bigint,
  iova: bigint,
  size: bigint,
): void {
  const flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
  const map = vfio_iommu_type1_dma_map({ flags, vaddr, iova, size })
  sys.ioctl(container, VFIO_IOMMU_MAP_DMA, map)
}

/** Offset of capability `id` in an info structure's chain; undefined when it is not there. */
export function findCapability(info: Uint8Array, first: number, id: number): number | undefined {
  for (let at = first; at !== 0; ) {
    const header = vfio_info_cap_header.at(info, at)
    if (header.id === id) return at
    at = header.next
  }
  return undefined
}

/**
 * Runs an info ioctl twice, as its protocol asks: once for the size it needs, once with room for it.
 * `make` builds the request with a given argsz and tail.
 */
export function infoWithCapabilities<T extends { argsz: number; bytes: Uint8Array }>(
  sys: Sys,
  fd: number,
  command: number,
  type: AnyStruct,
  make: (argsz: number, tail: number) => T,
): T {
  const first = make(type.size, 0)
  sys.ioctl(fd, command, first)
  if (first.argsz <= type.size) return first
  const whole = make(first.argsz, first.argsz - type.size)
  sys.ioctl(fd, command, whole)
  return whole
}
