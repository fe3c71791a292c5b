/**
 * The walkers of one unit: stage 1, stage 2 and both nested, made when first needed. Each combination of
 * formats is its own walker, so that a walk has nothing to decide. Dirty state of stage 1 is set here: the
 * engine only ever sets bits of a descriptor, and this one is cleared (AP[2], IHI 0070 3.13).
 */
import { join } from '../../base/addr.js'
import { createNestedWalker, type NestedWalker } from '../../paging/nested.js'
import {
  ACCESS_EXECUTE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  DURING,
  type EntrySource,
  FAILURE,
  Walk,
} from '../../paging/walk.js'
import { createWalker, type Walker } from '../../paging/walker.js'
import type { Range } from './contexts.js'
import type { Binding } from './requests.js'
import { highOf, type Stage2 } from './streams.js'
import type { TranslatedStage } from './trace.js'

/** PERM_* of an unprivileged access are those of a privileged one, this far up. */
export const USER_SHIFT = 3

/** DBM, in the high half of a descriptor. */
const DBM_HI = 1 << 19
/** AP[2], in the low half. */
const READ_ONLY = 1 << 7

/** Where tables are. */
export interface WalkMemory extends EntrySource {
  writeU32(addr: number, value: number): boolean
}

/** ACCESS_* of a request's walk. */
export function walkAccess(
  b: Binding,
  write: boolean,
  execute: boolean,
  privileged: boolean,
): number {
  const what = write ? ACCESS_WRITE : execute ? ACCESS_EXECUTE : ACCESS_READ
  return what | (privileged ? 0 : ACCESS_USER) | b.modes
}

/** The range of a CD that an address falls into, by its bit 55. */
export const rangeOf = (b: Binding, hi: number): Range | undefined =>
  (hi & 0x80_0000) === 0 ? b.context?.lower : b.context?.upper

/** The high half of an address without its tag: bits 63:56 as bit 55, where the range ignores them. */
export const untagged = (range: Range | undefined, hi: number): number =>
  range?.tbi === true ? (hi << 8) >> 8 : hi

/** Makes and keeps walkers. */
export class Walkers {
  readonly #memory: WalkMemory
  readonly #single = new Map<string, Walker>()
  readonly #nested = new Map<string, NestedWalker>()
  readonly #w = new Walk()

  constructor(memory: WalkMemory) {
    this.#memory = memory
  }

