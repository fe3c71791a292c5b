// Exclusives, load-acquire and store-release, compare and swap, and the atomic memory operations of FEAT_LSE
// (DDI 0487, C6.2), as operations. One thread runs the machine, so a load and the store after it are atomic.

import type { Slot, Width } from '../ir/builder.js'
import type { Emitter } from './emitter.js'
import { routine } from './machine.js'
import { loadTo, storeFrom } from './memory-ops.js'
import { ACCESS } from './ports.js'

/** Arms the monitor on the location at address `a`, `imm` bytes; its translation is known to succeed. */
const armMonitor = routine('armMonitor', ({ state, memory }, op) => {
  const hi = state.r32[2 * op.a + 1]!
  const lo = state.r32[2 * op.a]!
  const physical = memory.translate(hi, lo, ACCESS.READ | ACCESS.EXCLUSIVE, op.imm)
  if (physical < 0) return
  state.armExclusive(physical, op.imm)
  state.steppedExclusive = true
})

/**
 * `d`: 1 when a store-exclusive of `imm` bytes to address `a` may be done. With the monitor open it fails without looking
 * at the address; otherwise it faults as the store would. Another size than the load's fails.
 */
const checkMonitor = routine('checkMonitor', ({ state, memory }, op) => {
  state.r32[2 * op.d] = state.r32[2 * op.d + 1] = 0
  if (!state.exclusive) return
  const hi = state.r32[2 * op.a + 1]!
  const lo = state.r32[2 * op.a]!
  const physical = memory.translate(hi, lo, ACCESS.WRITE | ACCESS.EXCLUSIVE, op.imm)
  if (state.exclusiveAddress === physical && state.exclusiveSize === op.imm) state.r32[2 * op.d] = 1
})

/** CLREX. */
export const clearMonitor = routine('clearMonitor', ({ state }) => state.clearExclusive())

interface Exclusive {
  readonly size: number
  readonly L: number
  readonly Rs: number
  readonly o0: number
  readonly Rt2: number
  readonly Rn: number
  readonly Rt: number
}

/** LDXR, LDAXR, LDXP, LDAXP, STXR, STLXR, STXP, STLXP. */
export function EXCLUSIVE(b: Emitter, f: Exclusive, pair: boolean): void {
  const address = b.base(f.Rn)
  const bytes = (1 << f.size) * (pair ? 2 : 1)
  const bits = ACCESS.EXCLUSIVE | (f.o0 ? ACCESS.ORDERED : 0)
  if (f.L) {
    const [x, y] = loadElements(b, f.size, pair, address, ACCESS.READ | bits)
    b.call(armMonitor, { a: address, imm: bytes })
    b.setX(8, f.Rt, x)
    if (pair) b.setX(8, f.Rt2, y)
    return
  }
  const passes = b.temp()
  b.call(checkMonitor, { d: passes, a: address, imm: bytes })
  b.when(passes, () => {
    const x = b.x(f.Rt)
    if (pair) storeElements(b, f.size, x, b.x(f.Rt2), address, ACCESS.WRITE | bits)
    else storeFrom(b, f.Rt, f.size, address, ACCESS.WRITE | bits)
  })
  b.call(clearMonitor)
  b.setX(8, f.Rs, b.value('i32.eqz', { a: passes }))
}

/** One element, or two neighbouring ones by one access. */
function loadElements(
  b: Emitter,
  size: number,
  pair: boolean,
  address: Slot,
  access: number,
): [Slot, Slot] {
  if (!pair) {
    const v = b.load((1 << size) as Width, address, access)
    return [v, v]
  }
  if (size === 2) {
    const v = b.load(8, address, access)
    return [b.value('i64.extendu', { a: v }), b.value('i64.shruk', { a: v, imm: 32 })]
  }
  const d = b.temp(2)
  b.emit('load.128', { d, a: address, imm: access })
  return [d, d + 1]
}

function storeElements(
  b: Emitter,
  size: number,
  x: Slot,
  y: Slot,
  address: Slot,
  access: number,
): void {
  if (size === 2) {
    const low = b.value('i64.extendu', { a: x })
    const v = b.value('i64.or', { a: low, b: b.value('i64.shlk', { a: y, imm: 32 }) })
    b.store(8, address, v, access)
    return
  }
  const t = b.temp(2)
  b.emit('i64.mov', { d: t, a: x })
  b.emit('i64.mov', { d: t + 1, a: y })
  b.emit('store.128', { a: address, b: t, imm: access })
}

