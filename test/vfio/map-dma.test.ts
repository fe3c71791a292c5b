import { afterEach, describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import type { Domain, IommuDriver } from '../../src/iommu/domain.js'
import { s32 } from '../../src/sys/sys.js'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dma_map,
} from '../../src/uapi.js'
import type { VfioProfile } from '../../src/vfio/index.js'
import { bench, checkBenches, READ_WRITE, refused, standIn } from '../support/vfio-bench.js'

afterEach(checkBenches)

const PAGE = 0x1000n
const TOP = 0xffff_ffff_ffff_f000n

function setup(options: Parameters<typeof bench>[0] = {}, type = VFIO_TYPE1v2_IOMMU) {
  const b = bench(options)
  const p = b.program()
  const c = p.container(type, b.functions[0]!.group)
  const m = p.sys.mmap(0x10000)
  const map = (init: Parameters<typeof vfio_iommu_type1_dma_map>[0] = {}) =>
    c.call(
      VFIO_IOMMU_MAP_DMA,
      vfio_iommu_type1_dma_map({
        flags: READ_WRITE,
        vaddr: m.vaddr,
        iova: 0x10000n,
        size: PAGE,
        ...init,
      }),
    )
  return { b, p, c, m, map }
}

describe('VFIO_IOMMU_MAP_DMA', () => {
  it('pins, accounts and maps', () => {
    const { b, p, map } = setup()
    expect(map({ size: 4n * PAGE })).toBe(0)
    expect(b.held()).toMatchObject({ mappings: 1, pins: 4 })
    expect(p.sys.process.memory.lockedPages).toBe(4)
  })

  // biome-ignore format: table
  const refusals = [
    ['argsz 31',                 { argsz: 31 },                                  'EINVAL', 'EINVAL'],
    ['an unknown flag',          { flags: 8 | READ_WRITE },                      'EINVAL', 'EINVAL'],
    ['neither READ nor WRITE',   { flags: 0 },                                   'EINVAL', 'EINVAL'],
    ['size 0',                   { size: 0n },                                   'EINVAL', 'EINVAL'],
    ['an unaligned size',        { size: 0x800n },                               'EINVAL', 'EINVAL'],
    ['an unaligned iova',        { iova: 0x10001n },                             'EINVAL', 'EINVAL'],
    ['an unaligned vaddr',       { vaddr: 0x10010n },                            'EINVAL', 'EINVAL'],
    ['an iova that wraps',       { iova: TOP, size: 2n * PAGE },                 'EINVAL', 'EOVERFLOW'],
    ['a vaddr that wraps',       { vaddr: TOP, size: 2n * PAGE },                'EINVAL', 'EOVERFLOW'],
    ['a size that wraps alone',  { iova: PAGE, size: TOP },                      'EINVAL', 'EOVERFLOW'],
    ['unaligned and wrapping',   { iova: TOP + 1n, size: 2n * PAGE },            'EINVAL', 'EOVERFLOW'],
    ['the interrupt window',     { iova: 0xfee0_0000n },                         'EINVAL', 'EINVAL'],
    ['beyond the aperture',      { iova: 1n << 48n },                            'EINVAL', 'EINVAL'],
    ['across the aperture end',  { iova: (1n << 48n) - PAGE, size: 2n * PAGE },  'EINVAL', 'EINVAL'],
    ['the very last page',       { iova: TOP },                                  'EINVAL', 'EINVAL'],
    ['unmapped memory',          { vaddr: 0x5000n },                             'EFAULT', 'EFAULT'],
  ] as const
  it.each(refusals)('refuses %s', (_, init, early, late) => {
    for (const [profile, errno] of [
      ['V7R', early],
      ['L59', early],
      ['L72', late],
    ] as const) {
      const { b, map } = setup({ profile })
      const before = b.held()
      refused(errno, () => map(init))
      expect(b.held()).toEqual(before)
    }
  })
  it('refuses an unreadable argument before anything else', () => {
    refused('EFAULT', () => setup().c.call(VFIO_IOMMU_MAP_DMA, 0x1000))
  })
  it.each([
    [0x10000n, PAGE],
    [0xf000n, 2n * PAGE],
    [0x13000n, PAGE],
    [0xf000n, 8n * PAGE],
  ])('refuses overlap by even a page: %x + %x', (iova, size) => {
    const { map } = setup()
    map({ size: 4n * PAGE })
    refused('EEXIST', () => map({ iova, size }))
    map({ iova: 0xf000n })
    map({ iova: 0x14000n })
  })
  it('refuses with EEXIST before ENOSPC before the range check', () => {
    const { map, c } = setup({ parameters: { dmaEntryLimit: 1 } })
    map()
    refused('EEXIST', () => map())
    refused('ENOSPC', () => map({ iova: 0xfee0_0000n }))
    c.unmap(0x10000n, PAGE)
    refused('EINVAL', () => map({ iova: 0xfee0_0000n }))
    map()
  })
  it('asks for write permission only when the device may write', () => {
    const { p, m, map } = setup()
    p.sys.process.memory.mprotect(m.vaddr, 0x10000, 1)
    refused('EFAULT', () => map({ flags: VFIO_DMA_MAP_FLAG_WRITE }))
    map({ flags: VFIO_DMA_MAP_FLAG_READ })
  })
  it('undoes the first pages when a later one is missing', () => {
    const { b, p, m, map } = setup()
    p.sys.munmap(m.vaddr + 4n * PAGE, 0x1000)
    const before = b.held()
    refused('EFAULT', () => map({ size: 8n * PAGE }))
    expect(b.held()).toEqual(before)
    expect(p.sys.process.memory.lockedPages).toBe(0)
    map({ size: 4n * PAGE })
  })
  it('keeps to RLIMIT_MEMLOCK, counting a page twice when mapped twice', () => {
    const b = bench()
    const sys = b.spawn({ memlock: 0x3000 })
    const c = b.program(sys).container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    const m = sys.mmap(0x8000)
    refused('ENOMEM', () => c.map(0n, m.vaddr, 4n * PAGE))
    expect(b.held()).toMatchObject({ mappings: 0, pins: 0 })
    c.map(0n, m.vaddr, 2n * PAGE)
    c.map(0x10000n, m.vaddr, PAGE)
    refused('ENOMEM', () => c.map(0x20000n, m.vaddr, PAGE))
    sys.process.capabilities.add('CAP_IPC_LOCK')
    c.map(0x20000n, m.vaddr, 4n * PAGE)
    expect(sys.process.memory.lockedPages).toBe(7)
    c.unmap(0n, 0x100000n)
    expect(sys.process.memory.lockedPages).toBe(0)
  })
  it('maps runs of several allocations behind one another', () => {
    const { b, p, map } = setup()
    const at = 0x7000_0000n
    for (const i of [2n, 0n, 1n]) p.sys.process.memory.mmap(0x1000, { at: at + i * PAGE })
    map({ vaddr: at, size: 3n * PAGE })
    expect(b.held()).toMatchObject({ mappings: 1, pins: 3 })
  })
  it('maps device memory without pinning or accounting it', () => {
    const { b, p, c, map } = setup()
    const device = c.device()
    const window = p.sys.mmap({ fd: device, offset: 0, length: 0x1000 })
    map({ vaddr: window.vaddr })
    expect(b.held()).toMatchObject({ mappings: 1, pins: 0 })
    expect(p.sys.process.memory.lockedPages).toBe(0)
    p.sys.munmap(window.vaddr, 0x1000)
    c.unmap(0x10000n, PAGE)
  })
  it('undoes everything when the IOMMU driver refuses', () => {
    let fail = false
    const wrapDriver = (driver: IommuDriver) =>
      standIn(driver, domain => {
        const { map } = domain
        domain.map = (...args) => {
          if (fail) throw new ErrnoError('ENOMEM', 'no frame for a table')
          map.apply(domain, args)
        }
      })
    const b = bench({ wrapDriver })
    const p = b.program()
    const c = p.container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
    const m = p.sys.mmap(0x4000)
    const before = b.held()
    fail = true
    refused('ENOMEM', () => c.map(0n, m.vaddr, 4n * PAGE))
    expect(b.held()).toEqual(before)
    fail = false
    c.map(0n, m.vaddr, 4n * PAGE)
  })
})

