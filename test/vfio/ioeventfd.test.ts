import { afterEach, describe, expect, it } from 'vitest'
import {
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_IOEVENTFD_32,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_ioeventfd,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

function setup() {
  const b = bench()
  const { sys } = b
  const c = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
  const device = c.device()
  const eventfd = sys.eventfd()
  const call = (init: Parameters<typeof vfio_device_ioeventfd>[0] = {}) =>
    sys.ioctl(
      device,
      VFIO_DEVICE_IOEVENTFD,
      vfio_device_ioeventfd({
        flags: VFIO_DEVICE_IOEVENTFD_32,
        offset: 8n,
        data: 0x77n,
        fd: eventfd,
        ...init,
      }),
    )
  return { sys, device, eventfd, call, register: () => sys.pread(device, 4, 8n)[0]! }
}

describe('VFIO_DEVICE_IOEVENTFD', () => {
  it('writes its value at every signal until it is removed', () => {
    const { sys, device, eventfd, call, register } = setup()
    call()
    sys.eventfdOf(eventfd).signal()
    expect([register(), sys.eventfdOf(eventfd).count]).toEqual([0x77, 0n])
    sys.pwrite(device, new Uint8Array(4), 8n)
    call({ fd: -1 })
    sys.eventfdOf(eventfd).signal()
    expect(register()).toBe(0)
  })
  // biome-ignore format: table
  it.each([
    ['argsz 27',              { argsz: 27 },                 'EINVAL'],
    ['no size',               { flags: 0 },                  'EINVAL'],
    ['two sizes',             { flags: 3 },                  'EINVAL'],
    ['an unknown flag',       { flags: 0x14 },               'EINVAL'],
    ['fd -2',                 { fd: -2 },                    'EINVAL'],
    ['configuration space',   { offset: 7n << 40n },         'EINVAL'],
    ['an absent BAR',         { offset: 1n << 40n },         'EINVAL'],
    ['past the end',          { offset: 0xffdn },            'EINVAL'],
    ['the MSI-X table',       { offset: 2n << 40n },         'EINVAL'],
    ['no region at all',      { offset: 1n << 63n },         'EINVAL'],
    ['nothing to remove',     { fd: -1 },                    'ENODEV'],
    ['a closed descriptor',   { fd: 99 },                    'EBADF'],
  ] as const)('refuses %s', (_, init, errno) => {
    refused(errno, () => setup().call(init))
  })
  it('refuses the same write twice, other files, more than 1000, and an unreadable argument', () => {
    const { sys, device, call } = setup()
    call()
    refused('EEXIST', () => call())
    refused('EINVAL', () => call({ data: 1n, fd: device }))
    for (let i = 1n; i < 1000n; i++) call({ data: 0x1000n + i })
    refused('ENOSPC', () => call({ data: 1n }))
    refused('EFAULT', () => sys.ioctl(device, VFIO_DEVICE_IOEVENTFD, 0x1000))
  })
})
