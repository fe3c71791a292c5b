/**
 * temporary
 */
import type { Binding, Entries } from './entries.js'
import type { TranslationCaches } from './invalidate.js'

interface T {
  did: number
  pasid: number
  nested: boolean
  first: boolean
  page: number
  bits: number
  out: number
  rights: number
}
export class Caches implements TranslationCaches {
  epoch = 1 << 16
  rights = 0
  pageBits = 12
  output = 0
  readonly #entries: Entries
  readonly #overflow: () => void
  #list: T[] = []
  constructor(entries: Entries, overflow: () => void) {
    this.#entries = entries
    this.#overflow = overflow
  }
  get mode(): number {
    return this.#entries.mode
  }
  touch(): void {
    const n = (this.epoch >>> 16) + 1
    if (n > 0x7fff) {
      this.#overflow()
      this.epoch = 1 << 16
    } else this.epoch = n << 16
  }
  clear(): void {
    this.#entries.clear()
    this.#list = []
    this.touch()
  }
  find(b: Binding, hi: number, lo: number): boolean {
    const a = (hi >>> 0) * 2 ** 32 + (lo >>> 0)
    const t = this.#list.find(
      t => t.did === b.did && t.pasid === b.tagPasid && a >= t.page && a < t.page + 2 ** t.bits,
    )
    if (!t) return false
    this.rights = t.rights
    this.pageBits = t.bits
    this.output = t.out + (a - t.page)
    return true
  }
  keep(b: Binding, hi: number, lo: number, bits: number, output: number, rights: number): void {
    const a = (hi >>> 0) * 2 ** 32 + (lo >>> 0)
    this.rights = rights
    this.pageBits = bits
    this.output = output
    const off = a % 2 ** bits
    this.#list = this.#list.filter(
      t => !(t.did === b.did && t.pasid === b.tagPasid && a >= t.page && a < t.page + 2 ** t.bits),
    )
    this.#list.push({
      did: b.did,
      pasid: b.tagPasid,
      nested: b.pgtt === 3,
      first: b.pgtt === 1,
      page: a - off,
      bits,
      out: output - off,
      rights,
    })
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
    const a = (hi >>> 0) * 2 ** 32 + (lo >>> 0),
      size = 2 ** (12 + order),
      base = a - (a % size)
    this.#list = this.#list.filter(
      t =>
        !(
          scope === 'global' ||
          (t.did === did &&
            (scope === 'domain' ||
              t.nested ||
              t.first ||
              (t.page < base + size && t.page + 2 ** t.bits > base)))
        ),
    )
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
    const a = (hi >>> 0) * 2 ** 32 + (lo >>> 0),
      size = 2 ** (12 + order),
      base = a - (a % size)
    this.#list = this.#list.filter(
      t =>
        !(
          t.did === did &&
          t.pasid === pasid &&
          (scope === 'pasid' || (t.page < base + size && t.page + 2 ** t.bits > base))
        ),
    )
    this.touch()
  }
}
