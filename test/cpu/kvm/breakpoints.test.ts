// Hardware breakpoints of x86 (SDM vol. 3, ch. 18): the guest's own become #DB, those of KVM_SET_GUEST_DEBUG exits.
import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, Guest } from './guest.js'

const RF = 0x1_0000
const ANSWER = 'b8 07 00 00 00 e7 10' // mov $7, %eax; out %eax, $0x10
/** R/W and LEN of DR7, for breakpoint 0. */
const EXECUTE = 0x1
const WRITE = (length: 0 | 1 | 2 | 3) => (0x1 | (1 << 16) | (length << 18)) >>> 0
const TOUCH = (length: 0 | 1 | 2 | 3) => (0x1 | (3 << 16) | (length << 18)) >>> 0
const PORT = (length: 0 | 1) => (0x1 | (2 << 16) | (length << 18)) >>> 0

function guest(code: string, dr0: number, dr7: number): Guest {
  const g = new Guest()
  g.code(code)
  arm(g, dr0, dr7)
  return g
}

function arm(g: Guest, dr0: number, dr7: number): void {
  const regs = uapi.kvm_debugregs({
    db: [BigInt(dr0), 0n, 0n, 0n],
    dr6: 0xffff_0ff0n,
    dr7: BigInt(dr7) | 0x400n,
  })
  g.sys.ioctl(g.vcpu, uapi.KVM_SET_DEBUGREGS, regs)
}

function dr6(g: Guest): bigint {
  const regs = uapi.kvm_debugregs()
  g.sys.ioctl(g.vcpu, uapi.KVM_GET_DEBUGREGS, regs)
  return regs.dr6
}

function debug(g: Guest, control: number, registers: readonly bigint[] = []): void {
  const enabled = control | uapi.KVM_GUESTDBG_ENABLE
  const arg = uapi.kvm_guest_debug({ control: enabled, arch: { debugreg: registers } })
  g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, arg)
}

