// The primitives SEV is built of: AES-128 on single blocks and in counter mode (FIPS 197, SP 800-38A), SHA-256
// (FIPS 180-4) and HMAC (FIPS 198-1). Synchronous, since a model may not wait. A faster provider can be handed in
// from outside; whoever provides them, the bytes are the same. Next: memory-key.ts, measurement.ts.

import { ctr, unsafe } from '@noble/ciphers/aes.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'

/** AES under one key, on whole 16-byte blocks, each by itself and in place. */
export interface BlockCipher {
  encrypt(blocks: Uint8Array): void
  decrypt(blocks: Uint8Array): void
}

/** What computes. Keys of AES are 16 bytes, counter blocks 16, digests 32. */
export interface CryptoProvider {
  aes128(key: Uint8Array): BlockCipher
  /** AES-128-CTR with a full 128-bit counter, which both encrypts and decrypts. */
  aes128ctr(key: Uint8Array, counter: Uint8Array, data: Uint8Array): Uint8Array
  /** SHA-256 of the pieces one after another. */
  sha256(...pieces: readonly Uint8Array[]): Uint8Array
  /** HMAC-SHA-256 of the pieces one after another. */
  hmacSha256(key: Uint8Array, ...pieces: readonly Uint8Array[]): Uint8Array
}

/** The built-in provider. */
export const nobleCrypto: CryptoProvider = {
  aes128: key => new NobleAes(key),
  aes128ctr: (key, counter, data) => ctr(key, counter).encrypt(data),
  sha256(...pieces) {
    const hash = sha256.create()
    for (const piece of pieces) hash.update(piece)
    return hash.digest()
  },
  hmacSha256(key, ...pieces) {
    const mac = hmac.create(sha256, key)
    for (const piece of pieces) mac.update(piece)
    return mac.digest()
  },
}

// Expanded once: the memory engine asks for single blocks all the time.
class NobleAes implements BlockCipher {
  readonly #forward: Uint32Array
  readonly #backward: Uint32Array

  constructor(key: Uint8Array) {
    this.#forward = unsafe.expandKeyLE(key)
    this.#backward = unsafe.expandKeyDecLE(key)
  }

  encrypt(blocks: Uint8Array): void {
    const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length)
    for (let at = 0; at < blocks.length; at += 16) {
      const b = unsafe.encrypt(
        this.#forward,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        view.getUint32(at + 12, true),
      )
      put(view, at, b)
    }
  }

  decrypt(blocks: Uint8Array): void {
    const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length)
    for (let at = 0; at < blocks.length; at += 16) {
      const b = unsafe.decrypt(
        this.#backward,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        view.getUint32(at + 12, true),
      )
      put(view, at, b)
    }
  }
}

interface BlockWords {
  readonly s0: number
  readonly s1: number
  readonly s2: number
  readonly s3: number
}

function put(view: DataView, at: number, { s0, s1, s2, s3 }: BlockWords): void {
  view.setUint32(at, s0, true)
  view.setUint32(at + 4, s1, true)
  view.setUint32(at + 8, s2, true)
  view.setUint32(at + 12, s3, true)
}
