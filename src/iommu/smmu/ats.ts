/**
 * ATS traffic: translation requests, which are answered with permissions or refused, and translated
 * requests, which pass only where software allowed them (IHI 0070 3.9.1, 13.6, 13.7). Each translation
 * request walks the tables: a device asks once and keeps the answer.
 */
import { FAILURE, PERM_EXECUTE, PERM_READ, PERM_WRITE, Walk } from '../../paging/walk.js'
import { COMPLETION, type MemoryRequest, NO_PASID, type Translation } from '../../pci/request.js'
import type { SmmuConfig } from './config.js'
import { CLASS, EVENTS } from './events.js'
import { type FaultLog, NO_DETAIL } from './faults.js'
import {
  addressOf,
  type Binding,
  bindingEntries,
  deny,
  executes,
  isBinding,
  privileged,
  type Refusal,
  type Requests,
} from './requests.js'
import { EATS } from './ste.js'
import type { Stream } from './streams.js'
import type { TranslationRegisters } from './translate.js'
import { walkFault } from './walk-faults.js'
import { rangeOf, USER_SHIFT, untagged, type Walkers, walkAccess } from './walkers.js'

/** log2 of what an identity answer to a translation request holds for. */
const IDENTITY_BITS = 30

/** Answers the ATS traffic of one unit. */
export class AtsTranslator {
  readonly #requests: Requests
  readonly #walkers: Walkers
  readonly #config: SmmuConfig
  readonly #regs: TranslationRegisters
  readonly #faults: FaultLog
  readonly #limit: number
  readonly #walk = new Walk()

  constructor(
    requests: Requests,
    walkers: Walkers,
    config: SmmuConfig,
    regs: TranslationRegisters,
    faults: FaultLog,
  ) {
    this.#requests = requests
    this.#walkers = walkers
    this.#config = config
    this.#regs = regs
    this.#faults = faults
    this.#limit = 2 ** config.outputAddressBits
  }

