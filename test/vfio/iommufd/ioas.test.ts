// Address spaces: what can be mapped where, what each refusal is called, whose account pages are on.
import { afterEach, describe, expect, it } from 'vitest'
import { PROT_READ } from '../../../src/mem/vma.js'
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  iommu_ioas_alloc,
  iommu_ioas_allow_iovas,
  iommu_ioas_change_process,
  iommu_ioas_copy,
  iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_map_file,
  iommu_ioas_unmap,
  iommu_iova_range,
  iommu_option,
} from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import {
  ALL,
  checkIommufd,
  iommufdBench,
  PAGE,
  READ_ONLY,
  READ_WRITE,
  user,
  userBytes,
} from './bench.js'

afterEach(checkIommufd)

const TOP = ALL
const FIXED = IOMMU_IOAS_MAP_FIXED_IOVA | READ_WRITE

function setup(attached = false, options: Parameters<typeof iommufdBench>[0] = {}) {
  const b = iommufdBench(options)
  const u = user(b)
  const ioas = u.ioas()
  const memory = u.sys.mmap(0x1_0000)
  const d = attached ? u.device() : undefined
  d?.attach(ioas)
  return { b, u, ioas, memory, d, va: memory.vaddr }
}

describe('IOAS_ALLOC and DESTROY', () => {
  it('hands out the lowest free id from 1', () => {
    const { u, ioas } = setup()
    expect([ioas, u.ioas(), u.ioas()]).toEqual([1, 2, 3])
    u.destroy(2)
    expect(u.ioas()).toBe(2)
    refused('ENOENT', () => u.destroy(99))
  })

  it('EOPNOTSUPP for flags; EFAULT when the id cannot be told, and nothing is left', () => {
    const { b, u } = setup()
    refused('EOPNOTSUPP', () => u.call(IOMMU_IOAS_ALLOC, iommu_ioas_alloc({ flags: 1 })))
    const { objects } = b.vfio.iommufd!.holdings()
    const at = userBytes(u.sys, iommu_ioas_alloc().bytes)
    u.sys.process.memory.mprotect(at, 0x1000, PROT_READ)
    refused('EFAULT', () => u.sys.ioctl(u.fd, IOMMU_IOAS_ALLOC, at))
    expect(b.vfio.iommufd!.holdings().objects).toBe(objects)
  })
})

