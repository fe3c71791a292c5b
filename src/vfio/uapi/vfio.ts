// uapi linux/vfio.h in header order: numbers, flags and structures, of the 7.2 edition with what earlier
// editions named and later ones withdrew. sPAPR, zPCI, EEH, CCW and GFX parts are left out: no such
// hardware is modelled. The virtual SVA additions are in vsva.ts, re-exported at the end.
import { flex, struct } from '../../base/struct.js'
import { vfio_info_cap_header, vfioIo } from './common.js'

export { VFIO_BASE, VFIO_TYPE, vfio_info_cap_header } from './common.js'

export const VFIO_API_VERSION = 0

// ---- extension ids: CHECK_EXTENSION and SET_IOMMU take one by value ----
// biome-ignore format: table
export const
  VFIO_TYPE1_IOMMU         = 1,
  VFIO_SPAPR_TCE_IOMMU     = 2,
  VFIO_TYPE1v2_IOMMU       = 3,
  VFIO_DMA_CC_IOMMU        = 4,   // asks whether every domain is cache coherent
  VFIO_EEH                 = 5,
  VFIO_TYPE1_NESTING_IOMMU = 6,   // implies v2; the name is reserved again since 6.8
  VFIO_SPAPR_TCE_v2_IOMMU  = 7,
  VFIO_NOIOMMU_IOMMU       = 8,
  VFIO_UNMAP_ALL           = 9,   // 5.12
  VFIO_UPDATE_VADDR        = 10 // 5.12

// ---- container: any time ----
export const VFIO_GET_API_VERSION = vfioIo(0)
export const VFIO_CHECK_EXTENSION = vfioIo(1)
export const VFIO_SET_IOMMU = vfioIo(2)

// ---- group ----
export const VFIO_GROUP_GET_STATUS = vfioIo(3)
export const VFIO_GROUP_SET_CONTAINER = vfioIo(4) // pointer to s32: container fd
export const VFIO_GROUP_UNSET_CONTAINER = vfioIo(5)
export const VFIO_GROUP_GET_DEVICE_FD = vfioIo(6) // pointer to string: 0000:bb:dd.f

export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1
export const vfio_group_status = struct('struct vfio_group_status', { argsz: 'u32', flags: 'u32' })

// ---- device ----
export const VFIO_DEVICE_GET_INFO = vfioIo(7)
export const VFIO_DEVICE_GET_REGION_INFO = vfioIo(8)
export const VFIO_DEVICE_GET_IRQ_INFO = vfioIo(9)
export const VFIO_DEVICE_SET_IRQS = vfioIo(10)
export const VFIO_DEVICE_RESET = vfioIo(11)

// biome-ignore format: table
export const
  VFIO_DEVICE_FLAGS_RESET    = 1 << 0,   // the RESET ioctl works
  VFIO_DEVICE_FLAGS_PCI      = 1 << 1,
  VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2,
  VFIO_DEVICE_FLAGS_AMBA     = 1 << 3,
  VFIO_DEVICE_FLAGS_CCW      = 1 << 4,
  VFIO_DEVICE_FLAGS_AP       = 1 << 5,
  VFIO_DEVICE_FLAGS_FSL_MC   = 1 << 6,
  VFIO_DEVICE_FLAGS_CAPS     = 1 << 7,   // cap_offset is meaningful
  VFIO_DEVICE_FLAGS_CDX      = 1 << 8
export const vfio_device_info = struct('struct vfio_device_info', {
  argsz: 'u32',
  flags: 'u32',
  num_regions: 'u32', // highest region index + 1
  num_irqs: 'u32', // highest irq index + 1
  cap_offset: 'u32', // 5.10
  pad: 'u32', // named since 6.6; implied in no earlier edition, which ended at 20 bytes
})
export const VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5
// biome-ignore format: table
export const
  VFIO_PCI_ATOMIC_COMP32  = 1 << 0,
  VFIO_PCI_ATOMIC_COMP64  = 1 << 1,
  VFIO_PCI_ATOMIC_COMP128 = 1 << 2
