/**
 * The DMA path: untranslated and translated requests (VT-d 3.4 to 3.8, 4.2.3). In front of the IOTLB
 * lies a small table of finished answers keyed by requester, PASID and page; it forgets everything at
 * every invalidation. Tables: entries.ts; caches: caches.ts; translation requests: ats.ts.
 */
import { join } from '../../base/addr.js'
import type { TracePoint } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import {
  PERM_ALL,
  PERM_EXECUTE,
  PERM_READ,
  PERM_USER_EXECUTE,
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
import { ASK_EACH_TIME } from '../../pci/upstream.js'
import type { StaleUseDetector } from '../stale-use.js'
import { AtsTranslator } from './ats.js'
import { Caches } from './caches.js'
import type { VtdConfig } from './config.js'
import { type Binding, Entries } from './entries.js'
import type { FaultName } from './fault-reasons.js'
import { TrailReader } from './fault-trail.js'
import type { FaultEntry, FaultLog } from './faults.js'
import { ProtectedMemory } from './protected.js'
import { TTM } from './registers.js'
import {
  accessOf,
  addressOf,
  bindingEntry,
  coversInterruptRange,
  deny,
  IDENTITY_BITS,
  interruptOutputFault,
  isInterruptOutput,
  isInterruptRange,
  Requests,
} from './requests.js'
import { VtdStaleUse } from './stale-use.js'
import { PGTT } from './tables.js'
import type { TranslationEvent } from './trace.js'
import { walkEntries, walkFault } from './walk-faults.js'
import { USER_SHIFT, Walkers, walkAccess } from './walkers.js'

/** Permissions of one privilege, in the supervisor's place. */
const HALF = PERM_READ | PERM_WRITE | PERM_EXECUTE

/** Answers in front of the IOTLB: 2^FRONT_BITS, 8 words each. */
const FRONT_BITS = 11
const FRONT_MASK = (1 << FRONT_BITS) - 1

const MODES: Readonly<Record<number, TranslationEvent['mode']>> = {
  [PGTT.FIRST_STAGE]: 'first-stage',
  [PGTT.SECOND_STAGE]: 'second-stage',
  [PGTT.NESTED]: 'nested',
}

/** Translates the requests of one unit. */
export class Translator {
  readonly entries: Entries
  readonly caches: Caches
  readonly trails: TrailReader
  readonly protectedMemory = new ProtectedMemory()
  /** Set while stale use is looked for. */
  stale: VtdStaleUse | undefined = undefined
  readonly #requests: Requests
  readonly #walkers: Walkers
  readonly #ats: AtsTranslator
  readonly #faults: FaultLog
  readonly #point: TracePoint<TranslationEvent>
  readonly #walk = new Walk()
  #enabled = false
  // Page, high half, PASID, requester | epoch, permissions | page bits << 8; and the output page.
  readonly #front = new Int32Array(8 << FRONT_BITS)
  readonly #frontOutput = new Float64Array(1 << FRONT_BITS)

  constructor(
    memory: AddressSpace,
    config: VtdConfig,
    faults: FaultLog,
    point: TracePoint<TranslationEvent>,
  ) {
    this.#faults = faults
    this.#point = point
    this.entries = new Entries(memory, config)
    this.caches = new Caches(this.entries, () => this.#front.fill(0))
    this.#requests = new Requests(this.entries, config, faults)
    this.#walkers = new Walkers(memory, config)
    this.#ats = new AtsTranslator(this.#requests, this.#walkers, config, this.#walk)
    this.trails = new TrailReader(memory, config, this.entries, this.#walkers)
    faults.trail = report => this.trails.read(report)
  }

  /** Looks for stale use from now on. */
  detect(detector: StaleUseDetector): VtdStaleUse {
    const { entries, caches, trails } = this
    this.stale = new VtdStaleUse(detector, { entries, caches, trails, walkers: this.#walkers })
    return this.stale
  }

  reset(): void {
    this.#enabled = false
    this.latchRoot(0, TTM.LEGACY)
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

  /** See `UpstreamTranslator`: answers hold until the next invalidation, as those in the front table do. */
  get answers(): number {
    return this.#point.on || this.stale ? ASK_EACH_TIME : this.caches.epochs
  }

  /** Answers an untranslated or translated request; see `UpstreamTranslator`. */
  translate(r: MemoryRequest, into: Translation): void {
    if (r.at !== AT.UNTRANSLATED) {
      this.#translated(r, into)
      return
    }
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
      const need = r.write ? PERM_WRITE : r.execute ? PERM_READ | PERM_EXECUTE : PERM_READ
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
  }

  /** Answers a translation request; see `UpstreamTranslator`. */
  translateAts(r: MemoryRequest, into: Translation): void {
    if (!this.#enabled) {
      deny(into, COMPLETION.UR)
      return
    }
    const b = this.#ats.answer(r, into)
    if (b) this.stale?.located(r, b)
    if (b && this.#point.on) this.#traceTables(r, b, into, false)
  }

  /** Looks a page request's tables up (VT-d 7.4.1); reports why not and answers false when it may not be queued. */
  admitPageRequest(m: PageRequest): boolean {
    if (!this.#enabled) return false
    if (this.#requests.locate(m.requester, m.pasid, 'page-request')) return true
    this.#faults.report(
      {
        name: this.entries.failure,
        requester: m.requester,
        pasid: m.pasid,
        address: join(m.hi, m.lo),
        access: 'page-request',
        privileged: m.privileged,
        at: AT.UNTRANSLATED,
        entries: this.#requests.why(),
      },
      this.entries.suppress,
    )
    return false
  }

  /** Drops what is cached for the page of an admitted page request (VT-d 6.5.3.1). */
  forgetPage(m: PageRequest): void {
    const b = this.#requests.locate(m.requester, m.pasid, 'page-request')
    if (!b) return
    const lo = m.lo & -4096
    if (b.pgtt === PGTT.FIRST_STAGE) this.caches.pasidIotlb('page', b.did, b.tagPasid, m.hi, lo, 0)
    else this.caches.iotlb(b.pgtt === PGTT.NESTED ? 'domain' : 'page', b.did, m.hi, lo, 0)
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
    const requests = this.#requests
    const b = requests.locate(r.requester, pasid, 'untranslated')
    if (!b) {
      this.#refuse(r, into, this.entries.failure, requests.why(), this.entries.suppress)
      return
    }
    const privileged = requests.privileged(r)
    const execute = pasid !== NO_PASID && r.execute
    this.stale?.located(r, b)
    const passThrough = b.pgtt === PGTT.PASS_THROUGH
    const refused =
      requests.forbids(b, privileged, execute) ??
      (passThrough ? requests.refusesHostAddress(b.legacy, hi, lo) : undefined)
    if (refused) this.#refuse(r, into, refused, bindingEntry(b), b.suppress)
    else if (passThrough) this.#identity(r, into, 'pass-through', b.did)
    else this.#throughTables(r, into, b, privileged, execute, slot)
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
    const cached = caches.find(b, hi, lo) && ((caches.rights >> shift) & need) === need
    if (!cached) {
      const w = this.#walk
      if (!this.#walkers.walk(b, hi, lo, walkAccess(b, r.write, execute, privileged), w)) {
        this.#refuse(r, into, walkFault(w, b, r.write), walkEntries(w, b), b.suppress)
        return
      }
      const rights = w.cacheable & PERM_ALL
      caches.keep(b, hi, lo, w.pageBits, w.output, rights)
      this.stale?.kept(r, b)
    } else this.stale?.used(r, b, privileged, execute)
    const { rights, output } = caches
    let { pageBits } = caches
    if (coversInterruptRange(output, pageBits)) {
      if (isInterruptOutput(output)) {
        this.#refuse(r, into, interruptOutputFault(b.legacy), bindingEntry(b), b.suppress)
        return
      }
      pageBits = 12
    }
    const half = (rights >> shift) & HALF
    into.status = COMPLETION.SC
    into.output = output
    into.pageBits = pageBits
    into.read = (half & PERM_READ) !== 0
    // A clean page is written only after a walk has set its dirty flag.
    into.write = (half & PERM_WRITE) !== 0
    if (!this.stale) this.#fillFront(r, b, half, rights, slot, into)
    if (this.#point.on) this.#traceTables(r, b, into, cached)
  }

  /** Keeps an answer where the next request of this kind looks first. */
  #fillFront(
    r: MemoryRequest,
    b: Binding,
    half: number,
    rights: number,
    slot: number,
    { output, pageBits }: Translation,
  ): void {
    let kept = rights
    // Without a PASID the context decides the privilege: both halves say the same.
    if (r.pasid === NO_PASID) kept = (half & ~PERM_EXECUTE) * (1 + (1 << USER_SHIFT))
    else {
      if (!b.supervisorAllowed) kept &= ~HALF
      if (!b.executeAllowed) kept &= ~(PERM_EXECUTE | PERM_USER_EXECUTE)
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
    if (!this.#enabled) {
      deny(into, COMPLETION.UR)
      return
    }
    const c = this.entries.context(r.requester)
    if (!c) {
      this.#refuse(r, into, this.entries.failure, this.#requests.why(), this.entries.suppress)
      return
    }
    this.stale?.context(r, c)
    const legacy = c.binding !== undefined
    const refused = c.deviceTlb
      ? this.#requests.refusesHostAddress(legacy, r.hi, r.lo)
      : legacy
        ? 'translationTypeBlocked'
        : 'deviceTlbDisabled'
    if (refused) this.#refuse(r, into, refused, [], c.suppress)
    else this.#identity(r, into, 'translated', c.did)
  }

  /** The address is the host's already; only protected memory refuses it. */
  #identity(
    r: MemoryRequest,
    into: Translation,
    mode: TranslationEvent['mode'],
    did: number,
  ): void {
    const output = addressOf(r.hi, r.lo)
    if (this.protectedMemory.forbids(output)) {
      // Neither recorded nor reported.
      deny(into, COMPLETION.UR)
      return
    }
    into.status = COMPLETION.SC
    into.output = output
    into.pageBits = IDENTITY_BITS
    into.read = into.write = true
    if (this.#point.on)
      this.#point.emit({ ...traced(r, into), did, mode, cached: false, stages: [] })
  }

  #refuse(
    r: MemoryRequest,
    into: Translation,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): void {
    deny(into, COMPLETION.UR)
    this.#requests.report(r, name, entries, suppress)
  }

  #traceTables(r: MemoryRequest, b: Binding, into: Translation, cached: boolean): void {
    const access = walkAccess(b, r.write, false, this.#requests.privileged(r))
    this.#point.emit({
      ...traced(r, into),
      did: b.did,
      mode: MODES[b.pgtt]!,
      cached,
      stages: cached ? [] : this.#walkers.stages(b, r.hi, r.lo, access),
    })
  }
}

/** What every translation event says. */
function traced(r: MemoryRequest, into: Translation) {
  return {
    requester: r.requester,
    pasid: r.pasid,
    address: join(r.hi, r.lo),
    access: accessOf(r),
    at: r.at,
    output: BigInt(into.output),
    pageBits: into.pageBits,
  }
}