describe('IOVA_RANGES and ALLOW_IOVAS', () => {
  it('without a domain everything is there, by the byte', () => {
    const { u, ioas } = setup()
    expect(u.ranges(ioas)).toEqual({ list: [[0n, TOP]], count: 1, alignment: 1n })
  })

  it('a device takes away the message window and what its tables do not reach; detached gives it back', () => {
    const { u, ioas, d } = setup(true)
    const list = [
      [0n, 0xfedf_ffffn],
      [0xfef0_0000n, 2n ** 48n - 1n],
    ]
    expect(u.ranges(ioas)).toEqual({ list, count: 2, alignment: 4096n })
    d!.detach()
    expect(u.ranges(ioas)).toEqual({ list: [[0n, TOP]], count: 1, alignment: 1n })
  })

  it('EMSGSIZE with the number needed when there is too little room', () => {
    const { u, ioas } = setup(true)
    const arg = iommu_ioas_iova_ranges({ ioas_id: ioas })
    refused('EMSGSIZE', () => u.call(IOMMU_IOAS_IOVA_RANGES, arg))
    expect([arg.num_iovas, arg.out_iova_alignment]).toEqual([2, 4096n])
  })

  it.each([
    ['ENOENT', { ioas_id: 9 }],
    ['EOPNOTSUPP', { __reserved: 1 }],
    ['EFAULT', { num_iovas: 1, allowed_iovas: 0x1000n }],
  ] as const)('IOVA_RANGES: %s for %o', (code, init) => {
    const { u, ioas } = setup()
    const arg = iommu_ioas_iova_ranges({ ioas_id: ioas, ...init })
    refused(code, () => u.call(IOMMU_IOAS_IOVA_RANGES, arg))
  })

  const allow = (u: ReturnType<typeof user>, ioas_id: number, ...ranges: [bigint, bigint][]) => {
    const { size } = iommu_iova_range
    const bytes = new Uint8Array(ranges.length * size)
    for (const [i, [start, last]] of ranges.entries())
      bytes.set(iommu_iova_range({ start, last }).bytes, i * size)
    const arg = iommu_ioas_allow_iovas({
      ioas_id,
      num_iovas: ranges.length,
      allowed_iovas: userBytes(u.sys, bytes),
    })
    return u.call(IOMMU_IOAS_ALLOW_IOVAS, arg)
  }

  it('allowed ranges say where the kernel places mappings, and nothing else', () => {
    const { u, ioas, va } = setup()
    allow(u, ioas, [0x50_0000n, 0x50_1fffn], [0x30_0000n, 0x30_0fffn])
    expect(u.map(ioas, va, PAGE)).toBe(0x30_0000n)
    expect(u.map(ioas, va, PAGE)).toBe(0x50_0000n)
    expect(u.map(ioas, va, PAGE)).toBe(0x50_1000n)
    refused('ENOSPC', () => u.map(ioas, va, PAGE))
    u.map(ioas, va, PAGE, 0x70_0000n)
    allow(u, ioas)
    expect(u.map(ioas, va, PAGE)).toBe(0x1000n)
  })

  it.each([
    ['EINVAL', 'an empty range', [[0x2000n, 0x2000n]]],
    ['EINVAL', 'a range that ends before it begins', [[0x2000n, 0x1fffn]]],
    [
      'EINVAL',
      'two that overlap',
      [
        [0x1000n, 0x1fffn],
        [0x1fffn, 0x2fffn],
      ],
    ],
    ['EADDRINUSE', 'one that is reserved', [[0xfee0_0000n, 0xfee0_0fffn]]],
  ] as const)('ALLOW_IOVAS: %s for %s, and what was allowed stays', (code, _, ranges) => {
    const { u, ioas, va } = setup(true)
    allow(u, ioas, [0x30_0000n, 0x30_0fffn])
    refused(code, () => allow(u, ioas, ...ranges.map(([a, b]) => [a, b] as [bigint, bigint])))
    expect(u.map(ioas, va, PAGE)).toBe(0x30_0000n)
  })

  it('EADDRINUSE to attach a device whose reserved range is allowed', () => {
    const { u, ioas } = setup()
    allow(u, ioas, [0xfee0_0000n, 0xfee0_0fffn])
    const d = u.device()
    refused('EADDRINUSE', () => d.attach(ioas))
    allow(u, ioas)
    d.attach(ioas)
  })
})

