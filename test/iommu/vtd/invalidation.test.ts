import { describe, expect, it } from 'vitest'
import {
  CONTEXT_CACHE_DESCRIPTOR,
  DEVICE_TLB_DESCRIPTOR,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
  IOTLB_DESCRIPTOR,
  PAGE_GROUP_RESPONSE_DESCRIPTOR,
  PASID_CACHE_DESCRIPTOR,
  PASID_DEVICE_TLB_DESCRIPTOR,
  PASID_IOTLB_DESCRIPTOR,
  WAIT_DESCRIPTOR,
} from '../../../src/iommu/vtd/descriptors.js'
import { BDF, Bench, descriptor, FULL, GCMD, R2, REG, W2 } from './bench.js'

const A = 0x50_0000
const B = 0x60_0000
const VA = 0x4000_5000n

/** A scalable unit whose hooks write down their arguments. */
function hooked() {
  const calls: unknown[][] = []
  const log =
    (name: string) =>
    (...args: unknown[]) =>
      void calls.push([name, ...args])
  const b = new Bench({
    hooks: {
      contextCacheInvalidated: log('context'),
      pasidCacheInvalidated: log('pasid'),
      iotlbInvalidated: log('iotlb'),
      deviceTlbInvalidated: log('device'),
      interruptEntryCacheInvalidated: log('interrupts'),
      pageGroupResponse: log('response'),
    },
  })
  b.startQueue()
  b.scalable()
  return { b, calls }
}

/** PASID 5 (first stage, domain 1), 6 (first stage, domain 2), 7 (second stage, domain 3), 8 (nested, domain 4); all map VA and the page after it to A and A + 4 KiB. */
function filled() {
  const b = new Bench()
  b.startQueue()
  const { directory, context } = b.scalable()
  const leaves = new Map<number, number>()
  const roots = new Map<number, number>()
  for (const [pasid, did] of [
    [5, 1],
    [6, 2],
  ] as const) {
    const fs = b.alloc()
    leaves.set(pasid, b.map(fs, VA, BigInt(A) | FULL))
    b.map(fs, VA + 4096n, BigInt(A + 4096) | FULL)
    b.firstStage(directory, pasid, fs, did)
    roots.set(pasid, fs)
  }
  const ss = b.alloc()
  leaves.set(7, b.map2(ss, VA, BigInt(A) | R2 | W2))
  b.map2(ss, VA + 4096n, BigInt(A + 4096) | R2 | W2)
  b.secondStage(directory, 7, ss, 3)
  const identity = b.alloc()
  for (let gpa = 0; gpa < 0x100_0000; gpa += 0x20_0000)
    b.map2(identity, BigInt(gpa), BigInt(gpa) | 0x83n, { leafLevel: 2 })
  const fs = b.alloc()
  leaves.set(8, b.map(fs, VA, BigInt(A) | FULL))
  b.map(fs, VA + 4096n, BigInt(A + 4096) | FULL)
  b.nested(directory, 8, fs, identity, 4)
  b.enable()
  const all = () => [5, 6, 7, 8].map(pasid => b.dma(VA, { pasid }))
  expect(all()).toEqual([A, A, A, A])
  // Every leaf now says B; whoever still answers A is cached.
  for (const [pasid, at] of leaves) b.store(at, BigInt(B) | (pasid === 7 ? 3n : FULL))
  expect(all()).toEqual([A, A, A, A])
  const stale = () => [5, 6, 7, 8].filter(pasid => b.dma(VA, { pasid }) === A)
  return { b, directory, context, leaves, roots, stale }
}

