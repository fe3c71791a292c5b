// A guest's whole table on an SMMUv3: configurations and refusals, invalidation, page requests, stalls, messages.
import { describe, expect, it } from 'vitest'
import type { Iova, Pasid } from '../../src/base/addr.js'
import {
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
  iommu_page_response,
} from '../../src/iommu/uapi.js'
import {
  bdfOf,
  codeOf,
  Guest,
  invalidateInfo,
  type SmmuBench,
  smmuBench,
  tableConfig,
} from './smmu-bench.js'

const IOTLB = 1
const DEV = 2
const PASID_CACHE = 4
const DOMAIN = 0
const PASID = 1
const ADDR = 2
const BY_PASID = 1
const BY_ASID = 2
const GVA = 0x40_0000n

/** A bench with device 0 on a nesting domain, and a guest whose PASIDs 0 and 3 map GVA. */
function nest(shape = {}, options: Parameters<typeof smmuBench>[0] = {}) {
  const b = smmuBench({ devices: [{ ats: false, ...shape }], ...options })
  const domain = b.nested()
  const guest = new Guest(b, domain, 0x1000, 4)
  for (const pasid of [0, 3]) {
    guest.open(pasid)
    guest.map(pasid, GVA, guest.data(0x100 + pasid))
  }
  const set = (changes: Parameters<typeof tableConfig>[0] = {}) =>
    domain.guestTables!.setPasidTable(
      tableConfig({ base_ptr: BigInt(guest.contexts), pasid_bits: 4, s1dss: 2, ...changes }),
    )
  return { b, domain, guest, set }
}

