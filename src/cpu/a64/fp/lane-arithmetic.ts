// What the integer instructions of Advanced SIMD do in one lane, by mnemonic without the S or U that says how lanes
// are read (DDI 0487 C7.2). A pair of functions each: on numbers for lanes up to 32 bits, on bigints for the rest.

import {
  type LaneOp,
  signedSaturate,
  signedSaturateBig,
  unsignedSaturate,
  unsignedSaturateBig,
} from './lanes.js'

type NumberFn = (x: number, y: number, d: number, bits: number) => number
type BigFn = (x: bigint, y: bigint, d: bigint, bits: number) => bigint

/** Lanes read as unsigned. */
const u = (name: string, number: NumberFn | undefined, big: BigFn): LaneOp =>
  number ? { name, signed: false, number, big } : { name, signed: false, big }
/** Lanes read as signed. */
const s = (name: string, number: NumberFn | undefined, big: BigFn): LaneOp => ({
  ...u(name, number, big),
  signed: true,
})
/** Both, under the two names. */
const su = (name: string, number: NumberFn, big: BigFn) => ({
  S: s(`s${name}`, number, big),
  U: u(`u${name}`, number, big),
})

const { floor, abs, imul } = Math
const absBig = (v: bigint) => (v < 0n ? -v : v)
function larger(x: bigint, y: bigint): bigint {
  if (x < y) return y
  return x
}
const mask = (bits: number) => (1n << BigInt(bits)) - 1n
const toSigned = (v: number, bits: number) => (v >= 2 ** (bits - 1) ? v - 2 ** bits : v)

export const ADD = u(
  'add',
  (x, y) => x + y,
  (x, y) => x + y,
)
export const SUB = u(
  'sub',
  (x, y) => x - y,
  (x, y) => x - y,
)
export const MUL = u(
  'mul',
  (x, y) => imul(x, y),
  (x, y) => x * y,
)
export const MLA = u(
  'mla',
  (x, y, d) => d + imul(x, y),
  (x, y, d) => d + x * y,
)
export const MLS = u(
  'mls',
  (x, y, d) => d - imul(x, y),
  (x, y, d) => d - x * y,
)

/** Sum, product and difference whose sources are narrower than the result. */
export const ADDL = su(
  'addl',
  (x, y) => x + y,
  (x, y) => x + y,
)
export const SUBL = su(
  'subl',
  (x, y) => x - y,
  (x, y) => x - y,
)
export const MULL = su(
  'mull',
  (x, y) => x * y,
  (x, y) => x * y,
)
export const MLAL = su(
  'mlal',
  (x, y, d) => d + x * y,
  (x, y, d) => d + x * y,
)
export const MLSL = su(
  'mlsl',
  (x, y, d) => d - x * y,
  (x, y, d) => d - x * y,
)
export const ADALP = su(
  'adalp',
  (x, y, d) => d + x + y,
  (x, y, d) => d + x + y,
)

export const HADD = su(
  'hadd',
  (x, y) => floor((x + y) / 2),
  (x, y) => (x + y) >> 1n,
)
export const RHADD = su(
  'rhadd',
  (x, y) => floor((x + y + 1) / 2),
  (x, y) => (x + y + 1n) >> 1n,
)
export const HSUB = su(
  'hsub',
  (x, y) => floor((x - y) / 2),
  (x, y) => (x - y) >> 1n,
)
export const MAX = su(
  'max',
  (x, y) => Math.max(x, y),
  (x, y) => larger(x, y),
)
export const MIN = su(
  'min',
  (x, y) => Math.min(x, y),
  (x, y) => x + y - larger(x, y),
)
export const ABD = su(
  'abd',
  (x, y) => abs(x - y),
  (x, y) => absBig(x - y),
)
export const ABA = su(
  'aba',
  (x, y, d) => d + abs(x - y),
  (x, y, d) => d + absBig(x - y),
)

/** Comparisons answer with all ones. */
export const GT = su(
  'gt',
  (x, y) => (x > y ? -1 : 0),
  (x, y) => (x > y ? -1n : 0n),
)
export const GE = su(
  'ge',
  (x, y) => (x >= y ? -1 : 0),
  (x, y) => (x >= y ? -1n : 0n),
)
export const CMLE = s(
  'cmle',
  (x, y) => (x <= y ? -1 : 0),
  (x, y) => (x <= y ? -1n : 0n),
)
export const CMLT = s(
  'cmlt',
  (x, y) => (x < y ? -1 : 0),
  (x, y) => (x < y ? -1n : 0n),
)
export const CMEQ = u(
  'cmeq',
  (x, y) => (x === y ? -1 : 0),
  (x, y) => (x === y ? -1n : 0n),
)
export const CMTST = u(
  'cmtst',
  (x, y) => (x & y ? -1 : 0),
  (x, y) => (x & y ? -1n : 0n),
)

