/**
 * Sets of PASIDs: who owns ids, how many he may hold, and the system's capacity that quotas are taken
 * from when a set is made. Which ids a set holds is a list through ioasid.ts's arrays.
 */
import { ErrnoError } from '../base/errno.js'
import { NotifierChain } from './ioasid-notify.js'

/** Types of set. */
export const IOASID_SET_TYPE = { NULL: 1, MM: 2 } as const
/** One of the set types. */
export type IoasidSetType = (typeof IOASID_SET_TYPE)[keyof typeof IOASID_SET_TYPE]

/** An owner of ids. Made by `IoasidAllocator.allocSet`; members are for reading. */
export class IoasidSet {
  readonly type: number
  /** The address space of an MM set. */
  readonly token: object | undefined
  /** Largest number of ids the set may hold. */
  quota: number
  /** Ids held, those in FREE_PENDING included. */
  count = 0
  /** References; the set dies with the last. */
  refs = 1
  /** False once the last reference went; ids with users may outlive the set. */
  alive = true
  /** Number of this set in the allocator's arrays. For the allocator only. */
  index = 0
  /** First id of the list of held ids, 0 none. For the allocator only. */
  first = 0
  /** Who hears of this set's events. */
  readonly chain = new NotifierChain()
  /** Id by set-private id. For the allocator only. */
  readonly spids = new Map<number, number>()

  constructor(type: number, token: object | undefined, quota: number) {
    this.type = type
    this.token = token
    this.quota = quota
  }
}

/** All sets, and what is left of the capacity. */
export class IoasidSets {
  /** Ids in the system; the sum of quotas never exceeds it. */
  capacity: number
  #reserved = 0
  readonly #byToken = new Map<object, IoasidSet>()
  // Index 0 is nobody: an id's owner field that says 0 means that the id is free.
  readonly #slots: (IoasidSet | undefined)[] = [undefined]
  readonly #freeSlots: number[] = []

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Ids that new quotas may still reserve. */
  get available(): number {
    return this.capacity - this.#reserved
  }

  get reserved(): number {
    return this.#reserved
  }

  /** The set with this number; undefined for 0. */
  at(index: number): IoasidSet | undefined {
    return this.#slots[index]
  }

  byToken(token: object): IoasidSet | undefined {
    return this.#byToken.get(token)
  }

  /** Makes a set. EINVAL for a bad type, token or quota 0; ENOSPC beyond capacity; EEXIST for a known token. */
  create(type: number, token: object | undefined, quota: number): IoasidSet {
    if (type !== IOASID_SET_TYPE.NULL && type !== IOASID_SET_TYPE.MM)
      throw new ErrnoError('EINVAL', `ioasid: set type ${type}`)
    if (type === IOASID_SET_TYPE.NULL && token !== undefined)
      throw new ErrnoError('EINVAL', 'ioasid: a set of type NULL has no token')
    if (type === IOASID_SET_TYPE.MM && token === undefined)
      throw new ErrnoError('EINVAL', 'ioasid: a set of type MM needs an address space')
    if (quota === 0) throw new ErrnoError('EINVAL', 'ioasid: quota 0')
    if (quota > this.available)
      throw new ErrnoError('ENOSPC', `ioasid: quota ${quota} of ${this.available} available`)
    if (token !== undefined && this.#byToken.has(token))
      throw new ErrnoError('EEXIST', 'ioasid: the address space has a set')
    const set = new IoasidSet(type, token, quota)
    set.index = this.#freeSlots.pop() ?? this.#slots.length
    this.#slots[set.index] = set
    if (token !== undefined) this.#byToken.set(token, set)
    this.#reserved += quota
    return set
  }

  /** Changes a quota: EINVAL below what is held, ENOSPC when the increase is not available. */
  adjust(set: IoasidSet, quota: number): void {
    if (quota < set.count)
      throw new ErrnoError('EINVAL', `ioasid: quota ${quota} below the ${set.count} ids held`)
    if (quota - set.quota > this.available)
      throw new ErrnoError('ENOSPC', `ioasid: ${quota - set.quota} more of ${this.available}`)
    this.#reserved += quota - set.quota
    set.quota = quota
  }

  /** The last reference is gone and every id was freed: token and quota are available at once. */
  bury(set: IoasidSet): void {
    set.alive = false
    if (set.token !== undefined) this.#byToken.delete(set.token)
    this.#reserved -= set.quota
    set.chain.blocks.length = 0
    this.forget(set)
  }

  /** Gives the number of a dead set back when its last id is reclaimed. */
  forget(set: IoasidSet): void {
    if (set.alive || set.count > 0 || this.#slots[set.index] !== set) return
    this.#slots[set.index] = undefined
    this.#freeSlots.push(set.index)
  }
}
