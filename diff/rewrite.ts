// What a case says at some moment, and cases made from cases: for deviations.
import type { Case, Step } from './case.js'

/** The same case with words, and stores to them, changed by `change`. */
export function mapWords(c: Case, change: (at: number, value: bigint) => bigint): Case | undefined {
  let changed = false
  const apply = (at: number, value: bigint) => {
    const now = change(at, value)
    changed ||= now !== value
    return now
  }
  const words = c.words.map(([at, value]) => [at, apply(at, value)] as const)
  const steps = c.steps.map(s => (s.op === 'store' ? { ...s, value: apply(s.at, s.value) } : s))
  return changed ? { ...c, words, steps } : undefined
}

/** The same case with other queued invalidations. */
export function mapQueued(
  c: Case,
  change: (words: readonly [bigint, bigint]) => readonly [bigint, bigint],
): Case | undefined {
  let changed = false
  const steps = c.steps.map((s): Step => {
    if (s.op !== 'invalidate') return s
    const words = change(s.words)
    changed ||= words !== s.words
    return { ...s, words }
  })
  return changed ? { ...c, steps } : undefined
}

/** The same case with an invalidation before every DMA. */
export const beforeEveryDma = (c: Case, words: readonly [bigint, bigint]): Case => ({
  ...c,
  steps: c.steps.flatMap((s): Step[] => (s.op === 'dma' ? [{ op: 'invalidate', words }, s] : [s])),
})

/** The case's words just before its DMA number `index`; the ones it ends with for -1. */
export function wordsBefore(c: Case, index: number): Map<number, bigint> {
  const words = new Map(c.words)
  let n = 0
  for (const s of c.steps) {
    if (s.op === 'dma' && n++ === index) break
    if (s.op === 'store') words.set(s.at, s.value)
  }
  return words
}
