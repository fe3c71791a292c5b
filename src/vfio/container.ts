// The file behind /dev/vfio/vfio: groups, and the IOMMU driver they share from SET_IOMMU until the last one leaves.
// uapi linux/vfio.h; the calls of a driver are in type1.ts.
import { ErrnoError } from '../base/errno.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import type { IoctlTrace } from './ioctl-trace.js'
import { type AttachableGroup, checkType1Extension, Type1, type Type1Environment } from './type1.js'
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_SET_IOMMU,
} from './uapi/vfio.js'

/** A container. It lives on after its file is closed while a group refers to it. */
export class Container implements OpenFile {
  readonly kind = 'vfio-container'
  readonly #env: Type1Environment
  readonly #trace: IoctlTrace
  readonly #groups: AttachableGroup[] = []
  #driver: Type1 | undefined = undefined

  constructor(env: Type1Environment, trace: IoctlTrace) {
    this.#env = env
    this.#trace = trace
  }

  /** The IOMMU driver; undefined before SET_IOMMU. */
  get driver(): Type1 | undefined {
    return this.#driver
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    if (this.#trace.on) return this.#trace.run(cmd, arg, caller, () => this.#call(cmd, arg, caller))
    return this.#call(cmd, arg, caller)
  }

  /** Adds a group; with a driver set it is attached at once, and stays out when that fails. */
  add(group: AttachableGroup, caller: Process): void {
    this.#driver?.attach(group, caller)
    this.#groups.push(group)
  }

  /** Removes a group. With the last one the driver and all its state goes. */
  remove(group: AttachableGroup): void {
    this.#driver?.detach(group.id)
    this.#groups.splice(this.#groups.indexOf(group), 1)
    if (this.#groups.length > 0 || this.#driver === undefined) return
    this.#env.drivers.delete(this.#driver)
    this.#driver = undefined
  }

  #call(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION
      case VFIO_CHECK_EXTENSION:
        return checkType1Extension(this.#env.rules, arg, this.#driver)
      case VFIO_SET_IOMMU:
        return this.#setIommu(arg, caller)
      default:
        if (this.#driver === undefined)
          throw new ErrnoError(
            'EINVAL',
            `ioctl 0x${cmd.toString(16)}: the container has no IOMMU driver`,
          )
        return this.#driver.ioctl(cmd, arg, caller)
    }
  }

  #setIommu(id: number, caller: Process): number {
    if (this.#groups.length === 0)
      throw new ErrnoError('EINVAL', 'VFIO_SET_IOMMU: the container has no group')
    if (this.#driver !== undefined)
      throw new ErrnoError('EINVAL', 'VFIO_SET_IOMMU: the container has an IOMMU driver')
    if (checkType1Extension(this.#env.rules, id) <= 0)
      throw new ErrnoError('ENODEV', `VFIO_SET_IOMMU: no driver knows type ${id}`)
    caller.kernel.failures.step('an IOMMU driver')
    const driver = new Type1(id, this.#env)
    const attached: AttachableGroup[] = []
    try {
      for (const group of this.#groups) {
        driver.attach(group, caller)
        attached.push(group)
      }
    } catch (error) {
      for (const group of attached.reverse()) driver.detach(group.id)
      throw error
    }
    this.#driver = driver
    this.#env.drivers.add(driver)
    return 0
  }
}
