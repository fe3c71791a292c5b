import { afterEach, describe, expect, it } from 'vitest'
import { defineDevice, msix } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import {
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_CAP_TYPE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_irq_info,
  vfio_irq_info_cap_type,
  vfio_irq_info_caps,
  vfio_irq_set,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const NONE = VFIO_IRQ_SET_DATA_NONE
const BOOL = VFIO_IRQ_SET_DATA_BOOL
const EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD
const TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER
const MSIX = 2

/** Raises vector N when N is written to its register. */
const bell = defineDevice({
  name: 'bell',
  identity: { vendorId: 1, deviceId: 2, classCode: 0x088000 },
  capabilities: [msix({ vectors: 4, bar: 2 })],
  bar0: dmaCopy.bar0,
  create: port => ({ onWrite: { LEN: ({ BYTES }) => port.interrupt(BYTES) } }),
})

function setup(profile: 'V7R' | 'L72' = 'V7R', type = VFIO_TYPE1v2_IOMMU) {
  const b = bench({ profile, devices: [[bell]] })
  const { sys } = b
  const c = b.program().container(type, b.functions[0]!.group)
  const fd = c.device()
  sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
  const events = [0, 1, 2, 3].map(() => sys.eventfd())
  const counts = () => events.map(e => Number(sys.eventfdOf(e).take()))
  const set = (
    flags: number,
    index: number,
    start: number,
    count: number,
    data: Uint8Array = new Uint8Array(0),
  ) => sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index, start, count, data }))
  const enable = (...fds: number[]) => set(EVENTFD | TRIGGER, MSIX, 0, fds.length, s32s(...fds))
  const ring = (n: number) => {
    sys.pwrite(fd, Uint8Array.of(n, 0, 0, 0), BigInt(bell.bar0.LEN.offset))
    b.settle()
  }
  return { b, sys, c, fd, events, counts, set, enable, ring }
}

const s32s = (...values: number[]) => new Uint8Array(Int32Array.from(values).buffer)

describe('VFIO_DEVICE_GET_IRQ_INFO', () => {
  // biome-ignore format: table
  it.each([
    ['V7R', 0, 0, 7], ['V7R', 1, 0, 9], ['V7R', 2, 4, 9], ['V7R', 3, 1, 9], ['V7R', 4, 1, 9],
    ['L72', 2, 4, 1],
  ] as const)('%s index %d: %d interrupts, flags %d', (profile, index, count, flags) => {
    const { sys, fd } = setup(profile)
    const info = vfio_irq_info({ index })
    sys.ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, info)
    expect(info).toMatchObject({ count, flags, argsz: 16 })
  })
  it('refuses an index beyond, a short argsz and an unreadable argument', () => {
    const { sys, fd } = setup()
    const call = (arg: Parameters<typeof sys.ioctl>[2]) =>
      sys.ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, arg)
    refused('EINVAL', () => call(vfio_irq_info({ index: 5 })))
    refused('EINVAL', () => call(vfio_irq_info({ argsz: 15 })))
    refused('EFAULT', () => call(0x1000))
  })
  it('tells the fault interrupt of a nested device by its type', () => {
    const { sys, fd } = setup('V7R', VFIO_TYPE1_NESTING_IOMMU)
    const short = vfio_irq_info({ index: 5 })
    sys.ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, short)
    expect(short).toMatchObject({ count: 1, flags: 0x19, argsz: 36 })
    const info = vfio_irq_info_caps({ index: 5 }, 16)
    sys.ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, info)
    expect(info.cap_offset).toBe(20)
    const cap = vfio_irq_info_cap_type.at(info.bytes, 20)
    expect([cap.header.id, cap.type, cap.subtype]).toEqual([VFIO_IRQ_INFO_CAP_TYPE, 1, 1])
  })
})

