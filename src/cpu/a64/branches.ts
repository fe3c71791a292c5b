// Branches, exception generation and system instructions (DDI 0487, C6.2), as operations. What system registers
// and exceptions do is behind the system port.

import { clearMonitor } from './atomics.js'
import type { Emitter } from './emitter.js'
import { type A64Machine, routine } from './machine.js'
import { PSTATE_FIELD, systemKey } from './ports.js'
import { SLOT } from './registers.js'
import { checkFp } from './routines.js'

/** Continues at `offset` bytes from this instruction. */
const goTo = (b: Emitter, offset: number): void => {
  b.emit('i64.addk', { d: SLOT.NEXT, a: SLOT.PC, imm: offset })
}

const link = (b: Emitter): void => {
  b.emit('i64.addk', { d: SLOT.X30, a: SLOT.PC, imm: 4 })
}

/** B and BL; offsets are in words. */
export function B(b: Emitter, f: { op: number; imm26: number }): void {
  goTo(b, (f.imm26 << 6) >> 4)
  if (f.op) link(b)
}

export function B_COND(b: Emitter, f: { imm19: number; cond: number }): void {
  b.when(b.condition(f.cond), () => goTo(b, (f.imm19 << 13) >> 11))
}

/** CBZ and CBNZ. */
export function CBZ(b: Emitter, f: { sf: number; op: number; imm19: number; Rt: number }): void {
  const zero = b.value(f.sf ? 'i64.eqz' : 'i32.eqz', { a: b.x(f.Rt) })
  const go = () => goTo(b, (f.imm19 << 13) >> 11)
  if (f.op) b.unless(zero, go)
  else b.when(zero, go)
}

/** TBZ and TBNZ of bit b5:b40. */
export function TBZ(
  b: Emitter,
  f: { b5: number; op: number; b40: number; imm14: number; Rt: number },
): void {
  const x = b.x(f.Rt)
  const half = f.b5 ? b.value('i64.shruk', { a: x, imm: 32 }) : x
  const bit = b.value('i32.andk', { a: half, imm: 1 << f.b40 })
  const go = () => goTo(b, (f.imm14 << 18) >> 16)
  if (f.op) b.when(bit, go)
  else b.unless(bit, go)
}

/** BR, BLR (`withLink`) and RET. */
export function BR(b: Emitter, f: { Rn: number }, withLink = false): void {
  b.emit('i64.mov', { d: SLOT.NEXT, a: b.x(f.Rn) })
  if (withLink) link(b)
}

const raising = (name: string, run: (m: A64Machine, imm: number) => void) => {
  const r = routine(name, (m, op) => run(m, op.imm))
  return (b: Emitter, f: { imm16: number }): void => b.call(r, { imm: f.imm16 })
}

export const SVC = raising('svc', (m, imm) => m.system.supervisorCall(imm))
export const HVC = raising('hvc', (m, imm) => m.system.hypervisorCall(imm))
export const SMC = raising('smc', (m, imm) => m.system.secureMonitorCall(imm))
export const BRK = raising('brk', (m, imm) => m.system.breakpoint(imm))
export const HLT = raising('hlt', (m, imm) => m.system.halt(imm))

const eret = routine('eret', m => m.system.exceptionReturn())
export const ERET = (b: Emitter): void => b.call(eret)

const wfe = routine('wfe', m => m.system.waitForEvent())
const wfi = routine('wfi', m => m.system.waitForInterrupt())
const sev = routine('sev', (m, op) => m.system.sendEvent(op.imm === 1))

/** WFE (0) and WFI (1). */
export const WAIT = (b: Emitter, op: number): void => b.call(op ? wfi : wfe)

/** SEV (0) and SEVL (1). */
export const SEND_EVENT = (b: Emitter, op: number): void => b.call(sev, { imm: op })

const BARRIERS = { 4: 'dsb', 5: 'dmb', 6: 'isb' } as const
const barrier = routine('barrier', (m, op) =>
  m.system.barrier(BARRIERS[(op.imm >> 4) as 4 | 5 | 6], op.imm & 15),
)
export const BARRIER = (b: Emitter, f: { CRm: number }, op2: 4 | 5 | 6): void =>
  b.call(barrier, { imm: (op2 << 4) | f.CRm })

