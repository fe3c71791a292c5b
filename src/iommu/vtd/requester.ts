/**
 * What a unit has cached for one requester: its context entry, and its PASID table entries by PASID and by
 * domain, so that dropping a domain's costs what it drops. Next: entries.ts.
 */
import type { Binding, Context } from './entries.js'

/** The cached entries of one requester. */
export class Requester {
  context: Context | undefined = undefined
  readonly #bindings = new Map<number, Binding>()
  /** PASIDs by the domain of their entry. */
  readonly #domains = new Map<number, Set<number>>()

  /** The PASID table entry of a PASID. */
  binding(pasid: number): Binding | undefined {
    return this.#bindings.get(pasid)
  }

  /** Holds one; none is held of the PASID. */
  keep(pasid: number, b: Binding): void {
    this.#bindings.set(pasid, b)
    const pasids = this.#domains.get(b.did)
    if (pasids) pasids.add(pasid)
    else this.#domains.set(b.did, new Set([pasid]))
  }

  /** Drops that of a PASID when it is of a domain. */
  drop(did: number, pasid: number): void {
    const pasids = this.#domains.get(did)
    if (!pasids?.delete(pasid)) return
    this.#bindings.delete(pasid)
    if (pasids.size === 0) this.#domains.delete(did)
  }

  /** Drops those of a domain. */
  dropDomain(did: number): void {
    for (const pasid of this.#domains.get(did) ?? []) this.#bindings.delete(pasid)
    this.#domains.delete(did)
  }

  /** Drops all of them. */
  dropAll(): void {
    this.#bindings.clear()
    this.#domains.clear()
  }
}
