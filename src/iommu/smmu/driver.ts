/**
 * The operating system's half of an SMMUv3: it finds out what the unit can do, gives it tables and queues in host
 * memory, and serves domains, guests' tables, faults and page requests. It meets the unit only at memory,
 * registers and interrupts. StreamIDs are requester ids. Needs 4 KB pages; EL2 and Secure streams, ATOS and
 * broadcast invalidation are not used. Parts: driver-*.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { ErrnoError } from '../../base/errno.js'
import { IdAllocator } from '../../base/ids.js'
import type { TraceBus, TracePoint } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import { HOST_RANGES } from '../../pci/fabric.js'
import { freeVectors, type HostInterrupts, type HostVector } from '../../pci/host-interrupts.js'
import type { DeviceVector, FaultSink, IommuDriver, NestingInfo } from '../domain.js'
import { type FoundFunction, PciConfig } from '../pci-config.js'
import type { DeviceServices } from '../pci-services.js'
import type { StageTables } from '../stage-tables.js'
import {
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  IOMMU_PAGE_RESP_FAILURE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
} from '../uapi.js'
import type { UserTables } from '../user-tables.js'
import { PRI_RESP } from './commands.js'
import { readCapabilities, type SmmuCapabilities } from './driver-capabilities.js'
import { SmmuCommands } from './driver-commands.js'
import { SmmuDevice } from './driver-device.js'
import { type DomainUnit, SmmuDomain } from './driver-domain.js'
import { contextDescriptor, streamEntry } from './driver-entries.js'
import { type EventOwner, eventQueue, priQueue, type RecordQueue } from './driver-events.js'
import { CommandQueue } from './driver-queue.js'
import { SmmuRegisters } from './driver-registers.js'
import { stageTables } from './driver-stages.js'
import { StreamTable } from './driver-streams.js'
import { SmmuUserTables } from './driver-user.js'
import type { SmmuNested } from './driver-virtual.js'
import type { EventName } from './events.js'
import { STALL_MODEL } from './registers.js'

/** What the driver did, for the trace. */
export interface SmmuDriverEvent {
  readonly what: 'attach' | 'detach' | 'set-table' | 'unset-table' | 'not-done'
  readonly bdf: number
}
declare module '../../base/trace.js' {
  interface TraceEvents {
    'smmu.driver': SmmuDriverEvent
  }
}

/** What a driver is made of. */
export interface SmmuDriverOptions {
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
  /** Requester ids of devices that are no PCI functions. */
  readonly namespaceDevices?: readonly number[]
  /** Functions whose faults may stall, as firmware would say; default none: PCIe can deadlock. */
  readonly mayStall?: (bdf: number) => boolean
}

/** Nothing to tell in the words that containers have: a placeholder without format. */
const NO_FORMAT: NestingInfo = {
  format: 0,
  features: 0,
  addrWidth: 0,
  pasidBits: 0,
  cap: 0n,
  ecap: 0n,
}
const RESPONSE_CODES: Readonly<Record<number, number>> = {
  [IOMMU_PAGE_RESP_SUCCESS]: PRI_RESP.SUCCESS,
  [IOMMU_PAGE_RESP_INVALID]: PRI_RESP.INVALID,
  [IOMMU_PAGE_RESP_FAILURE]: PRI_RESP.FAILURE,
}

interface Stall {
  readonly bdf: number
  readonly stag: number
}

/** The driver of one unit. */
export class SmmuDriver implements IommuDriver, DomainUnit, EventOwner {
  readonly name = 'arm-smmu-v3'
  /** A vector answers one function only: the host's interrupts compare who sends (as an ITS does). */
  readonly isolatesInterrupts = true
  readonly userTables: UserTables
  readonly #options: SmmuDriverOptions
  readonly #config: PciConfig
  readonly #registers: SmmuRegisters
  readonly #point: TracePoint<SmmuDriverEvent>
  readonly #devices = new Map<number, SmmuDevice>()
  readonly #stalls = new Map<IommuFault, Stall>()
  readonly #vectors: HostVector[] = []
  #caps: SmmuCapabilities | undefined
  #queue: CommandQueue | undefined
  #commands: SmmuCommands | undefined
  #streams: StreamTable | undefined
  #events: RecordQueue | undefined
  #pages: RecordQueue | undefined
  #asids = new IdAllocator(1, 1)
  #vmids = new IdAllocator(1, 1)
  #sink: FaultSink | undefined
  #covers: (bdf: number) => boolean = () => true
  #functions: readonly FoundFunction[] = []

