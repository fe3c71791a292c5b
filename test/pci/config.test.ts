import { describe, expect, it } from 'vitest'
import { RegisterFile } from '../../src/base/registers.js'
import { ConfigSpace } from '../../src/pci/config-space.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import { TYPE0 } from '../../src/pci/headers.js'
import { host } from './host.js'
import { probe } from './probe.js'

describe('configuration space', () => {
  it('reads zero and ignores writes where nothing is', () => {
    const c = new ConfigSpace()
    c.write(0x200, 4, 0xffff_ffff)
    expect(c.read(0x200, 4)).toBe(0)
  })

  it.each([1, 2, 3, 4])('reads %i bytes at any offset as the bytes that are there', size => {
    const { fn } = probe()
    const bytes = fn.config.dump()
    for (let at = 0; at < 0x140; at++) {
      let want = 0
      for (let i = size - 1; i >= 0; i--) want = want * 256 + bytes[at + i]!
      expect(fn.config.read(at, size)).toBe(want)
    }
  })

  it('writes byte by byte as it writes at once', () => {
    const one = probe().fn.config
    const two = probe().fn.config
    for (let at = 0; at < 0x140; at += 4) {
      // PMCSR, Initiate FLR and the enables act at once, so a write in halves is another story.
      if ([0x48, 0x84].includes(at)) continue
      const value = (at * 0x0101_0101) >>> 0
      one.write(at, 4, value)
      for (let i = 0; i < 4; i++) two.write(at + i, 1, (value >>> (8 * i)) & 0xff)
    }
    expect(two.dump()).toEqual(one.dump())
  })

  it('reads ones beyond its end, and refuses parts that collide', () => {
    const c = new ConfigSpace()
    expect(c.read(4094, 4)).toBe(0xffff_0000)
    c.place(0, new RegisterFile(TYPE0))
    expect(() => c.place(0x3c, new RegisterFile(TYPE0))).toThrow('taken')
    expect(() => c.place(4092, new RegisterFile(TYPE0))).toThrow('fit')
  })

  it('survives 20000 random accesses through ECAM, seed 11, and a reset brings the defaults back', () => {
    const h = host(svaEngine)
    const fn = h.functions[0]!
    const fresh = fn.save()
    fn.reset()
    const defaults = fn.config.dump()
    let s = 11
    const random = () => {
      s = (Math.imul(s, 1_664_525) + 1_013_904_223) >>> 0
      return s >>> 4
    }
    const sizes = [1, 2, 4, 8] as const
    const base = 0xe000_0000 + fn.bdf * 4096
    for (let i = 0; i < 20_000; i++) {
      const size = sizes[random() % 4]!
      const at = base + ((random() % 0x140) & -size)
      if (random() % 4) h.memory.store(at, size, (BigInt(random()) << 36n) ^ BigInt(random()))
      else h.memory.load(at, size)
      h.memory.load(0xc000_0000 + (random() % 0x10_0000), 4)
    }
    fn.reset()
    expect(fn.config.dump()).toEqual(defaults)
    fn.restore(fresh)
    expect(fn.bars[0]!.enabled).toBe(true)
  })
})

