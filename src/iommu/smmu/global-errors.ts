/**
 * Global errors: GERROR and GERRORN (IHI 0070 6.3.18, 7.5). An error is active while its two bits differ;
 * the unit flips the one, software the other.
 */
import type { LiveRegisters } from '../../base/registers.js'
import type { GlobalError, SMMU_REGISTERS } from './registers.js'

/** The errors of one unit. */
export class GlobalErrors {
  readonly #regs: LiveRegisters<typeof SMMU_REGISTERS>
  readonly #interrupt: () => void

  constructor(regs: LiveRegisters<typeof SMMU_REGISTERS>, interrupt: () => void) {
    this.#regs = regs
    this.#interrupt = interrupt
  }

  active(error: GlobalError): boolean {
    return this.#regs.GERROR[error] !== this.#regs.GERRORN[error]
  }

  /** Makes an error active; its interrupt is sent unless it already was. */
  raise(error: GlobalError): void {
    if (this.active(error)) return
    this.#regs.GERROR[error] = !this.#regs.GERRORN[error]
    this.#interrupt()
  }
}
