// Posted interrupts, VT-d 5.2 and 9.10 to 9.11.
import { describe, expect, it } from 'vitest'
import { explain } from '../../../src/explain/index.js'
import { UNIT_REQUESTER } from '../../../src/iommu/vtd/events.js'
import type { FaultName } from '../../../src/iommu/vtd/fault-reasons.js'
import { POSTED_DESCRIPTOR, POSTED_IRTE } from '../../../src/iommu/vtd/tables.js'
import { BDF, Bench, descriptor, GCMD, REG } from './bench.js'

const INDEX = 5
const HANDLE = (0xfee0_0010 | (INDEX << 5)) >>> 0
const URG = 1n << 14n
const ON = 1n
const SN = 2n
/** Vector 0xf2 to APIC id 3. */
const CONTROL = (0xf2n << 16n) | (0x300n << 32n)
const NOTIFICATION = { requester: UNIT_REQUESTER, address: 0xfee0_3000, data: 0x40f2 }

/** Remapping on; `entry` writes the IRTE that posts `vector`, `send` makes the function interrupt. */
function ready({ extended = false, config = { postedInterrupts: true } as object } = {}) {
  const b = new Bench({ config })
  b.startQueue()
  const table = b.alloc()
  const pd = b.alloc() + 0x40
  b.w64(REG.IRTA, BigInt(table) | (extended ? 0x800n : 0n) | 7n)
  b.command(GCMD.SIRTP)
  b.command(GCMD.IRE)
  const entry = (vector: number, lo = 0n, hi = 0n, at = BigInt(pd)) => {
    const low = 1n | 0x8000n | (BigInt(vector) << 16n) | ((at & 0xffff_ffc0n) << 32n)
    b.store(table + INDEX * 16, low | lo)
    b.store(table + INDEX * 16 + 8, ((at >> 32n) << 32n) | hi)
  }
  const control = (value = CONTROL) => b.store(pd + 32, value)
  const send = (requester = BDF) => b.unit.message(requester, HANDLE, 0)
  const pir = () => [0, 8, 16, 24].map(o => b.load(pd + o))
  control()
  entry(0x41)
  return { b, table, pd, entry, control, send, pir }
}
type Ready = ReturnType<typeof ready>

