import { afterEach, describe, expect, it } from 'vitest'
import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_unmap,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const PAGE = 0x1000n

/** Pages 0x10 to 0x13 and 0x16 mapped, and room for a bitmap. */
function setup(type = VFIO_TYPE1v2_IOMMU) {
  const b = bench()
  const p = b.program()
  const c = p.container(type, b.functions[0]!.group)
  const m = p.sys.mmap(0x8000)
  const bits = p.sys.mmap(0x1000)
  c.map(0x10000n, m.vaddr, 4n * PAGE)
  c.map(0x16000n, m.vaddr, PAGE)
  const dirty = (flags: number, argsz?: number) =>
    c.call(
      VFIO_IOMMU_DIRTY_PAGES,
      vfio_iommu_type1_dirty_bitmap({ flags, ...(argsz === undefined ? {} : { argsz }) }),
    )
  const bitmap = (init: Parameters<typeof vfio_bitmap>[0] = {}) =>
    vfio_bitmap({ pgsize: PAGE, size: 8n, data: bits.vaddr, ...init })
  const get = (
    iova: bigint,
    size: bigint,
    init: Parameters<typeof vfio_bitmap>[0] = {},
    argsz?: number,
  ) => {
    const range = vfio_iommu_type1_dirty_bitmap_get({ iova, size, bitmap: bitmap(init) })
    const arg = vfio_iommu_type1_dirty_bitmap({
      flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
      data: range.bytes,
    })
    if (argsz !== undefined) arg.argsz = argsz
    return c.call(VFIO_IOMMU_DIRTY_PAGES, arg)
  }
  return { c, bits, dirty, get, bitmap }
}

describe('VFIO_IOMMU_DIRTY_PAGES', () => {
  it('is refused by type 1 before anything is read', () => {
    refused('EACCES', () => setup(VFIO_TYPE1_IOMMU).c.call(VFIO_IOMMU_DIRTY_PAGES, 0))
  })
  it.each([0, 3, 5, 8, 1 | 8])('refuses flags %d', flags => {
    refused('EINVAL', () => setup().dirty(flags))
  })
  it('refuses a short argsz and an unreadable argument; START and STOP repeat', () => {
    const { c, dirty } = setup()
    refused('EINVAL', () => dirty(1, 7))
    refused('EFAULT', () => c.call(VFIO_IOMMU_DIRTY_PAGES, 0x1000))
    for (const flags of [1, 1, 2, 2])
      expect(
        dirty(flags === 1 ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP),
      ).toBe(0)
  })
  it('reports every mapped page, and again, leaving other bits alone', () => {
    const { bits, dirty, get } = setup()
    dirty(1)
    for (let n = 0; n < 2; n++) {
      bits.bytes.fill(0)
      bits.bytes[1] = 0x80
      get(0xe000n, 16n * PAGE)
      // Pages 0x10 to 0x13 are bits 2 to 5, page 0x16 is bit 8.
      expect([...bits.bytes.subarray(0, 3)]).toEqual([0b0011_1100, 0x81, 0])
    }
  })
  // biome-ignore format: table
  it.each([
    ['a short argsz',     0x10000n, 4n * PAGE, {},                    47],
    ['another page size', 0x10000n, 4n * PAGE, { pgsize: 0x2000n },   undefined],
    ['an unaligned iova', 0x10800n, 4n * PAGE, {},                    undefined],
    ['size 0',            0x10000n, 0n,        {},                    undefined],
    ['a wrap',            0xffff_ffff_ffff_f000n, 2n * PAGE, {},      undefined],
    ['a cut mapping',     0x11000n, 3n * PAGE, {},                    undefined],
    ['a small bitmap',    0x10000n, 65n * PAGE, { size: 8n },         undefined],
    ['a huge bitmap',     0x10000n, 4n * PAGE, { size: 1n << 29n },   undefined],
  ] as const)('GET_BITMAP refuses %s', (_, iova, size, init, argsz) => {
    const { dirty, get } = setup()
    dirty(1)
    refused('EINVAL', () => get(iova, size, init, argsz))
  })
  it('GET_BITMAP refuses while logging is off, and an unwritable bitmap', () => {
    const { dirty, get } = setup()
    refused('EINVAL', () => get(0x10000n, 4n * PAGE))
    dirty(1)
    refused('EFAULT', () => get(0x10000n, 4n * PAGE, { data: 0x1000n }))
  })
})

describe('UNMAP_DMA with GET_DIRTY_BITMAP', () => {
  it('reports and unmaps, or refuses and does neither', () => {
    const { c, bits, dirty, bitmap } = setup()
    const unmap = (data: Uint8Array) => {
      const flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
      const arg = vfio_iommu_type1_dma_unmap({ flags, iova: 0x10000n, size: 4n * PAGE, data })
      c.call(VFIO_IOMMU_UNMAP_DMA, arg)
      return arg.size
    }
    refused('EINVAL', () => unmap(new Uint8Array(23)))
    refused('EINVAL', () => unmap(bitmap().bytes))
    dirty(1)
    refused('EINVAL', () => unmap(bitmap({ size: 0n }).bytes))
    expect(unmap(bitmap().bytes)).toBe(4n * PAGE)
    expect(bits.bytes[0]).toBe(0x0f)
    bits.bytes[0] = 0
    expect(unmap(bitmap().bytes)).toBe(0n)
    expect(bits.bytes[0]).toBe(0)
  })
})
