// E103 to E116 and E160: cache invalidation. The call answers 0 whatever came of it; what came of it is on the trace.
import { describe, expect, it } from 'vitest'
import type { InvalidationMembers } from '../../src/testing/index.js'
import {
  IOMMU_INV_GRANU_ADDR as BY_ADDRESS,
  IOMMU_INV_GRANU_DOMAIN as BY_DOMAIN,
  IOMMU_INV_GRANU_PASID as BY_PASID,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB as DEVICE,
  IOMMU_CACHE_INV_TYPE_PASID as ENTRY,
  IOMMU_CACHE_INV_TYPE_IOTLB as IOTLB,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_nesting_op,
} from '../../src/uapi.js'
import { bench, bound, flushes, heard, outcomes, testDevice, withPasid } from './support.js'

/** One invalidation of a bound id: what the call answered, what came of it, what was flushed. */
function invalidate(s: ReturnType<typeof bound>, members: InvalidationMembers) {
  let came: string[] = []
  const flushed = flushes(s.b, () => {
    came = outcomes(s.b, () => {
      expect(() => s.c.invalidate({ pasid: s.id, ...members })).toSucceed(0)
    })
  })
  return { came: came[0], flushed: flushed.filter(f => f !== 'wait') }
}

describe('CACHE_INVLD', () => {
  it('E103 on a container that does not offer it is EOPNOTSUPP', () => {
    const b = bench()
    const c = b.process().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    expect(() => c.invalidate(1)).toRefuse('EOPNOTSUPP')
  })

  // biome-ignore format: table
  const nothing: readonly (readonly [string, InvalidationMembers, string])[] = [
    ['E104 granularity 3',                      { granularity: 3 },                                 'EINVAL'],
    ['E105 device TLB by domain',               { cache: DEVICE, granularity: BY_DOMAIN },          'EINVAL'],
    ['E106 IOTLB and PASID cache by address',   { cache: IOTLB | ENTRY, granularity: BY_ADDRESS },  'EINVAL'],
    ['E107 IOTLB by domain',                    { granularity: BY_DOMAIN },                         'done'],
    ['E109 argsz 31 by PASID',                  { argsz: 31 },                                      'EINVAL'],
    ['E110 argsz 16 by domain, a fitting size', { granularity: BY_DOMAIN, argsz: 16 },              'done'],
    ['E114 by address without PASID and ARCHID', { granularity: BY_ADDRESS, flags: 0 },             'ENOENT'],
    ['E115 no cache',                           { cache: 0 },                                       'done'],
    ['version 0',                               { version: 0 },                                     'EINVAL'],
    ['a cache bit that is unknown',             { cache: 8 },                                       'EINVAL'],
    ['padding',                                 { padding: [0, 0, 0, 0, 0, 1] },                    'EINVAL'],
  ]
  it.each(nothing)('%s answers 0 and flushes nothing', (_, members, came) => {
    expect(invalidate(bound(), members)).toEqual({ came: `invalidate ${came}`, flushed: [] })
  })
  it.each([false, true])(
    'E108 IOTLB and device TLB by PASID flushes the IOTLB and ends there; ATS %s',
    ats => {
      const { flushed } = invalidate(bound({ device: testDevice({ ats }) }), {
        cache: IOTLB | DEVICE,
      })
      expect(flushed).toEqual(ats ? ['pasid-iotlb', 'device-tlb'] : ['pasid-iotlb'])
    },
  )
  it('E111 three pages from 0x1000 are flushed as an aligned block of four', () => {
    const s = bound()
    const [flush] = heard(s.b, 'vtd.invalidate', () =>
      s.c.invalidate({ pasid: s.id, addr: 0x1000n, granules: 3n }),
    )
    expect(flush).toMatchObject({ what: 'pasid-iotlb', pasid: s.id, pageBits: 14 })
  })
  it('E112 of an id that is not bound flushes nothing', () => {
    expect(invalidate(withPasid(), {})).toEqual({ came: 'invalidate EINVAL', flushed: [] })
  })
  it("E113 of another's id flushes nothing; its translations stay", () => {
    const s = bound()
    const other = s.b.process().nesting(1)
    const id = other.alloc()
    other.bind(id)
    expect(invalidate(s, { pasid: id })).toEqual({ came: 'invalidate EACCES', flushed: [] })
  })
  it('E116 an entry cleared without it may still be used; after it never', () => {
    const b = bench()
    const space = b.bind(7)
    space.map(0x1000n, b.page('old'))
    b.dmaRead(0x1000n, { pasid: 7 })
    space.unmap(0x1000n)
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'old' })
    space.invalidate(0x1000n)
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toFaultWith('fsEntryNotPresent')
  })
  it.each([
    ['V7R', 'flushes nothing', []],
    ['V7', 'flushes the id in the lower half', ['pasid-iotlb']],
  ] as const)('E160 of an id with bit 32 set: %s %s', (profile, _, flushed) => {
    const s = bound({ profile })
    const pasid = 0x1_0000_0000n + BigInt(s.id)
    expect(invalidate(s, { pasid, granularity: BY_PASID }).flushed).toEqual(flushed)
  })
})

describe('E166 a readable header before an unreadable payload', () => {
  it.each([
    ['BIND', 0, 'EFAULT'],
    ['UNBIND', 1, undefined],
    ['CACHE_INVLD', 2, undefined],
  ] as const)('%s: %3$s', (_, flags, errno) => {
    const s = bound()
    const at = s.p.atEndOfPage(vfio_iommu_type1_nesting_op({ argsz: 80, flags }).bytes)
    const call = () => s.c.opAt(at)
    if (errno) expect(call).toRefuse(errno)
    else expect(call).toSucceed(0)
    expect(s.b.holdings().bindings).toBe(1)
  })
})
