import { describe, expect, it } from 'vitest'
import { TraceBus } from '../../../src/base/trace.js'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import { EC } from '../../../src/cpu/a64/registers.js'
import type { SyncMode } from '../../../src/cpu/a64/sync.js'
import { type Asm, Bench, CODE, VECTORS } from './asm.js'

const BVR0 = systemKey(2, 0, 0, 0, 4)
const BCR0 = systemKey(2, 0, 0, 0, 5)
const WVR0 = systemKey(2, 0, 0, 0, 6)
const WCR0 = systemKey(2, 0, 0, 0, 7)
const MDE_KDE = (1n << 15n) | (1n << 13n)

function bench(sync: SyncMode, trace?: TraceBus): Bench {
  const b = new Bench(trace ? { sync, trace } : { sync })
  b.core.setPstate(5)
  return b
}

/** Arms a breakpoint at `target` from inside, with an ISB or without. */
const arm = (isb: boolean) => (a: Asm) => {
  a.set('MDSCR_EL1', MDE_KDE)
    .set(BVR0, CODE + 0x80)
    .set(BCR0, 0x1e7)
  if (isb) a.isb()
  a.label('end')
  while (a.here < CODE + 0x80) a.nop()
  a.nop().hvc(1)
}

describe('A-32: a debug register takes effect at a context synchronisation event', () => {
  it.each([
    ['immediate', false, 'fires'],
    ['immediate', true, 'fires'],
    ['strict', true, 'fires'],
    ['strict', false, 'does not fire'],
  ] as const)('%s mode, ISB %s: the breakpoint %s', (mode, isb, what) => {
    const b = bench(mode)
    b.program(arm(isb))
    const { left } = b.run()
    expect(left === 1 ? 'does not fire' : 'fires').toBe(what)
    expect(b.core.sync.findings.length > 0).toBe(what === 'does not fire')
  })

  it('the finding names each register, where it was written and where it was used', () => {
    const trace = new TraceBus()
    const heard: unknown[] = []
    trace.listen('a64.use-before-isb', e => heard.push(e))
    const b = bench('strict', trace)
    // MDSCR alone is missing its ISB.
    b.core.registers.hostWrite(BVR0, BigInt(CODE + 0x40))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    b.program(a => {
      a.mov(9, MDE_KDE).label('write').msr('MDSCR_EL1', 9)
      while (a.here < CODE + 0x40) a.nop()
      a.nop().hvc(1)
    })
    expect(b.run().left).toBe(1)
    const finding = {
      register: 'MDSCR_EL1',
      use: 'debug',
      old: 0n,
      written: MDE_KDE,
      writtenAt: BigInt(CODE + 4),
      usedAt: BigInt(CODE + 0x40),
    }
    expect(b.core.sync.findings).toEqual([finding])
    expect(heard).toEqual([{ vcpu: 0, ...finding }])
  })

  it('MRS reads what was written at once, and no finding comes of it', () => {
    const b = bench('strict')
    b.program(a => a.set('MDSCR_EL1', MDE_KDE).mrs(0, 'MDSCR_EL1').hvc(1))
    b.run()
    expect(b.x(0)).toBe(MDE_KDE)
    expect(b.core.debug.live).toBe(false)
    expect(b.core.sync.findings).toEqual([])
  })

  it('a watchpoint that would have been hit is a finding at the access', () => {
    const b = bench('strict')
    const p = b.program(a =>
      a
        .set('MDSCR_EL1', MDE_KDE)
        .mov(1, 0x5000)
        .set(WVR0, 0x5000)
        .set(WCR0, 0x1fff)
        .label('use')
        .ldr(0, 1)
        .hvc(1),
    )
    expect(b.run().left).toBe(1)
    expect(b.core.sync.findings.map(f => [f.register, f.usedAt])).toEqual(
      ['MDSCR_EL1', 'DBGWVR0_EL1', 'DBGWCR0_EL1'].map(name => [name, BigInt(p.at('use'))]),
    )
  })

  it.each([
    [
      'exception entry',
      (b: Bench) => {
        b.load(VECTORS + 0x200, a => a.hvc(0x104))
        b.program(a => a.set('MDSCR_EL1', MDE_KDE).svc())
      },
    ],
    [
      'ERET',
      (b: Bench) => {
        b.program(a =>
          a
            .set('SPSR_EL1', 5)
            .set('ELR_EL1', CODE + 0x80)
            .set('MDSCR_EL1', MDE_KDE)
            .eret(),
        )
        b.load(CODE + 0x80, a => a.hvc(1))
      },
    ],
    ['ISB', (b: Bench) => b.program(a => a.set('MDSCR_EL1', MDE_KDE).isb().hvc(1))],
  ])('%s synchronises', (_, write) => {
    const b = bench('strict')
    write(b)
    b.run()
    expect(b.core.registers.named('MDSCR_EL1').effective).toBe(MDE_KDE)
    expect(b.core.sync.waiting).toBe(false)
  })

  it('DSB does not', () => {
    const b = bench('strict')
    b.program(a => a.set('MDSCR_EL1', MDE_KDE).word(0xd5033f9f).hvc(1))
    b.run()
    expect(b.core.registers.named('MDSCR_EL1').effective).toBe(0n)
  })

  it('an exception uses the vector base written last: entry synchronises before it', () => {
    const b = bench('strict')
    b.load(0xa000 + 0x200, a => a.hvc(0x77))
    b.program(a => a.set('VBAR_EL1', 0xa000).svc())
    expect(b.run().left).toBe(0x77)
    expect(b.core.sync.findings).toEqual([])
  })

  it('changing the mode synchronises', () => {
    const b = bench('strict')
    b.program(a => a.set('MDSCR_EL1', MDE_KDE).hvc(1))
    b.run()
    b.core.sync.mode = 'immediate'
    expect(b.core.registers.named('MDSCR_EL1').effective).toBe(MDE_KDE)
  })
})

