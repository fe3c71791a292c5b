// Loads and stores of general registers, except atomics (DDI 0487, C6.2): what each does, as operations.

import type { Width as AccessWidth, Slot } from '../ir/builder.js'
import type { Emitter } from './emitter.js'
import { ACCESS } from './ports.js'
import { SLOT } from './registers.js'

/** When the base register is written. */
export type Writeback = 'none' | 'pre' | 'post'

/**
 * Hands the address of base plus a constant to the access, and writes the base back after it. A base that is also
 * transferred ends as the written-back address.
 */
export function withAddress(
  b: Emitter,
  n: number,
  offset: number,
  writeback: Writeback,
  access: (address: Slot) => void,
): void {
  const base = b.base(n)
  // With writeback a copy, since the transfer may change the register.
  const moved =
    offset === 0 && writeback === 'none' ? base : b.value('i64.addk', { a: base, imm: offset })
  access(writeback === 'post' ? base : moved)
  if (writeback !== 'none') b.emit('i64.mov', { d: n, a: moved })
}

/** Loads `size` bytes into register t, extended as `opc` says: 1 zeros, 2 the sign to 64 bits, 3 to 32. */
export function loadTo(
  b: Emitter,
  t: number,
  size: number,
  opc: number,
  address: Slot,
  access: number,
): void {
  const w = (1 << size) as AccessWidth
  if (t !== 31 && (opc === 1 || (size === 2 && opc === 3))) {
    b.emit(`load.${(8 * w) as 8 | 16 | 32 | 64}`, { d: t, a: address, imm: access })
    return
  }
  const v = b.load(w, address, access)
  if (t === 31) return
  if (opc === 2) b.emit('i64.extends', { d: t, a: b.signExtend32(w, v) })
  else b.emit(w === 1 ? 'i32.extend8' : 'i32.extend16', { d: t, a: v })
}

export const storeFrom = (
  b: Emitter,
  t: number,
  size: number,
  address: Slot,
  access: number,
): void => b.store((1 << size) as AccessWidth, address, b.x(t), access)

interface Single {
  readonly size: number
  readonly opc: number
  readonly Rn: number
  readonly Rt: number
}

/** Whether the encoding is PRFM, which does nothing here, or reserved. */
export const isPrefetch = (f: { size: number; opc: number }): boolean => f.size === 3 && f.opc === 2

/** LDR, STR and their kin with base and offset in bytes. */
export function LDR(
  b: Emitter,
  f: Single,
  offset: number,
  writeback: Writeback = 'none',
  bits = 0,
): void {
  if (isPrefetch(f)) return
  withAddress(b, f.Rn, offset, writeback, address => {
    if (f.opc === 0) storeFrom(b, f.Rt, f.size, address, ACCESS.WRITE | bits)
    else loadTo(b, f.Rt, f.size, f.opc, address, ACCESS.READ | bits)
  })
}

/** The same with an index register. */
export function LDR_REGISTER(
  b: Emitter,
  f: Single & { Rm: number; option: number; S: number },
): void {
  if (isPrefetch(f)) return
  const index = b.extended(8, f.Rm, f.option, f.S ? f.size : 0)
  const address = b.value('i64.add', { a: b.base(f.Rn), b: index })
  if (f.opc === 0) storeFrom(b, f.Rt, f.size, address, ACCESS.WRITE)
  else loadTo(b, f.Rt, f.size, f.opc, address, ACCESS.READ)
}

/** LDR (literal): `offset` from this instruction. */
export function LDR_LITERAL(b: Emitter, f: { opc: number; Rt: number }, offset: number): void {
  if (f.opc === 3) return
  const address = b.value('i64.addk', { a: SLOT.PC, imm: offset })
  loadTo(b, f.Rt, f.opc === 1 ? 3 : 2, f.opc === 2 ? 2 : 1, address, ACCESS.READ)
}

/** LDP, STP, LDPSW, LDNP, STNP. Nothing is written before both elements are loaded; of equal targets the second stands. */
export function LDP(
  b: Emitter,
  f: { opc: number; L: number; imm7: number; Rt2: number; Rn: number; Rt: number },
  writeback: Writeback,
): void {
  const size = f.opc === 2 ? 3 : 2
  const w = (1 << size) as 4 | 8
  const offset = ((f.imm7 << 25) >> 25) * w
  withAddress(b, f.Rn, offset, writeback, address => {
    const second = b.value('i64.addk', { a: address, imm: w })
    if (!f.L) {
      storeFrom(b, f.Rt, size, address, ACCESS.WRITE)
      storeFrom(b, f.Rt2, size, second, ACCESS.WRITE)
      return
    }
    const x = b.load(w, address, ACCESS.READ)
    const y = b.load(w, second, ACCESS.READ)
    const move = f.opc === 1 ? 'i64.extends' : 'i64.mov'
    if (f.Rt !== 31) b.emit(move, { d: f.Rt, a: x })
    if (f.Rt2 !== 31) b.emit(move, { d: f.Rt2, a: y })
  })
}
