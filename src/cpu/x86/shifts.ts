// Shifts, rotates, and instructions on single bits (SDM vol. 2, by mnemonic).
// Counts are taken modulo 32 or 64; a count of zero changes nothing, flags included, but a memory operand is still touched.

import type { Slot, Width } from '../ir/builder.js'
import type { Emitter } from './emitter.js'
import { FLAG, SLOT } from './registers.js'

/** The masked count, an i32. */
function count(b: Emitter, n: number): Slot {
  return b.value('i32.andk', { a: b.read(n), imm: b.width(0) === 8 ? 63 : 31 })
}

/** Bit `at` of an i64, as i32. */
function bit(b: Emitter, a: Slot, at: Slot): Slot {
  return b.value('i32.andk', { a: b.shru64(a, at), imm: 1 })
}

const minus = (b: Emitter, x: number, n: Slot): Slot =>
  b.value('i32.sub', { a: b.const32(x), b: n })

/** i64 shift right by 64 - n for 0 <= n <= 63, where a shift by 64 gives zero. */
const shruFrom64 = (b: Emitter, a: Slot, n: Slot): Slot =>
  b.shru64(b.shru64(a, b.const32(1)), minus(b, 63, n))

/** Most significant bit of a value of width w. */
function top(b: Emitter, w: Width, a: Slot): Slot {
  return bit(b, w === 8 ? a : b.zeroExtend(w, a), b.const32(8 * w - 1))
}

const xor = (b: Emitter, x: Slot, y: Slot): Slot => b.value('i32.xor', { a: x, b: y })

interface Shifted {
  readonly result: Slot
  readonly carry: Slot
  readonly overflow: Slot
}

/** Runs a shift when its count is not zero. The written value is always the old or the new one. */
function shift(b: Emitter, n: Slot, logical: boolean, body: (x: Slot) => Shifted): void {
  const w = b.width(0)
  const x = b.modify(0)
  b.when(n, () => {
    const { result, carry, overflow } = body(x)
    b.writeWithFlags(0, result, () => {
      if (logical) b.flagsOfLogic(w, result, FLAG.SF | FLAG.ZF | FLAG.PF | FLAG.AF)
      b.putFlag(0, carry)
      b.putFlag(11, overflow)
    })
  })
  // A 32-bit destination loses its upper half even when nothing is shifted.
  if (w === 4 && !b.isMemory(0)) b.write(0, b.read(0))
}

export function SHL(b: Emitter): void {
  const w = b.width(0)
  const n = count(b, 1)
  shift(b, n, true, x => {
    const wide = b.zeroExtend(w, x)
    const r = b.shl64(wide, n)
    const result = b.narrow(w, r)
    const carry = w === 8 ? bit(b, x, minus(b, 64, n)) : bit(b, r, b.const32(8 * w))
    return { result, carry, overflow: xor(b, top(b, w, result), carry) }
  })
}

export function SHR(b: Emitter): void {
  const w = b.width(0)
  const n = count(b, 1)
  shift(b, n, true, x => {
    const wide = b.zeroExtend(w, x)
    return {
      result: b.narrow(w, b.shru64(wide, n)),
      carry: bit(b, wide, b.value('i32.sub', { a: n, b: b.const32(1) })),
      overflow: top(b, w, x),
    }
  })
}

export function SAR(b: Emitter): void {
  const w = b.width(0)
  const n = count(b, 1)
  shift(b, n, true, x => {
    const wide = b.signExtend(w, x)
    return {
      result: b.narrow(w, b.shrs64(wide, n)),
      carry: bit(b, b.shrs64(wide, b.value('i32.sub', { a: n, b: b.const32(1) })), b.const32(0)),
      overflow: b.const32(0),
    }
  })
}

/** x rotated left by 0 <= n < width. */
function rotateLeft(b: Emitter, w: Width, x: Slot, n: Slot): Slot {
  const wide = b.zeroExtend(w, x)
  const left = b.shl64(wide, n)
  const right = w === 8 ? shruFrom64(b, wide, n) : b.shru64(wide, minus(b, 8 * w, n))
  return b.narrow(w, b.logic(8, 'or', left, right))
}

export function ROL(b: Emitter): void {
  const w = b.width(0)
  const n = count(b, 1)
  shift(b, n, false, x => {
    const result = rotateLeft(b, w, x, b.value('i32.andk', { a: n, imm: 8 * w - 1 }))
    const carry = b.value('i32.andk', { a: result, imm: 1 })
    return { result, carry, overflow: xor(b, top(b, w, result), carry) }
  })
}