describe('VT-d IOTLB invalidation', () => {
  // biome-ignore format: table
  it.each([
    ['global', descriptor.iotlbGlobal(), []],
    ['domain of first-stage entries', descriptor.iotlbDomain(1), [6, 7, 8]],
    ['domain of second-stage entries', descriptor.iotlbDomain(3), [5, 6, 8]],
    ['domain of nested entries', descriptor.iotlbDomain(4), [5, 6, 7]],
    ['a domain nobody has', descriptor.iotlbDomain(9), [5, 6, 7, 8]],
    ['page of a second stage', descriptor.iotlbPage(3, VA), [5, 6, 8]],
    ['another page of it', descriptor.iotlbPage(3, VA + 4096n), [5, 6, 7, 8]],
    ['range of it, by address mask', descriptor.iotlbPage(3, 0x4000_0000n, 9), [5, 6, 8]],
    ['range beside it', descriptor.iotlbPage(3, 0x4020_0000n, 9), [5, 6, 7, 8]],
    ['page, with the leaf hint', descriptor.iotlbPage(3, VA, 0, 1), [5, 6, 8]],
    ['page of a nested domain: all of it (table 23)', descriptor.iotlbPage(4, 0x1000n), [5, 6, 7]],
    ['page of a first-stage domain: all of it (table 23)', descriptor.iotlbPage(1, 0x1000n), [6, 7, 8]],
    ['PASID of a first stage', descriptor.pasidIotlb(1, 5), [6, 7, 8]],
    ['PASID in the wrong domain', descriptor.pasidIotlb(2, 5), [5, 6, 7, 8]],
    ['PASID of a nested binding', descriptor.pasidIotlb(4, 8), [5, 6, 7]],
    ['page of a PASID', descriptor.pasidIotlbPage(1, 5, VA), [6, 7, 8]],
    ['another page of a PASID', descriptor.pasidIotlbPage(1, 5, VA + 4096n), [5, 6, 7, 8]],
    ['range of a PASID', descriptor.pasidIotlbPage(4, 8, 0x4000_0000n, 9, 1), [5, 6, 7]],
    ['all pages of a PASID', descriptor.pasidIotlbPage(4, 8, 0n, 52), [5, 6, 7]],
    ['page of a PASID leaves second-stage entries (table 24)', descriptor.pasidIotlbPage(3, 7, VA), [5, 6, 7, 8]],
  ] as const)('%s', (_what, d, left) => {
    const { b, stale } = filled()
    b.submit(d)
    expect(stale()).toEqual(left)
  })

  it('leaves the other page of the domain cached', () => {
    const { b, leaves } = filled()
    expect(b.dma(VA + 4096n, { pasid: 5 })).toBe(A + 4096)
    b.store(leaves.get(5)! + 8, BigInt(B + 4096) | FULL)
    b.submit(descriptor.pasidIotlbPage(1, 5, VA))
    expect(b.dma(VA + 4096n, { pasid: 5 }), 'still cached').toBe(A + 4096)
    expect(b.dma(VA, { pasid: 5 })).toBe(B)
  })

  it('does not cache what is not present', () => {
    const { b, leaves } = filled()
    const at = leaves.get(5)! + 16
    expect(b.dma(VA + 0x2000n, { pasid: 5 })).toBe('fsEntryNotPresent')
    b.store(at, BigInt(A) | FULL)
    expect(b.dma(VA + 0x2000n, { pasid: 5 }), 'no invalidation needed').toBe(A)
  })

  it('walks again rather than refuse on a cached permission', () => {
    const { b, leaves } = filled()
    b.submit(descriptor.iotlbGlobal())
    b.store(leaves.get(5)!, BigInt(A) | 5n)
    expect(b.dma(VA, { pasid: 5 })).toBe(A)
    expect(b.dma(VA, { pasid: 5, write: true })).toBe('smWriteNotPermitted')
    b.store(leaves.get(5)!, BigInt(A) | FULL)
    expect(b.dma(VA, { pasid: 5, write: true }), 'upgraded without invalidation').toBe(A)
  })

  it('a large page is dropped by any page in it', () => {
    const b = new Bench()
    b.startQueue()
    const { directory } = b.scalable()
    const ss = b.alloc()
    const leaf = b.map2(ss, 0x4000_0000n, 0x40_0083n, { leafLevel: 2 })
    b.secondStage(directory, 7, ss, 3)
    b.enable()
    expect(b.dma(0x4000_1000n, { pasid: 7 })).toBe(0x40_1000)
    expect(b.answer.pageBits).toBe(21)
    b.store(leaf, 0x60_0083n)
    expect(b.dma(0x401f_f000n, { pasid: 7 }), 'same entry').toBe(0x5f_f000)
    b.submit(descriptor.iotlbPage(3, 0x4010_0000n))
    expect(b.dma(0x4000_1000n, { pasid: 7 })).toBe(0x60_1000)
  })
})

