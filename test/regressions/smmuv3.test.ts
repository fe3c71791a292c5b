// The documented edge cases on a host with an SMMUv3: those that ask the same there, and the whole-table analogues that
// profile N13 has. Which ids these are, and why the others are not: smmuv3-ids.ts.
import { describe, expect, it } from 'vitest'
import type { IommuDriver } from '../../src/iommu/index.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import type { InvalidationMembers, PasidTableMembers } from '../../src/testing/index.js'
import { invalidation, pasidRequest, pasidTable } from '../../src/testing/index.js'
import {
  IOMMU_INV_GRANU_ADDR as BY_ADDRESS,
  IOMMU_INV_GRANU_DOMAIN as BY_DOMAIN,
  IOMMU_INV_GRANU_PASID as BY_PASID,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB as DEVICE,
  IOMMU_CACHE_INV_TYPE_PASID as ENTRY,
  IOMMU_CACHE_INV_TYPE_IOTLB as IOTLB,
  VFIO_CHECK_EXTENSION,
  VFIO_IOMMU_CACHE_INVALIDATE,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_SET_PASID_TABLE,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_cache_invalidate,
  vfio_iommu_type1_info,
  vfio_iommu_type1_set_pasid_table,
} from '../../src/uapi.js'
import { bench, heard, nestingSmmu, type SmmuOptions, standIn, testDevice } from './support.js'

const NESTING = VFIO_TYPE1_NESTING_IOMMU
const V2 = VFIO_TYPE1v2_IOMMU
const smmu = (options: SmmuOptions = {}) => bench({ iommu: 'smmuv3', ...options })

/** A container with groups and, unless told, no IOMMU type yet. */
function container(options: SmmuOptions = {}, type?: number, groups = 1) {
  const b = smmu(options)
  const p = b.process()
  const ids = b.functions.slice(0, groups).map(f => f.group)
  return { b, p, c: p.container(type, ...ids) }
}

/** A nesting container whose guest has a table at 0x1_0000 of a mapped megabyte at 0. */
function withTable(options: SmmuOptions = {}) {
  const s = nestingSmmu(options)
  const memory = s.p.memory(2 ** 20)
  s.c.map(0n, memory.vaddr, 2 ** 20)
  s.c.setPasidTable(TABLE)
  return { ...s, memory }
}
const TABLE: PasidTableMembers = { base_ptr: 0x1_0000n, pasid_bits: 6, s1dss: 1 }

/** A space under PASID 7 with one page. */
function space(options: SmmuOptions = {}) {
  const b = smmu(options)
  const s = b.bind(7)
  s.map(0x1000n, b.page('here'))
  return { b, s, read: (device = 0) => b.dmaRead(0x1000n, { pasid: 7, device }) }
}

/** Commands that the unit executed while `work` ran, CMD_SYNC left out. */
const commands = (b: ReturnType<typeof smmu>, work: () => unknown): string[] =>
  heard(b, 'smmu.command', work)
    .map(e => e.command)
    .filter(name => name !== 'SYNC')

const answers = (call: () => unknown, errno: 'EINVAL' | 'ENOENT' | undefined, value?: unknown) => {
  if (errno) expect(call).toRefuse(errno)
  else expect(call).toSucceed(...(value === undefined ? [] : [value]))
}