  /** Answers a translation request; the binding it used when tables were walked, for the trace. */
  request(r: MemoryRequest, into: Translation): Binding | undefined {
    deny(into, COMPLETION.UR)
    const requests = this.#requests
    if (!this.#regs.CR0ACK.SMMUEN) return this.#forbidden(r, undefined)
    const stream = requests.stream(r.requester)
    if (!stream) return this.#misconfigured(r, into, undefined, requests.streamRefusal())
    if (stream.abort) return undefined
    const eats = this.#eats(stream)
    if (eats === EATS.NONE) return this.#forbidden(r, stream)
    const b = requests.binding(stream, r.pasid)
    if (!isBinding(b)) return this.#misconfigured(r, into, stream, b)
    into.status = COMPLETION.SC
    into.privileged = r.pasid !== NO_PASID && privileged(r, stream)
    if (!b.context && addressOf(r.hi, r.lo) >= this.#limit) return undefined
    if (b.context || stream.stage2) return this.#tables(r, into, b, eats)
    into.output = addressOf(r.hi, r.lo)
    into.pageBits = IDENTITY_BITS
    into.read = true
    into.write = true
    return undefined
  }

  /**
   * Decides about a translated request: 'pass' when its address is to be used as it is; the binding when
   * stage 2 translated it; undefined when it was refused.
   */
  translated(r: MemoryRequest, into: Translation): Binding | 'pass' | undefined {
    deny(into, COMPLETION.UR)
    const requests = this.#requests
    const { CR0ACK, CR2 } = this.#regs
    if (!CR0ACK.SMMUEN || !this.#config.ats) return this.#translationForbidden(r, undefined)
    if (CR0ACK.ATSCHK) {
      const stream = requests.stream(r.requester)
      if (!stream) {
        const why = requests.streamRefusal()
        this.#faults.report(requests.report(r, undefined, why), CR2.REC_CFG_ATS)
        return undefined
      }
      if (stream.abort) return undefined
      const eats = this.#eats(stream)
      if (eats === EATS.NONE) return this.#translationForbidden(r, stream)
      if (eats === EATS.SPLIT) return this.#throughStage2(r, into, stream)
    }
    return addressOf(r.hi, r.lo) < this.#limit ? 'pass' : undefined
  }

  /** The EATS that counts (5.2): none where nothing translates, split only under ATSCHK. */
  #eats(stream: Stream): number {
    if (!stream.stage1 && !stream.stage2) return EATS.NONE
    return stream.eats === EATS.SPLIT && !this.#regs.CR0ACK.ATSCHK ? EATS.NONE : stream.eats
  }

  #tables(r: MemoryRequest, into: Translation, b: Binding, eats: number): Binding | undefined {
    const w = this.#walk
    const { lo } = r
    const { stream } = b
    const hi = untagged(rangeOf(b, r.hi), r.hi)
    const asPrivileged = privileged(r, stream)
    let write = !r.noWrite
    let walked = this.#walkers.walk(b, hi, lo, walkAccess(b, write, false, asPrivileged), w)
    if (!walked && write && refusesAccess(w)) {
      write = false
      walked = this.#walkers.walk(b, hi, lo, walkAccess(b, false, false, asPrivileged), w)
    }
    if (!walked) {
      const fault = walkFault(w, CLASS.IN)
      if (EVENTS[fault.name].ats === 'CA') {
        const entries = [...bindingEntries(b), ...fault.entries]
        return this.#misconfigured(r, into, stream, { ...fault, entries, ofStage2: false })
      }
      return undefined
    }
    const half = w.permissions >> (asPrivileged ? 0 : USER_SHIFT)
    const read = (half & PERM_READ) !== 0
    // There is no answer that grants writes alone.
    if (!read) return undefined
    let output = w.output
    if (eats === EATS.SPLIT)
      output = b.context
        ? this.#walkers.intermediate(b, hi, lo, walkAccess(b, false, false, asPrivileged))
        : addressOf(r.hi, r.lo)
    into.output = output
    into.pageBits = w.pageBits
    into.read = true
    into.write = write && (half & PERM_WRITE) !== 0
    into.execute = r.pasid !== NO_PASID && executes(r, stream) && (half & PERM_EXECUTE) !== 0
    return b
  }

  /** A translated request under split-stage ATS carries an IPA (13.6.3). */
  #throughStage2(r: MemoryRequest, into: Translation, stream: Stream): Binding | undefined {
    const stage2 = stream.stage2!
    const b: Binding = {
      stream,
      context: undefined,
      modes: stage2.modes,
      domain: stream.vmid,
      asid: -1,
      source: 1,
      globalSource: 0,
      kind: 0,
    }
    const address = addressOf(r.hi, r.lo)
    const w = this.#walk
    const within = address < this.#limit
    if (
      within &&
      this.#walkers.walk(b, r.hi, r.lo, walkAccess(b, r.write, executes(r, stream), false), w)
    ) {
      into.status = COMPLETION.SC
      into.output = w.output
      into.pageBits = w.pageBits
      into.read = (w.permissions & PERM_READ) !== 0
      into.write = (w.cacheable & PERM_WRITE) !== 0
      return b
    }
    const fault = within
      ? walkFault(w, CLASS.IN, address)
      : ({ ...NO_DETAIL, name: 'F_ADDR_SIZE', stage: 1, class: CLASS.IN } as const)
    const entries = [stream.entry, ...fault.entries]
    const wanted = !within || fault.name === 'F_WALK_EABT' || stage2.record
    this.#faults.report(this.#requests.report(r, stream, { ...fault, entries }), wanted)
    return undefined
  }

  #forbidden(r: MemoryRequest, stream: Stream | undefined): undefined {
    const entries = stream ? [stream.entry] : []
    const why = { ...NO_DETAIL, name: 'F_BAD_ATS_TREQ', entries } as const
    this.#faults.report(this.#requests.report(r, stream, why), true)
    return undefined
  }

  #translationForbidden(r: MemoryRequest, stream: Stream | undefined): undefined {
    const entries = stream ? [stream.entry] : []
    const why = { ...NO_DETAIL, name: 'F_TRANSL_FORBIDDEN', entries } as const
    this.#faults.report(this.#requests.report(r, stream, why), true)
    return undefined
  }

  /** Answers a translation request that met an error as 3.9.1.2 tells; what a page request can cure is not recorded. */
  #misconfigured(
    r: MemoryRequest,
    into: Translation,
    stream: Stream | undefined,
    why: Refusal,
  ): undefined {
    const { CR2 } = this.#regs
    const answer = EVENTS[why.name].ats
    into.status = answer === 'none' ? COMPLETION.SC : COMPLETION.CA
    if (answer === 'none') return undefined
    // F_STREAM_DISABLED of a translation request is never recorded (5.2, S1DSS).
    const wanted =
      CR2.REC_CFG_ATS &&
      why.name !== 'F_STREAM_DISABLED' &&
      (why.name !== 'C_BAD_STREAMID' || CR2.RECINVSID)
    this.#faults.report(this.#requests.report(r, stream, why), wanted)
    return undefined
  }
}

/** True when a walk failed for want of a permission, of either stage, for the page itself. */
const refusesAccess = (w: Walk): boolean =>
  w.failure === FAILURE.write || w.failure === FAILURE.read || w.failure === FAILURE.user
