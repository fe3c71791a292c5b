/**
 * What a VT-d unit can do: configuration, and CAP_REG and ECAP_REG made from it. Behaviour asks the
 * configuration, software reads the registers; both come from here, so they agree.
 */
import type { LiveRegisters } from '../../base/registers.js'
import { FRCD_OFFSET, IOTLB_OFFSET, type VTD_REGISTERS, type VtdEdition } from './registers.js'

/** Features of one unit. Widths are in bits. */
export interface VtdConfig {
  /** VER_REG. From major version 6 on the register-based invalidation interface refuses everything. */
  readonly version: { readonly major: number; readonly minor: number }
  /** Places the virtual command registers. */
  readonly edition: VtdEdition
  /** Widest host physical address, 32 to 52 (HAW). */
  readonly hostAddressWidth: number
  /** Widest guest address of the second stage: 39, 48 or 57 (MGAW, and all of SAGAW up to it). */
  readonly guestAddressWidth: 39 | 48 | 57
  readonly domainIdBits: 4 | 6 | 8 | 10 | 12 | 14 | 16
  /** Fault recording registers, 1 to 128. */
  readonly faultRecords: number
  /** CAP.CM. The unit never caches what is not present; software must still invalidate. */
  readonly cachingMode: boolean
  /** 2 MB and 1 GB pages of the second stage. */
  readonly secondStageLargePages: readonly (21 | 30)[]
  readonly passThrough: boolean
  readonly queuedInvalidation: boolean
  readonly deviceTlb: boolean
  /** Pass the No Write flag of translation requests through. */
  readonly noWriteFlag: boolean
  readonly interruptRemapping: boolean
  /** 32-bit APIC ids (EIM). */
  readonly extendedInterruptMode: boolean
  /** Posted entries of the interrupt remapping table (PI). */
  readonly postedInterrupts: boolean
  /** Scalable mode; everything below needs it. */
  readonly scalableMode: boolean
  readonly firstStage: boolean
  readonly firstStage5Level: boolean
  readonly firstStage1GPages: boolean
  readonly secondStage: boolean
  readonly secondStageAccessedDirty: boolean
  /** EAFE of PASID table entries. */
  readonly extendedAccessed: boolean
  /** Memory-type fields are accepted; they have no effect here. */
  readonly memoryTypes: boolean
  readonly nesting: boolean
  /** PASID bits of requests, 0 (no requests with PASID) to 20. */
  readonly pasidBits: number
  /** RID_PASID and RID_PRIV of context entries are honoured; otherwise they are 0. */
  readonly ridPasid: boolean
  readonly ridPriv: boolean
  readonly supervisorRequests: boolean
  readonly executeRequests: boolean
  readonly pageRequests: boolean
  /** PD of wait descriptors. */
  readonly pageRequestDrain: boolean
  /** PFSID of device-TLB invalidations is accepted. */
  readonly deviceTlbThrottle: boolean
  readonly snoopControl: boolean
  /** PWSNP of PASID table entries. Memory is coherent here: it has no effect. */
  readonly pageWalkSnoop: boolean
  readonly abortDma: boolean
  /** Protected low and high memory (PLMR, PHMR). */
  readonly protectedLowMemory: boolean
  readonly protectedHighMemory: boolean
  /** Virtual command registers: only for units that a VMM shows to its guest. */
  readonly virtualCommand: boolean
}

/** The unit of the host machine. */
export const VTD_DEFAULTS: VtdConfig = {
  version: { major: 5, minor: 0 },
  edition: '3.3',
  hostAddressWidth: 48,
  guestAddressWidth: 48,
  domainIdBits: 16,
  faultRecords: 8,
  cachingMode: false,
  secondStageLargePages: [21, 30],
  passThrough: true,
  queuedInvalidation: true,
  deviceTlb: true,
  noWriteFlag: true,
  interruptRemapping: true,
  extendedInterruptMode: true,
  postedInterrupts: false,
  scalableMode: true,
  firstStage: true,
  firstStage5Level: false,
  firstStage1GPages: true,
  secondStage: true,
  secondStageAccessedDirty: true,
  extendedAccessed: true,
  memoryTypes: true,
  nesting: true,
  pasidBits: 20,
  ridPasid: true,
  ridPriv: true,
  supervisorRequests: true,
  executeRequests: true,
  pageRequests: true,
  pageRequestDrain: true,
  deviceTlbThrottle: true,
  snoopControl: true,
  pageWalkSnoop: true,
  abortDma: true,
  protectedLowMemory: false,
  protectedHighMemory: false,
  virtualCommand: false,
}

/**
 * Defaults with changes; features that need a missing one are switched off with it. An Error for a width or number
 * that no unit has.
 */
