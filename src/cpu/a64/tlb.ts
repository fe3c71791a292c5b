// The translation lookaside buffer: 4 KiB pieces of whatever a walk found, tagged with the ASID that was current and
// direct-mapped by page number. It holds last-level results only, so invalidations "by VA, last level" and "by VA" are
// the same here; each drops exactly what its scope names (DDI 0487, D8.16). Next: mmu.ts.

import type { RamRegion } from '../../mem/ram.js'

const ENTRIES = 1024
const MASK = ENTRIES - 1
/** Tag of an unused entry: no page number has it. */
const UNUSED = 0x7fff_ffff
/** ASID of global entries. */
const GLOBAL = -1

/** Entries by place; -1 is no place. Addresses are virtual, without address tag, in signed 32-bit halves. */
export class Tlb {
  /** Of each entry: PERM_* bits, the page's physical address, whether the memory is of a Device type. */
  readonly permissions = new Uint8Array(ENTRIES)
  readonly page = new Float64Array(ENTRIES)
  readonly device = new Uint8Array(ENTRIES)
  /** First byte of the page in the views; the views themselves, for reads and for writes, where the page is RAM. */
  readonly offset = new Float64Array(ENTRIES)
  readonly reads: (DataView | undefined)[] = new Array(ENTRIES).fill(undefined)
  readonly writes: (DataView | undefined)[] = new Array(ENTRIES).fill(undefined)
  readonly ram: (RamRegion | undefined)[] = new Array(ENTRIES).fill(undefined)
  /** Changes whenever an answer of `find` may: what remembers one compares it. */
  epoch = 0
  #current = 0
  #large = 0
  readonly #low = new Int32Array(ENTRIES)
  readonly #high = new Int32Array(ENTRIES).fill(UNUSED)
  readonly #asid = new Int32Array(ENTRIES)
  readonly #bits = new Uint8Array(ENTRIES)

  /** The current ASID. */
  get asid(): number {
    return this.#current
  }

  set asid(asid: number) {
    this.#current = asid
    this.epoch++
  }

  /** Entries held. */
  get count(): number {
    return this.#high.reduce((n, high) => (high === UNUSED ? n : n + 1), 0)
  }

  /** Place of the page's entry under the current ASID, or -1. */
  find(hi: number, lo: number): number {
    const low = (lo >>> 12) | (hi << 20)
    const i = low & MASK
    if (this.#low[i] !== low || this.#high[i] !== hi >> 12) return -1
    const asid = this.#asid[i]
    return asid === this.#current || asid === GLOBAL ? i : -1
  }

  /** Takes the page's place, dropping what it held. `pageBits` is the size of the page or contiguous run walked to. */
  take(hi: number, lo: number, pageBits: number, global: boolean): number {
    const low = (lo >>> 12) | (hi << 20)
    const i = low & MASK
    this.#drop(i)
    this.#low[i] = low
    this.#high[i] = hi >> 12
    this.#asid[i] = global ? GLOBAL : this.#current
    this.#bits[i] = pageBits
    if (pageBits > 12) this.#large++
    return i
  }

  /** TLBI VMALLE1. */
  flush(): void {
    for (let i = 0; i < ENTRIES; i++) this.#drop(i)
  }

  /** TLBI ASIDE1: what is not global, of one ASID. */
  flushAsid(asid: number): void {
    for (let i = 0; i < ENTRIES; i++) if (this.#asid[i] === asid) this.#drop(i)
  }

  /**
   * TLBI VAE1, VALE1 (global entries and those of the ASID), and VAAE1, VAALE1 (`asid` -1: of any). Every piece of a
   * larger page, or of a contiguous run, that the address lies in goes with it.
   */
  flushPage(hi: number, lo: number, asid: number): void {
    const low = (lo >>> 12) | (hi << 20)
    if (this.#large === 0) this.#dropIfCovers(low & MASK, low, hi >> 12, asid)
    else for (let i = 0; i < ENTRIES; i++) this.#dropIfCovers(i, low, hi >> 12, asid)
  }

  #dropIfCovers(i: number, low: number, high: number, asid: number): void {
    const below = this.#bits[i]! - 12
    // The low tag has address bits 43:12; the longest contiguous run is 16 GB, so the shift stays below 32.
    if ((this.#low[i]! ^ low) >>> below !== 0 || this.#high[i] !== high) return
    const of = this.#asid[i]!
    if (asid < 0 || of === GLOBAL || of === asid) this.#drop(i)
  }

  #drop(i: number): void {
    if (this.#high[i] === UNUSED) return
    this.epoch++
    if (this.#bits[i]! > 12) this.#large--
    this.#high[i] = UNUSED
    this.#asid[i] = 0
    this.reads[i] = this.writes[i] = this.ram[i] = undefined
  }
}
