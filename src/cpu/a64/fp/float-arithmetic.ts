// Addition to square root and fused multiply-add, minimum and maximum, as the shared functions of DDI 0487 J1.3 define them
// (FPAdd, FPMul, FPDiv, FPSqrt, FPMulAdd, FPMax, ...). Exact arithmetic first, one rounding last.

import {
  defaultNaN,
  type Format,
  FPSR,
  type FpEnvironment,
  infinity,
  invalid,
  isAnyNaN,
  isInfinity,
  isNaNPattern,
  isZero,
  negate,
  ROUNDING,
  type Unpacked,
  unpack,
  zero,
} from './float-format.js'
import { bitLength, round } from './float-round.js'

/** The NaN an operation makes of a NaN operand: quiet, or the default one under FPCR.DN. */
export function processNaN(f: Format, u: Unpacked, v: bigint, env: FpEnvironment): bigint {
  if (u.kind === 'signalling') env.raise(FPSR.IOC)
  return env.defaultNaN ? defaultNaN(f) : v | f.quietBit
}

/** The first signalling NaN of the operands, else the first quiet one; undefined when none is a NaN. */
function processNaNs(
  f: Format,
  env: FpEnvironment,
  ...operands: readonly (readonly [Unpacked, bigint])[]
): bigint | undefined {
  for (const kind of ['signalling', 'quiet'])
    for (const [u, v] of operands) if (u.kind === kind) return processNaN(f, u, v, env)
  return undefined
}

/** Sum of two finite values. */
function sum(f: Format, x: Unpacked, y: Unpacked, env: FpEnvironment): bigint {
  if (isZero(x) && isZero(y)) return zero(f, zeroSum(x.sign, y.sign, env))
  const exponent = Math.min(x.exponent, y.exponent)
  const left = aligned(x, exponent)
  const right = aligned(y, exponent)
  const total = left + right
  if (total === 0n) return zero(f, env.rounding === ROUNDING.MINUS)
  return round(f, total < 0n, total < 0n ? -total : total, exponent, env)
}

/** Sign of the sum of two zeros. */
const zeroSum = (x: boolean, y: boolean, env: FpEnvironment): boolean =>
  x === y ? x : env.rounding === ROUNDING.MINUS

/** The significand, with its sign, in units of 2^exponent. */
function aligned(u: Unpacked, exponent: number): bigint {
  if (u.significand === 0n) return 0n
  const magnitude = u.significand << BigInt(u.exponent - exponent)
  return u.sign ? -magnitude : magnitude
}

/** FPAdd. */
export function add(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  const x = unpack(f, a, env)
  const y = unpack(f, b, env)
  const nan = processNaNs(f, env, [x, a], [y, b])
  if (nan !== undefined) return nan
  if (isInfinity(x) && isInfinity(y) && x.sign !== y.sign) return invalid(f, env)
  if (isInfinity(x)) return infinity(f, x.sign)
  if (isInfinity(y)) return infinity(f, y.sign)
  return sum(f, x, y, env)
}

/** FPSub: the sum with the second operand negated, unless that is a NaN. */
export function sub(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return add(f, a, isNaNPattern(f, b) ? b : negate(f, b), env)
}

/** The product, with the caller's own answer (a magnitude) to infinity times zero. */
function product(
  f: Format,
  a: bigint,
  b: bigint,
  env: FpEnvironment,
  infinityTimesZero: (sign: boolean) => bigint,
): bigint {
  const x = unpack(f, a, env)
  const y = unpack(f, b, env)
  const nan = processNaNs(f, env, [x, a], [y, b])
  if (nan !== undefined) return nan
  const sign = x.sign !== y.sign
  if ((isInfinity(x) && isZero(y)) || (isZero(x) && isInfinity(y))) return infinityTimesZero(sign)
  if (isInfinity(x) || isInfinity(y)) return infinity(f, sign)
  if (isZero(x) || isZero(y)) return zero(f, sign)
  return round(f, sign, x.significand * y.significand, x.exponent + y.exponent, env)
}

