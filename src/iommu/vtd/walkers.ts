/**
 * The walkers of one unit: first stage, second stage and both nested, made when first needed. Each
 * combination of levels is its own walker, so that a walk has nothing to decide.
 */

import { join } from '../../base/addr.js'
import type { PageTableFormat } from '../../paging/format.js'
import { vtdFirstStage, vtdSecondStage } from '../../paging/formats-vtd.js'
import { createNestedWalker, type NestedWalker } from '../../paging/nested.js'
import {
  ACCESS_EXECUTE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  type EntrySource,
  Walk,
} from '../../paging/walk.js'
import { createWalker, type Walker } from '../../paging/walker.js'
import type { VtdConfig } from './config.js'
import type { Binding } from './entries.js'
import { PGTT } from './tables.js'
import type { TranslatedStage } from './trace.js'

/** PERM_* of a user are those of a supervisor, this far up. */
export const USER_SHIFT = 3

/** What tells first stages apart: levels, and whether XD counts. */
const firstShape = (b: Binding): number => b.firstLevels | (b.noExecute ? 256 : 0)

/** What tells the second stages of a unit apart, clear of the three bits of a first stage's levels. */
const secondShape = (b: Binding): number => (b.secondLevels << 3) | (b.secondExecute ? 64 : 0)

/** ACCESS_* of a request's walk. */
export function walkAccess(
  b: Binding,
  write: boolean,
  execute: boolean,
  privileged: boolean,
): number {
  const what = write ? ACCESS_WRITE : ACCESS_READ
  const fetch = execute ? ACCESS_EXECUTE : 0
  return what | fetch | (privileged ? 0 : ACCESS_USER) | b.modes
}

/** The formats that a binding's tables have; which of them it uses is its PGTT's business. */
export interface Formats {
  readonly first: PageTableFormat
  readonly second: PageTableFormat
}

/** Makes and keeps walkers. */
export class Walkers {
  readonly #memory: EntrySource
  readonly #config: VtdConfig
  readonly #single: Walker[] = []
  readonly #nested: NestedWalker[] = []
  readonly #formats: Formats[] = []

  constructor(memory: EntrySource, config: VtdConfig) {
    this.#memory = memory
    this.#config = config
  }

  /** Walks the tables of a binding that has some; see `Walker`. */
  walk(b: Binding, hi: number, lo: number, access: number, w: Walk): boolean {
    if (b.pgtt === PGTT.NESTED) {
      const walker = (b.nestedWalker ??= this.#nestedWalker(b))
      return walker(b.firstRoot, b.secondRoot, hi, lo, access, w)
    }
    const walker = (b.walker ??= this.#walker(b))
    if (b.pgtt === PGTT.FIRST_STAGE) return walker(b.firstRoot, hi, lo, access, w)
    // A second stage knows one privilege.
    return walker(b.secondRoot, hi, lo, access & ~ACCESS_USER, w)
  }

  /** The formats of a binding's tables, for who explains them. */
  formats(b: Binding): Formats {
    const shape = secondShape(b) | firstShape(b)
    const nested = b.pgtt === PGTT.NESTED ? 128 : 0
    return (this.#formats[shape | nested] ??= { first: this.#first(b), second: this.#second(b) })
  }

  /**
   * The same translation stage by stage, without leaving a trace in the tables: what a trace listener
   * is shown. Empty when the tables changed under it.
   */
  stages(b: Binding, hi: number, lo: number, access: number): TranslatedStage[] {
    const quiet = access | ACCESS_PROBE
    const w = new Walk()
    const input = join(hi, lo)
    const stage = (name: TranslatedStage['stage'], from: bigint): TranslatedStage => ({
      stage: name,
      input: from,
      output: BigInt(w.output),
      pageBits: w.pageBits,
      level: (w.pageBits - 12) / 9 + 1,
    })
    if (b.pgtt !== PGTT.NESTED) {
      if (!this.walk(b, hi, lo, quiet, w)) return []
      return [stage(b.pgtt === PGTT.FIRST_STAGE ? 'first' : 'second', input)]
    }
    const second = createWalker(this.#second(b), this.#memory)
    const through: EntrySource = {
      readEntry: (at, into) =>
        second(b.secondRoot, at / 2 ** 32, at, ACCESS_READ | ACCESS_PROBE, w) &&
        this.#memory.readEntry(w.output, into),
      orEntry: () => true,
    }
    const first = createWalker(this.#first(b), through)
    if (!first(b.firstRoot, hi, lo, quiet, w)) return []
    const stages = [stage('first', input)]
    const between = w.output
    if (!second(b.secondRoot, between / 2 ** 32, between, quiet & ~ACCESS_USER, w)) return []
    return [...stages, stage('second', BigInt(between))]
  }

  #walker(b: Binding): Walker {
    const first = b.pgtt === PGTT.FIRST_STAGE
    const shape = first ? firstShape(b) : secondShape(b)
    return (this.#single[shape] ??= createWalker(
      first ? this.#first(b) : this.#second(b),
      this.#memory,
    ))
  }

  #nestedWalker(b: Binding): NestedWalker {
    const shape = secondShape(b) | firstShape(b)
    return (this.#nested[shape] ??= createNestedWalker(
      this.#first(b),
      this.#second(b),
      this.#memory,
    ))
  }

  #first(b: Binding): PageTableFormat {
    const { hostAddressWidth, firstStage1GPages } = this.#config
    const format = vtdFirstStage({
      levels: b.firstLevels,
      // A nested first stage keeps guest addresses: the second stage bounds them.
      physicalBits: b.pgtt === PGTT.NESTED ? 52 : hostAddressWidth,
      gigabytePages: firstStage1GPages,
    })
    if (b.noExecute) return format
    // Without NXE XD means nothing; U/S (SMEP) and the second stage still forbid fetches.
    const { leafHigh: _leaf, tablesHigh: _tables, ...permissions } = format.permissions
    return { ...format, permissions }
  }

  #second(b: Binding): PageTableFormat {
    const c = this.#config
    return vtdSecondStage({
      levels: b.secondLevels,
      physicalBits: c.hostAddressWidth,
      inputBits: b.secondWidth,
      megabytePages: c.secondStageLargePages.includes(21),
      gigabytePages: c.secondStageLargePages.includes(30),
      snoopControl: c.snoopControl,
      execute: b.secondExecute,
    })
  }
}
