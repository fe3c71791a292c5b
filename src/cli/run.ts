// `vfio-emu run`: a guest on an emulated host, with one device passed through, told step by step.

import { Command, Option } from 'commander'
import { explain } from '../explain/index.js'
import { createMachine, type Machine } from '../machine.js'
import type { GuestEnd } from '../vmm/vmm.js'
import { GUEST, readImage, runGuest } from './guest.js'
import { describeMachine, loadMachine } from './machine-file.js'
import { columns, formatBytes, formatTime, style, toJson } from './output.js'
import { jsonScenario, SCENARIOS, type Scenario, textScenario } from './scenarios.js'
import { type Step, Story } from './story.js'
import { startTrace } from './trace-file.js'

interface RunOptions {
  readonly guest?: string
  readonly iommu: 'vt-d'
  readonly machine?: string
  readonly trace?: string
  readonly detectStaleUse?: boolean
  readonly json?: boolean
  readonly all?: boolean
  readonly monitor?: boolean
}

/** `--guest` for the guest that is run when none is named. */
const SVA = 'sva'

/** The `run` command. */
export function runCommand(finish: (status: number) => void): Command {
  return new Command('run')
    .description('Run a guest that does SVA DMA through a nested IOMMU, and show every step.')
    .option(
      '--guest <guest>',
      `guest image, a static x86-64 ELF, or one of ${[SVA, ...SCENARIOS.map(s => s.name)].join(', ')}`,
      SVA,
    )
    .option('--all', 'run every named guest, one after another')
    .option('--monitor', "show the monitor's view, where the guest has one")
    .addOption(new Option('--iommu <kind>', "the host's IOMMU").choices(['vt-d']).default('vt-d'))
    .option('--machine <FILE>', 'machine description, JSON (see docs/guides/machine-files.md)')
    .option('--trace <FILE>', 'write every trace event to FILE: .json for Perfetto, else NDJSON')
    .option(
      '--detect-stale-use',
      'report translations used after their tables changed, not invalidated',
    )
    .option('--json', 'print the steps as NDJSON')
    .action((options: RunOptions) => finish(options.all ? runAll(options) : runOne(options)))
}

function runOne(options: RunOptions): number {
  const scenario = SCENARIOS.find(s => s.name === options.guest)
  return scenario === undefined ? run(options) : runScenario(scenario, options)
}

function runScenario(scenario: Scenario, { json, monitor }: RunOptions): number {
  const tell = json ? jsonScenario(scenario.name) : textScenario()
  return scenario.run({ tell, monitor: monitor === true }) ? 0 : 1
}

function runAll(options: RunOptions): number {
  const guests = [{ name: SVA, title: 'SVA DMA through a nested IOMMU' }, ...SCENARIOS]
  const results = guests.map(({ name, title }, i) => {
    if (!options.json) out(`${i > 0 ? '\n\n' : ''}${style.heading(`${name}: ${title}`)}`)
    return runOne({ ...options, guest: name })
  })
  return Math.max(...results)
}

function run(options: RunOptions): number {
  const description = loadMachine(options.machine)
  const { guest = SVA } = options
  const image = readImage(guest === SVA ? GUEST : guest)
  const machine = createMachine({
    ...description,
    ...(options.detectStaleUse && { detectStaleUse: true }),
  })
  const tell = options.json ? jsonTeller() : textTeller()
  const endTrace = options.trace ? startTrace(machine, options.trace) : () => {}
  const story = new Story(machine, tell.step)
  try {
    tell.machine(machine)
    const end = runGuest(machine, image)
    const holdings = machine.holdings()
    const clean = Object.values(holdings).every(n => n === 0)
    const fresh = machine.staleUses.length === 0
    const good = end.kind === 'exit' && end.code === 0 && clean && fresh
    tell.end(machine, story, end, holdings, good)
    return good ? 0 : 1
  } finally {
    story.end()
    endTrace()
  }
}

const LEGEND = [
  "GVA is the process's own pointer; the guest's table makes a GPA of it (first stage), the host's table an HPA (second stage).",
  'Time is virtual: one guest instruction takes a nanosecond.',
]

interface Teller {
  machine(machine: Machine): void
  step(step: Step): void
  end(machine: Machine, story: Story, end: GuestEnd, holdings: object, good: boolean): void
}

const out = (line: string) => process.stdout.write(`${line}\n`)

/** NDJSON: one object a line, the same steps in the same order. */
function jsonTeller(): Teller {
  return {
    machine: machine => out(toJson({ topic: 'machine', ...describeMachine(machine) })),
    step: ({ at, topic, data, text }) => out(toJson({ at, topic, text, ...data })),
    end: (machine, story, end, holdings, good) => {
      out(toJson({ at: machine.clock.now, topic: 'teardown', ...holdings }))
      out(toJson({ at: machine.clock.now, topic: 'summary', verified: good, end, ...story.totals }))
    },
  }
}

function textTeller(): Teller {
  const paint: Partial<Record<Step['topic'], (s: string) => string>> = {
    guest: style.guest,
    fault: style.bad,
  }
  let section = ''
  const head = (name: string) => {
    if (section === name) return
    section = name
    out(`\n${style.heading(name)}`)
  }
  return {
    machine(machine) {
      head('machine')
      const { host, functions } = describeMachine(machine)
      for (const line of columns(host)) out(`  ${line}`)
      for (const line of columns(functions)) out(`  ${line}`)
    },
    step({ at, topic, text, failed }) {
      if (topic !== 'container' && section !== 'journey') {
        head('journey')
        for (const line of LEGEND) out(`  ${style.quiet(line)}`)
      }
      if (topic === 'container') head('container')
      const colour = failed ? style.bad : (paint[topic] ?? ((s: string) => s))
      out(`${style.quiet(formatTime(at))}  ${style.quiet(topic.padEnd(9))}  ${colour(text)}`)
    },
    end(machine, story, end, holdings, good) {
      head('teardown')
      const held = Object.entries(holdings).map(([name, n]) => [name, `${n} left`])
      for (const line of columns(held)) out(`  ${line}`)
      head('summary')
      const t = story.totals
      const rows = [
        ['guest', describeEnd(end)],
        ['DMA', `${t.dmas} transfers, ${formatBytes(t.bytes)}; ${t.refused} refused or deferred`],
        ['PASIDs', `${t.pasids} allocated, ${t.binds} bound, ${t.unbinds} unbound`],
        ['page requests', `${t.pageRequests}`],
        ['interrupts', `${t.interrupts}`],
        ...(machine.description.detectStaleUse ? [['stale uses', `${t.staleUses}`]] : []),
        ['virtual time', formatTime(machine.clock.now).trim()],
      ]
      for (const line of columns(rows)) out(`  ${line}`)
      for (const use of machine.staleUses) out(`\n${explain(use)}`)
      const verdict = good
        ? style.good('verified by the guest, nothing leaked')
        : style.bad('failed')
      out(`\n${verdict}`)
    },
  }
}

function describeEnd(end: GuestEnd): string {
  switch (end.kind) {
    case 'exit':
      return end.code === 0 ? 'exited 0: every byte verified' : `exited ${end.code}`
    case 'unexpected':
      return `stopped by KVM exit ${end.reason}`
    case 'shutdown':
      return 'triple fault'
    case 'stuck':
      return 'halted with nothing left that could wake it'
    case 'limit':
      return 'still running at the limit'
  }
}
