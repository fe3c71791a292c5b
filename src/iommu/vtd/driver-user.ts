/**
 * What a VT-d unit offers to iommufd: its registers as they are, and domains of the user's composing.
 * Next: driver-domain.ts, driver-nested.ts.
 */
import { ErrnoError } from '../../base/errno.js'
import { EXTENDED } from '../../pci/ids.js'
import type { PciConfig } from '../pci-config.js'
import type { HardwareInfo, UserTables } from '../user-tables.js'
import type { VtdAttachments } from './driver-attach.js'
import type { Capabilities } from './driver-capabilities.js'
import type { VtdDomain } from './driver-domain.js'
import type { UnitRegisters } from './driver-registers.js'

/** IOMMU_HW_INFO_TYPE_INTEL_VTD. */
const INTEL_VTD = 1
const PASID_CAPABILITY = 0x04
const PASID_EXECUTE = 1 << 1
const PASID_PRIVILEGED = 1 << 2

/** What is asked of the unit's driver. */
export interface UserUnit {
  readonly capabilities: Capabilities
  readonly attachments: VtdAttachments
  domainAlloc(options: { readonly nesting: boolean; readonly tracksDirty: boolean }): VtdDomain
}

/** The part of one unit's driver that iommufd uses. */
export class VtdUserTables implements UserTables {
  readonly #unit: UserUnit
  readonly #config: PciConfig
  readonly #registers: UnitRegisters

  constructor(unit: UserUnit, config: PciConfig, registers: UnitRegisters) {
    this.#unit = unit
    this.#config = config
    this.#registers = registers
  }

  info(bdf: number): HardwareInfo {
    const { capabilities } = this.#unit
    const has = (id: number) => this.#config.extended(bdf, id) !== 0
    const pasidBits = this.#unit.attachments.pasidBits(bdf)
    const at = pasidBits > 0 ? this.#config.extended(bdf, EXTENDED.PASID) : 0
    const modes = at > 0 ? this.#config.read(bdf, at + PASID_CAPABILITY, 2) : 0
    const ats = capabilities.deviceTlb && has(EXTENDED.ATS)
    return {
      registers: {
        type: INTEL_VTD,
        cap: this.#registers.read('CAP_REG').$value,
        ecap: this.#registers.read('ECAP_REG').$value,
      },
      pasidBits,
      unitPasids: capabilities.pasid,
      coherent: capabilities.snoop,
      pasidExecute: (modes & PASID_EXECUTE) !== 0,
      pasidPrivileged: (modes & PASID_PRIVILEGED) !== 0,
      ats,
      pageRequests: capabilities.pageRequests && ats && pasidBits > 0 && has(EXTENDED.PRI),
      dirtyTracking: capabilities.dirtyTracking,
      nesting: capabilities.nesting !== undefined,
    }
  }

  alloc({ nestParent, dirty }: { readonly nestParent: boolean; readonly dirty: boolean }) {
    const { capabilities } = this.#unit
    const refuse = (what: string) => new ErrnoError('EOPNOTSUPP', `the unit ${what}`)
    if (capabilities.shape === undefined) throw refuse('has no second stage')
    if (nestParent && capabilities.nesting === undefined) throw refuse('does not nest')
    if (dirty && !capabilities.dirtyTracking) throw refuse('keeps no dirty flags')
    return this.#unit.domainAlloc({ nesting: nestParent, tracksDirty: dirty })
  }
}
