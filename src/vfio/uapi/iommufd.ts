// uapi linux/iommufd.h, 7.2 edition, by subject; the device cdev's calls are in vfio.ts with their header.
// Every structure begins with `size`, which its constructor fills in: what a caller does not know is read as
// zero, what the kernel does not know must be zero. Who answers: vfio/iommufd/, vfio/cdev.ts.
import { struct, union } from '../../base/struct.js'
import { VFIO_TYPE } from './common.js'

/** The ioctl type of iommufd, `';'`: VFIO's own. */
export const IOMMUFD_TYPE = VFIO_TYPE
/** First command number; below it lie VFIO's, answered by the compatibility layer. */
export const IOMMUFD_CMD_BASE = 0x80
const iommufdIo = (n: number): number => (IOMMUFD_TYPE << 8) | n

// ---- objects ----
export const iommu_destroy = struct('struct iommu_destroy', { size: 'u32', id: 'u32' })
export const IOMMU_DESTROY = iommufdIo(0x80)

// ---- address spaces ----
export const iommu_ioas_alloc = struct('struct iommu_ioas_alloc', {
  size: 'u32',
  flags: 'u32', // 0
  out_ioas_id: 'u32',
})
export const IOMMU_IOAS_ALLOC = iommufdIo(0x81)

export const iommu_iova_range = struct('struct iommu_iova_range', {
  start: 'u64',
  last: 'u64', // inclusive
})
export const iommu_ioas_iova_ranges = struct('struct iommu_ioas_iova_ranges', {
  size: 'u32',
  ioas_id: 'u32',
  num_iovas: 'u32', // in: room, out: ranges there are
  __reserved: 'u32',
  allowed_iovas: 'u64', // pointer to iommu_iova_range[]
  out_iova_alignment: 'u64', // bytes
})
export const IOMMU_IOAS_IOVA_RANGES = iommufdIo(0x84)

export const iommu_ioas_allow_iovas = struct('struct iommu_ioas_allow_iovas', {
  size: 'u32',
  ioas_id: 'u32',
  num_iovas: 'u32', // 0: everything is allowed again
  __reserved: 'u32',
  allowed_iovas: 'u64', // pointer to iommu_iova_range[]
})
export const IOMMU_IOAS_ALLOW_IOVAS = iommufdIo(0x82)

// biome-ignore format: table
export const
  IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0,   // at `iova`; otherwise the kernel chooses
  IOMMU_IOAS_MAP_WRITEABLE  = 1 << 1,
  IOMMU_IOAS_MAP_READABLE   = 1 << 2
export const iommu_ioas_map = struct('struct iommu_ioas_map', {
  size: 'u32',
  flags: 'u32',
  ioas_id: 'u32',
  __reserved: 'u32',
  user_va: 'u64',
  length: 'u64',
  iova: 'u64', // in with FIXED_IOVA, out
})
export const IOMMU_IOAS_MAP = iommufdIo(0x85)

export const iommu_ioas_map_file = struct('struct iommu_ioas_map_file', {
  size: 'u32',
  flags: 'u32', // of IOAS_MAP
  ioas_id: 'u32',
  fd: 's32',
  start: 'u64', // in the file, bytes
  length: 'u64',
  iova: 'u64',
})
export const IOMMU_IOAS_MAP_FILE = iommufdIo(0x8f)

export const iommu_ioas_copy = struct('struct iommu_ioas_copy', {
  size: 'u32',
  flags: 'u32', // of IOAS_MAP
  dst_ioas_id: 'u32',
  src_ioas_id: 'u32',
  length: 'u64',
  dst_iova: 'u64',
  src_iova: 'u64',
})
export const IOMMU_IOAS_COPY = iommufdIo(0x83)

export const iommu_ioas_unmap = struct('struct iommu_ioas_unmap', {
  size: 'u32',
  ioas_id: 'u32',
  iova: 'u64',
  length: 'u64', // in: asked for, out: removed; (0, 2^64-1) is everything
})
export const IOMMU_IOAS_UNMAP = iommufdIo(0x86)

