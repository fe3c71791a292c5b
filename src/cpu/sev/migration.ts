// Guests leaving a platform and arriving at one: SEND_START to SEND_CANCEL, RECEIVE_START to RECEIVE_FINISH (SEV API
// 6.8 to 6.14). Memory travels in packets under fresh transport keys, which the session wraps for the other side.
// Left out: certificates of the other side, and register state of ES guests.

import { GUEST_STATE, SEV_STATUS, type SevStatus } from './codes.js'
import type { Answer, SevFirmware } from './firmware.js'
import type { GuestContext } from './guest-context.js'
import { le32, SESSION_BYTES, unwrapSession, wrapSession } from './keys.js'
import { PACKET_HEADER_BYTES, packetMac } from './measurement.js'
import { decodePolicy } from './policy.js'

const S = SEV_STATUS

/** SEND_START: a running guest begins to leave for the holder of `target`; the session is for that one. */
export function sendStart(
  firmware: SevFirmware,
  handle: number,
  target: Uint8Array,
): Answer<{ session: Uint8Array; policy: number }> {
  const g = inState(firmware, handle, GUEST_STATE.RUNNING)
  if (typeof g === 'number') return { status: g }
  if (!decodePolicy(g.policy, g.edition).send) return { status: S.POLICY_FAILURE }
  const { crypto } = firmware
  g.transport = { tek: firmware.draw(16), tik: firmware.draw(16) }
  const [nonce, iv] = [firmware.draw(16), firmware.draw(16)]
  const secret = firmware.agree(target)
  const session = wrapSession(crypto, secret, g.transport, g.policy, nonce, iv)
  g.state = GUEST_STATE.SENDING
  return { status: S.SUCCESS, session, policy: g.policy }
}

/** SEND_UPDATE_DATA: encrypted memory as a packet, header and data. */
export function sendUpdate(
  firmware: SevFirmware,
  handle: number,
  address: number,
  length: number,
): Answer<{ header: Uint8Array; data: Uint8Array }> {
  const g = inState(firmware, handle, GUEST_STATE.SENDING)
  if (typeof g === 'number') return { status: g }
  const refused = firmware.range(address, length)
  if (refused !== S.SUCCESS) return { status: refused }
  const { crypto } = firmware
  const iv = firmware.draw(16)
  const data = crypto.aes128ctr(g.transport.tek, iv, firmware.load(g, address, length))
  const what = { purpose: 2, flags: 0, iv, guestLength: length, data } as const
  const header = new Uint8Array(PACKET_HEADER_BYTES)
  header.set(le32(0))
  header.set(iv, 4)
  header.set(packetMac(crypto, g.transport.tik, what), 20)
  return { status: S.SUCCESS, header, data }
}

/** SEND_FINISH: the guest has left. */
export function sendFinish(firmware: SevFirmware, handle: number): SevStatus {
  const g = inState(firmware, handle, GUEST_STATE.SENDING)
  if (typeof g === 'number') return g
  g.state = GUEST_STATE.SENT
  return S.SUCCESS
}

/** SEND_CANCEL: it stays after all. */
export function sendCancel(firmware: SevFirmware, handle: number): SevStatus {
  const g = inState(firmware, handle, GUEST_STATE.SENDING)
  if (typeof g === 'number') return g
  g.state = GUEST_STATE.RUNNING
  return S.SUCCESS
}

/** RECEIVE_START: a guest arrives, its transport keys in a session made for the holder of `origin`. */
export function receiveStart(
  firmware: SevFirmware,
  start: {
    readonly edition: GuestContext['edition']
    readonly policy: number
    readonly origin: Uint8Array
    readonly session: Uint8Array
  },
): Answer<{ handle: number }> {
  if (firmware.status().state === 0) return { status: S.INVALID_PLATFORM_STATE }
  if (start.session.length < SESSION_BYTES) return { status: S.INVALID_LENGTH }
  const secret = firmware.agree(start.origin)
  const keys = unwrapSession(firmware.crypto, secret, start.session, start.policy)
  if (keys === undefined) return { status: S.BAD_MEASUREMENT }
  return firmware.admit(start, GUEST_STATE.RECEIVING, keys)
}

/** RECEIVE_UPDATE_DATA: a packet becomes memory under the guest's new key. */
export function receiveUpdate(
  firmware: SevFirmware,
  handle: number,
  header: Uint8Array,
  data: Uint8Array,
  address: number,
  length: number,
): SevStatus {
  const g = inState(firmware, handle, GUEST_STATE.RECEIVING)
  if (typeof g === 'number') return g
  const refused = firmware.range(address, length)
  if (refused !== S.SUCCESS) return refused
  if (header.length < PACKET_HEADER_BYTES || data.length !== length) return S.INVALID_LENGTH
  const plain = firmware.openPacket(g, header, data, 2)
  if (plain === undefined) return S.BAD_MEASUREMENT
  firmware.store(g, address, plain, 'RECEIVE_UPDATE')
  return S.SUCCESS
}

/** RECEIVE_FINISH: it runs here now. */
export function receiveFinish(firmware: SevFirmware, handle: number): SevStatus {
  const g = inState(firmware, handle, GUEST_STATE.RECEIVING)
  if (typeof g === 'number') return g
  g.state = GUEST_STATE.RUNNING
  return S.SUCCESS
}

function inState(firmware: SevFirmware, handle: number, state: number): GuestContext | SevStatus {
  if (firmware.status().state === 0) return S.INVALID_PLATFORM_STATE
  const g = firmware.guest(handle)
  if (g === undefined) return S.INVALID_GUEST
  return g.state === state ? g : S.INVALID_GUEST_STATE
}
