/**
 * Entries of a translation cache by the first page they hold, whatever their PASID: what invalidation by address
 * looks in. Entries of one page hang on a chain together with those that happen to share its bucket, so whoever
 * follows it compares. The entries themselves are kept by iotlb.ts.
 */

const NEXT = 0
const PREVIOUS = 1
const BUCKET = 2
const NONE = -1

/** Chains of slots by domain and page. */
export class PageIndex {
  readonly #heads: Int32Array
  readonly #links: Int32Array
  readonly #mask: number

  constructor(capacity: number) {
    const buckets = 2 ** Math.ceil(Math.log2(capacity * 2))
    this.#heads = new Int32Array(buckets).fill(NONE)
    this.#links = new Int32Array(capacity * 4)
    this.#mask = buckets - 1
  }

  /** Forgets all slots. */
  clear(): void {
    this.#heads.fill(NONE)
  }

  /** The first slot that may hold a page of a domain, -1 for none. Addresses of the second stage are kept apart. */
  first(hi: number, lo: number, domain: number, second: boolean): number {
    return this.#heads[this.#bucket(hi, lo, domain, second)]!
  }

  /** The slot after this one on its chain. */
  next(slot: number): number {
    return this.#links[(slot << 2) | NEXT]!
  }

  /** Adds a slot. */
  join(slot: number, hi: number, lo: number, domain: number, second: boolean): void {
    const links = this.#links
    const bucket = this.#bucket(hi, lo, domain, second)
    const first = this.#heads[bucket]!
    const l = slot << 2
    links[l | NEXT] = first
    links[l | PREVIOUS] = NONE
    links[l | BUCKET] = bucket
    if (first >= 0) links[(first << 2) | PREVIOUS] = slot
    this.#heads[bucket] = slot
  }

  /** Takes a slot out. */
  leave(slot: number): void {
    const links = this.#links
    const l = slot << 2
    const next = links[l | NEXT]!
    const previous = links[l | PREVIOUS]!
    if (previous < 0) this.#heads[links[l | BUCKET]!] = next
    else links[(previous << 2) | NEXT] = next
    if (next >= 0) links[(next << 2) | PREVIOUS] = previous
  }

  #bucket(hi: number, lo: number, domain: number, second: boolean): number {
    const h = Math.imul(
      (lo >>> 12) ^
        Math.imul(hi, 0x2c1b3c6d) ^
        Math.imul(domain, 0x297a2d39) ^
        (second ? 0x55aa : 0),
      0x9e3779b1,
    )
    return (h ^ (h >>> 15)) & this.#mask
  }
}