export function vtdConfig(changes: Partial<VtdConfig> = {}): VtdConfig {
  const c = { ...VTD_DEFAULTS, ...changes }
  const within = (what: string, value: number, low: number, high: number): void => {
    if (!Number.isInteger(value) || value < low || value > high)
      throw new Error(`VT-d: ${what} ${value} is not ${low} to ${high}`)
  }
  const oneOf = (what: string, value: number, values: readonly number[]): void => {
    if (!values.includes(value))
      throw new Error(`VT-d: ${what} ${value} is not ${values.join(', ')}`)
  }
  within('host address width', c.hostAddressWidth, 32, 52)
  oneOf('guest address width', c.guestAddressWidth, [39, 48, 57])
  oneOf('domain id bits', c.domainIdBits, [4, 6, 8, 10, 12, 14, 16])
  within('fault recording registers', c.faultRecords, 1, 128)
  within('PASID bits', c.pasidBits, 0, 20)
  for (const bits of c.secondStageLargePages) oneOf('large pages of 2^', bits, [21, 30])
  const s = c.scalableMode && c.queuedInvalidation
  const pasid = s ? c.pasidBits : 0
  return {
    ...c,
    scalableMode: s,
    firstStage: s && c.firstStage,
    firstStage5Level: s && c.firstStage && c.firstStage5Level,
    firstStage1GPages: s && c.firstStage && c.firstStage1GPages,
    secondStage: s && c.secondStage,
    secondStageAccessedDirty: s && c.secondStage && c.secondStageAccessedDirty,
    extendedAccessed: s && c.firstStage && c.extendedAccessed,
    memoryTypes: s && c.memoryTypes,
    nesting: s && c.firstStage && c.secondStage && c.nesting,
    pasidBits: pasid,
    ridPasid: s && c.ridPasid,
    ridPriv: s && c.ridPriv,
    supervisorRequests: s && c.supervisorRequests,
    executeRequests: pasid > 0 && c.executeRequests,
    pageRequests: s && c.deviceTlb && c.pageRequests,
    pageRequestDrain: s && c.deviceTlb && c.pageRequests && c.pageRequestDrain,
    noWriteFlag: c.deviceTlb && c.noWriteFlag,
    deviceTlbThrottle: c.deviceTlb && c.deviceTlbThrottle,
    extendedInterruptMode: c.interruptRemapping && c.extendedInterruptMode,
    postedInterrupts: c.interruptRemapping && c.postedInterrupts,
    pageWalkSnoop: s && c.pageWalkSnoop,
    virtualCommand: s && c.virtualCommand,
  }
}

/** Writes VER_REG, CAP_REG and ECAP_REG. */
export function setCapabilities(regs: LiveRegisters<typeof VTD_REGISTERS>, c: VtdConfig): void {
  const { VER_REG: ver, CAP_REG: cap, ECAP_REG: ecap } = regs
  ver.MAX = c.version.major
  ver.MIN = c.version.minor

  cap.ESRTPS = true
  cap.ESIRTPS = true
  cap.FS5LP = c.firstStage5Level
  cap.PI = c.postedInterrupts
  cap.FS1GP = c.firstStage1GPages
  cap.DRD = true
  cap.DWD = true
  cap.MAMV = MAMV
  cap.NFR = c.faultRecords - 1
  cap.PSI = true
  cap.SSLPS =
    (c.secondStageLargePages.includes(21) ? 1 : 0) | (c.secondStageLargePages.includes(30) ? 2 : 0)
  cap.FRO = FRCD_OFFSET / 16
  cap.MGAW = c.guestAddressWidth - 1
  cap.SAGAW = [39, 48, 57].reduce(
    (bits, width, i) => (width <= c.guestAddressWidth ? bits | (2 << i) : bits),
    0,
  )
  cap.CM = c.cachingMode
  cap.PHMR = c.protectedHighMemory
  cap.PLMR = c.protectedLowMemory
  cap.ND = (c.domainIdBits - 4) / 2

  ecap.RPRIVS = c.ridPriv
  ecap.ADMS = c.abortDma
  ecap.RPS = c.ridPasid
  ecap.SMPWCS = c.pageWalkSnoop
  ecap.FSTS = c.firstStage
  ecap.SSTS = c.secondStage
  ecap.SSADS = c.secondStageAccessedDirty
  ecap.VCS = c.virtualCommand
  ecap.SMTS = c.scalableMode
  ecap.PDS = c.pageRequestDrain
  ecap.DIT = c.deviceTlbThrottle
  ecap.PASID = c.pasidBits > 0
  ecap.PSS = c.pasidBits > 0 ? c.pasidBits - 1 : 0
  ecap.EAFS = c.extendedAccessed
  ecap.NWFS = c.noWriteFlag
  ecap.MTS = c.memoryTypes
  ecap.SRS = c.supervisorRequests
  ecap.ERS = c.executeRequests
  ecap.PRS = c.pageRequests
  ecap.NEST = c.nesting
  ecap.MHMV = 15
  ecap.IRO = IOTLB_OFFSET / 16
  ecap.SC = c.snoopControl
  ecap.PT = c.passThrough
  ecap.EIM = c.extendedInterruptMode
  ecap.IR = c.interruptRemapping
  ecap.DT = c.deviceTlb
  ecap.QI = c.queuedInvalidation
  ecap.C = true
}

/** Largest address mask of a page-selective invalidation (CAP.MAMV): a whole 48-bit space is a domain's matter. */
export const MAMV = 35
