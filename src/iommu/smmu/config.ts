/**
 * What an SMMUv3 can do: configuration, and the identification registers made from it. Behaviour asks the
 * configuration, software reads the registers; both come from here, so they agree. Fixed: little-endian
 * AArch64 tables, coherent accesses, faults that terminate do so with an abort (TERM_MODEL), no small
 * translation tables, no broadcast invalidation.
 */
import type { LiveRegisters } from '../../base/registers.js'
import { MESSAGE_BASE, MESSAGE_SIZE } from '../../pci/request.js'
import { ADDRESS_SIZES, type SMMU_REGISTERS, STALL_MODEL } from './registers.js'

/** Features of one unit. Widths are in bits. */
export interface SmmuConfig {
  /** Minor version of the architecture, 1 to 3 (AIDR). */
  readonly minorVersion: 1 | 2 | 3
  readonly stage1: boolean
  readonly stage2: boolean
  /** EL2 and EL2-E2H contexts. */
  readonly hyp: boolean
  readonly streamIdBits: number
  /** SubstreamID bits, 0 (no substreams) to 20. */
  readonly substreamIdBits: number
  readonly twoLevelStreamTables: boolean
  readonly twoLevelCdTables: boolean
  readonly asid16: boolean
  readonly vmid16: boolean
  /** Output (and intermediate) address size: 32, 36, 40, 42, 44, 48 or 52; of the last, tables use 48 below 64 KB. */
  readonly outputAddressBits: 32 | 36 | 40 | 42 | 44 | 48 | 52
  /** 52: input addresses of that width with 64 KB pages. */
  readonly virtualAddressBits: 48 | 52
  /** log2 of the granules there are. */
  readonly granules: readonly (12 | 14 | 16)[]
  /** Flags that the unit maintains in tables: none, the accessed flag, or dirty state too. */
  readonly tableUpdates: 'none' | 'accessed' | 'dirty'
  readonly ats: boolean
  /** Split-stage ATS, where there are two stages. */
  readonly splitStageAts: boolean
  readonly pri: boolean
  /** Automatic PRG responses carry the PASID of the request; otherwise STE.PPAR decides. */
  readonly priResponsePasid: boolean
  readonly stallModel: (typeof STALL_MODEL)[keyof typeof STALL_MODEL]
  /** Stalled transactions that have a record at a time; more wait for their turn. */
  readonly stalls: number
  /**
   * Events that equal the last record, which is still in the queue and not older than this many ns of virtual
   * time, are merged into it (7.3.1) where STE.MEV allows; 0: none are.
   */
  readonly eventMergeNs: number
  /** Range invalidation. */
  readonly rangeInvalidation: boolean
  /** CD.HADx. */
  readonly hierarchicalDisable: boolean
  /** STE.PRIVCFG and INSTCFG. */
  readonly permissionOverrides: boolean
  readonly msi: boolean
  readonly sev: boolean
  /** log2 of the largest queues. */
  readonly commandQueueBits: number
  readonly eventQueueBits: number
  readonly priQueueBits: number
  /** Entries of the translation cache. */
  readonly tlbEntries: number
  /** Where writes are interrupt messages: the page of an ITS, or what stands in for it. */
  readonly doorbell: { readonly base: number; readonly size: number }
  /** The StreamID of a requester id, and back; `requester` is asked where a command names a stream. */
  readonly streams: StreamNumbering
}

/** How requester ids and StreamIDs go together. */
export interface StreamNumbering {
  streamId(requester: number): number
  /** -1 when no requester has this StreamID. */
  requester(streamId: number): number
}

/** StreamID = requester id, as IHI 0070 3.2 recommends for one PCIe segment. */
export const REQUESTER_IS_STREAM: StreamNumbering = {
  streamId: requester => requester,
  requester: streamId => (streamId <= 0xffff ? streamId : -1),
}

/** The unit of the host machine. */
export const SMMU_DEFAULTS: SmmuConfig = {
  minorVersion: 2,
  stage1: true,
  stage2: true,
  hyp: true,
  streamIdBits: 16,
  substreamIdBits: 20,
  twoLevelStreamTables: true,
  twoLevelCdTables: true,
  asid16: true,
  vmid16: true,
  outputAddressBits: 48,
  virtualAddressBits: 52,
  granules: [12, 14, 16],
  tableUpdates: 'dirty',
  ats: true,
  splitStageAts: true,
  pri: true,
  priResponsePasid: true,
  stallModel: STALL_MODEL.STALL_AND_TERMINATE,
  stalls: 64,
  eventMergeNs: 0,
  rangeInvalidation: true,
  hierarchicalDisable: true,
  permissionOverrides: true,
  msi: true,
  sev: true,
  commandQueueBits: 19,
  eventQueueBits: 19,
  priQueueBits: 19,
  tlbEntries: 4096,
  doorbell: { base: MESSAGE_BASE, size: MESSAGE_SIZE },
  streams: REQUESTER_IS_STREAM,
}

