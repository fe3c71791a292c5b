/**
 * Stale use in an SMMUv3: at every use of a cached STE, CD or translation, and of one in a device's own cache,
 * the tables are read anew, past all caches and without setting flags. Invalidations that are missing are named
 * as chapter 4 of IHI 0070 asks for them. Reports: ../stale-use.ts.
 */
import { formatBdf, hex, join } from '../../base/addr.js'
import { ACCESS_PROBE, Walk } from '../../paging/walk.js'
import type { CacheObserver } from '../../pci/atc-observer.js'
import { type MemoryRequest, NO_PASID } from '../../pci/request.js'
import {
  type PathWord,
  type StaleUse,
  type StaleUseDetector,
  structureWords,
  type TableChange,
  walkWords,
} from '../stale-use.js'
import type { Caches } from './caches.js'
import type { Context, Range } from './contexts.js'
import type { FaultTrail, TrailReader } from './fault-trail.js'
import { addressOf, type Binding, executes, privileged } from './requests.js'
import type { Stream } from './streams.js'
import { rangeOf, untagged, type Walkers, walkAccess } from './walkers.js'

const STREAM_FIELDS = [
  'abort',
  'stage1',
  'contextPtr',
  's1Fmt',
  's1CdMax',
  's1Dss',
  'stallDisabled',
  'eats',
  'world',
  'vmid',
  'privCfg',
  'instCfg',
] as const satisfies readonly (keyof Stream)[]

const CONTEXT_FIELDS = ['asid', 'modes', 'dirty'] as const satisfies readonly (keyof Context)[]

const AF = 0x400n
const AP2 = 0x80n
const DBM = 1n << 51n

/** Bits of a descriptor that walkers change: the access flag, and the dirty state of what keeps one. */
const flagsOf = (raw: bigint): bigint => ((raw & DBM) === 0n ? AF : AF | AP2)

/** What the detector needs of a unit. */
export interface StaleUseParts {
  readonly caches: Caches
  readonly trails: TrailReader
  readonly walkers: Walkers
}

/** Looks over the shoulder of one unit. */
export class SmmuStaleUse {
  readonly #detector: StaleUseDetector
  readonly #parts: StaleUseParts
  /** What cached structures were made from. */
  readonly #structures = new WeakMap<Stream | Context, readonly PathWord[]>()
  /** What cached translations were made from, by tag and page. */
  readonly #translations = new Map<string, readonly PathWord[]>()
  readonly #walk = new Walk()

  constructor(detector: StaleUseDetector, parts: StaleUseParts) {
    this.#detector = detector
    this.#parts = parts
  }

