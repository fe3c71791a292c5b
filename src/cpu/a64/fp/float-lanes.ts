// Runs floating-point operations over lanes of the state: the host's doubles when their answer is certain
// (float-fast.ts), else the reference arithmetic. Exceptions accumulate in FPSR.

import type { Routine } from '../../ir/ops.js'
import { type A64Machine, routine } from '../machine.js'
import { type A64State, SLOT } from '../registers.js'
import * as arithmetic from './float-arithmetic.js'
import { isEqual, isGreater, isGreaterOrEqual } from './float-compare.js'
import { fromFixed, roundInt, toFixed } from './float-convert.js'
import { recipEstimate, recipExponent, rsqrtEstimate } from './float-estimate.js'
import * as fast from './float-fast.js'
import {
  DOUBLE,
  type Format,
  FPCR,
  FPSR,
  FpEnvironment,
  negate,
  ROUNDING,
  type Rounding,
  SINGLE,
} from './float-format.js'

/** log2 of the size of a single or a double. */
export type FloatSize = 2 | 3

/**
 * One operation of up to three operands (the accumulator last), by its reference, with the short cuts it has.
 * Operands that it does not have may be anything.
 */
export interface FloatOp {
  readonly name: string
  readonly reference: (f: Format, x: bigint, y: bigint, d: bigint, env: FpEnvironment) => bigint
  readonly single?: fast.Fast3
  readonly double?: fast.Fast3
  /** For comparisons, whose result is all ones or zero: the answer for numbers. */
  readonly test?: (x: number, y: number) => boolean
}

/** The format of a size. */
export const formatOf = (size: FloatSize): Format => (size === 3 ? DOUBLE : SINGLE)

const environment = new FpEnvironment()

/** The reference environment, set up from FPCR. */
export function enterFloat(s: A64State): FpEnvironment {
  environment.control = s.r32[2 * SLOT.FPCR]!
  environment.flags = 0
  return environment
}

/** Accumulates what was raised. */
export function leaveFloat(s: A64State): void {
  s.r32[2 * SLOT.FPSR]! |= environment.flags
}

/** From here on results are normal, however they were rounded. */
const NORMAL = { 2: 2 ** -125, 3: 2 ** -1021 } as const

/** Whether a number is denormal, or near enough to ask the reference when FPCR.FZ is set. */
const isSmall = (size: FloatSize, v: number): boolean =>
  v !== 0 && v < NORMAL[size] && v > -NORMAL[size]

/** Whether the host may compute with these: FPCR asks for round-to-nearest, and has nothing to flush among them. */
export function isHostLike(s: A64State, size: FloatSize, x: number, y = 0, d = 0): boolean {
  const control = s.r32[2 * SLOT.FPCR]! & (FPCR.FZ | FPCR.RMODE)
  if (control === 0) return true
  return control === FPCR.FZ && !isSmall(size, x) && !isSmall(size, y) && !isSmall(size, d)
}

/** Whether a result of the host is one: neither unsure (NaN) nor to be flushed. */
export const isResult = (s: A64State, size: FloatSize, v: number): boolean =>
  !Number.isNaN(v) && !(isSmall(size, v) && (s.r32[2 * SLOT.FPCR]! & FPCR.FZ) !== 0)

/** Whether FPSR.IXC is set, so that nobody needs to know whether a result is exact. */
export const isInexactKnown = (s: A64State): boolean => (s.r32[2 * SLOT.FPSR]! & FPSR.IXC) !== 0

/** One lane of an operation: elements x, y and d of the views of that size; the result replaces d or goes to r. */
function lane(
  s: A64State,
  op: FloatOp,
  size: FloatSize,
  short: fast.Fast3 | undefined,
  r: number,
  x: number,
  y: number,
  d: number,
): void {
  const v = s.lanes
  const f = size === 3 ? v.f64 : v.f32
  const left = f[x]!
  const right = f[y]!
  if (isHostLike(s, size, left, right, f[d]!)) {
    if (short) {
      const result = short(left, right, f[d]!, isInexactKnown(s))
      if (isResult(s, size, result)) {
        f[r] = result
        return
      }
    } else if (op.test && !Number.isNaN(left) && !Number.isNaN(right)) {
      const ones = op.test(left, right) ? 0xffff_ffff : 0
      if (size === 2) v.u32[r] = ones
      else v.u32[2 * r] = v.u32[2 * r + 1] = ones
      return
    }
  }
  const env = enterFloat(s)
  const bits = op.reference(formatOf(size), v.bits(size, x), v.bits(size, y), v.bits(size, d), env)
  v.setBits(size, r, bits)
  leaveFloat(s)
}

const built = new Map<string, Routine<A64Machine>>()

function memo(key: string, make: () => Routine<A64Machine>): Routine<A64Machine> {
  let r = built.get(key)
  if (!r) {
    r = make()
    built.set(key, r)
  }
  return r
}

