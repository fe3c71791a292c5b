// GICv3 and ITS behind KVM_CREATE_DEVICE, and the ways interrupts come in: lines, eventfds, routes, messages with their
// device (Documentation of KVM's API, devices/arm-vgic-v3 and arm-vgic-its).
import { describe, expect, it } from 'vitest'
import { ICC } from '../../../src/cpu/gic/system-registers.js'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { AT, Guest, I, outcome, REG } from './guest.js'

const {
  KVM_DEV_TYPE_ARM_VGIC_V3: VGIC,
  KVM_DEV_TYPE_ARM_VGIC_ITS: ITS,
  KVM_DEV_ARM_VGIC_GRP_ADDR: ADDR,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS: DIST,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS: REDIST,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS: SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS: NR_IRQS,
  KVM_DEV_ARM_VGIC_GRP_CTRL: CTRL,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO: LEVEL,
  KVM_DEV_ARM_VGIC_GRP_ITS_REGS: ITS_REGS,
  KVM_VGIC_V3_ADDR_TYPE_DIST: A_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST: A_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: A_REGION,
  KVM_VGIC_ITS_ADDR_TYPE: A_ITS,
} = uapi
const INIT = uapi.KVM_DEV_ARM_VGIC_CTRL_INIT
const VALID = 1n << 63n
const INTID = 8192 + 5
const DEVICE = 0x108

describe('KVM_CREATE_DEVICE', () => {
  it('makes one GICv3, and none for a VM that has run', () => {
    const g = new Guest()
    expect(g.device(VGIC, uapi.KVM_CREATE_DEVICE_TEST)).toBe(0)
    expect(typeof g.device(VGIC)).toBe('number')
    expect(g.device(VGIC)).toBe('EEXIST')
    const late = new Guest()
    late.code([I.answer])
    late.cpu.answer()
    expect(late.device(VGIC)).toBe('EBUSY')
    // A KVM_RUN that was refused is none.
    const early = new Guest()
    const fd = early.sys.ioctl(early.vm, uapi.KVM_CREATE_VCPU, 1)
    expect(outcome(() => early.sys.ioctl(fd, uapi.KVM_RUN))).toBe('ENOEXEC')
    expect(typeof early.device(VGIC)).toBe('number')
  })

  it.each([[5], [0], [99]])('type %i is ENODEV', type => {
    expect(new Guest().device(type)).toBe('ENODEV')
  })

  it('a device that is closed leaves the controller; the VM lives as long as a device', () => {
    const g = new Guest()
    const { gic } = g.gic()
    g.sys.close(g.cpu.fd)
    g.sys.close(g.vm)
    expect(g.host.kvm.vms.size).toBe(1)
    expect(g.getAttribute(gic, NR_IRQS, 0)).toBe(256n)
    g.sys.close(gic)
    // The vCPU's mapping held the VM too.
    expect(g.host.kvm.vms.size).toBe(1)
  })

  it('knows no other request, and none of another process', () => {
    const g = new Guest()
    const { gic } = g.gic()
    expect(outcome(() => g.sys.ioctl(gic, uapi.KVM_RUN))).toBe('ENOTTY')
  })
})

