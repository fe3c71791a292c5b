// What a launch is measured to, and the MAC of a secret: the formulas, stated again in docs/specs.md and computed
// again by test/golden/sev/measurements.py. Numbers are little-endian.

import type { CryptoProvider } from './crypto.js'
import { le32 } from './keys.js'

/** The version this firmware tells, which is part of what it measures. */
export const SEV_API = { MAJOR: 1, MINOR: 51, BUILD: 3 } as const

/** Bytes of a measurement and of the nonce that follows it in LAUNCH_MEASURE's answer. */
export const MEASURE_BYTES = 48
/** Bytes of a packet header: flags 4, IV 16, MAC 32. */
export const PACKET_HEADER_BYTES = 52

/** LAUNCH_MEASURE (SEV API 6.5): HMAC(TIK; 4, versions, policy, digest of what was encrypted, nonce). */
export function launchMeasure(
  crypto: CryptoProvider,
  tik: Uint8Array,
  policy: number,
  digest: Uint8Array,
  mnonce: Uint8Array,
): Uint8Array {
  const head = Uint8Array.of(4, SEV_API.MAJOR, SEV_API.MINOR, SEV_API.BUILD)
  return crypto.hmacSha256(tik, head, le32(policy), digest, mnonce)
}

/**
 * LAUNCH_FINISH of the 2016 interface, whose text leaves the formula to its firmware; this one is ours:
 * HMAC(TIK; digest of what was encrypted, policy, vcpu_count, vcpu_length, SHA-256 of the masked vCPU states).
 */
export function launchFinish2016(
  crypto: CryptoProvider,
  tik: Uint8Array,
  policy: number,
  digest: Uint8Array,
  vcpus: { readonly count: number; readonly length: number; readonly masked: Uint8Array },
): Uint8Array {
  const { count, length, masked } = vcpus
  const states = crypto.sha256(masked)
  return crypto.hmacSha256(tik, digest, le32(policy), le32(count), le32(length), states)
}

/** MAC of a packet: what it is for, flags, IV, lengths, the encrypted bytes, and for a secret the measurement. */
export function packetMac(
  crypto: CryptoProvider,
  tik: Uint8Array,
  packet: {
    /** 1: a secret for a guest being launched; 2: memory on its way to another platform. */
    readonly purpose: 1 | 2
    readonly flags: number
    readonly iv: Uint8Array
    readonly guestLength: number
    readonly data: Uint8Array
    readonly measure?: Uint8Array
  },
): Uint8Array {
  const { purpose, flags, iv, guestLength, data, measure = new Uint8Array(0) } = packet
  const head = Uint8Array.of(purpose)
  const lengths = [le32(guestLength), le32(data.length)] as const
  return crypto.hmacSha256(tik, head, le32(flags), iv, ...lengths, data, measure)
}

/** The states of vCPUs, each cut or zero-padded to `length` bytes, under a mask padded with zeros. */
export function maskedStates(
  states: readonly Uint8Array[],
  length: number,
  mask: Uint8Array,
): Uint8Array {
  const out = new Uint8Array(states.length * length)
  states.forEach((state, n) => {
    for (let i = 0; i < Math.min(length, mask.length); i++)
      out[n * length + i] = (state[i] ?? 0) & mask[i]!
  })
  return out
}
