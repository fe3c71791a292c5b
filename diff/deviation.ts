// A place where QEMU does not do what the specification says, or where the specification leaves a choice
// and QEMU chose otherwise than we did.
import type { FaultStory, OurAnswer } from './architectures.js'
import type { Case, DmaOutcome, Outcome } from './case.js'

/** A DMA that was answered differently, or words left in memory that differ, with their case. */
export interface Difference {
  readonly case: Case
  /** Index of the DMA among the case's; -1 for a difference of the words left in memory. */
  readonly index: number
  readonly ours: DmaOutcome
  readonly qemu: DmaOutcome
  /** Everything we answered, and QEMU. */
  readonly all: { readonly ours: Outcome; readonly qemu: Outcome }
  /** Our fault of this DMA, recorded or not. */
  readonly fault: FaultStory | undefined
}

/** What we would have answered to another case. */
export type Answer = (c: Case) => OurAnswer

interface Named {
  readonly name: string
  /** The specification's clause, and what QEMU does. */
  readonly reason: string
}

/** A difference of a known form. */
export interface Form extends Named {
  /** True for a difference that this explains. */
  explains(d: Difference): boolean
}

/**
 * A case that QEMU treats like another one, because it does not look at something: our answer to that
 * other one must be QEMU's. Undefined where the two are the same case.
 */
export interface Likeness extends Named {
  like(c: Case, d: Difference): Case | undefined
}

export type Deviation = Form | Likeness
