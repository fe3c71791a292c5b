// A small machine for tests of the VFIO room: host memory, PCIe, VT-d with its driver, VFIO, and processes.
// `check` compares what is held with the state after building, so that a test can show that it left nothing.
import { expect } from 'vitest'
import { formatBdf } from '../../src/base/addr.js'
import { VirtualClock } from '../../src/base/clock.js'
import { ErrnoError, type ErrnoName } from '../../src/base/errno.js'
import { bank, bits, r32 } from '../../src/base/fields.js'
import { TraceBus } from '../../src/base/trace.js'
import { IommuCore } from '../../src/iommu/core.js'
import type { Domain, FaultSink, IommuDriver } from '../../src/iommu/domain.js'
import { IoasidAllocator } from '../../src/iommu/ioasid.js'
import { PciConfig } from '../../src/iommu/pci-config.js'
import { type VtdConfig, vtdConfig } from '../../src/iommu/vtd/config.js'
import { VtdDriver } from '../../src/iommu/vtd/driver.js'
import { VtdUnit } from '../../src/iommu/vtd/unit.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { createRam } from '../../src/mem/ram.js'
import type { CapabilityFactory } from '../../src/pci/capability.js'
import { defineDevice } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { enumerate } from '../../src/pci/enumerate.js'
import { HOST_RANGES, RootComplex } from '../../src/pci/fabric.js'
import type { DeviceModel } from '../../src/pci/function.js'
import { HostInterrupts } from '../../src/pci/host-interrupts.js'
import { Kernel } from '../../src/sys/kernel.js'
import type { ProcessOptions } from '../../src/sys/process.js'
import { type IoctlArgument, Sys, s32 } from '../../src/sys/sys.js'
import {
  IOMMU_GPASID_BIND_VERSION_1,
  IOMMU_PASID_FORMAT_INTEL_VTD,
  iommu_gpasid_bind_data,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from '../../src/uapi.js'
import { registerVfio, type VfioParameters, type VfioProfile } from '../../src/vfio/index.js'

/** How a bench differs from the usual one: two dma-copy devices, each in a group of its own. */
export interface BenchOptions {
  readonly profile?: VfioProfile
  readonly parameters?: Partial<VfioParameters>
  readonly vtd?: Partial<VtdConfig>
  /** Models by bus; each inner list is the functions of one device below a root port. */
  readonly devices?: readonly (readonly DeviceModel[])[]
  readonly acs?: boolean
  readonly pasidCapacity?: number
  /** Stands in front of the driver, to make calls of it fail. */
  readonly wrapDriver?: (driver: IommuDriver) => IommuDriver
  /** Each bus seems to have an IOMMU unit of its own, so that containers need a domain for each. */
  readonly unitPerBus?: boolean
}

/** A driver that stands in front of another, with its domains changed. */
export function standIn(
  driver: IommuDriver,
  change: (domain: Domain) => void = () => {},
): IommuDriver {
  return new Proxy(driver, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown
      if (typeof value !== 'function') return value
      // Several stand-ins for one driver: it covers what each of them does.
      if (name === 'connect') return (sink: FaultSink) => target.connect(sink, () => true)
      if (name !== 'domainAlloc') return value.bind(target)
      return (options: { nesting: boolean }) => {
        const domain = target.domainAlloc(options)
        change(domain)
        return domain
      }
    },
  })
}

const REGISTERS = 0xfed9_0000
export const READ_WRITE = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE

/** Expects a call to be refused with this errno. */
export function refused(code: ErrnoName, call: () => unknown): ErrnoError {
  try {
    call()
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
    expect(error.code, error.message).toBe(code)
    return error
  }
  throw new Error(`the call succeeded where ${code} was expected`)
}

export function vfioBench(options: BenchOptions = {}) {
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const ram = memory.addRam(0, createRam(16 * 2 ** 20))
  const frames = new FrameAllocator(memory, ram, 2 ** 20)
  const kernel = new Kernel({ clock, trace, memory, frames })
  const fabric = new RootComplex({ memory, clock, trace })
  for (const models of options.devices ?? [[dmaCopy], [dmaCopy]]) {
    const port = fabric.addRootPort(options.acs === false ? { acs: false } : {})
    for (const [fn, model] of models.entries()) port.add(model, fn)
  }
  enumerate({ memory, ...HOST_RANGES })
  const interrupts = new HostInterrupts()
  const config = vtdConfig(options.vtd)
  const { downstream } = fabric
  const unit = new VtdUnit({ memory, config, downstream, interrupts, clock, trace })
  memory.addMmio(REGISTERS, 0x2000, unit, 'VT-d')
  fabric.translator = unit
  fabric.messages = unit
  const capacity = options.pasidCapacity
  const ioasid = new IoasidAllocator({ clock, trace, ...(capacity ? { capacity } : {}) })
  const core = new IommuCore({ config: new PciConfig(memory, HOST_RANGES.ecamBase), clock })
  const driver = new VtdDriver({
    memory,
    frames,
    registerBase: REGISTERS,
    interrupts,
    clock,
    trace,
    ioasid,
  })
  driver.probe()
  const front = options.wrapDriver ? options.wrapDriver(driver) : driver
  if (options.unitPerBus)
    for (const bus of [1, 2]) core.add(standIn(front), bdf => bdf >> 8 === bus)
  else core.add(front)
  const vfio = registerVfio({
    kernel,
    core,
    ioasid,
    fabric,
    hostMemory: memory,
    interrupts,
    profile: options.profile ?? 'V7R',
    parameters: options.parameters ?? {},
    trace,
  })
  const functions = fabric.functions().map(f => ({
    fn: f,
    name: formatBdf(f.bdf as never),
    group: core.groups.of(f.bdf)!.id,
  }))
  const held = () => ({
    ...vfio.holdings(),
    pins: frames.pins,
    frames: frames.used - kernel.processes.reduce((n, p) => n + p.memory.mappedPages, 0),
    pasidsAvailable: ioasid.available,
    vectors: interrupts.used,
    bindings: driver.bindingCount,
    requests: core.pendingPageRequests(),
  })
  const start = held()
  const sys = new Sys(kernel.spawn({ memlock: 64 * 2 ** 20 }))

  return {
    clock,
    trace,
    memory,
    frames,
    kernel,
    fabric,
    unit,
    driver,
    core,
    ioasid,
    interrupts,
    vfio,
    functions,
    sys,
    spawn: (o: ProcessOptions = {}) => new Sys(kernel.spawn(o)),
    settle: () => clock.settle(),
    program: (s: Sys = sys) => program(s, functions),
    /** Ends every process and expects nothing to be held. */
    check() {
      for (const p of kernel.processes) p.exit()
      clock.settle()
      expect(held()).toEqual(start)
    },
    held,
  }
}

