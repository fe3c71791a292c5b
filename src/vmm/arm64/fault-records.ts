// Faults of a device, as VFIO tells them, in the words of the guest's SMMU: event records of stage 1 (IHI 0070 7.3).

import { halves, split } from '../../base/addr.js'
import { CLASS, EVENT_SIZE, EVENTS, type EventName, FAULT_RECORD } from '../../iommu/smmu/events.js'
import {
  IOMMU_FAULT_PERM_EXEC,
  IOMMU_FAULT_PERM_PRIV,
  IOMMU_FAULT_PERM_WRITE,
  IOMMU_FAULT_REASON_ACCESS,
  IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  IOMMU_FAULT_REASON_OOR_ADDRESS,
  IOMMU_FAULT_REASON_PASID_FETCH,
  IOMMU_FAULT_REASON_PASID_INVALID,
  IOMMU_FAULT_REASON_PERMISSION,
  IOMMU_FAULT_REASON_PTE_FETCH,
  IOMMU_FAULT_REASON_WALK_EABT,
  IOMMU_FAULT_UNRECOV_PASID_VALID,
} from '../../iommu/uapi.js'
import type { PageRequest } from '../../pci/request.js'
import type { UnrecoverableFault } from '../page-requests.js'

/** Reasons as events. What is not listed is the host's own trouble: the guest is not told. */
const EVENT_OF: Readonly<Record<number, EventName>> = {
  [IOMMU_FAULT_REASON_PASID_FETCH]: 'F_CD_FETCH',
  [IOMMU_FAULT_REASON_BAD_PASID_ENTRY]: 'C_BAD_CD',
  [IOMMU_FAULT_REASON_PASID_INVALID]: 'C_BAD_SUBSTREAMID',
  [IOMMU_FAULT_REASON_WALK_EABT]: 'F_WALK_EABT',
  [IOMMU_FAULT_REASON_PTE_FETCH]: 'F_TRANSLATION',
  [IOMMU_FAULT_REASON_PERMISSION]: 'F_PERMISSION',
  [IOMMU_FAULT_REASON_ACCESS]: 'F_ACCESS',
  [IOMMU_FAULT_REASON_OOR_ADDRESS]: 'F_ADDR_SIZE',
}

/**
 * The record of a stalled access. VFIO does not say why it stalled; the guest's handler walks its own table anyway, so
 * F_TRANSLATION stands for all reasons.
 */
export function stallRecord(request: PageRequest): Uint8Array {
  const record = FAULT_RECORD.at(new Uint8Array(EVENT_SIZE))
  record.EventID = EVENTS.F_TRANSLATION.code
  record.StreamID = request.requester
  record.SSV = request.pasid >= 0
  record.SubstreamID = Math.max(request.pasid, 0)
  record.Stall = true
  record.STAG = request.prgIndex
  record.CLASS = CLASS.IN
  record.RnW = !request.write
  record.InD = request.execute
  record.PnU = request.privileged
  record.InputAddr_HI = request.hi >>> 0
  record.InputAddr_LO = request.lo >>> 0
  return record.bytes
}

/** The record of a refused request; undefined for one that is none of the guest's business. */
export function eventRecord(
  stream: number,
  { reason, flags, pasid, perm, addr }: UnrecoverableFault,
):
  | { stream: number; event: EventName; pasid: number; address: bigint; record: Uint8Array }
  | undefined {
  const event = EVENT_OF[reason]
  if (event === undefined) return undefined
  const { code, shape } = EVENTS[event]
  const hasPasid = (flags & IOMMU_FAULT_UNRECOV_PASID_VALID) !== 0
  const record = FAULT_RECORD.at(new Uint8Array(EVENT_SIZE))
  record.EventID = code
  record.StreamID = stream
  record.SSV = hasPasid && shape !== 'bad-substream'
  record.SubstreamID = hasPasid ? pasid : 0
  if (shape === 'fault' || shape === 'walk') {
    split(addr)
    record.InputAddr_LO = halves[0]! >>> 0
    record.InputAddr_HI = halves[1]! >>> 0
    record.CLASS = shape === 'walk' ? CLASS.TT : CLASS.IN
    record.RnW = (perm & IOMMU_FAULT_PERM_WRITE) === 0
    record.InD = (perm & IOMMU_FAULT_PERM_EXEC) !== 0
    record.PnU = (perm & IOMMU_FAULT_PERM_PRIV) !== 0
  }
  return { stream, event, pasid: hasPasid ? pasid : -1, address: addr, record: record.bytes }
}
