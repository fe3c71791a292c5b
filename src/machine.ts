// Builds a machine from a description: the only file that wires. Host memory, PCIe, an IOMMU with its
// driver, VFIO and KVM, and processes that use them.

import { formatBdf, parseBdf } from './base/addr.js'
import { VirtualClock } from './base/clock.js'
import { TraceBus, type TraceName } from './base/trace.js'
import { type ConfidentialDma, ConfidentialDmaChecker } from './confidential-dma.js'
import {
  type A64Options,
  type CpuArchitecture,
  createSevPlatform,
  type PasidSource,
  registerKvm,
  type SevOptions,
  type SevPlatform,
} from './cpu/index.js'
import type { GuestMemfdOptions } from './cpu/kvm/memory/private-memory.js'
import { PHYSICAL_ADDRESS_BITS } from './cpu/x86/cpuid.js'
import type { Progress, Snapshot } from './history/index.js'
import { HistoryKeeper } from './history/keeper.js'
import { RecordedClock } from './history/recorded-clock.js'
import { Recorder } from './history/recorder.js'
import { IommuCore } from './iommu/core.js'
import type { IommuDriver } from './iommu/domain.js'
import { INVALID_IOASID, IoasidAllocator } from './iommu/ioasid.js'
import { IOASID_EVENT } from './iommu/ioasid-notify.js'
import { PciConfig } from './iommu/pci-config.js'
import type { SmmuConfig } from './iommu/smmu/config.js'
import { SmmuDriver } from './iommu/smmu/driver.js'
import type { SmmuWire } from './iommu/smmu/msi.js'
import { SMMU_MMIO_SIZE } from './iommu/smmu/registers.js'
import { SmmuUnit } from './iommu/smmu/unit.js'
import { type StaleUse, StaleUseDetector } from './iommu/stale-use.js'
import { type VtdConfig, vtdConfig } from './iommu/vtd/config.js'
import { VtdDriver } from './iommu/vtd/driver.js'
import { VTD_MMIO_SIZE } from './iommu/vtd/registers.js'
import { VtdUnit } from './iommu/vtd/unit.js'
import { AddressSpace } from './mem/address-space.js'
import { FrameAllocator } from './mem/frames.js'
import { createRam } from './mem/ram.js'
import { watchRam } from './mem/ram-watch.js'
import { enumerate } from './pci/enumerate.js'
import { HOST_RANGES, RootComplex } from './pci/fabric.js'
import type { DeviceModel, PciFunction } from './pci/function.js'
import { HostInterrupts } from './pci/host-interrupts.js'
import { EXTENDED } from './pci/ids.js'
import { Kernel } from './sys/kernel.js'
import type { ProcessOptions } from './sys/process.js'
import type { Sys } from './sys/sys.js'
import {
  registerVfio,
  type Vfio,
  type VfioHoldings,
  type VfioParameters,
  type VfioProfile,
} from './vfio/index.js'

/** A device and where it sits. */
export interface DevicePlace {
  /** `0000:bb:dd.f` with bus 1 or above; each bus is below a root port of its own. */
  readonly at: string
  readonly model: DeviceModel
  /** Virtual functions that the host makes of it; the model must have `sriov`. */
  readonly vfs?: number
}

