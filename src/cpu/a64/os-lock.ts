// The OS Lock and its neighbours as KVM emulates them (DDI 0487, H6.1.2, D24.3): OSLAR, OSLSR, OSDLR, DBGPRCR.
// Each vCPU has its own lock, which no other and no host sees. Reset leaves it open (B-1); the architecture's locked
// reset is an option, and so is what a protected VM sees: nothing (B-18). What it does to debug exceptions is in debug.ts.

import type { SystemRegister, SystemRegisters } from './system-registers.js'

/** OSLSR_EL1: OSLM in bits 3 and 0 says that the lock is implemented, OSLK that it is closed. */
export const OSLSR = { OSLM_IMPLEMENTED: 8n, OSLK: 2n } as const

/** The lock at reset; `hidden`: there is none, its registers read as zero and ignore writes. */
export type OsLockKind = 'open' | 'locked' | 'hidden'

/** The OS Lock of one processing element. */
export class OsLock {
  readonly #oslsr: SystemRegister
  readonly #registers: SystemRegisters
  readonly #changed: () => void

  /** `changed` is told after every write, with the lock in its new state: it takes effect at once (B-10). */
  constructor(registers: SystemRegisters, changed: () => void, kind: OsLockKind = 'open') {
    this.#registers = registers
    this.#changed = changed
    this.#oslsr = registers.named('OSLSR_EL1')
    if (kind === 'locked') this.#oslsr.reset |= OSLSR.OSLK
    if (kind === 'hidden') this.#oslsr.reset = 0n
    registers.put(this.#oslsr, this.#oslsr.reset)
    this.#oslsr.onChange(changed)
    if (kind === 'hidden') {
      const ignored = { access: 'rw', read: () => 0n, write: () => {} } as const
      this.#oslsr.behaviour = { ...ignored, hostWrite: v => v === 0n }
      registers.named('OSLAR_EL1').behaviour = ignored
      return
    }
    this.#oslsr.behaviour = { hostWrite: v => this.#hostWrite(v) }
    registers.named('OSLAR_EL1').behaviour = { write: v => this.#set((v & 1n) !== 0n) }
  }

  /** OSLSR_EL1.OSLK. */
  get locked(): boolean {
    return (this.#oslsr.value & OSLSR.OSLK) !== 0n
  }

  // From the host only OSLK may differ from what it is (B-3).
  #hostWrite(value: bigint): boolean {
    if ((value & ~OSLSR.OSLK) !== (this.#oslsr.value & ~OSLSR.OSLK)) return false
    this.#set((value & OSLSR.OSLK) !== 0n)
    return true
  }

  #set(locked: boolean): void {
    const { value } = this.#oslsr
    this.#registers.put(this.#oslsr, locked ? value | OSLSR.OSLK : value & ~OSLSR.OSLK)
    this.#changed()
  }
}
