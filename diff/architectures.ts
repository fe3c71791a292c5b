// What the runner knows of an architecture.
import type { Case, Outcome, Subject } from './case.js'
import type { Deviation } from './deviation.js'
import type { Draw } from './random.js'
import { SMMUV3 } from './smmu/architecture.js'
import { VTD } from './vtd/architecture.js'

/** A fault of ours, for people. */
export interface FaultStory {
  readonly name: string
  readonly meaning: string
  /** SMMUv3: the stage that failed, and the CLASS of what failed. */
  readonly stage?: number
  readonly class?: number
  readonly entries: readonly {
    readonly kind: string
    readonly at: number
    readonly value: bigint
    readonly level: number
  }[]
}

/** What we answered. */
export interface OurAnswer {
  readonly outcome: Outcome
  /** For each DMA its first fault, recorded or not. */
  readonly faults: readonly (FaultStory | undefined)[]
}

export interface Architecture {
  readonly name: string
  /** Which of QEMU's models answers. */
  readonly oracle: string
  readonly binary: string
  readonly deviations: readonly Deviation[]
  draw(draw: Draw, id: string): Case
  answer(c: Case): OurAnswer
  /** Which QEMU a case needs: cases with the same answer share one. */
  subjectOf(c: Case): string
  start(subject: string): Promise<Subject>
  /** Our walks of a case that led somewhere, line by line. */
  story(c: Case): string[]
}

export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  'vt-d': VTD,
  smmuv3: SMMUV3,
}
