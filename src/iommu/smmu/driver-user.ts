/**
 * What an SMMUv3 offers to iommufd: its registers as they are, domains, and virtual SMMUs over them. Functions
 * are put on domains whole; PASIDs are a guest's own. Next: driver-domain.ts, driver-virtual.ts.
 */
import { ErrnoError } from '../../base/errno.js'
import { EXTENDED } from '../../pci/ids.js'
import type { FoundFunction, PciConfig } from '../pci-config.js'
import { prefixesReachRoot } from '../pci-config.js'
import { pasidBits } from '../pci-services.js'
import type { HardwareInfo, UserTables } from '../user-tables.js'
import type { SmmuCapabilities } from './driver-capabilities.js'
import type { SmmuDomain } from './driver-domain.js'
import type { SmmuRegisters } from './driver-registers.js'

/** IOMMU_HW_INFO_TYPE_ARM_SMMUV3. */
const ARM_SMMUV3 = 2
const PASID_CAPABILITY = 0x04
const PASID_EXECUTE = 1 << 1
const PASID_PRIVILEGED = 1 << 2
const IDENTIFICATION = ['IDR0', 'IDR1', 'IDR2', 'IDR3', 'IDR4', 'IDR5'] as const

/** What is asked of the unit's driver. */
export interface UserUnit {
  readonly capabilities: SmmuCapabilities
  /** Where a function is; undefined when it is not there. */
  place(bdf: number): FoundFunction | undefined
  domainAlloc(options: { readonly nesting: boolean }): SmmuDomain
}

/** The part of one unit's driver that iommufd uses. */
export class SmmuUserTables implements UserTables {
  readonly #unit: UserUnit
  readonly #config: PciConfig
  readonly #registers: SmmuRegisters

  constructor(unit: UserUnit, config: PciConfig, registers: SmmuRegisters) {
    this.#unit = unit
    this.#config = config
    this.#registers = registers
  }

  info(bdf: number): HardwareInfo {
    const { capabilities } = this.#unit
    const has = (id: number) => this.#config.extended(bdf, id) !== 0
    const reach =
      capabilities.substreamBits > 0 && prefixesReachRoot(this.#config, this.#unit.place(bdf))
    const bits = reach ? Math.min(pasidBits(this.#config, bdf), capabilities.substreamBits) : 0
    const at = bits > 0 ? this.#config.extended(bdf, EXTENDED.PASID) : 0
    const modes = at > 0 ? this.#config.read(bdf, at + PASID_CAPABILITY, 2) : 0
    const ats = capabilities.ats && has(EXTENDED.ATS)
    const word = (name: (typeof IDENTIFICATION)[number] | 'IIDR' | 'AIDR') =>
      Number(this.#registers.read(name).$value)
    return {
      registers: {
        type: ARM_SMMUV3,
        idr: IDENTIFICATION.map(word),
        iidr: word('IIDR'),
        aidr: word('AIDR'),
      },
      pasidBits: bits,
      unitPasids: false,
      coherent: true,
      pasidExecute: (modes & PASID_EXECUTE) !== 0,
      pasidPrivileged: (modes & PASID_PRIVILEGED) !== 0,
      ats,
      pageRequests: capabilities.pri && ats && bits > 0 && has(EXTENDED.PRI),
      dirtyTracking: false,
      nesting: this.#nests,
    }
  }

  alloc({ nestParent, dirty }: { readonly nestParent: boolean; readonly dirty: boolean }) {
    const refuse = (what: string) => new ErrnoError('EOPNOTSUPP', `the unit ${what}`)
    if (nestParent && !this.#nests) throw refuse('does not nest')
    if (dirty) throw refuse('keeps no dirty flags for its driver')
    return this.#unit.domainAlloc({ nesting: nestParent })
  }

  get #nests(): boolean {
    const { stage1, stage2 } = this.#unit.capabilities
    return stage1 !== undefined && stage2 !== undefined
  }
}
