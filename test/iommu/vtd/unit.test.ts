import { describe, expect, it } from 'vitest'
import { BDF, Bench, descriptor, FULL, GCMD, GSTS, R2, REG, W2 } from './bench.js'

describe("VT-d: a driver's story at the registers", () => {
  it('probe, root pointer, queue, PASID tables, DMA, fault, invalidate, tear down', () => {
    const b = new Bench()
    expect(b.r32(REG.VER) >> 4).toBe(5)
    expect((b.r64(REG.ECAP) >> 43n) & 1n, 'SMTS').toBe(1n)
    expect((b.r64(REG.ECAP) >> 26n) & 1n, 'NEST').toBe(1n)
    expect(b.r32(REG.GSTS)).toBe(0)
    expect(b.dma(0x1234_5678n), 'translation is off').toBe(0x1234_5678)

    b.startQueue()
    expect(b.r32(REG.GSTS) & GSTS.QIES).toBeTruthy()
    const { directory } = b.scalable()
    expect(b.r32(REG.GSTS) & GSTS.RTPS).toBeTruthy()

    // GVA 0x7f00_0000_5000 -> GPA 0x5000 -> HPA 0x80_5000
    const second = b.alloc()
    for (let gpa = 0; gpa < 0x80_0000; gpa += 0x20_0000)
      b.map2(second, BigInt(gpa), BigInt(gpa) | R2 | W2 | 0x80n, { leafLevel: 2 })
    const first = b.alloc()
    const leaf = b.map(first, 0x7f00_0000_5000n, 0x5000n | FULL)
    b.nested(directory, 7, first, second, 3)
    const status = b.alloc()
    b.submit(
      descriptor.contextGlobal(),
      descriptor.pasidCacheGlobal(),
      descriptor.iotlbGlobal(),
      descriptor.wait(status, 1),
    )
    expect(b.memory.readU32(status)).toBe(1)
    b.enable()
    expect(b.r32(REG.GSTS) & GSTS.TES).toBeTruthy()

    expect(b.dma(0x7f00_0000_5abcn, { pasid: 7 })).toBe(0x5abc)
    expect(b.load(leaf) & 0x60n, 'accessed').toBe(0x20n)
    expect(b.dma(0x7f00_0000_5abcn, { pasid: 7, write: true })).toBe(0x5abc)
    expect(b.load(leaf) & 0x60n, 'accessed and dirty').toBe(0x60n)

    expect(b.dma(0x7f00_0000_6000n, { pasid: 7, write: true })).toBe('fsEntryNotPresent')
    expect(b.r32(REG.FSTS) & 3).toBe(2)
    expect(b.record(0)).toMatchObject({
      f: true,
      reason: 0x71,
      sid: BDF,
      address: 0x7f00_0000_6000n,
      pasid: 7,
      type: 0,
    })
    b.w32(REG.FRCD + 12, 0x8000_0000)
    expect(b.r32(REG.FSTS)).toBe(0)

    b.store(leaf, 0n)
    expect(b.dma(0x7f00_0000_5000n, { pasid: 7 }), 'stale until invalidated').toBe(0x5000)
    b.submit(descriptor.pasidIotlbPage(3, 7, 0x7f00_0000_5000n), descriptor.wait(status, 2))
    expect(b.memory.readU32(status)).toBe(2)
    expect(b.dma(0x7f00_0000_5000n, { pasid: 7 })).toBe('fsEntryNotPresent')

    b.off(GCMD.TE)
    b.off(GCMD.QIE)
    expect(b.r32(REG.GSTS) & (GSTS.TES | GSTS.QIES)).toBe(0)
    expect(b.r64(REG.IQH)).toBe(0n)
    expect(b.dma(0x5000n)).toBe(0x5000)
  })
})
