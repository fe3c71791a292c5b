import { afterEach, describe, expect, it } from 'vitest'
import {
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../src/uapi.js'
import { bench, checkBenches, READ_WRITE, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const PAGE = 0x1000n
const ALL = VFIO_DMA_UNMAP_FLAG_ALL

/** Mappings at pages 0x10 to 0x13 and 0x16 to 0x17. */
function setup(options: Parameters<typeof bench>[0] = {}, type = VFIO_TYPE1v2_IOMMU) {
  const b = bench(options)
  const p = b.program()
  const c = p.container(type, b.functions[0]!.group)
  const m = p.sys.mmap(0x8000)
  c.map(0x10000n, m.vaddr, 4n * PAGE)
  c.map(0x16000n, m.vaddr, 2n * PAGE)
  return { b, p, c, m }
}

describe('VFIO_IOMMU_UNMAP_DMA', () => {
  it('removes what it covers, unpins, and tells the bytes', () => {
    const { b, p, c } = setup()
    expect(c.unmap(0x10000n, 4n * PAGE)).toBe(4n * PAGE)
    expect(b.held()).toMatchObject({ mappings: 1, pins: 2 })
    expect(p.sys.process.memory.lockedPages).toBe(2)
  })
  it('skips holes and succeeds where nothing is mapped', () => {
    const { c } = setup()
    expect(c.unmap(0x80000n, PAGE)).toBe(0n)
    expect(c.unmap(0x14000n, 2n * PAGE)).toBe(0n)
    expect(c.unmap(0n, 0x100000n)).toBe(6n * PAGE)
    expect(c.unmap(0n, 0x100000n)).toBe(0n)
  })

  // biome-ignore format: table
  const refusals = [
    ['argsz 23',              { argsz: 23 },                                            'EINVAL', 'EINVAL'],
    ['an unknown flag',       { flags: 8 },                                             'EINVAL', 'EINVAL'],
    ['size 0',                { size: 0n },                                             'EINVAL', 'EINVAL'],
    ['an unaligned size',     { size: 0x1800n },                                        'EINVAL', 'EINVAL'],
    ['an unaligned iova',     { iova: 0x10800n },                                       'EINVAL', 'EINVAL'],
    ['a range that wraps',    { iova: 0xffff_ffff_ffff_f000n, size: 2n * PAGE },        'EINVAL', 'EOVERFLOW'],
    ['a cut at the front',    { iova: 0x11000n, size: 3n * PAGE },                      'EINVAL', 'EINVAL'],
    ['a cut at the back',     { iova: 0x10000n, size: 3n * PAGE },                      'EINVAL', 'EINVAL'],
    ['a cut of the last',     { iova: 0x10000n, size: 7n * PAGE },                      'EINVAL', 'EINVAL'],
    ['a page in the middle',  { iova: 0x12000n, size: PAGE },                           'EINVAL', 'EINVAL'],
  ] as const
  it.each(refusals)('refuses %s and leaves size as it was', (_, init, early, late) => {
    for (const [profile, errno] of [
      ['V7R', early],
      ['L72', late],
    ] as const) {
      const { b, c } = setup({ profile })
      const before = b.held()
      const arg = vfio_iommu_type1_dma_unmap({ iova: 0x10000n, size: 4n * PAGE, ...init })
      const size = arg.size
      refused(errno, () => c.call(VFIO_IOMMU_UNMAP_DMA, arg))
      expect(arg.size).toBe(size)
      expect(b.held()).toEqual(before)
    }
  })
  it('refuses an unreadable argument', () => {
    refused('EFAULT', () => setup().c.call(VFIO_IOMMU_UNMAP_DMA, 0x1000))
  })
  it('takes a range that ends at the last byte', () => {
    expect(setup().c.unmap(0n, 0xffff_ffff_ffff_f000n)).toBe(6n * PAGE)
    expect(setup().c.unmap(0x10000n, 0xffff_ffff_fff0_0000n + 0xf_0000n)).toBe(6n * PAGE)
  })
  it('a nesting container does not cut either', () => {
    const { c } = setup({}, VFIO_TYPE1_NESTING_IOMMU)
    refused('EINVAL', () => c.unmap(0x11000n, PAGE))
  })

  it.each([
    [0x11000n, PAGE, 0n],
    [0x11000n, 0x10000n, 0n],
    [0x10000n, PAGE, 4n],
    [0xf000n, 2n * PAGE, 4n],
    [0x10000n, 7n * PAGE, 6n],
    [0x14000n, 3n * PAGE, 2n],
  ])(
    'type 1 removes whole mappings and never cuts: %x + %x gives %d pages',
    (iova, size, pages) => {
      const { c } = setup({}, VFIO_TYPE1_IOMMU)
      expect(c.unmap(iova, size)).toBe(pages * PAGE)
    },
  )

  it('stops at a mapping of another process, by profile', () => {
    for (const [profile, removed] of [
      ['V7R', 0n],
      ['L72', 5n],
    ] as const) {
      const { p, c } = setup({ profile })
      const child = p.sys.fork()
      const own = child.mmap(0x1000)
      c.unmap(0x16000n, 2n * PAGE)
      const arg = (iova: bigint, size: bigint) => vfio_iommu_type1_dma_unmap({ iova, size })
      child.ioctl(
        c.fd,
        VFIO_IOMMU_MAP_DMA,
        vfio_iommu_type1_dma_map({
          flags: READ_WRITE,
          iova: 0x8000n,
          vaddr: own.vaddr,
          size: PAGE,
        }),
      )
      const all = arg(0n, 0x100000n)
      p.sys.ioctl(c.fd, VFIO_IOMMU_UNMAP_DMA, all)
      expect(all.size).toBe(removed * PAGE)
      child.exit()
    }
  })
})

describe('UNMAP_DMA flags of 5.12', () => {
  it.each([ALL, VFIO_DMA_UNMAP_FLAG_VADDR])('V7R knows no flag %d', flag => {
    refused('EINVAL', () => setup().c.unmap(0n, 0n, flag))
  })
  it('ALL removes everything and takes neither iova nor size', () => {
    const { c } = setup({ profile: 'L512' })
    refused('EINVAL', () => c.unmap(0x10000n, 0n, ALL))
    refused('EINVAL', () => c.unmap(0n, 4n * PAGE, ALL))
    refused('EINVAL', () => c.unmap(0n, 0n, ALL | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP))
    expect(c.unmap(0n, 0n, ALL)).toBe(6n * PAGE)
    expect(c.unmap(0n, 0n, ALL)).toBe(0n)
  })
})
