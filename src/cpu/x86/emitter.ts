// What instruction semantics are written with: the IR builder plus operands, registers, addresses and flags of x86-64.
// The order rule that makes faults exact: loads and stores first, then flags, then registers.

import { IrBuilder, type Slot, type Width } from '../ir/builder.js'
import { type Instruction, type Operand, widthOf } from './operands.js'
import { ACCESS } from './ports.js'
import { FLAG, SLOT, SLOTS } from './registers.js'

/** All six status flags. */
export const STATUS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF

/** Slot that holds zero whenever an instruction starts; nobody writes it. */
export const ZERO: Slot = 19

/** Emits the operations of one instruction at a time. */
export class Emitter extends IrBuilder {
  #insn: Instruction | undefined
  #addresses: (Slot | undefined)[] = []

  constructor() {
    super(SLOT.TEMP, SLOTS)
  }

  /** Starts an instruction. */
  start(insn: Instruction): void {
    this.begin()
    this.#insn = insn
    this.#addresses = []
  }

  get insn(): Instruction {
    if (!this.#insn) throw new Error('no instruction was started')
    return this.#insn
  }

  operand(n: number): Operand {
    return this.insn.operands[n]!
  }

  /** Operand size of the instruction in bytes. */
  get size(): 2 | 4 | 8 {
    return this.insn.operandSize
  }

  /** Width of operand n. */
  width(n: number): Width {
    return widthOf(this.operand(n))
  }

  isMemory(n: number): boolean {
    return this.operand(n).kind === 'memory'
  }

  /** A register of a width: the slot itself where its low part is the value. */
  register(w: Width, register: number, high = false): Slot {
    if (w >= 4) return register
    if (w === 1) return this.value('byte.get', { a: register, imm: high ? 1 : 0 })
    return this.value('i32.andk', { a: register, imm: 0xffff })
  }

  /** Writes a register: 32 bits clear the upper half, 16 and 8 keep the rest (SDM vol. 1, 3.4.1.1). */
  setRegister(w: Width, register: number, a: Slot, high = false): void {
    if (w === 8) this.emit('i64.mov', { d: register, a })
    else if (w === 4) this.emit('i64.extendu', { d: register, a })
    else if (w === 2) this.emit('word.put', { d: register, a })
    else this.emit('byte.put', { d: register, a, imm: high ? 1 : 0 })
  }

  /** A copy that later register writes cannot change. */
  copy(w: Width, a: Slot): Slot {
    return this.value(w === 8 ? 'i64.mov' : 'i32.mov', { a })
  }

  /** Effective address of memory operand n, without its segment. */
  effectiveAddress(n: number): Slot {
    const o = this.operand(n)
    if (o.kind !== 'memory') throw new Error(`operand ${n} is not memory`)
    const { base, index, scale, disp, addressSize } = o.memory
    const from = base === 16 ? SLOT.NEXT : base < 0 ? ZERO : base
    const a = this.value('i64.address', {
      a: from,
      b: index < 0 ? ZERO : index,
      imm: scale,
      big: disp,
    })
    return addressSize === 8 ? a : this.value('i64.extendu', { a })
  }

  /** Linear address of memory operand n; computed once an instruction. */
  address(n: number): Slot {
    return (this.#addresses[n] ??= this.withSegment(n, this.effectiveAddress(n)))
  }

  /** Replaces the address of operand n by one further on (bit strings). */
  displace(n: number, bytes: Slot): void {
    this.#addresses[n] = this.value('i64.add', { a: this.address(n), b: bytes })
  }

  /** Adds the base of the segment that operand n names. */
  withSegment(n: number, a: Slot): Slot {
    const o = this.operand(n)
    const segment = o.kind === 'memory' ? o.memory.segment : -1
    return segment < 0 ? a : this.value('i64.add', { a, b: SLOT.ES_BASE + segment })
  }

  /** Access bits of operand n beside read and write. */
  accessBits(n: number): number {
    const o = this.operand(n)
    if (o.kind !== 'memory') return 0
    const { base, segment } = o.memory
    const stack = segment < 0 && (base === 4 || base === 5) ? ACCESS.STACK : 0
    return stack | (this.insn.lock ? ACCESS.LOCKED : 0)
  }

  #read(n: number, access: number): Slot {
    const o = this.operand(n)
    const w = widthOf(o)
    if (o.kind === 'register') return this.register(w, o.register, o.high)
    if (o.kind === 'immediate') return this.constant(w, o.value)
    if (o.kind !== 'memory') throw new Error(`operand ${n} has no value`)
    return this.load(w, this.address(n), access | this.accessBits(n))
  }

  /** Value of operand n. */
  read(n: number): Slot {
    return this.#read(n, ACCESS.READ)
  }

  /** Value of an operand that is written next: a memory one faults here as a write would. */
  modify(n: number): Slot {
    return this.#read(n, ACCESS.MODIFY)
  }

  /** Writes operand n. */
  write(n: number, a: Slot): void {
    const o = this.operand(n)
    if (o.kind === 'register') this.setRegister(widthOf(o), o.register, a, o.high)
    else if (o.kind === 'memory')
      this.store(widthOf(o), this.address(n), a, ACCESS.WRITE | this.accessBits(n))
    else throw new Error(`operand ${n} cannot be written`)
  }

  /** Writes operand n and the flags, in the order that keeps a fault exact and the sources intact. */
  writeWithFlags(n: number, a: Slot, flags: () => void): void {
    if (this.isMemory(n)) {
      this.write(n, a)
      flags()
    } else {
      flags()
      this.write(n, a)
    }
  }

  flagsOfAdd(w: Width, a: Slot, b: Slot, c: Slot, mask = STATUS): void {
    this.emit('status.add', { d: SLOT.FLAGS, a, b, c, imm: (mask << 8) | (8 * w) })
  }

  flagsOfSub(w: Width, a: Slot, b: Slot, c: Slot, mask = STATUS): void {
    this.emit('status.sub', { d: SLOT.FLAGS, a, b, c, imm: (mask << 8) | (8 * w) })
  }

  flagsOfLogic(w: Width, c: Slot, mask = STATUS): void {
    this.emit('status.logic', { d: SLOT.FLAGS, c, imm: (mask << 8) | (8 * w) })
  }

  /** Sets the flags of a mask from a value whose bits stand where RFLAGS has them. */
  putFlags(mask: number, a: Slot): void {
    this.emit('status.put', { d: SLOT.FLAGS, a, imm: mask })
  }

  /** Sets one flag, bit number `bit`, from bit 0 of an i32. */
  putFlag(bit: number, a: Slot): void {
    this.putFlags(1 << bit, bit === 0 ? a : this.value('i32.shl', { a, b: this.const32(bit) }))
  }

  /** CF as 0 or 1. */
  carry(): Slot {
    return this.value('i32.andk', { a: SLOT.FLAGS, imm: 1 })
  }

  /** Condition n, 0 to 15, as 0 or 1. */
  condition(n: number): Slot {
    return this.value('status.test', { a: SLOT.FLAGS, imm: n })
  }
}
