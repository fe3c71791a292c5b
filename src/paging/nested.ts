/**
 * Two stages: the first one's entries, and its output, go through the second. Faults keep apart the
 * final page, the reading of a first-stage entry and the setting of its flags (VT-d 3.8, 7.1.3).
 */

import { addressOf } from './engine.js'
import type { PageTableFormat } from './format.js'
import { Stage } from './stage.js'
import {
  ACCESS_EXECUTE,
  ACCESS_FLAGS2,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_WRITE,
  DURING,
  type During,
  type EntrySource,
  FAILURE,
  type FailureCode,
  PERM_GLOBAL,
  type Walk,
} from './walk.js'

/** A walker of two stages: `firstRoot` is an input of the second stage, `secondRoot` a physical address. */
export type NestedWalker = (
  firstRoot: number,
  secondRoot: number,
  hi: number,
  lo: number,
  access: number,
  w: Walk,
) => boolean

/** Access bits that the second stage of the final page is asked with. */
const SECOND = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_FLAGS2 | ACCESS_PROBE

/**
 * A nested walker. Permissions are what both stages grant. Flags are set when everything is known to be
 * permitted, except those of second-stage entries that led to first-stage ones, which are set on the way.
 */
export function createNestedWalker(
  first: PageTableFormat,
  second: PageTableFormat,
  source: EntrySource,
): NestedWalker {
  const outer = new Stage(second, source)
  const stage = new Stage(first, source, outer)

  function fail(w: Walk, failure: FailureCode, during: During): boolean {
    if (!stage.innerFailed) {
      stage.report(w, failure, DURING.page)
      return false
    }
    outer.report(w, failure, during)
    w.firstDepth = stage.depth
    w.firstLevel = first.levels[stage.depth]!.level
    w.intermediate =
      during === DURING.page
        ? addressOf(stage.outHi, stage.outLo)
        : addressOf(stage.trail[2 * stage.depth]!, stage.trail[2 * stage.depth + 1]!)
    return false
  }

  return (firstRoot, secondRoot, hi, lo, access, w) => {
    outer.setRoot(secondRoot)
    stage.setRoot(firstRoot)
    let failure = stage.translate(hi | 0, lo | 0, access)
    if (failure !== FAILURE.none) return fail(w, failure, stage.innerDuring)

    failure = outer.translate(stage.outHi, stage.outLo, access & SECOND)
    if (failure !== FAILURE.none) {
      stage.innerFailed = true
      return fail(w, failure, DURING.page)
    }
    const rights = stage.rights & (outer.rights | PERM_GLOBAL)
    const clean = stage.clean | outer.clean
    const pageBits = Math.min(outer.pageBits, stage.pageBits)
    const output = addressOf(outer.outHi, outer.outLo)
    if (stage.missing !== 0 && (access & ACCESS_PROBE) === 0) {
      failure = stage.setFlags(access)
      if (failure !== FAILURE.none) return fail(w, failure, stage.innerDuring)
    }
    w.failure = FAILURE.none
    w.output = output
    w.pageBits = pageBits
    w.permissions = rights
    w.dirty = clean === 0
    return true
  }
}
