import { afterEach, describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { irqTest } from '../../src/pci/devices/irq-test.js'
import { bench as smmuBench } from '../../src/testing/index.js'
import {
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_irq_info,
  vfio_irq_set,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const NONE = VFIO_IRQ_SET_DATA_NONE
const BOOL = VFIO_IRQ_SET_DATA_BOOL
const EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD
const MASK = VFIO_IRQ_SET_ACTION_MASK
const UNMASK = VFIO_IRQ_SET_ACTION_UNMASK
const TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER
const [INTX, MSI, MSIX] = [0, 1, 2]
const CONFIG = 7n << 40n
const COMMAND = 4
const DISABLE = 0x400

const s32s = (...values: number[]) => new Uint8Array(Int32Array.from(values).buffer)

function setup() {
  const b = bench({ devices: [[irqTest]] })
  const { sys } = b
  const { fn, group } = b.functions[0]!
  const fd = b.program().container(VFIO_TYPE1v2_IOMMU, group).device()
  const command = (value: number) =>
    sys.pwrite(fd, Uint8Array.of(value & 0xff, value >> 8), CONFIG + BigInt(COMMAND))
  command(6)
  const events = Array.from({ length: 8 }, () => sys.eventfd())
  const take = (i = 0) => Number(sys.eventfdOf(events[i]!).take())
  const set = (flags: number, index: number, start: number, count: number, ...data: number[]) => {
    const bytes = flags & EVENTFD ? s32s(...data) : Uint8Array.from(data)
    sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index, start, count, data: bytes }))
  }
  const intx = (flags: number, ...data: number[]) => set(flags, INTX, 0, 1, ...data)
  const poke = (register: { offset: number }, value: number) =>
    sys.pwrite(fd, Uint8Array.of(value, 0, 0, 0), BigInt(register.offset))
  const raise = () => poke(irqTest.bar0.CTRL, 1)
  const drop = () => poke(irqTest.bar0.LEVEL, 1)
  const send = (v: number) => {
    poke(irqTest.bar0.MESSAGE, v)
    b.settle()
  }
  const config = (at: number) => sys.pread(fd, 2, CONFIG + BigInt(at))
  const word = (at: number) => config(at)[0]! | (config(at)[1]! << 8)
  const disabled = () => (fn.config.read(COMMAND, 2) & DISABLE) !== 0
  return { b, sys, fd, fn, events, take, set, intx, raise, drop, send, command, word, disabled }
}