describe('MAP_DMA with VADDR', () => {
  it.each(['V7R', 'V7', 'L59'] as VfioProfile[])('%s does not know it', profile => {
    refused('EINVAL', () => setup({ profile }).map({ flags: VFIO_DMA_MAP_FLAG_VADDR }))
  })
  it('gives a suspended mapping a new address, and refuses everything else', () => {
    const { b, p, c, m, map } = setup({ profile: 'L512' })
    map({ size: 2n * PAGE })
    const revive = (init: Parameters<typeof map>[0]) =>
      map({ flags: VFIO_DMA_MAP_FLAG_VADDR, ...init })
    refused('EINVAL', () => revive({ flags: VFIO_DMA_MAP_FLAG_VADDR | READ_WRITE }))
    refused('ENOENT', () => revive({ iova: 0x90000n }))
    refused('EINVAL', () => revive({ size: 2n * PAGE }))
    expect(c.unmap(0x10000n, 2n * PAGE, VFIO_DMA_UNMAP_FLAG_VADDR)).toBe(2n * PAGE)
    refused('EINVAL', () => c.unmap(0x10000n, 2n * PAGE, VFIO_DMA_UNMAP_FLAG_VADDR))
    refused('EINVAL', () => revive({ size: PAGE }))
    revive({ size: 2n * PAGE, vaddr: m.vaddr + PAGE })
    expect(b.held()).toMatchObject({ mappings: 1, pins: 2 })
    expect(p.sys.process.memory.lockedPages).toBe(2)
  })
})

