/**
 * What the kernel's IOMMU API looks like from above: domains, which a container attaches devices to, and
 * the driver of one IOMMU unit that makes them. IOVA and HPA travel as page numbers, exact in a double.
 * Refusals are ErrnoError. Next: core.ts (who has which driver), vtd/driver.ts (an implementation).
 */
import type { IoasidSet } from './ioasid-set.js'
import type { CacheInvalidate, GpasidBind, IommuFault, PasidTableConfig } from './uapi.js'
import type { UserTables } from './user-tables.js'

// biome-ignore format: table
export const
  IOMMU_READ  = 1 << 0,   // the device may read
  IOMMU_WRITE = 1 << 1 // the device may write

/** A range of IOVA pages, both ends included. */
export interface IovaRange {
  readonly startPage: number
  readonly endPage: number
}

/** What a nesting domain tells user space; every unit of the system agrees on `cap` and `ecap`. */
export interface NestingInfo {
  /** IOMMU_PASID_FORMAT_*; 0 for a driver that has nothing to tell. */
  readonly format: number
  /** IOMMU_NESTING_FEAT_*. */
  readonly features: number
  /** Bits of guest physical addresses the second stage takes. */
  readonly addrWidth: number
  /** log2 of the number of PASIDs. */
  readonly pasidBits: number
  /** VT-d CAP and ECAP, only the bits that a guest may rely on. */
  readonly cap: bigint
  readonly ecap: bigint
}

/** Nesting by the guest's whole PASID table, which the unit reads through the domain's own stage. */
export interface GuestTables {
  /**
   * Puts the guest's table, or its bypass or abort, in front of the domain for every device. EINVAL: not
   * nesting, a table already, or a configuration that the units cannot have.
   */
  setPasidTable(config: PasidTableConfig): void
  /** Takes it away: addresses are the domain's again. Harmless when there is none. */
  unsetPasidTable(): void
  /** Interrupt messages go to `iova`, which the guest's stage turns into `gpa`. EINVAL: not nesting, size no page. */
  bindMsi(iova: bigint, gpa: bigint, size: bigint): void
  /** Takes a binding away; harmless when there is none. */
  unbindMsi(iova: bigint): void
}

/** One I/O address space, in real tables; freed by its owner when no device is attached. */
export interface Domain {
  readonly nesting: boolean
  /** Page sizes in bytes, smallest first. */
  readonly pgsizes: readonly number[]
  /** Last IOVA page that the tables reach. */
  readonly apertureEndPage: number
  /** DMA snoops processor caches whatever the device asks for. */
  readonly coherent: boolean
  /** IOVA that is never translated here. */
  reserved(): readonly IovaRange[]
  /** Lets the device use the domain. ENODEV not this driver's device, EBUSY attached already. */
  attach(bdf: number): void
  /** Takes the device off, its bindings with it; harmless when it is not attached. */
  detach(bdf: number): void
  /**
   * Shares a function with other domains, under a PASID of the host's that the function's requests for this one
   * carry, and returns it (IOMMU-backed mediated devices). EOPNOTSUPP: no PASIDs; ENODEV, ENOSPC, ENOMEM.
   */
  attachAux?(bdf: number): number
  /** Ends that, with what is bound over this domain on the function. Once for each `attachAux`. */
  detachAux?(bdf: number): void
  /** Maps pages; `prot` of IOMMU_READ and IOMMU_WRITE. EINVAL outside the aperture, EEXIST mapped, ENOMEM. */
  map(iovaPage: number, hpaPage: number, pages: number, prot: number): void
  /** Unmaps what is mapped in a range and answers how many pages that was. The pages may be reused after `flush`. */
  unmap(iovaPage: number, pages: number): number
  /** Waits until no cache holds anything that was unmapped. */
  flush(): void
  /** Host page behind an IOVA page; -1 when there is none. */
  iovaToPhys(iovaPage: number): number
  /** Undefined when the domain is not for nesting. */
  nestingInfo(): NestingInfo | undefined
  /** Says whose PASIDs may be bound. ENODEV not nesting, EBUSY another set; undefined takes it away. */
  setIoasidSet(set: IoasidSet | undefined): void
  /** Binds a guest's table to a PASID of the set on one device. Errors in the order of the documented rows. */
  bindGpasid(bdf: number, data: GpasidBind): void
  /** Undoes a bind; success when there was none. EINVAL, ENOENT, EACCES by range and ownership. */
  unbindGpasid(bdf: number, hpasid: bigint): void
  /** Undefined when guests bind tables by PASID, or not at all. */
  readonly guestTables?: GuestTables
  /** Carries out a checked invalidation. EINVAL, ENOENT, EACCES when the PASID is not bound, known, ours. */
  cacheInvalidate(bdf: number, info: CacheInvalidate): void
  /** Gives tables and domain id back. An Error while devices are attached. */
  free(): void
}

/** An interrupt vector of one function: what to program into its MSI-X table, and how to give it back. */
export interface DeviceVector {
  readonly address: number
  readonly data: number
  free(): void
}

/** Where a driver reports what devices did; the core is one. */
export interface FaultSink {
  /** A refused request. */
  fault(bdf: number, fault: IommuFault): void
  /** A page request; false when nobody takes it: the driver answers INVALID. */
  pageRequest(bdf: number, fault: IommuFault): boolean
  /** Answers INVALID to what still waits of a function, or of one PASID of it: the binding goes away. */
  cancelPageRequests(bdf: number, pasid?: number): void
}

/** The operating system's half of one IOMMU unit. */
export interface IommuDriver {
  readonly name: string
  /** What nesting on this unit offers; undefined when it cannot nest. */
  readonly nesting: NestingInfo | undefined
  /** Interrupts of devices cannot be forged: remapping is on, and vectors must come from `allocateVector`. */
  readonly isolatesInterrupts: boolean
  /**
   * A vector that calls `handler` when that function raises it. ENOSPC. With `count`, a power of two up to 32, a
   * block for MSI: `data` is of the first, the low bits tell which, and `free` gives all back.
   */
  allocateVector(bdf: number, handler: (index: number) => void, count?: number): DeviceVector
  /** Guest tables bound to PASIDs of devices below the unit. */
  readonly bindingCount: number
  /** What iommufd uses; undefined: iommufd offers nothing over this unit. */
  readonly userTables?: UserTables
  /** Brings the unit up; a second call does nothing. */
  probe(): void
  /** Learns where faults and page requests go, and which functions are below the unit. */
  connect(sink: FaultSink, covers: (bdf: number) => boolean): void
  domainAlloc(options: { readonly nesting: boolean }): Domain
  /** Sends the answer to a page request; `code` of IOMMU_PAGE_RESP_*. ENODEV when the device has no such binding. */
  respond(bdf: number, request: IommuFault, code: number): void
  /** Puts ATS, PRI and PASID of an attached device back as they were, after the function was reset. */
  restore(bdf: number): void
}
