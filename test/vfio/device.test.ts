import { afterEach, describe, expect, it } from 'vitest'
import { acs, defineDevice, pasidCapability } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_BUS_MASTER,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_GET_GFX_DMABUF,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_QUERY_GFX_PLANE,
  VFIO_DEVICE_RESET,
  VFIO_IOMMU_NESTING_OP,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_feature,
  vfio_device_info,
  vfio_info_cap_header,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
  vfio_region_info,
} from '../../src/uapi.js'
import { bench, checkBenches, plainDevice, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const separate = plainDevice([acs()])
const COMMAND = 4
const MEMORY = 2
const MASTER = 4

/** A bench with the first function open, in a container of that type. */
function setup(options: Parameters<typeof bench>[0] = {}, type = VFIO_TYPE1v2_IOMMU) {
  const b = bench(options)
  const p = b.program()
  const c = p.container(type, b.functions[0]!.group)
  const fd = c.device()
  const { sys } = p
  const region = (index: number, tail = 64) => {
    const info = vfio_region_info({ index }, tail)
    sys.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, info)
    return info
  }
  const config = {
    read: (at: number, size: number) => le(sys.pread(fd, size, region(7).offset + BigInt(at))),
    write: (at: number, size: number, value: number) =>
      sys.pwrite(fd, bytes(value, size), region(7).offset + BigInt(at)),
  }
  return { b, p, c, sys, fd, region, config, fn: b.functions[0]!.fn }
}

const bytes = (value: number, size: number) =>
  Uint8Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) & 0xff)
const le = (from: Uint8Array) => from.reduceRight((v, byte) => v * 256 + byte, 0)

describe('VFIO_DEVICE_GET_INFO', () => {
  it.each([
    ['V7R', VFIO_TYPE1v2_IOMMU, 9, 5],
    ['V7R', VFIO_TYPE1_NESTING_IOMMU, 11, 6],
    ['V7', VFIO_TYPE1_NESTING_IOMMU, 9, 5],
  ] as const)(
    '%s in a container of type %d: %d regions, %d irqs',
    (profile, type, regions, irqs) => {
      const { sys, fd } = setup({ profile }, type)
      const info = vfio_device_info({ cap_offset: 7 })
      sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info)
      expect(info).toMatchObject({ flags: 3, num_regions: regions, num_irqs: irqs, cap_offset: 7 })
    },
  )
  it('writes cap_offset from 5.10 on, to callers that have it', () => {
    const { sys, fd } = setup({ profile: 'L512' })
    const info = vfio_device_info({ cap_offset: 7 })
    sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info)
    expect(info.cap_offset).toBe(0)
  })
  it('tells no reset where the function has none, and then refuses it', () => {
    const stuck = defineDevice({
      name: 'no-flr',
      identity: { vendorId: 1, deviceId: 2, classCode: 0x088000 },
      express: { flr: false },
      bar0: dmaCopy.bar0,
      create: () => ({}),
    })
    const { sys, fd } = setup({ devices: [[stuck]] })
    const info = vfio_device_info()
    sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info)
    expect(info.flags).toBe(2)
    refused('EINVAL', () => sys.ioctl(fd, VFIO_DEVICE_RESET))
  })
  it('refuses a short argsz and an unreadable argument', () => {
    const { sys, fd } = setup()
    refused('EINVAL', () => sys.ioctl(fd, VFIO_DEVICE_GET_INFO, vfio_device_info({ argsz: 15 })))
    refused('EFAULT', () => sys.ioctl(fd, VFIO_DEVICE_GET_INFO, 0x1000))
  })
})

describe('VFIO_DEVICE_GET_REGION_INFO', () => {
  it('describes BARs, ROM and configuration space', () => {
    const { region } = setup()
    const told = [0, 1, 2, 3, 4, 5, 6, 7].map(i => {
      const { flags, size, offset } = region(i)
      return [flags, size, offset === BigInt(i) << 40n]
    })
    expect(told).toEqual([
      [7, 0x1000n, true],
      [0, 0n, true],
      [15, 0x1000n, true],
      [0, 0n, true],
      [0, 0n, true],
      [0, 0n, true],
      [0, 0n, true],
      [3, 0x1000n, true],
    ])
  })
  it('marks the BAR of the MSI-X table as mappable, in two calls', () => {
    const { region } = setup()
    expect(region(2, 0)).toMatchObject({ argsz: 40, cap_offset: 0 })
    const info = region(2, 8)
    expect(info.cap_offset).toBe(32)
    const cap = vfio_info_cap_header.at(info.bytes, 32)
    expect(cap).toMatchObject({ id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1, next: 0 })
  })
  it.each([8, 9, 0xffff_ffff])('refuses index %d', index => {
    refused('EINVAL', () => setup().region(index))
  })
  it('refuses a short argsz and an unreadable argument', () => {
    const { sys, fd } = setup()
    refused('EINVAL', () =>
      sys.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, vfio_region_info({ argsz: 31 })),
    )
    refused('EFAULT', () => sys.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, 0x1000))
  })
})