/** FPMul. */
export function mul(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return product(f, a, b, env, () => invalid(f, env))
}

/** 2^n of a format. */
const power = (f: Format, n: number): bigint => BigInt(n - f.minExponent + 1) << BigInt(f.fraction)

/** FPMulX: infinity times zero is two. */
export function mulExtended(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return product(f, a, b, env, sign => zero(f, sign) | power(f, 1))
}

/** FPDiv. */
export function div(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  const x = unpack(f, a, env)
  const y = unpack(f, b, env)
  const nan = processNaNs(f, env, [x, a], [y, b])
  if (nan !== undefined) return nan
  const sign = x.sign !== y.sign
  if ((isInfinity(x) && isInfinity(y)) || (isZero(x) && isZero(y))) return invalid(f, env)
  if (isInfinity(x) || isZero(y)) {
    if (!isInfinity(x)) env.raise(FPSR.DZC)
    return infinity(f, sign)
  }
  if (isZero(x) || isInfinity(y)) return zero(f, sign)
  // Three places more than the format has, and a sticky one.
  const places = f.fraction + 3 + Math.max(0, bitLength(y.significand) - bitLength(x.significand))
  const dividend = x.significand << BigInt(places)
  const quotient = dividend / y.significand
  const sticky = quotient * y.significand === dividend ? 0n : 1n
  return round(f, sign, (quotient << 1n) | sticky, x.exponent - y.exponent - places - 1, env)
}

/** Largest integer whose square is at most `v`. */
function squareRoot(v: bigint): bigint {
  let r = 1n << BigInt((bitLength(v) + 1) >> 1)
  for (;;) {
    const next = (r + v / r) >> 1n
    if (next >= r) return r
    r = next
  }
}

/** FPSqrt. */
export function sqrt(f: Format, a: bigint, env: FpEnvironment): bigint {
  const x = unpack(f, a, env)
  if (isAnyNaN(x)) return processNaN(f, x, a, env)
  if (isZero(x)) return zero(f, x.sign)
  if (x.sign) return invalid(f, env)
  if (isInfinity(x)) return infinity(f, false)
  let places = 2 * f.fraction + 6
  if ((x.exponent - places) & 1) places++
  const radicand = x.significand << BigInt(places)
  const root = squareRoot(radicand)
  const sticky = root * root === radicand ? 0n : 1n
  return round(f, false, (root << 1n) | sticky, (x.exponent - places) / 2 - 1, env)
}

/** FPMulAdd: `addend` + a * b, rounded once. */
export function mulAdd(
  f: Format,
  addend: bigint,
  a: bigint,
  b: bigint,
  env: FpEnvironment,
): bigint {
  const z = unpack(f, addend, env)
  const x = unpack(f, a, env)
  const y = unpack(f, b, env)
  const noProduct = (isInfinity(x) && isZero(y)) || (isZero(x) && isInfinity(y))
  // A quiet addend does not hide that the product has no value.
  if (z.kind === 'quiet' && noProduct) return invalid(f, env)
  const nan = processNaNs(f, env, [z, addend], [x, a], [y, b])
  if (nan !== undefined) return nan
  const sign = x.sign !== y.sign
  const infinite = isInfinity(x) || isInfinity(y)
  if (noProduct || (isInfinity(z) && infinite && z.sign !== sign)) return invalid(f, env)
  if (isInfinity(z)) return infinity(f, z.sign)
  if (infinite) return infinity(f, sign)
  return sum(f, z, productOf(x, y), env)
}

/** The exact product of two finite values. */
function productOf(x: Unpacked, y: Unpacked): Unpacked {
  return {
    kind: 'finite',
    sign: x.sign !== y.sign,
    significand: x.significand * y.significand,
    exponent: x.exponent + y.exponent,
  }
}

