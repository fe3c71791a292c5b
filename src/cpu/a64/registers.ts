// The architectural state of an A64 processing element at EL0 and EL1 (DDI 0487, B1.2 and D1).
// Everything instructions compute with lives in one buffer of 64-bit slots, which generated code can share; the rest of
// PSTATE is plain fields. System registers are in system-registers.ts, what faults mean in exceptions.ts.

import { AccessRecord } from '../accesses.js'
import type { Exit } from '../core.js'
import type { IrContext } from '../ir/ops.js'
import { LaneViews } from './fp/views.js'

/** Numbers of the 64-bit slots. X0 to X30 have their encoding as number; XZR is `ZERO`, which nobody writes. */
// biome-ignore format: table
export const SLOT = {
  X0: 0, X1: 1, X2: 2, X3: 3, X4: 4, X5: 5, X6: 6, X7: 7, X8: 8, X9: 9, X10: 10, X11: 11, X12: 12, X13: 13, X14: 14,
  X15: 15, X16: 16, X17: 17, X18: 18, X19: 19, X20: 20, X21: 21, X22: 22, X23: 23, X24: 24, X25: 25, X26: 26, X27: 27,
  X28: 28, X29: 29, X30: 30,
  SP: 31,      // the selected stack pointer
  PC: 32,      // of the instruction being executed
  NEXT: 33,    // where execution goes when it retires
  NZCV: 34,    // bits 31:28 as in PSTATE, everything else zero
  FPCR: 35,
  FPSR: 36,
  SCRATCH: 37, // 37 to 62, for routines; lost between instructions
  ZERO: 63,    // always zero
  V: 64,       // Vn is slot 64 + 2n (bits 63:0) and 65 + 2n (bits 127:64)
  TEMP: 128,   // first slot free for an instruction's intermediate values
} as const

/** Slots in the buffer. */
export const SLOTS = 256

/** Slot of the low half of a vector register; the high half follows. */
export const vectorSlot = (n: number): number => SLOT.V + 2 * n

/** Flags of PSTATE in the NZCV slot. */
export const FLAG = { V: 1 << 28, C: 1 << 29, Z: 1 << 30, N: 1 << 31 } as const

/** Bits of `daif`, as the immediate of MSR DAIFSet has them (bits 9:6 of DAIF and SPSR, shifted down by 6). */
export const DAIF = { F: 1, I: 2, A: 4, D: 8 } as const

/** Exception classes, ESR_ELx.EC (DDI 0487, "ESR_EL1"). */
// biome-ignore format: table
export const EC = {
  UNKNOWN: 0x00, WFX: 0x01, FP_ACCESS: 0x07, ILLEGAL_STATE: 0x0e, SVC: 0x15, HVC: 0x16, SMC: 0x17, SYSTEM: 0x18,
  INSTRUCTION_ABORT_LOWER: 0x20, INSTRUCTION_ABORT: 0x21, PC_ALIGNMENT: 0x22, DATA_ABORT_LOWER: 0x24, DATA_ABORT: 0x25,
  SP_ALIGNMENT: 0x26, FP_EXCEPTION: 0x2c, SERROR: 0x2f, BREAKPOINT_LOWER: 0x30, BREAKPOINT: 0x31, STEP_LOWER: 0x32,
  STEP: 0x33, WATCHPOINT_LOWER: 0x34, WATCHPOINT: 0x35, BRK: 0x3c,
} as const

/** How the instruction being executed ends early. */
export const ABORT = {
  NONE: 0,
  /** `ec`, `iss` and, where the class has one, `far` say which. */
  EXCEPTION: 1,
  /** An access leaves the core; `accesses` says which. */
  EXIT: 2,
} as const

/**
 * One processing element's registers.
 *
 * A routine that finds a guest exception calls `raise` and returns; whoever called it looks at `abort` and
 * returns too. Nothing is thrown. The first exception of an instruction stands.
 */
export class A64State implements IrContext {
  /** The slots as bytes, 32-bit and 64-bit units. Little-endian, as all hosts of WebAssembly. */
  readonly buffer = new ArrayBuffer(SLOTS * 8)
  readonly r64 = new BigUint64Array(this.buffer)
  readonly r32 = new Int32Array(this.buffer)
  readonly r8 = new Uint8Array(this.buffer)
  /** The same as elements of vectors. */
  readonly lanes = new LaneViews(this.buffer)

