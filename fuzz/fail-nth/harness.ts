// Failure at the nth step: a call is watched once to learn its steps, then made again and again on a fresh machine,
// each time with another step failing. It must refuse, leave everything as it was, work when it is repeated, and
// leave nothing when everybody has gone.

import type { FailCase } from './cases.js'
import { outcome, World } from './world.js'

/** What making one step fail came to. */
export interface StepResult {
  readonly step: string
  readonly answer: string
  /** What is wrong; empty when nothing is. */
  readonly wrong: readonly string[]
}

/** What became of a call. */
export interface CaseReport {
  readonly call: string
  readonly answer: string
  readonly steps: readonly StepResult[]
}

/** Makes every step of a call fail in turn. */
export function failEach(c: FailCase): CaseReport {
  const { answer, steps, left } = watched(c)
  return {
    call: c.call,
    answer,
    steps: steps.map((step, i) => failNth(c, i + 1, step, answer, left)),
  }
}

function watched(c: FailCase) {
  const w = new World(c.machine)
  const { failures } = w.host.kernel
  const { run } = c.in(w)
  failures.watch()
  const answer = outcome(run)
  const steps = failures.disarm()
  return { answer, steps, left: w.empty() }
}

function failNth(c: FailCase, n: number, step: string, whole: string, left: string): StepResult {
  const w = new World(c.machine)
  const { failures } = w.host.kernel
  const { run, probe } = c.in(w)
  const works = probe?.()
  const before = w.state()
  failures.failNth(n)
  const answer = outcome(run)
  const hit = failures.disarm().length === n
  const wrong: string[] = []
  const refused = !/^(-?\d+|done)$/.test(answer)
  if (!hit) wrong.push('the step was not reached')
  if (c.hides === undefined && !refused) wrong.push(`answered ${answer}`)
  if (c.hides !== undefined && answer !== c.hides) wrong.push(`answered ${answer}, not ${c.hides}`)
  const after = w.state()
  if (after !== before) wrong.push(`state: ${difference(before, after)}`)
  const worksNow = probe?.()
  if (worksNow !== works) wrong.push(`what worked: ${works}; now: ${worksNow}`)
  const again = outcome(run)
  if (again !== whole) wrong.push(`repeated: ${again}, not ${whole}`)
  const empty = w.empty()
  if (empty !== left) wrong.push(`left behind: ${difference(left, empty)}`)
  return { step, answer, wrong }
}

/** The members of two states that differ. */
function difference(before: string, after: string): string {
  const [a, b] = [before, after].map(s => JSON.parse(s) as Record<string, unknown>)
  return Object.keys(a!)
    .filter(k => JSON.stringify(a![k]) !== JSON.stringify(b![k]))
    .map(k => `${k} ${short(a![k])} became ${short(b![k])}`)
    .join(', ')
}

const short = (v: unknown) => JSON.stringify(v).slice(0, 160)