export const SQADD = s(
  'sqadd',
  (x, y, _, n) => signedSaturate(x + y, n),
  (x, y, _, n) => signedSaturateBig(x + y, n),
)
export const UQADD = u(
  'uqadd',
  (x, y, _, n) => unsignedSaturate(x + y, n),
  (x, y, _, n) => unsignedSaturateBig(x + y, n),
)
export const SQSUB = s(
  'sqsub',
  (x, y, _, n) => signedSaturate(x - y, n),
  (x, y, _, n) => signedSaturateBig(x - y, n),
)
export const UQSUB = u(
  'uqsub',
  (x, y, _, n) => unsignedSaturate(x - y, n),
  (x, y, _, n) => unsignedSaturateBig(x - y, n),
)
/** An unsigned lane added to a signed accumulator. */
export const SUQADD = u(
  'suqadd',
  (x, _, d, n) => signedSaturate(toSigned(d, n) + x, n),
  (x, _, d, n) => signedSaturateBig(BigInt.asIntN(n, d) + x, n),
)
/** A signed lane added to an unsigned accumulator. */
export const USQADD = u(
  'usqadd',
  (x, _, d, n) => unsignedSaturate(d + toSigned(x, n), n),
  (x, _, d, n) => unsignedSaturateBig(d + BigInt.asIntN(n, x), n),
)

export const ABS = s(
  'abs',
  x => abs(x),
  x => absBig(x),
)
export const NEG = s(
  'neg',
  x => -x,
  x => -x,
)
export const SQABS = s(
  'sqabs',
  (x, _y, _d, n) => signedSaturate(abs(x), n),
  (x, _y, _d, n) => signedSaturateBig(absBig(x), n),
)
export const SQNEG = s(
  'sqneg',
  (x, _y, _d, n) => signedSaturate(-x, n),
  (x, _y, _d, n) => signedSaturateBig(-x, n),
)

/** Twice the product's upper half; the products of 32-bit lanes need bigints. */
export const SQDMULH: LaneOp = {
  ...s(
    'sqdmulh',
    (x, y, _, n) => signedSaturate(floor((x * y) / 2 ** (n - 1)), n),
    (x, y, _, n) => signedSaturateBig((x * y) >> BigInt(n - 1), n),
  ),
  upTo: 1,
}
export const SQRDMULH: LaneOp = {
  ...s(
    'sqrdmulh',
    (x, y, _, n) => signedSaturate(floor((x * y) / 2 ** (n - 1) + 0.5), n),
    (x, y, _, n) => signedSaturateBig((2n * x * y + (1n << BigInt(n - 1))) >> BigInt(n), n),
  ),
  upTo: 1,
}
export const SQDMULL = s(
  'sqdmull',
  (x, y, _, n) => signedSaturate(2 * x * y, n),
  (x, y, _, n) => signedSaturateBig(2n * x * y, n),
)
export const SQDMLAL = s(
  'sqdmlal',
  (x, y, d, n) => signedSaturate(d + signedSaturate(2 * x * y, n), n),
  (x, y, d, n) => signedSaturateBig(d + signedSaturateBig(2n * x * y, n), n),
)
export const SQDMLSL = s(
  'sqdmlsl',
  (x, y, d, n) => signedSaturate(d - signedSaturate(2 * x * y, n), n),
  (x, y, d, n) => signedSaturateBig(d - signedSaturateBig(2n * x * y, n), n),
)

/** Upper halves of sums and differences; lanes of the sources are twice `n` bits. */
export const ADDHN = u('addhn', undefined, (x, y, _, n) => (x + y) >> BigInt(n))
export const RADDHN = u(
  'raddhn',
  undefined,
  (x, y, _, n) => (x + y + (1n << BigInt(n - 1))) >> BigInt(n),
)
export const SUBHN = u('subhn', undefined, (x, y, _, n) => (x - y) >> BigInt(n))
export const RSUBHN = u(
  'rsubhn',
  undefined,
  (x, y, _, n) => (x - y + (1n << BigInt(n - 1))) >> BigInt(n),
)

/** Extraction from lanes of twice `n` bits. */
export const XTN = u(
  'xtn',
  x => x,
  x => x,
)
export const SQXTN = s(
  'sqxtn',
  (x, _y, _d, n) => signedSaturate(x, n),
  (x, _y, _d, n) => signedSaturateBig(x, n),
)
export const UQXTN = u(
  'uqxtn',
  (x, _y, _d, n) => unsignedSaturate(x, n),
  (x, _y, _d, n) => unsignedSaturateBig(x, n),
)
export const SQXTUN = s(
  'sqxtun',
  (x, _y, _d, n) => unsignedSaturate(x, n),
  (x, _y, _d, n) => unsignedSaturateBig(x, n),
)

