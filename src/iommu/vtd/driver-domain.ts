/**
 * A VT-d domain: a domain id and second-stage tables in host memory that devices are attached to. Maps
 * need no invalidation (the units do not cache what is not present); unmaps are collected until `flush`.
 * Next: ../stage-tables.ts (the tables), driver-bind.ts (guest tables on top).
 */
import { ErrnoError } from '../../base/errno.js'
import { NO_PASID } from '../../pci/request.js'
import type { IovaRange, NestingInfo } from '../domain.js'
import { INVALID_IOASID, type IoasidAllocator } from '../ioasid.js'
import type { IoasidSet } from '../ioasid-set.js'
import type { StageTables } from '../stage-tables.js'
import type { CacheInvalidate, GpasidBind } from '../uapi.js'
import type { DirtyPages, PagingTable, VtdStage1 } from '../user-tables.js'
import type { VtdTable } from './driver-attach.js'
import { Attached } from './driver-attached.js'
import type { VtdBindings } from './driver-bind.js'
import type { VtdDevice } from './driver-device.js'
import { type VtdInvalidator, WHOLE_ORDER } from './driver-invalidate.js'
import { type NestedUnit, VtdNested } from './driver-nested.js'
import { VTD_DIRTY } from './driver-second-stage.js'
import { PASID_ENTRY, PGTT } from './tables.js'

/** Interrupt messages: never translated on x86. */
const MESSAGE_PAGES: IovaRange = { startPage: 0xf_ee00, endPage: 0xf_eeff }

/** What a domain needs of its unit. */
export interface DomainUnit extends NestedUnit {
  readonly bindings: VtdBindings
  readonly ioasid: IoasidAllocator
  readonly nesting: NestingInfo | undefined
  allocDomainId(): number
}

/** One domain of one unit. */
export class VtdDomain implements PagingTable, VtdTable {
  readonly nesting: boolean
  /** DID of its entries. */
  readonly id: number
  /** Bindings of guest tables on this domain. */
  bound = 0
  readonly nested = false
  takesFaults = false
  /** Users' first-stage tables over it. */
  readonly children = new Set<VtdNested>()
  readonly tracksDirty: boolean
  /** SSADE of entries that lead here: dirty tracking is on. */
  keepsDirty = false
  readonly #unit: DomainUnit
  readonly #table: StageTables
  readonly #attached = new Attached()
  /** PASIDs under which functions share it, by requester id. */
  readonly #aux = new Map<number, { readonly pasid: number; users: number }>()
  #set: IoasidSet | undefined
  // Pages unmapped since the last flush, as one range; first > last when there are none.
  #first = Number.POSITIVE_INFINITY
  #last = -1

  constructor(
    unit: DomainUnit,
    id: number,
    nesting: boolean,
    tracksDirty: boolean,
    table: StageTables,
  ) {
    this.#unit = unit
    this.id = id
    this.nesting = nesting
    this.tracksDirty = tracksDirty
    this.#table = table
  }

  get pgsizes(): readonly number[] {
    return this.#table.pageSizes
  }

  get apertureEndPage(): number {
    return 2 ** (this.addrWidth - 12) - 1
  }

  get coherent(): boolean {
    return this.#unit.coherent
  }

  /** Bits of its addresses. */
  get addrWidth(): number {
    return this.#table.width
  }

  /** AW of its entries: 1 three levels, 2 four, 3 five. */
  get aw(): number {
    return this.#table.levels - 2
  }

  /** SSPTPTR of its entries. */
  get root(): number {
    return this.#table.root
  }

  /** Whose PASIDs may be bound: the host's own unless a set was given. */
  get pasidSet(): IoasidSet {
    return this.#set ?? this.#unit.ioasid.hostSet
  }

