// Where two errors apply, the documented one wins. A row breaks two rules at once; the first of them answers.
import { describe, expect, it } from 'vitest'
import { s32 } from '../../src/sys/sys.js'
import type { BenchOptions, BindMembers } from '../../src/testing/index.js'
import { bindData, nestingOp, pasidRequest } from '../../src/testing/index.js'
import {
  VFIO_DEVICE_SET_IRQS,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_irq_set,
} from '../../src/uapi.js'
import { bench, nesting, outcomes, testDevice, withPasid } from './support.js'

const V2 = VFIO_TYPE1v2_IOMMU
const onV2 = (profile: 'V7R' | 'V7' | 'L59' | 'L512' | 'L72' = 'V7R') => {
  const b = bench({ profile })
  const p = b.process()
  return { b, p, c: p.container(V2, b.functions[0]!.group) }
}

describe('PASID_REQUEST', () => {
  it('E165 an unreadable argument is EFAULT before support is asked about', () => {
    const { p, c } = onV2()
    expect(() => c.requestAt(0x1000n)).toRefuse('EFAULT')
    const { bytes } = pasidRequest(1, 1, 9)
    expect(() => c.requestAt(p.atEndOfPage(bytes.subarray(0, 15)))).toRefuse('EFAULT')
  })
  // biome-ignore format: table
  it.each([
    ['flags before support (row 2 before 5)',                 4, 1, 100,                'EINVAL'],
    ['min above max before support (3 before 5), E05',        1, 5, 4,                  'EINVAL'],
    ['31 bits before support (4 before 5)',                   1, 1, 0xffff_ffff,        'EINVAL'],
    ['support before the operation (5 before 8), E04',        0, 1, 100,                'EOPNOTSUPP'],
    ['support before the operation (5 before 8), both flags', 3, 1, 100,                'EOPNOTSUPP'],
  ] as const)('on a container without PASIDs: %s', (_, flags, min, max, errno) => {
    expect(() => onV2().c.request(flags, min, max)).toRefuse(errno)
  })
  it('the range before quota and pool: EINVAL though nothing is free', () => {
    const { c } = nesting({ parameters: { pasidQuota: 1 } })
    c.alloc()
    expect(() => c.alloc(5, 4)).toRefuse('EINVAL')
    expect(() => c.alloc()).toRefuse('ENOSPC')
  })
})

describe('NESTING_OP', () => {
  // biome-ignore format: table
  it.each([
    ['argsz before support (row 2 before 3)',                 0,        7,  'EINVAL'],
    ['flags before support (2 before 3)',                     0x1_0000, 80, 'EINVAL'],
    ['an unknown operation before support (2 before 3)',      3,        80, 'EINVAL'],
    ['support before the payload (3 before 5)',               0,        80, 'EOPNOTSUPP'],
    ['support before the payload of UNBIND (3 before 6)',     1,        80, 'EOPNOTSUPP'],
    ['support before the payload of CACHE_INVLD (3 before 7)', 2,       80, 'EOPNOTSUPP'],
  ] as const)('on a container without nesting: %s', (_, flags, argsz, errno) => {
    const { p, c } = onV2()
    const op = nestingOp(flags, new Uint8Array(0), argsz)
    expect(() => c.opAt(p.atEndOfPage(op.bytes))).toRefuse(errno)
  })
  it('the header unreadable is EFAULT before anything', () => {
    const { p, c } = onV2()
    expect(() => c.opAt(p.atEndOfPage(new Uint8Array(7)))).toRefuse('EFAULT')
  })
})

describe('BIND, by the rows of the documented table', () => {
  // biome-ignore format: table
  const rows: readonly (readonly [string, BindMembers, string])[] = [
    ['3 argsz before 5 version',                       { argsz: 55, version: 0, hpasid: 99 },          'EINVAL'],
    ['5 version before 10 not allocated',              { version: 0, hpasid: 99 },                     'EINVAL'],
    ['6 vendor flags before 10 not allocated',         { vtdFlags: 1 << 6, hpasid: 99 },               'EINVAL'],
    ['9 the range before 10 not allocated',            { hpasid: 0x10_0000 },                          'EINVAL'],
    ['10 not allocated before 16 the width',           { hpasid: 99, addr_width: 39 },                 'ENOENT'],
    ['10 not allocated before 17 the root',            { hpasid: 99, gpgd: 1n << 60n },                'ENOENT'],
    ['10 not allocated before 18 attributes',          { hpasid: 99, vtdFlags: 1 << 2 },               'ENOENT'],
    ['11 of another before 16 the width',              { hpasid: 2, addr_width: 39 },                  'EACCES'],
    ['11 of another before 18 attributes',             { hpasid: 2, vtdFlags: 1 << 5 },                'EACCES'],
    ['12 bound already before 16 the width',           { hpasid: 1, addr_width: 39 },                  'EBUSY'],
    ['12 bound already before 17 the root',            { hpasid: 1, gpgd: 1n << 60n },                 'EBUSY'],
    ['12 bound already before 18 attributes',          { hpasid: 1, vtdFlags: 1 << 3 },                'EBUSY'],
  ]
  it.each(rows)('row %s', (_, members, errno) => {
    const { b, c, id } = withPasid()
    expect(id).toBe(1)
    c.bind(id)
    b.process().nesting(1).alloc(2, 2)
    expect(() => c.bind(members)).toRefuse(errno as 'EINVAL')
    expect(b.holdings().bindings).toBe(1)
  })
  it('row 8 the width of the device before 10 not allocated', () => {
    const { c } = nesting({ device: testDevice({ pasidWidth: 16 }) })
    expect(() => c.bind(99)).toRefuse('EINVAL')
  })
  it('row 4 what is unreadable before 5 version', () => {
    const { p, c } = nesting()
    const { bytes } = nestingOp(0, bindData({ version: 0, hpasid: 99 }))
    expect(() => c.opAt(p.atEndOfPage(bytes.subarray(0, 8 + 60)))).toRefuse('EFAULT')
  })
})