export const vfio_device_info_cap_pci_atomic_comp = struct(
  'struct vfio_device_info_cap_pci_atomic_comp',
  { header: vfio_info_cap_header, flags: 'u32', reserved: 'u32' },
)

// biome-ignore format: table
export const
  VFIO_REGION_INFO_FLAG_READ  = 1 << 0,
  VFIO_REGION_INFO_FLAG_WRITE = 1 << 1,
  VFIO_REGION_INFO_FLAG_MMAP  = 1 << 2,
  VFIO_REGION_INFO_FLAG_CAPS  = 1 << 3
export const vfio_region_info = struct('struct vfio_region_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32', // in
  cap_offset: 'u32',
  size: 'u64', // bytes; 0 when the region is not implemented
  offset: 'u64', // where the region starts in the device fd
})
// biome-ignore format: table
export const
  VFIO_REGION_INFO_CAP_SPARSE_MMAP  = 1,
  VFIO_REGION_INFO_CAP_TYPE         = 2,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3 // header only: the region holds the MSI-X table and may be mapped whole
export const vfio_region_sparse_mmap_area = struct('struct vfio_region_sparse_mmap_area', {
  offset: 'u64', // from the start of the region
  size: 'u64',
})
export const vfio_region_info_cap_sparse_mmap = struct('struct vfio_region_info_cap_sparse_mmap', {
  header: vfio_info_cap_header,
  nr_areas: 'u32',
  reserved: 'u32',
  areas: flex(vfio_region_sparse_mmap_area),
})
export const vfio_region_info_cap_type = struct('struct vfio_region_info_cap_type', {
  header: vfio_info_cap_header,
  type: 'u32',
  subtype: 'u32',
})
export const VFIO_REGION_TYPE_PCI_VENDOR_TYPE = 0x8000_0000
export const VFIO_REGION_TYPE_PCI_VENDOR_MASK = 0xffff
// biome-ignore format: table
export const
  VFIO_REGION_TYPE_GFX                  = 1,
  VFIO_REGION_TYPE_CCW                  = 2,
  VFIO_REGION_TYPE_MIGRATION_DEPRECATED = 3

// biome-ignore format: table
export const
  VFIO_IRQ_INFO_EVENTFD    = 1 << 0,
  VFIO_IRQ_INFO_MASKABLE   = 1 << 1,
  VFIO_IRQ_INFO_AUTOMASKED = 1 << 2,
  VFIO_IRQ_INFO_NORESIZE   = 1 << 3 // changing the number of vectors means disabling the index first
export const vfio_irq_info = struct('struct vfio_irq_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32', // in
  count: 'u32',
})

// biome-ignore format: table
export const
  VFIO_IRQ_SET_DATA_NONE      = 1 << 0,
  VFIO_IRQ_SET_DATA_BOOL      = 1 << 1,   // u8 each
  VFIO_IRQ_SET_DATA_EVENTFD   = 1 << 2,   // s32 each
  VFIO_IRQ_SET_ACTION_MASK    = 1 << 3,
  VFIO_IRQ_SET_ACTION_UNMASK  = 1 << 4,
  VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5,
  VFIO_IRQ_SET_DATA_TYPE_MASK   = 0x07,
  VFIO_IRQ_SET_ACTION_TYPE_MASK = 0x38
export const vfio_irq_set = struct('struct vfio_irq_set', {
  argsz: 'u32',
  flags: 'u32', // one DATA and one ACTION bit
  index: 'u32',
  start: 'u32',
  count: 'u32',
  data: flex('u8'),
})

