// Launches against an independent computation: test/golden/sev/measurements.py, which recorded measurements.json from
// the formulas of docs/specs.md. Regenerate: python3 test/golden/sev/measurements.py > test/golden/sev/measurements.json
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import { nobleCrypto } from '../../../src/cpu/sev/crypto.js'
import { SevFirmware } from '../../../src/cpu/sev/firmware.js'
import { fromHex, toHex } from '../../../src/cpu/sev/guest-context.js'
import { AddressSpace } from '../../../src/mem/address-space.js'

interface Piece {
  readonly address: number
  readonly data: string
}
interface Case {
  readonly name: string
  readonly seed: string
  readonly policy: number
  readonly pieces: readonly Piece[]
  readonly ciphertext: readonly string[]
  readonly measurement: string
  readonly owner?: string
}
interface CurrentCase extends Case {
  readonly session?: string
  readonly secret?: {
    address: number
    plain: string
    header: string
    data: string
    ciphertext: string
  }
}
interface Case2016 extends Case {
  readonly owner: string
  readonly nonce: string
  readonly states: readonly string[]
  readonly vcpuLength: number
  readonly mask: string
}
const path = join(import.meta.dirname, '../../golden/sev/measurements.json')
const golden = JSON.parse(readFileSync(path, 'utf8')) as {
  readonly answered: string
  readonly current: readonly CurrentCase[]
  readonly '2016': readonly Case2016[]
}

function platform(seed: string, crypto: typeof nobleCrypto) {
  const memory = new AddressSpace()
  memory.addRam(0, new Uint8Array(0x1_0000))
  memory.addRam(0x1_2345_0000, new Uint8Array(0x1_0000))
  const firmware = new SevFirmware({ memory, crypto, seed: new TextEncoder().encode(seed) })
  firmware.init()
  return { memory, firmware }
}

function encryptPieces(
  c: Case,
  handle: number,
  { memory, firmware }: ReturnType<typeof platform>,
): string[] {
  return c.pieces.map(({ address, data }) => {
    const bytes = fromHex(data)
    memory.write(address, bytes)
    expect(firmware.launchUpdate(handle, address, bytes.length)).toBe(0)
    memory.read(address, bytes)
    return toHex(bytes)
  })
}

describe.each([
  ['@noble', nobleCrypto],
  ['node:crypto', nodeCrypto],
] as const)(`C-9 C-19 C-23 computed with %s, against ${golden.answered}`, (_, crypto) => {
  it.each(golden.current.map(c => [c.name, c] as const))('today: %s', (_, c) => {
    const p = platform(c.seed, crypto)
    const { status, handle } = p.firmware.launchStart({
      edition: 'current',
      policy: c.policy,
      ...(c.owner !== undefined && { owner: fromHex(c.owner), session: fromHex(c.session!) }),
    })
    expect(status).toBe(0)
    expect(encryptPieces(c, handle!, p)).toEqual(c.ciphertext)
    expect(toHex(p.firmware.launchMeasure(handle!).measurement!)).toBe(c.measurement)
    if (c.secret === undefined) return
    const { address, header, data, ciphertext } = c.secret
    const [h, d] = [fromHex(header), fromHex(data)]
    expect(p.firmware.launchSecret(handle!, h, d, address, d.length)).toBe(0)
    const bytes = new Uint8Array(d.length)
    p.memory.read(address, bytes)
    expect(toHex(bytes)).toBe(ciphertext)
  })

  it.each(golden['2016'].map(c => [c.name, c] as const))('2016: %s', (_, c) => {
    const p = platform(c.seed, crypto)
    const { handle } = p.firmware.launchStart({
      edition: '2016',
      policy: c.policy,
      owner: fromHex(c.owner),
      nonce: fromHex(c.nonce),
    })
    expect(encryptPieces(c, handle!, p)).toEqual(c.ciphertext)
    const { status, measurement } = p.firmware.launchFinish2016(handle!, {
      count: c.states.length,
      length: c.vcpuLength,
      mask: fromHex(c.mask),
      states: c.states.map(fromHex),
    })
    expect([status, toHex(measurement!)]).toEqual([0, c.measurement])
  })
})
