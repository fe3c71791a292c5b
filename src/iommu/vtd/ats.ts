/**
 * Translation requests of devices with translation caches (VT-d 4.2, 7.1.3; PCIe 10.2). Each one walks
 * the tables: a device asks once and keeps the answer. Flags a device's later writes need are set now.
 */
import { FAILURE, PERM_EXECUTE, PERM_READ, type Walk } from '../../paging/walk.js'
import { COMPLETION, type MemoryRequest, NO_PASID, type Translation } from '../../pci/request.js'
import type { VtdConfig } from './config.js'
import type { Binding } from './entries.js'
import { FAULT_REASONS, type FaultName } from './fault-reasons.js'
import type { FaultEntry } from './faults.js'
import {
  addressOf,
  bindingEntry,
  coversInterruptRange,
  deny,
  IDENTITY_BITS,
  interruptOutputFault,
  isInterruptOutput,
  isInterruptRange,
  type Requests,
} from './requests.js'
import { PGTT } from './tables.js'
import { walkEntries, walkFault } from './walk-faults.js'
import { USER_SHIFT, type Walkers, walkAccess } from './walkers.js'

/** Answers translation requests of one unit. */
export class AtsTranslator {
  readonly #requests: Requests
  readonly #walkers: Walkers
  readonly #config: VtdConfig
  readonly #walk: Walk

  constructor(requests: Requests, walkers: Walkers, config: VtdConfig, walk: Walk) {
    this.#requests = requests
    this.#walkers = walkers
    this.#config = config
    this.#walk = walk
  }

  /** Answers one; the binding it used when tables were walked, for the trace. */
  answer(r: MemoryRequest, into: Translation): Binding | undefined {
    deny(into, COMPLETION.SC)
    const { pasid, hi, lo } = r
    if (pasid === NO_PASID && isInterruptRange(hi, lo)) {
      // Conditions S.1 and S.2: messages are written untranslated.
      into.output = addressOf(hi, lo)
      into.write = into.untranslatedOnly = this.#mayWrite(r)
      return undefined
    }
    const requests = this.#requests
    const b = requests.locate(r.requester, pasid, 'translation')
    if (!b) {
      const { failure, suppress } = requests.entries
      return this.#refuse(r, into, failure, requests.why(), suppress)
    }
    const privileged = requests.privileged(r)
    const execute = pasid !== NO_PASID && r.execute
    const refused =
      requests.forbids(b, privileged, execute) ??
      (b.pgtt === PGTT.PASS_THROUGH ? requests.refusesHostAddress(b.legacy, hi, lo) : undefined)
    if (refused) return this.#refuse(r, into, refused, bindingEntry(b), b.suppress)
    into.privileged = pasid !== NO_PASID && privileged
    if (b.pgtt !== PGTT.PASS_THROUGH) return this.#tables(r, into, b, privileged, execute)
    into.output = addressOf(hi, lo)
    into.pageBits = IDENTITY_BITS
    into.read = true
    into.write = this.#mayWrite(r)
    into.execute = execute
    return undefined
  }

  #tables(
    r: MemoryRequest,
    into: Translation,
    b: Binding,
    privileged: boolean,
    execute: boolean,
  ): Binding | undefined {
    const w = this.#walk
    const { hi, lo } = r
    let write = this.#mayWrite(r)
    let walked = this.#walkers.walk(b, hi, lo, walkAccess(b, write, false, privileged), w)
    if (!walked && write && w.failure === FAILURE.write) {
      write = false
      walked = this.#walkers.walk(b, hi, lo, walkAccess(b, false, false, privileged), w)
    }
    if (!walked) return this.#refuse(r, into, walkFault(w, b, false), walkEntries(w, b), b.suppress)
    if (isInterruptOutput(w.output))
      return this.#refuse(r, into, interruptOutputFault(b.legacy), walkEntries(w, b), b.suppress)
    const half = w.permissions >> (privileged ? 0 : USER_SHIFT)
    into.output = w.output
    into.pageBits = coversInterruptRange(w.output, w.pageBits) ? 12 : w.pageBits
    into.read = (half & PERM_READ) !== 0
    into.write = write
    into.execute = execute && into.read && (half & PERM_EXECUTE) !== 0
    return b
  }

  #mayWrite(r: MemoryRequest): boolean {
    return !(r.noWrite && this.#config.noWriteFlag)
  }

  /** Refuses; what the device can recover from is answered "no permission" and not recorded. */
  #refuse(
    r: MemoryRequest,
    into: Translation,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): undefined {
    const { ats } = FAULT_REASONS[name]
    deny(into, ats === 'none' ? COMPLETION.SC : COMPLETION[ats])
    if (ats !== 'none') this.#requests.report(r, name, entries, suppress)
    return undefined
  }
}