describe('VT-d descriptors as their tables declare them', () => {
  // biome-ignore format: table
  it.each([
    ['cc_inv_dsc', CONTEXT_CACHE_DESCRIPTOR.create({ TYPE: 1, G: 3, DID: 0x1234, SID: 0x5678, FM: 2 }), ['context', 'device', 0x1234, 0x5678, 2]],
    ['pc_inv_dsc', PASID_CACHE_DESCRIPTOR.create({ TYPE: 7, G: 1, DID: 0x1234, PASID: 0xabcde }), ['pasid', 'pasid', 0x1234, 0xabcde]],
    ['iotlb_inv_dsc', IOTLB_DESCRIPTOR.create({ TYPE: 2, G: 3, DID: 0x1234, ADDR_HI: 0x12, ADDR_LO: 0x34567, AM: 7, IH: true, DR: true, DW: true }), ['iotlb', 'page', 0x1234, -1, 0x12, 0x3456_7000, 7, true]],
    ['p_iotlb_inv_dsc', PASID_IOTLB_DESCRIPTOR.create({ TYPE: 6, G: 3, DID: 0x1234, PASID: 0xabcde, ADDR_HI: 0x12, ADDR_LO: 0x34567, AM: 7, IH: true }), ['iotlb', 'pasid-page', 0x1234, 0xabcde, 0x12, 0x3456_7000, 7, true]],
    ['dev_tlb_inv_dsc', DEVICE_TLB_DESCRIPTOR.create({ TYPE: 3, SID: 0x5678, ADDR_HI: 0x12, ADDR_LO: 0x34567, MIP: 31, PFSID_LO: 8, PFSID_HI: 0x567 }), ['device', 0x5678, -1, 0x12, 0x3456_7000, 12, false]],
    ['p_dev_tlb_inv_dsc', PASID_DEVICE_TLB_DESCRIPTOR.create({ TYPE: 8, SID: 0x5678, PASID: 0xabcde, ADDR_HI: 0x12, ADDR_LO: 0x34567, S: true, G: true, MIP: 31, PFSID_LO: 8, PFSID_HI: 0x567 }), ['device', 0x5678, 0xabcde, 0x12, 0x3456_0000, 16, true]],
    ['iec_inv_dsc', INTERRUPT_ENTRY_CACHE_DESCRIPTOR.create({ TYPE: 4, G: 1, IIDX: 0x1234, IM: 3 }), ['interrupts', 0x1234, 3]],
    ['page_grp_resp_dsc', PAGE_GROUP_RESPONSE_DESCRIPTOR.create({ TYPE: 9, PP: true, PASID: 0xabcde, RID: 0x5678, PRGI: 0x1a5, RC: 1 }), ['response', { requester: 0x5678, pasid: 0xabcde, prgIndex: 0x1a5, code: 1 }]],
  ] as const)('%s', (_name, d, call) => {
    const { b, calls } = hooked()
    const [w0, w1, w2, w3] = d.words
    b.submit([(BigInt(w1!) << 32n) | BigInt(w0!), (BigInt(w3!) << 32n) | BigInt(w2!)])
    expect(b.r32(REG.FSTS)).toBe(0)
    expect(calls).toEqual([call])
  })

  it('inv_wait_dsc', () => {
    const { b } = hooked()
    const status = b.alloc() + 0x124
    const d = WAIT_DESCRIPTOR.create({
      TYPE: 5,
      SW: true,
      IF: true,
      FN: true,
      PD: true,
      STDATA: 0x8765_4321,
      STADDR: status,
    })
    const [w0, w1, w2, w3] = d.words
    b.submit([(BigInt(w1!) << 32n) | BigInt(w0!), (BigInt(w3!) << 32n) | BigInt(w2!)])
    expect(b.memory.readU32(status)).toBe(0x8765_4321)
    expect(b.r32(REG.ICS)).toBe(1)
  })
})

