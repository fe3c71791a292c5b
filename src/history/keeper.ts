// A machine's own side of its history: system calls that are recorded, saving, and becoming a saved machine.

import type { VirtualClock } from '../base/clock.js'
import type { TraceBus, TraceName } from '../base/trace.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { Kernel } from '../sys/kernel.js'
import type { Process, ProcessOptions } from '../sys/process.js'
import { Sys } from '../sys/sys.js'
import { HISTORY_VERSION, HistoryError, type Snapshot } from './log.js'
import type { Recorder } from './recorder.js'
import { RecordingSys } from './recording-sys.js'
import { Replay } from './replay.js'
import { stateDigest } from './state.js'
import { encode } from './values.js'

/** What the keeper needs of its machine. */
export interface KeptMachine {
  /** What it is made of, as text. */
  readonly identity: string
  readonly kernel: Kernel
  readonly clock: VirtualClock
  readonly trace: TraceBus
  readonly memory: AddressSpace
  readonly ram: Uint8Array
  holdings(): object
}

/** How much of a history was done again. */
export type Progress = (done: number, of: number) => void

/** Keeps one machine's history, when it is recorded, and its processes. */
export class HistoryKeeper {
  readonly #machine: KeptMachine
  readonly #recorder: Recorder | undefined
  readonly #processes = new Map<number, Sys>()
  #used = false

  constructor(machine: KeptMachine, recorder: Recorder | undefined) {
    this.#machine = machine
    this.#recorder = recorder
    recorder?.begin()
  }

  /** The system calls of a process that is there from the start. */
  first(process: Process): Sys {
    return this.#keep(this.#sysOf(process))
  }

  /** Starts a process. */
  spawn(options: ProcessOptions = {}): Sys {
    this.#used = true
    const process = this.#machine.kernel.spawn(options)
    const kept = options.capabilities && { capabilities: [...process.capabilities] }
    this.#recorder?.add({ op: 'spawn', options: { ...options, ...kept }, pid: process.pid })
    return this.#keep(this.#sysOf(process))
  }

  /** The system calls of a living process. */
  process(pid: number): Sys | undefined {
    const sys = this.#processes.get(pid) ?? this.#recorder?.processes.get(pid)
    return sys?.process.exited ? undefined : sys
  }

  /** Remarks of these names that callers make on the trace bus become part of the history. */
  remarks(names: readonly TraceName[]): void {
    const recorder = this.#recorder
    if (recorder === undefined) return
    for (const name of names)
      this.#machine.trace.listen(name, event => {
        if (!recorder.inside) recorder.add({ op: 'remark', name, event: encode(event) })
      })
  }

  /** Digest of the machine's state now. */
  digest(): string {
    const { kernel, clock, ram } = this.#machine
    const files = kernel.processes.flatMap(process =>
      [...process.fds.entries()].map(({ fd, file }) => ({ pid: process.pid, fd, file })),
    )
    return stateDigest({ ram, clock, holdings: this.#machine.holdings(), files })
  }

  /** The machine as it is now. HistoryError when it is not recorded, or something could not be. */
  save(): Snapshot {
    if (this.#recorder === undefined)
      throw new HistoryError(
        'this machine is not recorded: make it with createMachine({ ..., record: true })',
      )
    if (this.#recorder.inside)
      throw new HistoryError('a machine cannot be saved inside a call of its own')
    const inputs = [...this.#recorder.inputs()]
    const { identity: machine } = this.#machine
    return { version: HISTORY_VERSION, machine, inputs, state: this.digest() }
  }

  /**
   * Makes this machine, on which nothing has been done yet, what the saved one was. HistoryError: another version,
   * a machine made of something else, or (`Diverged`) one that does not do what was recorded.
   */
  restore(snapshot: Snapshot, progress?: Progress): void {
    const { identity, memory, clock, trace } = this.#machine
    if (snapshot.version !== HISTORY_VERSION)
      throw new HistoryError(`the snapshot has version ${snapshot.version}, not ${HISTORY_VERSION}`)
    if (snapshot.machine !== identity)
      throw new HistoryError(
        `the snapshot is of another machine: ${difference(snapshot.machine, identity)}`,
      )
    if (this.#used || (this.#recorder?.inputs().length ?? 0) > 0)
      throw new HistoryError('a snapshot is restored into a machine that nobody has used yet')
    const { inputs } = snapshot
    const replay = new Replay({
      memory,
      clock,
      trace,
      spawn: options => this.spawn(options),
      process: pid => this.process(pid),
    })
    replay.run(inputs, progress && (done => progress(done, inputs.length)))
    for (const [pid, sys] of replay.processes) this.#processes.set(pid, sys)
    const differs = snapshot.state !== undefined && this.digest() !== snapshot.state
    replay.end()
    if (differs)
      throw new HistoryError(
        'every answer was the recorded one, yet the state is another: memory was written where the recorder does not look (see docs/guides/record-replay.md)',
      )
  }

  #sysOf(process: Process): Sys {
    return this.#recorder ? new RecordingSys(process, this.#recorder) : new Sys(process)
  }

  #keep(sys: Sys): Sys {
    const { pid } = sys.process
    this.#processes.set(pid, sys)
    sys.process.onExit(() => this.#processes.delete(pid))
    return sys
  }
}

/** The first member that two identities disagree about, in words. */
function difference(saved: string, here: string): string {
  let was: Record<string, unknown>
  try {
    was = JSON.parse(saved) as Record<string, unknown>
  } catch {
    return 'its description cannot be read'
  }
  const is = JSON.parse(here) as Record<string, unknown>
  for (const key of new Set([...Object.keys(was), ...Object.keys(is)])) {
    const [a, b] = [was[key], is[key]].map(value => JSON.stringify(value) ?? 'the default')
    if (a !== b) return `its ${key} is ${a}, here it is ${b}`
  }
  return 'its description is written in another way'
}
