/**
 * A device's own translation cache (ATC, PCIe 10.2): tagged by PASID, privilege and page, in flat
 * arrays, bounded. Exact: a request never uses an entry that an invalidation covered. The Global bit
 * of completions is not used to share entries between PASIDs.
 * Next: bus-master.ts (fills and asks it), extended/ats.ts (invalidates it).
 */
import { type AtsInvalidation, NO_PASID } from './request.js'

const SETS = 256
const WAYS = 4
const VALID = 1
const READ = 2
const WRITE = 4
const EXECUTE = 8
const PRIVILEGED_TAG = 0x10_0000
const LARGEST = 30

/** What a lookup asks for. */
export interface AtcAsk {
  pasid: number
  privileged: boolean
  hi: number
  lo: number
}

/** A translation cache of 1024 entries, 4-way, with one probe per page size in use. */
export class TranslationCache {
  /** Bits 31:0 of the page's address; 63:32 in `#hi`. */
  readonly #lo = new Int32Array(SETS * WAYS)
  readonly #hi = new Int32Array(SETS * WAYS)
  /** PASID (or -1), with bit 20 set in entries of privileged requests. */
  readonly #tag = new Int32Array(SETS * WAYS)
  readonly #bits = new Uint8Array(SETS * WAYS)
  readonly #flags = new Uint8Array(SETS * WAYS)
  readonly #page = new Float64Array(SETS * WAYS)
  readonly #victim = new Uint8Array(SETS)
  /** Entries held, by page size. */
  readonly #held = new Int32Array(LARGEST + 1)
  #sizes = 0
  #count = 0

  /** Entries held. */
  get count(): number {
    return this.#count
  }

  /** Finds the entry of a page; -1 when there is none. */
  lookup(ask: AtcAsk): number {
    if (this.#count === 0) return -1
    const tag = tagOf(ask.pasid, ask.privileged)
    for (let left = this.#sizes; left !== 0; left &= left - 1) {
      const bits = 31 - Math.clz32(left & -left)
      const lo = ask.lo & (-1 << bits)
      const first = setOf(tag, ask.hi, lo, bits)
      for (let i = first; i < first + WAYS; i++)
        if (
          this.#lo[i] === lo &&
          this.#hi[i] === ask.hi &&
          this.#tag[i] === tag &&
          this.#bits[i] === bits &&
          this.#flags[i] !== 0
        )
          return i
    }
    return -1
  }

  /** Whether the entry in `slot` permits an access. */
  permits(slot: number, write: boolean, execute: boolean): boolean {
    const f = this.#flags[slot]!
    return (f & (write ? WRITE : READ)) !== 0 && (!execute || (f & EXECUTE) !== 0)
  }

  /** Physical address of the byte at `lo`, through the entry in `slot`. */
  output(slot: number, lo: number): number {
    return this.#page[slot]! + ((lo & ~(-1 << this.#bits[slot]!)) >>> 0)
  }

  /**
   * Keeps a translation. `output` is that of the byte asked for; pages above 1 GiB are kept as the
   * 1 GiB around it. Replaces an entry of the same page, or the set's oldest.
   */
  insert(
    ask: AtcAsk,
    output: number,
    pageBits: number,
    read: boolean,
    write: boolean,
    execute: boolean,
  ): number {
    const bits = Math.min(pageBits, LARGEST)
    const tag = tagOf(ask.pasid, ask.privileged)
    const lo = ask.lo & (-1 << bits)
    const first = setOf(tag, ask.hi, lo, bits)
    let slot = -1
    for (let i = first; i < first + WAYS && slot < 0; i++)
      if (
        this.#flags[i] !== 0 &&
        this.#lo[i] === lo &&
        this.#hi[i] === ask.hi &&
        this.#tag[i] === tag &&
        this.#bits[i] === bits
      )
        slot = i
    for (let i = first; i < first + WAYS && slot < 0; i++) if (this.#flags[i] === 0) slot = i
    if (slot < 0) {
      const set = first / WAYS
      slot = first + this.#victim[set]!
      this.#victim[set] = (this.#victim[set]! + 1) % WAYS
    }
    this.#drop(slot)
    this.#lo[slot] = lo
    this.#hi[slot] = ask.hi
    this.#tag[slot] = tag
    this.#bits[slot] = bits
    this.#flags[slot] = VALID | (read ? READ : 0) | (write ? WRITE : 0) | (execute ? EXECUTE : 0)
    this.#page[slot] = output - ((ask.lo & ~(-1 << bits)) >>> 0)
    this.#count++
    if (this.#held[bits]!++ === 0) this.#sizes |= 1 << bits
    return slot
  }

  /** Drops every entry that shares a byte with the range, of the PASID named or, if global, of all. */
  invalidate(i: AtsInvalidation): number {
    const before = this.#count
    for (let slot = 0; slot < SETS * WAYS; slot++) {
      if (this.#flags[slot] === 0) continue
      if (!i.global && pasidOf(this.#tag[slot]!) !== i.pasid) continue
      const bits = Math.max(i.pageBits, this.#bits[slot]!)
      if (sameRange(this.#hi[slot]!, this.#lo[slot]!, i.hi, i.lo, bits)) this.#drop(slot)
    }
    return before - this.#count
  }

  /** Drops everything. */
  clear(): void {
    this.#flags.fill(0)
    this.#held.fill(0)
    this.#sizes = 0
    this.#count = 0
  }

  /** The entries as `[pasid, address, page bits, output]`, for explanations and tests. */
  entries(): { pasid: number; address: bigint; pageBits: number; output: number }[] {
    const out = []
    for (let slot = 0; slot < SETS * WAYS; slot++)
      if (this.#flags[slot] !== 0)
        out.push({
          pasid: pasidOf(this.#tag[slot]!),
          address: (BigInt(this.#hi[slot]! >>> 0) << 32n) | BigInt(this.#lo[slot]! >>> 0),
          pageBits: this.#bits[slot]!,
          output: this.#page[slot]!,
        })
    return out
  }

  #drop(slot: number): void {
    if (this.#flags[slot] === 0) return
    this.#flags[slot] = 0
    this.#count--
    const bits = this.#bits[slot]!
    if (--this.#held[bits]! === 0) this.#sizes &= ~(1 << bits)
  }
}

const tagOf = (pasid: number, privileged: boolean) =>
  pasid === NO_PASID ? NO_PASID : pasid | (privileged ? PRIVILEGED_TAG : 0)
const pasidOf = (tag: number) => (tag === NO_PASID ? NO_PASID : tag & 0xf_ffff)

function setOf(tag: number, hi: number, lo: number, bits: number): number {
  const n = (lo >>> bits) ^ Math.imul(hi, 0x9e37) ^ Math.imul(tag, 0x61) ^ bits
  return ((n ^ (n >>> 8)) & (SETS - 1)) * WAYS
}

/** Whether two addresses agree above the low `bits` bits. */
function sameRange(hiA: number, loA: number, hiB: number, loB: number, bits: number): boolean {
  if (bits >= 64) return true
  if (bits >= 32) return bits === 32 ? hiA === hiB : ((hiA ^ hiB) & (-1 << (bits - 32))) === 0
  return hiA === hiB && ((loA ^ loB) & (-1 << bits)) === 0
}
