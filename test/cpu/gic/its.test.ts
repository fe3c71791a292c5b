// LPIs and the ITS: tables, queue and commands in guest memory (IHI 0069H chapter 5).
import { describe, expect, it } from 'vitest'
import { xorshift } from '../../support/random.js'
import { COLLECTIONS, DEVICES, gicWorld, ITT, PENDING, PROPERTIES, QUEUE } from './world.js'

const VALID = 1n << 63n

/** An ITS with device 0x108, whose events 0 to 3 are LPIs 8192 to 8195 on processor 0. */
function routed(options: Parameters<typeof gicWorld>[0] = {}) {
  const w = gicWorld(options)
  for (let cpu = 0; cpu < w.gic.processors.length; cpu++) w.lpis(cpu)
  w.itsOn()
  w.mapc(0, 0)
  w.mapd(0x108)
  for (let event = 0; event < 4; event++) w.mapti(0x108, event, 8192 + event, 0)
  return w
}

describe('an event of a device (5.2)', () => {
  it('becomes an LPI, which is taken once and has no active state', () => {
    const w = routed()
    expect(w.gic.its!.refused).toBe(0)
    expect(w.gic.its!.translate(0x108, 2)).toBe('delivered')
    expect([w.inputs(), w.icc('IAR1'), w.icc('RPR')]).toEqual(['irq', 8194, 0xa0])
    w.gic.its!.translate(0x108, 2)
    expect(w.inputs()).toBe('')
    w.setIcc('EOIR1', 8194)
    expect([w.icc('IAR1'), w.icc('IAR1')]).toEqual([8194, 1023])
  })

  it.each([
    ['of a device that has no entry', 0x109, 0, 'device not mapped'],
    ['of a device beyond the table', 0x201, 0, 'device out of range'],
    ['of a device beyond device ids', 0x1_0108, 0, 'device out of range'],
    ['beyond its translation table', 0x108, 32, 'event out of range'],
    ['that has no entry', 0x108, 9, 'event not mapped'],
  ])('%s comes to nothing', (_, device, event, why) => {
    const w = routed()
    expect(w.gic.its!.translate(device, event)).toBe(why)
    expect(w.inputs()).toBe('')
  })

  it('comes to nothing while the ITS is off, and neither do processors reach GITS_TRANSLATER', () => {
    const w = routed()
    w.gic.its!.write(0x1_0040, 4, 0n)
    expect(w.inputs()).toBe('')
    w.gic.its!.write(0, 4, 0n)
    expect(w.gic.its!.translate(0x108, 0)).toBe('disabled')
  })

  it('goes through a two-level device table', () => {
    const w = routed()
    w.gic.its!.write(0, 4, 0n)
    w.its64(0x100, VALID | (1n << 62n) | BigInt(DEVICES))
    w.memory.store(DEVICES + 8, 8, VALID | BigInt(DEVICES + 0x4000))
    w.gic.its!.write(0, 4, 1n)
    expect(w.gic.its!.translate(0x208, 0)).toBe('device not mapped')
    w.mapd(0x208, 5, ITT + 0x100)
    w.mapti(0x208, 0, 8200, 0)
    expect(w.gic.its!.translate(0x208, 0)).toBe('delivered')
    expect(w.memory.load(DEVICES + 0x4000 + 8 * 8, 8) >> 63n).toBe(1n)
    expect(w.gic.its!.translate(0x408, 0)).toBe('device out of range')
  })
})

describe("tables lie in guest memory in KVM's layout", () => {
  it.each([
    [
      'device: V, ITT >> 8 at bit 5, size',
      DEVICES + 0x108 * 8,
      VALID | (BigInt(ITT >> 8) << 5n) | 4n,
    ],
    ['collection: V, processor at bit 16, id', COLLECTIONS, VALID],
    ['event: LPI at bit 16, collection', ITT + 8, 8193n << 16n],
  ])('%s', (_, at, entry) => {
    expect(routed().memory.load(at, 8)).toBe(entry)
  })

  it.each([
    ['a processor that is not there', COLLECTIONS, VALID | (77n << 16n), 'no such processor'],
    ['a collection beyond the table', ITT, (8192n << 16n) | 0xffffn, 'collection out of range'],
    ['a collection that is not mapped', ITT, (8192n << 16n) | 5n, 'collection not mapped'],
    [
      'a translation table without memory',
      DEVICES + 0x108 * 8,
      VALID | (0xfff_ffff_fffn << 5n),
      'event not mapped',
    ],
  ])('what a guest wrote there is checked: %s', (_, at, entry, why) => {
    const w = routed()
    w.memory.store(at, 8, entry)
    expect(w.gic.its!.translate(0x108, 0)).toBe(why)
  })

  it('an LPI that no table covers is not delivered', () => {
    const w = routed()
    w.memory.store(ITT, 8, 7n << 16n)
    w.gic.its!.translate(0x108, 0)
    expect(w.inputs()).toBe('')
  })
})