  /** PSTATE.EL; change it with `setMode`. */
  el: 0 | 1 = 1
  /** PSTATE.SP: 1 selects SP_EL1 at EL1; change it with `setMode`. */
  spsel: 0 | 1 = 1
  /** PSTATE.{D,A,I,F}; see `DAIF`. */
  daif = 0xf
  /** PSTATE.SS, software step is active and not pending. */
  ss = 0
  /** PSTATE.IL, illegal execution state. */
  il = 0
  /** PSTATE.PAN; always zero on a processor without FEAT_PAN. */
  pan = 0

  /** SP_EL0 and SP_EL1, stale for the selected one, which is in its slot. */
  readonly #banked = new BigUint64Array(2)

  /** The local exclusive monitor: armed, the physical address and size in bytes it was armed with. */
  exclusive = false
  exclusiveAddress = 0
  exclusiveSize = 0
  /** A load-exclusive was executed: ESR_ELx.EX of a software step. Whoever steps clears it. */
  steppedExclusive = false
  /** SCTLR_EL1.SA or SA0, for the current EL: accesses through a misaligned SP raise SP_ALIGNMENT. */
  checksStack = false

  /** Device accesses of the instruction in progress that left the core; ports ask it before they abort. */
  readonly accesses = new AccessRecord()
  /** Set by a port: stop with this exit once the instruction has retired. */
  leave: Exit | undefined

  /** One of `ABORT`; the run loop clears it. */
  abort: number = ABORT.NONE
  /** The exception behind `ABORT.EXCEPTION`: class, syndrome, faulting address. */
  ec = 0
  iss = 0
  far = 0n

  get pc(): bigint {
    return this.r64[SLOT.PC]!
  }

  set pc(v: bigint) {
    this.r64[SLOT.PC] = v
  }

  /** The selected stack pointer. */
  get sp(): bigint {
    return this.r64[SLOT.SP]!
  }

  set sp(v: bigint) {
    this.r64[SLOT.SP] = v
  }

  /** PSTATE.{N,Z,C,V}: a signed number with only bits 31:28 in use. */
  get nzcv(): number {
    return this.r32[2 * SLOT.NZCV]!
  }

  set nzcv(v: number) {
    this.r32[2 * SLOT.NZCV] = v & 0xf000_0000
    this.r32[2 * SLOT.NZCV + 1] = 0
  }

  /** X0 to X30; 31 reads as zero. */
  x(n: number): bigint {
    return n === 31 ? 0n : this.r64[n]!
  }

  /** Writes X0 to X30; 31 is ignored. */
  setX(n: number, v: bigint): void {
    if (n !== 31) this.r64[n] = v
  }

  /** Which of SP_EL0 and SP_EL1 is selected. */
  get selectedStack(): 0 | 1 {
    return this.el === 1 && this.spsel === 1 ? 1 : 0
  }

  /** SP_EL0 (0) or SP_EL1 (1), selected or not. */
  stack(n: 0 | 1): bigint {
    return n === this.selectedStack ? this.sp : this.#banked[n]!
  }

  setStack(n: 0 | 1, v: bigint): void {
    if (n === this.selectedStack) this.sp = v
    else this.#banked[n] = v
  }

  /** Changes PSTATE.EL and PSTATE.SP, and the stack pointer that the SP slot holds with them. */
  setMode(el: 0 | 1, spsel: 0 | 1): void {
    const before = this.selectedStack
    this.el = el
    this.spsel = spsel
    const after = this.selectedStack
    if (before === after) return
    this.#banked[before] = this.sp
    this.sp = this.#banked[after]!
  }

  /** Arms the exclusive monitor on a physical address. */
  armExclusive(address: number, size: number): void {
    this.exclusive = true
    this.exclusiveAddress = address
    this.exclusiveSize = size
  }

  /** Clears it: CLREX, exception entry, ERET, a store to its granule. */
  clearExclusive(): void {
    this.exclusive = false
  }

  /** Ends the instruction with a synchronous exception. Set `far` before, for the classes that report one. */
  raise(ec: number, iss = 0): void {
    if (this.abort !== ABORT.NONE) return
    this.abort = ABORT.EXCEPTION
    this.ec = ec
    this.iss = iss
  }

  /** UNDEFINED. */
  undefined(): void {
    this.raise(EC.UNKNOWN, 0)
  }

  /** Warm reset into EL1h with everything masked (DDI 0487, D1, "Reset"); general registers are zero. */
  reset(): void {
    this.r64.fill(0n)
    this.#banked.fill(0n)
    this.el = this.spsel = 1
    this.daif = 0xf
    this.ss = this.il = this.pan = 0
    this.exclusive = this.steppedExclusive = this.checksStack = false
    this.accesses.forget()
    this.leave = undefined
    this.abort = ABORT.NONE
  }
}
