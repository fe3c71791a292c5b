/**
 * What iommufd asks of a driver beyond a container's domains: tables that user space composes itself, put under
 * functions or single PASIDs of them, replaced in place, nested, and asked what was written through them.
 * Refusals are ErrnoError. Next: vtd/driver-user.ts, smmu/driver-user.ts, ../vfio/iommufd/hwpt.ts (who asks).
 */
import type { Domain } from './domain.js'

/** A table that functions, or PASIDs of them, can be put on. Without `pasid`: requests that carry none. */
export interface IoTable {
  /** Whether page requests of what is on it are delivered; otherwise they are answered INVALID. */
  takesFaults: boolean
  /** Puts a function or PASID on the table. EBUSY when it is on one; EINVAL a PASID that is too wide. */
  attach(bdf: number, pasid?: number): void
  /** As `attach`, in place of the table it is on: no request finds neither. */
  replace(bdf: number, pasid?: number): void
  /** Takes it off, its page requests answered INVALID; harmless when it is not there. */
  detach(bdf: number, pasid?: number): void
  /** Gives it back. An Error while something is on it. */
  free(): void
}

/** A domain that user space made. */
export interface PagingTable extends IoTable, Domain {
  attach(bdf: number, pasid?: number): void
  detach(bdf: number, pasid?: number): void
  free(): void
  /** Whether it was made for dirty tracking. */
  readonly tracksDirty: boolean
  /** Whether it is tracking now. */
  readonly keepsDirty: boolean
  /** Makes the hardware keep dirty flags, or stop. */
  setDirtyTracking(on: boolean): void
  /** Tells what was written to in a range since the last time, clearing it unless `keep`. */
  readDirty(iovaPage: number, pages: number, keep: boolean, dirty: DirtyPages): void
  /** A user's first-stage table over this one; absent where the unit nests nothing of this kind. */
  nest?(stage1: VtdStage1): NestedTable
  /** A virtual IOMMU over this one, which was made as a parent; absent where the unit has none. */
  virtual?(): VirtualIommu
}

/** Called for each run of pages that was written to. */
export type DirtyPages = (iovaPage: number, pages: number) => void

/** A first-stage table in guest memory, as VT-d walks it. */
export interface VtdStage1 {
  readonly root: bigint
  readonly addrWidth: number
  readonly supervisor: boolean
  readonly extendedAccess: boolean
  readonly writeProtect: boolean
}

/** A user's table over a domain. */
export interface NestedTable extends IoTable {
  /** Drops what is cached of `pages` pages from `addr`, or of all of them; device caches too. Absent: a virtual IOMMU does. */
  invalidate?(addr: bigint, pages: bigint, leaf: boolean): void
}

/** An SMMUv3 of a guest's: streams by the guest's numbers, its STEs over one domain, and its commands. */
export interface VirtualIommu {
  /** Told of every event record (32 bytes, with the guest's StreamID) that the guest's own SMMUv3 would have written. */
  onEvent: ((record: Uint8Array) => void) | undefined
  /** The first two words of a guest's STE. EIO: more than a guest may say. */
  nest(ste: readonly [bigint, bigint]): NestedTable
  /** Gives a function the guest's StreamID. */
  link(virtualId: bigint, bdf: number): void
  /** Takes it away. */
  unlink(virtualId: bigint): void
  /** Carries out a guest's command, as far as its own domain and functions go. EIO: no command of a guest's. */
  execute(command: readonly [bigint, bigint]): void
  /** Waits until what was executed is done. */
  finish(): void
}

/** IOMMU_HW_INFO_TYPE_*, and what that type's structure tells. */
export type HardwareRegisters =
  | { readonly type: 1; readonly cap: bigint; readonly ecap: bigint }
  | {
      readonly type: 2
      readonly idr: readonly number[]
      readonly iidr: number
      readonly aidr: number
    }

/** What a function and the unit above it can do together. */
export interface HardwareInfo {
  /** The unit's registers, unmasked. */
  readonly registers: HardwareRegisters
  /** Bits of PASIDs; 0 without. */
  readonly pasidBits: number
  /** The unit serves requests under PASIDs, of whatever device. */
  readonly unitPasids: boolean
  /** DMA snoops processor caches. */
  readonly coherent: boolean
  /** Requests under a PASID may ask to execute, or be privileged. */
  readonly pasidExecute: boolean
  readonly pasidPrivileged: boolean
  readonly ats: boolean
  readonly pageRequests: boolean
  readonly dirtyTracking: boolean
  /** Guest tables can be put over domains of the unit. */
  readonly nesting: boolean
}

/** The part of a driver that iommufd uses. */
export interface UserTables {
  info(bdf: number): HardwareInfo
  /** EOPNOTSUPP when the unit cannot nest, keep dirty flags, or has no second stage. */
  alloc(options: { readonly nestParent: boolean; readonly dirty: boolean }): PagingTable
}
