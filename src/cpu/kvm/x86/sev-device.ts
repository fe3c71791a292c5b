// /dev/sev: the file that SEV commands of VMs name, and what a host's administrator may ask of the platform
// (uapi linux/psp-sev.h). Only PLATFORM_STATUS is answered; the firmware of this platform knows no certificates.

import { _IOWR } from '../../../sys/ioctl.js'
import type { OpenFile } from '../../../sys/open-file.js'
import type { Process } from '../../../sys/process.js'
import { SEV_STATUS } from '../../sev/codes.js'
import type { SevFirmware } from '../../sev/firmware.js'
import { copyInBytes, copyOutBytes, refuse } from '../arguments.js'

/** `struct sev_issue_cmd`, which is packed: command u32, pointer u64, firmware code u32. */
const ISSUE_BYTES = 16
export const SEV_ISSUE_CMD = _IOWR(0x53, 0, ISSUE_BYTES)
export const SEV_PLATFORM_STATUS = 1
const SEV_LAST_COMMAND = 13
/** Bytes of `struct sev_user_data_status`, packed. */
export const PLATFORM_STATUS_BYTES = 12

/** The file behind /dev/sev. */
export class SevFile implements OpenFile {
  readonly kind = 'sev'
  readonly firmware: SevFirmware

  constructor(firmware: SevFirmware) {
    this.firmware = firmware
  }

  /** Guests, keys and ASIDs of the platform. */
  digest(): Uint8Array {
    return new TextEncoder().encode(JSON.stringify(this.firmware.save()))
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    if (cmd !== SEV_ISSUE_CMD)
      throw refuse('ENOTTY', `/dev/sev knows no request 0x${cmd.toString(16)}`)
    const issue = copyInBytes(caller, arg, ISSUE_BYTES)
    const view = new DataView(issue.buffer)
    const command = view.getUint32(0, true)
    if (command > SEV_LAST_COMMAND) throw refuse('EINVAL', `platform command ${command}`)
    if (command !== SEV_PLATFORM_STATUS) {
      view.setUint32(12, SEV_STATUS.INVALID_COMMAND, true)
      copyOutBytes(caller, arg, issue)
      throw refuse('EIO', `the firmware knows no platform command ${command}`)
    }
    const { major, minor, state, build, guests } = this.firmware.status()
    const status = new Uint8Array(PLATFORM_STATUS_BYTES)
    status.set([major, minor, state])
    status[7] = build
    new DataView(status.buffer).setUint32(8, guests, true)
    copyOutBytes(caller, Number(view.getBigUint64(4, true)), status)
    view.setUint32(12, SEV_STATUS.SUCCESS, true)
    copyOutBytes(caller, arg, issue)
    return 0
  }
}
