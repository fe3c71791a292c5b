/**
 * Page requests into the PRI queue, and the unit's own responses when one cannot be queued (IHI 0070 8.1).
 * Requests are queued whatever the STE says; software decides. Software's responses are commands: execute.ts.
 */
import type { TracePoint } from '../../base/trace.js'
import {
  NO_PASID,
  type PageGroupResponse,
  type PageRequest,
  PRG_RESPONSE,
} from '../../pci/request.js'
import { PRI_RECORD, PRI_SIZE } from './events.js'
import type { OutputQueue } from './queues.js'

/** What became of a page request. */
export type PageRequestOutcome = 'queued' | 'refused' | 'overflow'

/** What the queue needs of its unit. */
export interface PageRequestUnit {
  readonly queue: OutputQueue
  readonly irq: { readonly LO: boolean }
  streamId(requester: number): number
  /** STE.PPAR of a requester; undefined when its STE cannot be used. */
  responsePasid(requester: number): boolean | undefined
  /** Sends a response to the function. */
  respond(r: PageGroupResponse): void
  interrupt(): void
}

/** The PRI queue of one unit. */
export class PageRequestQueue {
  readonly #unit: PageRequestUnit
  readonly #responsePasid: boolean
  readonly #point: TracePoint<{ request: PageRequest; outcome: PageRequestOutcome }>
  readonly #record = PRI_RECORD.at(new Uint8Array(PRI_SIZE))

  /** `responsePasid`: automatic responses carry the PASID of the request (IDR3.PPS). */
  constructor(
    unit: PageRequestUnit,
    responsePasid: boolean,
    point: TracePoint<{ request: PageRequest; outcome: PageRequestOutcome }>,
  ) {
    this.#unit = unit
    this.#responsePasid = responsePasid
    this.#point = point
  }

  /** Takes a page request message. */
  take(m: PageRequest): PageRequestOutcome {
    const outcome = this.#queue(m)
    if (this.#point.on) this.#point.emit({ request: { ...m }, outcome })
    if (outcome !== 'queued' && m.last && !isStopMarker(m)) this.#answer(m, outcome)
    return outcome
  }

  /** A queue that was empty has an entry. */
  filled(): void {
    if (!this.#unit.irq.LO) this.#unit.interrupt()
  }

  #queue(m: PageRequest): PageRequestOutcome {
    const { queue } = this.#unit
    if (!queue.usable) return 'refused'
    // An overflow keeps everything out until software acknowledged it.
    if (queue.overflowed) return 'overflow'
    if (queue.full) {
      queue.overflow()
      return 'overflow'
    }
    this.#describe(m)
    if (!queue.push(this.#record.bytes)) return 'refused'
    if (this.#unit.irq.LO && m.last) this.#unit.interrupt()
    return 'queued'
  }

  #answer(m: PageRequest, outcome: PageRequestOutcome): void {
    let code: PageGroupResponse['code'] =
      outcome === 'overflow' ? PRG_RESPONSE.SUCCESS : PRG_RESPONSE.FAILURE
    let withPasid = m.pasid !== NO_PASID
    if (withPasid && !this.#responsePasid) {
      const ppar = this.#unit.responsePasid(m.requester)
      if (ppar === undefined) code = PRG_RESPONSE.FAILURE
      withPasid = ppar === true
    }
    const pasid = withPasid ? m.pasid : NO_PASID
    this.#unit.respond({ requester: m.requester, pasid, prgIndex: m.prgIndex, code })
  }

  #describe(m: PageRequest): void {
    const d = this.#record
    const withPasid = m.pasid !== NO_PASID
    d.bytes.fill(0)
    d.StreamID = this.#unit.streamId(m.requester)
    d.SSV = withPasid
    d.SubstreamID = withPasid ? m.pasid : 0
    d.Priv = withPasid && m.privileged
    d.X = withPasid && m.execute
    d.R = m.read
    d.W = m.write
    d.Last = m.last
    d.PRGIndex = m.prgIndex
    d.ADDR_HI = m.hi >>> 0
    d.ADDR_LO = m.lo >>> 12
  }
}

/** A Stop Marker wants no response (PCIe 10.4.1.2.1). */
const isStopMarker = (m: PageRequest): boolean => m.pasid !== NO_PASID && !m.read && !m.write
