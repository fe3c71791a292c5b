import { describe, expect, it } from 'vitest'
import type { FaultName } from '../../../src/iommu/vtd/fault-reasons.js'
import { IRTE } from '../../../src/iommu/vtd/tables.js'
import { BDF, Bench, descriptor, GCMD, REG } from './bench.js'

/** Remapping on, 256 entries; `entry` writes IRTE words. */
function ready({ extended = false, size = 7n } = {}) {
  const b = new Bench()
  b.startQueue()
  const table = b.alloc()
  b.w64(REG.IRTA, BigInt(table) | (extended ? 0x800n : 0n) | size)
  b.command(GCMD.SIRTP)
  b.command(GCMD.IRE)
  const entry = (index: number, lo: bigint, hi = 0n) => {
    b.store(table + index * 16, lo)
    b.store(table + index * 16 + 8, hi)
  }
  return { b, entry, table }
}
/** The address of a remappable interrupt request, VT-d figure 5-2. */
const remappable = (handle: number, subhandle = false) =>
  (0xfee0_0010 | ((handle & 0x7fff) << 5) | ((handle >> 15) << 2) | (subhandle ? 8 : 0)) >>> 0

/** Vector 0x51 to APIC id 3, fixed, edge. */
const PLAIN = 1n | (0x51n << 16n) | (0x300n << 32n)

