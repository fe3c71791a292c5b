/**
 * Structures of the out-of-tree `linux/iommu.h` that virtual SVA passes through VFIO: faults, page
 * responses, nesting information, guest PASID bind, PASID tables and cache invalidation, and the generic
 * layer's checks of those that user space fills. What a driver checks on top is in vtd/driver-bind.ts and
 * smmu/driver-nesting.ts. Editions: nested SVA series v7 on "IOMMU user API enhancement" with argsz; PASID
 * tables: "SMMUv3 Nested Stage Setup" v13.
 */
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { struct, union } from '../base/struct.js'
import type { UserMemory } from '../mem/user-memory.js'

// ---- faults and page requests ----

// biome-ignore format: table
export const
  IOMMU_FAULT_DMA_UNRECOV = 1,   // the request was refused
  IOMMU_FAULT_PAGE_REQ    = 2 // a page request that may be answered

// biome-ignore format: table
export const
  IOMMU_FAULT_PERM_READ  = 1 << 0,
  IOMMU_FAULT_PERM_WRITE = 1 << 1,
  IOMMU_FAULT_PERM_EXEC  = 1 << 2,
  IOMMU_FAULT_PERM_PRIV  = 1 << 3

// biome-ignore format: table
export const
  IOMMU_FAULT_REASON_UNKNOWN         = 0,
  IOMMU_FAULT_REASON_PASID_FETCH     = 1,   // the PASID entry could not be read
  IOMMU_FAULT_REASON_BAD_PASID_ENTRY = 2,
  IOMMU_FAULT_REASON_PASID_INVALID   = 3,   // outside the table
  IOMMU_FAULT_REASON_WALK_EABT       = 4,   // a paging entry could not be read
  IOMMU_FAULT_REASON_PTE_FETCH       = 5,   // no mapping
  IOMMU_FAULT_REASON_PERMISSION      = 6,
  IOMMU_FAULT_REASON_ACCESS          = 7,
  IOMMU_FAULT_REASON_OOR_ADDRESS     = 8 // wider than the tables

// biome-ignore format: table
export const
  IOMMU_FAULT_UNRECOV_PASID_VALID      = 1 << 0,
  IOMMU_FAULT_UNRECOV_ADDR_VALID       = 1 << 1,
  IOMMU_FAULT_UNRECOV_FETCH_ADDR_VALID = 1 << 2
export const iommu_fault_unrecoverable = struct('struct iommu_fault_unrecoverable', {
  reason: 'u32',
  flags: 'u32',
  pasid: 'u32',
  perm: 'u32', // of the request
  addr: 'u64',
  fetch_addr: 'u64', // of the structure that could not be read
})

// biome-ignore format: table
export const
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID          = 1 << 0,
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE            = 1 << 1,   // of its group: the one that is answered
  IOMMU_FAULT_PAGE_REQUEST_PRIV_DATA            = 1 << 2,
  IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID         = 1 << 3
export const iommu_fault_page_request = struct('struct iommu_fault_page_request', {
  flags: 'u32',
  pasid: 'u32',
  grpid: 'u32', // page request group index
  perm: 'u32', // wanted
  addr: 'u64',
  private_data: ['u64', 2],
})

export const iommu_fault = struct('struct iommu_fault', {
  type: 'u32',
  padding: 'u32',
  event: union('union iommu_fault_event', {
    event: iommu_fault_unrecoverable,
    prm: iommu_fault_page_request,
    padding2: ['u8', 56],
  }),
})
/** A fault record as user space reads it. */
export type IommuFault = ReturnType<typeof iommu_fault>

export const IOMMU_PAGE_RESP_VERSION_1 = 1
export const IOMMU_PAGE_RESP_PASID_VALID = 1 << 0
// biome-ignore format: table
export const
  IOMMU_PAGE_RESP_SUCCESS = 0,   // handled: the device asks again
  IOMMU_PAGE_RESP_INVALID = 1,   // not handled: the device gives this request up
  IOMMU_PAGE_RESP_FAILURE = 2 // the device stops asking
export const iommu_page_response = struct('struct iommu_page_response', {
  argsz: 'u32',
  version: 'u32',
  flags: 'u32',
  pasid: 'u32',
  grpid: 'u32',
  code: 'u32',
})
/** An answer to a page request. */
export type IommuPageResponse = ReturnType<typeof iommu_page_response>

// ---- cache invalidation ----

// biome-ignore format: table
export const
  IOMMU_CACHE_INV_TYPE_IOTLB     = 1 << 0,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB = 1 << 1,
  IOMMU_CACHE_INV_TYPE_PASID     = 1 << 2