describe('container state', () => {
  it.each(['V7R', 'N13'] as const)('E01 SET_IOMMU without a group is EINVAL: %s', profile => {
    expect(() => smmu({ profile }).process().container().setIommu(NESTING)).toRefuse('EINVAL')
  })
  it.each([
    ['V7R', 1],
    ['V7', 1],
    ['V8', 1],
    ['L59', 1],
    ['L512', 1],
    ['L72', 0],
    ['N13', 1],
  ] as const)('E02 %s answers %d to CHECK_EXTENSION(6)', (profile, answer) => {
    const c = smmu({ profile }).process().container()
    expect(c.call(VFIO_CHECK_EXTENSION, NESTING)).toBe(answer)
  })
  it.each([
    ['V7R', 'EOPNOTSUPP', 'EOPNOTSUPP', 'EINVAL'],
    ['V7', 'EOPNOTSUPP', 'EOPNOTSUPP', 'EINVAL'],
    ['V8', 'EOPNOTSUPP', 'EOPNOTSUPP', 'EOPNOTSUPP'],
    ['L59', 'ENOTTY', 'ENOTTY', 'ENOTTY'],
    ['L512', 'ENOTTY', 'ENOTTY', 'ENOTTY'],
    ['L72', 'ENOTTY', 'ENOTTY', 'ENOTTY'],
  ] as const)(
    'E03, E04, E05 PASID_REQUEST on a TYPE1v2 container of %s: alloc %s, flags 0 %s, min above max %s',
    (profile, alloc, flags0, range) => {
      const { c } = container({ profile }, V2)
      expect(() => c.request(1, 1, 100)).toRefuse(alloc)
      expect(() => c.request(0)).toRefuse(flags0)
      expect(() => c.request(0, 5, 4)).toRefuse(range)
    },
  )
  it('E06 calls of a driver before SET_IOMMU are EINVAL', () => {
    const { c } = container({ profile: 'V7R' })
    expect(() => c.alloc()).toRefuse('EINVAL')
    expect(() => c.bind(1)).toRefuse('EINVAL')
    const n13 = container()
    expect(() => n13.c.setPasidTable()).toRefuse('EINVAL')
    expect(() => n13.c.cacheInvalidate(1)).toRefuse('EINVAL')
  })
  it('E07 N13 takes a second group, and the table is for both', () => {
    const { b, p, c } = nestingSmmu()
    expect(() => p.group(b.functions[1]!.group, c.fd)).toSucceed()
    c.setPasidTable(TABLE)
    expect(b.holdings().bindings).toBe(2)
    c.unsetPasidTable()
    expect(b.holdings().bindings).toBe(0)
  })
  // V7R: the first group is refused already, as E11 says.
  it.each([
    ['V7R', 'ENOENT'],
    ['N13', undefined],
  ] as const)('E08 nesting with two groups: %s answers %s', (profile, errno) => {
    const { b, c } = container({ profile }, undefined, 2)
    const before = b.holdings()
    answers(() => c.setIommu(NESTING), errno, 0)
    if (errno === undefined) return
    expect(b.holdings()).toEqual(before)
    expect(() => c.setIommu(V2)).toSucceed(0)
  })
  it.each([
    ['V7R', [2]],
    ['N13', [2, 3]],
  ] as const)(
    'E09 %s takes a software mdev into a nesting container, without NESTING capability: %j',
    (profile, ids) => {
      const b = smmu({ profile })
      const c = b.process().container(undefined, b.mdev().group)
      expect(() => c.setIommu(NESTING)).toSucceed(0)
      expect(c.info().capabilities.map(({ id }) => id)).toEqual(ids)
    },
  )
  it('E10 a software mdev counts as the one group of a nesting container of V7R', () => {
    const b = smmu({ profile: 'V7R' })
    const p = b.process()
    const c = p.container(NESTING, b.mdev().group)
    expect(() => p.group(b.functions[0]!.group, c.fd)).toRefuse('EINVAL')
  })
  it.each([
    ['V7R', 'ENOENT', undefined],
    ['V8', 'ENOENT', undefined],
    ['V7', undefined, 'ENOENT'],
    ['L59', undefined, undefined],
    ['L512', undefined, undefined],
    ['N13', undefined, undefined],
  ] as const)(
    'E11 a unit with two stages: %s SET_IOMMU %s, GET_INFO %s',
    (profile, attach, info) => {
      const { b, c } = container({ profile })
      const before = b.holdings()
      answers(() => c.setIommu(NESTING), attach, 0)
      if (attach) expect(b.holdings()).toEqual(before)
      else answers(() => c.info(), info)
    },
  )
  it.each([
    ['V7R', 'ENODEV'],
    ['V7', 'ENODEV'],
    ['V8', 'ENODEV'],
    ['L59', undefined],
    ['L512', undefined],
    ['L72', 'ENODEV'],
    ['N13', undefined],
  ] as const)('E12 a unit with stage 1 only: %s answers %s', (profile, errno) => {
    const { c } = container({ profile, smmu: { stage2: false } })
    const call = () => c.setIommu(NESTING)
    if (errno) expect(call).toRefuse(errno)
    else expect(call).toSucceed(0)
  })
  it('E156 without isolated interrupts SET_IOMMU is EPERM, and everything reserved is given back', () => {
    const wrapDriver = (driver: IommuDriver) =>
      new Proxy(driver, {
        get(target, name) {
          if (name === 'isolatesInterrupts') return false
          const value = Reflect.get(target, name, target) as unknown
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
    const { b, c } = container({ wrapDriver })
    const before = b.holdings()
    for (const type of [V2, NESTING]) {
      expect(() => c.setIommu(type)).toRefuse('EPERM')
      expect(b.holdings()).toEqual(before)
    }
  })
})

describe('GET_INFO of N13', () => {
  const info = (init: Parameters<typeof vfio_iommu_type1_info>[0] = {}) => {
    const { c } = nestingSmmu()
    const arg = vfio_iommu_type1_info(init)
    expect(() => c.call(VFIO_IOMMU_GET_INFO, arg)).toSucceed(0)
    return { arg, all: c.info().info.bytes.length }
  }
  it('E15 with argsz 16 tells the size and touches nothing beyond', () => {
    const { arg, all } = info({ argsz: 16, cap_offset: 0x1111, pad: 0x2222 })
    expect(arg).toMatchObject({ argsz: all, flags: 3, cap_offset: 0x1111, pad: 0x2222 })
  })
  it('E16 with argsz 24 tells the size, cap_offset 0', () => {
    const { arg, all } = info({ cap_offset: 77 })
    expect(arg).toMatchObject({ argsz: all, cap_offset: 0 })
  })
  it('E17 with enough room: the chain is that of 5.12, without NESTING', () => {
    const { capabilities, info } = nestingSmmu().c.info()
    expect(capabilities.map(c => c.id)).toEqual([2, 3, 1])
    expect(info.cap_offset).toBe(24)
  })
  it('E18 is the same once the group is in a TYPE1v2 container', () => {
    const { b, p, c } = nestingSmmu()
    const nested = c.info().capabilities
    c.close()
    expect(p.container(V2, b.functions[0]!.group).info().capabilities).toEqual(nested)
  })
  it('E168 answers the same with a table and without, and so does CHECK_EXTENSION', () => {
    const { c } = nestingSmmu()
    const all = () => [c.call(VFIO_CHECK_EXTENSION, NESTING), [...c.info().info.bytes]]
    const before = all()
    c.setPasidTable(TABLE)
    expect(all()).toEqual(before)
    c.unsetPasidTable()
    expect(all()).toEqual(before)
  })
})

describe('SET_PASID_TABLE, as BIND is asked', () => {
  it('E61 with all members valid succeeds, for each device of the group', () => {
    const { b } = withTable({ acs: false, devices: [[testDevice(), testDevice()]] })
    expect(b.holdings().bindings).toBe(2)
  })
  it('E62 a second time is EINVAL; the first table is kept', () => {
    const { b, c } = withTable()
    expect(() => c.setPasidTable(TABLE)).toRefuse('EINVAL')
    expect(b.holdings().bindings).toBe(1)
  })
  // biome-ignore format: table
  it.each([
    ['E69 argsz 23',                      { argsz: 23 }],
    ['E70 argsz 31, no SMMUv3 part',      { argsz: 31 }],
    ['E72 version 0',                     { version: 0 }],
    ['E72 version 2',                     { version: 2 }],
    ['E73 format 0',                      { format: 0 }],
    ['E73 format 2',                      { format: 2 }],
    ['E75 padding',                       { padding: [0, 1] }],
    ['E81 base_ptr beyond the domain',    { base_ptr: 1n << 48n }],
    ['E83 more PASID bits than there are', { pasid_bits: 17 }],
  ] as const)('%s is EINVAL, and a table can be set afterwards', (_, members) => {
    const { b, c } = nestingSmmu({ smmu: { substreamIdBits: 16 } })
    expect(() => c.setPasidTable({ ...TABLE, ...members })).toRefuse('EINVAL')
    expect(b.holdings().bindings).toBe(0)
    expect(() => c.setPasidTable(TABLE)).toSucceed(0)
  })
  it('E71 inner argsz 200 with anything after the known part succeeds', () => {
    const { c } = nestingSmmu()
    const bytes = new Uint8Array(8 + 200).fill(0xa5)
    const config = pasidTable({ ...TABLE, argsz: 200 })
    bytes.set(vfio_iommu_type1_set_pasid_table({ argsz: 208, flags: 1, config }).bytes)
    expect(() => c.call(VFIO_IOMMU_SET_PASID_TABLE, { bytes })).toSucceed(0)
  })
  it('E82 of a table that is not mapped succeeds; the first request faults', () => {
    const { b, c } = nestingSmmu()
    expect(() => c.setPasidTable({ ...TABLE, base_ptr: 0x7777_0000n })).toSucceed(0)
    expect(b.dmaRead(0x1000n, { pasid: 5 })).toFaultWith('F_TRANSLATION', { pasid: 5 })
  })
  it.each([
    ['E85 outer argsz 8', 8, 1, undefined],
    ['E86 outer argsz 7', 7, 1, 'EINVAL'],
    ['E87 outer flags 0x10000', 40, 0x1_0000, 'EINVAL'],
    ['E88 SET and UNSET', 40, 3, 'EINVAL'],
    ['E88 neither', 40, 0, 'EINVAL'],
  ] as const)('%s: %4$s', (_, argsz, flags, errno) => {
    const { c } = nestingSmmu()
    const arg = vfio_iommu_type1_set_pasid_table({ argsz, flags, config: pasidTable(TABLE) })
    answers(() => c.call(VFIO_IOMMU_SET_PASID_TABLE, arg), errno, 0)
  })
  it.each([
    ['E89 23 readable bytes, argsz 32', 23, 32, 'EFAULT'],
    ['E90 24 readable bytes, argsz 24', 24, 24, 'EINVAL'],
    ['24 readable bytes, argsz 32', 24, 32, 'EFAULT'],
  ] as const)('%s: %4$s', (_, readable, argsz, errno) => {
    const { p, c } = nestingSmmu()
    const config = pasidTable({ ...TABLE, argsz })
    const { bytes } = vfio_iommu_type1_set_pasid_table({ flags: 1, config })
    const at = p.atEndOfPage(bytes.subarray(0, 8 + readable))
    expect(() => c.call(VFIO_IOMMU_SET_PASID_TABLE, at)).toRefuse(errno)
  })
  it('E94 UNSET of a table never set succeeds', () => {
    expect(() => nestingSmmu().c.unsetPasidTable()).toSucceed(0)
  })
  it('E101 with a software mdev alone there is no domain: nothing to set, 0', () => {
    const b = smmu()
    const c = b.process().container(NESTING, b.mdev().group)
    expect(() => c.setPasidTable(TABLE)).toSucceed(0)
    expect(() => c.cacheInvalidate({ granularity: BY_DOMAIN })).toSucceed(0)
  })
})

describe('what ends a table, and what does not', () => {
  it('E53 a PASID whose descriptor the guest took away faults', () => {
    const { s, read } = space()
    expect(read()).toEqual({ text: 'here' })
    s.free()
    expect(read()).toFaultWith('C_BAD_CD', { pasid: 7 })
  })
  it('E57 both devices of a group find the descriptor gone', () => {
    const { s, read } = space({ acs: false, devices: [[testDevice(), testDevice()]] })
    for (const device of [0, 1]) expect(read(device)).toEqual({ text: 'here' })
    s.free()
    for (const device of [0, 1]) expect(read(device)).toFaultWith('C_BAD_CD', { pasid: 7 })
  })
  it('E98 UNSET_CONTAINER takes it away', () => {
    const { b, c } = withTable()
    c.unset()
    expect(b.holdings()).toMatchObject({ bindings: 0, containers: 0, mappings: 0 })
  })
  it('E99 a group that goes to another container comes without it', () => {
    const { b, p, c } = withTable()
    c.close()
    const again = p.nesting()
    expect(b.holdings().bindings).toBe(0)
    expect(b.dmaRead(0x1000n, { pasid: 5 })).toMatchObject({ pasid: 5, fault: expect.any(String) })
    expect(() => again.setPasidTable(TABLE)).toSucceed(0)
  })
  it('E100 a device reset keeps it', () => {
    const { b, c } = withTable({ device: dmaCopy })
    expect(() => c.device().reset()).toSucceed(0)
    expect(b.holdings().bindings).toBe(1)
  })
  it('E167 UNMAP_DMA under the table keeps it; the next walk faults', () => {
    const { b, c, memory } = withTable()
    expect(b.dmaRead(0n, { pasid: 5 })).toFaultWith('C_BAD_CD', { pasid: 5 })
    expect(() => c.unmap(0n, 2 ** 20)).toSucceed(2n ** 20n)
    expect(b.dmaRead(0n, { pasid: 5 })).toFaultWith('F_TRANSLATION', { pasid: 5 })
    expect(b.holdings().bindings).toBe(1)
    c.map(0n, memory.vaddr, 2 ** 20)
    expect(b.dmaRead(0n, { pasid: 5 })).toFaultWith('C_BAD_CD', { pasid: 5 })
  })
  const orders = [
    ['container', 'group', 'device'],
    ['container', 'device', 'group'],
    ['group', 'container', 'device'],
    ['group', 'device', 'container'],
    ['device', 'container', 'group'],
    ['device', 'group', 'container'],
  ] as const
  it.each(orders)('E162 closing %s, %s, %s detaches and leaves nothing', (...order) => {
    const { b, p, c } = withTable()
    const files = { container: c.fd, group: c.groups[0]!, device: c.deviceFd() }
    const seen: string[] = []
    b.machine.trace.listen('smmu.driver', e => void seen.push(e.what))
    for (const name of order) p.sys.close(files[name])
    b.settle()
    expect(seen).toEqual(['detach'])
    p.exit()
    expect(b).toHoldNothing()
  })
})

describe('CACHE_INVALIDATE, which tells what became of it', () => {
  // biome-ignore format: table
  const rows: readonly (readonly [string, InvalidationMembers, 'EINVAL' | 'ENOENT' | undefined, readonly string[]])[] = [
    ['E104 granularity 3',                       { granularity: 3 },                                 'EINVAL',  []],
    ['E105 device TLB by domain',                { cache: DEVICE, granularity: BY_DOMAIN },          'EINVAL',  []],
    ['E106 IOTLB and CD cache by address',       { cache: IOTLB | ENTRY, granularity: BY_ADDRESS },  'EINVAL',  []],
    ['E107 IOTLB by domain',                     { granularity: BY_DOMAIN },                         undefined, ['TLBI_NH_ALL']],
    ['E109 argsz 31 by PASID',                   { argsz: 31 },                                      'EINVAL',  []],
    ['E110 argsz 16 by domain, a fitting size',  { granularity: BY_DOMAIN, argsz: 16 },              undefined, ['TLBI_NH_ALL']],
    ['E111 three pages by address',              { flags: 2, archid: 9, addr: 0x1000n, granules: 3n }, undefined, ['TLBI_NH_VA']],
    ['E114 by address without PASID and ARCHID', { addr: 0x1000n, flags: 0 },                        undefined, ['TLBI_NH_VAA']],
    ['E115 no cache',                            { cache: 0, granularity: BY_DOMAIN },               undefined, []],
    ['the CD of a PASID',                        { cache: ENTRY, pasid: 5 },                         undefined, ['CFGI_CD']],
    ['translations by PASID alone',              { pasid: 5 },                                       'ENOENT',  []],
    ['E160 a PASID with bit 32 set',             { cache: ENTRY, pasid: 0x1_0000_0005n },            'EINVAL',  []],
  ]
  it.each(rows)('%s: %3$s', (_, members, errno, done) => {
    const { b, c } = withTable()
    expect(commands(b, () => answers(() => c.cacheInvalidate(members), errno, 0))).toEqual(done)
  })
  it('E103 on a container that does not nest is EINVAL', () => {
    expect(() => container({}, V2).c.cacheInvalidate({ granularity: BY_DOMAIN })).toRefuse('EINVAL')
  })
  it.each([false, true])(
    'E108 IOTLB and device TLB by PASID reaches both where there is ATS: %s',
    ats => {
      const { b, c } = withTable({ device: testDevice({ ats }) })
      const members = {
        cache: IOTLB | DEVICE,
        granularity: BY_PASID,
        flags: 3,
        pasid: 5,
        archid: 9,
      }
      const done = commands(b, () => c.cacheInvalidate(members))
      expect(done).toEqual(ats ? ['TLBI_NH_ASID', 'ATC_INV'] : ['TLBI_NH_ASID'])
    },
  )
  it('E116 an entry cleared without it may still be used; after it never', () => {
    const { s, read } = space()
    read()
    s.unmap(0x1000n)
    expect(read()).toEqual({ text: 'here' })
    s.invalidate(0x1000n)
    expect(read()).toFaultWith('F_TRANSLATION', { pasid: 7, at: 0x1000n })
  })
  it('E166 a readable header before an unreadable payload: EFAULT, told', () => {
    const { p, c } = withTable()
    const { bytes } = vfio_iommu_type1_cache_invalidate({ info: invalidation(5) })
    const at = p.atEndOfPage(bytes.subarray(0, 8))
    expect(() => c.call(VFIO_IOMMU_CACHE_INVALIDATE, at)).toRefuse('EFAULT')
  })
  it('E158 reads the payload once: all devices get the same, whatever the caller changes meanwhile', () => {
    let change = () => {}
    const wrapDriver = (driver: IommuDriver) =>
      standIn(driver, domain => {
        const invalidate = domain.cacheInvalidate.bind(domain)
        domain.cacheInvalidate = (bdf, info) => {
          invalidate(bdf, info)
          change()
        }
      })
    const { b, p, c } = withTable({
      acs: false,
      devices: [[testDevice(), testDevice()]],
      wrapDriver,
    })
    const of = (members: InvalidationMembers) =>
      vfio_iommu_type1_cache_invalidate({ info: invalidation(members) }).bytes
    const at = p.atEndOfPage(of({ cache: ENTRY, pasid: 5 }))
    change = () => void p.sys.process.memory.copyOut(Number(at), of({ cache: 0, pasid: 5 }))
    const done = commands(b, () => c.call(VFIO_IOMMU_CACHE_INVALIDATE, at))
    expect(done).toEqual(['CFGI_CD', 'CFGI_CD'])
  })
})

describe('the calls and their files', () => {
  it('E163 once the group left, calls on the container are EINVAL', () => {
    const { c } = withTable()
    c.unset()
    expect(() => c.setPasidTable(TABLE)).toRefuse('EINVAL')
    expect(() => c.cacheInvalidate({ granularity: BY_DOMAIN })).toRefuse('EINVAL')
  })
  it.each([
    ['N13', NESTING],
    ['V7R', V2],
  ] as const)('E164 the calls of %s are ENOTTY on group and device', (profile, type) => {
    const { p, c } = container({ profile }, type)
    for (const fd of [c.groups[0]!, c.deviceFd()])
      for (const cmd of [0x3b76, 0x3b77, 0x3b78])
        expect(() => p.sys.ioctl(fd, cmd, 0)).toRefuse('ENOTTY')
  })
  it('E165 an unreadable argument is EFAULT before support is asked about', () => {
    const { p, c } = container({ profile: 'V7R' }, V2)
    expect(() => c.requestAt(0x1000n)).toRefuse('EFAULT')
    const { bytes } = pasidRequest(1, 1, 9)
    expect(() => c.requestAt(p.atEndOfPage(bytes.subarray(0, 15)))).toRefuse('EFAULT')
  })
  it('E134 /dev/ioasid of V8 is open once in a process, whatever IOMMU there is', () => {
    const { sys } = smmu({ profile: 'V8' }).process()
    sys.open('/dev/ioasid')
    expect(() => sys.open('/dev/ioasid')).toRefuse('EBUSY')
  })
})

it('E135 /dev/ioasid hands out nothing in a control group with max 0: EINVAL', () => {
  const options = { profile: 'V8', parameters: { ioasidsMax: 0 } } as const
  expect(() => container(options, V2).c.alloc()).toRefuse('EINVAL')
  expect(() => container({ profile: 'V8' }, V2).c.alloc()).toSucceed(1)
})

describe('configuration space', () => {
  const open = (options: SmmuOptions, i = 0) => {
    const b = smmu(options)
    const c = b.process().container(V2, b.functions[i]!.group)
    const device = c.device(i)
    const chain: [number, number][] = []
    for (let at = 0x100; at !== 0; ) {
      const header = device.config(at, 4)
      if ((header & 0xffff) !== 0) chain.push([header & 0xffff, at])
      at = header >>> 20
    }
    return { b, device, chain, ids: chain.map(([id]) => id) }
  }
  const [ATS, SRIOV, PRI, PASID] = [0x0f, 0x10, 0x13, 0x1b] as const

  it.each([
    ['V7R', [ATS, PASID, PRI]],
    ['L59', [ATS, PRI]],
    ['L512', [ATS, PRI]],
    ['L72', [ATS, PRI]],
    ['N13', [ATS, PRI]],
  ] as const)('E136 PASID between two others: the chain of %s is %j', (profile, expected) => {
    expect(open({ profile, device: testDevice({ ats: true, pri: true }) }).ids).toEqual(expected)
  })
  it.each([
    ['V7R', PASID, 1],
    ['L59', 0, 0],
    ['N13', 0, 0],
  ] as const)(
    'E137 PASID at 0x100: %s reads id %d, version %d, next kept',
    (profile, id, version) => {
      const { device, ids } = open({ profile, device: testDevice({ vfs: 1 }) })
      const header = device.config(0x100, 4)
      expect([header & 0xffff, (header >>> 16) & 15]).toEqual([id, version])
      expect(ids).toEqual(id ? [PASID, SRIOV] : [SRIOV])
    },
  )
  it.each(['V7R', 'V7'] as const)(
    'E138 %s takes a write of its control and changes nothing',
    profile => {
      const { device, chain } = open({ profile })
      const at = chain[0]![1] + 6
      const before = device.config(at, 2)
      expect(device.writeConfig(at, Uint8Array.of(~before & 0xff, 0))).toBe(2)
      expect(device.config(at, 2)).toBe(before)
    },
  )
  it.each(['V7R', 'L512', 'N13'] as const)('E139 %s shows no PASID capability of a VF', profile => {
    const { ids } = open({ profile, device: testDevice({ ats: true, vfs: 2 }), vfs: 2 }, 1)
    expect(ids).not.toContain(PASID)
  })
})
