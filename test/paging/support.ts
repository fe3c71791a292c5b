// What the tests of this room share: memory, random numbers, accesses as words.

import { AddressSpace } from '../../src/mem/address-space.js'
import {
  ACCESS_AC,
  ACCESS_EXECUTE,
  ACCESS_EXTENDED,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_SMAP,
  ACCESS_SMEP,
  ACCESS_USER,
  ACCESS_WP,
  ACCESS_WRITE,
  type EntryInto,
  type EntrySource,
  type EntryWindow,
  failureName,
  type Walk,
} from '../../src/paging/walk.js'
import type { RefAccess, RefMemory, RefResult } from './reference.js'

/** Numbers from a seed (xorshift). */
export function random(seed: number): (below: number) => number {
  let s = seed | 1
  return below => {
    s ^= s << 13
    s ^= s >>> 17
    s ^= s << 5
    return (s >>> 0) % below
  }
}

/** RAM below 4 GiB and a piece above it; a frame allocator for each. */
export function memory(lowBytes = 0x20_0000, highBytes = 0x4_0000) {
  const space = new AddressSpace()
  const low = space.addRam(0x1_0000, new Uint8Array(lowBytes))
  // The same low halves of addresses: whoever drops the high half reads the wrong table.
  const high = space.addRam(0x12_0001_0000, new Uint8Array(highBytes))
  let nextLow = low.base
  let nextHigh = high.base
  return {
    space,
    low,
    high,
    alloc: (): number => (nextLow += 4096) - 4096,
    allocHigh: (): number => (nextHigh += 4096) - 4096,
  }
}

export const hiOf = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n))
export const loOf = (address: bigint): number => Number(BigInt.asIntN(32, address))

export function accessOf(a: RefAccess): number {
  return (
    (a.read ? ACCESS_READ : 0) |
    (a.write ? ACCESS_WRITE : 0) |
    (a.fetch ? ACCESS_EXECUTE : 0) |
    (a.user ? ACCESS_USER : 0) |
    (a.wp ? ACCESS_WP : 0) |
    (a.smep ? ACCESS_SMEP : 0) |
    (a.smap ? ACCESS_SMAP : 0) |
    (a.ac ? ACCESS_AC : 0) |
    (a.nxe ? ACCESS_NXE : 0) |
    (a.extended ? ACCESS_EXTENDED : 0) |
    (a.flags2 ? ACCESS_FLAGS2 : 0) |
    (a.probe ? ACCESS_PROBE : 0)
  )
}

export function rightsOf(permissions: number): string {
  return [...'rwxRWXg'].filter((_, i) => (permissions & (1 << i)) !== 0).join('')
}

/** A walk's answer in the reference's words; only what counts for its outcome. */
export function outcome(w: Walk): Partial<RefResult> {
  const failure = failureName(w.failure)
  if (failure === 'none') {
    const { pageBits, dirty } = w
    return { failure, output: BigInt(w.output), pageBits, rights: rightsOf(w.permissions), dirty }
  }
  const during = (['page', 'entry', 'flags'] as const)[w.during]
  return { failure, stage: w.stage, during, level: w.level, entryAt: BigInt(w.entryAt) }
}

export function expected(r: RefResult): Partial<RefResult> {
  const { failure, output, pageBits, rights, dirty, stage, during, level, entryAt } = r
  return failure === 'none'
    ? { failure, output, pageBits, rights, dirty }
    : { failure, stage, during, level, entryAt }
}

/** The reference's view of a space: what it writes stays in an overlay. */
export class Overlay implements RefMemory {
  readonly written = new Map<bigint, bigint>()
  readonly #space: AddressSpace

  constructor(space: AddressSpace) {
    this.#space = space
  }

  read(at: bigint): bigint | undefined {
    const addr = Number(at)
    if (this.#space.ramAt(addr) === undefined) return undefined
    return this.written.get(at) ?? this.#space.load(addr, 8)
  }

  write(at: bigint, value: bigint): void {
    this.written.set(at, value)
  }
}

/** Passes entries on and remembers which ones were written, with their old values. */
export class Recorder implements EntrySource {
  readonly old = new Map<bigint, bigint>()
  readonly #space: AddressSpace

  constructor(space: AddressSpace) {
    this.#space = space
  }

  get generation(): number {
    return this.#space.generation
  }

  readEntry(at: number, into: EntryInto): boolean {
    return this.#space.readEntry(at, into)
  }

  ramAt(at: number): EntryWindow | undefined {
    return this.#space.ramAt(at)
  }

  orEntry(at: number, lo: number, hi: number): boolean {
    const key = BigInt(at)
    if (!this.old.has(key)) this.old.set(key, this.#space.load(at, 8))
    return this.#space.orEntry(at, lo, hi)
  }

  /** What was written, as it is now, in the order of addresses; then everything as it was. */
  undo(): string {
    const now = [...this.old.keys()].map(at => [at, this.#space.load(Number(at), 8)] as const)
    for (const [at, value] of this.old) this.#space.store(Number(at), 8, value)
    this.old.clear()
    return entries(now)
  }
}

/** Entries in the order of their addresses. */
export const entries = (of: Iterable<readonly [bigint, bigint]>): string =>
  [...of]
    .sort(([a], [b]) => Number(a - b))
    .map(([at, value]) => `${at.toString(16)}=${value.toString(16)}`)
    .join(' ')

/** An outcome on one line. */
export const line = (o: Partial<RefResult>): string =>
  Object.entries(o)
    .map(([k, v]) => `${k} ${typeof v === 'bigint' ? v.toString(16) : v}`)
    .join(', ')