// biome-ignore format: table
export const
  IOMMU_INV_GRANU_DOMAIN = 0,
  IOMMU_INV_GRANU_PASID  = 1,
  IOMMU_INV_GRANU_ADDR   = 2

// biome-ignore format: table
export const
  IOMMU_INV_ADDR_FLAGS_PASID  = 1 << 0,
  IOMMU_INV_ADDR_FLAGS_ARCHID = 1 << 1,
  IOMMU_INV_ADDR_FLAGS_LEAF   = 1 << 2 // only leaf entries changed
export const iommu_inv_addr_info = struct('struct iommu_inv_addr_info', {
  flags: 'u32',
  archid: 'u32',
  pasid: 'u64',
  addr: 'u64',
  granule_size: 'u64', // bytes
  nb_granules: 'u64',
})
// biome-ignore format: table
export const
  IOMMU_INV_PASID_FLAGS_PASID  = 1 << 0,
  IOMMU_INV_PASID_FLAGS_ARCHID = 1 << 1
export const iommu_inv_pasid_info = struct('struct iommu_inv_pasid_info', {
  flags: 'u32',
  archid: 'u32',
  pasid: 'u64',
})

export const IOMMU_CACHE_INVALIDATE_INFO_VERSION_1 = 1
export const iommu_cache_invalidate_info = struct('struct iommu_cache_invalidate_info', {
  argsz: 'u32',
  version: 'u32',
  cache: 'u8', // mask of IOMMU_CACHE_INV_TYPE
  granularity: 'u8',
  padding: ['u8', 6],
  granu: union('union iommu_cache_invalidate_granu', {
    pasid_info: iommu_inv_pasid_info,
    addr_info: iommu_inv_addr_info,
  }),
})
/** A checked invalidation request; members past its `argsz` are zero. */
export type CacheInvalidate = ReturnType<typeof iommu_cache_invalidate_info>

// ---- guest PASID bind ----

// biome-ignore format: table
export const
  IOMMU_SVA_VTD_GPASID_SRE  = 1 << 0,   // supervisor requests allowed
  IOMMU_SVA_VTD_GPASID_EAFE = 1 << 1,   // extended accessed flag
  IOMMU_SVA_VTD_GPASID_PCD  = 1 << 2,
  IOMMU_SVA_VTD_GPASID_PWT  = 1 << 3,
  IOMMU_SVA_VTD_GPASID_EMTE = 1 << 4,
  IOMMU_SVA_VTD_GPASID_CD   = 1 << 5,
  IOMMU_SVA_VTD_GPASID_LAST = 1 << 6
export const iommu_gpasid_bind_data_vtd = struct('struct iommu_gpasid_bind_data_vtd', {
  flags: 'u64',
  pat: 'u32',
  emt: 'u32',
})

export const IOMMU_GPASID_BIND_VERSION_1 = 1
export const IOMMU_PASID_FORMAT_INTEL_VTD = 1
/** First format number that the generic layer refuses. */
export const IOMMU_PASID_FORMAT_LAST = 2
export const IOMMU_SVA_GPASID_VAL = 1 << 0 // gpasid is meant
export const iommu_gpasid_bind_data = struct('struct iommu_gpasid_bind_data', {
  argsz: 'u32',
  version: 'u32',
  format: 'u32',
  addr_width: 'u32', // guest virtual address bits
  flags: 'u64',
  gpgd: 'u64', // guest physical address of the guest's table
  hpasid: 'u64',
  gpasid: 'u64',
  padding: ['u8', 8],
  vendor: union('union iommu_gpasid_bind_data_vendor', { vtd: iommu_gpasid_bind_data_vtd }),
})
/** A bind request that passed the generic checks; members past its `argsz` are zero. */
export type GpasidBind = ReturnType<typeof iommu_gpasid_bind_data>

// ---- whole PASID table ----

export const iommu_pasid_smmuv3 = struct('struct iommu_pasid_smmuv3', {
  version: 'u32', // 1
  s1fmt: 'u8',
  s1dss: 'u8',
  padding: ['u8', 2],
})
// biome-ignore format: table
export const
  IOMMU_PASID_CONFIG_TRANSLATE = 1,   // by the guest's table
  IOMMU_PASID_CONFIG_BYPASS    = 2,   // the guest's stage does nothing
  IOMMU_PASID_CONFIG_ABORT     = 3 // nothing passes