describe('VFIO_DEVICE_SET_IRQS', () => {
  it('delivers each vector to its eventfd', () => {
    const { events, enable, ring, counts } = setup()
    enable(...events)
    for (const n of [0, 1, 2, 3, 3]) ring(n)
    expect(counts()).toEqual([1, 1, 1, 2])
  })
  it('replaces and removes eventfds, and a removed one stays masked', () => {
    const { events, enable, set, ring, counts } = setup()
    enable(...events)
    set(EVENTFD | TRIGGER, MSIX, 1, 2, s32s(events[3]!, -1))
    for (const n of [0, 1, 2]) ring(n)
    expect(counts()).toEqual([1, 0, 0, 1])
    set(EVENTFD | TRIGGER, MSIX, 2, 1, s32s(events[2]!))
    expect(counts(), 'the pending vector').toEqual([0, 0, 1, 0])
  })
  it('disables the index, after which nothing is delivered and vectors are given back', () => {
    const { b, events, enable, set, ring, counts } = setup()
    const before = b.held().vectors
    enable(...events)
    set(NONE | TRIGGER, MSIX, 0, 0)
    ring(0)
    expect(counts()).toEqual([0, 0, 0, 0])
    expect(b.held().vectors).toBe(before)
    set(NONE | TRIGGER, MSIX, 0, 0)
    refused('EINVAL', () => set(NONE | TRIGGER, MSIX, 0, 1))
    refused('EINVAL', () => set(BOOL | TRIGGER, MSIX, 0, 1, Uint8Array.of(1)))
  })
  it('loops a trigger back to the eventfds', () => {
    const { events, enable, set, counts } = setup()
    enable(...events)
    set(NONE | TRIGGER, MSIX, 1, 2)
    expect(counts()).toEqual([0, 1, 1, 0])
    set(BOOL | TRIGGER, MSIX, 0, 4, Uint8Array.of(1, 0, 0, 2))
    expect(counts()).toEqual([1, 0, 0, 1])
  })
  it.each([
    ['V7R', 'EINVAL'],
    ['L72', undefined],
  ] as const)('%s meets a vector beyond those enabled', (profile, errno) => {
    const { events, enable, set, ring, counts } = setup(profile)
    enable(events[0]!)
    const more = () => set(EVENTFD | TRIGGER, MSIX, 3, 1, s32s(events[3]!))
    if (errno) refused(errno, more)
    else {
      more()
      ring(3)
      expect(counts()).toEqual([0, 0, 0, 1])
    }
  })
  it('keeps vectors over a reset', () => {
    const { sys, fd, events, enable, ring, counts } = setup()
    enable(...events)
    sys.ioctl(fd, VFIO_DEVICE_RESET)
    ring(2)
    expect(counts()).toEqual([0, 0, 1, 0])
  })
  it('programs the table though the user turned memory decoding off', () => {
    const { sys, fd, events, enable, ring, counts } = setup()
    sys.pwrite(fd, Uint8Array.of(4, 0), (7n << 40n) + 4n)
    enable(...events)
    sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
    ring(1)
    expect(counts()).toEqual([0, 1, 0, 0])
  })

  // biome-ignore format: table
  const refusals = [
    ['index 5',                NONE | TRIGGER,            5, 0, 0,           'EINVAL'],
    ['start + count overflow', NONE | TRIGGER,            2, 1, 0xffff_fffe, 'EINVAL'],
    ['an unknown flag',        NONE | TRIGGER | 64,       2, 0, 0,           'EINVAL'],
    ['start at the end',       NONE | TRIGGER,            2, 4, 0,           'EINVAL'],
    ['more than there are',    NONE | TRIGGER,            2, 0, 5,           'EINVAL'],
    ['INTx, which is absent',  NONE | TRIGGER,            0, 0, 0,           'EINVAL'],
    ['MSI, which is absent',   NONE | TRIGGER,            1, 0, 0,           'EINVAL'],
    ['no kind of data',        TRIGGER,                   2, 0, 0,           'EINVAL'],
    ['two kinds of data',      NONE | BOOL | TRIGGER,     2, 0, 0,           'EINVAL'],
    ['too little data',        EVENTFD | TRIGGER,         2, 0, 1,           'EINVAL'],
    ['no action',              NONE,                      2, 0, 1,           'ENOTTY'],
    ['two actions',            NONE | TRIGGER | 8,        2, 0, 1,           'ENOTTY'],
    ['MSI-X mask',             NONE | VFIO_IRQ_SET_ACTION_MASK,   2, 0, 1,   'ENOTTY'],
    ['MSI-X unmask',           NONE | VFIO_IRQ_SET_ACTION_UNMASK, 2, 0, 1,   'ENOTTY'],
    ['error mask',             NONE | VFIO_IRQ_SET_ACTION_MASK,   3, 0, 1,   'ENOTTY'],
  ] as const
  it.each(refusals)('refuses %s', (_, flags, index, start, count, errno) => {
    const { set } = setup()
    refused(errno, () => set(flags, index, start, count))
  })
  it('refuses descriptors that are no eventfds, a short argsz and an unreadable argument', () => {
    const { b, sys, fd, set, enable } = setup()
    const before = b.held().vectors
    refused('EBADF', () => enable(99))
    refused('EINVAL', () => enable(fd))
    refused('EINVAL', () => enable(-2))
    expect(b.held().vectors).toBe(before)
    refused('EINVAL', () => sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ argsz: 19 })))
    refused('EFAULT', () => sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, 0x1000))
    refused('EINVAL', () => set(EVENTFD | TRIGGER, 3, 0, 1, s32s(-2)))
  })
  it('signals the request interrupt when the device is wanted back, and by loop-back', () => {
    const { b, events, set, counts } = setup()
    const { bdf } = b.functions[0]!.fn
    expect(b.vfio.requestRelease(bdf)).toBe(false)
    set(EVENTFD | TRIGGER, 4, 0, 1, s32s(events[0]!))
    expect(b.vfio.requestRelease(bdf)).toBe(true)
    set(NONE | TRIGGER, 4, 0, 1)
    set(BOOL | TRIGGER, 4, 0, 1, Uint8Array.of(0))
    expect(counts()[0]).toBe(2)
    set(EVENTFD | TRIGGER, 4, 0, 1, s32s(-1))
    expect(b.vfio.requestRelease(bdf)).toBe(false)
    refused('EINVAL', () => set(BOOL | TRIGGER, 4, 0, 0))
  })
})
