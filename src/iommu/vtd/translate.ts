/**
 * The DMA path: untranslated, translated and translation requests (VT-d 3.4 to 3.8, 4.2). In front of
 * the IOTLB lies a small table of finished answers keyed by requester, PASID and page; it forgets
 * everything at every invalidation. Tables: entries.ts; caches: caches.ts; reasons: walk-faults.ts.
 */
import { join } from '../../base/addr.js'
import type { TracePoint } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  FAILURE,
  PERM_ALL,
  PERM_EXECUTE,
  PERM_READ,
  PERM_USER_EXECUTE,
  PERM_USER_READ,
  PERM_WRITE,
  Walk,
} from '../../paging/walk.js'
import {
  AT,
  COMPLETION,
  type MemoryRequest,
  NO_PASID,
  type PageRequest,
  type Translation,
} from '../../pci/request.js'
import { Caches } from './caches.js'
import type { VtdConfig } from './config.js'
import { type Binding, type Context, Entries } from './entries.js'
import { FAULT_REASONS, type FaultName } from './fault-reasons.js'
import type { FaultAccess, FaultEntry, FaultLog } from './faults.js'
import { TTM } from './registers.js'
import { PGTT, TT } from './tables.js'
import type { TranslatedStage, TranslationEvent } from './trace.js'
import { walkEntries, walkFault } from './walk-faults.js'
import { Walkers } from './walkers.js'

const HI = 0x1_0000_0000
/** First megabyte of the interrupt address range, FEEx_xxxxh. */
const INTERRUPT_MEGABYTE = 0xfee
/** log2 of what an untranslated answer is told to hold for: the interrupt range is one such piece. */
const IDENTITY_BITS = 20
/** Permissions of one privilege, shifted down to the supervisor's place. */
const HALF = PERM_READ | PERM_WRITE | PERM_EXECUTE
const USER_SHIFT = 3

/** Answers in front of the IOTLB: 2^FRONT_BITS, 8 words each. */
const FRONT_BITS = 11
const FRONT_MASK = (1 << FRONT_BITS) - 1

/** Where a request is going: which kind of request asks for the binding. */
type Purpose = 'untranslated' | 'translation' | 'page-request'

/** Translates the requests of one unit. */
export class Translator {
  readonly entries: Entries
  readonly caches: Caches
  readonly #config: VtdConfig
  readonly #faults: FaultLog
  readonly #walkers: Walkers
  readonly #point: TracePoint<TranslationEvent>
  readonly #limit: number
  readonly #walk = new Walk()
  #enabled = false
  /** Set by `#locate`: the context of the binding it found. */
  #context: Context | undefined
  // Page, high half, PASID, requester | epoch, permissions | page bits << 8; output page.
  readonly #front = new Int32Array(8 << FRONT_BITS)
  readonly #frontOutput = new Float64Array(1 << FRONT_BITS)

