/**
 * A domain of an SMMUv3: stage 2 tables under a VMID, or stage 1 tables under an ASID where the unit has no
 * stage 2. Interrupt messages of its devices are mapped through it. Maps need no invalidation (a unit does not
 * cache what is not valid); unmaps are collected until `flush`. Next: ../stage-tables.ts (the tables),
 * driver-nesting.ts (a guest's stage 1 on top).
 */
import { ErrnoError } from '../../base/errno.js'
import { MESSAGE_BASE, MESSAGE_SIZE, NO_PASID } from '../../pci/request.js'
import { IOMMU_WRITE, type IovaRange, type NestingInfo } from '../domain.js'
import type { IoasidSet } from '../ioasid-set.js'
import type { StageTables } from '../stage-tables.js'
import type { CacheInvalidate, GpasidBind } from '../uapi.js'
import type { DirtyPages, PagingTable } from '../user-tables.js'
import type { SmmuCommands } from './driver-commands.js'
import type { SmmuDevice } from './driver-device.js'
import { type NestingUnit, SmmuGuestTables } from './driver-nesting.js'
import { type SmmuNested, SmmuVirtual } from './driver-virtual.js'

/** Where interrupt messages go, as devices see it and as it is. */
export const MESSAGE_PAGES: IovaRange = {
  startPage: MESSAGE_BASE / 4096,
  endPage: (MESSAGE_BASE + MESSAGE_SIZE) / 4096 - 1,
}

/** What a domain needs of its unit. */
export interface DomainUnit extends NestingUnit {
  readonly commands: SmmuCommands
  readonly nesting: NestingInfo | undefined
  /** What is attached to any domain. */
  device(bdf: number): SmmuDevice | undefined
  attach(domain: SmmuDomain, bdf: number, nested: SmmuNested | undefined): SmmuDevice
  /** Another domain, or another guest's STE, for a device. */
  move(device: SmmuDevice, domain: SmmuDomain, nested: SmmuNested | undefined): void
  detach(device: SmmuDevice): void
  release(domain: SmmuDomain): void
}

/** A message address for a device, and how to give it back. */
export interface MessageAddress {
  readonly address: number
  free(): void
}

/** One domain of one unit. */
export class SmmuDomain implements PagingTable {
  readonly nesting: boolean
  takesFaults = false
  readonly tracksDirty = false
  readonly keepsDirty = false
  /** Guests' STEs over it. */
  nested = 0
  readonly coherent = true
  /** VMID of stage 2, ASID of stage 1. */
  readonly id: number
  readonly stage: 1 | 2
  /** Context descriptor of a stage 1 domain; 0 for stage 2. */
  readonly context: number
  readonly guestTables: SmmuGuestTables
  readonly #unit: DomainUnit
  readonly #table: StageTables
  readonly #devices = new Map<number, SmmuDevice>()
  #ats = 0
  // Pages unmapped since the last flush, as one range; first > last when there are none.
  #first = Number.POSITIVE_INFINITY
  #last = -1

  /** Takes the table over, which is freed when there is no room for the message pages. ENOMEM. */
  constructor(
    unit: DomainUnit,
    id: number,
    stage: 1 | 2,
    context: number,
    nesting: boolean,
    table: StageTables,
  ) {
    this.#unit = unit
    this.id = id
    this.stage = stage
    this.context = context
    this.nesting = nesting
    this.#table = table
    this.guestTables = new SmmuGuestTables(unit, this)
    const { startPage, endPage } = MESSAGE_PAGES
    try {
      for (let page = startPage; page <= endPage; page++) table.map(page, page, 1, IOMMU_WRITE)
    } catch (error) {
      table.free()
      throw error
    }
  }

  get pgsizes(): readonly number[] {
    return this.#table.pageSizes
  }

  get apertureEndPage(): number {
    return 2 ** (this.addrWidth - 12) - 1
  }

  /** Bits of its addresses. */
  get addrWidth(): number {
    return this.#table.width
  }

  /** Address of its tables. */
  get root(): number {
    return this.#table.root
  }

  /** What is attached. */
  get devices(): Iterable<SmmuDevice> {
    return this.#devices.values()
  }

  device(bdf: number): SmmuDevice | undefined {
    return this.#devices.get(bdf)
  }

  reserved(): readonly IovaRange[] {
    return [MESSAGE_PAGES]
  }

  attach(bdf: number, pasid = NO_PASID): void {
    if (pasid !== NO_PASID) throw noPasids()
    this.enter(bdf, undefined)
  }

  replace(bdf: number, pasid = NO_PASID): void {
    if (pasid !== NO_PASID) throw noPasids()
    const device = this.#unit.device(bdf)
    if (device === undefined) this.enter(bdf, undefined)
    else this.take(device, undefined)
  }

