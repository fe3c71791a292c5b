// A vfio-pci device: what one function is while users have it open, shared by all its files. Info, regions and
// interrupts as calls, reset with everything put back. Config bits: config.ts; hot-reset.ts, device-feature.ts.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import type { TraceBus } from '../base/trace.js'
import type { IommuCore } from '../iommu/core.js'
import { IOMMU_FAULT_PAGE_REQ, type IommuFault } from '../iommu/uapi.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { MmapBacking } from '../mem/vma.js'
import type { PciFunction } from '../pci/function.js'
import { freeVectors, type HostInterrupts } from '../pci/host-interrupts.js'
import {
  CAPABILITY,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../pci/ids.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import { answerInfo, CapabilityChain } from './capability-chain.js'
import { VirtualConfig } from './config.js'
import { deviceFeature, type FeatureTarget } from './device-feature.js'
import { DmaLogging } from './dma-logging.js'
import { FaultRegion, ResponseRegion } from './fault-region.js'
import { type HotResetScope, hotReset, hotResetInfo } from './hot-reset.js'
import type { IoctlTrace } from './ioctl-trace.js'
import { IoEventFds } from './ioeventfd.js'
import { DeviceIrqs, FAULT_IRQ } from './irqs.js'
import { Migration } from './migration.js'
import type { Rules } from './profiles.js'
import {
  ABSENT,
  BarRegion,
  ConfigRegion,
  type Region,
  regionIndex,
  regionOffset,
} from './regions.js'
import { resetPreserving } from './reset.js'
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_CAP_TYPE,
  VFIO_IRQ_INFO_FLAG_CAPS,
  VFIO_IRQ_SUBTYPE_DMA_FAULT,
  VFIO_IRQ_TYPE_NESTED,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_info_cap_type,
  vfio_irq_info_caps,
  vfio_region_info,
} from './uapi/vfio.js'

/** What devices need of the machine. */
export interface DeviceEnvironment {
  readonly core: IommuCore
  readonly memory: AddressSpace
  readonly interrupts: HostInterrupts
  readonly rules: Rules
  readonly trace: TraceBus
  readonly ioctlTrace: IoctlTrace
  readonly scope: HotResetScope
  readonly failures: Failures
}

const FLR_CAPABLE = 1 << 28
const INITIATE_FLR = 1 << 15
const INFO_MINIMUM = vfio_device_info.offsets.cap_offset

/** One function in the hands of users. Made by the first open, ended by the last close. */
export class VfioPciDevice {
  readonly bdf: number
  readonly irqs: DeviceIrqs
  readonly #fn: PciFunction
  readonly #env: DeviceEnvironment
  readonly #regions: (Region | undefined)[] = []
  readonly #doorbells = new IoEventFds()
  readonly #resets: boolean
  readonly #faults: FaultRegion | undefined
  readonly #migration: Migration | undefined
  readonly #logging: DmaLogging

