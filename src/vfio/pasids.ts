// A process's PASIDs (vfio_mm): one context for all nesting containers of one address space, holding the
// ioasid set whose quota it reserved. vSVA v7 patches 4 and 7, as the review left them.
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import { INVALID_IOASID, type IoasidAllocator } from '../iommu/ioasid.js'
import { IOASID_SET_TYPE, type IoasidSet } from '../iommu/ioasid-set.js'

/** Largest quota a process gets when nothing else is configured (module vfio_pasid). */
export const DEFAULT_PASID_QUOTA = 1000

/** PASIDs of one address space. References: one for each container with a nested domain. */
export class PasidContext {
  readonly mm: object
  readonly set: IoasidSet
  readonly #ioasid: IoasidAllocator
  readonly #failures: Failures
  #references = 1

  constructor(mm: object, set: IoasidSet, ioasid: IoasidAllocator, failures: Failures) {
    this.mm = mm
    this.set = set
    this.#ioasid = ioasid
    this.#failures = failures
  }

  get(): this {
    this.#references++
    return this
  }

  /** True when that was the last reference. */
  put(): boolean {
    return --this.#references === 0
  }

  /** The lowest free PASID in [min, max]. ENOSPC when range or quota is exhausted, ENOMEM. */
  alloc(min: number, max: number): number {
    const id = this.#ioasid.alloc(this.set, min, max)
    if (id === INVALID_IOASID) throw noSpace(min, max)
    if (this.#failures.armed) this.#record(id)
    return id
  }

  /** Frees what this address space holds in [min, max]; the rest of the range is ignored. */
  free(min: number, max: number): void {
    if (min === max) this.#ioasid.free(this.set, min)
    else this.#ioasid.freeRange(this.set, min, max)
  }

  /** Calls `visit` for each PASID held. */
  forEach(visit: (pasid: number) => void): void {
    this.#ioasid.forEach(this.set, visit)
  }

  /** Entering the id into the process's list: without memory for that it goes back to the pool. */
  #record(id: number): void {
    try {
      this.#failures.step('PASID of a process')
    } catch (error) {
      this.#ioasid.free(this.set, id)
      throw error
    }
  }
}

const noSpace = (min: number, max: number) =>
  new ErrnoError(
    'ENOSPC',
    `VFIO_IOMMU_PASID_REQUEST: no PASID in [${min}, ${max}] within the quota`,
  )

/** All contexts of a machine, by address space. */
export class PasidContexts {
  readonly #ioasid: IoasidAllocator
  readonly #quota: number
  readonly #failures: Failures
  readonly #byMm = new Map<object, PasidContext>()

  constructor(ioasid: IoasidAllocator, quota: number, failures: Failures) {
    this.#ioasid = ioasid
    this.#quota = quota
    this.#failures = failures
  }

  /** Number of contexts, for leak checks. */
  get size(): number {
    return this.#byMm.size
  }

  /** The context of `mm`, made when there is none: EINVAL for quota 0, ENOSPC beyond capacity, ENOMEM. */
  get(mm: object): PasidContext {
    const known = this.#byMm.get(mm)
    if (known) return known.get()
    this.#failures.step('PASID context')
    const set = this.#ioasid.allocSet(IOASID_SET_TYPE.MM, mm, this.#quota)
    const context = new PasidContext(mm, set, this.#ioasid, this.#failures)
    this.#byMm.set(mm, context)
    return context
  }

  /** Drops a reference; with the last, every PASID is freed and the quota returned. */
  put(context: PasidContext): void {
    if (!context.put()) return
    this.#byMm.delete(context.mm)
    this.#ioasid.putSet(context.set)
  }
}
