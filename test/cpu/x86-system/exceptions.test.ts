// Delivery of exceptions in 64-bit mode, seen from behind KVM: vector, error code, CR2, frame, flags, privilege.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, type Gate, Guest, SELECTOR } from '../kvm/guest.js'

const RF = 0x1_0000

describe('an exception at CPL 0 pushes its frame', () => {
  it.each([
    // xor %ecx,%ecx; div %ecx
    ['#DE', 0, undefined, '31 c9 f7 f1', 2],
    // nop; ud2
    ['#UD', 6, undefined, '90 0f 0b', 1],
    // movabs $0x800000000000,%rax; mov (%rax),%al
    ['#GP by a non-canonical load', 13, 0, '48 b8 00 00 00 00 00 80 00 00 8a 00', 10],
    // movabs $0x900000000000,%rsp; push %rax
    ['#SS by a non-canonical stack', 12, 0, '48 bc 00 00 00 00 00 90 00 00 50', 10],
    // mov $0xda0,%ecx; rdmsr
    ['#GP by an unknown MSR', 13, 0, 'b9 a0 0d 00 00 0f 32', 5],
    // mov $0x80000020,%eax; mov %rax,%cr4
    ['#GP by a reserved CR4 bit', 13, 0, 'b8 20 00 00 80 0f 22 e0', 5],
    // mov $0x11,%eax; mov %rax,%cr0
    ['#GP by clearing CR0.PG', 13, 0, 'b8 11 00 00 00 0f 22 c0', 5],
    // mov $3,%eax; mov %eax,%ss
    ['#GP by a null SS selector from a wrong RPL', 13, 0, 'b8 03 00 00 00 8e d0', 5],
    // mov $0xf8,%eax; mov %eax,%ds
    ['#GP by a selector outside the GDT', 13, 0xf8, 'b8 f8 00 00 00 8e d8', 5],
    // mov $8,%eax; mov %eax,%ss
    ['#GP by a selector of a code segment', 13, 0x8, 'b8 08 00 00 00 8e d0', 5],
  ])('%s', (_, vector, error, code, at) => {
    const g = new Guest()
    g.gate({ vector: 12, ist: 1 })
    g.code(code)
    const { rsp } = g.regs()
    const frame = g.trap()
    expect(frame).toMatchObject({ vector, error, rip: BigInt(AT.CODE + at), cs: 8, ss: 0x10 })
    expect(frame.flags & RF).toBe(RF)
    expect(frame.rsp === rsp || vector === 12).toBe(true)
  })

  it('aligns the stack to 16 bytes below an odd RSP', () => {
    const g = new Guest()
    // ud2
    g.code('0f 0b')
    g.setRegs({ rsp: BigInt(AT.STACK - 3) })
    const frame = g.trap()
    expect(frame.rsp).toBe(BigInt(AT.STACK - 3))
    expect(g.regs().rsp % 16n).toBe(8n)
  })

  it('clears TF, NT and RF, and IF only through an interrupt gate', () => {
    for (const [type, left] of [
      [14, 0n],
      [15, 0x200n],
    ] as const) {
      const g = new Guest()
      g.gate({ vector: 6, type })
      // ud2
      g.code('0f 0b')
      g.setRegs({ rflags: 0x4202n })
      expect(g.trap().flags & 0x4200).toBe(0x4200)
      expect(g.regs().rflags & 0x1_4300n).toBe(left)
    }
  })

  it('INT3 and INT n return behind the instruction, without RF', () => {
    const g = new Guest()
    // int3; int $0x45
    g.code('cc cd 45')
    const first = g.trap()
    expect([first.vector, first.rip, first.flags & RF]).toEqual([3, BigInt(AT.CODE + 1), 0])
    const second = g.trap()
    expect([second.vector, second.rip]).toEqual([0x45, BigInt(AT.CODE + 3)])
  })

  it('TF traps after the next instruction, with DR6.BS', () => {
    const g = new Guest()
    // pushf; orl $0x100,(%rsp); popf; nop; nop
    g.code('9c 81 0c 24 00 01 00 00 9d 90 90')
    const frame = g.trap()
    expect([frame.vector, frame.rip]).toEqual([1, BigInt(AT.CODE + 10)])
    const debug = uapi.kvm_debugregs()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_DEBUGREGS, debug)
    expect(debug.dr6 & 0x4000n).toBe(0x4000n)
  })
})

