// The stall model: faults that wait for CMD_RESUME (IHI 0070 3.12.2, 4.7.1, 4.7.2, 5.5).
import { describe, expect, it } from 'vitest'
import { Bench, CR0, command, REG, RW, SID } from './bench.js'

const ALL = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN
const [ABORT, RETRY] = [2, 1]

function stalling() {
  const b = new Bench().start()
  return { b, root: b.stage1({ s: 1 }) }
}

describe('a fault that stalls', () => {
  it('is recorded with a tag, and goes on when software mapped the page and resumed it', () => {
    const { b, root } = stalling()
    expect(b.dma(0x5000n, { write: true })).toBe('F_TRANSLATION')
    expect(b.answer).toMatchObject({ status: 1, stalled: 0 })
    expect(b.pending()).toMatchObject([
      { type: 0x10, stall: 1, stag: 0, sid: SID, addr: 0x5000n, rnw: 0 },
    ])
    expect(b.faults[0]!.record).toBe('stalled')
    b.consume()
    b.map(root, 0x5000n, 0x50_0000n | RW)
    b.submit(command.resume(SID, 0, RETRY))
    expect(b.resumed).toEqual([{ requester: SID, token: 0, retry: true }])
    expect(b.dma(0x5000n, { write: true })).toBe(0x50_0000)
    expect(b.answer.stalled).toBe(-1)
    expect(b.unit.stalled).toBe(0)
  })

  it('is aborted by CMD_RESUME without Ac, whether Ab is set or not', () => {
    for (const action of [ABORT, 0]) {
      const { b } = stalling()
      b.dma(0x5000n)
      b.submit(command.resume(SID, 0, action))
      expect(b.resumed).toEqual([{ requester: SID, token: 0, retry: false }])
    }
  })

  it('a final answer after a stalled one says that it is final', () => {
    const { b } = stalling()
    b.dma(0x5000n)
    expect(b.answer.stalled).toBe(0)
    expect(b.dma(0x5000n, { requester: SID + 1 })).toBe('C_BAD_STE')
    expect(b.answer.stalled).toBe(-1)
  })

  it.each([
    ['another tag', SID, 1],
    ['another stream', SID + 1, 0],
  ])('4.7.1: CMD_RESUME with %s has no effect', (_, sid, stag) => {
    const { b } = stalling()
    b.dma(0x5000n)
    b.submit(command.resume(sid, stag, RETRY))
    expect(b.resumed).toEqual([])
    expect(b.unit.stalled).toBe(1)
    expect(b.r32(REG.GERROR)).toBe(0)
  })

  it('tells transactions of one stream apart, and takes answers in any order', () => {
    const { b } = stalling()
    for (const va of [0x5000n, 0x6000n, 0x7000n]) b.dma(va)
    expect(b.pending().map(e => e.stag)).toEqual([0, 1, 2])
    b.submit(
      command.resume(SID, 1, RETRY),
      command.resume(SID, 2, ABORT),
      command.resume(SID, 0, RETRY),
    )
    expect(b.resumed.map(r => [r.token, r.retry])).toEqual([
      [1, true],
      [2, false],
      [0, true],
    ])
  })

  it('4.7.2: CMD_STALL_TERM aborts all of a stream, and of no other', () => {
    const { b } = stalling()
    b.ste({ config: 5, ctx: b.cd({ s: 1, ttb0: b.alloc() }) }, SID + 1)
    b.dma(0x5000n)
    b.dma(0x5000n, { requester: SID + 1 })
    b.dma(0x6000n)
    b.submit(command.stallTerm(SID))
    expect(b.resumed).toEqual([
      { requester: SID, token: 0, retry: false },
      { requester: SID, token: 2, retry: false },
    ])
    expect(b.unit.stalled).toBe(1)
  })

  it('SMMUEN going to 0 aborts all', () => {
    const { b } = stalling()
    b.dma(0x5000n)
    b.w32(REG.CR0, ALL & ~CR0.SMMUEN)
    expect(b.resumed).toMatchObject([{ retry: false }])
    expect(b.unit.stalled).toBe(0)
  })
})