describe('a container with several domains', () => {
  const join = ({ p, c, b }: ReturnType<typeof setup>) => {
    const group = p.sys.open(`/dev/vfio/${b.functions[1]!.group}`)
    p.sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(c.fd))
    return group
  }
  const has = (driver: unknown[], page: number) =>
    driver.map(d => (d as Domain).iovaToPhys(page) >= 0)

  it.each([VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU])(
    'type %d shares one between groups of a unit, and keeps mappings when a group leaves',
    type => {
      const s = setup({}, type)
      s.map({ size: 4n * PAGE })
      join(s)
      s.c.unset()
      expect(s.b.held()).toMatchObject({ mappings: 1, pins: 4 })
    },
  )
  it('replays mappings into a domain that comes later, and maps and unmaps in both', () => {
    const domains: Domain[] = []
    const wrapDriver = (driver: IommuDriver) => standIn(driver, d => void domains.push(d))
    const s = setup({ unitPerBus: true, wrapDriver })
    s.map({ size: 4n * PAGE })
    const group = join(s)
    expect(domains.length).toBe(2)
    s.map({ iova: 0x90000n })
    expect([has(domains, 0x10), has(domains, 0x13), has(domains, 0x90)]).toEqual([
      [true, true],
      [true, true],
      [true, true],
    ])
    expect(s.b.held()).toMatchObject({ mappings: 2, pins: 5 })
    s.c.unmap(0x10000n, 4n * PAGE)
    expect([has(domains, 0x10), has(domains, 0x90)]).toEqual([
      [false, false],
      [true, true],
    ])
    s.p.sys.close(group)
    expect([domains[0]!.iovaToPhys(0x90) >= 0, s.b.held().mappings]).toEqual([true, 1])
  })
  it('keeps the group out when replay fails, and leaves the first domain as it was', () => {
    const domains: Domain[] = []
    const wrapDriver = (driver: IommuDriver) =>
      standIn(driver, domain => {
        const { map } = domain
        const second = domains.push(domain) === 2
        domain.map = (page, ...rest) => {
          if (second && page === 0x20) throw new ErrnoError('ENOMEM', 'no frame for a table')
          map.call(domain, page, ...rest)
        }
      })
    const s = setup({ unitPerBus: true, wrapDriver })
    s.map()
    s.map({ iova: 0x20000n })
    const before = s.b.held()
    refused('ENOMEM', () => join(s))
    expect(s.b.held()).toEqual(before)
    expect(domains[0]!.iovaToPhys(0x20)).toBeGreaterThan(0)
  })
})
