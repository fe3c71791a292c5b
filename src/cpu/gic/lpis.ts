// LPIs of one redistributor (IHI 0069H chapter 5.1): pending bits, kept here and in the guest's pending table while LPIs
// are off, and configurations, cached from the guest's table until an invalidation. LPIs are edges of group 1 and have no active state.

import type { AddressSpace } from '../../mem/address-space.js'
import { FIRST_LPI, IDLE_PRIORITY, INTID_BITS, PRIORITY_MASK } from './registers.js'

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

/** The LPIs that a redistributor has. */
export class Lpis {
  readonly #memory: AddressSpace
  readonly #changed: () => void
  readonly #pending = new Set<number>()
  readonly #configuration = new Map<number, number>()
  readonly #byte = new Uint8Array(1)
  /** Undefined while LPIs are disabled. */
  #tables: LpiTables | undefined
  #stale = false
  #best = -1
  #bestPriority = IDLE_PRIORITY

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
    this.#configuration.clear()
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
    this.forget()
  }

  /** Disables LPIs as a reset does: the table is left as it is. */
  forget(): void {
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
    if (!this.#stale) this.#consider(intid)
    this.#changed()
    return true
  }

  /** Makes an LPI not pending; whether it was. */
  clear(intid: number): boolean {
    if (!this.#pending.delete(intid)) return false
    if (intid === this.#best) this.#again()
    return true
  }

  /** Forgets a configuration, or all. */
  invalidate(intid?: number): void {
    if (intid === undefined) this.#configuration.clear()
    else this.#configuration.delete(intid)
    this.#again()
  }

  /** The enabled pending LPI of the highest priority, or -1. */
  get best(): number {
    this.#choose()
    return this.#best
  }

  get bestPriority(): number {
    this.#choose()
    return this.#bestPriority
  }

  save(): readonly number[] {
    return [...this.#pending]
  }

  /** Takes pending LPIs back; `tables` as registers name them, undefined while LPIs are off. */
  restore(saved: readonly number[], tables: LpiTables | undefined): void {
    this.#tables = tables
    this.#configuration.clear()
    this.#pending.clear()
    for (const intid of saved) this.#pending.add(intid)
    this.#again()
  }

  #pendingTable({ pending, end }: LpiTables): Uint8Array {
    const table = new Uint8Array(TABLE_BYTES)
    if (!this.#memory.read(pending, table, 0, end / 8)) table.fill(0)
    return table
  }

  #again(): void {
    this.#stale = true
    this.#changed()
  }

  #choose(): void {
    if (!this.#stale) return
    this.#stale = false
    this.#best = -1
    this.#bestPriority = IDLE_PRIORITY
    for (const intid of this.#pending) this.#consider(intid)
  }

  #consider(intid: number): void {
    const configuration = this.#configurationOf(intid)
    if ((configuration & ENABLED) === 0) return
    const priority = configuration & PRIORITY_MASK
    const same = priority === this.#bestPriority && intid < this.#best
    if (priority >= this.#bestPriority && !same) return
    this.#best = intid
    this.#bestPriority = priority
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