// biome-ignore format: table
export const
  VFIO_PCI_BAR0_REGION_INDEX   = 0,
  VFIO_PCI_BAR1_REGION_INDEX   = 1,
  VFIO_PCI_BAR2_REGION_INDEX   = 2,
  VFIO_PCI_BAR3_REGION_INDEX   = 3,
  VFIO_PCI_BAR4_REGION_INDEX   = 4,
  VFIO_PCI_BAR5_REGION_INDEX   = 5,
  VFIO_PCI_ROM_REGION_INDEX    = 6,
  VFIO_PCI_CONFIG_REGION_INDEX = 7,
  VFIO_PCI_VGA_REGION_INDEX    = 8,
  VFIO_PCI_NUM_REGIONS         = 9 // device-specific regions follow
// biome-ignore format: table
export const
  VFIO_PCI_INTX_IRQ_INDEX = 0,
  VFIO_PCI_MSI_IRQ_INDEX  = 1,
  VFIO_PCI_MSIX_IRQ_INDEX = 2,
  VFIO_PCI_ERR_IRQ_INDEX  = 3,
  VFIO_PCI_REQ_IRQ_INDEX  = 4,
  VFIO_PCI_NUM_IRQS       = 5

export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1 << 0
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 1 << 1
export const VFIO_PCI_DEVID_OWNED = 0 // no device of the caller's, but of a group he owns
export const VFIO_PCI_DEVID_NOT_OWNED = -1
export const vfio_pci_dependent_device = struct('struct vfio_pci_dependent_device', {
  group_id: 'u32', // or the iommufd device id, by flag
  segment: 'u16',
  bus: 'u8',
  devfn: 'u8',
})
export const vfio_pci_hot_reset_info = struct('struct vfio_pci_hot_reset_info', {
  argsz: 'u32',
  flags: 'u32',
  count: 'u32',
  devices: flex(vfio_pci_dependent_device),
})
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = vfioIo(12)
export const vfio_pci_hot_reset = struct('struct vfio_pci_hot_reset', {
  argsz: 'u32',
  flags: 'u32',
  count: 'u32',
  group_fds: flex('s32'),
})
export const VFIO_DEVICE_PCI_HOT_RESET = vfioIo(13)
export const VFIO_DEVICE_QUERY_GFX_PLANE = vfioIo(14)
export const VFIO_DEVICE_GET_GFX_DMABUF = vfioIo(15)

// biome-ignore format: table
export const
  VFIO_DEVICE_IOEVENTFD_8  = 1 << 0,
  VFIO_DEVICE_IOEVENTFD_16 = 1 << 1,
  VFIO_DEVICE_IOEVENTFD_32 = 1 << 2,
  VFIO_DEVICE_IOEVENTFD_64 = 1 << 3,
  VFIO_DEVICE_IOEVENTFD_SIZE_MASK = 0xf
export const vfio_device_ioeventfd = struct('struct vfio_device_ioeventfd', {
  argsz: 'u32',
  flags: 'u32',
  offset: 'u64', // device fd offset of the write
  data: 'u64',
  fd: 's32', // -1 removes
  reserved: 'u32', // named since 6.6
})
export const VFIO_DEVICE_IOEVENTFD = vfioIo(16)

// biome-ignore format: table
export const
  VFIO_DEVICE_FEATURE_MASK  = 0xffff,
  VFIO_DEVICE_FEATURE_GET   = 1 << 16,
  VFIO_DEVICE_FEATURE_SET   = 1 << 17,
  VFIO_DEVICE_FEATURE_PROBE = 1 << 18
export const vfio_device_feature = struct('struct vfio_device_feature', {
  argsz: 'u32',
  flags: 'u32',
  data: flex('u8'),
})
export const VFIO_DEVICE_FEATURE = vfioIo(17)

