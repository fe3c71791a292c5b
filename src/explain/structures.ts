/**
 * Structures and walks as nodes of an explanation: raw words, decoded fields, and the bit that refused the
 * request, found from the failure and the entry itself.
 */
import { halves, hex, split } from '../base/addr.js'
import { type ExplainedField, explainFields } from '../base/explain.js'
import type { Field, Fields, Layout } from '../base/fields.js'
import { failureMeaning, granted } from '../paging/explain-walk.js'
import type { StageWalk, WalkStep } from '../paging/walk-steps.js'
import type { ExplainedNode } from './explanation.js'

/** A structure as it was read. */
export interface ReadStructure {
  readonly at: number
  readonly words: readonly bigint[] | undefined
}

/** The node of a structure; fields that are zero are left out unless it refused the request. */
export function structureNode(
  title: string,
  layout: Layout,
  { at, words }: ReadStructure,
  refused?: string,
): ExplainedNode {
  const text = `${title} at ${hex(at)}`
  if (words === undefined) return { text, refused: refused ?? 'there is no memory at this address' }
  const fields = fieldsOf(layout, words).filter(
    f => refused !== undefined || !/^0(x0| |$)/.test(f.value),
  )
  const only = words.length === 1 ? ` = ${hex(words[0]!, 16)}` : ''
  return { text: text + only, words, fields, ...(refused !== undefined && { refused }) }
}

/** All fields of a structure's words, decoded. */
export function fieldsOf(layout: Layout, words: readonly bigint[]): ExplainedField[] {
  const bytes = new Uint8Array(Math.max(layout.size, 8))
  new BigUint64Array(bytes.buffer, 0, Math.floor(bytes.length / 8)).set(
    words.slice(0, bytes.length / 8),
  )
  return explainFields(layout.fields, layout.at(bytes))
}

/** `P (bit 0) is 0`. */
export const fieldIs = (layout: Layout, words: readonly bigint[], name: string): string => {
  const f = (layout.fields as Fields)[name]!
  const value = fieldsOf(layout, words).find(e => e.name === name)!.value
  return `${name} (${position(f)}) is ${value}`
}

const position = (f: Field): string => (f.hi === f.lo ? `bit ${f.lo}` : `bits ${f.hi}:${f.lo}`)

/** Bits that are set outside the fields of a layout, as `bit 70` or `bits 75:72`; high first. */
export function bitsOutside(layout: Layout, words: readonly bigint[]): string[] {
  const set: number[] = []
  const inField = (bit: number) =>
    Object.values<Field>(layout.fields).some(f => bit >= f.lo && bit <= f.hi)
  words.forEach((word, i) => {
    for (const b of bitsOf(word)) if (!inField(64 * i + b)) set.push(64 * i + b)
  })
  return runs(set)
}

/** Numbers of the bits that are set in a 64-bit word, low first. */
export function bitsOf(word: bigint): number[] {
  split(word)
  const [lo, hi] = [halves[0]!, halves[1]!]
  return Array.from({ length: 64 }, (_, b) => b).filter(
    b => ((b < 32 ? lo >>> b : hi >>> (b - 32)) & 1) !== 0,
  )
}

/** Numbers of set bits as runs, high first. */
export function runs(bits: readonly number[]): string[] {
  const out: string[] = []
  for (let i = bits.length - 1; i >= 0; ) {
    let low = i
    while (low > 0 && bits[low - 1] === bits[low]! - 1) low--
    out.push(low === i ? `bit ${bits[i]}` : `bits ${bits[i]}:${bits[low]}`)
    i = low - 1
  }
  return out
}