describe('setting the table', () => {
  it('before it, addresses are the domain’s; after it, the guest’s; and back', () => {
    const { b, domain, guest, set } = nest()
    const page = guest.data(0x55)
    expect(b.read(0, BigInt(page) << 12n)).toBe(0x55)
    expect(b.read(0, GVA)).toBe('refused')
    set()
    expect([b.read(0, GVA), b.read(0, GVA, 3)]).toEqual([0x100, 0x103])
    expect(b.read(0, BigInt(page) << 12n)).toBe('refused')
    domain.guestTables!.unsetPasidTable()
    domain.guestTables!.unsetPasidTable()
    expect(b.read(0, BigInt(page) << 12n)).toBe(0x55)
    expect([b.read(0, GVA), b.read(0, GVA, 3)]).toEqual(['refused', 'refused'])
  })

  it('abort lets nothing pass, bypass the domain alone', () => {
    const { b, guest, set } = nest()
    const page = guest.data(0x55)
    set({ config: 3 })
    expect(b.read(0, BigInt(page) << 12n)).not.toBe(0x55)
    set({ config: 2 })
    expect(b.read(0, BigInt(page) << 12n)).toBe(0x55)
    set({ config: 1 })
    expect(b.read(0, GVA, 3)).toBe(0x103)
  })

  it.each([
    ['terminate', 0, 'refused', 0x100],
    ['bypass', 1, 'stage 2 only', 0x100],
    ['substream 0', 2, 0x100, 'aborted'],
  ] as const)('requests without PASID under S1DSS %s', (_, s1dss, without, substream0) => {
    const { b, guest, set } = nest()
    const page = guest.data(0x55)
    set({ s1dss })
    if (without === 'stage 2 only') expect(b.read(0, BigInt(page) << 12n)).toBe(0x55)
    else if (without === 'refused') expect(b.read(0, GVA)).not.toBe(0x100)
    else expect(b.read(0, GVA)).toBe(without)
    if (substream0 === 'aborted') expect(b.read(0, GVA, 0)).not.toBe(0x100)
    else expect(b.read(0, GVA, 0)).toBe(substream0)
    expect(b.read(0, GVA, 3)).toBe(0x103)
  })

  it('without PASID bits there is one descriptor; format and S1DSS say nothing', () => {
    const { b, set } = nest()
    set({ pasid_bits: 0, s1fmt: 77, s1dss: 77 })
    expect(b.read(0, GVA)).toBe(0x100)
    expect(b.read(0, GVA, 3)).not.toBe(0x103)
  })

  it.each([
    ['no such config', { config: 0 }],
    ['config 4', { config: 4 }],
    ['a base that is not aligned', { base_ptr: 0x20n }],
    ['a base beyond the domain', { base_ptr: 1n << 48n }],
    ['more PASID bits than the unit has', { pasid_bits: 21 }],
    ['no such format', { s1fmt: 3 }],
    ['no such S1DSS', { s1dss: 3 }],
  ])('EINVAL and nothing changes: %s', (_, changes) => {
    const { b, guest, set } = nest()
    const page = guest.data(0x55)
    expect(codeOf(() => set(changes))).toBe('EINVAL')
    expect(b.commands()).toEqual([])
    expect(b.read(0, BigInt(page) << 12n)).toBe(0x55)
  })

  it('EINVAL for a second table while there is one', () => {
    const { b, set } = nest()
    set()
    expect(codeOf(() => set())).toBe('EINVAL')
    expect(b.read(0, GVA, 3)).toBe(0x103)
  })

  it('a two-level table is refused by a unit without', () => {
    const { set } = nest({}, { smmu: { twoLevelCdTables: false } })
    expect(codeOf(() => set({ s1fmt: 1 }))).toBe('EINVAL')
  })

  it('a domain that does not nest refuses everything, and has no PASIDs of the host', () => {
    const b = smmuBench()
    const domain = b.core.domainAlloc(bdfOf(0))
    const tables = domain.guestTables!
    const info = invalidateInfo(IOTLB, DOMAIN)
    expect([
      codeOf(() => tables.setPasidTable(tableConfig())),
      codeOf(() => tables.bindMsi(0n, 0n, 4096n)),
      codeOf(() => domain.cacheInvalidate(bdfOf(0), info)),
      codeOf(() => domain.setIoasidSet(undefined)),
      codeOf(() => domain.bindGpasid(bdfOf(0), undefined as never)),
      codeOf(() => domain.unbindGpasid(bdfOf(0), 1n)),
    ]).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'ENODEV', 'ENODEV', 'ENODEV'])
    expect(domain.nestingInfo()).toBeUndefined()
  })

  it('a unit with one stage does not nest; one with two has info without a format', () => {
    const one = smmuBench({ smmu: { stage2: false } })
    expect(codeOf(() => one.core.domainAlloc(bdfOf(0), { nesting: true }))).toBe('ENODEV')
    const domain = smmuBench().nested()
    expect(domain.nestingInfo()).toMatchObject({ format: 0, features: 0, pasidBits: 0, cap: 0n })
  })

  it('a device that is attached later gets the table too, and detaching leaves nothing', () => {
    const b = smmuBench({ devices: [{ ats: true, pri: true }, {}] })
    const before = b.frames.used
    const domain = b.nested([0])
    const guest = new Guest(b, domain, 0x1000, 4)
    guest.open(3)
    guest.map(3, GVA, guest.data(7))
    domain.guestTables!.setPasidTable(
      tableConfig({ base_ptr: BigInt(guest.contexts), pasid_bits: 4 }),
    )
    domain.attach(bdfOf(1))
    expect([b.read(0, GVA, 3), b.read(1, GVA, 3), b.driver.bindingCount]).toEqual([7, 7, 2])
    domain.detach(bdfOf(0))
    domain.detach(bdfOf(1))
    expect([b.read(0, GVA, 3), b.read(1, GVA, 3)]).toEqual(['pasid-disabled', 'pasid-disabled'])
    guest.free()
    domain.free()
    expect([b.frames.used, b.driver.bindingCount]).toEqual([before, 0])
  })
})

