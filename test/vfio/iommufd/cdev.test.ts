// Device files: nothing before they are bound, who may bind, and the same device as a group gives out after.
import { afterEach, describe, expect, it } from 'vitest'
import { acs, msix } from '../../../src/pci/device-model.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import { s32 } from '../../../src/sys/sys.js'
import {
  IOMMU_DESTROY,
  iommu_destroy,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_info,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../../src/uapi.js'
import { plainDevice, refused } from '../../support/vfio-bench.js'
import { checkIommufd, iommufdBench, user, userBytes } from './bench.js'

afterEach(checkIommufd)

function setup(options: Parameters<typeof iommufdBench>[0] = {}) {
  const b = iommufdBench(options)
  const u = user(b)
  const path = (i = 0) => b.vfio.deviceFile(b.functions[i]!.fn.bdf)!
  const bind = (fd: number, init: Parameters<typeof vfio_device_bind_iommufd>[0] = {}) => {
    const arg = vfio_device_bind_iommufd({ iommufd: u.fd, ...init })
    u.sys.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, arg)
    return arg.out_devid
  }
  return { b, u, sys: u.sys, path, bind }
}

describe('opening', () => {
  it('there is a file for every function, by number', () => {
    const { sys, path } = setup()
    expect([path(0), path(1)]).toEqual(['/dev/vfio/devices/vfio0', '/dev/vfio/devices/vfio1'])
    sys.open(path(0))
    sys.open(path(0))
  })

  it.each([
    '/dev/vfio/devices/vfio2',
    '/dev/vfio/devices/vfio00',
    '/dev/vfio/devices/vfio',
    '/dev/vfio/devices/',
    '/dev/vfio/devices/0',
  ])('ENOENT: %s', path => {
    const { sys } = setup()
    refused('ENOENT', () => sys.open(path))
  })

  it('ENOENT for a function of another driver', () => {
    const { b, sys, path } = setup()
    b.vfio.bindDriver(b.functions[0]!.fn.bdf, undefined)
    refused('ENOENT', () => sys.open(path()))
  })

  it.each(['V7R', 'V7', 'L59', 'L512'] as const)(
    'neither device files nor /dev/iommu in %s',
    profile => {
      const b = iommufdBench({ profile })
      refused('ENOENT', () => b.sys.open('/dev/iommu'))
      refused('ENOENT', () => b.sys.open('/dev/vfio/devices/vfio0'))
    },
  )
})

describe('before it is bound', () => {
  it('every call is EINVAL', () => {
    const { sys, path } = setup()
    const fd = sys.open(path())
    const info = vfio_device_info()
    refused('EINVAL', () => sys.ioctl(fd, VFIO_DEVICE_GET_INFO, info))
    const attach = vfio_device_attach_iommufd_pt()
    refused('EINVAL', () => sys.ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach))
    refused('EINVAL', () => sys.ioctl(fd, 0x3bff))
    refused('EINVAL', () => sys.pread(fd, 4, 7n << 40n))
    refused('EINVAL', () => sys.pwrite(fd, new Uint8Array(4), 7n << 40n))
    refused('EINVAL', () => sys.mmap({ fd, offset: 0, length: 0x1000 }))
  })
})

