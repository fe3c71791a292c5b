// What a decoder writes operations with: typed methods, slots for intermediate values, conditional groups.
// The width-generic methods take a width in bytes: 8 is i64 arithmetic, less is i32 arithmetic cut to the width.

import { type IrOp, OP_NAMES, OPS, type OpName, type Routine } from './ops.js'

/** Number of a slot that holds a value. */
export type Slot = number

/** Operand width in bytes. */
export type Width = 1 | 2 | 4 | 8

type Fields = Partial<Pick<IrOp, 'd' | 'a' | 'b' | 'c' | 'imm' | 'big' | 'routine'>>

/** Collects the operations of one instruction. */
export class IrBuilder {
  readonly ops: IrOp[] = []
  readonly #first: Slot
  readonly #end: Slot
  #next: Slot
  /** Operations before this one are behind the end of a conditional group. */
  #fence = 0

  /** Intermediate values take slots from `first` up to, not including, `end`. */
  constructor(first: Slot, end: Slot) {
    this.#first = this.#next = first
    this.#end = end
  }

  /** Forgets everything: the next instruction starts. */
  begin(): void {
    this.ops.length = 0
    this.#next = this.#first
    this.#fence = 0
  }

  /** The operations so far, safe to keep. */
  finish(): readonly IrOp[] {
    return this.ops.slice()
  }

  /** A fresh slot, or the first of several. */
  temp(count = 1): Slot {
    const slot = this.#next
    this.#next += count
    if (this.#next > this.#end) throw new Error('an instruction needs more intermediate slots')
    return slot
  }

  emit(name: OpName, f: Fields): IrOp {
    const { d = 0, a = 0, b = 0, c = 0, imm = 0, big = 0n, routine } = f
    const op: IrOp = { code: OPS[name].code, d, a, b, c, imm, big, routine }
    this.ops.push(op)
    return op
  }

  /** An operation whose result goes to a fresh slot. */
  value(name: OpName, f: Fields): Slot {
    const d = this.temp()
    this.emit(name, { ...f, d })
    return d
  }

  /**
   * Makes the last operation write slot `d` when it has just made the intermediate value `a`, which nobody uses again.
   * False when it did not, or its result is not of one of the types.
   */
  redirect(a: Slot, d: Slot, types: readonly string[]): boolean {
    const last = this.ops.at(-1)
    if (last === undefined || last.d !== a || a < this.#first) return false
    if (this.ops.length <= this.#fence || !types.includes(OPS[OP_NAMES[last.code]!].result))
      return false
    this.ops.pop()
    const { code, b, c, imm, big, routine } = last
    this.ops.push({ code, d, a: last.a, b, c, imm, big, routine })
    return true
  }

  const32(imm: number): Slot {
    return this.value('i32.const', { imm: imm | 0 })
  }

  const64(big: bigint): Slot {
    return this.value('i64.const', { big })
  }

  constant(w: Width, v: bigint): Slot {
    return w === 8 ? this.const64(v) : this.const32(Number(BigInt.asUintN(8 * w, v)))
  }

  /** An i32 value cut to a width, upper bits zero. */
  cut(w: Width, a: Slot): Slot {
    return w >= 4 ? a : this.value('i32.andk', { a, imm: w === 1 ? 0xff : 0xffff })
  }

  /** An i32 value of width w with its sign in the upper bits. */
  signExtend32(w: Width, a: Slot): Slot {
    if (w >= 4) return a
    return this.value(w === 1 ? 'i32.extend8' : 'i32.extend16', { a })
  }

  /** A value of width w as i64, zero- or sign-extended. */
  zeroExtend(w: Width, a: Slot): Slot {
    return w === 8 ? a : this.value('i64.extendu', { a })
  }

  signExtend(w: Width, a: Slot): Slot {
    return w === 8 ? a : this.value('i64.extends', { a: this.signExtend32(w, a) })
  }

  /** An i64 value as one of width w. */
  narrow(w: Width, a: Slot): Slot {
    return w === 8 ? a : this.cut(w, this.value('i32.mov', { a }))
  }

  #arith(w: Width, name: 'add' | 'sub' | 'mul', a: Slot, b: Slot): Slot {
    if (w === 8) return this.value(`i64.${name}`, { a, b })
    return this.cut(w, this.value(`i32.${name}`, { a, b }))
  }

  add(w: Width, a: Slot, b: Slot): Slot {
    return this.#arith(w, 'add', a, b)
  }

  sub(w: Width, a: Slot, b: Slot): Slot {
    return this.#arith(w, 'sub', a, b)
  }

  mul(w: Width, a: Slot, b: Slot): Slot {
    return this.#arith(w, 'mul', a, b)
  }

  /** Bitwise operations keep a cut value cut. */
  logic(w: Width, name: 'and' | 'or' | 'xor', a: Slot, b: Slot): Slot {
    return this.value(w === 8 ? `i64.${name}` : `i32.${name}`, { a, b })
  }

  /** Every bit of the width inverted. */
  not(w: Width, a: Slot): Slot {
    return this.logic(w, 'xor', a, this.constant(w, -1n))
  }

  select(w: Width, c: Slot, a: Slot, b: Slot): Slot {
    return this.value(w === 8 ? 'i64.select' : 'i32.select', { c, a, b })
  }

  /** i64 shifts by an i32 count below 64. */
  shl64(a: Slot, b: Slot): Slot {
    return this.value('i64.shl', { a, b })
  }

  shru64(a: Slot, b: Slot): Slot {
    return this.value('i64.shru', { a, b })
  }

  shrs64(a: Slot, b: Slot): Slot {
    return this.value('i64.shrs', { a, b })
  }

  /** 1 when a value of width w is zero. */
  isZero(w: Width, a: Slot): Slot {
    return this.value(w === 8 ? 'i64.eqz' : 'i32.eqz', { a })
  }

  load(w: Width, a: Slot, access: number): Slot {
    return this.value(`load.${(w * 8) as 8 | 16 | 32 | 64}`, { a, imm: access })
  }

  store(w: Width, a: Slot, b: Slot, access: number): void {
    this.emit(`store.${(w * 8) as 8 | 16 | 32 | 64}`, { a, b, imm: access })
  }

  /** Operations that run only when an i32 value is not zero. */
  when(condition: Slot, body: () => void): void {
    const skip = this.emit('skip.zero', { a: condition })
    const start = this.ops.length
    body()
    skip.imm = this.ops.length - start
    this.#fence = this.ops.length
  }

  /** Operations that run only when an i32 value is zero. */
  unless(condition: Slot, body: () => void): void {
    const skip = this.emit('skip.set', { a: condition })
    const start = this.ops.length
    body()
    skip.imm = this.ops.length - start
    this.#fence = this.ops.length
  }

  /** Raises an exception when an i32 value is not zero. */
  trapWhen(condition: Slot, vector: number, error?: number): void {
    this.when(condition, () => this.trap(vector, error))
  }

  trap(vector: number, error?: number): void {
    this.emit('trap', { imm: vector, big: error === undefined ? -1n : BigInt(error) })
  }

  /** Runs a routine of the architecture; what it reads and writes is in its name's documentation. */
  call(routine: Routine, f: Fields = {}): void {
    this.emit('call', { ...f, routine })
  }
}