describe('VT-d context and PASID caches', () => {
  it('uses a changed PASID table entry only after its PASID-cache invalidation', () => {
    const { b, directory } = filled()
    const fs = b.alloc()
    b.map(fs, VA, 0x70_0000n | FULL)
    b.firstStage(directory, 5, fs, 1)
    b.submit(descriptor.iotlbGlobal())
    expect(b.dma(VA, { pasid: 5 }), 'the old entry still').toBe(B)
    b.submit(descriptor.pasidCache(1, 6), descriptor.pasidCache(2, 5), descriptor.iotlbGlobal())
    expect(b.dma(VA, { pasid: 5 }), 'other PASID, other domain').toBe(B)
    b.submit(descriptor.pasidCache(1, 5), descriptor.pasidIotlb(1, 5))
    expect(b.dma(VA, { pasid: 5 })).toBe(0x70_0000)
  })

  it.each([
    ['domain', descriptor.pasidCacheDomain(1)],
    ['global', descriptor.pasidCacheGlobal()],
  ])('%s PASID-cache invalidation drops entries', (_what, d) => {
    const { b, directory } = filled()
    b.pasidEntry(directory, 5, [0n])
    expect(b.dma(VA, { pasid: 5 })).toBe(A)
    b.submit(d, descriptor.iotlbGlobal())
    expect(b.dma(VA, { pasid: 5 })).toBe('pasidEntryNotPresent')
  })

  it.each([
    ['global', descriptor.contextGlobal(), true],
    ['domain, which is global in scalable mode', descriptor.contextDomain(77), true],
    ['device', descriptor.contextDevice(0, BDF), true],
    ['device under a function mask', descriptor.contextDevice(0, BDF | 5, 3), true],
    ['another device', descriptor.contextDevice(0, BDF | 8), false],
    ['another function', descriptor.contextDevice(0, BDF | 1), false],
  ] as const)('context-cache invalidation: %s', (_what, d, drops) => {
    const { b, context } = filled()
    b.store(context, 0n)
    b.submit(d, descriptor.iotlbGlobal())
    expect(b.dma(VA, { pasid: 5 })).toBe(drops ? 'smContextNotPresent' : B)
  })

  it('finds a new entry without invalidation where none was present', () => {
    const { b, directory } = filled()
    expect(b.dma(VA, { pasid: 9 })).toBe('pasidEntryNotPresent')
    const fs = b.alloc()
    b.map(fs, VA, BigInt(A) | FULL)
    b.firstStage(directory, 9, fs, 1)
    expect(b.dma(VA, { pasid: 9 })).toBe(A)
  })

  it('SRTP drops everything (ESRTPS)', () => {
    const { b, stale } = filled()
    b.command(GCMD.SRTP)
    expect(stale()).toEqual([])
  })
})

describe('VT-d invalidation by register (legacy mode)', () => {
  const legacy = (major = 5) => {
    const b = new Bench({ config: { version: { major, minor: 0 } } })
    const table = b.alloc()
    const leaf = b.map2(table, VA, BigInt(A) | 3n)
    const context = b.legacy(table)
    b.enable()
    expect(b.dma(VA)).toBe(A)
    b.store(leaf, BigInt(B) | 3n)
    return { b, leaf, context, table }
  }
  const IVT = 1n << 63n

  // biome-ignore format: table
  it.each([
    ['global', 1n << 60n, 0n, B, 1n],
    ['domain', (2n << 60n) | (1n << 32n), 0n, B, 2n],
    ['another domain', (2n << 60n) | (2n << 32n), 0n, A, 2n],
    ['page', (3n << 60n) | (1n << 32n), VA, B, 3n],
    ['another page', (3n << 60n) | (1n << 32n), VA + 4096n, A, 3n],
    ['too large an address mask', (3n << 60n) | (1n << 32n), VA | 36n, A, 0n],
    ['reserved granularity', 0n, 0n, A, 0n],
  ] as const)('IOTLB_REG: %s', (_what, command, address, after, performed) => {
    const { b } = legacy()
    b.w64(REG.IVA, address)
    b.w64(REG.IOTLB, IVT | command)
    expect(b.r64(REG.IOTLB) & IVT, 'IVT is cleared').toBe(0n)
    expect((b.r64(REG.IOTLB) >> 57n) & 3n, 'IAIG').toBe(performed)
    expect(b.dma(VA)).toBe(after)
  })

  it('takes a command as two 32-bit writes', () => {
    const { b } = legacy()
    b.w32(REG.IOTLB, 0)
    b.w32(REG.IOTLB + 4, 0x9000_0000)
    expect(b.dma(VA)).toBe(B)
  })

  it.each([
    ['global', 1n << 61n, true],
    ['domain', (2n << 61n) | 1n, true],
    ['another domain', (2n << 61n) | 2n, false],
    ['device', (3n << 61n) | (BigInt(BDF) << 16n) | 1n, true],
    ['device in another domain', (3n << 61n) | (BigInt(BDF) << 16n) | 2n, false],
  ] as const)('CCMD_REG: %s', (_what, command, drops) => {
    const { b, context } = legacy()
    b.store(context, 0n)
    b.w64(REG.CCMD, IVT | command)
    expect(b.r64(REG.CCMD) & IVT).toBe(0n)
    b.w64(REG.IOTLB, IVT | (1n << 60n))
    expect(b.dma(VA)).toBe(drops ? 'contextEntryNotPresent' : B)
  })

  it('is refused from major version 6 on, and in scalable mode', () => {
    const { b } = legacy(6)
    b.w64(REG.IOTLB, IVT | (1n << 60n))
    expect((b.r64(REG.IOTLB) >> 57n) & 3n).toBe(0n)
    expect(b.dma(VA)).toBe(A)
    const s = filled()
    s.b.w64(REG.IOTLB, IVT | (1n << 60n))
    s.b.w64(REG.CCMD, IVT | (1n << 61n))
    expect((s.b.r64(REG.CCMD) >> 59n) & 3n).toBe(0n)
    expect(s.stale()).toEqual([5, 6, 7, 8])
  })
})

