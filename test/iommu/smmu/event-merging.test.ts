// Event record merging (IHI 0070 7.3.1): which events one record stands for, and which have their own.
import { describe, expect, it } from 'vitest'
import { Bench, CR0, REG, SID } from './bench.js'

const ALL = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN
const WINDOW = 1000

function merging(mev = 1, eventMergeNs = WINDOW, cd = {}) {
  const b = new Bench({ config: { eventMergeNs } }).start()
  b.stage1(cd, { mev })
  return b
}
const fates = (b: Bench) => b.faults.map(f => f.record)
const pass = (b: Bench, ns: number) => {
  b.clock.later(() => {}, ns)
  b.clock.settle()
}

describe('identical events', () => {
  it('are one record while it is in the queue', () => {
    const b = merging()
    for (let i = 0; i < 3; i++) expect(b.dma(0x5000n)).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([{ type: 0x10, sid: SID, addr: 0x5000n }])
    expect(fates(b)).toEqual(['recorded', 'merged', 'merged'])
    expect(b.unit.lastFault!.record).toBe('merged')
  })

  it.each([
    ['MEV is clear', 0, WINDOW],
    ['the unit does not merge', 1, 0],
  ])('have a record each where %s', (_, mev, window) => {
    const b = merging(mev, window)
    for (let i = 0; i < 3; i++) b.dma(0x5000n)
    expect(b.pending()).toHaveLength(3)
    expect(fates(b)).toEqual(['recorded', 'recorded', 'recorded'])
  })

  it('have records of their own when another comes between', () => {
    const b = merging()
    for (const va of [0x5000n, 0x6000n, 0x5000n]) b.dma(va)
    expect(b.pending().map(e => e.addr)).toEqual([0x5000n, 0x6000n, 0x5000n])
  })

  it('have a record again once software has taken the last', () => {
    const b = merging()
    b.dma(0x5000n)
    b.consume()
    b.dma(0x5000n)
    expect(b.pending()).toHaveLength(1)
  })

  it('have a record again when the last is old, counted from its writing', () => {
    const b = merging()
    b.dma(0x5000n)
    pass(b, WINDOW)
    b.dma(0x5000n)
    expect(b.pending()).toHaveLength(1)
    pass(b, 1)
    b.dma(0x5000n)
    expect(b.pending()).toHaveLength(2)
  })

  it('are merged in a full queue too, without an overflow', () => {
    const b = merging()
    for (let i = 0; i < 64; i++) b.dma(BigInt(0x5000 + 4096 * i))
    expect(b.dma(0x5000n + 63n * 4096n)).toBe('F_TRANSLATION')
    expect([b.unit.lastFault!.record, b.r32(REG.EVENTQ_PROD)]).toEqual(['merged', 64])
    b.dma(0x5000n)
    expect([b.unit.lastFault!.record, b.r32(REG.EVENTQ_PROD) >>> 31]).toEqual(['lost', 1])
  })

  it('are lost as ever while the queue is disabled, and not merged into what it held before', () => {
    const b = merging()
    b.dma(0x5000n)
    b.w32(REG.CR0, ALL & ~CR0.EVENTQEN)
    b.dma(0x5000n)
    b.w32(REG.CR0, ALL)
    b.dma(0x5000n)
    expect(fates(b)).toEqual(['recorded', 'lost', 'recorded'])
  })

  it('are not merged into a record that somebody else put behind', () => {
    const b = merging()
    b.dma(0x5000n)
    b.unit.injectEvent(new Uint8Array(32))
    b.dma(0x5000n)
    expect(fates(b)).toEqual(['recorded', 'recorded'])
  })

  it('raise one interrupt', () => {
    const b = merging()
    b.w32(REG.IRQ_CTRL, 4)
    b.dma(0x5000n)
    const raised = b.messages.length + b.wires.length
    b.dma(0x5000n)
    expect([raised > 0, b.messages.length + b.wires.length]).toEqual([true, raised])
  })
})

it.each([
  ['the direction', { write: true }],
  ['the stream', { requester: SID + 1 }],
])('events that differ in %s are not identical', (_, other) => {
  const b = merging()
  b.ste({ config: 5, ctx: b.cd({ ttb0: b.alloc() }), mev: 1 }, SID + 1)
  b.dma(0x5000n)
  b.dma(0x5000n, other)
  expect(b.pending()).toHaveLength(2)
})

it('stalls are never merged', () => {
  const b = merging(1, WINDOW, { s: 1 })
  for (let i = 0; i < 2; i++) b.dma(0x5000n)
  expect(b.pending()).toMatchObject([
    { stall: 1, stag: 0 },
    { stall: 1, stag: 1 },
  ])
})

it.each([
  ['C_BAD_STE', 1],
  ['C_BAD_CD', 2],
])('%s of a stream without MEV: %i of two', (name, records) => {
  const b = merging(0)
  if (name === 'C_BAD_STE') b.ste({ config: 5, v: 0 }, SID + 1)
  else b.ste({ config: 5, ctx: b.cd({ v: 0 }) }, SID + 1)
  for (let i = 0; i < 2; i++) expect(b.dma(0x5000n, { requester: SID + 1 })).toBe(name)
  expect(b.pending()).toHaveLength(records)
})

it.each([-1, 0.5])('a merging time of %d is refused', eventMergeNs => {
  expect(() => new Bench({ config: { eventMergeNs } })).toThrow('event merging time')
})