  /** A request found its STE and CD, perhaps in a cache. */
  located(r: MemoryRequest, b: Binding): void {
    const { stream, context } = b
    const { trails } = this.#parts
    const now = trails.stream(r.requester)
    if (!now || !sameStream(now, stream)) {
      this.#report(r, this.#structures.get(stream), {
        cache: 'STE cache',
        used: -1,
        now: -1,
        missing: `CMD_CFGI_STE of stream ${hex(stream.streamId)}, then TLB invalidation of what it led to, and CMD_SYNC`,
        section: 'SMMUv3 4.3.1',
      })
      return
    }
    if (!this.#structures.has(stream)) this.#keep(stream, r)
    const fresh = context && trails.binding(r.requester, r.pasid)?.context
    if (context && !(fresh && sameContext(fresh, context))) {
      this.#report(r, this.#structures.get(context), {
        cache: 'CD cache',
        used: -1,
        now: -1,
        missing: `CMD_CFGI_CD of stream ${hex(stream.streamId)}, SubstreamID ${context.substreamId}, then TLB invalidation of ASID ${context.asid}, and CMD_SYNC`,
        section: 'SMMUv3 4.3.3',
      })
    } else if (context && !this.#structures.has(context)) this.#keep(context, r)
  }

  /** A walk was cached. */
  kept(r: MemoryRequest, b: Binding): void {
    this.#translations.set(this.#key(r, b), this.#path(r, b))
  }

  /** A cached translation answers a request. */
  used(r: MemoryRequest, b: Binding): void {
    const { output } = this.#parts.caches
    const now = this.#walkNow(r, b)
    const path = this.#translations.get(this.#key(r, b))
    if (now === output) {
      // Another page of a large translation has its way taken when it is first used.
      if (!path) this.kept(r, b)
      return
    }
    const changes = path ? this.#detector.changes(path) : []
    this.#report(r, path, { cache: 'IOTLB', used: output, now, ...missing(b, r, changes) })
  }

  /** Watches the translation cache of a function. */
  observer(requester: () => number): CacheObserver {
    const held = new Map<string, readonly PathWord[]>()
    const key = (ask: Parameters<CacheObserver['kept']>[0]) =>
      `${ask.pasid} ${ask.hi} ${ask.lo >>> 12}`
    return {
      kept: ask => {
        const r = asRequest(requester(), ask)
        const b = this.#parts.trails.binding(r.requester, r.pasid)
        if (b) held.set(key(ask), this.#path(r, b))
      },
      used: (ask, output) => {
        const r = asRequest(requester(), ask)
        const b = this.#parts.trails.binding(r.requester, r.pasid)
        const now = b ? this.#walkNow(r, b) : -1
        const path = held.get(key(ask))
        if (now === output) {
          if (!path && b) held.set(key(ask), this.#path(r, b))
          return
        }
        const under = r.pasid === NO_PASID ? '' : `, SubstreamID ${r.pasid}`
        this.#report(r, path, {
          cache: 'device TLB',
          used: output,
          now,
          missing: `CMD_ATC_INV to ${formatBdf(r.requester)}${under}, covering ${page(r)}, after the TLB invalidation and its CMD_SYNC`,
          section: 'SMMUv3 4.5.1',
        })
      },
    }
  }

  #keep(made: Stream | Context, r: MemoryRequest): void {
    const { structures } = this.#parts.trails.structures(r.requester, r.pasid)
    const wanted = 'contexts' in made ? ['l1std', 'ste'] : ['l1std', 'ste', 'l1cd', 'cd']
    const read = structures.filter(s => wanted.includes(s.kind))
    this.#structures.set(made, this.#remember(read, []))
  }

  /** Where an address leads now; -1 when nowhere, or not for this access. */
  #walkNow(r: MemoryRequest, b: Binding): number {
    if (!b.context && !b.stream.stage2) return addressOf(r.hi, r.lo)
    const { stream } = b
    const access = walkAccess(b, r.write, executes(r, stream), privileged(r, stream)) | ACCESS_PROBE
    const w = this.#walk
    const hi = untagged(rangeOf(b, r.hi), r.hi)
    return this.#parts.walkers.walk(b, hi, r.lo, access, w) ? w.output : -1
  }

  /** The words that lead a request to its page. */
  #path(r: MemoryRequest, b: Binding): readonly PathWord[] {
    const { trails } = this.#parts
    const access = walkAccess(b, r.write, false, privileged(r, b.stream))
    const walks = trails.walk(b, BigInt.asUintN(64, join(r.hi, r.lo)), access)
    return this.#remember(trails.structures(r.requester, r.pasid).structures, walks)
  }

  #remember(structures: FaultTrail['structures'], walks: FaultTrail['walks']): readonly PathWord[] {
    const path = [
      ...structures.flatMap(s => structureWords(NAMES[s.kind], s.physical, s.words)),
      ...walks.flatMap(w => walkWords(w, flagsOf)),
    ]
    this.#detector.watch(path)
    return path
  }

  #key(r: MemoryRequest, b: Binding): string {
    return `${b.domain} ${b.asid} ${b.source} ${r.hi} ${r.lo >>> 12}`
  }

  #report(
    r: MemoryRequest,
    path: readonly PathWord[] | undefined,
    what: Pick<StaleUse, 'cache' | 'used' | 'now' | 'missing' | 'section'>,
  ): void {
    this.#detector.report({
      requester: r.requester,
      pasid: r.pasid,
      address: BigInt.asUintN(64, join(r.hi, r.lo)),
      access: r.write ? 'write' : r.execute ? 'execute' : 'read',
      changes: path ? this.#detector.changes(path) : [],
      ...what,
    })
  }
}

const NAMES = { l1std: 'L1STD', ste: 'STE', l1cd: 'L1CD', cd: 'CD' } as const

const page = ({ hi, lo }: MemoryRequest): string => hex(BigInt.asUintN(64, join(hi, lo & -4096)))

function asRequest(requester: number, ask: Parameters<CacheObserver['kept']>[0]): MemoryRequest {
  const { pasid, privileged, hi, lo, write = false, execute = false } = ask
  return { requester, pasid, privileged, hi, lo, write, execute, at: 0, noWrite: false, length: 1 }
}

/** What drops a TLB entry whose tables changed. */
function missing(
  b: Binding,
  r: MemoryRequest,
  changes: readonly TableChange[],
): Pick<StaleUse, 'missing' | 'section'> {
  const { vmid } = b.stream
  const second = !b.context || (changes.length > 0 && changes.every(c => c.stage === 2))
  if (second && b.context)
    return {
      missing: `CMD_TLBI_S12_VMALL of VMID ${vmid} (CMD_TLBI_S2_IPA leaves nested translations), and CMD_SYNC`,
      section: 'SMMUv3 4.4.3.2',
    }
  if (second)
    return {
      missing: `CMD_TLBI_S2_IPA of VMID ${vmid}, covering ${page(r)}, and CMD_SYNC`,
      section: 'SMMUv3 4.4.3.1',
    }
  return {
    missing: `CMD_TLBI_NH_VA of VMID ${vmid}, ASID ${b.asid}, covering ${page(r)}, and CMD_SYNC`,
    section: 'SMMUv3 4.4.2.4',
  }
}

function sameStream(a: Stream, b: Stream): boolean {
  const [s, t] = [a.stage2, b.stage2]
  const second =
    (!s && !t) || (s && t && s.root === t.root && s.key === t.key && s.modes === t.modes)
  return second === true && STREAM_FIELDS.every(name => a[name] === b[name])
}

const sameContext = (a: Context, b: Context): boolean =>
  CONTEXT_FIELDS.every(name => a[name] === b[name]) &&
  sameRange(a.lower, b.lower) &&
  sameRange(a.upper, b.upper)

const sameRange = (a: Range | undefined, b: Range | undefined): boolean =>
  a === b ||
  (a !== undefined &&
    b !== undefined &&
    a.disabled === b.disabled &&
    a.tbi === b.tbi &&
    a.root === b.root &&
    a.key === b.key)
