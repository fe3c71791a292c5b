// Page requests of one device, gathered until the last page of their group arrives: a user gets groups whole.
import {
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  type IommuFault,
} from '../../iommu/uapi.js'
import { NO_PASID } from '../../pci/request.js'

/** What a request made of its group. */
export interface Gathered {
  /** `NO_PASID` without. */
  readonly pasid: number
  readonly faults: readonly IommuFault[]
  /** Its last page is there. */
  readonly complete: boolean
}

/** Incomplete pages kept of one device: more than any function may have outstanding. */
const LIMIT = 512

/** The incomplete groups of one device. */
export class FaultGroups {
  #partial: IommuFault[] = []

  /** Adds a request to its group; with the last page the group is answered whole and forgotten here. */
  add(fault: IommuFault): Gathered {
    const pasid = pasidOf(fault)
    const { grpid } = fault.event.prm
    if (!(fault.event.prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE)) {
      if (this.#partial.length < LIMIT) this.#partial.push(fault)
      return { pasid, faults: [], complete: false }
    }
    const same = (f: IommuFault) => pasidOf(f) === pasid && f.event.prm.grpid === grpid
    const faults = [...this.#partial.filter(same), fault]
    this.#partial = this.#partial.filter(f => !same(f))
    return { pasid, faults, complete: true }
  }

  /** Drops what is incomplete, of a PASID (or of none) if that is given. */
  forget(pasid: number | undefined): void {
    this.#partial = this.#partial.filter(f => pasid !== undefined && pasidOf(f) !== pasid)
  }
}

const pasidOf = ({ event: { prm } }: IommuFault): number =>
  prm.flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID ? prm.pasid : NO_PASID
