/**
 * The system's PASIDs (IOASID): one id space partitioned by ownership, references that delay reuse,
 * set-private ids, private data and notifications. Behaviour of revision A3 with the repairs its review
 * asked for. Alloc and free make no garbage. Columns: ioasid-rows.ts; sets: ioasid-set.ts; who hears:
 * ioasid-notify.ts; outside allocators: ioasid-custom.ts.
 */
import type { VirtualClock } from '../base/clock.js'
import { ErrnoError } from '../base/errno.js'
import { IdAllocator } from '../base/ids.js'
import type { TraceBus, TracePoint } from '../base/trace.js'
import { CustomAllocators, type IoasidAllocatorOps } from './ioasid-custom.js'
import {
  IOASID_EVENT,
  type IoasidEvent,
  type IoasidNotifier,
  MmSubscriptions,
  NOTIFY_ORDER,
  NotifierChain,
} from './ioasid-notify.js'
import { IoasidRows } from './ioasid-rows.js'
import { IOASID_SET_TYPE, type IoasidSet, IoasidSets } from './ioasid-set.js'

declare module '../base/trace.js' {
  interface TraceEvents {
    /** What became of a PASID; `refused` is a free or put by somebody who does not own it. */
    ioasid: { what: 'alloc' | 'free' | 'bind' | 'unbind' | 'reclaim' | 'refused'; id: number }
  }
}

/** What alloc answers when there is no id, and the set-private id of an id that has none. */
export const INVALID_IOASID = 0xffff_ffff
/** Ids of a system that was told nothing else: all 20-bit PASIDs. */
export const IOASID_DEFAULT_CAPACITY = 0x10_0000
/** Quota of the set that the host's own PASIDs come from (VT-d takes PID_MAX_DEFAULT). */
export const IOASID_HOST_QUOTA = 32768

/** What an id is: in the pool, allocated, allocated and used, freed but still used. */
export type IoasidState = 'FREE' | 'IDLE' | 'ACTIVE' | 'FREE_PENDING'

/** What an allocator is made of. */
export interface IoasidOptions {
  /** Ids 1 to capacity-1 exist; left out, 2^20 until a driver installs a smaller one. */
  readonly capacity?: number
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Which reading of the handlers' order; default `code`. */
  readonly order?: keyof typeof NOTIFY_ORDER
}

/** The PASID allocator of one machine. */
export class IoasidAllocator {
  readonly #sets: IoasidSets
  readonly #clock: VirtualClock
  readonly #trace: TracePoint<{ what: IoasidTrace; id: number }>
  readonly #order: (typeof NOTIFY_ORDER)[keyof typeof NOTIFY_ORDER]
  readonly #chain = new NotifierChain()
  readonly #mm: MmSubscriptions
  readonly #custom = new CustomAllocators()
  #installed: boolean
  #ids: IdAllocator | undefined
  #host: IoasidSet | undefined
  #notifying = false
  readonly #rows = new IoasidRows()
  readonly #data = new Map<number, unknown>()

  constructor({ capacity, clock, trace, order = 'code' }: IoasidOptions) {
    this.#sets = new IoasidSets(capacity ?? IOASID_DEFAULT_CAPACITY)
    this.#installed = capacity !== undefined
    this.#clock = clock
    this.#trace = trace.point('ioasid')
    this.#order = NOTIFY_ORDER[order]
    this.#mm = new MmSubscriptions(this.#order)
  }

  // ---- capacity and sets ----

  /** Number of ids of the system; the largest id is one less. */
  get capacity(): number {
    return this.#sets.capacity
  }

  /** Ids that quotas have not reserved. */
  get available(): number {
    return this.#sets.available
  }

  /** Ids that are allocated, those in FREE_PENDING included. */
  get held(): number {
    return this.#ids?.count ?? 0
  }

  /** Sets the capacity once, before ids or quotas are handed out; false (and nothing) any other time. */
  installCapacity(ids: number): boolean {
    if (this.#installed || this.#ids !== undefined || this.#sets.reserved > 0) return false
    this.#sets.capacity = ids
    this.#installed = true
    return true
  }

  /** The host's own PASIDs: type NULL, IOASID_HOST_QUOTA ids or half of a small system's. Made when asked for. */
  get hostSet(): IoasidSet {
    this.#host ??= this.allocSet(
      IOASID_SET_TYPE.NULL,
      undefined,
      Math.min(IOASID_HOST_QUOTA, this.available >> 1),
    )
    return this.#host
  }

