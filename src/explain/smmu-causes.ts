/** What usually lies behind each SMMUv3 event, and what to do about it: a row for every event of iommu/smmu/events.ts. */
import type { EventName } from '../iommu/smmu/events.js'
import type { CauseAndCure } from './vtd-causes.js'

/** Cause and cure by event. */
// biome-ignore format: table
export const SMMU_CAUSES: Readonly<Record<EventName, CauseAndCure>> = {
  C_BAD_STREAMID:     ['The requester has no place in the stream table: LOG2SIZE or a level 1 Span is too small, or firmware maps requester ids to other StreamIDs than the driver thinks.', 'Size the table for the StreamIDs that firmware (IORT, device tree) announces; check STRTAB_BASE_CFG and Span.'],
  F_STE_FETCH:        ['The stream table, or its second level, does not lie in memory.', 'Check STRTAB_BASE and L2Ptr: physical addresses, aligned to the size of the table.'],
  C_BAD_STE:          ['The STE was never written (V clear), or asks for what the unit lacks or the architecture forbids.', 'Write all eight words, V last, then CMD_CFGI_STE and CMD_SYNC; check each field against IDR0 to IDR5.'],
  F_BAD_ATS_TREQ:     ['The device uses ATS, but STE.EATS or the stream\'s configuration does not allow it.', 'Set EATS (and CR0.ATSCHK as wanted) before enabling ATS in the device.'],
  F_STREAM_DISABLED:  ['A request without SubstreamID met a stream that wants one (S1DSS 0), or SubstreamID 0 was used where it is reserved for requests without one (S1DSS 2).', 'Set S1DSS to bypass or substream 0, or have the device send its PASID; keep PASID 0 out of the allocator.'],
  F_TRANSL_FORBIDDEN: ['A translated request from a device that may not send any: ATS is on in the device but not in the STE, or the device forges translations.', 'Disable ATS in the device before clearing EATS; otherwise distrust the device.'],
  C_BAD_SUBSTREAMID:  ['The PASID is outside the CD table (S1CDMax), or its level 1 descriptor is not valid, or the stream has no substreams.', 'Bind the PASID before use; make S1CDMax large enough. Guest and host numbers mixed up look the same.'],
  F_CD_FETCH:         ['The CD table does not lie in memory (under stage 2: maps to nothing).', 'Check S1ContextPtr and L2Ptr; under nesting they are guest-physical addresses.'],
  C_BAD_CD:           ['Nothing is bound to this PASID (V clear), or the CD asks for what the unit lacks or the architecture forbids.', 'Bind before submitting work; write the CD, V last, then CMD_CFGI_CD and CMD_SYNC.'],
  F_WALK_EABT:        ['A translation table descriptor lies outside memory: a table page was freed while still in use.', 'Invalidate (CMD_TLBI_*, CMD_SYNC) before table pages are freed.'],
  F_TRANSLATION:      ['There is no valid mapping for the address, or it is outside the range that TxSZ gives, or walks of the range are disabled (EPD). With stage 2 set in the record it is an IPA the host did not map.', 'Map before use and unmap after completion; with the stall model or PRI handle the fault and resume.'],
  F_ADDR_SIZE:        ['A descriptor or table base leads beyond IPS or S2PS.', 'Set the output size to what the platform has, and check the descriptor.'],
  F_ACCESS:           ['AF is clear in the page descriptor and nobody sets it: HA is off and AFFD is clear.', 'Set AF when mapping, or enable HA (IDR0.HTTU).'],
  F_PERMISSION:       ['The mapping does not permit the access: read-only or copy-on-write, unprivileged against privileged, or execute-never.', 'Map it with the permission; look at AP, UXN/PXN, S2AP and the hierarchical bits of the tables above.'],
}
