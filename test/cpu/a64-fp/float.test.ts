// The reference arithmetic against what an x86-64 processor answered. UPDATE_GOLDEN=1 asks one anew where the host is
// one and has gcc. Left out are the places where the architectures differ: which NaN, what an integer out of range
// becomes, and underflow of results that round up to the smallest normal number (x86 looks after rounding).

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { add, div, mul, mulAdd, sqrt, sub } from '../../../src/cpu/a64/fp/float-arithmetic.js'
import { convert, fromFixed, toFixed } from '../../../src/cpu/a64/fp/float-convert.js'
import {
  DOUBLE,
  type Format,
  FPSR,
  FpEnvironment,
  isNaNPattern,
  SINGLE,
} from '../../../src/cpu/a64/fp/float-format.js'

const golden = new URL('../../golden/a64/float-x86.txt', import.meta.url)

if (process.env['UPDATE_GOLDEN'] && process.arch === 'x64') {
  const folder = mkdtempSync(join(tmpdir(), 'float-'))
  const program = join(folder, 'float')
  const source = fileURLToPath(new URL('./native/float.c', import.meta.url))
  execFileSync('gcc', ['-O1', '-o', program, source], { stdio: 'pipe' })
  const text = execFileSync(program, ['100', '1'], { encoding: 'utf8' })
  writeFileSync(golden, `# native/float.c 100 1, on an x86-64 processor with FMA\n${text}`)
  rmSync(folder, { recursive: true })
}

const MODES: Readonly<Record<string, number>> = { nearest: 0, plus: 1, minus: 2, zero: 3 }

type Operation = (f: Format, v: readonly bigint[], env: FpEnvironment) => bigint

const OPERATIONS: Readonly<Record<string, Operation>> = {
  add: (f, [x, y], env) => add(f, x!, y!, env),
  sub: (f, [x, y], env) => sub(f, x!, y!, env),
  mul: (f, [x, y], env) => mul(f, x!, y!, env),
  div: (f, [x, y], env) => div(f, x!, y!, env),
  sqrt: (f, [x], env) => sqrt(f, x!, env),
  fma: (f, [x, y, z], env) => mulAdd(f, z!, x!, y!, env),
  narrow: (_, [x], env) => convert(SINGLE, DOUBLE, x!, env),
  widen: (_, [x], env) => convert(DOUBLE, SINGLE, x!, env),
  toint: (_, [x], env) => toFixed(DOUBLE, x!, 64, 0, false, env, env.rounding),
  fromint: (f, [x], env) => fromFixed(f, BigInt.asIntN(64, x!), 0, env),
}

const { IOC, DZC, OFC, UFC, IXC } = FPSR
const letters = (flags: number): string =>
  [
    [IOC, 'I'] as const,
    [DZC, 'Z'] as const,
    [OFC, 'O'] as const,
    [UFC, 'U'] as const,
    [IXC, 'X'] as const,
  ]
    .filter(([bit]) => flags & bit)
    .map(([, letter]) => letter)
    .join('') || '-'

/** Why a line says nothing about A64; undefined when it does. */
function differs(
  name: string,
  f: Format,
  operands: readonly bigint[],
  result: bigint,
  theirs: string,
) {
  if (name === 'toint' && theirs.includes('I')) return 'out of range'
  if (isNaNPattern(f, result) && name !== 'toint') return 'which NaN'
  const smallest = 1n << BigInt(f.fraction)
  if ((result & (f.signBit - 1n)) === smallest && theirs !== '-') return 'underflow'
  return operands.length > 3 ? 'never' : undefined
}

const lines = readFileSync(golden, 'utf8').trimEnd().split('\n').slice(1)

it(`rounds and raises exceptions as a processor does in ${lines.length} recorded operations`, () => {
  const wrong: string[] = []
  let compared = 0
  for (const line of lines) {
    const [title, mode, ...rest] = line.split(' ')
    const [name, precision] = title!.split('.') as [string, string | undefined]
    const f = name === 'narrow' || precision === 's' ? SINGLE : DOUBLE
    const values = rest.filter(w => /^[0-9a-f]{8,}$/.test(w)).map(w => BigInt(`0x${w}`))
    const expected = values.pop()!
    const theirs = rest.at(-1)!
    const env = new FpEnvironment(MODES[mode!]! << 22)
    const result = OPERATIONS[name]!(f, values, env)
    if (!differs(name, f, values, expected, theirs)) {
      compared++
      if (result !== expected || letters(env.flags) !== theirs)
        wrong.push(`${line}: ${result.toString(16)} ${letters(env.flags)}`)
    } else if (name !== 'toint' && isNaNPattern(f, expected) !== isNaNPattern(f, result))
      wrong.push(`${line}: ${result.toString(16)}`)
    else if (name === 'toint' && !letters(env.flags).includes('I')) wrong.push(line)
  }
  expect(wrong).toEqual([])
  expect(compared).toBeGreaterThan(1400)
})
