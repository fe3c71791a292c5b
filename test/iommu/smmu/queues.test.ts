// Command queue, event queue, PRI queue and messages: wrap, overflow, errors, interrupts.
import { describe, expect, it } from 'vitest'
import type { PageRequest } from '../../../src/pci/request.js'
import { Bench, CR0, command, GERR, REG, RW, SID, TLBI } from './bench.js'

const ALL = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN

describe('7.1: the command queue', () => {
  it('wraps, and keeps the wrap bit', () => {
    const b = new Bench().start()
    for (let i = 0; i < 200; i++) b.submit(command.sync(2))
    expect(b.sevs).toBe(200)
    expect(b.r32(REG.CMDQ_CONS)).toBe(200 % 128)
  })

  it('a full queue is executed as a whole', () => {
    const b = new Bench().start({ enable: ALL & ~CR0.CMDQEN })
    b.submit(...Array.from({ length: 64 }, () => command.sync(2)))
    expect(b.r32(REG.CMDQ_PROD)).toBe(64)
    expect(b.sevs).toBe(0)
    b.w32(REG.CR0, ALL)
    expect(b.sevs).toBe(64)
    expect(b.r32(REG.CMDQ_CONS)).toBe(64)
  })

  it('stops on a bad command, and goes on when software mended it and acknowledged', () => {
    const b = new Bench().start()
    b.submit(command.sync(2), [0xffn, 0n], command.sync(2))
    expect(b.sevs).toBe(1)
    expect(b.r32(REG.CMDQ_CONS)).toBe(0x100_0001)
    expect(b.r32(REG.GERROR) ^ b.r32(REG.GERRORN)).toBe(GERR.CMDQ)
    b.submit(command.sync(2))
    expect(b.sevs, 'more commands change nothing').toBe(1)
    b.words(b.commands + 16, command.sync(2))
    b.w32(REG.GERRORN, b.r32(REG.GERROR))
    expect(b.sevs).toBe(4)
    expect(b.r32(REG.CMDQ_CONS) & 0xf_ffff).toBe(4)
    b.submit([0xffn, 0n])
    expect(b.r32(REG.GERROR), 'the second error flips the bit back').toBe(0)
    expect(b.r32(REG.GERROR) ^ b.r32(REG.GERRORN)).toBe(GERR.CMDQ)
  })

  it('CERROR_ABT: a queue that cannot be read', () => {
    const b = new Bench()
    b.start({ enable: 0 })
    b.w64(REG.CMDQ_BASE, 0x4000_0006)
    b.w32(REG.CR0, ALL)
    b.w32(REG.CMDQ_PROD, 1)
    expect(b.r32(REG.CMDQ_CONS)).toBe(0x200_0000)
    expect(b.r32(REG.GERROR)).toBe(GERR.CMDQ)
  })

  it('CERROR_ATC_INV_SYNC: a CMD_SYNC after an invalidation that did not complete', () => {
    const b = new Bench().start()
    b.completes = false
    b.submit(command.atcInv(SID, 0x5000n, 0), command.sync(2), command.sync(2))
    expect(b.sevs).toBe(0)
    expect(b.r32(REG.CMDQ_CONS)).toBe(0x300_0001)
    b.w32(REG.GERRORN, b.r32(REG.GERROR))
    expect(b.sevs, 'once reported it is over').toBe(2)
  })

  it('LOG2SIZE above what IDR1 tells counts as the largest', () => {
    const b = new Bench({ config: { commandQueueBits: 4 } }).start()
    for (let i = 0; i < 16; i++) b.words(b.commands + i * 16, command.sync(2))
    b.w32(REG.CMDQ_PROD, 16)
    expect(b.sevs).toBe(16)
    b.w32(REG.CMDQ_PROD, 32)
    expect(b.sevs, 'the index wraps at 2^5').toBe(32)
  })

  it('an ATC invalidation reaches the function, sized and tagged', () => {
    const b = new Bench().start()
    b.submit(
      command.atcInv(SID, 0x1234_5000n, 0),
      command.atcInv(SID, 0x1234_5000n, 4, 9),
      command.atcInv(SID, 0x1_1234_5000n, 52, 9, 1),
      command.atcInv(SID, 0xffff_ff12_3456_7000n, 21),
    )
    const request = { requester: SID, pasid: -1, global: false }
    expect(b.invalidations).toEqual([
      { ...request, hi: 0, lo: 0x1234_5000, pageBits: 12 },
      { ...request, pasid: 9, hi: 0, lo: 0x1234_0000, pageBits: 16 },
      { ...request, pasid: 9, global: true, hi: 0, lo: 0, pageBits: 64 },
      { ...request, hi: 0xffff_ff12 & -2, lo: 0, pageBits: 33 },
    ])
  })
})