describe('commands (5.3)', () => {
  it('INT and CLEAR make an LPI pending and not', () => {
    const w = routed()
    w.command('INT', w.device(0x108), 1n)
    expect(w.inputs()).toBe('irq')
    w.command('CLEAR', w.device(0x108), 1n)
    expect(w.inputs()).toBe('')
  })

  it("MOVI takes a pending LPI to another collection's processor", () => {
    const w = routed({ processors: 2 })
    w.mapc(1, 1)
    w.command('INT', w.device(0x108), 1n)
    w.command('MOVI', w.device(0x108), 1n, 1n)
    expect([w.inputs(0), w.inputs(1), w.icc('IAR1', 1)]).toEqual(['', 'irq', 8193])
    expect(w.gic.its!.translate(0x108, 1)).toBe('delivered')
    expect(w.gic.processors[1]!.redistributor.lpis.pending.size).toBe(1)
  })

  it("MOVALL takes all of a processor's pending LPIs to another", () => {
    const w = routed({ processors: 2 })
    for (const event of [0n, 1n, 2n]) w.command('INT', w.device(0x108), event)
    w.command('MOVALL', 0n, 0n, 0n, 1n << 16n)
    const pending = w.gic.processors.map(p => p.redistributor.lpis.pending.size)
    expect(pending).toEqual([0, 3])
  })

  it('MOVALL to and fro, a queue full of it over every LPI there is, costs a guest nothing of ours', () => {
    const w = routed({ processors: 2 })
    w.gic.its!.write(0, 4, 0n)
    w.its64(0x80, VALID | BigInt(QUEUE) | 15n)
    w.its64(0x88, 0n)
    const { lpis } = w.gic.processors[0]!.redistributor
    for (let intid = 8192; intid < 65536; intid++) lpis.set(intid)
    for (let i = 0; i < 2047; i++) {
      w.memory.store(QUEUE + i * 32, 8, 0x0en)
      w.memory.store(QUEUE + i * 32 + 16, 8, BigInt(i & 1) << 16n)
      w.memory.store(QUEUE + i * 32 + 24, 8, BigInt(~i & 1) << 16n)
    }
    w.its64(0x88, 2047n * 32n)
    w.gic.its!.write(0, 4, 1n)
    const pending = w.gic.processors.map(p => p.redistributor.lpis.pending.size)
    expect([pending, w.gic.its!.refused]).toEqual([[0, 57_344], 0])
    expect(w.inputs(1)).toBe('irq')
  })

  it('of pending LPIs the highest priority is taken first, as their configurations now say', () => {
    const w = routed()
    const configure = (intid: number, value: number) => {
      w.memory.write(PROPERTIES + intid - 8192, Uint8Array.of(value))
      w.gic.processors[0]!.redistributor.write(0xa0, 8, BigInt(intid))
    }
    for (const event of [0, 1, 2, 3]) w.gic.its!.translate(0x108, event)
    const order: number[] = []
    configure(8194, 0x41)
    configure(8193, 0xfd)
    configure(8192, 0x20)
    for (let i = 0; i < 4; i++) {
      const intid = w.icc('IAR1')
      order.push(intid)
      if (intid !== 1023) w.setIcc('EOIR1', intid)
    }
    // 8193 has the lowest priority, which the mask of 0xf8 keeps out; 8192 is disabled.
    expect(order).toEqual([8194, 8195, 1023, 1023])
    configure(8193, 0xf5)
    configure(8192, 0xa1)
    expect([w.icc('IAR1'), w.icc('HPPIR1')]).toEqual([8192, 8193])
  })

  it('DISCARD takes the mapping and the pending state away; MAPD without V the device', () => {
    const w = routed()
    w.command('INT', w.device(0x108), 1n)
    w.command('DISCARD', w.device(0x108), 1n)
    expect([w.inputs(), w.gic.its!.translate(0x108, 1)]).toEqual(['', 'event not mapped'])
    w.command('MAPD', w.device(0x108))
    expect(w.gic.its!.translate(0x108, 0)).toBe('device not mapped')
  })

  it('MAPI makes the event its own LPI', () => {
    const w = routed()
    w.mapd(0x10, 14)
    w.command('MAPI', w.device(0x10), 8300n)
    w.gic.its!.translate(0x10, 8300)
    expect(w.icc('IAR1')).toBe(8300)
  })

  it('a configuration is cached until INV, INVALL, INVLPIR or INVALLR', () => {
    const w = routed({ processors: 1 })
    const at = PROPERTIES + 0
    const set = (value: number) => w.memory.write(at, Uint8Array.of(value))
    w.gic.its!.translate(0x108, 0)
    expect(w.inputs()).toBe('irq')
    const seen = []
    for (const invalidate of [
      () => w.command('INV', w.device(0x108), 0n),
      () => w.command('INVALL'),
      () => w.gic.processors[0]!.redistributor.write(0xa0, 8, 8192n),
      () => w.gic.processors[0]!.redistributor.write(0xb0, 8, 0n),
    ]) {
      set(0)
      seen.push(w.inputs())
      invalidate()
      seen.push(w.inputs())
      set(1)
      w.command('INVALL')
      seen.push(w.inputs())
    }
    expect(seen).toEqual(Array(4).fill(['irq', '', 'irq']).flat())
  })

  it.each([
    ['MAPD beyond the table', 'MAPD', [0x300n << 32n, 4n, VALID], 'device out of range'],
    ['MAPD with 17 bits', 'MAPD', [0x10n << 32n, 16n, VALID], 'table size out of range'],
    [
      'MAPC of a collection beyond the table',
      'MAPC',
      [0n, 0n, VALID | 0x300n],
      'collection out of range',
    ],
    [
      'MAPC to a processor that is not there',
      'MAPC',
      [0n, 0n, VALID | (9n << 16n)],
      'no such processor',
    ],
    [
      'MAPTI of an id below LPIs',
      'MAPTI',
      [0x108n << 32n, (8191n << 32n) | 5n],
      'interrupt id out of range',
    ],
    [
      'MAPTI of an id above LPIs',
      'MAPTI',
      [0x108n << 32n, (65536n << 32n) | 5n],
      'interrupt id out of range',
    ],
    ['MAPTI of an unmapped device', 'MAPTI', [0x10n << 32n, 8192n << 32n], 'device not mapped'],
    [
      'MAPTI to a collection beyond the table',
      'MAPTI',
      [0x108n << 32n, 8192n << 32n, 0x300n],
      'collection out of range',
    ],
    ['MOVI of an unmapped event', 'MOVI', [0x108n << 32n, 9n, 0n], 'event not mapped'],
    ['MOVI to an unmapped collection', 'MOVI', [0x108n << 32n, 0n, 3n], 'collection not mapped'],
    [
      'DISCARD of an event whose collection is gone',
      'DISCARD',
      [0x108n << 32n, 7n],
      'collection not mapped',
    ],
    ['INVALL of an unmapped collection', 'INVALL', [0n, 0n, 3n], 'collection not mapped'],
    [
      'MOVALL to a processor that is not there',
      'MOVALL',
      [0n, 0n, 0n, 9n << 16n],
      'no such processor',
    ],
    ['a number that is no command', 0x7f, [0n], 'unknown command'],
  ] as const)('%s is skipped, and the queue goes on', (_, name, dwords, why) => {
    const w = routed()
    w.mapti(0x108, 7, 8200, 5)
    w.command(name, ...dwords)
    expect([w.gic.its!.refused, w.gic.its!.lastRefusal]).toEqual([1, why])
    w.command('INT', w.device(0x108), 0n)
    expect(w.inputs()).toBe('irq')
    expect(w.its64(0x90)).toBe(w.its64(0x88))
  })

  it('a queue without memory is passed over; one that is not valid is not read', () => {
    const w = gicWorld()
    w.itsOn()
    w.gic.its!.write(0, 4, 0n)
    w.its64(0x80, VALID | 0x4000_0000n)
    w.gic.its!.write(0, 4, 1n)
    w.its64(0x88, 64n)
    expect([w.gic.its!.refused, w.its64(0x90)]).toEqual([2, 64n])
    w.its64(0x88, 0xf_ffe0n)
    expect(w.its64(0x90)).toBe(64n)
  })
})

