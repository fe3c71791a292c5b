/**
 * The kernel's IOMMU core of one machine: which driver serves a function, isolation groups, domains, and
 * where faults and page requests of a function go. Knows no architecture. Next: domain.ts (the contract
 * with drivers), page-requests.ts, groups.ts.
 */
import type { VirtualClock } from '../base/clock.js'
import { ErrnoError } from '../base/errno.js'
import type { DeviceVector, Domain, FaultSink, IommuDriver } from './domain.js'
import { IommuGroups, type NamespaceDevice } from './groups.js'
import { PageRequests } from './page-requests.js'
import type { PciConfig } from './pci-config.js'
import type { IommuFault, IommuPageResponse } from './uapi.js'

/**
 * Takes faults of one function: refused requests and page requests. False says that it could not be queued;
 * a page request is then answered INVALID at once.
 */
export type FaultHandler = (fault: IommuFault) => boolean

/** What a core is made of. */
export interface IommuCoreOptions {
  readonly config: PciConfig
  readonly clock: VirtualClock
  /** Unanswered page requests become INVALID after this long; 0 (default) never. */
  readonly pageResponseTimeoutNs?: number
  /** Devices that are no PCI functions. */
  readonly namespaceDevices?: readonly NamespaceDevice[]
}

interface Unit {
  readonly driver: IommuDriver
  readonly covers: (bdf: number) => boolean
}

/** The IOMMU core of one machine. */
export class IommuCore implements FaultSink {
  readonly config: PciConfig
  readonly #units: Unit[] = []
  readonly #handlers = new Map<number, FaultHandler>()
  readonly #requests: PageRequests
  readonly #namespaceDevices: readonly NamespaceDevice[]
  #groups: IommuGroups | undefined

  constructor(options: IommuCoreOptions) {
    const { config, clock, pageResponseTimeoutNs = 0, namespaceDevices = [] } = options
    this.config = config
    this.#namespaceDevices = namespaceDevices
    this.#requests = new PageRequests(clock, pageResponseTimeoutNs, (bdf, request, code) =>
      this.deviceDriver(bdf)?.respond(bdf, request, code),
    )
  }

  /** Adds a unit's driver and brings the unit up; `covers` says which functions are below it (default all). */
  add(driver: IommuDriver, covers: (bdf: number) => boolean = () => true): void {
    const others = [...this.#units]
    driver.connect(this, bdf => covers(bdf) && !others.some(o => o.covers(bdf)))
    driver.probe()
    this.#units.push({ driver, covers })
  }

  /** The isolation groups; the buses are scanned when first asked for, so after firmware numbered them. */
  get groups(): IommuGroups {
    this.#groups ??= new IommuGroups(this.config, this.#namespaceDevices)
    return this.#groups
  }

  /** The driver of the unit above a function. */
  deviceDriver(bdf: number): IommuDriver | undefined {
    return this.#units.find(u => u.covers(bdf))?.driver
  }

  /**
   * A new domain for the device's unit. ENODEV when the device has no IOMMU, or when nesting is asked for and
   * not every unit of the system can nest in the same way.
   */
  domainAlloc(bdf: number, { nesting = false }: { readonly nesting?: boolean } = {}): Domain {
    const driver = this.deviceDriver(bdf)
    if (driver === undefined) throw new ErrnoError('ENODEV', 'no IOMMU translates this device')
    if (nesting && !this.canNest)
      throw new ErrnoError('ENODEV', 'the IOMMU units cannot nest, or not in the same way')
    return driver.domainAlloc({ nesting })
  }

  /** Whether every unit nests and all report the same: otherwise there is no nesting anywhere. */
  get canNest(): boolean {
    const first = this.#units[0]?.driver.nesting
    return (
      first !== undefined &&
      this.#units.every(({ driver: { nesting } }) => {
        const { format, cap, ecap } = nesting ?? { format: -1, cap: 0n, ecap: 0n }
        return format === first.format && cap === first.cap && ecap === first.ecap
      })
    )
  }

  /**
   * A vector for a function's MSI-X table, or a block of `count` for MSI: through interrupt remapping where there is
   * one. ENODEV when the device has no IOMMU, ENOSPC when vectors are exhausted.
   */
  allocateVector(bdf: number, handler: (index: number) => void, count?: number): DeviceVector {
    const driver = this.deviceDriver(bdf)
    if (driver === undefined) throw new ErrnoError('ENODEV', 'no IOMMU translates this device')
    return driver.allocateVector(bdf, handler, count)
  }

  /** Sets who takes a function's faults; undefined: nobody, and what waits is answered INVALID. */
  onFault(bdf: number, handler: FaultHandler | undefined): void {
    if (handler !== undefined) {
      this.#handlers.set(bdf, handler)
      return
    }
    this.#handlers.delete(bdf)
    this.#requests.cancel(bdf)
  }

  /** Answers a page request. ENODEV no IOMMU; EINVAL no handler, bad response, or nothing that it answers. */
  pageResponse(bdf: number, response: IommuPageResponse): void {
    if (this.deviceDriver(bdf) === undefined)
      throw new ErrnoError('ENODEV', 'no IOMMU translates this device')
    if (!this.#handlers.has(bdf))
      throw new ErrnoError('EINVAL', 'page response: nobody takes faults of this device')
    this.#requests.respond(bdf, response)
  }

  /** Guest tables that are bound on all units together. */
  get bindingCount(): number {
    return this.#units.reduce((n, { driver }) => n + driver.bindingCount, 0)
  }

  /** Page requests that wait for an answer, of one function or of all. */
  pendingPageRequests(bdf?: number): number {
    return this.#requests.count(bdf)
  }

  // ---- FaultSink: called by drivers ----

  fault(bdf: number, fault: IommuFault): void {
    this.#handlers.get(bdf)?.(fault)
  }

  pageRequest(bdf: number, fault: IommuFault): boolean {
    const handler = this.#handlers.get(bdf)
    if (handler === undefined) return false
    this.#requests.expect(bdf, fault)
    if (handler(fault)) return true
    this.#requests.forget(bdf, fault)
    return false
  }

  cancelPageRequests(bdf: number, pasid?: number): void {
    this.#requests.cancel(bdf, pasid)
  }
}