describe('MAP', () => {
  it('places from the second page up, aligned as the user address is', () => {
    const { u, ioas } = setup()
    const at = u.sys.process.memory.mmap(0x20_0000, { at: 0x4000_0000n }).vaddr
    expect(u.map(ioas, at, PAGE)).toBe(0x1000n)
    expect(u.map(ioas, at, 0x20_0000n)).toBe(0x20_0000n)
    expect(u.map(ioas, at + PAGE, PAGE)).toBe(0x2000n)
    u.unmap(ioas, 0x1000n, PAGE)
    expect(u.map(ioas, at, PAGE)).toBe(0x1000n)
  })

  it('takes any byte range without a domain, and refuses a device then', () => {
    const { u, ioas, va } = setup()
    u.map(ioas, va + 0x123n, 0x10n, 0x5123n)
    refused('EEXIST', () => u.map(ioas, va, 0x4n, 0x5130n))
    u.map(ioas, va, 0x4n, 0x5133n)
    u.map(ioas, va, 0x3n, 0x5120n)
    const d = u.device()
    refused('EADDRINUSE', () => d.attach(ioas))
    refused('ENOENT', () => u.unmap(ioas, 0x5123n, 0x8n))
    expect(u.unmap(ioas, 0x5120n, 0x17n)).toBe(0x17n)
    d.attach(ioas)
  })

  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'an unknown flag',               { flags: FIXED | 8 }],
    ['EOPNOTSUPP', 'a reserved member',             { __reserved: 1 }],
    ['EOVERFLOW',  'iova 2^64-1',                   { iova: ALL }],
    ['EOVERFLOW',  'length 2^64-1',                 { length: ALL }],
    ['EINVAL',     'neither reading nor writing',   { flags: IOMMU_IOAS_MAP_FIXED_IOVA }],
    ['ENOENT',     'no address space',              { ioas_id: 9 }],
    ['EINVAL',     'length 0',                      { length: 0n }],
    ['EOVERFLOW',  'a user range that wraps',       { user_va: ALL - 0xfffn, length: 0x2000n }],
    ['EINVAL',     'a length between pages',        { length: 0x1800n }],
    ['EINVAL',     'an IOVA between pages',         { iova: 0x800n }],
    ['EINVAL',     'a user address between pages',  { user_va: 0x800n }],
    ['EOVERFLOW',  'an IOVA range that wraps',      { iova: ALL - 0xfffn, length: 0x2000n }],
    ['EINVAL',     'a reserved range',              { iova: 0xfee0_0000n }],
    ['EINVAL',     'a range into a reserved one',   { iova: 0xfedf_f000n, length: 0x2000n }],
    ['EINVAL',     'beyond the tables',             { iova: 2n ** 48n }],
    ['EEXIST',     'what is mapped',                { iova: 0x40_0000n }],
    ['EFAULT',     'memory that is not there',      { user_va: 0x1000n }],
  ] as const)('%s: %s', (code, _, init) => {
    const { u, ioas, va } = setup(true)
    u.map(ioas, va, PAGE, 0x40_0000n)
    const arg = iommu_ioas_map({ flags: FIXED, ioas_id: ioas, user_va: va, length: PAGE, iova: 0x10_0000n, ...init })
    refused(code, () => u.call(IOMMU_IOAS_MAP, arg))
  })

  it('a flag is refused before an address, an address before the protection, that before the id', () => {
    const { u } = setup()
    const bad = { flags: 8, iova: ALL, ioas_id: 9 }
    refused('EOPNOTSUPP', () => u.call(IOMMU_IOAS_MAP, iommu_ioas_map(bad)))
    refused('EOVERFLOW', () => u.call(IOMMU_IOAS_MAP, iommu_ioas_map({ ...bad, flags: 0 })))
    refused('EINVAL', () => u.call(IOMMU_IOAS_MAP, iommu_ioas_map({ ioas_id: 9 })))
  })

  it('reads memory only when it may be read, writes only when it may be written', () => {
    const { u, ioas, va, memory, d } = setup(true)
    u.map(ioas, va, PAGE, 0x1000n, READ_ONLY)
    u.map(ioas, va + PAGE, PAGE, 0x2000n, IOMMU_IOAS_MAP_WRITEABLE)
    expect(d!.dma(0x1000n, 0x2000n)).toBe(true)
    expect(d!.dma(0x1000n, 0x1008n)).toBe(false)
    u.sys.process.memory.mprotect(va + 2n * PAGE, 0x1000, PROT_READ)
    refused('EFAULT', () => u.map(ioas, va + 2n * PAGE, PAGE, 0x3000n))
    u.map(ioas, va + 2n * PAGE, PAGE, 0x3000n, IOMMU_IOAS_MAP_READABLE)
    expect(memory.length).toBe(0x1_0000)
  })

  it('pins when a domain comes: then a hole is EFAULT, and the attach leaves nothing', () => {
    const { b, u, ioas, va } = setup()
    u.map(ioas, va, 0x2000n)
    u.map(ioas, 0x1000n, PAGE)
    expect(b.held().pins).toBe(0)
    const d = u.device()
    refused('EFAULT', () => d.attach(ioas))
    expect([b.held().pins, b.vfio.iommufd!.holdings().lockedPages]).toEqual([0, 0])
    u.unmap(ioas, 0n, ALL)
    u.map(ioas, va, 0x2000n)
    d.attach(ioas)
    expect([b.held().pins, b.vfio.iommufd!.holdings().lockedPages]).toEqual([2, 2])
  })

  it('EFAULT for a device’s registers', () => {
    const { u, ioas, d } = setup(true)
    const window = d!.start()
    refused('EFAULT', () => u.map(ioas, window.vaddr, PAGE))
  })

  it('large IOMMU pages and small ones show the same memory', () => {
    const { b, u, ioas, d } = setup(true, { ramBytes: 64 * 2 ** 20 })
    const memory = u.sys.process.memory.mmap(0x60_0000, { at: 0x4000_0000n })
    const at = u.map(ioas, memory.vaddr, 0x60_0000n)
    memory.bytes[0x40_0000] = 77
    expect(d!.dma(at + 0x40_0000n, at + 0x10n, 1)).toBe(true)
    expect(memory.bytes[0x10]).toBe(77)
    expect(b.held().pins).toBe(0x600)
  })
})