describe('VT-d invalidation queue', () => {
  it('wraps around and goes on', () => {
    const b = new Bench()
    b.startQueue()
    const status = b.alloc()
    for (let i = 1; i <= 300; i++) {
      b.submit(descriptor.iotlbGlobal(), descriptor.wait(status, i))
      expect(b.memory.readU32(status)).toBe(i)
    }
    expect(b.r64(REG.IQH)).toBe(b.r64(REG.IQT))
    expect(b.r64(REG.IQH)).toBe(BigInt((600 % 128) * 32))
  })

  it('takes 128-bit descriptors in legacy mode', () => {
    const b = new Bench()
    b.startQueue(false)
    const status = b.alloc()
    for (let i = 1; i <= 200; i++) b.submit(descriptor.contextGlobal(), descriptor.wait(status, i))
    expect(b.memory.readU32(status)).toBe(200)
    expect(b.r64(REG.IQH)).toBe(BigInt((400 % 256) * 16))
  })

  it('raises the completion interrupt once until IWC is served', () => {
    const b = new Bench()
    b.startQueue()
    b.w32(REG.IEADDR, 0xfee0_1000)
    b.w32(REG.IEDATA, 0x41)
    b.w32(REG.IECTL, 0)
    b.submit(descriptor.wait(0, 0, 0x10n), descriptor.wait(0, 0, 0x10n))
    expect(b.messages).toEqual([{ requester: 0xffff, address: 0xfee0_1000, data: 0x41 }])
    expect(b.r32(REG.ICS)).toBe(1)
    b.w32(REG.ICS, 1)
    b.submit(descriptor.wait(0, 0, 0x10n))
    expect(b.messages).toHaveLength(2)
  })

  it('holds a masked completion interrupt in IP, and drops it when IWC is served first', () => {
    const b = new Bench()
    b.startQueue()
    b.submit(descriptor.wait(0, 0, 0x10n))
    expect(b.r32(REG.IECTL)).toBe(0xc000_0000)
    b.w32(REG.IECTL, 0)
    expect(b.messages).toHaveLength(1)
    expect(b.r32(REG.IECTL)).toBe(0)
    b.w32(REG.ICS, 1)
    b.w32(REG.IECTL, 0x8000_0000)
    b.submit(descriptor.wait(0, 0, 0x10n))
    b.w32(REG.ICS, 1)
    expect(b.r32(REG.IECTL)).toBe(0x8000_0000)
    b.w32(REG.IECTL, 0)
    expect(b.messages).toHaveLength(1)
  })

  it('a fence and a page-request drain complete like any wait', () => {
    const b = new Bench()
    b.startQueue()
    b.scalable()
    const status = b.alloc()
    b.submit(descriptor.wait(status, 1, 0x60n), descriptor.wait(status, 2, 0xa0n))
    expect(b.memory.readU32(status)).toBe(2)
  })

  // biome-ignore format: table
  it.each([
    [3, 'type 0', [0n, 0n]],
    [3, 'type 10: HPT caches, once page stream responses', [10n | (1n << 4n), 0n]],
    [3, 'type 0x11', [0x201n, 0n]],
    [4, 'a reserved bit', [2n | (1n << 4n) | (1n << 60n), 0n]],
    [4, 'a reserved bit of a wait', [5n | 0x100n, 0n]],
    [4, 'reserved granularity of a context-cache invalidation', [1n, 0n]],
    [4, 'reserved granularity of a PASID-cache invalidation', [7n | (2n << 4n), 0n]],
    [4, 'reserved granularity of an IOTLB invalidation', [2n, 0n]],
    [4, 'reserved granularity of a PASID-based one', [6n | (1n << 4n), 0n]],
    [4, 'too large an address mask', [2n | (3n << 4n), 36n]],
  ] as const)('stops with IQEI %i at %s', (iqei, _what, bad) => {
    const b = new Bench()
    b.startQueue()
    b.scalable()
    const status = b.alloc()
    b.w32(REG.FEADDR, 0xfee0_2000)
    b.w32(REG.FEDATA, 0x42)
    b.w32(REG.FECTL, 0)
    b.submit(descriptor.wait(status, 1), bad, descriptor.wait(status, 2))
    expect(b.memory.readU32(status)).toBe(1)
    expect(b.r32(REG.FSTS)).toBe(0x10)
    expect(b.r64(REG.IQERCD) & 15n).toBe(BigInt(iqei))
    expect(b.r64(REG.IQH), 'the head stays on it').toBe(32n)
    expect(b.messages).toEqual([{ requester: 0xffff, address: 0xfee0_2000, data: 0x42 }])
    // Software mends the descriptor, then clears IQE.
    b.store(b.queue + 32, 5n)
    b.store(b.queue + 40, 0n)
    b.w64(REG.IQT, 96n)
    expect(b.memory.readU32(status), 'a tail write does not restart it').toBe(1)
    b.w32(REG.FSTS, 0)
    expect(b.memory.readU32(status), 'nor a write of zeros').toBe(1)
    b.w32(REG.FSTS, 0x10)
    expect(b.memory.readU32(status)).toBe(2)
    expect(b.r32(REG.FSTS)).toBe(0)
  })

  it.each([
    ['PASID-based descriptors without scalable mode', true, descriptor.pasidIotlb(1, 5), 3],
    [
      'page group responses without scalable mode',
      true,
      descriptor.pageGroupResponse(1, 1, 1, 0),
      3,
    ],
  ] as const)('%s are of an invalid type', (_what, wide, d, iqei) => {
    const b = new Bench()
    b.startQueue(wide)
    b.submit(d)
    expect(b.r64(REG.IQERCD) & 15n).toBe(BigInt(iqei))
  })

  it.each([
    ['device-TLB', { deviceTlb: false }, descriptor.deviceTlb(BDF, 0n), 3],
    ['PASID-based device-TLB', { deviceTlb: false }, descriptor.pasidDeviceTlb(BDF, 1, 0n), 3],
    ['page group response', { pageRequests: false }, descriptor.pageGroupResponse(1, 1, 1, 0), 3],
    ['interrupt entry cache', { interruptRemapping: false }, descriptor.entryCache(), 3],
    ['page-request drain', { pageRequestDrain: false }, descriptor.wait(0, 0, 0x80n), 4],
    ['PFSID', { deviceTlbThrottle: false }, [3n | (1n << 12n), 0n] as const, 4],
  ] as const)('%s is refused where the unit lacks it', (_what, config, d, iqei) => {
    const b = new Bench({ config })
    b.startQueue()
    b.scalable(BDF, 0n)
    b.submit(d)
    expect(b.r64(REG.IQERCD) & 15n).toBe(BigInt(iqei))
  })

  it.each([
    [1, 'a tail outside the queue', (b: Bench) => b.w64(REG.IQT, 0x1000n)],
    [6, 'a tail between 256-bit descriptors', (b: Bench) => b.w64(REG.IQT, 0x10n)],
    [
      2,
      'a queue where nothing is',
      (b: Bench) => {
        b.w64(REG.IQA, 0x7000_0800n)
        b.w64(REG.IQT, 0x20n)
      },
    ],
    [
      5,
      '128-bit descriptors in scalable mode',
      (b: Bench) => {
        b.scalable()
        b.w64(REG.IQA, BigInt(b.queue))
        b.w64(REG.IQT, 0x20n)
      },
    ],
    [
      7,
      'a reserved translation table mode',
      (b: Bench) => {
        b.w64(REG.RTADDR, 0x800n)
        b.command(GCMD.SRTP)
        b.w64(REG.IQT, 0x20n)
      },
    ],
  ] as const)('IQEI %i: %s', (iqei, _what, provoke) => {
    const b = new Bench()
    b.startQueue()
    provoke(b)
    expect(b.r32(REG.FSTS)).toBe(0x10)
    expect(b.r64(REG.IQERCD) & 15n).toBe(BigInt(iqei))
  })

  it('256-bit descriptors need scalable mode or abort-DMA mode', () => {
    const b = new Bench({ config: { scalableMode: false, abortDma: false } })
    b.startQueue()
    b.submit(descriptor.iotlbGlobal())
    expect(b.r64(REG.IQERCD) & 15n).toBe(5n)
  })

  it('a queue whose status writes move its own tail ends a call and goes on from the clock', () => {
    const b = new Bench()
    b.memory.addMmio(0xfed9_0000, 0x1000, b.unit, 'unit')
    b.startQueue()
    for (let k = 0; k < 128; k++) {
      const [lo, hi] = descriptor.wait(0xfed9_0000 + REG.IQT, k * 32)
      b.store(b.queue + k * 32, lo)
      b.store(b.queue + k * 32 + 8, hi)
    }
    b.w64(REG.IQT, 32)
    expect(b.clock.pending).toBe(1)
    for (let i = 0; i < 3; i++) b.clock.step()
    expect(b.clock.pending).toBe(1)
    b.off(GCMD.QIE)
    b.clock.settle()
    expect(b.clock.pending).toBe(0)
  })
})

