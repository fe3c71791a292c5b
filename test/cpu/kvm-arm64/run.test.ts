// KVM_RUN on arm64: exits, PSCI, interrupt lines, timers, waiting.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { Guest as X86Guest } from '../kvm/guest.js'
import { AT, Guest, I, outcome, REG } from './guest.js'

const PSCI = { CPU_OFF: 0x8400_0002n, CPU_ON: 0xc400_0003n, OFF: 0x8400_0008n, RESET: 0x8400_0009n }
const POWER_OFF = (1 << uapi.KVM_ARM_VCPU_POWER_OFF) | (1 << uapi.KVM_ARM_VCPU_PSCI_0_2)

function guest(...words: number[]): Guest {
  const g = new Guest()
  g.code(words)
  return g
}

describe('exits', () => {
  it('a load from nowhere is an MMIO read that the owner answers, a store a write with its bytes', () => {
    const { cpu } = guest(I.load, I.inc0, I.store8)
    expect(cpu.enter()).toBe(uapi.KVM_EXIT_MMIO)
    const { mmio } = cpu.run.u
    expect([mmio.phys_addr, mmio.len, mmio.is_write]).toEqual([BigInt(AT.DEVICE), 4, 0])
    mmio.data.set([0x10, 0x20, 0, 0])
    expect(cpu.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect([mmio.phys_addr, mmio.len, mmio.is_write]).toEqual([BigInt(AT.DEVICE + 8), 4, 1])
    expect([...mmio.data]).toEqual([0x11, 0x20, 0, 0, 0, 0, 0, 0])
  })

  it('immediate_exit is EINTR with the reason INTR, and the access before it is completed', () => {
    const { cpu } = guest(I.load, I.inc0, I.store8)
    cpu.enter()
    cpu.run.u.mmio.data.set([1])
    cpu.run.immediate_exit = 1
    expect(cpu.enter()).toBe('EINTR')
    expect(cpu.run.exit_reason).toBe(uapi.KVM_EXIT_INTR)
    expect([cpu.get(REG.x(0)), cpu.get(REG.pc)]).toEqual([1n, BigInt(AT.CODE + 4)])
  })

  it('a slot without memory behind it is EFAULT, not an abort in the guest', () => {
    const g = guest(I.get)
    g.sys.munmap(g.vaddr + BigInt(AT.DATA - AT.CODE), 4096)
    expect(g.cpu.enter()).toBe('EFAULT')
    expect(g.cpu.get(REG.pc)).toBe(BigInt(AT.CODE))
  })

  it('guest writes show in the dirty log', () => {
    const g = guest(I.put, I.answer)
    g.slot({
      guest_phys_addr: BigInt(AT.CODE),
      memory_size: BigInt(g.ram.length),
      flags: uapi.KVM_MEM_LOG_DIRTY_PAGES,
    })
    g.cpu.answer()
    const bitmap = g.sys.mmap(4096)
    const log = uapi.kvm_dirty_log({ slot: 0, dirty_bitmap: bitmap.vaddr })
    g.sys.ioctl(g.vm, uapi.KVM_GET_DIRTY_LOG, log)
    const dirty = [...bitmap.bytes].flatMap((b, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter(n => (b >> n) & 1).map(n => 8 * i + n),
    )
    expect(dirty).toEqual([(AT.DATA - AT.CODE) / 4096])
  })
})

describe('a report of the guest (A-22)', () => {
  it('is one exit on arm64, and the next is the guest’s own', () => {
    const g = guest(I.brk, I.one0, I.answer)
    // The handler reports 0, then goes on behind the BRK: mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; eret
    g.code([I.answer, 0xd538_4020, 0x9100_1000, 0xd518_4020, I.eret], AT.VECTORS + 0x200)
    g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
    expect([g.cpu.answer(), g.cpu.answer()]).toEqual([0n, 1n])
  })

  it('and on x86-64', () => {
    const g = new X86Guest()
    g.code('0f 0b b8 07 00 00 00 e7 10') // ud2; mov $7, %eax; out %eax, $0x10
    const { vector, rip } = g.trap()
    expect(vector).toBe(6)
    g.view.setBigUint64(Number(g.regs().rsp), rip + 2n, true)
    expect(g.answer()).toBe(7)
  })
})

describe('PSCI', () => {
  it.each([
    ['SYSTEM_OFF', PSCI.OFF, uapi.KVM_SYSTEM_EVENT_SHUTDOWN],
    ['SYSTEM_RESET', PSCI.RESET, uapi.KVM_SYSTEM_EVENT_RESET],
  ])('%s tells the owner, who may go on: the call then has failed', (_, id, type) => {
    const { cpu } = guest(I.hvc, I.answer)
    cpu.set(REG.x(0), id)
    expect(cpu.enter()).toBe(uapi.KVM_EXIT_SYSTEM_EVENT)
    expect([cpu.run.u.system_event.type, cpu.run.u.system_event.ndata]).toEqual([type, 1])
    expect(BigInt.asIntN(64, cpu.answer())).toBe(-6n)
  })

  it('CPU_ON starts a vCPU that is off at its entry with X0, once', () => {
    const g = guest(I.hvc, I.device1, I.answer, I.hvc, I.device1, I.answer)
    g.code([I.answer], AT.CODE + 0x100)
    const second = g.start(1, POWER_OFF)
    expect(second.enter()).toBe('EINTR')
    const call = () => {
      g.cpu.set(REG.x(0), PSCI.CPU_ON)
      g.cpu.set(REG.x(1), 1n)
      g.cpu.set(REG.x(2), BigInt(AT.CODE + 0x100))
      g.cpu.set(REG.x(3), 77n)
    }
    call()
    expect(g.cpu.answer()).toBe(0n)
    expect([second.get(REG.pc), second.get(REG.x(0))]).toEqual([BigInt(AT.CODE + 0x100), 77n])
    g.cpu.settle()
    call()
    expect(BigInt.asIntN(64, g.cpu.answer())).toBe(-4n)
  })

  it('CPU_OFF leaves the vCPU stopped', () => {
    const { cpu } = guest(I.hvc, I.answer)
    cpu.set(REG.x(0), PSCI.CPU_OFF)
    expect(cpu.enter()).toBe('EINTR')
    const state = uapi.kvm_mp_state()
    cpu.sys.ioctl(cpu.fd, uapi.KVM_GET_MP_STATE, state)
    expect(state.mp_state).toBe(uapi.KVM_MP_STATE_STOPPED)
  })

  it('an unknown function is NOT_SUPPORTED', () => {
    const { cpu } = guest(I.hvc, I.device1, I.answer)
    cpu.set(REG.x(0), 0x1234n)
    expect(BigInt.asIntN(64, cpu.answer())).toBe(-1n)
  })

  it('the version is what the firmware register says', () => {
    const { cpu } = guest(I.hvc, I.device1, I.answer)
    cpu.set(uapi.KVM_REG_ARM_PSCI_VERSION, 2n)
    cpu.set(REG.x(0), 0x8400_0000n)
    expect(cpu.answer()).toBe(2n)
  })
})

describe('hypercalls that the owner asked for (KVM_ARM_VM_SMCCC_FILTER)', () => {
  const FILTER = [uapi.KVM_ARM_VM_SMCCC_CTRL, uapi.KVM_ARM_VM_SMCCC_FILTER] as const
  const { KVM_SMCCC_FILTER_DENY: DENY, KVM_SMCCC_FILTER_FWD_TO_USER: FORWARD } = uapi
  const filter = (g: Guest, base: number, nr_functions: number, action: number, pad = 0) => {
    const at = g.sys.mmap(4096)
    at.bytes.set(uapi.kvm_smccc_filter({ base, nr_functions, action, pad: [pad] }).bytes)
    const [group, attr] = FILTER
    const arg = uapi.kvm_device_attr({ group, attr: BigInt(attr), addr: at.vaddr })
    return outcome(() => g.sys.ioctl(g.vm, uapi.KVM_SET_DEVICE_ATTR, arg))
  }

  it.each([
    ['HVC', I.hvc, 0],
    ['SMC', I.smc, uapi.KVM_HYPERCALL_EXIT_SMC],
  ])(
    '%s leaves with its function; results are what the owner puts in registers',
    (_, call, flags) => {
      const g = guest(call, I.answer)
      expect(filter(g, 0xc600_0000, 16, FORWARD)).toBe(0)
      g.cpu.set(REG.x(0), 0xc600_0003n)
      expect(g.cpu.enter()).toBe(uapi.KVM_EXIT_HYPERCALL)
      const { nr, longmode } = g.cpu.run.u.hypercall
      expect([nr, longmode]).toEqual([0xc600_0003n, flags])
      g.cpu.set(REG.x(0), 42n)
      expect(g.cpu.answer()).toBe(42n)
    },
  )

  it('a denied function is NOT_SUPPORTED', () => {
    const g = guest(I.hvc, I.device1, I.answer)
    expect(filter(g, 0x8400_0000, 1, DENY)).toBe(0)
    g.cpu.set(REG.x(0), 0x8400_0000n)
    expect(BigInt.asIntN(64, g.cpu.answer())).toBe(-1n)
  })

  it.each([
    ['no functions', 0x8500_0000, 0, FORWARD, 0, 'EINVAL'],
    ['a range that wraps', 0xffff_ffff, 2, FORWARD, 0, 'EINVAL'],
    ['an action that is none', 0x8500_0000, 1, 3, 0, 'EINVAL'],
    ['padding', 0x8500_0000, 1, FORWARD, 1, 'EINVAL'],
    ['the architecture’s calls', 0x8000_0000, 1, FORWARD, 0, 'EEXIST'],
  ])('%s: refused', (_, base, count, action, pad, code) => {
    expect(filter(guest(), base, count, action, pad)).toBe(code)
  })

  it('ranges do not overlap, and none comes after the first run', () => {
    const g = guest(I.answer)
    expect(filter(g, 0x8500_0000, 8, FORWARD)).toBe(0)
    expect(filter(g, 0x8500_0007, 8, DENY)).toBe('EEXIST')
    g.cpu.answer()
    expect(filter(g, 0x8600_0000, 8, DENY)).toBe('EBUSY')
  })

  it('is the one attribute of a VM', () => {
    const g = guest()
    const has = (group: number, attr: number) =>
      g.attribute(uapi.KVM_HAS_DEVICE_ATTR, g.vm, group, attr)
    expect([has(...FILTER), has(0, 1), has(1, 0)]).toEqual([0, 'ENXIO', 'ENXIO'])
    expect(g.attribute(uapi.KVM_GET_DEVICE_ATTR, g.vm, ...FILTER)).toBe('EINVAL')
  })
})

describe('waiting', () => {
  it('WFI waits for the timer, and time passes', () => {
    const g = guest(I.thousand0, I.cntvTval, I.one0, I.cntvCtl, I.wfi, I.isr, I.answer)
    g.gic()
    enablePpi(g, 27)
    const before = g.host.clock.now
    expect(g.cpu.answer()).toBe(0x80n)
    expect(g.host.clock.now).toBeGreaterThanOrEqual(before + 1000)
  })

  it('WFI with nothing that could end it is EINTR', () => {
    expect(guest(I.wfi).cpu.enter()).toBe('EINTR')
  })

  it('a suspended vCPU that something wakes reports WAKEUP and stays suspended', () => {
    const g = guest(I.answer)
    const { cpu } = g
    const suspended = uapi.kvm_mp_state({ mp_state: uapi.KVM_MP_STATE_SUSPENDED })
    cpu.sys.ioctl(cpu.fd, uapi.KVM_SET_MP_STATE, suspended)
    expect(cpu.enter()).toBe('EINTR')
    const line = uapi.kvm_irq_level({ irq: 0, level: 1 })
    g.sys.ioctl(g.vm, uapi.KVM_IRQ_LINE, line)
    expect(cpu.enter()).toBe(uapi.KVM_EXIT_SYSTEM_EVENT)
    expect(cpu.run.u.system_event.type).toBe(uapi.KVM_SYSTEM_EVENT_WAKEUP)
    cpu.sys.ioctl(cpu.fd, uapi.KVM_SET_MP_STATE, uapi.kvm_mp_state())
    expect(cpu.answer()).toBe(0n)
  })
})

describe('interrupts', () => {
  it('KVM_IRQ_LINE raises IRQ and FIQ of a vCPU whose owner has the controller', () => {
    const { vm, sys, cpu } = guest(I.isr, I.answer, I.isr, I.answer, I.isr, I.answer)
    const line = (irq: number, level: number) =>
      sys.ioctl(vm, uapi.KVM_IRQ_LINE, uapi.kvm_irq_level({ irq, level }))
    expect(cpu.answer()).toBe(0n)
    line(uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
    line(uapi.KVM_ARM_IRQ_CPU_FIQ, 1)
    expect(cpu.answer()).toBe(0xc0n)
    line(uapi.KVM_ARM_IRQ_CPU_IRQ, 0)
    expect(cpu.answer()).toBe(0x40n)
  })

  it('an unmasked one is taken through its vector', () => {
    const g = guest(I.unmaskIrq, I.nop, I.answer)
    g.code([I.one0, I.answer], AT.VECTORS + 0x280)
    g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
    g.sys.ioctl(g.vm, uapi.KVM_IRQ_LINE, uapi.kvm_irq_level({ irq: 0, level: 1 }))
    expect(g.cpu.answer()).toBe(1n)
    expect(g.cpu.get(REG.elr)).toBe(BigInt(AT.CODE + 4))
  })

  it('without a controller the owner hears of the timer through the page (KVM_CAP_ARM_USER_IRQ)', () => {
    const { cpu } = guest(I.thousand0, I.cntvTval, I.one0, I.cntvCtl, I.wfi, I.answer)
    expect(cpu.enter()).toBe('EINTR')
    expect(cpu.run.s.regs.device_irq_level).toBe(BigInt(uapi.KVM_ARM_DEV_EL1_VTIMER))
  })

  it('an SError from KVM_SET_VCPU_EVENTS is pending until it is taken', () => {
    const g = guest(I.nop, I.answer, I.unmaskSerror, I.nop, I.answer)
    g.code([I.one0, I.answer], AT.VECTORS + 0x380)
    g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
    const { sys, cpu } = g
    const events = () => {
      const e = uapi.kvm_vcpu_events()
      sys.ioctl(cpu.fd, uapi.KVM_GET_VCPU_EVENTS, e)
      return e.exception.serror_pending
    }
    const pend = uapi.kvm_vcpu_events({ exception: { serror_pending: 1 } })
    sys.ioctl(cpu.fd, uapi.KVM_SET_VCPU_EVENTS, pend)
    expect(cpu.answer()).toBe(0n)
    expect(events()).toBe(1)
    expect(cpu.answer()).toBe(1n)
    expect(events()).toBe(0)
    expect(cpu.get(REG.esr) >> 26n).toBe(0x2fn)
  })

  it('an external abort from KVM_SET_VCPU_EVENTS is taken at once', () => {
    const { cpu } = guest(I.nop)
    cpu.set(REG.vbar, BigInt(AT.VECTORS))
    const abort = uapi.kvm_vcpu_events({ exception: { ext_dabt_pending: 1 } })
    cpu.sys.ioctl(cpu.fd, uapi.KVM_SET_VCPU_EVENTS, abort)
    expect([cpu.get(REG.pc), cpu.get(REG.esr) >> 26n]).toEqual([BigInt(AT.VECTORS + 0x200), 0x25n])
  })
})

/** Enables a PPI of the first vCPU through the redistributor's registers. */
function enablePpi(g: Guest, intid: number): void {
  const gic = [...g.sys.process.fds.entries()].find(e => e.file.kind === 'kvm-device')!.fd
  const rd = uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS
  g.setAttribute(gic, rd, 0x1_0080, 0xffff_ffff) // IGROUPR0
  g.setAttribute(gic, rd, 0x1_0100, 2 ** intid) // ISENABLER0
  g.setAttribute(gic, rd, 0x14, 0) // WAKER
  g.setAttribute(gic, uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, 0x12) // CTLR: group 1, ARE
  const cpuRegister = (key: number, value: number) =>
    g.setAttribute(gic, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, key, value)
  cpuRegister(0xc230, 0xf0) // ICC_PMR_EL1
  cpuRegister(0xc667, 1) // ICC_IGRPEN1_EL1
}
