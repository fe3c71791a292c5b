// The driver's story: probe, reset, queues, tables, enable, DMA, fault, invalidate, tear down.
import { describe, expect, it } from 'vitest'
import type { SmmuConfig } from '../../../src/iommu/smmu/config.js'
import { Bench, CR0, command, GERR, REG, RW, SID, TLBI } from './bench.js'

describe('a driver brings an SMMUv3 up', () => {
  it('probes, enables, attaches, maps, faults, invalidates and tears down', () => {
    const b = new Bench()
    // Probe: what there is.
    const idr0 = b.r32(REG.IDR0)
    expect(idr0 & 3, 'both stages').toBe(3)
    expect((idr0 >> 2) & 3, 'AArch64 tables').toBe(2)
    expect(b.r32(REG.IDR1) & 0x3f, 'SIDSIZE').toBe(16)
    expect((b.r32(REG.IDR1) >> 6) & 0x1f, 'SSIDSIZE').toBe(20)
    expect(b.r32(REG.IDR5) & 7, 'OAS 48 bits').toBe(5)
    expect(b.r32(REG.AIDR), 'SMMUv3.2').toBe(2)

    // Reset: off, and abort while off.
    b.w32(REG.CR0, 0)
    expect(b.r32(REG.CR0ACK)).toBe(0)
    expect(b.dma(0x5000n), 'off, traffic bypasses').toBe(0x5000)
    b.w32(REG.GBPA, 0x8010_0000)
    expect(b.r32(REG.GBPA), 'UPDATE clears itself').toBe(0x10_0000)
    expect(b.dma(0x5000n)).toBe('status 1')

    // Queues and an empty stream table; everything is refused, and says so.
    b.start()
    expect(b.r32(REG.CR0ACK)).toBe(0xf)
    b.submit(command.cfgiAll(), command.tlbi(TLBI.NSNH_ALL), command.sync())
    expect(b.r32(REG.CMDQ_CONS)).toBe(3)
    expect(b.dma(0x5000n)).toBe('C_BAD_STE')
    expect(b.pending()).toMatchObject([{ type: 4, sid: SID }])
    b.consume()

    // Attach a domain, map a page.
    const root = b.stage1({ asid: 7 })
    b.submit(command.cfgiSte(SID), command.sync())
    const leaf = b.map(root, 0x5000n, 0x50_0000n | RW)
    expect(b.dma(0x5004n)).toBe(0x50_0004)
    expect(b.dma(0x6004n, { write: true })).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([{ type: 0x10, sid: SID, rnw: 0, addr: 0x6004n, cls: 2 }])

    // Unmap: stale until invalidated, gone after.
    b.store(leaf, 0n)
    expect(b.dma(0x5004n)).toBe(0x50_0004)
    b.submit(command.tlbiVa(TLBI.NH_VA, 0x5000n, { asid: 7, leaf: 1 }), command.sync())
    expect(b.dma(0x5004n)).toBe('F_TRANSLATION')

    // Tear down.
    b.ste({ config: 0, v: 0 })
    b.submit(command.cfgiSte(SID), command.sync())
    expect(b.dma(0x5004n)).toBe('C_BAD_STE')
    b.w32(REG.CR0, 0)
    expect(b.dma(0x5000n)).toBe('status 1')
    expect(b.r32(REG.GERROR)).toBe(0)
  })
})