/** The operation on `imm` lanes of a and b, the accumulator being d. */
export function floatRoutine(op: FloatOp, size: FloatSize): Routine<A64Machine> {
  return memo(`${op.name}.${size}`, () => {
    const short = size === 3 ? op.double : op.single
    return routine(`${op.name}.${size}`, (m, { d, a, b, imm: count }) => {
      const v = m.state.lanes
      const r = v.index(size, d)
      const x = v.index(size, a)
      const y = v.index(size, b)
      for (let i = 0; i < count; i++) lane(m.state, op, size, short, r + i, x + i, y + i, r + i)
      v.clearAbove(d, count << size)
    })
  })
}

/** The operation on one lane of a, b and, as accumulator, slot `imm`. */
export function floatRoutine3(op: FloatOp, size: FloatSize): Routine<A64Machine> {
  return memo(`${op.name}.3.${size}`, () => {
    const short = size === 3 ? op.double : op.single
    return routine(`${op.name}.${size}`, (m, { d, a, b, imm: c }) => {
      const v = m.state.lanes
      const at = (slot: number) => v.index(size, slot)
      lane(m.state, op, size, short, at(d), at(a), at(b), at(c))
      v.clearAbove(d, 1 << size)
    })
  })
}

/** The operation on pairs of lanes, of a and then of b, giving `imm` lanes. */
export function floatPairRoutine(op: FloatOp, size: FloatSize): Routine<A64Machine> {
  return memo(`${op.name}.pairs.${size}`, () => {
    const short = size === 3 ? op.double : op.single
    return routine(`${op.name}.pairs.${size}`, (m, { d, a, b, imm: count }) => {
      const v = m.state.lanes
      const t = v.index(size, SLOT.SCRATCH)
      const half = count > 1 ? count >> 1 : 1
      for (let i = 0; i < count; i++) {
        const x = i < half ? v.index(size, a) + 2 * i : v.index(size, b) + 2 * (i - half)
        lane(m.state, op, size, short, t + i, x, x + 1, t + i)
      }
      for (let i = 0; i < count; i++) v.setBits(size, v.index(size, d) + i, v.bits(size, t + i))
      v.clearAbove(d, count << size)
    })
  })
}

/** Four singles of a into one: pairs first, as the architecture's Reduce does. */
export function floatAcrossRoutine(op: FloatOp): Routine<A64Machine> {
  return memo(`${op.name}.across`, () =>
    routine(`${op.name}.across`, (m, { d, a }) => {
      const v = m.state.lanes
      const t = v.index(2, SLOT.SCRATCH)
      const x = v.index(2, a)
      const short = op.single
      lane(m.state, op, 2, short, t, x, x + 1, t)
      lane(m.state, op, 2, short, t + 1, x + 2, x + 3, t + 1)
      lane(m.state, op, 2, short, v.index(2, d), t, t + 1, t)
      v.clearAbove(d, 4)
    }),
  )
}

// The operations.

type Reference2 = (f: Format, x: bigint, y: bigint, env: FpEnvironment) => bigint
type Reference1 = (f: Format, x: bigint, env: FpEnvironment) => bigint

const two = (
  name: string,
  reference: Reference2,
  single?: fast.Fast2,
  double?: fast.Fast2,
): FloatOp => ({
  name,
  reference: (f, x, y, _, env) => reference(f, x, y, env),
  ...(single && { single: (x, y, _, inexact) => single(x, y, inexact) }),
  ...(double && { double: (x, y, _, inexact) => double(x, y, inexact) }),
})

const one = (
  name: string,
  reference: Reference1,
  single?: fast.Fast1,
  double?: fast.Fast1,
): FloatOp => ({
  name,
  reference: (f, x, _y, _d, env) => reference(f, x, env),
  ...(single && { single: (x, _y, _d, inexact) => single(x, inexact) }),
  ...(double && { double: (x, _y, _d, inexact) => double(x, inexact) }),
})

export const FADD = two('fadd', arithmetic.add, fast.addSingle, fast.addDouble)
export const FSUB = two('fsub', arithmetic.sub, fast.subSingle, fast.subDouble)
export const FMUL = two('fmul', arithmetic.mul, fast.mulSingle, fast.mulDouble)
export const FDIV = two('fdiv', arithmetic.div, fast.divSingle, fast.divDouble)
export const FMULX = two('fmulx', arithmetic.mulExtended, fast.mulSingle, fast.mulDouble)
export const FNMUL: FloatOp = {
  name: 'fnmul',
  reference: (f, x, y, _, env) => negate(f, arithmetic.mul(f, x, y, env)),
  single: (x, y, _, inexact) => -fast.mulSingle(x, y, inexact),
  double: (x, y, _, inexact) => -fast.mulDouble(x, y, inexact),
}
export const FMAX = two('fmax', arithmetic.max, fast.larger, fast.larger)
export const FMIN = two('fmin', arithmetic.min, fast.smaller, fast.smaller)
export const FMAXNM = two('fmaxnm', arithmetic.maxNumber, fast.larger, fast.larger)
export const FMINNM = two('fminnm', arithmetic.minNumber, fast.smaller, fast.smaller)
export const FRECPS = two('frecps', arithmetic.recipStep)
export const FRSQRTS = two('frsqrts', arithmetic.rsqrtStep)
export const FSQRT = one('fsqrt', arithmetic.sqrt, fast.sqrtSingle, fast.sqrtDouble)
export const FRECPE = one('frecpe', recipEstimate)
export const FRSQRTE = one('frsqrte', rsqrtEstimate)
export const FRECPX = one('frecpx', recipExponent)
export const FABD: FloatOp = {
  name: 'fabd',
  reference: (f, x, y, _, env) => arithmetic.sub(f, x, y, env) & (f.signBit - 1n),
  single: (x, y, _, inexact) => Math.abs(fast.subSingle(x, y, inexact)),
  double: (x, y, _, inexact) => Math.abs(fast.subDouble(x, y, inexact)),
}

