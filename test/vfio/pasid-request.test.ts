import { afterEach, describe, expect, it } from 'vitest'
import {
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_pasid_request,
} from '../../src/uapi.js'
import { bench, checkBenches, pasids, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const LAST = 0xf_ffff
const MAX = 0x7fff_ffff

const setup = (options: Parameters<typeof bench>[0] = {}) => {
  const b = bench(options)
  const p = b.program()
  return { b, p, c: p.nesting() }
}

describe('PASID_REQUEST ALLOC', () => {
  it('E22 hands out the lowest free id, and that again after free', () => {
    const { c } = setup()
    expect([c.alloc(), c.alloc(), c.alloc()]).toEqual([1, 2, 3])
    c.free(2)
    expect([c.alloc(), c.alloc()]).toEqual([2, 4])
  })
  it('E23 never hands out 0', () => {
    expect(setup().c.alloc(0, LAST)).toBe(1)
  })
  // biome-ignore format: table
  it.each([
    ['E24', 0,         0,            'ENOSPC'],
    ['E26', 0x10_0000, MAX,          'ENOSPC'],
    ['E28', 1,         0x8000_0000,  'EINVAL'],
    ['E29', 0x8000_0000, 0x8000_0000, 'EINVAL'],
    ['E30', 1,         0xffff_ffff,  'EINVAL'],
    ['E05', 5,         4,            'EINVAL'],
  ] as const)('%s alloc [%d, %d] is refused: %s', (_, min, max, errno) => {
    refused(errno, () => setup().c.alloc(min, max))
  })
  it('E25, E27 takes the last id of pasid_bits and none above', () => {
    const { c } = setup()
    expect(c.alloc(LAST, LAST)).toBe(LAST)
    refused('ENOSPC', () => c.alloc(LAST, MAX))
    c.free(LAST)
    expect(c.alloc(LAST, MAX)).toBe(LAST)
  })
  it('E26, E28, E29 V7 lets 2^31 itself pass', () => {
    const { c } = setup({ profile: 'V7' })
    expect(c.alloc(1, 0x8000_0000)).toBe(1)
    refused('ENOSPC', () => c.alloc(0x8000_0000, 0x8000_0000))
    refused('EINVAL', () => c.alloc(1, 0x8000_0001))
  })
  it('E31 an id held is not free', () => {
    const { c } = setup()
    expect(c.alloc(7, 7)).toBe(7)
    refused('ENOSPC', () => c.alloc(7, 7))
  })
  it('E32, E33 ids of another process and of the host are not free', () => {
    const { b, c } = setup()
    expect(b.program(b.spawn()).nesting(1).alloc(7, 7)).toBe(7)
    refused('ENOSPC', () => c.alloc(7, 7))
    const host = b.ioasid.alloc(b.ioasid.hostSet, 9, 9)
    expect(host).toBe(9)
    expect(c.alloc(9, 10)).toBe(10)
    b.ioasid.free(b.ioasid.hostSet, 9)
  })
  it('E34 to E37 argsz and flags', () => {
    const { p, c } = setup()
    const call = (init: Parameters<typeof vfio_iommu_type1_pasid_request>[0]) =>
      c.call(
        VFIO_IOMMU_PASID_REQUEST,
        vfio_iommu_type1_pasid_request({ range: { min: 1, max: 9 }, ...init }),
      )
    refused('EINVAL', () => call({ argsz: 12, flags: 1 }))
    for (const flags of [0, 3, 4, 5]) refused('EINVAL', () => call({ flags }))
    expect(call({ argsz: 64, flags: 1 })).toBe(1)
    const end = p.sys.mmap(0x1000)
    end.bytes.set(
      vfio_iommu_type1_pasid_request({ argsz: 64, flags: 1, range: { min: 1, max: 9 } }).bytes,
      0xff0,
    )
    expect(c.call(VFIO_IOMMU_PASID_REQUEST, end.vaddr + 0xff0n)).toBe(2)
    refused('EFAULT', () => c.call(VFIO_IOMMU_PASID_REQUEST, end.vaddr + 0xff8n))
  })
  it('E03, E04, E05, E165 on a container without PASIDs: range, then support, then the operation', () => {
    const b = bench()
    const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    refused('EOPNOTSUPP', () => c.alloc(1, 100))
    refused('EOPNOTSUPP', () => c.call(VFIO_IOMMU_PASID_REQUEST, pasids(0, 1, 100)))
    refused('EINVAL', () => c.alloc(5, 4))
    refused('EFAULT', () => c.call(VFIO_IOMMU_PASID_REQUEST, 0x1000))
  })
  it('E38 keeps to the quota', () => {
    const { c } = setup()
    for (let i = 1; i <= 1000; i++) expect(c.alloc()).toBe(i)
    refused('ENOSPC', () => c.alloc())
    c.free(500)
    expect(c.alloc()).toBe(500)
  })
  it('E39 counts the quota over all containers of a process', () => {
    const { p, c } = setup()
    const c2 = p.nesting(1)
    for (let i = 0; i < 600; i++) c.alloc()
    for (let i = 0; i < 400; i++) c2.alloc()
    refused('ENOSPC', () => c2.alloc())
  })
  it('E44 a forked child allocates into the set of its parent', () => {
    const { b, p, c } = setup()
    const child = p.sys.fork()
    const id = child.ioctl(c.fd, VFIO_IOMMU_PASID_REQUEST, pasids(1, 1, 100))
    expect(b.ioasid.owner(id)).toBe(b.ioasid.findMmSet(p.sys.process.mm))
    expect(c.free(id)).toBe(0)
    expect(b.ioasid.state(id)).toBe('FREE')
  })
})

describe('PASID_REQUEST FREE', () => {
  it('E48 succeeds at once when there is nothing to free', () => {
    expect(setup().c.free(1, MAX)).toBe(0)
  })
  it('E49 frees what lies in the range and nothing else', () => {
    const { b, c } = setup()
    for (const id of [3, 9, 500]) c.alloc(id, id)
    expect(c.free(4, 499)).toBe(0)
    expect([3, 9, 500].map(id => b.ioasid.state(id))).toEqual(['IDLE', 'FREE', 'IDLE'])
  })
  it('E50 may be repeated', () => {
    const { c } = setup()
    c.alloc(3, 3)
    expect([c.free(3), c.free(3)]).toEqual([0, 0])
  })
  it('E51 keeps to 31 bits', () => {
    const { b, c } = setup()
    c.alloc(3, 3)
    refused('EINVAL', () => c.free(0, 0xffff_ffff))
    c.free(0, MAX)
    expect(b.ioasid.state(3)).toBe('FREE')
  })
  it('E45, E52 leaves ids of other processes alone', () => {
    const { b, c } = setup()
    const id = c.alloc()
    const other = b.program(b.spawn()).nesting(1)
    expect(other.free(id)).toBe(0)
    expect(other.free(0, MAX)).toBe(0)
    expect(b.ioasid.state(id)).toBe('IDLE')
  })
  it('E40, E53 to E56, E161 an id freed while bound is reclaimed after its teardown, not before', () => {
    const { b, c } = setup({ parameters: { pasidQuota: 1 } })
    const id = c.alloc()
    c.bind({ hpasid: BigInt(id) })
    expect(c.free(id)).toBe(0)
    expect(b.ioasid.state(id)).toBe('FREE_PENDING')
    refused('ENOSPC', () => c.alloc())
    refused('ENOENT', () => c.bind({ hpasid: BigInt(id) }))
    b.settle()
    expect(b.ioasid.state(id)).toBe('FREE')
    expect(b.held()).toMatchObject({ bindings: 0 })
    expect(c.unbind({ hpasid: BigInt(id) })).toBe(0)
    expect(c.alloc(id, id)).toBe(id)
  })
  it('E58, E59 ids live as long as one nesting container of the process', () => {
    const { b, p, c } = setup()
    const c2 = p.nesting(1)
    const before = b.ioasid.available
    for (let i = 0; i < 10; i++) c.alloc()
    c.unset()
    expect([b.ioasid.state(10), b.ioasid.available]).toEqual(['IDLE', before])
    c2.unset()
    expect([b.ioasid.state(10), b.ioasid.available]).toEqual(['FREE', before + 1000])
  })
  it('E60 a killed process gives its ids and its reservation back', () => {
    const { b } = setup()
    const before = b.held()
    const other = b.spawn()
    const c = b.program(other).nesting(1)
    for (let i = 0; i < 10; i++) c.bind({ hpasid: BigInt(c.alloc()) })
    other.exit()
    b.settle()
    expect(b.held()).toEqual(before)
  })
})
