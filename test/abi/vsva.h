/* The out-of-tree structures as field lists of our own, for the C compiler to lay out.
 * Field order and widths: vSVA v7 and v8, SMMUv3 nested stage v13, IOMMU user API v12. */
#include <linux/types.h>
#include <linux/vfio.h>

struct vfio_pasid_range { __u32 min, max; };
struct vfio_iommu_type1_pasid_request { __u32 argsz, flags; struct vfio_pasid_range range; };
struct vfio_iommu_type1_nesting_op { __u32 argsz, flags; __u8 data[]; };
struct vfio_iommu_type1_info_cap_nesting { struct vfio_info_cap_header header; __u8 info[]; };

struct iommu_nesting_info_vtd { __u32 flags, padding; __u64 cap_reg, ecap_reg; };
struct iommu_nesting_info_vtd_v8 { __u32 flags; __u8 padding[12]; __u64 cap_reg, ecap_reg; };
struct iommu_nesting_info {
  __u32 argsz, flags, format, features;
  __u16 addr_width, pasid_bits;
  __u8 padding[12];
  union { struct iommu_nesting_info_vtd vtd; } vendor;
};
struct iommu_nesting_info_v8 {
  __u32 argsz, flags, format, features;
  __u16 addr_width, pasid_bits;
  __u8 padding[12];
  union { struct iommu_nesting_info_vtd_v8 vtd; } vendor;
};
struct iommu_gpasid_bind_data_vtd { __u64 flags; __u32 pat, emt; };
struct iommu_gpasid_bind_data {
  __u32 argsz, version, format, addr_width;
  __u64 flags, gpgd, hpasid, gpasid;
  __u8 padding[8];
  union { struct iommu_gpasid_bind_data_vtd vtd; } vendor;
};
struct iommu_inv_addr_info { __u32 flags, archid; __u64 pasid, addr, granule_size, nb_granules; };
struct iommu_inv_pasid_info { __u32 flags, archid; __u64 pasid; };
struct iommu_cache_invalidate_info {
  __u32 argsz, version;
  __u8 cache, granularity, padding[6];
  union { struct iommu_inv_pasid_info pasid_info; struct iommu_inv_addr_info addr_info; } granu;
};

struct iommu_pasid_smmuv3 { __u32 version; __u8 s1fmt, s1dss, padding[2]; };
struct iommu_pasid_table_config {
  __u32 argsz, version;
  __u64 base_ptr;
  __u32 format;
  __u8 pasid_bits, config, padding[2];
  union { struct iommu_pasid_smmuv3 smmuv3; };
};
struct vfio_iommu_type1_set_pasid_table {
  __u32 argsz, flags;
  struct iommu_pasid_table_config config;
};
struct vfio_iommu_type1_cache_invalidate {
  __u32 argsz, flags;
  struct iommu_cache_invalidate_info info;
};
struct vfio_iommu_type1_set_msi_binding { __u32 argsz, flags; __u64 iova, gpa, size; };
struct vfio_region_info_cap_fault { struct vfio_info_cap_header header; __u32 version; };
struct vfio_region_dma_fault { __u32 tail, entry_size, nb_entries, offset, head; };
struct vfio_region_dma_fault_response { __u32 head, entry_size, nb_entries, offset, tail; };
struct vfio_irq_info_caps { __u32 argsz, flags, index, count, cap_offset; };
struct vfio_irq_info_cap_type { struct vfio_info_cap_header header; __u32 type, subtype; };

struct ioasid_info { __u32 argsz, flags, ioasid_bits; };
struct ioasid_request_range { __u32 min, max; };
struct ioasid_request { __u32 argsz, flags; struct ioasid_request_range range; };