describe('MAP_DMA and UNMAP_DMA', () => {
  const LAST_PAGE = 0xffff_ffff_ffff_f000n
  // biome-ignore format: table
  const maps = [
    ['flags before alignment',                 'V7R', { flags: 0x80, size: 1n },                                  'EINVAL'],
    ['alignment before a wrap',                'V7R', { flags: 3, size: 1n, iova: LAST_PAGE },                    'EINVAL'],
    ['a wrap before an overlap',               'V7R', { flags: 3, size: 0x2000n, iova: LAST_PAGE },               'EINVAL'],
    ['a wrap before an overlap',               'L72', { flags: 3, size: 0x2000n, iova: LAST_PAGE },               'EOVERFLOW'],
    ['a wrap before alignment',                'L72', { flags: 3, size: 0x1001n, iova: LAST_PAGE },               'EOVERFLOW'],
    ['size 0 before a wrap',                   'L72', { flags: 3, size: 0n, iova: LAST_PAGE },                    'EINVAL'],
    ['an overlap before the entry limit',      'V7R', { flags: 3, size: 0x1000n, iova: 0n },                      'EEXIST'],
    ['the entry limit before a valid range',   'V7R', { flags: 3, size: 0x1000n, iova: 0xfee0_0000n },            'ENOSPC'],
    ['the entry limit before unmapped memory', 'V7R', { flags: 3, size: 0x1000n, iova: 0x1000n, vaddr: 0x1000n }, 'ENOSPC'],
  ] as const
  it.each(maps)('%s: %s', (_, profile, init, errno) => {
    const b = bench({ profile, parameters: { dmaEntryLimit: 1 } })
    const p = b.process()
    const c = p.container(V2, b.functions[0]!.group)
    c.map(0n, p.memory().vaddr, 4096)
    expect(() => c.call(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map(init))).toRefuse(errno)
    expect(b.holdings()).toMatchObject({ mappings: 1, pins: 1 })
  })
  it('a valid range before memory that is not there', () => {
    const { c } = onV2()
    expect(() => c.map(0xfee0_0000n, 0x1000n, 4096)).toRefuse('EINVAL')
    expect(() => c.map(0x1000n, 0x1000n, 4096)).toRefuse('EFAULT')
  })
  it.each([
    ['alignment before a bisected mapping', { iova: 0x800n, size: 0x1000n }],
    ['size 0 before a bisected mapping', { iova: 0n, size: 0n }],
  ] as const)('%s, and size is not written', (_, init) => {
    const { p, c } = onV2()
    c.map(0n, p.memory(0x4000).vaddr, 0x4000)
    const arg = vfio_iommu_type1_dma_unmap(init)
    expect(() => c.call(VFIO_IOMMU_UNMAP_DMA, arg)).toRefuse('EINVAL')
    expect(arg.size).toBe(init.size)
  })
})