/** What a machine is made of. Everything has a default; the smallest machine is `createMachine()`. */
export interface MachineDescription {
  readonly iommu?: 'vt-d'
  /** Bytes of host RAM: a multiple of 2 MiB, at most 2 GiB. Default 256 MiB. */
  readonly ramBytes?: number
  readonly devices?: readonly DevicePlace[]
  /** Which revision of the interface VFIO speaks. Default `V7R`. */
  readonly profile?: VfioProfile
  /** What KVM's guests run on; 'x86-64' by default. */
  readonly cpu?: CpuArchitecture
  /** Virtual time that a guest's instruction takes, ns; 1 by default, and with more a guest waits for fewer of them. */
  readonly nsPerInstruction?: number
  /** Encrypted guests (SEV) on an x86-64 host: `true`, or what differs from the defaults. Absent: none. */
  readonly sev?: boolean | SevOptions
  /** Changes to the VT-d unit's capabilities. */
  readonly vtd?: Partial<VtdConfig>
  /** Module parameters of VFIO. */
  readonly parameters?: Partial<VfioParameters>
  /** Unanswered page requests are answered INVALID after this much virtual time; 0 never. */
  readonly pageResponseTimeoutNs?: number
  /** System-wide PASID capacity; default 2^20. */
  readonly pasidCapacity?: number
  /** Access control of root ports, without which what is below a port shares a group. Default true. */
  readonly acs?: boolean
  /**
   * Reports translations that are used after their tables changed, without the invalidation in between:
   * `staleUses`, and `stale-use` on the trace bus. Every use then walks; software sees no difference.
   */
  readonly detectStaleUse?: boolean
  /** What guest_memfds of KVM are like, and who keeps devices off what guests made private. */
  readonly guestMemfd?: GuestMemfdOptions
  /** What arm64 processors are like, where guests run on them. */
  readonly a64?: A64Options
  /**
   * Names DMA that reaches for private or encrypted memory of guests, before it moves a byte, with what became of the
   * page and of the device's way to it: `confidentialDmas`, and `confidential-dma` on the trace bus.
   */
  readonly detectConfidentialDma?: boolean
  /** Keeps everything that comes to the machine, so that it can be saved (`Machine.save`). Default false. */
  readonly record?: boolean
  /** Devices that are no PCI functions: a requester id, and the function whose group they share. */
  readonly namespaceDevices?: readonly { readonly requester: string; readonly beside: string }[]
  /** Puts others in front of, or beside, the IOMMU's driver, each for the functions it covers: for tests. */
  readonly drivers?: (driver: IommuDriver) => readonly DriverPlace[]
}

/** A machine with an SMMUv3. Profile `N13` nests over it, `V7R` refuses to. */
export interface SmmuMachineDescription extends Omit<MachineDescription, 'iommu' | 'vtd'> {
  readonly iommu: 'smmuv3'
  /** Changes to what the unit can do. */
  readonly smmu?: Partial<SmmuConfig>
  /** Functions at `0000:bb:dd.f` whose faults may stall. */
  readonly stalling?: readonly string[]
}

/** A driver and the functions it serves; all of them unless `covers` says otherwise. */
export interface DriverPlace {
  readonly driver: IommuDriver
  readonly covers?: (bdf: number) => boolean
}

/** What users hold in a machine; all zero after everybody closed what they opened. */
export interface Holdings extends VfioHoldings {
  /** PASIDs allocated or waiting to be reclaimed. */
  readonly pasids: number
  /** Pages pinned for devices. */
  readonly pins: number
}

const VTD_REGISTERS = 0xfed9_0000
const SMMU_REGISTERS = 0xf905_0000
const MIB = 2 ** 20
const MAX_RAM = 2048 * MIB

/** The IOMMU of a machine. */
export type IommuUnit = VtdUnit | SmmuUnit

