/**
 * What the driver does with a unit's fault records and page requests: drains them, and turns each into
 * the neutral record that user space reads. Both drains run from the clock, as threaded interrupt
 * handlers do. Next: core.ts (who gets the records).
 */
import type { Timer, VirtualClock } from '../../base/clock.js'
import { bank } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import type { FaultSink } from '../domain.js'
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
import type { UnitRegisters } from './driver-registers.js'
import { FAULT_REASONS, type FaultName } from './fault-reasons.js'
import { FRCD_SIZE, frcdHigh, frcdLow, VTD } from './registers.js'
import { PAGE_REQUEST_DESCRIPTOR } from './tables.js'

/** VT-d's reasons in the neutral words; what is not listed is UNKNOWN. */
const NEUTRAL: Readonly<Partial<Record<FaultName, number>>> = {
  pasidDirectoryUnreadable: IOMMU_FAULT_REASON_PASID_FETCH,
  pasidEntryUnreadable: IOMMU_FAULT_REASON_PASID_FETCH,
  pasidDirectoryNotPresent: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  pasidDirectoryReserved: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  pasidEntryNotPresent: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  pasidEntryReserved: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  pasidEntryInvalid: IOMMU_FAULT_REASON_BAD_PASID_ENTRY,
  pasidDisabled: IOMMU_FAULT_REASON_PASID_INVALID,
  pasidBeyondDirectory: IOMMU_FAULT_REASON_PASID_INVALID,
  fsEntryUnreadable: IOMMU_FAULT_REASON_WALK_EABT,
  fsTopEntryUnreadable: IOMMU_FAULT_REASON_WALK_EABT,
  ssEntryUnreadable: IOMMU_FAULT_REASON_WALK_EABT,
  ssTopEntryUnreadable: IOMMU_FAULT_REASON_WALK_EABT,
  fsEntryNotPresent: IOMMU_FAULT_REASON_PTE_FETCH,
  fsTopEntryNotReadable: IOMMU_FAULT_REASON_PTE_FETCH,
  fsEntryNotReadable: IOMMU_FAULT_REASON_PTE_FETCH,
  ssEntryNotPresent: IOMMU_FAULT_REASON_PTE_FETCH,
  writeNotPermitted: IOMMU_FAULT_REASON_PERMISSION,
  readNotPermitted: IOMMU_FAULT_REASON_PERMISSION,
  smWriteNotPermitted: IOMMU_FAULT_REASON_PERMISSION,
  smReadNotPermitted: IOMMU_FAULT_REASON_PERMISSION,
  executeNotPermitted: IOMMU_FAULT_REASON_PERMISSION,
  userAccessToSupervisor: IOMMU_FAULT_REASON_PERMISSION,
  executeRequestDisabled: IOMMU_FAULT_REASON_ACCESS,
  supervisorDisabled: IOMMU_FAULT_REASON_ACCESS,
  notCanonical: IOMMU_FAULT_REASON_OOR_ADDRESS,
  addressBeyondWidth: IOMMU_FAULT_REASON_OOR_ADDRESS,
  smAddressBeyondWidth: IOMMU_FAULT_REASON_OOR_ADDRESS,
  fsAddressBeyondWidth: IOMMU_FAULT_REASON_OOR_ADDRESS,
}
const neutralOf = new Map<number, number>()
for (const [name, neutral] of Object.entries(NEUTRAL))
  neutralOf.set(FAULT_REASONS[name as FaultName].code, neutral)
/** Interrupt remapping faults start here and end before 0x30: they are no DMA's. */
const INTERRUPT_FAULTS = 0x20

const RECORD = bank('fault record', {
  LO: { ...frcdLow(0), offset: 0 },
  HI: { ...frcdHigh(0), offset: 8 },
})

/** Drains fault records. */
export class FaultDrain {
  readonly #registers: UnitRegisters
  readonly #sink: () => FaultSink | undefined
  readonly #first: number
  readonly #count: number
  readonly #record = new RegisterFile(RECORD).regs
  readonly #timer: Timer

  constructor(registers: UnitRegisters, clock: VirtualClock, sink: () => FaultSink | undefined) {
    this.#registers = registers
    this.#sink = sink
    const { FRO, NFR } = registers.read('CAP_REG')
    this.#first = FRO * 16
    this.#count = NFR + 1
    this.#timer = clock.timer(() => this.drain())
  }

  /** The fault event interrupt came. */
  interrupt(): void {
    this.#timer.start()
  }

  cancel(): void {
    this.#timer.cancel()
  }

  /** Delivers every pending record and clears it. */
  drain(): void {
    const registers = this.#registers
    const { LO, HI } = this.#record
    let index = registers.read('FSTS_REG').FRI
    for (let n = 0; n < this.#count; n++) {
      const at = this.#first + index * FRCD_SIZE
      HI.$value = registers.load64(at + 8)
      if (!HI.F) break
      LO.$value = registers.load64(at)
      const { FR, SID } = HI
      const fault = FR >= INTERRUPT_FAULTS && FR < 0x30 ? undefined : this.#neutral()
      registers.store32(at + 12, 0x8000_0000)
      if (fault !== undefined) this.#sink()?.fault(SID, fault)
      index = (index + 1) % this.#count
    }
    if (registers.read('FSTS_REG').PFO) registers.write('FSTS_REG', { PFO: true })
  }

