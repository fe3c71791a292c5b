// E01 to E21: discovery and container state.
import { describe, expect, it } from 'vitest'
import type { NestingInfo } from '../../src/iommu/domain.js'
import type { IommuDriver } from '../../src/iommu/index.js'
import type { BenchOptions } from '../../src/testing/index.js'
import {
  iommu_nesting_info,
  VFIO_CHECK_EXTENSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_info,
} from '../../src/uapi.js'
import { bench, nesting, standIn } from './support.js'

const NESTING = VFIO_TYPE1_NESTING_IOMMU
const V2 = VFIO_TYPE1v2_IOMMU

/** A container with the first device's group and no IOMMU type yet. */
const unset = (options: BenchOptions = {}, groups = 1) => {
  const b = bench(options)
  const ids = b.functions.slice(0, groups).map(f => f.group)
  return { b, c: b.process().container(undefined, ...ids) }
}

/** A driver whose domains report other nesting info. */
const reporting = (change: Partial<NestingInfo>) => (driver: IommuDriver) =>
  standIn(driver, domain => {
    const info = domain.nestingInfo()
    domain.nestingInfo = () => info && { ...info, ...change }
  })

/** Two units, the second of which reports other registers. */
const unlike = (change: (info: NestingInfo) => Partial<NestingInfo>) => {
  let units = 0
  return (driver: IommuDriver) =>
    new Proxy(driver, {
      get(target, name) {
        const value = Reflect.get(target, name, target) as unknown
        if (name === 'nesting' && units++ % 2 === 1) {
          const info = value as NestingInfo
          return { ...info, ...change(info) }
        }
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
}

describe('container state', () => {
  it('E01 SET_IOMMU without a group is EINVAL', () => {
    expect(() => bench().process().container().setIommu(NESTING)).toRefuse('EINVAL')
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
    const c = bench({ profile }).process().container()
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
      const b = bench({ profile })
      const c = b.process().container(V2, b.functions[0]!.group)
      // Number 18, which is NESTING_OP in V8.
      expect(() => c.request(1, 1, 100)).toRefuse(alloc)
      expect(() => c.request(0)).toRefuse(flags0)
      expect(() => c.request(0, 5, 4)).toRefuse(range)
    },
  )
  it('E06 calls of a driver before SET_IOMMU are EINVAL', () => {
    const { c } = unset()
    expect(() => c.alloc()).toRefuse('EINVAL')
    expect(() => c.bind(1)).toRefuse('EINVAL')
  })
  it('E07 a second group in a nesting container is EINVAL; it may join another', () => {
    const { b, p, c } = nesting()
    expect(() => p.group(b.functions[1]!.group, c.fd)).toRefuse('EINVAL')
    expect(() => c.alloc()).toSucceed(1)
    expect(() => b.process().group(b.functions[1]!.group)).toRefuse('EBUSY')
  })
  it('E08 nesting with two groups is EINVAL and both are let go; type 3 then takes them', () => {
    const { b, c } = unset({}, 2)
    const before = b.holdings()
    expect(() => c.setIommu(NESTING)).toRefuse('EINVAL')
    expect(b.holdings()).toEqual(before)
    expect(() => c.setIommu(V2)).toSucceed(0)
  })
})

describe('hardware that does not nest, or not alike', () => {
  it.each([
    ['V7R', 'ENOENT', undefined],
    ['V8', 'ENOENT', undefined],
    ['V7', undefined, 'ENOENT'],
    ['N13', undefined, undefined],
  ] as const)(
    'E11 a unit without a nesting format (SMMU): %s SET_IOMMU %s, GET_INFO %s',
    (profile, attach, info) => {
      const wrapDriver = reporting({ format: 0, features: 0 })
      const { b, c } = unset({ profile, wrapDriver })
      const before = b.holdings()
      const set = () => c.setIommu(NESTING)
      if (attach) {
        expect(set).toRefuse(attach)
        expect(b.holdings()).toEqual(before)
      } else expect(set).toSucceed(0)
      if (info) expect(() => c.info()).toRefuse(info)
      else if (!attach) expect(() => c.info()).toSucceed()
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
  ] as const)('E12 hardware without a second stage to nest in: %s answers %s', (profile, errno) => {
    const { c } = unset({ profile, vtd: { nesting: false } })
    const call = () => c.setIommu(NESTING)
    if (errno) expect(call).toRefuse(errno)
    else expect(call).toSucceed(0)
  })
  it('E13 units that differ in ECAP bit 29 nest nowhere', () => {
    const wrapDriver = unlike(({ ecap }) => ({ ecap: ecap ^ (1n << 29n) }))
    expect(() => unset({ unitPerBus: true, wrapDriver }).c.setIommu(NESTING)).toRefuse('ENODEV')
  })
  it('E14 units that differ in what the masks leave out nest', () => {
    const wrapDriver = unlike(({ addrWidth }) => ({ addrWidth: addrWidth + 9 }))
    expect(() => unset({ unitPerBus: true, wrapDriver }).c.setIommu(NESTING)).toSucceed(0)
  })
  it.each([
    ['V7R', 'EINVAL'],
    ['V7', undefined],
  ] as const)('E21 32 PASID bits: %s answers %s at attach', (profile, errno) => {
    const { c } = unset({ profile, wrapDriver: reporting({ pasidBits: 32 }) })
    const call = () => c.setIommu(NESTING)
    if (errno) expect(call).toRefuse(errno)
    else expect(call).toSucceed(0)
  })
})

describe('GET_INFO', () => {
  const ALL = 24 + 32 + 48 + 64
  it('E15 with argsz 16 tells the size and touches nothing beyond', () => {
    const { c } = nesting()
    const info = vfio_iommu_type1_info({ argsz: 16, cap_offset: 0x1111, pad: 0x2222 })
    expect(() => c.call(VFIO_IOMMU_GET_INFO, info)).toSucceed(0)
    expect(info).toMatchObject({ argsz: ALL, flags: 3, cap_offset: 0x1111, pad: 0x2222 })
  })
  it('E16 with argsz 24 tells the size, cap_offset 0', () => {
    const { c } = nesting()
    const info = vfio_iommu_type1_info({ cap_offset: 77 })
    expect(() => c.call(VFIO_IOMMU_GET_INFO, info)).toSucceed(0)
    expect(info).toMatchObject({ argsz: ALL, cap_offset: 0 })
  })
  it.each([
    ['V7R', [2, 1, 3]],
    ['V7', [2, 1, 3]],
    ['V8', [2, 3, 1, 4]],
    ['L59', [2, 1]],
    ['L512', [2, 3, 1]],
    ['N13', [2, 3, 1]],
  ] as const)('E17 with enough room: the chain of %s is %j, the last next 0', (profile, ids) => {
    const { info, capabilities } = nesting({ profile }).c.info()
    expect(capabilities.map(c => c.id)).toEqual(ids)
    expect(info.cap_offset).toBe(24)
  })
  it('E18 says nothing of nesting once the group is in a TYPE1v2 container', () => {
    const { b, p, c } = nesting()
    c.close()
    const { capabilities } = p.container(V2, b.functions[0]!.group).info()
    expect(capabilities.map(c => c.id)).toEqual([2, 1])
  })
  it.each([
    ['V7R', 7, 48, 56],
    ['V7', 7, 48, 56],
    ['V8', 3, 56, 64],
  ] as const)(
    'E19, E20 %s has features %d, and cap_reg at %d of the capability',
    (profile, features, capAt, argsz) => {
      const { b, c } = nesting({ profile })
      const { info, capabilities } = c.info()
      const { at } = capabilities.at(-1)!
      const nested = iommu_nesting_info.at(info.bytes, at + 8)
      expect(nested).toMatchObject({ argsz, format: 1, features, addr_width: 48, pasid_bits: 20 })
      const { cap, ecap } = b.machine.iommu.deviceDriver(b.functions[0]!.bdf)!.nesting!
      expect(info.view.getBigUint64(at + capAt, true)).toBe(cap)
      expect(info.view.getBigUint64(at + capAt + 8, true)).toBe(ecap)
      expect(info.bytes.length).toBe(at + 8 + argsz)
    },
  )
  it('E168 answers the same however much is bound, and so does CHECK_EXTENSION', () => {
    const { c } = nesting()
    const answers = () => [c.call(VFIO_CHECK_EXTENSION, NESTING), [...c.info().info.bytes]]
    const before = answers()
    for (let i = 0; i < 3; i++) {
      c.bind(c.alloc())
      expect(answers()).toEqual(before)
    }
    c.free(1, 3)
    expect(answers()).toEqual(before)
  })
})
