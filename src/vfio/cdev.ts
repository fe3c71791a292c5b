// The device files /dev/vfio/devices/vfioN: a function without its group. It does nothing until it is bound to an
// iommufd; then it is the same device as a group gives out, attached to tables by function and by PASID, and a hot
// reset asks for owned devices instead of groups. uapi linux/vfio.h, VFIO_DEVICE_BIND_IOMMUFD and following.
import { formatBdf, hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { MmapBacking } from '../mem/vma.js'
import { NO_PASID } from '../pci/request.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import { cdevHotReset, cdevHotResetInfo } from './cdev-hot-reset.js'
import type { VfioPciDevice } from './device.js'
import type { HotResetScope } from './hot-reset.js'
import type { IoctlTrace } from './ioctl-trace.js'
import { readSized } from './iommufd/commands.js'
import { BoundDevice } from './iommufd/device.js'
import type { Iommufd } from './iommufd/service.js'
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from './uapi/vfio.js'

/** What device files need of the machine. */
export interface CdevEnvironment {
  readonly iommufd: Iommufd
  readonly trace: IoctlTrace
  readonly scope: HotResetScope
  /** Functions that can have a file, ascending; the place is N of vfioN. */
  endpoints(): readonly number[]
  /** Whether the function is bound to VFIO. */
  ours(bdf: number): boolean
  /** Whether somebody has the file of the function's group. */
  groupOpen(bdf: number): boolean
  /** Whether a user has the device open, by whichever file. */
  inUse(bdf: number): boolean
  /** Takes the function for a user. */
  open(bdf: number): { readonly device: VfioPciDevice; readonly close: () => void }
}

const DIRECTORY = '/dev/vfio/devices/'
const UUID_BYTES = 16

/** The device files of a machine. */
export class Cdevs {
  readonly #env: CdevEnvironment
  readonly #bound = new Map<number, BoundDevice>()

  constructor(env: CdevEnvironment) {
    this.#env = env
  }

  /** The path of a function's file. */
  pathOf(bdf: number): string {
    return `${DIRECTORY}vfio${this.#env.endpoints().indexOf(bdf)}`
  }

  /** Opens a file. ENOENT: no such function, or not VFIO's. */
  open(path: string): OpenFile {
    const index = /^\/dev\/vfio\/devices\/vfio(0|[1-9]\d*)$/.exec(path)?.[1]
    const bdf = index === undefined ? undefined : this.#env.endpoints()[Number(index)]
    if (bdf === undefined || !this.#env.ours(bdf))
      throw new ErrnoError('ENOENT', `open ${path}: no such device`, 'open')
    return new CdevFile(bdf, this.#env, this.#bound)
  }

  /** Whether a function among these is bound through its file. */
  holds(bdfs: readonly number[]): boolean {
    return bdfs.some(bdf => this.#bound.has(bdf))
  }
}

/** One open device file. */
export class CdevFile implements OpenFile {
  readonly kind = 'vfio-device'
  readonly bdf: number
  readonly #env: CdevEnvironment
  readonly #all: Map<number, BoundDevice>
  #bound: BoundDevice | undefined = undefined
  #held: ReturnType<CdevEnvironment['open']> | undefined = undefined

  constructor(bdf: number, env: CdevEnvironment, all: Map<number, BoundDevice>) {
    this.bdf = bdf
    this.#env = env
    this.#all = all
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    const { trace } = this.#env
    if (trace.on) return trace.run(cmd, arg, caller, () => this.#call(cmd, arg, caller))
    return this.#call(cmd, arg, caller)
  }

  pread(into: Uint8Array, offset: number): number {
    return this.#device('pread').pread(into, offset)
  }

  pwrite(from: Uint8Array, offset: number): number {
    return this.#device('pwrite').pwrite(from, offset)
  }

  mmap(length: number, offset: number): MmapBacking {
    return this.#device('mmap').mmap(length, offset)
  }

  release(): void {
    if (this.#bound === undefined) return
    this.#held?.close()
    this.#all.delete(this.bdf)
    this.#bound.unbind()
  }

  #call(cmd: number, arg: number, caller: Process): number {
    if (cmd === VFIO_DEVICE_BIND_IOMMUFD) return this.#bind(arg, caller)
    const device = this.#device('ioctl')
    const bound = this.#bound!
    switch (cmd) {
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        return attach(bound, arg, caller)
      case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        return detach(bound, arg, caller)
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
        return cdevHotResetInfo(this.#env, bound, arg, caller)
      case VFIO_DEVICE_PCI_HOT_RESET:
        return cdevHotReset(this.#env, bound, arg, caller)
      default:
        return device.ioctl(cmd, arg, caller)
    }
  }

  #device(syscall: string): VfioPciDevice {
    if (this.#held !== undefined) return this.#held.device
    throw new ErrnoError('EINVAL', `${syscall}: the device is not bound to an iommufd`, syscall)
  }

  #bind(arg: number, caller: Process): number {
    const call = 'VFIO_DEVICE_BIND_IOMMUFD'
    const env = this.#env
    const bind = vfio_device_bind_iommufd({ argsz: 0 })
    const minimum = vfio_device_bind_iommufd.offsets.token_uuid_ptr
    const argsz = readSized(call, bind.bytes, minimum, arg, caller.memory)
    if (bind.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN || bind.iommufd < 0)
      throw new ErrnoError('EINVAL', `${call}: flags ${hex(bind.flags)}, fd ${bind.iommufd}`)
    if (env.groupOpen(this.bdf))
      throw new ErrnoError('EBUSY', `${call}: the group of ${formatBdf(this.bdf as never)} is open`)
    if (this.#bound !== undefined) throw new ErrnoError('EINVAL', `${call}: bound already`)
    if (bind.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) {
      if (!caller.memory.copyIn(Number(bind.token_uuid_ptr), new Uint8Array(UUID_BYTES)))
        throw new ErrnoError('EFAULT', `${call}: token unreadable`)
      throw new ErrnoError('EINVAL', `${call}: the device takes no token`)
    }
    const file = caller.fds.get(bind.iommufd)
    if (file === undefined) throw new ErrnoError('EBADF', `${call}: fd ${bind.iommufd} is not open`)
    const context = env.iommufd.contextOf(file)
    if (context === undefined)
      throw new ErrnoError('EBADFD', `${call}: fd ${bind.iommufd} is a ${file.kind}`)
    if (env.inUse(this.bdf))
      throw new ErrnoError('EINVAL', `${call}: another file has the device open`)
    const bound = new BoundDevice(context, this.bdf, env.iommufd.groups)
    bind.out_devid = bound.id
    if (!caller.memory.copyOut(arg, bind.bytes, Math.min(argsz, bind.bytes.length))) {
      bound.unbind()
      throw new ErrnoError('EFAULT', `${call}: not writable`)
    }
    try {
      this.#held = env.open(this.bdf)
    } catch (error) {
      bound.unbind()
      throw error
    }
    this.#bound = bound
    this.#all.set(this.bdf, bound)
    return 0
  }
}

const PASID_LIMIT = 0x8000_0000

function attach(bound: BoundDevice, arg: number, { memory }: Process): number {
  const call = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT'
  const request = vfio_device_attach_iommufd_pt({ argsz: 0 })
  const { pasid: short, pt_id } = vfio_device_attach_iommufd_pt.offsets
  if (!memory.copyIn(arg, request.bytes, short)) throw unreadable(call)
  const { argsz, flags } = request
  const whole = (flags & VFIO_DEVICE_ATTACH_PASID) !== 0
  if (argsz < short || flags & ~VFIO_DEVICE_ATTACH_PASID) throw refused(call, argsz, flags)
  if (whole && argsz < request.bytes.length) throw refused(call, argsz, flags)
  if (whole && !memory.copyIn(arg, request.bytes)) throw unreadable(call)
  if (whole && request.pasid >= PASID_LIMIT)
    throw new ErrnoError('ENOSPC', `${call}: PASID ${hex(request.pasid)}`)
  const pasid = whole ? request.pasid : NO_PASID
  request.pt_id = bound.attach(request.pt_id, pasid)
  if (!memory.copyOut(arg + pt_id, request.bytes.subarray(pt_id, pt_id + 4))) {
    bound.detach(pasid)
    throw new ErrnoError('EFAULT', `${call}: not writable`)
  }
  return 0
}

function detach(bound: BoundDevice, arg: number, { memory }: Process): number {
  const call = 'VFIO_DEVICE_DETACH_IOMMUFD_PT'
  const request = vfio_device_detach_iommufd_pt({ argsz: 0 })
  const short = vfio_device_detach_iommufd_pt.offsets.pasid
  if (!memory.copyIn(arg, request.bytes, short)) throw unreadable(call)
  const { argsz, flags } = request
  const whole = (flags & VFIO_DEVICE_DETACH_PASID) !== 0
  if (argsz < short || flags & ~VFIO_DEVICE_DETACH_PASID) throw refused(call, argsz, flags)
  if (whole && argsz < request.bytes.length) throw refused(call, argsz, flags)
  if (whole && !memory.copyIn(arg, request.bytes)) throw unreadable(call)
  // A PASID that cannot be attached is not attached.
  if (!whole || request.pasid < PASID_LIMIT) bound.detach(whole ? request.pasid : NO_PASID)
  return 0
}

const unreadable = (call: string) => new ErrnoError('EFAULT', `${call}: unreadable`)
const refused = (call: string, argsz: number, flags: number) =>
  new ErrnoError('EINVAL', `${call}: argsz ${argsz}, flags ${hex(flags)}`)