describe('places and size', () => {
  it('addresses are set once, aligned, inside guest-physical memory, and come back', () => {
    const g = new Guest()
    const gic = g.device(VGIC) as number
    expect(g.getAttribute(gic, ADDR, A_DIST)).toBe(0xffff_ffff_ffff_ffffn)
    expect(g.setAttribute(gic, ADDR, A_DIST, 0x1000)).toBe('EINVAL')
    expect(g.setAttribute(gic, ADDR, A_DIST, 1n << 40n)).toBe('E2BIG')
    expect(g.setAttribute(gic, ADDR, A_DIST, AT.GICD)).toBe(0)
    expect(g.setAttribute(gic, ADDR, A_DIST, AT.GICD)).toBe('EEXIST')
    expect(g.getAttribute(gic, ADDR, A_DIST)).toBe(BigInt(AT.GICD))
    expect(g.setAttribute(gic, ADDR, A_REDIST, AT.GICD)).toBe('EINVAL')
    expect(g.setAttribute(gic, ADDR, A_REDIST, AT.GICR)).toBe(0)
    expect(g.setAttribute(gic, ADDR, A_REDIST, AT.GICR)).toBe('EEXIST')
    expect(g.setAttribute(gic, ADDR, 0, 0)).toBe('ENXIO')
    expect(g.setAttribute(gic, ADDR, 9, 0)).toBe('ENXIO')
  })

  it('regions of redistributors follow each other, with counts, and do not overlap', () => {
    const g = new Guest()
    const gic = g.device(VGIC) as number
    const region = (index: number, base: number, count: number, flags = 0) =>
      g.setAttribute(
        gic,
        ADDR,
        A_REGION,
        (BigInt(count) << 52n) | BigInt(base + (flags << 12) + index),
      )
    expect(region(1, 0x0900_0000, 1)).toBe('EINVAL')
    expect(region(0, 0x0900_0000, 0)).toBe('EINVAL')
    expect(region(0, 0x0900_0000, 1, 1)).toBe('EINVAL')
    expect(region(0, 0x0900_0000, 2)).toBe(0)
    expect(region(1, 0x0902_0000, 1)).toBe('EINVAL')
    expect(region(1, 0x0904_0000, 1)).toBe(0)
    expect(g.setAttribute(gic, ADDR, A_REDIST, AT.GICR)).toBe('EINVAL')
    const asked = BigUint64Array.of(1n)
    expect(g.attribute(uapi.KVM_GET_DEVICE_ATTR, gic, ADDR, A_REGION, asked)).toBe(0)
    expect(asked[0]).toBe((1n << 52n) | 0x0904_0000n | 1n)
    const beyond = BigUint64Array.of(2n)
    expect(g.attribute(uapi.KVM_GET_DEVICE_ATTR, gic, ADDR, A_REGION, beyond)).toBe('ENOENT')
  })

  it.each([
    [64, 0],
    [992, 0],
    [32, 'EINVAL'],
    [65, 'EINVAL'],
    [1024, 'EINVAL'],
  ])('%i interrupts: %s', (n, result) => {
    const g = new Guest()
    const gic = g.device(VGIC) as number
    expect(g.setAttribute(gic, NR_IRQS, 0, n)).toBe(result)
    if (result === 0) expect(g.setAttribute(gic, NR_IRQS, 0, n)).toBe('EBUSY')
  })

  it('no vCPU joins an initialised controller', () => {
    const g = new Guest()
    g.gic()
    expect(outcome(() => g.sys.ioctl(g.vm, uapi.KVM_CREATE_VCPU, 1))).toBe('EBUSY')
  })

  it('the first KVM_RUN wants every place, then the initialisation', () => {
    const redistributors = (g: Guest, gic: number) => g.setAttribute(gic, ADDR, A_REDIST, AT.GICR)
    const distributor = (g: Guest, gic: number) => g.setAttribute(gic, ADDR, A_DIST, AT.GICD)
    const initialise = (g: Guest, gic: number) => g.setAttribute(gic, CTRL, INIT)
    const entered = (...steps: ((g: Guest, gic: number) => unknown)[]) => {
      const g = new Guest()
      g.code([I.answer])
      const gic = g.device(VGIC) as number
      for (const step of steps) expect(step(g, gic)).toBe(0)
      const outcomes = [g.cpu.enter()]
      // A VM whose controller found no place is dead.
      if (typeof outcomes[0] === 'string') {
        outcomes.push(g.cpu.enter(), initialise(g, gic))
        outcomes.push(outcome(() => g.sys.ioctl(g.vm, uapi.KVM_CHECK_EXTENSION, 0)))
      }
      return outcomes
    }
    const dead = ['EIO', 'EIO', 'EIO']
    expect(entered()).toEqual(['ENXIO', ...dead])
    expect(entered(redistributors)).toEqual(['ENXIO', ...dead])
    expect(entered(redistributors, distributor)).toEqual(['EBUSY', ...dead])
    expect(entered(redistributors, distributor, initialise, initialise)).toEqual([
      uapi.KVM_EXIT_MMIO,
    ])
  })

  it('where the guest has memory there is no room for a frame', () => {
    const g = new Guest()
    g.code([I.answer])
    const gic = g.device(VGIC) as number
    g.setAttribute(gic, ADDR, A_DIST, AT.CODE)
    g.setAttribute(gic, ADDR, A_REDIST, AT.GICR)
    g.setAttribute(gic, CTRL, INIT)
    expect(g.cpu.enter()).toBe('EBUSY')
  })
})

