// The transform between what a guest means and what lies in memory (rule C-23): AES-128 under the guest's key in
// xor-encrypt-xor form, C = E(P ^ T(a)) ^ T(a), per 16-byte block at system physical address a. T(a) is the xor of one
// constant for each set bit of the address, the form that the first generation was found to have; here the constants
// are encryptions of the bit's number under a second key. The same block at two addresses, or under two keys, differs.

import type { BlockCipher, CryptoProvider } from './crypto.js'

/** Bytes the engine works on at a time. */
export const BLOCK = 16
/** Bits of a system physical address. */
const ADDRESS_BITS = 52
/** Blocks of a page, and words of a block. */
const BLOCKS = 256
const WORDS = 4

/** One guest's memory encryption key. */
export class MemoryKey {
  readonly #cipher: BlockCipher
  /** Words of each address bit's constant, from bit 12 up. */
  readonly #pageBits: Int32Array
  /** Words of T for the blocks of page 0: what address bits 11:4 contribute. */
  readonly #blocks = new Int32Array(BLOCKS * WORDS)
  /** Words of T for the page of the last address. */
  readonly #page = new Int32Array(WORDS)

  /** `key` is 32 bytes: the AES key and the key of the tweak. */
  constructor(crypto: CryptoProvider, key: Uint8Array) {
    this.#cipher = crypto.aes128(key.subarray(0, 16))
    const bytes = new Uint8Array((ADDRESS_BITS - 4) * BLOCK)
    for (let i = 0; i < ADDRESS_BITS - 4; i++) bytes[i * BLOCK] = i + 4
    crypto.aes128(key.subarray(16, 32)).encrypt(bytes)
    const constants = new Int32Array(bytes.buffer)
    this.#pageBits = constants.subarray(8 * WORDS)
    for (let block = 0; block < BLOCKS; block++) {
      for (let bit = 0; bit < 8; bit++) {
        if ((block >> bit) & 1) mix(this.#blocks, block * WORDS, constants, bit * WORDS)
      }
    }
  }

  /** Encrypts whole blocks in place as the memory at `address`, a multiple of 16. */
  encrypt(bytes: Uint8Array, address: number): void {
    this.#whiten(bytes, address)
    this.#cipher.encrypt(bytes)
    this.#whiten(bytes, address)
  }

  /** Decrypts whole blocks in place. */
  decrypt(bytes: Uint8Array, address: number): void {
    this.#whiten(bytes, address)
    this.#cipher.decrypt(bytes)
    this.#whiten(bytes, address)
  }

  #whiten(bytes: Uint8Array, address: number): void {
    const page = this.#page
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let at = 0; at < bytes.length; at += BLOCK) {
      const inPage = (address + at) % 4096
      if (at === 0 || inPage === 0) this.#takePage(address + at)
      const from = (inPage >>> 4) * WORDS
      for (let i = 0; i < WORDS; i++) {
        const tweak = page[i]! ^ this.#blocks[from + i]!
        view.setInt32(at + 4 * i, view.getInt32(at + 4 * i, true) ^ tweak, true)
      }
    }
  }

  #takePage(address: number): void {
    this.#page.fill(0)
    let low = (address >>> 12) & 0xf_ffff
    for (let bit = 0; low !== 0; low >>>= 1, bit++) {
      if (low & 1) mix(this.#page, 0, this.#pageBits, bit * WORDS)
    }
    let high = Math.floor(address / 2 ** 32)
    for (let bit = 20; high !== 0; high >>>= 1, bit++) {
      if (high & 1) mix(this.#page, 0, this.#pageBits, bit * WORDS)
    }
  }
}

function mix(into: Int32Array, at: number, from: Int32Array, start: number): void {
  for (let i = 0; i < WORDS; i++) into[at + i] = into[at + i]! ^ from[start + i]!
}