describe('from CPL 3', () => {
  it('switches to RSP0 with a null SS, and IRETQ goes back', () => {
    const g = new Guest()
    g.gate({ vector: 0x45, dpl: 3 })
    g.toUser()
    // int $0x45; nop; int $0x45
    g.code('cd 45 90 cd 45')
    const frame = g.trap()
    expect(frame).toMatchObject({
      cs: SELECTOR.USER_CODE,
      ss: SELECTOR.USER_DATA,
      rsp: BigInt(AT.USER_STACK),
      rip: BigInt(AT.CODE + 2),
    })
    expect([g.regs().rsp, g.sregs().ss.selector, g.sregs().cs.selector]).toEqual([
      BigInt(AT.STACK - 48),
      0,
      8,
    ])
    expect(g.trap()).toMatchObject({ cs: SELECTOR.USER_CODE, rip: BigInt(AT.CODE + 5) })
  })

  it.each([
    // hlt
    ['HLT', 'f4'],
    // cli
    ['CLI', 'fa'],
    // lidt (%rsp)
    ['LIDT', '0f 01 1c 24'],
    // mov %rax,%cr3
    ['MOV CR3', '0f 22 d8'],
    // rdmsr
    ['RDMSR', '0f 32'],
    // invlpg (%rsp)
    ['INVLPG', '0f 01 3c 24'],
    // in $0x40,%al
    ['IN', 'e4 40'],
    // swapgs
    ['SWAPGS', '0f 01 f8'],
    // enqcmds (%rsp),%rax
    ['ENQCMDS', 'f3 0f 38 f8 04 24'],
    // int $0x45
    ['INT through a gate of DPL 0', 'cd 45'],
  ])('%s is #GP', (name, code) => {
    const g = new Guest()
    g.toUser()
    g.code(code)
    const { vector, error, rip } = g.trap()
    expect([vector, error, rip]).toEqual([
      13,
      name.startsWith('INT ') ? 0x45 * 8 + 2 : 0,
      BigInt(AT.CODE),
    ])
  })

  it('SYSCALL enters with RCX, R11 and masked flags, SYSRET goes back', () => {
    const g = new Guest()
    const msrs = uapi.kvm_msrs({
      nmsrs: 3,
      entries: [
        uapi.kvm_msr_entry({ index: 0xc0000081, data: (0x18n << 48n) | (8n << 32n) }),
        uapi.kvm_msr_entry({ index: 0xc0000082, data: 0x1_1000n }),
        uapi.kvm_msr_entry({ index: 0xc0000084, data: 0x200n }),
      ],
    })
    expect(g.sys.ioctl(g.vcpu, uapi.KVM_SET_MSRS, msrs)).toBe(3)
    g.toUser()
    // syscall; ud2
    g.code('0f 05 0f 0b')
    // out %al,$0x10; sysretq
    g.code('e6 10 48 0f 07', 0x1_1000)
    g.answer()
    expect(g.regs()).toMatchObject({ rcx: BigInt(AT.CODE + 2), r11: 0x202n, rflags: 2n })
    expect([g.sregs().cs.selector, g.sregs().cs.dpl, g.sregs().ss.selector]).toEqual([8, 0, 16])
    const frame = g.trap()
    expect(frame).toMatchObject({
      vector: 6,
      rip: BigInt(AT.CODE + 2),
      cs: SELECTOR.USER_CODE,
      ss: SELECTOR.USER_DATA,
    })
    expect(frame.flags & 0x200).toBe(0x200)
  })
})

