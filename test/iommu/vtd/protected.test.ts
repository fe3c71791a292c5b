// Protected memory, VT-d 11.4.8. Requests are refused without a fault.
import { describe, expect, it } from 'vitest'
import { BDF, Bench, GCMD, R2, REG, W2 } from './bench.js'

const PMEN = 0x64
const PLMBASE = 0x68
const PLMLIMIT = 0x6c
const PHMBASE = 0x70
const PHMLIMIT = 0x78
const EPM = 1 << 31
const MB = 1 << 20
const BOTH = { protectedLowMemory: true, protectedHighMemory: true }
const REFUSED = 'status 1'

interface Setup {
  low?: readonly [base: number, limit: number]
  high?: readonly [base: bigint, limit: bigint]
  config?: object
}

/** A unit with regions, enabled. */
function ready({ low, high, config = BOTH }: Setup = {}): Bench {
  const b = new Bench({ config })
  if (low) {
    b.w32(PLMBASE, low[0])
    b.w32(PLMLIMIT, low[1])
  }
  if (high) {
    b.w64(PHMBASE, high[0])
    b.w64(PHMLIMIT, high[1])
  }
  b.w32(PMEN, EPM)
  return b
}
const LOW = { low: [4 * MB, 4 * MB] } as const

/** One mapping of 0x9000 to 5 MB, in a second stage. */
function mapped(b: Bench): number {
  const root = b.alloc()
  b.map2(root, 0x9000n, BigInt(5 * MB) | R2 | W2)
  return root
}

describe('VT-d protected memory registers', () => {
  it.each([
    ['both', BOTH, 3n, EPM | 1, 0xffe0_0000, 0xffff_ffff_ffe0_0000n],
    ['low only', { protectedLowMemory: true }, 1n, EPM | 1, 0xffe0_0000, 0n],
    ['high only', { protectedHighMemory: true }, 2n, EPM | 1, 0, 0xffff_ffff_ffe0_0000n],
    ['none (the default)', {}, 0n, 0, 0, 0n],
  ] as const)(
    '%s: CAP, PMEN, base and limit read back what is there (11.4.2, 11.4.8)',
    (_what, config, cap, pmen, low, high) => {
      const b = new Bench({ config })
      for (const at of [PLMBASE, PLMLIMIT]) b.w32(at, -1)
      for (const at of [PHMBASE, PHMLIMIT]) b.w64(at, 0xffff_ffff_ffff_ffffn)
      b.w32(PMEN, -1)
      expect((b.r64(REG.CAP) >> 5n) & 3n).toBe(cap)
      expect(b.r32(PMEN)).toBe(pmen >>> 0)
      expect([b.r32(PLMBASE), b.r32(PLMLIMIT)]).toEqual([low, low])
      expect([b.r64(PHMBASE), b.r64(PHMLIMIT)]).toEqual([high, high])
    },
  )

  it('PRS follows EPM (11.4.8.1)', () => {
    const b = ready(LOW)
    b.w32(PMEN, 0)
    expect(b.r32(PMEN)).toBe(0)
    expect(b.dma(BigInt(4 * MB))).toBe(4 * MB)
  })
})

