// The virtual SMMUv3 in front of nesting containers, played by hand: what a guest's registers, tables and commands become
// on the host (N13), and what the devices' faults become in the guest.
import { describe, expect, it } from 'vitest'
import { CMD } from '../../../src/iommu/smmu/commands.js'
import { iommu_fault } from '../../../src/uapi.js'
import { eventRecord } from '../../../src/vmm/arm64/fault-records.js'
import { PRI } from './support.js'
import {
  CONTEXTS,
  CR0,
  cfgiSte,
  EVENTQ_CONS,
  EVENTQ_PROD,
  EVENTS,
  GBPA,
  ON,
  RAM,
  REQUESTS,
  request,
  STREAM,
  STREAMS,
  world,
} from './world.js'

describe('the stage in front of a device', () => {
  it('follows SMMUEN, the entry and GBPA: bypass, table, abort', () => {
    const w = world()
    w.entry()
    w.enable(ON & ~1)
    expect(w.smmu.stage(STREAM)).toEqual({ kind: 'bypass' })
    w.set(CR0, ON)
    expect(w.smmu.stage(STREAM)).toEqual({
      kind: 'translate',
      table: CONTEXTS,
      contextBits: 6,
      format: 0,
      dss: 1,
    })
    expect(w.machine.iommu.bindingCount).toBe(1)
    w.put(STREAMS + STREAM * 64, 0n)
    expect(w.smmu.stage(STREAM)).toMatchObject({ kind: 'translate' })
    w.command(cfgiSte())
    expect(w.smmu.stage(STREAM)).toEqual({ kind: 'abort' })
    w.entry()
    w.command(BigInt(CMD.CFGI_STE_RANGE), 31n)
    w.set(CR0, ON & ~1)
    expect(w.smmu.stage(STREAM)).toEqual({ kind: 'bypass' })
    w.set(GBPA, 0x8010_0000)
    expect(w.tables.map(t => t.config)).toEqual([
      'translate',
      'abort',
      'translate',
      'bypass',
      'abort',
    ])
    w.end()
  })

  it.each([
    ['of another stream', cfgiSte(0x19), 0],
    ['of a range it is not in', cfgiSte(0x20) + 1n, 0],
    ['of a range it is in', (BigInt(0x1f) << 32n) | BigInt(CMD.CFGI_STE_RANGE), 1],
  ])('an invalidation %s', (_, command, changes) => {
    const w = world()
    w.enable()
    const before = w.tables.length
    w.entry()
    // Ranges of eight streams.
    w.command(command, 2n)
    expect(w.tables.length - before).toBe(changes)
    w.end()
  })

  const two = (w: ReturnType<typeof world>, l1: bigint, split = 6) => {
    w.set(0x88, (1 << 16) | (split << 6) | 8)
    w.put(STREAMS, l1)
    w.entry(0n, 0n, RAM + 0x5_0000 + STREAM * 64)
  }
  it.each<[string, (w: ReturnType<typeof world>) => void, string]>([
    ['a valid one translates', w => w.entry(), 'translate'],
    ['one that bypasses does', w => w.put(STREAMS + STREAM * 64, 0x9n), 'bypass'],
    ['one that is not valid aborts', w => w.put(STREAMS + STREAM * 64, 0xan), 'abort'],
    ['abort aborts', w => w.put(STREAMS + STREAM * 64, 1n), 'abort'],
    ['stage 2 is not there', w => w.put(STREAMS + STREAM * 64, 0xdn), 'abort'],
    ['nor are both', w => w.entry(2n << 1n), 'abort'],
    ['more substreams than there are', w => w.entry(17n << 59n), 'abort'],
    [
      'a table that does not reach to it',
      w => {
        w.entry()
        w.set(0x88, 4)
      },
      'abort',
    ],
    [
      'a table where there is no memory',
      w => {
        w.entry()
        w.set64(0x80, 0x1000_0000)
      },
      'abort',
    ],
    ['two levels', w => two(w, BigInt(RAM + 0x5_0000) | 6n), 'translate'],
    ['a second level that does not reach to it', w => two(w, BigInt(RAM + 0x5_0000) | 5n), 'abort'],
    ['a second level of nothing', w => two(w, BigInt(RAM + 0x5_0000)), 'abort'],
    ['a second level larger than a split', w => two(w, BigInt(RAM + 0x5_0000) | 9n), 'abort'],
    ['a split that is reserved', w => two(w, BigInt(RAM + 0x5_0000) | 6n, 7), 'abort'],
    ['a second level where there is no memory', w => two(w, 0x1000_0006n), 'abort'],
  ])('an entry: %s', (_, write, kind) => {
    const w = world()
    w.enable(ON & ~1)
    write(w)
    w.set(CR0, ON)
    expect(w.smmu.stage(STREAM)!.kind).toBe(kind)
    w.end()
  })

  it('what the host refuses the device does not get: a table beyond all addresses leaves it cut off', () => {
    const w = world()
    w.enable(ON & ~1)
    w.put(STREAMS + STREAM * 64, (6n << 59n) | (1n << 50n) | (5n << 1n) | 1n, 1n)
    w.set(CR0, ON)
    expect(w.tables).toEqual([
      { stream: STREAM, config: 'translate', refused: 'EINVAL' },
      { stream: STREAM, config: 'abort' },
    ])
    expect(w.smmu.stage(STREAM)).toEqual({ kind: 'abort' })
    w.end()
  })

  it('from one table to the next there is no moment without', () => {
    const w = world()
    w.entry()
    w.enable()
    const { bdf } = w.machine.function(PRI)
    const seen = new Set<bigint>()
    // STE.Config on the host: 7 both stages, 6 the second alone, 0 nothing passes.
    const stop = w.machine.trace.listen('smmu.command', () => {
      const ste = w.machine.unit.look(bdf, 5, 0n).structures.find(s => s.kind === 'ste')
      seen.add((ste!.words![0]! >> 1n) & 7n)
    })
    w.entry(0x1000n)
    w.command(cfgiSte())
    stop()
    expect(w.smmu.stage(STREAM)).toMatchObject({ table: CONTEXTS + 0x1000 })
    expect([...seen].sort()).toEqual([0n, 7n])
    w.end()
  })
})