describe('Base Address Registers', () => {
  it.each([
    [0, 0xffff_f000],
    [1, 0],
    [2, 0xffff_f000],
    [3, 0],
    [4, 0xffff_8000],
    [5, 0],
  ])('BAR %i of the sva-engine sizes as 0x%s', (index, mask) => {
    const fn = host(svaEngine).functions[0]!
    fn.config.write(4, 2, 0)
    fn.config.write(0x10 + index * 4, 4, 0xffff_ffff)
    expect(fn.config.read(0x10 + index * 4, 4)).toBe(mask)
    fn.config.write(0x10 + index * 4 + 1, 1, 0x5a)
    expect(fn.config.read(0x10 + index * 4, 4)).toBe(
      mask && ((mask & ~0xff00) | (0x5a00 & mask)) >>> 0,
    )
  })

  it('decode where they are, only with Memory Space Enable, in the function and the bridge', () => {
    const p = probe()
    const at = p.fn.bars[0]!.address()
    const read = () => p.h.memory.load(at, 4)
    expect(read()).toBe(0x55n)
    p.fn.config.write(4, 2, 4)
    expect(read()).toBe(0xffff_ffffn)
    p.fn.config.write(4, 2, 6)
    p.bridge.config.write(4, 2, 4)
    expect(read()).toBe(0xffff_ffffn)
    p.bridge.config.write(4, 2, 6)
    p.bridge.config.write(0x20, 4, 0x0000_fff0)
    expect(read()).toBe(0xffff_ffffn)
    p.bridge.config.write(0x20, 4, 0xdff0_c000)
    expect(read()).toBe(0x55n)
    p.fn.config.write(0x10, 4, 0xd000_0000)
    expect(read()).toBe(0xffff_ffffn)
    expect(p.h.memory.load(0xd000_0000, 4)).toBe(0x55n)
  })

  it('answer ones to an access that leaves them', () => {
    const p = probe()
    const at = p.fn.bars[0]!.address()
    expect(p.h.memory.load(at + 0xffc, 4)).toBe(0n)
    const end = at + 0x1000
    expect(p.h.memory.load(p.fn.bars[2]!.address() + 0x1000, 4)).toBe(0xffff_ffffn)
    expect(end).toBeGreaterThan(at)
  })
})

describe('function-level reset', () => {
  it('resets header, capabilities and the device, and keeps its identity', () => {
    const p = probe()
    const id = p.fn.config.read(0, 4)
    p.fn.config.write(0x40 + 8, 2, 0x8000)
    expect(p.resets()).toBe(1)
    expect(p.fn.config.read(0, 4)).toBe(id)
    expect(p.fn.config.read(4, 2)).toBe(0)
    expect(p.fn.config.read(0x10, 4)).toBe(0)
    expect(p.fn.config.read(p.cap(0x0f) + 6, 2)).toBe(0)
    expect(p.fn.config.read(0x48, 2)).toBe(0x2810)
    expect(p.fn.pasid!.enabled).toBe(false)
  })

  it('reaches everything below a port by Secondary Bus Reset', () => {
    const p = probe()
    p.bridge.config.write(0x3e, 2, 0x40)
    expect(p.resets()).toBe(1)
    expect(p.bridge.config.read(4, 2)).toBe(6)
  })
})

describe('power management', () => {
  it('D3hot stops decoding, D0 brings it back without a reset; D1 and D2 do not exist', () => {
    const p = probe()
    const pmcsr = p.cap(1, false) + 4
    const at = p.fn.bars[0]!.address()
    p.fn.config.write(pmcsr, 2, 1)
    expect(p.fn.config.read(pmcsr, 2)).toBe(8)
    p.fn.config.write(pmcsr, 2, 3)
    expect(p.h.memory.load(at, 4)).toBe(0xffff_ffffn)
    expect(p.fn.config.read(pmcsr, 2)).toBe(11)
    p.fn.config.write(pmcsr, 2, 0)
    expect(p.h.memory.load(at, 4)).toBe(0x55n)
    expect(p.resets()).toBe(0)
  })
})

describe('save and restore', () => {
  it('carry configuration, enables and device registers to a function made the same way', () => {
    const [one, two] = [probe(), probe()]
    one.h.memory.store(one.fn.bars[0]!.address(), 4, 0x1234n)
    one.fn.config.write(4, 2, 2)
    two.fn.restore(one.fn.save())
    expect(two.fn.config.dump()).toEqual(one.fn.config.dump())
    expect(two.h.memory.load(two.fn.bars[0]!.address(), 4)).toBe(0x1234n)
    expect(two.fn.masterEnabled).toBe(false)
    expect(() => two.fn.restore(host(svaEngine).ports[0]!.save())).toThrow()
  })
})
