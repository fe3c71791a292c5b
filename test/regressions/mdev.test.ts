// E09, E10, E84, E101, E102: mediated devices, with and without a backing function, and devices that are not PCI.
import { describe, expect, it } from 'vitest'
import type { BenchOptions } from '../../src/testing/index.js'
import {
  VFIO_DMA_MAP_FLAG_READ as READ,
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UPDATE_VADDR,
  vfio_device_info,
} from '../../src/uapi.js'
import { bench, outcomes, testDevice } from './support.js'

const NESTING = VFIO_TYPE1_NESTING_IOMMU
const V2 = VFIO_TYPE1v2_IOMMU
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const bytes = (s: string) => new TextEncoder().encode(s)

describe('a software mdev', () => {
  it.each(['V7R', 'V7'] as const)(
    'E09 %s takes it into a nesting container, without NESTING capability and calls',
    profile => {
      const b = bench({ profile })
      const c = b.process().container(undefined, b.mdev().group)
      expect(() => c.setIommu(NESTING)).toSucceed(0)
      expect(c.info().capabilities.map(({ id }) => id)).toEqual([2])
      expect(c.info().info.iova_pgsizes).toBe(0xffff_ffff_ffff_f000n)
      expect(() => c.alloc()).toRefuse('EOPNOTSUPP')
      expect(() => c.bind(1)).toRefuse('EOPNOTSUPP')
      expect(() => c.invalidate(1)).toRefuse('EOPNOTSUPP')
    },
  )
  it('E10 counts as the one group of a nesting container', () => {
    const b = bench()
    const p = b.process()
    const c = p.container(NESTING, b.mdev().group)
    expect(() => p.group(b.functions[0]!.group, c.fd)).toRefuse('EINVAL')
    expect(() => p.group(b.mdev().group, c.fd)).toRefuse('EINVAL')
  })
  it('pins nothing until a real group joins, and reaches mapped memory by way of the process', () => {
    const b = bench()
    const p = b.process()
    const mdev = b.mdev()
    const c = p.container(V2, mdev.group)
    const memory = p.memory(0x2000)
    c.map(0x10_0000n, memory.vaddr, 0x2000)
    expect(b.holdings()).toMatchObject({ mappings: 1, pins: 0 })
    memory.bytes.set(bytes('hello'), 0xffe)
    const into = new Uint8Array(5)
    expect(mdev.read(0x10_0ffen, into)).toBe(true)
    expect(text(into)).toBe('hello')
    expect(mdev.write(0x10_2000n, into)).toBe(false)

    const group = p.group(b.functions[0]!.group, c.fd)
    expect(b.holdings().pins).toBe(2)
    expect(b.dmaRead(0x10_0ffen, { length: 5 })).toEqual({ text: 'hello' })
    p.sys.close(group)
    expect(b.holdings()).toMatchObject({ mappings: 1, pins: 0 })
    expect(mdev.read(0x10_0ffen, into)).toBe(true)
    c.unset()
    expect(mdev.read(0x10_0ffen, into)).toBe(false)
  })
  it('accounts the pages it pins, and lets go of them before an unmap', () => {
    const b = bench()
    const p = b.process({ memlock: 2 * 4096 })
    const told: bigint[] = []
    const mdev = b.machine.vfio.createMdev({
      name: 'pins',
      model: { regions: {}, reset() {}, unmapping: (iova, size) => void told.push(iova, size) },
    })
    const c = p.container(V2, mdev.group)
    const memory = p.memory(0x4000)
    c.map(0x10_0000n, memory.vaddr, 0x3000, READ)
    const { process } = p.sys
    expect(process.memory.lockedPages).toBe(0)
    const hpa = mdev.pin(0x100, false)
    expect(mdev.pin(0x100, false)).toBe(hpa)
    mdev.pin(0x101, false)
    expect([process.memory.lockedPages, b.holdings().pins]).toEqual([2, 2])
    expect(() => mdev.pin(0x102, false)).toRefuse('ENOMEM')
    expect(() => mdev.pin(0x100, true)).toRefuse('EINVAL')
    expect(() => mdev.pin(0x200, false)).toRefuse('EINVAL')
    mdev.unpin(0x100)
    expect(mdev.pinned).toBe(2)
    mdev.unpin(0x100)
    expect(() => mdev.pin(0x102, false)).toSucceed()
    expect(() => c.unmap(0x10_0000n, 0x3000)).toSucceed(0x3000n)
    expect(told).toEqual([0x10_0000n, 0x3000n])
    expect([mdev.pinned, process.memory.lockedPages, b.holdings().pins]).toEqual([0, 0, 0])
    c.unset()
    expect(() => mdev.pin(0x100, false)).toRefuse('EINVAL')
  })
  it.each([
    ['L512', 1],
    ['L72', 0],
  ] as const)(
    'keeps virtual addresses: UNMAP_DMA with VADDR is EBUSY; %s',
    (profile, extension) => {
      const b = bench({ profile })
      const p = b.process()
      const c = p.container(V2, b.mdev().group)
      c.map(0n, p.memory().vaddr, 4096)
      expect(() => c.unmap(0n, 4096, VFIO_DMA_UNMAP_FLAG_VADDR)).toRefuse('EBUSY')
      expect(c.call(VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR)).toBe(extension)
    },
  )
  it('is opened by its name, and answers as a device', () => {
    const b = bench()
    const p = b.process()
    const mdev = b.mdev()
    const c = p.container(V2, mdev.group)
    const open = (name: string) => p.sys.ioctl(c.groups[0]!, VFIO_GROUP_GET_DEVICE_FD, name)
    expect(() => open(b.functions[0]!.name)).toRefuse('ENODEV')
    const fd = open(mdev.name)
    const info = vfio_device_info()
    p.sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info)
    expect(info).toMatchObject({ flags: 3, num_regions: 9, num_irqs: 5 })
    p.sys.pwrite(fd, bytes('kept'), (7n << 40n) + 0x40n)
    expect(text(p.sys.pread(fd, 4, (7n << 40n) + 0x40n))).toBe('kept')
    expect(() => p.sys.pread(fd, 4, (7n << 40n) + 0xfen)).toRefuse('EINVAL')
    p.sys.ioctl(fd, VFIO_DEVICE_RESET)
    expect(text(p.sys.pread(fd, 4, (7n << 40n) + 0x40n))).toBe('\0\0\0\0')
    expect(() => b.machine.vfio.removeMdev(mdev)).toRefuse('EBUSY')
    expect(() => c.unset()).toRefuse('EBUSY')
  })
})