export function ROR(b: Emitter): void {
  const w = b.width(0)
  const n = count(b, 1)
  shift(b, n, false, x => {
    const left = b.value('i32.andk', { a: minus(b, 8 * w, n), imm: 8 * w - 1 })
    const result = rotateLeft(b, w, x, left)
    const carry = top(b, w, result)
    const below = bit(b, b.zeroExtend(w, result), b.const32(8 * w - 2))
    return { result, carry, overflow: xor(b, carry, below) }
  })
}

/** The count of a rotate through carry: modulo width + 1 for bytes and words. */
function throughCarry(b: Emitter): Slot {
  const w = b.width(0)
  const n = count(b, 1)
  if (w >= 4) return n
  const modulus = b.const64(BigInt(8 * w + 1))
  const parts = b.temp(2)
  const wide = b.zeroExtend(4, n)
  b.emit('divide.u', { d: parts, a: b.const64(0n), b: wide, c: modulus, imm: 64 })
  return parts + 1
}

/** The i64 value rotated left through CF by 1 <= n <= 63, and the bit that ends in CF. */
function rotateWithCarry(b: Emitter, w: Width, x: Slot, n: Slot, left: boolean): Shifted {
  const carryIn = b.value('i64.extendu', { a: b.carry() })
  const one = b.const32(1)
  const before = b.value('i32.sub', { a: n, b: one })
  const wide = b.zeroExtend(w, x)
  let r: Slot
  let carry: Slot
  if (left) {
    const low = b.shl64(carryIn, before)
    const high = b.shl64(wide, n)
    const wrapped =
      w === 8
        ? b.shru64(b.shru64(wide, one), minus(b, 64, n))
        : b.shru64(wide, minus(b, 8 * w + 1, n))
    // Shifting 64 bits right by 65 - n: n = 1 wraps nothing.
    const wraps =
      w === 8 ? b.value('i64.select', { c: before, a: wrapped, b: b.const64(0n) }) : wrapped
    r = b.logic(8, 'or', b.logic(8, 'or', high, low), wraps)
    carry = bit(b, wide, minus(b, 8 * w, n))
  } else {
    const low = b.shru64(wide, n)
    const high = b.shl64(carryIn, minus(b, 8 * w, n))
    const wrapped = b.shl64(wide, minus(b, 8 * w + 1, n))
    const wraps =
      w === 8 ? b.value('i64.select', { c: before, a: wrapped, b: b.const64(0n) }) : wrapped
    r = b.logic(8, 'or', b.logic(8, 'or', low, high), wraps)
    carry = bit(b, wide, before)
  }
  const result = b.narrow(w, r)
  const other = left ? carry : bit(b, b.zeroExtend(w, result), b.const32(8 * w - 2))
  return { result, carry, overflow: xor(b, top(b, w, result), other) }
}

export function RCL(b: Emitter): void {
  const w = b.width(0)
  const n = throughCarry(b)
  shift(b, n, false, x => rotateWithCarry(b, w, x, n, true))
}

export function RCR(b: Emitter): void {
  const w = b.width(0)
  const n = throughCarry(b)
  shift(b, n, false, x => rotateWithCarry(b, w, x, n, false))
}

/** Double-precision shifts. A 16-bit count above 16 is undefined by the manual; here the source repeats. */
export function SHLD(b: Emitter): void {
  const w = b.width(0)
  const y = b.read(1)
  const n = count(b, 2)
  shift(b, n, true, x => {
    let result: Slot
    let carry: Slot
    if (w === 8) {
      result = b.logic(8, 'or', b.shl64(x, n), shruFrom64(b, y, n))
      carry = bit(b, x, minus(b, 64, n))
    } else if (w === 4) {
      const both = b.logic(8, 'or', b.shl64(b.zeroExtend(4, x), b.const32(32)), b.zeroExtend(4, y))
      result = b.narrow(4, b.shru64(b.shl64(both, n), b.const32(32)))
      carry = bit(b, both, minus(b, 64, n))
    } else {
      const pair = b.logic(8, 'or', b.shl64(b.zeroExtend(2, x), b.const32(16)), b.zeroExtend(2, y))
      const all = b.logic(8, 'or', b.shl64(pair, b.const32(16)), b.zeroExtend(2, y))
      result = b.narrow(2, b.shru64(b.shl64(all, n), b.const32(32)))
      carry = bit(b, all, minus(b, 48, n))
    }
    return { result, carry, overflow: xor(b, top(b, w, result), top(b, w, x)) }
  })
}

