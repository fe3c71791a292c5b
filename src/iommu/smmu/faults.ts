/**
 * Faults and configuration errors: what the unit knows of one, and its record in the event queue
 * (IHI 0070 7.3). The structured fault, which tells more than a record holds, is built only here.
 * Which event applies: streams.ts, contexts.ts, translate.ts, ats.ts; the queue itself: queues.ts.
 */
import { halves, split } from '../../base/addr.js'
import type { VirtualClock } from '../../base/clock.js'
import type { TracePoint } from '../../base/trace.js'
import { NO_PASID } from '../../pci/request.js'
import {
  ATS_REQUEST_RECORD,
  CLASS,
  EVENT_SIZE,
  EVENTS,
  type EventName,
  FAULT_RECORD,
  FETCH_RECORD,
} from './events.js'
import type { FaultTrail } from './fault-trail.js'
import type { OutputQueue } from './queues.js'

/** What a request wanted when it failed. */
export type FaultAccess = 'read' | 'write' | 'execute' | 'page-request'

/** A table entry on the way to a fault. */
export interface FaultEntry {
  readonly kind: 'l1std' | 'ste' | 'l1cd' | 'cd' | 'stage-1' | 'stage-2'
  /** Physical address of the entry; of a nested stage 1 descriptor or a CD under stage 2, its IPA. */
  readonly at: number
  /** Its first 8 bytes as read. */
  readonly value: bigint
  /** Level of a translation table descriptor; 0 where levels do not apply. */
  readonly level: number
}

/** A fault as its discoverer knows it. */
export interface FaultReport {
  readonly name: EventName
  readonly requester: number
  readonly streamId: number
  /** `NO_PASID` when the request carried none. */
  readonly pasid: number
  readonly address: bigint
  readonly access: FaultAccess
  readonly privileged: boolean
  /** Address Type of the request. */
  readonly at: number
  /** Stage that failed; 0 where no stage was reached. */
  readonly stage: 0 | 1 | 2
  /** CLASS of the access that failed. */
  readonly class: number
  /** Stage 2: the address it was given. */
  readonly ipa: number
  /** Physical address of a fetch that failed. */
  readonly fetchAddress: number
  /** Where the way ended, outermost first. */
  readonly entries: readonly FaultEntry[]
  /** Its record may be merged with one that equals it: STE.MEV, or no STE was found yet (7.3.1). */
  readonly mergeable: boolean
}

/** A fault with everything that is known of it. */
export interface SmmuFault extends FaultReport {
  /** Virtual time in ns. */
  readonly time: number
  readonly code: number
  readonly section: string
  readonly meaning: string
  /**
   * What became of its record: in the queue, or lost because the queue is full, disabled or broken, or
   * not wanted (CD.R, STE.S2R, CR2); `merged`: the last record in the queue stands for it too; `stalled`: its
   * transaction waits, the record may still be due.
   */
  readonly record: 'recorded' | 'lost' | 'suppressed' | 'merged' | 'stalled'
  /** Everything that was read on the way there, when the unit can tell. */
  readonly trail?: FaultTrail
}

/** What is the same in most reports. */
export const NO_DETAIL = {
  stage: 0,
  class: CLASS.CD,
  ipa: 0,
  fetchAddress: 0,
  entries: [],
} as const satisfies Partial<FaultReport>

/** Builds faults, records them and tells who listens. */
export class FaultLog {
  /** The last fault seen, recorded or not; kept until reset. */
  last: SmmuFault | undefined = undefined
  /** Reads the way to a fault; set by who knows the tables. */
  trail: ((report: FaultReport) => FaultTrail) | undefined = undefined
  readonly #queue: OutputQueue
  readonly #clock: VirtualClock
  readonly #point: TracePoint<SmmuFault>
  readonly #onFault: ((fault: SmmuFault) => void) | undefined
  readonly #bytes = new Uint8Array(EVENT_SIZE)
  readonly #fault = FAULT_RECORD.at(this.#bytes)
  readonly #fetch = FETCH_RECORD.at(this.#bytes)
  readonly #request = ATS_REQUEST_RECORD.at(this.#bytes)
  readonly #mergeNs: number
  /** The last record that others may be merged into: its bytes, the queue's position behind it, its time. */
  readonly #kept = new Uint8Array(EVENT_SIZE)
  #keptEnd = -1
  #keptAt = 0

