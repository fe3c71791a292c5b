// Context synchronisation (DDI 0487, D24.1.2.2 and glossary): when a write to a system register is seen by what uses
// the register without naming it. Immediate mode applies writes at once, as emulators do, and hides a missing ISB.
// Strict mode holds them back until ISB, exception entry or ERET, and finds uses that come before.

import type { TraceEvents, TracePoint } from '../../base/trace.js'
import './trace.js'
import type { IndirectUse } from './system-register-table.js'

export type SyncMode = 'immediate' | 'strict'

/** A register was used after a write to it and before the context synchronisation event that the write needs. */
export interface SyncFinding {
  readonly register: string
  /** PC of the MSR, and of the instruction whose translation, debug event or trap still went by the old value. */
  readonly writtenAt: bigint
  readonly usedAt: bigint
  readonly use: Exclude<IndirectUse, ''>
  readonly old: bigint
  readonly written: bigint
}

/** A register as its users see it: `value` is what MRS reads, `effective` what holds for everybody else. */
export interface SynchronisedRegister {
  readonly name: string
  readonly use: IndirectUse
  value: bigint
  effective: bigint
  /** Told when `effective` has changed. */
  changed(): void
}

interface Pending {
  readonly register: SynchronisedRegister
  readonly writtenAt: bigint
  reported: boolean
}

/** Findings kept; more than that of one program tell nothing new. */
const MOST_FINDINGS = 256

/** The writes of one processing element that wait for a context synchronisation event. */
export class ContextSync {
  /** Found so far, oldest first. */
  readonly findings: SyncFinding[] = []
  /** Context synchronisation events so far. */
  events = 0
  #mode: SyncMode = 'immediate'
  #pending: Pending[] = []
  readonly #point: TracePoint<TraceEvents['a64.use-before-isb']> | undefined
  readonly #vcpu: number

  constructor(vcpu = 0, point?: TracePoint<TraceEvents['a64.use-before-isb']>) {
    this.#vcpu = vcpu
    this.#point = point
  }

  get mode(): SyncMode {
    return this.#mode
  }

  /** Changing the mode synchronises. */
  set mode(mode: SyncMode) {
    this.synchronise()
    this.#mode = mode
  }

  /** Whether a write waits. */
  get waiting(): boolean {
    return this.#pending.length > 0
  }

  /** Whether a write to a register used that way waits. */
  waits(use: IndirectUse): boolean {
    return this.#pending.some(p => p.register.use === use)
  }

  /** `register.value` was written by the instruction at `pc`. */
  written(register: SynchronisedRegister, pc: bigint): void {
    if (this.#mode === 'immediate' || register.use === '') {
      this.#apply(register)
      return
    }
    this.#pending = this.#pending.filter(p => p.register !== register)
    if (register.value !== register.effective)
      this.#pending.push({ register, writtenAt: pc, reported: false })
  }

  /** The context synchronisation event. */
  synchronise(): void {
    this.events++
    if (this.#pending.length === 0) return
    const pending = this.#pending
    this.#pending = []
    for (const { register } of pending) this.#apply(register)
  }

  /**
   * The instruction at `pc` went by the effective value of a register whose write waits: a finding, the first
   * time for each write.
   */
  used(register: SynchronisedRegister, pc: bigint): void {
    const p = this.#pending.find(each => each.register === register)
    if (p === undefined || p.reported || register.use === '') return
    p.reported = true
    const finding: SyncFinding = {
      register: register.name,
      writtenAt: p.writtenAt,
      usedAt: pc,
      use: register.use,
      old: register.effective,
      written: register.value,
    }
    if (this.findings.length < MOST_FINDINGS) this.findings.push(finding)
    if (this.#point?.on) this.#point.emit({ vcpu: this.#vcpu, ...finding })
  }

  /** Every waiting register used that way was used at `pc`. */
  usedAll(use: IndirectUse, pc: bigint): void {
    for (const { register } of this.#pending) if (register.use === use) this.used(register, pc)
  }

  #apply(register: SynchronisedRegister): void {
    register.effective = register.value
    register.changed()
  }
}