export function SHRD(b: Emitter): void {
  const w = b.width(0)
  const y = b.read(1)
  const n = count(b, 2)
  shift(b, n, true, x => {
    const before = b.value('i32.sub', { a: n, b: b.const32(1) })
    let result: Slot
    let carry: Slot
    if (w === 8) {
      const high = b.shl64(b.shl64(y, b.const32(1)), minus(b, 63, n))
      result = b.logic(8, 'or', b.shru64(x, n), high)
      carry = bit(b, x, before)
    } else {
      let both = b.logic(8, 'or', b.shl64(b.zeroExtend(w, y), b.const32(8 * w)), b.zeroExtend(w, x))
      if (w === 2) both = b.logic(8, 'or', both, b.shl64(b.zeroExtend(2, x), b.const32(32)))
      result = b.narrow(w, b.shru64(both, n))
      carry = bit(b, both, before)
    }
    return { result, carry, overflow: xor(b, top(b, w, result), top(b, w, x)) }
  })
}

/** BT and its kin: the bit goes to CF; a register index reaches beyond a memory operand (SDM vol. 2, "BT"). */
function bitTest(b: Emitter, change?: (w: Width, x: Slot, mask: Slot) => Slot): void {
  const w = b.width(0)
  const index = b.read(1)
  if (b.isMemory(0) && b.operand(1).kind === 'register') {
    const bits = b.signExtend(w, index)
    const unit = b.shrs64(bits, b.const32(w === 8 ? 6 : w === 4 ? 5 : 4))
    b.displace(0, b.shl64(unit, b.const32(w === 8 ? 3 : w === 4 ? 2 : 1)))
  }
  const at = b.value('i32.andk', { a: index, imm: 8 * w - 1 })
  const x = change ? b.modify(0) : b.read(0)
  const carry = bit(b, b.zeroExtend(w, x), at)
  if (!change) {
    b.putFlag(0, carry)
    return
  }
  const mask = b.narrow(w, b.shl64(b.const64(1n), at))
  b.writeWithFlags(0, change(w, x, mask), () => b.putFlag(0, carry))
}

export function BT(b: Emitter): void {
  bitTest(b)
}

export function BTS(b: Emitter): void {
  bitTest(b, (w, x, mask) => b.logic(w, 'or', x, mask))
}

export function BTR(b: Emitter): void {
  bitTest(b, (w, x, mask) => b.logic(w, 'and', x, b.not(w, mask)))
}

export function BTC(b: Emitter): void {
  bitTest(b, (w, x, mask) => b.logic(w, 'xor', x, mask))
}

/** ZF from a source; the destination stays as it is when the source is zero. */
function scan(b: Emitter, find: (wide: Slot) => Slot): void {
  const w = b.width(0)
  const x = b.read(1)
  const zero = b.isZero(w, x)
  b.putFlag(6, zero)
  b.when(b.value('i32.eqz', { a: zero }), () => {
    b.write(0, b.value('i64.extendu', { a: find(b.zeroExtend(w, x)) }))
  })
}

export function BSF(b: Emitter): void {
  scan(b, wide => b.value('i64.ctz', { a: wide }))
}

export function BSR(b: Emitter): void {
  scan(b, wide => minus(b, 63, b.value('i64.clz', { a: wide })))
}

/** Counts zeros: CF when there was no one bit, ZF when the count is zero. */
function countZeros(b: Emitter, find: (w: Width, wide: Slot) => Slot): void {
  const w = b.width(0)
  const x = b.read(1)
  const none = b.isZero(w, x)
  const n = b.value('i64.extendu', { a: find(w, b.zeroExtend(w, x)) })
  b.putFlag(0, none)
  b.putFlag(6, b.isZero(4, n))
  b.write(0, n)
}

export function TZCNT(b: Emitter): void {
  countZeros(b, (w, wide) => {
    const limit = w === 8 ? wide : b.logic(8, 'or', wide, b.const64(1n << BigInt(8 * w)))
    return b.value('i64.ctz', { a: limit })
  })
}

export function LZCNT(b: Emitter): void {
  countZeros(b, (w, wide) =>
    b.value('i32.sub', { a: b.value('i64.clz', { a: wide }), b: b.const32(64 - 8 * w) }),
  )
}

export function POPCNT(b: Emitter): void {
  const w = b.width(0)
  const x = b.read(1)
  const n = b.value('i64.extendu', { a: b.value('i64.popcnt', { a: b.zeroExtend(w, x) }) })
  b.putFlags(FLAG.CF | FLAG.PF | FLAG.AF | FLAG.SF | FLAG.OF, b.const32(0))
  b.putFlag(6, b.isZero(w, x))
  b.write(0, n)
}

/** A 16-bit BSWAP is undefined by the manual; processors give zero in the low word. */
export function BSWAP(b: Emitter): void {
  if (b.size === 2) {
    b.setRegister(2, operandRegister(b), b.const32(0))
    return
  }
  const w = b.width(0)
  b.write(0, b.value(w === 8 ? 'i64.bswap' : 'i32.bswap', { a: b.read(0) }))
}

function operandRegister(b: Emitter): number {
  const o = b.operand(0)
  return o.kind === 'register' ? o.register : SLOT.RAX
}
