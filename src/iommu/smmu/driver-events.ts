/**
 * What the driver does with a unit's events and page requests: drains the two queues, and turns each record into
 * the neutral one that user space reads. Both drains run from the clock, as threaded interrupt handlers do.
 * A stalled transaction is a page request whose group is its STAG. Next: core.ts (who gets the records).
 */
import type { Timer, VirtualClock } from '../../base/clock.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import {
  IOMMU_FAULT_DMA_UNRECOV,
  IOMMU_FAULT_PAGE_REQ,
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID,
  IOMMU_FAULT_PERM_EXEC,
  IOMMU_FAULT_PERM_PRIV,
  IOMMU_FAULT_PERM_READ,
  IOMMU_FAULT_PERM_WRITE,
  IOMMU_FAULT_REASON_ACCESS,
  IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  IOMMU_FAULT_REASON_OOR_ADDRESS,
  IOMMU_FAULT_REASON_PASID_FETCH,
  IOMMU_FAULT_REASON_PASID_INVALID,
  IOMMU_FAULT_REASON_PERMISSION,
  IOMMU_FAULT_REASON_PTE_FETCH,
  IOMMU_FAULT_REASON_UNKNOWN,
  IOMMU_FAULT_REASON_WALK_EABT,
  IOMMU_FAULT_UNRECOV_ADDR_VALID,
  IOMMU_FAULT_UNRECOV_PASID_VALID,
  type IommuFault,
  iommu_fault,
} from '../uapi.js'
import type { SmmuRegisters } from './driver-registers.js'
import {
  EVENT_SIZE,
  EVENTS,
  type EventName,
  eventName,
  FAULT_RECORD,
  PRI_RECORD,
} from './events.js'

/** Events in the neutral words; what is not listed is UNKNOWN. */
const NEUTRAL: Readonly<Partial<Record<EventName, number>>> = {
  C_BAD_SUBSTREAMID: IOMMU_FAULT_REASON_PASID_INVALID,
  F_CD_FETCH: IOMMU_FAULT_REASON_PASID_FETCH,
  C_BAD_CD: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  F_WALK_EABT: IOMMU_FAULT_REASON_WALK_EABT,
  F_TRANSLATION: IOMMU_FAULT_REASON_PTE_FETCH,
  F_ADDR_SIZE: IOMMU_FAULT_REASON_OOR_ADDRESS,
  F_ACCESS: IOMMU_FAULT_REASON_ACCESS,
  F_PERMISSION: IOMMU_FAULT_REASON_PERMISSION,
}
/** Shapes of records that say which address was asked for. */
const WITH_ADDRESS: readonly string[] = ['request', 'translated', 'walk', 'fault']

/** The registers of one queue that the unit writes. */
type QueueName = 'EVENTQ' | 'PRIQ'

/** One such queue from the driver's end: a page of records at most. */
export class RecordQueue {
  readonly #registers: SmmuRegisters
  readonly #memory: AddressSpace
  readonly #frames: FrameAllocator
  readonly #name: QueueName
  readonly #queue: number
  readonly #bits: number
  readonly #record: Uint8Array
  readonly #take: () => void
  readonly #timer: Timer
  #head = 0
  #draining = false