describe('VT-d device-TLB invalidation', () => {
  const ready = () => {
    const b = new Bench()
    b.startQueue()
    b.scalable()
    return b
  }

  // biome-ignore format: table
  it.each([
    ['one page', 0x12_3456_7000n, 0n, 12, 0x12, 0x3456_7000],
    ['two pages', 0x12_3456_6000n, 1n, 13, 0x12, 0x3456_6000],
    ['4 pages', 0x12_3456_5000n, 1n, 14, 0x12, 0x3456_4000],
    ['2 MiB', 0x12_340f_f000n, 1n, 21, 0x12, 0x3400_0000],
    ['8 GiB', 0x12_ffff_f000n, 1n, 33, 0x12, 0],
    ['everything', 0x7fff_ffff_ffff_f000n, 1n, 64, 0, 0],
    ['everything, all ones', 0xffff_ffff_ffff_f000n, 1n, 64, 0, 0],
  ] as const)('carries %s', (_what, address, s, pageBits, hi, lo) => {
    const b = ready()
    b.submit(descriptor.deviceTlb(BDF, address, s), descriptor.pasidDeviceTlb(BDF, 9, address, s))
    expect(b.invalidations).toEqual([
      { requester: BDF, pasid: -1, hi, lo, pageBits, global: false },
      { requester: BDF, pasid: 9, hi, lo, pageBits, global: false },
    ])
  })

  it('passes Global Invalidate on', () => {
    const b = ready()
    b.submit(descriptor.pasidDeviceTlb(BDF, 9, 0n, 0n, 1n))
    expect(b.invalidations[0]).toMatchObject({ pasid: 9, global: true })
  })

  it('a device that does not complete aborts the wait with ITE, and the queue waits for software', () => {
    const b = ready()
    const status = b.alloc()
    b.w32(REG.FECTL, 0)
    b.completes = false
    b.submit(
      descriptor.deviceTlb(0x0200, 0n),
      descriptor.wait(status, 1),
      descriptor.wait(status, 2),
    )
    expect(b.r32(REG.FSTS)).toBe(0x40)
    expect((b.r64(REG.IQERCD) >> 32n) & 0xffffn).toBe(0x0200n)
    expect(b.memory.readU32(status)).toBe(0)
    expect(b.messages).toHaveLength(1)
    expect(b.r64(REG.IQH), 'past the aborted wait').toBe(64n)
    b.w32(REG.FSTS, 0x40)
    expect(b.memory.readU32(status)).toBe(2)
    b.completes = true
    b.submit(descriptor.deviceTlb(0x0200, 0n), descriptor.wait(status, 3))
    expect(b.memory.readU32(status)).toBe(3)
  })

  it('reports a time-out with no wait behind it too', () => {
    const b = ready()
    b.completes = false
    b.submit(descriptor.deviceTlb(0x0200, 0n))
    expect(b.r32(REG.FSTS)).toBe(0x40)
  })
})

