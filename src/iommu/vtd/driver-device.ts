/**
 * What the driver knows of one function below its unit: its services (pci-services.ts), its domain and its
 * PASID table. Next: driver.ts (who attaches), driver-bind.ts (what the PASID table gets).
 */
import type { PciConfig } from '../pci-config.js'
import { PciServices } from '../pci-services.js'
import type { BoundPasid } from './driver-bind.js'
import type { VtdDomain } from './driver-domain.js'
import type { PasidTable } from './driver-tables.js'

/** One function attached to a domain. */
export class VtdDevice extends PciServices {
  readonly domain: VtdDomain
  readonly pasids: PasidTable
  /** What is bound on it, by PASID. */
  readonly bound = new Map<number, BoundPasid>()

  constructor(config: PciConfig, bdf: number, domain: VtdDomain, pasids: PasidTable) {
    super(config, bdf)
    this.domain = domain
    this.pasids = pasids
  }
}
