// Instruction cases: what they hold, how the runner program reads and writes them, and running one on our core.
// A state is 196 words of 32 bits: X0 to X30, SP, NZCV, FPCR, FPSR, V0 to V31, as in the runner's `struct registers`.

import { EC, SLOT } from '../../src/cpu/a64/registers.js'
import { Draw } from '../random.js'
import type { Subject } from './subjects.js'

/** Where the runner puts code and data; slots are 64 words, and code starts in their middle. */
export const CODE = 0x10_0000_0000
export const SLOT_WORDS = 64
export const FIRST_WORD = 32
export const SLOT_COUNT = 1024
export const WINDOW = CODE + 0x8_0000
export const WINDOW_BYTES = 4096
export const MOST_WORDS = 8

/** Indices into a state. */
export const STATE = { SP: 62, NZCV: 64, FPCR: 66, FPSR: 67, V: 68, WORDS: 196 } as const

/** Some instructions and the state they start from. */
export interface Case {
  /** The rows that the words were drawn from, for messages. */
  readonly name: string
  readonly group: string
  readonly words: readonly number[]
  /** Which slot of the code region holds it. */
  readonly slot: number
  /** Fills the window, and the state before `changes`. */
  readonly seed: number
  /** Words of the state that are not what the seed gives. */
  readonly changes: readonly (readonly [index: number, value: number])[]
}

/** What became of it. */
export interface Outcome {
  /** Linux's number: 4 SIGILL, 5 SIGTRAP, 7 SIGBUS, 11 SIGSEGV. A case that ran to its end has 4 just past it. */
  readonly signal: number
  /** Where, from the first word of the case, in bytes; the halves of the address where that is far away. */
  readonly pc: string
  readonly hash: number
  readonly state: Int32Array
}

/** Address of a slot's first word of code. */
export const codeAddress = (slot: number): number => CODE + 4 * (SLOT_WORDS * slot + FIRST_WORD)

/** The bits of FPSR that A64 has. */
const FPSR_BITS = 0x0800_009f

const EDGES = [0, 1, -1, 0x7fff_ffff, 0x8000_0000 | 0, 2, 0xffff, 0x8000, 0x7f, 0x80] as const
// One, minus a half, infinities, NaNs of both kinds, denormals, the largest and smallest numbers: single precision.
// biome-ignore format: table
const SINGLES = [0, 0x80000000, 0x3f800000, 0xbf000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345, 1, 0x807fffff, 0x7f7fffff, 0x00800000, 0x4b000001, 0x4f000000, 0xcf000001, 0x5f000000, 0x3effffff, 0x40490fdb] as const
const DOUBLES = [
  0, 0x80000000, 0x3ff00000, 0xbfe00000, 0x7ff00000, 0xfff00000, 0x7ff80000, 0x7ff00001, 0xfff81234,
  0x0000ffff, 0x800fffff, 0x7fefffff, 0x00100000, 0x43300000, 0x41e00000, 0xc3e00000, 0x43f00000,
  0x36a00000, 0x47f00000, 0x3fdfffff,
] as const
const HALVES = [
  0, 0x8000, 0x3c00, 0xb800, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 0x0001, 0x83ff, 0x7bff, 0x0400,
] as const

/** A general register's value: small, of few bits, at an edge, or anything. */
function drawGeneral(draw: Draw, into: Int32Array, at: number): void {
  const a = draw.word() | 0
  const kind = draw.below(10)
  let [lo, hi] = [a, draw.word() | 0]
  if (kind === 0) [lo, hi] = [a & 15, 0]
  else if (kind === 1) [lo, hi] = [-(a & 15) - 1, -1]
  else if (kind === 2) [lo, hi] = a & 32 ? [0, 1 << (a & 31)] : [1 << (a & 31), 0]
  else if (kind === 3) [lo, hi] = [a & 1 ? -1 : 0, a & 1 ? 0x7fff_ffff : -0x8000_0000]
  else if (kind === 4) [lo, hi] = [draw.pick(EDGES), draw.pick(EDGES)]
  else if (kind === 5) [lo, hi] = [a, a >> 31]
  else if (kind === 6) hi = 0
  into[at] = lo
  into[at + 1] = hi
}

