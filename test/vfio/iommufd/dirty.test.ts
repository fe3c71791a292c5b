// Dirty tracking by the IOMMU's own flags: what DMA wrote, no more and no less, and what each refusal is called.
import { afterEach, describe, expect, it } from 'vitest'
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import { ALL, checkIommufd, GVA, guestMemory, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const TRACKED = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_PASID

function setup(flags = TRACKED, length = 0x1_0000n, options = {}) {
  const b = iommufdBench(options)
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  // Frames that begin at a multiple of 2 MiB.
  const memory = u.sys.mmap(Number(length) + 0x20_0000)
  const hpa = u.sys.process.memory.hpaAt(memory.vaddr)
  const vaddr = memory.vaddr + BigInt((0x20_0000 - (hpa % 0x20_0000)) % 0x20_0000)
  u.map(ioas, vaddr, length, 0x20_0000n)
  const hwpt = u.hwpt(d.id, ioas, { flags })
  const bitmap = u.sys.mmap(0x1000)
  const track = (on: boolean, id = hwpt) =>
    u.call(
      IOMMU_HWPT_SET_DIRTY_TRACKING,
      iommu_hwpt_set_dirty_tracking({
        hwpt_id: id,
        flags: on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
      }),
    )
  const get = (init: Parameters<typeof iommu_hwpt_get_dirty_bitmap>[0] = {}) =>
    u.call(
      IOMMU_HWPT_GET_DIRTY_BITMAP,
      iommu_hwpt_get_dirty_bitmap({
        hwpt_id: hwpt,
        iova: 0x20_0000n,
        length,
        page_size: PAGE,
        data: bitmap.vaddr,
        ...init,
      }),
    )
  /** Numbers of the pages that are reported. */
  const dirty = (init: Parameters<typeof iommu_hwpt_get_dirty_bitmap>[0] = {}) => {
    bitmap.bytes.fill(0)
    get(init)
    return [...bitmap.bytes].flatMap((byte, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].flatMap(bit => (byte & (1 << bit) ? [i * 8 + bit] : [])),
    )
  }
  const write = (page: number, pasid?: number) =>
    d.dma(0x20_0000n, 0x20_0000n + BigInt(page) * PAGE, 8, pasid)
  return { b, u, d, ioas, hwpt, bitmap, track, get, dirty, write }
}

describe('what was written', () => {
  it('is reported once, and again only when written again', () => {
    const { d, hwpt, track, dirty, write } = setup()
    d.attach(hwpt)
    write(1)
    track(true)
    expect(dirty()).toEqual([])
    write(3)
    write(9)
    expect(dirty({ flags: IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR })).toEqual([3, 9])
    expect(dirty()).toEqual([3, 9])
    expect(dirty()).toEqual([])
    write(3)
    expect(dirty()).toEqual([3])
  })

  it.each([
    ['before', true],
    ['after', false],
  ] as const)('under a PASID attached %s tracking began', (_, early) => {
    const { d, hwpt, track, dirty, write } = setup()
    if (early) d.attach(hwpt, 5)
    track(true)
    if (!early) d.attach(hwpt, 5)
    expect(write(2, 5)).toBe(true)
    expect(dirty()).toEqual([2])
  })

  it('through a guest’s table over a tracked parent', () => {
    const { u, d, ioas, track } = setup()
    const guest = guestMemory(u.sys)
    u.map(ioas, guest.vaddr, 0x1_0000n, 0n)
    guest.page(0, 0x5000)
    guest.page(1, 0x6000)
    const flags = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING
    const parent = u.hwpt(d.id, ioas, { flags })
    const nested = u.nested(
      d.id,
      parent,
      { pgtbl_addr: guest.root },
      { flags: IOMMU_HWPT_ALLOC_PASID },
    )
    d.attach(nested, 5)
    track(true, parent)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(true)
    const bitmap = u.sys.mmap(0x1000)
    const arg = { hwpt_id: parent, length: 0x1_0000n, page_size: PAGE, data: bitmap.vaddr }
    u.call(IOMMU_HWPT_GET_DIRTY_BITMAP, iommu_hwpt_get_dirty_bitmap(arg))
    expect(bitmap.bytes[0]! & (1 << 6)).not.toBe(0)
    expect(bitmap.bytes[0]! & (1 << 7)).toBe(0)
  })

  it('is added to the bitmap: bits that are set stay', () => {
    const { d, hwpt, track, get, write, bitmap } = setup()
    d.attach(hwpt)
    track(true)
    write(1)
    bitmap.bytes[0] = 0x80
    get()
    expect(bitmap.bytes[0]).toBe(0x82)
  })

  it('counts a large IOMMU page whole, clipped to what was asked', () => {
    const { d, hwpt, track, dirty, write } = setup(TRACKED, 0x20_0000n, { ramBytes: 64 * 2 ** 20 })
    d.attach(hwpt)
    track(true)
    write(7)
    const four = { length: 0x4000n, flags: IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR }
    expect(dirty(four)).toEqual([0, 1, 2, 3])
    expect(dirty()).toHaveLength(512)
  })

  it('has a bit for each larger page when asked so', () => {
    const { d, hwpt, track, dirty, write } = setup()
    d.attach(hwpt)
    track(true)
    write(5)
    write(6)
    write(12)
    expect(dirty({ page_size: 0x4000n })).toEqual([1, 3])
  })
})

describe('refusals', () => {
  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'an unknown flag',             { flags: 2 }],
    ['EOPNOTSUPP', 'a reserved member',           { __reserved: 1 }],
    ['ENOENT',     'no table',                    { hwpt_id: 99 }],
    ['EINVAL',     'length 0',                    { length: 0n }],
    ['EOVERFLOW',  'a range that wraps',          { iova: ALL - 0xfffn, length: 0x2000n }],
    ['EINVAL',     'page size 0',                 { page_size: 0n }],
    ['EINVAL',     'a page size that is none',    { page_size: 0x3000n }],
    ['EINVAL',     'a range between pages',       { iova: 0x20_0800n }],
    ['EINVAL',     'a range between larger ones', { iova: 0x20_1000n, length: 0x4000n, page_size: 0x4000n }],
    ['EINVAL',     'a hole',                      { length: 0x2_0000n }],
    ['EFAULT',     'no bitmap',                   { data: 0x1000n }],
  ] as const)('GET_DIRTY_BITMAP: %s for %s; nothing is forgotten', (code, _, init) => {
    const { d, hwpt, track, get, dirty, write } = setup()
    d.attach(hwpt)
    track(true)
    write(4)
    refused(code, () => get(init))
    expect(dirty()).toEqual([4])
  })

  it('EINVAL while tracking is off', () => {
    const { track, get } = setup()
    refused('EINVAL', get)
    track(true)
    track(false)
    refused('EINVAL', get)
  })

  it('EOPNOTSUPP for a table not made for it, and for unknown flags', () => {
    const { u, track, get } = setup(0)
    refused('EOPNOTSUPP', () => track(true))
    refused('EOPNOTSUPP', get)
    for (const init of [{ flags: 2 }, { __reserved: 1 }]) {
      const arg = iommu_hwpt_set_dirty_tracking({ hwpt_id: 99, ...init })
      refused('EOPNOTSUPP', () => u.call(IOMMU_HWPT_SET_DIRTY_TRACKING, arg))
    }
    const arg = iommu_hwpt_set_dirty_tracking({ hwpt_id: 99 })
    refused('ENOENT', () => u.call(IOMMU_HWPT_SET_DIRTY_TRACKING, arg))
  })
})
