// Invalidating guests' tables: entries in order, progress told, refusals by entry; what is cached until then.
import { afterEach, describe, expect, it } from 'vitest'
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1_invalidate,
} from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import {
  ALL,
  checkIommufd,
  GVA,
  guestMemory,
  iommufdBench,
  PAGE,
  user,
  userBytes,
} from './bench.js'

afterEach(checkIommufd)

function setup(pasid?: number) {
  const b = iommufdBench()
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  const guest = guestMemory(u.sys)
  u.map(ioas, guest.vaddr, 0x1_0000n, 0n)
  const parent = u.hwpt(d.id, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT })
  const stage1 = { pgtbl_addr: guest.root }
  const hwpt = u.nested(d.id, parent, stage1, { flags: IOMMU_HWPT_ALLOC_PASID })
  for (let n = 0; n < 4; n++) guest.page(n, 0x5000 + n * 0x1000)
  guest.put(0x5000, 11)
  guest.put(0xa000, 22)
  /** What the device finds at page 0, by copying it to page 2. */
  const seen = () => {
    guest.put(0x7000, 0)
    expect(d.dma(GVA, GVA + 2n * PAGE, 8, pasid)).toBe(true)
    return Number(guest.word(0x7000))
  }
  return { b, u, d, ioas, guest, parent, hwpt, seen }
}

describe.each([
  ['under a PASID', 5],
  ['of a function', undefined],
] as const)('a changed entry %s', (_, pasid) => {
  it.each([
    ['its page', [{ addr: GVA, npages: 1n }]],
    ['a range around it, not aligned to its size', [{ addr: GVA - PAGE, npages: 3n }]],
    ['everything', [{ addr: 0n, npages: ALL }]],
    ['more pages than there are', [{ addr: 0n, npages: 2n ** 60n }]],
    ['its leaf', [{ addr: GVA, npages: 1n, flags: 1 }]],
  ] as const)('is seen once %s is invalidated', (_what, entries) => {
    const { u, d, guest, hwpt, seen } = setup(pasid)
    d.attach(hwpt, pasid)
    expect(seen()).toBe(11)
    guest.page(0, 0xa000)
    expect(u.invalidate(hwpt, entries)).toBe(entries.length)
    expect(seen()).toBe(22)
  })

  it('stays as it was cached when other pages are invalidated', () => {
    const { u, d, guest, hwpt, seen } = setup(pasid)
    d.attach(hwpt, pasid)
    expect(seen()).toBe(11)
    guest.page(0, 0xa000)
    u.invalidate(hwpt, [{ addr: GVA + 16n * PAGE, npages: 1n }])
    expect(seen()).toBe(11)
    u.invalidate(hwpt, [{ addr: 0n, npages: 0n }])
    expect(seen()).toBe(11)
  })
})

describe('progress', () => {
  it('E149: no entries and an unknown type is EINVAL, and 0 were handled', () => {
    const { u, hwpt } = setup()
    const arg = iommu_hwpt_invalidate({ hwpt_id: hwpt, data_type: 7 })
    refused('EINVAL', () => u.call(IOMMU_HWPT_INVALIDATE, arg))
    expect(arg.entry_num).toBe(0)
    u.call(IOMMU_HWPT_INVALIDATE, iommu_hwpt_invalidate({ hwpt_id: hwpt }))
  })

  it('E150: the second of three misaligned is EINVAL, and 1 was handled', () => {
    const { u, hwpt } = setup()
    const entries = [{ npages: 1n }, { addr: 0x1001n, npages: 1n }, { npages: 1n }]
    const { size } = iommu_hwpt_vtd_s1_invalidate
    const bytes = new Uint8Array(3 * size)
    for (const [i, e] of entries.entries())
      bytes.set(iommu_hwpt_vtd_s1_invalidate(e).bytes, i * size)
    const arg = iommu_hwpt_invalidate({
      hwpt_id: hwpt,
      entry_num: 3,
      entry_len: size,
      data_uptr: userBytes(u.sys, bytes),
    })
    refused('EINVAL', () => u.call(IOMMU_HWPT_INVALIDATE, arg))
    expect(arg.entry_num).toBe(1)
  })

  it('E151: 2^64-1 pages from anywhere but 0 is EINVAL', () => {
    const { u, hwpt } = setup()
    refused('EINVAL', () => u.invalidate(hwpt, [{ addr: 0x1000n, npages: ALL }]))
  })

  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'an unknown flag of an entry',    { flags: 2 }, {}],
    ['EOPNOTSUPP', 'a reserved member of an entry',  { __reserved: 1 }, {}],
    ['EOPNOTSUPP', 'a reserved member',              {}, { __reserved: 1 }],
    ['EINVAL',     'no pointer',                     {}, { data_uptr: 0n }],
    ['EINVAL',     'entries of 0 bytes',             {}, { entry_len: 0 }],
    ['EINVAL',     'entries shorter than known',     {}, { entry_len: 16 }],
    ['EINVAL',     'entries longer than a page',     {}, { entry_len: 4097 }],
    ['EINVAL',     'too many entries',               {}, { entry_num: 2 ** 19 + 1 }],
    ['EINVAL',     'commands of an SMMUv3',          {}, { data_type: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 }],
    ['EFAULT',     'entries that are not there',     {}, { data_uptr: 0x1000n }],
    ['ENOENT',     'no table',                       {}, { hwpt_id: 99 }],
    ['EINVAL',     'a device',                       {}, { hwpt_id: 1 }],
  ] as const)('%s: %s', (code, _, entry, init) => {
    const { u, hwpt } = setup()
    refused(code, () => u.invalidate(hwpt, [{ npages: 1n, ...entry }], init))
  })

  it('EINVAL for a table that is not nested', () => {
    const { u, parent } = setup()
    refused('EINVAL', () => u.invalidate(parent, [{ npages: 1n }]))
  })

  it('larger entries are taken when nothing is behind what is known, E2BIG otherwise', () => {
    const { u, hwpt } = setup()
    const bytes = new Uint8Array(80)
    const call = () => {
      const arg = iommu_hwpt_invalidate({
        hwpt_id: hwpt,
        entry_num: 2,
        entry_len: 40,
        data_uptr: userBytes(u.sys, bytes),
      })
      try {
        return u.call(IOMMU_HWPT_INVALIDATE, arg)
      } finally {
        handled = arg.entry_num
      }
    }
    let handled = -1
    call()
    expect(handled).toBe(2)
    bytes[79] = 1
    refused('E2BIG', call)
    expect(handled).toBe(1)
  })
})
