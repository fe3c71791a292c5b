/**
 * The operating system's half of a VT-d unit: it finds out what the unit can do, gives it tables and queues
 * in host memory, and serves domains, bindings, faults and page requests. It meets the unit only at
 * memory, registers and interrupts. Needs scalable mode and queued invalidation; first-stage domains,
 * caching mode and multiple segments are not modelled. Parts: driver-*.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { ErrnoError } from '../../base/errno.js'
import { IdAllocator } from '../../base/ids.js'
import type { TraceBus, TracePoint } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import { HOST_RANGES } from '../../pci/fabric.js'
import { freeVectors, type HostInterrupts, type HostVector } from '../../pci/host-interrupts.js'
import { NO_PASID } from '../../pci/request.js'
import type { DeviceVector, FaultSink, IommuDriver, NestingInfo } from '../domain.js'
import type { IoasidAllocator } from '../ioasid.js'
import { PciConfig } from '../pci-config.js'
import { pasidBits } from '../pci-services.js'
import {
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  IOMMU_PAGE_RESP_FAILURE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
} from '../uapi.js'
import type { UserTables } from '../user-tables.js'
import { DESCRIPTOR, PAGE_GROUP_RESPONSE_DESCRIPTOR } from './descriptors.js'
import { type AttachUnit, VtdAttachments } from './driver-attach.js'
import { type BindUnit, VtdBindings } from './driver-bind.js'
import { type Capabilities, readCapabilities } from './driver-capabilities.js'
import type { VtdDevice } from './driver-device.js'
import { type DomainUnit, VtdDomain } from './driver-domain.js'
import { EVENT_CONTROL, FaultDrain, PageRequestDrain } from './driver-faults.js'
import { InterruptTable } from './driver-interrupts.js'
import { VtdInvalidator } from './driver-invalidate.js'
import { InvalidationQueue } from './driver-queue.js'
import { UnitRegisters } from './driver-registers.js'
import { secondStage } from './driver-second-stage.js'
import { ContextTables } from './driver-tables.js'
import { type UserUnit, VtdUserTables } from './driver-user.js'
import { TTM } from './registers.js'

/** What the driver did, for the trace. */
export interface VtdDriverEvent {
  readonly what: 'attach' | 'detach' | 'bind' | 'unbind' | 'not-done'
  readonly bdf: number
  readonly pasid: number
}
declare module '../../base/trace.js' {
  interface TraceEvents {
    'vtd.driver': VtdDriverEvent
  }
}

/** What a driver is made of. */
export interface VtdDriverOptions {
  readonly memory: AddressSpace
  /** Frames for tables and queues. */
  readonly frames: FrameAllocator
  /** Where the unit's registers are. */
  readonly registerBase: number
  /** Where configuration space is; default the host machine's place. */
  readonly ecam?: number
  readonly interrupts: HostInterrupts
  readonly clock: VirtualClock
  readonly trace: TraceBus
  readonly ioasid: IoasidAllocator
  /** Requester ids of devices that are no PCI functions (ACPI name space devices, 8.8). */
  readonly namespaceDevices?: readonly number[]
}

const GCMD = { TE: 31, SRTP: 30, QIE: 26, IRE: 25, SIRTP: 24 } as const
const RESPONSE_CODES: Readonly<Record<number, number>> = {
  [IOMMU_PAGE_RESP_SUCCESS]: 0,
  [IOMMU_PAGE_RESP_INVALID]: 1,
  [IOMMU_PAGE_RESP_FAILURE]: 15,
}

