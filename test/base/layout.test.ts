import { describe, expect, it } from 'vitest'
import { explain } from '../../src/base/explain.js'
import { bits, flag, layout, oneOf, page, u64 } from '../../src/base/fields.js'

// biome-ignore format: table
const ENTRY = layout('demo entry', 16, {
  WIDE:  u64(127, 80,  'a 48-bit number'),
  CROSS: bits(70, 58,  'crosses a word'),
  ROOT:  page(51, 12,  'table'),
  MODE:  oneOf(3, 1,   { abort: 0, bypass: 4 }, 'what to do'),
  P:     flag(0,       'present'),
})

describe('layout', () => {
  it('refuses fields that overlap or leave the structure', () => {
    expect(() => layout('x', 8, { A: flag(64) })).toThrow('leaves')
    expect(() => layout('x', 8, { A: bits(3, 0), B: flag(2) })).toThrow('overlaps')
  })
  it('reads and writes fields exactly where the table says', () => {
    const e = ENTRY.create({
      P: true,
      MODE: 4,
      ROOT: 0x1_2345_6000,
      CROSS: 0x1abc,
      WIDE: 0xfedc_ba98_7654n,
    })
    const view = new DataView(e.bytes.buffer)
    const want = 1n | (4n << 1n) | 0x1_2345_6000n | (0x1abcn << 58n) | (0xfedc_ba98_7654n << 80n)
    expect(view.getBigUint64(0, true)).toBe(want & 0xffff_ffff_ffff_ffffn)
    expect(view.getBigUint64(8, true)).toBe(want >> 64n)
    expect([e.P, e.MODE, e.ROOT, e.CROSS, e.WIDE]).toEqual([
      true,
      4,
      0x1_2345_6000,
      0x1abc,
      0xfedc_ba98_7654n,
    ])
  })
  it('leaves every other bit alone when one field is written', () => {
    const e = ENTRY.at(new Uint8Array(16).fill(0xff))
    e.CROSS = 0
    e.P = false
    expect(e.WIDE).toBe(0xffff_ffff_ffffn)
    expect(e.ROOT).toBe(0xf_ffff_ffff_f000)
    expect(e.bytes[0]).toBe(0xfe)
    expect([e.bytes[7], e.bytes[8]]).toEqual([0x03, 0x80])
  })
  it('prints field by field, high bit first, with names of values', () => {
    const e = ENTRY.create({ P: true, MODE: 4, ROOT: 0x1000 })
    expect(explain(e)).toBe(
      [
        'demo entry',
        '  51:12  ROOT  0x1000  table',
        '    3:1  MODE  bypass  what to do',
        '      0  P     1       present',
      ].join('\n'),
    )
    e.MODE = 7
    expect(explain(e)).toContain('7 (reserved)')
    expect(explain(e, { all: true }).split('\n')).toHaveLength(6)
  })
})
