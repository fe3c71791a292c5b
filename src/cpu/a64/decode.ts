// From a word to an instruction, by the encoding tables. What no row takes is UNDEFINED.

import type { Encoding, Instruction } from './encodings.js'
import { INTEGER_ENCODINGS } from './encodings-integer.js'
import { MEMORY_ENCODINGS } from './encodings-memory.js'
import { SYSTEM_ENCODINGS } from './encodings-system.js'
import { FP_ENCODINGS } from './fp/encodings.js'

/** Every row of every table. */
export const ENCODINGS: readonly Encoding[] = [
  ...INTEGER_ENCODINGS,
  ...MEMORY_ENCODINGS,
  ...SYSTEM_ENCODINGS,
  ...FP_ENCODINGS,
]

const popcount = (v: number): number => {
  let n = 0
  for (let rest = v; rest !== 0; rest &= rest - 1) n++
  return n
}

/** Rows that words with equal bits 31:21 can match, the most specific first. */
const byTop: (readonly Encoding[])[] = []
const specific = [...ENCODINGS].sort((a, b) => popcount(b.mask) - popcount(a.mask))

function candidates(word: number): readonly Encoding[] {
  const top = word >>> 21
  return (byTop[top] ??= specific.filter(
    e => (((word & ~0x1f_ffff) ^ e.value) & e.mask & ~0x1f_ffff) === 0,
  ))
}

/** Values of a row's fields in a word. */
function fieldsOf(e: Encoding, word: number): Record<string, number> {
  const values: Record<string, number> = {}
  for (const [name, { at, width }] of e.fields) values[name] = (word >>> at) & (2 ** width - 1)
  return values
}

/** Decodes one word; undefined when it is UNDEFINED. */
export function decode(word: number): Instruction | undefined {
  for (const encoding of candidates(word)) {
    if (((word ^ encoding.value) & encoding.mask) !== 0) continue
    const fields = fieldsOf(encoding, word)
    if (encoding.allocated(fields)) return { encoding, fields, word: word | 0 }
  }
  return undefined
}

/** The word of a row with given fields: the opposite of decoding. Ignored bits are `ignored`. */
export function encode(e: Encoding, fields: Readonly<Record<string, number>>, ignored = 0): number {
  let word = e.value
  let named = e.mask
  for (const [name, { at, width }] of e.fields) {
    word |= (fields[name] ?? 0) << at
    named |= (2 ** width - 1) << at
  }
  return word | (ignored & ~named) | 0
}
