// Reciprocal and reciprocal square root estimates (FPRecipEstimate, FPRSqrtEstimate, FPRecpX and their unsigned
// integer forms): eight bits from the architecture's own formula, so that every implementation agrees.

import { processNaN } from './float-arithmetic.js'
import {
  type Format,
  FPSR,
  type FpEnvironment,
  infinity,
  invalid,
  isAnyNaN,
  isInfinity,
  isZero,
  unpack,
  zero,
} from './float-format.js'
import { overflow } from './float-round.js'

/** RecipEstimate: for a in 256 to 511, meaning 0.5 to 1.0, an estimate of its reciprocal in 256 to 511. */
function recipEstimate9(a: number): number {
  const b = Math.floor(2 ** 19 / (2 * a + 1))
  return (b + 1) >> 1
}

/** RecipSqrtEstimate: for a in 128 to 511, meaning 0.25 to 1.0, an estimate in 256 to 511. */
function rsqrtEstimate9(a: number): number {
  const middle = a < 256 ? 2 * a + 1 : 2 * ((a & ~1) + 1)
  let b = 512
  while (middle * (b + 1) * (b + 1) < 2 ** 28) b++
  return (b + 1) >> 1
}

/** The fraction of a format as 52 bits, as the formulas below have it. */
const fractionOf = (f: Format, v: bigint): bigint => (v & f.fractionMask) << BigInt(52 - f.fraction)

const LEADING = 1n << 51n
const FRACTION = (1n << 52n) - 1n

const pack = (f: Format, sign: boolean, biased: number, fraction: bigint): bigint =>
  zero(f, sign) | (BigInt(biased) << BigInt(f.fraction)) | (fraction >> BigInt(52 - f.fraction))

const biasedExponent = (f: Format, v: bigint): number =>
  Number((v & f.exponentMask) >> BigInt(f.fraction))

/** FPRecipEstimate. */
export function recipEstimate(f: Format, v: bigint, env: FpEnvironment): bigint {
  const u = unpack(f, v, env)
  if (isAnyNaN(u)) return processNaN(f, u, v, env)
  if (isInfinity(u)) return zero(f, u.sign)
  if (isZero(u)) {
    env.raise(FPSR.DZC)
    return infinity(f, u.sign)
  }
  let exponent = biasedExponent(f, v)
  let fraction = fractionOf(f, v)
  // Below a quarter of the smallest normal number the reciprocal is out of range.
  if (exponent === 0 && fraction < 1n << 50n) return overflow(f, u.sign, env, env.rounding)
  // Reciprocals of the two highest exponents are denormal.
  if (env.flush && exponent >= 2 * f.maxExponent - 1) {
    env.raise(FPSR.UFC)
    return zero(f, u.sign)
  }
  if (exponent === 0) {
    const deep = (fraction & LEADING) === 0n
    if (deep) exponent = -1
    fraction = (fraction << (deep ? 2n : 1n)) & FRACTION
  }
  const estimate = recipEstimate9(256 + Number(fraction >> 44n))
  const result = 2 * f.maxExponent - 1 - exponent
  const digits = BigInt(estimate & 0xff) << 44n
  if (result === 0) return pack(f, u.sign, 0, LEADING | (digits >> 1n))
  if (result === -1) return pack(f, u.sign, 0, (LEADING >> 1n) | (digits >> 2n))
  return pack(f, u.sign, result, digits)
}

/** FPRSqrtEstimate. */
export function rsqrtEstimate(f: Format, v: bigint, env: FpEnvironment): bigint {
  const u = unpack(f, v, env)
  if (isAnyNaN(u)) return processNaN(f, u, v, env)
  if (isZero(u)) {
    env.raise(FPSR.DZC)
    return infinity(f, u.sign)
  }
  if (u.sign) return invalid(f, env)
  if (isInfinity(u)) return zero(f, false)
  let exponent = biasedExponent(f, v)
  let fraction = fractionOf(f, v)
  if (exponent === 0) {
    for (; (fraction & LEADING) === 0n; fraction <<= 1n) exponent--
    fraction = (fraction << 1n) & FRACTION
  }
  const scaled =
    (exponent & 1) === 0 ? 256 + Number(fraction >> 44n) : 128 + Number(fraction >> 45n)
  const result = Math.floor((3 * f.maxExponent - 1 - exponent) / 2)
  return pack(f, false, result, BigInt(rsqrtEstimate9(scaled) & 0xff) << 44n)
}

/** FPRecpX: the exponent inverted, the fraction zero. */
export function recipExponent(f: Format, v: bigint, env: FpEnvironment): bigint {
  const u = unpack(f, v, env)
  if (isAnyNaN(u)) return processNaN(f, u, v, env)
  const sign = zero(f, u.sign)
  const exponent = v & f.exponentMask
  const highest = f.exponentMask - (1n << BigInt(f.fraction))
  return sign | (exponent === 0n ? highest : exponent ^ f.exponentMask)
}

/** UnsignedRecipEstimate of a 32-bit fixed-point number between 0 and 1. */
export function unsignedRecipEstimate(v: number): number {
  if (v >= 0) return -1
  return recipEstimate9(v >>> 23) << 23
}

/** UnsignedRSqrtEstimate. */
export function unsignedRsqrtEstimate(v: number): number {
  if (v >>> 30 === 0) return -1
  return rsqrtEstimate9(v >>> 23) << 23
}
