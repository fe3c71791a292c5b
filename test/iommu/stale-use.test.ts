// The stale-use detector: every kind of stale use is reported with who changed what, and none is after the right
// invalidation.
import { describe, expect, it } from 'vitest'
import type { StaleUse } from '../../src/iommu/stale-use.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import type { TranslationCache } from '../../src/pci/atc.js'
import { ObservedCache } from '../../src/pci/atc-observer.js'
import { MemoryRequest } from '../../src/pci/request.js'
import { CR0, command, SID, RW as SMMU_RW, Bench as SmmuBench, TLBI } from './smmu/bench.js'
import { BDF, Bench, descriptor, FULL, P, R2, US, W2 } from './vtd/bench.js'

const VA = 0x4000_5000n
const PAGE = 0x50_0000n
const OTHER = 0x51_0000n

/** A unit in scalable mode with PASID 5 in domain 1 translating VA by a first stage. */
function firstStage() {
  const b = new Bench({ detect: true })
  b.startQueue()
  const tables = b.scalable()
  b.enable()
  const root = b.alloc()
  const leaf = b.map(root, VA, PAGE | FULL)
  const entry = b.firstStage(tables.directory, 5, root)
  return { b, ...tables, root, leaf, entry, uses: b.detector!.uses }
}

/** The same nested: guest-physical is host-physical, except that VA's page is at OTHER's place behind `gpa`. */
function nestedStages() {
  const b = new Bench({ detect: true })
  b.startQueue()
  const tables = b.scalable()
  b.enable()
  const first = b.alloc()
  const gpa = 0x70_0000n
  const leaf = b.map(first, VA, gpa | FULL)
  const second = b.alloc()
  for (let at = 0x10_0000; at < 0x14_0000; at += 4096)
    b.map2(second, BigInt(at), BigInt(at) | R2 | W2)
  const secondLeaf = b.map2(second, gpa, PAGE | R2 | W2)
  b.nested(tables.directory, 5, first, second)
  return { b, leaf, secondLeaf, uses: b.detector!.uses }
}

const only = (uses: readonly StaleUse[]): StaleUse => {
  expect(uses).toHaveLength(1)
  return uses[0]!
}

