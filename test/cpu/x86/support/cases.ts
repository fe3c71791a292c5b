// Instruction cases: what they hold, how the native runner reads and writes them, and running one on our core.

import { FLAG, FLAGS_FIXED, SEGMENT, SLOT, VECTOR } from '../../../../src/cpu/x86/registers.js'
import { CODE, DATA, flatCore } from './flat.js'

/** Base of GS in every case. */
export const GS_BASE = 0x100

/** One instruction and the state it starts from. */
export interface Case {
  readonly code: Uint8Array
  readonly regs: BigUint64Array
  /** Status flags and DF. */
  readonly flags: number
  /** Fills the window. */
  readonly seed: number
  /** Flags the manual leaves undefined for this very case. */
  readonly undefinedFlags: number
  /** The instruction's name, for messages. */
  readonly name: string
}

/** What a processor made of a case. `fault` is '' or a class of exceptions. */
export interface Outcome {
  readonly regs: BigUint64Array
  readonly flags: number
  readonly rip: number
  readonly fault: '' | 'divide' | 'undefined' | 'memory' | 'other'
  readonly hash: number
}

const CODE_BYTES = 32
const INPUT_BYTES = 128 + 8 + 4 + 4 + CODE_BYTES
const OUTPUT_BYTES = 128 + 8 + 8 + 4 + 4
/** The flags that are compared. */
export const COMPARED = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF | FLAG.DF

/** The cases as the runner's input. */
export function toRecords(cases: readonly Case[]): Uint8Array {
  const bytes = new Uint8Array(cases.length * INPUT_BYTES)
  const view = new DataView(bytes.buffer)
  cases.forEach((c, i) => {
    const at = i * INPUT_BYTES
    c.regs.forEach((v, r) => {
      view.setBigUint64(at + 8 * r, v, true)
    })
    view.setBigUint64(at + 128, BigInt(c.flags | 0x202), true)
    view.setUint32(at + 136, c.seed, true)
    view.setUint32(at + 140, c.code.length, true)
    bytes.set(c.code, at + 144)
  })
  return bytes
}

const SIGNALS: Record<number, Outcome['fault']> = {
  0: '',
  4: 'undefined',
  7: 'memory',
  8: 'divide',
  11: 'memory',
}

/** The runner's output as outcomes. */
export function fromRecords(bytes: Uint8Array): Outcome[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const outcomes: Outcome[] = []
  for (let at = 0; at < bytes.length; at += OUTPUT_BYTES) {
    const regs = new BigUint64Array(16)
    for (let r = 0; r < 16; r++) regs[r] = view.getBigUint64(at + 8 * r, true)
    outcomes.push({
      regs,
      flags: Number(view.getBigUint64(at + 128, true)) & COMPARED,
      rip: Number(view.getBigUint64(at + 136, true)),
      fault: SIGNALS[view.getUint32(at + 144, true)] ?? 'other',
      hash: view.getUint32(at + 148, true),
    })
  }
  return outcomes
}

const FAULTS: Record<number, Outcome['fault']> = {
  [VECTOR.DE]: 'divide',
  [VECTOR.UD]: 'undefined',
  [VECTOR.GP]: 'memory',
  [VECTOR.SS]: 'memory',
  [VECTOR.PF]: 'memory',
}