describe('registers of an ITS (12.19)', () => {
  it.each([
    ['CTLR: quiescent', 0x0, 4, 0x8000_0000n],
    ['TYPER: 16-bit ids, 8-byte entries, processor numbers', 0x8, 8, 0x1_ef71n],
    ['BASER0: devices', 0x100, 8, 0x0107_0000_0000_0200n],
    ['BASER1: collections', 0x108, 8, 0x0407_0000_0000_0200n],
    ['BASER2: none', 0x110, 8, 0n],
    ['TRANSLATER', 0x1_0040, 4, 0n],
  ] as const)('%s', (_, offset, size, value) => {
    expect(gicWorld().gic.its!.read(offset, size)).toBe(value)
  })

  it('table and queue addresses stay while the ITS is on; CBASER puts CREADR back', () => {
    const w = routed()
    const before = w.its64(0x80)
    w.its64(0x80, 0n)
    expect(w.its64(0x80)).toBe(before)
    w.gic.its!.write(0, 4, 0n)
    expect(w.its64(0x90)).not.toBe(0n)
    w.its64(0x80, VALID | BigInt(QUEUE))
    expect(w.its64(0x90)).toBe(0n)
  })

  it('KVM restores CREADR, and nothing runs twice', () => {
    const w = routed()
    const its = w.gic.its!
    const [queue, reader, writer] = [0x80, 0x90, 0x88].map(o => its.userRead(o)!)
    its.reset()
    expect(its.userRead(0x90)).toBe(0n)
    its.userWrite(0x80, queue!)
    its.userWrite(0x90, reader!)
    its.userWrite(0x88, writer!)
    its.userWrite(0x100, VALID | BigInt(DEVICES))
    its.userWrite(0x108, VALID | BigInt(COLLECTIONS))
    its.userWrite(0, 1n)
    expect([its.refused, its.translate(0x108, 0)]).toEqual([0, 'delivered'])
    expect([its.userRead(0x20), its.userWrite(0x20, 0n), its.userWrite(4, 0n)]).toEqual([
      undefined,
      false,
      false,
    ])
  })
})