  /**
   * Makes a set with one reference and reserves its quota. EINVAL for a bad type or token or quota 0, ENOSPC when
   * the capacity left is smaller, EEXIST when the address space has a set.
   */
  allocSet(type: number, token: object | undefined, quota: number): IoasidSet {
    const set = this.#sets.create(type, token, quota)
    if (token !== undefined) this.#mm.activate(token, set)
    return set
  }

  /** The set of an address space, without a reference. */
  findMmSet(token: object): IoasidSet | undefined {
    return this.#sets.byToken(token)
  }

  /** Takes a reference on a living set. */
  getSet(set: IoasidSet): void {
    if (set.alive) set.refs++
  }

  /** Drops a reference; the last one frees all ids and releases token and quota. True when the set died. */
  putSet(set: IoasidSet): boolean {
    if (!set.alive || --set.refs > 0) return false
    this.freeRange(set, 1, this.capacity)
    this.#sets.bury(set)
    if (set === this.#host) this.#host = undefined
    return true
  }

  /** Changes a set's quota: EINVAL below what it holds, ENOSPC when the increase is not available. */
  adjustSet(set: IoasidSet, quota: number): void {
    this.#sets.adjust(set, quota)
  }

  /** Calls `visit` for each id of a set, ascending. The visitor may free ids. */
  forEach(set: IoasidSet, visit: (id: number) => void): void {
    for (const id of this.#rows.heldIn(set, 1, this.capacity)) visit(id)
  }

  // ---- ids ----

  /**
   * The lowest free id in [min, max], never 0, with one reference; INVALID_IOASID when the set's quota
   * or the range is exhausted or the set is dead.
   */
  alloc(set: IoasidSet, min: number, max: number, data?: unknown): number {
    if (set.count >= set.quota || !set.alive) return INVALID_IOASID
    const low = min > 0 ? min : 1
    const high = max < this.#sets.capacity ? max : this.#sets.capacity - 1
    if (low > high) return INVALID_IOASID
    const id =
      this.#custom.active === undefined
        ? this.#pool().alloc(low, high)
        : this.#outside(low, high, data)
    if (id < 0) return INVALID_IOASID
    const rows = this.#rows
    rows.link(id, set)
    rows.refs[id] = 1
    rows.pending[id] = 0
    rows.spid[id] = INVALID_IOASID
    rows.spidUsers[id] = 0
    if (data !== undefined) this.#data.set(id, data)
    if (this.#trace.on) this.#trace.emit({ what: 'alloc', id })
    if (set.chain.blocks.length !== 0) this.#notify(set.chain, IOASID_EVENT.ALLOC, id, set)
    return id
  }

  /**
   * Gives an id up: FREE is announced, the allocator's reference dropped, and the id is reclaimed when its
   * users are gone. Always succeeds; repeated, or on somebody else's id, it does nothing.
   */
  free(set: IoasidSet, id: number): void {
    const owner = this.#rows.owner[id]
    if (owner === undefined || owner === 0 || this.#rows.pending[id] !== 0) return
    if (owner !== set.index) {
      if (this.#trace.on) this.#trace.emit({ what: 'refused', id })
      return
    }
    if (this.#trace.on) this.#trace.emit({ what: 'free', id })
    this.#rows.pending[id] = 1
    if (this.#chain.blocks.length !== 0) this.#notify(this.#chain, IOASID_EVENT.FREE, id, set)
    if (set.chain.blocks.length !== 0) this.#notify(set.chain, IOASID_EVENT.FREE, id, set)
    if (--this.#rows.refs[id]! === 0) this.#reclaim(id, set)
  }

  /**
   * Frees every id that the set holds in [min, max], ascending. Costs in proportion to the smaller of the
   * ids held and the width of the range. Returns how many it freed.
   */
  freeRange(set: IoasidSet, min: number, max: number): number {
    const ids = this.#rows.heldIn(set, min, max)
    let freed = 0
    for (const id of ids) {
      if (this.#rows.pending[id] !== 0) continue
      this.free(set, id)
      freed++
    }
    return freed
  }

  /** Takes a user's reference. EINVAL unknown, EACCES of another set (undefined skips), EBUSY freed already. */
  get(set: IoasidSet | undefined, id: number): void {
    const owner = this.#rows.owner[id]
    if (owner === undefined || owner === 0) throw new ErrnoError('EINVAL', `ioasid ${id}: unknown`)
    if (set !== undefined && owner !== set.index)
      throw new ErrnoError('EACCES', `ioasid ${id}: of another set`)
    if (this.#rows.pending[id] !== 0) throw new ErrnoError('EBUSY', `ioasid ${id}: being freed`)
    this.#rows.refs[id]!++
  }

  /**
   * Drops a user's reference; true when that reclaimed the id. Refused (false) for an unknown id, another
   * set's, and for one without users: the allocator's own reference goes only by `free`.
   */
  put(set: IoasidSet | undefined, id: number): boolean {
    const owner = this.#rows.owner[id]
    if (owner === undefined || owner === 0) return false
    const refused =
      (set !== undefined && owner !== set.index) ||
      (this.#rows.pending[id] === 0 && this.#rows.refs[id] === 1)
    if (refused) {
      if (this.#trace.on) this.#trace.emit({ what: 'refused', id })
      return false
    }
    if (--this.#rows.refs[id]! > 0) return false
    this.#reclaim(id, this.#sets.at(owner)!)
    return true
  }

  /** What an id is. */
  state(id: number): IoasidState {
    const owner = this.#rows.owner[id]
    if (owner === undefined || owner === 0) return 'FREE'
    if (this.#rows.pending[id] !== 0) return 'FREE_PENDING'
    return this.#rows.refs[id]! > 1 ? 'ACTIVE' : 'IDLE'
  }

  /** References on an id: the allocator's and its users'; 0 when it is free. */
  references(id: number): number {
    return this.#rows.owner[id] ? this.#rows.refs[id]! : 0
  }

  /** The set that holds an id; undefined when it is free. */
  owner(id: number): IoasidSet | undefined {
    return this.#sets.at(this.#rows.owner[id] ?? 0)
  }

  // ---- private data and set-private ids ----

  /**
   * An id's private data; undefined when it has none or `getter` refuses it. ENOENT unknown or being freed,
   * EACCES of another set (undefined skips).
   */
  find(set: IoasidSet | undefined, id: number, getter?: (data: unknown) => boolean): unknown {
    const owner = this.#rows.owner[id]
    if (owner === undefined || owner === 0 || this.#rows.pending[id] !== 0)
      throw new ErrnoError('ENOENT', `PASID ${id} is not allocated`)
    if (set !== undefined && owner !== set.index)
      throw new ErrnoError('EACCES', `PASID ${id} belongs to another set`)
    const data = this.#data.get(id)
    return data !== undefined && getter !== undefined && !getter(data) ? undefined : data
  }

  /** Attaches private data: ENOENT unknown or being freed, EBUSY when there is some. */
  attachData(id: number, data: object): void {
    this.find(undefined, id)
    if (this.#data.has(id)) throw new ErrnoError('EBUSY', `ioasid ${id}: has private data`)
    this.#data.set(id, data)
  }

  /** Takes the private data away; harmless when there is none. */
  detachData(id: number): void {
    this.#data.delete(id)
  }

  /** The set-private id, INVALID_IOASID when there is none. */
  spidOf(id: number): number {
    return this.#rows.owner[id] ? this.#rows.spid[id]! : INVALID_IOASID
  }

  /**
   * Attaches a set-private id; each user attaches once more, the first is announced as BIND. ENOENT unknown or
   * being freed; EINVAL when `spid` is invalid, taken in the set, or the id has another one.
   */
  attachSpid(id: number, spid: number): void {
    this.find(undefined, id)
    const set = this.#sets.at(this.#rows.owner[id]!)!
    if (!(spid >= 0 && spid < INVALID_IOASID)) throw new ErrnoError('EINVAL', `spid ${spid}`)
    const taken = set.spids.get(spid)
    const has = this.#rows.spid[id]!
    if ((taken !== undefined && taken !== id) || (has !== INVALID_IOASID && has !== spid))
      throw new ErrnoError('EINVAL', `ioasid ${id}: set-private id ${spid} is not unique`)
    if (this.#rows.spidUsers[id]!++ > 0) return
    this.#rows.spid[id] = spid
    set.spids.set(spid, id)
    if (this.#trace.on) this.#trace.emit({ what: 'bind', id })
    this.#notify(set.chain, IOASID_EVENT.BIND, id, set)
  }

  /** Detaches once; the last is announced as UNBIND unless the id is being freed. Harmless without one. */
  detachSpid(id: number): void {
    const set = this.owner(id)
    if (set === undefined || this.#rows.spidUsers[id] === 0 || --this.#rows.spidUsers[id]! > 0)
      return
    if (this.#trace.on) this.#trace.emit({ what: 'unbind', id })
    if (this.#rows.pending[id] === 0) this.#notify(set.chain, IOASID_EVENT.UNBIND, id, set)
    set.spids.delete(this.#rows.spid[id]!)
    this.#rows.spid[id] = INVALID_IOASID
  }

  /** The id of a set-private id, with a reference for the caller to put; INVALID_IOASID when there is none. */
  findBySpid(set: IoasidSet, spid: number): number {
    const id = set.spids.get(spid)
    if (id === undefined || this.#rows.pending[id] !== 0) return INVALID_IOASID
    this.#rows.refs[id]!++
    return id
  }

  // ---- notifications and deferred work ----

  /** Subscribes to FREE of every set (no argument), or to all events of one set. Returns what ends it. */
  subscribe(block: IoasidNotifier, set?: IoasidSet): () => void {
    const chain = set === undefined ? this.#chain : set.chain
    chain.add(block, this.#order)
    return () => void chain.remove(block)
  }

  /**
   * Subscribes to the set of an address space, now or when it is made, and again after it died. EBUSY when the
   * set holds ids or this pair is subscribed. Returns what ends it.
   */
  subscribeMm(mm: object, block: IoasidNotifier): () => void {
    this.#mm.add(mm, block, this.findMmSet(mm))
    return () => this.#mm.remove(mm, block, this.findMmSet(mm))
  }

  /** Queues work of a handler; it runs in order, when the clock steps. */
  queueWork(work: () => void): void {
    this.#clock.later(work)
  }

  // ---- outside allocators ----

  /** Registers an outside allocator: EAGAIN while the default one has ids out, EEXIST for the same object twice. */
  registerAllocator(ops: IoasidAllocatorOps): void {
    this.#custom.register(ops, this.#ids !== undefined && this.#ids.count > 0)
  }

  /** Takes an outside allocator away; the next one serves, else the default. */
  unregisterAllocator(ops: IoasidAllocatorOps): void {
    this.#custom.unregister(ops)
  }

  // ---- inside ----

  #pool(): IdAllocator {
    this.#ids ??= new IdAllocator(1, this.capacity - 1)
    return this.#ids
  }

  #outside(low: number, high: number, data: unknown): number {
    return this.#custom.alloc(low, high, data, id => this.#pool().take(id))
  }

  #reclaim(id: number, set: IoasidSet): void {
    this.#rows.unlink(id, set)
    if (this.#rows.spidUsers[id] !== 0) set.spids.delete(this.#rows.spid[id]!)
    const data = this.#data.size === 0 ? undefined : this.#data.get(id)
    if (data !== undefined) this.#data.delete(id)
    if (this.#trace.on) this.#trace.emit({ what: 'reclaim', id })
    this.#ids!.free(id)
    if (this.#custom.inUse) this.#custom.free(id, data)
    if (!set.alive) this.#sets.forget(set)
  }

  #notify(chain: NotifierChain, event: IoasidEvent, id: number, set: IoasidSet): void {
    if (this.#notifying) throw new Error('ioasid: a handler caused another notification')
    this.#notifying = true
    try {
      const { blocks } = chain
      for (let i = 0; i < blocks.length; i++)
        blocks[i]!.notify(event, id, this.#rows.spid[id]!, set, this.#data.get(id))
    } finally {
      this.#notifying = false
    }
  }
}

type IoasidTrace = 'alloc' | 'free' | 'bind' | 'unbind' | 'reclaim' | 'refused'
