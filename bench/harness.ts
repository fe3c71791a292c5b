// Measures a body against a baseline in the same process: both warmed, then run in turns, so that a busy machine
// slows both; medians kept.

/** One line of the benchmark's answer. */
export interface Row {
  readonly id: string
  readonly what: string
  /** Our figure, in `unit`. */
  readonly value: number
  readonly unit: 'ns' | 'pairs/s' | 'cycles/s' | 'MIPS' | 'bytes'
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

/** Length of a sample: short, so that most are not interrupted where others run beside. */
const SAMPLE_NS = 3e6
const SAMPLES = 61
/** Warming ends when so many samples in a row were not clearly faster than the best before them, or at the limit. */
const STEADY = 40
const WARM_NS = 300e6
const WARM_LIMIT_NS = 5e9

/** Warms a body up; the repetitions that make one sample. */
function repetitions(body: Body): number {
  let n = 16
  let best = Number.POSITIVE_INFINITY
  let warm = 0
  for (let steady = 0; warm < WARM_NS || (steady < STEADY && warm < WARM_LIMIT_NS); steady++) {
    const each = once(body, n)
    warm += each * n
    if (each < best * 0.97) {
      best = each
      steady = 0
    }
    n = Math.max(1, Math.min(n * 2, Math.round(SAMPLE_NS / each)))
  }
  return n
}

/** Nanoseconds of one of `n` repetitions. */
function once(body: Body, n: number): number {
  const start = nowNs()
  body(n)
  return (nowNs() - start) / n
}

const median = (times: number[]) => times.sort((a, b) => a - b)[times.length >> 1]!

/** Nanoseconds that one repetition of each takes. */
function inTurns(body: Body, baseline: Body): { value: number; base: number } {
  const of = { body: repetitions(body), baseline: repetitions(baseline) }
  const values: number[] = []
  const bases: number[] = []
  for (let i = 0; i < SAMPLES; i++) {
    bases.push(once(baseline, of.baseline))
    values.push(once(body, of.body))
  }
  return { value: median(values), base: median(bases) }
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
  const { value, base: baseline } = inTurns(spec.body, spec.baseline)
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
  const { value, base: baseline } = inTurns(spec.body, spec.baseline)
  const ratio = baseline / value
  const pass = spec.target === null || ratio >= spec.target
  return row(spec, { value, unit: 'ns', baseline, ratio, targetOf: 'ratio', pass })
}

/** A row in operations a second; the target is a lower bound. */
export function rate(spec: Spec, unit: 'pairs/s' | 'cycles/s'): Row {
  const times = inTurns(spec.body, spec.baseline)
  const baseline = 1e9 / times.base
  const value = 1e9 / times.value
  const pass = spec.target === null || value >= spec.target
  return row(spec, { value, unit, baseline, ratio: value / baseline, targetOf: 'value', pass })
}

/** A row of bytes, against what it cannot do without. */
export function bytes(spec: Omit<Spec, 'body' | 'baseline'>, value: number, baseline: number): Row {
  const pass = spec.target === null || value <= spec.target
  const ratio = baseline / value
  return row(spec, { value, unit: 'bytes', baseline, ratio, targetOf: 'value', pass })
}

function row(
  spec: Omit<Spec, 'body' | 'baseline'>,
  rest: Omit<Row, 'id' | 'what' | 'target'>,
): Row {
  return { id: spec.id, what: spec.what, target: spec.target, ...rest }
}

/** A dependent multiply-add loop in JavaScript doubles: what one plain operation costs here. */
export function plainMips(): number {
  const n = 2e7
  const start = nowNs()
  let v = 1
  for (let i = 0; i < n; i++) v = (v * 5 + i) | 0
  const ns = nowNs() - start + (v === 42 ? 1 : 0)
  return (n * 1000) / ns
}