  /** `nested`: the group is on a nesting domain, so that faults have somebody to go to. */
  constructor(fn: PciFunction, nested: boolean, env: DeviceEnvironment) {
    const { core, memory, rules, trace } = env
    this.bdf = fn.bdf
    this.#fn = fn
    this.#env = env
    this.#resets = (this.#express(4, 4) & FLR_CAPABLE) !== 0
    this.#migration = fn.model?.migratable ? new Migration(fn, env.failures) : undefined
    this.#logging = new DmaLogging(fn)
    const faults = nested && rules.faultRegions
    env.failures.step('a device')
    if (faults) env.failures.step('fault rings')
    this.irqs = new DeviceIrqs(fn, {
      config: core.config,
      memory,
      allocateVector: (handler, count) => vectorFor(env, this.bdf, handler, count),
      dynamicMsix: rules.dynamicMsix,
      faults,
    })
    if (this.#resets) this.reset()
    const command = core.config.read(this.bdf, PCI_COMMAND, 2)
    const closed = PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE
    const opened = (command | PCI_COMMAND_MEMORY) & ~closed
    core.config.write(this.bdf, PCI_COMMAND, 2, opened)
    for (const bar of fn.bars)
      this.#regions.push(bar.size > 0 ? new BarRegion(fn, bar, memory) : ABSENT)
    this.#regions.push(ABSENT)
    const config = new VirtualConfig(fn, {
      config: core.config,
      showPasid: rules.pasidCapability,
      reset: () => this.reset(),
      disableIntx: on => this.irqs.disableIntx(on),
    })
    this.#regions.push(new ConfigRegion(config))
    this.#regions[VFIO_PCI_VGA_REGION_INDEX] = undefined
    if (faults) {
      const region = new FaultRegion()
      this.#faults = region
      this.#regions.push(region, new ResponseRegion(this.bdf, core, trace))
      core.onFault(this.bdf, fault => this.#fault(region, fault))
    }
  }

  /** Ends use: interrupts and faults let go of, the function reset and its bus mastering off. */
  close(): void {
    const { core } = this.#env
    if (this.#faults) core.onFault(this.bdf, undefined)
    this.#doorbells.release()
    this.irqs.release()
    this.#logging.end()
    if (this.#resets) this.reset()
    else this.#migration?.reset()
    const command = core.config.read(this.bdf, PCI_COMMAND, 2)
    core.config.write(this.bdf, PCI_COMMAND, 2, command & ~PCI_COMMAND_MASTER)
  }

  /** Resets the function by FLR and puts back what the kernel programmed: BARs, interrupts, ATS, PRI, PASID. */
  reset(): void {
    this.surviveReset(() => this.#writeExpress(8, INITIATE_FLR))
  }

  /** Lives through a reset of another kind, such as that of the bus. */
  surviveReset(reset: () => void): void {
    resetPreserving(this.#env.core, this.bdf, reset)
    this.irqs.restore()
    this.#migration?.reset()
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case VFIO_DEVICE_GET_INFO:
        return this.#info(arg, caller)
      case VFIO_DEVICE_GET_REGION_INFO:
        return this.#regionInfo(arg, caller)
      case VFIO_DEVICE_GET_IRQ_INFO:
        return this.#irqInfo(arg, caller)
      case VFIO_DEVICE_SET_IRQS:
        return this.irqs.set(arg, caller)
      case VFIO_DEVICE_RESET:
        if (!this.#resets) throw new ErrnoError('EINVAL', 'VFIO_DEVICE_RESET: no reset method')
        this.reset()
        return 0
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
        return hotResetInfo(this.#env.scope, this.bdf, arg, caller)
      case VFIO_DEVICE_PCI_HOT_RESET:
        return hotReset(this.#env.scope, this.bdf, arg, caller)
      case VFIO_DEVICE_IOEVENTFD:
        return this.#doorbells.call(this.#regions, arg, caller)
      case VFIO_DEVICE_FEATURE:
        return deviceFeature(this.#features, arg, caller)
      default:
        // Device files answer this themselves: only a group's descriptor asks here.
        if (cmd === VFIO_DEVICE_BIND_IOMMUFD && this.#env.rules.iommufd)
          throw new ErrnoError('EINVAL', 'VFIO_DEVICE_BIND_IOMMUFD: the group gave the device out')
        throw new ErrnoError('ENOTTY', `vfio-pci knows no ioctl ${hex(cmd)}`)
    }
  }

  pread(into: Uint8Array, offset: number): number {
    return this.#regionAt(offset, 'pread').read(into, offset % 2 ** 40)
  }

  pwrite(from: Uint8Array, offset: number): number {
    return this.#regionAt(offset, 'pwrite').write(from, offset % 2 ** 40)
  }

  mmap(length: number, offset: number): MmapBacking {
    const region = this.#regionAt(offset, 'mmap')
    const at = offset % 2 ** 40
    if (!(region.flags & VFIO_REGION_INFO_FLAG_MMAP) || region.mmap === undefined)
      throw new ErrnoError('EINVAL', `mmap: region ${regionIndex(offset)} cannot be mapped`, 'mmap')
    if (at + length > region.size)
      throw new ErrnoError('EINVAL', `mmap: past the end of region ${regionIndex(offset)}`, 'mmap')
    return region.mmap(length, at)
  }

  get #features(): FeatureTarget {
    const { rules, core } = this.#env
    const { bdf } = this
    const [migration, logging] = [this.#migration, this.#logging]
    return { rules, config: core.config, bdf, migration, logging }
  }

  #fault(region: FaultRegion, fault: IommuFault): boolean {
    const queued = region.push(fault)
    if (queued || fault.type !== IOMMU_FAULT_PAGE_REQ) this.irqs.signal(FAULT_IRQ)
    return queued
  }

  #regionAt(offset: number, syscall: string): Region {
    const index = regionIndex(offset)
    const region = this.#regions[index]
    if (region === undefined)
      throw new ErrnoError('EINVAL', `${syscall}: there is no region ${index}`, syscall)
    return region
  }

  #info(arg: number, { memory }: Process): number {
    const call = 'VFIO_DEVICE_GET_INFO'
    const info = vfio_device_info({ argsz: 0 })
    if (!memory.copyIn(arg, info.bytes, INFO_MINIMUM))
      throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (info.argsz < INFO_MINIMUM)
      throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz} < ${INFO_MINIMUM}`)
    info.flags = VFIO_DEVICE_FLAGS_PCI | (this.#resets ? VFIO_DEVICE_FLAGS_RESET : 0)
    info.num_regions = this.#regions.length
    info.num_irqs = this.irqs.count
    const known = this.#env.rules.deviceInfoCapOffset ? INFO_MINIMUM + 4 : INFO_MINIMUM
    if (!memory.copyOut(arg, info.bytes, Math.min(known, info.argsz)))
      throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  #regionInfo(arg: number, { memory }: Process): number {
    const call = 'VFIO_DEVICE_GET_REGION_INFO'
    const info = vfio_region_info({ argsz: 0 })
    const { size } = vfio_region_info
    if (!memory.copyIn(arg, info.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (info.argsz < size) throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz} < ${size}`)
    const region = this.#regions[info.index]
    if (region === undefined) throw new ErrnoError('EINVAL', `${call}: index ${info.index}`)
    info.flags = region.flags
    info.cap_offset = 0
    info.size = BigInt(region.size)
    info.offset = BigInt(regionOffset(info.index))
    const chain = new CapabilityChain(this.#env.rules.capabilityAlign, this.#env.failures)
    region.describe?.(chain)
    if (!answerInfo(memory, arg, info, chain, VFIO_REGION_INFO_FLAG_CAPS, size))
      throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  #irqInfo(arg: number, { memory }: Process): number {
    const call = 'VFIO_DEVICE_GET_IRQ_INFO'
    const info = vfio_irq_info_caps({ argsz: 0 })
    const { size } = vfio_irq_info
    if (!memory.copyIn(arg, info.bytes, size)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (info.argsz < size) throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz} < ${size}`)
    const found = this.irqs.info(info.index)
    if (found === undefined) throw new ErrnoError('EINVAL', `${call}: index ${info.index}`)
    info.flags = found.flags
    info.count = found.count
    const chain = new CapabilityChain(this.#env.rules.capabilityAlign, this.#env.failures)
    if (info.index === FAULT_IRQ) {
      const type = { type: VFIO_IRQ_TYPE_NESTED, subtype: VFIO_IRQ_SUBTYPE_DMA_FAULT }
      chain.add(vfio_irq_info_cap_type(type), VFIO_IRQ_INFO_CAP_TYPE)
    }
    // Callers of the stock structure have no room for cap_offset and get none.
    const written =
      chain.size > 0 && info.argsz >= vfio_irq_info_caps.size ? info.bytes.length : size
    if (!answerInfo(memory, arg, info, chain, VFIO_IRQ_INFO_FLAG_CAPS, written))
      throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  #express(offset: number, size: 2 | 4): number {
    const at = this.#fn.capabilityOffset(CAPABILITY.PCI_EXPRESS, false)
    return at === undefined ? 0 : this.#env.core.config.read(this.bdf, at + offset, size)
  }

  #writeExpress(offset: number, bits: number): void {
    const at = this.#fn.capabilityOffset(CAPABILITY.PCI_EXPRESS, false)! + offset
    const { config } = this.#env.core
    config.write(this.bdf, at, 2, config.read(this.bdf, at, 2) | bits)
  }
}

// The IOMMU's driver knows how messages of a function must look; without one they go to the host as they are.
function vectorFor(
  { core, interrupts }: DeviceEnvironment,
  bdf: number,
  handler: (index: number) => void,
  count = 1,
) {
  const driver = core.deviceDriver(bdf)
  if (driver !== undefined) return driver.allocateVector(bdf, handler, count)
  const { address, data, vector } = interrupts.allocate(handler, undefined, count)
  return { address, data, free: () => freeVectors(interrupts, vector, count) }
}

/** One open file of a device. */
export class DeviceFile implements OpenFile {
  readonly kind = 'vfio-device'
  readonly device: VfioPciDevice
  readonly #trace: IoctlTrace
  readonly #released: () => void

  constructor(device: VfioPciDevice, trace: IoctlTrace, released: () => void) {
    this.device = device
    this.#trace = trace
    this.#released = released
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    const { device } = this
    if (this.#trace.on)
      return this.#trace.run(cmd, arg, caller, () => device.ioctl(cmd, arg, caller))
    return device.ioctl(cmd, arg, caller)
  }

  pread(into: Uint8Array, offset: number): number {
    return this.device.pread(into, offset)
  }

  pwrite(from: Uint8Array, offset: number): number {
    return this.device.pwrite(from, offset)
  }

  mmap(length: number, offset: number): MmapBacking {
    return this.device.mmap(length, offset)
  }

  release(): void {
    this.#released()
  }
}
