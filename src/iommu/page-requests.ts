/**
 * Page requests that wait for an answer. Only the last page of a group is kept and answered; earlier ones
 * are delivered and forgotten. Who delivers: core.ts; who sends the answer to the device: the driver.
 */
import type { VirtualClock } from '../base/clock.js'
import { ErrnoError } from '../base/errno.js'
import { NO_PASID } from '../pci/request.js'
import {
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_PASID_VALID,
  IOMMU_PAGE_RESP_VERSION_1,
  type IommuFault,
  type IommuPageResponse,
} from './uapi.js'

interface Pending {
  readonly fault: IommuFault
  readonly cancelTimeout: () => void
}

/** Sends an answer to a device; `code` of IOMMU_PAGE_RESP_*. */
export type Answer = (bdf: number, request: IommuFault, code: number) => void

/** The unanswered page requests of all functions. */
export class PageRequests {
  readonly #clock: VirtualClock
  readonly #timeoutNs: number
  readonly #answer: Answer
  readonly #pending = new Map<number, Pending[]>()

  /** `timeoutNs` of 0 waits for ever; otherwise a request is answered INVALID when it has waited that long. */
  constructor(clock: VirtualClock, timeoutNs: number, answer: Answer) {
    this.#clock = clock
    this.#timeoutNs = timeoutNs
    this.#answer = answer
  }

  /** Requests that wait, of one function or of all. */
  count(bdf?: number): number {
    if (bdf !== undefined) return this.#pending.get(bdf)?.length ?? 0
    let n = 0
    for (const list of this.#pending.values()) n += list.length
    return n
  }

  /** Remembers a request before it is delivered, if it is one that is answered. */
  expect(bdf: number, fault: IommuFault): void {
    if (!(fault.event.prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE)) return
    let list = this.#pending.get(bdf)
    if (list === undefined) this.#pending.set(bdf, (list = []))
    list.push({ fault, cancelTimeout: this.#startTimeout(bdf, fault) })
  }

  /** Forgets a request that could not be delivered; its answer is the driver's matter. */
  forget(bdf: number, fault: IommuFault): void {
    const list = this.#pending.get(bdf)
    const at = list?.findIndex(p => p.fault === fault) ?? -1
    if (list !== undefined && at >= 0) this.#take(bdf, list, at)
  }

  /**
   * Answers the request that a response names. EINVAL for a bad version, flags or code, and when nothing matches:
   * the group index must be that of a waiting request and, if that needs it, the PASID too.
   */
  respond(bdf: number, r: IommuPageResponse): void {
    if (r.version !== IOMMU_PAGE_RESP_VERSION_1 || r.flags & ~IOMMU_PAGE_RESP_PASID_VALID)
      throw new ErrnoError('EINVAL', `page response: version ${r.version}, flags ${r.flags}`)
    if (r.code > 2) throw new ErrnoError('EINVAL', `page response: code ${r.code}`)
    const list = this.#pending.get(bdf)
    const at = list?.findIndex(p => matches(p.fault, r)) ?? -1
    if (list === undefined || at < 0)
      throw new ErrnoError('EINVAL', `page response: no request of group ${r.grpid} waits`)
    this.#answer(bdf, this.#take(bdf, list, at), r.code)
  }

  /** Answers INVALID to what waits of one function, or of one PASID of it (`NO_PASID`: of none). */
  cancel(bdf: number, pasid?: number): void {
    const list = this.#pending.get(bdf)
    for (let i = 0; list !== undefined && i < list.length; ) {
      const { flags, pasid: of } = list[i]!.fault.event.prm
      const has = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
      if (pasid === undefined || (has ? of : NO_PASID) === pasid)
        this.#answer(bdf, this.#take(bdf, list, i), IOMMU_PAGE_RESP_INVALID)
      else i++
    }
  }

  #take(bdf: number, list: Pending[], at: number): IommuFault {
    const [p] = list.splice(at, 1)
    if (list.length === 0) this.#pending.delete(bdf)
    p!.cancelTimeout()
    return p!.fault
  }

  #startTimeout(bdf: number, fault: IommuFault): () => void {
    if (this.#timeoutNs === 0) return () => {}
    const timer = this.#clock.later(() => {
      this.forget(bdf, fault)
      this.#answer(bdf, fault, IOMMU_PAGE_RESP_INVALID)
    }, this.#timeoutNs)
    return () => timer.cancel()
  }
}

function matches(fault: IommuFault, r: IommuPageResponse): boolean {
  const { flags, grpid, pasid } = fault.event.prm
  if (grpid !== r.grpid) return false
  if (!(flags & IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID)) return true
  return (r.flags & IOMMU_PAGE_RESP_PASID_VALID) !== 0 && r.pasid === pasid
}
