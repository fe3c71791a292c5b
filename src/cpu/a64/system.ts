// What system instructions reach of an A64 core (ports.ts): registers, exception generation and return, waiting, barriers.
// SMC and HVC leave the core for whoever plays the firmware; there are no EL2 and EL3 to take them.

import type { Debug } from './debug.js'
import type { Exceptions } from './exceptions.js'
import { PSTATE_FIELD, type SystemPort, systemKey } from './ports.js'
import { type A64State, EC } from './registers.js'
import type { SystemOperations } from './system-ops.js'
import { SCTLR } from './system-register-table.js'
import type { SystemRegister, SystemRegisters } from './system-registers.js'
import { CPTR, HCR, type HypervisorTraps, systemSyndrome } from './traps.js'

/** ISS of a conditional trap: condition valid, always. */
const ALWAYS = (1 << 24) | (14 << 20)

/** Parts that system instructions work on. */
export interface SystemParts {
  readonly state: A64State
  readonly registers: SystemRegisters
  readonly traps: HypervisorTraps
  readonly operations: SystemOperations
  readonly exceptions: Exceptions
  readonly debug: Debug
  /** WFI found nothing that would end it: sleep. */
  sleep(): void
}

/** The system side of one processing element. */
export class A64System implements SystemPort {
  /** The event register, which WFE waits for and clears. */
  event = false
  readonly #parts: SystemParts
  readonly #sctlr: SystemRegister
  readonly #cpacr: SystemRegister

  constructor(parts: SystemParts) {
    this.#parts = parts
    this.#sctlr = parts.registers.named('SCTLR_EL1')
    this.#cpacr = parts.registers.named('CPACR_EL1')
  }

  readRegister(key: number, target: number): bigint {
    return this.#parts.registers.read(key, target)
  }

  writeRegister(key: number, value: bigint, target: number): void {
    this.#parts.registers.write(key, value, target)
  }

  systemInstruction(key: number, value: bigint, target: number): void {
    this.#parts.operations.execute(key, value, target)
  }

  // No SYSL instruction is allocated in Armv8.0.
  systemResult(_key: number, _target: number): bigint {
    this.#parts.state.undefined()
    return 0n
  }

  writePstate(field: number, value: number): void {
    const { state } = this.#parts
    if (field === PSTATE_FIELD.SPSEL) {
      if (state.el === 0) state.undefined()
      else state.setMode(1, (value & 1) as 0 | 1)
      return
    }
    if (state.el === 0 && (this.#control & SCTLR.UMA) === 0) {
      const key = systemKey(0, field >> 3, 4, value, field & 7)
      state.raise(EC.SYSTEM, systemSyndrome(key, 31, false))
    } else if (field === PSTATE_FIELD.DAIFSET) state.daif |= value
    else state.daif &= ~value
  }

  exceptionReturn(): void {
    const { state, exceptions, debug } = this.#parts
    if (state.el === 0) state.undefined()
    else exceptions.return((spsr, el) => debug.stepBitOnReturn(spsr, el))
  }

  supervisorCall(value: number): void {
    this.#parts.state.raise(EC.SVC, value)
  }

  hypervisorCall(value: number): void {
    const { state, traps } = this.#parts
    if (state.el === 0 || (traps.hcr & HCR.HCD) !== 0) state.undefined()
    else state.leave = { kind: 'hypercall', call: 'hvc', immediate: value }
  }

  secureMonitorCall(value: number): void {
    const { state, traps } = this.#parts
    if (state.el === 0 || (traps.hcr & HCR.TSC) === 0) {
      state.undefined()
      return
    }
    traps.taken(state.pc, EC.SMC, value, 'SMC')
    state.leave = { kind: 'hypercall', call: 'smc', immediate: value }
  }

  breakpoint(value: number): void {
    this.#parts.state.raise(EC.BRK, value)
  }

  // Halting debug is not modelled.
  halt(_value: number): void {
    this.#parts.state.undefined()
  }

  waitForInterrupt(): void {
    this.#wait(false)
  }

  // It may end at any time, so that without an event it ends at once.
  waitForEvent(): void {
    if (this.event) this.event = false
    else this.#wait(true)
  }

  sendEvent(_local: boolean): void {
    this.event = true
  }

  barrier(kind: 'dsb' | 'dmb' | 'isb'): void {
    if (kind === 'isb') this.#parts.registers.sync.synchronise()
  }

  checkFp(): void {
    const { state, traps, registers } = this.#parts
    if (registers.sync.waiting) this.#findFpUse()
    if (!this.#permitsFp(this.#cpacr.effective)) state.raise(EC.FP_ACCESS, ALWAYS)
    else if ((traps.cptr & CPTR.TFP) !== 0) traps.taken(state.pc, EC.FP_ACCESS, ALWAYS, 'FP')
  }

  get #control(): number {
    return Number(this.#sctlr.effective)
  }

  #permitsFp(cpacr: bigint): boolean {
    const fpen = Number((cpacr >> 20n) & 3n)
    return fpen === 3 || (fpen === 1 && this.#parts.state.el === 1)
  }

  #findFpUse(): void {
    const { effective, value } = this.#cpacr
    if (this.#permitsFp(effective) !== this.#permitsFp(value))
      this.#parts.registers.sync.used(this.#cpacr, this.#parts.state.pc)
  }

  #wait(forEvent: boolean): void {
    const { state, traps } = this.#parts
    const iss = ALWAYS | (forEvent ? 1 : 0)
    if (state.el === 0 && (this.#control & (forEvent ? SCTLR.nTWE : SCTLR.nTWI)) === 0) {
      state.raise(EC.WFX, iss)
      return
    }
    if ((traps.hcr & (forEvent ? HCR.TWE : HCR.TWI)) !== 0)
      traps.taken(state.pc, EC.WFX, iss, forEvent ? 'WFE' : 'WFI')
    if (!forEvent) this.#parts.sleep()
  }
}
