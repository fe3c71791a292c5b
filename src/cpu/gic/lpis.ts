// LPIs of one redistributor (IHI 0069H chapter 5.1): pending bits, kept here and in the guest's pending table while LPIs
// are off, and configurations, cached from the guest's table until an invalidation. LPIs are edges of group 1 and have no active state.

import type { AddressSpace } from '../../mem/address-space.js'
import { FIRST_LPI, IDLE_PRIORITY, INTID_BITS, PRIORITY_BITS } from './registers.js'

const ENABLED = 1
const TABLE_BYTES = 2 ** INTID_BITS / 8
const SKIPPED_BYTES = FIRST_LPI / 8

/** Where the tables are. */
export interface LpiTables {
  readonly configuration: number
  readonly pending: number
  /** First interrupt id that the tables do not hold. */
  readonly end: number
}

/** Priorities there are. */
const LEVELS = 2 ** PRIORITY_BITS

/** The LPIs that a redistributor has. */
export class Lpis {
  readonly #memory: AddressSpace
  readonly #changed: () => void
  #pending = new Set<number>()
  readonly #configuration = new Map<number, number>()
  /** Enabled pending ones by priority, in the order they came; and which of these sets are not empty. */
  readonly #levels = Array.from({ length: LEVELS }, () => new Set<number>())
  #occupied = 0
  /** The sets have to be made anew. */
  #stale = false
  readonly #byte = new Uint8Array(1)
  /** Undefined while LPIs are disabled. */
  #tables: LpiTables | undefined

  constructor(memory: AddressSpace, changed: () => void) {
    this.#memory = memory
    this.#changed = changed
  }

  get enabled(): boolean {
    return this.#tables !== undefined
  }

  /** Pending ones, in no order. */
  get pending(): ReadonlySet<number> {
    return this.#pending
  }

  /** Enables LPIs; the pending table is read unless `empty`. */
  enable(tables: LpiTables, empty: boolean): void {
    this.#tables = tables
    if (!empty) {
      const table = this.#pendingTable(tables)
      for (let byte = SKIPPED_BYTES; byte < tables.end / 8; byte++)
        for (let bits = table[byte]!; bits !== 0; bits &= bits - 1)
          this.#pending.add(byte * 8 + 31 - Math.clz32(bits & -bits))
    }
    this.#again()
  }

  /** Disables LPIs; what is pending goes to the table. */
  disable(): void {
    this.writePendingTable()
    this.#tables = undefined
    this.#pending.clear()
    this.#again()
  }

  /** Brings the guest's pending table up to date; false when it has no such memory. */
  writePendingTable(): boolean {
    const tables = this.#tables
    if (tables === undefined) return true
    const table = this.#pendingTable(tables)
    table.fill(0, SKIPPED_BYTES)
    for (const intid of this.#pending) table[intid >> 3]! |= 1 << (intid & 7)
    const length = tables.end / 8 - SKIPPED_BYTES
    return this.#memory.write(tables.pending + SKIPPED_BYTES, table, SKIPPED_BYTES, length)
  }

  /** Makes an LPI pending; false when LPIs are off or it is none of theirs. */
  set(intid: number): boolean {
    if (this.#tables === undefined || intid < FIRST_LPI || intid >= this.#tables.end) return false
    if (this.#pending.has(intid)) return true
    this.#pending.add(intid)
    if (!this.#stale) this.#place(intid)
    this.#changed()
    return true
  }

  /** Makes an LPI not pending; whether it was. */
  clear(intid: number): boolean {
    if (!this.#pending.delete(intid)) return false
    if (!this.#stale) this.#displace(intid)
    this.#changed()
    return true
  }

  /** Takes over all that is pending of another; what these tables do not hold is lost. */
  takeAll(other: Lpis): void {
    const taken = other.#pending
    if (this.#tables !== undefined) {
      // The larger set stays as it is, so that moving all to and fro costs nothing.
      const [large, small] =
        taken.size > this.#pending.size ? [taken, this.#pending] : [this.#pending, taken]
      for (const intid of small) large.add(intid)
      this.#pending = large
    }
    other.#pending = new Set()
    this.#again()
    other.#again()
  }

  /** Forgets a configuration, or all. */
  invalidate(intid?: number): void {
    if (intid === undefined) {
      this.#again()
      return
    }
    const placed = !this.#stale && this.#pending.has(intid)
    if (placed) this.#displace(intid)
    this.#configuration.delete(intid)
    if (placed) this.#place(intid)
    this.#changed()
  }

  /** An enabled pending LPI of the highest priority, or -1. */
  get best(): number {
    this.#sort()
    if (this.#occupied === 0) return -1
    for (const intid of this.#levels[lowest(this.#occupied)]!) return intid
    return -1
  }

  get bestPriority(): number {
    this.#sort()
    return this.#occupied === 0 ? IDLE_PRIORITY : lowest(this.#occupied) << (8 - PRIORITY_BITS)
  }

  save(): readonly number[] {
    return [...this.#pending]
  }

  /** Takes pending LPIs back; `tables` as registers name them, undefined while LPIs are off. */
  restore(saved: readonly number[], tables: LpiTables | undefined): void {
    this.#tables = tables
    this.#pending = new Set(saved)
    this.#again()
  }

  #pendingTable({ pending, end }: LpiTables): Uint8Array {
    const table = new Uint8Array(TABLE_BYTES)
    if (!this.#memory.read(pending, table, 0, end / 8)) table.fill(0)
    return table
  }

  // Nothing that is known of configurations holds any more.
  #again(): void {
    this.#stale = true
    this.#changed()
  }

  #sort(): void {
    if (!this.#stale) return
    this.#stale = false
    this.#configuration.clear()
    for (const level of this.#levels) level.clear()
    this.#occupied = 0
    const end = this.#tables?.end ?? 0
    for (const intid of this.#pending)
      if (intid < end) this.#place(intid)
      else this.#pending.delete(intid)
  }

  #place(intid: number): void {
    const configuration = this.#configurationOf(intid)
    if ((configuration & ENABLED) === 0) return
    const level = configuration >> (8 - PRIORITY_BITS)
    this.#levels[level]!.add(intid)
    this.#occupied |= 1 << level
  }

  #displace(intid: number): void {
    const level = this.#configurationOf(intid) >> (8 - PRIORITY_BITS)
    const set = this.#levels[level]!
    set.delete(intid)
    if (set.size === 0) this.#occupied &= ~(1 << level)
  }

  // A byte without a home is that of a disabled LPI.
  #configurationOf(intid: number): number {
    let configuration = this.#configuration.get(intid)
    if (configuration === undefined) {
      const at = this.#tables!.configuration + intid - FIRST_LPI
      configuration = this.#memory.read(at, this.#byte) ? this.#byte[0]! : 0
      this.#configuration.set(intid, configuration)
    }
    return configuration
  }
}

/** Index of the lowest bit that is set. */
const lowest = (bits: number): number => 31 - Math.clz32(bits & -bits)
