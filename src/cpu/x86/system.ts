// Control and debug registers, translations, MSRs, time, interruptibility (SDM vol. 2 by mnemonic).
// The check of CPL that most of them begin with is in the encoding table ('cpl0').

import { DR6, DR7_GD } from './breakpoints.js'
import type { Emitter } from './emitter.js'
import {
  aborted,
  generalProtection,
  hasIoPrivilege,
  high,
  isCanonical,
  loadValue,
  low,
  routine,
  type X86Machine,
} from './machine.js'
import { ACCESS } from './ports.js'
import { CR0, CR4, FLAG, SLOT, VECTOR } from './registers.js'
import { refuseUserMode, writeSelectorOut } from './tables.js'

/** #GP(0) unless CPL is 0: begins every encoding marked cpl0. */
export const requireSupervisor = routine('requireSupervisor', m => {
  if (m.state.cpl !== 0) generalProtection(m.state)
})

// Control and debug registers.

const readControl = routine('readControl', (m, op) => {
  const { state } = m
  const values: Record<number, bigint> = {
    0: BigInt(state.cr0 >>> 0),
    2: state.cr2,
    3: state.cr3,
    4: BigInt(state.cr4 >>> 0),
    8: BigInt(state.cr8),
  }
  const v = values[op.imm]
  if (v === undefined) state.raise(VECTOR.UD)
  else state.r64[op.d] = v
})

const writeControl = routine('writeControl', (m, op) => {
  const v = m.state.r64[op.a]!
  if (op.imm === 2) m.state.cr2 = v
  else m.system.writeControl(op.imm, v)
})

const CONTROLS = [0, 2, 3, 4, 8]

function registerNumber(b: Emitter, n: number): number {
  const o = b.operand(n)
  return o.kind === 'control' || o.kind === 'debug' ? o.register : -1
}

export function MOV_FROM_CR(b: Emitter): void {
  const number = registerNumber(b, 1)
  if (!CONTROLS.includes(number)) {
    b.trap(VECTOR.UD)
    return
  }
  const v = b.temp()
  b.call(readControl, { d: v, imm: number })
  b.write(0, v)
}

export function MOV_TO_CR(b: Emitter): void {
  const number = registerNumber(b, 0)
  if (!CONTROLS.includes(number)) {
    b.trap(VECTOR.UD)
    return
  }
  b.call(writeControl, { a: b.read(1), imm: number })
}

/** DR4 and DR5 are names of DR6 and DR7 unless CR4.DE is set; under DR7.GD every use is #DB (SDM vol. 3, 18.2). */
function debugNumber(m: X86Machine, n: number): number {
  const { dr } = m.state
  if ((dr[7]! & BigInt(DR7_GD)) !== 0n) {
    dr[6] = dr[6]! | BigInt(DR6.BD)
    m.state.raise(VECTOR.DB)
    return n
  }
  if (n !== 4 && n !== 5) return n
  if (m.state.cr4 & CR4.DE) m.state.raise(VECTOR.UD)
  return n + 2
}

const readDebug = routine('readDebug', (m, op) => {
  const n = debugNumber(m, op.imm)
  if (!aborted(m)) m.state.r64[op.d] = m.state.dr[n]!
})

const writeDebug = routine('writeDebug', (m, op) => {
  const n = debugNumber(m, op.imm)
  if (aborted(m)) return
  const v = m.state.r64[op.a]!
  if (n >= 6 && v >> 32n) return generalProtection(m.state)
  const fixed: Record<number, bigint> = {
    6: (v & 0xe00fn) | 0xffff_0ff0n,
    7: (v & 0xffff_2bffn) | 0x400n,
  }
  m.state.dr[n] = fixed[n] ?? v
})

export function MOV_FROM_DR(b: Emitter): void {
  const number = registerNumber(b, 1)
  if (number > 7) {
    b.trap(VECTOR.UD)
    return
  }
  const v = b.temp()
  b.call(readDebug, { d: v, imm: number })
  b.write(0, v)
}