  detach(bdf: number, pasid = NO_PASID): void {
    const device = this.#devices.get(bdf)
    if (device === undefined || pasid !== NO_PASID) return
    this.#leave(device)
    this.#unit.detach(device)
  }

  /** Attaches a function, behind a guest's STE if there is one. */
  enter(bdf: number, nested: SmmuNested | undefined): void {
    this.#join(this.#unit.attach(this, bdf, nested))
  }

  /** Takes a device from where it is. */
  take(device: SmmuDevice, nested: SmmuNested | undefined): void {
    device.domain.#leave(device)
    this.#unit.move(device, this, nested)
    this.#join(device)
  }

  setDirtyTracking(_on: boolean): void {
    throw new ErrnoError('EOPNOTSUPP', 'the domain tracks no writes')
  }

  readDirty(_iovaPage: number, _pages: number, _keep: boolean, _dirty: DirtyPages): void {
    throw new ErrnoError('EOPNOTSUPP', 'the domain tracks no writes')
  }

  virtual(): SmmuVirtual {
    return new SmmuVirtual(this.#unit, this)
  }

  #join(device: SmmuDevice): void {
    this.#devices.set(device.bdf, device)
    if (device.atsOn) this.#ats++
    device.nested?.joined(device)
  }

  #leave(device: SmmuDevice): void {
    if (device.atsOn) this.#ats--
    this.#devices.delete(device.bdf)
    device.nested?.left(device)
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
    const { commands } = this.#unit
    const first = this.#first
    const pages = Math.min(this.#last, this.apertureEndPage) - first + 1
    const leaf = !this.#table.tablesChanged
    if (this.stage === 1) commands.va(0, this.id, first, pages, 12, leaf)
    else {
      commands.ipa(this.id, first, pages, leaf)
      // Nested translations are cached by the guest's addresses: only all of them cover a range.
      if (this.#translated) commands.stage1(this.id)
    }
    if (this.#ats > 0) this.#flushDevices(commands, first, pages)
    commands.complete()
    this.#first = Number.POSITIVE_INFINITY
    this.#last = -1
    this.#table.release()
  }

  iovaToPhys(iovaPage: number): number {
    return this.#table.lookup(iovaPage)
  }

  nestingInfo(): NestingInfo | undefined {
    return this.nesting ? this.#unit.nesting : undefined
  }

  setIoasidSet(_set: IoasidSet | undefined): void {
    throw new ErrnoError('ENODEV', 'PASIDs below an SMMUv3 are the guest’s own')
  }

  bindGpasid(_bdf: number, _data: GpasidBind): void {
    throw new ErrnoError('ENODEV', 'an SMMUv3 takes whole PASID tables')
  }

  unbindGpasid(_bdf: number, _hpasid: bigint): void {
    throw new ErrnoError('ENODEV', 'an SMMUv3 takes whole PASID tables')
  }

  cacheInvalidate(bdf: number, info: CacheInvalidate): void {
    this.guestTables.invalidate(bdf, info)
  }

  /** Where a device of the domain must send a message that is to arrive at `hpa`. ENOMEM, EEXIST: a binding's page. */
  messageAddress(hpa: number): MessageAddress {
    return this.guestTables.messageAddress(hpa) ?? { address: hpa, free: () => {} }
  }

  free(): void {
    if (this.#devices.size > 0) throw new Error(`domain ${this.id} has devices attached`)
    if (this.nested > 0) throw new Error(`domain ${this.id} has tables over it`)
    const { startPage, endPage } = MESSAGE_PAGES
    this.unmap(startPage, endPage - startPage + 1)
    this.flush()
    // The id may be another domain's next.
    const { commands } = this.#unit
    if (this.stage === 1) commands.asid(0, this.id)
    else commands.guest(this.id)
    commands.complete()
    this.#table.free()
    this.#unit.release(this)
  }

  /** Whether a guest's table is in front of it for some device. */
  get #translated(): boolean {
    for (const device of this.#devices.values()) if (typeof device.stage === 'object') return true
    return this.guestTables.translates
  }

  #flushDevices(commands: SmmuCommands, first: number, pages: number): void {
    commands.fence()
    for (const device of this.#devices.values()) {
      if (!device.atsOn) continue
      if (typeof device.stage === 'object') commands.deviceTlbAll(device)
      else {
        const size = sizeOf(first, first + pages - 1)
        commands.deviceTlbPages(device, first - (first % 2 ** size), size)
      }
    }
  }
}

const noPasids = () => new ErrnoError('EOPNOTSUPP', 'PASIDs below an SMMUv3 are a guest’s own')

/** log2 of the smallest aligned block that holds both pages. */
function sizeOf(first: number, last: number): number {
  let size = 0
  while (Math.floor(first / 2 ** size) !== Math.floor(last / 2 ** size)) size++
  return size
}
