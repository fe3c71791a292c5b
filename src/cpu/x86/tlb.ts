// The translation lookaside buffer: 4 KiB pieces of whatever a walk found, tagged with the PCID that was current,
// direct-mapped by page number. Invalidation follows SDM vol. 3, 4.10.4, to the letter of its scopes. Next: mmu.ts.

import type { RamRegion } from '../../mem/ram.js'

const ENTRIES = 1024
const MASK = ENTRIES - 1

/** What an entry allows, under the control bits at the time it was filled. */
// biome-ignore format: table
export const ALLOW = {
  SUPERVISOR_READ: 1 << 0,    SUPERVISOR_WRITE: 1 << 1,   SUPERVISOR_FETCH: 1 << 2,
  USER_READ: 1 << 3,          USER_WRITE: 1 << 4,         USER_FETCH: 1 << 5,
  /** Supervisor data accesses that SMAP keeps off user pages. */
  SMAP_READ: 1 << 6,          SMAP_WRITE: 1 << 7,
} as const

/** Entries by slot number; -1 is no slot. Addresses are linear, in signed 32-bit halves. */
export class Tlb {
  /** Of each entry: `ALLOW` bits, the first byte of its page in `views`, and the page's physical address. */
  readonly allow = new Int32Array(ENTRIES)
  readonly page = new Float64Array(ENTRIES)
  readonly offset = new Float64Array(ENTRIES)
  readonly view: (DataView | undefined)[] = new Array(ENTRIES).fill(undefined)
  readonly ram: (RamRegion | undefined)[] = new Array(ENTRIES).fill(undefined)
  /** Current PCID, in the place where tags have it. */
  #pcid = 0
  #large = 0
  readonly #low = new Int32Array(ENTRIES)
  readonly #high = new Int32Array(ENTRIES)
  readonly #used = new Uint8Array(ENTRIES)
  readonly #bits = new Uint8Array(ENTRIES)
  readonly #global = new Uint8Array(ENTRIES)

  get pcid(): number {
    return this.#pcid >>> 20
  }

  set pcid(v: number) {
    this.#pcid = v << 20
  }

  /** Entries held. */
  get count(): number {
    let n = 0
    for (let i = 0; i < ENTRIES; i++) n += this.#used[i]!
    return n
  }

  /** Slot of the page's entry under the current PCID, or -1. */
  find(hi: number, lo: number): number {
    const low = (lo >>> 12) | (hi << 20)
    const i = low & MASK
    if (this.#low[i] !== low || this.#used[i] === 0) return -1
    const difference = this.#high[i]! ^ ((hi >>> 12) | this.#pcid)
    // A global entry counts under any PCID.
    return difference === 0 || (this.#global[i] === 1 && (difference & 0xf_ffff) === 0) ? i : -1
  }

  /** Takes the page's slot, dropping what it held. `pageBits` is the size of the page walked to. */
  take(hi: number, lo: number, pageBits: number, global: boolean): number {
    const low = (lo >>> 12) | (hi << 20)
    const i = low & MASK
    this.#drop(i)
    this.#low[i] = low
    this.#high[i] = (hi >>> 12) | this.#pcid
    this.#used[i] = 1
    this.#bits[i] = pageBits
    this.#global[i] = global ? 1 : 0
    if (pageBits > 12) this.#large++
    return i
  }

  /** Everything, global entries too. */
  flush(): void {
    for (let i = 0; i < ENTRIES; i++) this.#drop(i)
  }

  /** Everything but global entries, of one PCID or of all (-1). */
  flushContext(pcid = -1): void {
    const tag = pcid << 20
    for (let i = 0; i < ENTRIES; i++) {
      if (this.#global[i] === 1) continue
      if (pcid < 0 || ((this.#high[i]! ^ tag) & ~0xf_ffff) === 0) this.#drop(i)
    }
  }

  /** Everything whose view `which` names, by slot. */
  flushWhere(which: (slot: number) => boolean): void {
    for (let i = 0; i < ENTRIES; i++) if (this.#used[i] === 1 && which(i)) this.#drop(i)
  }

  /**
   * What translates one linear address under a PCID: INVPCID type 0; `withGlobal` for INVLPG, which drops global
   * entries whatever their PCID. Every piece of a large page goes with it.
   */
  flushPage(hi: number, lo: number, pcid: number, withGlobal: boolean): void {
    const low = (lo >>> 12) | (hi << 20)
    if (this.#large === 0) {
      this.#dropIfCovers(low & MASK, low, hi >>> 12, pcid, withGlobal)
      return
    }
    for (let i = 0; i < ENTRIES; i++) this.#dropIfCovers(i, low, hi >>> 12, pcid, withGlobal)
  }

  #dropIfCovers(i: number, low: number, high: number, pcid: number, withGlobal: boolean): void {
    if (this.#used[i] === 0) return
    const below = this.#bits[i]! - 12
    if ((this.#low[i]! ^ low) >>> below !== 0 || ((this.#high[i]! ^ high) & 0xf_ffff) !== 0) return
    const global = this.#global[i] === 1
    if (global ? withGlobal : this.#high[i]! >>> 20 === pcid) this.#drop(i)
  }

  #drop(i: number): void {
    if (this.#used[i] === 1 && this.#bits[i]! > 12) this.#large--
    this.#used[i] = 0
    this.#global[i] = 0
    this.view[i] = undefined
    this.ram[i] = undefined
  }
}