describe('invalidations', () => {
  const asid = 7n << 48n
  const va = 0x7e00_0000_1000n
  it.each<[string, bigint, bigint, string]>([
    ['CFGI_CD', (BigInt(STREAM) << 32n) | (5n << 12n) | 0x05n, 1n, 'CFGI_CD'],
    ['CFGI_CD_ALL', (BigInt(STREAM) << 32n) | 0x06n, 0n, 'CFGI_CD_ALL'],
    ['CFGI_STE of the same table', cfgiSte(), 1n, 'CFGI_CD_ALL'],
    ['TLBI_NH_ASID', asid | 0x11n, 0n, 'TLBI_NH_ASID'],
    ['TLBI_NH_VA', asid | 0x12n, va | 1n, 'TLBI_NH_VA'],
    ['TLBI_NH_VAA', 0x13n, va, 'TLBI_NH_VAA'],
    ['TLBI_NH_ALL', 0x10n, 0n, 'TLBI_NH_ALL'],
    ['TLBI_NSNH_ALL', 0x30n, 0n, 'TLBI_NH_ALL'],
    ['ATC_INV of a page', (BigInt(STREAM) << 32n) | (5n << 12n) | 0x840n, va, 'ATC_INV'],
    ['ATC_INV of everything', (BigInt(STREAM) << 32n) | (5n << 12n) | 0x840n, 52n, 'ATC_INV'],
    ['ATC_INV without a substream', (BigInt(STREAM) << 32n) | 0x40n, 52n, 'ATC_INV'],
  ])('%s is done on the host', (_, low, high, there) => {
    const w = world()
    w.entry()
    w.enable()
    w.host.length = 0
    const refused: (string | undefined)[] = []
    w.machine.trace.listen('vmm.smmu-invalidate', e => refused.push(e.refused))
    w.command(low, high)
    expect(w.host).toContain(there)
    expect(refused).toEqual([undefined])
    w.end()
  })

  it.each([
    ['TLBI_S12_VMALL: the guest has no stage 2', 0x28n],
    ['TLBI_EL2_ALL: nor EL2', 0x20n],
    ['a reserved command', 0x7fn],
  ])('%s stops the queue, and the host hears nothing', (_, low) => {
    const w = world()
    w.entry()
    w.enable()
    w.host.length = 0
    w.command(low)
    expect(w.host).toEqual([])
    expect((Number(w.smmu.read(0x9c, 4)) >>> 24) & 0x7f).toBe(1)
    expect(w.wires).toEqual(['gerror'])
    w.end()
  })

  it('without a table in front nothing is passed on', () => {
    const w = world()
    w.enable(ON & ~1)
    w.host.length = 0
    w.command(0x30n)
    expect(w.host).toEqual([])
    w.end()
  })
})

describe('page requests', () => {
  it('reach the guest’s queue, and its answer the device', () => {
    const w = world()
    w.entry()
    w.enable()
    w.smmu.pageRequest(request())
    expect(w.wires).toEqual(['priq'])
    expect([w.memory.load(REQUESTS, 8), w.memory.load(REQUESTS + 8, 8)]).toEqual([
      0xf000_0005_0000_0018n,
      0x7e00_0000_1009n,
    ])
    w.command((BigInt(STREAM) << 32n) | (5n << 12n) | 0x841n, (2n << 12n) | 9n)
    expect(w.answers).toEqual([{ requester: STREAM, pasid: 5, prgIndex: 9, code: 0 }])
    w.end()
  })

  it.each([
    ['failure: the queue is off', ON & ~2, 0, 15],
    ['success: it is full, the device asks again', ON, 4, 0],
  ])('that cannot be queued are answered by the unit, %s', (_, cr0, before, code) => {
    const w = world()
    w.entry()
    w.enable(cr0)
    for (let i = 0; i < before; i++) w.smmu.pageRequest(request())
    expect(w.answers).toEqual([])
    w.smmu.pageRequest(request())
    expect(w.answers).toEqual([{ requester: STREAM, pasid: 5, prgIndex: 9, code }])
    w.end()
  })
})

