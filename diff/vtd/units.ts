// The VT-d units that are compared: how QEMU is told to build one, and our configuration of the same. QEMU's
// units have one fault record, no nesting, no RID_PASID (ECAP.RPS) and nobody to send requests with PASID.

import type { VtdConfig } from '../../src/iommu/vtd/config.js'
import type { FaultRecord } from '../case.js'

export interface Unit {
  /** Options of `-device intel-iommu`. */
  readonly options: string
  readonly config: Partial<VtdConfig>
  readonly mode: 'legacy' | 'second-stage' | 'first-stage'
}

const common: Partial<VtdConfig> = {
  hostAddressWidth: 48,
  guestAddressWidth: 48,
  faultRecords: 1,
  deviceTlb: false,
  snoopControl: false,
  pasidBits: 0,
  ridPasid: false,
  ridPriv: false,
  supervisorRequests: false,
  executeRequests: false,
  pageRequests: false,
  nesting: false,
  secondStageAccessedDirty: false,
  extendedAccessed: false,
  memoryTypes: false,
  pageWalkSnoop: false,
  abortDma: false,
}

/** The units by name. */
export const UNITS: Readonly<Record<string, Unit>> = {
  legacy: { options: '', config: { ...common, scalableMode: false }, mode: 'legacy' },
  'legacy-39': {
    options: 'aw-bits=39',
    config: { ...common, scalableMode: false, hostAddressWidth: 39, guestAddressWidth: 39 },
    mode: 'legacy',
  },
  'legacy-snoop-dt': {
    options: 'snoop-control=on,device-iotlb=on',
    config: { ...common, scalableMode: false, snoopControl: true, deviceTlb: true },
    mode: 'legacy',
  },
  'second-stage': {
    options: 'scalable-mode=on',
    config: { ...common, firstStage: false },
    mode: 'second-stage',
  },
  'second-stage-39': {
    options: 'scalable-mode=on,aw-bits=39,snoop-control=on',
    config: {
      ...common,
      firstStage: false,
      hostAddressWidth: 39,
      guestAddressWidth: 39,
      snoopControl: true,
    },
    mode: 'second-stage',
  },
  'first-stage': {
    options: 'scalable-mode=on,fsts=on',
    config: { ...common, secondStage: false },
    mode: 'first-stage',
  },
  'first-stage-no-1g': {
    options: 'scalable-mode=on,fsts=on,fs1gp=off',
    config: { ...common, secondStage: false, firstStage1GPages: false },
    mode: 'first-stage',
  },
  'first-stage-svm': {
    options: 'scalable-mode=on,fsts=on,device-iotlb=on,pasid-bits=20,svm=on',
    config: {
      ...common,
      secondStage: false,
      deviceTlb: true,
      noWriteFlag: true,
      pasidBits: 20,
      pageRequests: true,
      pageRequestDrain: true,
    },
    mode: 'first-stage',
  },
}

/** Requester ids. */
export const REQUESTERS = { testdev: 0x28, upper: 0xa8, edu: 0x30 } as const

/** RAM is what lies below this. */
export const RAM_BYTES = 64 << 20
/** Tables are made from here. */
export const TABLES = 0x100_0000
export const TABLES_END = 0x108_0000
/** Pages of data are from here on; a page of 2 MiB may start here. */
export const DATA = 0x200_0000
/** The invalidation queue. */
export const QUEUE = 0x10f_0000
/** For the devices themselves. */
export const SCRATCH = 0x10f_2000

/** From here on memory is free for data again. */
export const AFTER_TABLES = 0x110_0000

export const REGISTER = {
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  RTADDR: 0x20,
  CCMD: 0x28,
  FSTS: 0x34,
  IQT: 0x88,
  IQA: 0x90,
  IVA: 0xf0,
  IOTLB: 0xf8,
  FRCD: 0x220,
} as const
export const COMMAND = { TE: 2 ** 31, SRTP: 2 ** 30, QIE: 2 ** 26 } as const

/** Bits of IQA_REG: descriptors of 256 bits, which scalable mode needs. */
export const wideQueue = (unit: Unit): boolean => unit.mode !== 'legacy'

/** FSTS_REG.IQE: a descriptor was refused. */
const IQE = 0x10

/** The fault recording register, and an error of the invalidation queue, as the fields that are compared. */
export function faultRecords(status: number, lo: bigint, hi: bigint): FaultRecord[] {
  const records: FaultRecord[] = hi >> 63n ? [faultRecord(lo, hi)] : []
  if (status & IQE) records.push({ queueError: 1 })
  return records
}

function faultRecord(lo: bigint, hi: bigint): FaultRecord {
  const bits = (from: number, width: number) =>
    Number((hi >> BigInt(from)) & ((1n << BigInt(width)) - 1n))
  return {
    reason: bits(32, 8),
    sid: bits(0, 16),
    address: lo,
    read: bits(62, 1),
    at: bits(60, 2),
    pp: bits(31, 1),
    ...(bits(31, 1) && { pasid: bits(40, 20) }),
  }
}