describe('registers', () => {
  it('of distributor and redistributor come back; none is EINVAL for a vCPU that is not there', () => {
    const g = new Guest()
    const { gic } = g.gic()
    expect(g.setAttribute(gic, DIST, 0x400 + 32, 0xa0a0_a0a0)).toBe(0)
    expect(g.getAttribute(gic, DIST, 0x400 + 32)).toBe(0xa0a0_a0a0n)
    expect(g.setAttribute(gic, REDIST, 0x1_0400, 0x8080_8080)).toBe(0)
    expect(g.getAttribute(gic, REDIST, 0x1_0400)).toBe(0x8080_8080n)
    expect(g.getAttribute(gic, REDIST, (7n << 32n) | 0x1_0400n)).toBe('EINVAL')
    // Where no register is, zero is read.
    expect(g.getAttribute(gic, DIST, 0xff00)).toBe(0n)
  })

  it('of the CPU interface by encoding; ENOENT for those that hold no state', () => {
    const g = new Guest()
    const { gic } = g.gic()
    expect(g.setAttribute(gic, SYSREGS, ICC.PMR, 0xf0)).toBe(0)
    expect(g.getAttribute(gic, SYSREGS, ICC.PMR)).toBe(0xf0n)
    expect(g.getAttribute(gic, SYSREGS, ICC.IAR1)).toBe('ENOENT')
    const has = (attr: number) => g.attribute(uapi.KVM_HAS_DEVICE_ATTR, gic, SYSREGS, attr)
    expect([has(ICC.PMR), has(ICC.IAR1)]).toEqual([0, 'ENXIO'])
  })

  it('are EBUSY before the initialisation', () => {
    const g = new Guest()
    const gic = g.device(VGIC) as number
    expect(g.getAttribute(gic, DIST, 0)).toBe('EBUSY')
    expect(g.setAttribute(gic, SYSREGS, ICC.PMR, 0)).toBe('EBUSY')
  })

  it('levels of 32 lines at a time', () => {
    const g = new Guest()
    const { gic } = g.gic()
    expect(g.setAttribute(gic, LEVEL, 32, 0x8000_0001)).toBe(0)
    expect(g.getAttribute(gic, LEVEL, 32)).toBe(0x8000_0001n)
    expect(g.getAttribute(gic, LEVEL, 33)).toBe('EINVAL')
    expect(g.getAttribute(gic, LEVEL, (1 << 10) | 32)).toBe('EINVAL')
  })

  it.each([
    ['an address', ADDR, A_DIST, 0],
    ['an address of a GICv2', ADDR, 0, 'ENXIO'],
    ['the number of interrupts', NR_IRQS, 0, 0],
    ['the initialisation', CTRL, INIT, 0],
    ['saving pending tables', CTRL, 3, 0],
    ['another control', CTRL, 9, 'ENXIO'],
    ['GICD_CTLR', DIST, 0, 0],
    ['half a register', DIST, 2, 'ENXIO'],
    ['levels', LEVEL, 32, 0],
    ['a group that is none', 77, 0, 'ENXIO'],
  ])('KVM_HAS_DEVICE_ATTR: %s', (_, group, attr, result) => {
    const g = new Guest()
    const { gic } = g.gic()
    expect(g.attribute(uapi.KVM_HAS_DEVICE_ATTR, gic, group, attr)).toBe(result)
  })
})

