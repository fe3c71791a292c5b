/**
 * The walkers of one unit: first stage, second stage and both nested, made when first needed. Each
 * combination of levels is its own walker, so that a walk has nothing to decide.
 */

import type { PageTableFormat } from '../../paging/format.js'
import { vtdFirstStage, vtdSecondStage } from '../../paging/formats-vtd.js'
import { createNestedWalker, type NestedWalker } from '../../paging/nested.js'
import type { EntrySource, Walk } from '../../paging/walk.js'
import { createWalker, type Walker } from '../../paging/walker.js'
import type { VtdConfig } from './config.js'
import type { Binding } from './entries.js'
import { PGTT } from './tables.js'

/** Makes and keeps walkers. */
export class Walkers {
  readonly #memory: EntrySource
  readonly #config: VtdConfig
  readonly #single = new Map<string, Walker>()
  readonly #nested = new Map<string, NestedWalker>()

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
    return walker(b.pgtt === PGTT.FIRST_STAGE ? b.firstRoot : b.secondRoot, hi, lo, access, w)
  }

  #walker(b: Binding): Walker {
    const first = b.pgtt === PGTT.FIRST_STAGE
    const key = first ? `first ${b.firstLevels}` : this.#secondKey(b)
    let walker = this.#single.get(key)
    if (!walker) {
      walker = createWalker(first ? this.#first(b) : this.#second(b), this.#memory)
      this.#single.set(key, walker)
    }
    return walker
  }

  #nestedWalker(b: Binding): NestedWalker {
    const key = `${b.firstLevels} ${this.#secondKey(b)}`
    let walker = this.#nested.get(key)
    if (!walker) {
      walker = createNestedWalker(this.#first(b), this.#second(b), this.#memory)
      this.#nested.set(key, walker)
    }
    return walker
  }

  #secondKey(b: Binding): string {
    return `second ${b.secondLevels}${b.secondExecute ? ' x' : ''}`
  }

  #first(b: Binding): PageTableFormat {
    const { hostAddressWidth, firstStage1GPages } = this.#config
    return vtdFirstStage({
      levels: b.firstLevels,
      // A nested first stage keeps guest addresses: the second stage bounds them.
      physicalBits: b.pgtt === PGTT.NESTED ? 52 : hostAddressWidth,
      gigabytePages: firstStage1GPages,
    })
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
      transientMapping: c.deviceTlb,
      execute: b.secondExecute,
    })
  }
}
