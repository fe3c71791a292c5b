// The disassembler against binutils: a committed reading everywhere, a fresh one where objdump is installed.
// UPDATE_GOLDEN=1 writes the committed one anew.

import { readFileSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { disassemble } from '../../../src/cpu/x86/disassemble.js'
import { ENCODINGS } from '../../../src/cpu/x86/encodings.js'
import { isBeyondOurText, objdump } from './native/objdump.js'
import { drawCase } from './support/generate.js'
import { Random } from './support/random.js'

const golden = new URL('../../golden/x86/disassembly.txt', import.meta.url)
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

/** Instructions of every encoding with what binutils calls them. */
function fresh(seed: number, count: number): { code: Uint8Array; text: string }[] | undefined {
  const random = new Random(seed)
  const codes: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const c = drawCase(ENCODINGS[i % ENCODINGS.length]!, random)
    if (c) codes.push(c.code)
  }
  const texts = objdump(codes)
  if (!texts) return undefined
  return codes
    .map((code, i) => ({ code, text: texts[i]! }))
    .filter(({ text }) => text !== '' && !isBeyondOurText(text))
}

if (process.env['UPDATE_GOLDEN']) {
  const lines = fresh(1, 2 * ENCODINGS.length)?.map(({ code, text }) => {
    const { length } = disassemble(code)
    return `${hex(code.subarray(0, length))}\t${text}`
  })
  if (lines) writeFileSync(golden, `${lines.join('\n')}\n`)
}

const kept = readFileSync(golden, 'utf8').trimEnd().split('\n')

it(`spells ${kept.length} instructions of all encodings as binutils did`, () => {
  const ours = kept.map(line => {
    const code = Buffer.from(line.split('\t')[0]!, 'hex')
    const { text, length } = disassemble(code)
    return `${hex(code.subarray(0, length))}\t${text}`
  })
  expect(ours).toEqual(kept)
})

it('spells fresh random instructions, seed 2, as the installed objdump does', () => {
  const pairs = fresh(2, 3000) ?? []
  const ours = pairs.map(({ code }) => `${hex(code)} ${disassemble(code).text}`)
  expect(ours).toEqual(pairs.map(({ code, text }) => `${hex(code)} ${text}`))
})