describe('registers', () => {
  it.each([
    ['CR1', REG.CR1, 4, 0xd75n, CR0.SMMUEN],
    ['CR2', REG.CR2, 4, 5n, CR0.SMMUEN],
    ['STRTAB_BASE', REG.STRTAB_BASE, 8, 0x4_0000n, CR0.SMMUEN],
    ['STRTAB_BASE_CFG', REG.STRTAB_BASE_CFG, 4, 0x1_0188n, CR0.SMMUEN],
    ['CMDQ_BASE', REG.CMDQ_BASE, 8, 0x4_0004n, CR0.CMDQEN],
    ['CMDQ_CONS', REG.CMDQ_CONS, 4, 5n, CR0.CMDQEN],
    ['EVENTQ_BASE', REG.EVENTQ_BASE, 8, 0x4_0004n, CR0.EVENTQEN],
    ['EVENTQ_PROD', REG.EVENTQ_PROD, 4, 5n, CR0.EVENTQEN],
    ['PRIQ_BASE', REG.PRIQ_BASE, 8, 0x4_0004n, CR0.PRIQEN],
    ['PRIQ_PROD', REG.PRIQ_PROD, 4, 5n, CR0.PRIQEN],
  ] as const)('6.3: %s cannot be written while in use', (_, offset, size, value, enable) => {
    const b = new Bench()
    b.unit.write(offset, size, value)
    expect(b.unit.read(offset, size)).toBe(value)
    b.w32(REG.CR0, enable)
    const held = b.unit.read(offset, size)
    b.unit.write(offset, size, 0n)
    expect(b.unit.read(offset, size)).toBe(held)
    b.w32(REG.CR0, 0)
    b.unit.write(offset, size, 0n)
    expect(b.unit.read(offset, size)).toBe(0n)
  })

  it.each([
    ['GERROR', REG.GERROR_IRQ_CFG0, 1],
    ['PRIQ', REG.PRIQ_IRQ_CFG0, 2],
    ['EVENTQ', REG.EVENTQ_IRQ_CFG0, 4],
  ] as const)(
    '6.3.20: %s_IRQ_CFG cannot be written while its interrupt is enabled',
    (_, at, on) => {
      const b = new Bench()
      b.w64(at, 0xfee0_0000n)
      b.w32(REG.IRQ_CTRL, on)
      expect(b.r32(REG.IRQ_CTRLACK)).toBe(on)
      b.w64(at, 0n)
      expect(b.unit.read(at, 8)).toBe(0xfee0_0000n)
      b.w32(REG.IRQ_CTRL, 0)
      b.w64(at, 0n)
      expect(b.unit.read(at, 8)).toBe(0n)
    },
  )

  it('6.3.14: GBPA changes only with UPDATE', () => {
    const b = new Bench()
    b.w32(REG.GBPA, 0x10_0000)
    expect(b.r32(REG.GBPA)).toBe(0)
    b.w32(REG.GBPA, 0x8000_0000 | 0x10_0000)
    expect(b.r32(REG.GBPA)).toBe(0x10_0000)
  })

  it('6.1: identification is read-only, page 0 has no event queue indices, Secure registers read zero', () => {
    const b = new Bench()
    const before = [REG.IDR0, REG.IDR1, REG.IDR3, REG.IDR5].map(b.r32)
    for (const at of [REG.IDR0, REG.IDR1, REG.IDR3, REG.IDR5, REG.CR0ACK, REG.GERROR])
      b.w32(at, 0xffff_ffff)
    expect([REG.IDR0, REG.IDR1, REG.IDR3, REG.IDR5].map(b.r32)).toEqual(before)
    expect(b.r32(REG.CR0ACK) | b.r32(REG.GERROR)).toBe(0)
    b.w32(REG.EVENTQ_PROD, 3)
    expect(b.r32(0xa8)).toBe(0)
    for (let at = 0x8000; at < 0x8200; at += 4) {
      b.w32(at, 0xffff_ffff)
      expect(b.r32(at)).toBe(0)
    }
  })

  it('reset puts registers, caches, queues and stalls back', () => {
    const b = new Bench().start()
    const root = b.stage1({ s: 1 })
    b.map(root, 0x5000n, 0x50_0000n | RW)
    b.dma(0x5000n)
    b.dma(0x9000n)
    expect(b.unit.stalled).toBe(1)
    b.submit([0xffn, 0n])
    expect(b.r32(REG.GERROR)).toBe(GERR.CMDQ)
    const fresh = new Bench()
    b.unit.reset()
    for (const at of Object.values(REG))
      expect(b.r32(at), `0x${at.toString(16)}`).toBe(fresh.r32(at))
    expect(b.unit.stalled).toBe(0)
    expect(b.unit.lastFault).toBeUndefined()
    expect(b.dma(0x5000n)).toBe(0x5000)
  })

  it.each([
    [{ stage2: false }, REG.IDR0, 1, 0],
    [{ stage1: false }, REG.IDR0, 2, 0],
    [{ ats: false }, REG.IDR0, (1 << 10) | (1 << 16) | (1 << 11), 0],
    [{ pri: false }, REG.IDR0, 1 << 16, 0],
    [{ splitStageAts: false }, REG.IDR0, 1 << 11, 1 << 11],
    [{ stallModel: 1 as const }, REG.IDR0, 3 << 24, 1 << 24],
    [{ stallModel: 1 as const }, REG.IDR5, 0xffff_0000, 0],
    [{ tableUpdates: 'accessed' as const }, REG.IDR0, 3 << 6, 1 << 6],
    [{ twoLevelStreamTables: false }, REG.IDR0, 3 << 27, 0],
    [{ twoLevelCdTables: false }, REG.IDR0, 1 << 19, 0],
    [{ substreamIdBits: 0 }, REG.IDR1, 0x7c0, 0],
    [{ granules: [12 as const] }, REG.IDR5, 0x70, 0x10],
    [{ outputAddressBits: 40 as const }, REG.IDR5, 7, 2],
    [{ rangeInvalidation: false }, REG.IDR3, 1 << 10, 0],
    [{ hyp: false }, REG.IDR0, 1 << 9, 0],
    [{ minorVersion: 1 as const }, REG.AIDR, 0xf, 1],
  ])('%j shows in the register at %i', (config, register, mask, value) => {
    expect(new Bench({ config }).r32(register) & mask).toBe(value | 0)
    expect(new Bench().r32(register) & mask, 'and is different by default').not.toBe(value | 0)
  })

  it.each([
    { stage1: false, stage2: false },
    { granules: [] },
    { granules: [13] },
    { minorVersion: 0 },
    { outputAddressBits: 50 },
    { virtualAddressBits: 49 },
    { tableUpdates: 'some' },
    { stallModel: 3 },
    { streamIdBits: 33 },
    { substreamIdBits: 21 },
    { commandQueueBits: 20 },
    { stalls: 0 },
  ])('refuses %j', config => {
    expect(() => new Bench({ config: config as Partial<SmmuConfig> })).toThrow('SMMUv3: ')
  })
})