export const PASID_TABLE_CFG_VERSION_1 = 1
export const PASID_TABLE_SMMUV3_CFG_VERSION_1 = 1
export const IOMMU_PASID_FORMAT_SMMUV3 = 1
export const iommu_pasid_table_config = struct('struct iommu_pasid_table_config', {
  argsz: 'u32',
  version: 'u32',
  base_ptr: 'u64', // guest physical address of the context descriptor table
  format: 'u32', // IOMMU_PASID_FORMAT_SMMUV3
  pasid_bits: 'u8', // of SubstreamIDs in the table; 0: one descriptor
  config: 'u8', // IOMMU_PASID_CONFIG_*
  padding: ['u8', 2],
  smmuv3: iommu_pasid_smmuv3,
})
/** A PASID table that passed the generic checks; members past its `argsz` are zero. */
export type PasidTableConfig = ReturnType<typeof iommu_pasid_table_config>

// ---- nesting information ----

// biome-ignore format: table
export const
  IOMMU_NESTING_FEAT_SYSWIDE_PASID = 1 << 0,   // PASIDs come from the host
  IOMMU_NESTING_FEAT_BIND_PGTBL    = 1 << 1,   // first-stage tables are bound by PASID
  IOMMU_NESTING_FEAT_CACHE_INVLD   = 1 << 2 // first-stage changes are told
export const iommu_nesting_info_vtd = struct('struct iommu_nesting_info_vtd', {
  flags: 'u32',
  padding: 'u32',
  cap_reg: 'u64',
  ecap_reg: 'u64',
})
export const iommu_nesting_info = struct('struct iommu_nesting_info', {
  argsz: 'u32',
  flags: 'u32',
  format: 'u32',
  features: 'u32',
  addr_width: 'u16',
  pasid_bits: 'u16',
  padding: ['u8', 12],
  vendor: union('union iommu_nesting_info_vendor', { vtd: iommu_nesting_info_vtd }),
})

// ---- reading what user space passed ----

const BIND_MIN = iommu_gpasid_bind_data.offsets.vendor
const GPASID_FLAGS = BigInt(IOMMU_SVA_GPASID_VAL)
const nonZero = (byte: number) => byte !== 0
const INVALIDATE_MIN = iommu_cache_invalidate_info.offsets.granu

/** Copies what follows `from`, up to `argsz`: the second of the two reads. */
function readRest(mem: UserMemory, addr: number, rest: Uint8Array, from: number, argsz: number) {
  const length = Math.min(argsz - from, rest.length)
  return length <= 0 || mem.copyIn(addr + from, rest, length)
}

/**
 * Reads bind data at `addr` and applies the generic rules in their order: EFAULT for the mandatory part,
 * EINVAL for a short `argsz`, EFAULT for the rest, then EINVAL for version, format, flags and padding.
 * Unbind reads the same structure by the same rules; `unbind` only names the operation in messages.
 * `data` is filled and returned.
 */
export function readGpasidBind(
  mem: UserMemory,
  addr: number,
  { unbind = false }: { readonly unbind?: boolean } = {},
  data = iommu_gpasid_bind_data(),
): GpasidBind {
  const what = unbind ? 'unbind guest PASID' : 'bind guest PASID'
  data.bytes.fill(0)
  if (!mem.copyIn(addr, data.bytes, BIND_MIN))
    throw new ErrnoError('EFAULT', `${what}: data unreadable`)
  const argsz = data.argsz
  if (argsz < BIND_MIN) throw new ErrnoError('EINVAL', `${what}: argsz ${argsz} < ${BIND_MIN}`)
  if (!readRest(mem, addr, data.vendor.bytes, BIND_MIN, argsz))
    throw new ErrnoError('EFAULT', `${what}: vendor data unreadable`)
  if (data.version !== IOMMU_GPASID_BIND_VERSION_1)
    throw new ErrnoError('EINVAL', `${what}: version ${data.version}`)
  if (data.format >= IOMMU_PASID_FORMAT_LAST)
    throw new ErrnoError('EINVAL', `${what}: format ${data.format}`)
  if (data.flags & ~GPASID_FLAGS)
    throw new ErrnoError('EINVAL', `${what}: flags ${hex(data.flags)}`)
  if (data.padding.some(nonZero)) throw new ErrnoError('EINVAL', `${what}: padding is not zero`)
  return data
}

