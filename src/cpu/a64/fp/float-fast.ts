// The common cases of float-arithmetic.ts on the host's own doubles: round to nearest, no flushing, and an outcome
// whose exceptions are certain. A result of NaN means: ask the reference.
// `inexact` says that FPSR.IXC is set already, so that it need not be found out whether the result is exact.

/** A result, or NaN when the reference must decide. */
export type Fast1 = (x: number, inexact: boolean) => number
export type Fast2 = (x: number, y: number, inexact: boolean) => number
export type Fast3 = (x: number, y: number, z: number, inexact: boolean) => number

const { abs, fround, sqrt } = Math
const UNSURE = Number.NaN

/** Above this, error terms of double products are normal numbers. */
const SAFE_LOW = 2 ** -960
/** Below this, halves of doubles and their products stay finite. */
const SAFE_HIGH = 2 ** 990
/** Single results from here on are normal before rounding too. */
const SINGLE_LOW = 2 ** -125

/** What x + y lost when it was rounded to `s` (Knuth). */
function sumError(x: number, y: number, s: number): number {
  const t = s - x
  return x - (s - t) + (y - t)
}

/** What x * y lost when it was rounded to `p` (Dekker, Veltkamp). */
function productError(x: number, y: number, p: number): number {
  const cx = 134217729 * x
  const hx = cx - (cx - x)
  const lx = x - hx
  const cy = 134217729 * y
  const hy = cy - (cy - y)
  const ly = y - hy
  return hx * hy - p + hx * ly + lx * hy + lx * ly
}

const finite = (v: number) => v - v === 0

// Doubles.

export const addDouble: Fast2 = (x, y, inexact) => {
  const s = x + y
  if (!finite(s)) return UNSURE
  return inexact || sumError(x, y, s) === 0 ? s : UNSURE
}

export const subDouble: Fast2 = (x, y, inexact) => addDouble(x, -y, inexact)

export const mulDouble: Fast2 = (x, y, inexact) => {
  const p = x * y
  const size = abs(p)
  if (size < SAFE_LOW) return p === 0 && (x === 0 || y === 0) ? p : UNSURE
  if (!finite(p)) return UNSURE
  return inexact || productError(x, y, p) === 0 ? p : UNSURE
}

export const divDouble: Fast2 = (x, y, inexact) => {
  const q = x / y
  if (!finite(q)) return UNSURE
  if (x === 0) return q
  if (abs(q) < SAFE_LOW || abs(x) < SAFE_LOW) return UNSURE
  return inexact || (q * y === x && productError(q, y, x) === 0) ? q : UNSURE
}

export const sqrtDouble: Fast1 = (x, inexact) => {
  if (!(x > SAFE_LOW && x < SAFE_HIGH)) return x === 0 ? x : UNSURE
  const r = sqrt(x)
  return inexact || (r * r === x && productError(r, r, x) === 0) ? r : UNSURE
}

const bitsOf = new Float64Array(1)
const halvesOf = new Int32Array(bitsOf.buffer)

/** x + y rounded to odd: a later rounding to fewer bits is then as good as one (Boldo and Melquiond). */
function sumToOdd(x: number, y: number): number {
  const s = x + y
  const lost = sumError(x, y, s)
  if (lost === 0) return s
  bitsOf[0] = s
  if (halvesOf[0]! & 1) return s
  // The bits of a double are ordered as its magnitude is, so one unit is one step of the low half; it is even,
  // hence a step away from zero does not carry, and one towards zero borrows only from ...00.
  if (lost > 0 === s > 0) halvesOf[0]!++
  else if (halvesOf[0]!-- === 0) halvesOf[1]!--
  return bitsOf[0]!
}

