// Named guests of `vfio-emu run --guest NAME`: what each shows, told step by step by one teller, in text and in JSON.
// The SVA guest is run.ts's own; every other scenario is a row here and a file beside this one.

import { columns, formatTime, style, toJson } from './output.js'
import { privateMemory } from './scenario-private.js'
import { sevScenario } from './scenario-sev.js'

/** One step of a scenario. */
export interface ScenarioStep {
  /** Virtual time, ns. */
  readonly at: number
  /** A short word that says what kind of step: `guest`, `kvm`, `convert`, `dma`, … */
  readonly topic: string
  readonly text: string
  /** The same for programs. */
  readonly data?: Readonly<Record<string, unknown>>
  /** It shows a refusal, a fault or a mismatch. */
  readonly failed?: boolean
}

/** Where a scenario says what happens. */
export interface ScenarioTeller {
  /** A table of facts under a heading. */
  facts(heading: string, rows: readonly (readonly string[])[], data?: object): void
  /** Starts a part of the story. `legend` lines explain its words once. */
  section(heading: string, legend?: readonly string[]): void
  step(step: ScenarioStep): void
  /** The last words: rows of a summary and what came of it. */
  end(rows: readonly (readonly string[])[], verdict: string, good: boolean, data?: object): void
}

/** What `run` hands to a scenario. */
export interface ScenarioOptions {
  readonly tell: ScenarioTeller
  /** `--monitor`: show the monitor's view too, where the scenario has one. */
  readonly monitor: boolean
  /** `--sev` or `--sev-object`: options of the `sev` group, or objects, and whether a file is read strictly. */
  readonly sev?: {
    readonly options?: string | undefined
    readonly objects: readonly string[]
    readonly strict: boolean
  }
}

/** A guest with a story of its own. */
export interface Scenario {
  /** What `--guest` takes. */
  readonly name: string
  /** One line for the help text and for headings. */
  readonly title: string
  /** Runs it; whether all it promises was so. */
  run(options: ScenarioOptions): boolean
}

/** Every named scenario besides `sva`, in the order of `--all`. */
export const SCENARIOS: readonly Scenario[] = [privateMemory, sevScenario]

const out = (line: string) => process.stdout.write(`${line}\n`)

/** Tells a scenario to people. */
export function textScenario(): ScenarioTeller {
  let section = ''
  const head = (name: string) => {
    if (section === name) return
    section = name
    out(`\n${style.heading(name)}`)
  }
  return {
    facts(heading, rows) {
      head(heading)
      for (const line of columns(rows.map(r => [...r]))) out(`  ${line}`)
    },
    section(heading, legend = []) {
      head(heading)
      for (const line of legend) out(`  ${style.quiet(line)}`)
    },
    step({ at, topic, text, failed }) {
      const colour = failed ? style.bad : topic === 'guest' ? style.guest : (s: string) => s
      out(`${style.quiet(formatTime(at))}  ${style.quiet(topic.padEnd(9))}  ${colour(text)}`)
    },
    end(rows, verdict, good) {
      head('summary')
      for (const line of columns(rows.map(r => [...r]))) out(`  ${line}`)
      out(`\n${good ? style.good(verdict) : style.bad(verdict)}`)
    },
  }
}

/** Tells a scenario to programs: one JSON object a line. */
export function jsonScenario(name: string): ScenarioTeller {
  const line = (object: object) => out(toJson({ scenario: name, ...object }))
  return {
    facts: (heading, rows, data) => line({ topic: heading, ...(data ?? { rows }) }),
    section() {},
    step: ({ at, topic, text, data, failed }) =>
      line({ at, topic, text, ...(failed ? { failed } : {}), ...data }),
    end: (_rows, verdict, good, data) =>
      line({ topic: 'summary', verified: good, verdict, ...data }),
  }
}