  constructor(
    memory: AddressSpace,
    config: VtdConfig,
    faults: FaultLog,
    point: TracePoint<TranslationEvent>,
  ) {
    this.#config = config
    this.#faults = faults
    this.#point = point
    this.#limit = 2 ** config.hostAddressWidth
    this.entries = new Entries(memory, config)
    this.caches = new Caches(this.entries, () => this.#front.fill(0))
    this.#walkers = new Walkers(memory, config)
  }

  reset(): void {
    this.entries.root = 0
    this.entries.mode = TTM.LEGACY
    this.#enabled = false
    this.caches.clear()
  }

  /** SRTP: takes the root table, and drops everything that was cached (CAP.ESRTPS). */
  latchRoot(root: number, mode: number): void {
    this.entries.root = root
    this.entries.mode = mode
    this.caches.clear()
  }

  /** TE. */
  enable(enabled: boolean): void {
    this.#enabled = enabled
    this.caches.touch()
  }

  /** Answers an untranslated or translated request; see `UpstreamTranslator`. */
  translate(r: MemoryRequest, into: Translation): void {
    if (r.at === AT.UNTRANSLATED) {
      const { lo, hi, pasid, requester } = r
      const slot =
        ((lo >>> 12) + Math.imul(pasid, 0x9e35) + Math.imul(hi, 0x85eb) + requester) & FRONT_MASK
      const front = this.#front
      const i = slot << 3
      if (
        front[i] === (lo & -4096) &&
        front[i + 1] === hi &&
        front[i + 2] === pasid &&
        front[i + 3] === (requester | this.caches.epoch)
      ) {
        const word = front[i + 4]!
        const rights = r.privileged ? word : word >> USER_SHIFT
        const need = needed(r)
        if ((rights & need) === need && !this.#point.on) {
          into.status = COMPLETION.SC
          into.output = this.#frontOutput[slot]! + (lo & 4095)
          into.pageBits = word >> 8
          into.read = (rights & PERM_READ) !== 0
          into.write = (rights & PERM_WRITE) !== 0
          return
        }
      }
      this.#untranslated(r, into, slot)
    } else this.#translated(r, into)
  }

  /** Answers a translation request; see `UpstreamTranslator`. */
  translateAts(r: MemoryRequest, into: Translation): void {
    deny(into, COMPLETION.SC)
    if (!this.#enabled) {
      into.status = COMPLETION.UR
      return
    }
    const { pasid, hi, lo } = r
    if (pasid === NO_PASID && isInterruptRange(hi, lo)) {
      // S.1 and S.2 of VT-d 7.1.3: messages are written untranslated.
      into.output = addressOf(hi, lo)
      into.write = into.untranslatedOnly = !(r.noWrite && this.#config.noWriteFlag)
      return
    }
    const b = this.#locate(r.requester, pasid, 'translation')
    if (!b) {
      this.#refuseAts(r, into, this.entries.failure, this.#why(), this.entries.suppress)
      return
    }
    const privileged = this.#privileged(r)
    const execute = pasid !== NO_PASID && r.execute
    const refused = this.#forbids(b, privileged, execute)
    if (refused) this.#refuseAts(r, into, refused, this.#bindingEntry(b), b.suppress)
    else if (b.pgtt === PGTT.PASS_THROUGH) this.#passThroughAts(r, into, b)
    else this.#walkAts(r, into, b, privileged, execute)
  }

  /** Looks a page request's tables up (VT-d 7.4.1); reports why not and answers false when it may not be queued. */
  admitPageRequest(m: PageRequest): boolean {
    if (!this.#enabled) return false
    if (this.#locate(m.requester, m.pasid, 'page-request')) return true
    this.#faults.report(
      {
        name: this.entries.failure,
        requester: m.requester,
        pasid: m.pasid,
        address: join(m.hi, m.lo),
        access: 'page-request',
        privileged: m.privileged,
        at: AT.UNTRANSLATED,
        entries: this.#why(),
      },
      this.entries.suppress,
    )
    return false
  }

  /** Drops what is cached for the page of an admitted page request (VT-d 6.5.3.1). */
  forgetPage(m: PageRequest): void {
    const b = this.#locate(m.requester, m.pasid, 'page-request')
    if (!b) return
    if (b.pgtt === PGTT.FIRST_STAGE)
      this.caches.pasidIotlb('page', b.did, b.tagPasid, m.hi, m.lo & -4096, 0)
    else this.caches.iotlb(b.pgtt === PGTT.NESTED ? 'domain' : 'page', b.did, m.hi, m.lo & -4096, 0)
  }

  /** An untranslated request that the front table does not answer. */
  #untranslated(r: MemoryRequest, into: Translation, slot: number): void {
    const { hi, lo, pasid } = r
    if (!this.#enabled) {
      this.#identity(r, into, 'off', -1)
      return
    }
    if (pasid === NO_PASID && isInterruptRange(hi, lo)) {
      // A real interrupt takes the other path: MessageSink.
      this.#refuse(r, into, 'notAnInterrupt', [], false)
      return
    }
    const b = this.#locate(r.requester, pasid, 'untranslated')
    if (!b) {
      this.#refuse(r, into, this.entries.failure, this.#why(), this.entries.suppress)
      return
    }
    const privileged = this.#privileged(r)
    const execute = pasid !== NO_PASID && r.execute
    const refused = this.#forbids(b, privileged, execute)
    if (refused) {
      this.#refuse(r, into, refused, this.#bindingEntry(b), b.suppress)
      return
    }
    if (b.pgtt === PGTT.PASS_THROUGH) {
      const beyond = this.#passThroughFault(b, hi, lo)
      if (beyond) this.#refuse(r, into, beyond, this.#bindingEntry(b), b.suppress)
      else this.#identity(r, into, 'pass-through', b.did)
      return
    }
    this.#throughTables(r, into, b, privileged, execute, slot)
  }

  #throughTables(
    r: MemoryRequest,
    into: Translation,
    b: Binding,
    privileged: boolean,
    execute: boolean,
    slot: number,
  ): void {
    const { hi, lo } = r
    const { caches } = this
    const shift = privileged ? 0 : USER_SHIFT
    const need = r.write ? PERM_WRITE : execute ? PERM_READ | PERM_EXECUTE : PERM_READ
    const found = caches.find(b, hi, lo)
    let rights: number
    let pageBits: number
    let output: number
    const cached = found && ((caches.rights >> shift) & need) === need
    if (cached) {
      rights = caches.rights
      pageBits = caches.pageBits
      output = caches.output
    } else {
      const w = this.#walk
      if (!this.#walkers.walk(b, hi, lo, walkAccess(b, r.write, execute, privileged), w)) {
        const name = walkFault(w, b, r.write)
        this.#refuse(r, into, name, walkEntries(w, b), b.suppress)
        return
      }
      rights = w.cacheable & PERM_ALL
      if (!b.noExecute && b.tagPasid !== NO_PASID)
        rights |= (rights & (PERM_READ | PERM_USER_READ)) << 2
      pageBits = w.pageBits
      output = w.output
      if (isInterruptOutput(output)) {
        const name = b.legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
        this.#refuse(r, into, name, walkEntries(w, b), b.suppress)
        return
      }
      caches.keep(b, hi, lo, pageBits, output, rights)
    }
    if (pageBits > 12 && coversInterruptRange(output, pageBits)) {
      if (isInterruptOutput(output)) {
        const name = b.legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
        this.#refuse(r, into, name, this.#bindingEntry(b), b.suppress)
        return
      }
      pageBits = 12
    }
    const half = (rights >> shift) & HALF
    into.status = COMPLETION.SC
    into.output = output
    into.pageBits = pageBits
    into.read = (half & PERM_READ) !== 0
    into.write = (half & PERM_WRITE) !== 0
    this.#fillFront(r, b, half, rights, pageBits, output, slot)
    if (this.#point.on) this.#traceTables(r, b, into, cached)
  }

  #fillFront(
    r: MemoryRequest,
    b: Binding,
    half: number,
    rights: number,
    pageBits: number,
    output: number,
    slot: number,
  ): void {
    let kept = rights
    // Without a PASID the context decides the privilege: both halves say the same.
    if (r.pasid === NO_PASID) kept = (half & ~PERM_EXECUTE) * (1 + (1 << USER_SHIFT))
    else {
      if (!b.supervisorAllowed) kept &= ~HALF
      if (!b.executeAllowed || !this.#config.executeRequests)
        kept &= ~(PERM_EXECUTE | PERM_USER_EXECUTE)
    }
    const front = this.#front
    const i = slot << 3
    front[i] = r.lo & -4096
    front[i + 1] = r.hi
    front[i + 2] = r.pasid
    front[i + 3] = r.requester | this.caches.epoch
    front[i + 4] = kept | (pageBits << 8)
    this.#frontOutput[slot] = output - (r.lo & 4095)
  }

  /** A translated request: no translation, but the device must be allowed to make them (VT-d 4.2.3). */
  #translated(r: MemoryRequest, into: Translation): void {
    const { hi, lo } = r
    if (!this.#enabled) {
      deny(into, COMPLETION.UR)
      return
    }
    const c = this.entries.context(r.requester)
    if (!c) {
      this.#refuse(r, into, this.entries.failure, this.#why(), this.entries.suppress)
      return
    }
    const legacy = c.binding !== undefined
    const output = addressOf(hi, lo)
    let name: FaultName | undefined
    if (!c.deviceTlb) name = legacy ? 'translationTypeBlocked' : 'deviceTlbDisabled'
    else if (output >= this.#limit) name = legacy ? 'addressBeyondWidth' : 'hostAddressBeyondWidth'
    else if (isInterruptOutput(output))
      name = legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
    if (name) this.#refuse(r, into, name, [], c.suppress)
    else this.#identity(r, into, 'translated', c.did)
  }

  #passThroughAts(r: MemoryRequest, into: Translation, b: Binding): void {
    const beyond = this.#passThroughFault(b, r.hi, r.lo)
    if (beyond) {
      this.#refuseAts(r, into, beyond, this.#bindingEntry(b), b.suppress)
      return
    }
    into.output = addressOf(r.hi, r.lo)
    into.pageBits = IDENTITY_BITS
    into.read = true
    into.write = !(r.noWrite && this.#config.noWriteFlag)
    into.execute = r.pasid !== NO_PASID && r.execute
    into.privileged = r.pasid !== NO_PASID && r.privileged
  }

  #walkAts(
    r: MemoryRequest,
    into: Translation,
    b: Binding,
    privileged: boolean,
    execute: boolean,
  ): void {
    const w = this.#walk
    const { hi, lo } = r
    // A device that may write is given W only with the dirty flag set: it will not ask again.
    const writes = !(r.noWrite && this.#config.noWriteFlag)
    const access = (write: boolean) => walkAccess(b, write, false, privileged)
    let walked = this.#walkers.walk(b, hi, lo, access(writes), w)
    let mayWrite = walked && writes
    if (!walked && writes && w.failure === FAILURE.write) {
      walked = this.#walkers.walk(b, hi, lo, access(false), w)
      mayWrite = false
    }
    if (!walked) {
      this.#refuseAts(r, into, walkFault(w, b, false), walkEntries(w, b), b.suppress)
      return
    }
    if (isInterruptOutput(w.output)) {
      const name = b.legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
      this.#refuseAts(r, into, name, walkEntries(w, b), b.suppress)
      return
    }
    const half = w.permissions >> (privileged ? 0 : USER_SHIFT)
    into.output = w.output
    into.pageBits = coversInterruptRange(w.output, w.pageBits) ? 12 : w.pageBits
    into.read = (half & PERM_READ) !== 0
    into.write = mayWrite
    into.execute = execute && into.read && (!b.noExecute || (half & PERM_EXECUTE) !== 0)
    into.privileged = r.pasid !== NO_PASID && privileged
    if (this.#point.on) this.#traceTables(r, b, into, false)
  }

  /** Finds the binding of a request; otherwise `entries.failure` says why there is none. */
  #locate(requester: number, pasid: number, purpose: Purpose): Binding | undefined {
    const { entries } = this
    this.#context = undefined
    if (entries.mode === TTM.LEGACY) {
      if (purpose === 'page-request') return entries.refuse('legacyModePageRequest')
      if (pasid !== NO_PASID) return entries.refuse('legacyModeWithPasid')
    }
    const c = entries.context(requester)
    if (!c) return undefined
    this.#context = c
    if (c.binding) {
      if (purpose === 'translation' && c.tt !== TT.DEVICE_TLB)
        return entries.refuse('translationTypeBlocked', c.suppress)
      return c.binding
    }
    if (purpose === 'translation' && !c.deviceTlb)
      return entries.refuse('deviceTlbDisabled', c.suppress)
    if (purpose === 'page-request' && !c.pageRequests)
      return entries.refuse('pageRequestDisabled', c.suppress)
    if (pasid === NO_PASID) return entries.binding(requester, c, c.ridPasid)
    if (pasid >= 2 ** this.#config.pasidBits) return entries.refuse('pasidBeyondSize', c.suppress)
    if (!c.pasids) return entries.refuse('pasidDisabled', c.suppress)
    if (pasid >= c.limit) return entries.refuse('pasidBeyondDirectory', c.suppress)
    if (pasid === c.ridPasid) return entries.refuse('pasidIsRidPasid', c.suppress)
    return entries.binding(requester, c, pasid)
  }

  /** The privilege of a request: of its prefix, or of the context entry. */
  #privileged(r: MemoryRequest): boolean {
    return r.pasid !== NO_PASID ? r.privileged : (this.#context?.ridPrivileged ?? false)
  }

  #forbids(b: Binding, privileged: boolean, execute: boolean): FaultName | undefined {
    if (b.legacy) return undefined
    if (privileged && !b.supervisorAllowed) return 'supervisorDisabled'
    if (execute && !(b.executeAllowed && this.#config.executeRequests))
      return 'executeRequestDisabled'
    return undefined
  }

  #passThroughFault(b: Binding, hi: number, lo: number): FaultName | undefined {
    if (addressOf(hi, lo) >= this.#limit)
      return b.legacy ? 'addressBeyondWidth' : 'hostAddressBeyondWidth'
    if (!isInterruptRange(hi, lo)) return undefined
    return b.legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
  }

  #identity(
    r: MemoryRequest,
    into: Translation,
    mode: TranslationEvent['mode'],
    did: number,
  ): void {
    const output = addressOf(r.hi, r.lo)
    into.status = COMPLETION.SC
    into.output = output
    into.pageBits = IDENTITY_BITS
    into.read = into.write = true
    if (this.#point.on)
      this.#point.emit({
        ...traceRequest(r),
        did,
        mode,
        output: BigInt(output),
        pageBits: IDENTITY_BITS,
        cached: false,
        stages: [],
      })
  }

  #refuse(
    r: MemoryRequest,
    into: Translation,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): void {
    deny(into, COMPLETION.UR)
    this.#report(r, name, entries, suppress)
  }

  #refuseAts(
    r: MemoryRequest,
    into: Translation,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): void {
    const { ats } = FAULT_REASONS[name]
    deny(into, ats === 'none' ? COMPLETION.SC : COMPLETION[ats])
    if (ats !== 'none') this.#report(r, name, entries, suppress)
  }

