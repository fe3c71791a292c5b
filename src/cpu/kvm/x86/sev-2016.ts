// KVM_SEV_ISSUE_CMD, the 2016 proposal's interface (rules C-13 to C-16): one launch command makes the guest, ASID and
// key at once; there is no INIT, no measuring before the end, no secret. A refusal of the firmware is EIO with its code
// in `ret_code`. The commands for sending and receiving have numbers but no structures in the proposal: the firmware
// refuses them.

import type { Process } from '../../../sys/process.js'
import { SEV_STATUS } from '../../sev/codes.js'
import { copyIn, copyInBytes, copyOut, refuse } from '../arguments.js'
import { type Calls, calls } from '../calls.js'
import * as uapi from '../uapi/sev-2016.js'
import type { SevVm } from './sev.js'
import { check } from './sev-command.js'
import { debugCopy, pinRange, runsOf } from './sev-memory.js'
import type { X86Vm } from './vm.js'

const { SEV_2016: C } = uapi
/** Most bytes of a vCPU mask that are looked at: more than the firmware takes. */
const MASK_MAX = 0x4000

interface Command {
  readonly vm: X86Vm
  readonly sev: SevVm
  readonly caller: Process
  readonly cmd: number
  readonly data: number
  error: number
}

// biome-ignore format: table
const COMMANDS = new Map<number, (c: Command) => void>([
  [C.LAUNCH_START,  launchStart],
  [C.LAUNCH_UPDATE, launchUpdate],
  [C.LAUNCH_FINISH, launchFinish],
  [C.GUEST_STATUS,  guestStatus],
  [C.DBG_DECRYPT,   debug],
  [C.DBG_ENCRYPT,   debug],
  ...[
    C.RECEIVE_START, C.RECEIVE_UPDATE, C.RECEIVE_FINISH, C.SEND_START, C.SEND_UPDATE, C.SEND_FINISH, C.API_VERSION,
  ].map(cmd => [cmd, (c: Command) => check(c, SEV_STATUS.INVALID_COMMAND)] as const),
])

/** Requests of this interface. */
export const SEV_2016_CALLS: Calls<X86Vm> = calls<X86Vm>([[uapi.KVM_SEV_ISSUE_CMD, issueCommand]])

function issueCommand(vm: X86Vm, arg: number, caller: Process): number {
  const { sev } = vm
  if (sev === undefined) throw refuse('ENOTTY', 'this host has no SEV')
  const issue = copyIn(caller, arg, uapi.kvm_sev_issue_cmd_2016)
  const { cmd, opaque, ret_code: error } = issue
  const handler = COMMANDS.get(cmd)
  if (handler === undefined) throw refuse('ENOTTY', `SEV command ${cmd} of 2016`)
  const c: Command = { vm, sev, caller, cmd, data: Number(opaque), error }
  try {
    if (vm.type !== 0 || sev.edition === 'current')
      throw refuse('EINVAL', 'this guest is launched by KVM_MEMORY_ENCRYPT_OP')
    handler(c)
  } finally {
    issue.ret_code = c.error >>> 0
    copyOut(caller, arg, issue)
  }
  return 0
}

function launchStart(c: Command): void {
  const { sev, caller } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_launch_start_2016)
  if (sev.handle !== 0) check(c, SEV_STATUS.INVALID_GUEST_STATE)
  const owner = new Uint8Array(64)
  owner.set(p.dh_pub_qx)
  owner.set(p.dh_pub_qy, 32)
  sev.takeAsid('plain')
  try {
    sev.firmware.init()
    const { status, handle } = sev.firmware.launchStart({
      edition: '2016',
      policy: p.policy,
      owner,
      nonce: p.nonce.slice(),
      ...((p.flags & uapi.SEV_2016_FLAG_KS) !== 0 && { shareWith: p.handle }),
    })
    check(c, status)
    check(c, sev.bind(handle!))
    p.handle = handle!
    if (!caller.memory.copyOut(c.data, p.bytes)) {
      sev.unbind()
      throw refuse('EFAULT', 'the handle cannot be told')
    }
  } catch (error) {
    sev.freeAsid()
    throw error
  }
  sev.edition = '2016'
  sev.active = true
}

function launchUpdate(c: Command): void {
  const { address, length } = copyIn(c.caller, c.data, uapi.kvm_sev_launch_update_2016)
  const pages = pinRange(c.sev, c.caller, address, BigInt(length), true)
  try {
    for (const run of runsOf(pages, address, length))
      check(c, c.sev.firmware.launchUpdate(c.sev.handle, run.address, run.length))
  } finally {
    pages.release()
  }
}

function launchFinish(c: Command): void {
  const { caller, sev, vm } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_launch_finish_2016)
  if (p.vcpu_mask_length > MASK_MAX) check(c, SEV_STATUS.INVALID_LENGTH)
  const mask = copyInBytes(caller, Number(p.vcpu_mask_addr), p.vcpu_mask_length)
  const { status, measurement } = sev.firmware.launchFinish2016(sev.handle, {
    count: p.vcpu_count,
    length: p.vcpu_length,
    mask,
    states: [...vm.vcpus.values()].map(vcpu => vcpu.measuredState()),
  })
  check(c, status)
  p.measurement.set(measurement!)
  copyOut(caller, c.data, p)
}

function guestStatus(c: Command): void {
  const { status, policy, state } = c.sev.firmware.guestStatus(c.sev.handle)
  // A VM without a guest is in state INVALID.
  if (status === SEV_STATUS.INVALID_GUEST) {
    copyOut(c.caller, c.data, uapi.kvm_sev_guest_status_2016())
    return
  }
  check(c, status)
  const told = uapi.kvm_sev_guest_status_2016({ policy: policy!, state: state! })
  copyOut(c.caller, c.data, told)
}

function debug(c: Command): void {
  const { src_addr, dst_addr, length } = copyIn(c.caller, c.data, uapi.kvm_sev_dbg_2016)
  if (length === 0) throw refuse('EINVAL', 'an empty debug copy')
  const what = { source: src_addr, target: dst_addr, length }
  if (c.sev.handle === 0) check(c, SEV_STATUS.INVALID_GUEST)
  check(c, debugCopy(c.sev, c.caller, what, c.cmd === C.DBG_ENCRYPT))
}