describe('3.18: interrupts', () => {
  it.each([
    ['SIG_NONE', command.sync(0, 0xfee0_0000, 7), [], []],
    [
      'SIG_IRQ by message',
      command.sync(1, 0xfee0_1000, 7),
      [{ address: 0xfee0_1000, data: 7 }],
      [],
    ],
    ['SIG_IRQ by wire', command.sync(1), [], ['sync']],
  ] as const)('CMD_SYNC: %s', (_, words, messages, wires) => {
    const b = new Bench().start()
    b.submit([...words])
    expect(b.messages).toMatchObject(messages)
    expect(b.wires).toEqual(wires)
  })

  it('CMD_SYNC can write a word of memory that software watches', () => {
    const b = new Bench().start()
    const at = b.alloc()
    b.submit(command.sync(1, at + 8, 0xcafe))
    expect(b.load(at + 8)).toBe(0xcafen)
    expect(b.messages).toEqual([])
  })

  it('3.4.3: a message address is cut to the output size', () => {
    const b = new Bench().start()
    b.submit([0x46n | (1n << 12n) | (7n << 32n), (1n << 50n) | 0xfee0_1000n])
    expect(b.messages).toMatchObject([{ address: 0xfee0_1000, data: 7 }])
  })

  it('a CMD_SYNC message to nowhere is a global error, and the queue goes on', () => {
    const b = new Bench().start()
    b.submit(command.sync(1, 0x4000_0000, 7), command.sync(2))
    expect(b.r32(REG.GERROR)).toBe(GERR.MSI_CMDQ)
    expect(b.sevs).toBe(1)
  })

  it('the event queue interrupts when it is no longer empty', () => {
    const b = new Bench()
    b.w64(REG.EVENTQ_IRQ_CFG0, 0xfee0_2000n)
    b.w32(REG.EVENTQ_IRQ_CFG1, 42)
    b.w32(REG.IRQ_CTRL, 4)
    b.start()
    for (let i = 0; i < 3; i++) b.dma(0x5000n)
    expect(b.messages).toEqual([{ requester: 0xffff, address: 0xfee0_2000, data: 42 }])
    b.consume()
    b.dma(0x5000n)
    expect(b.messages).toHaveLength(2)
  })

  it('a global error interrupts once, and again after it was acknowledged', () => {
    const b = new Bench()
    b.w64(REG.GERROR_IRQ_CFG0, 0xfee0_3000n)
    b.w32(REG.GERROR_IRQ_CFG1, 9)
    b.w32(REG.IRQ_CTRL, 1)
    b.start()
    b.submit([0xffn, 0n])
    expect(b.messages).toEqual([{ requester: 0xffff, address: 0xfee0_3000, data: 9 }])
    b.w32(REG.GERRORN, GERR.CMDQ)
    expect(b.messages, 'the same command again').toHaveLength(2)
  })

  it('IRQ_CTRL clear: nothing is sent; an aborted message is an error of its own', () => {
    const b = new Bench()
    b.w64(REG.EVENTQ_IRQ_CFG0, 0x4000_0000n)
    b.start()
    b.dma(0x5000n)
    expect(b.r32(REG.GERROR)).toBe(0)
    b.consume()
    b.w32(REG.IRQ_CTRL, 4)
    b.dma(0x5000n)
    expect(b.r32(REG.GERROR)).toBe(GERR.MSI_EVENTQ)
    expect(b.pending()).toHaveLength(1)
  })

  it('messages of functions are ordinary writes: translated, then an interrupt at the doorbell', () => {
    const b = new Bench().start()
    const root = b.stage1()
    b.map(root, 0x800_0000n, 0xfee0_0000n | RW)
    b.map(root, 0x900_0000n, 0x50_0000n | RW)
    b.unit.message(SID, 0x800_0040, 0x31)
    expect(b.messages).toEqual([{ requester: SID, address: 0xfee0_0040, data: 0x31 }])
    b.unit.message(SID, 0x900_0008, 0x32)
    expect(b.load(0x50_0008)).toBe(0x32n)
    b.unit.message(SID, 0xfee0_0000, 0x33)
    expect(b.messages, 'an address that is not mapped is no interrupt').toHaveLength(1)
    expect(b.pending()).toMatchObject([{ type: 0x10, rnw: 0, addr: 0xfee0_0000n }])
  })
})

