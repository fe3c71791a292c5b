// Profile N13 on a machine with an SMMUv3: a guest's whole table through the ioctls, its refusals in their order, and
// what the other profiles make of such a host.
import { afterEach, describe, expect, it } from 'vitest'
import { CD } from '../../src/iommu/smmu/cd.js'
import { createMachine, type SmmuMachineDescription } from '../../src/machine.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { DESCRIPTOR, OPCODE, RECORD, STATUS } from '../../src/pci/devices/sva-engine/descriptors.js'
import { MODE, queueOffset } from '../../src/pci/devices/sva-engine/registers.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import type { DeviceModel } from '../../src/pci/function.js'
import { s32 } from '../../src/sys/sys.js'
import {
  IOMMU_PAGE_RESP_SUCCESS,
  iommu_cache_invalidate_info,
  iommu_fault,
  iommu_page_response,
  iommu_pasid_table_config,
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_CACHE_INVALIDATE,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_SET_MSI_BINDING,
  VFIO_IOMMU_SET_PASID_TABLE,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_info,
  vfio_iommu_type1_cache_invalidate,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_info,
  vfio_iommu_type1_set_msi_binding,
  vfio_iommu_type1_set_pasid_table,
  vfio_irq_set,
  vfio_region_dma_fault,
} from '../../src/uapi.js'
import { refused } from '../support/vfio-bench.js'

const AT = '0000:01:00.0'
const RW = 3
const checks: (() => void)[] = []

/** A machine with one device, its group in a container of type `type`, and 256 KiB of guest memory at 0. */
function setup(
  model: DeviceModel = dmaCopy,
  type: number = VFIO_TYPE1_NESTING_IOMMU,
  description: Partial<SmmuMachineDescription> = {},
) {
  const machine = createMachine({
    iommu: 'smmuv3',
    ramBytes: 16 * 2 ** 20,
    profile: 'N13',
    devices: [{ at: AT, model }],
    ...description,
  })
  const held = () => ({
    ...machine.holdings(),
    frames: machine.kernel.processes.reduce(
      (n, p) => n - p.memory.mappedPages,
      machine.kernel.frames.used,
    ),
  })
  const before = held()
  const sys = machine.spawn({ memlock: 64 * 2 ** 20 })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf(AT))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  const call = (cmd: number, arg?: Parameters<typeof sys.ioctl>[2]) =>
    sys.ioctl(container, cmd, arg)
  const attach = () => call(VFIO_SET_IOMMU, type)
  checks.push(() => {
    for (const p of machine.kernel.processes) p.exit()
    machine.settle()
    expect(held()).toEqual(before)
    expect([machine.iommu.bindingCount, machine.iommu.pendingPageRequests()]).toEqual([0, 0])
  })
  return { machine, sys, container, group, call, attach }
}

afterEach(() => {
  for (const check of checks.splice(0)) check()
})

/** A guest with memory at 0, a CD table at 0x1_0000 and tables for PASID 5 at 0x2_0000. */
function guest(s: ReturnType<typeof setup>) {
  s.attach()
  const memory = s.sys.mmap(0x4_0000)
  const map = { flags: RW, vaddr: memory.vaddr, iova: 0n, size: 0x4_0000n }
  s.call(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map(map))
  const words = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, 0x4_0000)
  const put = (at: number, value: bigint) => words.setBigUint64(at, value, true)
  const cd = CD.create({
    V: true,
    AA64: true,
    T0SZ: 16,
    EPD1: true,
    IPS: 5,
    TTB0: 0x2_0000,
    ASID: 9,
    ASET: true,
    R: true,
    A: true,
  })
  memory.bytes.set(cd.bytes, 0x1_0000 + 5 * 64)
  put(0x2_0000, 0x2_1003n)
  put(0x2_1000, 0x2_2003n)
  put(0x2_2000, 0x2_3003n)
  /** Maps the page at guest virtual `page * 4096` to guest physical `gpa`, for EL0. */
  const page = (n: number, gpa: number) =>
    put(0x2_3000 + n * 8, gpa === 0 ? 0n : BigInt(gpa) | 0xc43n)
  const config = (changes: Parameters<typeof iommu_pasid_table_config>[0] = {}) =>
    iommu_pasid_table_config({
      version: 1,
      format: 1,
      config: 1,
      base_ptr: 0x1_0000n,
      pasid_bits: 6,
      smmuv3: { version: 1 },
      ...changes,
    })
  const set = (changes: Parameters<typeof config>[0] = {}) =>
    s.call(
      VFIO_IOMMU_SET_PASID_TABLE,
      vfio_iommu_type1_set_pasid_table({ flags: 1, config: config(changes) }),
    )
  const unset = () =>
    s.call(VFIO_IOMMU_SET_PASID_TABLE, vfio_iommu_type1_set_pasid_table({ flags: 2 }))
  return { memory, words, page, set, unset, config }
}

