import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, Guest } from './guest.js'

// sti; 1: nop; jmp 1b
const LOOP = 'fb 90 eb fd'
// sti; 1: hlt; jmp 1b
const HALT = 'fb f4 eb fd'
/** Software-enables the APIC: SVR = 0x1ff. */
// mov $0xfee000f0,%ebx; movl $0x1ff,(%rbx); out %al,$0x10
const ENABLE = 'bb f0 00 e0 fe c7 03 ff 01 00 00 e6 10'

function enabled(rest: string): Guest {
  const g = new Guest()
  g.code(`${ENABLE} ${rest}`)
  g.answer()
  return g
}

/** Runs until vector `v` reports, without frame checks. */
function interrupt(g: Guest): number {
  return g.trap().vector
}

describe('KVM_SIGNAL_MSI', () => {
  it('reaches the handler of a running guest with its flags and return address', () => {
    const g = enabled(LOOP)
    expect(g.signalMsi(0x41)).toBe(1)
    const frame = g.trap()
    expect([frame.vector, frame.cs, frame.flags & 0x200]).toEqual([0x41, 8, 0x200])
    expect(frame.rip).toBeGreaterThan(BigInt(AT.CODE))
    expect(g.regs().rflags & 0x200n).toBe(0n)
  })

  it('ends HLT, and its return address is behind the HLT', () => {
    const g = enabled(HALT)
    g.host.clock.later(() => g.signalMsi(0x50), 100)
    const { vector, rip } = g.trap()
    expect(vector).toBe(0x50)
    expect(g.ram[Number(rip) - 1]).toBe(0xf4)
  })

  it('waits while IF is clear', () => {
    // mov $100,%ecx; 1: loop 1b; mov $1,%al; out %al,$0x10; sti; nop; jmp .
    const g = enabled('b9 64 00 00 00 e2 fe b0 01 e6 10 fb 90 eb fe')
    g.signalMsi(0x41)
    expect(g.answer()).toBe(1)
    expect(interrupt(g)).toBe(0x41)
  })

  it('is not taken right after STI: one more instruction runs', () => {
    // sti; inc %r9; jmp .
    const g = enabled('fb 49 ff c1 eb fe')
    g.signalMsi(0x41)
    interrupt(g)
    expect(g.regs().r9).toBe(1n)
  })

  it.each([
    ['an APIC id that nobody has', 0xfee0_5000, 0x41, 0],
    ['broadcast', 0xfeef_f000, 0x41, 1],
    ['SMI mode, which is nothing here', 0xfee0_0000, 0x241, 0],
    ['lowest priority', 0xfee0_0000, 0x141, 1],
  ])('to %s answers how many took it', (_, address, data, taken) => {
    expect(enabled(LOOP).signalMsi(data, address)).toBe(taken)
  })

  it('is dropped while software has the APIC disabled', () => {
    const g = new Guest()
    g.code(LOOP)
    expect(g.signalMsi(0x41)).toBe(0)
  })

  it('an NMI is taken with IF clear, and blocks the next until IRET', () => {
    // cli; nop; jmp .
    const g = enabled('fa 90 eb fe')
    g.signalMsi(0x400)
    expect(interrupt(g)).toBe(2)
    g.signalMsi(0x400)
    g.host.clock.later(() => {
      g.run.immediate_exit = 1
    }, 50)
    expect(g.trap().vector).toBe(2) // the handler's IRETQ ran first
  })

  it.each([
    ['a VM without APICs', false, 0],
    ['flags', true, 1],
  ])('EINVAL: %s', (_, irqchip, flags) => {
    const g = new Guest({ irqchip })
    const msi = uapi.kvm_msi({ address_lo: 0xfee0_0000, data: 0x41, flags })
    expect(() => g.sys.ioctl(g.vm, uapi.KVM_SIGNAL_MSI, msi)).toThrow(/EINVAL/)
  })
})

