/**
 * A user's first-stage table over a domain (iommufd's nested HWPT): a domain id of its own, so that two of them
 * may be under one PASID number of two functions, and the entry that leads to both stages.
 * Rules: uapi linux/iommufd.h, iommu_hwpt_vtd_s1, checked when something is attached. Next: driver-attach.ts.
 */
import { ErrnoError } from '../../base/errno.js'
import { NO_PASID } from '../../pci/request.js'
import type { NestedTable, VtdStage1 } from '../user-tables.js'
import { RID_PASID, type VtdAttachments, type VtdTable } from './driver-attach.js'
import { Attached } from './driver-attached.js'
import type { VtdDevice } from './driver-device.js'
import type { VtdDomain } from './driver-domain.js'
import { type VtdInvalidator, WHOLE_ORDER } from './driver-invalidate.js'
import { PASID_ENTRY, PGTT } from './tables.js'

/** What a nested table needs of its unit. */
export interface NestedUnit {
  readonly attachments: VtdAttachments
  readonly invalidator: VtdInvalidator
  readonly walkSnoop: boolean
  readonly coherent: boolean
  readonly fiveLevel: boolean
  readonly supervisor: boolean
  readonly extendedAccess: boolean
  freeDomainId(id: number): void
}

const PAGES = 2n ** 52n

/** One first-stage table over a domain. */
export class VtdNested implements NestedTable, VtdTable {
  readonly id: number
  readonly nested = true
  takesFaults = false
  readonly attached = new Attached()
  readonly #unit: NestedUnit
  readonly #parent: VtdDomain
  readonly #stage1: VtdStage1

  constructor(unit: NestedUnit, id: number, parent: VtdDomain, stage1: VtdStage1) {
    this.#unit = unit
    this.id = id
    this.#parent = parent
    this.#stage1 = stage1
  }

  attach(bdf: number, pasid = NO_PASID): void {
    this.#unit.attachments.attach(this, bdf, pasid)
  }

  replace(bdf: number, pasid = NO_PASID): void {
    this.#unit.attachments.replace(this, bdf, pasid)
  }

  detach(bdf: number, pasid = NO_PASID): void {
    this.#unit.attachments.detach(this, bdf, pasid)
  }

  joined(device: VtdDevice, pasid: number): void {
    this.attached.add(device, pasid)
  }

  left(device: VtdDevice, pasid: number): void {
    this.attached.remove(device, pasid)
  }

  entry() {
    const u = this.#unit
    const { root, addrWidth, supervisor, extendedAccess, writeProtect } = this.#stage1
    const five = addrWidth === 57
    if (addrWidth !== 48 && !(five && u.fiveLevel))
      throw new ErrnoError('EINVAL', `first stage: address width ${addrWidth}`)
    if (root >= 2n ** BigInt(this.#parent.addrWidth))
      throw new ErrnoError('EINVAL', 'first stage: root beyond the parent')
    if (supervisor && !u.supervisor) throw new ErrnoError('EINVAL', 'first stage: no SRE')
    if (extendedAccess && !u.extendedAccess) throw new ErrnoError('EINVAL', 'first stage: no EAFE')
    return PASID_ENTRY.create({
      FSPTPTR: Number(root),
      FSPM: five ? 1 : 0,
      SRE: supervisor,
      EAFE: extendedAccess,
      WPE: writeProtect,
      NXE: true,
      PWSNP: u.walkSnoop,
      PGSNP: u.coherent,
      DID: this.id,
      SSPTPTR: this.#parent.root,
      SSADE: this.#parent.keepsDirty,
      AW: this.#parent.aw,
      PGTT: PGTT.NESTED,
      P: true,
    })
  }

  invalidate(addr: bigint, pages: bigint, leaf: boolean): void {
    const inv = this.#unit.invalidator
    const first = addr >> 12n
    const last = pages >= PAGES - first ? PAGES - 1n : first + pages - 1n
    if (last < first) return
    const order = (first ^ last) === 0n ? 0 : (first ^ last).toString(2).length
    for (const { pasid } of this.attached)
      inv.pasidIotlb(this.id, pasid === NO_PASID ? RID_PASID : pasid, addr, order, leaf)
    this.attached.forgetRange(inv, Number(first), order)
    inv.complete()
  }

  /** The parent's tables or their flags changed: nothing cached through them may be used. */
  forget(inv: VtdInvalidator): void {
    inv.iotlbDomain(this.id)
    this.attached.forgetRange(inv, 0, WHOLE_ORDER)
  }

  /** Entries are written again. */
  rewrite(): void {
    for (const { device, pasid } of this.attached)
      this.#unit.attachments.rewrite(this, device, pasid)
  }

  free(): void {
    if (this.attached.size > 0) throw new Error(`nested domain ${this.id} has devices attached`)
    this.#parent.children.delete(this)
    this.#unit.freeDomainId(this.id)
  }
}