describe('A-32: translation and floating point', () => {
  /** Stage 1 on, the first gigabyte one to one. */
  function translated(): Bench {
    const b = bench('strict')
    b.ram.setBigUint64(0x10_0000, 0x701n, true)
    b.set('MAIR_EL1', 0xffn)
    b.set('TCR_EL1', 25n | (25n << 16n) | (2n << 30n) | (4n << 32n))
    b.set('TTBR0_EL1', 0x10_0000n)
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | 1n)
    return b
  }

  it.each(['TTBR0_EL1', 'TCR_EL1', 'MAIR_EL1'] as const)(
    'data accessed between a write to %s and the ISB goes by the old value, and is a finding',
    name => {
      const b = translated()
      const written = b.get(name) ^ (name === 'TTBR0_EL1' ? 1n << 48n : 1n << 8n)
      const p = b.program(a =>
        a.mov(1, 0x5000).set(name, written).label('use').ldr(3, 1).ldr(4, 1).isb().ldr(5, 1).hvc(1),
      )
      expect(b.run().left).toBe(1)
      expect(b.core.sync.findings).toMatchObject([
        { register: name, use: 'translation', usedAt: BigInt(p.at('use')), written },
      ])
    },
  )

  it('an access of the lower range does not use TTBR1_EL1', () => {
    const b = translated()
    b.program(a => a.mov(1, 0x5000).set('TTBR1_EL1', 0x20_0000).ldr(3, 1).isb().hvc(1))
    expect(b.run().left).toBe(1)
    expect(b.core.sync.findings).toEqual([])
  })

  it("with stage 1 off tables, types and their control are nobody's to use", () => {
    const b = bench('strict')
    b.program(a =>
      a
        .mov(1, 0x5000)
        .set('MAIR_EL1', 0xff)
        .str(1, 1)
        .set('TCR_EL1', 25)
        .str(1, 1)
        .set('TTBR0_EL1', 0x10_0000)
        .ldr(3, 1)
        .isb()
        .hvc(1),
    )
    expect(b.run().left).toBe(1)
    expect(b.core.sync.findings).toEqual([])
  })

  it('turning translation on without an ISB leaves the next access physical', () => {
    const write = (isb: boolean) => (a: Asm) => {
      a.mov(1, 0x5000).mrs(0, 'SCTLR_EL1').add(0, 0, 1).msr('SCTLR_EL1', 0)
      if (isb) a.isb()
      a.ldr(3, 1).hvc(1)
    }
    for (const isb of [true, false]) {
      const b = bench('strict')
      // The lower range maps everything one to one but is read through an empty table: data faults when it counts.
      b.ram.setBigUint64(0x10_0000, 0x701n, true)
      b.set('MAIR_EL1', 0xffn)
      b.set('TCR_EL1', 25n | (4n << 32n))
      b.set('TTBR0_EL1', 0x10_0000n)
      b.program(write(isb))
      expect(b.run().left).toBe(1)
      expect(b.core.sync.findings.map(f => f.register)).toEqual(isb ? [] : ['SCTLR_EL1'])
    }
  })

  it('floating point is enabled by CPACR_EL1 only after the ISB', () => {
    for (const isb of [true, false]) {
      const b = bench('strict')
      b.program(a => {
        a.set('CPACR_EL1', 3n << 20n)
        if (isb) a.isb()
        // FMOV d0, x0
        a.word(0x9e670000).hvc(1)
      })
      const { left } = b.run()
      expect(left).toBe(isb ? 1 : 0x104)
      if (!isb) expect(b.esr.ec).toBe(EC.FP_ACCESS)
      expect(b.core.sync.findings.map(f => [f.register, f.use])).toEqual(
        isb ? [] : [['CPACR_EL1', 'fp']],
      )
    }
  })
})
