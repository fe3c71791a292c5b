// Far control transfer: JMP, CALL, RET, IRET, INT, SYSCALL, SYSRET (SDM vol. 2 by mnemonic; vol. 3, 5.8.7, 6.14).
// What is not modelled: call gates and task gates (#GP with the selector), and compatibility mode as a target.

import type { Emitter } from './emitter.js'
import {
  aborted,
  generalProtection,
  isCanonical,
  loadValue,
  routine,
  storeValue,
  type X86Machine,
} from './machine.js'
import { ACCESS } from './ports.js'
import { ABORT, EFER, EVENT, FLAG, FLAGS_FIXED, FLAGS_WRITABLE, SLOT, VECTOR } from './registers.js'
import * as segments from './segments.js'

const wrap = (v: bigint) => BigInt.asUintN(64, v)
const STACK_READ = ACCESS.READ | ACCESS.STACK

/** Pops `count` values of `size` bytes without moving RSP. Undefined when it aborted. */
function peek(m: X86Machine, size: number, count: number): bigint[] | undefined {
  const { r64 } = m.state
  const values: bigint[] = []
  for (let i = 0; i < count; i++) {
    values.push(loadValue(m, wrap(r64[SLOT.RSP]! + BigInt(i * size)), size, STACK_READ))
    if (aborted(m)) return undefined
  }
  return values
}

/** RFLAGS bits that a privilege level may change through POPF and IRET (SDM vol. 2, "POPF"). */
export function changeableFlags(cpl: number, flags: number): number {
  let mask = FLAGS_WRITABLE
  if (cpl > 0) mask &= ~FLAG.IOPL
  if (cpl > (flags & FLAG.IOPL) >> 12) mask &= ~FLAG.IF
  return mask
}

/** Value in a, mask in imm: what POPF lets through. RF ends up clear. */
export const popFlags = routine('popFlags', (m, op) => {
  const { state } = m
  const mask = op.imm & changeableFlags(state.cpl, state.flags) & ~FLAG.RF
  const flags = (state.flags & ~mask) | (state.r32[2 * op.a]! & mask)
  state.flags = (flags & ~FLAG.RF) | FLAGS_FIXED
})

/** Operand size in imm. In 64-bit mode all five values are popped whatever the privilege levels. */
const iret = routine('iret', (m, op) => {
  const { state } = m
  if (state.flags & FLAG.NT) return generalProtection(state)
  const size = op.imm
  const frame = peek(m, size, 5)
  if (!frame) return
  const [rip, cs, flags, rsp, ss] = frame as [bigint, bigint, bigint, bigint, bigint]
  const selector = Number(cs & 0xffffn)
  const code = segments.returnCodeDescriptor(m, selector)
  if (!code) return
  const cpl = selector & 3
  const stackSelector = Number(ss & 0xffffn)
  const stack = segments.stackDescriptor(m, stackSelector, cpl)
  if (aborted(m)) return
  if (!isCanonical(state, rip)) return generalProtection(state)

  let mask = changeableFlags(state.cpl, state.flags)
  if (size === 2) mask &= 0xffff
  state.flags = (state.flags & ~mask) | (Number(flags & 0xffff_ffffn) & mask) | FLAGS_FIXED
  const outward = cpl > state.cpl
  state.cpl = cpl
  segments.setSegment(state.cs, selector, code)
  if (stack) segments.setSegment(state.ss, stackSelector, stack)
  else segments.setNull(state.ss, stackSelector)
  state.ss.dpl = cpl
  if (outward) segments.dropPrivilegedSegments(m)
  state.r64[SLOT.RSP] = rsp
  state.r64[SLOT.NEXT] = rip
  state.nmiBlocked = false
})

/** Operand size in imm, bytes to release in big. */
const returnFar = routine('returnFar', (m, op) => {
  const { state } = m
  const size = op.imm
  const frame = peek(m, size, 2)
  if (!frame) return
  const [rip, cs] = frame as [bigint, bigint]
  const selector = Number(cs & 0xffffn)
  const code = segments.returnCodeDescriptor(m, selector)
  if (!code) return
  const cpl = selector & 3
  let rsp = wrap(state.r64[SLOT.RSP]! + BigInt(2 * size) + op.big)
  if (cpl > state.cpl) {
    const at = rsp
    rsp = loadValue(m, at, size, STACK_READ)
    const stackSelector = Number(loadValue(m, wrap(at + BigInt(size)), size, STACK_READ) & 0xffffn)
    if (aborted(m)) return
    const stack = segments.stackDescriptor(m, stackSelector, cpl)
    if (aborted(m)) return
    if (!isCanonical(state, rip)) return generalProtection(state)
    state.cpl = cpl
    if (stack) segments.setSegment(state.ss, stackSelector, stack)
    else segments.setNull(state.ss, stackSelector)
    segments.dropPrivilegedSegments(m)
    rsp = wrap(rsp + op.big)
  } else if (!isCanonical(state, rip)) return generalProtection(state)
  segments.setSegment(state.cs, selector, code)
  state.r64[SLOT.RSP] = rsp
  state.r64[SLOT.NEXT] = rip
})

