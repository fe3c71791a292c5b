// x86 status flags of additions, subtractions and logic (SDM vol. 1, appendix A), from operands and result.
// The caller hands the two halves of each; below 64 bits only the low half counts, and bits above the width may be anything.

const CF = 1
const PF = 4
const AF = 16
const ZF = 64
const SF = 128
const OF = 2048

/** PF, ZF and SF of a result. */
function ofResult(hi: number, lo: number, bits: number): number {
  let p = lo & 0xff
  p ^= p >> 4
  const parity = (0x6996 >> (p & 15)) & 1 ? 0 : PF
  if (bits === 64) return parity | ((hi | lo) === 0 ? ZF : 0) | (hi < 0 ? SF : 0)
  const top = lo << (32 - bits)
  return parity | (top === 0 ? ZF : 0) | (top < 0 ? SF : 0)
}

/** Flags of r = a + b, or a + b + 1. */
export function statusOfAdd(
  r32: Int32Array,
  a: number,
  b: number,
  r: number,
  bits: number,
): number {
  const al = r32[2 * a]!
  const bl = r32[2 * b]!
  const rl = r32[2 * r]!
  const wide = bits === 64 ? 1 : 0
  const x = r32[2 * a + wide]!
  const y = r32[2 * b + wide]!
  const z = r32[2 * r + wide]!
  const top = wide ? 31 : bits - 1
  const carry = (x & y) | ((x | y) & ~z)
  const overflow = (x ^ z) & (y ^ z)
  return (
    ofResult(z, rl, bits) |
    ((carry >>> top) & 1 ? CF : 0) |
    ((overflow >>> top) & 1 ? OF : 0) |
    ((al ^ bl ^ rl) & AF)
  )
}

/** Flags of r = a - b, or a - b - 1. */
export function statusOfSub(
  r32: Int32Array,
  a: number,
  b: number,
  r: number,
  bits: number,
): number {
  const al = r32[2 * a]!
  const bl = r32[2 * b]!
  const rl = r32[2 * r]!
  const wide = bits === 64 ? 1 : 0
  const x = r32[2 * a + wide]!
  const y = r32[2 * b + wide]!
  const z = r32[2 * r + wide]!
  const top = wide ? 31 : bits - 1
  const borrow = (~x & y) | ((~x | y) & z)
  const overflow = (x ^ y) & (x ^ z)
  return (
    ofResult(z, rl, bits) |
    ((borrow >>> top) & 1 ? CF : 0) |
    ((overflow >>> top) & 1 ? OF : 0) |
    ((al ^ bl ^ rl) & AF)
  )
}

/** Flags of a logical result: CF, OF and AF are zero. */
export function statusOfLogic(r32: Int32Array, r: number, bits: number): number {
  return ofResult(r32[2 * r + 1]!, r32[2 * r]!, bits)
}

/** Condition `n` (SDM vol. 2, appendix B.1.4.7): even numbers the plain test, odd ones its opposite. */
export function statusTest(flags: number, n: number): boolean {
  let yes: boolean
  switch (n >> 1) {
    case 0:
      yes = (flags & OF) !== 0
      break
    case 1:
      yes = (flags & CF) !== 0
      break
    case 2:
      yes = (flags & ZF) !== 0
      break
    case 3:
      yes = (flags & (CF | ZF)) !== 0
      break
    case 4:
      yes = (flags & SF) !== 0
      break
    case 5:
      yes = (flags & PF) !== 0
      break
    case 6:
      yes = ((flags >> 4) & SF) !== (flags & SF)
      break
    default:
      yes = (flags & ZF) !== 0 || ((flags >> 4) & SF) !== (flags & SF)
  }
  return yes !== ((n & 1) === 1)
}
