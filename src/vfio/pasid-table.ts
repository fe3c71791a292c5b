// Calls of the neighbour series "SMMUv3 Nested Stage Setup (VFIO part)" v13, by which a guest's whole PASID table goes
// under its devices: SET_PASID_TABLE, CACHE_INVALIDATE (whose errors are told) and SET_MSI_BINDING. Faults come by
// fault-region.ts. What the IOMMU's driver checks: iommu/smmu/driver-nesting.ts.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { Domain, GuestTables } from '../iommu/domain.js'
import { readCacheInvalidate, readPasidTableConfig } from '../iommu/uapi.js'
import type { Process } from '../sys/process.js'
import {
  VFIO_IOMMU_BIND_MSI,
  VFIO_IOMMU_UNBIND_MSI,
  VFIO_PASID_TABLE_FLAG_SET,
  VFIO_PASID_TABLE_FLAG_UNSET,
  vfio_iommu_type1_cache_invalidate,
  vfio_iommu_type1_set_msi_binding,
  vfio_iommu_type1_set_pasid_table,
} from './uapi/vsva.js'

const SET_TABLE = 'VFIO_IOMMU_SET_PASID_TABLE'
const INVALIDATE = 'VFIO_IOMMU_CACHE_INVALIDATE'
const SET_MSI = 'VFIO_IOMMU_SET_MSI_BINDING'

/** A domain of a container and the groups on it. */
export interface AttachedDomain {
  readonly domain: Domain
  readonly groups: readonly { readonly devices: readonly number[] }[]
}

/** These calls for one container. */
export class PasidTableCalls {
  readonly #attached: () => readonly AttachedDomain[]

  constructor(attached: () => readonly AttachedDomain[]) {
    this.#attached = attached
  }

  /** SET_PASID_TABLE: on every domain or on none. UNSET is never refused. */
  setPasidTable(arg: number, { memory }: Process): number {
    const head = vfio_iommu_type1_set_pasid_table({ argsz: 0 })
    const { config: minimum } = vfio_iommu_type1_set_pasid_table.offsets
    if (!memory.copyIn(arg, head.bytes, minimum)) throw unreadable(SET_TABLE, arg)
    const { argsz, flags } = head
    if (argsz < minimum) throw invalid(SET_TABLE, `argsz ${argsz} < ${minimum}`)
    if (flags !== VFIO_PASID_TABLE_FLAG_SET && flags !== VFIO_PASID_TABLE_FLAG_UNSET)
      throw invalid(SET_TABLE, `flags ${hex(flags)}: one of SET and UNSET`)
    if (flags === VFIO_PASID_TABLE_FLAG_UNSET) {
      for (const { domain } of this.#attached()) domain.guestTables?.unsetPasidTable()
      return 0
    }
    const done: GuestTables[] = []
    try {
      for (const { domain } of this.#attached()) {
        const tables = guestTables(domain, SET_TABLE)
        tables.setPasidTable(readPasidTableConfig(memory, arg + minimum))
        done.push(tables)
      }
    } catch (error) {
      for (const tables of done) tables.unsetPasidTable()
      throw error
    }
    return 0
  }

  /** CACHE_INVALIDATE, for each device in turn; the first refusal ends the call. */
  cacheInvalidate(arg: number, { memory }: Process): number {
    const head = vfio_iommu_type1_cache_invalidate({ argsz: 0 })
    const { info: minimum } = vfio_iommu_type1_cache_invalidate.offsets
    if (!memory.copyIn(arg, head.bytes, minimum)) throw unreadable(INVALIDATE, arg)
    const { argsz, flags } = head
    if (argsz < minimum) throw invalid(INVALIDATE, `argsz ${argsz} < ${minimum}`)
    if (flags !== 0) throw invalid(INVALIDATE, `flags ${hex(flags)}`)
    // One reading serves every device, so that they cannot be told different things.
    const info = readCacheInvalidate(memory, arg + minimum)
    for (const { domain, groups } of this.#attached())
      for (const { devices } of groups) for (const bdf of devices) domain.cacheInvalidate(bdf, info)
    return 0
  }

  /** SET_MSI_BINDING: on every domain. UNBIND is never refused. */
  setMsiBinding(arg: number, { memory }: Process): number {
    const binding = vfio_iommu_type1_set_msi_binding({ argsz: 0 })
    const { size: minimum } = vfio_iommu_type1_set_msi_binding
    if (!memory.copyIn(arg, binding.bytes)) throw unreadable(SET_MSI, arg)
    const { argsz, flags, iova, gpa, size } = binding
    if (argsz < minimum) throw invalid(SET_MSI, `argsz ${argsz} < ${minimum}`)
    if (flags !== VFIO_IOMMU_BIND_MSI && flags !== VFIO_IOMMU_UNBIND_MSI)
      throw invalid(SET_MSI, `flags ${hex(flags)}: one of BIND and UNBIND`)
    for (const { domain } of this.#attached()) {
      if (flags === VFIO_IOMMU_UNBIND_MSI) domain.guestTables?.unbindMsi(iova)
      else guestTables(domain, SET_MSI).bindMsi(iova, gpa, size)
    }
    return 0
  }
}

function guestTables({ guestTables }: Domain, call: string): GuestTables {
  if (guestTables === undefined)
    throw new ErrnoError('ENODEV', `${call}: the IOMMU takes no whole table`)
  return guestTables
}

const unreadable = (call: string, arg: number) =>
  new ErrnoError('EFAULT', `${call}: argument at ${hex(arg)} is not readable`)
const invalid = (call: string, what: string) => new ErrnoError('EINVAL', `${call}: ${what}`)
