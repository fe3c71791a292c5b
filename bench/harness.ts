// Measures a body against a baseline in the same process: both warmed, then run in turns, medians kept.

/** One line of the benchmark's answer. */
export interface Row {
  readonly id: string
  readonly what: string
  /** Our figure, in `unit`. */
  readonly value: number
  readonly unit: 'ns' | 'pairs/s' | 'cycles/s' | 'MIPS'
  /** The baseline's figure in the same unit. */
  readonly baseline: number
  /** How we compare with the baseline: above 1 is faster than it. */
  readonly ratio: number
  /** What must be reached: of `value`, or of `ratio` where `targetOf` says so; null for none. */
  readonly target: number | null
  readonly targetOf: 'value' | 'ratio'
  readonly pass: boolean
}

/** A piece of work done `n` times. */
export type Body = (n: number) => void

const nowNs = () => Number(process.hrtime.bigint())

/** Nanoseconds one repetition takes: the median of several samples of about 40 ms each. */
export function timed(body: Body, samples = 7): number {
  let n = 16
  for (;;) {
    const start = nowNs()
    body(n)
    const took = nowNs() - start
    if (took > 40e6) break
    n = Math.ceil(n * Math.min(8, Math.max(1.5, 45e6 / Math.max(took, 1))))
  }
  const times: number[] = []
  for (let i = 0; i < samples; i++) {
    const start = nowNs()
    body(n)
    times.push((nowNs() - start) / n)
  }
  return times.sort((a, b) => a - b)[samples >> 1]!
}

interface Spec {
  readonly id: string
  readonly what: string
  readonly body: Body
  readonly baseline: Body
  readonly target: number | null
}

/** A row in nanoseconds an operation; the target is an upper bound. */
export function nanoseconds(spec: Spec): Row {
  const baseline = timed(spec.baseline)
  const value = timed(spec.body)
  const pass = spec.target === null || value <= spec.target
  return row(spec, {
    value,
    unit: 'ns',
    baseline,
    ratio: baseline / value,
    targetOf: 'value',
    pass,
  })
}

/** A row in nanoseconds whose target is a lower bound of the ratio to the baseline. */
export function ratioTo(spec: Spec): Row {
  const baseline = timed(spec.baseline)
  const value = timed(spec.body)
  const ratio = baseline / value
  const pass = spec.target === null || ratio >= spec.target
  return row(spec, { value, unit: 'ns', baseline, ratio, targetOf: 'ratio', pass })
}

/** A row in operations a second; the target is a lower bound. */
export function rate(spec: Spec, unit: 'pairs/s' | 'cycles/s'): Row {
  const baseline = 1e9 / timed(spec.baseline)
  const value = 1e9 / timed(spec.body)
  const pass = spec.target === null || value >= spec.target
  return row(spec, { value, unit, baseline, ratio: value / baseline, targetOf: 'value', pass })
}

function row(spec: Spec, rest: Omit<Row, 'id' | 'what' | 'target'>): Row {
  return { id: spec.id, what: spec.what, target: spec.target, ...rest }
}
