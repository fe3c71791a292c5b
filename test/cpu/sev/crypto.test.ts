// The primitives against published vectors, whoever provides them.
import { describe, expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import { nobleCrypto } from '../../../src/cpu/sev/crypto.js'
import { fromHex, toHex } from '../../../src/cpu/sev/guest-context.js'

const text = (s: string) => new TextEncoder().encode(s)
const repeat = (byte: number, n: number) => new Uint8Array(n).fill(byte)

/** SP 800-38A, F.1.1 and F.5.1: four blocks. */
const KEY = '2b7e151628aed2a6abf7158809cf4f3c'
const PLAIN =
  '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51' +
  '30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710'
const ECB =
  '3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf' +
  '43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4'
const CTR =
  '874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff' +
  '5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee'

describe.each([
  ['@noble', nobleCrypto],
  ['node:crypto', nodeCrypto],
] as const)('%s', (_, crypto) => {
  it.each([
    [
      'FIPS 197, C.1',
      '000102030405060708090a0b0c0d0e0f',
      '00112233445566778899aabbccddeeff',
      '69c4e0d86a7b0430d8cdb78070b4c55a',
    ],
    ['SP 800-38A, F.1.1 and F.1.2', KEY, PLAIN, ECB],
  ])('AES-128 on blocks: %s, both ways and in place', (_, key, plain, cipher) => {
    const aes = crypto.aes128(fromHex(key))
    const bytes = fromHex(plain)
    aes.encrypt(bytes)
    expect(toHex(bytes)).toBe(cipher)
    aes.decrypt(bytes)
    expect(toHex(bytes)).toBe(plain)
  })

  it('AES-128 on a part of a larger array, which leaves the rest alone', () => {
    const all = new Uint8Array(48)
    crypto.aes128(fromHex(KEY)).encrypt(all.subarray(16, 32))
    expect([all.subarray(0, 16).every(b => b === 0), all.subarray(32).every(b => b === 0)]).toEqual(
      [true, true],
    )
    expect(all.subarray(16, 32).some(b => b !== 0)).toBe(true)
  })

  it('AES-128-CTR: SP 800-38A, F.5.1 and F.5.2', () => {
    const counter = fromHex('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff')
    expect(toHex(crypto.aes128ctr(fromHex(KEY), counter, fromHex(PLAIN)))).toBe(CTR)
    expect(toHex(crypto.aes128ctr(fromHex(KEY), counter, fromHex(CTR)))).toBe(PLAIN)
  })

  it.each([
    ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
    ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
    [
      'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq',
      '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
    ],
  ])('SHA-256 of "%s": FIPS 180-4 examples', (message, digest) => {
    expect(toHex(crypto.sha256(text(message)))).toBe(digest)
    expect(toHex(crypto.sha256(text(message.slice(0, 1)), text(message.slice(1))))).toBe(digest)
  })

  it('SHA-256 of a million times a', () => {
    const piece = repeat(0x61, 10_000)
    expect(toHex(crypto.sha256(...new Array(100).fill(piece)))).toBe(
      'cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0',
    )
  })

  // biome-ignore format: table
  it.each([
    [1, repeat(0x0b, 20),  text('Hi There'),                      'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    [2, text('Jefe'),      text('what do ya want for nothing?'),  '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
    [3, repeat(0xaa, 20),  repeat(0xdd, 50),                      '773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe'],
    [4, Uint8Array.from({ length: 25 }, (_, i) => i + 1), repeat(0xcd, 50), '82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b'],
    [6, repeat(0xaa, 131), text('Test Using Larger Than Block-Size Key - Hash Key First'), '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54'],
  ])('HMAC-SHA-256: RFC 4231, case %i', (_, key, message, mac) => {
    expect(toHex(crypto.hmacSha256(key, message))).toBe(mac)
    expect(toHex(crypto.hmacSha256(key, message.subarray(0, 3), message.subarray(3)))).toBe(mac)
  })
})