  /** `take` is called for each record, which then is in `record`. */
  constructor(
    registers: SmmuRegisters,
    memory: AddressSpace,
    frames: FrameAllocator,
    clock: VirtualClock,
    queue: { readonly name: QueueName; readonly mostBits: number; readonly record: Uint8Array },
    take: () => void,
  ) {
    this.#registers = registers
    this.#memory = memory
    this.#frames = frames
    this.#name = queue.name
    this.#record = queue.record
    this.#take = take
    this.#bits = Math.min(queue.mostBits, Math.log2(4096 / queue.record.length))
    this.#queue = frames.alloc()
    this.#timer = clock.timer(() => this.drain())
    registers.write(`${this.#name}_BASE`, { ADDR: this.#queue, LOG2SIZE: this.#bits })
    registers.write(`${this.#name}_PROD`, {})
    registers.write(`${this.#name}_CONS`, {})
  }

  /** Its interrupt came. */
  interrupt(): void {
    this.#timer.start()
  }

  /** Takes every record, those that arrive meanwhile too, and acknowledges an overflow. */
  drain(): void {
    if (this.#draining) return
    this.#draining = true
    const registers = this.#registers
    const wrap = 2 ** (this.#bits + 1) - 1
    for (;;) {
      const { WR, OVFLG } = registers.read(`${this.#name}_PROD`)
      while (this.#head !== WR) {
        const at = this.#queue + (this.#head & (wrap >> 1)) * this.#record.length
        this.#memory.read(at, this.#record)
        this.#head = (this.#head + 1) & wrap
        this.#take()
      }
      registers.write(`${this.#name}_CONS`, { RD: this.#head, OVACKFLG: OVFLG })
      const now = registers.read(`${this.#name}_PROD`)
      if (now.WR === this.#head && now.OVFLG === OVFLG) break
    }
    this.#draining = false
  }

  free(): void {
    this.#timer.cancel()
    this.#frames.free(this.#queue)
  }
}

/** Who takes what the queues hold. */
export interface EventOwner {
  /** A refused request's event, as the unit wrote it; the record is the queue's. */
  event(streamId: number, name: EventName, record: Uint8Array): void
  /** A refused request of a stream. */
  fault(streamId: number, fault: IommuFault): void
  /** A stalled transaction, to be resumed by its STAG. */
  stall(streamId: number, stag: number, request: IommuFault): void
  /** A page request; `last` of its group. */
  pageRequest(streamId: number, request: IommuFault, last: boolean): void
}

/** The event queue. */
export function eventQueue(
  registers: SmmuRegisters,
  memory: AddressSpace,
  frames: FrameAllocator,
  clock: VirtualClock,
  mostBits: number,
  owner: EventOwner,
): RecordQueue {
  const record = new Uint8Array(EVENT_SIZE)
  const r = FAULT_RECORD.at(record)
  return new RecordQueue(
    registers,
    memory,
    frames,
    clock,
    { name: 'EVENTQ', mostBits, record },
    () => {
      const name = eventName(r.EventID)
      const shape = name && EVENTS[name].shape
      const withPasid = shape === 'bad-substream' || r.SSV
      const pasid = withPasid ? r.SubstreamID : 0
      const addressed = shape !== undefined && WITH_ADDRESS.includes(shape)
      const addr = addressed ? (BigInt(r.InputAddr_HI) << 32n) | BigInt(r.InputAddr_LO) : 0n
      const perm =
        shape === 'fault' || shape === 'walk'
          ? (r.InD
              ? IOMMU_FAULT_PERM_EXEC
              : r.RnW
                ? IOMMU_FAULT_PERM_READ
                : IOMMU_FAULT_PERM_WRITE) | (r.PnU ? IOMMU_FAULT_PERM_PRIV : 0)
          : 0
      if (shape === 'fault' && r.Stall) {
        const flags =
          IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE |
          (withPasid
            ? IOMMU_FAULT_PAGE_REQUEST_PASID_VALID | IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID
            : 0)
        const page = addr & ~0xfffn
        owner.stall(r.StreamID, r.STAG, request({ flags, pasid, grpid: r.STAG, perm, addr: page }))
        return
      }
      if (name) owner.event(r.StreamID, name, record)
      const f = iommu_fault({ type: IOMMU_FAULT_DMA_UNRECOV })
      const { event } = f.event
      event.reason = (name && NEUTRAL[name]) ?? IOMMU_FAULT_REASON_UNKNOWN
      // Addresses of fetches are the host's: user space is not told.
      event.flags =
        (addressed ? IOMMU_FAULT_UNRECOV_ADDR_VALID : 0) |
        (withPasid ? IOMMU_FAULT_UNRECOV_PASID_VALID : 0)
      event.pasid = pasid
      event.perm = perm
      event.addr = addr
      owner.fault(r.StreamID, f)
    },
  )
}

/** The PRI queue. */
export function priQueue(
  registers: SmmuRegisters,
  memory: AddressSpace,
  frames: FrameAllocator,
  clock: VirtualClock,
  mostBits: number,
  owner: EventOwner,
): RecordQueue {
  const d = PRI_RECORD.create()
  return new RecordQueue(
    registers,
    memory,
    frames,
    clock,
    { name: 'PRIQ', mostBits, record: d.bytes },
    () => {
      // A stop marker wants nothing and gets no answer (PCIe 10.4.1.2.1).
      if (d.Last && !d.R && !d.W && d.SSV) return
      const flags =
        (d.SSV ? IOMMU_FAULT_PAGE_REQUEST_PASID_VALID | IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID : 0) |
        (d.Last ? IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE : 0)
      const perm =
        (d.R ? IOMMU_FAULT_PERM_READ : 0) |
        (d.W ? IOMMU_FAULT_PERM_WRITE : 0) |
        (d.X ? IOMMU_FAULT_PERM_EXEC : 0) |
        (d.Priv ? IOMMU_FAULT_PERM_PRIV : 0)
      const addr = (BigInt(d.ADDR_HI) << 32n) | BigInt(d.ADDR_LO * 4096)
      const pasid = d.SSV ? d.SubstreamID : 0
      const { StreamID, Last } = d
      owner.pageRequest(StreamID, request({ flags, pasid, grpid: d.PRGIndex, perm, addr }), Last)
    },
  )
}

function request(of: {
  readonly flags: number
  readonly pasid: number
  readonly grpid: number
  readonly perm: number
  readonly addr: bigint
}): IommuFault {
  const fault = iommu_fault({ type: IOMMU_FAULT_PAGE_REQ })
  Object.assign(fault.event.prm, of)
  return fault
}