describe('containers and groups', () => {
  /** A container without a driver, and the first device's group in it. */
  const driverless = (options: BenchOptions = {}) => {
    const b = bench(options)
    const p = b.process()
    return { b, p, c: p.container(undefined, b.functions[0]!.group) }
  }

  it('SET_IOMMU: no group, and a driver already, before an id that nobody knows', () => {
    expect(() => bench().process().container().setIommu(77)).toRefuse('EINVAL')
    const { c } = driverless()
    expect(() => c.setIommu(77)).toRefuse('ENODEV')
    c.setIommu(V2)
    expect(() => c.setIommu(77)).toRefuse('EINVAL')
  })
  // biome-ignore format: table
  it.each([
    ['nesting support (6) before isolation of interrupts (11)', { vtd: { nesting: false, interruptRemapping: false } },                  'ENODEV'],
    ['the PASID set (8) before isolation of interrupts (11)',   { parameters: { pasidQuota: 0 }, vtd: { interruptRemapping: false } },   'EINVAL'],
    ['isolation of interrupts, when all else is well',          { vtd: { interruptRemapping: false } },                                  'EPERM'],
  ] as const)('attach to a nesting container: %s', (_, options, errno) => {
    const { b, c } = driverless(options)
    const before = b.holdings()
    expect(() => c.setIommu(VFIO_TYPE1_NESTING_IOMMU)).toRefuse(errno)
    expect(b.holdings()).toEqual(before)
  })
  it('SET_CONTAINER: the pointer before the state, the state before the descriptor', () => {
    const { p, c } = driverless()
    const set = (arg: number | bigint | ReturnType<typeof s32>) =>
      p.sys.ioctl(c.groups[0]!, VFIO_GROUP_SET_CONTAINER, arg)
    expect(() => set(0x1000)).toRefuse('EFAULT')
    expect(() => set(s32(-1))).toRefuse('EINVAL')
    expect(() => set(s32(999))).toRefuse('EINVAL')
    c.unset()
    expect(() => set(s32(999))).toRefuse('EBADF')
  })
  it.each([
    ['V7R', 'EINVAL'],
    ['L59', 'EINVAL'],
    ['L72', 'ENODEV'],
  ] as const)('GET_DEVICE_FD of a wrong name without a driver: %s answers %s', (profile, errno) => {
    const { p, c } = driverless({ profile })
    const get = (arg: string | number) => p.sys.ioctl(c.groups[0]!, VFIO_GROUP_GET_DEVICE_FD, arg)
    expect(() => get(0x1000)).toRefuse('EFAULT')
    expect(() => get('0000:0f:00.0')).toRefuse(errno)
    c.setIommu(V2)
    expect(() => get('0000:0f:00.0')).toRefuse('ENODEV')
  })
  it('UNSET_CONTAINER: no container before open devices', () => {
    const { p, c } = driverless()
    c.setIommu(V2)
    const fd = c.deviceFd()
    expect(() => c.unset()).toRefuse('EBUSY')
    p.sys.close(fd)
    expect(() => c.unset()).toSucceed(0)
    expect(() => c.unset()).toRefuse('EINVAL')
  })
  it('DIRTY_PAGES on a type 1 container is EACCES before its argument is looked at', () => {
    const { c } = driverless()
    c.setIommu(VFIO_TYPE1_IOMMU)
    expect(() => c.call(VFIO_IOMMU_DIRTY_PAGES, 0x1000)).toRefuse('EACCES')
  })
})

describe('DEVICE_SET_IRQS: the structure and its ranges before what the action cannot do', () => {
  const MSIX = 2
  const [NONE, BOOL, MASK, TRIGGER] = [1, 2, 8, 32]
  // biome-ignore format: table
  it.each([
    ['an index that is none before no action',              { index: 9, flags: NONE, count: 1 },                'EINVAL'],
    ['unknown flags before no action',                      { index: MSIX, flags: NONE | 0x80, count: 1 },      'EINVAL'],
    ['a range past the end before an unsupported action',   { index: MSIX, flags: NONE | MASK, start: 9, count: 1 }, 'EINVAL'],
    ['no data type before an unsupported action',           { index: MSIX, flags: MASK, count: 1 },             'EINVAL'],
    ['two data types before an unsupported action',         { index: MSIX, flags: NONE | BOOL | MASK, count: 1 }, 'EINVAL'],
    ['missing data before an unsupported action',           { index: MSIX, flags: BOOL | MASK, count: 1 },      'EINVAL'],
    ['an unsupported action, when all else is well',        { index: MSIX, flags: NONE | MASK, count: 1 },      'ENOTTY'],
    ['no action, when all else is well',                    { index: MSIX, flags: NONE, count: 1 },             'ENOTTY'],
    ['two actions, when all else is well',                  { index: MSIX, flags: NONE | MASK | TRIGGER, count: 1 }, 'ENOTTY'],
  ] as const)('%s', (_, init, errno) => {
    const { p, c } = onV2()
    const fd = c.deviceFd()
    expect(() => p.sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set(init))).toRefuse(errno)
  })
})

describe('CACHE_INVLD, where the call hides it and the trace tells', () => {
  // biome-ignore format: table
  it.each([
    ['sizes before version',                { argsz: 31, version: 0 },                             'EINVAL'],
    ['the combination before the PASID',    { cache: 2, granularity: 0, pasid: 99 },               'EINVAL'],
    ['padding before the PASID',            { padding: [1], pasid: 99 },                           'EINVAL'],
    ['the range of the PASID before whose', { pasid: 1n << 40n },                                  'EINVAL'],
    ['unknown before not bound',            { pasid: 99 },                                         'ENOENT'],
    ['of another before not bound',         { pasid: 2 },                                          'EACCES'],
  ] as const)('%s', (_, members, errno) => {
    const { b, c } = withPasid()
    b.process().nesting(1).alloc(2, 2)
    const seen = outcomes(b, () => expect(() => c.invalidate(members)).toSucceed(0))
    expect(seen).toEqual([`invalidate ${errno}`])
  })
})
