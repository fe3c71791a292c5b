// Objects of one iommufd by id: lowest free id from 1, users counted, destroyed only when nobody uses them.
// Closing destroys what is left, users before what they use. uapi linux/iommufd.h, "Destroying objects".
import { ErrnoError } from '../../base/errno.js'
import type { Failures } from '../../base/failures.js'
import { IdAllocator } from '../../base/ids.js'

/** What an object can be. */
export type ObjectKind =
  | 'ioas'
  | 'hwpt-paging'
  | 'hwpt-nested'
  | 'device'
  | 'fault'
  | 'viommu'
  | 'vdevice'
  | 'veventq'

/** One object. */
export interface IommufdObject {
  readonly kind: ObjectKind
  /** 0 until it is in a table. */
  id: number
  /** What refers to it: while there is something it cannot be destroyed. */
  users: number
  /** Gives everything back that it holds. */
  destroy(): void
}

/** Ids of one file: far more than any program has. */
const LAST_ID = 2 ** 20

/** The objects of one iommufd. */
export class ObjectTable {
  readonly #ids = new IdAllocator(1, LAST_ID)
  readonly #objects = new Map<number, IommufdObject>()
  readonly #failures: Failures

  constructor(failures: Failures) {
    this.#failures = failures
  }

  get size(): number {
    return this.#objects.size
  }

  /** The first objects first. */
  all(): readonly IommufdObject[] {
    return [...this.#objects.values()]
  }

  /** Gives a new object its id. ENOSPC, ENOMEM. */
  add<T extends IommufdObject>(object: T): T {
    this.#failures.step('an object')
    const id = this.#ids.alloc()
    if (id < 0) throw new ErrnoError('ENOSPC', 'iommufd: every object id is taken')
    object.id = id
    this.#objects.set(id, object)
    return object
  }

  /** The object with an id, whatever it is. */
  find(id: number): IommufdObject | undefined {
    return this.#objects.get(id)
  }

  /** Destroys an object: ENOENT unknown, EBUSY in use. */
  destroy(id: number): void {
    const object = this.#objects.get(id)
    if (object === undefined) throw new ErrnoError('ENOENT', `iommufd: no object ${id}`)
    if (object.users > 0)
      throw new ErrnoError('EBUSY', `iommufd: ${object.kind} ${id} has ${object.users} users`)
    this.remove(object)
  }

  /** Destroys an object that nobody uses. */
  remove(object: IommufdObject): void {
    this.#objects.delete(object.id)
    this.#ids.free(object.id)
    object.destroy()
  }

  /** Destroys everything, users first. */
  clear(): void {
    while (this.#objects.size > 0) {
      const before = this.#objects.size
      for (const object of [...this.#objects.values()].reverse())
        if (object.users === 0) this.remove(object)
      if (this.#objects.size === before)
        throw new Error(`iommufd: ${before} objects use each other or something that is gone`)
    }
  }
}