describe('invalidation on behalf of the guest', () => {
  const tell = (b: SmmuBench, domain: ReturnType<typeof nest>['domain'], info: object) => {
    b.commands()
    domain.cacheInvalidate(bdfOf(0), info as never)
    return b.commands()
  }
  const range = { addr: GVA, granule_size: 4096n, nb_granules: 1n }

  it.each([
    ['all', IOTLB, DOMAIN, {}, ['TLBI_NH_ALL']],
    ['an ASID', IOTLB, PASID, { flags: BY_ASID, archid: 103 }, ['TLBI_NH_ASID']],
    ['a page', IOTLB, ADDR, { flags: BY_ASID, archid: 103, ...range }, ['TLBI_NH_VA']],
    ['a page of all ASIDs', IOTLB, ADDR, range, ['TLBI_NH_VAA']],
    [
      'more than a command can say',
      IOTLB,
      ADDR,
      { ...range, nb_granules: 1n << 40n },
      ['TLBI_NH_ALL'],
    ],
    [
      'more than a command can say, of an ASID',
      IOTLB,
      ADDR,
      { ...range, flags: BY_ASID, archid: 103, granule_size: 1n << 30n },
      ['TLBI_NH_ASID'],
    ],
  ])('drops what was cached: %s', (_, cache, granularity, of, commands) => {
    const { b, domain, guest, set } = nest()
    set()
    expect(b.read(0, GVA, 3)).toBe(0x103)
    guest.unmap(3, GVA)
    expect(b.read(0, GVA, 3)).toBe(0x103)
    expect(tell(b, domain, invalidateInfo(cache, granularity, of))).toEqual(commands)
    expect(b.read(0, GVA, 3)).toBe('refused')
  })

  it.each([
    ['another ASID', PASID, { flags: BY_ASID, archid: 104 }],
    ['another page', ADDR, { ...range, flags: BY_ASID, archid: 103, addr: GVA + 0x1000n }],
  ])('keeps what was not named: %s', (_, granularity, of) => {
    const { b, domain, guest, set } = nest()
    set()
    expect(b.read(0, GVA, 3)).toBe(0x103)
    guest.unmap(3, GVA)
    tell(b, domain, invalidateInfo(IOTLB, granularity, of))
    expect(b.read(0, GVA, 3)).toBe(0x103)
  })

  it.each([
    ['one', PASID, { flags: BY_PASID, pasid: 3n }, ['CFGI_CD']],
    ['all', DOMAIN, {}, ['CFGI_CD_ALL']],
  ])('context descriptors: %s', (_, granularity, of, commands) => {
    const { b, domain, guest, set } = nest()
    set()
    expect(b.read(0, GVA, 3)).toBe(0x103)
    guest.close(3)
    expect(b.read(0, GVA, 3)).toBe(0x103)
    expect(tell(b, domain, invalidateInfo(PASID_CACHE, granularity, of))).toEqual(commands)
    expect(b.read(0, GVA, 3)).not.toBe(0x103)
  })

  it('a device’s own cache: of one PASID, a page of it, and everything with an ASID', () => {
    const { b, domain, guest, set } = nest({ ats: true })
    set()
    let value = 0x200
    const again = () => {
      guest.map(3, GVA, guest.data(++value))
      return b.read(0, GVA, 3) === value ? 'fresh' : 'cached'
    }
    expect([b.read(0, GVA, 3), b.read(0, GVA)]).toEqual([0x103, 0x100])
    expect(again()).toBe('cached')
    const asid = { flags: BY_ASID, archid: 103 }
    const both = { flags: BY_ASID | BY_PASID, archid: 103, pasid: 3n }
    expect(tell(b, domain, invalidateInfo(IOTLB, PASID, asid))).toEqual([
      'TLBI_NH_ASID',
      'ATC_INV',
      'ATC_INV',
    ])
    expect(again()).toBe('fresh')
    expect(tell(b, domain, invalidateInfo(IOTLB | DEV, PASID, both))).toEqual([
      'TLBI_NH_ASID',
      'ATC_INV',
    ])
    expect(again()).toBe('fresh')
    const page = { ...both, ...range }
    expect(tell(b, domain, invalidateInfo(IOTLB | DEV, ADDR, page))).toEqual([
      'TLBI_NH_VA',
      'ATC_INV',
    ])
    expect(again()).toBe('fresh')
    const other = { flags: BY_PASID, pasid: 4n }
    expect(tell(b, domain, invalidateInfo(DEV, PASID, other))).toEqual(['ATC_INV'])
    expect(again()).toBe('cached')
  })

  it.each([
    ['translations by PASID', IOTLB, PASID, { flags: BY_PASID, pasid: 3n }, 'ENOENT'],
    ['no ASID', IOTLB, PASID, { flags: 0 }, 'EINVAL'],
    ['an ASID too wide', IOTLB, PASID, { flags: BY_ASID, archid: 0x1_0000 }, 'EINVAL'],
    ['a PASID too wide', DEV, PASID, { flags: BY_PASID, pasid: 1n << 20n }, 'EINVAL'],
    ['a PASID of 64 bits', DEV, PASID, { flags: BY_PASID, pasid: 1n << 63n }, 'EINVAL'],
    ['descriptors without PASID', PASID_CACHE, PASID, { flags: BY_ASID }, 'EINVAL'],
    [
      'a granule that is no power of two',
      IOTLB,
      ADDR,
      { ...range, granule_size: 0x3000n },
      'EINVAL',
    ],
    ['no granule size', IOTLB, ADDR, { ...range, granule_size: 0n }, 'EINVAL'],
    ['no granules', IOTLB, ADDR, { ...range, nb_granules: 0n }, 'EINVAL'],
  ])('refuses, and drops nothing: %s', (_, cache, granularity, of, code) => {
    const { b, domain, set } = nest()
    set()
    b.commands()
    const info = invalidateInfo(cache, granularity, of)
    expect(codeOf(() => domain.cacheInvalidate(bdfOf(0), info))).toBe(code)
    expect(codeOf(() => domain.cacheInvalidate(bdfOf(7), info))).toBe('EINVAL')
    expect(b.commands()).toEqual([])
  })

  it.each([false, true])('an unmap of the host’s drops nested translations: ATS %s', ats => {
    const { b, domain, guest, set } = nest({ ats })
    set()
    const data = guest.data(0x66)
    guest.map(3, GVA + 0x1000n, data)
    expect(b.read(0, GVA + 0x1000n, 3)).toBe(0x66)
    domain.unmap(data, 1)
    domain.flush()
    expect(b.read(0, GVA + 0x1000n, 3)).not.toBe(0x66)
    if (!ats) expect(b.unit.lastFault).toMatchObject({ name: 'F_TRANSLATION', stage: 2 })
  })
})