describe('breakpoints of the guest', () => {
  it('an instruction breakpoint is a fault with RF set in its frame; after IRET the instruction runs', () => {
    const g = guest(`90 90 ${ANSWER}`, AT.CODE + 1, EXECUTE)
    const frame = g.trap()
    expect([frame.vector, frame.rip, frame.flags & RF]).toEqual([1, BigInt(AT.CODE + 1), RF])
    expect(dr6(g)).toBe(0xffff_0ff1n)
    expect(g.answer()).toBe(7)
    // RF held for that one instruction only.
    expect(g.regs().rflags & BigInt(RF)).toBe(0n)
  })

  it('an instruction breakpoint does not match the bytes after the first of an instruction', () => {
    expect(guest(ANSWER, AT.CODE + 1, EXECUTE).answer()).toBe(7)
  })

  it('global enables count as local ones do, and a disabled breakpoint is none', () => {
    expect(guest(`90 ${ANSWER}`, AT.CODE, 2).trap().vector).toBe(1)
    expect(guest(`90 ${ANSWER}`, AT.CODE, 0).answer()).toBe(7)
  })

  // mov %eax, DATA+n or mov DATA+n, %eax, with one breakpoint at DATA+4
  const store = (at: number) => `89 04 25 ${le(AT.DATA + at)}`
  const load = (at: number) => `8b 04 25 ${le(AT.DATA + at)}`
  it.each([
    ['a store of its bytes', store(4), WRITE(3), true],
    ['a store that overlaps it from below', store(2), WRITE(3), true],
    ['a store that overlaps it from above', store(7), WRITE(3), true],
    ['a store beside it', store(8), WRITE(3), false],
    ['a load', load(4), WRITE(3), false],
    ['a load, of accesses', load(4), TOUCH(3), true],
    ['one byte of a store', store(1), TOUCH(0), true],
    ['a byte that is not stored', store(0), TOUCH(0), false],
    ['eight bytes, at their end', store(4), WRITE(2), true],
    ['eight bytes, aligned down', store(0), WRITE(2), true],
  ])('a data breakpoint and %s', (_, code, dr7, hit) => {
    const g = guest(`${code} ${ANSWER}`, AT.DATA + 4, dr7)
    if (!hit) expect(g.answer()).toBe(7)
    else {
      const frame = g.trap()
      // A trap: the instruction is done, RF is not needed.
      expect([frame.vector, frame.rip, frame.flags & RF]).toEqual([1, BigInt(AT.CODE + 7), 0])
      expect(dr6(g) & 15n).toBe(1n)
      expect(g.answer()).toBe(7)
    }
  })

  it('the store that a data breakpoint reports is done', () => {
    const g = guest(`b8 05 00 00 00 ${store(4)} ${ANSWER}`, AT.DATA + 4, WRITE(3))
    expect(g.trap().vector).toBe(1)
    expect(g.view.getUint32(AT.DATA + 4, true)).toBe(5)
  })

  it('a string store reports each iteration, and returns to itself', () => {
    // mov $DATA, %edi; mov $3, %ecx; rep stosb
    const g = guest(`bf ${le(AT.DATA)} b9 03 00 00 00 f3 aa ${ANSWER}`, AT.DATA + 1, TOUCH(0))
    const frame = g.trap()
    expect([frame.rip, g.regs().rcx]).toEqual([BigInt(AT.CODE + 10), 1n])
    expect(g.answer()).toBe(7)
  })

  it('a port breakpoint needs CR4.DE', () => {
    for (const de of [true, false]) {
      const g = guest(`e4 22 ${ANSWER}`, 0x22, PORT(0))
      if (de)
        g.setSregs(s => {
          s.cr4 |= 8n
        })
      expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
      if (de) expect(g.trap().rip).toBe(BigInt(AT.CODE + 2))
      else expect(g.answer()).toBe(7)
    }
  })

  it('an access that leaves for the owner is reported once, after it is answered', () => {
    const g = guest(`a1 00 00 00 90 00 00 00 00 ${ANSWER}`, 0x9000_0000, TOUCH(3))
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect(g.trap().rip).toBe(BigInt(AT.CODE + 9))
    expect(g.answer()).toBe(7)
  })

  it('DR7.GD makes a use of a debug register a fault, and is clear in the handler', () => {
    const g = guest(`0f 21 f0 ${ANSWER}`, 0, 1 << 13) // mov %dr6, %rax
    const frame = g.trap()
    expect([frame.vector, frame.rip]).toEqual([1, BigInt(AT.CODE)])
    expect(dr6(g) & 0x2000n).toBe(0x2000n)
    expect(g.answer()).toBe(7)
  })

  it('a step and a data breakpoint make one exception with both bits', () => {
    const g = guest(`${store(4)} ${ANSWER}`, AT.DATA + 4, WRITE(3))
    g.setRegs({ rflags: 0x102n })
    expect(g.trap().rip).toBe(BigInt(AT.CODE + 7))
    expect(dr6(g) & 0x400fn).toBe(0x4001n)
  })
})

