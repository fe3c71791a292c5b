/**
 * Stale use in a VT-d unit: at every use of a cached context entry, PASID table entry or translation, and of one
 * in a device's own cache, the tables are read anew, past all caches and without setting flags. Invalidations
 * that are missing are named as 6.5.2 of the specification asks for them. Reports: ../stale-use.ts.
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
import type { Binding, Context, Entries } from './entries.js'
import type { FaultTrail, TrailReader } from './fault-trail.js'
import { PGTT } from './tables.js'
import { type Walkers, walkAccess } from './walkers.js'

/** A request as its address is looked up. */
type Asked = Pick<
  MemoryRequest,
  'requester' | 'pasid' | 'write' | 'execute' | 'privileged' | 'hi' | 'lo'
>

/** Accessed, dirty and extended-accessed flags; accessed and dirty flags of a second stage. */
const flagsOf = (_raw: bigint, stage: 1 | 2): bigint => (stage === 1 ? 0x460n : 0x300n)

const CONTEXT_FIELDS = [
  'did',
  'tt',
  'deviceTlb',
  'pageRequests',
  'pasids',
  'ridPasid',
  'ridPrivileged',
  'directory',
  'limit',
] as const satisfies readonly (keyof Context)[]

const BINDING_FIELDS = [
  'pgtt',
  'did',
  'firstRoot',
  'firstLevels',
  'secondRoot',
  'secondLevels',
  'secondWidth',
  'tagPasid',
  'supervisorAllowed',
  'executeAllowed',
  'noExecute',
  'secondExecute',
  'modes',
] as const satisfies readonly (keyof Binding)[]

/** What the detector needs of a unit. */
export interface StaleUseParts {
  readonly entries: Entries
  readonly caches: Caches
  readonly trails: TrailReader
  readonly walkers: Walkers
}

/** Looks over the shoulder of one unit. */
export class VtdStaleUse {
  readonly #detector: StaleUseDetector
  readonly #parts: StaleUseParts
  /** What cached structures were made from. */
  readonly #structures = new WeakMap<Context | Binding, readonly PathWord[]>()
  /** What cached translations were made from, by tag and page. */
  readonly #translations = new Map<string, readonly PathWord[]>()
  readonly #walk = new Walk()

  constructor(detector: StaleUseDetector, parts: StaleUseParts) {
    this.#detector = detector
    this.#parts = parts
    parts.entries.filled = (requester, pasid, made) => {
      this.#structures.set(made, this.#remember(parts.trails.structures(requester, pasid)))
    }
  }

