// `vfio-emu run`: a guest on an emulated host, with one device passed through, told step by step.

import { writeFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { formatHistory } from '../history/index.js'
import { createMachine, type IommuUnit, type Machine } from '../machine.js'
import { infoSev, querySev } from '../vmm/sev/monitor.js'
import { VMM_EVENTS } from '../vmm/trace.js'
import type { GuestEnd } from '../vmm/vmm.js'
import { debugGuest, guestOf, readImage, runGuest } from './guest.js'
import { loadMachine } from './machine-file.js'
import { style, UsageError } from './output.js'
import { jsonScenario, SCENARIOS, type Scenario, textScenario } from './scenarios.js'
import { Story } from './story.js'
import { jsonTeller, out, textTeller } from './tellers.js'
import { startTrace } from './trace-file.js'

interface RunOptions {
  readonly guest?: string
  readonly iommu: 'vt-d' | 'smmuv3' | 'both'
  readonly machine?: string
  readonly trace?: string
  readonly record?: string
  readonly detectStaleUse?: boolean
  readonly json?: boolean
  readonly all?: boolean
  readonly monitor?: boolean
  readonly gdb?: number
  readonly strictSync?: boolean
  readonly sev?: string
  readonly sevObject: readonly string[]
  readonly sevStrict?: boolean
}

/** `--guest` for the guest that is run when none is named. */
const SVA = 'sva'
const TITLES = {
  'vt-d': 'x86-64 guest behind VT-d',
  smmuv3: 'arm64 guest behind an SMMUv3',
} as const

/** The `run` command. */
export function runCommand(finish: (status: number) => void): Command {
  return new Command('run')
    .description('Run a guest that does SVA DMA through a nested IOMMU, and show every step.')
    .option(
      '--guest <guest>',
      `guest image, a static ELF for the machine's processor, or one of ${[SVA, ...SCENARIOS.map(s => s.name)].join(', ')}`,
      SVA,
    )
    .option('--all', 'run every named guest, one after another')
    .option('--monitor', "show the monitor's view, where the guest has one")
    .addOption(
      new Option(
        '--iommu <kind>',
        "the host's IOMMU, and with it the guest: x86-64 or arm64; both: one after the other",
      )
        .choices(['vt-d', 'smmuv3', 'both'])
        .default('vt-d'),
    )
    .option('--machine <FILE>', 'machine description, JSON (see docs/guides/machine-files.md)')
    .option('--trace <FILE>', 'write every trace event to FILE: .json for Perfetto, else NDJSON')
    .option('--record <FILE>', 'keep what came to the machine in FILE, for `vfio-emu replay`')
    .option(
      '--detect-stale-use',
      'report translations used after their tables changed, not invalidated',
    )
    .option(
      '--strict-sync',
      'arm64: a system register counts from the next ISB on; report uses before one',
    )
    .option(
      '--sev <OPTIONS>',
      'sev guest: launch it once, by config=FILE,type=unencrypted (see docs/guides/sev.md)',
    )
    .option(
      '--sev-object <OPTION>',
      'the same by objects: security-policy,memory-encryption=ID and what it names, or @FILE; may be repeated',
      (object: string, before: readonly string[]) => [...before, object],
      [] as readonly string[],
    )
    .option('--sev-strict', 'absent keys of that file are errors')
    .option('--json', 'print the steps as NDJSON')
    .option(
      '--gdb <PORT>',
      'wait for gdb at this TCP port, which then runs the guest; 0: any',
      tcpPort,
    )
    .action(async (options: RunOptions) => {
      if (options.gdb !== undefined) finish(await runUnderGdb(options, options.gdb))
      else finish(options.all ? runAll(options) : runOne(options))
    })
}

function runOne(options: RunOptions): number {
  const scenario = SCENARIOS.find(s => s.name === options.guest)
  if (scenario !== undefined) return runScenario(scenario, options)
  return options.iommu === 'both' ? runBoth(options) : run(options, options.iommu)
}

/** The SVA guest on each of the default machines. */
function runBoth(options: RunOptions): number {
  const { machine, guest, trace, record, json } = options
  if (machine !== undefined || trace !== undefined || record !== undefined || guest !== SVA)
    throw new UsageError('--iommu both goes with the default machines and no files')
  const results = (['vt-d', 'smmuv3'] as const).map((iommu, i) => {
    if (!json) out(`${i > 0 ? '\n\n' : ''}${style.heading(TITLES[iommu])}`)
    return run(options, iommu)
  })
  return Math.max(...results)
}

function runScenario(scenario: Scenario, options: RunOptions): number {
  const { json, monitor, sev, sevObject: objects, sevStrict } = options
  const tell = json ? jsonScenario(scenario.name) : textScenario()
  const asked = sev !== undefined || objects.length > 0
  const launch = asked && { sev: { options: sev, objects, strict: sevStrict === true } }
  return scenario.run({ tell, monitor: monitor === true, ...launch }) ? 0 : 1
}

function runAll(options: RunOptions): number {
  const guests = [{ name: SVA, title: 'SVA DMA through a nested IOMMU' }, ...SCENARIOS]
  const results = guests.map(({ name, title }, i) => {
    if (!options.json) out(`${i > 0 ? '\n\n' : ''}${style.heading(`${name}: ${title}`)}`)
    const { machine, trace, record } = options
    const plain = machine === undefined && trace === undefined && record === undefined
    return runOne({ ...options, guest: name, ...(plain && { iommu: 'both' as const }) })
  })
  return Math.max(...results)
}

function run(options: RunOptions, iommu: 'vt-d' | 'smmuv3'): number {
  const prepared = prepare(options, iommu)
  try {
    const status = prepared.tell(runGuest(prepared.machine, prepared.image))
    if (options.monitor) monitorPlain(options.json === true)
    return status
  } finally {
    prepared.end()
  }
}

/** What a monitor says of a guest that is not encrypted. */
function monitorPlain(json: boolean): void {
  const info = querySev(undefined)
  const tell = json ? jsonScenario(SVA) : textScenario()
  tell.facts('info sev', infoSev(info), { 'query-sev': info })
}

/** One guest that a debugger runs. */
async function runUnderGdb(options: RunOptions, port: number): Promise<number> {
  const { guest, iommu, all } = options
  if (all || iommu === 'both' || SCENARIOS.some(s => s.name === guest))
    throw new UsageError('--gdb goes with one guest image')
  const prepared = prepare(options, iommu)
  const architecture = iommu === 'smmuv3' ? 'aarch64' : 'i386:x86-64'
  const listening = (at: number) =>
    process.stderr.write(
      `vfio-emu: waiting for gdb: set architecture ${architecture}, target remote 127.0.0.1:${at}\n`,
    )
  try {
    return prepared.tell(await debugGuest(prepared.machine, prepared.image, { port, listening }))
  } finally {
    prepared.end()
  }
}

/** The machine and who tells of it; `tell` gives the command's status, `end` stops the telling. */
function prepare(options: RunOptions, iommu: 'vt-d' | 'smmuv3') {
  const description = loadMachine(options.machine, iommu)
  const { guest = SVA } = options
  const image = readImage(guest === SVA ? guestOf(description) : guest, description.iommu)
  const machine = createMachine({
    ...description,
    ...(options.detectStaleUse && { detectStaleUse: true }),
    ...(options.strictSync && { a64: { sync: 'strict' as const } }),
    ...(options.record && { record: true }),
  })
  machine.recordRemarks(VMM_EVENTS)
  if (options.strictSync && machine.description.cpu !== 'arm64')
    throw new UsageError('--strict-sync goes with an arm64 guest: --iommu smmuv3')
  if (options.record) writeHistory(machine, options.record)
  const teller = options.json ? jsonTeller() : textTeller()
  const endTrace = options.trace ? startTrace(machine, options.trace) : () => {}
  const story = new Story(machine, teller.step)
  teller.machine(machine)
  const tell = (end: GuestEnd): number => {
    const holdings = machine.holdings()
    const clean = Object.values(holdings).every(n => n === 0)
    const fresh = machine.staleUses.length === 0 && story.totals.unsynchronised === 0
    const good = end.kind === 'exit' && end.code === 0 && clean && fresh
    teller.end(machine, story, end, holdings, good)
    if (options.record) writeHistory(machine, options.record)
    return good ? 0 : 1
  }
  const end = () => {
    story.end()
    endTrace()
  }
  return { machine, image, tell, end }
}

function tcpPort(text: string): number {
  const port = Number(text)
  if (!/^\d{1,5}$/.test(text) || port > 0xffff)
    throw new InvalidArgumentError('a TCP port is 0 to 65535.')
  return port
}

function writeHistory(machine: Machine<IommuUnit>, path: string): void {
  try {
    writeFileSync(path, formatHistory(machine.save()))
  } catch (error) {
    throw new UsageError(`cannot write the history ${path}: ${(error as Error).message}`)
  }
}