export function MOV_TO_DR(b: Emitter): void {
  const number = registerNumber(b, 0)
  if (number > 7) {
    b.trap(VECTOR.UD)
    return
  }
  b.call(writeDebug, { a: b.read(1), imm: number })
}

/** CR0's low word is visible; a register gets as much of CR0 as it holds. */
export function SMSW(b: Emitter): void {
  b.call(refuseUserMode)
  const v = b.temp()
  b.call(readControl, { d: v, imm: 0 })
  if (b.isMemory(0)) writeSelectorOut(b, v)
  else b.write(0, b.narrow(b.width(0), v))
}

/** Loads PE, MP, EM, TS; PE can be set but not cleared. */
const lmsw = routine('lmsw', (m, op) => {
  const { state } = m
  const v = state.r32[2 * op.a]! & 0xf
  const kept = state.cr0 & ~(CR0.MP | CR0.EM | CR0.TS)
  m.system.writeControl(0, BigInt((kept | v) >>> 0))
})

const clts = routine('clts', m => {
  m.system.writeControl(0, BigInt((m.state.cr0 & ~CR0.TS) >>> 0))
})

export function LMSW(b: Emitter): void {
  b.call(lmsw, { a: b.read(0) })
}

export function CLTS(b: Emitter): void {
  b.call(clts)
}

// Translations.

const invlpg = routine('invlpg', (m, op) => {
  m.system.invalidatePage(m.state.r64[op.a]!)
})

/** Type in a, the 16-byte descriptor's address in b. */
const invpcid = routine('invpcid', (m, op) => {
  const { state } = m
  const type = state.r64[op.a]!
  const at = state.r64[op.b]!
  const first = loadValue(m, at, 8, ACCESS.READ)
  const linear = loadValue(m, BigInt.asUintN(64, at + 8n), 8, ACCESS.READ)
  if (aborted(m)) return
  if (type > 3n || (type < 2n && first >> 12n)) return generalProtection(state)
  if (type < 2n && first !== 0n && !(state.cr4 & CR4.PCIDE)) return generalProtection(state)
  if (type === 0n && !isCanonical(state, linear)) return generalProtection(state)
  m.system.invalidatePcid(Number(type), Number(first & 0xfffn), linear)
})

export function INVLPG(b: Emitter): void {
  b.call(invlpg, { a: b.address(0) })
}

export function INVPCID(b: Emitter): void {
  b.call(invpcid, { a: b.read(0), b: b.address(1) })
}

// MSRs, identification, time.

/** EDX:EAX from a value; the upper halves of both registers become zero. */
function setPair(m: X86Machine, v: bigint): void {
  m.state.r64[SLOT.RAX] = BigInt(low(v) >>> 0)
  m.state.r64[SLOT.RDX] = BigInt(high(v) >>> 0)
}

const rdmsr = routine('rdmsr', m => {
  const v = m.system.readMsr(m.state.r32[2 * SLOT.RCX]! >>> 0)
  if (!aborted(m)) setPair(m, v)
})

const wrmsr = routine('wrmsr', m => {
  const { r64, r32 } = m.state
  const v = (BigInt.asUintN(32, r64[SLOT.RDX]!) << 32n) | BigInt.asUintN(32, r64[SLOT.RAX]!)
  m.system.writeMsr(r32[2 * SLOT.RCX]! >>> 0, v)
})

/** imm is 1 for RDTSCP. */
const rdtsc = routine('rdtsc', (m, op) => {
  const { state } = m
  if (state.cpl > 0 && state.cr4 & CR4.TSD) return generalProtection(state)
  setPair(m, m.system.tsc())
  if (op.imm === 1) state.r64[SLOT.RCX] = BigInt(state.tscAux >>> 0)
})

const rdpid = routine('rdpid', (m, op) => {
  m.state.r64[op.d] = BigInt(m.state.tscAux >>> 0)
})

const leaf = new Uint32Array(4)

