// The IOMMU core: groups from topology, who serves a function, faults and page requests on their way.
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../src/base/clock.js'
import { IommuCore } from '../../src/iommu/core.js'
import type { IommuDriver, NestingInfo } from '../../src/iommu/domain.js'
import type { PciConfig } from '../../src/iommu/pci-config.js'
import { type IommuFault, iommu_fault, iommu_page_response } from '../../src/iommu/uapi.js'
import { type BenchOptions, bdfOf, bench, bindData, codeOf, GuestTable } from './driver-bench.js'

const NOWHERE = {} as PciConfig

/** A driver that only tells what nesting it has, and keeps answers. */
function stub(nesting?: Partial<NestingInfo>) {
  const answers: [number, number, number][] = []
  const info = {
    format: 1,
    features: 7,
    addrWidth: 48,
    pasidBits: 20,
    cap: 0n,
    ecap: 0n,
    ...nesting,
  }
  const driver = {
    name: 'stub',
    nesting: nesting && info,
    isolatesInterrupts: true,
    bindingCount: 2,
    probe() {},
    connect() {},
    domainAlloc: (o: { nesting: boolean }) => ({ of: driver, ...o }),
    respond: (bdf: number, f: IommuFault, code: number) =>
      void answers.push([bdf, f.event.prm.grpid, code]),
    restore() {},
  } as unknown as IommuDriver
  return { driver, answers }
}

describe('units', () => {
  it('a function belongs to the first unit that covers it', () => {
    const core = new IommuCore({ config: NOWHERE, clock: new VirtualClock() })
    const [one, two] = [stub({}), stub({})]
    core.add(one.driver, bdf => bdf >> 8 === 1)
    core.add(two.driver)
    expect(core.deviceDriver(0x100)).toBe(one.driver)
    expect(core.deviceDriver(0x200)).toBe(two.driver)
    expect(core.domainAlloc(0x200)).toMatchObject({ of: two.driver, nesting: false })
    expect(core.bindingCount).toBe(4)
  })

  it('without a unit there is no domain, no vector and no response', () => {
    const core = new IommuCore({ config: NOWHERE, clock: new VirtualClock() })
    expect(codeOf(() => core.domainAlloc(0x100))).toBe('ENODEV')
    expect(codeOf(() => core.allocateVector(0x100, () => {}))).toBe('ENODEV')
    expect(codeOf(() => core.pageResponse(0x100, iommu_page_response()))).toBe('ENODEV')
  })

  it.each([
    ['alike', [{ ecap: 1n }, { ecap: 1n }], 'ok'],
    ['with other widths only (E14)', [{ addrWidth: 48 }, { addrWidth: 57 }], 'ok'],
    ['with another ECAP (E13)', [{ ecap: 1n << 29n }, {}], 'ENODEV'],
    ['with another CAP', [{ cap: 1n << 60n }, {}], 'ENODEV'],
    ['of another format', [{ format: 2 }, {}], 'ENODEV'],
    ['one of which cannot nest', [{}, undefined], 'ENODEV'],
    ['none of which can nest', [undefined, undefined], 'ENODEV'],
  ])('R17: units %s', (_name, infos, errno) => {
    const core = new IommuCore({ config: NOWHERE, clock: new VirtualClock() })
    for (const [i, info] of infos.entries()) core.add(stub(info).driver, bdf => bdf === i)
    for (const bdf of infos.keys()) {
      expect(codeOf(() => core.domainAlloc(bdf, { nesting: true }))).toBe(errno)
      expect(codeOf(() => core.domainAlloc(bdf))).toBe('ok')
    }
  })
})