function drawVector(draw: Draw, into: Int32Array, at: number): void {
  const kind = draw.below(10)
  for (let i = 0; i < 4; i++) into[at + i] = draw.word()
  if (kind < 3) {
    for (let i = 0; i < 4; i++) if (!draw.oneIn(3)) into[at + i] = draw.pick(SINGLES)
  } else if (kind < 6) {
    for (let i = 0; i < 4; i += 2) {
      into[at + i + 1] = draw.pick(DOUBLES)
      if (!draw.oneIn(3)) into[at + i] = draw.pick(EDGES)
    }
  } else if (kind === 6) {
    for (let i = 0; i < 4; i++) into[at + i] = draw.pick(HALVES) | (draw.pick(HALVES) << 16)
  } else if (kind === 7) {
    for (let i = 0; i < 4; i++) into[at + i] = draw.pick(EDGES)
  } else if (kind === 8) {
    // Numbers of similar size, so that sums cancel and round.
    for (let i = 0; i < 4; i++) into[at + i] = 0x3f00_0000 ^ (draw.word() & 0x81ff_ffff)
  }
}

/** The state that a seed stands for. */
export function stateOf(c: Pick<Case, 'seed' | 'changes'>): Int32Array {
  const draw = new Draw(c.seed, 0)
  const s = new Int32Array(STATE.WORDS)
  for (let n = 0; n < 31; n++) drawGeneral(draw, s, 2 * n)
  drawGeneral(draw, s, STATE.SP)
  s[STATE.SP] = s[STATE.SP]! & ~15
  s[STATE.NZCV] = draw.word() & 0xf000_0000
  s[STATE.FPCR] = draw.oneIn(2) ? 0 : draw.word() & 0x07c0_0000
  s[STATE.FPSR] = draw.oneIn(2) ? 0 : draw.word() & FPSR_BITS
  for (let n = 0; n < 32; n++) drawVector(draw, s, STATE.V + 4 * n)
  for (const [index, value] of c.changes) s[index] = value
  return s
}

const INPUT_BYTES = 4 * MOST_WORDS + 16 + 4 * STATE.WORDS
const OUTPUT_BYTES = 16 + 4 * STATE.WORDS

/** The cases as the runner's input. */
export function toRecords(cases: readonly Case[]): Uint8Array {
  const words = new Int32Array((cases.length * INPUT_BYTES) / 4)
  cases.forEach((c, i) => {
    const at = (i * INPUT_BYTES) / 4
    words.set(c.words, at)
    words[at + MOST_WORDS] = c.words.length
    words[at + MOST_WORDS + 1] = c.slot
    words[at + MOST_WORDS + 2] = c.seed
    words.set(stateOf(c), at + MOST_WORDS + 4)
  })
  return new Uint8Array(words.buffer)
}

const pcText = (c: Case, lo: number, hi: number): string => {
  const from = (hi >>> 0) * 2 ** 32 + (lo >>> 0) - codeAddress(c.slot)
  if (Math.abs(from) < 4 * SLOT_WORDS) return String(from)
  return `${(hi >>> 0).toString(16)}:${(lo >>> 0).toString(16)}`
}

/** The runner's output as outcomes. */
export function fromRecords(cases: readonly Case[], bytes: Uint8Array): Outcome[] {
  if (bytes.length !== cases.length * OUTPUT_BYTES)
    throw new Error(`the runner answered ${bytes.length} bytes for ${cases.length} cases`)
  const words = new Int32Array(bytes.slice().buffer)
  return cases.map((c, i) => {
    const at = (i * OUTPUT_BYTES) / 4
    const state = words.slice(at + 4, at + 4 + STATE.WORDS)
    state[STATE.FPSR] = state[STATE.FPSR]! & FPSR_BITS
    return {
      signal: words[at]!,
      hash: words[at + 1]!,
      pc: pcText(c, words[at + 2]!, words[at + 3]!),
      state,
    }
  })
}

/** The signal that Linux would send for what stopped our core. */
function signalOf(ec: number, iss: number): number {
  switch (ec) {
    case EC.UNKNOWN:
      return 4
    case EC.BRK:
      return 5
    case EC.PC_ALIGNMENT:
    case EC.SP_ALIGNMENT:
      return 7
    case EC.DATA_ABORT_LOWER:
      return (iss & 0x3f) === 0x21 ? 7 : 11
    case EC.INSTRUCTION_ABORT_LOWER:
      return 11
    default:
      return 0
  }
}