/** A guest whose IRQ handler answers with ICC_IAR1_EL1; SPIs 40 to 47 and LPIs are on. */
function listening(its = false) {
  const g = new Guest()
  const devices = g.gic(its)
  const { gic } = devices
  g.code([I.unmaskIrq, I.nop, I.wfi, I.nop])
  g.code([I.iar, I.answer, I.eoir, I.eret], AT.VECTORS + 0x280)
  g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
  g.setAttribute(gic, DIST, 0, 0x12)
  g.setAttribute(gic, DIST, 0x84, 0xffff_ffff)
  g.setAttribute(gic, DIST, 0x104, 0xff00)
  g.setAttribute(gic, DIST, 0xc08, 0xaaaa_0000)
  g.setAttribute(gic, REDIST, 0x14, 0)
  g.setAttribute(gic, REDIST, 0x1_0080, 0xffff_ffff)
  g.setAttribute(gic, SYSREGS, ICC.PMR, 0xf0)
  g.setAttribute(gic, SYSREGS, ICC.IGRPEN1, 1)
  return { g, ...devices }
}

describe('interrupts', () => {
  const line = (g: Guest, irq: number, level: number) =>
    outcome(() => g.sys.ioctl(g.vm, uapi.KVM_IRQ_LINE, uapi.kvm_irq_level({ irq, level })))
  const SPI = uapi.KVM_ARM_IRQ_TYPE_SPI << uapi.KVM_ARM_IRQ_TYPE_SHIFT
  const PPI = uapi.KVM_ARM_IRQ_TYPE_PPI << uapi.KVM_ARM_IRQ_TYPE_SHIFT

  it('an SPI by KVM_IRQ_LINE', () => {
    const { g } = listening()
    expect([line(g, SPI | 40, 1), line(g, SPI | 40, 0)]).toEqual([0, 0])
    expect(g.cpu.answer()).toBe(40n)
  })

  it.each([
    ['an SPI below 32', SPI | 31, 'EINVAL'],
    ['an SPI beyond all', SPI | 300, 'EINVAL'],
    ['a PPI of a vCPU that is not there', PPI | (3 << 16) | 20, 'EINVAL'],
    ['an SGI', PPI | 3, 'EINVAL'],
    ['a PPI', PPI | 20, 0],
    ['a line of the vCPU', 0, 'ENXIO'],
    ['a type that is none', 5 << 24, 'EINVAL'],
  ])('KVM_IRQ_LINE: %s', (_, irq, result) => {
    expect(line(listening().g, irq >>> 0, 1)).toBe(result)
  })

  it('lines are ENXIO without a controller and EBUSY before its initialisation', () => {
    const g = new Guest()
    expect(line(g, SPI | 40, 1)).toBe('ENXIO')
    g.device(VGIC)
    expect(line(g, SPI | 40, 1)).toBe('EBUSY')
    expect(line(g, 0, 1)).toBe('ENXIO')
  })

  it('an eventfd raises the SPI of its number, without routes and with them', () => {
    const { g } = listening()
    const fd = g.sys.eventfd()
    g.sys.ioctl(g.vm, uapi.KVM_IRQFD, uapi.kvm_irqfd({ fd, gsi: 9 }))
    g.sys.write(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))
    expect(g.cpu.answer()).toBe(41n)
    const routing = uapi.kvm_irq_routing({
      nr: 1,
      entries: [uapi.kvm_irq_routing_entry({ gsi: 9, type: 1, u: { irqchip: { pin: 10 } } })],
    })
    g.sys.ioctl(g.vm, uapi.KVM_SET_GSI_ROUTING, routing)
    g.cpu.settle()
    g.sys.write(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))
    expect(g.cpu.answer()).toBe(42n)
  })

  it.each([
    ['a pin beyond all', { type: 1, u: { irqchip: { pin: 988 } } }],
    ['another controller', { type: 1, u: { irqchip: { irqchip: 1 } } }],
    ['a type that is none', { type: 9 }],
    ['a flag that is none', { type: 2, flags: 2 }],
  ])('routes: %s is EINVAL', (_, entry) => {
    const { g } = listening()
    const entries = [uapi.kvm_irq_routing_entry(entry)]
    const routing = uapi.kvm_irq_routing({ nr: 1, entries })
    expect(outcome(() => g.sys.ioctl(g.vm, uapi.KVM_SET_GSI_ROUTING, routing))).toBe('EINVAL')
  })
})

