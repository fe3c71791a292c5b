// What a listener is shown, and what the unit tells of itself: traces, faults with their entries, answers that hold.
import { describe, expect, it } from 'vitest'
import type { CommandEvent } from '../../../src/iommu/smmu/execute.js'
import type { StallEvent } from '../../../src/iommu/smmu/stalls.js'
import type { RegisterEvent, TranslationEvent } from '../../../src/iommu/smmu/trace.js'
import { Bench, CR0, command, REG, RO, RW, SID, TLBI } from './bench.js'

const ALL = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN

describe('the trace', () => {
  it('shows a nested translation stage by stage, and later that it was cached', () => {
    const b = new Bench().start()
    const events: TranslationEvent[] = []
    b.trace.listen('smmu.translate', e => events.push(e as TranslationEvent))
    b.map(b.nested().first, 0x5000n, 0x50_0000n | RW)
    b.dma(0x5123n, { write: true })
    b.dma(0x5123n)
    expect(events).toMatchObject([
      {
        requester: SID,
        streamId: SID,
        mode: 'nested',
        access: 'write',
        address: 0x5123n,
        output: 0x50_0123n,
        pageBits: 12,
        cached: false,
        stages: [
          { stage: 1, input: 0x5123n, output: 0x50_0123n, pageBits: 12 },
          { stage: 2, input: 0x50_0123n, output: 0x50_0123n, pageBits: 21 },
        ],
      },
      { cached: true, stages: [] },
    ])
  })

  it.each([
    ['off', (b: Bench) => b.w32(REG.CR0, 0), 'off', []],
    ['bypass', (b: Bench) => b.ste({ config: 4 }), 'bypass', []],
    ['stage 1', (b: Bench) => b.map(b.stage1(), 0x5000n, 0x5000n | RW), 'stage-1', [1]],
    ['stage 2', (b: Bench) => b.map(b.stage2(), 0x5000n, 0x5000n | 0x4c3n), 'stage-2', [2]],
  ] as const)('names the mode: %s', (_, setUp, mode, stages) => {
    const b = new Bench().start()
    const events: TranslationEvent[] = []
    b.trace.listen('smmu.translate', e => events.push(e as TranslationEvent))
    setUp(b)
    expect(b.dma(0x5000n)).toBe(0x5000)
    expect(events).toMatchObject([{ mode }])
    expect(events[0]!.stages.map(s => s.stage)).toEqual(stages)
  })

  it('answers are the same with a listener and without', () => {
    const [quiet, heard] = [0, 1].map(listened => {
      const b = new Bench().start()
      if (listened) b.trace.listen('*', () => {})
      const leaf = b.map(
        b.stage1({ ha: 1, hd: 1 }),
        0x5000n,
        0x50_0000n | ((RO | (1n << 51n)) & ~0x400n),
      )
      const seen = [b.dma(0x5000n), b.dma(0x9000n), b.load(leaf), b.dma(0x5000n, { write: true })]
      return [...seen, b.load(leaf), b.ats(0x5000n), b.pending().length]
    })
    expect(heard).toEqual(quiet)
  })

  it('shows commands, with the one that failed', () => {
    const b = new Bench().start()
    const events: CommandEvent[] = []
    b.trace.listen('smmu.command', e => events.push(e as CommandEvent))
    b.submit(command.cfgiAll(), [0xffn, 7n])
    expect(events).toEqual([
      { command: 'CFGI_STE_RANGE', error: 0, low: 4n, high: 31n },
      { command: 'error', error: 1, low: 0xffn, high: 7n },
    ])
  })

  it('shows stalls and what became of them', () => {
    const b = new Bench().start()
    const events: StallEvent[] = []
    b.trace.listen('smmu.stall', e => events.push(e as StallEvent))
    b.stage1({ s: 1 })
    b.dma(0x5000n)
    b.submit(command.resume(SID, 0, 1))
    expect(events).toEqual([
      { what: 'stalled', streamId: SID, requester: SID, token: 0, stag: 0 },
      { what: 'retry', streamId: SID, requester: SID, token: 0, stag: 0 },
    ])
  })

  it('shows registers by name', () => {
    const b = new Bench()
    const events: RegisterEvent[] = []
    b.trace.listen('smmu.register', e => events.push(e as RegisterEvent))
    b.w32(REG.CR0, 4)
    b.r32(REG.EVENTQ_PROD)
    b.r32(0x300)
    expect(events.map(e => [e.write, e.name])).toEqual([
      [true, 'CR0'],
      [false, 'EVENTQ_PROD'],
      [false, '-'],
    ])
  })
})

describe('a fault carries the way that led to it', () => {
  it('from the STE to the descriptor', () => {
    const b = new Bench().start()
    const root = b.alloc()
    const table = b.substreams(4)
    const cd = b.cd({ ttb0: root }, table + 7 * 64)
    const leaf = b.map(root, 0x5000n, 0x50_0000n | RO)
    b.dma(0x5000n, { pasid: 7, write: true })
    expect(b.unit.lastFault).toMatchObject({
      name: 'F_PERMISSION',
      code: 0x13,
      section: '7.3.16',
      stage: 1,
      access: 'write',
      pasid: 7,
      entries: [
        { kind: 'ste', at: b.streams + SID * 64 },
        { kind: 'cd', at: cd },
        { kind: 'stage-1', at: leaf, value: 0x50_0000n | RO, level: 3 },
      ],
    })
  })
})

describe('answers hold', () => {
  it.each([
    ['a TLB invalidation', (b: Bench) => b.submit(command.tlbi(TLBI.NH_ALL))],
    ['a configuration invalidation', (b: Bench) => b.submit(command.cfgiSte(SID))],
    ['a change of CR0', (b: Bench) => b.w32(REG.CR0, ALL | CR0.ATSCHK)],
    ['a change of GBPA', (b: Bench) => b.w32(REG.GBPA, 0x8010_0000)],
    ['reset', (b: Bench) => b.unit.reset()],
  ])('until %s', (_, change) => {
    const b = new Bench().start()
    b.map(b.stage1(), 0x5000n, 0x50_0000n | RW)
    b.dma(0x5000n)
    const { answers } = b.unit
    b.dma(0x6000n)
    expect(b.unit.answers).toBe(answers)
    change(b)
    expect(b.unit.answers).not.toBe(answers)
  })

  it('not while somebody listens', () => {
    const b = new Bench().start()
    const stop = b.trace.listen('smmu.translate', () => {})
    expect(b.unit.answers).toBe(-1)
    stop()
    expect(b.unit.answers).toBeGreaterThanOrEqual(0)
  })

  it('epochs that begin again serve no old answer', () => {
    const b = new Bench().start()
    const leaf = b.map(b.stage1(), 0x5000n, 0x50_0000n | RW)
    expect(b.dma(0x5000n)).toBe(0x50_0000)
    b.store(leaf, 0x60_0000n | RW)
    const drop = Array.from({ length: 32 }, () => command.tlbi(TLBI.NSNH_ALL))
    // One turn of the 15-bit epoch that the front table's keys carry.
    for (let i = 0; i < 0x7fff; i += drop.length) b.submit(...drop)
    expect(b.dma(0x5000n)).toBe(0x60_0000)
  })
})