describe('VT-d hooks of a virtual unit', () => {
  it('run after the unit did its own work, in the order of the descriptors', () => {
    const { b, calls } = hooked()
    b.submit(
      descriptor.contextDevice(1, BDF, 1),
      descriptor.pasidCache(3, 5),
      descriptor.pasidCacheDomain(3),
      descriptor.pasidCacheGlobal(),
      descriptor.iotlbGlobal(),
      descriptor.iotlbDomain(3),
      descriptor.iotlbPage(3, 0x12_3456_7000n, 2, 1),
      descriptor.pasidIotlb(3, 5),
      descriptor.pasidIotlbPage(3, 5, 0xffff_8000_0000_1000n, 1),
      descriptor.pasidDeviceTlb(BDF, 5, 0x1000n),
      descriptor.entryCache(4, 2),
      descriptor.pageGroupResponse(BDF, 5, 3, 1),
    )
    expect(calls).toEqual([
      ['context', 'device', 1, BDF, 1],
      ['pasid', 'pasid', 3, 5],
      ['pasid', 'domain', 3, 0],
      ['pasid', 'global', 0, 0],
      ['iotlb', 'global', 0, -1, 0, 0, 0, false],
      ['iotlb', 'domain', 3, -1, 0, 0, 0, false],
      ['iotlb', 'page', 3, -1, 0x12, 0x3456_7000, 2, true],
      ['iotlb', 'pasid', 3, 5, 0, 0, 0, false],
      ['iotlb', 'pasid-page', 3, 5, 0xffff_8000 | 0, 0x1000, 1, false],
      ['device', BDF, 5, 0, 0x1000, 12, false],
      ['interrupts', 4, 2],
      ['response', { requester: BDF, pasid: 5, prgIndex: 3, code: 1 }],
    ])
    expect(b.responses, 'the hook takes the place of the message').toEqual([])
    expect(b.invalidations).toHaveLength(1)
  })

  it('that throws (a bug of the VMM) does not leave the queue stuck', () => {
    const b = new Bench({
      hooks: {
        pasidCacheInvalidated: () => {
          throw new Error('a bug')
        },
      },
    })
    b.startQueue()
    b.scalable()
    const status = b.alloc()
    expect(() => b.submit(descriptor.pasidCacheGlobal())).toThrow('a bug')
    b.submit(descriptor.wait(status, 1))
    expect(b.memory.readU32(status)).toBe(1)
  })

  it('see the unit as it is after the invalidation', () => {
    let answer: number | string = 0
    const b: Bench = new Bench({
      hooks: { pasidCacheInvalidated: () => (answer = b.dma(VA, { pasid: 5 })) as never },
    })
    b.startQueue()
    const { directory } = b.scalable()
    const fs = b.alloc()
    b.map(fs, VA, BigInt(A) | FULL)
    b.firstStage(directory, 5, fs)
    b.enable()
    b.dma(VA, { pasid: 5 })
    b.pasidEntry(directory, 5, [0n])
    b.submit(descriptor.iotlbGlobal(), descriptor.pasidCacheGlobal())
    expect(answer).toBe('pasidEntryNotPresent')
  })
})