// biome-ignore format: table
export const
  IOMMU_OPTION_RLIMIT_MODE = 0,   // 0 pages count for the user, 1 for the process
  IOMMU_OPTION_HUGE_PAGES  = 1,   // of an IOAS: 1 large IOMMU pages may be used
  IOMMU_OPTION_OP_SET      = 0,
  IOMMU_OPTION_OP_GET      = 1
export const iommu_option = struct('struct iommu_option', {
  size: 'u32',
  option_id: 'u32',
  op: 'u16',
  __reserved: 'u16',
  object_id: 'u32',
  val64: 'u64',
})
export const IOMMU_OPTION = iommufdIo(0x87)

// biome-ignore format: table
export const
  IOMMU_VFIO_IOAS_GET   = 0,
  IOMMU_VFIO_IOAS_SET   = 1,
  IOMMU_VFIO_IOAS_CLEAR = 2
export const iommu_vfio_ioas = struct('struct iommu_vfio_ioas', {
  size: 'u32',
  ioas_id: 'u32',
  op: 'u16',
  __reserved: 'u16',
})
export const IOMMU_VFIO_IOAS = iommufdIo(0x88)

// ---- hardware page tables ----
// biome-ignore format: table
export const
  IOMMU_HWPT_ALLOC_NEST_PARENT    = 1 << 0,   // nested tables may be put over it
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1,
  IOMMU_HWPT_FAULT_ID_VALID       = 1 << 2,   // page requests go to fault_id
  IOMMU_HWPT_ALLOC_PASID          = 1 << 3 // may be attached beside or under a PASID
// biome-ignore format: table
export const
  IOMMU_VTD_S1_SRE  = 1 << 0,   // supervisor requests
  IOMMU_VTD_S1_EAFE = 1 << 1,   // extended access flag
  IOMMU_VTD_S1_WPE  = 1 << 2 // supervisor writes obey R/W
export const iommu_hwpt_vtd_s1 = struct('struct iommu_hwpt_vtd_s1', {
  flags: 'u64',
  pgtbl_addr: 'u64', // first-stage root, an address of the parent's input
  addr_width: 'u32', // 48 or 57
  __reserved: 'u32',
})
export const iommu_hwpt_arm_smmuv3 = struct('struct iommu_hwpt_arm_smmuv3', { ste: ['u64', 2] })
export const iommu_hwpt_amd_guest = struct('struct iommu_hwpt_amd_guest', { dte: ['u64', 4] })
// biome-ignore format: table
export const
  IOMMU_HWPT_DATA_NONE       = 0,
  IOMMU_HWPT_DATA_VTD_S1     = 1,
  IOMMU_HWPT_DATA_ARM_SMMUV3 = 2,
  IOMMU_HWPT_DATA_AMD_GUEST  = 3
export const iommu_hwpt_alloc = struct('struct iommu_hwpt_alloc', {
  size: 'u32',
  flags: 'u32',
  dev_id: 'u32',
  pt_id: 'u32', // an IOAS, a HWPT with NEST_PARENT, or a vIOMMU
  out_hwpt_id: 'u32',
  __reserved: 'u32',
  data_type: 'u32',
  data_len: 'u32',
  data_uptr: 'u64',
  fault_id: 'u32',
  __reserved2: 'u32',
})
export const IOMMU_HWPT_ALLOC = iommufdIo(0x89)

