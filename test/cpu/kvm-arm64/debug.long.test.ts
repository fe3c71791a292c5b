// Debugging an arm64 guest from outside, and the guest's own debug registers beside it (parts A.5 and B.3).
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { AT, branch, Guest, I, REG } from './guest.js'

const STEP = uapi.KVM_GUESTDBG_SINGLESTEP
const HW = uapi.KVM_GUESTDBG_USE_HW
const EC = { BREAKPOINT: 0x30, STEP: 0x32, WATCHPOINT: 0x34, BRK: 0x3c } as const
/** DBGBCR and DBGWCR: enabled at EL1 and EL0, all bytes; loads and stores. */
const BCR = 0x1e7n
const WCR = 0x1fffn
/** MDSCR_EL1: KDE and MDE. */
const KDE_MDE = 0xa000n
/** EL1h with everything masked but debug exceptions. */
const UNMASKED = 0x1c5n

function guest(...words: number[]): Guest {
  const g = new Guest()
  g.code(words)
  return g
}

/** Where the last KVM_EXIT_DEBUG was: PC, class, instruction length bit, FAR. */
function stop({ cpu }: Guest) {
  expect(cpu.enter()).toBe(uapi.KVM_EXIT_DEBUG)
  const { hsr, hsr_high, far } = cpu.run.u.debug.arch
  expect([hsr_high, cpu.run.flags]).toEqual([0, uapi.KVM_DEBUG_ARCH_HSR_HIGH_VALID])
  return { pc: Number(cpu.get(REG.pc)) - AT.CODE, ec: hsr >>> 26, far }
}

const hardware = (b: [bigint, bigint][], w: [bigint, bigint][]) => ({
  arch: {
    dbg_bvr: b.map(([v]) => v),
    dbg_bcr: b.map(([, c]) => c),
    dbg_wvr: w.map(([v]) => v),
    dbg_wcr: w.map(([, c]) => c),
  },
})