describe('page requests and responses (2.10)', () => {
  const BDF = 0x100
  const PASID_VALID = 1
  const LAST = 2
  const NEEDS_PASID = 8

  const pageRequest = (grpid: number, flags = PASID_VALID | LAST | NEEDS_PASID, pasid = 5) => {
    const f = iommu_fault({ type: 2 })
    Object.assign(f.event.prm, { grpid, flags, pasid })
    return f
  }
  const response = (
    of: Partial<{ version: number; flags: number; pasid: number; grpid: number; code: number }>,
  ) => iommu_page_response({ version: 1, flags: 1, pasid: 5, ...of })

  function setup(timeout = 0, take = true) {
    const clock = new VirtualClock()
    const core = new IommuCore({ config: NOWHERE, clock, pageResponseTimeoutNs: timeout })
    const { driver, answers } = stub({})
    core.add(driver)
    const heard: number[] = []
    core.onFault(BDF, f => {
      heard.push(f.event.prm.grpid)
      return take
    })
    return { clock, core, answers, heard }
  }

  it('a response reaches the request of its group, once', () => {
    const { core, answers } = setup()
    expect(core.pageRequest(BDF, pageRequest(3))).toBe(true)
    expect(core.pageRequest(BDF, pageRequest(4))).toBe(true)
    core.pageResponse(BDF, response({ grpid: 4, code: 1 }))
    expect(codeOf(() => core.pageResponse(BDF, response({ grpid: 4 })))).toBe('EINVAL')
    core.pageResponse(BDF, response({ grpid: 3 }))
    expect(answers).toEqual([
      [BDF, 4, 1],
      [BDF, 3, 0],
    ])
    expect(core.pendingPageRequests(BDF)).toBe(0)
  })

  it('earlier pages of a group are delivered, only the last one waits', () => {
    const { core, heard } = setup()
    core.pageRequest(BDF, pageRequest(3, PASID_VALID | NEEDS_PASID))
    expect(codeOf(() => core.pageResponse(BDF, response({ grpid: 3 })))).toBe('EINVAL')
    core.pageRequest(BDF, pageRequest(3))
    expect([heard, core.pendingPageRequests()]).toEqual([[3, 3], 1])
  })

  it.each([
    ['another group', { grpid: 4 }, 'EINVAL'],
    ['another PASID', { grpid: 3, pasid: 6 }, 'EINVAL'],
    ['no PASID although it is needed', { grpid: 3, flags: 0 }, 'EINVAL'],
    ['version 0', { grpid: 3, version: 0 }, 'EINVAL'],
    ['unknown flags', { grpid: 3, flags: 3 }, 'EINVAL'],
    ['an unknown code', { grpid: 3, code: 3 }, 'EINVAL'],
    ['the right group and PASID', { grpid: 3 }, 'ok'],
  ])('a response with %s', (_name, of, errno) => {
    const { core, answers } = setup()
    core.pageRequest(BDF, pageRequest(3))
    expect(codeOf(() => core.pageResponse(BDF, response(of)))).toBe(errno)
    expect(answers.length).toBe(errno === 'ok' ? 1 : 0)
  })

  it('a PASID that is not needed is dropped, not an error', () => {
    const { core, answers } = setup()
    core.pageRequest(BDF, pageRequest(3, LAST, 0))
    core.pageResponse(BDF, response({ grpid: 3, pasid: 99 }))
    expect(answers).toEqual([[BDF, 3, 0]])
  })

  it('equal groups of two PASIDs are told apart', () => {
    const { core, answers } = setup()
    core.pageRequest(BDF, pageRequest(3, 11, 5))
    core.pageRequest(BDF, pageRequest(3, 11, 6))
    core.pageResponse(BDF, response({ grpid: 3, pasid: 6, code: 2 }))
    expect([answers, core.pendingPageRequests(BDF)]).toEqual([[[BDF, 3, 2]], 1])
  })

  it('without a handler a request is not taken, and a response is EINVAL', () => {
    const { core } = setup()
    expect(core.pageRequest(0x200, pageRequest(1))).toBe(false)
    expect(codeOf(() => core.pageResponse(0x200, response({ grpid: 1 })))).toBe('EINVAL')
    core.fault(0x200, iommu_fault({ type: 1 }))
  })

  it('a handler that cannot queue it leaves nothing waiting', () => {
    const { core } = setup(0, false)
    expect(core.pageRequest(BDF, pageRequest(1))).toBe(false)
    expect(core.pendingPageRequests()).toBe(0)
  })

  it('a handler that goes away answers what waits INVALID', () => {
    const { core, answers } = setup()
    core.pageRequest(BDF, pageRequest(1))
    core.pageRequest(BDF, pageRequest(2))
    core.onFault(BDF, undefined)
    expect(answers).toEqual([
      [BDF, 1, 1],
      [BDF, 2, 1],
    ])
  })

  it('a PASID that goes away answers only its own', () => {
    const { core, answers } = setup()
    core.pageRequest(BDF, pageRequest(1, 11, 5))
    core.pageRequest(BDF, pageRequest(2, 11, 6))
    core.cancelPageRequests(BDF, 6)
    expect([answers, core.pendingPageRequests()]).toEqual([[[BDF, 2, 1]], 1])
  })

  it('a request that waits too long is answered INVALID, an answered one is not', () => {
    const { core, clock, answers } = setup(1000)
    core.pageRequest(BDF, pageRequest(1))
    core.pageRequest(BDF, pageRequest(2))
    clock.advance(500)
    core.pageResponse(BDF, response({ grpid: 1 }))
    clock.advance(499)
    expect(answers).toEqual([[BDF, 1, 0]])
    clock.advance(1)
    expect(answers).toEqual([
      [BDF, 1, 0],
      [BDF, 2, 1],
    ])
    expect(codeOf(() => core.pageResponse(BDF, response({ grpid: 2 })))).toBe('EINVAL')
    expect(clock.pending).toBe(0)
  })

  it('without a time-out nothing waits on the clock', () => {
    const { core, clock } = setup()
    core.pageRequest(BDF, pageRequest(1))
    expect(clock.pending).toBe(0)
  })
})