describe('page requests', () => {
  const listen = (b: SmmuBench) => {
    const seen: IommuFault[] = []
    b.core.onFault(bdfOf(0), f => seen.push(f) > 0)
    return seen
  }
  const ask = (b: SmmuBench, address: bigint, pasid?: number) => {
    const answers: number[] = []
    const tag = pasid === undefined ? {} : { pasid: pasid as Pasid }
    b.ports[0]!.dma.pageRequest(address as Iova, {}, tag, code => answers.push(code))
    b.clock.settle()
    return answers
  }
  const answer = (b: SmmuBench, f: IommuFault, code: number) => {
    const { grpid, pasid } = f.event.prm
    b.core.pageResponse(bdfOf(0), iommu_page_response({ version: 1, flags: 1, grpid, pasid, code }))
  }

  it('reach the handler, and the answer the device, which then gets its page', () => {
    const { b, guest, set } = nest({ ats: true, pri: true })
    set()
    const seen = listen(b)
    const at = GVA + 0x5000n
    expect(b.read(0, at, 3)).toBe('not-present')
    const answers = ask(b, at, 3)
    expect(answers).toEqual([])
    expect(seen.map(f => f.event.prm)).toMatchObject([{ flags: 11, pasid: 3, addr: at, perm: 1 }])
    guest.map(3, at, guest.data(0x88))
    answer(b, seen[0]!, IOMMU_PAGE_RESP_SUCCESS)
    b.clock.settle()
    expect(answers).toEqual([0])
    expect(b.read(0, at, 3)).toBe(0x88)
  })

  it.each([
    ['nobody listens', true, false],
    ['no table is set', false, true],
  ])('are answered INVALID at once when %s', (_, table, handler) => {
    const { b, set } = nest({ ats: true, pri: true })
    if (table) set()
    if (handler) listen(b)
    expect(ask(b, GVA, 3)).toEqual([1])
  })

  it('are answered INVALID when the table goes, or the device', () => {
    const { b, domain, set } = nest({ ats: true, pri: true })
    set()
    const seen = listen(b)
    const first = ask(b, GVA + 0x5000n, 3)
    domain.guestTables!.unsetPasidTable()
    b.clock.settle()
    expect(first).toEqual([1])
    expect(codeOf(() => answer(b, seen[0]!, IOMMU_PAGE_RESP_SUCCESS))).toBe('EINVAL')
    set()
    const second = ask(b, GVA + 0x5000n, 3)
    expect(b.core.pendingPageRequests()).toBe(1)
    domain.detach(bdfOf(0))
    b.clock.settle()
    expect([second, b.core.pendingPageRequests()]).toEqual([[1], 0])
  })
})

