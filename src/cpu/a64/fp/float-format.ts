// The binary formats of A64 floating point and what FPCR and FPSR say about them (DDI 0487 A1.4, C5.2.7, C5.2.8).
// A value is its bit pattern in a bigint here and in the other float-*.ts; float-fast.ts has the same on host doubles.

/** One binary interchange format. */
export interface Format {
  readonly bits: 16 | 32 | 64
  /** Stored bits of the significand. */
  readonly fraction: number
  /** Exponent of the smallest normal number. */
  readonly minExponent: number
  /** Exponent of the largest finite number. */
  readonly maxExponent: number
  readonly signBit: bigint
  /** Exponent field of all ones, in place; also the pattern of plus infinity. */
  readonly exponentMask: bigint
  readonly fractionMask: bigint
  /** Top bit of the fraction: set in quiet NaNs. */
  readonly quietBit: bigint
}

function format(bits: 16 | 32 | 64, fraction: number): Format {
  const bias = 2 ** (bits - fraction - 2) - 1
  const signBit = 1n << BigInt(bits - 1)
  const fractionMask = (1n << BigInt(fraction)) - 1n
  return {
    bits,
    fraction,
    minExponent: 1 - bias,
    maxExponent: bias,
    signBit,
    exponentMask: signBit - 1n - fractionMask,
    fractionMask,
    quietBit: 1n << BigInt(fraction - 1),
  }
}

export const HALF = format(16, 10)
export const SINGLE = format(32, 23)
export const DOUBLE = format(64, 52)

/** Bits of FPCR that ARMv8.0 has; the others are RES0 (DDI 0487 C5.2.7). */
// biome-ignore format: table
export const FPCR = {
  AHP: 1 << 26,    // half precision without infinities and NaNs
  DN: 1 << 25,     // every NaN result is the default NaN
  FZ: 1 << 24,     // single and double denormals are zeros
  RMODE: 3 << 22,  // ROUNDING, in place
} as const

/** Every FPCR bit that software may set. */
export const FPCR_WRITABLE = FPCR.AHP | FPCR.DN | FPCR.FZ | FPCR.RMODE

/** Cumulative bits of FPSR (DDI 0487 C5.2.8). */
// biome-ignore format: table
export const FPSR = {
  QC: 1 << 27,   // an integer operation saturated
  IDC: 1 << 7,   // a denormal operand was taken for zero
  IXC: 1 << 4, UFC: 1 << 3, OFC: 1 << 2, DZC: 1 << 1, IOC: 1 << 0,
} as const

/** Every FPSR bit that software may set; the AArch32 condition flags above QC are RES0 here. */
export const FPSR_WRITABLE =
  FPSR.QC | FPSR.IDC | FPSR.IXC | FPSR.UFC | FPSR.OFC | FPSR.DZC | FPSR.IOC

/** Rounding modes. The first four are FPCR.RMode; instructions name the others themselves. */
// biome-ignore format: table
export const ROUNDING = {
  TIES_EVEN: 0, PLUS: 1, MINUS: 2, ZERO: 3,
  TIES_AWAY: 4,
  ODD: 5,        // inexact results get an odd last bit (FCVTXN)
} as const

export type Rounding = (typeof ROUNDING)[keyof typeof ROUNDING]

/** FPCR as it stands, and the exceptions raised so far. */
export class FpEnvironment {
  /** FPCR. */
  control: number
  /** FPSR bits to be ORed into the register. */
  flags = 0

  constructor(control = 0) {
    this.control = control
  }

  get rounding(): Rounding {
    return ((this.control & FPCR.RMODE) >>> 22) as Rounding
  }

  get flush(): boolean {
    return (this.control & FPCR.FZ) !== 0
  }

  get defaultNaN(): boolean {
    return (this.control & FPCR.DN) !== 0
  }

  get alternativeHalf(): boolean {
    return (this.control & FPCR.AHP) !== 0
  }

  raise(flags: number): void {
    this.flags |= flags
  }
}

/**
 * An operand taken apart (FPUnpack). A finite one is (-1)^sign * significand * 2^exponent; zero has significand 0.
 */
export interface Unpacked {
  readonly kind: 'finite' | 'infinity' | 'quiet' | 'signalling'
  readonly sign: boolean
  readonly significand: bigint
  readonly exponent: number
}

/** Takes an operand apart; single and double denormals become zeros under FPCR.FZ, which raises IDC. */
export function unpack(f: Format, v: bigint, env: FpEnvironment): Unpacked {
  const sign = (v & f.signBit) !== 0n
  const fraction = v & f.fractionMask
  const biased = Number((v & f.exponentMask) >> BigInt(f.fraction))
  const lowest = f.minExponent - f.fraction
  if (biased === 0) {
    if (fraction !== 0n && f.bits !== 16 && env.flush) {
      env.raise(FPSR.IDC)
      return { kind: 'finite', sign, significand: 0n, exponent: lowest }
    }
    return { kind: 'finite', sign, significand: fraction, exponent: lowest }
  }
  const special = (v & f.exponentMask) === f.exponentMask
  if (special && !(f.bits === 16 && env.alternativeHalf)) {
    if (fraction === 0n) return { kind: 'infinity', sign, significand: 0n, exponent: 0 }
    const kind = (v & f.quietBit) !== 0n ? 'quiet' : 'signalling'
    return { kind, sign, significand: fraction, exponent: 0 }
  }
  const significand = fraction | (1n << BigInt(f.fraction))
  return { kind: 'finite', sign, significand, exponent: lowest + biased - 1 }
}

export const isAnyNaN = (u: Unpacked): boolean => u.kind === 'quiet' || u.kind === 'signalling'
export const isZero = (u: Unpacked): boolean => u.kind === 'finite' && u.significand === 0n
export const isInfinity = (u: Unpacked): boolean => u.kind === 'infinity'

export const zero = (f: Format, sign: boolean): bigint => (sign ? f.signBit : 0n)
export const infinity = (f: Format, sign: boolean): bigint => zero(f, sign) | f.exponentMask
/** Largest finite number. */
export const maxNormal = (f: Format, sign: boolean): bigint => infinity(f, sign) - 1n
/** Positive, quiet, no payload. */
export const defaultNaN = (f: Format): bigint => f.exponentMask | f.quietBit
/** Whether the pattern, by itself, is a NaN. */
export const isNaNPattern = (f: Format, v: bigint): boolean =>
  (v & (f.signBit - 1n)) > f.exponentMask
/** The pattern with its sign inverted, NaNs too. */
export const negate = (f: Format, v: bigint): bigint => v ^ f.signBit
/** The default NaN of an operation without a NaN operand; raises IOC. */
export function invalid(f: Format, env: FpEnvironment): bigint {
  env.raise(FPSR.IOC)
  return defaultNaN(f)
}