  constructor(options: SmmuDriverOptions) {
    this.#options = options
    this.#config = new PciConfig(options.memory, options.ecam ?? HOST_RANGES.ecamBase)
    this.#registers = new SmmuRegisters(options.memory, options.registerBase, options.clock)
    this.#point = options.trace.point('smmu.driver')
    this.userTables = new SmmuUserTables(this, this.#config, this.#registers)
  }

  /**
   * Brings the unit up: stream table, queues, interrupts, translation. From here on requests of functions that
   * no domain has are refused. Once only; an Error when the unit lacks what the driver needs.
   */
  probe(): void {
    if (this.#caps !== undefined) return
    const { memory, frames, clock } = this.#options
    const registers = this.#registers
    const caps = readCapabilities(registers)
    this.#caps = caps
    this.#asids = new IdAllocator(1, caps.asids - 1)
    this.#vmids = new IdAllocator(1, caps.vmids - 1)
    // IHI 0070 6.3.9: everything off, then queue by queue, translation last.
    const off = { SMMUEN: false, PRIQEN: false, EVENTQEN: false, CMDQEN: false, ATSCHK: false }
    registers.change('CR0', off)
    registers.write('CR1', {})
    registers.write('CR2', { PTM: true, RECINVSID: true })
    this.#streams = new StreamTable(frames, registers, caps.streamIdBits, caps.twoLevelStreams)
    this.#queue = new CommandQueue(memory, frames, registers, clock, caps)
    this.#commands = new SmmuCommands(this.#queue, caps.ranges)
    registers.change('CR0', { CMDQEN: true })
    this.#commands.all(caps.el2)
    this.#events = eventQueue(registers, memory, frames, clock, caps.eventBits, this)
    registers.change('CR0', { EVENTQEN: true })
    if (caps.pri) {
      this.#pages = priQueue(registers, memory, frames, clock, caps.priBits, this)
      registers.change('CR0', { PRIQEN: true })
    }
    if (caps.ats) registers.change('CR0', { ATSCHK: true })
    this.#interrupts(caps)
    registers.change('CR0', { SMMUEN: true })
  }

  /** Turns the unit off and gives memory and interrupts back. No domain may be left. */
  remove(): void {
    if (this.#devices.size > 0) throw new Error('SMMUv3 driver: devices are attached')
    const registers = this.#registers
    registers.change('IRQ_CTRL', { EVENTQ_IRQEN: false, PRIQ_IRQEN: false, GERROR_IRQEN: false })
    const off = { SMMUEN: false, PRIQEN: false, EVENTQEN: false, CMDQEN: false, ATSCHK: false }
    registers.change('CR0', off)
    for (const v of this.#vectors.splice(0)) this.#options.interrupts.free(v.vector)
    this.#events?.free()
    this.#pages?.free()
    this.#queue?.free()
    this.#streams?.free()
  }

  /** A wired interrupt of a unit that sends no messages. */
  wire(which: 'gerror' | 'eventq' | 'priq' | 'sync'): void {
    if (which === 'gerror') this.#globalError()
    else if (which === 'eventq') this.#events?.interrupt()
    else if (which === 'priq') this.#pages?.interrupt()
  }

  allocateVector(bdf: number, handler: (index: number) => void, count = 1): DeviceVector {
    const { interrupts } = this.#options
    const { address: hpa, data, vector } = interrupts.allocate(handler, bdf, count)
    try {
      const message = this.#devices.get(bdf)?.domain.messageAddress(hpa)
      return {
        address: message?.address ?? hpa,
        data,
        free: () => {
          message?.free()
          freeVectors(interrupts, vector, count)
        },
      }
    } catch (error) {
      freeVectors(interrupts, vector, count)
      throw error
    }
  }

  /** Devices behind a guest's table. */
  get bindingCount(): number {
    let n = 0
    for (const { stage } of this.#devices.values()) n += Number(typeof stage === 'object')
    return n
  }

  connect(sink: FaultSink, covers: (bdf: number) => boolean): void {
    this.#sink = sink
    this.#covers = covers
  }

  // ---- what the unit offers ----

  get capabilities(): SmmuCapabilities {
    if (this.#caps === undefined) throw new Error('SMMUv3 driver: not probed')
    return this.#caps
  }

  get commands(): SmmuCommands {
    if (this.#commands === undefined) throw new Error('SMMUv3 driver: not probed')
    return this.#commands
  }

  get nesting(): NestingInfo | undefined {
    const { stage1, stage2 } = this.capabilities
    return stage1 && stage2 ? NO_FORMAT : undefined
  }

  // ---- domains and devices ----

  domainAlloc({ nesting }: { readonly nesting: boolean }): SmmuDomain {
    const { stage1, stage2 } = this.capabilities
    if (nesting && !(stage1 && stage2)) throw new ErrnoError('ENODEV', 'the unit has one stage')
    const stage = stage2 ? 2 : 1
    const ids = stage2 ? this.#vmids : this.#asids
    const id = ids.alloc()
    if (id < 0) throw new ErrnoError('ENOSPC', `every id of stage ${stage} is taken`)
    const { frames } = this.#options
    let context = 0
    try {
      const table = stageTables(frames, stage, (stage2 ?? stage1)!)
      try {
        if (!stage2) context = this.#context(id, table)
      } catch (error) {
        table.free()
        throw error
      }
      return new SmmuDomain(this, id, stage, context, nesting, table)
    } catch (error) {
      if (context !== 0) frames.free(context)
      ids.free(id)
      throw error
    }
  }

  release({ stage, id, context }: SmmuDomain): void {
    if (context !== 0) this.#options.frames.free(context)
    if (stage === 2) this.#vmids.free(id)
    else this.#asids.free(id)
  }

  device(bdf: number): SmmuDevice | undefined {
    return this.#devices.get(bdf)
  }

  attach(domain: SmmuDomain, bdf: number, nested: SmmuNested | undefined): SmmuDevice {
    const there = this.#options.namespaceDevices?.includes(bdf) || this.#config.present(bdf)
    if (!this.#covers(bdf) || !there || !this.#streams!.covers(bdf))
      throw new ErrnoError('ENODEV', 'no PCI function of this unit')
    if (this.#devices.has(bdf)) throw new ErrnoError('EBUSY', 'the device has a domain')
    const mayStall = this.#options.mayStall?.(bdf) ?? false
    const device = new SmmuDevice(this.#config, bdf, domain, nested, mayStall)
    const linked = this.#streams!.reserve(bdf)
    if (linked) this.commands.stream(bdf, true)
    device.enable(this.#services(device), this.place(bdf))
    this.#devices.set(bdf, device)
    this.install(device)
    this.trace('attach', bdf)
    return device
  }

  detach(device: SmmuDevice): void {
    const { bdf } = device
    const streams = this.#streams!
    streams.invalidate(bdf)
    const unlinked = streams.unreserve(bdf)
    this.commands.stream(bdf, unlinked)
    streams.release()
    if (device.atsOn) {
      this.commands.deviceTlbAll(device)
      this.commands.complete()
    }
    this.#endRequests(device)
    device.disable()
    this.#devices.delete(bdf)
    this.trace('detach', bdf)
  }

  move(device: SmmuDevice, domain: SmmuDomain, nested: SmmuNested | undefined): void {
    // What waits was asked of the table it leaves.
    this.#endRequests(device)
    const { domain: old, atsOn } = device
    device.domain = domain
    device.nested = nested
    const services = this.#services(device)
    if (atsOn !== (services.deviceTlb && device.hasAts)) {
      device.disable()
      device.enable(services, this.place(device.bdf))
    }
    this.install(device)
    // Translations that went through both stages are cached under the VMID alone.
    if (old === domain) this.commands.stage1(domain.id)
    if (atsOn && device.atsOn) {
      this.commands.fence()
      this.commands.deviceTlbAll(device)
    }
    this.commands.complete()
    this.trace('attach', device.bdf)
  }

  /** An STE that was valid goes invalid first, so that the unit never sees half of each. */
  install(device: SmmuDevice): void {
    const streams = this.#streams!
    streams.invalidate(device.bdf)
    this.commands.stream(device.bdf, false)
    streams.set(device.bdf, streamEntry(this.capabilities, device))
    this.commands.stream(device.bdf, false)
  }

  restore(bdf: number): void {
    const device = this.#devices.get(bdf)
    device?.enable(this.#services(device), this.place(bdf))
  }

  // ---- faults and page requests ----

  respond(bdf: number, request: IommuFault, code: number): void {
    const device = this.#devices.get(bdf)
    if (!device?.domain.nesting && !device?.takesFaults)
      throw new ErrnoError('ENODEV', 'page response: the device is on no domain that nests')
    this.#answer(bdf, request, code)
  }

  drainPageRequests(device: SmmuDevice): void {
    this.#endRequests(device)
  }

  event(streamId: number, name: EventName, record: Uint8Array): void {
    this.#devices.get(streamId)?.nested?.report(streamId, name, record)
  }

  fault(streamId: number, fault: IommuFault): void {
    this.#sink?.fault(streamId, fault)
  }

  stall(streamId: number, stag: number, request: IommuFault): void {
    this.#stalls.set(request, { bdf: streamId, stag })
    if (!this.#offer(streamId, request)) this.#answer(streamId, request, IOMMU_PAGE_RESP_INVALID)
  }

  pageRequest(streamId: number, request: IommuFault, last: boolean): void {
    if (!this.#offer(streamId, request) && last)
      this.#answer(streamId, request, IOMMU_PAGE_RESP_INVALID)
  }

  trace(what: SmmuDriverEvent['what'], bdf: number): void {
    if (this.#point.on) this.#point.emit({ what, bdf })
  }

  /** Offers a request of a device behind a guest's table; what has none is nobody's. */
  #offer(bdf: number, request: IommuFault): boolean {
    if (!this.#devices.get(bdf)?.takesFaults) return false
    return this.#sink?.pageRequest(bdf, request) ?? false
  }

  #answer(bdf: number, request: IommuFault, code: number): void {
    const stall = this.#stalls.get(request)
    if (stall !== undefined) {
      this.#stalls.delete(request)
      this.commands.resume(stall.bdf, stall.stag, code === IOMMU_PAGE_RESP_SUCCESS)
      return
    }
    const { flags, pasid, grpid } = request.event.prm
    const withPasid = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
    this.commands.respond(bdf, withPasid ? pasid : undefined, grpid, RESPONSE_CODES[code]!)
  }

  /** What the device asked for goes unanswered no longer: queued or waiting, it is answered INVALID. */
  #endRequests(device: SmmuDevice): void {
    if (device.mayStall) this.commands.terminate(device.bdf)
    if (device.priOn) this.#pages?.drain()
    if (device.mayStall) this.#events?.drain()
    this.#sink?.cancelPageRequests(device.bdf)
  }

  // ---- inside ----

  /** The context descriptor of a stage 1 domain. ENOMEM. */
  #context(asid: number, table: StageTables): number {
    const { frames } = this.#options
    const at = frames.alloc()
    frames.space.write(at, contextDescriptor(this.capabilities, asid, table).bytes)
    return at
  }

  #services(device: SmmuDevice): DeviceServices {
    const { substreamBits, ats, pri, stallModel } = this.capabilities
    // Full ATS and stage 2 faults that stall exclude each other (STE.EATS); translation requests never stall.
    const { stage } = device
    const wanted = typeof stage !== 'object' || stage.deviceTlb !== false
    const deviceTlb = ats && wanted && stallModel !== STALL_MODEL.STALL && !device.mayStall
    return { pasid: substreamBits > 0, deviceTlb, pageRequests: pri && !device.mayStall }
  }

  place(bdf: number): FoundFunction | undefined {
    let found = this.#functions.find(f => f.bdf === bdf)
    if (found === undefined) {
      this.#functions = this.#config.scan()
      found = this.#functions.find(f => f.bdf === bdf)
    }
    return found
  }

  /** Points the unit's messages at host vectors, if it sends messages, and enables its interrupts. */
  #interrupts({ msi, pri }: SmmuCapabilities): void {
    const registers = this.#registers
    const point = (name: 'GERROR' | 'EVENTQ' | 'PRIQ', handler: () => void) => {
      const { address, data, vector } = this.#options.interrupts.allocate(handler)
      this.#vectors.push({ address, data, vector })
      registers.write(`${name}_IRQ_CFG0`, { ADDR: address })
      registers.write(`${name}_IRQ_CFG1`, { DATA: data })
    }
    if (msi) {
      point('GERROR', () => this.wire('gerror'))
      point('EVENTQ', () => this.wire('eventq'))
      if (pri) point('PRIQ', () => this.wire('priq'))
    }
    registers.change('IRQ_CTRL', { EVENTQ_IRQEN: true, PRIQ_IRQEN: pri, GERROR_IRQEN: true })
  }

  /** Acknowledges every global error but that of the command queue, which whoever waits for it sees. */
  #globalError(): void {
    const registers = this.#registers
    const { $value: raised } = registers.read('GERROR')
    const { $value: known } = registers.read('GERRORN')
    registers.write('GERRORN', { $value: (raised & ~1n) | (known & 1n) })
  }
}