/** An sva-engine opened by the user, its queue 0 a ring at guest virtual 0x4000 under PASID 5. */
function engine(s: ReturnType<typeof setup>) {
  const fd = s.sys.ioctl(s.group, VFIO_GROUP_GET_DEVICE_FD, AT)
  s.sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
  const registers = s.sys.mmap({ fd, offset: 0, length: 0x1000 })
  const store = (name: Parameters<typeof queueOffset>[1], value: number) =>
    registers.store(queueOffset(0, name), name === 'BASE' ? 8 : 4, BigInt(value >>> 0))
  store('PASID', 5)
  store('BASE', 0x4000)
  store('SIZE', 4)
  store('CONFIG', (1 << 31) | (1 << 6) | (1 << 4) | MODE.RING)
  return { fd, store }
}

describe('E11 an SMMUv3 host', () => {
  it('V7R refuses a nesting container at attach, ENOENT, and leaves nothing', () => {
    const s = setup(dmaCopy, VFIO_TYPE1_NESTING_IOMMU, { profile: 'V7R' })
    expect(s.call(VFIO_CHECK_EXTENSION, VFIO_TYPE1_NESTING_IOMMU)).toBe(1)
    refused('ENOENT', s.attach)
    expect(s.call(VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe(0)
  })

  it('V7 attaches, and GET_INFO fails as a whole', () => {
    const s = setup(dmaCopy, VFIO_TYPE1_NESTING_IOMMU, { profile: 'V7' })
    expect(s.attach()).toBe(0)
    refused('ENOENT', () => s.call(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info()))
  })

  it('N13 attaches, and GET_INFO tells what 5.12 tells', () => {
    const s = setup()
    expect(s.attach()).toBe(0)
    const info = vfio_iommu_type1_info()
    s.call(VFIO_IOMMU_GET_INFO, info)
    expect(info.iova_pgsizes).toBe(0x4020_1000n)
  })

  it('a unit with one stage is used with it, silently, and takes no table', () => {
    const s = setup(dmaCopy, VFIO_TYPE1_NESTING_IOMMU, { smmu: { stage2: false } })
    const g = guest(s)
    refused('EINVAL', () => g.set())
    expect(g.unset()).toBe(0)
  })

  it.each(['L59', 'L512', 'L72', 'V7R'] as const)('type 1 v2 maps and unmaps under %s', profile => {
    const s = setup(dmaCopy, VFIO_TYPE1v2_IOMMU, { profile })
    s.attach()
    const memory = s.sys.mmap(0x1000)
    const map = { flags: RW, vaddr: memory.vaddr, iova: 0x5000n, size: 0x1000n }
    s.call(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map(map))
    expect(s.machine.holdings().pins).toBe(1)
  })

  it('N13 over VT-d knows the calls and has no such table', () => {
    const machine = createMachine({ profile: 'N13', devices: [{ at: AT, model: dmaCopy }] })
    const { sys } = machine
    const container = sys.open('/dev/vfio/vfio')
    const group = sys.open(machine.groupOf(AT))
    sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
    sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
    const call = (cmd: number, arg: Parameters<typeof sys.ioctl>[2]) =>
      sys.ioctl(container, cmd, arg)
    const table = vfio_iommu_type1_set_pasid_table({ flags: 1 })
    refused('ENODEV', () => call(VFIO_IOMMU_SET_PASID_TABLE, table))
    const binding = vfio_iommu_type1_set_msi_binding({ flags: 1, size: 0x1000n })
    refused('ENODEV', () => call(VFIO_IOMMU_SET_MSI_BINDING, binding))
  })
})

describe('SVA through a whole table', () => {
  it('moves data under the guest’s PASID, asks for a page that is missing, and goes on when it is there', () => {
    const s = setup(svaEngine)
    const g = guest(s)
    g.set()
    const e = engine(s)
    const eventfd = s.sys.eventfd()
    const data = new Uint8Array(Int32Array.of(eventfd).buffer)
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
    s.sys.ioctl(e.fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index: 5, count: 1, data }))

    // Source at 0x1000, destination at 0x2000 (missing), completion record at 0x3000.
    g.memory.bytes.set(new TextEncoder().encode('stage 1 over stage 2'), 0x3_1000)
    g.page(1, 0x3_1000)
    g.page(3, 0x3_3000)
    const descriptor = DESCRIPTOR.create({
      RECORD: true,
      BLOCK: true,
      OPCODE: OPCODE.COPY,
      COMPLETION: 0x3000n,
      SRC: 0x1000n,
      DST: 0x2000n,
      LENGTH: 20,
    })
    g.memory.bytes.set(descriptor.bytes, 0x3_4000)
    g.page(4, 0x3_4000)
    e.store('TAIL', 1)
    s.machine.settle()
    const record = () => RECORD.at(g.memory.bytes.slice(0x3_3000, 0x3_3020))
    expect(record().STATUS).toBe(0)

    const ring = vfio_region_dma_fault()
    s.sys.pread(e.fd, ring.bytes, 9n << 40n)
    expect([ring.head, ring.tail]).toEqual([1, 0])
    const fault = iommu_fault()
    s.sys.pread(e.fd, fault.bytes, (9n << 40n) + BigInt(ring.offset))
    expect(fault).toMatchObject({ type: 2, event: { prm: { pasid: 5, addr: 0x2000n } } })
    s.sys.read(eventfd, new Uint8Array(8))

    g.page(2, 0x3_2000)
    const { grpid } = fault.event.prm
    const code = IOMMU_PAGE_RESP_SUCCESS
    const response = iommu_page_response({ version: 1, flags: 1, pasid: 5, grpid, code })
    s.sys.pwrite(e.fd, response.bytes, (10n << 40n) + 4096n)
    s.sys.pwrite(e.fd, Uint8Array.of(1, 0, 0, 0), 10n << 40n)
    s.machine.settle()
    expect(record().STATUS).toBe(STATUS.SUCCESS)
    const text = new TextDecoder().decode(g.memory.bytes.slice(0x3_2000, 0x3_2014))
    expect(text).toBe('stage 1 over stage 2')
    expect(s.machine.unit.lastFault).toBeUndefined()
  })

  it('an error of an invalidation is told, unlike under V7', () => {
    const s = setup()
    const g = guest(s)
    g.set()
    const invalidate = (granularity: number, flags: number) => {
      const info = iommu_cache_invalidate_info({ version: 1, cache: 1, granularity })
      if (granularity === 1) info.granu.pasid_info.flags = flags
      return s.call(
        VFIO_IOMMU_CACHE_INVALIDATE,
        vfio_iommu_type1_cache_invalidate({ argsz: 64, info }),
      )
    }
    expect(invalidate(0, 0)).toBe(0)
    expect(invalidate(1, 2)).toBe(0)
    refused('EINVAL', () => invalidate(1, 0))
    refused('ENOENT', () => invalidate(1, 1))
  })
})