describe('UNMAP', () => {
  it('removes whole areas and tells the bytes', () => {
    const { u, ioas, va } = setup(true)
    u.map(ioas, va, 0x2000n, 0x10_0000n)
    u.map(ioas, va, 0x3000n, 0x20_0000n)
    expect(u.unmap(ioas, 0x10_0000n, 0x20_0000n)).toBe(0x5000n)
  })

  it('everything by (0, 2^64-1), also when there is nothing', () => {
    const { u, ioas, va } = setup(true)
    expect(u.unmap(ioas, 0n, ALL)).toBe(0n)
    u.map(ioas, va, 0x2000n)
    expect(u.unmap(ioas, 0n, ALL)).toBe(0x2000n)
  })

  // biome-ignore format: table
  it.each([
    ['ENOENT',    'the first page of an area',       0x10_0000n, PAGE],
    ['ENOENT',    'the last page of an area',        0x10_1000n, PAGE],
    ['ENOENT',    'an area and a part of the next',  0x10_0000n, 0x10_1000n],
    ['ENOENT',    'nothing mapped',                  0x50_0000n, PAGE],
    ['EINVAL',    'length 0',                        0x10_0000n, 0n],
    ['EOVERFLOW', 'iova 2^64-1',                     ALL,        PAGE],
    ['EOVERFLOW', 'length 2^64-1 from elsewhere',    PAGE,       ALL],
    ['EOVERFLOW', 'a range that wraps',              ALL - 0xfffn, 0x2000n],
  ] as const)('%s: %s, and nothing is removed', (code, _, iova, length) => {
    const { b, u, ioas, va } = setup(true)
    u.map(ioas, va, 0x2000n, 0x10_0000n)
    u.map(ioas, va, 0x2000n, 0x20_0000n)
    refused(code, () => u.unmap(ioas, iova, length))
    expect(b.vfio.iommufd!.holdings().areas).toBe(2)
  })

  it('ENOENT for another id', () => {
    const { u } = setup()
    refused('ENOENT', () => u.call(IOMMU_IOAS_UNMAP, iommu_ioas_unmap({ ioas_id: 9 })))
  })
})