/** `constant` - a * b, halved `halvings` times and rounded once; infinity times zero gives `otherwise`. */
function step(
  f: Format,
  a: bigint,
  b: bigint,
  env: FpEnvironment,
  constant: bigint,
  halvings: number,
  otherwise: bigint,
): bigint {
  const negated = negate(f, a)
  const x = unpack(f, negated, env)
  const y = unpack(f, b, env)
  const nan = processNaNs(f, env, [x, negated], [y, b])
  if (nan !== undefined) return nan
  const sign = x.sign !== y.sign
  if ((isInfinity(x) && isZero(y)) || (isZero(x) && isInfinity(y))) return otherwise
  if (isInfinity(x) || isInfinity(y)) return infinity(f, sign)
  const p = productOf(x, y)
  const scaled = {
    kind: 'finite' as const,
    sign: false,
    significand: constant,
    exponent: -halvings,
  }
  return sum(f, scaled, { ...p, exponent: p.exponent - halvings }, env)
}

/** FPRecipStepFused: 2 - a * b. */
export function recipStep(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return step(f, a, b, env, 2n, 0, power(f, 1))
}

/** FPRSqrtStepFused: (3 - a * b) / 2. */
export function rsqrtStep(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return step(f, a, b, env, 3n, 1, power(f, 0) | f.quietBit)
}

/** A key that orders finite values and infinities; both zeros have the same. */
function order(f: Format, u: Unpacked): bigint {
  if (isInfinity(u)) return u.sign ? -INFINITE : INFINITE
  return aligned(u, f.minExponent - f.fraction)
}

const INFINITE = 1n << 4096n

/** -1, 0 or 1 as x is less than, equal to or greater than y; neither is a NaN. */
export function compareUnpacked(f: Format, x: Unpacked, y: Unpacked): -1 | 0 | 1 {
  const left = order(f, x)
  const right = order(f, y)
  return left < right ? -1 : left === right ? 0 : 1
}

/** The operand itself, or the zero it was taken for. */
const chosen = (f: Format, u: Unpacked, v: bigint): bigint => (isZero(u) ? zero(f, u.sign) : v)

function extreme(f: Format, a: bigint, b: bigint, env: FpEnvironment, wanted: 1 | -1): bigint {
  const x = unpack(f, a, env)
  const y = unpack(f, b, env)
  const nan = processNaNs(f, env, [x, a], [y, b])
  if (nan !== undefined) return nan
  // Of two zeros the maximum is the positive one.
  if (isZero(x) && isZero(y)) return zero(f, wanted > 0 ? x.sign && y.sign : x.sign || y.sign)
  return compareUnpacked(f, x, y) === wanted ? chosen(f, x, a) : chosen(f, y, b)
}

/** FPMax. */
export function max(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return extreme(f, a, b, env, 1)
}

/** FPMin. */
export function min(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return extreme(f, a, b, env, -1)
}

/** A lone quiet NaN gives way to the other operand. */
function extremeNumber(
  f: Format,
  a: bigint,
  b: bigint,
  env: FpEnvironment,
  wanted: 1 | -1,
): bigint {
  const quietA = isNaNPattern(f, a) && (a & f.quietBit) !== 0n
  const quietB = isNaNPattern(f, b) && (b & f.quietBit) !== 0n
  const lost = infinity(f, wanted > 0)
  if (quietA && !quietB) return extreme(f, lost, b, env, wanted)
  if (quietB && !quietA) return extreme(f, a, lost, env, wanted)
  return extreme(f, a, b, env, wanted)
}

/** FPMaxNum. */
export function maxNumber(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return extremeNumber(f, a, b, env, 1)
}

/** FPMinNum. */
export function minNumber(f: Format, a: bigint, b: bigint, env: FpEnvironment): bigint {
  return extremeNumber(f, a, b, env, -1)
}
