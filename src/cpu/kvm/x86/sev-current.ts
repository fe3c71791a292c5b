// KVM_MEMORY_ENCRYPT_OP: SEV commands as the kernel has them since INIT2 (rules C-18 to C-22), checks and errno in its
// order. A refusal of the firmware is EIO with its code in `error`; the command's structure is copied back either way.
// Sending and receiving are in sev-migration.ts. Left out: ES, whose register state is not encrypted here, and SNP.

import type { Process } from '../../../sys/process.js'
import { SEV_STATUS, type SevStatus } from '../../sev/codes.js'
import type { LaunchStart } from '../../sev/firmware.js'
import { MEASURE_BYTES } from '../../sev/measurement.js'
import { copyIn, copyOut, copyOutBytes, refuse } from '../arguments.js'
import { type Calls, calls } from '../calls.js'
import * as uapi from '../uapi/sev.js'
import type { SevVm } from './sev.js'
import { check, guestOnly, needSevFile, type SevCommand, type SevHandler } from './sev-command.js'
import { BLOB_MAX, copyBlob, debugCopy, pinRange, runsOf } from './sev-memory.js'
import { MIGRATION_COMMANDS } from './sev-migration.js'
import type { X86Vm } from './vm.js'

// biome-ignore format: table
const COMMANDS = new Map<number, SevHandler>([
  [uapi.KVM_SEV_INIT,               init],
  [uapi.KVM_SEV_ES_INIT,            init],
  [uapi.KVM_SEV_INIT2,              init2],
  [uapi.KVM_SEV_LAUNCH_START,       launchStart],
  [uapi.KVM_SEV_LAUNCH_UPDATE_DATA, launchUpdateData],
  [uapi.KVM_SEV_LAUNCH_UPDATE_VMSA, launchUpdateVmsa],
  [uapi.KVM_SEV_LAUNCH_SECRET,      launchSecret],
  [uapi.KVM_SEV_LAUNCH_MEASURE,     launchMeasure],
  [uapi.KVM_SEV_LAUNCH_FINISH,      launchFinish],
  [uapi.KVM_SEV_GUEST_STATUS,       guestStatus],
  [uapi.KVM_SEV_DBG_DECRYPT,        debug],
  [uapi.KVM_SEV_DBG_ENCRYPT,        debug],
  [uapi.KVM_SEV_GET_ATTESTATION_REPORT, attestationReport],
  ...MIGRATION_COMMANDS,
  [uapi.KVM_SEV_SNP_LAUNCH_START,   snp],
  [uapi.KVM_SEV_SNP_LAUNCH_UPDATE,  snp],
  [uapi.KVM_SEV_SNP_LAUNCH_FINISH,  snp],
])

/** Requests of this interface. */
export const SEV_CALLS: Calls<X86Vm> = calls<X86Vm>([
  [uapi.KVM_MEMORY_ENCRYPT_OP, memoryEncryptOp],
  [uapi.KVM_MEMORY_ENCRYPT_REG_REGION, registerRegion],
  [uapi.KVM_MEMORY_ENCRYPT_UNREG_REGION, unregisterRegion],
])

function memoryEncryptOp(vm: X86Vm, arg: number, caller: Process): number {
  const { sev } = vm
  if (sev === undefined) throw refuse('ENOTTY', 'this host has no SEV')
  if (arg === 0) return 0
  const cmd = copyIn(caller, arg, uapi.kvm_sev_cmd)
  const { id, data, sev_fd: fd, error } = cmd
  if (sev.snp && id < uapi.KVM_SEV_SNP_LAUNCH_START)
    throw refuse('EPERM', `command ${id} is not for SNP guests`)
  const handler = COMMANDS.get(id)
  if (handler === undefined) throw refuse('EINVAL', `SEV command ${id}`)
  const c: SevCommand = { vm, sev, caller, id, data: Number(data), fd, error }
  try {
    handler(c)
  } finally {
    cmd.error = c.error >>> 0
    copyOut(caller, arg, cmd)
  }
  return 0
}

// ---- initialisation ----

function init(c: SevCommand): void {
  const es = c.id === uapi.KVM_SEV_ES_INIT
  if (es && !c.sev.platform.es) throw refuse('ENOTTY', 'this host has no SEV-ES')
  if (c.vm.type !== 0) throw refuse('EINVAL', `a VM of type ${c.vm.type} is initialised by INIT2`)
  begin(c, { es, snp: false })
}