describe('COPY', () => {
  it('shows the same memory elsewhere, pinned once', () => {
    const { b, u, ioas, va, memory, d } = setup(true)
    u.map(ioas, va, 0x4000n, 0x10_0000n)
    const other = u.ioas()
    const at = u.copy(ioas, 0x10_0000n, 0x4000n, other)
    const d1 = u.device(1)
    d1.attach(other)
    expect([b.held().pins, b.vfio.iommufd!.holdings().lockedPages]).toEqual([4, 4])
    memory.bytes[0] = 9
    expect(d1.dma(at, at + PAGE, 1)).toBe(true)
    expect(memory.bytes[0x1000]).toBe(9)
    u.unmap(ioas, 0n, ALL)
    expect(d1.dma(at, at + PAGE, 1)).toBe(true)
    d!.detach()
  })

  it('takes a part, and several areas that touch', () => {
    const { u, ioas, va, memory, d } = setup(true)
    u.map(ioas, va, 0x4000n, 0x10_0000n)
    u.map(ioas, va + 0x8000n, 0x4000n, 0x10_4000n)
    u.copy(ioas, 0x10_2000n, 0x4000n, ioas, 0x50_0000n)
    memory.bytes[0x3000] = 5
    expect(d!.dma(0x50_1000n, 0x50_2000n, 1)).toBe(true)
    expect(memory.bytes[0x8000]).toBe(5)
    refused('ENOENT', () => u.unmap(ioas, 0x50_0000n, PAGE))
    expect(u.unmap(ioas, 0x50_0000n, 0x4000n)).toBe(0x4000n)
  })

  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'an unknown flag',        { flags: FIXED | 16 }],
    ['EOVERFLOW',  'source 2^64-1',          { src_iova: ALL }],
    ['EOVERFLOW',  'destination 2^64-1',     { dst_iova: ALL }],
    ['EOVERFLOW',  'length 2^64-1',          { length: ALL }],
    ['EINVAL',     'no access',              { flags: IOMMU_IOAS_MAP_FIXED_IOVA }],
    ['ENOENT',     'no source',              { src_ioas_id: 9 }],
    ['ENOENT',     'no destination',         { dst_ioas_id: 9 }],
    ['EINVAL',     'length 0',               { length: 0n }],
    ['ENOENT',     'a hole in the source',   { src_iova: 0x10_1000n, length: 0x3000n }],
    ['ENOENT',     'nothing at the source',  { src_iova: 0x90_0000n }],
    ['EPERM',      'writing what is read-only', { src_iova: 0x20_0000n }],
    ['EEXIST',     'what is mapped',         { dst_iova: 0x10_0000n }],
  ] as const)('%s: %s', (code, _, init) => {
    const { u, ioas, va } = setup(true)
    u.map(ioas, va, 0x2000n, 0x10_0000n)
    u.map(ioas, va, 0x2000n, 0x10_3000n)
    u.map(ioas, va, 0x2000n, 0x20_0000n, READ_ONLY)
    const arg = iommu_ioas_copy({
      flags: FIXED, src_ioas_id: ioas, dst_ioas_id: ioas,
      length: PAGE, src_iova: 0x10_0000n, dst_iova: 0x50_0000n, ...init,
    })
    refused(code, () => u.call(IOMMU_IOAS_COPY, arg))
  })
})

describe('MAP_FILE and CHANGE_PROCESS', () => {
  // biome-ignore format: table
  it.each([
    ['EOVERFLOW',  'iova 2^64-1',          { iova: ALL }],
    ['EOPNOTSUPP', 'an unknown flag',      { flags: 8 }],
    ['EINVAL',     'no access',            { flags: 0 }],
    ['ENOENT',     'no address space',     { ioas_id: 9 }],
    ['EBADF',      'a closed descriptor',  { fd: 99 }],
    ['EINVAL',     'a file without pages', {}],
  ] as const)('MAP_FILE: %s for %s', (code, _, init) => {
    const { u, ioas } = setup()
    const arg = iommu_ioas_map_file({ flags: READ_WRITE, ioas_id: ioas, fd: u.sys.eventfd(), length: PAGE, ...init })
    refused(code, () => u.call(IOMMU_IOAS_MAP_FILE, arg))
  })

  it('CHANGE_PROCESS: EINVAL with memory mapped, EOPNOTSUPP for a reserved member', () => {
    const { u, ioas, va } = setup()
    u.call(IOMMU_IOAS_CHANGE_PROCESS, iommu_ioas_change_process())
    u.map(ioas, va, PAGE)
    refused('EINVAL', () => u.call(IOMMU_IOAS_CHANGE_PROCESS, iommu_ioas_change_process()))
    const bad = iommu_ioas_change_process({ __reserved: 1 })
    refused('EOPNOTSUPP', () => u.call(IOMMU_IOAS_CHANGE_PROCESS, bad))
  })
})