describe('the fault regions', () => {
  it('tell a refused request with PASID and address, and its interrupt comes', () => {
    const s = setup(dmaCopy)
    const g = guest(s)
    g.set()
    const fd = s.sys.ioctl(s.group, VFIO_GROUP_GET_DEVICE_FD, AT)
    s.sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
    const eventfd = s.sys.eventfd()
    const data = new Uint8Array(Int32Array.of(eventfd).buffer)
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
    s.sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index: 5, count: 1, data }))
    // ATS off: a translation that fails is then a fault rather than an answer.
    const { bdf } = s.machine.function(AT)
    const ats = s.machine.iommu.config.extended(bdf, 0x0f) + 6
    s.machine.iommu.config.write(bdf, ats, 2, 0)
    const { SRC, LEN, PASID, CTRL } = dmaCopy.bar0
    const registers = s.sys.mmap({ fd, offset: 0, length: 0x1000 })
    registers.store(SRC.offset, 8, 0x7008n)
    registers.store(LEN.offset, 4, 8n)
    registers.store(PASID.offset, 4, 0x8000_0005n)
    registers.store(CTRL.offset, 4, 1n)
    s.machine.settle()
    s.sys.read(eventfd, new Uint8Array(8))
    const fault = iommu_fault()
    s.sys.pread(fd, fault.bytes, (9n << 40n) + 4096n)
    expect(fault.type).toBe(1)
    expect(fault.event.event).toMatchObject({
      reason: 5,
      flags: 3,
      pasid: 5,
      perm: 1,
      addr: 0x7008n,
    })
  })

  it.each([
    ['type 1 v2', VFIO_TYPE1v2_IOMMU, 9],
    ['nesting', VFIO_TYPE1_NESTING_IOMMU, 11],
  ])('are there for nesting containers only: %s', (_, type, regions) => {
    const s = setup(dmaCopy, type)
    s.attach()
    const fd = s.sys.ioctl(s.group, VFIO_GROUP_GET_DEVICE_FD, AT)
    const info = vfio_device_info()
    s.sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info)
    expect([info.num_regions, info.num_irqs]).toEqual([regions, regions === 11 ? 6 : 5])
  })
})