describe('stalled transactions', () => {
  const stalling = () => {
    const n = nest({}, { mayStall: () => true })
    n.guest.open(5, { S: true })
    n.set()
    const seen: IommuFault[] = []
    n.b.core.onFault(bdfOf(0), f => seen.push(f) > 0)
    const outcomes: string[] = []
    n.b.trace.listen('smmu.stall', e => outcomes.push(e.what))
    return { ...n, seen, outcomes }
  }

  it.each([
    ['retried', IOMMU_PAGE_RESP_SUCCESS, 'retry'],
    ['aborted', IOMMU_PAGE_RESP_INVALID, 'abort'],
  ])('are page requests that are answered: %s', (_, code, outcome) => {
    const { b, seen, outcomes } = stalling()
    expect(b.read(0, GVA, 5)).toBe('stalled')
    b.clock.settle()
    const { flags, pasid, addr, grpid } = seen[0]!.event.prm
    expect({ type: seen[0]!.type, flags, pasid, addr }).toEqual({
      type: 2,
      flags: 11,
      pasid: 5,
      addr: GVA,
    })
    b.core.pageResponse(bdfOf(0), iommu_page_response({ version: 1, flags: 1, grpid, pasid, code }))
    expect([outcomes, b.unit.stalled]).toEqual([['stalled', outcome], 0])
  })

  it('end when the device leaves', () => {
    const { b, domain, outcomes } = stalling()
    b.read(0, GVA, 5)
    b.read(0, GVA + 0x1000n, 5)
    b.clock.settle()
    domain.detach(bdfOf(0))
    expect([outcomes, b.unit.stalled, b.core.pendingPageRequests()]).toEqual([
      ['stalled', 'stalled', 'abort', 'abort'],
      0,
      0,
    ])
  })

  it('do not arise for a function that firmware does not name', () => {
    const { b, guest, set } = nest()
    guest.open(5, { S: true })
    set()
    expect(b.read(0, GVA, 5)).toBe('refused')
    expect(b.unit.stalled).toBe(0)
  })
})

describe('messages to a guest’s doorbell', () => {
  const GIOVA = 0x7000_0000n
  const GDB = 0x0800_0000n

  it('go to the bound address, through both stages, from the owner only', () => {
    const { b, domain, guest, set } = nest()
    b.fabric.doorbell = { ...b.unit.config.doorbell, sink: b.interrupts }
    set()
    domain.guestTables!.bindMsi(GIOVA, GDB, 4096n)
    let arrived = 0
    const vector = b.core.allocateVector(bdfOf(0), () => arrived++)
    expect(BigInt(vector.address)).toBe(GIOVA)
    b.write(0, GIOVA, vector.data)
    expect([arrived, b.unit.lastFault?.stage]).toEqual([0, 1])
    guest.map(0, GIOVA, Number(GDB >> 12n))
    expect(b.write(0, GIOVA, vector.data)).toBe('ok')
    expect(arrived).toBe(1)
    expect(domain.iovaToPhys(Number(GDB >> 12n))).toBe(0xfee00)
    vector.free()
    expect(domain.iovaToPhys(Number(GDB >> 12n))).toBe(-1)
    b.write(0, GIOVA, vector.data)
    expect(arrived).toBe(1)
  })

  it('share a binding, which may go before them', () => {
    const { b, domain, set } = nest()
    set()
    const tables = domain.guestTables!
    tables.bindMsi(GIOVA + 0x123n, GDB, 4096n)
    tables.bindMsi(GIOVA, GDB + 0x1000n, 4096n)
    const vectors = [0, 1].map(() => b.core.allocateVector(bdfOf(0), () => {}))
    expect(vectors.map(v => BigInt(v.address))).toEqual([GIOVA, GIOVA])
    tables.unbindMsi(GIOVA)
    tables.unbindMsi(GIOVA)
    expect(domain.iovaToPhys(Number(GDB >> 12n))).toBe(-1)
    for (const v of vectors) v.free()
    expect(b.core.allocateVector(bdfOf(0), () => {}).address).toBeGreaterThanOrEqual(0xfee0_0000)
  })

  it.each([0n, 2048n, 0x3000n])('EINVAL for a size of %d bytes', size => {
    const { domain } = nest()
    expect(codeOf(() => domain.guestTables!.bindMsi(0n, 0n, size))).toBe('EINVAL')
  })

  it('EINVAL for a guest address beyond the domain', () => {
    const { domain } = nest()
    expect(codeOf(() => domain.guestTables!.bindMsi(0n, 1n << 48n, 4096n))).toBe('EINVAL')
  })
})
