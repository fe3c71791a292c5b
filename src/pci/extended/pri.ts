/**
 * Page Request Interface (PCIe 7.8.10, 10.4): the capability, and the protocol behind it: group indices,
 * the allocation limit, matching of responses.
 * Next: ../device-model.ts (how a device asks), ../upstream.ts (where requests go).
 */
import { bank, bits, flag, r16, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { EXTENDED } from '../ids.js'
import type { PciNode } from '../node.js'
import {
  type PageGroupResponse,
  type PageRequest,
  PRG_RESPONSE,
  type PrgResponseCode,
} from '../request.js'

/** The capability structure. */
export const PRI = bank('PRI capability', {
  Header: extendedHeader(EXTENDED.PRI, 1),
  Control: r16(0x04, 'PCIe 7.8.10.2', {
    Reset: flag(1, 'wo', 'with Enable clear: forget what is outstanding'),
    Enable: flag(0, 'rw', 'page requests may be issued'),
  }),
  Status: r16(
    0x06,
    'PCIe 7.8.10.3',
    {
      PRG_Response_PASID_Required: flag(15, 'ro', 'responses carry the PASID of their request'),
      Stopped: flag(8, 'ro', 'with Enable clear: nothing is outstanding'),
      Unexpected_PRG_Index: flag(1, 'rw1c', 'a response matched no request'),
      Response_Failure: flag(0, 'rw1c', 'a response failed; no request is issued while set'),
    },
    0x8100n,
  ),
  Outstanding_Capacity: r32(0x08, 'PCIe 7.8.10.4', {
    PAGES: bits(31, 0, 'ro', 'page requests that can be outstanding'),
  }),
  Outstanding_Allocation: r32(0x0c, 'PCIe 7.8.10.5', {
    PAGES: bits(31, 0, 'rw', 'page requests that may be outstanding'),
  }),
})

/** Why a page request was not issued: interface disabled or failed, or no allocation left. */
export type PageRequestRefusal = 'disabled' | 'failed' | 'full'

/** One group: consecutive pages under one PASID, one answer. */
export interface PageGroup {
  readonly pasid: number
  readonly hi: number
  readonly lo: number
  readonly pages: number
  readonly read: boolean
  readonly write: boolean
  readonly execute: boolean
  readonly privileged: boolean
}

interface Outstanding {
  readonly pasid: number
  readonly pages: number
  readonly answered: (code: PrgResponseCode) => void
}

const INDICES = 512

/** Page requests of one function. */
export class PriCapability implements Capability {
  readonly id = EXTENDED.PRI
  readonly extended = true
  readonly file: RegisterFile<typeof PRI>
  readonly #node: PciNode
  readonly #capacity: number
  readonly #outstanding = new Map<number, Outstanding>()
  #next = 0
  #pages = 0

  constructor(node: PciNode, capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > INDICES)
      throw new RangeError(`page request capacity ${capacity} is not 1 to ${INDICES}`)
    this.#node = node
    this.#capacity = capacity
    this.file = new RegisterFile(PRI, {
      onWrite: {
        Control: ({ Reset, Enable }) => {
          if (Reset && !Enable) this.#forget()
          this.#stopped()
        },
      },
    })
    this.reset()
  }

  get enabled(): boolean {
    return this.file.regs.Control.Enable
  }

  /** Page requests issued and not answered. */
  get outstandingPages(): number {
    return this.#pages
  }

  /**
   * Issues one group. `answered` runs when its response comes, and not at all when the function is
   * reset first. Pages beyond the top of the address space are the caller's to avoid.
   */
  request(
    group: PageGroup,
    answered: (code: PrgResponseCode) => void,
  ): PageRequestRefusal | undefined {
    const translator = this.#node.fabric.translator
    const { Control, Status, Outstanding_Allocation } = this.file.regs
    if (!Control.Enable || !translator) return 'disabled'
    if (Status.Response_Failure) return 'failed'
    const allowed = Math.min(Outstanding_Allocation.PAGES, this.#capacity)
    if (this.#pages + group.pages > allowed) return 'full'
    while (this.#outstanding.has(this.#next)) this.#next = (this.#next + 1) % INDICES
    const prgIndex = this.#next
    this.#next = (prgIndex + 1) % INDICES
    this.#outstanding.set(prgIndex, { pasid: group.pasid, pages: group.pages, answered })
    this.#pages += group.pages
    let { hi, lo } = group
    for (let i = 0; i < group.pages; i++) {
      const m: PageRequest = {
        requester: this.#node.bdf,
        pasid: group.pasid,
        hi,
        lo: lo & -4096,
        read: group.read,
        write: group.write,
        execute: group.execute,
        privileged: group.privileged,
        prgIndex,
        last: i === group.pages - 1,
      }
      translator.pageRequest(m)
      lo = (lo + 4096) | 0
      if ((lo & -4096) === 0) hi = (hi + 1) | 0
    }
    return undefined
  }

  /** Takes a PRG response. One that matches nothing sets Unexpected PRG Index. */
  respond(r: PageGroupResponse): void {
    const waiting = this.#outstanding.get(r.prgIndex)
    const { Status } = this.file.regs
    if (!waiting || waiting.pasid !== r.pasid) {
      // After a failure the function ignores whatever else comes (PCIe 7.8.10.3).
      if (!Status.Response_Failure) Status.Unexpected_PRG_Index = true
      return
    }
    const code =
      r.code === PRG_RESPONSE.SUCCESS || r.code === PRG_RESPONSE.INVALID
        ? r.code
        : PRG_RESPONSE.FAILURE
    this.#outstanding.delete(r.prgIndex)
    this.#pages -= waiting.pages
    const failed = code === PRG_RESPONSE.FAILURE ? [...this.#outstanding.values()] : []
    if (code === PRG_RESPONSE.FAILURE) {
      Status.Response_Failure = true
      this.#forget()
    }
    this.#stopped()
    waiting.answered(code)
    for (const other of failed) other.answered(PRG_RESPONSE.FAILURE)
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    this.file.regs.Outstanding_Capacity.PAGES = this.#capacity
    this.#forget()
    this.#next = 0
  }

  restore(): void {
    this.#forget()
  }

  #forget(): void {
    this.#outstanding.clear()
    this.#pages = 0
  }

  #stopped(): void {
    const { Control, Status } = this.file.regs
    Status.Stopped = !Control.Enable && this.#pages === 0
  }
}

/** PRI capability; `capacity` page requests can be outstanding, 1 to 512. */
export const pri =
  (options: { capacity?: number } = {}): CapabilityFactory =>
  node =>
    new PriCapability(node, options.capacity ?? 32)
