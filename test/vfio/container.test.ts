import { afterEach, describe, expect, it } from 'vitest'
import { s32 } from '../../src/sys/sys.js'
import {
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_DISABLE,
  VFIO_IOMMU_ENABLE,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../src/uapi.js'
import { profileNames } from '../../src/vfio/index.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

describe('VFIO_CHECK_EXTENSION', () => {
  // biome-ignore format: table
  const answers: Record<string, readonly number[]> = {
    //     id: 1  2  3  4  5  6  7  8  9 10 11   before SET_IOMMU
    V7R:      [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
    V7:       [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
    L59:      [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
    L512:     [1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0],
    L72:      [1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0],
    N13:      [1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0],
    V8:       [1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0],
  }
  it.each(profileNames)('E02 answers by profile before SET_IOMMU: %s', profile => {
    const c = bench({ profile }).program().container()
    expect(answers[profile]!.map((_, i) => c.call(VFIO_CHECK_EXTENSION, i + 1))).toEqual(
      answers[profile],
    )
    expect(c.call(VFIO_CHECK_EXTENSION, 0xffff_ffff)).toBe(0)
  })
  it.each([true, false])(
    'tells cache coherence once domains exist: snoop control %s',
    snoopControl => {
      const b = bench({ vtd: { snoopControl } })
      const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
      expect(c.call(VFIO_CHECK_EXTENSION, 4)).toBe(Number(snoopControl))
    },
  )
  it('reports UPDATE_VADDR after SET_IOMMU in L72', () => {
    const b = bench({ profile: 'L72' })
    const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    expect(c.call(VFIO_CHECK_EXTENSION, 10)).toBe(1)
  })
})

describe('VFIO_SET_IOMMU', () => {
  it('E01 refuses a container without groups', () => {
    const c = bench().program().container()
    refused('EINVAL', () => c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU))
  })
  it('refuses a second driver and takes each type once', () => {
    const b = bench()
    for (const type of [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_NESTING_IOMMU]) {
      const c = b.program().container(type, b.functions[0]!.group)
      refused('EINVAL', () => c.call(VFIO_SET_IOMMU, type))
      c.close()
    }
  })
  it.each([0, 2, 5, 7, 8, 11, 0xffff_ffff])('knows no driver for type %d', type => {
    const b = bench()
    const c = b.program().container(undefined, b.functions[0]!.group)
    refused('ENODEV', () => c.call(VFIO_SET_IOMMU, type))
    c.call(VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU)
  })
  it('refuses an extension that is no IOMMU type', () => {
    const b = bench({ profile: 'L512' })
    const c = b.program().container(undefined, b.functions[0]!.group)
    refused('EINVAL', () => c.call(VFIO_SET_IOMMU, 9))
  })
  it('E08 rolls both groups back when nesting takes one, and v2 then succeeds', () => {
    const b = bench()
    const c = b.program().container(undefined, b.functions[0]!.group, b.functions[1]!.group)
    const before = b.held()
    refused('EINVAL', () => c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU))
    expect(b.held()).toEqual(before)
    c.call(VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
  })
  it('E07 refuses a second group in a nesting container, which then joins another', () => {
    const b = bench()
    const p = b.program()
    const c = p.nesting()
    const group = p.sys.open(`/dev/vfio/${b.functions[1]!.group}`)
    refused('EINVAL', () => p.sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(c.fd)))
    expect(c.alloc()).toBe(1)
    p.sys.close(group)
    p.nesting(1)
  })
  it.each([
    ['V7R', 'ENODEV'],
    ['V7', 'ENODEV'],
    ['L59', undefined],
    ['L72', 'ENODEV'],
  ] as const)('E12 on hardware without nesting: %s', (profile, errno) => {
    const b = bench({ profile, vtd: { nesting: false } })
    const c = b.program().container(undefined, b.functions[0]!.group)
    const call = () => c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
    if (errno) refused(errno, call)
    else expect(call()).toBe(0)
  })
  it('E41 refuses a PASID quota of 0', () => {
    const b = bench({ parameters: { pasidQuota: 0 } })
    const c = b.program().container(undefined, b.functions[0]!.group)
    refused('EINVAL', () => c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU))
  })
  it('E42, E43 refuses a reservation beyond capacity at attach, and takes it once a process is gone', () => {
    const b = bench({ parameters: { pasidQuota: 600_000 } })
    const first = b.spawn()
    b.program(first).nesting()
    const c = b.program().container(undefined, b.functions[1]!.group)
    refused('ENOSPC', () => c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU))
    first.exit()
    b.settle()
    c.call(VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
  })
  it('E156 releases everything when interrupts are not isolated', () => {
    const b = bench({ vtd: { interruptRemapping: false } })
    const c = b.program().container(undefined, b.functions[0]!.group)
    const before = b.held()
    for (const type of [VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_NESTING_IOMMU]) {
      refused('EPERM', () => c.call(VFIO_SET_IOMMU, type))
      expect(b.held()).toEqual(before)
    }
  })
  it('takes interrupts that are not isolated when the administrator allows it', () => {
    const b = bench({
      vtd: { interruptRemapping: false },
      parameters: { allowUnsafeInterrupts: true },
    })
    b.program().nesting()
  })
})

describe('a container', () => {
  it('E06 answers EINVAL to every driver call before SET_IOMMU', () => {
    const c = bench().program().container()
    for (const cmd of [
      VFIO_IOMMU_GET_INFO,
      VFIO_IOMMU_MAP_DMA,
      VFIO_IOMMU_PASID_REQUEST,
      VFIO_IOMMU_NESTING_OP,
      0x1234,
    ])
      refused('EINVAL', () => c.call(cmd))
    expect(c.call(VFIO_GET_API_VERSION)).toBe(0)
  })
  it('answers ENOTTY to unknown calls after SET_IOMMU, and so to ENABLE and DISABLE', () => {
    const b = bench()
    const c = b.program().container(VFIO_TYPE1_IOMMU, b.functions[0]!.group)
    for (const cmd of [VFIO_IOMMU_ENABLE, VFIO_IOMMU_DISABLE, 0x1234, 0x3b78])
      refused('ENOTTY', () => c.call(cmd))
  })
  it.each(['L59', 'L512', 'L72'] as const)('E03 %s does not know the vSVA calls', profile => {
    const b = bench({ profile })
    const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    refused('ENOTTY', () => c.alloc())
    refused('ENOTTY', () => c.bind({}))
  })
  it('E163 is driverless again after its last group left, and takes another type', () => {
    const b = bench()
    const c = b.program().nesting()
    c.alloc()
    c.unset()
    refused('EINVAL', () => c.alloc())
    refused('EINVAL', () => c.bind({}))
    b.program().sys.ioctl(c.groups[0]!, VFIO_GROUP_SET_CONTAINER, s32(c.fd))
    c.call(VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU)
  })
  it('lives on after its file is closed while a group is in it', () => {
    const b = bench()
    const p = b.program()
    const c = p.nesting()
    const m = p.sys.mmap(0x1000)
    c.map(0n, m.vaddr, 0x1000n)
    p.sys.close(c.fd)
    expect(b.held()).toMatchObject({ mappings: 1, pins: 1 })
    p.sys.ioctl(c.groups[0]!, VFIO_GROUP_UNSET_CONTAINER)
    expect(b.held()).toMatchObject({ mappings: 0, pins: 0 })
  })
  it('can be neither read nor written nor mapped', () => {
    const { sys } = bench()
    const fd = sys.open('/dev/vfio/vfio')
    refused('EINVAL', () => sys.pread(fd, 4, 0))
    refused('EINVAL', () => sys.pwrite(fd, new Uint8Array(4), 0))
  })
})