  #report(
    r: MemoryRequest,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): void {
    this.#faults.report(
      {
        name,
        requester: r.requester,
        pasid: r.pasid,
        address: join(r.hi, r.lo),
        access: accessOf(r),
        privileged: this.#privileged(r),
        at: r.at,
        entries,
      },
      suppress,
    )
  }

  /** The entry that the last failed lookup stopped at. */
  #why(): readonly FaultEntry[] {
    return this.entries.entry ? [this.entries.entry] : []
  }

  #bindingEntry(b: Binding): readonly FaultEntry[] {
    return [
      {
        kind: b.legacy ? 'context' : 'pasid-table',
        at: b.entryAt,
        value: join(b.entryHi, b.entryLo),
        level: 0,
      },
    ]
  }

  #traceTables(r: MemoryRequest, b: Binding, into: Translation, cached: boolean): void {
    const w = this.#walk
    const input = join(r.hi, r.lo)
    const stages: TranslatedStage[] = []
    const output = BigInt(into.output)
    if (!cached && b.pgtt === PGTT.NESTED) {
      const between = BigInt(w.intermediate)
      stages.push(
        { stage: 'first', input, output: between, pageBits: into.pageBits, level: w.firstLevel },
        { stage: 'second', input: between, output, pageBits: into.pageBits, level: w.level },
      )
    } else if (!cached)
      stages.push({
        stage: b.pgtt === PGTT.FIRST_STAGE ? 'first' : 'second',
        input,
        output,
        pageBits: into.pageBits,
        level: w.level,
      })
    this.#point.emit({
      ...traceRequest(r),
      did: b.did,
      mode:
        b.pgtt === PGTT.NESTED
          ? 'nested'
          : b.pgtt === PGTT.FIRST_STAGE
            ? 'first-stage'
            : 'second-stage',
      output,
      pageBits: into.pageBits,
      cached,
      stages,
    })
  }
}

