// VFIO_IOMMU_GET_INFO: page sizes and the capability chain, built anew for each call from what the container
// holds now, in the order the profile gives. uapi linux/vfio.h, vfio_iommu_type1_info.
import { ErrnoError } from '../base/errno.js'
import { struct } from '../base/struct.js'
import type { IovaRange, NestingInfo } from '../iommu/domain.js'
import { iommu_nesting_info } from '../iommu/uapi.js'
import type { Process } from '../sys/process.js'
import { answerInfo, CapabilityChain } from './capability-chain.js'
import { MAX_DIRTY_BITMAP } from './dirty.js'
import type { DmaMappings } from './dma.js'
import type { NestedGroup } from './nesting.js'
import type { InfoCapability, Rules } from './profiles.js'
import {
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_cap_nesting,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from './uapi/vfio.js'

/** What GET_INFO tells about. */
export interface InfoSource {
  readonly rules: Rules
  readonly mappings: DmaMappings
  /** Page sizes all domains have, bytes, smallest first; empty without an IOMMU domain. */
  readonly pageSizes: readonly number[]
  readonly ranges: readonly IovaRange[]
  readonly nested: NestedGroup | undefined
}

const CALL = 'VFIO_IOMMU_GET_INFO'
const MINIMUM = vfio_iommu_type1_info.offsets.cap_offset
const WITH_CAP_OFFSET = MINIMUM + 4

/** Answers GET_INFO at `arg` of the caller. */
export function type1Info(of: InfoSource, arg: number, caller: Process): number {
  const { memory } = caller
  const info = vfio_iommu_type1_info({ argsz: 0 })
  if (!memory.copyIn(arg, info.bytes, MINIMUM))
    throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
  if (info.argsz < MINIMUM)
    throw new ErrnoError('EINVAL', `${CALL}: argsz ${info.argsz} < ${MINIMUM}`)
  const written = info.argsz >= WITH_CAP_OFFSET ? WITH_CAP_OFFSET : MINIMUM
  info.flags = VFIO_IOMMU_INFO_PGSIZES
  info.iova_pgsizes = pageSizeBitmap(of.pageSizes)
  const chain = new CapabilityChain(of.rules.capabilityAlign, caller.kernel.failures)
  for (const which of of.rules.infoCapabilities) builders[which](of, chain)
  if (!answerInfo(memory, arg, info, chain, VFIO_IOMMU_INFO_CAPS, written))
    throw new ErrnoError('EFAULT', `${CALL}: not writable`)
  return 0
}

/** Sizes below the processor's page count as that page; without a domain every size from there up is possible. */
function pageSizeBitmap(sizes: readonly number[]): bigint {
  if (sizes.length === 0) return 0xffff_ffff_ffff_f000n
  return sizes.reduce((bits, s) => bits | BigInt(Math.max(s, 4096)), 0n)
}

const builders: Record<InfoCapability, (of: InfoSource, chain: CapabilityChain) => void> = {
  migration(of, chain) {
    const capability = vfio_iommu_type1_info_cap_migration({
      pgsize_bitmap: BigInt(Math.max(4096, of.pageSizes[0] ?? 4096)),
      max_dirty_bitmap_size: BigInt(MAX_DIRTY_BITMAP),
    })
    chain.add(capability, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION)
  },
  'dma-avail'(of, chain) {
    const capability = vfio_iommu_type1_info_dma_avail({ avail: of.mappings.available })
    chain.add(capability, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
  },
  'iova-range'(of, chain) {
    if (of.ranges.length === 0) return
    const capability = vfio_iommu_type1_info_cap_iova_range({
      nr_iovas: of.ranges.length,
      iova_ranges: of.ranges.map(r =>
        vfio_iova_range({
          start: BigInt(r.startPage) << 12n,
          end: (BigInt(r.endPage + 1) << 12n) - 1n,
        }),
      ),
    })
    chain.add(capability, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
  },
  nesting(of, chain) {
    if (of.nested === undefined) return
    const { info } = of.nested
    if (info.format === 0)
      throw new ErrnoError('ENOENT', `${CALL}: the IOMMU has no nesting format`)
    const told = of.rules.reportedFeatures === 'v8' ? nestingInfoV8(info) : nestingInfo(info)
    const capability = vfio_iommu_type1_info_cap_nesting({ info: told.bytes })
    chain.add(capability, of.rules.nestingCapability)
  },
}

/** The VT-d part as v8 lays it out. */
const vtd_v8 = struct('struct iommu_nesting_info_vtd', {
  flags: 'u32',
  padding: ['u8', 12],
  cap_reg: 'u64',
  ecap_reg: 'u64',
})
/** v8 has no SYSWIDE_PASID: every feature is a bit lower. */
const V8_FEATURE_SHIFT = 1

function nestingInfoV8(info: NestingInfo) {
  const { vendor } = iommu_nesting_info.offsets
  const bytes = new Uint8Array(vendor + vtd_v8.size)
  bytes.set(nestingInfo(info).bytes.subarray(0, vendor))
  const out = iommu_nesting_info.at(bytes)
  out.argsz = bytes.length
  out.features = info.features >> V8_FEATURE_SHIFT
  bytes.set(vtd_v8({ cap_reg: info.cap, ecap_reg: info.ecap }).bytes, vendor)
  return { bytes }
}

function nestingInfo(info: NestingInfo) {
  const out = iommu_nesting_info({
    format: info.format,
    features: info.features,
    addr_width: info.addrWidth,
    pasid_bits: info.pasidBits,
  })
  out.vendor.vtd.cap_reg = info.cap
  out.vendor.vtd.ecap_reg = info.ecap
  return out
}
