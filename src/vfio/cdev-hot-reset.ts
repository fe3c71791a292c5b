// Hot reset as the user of a device file asks for it: devices are named by their ids in the iommufd, and every one
// that is reset must belong to that iommufd. With groups: hot-reset.ts. uapi linux/vfio.h.
import { ErrnoError } from '../base/errno.js'
import type { Process } from '../sys/process.js'
import type { CdevEnvironment } from './cdev.js'
import type { BoundDevice } from './iommufd/device.js'
import {
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_DEVID_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from './uapi/vfio.js'

const INFO = 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO'
const RESET = 'VFIO_DEVICE_PCI_HOT_RESET'
const HEADER = 12

/** The id of a function for the owner of `bound`: its own, OWNED with its group, or NOT_OWNED. */
function idOf(env: CdevEnvironment, bound: BoundDevice, bdf: number): number {
  const { context } = bound
  const device = context.objects
    .all()
    .find(o => o.kind === 'device' && (o as BoundDevice).bdf === bdf)
  if (device !== undefined) return device.id
  const owner = env.iommufd.groups.owner(env.scope.groupOf(bdf))
  return owner === context ? VFIO_PCI_DEVID_OWNED : VFIO_PCI_DEVID_NOT_OWNED
}

/** Tells which devices a hot reset of this one reaches, and whether all are the caller's. */
export function cdevHotResetInfo(
  env: CdevEnvironment,
  bound: BoundDevice,
  arg: number,
  { memory }: Process,
): number {
  const info = vfio_pci_hot_reset_info({ argsz: 0 })
  if (!memory.copyIn(arg, info.bytes)) throw new ErrnoError('EFAULT', `${INFO}: unreadable`)
  if (info.argsz < HEADER) throw new ErrnoError('EINVAL', `${INFO}: argsz ${info.argsz}`)
  const affected = env.scope.affected(bound.bdf)
  if (affected.length === 0) throw new ErrnoError('ENODEV', `${INFO}: the bus cannot be reset`)
  const devices = affected.map(bdf =>
    vfio_pci_dependent_device({
      group_id: idOf(env, bound, bdf),
      bus: bdf >> 8,
      devfn: bdf & 0xff,
    }),
  )
  const owned = devices.every(d => d.group_id !== VFIO_PCI_DEVID_NOT_OWNED >>> 0)
  info.flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | (owned ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED : 0)
  info.count = affected.length
  const room = Math.floor((info.argsz - HEADER) / vfio_pci_dependent_device.size)
  const ok = memory.copyOut(arg, info.bytes)
  if (ok && room < devices.length)
    throw new ErrnoError('ENOSPC', `${INFO}: room for ${room} of ${devices.length}`)
  const written = (d: (typeof devices)[number], i: number) =>
    memory.copyOut(arg + HEADER + i * d.bytes.length, d.bytes)
  if (!ok || !devices.every(written)) throw new ErrnoError('EFAULT', `${INFO}: not writable`)
  return 0
}

/** Resets the bus when every function on it belongs to the iommufd. */
export function cdevHotReset(
  env: CdevEnvironment,
  bound: BoundDevice,
  arg: number,
  { memory }: Process,
): number {
  const header = vfio_pci_hot_reset({ argsz: 0 })
  if (!memory.copyIn(arg, header.bytes)) throw new ErrnoError('EFAULT', `${RESET}: unreadable`)
  const { argsz, flags, count } = header
  if (argsz < HEADER || flags !== 0)
    throw new ErrnoError('EINVAL', `${RESET}: argsz ${argsz}, flags ${flags}`)
  const affected = env.scope.affected(bound.bdf)
  if (affected.length === 0) throw new ErrnoError('ENODEV', `${RESET}: the bus cannot be reset`)
  if (count !== 0) throw new ErrnoError('EINVAL', `${RESET}: groups from a device file`)
  const foreign = affected.find(bdf => idOf(env, bound, bdf) === VFIO_PCI_DEVID_NOT_OWNED)
  if (foreign !== undefined)
    throw new ErrnoError('EINVAL', `${RESET}: function ${foreign} is not the caller's`)
  env.scope.reset(affected)
  return 0
}
