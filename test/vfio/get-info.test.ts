import { afterEach, describe, expect, it } from 'vitest'
import type { IommuDriver, NestingInfo } from '../../src/iommu/domain.js'
import {
  iommu_nesting_info,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_info_cap_header,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
} from '../../src/uapi.js'
import type { VfioProfile } from '../../src/vfio/index.js'
import { bench, checkBenches, refused, standIn } from '../support/vfio-bench.js'

afterEach(checkBenches)

type Container = ReturnType<ReturnType<ReturnType<typeof bench>['program']>['container']>

/** Ids and offsets of the chain, by the two-call protocol. */
function chain(c: Container) {
  const probe = vfio_iommu_type1_info()
  c.call(VFIO_IOMMU_GET_INFO, probe)
  const info = vfio_iommu_type1_info({}, probe.argsz - probe.bytes.length)
  c.call(VFIO_IOMMU_GET_INFO, info)
  const found: { id: number; version: number; at: number }[] = []
  for (let at = info.cap_offset; at; ) {
    const { id, version, next } = vfio_info_cap_header.at(info.bytes, at)
    found.push({ id, version, at })
    at = next
  }
  return { info, found }
}

/** A driver whose nesting info is changed. */
const withNesting = (change: Partial<NestingInfo>) => (driver: IommuDriver) =>
  standIn(driver, domain => {
    const info = domain.nestingInfo()
    domain.nestingInfo = () => info && { ...info, ...change }
  })

describe('VFIO_IOMMU_GET_INFO', () => {
  it('E15 writes no more than 16 bytes to a caller of 16, and tells the size', () => {
    const c = bench().program().nesting()
    const info = vfio_iommu_type1_info({ argsz: 16, cap_offset: 0x1111, pad: 0x2222 })
    expect(c.call(VFIO_IOMMU_GET_INFO, info)).toBe(0)
    expect(info.flags).toBe(VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS)
    expect(info.argsz).toBe(24 + 32 + 48 + 64)
    expect([info.cap_offset, info.pad]).toEqual([0x1111, 0x2222])
  })
  it('E16 tells the size to a caller without room, with cap_offset 0', () => {
    const c = bench().program().nesting()
    const info = vfio_iommu_type1_info({ cap_offset: 77 })
    c.call(VFIO_IOMMU_GET_INFO, info)
    expect([info.argsz, info.cap_offset]).toEqual([168, 0])
  })
  it.each([
    ['V7R', 6, [2, 1, 3]],
    ['V7', 6, [2, 1, 3]],
    ['V7R', 3, [2, 1]],
    ['L59', 6, [2, 1]],
    ['L512', 6, [2, 3, 1]],
    ['L72', 3, [2, 3, 1]],
  ] as const)('E17, E18 chain of %s, type %d: %j', (profile: VfioProfile, type, ids) => {
    const b = bench({ profile })
    const { info, found } = chain(b.program().container(type, b.functions[0]!.group))
    expect(found.map(f => f.id)).toEqual(ids)
    expect(found.every(f => f.version === 1)).toBe(true)
    expect([info.cap_offset, info.argsz]).toEqual([24, info.bytes.length])
    const align = profile === 'L72' ? 8 : 4
    expect(found.every(f => f.at % align === 0)).toBe(true)
  })
  it('E19, E20 carries the nesting info of VT-d byte for byte', () => {
    const b = bench()
    const { info, found } = chain(b.program().nesting())
    const at = found.find(f => f.id === 3)!.at
    const nesting = iommu_nesting_info.at(info.bytes, at + 8)
    expect(nesting).toMatchObject({ argsz: 56, flags: 0, format: 1, features: 7 })
    expect(nesting).toMatchObject({ addr_width: 48, pasid_bits: 20 })
    expect([...nesting.padding]).toEqual(new Array(12).fill(0))
    const { cap, ecap } = b.driver.nesting!
    const view = new DataView(info.bytes.buffer, at)
    expect([view.getBigUint64(48, true), view.getBigUint64(56, true)]).toEqual([cap, ecap])
    expect(cap & ~((1n << 56n) | (1n << 60n))).toBe(0n)
    expect(ecap & ~0x104_e000_0000n & ~(1n << 34n)).toBe(0n)
  })
  it('lists the valid ranges: the aperture without the interrupt window', () => {
    const b = bench()
    const { info, found } = chain(b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group))
    const cap = vfio_iommu_type1_info_cap_iova_range.at(info.bytes, found[1]!.at)
    expect(cap.nr_iovas).toBe(2)
    const ranges = [cap.iova_ranges.get(0), cap.iova_ranges.get(1)].map(r => [r.start, r.end])
    expect(ranges).toEqual([
      [0n, 0xfedf_ffffn],
      [0xfef0_0000n, 0xffff_ffff_ffffn],
    ])
    expect(info.iova_pgsizes).toBe(0x4020_1000n)
  })
  it('E18 forgets nesting when the group moves to a type 1v2 container', () => {
    const b = bench()
    const p = b.program()
    const c = p.nesting()
    c.close()
    const { found } = chain(p.container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group))
    expect(found.map(f => f.id)).toEqual([2, 1])
  })
  it('refuses a short argsz and an unreadable or unwritable argument', () => {
    const c = bench().program().nesting()
    refused('EINVAL', () => c.call(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info({ argsz: 15 })))
    refused('EFAULT', () => c.call(VFIO_IOMMU_GET_INFO, 0x1000))
  })
  it('counts what dma_entry_limit leaves', () => {
    const b = bench({ profile: 'L512', parameters: { dmaEntryLimit: 5 } })
    const p = b.program()
    const c = p.container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    c.map(0n, p.sys.mmap(4096).vaddr, 4096n)
    const { info, found } = chain(c)
    expect(new DataView(info.bytes.buffer).getUint32(found[1]!.at + 8, true)).toBe(4)
  })
})

describe('nesting info of other units', () => {
  it.each([
    ['V7R', { format: 0 }, 'ENOENT'],
    ['V7R', { pasidBits: 32 }, 'EINVAL'],
  ] as const)('E11, E21 %s refuses %j at attach', (profile, change, errno) => {
    const b = bench({ profile, wrapDriver: withNesting(change) })
    const before = b.held()
    refused(errno, () => b.program().container(VFIO_TYPE1_NESTING_IOMMU, b.functions[0]!.group))
    b.sys.process.fds.closeAll()
    expect(b.held()).toEqual(before)
  })
  it('E11 V7 attaches without a format and refuses GET_INFO', () => {
    const b = bench({ profile: 'V7', wrapDriver: withNesting({ format: 0, features: 0 }) })
    const c = b.program().nesting()
    refused('ENOENT', () => c.call(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info()))
  })
  it('E21 V7 attaches with 32 PASID bits', () => {
    bench({ profile: 'V7', wrapDriver: withNesting({ pasidBits: 32 }) })
      .program()
      .nesting()
  })
})