describe('BAR access', () => {
  it('reaches the device by pread, pwrite and mmap', () => {
    const { sys, fd, region } = setup()
    const at = region(0).offset
    sys.pwrite(fd, bytes(0x1122_3344, 4), at + 8n)
    expect(le(sys.pread(fd, 4, at + 8n))).toBe(0x1122_3344)
    const window = sys.mmap({ fd, offset: at, length: 0x1000 })
    expect(window.load(8, 4)).toBe(0x1122_3344n)
    window.store(8, 8, 0x55n)
    expect(le(sys.pread(fd, 8, at + 8n))).toBe(0x55)
  })
  it('ends at the end of the BAR', () => {
    const { sys, fd, region } = setup()
    const at = region(0).offset
    expect(sys.pread(fd, 16, at + 0xff8n).length).toBe(8)
    refused('EINVAL', () => sys.pread(fd, 4, at + 0x1000n))
    refused('EINVAL', () => sys.mmap({ fd, offset: at, length: 0x2000 }))
    refused('EINVAL', () => sys.mmap({ fd, offset: at + 0x1000n, length: 0x1000 }))
  })
  it.each([1, 6, 8, 9, 4095])('refuses region %d', index => {
    const { sys, fd } = setup()
    const at = BigInt(index) << 40n
    refused('EINVAL', () => sys.pread(fd, 4, at))
    refused('EINVAL', () => sys.pwrite(fd, bytes(0, 4), at))
    refused('EINVAL', () => sys.mmap({ fd, offset: at, length: 0x1000 }))
  })
  it('does not map configuration space', () => {
    const { sys, fd } = setup()
    refused('EINVAL', () => sys.mmap({ fd, offset: 7n << 40n, length: 0x1000 }))
  })
  it('is refused while memory decoding is off', () => {
    const { sys, fd, region, config } = setup()
    config.write(COMMAND, 2, 0)
    refused('EIO', () => sys.pread(fd, 4, region(0).offset))
    refused('EIO', () => sys.pwrite(fd, bytes(0, 4), region(0).offset))
    config.write(COMMAND, 2, MEMORY)
    sys.pread(fd, 4, region(0).offset)
  })
  it('keeps the MSI-X table to itself', () => {
    const { sys, fd, region, fn, b } = setup()
    const at = region(2).offset
    const table = fn.bars[2]!.address()
    const before = b.memory.load(table, 8)
    sys.pwrite(fd, new Uint8Array(16).fill(0x5a), at)
    expect(b.memory.load(table, 8)).toBe(before)
    expect([...sys.pread(fd, 20, at + 8n).subarray(0, 8)]).toEqual(new Array(8).fill(0xff))
    expect([...sys.pread(fd, 20, at + 8n).subarray(8)]).toEqual(new Array(12).fill(0))
  })
})