describe('VT-d posted interrupts', () => {
  it.each([
    [true, true, 1n],
    [false, true, 0n],
    [true, false, 0n],
  ])(
    'PI %s with interrupt remapping %s: CAP.PI %s (11.4.2)',
    (postedInterrupts, interruptRemapping, pi) => {
      const b = new Bench({ config: { postedInterrupts, interruptRemapping } })
      expect((b.r64(REG.CAP) >> 59n) & 1n).toBe(pi)
    },
  )

  it.each([0, 31, 32, 63, 64, 0x7f, 0x80, 0xc0, 0xff])(
    'vector %i is its bit of PIR and of nothing else (9.11)',
    vector => {
      const m = ready()
      m.entry(vector)
      m.send()
      const want = [0n, 0n, 0n, 0n]
      want[vector >> 6] = 1n << BigInt(vector & 63)
      expect(m.pir()).toEqual(want)
      expect(m.b.load(m.pd + 32)).toBe(CONTROL | ON)
    },
  )

  // biome-ignore format: table
  it.each([
    ['none outstanding, not suppressed', 0n, 0n, 1, ON, '5.2.3'],
    ['outstanding', ON, 0n, 0, ON, '5.2.3'],
    ['suppressed', SN, 0n, 0, SN, '5.2.3'],
    ['suppressed and outstanding', SN | ON, 0n, 0, SN | ON, '5.2.3'],
    ['urgent, none outstanding', 0n, URG, 1, ON, '5.2.3'],
    ['urgent, outstanding', ON, URG, 0, ON, '5.2.3'],
    ['urgent, suppressed', SN, URG, 1, SN | ON, '5.2.3'],
    ['urgent, suppressed and outstanding', SN | ON, URG, 0, SN | ON, '5.2.3'],
  ] as const)('%s: the vector is posted; notified or not', (_what, bits, urgent, notifications, after, _section) => {
    const m = ready()
    m.control(CONTROL | bits)
    m.entry(0x41, urgent)
    m.send()
    expect(m.pir()).toEqual([0n, 2n, 0n, 0n])
    expect(m.b.messages).toEqual(Array(notifications).fill(NOTIFICATION))
    expect(m.b.load(m.pd + 32)).toBe(CONTROL | after)
    expect(m.b.faults).toEqual([])
  })

  it('vectors gather behind one notification until software clears ON (5.2.3)', () => {
    const m = ready()
    m.send()
    m.b.submit(descriptor.entryCache(INDEX))
    m.entry(0x42)
    m.send()
    m.send()
    expect(m.pir()).toEqual([0n, 6n, 0n, 0n])
    expect(m.b.messages).toHaveLength(1)
    m.control()
    m.send()
    expect(m.b.messages).toHaveLength(2)
  })

  it('EIME makes NDST a 32-bit APIC id (9.11)', () => {
    const m = ready({ extended: true })
    m.control((0xf2n << 16n) | (0x12en << 32n))
    m.send()
    expect(m.b.messages[0]).toMatchObject({ address: 0xfee2_e020, data: 0x40f2 })
  })

  it('the descriptor may lie above 4 GB (9.10)', () => {
    const m = ready()
    const high = m.b.memory.addRam(0x1_4000_0000, new Uint8Array(4096))
    high.bytes[32 + 2] = 0xf2
    m.entry(0x41, 0n, 0n, 0x1_4000_0000n)
    m.send()
    expect(high.bytes[8]).toBe(2)
    expect(m.b.messages).toHaveLength(1)
  })

  // biome-ignore format: table
  it.each([
    ['irteReserved', 'bits 7:2', 0x24, '9.10', (m: Ready) => m.entry(0x41, 1n << 2n)],
    ['irteReserved', 'bit 7', 0x24, '9.10', (m: Ready) => m.entry(0x41, 1n << 7n)],
    ['irteReserved', 'bits 13:12', 0x24, '9.10', (m: Ready) => m.entry(0x41, 1n << 13n)],
    ['irteReserved', 'bits 31:24', 0x24, '9.10', (m: Ready) => m.entry(0x41, 1n << 24n)],
    ['irteReserved', 'bits 37:32', 0x24, '9.10', (m: Ready) => m.entry(0x41, 1n << 37n)],
    ['irteReserved', 'bits 95:84', 0x24, '9.10', (m: Ready) => m.entry(0x41, 0n, 1n << 20n)],
    ['irteReserved', 'SVT 3', 0x24, '9.10', (m: Ready) => m.entry(0x41, 0n, 3n << 18n)],
    ['sourceIdRefused', 'SID', 0x26, '5.1.4', (m: Ready) => m.entry(0x41, 0n, (1n << 18n) | 0x0101n)],
    ['postedUnreadable', 'no memory', 0x27, '5.2.3', (m: Ready) => m.entry(0x41, 0n, 0n, 0x7000_0000n)],
    ['postedUnreadable', 'above the host address width', 0x27, '5.2.3', (m: Ready) => m.entry(0x41, 0n, 0n, 1n << 48n)],
    ['postedUnreadable', 'all address bits', 0x27, '5.2.3', (m: Ready) => m.entry(0x41, 0n, 0n, 0xffff_ffff_ffff_ffc0n)],
    ['postedUnreadable', 'registers of a device', 0x27, '5.2.3', (m: Ready) => { m.b.memory.addMmio(0x9000_0000, 4096, m.b.unit, 'unit'); m.entry(0x41, 0n, 0n, 0x9000_0000n) }],
    ['postedReserved', 'bit 258', 0x28, '9.11', (m: Ready) => m.control(CONTROL | 4n)],
    ['postedReserved', 'bit 271', 0x28, '9.11', (m: Ready) => m.control(CONTROL | 0x8000n)],
    ['postedReserved', 'bit 280', 0x28, '9.11', (m: Ready) => m.control(CONTROL | (1n << 24n))],
    ['postedReserved', 'bit 287', 0x28, '9.11', (m: Ready) => m.control(CONTROL | (1n << 31n))],
    ['postedReserved', 'bit 320', 0x28, '9.11', (m: Ready) => m.b.store(m.pd + 40, 1n)],
    ['postedReserved', 'bit 511', 0x28, '9.11', (m: Ready) => m.b.store(m.pd + 56, 1n << 63n)],
    ['postedReserved', 'NDST 7:0 without EIME', 0x28, '9.11', (m: Ready) => m.control(CONTROL | (1n << 32n))],
    ['postedReserved', 'NDST 31:16 without EIME', 0x28, '9.11', (m: Ready) => m.control(CONTROL | (1n << 48n))],
  ] as const)('%s: %s is reason %i (%s); nothing is posted or sent', (name, _what, code, _section, spoil) => {
    const m = ready()
    spoil(m)
    m.send()
    expect(m.b.unit.lastFault).toMatchObject({ name: name as FaultName, access: 'interrupt' })
    expect(m.b.record(0)).toMatchObject({ f: true, reason: code, sid: BDF })
    expect(m.b.record(0).address >> 48n).toBe(BigInt(INDEX))
    expect(m.pir()).toEqual([0n, 0n, 0n, 0n])
    expect(m.b.messages).toEqual([])
  })

  it.each(['postedUnreadable', 'postedReserved'] as const)(
    'FPD keeps %s out of the records (5.1.4.1)',
    name => {
      const m = ready()
      if (name === 'postedReserved') m.control(CONTROL | 4n)
      m.entry(0x41, 2n, 0n, name === 'postedReserved' ? BigInt(m.pd) : 0x7000_0000n)
      m.send()
      expect(m.b.unit.lastFault).toMatchObject({ name, record: 'suppressed' })
      expect(m.b.record(0).f).toBe(false)
    },
  )

  it('without CAP.PI the IM field is reserved (9.9)', () => {
    const m = ready({ config: {} })
    m.send()
    expect(m.b.record(0)).toMatchObject({ f: true, reason: 0x24 })
  })

  it('with CAP.PI, bit 14 of a remapped entry stays reserved (9.9)', () => {
    const m = ready()
    m.b.store(m.table + INDEX * 16, 1n | (0x51n << 16n) | (0x300n << 32n) | URG)
    m.send()
    expect(m.b.record(0)).toMatchObject({ f: true, reason: 0x24 })
  })

  it('a cached entry posts until it is invalidated; the descriptor is read each time (6.2.6)', () => {
    const m = ready()
    m.send()
    m.entry(0x42)
    m.control(CONTROL | SN)
    m.send()
    expect(m.pir()).toEqual([0n, 2n, 0n, 0n])
    expect(m.b.messages).toHaveLength(1)
    m.b.submit(descriptor.entryCache(INDEX))
    m.send()
    expect(m.pir()).toEqual([0n, 6n, 0n, 0n])
  })

  it('a fault shows the entry in the posted format', () => {
    const m = ready()
    m.control(CONTROL | 4n)
    m.send()
    expect(explain(m.b.unit.lastFault!)).toMatch(/VV\s+0x41/)
  })

  it('reads entries and descriptors as the tables declare them (9.10, 9.11)', () => {
    const m = ready()
    const irte = { P: true, IM: true, URG: true, VV: 0x77, PDAL: m.pd >>> 6, SVT: 1, SID: BDF }
    m.b.ram.bytes.set(POSTED_IRTE.create(irte).bytes, m.table + INDEX * 16)
    m.b.ram.bytes.set(POSTED_DESCRIPTOR.create({ NV: 0x33, NDST: 0x900, SN: true }).bytes, m.pd)
    m.send()
    expect(m.pir()).toEqual([0n, 1n << 55n, 0n, 0n])
    expect(m.b.messages).toEqual([
      { requester: UNIT_REQUESTER, address: 0xfee0_9000, data: 0x4033 },
    ])
  })
})
