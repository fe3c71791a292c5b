/**
 * What the driver knows of one function below its unit: its services (../pci-services.ts) and its domain.
 * Next: driver.ts (who attaches).
 */
import type { PciConfig } from '../pci-config.js'
import { PciServices } from '../pci-services.js'
import type { SmmuDomain } from './driver-domain.js'

/** One function attached to a domain. Its StreamID is its requester id. */
export class SmmuDevice extends PciServices {
  readonly domain: SmmuDomain
  /** Its faults may stall: firmware says that nothing waits for ever behind it. */
  readonly mayStall: boolean

  constructor(config: PciConfig, bdf: number, domain: SmmuDomain, mayStall: boolean) {
    super(config, bdf)
    this.domain = domain
    this.mayStall = mayStall
  }
}