describe('priorities', () => {
  it('a higher class interrupts a lower one, an equal class waits for EOI', () => {
    // The handler of 0x41 opens interrupts and stays until told to end.
    const g = enabled(LOOP)
    // push %rax; mov $0x41,%al; out %al,$0xf0; sti; 1: nop; jmp 1b
    g.code('50 b0 41 e6 f0 fb 90 eb fd', 0x9000)
    g.gate({ vector: 0x41, target: 0x9000n })
    g.signalMsi(0x41)
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    g.signalMsi(0x4f)
    g.signalMsi(0x52)
    expect(interrupt(g)).toBe(0x52)
    g.host.clock.later(() => {
      g.run.immediate_exit = 1
    }, 5000)
    expect(g.enter()).toBe('EINTR') // 0x4f waits
    const lapic = uapi.kvm_lapic_state()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_LAPIC, lapic)
    const view = new DataView(lapic.bytes.buffer)
    expect(view.getUint32(0x220, true)).toBe(1 << 0xf) // IRR 0x4f
    expect(view.getUint32(0x120, true)).toBe((1 << 18) | (1 << 1)) // ISR 0x52, 0x41
    expect(view.getUint32(0xa0, true)).toBe(0x50) // PPR
  })

  it('CR8 holds back its class and below', () => {
    // mov $5,%eax; mov %rax,%cr8; sti; mov $50,%ecx; 1: loop 1b; out %al,$0x10; xor %eax,%eax; mov %rax,%cr8; jmp .
    const g = enabled(
      'b8 05 00 00 00 44 0f 22 c0 fb b9 32 00 00 00 e2 fe e6 10 31 c0 44 0f 22 c0 eb fe',
    )
    g.signalMsi(0x51)
    g.answer()
    expect(g.regs().rflags & 0x200n).toBe(0x200n)
    expect(interrupt(g)).toBe(0x51)
  })
})

describe('the APIC from inside', () => {
  it('a self-IPI arrives', () => {
    // sti; mov $0xfee00300,%ebx; movl $0x44041,(%rbx); jmp .
    const g = enabled('fb bb 00 03 e0 fe c7 03 41 40 04 00 eb fe')
    expect(interrupt(g)).toBe(0x41)
  })

  it('a one-shot timer fires once, at its instant', () => {
    // mov $0xfee00000,%ebx; movl $0xb,0x3e0(%rbx); movl $0x60,0x320(%rbx); movl $1000,0x380(%rbx); sti; 1: hlt; jmp 1b
    const g = enabled(
      'bb 00 00 e0 fe c7 83 e0 03 00 00 0b 00 00 00 c7 83 20 03 00 00 60 00 00 00 c7 83 80 03 00 00 e8 03 00 00 fb f4 eb fd',
    )
    const start = g.host.clock.now
    expect(interrupt(g)).toBe(0x60)
    expect(g.host.clock.now - start).toBeGreaterThanOrEqual(1000)
    expect(g.host.clock.now - start).toBeLessThan(1020)
    expect(g.enter()).toBe('EINTR')
  })

  it('a periodic timer goes on, and its count runs down', () => {
    // mov $0xfee00000,%ebx; movl $0xb,0x3e0(%rbx); movl $0x20060,0x320(%rbx); movl $1000,0x380(%rbx); jmp 2f; nop; 2: mov 0x390(%rbx),%eax; out %eax,$0x10; sti; 1: hlt; movl $0,0xb0(%rbx); jmp 1b
    const g = enabled(
      'bb 00 00 e0 fe c7 83 e0 03 00 00 0b 00 00 00 c7 83 20 03 00 00 60 00 02 00 c7 83 80 03 00 00 e8 03 00 00 eb 01 90 8b 83 90 03 00 00 e7 10 fb f4 c7 83 b0 00 00 00 00 00 00 00 eb f3',
    )
    expect(g.answer()).toBeLessThan(1000)
    const times: number[] = []
    for (let i = 0; i < 3; i++) {
      expect(interrupt(g)).toBe(0x60)
      times.push(g.host.clock.now)
    }
    expect(times[2]! - times[1]!).toBeGreaterThan(990)
    expect(times[2]! - times[1]!).toBeLessThan(1010)
  })

  it('registers read back as the table has them', () => {
    // mov $0xfee00000,%ebx; mov 0x30(%rbx),%eax; out %eax,$0x10; movl $0xffffffff,0xd0(%rbx); mov 0xd0(%rbx),%eax; out %eax,$0x10; movb $1,0x80(%rbx); mov 0x80(%rbx),%eax; out %eax,$0x10
    const g = enabled(
      'bb 00 00 e0 fe 8b 43 30 e7 10 c7 83 d0 00 00 00 ff ff ff ff 8b 83 d0 00 00 00 e7 10 c6 83 80 00 00 00 01 8b 83 80 00 00 00 e7 10',
    )
    expect([g.answer(), g.answer(), g.answer()]).toEqual([0x5_0014, 0xff00_0000, 0])
  })

  it('an illegal vector in the ICR is an error in ESR', () => {
    // mov $0xfee00000,%ebx; movl $0x40005,0x300(%rbx); movl $0,0x280(%rbx); mov 0x280(%rbx),%eax; out %eax,$0x10
    const g = enabled(
      'bb 00 00 e0 fe c7 83 00 03 00 00 05 00 04 00 c7 83 80 02 00 00 00 00 00 00 8b 83 80 02 00 00 e7 10',
    )
    expect(g.answer()).toBe(0x20)
  })
})