  /** The walker of a stage 2. */
  second(stage2: Stage2): Walker {
    return (stage2.walker ??= this.#walker(`2 ${stage2.key}`, () => stage2.format))
  }

  /**
   * Walks the tables of a binding that has some; `hi` without tag. Sets accessed flags and dirty state as
   * configured. True when there is a translation; `w` then holds it, and otherwise why and where not.
   */
  walk(b: Binding, hi: number, lo: number, access: number, w: Walk): boolean {
    const { stage2 } = b.stream
    if (!b.context) return this.second(stage2!)(stage2!.root, hi, lo, access, w)
    const range = rangeOf(b, hi)
    if (!range || range.disabled) return noRange(w)
    if (this.#range(range, stage2, hi, lo, access, w)) return true
    const clean =
      w.failure === FAILURE.write && w.stage === 1 && b.context.dirty && w.entryHi & DBM_HI
    if (!clean || (access & ACCESS_PROBE) !== 0) return false
    return (
      this.#setDirty(range, stage2, hi, lo, access, w) &&
      this.#range(range, stage2, hi, lo, access, w)
    )
  }

  /** Stage 1's output of a translation that works, without leaving a trace in the tables; -1 when it no longer does. */
  intermediate(b: Binding, hi: number, lo: number, access: number): number {
    const { stage2 } = b.stream
    const range = rangeOf(b, hi)
    if (!range || !stage2) return -1
    const second = this.second(stage2)
    const w = new Walk()
    const through: EntrySource = {
      readEntry: (at, into) =>
        second(stage2.root, highOf(at), at | 0, ACCESS_READ | stage2.modes | ACCESS_PROBE, w) &&
        this.#memory.readEntry(w.output, into),
      orEntry: () => true,
    }
    const first = createWalker(range.format, through)
    return first(range.root, hi, lo, access | ACCESS_PROBE, w) ? w.output : -1
  }

  /** The physical address of an intermediate one, without leaving a trace; the address itself when there is none. */
  physical(stage2: Stage2 | undefined, at: number): number {
    const w = this.#w
    if (!stage2) return at
    const access = ACCESS_READ | stage2.modes | ACCESS_PROBE
    return this.second(stage2)(stage2.root, highOf(at), at | 0, access, w) ? w.output : at
  }

  /** A translation stage by stage, without leaving a trace in the tables: what a trace listener is shown. */
  stages(b: Binding, hi: number, lo: number, access: number): TranslatedStage[] {
    const { stage2 } = b.stream
    const quiet = access | ACCESS_PROBE
    const w = new Walk()
    const input = join(hi, lo)
    const stage = (number: 1 | 2, from: bigint): TranslatedStage => ({
      stage: number,
      input: from,
      output: BigInt(w.output),
      pageBits: w.pageBits,
    })
    if (!b.context || !stage2) {
      const number = b.context ? 1 : 2
      return this.walk(b, hi, lo, quiet, w) ? [stage(number, input)] : []
    }
    const between = this.intermediate(b, hi, lo, access)
    if (between < 0 || !this.walk(b, hi, lo, quiet, w)) return []
    const { pageBits } = w
    const first = { stage: 1 as const, input, output: BigInt(between), pageBits }
    const second = this.second(stage2)
    if (!second(stage2.root, highOf(between), between | 0, quiet, w)) return []
    return [first, stage(2, BigInt(between))]
  }

  #range(
    range: Range,
    stage2: Stage2 | undefined,
    hi: number,
    lo: number,
    access: number,
    w: Walk,
  ): boolean {
    if (!stage2) {
      const walker = (range.walker ??= this.#walker(`1 ${range.key}`, () => range.format))
      return walker(range.root, hi, lo, access, w)
    }
    const walker = (range.nested ??= this.#nestedWalker(range, stage2, false))
    return walker(range.root, stage2.root, hi, lo, access, w)
  }

  /** Marks a clean page dirty, if dirty state is all that a write lacks. `w` holds the refusal, and the new one if any. */
  #setDirty(
    range: Range,
    stage2: Stage2 | undefined,
    hi: number,
    lo: number,
    access: number,
    w: Walk,
  ): boolean {
    const { entryAt, entryLo } = w
    const quiet = access | ACCESS_PROBE
    const permitted = stage2
      ? this.#nestedWalker(range, stage2, true)(range.root, stage2.root, hi, lo, quiet, w)
      : this.#walker(`c ${range.key}`, () => range.cleanFormat)(range.root, hi, lo, quiet, w)
    if (!permitted) return false
    let at = entryAt
    if (stage2) {
      const write = ACCESS_READ | ACCESS_WRITE | stage2.modes
      if (!this.second(stage2)(stage2.root, highOf(at), at | 0, write, w)) {
        w.during = DURING.flags
        w.intermediate = entryAt
        return false
      }
      at = w.output
    }
    return this.#memory.writeU32(at, (entryLo & ~READ_ONLY) >>> 0)
  }

  #walker(key: string, format: () => Range['format']): Walker {
    let walker = this.#single.get(key)
    if (!walker) {
      walker = createWalker(format(), this.#memory)
      this.#single.set(key, walker)
    }
    return walker
  }

  #nestedWalker(range: Range, stage2: Stage2, clean: boolean): NestedWalker {
    const key = `${clean ? 'c ' : ''}${range.key} | ${stage2.key}`
    let walker = this.#nested.get(key)
    if (!walker) {
      const format = clean ? range.cleanFormat : range.format
      walker = createNestedWalker(format, stage2.format, this.#memory)
      this.#nested.set(key, walker)
    }
    return walker
  }
}

/** The answer of a walk through a range that has no tables: EPD, or the upper range of an EL2 context. */
function noRange(w: Walk): boolean {
  w.failure = FAILURE.notPresent
  w.stage = 1
  w.during = DURING.page
  w.depth = -1
  w.entryAt = -1
  w.entryLo = w.entryHi = 0
  return false
}
