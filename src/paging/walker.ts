/**
 * Walkers over one stage of tables: what a processor's MMU and a second stage alone use. For two stages
 * see nested.ts; for a printed walk, explain-walk.ts.
 */

import { addressOf } from './engine.js'
import type { PageTableFormat } from './format.js'
import { Stage } from './stage.js'
import { DURING, type EntrySource, FAILURE, type Walk } from './walk.js'

/**
 * Translates bits 63:32 and 31:0 of an address by the tables at `root`; `access` is made of ACCESS_*.
 * True when there is a translation; `w` then holds it, and otherwise why and where not.
 */
export type Walker = (root: number, hi: number, lo: number, access: number, w: Walk) => boolean

/** A walker of a format. Bits of `root` below the format's table address are ignored. */
export function createWalker(format: PageTableFormat, source: EntrySource): Walker {
  const stage = new Stage(format, source)
  return (root, hi, lo, access, w) => {
    stage.setRoot(root)
    const failure = stage.translate(hi | 0, lo | 0, access)
    w.failure = failure
    if (failure !== FAILURE.none) {
      stage.report(w, failure, DURING.page)
      return false
    }
    w.output = addressOf(stage.outHi, stage.outLo)
    w.pageBits = stage.pageBits
    w.permissions = stage.rights
    w.dirty = stage.clean === 0
    return true
  }
}