describe('a group of two functions', () => {
  it('is behind one table, and an invalidation is for both', () => {
    const twin = '0000:01:00.1'
    const s = setup(dmaCopy, VFIO_TYPE1_NESTING_IOMMU, {
      acs: false,
      devices: [
        { at: AT, model: dmaCopy },
        { at: twin, model: dmaCopy },
      ],
    })
    const g = guest(s)
    g.set()
    expect(s.machine.iommu.bindingCount).toBe(2)
    const commands: string[] = []
    s.machine.trace.listen('smmu.command', e => commands.push(e.command))
    const info = iommu_cache_invalidate_info({ version: 1, cache: 4, granularity: 1 })
    Object.assign(info.granu.pasid_info, { flags: 1, pasid: 5n })
    s.call(VFIO_IOMMU_CACHE_INVALIDATE, vfio_iommu_type1_cache_invalidate({ argsz: 64, info }))
    expect(commands.filter(c => c === 'CFGI_CD')).toHaveLength(2)
    g.unset()
    expect(s.machine.iommu.bindingCount).toBe(0)
  })
})

describe('refusals', () => {
  const head = (argsz: number, flags: number) => Uint8Array.from([argsz, 0, 0, 0, flags, 0, 0, 0])
  /** Puts bytes at the very end of a page that nothing follows, and answers where. */
  const atEnd = (s: ReturnType<typeof setup>, bytes: Uint8Array) => {
    const page = s.sys.mmap(0x1000)
    page.bytes.set(bytes, 0x1000 - bytes.length)
    return page.vaddr + BigInt(0x1000 - bytes.length)
  }

  it.each([
    ['SET_PASID_TABLE', VFIO_IOMMU_SET_PASID_TABLE, 8],
    ['CACHE_INVALIDATE', VFIO_IOMMU_CACHE_INVALIDATE, 8],
    ['SET_MSI_BINDING', VFIO_IOMMU_SET_MSI_BINDING, 32],
  ])('%s: EFAULT, then a short argsz, then flags', (_, cmd, minimum) => {
    const s = setup()
    s.attach()
    refused('EFAULT', () => s.call(cmd, 0x10n))
    refused('EFAULT', () => s.call(cmd, atEnd(s, head(minimum - 1, 0xff).subarray(0, 7))))
    const whole = (argsz: number, flags: number) => {
      const bytes = new Uint8Array(96)
      bytes.set(head(argsz, flags))
      return atEnd(s, bytes)
    }
    refused('EINVAL', () => s.call(cmd, whole(minimum - 1, 1)))
    refused('EINVAL', () => s.call(cmd, whole(96, 4)))
    refused('EINVAL', () => s.call(cmd, whole(96, 3)))
  })

  it('SET_PASID_TABLE without SET or UNSET is EINVAL; a configuration that cannot be read EFAULT', () => {
    const s = setup()
    s.attach()
    refused('EINVAL', () => s.call(VFIO_IOMMU_SET_PASID_TABLE, atEnd(s, head(40, 0))))
    refused('EFAULT', () => s.call(VFIO_IOMMU_SET_PASID_TABLE, atEnd(s, head(40, 1))))
    expect(s.call(VFIO_IOMMU_SET_PASID_TABLE, atEnd(s, head(8, 2)))).toBe(0)
  })

  it.each([
    ['a short argsz', { argsz: 23 }],
    ['another version', { version: 2 }],
    ['another format', { format: 2 }],
    ['no SMMUv3 part', { argsz: 31 }],
    ['another version of that', { smmuv3: { version: 2 } }],
    ['padding', { padding: [0, 1] }],
    ['config 0', { config: 0 }],
    ['too many PASID bits', { pasid_bits: 21 }],
  ])('a configuration is refused, EINVAL: %s', (_, changes) => {
    const g = guest(setup())
    refused('EINVAL', () => g.set(changes))
    expect(g.set()).toBe(0)
    refused('EINVAL', () => g.set())
    expect(g.unset()).toBe(0)
    expect(g.set()).toBe(0)
  })

  it('a larger argsz is accepted', () => {
    const g = guest(setup())
    expect(g.set({ argsz: 4096 })).toBe(0)
  })

  it('the calls need a driver (EINVAL), and other profiles give their numbers to others', () => {
    const s = setup()
    for (const n of [VFIO_IOMMU_SET_PASID_TABLE, VFIO_IOMMU_SET_MSI_BINDING])
      refused('EINVAL', () => s.call(n, 0))
    const stock = setup(dmaCopy, VFIO_TYPE1v2_IOMMU, { profile: 'L512' })
    stock.attach()
    for (const n of [VFIO_IOMMU_SET_PASID_TABLE, VFIO_IOMMU_SET_MSI_BINDING])
      refused('ENOTTY', () => stock.call(n, 0))
  })

  it.each([
    ['a size that is no power of two', { size: 0x3000n }],
    ['a size below a page', { size: 0x800n }],
    ['a guest address beyond the domain', { size: 0x1000n, gpa: 1n << 48n }],
  ])('an MSI binding is refused, EINVAL: %s; unbinding never is', (_, of) => {
    const s = setup()
    s.attach()
    const call = (flags: number) =>
      s.call(VFIO_IOMMU_SET_MSI_BINDING, vfio_iommu_type1_set_msi_binding({ flags, ...of }))
    refused('EINVAL', () => call(1))
    expect(call(2)).toBe(0)
  })
})