// ---- device cdev (iommufd) ----
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0
export const vfio_device_bind_iommufd = struct('struct vfio_device_bind_iommufd', {
  argsz: 'u32',
  flags: 'u32',
  iommufd: 's32',
  out_devid: 'u32',
  token_uuid_ptr: 'u64',
})
export const VFIO_DEVICE_BIND_IOMMUFD = vfioIo(18)
export const VFIO_DEVICE_ATTACH_PASID = 1 << 0
export const vfio_device_attach_iommufd_pt = struct('struct vfio_device_attach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
  pt_id: 'u32',
  pasid: 'u32',
})
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = vfioIo(19)
export const VFIO_DEVICE_DETACH_PASID = 1 << 0
export const vfio_device_detach_iommufd_pt = struct('struct vfio_device_detach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
  pasid: 'u32',
})
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = vfioIo(20)

// ---- device features ----
// biome-ignore format: table
export const
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN                = 0,
  VFIO_DEVICE_FEATURE_MIGRATION                   = 1,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE            = 2,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY             = 3,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT              = 5,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START           = 6,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP            = 7,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT          = 8,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE               = 9,
  VFIO_DEVICE_FEATURE_BUS_MASTER                  = 10,
  VFIO_DEVICE_FEATURE_DMA_BUF                     = 11,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2          = 12
// biome-ignore format: table
export const
  VFIO_MIGRATION_STOP_COPY = 1 << 0,
  VFIO_MIGRATION_P2P       = 1 << 1,
  VFIO_MIGRATION_PRE_COPY  = 1 << 2
export const vfio_device_feature_migration = struct('struct vfio_device_feature_migration', {
  flags: 'u64',
})
export const vfio_device_feature_mig_state = struct('struct vfio_device_feature_mig_state', {
  device_state: 'u32',
  data_fd: 's32',
})
// biome-ignore format: table
export const
  VFIO_DEVICE_STATE_ERROR        = 0,
  VFIO_DEVICE_STATE_STOP         = 1,
  VFIO_DEVICE_STATE_RUNNING      = 2,
  VFIO_DEVICE_STATE_STOP_COPY    = 3,
  VFIO_DEVICE_STATE_RESUMING     = 4,
  VFIO_DEVICE_STATE_RUNNING_P2P  = 5,
  VFIO_DEVICE_STATE_PRE_COPY     = 6,
  VFIO_DEVICE_STATE_PRE_COPY_P2P = 7
export const VFIO_PRECOPY_INFO_REINIT = 1 << 0
export const vfio_precopy_info = struct('struct vfio_precopy_info', {
  argsz: 'u32',
  flags: 'u32',
  initial_bytes: 'u64',
  dirty_bytes: 'u64',
})
export const VFIO_MIG_GET_PRECOPY_INFO = vfioIo(21)
export const vfio_device_low_power_entry_with_wakeup = struct(
  'struct vfio_device_low_power_entry_with_wakeup',
  { wakeup_eventfd: 's32', reserved: 'u32' },
)
export const vfio_device_feature_dma_logging_control = struct(
  'struct vfio_device_feature_dma_logging_control',
  { page_size: 'u64', num_ranges: 'u32', __reserved: 'u32', ranges: 'u64' },
)
export const vfio_device_feature_dma_logging_range = struct(
  'struct vfio_device_feature_dma_logging_range',
  { iova: 'u64', length: 'u64' },
)
export const vfio_device_feature_dma_logging_report = struct(
  'struct vfio_device_feature_dma_logging_report',
  { iova: 'u64', length: 'u64', page_size: 'u64', bitmap: 'u64' },
)
export const vfio_device_feature_mig_data_size = struct(
  'struct vfio_device_feature_mig_data_size',
  { stop_copy_length: 'u64' },
)
export const VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0
export const VFIO_DEVICE_FEATURE_SET_MASTER = 1
export const vfio_device_feature_bus_master = struct('struct vfio_device_feature_bus_master', {
  op: 'u32',
})

