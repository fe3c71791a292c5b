/**
 * The functions and PASIDs that are on one table, and what their own translation caches must be told when the
 * table changes. A device TLB is told after the unit's caches. Who keeps one: driver-domain.ts, driver-nested.ts.
 */
import { NO_PASID } from '../../pci/request.js'
import type { VtdDevice } from './driver-device.js'
import type { VtdInvalidator } from './driver-invalidate.js'

/** A function, or one PASID of it. */
export interface AttachedPasid {
  readonly device: VtdDevice
  readonly pasid: number
}

/** What is on a table. */
export class Attached implements Iterable<AttachedPasid> {
  readonly #list: AttachedPasid[] = []

  get size(): number {
    return this.#list.length
  }

  /** Whether any of them keeps translations. */
  get caches(): boolean {
    for (let i = 0; i < this.#list.length; i++) if (this.#list[i]!.device.atsOn) return true
    return false
  }

  [Symbol.iterator](): Iterator<AttachedPasid> {
    return this.#list[Symbol.iterator]()
  }

  add(device: VtdDevice, pasid: number): void {
    this.#list.push({ device, pasid })
  }

  remove(device: VtdDevice, pasid: number): void {
    const at = this.#list.findIndex(a => a.device === device && a.pasid === pasid)
    if (at >= 0) this.#list.splice(at, 1)
  }

  /** Drops 2^order pages from `page` on from the caches of those that have one. */
  forgetRange(inv: VtdInvalidator, page: number, order: number): void {
    if (!this.caches) return
    inv.fence()
    for (const { device, pasid } of this.#list) {
      if (!device.atsOn) continue
      if (pasid === NO_PASID) inv.deviceTlbPages(device, page, order)
      else inv.pasidDeviceTlb(device, pasid, BigInt(page) << 12n, order)
    }
  }
}
