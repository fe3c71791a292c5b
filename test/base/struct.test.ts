import { describe, expect, expectTypeOf, it } from 'vitest'
import { flex, struct, union } from '../../src/base/struct.js'

const inner = struct('struct inner', { a: 'u16', b: 'u64' })
const outer = struct('struct outer', {
  argsz: 'u32',
  tag: 'u8',
  in: inner,
  words: ['u32', 3],
  raw: ['u8', 3],
  data: flex('s32'),
})

describe('struct', () => {
  it('lays members out as an LP64 C compiler does', () => {
    expect(inner.offsets).toEqual({ a: 0, b: 8 })
    expect([inner.size, inner.align]).toEqual([16, 8])
    expect(outer.offsets).toEqual({ argsz: 0, tag: 4, in: 8, words: 24, raw: 36, data: 40 })
    expect(outer.size).toBe(40)
  })
  it('fills argsz with the whole length, the flexible tail included', () => {
    expect(outer().argsz).toBe(40)
    const v = outer({ data: [1, -2, 3] })
    expect([v.argsz, v.bytes.length]).toEqual([52, 52])
    expect([...v.data]).toEqual([1, -2, 3])
    expect(outer({ argsz: 7 }).argsz).toBe(7)
    expect(outer({}, 8).bytes.length).toBe(48)
  })
  it('is its bytes', () => {
    const v = outer({ tag: 0x1ff, in: { a: 1, b: -1n }, words: [1, 2], raw: [9] })
    expectTypeOf(v.in.b).toEqualTypeOf<bigint>()
    expectTypeOf(v.tag).toEqualTypeOf<number>()
    expect(v.tag).toBe(0xff)
    expect(v.in.b).toBe(0xffff_ffff_ffff_ffffn)
    expect([...v.words]).toEqual([1, 2, 0])
    expect([...v.raw]).toEqual([9, 0, 0])
    v.in = inner({ a: 7 })
    v.words.set(2, 5)
    const again = outer.at(v.bytes)
    expect([again.in.a, again.in.b, again.words.get(2)]).toEqual([7, 0n, 5])
    expect(() => v.words.get(3)).toThrow(RangeError)
    expect(() => outer({ raw: [1, 2, 3, 4] })).toThrow(RangeError)
  })
  it('views bytes in place and refuses too few', () => {
    const bytes = new Uint8Array(64)
    outer.at(bytes, 8).in.b = 0x55n
    expect(bytes[8 + 16]).toBe(0x55)
    expect(() => outer.at(bytes, 40)).toThrow('needs 40 bytes')
  })
  it('overlays the members of a union', () => {
    const u = union('union u', { a: 'u32', b: inner })
    expect([u.size, u.align, u.offsets.b]).toEqual([16, 8, 0])
    const v = u()
    v.b.a = 0x1234
    expect(v.a).toBe(0x1234)
  })
  it('refuses a member after the flexible tail', () => {
    expect(() => struct('struct bad', { d: flex('u8'), e: 'u8' })).toThrow('follows')
  })
})
