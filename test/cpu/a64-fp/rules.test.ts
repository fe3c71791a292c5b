// What the DDI 0487's floating-point functions say beyond IEEE 754, a rule a row: NaNs, FPCR's bits, estimates.

import { expect, it } from 'vitest'
import * as arithmetic from '../../../src/cpu/a64/fp/float-arithmetic.js'
import { compare, isEqual, isGreaterOrEqual } from '../../../src/cpu/a64/fp/float-compare.js'
import { convert, roundInt, toFixed } from '../../../src/cpu/a64/fp/float-convert.js'
import {
  recipEstimate,
  recipExponent,
  rsqrtEstimate,
  unsignedRecipEstimate,
  unsignedRsqrtEstimate,
} from '../../../src/cpu/a64/fp/float-estimate.js'
import {
  DOUBLE,
  FPCR,
  FPSR,
  FpEnvironment,
  HALF,
  ROUNDING,
  SINGLE,
} from '../../../src/cpu/a64/fp/float-format.js'

const { add, div, max, maxNumber, min, minNumber, mul, mulAdd, mulExtended } = arithmetic
const { IOC, DZC, OFC, UFC, IXC, IDC } = FPSR
const { DN, FZ, AHP } = FPCR
const S = SINGLE

const ONE = 0x3f80_0000n
const TWO = 0x4000_0000n
const INF = 0x7f80_0000n
const QNAN1 = 0x7fc0_0001n
const QNAN2 = 0xffc0_0002n
const SNAN1 = 0x7f80_0001n
const SNAN2 = 0xff80_0002n
const DEFAULT = 0x7fc0_0000n
const MINUS_ZERO = 0x8000_0000n
const DENORMAL = 0x0000_0001n
const SMALLEST = 0x0080_0000n
const LARGEST = 0x7f7f_ffffn
const PLUS_INF_MODE = 1 << 22
const MINUS_INF_MODE = 2 << 22
const ZERO_MODE = 3 << 22

type Row = readonly [
  rule: string,
  control: number,
  run: (env: FpEnvironment) => bigint | number | boolean,
  result: bigint | number | boolean,
  flags: number,
]