describe('messages through the ITS', () => {
  const DOORBELL = AT.ITS + 0x1_0040
  const signal = (g: Guest, change: Parameters<typeof uapi.kvm_msi>[0] = {}) =>
    outcome(() => {
      const msi = { address_lo: DOORBELL, data: 3, flags: 1, devid: DEVICE, ...change }
      return g.sys.ioctl(g.vm, uapi.KVM_SIGNAL_MSI, uapi.kvm_msi(msi))
    })

  /** Event 3 of the device is an LPI of the vCPU; tables and queue are written by the owner, as on a restore. */
  function mapped() {
    const world = listening(true)
    const { g, its, gic } = world
    const at = AT.TABLES
    const [queue, devices, collections, itt, properties, pending] = [0, 1, 2, 3, 4, 6].map(
      n => at + n * 0x1_0000,
    ) as [number, number, number, number, number, number]
    g.ram.fill(0xa1, properties - AT.CODE, properties - AT.CODE + 0x1_0000 - 8192)
    g.setAttribute(gic, REDIST, 0x70, properties | 15)
    g.setAttribute(gic, REDIST, 0x78, pending)
    g.setAttribute(gic, REDIST, 0, 1)
    g.setAttribute(its, ITS_REGS, 0x80, VALID | BigInt(queue))
    g.setAttribute(its, ITS_REGS, 0x100, VALID | BigInt(devices))
    g.setAttribute(its, ITS_REGS, 0x108, VALID | BigInt(collections))
    g.setAttribute(its, ITS_REGS, 0, 1)
    const commands = [
      [9n, 0n, VALID, 0n], // MAPC 0 to processor 0
      [8n | (BigInt(DEVICE) << 32n), 4n, VALID | BigInt(itt), 0n], // MAPD
      [10n | (BigInt(DEVICE) << 32n), (BigInt(INTID) << 32n) | 3n, 0n, 0n], // MAPTI
    ]
    commands.flat().forEach((word, i) => {
      g.view.setBigUint64(queue - AT.CODE + 8 * i, word, true)
    })
    g.setAttribute(its, ITS_REGS, 0x88, 32 * commands.length)
    return world
  }

  it('a message with its device is an LPI', () => {
    const { g } = mapped()
    expect(signal(g)).toBe(1)
    expect(g.cpu.answer()).toBe(BigInt(INTID))
  })

  it('a route with its device is one too', () => {
    const { g } = mapped()
    const msi = { address_lo: DOORBELL, data: 3, devid: DEVICE }
    const entry = uapi.kvm_irq_routing_entry({ gsi: 700, type: 2, flags: 1, u: { msi } })
    const routing = uapi.kvm_irq_routing({ nr: 1, entries: [entry] })
    g.sys.ioctl(g.vm, uapi.KVM_SET_GSI_ROUTING, routing)
    const fd = g.sys.eventfd()
    g.sys.ioctl(g.vm, uapi.KVM_IRQFD, uapi.kvm_irqfd({ fd, gsi: 700 }))
    g.sys.write(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))
    expect(g.cpu.answer()).toBe(BigInt(INTID))
  })

  it.each([
    ['without its device', { flags: 0 }, 'EINVAL'],
    ['with another flag', { flags: 3 }, 'EINVAL'],
    ['at another address', { address_lo: DOORBELL + 4 }, 'EINVAL'],
    ['of a device that the guest did not map', { devid: 0x109 }, 0],
    ['of an event that the guest did not map', { data: 4 }, 0],
  ])('a message %s', (_, change, result) => {
    expect(signal(mapped().g, change)).toBe(result)
  })

  it('is ENODEV without an ITS, EBUSY while it is off, and takes a device to be named', () => {
    const { g } = listening()
    expect(signal(g)).toBe('ENODEV')
    expect(g.sys.ioctl(g.vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID)).toBe(0)
    const off = listening(true)
    expect(signal(off.g)).toBe('EBUSY')
    expect(off.g.sys.ioctl(off.g.vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID)).toBe(1)
  })

  it('attributes of the ITS: one place, registers by width, controls', () => {
    const { g, its } = listening(true)
    expect(g.getAttribute(its, ADDR, A_ITS)).toBe(BigInt(AT.ITS))
    expect(g.setAttribute(its, ADDR, A_ITS, AT.ITS)).toBe('EEXIST')
    expect(g.setAttribute(its, ADDR, A_DIST, AT.ITS)).toBe('ENODEV')
    expect(g.setAttribute(its, ITS_REGS, 0x84, 0)).toBe('EINVAL')
    expect(g.getAttribute(its, ITS_REGS, 0x60)).toBe('ENXIO')
    expect(g.setAttribute(its, CTRL, 9)).toBe('ENXIO')
    for (const control of [INIT, 1, 2, 4]) expect(g.setAttribute(its, CTRL, control)).toBe(0)
    const has = (group: number, attr: number) =>
      g.attribute(uapi.KVM_HAS_DEVICE_ATTR, its, group, attr)
    expect([has(ADDR, A_ITS), has(CTRL, 4), has(ITS_REGS, 0), has(ITS_REGS, 0x60)]).toEqual([
      0,
      0,
      0,
      'ENXIO',
    ])
  })

  it('an ITS made before the controller is initialised, and one that has no place yet', () => {
    const g = new Guest()
    g.device(VGIC)
    const its = g.device(ITS) as number
    expect(g.device(ITS)).toBe('EBUSY')
    expect(g.getAttribute(its, ADDR, A_ITS)).toBe(0xffff_ffff_ffff_ffffn)
    expect(g.getAttribute(its, ITS_REGS, 0)).toBe('ENXIO')
  })
})

describe('timer interrupts of a vCPU', () => {
  const { KVM_ARM_VCPU_TIMER_CTRL: TIMER } = uapi
  it('are 27 and 30, can be set on all vCPUs before the first run', () => {
    const g = new Guest()
    expect(g.getAttribute(g.cpu.fd, TIMER, 0)).toBe(27n)
    expect(g.getAttribute(g.cpu.fd, TIMER, 1)).toBe(30n)
    expect(g.setAttribute(g.cpu.fd, TIMER, 0, 20)).toBe('EINVAL')
    g.gic()
    expect(g.setAttribute(g.cpu.fd, TIMER, 0, 40)).toBe('EINVAL')
    expect(g.setAttribute(g.cpu.fd, TIMER, 0, 20)).toBe(0)
    expect(g.getAttribute(g.cpu.fd, TIMER, 0)).toBe(20n)
    expect(g.setAttribute(g.cpu.fd, TIMER, 7, 20)).toBe('ENXIO')
    expect(g.setAttribute(g.cpu.fd, 9, 0, 20)).toBe('ENXIO')
    g.code([I.answer])
    g.cpu.answer()
    expect(g.setAttribute(g.cpu.fd, TIMER, 0, 21)).toBe('EBUSY')
  })
})
