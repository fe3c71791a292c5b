import { afterEach, describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { pasidCapability } from '../../src/pci/extended/pasid.js'
import {
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_DOMAIN,
  IOMMU_INV_GRANU_PASID,
  IOMMU_SVA_GPASID_VAL,
  iommu_cache_invalidate_info,
  iommu_inv_addr_info,
  iommu_inv_pasid_info,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_nesting_op,
} from '../../src/uapi.js'
import type { VfioProfile } from '../../src/vfio/index.js'
import {
  bench,
  bindData,
  checkBenches,
  pasids,
  plainDevice,
  refused,
} from '../support/vfio-bench.js'

afterEach(checkBenches)

const IOTLB = IOMMU_CACHE_INV_TYPE_IOTLB
const DEVICE = IOMMU_CACHE_INV_TYPE_DEV_IOTLB
const ENTRY = IOMMU_CACHE_INV_TYPE_PASID

function setup(options: Parameters<typeof bench>[0] = {}) {
  const b = bench(options)
  const p = b.program()
  const c = p.nesting()
  const id = c.alloc()
  const outcomes: string[] = []
  b.trace.listen('vfio.bind', e => outcomes.push(`${e.what} ${e.errno ?? 'done'}`))
  const op = (flags: number, data: Uint8Array, argsz?: number) => {
    const arg = vfio_iommu_type1_nesting_op({ flags, data })
    if (argsz !== undefined) arg.argsz = argsz
    return c.call(VFIO_IOMMU_NESTING_OP, arg)
  }
  return { b, p, c, id, hpasid: BigInt(id), op, outcomes, bindings: () => b.held().bindings }
}

describe('NESTING_OP header', () => {
  // biome-ignore format: table
  it.each([
    ['E86 argsz 7',        0,          7],
    ['E87 flags 0x10000',  0x1_0000,   80],
    ['E88 operation 3',    3,          80],
    ['E88 operation 65535', 0xffff,    80],
  ] as const)('refuses %s', (_, flags, argsz) => {
    const { op } = setup()
    refused('EINVAL', () => op(flags, bindData().bytes, argsz))
  })
  it('E103 a container without nesting does not offer it', () => {
    const b = bench()
    const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    for (const flags of [0, 1, 2])
      refused('EOPNOTSUPP', () =>
        c.call(
          VFIO_IOMMU_NESTING_OP,
          vfio_iommu_type1_nesting_op({ flags, data: new Uint8Array(72) }),
        ),
      )
    refused('EFAULT', () => c.call(VFIO_IOMMU_NESTING_OP, 0x1000))
  })
})

describe('BIND_PGTBL', () => {
  it('E61 binds', () => {
    const { c, hpasid, bindings } = setup()
    expect(c.bind({ hpasid })).toBe(0)
    expect(bindings()).toBe(1)
  })
  it.each([
    ['V7R', 1],
    ['V7', 0],
  ] as const)(
    'E62 a second bind is EBUSY; in %s %d binding is left',
    (profile: VfioProfile, left) => {
      const { c, hpasid, bindings } = setup({ profile })
      c.bind({ hpasid })
      refused('EBUSY', () => c.bind({ hpasid }))
      expect(bindings()).toBe(left)
    },
  )
  // biome-ignore format: table
  const refusals = [
    ['E63 an id not allocated',     { hpasid: 77n },                      'ENOENT'],
    ['E66 PASID 0',                 { hpasid: 0n },                       'EINVAL'],
    ['E67 PASID 2^20',              { hpasid: 0x10_0000n },               'EINVAL'],
    ['E68 bit 32 above an own id',  { hpasid: 0x1_0000_0001n },           'EINVAL'],
    ['E69 argsz 55',                { argsz: 55 },                        'EINVAL'],
    ['E70 argsz 56',                { argsz: 56 },                        'EINVAL'],
    ['E70 argsz 71',                { argsz: 71 },                        'EINVAL'],
    ['E72 version 0',               { version: 0 },                       'EINVAL'],
    ['E72 version 2',               { version: 2 },                       'EINVAL'],
    ['E73 format 0',                { format: 0 },                        'EINVAL'],
    ['E73 format 2',                { format: 2 },                        'EINVAL'],
    ['E74 an unknown flag',         { flags: 2n },                        'EINVAL'],
    ['E75 padding',                 { padding: [0, 0, 0, 0, 0, 0, 0, 1] }, 'EINVAL'],
    ['E79 39 address bits',         { addr_width: 39 },                   'EINVAL'],
    ['E79 no address bits',         { addr_width: 0 },                    'EINVAL'],
    ['E79 64 address bits',         { addr_width: 64 },                   'EINVAL'],
    ['E81 a root beyond the domain', { gpgd: 1n << 60n },                 'EINVAL'],
  ] as const
  it.each(refusals)('%s is refused', (_, init, errno) => {
    const { c, hpasid, bindings } = setup()
    refused(errno, () => c.bind({ hpasid, ...init }))
    expect(bindings()).toBe(0)
    c.bind({ hpasid })
  })
  it.each([
    ['E76 WPE', 6],
    ['E77 PCD', 2],
    ['E77 PWT', 3],
    ['E77 EMTE', 4],
    ['E77 CD', 5],
  ] as const)('%s is refused', (_, bit) => {
    const { hpasid, op } = setup()
    const data = bindData({ hpasid })
    data.vendor.vtd.flags = 1n << BigInt(bit)
    refused('EINVAL', () => op(0, data.bytes))
  })
  it('E78, E80 what the unit lacks is refused', () => {
    const { c, hpasid, op } = setup({
      vtd: { supervisorRequests: false, extendedAccessed: false, firstStage5Level: false },
    })
    for (const flags of [1n, 2n]) {
      const data = bindData({ hpasid })
      data.vendor.vtd.flags = flags
      refused('EINVAL', () => op(0, data.bytes))
    }
    refused('EINVAL', () => c.bind({ hpasid, addr_width: 57 }))
  })
  it('E64, E65 ids of another process and of the host are refused', () => {
    const { b, c } = setup()
    const other = b.program(b.spawn()).nesting(1)
    refused('EACCES', () => c.bind({ hpasid: BigInt(other.alloc()) }))
    const host = b.ioasid.alloc(b.ioasid.hostSet, 1, 100)
    refused('EACCES', () => c.bind({ hpasid: BigInt(host) }))
    b.ioasid.free(b.ioasid.hostSet, host)
  })
  it('E46 binds through another container of the process', () => {
    const { p, hpasid, bindings } = setup()
    p.nesting(1).bind({ hpasid })
    expect(bindings()).toBe(1)
  })
  it('E71, E85 a larger argsz is taken whatever follows, and the outer one is no payload check', () => {
    const { hpasid, op, c } = setup()
    const long = new Uint8Array(200).fill(0xa5)
    long.set(bindData({ hpasid, argsz: 200 }).bytes)
    op(0, long)
    c.unbind({ hpasid })
    c.bind({ hpasid }, 8)
  })
  it('E82 does not look at the guest table', () => {
    const { c, hpasid } = setup()
    c.bind({ hpasid, gpgd: 0x7777_7000n })
  })
  it.each([
    ['E83 a 16-bit PASID width', pasidCapability({ width: 16 })],
    ['E93 no PASID capability', undefined],
  ] as const)('%s is refused', (_, capability) => {
    const narrow = plainDevice(capability ? [capability] : [])
    const { c, hpasid } = setup({ devices: [[narrow], [dmaCopy]] })
    refused('EINVAL', () => c.bind({ hpasid }))
  })
  it('E57, E93 binds every device of a group, or none', () => {
    const narrow = plainDevice([pasidCapability({ width: 8 })])
    const both = setup({ acs: false, devices: [[dmaCopy, dmaCopy]] })
    both.c.bind({ hpasid: both.hpasid })
    expect(both.bindings()).toBe(2)
    both.c.free(both.id)
    both.b.settle()
    expect(both.bindings()).toBe(0)
    expect(both.b.ioasid.state(both.id)).toBe('FREE')

    const half = setup({ acs: false, devices: [[dmaCopy, narrow]] })
    refused('EINVAL', () => half.c.bind({ hpasid: half.hpasid }))
    expect(half.bindings()).toBe(0)
    expect(half.outcomes).toEqual(['bind done', 'bind EINVAL', 'unbind done'])
    expect(half.b.ioasid.state(half.id)).toBe('IDLE')
  })
  it('E89, E90 what is unreadable is EFAULT, what is short is EINVAL', () => {
    const { p, c, hpasid } = setup()
    const end = p.sys.mmap(0x1000)
    const at = (left: number, argsz: number) => {
      const bytes = vfio_iommu_type1_nesting_op({ data: bindData({ hpasid, argsz }).bytes }).bytes
      end.bytes.set(bytes.subarray(0, left), 0x1000 - left)
      return end.vaddr + BigInt(0x1000 - left)
    }
    refused('EFAULT', () => c.call(VFIO_IOMMU_NESTING_OP, at(8 + 55, 72)))
    refused('EINVAL', () => c.call(VFIO_IOMMU_NESTING_OP, at(8 + 64, 64)))
    refused('EFAULT', () => c.call(VFIO_IOMMU_NESTING_OP, at(8 + 64, 72)))
  })
  it('E91, E92 a guest PASID is unique in a process and free in another', () => {
    const { b, c, hpasid } = setup()
    const guest = { flags: BigInt(IOMMU_SVA_GPASID_VAL), gpasid: 101n }
    c.bind({ hpasid, ...guest })
    refused('EINVAL', () => c.bind({ hpasid: BigInt(c.alloc()), ...guest }))
    const other = b.program(b.spawn()).nesting(1)
    other.bind({ hpasid: BigInt(other.alloc()), ...guest })
  })
})

describe('UNBIND_PGTBL', () => {
  it('E94, E95, E97 answers 0 for what is bound, unbound or unknown; the vendor part is not needed', () => {
    const { c, hpasid, bindings } = setup()
    expect(c.unbind({ hpasid })).toBe(0)
    expect(c.unbind({ hpasid: 99n })).toBe(0)
    c.bind({ hpasid })
    expect(c.unbind({ hpasid, argsz: 56 })).toBe(0)
    expect(bindings()).toBe(0)
  })
  it('E96, E166 answers 0 without effect for data that is wrong or unreadable, and tells the trace', () => {
    const { p, c, hpasid, outcomes, bindings } = setup()
    c.bind({ hpasid })
    expect(c.unbind({ hpasid, version: 0 })).toBe(0)
    const end = p.sys.mmap(0x1000)
    end.bytes.set(vfio_iommu_type1_nesting_op({ argsz: 80, flags: 1 }).bytes, 0xff8)
    expect(c.call(VFIO_IOMMU_NESTING_OP, end.vaddr + 0xff8n)).toBe(0)
    expect(outcomes).toEqual(['bind done', 'unbind EINVAL', 'unbind EFAULT'])
    expect(bindings()).toBe(1)
  })
  it.each([
    ['V7R', 1],
    ['V7', 0],
  ] as const)('E159 a PASID with bit 32 set: %s leaves %d binding', (profile, left) => {
    const { c, hpasid, bindings } = setup({ profile })
    c.bind({ hpasid })
    expect(c.unbind({ hpasid: (1n << 32n) | hpasid })).toBe(0)
    expect(bindings()).toBe(left)
  })
  it('E98 leaving the container unbinds and frees, with the device still enabled', () => {
    const { b, c, id, hpasid, bindings } = setup()
    c.bind({ hpasid })
    c.unset()
    expect([bindings(), b.ioasid.state(id)]).toEqual([0, 'FREE'])
  })
  it('E99 an id that another container kept alive is unbound, and can be bound again', () => {
    const { p, c, hpasid, bindings } = setup()
    const c2 = p.nesting(1)
    c.bind({ hpasid })
    c.unset()
    expect(bindings()).toBe(0)
    c2.bind({ hpasid })
    expect(bindings()).toBe(1)
  })
})

describe('CACHE_INVLD', () => {
  const info = (init: Parameters<typeof iommu_cache_invalidate_info>[0]) =>
    iommu_cache_invalidate_info({ version: 1, ...init })
  const page = (cache: number, granularity: number, pasid: bigint, more: object = {}) => {
    const i = info({ cache, granularity, ...more })
    if (granularity === IOMMU_INV_GRANU_PASID)
      i.granu.pasid_info = iommu_inv_pasid_info({ flags: 1, pasid })
    if (granularity === IOMMU_INV_GRANU_ADDR)
      i.granu.addr_info = iommu_inv_addr_info({
        flags: 1,
        pasid,
        addr: 0x1000n,
        granule_size: 4096n,
        nb_granules: 3n,
      })
    return i
  }
  /** What the unit was told by one call. */
  function flushes(s: ReturnType<typeof setup>, data: Uint8Array) {
    const seen: string[] = []
    const stop = s.b.trace.listen('vtd.invalidate', e => {
      seen.push(JSON.stringify(e, (_, v: unknown) => (typeof v === 'bigint' ? `${v}` : v)))
    })
    const result = s.op(VFIO_IOMMU_NESTING_OP_CACHE_INVLD, data)
    stop()
    return { result, seen, outcome: s.outcomes.at(-1) }
  }

  // biome-ignore format: table
  const silent = [
    ['E104 granularity 3',                     (p: bigint) => page(IOTLB, 3, p),                                      'invalidate EINVAL'],
    ['E105 device TLB by domain',              (p: bigint) => page(DEVICE, IOMMU_INV_GRANU_DOMAIN, p),                'invalidate EINVAL'],
    ['E106 PASID cache among those by address', (p: bigint) => page(IOTLB | ENTRY, IOMMU_INV_GRANU_ADDR, p),          'invalidate EINVAL'],
    ['E109 argsz 31 by PASID',                 (p: bigint) => page(IOTLB, IOMMU_INV_GRANU_PASID, p, { argsz: 31 }),   'invalidate EINVAL'],
    ['E115 no cache',                          (p: bigint) => page(0, IOMMU_INV_GRANU_PASID, p),                      'invalidate done'],
    ['E160 bit 32 of the PASID',               (p: bigint) => page(IOTLB, IOMMU_INV_GRANU_PASID, p | (1n << 32n)),    undefined],
    ['E113 an id that is not ours',            () => page(IOTLB, IOMMU_INV_GRANU_PASID, 99n),                         undefined],
  ] as const
  it.each(silent)('%s answers 0 and flushes nothing', (_, make, outcome) => {
    const s = setup()
    s.c.bind({ hpasid: s.hpasid })
    const got = flushes(s, make(s.hpasid).bytes)
    expect(got.result).toBe(0)
    expect(got.seen).toEqual([])
    if (outcome) expect(got.outcome).toBe(outcome)
    else expect(got.outcome).toMatch(/^invalidate E/)
  })
  it('E107, E110 by domain is taken by the interface and not by VT-d', () => {
    const s = setup()
    s.c.bind({ hpasid: s.hpasid })
    const got = flushes(s, page(IOTLB, IOMMU_INV_GRANU_DOMAIN, 0n, { argsz: 16 }).bytes)
    expect([got.result, got.seen]).toEqual([0, []])
  })
  it('E112 an id that is allocated and not bound flushes nothing', () => {
    const s = setup()
    const got = flushes(s, page(IOTLB, IOMMU_INV_GRANU_PASID, s.hpasid).bytes)
    expect([got.result, got.seen]).toEqual([0, []])
    expect(got.outcome).toMatch(/^invalidate E/)
  })
  it.each([IOMMU_INV_GRANU_PASID, IOMMU_INV_GRANU_ADDR])(
    'flushes what is bound, at granularity %d',
    granularity => {
      const s = setup()
      s.c.bind({ hpasid: s.hpasid })
      const got = flushes(s, page(IOTLB, granularity, s.hpasid).bytes)
      expect(got.result).toBe(0)
      expect(got.seen.length).toBeGreaterThan(0)
      expect(got.outcome).toBe('invalidate done')
    },
  )
  it('E108 flushes IOTLB and device TLB by PASID and stops at the device TLB itself', () => {
    const s = setup()
    s.c.bind({ hpasid: s.hpasid })
    const got = flushes(s, page(IOTLB | DEVICE, IOMMU_INV_GRANU_PASID, s.hpasid).bytes)
    expect([got.result, got.seen.some(e => e.includes('"pasid-iotlb"'))]).toEqual([0, true])
  })
  it('E111 rounds the number of pages up to a power of two', () => {
    const s = setup()
    s.c.bind({ hpasid: s.hpasid })
    const got = flushes(s, page(IOTLB, IOMMU_INV_GRANU_ADDR, s.hpasid).bytes)
    const flush = got.seen.find(e => e.includes('"pasid-iotlb"'))
    expect(flush).toMatch(/"(order|am|mask|pageBits)":(2|14)\b/)
  })
  it('V7 E160 narrows the PASID and flushes', () => {
    const s = setup({ profile: 'V7' })
    s.c.bind({ hpasid: s.hpasid })
    const got = flushes(s, page(IOTLB, IOMMU_INV_GRANU_PASID, s.hpasid | (1n << 32n)).bytes)
    expect(got.seen.length).toBeGreaterThan(0)
  })
  it('E166 answers 0 for an unreadable payload', () => {
    const { p, c, outcomes } = setup()
    const end = p.sys.mmap(0x1000)
    end.bytes.set(vfio_iommu_type1_nesting_op({ argsz: 64, flags: 2 }).bytes, 0xff8)
    expect(c.call(VFIO_IOMMU_NESTING_OP, end.vaddr + 0xff8n)).toBe(0)
    expect(outcomes).toEqual(['invalidate EFAULT'])
  })
})

describe('PASIDs of a child', () => {
  it('E44 a child binds and frees through the inherited container', () => {
    const { b, p, c, bindings } = setup()
    const child = p.sys.fork()
    const id = child.ioctl(c.fd, 0x3b76, pasids(1, 1, 100))
    const arg = vfio_iommu_type1_nesting_op({ data: bindData({ hpasid: BigInt(id) }).bytes })
    child.ioctl(c.fd, VFIO_IOMMU_NESTING_OP, arg)
    child.exit()
    expect(bindings()).toBe(1)
    expect(b.ioasid.state(id)).toBe('ACTIVE')
  })
})