describe('stale use of a VT-d unit', () => {
  it('a leaf that changed without an IOTLB invalidation', () => {
    const { b, leaf, uses } = firstStage()
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(PAGE))
    b.clock.advance(700)
    b.store(leaf, OTHER | FULL)
    b.clock.advance(300)
    expect(b.dma(VA + 8n, { pasid: 5 })).toBe(Number(PAGE) + 8)
    expect(only(uses)).toMatchObject({
      time: 1000,
      cache: 'IOTLB',
      requester: BDF,
      pasid: 5,
      address: VA + 8n,
      access: 'read',
      used: Number(PAGE) + 8,
      now: Number(OTHER) + 8,
      changes: [
        { entry: 'FS-PTE', stage: 1, at: leaf, by: 'host', time: 700, after: OTHER | FULL },
      ],
      missing: expect.stringContaining(
        'p_iotlb_inv_dsc) of domain 1, PASID 5, covering 0x40005000',
      ),
      section: 'VT-d 6.5.2.4',
    })
  })

  // biome-ignore format: table
  it.each<readonly [string, (b: Bench) => void]>([
    ['of the page',   b => b.submit(descriptor.pasidIotlbPage(1, 5, VA))],
    ['of the PASID',  b => b.submit(descriptor.pasidIotlb(1, 5))],
    ['of the domain', b => b.submit(descriptor.iotlbDomain(1))],
    ['of everything', b => b.submit(descriptor.iotlbGlobal())],
  ])('nothing after an IOTLB invalidation %s', (_, invalidate) => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.store(leaf, OTHER | FULL)
    invalidate(b)
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(OTHER))
    expect(uses).toEqual([])
  })

  // biome-ignore format: table
  it.each<readonly [string, (b: Bench) => void]>([
    ['another page',   b => b.submit(descriptor.pasidIotlbPage(1, 5, VA + 0x1000n))],
    ['another PASID',  b => b.submit(descriptor.pasidIotlb(1, 6))],
    ['another domain', b => b.submit(descriptor.iotlbDomain(2))],
    ['the PASID cache', b => b.submit(descriptor.pasidCache(1, 5))],
  ])('an invalidation of %s is not enough', (_, invalidate) => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.store(leaf, 0n)
    invalidate(b)
    b.dma(VA, { pasid: 5 })
    expect(only(uses)).toMatchObject({ cache: 'IOTLB', now: -1 })
  })

  it('a permission that was taken away, for the access that needs it only', () => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5, write: true })
    b.store(leaf, PAGE | P | US)
    b.dma(VA, { pasid: 5 })
    expect(uses).toEqual([])
    b.dma(VA, { pasid: 5, write: true })
    expect(only(uses)).toMatchObject({ cache: 'IOTLB', access: 'write', now: -1 })
  })

  it('a table entry above the leaf', () => {
    const { b, root, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.store(root, 0n)
    b.dma(VA, { pasid: 5 })
    expect(only(uses).changes).toMatchObject([{ entry: 'FS-PML4E', at: root, after: 0n }])
  })

  it('a PASID table entry that changed without a PASID-cache invalidation', () => {
    const { b, entry, root, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    const other = b.alloc()
    b.map(other, VA, OTHER | FULL)
    b.store(entry + 16, other)
    b.dma(VA, { pasid: 5 })
    expect(uses[0]).toMatchObject({
      cache: 'PASID cache',
      changes: [
        { entry: 'PASID table entry', at: entry + 16, before: BigInt(root), after: BigInt(other) },
      ],
      missing: expect.stringContaining('pc_inv_dsc) of domain 1, PASID 5'),
      section: 'VT-d 6.5.2.2',
    })
  })

  it('a PASID-cache invalidation without that of the IOTLB leaves the translation stale', () => {
    const { b, entry, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    const other = b.alloc()
    b.map(other, VA, OTHER | FULL)
    b.store(entry + 16, other)
    b.submit(descriptor.pasidCache(1, 5))
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(PAGE))
    expect(only(uses)).toMatchObject({ cache: 'IOTLB', section: 'VT-d 6.5.2.4' })
    b.submit(descriptor.pasidIotlb(1, 5))
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(OTHER))
    expect(uses).toHaveLength(1)
  })

  it('a context entry that changed without a context-cache invalidation', () => {
    const { b, context, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.store(context, b.load(context) & ~8n)
    b.dma(VA, { pasid: 5 })
    expect(only(uses)).toMatchObject({
      cache: 'context cache',
      changes: [{ entry: 'context entry', at: context }],
      missing: expect.stringContaining('cc_inv_dsc) for 0000:01:00.0'),
      section: 'VT-d 6.5.2.1',
    })
    b.submit(
      descriptor.contextDevice(0, BDF),
      descriptor.pasidCacheGlobal(),
      descriptor.iotlbGlobal(),
    )
    expect(b.dma(VA, { pasid: 5 })).toBe('pasidDisabled')
    expect(uses).toHaveLength(1)
  })

  it('a legacy context entry', () => {
    const b = new Bench({ detect: true })
    const table = b.alloc()
    b.map2(table, VA, PAGE | R2)
    const at = b.legacy(table)
    b.enable()
    b.dma(VA)
    b.store(at, BigInt(b.alloc()) | 1n)
    b.dma(VA)
    expect(b.detector!.uses[0]).toMatchObject({ cache: 'context cache' })
  })

  it('the second stage under a nested translation wants an IOTLB invalidation of the domain', () => {
    const { b, secondLeaf, uses } = nestedStages()
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(PAGE))
    b.store(secondLeaf, OTHER | R2 | W2)
    b.submit(descriptor.pasidIotlbPage(1, 5, VA + 0x1000n))
    b.dma(VA, { pasid: 5 })
    expect(only(uses)).toMatchObject({
      changes: [{ entry: 'SS-PTE', stage: 2, at: secondLeaf }],
      missing: expect.stringContaining('iotlb_inv_dsc) of domain 1'),
      section: 'VT-d 6.5.2.3',
    })
    b.submit(descriptor.iotlbDomain(1))
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(OTHER))
    expect(uses).toHaveLength(1)
  })

  it('says that a guest’s processor wrote, through its own view of the memory', () => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    const guest = new AddressSpace()
    guest.addRam(0, b.ram.bytes.subarray(0x10_0000))
    guest.store(leaf - 0x10_0000, 8, 0n)
    b.dma(VA, { pasid: 5 })
    expect(only(uses).changes).toMatchObject([{ by: 'guest processor', at: leaf }])
  })

  it.each(['device', 'driver'] as const)('says that a %s wrote', by => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.ram.words[leaf >> 2] = 0
    b.ram.wrote(leaf, 8, by)
    b.dma(VA, { pasid: 5 })
    const name = by === 'device' ? 'device DMA' : 'host driver'
    expect(only(uses).changes).toMatchObject([{ by: name, at: leaf }])
  })

  it('says that nobody was seen writing, where a process writes its own memory', () => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.ram.words[leaf >> 2] = 0
    b.clock.advance(50)
    b.dma(VA, { pasid: 5 })
    expect(only(uses).changes).toMatchObject([{ by: 'unseen', time: 50 }])
  })

  it('accessed and dirty flags are no change, and a table that says the same again is none', () => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.dma(VA, { pasid: 5, write: true })
    const value = b.load(leaf)
    b.store(leaf, 0n)
    b.store(leaf, value & ~0x60n)
    b.dma(VA, { pasid: 5 })
    expect(uses).toEqual([])
  })

  it('reports a use once, and again when the tables have changed again', () => {
    const { b, leaf, uses } = firstStage()
    b.dma(VA, { pasid: 5 })
    b.store(leaf, OTHER | FULL)
    for (let i = 0; i < 3; i++) b.dma(VA, { pasid: 5 })
    expect(uses).toHaveLength(1)
    b.store(leaf, 0n)
    b.dma(VA, { pasid: 5 })
    expect(uses).toHaveLength(2)
  })

  it('puts reports on the trace', () => {
    const { b, leaf } = firstStage()
    const seen: StaleUse[] = []
    b.trace.listen('stale-use', e => seen.push(e))
    b.dma(VA, { pasid: 5 })
    b.store(leaf, 0n)
    b.dma(VA, { pasid: 5 })
    expect(seen).toEqual(b.detector!.uses)
  })
})