/** z + x * y. */
export const mulAddDouble: Fast3 = (x, y, z, inexact) => {
  if (x === 0 || y === 0) return addDouble(x * y, z, inexact)
  const p = x * y
  const size = abs(p)
  if (!(size > SAFE_LOW && size < SAFE_HIGH)) return UNSURE
  const low = productError(x, y, p)
  if (z === 0) return inexact || low === 0 ? p : UNSURE
  const other = abs(z)
  if (!(other > SAFE_LOW && other < SAFE_HIGH)) return UNSURE
  // (p, low) + z as three terms that do not overlap: high, middle and what sumToOdd keeps as a sticky bit.
  const t = z + low
  const tLow = sumError(z, low, t)
  const high = p + t
  const middle = sumError(p, t, high)
  const rest = sumToOdd(tLow, middle)
  const r = high + rest
  if (abs(r) < SAFE_LOW) return UNSURE
  return inexact || sumError(high, rest, r) === 0 ? r : UNSURE
}

// Singles, which arrive and leave as doubles. Sums, quotients and roots of singles may be rounded twice: a double
// has more than twice the bits and two.

export const addSingle: Fast2 = (x, y, inexact) => {
  const s = x + y
  const r = fround(s)
  if (!finite(r)) return UNSURE
  return inexact || (r === s && sumError(x, y, s) === 0) ? r : UNSURE
}

export const subSingle: Fast2 = (x, y, inexact) => addSingle(x, -y, inexact)

export const mulSingle: Fast2 = (x, y, inexact) => {
  const p = x * y
  const r = fround(p)
  if (r === p) return finite(r) ? r : UNSURE
  return inexact && finite(r) && abs(r) > SINGLE_LOW ? r : UNSURE
}

export const divSingle: Fast2 = (x, y, inexact) => {
  const r = fround(x / y)
  if (!finite(r)) return UNSURE
  if (x === 0) return r
  if (!(abs(r) > SINGLE_LOW)) return UNSURE
  return inexact || r * y === x ? r : UNSURE
}

export const sqrtSingle: Fast1 = (x, inexact) => {
  if (x === 0) return x
  const r = fround(sqrt(x))
  if (!finite(r)) return UNSURE
  return inexact || r * r === x ? r : UNSURE
}

/** z + x * y; the product is exact in a double. */
export const mulAddSingle: Fast3 = (x, y, z, inexact) => {
  const p = x * y
  const s = p + z
  if (!finite(s)) return UNSURE
  const lost = sumError(p, z, s)
  if (lost === 0 && fround(s) === s) return s
  const r = fround(lost === 0 ? s : sumToOdd(p, z))
  return inexact && finite(r) && abs(r) > SINGLE_LOW ? r : UNSURE
}

// Conversions.

/** A double as a single. */
export const narrowDouble: Fast1 = (x, inexact) => {
  const r = fround(x)
  if (r === x) return finite(r) ? r : UNSURE
  return inexact && finite(r) && abs(r) > SINGLE_LOW ? r : UNSURE
}

// The larger and the smaller, singles and doubles; equal ones (zeros of either sign among them) are left alone.

export const larger: Fast2 = (x, y) => (x > y ? x : x < y ? y : UNSURE)
export const smaller: Fast2 = (x, y) => (x < y ? x : x > y ? y : UNSURE)

// To integral values, singles and doubles.

/** Above this every double is an integer. */
const INTEGERS = 2 ** 52

/** Ties to even. */
export const nearest: Fast1 = x => {
  if (!(abs(x) < INTEGERS)) return x
  const r = x < 0 ? x - INTEGERS + INTEGERS : x + INTEGERS - INTEGERS
  return r === 0 ? x * 0 : r
}

/** The same when that changes nothing, or IXC is set. */
export const nearestExact: Fast1 = (x, inexact) => {
  const r = nearest(x, inexact)
  return inexact || r === x ? r : UNSURE
}

/** Ties away from zero. */
export const nearestAway: Fast1 = x => {
  const t = Math.trunc(x)
  if (abs(x - t) < 0.5) return t
  return x < 0 ? t - 1 : x > 0 ? t + 1 : x
}
