// The PASID capability that a monitor puts into a function's configuration space when VFIO hides the function's own.
import { describe, expect, it } from 'vitest'
import { bank, bits, r32 } from '../../src/base/fields.js'
import { createMachine } from '../../src/machine.js'
import { defineDevice } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import type { DeviceModel } from '../../src/pci/function.js'
import { s32 } from '../../src/sys/sys.js'
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_region_info,
} from '../../src/uapi.js'
import { GuestConfigSpace } from '../../src/vmm/config-space.js'

const AT = '0000:01:00.0'
const plain = defineDevice({
  name: 'plain',
  identity: { vendorId: 0x1234, deviceId: 1, classCode: 0x088000, revision: 1 },
  capabilities: [],
  bar0: bank('plain', { WORD: r32(0, '1', { BITS: bits(31, 0, 'rw', 'anything') }) }),
  create: () => ({ onWrite: {}, reset() {} }),
})

/** The guest's view of a function behind VFIO. */
function view(model: DeviceModel, pasidBits: number, profile: 'N13' | 'V7R' = 'N13') {
  const devices = [{ at: AT, model }]
  const { sys, groupOf } = createMachine({ profile, devices, ramBytes: 16 * 2 ** 20 })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(groupOf(AT))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
  const fd = sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, AT)
  const info = vfio_region_info({ index: VFIO_PCI_CONFIG_REGION_INDEX })
  sys.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, info)
  const space = new GuestConfigSpace(
    sys,
    fd,
    info.offset,
    Number(info.size),
    [0, 0, 0, 0, 0, 0],
    pasidBits,
  )
  const ids: [id: number, at: number][] = []
  for (let at = 0x100; at !== 0; ) {
    const header = Number(space.read(at, 4))
    ids.push([header & 0xffff, at])
    at = header >>> 20
  }
  return { space, ids }
}

it('a function on the guest’s root bus is an integrated endpoint, without a link', () => {
  const { space } = view(dmaCopy, 0)
  let express = Number(space.read(0x34, 1))
  while (space.read(express, 1) !== 0x10n) express = Number(space.read(express + 1, 1))
  space.write(express + 2, 2, 0n)
  space.write(express + 0x10, 2, 0xffffn)
  expect(space.read(express + 2, 2) >> 4n).toBe(9n)
  const link = [0x0c, 0x10, 0x2c, 0x30].map(at => space.read(express + at, 4))
  expect(link).toEqual([0n, 0n, 0n, 0n])
})

describe('the list of extended capabilities', () => {
  it.each<[string, DeviceModel, 'N13' | 'V7R', number, number]>([
    ['VFIO hides: the monitor adds one', dmaCopy, 'N13', 16, 1],
    ['of a function without any', plain, 'N13', 16, 1],
    ['the monitor does not want', dmaCopy, 'N13', 0, 0],
    ['VFIO shows: that one stays', dmaCopy, 'V7R', 16, 1],
  ])('has a PASID capability that %s', (_, model, profile, width, found) => {
    const { ids } = view(model, width, profile)
    expect(ids.filter(([id]) => id === 0x1b)).toHaveLength(found)
  })

  it.each([
    ['among others', dmaCopy, 0xff8],
    ['alone', plain, 0x100],
  ])('what is added says its width and takes the control bits: %s', (_, model, at) => {
    const { space, ids } = view(model, 12)
    expect(ids.at(-1)).toEqual([0x1b, at])
    expect(space.read(at + 4, 4)).toBe(12n << 8n)
    space.write(at, 4, 0xffff_ffffn)
    space.write(at + 4, 4, 0xffff_ffffn)
    expect([space.read(at, 4), space.read(at + 4, 4)]).toEqual([0x1_001bn, 0x7_0c00n])
  })
})