  reserved(): readonly IovaRange[] {
    return [MESSAGE_PAGES]
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

  attachAux(bdf: number): number {
    const known = this.#aux.get(bdf)
    if (known !== undefined) {
      known.users++
      return known.pasid
    }
    const { ioasid } = this.#unit
    const pasid = ioasid.alloc(ioasid.hostSet, 1, ioasid.capacity - 1)
    if (pasid === INVALID_IOASID) throw new ErrnoError('ENOSPC', 'the host has no PASID left')
    try {
      this.attach(bdf, pasid)
    } catch (error) {
      ioasid.free(ioasid.hostSet, pasid)
      throw error
    }
    this.#aux.set(bdf, { pasid, users: 1 })
    return pasid
  }

  detachAux(bdf: number): void {
    const aux = this.#aux.get(bdf)
    if (aux === undefined || --aux.users > 0) return
    const { ioasid, bindings, attachments } = this.#unit
    bindings.unbindAll(attachments.devices.get(bdf)!, this)
    this.detach(bdf, aux.pasid)
    this.#aux.delete(bdf)
    ioasid.free(ioasid.hostSet, aux.pasid)
  }

  joined(device: VtdDevice, pasid: number): void {
    this.#attached.add(device, pasid)
    if (pasid === NO_PASID) device.domain = this
  }

  left(device: VtdDevice, pasid: number): void {
    this.#attached.remove(device, pasid)
    if (pasid === NO_PASID) device.domain = undefined
  }

  entry() {
    return PASID_ENTRY.create({
      PWSNP: this.#unit.walkSnoop,
      PGSNP: this.#unit.coherent,
      DID: this.id,
      SSPTPTR: this.root,
      SSADE: this.keepsDirty,
      AW: this.aw,
      PGTT: PGTT.SECOND_STAGE,
      P: true,
    })
  }

  map(iovaPage: number, hpaPage: number, pages: number, prot: number): void {
    this.#table.map(iovaPage, hpaPage, pages, prot)
  }

  unmap(iovaPage: number, pages: number): number {
    const unmapped = this.#table.unmap(iovaPage, pages)
    if (unmapped > 0) {
      if (iovaPage < this.#first) this.#first = iovaPage
      if (iovaPage + pages - 1 > this.#last) this.#last = iovaPage + pages - 1
    }
    return unmapped
  }

  flush(): void {
    if (this.#last < this.#first) return
    const inv = this.#unit.invalidator
    const order = orderOf(this.#first, this.#last)
    // Nested translations are cached by guest addresses: only the whole domain covers them.
    const whole = this.bound > 0 || order > inv.largestMask
    if (whole) inv.iotlbDomain(this.id)
    else inv.iotlbPages(this.id, this.#first, order, !this.#table.tablesChanged)
    this.#forget(inv, this.#first, order)
    inv.complete()
    this.#first = Number.POSITIVE_INFINITY
    this.#last = -1
    this.#table.release()
  }

  iovaToPhys(iovaPage: number): number {
    return this.#table.lookup(iovaPage)
  }

  nestingInfo(): NestingInfo | undefined {
    return this.nesting && this.#unit.nesting
      ? { ...this.#unit.nesting, addrWidth: this.addrWidth }
      : undefined
  }

  setIoasidSet(set: IoasidSet | undefined): void {
    if (!this.nesting) throw new ErrnoError('ENODEV', 'the domain does not nest')
    if (set !== undefined && this.#set !== undefined && this.#set !== set)
      throw new ErrnoError('EBUSY', 'the domain takes PASIDs from another set')
    if (set === this.#set) return
    if (this.#set !== undefined) this.#unit.bindings.leaveSet(this.#set)
    this.#set = set
    if (set !== undefined) this.#unit.bindings.useSet(set)
  }

  bindGpasid(bdf: number, data: GpasidBind): void {
    this.#unit.bindings.bind(this, bdf, data)
  }

  unbindGpasid(bdf: number, hpasid: bigint): void {
    this.#unit.bindings.unbind(this, bdf, hpasid)
  }

  cacheInvalidate(bdf: number, info: CacheInvalidate): void {
    this.#unit.bindings.invalidate(this, bdf, info)
  }

  nest(stage1: VtdStage1): VtdNested {
    const child = new VtdNested(this.#unit, this.#unit.allocDomainId(), this, stage1)
    this.children.add(child)
    return child
  }

  setDirtyTracking(on: boolean): void {
    if (on === this.keepsDirty) return
    this.keepsDirty = on
    const { attachments } = this.#unit
    for (const { device, pasid } of this.#attached) attachments.rewrite(this, device, pasid)
    for (const child of this.children) child.rewrite()
  }

  readDirty(iovaPage: number, pages: number, keep: boolean, dirty: DirtyPages): void {
    const found = this.#table.dirty(iovaPage, pages, VTD_DIRTY, keep, dirty)
    if (keep || !found) return
    const inv = this.#unit.invalidator
    inv.iotlbDomain(this.id)
    this.#forget(inv, 0, WHOLE_ORDER)
    inv.complete()
  }

  free(): void {
    if (this.#attached.size > 0) throw new Error(`domain ${this.id} has devices attached`)
    if (this.children.size > 0) throw new Error(`domain ${this.id} has tables over it`)
    this.flush()
    if (this.nesting) this.setIoasidSet(undefined)
    this.#table.free()
    this.#unit.freeDomainId(this.id)
  }

  /** Drops pages from device caches, and everything of what is nested over this domain. */
  #forget(inv: VtdInvalidator, first: number, order: number): void {
    for (const child of this.children) child.forget(inv)
    if (!this.#attached.caches) return
    this.#attached.forgetRange(inv, first, order)
    for (const { device } of this.#attached) {
      if (!device.atsOn) continue
      for (const [id, bound] of device.bound)
        if (bound.user(device.bdf)?.domain === this) inv.pasidDeviceTlb(device, id, 0n, WHOLE_ORDER)
    }
  }
}

/** The smallest order whose aligned block holds both pages. */
function orderOf(first: number, last: number): number {
  let order = 0
  let a = first
  let b = last
  while (a !== b) {
    a = Math.floor(a / 2)
    b = Math.floor(b / 2)
    order++
  }
  return order
}
