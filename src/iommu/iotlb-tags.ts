/**
 * Which tags a translation cache holds entries of: domain, PASID, requester and stages, each tag with the
 * list of its entries, found by domain or by PASID. The lists themselves are kept by iotlb.ts.
 */

const WORDS = 8
const DOMAIN = 0
const PASID = 1
const SOURCE = 2
const KIND = 3
const NEXT = 4 // in its bucket, or in the list of free tags
const DOMAIN_NEXT = 5 // among the tags of its domain
const DOMAIN_PREVIOUS = 6
const NONE = -1

const bucketOf = (domain: number, pasid: number, mask: number): number => {
  const h = Math.imul(domain ^ Math.imul(pasid, 0x2c1b3c6d), 0x9e3779b1)
  return (h ^ (h >>> 15)) & mask
}

/** The tags in use, by small numbers. */
export class TagTable {
  /** First entry of each tag; kept by the cache. */
  readonly head: Int32Array
  /** Number of entries of each tag; kept by the cache. */
  readonly count: Int32Array
  readonly #tags: Int32Array
  readonly #buckets: Int32Array
  readonly #mask: number
  /** First tag of each domain that has one. */
  readonly #domains = new Map<number, number>()
  #free = 0

  constructor(capacity: number) {
    const buckets = 2 ** Math.ceil(Math.log2(capacity * 2))
    this.head = new Int32Array(capacity)
    this.count = new Int32Array(capacity)
    this.#tags = new Int32Array(capacity * WORDS)
    this.#buckets = new Int32Array(buckets)
    this.#mask = buckets - 1
    this.clear()
  }

  domain(tag: number): number {
    return this.#tags[(tag << 3) | DOMAIN]!
  }

  pasid(tag: number): number {
    return this.#tags[(tag << 3) | PASID]!
  }

  source(tag: number): number {
    return this.#tags[(tag << 3) | SOURCE]!
  }

  /** The stages that made the tag's entries, as a bit. */
  kind(tag: number): number {
    return this.#tags[(tag << 3) | KIND]!
  }

  /** Forgets all tags. */
  clear(): void {
    const capacity = this.head.length
    this.#buckets.fill(NONE)
    this.#domains.clear()
    this.#free = 0
    for (let i = 0; i < capacity; i++) this.#tags[(i << 3) | NEXT] = i + 1 < capacity ? i + 1 : NONE
  }

  /** The number of a tag, new and without entries if it was not in use. */
  take(domain: number, pasid: number, source: number, kind: number): number {
    const tags = this.#tags
    for (let tag = this.first(domain, pasid, kind); tag >= 0; tag = this.next(tag, kind)) {
      if (tags[(tag << 3) | SOURCE] === source) return tag
    }
    const tag = this.#free
    const t = tag << 3
    const bucket = bucketOf(domain, pasid, this.#mask)
    const first = this.firstOf(domain)
    this.#free = tags[t | NEXT]!
    this.head[tag] = NONE
    this.count[tag] = 0
    tags[t | DOMAIN] = domain
    tags[t | PASID] = pasid
    tags[t | SOURCE] = source
    tags[t | KIND] = kind
    tags[t | NEXT] = this.#buckets[bucket]!
    this.#buckets[bucket] = tag
    tags[t | DOMAIN_NEXT] = first
    tags[t | DOMAIN_PREVIOUS] = NONE
    if (first >= 0) tags[(first << 3) | DOMAIN_PREVIOUS] = tag
    this.#domains.set(domain, tag)
    return tag
  }

  /** Gives the number of a tag back. */
  release(tag: number): void {
    const tags = this.#tags
    const t = tag << 3
    const domain = tags[t | DOMAIN]!
    const bucket = bucketOf(domain, tags[t | PASID]!, this.#mask)
    let before = this.#buckets[bucket]!
    if (before === tag) this.#buckets[bucket] = tags[t | NEXT]!
    else {
      while (tags[(before << 3) | NEXT] !== tag) before = tags[(before << 3) | NEXT]!
      tags[(before << 3) | NEXT] = tags[t | NEXT]!
    }
    const next = tags[t | DOMAIN_NEXT]!
    const previous = tags[t | DOMAIN_PREVIOUS]!
    if (next >= 0) tags[(next << 3) | DOMAIN_PREVIOUS] = previous
    if (previous >= 0) tags[(previous << 3) | DOMAIN_NEXT] = next
    else if (next >= 0) this.#domains.set(domain, next)
    else this.#domains.delete(domain)
    tags[t | NEXT] = this.#free
    this.#free = tag
  }

  /** The domains that have tags; they may be released meanwhile. */
  domains(): Iterable<number> {
    return this.#domains.keys()
  }

  /** The first tag of a domain, -1 when there is none. */
  firstOf(domain: number): number {
    return this.#domains.get(domain) ?? NONE
  }

  /** The tag after this one in its domain. */
  nextOf(tag: number): number {
    return this.#tags[(tag << 3) | DOMAIN_NEXT]!
  }

  /** The first tag of a PASID in a domain with one of these kinds. */
  first(domain: number, pasid: number, kinds: number): number {
    const bucket = bucketOf(domain, pasid, this.#mask)
    return this.#matching(this.#buckets[bucket]!, domain, pasid, kinds)
  }

  /** The tag after this one with its domain and PASID. */
  next(tag: number, kinds: number): number {
    const t = tag << 3
    const tags = this.#tags
    return this.#matching(tags[t | NEXT]!, tags[t | DOMAIN]!, tags[t | PASID]!, kinds)
  }

  #matching(from: number, domain: number, pasid: number, kinds: number): number {
    const tags = this.#tags
    for (let tag = from; tag >= 0; tag = tags[(tag << 3) | NEXT]!) {
      const t = tag << 3
      const same = tags[t | PASID] === pasid && tags[t | DOMAIN] === domain
      if (same && (tags[t | KIND]! & kinds) !== 0) return tag
    }
    return NONE
  }
}
