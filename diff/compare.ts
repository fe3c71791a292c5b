// Two outcomes of one case: where they differ, and which of the known deviations says why.
import type { Case, DmaOutcome, FaultRecord, Outcome } from './case.js'
import type { Deviation, Difference } from './deviation.js'

const NOTHING: DmaOutcome = { landed: [], faults: [] }

/** All differences of a case. */
export function compare(
  c: Case,
  ours: Outcome,
  qemu: Outcome,
  why: readonly (string | undefined)[],
): Difference[] {
  const all = { ours, qemu }
  const differences: Difference[] = []
  for (const [i, mine] of ours.dma.entries()) {
    const theirs = qemu.dma[i] ?? NOTHING
    if (sameDma(mine, theirs)) continue
    differences.push({ case: c, index: i, ours: mine, qemu: theirs, all, why })
  }
  if (!sameWords(ours.changed, qemu.changed))
    differences.push({ case: c, index: -1, ours: NOTHING, qemu: NOTHING, all, why })
  return differences
}

/** The deviation that explains a difference. */
export const explain = (list: readonly Deviation[], d: Difference): Deviation | undefined =>
  list.find(deviation => deviation.explains(d))

export function sameDma(a: DmaOutcome, b: DmaOutcome): boolean {
  return (
    a.landed.length === b.landed.length &&
    a.landed.every((at, i) => at === b.landed[i]) &&
    a.faults.length === b.faults.length &&
    a.faults.every((f, i) => sameRecord(f, b.faults[i]!))
  )
}

function sameRecord(a: FaultRecord, b: FaultRecord): boolean {
  const names = Object.keys(a)
  return (
    names.length === Object.keys(b).length &&
    names.every(n => b[n] !== undefined && BigInt(a[n]!) === BigInt(b[n]))
  )
}

function sameWords(a: Outcome['changed'], b: Outcome['changed']): boolean {
  const other = new Map(b)
  return a.length === b.length && a.every(([at, value]) => other.get(at) === value)
}
