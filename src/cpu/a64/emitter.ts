// What instruction semantics are written with: the IR builder plus registers, addresses and flags of A64.
// The order rule that makes faults exact: loads and stores first, then flags, then registers.

import { IrBuilder, type Slot } from '../ir/builder.js'
import { EC, SLOT, SLOTS } from './registers.js'

/** Width of an operation in bytes: W registers 4, X registers 8. */
export type Width = 4 | 8

/** Width of a W or X form. */
export const widthOf = (sf: number): Width => (sf ? 8 : 4)

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

  /** Writes general register n: W forms clear the upper half, XZR is dropped. */
  setX(w: Width, n: number, a: Slot): void {
    if (n !== 31) this.setXsp(w, n, a)
  }

  /** Writes general register n or SP. */
  setXsp(w: Width, n: number, a: Slot): void {
    this.emit(w === 8 ? 'i64.mov' : 'i64.extendu', { d: n, a })
  }

  /** Raises UNDEFINED. */
  undefined(): void {
    this.trap(EC.UNKNOWN, 0)
  }
}
