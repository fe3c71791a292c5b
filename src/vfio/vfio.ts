// VFIO of one machine: registers the device files, keeps groups and open devices, and offers what an administrator
// would do: bind drivers, ask for a device back, look at what is held.
import { formatBdf } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import type { TraceBus } from '../base/trace.js'
import type { IommuCore } from '../iommu/core.js'
import type { IoasidAllocator } from '../iommu/ioasid.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { RootComplex } from '../pci/fabric.js'
import type { HostInterrupts } from '../pci/host-interrupts.js'
import type { Kernel } from '../sys/kernel.js'
import type { OpenFile } from '../sys/open-file.js'
import { Cdevs } from './cdev.js'
import { Container } from './container.js'
import { type DeviceEnvironment, DeviceFile, VfioPciDevice } from './device.js'
import { Group, type GroupEnvironment, GroupFile, VFIO_PCI } from './group.js'
import type { HotResetScope } from './hot-reset.js'
import { IoasidDevice } from './ioasid-dev.js'
import { IoctlTrace } from './ioctl-trace.js'
import { Iommufd } from './iommufd/service.js'
import { REQUEST_IRQ } from './irqs.js'
import { Mdev, MdevFile, type MdevOptions } from './mdev.js'
import { PasidOwners } from './pasid-owners.js'
import { DEFAULT_PASID_QUOTA, PasidContexts } from './pasids.js'
import { type ProfileName, type Rules, rulesOf } from './profiles.js'
import { resetPreserving } from './reset.js'
import type { Type1, Type1Environment } from './type1.js'

/** Module parameters of VFIO. */
export interface VfioParameters {
  /** Mappings of one container; default 65535. */
  readonly dmaEntryLimit: number
  /** PASIDs of one process; default 1000. */
  readonly pasidQuota: number
  /** PASIDs of one process from /dev/ioasid (`ioasids.max` of its control group); default no limit. */
  readonly ioasidsMax: number
  /** Assign devices whose interrupts are not remapped; default false. */
  readonly allowUnsafeInterrupts: boolean
}

/** What VFIO is made of. */
export interface VfioOptions {
  readonly kernel: Kernel
  readonly core: IommuCore
  readonly ioasid: IoasidAllocator
  readonly fabric: RootComplex
  readonly hostMemory: AddressSpace
  readonly interrupts: HostInterrupts
  /** Which revision of the interface; default `V7R`. */
  readonly profile?: ProfileName
  readonly parameters?: Partial<VfioParameters>
  readonly trace: TraceBus
}

/** What users of VFIO hold now; all zero once everything is closed. */
export interface VfioHoldings {
  /** Containers with an IOMMU driver. */
  readonly containers: number
  /** Devices open. */
  readonly devices: number
  /** DMA mappings. */
  readonly mappings: number
  /** Processes with PASIDs or a reservation for them. */
  readonly pasidContexts: number
}

/** The driver of functions that serve mediated devices. */
const MDEV_PARENT = 'mdev-parent'

const DEFAULTS: VfioParameters = {
  dmaEntryLimit: 65535,
  pasidQuota: DEFAULT_PASID_QUOTA,
  ioasidsMax: Number.POSITIVE_INFINITY,
  allowUnsafeInterrupts: false,
}

/** VFIO of one machine. */
export class Vfio {
  readonly profile: ProfileName
  readonly rules: Rules
  readonly parameters: VfioParameters
  /** iommufd of this machine; undefined where the profile has none. */
  readonly iommufd: Iommufd | undefined
  /** Steps of calls that can be made to fail, for tests: the kernel's. */
  readonly failures: Failures
  readonly #options: VfioOptions
  readonly #contexts: PasidContexts
  readonly #ioasids: IoasidDevice | undefined
  readonly #drivers = new Set<Type1>()
  readonly #devices = new Map<
    number,
    { device: VfioPciDevice; files: number; detach: (() => void) | undefined }
  >()
  readonly #bound = new Map<number, string | undefined>()
  readonly #groups = new Map<number, Group>()
  #cdevs: Cdevs | undefined = undefined
  readonly #mdevs = new Map<number, { readonly mdev: Mdev; files: number }>()
  #nextMdevGroup = 0
  readonly #groupEnv: GroupEnvironment
  readonly #deviceEnv: DeviceEnvironment

