// An IOMMU group as VFIO offers it, and the file behind /dev/vfio/N: viability, the container it is in, and the
// count of users that keeps it there. uapi linux/vfio.h; counting: drivers/vfio of 5.9.
import { parseBdf } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { OpenFile } from '../sys/open-file.js'
import { O_RDWR } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import type { IoctlTrace } from './ioctl-trace.js'
import { type Mdev, NO_BACKING } from './mdev.js'
import type { Rules } from './profiles.js'
import type { AttachableGroup } from './type1.js'
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from './uapi/vfio.js'

/** Drivers that leave a group viable besides VFIO's own: they touch no DMA. */
const HARMLESS = new Set<string | undefined>([undefined, 'pci-stub'])
/** The name of VFIO's PCI driver. */
export const VFIO_PCI = 'vfio-pci'
const NAME_LIMIT = 4096

/** What a group can be put into: a container, or an iommufd in its place. */
export interface GroupContainer {
  /** Undefined until devices can be opened. */
  readonly driver: { readonly nests: boolean } | undefined
  add(group: Group, caller: Process): void
  remove(group: Group): void
  /** Called before a device is opened first; answers what is called after it was closed last. */
  open?(bdf: number): () => void
}

/** What a group asks of the machine. */
export interface GroupEnvironment {
  readonly rules: Rules
  /** Name of the driver a function is bound to; undefined: none. */
  driverOf(bdf: number): string | undefined
  /** Opens a function for a user; `release` is called when its file is. */
  openDevice(bdf: number, group: Group, release: () => void): OpenFile
  /** The container that a file is; undefined when it is none. */
  containerOf(file: OpenFile): GroupContainer | undefined
  /** Whether a device of the group is bound through its own file. */
  boundByDevice(group: Group): boolean
  /** Opens a mediated device. */
  openMdev(mdev: Mdev, release: () => void): OpenFile
  readonly trace: IoctlTrace
}

/** One group. `devices` are its endpoints: bridges are never handed out and never make it unviable. */
export class Group implements AttachableGroup {
  readonly id: number
  readonly devices: readonly number[]
  readonly mdev: Mdev | undefined
  readonly #env: GroupEnvironment
  #container: GroupContainer | undefined = undefined
  #users = 0
  #open = false

  constructor(id: number, devices: readonly number[], env: GroupEnvironment, mdev?: Mdev) {
    this.id = id
    this.devices = devices
    this.mdev = mdev
    this.#env = env
  }

  /** Whether somebody has its file, or a device of it. */
  get opened(): boolean {
    return this.#open || this.#container !== undefined
  }

  get container(): GroupContainer | undefined {
    return this.#container
  }

