// Conversions: between formats, to and from integers and fixed point, and to an integer in the same format
// (FPConvert, FPToFixed, FixedToFP, FPRoundInt).

import { processNaN } from './float-arithmetic.js'
import {
  DOUBLE,
  defaultNaN,
  type Format,
  FPSR,
  type FpEnvironment,
  infinity,
  isAnyNaN,
  isInfinity,
  isZero,
  type Rounding,
  type Unpacked,
  unpack,
  zero,
} from './float-format.js'
import { round, roundToInteger } from './float-round.js'

/** A NaN in another format: the upper fraction bits stay, and it is quiet. */
function convertNaN(to: Format, from: Format, v: bigint): bigint {
  const sign = zero(to, (v & from.signBit) !== 0n)
  const fraction = (v & from.fractionMask) << BigInt(DOUBLE.fraction - from.fraction)
  const kept = fraction >> BigInt(DOUBLE.fraction - to.fraction)
  return sign | to.exponentMask | to.quietBit | kept
}

/** FPConvert; `mode` is FPCR's unless the instruction names one. */
export function convert(
  to: Format,
  from: Format,
  v: bigint,
  env: FpEnvironment,
  mode: Rounding = env.rounding,
): bigint {
  const u = unpack(from, v, env)
  const alternative = to.bits === 16 && env.alternativeHalf
  if (isAnyNaN(u)) {
    const signalling = u.kind === 'signalling'
    if (signalling || alternative) env.raise(FPSR.IOC)
    if (alternative) return zero(to, u.sign)
    return env.defaultNaN ? defaultNaN(to) : convertNaN(to, from, v)
  }
  if (isInfinity(u)) {
    if (!alternative) return infinity(to, u.sign)
    env.raise(FPSR.IOC)
    return zero(to, u.sign) | (to.signBit - 1n)
  }
  if (isZero(u)) return zero(to, u.sign)
  return round(to, u.sign, u.significand, u.exponent, env, mode)
}

/** FPRoundInt: to an integral value; `exact` raises IXC when that changes it (FRINTX). */
export function roundInt(
  f: Format,
  v: bigint,
  env: FpEnvironment,
  mode: Rounding,
  exact: boolean,
): bigint {
  const u = unpack(f, v, env)
  if (isAnyNaN(u)) return processNaN(f, u, v, env)
  if (isInfinity(u)) return infinity(f, u.sign)
  if (isZero(u)) return zero(f, u.sign)
  if (u.exponent >= 0) return v
  const { magnitude, inexact } = roundToInteger(u.sign, u.significand, u.exponent, mode)
  if (exact && inexact) env.raise(FPSR.IXC)
  if (magnitude === 0n) return zero(f, u.sign)
  return round(f, u.sign, magnitude, 0, env)
}

/** FPToFixed: v * 2^fractionBits as an integer of `width` bits, in its two's complement pattern. */
export function toFixed(
  f: Format,
  v: bigint,
  width: number,
  fractionBits: number,
  unsigned: boolean,
  env: FpEnvironment,
  mode: Rounding,
): bigint {
  const u = unpack(f, v, env)
  const bits = BigInt(width)
  if (isAnyNaN(u)) {
    env.raise(FPSR.IOC)
    return 0n
  }
  const lowest = unsigned ? 0n : -(1n << (bits - 1n))
  const highest = (1n << (unsigned ? bits : bits - 1n)) - 1n
  const { value, inexact } = isInfinity(u)
    ? { value: u.sign ? lowest - 1n : highest + 1n, inexact: false }
    : scaled(u, fractionBits, mode)
  const limited = value < lowest ? lowest : value > highest ? highest : value
  if (limited !== value) env.raise(FPSR.IOC)
  else if (inexact) env.raise(FPSR.IXC)
  return BigInt.asUintN(width, limited)
}

function scaled(
  u: Unpacked,
  fractionBits: number,
  mode: Rounding,
): { value: bigint; inexact: boolean } {
  const exponent = u.exponent + fractionBits
  const { magnitude, inexact } = roundToInteger(u.sign, u.significand, exponent, mode)
  return { value: u.sign ? -magnitude : magnitude, inexact }
}

/** FixedToFP: value / 2^fractionBits; `value` is the integer itself, with its sign. */
export function fromFixed(
  f: Format,
  value: bigint,
  fractionBits: number,
  env: FpEnvironment,
): bigint {
  if (value === 0n) return 0n
  const sign = value < 0n
  return round(f, sign, sign ? -value : value, -fractionBits, env)
}
