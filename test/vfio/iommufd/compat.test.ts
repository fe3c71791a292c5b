// VFIO's own calls on an iommufd: a group in it as in a container, one address space behind them, and where type 1
// and type 3 differ from the container's.
import { afterEach, describe, expect, it } from 'vitest'
import { s32 } from '../../../src/sys/sys.js'
import {
  IOMMU_DESTROY,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  iommu_destroy,
  iommu_vfio_ioas,
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
  vfio_group_status,
  vfio_info_cap_header,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_dma_avail,
} from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import { ALL, checkIommufd, device, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const RW = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE

function setup(type: number | undefined = VFIO_TYPE1v2_IOMMU) {
  const b = iommufdBench()
  const u = user(b)
  const { sys, fd } = u
  const { name, group: number } = b.functions[0]!
  const group = sys.open(`/dev/vfio/${number}`)
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
  if (type !== undefined) sys.ioctl(fd, VFIO_SET_IOMMU, type)
  const memory = sys.mmap(0x1_0000)
  const map = (init: Parameters<typeof vfio_iommu_type1_dma_map>[0]) =>
    sys.ioctl(
      fd,
      VFIO_IOMMU_MAP_DMA,
      vfio_iommu_type1_dma_map({ flags: RW, vaddr: memory.vaddr, size: PAGE, ...init }),
    )
  /** Answers the bytes removed. */
  const unmap = (init: Parameters<typeof vfio_iommu_type1_dma_unmap>[0]) => {
    const arg = vfio_iommu_type1_dma_unmap(init)
    sys.ioctl(fd, VFIO_IOMMU_UNMAP_DMA, arg)
    return arg.size
  }
  const open = () => device(b, sys, sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name), 0)
  const check = (id: number) => sys.ioctl(fd, VFIO_CHECK_EXTENSION, id)
  return { b, u, sys, fd, group, memory, map, unmap, open, check }
}

describe('a group in an iommufd', () => {
  it('DMA goes through what MAP_DMA mapped, before and after the device is opened', () => {
    const { memory, map, unmap, open } = setup()
    map({ iova: 0x10_0000n, size: 0x2000n })
    const d = open()
    memory.bytes[0] = 42
    expect(d.dma(0x10_0000n, 0x10_1000n, 1)).toBe(true)
    expect(memory.bytes[0x1000]).toBe(42)
    expect(unmap({ iova: 0x10_0000n, size: 0x2000n })).toBe(0x2000n)
    expect(d.dma(0x10_0000n, 0x10_1000n, 1)).toBe(false)
  })

  it('the address space is made once, and is an object like others', () => {
    const { b, u, fd, sys } = setup()
    const other = sys.open(`/dev/vfio/${b.functions[1]!.group}`)
    sys.ioctl(other, VFIO_GROUP_SET_CONTAINER, s32(fd))
    const arg = iommu_vfio_ioas({ op: IOMMU_VFIO_IOAS_GET })
    u.call(IOMMU_VFIO_IOAS, arg)
    expect(b.vfio.iommufd!.holdings().objects).toBe(1)
    u.call(IOMMU_DESTROY, iommu_destroy({ id: arg.ioas_id }))
    refused('ENODEV', () => sys.ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
  })

  it('an address space that was set is used, ENODEV to open a device without one', () => {
    const { u, open } = setup()
    u.call(IOMMU_VFIO_IOAS, iommu_vfio_ioas({ op: IOMMU_VFIO_IOAS_CLEAR }))
    refused('ENODEV', open)
    const ioas_id = u.ioas()
    u.call(IOMMU_VFIO_IOAS, iommu_vfio_ioas({ op: IOMMU_VFIO_IOAS_SET, ioas_id }))
    u.map(ioas_id, u.sys.mmap(0x2000).vaddr, 0x2000n, 0x1000n)
    expect(open().dma(0x1000n, 0x2000n, 1)).toBe(true)
  })

  it('is in a container for GET_STATUS and UNSET_CONTAINER, and holds the iommufd', () => {
    const { b, sys, fd, group, open } = setup()
    const status = vfio_group_status()
    sys.ioctl(group, VFIO_GROUP_GET_STATUS, status)
    expect(status.flags).toBe(3)
    refused('EINVAL', () => sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd)))
    const d = open()
    refused('EBUSY', () => sys.ioctl(group, VFIO_GROUP_UNSET_CONTAINER))
    d.close()
    sys.close(fd)
    expect(b.vfio.iommufd!.holdings().iommufds).toBe(1)
    sys.ioctl(group, VFIO_GROUP_UNSET_CONTAINER)
    expect(b.vfio.iommufd!.holdings().iommufds).toBe(0)
  })

  it('EBADFD for other files', () => {
    const { b, sys } = setup()
    const other = sys.open(`/dev/vfio/${b.functions[1]!.group}`)
    refused('EBADFD', () => sys.ioctl(other, VFIO_GROUP_SET_CONTAINER, s32(sys.eventfd())))
  })

  it('a refused open leaves the device free', () => {
    const { b, map, unmap, open } = setup()
    map({ iova: 0xfee0_0000n })
    refused('EADDRINUSE', open)
    expect(b.vfio.holdings().devices).toBe(0)
    unmap({ iova: 0xfee0_0000n, size: PAGE })
    open()
  })
})