describe('records of stalls are never lost', () => {
  it('wait while the queue is full, and come when there is room, without an overflow', () => {
    const { b } = stalling()
    for (let i = 0; i < 64; i++) b.dma(0x5000n, { requester: SID + 1 })
    b.dma(0x5000n)
    b.dma(0x6000n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(64)
    expect(b.unit.stalled).toBe(2)
    b.w32(REG.EVENTQ_CONS, 1)
    expect(b.pending().at(-1)).toMatchObject({ stall: 1, stag: 0, addr: 0x5000n })
    b.w32(REG.EVENTQ_CONS, 65)
    expect(b.pending()).toMatchObject([{ stall: 1, stag: 1, addr: 0x6000n }])
  })

  it('wait while the queue is disabled', () => {
    const { b } = stalling()
    b.w32(REG.CR0, ALL & ~CR0.EVENTQEN)
    b.dma(0x5000n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(0)
    b.w32(REG.CR0, ALL)
    expect(b.pending()).toMatchObject([{ stall: 1 }])
  })

  it('wait for a tag when STALL_MAX are out', () => {
    const b = new Bench({ config: { stalls: 2 } }).start()
    expect(b.r32(REG.IDR5) >>> 16).toBe(2)
    b.stage1({ s: 1 })
    for (const va of [0x5000n, 0x6000n, 0x7000n]) b.dma(va)
    expect(b.pending().map(e => e.stag)).toEqual([0, 1])
    b.submit(command.resume(SID, 1, ABORT))
    expect(b.pending().at(-1)).toMatchObject({ stag: 1, addr: 0x7000n })
  })

  it('4.7.3: a record that waits past a CMD_SYNC is not written; the transaction is tried again', () => {
    const { b, root } = stalling()
    b.w32(REG.CR0, ALL & ~CR0.EVENTQEN)
    b.dma(0x5000n)
    b.map(root, 0x5000n, 0x50_0000n | RW)
    b.submit(command.sync())
    expect(b.resumed, 'not before the queue is writable').toEqual([])
    b.w32(REG.CR0, ALL)
    expect(b.resumed).toEqual([{ requester: SID, token: 0, retry: true }])
    expect(b.pending()).toEqual([])
    expect(b.dma(0x5000n)).toBe(0x50_0000)
  })

  it('a stall that is terminated before its record was written leaves none', () => {
    const { b } = stalling()
    b.w32(REG.CR0, ALL & ~CR0.EVENTQEN)
    b.dma(0x5000n)
    b.submit(command.stallTerm(SID))
    b.w32(REG.CR0, ALL)
    expect(b.pending()).toEqual([])
    expect(b.resumed).toHaveLength(1)
  })
})

describe('5.5: what stalls', () => {
  it.each([
    ['CD.S with R clear: recorded all the same', { s: 1, r: 0 }],
    ['CD.S with R set', { s: 1, r: 1 }],
  ])('%s', (_, cd) => {
    const b = new Bench().start()
    b.stage1(cd)
    b.dma(0x5000n)
    expect(b.pending()).toMatchObject([{ stall: 1 }])
  })

  it('stage 2 faults stall by S2S, whatever CD.S says', () => {
    const b = new Bench().start()
    const { first } = b.nested({ s: 0 }, { s2s: 1 })
    b.map(first, 0x5000n, 0x4000_0000n | RW)
    b.dma(0x5000n)
    expect(b.pending()).toMatchObject([{ stall: 1, s2: 1, ipa: 0x4000_0000n }])
    b.dma(0x9000n)
    expect(b.pending()[1]).toMatchObject({ stall: 0, s2: 0 })
  })

  it('a stage 2 fault of a CD fetch stalls too', () => {
    const b = new Bench().start()
    b.nested({}, { s2s: 1, ctx: 0x4000_0000 })
    b.dma(0x5000n)
    expect(b.pending()).toMatchObject([{ stall: 1, s2: 1, cls: 0 }])
  })

  it('external aborts and configuration errors never stall', () => {
    const { b, root } = stalling()
    b.store(root, 0x4000_0003n)
    expect(b.dma(0x5000n)).toBe('F_WALK_EABT')
    expect(b.dma(0x5000n, { pasid: 1 })).toBe('C_BAD_SUBSTREAMID')
    expect(b.pending().map(e => e.stall)).toEqual([0, 0])
    expect(b.unit.stalled).toBe(0)
  })
})
