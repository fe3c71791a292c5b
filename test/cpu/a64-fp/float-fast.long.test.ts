// The short cuts on the host's doubles: what they answer is what the reference answers, and they answer only when no
// exception but a known IXC is due. Operands are near each other, near the limits, and special.

import { expect, it } from 'vitest'
import { add, div, mul, mulAdd, sqrt, sub } from '../../../src/cpu/a64/fp/float-arithmetic.js'
import { convert } from '../../../src/cpu/a64/fp/float-convert.js'
import * as fast from '../../../src/cpu/a64/fp/float-fast.js'
import {
  DOUBLE,
  type Format,
  FPSR,
  FpEnvironment,
  SINGLE,
} from '../../../src/cpu/a64/fp/float-format.js'
import { often } from '../../support/long.js'
import { xorshift } from '../../support/random.js'

const SEED = 64
const COUNT = often(2000, 100_000)

const bytes = new DataView(new ArrayBuffer(8))

/** The pattern of a number in a format that holds it. */
function bitsOf(f: Format, v: number): bigint {
  if (f.bits === 64) {
    bytes.setFloat64(0, v)
    return bytes.getBigUint64(0)
  }
  bytes.setFloat32(0, v)
  return BigInt(bytes.getUint32(0))
}

const SPECIAL = [
  0,
  -0,
  1,
  -1,
  0.5,
  2,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
  3,
]

/** Draws operands of a format. */
function drawer(f: Format, random: (limit: number) => number): () => number {
  const range = f.maxExponent - f.minExponent
  return () => {
    const kind = random(8)
    if (kind === 0) return SPECIAL[random(SPECIAL.length)]!
    const fraction =
      1 + (random(2) ? random(2 ** 30) / 2 ** 30 + random(2 ** 22) / 2 ** 52 : random(16) / 16)
    const exponent =
      kind === 1
        ? f.minExponent - f.fraction + random(range + f.fraction)
        : kind === 2
          ? f.minExponent - f.fraction + random(2 * f.fraction)
          : kind === 3
            ? f.maxExponent - random(6)
            : random(12) - 6
    const v =
      (random(2) ? -1 : 1) *
      fraction *
      2 ** Math.max(exponent, -1022) *
      2 ** Math.min(0, exponent + 1022)
    return f.bits === 32 ? Math.fround(v) : v
  }
}

type Fast = (x: number, y: number, z: number, inexact: boolean) => number
type Reference = (f: Format, x: bigint, y: bigint, z: bigint, env: FpEnvironment) => bigint

const reference: Readonly<Record<string, Reference>> = {
  add: (f, x, y, _, env) => add(f, x, y, env),
  sub: (f, x, y, _, env) => sub(f, x, y, env),
  mul: (f, x, y, _, env) => mul(f, x, y, env),
  div: (f, x, y, _, env) => div(f, x, y, env),
  sqrt: (f, x, _y, _z, env) => sqrt(f, x, env),
  mulAdd: (f, x, y, z, env) => mulAdd(f, z, x, y, env),
}
const two =
  (f: fast.Fast2): Fast =>
  (x, y, _, inexact) =>
    f(x, y, inexact)
const one =
  (f: fast.Fast1): Fast =>
  (x, _y, _z, inexact) =>
    f(x, inexact)

// biome-ignore format: table
const CASES: readonly (readonly [string, string, Format, Fast])[] = [
  ['add', 'doubles', DOUBLE, two(fast.addDouble)],   ['add', 'singles', SINGLE, two(fast.addSingle)],
  ['sub', 'doubles', DOUBLE, two(fast.subDouble)],   ['sub', 'singles', SINGLE, two(fast.subSingle)],
  ['mul', 'doubles', DOUBLE, two(fast.mulDouble)],   ['mul', 'singles', SINGLE, two(fast.mulSingle)],
  ['div', 'doubles', DOUBLE, two(fast.divDouble)],   ['div', 'singles', SINGLE, two(fast.divSingle)],
  ['sqrt', 'doubles', DOUBLE, one(fast.sqrtDouble)], ['sqrt', 'singles', SINGLE, one(fast.sqrtSingle)],
  ['mulAdd', 'doubles', DOUBLE, fast.mulAddDouble],  ['mulAdd', 'singles', SINGLE, fast.mulAddSingle],
]

it.each(CASES)(
  `%s of %s answers as the reference does, or not at all (seed ${SEED})`,
  (name, _, f, short) => {
    const random = xorshift(SEED)
    const draw = drawer(f, random)
    const wrong: string[] = []
    let answered = 0
    for (let i = 0; i < COUNT; i++) {
      const [x, y] = [draw(), draw()]
      // Half of the addends nearly cancel the product.
      const near = f.bits === 32 ? Math.fround(-x * y) : -x * y * (random(2) ? 1 : 1 + 2 ** -50)
      const z = random(2) ? draw() : near
      for (const inexact of [false, true]) {
        const result = short(x, y, z, inexact)
        if (Number.isNaN(result)) continue
        answered++
        const env = new FpEnvironment()
        const right = reference[name]!(f, bitsOf(f, x), bitsOf(f, y), bitsOf(f, z), env)
        const raised = env.flags & ~(inexact ? FPSR.IXC : 0)
        if (bitsOf(f, result) !== right || raised !== 0)
          wrong.push(`${x} ${y} ${z}: ${result}, raised ${raised}`)
      }
    }
    expect(wrong.slice(0, 20)).toEqual([])
    expect(answered).toBeGreaterThan(COUNT / 3)
  },
)

it(`narrows doubles as the reference does, or not at all (seed ${SEED})`, () => {
  const random = xorshift(SEED)
  const draw = drawer(DOUBLE, random)
  const wrong: string[] = []
  let answered = 0
  for (let i = 0; i < COUNT; i++) {
    const x = random(2) ? draw() : Math.fround(draw())
    for (const inexact of [false, true]) {
      const result = fast.narrowDouble(x, inexact)
      if (Number.isNaN(result)) continue
      answered++
      const env = new FpEnvironment()
      const right = convert(SINGLE, DOUBLE, bitsOf(DOUBLE, x), env)
      const raised = env.flags & ~(inexact ? FPSR.IXC : 0)
      if (bitsOf(SINGLE, result) !== right || raised !== 0)
        wrong.push(`${x}: ${result}, raised ${raised}`)
    }
  }
  expect(wrong.slice(0, 20)).toEqual([])
  expect(answered).toBeGreaterThan(COUNT / 3)
})