/** Defaults with changes; features that need a missing one are switched off with it. */
export function smmuConfig(changes: Partial<SmmuConfig> = {}): SmmuConfig {
  const c = { ...SMMU_DEFAULTS, ...changes }
  const within = (what: string, value: number, low: number, high: number): void => {
    if (!Number.isInteger(value) || value < low || value > high)
      throw new Error(`SMMUv3: ${what} ${value} is not ${low} to ${high}`)
  }
  const oneOf = (what: string, value: unknown, values: readonly unknown[]): void => {
    if (!values.includes(value))
      throw new Error(`SMMUv3: ${what} ${value} is not ${values.join(', ')}`)
  }
  oneOf('minor version', c.minorVersion, [1, 2, 3])
  oneOf('output address bits', c.outputAddressBits, ADDRESS_SIZES)
  oneOf('virtual address bits', c.virtualAddressBits, [48, 52])
  oneOf('table updates', c.tableUpdates, ['none', 'accessed', 'dirty'])
  oneOf('stall model', c.stallModel, Object.values(STALL_MODEL))
  for (const granule of c.granules) oneOf('granule of 2^', granule, [12, 14, 16])
  if (!c.stage1 && !c.stage2) throw new Error('SMMUv3: a unit without stages')
  if (c.granules.length === 0) throw new Error('SMMUv3: a unit without granules')
  within('StreamID bits', c.streamIdBits, 0, 32)
  within('SubstreamID bits', c.substreamIdBits, 0, 20)
  within('log2 of command queue', c.commandQueueBits, 0, 19)
  within('log2 of event queue', c.eventQueueBits, 0, 19)
  within('log2 of PRI queue', c.priQueueBits, 0, 19)
  within('stalls', c.stalls, 1, 0xffff)
  within('event merging time', c.eventMergeNs, 0, Number.MAX_SAFE_INTEGER)
  const pri = c.ats && c.pri
  return {
    ...c,
    hyp: c.stage1 && c.hyp,
    substreamIdBits: c.stage1 ? c.substreamIdBits : 0,
    // Below 7 bits there is nothing to split.
    twoLevelStreamTables: c.streamIdBits >= 7 && c.twoLevelStreamTables,
    twoLevelCdTables: c.stage1 && c.substreamIdBits > 0 && c.twoLevelCdTables,
    vmid16: c.stage2 && c.vmid16,
    splitStageAts: c.ats && c.stage1 && c.stage2 && c.splitStageAts,
    pri,
    priResponsePasid: pri && c.priResponsePasid,
  }
}

/** Writes IDR0 to IDR5, IIDR and AIDR. */
export function setIdentification(regs: LiveRegisters<typeof SMMU_REGISTERS>, c: SmmuConfig): void {
  const { IDR0, IDR1, IDR3, IDR5, AIDR } = regs
  IDR0.ST_LEVEL = c.twoLevelStreamTables ? 1 : 0
  IDR0.TERM_MODEL = true
  IDR0.STALL_MODEL = c.stallModel
  IDR0.ATSRECERR = c.ats
  IDR0.TTENDIAN = 2
  IDR0.CD2L = c.twoLevelCdTables
  IDR0.VMID16 = c.vmid16
  IDR0.PRI = c.pri
  IDR0.SEV = c.sev
  IDR0.MSI = c.msi
  IDR0.ASID16 = c.asid16
  IDR0.NS1ATS = c.ats && !c.splitStageAts
  IDR0.ATS = c.ats
  IDR0.HYP = c.hyp
  IDR0.HTTU = { none: 0, accessed: 1, dirty: 2 }[c.tableUpdates]
  IDR0.COHACC = true
  IDR0.TTF = 2
  IDR0.S1P = c.stage1
  IDR0.S2P = c.stage2

  IDR1.ATTR_PERMS_OVR = c.permissionOverrides
  IDR1.CMDQS = c.commandQueueBits
  IDR1.EVENTQS = c.eventQueueBits
  IDR1.PRIQS = c.pri ? c.priQueueBits : 0
  IDR1.SSIDSIZE = c.substreamIdBits
  IDR1.SIDSIZE = c.streamIdBits

  IDR3.RIL = c.rangeInvalidation
  IDR3.PPS = c.priResponsePasid
  IDR3.HAD = c.hierarchicalDisable

  IDR5.STALL_MAX = c.stallModel === STALL_MODEL.TERMINATE ? 0 : c.stalls
  IDR5.VAX = c.virtualAddressBits === 52 ? 1 : 0
  IDR5.GRAN4K = c.granules.includes(12)
  IDR5.GRAN16K = c.granules.includes(14)
  IDR5.GRAN64K = c.granules.includes(16)
  IDR5.OAS = ADDRESS_SIZES.indexOf(c.outputAddressBits)

  AIDR.ArchMinorRev = c.minorVersion
}