/** The nodes of a walk: the stage, its entries, and under each the second stage of its address where that stops, or with `full`. */
export function walkNode(w: StageWalk, full = false): ExplainedNode {
  const failed = w.output === undefined && !w.innerFailed
  const culprit = failed ? culpritOf(w) : undefined
  const steps = w.steps.map((step, i): ExplainedNode => {
    const value = step.raw === undefined ? '' : ` = ${hex(step.raw, 16)}`
    const flags = step.flags.length > 0 ? `  ${step.flags.join(' ')}` : ''
    return {
      text: `${step.name} at ${hex(step.at)}${throughSecond(step)}${value}${flags}`,
      ...(step.raw !== undefined && { words: [step.raw] }),
      ...(culprit?.step === i && { refused: culprit.why }),
      // A second stage that leads where it should needs no more than its answer.
      ...(step.below &&
        (full || step.below.output === undefined) && {
          children: [walkNode(step.below, full)],
        }),
    }
  })
  const whole = culprit?.step === -1 ? { refused: culprit.why } : {}
  const ends: ExplainedNode[] = w.output === undefined ? [] : [{ text: granted(w) }]
  return {
    text: `${w.format}: ${hex(w.input)}, tables at ${hex(w.root)}`,
    ...whole,
    children: [...steps, ...ends],
  }
}

const throughSecond = ({ below, at, physical }: WalkStep): string =>
  below && physical !== undefined && physical !== at ? ` (at ${hex(physical)})` : ''

/** The entry, and the bit in it, that ended a walk; step -1 for the address itself. */
export function culpritOf(w: StageWalk): { readonly step: number; readonly why: string } {
  const last = w.steps.length - 1
  const step = w.steps[last]
  const at = (i: number, why: string) => ({ step: i, why })
  const lacking = (flags: readonly string[], why: string) => {
    const i = w.steps.findIndex(s => !flags.some(f => s.flags.includes(f)))
    return at(i < 0 ? last : i, why)
  }
  const having = (flag: string, why: string) => {
    const i = w.steps.findIndex(s => s.flags.includes(flag))
    return at(i < 0 ? last : i, why)
  }
  const x86 = w.stage === 1 && !w.format.startsWith('VMSA')
  const vmsa = w.format.startsWith('VMSA')
  switch (w.failure) {
    case 'notPresent':
      if (!step) return at(-1, 'the address is outside the range that the tables translate')
      return at(
        last,
        vmsa
          ? notValid(step)
          : x86
            ? 'P (bit 0) is 0: not present'
            : 'R and W (bits 1:0) are 0: not present',
      )
    case 'reserved':
      return at(last, `${reservedBits(step)} must be zero`)
    case 'write':
      if (vmsa)
        return at(
          last,
          w.stage === 2
            ? 'S2AP_W (bit 7) is 0: no writes'
            : 'AP2 (bit 7), or APTable of a table above, makes it read-only',
        )
      return x86
        ? lacking(['RW'], 'RW (bit 1) is 0: no writes')
        : lacking(['W'], 'W (bit 1) is 0: no writes')
    case 'read':
      if (vmsa)
        return at(last, w.stage === 2 ? 'S2AP_R (bit 6) is 0: no reads' : failureMeaning(w.failure))
      return lacking(['R'], 'R (bit 0) is 0: no reads')
    case 'user':
      return vmsa
        ? at(last, 'AP1 (bit 6) is 0, or APTable forbids it: not for unprivileged access')
        : lacking(['US'], 'US (bit 2) is 0: for supervisors only')
    case 'execute':
      if (vmsa) return at(last, 'execute-never')
      return x86
        ? having('XD', 'XD (bit 63) is 1: no execution')
        : lacking(['X'], 'X (bit 2) is 0: no execution')
    case 'smep':
      return lacking([], 'US (bit 2) is 1, and SMEP keeps supervisors from executing user pages')
    case 'unreadable':
      return at(last, 'there is no memory at this address')
    case 'accessFlag':
      return at(last, 'AF (bit 10) is 0, and the walker does not set it')
    case 'addressSize':
      return step
        ? at(last, `${reservedBits(step)} lead beyond the output size`)
        : at(-1, 'the address is wider than the tables translate')
    default:
      return at(last, failureMeaning(w.failure))
  }
}

const notValid = (step: WalkStep): string =>
  step.raw !== undefined && (step.raw & 1n) === 0n
    ? 'valid (bit 0) is 0'
    : 'bits 1:0 make it a block or table where this level has none'

function reservedBits(step: WalkStep | undefined): string {
  const bits = bitsOf(step?.reserved ?? 0n)
  return runs(bits).join(', ') || 'the address bits'
}