describe('VT-d interrupt remapping', () => {
  it('passes messages as they are while it is off', () => {
    const b = new Bench()
    b.unit.message(BDF, 0xfee0_1010, 0x31)
    expect(b.messages).toEqual([{ requester: BDF, address: 0xfee0_1010, data: 0x31 }])
  })

  it('delivers what the entry says', () => {
    const { b, entry } = ready()
    entry(5, PLAIN)
    b.unit.message(BDF, remappable(5), 0)
    expect(b.messages).toEqual([{ requester: BDF, address: 0xfee0_3000, data: 0x4051 }])
  })

  it.each([
    [
      'delivery mode, level, logical, hint',
      PLAIN | (1n << 2n) | (1n << 3n) | (1n << 4n) | (1n << 5n),
      0xfee0_300c,
      0xc151,
    ],
  ])('%s', (_what, lo, address, data) => {
    const { b, entry } = ready()
    entry(5, lo)
    b.unit.message(BDF, remappable(5), 0)
    expect(b.messages[0]).toMatchObject({ address, data })
  })

  it('adds the subhandle to the handle', () => {
    const { b, entry } = ready()
    entry(7, PLAIN)
    b.unit.message(BDF, remappable(5, true), 2)
    expect(b.messages).toHaveLength(1)
  })

  it('takes 32-bit APIC ids in extended mode', () => {
    const { b, entry } = ready({ extended: true })
    entry(0, 1n | (0x51n << 16n) | (0x12en << 32n))
    b.unit.message(BDF, remappable(0), 0)
    expect(b.messages[0]).toMatchObject({ address: 0xfee2_e020 })
  })

  it('lets compatibility format through with CFI only', () => {
    const { b } = ready()
    b.unit.message(BDF, 0xfee0_1000, 0x31)
    expect(b.messages).toEqual([])
    expect(b.record(0)).toMatchObject({ reason: 0x25, sid: BDF })
    b.command(GCMD.CFI)
    b.unit.message(BDF, 0xfee0_1000, 0x31)
    expect(b.messages).toHaveLength(1)
  })

  it('extended mode blocks compatibility format even with CFI', () => {
    const { b } = ready({ extended: true })
    b.command(GCMD.CFI)
    b.unit.message(BDF, 0xfee0_1000, 0x31)
    expect(b.messages).toEqual([])
  })

  // biome-ignore format: table
  it.each([
    ['interruptReserved', 0x20, 3, (m: ReturnType<typeof ready>) => m.b.unit.message(BDF, remappable(3, true), 0x10000)],
    ['interruptIndexTooLarge', 0x21, 256, (m: ReturnType<typeof ready>) => m.b.unit.message(BDF, remappable(256), 0)],
    ['irteNotPresent', 0x22, 4, (m: ReturnType<typeof ready>) => m.b.unit.message(BDF, remappable(4), 0)],
    ['irteUnreadable', 0x23, 4, (m: ReturnType<typeof ready>) => { m.b.w64(REG.IRTA, 0x7000_0007n); m.b.command(GCMD.SIRTP); m.b.unit.message(BDF, remappable(4), 0) }],
    ['irteReserved', 0x24, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN | (1n << 12n)); m.b.unit.message(BDF, remappable(4), 0) }],
    ['irteReserved', 0x24, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN | (1n << 15n)); m.b.unit.message(BDF, remappable(4), 0) }],
    ['irteReserved', 0x24, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN | (1n << 32n)); m.b.unit.message(BDF, remappable(4), 0) }],
    ['irteReserved', 0x24, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN, 3n << 18n); m.b.unit.message(BDF, remappable(4), 0) }],
    ['irteReserved', 0x24, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN, 1n << 20n); m.b.unit.message(BDF, remappable(4), 0) }],
    ['sourceIdRefused', 0x26, 4, (m: ReturnType<typeof ready>) => { m.entry(4, PLAIN, (1n << 18n) | 0x0101n); m.b.unit.message(BDF, remappable(4), 0) }],
  ] as const)('%s is recorded as reason %i with index %i', (name, code, index, provoke) => {
    const m = ready()
    provoke(m)
    expect(m.b.messages).toEqual([])
    expect(m.b.unit.lastFault).toMatchObject({ name: name as FaultName, access: 'interrupt' })
    expect(m.b.record(0)).toMatchObject({ f: true, reason: code, sid: BDF })
    expect(m.b.record(0).address >> 48n).toBe(BigInt(index))
  })

  // biome-ignore format: table
  it.each([
    ['no validation', 0n, 0x4321, true],
    ['the same source', (1n << 18n) | 0x0100n, 0x0100, true],
    ['another source', (1n << 18n) | 0x0100n, 0x0104, false],
    ['SQ 1 ignores bit 2', (1n << 18n) | (1n << 16n) | 0x0100n, 0x0104, true],
    ['SQ 1 keeps bit 1', (1n << 18n) | (1n << 16n) | 0x0100n, 0x0102, false],
    ['SQ 3 ignores the function', (1n << 18n) | (3n << 16n) | 0x0100n, 0x0107, true],
    ['inside a bus range', (2n << 18n) | 0x0103n, 0x0288, true],
    ['outside a bus range', (2n << 18n) | 0x0103n, 0x0400, false],
  ] as const)('source id check: %s', (_what, hi, requester, passes) => {
    const { b, entry } = ready()
    entry(1, PLAIN, hi)
    b.unit.message(requester, remappable(1), 0)
    expect(b.messages.length === 1).toBe(passes)
  })

  it.each([
    ['all', descriptor.entryCache(), true],
    ['the index', descriptor.entryCache(5), true],
    ['a range with it', descriptor.entryCache(4, 1), true],
    ['a range beside it', descriptor.entryCache(6, 1), false],
    ['a wide range', descriptor.entryCache(0, 15), true],
  ] as const)('a cached entry is used until %s is invalidated', (_what, d, drops) => {
    const { b, entry } = ready()
    entry(5, PLAIN)
    b.unit.message(BDF, remappable(5), 0)
    entry(5, 0n)
    b.unit.message(BDF, remappable(5), 0)
    expect(b.messages).toHaveLength(2)
    b.submit(d)
    b.unit.message(BDF, remappable(5), 0)
    expect(b.messages).toHaveLength(drops ? 2 : 3)
  })

  it('FPD keeps a fault out of the records', () => {
    const { b, entry } = ready()
    entry(4, 2n)
    b.unit.message(BDF, remappable(4), 0)
    expect(b.record(0).f).toBe(false)
    expect(b.unit.lastFault).toMatchObject({ record: 'suppressed' })
  })

  it('reads entries as the table declares them', () => {
    const { b, table } = ready()
    b.ram.bytes.set(
      IRTE.create({ P: true, V: 0x77, DST: 0x900, DLM: 1, SVT: 1, SID: BDF }).bytes,
      table,
    )
    b.unit.message(BDF, remappable(0), 0)
    expect(b.messages[0]).toMatchObject({ address: 0xfee0_9000, data: 0x4177 })
  })
})
