/**
 * Power management capability (PCI-PM 3.2): D0 and D3hot. In D3hot a function answers configuration
 * only: its BARs do not decode and it issues nothing. PME is not modelled.
 */
import { bank, bits, flag, r16 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, capabilityHeader } from '../capability.js'
import { CAPABILITY } from '../ids.js'
import type { PciNode } from '../node.js'

const D3HOT = 3

/** The capability structure. */
export const POWER_MANAGEMENT = bank('power management capability', {
  Header: capabilityHeader(CAPABILITY.POWER_MANAGEMENT),
  PMC: r16(
    0x02,
    'PCIe 7.5.2.1',
    {
      PME_Support: bits(15, 11, 'ro', 'states that can signal PME: none'),
      D2_Support: flag(10, 'ro', 'no D2'),
      D1_Support: flag(9, 'ro', 'no D1'),
      Version: bits(2, 0, 'ro', '3'),
    },
    3n,
  ),
  PMCSR: r16(
    0x04,
    'PCIe 7.5.2.2',
    {
      No_Soft_Reset: flag(3, 'ro', 'D3hot to D0 keeps every register'),
      PowerState: bits(1, 0, 'rw', '0 D0, 3 D3hot; writes of 1 and 2 are discarded'),
    },
    8n,
  ),
})

/** Power management of one function. */
export class PowerManagementCapability implements Capability {
  readonly id = CAPABILITY.POWER_MANAGEMENT
  readonly extended = false
  readonly file: RegisterFile<typeof POWER_MANAGEMENT>
  readonly #node: PciNode

  constructor(node: PciNode) {
    this.#node = node
    this.file = new RegisterFile(POWER_MANAGEMENT, {
      onWrite: {
        PMCSR: ({ PowerState }) => {
          const known = PowerState === 0 || PowerState === D3HOT
          if (!known) this.file.regs.PMCSR.PowerState = node.powerState
          else if (PowerState !== node.powerState) {
            node.powerState = PowerState
            node.refresh()
          }
        },
      },
    })
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
  }

  restore(): void {
    this.#node.powerState = this.file.regs.PMCSR.PowerState
  }
}

/** Power management capability. */
export const powerManagement = (): CapabilityFactory => node => new PowerManagementCapability(node)