  constructor(options: VfioOptions) {
    const { kernel, core, trace } = options
    this.#options = options
    this.failures = kernel.failures
    this.profile = options.profile ?? 'V7R'
    this.rules = rulesOf(this.profile)
    this.parameters = { ...DEFAULTS, ...options.parameters }
    this.#contexts = new PasidContexts(options.ioasid, this.parameters.pasidQuota, this.failures)
    const { rules } = this
    const { ioasid } = options
    if (rules.pasidFile) {
      const limit = () => this.parameters.ioasidsMax
      this.#ioasids = new IoasidDevice({ kernel, ioasid, limit })
    }
    const type1: Type1Environment = {
      core,
      contexts: this.#contexts,
      owners: this.#ioasids && new PasidOwners(ioasid, this.#ioasids),
      rules,
      trace,
      parameters: this.parameters,
      drivers: this.#drivers,
    }
    this.#groupEnv = {
      rules,
      driverOf: bdf => this.driverOf(bdf),
      openDevice: (bdf, group, release) => this.#openDevice(bdf, group, release),
      containerOf: file => (file instanceof Container ? file : this.iommufd?.containerOf(file)),
      boundByDevice: group => this.#cdevs?.holds(group.devices) ?? false,
      openMdev: (mdev, release) => this.#openMdev(mdev, release),
      trace: new IoctlTrace('group', rules, trace),
    }
    this.#deviceEnv = {
      core,
      memory: options.hostMemory,
      interrupts: options.interrupts,
      rules,
      trace,
      ioctlTrace: new IoctlTrace('device', rules, trace),
      scope: this.#hotResetScope(),
      failures: kernel.failures,
    }
    const containers = new IoctlTrace('container', rules, trace)
    kernel.nodes.register('/dev/vfio/vfio', () => new Container(type1, containers))
    kernel.nodes.register('/dev/vfio/', (_, path) => this.#openGroup(path))
    this.iommufd = this.rules.iommufd ? this.#registerIommufd() : undefined
  }

  /** Name of the driver a function is bound to; undefined: none. Endpoints start with `vfio-pci`. */
  driverOf(bdf: number): string | undefined {
    if (this.#bound.has(bdf)) return this.#bound.get(bdf)
    return this.#options.fabric.function(bdf) === undefined ? undefined : VFIO_PCI
  }

  /** Binds a function to another driver by name, or to none. EBUSY while a user has it open. */
  bindDriver(bdf: number, driver: string | undefined): void {
    if (this.#devices.has(bdf))
      throw new ErrnoError('EBUSY', `${formatBdf(bdf as never)} is open by a user`, 'write')
    this.#bound.set(bdf, driver)
  }

  /**
   * Makes a mediated device in a group of its own. A backing function goes to its parent driver and is no longer
   * for users. EEXIST: the name is taken; EBUSY: a user has the backing function open.
   */
  createMdev(options: MdevOptions): Mdev {
    const { name, backing } = options
    for (const { mdev } of this.#mdevs.values())
      if (mdev.name === name) throw new ErrnoError('EEXIST', `a device is called ${name}`, 'write')
    if (backing !== undefined && this.driverOf(backing) !== MDEV_PARENT)
      this.bindDriver(backing, MDEV_PARENT)
    const id = this.#options.core.groups.all.length + this.#nextMdevGroup++
    const mdev = new Mdev(options, id)
    this.#mdevs.set(id, { mdev, files: 0 })
    this.#groups.set(id, new Group(id, [], this.#groupEnv, mdev))
    return mdev
  }

  /** Takes a mediated device away. EBUSY while a user has its group. */
  removeMdev(mdev: Mdev): void {
    const group = this.#groups.get(mdev.group)
    if (group?.mdev !== mdev) return
    if (group.opened) throw new ErrnoError('EBUSY', `${mdev.name} is open by a user`, 'write')
    this.#groups.delete(mdev.group)
    this.#mdevs.delete(mdev.group)
  }

  /** Asks the user of a function to give it back; false when he did not set a request interrupt. */
  requestRelease(bdf: number): boolean {
    return this.#devices.get(bdf)?.device.irqs.signal(REQUEST_IRQ) ?? false
  }

  /** What users hold. */
  holdings(): VfioHoldings {
    let mappings = 0
    for (const driver of this.#drivers) mappings += driver.mappings.size
    return {
      containers: this.#drivers.size,
      devices:
        this.#devices.size + [...this.#mdevs.values()].filter(({ files }) => files > 0).length,
      mappings,
      pasidContexts: this.#contexts.size + (this.#ioasids?.size ?? 0),
    }
  }

  #openGroup(path: string): OpenFile {
    const id = /^\/dev\/vfio\/(\d+)$/.exec(path)?.[1]
    if (id === undefined) throw new ErrnoError('ENOENT', `open ${path}: no such device`, 'open')
    const mediated = this.#mdevs.has(Number(id)) && this.#groups.get(Number(id))
    if (mediated) return mediated.open()
    const found = this.#options.core.groups.byId(Number(id))
    if (found === undefined) throw new ErrnoError('ENODEV', `open ${path}: no such group`, 'open')
    return this.#group(found.id, found.endpoints).open()
  }

  #group(id: number, endpoints: readonly number[]): Group {
    let group = this.#groups.get(id)
    if (group === undefined)
      this.#groups.set(id, (group = new Group(id, endpoints, this.#groupEnv)))
    return group
  }

  #openDevice(bdf: number, group: Group, release: () => void): OpenFile {
    const fn = this.#options.fabric.function(bdf)
    if (fn === undefined) throw new Error(`group ${group.id} has a member that is no function`)
    let open = this.#devices.get(bdf)
    if (open === undefined) {
      const detach = group.container?.open?.(bdf)
      const nests = group.container?.driver?.nests ?? false
      try {
        open = { device: new VfioPciDevice(fn, nests, this.#deviceEnv), files: 0, detach }
      } catch (error) {
        detach?.()
        throw error
      }
      this.#devices.set(bdf, open)
    }
    const held = open
    held.files++
    return new DeviceFile(held.device, this.#deviceEnv.ioctlTrace, () => {
      if (--held.files === 0) {
        held.device.close()
        held.detach?.()
        this.#devices.delete(bdf)
      }
      release()
    })
  }

  /** /dev/iommu, and a file for every function beside its group's. */
  #registerIommufd(): Iommufd {
    const { kernel, core, trace, fabric } = this.#options
    const iommufd = new Iommufd({
      kernel,
      core,
      trace,
      allowUnsafeInterrupts: this.parameters.allowUnsafeInterrupts,
      viable: id => this.#group(id, core.groups.byId(id)!.endpoints).viable,
    })
    const cdevs = new Cdevs({
      iommufd,
      trace: this.#deviceEnv.ioctlTrace,
      scope: this.#deviceEnv.scope,
      endpoints: () => core.groups.all.flatMap(g => g.endpoints).sort((a, b) => a - b),
      ours: bdf => this.driverOf(bdf) === VFIO_PCI,
      groupOpen: bdf => this.#groups.get(core.groups.of(bdf)!.id)?.opened ?? false,
      inUse: bdf => this.#devices.has(bdf),
      open: bdf => {
        const device = new VfioPciDevice(fabric.function(bdf)!, false, this.#deviceEnv)
        this.#devices.set(bdf, { device, files: 1, detach: undefined })
        const close = () => {
          device.close()
          this.#devices.delete(bdf)
        }
        return { device, close }
      },
    })
    kernel.nodes.register('/dev/vfio/devices/', (_, path) => cdevs.open(path))
    this.#cdevs = cdevs
    return iommufd
  }

  /** The path of a function's own file; undefined where the profile has none. */
  deviceFile(bdf: number): string | undefined {
    return this.#cdevs?.pathOf(bdf)
  }

  #openMdev(mdev: Mdev, release: () => void): OpenFile {
    const open = this.#mdevs.get(mdev.group)!
    open.files++
    return new MdevFile(mdev, this.#deviceEnv.ioctlTrace, () => {
      if (--open.files === 0) mdev.model.reset()
      release()
    })
  }

  #hotResetScope(): HotResetScope {
    const { fabric, core } = this.#options
    return {
      affected: bdf => {
        const bus = bdf >> 8
        if (bus === 0) return []
        return fabric.functions().flatMap(f => (f.bdf >> 8 === bus ? [f.bdf] : []))
      },
      groupOf: bdf => core.groups.of(bdf)!.id,
      groupBehind: file => (file instanceof GroupFile ? file.group : undefined),
      reset: bdfs => {
        for (const bdf of bdfs) {
          const reset = () => fabric.function(bdf)?.reset()
          const open = this.#devices.get(bdf)
          if (open) open.device.surviveReset(reset)
          else resetPreserving(core, bdf, reset)
        }
      },
    }
  }
}

/** Adds VFIO to a kernel: /dev/vfio/vfio and a file for every group. */
export const registerVfio = (options: VfioOptions): Vfio => new Vfio(options)