/** Smallest `argsz` by granularity; an unknown granularity is refused after everything was read. */
const INVALIDATE_SIZE = [
  INVALIDATE_MIN,
  INVALIDATE_MIN + iommu_inv_pasid_info.size,
  INVALIDATE_MIN + iommu_inv_addr_info.size,
]
/** Cache types that a granularity can name, by granularity: the interface's rule, before any driver's. */
const INVALIDATE_CACHES = [
  IOMMU_CACHE_INV_TYPE_IOTLB | IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_CACHE_INV_TYPE_IOTLB | IOMMU_CACHE_INV_TYPE_DEV_IOTLB | IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_CACHE_INV_TYPE_IOTLB | IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
]
const ALL_CACHES = 7

/**
 * Reads an invalidation request at `addr` and applies the generic rules in their order: EFAULT for the
 * first 16 bytes, EINVAL for an `argsz` short of its granularity, EFAULT for the rest, then EINVAL.
 * `info` is filled and returned.
 */
export function readCacheInvalidate(
  mem: UserMemory,
  addr: number,
  info = iommu_cache_invalidate_info(),
): CacheInvalidate {
  const what = 'cache invalidate'
  info.bytes.fill(0)
  if (!mem.copyIn(addr, info.bytes, INVALIDATE_MIN))
    throw new ErrnoError('EFAULT', `${what}: header unreadable`)
  const { argsz, granularity, cache } = info
  const needed = INVALIDATE_SIZE[granularity] ?? INVALIDATE_MIN
  if (argsz < needed) throw new ErrnoError('EINVAL', `${what}: argsz ${argsz} < ${needed}`)
  if (!readRest(mem, addr, info.granu.bytes, INVALIDATE_MIN, argsz))
    throw new ErrnoError('EFAULT', `${what}: data unreadable`)
  if (info.version !== IOMMU_CACHE_INVALIDATE_INFO_VERSION_1)
    throw new ErrnoError('EINVAL', `${what}: version ${info.version}`)
  if (cache & ~ALL_CACHES) throw new ErrnoError('EINVAL', `${what}: cache types ${hex(cache)}`)
  const caches = INVALIDATE_CACHES[granularity]
  if (caches === undefined) throw new ErrnoError('EINVAL', `${what}: granularity ${granularity}`)
  if (cache & ~caches)
    throw new ErrnoError('EINVAL', `${what}: caches ${hex(cache)} at granularity ${granularity}`)
  if (granularity === IOMMU_INV_GRANU_PASID && info.granu.pasid_info.flags & ~3)
    throw new ErrnoError('EINVAL', `${what}: PASID flags ${hex(info.granu.pasid_info.flags)}`)
  if (granularity === IOMMU_INV_GRANU_ADDR && info.granu.addr_info.flags & ~7)
    throw new ErrnoError('EINVAL', `${what}: address flags ${hex(info.granu.addr_info.flags)}`)
  if (info.padding.some(nonZero)) throw new ErrnoError('EINVAL', `${what}: padding is not zero`)
  return info
}

const TABLE_MIN = iommu_pasid_table_config.offsets.smmuv3
const TABLE_SIZE = iommu_pasid_table_config.size

/**
 * Reads a PASID table's configuration at `addr`: EFAULT for the 24 bytes that every format has, EINVAL for a
 * shorter `argsz`, EFAULT for the rest, then EINVAL for version, format, a missing SMMUv3 part and padding.
 */
export function readPasidTableConfig(mem: UserMemory, addr: number): PasidTableConfig {
  const what = 'set PASID table'
  const invalid = (why: string) => new ErrnoError('EINVAL', `${what}: ${why}`)
  const config = iommu_pasid_table_config()
  const { bytes } = config
  if (!mem.copyIn(addr, bytes, TABLE_MIN)) throw new ErrnoError('EFAULT', `${what}: unreadable`)
  const { argsz, version, format } = config
  if (argsz < TABLE_MIN) throw invalid(`argsz ${argsz} < ${TABLE_MIN}`)
  if (!readRest(mem, addr, bytes.subarray(TABLE_MIN), TABLE_MIN, argsz))
    throw new ErrnoError('EFAULT', `${what}: SMMUv3 part unreadable`)
  if (version !== PASID_TABLE_CFG_VERSION_1) throw invalid(`version ${version}`)
  if (format !== IOMMU_PASID_FORMAT_SMMUV3) throw invalid(`format ${format}`)
  if (argsz < TABLE_SIZE) throw invalid(`argsz ${argsz}: no SMMUv3 part`)
  const { smmuv3 } = config
  if (smmuv3.version !== PASID_TABLE_SMMUV3_CFG_VERSION_1)
    throw invalid(`SMMUv3 version ${smmuv3.version}`)
  if (config.padding.some(b => b !== 0) || smmuv3.padding.some(b => b !== 0))
    throw invalid('padding is not zero')
  return config
}