const FIELDS: readonly number[] = Object.values(PSTATE_FIELD)

/** Whether MSR (immediate) names a field of PSTATE that Armv8.0 has. */
export const isPstateField = (f: { op1: number; op2: number }): boolean =>
  FIELDS.includes((f.op1 << 3) | f.op2)

const writePstate = routine('msrImmediate', (m, op) =>
  m.system.writePstate(op.imm >> 4, op.imm & 15),
)
export const MSR_IMMEDIATE = (b: Emitter, f: { op1: number; CRm: number; op2: number }): void =>
  b.call(writePstate, { imm: (f.op1 << 7) | (f.op2 << 4) | f.CRm })

interface SystemFields {
  readonly op1: number
  readonly CRn: number
  readonly CRm: number
  readonly op2: number
  readonly Rt: number
}

const keyOf = (op0: number, f: SystemFields) => systemKey(op0, f.op1, f.CRn, f.CRm, f.op2)

// imm of these: the key, and above its 16 bits the number of the general register.
const sys = routine('sys', (m, op) =>
  m.system.systemInstruction(op.imm & 0xffff, m.state.r64[op.a]!, op.imm >> 16),
)
const sysl = routine('sysl', (m, op) => {
  m.state.r64[op.d] = m.system.systemResult(op.imm & 0xffff, op.imm >> 16)
})
const mrs = routine('mrs', (m, op) => {
  m.state.r64[op.d] = m.system.readRegister(op.imm & 0xffff, op.imm >> 16)
})
const msr = routine('msr', (m, op) =>
  m.system.writeRegister(op.imm & 0xffff, m.state.r64[op.a]!, op.imm >> 16),
)

export const SYS = (b: Emitter, f: SystemFields): void =>
  b.call(sys, { a: b.x(f.Rt), imm: keyOf(1, f) | (f.Rt << 16) })

export function SYSL(b: Emitter, f: SystemFields): void {
  const d = b.temp()
  b.call(sysl, { d, imm: keyOf(1, f) | (f.Rt << 16) })
  b.setX(8, f.Rt, d)
}

const NZCV = systemKey(3, 3, 4, 2, 0)
const FPCR = systemKey(3, 3, 4, 4, 0)
const FPSR = systemKey(3, 3, 4, 4, 1)

/** What is kept in slots: the slot, and the bits that can be written (DDI 0487, C5.2). */
// biome-ignore format: table
const IN_SLOTS: Readonly<Record<number, { slot: number; writable: number; fp: boolean }>> = {
  [NZCV]: { slot: SLOT.NZCV, writable: 0xf000_0000, fp: false },
  [FPCR]: { slot: SLOT.FPCR, writable: 0x07c0_0000, fp: true },  // AHP, DN, FZ, RMode
  [FPSR]: { slot: SLOT.FPSR, writable: 0x0800_009f, fp: true },  // QC, IDC, IXC, UFC, OFC, DZC, IOC
}

type Move = SystemFields & { readonly o0: number }

export function MRS(b: Emitter, f: Move): void {
  const key = keyOf(2 + f.o0, f)
  const kept = IN_SLOTS[key]
  if (kept) {
    if (kept.fp) b.call(checkFp)
    b.setX(4, f.Rt, kept.slot)
    return
  }
  const d = b.temp()
  b.call(mrs, { d, imm: key | (f.Rt << 16) })
  b.setX(8, f.Rt, d)
}

export function MSR(b: Emitter, f: Move): void {
  const key = keyOf(2 + f.o0, f)
  const kept = IN_SLOTS[key]
  if (kept) {
    if (kept.fp) b.call(checkFp)
    b.emit('i32.andk', { d: kept.slot, a: b.x(f.Rt), imm: kept.writable | 0 })
  } else b.call(msr, { a: b.x(f.Rt), imm: key | (f.Rt << 16) })
}

export const CLREX = (b: Emitter): void => b.call(clearMonitor)
