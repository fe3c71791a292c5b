// Whose PASIDs a process may bind, when they come from /dev/ioasid and not from a container: its own, which the
// IOMMU core asks at each call (vSVA v8 with the ioasid series A4).
import { ErrnoError } from '../base/errno.js'
import type { Domain } from '../iommu/domain.js'
import type { IoasidAllocator } from '../iommu/ioasid.js'
import { IOASID_SET_TYPE, type IoasidSet } from '../iommu/ioasid-set.js'
import type { IoasidDevice } from './ioasid-dev.js'

/** Ownership of PASIDs by process. */
export class PasidOwners {
  readonly #ioasid: IoasidAllocator
  readonly #files: IoasidDevice
  /** The set that each domain takes PASIDs from. */
  readonly #claimed = new WeakMap<Domain, IoasidSet>()

  constructor(ioasid: IoasidAllocator, files: IoasidDevice) {
    this.#ioasid = ioasid
    this.#files = files
  }

  /**
   * Lets the domain take PASIDs of this address space, one of which is `pasid`. ENOENT nobody's, EINVAL the host's,
   * EPERM another process's, EBUSY being freed, or when the domain takes another process's.
   */
  claim(domain: Domain, mm: object, pasid: bigint): void {
    const refuse = (code: 'ENOENT' | 'EINVAL' | 'EPERM' | 'EBUSY', what: string) =>
      new ErrnoError(code, `VFIO_IOMMU_NESTING_OP: PASID ${pasid} ${what}`)
    const id = Number(pasid)
    const owner = this.#ioasid.owner(id)
    if (owner === undefined) throw refuse('ENOENT', 'is not allocated')
    if (owner.type !== IOASID_SET_TYPE.MM) throw refuse('EINVAL', 'is of no process')
    const set = this.#files.setOf(mm)
    if (owner !== set) throw refuse('EPERM', "is another process's")
    if (this.#ioasid.state(id) === 'FREE_PENDING') throw refuse('EBUSY', 'is being freed')
    // A process that closed its file and opened it again has another set.
    if (this.#claimed.get(domain)?.alive === false) domain.setIoasidSet(undefined)
    domain.setIoasidSet(set)
    this.#claimed.set(domain, set)
  }
}
