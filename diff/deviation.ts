// A place where QEMU does not do what the specification says, or where the specification leaves a choice
// and QEMU chose otherwise than we did.
import type { Case, DmaOutcome, Outcome } from './case.js'

/** A DMA that was answered differently, with what came before it in its case. */
export interface Difference {
  readonly case: Case
  /** Index of the DMA among the case's; -1 for a difference of the words left in memory. */
  readonly index: number
  readonly ours: DmaOutcome
  readonly qemu: DmaOutcome
  /** Everything we answered, and QEMU. */
  readonly all: { readonly ours: Outcome; readonly qemu: Outcome }
  /** Names of our faults, in the order of the DMAs; undefined where there was none. */
  readonly why: readonly (string | undefined)[]
}

export interface Deviation {
  readonly name: string
  /** The specification's clause, and what QEMU does. */
  readonly reason: string
  /** True for a difference that this explains. */
  explains(d: Difference): boolean
}