describe('interrupts of the device', () => {
  it.each([
    ['of a plain domain', false],
    ['bound to a guest’s doorbell', true],
  ])('arrive: %s', (_, bound) => {
    const s = setup(svaEngine)
    const g = guest(s)
    g.set()
    if (bound) {
      const binding = { flags: 1, iova: 0x6000n, gpa: 0x800_0000n, size: 0x1000n }
      s.call(VFIO_IOMMU_SET_MSI_BINDING, vfio_iommu_type1_set_msi_binding(binding))
    } else g.unset()
    const e = engine(s)
    const eventfd = s.sys.eventfd()
    const data = new Uint8Array(Int32Array.of(eventfd).buffer)
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
    s.sys.ioctl(e.fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index: 2, count: 1, data }))
    if (bound) {
      // Messages carry no PASID: substream 0 of the guest's table translates them.
      g.unset()
      const cd = CD.at(g.memory.bytes.slice(0x1_0000 + 5 * 64, 0x1_0000 + 6 * 64))
      g.memory.bytes.set(cd.bytes, 0x1_0000)
      g.set({ smmuv3: { version: 1, s1dss: 2 } })
      g.page(6, 0x800_0000)
    }
    // A drain of an idle queue ends at once and raises vector 0.
    e.store('COMMAND', 1)
    s.machine.settle()
    expect(s.machine.unit.lastFault).toBeUndefined()
    const count = new Uint8Array(8)
    s.sys.read(eventfd, count)
    expect(count[0]).toBe(1)
    expect(s.machine.unit.lastFault).toBeUndefined()
  })
})