  /** A request found its binding, perhaps in a cache. */
  located(r: Asked, b: Binding): void {
    const { entries, trails } = this.#parts
    const c = entries.context(r.requester)
    if (!c || !this.context(r, c) || b.legacy) return
    const fresh = trails.binding(r.requester, r.pasid)
    if (fresh && BINDING_FIELDS.every(name => fresh[name] === b[name])) return
    const pasid = r.pasid === NO_PASID ? c.ridPasid : r.pasid
    this.#report(r, this.#structures.get(b), {
      cache: 'PASID cache',
      used: -1,
      now: -1,
      missing: `PASID-cache invalidation (pc_inv_dsc) of domain ${b.did}, PASID ${pasid}, and then PASID-based IOTLB invalidation`,
      section: 'VT-d 6.5.2.2',
    })
  }

  /** A request found its context entry, perhaps in a cache; false when that is stale. */
  context(r: Asked, c: Context): boolean {
    const fresh = this.#parts.trails.context(r.requester)
    if (fresh && CONTEXT_FIELDS.every(name => fresh[name] === c[name])) {
      const [a, b] = [fresh.binding, c.binding]
      if (!a || !b || BINDING_FIELDS.every(name => a[name] === b[name])) return true
    }
    this.#report(r, this.#structures.get(c), {
      cache: 'context cache',
      used: -1,
      now: -1,
      missing: `context-cache invalidation (cc_inv_dsc) for ${formatBdf(r.requester)}, and then of PASID cache and IOTLB`,
      section: 'VT-d 6.5.2.1',
    })
    return false
  }

  /** A walk was cached. */
  kept(r: Asked, b: Binding): void {
    const path = this.#path(r, b)
    this.#translations.set(this.#key(b, r), path)
  }

  /** A cached translation answers a request. */
  used(r: Asked, b: Binding, privileged: boolean, execute: boolean): void {
    const { caches } = this.#parts
    const now = this.#walkNow(r, b, privileged, execute)
    const path = this.#translations.get(this.#key(b, r))
    if (now === caches.output) {
      // Another page of a large translation has its way taken when it is first used.
      if (!path) this.kept(r, b)
      return
    }
    const changes = path ? this.#detector.changes(path) : []
    this.#report(r, path, {
      cache: 'IOTLB',
      used: caches.output,
      now,
      ...this.#missing(b, r, changes),
    })
  }

  /** Watches the translation cache of a function. */
  observer(requester: () => number): CacheObserver {
    const held = new Map<string, readonly PathWord[]>()
    const asked = (ask: Parameters<CacheObserver['kept']>[0]): Asked => ({
      requester: requester(),
      pasid: ask.pasid,
      privileged: ask.privileged,
      hi: ask.hi,
      lo: ask.lo,
      write: ask.write === true,
      execute: ask.execute === true,
    })
    const key = ({ pasid, hi, lo }: Asked) => `${pasid} ${hi} ${lo >>> 12}`
    return {
      kept: ask => {
        const r = asked(ask)
        const b = this.#parts.trails.binding(r.requester, r.pasid)
        if (b) held.set(key(r), this.#path(r, b))
      },
      used: (ask, output) => {
        const r = asked(ask)
        const b = this.#parts.trails.binding(r.requester, r.pasid)
        const now = b ? this.#walkNow(r, b, r.privileged, r.execute) : -1
        const path = held.get(key(r))
        if (now === output) {
          if (!path && b) held.set(key(r), this.#path(r, b))
          return
        }
        const under = r.pasid === NO_PASID ? '' : `, PASID ${r.pasid}`
        this.#report(r, path, {
          cache: 'device TLB',
          used: output,
          now,
          missing: `device-TLB invalidation (${r.pasid === NO_PASID ? 'dev_tlb_inv_dsc' : 'p_dev_tlb_inv_dsc'}) to ${formatBdf(r.requester)}${under}, covering ${page(r)}, after that of the IOTLB`,
          section: r.pasid === NO_PASID ? 'VT-d 6.5.2.5' : 'VT-d 6.5.2.6',
        })
      },
    }
  }

  /** Where an address leads now; -1 when nowhere, or not for this access. */
  #walkNow(r: Asked, b: Binding, privileged: boolean, execute: boolean): number {
    if (b.pgtt === PGTT.PASS_THROUGH) return Number(BigInt.asUintN(64, join(r.hi, r.lo)))
    const access = walkAccess(b, r.write, execute, privileged) | ACCESS_PROBE
    const w = this.#walk
    return this.#parts.walkers.walk(b, r.hi, r.lo, access, w) ? w.output : -1
  }

  /** The words that lead a request to its page. */
  #path(r: Asked, b: Binding): readonly PathWord[] {
    const { trails } = this.#parts
    const access = walkAccess(b, r.write, false, r.privileged)
    const address = BigInt.asUintN(64, join(r.hi, r.lo))
    const walks = trails.walk(b, address, access)
    const structures = trails.structures(r.requester, r.pasid)
    return this.#remember(structures, walks)
  }

  #remember(
    structures: FaultTrail['structures'],
    walks: FaultTrail['walks'] = [],
  ): readonly PathWord[] {
    const path = [
      ...structures.flatMap(s => structureWords(NAMES[s.kind], s.at, s.words)),
      ...walks.flatMap(w => walkWords(w, flagsOf)),
    ]
    this.#detector.watch(path)
    return path
  }

  #key(b: Binding, { hi, lo }: Asked): string {
    return `${b.did} ${b.tagPasid} ${hi} ${lo >>> 12}`
  }

  /** What drops an IOTLB entry whose tables changed. */
  #missing(
    b: Binding,
    r: Asked,
    changes: readonly TableChange[],
  ): Pick<StaleUse, 'missing' | 'section'> {
    const second = changes.length > 0 && changes.every(c => c.stage === 2)
    if (b.tagPasid === NO_PASID)
      return {
        missing: `IOTLB invalidation (iotlb_inv_dsc) of domain ${b.did}, covering ${page(r)}`,
        section: 'VT-d 6.5.2.3',
      }
    if (second)
      return {
        missing: `IOTLB invalidation (iotlb_inv_dsc) of domain ${b.did}, which drops nested translations too`,
        section: 'VT-d 6.5.2.3',
      }
    return {
      missing: `PASID-based IOTLB invalidation (p_iotlb_inv_dsc) of domain ${b.did}, PASID ${b.tagPasid}, covering ${page(r)}`,
      section: 'VT-d 6.5.2.4',
    }
  }

  #report(
    r: Asked,
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

const NAMES = {
  root: 'root entry',
  context: 'context entry',
  'pasid-directory': 'PASID directory entry',
  'pasid-table': 'PASID table entry',
  irte: 'IRTE',
} as const

const page = ({ hi, lo }: Asked): string => hex(BigInt.asUintN(64, join(hi, lo & -4096)))
