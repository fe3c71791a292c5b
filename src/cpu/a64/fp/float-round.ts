// Rounding an exact value into a format, with the exceptions that raises (DDI 0487 J1.3, shared/functions/float/fpround).
// Tininess is found before rounding; under FPCR.FZ a tiny single or double becomes zero and only UFC is raised.

import {
  type Format,
  FPSR,
  type FpEnvironment,
  infinity,
  maxNormal,
  ROUNDING,
  type Rounding,
  zero,
} from './float-format.js'

/** Bits from the highest one downwards; `v` is positive. */
export function bitLength(v: bigint): number {
  const digits = v.toString(16)
  return 4 * digits.length - Math.clz32(Number.parseInt(digits[0]!, 16)) + 28
}

/**
 * Whether a magnitude cut off below its last bit goes up by one. `odd` is that last bit; `rest` orders what was cut off
 * against half of it: -1 below (and not zero), 0 equal, 1 above.
 */
function roundsUp(mode: Rounding, sign: boolean, odd: boolean, rest: -1 | 0 | 1): boolean {
  switch (mode) {
    case ROUNDING.TIES_EVEN:
      return rest > 0 || (rest === 0 && odd)
    case ROUNDING.TIES_AWAY:
      return rest >= 0
    case ROUNDING.PLUS:
      return !sign
    case ROUNDING.MINUS:
      return sign
    case ROUNDING.ZERO:
      return false
    case ROUNDING.ODD:
      return !odd
  }
}

/** An integer magnitude and whether anything was lost on the way. */
export interface Rounded {
  readonly magnitude: bigint
  readonly inexact: boolean
}

/** significand * 2^exponent as an integer, rounded as for that sign. */
export function roundToInteger(
  sign: boolean,
  significand: bigint,
  exponent: number,
  mode: Rounding,
): Rounded {
  if (exponent >= 0) return { magnitude: significand << BigInt(exponent), inexact: false }
  const shift = BigInt(-exponent)
  const magnitude = significand >> shift
  const twice = (significand - (magnitude << shift)) << 1n
  if (twice === 0n) return { magnitude, inexact: false }
  const whole = 1n << shift
  const rest = twice < whole ? -1 : twice === whole ? 0 : 1
  const up = roundsUp(mode, sign, (magnitude & 1n) !== 0n, rest)
  return { magnitude: up ? magnitude + 1n : magnitude, inexact: true }
}

/** Whether a result beyond the largest finite number becomes infinity rather than that number. */
export function overflowsToInfinity(mode: Rounding, sign: boolean): boolean {
  if (mode === ROUNDING.PLUS) return !sign
  if (mode === ROUNDING.MINUS) return sign
  return mode === ROUNDING.TIES_EVEN || mode === ROUNDING.TIES_AWAY
}

/** Result that is too large for the format, with its exceptions. */
export function overflow(f: Format, sign: boolean, env: FpEnvironment, mode: Rounding): bigint {
  env.raise(FPSR.OFC | FPSR.IXC)
  return overflowsToInfinity(mode, sign) ? infinity(f, sign) : maxNormal(f, sign)
}

/**
 * Rounds (-1)^sign * significand * 2^exponent into a format. The significand is positive and exact, or carries a
 * sticky last bit at least two places below the format's own.
 */
export function round(
  f: Format,
  sign: boolean,
  significand: bigint,
  exponent: number,
  env: FpEnvironment,
  mode: Rounding = env.rounding,
): bigint {
  const top = exponent + bitLength(significand) - 1
  const tiny = top < f.minExponent
  if (tiny && f.bits !== 16 && env.flush) {
    env.raise(FPSR.UFC)
    return zero(f, sign)
  }
  const last = Math.max(top, f.minExponent) - f.fraction
  const { magnitude, inexact } = roundToInteger(sign, significand, exponent - last, mode)
  // Adding the implied one to the exponent field makes a carry out of the fraction step the exponent.
  const biased = BigInt(last + f.fraction - f.minExponent)
  const packed = magnitude + (biased << BigInt(f.fraction))
  if (f.bits === 16 && env.alternativeHalf) {
    if (packed > 0x7fffn) {
      env.raise(FPSR.IOC)
      return zero(f, sign) | 0x7fffn
    }
  } else if (packed >= f.exponentMask) return overflow(f, sign, env, mode)
  if (tiny && inexact) env.raise(FPSR.UFC)
  if (inexact) env.raise(FPSR.IXC)
  return zero(f, sign) | packed
}