export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0
export const iommu_hw_info_vtd = struct('struct iommu_hw_info_vtd', {
  flags: 'u32',
  __reserved: 'u32',
  cap_reg: 'u64',
  ecap_reg: 'u64',
})
export const iommu_hw_info_arm_smmuv3 = struct('struct iommu_hw_info_arm_smmuv3', {
  flags: 'u32',
  __reserved: 'u32',
  idr: ['u32', 6],
  iidr: 'u32',
  aidr: 'u32',
})
export const iommu_hw_info_tegra241_cmdqv = struct('struct iommu_hw_info_tegra241_cmdqv', {
  flags: 'u32',
  version: 'u8',
  log2vcmdqs: 'u8',
  log2vsids: 'u8',
  __reserved: 'u8',
})
export const iommu_hw_info_amd = struct('struct iommu_hw_info_amd', { efr: 'u64', efr2: 'u64' })
// biome-ignore format: table
export const
  IOMMU_HW_INFO_TYPE_NONE           = 0,
  IOMMU_HW_INFO_TYPE_DEFAULT        = 0,
  IOMMU_HW_INFO_TYPE_INTEL_VTD      = 1,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3     = 2,
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3,
  IOMMU_HW_INFO_TYPE_AMD            = 4
// biome-ignore format: table
export const
  IOMMU_HW_CAP_DIRTY_TRACKING        = 1 << 0,
  IOMMU_HW_CAP_PCI_PASID_EXEC        = 1 << 1,
  IOMMU_HW_CAP_PCI_PASID_PRIV        = 1 << 2,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1 << 3
export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0
export const iommu_hw_info = struct('struct iommu_hw_info', {
  size: 'u32',
  flags: 'u32',
  dev_id: 'u32',
  data_len: 'u32', // in: room, out: bytes there are
  data_uptr: 'u64',
  data_type: union('data type of struct iommu_hw_info', {
    in_data_type: 'u32', // with INPUT_TYPE
    out_data_type: 'u32',
  }),
  out_max_pasid_log2: 'u8', // 0: no PASID
  __reserved: ['u8', 3],
  out_capabilities: 'u64',
})
export const IOMMU_GET_HW_INFO = iommufdIo(0x8a)

export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1
export const iommu_hwpt_set_dirty_tracking = struct('struct iommu_hwpt_set_dirty_tracking', {
  size: 'u32',
  flags: 'u32',
  hwpt_id: 'u32',
  __reserved: 'u32',
})
export const IOMMU_HWPT_SET_DIRTY_TRACKING = iommufdIo(0x8b)

export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1
export const iommu_hwpt_get_dirty_bitmap = struct('struct iommu_hwpt_get_dirty_bitmap', {
  size: 'u32',
  hwpt_id: 'u32',
  flags: 'u32',
  __reserved: 'u32',
  iova: 'u64',
  length: 'u64',
  page_size: 'u64', // bytes a bit stands for
  data: 'u64', // pointer; bit k stands for iova + k * page_size
})
export const IOMMU_HWPT_GET_DIRTY_BITMAP = iommufdIo(0x8c)

// biome-ignore format: table
export const
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1         = 0,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3   = 1
export const IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0
export const iommu_hwpt_vtd_s1_invalidate = struct('struct iommu_hwpt_vtd_s1_invalidate', {
  addr: 'u64', // 4 KiB aligned
  npages: 'u64', // 2^64-1 with addr 0: everything
  flags: 'u32',
  __reserved: 'u32',
})
export const iommu_viommu_arm_smmuv3_invalidate = struct(
  'struct iommu_viommu_arm_smmuv3_invalidate',
  { cmd: ['u64', 2] },
)
export const iommu_hwpt_invalidate = struct('struct iommu_hwpt_invalidate', {
  size: 'u32',
  hwpt_id: 'u32', // a nested HWPT or a vIOMMU
  data_uptr: 'u64',
  data_type: 'u32',
  entry_len: 'u32',
  entry_num: 'u32', // in: entries, out: handled
  __reserved: 'u32',
})
export const IOMMU_HWPT_INVALIDATE = iommufdIo(0x8d)

// ---- page requests ----
// biome-ignore format: table
export const
  IOMMU_PGFAULT_FLAGS_PASID_VALID = 1 << 0,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE   = 1 << 1,
  IOMMU_PGFAULT_PERM_READ         = 1 << 0,
  IOMMU_PGFAULT_PERM_WRITE        = 1 << 1,
  IOMMU_PGFAULT_PERM_EXEC         = 1 << 2,
  IOMMU_PGFAULT_PERM_PRIV         = 1 << 3
