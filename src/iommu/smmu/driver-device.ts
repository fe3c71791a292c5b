/**
 * What the driver knows of one function below its unit: its services (../pci-services.ts) and its domain.
 * Next: driver.ts (who attaches).
 */
import type { PciConfig } from '../pci-config.js'
import { PciServices } from '../pci-services.js'
import type { SmmuDomain } from './driver-domain.js'
import type { GuestStage } from './driver-nesting.js'
import type { SmmuNested } from './driver-virtual.js'

/** One function attached to a domain. Its StreamID is its requester id. */
export class SmmuDevice extends PciServices {
  domain: SmmuDomain
  /** The guest's STE it is on, of a virtual SMMU over the domain. */
  nested: SmmuNested | undefined
  /** Its faults may stall: firmware says that nothing waits for ever behind it. */
  readonly mayStall: boolean

  constructor(
    config: PciConfig,
    bdf: number,
    domain: SmmuDomain,
    nested: SmmuNested | undefined,
    mayStall: boolean,
  ) {
    super(config, bdf)
    this.domain = domain
    this.nested = nested
    this.mayStall = mayStall
  }

  /** What is in front of the domain. */
  get stage(): GuestStage {
    return this.nested ? this.nested.stage : this.domain.guestTables.stage
  }

  /** Whether somebody wants its page requests. */
  get takesFaults(): boolean {
    if (this.nested) return this.nested.takesFaults
    return this.domain.takesFaults || this.domain.guestTables.translates
  }
}
