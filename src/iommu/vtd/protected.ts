/**
 * Protected memory: one region below 4 GB and one anywhere that devices may not reach as host addresses
 * (VT-d 11.4.8). Checked are requests whose address no table translates; what is translated is the
 * tables' matter, as the specification lets hardware choose. The unit's own accesses are not checked.
 */
import type { LiveRegisters } from '../../base/registers.js'
import type { VtdConfig } from './config.js'
import type { VTD_REGISTERS } from './registers.js'

/** Bytes that base and limit registers count in: their bits below read zero. */
export const PROTECTED_ALIGNMENT = 2 ** 21

/** The protected regions of one unit, as they were when PMEN_REG was written last. */
export class ProtectedMemory {
  /** EPM: whether anything is checked at all. */
  on = false
  #lowBase = 0
  #lowEnd = 0
  #highBase = 0
  #highEnd = 0

  /** Takes the regions from the registers, and PMEN_REG.EPM to PRS. A limit below its base leaves a region empty. */
  latch(regs: LiveRegisters<typeof VTD_REGISTERS>, c: VtdConfig): void {
    const { PMEN_REG: enable, PLMBASE_REG, PLMLIMIT_REG, PHMBASE_REG, PHMLIMIT_REG } = regs
    const width = 2 ** c.hostAddressWidth
    this.on = enable.EPM
    enable.PRS = enable.EPM
    this.#lowBase = PLMBASE_REG.PLMB
    this.#lowEnd = c.protectedLowMemory ? PLMLIMIT_REG.PLML + PROTECTED_ALIGNMENT : 0
    this.#highBase = PHMBASE_REG.PHMB % width
    this.#highEnd = c.protectedHighMemory ? (PHMLIMIT_REG.PHML % width) + PROTECTED_ALIGNMENT : 0
  }

  /** Whether a device may not reach this host address. */
  forbids(address: number): boolean {
    if (!this.on) return false
    return (
      (address >= this.#lowBase && address < this.#lowEnd) ||
      (address >= this.#highBase && address < this.#highEnd)
    )
  }
}