/** Makes a function that runs cases on a core of ours. */
export function caseRunner(subject: Subject): (c: Case) => Outcome {
  const { state, code, window } = subject
  const { r32 } = state
  return c => {
    let x = c.seed | 0
    for (let i = 0; i < 1024; i++) window[i] = x = (Math.imul(x, 1664525) + 1013904223) | 0
    const first = SLOT_WORDS * c.slot
    code.fill(0, first, first + SLOT_WORDS)
    code.set(c.words, first + FIRST_WORD)
    const s = stateOf(c)
    r32.set(s.subarray(0, STATE.NZCV), 2 * SLOT.X0)
    r32[2 * SLOT.NZCV] = s[STATE.NZCV]!
    r32[2 * SLOT.FPCR] = s[STATE.FPCR]!
    r32[2 * SLOT.FPSR] = s[STATE.FPSR]!
    r32.set(s.subarray(STATE.V), 2 * SLOT.V)
    subject.start(BigInt(codeAddress(c.slot)))
    const raised = subject.run(100)
    const signal = raised ? signalOf(raised.ec, raised.iss) : 0
    let hash = 2166136261 | 0
    for (let i = 0; i < 1024; i++) hash = Math.imul(hash ^ window[i]!, 16777619)
    s.set(r32.subarray(2 * SLOT.X0, 2 * SLOT.X0 + STATE.NZCV))
    s[STATE.NZCV] = r32[2 * SLOT.NZCV]!
    s[STATE.FPCR] = r32[2 * SLOT.FPCR]!
    s[STATE.FPSR] = r32[2 * SLOT.FPSR]! & FPSR_BITS
    s.set(r32.subarray(2 * SLOT.V, 2 * SLOT.V + 128), STATE.V)
    const pc = pcText(c, r32[2 * SLOT.PC]!, r32[2 * SLOT.PC + 1]!)
    return { signal, pc, hash, state: s }
  }
}

/** Name of the register that a word of the state belongs to, and which part of it. */
function wordName(index: number): string {
  if (index >= STATE.V) return `v${(index - STATE.V) >> 2}.s[${(index - STATE.V) & 3}]`
  if (index === STATE.NZCV) return 'nzcv'
  if (index === STATE.FPCR) return 'fpcr'
  if (index === STATE.FPSR) return 'fpsr'
  const half = index & 1 ? ' high' : ' low'
  return index >= STATE.SP ? `sp${half}` : `x${index >> 1}${half}`
}

const hex = (v: number) => (v >>> 0).toString(16)

/** How two outcomes of a case differ; empty when they do not. */
export function differences(ours: Outcome, theirs: Outcome): string {
  const words: string[] = []
  if (ours.signal !== theirs.signal) words.push(`signal ${ours.signal}, not ${theirs.signal}`)
  if (ours.pc !== theirs.pc) words.push(`pc ${ours.pc}, not ${theirs.pc}`)
  for (let i = 0; i < STATE.WORDS; i++) {
    if (ours.state[i] !== theirs.state[i])
      words.push(`${wordName(i)} ${hex(ours.state[i]!)}, not ${hex(theirs.state[i]!)}`)
  }
  if (ours.hash !== theirs.hash) words.push('memory differs')
  return words.join('; ')
}

const list = (items: readonly (readonly [number, number])[]) =>
  items.map(([index, value]) => `${index.toString(36)}:${hex(value)}`).join(',') || '-'

const fromList = (text: string): [number, number][] =>
  text
    .split(',')
    .filter(item => item !== '-')
    .map(item => {
      const [index, value] = item.split(':') as [string, string]
      return [Number.parseInt(index, 36), Number.parseInt(value, 16) | 0]
    })

/** A case and what another implementation made of it, as one line; only words of the state that changed. */
export function toLine(c: Case, o: Outcome): string {
  const before = stateOf(c)
  const changed: [number, number][] = []
  o.state.forEach((v, i) => {
    if (v !== before[i]) changed.push([i, v])
  })
  const words = c.words.map(hex).join('.')
  return [
    words,
    hex(c.slot),
    hex(c.seed),
    list(c.changes),
    o.signal,
    o.pc,
    hex(o.hash),
    list(changed),
  ].join(' ')
}

/** The reverse. */
export function fromLine(line: string): { c: Case; o: Outcome } {
  const [words, slot, seed, changes, signal, pc, hash, changed] = line.split(' ') as string[]
  const number = (text: string) => Number.parseInt(text, 16) | 0
  const c: Case = {
    name: words!,
    group: '',
    words: words!.split('.').map(number),
    slot: number(slot!),
    seed: number(seed!),
    changes: fromList(changes!),
  }
  const state = stateOf(c)
  for (const [index, value] of fromList(changed!)) state[index] = value
  return { c, o: { signal: Number(signal), pc: pc!, hash: number(hash!), state } }
}
