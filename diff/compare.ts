// Two outcomes of one case: where they differ, and which of the known deviations say why.
import type { OurAnswer } from './architectures.js'
import type { Case, DmaOutcome, FaultRecord, Outcome } from './case.js'
import type { Answer, Deviation, Difference } from './deviation.js'

const NOTHING: DmaOutcome = { landed: [], faults: [] }

/**
 * All differences of a case. `loose`: where a likeness puts data may not have been watched in QEMU.
 */
function compare(
  c: Case,
  { outcome, faults }: OurAnswer,
  qemu: Outcome,
  loose = false,
): Difference[] {
  const all = { ours: outcome, qemu }
  const differences: Difference[] = []
  for (const [index, ours] of outcome.dma.entries()) {
    const theirs = qemu.dma[index] ?? NOTHING
    if (sameDma(ours, theirs, loose ? c.pages : undefined)) continue
    differences.push({ case: c, index, ours, qemu: theirs, all, fault: faults[index] })
  }
  if (!sameWords(outcome.changed, qemu.changed))
    differences.push({ case: c, index: -1, ours: NOTHING, qemu: NOTHING, all, fault: undefined })
  return differences
}

/** Likenesses that may add up to one explanation. */
const DEPTH = 3

/** A difference and the deviations that together explain it; undefined when nothing does. */
export interface Judged {
  readonly difference: Difference
  readonly known: readonly Deviation[] | undefined
}

/**
 * All differences of a case, in order, with their explanations. Words left in memory that differ may follow
 * from a DMA that ended differently for a known reason.
 */
export function judge(
  arch: { readonly deviations: readonly Deviation[]; readonly answer: Answer },
  c: Case,
  ours: OurAnswer,
  qemu: Outcome,
): Judged[] {
  let consequence: Deviation[] | undefined
  return compare(c, ours, qemu).map(d => {
    const found = explain(arch.deviations, d, arch.answer)
    const parted = d.ours.landed.some((at, i) => (at === null) !== (d.qemu.landed[i] === null))
    if (found && (parted || d.ours.faults.length !== d.qemu.faults.length)) consequence = found
    return { difference: d, known: found ?? (d.index < 0 ? consequence : undefined) }
  })
}

/** The fewest deviations that together explain a difference; undefined when nothing does. */
function explain(
  list: readonly Deviation[],
  d: Difference,
  answer: Answer,
): Deviation[] | undefined {
  for (let links = 0; links <= DEPTH; links++) {
    const found = explainWith(list, d, answer, links)
    if (found) return found
  }
  return undefined
}

/** The same, with exactly so many likenesses. */
function explainWith(
  list: readonly Deviation[],
  d: Difference,
  answer: Answer,
  links: number,
): Deviation[] | undefined {
  for (const deviation of list) {
    if ('explains' in deviation) {
      if (links === 0 && deviation.explains(d)) return [deviation]
      continue
    }
    const other = links > 0 ? deviation.like(d.case, d) : undefined
    if (!other) continue
    const still = compare(other, answer(other), d.all.qemu, true).find(e => e.index === d.index)
    if (!still && links === 1) return [deviation]
    const rest = still && explainWith(list, still, answer, links - 1)
    if (rest) return [deviation, ...rest]
  }
  return undefined
}

/** With `watched`, a place outside of these pages agrees with what looks like no place in QEMU. */
function sameDma(a: DmaOutcome, b: DmaOutcome, watched: readonly number[] | undefined): boolean {
  const unseen = (at: number | null, there: number | null | undefined) =>
    watched !== undefined &&
    at !== null &&
    (there === -1 || there === null) &&
    !watched.includes(at - (at % 4096))
  return (
    a.landed.length === b.landed.length &&
    a.landed.every((at, i) => at === b.landed[i] || unseen(at, b.landed[i])) &&
    a.faults.length === b.faults.length &&
    a.faults.every((f, i) => sameRecord(f, b.faults[i]!))
  )
}

export function sameRecord(a: FaultRecord, b: FaultRecord): boolean {
  const names = [...Object.keys(a), ...Object.keys(b)]
  return names.every(n => BigInt(a[n] ?? 0) === BigInt(b[n] ?? 0))
}

function sameWords(a: Outcome['changed'], b: Outcome['changed']): boolean {
  const other = new Map(b)
  return a.length === b.length && a.every(([at, value]) => other.get(at) === value)
}
