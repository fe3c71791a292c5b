import { describe, expect, it } from 'vitest'
import { EC } from '../../../src/cpu/a64/registers.js'
import { Bench, CODE, STACK, VECTORS } from './asm.js'

const inputs = () => ({ irq: false, fiq: false })

/** Modes from which exceptions are taken: EL0t, EL1t, EL1h with everything unmasked. */
const MODES = [
  { mode: 'EL1 on SP_EL0', pstate: 4, group: 0 },
  { mode: 'EL1 on SP_EL1', pstate: 5, group: 1 },
  { mode: 'EL0', pstate: 0, group: 2 },
] as const

const KINDS = [
  { kind: 'synchronous', index: 0 },
  { kind: 'IRQ', index: 1 },
  { kind: 'FIQ', index: 2 },
  { kind: 'SError', index: 3 },
] as const

describe('vectors', () => {
  it('A-1: VBAR_EL1 is (3,0,12,0,0) and bits 10:0 read as zero', () => {
    const b = new Bench()
    b.program(a => a.mov(0, -1n).word(0xd518c000).word(0xd538c001).hvc())
    b.run()
    expect(b.x(1)).toBe(0xffff_ffff_ffff_f800n)
  })

  const cases = MODES.flatMap(m => KINDS.map(k => ({ ...m, ...k, slot: 4 * m.group + k.index })))
  it.each(cases)('A-2, A-3: $kind from $mode goes through slot $slot', c => {
    const lines = inputs()
    const b = new Bench({ interrupts: lines })
    b.program(a => a.svc().nop())
    b.core.setPstate(c.pstate)
    if (c.kind === 'IRQ') lines.irq = true
    if (c.kind === 'FIQ') lines.fiq = true
    if (c.kind === 'SError') b.core.pendSerror(0x1234)
    expect(b.vector()).toBe(c.slot)
    expect(b.core.state.pc).toBe(BigInt(VECTORS + 0x80 * c.slot + 4))
    expect(c.slot % 4 === 0).toBe(c.kind === 'synchronous')
  })

  it('A-17: the AArch32 slots are not reached: a return to AArch32 is illegal', () => {
    const b = new Bench()
    b.program(a => a.set('SPSR_EL1', 0x10).set('ELR_EL1', CODE).eret())
    expect(b.vector()).toBe(4)
    expect(b.esr.ec).toBe(EC.ILLEGAL_STATE)
  })

  it.each([
    { masked: 'I', bit: 2, input: 'irq' as const },
    { masked: 'F', bit: 1, input: 'fiq' as const },
  ])('PSTATE.$masked holds its interrupt off until it is cleared', c => {
    const lines = inputs()
    const b = new Bench({ interrupts: lines })
    lines[c.input] = true
    const p = b.program(a => a.nop().nop().daifclr(c.bit).label('here').nop().hvc(1))
    expect(b.vector()).toBe(c.input === 'irq' ? 5 : 6)
    expect(b.get('ELR_EL1')).toBe(BigInt(p.at('here')))
  })

  it('SError comes before FIQ, FIQ before IRQ', () => {
    const lines = { irq: true, fiq: true }
    const b = new Bench({ interrupts: lines })
    b.core.pendSerror(0)
    b.core.setPstate(5)
    b.program(a => a.nop())
    const order = []
    for (let i = 0; i < 3; i++) {
      const slot = b.vector()
      order.push(slot)
      if (slot === 6) lines.fiq = false
      b.core.setPstate(5)
    }
    expect(order).toEqual([7, 6, 5])
  })
})

