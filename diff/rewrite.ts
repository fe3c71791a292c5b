// Cases made from cases, for deviations that are likenesses.
import type { Case } from './case.js'

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