  /** Whether some endpoint is bound to VFIO. */
  get present(): boolean {
    return this.mdev !== undefined || this.devices.some(bdf => this.#env.driverOf(bdf) === VFIO_PCI)
  }

  /** Whether no endpoint is in the hands of another driver that does DMA. */
  get viable(): boolean {
    return this.devices.every(bdf => {
      const driver = this.#env.driverOf(bdf)
      return driver === VFIO_PCI || HARMLESS.has(driver)
    })
  }

  /** Opens the group's file. ENODEV without a VFIO device; EBUSY while open or held by a device fd. */
  open(): OpenFile {
    const refuse = (code: 'ENODEV' | 'EBUSY', what: string) =>
      new ErrnoError(code, `open /dev/vfio/${this.id}: ${what}`, 'open')
    if (!this.present) throw refuse('ENODEV', 'no device of the group is bound to vfio')
    if (this.#open) throw refuse('EBUSY', 'the group is open')
    if (this.#container || this.#env.boundByDevice(this))
      throw refuse('EBUSY', 'a device of the group is open')
    this.#open = true
    return new GroupFile(this)
  }

  /** The last descriptor of the group's file is closed. */
  closed(): void {
    this.#open = false
    this.#drop()
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    const { trace } = this.#env
    if (trace.on) return trace.run(cmd, arg, caller, () => this.#call(cmd, arg, caller))
    return this.#call(cmd, arg, caller)
  }

  #call(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case VFIO_GROUP_GET_STATUS:
        return this.#status(arg, caller)
      case VFIO_GROUP_SET_CONTAINER:
        return this.#setContainer(arg, caller)
      case VFIO_GROUP_UNSET_CONTAINER:
        return this.#unsetContainer()
      case VFIO_GROUP_GET_DEVICE_FD:
        return this.#deviceFd(arg, caller)
      default:
        throw new ErrnoError('ENOTTY', `a group knows no ioctl 0x${cmd.toString(16)}`)
    }
  }

  #status(arg: number, { memory }: Process): number {
    const call = 'VFIO_GROUP_GET_STATUS'
    const status = vfio_group_status()
    if (!memory.copyIn(arg, status.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (status.argsz < vfio_group_status.size)
      throw new ErrnoError('EINVAL', `${call}: argsz ${status.argsz} < ${vfio_group_status.size}`)
    const { viable } = this
    const set = this.#container !== undefined && (viable || !this.#env.rules.containerImpliesViable)
    status.flags =
      (viable ? VFIO_GROUP_FLAGS_VIABLE : 0) | (set ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0)
    if (!memory.copyOut(arg, status.bytes)) throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  #setContainer(arg: number, caller: Process): number {
    const call = 'VFIO_GROUP_SET_CONTAINER'
    const { rules } = this.#env
    const cell = new Int32Array(1)
    if (!caller.memory.copyIn(arg, new Uint8Array(cell.buffer)))
      throw new ErrnoError('EFAULT', `${call}: fd unreadable`)
    const fd = cell[0]!
    if (this.#users > 0) throw new ErrnoError('EINVAL', `${call}: the group is in a container`)
    if (fd < 0) throw new ErrnoError(rules.negativeFd, `${call}: fd ${fd}`)
    const file = caller.fds.get(fd)
    if (file === undefined) throw new ErrnoError('EBADF', `${call}: fd ${fd} is not open`)
    const container = this.#env.containerOf(file)
    if (container === undefined)
      throw new ErrnoError(rules.notContainer, `${call}: fd ${fd} is a ${file.kind}`)
    if (rules.viableAtSetContainer && !this.viable)
      throw new ErrnoError('EPERM', `${call}: another driver owns a device of the group`)
    container.add(this, caller)
    this.#container = container
    this.#users = 1
    return 0
  }

  #unsetContainer(): number {
    const call = 'VFIO_GROUP_UNSET_CONTAINER'
    if (this.#users === 0) throw new ErrnoError('EINVAL', `${call}: the group is in no container`)
    if (this.#users > 1) throw new ErrnoError('EBUSY', `${call}: a device of the group is open`)
    this.#drop()
    return 0
  }

  #deviceFd(arg: number, caller: Process): number {
    const call = 'VFIO_GROUP_GET_DEVICE_FD'
    const name = caller.memory.string(arg, NAME_LIMIT)
    if (name === 'fault') throw new ErrnoError('EFAULT', `${call}: name unreadable`)
    if (name === 'long') throw new ErrnoError('EINVAL', `${call}: name without end`)
    const { rules } = this.#env
    if (rules.deviceNameFirst) this.#named(name)
    if (this.#users === 0 || this.#container?.driver === undefined)
      throw new ErrnoError('EINVAL', `${call}: the group has no container with an IOMMU driver`)
    if (!this.viable) throw new ErrnoError('EINVAL', `${call}: the group is not viable`)
    const bdf = this.#named(name)
    caller.fds.reserve()
    const release = () => this.#drop()
    const file = this.mdev
      ? this.#env.openMdev(this.mdev, release)
      : this.#env.openDevice(bdf, this, release)
    this.#users++
    return caller.fds.install(file, O_RDWR)
  }

  #named(name: string): number {
    if (this.mdev?.name === name) return NO_BACKING
    // Options such as a VF token follow after a space.
    const bdf = parseBdf(name.split(' ')[0]!)
    const ours =
      bdf !== undefined &&
      name.startsWith('0000:') &&
      this.devices.includes(bdf) &&
      this.#env.driverOf(bdf) === VFIO_PCI
    if (!ours)
      throw new ErrnoError(
        'ENODEV',
        `VFIO_GROUP_GET_DEVICE_FD: ${name} is no device of group ${this.id}`,
      )
    return bdf
  }

  // One user less; the last one takes the group out of its container.
  #drop(): void {
    if (this.#users === 0 || --this.#users > 0) return
    const container = this.#container!
    this.#container = undefined
    container.remove(this)
  }
}

/** The file behind /dev/vfio/N. */
export class GroupFile implements OpenFile {
  readonly kind = 'vfio-group'
  readonly group: Group

  constructor(group: Group) {
    this.group = group
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    return this.group.ioctl(cmd, arg, caller)
  }

  release(): void {
    this.group.closed()
  }
}