/** The fused family: d + x * y with the product, and the sum, negated or not. */
function fused(name: string, negatedProduct: boolean, negatedAddend: boolean): FloatOp {
  const p = negatedProduct ? -1 : 1
  const z = negatedAddend ? -1 : 1
  return {
    name,
    reference: (f, x, y, d, env) =>
      arithmetic.mulAdd(
        f,
        negatedAddend ? negate(f, d) : d,
        negatedProduct ? negate(f, x) : x,
        y,
        env,
      ),
    single: (x, y, d, inexact) => fast.mulAddSingle(p * x, y, z * d, inexact),
    double: (x, y, d, inexact) => fast.mulAddDouble(p * x, y, z * d, inexact),
  }
}
export const FMADD = fused('fmadd', false, false)
export const FMSUB = fused('fmsub', true, false)
export const FNMADD = fused('fnmadd', true, true)
export const FNMSUB = fused('fnmsub', false, true)

const ones = (f: Format, yes: boolean): bigint => (yes ? 2n * f.signBit - 1n : 0n)
const magnitude = (f: Format, v: bigint): bigint => v & (f.signBit - 1n)

type Test = (x: number, y: number) => boolean

/** Comparisons answer with all ones. */
const comparison = (name: string, reference: Reference2, test: Test): FloatOp => ({
  ...two(name, reference),
  test,
})
const { abs } = Math

export const FCMEQ = comparison(
  'fcmeq',
  (f, x, y, env) => ones(f, isEqual(f, x, y, env)),
  (x, y) => x === y,
)
export const FCMGE = comparison(
  'fcmge',
  (f, x, y, env) => ones(f, isGreaterOrEqual(f, x, y, env)),
  (x, y) => x >= y,
)
export const FCMGT = comparison(
  'fcmgt',
  (f, x, y, env) => ones(f, isGreater(f, x, y, env)),
  (x, y) => x > y,
)
/** y is zero: the operands change places. */
export const FCMLE = comparison(
  'fcmle',
  (f, x, y, env) => ones(f, isGreaterOrEqual(f, y, x, env)),
  (x, y) => x <= y,
)
export const FCMLT = comparison(
  'fcmlt',
  (f, x, y, env) => ones(f, isGreater(f, y, x, env)),
  (x, y) => x < y,
)
export const FACGE = comparison(
  'facge',
  (f, x, y, env) => ones(f, isGreaterOrEqual(f, magnitude(f, x), magnitude(f, y), env)),
  (x, y) => abs(x) >= abs(y),
)
export const FACGT = comparison(
  'facgt',
  (f, x, y, env) => ones(f, isGreater(f, magnitude(f, x), magnitude(f, y), env)),
  (x, y) => abs(x) > abs(y),
)

/** FRINT*: `mode` undefined is FPCR's; the short cuts are those of round-to-nearest then. */
const roundsTo = (name: string, mode: Rounding | undefined, short: fast.Fast1): FloatOp =>
  one(name, (f, x, env) => roundInt(f, x, env, mode ?? env.rounding, false), short, short)

export const FRINTN = roundsTo('frintn', ROUNDING.TIES_EVEN, fast.nearest)
export const FRINTP = roundsTo('frintp', ROUNDING.PLUS, Math.ceil)
export const FRINTM = roundsTo('frintm', ROUNDING.MINUS, Math.floor)
export const FRINTZ = roundsTo('frintz', ROUNDING.ZERO, Math.trunc)
export const FRINTA = roundsTo('frinta', ROUNDING.TIES_AWAY, fast.nearestAway)
export const FRINTI = roundsTo('frinti', undefined, fast.nearest)
/** FRINTX raises IXC when the value changes. */
export const FRINTX = one(
  'frintx',
  (f, x, env) => roundInt(f, x, env, env.rounding, true),
  fast.nearestExact,
  fast.nearestExact,
)

/** FCVT* into lanes of the same size; y is the number of fraction bits. */
export const toFixedOp = (name: string, unsigned: boolean, mode: Rounding): FloatOp =>
  two(name, (f, x, y, env) => toFixed(f, x, f.bits, Number(y), unsigned, env, mode))

/** From integer lanes of the same size; y is the number of fraction bits. */
export const SCVTF = two('scvtf', (f, x, y, env) =>
  fromFixed(f, BigInt.asIntN(f.bits, x), Number(y), env),
)
export const UCVTF = two('ucvtf', (f, x, y, env) => fromFixed(f, x, Number(y), env))
