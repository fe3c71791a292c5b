// Nonsense of every kind, drawn from a seed: nothing throws, hangs, or reads outside memory.
import { describe, expect, it } from 'vitest'
import { often } from '../../support/long.js'
import { watched } from '../watched.js'
import { Bench, descriptor, FULL, GCMD, REG } from './bench.js'

/** Mulberry32. */
function random(seed: number) {
  let a = seed
  const next = () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
  return {
    next,
    below: (n: number) => next() % n,
    big: () => (BigInt(next()) << 32n) | BigInt(next()),
    pick: <T>(of: readonly T[]): T => of[next() % of.length]!,
  }
}

const seeds = Array.from({ length: often(4, 40) }, (_, i) => i + 1)
/** What is off by default. */
const EVERYTHING = { postedInterrupts: true, protectedLowMemory: true, protectedHighMemory: true }

describe('VT-d under fuzz', () => {
  it.each(seeds)('register writes of any size anywhere, seed %i', seed => {
    const b = new Bench({ ramBytes: 2 << 20, config: seed % 2 ? {} : EVERYTHING })
    watched(b.memory)
    b.memory.addMmio(0xfed9_0000, 0x1000, b.unit, 'unit')
    const r = random(seed)
    const interesting = [...Object.values(REG), 0x64, 0x68, 0x70, 0x78]
    for (let i = 0; i < 3000; i++) {
      const size = r.pick([1, 2, 4, 8] as const)
      const offset = r.below(4) ? r.pick(interesting) + r.below(2) * 4 : r.below(0x1000)
      if (r.below(3) === 0) b.unit.read(offset, size)
      else {
        const value = r.below(2) ? r.big() : BigInt(r.below(0x20_0000))
        b.unit.write(offset, size, BigInt.asUintN(size * 8, value))
      }
      if (r.below(8) === 0)
        b.dma(r.big(), {
          ...(r.below(2) && { pasid: r.below(1 << 20) }),
          write: r.below(2) === 1,
          at: r.pick([0, 2] as const),
        })
      if (r.below(16) === 0)
        b.unit.message(r.below(0x10000), 0xfee0_0000 + r.below(0x10_0000), r.next())
      for (let n = 0; n < 3 && b.clock.step(); n++);
    }
    expect(b.clock.pending).toBeLessThanOrEqual(1)
  })

  it.each(seeds)('random tables: every request is answered, seed %i', seed => {
    const b = new Bench({ ramBytes: 1 << 20 })
    watched(b.memory)
    const r = random(seed)
    const words = b.ram.words
    const fill = () => {
      // Entries that mostly point somewhere in RAM, often with plausible low bits.
      for (let i = 0; i < words.length; i += 2) {
        const wild = r.below(16) === 0
        words[i] = wild
          ? r.next()
          : (r.below(256) << 12) |
            (r.below(2) ? r.pick([1, 3, 7, 0x83, 0x1d, 0x49, 0x89, 0xc9, 0x101]) : r.next() & 0xfff)
        words[i + 1] = wild ? r.next() : r.below(8) ? 0 : r.below(4)
      }
    }
    const outcomes = new Set<string>()
    for (let round = 0; round < 6; round++) {
      fill()
      b.w64(
        REG.RTADDR,
        BigInt(r.below(256) << 12) | BigInt(r.pick([0, 0x400, 0x400, 0x400, 0xc00, 0x800])),
      )
      b.command(GCMD.SRTP)
      b.enable()
      for (let i = 0; i < 500; i++) {
        const pasid = r.below(4) ? { pasid: r.below(1 << r.below(21)) } : {}
        const options = {
          ...pasid,
          write: r.below(2) === 1,
          execute: r.below(4) === 0,
          privileged: r.below(4) === 0,
          requester: r.below(0x10000),
        }
        const va = r.below(2) ? r.big() : BigInt(r.below(0x4000_0000))
        const answer = r.below(3) ? b.dma(va, options) : b.ats(va, options)
        outcomes.add(typeof answer === 'number' ? 'translated' : answer.split(' ')[0]!)
        if (typeof answer === 'number') expect(answer).toBeGreaterThanOrEqual(0)
        if (r.below(10) === 0)
          b.unit.pageRequest({
            requester: options.requester,
            pasid: options.pasid ?? -1,
            hi: 0,
            lo: r.next() & -4096,
            read: true,
            write: false,
            execute: false,
            privileged: false,
            prgIndex: r.below(512),
            last: r.below(2) === 1,
          })
      }
    }
    expect(outcomes.size).toBeGreaterThan(3)
  })

  it.each(seeds)('random interrupt entries: remapped, posted or refused, seed %i', seed => {
    const b = new Bench({ ramBytes: 2 << 20, config: EVERYTHING })
    watched(b.memory)
    const r = random(seed)
    const table = b.alloc()
    b.w64(REG.IRTA, BigInt(table) | (seed % 2 ? 0x800n : 0n) | 7n)
    b.command(GCMD.SIRTP)
    b.command(GCMD.IRE)
    const outcomes = new Set<string>()
    for (let i = 0; i < 4000; i++) {
      const at = table + r.below(256) * 16
      const wild = r.below(8) === 0
      const where = BigInt((r.below(8) ? r.below(1 << 20) : r.next() >>> 4) & ~63)
      b.store(at, wild ? r.big() : (where << 32n) | BigInt(r.pick([1, 0x8001, 0xc001, 0x51_8003])))
      b.store(at + 8, wild ? r.big() : 0n)
      if (r.below(4) === 0) b.store(Number(where) + 32, BigInt(r.pick([0, 1, 2, 3, 4, 0xf2_0000])))
      const { length } = b.faults
      b.unit.message(r.below(0x10000), 0xfee0_0010 + (((at - table) >> 4) << 5), 0)
      outcomes.add(b.faults[length]?.name ?? 'delivered')
      if (r.below(4) === 0) b.command(GCMD.SIRTP)
    }
    expect([...outcomes]).toEqual(
      expect.arrayContaining(['delivered', 'irteReserved', 'postedReserved', 'postedUnreadable']),
    )
  })

  it.each(seeds)('random descriptors: the queue ends or stops, seed %i', seed => {
    const b = new Bench({ ramBytes: 2 << 20 })
    watched(b.memory)
    const r = random(seed)
    b.startQueue(seed % 2 === 0, 1)
    if (seed % 2 === 0) b.scalable()
    const step = seed % 2 === 0 ? 32 : 16
    for (let round = 0; round < 200; round++) {
      for (let at = 0; at < 8192; at += 8)
        b.store(b.queue + at, r.below(3) ? r.big() & 0xffff_0000_0000_0fffn : r.big())
      for (let at = 0; at < 8192; at += step)
        b.store(b.queue + at, (b.load(b.queue + at) & ~0xe0fn) | BigInt(r.below(10)))
      b.completes = r.below(4) !== 0
      b.w64(REG.IQT, BigInt(r.below(8192 / step) * step))
      b.w32(REG.FSTS, 0x71)
      expect(b.r64(REG.IQH)).toBeLessThan(8192n)
    }
    expect(b.clock.pending).toBe(0)
  })

  it.each(seeds)('any order of maps, unmaps and invalidations equals a flush, seed %i', seed => {
    const b = new Bench()
    b.startQueue()
    const { directory } = b.scalable()
    const r = random(seed)
    const fs = b.alloc()
    const ss = b.alloc()
    for (let gpa = 0; gpa < 0x100_0000; gpa += 0x20_0000)
      b.map2(ss, BigInt(gpa), BigInt(gpa) | 0x83n, { leafLevel: 2 })
    b.nested(directory, 5, fs, ss, 3)
    b.enable()
    const va = (page: number) => 0x4000_0000n + BigInt(page) * 4096n
    const now = new Map<number, number>()
    const leaf = new Map<number, number>()
    for (let i = 0; i < 400; i++) {
      const page = r.below(24)
      if (r.below(3)) {
        const to = 0x50_0000 + r.below(64) * 4096
        if (!leaf.has(page)) leaf.set(page, b.map(fs, va(page), 0n))
        b.store(leaf.get(page)!, BigInt(to) | FULL)
        now.set(page, to)
      } else if (now.has(page)) {
        b.store(leaf.get(page)!, 0n)
        now.delete(page)
      }
      // Invalidate exactly what changed, in some way that covers it.
      b.submit(
        r.pick([
          descriptor.pasidIotlbPage(3, 5, va(page)),
          descriptor.pasidIotlbPage(3, 5, va(page & ~7), 3),
          descriptor.pasidIotlb(3, 5),
          descriptor.iotlbDomain(3),
          descriptor.iotlbGlobal(),
        ]),
      )
      const look = r.below(24)
      for (const p of [page, look])
        expect(b.dma(va(p), { pasid: 5, write: r.below(2) === 1 })).toBe(
          now.get(p) ?? 'fsEntryNotPresent',
        )
    }
  })
})
