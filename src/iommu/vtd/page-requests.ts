/**
 * Recoverable faults: page requests into the page request queue, and the unit's own responses when a
 * request cannot be queued (VT-d 7.4, 7.5). Software's responses are descriptors: invalidate.ts.
 */
import type { LiveRegisters } from '../../base/registers.js'
import type { TracePoint } from '../../base/trace.js'
import {
  NO_PASID,
  type PageGroupResponse,
  type PageRequest,
  PRG_RESPONSE,
} from '../../pci/request.js'
import type { EventInterrupt } from './events.js'
import type { VTD_REGISTERS } from './registers.js'
import { PAGE_REQUEST_DESCRIPTOR, PAGE_REQUEST_TYPE } from './tables.js'

/** What became of a page request. */
export type PageRequestOutcome = 'queued' | 'refused' | 'overflow'

/** What the queue needs of its unit. */
export interface PageRequestUnit {
  readonly regs: LiveRegisters<typeof VTD_REGISTERS>
  readonly memory: { write(addr: number, from: Uint8Array): boolean }
  /** Walks to the PASID table entry; reports the fault and answers false when it cannot. */
  admit(m: PageRequest): boolean
  /** Drops what is cached for the page (VT-d 6.5.3.1). */
  forget(m: PageRequest): void
  /** Sends a response to the function. */
  respond(r: PageGroupResponse): void
}

const ENTRY = 32

/** The page request queue of one unit. */
export class PageRequestQueue {
  readonly #unit: PageRequestUnit
  readonly #event: EventInterrupt
  readonly #point: TracePoint<{ request: PageRequest; outcome: PageRequestOutcome }>
  readonly #descriptor = PAGE_REQUEST_DESCRIPTOR.create()

  constructor(
    unit: PageRequestUnit,
    event: EventInterrupt,
    point: TracePoint<{ request: PageRequest; outcome: PageRequestOutcome }>,
  ) {
    this.#unit = unit
    this.#event = event
    this.#point = point
  }

  /** Takes a page request message. */
  take(m: PageRequest): PageRequestOutcome {
    const outcome = this.#queue(m)
    if (this.#point.on) this.#point.emit({ request: { ...m }, outcome })
    // A Stop Marker wants no response (PCIe 10.4.1.2.1).
    if (outcome !== 'queued' && m.last && (m.read || m.write))
      this.#unit.respond({
        requester: m.requester,
        pasid: m.pasid,
        prgIndex: m.prgIndex,
        code: outcome === 'overflow' ? PRG_RESPONSE.SUCCESS : PRG_RESPONSE.INVALID,
      })
    return outcome
  }

  /** Software wrote PRS_REG. */
  acknowledge(): void {
    const { PPR, PRO } = this.#unit.regs.PRS_REG
    if (!PPR && !PRO) this.#event.serviced()
  }

  #queue(m: PageRequest): PageRequestOutcome {
    const { regs } = this.#unit
    if (!this.#unit.admit(m)) return 'refused'
    if (regs.PRS_REG.PRO) return 'overflow'
    const bytes = 4096 << regs.PQA_REG.PQS
    const tail = (regs.PQT_REG.PQT * ENTRY) % bytes
    const next = (tail + ENTRY) % bytes
    const idle = !regs.PRS_REG.PPR
    if (next === (regs.PQH_REG.PQH * ENTRY) % bytes) {
      regs.PRS_REG.PRO = true
      if (idle) this.#event.raise()
      return 'overflow'
    }
    this.#unit.forget(m)
    this.#describe(m)
    if (!this.#unit.memory.write(regs.PQA_REG.PQA + tail, this.#descriptor.bytes)) return 'refused'
    regs.PQT_REG.PQT = next / ENTRY
    regs.PRS_REG.PPR = true
    if (idle) this.#event.raise()
    return 'queued'
  }

  #describe(m: PageRequest): void {
    const d = this.#descriptor
    const withPasid = m.pasid !== NO_PASID
    d.TYPE = PAGE_REQUEST_TYPE
    d.PP = withPasid
    d.RID = m.requester
    d.PASID = withPasid ? m.pasid : 0
    d.EXR = withPasid && m.execute
    d.PMR = withPasid && m.privileged
    d.RDR = m.read
    d.WRR = m.write
    d.LPIG = m.last
    d.PRGI = m.prgIndex
    d.ADDR_LO = m.lo >>> 12
    d.ADDR_HI = m.hi >>> 0
  }
}
