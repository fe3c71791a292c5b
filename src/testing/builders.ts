// Arguments of the vSVA calls with everything filled in that a test does not care about. A test names the
// member it is about; the rest is what VT-d takes. Numbers that are PASIDs may be plain numbers.
import {
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
  IOMMU_GPASID_BIND_VERSION_1,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_PASID,
  IOMMU_INV_PASID_FLAGS_PASID,
  IOMMU_PASID_CONFIG_TRANSLATE,
  IOMMU_PASID_FORMAT_INTEL_VTD,
  IOMMU_PASID_FORMAT_SMMUV3,
  IOMMU_SVA_GPASID_VAL,
  iommu_cache_invalidate_info,
  iommu_gpasid_bind_data,
  iommu_pasid_table_config,
  PASID_TABLE_CFG_VERSION_1,
  PASID_TABLE_SMMUV3_CFG_VERSION_1,
} from '../iommu/uapi.js'
import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE } from '../vfio/uapi/vfio.js'
import { vfio_iommu_type1_nesting_op, vfio_iommu_type1_pasid_request } from '../vfio/uapi/vsva.js'

/** Flags of a mapping that a device may read and write. */
export const READ_WRITE: number = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
/** The last PASID of 20 bits. */
export const LAST_PASID = 0xf_ffff
/** The last value that PASID_REQUEST takes: its result is an int. */
export const LAST_REQUEST = 0x7fff_ffff

/** Members of the bind structure, and the members of its VT-d part beside them. */
export type BindMembers = Omit<
  NonNullable<Parameters<typeof iommu_gpasid_bind_data>[0]>,
  'hpasid' | 'gpasid'
> & {
  readonly hpasid?: number | bigint
  /** Sets GPASID_VAL as well, unless `flags` is given. */
  readonly gpasid?: number | bigint
  /** `vtd.flags`. */
  readonly vtdFlags?: number | bigint
}

/** Bind data that VT-d takes, with members replaced. A bare number is the host PASID. */
export function bindData(
  members: number | BindMembers = {},
): ReturnType<typeof iommu_gpasid_bind_data> {
  const { hpasid, gpasid, vtdFlags, ...rest } =
    typeof members === 'number' ? ({ hpasid: members } as BindMembers) : members
  const data = iommu_gpasid_bind_data({
    version: IOMMU_GPASID_BIND_VERSION_1,
    format: IOMMU_PASID_FORMAT_INTEL_VTD,
    addr_width: 48,
    flags: gpasid === undefined ? 0n : BigInt(IOMMU_SVA_GPASID_VAL),
    hpasid: BigInt(hpasid ?? 0),
    gpasid: BigInt(gpasid ?? 0),
    ...rest,
  })
  if (vtdFlags !== undefined) data.vendor.vtd.flags = BigInt(vtdFlags)
  return data
}

/** What an invalidation says, in one flat list. */
export interface InvalidationMembers {
  readonly argsz?: number
  readonly version?: number
  /** IOMMU_CACHE_INV_TYPE_*; the IOTLB unless told. */
  readonly cache?: number
  /** IOMMU_INV_GRANU_*; PASID unless told, or ADDR when there is an address. */
  readonly granularity?: number
  readonly padding?: readonly number[]
  readonly pasid?: number | bigint
  /** Flags of the granularity's own part; PASID valid unless told. */
  readonly flags?: number
  readonly archid?: number
  readonly addr?: bigint
  readonly granuleSize?: bigint
  readonly granules?: bigint
}

/** An invalidation that VT-d carries out, with members replaced. A bare number is the PASID, all of it. */
export function invalidation(
  members: number | InvalidationMembers = {},
): ReturnType<typeof iommu_cache_invalidate_info> {
  const m: InvalidationMembers = typeof members === 'number' ? { pasid: members } : members
  const granularity =
    m.granularity ?? (m.addr === undefined ? IOMMU_INV_GRANU_PASID : IOMMU_INV_GRANU_ADDR)
  const info = iommu_cache_invalidate_info({
    version: m.version ?? IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
    cache: m.cache ?? IOMMU_CACHE_INV_TYPE_IOTLB,
    granularity,
    ...(m.padding === undefined ? {} : { padding: [...m.padding] }),
  })
  if (m.argsz !== undefined) info.argsz = m.argsz
  const pasid = BigInt.asUintN(64, BigInt(m.pasid ?? 0))
  if (granularity === IOMMU_INV_GRANU_ADDR)
    Object.assign(info.granu.addr_info, {
      flags: m.flags ?? IOMMU_INV_ADDR_FLAGS_PASID,
      archid: m.archid ?? 0,
      pasid,
      addr: m.addr ?? 0n,
      granule_size: m.granuleSize ?? 4096n,
      nb_granules: m.granules ?? 1n,
    })
  else
    Object.assign(info.granu.pasid_info, {
      flags: m.flags ?? IOMMU_INV_PASID_FLAGS_PASID,
      archid: m.archid ?? 0,
      pasid,
    })
  return info
}

/** Members of a whole-table configuration, those of its SMMUv3 part beside them. */
export type PasidTableMembers = Omit<
  NonNullable<Parameters<typeof iommu_pasid_table_config>[0]>,
  'smmuv3'
> & {
  /** Linear unless told. */
  readonly s1fmt?: number
  /** Requests without PASID: terminated unless told. */
  readonly s1dss?: number
}

/** A table of context descriptors that SMMUv3 takes, with members replaced. */
export function pasidTable(
  members: PasidTableMembers = {},
): ReturnType<typeof iommu_pasid_table_config> {
  const { s1fmt = 0, s1dss = 0, ...rest } = members
  return iommu_pasid_table_config({
    version: PASID_TABLE_CFG_VERSION_1,
    format: IOMMU_PASID_FORMAT_SMMUV3,
    config: IOMMU_PASID_CONFIG_TRANSLATE,
    smmuv3: { version: PASID_TABLE_SMMUV3_CFG_VERSION_1, s1fmt, s1dss },
    ...rest,
  })
}

/** The argument of PASID_REQUEST. */
export const pasidRequest = (
  flags: number,
  min: number,
  max: number,
): ReturnType<typeof vfio_iommu_type1_pasid_request> =>
  vfio_iommu_type1_pasid_request({ flags, range: { min, max } })

/** The argument of NESTING_OP around a payload; `argsz` is the outer one. */
export function nestingOp(
  flags: number,
  payload: { readonly bytes: Uint8Array } | Uint8Array,
  argsz?: number,
): ReturnType<typeof vfio_iommu_type1_nesting_op> {
  const data = payload instanceof Uint8Array ? payload : payload.bytes
  const op = vfio_iommu_type1_nesting_op({ flags, data })
  if (argsz !== undefined) op.argsz = argsz
  return op
}