describe('configuration space', () => {
  it('opens with memory on and mastering off; both reach the device', () => {
    const { config, fn } = setup()
    expect(config.read(COMMAND, 2) & (MEMORY | MASTER)).toBe(MEMORY)
    config.write(COMMAND, 2, MEMORY | MASTER)
    expect([config.read(COMMAND, 2), fn.masterEnabled]).toEqual([MEMORY | MASTER, true])
    config.write(COMMAND, 2, 0x400)
    expect([config.read(COMMAND, 2), fn.memoryEnabled]).toEqual([0x400, false])
  })
  it('gives the user BARs to size and move, and leaves the device where it is', () => {
    const { config, fn } = setup()
    const real = fn.bars[0]!.address()
    const first = config.read(0x10, 4)
    config.write(0x10, 4, 0xffff_ffff)
    expect(config.read(0x10, 4)).toBe(0xffff_f000 + (first & 0xf))
    config.write(0x10, 4, 0xd000_0000)
    expect(config.read(0x10, 4)).toBe(0xd000_0000 + (first & 0xf))
    config.write(0x14, 4, 0xffff_ffff)
    config.write(0x30, 4, 0xffff_ffff)
    expect([config.read(0x14, 4), config.read(0x30, 4)]).toEqual([0, 0])
    expect(fn.bars[0]!.address()).toBe(real)
  })
  it('keeps identity, and the MSI-X control, read-only', () => {
    const { config, fn } = setup()
    config.write(0, 4, 0)
    expect(config.read(0, 4)).toBe(0x0d0c_1234)
    const msix = fn.capabilityOffset(0x11, false)!
    config.write(msix + 2, 2, 0xc000)
    expect(config.read(msix + 2, 2) & 0xc000).toBe(0)
  })
  it.each([
    ['V7R', true],
    ['V7', true],
    ['L59', false],
    ['L72', false],
  ] as const)('E136 %s shows the PASID capability: %s', (profile, shown) => {
    const { config } = setup({ profile })
    expect(chain(config).includes(0x1b)).toBe(shown)
  })
  it.each([
    ['V7R', [0x1b]],
    ['L59', [0]],
  ] as const)('E137 as the first of the chain, in %s it reads as %j', (profile, ids) => {
    const { config } = setup({ profile, devices: [[plainDevice([pasidCapability()])]] })
    expect(chain(config)).toEqual(ids)
  })
  it('E138 shows PASID, ATS and PRI as the hardware has them, and takes no write', () => {
    const { config, fn } = setup({}, VFIO_TYPE1_NESTING_IOMMU)
    for (const id of [0x1b, 0x0f]) {
      const at = fn.capabilityOffset(id, true)!
      const before = config.read(at + 6, 2)
      expect(before).toBe(fn.config.read(at + 6, 2))
      expect(config.write(at + 6, 2, ~before & 0xffff)).toBe(2)
      expect([config.read(at + 6, 2), fn.config.read(at + 6, 2)]).toEqual([before, before])
    }
  })
  it('lets Initiate FLR reset the function, which then answers as before', () => {
    const { config, fn, sys, fd, region } = setup()
    const address = fn.bars[0]!.address()
    config.write(COMMAND, 2, MEMORY | MASTER)
    sys.pwrite(fd, bytes(7, 4), region(0).offset)
    const control = fn.capabilityOffset(0x10, false)! + 8
    config.write(control, 2, config.read(control, 2) | 0x8000)
    expect(config.read(control, 2) & 0x8000).toBe(0)
    expect(le(sys.pread(fd, 4, region(0).offset))).toBe(0)
    expect([fn.bars[0]!.address(), config.read(COMMAND, 2)]).toEqual([address, MEMORY | MASTER])
  })
  it('refuses to leave the region', () => {
    const { sys, fd } = setup()
    refused('EFAULT', () => sys.pread(fd, 4, (7n << 40n) + 0xffen))
    refused('EFAULT', () => sys.pwrite(fd, bytes(0, 4), (7n << 40n) + 0x1000n))
  })
  it('reads the same in every width', () => {
    const { sys, fd } = setup()
    const whole = sys.pread(fd, 4096, 7n << 40n)
    for (const at of [0, 1, 3, 0x3d, 0x41, 0xfe, 0x101])
      for (const size of [1, 2, 3, 5, 8])
        expect([...sys.pread(fd, size, (7n << 40n) + BigInt(at))]).toEqual([
          ...whole.subarray(at, at + size),
        ])
  })
})

describe('VFIO_DEVICE_RESET', () => {
  it('E100 empties the registers, and leaves BARs, interrupts and bindings', () => {
    const { b, c, sys, fd, region, fn } = setup({}, VFIO_TYPE1_NESTING_IOMMU)
    c.bind({ hpasid: BigInt(c.alloc()) })
    const pasid = fn.capabilityOffset(0x1b, true)!
    const enabled = fn.config.read(pasid + 6, 2)
    sys.pwrite(fd, bytes(7, 4), region(0).offset)
    expect(sys.ioctl(fd, VFIO_DEVICE_RESET)).toBe(0)
    expect(le(sys.pread(fd, 4, region(0).offset))).toBe(0)
    expect(b.held().bindings).toBe(1)
    expect([enabled & 1, fn.config.read(pasid + 6, 2)]).toEqual([1, enabled])
  })
})

