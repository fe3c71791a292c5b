// Out-of-tree VFIO additions: "vfio: expose virtual Shared Virtual Addressing to VMs" v7 and v8, and the
// neighbour series "SMMUv3 Nested Stage Setup (VFIO part)" v13. Numbers of the two collide; the profile says
// which one a container speaks. The IOMMU structures they carry are in iommu/uapi.ts.
import { flex, struct } from '../../base/struct.js'
import { iommu_cache_invalidate_info, iommu_pasid_table_config } from '../../iommu/uapi.js'
import { vfio_info_cap_header, vfioIo } from './common.js'

// ---- v7: PASID allocation (container) ----
export const VFIO_IOMMU_FLAG_ALLOC_PASID = 1 << 0
export const VFIO_IOMMU_FLAG_FREE_PASID = 1 << 1
export const VFIO_PASID_REQUEST_MASK = 3
export const vfio_pasid_range = struct('struct vfio_pasid_range', {
  min: 'u32',
  max: 'u32', // inclusive
})
export const vfio_iommu_type1_pasid_request = struct('struct vfio_iommu_type1_pasid_request', {
  argsz: 'u32',
  flags: 'u32', // ALLOC_PASID or FREE_PASID
  range: vfio_pasid_range,
})
export const VFIO_IOMMU_PASID_REQUEST = vfioIo(18)

// ---- v7 and v8: stage-1 operations (container) ----
export const VFIO_NESTING_OP_MASK = 0xffff
// biome-ignore format: table
export const
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL   = 0,   // data: iommu_gpasid_bind_data
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL = 1,   // data: iommu_gpasid_bind_data
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD  = 2 // data: iommu_cache_invalidate_info
export const vfio_iommu_type1_nesting_op = struct('struct vfio_iommu_type1_nesting_op', {
  argsz: 'u32',
  flags: 'u32', // low 16 bits: the operation
  data: flex('u8'),
})
export const VFIO_IOMMU_NESTING_OP = vfioIo(19)
export const VFIO_IOMMU_NESTING_OP_V8 = vfioIo(18)

// ---- v7 and v8: GET_INFO capability ----
export const VFIO_IOMMU_TYPE1_INFO_CAP_NESTING = 3
export const VFIO_IOMMU_TYPE1_INFO_CAP_NESTING_V8 = 4
export const vfio_iommu_type1_info_cap_nesting = struct(
  'struct vfio_iommu_type1_info_cap_nesting',
  { header: vfio_info_cap_header, info: flex('u8') }, // an iommu_nesting_info
)

// ---- N13: whole PASID table, reported invalidation, MSI binding (container) ----
export const VFIO_PASID_TABLE_FLAG_SET = 1 << 0
export const VFIO_PASID_TABLE_FLAG_UNSET = 1 << 1
export const vfio_iommu_type1_set_pasid_table = struct('struct vfio_iommu_type1_set_pasid_table', {
  argsz: 'u32',
  flags: 'u32',
  config: iommu_pasid_table_config,
})
export const VFIO_IOMMU_SET_PASID_TABLE = vfioIo(18)
export const vfio_iommu_type1_cache_invalidate = struct(
  'struct vfio_iommu_type1_cache_invalidate',
  { argsz: 'u32', flags: 'u32', info: iommu_cache_invalidate_info },
)
export const VFIO_IOMMU_CACHE_INVALIDATE = vfioIo(19)
export const VFIO_IOMMU_BIND_MSI = 1 << 0
export const VFIO_IOMMU_UNBIND_MSI = 1 << 1
export const vfio_iommu_type1_set_msi_binding = struct('struct vfio_iommu_type1_set_msi_binding', {
  argsz: 'u32',
  flags: 'u32',
  iova: 'u64',
  gpa: 'u64',
  size: 'u64',
})
export const VFIO_IOMMU_SET_MSI_BINDING = vfioIo(20)

// ---- N13: faults out and responses in, by two regions and an interrupt (device) ----
export const VFIO_REGION_TYPE_NESTED = 4
export const VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT = 1
export const VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT_RESPONSE = 2
export const VFIO_REGION_INFO_CAP_DMA_FAULT = 6
export const VFIO_REGION_INFO_CAP_DMA_FAULT_RESPONSE = 7
/** Capability of both regions: the version of the record layout. */
export const vfio_region_info_cap_fault = struct('struct vfio_region_info_cap_fault', {
  header: vfio_info_cap_header,
  version: 'u32', // 1
})
/** At the start of the DMA_FAULT region. `head` is the kernel's, `tail` the user's. */
export const vfio_region_dma_fault = struct('struct vfio_region_dma_fault', {
  tail: 'u32', // write-only; index of the next record the user will consume
  entry_size: 'u32',
  nb_entries: 'u32',
  offset: 'u32', // of the ring, from the start of the region
  head: 'u32', // read-only; index of the next record the kernel will fill
})
/** At the start of the DMA_FAULT_RESPONSE region. `head` is the user's, `tail` the kernel's. */
export const vfio_region_dma_fault_response = struct('struct vfio_region_dma_fault_response', {
  head: 'u32', // write-only; index of the next record the user will fill
  entry_size: 'u32',
  nb_entries: 'u32',
  offset: 'u32',
  tail: 'u32', // read-only; index of the next record the kernel will consume
})
export const VFIO_IRQ_INFO_FLAG_CAPS = 1 << 4
export const VFIO_IRQ_INFO_CAP_TYPE = 3
export const VFIO_IRQ_TYPE_NESTED = 1
export const VFIO_IRQ_SUBTYPE_DMA_FAULT = 1
/** `vfio_irq_info` grown by a capability chain; the first 16 bytes are the stock structure. */
export const vfio_irq_info_caps = struct('struct vfio_irq_info_caps', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  count: 'u32',
  cap_offset: 'u32',
})
export const vfio_irq_info_cap_type = struct('struct vfio_irq_info_cap_type', {
  header: vfio_info_cap_header,
  type: 'u32',
  subtype: 'u32',
})
