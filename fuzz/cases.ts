// One case of the model-based fuzzer: commands drawn from a seed, run on a fresh machine, and shrunk when the
// product and the model disagree.

import fc from 'fast-check'
import { callCommands } from './commands/calls.js'
import { dmaCommands } from './commands/dma.js'
import { fileCommands, startProcess } from './commands/files.js'
import { type FuzzCommand, settleAll } from './commands/step.js'
import { PLACES } from './devices.js'
import { assertInvariants } from './invariants.js'
import { exit } from './model/files.js'
import { emptyState, type State } from './model/state.js'
import { Disagreement, Rig, type RigOptions } from './rig.js'

/** How a case is drawn and run. */
export interface CaseOptions extends RigOptions {
  /** Most commands of a case. */
  readonly commands: number
  /** Where a shrunk case is: what a report printed. */
  readonly path?: string
  readonly replayPath?: string
  /** Whether a failure is shrunk; it is unless told otherwise. */
  readonly shrink?: boolean
}

/** A case that failed, shrunk. */
export interface Failure {
  readonly seed: number
  readonly path: string
  readonly replayPath: string
  /** The commands as drawn. */
  readonly commands: readonly string[]
  /** What they called, as strace would print it. */
  readonly calls: readonly string[]
  readonly message: string
  /** Cases run to shrink it. */
  readonly shrinks: number
}

/** What became of a case. */
export interface CaseResult {
  readonly seed: number
  /** Commands run, those of shrinking included. */
  readonly steps: number
  readonly failure: Failure | undefined
}

const anyCommand: fc.Arbitrary<FuzzCommand> = fc.oneof(
  ...fileCommands,
  ...callCommands,
  ...dmaCommands,
)

interface Setup {
  readonly model: State
  readonly real: Rig
  /** What was held before there was any process. */
  readonly before: string
}

/** A machine with two processes, and the model of it. */
function setup(options: RigOptions): Setup {
  const real = new Rig(options)
  const made = { model: emptyState(PLACES), real, before: JSON.stringify(leftovers(real)) }
  for (let i = 0; i < 2; i++) startProcess(made.model, made.real)
  return made
}

/** Ends every process, and expects that the machine is as it was. */
function finish({ model, real, before }: Setup): void {
  for (const p of model.processes)
    if (p.alive) {
      real.systems[p.id]!.exit()
      exit(model, p)
    }
  settleAll(model, real)
  assertInvariants(model, real)
  const after = JSON.stringify(leftovers(real))
  if (after !== before) throw new Disagreement(`after every process ended: ${after}, not ${before}`)
}

/** What nobody should hold when nobody is there. */
function leftovers({ machine }: Rig) {
  return {
    ...machine.holdings(),
    frames: machine.kernel.frames.used,
    vectors: machine.interrupts.used,
    bindings: machine.iommu.bindingCount,
    requests: machine.iommu.pendingPageRequests(),
    pasidsAvailable: machine.ioasid.available,
  }
}

/** Runs the case of a seed. */
export function runCase(seed: number, options: CaseOptions): CaseResult {
  let steps = 0
  const counted = anyCommand.map(
    (c): FuzzCommand => ({
      check: s => c.check(s),
      run(s, rig) {
        steps++
        c.run(s, rig)
      },
      toString: () => c.toString(),
    }),
  )
  const { replayPath } = options
  const commands = fc.commands([counted], {
    maxCommands: options.commands,
    size: 'max',
    ...(replayPath === undefined ? {} : { replayPath }),
  })
  const property = fc.property(fc.noBias(commands), drawn => {
    const made = setup(options)
    fc.modelRun(() => made, drawn)
    finish(made)
  })
  const out = fc.check(property, {
    seed,
    numRuns: 1,
    endOnFailure: options.shrink === false,
    ...(options.path === undefined ? {} : { path: options.path }),
  })
  if (!out.failed) return { seed, steps, failure: undefined }
  const shrunk = [...out.counterexample![0]]
  const told = retell(shrunk, options)
  const failure = {
    seed,
    path: out.counterexamplePath ?? '',
    replayPath: /replayPath="([^"]*)"/.exec(String(out.counterexample![0]))?.[1] ?? '',
    commands: told.commands,
    calls: told.calls,
    message: told.message,
    shrinks: out.numShrinks,
  }
  return { seed, steps, failure }
}

/** Runs commands once more and writes down what happened. */
function retell(commands: Iterable<FuzzCommand>, options: RigOptions) {
  const made = setup(options)
  const ran: string[] = []
  let message = 'it did not fail again'
  try {
    for (const c of commands) {
      if (!c.check(made.model)) continue
      ran.push(c.toString())
      c.run(made.model, made.real)
    }
    finish(made)
  } catch (error) {
    message = error instanceof Disagreement ? error.message : String((error as Error).stack)
  }
  return { commands: ran, calls: made.real.log, message }
}