describe('entry and return', () => {
  it('A-4: entry saves PSTATE and the return address, masks DAIF, clears SS and selects SP_EL1', () => {
    const b = new Bench()
    const p = b.program(a => a.svc(0x77).label('next'))
    b.core.setPstate(0x6020_0000 | 4)
    b.core.state.setStack(0, 0x5000n)
    expect(b.vector()).toBe(0)
    expect(b.get('SPSR_EL1')).toBe(0x6020_0004n)
    expect(b.get('ELR_EL1')).toBe(BigInt(p.at('next')))
    expect(b.esr).toEqual({ ec: EC.SVC, il: 1, iss: 0x77 })
    expect(b.core.pstate).toBe(0x6000_03c5)
    expect(b.core.state.sp).toBe(STACK)
  })

  it.each([
    { what: 'UNDEFINED', write: 0x0000_0000, ec: EC.UNKNOWN },
    { what: 'BRK', write: 0xd4200000, ec: EC.BRK },
    { what: 'HLT', write: 0xd4400000, ec: EC.UNKNOWN },
  ])('A-4: the return address of $what is the instruction itself', ({ write, ec }) => {
    const b = new Bench()
    b.set('FAR_EL1', 0x1234n)
    b.program(a => a.nop().word(write))
    expect(b.vector()).toBe(4)
    expect(b.get('ELR_EL1')).toBe(BigInt(CODE + 4))
    expect(b.esr).toEqual({ ec, il: 1, iss: 0 })
    expect(b.get('FAR_EL1'), 'FAR keeps its value').toBe(0x1234n)
  })

  it('A-4: an interrupt leaves ESR_EL1 and FAR_EL1 alone; SError writes ESR_EL1', () => {
    const lines = inputs()
    const b = new Bench({ interrupts: lines })
    b.set('ESR_EL1', 0x1111n)
    b.set('FAR_EL1', 0x2222n)
    b.core.setPstate(5)
    b.program(a => a.nop())
    lines.irq = true
    b.vector()
    expect([b.get('ESR_EL1'), b.get('FAR_EL1')]).toEqual([0x1111n, 0x2222n])
    lines.irq = false
    b.core.setPstate(5)
    b.core.pendSerror(0xabcd)
    expect(b.vector()).toBe(7)
    expect(b.esr).toEqual({ ec: EC.SERROR, il: 1, iss: 0xabcd })
  })

  it('A-4: ERET reverses entry: level, stack, flags, masks and address', () => {
    const b = new Bench()
    b.core.state.setStack(0, 0x5000n)
    b.load(VECTORS + 0x400, a => a.eret())
    b.program(a => a.svc().label('back').svc())
    b.core.setPstate(0xa000_0000)
    b.core.run(1)
    expect(b.core.state.el).toBe(1)
    b.core.run(1)
    expect(b.core.pstate).toBe(0xa000_0000)
    expect([b.core.state.sp, b.core.state.pc]).toEqual([0x5000n, BigInt(CODE + 4)])
  })

  it('A-5: ESR_EL1 bits 31:26 are the class, all six of them', () => {
    const b = new Bench()
    b.program(a => a.brk(0xffff))
    b.vector()
    expect(b.get('ESR_EL1')).toBe((0x3cn << 26n) | (1n << 25n) | 0xffffn)
  })

  it('A-6: D is SPSR bit 9 and SS bit 21', () => {
    const b = new Bench()
    b.core.setPstate((1 << 9) | (1 << 21) | 5)
    expect([b.core.state.daif, b.core.state.ss]).toEqual([8, 1])
  })

  it('A-10: neither entry nor return changes SP_EL0, and what a handler writes there survives ERET', () => {
    const b = new Bench()
    b.load(VECTORS + 0x200, a => a.mrs(0, 'SP_EL0').mov(1, 0x9000).msr('SP_EL0', 1).eret())
    b.core.state.setStack(0, 0x5000n)
    b.program(a => a.svc().mrs(2, 'SP_EL0').hvc(1))
    expect(b.run().left).toBe(1)
    expect([b.x(0), b.x(2), b.core.state.sp]).toEqual([0x5000n, 0x9000n, STACK])
  })

  it('SP_EL0 is UNDEFINED as a register while it is the stack pointer', () => {
    const b = new Bench()
    b.core.setPstate(4)
    b.program(a => a.mrs(0, 'SP_EL0'))
    expect(b.vector()).toBe(0)
    expect(b.esr.ec).toBe(EC.UNKNOWN)
  })

  it.each([
    ['AArch32', 0x10],
    ['EL2t', 8],
    ['EL2h', 9],
    ['EL3h', 13],
    ['EL0 with SPSel', 1],
    ['M[1] set', 6],
  ])(
    'an illegal return to %s sets PSTATE.IL, keeps the level and faults with EC 0x0e',
    (_, mode) => {
      const b = new Bench()
      b.program(a =>
        a
          .set('SPSR_EL1', 0x9000_0000 | mode)
          .set('ELR_EL1', CODE + 0x100)
          .eret(),
      )
      b.load(CODE + 0x100, a => a.nop())
      expect(b.vector()).toBe(4)
      expect(b.esr).toEqual({ ec: EC.ILLEGAL_STATE, il: 1, iss: 0 })
      expect(b.get('ELR_EL1')).toBe(BigInt(CODE + 0x100))
      // N and V from SPSR, IL, EL1h; DAIF came from SPSR too
      expect(b.get('SPSR_EL1')).toBe(0x9010_0005n)
      expect(b.core.state.il, 'entry clears it').toBe(0)
    },
  )

  it('ERET at EL0 is UNDEFINED', () => {
    const b = new Bench()
    b.core.setPstate(0)
    b.program(a => a.eret())
    expect(b.vector()).toBe(8)
    expect(b.esr.ec).toBe(EC.UNKNOWN)
  })

  it('a branch to a misaligned address faults at the target: EC 0x22, FAR and ELR name it', () => {
    const b = new Bench()
    b.program(a => a.mov(0, CODE + 0x102).br(0))
    expect(b.vector()).toBe(4)
    expect(b.esr.ec).toBe(EC.PC_ALIGNMENT)
    expect([b.get('FAR_EL1'), b.get('ELR_EL1')]).toEqual([
      BigInt(CODE + 0x102),
      BigInt(CODE + 0x102),
    ])
  })

  it.each([
    { el: 1, pstate: 5, slot: 4 },
    { el: 0, pstate: 0, slot: 8 },
  ])('a load through a misaligned SP faults with EC 0x26 at EL$el', ({ pstate, slot }) => {
    const b = new Bench()
    b.core.setPstate(pstate)
    b.core.state.sp = 0x6008n
    b.program(a => a.ldr(0, 31))
    expect(b.vector()).toBe(slot)
    expect(b.esr.ec).toBe(EC.SP_ALIGNMENT)
  })

  it('without SCTLR_EL1.SA a misaligned SP may be a base at EL1, while SA0 goes on for EL0', () => {
    const b = new Bench()
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') & ~8n)
    b.core.state.sp = 0x6008n
    b.program(a => a.ldr(0, 31).hvc(1))
    expect(b.run().left).toBe(1)
    b.core.setPstate(0)
    b.core.state.sp = 0x6008n
    b.program(a => a.ldr(0, 31))
    expect(b.vector()).toBe(8)
  })

  it('A-31: exception entry, ERET and nothing less clear the exclusive monitor', () => {
    const b = new Bench()
    b.load(VECTORS + 0x200, a => a.eret())
    b.program(a =>
      a.mov(1, 0x5000).ldxr(0, 1).nop().stxr(2, 0, 1).ldxr(0, 1).svc().stxr(3, 0, 1).hvc(1),
    )
    expect(b.run().left).toBe(1)
    expect([b.x(2), b.x(3)]).toEqual([0n, 1n])
    b.program(a =>
      a
        .set('SPSR_EL1', 5)
        .mov(3, CODE + 0x80)
        .msr('ELR_EL1', 3)
        .ldxr(0, 1)
        .eret(),
    )
    b.load(CODE + 0x80, a => a.stxr(4, 0, 1).hvc(1))
    expect(b.run().left).toBe(1)
    expect(b.x(4)).toBe(1n)
  })
})