/** Makes a function that runs cases on one core of ours. */
export function caseRunner(): (c: Case) => Outcome {
  const { core, state, system, space, code, data } = flatCore(3)
  // The runner has one page of data; ours shrinks to it.
  for (const region of [...space.regions]) if (region.base === DATA) space.remove(region)
  const page = data.subarray(0, 4096)
  space.addRam(DATA, page)
  const window = new Int32Array(page.buffer, page.byteOffset, 1024)
  state.segments[SEGMENT.GS]!.base = BigInt(GS_BASE)
  return c => {
    let x = c.seed | 0
    for (let i = 0; i < 1024; i++) window[i] = x = (Math.imul(x, 1664525) + 1013904223) | 0
    code.fill(0, 0, CODE_BYTES)
    code.set(c.code)
    state.r64.set(c.regs, SLOT.RAX)
    state.rip = BigInt(CODE)
    state.flags = c.flags | FLAGS_FIXED | FLAG.IF
    state.event = undefined
    system.events.length = 0
    const end = CODE + c.code.length
    let fault: Outcome['fault'] = ''
    for (let i = 0; i < 200 && Number(state.rip) !== end; i++) {
      if (core.run(1).kind === 'shutdown' || state.event) {
        const event = state.event ?? system.events[0]
        fault = FAULTS[event?.vector ?? -1] ?? 'other'
        break
      }
    }
    let hash = 2166136261 | 0
    for (let i = 0; i < 1024; i++) hash = Math.imul(hash ^ window[i]!, 16777619)
    return {
      regs: state.r64.slice(0, 16),
      flags: state.flags & COMPARED,
      rip: Number(state.rip),
      fault,
      hash: hash >>> 0,
    }
  }
}

/** How two outcomes of a case differ; empty when they agree on everything defined. */
export function differences(c: Case, ours: Outcome, theirs: Outcome): string {
  const words: string[] = []
  if (ours.fault !== theirs.fault)
    words.push(`fault ${ours.fault || 'none'}, not ${theirs.fault || 'none'}`)
  const names = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')
  names.forEach((name, r) => {
    if (ours.regs[r] !== theirs.regs[r])
      words.push(`${name} ${ours.regs[r]!.toString(16)}, not ${theirs.regs[r]!.toString(16)}`)
  })
  const mask = theirs.fault === '' ? COMPARED & ~c.undefinedFlags : COMPARED
  if ((ours.flags ^ theirs.flags) & mask)
    words.push(
      `flags ${(ours.flags & mask).toString(16)}, not ${(theirs.flags & mask).toString(16)}`,
    )
  if (ours.rip !== theirs.rip)
    words.push(`rip ${ours.rip.toString(16)}, not ${theirs.rip.toString(16)}`)
  if (ours.hash !== theirs.hash) words.push('memory differs')
  return words.join('; ')
}

/** A case and what a processor made of it, as one line: only registers that are not zero, and those that changed. */
export function toLine(c: Case, o: Outcome): string {
  const list = (from: BigUint64Array, base: BigUint64Array) =>
    Array.from(from, (v, i) => (v === base[i] ? '' : `${i.toString(16)}${v.toString(16)}`))
      .filter(Boolean)
      .join('.')
  const hex = Array.from(c.code, b => b.toString(16).padStart(2, '0')).join('')
  const numbers = [c.flags, c.undefinedFlags, c.seed, o.flags, o.rip - CODE, o.hash]
  return [
    c.name,
    hex,
    ...numbers.map(n => n.toString(16)),
    o.fault,
    list(c.regs, new BigUint64Array(16)),
    list(o.regs, c.regs),
  ].join(' ')
}

/** The reverse. */
export function fromLine(line: string): { c: Case; o: Outcome } {
  const words = line.split(' ')
  const [name, hex] = words as [string, string]
  const [flags, undefinedFlags, seed, flagsAfter, length, hash] = words
    .slice(2, 8)
    .map(w => Number.parseInt(w, 16)) as [number, number, number, number, number, number]
  const apply = (text: string, base: BigUint64Array) => {
    const regs = base.slice()
    for (const item of text.split('.').filter(Boolean))
      regs[Number.parseInt(item[0]!, 16)] = BigInt(`0x${item.slice(1)}`)
    return regs
  }
  const code = Uint8Array.from(hex.match(/../g)!, b => Number.parseInt(b, 16))
  const regs = apply(words[9]!, new BigUint64Array(16))
  const o: Outcome = {
    regs: apply(words[10]!, regs),
    flags: flagsAfter,
    rip: CODE + length,
    fault: words[8] as Outcome['fault'],
    hash,
  }
  return { c: { code, regs, flags, seed, undefinedFlags, name }, o }
}