  /** `mergeNs`: see `SmmuConfig.eventMergeNs`. */
  constructor(
    queue: OutputQueue,
    clock: VirtualClock,
    point: TracePoint<SmmuFault>,
    mergeNs: number,
    onFault: ((fault: SmmuFault) => void) | undefined,
  ) {
    this.#mergeNs = mergeNs
    this.#queue = queue
    this.#clock = clock
    this.#point = point
    this.#onFault = onFault
  }

  /** Reports the fault of a terminated transaction; `wanted` false keeps it out of the queue. */
  report(report: FaultReport, wanted: boolean): void {
    this.#announce(report, wanted ? this.#write(report) : 'suppressed')
  }

  /** Reports the fault of a transaction that stalls; its record is `writeStall`'s. */
  reportStall(report: FaultReport): void {
    this.#announce(report, 'stalled')
  }

  /** True while the queue takes records. */
  get writable(): boolean {
    return this.#queue.writable
  }

  /** Writes the record of a stalled transaction; false when there is no room now. */
  writeStall(report: FaultReport, stag: number): boolean {
    if (!this.#queue.writable) return false
    this.#describe(report, stag)
    return this.#queue.push(this.#bytes)
  }

  /** The queue is another from now on: nothing is merged into what it held. */
  separate(): void {
    this.#keptEnd = -1
  }

  reset(): void {
    this.last = undefined
    this.separate()
  }

  /** Writes the record of a terminated transaction, unless the last one stands for it. */
  #write(report: FaultReport): SmmuFault['record'] {
    this.#describe(report, -1)
    const merging = report.mergeable && this.#mergeNs > 0
    if (merging && this.#sameAsLast()) return 'merged'
    if (!this.#queue.push(this.#bytes)) return 'lost'
    if (merging) {
      this.#kept.set(this.#bytes)
      this.#keptEnd = this.#queue.position
      this.#keptAt = this.#clock.now
    }
    return 'recorded'
  }

  #sameAsLast(): boolean {
    const queue = this.#queue
    if (!queue.usable || queue.empty || queue.position !== this.#keptEnd) return false
    if (this.#clock.now - this.#keptAt > this.#mergeNs) return false
    return this.#bytes.every((b, i) => b === this.#kept[i])
  }

  #announce(report: FaultReport, record: SmmuFault['record']): void {
    const { code, section, meaning } = EVENTS[report.name]
    const trail = this.trail?.(report)
    const fault: SmmuFault = {
      ...report,
      time: this.#clock.now,
      code,
      section,
      meaning,
      record,
      ...(trail && { trail }),
    }
    this.last = fault
    if (this.#point.on) this.#point.emit(fault)
    this.#onFault?.(fault)
  }

  #describe(f: FaultReport, stag: number): void {
    const { code, shape } = EVENTS[f.name]
    const record = this.#fault
    this.#bytes.fill(0)
    record.EventID = code
    record.StreamID = f.streamId
    if (shape === 'stream') return
    if (f.pasid !== NO_PASID && shape !== 'translated') {
      record.SSV = shape !== 'bad-substream'
      record.SubstreamID = f.pasid
    }
    if (shape === 'substream' || shape === 'bad-substream') return
    if (shape === 'fetch') {
      this.#fetch.FetchAddr = f.fetchAddress
      return
    }
    split(shape === 'request' ? f.address & ~0xfffn : f.address)
    record.InputAddr_LO = halves[0]!
    record.InputAddr_HI = halves[1]!
    if (shape === 'request') {
      const request = this.#request
      request.R = true
      request.W = f.access === 'write'
      request.X = f.access === 'execute'
      request.PRIV = f.privileged
      request.Span = 1
      return
    }
    record.RnW = f.access !== 'write'
    if (shape === 'translated') return
    record.InD = f.access === 'execute'
    record.PnU = f.privileged
    record.S2 = f.stage === 2
    record.CLASS = f.class
    if (shape === 'walk') this.#fetch.FetchAddr = f.fetchAddress
    else {
      if (f.stage === 2) record.IPA = f.ipa
      record.Stall = stag >= 0
      record.STAG = Math.max(stag, 0)
    }
  }
}