// biome-ignore format: table
const ROWS: readonly Row[] = [
  ['FPProcessNaNs: the first quiet NaN is the result',        0, e => add(S, QNAN1, QNAN2, e), QNAN1, 0],
  ['FPProcessNaNs: a signalling NaN goes before a quiet one', 0, e => add(S, QNAN1, SNAN2, e), SNAN2 | 0x40_0000n, IOC],
  ['FPProcessNaNs: the first of two signalling ones',         0, e => add(S, SNAN1, SNAN2, e), SNAN1 | 0x40_0000n, IOC],
  ['FPProcessNaNs3: the addend is looked at first',           0, e => mulAdd(S, QNAN2, QNAN1, ONE, e), QNAN2, 0],
  ['FPMulAdd: infinity times zero hides a quiet addend',      0, e => mulAdd(S, QNAN2, INF, 0n, e), DEFAULT, IOC],
  ['FPMulAdd: but not a signalling one',                      0, e => mulAdd(S, SNAN2, INF, 0n, e), SNAN2 | 0x40_0000n, IOC],
  ['FPDefaultNaN: positive, for invalid operations',          0, e => mul(S, INF, MINUS_ZERO, e), DEFAULT, IOC],
  ['FPCR.DN: a quiet NaN becomes the default one',            DN, e => add(S, QNAN2, ONE, e), DEFAULT, 0],
  ['FPCR.DN: a signalling one too, and raises IOC',           DN, e => add(S, SNAN2, ONE, e), DEFAULT, IOC],
  ['FPUnpack: FPCR.FZ takes a denormal for zero, IDC',        FZ, e => add(S, DENORMAL, ONE, e), ONE, IDC],
  ['FPUnpack: also beside a NaN',                             FZ, e => add(S, DENORMAL, QNAN1, e), QNAN1, IDC],
  ['FPRound: FPCR.FZ makes a tiny result zero, only UFC',     FZ, e => mul(S, SMALLEST, 0x3f00_0000n, e), 0n, UFC],
  ['FPRound: a tiny exact result raises nothing without FZ',  0, e => mul(S, SMALLEST, 0x3f00_0000n, e), 0x0040_0000n, 0],
  ['FPRound: tiny is found before rounding',                  0, e => mul(S, 0x0080_0001n, 0x3f7f_fffen, e), SMALLEST, UFC | IXC],
  ['FPRound: overflow to nearest is infinity',                0, e => mul(S, LARGEST, TWO, e), INF, OFC | IXC],
  ['FPRound: overflow towards zero is the largest number',    ZERO_MODE, e => mul(S, LARGEST, TWO, e), LARGEST, OFC | IXC],
  ['FPRound: overflow towards minus infinity likewise',       MINUS_INF_MODE, e => mul(S, LARGEST, TWO, e), LARGEST, OFC | IXC],
  ['FPRound: a tiny result towards plus infinity',            PLUS_INF_MODE, e => mul(S, DENORMAL, DENORMAL, e), DENORMAL, UFC | IXC],
  ['FPAdd: x - x is plus zero',                               0, e => add(S, ONE, 0xbf80_0000n, e), 0n, 0],
  ['FPAdd: but minus zero towards minus infinity',            MINUS_INF_MODE, e => add(S, ONE, 0xbf80_0000n, e), MINUS_ZERO, 0],
  ['FPDiv: by zero is infinity, DZC',                         0, e => div(S, ONE, MINUS_ZERO, e), INF | MINUS_ZERO, DZC],
  ['FPDiv: infinity by zero raises nothing',                  0, e => div(S, INF, 0n, e), INF, 0],
  ['FPDiv: zero by zero is invalid',                          0, e => div(S, 0n, 0n, e), DEFAULT, IOC],
  ['FPMulX: infinity times zero is two',                      0, e => mulExtended(S, INF, MINUS_ZERO, e), TWO | MINUS_ZERO, 0],
  ['FPMax: of two zeros the positive one',                    0, e => max(S, MINUS_ZERO, 0n, e), 0n, 0],
  ['FPMin: of two zeros the negative one',                    0, e => min(S, 0n, MINUS_ZERO, e), MINUS_ZERO, 0],
  ['FPMax: a quiet NaN is the result',                        0, e => max(S, QNAN1, ONE, e), QNAN1, 0],
  ['FPMaxNum: a quiet NaN gives way',                         0, e => maxNumber(S, QNAN1, ONE, e), ONE, 0],
  ['FPMinNum: a quiet NaN gives way',                         0, e => minNumber(S, ONE, QNAN2, e), ONE, 0],
  ['FPMaxNum: two quiet NaNs do not',                         0, e => maxNumber(S, QNAN2, QNAN1, e), QNAN2, 0],
  ['FPMaxNum: a signalling one is the result, quiet',         0, e => maxNumber(S, SNAN1, ONE, e), SNAN1 | 0x40_0000n, IOC],
  ['FPCompare: unordered is 0011',                            0, e => compare(S, QNAN1, ONE, false, e), 0b0011, 0],
  ['FPCompare: FCMPE raises IOC for a quiet NaN',             0, e => compare(S, QNAN1, ONE, true, e), 0b0011, IOC],
  ['FPCompare: zeros are equal',                              0, e => compare(S, MINUS_ZERO, 0n, false, e), 0b0110, 0],
  ['FPCompareEQ: a quiet NaN raises nothing',                 0, e => isEqual(S, QNAN1, QNAN1, e), false, 0],
  ['FPCompareGE: a quiet NaN raises IOC',                     0, e => isGreaterOrEqual(S, QNAN1, QNAN1, e), false, IOC],
  ['FPToFixed: a NaN is zero, IOC',                           0, e => toFixed(S, QNAN1, 32, 0, false, e, ROUNDING.ZERO), 0n, IOC],
  ['FPToFixed: out of range saturates, IOC and not IXC',      0, e => toFixed(S, 0x4f00_0001n, 32, 0, false, e, ROUNDING.ZERO), 0x7fff_ffffn, IOC],
  ['FPToFixed: negative to unsigned is zero, IOC',            0, e => toFixed(S, 0xbf80_0000n, 32, 0, true, e, ROUNDING.ZERO), 0n, IOC],
  ['FPToFixed: above minus one to unsigned is only inexact',  0, e => toFixed(S, 0xbf00_0000n, 32, 0, true, e, ROUNDING.ZERO), 0n, IXC],
  ['FPToFixed: ties away from zero',                          0, e => toFixed(S, 0x4020_0000n, 32, 0, false, e, ROUNDING.TIES_AWAY), 3n, IXC],
  ['FPToFixed: ties to even',                                 0, e => toFixed(S, 0x4020_0000n, 32, 0, false, e, ROUNDING.TIES_EVEN), 2n, IXC],
  ['FPToFixed: fraction bits',                                0, e => toFixed(S, 0x4020_0000n, 32, 1, false, e, ROUNDING.ZERO), 5n, 0],
  ['FPRoundInt: keeps the sign of zero',                      0, e => roundInt(S, 0xbe80_0000n, e, ROUNDING.ZERO, false), MINUS_ZERO, 0],
  ['FPRoundInt: FRINTX raises IXC',                           0, e => roundInt(S, 0x4020_0000n, e, ROUNDING.TIES_EVEN, true), TWO, IXC],
  ['FPConvert: to half overflows to infinity',                0, e => convert(HALF, S, 0x4780_0000n, e), 0x7c00n, OFC | IXC],
  ['FPConvert: FPCR.AHP saturates instead, IOC',              AHP, e => convert(HALF, S, 0x4800_0000n, e), 0x7fffn, IOC],
  ['FPConvert: FPCR.AHP has numbers where infinity was',      AHP, e => convert(S, HALF, 0x7c00n, e), 0x4780_0000n, 0],
  ['FPConvert: FPCR.AHP has no NaNs: zero, IOC',              AHP, e => convert(HALF, S, QNAN2, e), 0x8000n, IOC],
  ['FPConvert: FPCR.FZ leaves half denormals alone',          FZ, e => convert(S, HALF, 0x0001n, e), 0x3380_0000n, 0],
  ['FPConvert: the upper bits of a NaN stay',                 0, e => convert(S, DOUBLE, 0x7ff8_0000_4000_0000n, e), 0x7fc0_0002n, 0],
  ['FPConvert: to odd (FCVTXN)',                              0, e => convert(S, DOUBLE, 0x3ff0_0000_0000_0001n, e, ROUNDING.ODD), 0x3f80_0001n, IXC],
  ['FPConvert: to odd overflows to the largest number',       0, e => convert(S, DOUBLE, 0x7fe0_0000_0000_0000n, e, ROUNDING.ODD), LARGEST, OFC | IXC],
  ['FPRecipEstimate: of one',                                 0, e => recipEstimate(S, ONE, e), 0x3f7f_8000n, 0],
  ['FPRecipEstimate: of zero is infinity, DZC',               0, e => recipEstimate(S, MINUS_ZERO, e), INF | MINUS_ZERO, DZC],
  ['FPRecipEstimate: of a small denormal overflows',          0, e => recipEstimate(S, DENORMAL, e), INF, OFC | IXC],
  ['FPRecipEstimate: of the largest is denormal',             0, e => recipEstimate(S, LARGEST, e), 0x0020_0000n, 0],
  ['FPRecipEstimate: or zero under FPCR.FZ, UFC',             FZ, e => recipEstimate(S, LARGEST, e), 0n, UFC],
  ['FPRSqrtEstimate: of four',                                0, e => rsqrtEstimate(S, 0x4080_0000n, e), 0x3eff_8000n, 0],
  ['FPRSqrtEstimate: of a negative number is invalid',        0, e => rsqrtEstimate(S, 0xbf80_0000n, e), DEFAULT, IOC],
  ['FPRecpX: inverts the exponent',                           0, e => recipExponent(S, 0x4000_1234n, e), 0x3f80_0000n, 0],
  ['FPRecpX: of zero is the highest exponent',                0, e => recipExponent(S, 0n, e), 0x7f00_0000n, 0],
  ['UnsignedRecipEstimate: below a half is all ones',         0, () => unsignedRecipEstimate(0x7fff_ffff), -1, 0],
  ['UnsignedRSqrtEstimate: below a quarter is all ones',      0, () => unsignedRsqrtEstimate(0x3fff_ffff), -1, 0],
  ['UnsignedRecipEstimate: of nearly one is half',            0, () => unsignedRecipEstimate(0xffff_ffff | 0) >>> 0, 0x8000_0000, 0],
]

it.each(ROWS)('%s', (_, control, run, result, flags) => {
  const env = new FpEnvironment(control)
  expect({ result: run(env), flags: env.flags }).toEqual({ result, flags })
})
