// What instruction semantics are written with: the IR builder plus registers, addresses and flags of A64.
// The order rule that makes faults exact: loads and stores first, then flags, then registers.

import { IrBuilder, type Slot } from '../ir/builder.js'
import { EC, SLOT, SLOTS } from './registers.js'
import { checkStack } from './routines.js'

/** Width of an operation in bytes: W registers 4, X registers 8. */
export type Width = 4 | 8

/** Width of a W or X form. */
export const widthOf = (sf: number): Width => (sf ? 8 : 4)

/** Types of results that fill a slot, and of those that have nothing in the upper half. */
const WHOLE_SLOT = ['i64', 'i32']
const LOW_HALF = ['i32']

/** Emits the operations of one instruction at a time. */
export class Emitter extends IrBuilder {
  constructor() {
    super(SLOT.TEMP, SLOTS)
  }

  /** Slot of general register n, 31 being XZR. Its low half is Wn. */
  x(n: number): Slot {
    return n === 31 ? SLOT.ZERO : n
  }

  /** Slot of general register n, 31 being SP. */
  xsp(n: number): Slot {
    return n
  }

  /**
   * Writes general register n: W forms clear the upper half, XZR is dropped. An intermediate value is used up: the
   * operation that made it last then writes the register itself.
   */
  setX(w: Width, n: number, a: Slot): void {
    if (n !== 31) this.setXsp(w, n, a)
  }

  /** Writes general register n or SP. */
  setXsp(w: Width, n: number, a: Slot): void {
    if (this.redirect(a, n, w === 8 ? WHOLE_SLOT : LOW_HALF)) return
    this.emit(w === 8 ? 'i64.mov' : 'i64.extendu', { d: n, a })
  }

  /** Register m shifted by a constant: 0 LSL, 1 LSR, 2 ASR, 3 ROR. */
  shifted(w: Width, m: number, type: number, amount: number): Slot {
    const a = this.x(m)
    if (amount === 0 || m === 31) return a
    if (type === 3) {
      if (w === 8) return this.value('i64.rotrk', { a, imm: amount })
      return this.value('i32.rotr', { a, b: this.const32(amount) })
    }
    const name = type === 0 ? 'shlk' : type === 1 ? 'shruk' : 'shrsk'
    return this.value(w === 8 ? `i64.${name}` : `i32.${name}`, { a, imm: amount })
  }

  /** Register m extended as `option` says (0 to 3 unsigned from 8, 16, 32, 64 bits, 4 to 7 signed), then shifted left. */
  extended(w: Width, m: number, option: number, shift: number): Slot {
    const size = option & 3
    let a = this.x(m)
    if (size === 0 || size === 1) {
      if (option < 4) a = this.cut(size === 0 ? 1 : 2, a)
      else a = this.signExtend(size === 0 ? 1 : 2, a)
    } else if (size === 2 && w === 8)
      a = this.value(option < 4 ? 'i64.extendu' : 'i64.extends', { a })
    if (shift === 0) return a
    return this.value(w === 8 ? 'i64.shlk' : 'i32.shlk', { a, imm: shift })
  }

  /** Slot of a base register, after the check that a misaligned SP fails. */
  base(n: number): Slot {
    if (n === 31)
      this.when(this.value('i32.andk', { a: SLOT.SP, imm: 15 }), () => this.call(checkStack))
    return n
  }

  /** Condition n, 0 to 15, as 0 or 1. */
  condition(n: number): Slot {
    return this.value('nzcv.test', { a: SLOT.NZCV, imm: n })
  }

  /** Raises UNDEFINED. */
  undefined(): void {
    this.trap(EC.UNKNOWN, 0)
  }
}