describe('pending tables (5.1.2)', () => {
  const byteAt = (w: ReturnType<typeof gicWorld>, intid: number) =>
    Number(w.memory.load(PENDING + (intid >> 3), 1))

  it('are read when LPIs are enabled, unless PTZ says they are empty', () => {
    for (const [ptz, seen] of [
      [0n, 8200],
      [1n << 62n, 1023],
    ] as const) {
      const w = gicWorld()
      w.memory.write(PENDING + (8200 >> 3), Uint8Array.of(1))
      w.memory.write(PROPERTIES, new Uint8Array(64).fill(0xa1))
      const { redistributor } = w.gic.processors[0]!
      redistributor.write(0x70, 8, BigInt(PROPERTIES | 15))
      redistributor.write(0x78, 8, BigInt(PENDING) | ptz)
      redistributor.write32(0, 1)
      expect(w.icc('IAR1')).toBe(seen)
    }
  })

  it('are written when LPIs are disabled, and when KVM asks; the first 1 KB is left alone', () => {
    const w = routed()
    w.memory.write(PENDING, Uint8Array.of(0x5a))
    w.gic.its!.translate(0x108, 3)
    expect(byteAt(w, 8195)).toBe(0)
    expect(w.gic.writePendingTables()).toBe(true)
    expect(byteAt(w, 8195)).toBe(8)
    w.gic.its!.translate(0x108, 0)
    w.redist(0, 0)
    expect([byteAt(w, 8192), byteAt(w, 0), w.inputs()]).toEqual([9, 0x5a, ''])
    w.redist(0, 1)
    expect(w.icc('IAR1')).toBe(8192)
  })

  it('table addresses stay while LPIs are on', () => {
    const w = routed()
    w.gic.processors[0]!.redistributor.write(0x78, 8, 0n)
    expect(w.gic.processors[0]!.redistributor.read(0x78, 8)).toBe(BigInt(PENDING))
  })

  it('of which there is no memory hold nothing, and saving says so', () => {
    const w = gicWorld()
    const { redistributor } = w.gic.processors[0]!
    redistributor.write(0x78, 8, 0x4000_0000n)
    redistributor.write(0x70, 8, 0x4000_000fn)
    redistributor.write32(0, 1)
    expect(w.inputs()).toBe('')
    redistributor.lpis.set(8192)
    expect([w.inputs(), w.gic.writePendingTables()]).toEqual(['', false])
  })
})

it('a saved GIC has its pending LPIs', () => {
  const from = routed()
  from.gic.its!.translate(0x108, 1)
  const to = gicWorld()
  to.memory.write(PROPERTIES, new Uint8Array(64).fill(0xa1))
  to.gic.restore(from.gic.save())
  expect(to.icc('IAR1')).toBe(8193)
})

it('a guest that writes what it likes into tables and queue breaks nothing (seed 21)', () => {
  const w = routed({ processors: 2 })
  const draw = xorshift(21)
  const dword = () => (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32))
  for (let i = 0; i < 5000; i++) {
    const at = [DEVICES, COLLECTIONS, ITT, PROPERTIES][draw(4)]! + 8 * draw(512)
    w.memory.store(at, 8, draw(2) ? dword() : VALID | (dword() & 0xffff_ffffn))
    w.command(draw(16), dword() & 0x1ff_0000_0000n, dword(), dword(), dword())
    w.gic.its!.translate(draw(0x220), draw(64))
    if (w.inputs(draw(2)) === 'irq') expect(w.icc('IAR1', 0)).not.toBe(0)
  }
  for (const { redistributor } of w.gic.processors)
    for (const intid of redistributor.lpis.pending)
      expect(intid >= 8192 && intid < 65536).toBe(true)
})