/** The bench as built. */
export type VfioBench = ReturnType<typeof vfioBench>

const benches: VfioBench[] = []

/** A bench that `checkBenches` looks at when the test is over. */
export function bench(options: BenchOptions = {}): VfioBench {
  const made = vfioBench(options)
  benches.push(made)
  return made
}

/** Ends every process of the benches of a test and expects that nothing is held: for `afterEach`. */
export function checkBenches(): void {
  for (const made of benches.splice(0)) made.check()
}

/** What a test program does, in the fewest words. */
function program(sys: Sys, functions: readonly { name: string; group: number }[]) {
  const container = (id?: number, ...groups: number[]) => {
    const fd = sys.open('/dev/vfio/vfio')
    const opened = groups.map(g => {
      const group = sys.open(`/dev/vfio/${g}`)
      sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
      return group
    })
    if (id !== undefined) sys.ioctl(fd, VFIO_SET_IOMMU, id)
    const call = (cmd: number, arg?: IoctlArgument) => sys.ioctl(fd, cmd, arg)
    const bindCall = (
      op: number,
      init: Parameters<typeof iommu_gpasid_bind_data>[0],
      argsz?: number,
    ) => {
      const data = bindData(init)
      const arg = vfio_iommu_type1_nesting_op({ flags: op, data: data.bytes })
      if (argsz !== undefined) arg.argsz = argsz
      return call(VFIO_IOMMU_NESTING_OP, arg)
    }
    return {
      fd,
      groups: opened,
      call,
      map: (iova: bigint, vaddr: bigint, size: bigint, flags = READ_WRITE) =>
        call(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map({ flags, iova, vaddr, size })),
      /** Returns the bytes removed. */
      unmap(iova: bigint, size: bigint, flags = 0) {
        const arg = vfio_iommu_type1_dma_unmap({ flags, iova, size })
        call(VFIO_IOMMU_UNMAP_DMA, arg)
        return arg.size
      },
      alloc: (min = 1, max = 0xf_ffff) =>
        call(VFIO_IOMMU_PASID_REQUEST, pasids(VFIO_IOMMU_FLAG_ALLOC_PASID, min, max)),
      free: (min: number, max = min) =>
        call(VFIO_IOMMU_PASID_REQUEST, pasids(VFIO_IOMMU_FLAG_FREE_PASID, min, max)),
      bind: (init: Parameters<typeof iommu_gpasid_bind_data>[0], argsz?: number) =>
        bindCall(VFIO_IOMMU_NESTING_OP_BIND_PGTBL, init, argsz),
      unbind: (init: Parameters<typeof iommu_gpasid_bind_data>[0], argsz?: number) =>
        bindCall(VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL, init, argsz),
      unset: (i = 0) => sys.ioctl(opened[i]!, VFIO_GROUP_UNSET_CONTAINER),
      device: (i = 0, of = 0) =>
        sys.ioctl(opened[of]!, VFIO_GROUP_GET_DEVICE_FD, functions[i]!.name),
      close() {
        for (const group of opened) sys.close(group)
        sys.close(fd)
      },
    }
  }
  return {
    sys,
    container,
    /** A nesting container with the group of function `i`. */
    nesting: (i = 0) => container(VFIO_TYPE1_NESTING_IOMMU, functions[i]!.group),
  }
}

/** A device that does nothing, with these capabilities. */
export const plainDevice = (capabilities: readonly CapabilityFactory[]) =>
  defineDevice({
    name: 'plain',
    identity: { vendorId: 0x1234, deviceId: 0x0001, classCode: 0x088000 },
    capabilities: [...capabilities],
    bar0: bank('plain', { SCRATCH: r32(0x00, '1', { VALUE: bits(31, 0, 'rw', 'kept') }) }),
    create: () => ({}),
  })

export const pasids = (flags: number, min: number, max: number) =>
  vfio_iommu_type1_pasid_request({ flags, range: { min, max } })

/** Bind data that VT-d takes, with members replaced. */
export function bindData(init: Parameters<typeof iommu_gpasid_bind_data>[0] = {}) {
  return iommu_gpasid_bind_data({
    version: IOMMU_GPASID_BIND_VERSION_1,
    format: IOMMU_PASID_FORMAT_INTEL_VTD,
    addr_width: 48,
    ...init,
  })
}