/** A machine: the emulated host, its devices, and one process to start with. */
export interface Machine<Unit extends IommuUnit = VtdUnit> {
  readonly description: MachineDescription | SmmuMachineDescription
  readonly clock: VirtualClock
  readonly trace: TraceBus
  readonly kernel: Kernel
  readonly memory: AddressSpace
  readonly fabric: RootComplex
  readonly iommu: IommuCore
  readonly unit: Unit
  readonly ioasid: IoasidAllocator
  readonly interrupts: HostInterrupts
  readonly vfio: Vfio
  /** The security processor of a host with SEV. */
  readonly sev: SevPlatform | undefined
  /** What `detectConfidentialDma` found, in order. */
  readonly confidentialDmas: readonly ConfidentialDma[]
  /** What `detectStaleUse` found, in order. */
  readonly staleUses: readonly StaleUse[]
  /** System calls of the first process. */
  readonly sys: Sys
  /** Starts another process and returns its system calls. */
  spawn(options?: ProcessOptions): Sys
  /** Runs everything that is due, and what follows from it, until nothing waits. */
  settle(): void
  /** Runs the next deferred piece of work; false when there is none. */
  step(): boolean
  /** The function at `0000:bb:dd.f`. */
  function(at: string): PciFunction
  /** The VFIO group file of the function at `0000:bb:dd.f`: `/dev/vfio/N`. */
  groupOf(at: string): string
  holdings(): Holdings
  /** System calls of a living process: after `restore`, of those that the saved machine had. */
  process(pid: number): Sys | undefined
  /** The whole machine as it is now; it must be recorded (`record: true`). HistoryError when it cannot be saved. */
  save(): Snapshot
  /**
   * Makes this machine, new and of the same description, what the saved one was, half-done work and all.
   * HistoryError when it does not fit. `progress` hears how many inputs were done again.
   */
  restore(snapshot: Snapshot, progress?: Progress): void
  /** SHA-256 of the machine's state: equal for machines that software cannot tell apart. */
  digest(): string
  /** Remarks that callers make on the trace bus under these names are recorded too, for a replay to make again. */
  recordRemarks(names: readonly TraceName[]): void
}

/** Builds and boots a machine: firmware assigned addresses, the IOMMU driver probed, VFIO and KVM loaded. */
export function createMachine(description?: MachineDescription): Machine
export function createMachine(description: SmmuMachineDescription): Machine<SmmuUnit>
export function createMachine(
  description: MachineDescription | SmmuMachineDescription,
): Machine<IommuUnit>
export function createMachine(
  description: MachineDescription | SmmuMachineDescription = {},
): Machine<IommuUnit> {
  const ramBytes = description.ramBytes ?? 256 * MIB
  if (!(ramBytes > 0 && ramBytes <= MAX_RAM && ramBytes % (2 * MIB) === 0))
    throw new RangeError(`host RAM of ${ramBytes} bytes: a multiple of 2 MiB up to 2 GiB is needed`)
  const bytes = createRam(ramBytes)
  const recorder = description.record ? new Recorder(bytes) : undefined
  const clock = recorder ? new RecordedClock(recorder) : new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const staleUse = description.detectStaleUse
    ? new StaleUseDetector(clock, trace, memory, { base: 0, bytes })
    : undefined
  if (staleUse) watchRam(bytes, staleUse)
  const confidential = description.detectConfidentialDma
    ? new ConfidentialDmaChecker(memory, clock, trace)
    : undefined
  if (recorder) watchRam(bytes, recorder)
  const ram = memory.addRam(0, bytes)
  const frames = new FrameAllocator(memory, ram, MIB)
  const kernel = new Kernel({ clock, trace, memory, frames })

  const fabric = new RootComplex({ memory, clock, trace })
  placeDevices(fabric, description)
  enumerate({ memory, ...HOST_RANGES })
  for (const { at, vfs = 0 } of description.devices ?? []) if (vfs > 0) enableVfs(fabric, at, vfs)

  const interrupts = new HostInterrupts()
  const ioasid = new IoasidAllocator({
    clock,
    trace,
    ...(description.pasidCapacity === undefined ? {} : { capacity: description.pasidCapacity }),
  })
  const namespaceDevices = (description.namespaceDevices ?? []).map(n => ({
    requester: idOf(n.requester),
    function: find(fabric, n.beside).bdf,
  }))
  const iommu = new IommuCore({
    config: new PciConfig(memory, HOST_RANGES.ecamBase),
    clock,
    pageResponseTimeoutNs: description.pageResponseTimeoutNs ?? 0,
    namespaceDevices,
  })
  const requesters = namespaceDevices.map(n => n.requester)
  const parts = { memory, frames, fabric, interrupts, clock, trace, ioasid, requesters, staleUse }
  const { unit, driver } =
    description.iommu === 'smmuv3' ? smmu(description, parts) : vtd(description, parts)
  for (const fn of fabric.functions()) {
    const observer = unit.cacheObserver(() => fn.bdf)
    if (observer) fn.ats?.observe(observer)
  }
  const places: readonly DriverPlace[] = description.drivers?.(driver) ?? [{ driver }]
  for (const place of places) iommu.add(place.driver, place.covers)
  const vfio = registerVfio({
    kernel,
    core: iommu,
    ioasid,
    fabric,
    hostMemory: memory,
    interrupts,
    profile: description.profile ?? 'V7R',
    parameters: description.parameters ?? {},
    trace,
  })
  const cpu = description.cpu ?? 'x86-64'
  const sev = sevOf(description, { memory, clock, trace })
  const { nsPerInstruction = 1 } = description
  registerKvm({
    kernel,
    nsPerInstruction,
    clock,
    trace,
    cpu,
    pasidSource: pasidsOf(ioasid),
    ...(sev && { sev }),
    ...(description.a64 && { a64: description.a64 }),
    ...(description.guestMemfd && { guestMemfd: description.guestMemfd }),
  })
  const holdings = () => ({ ...vfio.holdings(), pasids: ioasid.held, pins: frames.pins })
  const identity = identityOf(description)
  const history = new HistoryKeeper(
    { identity, kernel, clock, trace, memory, ram: bytes, holdings },
    recorder,
  )
  const sys = history.first(kernel.spawn())

  return {
    description,
    clock,
    trace,
    kernel,
    memory,
    fabric,
    iommu,
    unit,
    ioasid,
    interrupts,
    vfio,
    sev,
    confidentialDmas: confidential?.found ?? [],
    staleUses: staleUse?.uses ?? [],
    sys,
    spawn: options => history.spawn(options),
    settle: () => clock.settle(),
    step: () => clock.step(),
    function: at => find(fabric, at),
    groupOf: at => `/dev/vfio/${iommu.groups.of(find(fabric, at).bdf)!.id}`,
    holdings,
    process: pid => history.process(pid),
    save: () => history.save(),
    restore: (snapshot, progress) => history.restore(snapshot, progress),
    digest: () => history.digest(),
    recordRemarks: names => history.remarks(names),
  }
}

