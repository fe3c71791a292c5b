// One SEV command on its way through the kernel, and the checks that commands share.

import type { Process } from '../../../sys/process.js'
import { SEV_STATUS, type SevStatus, sevStatusName } from '../../sev/codes.js'
import { refuse } from '../arguments.js'
import type { SevVm } from './sev.js'
import { SevFile } from './sev-device.js'
import type { X86Vm } from './vm.js'

/** One command as it came: its structure, and who sent it. */
export interface SevCommand {
  readonly vm: X86Vm
  readonly sev: SevVm
  readonly caller: Process
  readonly id: number
  /** Pointer to the command's own structure. */
  readonly data: number
  readonly fd: number
  /** The firmware's code, as it will be told. */
  error: number
}

/** Runs a command; refusals are ErrnoErrors. */
export type SevHandler = (c: SevCommand) => void

/** Lets a refusal of the firmware become EIO with its code. */
export function check(c: Pick<SevCommand, 'error'>, status: SevStatus): void {
  c.error = status
  if (status !== SEV_STATUS.SUCCESS)
    throw refuse('EIO', `the SEV firmware refused: ${sevStatusName(status)}`)
}

/** ENOTTY unless the VM is an encrypted guest of this interface. */
export function guestOnly({ sev }: SevCommand): void {
  if (!sev.active || sev.edition !== 'current') throw refuse('ENOTTY', 'this VM is no SEV guest')
}

/** Commands reach the firmware through a descriptor: EBADF when it is not /dev/sev, or no longer. */
export function needSevFile({ caller, sev }: SevCommand, fd = sev.fd): void {
  const file = caller.fds.get(fd)
  if (!(file instanceof SevFile) || file.firmware !== sev.firmware)
    throw refuse('EBADF', `descriptor ${fd} is not /dev/sev`)
}
