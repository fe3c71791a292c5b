/**
 * PASID, page request and translation services of one function, as an operating system switches them
 * through configuration space: on at attach, off at detach, on again after a reset. Which of them a unit can
 * serve is its driver's matter. Next: vtd/driver-device.ts, smmu/driver-device.ts.
 */
import { EXTENDED } from '../pci/ids.js'
import { type FoundFunction, type PciConfig, prefixesReachRoot } from './pci-config.js'

const CAPABILITY = 0x04
const CONTROL = 0x06 // of ATS and PASID; PRI has it at 4
const ATS_ENABLE = 1 << 15
const PASID_ENABLE = 1 << 0
const PASID_EXECUTE = 1 << 1
const PASID_PRIVILEGED = 1 << 2
const PRI_CONTROL = 0x04
const PRI_ALLOCATION = 0x0c
const PRI_ENABLE = 1 << 0
const PRI_RESET = 1 << 1
/** Page requests that a function may have outstanding, unless it can do less. */
const PRI_OUTSTANDING = 32

/** What the unit above can serve. */
export interface DeviceServices {
  readonly pasid: boolean
  readonly pageRequests: boolean
  readonly deviceTlb: boolean
}

/** The services of one function. */
export class PciServices {
  readonly bdf: number
  /** Max PASID Width of the capability; 0 without one. */
  readonly pasidBits: number
  /** Services that are on. */
  pasidOn = false
  priOn = false
  atsOn = false
  /** Invalidations the function takes before it stalls (Invalidate Queue Depth, 1 to 32). */
  invalidateDepth = 32
  readonly #config: PciConfig
  /** Who has the PASID capability: the physical function of a virtual one (PCIe 9.3.7.2). */
  readonly #owner: number
  readonly #pasid: number
  readonly #pri: number
  readonly #ats: number

  constructor(config: PciConfig, bdf: number) {
    this.#config = config
    this.bdf = bdf
    this.#owner = config.physicalFunction(bdf)
    this.#pasid = config.extended(this.#owner, EXTENDED.PASID)
    this.#pri = config.extended(bdf, EXTENDED.PRI)
    this.#ats = config.extended(bdf, EXTENDED.ATS)
    this.pasidBits = pasidBits(config, bdf)
  }

  /** Whether the function has an ATS capability. */
  get hasAts(): boolean {
    return this.#ats !== 0
  }

  /**
   * Switches services on in the order that keeps each defined: PASID before ATS (PCIe 7.8.9.3), page requests
   * after a reset of their state. `place` says whether prefixes reach the root.
   */
  enable(services: DeviceServices, place: FoundFunction | undefined): void {
    const config = this.#config
    const { bdf } = this
    if (services.pasid && this.#pasid !== 0 && prefixesReachRoot(config, place)) {
      const owner = this.#owner
      const supported = config.read(owner, this.#pasid + CAPABILITY, 2)
      const modes = supported & (PASID_EXECUTE | PASID_PRIVILEGED)
      config.write(owner, this.#pasid + CONTROL, 2, PASID_ENABLE | modes)
      if (!this.pasidOn) this.#countPasid(1)
      this.pasidOn = true
    }
    const ats = services.deviceTlb && this.#ats !== 0
    if (services.pageRequests && ats && this.pasidOn && this.#pri !== 0) {
      config.write(bdf, this.#pri + PRI_CONTROL, 2, PRI_RESET)
      config.write(bdf, this.#pri + PRI_ALLOCATION, 4, PRI_OUTSTANDING)
      config.write(bdf, this.#pri + PRI_CONTROL, 2, PRI_ENABLE)
      this.priOn = true
    }
    if (ats) {
      this.invalidateDepth = config.read(bdf, this.#ats + CAPABILITY, 2) & 31 || 32
      config.write(bdf, this.#ats + CONTROL, 2, ATS_ENABLE)
      this.atsOn = true
    }
  }

  /** Switches off what is on: after this the function caches and asks nothing. */
  disable(): void {
    const config = this.#config
    const { bdf } = this
    if (this.atsOn) config.write(bdf, this.#ats + CONTROL, 2, 0)
    if (this.priOn) {
      config.write(bdf, this.#pri + PRI_CONTROL, 2, 0)
      config.write(bdf, this.#pri + PRI_ALLOCATION, 4, 0)
    }
    if (this.pasidOn && this.#countPasid(-1) === 0)
      config.write(this.#owner, this.#pasid + CONTROL, 2, 0)
    this.atsOn = this.priOn = this.pasidOn = false
  }

  /** Counts the users of the owner's capability: it stays on while there is one. */
  #countPasid(change: number): number {
    const { pasidUsers } = this.#config
    const users = (pasidUsers.get(this.#owner) ?? 0) + change
    if (users > 0) pasidUsers.set(this.#owner, users)
    else pasidUsers.delete(this.#owner)
    return users
  }
}

/** Max PASID Width of a function, a virtual one's its physical one's; 0 without PASID capability. */
export function pasidBits(config: PciConfig, bdf: number): number {
  const owner = config.physicalFunction(bdf)
  const at = config.extended(owner, EXTENDED.PASID)
  return at === 0 ? 0 : (config.read(owner, at + CAPABILITY, 2) >> 8) & 31
}