describe('from device to handler and back', () => {
  function bound(options: BenchOptions = {}) {
    const b = bench({ devices: [{ ats: true, pri: true }], ...options })
    const domain = b.nested()
    const table = new GuestTable(b, domain, 0x100)
    const pasid = b.ioasid.alloc(domain.set, 1, 100)
    domain.bindGpasid(bdfOf(0), bindData({ hpasid: BigInt(pasid), gpgd: BigInt(table.root) }))
    const answers: number[] = []
    const ask = (at: bigint, want: { pages?: number; write?: boolean; read?: boolean } = {}) =>
      b.ports[0]!.dma.pageRequest(at as never, want, { pasid: pasid as never }, c =>
        answers.push(c),
      )
    return { b, domain, table, pasid, answers, ask }
  }

  it('a page request is heard with its PASID, page and access; the answer lets the device go on', () => {
    const { b, domain, table, pasid, answers, ask } = bound()
    const heard: IommuFault[] = []
    b.core.onFault(bdfOf(0), f => heard.push(f) > 0)
    ask(0x7000_1234n & ~0xfffn, { write: true })
    b.clock.settle()
    const { flags, grpid, perm, addr, pasid: of } = heard[0]!.event.prm
    expect([heard.length, heard[0]!.type, flags]).toEqual([1, 2, 1 | 2 | 8])
    expect([of, perm, addr]).toEqual([pasid, 3, 0x7000_1000n])
    domain.map(0x40, b.page(0xabc), 1, 3)
    table.map(0x7000_1000n, 0x40)
    b.core.pageResponse(bdfOf(0), iommu_page_response({ version: 1, flags: 1, pasid, grpid }))
    b.clock.settle()
    expect(answers).toEqual([0])
    expect(b.read(0, 0x7000_1000n, pasid)).toBe(0xabc)
  })

  it('a group of pages is delivered page by page and answered once', () => {
    const { b, pasid, answers, ask } = bound()
    const heard: [bigint, number][] = []
    b.core.onFault(bdfOf(0), f => heard.push([f.event.prm.addr, f.event.prm.flags]) > 0)
    ask(0x1000n, { pages: 3 })
    b.clock.settle()
    expect(heard).toEqual([
      [0x1000n, 9],
      [0x2000n, 9],
      [0x3000n, 11],
    ])
    b.core.pageResponse(
      bdfOf(0),
      iommu_page_response({ version: 1, flags: 1, pasid, grpid: 0, code: 2 }),
    )
    b.clock.settle()
    expect(answers).toEqual([15])
  })

  it.each([
    ['nobody listens', undefined],
    ['the listener cannot take it', () => false],
  ])('INVALID at once when %s', (_name, handler) => {
    const { b, answers, ask } = bound()
    b.core.onFault(bdfOf(0), handler)
    ask(0x1000n)
    b.clock.settle()
    expect(answers).toEqual([1])
  })

  it('a request of a PASID that nobody bound is refused without being heard', () => {
    const { b, answers, pasid } = bound()
    let heard = 0
    b.core.onFault(bdfOf(0), () => ++heard > 0)
    const tag = { pasid: (pasid + 1) as never }
    b.ports[0]!.dma.pageRequest(0x1000n as never, {}, tag, c => answers.push(c))
    b.clock.settle()
    expect([answers, b.core.pendingPageRequests()]).toEqual([[1], 0])
  })

  it('times out on the clock', () => {
    const { b, answers, ask } = bound({ pageResponseTimeoutNs: 5000 })
    b.core.onFault(bdfOf(0), () => true)
    ask(0x1000n)
    b.clock.advance(4000)
    expect(answers).toEqual([])
    b.clock.advance(2000)
    expect(answers).toEqual([1])
  })

  it('unbind answers what waits, and detach too', () => {
    for (const end of ['unbind', 'detach'] as const) {
      const { b, domain, pasid, answers, ask } = bound()
      b.core.onFault(bdfOf(0), () => true)
      ask(0x1000n)
      if (end === 'unbind') domain.unbindGpasid(bdfOf(0), BigInt(pasid))
      else domain.detach(bdfOf(0))
      b.clock.settle()
      expect([end, answers, b.core.pendingPageRequests()]).toEqual([end, [1], 0])
    }
  })

  it.each([
    [
      'an unmapped first-stage page',
      true,
      0x5000n,
      { reason: 5, perm: 1, addr: 0x5000n, flags: 3 },
    ],
    ['an address that is not canonical', true, 1n << 60n, { reason: 8, perm: 1, flags: 3 }],
    [
      'an unmapped page without PASID',
      false,
      0x9_0000n,
      { reason: 5, perm: 1, addr: 0x9_0000n, flags: 2 },
    ],
  ])('a refused request is heard: %s', (_name, withPasid, at, expected) => {
    const { b, pasid } = bound({ devices: [{}] })
    const heard: IommuFault[] = []
    b.core.onFault(bdfOf(0), f => heard.push(f) > 0)
    b.read(0, at, withPasid ? pasid : undefined)
    expect(heard).toEqual([])
    b.clock.settle()
    expect([heard.length, heard[0]?.type]).toEqual([1, 1])
    const { reason, perm, addr, flags } = heard[0]!.event.event
    expect({ reason, perm, addr, flags }).toMatchObject(expected)
    expect(heard[0]!.event.event.pasid).toBe(withPasid ? pasid : 0)
  })

  it('more faults than records: those recorded are heard in order, and recording goes on', () => {
    const { b, pasid } = bound({ devices: [{}], vtd: { faultRecords: 2 } })
    const heard: bigint[] = []
    b.core.onFault(bdfOf(0), f => heard.push(f.event.event.addr) > 0)
    for (let i = 1n; i <= 4n; i++) b.read(0, i * 0x1000n, pasid)
    b.clock.settle()
    expect(heard).toEqual([0x1000n, 0x2000n])
    b.write(0, 0x9000n, 1, pasid)
    b.clock.settle()
    expect(heard).toEqual([0x1000n, 0x2000n, 0x9000n])
  })

  it('the page request queue goes round', () => {
    const { b, ask, answers } = bound()
    b.core.onFault(bdfOf(0), () => false)
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < 32; i++) ask(BigInt(i) * 0x1000n)
      b.clock.settle()
    }
    expect(answers).toEqual(Array(320).fill(1))
  })

  it('more page requests than the queue holds: the unit answers the rest, and the queue goes on', () => {
    const all = [0, 1, 2, 3, 4]
    const b = bench({ devices: all.map(() => ({ ats: true, pri: true })) })
    const domain = b.nested(all)
    const hpasid = BigInt(b.ioasid.alloc(domain.set, 1, 100))
    for (const n of all) domain.bindGpasid(bdfOf(n), bindData({ hpasid }))
    const answers: number[] = []
    const ask = (n: number, i: number) =>
      b.ports[n]!.dma.pageRequest(
        (BigInt(i) * 0x1000n) as never,
        {},
        { pasid: Number(hpasid) as never },
        code => answers.push(code),
      )
    for (const n of all) for (let i = 0; i < 32; i++) ask(n, i)
    expect(b.unit.regs.PRS_REG.PRO).toBe(true)
    b.clock.settle()
    expect([answers.filter(c => c === 1).length, answers.filter(c => c === 0).length]).toEqual([
      127, 33,
    ])
    expect(b.unit.regs.PRS_REG.PRO).toBe(false)
    ask(0, 0)
    b.clock.settle()
    expect(answers.length).toBe(161)
  })
})
