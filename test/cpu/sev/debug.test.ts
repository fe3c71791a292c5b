// KVM_SEV_DBG_DECRYPT and DBG_ENCRYPT: checks in order, and every size at every offset (C-21, C-22).
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { xorshift } from '../../support/random.js'
import { OK, SevGuest, UNTOUCHED } from './guest.js'

const { KVM_SEV_DBG_DECRYPT: DECRYPT, KVM_SEV_DBG_ENCRYPT: ENCRYPT } = uapi
const PAGE = 4096
const refused = (errno: string) => ({ errno, code: UNTOUCHED })

function launched(policy = 0) {
  const g = new SevGuest()
  g.launch(policy, 2 * PAGE)
  return g
}

describe('C-21 checks, in order', () => {
  it.each([DECRYPT, ENCRYPT])(
    'command %i of a VM that is no SEV guest: ENOTTY, whatever it says',
    id => {
      expect(new SevGuest({}, { type: 0 }).command(id, 0x1000n)).toEqual(refused('ENOTTY'))
    },
  )

  // biome-ignore format: table
  it.each([
    ['a structure that is not readable', 'pointer', 0n,  0n,  16, refused('EFAULT')],
    ['length 0',                         '',        1n,  1n,  0,  refused('EINVAL')],
    ['a null source',                    '',        0n,  1n,  16, refused('EINVAL')],
    ['a null destination',               '',        1n,  0n,  16, refused('EINVAL')],
    ['a source that wraps',              '',        -16n, 1n, 17, refused('EINVAL')],
    ['a destination that wraps',         '',        1n, -16n, 17, refused('EINVAL')],
    ['a source that is not mapped',      '',        2n,  1n,  16, refused('ENOMEM')],
    ['a destination that is not mapped', '',        1n,  2n,  16, refused('ENOMEM')],
  ] as const)('%s', (_, what, source, target, length, outcome) => {
    const g = launched()
    const room = g.sys.mmap(PAGE)
    const at = (n: bigint, good: bigint) =>
      n === 1n ? good : n === 2n ? 0x1000_0000n : n < 0n ? BigInt.asUintN(64, n) : 0n
    for (const id of [DECRYPT, ENCRYPT]) {
      if (what === 'pointer') expect(g.command(id, 0x1000n)).toEqual(outcome)
      else expect(g.debug(id, at(source, g.vaddr), at(target, room.vaddr), length)).toEqual(outcome)
    }
    expect(g.host.frames.pins).toBe(0)
  })

  it('C-22 a policy that forbids: firmware code 7, and no byte changes', () => {
    const g = launched(1)
    const room = g.sys.mmap(PAGE)
    const before = g.ram.slice(0, PAGE)
    for (const length of [16, 5]) {
      expect(g.debug(DECRYPT, g.vaddr, room.vaddr, length)).toEqual({ errno: 'EIO', code: 7 })
      expect(g.debug(ENCRYPT, room.vaddr, g.vaddr, length)).toEqual({ errno: 'EIO', code: 7 })
    }
    expect(room.bytes.every(b => b === 0)).toBe(true)
    expect(g.ram.subarray(0, PAGE)).toEqual(before)
  })

  it('a length of 4 GiB ends at the first page that is not there, and pins nothing', () => {
    const g = launched()
    const room = g.sys.mmap(PAGE)
    expect(g.debug(DECRYPT, g.vaddr, room.vaddr, 0xffff_ffff)).toEqual(refused('ENOMEM'))
    expect(g.host.frames.pins).toBe(0)
  })
})

describe('C-21 any size at any offset', () => {
  const sizes = [1, 8, 15, 16, 17, 32, 33, PAGE - 1, PAGE, PAGE + 1]
  const small = [0, 1, 8, 15, 16, 23]
  const offsets = [...small, ...small.map(x => PAGE - 24 + x)]

  it.each(sizes)('%i bytes, from and to each offset', size => {
    const g = launched()
    const data = g.sys.mmap(2 * PAGE)
    const back = g.sys.mmap(2 * PAGE)
    const random = xorshift(size)
    const model = g.peek(0, 2 * PAGE)
    for (const from of offsets) {
      for (const to of offsets) {
        if (from + size > 2 * PAGE || to + size > 2 * PAGE) continue
        const byte = random(256)
        data.bytes.fill(byte, from, from + size)
        model.fill(byte, to, to + size)
        expect(g.debug(ENCRYPT, data.vaddr + BigInt(from), g.vaddr + BigInt(to), size)).toEqual(OK)
        back.bytes.fill(0)
        const source = g.vaddr + BigInt(to)
        expect(g.debug(DECRYPT, source, back.vaddr + BigInt(from), size)).toEqual(OK)
        const window = back.bytes.subarray(Math.max(0, from - 16), from + size + 16)
        const first = Math.min(from, 16)
        const inside = (i: number) => i >= first && i < first + size
        const wrong = window.findIndex((b, i) => b !== (inside(i) ? byte : 0))
        expect(wrong, `from ${from} to ${to}`).toBe(-1)
      }
    }
    expect(g.peek(0, 2 * PAGE)).toEqual(model)
  })
})

describe('what debugging sees', () => {
  it('the guest reads what was encrypted into its memory, and what it writes is decrypted', () => {
    const g = new SevGuest()
    // out %al,$0x20; mov 0x20004,%eax; out %eax,$0x10; movl $0x55667788,0x20008; out %al,$0x20
    g.code('e6 20 8b 04 25 04 00 02 00 e7 10 c7 04 25 08 00 02 00 88 77 66 55 e6 20')
    g.encryptTables()
    g.launch()
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    const word = g.sys.mmap(PAGE)
    word.bytes.set([1, 2, 3, 4])
    g.must(g.debug(ENCRYPT, word.vaddr, g.vaddr + 0x2_0004n, 4))
    expect(g.answer()).toBe(0x04030201)
    g.enter()
    expect([...g.peek(0x2_0000, 12)]).toEqual([0, 0, 0, 0, 1, 2, 3, 4, 0x88, 0x77, 0x66, 0x55])
  })
})