/** The driver of one unit. */
export class VtdDriver implements IommuDriver, DomainUnit, BindUnit, AttachUnit, UserUnit {
  readonly name = 'intel-iommu'
  readonly ioasid: IoasidAllocator
  readonly bindings: VtdBindings
  readonly attachments: VtdAttachments
  readonly userTables: UserTables
  readonly namespaceDevices: ReadonlySet<number>
  readonly #options: VtdDriverOptions
  readonly #config: PciConfig
  readonly #registers: UnitRegisters
  readonly #point: TracePoint<VtdDriverEvent>
  readonly #response = PAGE_GROUP_RESPONSE_DESCRIPTOR.create({
    TYPE: DESCRIPTOR.PAGE_GROUP_RESPONSE,
  })
  readonly #vectors: HostVector[] = []
  #caps: Capabilities | undefined
  #queue: InvalidationQueue | undefined
  #invalidator: VtdInvalidator | undefined
  #contexts: ContextTables | undefined
  #faults: FaultDrain | undefined
  #pages: PageRequestDrain | undefined
  #table: InterruptTable | undefined
  #domainIds: IdAllocator | undefined
  #sink: FaultSink | undefined
  #covers: (bdf: number) => boolean = () => true

  constructor(options: VtdDriverOptions) {
    this.#options = options
    this.ioasid = options.ioasid
    this.namespaceDevices = new Set(options.namespaceDevices)
    this.#config = new PciConfig(options.memory, options.ecam ?? HOST_RANGES.ecamBase)
    this.#registers = new UnitRegisters(options.memory, options.registerBase, options.clock)
    this.#point = options.trace.point('vtd.driver')
    this.bindings = new VtdBindings(this)
    this.attachments = new VtdAttachments(this, this.#config, options.frames)
    this.userTables = new VtdUserTables(this, this.#config, this.#registers)
  }

  /**
   * Brings the unit up: queue, root table, event interrupts, translation. From here on requests of functions
   * that no domain has are refused. Once only; an Error when the unit lacks scalable mode or queued invalidation.
   */
  probe(): void {
    if (this.#caps !== undefined) return
    const { memory, frames, clock } = this.#options
    const registers = this.#registers
    const caps = readCapabilities(registers)
    this.#caps = caps
    if (!caps.scalable) throw new Error('VT-d driver: the unit has no scalable mode')
    this.#domainIds = new IdAllocator(1, caps.domainIds - 1)
    if (caps.pasid) this.ioasid.installCapacity(2 ** caps.pasidBits)
    void this.ioasid.hostSet
    this.#queue = new InvalidationQueue(memory, frames, registers, clock)
    this.#invalidator = new VtdInvalidator(this.#queue, caps.largestMask, caps.drainPages)
    this.#contexts = new ContextTables(frames)
    registers.write('RTADDR_REG', { RTA: this.#contexts.root, TTM: TTM.SCALABLE })
    registers.command(GCMD.SRTP)
    registers.command(GCMD.QIE)
    this.#faults = new FaultDrain(registers, clock, () => this.#sink)
    this.#event(EVENT_CONTROL.fault, () => this.#faults!.interrupt())
    if (caps.pageRequests) {
      this.#pages = new PageRequestDrain(registers, memory, frames, clock, {
        offer: (bdf, fault) => this.#offer(bdf, fault),
        refuse: (bdf, fault) => this.#answer(bdf, fault, IOMMU_PAGE_RESP_INVALID),
      })
      this.#event(EVENT_CONTROL.pageRequest, () => this.#pages!.interrupt())
    }
    if (caps.interruptRemapping) {
      this.#table = new InterruptTable(
        frames,
        this.#options.interrupts,
        this.invalidator,
        registers,
      )
      registers.command(GCMD.SIRTP)
      registers.command(GCMD.IRE)
    }
    registers.command(GCMD.TE)
  }

  /** Turns the unit off and gives memory and interrupts back. No domain may be left. */
  remove(): void {
    if (this.attachments.devices.size > 0) throw new Error('VT-d driver: devices are attached')
    this.#registers.command(GCMD.TE, false)
    this.#table?.free()
    this.#registers.command(GCMD.IRE, false)
    this.#registers.command(GCMD.QIE, false)
    for (const v of this.#vectors.splice(0)) this.#options.interrupts.free(v.vector)
    this.#faults?.cancel()
    this.#pages?.free()
    this.#queue?.free()
    this.#contexts?.trim()
    if (this.#contexts) this.#options.frames.free(this.#contexts.root)
  }

  get isolatesInterrupts(): boolean {
    return this.#table !== undefined
  }

  allocateVector(bdf: number, handler: (index: number) => void, count = 1): DeviceVector {
    if (this.#table !== undefined) return this.#table.allocate(bdf, handler, count)
    const { interrupts } = this.#options
    const { address, data, vector } = interrupts.allocate(handler, undefined, count)
    return { address, data, free: () => freeVectors(interrupts, vector, count) }
  }

  get bindingCount(): number {
    let n = 0
    for (const device of this.attachments.devices.values()) n += device.bound.size
    return n
  }

  connect(sink: FaultSink, covers: (bdf: number) => boolean): void {
    this.#sink = sink
    this.#covers = covers
  }

  // ---- what the unit offers ----

  get invalidator(): VtdInvalidator {
    if (this.#invalidator === undefined) throw new Error('VT-d driver: not probed')
    return this.#invalidator
  }

  get contexts(): ContextTables {
    if (this.#contexts === undefined) throw new Error('VT-d driver: not probed')
    return this.#contexts
  }

  get capabilities(): Capabilities {
    if (this.#caps === undefined) throw new Error('VT-d driver: not probed')
    return this.#caps
  }

  get nesting(): NestingInfo | undefined {
    return this.capabilities.nesting
  }

  get canNest(): boolean {
    return this.capabilities.nesting !== undefined
  }

  get coherent(): boolean {
    return this.capabilities.snoop
  }

  get walkSnoop(): boolean {
    return this.capabilities.walkSnoop
  }

  get fiveLevel(): boolean {
    return this.capabilities.fiveLevel
  }

  get supervisor(): boolean {
    return this.capabilities.supervisor
  }

  get extendedAccess(): boolean {
    return this.capabilities.extendedAccess
  }

  // ---- domains and devices ----

  domainAlloc({
    nesting,
    tracksDirty = false,
  }: {
    readonly nesting: boolean
    readonly tracksDirty?: boolean
  }): VtdDomain {
    const { shape, nesting: info } = this.capabilities
    if (shape === undefined) throw new ErrnoError('ENODEV', 'the unit has no second stage')
    if (nesting && info === undefined) throw new ErrnoError('ENODEV', 'the unit does not nest')
    const id = this.allocDomainId()
    try {
      return new VtdDomain(this, id, nesting, tracksDirty, secondStage(this.#options.frames, shape))
    } catch (error) {
      this.freeDomainId(id)
      throw error
    }
  }

  /** A domain id; ENOSPC. */
  allocDomainId(): number {
    const id = this.#domainIds!.alloc()
    if (id < 0) throw new ErrnoError('ENOSPC', 'every domain id of the unit is taken')
    return id
  }

  freeDomainId(id: number): void {
    this.#domainIds!.free(id)
  }

  device(bdf: number): VtdDevice | undefined {
    return this.attachments.devices.get(bdf)
  }

  isPci(bdf: number): boolean {
    if (this.namespaceDevices.has(bdf)) return false
    return this.attachments.devices.has(bdf) || this.#config.present(bdf)
  }

  pasidBits(bdf: number): number {
    return this.attachments.devices.get(bdf)?.pasidBits ?? pasidBits(this.#config, bdf)
  }

  restore(bdf: number): void {
    this.attachments.restore(bdf)
  }

  // ---- page requests ----

  respond(bdf: number, request: IommuFault, code: number): void {
    const { flags, pasid } = request.event.prm
    const withPasid = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
    if (!this.attachments.has(bdf, withPasid ? pasid : NO_PASID))
      throw new ErrnoError('ENODEV', 'page response: the PASID is not bound on the device')
    this.#answer(bdf, request, code)
  }

  drainPageRequests(device: VtdDevice, pasid: number): void {
    if (!device.priOn) return
    this.takePageRequests()
    this.cancelPageRequests(device.bdf, pasid)
  }

  takePageRequests(): void {
    this.#pages?.drain()
  }

  cancelPageRequests(bdf: number, pasid?: number): void {
    this.#sink?.cancelPageRequests(bdf, pasid)
  }

  covers(bdf: number): boolean {
    return this.#covers(bdf)
  }

  trace(what: VtdDriverEvent['what'], bdf: number, pasid: number): void {
    if (this.#point.on) this.#point.emit({ what, bdf, pasid })
  }

  /** Offers a request of what is on a table that takes them, or bound; otherwise it is nobody's. */
  #offer(bdf: number, fault: IommuFault): boolean {
    const { flags, pasid } = fault.event.prm
    const withPasid = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
    if (!this.attachments.wantsFaults(bdf, withPasid ? pasid : NO_PASID)) return false
    return this.#sink?.pageRequest(bdf, fault) ?? false
  }

  #answer(bdf: number, request: IommuFault, code: number): void {
    const { flags, pasid, grpid } = request.event.prm
    const d = this.#response
    d.RID = bdf
    d.PP = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
    d.PASID = pasid
    d.PRGI = grpid
    d.RC = RESPONSE_CODES[code]!
    this.#queue!.submit(d)
    this.#queue!.complete()
  }

  // ---- inside ----

  /** Points an event at a host vector and unmasks it. */
  #event(control: number, handler: () => void): void {
    const { address, data, vector } = this.#options.interrupts.allocate(handler)
    this.#vectors.push({ address, data, vector })
    const registers = this.#registers
    registers.store32(control + 4, data)
    registers.store32(control + 8, address)
    registers.store32(control + 12, 0)
    registers.store32(control, 0)
  }
}