describe('stale use of a device’s own cache', () => {
  /** A cache that was told of VA's page by ATS. */
  function device(b: Bench | SmmuBench, requester: number, pasid: number) {
    const cache: TranslationCache = new ObservedCache(b.unit.cacheObserver(() => requester)!)
    const r = new MemoryRequest()
    Object.assign(r, { requester, pasid, lo: Number(VA), length: 4 })
    b.ats(VA, { pasid, requester })
    const { output, pageBits, read, write, execute } = b.answer
    cache.insert(r, output, pageBits, read, write, execute)
    return { cache, use: () => cache.lookup(r), r }
  }

  it('after an IOTLB invalidation alone, and not after that of the device TLB', () => {
    const { b, leaf, uses } = firstStage()
    const { cache, use } = device(b, BDF, 5)
    expect(use()).toBeGreaterThanOrEqual(0)
    expect(uses).toEqual([])
    b.store(leaf, OTHER | FULL)
    b.submit(descriptor.pasidIotlbPage(1, 5, VA))
    use()
    expect(only(uses)).toMatchObject({
      cache: 'device TLB',
      used: Number(PAGE),
      now: Number(OTHER),
      changes: [{ entry: 'FS-PTE', at: leaf }],
      missing: expect.stringContaining('p_dev_tlb_inv_dsc) to 0000:01:00.0, PASID 5'),
      section: 'VT-d 6.5.2.6',
    })
    b.submit(descriptor.pasidDeviceTlb(BDF, 5, VA))
    cache.invalidate(b.invalidations.at(-1)!)
    expect(use()).toBe(-1)
    expect(uses).toHaveLength(1)
  })

  it('looks page by page, so that no page of a long transfer is missed', () => {
    const { b, root, uses } = firstStage()
    const next = b.map(root, VA + 0x1000n, (PAGE + 0x1000n) | FULL)
    const { cache, use, r } = device(b, BDF, 5)
    const { output } = b.answer
    const second = { ...r, lo: r.lo + 0x1000 }
    cache.insert(second, output + 0x1000, 12, true, true, false)
    const slot = use()
    b.store(next, 0n)
    r.lo += 0x800
    expect(cache.span(slot, r, 0x10000, false, false)).toBe(0x1800)
    expect(only(uses)).toMatchObject({ address: VA + 0x1000n, changes: [{ at: next }] })
  })

  it('behind an SMMUv3: ATC_INV is missing', () => {
    const b = new SmmuBench({ detect: true }).start()
    const root = b.alloc()
    b.cd({ ttb0: root }, b.substreams(6, { eats: 1 }) + 5 * 64)
    const leaf = b.map(root, VA, PAGE | SMMU_RW)
    const { use } = device(b, SID, 5)
    b.store(leaf, 0n)
    b.submit(command.tlbi(TLBI.NSNH_ALL))
    use()
    expect(only(b.detector!.uses)).toMatchObject({
      cache: 'device TLB',
      section: 'SMMUv3 4.5.1',
      now: -1,
    })
  })
})

