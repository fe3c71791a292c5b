/**
 * What the driver knows of one function below its unit: its services (pci-services.ts), the tables it is
 * on and its PASID table. Next: driver-attach.ts, driver-bind.ts (what the PASID table gets).
 */
import type { PciConfig } from '../pci-config.js'
import { PciServices } from '../pci-services.js'
import type { VtdTable } from './driver-attach.js'
import type { BoundPasid } from './driver-bind.js'
import type { VtdDomain } from './driver-domain.js'
import type { PasidTable } from './driver-tables.js'

/** One function that is on a table, or has a PASID that is. */
export class VtdDevice extends PciServices {
  /** The domain of requests without PASID, when they are on a domain. */
  domain: VtdDomain | undefined = undefined
  /** The tables it is on, by PASID and `NO_PASID`. */
  readonly tables = new Map<number, VtdTable>()
  readonly pasids: PasidTable
  /** What is bound on it, by PASID. */
  readonly bound = new Map<number, BoundPasid>()

  constructor(config: PciConfig, bdf: number, pasids: PasidTable) {
    super(config, bdf)
    this.pasids = pasids
  }

  /** Whether its requests, or those under one of its PASIDs, go to this domain. */
  isOn(domain: VtdDomain): boolean {
    if (this.domain === domain) return true
    for (const table of this.tables.values()) if (table === domain) return true
    return false
  }
}