const cpuid = routine('cpuid', m => {
  const { r32, r64 } = m.state
  m.system.cpuid(r32[2 * SLOT.RAX]! >>> 0, r32[2 * SLOT.RCX]! >>> 0, leaf)
  r64[SLOT.RAX] = BigInt(leaf[0]!)
  r64[SLOT.RBX] = BigInt(leaf[1]!)
  r64[SLOT.RCX] = BigInt(leaf[2]!)
  r64[SLOT.RDX] = BigInt(leaf[3]!)
})

export function RDMSR(b: Emitter): void {
  b.call(rdmsr)
}

export function WRMSR(b: Emitter): void {
  b.call(wrmsr)
}

export function RDTSC(b: Emitter): void {
  b.call(rdtsc, { imm: 0 })
}

export function RDTSCP(b: Emitter): void {
  b.call(rdtsc, { imm: 1 })
}

export function RDPID(b: Emitter): void {
  const v = b.temp()
  b.call(rdpid, { d: v })
  b.write(0, v)
}

export function CPUID(b: Emitter): void {
  b.call(cpuid)
}

// FS and GS bases.

const swapgs = routine('swapgs', m => {
  const { state } = m
  const base = state.r64[SLOT.GS_BASE]!
  state.r64[SLOT.GS_BASE] = state.kernelGsBase
  state.kernelGsBase = base
})

/** #UD unless CR4.FSGSBASE; what goes in (imm 1) must be canonical. */
const checkBase = routine('checkBase', (m, op) => {
  const { state } = m
  if (!(state.cr4 & CR4.FSGSBASE)) state.raise(VECTOR.UD)
  else if (op.imm === 1 && !isCanonical(state, state.r64[op.a]!)) generalProtection(state)
})

function readBase(b: Emitter, slot: number): void {
  b.call(checkBase, { imm: 0 })
  b.write(0, slot)
}

function writeBase(b: Emitter, slot: number): void {
  const v = b.zeroExtend(b.width(0), b.read(0))
  b.call(checkBase, { a: v, imm: 1 })
  b.setRegister(8, slot, v)
}

export function SWAPGS(b: Emitter): void {
  b.call(swapgs)
}

export function RDFSBASE(b: Emitter): void {
  readBase(b, SLOT.FS_BASE)
}

export function RDGSBASE(b: Emitter): void {
  readBase(b, SLOT.GS_BASE)
}

export function WRFSBASE(b: Emitter): void {
  writeBase(b, SLOT.FS_BASE)
}

export function WRGSBASE(b: Emitter): void {
  writeBase(b, SLOT.GS_BASE)
}

// Interruptibility and leaving.

const cli = routine('cli', m => {
  const { state } = m
  if (!hasIoPrivilege(state)) return generalProtection(state)
  state.flags &= ~FLAG.IF
})

/** Interrupts wait for the instruction after STI, if they were off before. */
const sti = routine('sti', m => {
  const { state } = m
  if (!hasIoPrivilege(state)) return generalProtection(state)
  if (!(state.flags & FLAG.IF)) state.interruptShadow = true
  state.flags |= FLAG.IF
})

/** imm is what AC becomes; #UD outside CPL 0 (SDM vol. 2, "CLAC"). */
const setAlignmentCheck = routine('setAlignmentCheck', (m, op) => {
  const { state } = m
  if (state.cpl > 0) return state.raise(VECTOR.UD)
  state.flags = (state.flags & ~FLAG.AC) | op.imm
})

const halt = routine('halt', m => {
  m.state.halted = true
})

const hypercall = routine('hypercall', m => {
  m.system.hypercall()
})

export function CLI(b: Emitter): void {
  b.call(cli)
}

export function STI(b: Emitter): void {
  b.call(sti)
}

export function CLAC(b: Emitter): void {
  b.call(setAlignmentCheck, { imm: 0 })
}

export function STAC(b: Emitter): void {
  b.call(setAlignmentCheck, { imm: FLAG.AC })
}

export function HLT(b: Emitter): void {
  b.call(halt)
}

export function VMCALL(b: Emitter): void {
  b.call(hypercall)
}

/** INVD, WBINVD: there are no caches to write back. */
export function PRIVILEGED_NOP(_b: Emitter): void {}
