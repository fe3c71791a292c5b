// Arm's condition flags of additions, subtractions and logic (DDI 0487, AddWithCarry), from operands and result, and
// its conditions. Flags stand in bits 31:28 as N, Z, C, V. Below 64 bits only the low half of each slot counts.

const N = 1 << 31
const Z = 1 << 30
const C = 1 << 29
const V = 1 << 28

/** Flags of r = a + b, or a + b + 1. */
export function nzcvOfAdd(r32: Int32Array, a: number, b: number, r: number, bits: number): number {
  const top = bits === 64 ? 1 : 0
  const x = r32[2 * a + top]!
  const y = r32[2 * b + top]!
  const z = r32[2 * r + top]!
  const rest = top === 1 ? r32[2 * r]! : 0
  const carry = (x & y) | ((x | y) & ~z)
  const overflow = (x ^ z) & (y ^ z)
  return (z & N) | ((z | rest) === 0 ? Z : 0) | ((carry >>> 2) & C) | ((overflow >>> 3) & V)
}

/** Flags of r = a - b, or a - b - 1. */
export function nzcvOfSub(r32: Int32Array, a: number, b: number, r: number, bits: number): number {
  const top = bits === 64 ? 1 : 0
  const x = r32[2 * a + top]!
  const y = r32[2 * b + top]!
  const z = r32[2 * r + top]!
  const rest = top === 1 ? r32[2 * r]! : 0
  const carry = (x & ~y) | ((x | ~y) & ~z)
  const overflow = (x ^ y) & (x ^ z)
  return (z & N) | ((z | rest) === 0 ? Z : 0) | ((carry >>> 2) & C) | ((overflow >>> 3) & V)
}

/** Flags of a logical result: C and V are zero. */
export function nzcvOfLogic(r32: Int32Array, r: number, bits: number): number {
  const top = bits === 64 ? 1 : 0
  const z = r32[2 * r + top]!
  return (z & N) | ((z | (top === 1 ? r32[2 * r]! : 0)) === 0 ? Z : 0)
}

/** Condition `n`: even numbers the plain test, odd ones its opposite, except that 14 and 15 both always hold. */
export function nzcvTest(flags: number, n: number): boolean {
  let yes: boolean
  switch (n >> 1) {
    case 0:
      yes = (flags & Z) !== 0
      break
    case 1:
      yes = (flags & C) !== 0
      break
    case 2:
      yes = (flags & N) !== 0
      break
    case 3:
      yes = (flags & V) !== 0
      break
    case 4:
      yes = (flags & (C | Z)) === C
      break
    case 5:
      yes = flags < 0 === ((flags & V) !== 0)
      break
    case 6:
      yes = (flags & Z) === 0 && flags < 0 === ((flags & V) !== 0)
      break
    default:
      return true
  }
  return yes !== ((n & 1) === 1)
}
