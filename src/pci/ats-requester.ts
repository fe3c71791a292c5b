/**
 * How a function with address translation services makes its requests (PCIe 10.2): asks for translations, keeps
 * them in its cache, and presents what it then sends as translated requests. It works on the request and the
 * answer of the bus master it belongs to. Next: atc.ts (the cache), bus-master.ts.
 */
import type { DmaFailureReason } from './dma.js'
import type { AtsCapability } from './extended/ats.js'
import {
  AT,
  COMPLETION,
  type CompletionStatus,
  crossesMessages,
  MESSAGE_BASE,
  MESSAGE_SIZE,
  type MemoryRequest,
  NO_PASID,
  type Translation,
} from './request.js'
import type { UpstreamTranslator } from './upstream.js'

/** Moves bits 63:32 down. */
const HIGH_HALF = 2 ** -32
const REFUSED = -1
const UNTRANSLATED_ONLY = -2

/** The requests of one function. After a refusal `reason` and `status` say why. */
export class AtsRequester {
  reason: DmaFailureReason = 'refused'
  status: CompletionStatus = COMPLETION.SC
  readonly #ats: AtsCapability
  readonly #request: MemoryRequest
  readonly #answer: Translation
  /** Physical range that translated requests of the transfer under way may pass to. */
  #passFrom = 0
  #passTo = 0

  constructor(ats: AtsCapability, request: MemoryRequest, answer: Translation) {
    this.#ats = ats
    this.#request = request
    this.#answer = answer
  }

  /** Another transfer begins: nothing was let through for it yet. */
  begin(): void {
    this.#passTo = 0
  }

  /**
   * Translates the piece in the request and presents it as a translated one; false when it was refused. Makes the
   * piece longer, up to `left` bytes, where the cache and the answer allow it.
   */
  translate(translator: UpstreamTranslator, left: number): boolean {
    const r = this.#request
    const answer = this.#answer
    const { cache } = this.#ats
    let slot = cache.lookup(r)
    if (slot < 0 || !cache.permits(slot, r.write, r.execute)) {
      slot = this.#ask(translator)
      if (slot < 0) {
        if (slot === REFUSED) return false
        // The completion says U: this page takes untranslated requests only (PCIe 10.2.3.7).
        r.at = AT.UNTRANSLATED
        translator.translate(r, answer)
        return true
      }
    }
    const output = cache.output(slot, r.lo)
    if (output >= this.#passFrom && output < this.#passTo) {
      answer.status = COMPLETION.SC
      answer.output = output
      this.#lengthen(slot, output, left)
      return true
    }
    const { hi, lo, pasid, execute, privileged } = r
    r.at = AT.TRANSLATED
    r.hi = (output * HIGH_HALF) | 0
    r.lo = output | 0
    // Translated requests carry no prefix unless Translated Requests with PASID is enabled, which no
    // function here has (PCIe 6.20.2).
    r.pasid = NO_PASID
    r.execute = false
    r.privileged = false
    translator.translate(r, answer)
    r.at = AT.UNTRANSLATED
    r.hi = hi
    r.lo = lo
    r.pasid = pasid
    r.execute = execute
    r.privileged = privileged
    if (left > r.length && answer.status === COMPLETION.SC && answer.pageBits > 12) {
      this.#keepPass(output, answer.pageBits)
      this.#lengthen(slot, output, left)
    }
    return true
  }

  /** Asks for the translation of the page in the request and keeps it; false when there is none. */
  prefetch(translator: UpstreamTranslator): boolean {
    return this.#ask(translator) >= 0
  }

  #lengthen(slot: number, output: number, left: number): void {
    const r = this.#request
    const limit = Math.min(left, this.#passTo - output)
    if (limit <= r.length) return
    const span = this.#ats.cache.span(slot, r, limit, r.write, r.execute)
    if (r.pasid >= 0 || !crossesMessages(r.hi, r.lo, span)) r.length = span
  }

  /** One answer to a translated request lets the rest of its page pass, for this transfer only. */
  #keepPass(output: number, pageBits: number): void {
    const size = 1 << Math.min(pageBits, 30)
    const from = output - (output & (size - 1))
    const touchesMessages = from < MESSAGE_BASE + MESSAGE_SIZE && from + size > MESSAGE_BASE
    if (touchesMessages) return
    this.#passFrom = from
    this.#passTo = from + size
  }

  /** One translation request: a cache slot, `REFUSED`, or `UNTRANSLATED_ONLY`. */
  #ask(translator: UpstreamTranslator): number {
    const r = this.#request
    const answer = this.#answer
    const { lo, length } = r
    const { unitBits, cache } = this.#ats
    r.at = AT.TRANSLATION_REQUEST
    r.noWrite = !r.write
    r.lo = unitBits > 31 ? 0 : lo & (-1 << unitBits)
    answer.execute = false
    answer.untranslatedOnly = false
    translator.translateAts(r, answer)
    r.at = AT.UNTRANSLATED
    const asked = r.lo
    r.lo = lo
    r.length = length
    if (answer.status !== COMPLETION.SC)
      return this.#refuse(answer.status === COMPLETION.CA ? 'aborted' : 'refused', answer.status)
    if (!answer.read && !answer.write) return this.#refuse('not-present', COMPLETION.SC)
    if (answer.untranslatedOnly) return UNTRANSLATED_ONLY
    // A completion smaller than the granule the function was told of is malformed (PCIe 10.2.3.2).
    if (answer.pageBits < unitBits && ((lo ^ asked) & (-1 << answer.pageBits)) !== 0)
      return this.#refuse('aborted', COMPLETION.CA)
    r.lo = asked
    const slot = cache.insert(
      r,
      answer.output,
      answer.pageBits,
      answer.read,
      answer.write,
      answer.execute,
    )
    r.lo = lo
    if (!cache.permits(slot, r.write, r.execute))
      return this.#refuse('no-permission', COMPLETION.SC)
    return slot
  }

  #refuse(reason: DmaFailureReason, status: CompletionStatus): number {
    this.reason = reason
    this.status = status
    return REFUSED
  }
}
