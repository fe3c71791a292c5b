// SEV guests that leave and arrive, as commands of KVM_MEMORY_ENCRYPT_OP: SEND_START to SEND_CANCEL, RECEIVE_START to
// RECEIVE_FINISH. One command moves at most one page. Where the kernel takes a certificate, any bytes that name the
// other side's key will do (cpu/sev/keys.ts). Left out: register state of ES guests, which is ENOTTY for others.

import { SEV_STATUS, type SevStatus } from '../../sev/codes.js'
import { SESSION_BYTES } from '../../sev/keys.js'
import { PACKET_HEADER_BYTES } from '../../sev/measurement.js'
import * as migration from '../../sev/migration.js'
import { copyIn, copyOut, copyOutBytes, refuse } from '../arguments.js'
import * as uapi from '../uapi/sev.js'
import { check, guestOnly, needSevFile, type SevCommand, type SevHandler } from './sev-command.js'
import { BLOB_MAX, copyBlob, pinRange } from './sev-memory.js'

/** Commands by id. */
// biome-ignore format: table
export const MIGRATION_COMMANDS: readonly (readonly [id: number, handler: SevHandler])[] = [
  [uapi.KVM_SEV_SEND_START,          sendStart],
  [uapi.KVM_SEV_SEND_UPDATE_DATA,    sendUpdate],
  [uapi.KVM_SEV_SEND_FINISH,         c => simple(c, migration.sendFinish)],
  [uapi.KVM_SEV_SEND_CANCEL,         c => simple(c, migration.sendCancel)],
  [uapi.KVM_SEV_RECEIVE_START,       receiveStart],
  [uapi.KVM_SEV_RECEIVE_UPDATE_DATA, receiveUpdate],
  [uapi.KVM_SEV_RECEIVE_FINISH,      c => simple(c, migration.receiveFinish)],
]

function simple(
  c: SevCommand,
  command: (firmware: SevCommand['sev']['firmware'], handle: number) => SevStatus,
): void {
  guestOnly(c)
  needSevFile(c)
  check(c, command(c.sev.firmware, c.sev.handle))
}

function sendStart(c: SevCommand): void {
  guestOnly(c)
  const { caller, sev } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_send_start)
  const told = (length: number) => {
    p.session_len = length
    copyOut(caller, c.data, p)
  }
  if (p.session_len !== 0) {
    if (
      p.pdh_cert_uaddr === 0n ||
      p.pdh_cert_len === 0 ||
      p.session_uaddr === 0n ||
      p.session_len > BLOB_MAX
    )
      throw refuse('EINVAL', 'SEND_START needs a key and room for a session')
  }
  needSevFile(c)
  if (p.session_len < SESSION_BYTES) {
    const asked = p.session_len === 0
    c.error = SEV_STATUS.INVALID_LENGTH
    if (asked) told(SESSION_BYTES)
    check(c, SEV_STATUS.INVALID_LENGTH)
  }
  const target = copyBlob(caller, p.pdh_cert_uaddr, p.pdh_cert_len)
  copyBlob(caller, p.plat_certs_uaddr, p.plat_certs_len)
  copyBlob(caller, p.amd_certs_uaddr, p.amd_certs_len)
  const { status, session, policy } = migration.sendStart(sev.firmware, sev.handle, target)
  check(c, status)
  copyOutBytes(caller, Number(p.session_uaddr), session!)
  p.policy = policy!
  told(SESSION_BYTES)
}

// The page that a packet is of, pinned for as long as `use` takes.
function withPage(
  c: SevCommand,
  at: bigint,
  length: number,
  write: boolean,
  use: (address: number) => void,
): void {
  const offset = Number(at & 4095n)
  if (offset + length > 4096) throw refuse('EINVAL', 'a packet is of one page at most')
  const pages = pinRange(c.sev, c.caller, at - BigInt(offset), 4096n, write)
  try {
    use(pages.addresses[0]! + offset)
  } finally {
    pages.release()
  }
}

function sendUpdate(c: SevCommand): void {
  guestOnly(c)
  const { caller, sev } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_send_update_data)
  needSevFile(c)
  if (p.trans_len === 0 || p.hdr_len === 0) {
    p.hdr_len = PACKET_HEADER_BYTES
    p.trans_len = p.guest_len
    copyOut(caller, c.data, p)
    check(c, SEV_STATUS.INVALID_LENGTH)
  }
  if (p.trans_uaddr === 0n || p.guest_uaddr === 0n || p.guest_len === 0 || p.hdr_uaddr === 0n)
    throw refuse('EINVAL', 'SEND_UPDATE_DATA without memory, header or packet')
  withPage(c, p.guest_uaddr, p.guest_len, false, address => {
    if (p.hdr_len < PACKET_HEADER_BYTES || p.trans_len < p.guest_len)
      check(c, SEV_STATUS.INVALID_LENGTH)
    const sent = migration.sendUpdate(sev.firmware, sev.handle, address, p.guest_len)
    check(c, sent.status)
    copyOutBytes(caller, Number(p.trans_uaddr), sent.data!)
    copyOutBytes(caller, Number(p.hdr_uaddr), sent.header!)
  })
}

function receiveStart(c: SevCommand): void {
  guestOnly(c)
  const { caller, sev } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_receive_start)
  if (p.pdh_uaddr === 0n || p.pdh_len === 0 || p.session_uaddr === 0n || p.session_len === 0)
    throw refuse('EINVAL', 'RECEIVE_START without a key or a session')
  const origin = copyBlob(caller, p.pdh_uaddr, p.pdh_len)
  const session = copyBlob(caller, p.session_uaddr, p.session_len)
  needSevFile(c, c.fd)
  if (sev.handle !== 0) check(c, SEV_STATUS.ASID_OWNED)
  const { policy } = p
  const start = { edition: 'current', policy, origin, session } as const
  const { status, handle } = migration.receiveStart(sev.firmware, start)
  check(c, status)
  check(c, sev.bind(handle!))
  p.handle = handle!
  if (!caller.memory.copyOut(c.data, p.bytes)) {
    sev.unbind()
    throw refuse('EFAULT', 'the handle cannot be told')
  }
  sev.fd = c.fd
}

function receiveUpdate(c: SevCommand): void {
  // The kernel's word for a VM that is no SEV guest differs here.
  if (!c.sev.active || c.sev.edition !== 'current')
    throw refuse('EINVAL', 'this VM is no SEV guest')
  const { caller, sev } = c
  const p = copyIn(caller, c.data, uapi.kvm_sev_receive_update_data)
  const parts = [p.hdr_uaddr, p.guest_uaddr, p.trans_uaddr]
  const lengths = [p.hdr_len, p.guest_len, p.trans_len]
  if (parts.includes(0n) || lengths.includes(0))
    throw refuse('EINVAL', 'RECEIVE_UPDATE_DATA without memory, header or packet')
  if (Number(p.guest_uaddr & 4095n) + p.guest_len > 4096)
    throw refuse('EINVAL', 'a packet is of one page at most')
  const header = copyBlob(caller, p.hdr_uaddr, p.hdr_len)
  const data = copyBlob(caller, p.trans_uaddr, p.trans_len)
  withPage(c, p.guest_uaddr, p.guest_len, true, address => {
    needSevFile(c)
    const { firmware, handle } = sev
    check(c, migration.receiveUpdate(firmware, handle, header, data, address, p.guest_len))
  })
}