/** Product of polynomials over {0, 1}. */
function carryless(x: number, y: number): number {
  let r = 0
  for (let i = 0; i < 8; i++) if ((y >> i) & 1) r ^= x << i
  return r
}
export const PMUL = u('pmul', carryless, (x, y) => BigInt(carryless(Number(x), Number(y))))

function leadingZeros(x: bigint, bits: number): number {
  let n = bits
  for (; x !== 0n; x >>= 1n) n--
  return n
}
export const CLZ = u('clz', undefined, (x, _y, _d, n) => BigInt(leadingZeros(x, n)))
/** Bits below the sign that equal it. */
export const CLS = s('cls', undefined, (x, _y, _d, n) =>
  BigInt(leadingZeros(x < 0n ? ~x : x, n) - 1),
)

function population(x: number): number {
  let n = 0
  for (; x !== 0; x &= x - 1) n++
  return n
}
export const CNT = u('cnt', population, x => BigInt(population(Number(x))))

function reversedByte(x: number): number {
  let r = 0
  for (let i = 0; i < 8; i++) r |= ((x >> i) & 1) << (7 - i)
  return r
}
export const RBIT = u('rbit', reversedByte, x => BigInt(reversedByte(Number(x))))

// Shifts. The amount is the lowest byte of y, with its sign: left when positive.

const amount = (y: number) => (y << 24) >> 24
const amountBig = (y: bigint) => BigInt.asIntN(8, y)

/** x * 2^y rounded down, exact in a double: x has at most 32 bits. */
const shifted: NumberFn = (x, y) => {
  const by = amount(y)
  return by >= 0 ? x * 2 ** by : floor(x * 2 ** by)
}
const shiftedBig: BigFn = (x, y) => {
  const by = amountBig(y)
  return by >= 0n ? x << by : x >> -by
}
/** x * 2^y rounded to nearest, halves up. */
const rounded: NumberFn = (x, y) => {
  const by = amount(y)
  return by >= 0 ? x * 2 ** by : floor(x * 2 ** by + 0.5)
}
const roundedBig: BigFn = (x, y) => {
  const by = amountBig(y)
  return by >= 0n ? x << by : (x + (1n << (-by - 1n))) >> -by
}
const saturating =
  (f: NumberFn): NumberFn =>
  (x, y, d, n) =>
    signedSaturate(f(x, y, d, n), n)
const saturatingBig =
  (f: BigFn): BigFn =>
  (x, y, d, n) =>
    signedSaturateBig(f(x, y, d, n), n)
const saturatingU =
  (f: NumberFn): NumberFn =>
  (x, y, d, n) =>
    unsignedSaturate(f(x, y, d, n), n)
const saturatingUBig =
  (f: BigFn): BigFn =>
  (x, y, d, n) =>
    unsignedSaturateBig(f(x, y, d, n), n)

export const SHL = su('shl', shifted, shiftedBig)
export const RSHL = su('rshl', rounded, roundedBig)
export const SQSHL = s('sqshl', saturating(shifted), saturatingBig(shiftedBig))
export const UQSHL = u('uqshl', saturatingU(shifted), saturatingUBig(shiftedBig))
export const SQRSHL = s('sqrshl', saturating(rounded), saturatingBig(roundedBig))
export const UQRSHL = u('uqrshl', saturatingU(rounded), saturatingUBig(roundedBig))
/** A signed lane into an unsigned one: SQSHLU, SQSHRUN and, rounding, SQRSHRUN. */
export const SQSHLU = s('sqshlu', saturatingU(shifted), saturatingUBig(shiftedBig))
export const SQRSHLU = s('sqrshlu', saturatingU(rounded), saturatingUBig(roundedBig))
/** Shift and accumulate. */
export const SRA = su(
  'sra',
  (x, y, d, n) => d + shifted(x, y, 0, n),
  (x, y, d, n) => d + shiftedBig(x, y, 0n, n),
)
export const RSRA = su(
  'rsra',
  (x, y, d, n) => d + rounded(x, y, 0, n),
  (x, y, d, n) => d + roundedBig(x, y, 0n, n),
)
/** Shift and insert: bits shifted in come from the destination. */
export const SLI = u(
  'sli',
  undefined,
  (x, y, d, n) => ((x << y) & mask(n)) | (d & ((1n << y) - 1n)),
)
export const SRI = u('sri', undefined, (x, y, d, n) => (x >> y) | (d & ~(mask(n) >> y)))
