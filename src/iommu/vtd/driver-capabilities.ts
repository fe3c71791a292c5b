/**
 * What a unit's capability registers say, digested once for the driver: table shapes, widths, services, and what
 * nesting offers a guest. Next: driver.ts.
 */
import type { NestingInfo } from '../domain.js'
import type { StageShape } from '../stage-tables.js'
import {
  IOMMU_NESTING_FEAT_BIND_PGTBL,
  IOMMU_NESTING_FEAT_CACHE_INVLD,
  IOMMU_NESTING_FEAT_SYSWIDE_PASID,
  IOMMU_PASID_FORMAT_INTEL_VTD,
} from '../uapi.js'
import type { UnitRegisters } from './driver-registers.js'

/** Bits of CAP and ECAP that a guest may rely on: FS1GP and FS5LP; PRS, ERS, SRS, EAFS and PASID. */
export const NESTING_CAP_MASK = (1n << 56n) | (1n << 60n)
export const NESTING_ECAP_MASK = (1n << 29n) | (1n << 30n) | (1n << 31n) | (1n << 34n) | (1n << 40n)

/** PASIDs of requests are never wider (PCIe 6.20). */
const PASID_LIMIT_BITS = 20

/** What the unit's capability registers say, digested once. */
export interface Capabilities {
  /** Undefined without second-stage translation. */
  readonly shape: StageShape | undefined
  readonly domainIds: number
  /** CAP.MAMV, -1 without page-selective invalidation. */
  readonly largestMask: number
  readonly fiveLevel: boolean
  /** Scalable mode with queued invalidation. */
  readonly scalable: boolean
  /** Undefined when the unit cannot nest. */
  readonly nesting: NestingInfo | undefined
  readonly pasid: boolean
  /** Bits of PASIDs, 0 without. */
  readonly pasidBits: number
  readonly supervisor: boolean
  readonly extendedAccess: boolean
  /** Second-stage dirty flags (ECAP.SSADS). */
  readonly dirtyTracking: boolean
  readonly pageRequests: boolean
  /** Wait descriptors may drain page requests. */
  readonly drainPages: boolean
  readonly deviceTlb: boolean
  readonly interruptRemapping: boolean
  readonly walkSnoop: boolean
  readonly snoop: boolean
}

/** Reads them. */
export function readCapabilities(registers: UnitRegisters): Capabilities {
  const cap = registers.read('CAP_REG')
  const ecap = registers.read('ECAP_REG')
  const scalable = ecap.SMTS && ecap.QI
  const shape = ecap.SSTS ? shapeOf(cap.SAGAW, cap.MGAW + 1, cap.SSLPS) : undefined
  const pasidBits = ecap.PASID ? Math.min(PASID_LIMIT_BITS, ecap.PSS + 1) : 0
  const nests = scalable && ecap.NEST && ecap.FSTS && shape !== undefined
  return {
    shape,
    domainIds: 2 ** (4 + 2 * cap.ND),
    largestMask: cap.PSI ? cap.MAMV : -1,
    fiveLevel: cap.FS5LP,
    scalable,
    nesting: nests ? nestingOf(cap.$value, ecap.$value, shape.width, pasidBits) : undefined,
    pasid: ecap.PASID,
    pasidBits,
    supervisor: ecap.SRS,
    extendedAccess: ecap.EAFS,
    dirtyTracking: ecap.SSADS,
    pageRequests: ecap.PRS,
    drainPages: ecap.PDS,
    deviceTlb: ecap.DT,
    interruptRemapping: ecap.IR,
    walkSnoop: ecap.SMPWCS,
    snoop: ecap.SC,
  }
}

function nestingOf(cap: bigint, ecap: bigint, addrWidth: number, pasidBits: number): NestingInfo {
  return {
    format: IOMMU_PASID_FORMAT_INTEL_VTD,
    features:
      IOMMU_NESTING_FEAT_SYSWIDE_PASID |
      IOMMU_NESTING_FEAT_BIND_PGTBL |
      IOMMU_NESTING_FEAT_CACHE_INVLD,
    addrWidth,
    pasidBits,
    cap: cap & NESTING_CAP_MASK,
    ecap: ecap & NESTING_ECAP_MASK,
  }
}

/** The widest tables that the unit has and its address width needs. */
function shapeOf(sagaw: number, width: number, largePages: number): StageShape | undefined {
  for (const levels of [5, 4, 3] as const) {
    const needed = levels === 3 || width > 12 + 9 * (levels - 1)
    if (needed && sagaw & (1 << (levels - 2)))
      return { levels, width, largest: largePages & 1 ? (largePages & 2 ? 3 : 2) : 1 }
  }
  return undefined
}
