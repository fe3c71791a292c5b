/**
 * A device's own translation cache (ATC, PCIe 10.2): tagged by PASID, privilege and page, in flat
 * arrays, bounded. Exact: a request never uses an entry that an invalidation covered. The Global bit
 * of completions is not used to share entries between PASIDs.
 * Next: bus-master.ts (fills and asks it), extended/ats.ts (invalidates it).
 */
import { type AtsInvalidation, NO_PASID } from './request.js'

const SETS = 256
const WAYS = 4
/** Words of an entry: address low, address high, key, permissions. */
const WORDS = 4
const HI = 1
const KEY = 2
const FLAGS = 3
const READ = 1
const WRITE = 2
const EXECUTE = 4
/** A key: page bits 27:23, no PASID 22, privileged 21, PASID 19:0. Free slots have this one. */
const FREE = -1
const NO_PASID_TAG = 0x40_0000
const PRIVILEGED_TAG = 0x20_0000
const BITS_SHIFT = 23
const LARGEST = 30

/** What a lookup asks for. */
export interface AtcAsk {
  pasid: number
  privileged: boolean
  hi: number
  lo: number
  /** What the entry is wanted for: observers alone look at these. */
  write?: boolean
  execute?: boolean
}

/** A translation cache of 1024 entries, 4-way, with one probe per page size in use. */
export class TranslationCache {
  readonly #entries = new Int32Array(SETS * WAYS * WORDS).fill(FREE)
  /** Physical address of each entry's page. */
  readonly #page = new Float64Array(SETS * WAYS)
  readonly #victim = new Uint8Array(SETS)
  /** The slots in use, in no order, and where each one stands among them: what invalidations look at. */
  readonly #used = new Int16Array(SETS * WAYS)
  readonly #place = new Int16Array(SETS * WAYS)
  /** Entries held, by page size. */
  readonly #held = new Int32Array(LARGEST + 1)
  #sizes = 0
  #count = 0
  /** Counts insertions and removals. */
  changes = 0

  /** Entries held. */
  get count(): number {
    return this.#count
  }

  /** Finds the entry of a page: a slot, or -1 when there is none. */
  lookup(ask: AtcAsk): number {
    const tag = tagOf(ask.pasid, ask.privileged)
    for (let left = this.#sizes; left !== 0; left &= left - 1) {
      const bits = 31 - Math.clz32(left & -left)
      const slot = this.#find(ask.hi, ask.lo & (-1 << bits), tag | (bits << BITS_SHIFT), bits)
      if (slot >= 0) return slot
    }
    return -1
  }

  /** Whether the entry in `slot` permits an access. */
  permits(slot: number, write: boolean, execute: boolean): boolean {
    const f = this.#entries[slot * WORDS + FLAGS]!
    return (f & (write ? WRITE : READ)) !== 0 && (!execute || (f & EXECUTE) !== 0)
  }

  /** Physical address of the byte at `lo`, through the entry in `slot`. */
  output(slot: number, lo: number): number {
    const bits = this.#entries[slot * WORDS + KEY]! >> BITS_SHIFT
    return this.#page[slot]! + ((lo & ~(-1 << bits)) >>> 0)
  }