/** The host's SEV, when it has one. */
function sevOf(
  { sev, cpu }: MachineDescription | SmmuMachineDescription,
  host: Pick<IommuParts, 'memory' | 'clock' | 'trace'>,
): SevPlatform | undefined {
  if (!sev) return undefined
  if (cpu === 'arm64') throw new RangeError('SEV is of x86-64 hosts')
  const options = sev === true ? {} : sev
  return createSevPlatform(options, { ...host, addressBits: PHYSICAL_ADDRESS_BITS })
}

/** What a machine is made of, as text; how it is observed is no part of it. */
function identityOf(description: MachineDescription | SmmuMachineDescription): string {
  const {
    devices = [],
    record,
    detectStaleUse,
    detectConfidentialDma,
    drivers,
    sev,
    ...rest
  } = description
  const models = devices.map(({ at, model, vfs = 0 }) => ({ at, model: model.name, vfs }))
  const made = { ...rest, devices: models, drivers: drivers !== undefined }
  // Who computes SEV's primitives changes nothing.
  const { crypto, ...options } = typeof sev === 'object' ? sev : {}
  return JSON.stringify(sev ? { ...made, sev: typeof sev === 'object' ? options : true } : made)
}

/** What an IOMMU and its driver are connected to. */
interface IommuParts {
  readonly memory: AddressSpace
  readonly frames: FrameAllocator
  readonly fabric: RootComplex
  readonly interrupts: HostInterrupts
  readonly clock: VirtualClock
  readonly trace: TraceBus
  readonly ioasid: IoasidAllocator
  /** Requester ids of devices that are no PCI functions. */
  readonly requesters: readonly number[]
  readonly staleUse: StaleUseDetector | undefined
}

