/**
 * The translation cache of an IOMMU: entries tagged by domain, PASID (or ASID) and requester, of any page
 * size, in flat arrays. A hit reads one line; every invalidation scope drops exactly what it names, at a
 * cost in proportion. It holds what it is told: what may be cached, and for whom, is its unit's business.
 */
import type { Walk } from '../paging/walk.js'
import { PageIndex } from './iotlb-pages.js'
import { TagTable } from './iotlb-tags.js'

/** Which stages made an entry, as a bit, so that invalidations can name several. */
export const IOTLB_FIRST = 1
/** Second stage alone, or a legacy-mode translation. */
export const IOTLB_SECOND = 2
/** First stage through second. */
export const IOTLB_NESTED = 4
/** All kinds. */
export const IOTLB_ANY = 7

/** Tag of an entry that serves every requester of its domain. */
export const ANY_SOURCE = -1

// Words of an entry.
const LO = 0 // first input address
const HI = 1
const PASID = 2
const SOURCE = 3
const META = 4 // domain | pageBits << 16 | permissions << 22
const OUT_LO = 5 // what to add to an input's page offset
const OUT_HI = 6
const NEXT = 7 // in its bucket, or in the list of free slots

// Words that only changes look at.
const TAG = 0
const TAG_NEXT = 1 // among the entries of its tag
const TAG_PREVIOUS = 2

/** Domain and page size in META. */
const IDENTITY = 0x3f_ffff
const NONE = -1
const SMALLEST = 12
/** Ranges of more pages than this are found by looking at the entries of a tag. */
const MOST_PROBES = 4096
/** Smallest pages in 2^n bytes. */
const PAGES_OF = Float64Array.from({ length: 65 }, (_, n) => 2 ** Math.max(n - SMALLEST, 0))
const TWO32 = 0x1_0000_0000
/** Up to one in so many entries are dropped one by one rather than by clearing the arrays. */
const FEW = 8

const bucketOf = (lo: number, hi: number, domain: number, pasid: number, mask: number): number => {
  const h = Math.imul(
    (lo >>> 12) ^ Math.imul(hi, 0x2c1b3c6d) ^ Math.imul((pasid << 8) ^ domain, 0x297a2d39),
    0x9e3779b1,
  )
  return (h ^ (h >>> 15)) & mask
}

/** The masks of an aligned block of 2^bits bytes. */
const maskLo = (bits: number): number => (bits < 32 ? -1 << bits : 0)
const maskHi = (bits: number): number => (bits <= 32 ? -1 : bits < 64 ? -1 << (bits - 32) : 0)

/** A translation cache of a fixed number of entries; when full, the oldest slot in turn is replaced. */
export class Iotlb {
  readonly capacity: number
  readonly #mask: number
  readonly #buckets: Int32Array
  readonly #entries: Int32Array
  readonly #links: Int32Array
  readonly #pages: PageIndex
  readonly #tags: TagTable
  /** Entries by log2 of page size, and a bit per size in use, from 2^12 up. */
  readonly #sizes = new Int32Array(64)
  #sizesUsed = 0
  #freeEntry = 0
  #hand = 0
  #count = 0