/** The permissions a request needs, in the supervisor's place. */
function needed(r: MemoryRequest): number {
  if (r.write) return PERM_WRITE
  return r.execute ? PERM_READ | PERM_EXECUTE : PERM_READ
}

function walkAccess(b: Binding, write: boolean, execute: boolean, privileged: boolean): number {
  const what = write ? ACCESS_WRITE : ACCESS_READ
  const fetch = execute && (b.noExecute || b.tagPasid === NO_PASID) ? ACCESS_EXECUTE : 0
  return what | fetch | (privileged ? 0 : ACCESS_USER) | b.modes
}

/** Answers that nothing is allowed. */
function deny(into: Translation, status: Translation['status']): void {
  into.status = status
  into.output = 0
  into.pageBits = 12
  into.read = into.write = into.execute = into.privileged = false
  into.global = into.untranslatedOnly = false
}

const addressOf = (hi: number, lo: number): number => (hi >>> 0) * HI + (lo >>> 0)

const isInterruptRange = (hi: number, lo: number): boolean =>
  hi === 0 && lo >>> 20 === INTERRUPT_MEGABYTE

const isInterruptOutput = (output: number): boolean => output >= 0xfee0_0000 && output < 0xfef0_0000

const coversInterruptRange = (output: number, pageBits: number): boolean => {
  const size = 2 ** pageBits
  const base = output - (output % size)
  return base < 0xfef0_0000 && base + size > 0xfee0_0000
}

const accessOf = (r: MemoryRequest): FaultAccess =>
  r.at === AT.TRANSLATION_REQUEST
    ? r.noWrite
      ? 'read'
      : 'write'
    : r.write
      ? 'write'
      : r.execute
        ? 'execute'
        : 'read'

const traceRequest = (r: MemoryRequest) => {
  const access = accessOf(r)
  return {
    requester: r.requester,
    pasid: r.pasid,
    address: join(r.hi, r.lo),
    access: access === 'execute' || access === 'write' ? access : ('read' as const),
    at: r.at,
  }
}