/** LDAR and STLR. */
export function ORDERED(b: Emitter, f: { size: number; L: number; Rn: number; Rt: number }): void {
  const address = b.base(f.Rn)
  if (f.L) loadTo(b, f.Rt, f.size, 1, address, ACCESS.READ | ACCESS.ORDERED)
  else storeFrom(b, f.Rt, f.size, address, ACCESS.WRITE | ACCESS.ORDERED)
}

/** 1 when two values of a size are equal in its bits. */
function equal(b: Emitter, size: number, x: Slot, y: Slot): Slot {
  const w = (1 << size) as Width
  return b.isZero(w, b.cut(w, b.logic(w, 'xor', x, y)))
}

/** CAS and its ordered and narrow forms. Memory is not written when the comparison fails. */
export function CAS(
  b: Emitter,
  f: { size: number; L: number; Rs: number; o0: number; Rn: number; Rt: number },
): void {
  const address = b.base(f.Rn)
  const bits = ACCESS.ATOMIC | (f.L || f.o0 ? ACCESS.ORDERED : 0)
  const old = b.load((1 << f.size) as Width, address, ACCESS.MODIFY | bits)
  b.when(equal(b, f.size, old, b.x(f.Rs)), () => {
    storeFrom(b, f.Rt, f.size, address, ACCESS.WRITE | bits)
  })
  b.setX(8, f.Rs, old)
}

/** CASP: `size` 2 for pairs of W, 3 for pairs of X registers; Rs and Rt are even. */
export function CASP(
  b: Emitter,
  f: { sz: number; L: number; Rs: number; o0: number; Rn: number; Rt: number },
): void {
  const size = f.sz ? 3 : 2
  const address = b.base(f.Rn)
  const bits = ACCESS.ATOMIC | (f.L || f.o0 ? ACCESS.ORDERED : 0)
  const [x, y] = loadElements(b, size, true, address, ACCESS.MODIFY | bits)
  const both = b.logic(4, 'and', equal(b, size, x, b.x(f.Rs)), equal(b, size, y, b.x(f.Rs + 1)))
  b.when(both, () => {
    storeElements(b, size, b.x(f.Rt), b.x(f.Rt + 1), address, ACCESS.WRITE | bits)
  })
  b.setX(8, f.Rs, x)
  b.setX(8, f.Rs + 1, y)
}

/** What memory holds after LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN (opc 0 to 7). */
function combined(b: Emitter, size: number, opc: number, old: Slot, x: Slot): Slot {
  const w = (1 << size) as Width
  switch (opc) {
    case 0:
      return b.add(w, old, x)
    case 1:
      return b.logic(w, 'and', old, b.not(w, x))
    case 2:
      return b.logic(w, 'xor', old, x)
    case 3:
      return b.logic(w, 'or', old, x)
    default: {
      const unsigned = opc >= 6
      const least = (opc & 1) === 1
      const p = unsigned ? old : b.signExtend32(w, old)
      const q = unsigned ? b.cut(w, x) : b.signExtend32(w, x)
      const name = `${w === 8 ? 'i64' : 'i32'}.${unsigned ? 'ltu' : 'lts'}` as const
      const below = b.value(name, { a: p, b: q })
      return least ? b.select(w, below, old, x) : b.select(w, below, x, old)
    }
  }
}

interface Atomic {
  readonly size: number
  readonly A: number
  readonly R: number
  readonly Rs: number
  readonly opc: number
  readonly Rn: number
  readonly Rt: number
}

function atomic(b: Emitter, f: Atomic, result: (old: Slot) => Slot): void {
  const address = b.base(f.Rn)
  const bits = ACCESS.ATOMIC | (f.A || f.R ? ACCESS.ORDERED : 0)
  const w = (1 << f.size) as Width
  const old = b.load(w, address, ACCESS.MODIFY | bits)
  b.store(w, address, result(old), ACCESS.WRITE | bits)
  b.setX(8, f.Rt, old)
}

/** LDADD to LDUMIN, and without a target ST<op>. */
export const LDADD = (b: Emitter, f: Atomic): void =>
  atomic(b, f, old => combined(b, f.size, f.opc, old, b.x(f.Rs)))

export const SWP = (b: Emitter, f: Omit<Atomic, 'opc'>): void =>
  atomic(b, { ...f, opc: 0 }, () => b.x(f.Rs))