describe('breakpoints of the owner (KVM_GUESTDBG_USE_HW_BP)', () => {
  const hardware = (dr0: number, dr7: number) => [BigInt(dr0), 0n, 0n, 0n, 0n, 0n, 0n, BigInt(dr7)]

  it('an instruction breakpoint leaves before the instruction, which then runs', () => {
    const g = guest(`90 90 ${ANSWER}`, 0, 0)
    debug(g, uapi.KVM_GUESTDBG_USE_HW_BP, hardware(AT.CODE + 1, EXECUTE))
    expect(g.enter()).toBe(uapi.KVM_EXIT_DEBUG)
    const { exception, pc, dr6: status, dr7 } = g.run.u.debug.arch
    expect([exception, pc, status, dr7]).toEqual([1, BigInt(AT.CODE + 1), 0xffff_0ff1n, 1n])
    expect(g.answer()).toBe(7)
  })

  it('a data breakpoint leaves after the instruction', () => {
    const g = guest(`c6 04 25 ${le(AT.DATA)} 01 ${ANSWER}`, 0, 0)
    debug(g, uapi.KVM_GUESTDBG_USE_HW_BP, hardware(AT.DATA, WRITE(0)))
    expect(g.enter()).toBe(uapi.KVM_EXIT_DEBUG)
    expect(g.run.u.debug.arch.pc).toBe(BigInt(AT.CODE + 8))
    expect(g.ram[AT.DATA]).toBe(1)
    expect(g.answer()).toBe(7)
  })

  it("the guest's own registers keep their values and match nothing meanwhile", () => {
    const g = guest(`90 ${ANSWER}`, AT.CODE, EXECUTE)
    debug(g, uapi.KVM_GUESTDBG_USE_HW_BP, hardware(0, 0))
    expect(g.answer()).toBe(7)
    const regs = uapi.kvm_debugregs()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_DEBUGREGS, regs)
    expect([regs.db.get(0), regs.dr6, regs.dr7]).toEqual([BigInt(AT.CODE), 0xffff_0ff0n, 0x401n])
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug())
    g.setRegs({ rip: BigInt(AT.CODE) })
    expect(g.trap().vector).toBe(1)
  })

  it('a step tells so in DR6, and a step onto data tells both', () => {
    const g = guest(`90 c6 04 25 ${le(AT.DATA)} 01 ${ANSWER}`, 0, 0)
    const control = uapi.KVM_GUESTDBG_USE_HW_BP | uapi.KVM_GUESTDBG_SINGLESTEP
    debug(g, control, hardware(AT.DATA, WRITE(0)))
    const steps = [1, 9].map(() => {
      expect(g.enter()).toBe(uapi.KVM_EXIT_DEBUG)
      return [g.run.u.debug.arch.pc, g.run.u.debug.arch.dr6]
    })
    expect(steps).toEqual([
      [BigInt(AT.CODE + 1), 0xffff_4ff0n],
      [BigInt(AT.CODE + 9), 0xffff_4ff1n],
    ])
  })
})

describe('KVM_GUESTDBG_BLOCKIRQ', () => {
  it('holds interrupts back while the owner steps, and lets them come after', () => {
    // The APIC on, then sti; nop; nop; nop.
    const g = guest(`bb f0 00 e0 fe c7 03 ff 01 00 00 e6 10 fb 90 90 90 ${ANSWER}`, 0, 0)
    g.answer()
    g.signalMsi(0x41)
    debug(g, uapi.KVM_GUESTDBG_SINGLESTEP | uapi.KVM_GUESTDBG_BLOCKIRQ)
    const steps = [1, 2, 3].map(() => {
      expect(g.enter()).toBe(uapi.KVM_EXIT_DEBUG)
      return Number(g.run.u.debug.arch.pc) - AT.CODE
    })
    expect(steps).toEqual([13, 14, 15])
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug())
    expect(g.trap()).toMatchObject({ vector: 0x41, rip: BigInt(AT.CODE + 15) })
  })
})

describe('exceptions that the owner injects', () => {
  it.each([
    ['#DB', uapi.KVM_GUESTDBG_INJECT_DB, 1, 0],
    ['#BP, behind the INT3', uapi.KVM_GUESTDBG_INJECT_BP, 3, 1],
  ])('%s is delivered at the next KVM_RUN; a second one is EBUSY', (_, control, vector, behind) => {
    const g = guest(`cc ${ANSWER}`, 0, 0)
    if (behind === 0) g.setRegs({ rip: BigInt(AT.CODE + 1) })
    debug(g, control)
    expect(() => debug(g, control)).toThrow(ErrnoError)
    expect(g.trap()).toMatchObject({ vector, rip: BigInt(AT.CODE + 1) })
    expect(g.answer()).toBe(7)
  })
})

function le(v: number): string {
  return [0, 8, 16, 24].map(n => ((v >>> n) & 0xff).toString(16).padStart(2, '0')).join(' ')
}
