/**
 * What one unit has cached of translations, and the scopes that commands drop it by (IHI 0070 3.17, 4.4).
 * EL1 entries are tagged by VMID and ASID, EL2-E2H entries by ASID; entries of all ASIDs (nG clear) are kept
 * apart for each ASID that made them, but dropped together. A hint of granule or level narrows nothing.
 */
import { PERM_GLOBAL } from '../../paging/walk.js'
import { IOTLB_FIRST, IOTLB_NESTED, IOTLB_SECOND, Iotlb } from '../iotlb.js'
import type { Binding } from './requests.js'
import { WORLD } from './streams.js'

/** ASID tag of stage 2 entries and EL2 entries, which have none. */
export const NO_ASID = -1
/** ASID tag of entries that belong to all ASIDs of a VMID. */
const ALL_ASIDS = -2

/** Kinds of entries that hold a stage 1. */
const STAGE1 = IOTLB_FIRST | IOTLB_NESTED

/** A range of input addresses: `count` pages of 4 KB from page `page`. Both are exact as numbers. */
export interface PageRange {
  readonly page: number
  readonly count: number
}

/** The translation caches of one unit. */
export class Caches {
  /** Changes with every invalidation; in bits 31:16, above a requester id. */
  epoch = 1 << 16
  /** The same without end: for whoever keeps answers for longer. */
  epochs = 0
  /** What the last `find` or `keep` is about. */
  rights = 0
  pageBits = 12
  output = 0
  readonly #el1: Iotlb
  readonly #el2: Iotlb
  readonly #overflow: () => void

  /** `overflow` runs when epochs begin again: whatever carries one must be forgotten. */
  constructor(entries: number, overflow: () => void) {
    this.#el1 = new Iotlb(entries)
    this.#el2 = new Iotlb(Math.max(entries >> 4, 16))
    this.#overflow = overflow
  }

  /** Entries held. */
  get size(): number {
    return this.#el1.size + this.#el2.size
  }

  /** Makes answers in front of the caches invalid. */
  touch(): void {
    this.epochs++
    const next = (this.epoch >>> 16) + 1
    if (next > 0x7fff) {
      this.#overflow()
      this.epoch = 1 << 16
    } else this.epoch = next << 16
  }

  /** Looks an address up, without its tag; true when it is held. */
  find(b: Binding, hi: number, lo: number): boolean {
    const tlb = b.stream.world === WORLD.EL1 ? this.#el1 : this.#el2
    let slot = tlb.lookup(b.domain, b.asid, b.source, hi, lo)
    if (slot < 0) {
      if (b.asid < 0) return false
      slot = tlb.lookup(b.domain, ALL_ASIDS, b.globalSource, hi, lo)
      if (slot < 0) return false
    }
    this.rights = tlb.permissions(slot)
    this.pageBits = tlb.pageBits(slot)
    this.output = tlb.output(slot, hi, lo)
    return true
  }

  /** Holds a translation. A run of contiguous entries that is not one in both spaces counts as a page. */
  keep(b: Binding, hi: number, lo: number, bits: number, output: number, rights: number): void {
    const tlb = b.stream.world === WORLD.EL1 ? this.#el1 : this.#el2
    const pageBits = aligned(hi, lo, output, bits) ? bits : 12
    const all = b.asid >= 0 && (rights & PERM_GLOBAL) !== 0
    tlb.insert(
      b.domain,
      all ? ALL_ASIDS : b.asid,
      all ? b.globalSource : b.source,
      b.kind,
      hi,
      lo,
      output,
      pageBits,
      rights,
    )
    this.rights = rights
    this.pageBits = pageBits
    this.output = output
  }

  /** Drops everything. */
  clear(): void {
    this.#el1.invalidateAll()
    this.#el2.invalidateAll()
    this.touch()
  }

  /** NSNH_ALL: all of EL1. */
  allEl1(): void {
    this.#el1.invalidateAll()
    this.touch()
  }

  /** EL2_ALL. */
  allEl2(): void {
    this.#el2.invalidateAll()
    this.touch()
  }

  /** NH_ALL; S12_VMALL with `stage2`. */
  vmid(vmid: number, stage2: boolean): void {
    this.#el1.invalidateDomain(vmid, stage2 ? STAGE1 | IOTLB_SECOND : STAGE1)
    this.touch()
  }

  /** NH_ASID, EL2_ASID: entries of all ASIDs stay. */
  asid(world: number, vmid: number, asid: number): void {
    this.#of(world).invalidatePasid(domainOf(world, vmid), asid, STAGE1)
    this.touch()
  }

  /** NH_VA, EL2_VA. */
  address(world: number, vmid: number, asid: number, range: PageRange): void {
    const tlb = this.#of(world)
    const domain = domainOf(world, vmid)
    blocks(range, (hi, lo, bits) => {
      tlb.invalidatePasidRange(domain, asid, hi, lo, bits, STAGE1)
      tlb.invalidatePasidRange(domain, ALL_ASIDS, hi, lo, bits, STAGE1)
    })
    this.touch()
  }

  /** NH_VAA, EL2_VAA. */
  addressOfAll(world: number, vmid: number, range: PageRange): void {
    const tlb = this.#of(world)
    const domain = domainOf(world, vmid)
    blocks(range, (hi, lo, bits) => tlb.invalidateDomainRange(domain, hi, lo, bits, STAGE1))
    this.touch()
  }

  /** S2_IPA: entries that hold a stage 1 stay. */
  intermediate(vmid: number, range: PageRange): void {
    blocks(range, (hi, lo, bits) =>
      this.#el1.invalidateDomainRange(vmid, hi, lo, bits, IOTLB_SECOND),
    )
    this.touch()
  }

  #of(world: number): Iotlb {
    return world === WORLD.EL1 ? this.#el1 : this.#el2
  }
}

/** Tag of a regime's entries: the VMID in EL1, the regime otherwise. */
export const domainOf = (world: number, vmid: number): number =>
  world === WORLD.EL1 ? vmid : world

/** True when an address and its translation agree in their low bits. */
const aligned = (hi: number, lo: number, output: number, bits: number): boolean =>
  bits < 32
    ? ((output ^ lo) & ((1 << bits) - 1)) === 0
    : (output ^ lo) === 0 &&
      ((output / 2 ** 32) & ((1 << (bits - 32)) - 1)) === (hi & ((1 << (bits - 32)) - 1))

const PAGES = 2 ** 52
const PAGES_OF_LOW_HALF = 2 ** 20

/** Cuts a range into aligned blocks of 2^bits bytes; what lies above 64 bits is left out. */
function blocks(range: PageRange, each: (hi: number, lo: number, bits: number) => void): void {
  let { page } = range
  if (range.count === 1) {
    each((page / PAGES_OF_LOW_HALF) | 0, ((page % PAGES_OF_LOW_HALF) * 4096) | 0, 12)
    return
  }
  let left = Math.min(range.count, PAGES - page)
  while (left > 0) {
    let order = Math.floor(Math.log2(left))
    while (page % 2 ** order !== 0) order--
    each((page / PAGES_OF_LOW_HALF) | 0, ((page % PAGES_OF_LOW_HALF) * 4096) | 0, 12 + order)
    page += 2 ** order
    left -= 2 ** order
  }
}