describe('hot reset', () => {
  const multi = { acs: false, devices: [[dmaCopy, dmaCopy]] }
  it('names every function of the bus, or says how many there are', () => {
    const { sys, fd, b } = setup(multi)
    const small = vfio_pci_hot_reset_info({}, 8)
    refused('ENOSPC', () => sys.ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, small))
    expect(small.count).toBe(2)
    const info = vfio_pci_hot_reset_info({ flags: 9 }, 16)
    sys.ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info)
    expect(info).toMatchObject({ flags: 0, count: 2 })
    expect([...info.devices].map(d => [d.group_id, d.segment, d.bus, d.devfn])).toEqual([
      [b.functions[0]!.group, 0, 1, 0],
      [b.functions[0]!.group, 0, 1, 1],
    ])
    refused('EINVAL', () =>
      sys.ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, vfio_pci_hot_reset_info({ argsz: 11 })),
    )
  })
  it('resets all of them for the owner of their group', () => {
    const { sys, fd, c, region } = setup(multi)
    const second = c.device(1)
    for (const f of [fd, second]) sys.pwrite(f, bytes(7, 4), region(0).offset)
    sys.ioctl(
      fd,
      VFIO_DEVICE_PCI_HOT_RESET,
      vfio_pci_hot_reset({ count: 1, group_fds: [c.groups[0]!] }),
    )
    for (const f of [fd, second]) expect(le(sys.pread(f, 4, region(0).offset))).toBe(0)
  })
  it('refuses everything else', () => {
    const { sys, fd, c } = setup()
    const call = (init: Parameters<typeof vfio_pci_hot_reset>[0]) =>
      sys.ioctl(fd, VFIO_DEVICE_PCI_HOT_RESET, vfio_pci_hot_reset(init))
    const group_fds = [c.groups[0]!]
    refused('EINVAL', () => call({ argsz: 11 }))
    refused('EINVAL', () => call({ flags: 1, count: 1, group_fds }))
    refused('EINVAL', () => call({ count: 0 }))
    refused('EINVAL', () => call({ count: 2, group_fds: [...group_fds, ...group_fds] }))
    refused('EBADF', () => call({ count: 1, group_fds: [99] }))
    refused('EINVAL', () => call({ count: 1, group_fds: [fd] }))
    call({ count: 1, group_fds })
  })
  it('refuses when a function of the bus is in a group not shown', () => {
    const { sys, fd, c, b } = setup({ devices: [[separate, separate]] })
    expect(b.functions[0]!.group).not.toBe(b.functions[1]!.group)
    refused('EINVAL', () =>
      sys.ioctl(
        fd,
        VFIO_DEVICE_PCI_HOT_RESET,
        vfio_pci_hot_reset({ count: 1, group_fds: [c.groups[0]!] }),
      ),
    )
  })
})

describe('VFIO_DEVICE_FEATURE', () => {
  const GET = VFIO_DEVICE_FEATURE_GET
  const SET = VFIO_DEVICE_FEATURE_SET
  const PROBE = VFIO_DEVICE_FEATURE_PROBE
  const MASTERING = VFIO_DEVICE_FEATURE_BUS_MASTER
  // biome-ignore format: table
  it.each([
    ['V7R', SET | PROBE,             4, 'ENOTTY'],   // VF token: no SR-IOV here
    ['V7R', SET | MASTERING,         4, 'ENOTTY'],
    ['V7R', GET | SET,               4, 'EINVAL'],
    ['V7R', 1 << 19,                 4, 'EINVAL'],
    ['L72', 77 | GET,                4, 'ENOTTY'],
    ['L72', MASTERING,               4, 'EINVAL'],
    ['L72', MASTERING | GET,         4, 'EINVAL'],
    ['L72', MASTERING | GET | PROBE, 4, 'EINVAL'],
    ['L72', MASTERING | SET,         0, 'EINVAL'],
  ] as const)('%s flags %d with %d bytes: %s', (profile, flags, tail, errno) => {
    const { sys, fd } = setup({ profile })
    const arg = vfio_device_feature({ flags, data: new Uint8Array(tail) })
    refused(errno, () => sys.ioctl(fd, VFIO_DEVICE_FEATURE, arg))
  })
  it('L72 sets and clears bus mastering, and a probe does nothing', () => {
    const { sys, fd, fn } = setup({ profile: 'L72' })
    const call = (flags: number, op: number) =>
      sys.ioctl(
        fd,
        VFIO_DEVICE_FEATURE,
        vfio_device_feature({ flags: flags | MASTERING, data: bytes(op, 4) }),
      )
    call(SET | PROBE, 1)
    expect(fn.masterEnabled).toBe(false)
    call(SET, 1)
    expect(fn.masterEnabled).toBe(true)
    call(SET, 0)
    expect(fn.masterEnabled).toBe(false)
    refused('EINVAL', () => call(SET, 2))
  })
})

describe('a device file', () => {
  it('E164 knows neither container calls nor those of hardware it is not', () => {
    const { sys, fd } = setup()
    for (const cmd of [
      VFIO_IOMMU_NESTING_OP,
      0x3b76,
      VFIO_DEVICE_QUERY_GFX_PLANE,
      VFIO_DEVICE_GET_GFX_DMABUF,
      0x1234,
    ])
      refused('ENOTTY', () => sys.ioctl(fd, cmd))
  })
  it('shares the device with other files of it, and ends with the last', () => {
    const { b, c, sys, fd, fn, config } = setup()
    const second = c.device()
    config.write(COMMAND, 2, MEMORY | MASTER)
    sys.close(fd)
    expect([b.held().devices, fn.masterEnabled]).toEqual([1, true])
    sys.close(second)
    expect([b.held().devices, fn.masterEnabled]).toEqual([0, false])
  })
})

/** Ids of the extended chain as the user sees it. */
function chain(config: { read(at: number, size: number): number }): number[] {
  const ids: number[] = []
  for (let at = 0x100; at; ) {
    const header = config.read(at, 4)
    ids.push(header & 0xffff)
    at = header >>> 20
  }
  return ids
}