describe('what can be wrong with a gate', () => {
  const cases: [string, Gate, number, number][] = [
    ['a gate of another type: #GP', { vector: 6, type: 12 }, 13, 6 * 8 + 3],
    ['a gate not present: #NP', { vector: 6, present: false }, 11, 6 * 8 + 3],
    ['a null code selector: #GP(EXT)', { vector: 6, selector: 0 }, 13, 1],
    ['a data segment: #GP', { vector: 6, selector: 0x10 }, 13, 0x11],
    ['a selector outside the GDT: #GP', { vector: 6, selector: 0xf0 }, 13, 0xf1],
    ['code of less privilege: #GP', { vector: 6, selector: 0x28 }, 13, 0x29],
    ['a target that is not canonical: #GP(EXT)', { vector: 6, target: 1n << 47n }, 13, 1],
  ]
  it.each(cases)('%s', (_, gate, vector, error) => {
    const g = new Guest()
    g.gate(gate)
    // ud2
    g.code('0f 0b')
    expect(g.trap()).toMatchObject({ vector, error, rip: BigInt(AT.CODE) })
  })

  it('a vector beyond the IDT: #GP without EXT for INT n', () => {
    const g = new Guest()
    g.setSregs(s => Object.assign(s.idt, { limit: 0x2ff }))
    // int $0x45
    g.code('cd 45')
    expect(g.trap()).toMatchObject({ vector: 13, error: 0x45 * 8 + 2, rip: BigInt(AT.CODE) })
  })

  it('a TSS too short for RSP0: #TS with the TSS selector', () => {
    const g = new Guest()
    g.gate({ vector: 10, ist: 0, type: 14 })
    g.toUser()
    g.setSregs(s => {
      Object.assign(s.tr, { limit: 10 })
      Object.assign(s.cs, { selector: SELECTOR.USER_CODE, dpl: 3 })
      Object.assign(s.ss, { selector: SELECTOR.USER_DATA, dpl: 3 })
    })
    // ud2
    g.code('0f 0b')
    expect(g.enter()).toBe(uapi.KVM_EXIT_SHUTDOWN) // #TS needs RSP0 as well, and so does #DF
  })

  it('IST gives a stack of its own at CPL 0', () => {
    const g = new Guest()
    g.gate({ vector: 6, ist: 1 })
    // ud2
    g.code('0f 0b')
    expect(g.trap().rsp).toBe(BigInt(AT.STACK))
    expect(g.regs().rsp).toBe(BigInt(AT.IST1 - 40))
  })
})

describe('exceptions in the delivery of exceptions', () => {
  it('#UD then #GP: the second is delivered', () => {
    const g = new Guest()
    g.gate({ vector: 6, selector: 0x10 })
    // ud2
    g.code('0f 0b')
    expect(g.trap().vector).toBe(13)
  })

  it('#GP then #NP: #DF with error 0', () => {
    const g = new Guest()
    g.gate({ vector: 13, present: false })
    // mov $0xf8,%eax; mov %eax,%ds
    g.code('b8 f8 00 00 00 8e d8')
    expect(g.trap()).toMatchObject({ vector: 8, error: 0 })
  })

  it('#PF then #PF on the stack: #DF, on its own stack', () => {
    const g = new Guest()
    g.gate({ vector: 8, ist: 1 })
    g.map(0x9000, 0n)
    g.setRegs({ rsp: 0xa000n })
    // mov 0x9000,%al
    g.code('8a 04 25 00 90 00 00')
    expect(g.trap()).toMatchObject({ vector: 8, error: 0, rsp: 0xa000n })
    expect(g.sregs().cr2).toBe(0x9fd0n)
  })

  it('#GP then #PF: the page fault is delivered', () => {
    const g = new Guest()
    g.gate({ vector: 14, ist: 1 })
    g.map(0x9000, 0n)
    // mov $0xf8,%eax; mov %eax,%ds
    g.code('b8 f8 00 00 00 8e d8')
    expect(g.trap()).toMatchObject({ vector: 14, error: 2 })
  })

  it('#DF that cannot be delivered: shutdown', () => {
    const g = new Guest()
    g.gate({ vector: 13, present: false })
    g.gate({ vector: 8, present: false })
    // mov $0xf8,%eax; mov %eax,%ds
    g.code('b8 f8 00 00 00 8e d8')
    expect(g.enter()).toBe(uapi.KVM_EXIT_SHUTDOWN)
  })

  it('a stack without memory behind it: internal error, not a guest fault', () => {
    const g = new Guest()
    g.map(0x9000, 0xd000_0000n | 7n)
    // ud2
    g.code('0f 0b')
    expect(g.enter()).toBe(uapi.KVM_EXIT_INTERNAL_ERROR)
    expect(g.run.u.internal.suberror).toBe(uapi.KVM_INTERNAL_ERROR_DELIVERY_EV)
  })
})