  /**
   * Bytes from the asked one on, at most `limit`, that this entry and those of the pages that follow
   * send to consecutive addresses, all permitting the access.
   */
  span(slot: number, ask: AtcAsk, limit: number, write: boolean, execute: boolean): number {
    const e = this.#entries
    const key = e[slot * WORDS + KEY]!
    const bits = key >> BITS_SHIFT
    const size = 1 << bits
    const need = (write ? WRITE : READ) | (execute ? EXECUTE : 0)
    let lo = ask.lo & -size
    let covered = size - (ask.lo & (size - 1))
    let page = this.#page[slot]!
    while (covered < limit) {
      lo = (lo + size) | 0
      page += size
      if (lo === 0) break
      const next = this.#find(ask.hi, lo, key, bits)
      if (next < 0 || this.#page[next] !== page) break
      if ((e[next * WORDS + FLAGS]! & need) !== need) break
      covered += size
    }
    return Math.min(covered, limit)
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
    const key = tagOf(ask.pasid, ask.privileged) | (bits << BITS_SHIFT)
    const lo = ask.lo & (-1 << bits)
    let slot = this.#find(ask.hi, lo, key, bits)
    if (slot < 0) slot = this.#room(setOf(key, ask.hi, lo, bits))
    this.#drop(slot)
    const e = this.#entries
    const at = slot * WORDS
    e[at] = lo
    e[at + HI] = ask.hi
    e[at + KEY] = key
    e[at + FLAGS] = (read ? READ : 0) | (write ? WRITE : 0) | (execute ? EXECUTE : 0)
    this.#page[slot] = output - ((ask.lo & ~(-1 << bits)) >>> 0)
    this.changes++
    this.#place[slot] = this.#count
    this.#used[this.#count++] = slot
    if (this.#held[bits]!++ === 0) this.#sizes |= 1 << bits
    return slot
  }

  /** Drops every entry that shares a byte with the range, of the PASID named or, if global, of all. */
  invalidate(i: AtsInvalidation): number {
    const before = this.#count
    if (before === 0) return 0
    const e = this.#entries
    if (i.pageBits === 12 && !i.global) {
      this.#dropPage(i, tagOf(i.pasid, false))
      if (i.pasid !== NO_PASID) this.#dropPage(i, tagOf(i.pasid, true))
      return before - this.#count
    }
    // Backwards: dropping an entry moves the last one into its place.
    for (let n = before - 1; n >= 0; n--) {
      const slot = this.#used[n]!
      const at = slot * WORDS
      const key = e[at + KEY]!
      if (!i.global && pasidOf(key) !== i.pasid) continue
      const bits = Math.max(i.pageBits, key >> BITS_SHIFT)
      if (sameRange(e[at + HI]!, e[at]!, i.hi, i.lo, bits)) this.#drop(slot)
    }
    return before - this.#count
  }

  /** Drops everything. */
  clear(): void {
    this.changes++
    this.#entries.fill(FREE)
    this.#held.fill(0)
    this.#sizes = 0
    this.#count = 0
  }

  /** The entries, for explanations and tests. */
  entries(): { pasid: number; address: bigint; pageBits: number; output: number }[] {
    const out = []
    const e = this.#entries
    for (let slot = 0; slot < SETS * WAYS; slot++) {
      const at = slot * WORDS
      const key = e[at + KEY]!
      if (key === FREE) continue
      out.push({
        pasid: pasidOf(key),
        address: (BigInt(e[at + HI]! >>> 0) << 32n) | BigInt(e[at]! >>> 0),
        pageBits: key >> BITS_SHIFT,
        output: this.#page[slot]!,
      })
    }
    return out
  }

  #find(hi: number, lo: number, key: number, bits: number): number {
    const e = this.#entries
    const first = setOf(key, hi, lo, bits)
    for (let slot = first; slot < first + WAYS; slot++) {
      const at = slot * WORDS
      if (e[at] === lo && e[at + HI] === hi && e[at + KEY] === key) return slot
    }
    return -1
  }

  /** Drops what one 4 KiB page of an address space shares a byte with: at most an entry of each size. */
  #dropPage({ hi, lo }: AtsInvalidation, tag: number): void {
    for (let left = this.#sizes; left !== 0; left &= left - 1) {
      const bits = 31 - Math.clz32(left & -left)
      const slot = this.#find(hi, lo & (-1 << bits), tag | (bits << BITS_SHIFT), bits)
      if (slot >= 0) this.#drop(slot)
    }
  }

  /** A free slot of the set, or the one whose turn it is. */
  #room(first: number): number {
    for (let slot = first; slot < first + WAYS; slot++)
      if (this.#entries[slot * WORDS + KEY] === FREE) return slot
    const set = first / WAYS
    const turn = this.#victim[set]!
    this.#victim[set] = (turn + 1) % WAYS
    return first + turn
  }

  #drop(slot: number): void {
    const at = slot * WORDS + KEY
    const key = this.#entries[at]!
    if (key === FREE) return
    this.#entries[at] = FREE
    this.changes++
    const last = this.#used[--this.#count]!
    this.#used[this.#place[slot]!] = last
    this.#place[last] = this.#place[slot]!
    const bits = key >> BITS_SHIFT
    if (--this.#held[bits]! === 0) this.#sizes &= ~(1 << bits)
  }
}

const tagOf = (pasid: number, privileged: boolean) =>
  pasid === NO_PASID ? NO_PASID_TAG : pasid | (privileged ? PRIVILEGED_TAG : 0)
const pasidOf = (key: number) => (key & NO_PASID_TAG ? NO_PASID : key & 0xf_ffff)

/** First slot of the set that a page belongs to. */
function setOf(key: number, hi: number, lo: number, bits: number): number {
  const n = (lo >>> bits) ^ Math.imul(hi, 0x9e37) ^ Math.imul(key, 0x61)
  return ((n ^ (n >>> 8)) & (SETS - 1)) * WAYS
}

/** Whether two addresses agree above the low `bits` bits. */
function sameRange(hiA: number, loA: number, hiB: number, loB: number, bits: number): boolean {
  if (bits >= 64) return true
  if (bits >= 32) return bits === 32 ? hiA === hiB : ((hiA ^ hiB) & (-1 << (bits - 32))) === 0
  return hiA === hiB && ((loA ^ loB) & (-1 << bits)) === 0
}