describe('version, extensions and types', () => {
  it('version 0; types 1 and 3 and UNMAP_ALL, coherent DMA, nothing else', () => {
    const { sys, fd, check } = setup()
    expect(sys.ioctl(fd, VFIO_GET_API_VERSION)).toBe(VFIO_API_VERSION)
    expect([VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL].map(check)).toEqual([1, 1, 1])
    expect([VFIO_TYPE1_NESTING_IOMMU, VFIO_UPDATE_VADDR, 8, 77].map(check)).toEqual([0, 0, 0, 0])
    expect(check(VFIO_DMA_CC_IOMMU)).toBe(1)
  })

  it('without an address space: ENODEV, for a type that is none EINVAL', () => {
    const { fd, sys } = user(iommufdBench())
    refused('ENODEV', () => sys.ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
    refused('EINVAL', () => sys.ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU))
    refused('ENODEV', () => sys.ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU))
    refused('ENODEV', () => sys.ioctl(fd, VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info()))
    const map = vfio_iommu_type1_dma_map({ flags: RW, size: PAGE })
    refused('ENODEV', () => sys.ioctl(fd, VFIO_IOMMU_MAP_DMA, map))
    const unmap = vfio_iommu_type1_dma_unmap({ size: PAGE })
    refused('ENODEV', () => sys.ioctl(fd, VFIO_IOMMU_UNMAP_DMA, unmap))
  })

  it('ENOTTY: no dirty pages, no PASIDs, no nesting', () => {
    const { sys, fd } = setup()
    for (const cmd of [
      VFIO_IOMMU_DIRTY_PAGES,
      VFIO_IOMMU_PASID_REQUEST,
      VFIO_IOMMU_PASID_REQUEST + 1,
    ])
      refused('ENOTTY', () => sys.ioctl(fd, cmd))
  })

  it('GET_INFO: DMA_AVAIL without limit, then the IOVA ranges', () => {
    const { sys, fd, open } = setup()
    open()
    const small = vfio_iommu_type1_info()
    sys.ioctl(fd, VFIO_IOMMU_GET_INFO, small)
    const bytes = new Uint8Array(small.argsz)
    const info = vfio_iommu_type1_info.at(bytes)
    info.argsz = bytes.length
    sys.ioctl(fd, VFIO_IOMMU_GET_INFO, bytes)
    expect(info.iova_pgsizes).toBe(0x4020_1000n)
    const first = vfio_iommu_type1_info_dma_avail.at(bytes, info.cap_offset)
    expect([first.header.id, first.avail]).toEqual([3, 0xffff_ffff])
    const second = vfio_info_cap_header.at(bytes, first.header.next)
    expect([second.id, second.next]).toEqual([1, 0])
    const view = new DataView(bytes.buffer)
    const at = first.header.next
    expect(view.getUint32(at + 8, true)).toBe(2)
    expect(view.getBigUint64(at + 24, true)).toBe(0xfedf_ffffn)
    refused('EINVAL', () =>
      sys.ioctl(fd, VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info({ argsz: 15 })),
    )
  })
})

