// `vfio-emu replay`: does a recorded run again without its guest's VMM, checks every answer, and compares the end.

import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError } from 'commander'
import { HistoryError, parseHistory, type Snapshot } from '../history/index.js'
import { createMachine, type Machine } from '../machine.js'
import { recordedMachine } from './machine-file.js'
import { columns, formatTime, style, toJson, UsageError } from './output.js'
import { Story } from './story.js'
import { jsonTeller, out, textTeller } from './tellers.js'
import { startTrace } from './trace-file.js'

interface ReplayOptions {
  readonly until?: number
  readonly trace?: string
  readonly json?: boolean
}

/** The `replay` command. */
export function replayCommand(finish: (status: number) => void): Command {
  return new Command('replay')
    .description(
      'Do a recorded run again (run --record FILE): every answer and the final state must be the recorded ones.',
    )
    .argument('<FILE>', 'history that `vfio-emu run --record` wrote')
    .option('--until <N>', 'stop after input N of the history', count)
    .option('--trace <FILE>', 'write every trace event to FILE: .json for Perfetto, else NDJSON')
    .option('--json', 'print the steps as NDJSON')
    .action((file: string, options: ReplayOptions) => finish(replay(file, options)))
}

function count(text: string): number {
  const n = Number(text)
  if (!Number.isInteger(n) || n < 0) throw new InvalidArgumentError('a number of inputs is needed.')
  return n
}

function replay(file: string, options: ReplayOptions): number {
  const whole = readHistory(file)
  const { until = whole.inputs.length } = options
  if (until > whole.inputs.length)
    throw new UsageError(`${file} has ${whole.inputs.length} inputs, not ${until}`)
  const partly = until < whole.inputs.length
  const snapshot = partly
    ? { ...whole, inputs: whole.inputs.slice(0, until), state: undefined }
    : whole
  const machine = build(whole, file)
  const tell = options.json ? jsonTeller() : textTeller()
  const endTrace = options.trace ? startTrace(machine, options.trace) : () => {}
  const story = new Story(machine, tell.step)
  let diverged: HistoryError | undefined
  try {
    tell.machine(machine)
    machine.restore(snapshot)
  } catch (error) {
    if (!(error instanceof HistoryError)) throw error
    diverged = error
  } finally {
    story.end()
    endTrace()
  }
  const state = machine.digest()
  const rows = [
    ['inputs', partly ? `${until} of ${whole.inputs.length}` : `${until}`],
    ['virtual time', formatTime(machine.clock.now).trim()],
    [
      'held',
      Object.entries(machine.holdings())
        .map(([name, n]) => `${name} ${n}`)
        .join(', '),
    ],
    ['state', state],
    ...(whole.state && !partly ? [['recorded', whole.state]] : []),
  ]
  if (options.json) {
    const told = { inputs: until, of: whole.inputs.length, state, recorded: whole.state }
    out(toJson({ topic: 'replay', same: diverged === undefined, why: diverged?.message, ...told }))
  } else {
    out(`\n${style.heading('replay')}`)
    for (const line of columns(rows)) out(`  ${line}`)
    const good = partly
      ? 'every answer so far is the recorded one'
      : 'the same answers, the same state'
    out(`\n${diverged ? style.bad(diverged.message) : style.good(good)}`)
  }
  return diverged ? 1 : 0
}

function build(history: Snapshot, file: string): Machine {
  const description = recordedMachine(history.machine, file)
  try {
    return createMachine(description)
  } catch (error) {
    throw new UsageError(
      `history ${file}: its machine cannot be built: ${(error as Error).message}`,
    )
  }
}

function readHistory(file: string): Snapshot {
  try {
    return parseHistory(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new UsageError(`cannot read the history ${file}: ${(error as Error).message}`)
  }
}