function init2(c: SevCommand): void {
  const { type } = c.vm
  const known = [uapi.KVM_X86_SEV_VM, uapi.KVM_X86_SEV_ES_VM, uapi.KVM_X86_SNP_VM]
  if (!known.includes(type) || c.sev.active) throw refuse('EINVAL', `INIT2 of a VM of type ${type}`)
  const { vmsa_features, flags, ghcb_version } = copyIn(c.caller, c.data, uapi.kvm_sev_init)
  const es = type !== uapi.KVM_X86_SEV_VM
  if (c.vm.vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
  if (flags !== 0 || vmsa_features !== 0n || ghcb_version > (es ? 2 : 0))
    throw refuse('EINVAL', 'INIT2 asks for features that are not there')
  const snp = type === uapi.KVM_X86_SNP_VM
  if (snp && ghcb_version === 1) throw refuse('EINVAL', 'SNP needs version 2 of the GHCB')
  begin(c, { es, snp })
}

function begin({ vm, sev }: SevCommand, kind: { es: boolean; snp: boolean }): void {
  if (vm.vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
  if (sev.active) throw refuse('EINVAL', 'the VM is an encrypted guest already')
  sev.takeAsid(kind.es ? 'encrypted-state' : 'plain')
  sev.firmware.init()
  sev.edition = 'current'
  Object.assign(sev, kind, { active: true })
}

// ---- launch ----

function launchStart(c: SevCommand): void {
  guestOnly(c)
  const { sev, caller } = c
  const params = copyIn(caller, c.data, uapi.kvm_sev_launch_start)
  const { dh_uaddr, dh_len, session_uaddr, session_len, handle, policy } = params
  const start: LaunchStart = {
    edition: 'current',
    policy,
    ...(handle !== 0 && { shareWith: handle }),
    ...(dh_uaddr !== 0n && { owner: copyBlob(caller, dh_uaddr, dh_len) }),
    ...(session_uaddr !== 0n && { session: copyBlob(caller, session_uaddr, session_len) }),
  }
  needSevFile(c, c.fd)
  const { status, handle: made } = sev.firmware.launchStart(start)
  check(c, status)
  check(c, sev.handle === 0 ? sev.bind(made!) : refuseSecond(sev, made!))
  params.handle = made!
  if (!caller.memory.copyOut(c.data, params.bytes)) {
    sev.unbind()
    throw refuse('EFAULT', 'the handle cannot be told')
  }
  sev.fd = c.fd
}

// The VM's ASID belongs to the guest of the first launch.
function refuseSecond({ firmware }: SevVm, handle: number): SevStatus {
  firmware.decommission(handle)
  return SEV_STATUS.ASID_OWNED
}

function launchUpdateData(c: SevCommand): void {
  guestOnly(c)
  const { uaddr, len } = copyIn(c.caller, c.data, uapi.kvm_sev_launch_update_data)
  const pages = pinRange(c.sev, c.caller, uaddr, BigInt(len), true)
  try {
    needSevFile(c)
    for (const { address, length } of runsOf(pages, uaddr, len))
      check(c, c.sev.firmware.launchUpdate(c.sev.handle, address, length))
  } finally {
    pages.release()
  }
}

function launchUpdateVmsa(c: SevCommand): void {
  if (!c.sev.es) throw refuse('ENOTTY', 'this VM is no SEV-ES guest')
  check(c, SEV_STATUS.INVALID_COMMAND)
}

function launchMeasure(c: SevCommand): void {
  guestOnly(c)
  const { caller, sev } = c
  const params = copyIn(caller, c.data, uapi.kvm_sev_launch_measure)
  const room = params.len
  const wanted = room !== 0 && params.uaddr !== 0n
  if (wanted && room > BLOB_MAX) throw refuse('EINVAL', `a measurement of ${room} bytes`)
  needSevFile(c)
  const told = (length: number) => {
    params.len = length
    copyOut(caller, c.data, params)
  }
  // Too little room, or none, asks for the size: the guest's state stays.
  if (!wanted || room < MEASURE_BYTES) {
    const state = sev.firmware.guestStatus(sev.handle)
    const status = state.state === 1 ? SEV_STATUS.INVALID_LENGTH : SEV_STATUS.INVALID_GUEST_STATE
    c.error = state.status === SEV_STATUS.SUCCESS ? status : state.status
    if (room === 0 && c.error === SEV_STATUS.INVALID_LENGTH) told(MEASURE_BYTES)
    check(c, c.error as SevStatus)
  }
  const { status, measurement } = sev.firmware.launchMeasure(sev.handle)
  check(c, status)
  const out = new Uint8Array(room)
  out.set(measurement!)
  copyOutBytes(caller, Number(params.uaddr), out)
  told(MEASURE_BYTES)
}

function launchSecret(c: SevCommand): void {
  guestOnly(c)
  const { caller, sev } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_launch_secret)
  const pages = pinRange(sev, caller, p.guest_uaddr, BigInt(p.guest_len), true)
  try {
    const runs = runsOf(pages, p.guest_uaddr, p.guest_len)
    if (runs.length > 1) throw refuse('EINVAL', 'a secret needs contiguous memory')
    const data = copyBlob(caller, p.trans_uaddr, p.trans_len)
    const header = copyBlob(caller, p.hdr_uaddr, p.hdr_len)
    const { address, length } = runs[0]!
    needSevFile(c)
    check(c, sev.firmware.launchSecret(sev.handle, header, data, address, length))
  } finally {
    pages.release()
  }
}

function launchFinish(c: SevCommand): void {
  guestOnly(c)
  needSevFile(c)
  check(c, c.sev.firmware.launchFinish(c.sev.handle))
}

// ---- status, debugging ----

function guestStatus(c: SevCommand): void {
  guestOnly(c)
  const { handle, firmware } = c.sev
  needSevFile(c)
  const { status, policy, state } = firmware.guestStatus(handle)
  check(c, status)
  const told = uapi.kvm_sev_guest_status({ handle, policy: policy!, state: state! })
  copyOut(c.caller, c.data, told)
}

function debug(c: SevCommand): void {
  guestOnly(c)
  const { src_uaddr, dst_uaddr, len } = copyIn(c.caller, c.data, uapi.kvm_sev_dbg)
  if (len === 0 || src_uaddr === 0n || dst_uaddr === 0n)
    throw refuse('EINVAL', 'an empty debug copy, or one of nothing')
  const end = (at: bigint) => BigInt.asUintN(64, at + BigInt(len))
  if (end(src_uaddr) < src_uaddr || end(dst_uaddr) < dst_uaddr)
    throw refuse('EINVAL', 'a debug copy that wraps around')
  needSevFile(c)
  const what = { source: src_uaddr, target: dst_uaddr, length: len }
  check(c, debugCopy(c.sev, c.caller, what, c.id === uapi.KVM_SEV_DBG_ENCRYPT))
}

function attestationReport(c: SevCommand): void {
  guestOnly(c)
  copyIn(c.caller, c.data, uapi.kvm_sev_attestation_report)
  check(c, SEV_STATUS.INVALID_COMMAND)
}

function snp(c: SevCommand): void {
  if (!c.sev.snp) throw refuse('ENOTTY', 'this VM is no SNP guest')
  check(c, SEV_STATUS.INVALID_COMMAND)
}

// ---- regions ----

function registerRegion(vm: X86Vm, arg: number, caller: Process): number {
  const { sev } = vm
  if (sev === undefined) throw refuse('ENOTTY', 'this host has no SEV')
  const { addr, size } = copyIn(caller, arg, uapi.kvm_enc_region)
  if (!sev.active) throw refuse('ENOTTY', 'this VM is no SEV guest')
  caller.kernel.failures.step('a region')
  sev.regions.push({ address: addr, size, pages: pinRange(sev, caller, addr, size, false) })
  return 0
}

function unregisterRegion(vm: X86Vm, arg: number, caller: Process): number {
  const { sev } = vm
  if (sev === undefined) throw refuse('ENOTTY', 'this host has no SEV')
  const { addr, size } = copyIn(caller, arg, uapi.kvm_enc_region)
  if (!sev.active) throw refuse('ENOTTY', 'this VM is no SEV guest')
  const at = sev.regions.findIndex(r => r.address === addr && r.size === size)
  if (at < 0) throw refuse('EINVAL', 'no such region')
  sev.regions.splice(at, 1)[0]!.pages.release()
  return 0
}
