/**
 * What iommufd asks of a driver beyond a container's domains: tables that user space composes itself, put under
 * functions or single PASIDs of them, replaced in place, nested, and asked what was written through them.
 * Refusals are ErrnoError. Next: vtd/driver-user.ts (VT-d), ../vfio/iommufd/hwpt.ts (who asks).
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
  /** A user's first-stage table over this one. EOPNOTSUPP: the unit nests nothing of this kind. */
  nest(stage1: VtdStage1): NestedTable
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
  /** Drops what is cached of `pages` pages from `addr`, or of all of them; device caches too. */
  invalidate(addr: bigint, pages: bigint, leaf: boolean): void
}

/** What a function and the unit above it can do together. */
export interface HardwareInfo {
  /** IOMMU_HW_INFO_TYPE_*, and that type's structure: VT-d's registers unmasked. */
  readonly type: number
  readonly cap: bigint
  readonly ecap: bigint
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
