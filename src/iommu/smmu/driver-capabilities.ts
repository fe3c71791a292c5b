/**
 * What a unit's identification registers say, digested once for the driver: table shapes, widths of ids,
 * services. Next: driver.ts.
 */
import type { StageShape } from '../stage-tables.js'
import type { SmmuRegisters } from './driver-registers.js'
import { ADDRESS_SIZES, STALL_MODEL } from './registers.js'

/** Requester ids have 16 bits; wider StreamIDs belong to nobody here. */
const REQUESTER_BITS = 16
/** Without 52-bit addresses in 4 KB tables neither stage takes more. */
const WIDEST = 48
const PASID_LIMIT_BITS = 20

/** Stage 2 tables, and how an STE says what they are. */
export interface Stage2Shape extends StageShape {
  /** STE.S2SL0. */
  readonly startLevel: number
}

/** What the unit's identification registers say. */
export interface SmmuCapabilities {
  /** StreamID bits that the stream table covers. */
  readonly streamIdBits: number
  readonly twoLevelStreams: boolean
  readonly twoLevelContexts: boolean
  /** SubstreamID bits; 0 without. */
  readonly substreamBits: number
  /** Undefined when the unit lacks the stage. */
  readonly stage1: StageShape | undefined
  readonly stage2: Stage2Shape | undefined
  /** Output address size as CD.IPS and STE.S2PS encode it. */
  readonly outputSize: number
  readonly asids: number
  readonly vmids: number
  /** Range invalidation. */
  readonly ranges: boolean
  readonly ats: boolean
  readonly pri: boolean
  readonly el2: boolean
  readonly msi: boolean
  readonly stallModel: number
  /** log2 of the largest queues. */
  readonly commandBits: number
  readonly eventBits: number
  readonly priBits: number
}

/** Reads them. An Error for a unit without 4 KB pages, AArch64 or little-endian tables. */
export function readCapabilities(registers: SmmuRegisters): SmmuCapabilities {
  const idr0 = registers.read('IDR0')
  const idr1 = registers.read('IDR1')
  const idr3 = registers.read('IDR3')
  const idr5 = registers.read('IDR5')
  if (!idr5.GRAN4K) throw new Error('SMMUv3 driver: the unit has no 4 KB pages')
  if (!(idr0.TTF & 2)) throw new Error('SMMUv3 driver: the unit has no AArch64 tables')
  if (idr0.TTENDIAN !== 0 && idr0.TTENDIAN !== 2)
    throw new Error('SMMUv3 driver: the unit has no little-endian tables')
  const { OAS } = idr5
  return {
    streamIdBits: Math.min(idr1.SIDSIZE, REQUESTER_BITS),
    twoLevelStreams: idr0.ST_LEVEL === 1,
    twoLevelContexts: idr0.CD2L,
    substreamBits: idr0.S1P ? Math.min(idr1.SSIDSIZE, PASID_LIMIT_BITS) : 0,
    stage1: idr0.S1P ? { levels: 4, width: WIDEST, largest: 3 } : undefined,
    stage2: idr0.S2P ? stage2Of(Math.min(ADDRESS_SIZES[OAS]!, WIDEST)) : undefined,
    outputSize: OAS,
    asids: idr0.ASID16 ? 2 ** 16 : 2 ** 8,
    vmids: idr0.VMID16 ? 2 ** 16 : 2 ** 8,
    ranges: idr3.RIL,
    ats: idr0.ATS,
    pri: idr0.ATS && idr0.PRI,
    el2: idr0.HYP,
    msi: idr0.MSI,
    stallModel: idr0.STALL_MODEL,
    commandBits: idr1.CMDQS,
    eventBits: idr1.EVENTQS,
    priBits: idr1.PRIQS,
  }
}

/** Whether a fault stalls or terminates as the tables say. */
export const stallsByChoice = (caps: SmmuCapabilities): boolean =>
  caps.stallModel === STALL_MODEL.STALL_AND_TERMINATE

/**
 * Input as wide as output. Level 0 is for 44 bits and more; below, level 1 tables follow each other
 * (Arm ARM D8.2.7, SMMUv3 3.4).
 */
function stage2Of(width: number): Stage2Shape {
  if (width > 43) return { levels: 4, width, largest: 3, startLevel: 2 }
  return { levels: 3, width, largest: 3, roots: 2 ** Math.max(0, width - 39), startLevel: 1 }
}