describe('an mdev backed by a function', () => {
  /** A bench whose first function serves two mdevs. */
  const backed = (options: BenchOptions = {}) => {
    const b = bench(options)
    return { b, p: b.process(), one: b.mdev(0), two: b.mdev(0) }
  }

  it('nests over a domain of its own, under a PASID that the host chose', () => {
    const { b, p, one, two } = backed()
    const [c1, c2] = [p.container(NESTING, one.group), p.container(NESTING, two.group)]
    expect(c1.info().capabilities.map(({ id }) => id)).toEqual([2, 1, 3])
    const pages = [p.memory(), p.memory()]
    for (const [i, c] of [c1, c2].entries()) {
      pages[i]!.bytes.set(bytes(`mdev ${i}`))
      c.map(0x1000n, pages[i]!.vaddr, 4096)
    }
    expect(one.pasid).not.toBe(two.pasid)
    expect(b.dmaRead(0x1000n, { pasid: one.pasid! })).toEqual({ text: 'mdev 0' })
    expect(b.dmaRead(0x1000n, { pasid: two.pasid! })).toEqual({ text: 'mdev 1' })
    expect(b.dmaRead(0x1000n)).toFaultWith('pasidEntryNotPresent', { pasid: undefined })
    const pasid = one.pasid!
    c1.unset()
    expect(b.dmaRead(0x1000n, { pasid })).toFaultWith('pasidEntryNotPresent', { pasid })
    expect(b.dmaRead(0x1000n, { pasid: two.pasid! })).toEqual({ text: 'mdev 1' })
  })
  it('binds on the backing function; leaving takes its own bindings and no others', () => {
    const { b, p, one, two } = backed()
    const [c1, c2] = [p.container(NESTING, one.group), p.container(NESTING, two.group)]
    c1.bind(c1.alloc())
    c2.bind(c2.alloc())
    expect(b.holdings().bindings).toBe(2)
    c1.close()
    expect(b.holdings().bindings).toBe(1)
  })
  it('E101 that lost its function: BIND EINVAL; UNBIND and CACHE_INVLD answer 0', () => {
    const { b, p, one } = backed()
    const c = p.container(NESTING, one.group)
    const id = c.alloc()
    one.loseBacking()
    const seen = outcomes(b, () => {
      expect(() => c.bind(id)).toRefuse('EINVAL')
      expect(() => c.unbind(id)).toSucceed(0)
      expect(() => c.invalidate(id)).toSucceed(0)
    })
    expect(seen).toEqual(['bind EINVAL', 'unbind EINVAL', 'invalidate EINVAL'])
  })
  it('E102 a second BIND of one PASID, over another mdev of the function, is EBUSY', () => {
    const { b, p, one, two } = backed()
    const [c1, c2] = [p.container(NESTING, one.group), p.container(NESTING, two.group)]
    const id = c1.alloc()
    expect(() => c1.bind(id)).toSucceed(0)
    expect(() => c2.bind(id)).toRefuse('EBUSY')
    expect(b.holdings().bindings).toBe(1)
  })
  it('needs PASIDs of the function', () => {
    const b = bench({ device: testDevice({ pasidWidth: 0 }) })
    const c = b.process().container(undefined, b.mdev(0).group)
    const before = b.holdings()
    expect(() => c.setIommu(V2)).toRefuse('EOPNOTSUPP')
    expect(b.holdings()).toEqual(before)
  })
  it('takes the function from users', () => {
    const { b, p } = backed()
    expect(() => p.nesting(0)).toRefuse('ENODEV')
    const c = p.nesting(1)
    c.device(1)
    expect(() => b.mdev(1)).toRefuse('EBUSY')
  })
})

describe('a device in the group that is no PCI function', () => {
  it.each(['V7R', 'V7'] as const)(
    'E84 BIND is 524 (ENOTSUPP), the function unbound again: %s',
    profile => {
      const b = bench({
        profile,
        namespaceDevices: [{ requester: '0000:01:1f.0', beside: '0000:01:00.0' }],
      })
      const c = b.process().nesting()
      const id = c.alloc()
      const seen = outcomes(b, () => expect(() => c.bind(id)).toRefuse('ENOTSUPP'))
      expect(seen.slice(0, 3)).toEqual(['bind done', 'bind ENOTSUPP', 'unbind done'])
      expect(b.holdings()).toMatchObject({ bindings: 0, pasids: 1 })
    },
  )
})
