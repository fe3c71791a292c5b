/**
 * Non-recoverable faults: the fault recording registers, FSTS_REG and the fault event (VT-d 7.2, 7.3).
 * Faults are recorded one by one; those of one requester are not compressed. The structured fault, which
 * tells more than a record holds, is built only here. Which reason applies: entries.ts, translate.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import type { RegisterFile } from '../../base/registers.js'
import type { TracePoint } from '../../base/trace.js'
import type { EventInterrupt } from './events.js'
import { FAULT_REASONS, type FaultName } from './fault-reasons.js'
import type { FaultTrail } from './fault-trail.js'
import { FRCD_OFFSET, FRCD_SIZE, VTD_REGISTERS } from './registers.js'

/** What a request wanted when it failed. */
export type FaultAccess = 'read' | 'write' | 'execute' | 'page-request' | 'interrupt'

/** The table entry a walk stopped at. */
export interface FaultEntry {
  readonly kind:
    | 'root'
    | 'context'
    | 'pasid-directory'
    | 'pasid-table'
    | 'first-stage'
    | 'second-stage'
    | 'irte'
  /** Physical address of the entry; of a nested first-stage entry, its second-stage input address. */
  readonly at: number
  /** Its first 8 bytes as read. */
  readonly value: bigint
  /** Level of a paging entry: 1 is a 4 KiB page's, 0 where levels do not apply. */
  readonly level: number
}

/** A fault with everything that is known of it. */
export interface VtdFault {
  /** Virtual time in ns. */
  readonly time: number
  readonly name: FaultName
  readonly code: number
  readonly condition: string
  readonly meaning: string
  readonly requester: number
  /** `NO_PASID` when the request carried none. */
  readonly pasid: number
  /** Input address, or the interrupt index for interrupt requests. */
  readonly address: bigint
  readonly access: FaultAccess
  readonly privileged: boolean
  /** Address Type of the request. */
  readonly at: number
  /** Where the walk stopped, outermost first: of a nested walk the first-stage entry, then the second-stage one. */
  readonly entries: readonly FaultEntry[]
  /** Everything that was read on the way there, when the unit can tell. */
  readonly trail?: FaultTrail
  /** CAP_REG and ECAP_REG of the unit: they decide which fields are reserved. */
  readonly cap: bigint
  readonly ecap: bigint
  /** What became of the record. */
  readonly record: 'recorded' | 'overflow' | 'suppressed'
}

/** A fault as its discoverer knows it. */
export type FaultReport = Omit<
  VtdFault,
  'time' | 'code' | 'condition' | 'meaning' | 'trail' | 'cap' | 'ecap' | 'record'
>

type Registers = RegisterFile<typeof VTD_REGISTERS>

/** The fault recording registers of one unit, and the error bits beside them. */
export class FaultLog {
  /** The last fault seen, recorded or not; kept until reset. */
  last: VtdFault | undefined = undefined
  /** Reads the way to a fault; set by who knows the tables. */
  trail: ((report: FaultReport) => FaultTrail) | undefined = undefined
  readonly #file: Registers
  readonly #view: DataView
  readonly #count: number
  readonly #event: EventInterrupt
  readonly #clock: VirtualClock
  readonly #point: TracePoint<VtdFault>
  readonly #onFault: ((fault: VtdFault) => void) | undefined
  #next = 0

  constructor(
    file: Registers,
    count: number,
    event: EventInterrupt,
    clock: VirtualClock,
    point: TracePoint<VtdFault>,
    onFault: ((fault: VtdFault) => void) | undefined,
  ) {
    this.#file = file
    this.#view = new DataView(file.bytes.buffer, file.bytes.byteOffset)
    this.#count = count
    this.#event = event
    this.#clock = clock
    this.#point = point
    this.#onFault = onFault
  }

  /** Records a fault unless `suppressed` (FPD) applies to it, and tells who listens. */
  report(report: FaultReport, suppressed: boolean): void {
    const { code, condition, qualified, meaning } = FAULT_REASONS[report.name]
    const idle = !this.#anyCondition()
    const record = suppressed && qualified ? 'suppressed' : this.#record(report, code)
    const trail = this.trail?.(report)
    const fault: VtdFault = {
      time: this.#clock.now,
      code,
      condition,
      meaning,
      record,
      cap: this.#view.getBigUint64(VTD_REGISTERS.CAP_REG.offset, true),
      ecap: this.#view.getBigUint64(VTD_REGISTERS.ECAP_REG.offset, true),
      ...report,
      ...(trail && { trail }),
    }
    this.last = fault
    if (this.#point.on) this.#point.emit(fault)
    this.#onFault?.(fault)
    if (record === 'recorded' && idle) this.#event.raise()
  }

  #record(report: FaultReport, code: number): VtdFault['record'] {
    const { FSTS_REG: fsts } = this.#file.regs
    if (fsts.PFO) return 'overflow'
    const at = FRCD_OFFSET + this.#next * FRCD_SIZE
    const view = this.#view
    if (view.getUint32(at + 12, true) & 0x8000_0000) {
      fsts.PFO = true
      return 'overflow'
    }
    const interrupt = report.access === 'interrupt'
    const info = interrupt ? report.address << 48n : report.address & ~0xfffn
    const withPasid = report.pasid >= 0
    const read = report.access === 'read' || report.access === 'execute'
    view.setBigUint64(at, BigInt.asUintN(64, info), true)
    view.setUint32(
      at + 8,
      (report.requester |
        (withPasid ? 0x8000_0000 : 0) |
        (withPasid && report.access === 'execute' ? 0x4000_0000 : 0) |
        (withPasid && report.privileged ? 0x2000_0000 : 0) |
        (report.access === 'page-request' ? 0x1000_0000 : 0)) >>>
        0,
      true,
    )
    view.setUint32(
      at + 12,
      (0x8000_0000 |
        (read ? 0x4000_0000 : 0) |
        (report.at << 28) |
        (withPasid ? report.pasid << 8 : 0) |
        code) >>>
        0,
      true,
    )
    if (!fsts.PPF) fsts.FRI = this.#next
    fsts.PPF = true
    this.#next = (this.#next + 1) % this.#count
    return 'recorded'
  }

  /** Sets IQE, ITE or ICE and raises the fault event if it is the first condition. */
  error(bit: 'IQE' | 'ITE'): void {
    const idle = !this.#anyCondition()
    this.#file.regs.FSTS_REG[bit] = true
    if (idle) this.#event.raise()
  }

  /** Recomputes PPF after software wrote a record or FSTS_REG. */
  acknowledge(): void {
    let pending = false
    for (let i = 0; i < this.#count && !pending; i++)
      pending = (this.#view.getUint32(FRCD_OFFSET + i * FRCD_SIZE + 12, true) & 0x8000_0000) !== 0
    this.#file.regs.FSTS_REG.PPF = pending
    if (!this.#anyCondition()) this.#event.serviced()
  }

  /** Both address and interrupt translation are off: the next record goes to register 0. */
  rewind(): void {
    this.#next = 0
  }

  reset(): void {
    this.#next = 0
    this.last = undefined
  }

  #anyCondition(): boolean {
    const { PPF, PFO, IQE, ICE, ITE } = this.#file.regs.FSTS_REG
    return PPF || PFO || IQE || ICE || ITE
  }
}