describe('VT-d protected memory regions, translation off', () => {
  const high = [0x1_0000_0000n, 0x1_0040_0000n] as const
  // biome-ignore format: table
  it.each([
    ['below low memory', LOW, BigInt(4 * MB - 1), false, '11.4.8.2'],
    ['first byte of low memory', LOW, BigInt(4 * MB), true, '11.4.8.2'],
    ['last byte: limit bits 20:0 are ones', LOW, BigInt(6 * MB - 1), true, '11.4.8.3'],
    ['above low memory', LOW, BigInt(6 * MB), false, '11.4.8.3'],
    ['limit below base: no low region', { low: [8 * MB, 6 * MB] }, BigInt(8 * MB), false, '11.4.8.3'],
    ['base bits 20:0 are ignored', { low: [4 * MB + 4096, 4 * MB + 4096] }, BigInt(4 * MB), true, '11.4.8.2'],
    ['low memory up to 4 GB', { low: [0xffe0_0000, 0xffe0_0000] }, 0xffff_f000n, true, '11.4.8.3'],
    ['below high memory', { high }, 0xffff_f000n, false, '11.4.8.4'],
    ['first byte of high memory', { high }, 0x1_0000_0000n, true, '11.4.8.4'],
    ['last byte of high memory', { high }, 0x1_005f_ffffn, true, '11.4.8.5'],
    ['above high memory', { high }, 0x1_0060_0000n, false, '11.4.8.5'],
    ['limit below base: no high region', { high: [high[1], high[0]] }, high[1], false, '11.4.8.5'],
    ['bits above the host address width are ignored', { high: [high[0] | (1n << 50n), high[1]] }, high[0], true, '11.4.8.4'],
    ['both regions, the low one', { ...LOW, high }, BigInt(4 * MB), true, '11.4.8.1'],
    ['both regions, between them', { ...LOW, high }, BigInt(8 * MB), false, '11.4.8.1'],
    ['a unit without low memory', { ...LOW, config: { protectedHighMemory: true } }, 0n, true, '11.4.8.4'],
    ['a unit without high memory', { ...LOW, config: { protectedLowMemory: true } }, 0n, false, '11.4.8.4'],
  ] as const)('%s', (_what, setup, address, refused, _section) => {
    const b = ready(setup as Setup)
    expect(b.dma(address, { write: true })).toBe(refused ? REFUSED : Number(address))
  })

  it('a blocked request is neither recorded nor reported (11.4.8.1)', () => {
    const b = ready(LOW)
    expect([b.dma(BigInt(4 * MB)), b.dma(BigInt(5 * MB), { pasid: 3 })]).toEqual([REFUSED, REFUSED])
    expect(b.faults).toEqual([])
    expect(b.unit.lastFault).toBeUndefined()
    expect(b.r32(REG.FSTS)).toBe(0)
    expect(b.record(0).f).toBe(false)
  })

  it('registers written while enabled count from the next write of PMEN_REG on', () => {
    const b = ready(LOW)
    b.w32(PLMBASE, 8 * MB)
    b.w32(PLMLIMIT, 8 * MB)
    expect([b.dma(BigInt(4 * MB)), b.dma(BigInt(8 * MB))]).toEqual([REFUSED, 8 * MB])
    b.w32(PMEN, EPM)
    expect([b.dma(BigInt(4 * MB)), b.dma(BigInt(8 * MB))]).toEqual([4 * MB, REFUSED])
  })

  it('answers kept by functions end when protection changes', () => {
    const b = new Bench({ config: BOTH })
    const before = b.unit.answers
    b.w32(PMEN, EPM)
    expect(b.unit.answers).not.toBe(before)
  })

  it('reset ends protection', () => {
    const b = ready(LOW)
    b.unit.reset()
    expect(b.dma(BigInt(4 * MB))).toBe(4 * MB)
  })
})

describe('VT-d protected memory regions, translation on (11.4.8.1)', () => {
  it('blocks legacy pass-through', () => {
    const b = ready(LOW)
    b.legacy(0, { tt: 2n })
    b.enable()
    expect([b.dma(BigInt(5 * MB)), b.dma(BigInt(6 * MB))]).toEqual([REFUSED, 6 * MB])
    expect(b.faults).toEqual([])
  })

  it('blocks scalable-mode pass-through', () => {
    const b = ready(LOW)
    const { directory } = b.scalable()
    b.pasidEntry(directory, 5, [1n | (4n << 6n) | (2n << 2n), 1n, 0n])
    b.enable()
    expect(b.dma(BigInt(5 * MB), { pasid: 5 })).toBe(REFUSED)
    expect(b.dma(BigInt(6 * MB), { pasid: 5 })).toBe(6 * MB)
    expect(b.faults).toEqual([])
  })

  it('blocks translated requests', () => {
    const b = ready(LOW)
    b.legacy(mapped(b), { tt: 1n })
    b.enable()
    expect(b.dma(BigInt(5 * MB), { at: 2 })).toBe(REFUSED)
    expect(b.dma(BigInt(6 * MB), { at: 2 })).toBe(6 * MB)
    expect(b.faults).toEqual([])
  })

  it('a request that its tables refuse is a fault as ever', () => {
    const b = ready(LOW)
    b.legacy(mapped(b))
    b.enable()
    expect(b.dma(BigInt(5 * MB))).toBe('readNotPermitted')
  })

  it('leaves remapped requests to the tables, which hardware may', () => {
    const b = ready(LOW)
    b.legacy(mapped(b))
    b.enable()
    expect([b.dma(0x9000n), b.dma(0x9008n)]).toEqual([5 * MB, 5 * MB + 8])
  })

  it("does not check the unit's own reads of tables and queues", () => {
    const b = ready({ low: [0, 4 * MB] })
    b.startQueue()
    b.legacy(mapped(b), { requester: BDF })
    b.enable()
    expect(b.dma(0x9000n)).toBe(5 * MB)
    b.off(GCMD.TE)
    expect(b.dma(0x9000n)).toBe(REFUSED)
  })
})
