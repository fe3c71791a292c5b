// What must not compile. The type checker is the judge (`npm run typecheck`); running it shows that the
// constructors refuse at run time what types cannot.
import { describe, expect, expectTypeOf, it } from 'vitest'
import {
  bdf,
  formatBdf,
  type Gpa,
  type Gva,
  gpa,
  gva,
  type Hpa,
  hpa,
  type Iova,
  iova,
  type Pasid,
  parseBdf,
  pasid,
} from '../src/base/addr.js'
import { bank, bits, flag, r32, u64 } from '../src/base/fields.js'
import { RegisterFile } from '../src/base/registers.js'
import { struct } from '../src/base/struct.js'

describe('addresses', () => {
  it('of different kinds do not mix', () => {
    expectTypeOf<Iova>().not.toEqualTypeOf<Gva>()
    const takesIova = (_: Iova) => {}
    const takesHpa = (_: Hpa) => {}
    takesIova(iova(1n))
    // @ts-expect-error a GVA is not an IOVA
    takesIova(gva(1n))
    // @ts-expect-error a bare bigint is not an IOVA
    takesIova(1n)
    takesHpa(hpa(1))
    // @ts-expect-error a GPA is not an HPA
    takesHpa(gpa(1))
    // @ts-expect-error nor is a PASID a physical address
    takesHpa(pasid(1))
    expectTypeOf<Gpa>().toExtend<number>()
    expectTypeOf<Pasid>().toExtend<number>()
  })
  it.each([
    ['pasid', () => pasid(0x10_0000)],
    ['pasid', () => pasid(-1)],
    ['pasid', () => pasid(1.5)],
    ['iova', () => iova(1n << 64n)],
    ['gpa', () => gpa(2 ** 52)],
    ['bdf', () => bdf(256, 0)],
    ['device', () => bdf(0, 32)],
  ])('%s constructors refuse what is out of range', (_, make) => expect(make).toThrow(RangeError))
  it.each([
    ['0000:01:1f.7', 0x1ff],
    ['02:03.4', 0x21c],
    ['0001:00:00.0', undefined],
    ['0000:00:20.0', undefined],
    ['0000:00:00.8', undefined],
    ['zz', undefined],
  ])('reads the PCI address %s', (text, id) => {
    expect(parseBdf(text)).toBe(id)
    if (id !== undefined) expect(formatBdf(id)).toBe(text.length > 8 ? text : `0000:${text}`)
  })
})

describe('tables', () => {
  const B = bank('b', {
    A: r32(0, '1', { F: flag(0, 'rw'), N: bits(5, 1, 'rw'), W: u64(31, 8, 'rw') }),
  })
  it('give each field its type', () => {
    const { regs } = new RegisterFile(B)
    regs.A.F = true
    regs.A.N = 3
    regs.A.W = 5n
    // @ts-expect-error a flag is no number
    regs.A.F = 1
    expect(() => {
      // @ts-expect-error a 64-bit field is a bigint
      regs.A.W = 5
    }).toThrow(TypeError)
    // @ts-expect-error there is no such register
    expect(regs.B).toBeUndefined()
  })
  it('give each struct member its type', () => {
    const S = struct('struct s', { a: 'u32', b: 'u64', c: ['u8', 4] })
    const v = S({ a: 1, b: 2n })
    expectTypeOf(v.a).toEqualTypeOf<number>()
    expectTypeOf(v.b).toEqualTypeOf<bigint>()
    expectTypeOf(v.c).toEqualTypeOf<Uint8Array>()
    // @ts-expect-error there is no member d
    expect(v.d).toBeUndefined()
  })
})