describe('waiting and calls', () => {
  it('WFI waits for an interrupt, masked or not, and then goes on', () => {
    const lines = inputs()
    const b = new Bench({ interrupts: lines })
    b.program(a => a.wfi().hvc(1))
    expect(b.run().exit.kind).toBe('hlt')
    expect(b.run().exit.kind).toBe('hlt')
    lines.irq = true
    expect(b.run().left).toBe(1)
  })

  it('WFI at EL0 is trapped unless SCTLR_EL1.nTWI', () => {
    const b = new Bench()
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') & ~(1n << 16n))
    b.core.setPstate(0)
    b.program(a => a.wfi())
    expect(b.vector()).toBe(8)
    expect(b.esr).toEqual({ ec: EC.WFX, il: 1, iss: 0x1e0_0000 })
  })

  it.each([
    ['hvc', (b: Bench) => b.program(a => a.hvc(7).nop())],
    ['smc', (b: Bench) => b.program(a => a.smc(7).nop())],
  ] as const)(
    '%s leaves the core with its immediate and PC past it; at EL0 it is UNDEFINED',
    (call, write) => {
      const b = new Bench()
      write(b)
      expect(b.run().exit).toEqual({ kind: 'hypercall', call, immediate: 7 })
      expect(b.core.state.pc).toBe(BigInt(CODE + 4))
      b.core.setPstate(0)
      write(b)
      expect(b.vector()).toBe(8)
      expect(b.esr.ec).toBe(EC.UNKNOWN)
    },
  )

  it.each([
    { fpen: 0, el0: 'traps', el1: 'traps' },
    { fpen: 1, el0: 'traps', el1: 'runs' },
    { fpen: 2, el0: 'traps', el1: 'traps' },
    { fpen: 3, el0: 'runs', el1: 'runs' },
  ])('CPACR_EL1.FPEN = $fpen: floating point $el1 at EL1 and $el0 at EL0', ({ fpen, el0, el1 }) => {
    const b = new Bench()
    b.set('CPACR_EL1', BigInt(fpen) << 20n)
    for (const [el, pstate] of [
      [el1, 5],
      [el0, 0],
    ] as const) {
      b.core.setPstate(pstate)
      b.core.state.abort = 0
      b.core.system.checkFp()
      expect([b.core.state.abort !== 0, b.core.state.ec]).toEqual(
        el === 'traps' ? [true, EC.FP_ACCESS] : [false, b.core.state.ec],
      )
    }
  })
})
