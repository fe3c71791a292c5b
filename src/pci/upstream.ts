/**
 * The seams between the fabric and what sits above it. The fabric owns these interfaces; an IOMMU
 * implements the first two and calls the third. Without an IOMMU the fabric uses addresses as they are.
 * Next: fabric.ts, host-interrupts.ts.
 */
import type {
  AtsInvalidation,
  MemoryRequest,
  PageGroupResponse,
  PageRequest,
  Translation,
} from './request.js'

/** Value of `UpstreamTranslator.answers` while every request must be asked about. */
export const ASK_EACH_TIME = -1

/** Translates the requests of the functions below it. Called on the DMA path: must not allocate. */
export interface UpstreamTranslator {
  /**
   * A number that changes when an answer given by `translate` may not be given again: while it stays, a requester
   * may go by the last answer. `ASK_EACH_TIME`, or nothing, when somebody wants to see every request.
   */
  readonly answers?: number
  /**
   * Answers one piece of an untranslated (AT 0) or translated (AT 2) request that lies inside one
   * 4 KiB page. A refusal is `UR` or `CA` in `into.status`; the fault is the translator's to record.
   */
  translate(r: MemoryRequest, into: Translation): void
  /**
   * Answers an ATS translation request (AT 1) for the page of `r`. `SC` with neither `read` nor
   * `write` means that no translation exists now: ask again after a page request.
   */
  translateAts(r: MemoryRequest, into: Translation): void
  /** Takes a page request message. The answer comes later through `DownstreamPort.respond`. */
  pageRequest(m: PageRequest): void
}

/** Takes interrupt messages: memory writes of one dword to 0xFEEx_xxxx without a PASID prefix. */
export interface MessageSink {
  /**
   * Delivers a message. `requester` is the function's bdf, `address` the 32-bit address written (as a
   * non-negative number), `data` the dword written.
   */
  message(requester: number, address: number, data: number): void
}

/** Physical addresses where a written dword is an interrupt message: an interrupt controller's page. */
export interface Doorbell {
  readonly base: number
  readonly size: number
  readonly sink: MessageSink
}

/** What an IOMMU sends down to functions. The root complex implements it. */
export interface DownstreamPort {
  /**
   * Delivers an Invalidate Request to the function and says whether its completion came: false when
   * there is no such function, its ATS is disabled or it is in reset (the sender then times out).
   */
  invalidate(i: AtsInvalidation): boolean
  /** Delivers a PRG response to the function; one that matches no outstanding request is dropped there. */
  respond(r: PageGroupResponse): void
  /**
   * Tells a requester about a request that was answered with a `stalled` token (SMMUv3 stall model): issue
   * it again, or take it as aborted. Without this hook requesters have taken it as aborted already.
   */
  resume?(requester: number, token: number, retry: boolean): void
}
