// Random configuration files: each is read, or refused with a SevConfigError that names a place (C-8 to C-11).
import { describe, expect, it } from 'vitest'
import { parseLaunchConfig } from '../../../src/vmm/sev/launch-config.js'
import { objectsOf, objectsOfFile, resolveGuest } from '../../../src/vmm/sev/objects.js'
import { parseNumber, SevConfigError } from '../../../src/vmm/sev/options.js'
import { xorshift } from '../../support/random.js'

const ROUNDS = process.env['VFIO_EMU_LONG'] ? 60_000 : 1500
const KEYS = [
  'flags',
  'policy',
  'dh_pub_qx',
  'dh_pub_qy',
  'nonce',
  'vcpu_count',
  'vcpu_length',
  'vcpu_mask',
]
const OTHER = ['vcpus', 'Flags', 'qom-type', 'launch', '', 'a b', '"']
const VALUES = [
  '0',
  '1',
  '08',
  '017',
  '0x',
  '0xff',
  '4294967295',
  '4294967296',
  '-1',
  '',
  '00ab',
  'abc',
  'zz',
  '00'.repeat(16),
  '00'.repeat(33),
  ' 1',
  '1e3',
  '٣',
  '0b1',
  '99999999999999999999999999',
]
const GROUPS = ['[sev-launch]', '[sev-launch "a"]', '[object "o"]', '[sev]', '[', '[]', '# [x]', '']
const TYPES = [
  'security-policy',
  'sev-guest-info',
  'sev-launch-info',
  'sev-receive-info',
  'sev-policy-info',
  'sev-send-info',
  'sev-x',
]
const PROPERTIES = [
  'id',
  'memory-encryption',
  'launch',
  'receive',
  'send',
  'flags.ks',
  'policy',
  'nonce',
  'debug',
  'fw_major',
  'colour',
]

/** A text that is nearly a file. */
function file(random: (limit: number) => number): string {
  const pick = <T>(from: readonly T[]) => from[random(from.length)]!
  const lines = random(3) > 0 ? ['[sev-launch]'] : []
  for (let n = random(10); n > 0; n--) {
    const kind = random(12)
    if (kind === 0) lines.push(pick(GROUPS))
    else if (kind === 1)
      lines.push(String.fromCharCode(...Array.from({ length: random(12) }, () => random(300))))
    else
      lines.push(
        `${kind === 2 ? pick(OTHER) : pick(KEYS)} = ${kind === 3 ? '' : '"'}${pick(VALUES)}"`,
      )
  }
  return lines.join(pick(['\n', '\n', '\r\n', '\n\n']))
}

describe('random configuration', () => {
  it.each([1, 2])('files, both variants, seed %i', seed => {
    const random = xorshift(seed)
    let [read, refused] = [0, 0]
    for (let n = 0; n < ROUNDS; n++) {
      const text = file(random)
      for (const variant of ['compatible', 'strict'] as const) {
        try {
          const c = parseLaunchConfig(text, 'f', variant)
          read++
          for (const v of [c.flags, c.policy, c.vcpuCount, c.vcpuLength])
            if (!(Number.isInteger(v) && v >= 0 && v <= 0xffff_ffff))
              throw new Error(`${v} in ${text}`)
          const lengths = [c.dhPubQx.length, c.dhPubQy.length, c.nonce.length]
          if (lengths.join() !== '32,32,16' || c.vcpuMask.length > c.vcpuLength)
            throw new Error(text)
        } catch (error) {
          if (!(error instanceof SevConfigError) || !/^f(:\d+)?: /.test(error.message)) throw error
          refused++
        }
      }
    }
    // Both happen, or the draw is no good.
    expect([read > ROUNDS / 50, refused > ROUNDS / 5]).toEqual([true, true])
  })

  it.each([1, 2])('objects, as options and in files, seed %i', seed => {
    const random = xorshift(seed + 10)
    const pick = <T>(from: readonly T[]) => from[random(from.length)]!
    let [read, refused] = [0, 0]
    for (let n = 0; n < ROUNDS; n++) {
      const objects = Array.from({ length: 1 + random(4) }, () => {
        const pairs = Array.from(
          { length: random(4) },
          () => `${pick(PROPERTIES)}=${random(2) ? pick(['a', 'b', 'c', 'on']) : pick(VALUES)}`,
        )
        return [pick(TYPES), ...pairs].join(',')
      })
      try {
        if (random(2)) resolveGuest(objectsOf(objects))
        else resolveGuest(objectsOfFile(file(random).replaceAll('sev-launch', 'object'), 'f'))
        read++
      } catch (error) {
        if (!(error instanceof SevConfigError)) throw error
        refused++
      }
    }
    expect([read > 0, refused > 0]).toEqual([true, true])
  })

  it('every number of 32 bits reads back, in each base', () => {
    const random = xorshift(7)
    for (let n = 0; n < 2000; n++) {
      const v = random(2 ** 32) >>> random(32)
      expect([
        parseNumber(`${v}`),
        parseNumber(`0x${v.toString(16)}`),
        parseNumber(`0${v.toString(8)}`),
      ]).toEqual([v, v, v])
    }
  })
})