describe('stalls', () => {
  it('are events with Stall and a tag; RESUME takes the guest’s answer to the device, once', () => {
    const w = world()
    w.entry()
    w.enable()
    expect(w.smmu.stall(request())).toBe(true)
    expect(w.wires).toEqual(['eventq'])
    expect([0, 8, 16].map(o => w.memory.load(EVENTS + o, 8))).toEqual([
      0x18_0000_5810n,
      0x0000_0200_8000_0009n,
      0x7e00_0000_1000n,
    ])
    const resume = (BigInt(STREAM) << 32n) | 0x44n
    w.command(resume | (1n << 12n), 8n)
    expect(w.answers).toEqual([])
    w.command(resume | (1n << 12n), 9n)
    w.command(resume | (1n << 12n), 9n)
    expect(w.answers).toEqual([{ requester: STREAM, pasid: 5, prgIndex: 9, code: 0 }])
    w.end()
  })

  it.each<[string, (w: ReturnType<typeof world>) => void]>([
    ['RESUME with Ab', w => w.command((BigInt(STREAM) << 32n) | 0x44n | (1n << 13n), 9n)],
    ['STALL_TERM', w => w.command((BigInt(STREAM) << 32n) | 0x45n)],
    [
      'an entry that is gone',
      w => {
        w.put(STREAMS + STREAM * 64, 0n)
        w.command(cfgiSte())
      },
    ],
    ['SMMUEN cleared', w => w.set(CR0, ON & ~1)],
  ])('are aborted by %s', (_, act) => {
    const w = world()
    w.entry()
    w.enable()
    w.smmu.stall(request())
    act(w)
    expect(w.answers).toEqual([{ requester: STREAM, pasid: 5, prgIndex: 9, code: 1 }])
    w.end()
  })

  it('are never lost: what finds the queue full comes when there is room', () => {
    const w = world()
    w.entry()
    w.enable()
    for (let tag = 0; tag < 6; tag++) expect(w.smmu.stall(request({ prgIndex: tag }))).toBe(true)
    const tags = () => [0, 1, 2, 3].map(i => Number(w.memory.load(EVENTS + i * 32 + 8, 2)))
    expect([w.smmu.read(EVENTQ_PROD, 4), tags()]).toEqual([4n, [0, 1, 2, 3]])
    w.set(EVENTQ_CONS, 4)
    expect([w.smmu.read(EVENTQ_PROD, 4), tags()]).toEqual([6n, [4, 5, 2, 3]])
    w.end()
  })

  it('that are answered unseen are told no more', () => {
    const w = world()
    w.entry()
    w.enable()
    for (let tag = 0; tag < 6; tag++) w.smmu.stall(request({ prgIndex: tag }))
    w.command((BigInt(STREAM) << 32n) | 0x44n | (1n << 12n), 4n)
    expect(w.answers.map(a => a.prgIndex)).toEqual([4])
    w.set(EVENTQ_CONS, 4)
    const tags = [0, 1].map(i => Number(w.memory.load(EVENTS + i * 32 + 8, 2)))
    expect([w.smmu.read(EVENTQ_PROD, 4), tags]).toEqual([5n, [5, 1]])
    w.end()
  })

  it.each([
    ['the guest has no event queue', ON & ~4],
    ['its SMMU is off', ON & ~1],
  ])('are not taken when %s', (_, cr0) => {
    const w = world()
    w.entry()
    w.enable(cr0)
    expect(w.smmu.stall(request())).toBe(false)
    w.end()
  })
})

describe('refused requests', () => {
  it.each([
    ['no mapping', 5, 0x10],
    ['a permission', 6, 0x13],
    ['an access flag', 7, 0x12],
    ['an address that is too wide', 8, 0x11],
    ['a table that could not be read', 4, 0x0b],
    ['a descriptor that could not be read', 1, 0x09],
    ['a bad descriptor', 2, 0x0a],
    ['a PASID outside the table', 3, 0x08],
  ])('for %s are an event of the guest’s', (_, reason, code) => {
    const w = world()
    w.entry()
    w.enable()
    const fault = iommu_fault({ type: 1 })
    Object.assign(fault.event.event, { reason, flags: 3, pasid: 5, perm: 2, addr: 0x7000_1234n })
    w.smmu.refused(STREAM, fault.event.event)
    expect(w.memory.load(EVENTS, 1)).toBe(BigInt(code))
    expect(w.memory.load(EVENTS, 8) >> 12n).toBe((BigInt(STREAM) << 20n) | 5n)
    if (code >= 0x0b) expect(w.memory.load(EVENTS + 16, 8)).toBe(0x7000_1234n)
    w.end()
  })

  it('for a reason that is the host’s own are not told', () => {
    const fault = iommu_fault({ type: 1 })
    expect(eventRecord(STREAM, fault.event.event)).toBeUndefined()
  })
})
