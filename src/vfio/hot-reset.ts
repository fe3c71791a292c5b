// Hot reset: all functions of a bus at once, which the caller must own by group. Only a bus below a bridge can be
// reset. uapi linux/vfio.h, vfio_pci_hot_reset_info and vfio_pci_hot_reset.
import { ErrnoError } from '../base/errno.js'
import type { Process } from '../sys/process.js'
import type { Group } from './group.js'
import {
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from './uapi/vfio.js'

/** What a hot reset reaches. */
export interface HotResetScope {
  /** Functions that are reset together with this one, itself included; empty when the bus cannot be reset. */
  affected(bdf: number): readonly number[]
  groupOf(bdf: number): number
  /** The group behind a file; undefined when it is another kind of file. */
  groupBehind(file: object): Group | undefined
  /** Resets these functions, those in use put back as they were. */
  reset(bdfs: readonly number[]): void
}

const INFO = 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO'
const RESET = 'VFIO_DEVICE_PCI_HOT_RESET'
const HEADER = 12

/** Tells which devices a hot reset of this one reaches. */
export function hotResetInfo(
  scope: HotResetScope,
  bdf: number,
  arg: number,
  { memory }: Process,
): number {
  const info = vfio_pci_hot_reset_info({ argsz: 0 })
  if (!memory.copyIn(arg, info.bytes)) throw new ErrnoError('EFAULT', `${INFO}: unreadable`)
  if (info.argsz < HEADER)
    throw new ErrnoError('EINVAL', `${INFO}: argsz ${info.argsz} < ${HEADER}`)
  const affected = scope.affected(bdf)
  if (affected.length === 0) throw new ErrnoError('ENODEV', `${INFO}: the bus cannot be reset`)
  const room = Math.floor((info.argsz - HEADER) / vfio_pci_dependent_device.size)
  info.flags = 0
  info.count = affected.length
  const devices = affected.map(b =>
    vfio_pci_dependent_device({ group_id: scope.groupOf(b), bus: b >> 8, devfn: b & 0xff }),
  )
  const fits = room >= affected.length
  if (!memory.copyOut(arg, info.bytes)) throw new ErrnoError('EFAULT', `${INFO}: not writable`)
  if (!fits) throw new ErrnoError('ENOSPC', `${INFO}: room for ${room} of ${affected.length}`)
  devices.forEach((d, i) => {
    if (!memory.copyOut(arg + HEADER + i * d.bytes.length, d.bytes))
      throw new ErrnoError('EFAULT', `${INFO}: not writable`)
  })
  return 0
}

/** Resets the bus when every function on it belongs to a group the caller shows. */
export function hotReset(scope: HotResetScope, bdf: number, arg: number, caller: Process): number {
  const { memory, fds, kernel } = caller
  const invalid = (what: string) => new ErrnoError('EINVAL', `${RESET}: ${what}`)
  const header = vfio_pci_hot_reset({ argsz: 0 })
  if (!memory.copyIn(arg, header.bytes)) throw new ErrnoError('EFAULT', `${RESET}: unreadable`)
  const { argsz, flags, count } = header
  if (argsz < HEADER || flags !== 0) throw invalid(`argsz ${argsz}, flags ${flags}`)
  const affected = scope.affected(bdf)
  if (affected.length === 0) throw new ErrnoError('ENODEV', `${RESET}: the bus cannot be reset`)
  if (count === 0 || count > affected.length) throw invalid(`${count} groups`)
  kernel.failures.step('a list of groups')
  const numbers = new Int32Array(count)
  if (!memory.copyIn(arg + HEADER, new Uint8Array(numbers.buffer)))
    throw new ErrnoError('EFAULT', `${RESET}: descriptors unreadable`)
  const groups = new Set<number>()
  for (const fd of numbers) {
    const file = fds.get(fd)
    if (file === undefined) throw new ErrnoError('EBADF', `${RESET}: fd ${fd} is not open`)
    const group = scope.groupBehind(file)
    if (group?.container === undefined) throw invalid(`fd ${fd} is no group in a container`)
    groups.add(group.id)
  }
  const foreign = affected.find(b => !groups.has(scope.groupOf(b)))
  if (foreign !== undefined)
    throw invalid(`a device of group ${scope.groupOf(foreign)} is affected`)
  scope.reset(affected)
  return 0
}