describe('stale use of an SMMUv3', () => {
  const start = () =>
    new SmmuBench({ detect: true }).start({ enable: CR0.SMMUEN | CR0.EVENTQEN | CR0.CMDQEN })

  it('a descriptor that changed without a TLB invalidation', () => {
    const b = start()
    const leaf = b.map(b.stage1({ asid: 7 }), VA, PAGE | SMMU_RW)
    b.dma(VA)
    b.store(leaf, OTHER | SMMU_RW)
    expect(b.dma(VA)).toBe(Number(PAGE))
    expect(only(b.detector!.uses)).toMatchObject({
      cache: 'IOTLB',
      changes: [{ entry: 'level 3 page', stage: 1, at: leaf }],
      missing: expect.stringContaining('CMD_TLBI_NH_VA of VMID 0, ASID 7, covering 0x40005000'),
      section: 'SMMUv3 4.4.2.4',
    })
    b.submit(command.tlbiVa(TLBI.NH_VA, VA, { asid: 7 }))
    expect(b.dma(VA)).toBe(Number(OTHER))
    expect(b.detector!.uses).toHaveLength(1)
  })

  it.each([
    [
      'alone',
      (b: SmmuBench) => b.map(b.stage2({ vmid: 3 }), VA, PAGE | SMMU_RW),
      'CMD_TLBI_S2_IPA of VMID 3',
      '4.4.3.1',
    ],
    [
      'under stage 1',
      (b: SmmuBench) => {
        const n = b.nested({}, { vmid: 3 })
        b.map(n.first, VA, 0x4000_0000n | SMMU_RW)
        return b.map(n.second, 0x4000_0000n, PAGE | SMMU_RW)
      },
      'CMD_TLBI_S12_VMALL of VMID 3',
      '4.4.3.2',
    ],
  ] as const)('stage 2 %s', (_, setUp, missing, section) => {
    const b = start()
    const leaf = setUp(b)
    expect(b.dma(VA)).toBe(Number(PAGE))
    b.store(leaf, 0n)
    b.dma(VA)
    expect(only(b.detector!.uses)).toMatchObject({
      changes: [{ stage: 2, at: leaf }],
      missing: expect.stringContaining(missing),
      section: `SMMUv3 ${section}`,
    })
  })

  it('an STE that changed without CMD_CFGI_STE', () => {
    const b = start()
    b.map(b.stage1(), VA, PAGE | SMMU_RW)
    b.dma(VA)
    const at = b.ste({ config: 4 })
    b.dma(VA)
    expect(b.detector!.uses[0]).toMatchObject({
      cache: 'STE cache',
      changes: [{ entry: 'STE', at }],
      missing: expect.stringContaining('CMD_CFGI_STE of stream 0x100'),
    })
    b.submit(command.cfgiSte(SID))
    const before = b.detector!.uses.length
    expect(b.dma(VA)).toBe(Number(VA))
    expect(b.detector!.uses).toHaveLength(before)
  })

  it('a CD that changed without CMD_CFGI_CD', () => {
    const b = start()
    const cd = b.alloc()
    const [root, other] = [b.alloc(), b.alloc()]
    b.cd({ ttb0: root, asid: 1 }, cd)
    b.ste({ config: 5, ctx: cd })
    b.map(root, VA, PAGE | SMMU_RW)
    b.map(other, VA, OTHER | SMMU_RW)
    b.dma(VA)
    b.cd({ ttb0: other, asid: 1 }, cd)
    b.dma(VA)
    expect(b.detector!.uses[0]).toMatchObject({
      cache: 'CD cache',
      changes: [{ entry: 'CD', at: cd + 8 }],
      missing: expect.stringContaining('CMD_CFGI_CD of stream 0x100, SubstreamID 0'),
    })
    b.submit(command.cfgiCd(SID, 0), command.tlbi(TLBI.NH_ASID, { asid: 1 }))
    const before = b.detector!.uses.length
    expect(b.dma(VA)).toBe(Number(OTHER))
    expect(b.detector!.uses).toHaveLength(before)
  })
})
