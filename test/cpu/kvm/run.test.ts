import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, Guest } from './guest.js'

describe('port exits', () => {
  it.each([
    // mov $0x1234,%dx; mov $0x12345678,%eax; out %al,%dx; hlt
    [1, 0x78, '66 ba 34 12 b8 78 56 34 12 ee f4'],
    // mov $0x1234,%dx; mov $0x12345678,%eax; out %ax,%dx; hlt
    [2, 0x5678, '66 ba 34 12 b8 78 56 34 12 66 ef f4'],
    // mov $0x1234,%dx; mov $0x12345678,%eax; out %eax,%dx; hlt
    [4, 0x12345678, '66 ba 34 12 b8 78 56 34 12 ef f4'],
  ])('a %i-byte OUT tells port, size, direction and data', (size, value, code) => {
    const g = new Guest()
    g.code(code)
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    const { io } = g.run.u
    expect([io.direction, io.size, io.port, io.count]).toEqual([
      uapi.KVM_EXIT_IO_OUT,
      size,
      0x1234,
      1,
    ])
    expect(io.data_offset).toBe(4096n)
    const data = new DataView(g.page.buffer, g.page.byteOffset + 4096)
    expect(data.getUint32(0, true) % 2 ** (8 * size)).toBe(value)
  })

  it('an IN takes the data the owner left and changes no other byte of RAX', () => {
    const g = new Guest()
    // mov $-1,%rax; in $0x40,%al; out %eax,$0x10
    g.code('48 c7 c0 ff ff ff ff e4 40 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    expect(g.run.u.io.direction).toBe(uapi.KVM_EXIT_IO_IN)
    g.page[4096] = 0x5a
    expect(g.answer()).toBe(0xffffff5a)
  })

  it('REP OUTSB exits once a byte, in order', () => {
    const g = new Guest()
    g.ram.set(new TextEncoder().encode('abc'), AT.DATA)
    // mov $0x20000,%esi; mov $3,%ecx; mov $0x10,%dx; rep outsb; hlt
    g.code('be 00 00 02 00 b9 03 00 00 00 66 ba 10 00 f3 6e f4')
    expect([g.answer(), g.answer(), g.answer()].map(c => String.fromCharCode(c)).join('')).toBe(
      'abc',
    )
    expect(g.enter()).toBe('EINTR')
    expect(g.regs().rcx).toBe(0n)
  })

  it('REP INSB fills memory from the owner', () => {
    const g = new Guest()
    // mov $0x20000,%edi; mov $3,%ecx; mov $0x40,%dx; rep insb; mov %cl,%al; out %al,$0x10
    g.code('bf 00 00 02 00 b9 03 00 00 00 66 ba 40 00 f3 6c 88 c8 e6 10')
    for (const byte of [1, 2, 3]) {
      expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
      g.page[4096] = byte
    }
    g.answer()
    expect([...g.ram.subarray(AT.DATA, AT.DATA + 4)]).toEqual([1, 2, 3, 0])
  })
})

describe('MMIO exits', () => {
  it("a load exits with its address and size, and completes with the owner's data", () => {
    const g = new Guest()
    // mov $0xd0000010,%eax; mov (%rax),%ecx; mov %ecx,%eax; out %eax,$0x10
    g.code('b8 10 00 00 d0 8b 08 89 c8 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    const { mmio } = g.run.u
    expect([mmio.phys_addr, mmio.len, mmio.is_write]).toEqual([0xd000_0010n, 4, 0])
    mmio.data.set([0x44, 0x33, 0x22, 0x11])
    expect(g.answer()).toBe(0x11223344)
  })

  it('a store carries its bytes and retires on re-entry', () => {
    const g = new Guest()
    // mov $0xd0000010,%eax; movabs $0x1122334455667788,%rcx; mov %rcx,(%rax); out %al,$0x10
    g.code('b8 10 00 00 d0 48 b9 88 77 66 55 44 33 22 11 48 89 08 e6 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    const { mmio } = g.run.u
    expect([mmio.phys_addr, mmio.len, mmio.is_write]).toEqual([0xd000_0010n, 8, 1])
    expect([...mmio.data]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11])
    expect(g.answer()).toBe(0x10)
  })

  it('a read-modify-write is a load exit, then a store exit of the result, once each', () => {
    const g = new Guest()
    // mov $0xd0000000,%eax; addl $5,(%rax); out %al,$0x10
    g.code('b8 00 00 00 d0 83 00 05 e6 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect(g.run.u.mmio.is_write).toBe(0)
    g.run.u.mmio.data.set([10, 0, 0, 0])
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect([g.run.u.mmio.is_write, g.run.u.mmio.data[0]]).toEqual([1, 15])
    g.answer()
  })

  it('an access across pages, one in RAM and one not, exits for its own part only', () => {
    const g = new Guest()
    g.map(AT.DATA + 0x1000, 0xd000_0000n | 7n)
    g.ram.set([0x11, 0x22], AT.DATA + 0xffe)
    // mov $0x20ffe,%eax; mov (%rax),%eax; out %eax,$0x10
    g.code('b8 fe 0f 02 00 8b 00 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect([g.run.u.mmio.phys_addr, g.run.u.mmio.len]).toEqual([0xd000_0000n, 2])
    g.run.u.mmio.data.set([0x33, 0x44])
    expect(g.answer()).toBe(0x44332211)
  })

  it('MOVDIR64B to nowhere leaves in eight pieces', () => {
    const g = new Guest()
    for (let i = 0; i < 64; i++) g.ram[AT.DATA + i] = i
    // mov $0xd0000000,%eax; mov $0x20000,%edx; movdir64b (%rdx),%rax; out %al,$0x10
    g.code('b8 00 00 00 d0 ba 00 00 02 00 66 0f 38 f8 02 e6 10')
    const seen: number[] = []
    for (let i = 0; i < 8; i++) {
      expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
      seen.push(Number(g.run.u.mmio.phys_addr & 0xffn), ...g.run.u.mmio.data)
    }
    expect(seen.filter((_, i) => i % 9 !== 0)).toEqual(Array.from({ length: 64 }, (_, i) => i))
    g.answer()
  })
})

describe('other exits', () => {
  it('HLT without an in-kernel APIC exits, and the next run goes on behind it', () => {
    const g = new Guest({ irqchip: false })
    // hlt; out %al,$0x10
    g.code('f4 e6 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_HLT)
    expect(g.regs().rip).toBe(BigInt(AT.CODE + 1))
    g.answer()
  })

  it('a triple fault is SHUTDOWN', () => {
    const g = new Guest()
    g.setSregs(s => Object.assign(s.idt, { base: 0n, limit: 0 }))
    // ud2
    g.code('0f 0b')
    expect(g.enter()).toBe(uapi.KVM_EXIT_SHUTDOWN)
  })

  it('an unknown hypercall answers -KVM_ENOSYS in the guest', () => {
    const g = new Guest()
    // mov $99,%eax; vmcall; out %eax,$0x10
    g.code('b8 63 00 00 00 0f 01 c1 e7 10')
    expect(g.answer() | 0).toBe(-1000)
  })

  it("MAP_GPA_RANGE exits once enabled, and RAX takes the owner's answer", () => {
    const g = new Guest()
    const enable = uapi.kvm_enable_cap({ cap: uapi.KVM_CAP_EXIT_HYPERCALL, args: [1n << 12n] })
    g.sys.ioctl(g.vm, uapi.KVM_ENABLE_CAP, enable)
    // mov $12,%eax; mov $0x1000,%ebx; mov $2,%ecx; mov $3,%edx; vmcall; out %eax,$0x10
    g.code('b8 0c 00 00 00 bb 00 10 00 00 b9 02 00 00 00 ba 03 00 00 00 0f 01 c1 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_HYPERCALL)
    const { hypercall } = g.run.u
    expect([hypercall.nr, ...hypercall.args]).toEqual([12n, 0x1000n, 2n, 3n, 0n, 0n, 0n])
    expect(hypercall.longmode).toBe(1)
    hypercall.ret = 7n
    expect(g.answer()).toBe(7)
  })

  it('single step reports the next instruction after each one', () => {
    const g = new Guest()
    // nop; nop; nop
    g.code('90 90 90')
    const debug = uapi.kvm_guest_debug({
      control: uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_SINGLESTEP,
    })
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, debug)
    for (const step of [1, 2]) {
      expect(g.enter()).toBe(uapi.KVM_EXIT_DEBUG)
      expect([g.run.u.debug.arch.exception, g.run.u.debug.arch.pc]).toEqual([
        1,
        BigInt(AT.CODE + step),
      ])
    }
  })
})

describe('entry checks', () => {
  const breakages: [string, (s: ReturnType<Guest['sregs']>) => void][] = [
    ['CS that is no code segment', s => Object.assign(s.cs, { type: 3 })],
    ['CS without L', s => Object.assign(s.cs, { l: 0, db: 1 })],
    ['CS and SS of different privilege', s => Object.assign(s.ss, { dpl: 3 })],
    ['SS that is a code segment', s => Object.assign(s.ss, { type: 11 })],
    ['DS that is a system segment', s => Object.assign(s.ds, { s: 0 })],
    ['TR that is no busy TSS', s => Object.assign(s.tr, { type: 9 })],
    ['LDTR that is a TSS', s => Object.assign(s.ldt, { unusable: 0, present: 1, type: 9, s: 0 })],
    ['a GDT base that is not canonical', s => Object.assign(s.gdt, { base: 1n << 47n })],
    [
      'no paging',
      s => Object.assign(s, { cr0: 0x11n, efer: 0n }, Object.assign(s.cs, { l: 0 }) && {}),
    ],
  ]
  it.each(breakages)('%s is FAIL_ENTRY with the invalid-state reason', (_, change) => {
    const g = new Guest()
    g.setSregs(change)
    expect(g.enter()).toBe(uapi.KVM_EXIT_FAIL_ENTRY)
    expect(g.run.u.fail_entry.hardware_entry_failure_reason).toBe(0x8000_0021n)
    g.setSregs(() => {})
    // out %al,$0x10
    g.code('e6 10')
    g.answer()
  })

  it.each([
    ['RIP that is not canonical', { rip: 1n << 47n }],
    ['RFLAGS with VM set', { rflags: 1n << 17n }],
  ])('%s is FAIL_ENTRY', (_, regs) => {
    const g = new Guest()
    g.setRegs(regs)
    expect(g.enter()).toBe(uapi.KVM_EXIT_FAIL_ENTRY)
  })
})

describe('being interrupted', () => {
  it('immediate_exit returns EINTR before the first instruction', () => {
    const g = new Guest()
    // out %al,$0x10
    g.code('e6 10')
    g.run.immediate_exit = 1
    expect(g.enter()).toBe('EINTR')
    expect(g.run.exit_reason).toBe(uapi.KVM_EXIT_INTR)
    expect(g.regs().rip).toBe(BigInt(AT.CODE))
    g.run.immediate_exit = 0
    g.answer()
  })

  it('immediate_exit still completes the access of the last exit', () => {
    const g = new Guest()
    // in $0x40,%al; out %al,$0x10
    g.code('e4 40 e6 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    g.page[4096] = 7
    g.run.immediate_exit = 1
    expect(g.enter()).toBe('EINTR')
    expect([g.regs().rip, g.regs().rax & 0xffn]).toEqual([BigInt(AT.CODE + 2), 7n])
  })

  it('work on the clock can kick a guest out of an endless loop', () => {
    const g = new Guest()
    // jmp .
    g.code('eb fe')
    g.host.clock.later(() => {
      g.run.immediate_exit = 1
    }, 50_000)
    expect(g.enter()).toBe('EINTR')
    expect(g.host.clock.now).toBeGreaterThanOrEqual(50_000)
    expect(g.host.clock.now).toBeLessThan(60_000)
  })

  it('HLT that nothing can end is EINTR, and stays halted', () => {
    const g = new Guest()
    // hlt; out %al,$0x10
    g.code('f4 e6 10')
    expect(g.enter()).toBe('EINTR')
    const state = uapi.kvm_mp_state()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_MP_STATE, state)
    expect(state.mp_state).toBe(uapi.KVM_MP_STATE_HALTED)
    g.sys.ioctl(
      g.vcpu,
      uapi.KVM_SET_MP_STATE,
      uapi.kvm_mp_state({ mp_state: uapi.KVM_MP_STATE_RUNNABLE }),
    )
    g.answer()
  })
})

describe('time', () => {
  it('an instruction takes a nanosecond, and the TSC counts them', () => {
    const g = new Guest()
    // rdtsc; mov %eax,%ebx; nop; nop; jmp 1f; nop; 1: rdtsc; sub %ebx,%eax; out %eax,$0x10
    g.code('0f 31 89 c3 90 90 eb 01 90 0f 31 29 d8 e7 10')
    expect(g.answer()).toBe(5)
  })

  it('nsPerInstruction stretches it', () => {
    const g = new Guest({ parts: { nsPerInstruction: 10 } })
    // nop; nop; nop; nop; out %al,$0x10
    g.code('90 90 90 90 e6 10')
    g.answer()
    expect(g.host.clock.now).toBe(40)
  })

  it('work on the clock happens at its instant, between instructions', () => {
    const g = new Guest()
    // 1: inc %rcx; jmp 1b
    g.code('48 ff c1 eb fb')
    let at = 0n
    g.host.clock.later(() => {
      at = g.regs().rcx
      g.run.immediate_exit = 1
    }, 1000)
    g.enter()
    expect(at).toBe(500n)
  })
})