describe('KVM_INTERRUPT', () => {
  const interruptBy = (g: Guest, irq: number) =>
    g.sys.ioctl(g.vcpu, uapi.KVM_INTERRUPT, uapi.kvm_interrupt({ irq }))

  it('delivers a vector without an in-kernel APIC, and the page says when one fits', () => {
    const g = new Guest({ irqchip: false })
    // out %al,$0x10; sti; nop; out %al,$0x10; jmp .
    g.code('e6 10 fb 90 e6 10 eb fe')
    g.answer()
    expect([g.run.if_flag, g.run.ready_for_interrupt_injection]).toEqual([0, 0])
    g.answer()
    expect([g.run.if_flag, g.run.ready_for_interrupt_injection]).toEqual([1, 1])
    interruptBy(g, 0x77)
    expect(interrupt(g)).toBe(0x77)
  })

  it('the interrupt window exit comes as soon as IF is set', () => {
    const g = new Guest({ irqchip: false })
    // mov $10,%ecx; 1: loop 1b; sti; nop; inc %r9; jmp .
    g.code('b9 0a 00 00 00 e2 fe fb 90 49 ff c1 eb fe')
    g.run.request_interrupt_window = 1
    expect(g.enter()).toBe(uapi.KVM_EXIT_IRQ_WINDOW_OPEN)
    expect(g.regs().r9).toBe(0n)
  })

  it.each([
    ['ENXIO', true, 0x41],
    ['EINVAL', true, 256],
  ])('%s', (code, irqchip, irq) => {
    expect(() => interruptBy(new Guest({ irqchip }), irq)).toThrow(code)
  })
})

describe('KVM_IRQFD', () => {
  const route = (g: Guest, gsi: number, vector: number) =>
    g.sys.ioctl(
      g.vm,
      uapi.KVM_SET_GSI_ROUTING,
      uapi.kvm_irq_routing({
        nr: 1,
        entries: [
          uapi.kvm_irq_routing_entry({
            gsi,
            type: uapi.KVM_IRQ_ROUTING_MSI,
            u: { msi: { address_lo: 0xfee0_0000, data: vector } },
          }),
        ],
      }),
    )
  const bind = (g: Guest, fd: number, gsi: number, flags = 0) =>
    g.sys.ioctl(g.vm, uapi.KVM_IRQFD, uapi.kvm_irqfd({ fd, gsi, flags }))

  it('an eventfd becomes the interrupt its number is routed to', () => {
    const g = enabled(LOOP)
    const fd = g.sys.eventfd()
    route(g, 24, 0x61)
    bind(g, fd, 24)
    g.sys.eventfdOf(fd).signal()
    expect(interrupt(g)).toBe(0x61)
    expect(g.sys.eventfdOf(fd).count).toBe(0n)
  })

  it('one signalled before it was bound fires at once; after deassign it is silent', () => {
    const g = enabled(LOOP)
    const fd = g.sys.eventfd(1)
    route(g, 24, 0x61)
    bind(g, fd, 24)
    expect(interrupt(g)).toBe(0x61)
    bind(g, fd, 24, uapi.KVM_IRQFD_FLAG_DEASSIGN)
    g.sys.eventfdOf(fd).signal()
    expect(g.sys.eventfdOf(fd).count).toBe(1n)
  })

  it('refuses what it cannot bind', () => {
    const g = new Guest()
    const fd = g.sys.eventfd()
    expect(() => bind(g, 99, 24)).toThrow('EBADF')
    expect(() => bind(g, g.vm, 24)).toThrow('EINVAL')
    expect(() => bind(g, fd, 24, uapi.KVM_IRQFD_FLAG_RESAMPLE)).toThrow('EINVAL')
    expect(() => bind(g, fd, 5000)).toThrow('EINVAL')
    bind(g, fd, 24)
    expect(() => bind(g, fd, 25)).toThrow('EBUSY')
    expect(() => bind(new Guest({ irqchip: false }), fd, 24)).toThrow('EINVAL')
  })
})
