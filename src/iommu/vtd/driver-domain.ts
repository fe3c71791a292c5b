/**
 * A VT-d domain: a domain id and second-stage tables in host memory that devices are attached to. Maps
 * need no invalidation (the units do not cache what is not present); unmaps are collected until `flush`.
 * Next: ../stage-tables.ts (the tables), driver-bind.ts (guest tables on top).
 */
import { ErrnoError } from '../../base/errno.js'
import type { Domain, IovaRange, NestingInfo } from '../domain.js'
import type { IoasidSet } from '../ioasid-set.js'
import type { StageTables } from '../stage-tables.js'
import type { CacheInvalidate, GpasidBind } from '../uapi.js'
import type { VtdBindings } from './driver-bind.js'
import type { VtdDevice } from './driver-device.js'
import { type VtdInvalidator, WHOLE_ORDER } from './driver-invalidate.js'

/** Interrupt messages: never translated on x86. */
const MESSAGE_PAGES: IovaRange = { startPage: 0xf_ee00, endPage: 0xf_eeff }

/** What a domain needs of its unit. */
export interface DomainUnit {
  readonly invalidator: VtdInvalidator
  readonly bindings: VtdBindings
  readonly hostSet: IoasidSet
  readonly coherent: boolean
  readonly nesting: NestingInfo | undefined
  attach(domain: VtdDomain, bdf: number): VtdDevice
  detach(device: VtdDevice): void
  release(domain: VtdDomain): void
}

/** One domain of one unit. */
export class VtdDomain implements Domain {
  readonly nesting: boolean
  /** DID of its entries. */
  readonly id: number
  /** Bindings of guest tables on this domain. */
  bound = 0
  readonly #unit: DomainUnit
  readonly #table: StageTables
  readonly #devices = new Map<number, VtdDevice>()
  #ats = 0
  #set: IoasidSet | undefined
  // Pages unmapped since the last flush, as one range; first > last when there are none.
  #first = Number.POSITIVE_INFINITY
  #last = -1

  constructor(unit: DomainUnit, id: number, nesting: boolean, table: StageTables) {
    this.#unit = unit
    this.id = id
    this.nesting = nesting
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
    return this.#set ?? this.#unit.hostSet
  }

  reserved(): readonly IovaRange[] {
    return [MESSAGE_PAGES]
  }

  attach(bdf: number): void {
    const device = this.#unit.attach(this, bdf)
    this.#devices.set(bdf, device)
    if (device.atsOn) this.#ats++
  }

  detach(bdf: number): void {
    const device = this.#devices.get(bdf)
    if (device === undefined) return
    if (device.atsOn) this.#ats--
    this.#unit.detach(device)
    this.#devices.delete(bdf)
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
    if (this.#ats > 0) this.#flushDevices(inv, order)
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

  free(): void {
    if (this.#devices.size > 0) throw new Error(`domain ${this.id} has devices attached`)
    this.flush()
    if (this.nesting) this.setIoasidSet(undefined)
    this.#table.free()
    this.#unit.release(this)
  }

  #flushDevices(inv: VtdInvalidator, order: number): void {
    inv.fence()
    for (const device of this.#devices.values()) {
      if (!device.atsOn) continue
      inv.deviceTlbPages(device, this.#first, order)
      for (const pasid of device.bound.keys()) inv.pasidDeviceTlb(device, pasid, 0n, WHOLE_ORDER)
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
