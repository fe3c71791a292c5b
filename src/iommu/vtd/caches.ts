/**
 * The translation caches of a unit behind one door: context and PASID caches (entries.ts), the IOTLB
 * (../iotlb.ts), and the epoch that the answers in front of it live in. Which entries a scope drops is
 * VT-d tables 23 and 24. There is no paging-structure cache, so the invalidation hint changes nothing.
 */
import { ANY_SOURCE, IOTLB_FIRST, IOTLB_NESTED, IOTLB_SECOND, Iotlb } from '../iotlb.js'
import type { Binding, Entries } from './entries.js'
import type { TranslationCaches } from './invalidate.js'
import { PGTT } from './tables.js'

/** Epochs are bits 31:16 of a word whose low half is a requester id. */
const EPOCH_STEP = 0x1_0000
const LAST_EPOCH = 0x7fff_0000

const kindOf = (b: Binding): number =>
  b.pgtt === PGTT.NESTED ? IOTLB_NESTED : b.pgtt === PGTT.FIRST_STAGE ? IOTLB_FIRST : IOTLB_SECOND

/** The caches of one unit. */
export class Caches implements TranslationCaches {
  /** Answers in front of the IOTLB are good while they carry this. */
  epoch = EPOCH_STEP
  /** Counts epochs, and never starts again. */
  epochs = 0
  /** What `find` found or `keep` kept: PERM_*, log2 of the page, and the physical address. */
  rights = 0
  pageBits = 12
  output = 0
  readonly #entries: Entries
  readonly #forgetFront: () => void
  readonly #iotlb = new Iotlb()

  /** `forgetFront` runs when epochs start again: answers of old ones must go. */
  constructor(entries: Entries, forgetFront: () => void) {
    this.#entries = entries
    this.#forgetFront = forgetFront
  }

  get mode(): number {
    return this.#entries.mode
  }

  /** Makes every answer in front of the IOTLB stale. */
  touch(): void {
    this.epochs++
    if (this.epoch !== LAST_EPOCH) this.epoch += EPOCH_STEP
    else {
      this.epoch = EPOCH_STEP
      this.#forgetFront()
    }
  }

  /** Drops everything. */
  clear(): void {
    this.#entries.clear()
    this.#iotlb.invalidateAll()
    this.touch()
  }

  /** Looks an address up. */
  find(b: Binding, hi: number, lo: number): boolean {
    const iotlb = this.#iotlb
    const slot = iotlb.lookup(b.did, b.tagPasid, ANY_SOURCE, hi, lo)
    if (slot < 0) return false
    this.rights = iotlb.permissions(slot)
    this.pageBits = iotlb.pageBits(slot)
    this.output = iotlb.output(slot, hi, lo)
    return true
  }

  /** Keeps a translation. */
  keep(b: Binding, hi: number, lo: number, pageBits: number, output: number, rights: number): void {
    this.#iotlb.insert(b.did, b.tagPasid, ANY_SOURCE, kindOf(b), hi, lo, output, pageBits, rights)
    this.rights = rights
    this.pageBits = pageBits
    this.output = output
  }

  contextCache(
    scope: 'global' | 'domain' | 'device',
    did: number,
    sid: number,
    ignore: number,
  ): void {
    this.#entries.forgetContexts(scope, did, sid, ignore)
    this.touch()
  }

  pasidCache(scope: 'global' | 'domain' | 'pasid', did: number, pasid: number): void {
    this.#entries.forgetBindings(scope, did, pasid)
    this.touch()
  }

  iotlb(
    scope: 'global' | 'domain' | 'page',
    did: number,
    hi: number,
    lo: number,
    order: number,
  ): void {
    const iotlb = this.#iotlb
    if (scope === 'global') iotlb.invalidateAll()
    else if (scope === 'domain') iotlb.invalidateDomain(did)
    else {
      iotlb.invalidateDomainRange(did, hi, lo, rangeBits(order), IOTLB_SECOND)
      // First-stage and nested entries are not found by a second-stage address: all of the domain's go.
      iotlb.invalidateDomain(did, IOTLB_FIRST | IOTLB_NESTED)
    }
    this.touch()
  }

  pasidIotlb(
    scope: 'pasid' | 'page',
    did: number,
    pasid: number,
    hi: number,
    lo: number,
    order: number,
  ): void {
    if (scope === 'pasid') this.#iotlb.invalidatePasid(did, pasid)
    else this.#iotlb.invalidatePasidRange(did, pasid, hi, lo, rangeBits(order))
    this.touch()
  }
}

/** log2 of the bytes that an address mask stands for; the whole address space at most. */
const rangeBits = (order: number): number => Math.min(12 + order, 64)
