/**
 * PASID extended capability (PCIe 7.8.9): whether requests may carry a PASID prefix, how wide it is,
 * and whether they may ask for execute and privileged mode.
 */
import { bank, bits, flag, r16 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { EXTENDED } from '../ids.js'

/** The capability structure. Enables of features the function does not have stay clear. */
export const PASID = bank('PASID capability', {
  Header: extendedHeader(EXTENDED.PASID, 1),
  Capability: r16(0x04, 'PCIe 7.8.9.2', {
    Max_PASID_Width: bits(12, 8, 'ro', 'bits, 0 to 20'),
    Privileged_Mode_Supported: flag(2, 'ro', 'Privileged_Mode_Enable works'),
    Execute_Permission_Supported: flag(1, 'ro', 'Execute_Permission_Enable works'),
  }),
  Control: r16(0x06, 'PCIe 7.8.9.3', {
    Privileged_Mode_Enable: flag(2, 'rw', 'requests may set Privileged Mode Requested'),
    Execute_Permission_Enable: flag(1, 'rw', 'requests may set Execute Requested'),
    PASID_Enable: flag(0, 'rw', 'requests may carry a PASID prefix'),
  }),
})

/** What a device's PASID capability offers. */
export interface PasidOptions {
  /** Bits of a PASID, 1 to 20. */
  readonly width?: number
  readonly execute?: boolean
  readonly privileged?: boolean
}

/** PASID support of one function; the plain fields are what the request path asks. */
export class PasidCapability implements Capability {
  readonly id = EXTENDED.PASID
  readonly extended = true
  readonly file: RegisterFile<typeof PASID>
  readonly width: number
  enabled = false
  execute = false
  privileged = false
  readonly #options: PasidOptions

  constructor(options: PasidOptions) {
    const { width = 20 } = options
    if (!Number.isInteger(width) || width < 1 || width > 20)
      throw new RangeError(`PASID width ${width} is not 1 to 20`)
    this.width = width
    this.#options = options
    this.file = new RegisterFile(PASID, { onWrite: { Control: () => this.#controlled() } })
    this.reset()
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    const c = this.file.regs.Capability
    c.Max_PASID_Width = this.width
    c.Execute_Permission_Supported = this.#options.execute ?? true
    c.Privileged_Mode_Supported = this.#options.privileged ?? true
    this.#controlled()
  }

  restore(): void {
    this.#controlled()
  }

  #controlled(): void {
    const { Capability, Control } = this.file.regs
    if (!Capability.Execute_Permission_Supported) Control.Execute_Permission_Enable = false
    if (!Capability.Privileged_Mode_Supported) Control.Privileged_Mode_Enable = false
    this.enabled = Control.PASID_Enable
    this.execute = Control.Execute_Permission_Enable
    this.privileged = Control.Privileged_Mode_Enable
  }
}

/** PASID capability; 20 bits, execute and privileged supported unless told otherwise. */
export const pasidCapability =
  (options: PasidOptions = {}): CapabilityFactory =>
  () =>
    new PasidCapability(options)
