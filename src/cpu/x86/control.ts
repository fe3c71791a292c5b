// Near control transfer, and instructions on single flags (SDM vol. 2, by mnemonic). SLOT.NEXT is where execution goes.

import type { Slot } from '../ir/builder.js'
import { type Emitter, ZERO } from './emitter.js'
import { isCanonical, routine } from './machine.js'
import { push } from './memory.js'
import { ACCESS } from './ports.js'
import { FLAG, SLOT, VECTOR } from './registers.js'

const plus = (b: Emitter, a: Slot, by: bigint): Slot =>
  b.value('i64.address', { a, b: ZERO, imm: 1, big: by })

/** Where operand n, a displacement, leads. */
function target(b: Emitter, n: number): Slot {
  const o = b.operand(n)
  if (o.kind !== 'relative') throw new Error('not a relative branch')
  return plus(b, SLOT.NEXT, o.value)
}

/** #GP(0) when the target in `a` is not canonical: the branch faults, not the fetch after it. */
export const checkTarget = routine('checkTarget', (m, op) => {
  if (!isCanonical(m.state, m.state.r64[op.a]!)) m.state.raise(VECTOR.GP, 0)
})

export function JCC(b: Emitter): void {
  const to = target(b, 0)
  const yes = b.condition(b.insn.encoding.condition)
  b.emit('i64.select', { d: SLOT.NEXT, c: yes, a: to, b: SLOT.NEXT })
}

export function JMP(b: Emitter): void {
  b.emit('i64.mov', { d: SLOT.NEXT, a: target(b, 0) })
}

export function JMP_INDIRECT(b: Emitter): void {
  const to = b.read(0)
  b.call(checkTarget, { a: to })
  b.emit('i64.mov', { d: SLOT.NEXT, a: to })
}

export function CALL(b: Emitter): void {
  const to = target(b, 0)
  push(b, 8, SLOT.NEXT)
  b.emit('i64.mov', { d: SLOT.NEXT, a: to })
}

export function CALL_INDIRECT(b: Emitter): void {
  const to = b.copy(8, b.read(0))
  b.call(checkTarget, { a: to })
  push(b, 8, SLOT.NEXT)
  b.emit('i64.mov', { d: SLOT.NEXT, a: to })
}

export function RET(b: Emitter): void {
  const to = b.load(8, SLOT.RSP, ACCESS.READ | ACCESS.STACK)
  b.call(checkTarget, { a: to })
  const o = b.operand(0)
  const extra = o?.kind === 'immediate' ? o.value : 0n
  b.setRegister(8, SLOT.RSP, plus(b, SLOT.RSP, 8n + extra))
  b.emit('i64.mov', { d: SLOT.NEXT, a: to })
}

/** LOOPcc: counts rCX down; the address size gives its width. */
function loop(b: Emitter, condition: number): void {
  const w = b.insn.addressSize
  const to = target(b, 0)
  const left = plus(b, SLOT.RCX, -1n)
  let yes = b.value('i32.eqz', { a: b.isZero(w, left) })
  if (condition >= 0) yes = b.value('i32.and', { a: yes, b: b.condition(condition) })
  b.setRegister(w, SLOT.RCX, left)
  b.emit('i64.select', { d: SLOT.NEXT, c: yes, a: to, b: SLOT.NEXT })
}

export function LOOP(b: Emitter): void {
  loop(b, -1)
}

export function LOOPE(b: Emitter): void {
  loop(b, 4)
}

export function LOOPNE(b: Emitter): void {
  loop(b, 5)
}

/** JRCXZ, JECXZ. */
export function JRCXZ(b: Emitter): void {
  const to = target(b, 0)
  const yes = b.isZero(b.insn.addressSize, SLOT.RCX)
  b.emit('i64.select', { d: SLOT.NEXT, c: yes, a: to, b: SLOT.NEXT })
}

/** NOP, ENDBR64 without CET, prefetches, and fences: accesses here are in order already. */
export function NOP(_b: Emitter): void {}

export function CMC(b: Emitter): void {
  b.putFlag(0, b.value('i32.eqz', { a: b.carry() }))
}

export function CLC(b: Emitter): void {
  b.putFlags(FLAG.CF, ZERO)
}

export function STC(b: Emitter): void {
  b.putFlags(FLAG.CF, b.const32(FLAG.CF))
}

export function CLD(b: Emitter): void {
  b.putFlags(FLAG.DF, ZERO)
}

export function STD(b: Emitter): void {
  b.putFlags(FLAG.DF, b.const32(FLAG.DF))
}

const IN_AH = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF

export function SAHF(b: Emitter): void {
  b.putFlags(IN_AH, b.register(1, SLOT.RAX, true))
}

/** Bit 1 reads as one. */
export function LAHF(b: Emitter): void {
  const v = b.value('i32.andk', { a: SLOT.FLAGS, imm: IN_AH })
  b.setRegister(1, SLOT.RAX, b.value('i32.or', { a: v, b: b.const32(2) }), true)
}