describe('INTx', () => {
  // biome-ignore format: table
  it.each([
    [irqTest, INTX, 1, 7], [irqTest, MSI, 8, 9], [irqTest, MSIX, 8, 9],
    [dmaCopy, INTX, 0, 7], [dmaCopy, MSI, 0, 9],
  ] as const)('of $name: index %d has %d interrupts, flags %d', (model, index, count, flags) => {
    const b = bench({ devices: [[model]] })
    const fd = b.program().container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group).device()
    const info = vfio_irq_info({ index })
    b.sys.ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, info)
    expect(info).toMatchObject({ count, flags })
    expect(b.sys.pread(fd, 1, CONFIG + 0x3dn)[0]).toBe(model === irqTest ? 1 : 0)
  })
  it('is masked by its delivery, and unmasking a level that is still there delivers again', () => {
    const { events, take, intx, raise, drop, disabled } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    raise()
    expect([take(), disabled()]).toEqual([1, true])
    intx(NONE | UNMASK)
    expect([take(), disabled()]).toEqual([1, true])
    drop()
    intx(NONE | UNMASK)
    expect([take(), disabled()]).toEqual([0, false])
    raise()
    expect(take()).toBe(1)
  })
  it('delivers what was pending before it was enabled', () => {
    const { events, take, intx, raise } = setup()
    raise()
    intx(EVENTFD | TRIGGER, events[0]!)
    expect(take()).toBe(1)
  })
  it.each([
    ['NONE', NONE, []],
    ['BOOL 1', BOOL, [1]],
  ] as const)('is masked and unmasked by %s', (_, kind, data) => {
    const { events, take, intx, raise } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    intx(kind | MASK, ...data)
    raise()
    expect(take()).toBe(0)
    intx(BOOL | UNMASK, 0)
    expect(take(), 'BOOL 0 does nothing').toBe(0)
    intx(kind | UNMASK, ...data)
    expect(take()).toBe(1)
  })
  it('is unmasked by the resample eventfd, until that is removed', () => {
    const { sys, events, take, intx, raise, drop } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    intx(EVENTFD | UNMASK, events[1]!)
    refused('EBUSY', () => intx(EVENTFD | UNMASK, events[2]!))
    raise()
    sys.eventfdOf(events[1]!).signal()
    expect(take()).toBe(2)
    drop()
    sys.eventfdOf(events[1]!).signal()
    raise()
    expect(take()).toBe(1)
    intx(EVENTFD | UNMASK, -1)
    sys.eventfdOf(events[1]!).signal()
    expect(take()).toBe(0)
    intx(EVENTFD | UNMASK, events[1]!)
    expect(take(), 'it was signalled already').toBe(1)
    sys.close(events[1]!)
    intx(EVENTFD | UNMASK, events[2]!)
  })
  it('does not hang on a resample eventfd that is its own trigger, or that never serves', () => {
    const { sys, events, take, intx, raise, disabled } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    intx(EVENTFD | UNMASK, events[0]!)
    raise()
    expect([take(), disabled()]).toEqual([1, true])
    intx(EVENTFD | UNMASK, -1)
    intx(EVENTFD | UNMASK, events[1]!)
    const end = sys.eventfdOf(events[0]!).onSignal(() => sys.eventfdOf(events[1]!).signal())
    intx(NONE | UNMASK)
    expect(disabled()).toBe(true)
    expect(take()).toBeGreaterThan(1)
    end()
  })
  it('serves a listener that resamples at once', () => {
    const { sys, events, take, intx, raise, drop } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    intx(EVENTFD | UNMASK, events[1]!)
    let left = 3
    sys.eventfdOf(events[0]!).onSignal(() => {
      if (--left === 0) drop()
      sys.eventfdOf(events[1]!).signal()
    })
    raise()
    expect([left, take()]).toEqual([0, 3])
  })
  it('loops back, which masks nothing', () => {
    const { events, take, intx, raise, command } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    intx(NONE | TRIGGER)
    intx(BOOL | TRIGGER, 1)
    intx(BOOL | TRIGGER, 0)
    raise()
    expect(take()).toBe(3)
    command(6 | DISABLE)
    intx(NONE | TRIGGER)
    expect(take(), 'while the user disabled it').toBe(0)
  })
  it('keeps its mask when the eventfd is replaced, and is enabled without one', () => {
    const { events, take, intx, raise, set } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    raise()
    intx(EVENTFD | TRIGGER, events[1]!)
    expect([take(0), take(1)]).toEqual([1, 0])
    intx(NONE | UNMASK)
    expect([take(0), take(1)]).toEqual([0, 1])
    intx(EVENTFD | TRIGGER, -1)
    intx(NONE | UNMASK)
    expect(take(1)).toBe(0)
    refused('EINVAL', () => set(EVENTFD | TRIGGER, MSI, 0, 1, events[2]!))
    intx(EVENTFD | TRIGGER, events[2]!)
    expect(take(2)).toBe(1)
  })
  it('shows the user a copy of Interrupt Disable, which masks above the mask of deliveries', () => {
    const { events, take, intx, raise, command, word, disabled } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    raise()
    expect([disabled(), word(COMMAND) & DISABLE]).toEqual([true, 0])
    expect(word(6) & 8).toBe(8)
    command(6 | DISABLE)
    expect(word(COMMAND) & DISABLE).toBe(DISABLE)
    intx(NONE | UNMASK)
    expect(take()).toBe(1)
    command(6)
    expect(take()).toBe(1)
  })
  it('is disabled from the start when the user disabled it before', () => {
    const { events, take, intx, raise, command, disabled } = setup()
    command(6 | DISABLE)
    expect(disabled()).toBe(true)
    raise()
    intx(EVENTFD | TRIGGER, events[0]!)
    expect(take()).toBe(0)
    command(6)
    expect(take()).toBe(1)
  })
  it('ends with count 0, with a reset of the level, and with the device file', () => {
    const { sys, fd, fn, events, take, set, intx, raise } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    raise()
    sys.ioctl(fd, VFIO_DEVICE_RESET)
    intx(NONE | UNMASK)
    expect(take()).toBe(1)
    raise()
    expect(take()).toBe(1)
    set(NONE | TRIGGER, INTX, 0, 0)
    refused('EINVAL', () => intx(NONE | UNMASK))
    refused('EINVAL', () => set(NONE | TRIGGER, INTX, 0, 0))
    intx(EVENTFD | TRIGGER, events[0]!)
    expect(take()).toBe(1)
    sys.close(fd)
    expect(fn.line!.asserted).toBe(false)
  })
  // biome-ignore format: table
  it.each([
    ['trigger without an eventfd while disabled', NONE | TRIGGER,   0, 1, [],   'EINVAL'],
    ['mask while disabled',                       NONE | MASK,      0, 1, [],   'EINVAL'],
    ['unmask while disabled',                     NONE | UNMASK,    0, 1, [],   'EINVAL'],
    ['resample while disabled',                   EVENTFD | UNMASK, 0, 1, [-1], 'EINVAL'],
    ['a second interrupt',                        NONE | MASK,      1, 1, [],   'EINVAL'],
    ['no action',                                 NONE,             0, 1, [],   'ENOTTY'],
    ['two actions',                               NONE | MASK | UNMASK, 0, 1, [], 'ENOTTY'],
    ['a descriptor that is not open',             EVENTFD | TRIGGER, 0, 1, [99], 'EBADF'],
  ] as const)('refuses %s', (_, flags, start, count, data, errno) => {
    const { set } = setup()
    refused(errno, () => set(flags, INTX, start, count, ...data))
  })
  it('refuses a mask by eventfd, and a mask of nothing', () => {
    const { events, set, intx } = setup()
    intx(EVENTFD | TRIGGER, events[0]!)
    refused('ENOTTY', () => intx(EVENTFD | MASK, events[1]!))
    refused('EINVAL', () => set(NONE | MASK, INTX, 0, 0))
    refused('EINVAL', () => set(EVENTFD | TRIGGER, INTX, 0, 0))
  })
})

