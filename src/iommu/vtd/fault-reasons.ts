/**
 * VT-d fault reasons: number, the specification's condition, what it means (chapter 7, appendix A).
 * A qualified fault is recorded only when FPD of the structure that governs the request is clear.
 * Who raises them: translate.ts, remap.ts, page-requests.ts.
 */

/** One fault reason. */
export interface FaultReason {
  /** FRCD_REG.FR. */
  readonly code: number
  /** Condition code of the specification's tables (7.1.3), or the code in hexadecimal for interrupts (5.1.4). */
  readonly condition: string
  /** True when FPD suppresses the record. */
  readonly qualified: boolean
  readonly meaning: string
}

const reason = (
  code: number,
  condition: string,
  qualified: boolean,
  meaning: string,
): FaultReason => ({
  code,
  condition,
  qualified,
  meaning,
})
const Q = true
const N = false

/** All fault reasons of VT-d 3.3, by a name of ours that says what happened. */
// biome-ignore format: table
export const FAULT_REASONS = {
  // Legacy mode
  rootEntryNotPresent:      reason(0x01, 'LRT.2', N, 'P is clear in the root entry'),
  contextEntryNotPresent:   reason(0x02, 'LCT.2', Q, 'P is clear in the context entry'),
  contextEntryInvalid:      reason(0x03, 'LCT.4', Q, 'the context entry has an unsupported AW or TT'),
  addressBeyondWidth:       reason(0x04, 'LGN.1', Q, 'the address is wider than the context entry or the unit allows'),
  writeNotPermitted:        reason(0x05, 'LGN.2', Q, 'no write permission for a write request'),
  readNotPermitted:         reason(0x06, 'LGN.3', Q, 'no read permission for a read request'),
  pagingEntryUnreadable:    reason(0x07, 'LSL.1', Q, 'a second-stage paging entry could not be read'),
  rootEntryUnreadable:      reason(0x08, 'LRT.1', N, 'the root entry could not be read'),
  contextEntryUnreadable:   reason(0x09, 'LCT.1', N, 'the context entry could not be read'),
  rootEntryReserved:        reason(0x0a, 'LRT.3', N, 'a reserved field of the root entry is not zero'),
  contextEntryReserved:     reason(0x0b, 'LCT.3', N, 'a reserved field of the context entry is not zero'),
  pagingEntryReserved:      reason(0x0c, 'LSL.2', Q, 'a reserved field of a second-stage paging entry is not zero'),
  translationTypeBlocked:   reason(0x0d, 'LCT.5', Q, 'TT does not allow translation or translated requests'),
  outputIsInterruptRange:   reason(0x0e, 'LGN.4', Q, 'the translation leads into the interrupt address range'),

  // Interrupt remapping
  interruptReserved:        reason(0x20, '20h', N, 'a reserved field of the interrupt request is not zero'),
  interruptIndexTooLarge:   reason(0x21, '21h', N, 'the interrupt index is outside the table'),
  irteNotPresent:           reason(0x22, '22h', Q, 'P is clear in the IRTE'),
  irteUnreadable:           reason(0x23, '23h', N, 'the IRTE could not be read'),
  irteReserved:             reason(0x24, '24h', Q, 'a reserved field of the IRTE is not zero'),
  compatibilityBlocked:     reason(0x25, '25h', N, 'a compatibility-format interrupt is blocked'),
  sourceIdRefused:          reason(0x26, '26h', Q, 'the requester failed the source id check of the IRTE'),

  // Scalable mode: root table address register
  rootTableInvalid:         reason(0x30, 'RTA.1', N, 'the root table address or TTM is invalid'),
  legacyModeWithPasid:      reason(0x31, 'RTA.2', N, 'a request with PASID in legacy mode'),
  legacyModePageRequest:    reason(0x32, 'RTA.3', N, 'a page request in legacy mode'),
  abortDmaMode:             reason(0x33, 'RTA.4', N, 'a request in abort-DMA mode'),
  // Scalable mode: root and context entries
  smRootEntryUnreadable:    reason(0x38, 'SRT.1', N, 'the scalable-mode root entry could not be read'),
  smRootEntryNotPresent:    reason(0x39, 'SRT.2', N, 'the present bit of the scalable-mode root entry is clear'),
  smRootEntryReserved:      reason(0x3a, 'SRT.3', N, 'a reserved field of the scalable-mode root entry is not zero'),
  smContextUnreadable:      reason(0x40, 'SCT.1', N, 'the scalable-mode context entry could not be read'),
  smContextNotPresent:      reason(0x41, 'SCT.2', Q, 'P is clear in the scalable-mode context entry'),
  smContextReserved:        reason(0x42, 'SCT.3', N, 'a reserved field of the scalable-mode context entry is not zero'),
  smContextInvalid:         reason(0x43, 'SCT.4', Q, 'the scalable-mode context entry is programmed inconsistently'),
  deviceTlbDisabled:        reason(0x44, 'SCT.5', Q, 'DTE is clear for a translation or translated request'),
  pasidDisabled:            reason(0x45, 'SCT.6', Q, 'PASIDE is clear for a request with PASID'),
  pasidBeyondDirectory:     reason(0x46, 'SCT.7', Q, 'the PASID is outside the PASID directory'),
  pageRequestDisabled:      reason(0x47, 'SCT.8', Q, 'PRE is clear for a page request'),
  ridPasidInvalid:          reason(0x48, 'SCT.9', Q, 'RID_PASID is outside the PASID directory'),
  // Scalable mode: PASID directory and table
  pasidDirectoryUnreadable: reason(0x50, 'SPD.1', N, 'the PASID directory entry could not be read'),
  pasidDirectoryNotPresent: reason(0x51, 'SPD.2', Q, 'P is clear in the PASID directory entry'),
  pasidDirectoryReserved:   reason(0x52, 'SPD.3', N, 'a reserved field of the PASID directory entry is not zero'),
  pasidEntryUnreadable:     reason(0x58, 'SPT.1', N, 'the PASID table entry could not be read'),
  pasidEntryNotPresent:     reason(0x59, 'SPT.2', Q, 'P is clear in the PASID table entry'),
  pasidEntryReserved:       reason(0x5a, 'SPT.3', N, 'a reserved field of the PASID table entry is not zero'),
  pasidEntryInvalid:        reason(0x5b, 'SPT.4', Q, 'the PASID table entry asks for what the unit does not do'),
  executeRequestDisabled:   reason(0x5c, 'SPT.5', Q, 'ERE is clear for an execute request'),
  supervisorDisabled:       reason(0x5d, 'SPT.6', Q, 'SRE is clear for a supervisor request'),
  // Scalable mode: first stage
  fsEntryUnreadable:        reason(0x70, 'SFS.1', Q, 'a first-stage paging entry could not be read'),
  fsEntryNotPresent:        reason(0x71, 'SFS.2', Q, 'P is clear in a first-stage paging entry'),
  fsEntryReserved:          reason(0x72, 'SFS.3', Q, 'a reserved field of a first-stage paging entry is not zero'),
  fsTopEntryUnreadable:     reason(0x73, 'SFS.4', Q, 'the first-stage top entry could not be read: FSPTPTR is bad'),
  fsEntryBeyondWidth:       reason(0x74, 'SFS.5', Q, 'nested: a first-stage table address is wider than the second stage'),
  fsTopEntryNotReadable:    reason(0x75, 'SFS.6', Q, 'nested: the second stage does not let FSPTPTR be read'),
  fsEntryNotReadable:       reason(0x76, 'SFS.7', Q, 'nested: the second stage does not let a first-stage table be read'),
  fsEntryNotWritable:       reason(0x77, 'SFS.8', Q, 'nested: the second stage does not let accessed or dirty flags be written'),
  fsEntryIsInterruptRange:  reason(0x90, 'SFS.9', Q, 'nested: a first-stage table lies in the interrupt address range'),
  fsFlagUpdateRefused:      reason(0x91, 'SFS.10', Q, 'accessed or dirty flags could not be updated'),
  // Scalable mode: second stage
  ssEntryUnreadable:        reason(0x78, 'SSS.1', Q, 'a second-stage paging entry could not be read'),
  ssEntryNotPermitted:      reason(0x79, 'SSS.2', Q, 'nested: R and W are clear in a second-stage paging entry'),
  ssEntryReserved:          reason(0x7a, 'SSS.3', Q, 'a reserved field of a second-stage paging entry is not zero'),
  ssTopEntryUnreadable:     reason(0x7b, 'SSS.4', Q, 'the second-stage top entry could not be read: SSPTPTR is bad'),
  ssFlagUpdateRefused:      reason(0x7c, 'SSS.5', Q, 'second-stage accessed or dirty flags could not be updated'),
  // Scalable mode: general
  notCanonical:             reason(0x80, 'SGN.1', Q, 'the address of a first-stage request is not canonical'),
  userAccessToSupervisor:   reason(0x81, 'SGN.2', Q, 'U/S is clear for a user request'),
  executeNotPermitted:      reason(0x82, 'SGN.3', Q, 'no execute permission for an execute request'),
  smAddressBeyondWidth:     reason(0x83, 'SGN.4', Q, 'the address is wider than the second stage or the unit allows'),
  outputBeyondWidth:        reason(0x84, 'SGN.5', Q, 'nested: the first-stage output is wider than the second stage'),
  smWriteNotPermitted:      reason(0x85, 'SGN.6', Q, 'no write permission for a write request'),
  smReadNotPermitted:       reason(0x86, 'SGN.7', Q, 'no read permission for a read request'),
  smOutputIsInterruptRange: reason(0x87, 'SGN.8', Q, 'the translation leads into the interrupt address range'),
} as const satisfies Record<string, FaultReason>

/** Name of a fault reason. */
export type FaultName = keyof typeof FAULT_REASONS

const nameOf = new Map<number, FaultName>()
for (const [name, r] of Object.entries(FAULT_REASONS)) nameOf.set(r.code, name as FaultName)

/** The name of the reason with this number, if there is one. */
export const faultName = (code: number): FaultName | undefined => nameOf.get(code)
