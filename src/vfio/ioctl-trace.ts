// Names and arguments of ioctls for the trace bus. Only looked at while somebody listens.

import { ErrnoError } from '../base/errno.js'
import { type AnyStruct, ArrayView } from '../base/struct.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { Process } from '../sys/process.js'
import type { Rules } from './profiles.js'
import * as uapi from './uapi/vfio.js'
import './trace.js'

type Fd = TraceEvents['vfio.ioctl']['fd']
type Names = ReadonlyMap<number, readonly [name: string, struct?: AnyStruct]>

// biome-ignore format: table
const container: Names = new Map<number, readonly [string, AnyStruct?]>([
  [uapi.VFIO_GET_API_VERSION, ['VFIO_GET_API_VERSION']],
  [uapi.VFIO_CHECK_EXTENSION, ['VFIO_CHECK_EXTENSION']],
  [uapi.VFIO_SET_IOMMU, ['VFIO_SET_IOMMU']],
  [uapi.VFIO_IOMMU_GET_INFO, ['VFIO_IOMMU_GET_INFO', uapi.vfio_iommu_type1_info]],
  [uapi.VFIO_IOMMU_MAP_DMA, ['VFIO_IOMMU_MAP_DMA', uapi.vfio_iommu_type1_dma_map]],
  [uapi.VFIO_IOMMU_UNMAP_DMA, ['VFIO_IOMMU_UNMAP_DMA', uapi.vfio_iommu_type1_dma_unmap]],
  [uapi.VFIO_IOMMU_ENABLE, ['VFIO_IOMMU_ENABLE']],
  [uapi.VFIO_IOMMU_DISABLE, ['VFIO_IOMMU_DISABLE']],
  [uapi.VFIO_IOMMU_DIRTY_PAGES, ['VFIO_IOMMU_DIRTY_PAGES', uapi.vfio_iommu_type1_dirty_bitmap]],
])
// biome-ignore format: table
const group: Names = new Map<number, readonly [string, AnyStruct?]>([
  [uapi.VFIO_GROUP_GET_STATUS, ['VFIO_GROUP_GET_STATUS', uapi.vfio_group_status]],
  [uapi.VFIO_GROUP_SET_CONTAINER, ['VFIO_GROUP_SET_CONTAINER']],
  [uapi.VFIO_GROUP_UNSET_CONTAINER, ['VFIO_GROUP_UNSET_CONTAINER']],
  [uapi.VFIO_GROUP_GET_DEVICE_FD, ['VFIO_GROUP_GET_DEVICE_FD']],
])
// biome-ignore format: table
const device: Names = new Map<number, readonly [string, AnyStruct?]>([
  [uapi.VFIO_DEVICE_GET_INFO, ['VFIO_DEVICE_GET_INFO', uapi.vfio_device_info]],
  [uapi.VFIO_DEVICE_GET_REGION_INFO, ['VFIO_DEVICE_GET_REGION_INFO', uapi.vfio_region_info]],
  [uapi.VFIO_DEVICE_GET_IRQ_INFO, ['VFIO_DEVICE_GET_IRQ_INFO', uapi.vfio_irq_info]],
  [uapi.VFIO_DEVICE_SET_IRQS, ['VFIO_DEVICE_SET_IRQS', uapi.vfio_irq_set]],
  [uapi.VFIO_DEVICE_RESET, ['VFIO_DEVICE_RESET']],
  [uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, ['VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', uapi.vfio_pci_hot_reset_info]],
  [uapi.VFIO_DEVICE_PCI_HOT_RESET, ['VFIO_DEVICE_PCI_HOT_RESET', uapi.vfio_pci_hot_reset]],
  [uapi.VFIO_DEVICE_QUERY_GFX_PLANE, ['VFIO_DEVICE_QUERY_GFX_PLANE']],
  [uapi.VFIO_DEVICE_GET_GFX_DMABUF, ['VFIO_DEVICE_GET_GFX_DMABUF']],
  [uapi.VFIO_DEVICE_IOEVENTFD, ['VFIO_DEVICE_IOEVENTFD', uapi.vfio_device_ioeventfd]],
  [uapi.VFIO_DEVICE_FEATURE, ['VFIO_DEVICE_FEATURE', uapi.vfio_device_feature]],
])

function names(fd: Fd, rules: Rules): Names {
  if (fd === 'group') return group
  if (fd === 'device') return device
  const all = new Map(container)
  const { calls } = rules
  const add = (n: number | undefined, name: string, struct: AnyStruct) =>
    n === undefined || all.set(uapi.VFIO_GET_API_VERSION + n, [name, struct])
  add(calls['pasid-request'], 'VFIO_IOMMU_PASID_REQUEST', uapi.vfio_iommu_type1_pasid_request)
  add(calls['nesting-op'], 'VFIO_IOMMU_NESTING_OP', uapi.vfio_iommu_type1_nesting_op)
  add(calls['set-pasid-table'], 'VFIO_IOMMU_SET_PASID_TABLE', uapi.vfio_iommu_type1_set_pasid_table)
  add(
    calls['cache-invalidate'],
    'VFIO_IOMMU_CACHE_INVALIDATE',
    uapi.vfio_iommu_type1_cache_invalidate,
  )
  add(calls['set-msi-binding'], 'VFIO_IOMMU_SET_MSI_BINDING', uapi.vfio_iommu_type1_set_msi_binding)
  return all
}

/** The trace of one kind of descriptor. */
export class IoctlTrace {
  readonly #point: TracePoint<TraceEvents['vfio.ioctl']>
  readonly #fd: Fd
  readonly #names: Names

  constructor(fd: Fd, rules: Rules, trace: TraceBus) {
    this.#fd = fd
    this.#names = names(fd, rules)
    this.#point = trace.point('vfio.ioctl')
  }

  /** Whether anybody listens: only then is `run` worth calling. */
  get on(): boolean {
    return this.#point.on
  }

  /** Makes the call and tells of it, whatever came of it. */
  run(cmd: number, arg: number, caller: Process, call: () => number): number {
    const [name, struct] = this.#names.get(cmd) ?? [`0x${cmd.toString(16)}`]
    const args = struct && decode(struct, arg, caller)
    const tell = (result: number | undefined, error?: unknown) =>
      this.#point.emit({
        fd: this.#fd,
        name,
        pid: caller.pid,
        args,
        result,
        errno: error instanceof ErrnoError ? error.code : undefined,
      })
    try {
      const result = call()
      tell(result)
      return result
    } catch (error) {
      tell(undefined, error)
      throw error
    }
  }
}

// The fixed part of a structure as plain data; undefined where it cannot be read.
function decode(
  struct: AnyStruct,
  arg: number,
  caller: Process,
): Record<string, unknown> | undefined {
  const bytes = new Uint8Array(struct.size)
  if (!caller.memory.copyIn(arg, bytes)) return undefined
  return plain(struct, struct.at(bytes))
}

function plain(struct: AnyStruct, value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.keys(struct.offsets).map(name => {
      const member: unknown = struct.members[name]
      const v = value[name]
      if (v instanceof Uint8Array || v instanceof ArrayView) return [name, [...v]]
      const nested = typeof member === 'function'
      return [name, nested ? plain(member as AnyStruct, v as Record<string, unknown>) : v]
    }),
  )
}