describe('binding', () => {
  it('gives an id that is busy until the file is closed, and the device with it', () => {
    const { b, u, sys, path, bind } = setup()
    const fd = sys.open(path())
    const id = bind(fd)
    expect(id).toBeGreaterThan(0)
    refused('EBUSY', () => u.call(IOMMU_DESTROY, iommu_destroy({ id })))
    sys.ioctl(fd, VFIO_DEVICE_GET_INFO, vfio_device_info())
    expect(b.vfio.holdings().devices).toBe(1)
    sys.close(fd)
    refused('ENOENT', () => u.call(IOMMU_DESTROY, iommu_destroy({ id })))
  })

  // biome-ignore format: table
  it.each([
    ['EINVAL', 'argsz 15',                      { argsz: 15 }],
    ['EINVAL', 'an unknown flag',               { flags: 2 }],
    ['EINVAL', 'a negative descriptor',         { iommufd: -1 }],
    ['EBADF',  'a closed descriptor',           { iommufd: 99 }],
    ['EFAULT', 'a token that is not there',     { flags: VFIO_DEVICE_BIND_FLAG_TOKEN, token_uuid_ptr: 0x1000n }],
  ] as const)('%s: %s', (code, _, init) => {
    const { sys, path, bind } = setup()
    const fd = sys.open(path())
    refused(code, () => bind(fd, init))
    bind(fd)
  })

  it('EINVAL for a token the device does not ask for', () => {
    const { sys, path, bind } = setup()
    const token_uuid_ptr = userBytes(sys, new Uint8Array(16))
    const fd = sys.open(path())
    refused('EINVAL', () => bind(fd, { flags: VFIO_DEVICE_BIND_FLAG_TOKEN, token_uuid_ptr }))
  })

  it('takes 16 bytes and more than are known when they are zero, E2BIG otherwise', () => {
    const { sys, path, bind } = setup()
    bind(sys.open(path(0)), { argsz: 16 })
    const bytes = new Uint8Array(40)
    bytes.set(vfio_device_bind_iommufd({ argsz: 40, iommufd: 0 }).bytes)
    new DataView(bytes.buffer).setInt32(8, sys.open('/dev/iommu'), true)
    const fd = sys.open(path(1))
    bytes[39] = 1
    refused('E2BIG', () => sys.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, bytes))
    bytes[39] = 0
    sys.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, bytes)
  })

  it('EBADFD for a file that is no iommufd', () => {
    const { sys, path, bind } = setup()
    const fd = sys.open(path())
    refused('EBADFD', () => bind(fd, { iommufd: sys.eventfd() }))
    refused('EBADFD', () => bind(fd, { iommufd: sys.open('/dev/vfio/vfio') }))
  })

  it('EINVAL the second time, by the same file and by another', () => {
    const { sys, path, bind } = setup()
    const [one, other] = [sys.open(path()), sys.open(path())]
    bind(one)
    refused('EINVAL', () => bind(one))
    refused('EINVAL', () => bind(other))
    sys.close(one)
    bind(other)
  })

  it('EBUSY while the group is open, and the group is EBUSY while its device is bound', () => {
    const { b, sys, path, bind } = setup()
    const name = `/dev/vfio/${b.functions[0]!.group}`
    const group = sys.open(name)
    const fd = sys.open(path())
    refused('EBUSY', () => bind(fd))
    sys.close(group)
    bind(fd)
    refused('EBUSY', () => sys.open(name))
    sys.close(fd)
    sys.open(name)
  })

  it('EPERM while a driver that does DMA has a device of the group', () => {
    const { b, sys, path, bind } = setup({ devices: [[dmaCopy, dmaCopy]], acs: false })
    b.vfio.bindDriver(b.functions[1]!.fn.bdf, 'nvme')
    const fd = sys.open(path(0))
    refused('EPERM', () => bind(fd))
    b.vfio.bindDriver(b.functions[1]!.fn.bdf, 'pci-stub')
    bind(fd)
  })

  it('EPERM without interrupt remapping, unless that is allowed', () => {
    const vtd = { interruptRemapping: false }
    const { sys, path, bind } = setup({ vtd })
    refused('EPERM', () => bind(sys.open(path())))
    const risky = setup({ vtd, parameters: { allowUnsafeInterrupts: true } })
    risky.bind(risky.sys.open(risky.path()))
  })

  it('EINVAL under an IOMMU that does not keep DMA coherent', () => {
    const { sys, path, bind } = setup({ vtd: { snoopControl: false } })
    refused('EINVAL', () => bind(sys.open(path())))
  })

  it('EINVAL by a descriptor that a group gave out', () => {
    const { b, sys } = setup()
    const { name, group } = b.functions[0]!
    const container = sys.open('/dev/vfio/vfio')
    const fd = sys.open(`/dev/vfio/${group}`)
    sys.ioctl(fd, VFIO_GROUP_SET_CONTAINER, s32(container))
    sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
    const device = sys.ioctl(fd, VFIO_GROUP_GET_DEVICE_FD, name)
    const arg = vfio_device_bind_iommufd({ iommufd: sys.open('/dev/iommu') })
    refused('EINVAL', () => sys.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, arg))
  })
})

describe('a bound device', () => {
  it('keeps its table through a reset', () => {
    const { u } = setup()
    const d = u.device()
    const ioas = u.ioas()
    const memory = u.sys.mmap(0x2000)
    u.map(ioas, memory.vaddr, 0x2000n, 0x1000n)
    d.attach(ioas)
    u.sys.ioctl(d.fd, VFIO_DEVICE_RESET)
    expect(d.dma(0x1000n, 0x2000n)).toBe(true)
  })

  // Two functions of one bus in groups of their own, as they keep requests from each other.
  const alone = plainDevice([msix({ vectors: 1, bar: 2 }), acs()])
  const two = { devices: [[alone, alone]] }
  const hotResetInfo = (sys: ReturnType<typeof setup>['sys'], fd: number, devices: number) => {
    const { size } = vfio_pci_dependent_device
    const bytes = new Uint8Array(12 + devices * size)
    const info = vfio_pci_hot_reset_info.at(bytes)
    info.argsz = bytes.length
    try {
      sys.ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytes)
    } finally {
      counted = info.count
    }
    const ids = Array.from(
      { length: devices },
      (_, i) => vfio_pci_dependent_device.at(bytes, 12 + i * size).group_id,
    )
    return { flags: info.flags, ids }
  }
  let counted = 0

  it('hot reset tells ids, and asks for every device to be the caller’s', () => {
    const { u, sys } = setup(two)
    const d = u.device(0)
    const reset = (init: Parameters<typeof vfio_pci_hot_reset>[0] = {}) =>
      sys.ioctl(d.fd, VFIO_DEVICE_PCI_HOT_RESET, vfio_pci_hot_reset(init))
    expect(hotResetInfo(sys, d.fd, 2)).toEqual({
      flags: VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
      ids: [d.id, 0xffff_ffff],
    })
    refused('EINVAL', () => reset())
    const other = u.device(1)
    expect(hotResetInfo(sys, d.fd, 2)).toEqual({
      flags: VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
      ids: [d.id, other.id],
    })
    expect(reset()).toBe(0)
    refused('EINVAL', () => reset({ count: 1 }))
    refused('EINVAL', () => reset({ flags: 1 }))
    refused('EINVAL', () => reset({ argsz: 8 }))
    refused('ENOSPC', () => hotResetInfo(sys, d.fd, 1))
    expect(counted).toBe(2)
  })

  it('a device of an owned group that is not bound counts as owned', () => {
    const { u, sys } = setup({ devices: [[dmaCopy, dmaCopy]], acs: false })
    const d = u.device(0)
    expect(hotResetInfo(sys, d.fd, 2).ids).toEqual([d.id, 0])
    expect(sys.ioctl(d.fd, VFIO_DEVICE_PCI_HOT_RESET, vfio_pci_hot_reset())).toBe(0)
  })
})
