// What some instructions mean, as operations a person can read: test/golden/a64/operations.txt. UPDATE_GOLDEN=1 writes
// it anew.

import { readFileSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { compile, compileBlock } from '../../../src/cpu/a64/code-cache.js'
import { disassemble } from '../../../src/cpu/a64/disassemble.js'
import { SLOT } from '../../../src/cpu/a64/registers.js'
import { printOps } from '../../../src/cpu/ir/print.js'

const golden = new URL('../../golden/a64/operations.txt', import.meta.url)

const NAMES = new Map(
  Object.entries(SLOT).map(([name, slot]) => [slot as number, name.toLowerCase()]),
)

function nameOf(slot: number): string {
  if (slot >= SLOT.TEMP) return `t${slot - SLOT.TEMP}`
  if (slot >= SLOT.V) return `v${(slot - SLOT.V) >> 1}.${slot & 1 ? 'high' : 'low'}`
  return NAMES.get(slot) ?? `scratch${slot - SLOT.SCRATCH}`
}

// biome-ignore format: table
const WORDS = [
  0x91000421, 0x8b020c20, 0xeb02003f, 0x0b22cc20, 0x9a020020, 0x92401c20, 0xea02003f, 0xd2800020, 0xf2a00020, 0x10000040,
  0xd3441c20, 0xb3701c20, 0x93c20820, 0xfa421040, 0x9a821420, 0xdac01020, 0x9ac20820, 0x9b020c20, 0x9b427c20, 0x54000040,
  0xb4000040, 0x37280040, 0xd63f0040, 0xd65f03c0, 0xd4000001, 0xf9400420, 0x38401420, 0x3980041f, 0xf81f0ffe, 0xa9bf7bfd,
  0x58000040, 0xc85f7c20, 0xc8027c20, 0xc89ffc20, 0xf8220020, 0x88e27c20, 0x4822fc20, 0xd53bd040, 0xd51b4200, 0xd5033fdf,
  0xd503201f, 0x00000000,
] as const

/** A loop, to see how a block keeps PC: `add`, `adr`, `mrs`, `adr`, `b.ne`. */
const LOOP = Int32Array.of(0x91000421, 0x10000042, 0xd53bd043, 0x10000044, 0x54ffff81)

const indent = (text: string) => text.replace(/^/gm, '  ')

function pages(): string {
  const single = WORDS.map(w => `${disassemble(w)}\n${indent(printOps(compile(w).ops, nameOf))}\n`)
  const names = [...LOOP].map((w, i) => disassemble(w, BigInt(4 * i))).join('; ')
  const block = printOps(compileBlock(0, LOOP).ops, nameOf)
  return `${[...single, `${names}\n${indent(block)}\n`].join('\n')}`
}

if (process.env['UPDATE_GOLDEN']) writeFileSync(golden, pages())

it(`shows the operations of ${WORDS.length} instructions and of a block`, () => {
  expect(pages()).toBe(readFileSync(golden, 'utf8'))
})
