// The history of a machine: everything that came to it from outside, in order, with what it answered.
// A machine is deterministic, so its history is its state: done again it leads to the same machine, timers,
// caches and half-done work of devices included. Written as NDJSON: a head, an input a line, an end.

import { decode, encode, type Json } from './values.js'

/** Number of the format; a file of another number is refused. */
export const HISTORY_VERSION = 1

/** Bytes that a caller put into memory between two inputs. */
export interface Written {
  readonly op: 'write'
  /** A process and an address in it, or physical memory when the pid is 0. */
  readonly pid: number
  readonly at: number
  readonly bytes: Uint8Array
}

/** A process was started with these options, and got `pid`. */
export interface Spawned {
  readonly op: 'spawn'
  readonly options: unknown
  pid: number
}

/** A system call, or a load or store on a mapping of registers (`name` load or store). */
export interface Called {
  readonly op: 'call'
  readonly pid: number
  readonly name: string
  readonly args: readonly unknown[]
  /** `ok` and an answer, or the errno's name; see `answerOf`. */
  answer: string
  /** What listeners of the caller did while the call ran, in the order they were called. */
  during?: Heard[]
}

/** Virtual time was let go on by the machine's owner. */
export interface Ran {
  readonly op: 'step' | 'settle' | 'advance'
  readonly ns?: number
  during?: Heard[]
}

/** A listener was called and did `inputs`; `watch` counts the listeners in the order they came. */
export interface Heard {
  readonly watch: number
  readonly inputs: Input[]
}

/** A listener was taken away. */
export interface Unwatched {
  readonly op: 'unwatch'
  readonly watch: number
}

/** A remark of the caller's own on the trace bus. */
export interface Remarked {
  readonly op: 'remark'
  readonly name: string
  readonly event: unknown
}

/** Something that came from outside. */
export type Input = Written | Spawned | Called | Ran | Unwatched | Remarked

/** The history cannot be kept, read, or followed. The message says what to do. */
export class HistoryError extends Error {
  override readonly name = 'HistoryError'
}

/** A machine at one moment. */
export interface Snapshot {
  readonly version: number
  /** What the machine was made of, as text: another machine does not fit. */
  readonly machine: string
  readonly inputs: readonly Input[]
  /** Digest of the machine's state after the last input; undefined: not compared. */
  readonly state: string | undefined
}

const toJson = (input: object): Json => {
  const plain: Record<string, Json> = {}
  for (const [key, value] of Object.entries(input)) {
    if (key === 'during') plain.during = (value as Heard[]).map(heardToJson)
    else if (value !== undefined) plain[key] = encode(value)
  }
  return plain
}

const heardToJson = (heard: Heard): Json => ({
  watch: heard.watch,
  inputs: heard.inputs.map(toJson),
})

/** The snapshot as text, one JSON value a line. */
export function formatHistory(snapshot: Snapshot): string {
  const { version, machine, inputs, state } = snapshot
  const lines = [
    JSON.stringify({ history: version, machine }),
    ...inputs.map(input => JSON.stringify(toJson(input))),
    JSON.stringify({ end: inputs.length, state: state ?? null }),
  ]
  return `${lines.join('\n')}\n`
}

/** Reads what `formatHistory` wrote. HistoryError: not a history, another version, cut short, or damaged. */
export function parseHistory(text: string): Snapshot {
  const lines = text.split('\n').filter(line => line !== '')
  const head = parseLine(lines, 0)
  if (typeof head.history !== 'number' || typeof head.machine !== 'string')
    throw new HistoryError(
      'this is not a history: its first line is no head; record one with `vfio-emu run --record FILE`',
    )
  if (head.history !== HISTORY_VERSION)
    throw new HistoryError(
      `the history has version ${head.history}, this program reads version ${HISTORY_VERSION}: replay it with the program that wrote it`,
    )
  const end = lines.length < 2 ? {} : parseLine(lines, lines.length - 1)
  if (end.end !== lines.length - 2 || (typeof end.state !== 'string' && end.state !== null))
    throw new HistoryError('the history is cut short: its last line is no end')
  const inputs = lines.slice(1, -1).map((_, i) => fromJson(parseLine(lines, i + 1), i + 2))
  return { version: HISTORY_VERSION, machine: head.machine, inputs, state: end.state ?? undefined }
}

type Plain = { readonly [key: string]: Json }

function parseLine(lines: readonly string[], at: number): Plain {
  try {
    const value: unknown = JSON.parse(lines[at] ?? '')
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Plain
  } catch {
    // Said below, as for everything that is no object.
  }
  throw new HistoryError(`line ${at + 1} of the history is no JSON object`)
}

/** What an input of each kind must have, by type of member. */
const SHAPES: Record<Input['op'], Readonly<Record<string, string>>> = {
  write: { pid: 'number', at: 'number', bytes: 'object' },
  spawn: { pid: 'number' },
  call: { pid: 'number', name: 'string', args: 'object', answer: 'string' },
  step: {},
  settle: {},
  advance: { ns: 'number' },
  unwatch: { watch: 'number' },
  remark: { name: 'string' },
}

function fromJson(plain: Plain, line: number): Input {
  const bad = (why: string) => new HistoryError(`line ${line} of the history: ${why}`)
  const shape = SHAPES[plain.op as Input['op']] as (typeof SHAPES)['write'] | undefined
  if (shape === undefined) throw bad(`no input is called ${JSON.stringify(plain.op)}`)
  const input: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(plain)) {
    if (key === 'during') continue
    try {
      input[key] = decode(value)
    } catch (error) {
      throw bad((error as Error).message)
    }
  }
  for (const [key, type] of Object.entries(shape))
    if (typeof input[key] !== type) throw bad(`${plain.op} has no ${key}`)
  if (plain.op === 'write' && !(input.bytes instanceof Uint8Array)) throw bad('write has no bytes')
  if (plain.op === 'call' && !Array.isArray(input.args)) throw bad('call has no args')
  if (plain.during !== undefined) {
    if (!Array.isArray(plain.during)) throw bad('what was heard during it is no list')
    input.during = plain.during.map(heard => {
      const { watch, inputs } = (heard ?? {}) as Plain
      if (typeof watch !== 'number' || !Array.isArray(inputs))
        throw bad('something heard has no watch')
      return { watch, inputs: inputs.map(one => fromJson((one ?? {}) as Plain, line)) }
    })
  }
  return input as unknown as Input
}