describe('MSI', () => {
  it.each([1, 3, 8])('delivers each of %d vectors to its eventfd, by the real capability', n => {
    const { b, fn, events, take, set, send } = setup()
    const before = b.held().vectors
    set(EVENTFD | TRIGGER, MSI, 0, n, ...events.slice(0, n))
    for (let v = 0; v < n; v++) send(v)
    expect(events.map((_, i) => take(i))).toEqual(events.map((_, i) => (i < n ? 1 : 0)))
    expect(fn.msi!.given).toBe(2 ** Math.ceil(Math.log2(n)))
    set(NONE | TRIGGER, MSI, 0, 0)
    expect(b.held().vectors).toBe(before)
    expect(fn.msi!.enabled).toBe(false)
    send(0)
    expect(take(0)).toBe(0)
  })
  it('is told apart by data behind an SMMUv3, which translates the address', () => {
    const made = smmuBench({ iommu: 'smmuv3', profile: 'N13', devices: [[irqTest]] })
    const { sys } = made.process()
    const fn = made.machine.fabric.functions()[0]!
    const container = sys.open('/dev/vfio/vfio')
    const group = sys.open(`/dev/vfio/${made.functions[0]!.group}`)
    sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32s(container))
    sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)
    const fd = sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, made.functions[0]!.name)
    sys.pwrite(fd, Uint8Array.of(6, 0), CONFIG + BigInt(COMMAND))
    const events = Array.from({ length: 4 }, () => sys.eventfd())
    const flags = EVENTFD | TRIGGER
    const data = s32s(...events)
    sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index: MSI, count: 4, data }))
    for (const v of [0, 2, 3, 3]) fn.interrupt(v)
    expect(events.map(e => Number(sys.eventfdOf(e).take()))).toEqual([1, 0, 1, 2])
    made.check()
  })
  it('masks a vector without an eventfd, which then stays pending', () => {
    const { events, take, set, send } = setup()
    set(EVENTFD | TRIGGER, MSI, 0, 2, events[0]!, -1)
    send(1)
    set(EVENTFD | TRIGGER, MSI, 1, 1, events[1]!)
    expect([take(0), take(1)]).toEqual([0, 1])
  })
  it('loops back, has no mask action, and does not grow', () => {
    const { events, take, set } = setup()
    refused('EINVAL', () => set(NONE | TRIGGER, MSI, 0, 1))
    set(EVENTFD | TRIGGER, MSI, 0, 2, events[0]!, events[1]!)
    set(BOOL | TRIGGER, MSI, 0, 2, 0, 1)
    set(NONE | TRIGGER, MSI, 0, 1)
    expect([take(0), take(1)]).toEqual([1, 1])
    refused('ENOTTY', () => set(NONE | MASK, MSI, 0, 1))
    refused('EINVAL', () => set(EVENTFD | TRIGGER, MSI, 2, 1, events[2]!))
    refused('EINVAL', () => set(EVENTFD | TRIGGER, MSI, 0, 9, ...events, events[0]!))
  })
  it('survives a reset', () => {
    const { sys, fd, events, take, set, send } = setup()
    set(EVENTFD | TRIGGER, MSI, 0, 4, ...events.slice(0, 4))
    sys.ioctl(fd, VFIO_DEVICE_RESET)
    send(3)
    expect(take(3)).toBe(1)
  })
  it('shows the user copies of address, data and vectors, and the enable as it is', () => {
    const { sys, fd, fn, events, set, send, take, word } = setup()
    const at = fn.capabilityOffset(5, false)!
    set(EVENTFD | TRIGGER, MSI, 0, 1, events[0]!)
    expect(word(at + 2) & 1).toBe(1)
    sys.pwrite(fd, Uint8Array.of(0x30, 0), CONFIG + BigInt(at + 2))
    sys.pwrite(fd, Uint8Array.of(0x00, 0x10, 0xe0, 0xfe), CONFIG + BigInt(at + 4))
    expect([word(at + 2) & 0x71, word(at + 6)]).toEqual([0x31, 0xfee0])
    sys.pwrite(fd, Uint8Array.of(0x70, 0), CONFIG + BigInt(at + 2))
    expect(word(at + 2) & 0x70, 'no more than there are').toBe(0x30)
    send(0)
    expect([take(0), fn.msi!.given]).toEqual([1, 1])
  })
})

describe('INTx, MSI and MSI-X', () => {
  const pairs = [INTX, MSI, MSIX].flatMap(a => [INTX, MSI, MSIX].map(b => [a, b] as const))
  it.each(pairs.filter(([a, b]) => a !== b))('while %d is enabled, %d cannot be', (a, b) => {
    const { events, set } = setup()
    set(EVENTFD | TRIGGER, a, 0, 1, events[0]!)
    refused('EINVAL', () => set(EVENTFD | TRIGGER, b, 0, 1, events[1]!))
    refused('EINVAL', () => set(NONE | TRIGGER, b, 0, 1))
    set(NONE | TRIGGER, a, 0, 0)
    set(EVENTFD | TRIGGER, b, 0, 1, events[1]!)
  })
})
