// A processor under a memory key: what the guest reads, what lies in memory, and what everybody else sees.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, SevGuest } from './guest.js'

const SHARED = 0x3_0000
const MAPPED_TWICE = 0x3_1000

/** A launched guest with code, and with some pages shared. */
function launched(code: string, ...shared: number[]): SevGuest {
  const g = new SevGuest()
  g.code(code)
  g.encryptTables(...shared)
  g.launch()
  return g
}

describe('C-23 one store of ciphertext', () => {
  it('a private write is read back by the guest, and memory holds ciphertext', () => {
    // movl $0x11223344,0x20000; mov 0x20000,%eax; out %eax,$0x10
    const g = launched('c7 04 25 00 00 02 00 44 33 22 11 8b 04 25 00 00 02 00 e7 10')
    expect(g.answer()).toBe(0x11223344)
    expect(g.view.getUint32(AT.DATA, true)).not.toBe(0x11223344)
    expect([...g.peek(AT.DATA, 8)]).toEqual([0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0])
  })

  it('a shared write is what memory holds', () => {
    // movl $0x11223344,0x30000; mov 0x30000,%eax; out %eax,$0x10
    const g = launched('c7 04 25 00 00 03 00 44 33 22 11 8b 04 25 00 00 03 00 e7 10', SHARED)
    expect(g.answer()).toBe(0x11223344)
    expect(g.view.getUint32(SHARED, true)).toBe(0x11223344)
  })

  it('one page mapped both ways in one run: written private, read shared as the ciphertext that lies there', () => {
    const g = new SevGuest()
    // movl $1,0x20000; mov 0x31000,%eax; out %eax,$0x10; movl $2,0x20000; mov 0x31000,%eax; out; mov 0x20000,%eax; out
    g.code(
      'c7 04 25 00 00 02 00 01 00 00 00 8b 04 25 00 10 03 00 e7 10 ' +
        'c7 04 25 00 00 02 00 02 00 00 00 8b 04 25 00 10 03 00 e7 10 8b 04 25 00 00 02 00 e7 10',
    )
    g.encryptTables()
    g.map(MAPPED_TWICE, BigInt(AT.DATA) | 3n)
    g.launch()
    const first = g.answer()
    expect(first).toBe(g.view.getUint32(AT.DATA, true))
    expect(first).not.toBe(1)
    const second = g.answer()
    expect(second).toBe(g.view.getUint32(AT.DATA, true))
    expect(second).not.toBe(first)
    expect(g.answer()).toBe(2)
  })

  it('written shared and read private: garbage that is the same each time, never the plaintext', () => {
    const g = new SevGuest()
    // mov 0x20000,%eax (private); movl $7,0x31000 (shared); mov 0x20000,%eax; out; mov 0x20000,%eax; out
    g.code(
      '8b 04 25 00 00 02 00 c7 04 25 00 10 03 00 07 00 00 00 8b 04 25 00 00 02 00 e7 10 8b 04 25 00 00 02 00 e7 10',
    )
    g.encryptTables()
    g.map(MAPPED_TWICE, BigInt(AT.DATA) | 3n)
    g.launch()
    const [first, again] = [g.answer(), g.answer()]
    expect(first).not.toBe(7)
    expect(again).toBe(first)
    expect(g.view.getUint32(AT.DATA, true)).toBe(7)
  })

  it('what the host writes between two runs is ciphertext to the guest, block by block', () => {
    // out %al,$0x20; mov 0x20000,%eax; out; mov 0x20010,%eax; out
    const g = launched('e6 20 8b 04 25 00 00 02 00 e7 10 8b 04 25 10 00 02 00 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    g.view.setUint32(AT.DATA, 0x1234, true)
    expect(g.answer()).not.toBe(0x1234)
    expect(g.answer()).toBe(0)
  })
})