// ---- container with a type1 IOMMU ----
export const VFIO_IOMMU_INFO_PGSIZES = 1 << 0
export const VFIO_IOMMU_INFO_CAPS = 1 << 1
export const vfio_iommu_type1_info = struct('struct vfio_iommu_type1_info', {
  argsz: 'u32',
  flags: 'u32',
  iova_pgsizes: 'u64', // bitmap of page sizes
  cap_offset: 'u32',
  pad: 'u32', // named since 6.6
})
export const VFIO_IOMMU_GET_INFO = vfioIo(12)

export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1
export const vfio_iova_range = struct('struct vfio_iova_range', {
  start: 'u64',
  end: 'u64', // inclusive
})
export const vfio_iommu_type1_info_cap_iova_range = struct(
  'struct vfio_iommu_type1_info_cap_iova_range',
  {
    header: vfio_info_cap_header,
    nr_iovas: 'u32',
    reserved: 'u32',
    iova_ranges: flex(vfio_iova_range),
  },
)
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2
export const vfio_iommu_type1_info_cap_migration = struct(
  'struct vfio_iommu_type1_info_cap_migration',
  {
    header: vfio_info_cap_header,
    flags: 'u32',
    pgsize_bitmap: 'u64', // smallest page size only
    max_dirty_bitmap_size: 'u64', // bytes
  },
)
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3
export const vfio_iommu_type1_info_dma_avail = struct('struct vfio_iommu_type1_info_dma_avail', {
  header: vfio_info_cap_header,
  avail: 'u32', // mappings still allowed
})

// biome-ignore format: table
export const
  VFIO_DMA_MAP_FLAG_READ  = 1 << 0,   // the device may read
  VFIO_DMA_MAP_FLAG_WRITE = 1 << 1,   // the device may write
  VFIO_DMA_MAP_FLAG_VADDR = 1 << 2 // 5.12: give an existing mapping a new vaddr
export const vfio_iommu_type1_dma_map = struct('struct vfio_iommu_type1_dma_map', {
  argsz: 'u32',
  flags: 'u32',
  vaddr: 'u64', // process virtual address
  iova: 'u64',
  size: 'u64', // bytes; iova, vaddr and size are page multiples
})
export const VFIO_IOMMU_MAP_DMA = vfioIo(13)

export const vfio_bitmap = struct('struct vfio_bitmap', {
  pgsize: 'u64',
  size: 'u64', // of the bitmap, bytes
  data: 'u64', // pointer; bit k stands for iova + k * pgsize
})
// biome-ignore format: table
export const
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1 << 0,
  VFIO_DMA_UNMAP_FLAG_ALL              = 1 << 1,   // 5.12
  VFIO_DMA_UNMAP_FLAG_VADDR            = 1 << 2 // 5.12
export const vfio_iommu_type1_dma_unmap = struct('struct vfio_iommu_type1_dma_unmap', {
  argsz: 'u32',
  flags: 'u32',
  iova: 'u64',
  size: 'u64', // in: asked for, out: removed
  data: flex('u8'), // a vfio_bitmap with GET_DIRTY_BITMAP
})
export const VFIO_IOMMU_UNMAP_DMA = vfioIo(14)

export const VFIO_IOMMU_ENABLE = vfioIo(15)
export const VFIO_IOMMU_DISABLE = vfioIo(16)

// biome-ignore format: table
export const
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START      = 1 << 0,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP       = 1 << 1,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 1 << 2
export const vfio_iommu_type1_dirty_bitmap = struct('struct vfio_iommu_type1_dirty_bitmap', {
  argsz: 'u32',
  flags: 'u32',
  data: flex('u8'), // a vfio_iommu_type1_dirty_bitmap_get with GET_BITMAP
})
export const vfio_iommu_type1_dirty_bitmap_get = struct(
  'struct vfio_iommu_type1_dirty_bitmap_get',
  { iova: 'u64', size: 'u64', bitmap: vfio_bitmap },
)
export const VFIO_IOMMU_DIRTY_PAGES = vfioIo(17)

export * from './vsva.js'