  #neutral(): IommuFault {
    const { LO, HI } = this.#record
    const read = HI.T1
    const f = iommu_fault({ type: IOMMU_FAULT_DMA_UNRECOV })
    const { event } = f.event
    event.reason = neutralOf.get(HI.FR) ?? IOMMU_FAULT_REASON_UNKNOWN
    event.flags = IOMMU_FAULT_UNRECOV_ADDR_VALID | (HI.PP ? IOMMU_FAULT_UNRECOV_PASID_VALID : 0)
    event.pasid = HI.PP ? HI.PV : 0
    event.perm =
      (HI.EXE ? IOMMU_FAULT_PERM_EXEC : read ? IOMMU_FAULT_PERM_READ : IOMMU_FAULT_PERM_WRITE) |
      (HI.PRIV ? IOMMU_FAULT_PERM_PRIV : 0)
    event.addr = LO.FI << 12n
    return f
  }
}

const QUEUE_PAGES_LOG2 = 0
/** PQT_REG counts bytes; its low 5 bits are reserved. */
const PQT = 0x7_ffe0
const REQUEST_BYTES = PAGE_REQUEST_DESCRIPTOR.size

/** Who answers for the driver. */
export interface PageRequestOwner {
  /** Offers a request; false when it must be answered INVALID at once. */
  offer(bdf: number, fault: IommuFault): boolean
  /** Sends INVALID. */
  refuse(bdf: number, fault: IommuFault): void
}

/** The page request queue, from the driver's end. */
export class PageRequestDrain {
  readonly #registers: UnitRegisters
  readonly #memory: AddressSpace
  readonly #frames: FrameAllocator
  readonly #queue: number
  readonly #bytes = 4096 << QUEUE_PAGES_LOG2
  readonly #descriptor = PAGE_REQUEST_DESCRIPTOR.create()
  readonly #owner: PageRequestOwner
  readonly #timer: Timer
  #head = 0
  #draining = false

  constructor(
    registers: UnitRegisters,
    memory: AddressSpace,
    frames: FrameAllocator,
    clock: VirtualClock,
    owner: PageRequestOwner,
  ) {
    this.#registers = registers
    this.#memory = memory
    this.#frames = frames
    this.#owner = owner
    this.#queue = frames.alloc(1 << QUEUE_PAGES_LOG2)
    this.#timer = clock.timer(() => this.#serve())
    registers.write('PQH_REG', {})
    registers.write('PQT_REG', {})
    registers.write('PQA_REG', { PQA: this.#queue, PQS: QUEUE_PAGES_LOG2 })
  }

  /** The page request event interrupt came. */
  interrupt(): void {
    this.#timer.start()
  }

  free(): void {
    this.#timer.cancel()
    this.#frames.free(this.#queue, 1 << QUEUE_PAGES_LOG2)
  }

  /** Takes every queued request, those that arrive meanwhile too. */
  drain(): void {
    if (this.#draining) return
    this.#draining = true
    const registers = this.#registers
    for (;;) {
      const tail = registers.load32(VTD.PQT_REG.offset) & PQT
      if (tail === this.#head) break
      registers.write('PRS_REG', { PPR: true })
      while (this.#head !== tail) {
        this.#memory.read(this.#queue + this.#head, this.#descriptor.bytes)
        this.#head = (this.#head + REQUEST_BYTES) % this.#bytes
        this.#take()
      }
      registers.write('PQH_REG', { PQH: this.#head / REQUEST_BYTES })
    }
    this.#draining = false
  }

  #serve(): void {
    this.drain()
    if (this.#registers.read('PRS_REG').PRO) this.#registers.write('PRS_REG', { PRO: true })
  }

  #take(): void {
    const d = this.#descriptor
    // A stop marker wants nothing and gets no answer (PCIe 10.4.1.2.1).
    if (d.LPIG && !d.RDR && !d.WRR && d.PP) return
    const bdf = d.RID
    const fault = iommu_fault({ type: IOMMU_FAULT_PAGE_REQ })
    const { prm } = fault.event
    prm.flags =
      (d.PP ? IOMMU_FAULT_PAGE_REQUEST_PASID_VALID | IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID : 0) |
      (d.LPIG ? IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE : 0)
    prm.pasid = d.PP ? d.PASID : 0
    prm.grpid = d.PRGI
    prm.perm =
      (d.RDR ? IOMMU_FAULT_PERM_READ : 0) |
      (d.WRR ? IOMMU_FAULT_PERM_WRITE : 0) |
      (d.EXR ? IOMMU_FAULT_PERM_EXEC : 0) |
      (d.PMR ? IOMMU_FAULT_PERM_PRIV : 0)
    prm.addr = (BigInt(d.ADDR_HI) << 32n) | BigInt(d.ADDR_LO * 4096)
    const last = d.LPIG
    if (!this.#owner.offer(bdf, fault) && last) this.#owner.refuse(bdf, fault)
  }
}

/** Offset of the control register of an event, by name; data and address registers follow it. */
export const EVENT_CONTROL = {
  fault: VTD.FECTL_REG.offset,
  pageRequest: VTD.PECTL_REG.offset,
} as const