/** Pointer's address in a, offset size in imm, 1 in big for a call. */
const transferFar = routine('transferFar', (m, op) => {
  const { state } = m
  const size = op.imm
  const at = state.r64[op.a]!
  const rip = loadValue(m, at, size, ACCESS.READ)
  const selector = Number(loadValue(m, wrap(at + BigInt(size)), 2, ACCESS.READ))
  if (aborted(m)) return
  const code = segments.jumpCodeDescriptor(m, selector)
  if (!code) return
  if (!isCanonical(state, rip)) return generalProtection(state)
  if (op.big === 1n) {
    const rsp = state.r64[SLOT.RSP]!
    const down = (n: number) => wrap(rsp - BigInt(n * size))
    const access = ACCESS.WRITE | ACCESS.STACK
    storeValue(m, down(2), size, state.r64[SLOT.NEXT]!, access)
    if (aborted(m)) return
    storeValue(m, down(1), size, BigInt(state.cs.selector), access)
    if (aborted(m)) return
    state.r64[SLOT.RSP] = down(2)
  }
  segments.setSegment(state.cs, (selector & 0xfffc) | state.cpl, code)
  state.r64[SLOT.NEXT] = rip
})

/** Vector in imm, instruction length in big: delivered with RIP still at the instruction. */
const softwareInterrupt = routine('softwareInterrupt', (m, op) => {
  const length = Number(op.big)
  m.state.event = { kind: EVENT.SOFTWARE, vector: op.imm, error: undefined, length }
  m.state.abort = ABORT.EVENT
})

/** #DB as a trap, after INT1 has retired. */
const debugTrap = routine('debugTrap', m => {
  m.state.event = { kind: EVENT.EXCEPTION, vector: VECTOR.DB, error: undefined }
})

const syscall = routine('syscall', m => {
  const { state } = m
  if (!(state.efer & EFER.SCE)) return state.raise(VECTOR.UD)
  state.r64[SLOT.RCX] = state.r64[SLOT.NEXT]!
  state.r64[SLOT.R11] = BigInt((state.flags & ~FLAG.RF) >>> 0)
  state.r64[SLOT.NEXT] = state.lstar
  state.flags = (state.flags & ~(Number(state.sfmask & 0xffff_ffffn) | FLAG.RF)) | FLAGS_FIXED
  const selector = Number((state.star >> 32n) & 0xffffn)
  segments.setFlatCode(state.cs, selector & 0xfffc, 0)
  segments.setFlatStack(state.ss, (selector + 8) & 0xffff, 0)
  state.cpl = 0
})

/** Operand size in imm: without REX.W it would enter compatibility mode, which is not modelled. */
const sysret = routine('sysret', (m, op) => {
  const { state } = m
  if (!(state.efer & EFER.SCE) || op.imm !== 8) return state.raise(VECTOR.UD)
  const rip = state.r64[SLOT.RCX]!
  if (!isCanonical(state, rip)) return generalProtection(state)
  const flags = Number(state.r64[SLOT.R11]! & 0xffff_ffffn)
  state.flags = (flags & FLAGS_WRITABLE & ~FLAG.RF) | FLAGS_FIXED
  state.r64[SLOT.NEXT] = rip
  const selector = Number((state.star >> 48n) & 0xffffn)
  segments.setFlatCode(state.cs, (selector + 16) | 3, 3)
  segments.setFlatStack(state.ss, (selector + 8) | 3, 3)
  state.cpl = 3
})

export function IRET(b: Emitter): void {
  b.call(iret, { imm: b.size })
}

export function RET_FAR(b: Emitter): void {
  const o = b.operand(0)
  b.call(returnFar, { imm: b.size, big: o?.kind === 'immediate' ? o.value : 0n })
}

export function JMP_FAR(b: Emitter): void {
  b.call(transferFar, { a: b.address(0), imm: b.size, big: 0n })
}

export function CALL_FAR(b: Emitter): void {
  b.call(transferFar, { a: b.address(0), imm: b.size, big: 1n })
}

function interrupt(b: Emitter, vector: number): void {
  b.call(softwareInterrupt, { imm: vector, big: BigInt(b.insn.length) })
}

export function INT3(b: Emitter): void {
  interrupt(b, VECTOR.BP)
}

export function INT(b: Emitter): void {
  const o = b.operand(0)
  interrupt(b, o.kind === 'immediate' ? Number(o.value) : 0)
}

export function INT1(b: Emitter): void {
  b.call(debugTrap)
}

export function UD(b: Emitter): void {
  b.trap(VECTOR.UD)
}

export function SYSCALL(b: Emitter): void {
  b.call(syscall)
}

export function SYSRET(b: Emitter): void {
  b.call(sysret, { imm: b.size })
}