describe('the account', () => {
  const option = (u: ReturnType<typeof user>, init: Parameters<typeof iommu_option>[0]) => {
    const arg = iommu_option(init)
    u.call(IOMMU_OPTION, arg)
    return arg.val64
  }
  const two = (mode: 0 | 1, capabilities: ('CAP_IPC_LOCK' | 'CAP_SYS_RESOURCE')[] = []) => {
    const b = iommufdBench()
    return [0, 1].map(i => {
      const sys = b.spawn({
        memlock: 4 * 4096,
        capabilities: ['CAP_SYS_RESOURCE', ...capabilities],
      })
      const u = user(b, sys)
      if (mode === 1)
        option(u, { option_id: IOMMU_OPTION_RLIMIT_MODE, op: IOMMU_OPTION_OP_SET, val64: 1n })
      const ioas = u.ioas()
      u.device(i).attach(ioas)
      const { vaddr } = sys.mmap(0x8000)
      return (pages: bigint) => u.map(ioas, vaddr, pages * PAGE)
    }) as [(pages: bigint) => bigint, (pages: bigint) => bigint]
  }

  it('is the user’s: two processes share the limit', () => {
    const [one, other] = two(0)
    one(3n)
    refused('ENOMEM', () => other(2n))
    other(1n)
    refused('ENOMEM', () => one(1n))
  })

  it('is each process’s with RLIMIT_MODE 1', () => {
    const [one, other] = two(1)
    one(4n)
    other(4n)
    refused('ENOMEM', () => one(1n))
  })

  it('counts nothing with CAP_IPC_LOCK', () => {
    const [one, other] = two(0, ['CAP_IPC_LOCK'])
    one(8n)
    other(8n)
  })

  it('is not passed by a map that is refused for another reason', () => {
    const { b, u, ioas, va } = setup(true)
    refused('EFAULT', () => u.map(ioas, va, 0x2_0000n))
    expect([b.held().pins, b.vfio.iommufd!.holdings().lockedPages]).toEqual([0, 0])
  })

  const RLIMIT = { option_id: IOMMU_OPTION_RLIMIT_MODE }
  const SET = { op: IOMMU_OPTION_OP_SET }
  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'a reserved member',        { ...RLIMIT, __reserved: 1 }],
    ['EOPNOTSUPP', 'an unknown option',        { option_id: 2 }],
    ['EOPNOTSUPP', 'an unknown operation',     { ...RLIMIT, op: 2 }],
    ['EOPNOTSUPP', 'an object',                { ...RLIMIT, object_id: 1 }],
    ['EINVAL',     'value 2',                  { ...RLIMIT, ...SET, val64: 2n }],
    ['EOPNOTSUPP', 'HUGE_PAGES, operation 2',  { option_id: IOMMU_OPTION_HUGE_PAGES, object_id: 1, op: 2 }],
    ['ENOENT',     'HUGE_PAGES of nothing',    { option_id: IOMMU_OPTION_HUGE_PAGES, object_id: 9 }],
  ] as const)('OPTION: %s for %s', (code, name, init) => {
    const b = iommufdBench()
    const u = user(b, b.spawn({ capabilities: ['CAP_SYS_RESOURCE'] }))
    if (name.startsWith('HUGE')) u.ioas()
    refused(code, () => option(u, init))
  })

  it('OPTION RLIMIT_MODE: EPERM without CAP_SYS_RESOURCE, EBUSY after the first object', () => {
    const b = iommufdBench()
    refused('EPERM', () => option(user(b), { ...RLIMIT, ...SET, val64: 1n }))
    const u = user(b, b.spawn({ capabilities: ['CAP_SYS_RESOURCE'] }))
    expect(option(u, { ...RLIMIT, op: IOMMU_OPTION_OP_GET })).toBe(0n)
    option(u, { ...RLIMIT, ...SET, val64: 1n })
    expect(option(u, { ...RLIMIT, op: IOMMU_OPTION_OP_GET })).toBe(1n)
    u.ioas()
    refused('EBUSY', () => option(u, { ...RLIMIT, ...SET, val64: 0n }))
  })

  it('OPTION HUGE_PAGES: whole pages only, not while something is mapped in a domain', () => {
    const { u, ioas, va } = setup()
    const huge = { option_id: IOMMU_OPTION_HUGE_PAGES, object_id: ioas }
    expect(option(u, { ...huge, op: IOMMU_OPTION_OP_GET })).toBe(1n)
    refused('EINVAL', () => option(u, { ...huge, ...SET, val64: 2n }))
    option(u, { ...huge, ...SET, val64: 0n })
    expect(u.ranges(ioas).alignment).toBe(4096n)
    u.device().attach(ioas)
    u.map(ioas, va, PAGE)
    refused('EINVAL', () => option(u, { ...huge, ...SET, val64: 1n }))
    u.unmap(ioas, 0n, ALL)
    option(u, { ...huge, ...SET, val64: 1n })
  })
})
