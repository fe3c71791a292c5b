import { afterEach, describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { s32 } from '../../src/sys/sys.js'
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_group_status,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

/** A bench, its first function's group file opened, and a container. */
function opened(options: Parameters<typeof bench>[0] = {}) {
  const b = bench(options)
  const { sys } = b
  const first = b.functions[0]!
  const path = `/dev/vfio/${first.group}`
  const group = sys.open(path)
  const container = sys.open('/dev/vfio/vfio')
  const set = (fd = container) => sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
  const ready = () => {
    set()
    sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
  }
  const device = (name = first.name) => sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)
  const status = () => {
    const s = vfio_group_status()
    sys.ioctl(group, VFIO_GROUP_GET_STATUS, s)
    return s.flags
  }
  return { b, sys, first, path, group, container, set, ready, device, status }
}

describe('opening a group', () => {
  it('is for one opener at a time', () => {
    const { b, sys, path, group } = opened()
    refused('EBUSY', () => b.spawn().open(path))
    sys.close(group)
    b.spawn().open(path)
  })
  it('is refused while a device keeps the group in its container', () => {
    const { sys, path, group, ready, device } = opened()
    ready()
    const fd = device()
    sys.close(group)
    refused('EBUSY', () => sys.open(path))
    sys.close(fd)
    sys.open(path)
  })
  it('is refused for a group that is not there, has no endpoint, or none bound to vfio', () => {
    const b = bench()
    refused('ENODEV', () => b.sys.open('/dev/vfio/99'))
    refused('ENODEV', () => b.sys.open('/dev/vfio/0'))
    refused('ENOENT', () => b.sys.open('/dev/vfio/x'))
    b.vfio.bindDriver(b.functions[0]!.fn.bdf, 'nvme')
    refused('ENODEV', () => b.sys.open(`/dev/vfio/${b.functions[0]!.group}`))
  })
})

describe('VFIO_GROUP_GET_STATUS', () => {
  it('tells viability and container', () => {
    const { status, set } = opened()
    expect(status()).toBe(VFIO_GROUP_FLAGS_VIABLE)
    set()
    expect(status()).toBe(VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET)
  })
  it('refuses a short argsz and an unreadable pointer', () => {
    const { sys, group } = opened()
    refused('EINVAL', () =>
      sys.ioctl(group, VFIO_GROUP_GET_STATUS, vfio_group_status({ argsz: 7 })),
    )
    refused('EFAULT', () => sys.ioctl(group, VFIO_GROUP_GET_STATUS, 0x1000))
  })
})

describe('VFIO_GROUP_SET_CONTAINER', () => {
  // biome-ignore format: table
  it.each([
    ['V7R', -1, 'EINVAL'], ['V7R', 77, 'EBADF'], ['V7R', 'eventfd', 'EINVAL'],
    ['L72', -1, 'EBADF'],  ['L72', 77, 'EBADF'], ['L72', 'eventfd', 'EBADFD'],
  ] as const)('%s refuses fd %s with %s', (profile, fd, errno) => {
    const { sys, set } = opened({ profile })
    refused(errno, () => set(fd === 'eventfd' ? sys.eventfd() : fd))
  })
  it('refuses an unreadable pointer and a group that is in a container', () => {
    const { sys, group, set } = opened()
    refused('EFAULT', () => sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, 0))
    set()
    refused('EINVAL', () => set())
  })
  it.each([
    ['V7R', undefined],
    ['L72', 'EPERM'],
  ] as const)('%s meets a group of which another driver has a device', (profile, errno) => {
    const b = bench({ profile, acs: false, devices: [[dmaCopy, dmaCopy]] })
    const sys = b.sys
    const group = sys.open(`/dev/vfio/${b.functions[0]!.group}`)
    expect(b.functions[1]!.group).toBe(b.functions[0]!.group)
    b.vfio.bindDriver(b.functions[1]!.fn.bdf, 'ixgbe')
    const fd = sys.open('/dev/vfio/vfio')
    const set = () => sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
    if (errno) refused(errno, set)
    else {
      set()
      sys.ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
      const device = () => sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, b.functions[0]!.name)
      refused('EINVAL', device)
      b.vfio.bindDriver(b.functions[1]!.fn.bdf, 'pci-stub')
      sys.close(device())
    }
  })
})

describe('VFIO_GROUP_UNSET_CONTAINER', () => {
  it('refuses a group outside, and one whose device is open', () => {
    const { sys, group, ready, device } = opened()
    refused('EINVAL', () => sys.ioctl(group, VFIO_GROUP_UNSET_CONTAINER))
    ready()
    const fd = device()
    refused('EBUSY', () => sys.ioctl(group, VFIO_GROUP_UNSET_CONTAINER))
    sys.close(fd)
    sys.ioctl(group, VFIO_GROUP_UNSET_CONTAINER)
  })
})

describe('VFIO_GROUP_GET_DEVICE_FD', () => {
  it('refuses before a container has a driver; the profile says whether the name is looked up first', () => {
    for (const [profile, errno] of [
      ['V7R', 'EINVAL'],
      ['L72', 'ENODEV'],
    ] as const) {
      const { device, set } = opened({ profile })
      refused('EINVAL', () => device())
      set()
      refused('EINVAL', () => device())
      refused(errno, () => device('0000:99:00.0'))
    }
  })
  it.each(['0000:02:00.0', '0000:00:01.0', '01:00.0', 'nonsense', ''])(
    'knows no device %s',
    name => {
      const { ready, device } = opened()
      ready()
      refused('ENODEV', () => device(name))
    },
  )
  it('refuses an unreadable name and one without end', () => {
    const { sys, group, ready } = opened()
    ready()
    refused('EFAULT', () => sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, 8))
    refused('EINVAL', () => sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, 'x'.repeat(5000)))
  })
  it('keeps mappings and device alive until both group and device are closed, in any order', () => {
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 2, 0],
      [1, 0, 2],
    ] as const) {
      const { b, sys, container, group, ready, device } = opened()
      ready()
      const fds = [container, group, device()]
      const left = new Set([1, 2])
      for (const i of order) {
        // The container's own file does not matter once a group is in it.
        expect(b.held()).toMatchObject({ containers: left.size > 0 ? 1 : 0 })
        sys.close(fds[i]!)
        left.delete(i)
      }
      expect(b.held()).toMatchObject({ containers: 0, devices: 0 })
    }
  })
})

describe('a group', () => {
  it('E164 knows none of the container calls', () => {
    const { sys, group } = opened()
    refused('ENOTTY', () => sys.ioctl(group, VFIO_IOMMU_PASID_REQUEST))
    refused('ENOTTY', () => sys.ioctl(group, VFIO_IOMMU_NESTING_OP))
  })
})
