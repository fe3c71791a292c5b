/**
 * VT-d fault reasons: number, the specification's condition, what it means (VT-d 7.1.3 and 5.1.4.1).
 * What it does to a request is here too: an untranslated or translated request is always refused with
 * UR; a translation request (ATS) is refused with UR or CA, or answered "no permission" and then not
 * recorded. Conditions that cannot arise here are left out: host permission
 * tables, walks that do not snoop.
 * Who raises them: entries.ts, translate.ts, remap.ts, posting.ts, page-requests.ts.
 */

/** What a translation request (AT 1) gets: Unsupported Request, Completer Abort, or success with R = W = 0. */
export type TranslationAnswer = 'UR' | 'CA' | 'none'

/** One fault reason. */
export interface FaultReason {
  /** FRCD_REG.FR. */
  readonly code: number
  /** Condition code of the specification's table, or the number in hexadecimal for interrupts. */
  readonly condition: string
  /** True when FPD of a structure that governs the request suppresses the record. */
  readonly qualified: boolean
  /** The answer to a translation request. */
  readonly ats: TranslationAnswer
  readonly meaning: string
}

const reason = (
  code: number,
  condition: string,
  qualified: boolean,
  ats: TranslationAnswer,
  meaning: string,
): FaultReason => ({ code, condition, qualified, ats, meaning })
const Q = true
const N = false

