import { describe, expect, expectTypeOf, it } from 'vitest'
import {
  bank,
  bankInfo,
  bits,
  flag,
  oneOf,
  page,
  r8,
  r16,
  r32,
  r64,
  u64,
} from '../../src/base/fields.js'
import { RegisterFile } from '../../src/base/registers.js'

// biome-ignore format: table
const DEMO = bank('demo', {
  ID:   r32(0x00, '1.1', { MAJOR: bits(7, 4, 'ro', 'major'), MINOR: bits(3, 0, 'ro', 'minor') }, 0x21n),
  CTL:  r32(0x04, '1.2', { GO: flag(31, 'wo', 'start'), MODE: oneOf(2, 1, { off: 0, on: 1 }, 'rw'), EN: flag(0, 'rw') }),
  STS:  r32(0x08, '1.3', { ERR: flag(4, 'rw1c', 'error'), BUSY: flag(0, 'ro') }),
  PTR:  r64(0x10, '1.4', { ADDR: page(63, 12, 'rw', 'base'), SIZE: bits(2, 0, 'rw') }),
  DATA: r64(0x18, '1.5', { V: u64(63, 0, 'rw') }),
  BYTE: r8(0x20, '1.6', { A: bits(7, 0, 'rw') }),
  HALF: r16(0x22, '1.7', { SET: bits(15, 0, 'rw1s') }),
})

describe('bank', () => {
  it('refuses registers that collide, are misaligned, or fields that overlap or leave their register', () => {
    expect(() => bank('x', { A: r32(0, '', {}), B: r16(2, '', {}) })).toThrow('collides')
    expect(() => bank('x', { A: r32(2, '', {}) })).toThrow('misaligned')
    expect(() => r32(0, 's', { A: bits(4, 0, 'rw'), B: flag(4, 'rw') })).toThrow('overlaps')
    expect(() => r32(0, 's', { A: flag(32, 'rw') })).toThrow('leaves')
  })
  it('knows its name and size', () => expect(bankInfo(DEMO)).toEqual({ name: 'demo', size: 0x28 }))
})

describe('RegisterFile', () => {
  it('gives typed live accessors to the model, which no access rule binds', () => {
    const { regs } = new RegisterFile(DEMO)
    expectTypeOf(regs.CTL.EN).toEqualTypeOf<boolean>()
    expectTypeOf(regs.PTR.ADDR).toEqualTypeOf<number>()
    expectTypeOf(regs.DATA.V).toEqualTypeOf<bigint>()
    expect([regs.ID.MAJOR, regs.ID.MINOR]).toEqual([2, 1])
    regs.STS.BUSY = true
    regs.PTR.ADDR = 0xf_1234_5678_9000
    expect(regs.PTR.ADDR).toBe(0xf_1234_5678_9000)
    expect(regs.PTR.$value).toBe(0xf_1234_5678_9000n)
    expect(regs.STS.BUSY).toBe(true)
  })
  it('keeps address bits 51 and below of a wider printed field', () => {
    const file = new RegisterFile(DEMO)
    file.write(0x10, 8, 0xffff_ffff_ffff_ffffn)
    expect(file.regs.PTR.ADDR).toBe(0xf_ffff_ffff_f000)
    expect(file.regs.PTR.SIZE).toBe(7)
  })
  it('ignores writes to read-only and undeclared bits, clears write-one bits, sets write-one-to-set bits', () => {
    const file = new RegisterFile(DEMO)
    file.write(0x00, 4, 0xffff_ffffn)
    expect(file.read(0x00, 4)).toBe(0x21n)
    file.regs.STS.ERR = true
    file.write(0x08, 1, 0x00n)
    expect(file.regs.STS.ERR).toBe(true)
    file.write(0x08, 1, 0x10n)
    expect(file.regs.STS.ERR).toBe(false)
    file.write(0x22, 2, 0x0f00n)
    file.write(0x22, 2, 0x0001n)
    expect(file.read(0x22, 2)).toBe(0x0f01n)
  })
  it('shows write-only bits to the handler once and never reads them back', () => {
    const seen: [boolean, number, bigint][] = []
    const file: RegisterFile<typeof DEMO> = new RegisterFile(DEMO, {
      onWrite: { CTL: w => void seen.push([w.GO, w.MODE, w.$value]) },
    })
    file.write(0x04, 4, 0x8000_0003n)
    file.write(0x04, 1, 0x01n)
    expect(seen).toEqual([
      [true, 1, 0x8000_0003n],
      [false, 0, 1n],
    ])
    expect(file.read32(0x04)).toBe(1)
  })
  it.each([1, 2, 4, 8])('answers %i-byte accesses at every offset byte by byte', size => {
    const file = new RegisterFile(DEMO)
    file.write(0x18, 8, 0x8877_6655_4433_2211n)
    file.regs.BYTE.A = 0x99
    const whole = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0, 0, 0, 0, 0, 0, 0]
    for (let at = 0; at + size <= 16; at++) {
      const want = whole.slice(at, at + size).reduceRight((v, b) => (v << 8n) | BigInt(b), 0n)
      expect(file.read(0x18 + at, size)).toBe(want)
    }
  })
  it('lets one write straddle two registers, each seeing its own bytes', () => {
    const file = new RegisterFile(DEMO)
    file.write(0x1c, 8, 0x0000_0042_dead_beefn)
    expect(file.regs.DATA.V).toBe(0xdead_beef_0000_0000n)
    expect(file.regs.BYTE.A).toBe(0x42)
  })
  it('reads zero and ignores writes outside every register', () => {
    const file = new RegisterFile(DEMO)
    file.write(0x0c, 4, 0xffff_ffffn)
    file.write(0x1000, 8, 1n)
    expect(file.read(0x0c, 4)).toBe(0n)
    expect(file.read(0x24, 8)).toBe(0n)
  })
  it('refreshes a register before software reads any of its bytes', () => {
    let n = 0
    const file: RegisterFile<typeof DEMO> = new RegisterFile(DEMO, {
      onRead: {
        DATA: () => {
          file.regs.DATA.V = BigInt(++n)
        },
      },
    })
    expect(file.read(0x18, 4)).toBe(1n)
    expect(file.read32(0x18)).toBe(2)
    expect(file.read32(0x20)).toBe(0)
  })
  it('restores what it saved and returns to reset values', () => {
    const file = new RegisterFile(DEMO)
    file.regs.DATA.V = 5n
    const saved = file.save()
    file.reset()
    expect([file.regs.DATA.V, file.regs.ID.MAJOR]).toEqual([0n, 2])
    file.restore(saved)
    expect(file.regs.DATA.V).toBe(5n)
    expect(() => file.restore(new Uint8Array(3))).toThrow('3 bytes')
  })
})
