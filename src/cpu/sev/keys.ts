// Keys of a platform and of its guests: derivation (SP 800-108 in counter mode over HMAC-SHA-256, as SEV API 2.1
// has it), the session that wraps a guest's transport keys, and the platform's own secrets, all from one seed so that
// a run repeats. Key agreement is a stand-in: the shared secret is an HMAC of the owner's public key under a secret
// of the platform, not elliptic-curve Diffie-Hellman; whoever plays the owner asks the platform for it.

import type { CryptoProvider } from './crypto.js'

const text = new TextEncoder()

/** A 32-bit number, little-endian. */
export function le32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/** Derives `length` bytes from a key for a purpose. */
export function deriveKey(
  crypto: CryptoProvider,
  key: Uint8Array,
  label: string,
  length: number,
  context: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const out = new Uint8Array(Math.ceil(length / 32) * 32)
  const name = text.encode(`${label}\0`)
  for (let i = 0; i * 32 < length; i++) {
    out.set(crypto.hmacSha256(key, le32(i + 1), name, context, le32(length * 8)), i * 32)
  }
  return out.slice(0, length)
}

/** Keys that protect what travels between owner, or another platform, and this one. */
export interface TransportKeys {
  /** Encrypts, AES-128-CTR. */
  readonly tek: Uint8Array
  /** Authenticates, HMAC-SHA-256. */
  readonly tik: Uint8Array
}

/** Bytes of a session: nonce 16, wrapped keys 32, IV 16, MAC of the wrapped keys 32, MAC of the policy 32. */
export const SESSION_BYTES = 128
const AT = { NONCE: 0, KEYS: 16, IV: 48, KEYS_MAC: 64, POLICY_MAC: 96 } as const

/** The keys that wrap a session's, from the shared secret and the session's nonce (SEV API 2.2.2). */
function wrapping(crypto: CryptoProvider, secret: Uint8Array, nonce: Uint8Array) {
  const master = deriveKey(crypto, secret, 'sev-master-secret', 16, nonce)
  return {
    kek: deriveKey(crypto, master, 'sev-kek', 16),
    kik: deriveKey(crypto, master, 'sev-kik', 16),
  }
}

/** Wraps transport keys and a policy; what an owner, or a sending platform, writes. */
export function wrapSession(
  crypto: CryptoProvider,
  secret: Uint8Array,
  keys: TransportKeys,
  policy: number,
  nonce: Uint8Array,
  iv: Uint8Array,
): Uint8Array {
  const { kek, kik } = wrapping(crypto, secret, nonce)
  const plain = new Uint8Array(32)
  plain.set(keys.tek)
  plain.set(keys.tik, 16)
  const wrapped = crypto.aes128ctr(kek, iv, plain)
  const session = new Uint8Array(SESSION_BYTES)
  session.set(nonce, AT.NONCE)
  session.set(wrapped, AT.KEYS)
  session.set(iv, AT.IV)
  session.set(crypto.hmacSha256(kik, wrapped), AT.KEYS_MAC)
  session.set(crypto.hmacSha256(keys.tik, le32(policy)), AT.POLICY_MAC)
  return session
}

/** Opens a session; undefined when a MAC does not match. */
export function unwrapSession(
  crypto: CryptoProvider,
  secret: Uint8Array,
  session: Uint8Array,
  policy: number,
): TransportKeys | undefined {
  const part = (at: number, length: number) => session.subarray(at, at + length)
  const { kek, kik } = wrapping(crypto, secret, part(AT.NONCE, 16))
  const wrapped = part(AT.KEYS, 32)
  if (!equal(crypto.hmacSha256(kik, wrapped), part(AT.KEYS_MAC, 32))) return undefined
  const plain = crypto.aes128ctr(kek, part(AT.IV, 16), wrapped)
  const keys = { tek: plain.slice(0, 16), tik: plain.slice(16, 32) }
  const mac = crypto.hmacSha256(keys.tik, le32(policy))
  return equal(mac, part(AT.POLICY_MAC, 32)) ? keys : undefined
}

/** Whether two byte strings are the same. */
export const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((v, i) => v === b[i])

/** A platform's secrets: a stream of fresh bytes, and the stand-in for key agreement. */
export class PlatformSecrets {
  readonly #crypto: CryptoProvider
  readonly #seed: Uint8Array
  #drawn: number

  /** `drawn` is how many strings were drawn before, for a restored platform. */
  constructor(crypto: CryptoProvider, seed: Uint8Array, drawn = 0) {
    this.#crypto = crypto
    this.#seed = seed
    this.#drawn = drawn
  }

  /** Strings drawn so far. */
  get drawn(): number {
    return this.#drawn
  }

  /** Bytes that nothing else gets. */
  draw(length: number): Uint8Array {
    return deriveKey(this.#crypto, this.#seed, 'platform-random', length, le32(this.#drawn++))
  }

  /** The secret that platform and the holder of a public key share. */
  agree(publicKey: Uint8Array): Uint8Array {
    const key = deriveKey(this.#crypto, this.#seed, 'platform-agreement', 32)
    return this.#crypto.hmacSha256(key, publicKey)
  }
}