export const iommu_hwpt_pgfault = struct('struct iommu_hwpt_pgfault', {
  flags: 'u32',
  dev_id: 'u32',
  pasid: 'u32',
  grpid: 'u32',
  perm: 'u32',
  __reserved: 'u32',
  addr: 'u64',
  length: 'u32', // 0: one page
  cookie: 'u32', // of the group, for the response
})
export const IOMMUFD_PAGE_RESP_SUCCESS = 0
export const IOMMUFD_PAGE_RESP_INVALID = 1
export const iommu_hwpt_page_response = struct('struct iommu_hwpt_page_response', {
  cookie: 'u32',
  code: 'u32',
})
export const iommu_fault_alloc = struct('struct iommu_fault_alloc', {
  size: 'u32',
  flags: 'u32', // 0
  out_fault_id: 'u32',
  out_fault_fd: 'u32',
})
export const IOMMU_FAULT_QUEUE_ALLOC = iommufdIo(0x8e)

// ---- virtual IOMMUs ----
// biome-ignore format: table
export const
  IOMMU_VIOMMU_TYPE_DEFAULT        = 0,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3     = 1,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2
export const iommu_viommu_tegra241_cmdqv = struct('struct iommu_viommu_tegra241_cmdqv', {
  out_vintf_mmap_offset: 'u64',
  out_vintf_mmap_length: 'u64',
})
export const iommu_viommu_alloc = struct('struct iommu_viommu_alloc', {
  size: 'u32',
  flags: 'u32', // 0
  type: 'u32',
  dev_id: 'u32',
  hwpt_id: 'u32', // with NEST_PARENT
  out_viommu_id: 'u32',
  data_len: 'u32',
  __reserved: 'u32',
  data_uptr: 'u64',
})
export const IOMMU_VIOMMU_ALLOC = iommufdIo(0x90)

export const iommu_vdevice_alloc = struct('struct iommu_vdevice_alloc', {
  size: 'u32',
  viommu_id: 'u32',
  dev_id: 'u32',
  out_vdevice_id: 'u32',
  virt_id: 'u64',
})
export const IOMMU_VDEVICE_ALLOC = iommufdIo(0x91)

export const iommu_ioas_change_process = struct('struct iommu_ioas_change_process', {
  size: 'u32',
  __reserved: 'u32',
})
export const IOMMU_IOAS_CHANGE_PROCESS = iommufdIo(0x92)

export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1 << 0
export const iommufd_vevent_header = struct('struct iommufd_vevent_header', {
  flags: 'u32',
  sequence: 'u32',
})
// biome-ignore format: table
export const
  IOMMU_VEVENTQ_TYPE_DEFAULT        = 0,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3     = 1,
  IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2
export const iommu_vevent_arm_smmuv3 = struct('struct iommu_vevent_arm_smmuv3', {
  evt: ['u64', 4],
})
export const iommu_vevent_tegra241_cmdqv = struct('struct iommu_vevent_tegra241_cmdqv', {
  lvcmdq_err_map: ['u64', 2],
})
export const iommu_veventq_alloc = struct('struct iommu_veventq_alloc', {
  size: 'u32',
  flags: 'u32', // 0
  viommu_id: 'u32',
  type: 'u32',
  veventq_depth: 'u32', // events, 1 to 2^19
  out_veventq_id: 'u32',
  out_veventq_fd: 'u32',
  __reserved: 'u32',
})
export const IOMMU_VEVENTQ_ALLOC = iommufdIo(0x93)

export const IOMMU_HW_QUEUE_TYPE_DEFAULT = 0
export const IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1
export const iommu_hw_queue_alloc = struct('struct iommu_hw_queue_alloc', {
  size: 'u32',
  flags: 'u32', // 0
  viommu_id: 'u32',
  type: 'u32',
  index: 'u32',
  out_hw_queue_id: 'u32',
  nesting_parent_iova: 'u64',
  length: 'u64',
})
export const IOMMU_HW_QUEUE_ALLOC = iommufdIo(0x94)