describe('7.4: the event queue overflows', () => {
  it('loses records, says so by OVFLG, and goes on when there is room', () => {
    const b = new Bench().start()
    for (let i = 0; i < 64; i++) b.dma(BigInt(i) << 12n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(64)
    b.dma(0xaaa_a000n)
    b.dma(0xbbb_b000n)
    expect(b.r32(REG.EVENTQ_PROD), 'OVFLG').toBe((0x8000_0040 | 0) >>> 0)
    expect(b.faults.slice(-2).map(f => f.record)).toEqual(['lost', 'lost'])
    b.w32(REG.EVENTQ_CONS, 10)
    b.dma(0xccc_c000n)
    expect(b.faults.at(-1)!.record, 'not inhibited by an overflow').toBe('recorded')
    b.w32(REG.EVENTQ_CONS, 0x8000_0041)
    for (let i = 0; i < 65; i++) b.dma(BigInt(i) << 12n)
    expect(b.r32(REG.EVENTQ_PROD) >>> 31, 'the next overflow flips it back').toBe(0)
  })

  it('records nothing while disabled', () => {
    const b = new Bench().start({ enable: CR0.SMMUEN })
    b.dma(0x5000n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(0)
    expect(b.faults[0]!.record).toBe('lost')
  })

  it('7.2.2: a queue that cannot be written is EVENTQ_ABT_ERR, and stays silent until acknowledged', () => {
    const b = new Bench()
    b.start({ enable: 0 })
    b.w64(REG.EVENTQ_BASE, 0x4000_0006)
    b.w32(REG.CR0, ALL)
    b.dma(0x5000n)
    expect(b.r32(REG.GERROR)).toBe(GERR.EVENTQ_ABT)
    expect(b.r32(REG.EVENTQ_PROD), 'PROD does not move').toBe(0)
    b.memory.addRam(0x4000_0000, new Uint8Array(0x1000))
    b.dma(0x6000n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(0)
    b.w32(REG.GERRORN, GERR.EVENTQ_ABT)
    b.dma(0x7000n)
    expect(b.r32(REG.EVENTQ_PROD)).toBe(1)
  })

  it('wraps', () => {
    const b = new Bench().start()
    for (let i = 0; i < 300; i++) {
      b.dma(BigInt(i) << 12n)
      expect(b.pending()).toHaveLength(1)
      b.consume()
    }
  })
})

const page: PageRequest = {
  requester: SID,
  pasid: -1,
  hi: 0,
  lo: 0x5000,
  read: true,
  write: false,
  execute: false,
  privileged: false,
  prgIndex: 3,
  last: true,
}

describe('8.1: the PRI queue', () => {
  it('holds a request, field by field', () => {
    const b = new Bench().start()
    b.unit.pageRequest({
      ...page,
      pasid: 0x1_2345,
      hi: 0x1122_3344,
      lo: 0x5566_7000,
      write: true,
      execute: true,
      privileged: true,
      prgIndex: 0x155,
    })
    b.unit.pageRequest({ ...page, last: false })
    expect(b.r32(REG.PRIQ_PROD)).toBe(2)
    expect(b.load(b.pri)).toBe((0b111111n << 58n) | (0x1_2345n << 32n) | BigInt(SID))
    expect(b.load(b.pri + 8)).toBe(0x1122_3344_5566_7155n)
    expect(b.load(b.pri + 16)).toBe((1n << 60n) | BigInt(SID))
    expect(b.load(b.pri + 24)).toBe(0x5003n)
  })

  it('4.5: ATC invalidations and responses are ignored while SMMUEN is clear', () => {
    const b = new Bench().start({ enable: CR0.CMDQEN })
    b.submit(command.priResp(SID, 3, 2), command.atcInv(SID, 0n, 52), command.sync(2))
    expect(b.responses).toEqual([])
    expect(b.invalidations).toEqual([])
    expect(b.sevs).toBe(1)
  })

  it('software answers by CMD_PRI_RESP', () => {
    const b = new Bench().start()
    b.submit(
      command.priResp(SID, 3, 2),
      command.priResp(SID, 4, 1, 9),
      command.priResp(SID, 5, 0),
      command.priResp(0x12_3456, 6, 2),
    )
    expect(b.responses).toEqual([
      { requester: SID, pasid: -1, prgIndex: 3, code: 0 },
      { requester: SID, pasid: 9, prgIndex: 4, code: 1 },
      { requester: SID, pasid: -1, prgIndex: 5, code: 15 },
    ])
  })

  it('a full queue answers Success, keeps everything out, and goes on once acknowledged', () => {
    const b = new Bench().start()
    for (let i = 0; i < 64; i++) expect(b.unit.injectPageRequest(page)).toBe(true)
    expect(b.unit.injectPageRequest({ ...page, last: false })).toBe(false)
    expect(b.responses).toEqual([])
    expect(b.r32(REG.PRIQ_PROD)).toBe((0x8000_0040 | 0) >>> 0)
    b.unit.pageRequest({ ...page, pasid: 7 })
    b.w32(REG.PRIQ_CONS, 0x40)
    expect(b.unit.injectPageRequest(page), 'empty, but not acknowledged').toBe(false)
    expect(b.responses).toEqual([
      { requester: SID, pasid: 7, prgIndex: 3, code: 0 },
      { requester: SID, pasid: -1, prgIndex: 3, code: 0 },
    ])
    b.w32(REG.PRIQ_CONS, 0x8000_0040)
    expect(b.unit.injectPageRequest(page)).toBe(true)
  })

  it.each([
    ['PPAR set: Success, with PASID', { ppar: 1 }, { pasid: 7, code: 0 }],
    ['PPAR clear: Success, without', {}, { pasid: -1, code: 0 }],
    ['no usable STE: Failure, without', { v: 0 }, { pasid: -1, code: 15 }],
  ])('without IDR3.PPS, %s', (_, ste, response) => {
    const b = new Bench({ config: { priResponsePasid: false } }).start()
    b.ste({ config: 4, ...ste })
    for (let i = 0; i < 65; i++) b.unit.pageRequest({ ...page, last: false })
    b.unit.pageRequest({ ...page, pasid: 7 })
    expect(b.responses).toMatchObject([response])
  })

  it.each([
    ['disabled', 0],
    ['not there', CR0.PRIQEN],
  ])('a queue that is %s answers Failure to the last of a group', (what, enable) => {
    const b = new Bench({ config: { pri: what === 'disabled' } })
    b.start({ enable: CR0.SMMUEN | enable })
    b.unit.pageRequest({ ...page, last: false })
    b.unit.pageRequest(page)
    expect(b.responses).toEqual([{ requester: SID, pasid: -1, prgIndex: 3, code: 15 }])
  })

  it('a queue that cannot be written is PRIQ_ABT_ERR', () => {
    const b = new Bench()
    b.start({ enable: 0 })
    b.w64(REG.PRIQ_BASE, 0x4000_0006)
    b.w32(REG.CR0, ALL)
    b.unit.pageRequest(page)
    expect(b.r32(REG.GERROR)).toBe(GERR.PRIQ_ABT)
    expect(b.responses).toMatchObject([{ code: 15 }])
  })

  it('a Stop Marker that cannot be queued is dropped without an answer', () => {
    const b = new Bench().start({ enable: CR0.SMMUEN })
    b.unit.pageRequest({ ...page, pasid: 7, read: false })
    expect(b.responses).toEqual([])
  })

  it.each([
    ['when it fills', 0, 1, [1, 1, 1]],
    ['under LO, for the last of each group', 0x8000_0000, 2, [0, 1, 2]],
  ])('interrupts %s', (_, lo, total, after) => {
    const b = new Bench()
    b.w64(REG.PRIQ_IRQ_CFG0, 0xfee0_4000n)
    b.w32(REG.PRIQ_IRQ_CFG2, lo)
    b.w32(REG.IRQ_CTRL, 2)
    b.start()
    for (const [i, last] of [false, true, true].entries()) {
      b.unit.pageRequest({ ...page, last })
      expect(b.messages).toHaveLength(after[i]!)
    }
    expect(b.messages).toHaveLength(total)
  })
})

describe('what a virtual unit tells its VMM', () => {
  it('each kind of command, after its own work', () => {
    const seen: unknown[] = []
    const note =
      (name: string) =>
      (...args: unknown[]): void => {
        seen.push([name, ...args])
      }
    const b = new Bench({
      hooks: {
        configInvalidated: note('config'),
        tlbInvalidated: note('tlb'),
        deviceTlbInvalidated: note('atc'),
        pageGroupResponse: note('pri'),
        stallResumed: note('resume'),
        stallsTerminated: note('term'),
        enabled: note('enabled'),
      },
    }).start()
    b.submit(
      command.cfgiSte(SID),
      command.cfgiRange(SID, 3),
      command.cfgiAll(),
      command.cfgiCd(SID, 5),
      command.cfgiCdAll(SID),
      command.tlbiVa(TLBI.NH_VA, 0x5000n, { vmid: 1, asid: 2, leaf: 1 }),
      command.tlbi(TLBI.NSNH_ALL),
      command.atcInv(SID, 0x5000n, 1, 5),
      command.priResp(SID, 3, 2),
      command.resume(SID, 4, 1),
      command.stallTerm(SID),
    )
    expect(seen).toEqual([
      ['enabled', true],
      ['config', 'stream', SID, -1, 0],
      ['config', 'range', SID, -1, 4],
      ['config', 'all', 0, -1, 32],
      ['config', 'substream', SID, 5, 0],
      ['config', 'substreams', SID, -1, 0],
      ['tlb', 'nh-va', 1, 2, { page: 5, count: 1 }, true],
      ['tlb', 'nsnh-all', 0, 0, undefined, false],
      ['atc', SID, 5, 0, 0x4000, 13, false],
      ['pri', { requester: SID, pasid: -1, prgIndex: 3, code: 0 }],
      ['resume', SID, 4, true],
      ['term', SID],
    ])
    expect(b.responses, 'the hook takes the place of sending').toEqual([])
  })

  it('an injected event stands in the queue as it is', () => {
    const b = new Bench().start()
    const record = new Uint8Array(32).fill(0xa5)
    expect(b.unit.injectEvent(record)).toBe(true)
    expect(b.ram.bytes.slice(b.events, b.events + 32)).toEqual(record)
    expect(() => b.unit.injectEvent(new Uint8Array(31))).toThrow(/31 bytes/)
  })
})
