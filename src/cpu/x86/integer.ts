// Integer arithmetic and logic (SDM vol. 2, by mnemonic). Each function emits the operations of one instruction.

import type { Slot, Width } from '../ir/builder.js'
import { type Emitter, STATUS } from './emitter.js'
import { FLAG, SLOT, VECTOR } from './registers.js'

export function ADD(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const y = b.read(1)
  const r = b.add(w, x, y)
  b.writeWithFlags(0, r, () => b.flagsOfAdd(w, x, y, r))
}

/** CF as a value of width w. */
function carryAs(b: Emitter, w: Width): Slot {
  return b.zeroExtend(w === 8 ? 4 : 8, b.carry())
}

export function ADC(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const y = b.read(1)
  const r = b.add(w, b.add(w, x, y), carryAs(b, w))
  b.writeWithFlags(0, r, () => b.flagsOfAdd(w, x, y, r))
}

export function SUB(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const y = b.read(1)
  const r = b.sub(w, x, y)
  b.writeWithFlags(0, r, () => b.flagsOfSub(w, x, y, r))
}

export function SBB(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const y = b.read(1)
  const r = b.sub(w, b.sub(w, x, y), carryAs(b, w))
  b.writeWithFlags(0, r, () => b.flagsOfSub(w, x, y, r))
}

export function CMP(b: Emitter): void {
  const w = b.width(0)
  const x = b.read(0)
  const y = b.read(1)
  b.flagsOfSub(w, x, y, b.sub(w, x, y))
}

function logic(b: Emitter, name: 'and' | 'or' | 'xor'): void {
  const w = b.width(0)
  const r = b.logic(w, name, b.modify(0), b.read(1))
  b.writeWithFlags(0, r, () => b.flagsOfLogic(w, r))
}

export function AND(b: Emitter): void {
  logic(b, 'and')
}

export function OR(b: Emitter): void {
  logic(b, 'or')
}

export function XOR(b: Emitter): void {
  logic(b, 'xor')
}

export function TEST(b: Emitter): void {
  const w = b.width(0)
  b.flagsOfLogic(w, b.logic(w, 'and', b.read(0), b.read(1)))
}

export function NOT(b: Emitter): void {
  b.write(0, b.not(b.width(0), b.modify(0)))
}

export function NEG(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const zero = b.constant(w, 0n)
  const r = b.sub(w, zero, x)
  b.writeWithFlags(0, r, () => b.flagsOfSub(w, zero, x, r))
}

/** INC and DEC leave CF alone. */
export function INC(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const one = b.constant(w, 1n)
  const r = b.add(w, x, one)
  b.writeWithFlags(0, r, () => b.flagsOfAdd(w, x, one, r, STATUS & ~FLAG.CF))
}

export function DEC(b: Emitter): void {
  const w = b.width(0)
  const x = b.modify(0)
  const one = b.constant(w, 1n)
  const r = b.sub(w, x, one)
  b.writeWithFlags(0, r, () => b.flagsOfSub(w, x, one, r, STATUS & ~FLAG.CF))
}

/** CF and OF together, from bit 0 of an i32. */
function carryAndOverflow(b: Emitter, yes: Slot): void {
  b.putFlag(0, yes)
  b.putFlag(11, yes)
}

/** 1 when two i64 values differ. */
function differ64(b: Emitter, x: Slot, y: Slot): Slot {
  const same = b.value('i64.eqz', { a: b.logic(8, 'xor', x, y) })
  return b.value('i32.eqz', { a: same })
}

/** One-operand multiplication into rDX:rAX, or AX for bytes. */
function multiply(b: Emitter, signed: boolean): void {
  const w = b.width(0)
  const y = b.read(0)
  if (w === 8) {
    const low = b.mul(8, SLOT.RAX, y)
    const high = b.value(signed ? 'i64.mulhs' : 'i64.mulhu', { a: SLOT.RAX, b: y })
    const plain = signed ? b.shrs64(low, b.const32(63)) : b.const64(0n)
    carryAndOverflow(b, differ64(b, high, plain))
    b.setRegister(8, SLOT.RDX, high)
    b.setRegister(8, SLOT.RAX, low)
    return
  }
  const x = b.register(w, SLOT.RAX)
  const extend = (s: Slot) => (signed ? b.signExtend(w, s) : b.zeroExtend(w, s))
  const product = b.mul(8, extend(x), extend(y))
  const low = b.narrow(w, product)
  carryAndOverflow(b, differ64(b, product, extend(low)))
  if (w === 1) {
    b.setRegister(2, SLOT.RAX, product)
    return
  }
  b.setRegister(w, SLOT.RDX, b.shru64(product, b.const32(8 * w)))
  b.setRegister(w, SLOT.RAX, low)
}

export function MUL(b: Emitter): void {
  multiply(b, false)
}

export function IMUL1(b: Emitter): void {
  multiply(b, true)
}

/** Two operands to a register; CF and OF say that the product did not fit. */
function multiplyInto(b: Emitter, x: Slot, y: Slot): void {
  const w = b.width(0)
  if (w === 8) {
    const low = b.mul(8, x, y)
    const high = b.value('i64.mulhs', { a: x, b: y })
    carryAndOverflow(b, differ64(b, high, b.shrs64(low, b.const32(63))))
    b.write(0, low)
    return
  }
  const product = b.mul(8, b.signExtend(w, x), b.signExtend(w, y))
  const low = b.narrow(w, product)
  carryAndOverflow(b, differ64(b, product, b.signExtend(w, low)))
  b.write(0, low)
}

export function IMUL2(b: Emitter): void {
  multiplyInto(b, b.read(0), b.read(1))
}

export function IMUL3(b: Emitter): void {
  multiplyInto(b, b.read(1), b.read(2))
}

/** rDX:rAX by the operand, or AX for bytes; #DE on zero or a quotient too large. */
function divide(b: Emitter, signed: boolean): void {
  const w = b.width(0)
  const divisor = b.read(0)
  const quotient = b.temp(2)
  const high = w === 1 ? b.register(1, SLOT.RAX, true) : b.register(w, SLOT.RDX)
  b.emit(signed ? 'divide.s' : 'divide.u', {
    d: quotient,
    a: high,
    b: b.register(w, SLOT.RAX),
    c: divisor,
    imm: 8 * w,
    big: BigInt(VECTOR.DE),
  })
  b.setRegister(w, SLOT.RAX, quotient)
  if (w === 1) b.setRegister(1, SLOT.RAX, quotient + 1, true)
  else b.setRegister(w, SLOT.RDX, quotient + 1)
}

export function DIV(b: Emitter): void {
  divide(b, false)
}

export function IDIV(b: Emitter): void {
  divide(b, true)
}

/** CBW, CWDE, CDQE: the accumulator's lower half extended. */
export function CBW(b: Emitter): void {
  const w = b.size
  const half = (w / 2) as Width
  const x = b.register(half, SLOT.RAX)
  b.setRegister(w, SLOT.RAX, w === 8 ? b.signExtend(4, x) : b.signExtend32(half, x))
}

/** CWD, CDQ, CQO: the accumulator's sign fills rDX. */
export function CWD(b: Emitter): void {
  const w = b.size
  const x = b.signExtend(w, b.register(w, SLOT.RAX))
  b.setRegister(w, SLOT.RDX, b.shrs64(x, b.const32(63)))
}