describe('MAP_DMA', () => {
  // biome-ignore format: table
  it.each([
    ['EINVAL',    'argsz 31',              { argsz: 31 }],
    ['EINVAL',    'VADDR',                 { flags: VFIO_DMA_MAP_FLAG_VADDR }],
    ['EINVAL',    'no access',             { flags: 0 }],
    ['EINVAL',    'size 0',                { size: 0n }],
    ['EINVAL',    'a size between pages',  { size: 0x800n }],
    ['EEXIST',    'what is mapped',        { iova: 0x10_0000n }],
    ['EOVERFLOW', 'a range that wraps',    { iova: ALL - 0xfffn, size: 0x2000n }],
    ['EINVAL',    'the message window',    { iova: 0xfee0_0000n }],
    ['EFAULT',    'memory not there',      { vaddr: 0x1000n }],
  ] as const)('%s: %s', (code, _, init) => {
    const { map, open } = setup()
    open()
    map({ iova: 0x10_0000n })
    refused(code, () => map({ iova: 0x20_0000n, ...init }))
  })

  it('counts for the process, as type1 does', () => {
    const { b, sys, map, open } = setup()
    open()
    map({ iova: 0n, size: 0x3000n })
    expect(sys.process.memory.lockedPages).toBe(3)
    expect(b.vfio.iommufd!.holdings().lockedPages).toBe(0)
  })
})

describe('UNMAP_DMA', () => {
  it('type 3: ENOENT for a cut, success with size 0 where nothing is', () => {
    const { map, unmap, open } = setup()
    open()
    map({ iova: 0x10_0000n, size: 0x4000n })
    refused('ENOENT', () => unmap({ iova: 0x10_1000n, size: PAGE }))
    expect(unmap({ iova: 0x50_0000n, size: PAGE })).toBe(0n)
    expect(unmap({ iova: 0n, size: 0x100_0000n })).toBe(0x4000n)
  })

  it('type 1: any part, and its pins go with it', () => {
    const { b, sys, memory, map, unmap, open } = setup(VFIO_TYPE1_IOMMU)
    const d = open()
    map({ iova: 0x10_0000n, size: 0x8000n })
    expect(unmap({ iova: 0x10_2000n, size: 0x2000n })).toBe(0x2000n)
    expect([b.held().pins, sys.process.memory.lockedPages]).toEqual([6, 6])
    memory.bytes[0x5000] = 3
    expect(d.dma(0x10_5000n, 0x10_1000n, 1)).toBe(true)
    expect(memory.bytes[0x1000]).toBe(3)
    expect(d.dma(0x10_2000n, 0x10_1000n, 1)).toBe(false)
    expect(unmap({ iova: 0x10_7000n, size: 0x4000n })).toBe(0x1000n)
    expect(unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL })).toBe(0x5000n)
    expect(b.held().pins).toBe(0)
  })

  it('ALL removes everything, and takes no range', () => {
    const { map, unmap } = setup()
    expect(unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL })).toBe(0n)
    map({ iova: 0n })
    map({ iova: 0x10_0000n })
    refused('EINVAL', () => unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL, size: PAGE }))
    expect(unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL })).toBe(0x2000n)
  })

  it.each([
    ['EINVAL', { argsz: 23 }],
    ['EINVAL', { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, size: PAGE }],
    ['EINVAL', { size: 0n }],
    ['EOVERFLOW', { iova: ALL - 0xfffn, size: 0x2000n }],
  ] as const)('%s for %o', (code, init) => {
    const { unmap } = setup()
    refused(code, () => unmap(init))
  })
})