describe('from outside', () => {
  it('BRK leaves with its immediate in the syndrome, and PC at it', () => {
    const g = guest(I.nop, I.brk)
    g.cpu.debug(uapi.KVM_GUESTDBG_USE_SW_BP)
    expect(stop(g)).toMatchObject({ pc: 4, ec: EC.BRK })
    expect(g.cpu.run.u.debug.arch.hsr & 0xffff).toBe(0x123)
  })

  it('each of up to six breakpoints leaves before its instruction', () => {
    const g = guest(...Array.from({ length: 8 }, () => I.nop), I.answer)
    const at = [0, 4, 12, 16, 20, 28]
    const b = at.map(n => [BigInt(AT.CODE + n), BCR] as [bigint, bigint])
    for (const [i, pc] of at.entries()) {
      g.cpu.debug(HW, hardware(b.slice(i), []))
      expect(stop(g)).toMatchObject({ pc, ec: EC.BREAKPOINT })
    }
    g.cpu.debug(HW)
    g.cpu.answer()
  })

  it('a watchpoint leaves before the access is made, with its address', () => {
    const g = guest(I.one0, I.put, I.answer)
    g.cpu.set(REG.x(3), 5n)
    g.cpu.debug(HW, hardware([], [[BigInt(AT.DATA), WCR]]))
    expect(stop(g)).toEqual({ pc: 4, ec: EC.WATCHPOINT, far: BigInt(AT.DATA) })
    expect(g.word(AT.DATA)).toBe(0n)
    g.cpu.debug(0)
    g.cpu.answer()
    expect(g.word(AT.DATA)).toBe(5n)
  })

  it('a step is one instruction, an HVC and an MMIO access among them', () => {
    const g = guest(I.nop, I.hvc, I.load, I.nop)
    g.cpu.debug(STEP)
    expect(stop(g)).toMatchObject({ pc: 4, ec: EC.STEP })
    expect(stop(g)).toMatchObject({ pc: 8, ec: EC.STEP })
    expect(g.cpu.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect(stop(g)).toMatchObject({ pc: 12, ec: EC.STEP })
    expect(stop(g)).toMatchObject({ pc: 16, ec: EC.STEP })
  })

  it('a step over an instruction that faults stops at the vector', () => {
    const g = guest(I.svc7)
    g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
    g.cpu.debug(STEP)
    expect(stop(g)).toMatchObject({ pc: AT.VECTORS + 0x200 - AT.CODE, ec: EC.STEP })
  })

  it('dropping ENABLE ends stepping and breakpoints', () => {
    const g = guest(I.nop, I.nop, I.answer)
    g.cpu.debug(STEP | HW, hardware([[BigInt(AT.CODE + 4), BCR]], []))
    stop(g)
    g.sys.ioctl(g.cpu.fd, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug())
    g.cpu.answer()
  })

  const steps = process.env['VFIO_EMU_LONG'] ? 10_000 : 500
  it(`A-30: ${steps} steps while the guest writes and reads back debug registers`, () => {
    const g = guest(I.setBvr, I.getBvr, I.setWvr, I.getWvr, I.add3, branch(-5))
    g.cpu.set(REG.x(3), 0x1000n)
    g.cpu.debug(STEP)
    let value = 0x1000n
    for (let n = 0; n < steps; n++) {
      expect(g.cpu.enter()).toBe(uapi.KVM_EXIT_DEBUG)
      const done = n % 6
      if (done === 4) value += 4n
      const pc = Number(g.cpu.get(REG.pc)) - AT.CODE
      if (pc !== ((done + 1) % 6) * 4) throw new Error(`step ${n} led to ${pc}`)
      if (done === 1 && g.cpu.get(REG.x(4)) !== value) throw new Error(`DBGBVR0 at step ${n}`)
      if (done === 3 && g.cpu.get(REG.x(5)) !== value) throw new Error(`DBGWVR0 at step ${n}`)
    }
  })

  it('A-31: an exclusive does not live through steps', () => {
    // ldxr x0, [x2]; stxr w3, x0, [x2]
    const g = guest(0xc85f_7c40, 0xc803_7c40)
    g.cpu.debug(STEP)
    stop(g)
    stop(g)
    expect(g.cpu.get(REG.x(3))).toBe(1n)
  })
})

describe('the guest itself', () => {
  /** A guest whose breakpoint 0 is at CODE + 8, on; X0 counts what its handler at the vector stores. */
  function own(change: (g: Guest) => void = () => {}): Guest {
    const g = guest(I.zero0, I.isb, I.nop, I.answer)
    // Handler: answers 1 from the synchronous vector of EL1h.
    g.code([I.one0, I.answer], AT.VECTORS + 0x200)
    const { cpu } = g
    cpu.set(REG.vbar, BigInt(AT.VECTORS))
    cpu.set(REG.bvr(0), BigInt(AT.CODE + 8))
    cpu.set(REG.bcr(0), BCR)
    cpu.set(REG.mdscr, KDE_MDE)
    cpu.set(REG.pstate, UNMASKED)
    change(g)
    return g
  }
  const LOCKED = 10n

  it('A-28, A-29: its breakpoint is its exception, and nothing leaves', () => {
    const { cpu } = own()
    expect(cpu.answer()).toBe(1n)
    expect([cpu.get(REG.elr), cpu.get(REG.esr) >> 26n]).toEqual([BigInt(AT.CODE + 8), 0x31n])
  })

  it('A-34: set, saved and restored into a fresh VM it still fires', () => {
    const saved = own().cpu
    const g = own(({ cpu }) => {
      for (const id of [REG.bvr(0), REG.bcr(0), REG.mdscr]) cpu.set(id, 0n)
      for (const id of saved.list()) cpu.setBytes(id, saved.bytes(id))
    })
    expect(g.cpu.answer()).toBe(1n)
  })

  it('B-1: the architecture’s reset, locked, is to be had', () => {
    const g = new Guest({ parts: { a64: { osLock: 'locked' } } })
    expect(g.cpu.get(REG.oslsr)).toBe(LOCKED)
    expect(new Guest().cpu.get(REG.oslsr)).toBe(8n)
  })

  it('A-32: a breakpoint without ISB behind it, as strict synchronisation has it, and as found', () => {
    // msr dbgbvr0_el1, x3; msr mdscr_el1, x0; nop (watched); str x0
    const code = [I.setBvr, I.mdscr, I.nop, I.answer]
    const world = (sync: 'immediate' | 'strict', words: number[] = code) => {
      const g = new Guest({ parts: { a64: { sync } } })
      const found: string[] = []
      g.host.trace.listen('a64.use-before-isb', event => {
        found.push(event.register)
      })
      g.code(words)
      g.code([I.one0, I.answer], AT.VECTORS + 0x200)
      g.cpu.set(REG.vbar, BigInt(AT.VECTORS))
      g.cpu.set(REG.bcr(0), BCR)
      g.cpu.set(REG.pstate, UNMASKED)
      g.cpu.set(REG.x(0), KDE_MDE)
      g.cpu.set(REG.x(3), BigInt(AT.CODE + 4 * words.indexOf(I.nop)))
      return { answer: g.cpu.answer(), found }
    }
    expect(world('immediate')).toEqual({ answer: 1n, found: [] })
    const missed = world('strict')
    expect(missed.answer).toBe(KDE_MDE)
    expect(missed.found).not.toEqual([])
    const right = world('strict', [I.setBvr, I.mdscr, I.isb, I.nop, I.answer])
    expect(right).toEqual({ answer: 1n, found: [] })
  })

  it('B-5, B-7: under the OS Lock it does not fire and MDSCR reads as written; unlocked it fires', () => {
    const { cpu } = own(({ cpu: c }) => c.set(REG.oslsr, LOCKED))
    expect(cpu.answer()).toBe(0n)
    expect(cpu.get(REG.mdscr)).toBe(KDE_MDE)
    const again = own(({ cpu: c }) => {
      c.set(REG.oslsr, LOCKED)
      c.set(REG.oslsr, 8n)
    })
    expect(again.cpu.answer()).toBe(1n)
  })

  it('B-6, B-17: BRK is taken under the lock, by the guest: the lock is no debugger outside', () => {
    const g = own(({ cpu: c }) => c.set(REG.oslsr, LOCKED))
    g.code([I.brk])
    expect(g.cpu.answer()).toBe(1n)
    expect(g.cpu.get(REG.esr) >> 26n).toBe(0x3cn)
  })

  it('B-9: the lock of one guest is nothing to another, and neither is its debugger', () => {
    const first = own(({ cpu: c }) => c.set(REG.oslsr, LOCKED))
    const second = own()
    expect(second.cpu.get(REG.oslsr)).toBe(8n)
    expect(second.cpu.answer()).toBe(1n)
    expect(first.cpu.answer()).toBe(0n)
    expect(first.cpu.get(REG.oslsr)).toBe(LOCKED)
    const debugged = own()
    debugged.cpu.debug(STEP)
    expect(own().cpu.answer()).toBe(1n)
  })

  it('B-10: what the guest writes to OSLAR holds at once', () => {
    const g = own()
    // mov x0, #1; msr oslar_el1, x0; nop (watched); str x0
    g.code([I.one0, I.oslar, I.nop, I.zero0, I.answer])
    expect(g.cpu.answer()).toBe(0n)
    expect(g.cpu.get(REG.oslsr)).toBe(LOCKED)
  })

  it('B-13, B-14: while the owner has the debug registers the guest’s match nothing, and keep their values', () => {
    const g = own()
    g.cpu.debug(HW, hardware([[BigInt(AT.CODE + 12), BCR]], []))
    expect(stop(g)).toMatchObject({ pc: 12, ec: EC.BREAKPOINT })
    expect(g.cpu.get(REG.bvr(0))).toBe(BigInt(AT.CODE + 8))
    // The owner's fire under the lock, too.
    const locked = own(({ cpu: c }) => c.set(REG.oslsr, LOCKED))
    locked.cpu.debug(HW, hardware([[BigInt(AT.CODE + 4), BCR]], []))
    expect(stop(locked)).toMatchObject({ pc: 4, ec: EC.BREAKPOINT })
  })

  it('B-15: SPSR.SS and MDSCR.SS of the guest live through steps of the owner', () => {
    const g = own(({ cpu: c }) => {
      c.set(REG.bcr(0), 0n)
      c.set(REG.mdscr, 0x2001n) // KDE, SS
      c.set(REG.pstate, 0x3c5n) // debug exceptions masked: its step waits
      c.set(REG.spsr, 0x20_0005n)
    })
    g.cpu.debug(STEP)
    expect(stop(g)).toMatchObject({ pc: 4, ec: EC.STEP })
    expect([g.cpu.get(REG.spsr), g.cpu.get(REG.mdscr)]).toEqual([0x20_0005n, 0x2001n])
  })
})
