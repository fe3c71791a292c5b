// Taking exceptions to EL1 and returning from them (DDI 0487, D1.3.1 to D1.3.4): vectors, saved state, illegal returns.
// Who decides that an exception is due is the run loop (core.ts), what a step returns into debug-step.ts.

import type { TraceEvents, TracePoint } from '../../base/trace.js'
import './trace.js'
import { type A64State, EC, SLOT } from './registers.js'
import { SCTLR } from './system-register-table.js'
import type { SystemRegister, SystemRegisters } from './system-registers.js'

/** The four kinds of a vector group, in the order of their slots. */
export const KIND = { SYNC: 0, IRQ: 1, FIQ: 2, SERROR: 3 } as const
export type Kind = (typeof KIND)[keyof typeof KIND]

/** Bits of SPSR_EL1 beside NZCV (D24.2). D, A, I and F stand 6 above their places in `daif`. */
export const SPSR = {
  SS: 1 << 21,
  IL: 1 << 20,
  D: 1 << 9,
  A: 1 << 8,
  I: 1 << 7,
  F: 1 << 6,
} as const

/** M[4:0] of the modes that exist here: AArch64 EL0t, EL1t, EL1h. */
export const MODE = { EL0t: 0, EL1t: 4, EL1h: 5 } as const

/** ESR_EL1.IL: every class here reports a 32-bit instruction or has the bit set anyway. */
const ESR_IL = 1 << 25

/** A syndrome register's value. */
export const syndrome = (ec: number, iss: number): bigint =>
  BigInt(((ec << 26) | ESR_IL | (iss & 0x1ff_ffff)) >>> 0)

/** Classes whose exceptions write FAR_EL1; the others leave it. */
export function reportsAddress(ec: number): boolean {
  switch (ec) {
    case EC.INSTRUCTION_ABORT_LOWER:
    case EC.INSTRUCTION_ABORT:
    case EC.PC_ALIGNMENT:
    case EC.DATA_ABORT_LOWER:
    case EC.DATA_ABORT:
    case EC.WATCHPOINT_LOWER:
    case EC.WATCHPOINT:
      return true
  }
  return false
}

/** What an exception reports beside its kind. */
export interface ExceptionReport {
  /** Preferred return address. */
  readonly elr: bigint
  /** ESR_EL1; interrupts have none. */
  readonly esr?: bigint
  /** FAR_EL1, for the classes that have one; otherwise the register keeps its value. */
  readonly far?: bigint
}

/** Exception entry and return of one processing element. */
export class Exceptions {
  readonly #state: A64State
  readonly #registers: SystemRegisters
  readonly #vbar: SystemRegister
  readonly #esr: SystemRegister
  readonly #elr: SystemRegister
  readonly #spsr: SystemRegister
  readonly #far: SystemRegister
  readonly #sctlr: SystemRegister
  readonly #vcpu: number
  readonly #point: TracePoint<TraceEvents['a64.exception']> | undefined

  constructor(
    state: A64State,
    registers: SystemRegisters,
    vcpu = 0,
    point?: TracePoint<TraceEvents['a64.exception']>,
  ) {
    this.#state = state
    this.#registers = registers
    this.#vbar = registers.named('VBAR_EL1')
    this.#esr = registers.named('ESR_EL1')
    this.#elr = registers.named('ELR_EL1')
    this.#spsr = registers.named('SPSR_EL1')
    this.#far = registers.named('FAR_EL1')
    this.#sctlr = registers.named('SCTLR_EL1')
    this.#vcpu = vcpu
    this.#point = point
  }

  /** PSTATE as SPSR_EL1 has it. */
  get pstate(): number {
    const s = this.#state
    const mode = s.el === 0 ? MODE.EL0t : s.spsel === 1 ? MODE.EL1h : MODE.EL1t
    return (
      (s.nzcv | (s.ss !== 0 ? SPSR.SS : 0) | (s.il !== 0 ? SPSR.IL : 0) | (s.daif << 6) | mode) >>>
      0
    )
  }

  /** Sets PSTATE from a value in SPSR's layout; false, with nothing changed, for a mode that does not exist. */
  setPstate(value: number): boolean {
    const s = this.#state
    if (!exists(value)) return false
    s.nzcv = value
    s.daif = (value >> 6) & 15
    s.ss = (value & SPSR.SS) !== 0 ? 1 : 0
    s.il = (value & SPSR.IL) !== 0 ? 1 : 0
    this.#mode(value)
    return true
  }

  /** Index of the slot that an exception of a kind would be taken through now. */
  vectorOf(kind: Kind): number {
    const s = this.#state
    return 4 * (s.el === 0 ? 2 : s.spsel) + kind
  }

  /** Takes an exception to EL1. `PC` is then at its vector; the exclusive monitor is clear. */
  take(kind: Kind, { elr, esr, far }: ExceptionReport): void {
    const s = this.#state
    const r = this.#registers
    const vector = this.vectorOf(kind)
    if (this.#point?.on) this.#point.emit({ vcpu: this.#vcpu, vector, esr, elr, far })
    const spsr = BigInt(this.pstate)
    // A context synchronisation event: the vector base is the one written last.
    r.sync.synchronise()
    r.put(this.#spsr, spsr)
    r.put(this.#elr, elr)
    if (esr !== undefined) r.put(this.#esr, esr)
    if (far !== undefined) r.put(this.#far, far)
    s.setMode(1, 1)
    s.daif = 0xf
    s.ss = s.il = 0
    s.clearExclusive()
    this.modeChanged()
    s.pc = BigInt.asUintN(64, this.#vbar.effective + BigInt(vector * 0x80))
  }

  /**
   * ERET at EL1: PSTATE from SPSR_EL1, `NEXT` from ELR_EL1. An impossible mode sets PSTATE.IL and keeps EL and SP.
   * `stepBit` answers PSTATE.SS for the level and PSTATE.D that it returns to; it is asked before anything changes.
   */
  return(stepBit: (spsr: number, el: number) => number): void {
    const s = this.#state
    const spsr = Number(this.#spsr.value)
    const legal = exists(spsr)
    const ss = stepBit(spsr, legal ? (spsr & 15) >> 2 : s.el)
    this.#registers.sync.synchronise()
    s.r64[SLOT.NEXT] = this.#elr.value
    s.nzcv = spsr
    s.daif = (spsr >> 6) & 15
    s.ss = ss
    s.il = !legal || (spsr & SPSR.IL) !== 0 ? 1 : 0
    s.clearExclusive()
    if (legal) this.#mode(spsr)
  }

  /** EL changed, or SCTLR_EL1: what depends on both. */
  modeChanged(): void {
    const s = this.#state
    const bit = s.el === 0 ? SCTLR.SA0 : SCTLR.SA
    s.checksStack = (Number(this.#sctlr.effective) & bit) !== 0
  }

  #mode(spsr: number): void {
    this.#state.setMode((spsr & 4) !== 0 ? 1 : 0, (spsr & 1) !== 0 ? 1 : 0)
    this.modeChanged()
  }
}

const exists = (spsr: number): boolean => {
  const mode = spsr & 31
  return mode === MODE.EL0t || mode === MODE.EL1t || mode === MODE.EL1h
}