  /** `capacity`: entries held, 1 to 2^20. */
  constructor(capacity = 4096) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 20) {
      throw new Error(`IOTLB of ${capacity} entries`)
    }
    this.capacity = capacity
    const buckets = 2 ** Math.ceil(Math.log2(capacity * 2))
    this.#mask = buckets - 1
    this.#buckets = new Int32Array(buckets)
    this.#entries = new Int32Array(capacity * 8)
    this.#links = new Int32Array(capacity * 4)
    this.#pages = new PageIndex(capacity)
    this.#tags = new TagTable(capacity)
    this.#clear()
  }

  /** Entries held. */
  get size(): number {
    return this.#count
  }

  /**
   * The slot that translates an address for a domain (0 to 2^16-1), PASID (or -1) and requester (or
   * ANY_SOURCE); -1 for a miss. A slot stays good until the next insertion or invalidation.
   */
  lookup(domain: number, pasid: number, source: number, hi: number, lo: number): number {
    for (let sizes = this.#sizesUsed; sizes !== 0; sizes &= sizes - 1) {
      const bits = SMALLEST + 31 - Math.clz32(sizes & -sizes)
      const firstLo = lo & (bits < 32 ? -1 << bits : 0)
      const firstHi = bits <= 32 ? hi : hi & (-1 << (bits - 32))
      const slot = this.#find(domain, pasid, source, firstHi, firstLo, bits)
      if (slot >= 0) return slot
    }
    return NONE
  }

  /** PERM_* of a slot. */
  permissions(slot: number): number {
    return this.#entries[(slot << 3) | META]! >>> 22
  }

  /** log2 of the page size of a slot. */
  pageBits(slot: number): number {
    return (this.#entries[(slot << 3) | META]! >>> 16) & 0x3f
  }

  /** IOTLB_* bit of the stages that made a slot. */
  kind(slot: number): number {
    return this.#tags.kind(this.#links[(slot << 2) | TAG]!)
  }

  /** The physical address of an input address that `lookup` answered this slot for. */
  output(slot: number, hi: number, lo: number): number {
    const e = slot << 3
    const bits = (this.#entries[e | META]! >>> 16) & 0x3f
    const outLo = this.#entries[e | OUT_LO]! | (lo & ~maskLo(bits))
    const outHi = this.#entries[e | OUT_HI]! | (hi & ~maskHi(bits))
    return outHi * TWO32 + (outLo >>> 0)
  }

  /** True when a fresh walk of the same address gives what the slot holds; otherwise the slot is stale. */
  agrees(slot: number, hi: number, lo: number, w: Walk): boolean {
    return (
      w.failure === 0 &&
      w.output === this.output(slot, hi, lo) &&
      (this.permissions(slot) & ~w.permissions) === 0
    )
  }

  /**
   * Holds a translation: `output` and `pageBits` as a Walk gives them for this address, `permissions` the
   * PERM_* to grant (`Walk.cacheable`). Answers its slot. One that is held already is replaced.
   */
  insert(
    domain: number,
    pasid: number,
    source: number,
    kind: number,
    hi: number,
    lo: number,
    output: number,
    pageBits: number,
    permissions: number,
  ): number {
    const firstLo = lo & maskLo(pageBits)
    const firstHi = hi & maskHi(pageBits)
    const held = this.#find(domain, pasid, source, firstHi, firstLo, pageBits)
    if (held >= 0) this.#drop(held)
    if (this.#freeEntry < 0) {
      this.#drop(this.#hand)
      this.#hand = this.#hand + 1 === this.capacity ? 0 : this.#hand + 1
    }
    const entries = this.#entries
    const slot = this.#freeEntry
    const e = slot << 3
    this.#freeEntry = entries[e | NEXT]!
    entries[e | LO] = firstLo
    entries[e | HI] = firstHi
    entries[e | PASID] = pasid
    entries[e | SOURCE] = source
    entries[e | META] = domain | (pageBits << 16) | (permissions << 22)
    entries[e | OUT_LO] = output & maskLo(pageBits)
    entries[e | OUT_HI] = (output / TWO32) & maskHi(pageBits)
    const bucket = bucketOf(firstLo, firstHi, domain, pasid, this.#mask)
    entries[e | NEXT] = this.#buckets[bucket]!
    this.#buckets[bucket] = slot
    this.#join(slot, this.#tags.take(domain, pasid, source, kind))
    this.#pages.join(slot, firstHi, firstLo, domain, kind === IOTLB_SECOND)
    if (this.#sizes[pageBits]!++ === 0) this.#sizesUsed |= 1 << (pageBits - SMALLEST)
    this.#count++
    return slot
  }

  /** Drops everything; answers how many entries that were, as all invalidations do. */
  invalidateAll(): number {
    const dropped = this.#count
    if (dropped * FEW < this.capacity)
      for (const domain of this.#tags.domains()) this.invalidateDomain(domain)
    else this.#clear()
    return dropped
  }

  /** Drops the entries of a domain, of these kinds. */
  invalidateDomain(domain: number, kinds = IOTLB_ANY): number {
    let dropped = 0
    for (let tag = this.#tags.firstOf(domain); tag >= 0; ) {
      const next = this.#tags.nextOf(tag)
      if ((this.#tags.kind(tag) & kinds) !== 0) dropped += this.#dropTag(tag, 0)
      tag = next
    }
    return dropped
  }

  /**
   * Drops the entries of a domain, of any PASID and of these kinds, that overlap an aligned range of
   * 2^rangeBits bytes of input addresses.
   */
  invalidateDomainRange(
    domain: number,
    hi: number,
    lo: number,
    rangeBits: number,
    kinds = IOTLB_ANY,
  ): number {
    const bits = Math.max(rangeBits, SMALLEST)
    const pages = PAGES_OF[bits]!
    let dropped = 0
    if (pages <= this.#count && pages <= MOST_PROBES) {
      if ((kinds & ~IOTLB_SECOND) !== 0)
        dropped += this.#dropPages(domain, hi, lo, bits, kinds, false)
      if ((kinds & IOTLB_SECOND) !== 0)
        dropped += this.#dropPages(domain, hi, lo, bits, kinds, true)
      return dropped
    }
    for (let tag = this.#tags.firstOf(domain); tag >= 0; ) {
      const next = this.#tags.nextOf(tag)
      if ((this.#tags.kind(tag) & kinds) !== 0)
        dropped += this.#dropByScanning(tag, hi, lo, bits, 0)
      tag = next
    }
    return dropped
  }

  /** Drops the entries of a PASID in a domain, of these kinds; not those with a PERM_* bit of `keep` (PERM_GLOBAL). */
  invalidatePasid(domain: number, pasid: number, kinds = IOTLB_ANY, keep = 0): number {
    let dropped = 0
    for (let tag = this.#tags.first(domain, pasid, kinds); tag >= 0; ) {
      const next = this.#tags.next(tag, kinds)
      dropped += this.#dropTag(tag, keep)
      tag = next
    }
    return dropped
  }

  /** Drops those of them that overlap an aligned range of 2^rangeBits bytes. */
  invalidatePasidRange(
    domain: number,
    pasid: number,
    hi: number,
    lo: number,
    rangeBits: number,
    kinds = IOTLB_ANY,
    keep = 0,
  ): number {
    let dropped = 0
    for (let tag = this.#tags.first(domain, pasid, kinds); tag >= 0; ) {
      const next = this.#tags.next(tag, kinds)
      dropped += this.#dropRange(tag, hi, lo, rangeBits, keep)
      tag = next
    }
    return dropped
  }

  #clear(): void {
    const { capacity } = this
    this.#buckets.fill(NONE)
    this.#pages.clear()
    this.#tags.clear()
    this.#sizes.fill(0)
    for (let i = 0; i < capacity; i++) {
      this.#entries[(i << 3) | NEXT] = i + 1 < capacity ? i + 1 : NONE
    }
    this.#sizesUsed = 0
    this.#freeEntry = 0
    this.#hand = 0
    this.#count = 0
  }

  #find(
    domain: number,
    pasid: number,
    source: number,
    firstHi: number,
    firstLo: number,
    bits: number,
  ): number {
    const entries = this.#entries
    const identity = domain | (bits << 16)
    let slot = this.#buckets[bucketOf(firstLo, firstHi, domain, pasid, this.#mask)]!
    while (slot >= 0) {
      const e = slot << 3
      if (
        entries[e | LO] === firstLo &&
        entries[e | HI] === firstHi &&
        entries[e | PASID] === pasid &&
        (entries[e | META]! & IDENTITY) === identity &&
        entries[e | SOURCE] === source
      ) {
        return slot
      }
      slot = entries[e | NEXT]!
    }
    return NONE
  }

  // Takes an entry out of its bucket and its tag; a tag without entries goes too.
  #drop(slot: number): void {
    const entries = this.#entries
    const e = slot << 3
    const bucket = bucketOf(
      entries[e | LO]!,
      entries[e | HI]!,
      entries[e | META]! & 0xffff,
      entries[e | PASID]!,
      this.#mask,
    )
    let before = this.#buckets[bucket]!
    if (before === slot) this.#buckets[bucket] = entries[e | NEXT]!
    else {
      while (entries[(before << 3) | NEXT] !== slot) before = entries[(before << 3) | NEXT]!
      entries[(before << 3) | NEXT] = entries[e | NEXT]!
    }
    const bits = (entries[e | META]! >>> 16) & 0x3f
    if (--this.#sizes[bits]! === 0) this.#sizesUsed &= ~(1 << (bits - SMALLEST))

    const links = this.#links
    const tag = links[(slot << 2) | TAG]!
    const next = links[(slot << 2) | TAG_NEXT]!
    const previous = links[(slot << 2) | TAG_PREVIOUS]!
    if (previous < 0) this.#tags.head[tag] = next
    else links[(previous << 2) | TAG_NEXT] = next
    if (next >= 0) links[(next << 2) | TAG_PREVIOUS] = previous
    if (--this.#tags.count[tag]! === 0) this.#tags.release(tag)
    this.#pages.leave(slot)

    entries[e | NEXT] = this.#freeEntry
    this.#freeEntry = slot
    this.#count--
  }

  #dropTag(tag: number, keep: number): number {
    let dropped = 0
    for (let slot = this.#tags.head[tag]!; slot >= 0; ) {
      const next = this.#links[(slot << 2) | TAG_NEXT]!
      if ((this.permissions(slot) & keep) === 0) {
        this.#drop(slot)
        dropped++
      }
      slot = next
    }
    return dropped
  }

  #dropRange(tag: number, hi: number, lo: number, rangeBits: number, keep: number): number {
    const bits = Math.max(rangeBits, SMALLEST)
    const pages = PAGES_OF[bits]!
    return pages <= this.#tags.count[tag]! && pages <= MOST_PROBES
      ? this.#dropByProbing(tag, hi, lo, bits, keep)
      : this.#dropByScanning(tag, hi, lo, bits, keep)
  }

  // Looks up every page the range can hold, of every size in use.
  #dropByProbing(tag: number, hi: number, lo: number, rangeBits: number, keep: number): number {
    const domain = this.#tags.domain(tag)
    const pasid = this.#tags.pasid(tag)
    const source = this.#tags.source(tag)
    let dropped = 0
    for (let sizes = this.#sizesUsed; sizes !== 0; sizes &= sizes - 1) {
      const bits = SMALLEST + 31 - Math.clz32(sizes & -sizes)
      const blocks = rangeBits > bits ? 1 << (rangeBits - bits) : 1
      const firstLo = lo & maskLo(Math.max(bits, rangeBits))
      const firstHi = hi & maskHi(Math.max(bits, rangeBits))
      for (let i = 0; i < blocks; i++) {
        const at = firstLo | (blocks === 1 ? 0 : i << bits)
        const slot = this.#find(domain, pasid, source, firstHi, at, bits)
        if (slot < 0 || this.#links[(slot << 2) | TAG] !== tag) continue
        if ((this.permissions(slot) & keep) !== 0) continue
        this.#drop(slot)
        dropped++
      }
    }
    return dropped
  }

  // Looks up every page the range can hold, of every size in use and of any PASID.
  #dropPages(
    domain: number,
    hi: number,
    lo: number,
    rangeBits: number,
    kinds: number,
    second: boolean,
  ): number {
    const entries = this.#entries
    let dropped = 0
    for (let sizes = this.#sizesUsed; sizes !== 0; sizes &= sizes - 1) {
      const bits = SMALLEST + 31 - Math.clz32(sizes & -sizes)
      const blocks = rangeBits > bits ? 1 << (rangeBits - bits) : 1
      const firstLo = lo & maskLo(Math.max(bits, rangeBits))
      const firstHi = hi & maskHi(Math.max(bits, rangeBits))
      const identity = domain | (bits << 16)
      for (let i = 0; i < blocks; i++) {
        const at = firstLo | (blocks === 1 ? 0 : i << bits)
        let slot = this.#pages.first(firstHi, at, domain, second)
        while (slot >= 0) {
          const next = this.#pages.next(slot)
          const e = slot << 3
          if (
            entries[e | LO] === at &&
            entries[e | HI] === firstHi &&
            (entries[e | META]! & IDENTITY) === identity &&
            (this.kind(slot) & kinds) !== 0
          ) {
            this.#drop(slot)
            dropped++
          }
          slot = next
        }
      }
    }
    return dropped
  }

  // Looks at every entry of the tag.
  #dropByScanning(tag: number, hi: number, lo: number, rangeBits: number, keep: number): number {
    let dropped = 0
    for (let slot = this.#tags.head[tag]!; slot >= 0; ) {
      const e = slot << 3
      const next = this.#links[(slot << 2) | TAG_NEXT]!
      const bits = Math.max(this.pageBits(slot), rangeBits)
      const apart =
        ((this.#entries[e | LO]! ^ lo) & maskLo(bits)) |
        ((this.#entries[e | HI]! ^ hi) & maskHi(bits))
      if (apart === 0 && (this.permissions(slot) & keep) === 0) {
        this.#drop(slot)
        dropped++
      }
      slot = next
    }
    return dropped
  }

  #join(slot: number, tag: number): void {
    const first = this.#tags.head[tag]!
    const l = slot << 2
    this.#links[l | TAG] = tag
    this.#links[l | TAG_NEXT] = first
    this.#links[l | TAG_PREVIOUS] = NONE
    if (first >= 0) this.#links[(first << 2) | TAG_PREVIOUS] = slot
    this.#tags.head[tag] = slot
    this.#tags.count[tag]!++
  }
}
