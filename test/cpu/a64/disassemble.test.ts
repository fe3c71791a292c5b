// The disassembler against binutils: a committed reading everywhere, a fresh one where a cross objdump is installed.
// UPDATE_GOLDEN=1 writes the committed one anew; its first line says who answered.

import { readFileSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { drawFields } from '../../../diff/a64/generate.js'
import { BASE, objdump, objdumpVersion } from '../../../diff/a64/objdump.js'
import { Draw } from '../../../diff/random.js'
import { compile } from '../../../src/cpu/a64/code-cache.js'
import { decode, ENCODINGS, encode } from '../../../src/cpu/a64/decode.js'
import { disassemble } from '../../../src/cpu/a64/disassemble.js'
import { NAMED_SYSTEM_KEYS } from '../../../src/cpu/a64/system-text.js'

const golden = new URL('../../golden/a64/disassembly.txt', import.meta.url)

/** Words of every row, `each` a row; those that move system registers or run SYS have known keys. */
function corpus(seed: number, each: number): number[] {
  const words: number[] = []
  ENCODINGS.forEach((e, index) => {
    const draw = new Draw(seed, index)
    for (let i = 0; i < each; i++) {
      const f = drawFields(e, draw)
      if (!f) throw new Error(`${e.name} has no allocated fields`)
      let word = encode(e, f, -1)
      if (e.group === 'system' && e.name !== 'MSR (immediate)') {
        const keys = NAMED_SYSTEM_KEYS.filter(key => (e.name === 'SYS') === key >> 14 < 2)
        if (e.name !== 'SYSL') word = (word & ~0x1f_ffe0 & ~(1 << 19)) | (draw.pick(keys) << 5)
        if (decode(word)?.encoding !== e) throw new Error(`${e.name}: the key does not fit`)
      }
      words.push(word)
    }
  })
  return words
}

/** Binutils refuses what the architecture leaves open (LDPSW of twice one register); we execute it. */
const isRefused = (text: string) => text.endsWith('; undefined')

const version = objdumpVersion()

if (process.env['UPDATE_GOLDEN'] && version) {
  const words = corpus(1, 12)
  const all = objdump(words)
  const known = words.filter((_, i) => !isRefused(all[i]!))
  const texts = objdump(known)
  const lines = known.map((w, i) => `${(w >>> 0).toString(16).padStart(8, '0')}\t${texts[i]}`)
  writeFileSync(golden, `# ${version}\n${lines.join('\n')}\n`)
}

const kept = readFileSync(golden, 'utf8').trimEnd().split('\n').slice(1)

it(`spells ${kept.length} instructions of every row as binutils did`, () => {
  const ours = kept.map((line, i) => {
    const word = line.slice(0, 8)
    return `${word}\t${disassemble(Number.parseInt(word, 16), BASE + BigInt(4 * i))}`
  })
  expect(ours).toEqual(kept)
})

it('has a spelling of every row in the committed reading', () => {
  const seen = new Set(
    kept.map(line => decode(Number.parseInt(line.slice(0, 8), 16))?.encoding.name),
  )
  expect(ENCODINGS.map(e => e.name).filter(name => !seen.has(name))).toEqual([])
})

it('spells fresh random instructions, seed 2, as the installed objdump does', () => {
  if (!version) return
  const words = corpus(2, 4)
  const theirs = objdump(words)
  const ours = words.map((w, i) =>
    isRefused(theirs[i]!) ? theirs[i] : disassemble(w, BASE + BigInt(4 * i)),
  )
  expect(ours).toEqual(theirs)
})

it('spells words that no row takes as data', () => {
  expect(disassemble(0x0001_0000 | 0)).toBe('.inst 0x00010000')
  expect(disassemble(-1)).toBe('.inst 0xffffffff')
})

it('spells and compiles any word, 15,000 of seed 3', () => {
  const draw = new Draw(3, 0)
  const words = Array.from({ length: 15_000 }, () => draw.word())
  const wrong = words.filter(
    w => /undefined|NaN/.test(disassemble(w, draw.bits(64))) || compile(w).ops.length > 200,
  )
  expect(wrong).toEqual([])
})