/** VT-d: interrupts of devices go through its remapping. */
function vtd(description: MachineDescription, parts: IommuParts) {
  const { memory, fabric, requesters } = parts
  const { downstream } = fabric
  const unit = new VtdUnit({ ...parts, config: vtdConfig(description.vtd), downstream })
  memory.addMmio(VTD_REGISTERS, VTD_MMIO_SIZE, unit, 'VT-d')
  fabric.translator = unit
  fabric.messages = unit
  const registerBase = VTD_REGISTERS
  return { unit, driver: new VtdDriver({ ...parts, registerBase, namespaceDevices: requesters }) }
}

/** SMMUv3: messages of devices are writes that it translates, and what comes out at the doorbell is an interrupt. */
function smmu({ smmu: config = {}, stalling = [] }: SmmuMachineDescription, parts: IommuParts) {
  const { memory, fabric, interrupts, requesters } = parts
  const { downstream } = fabric
  const wire = (which: SmmuWire) => driver.wire(which)
  const unit = new SmmuUnit({ ...parts, config, downstream, wire })
  memory.addMmio(SMMU_REGISTERS, SMMU_MMIO_SIZE, unit, 'SMMUv3')
  fabric.translator = unit
  fabric.messages = unit
  fabric.doorbell = { ...unit.config.doorbell, sink: interrupts }
  const mayStall = new Set(stalling.map(at => find(fabric, at).bdf))
  const driver = new SmmuDriver({
    ...parts,
    registerBase: SMMU_REGISTERS,
    mayStall: bdf => mayStall.has(bdf),
    namespaceDevices: requesters,
  })
  return { unit, driver }
}

function placeDevices(
  fabric: RootComplex,
  { devices = [], acs = true }: Pick<MachineDescription, 'devices' | 'acs'>,
): void {
  const places = devices.map(({ at, model }) => {
    const id = idOf(at)
    if (id >> 8 === 0)
      throw new RangeError(`${at}: bus 0 holds the root ports; use bus 1 and above`)
    if (id & 0xf8) throw new RangeError(`${at}: a bus below a root port has device 0 only`)
    return { id, model }
  })
  const buses = Math.max(0, ...places.map(p => p.id >> 8))
  for (let bus = 1; bus <= buses; bus++) {
    const port = fabric.addRootPort({ acs })
    for (const { id, model } of places) if (id >> 8 === bus) port.add(model, id & 7)
  }
}

/** Makes virtual functions, as the host's driver of the physical one would. */
function enableVfs(fabric: RootComplex, at: string, vfs: number): void {
  const fn = find(fabric, at)
  const sriov = fn.capabilityOffset(EXTENDED.SRIOV, true)
  if (sriov === undefined) throw new RangeError(`${at} has no SR-IOV capability`)
  fn.config.write(sriov + 0x10, 2, vfs)
  fn.config.write(sriov + 0x08, 2, 0x0009)
}

function idOf(at: string): number {
  const id = parseBdf(at)
  if (id === undefined) throw new RangeError(`'${at}' is no PCI address: write 0000:bb:dd.f`)
  return id
}

function find(fabric: RootComplex, at: string): PciFunction {
  const id = parseBdf(at)
  const found = id === undefined ? undefined : fabric.function(id)
  if (!found) {
    const there = fabric.functions().map(f => formatBdf(f.bdf))
    throw new RangeError(`no function at ${at}; there is ${there.join(', ') || 'none'}`)
  }
  return found
}

/** PASID events as KVM hears them: at CPU priority, before the IOMMU and any device. */
function pasidsOf(ioasid: IoasidAllocator): PasidSource {
  return {
    subscribe: (mm, handler) =>
      ioasid.subscribeMm(mm, {
        priority: 'cpu',
        notify(event, id, spid) {
          if (event === IOASID_EVENT.FREE) handler.free(id)
          else if (spid === INVALID_IOASID) return
          else if (event === IOASID_EVENT.BIND) handler.bind(spid, id)
          else if (event === IOASID_EVENT.UNBIND) handler.unbind(spid, id)
        },
      }),
  }
}