/** Fault reasons by a name of ours that says what happened. */
// biome-ignore format: table
export const FAULT_REASONS = {
  // Legacy mode: root and context tables
  rootEntryUnreadable:      reason(0x08, 'LRT.1', N, 'CA', 'the root entry could not be read'),
  rootEntryNotPresent:      reason(0x01, 'LRT.2', N, 'UR', 'P is clear in the root entry'),
  rootEntryReserved:        reason(0x0a, 'LRT.3', N, 'CA', 'a reserved field of the root entry is not zero'),
  contextEntryUnreadable:   reason(0x09, 'LCT.1', N, 'CA', 'the context entry could not be read'),
  contextEntryNotPresent:   reason(0x02, 'LCT.2', Q, 'UR', 'P is clear in the context entry'),
  contextEntryReserved:     reason(0x0b, 'LCT.3', Q, 'CA', 'a reserved field of the context entry is not zero'),
  contextEntryInvalid:      reason(0x03, 'LCT.4', Q, 'CA', 'AW, TT or SSPTPTR of the context entry cannot be used'),
  translationTypeBlocked:   reason(0x0d, 'LCT.5', Q, 'UR', 'TT does not allow translation or translated requests'),
  // Legacy mode: second stage and general
  pagingEntryUnreadable:    reason(0x07, 'LSS.1', Q, 'CA', 'a second-stage paging entry could not be read'),
  pagingEntryReserved:      reason(0x0c, 'LSS.2', Q, 'CA', 'a reserved field of a second-stage paging entry is not zero'),
  addressBeyondWidth:       reason(0x04, 'LGN.1', Q, 'none', 'the address is wider than AW, MGAW or the host address width'),
  writeNotPermitted:        reason(0x05, 'LGN.2', Q, 'none', 'no write permission for a write request'),
  readNotPermitted:         reason(0x06, 'LGN.3', Q, 'none', 'no read permission for a read request'),
  outputIsInterruptRange:   reason(0x0e, 'LGN.4', Q, 'CA', 'the translation leads into the interrupt address range'),

  // Interrupt requests
  interruptReserved:        reason(0x20, '20h', N, 'UR', 'a reserved field of the interrupt request is not zero'),
  interruptIndexTooLarge:   reason(0x21, '21h', N, 'UR', 'the interrupt index is outside the table'),
  irteNotPresent:           reason(0x22, '22h', Q, 'UR', 'P is clear in the IRTE'),
  irteUnreadable:           reason(0x23, '23h', N, 'UR', 'the IRTE could not be read'),
  irteReserved:             reason(0x24, '24h', Q, 'UR', 'a reserved field of the IRTE is not zero'),
  compatibilityBlocked:     reason(0x25, '25h', N, 'UR', 'a compatibility-format interrupt is blocked'),
  sourceIdRefused:          reason(0x26, '26h', Q, 'UR', 'the requester failed the source id check of the IRTE'),
  postedUnreadable:         reason(0x27, '27h', Q, 'UR', 'the posted interrupt descriptor could not be read or written'),
  postedReserved:           reason(0x28, '28h', Q, 'UR', 'a reserved field of the posted interrupt descriptor is not zero'),
  notAnInterrupt:           reason(0x29, '29h', N, 'UR', 'a request to the interrupt address range is no interrupt'),

  // Root table address register
  translationModeInvalid:   reason(0x30, 'RTA.1', N, 'CA', 'TTM is reserved or not supported'),
  legacyModeWithPasid:      reason(0x31, 'RTA.2', N, 'UR', 'a request with PASID in legacy mode'),
  legacyModePageRequest:    reason(0x32, 'RTA.3', N, 'UR', 'a page request in legacy mode'),
  abortDmaMode:             reason(0x33, 'RTA.4', N, 'UR', 'a request in abort-DMA mode'),

  // Scalable mode: root and context tables
  smRootEntryUnreadable:    reason(0x38, 'SRT.1', N, 'CA', 'the scalable-mode root entry could not be read'),
  smRootEntryNotPresent:    reason(0x39, 'SRT.2', N, 'UR', 'LP or UP of the scalable-mode root entry is clear'),
  smRootEntryReserved:      reason(0x3a, 'SRT.3', N, 'CA', 'a reserved field of the scalable-mode root entry is not zero'),
  smContextUnreadable:      reason(0x40, 'SCT.1', N, 'CA', 'the scalable-mode context entry could not be read'),
  smContextNotPresent:      reason(0x41, 'SCT.2', Q, 'UR', 'P is clear in the scalable-mode context entry'),
  smContextReserved:        reason(0x42, 'SCT.3', Q, 'CA', 'a reserved field of the scalable-mode context entry is not zero'),
  smContextInvalid:         reason(0x43, 'SCT.4', Q, 'CA', 'PRE without DTE, or RID_PASID outside the PASID directory'),
  deviceTlbDisabled:        reason(0x44, 'SCT.5', Q, 'UR', 'DTE is clear for a translation or translated request'),
  pasidDisabled:            reason(0x45, 'SCT.6', Q, 'UR', 'PASIDE is clear for a request with PASID'),
  pasidBeyondDirectory:     reason(0x46, 'SCT.7', Q, 'UR', 'the PASID is outside the PASID directory'),
  pageRequestDisabled:      reason(0x47, 'SCT.8', Q, 'UR', 'PRE is clear for a page request'),
  pasidIsRidPasid:          reason(0x48, 'SCT.9', Q, 'UR', 'a request names RID_PASID as its PASID'),
  // Scalable mode: PASID directory and table
  pasidDirectoryUnreadable: reason(0x50, 'SPD.1', N, 'CA', 'the PASID directory entry could not be read'),
  pasidDirectoryNotPresent: reason(0x51, 'SPD.2', Q, 'none', 'P is clear in the PASID directory entry'),
  pasidDirectoryReserved:   reason(0x52, 'SPD.3', Q, 'CA', 'a reserved field of the PASID directory entry is not zero'),
  pasidEntryUnreadable:     reason(0x58, 'SPT.1', N, 'CA', 'the PASID table entry could not be read'),
  pasidEntryNotPresent:     reason(0x59, 'SPT.2', Q, 'none', 'P is clear in the PASID table entry'),
  pasidEntryReserved:       reason(0x5a, 'SPT.3', Q, 'CA', 'a reserved field of the PASID table entry is not zero'),
  pasidEntryInvalid:        reason(0x5b, 'SPT.4', Q, 'CA', 'AW, PGTT, FSPM or FSPTPTR of the PASID table entry cannot be used'),
  executeRequestDisabled:   reason(0x5c, 'SPT.5', Q, 'none', 'an execute request where ERS or ERE is clear'),
  supervisorDisabled:       reason(0x5d, 'SPT.6', Q, 'none', 'SRE is clear for a supervisor request'),
  // Scalable mode: first stage
  fsEntryUnreadable:        reason(0x70, 'SFS.1', Q, 'none', 'a first-stage paging entry could not be read'),
  fsEntryNotPresent:        reason(0x71, 'SFS.2', Q, 'none', 'P is clear in a first-stage paging entry'),
  fsEntryReserved:          reason(0x72, 'SFS.3', Q, 'none', 'a reserved field of a first-stage paging entry is not zero'),
  fsTopEntryUnreadable:     reason(0x73, 'SFS.4', Q, 'none', 'the first-stage top entry could not be read'),
  fsAddressBeyondWidth:     reason(0x74, 'SFS.5', Q, 'none', 'nested: a first-stage entry leads beyond the second stage'),
  fsTopEntryNotReadable:    reason(0x75, 'SFS.6', Q, 'none', 'nested: the second stage does not let the top entry be read'),
  fsEntryNotReadable:       reason(0x76, 'SFS.7', Q, 'none', 'nested: the second stage does not let a first-stage entry be read'),
  fsEntryNotWritable:       reason(0x77, 'SFS.8', Q, 'none', 'nested: the second stage does not let accessed or dirty flags be written'),
  fsFlagUpdateFailed:       reason(0x91, 'SFS.10', Q, 'none', 'accessed or dirty flags could not be written'),
  // Scalable mode: second stage
  ssEntryUnreadable:        reason(0x78, 'SSS.1', Q, 'CA', 'a second-stage paging entry could not be read'),
  ssEntryNotPresent:        reason(0x79, 'SSS.2', Q, 'none', 'R and W are clear in a second-stage paging entry'),
  ssEntryReserved:          reason(0x7a, 'SSS.3', Q, 'CA', 'a reserved field of a second-stage paging entry is not zero'),
  ssTopEntryUnreadable:     reason(0x7b, 'SSS.4', Q, 'CA', 'the second-stage top entry could not be read'),
  ssFlagUpdateFailed:       reason(0x7d, 'SSS.6', Q, 'CA', 'accessed or dirty flags could not be written'),
  // Scalable mode: general
  notCanonical:             reason(0x80, 'SGN.1', Q, 'none', 'the address of a first-stage request is not canonical'),
  userAccessToSupervisor:   reason(0x81, 'SGN.2', Q, 'none', 'U/S is clear for a user request'),
  executeNotPermitted:      reason(0x82, 'SGN.3', Q, 'none', 'no execute permission for an execute request'),
  hostAddressBeyondWidth:   reason(0x83, 'SGN.4', Q, 'none', 'a host address is wider than the host address width'),
  smAddressBeyondWidth:     reason(0x84, 'SGN.5', Q, 'none', 'the address of a second-stage request is wider than AW or MGAW'),
  smWriteNotPermitted:      reason(0x85, 'SGN.6', Q, 'none', 'no write permission for a write request'),
  smReadNotPermitted:       reason(0x86, 'SGN.7', Q, 'none', 'no read permission for a read request'),
  smOutputIsInterruptRange: reason(0x87, 'SGN.8', Q, 'CA', 'the translation leads into the interrupt address range'),
  pasidBeyondSize:          reason(0x89, 'SGN.10', Q, 'UR', 'the PASID is wider than ECAP.PSS allows'),
} as const satisfies Record<string, FaultReason>

/** Name of a fault reason. */
export type FaultName = keyof typeof FAULT_REASONS

const nameOf = new Map<number, FaultName>()
for (const [name, r] of Object.entries(FAULT_REASONS)) nameOf.set(r.code, name as FaultName)

/** The name of the reason with this number, if there is one. */
export const faultName = (code: number): FaultName | undefined => nameOf.get(code)
