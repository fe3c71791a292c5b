import { describe, expect, it } from 'vitest'
import { BREAKPOINTS, WATCHPOINTS } from '../../../src/cpu/a64/id-registers.js'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import { EC } from '../../../src/cpu/a64/registers.js'
import { keyOf } from '../../../src/cpu/a64/system-register-table.js'
import { Bench, CODE, VECTORS } from './asm.js'

const BVR = (n: number) => systemKey(2, 0, 0, n, 4)
const BCR = (n: number) => systemKey(2, 0, 0, n, 5)
const WVR = (n: number) => systemKey(2, 0, 0, n, 6)
const WCR = (n: number) => systemKey(2, 0, 0, n, 7)

const MDE = 1n << 15n
const KDE = 1n << 13n
const SS = 1n
/** E, PMC of EL1 and EL0, BAS of a whole instruction. */
const BREAK = 0x1e7n
/** E, PAC of EL1 and EL0, loads and stores, all eight bytes. */
const WATCH = 0x1fffn
const CONTEXT = 2n << 20n
const LINKED_CONTEXT = 3n << 20n
const LINKED = 1n << 20n
const link = (n: number) => BigInt(n) << 16n

/** A bench at EL1h with debug exceptions unmasked. */
class DebugBench extends Bench {
  constructor(mdscr = MDE | KDE, parts = {}) {
    super(parts)
    this.set('MDSCR_EL1', mdscr)
    this.core.setPstate(5)
  }

  put(key: number, value: bigint): void {
    this.core.registers.hostWrite(key, value)
  }

  breakAt(n: number, at: number | bigint, control = BREAK): void {
    this.put(BVR(n), BigInt(at))
    this.put(BCR(n), control)
  }

  watchAt(n: number, at: number | bigint, control = WATCH): void {
    this.put(WVR(n), BigInt(at))
    this.put(WCR(n), control)
  }

  /** Class of the debug exception that the program ends in, or `done`. */
  outcome(): number | 'done' {
    const { left } = this.run()
    return left === 1 ? 'done' : this.esr.ec
  }
}

describe('breakpoints', () => {
  it('A-28: one is taken before its instruction, and again only when D does not mask it', () => {
    const b = new DebugBench()
    b.program(a => a.mov(0, 1).label('here').mov(0, 2).hvc(1))
    b.breakAt(0, CODE + 4)
    expect(b.vector()).toBe(4)
    expect(b.esr).toEqual({ ec: EC.BREAKPOINT, il: 1, iss: 0x22 })
    expect([b.get('ELR_EL1'), b.x(0)]).toEqual([BigInt(CODE + 4), 1n])
    b.load(VECTORS + 0x204, a => a.eret())
    b.set('SPSR_EL1', b.get('SPSR_EL1') | 0x200n)
    expect(b.run().left).toBe(1)
    expect(b.x(0)).toBe(2n)
  })

  it.each([
    ['MDE clear', KDE, 5, 'done'],
    ['KDE clear at EL1', MDE, 5, 'done'],
    ['PSTATE.D set at EL1', MDE | KDE, 0x205, 'done'],
    ['KDE clear at EL0', MDE, 0, EC.BREAKPOINT_LOWER],
    ['PSTATE.D set at EL0', MDE | KDE, 0x200, EC.BREAKPOINT_LOWER],
    ['EL1 on SP_EL0', MDE | KDE, 4, EC.BREAKPOINT],
  ])('A-24: with %s', (_, mdscr, pstate, expected) => {
    const b = new DebugBench(mdscr)
    b.program(a => a.nop().hvc(1))
    b.core.setPstate(pstate)
    b.breakAt(0, CODE)
    expect(b.outcome()).toBe(expected)
  })

  // biome-ignore format: table
  const controls: readonly [string, bigint, 0 | 1, boolean][] = [
    ['disabled',               BREAK & ~1n,            1, false],
    ['for EL1 at EL1',         0x1e3n,                 1, true],
    ['for EL1 at EL0',         0x1e3n,                 0, false],
    ['for EL0 at EL0',         0x1e5n,                 0, true],
    ['for EL0 at EL1',         0x1e5n,                 1, false],
    ['PMC 0',                  0x1e1n,                 1, false],
    ['Secure only',            BREAK | (2n << 14n),    1, false],
    ['Non-secure only',        BREAK | (1n << 14n),    1, true],
    ['HMC with EL1',           BREAK | (1n << 13n),    1, true],
    ['HMC, EL2 only',          0x1e1n | (1n << 13n),   1, false],
    ['SSC 3 without HMC',      BREAK | (3n << 14n),    1, false],
    ['address mismatch',       BREAK | (4n << 20n),    1, false],
    ['linked to none',         BREAK | LINKED,         1, false],
    ['linked context alone',   BREAK | LINKED_CONTEXT, 1, false],
  ]
  it.each(controls)('A-25: control %s', (_, control, el, fires) => {
    const b = new DebugBench()
    b.core.setPstate(el === 1 ? 5 : 0)
    b.program(a => a.nop().hvc(1))
    b.breakAt(5, CODE, control)
    expect(
      b.outcome() !== 'done' && [EC.BREAKPOINT, EC.BREAKPOINT_LOWER].includes(b.esr.ec as 0x30),
    ).toBe(fires)
  })

  it.each(Array.from({ length: BREAKPOINTS }, (_, n) => n))('A-26: number %i fires', n => {
    const b = new DebugBench()
    b.program(a => a.nop().nop().hvc(1))
    b.breakAt(n, CODE + 4)
    expect(b.outcome()).toBe(EC.BREAKPOINT)
  })

  it.each([
    [5, CONTEXT, 'fires'],
    [4, CONTEXT, 'fires'],
    [3, CONTEXT, 'is not aware of contexts'],
  ] as const)('A-25: breakpoint %i of type unlinked context %s', (n, type, what) => {
    const b = new DebugBench()
    b.program(a => a.nop().hvc(1))
    b.set('CONTEXTIDR_EL1', 0x1233n)
    b.breakAt(n, 0x1233n, BREAK | type)
    expect(b.outcome()).toBe(what === 'fires' ? EC.BREAKPOINT : 'done')
    b.set('CONTEXTIDR_EL1', 0x1230n)
    b.core.setPstate(5)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome()).toBe('done')
  })

  it('A-25: bits 1:0 of a value read as zero for an address and count for a context', () => {
    const b = new DebugBench()
    b.breakAt(5, 0x1003n, BREAK)
    expect(b.core.registers.hostRead(BVR(5))).toBe(0x1000n)
    b.put(BCR(5), BREAK | CONTEXT)
    expect(b.core.registers.hostRead(BVR(5))).toBe(0x1003n)
    b.put(WVR(0), 0x1003n)
    expect(b.core.registers.hostRead(WVR(0))).toBe(0x1000n)
  })
})

describe('priorities', () => {
  it('A-28: a breakpoint on an SVC comes first, then the SVC with the next address', () => {
    const b = new DebugBench()
    b.load(VECTORS + 0x200, a =>
      // The first entry masks D in SPSR and returns; the second leaves.
      a
        .cbnz(20, 'second')
        .mov(20, 1)
        .mrs(0, 'ELR_EL1')
        .mrs(1, 'SPSR_EL1')
        .mov(2, 0x200)
        .word(0xaa020021)
        .msr('SPSR_EL1', 1)
        .eret()
        .label('second')
        .hvc(0x104),
    )
    b.program(a => a.svc(3))
    b.breakAt(0, CODE)
    expect(b.vector()).toBe(4)
    expect(b.x(0)).toBe(BigInt(CODE))
    expect([b.esr.ec, b.esr.iss, b.get('ELR_EL1')]).toEqual([EC.SVC, 3, BigInt(CODE + 4)])
  })

  it('A-28: a hardware breakpoint comes before the BRK it stands on', () => {
    const b = new DebugBench()
    b.program(a => a.brk(5))
    b.breakAt(0, CODE)
    b.vector()
    expect(b.esr.ec).toBe(EC.BREAKPOINT)
    b.core.setPstate(0x205)
    b.core.state.pc = BigInt(CODE)
    b.vector()
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.BRK, BigInt(CODE)])
  })

  it('a step comes before a breakpoint, a breakpoint before the illegal state, that before the instruction', () => {
    const b = new DebugBench(MDE | KDE | SS)
    b.program(a => a.brk())
    b.breakAt(0, CODE)
    const seen: number[] = []
    for (const [pstate, mdscr] of [
      [0x10_0005, MDE | KDE | SS],
      [0x10_0005, MDE | KDE],
      [0x10_0205, MDE],
      [0x205, MDE],
    ] as const) {
      b.set('MDSCR_EL1', mdscr)
      b.core.setPstate(pstate)
      b.core.state.pc = BigInt(CODE)
      b.vector()
      seen.push(b.esr.ec)
    }
    expect(seen).toEqual([EC.STEP, EC.BREAKPOINT, EC.ILLEGAL_STATE, EC.BRK])
  })

  it('an instruction abort comes before a breakpoint, PC alignment before both', () => {
    const b = new DebugBench()
    b.breakAt(0, 0x9_0000_0000n)
    b.core.state.pc = 0x9_0000_0000n
    b.vector()
    expect(b.esr.ec).toBe(EC.INSTRUCTION_ABORT)
    b.core.setPstate(5)
    b.core.state.pc = 0x9_0000_0002n
    b.vector()
    expect(b.esr.ec).toBe(EC.PC_ALIGNMENT)
  })
})

describe('watchpoints', () => {
  const at = 0x5000

  it.each([
    ['a load', 0, (b: Bench) => b.program(a => a.mov(1, at).ldr(0, 1).hvc(1)), 0x22],
    [
      'a store',
      0x77,
      (b: Bench) => b.program(a => a.mov(1, at).mov(0, 0x55).str(0, 1).hvc(1)),
      0x62,
    ],
  ])(
    'A-28: %s: FAR is the address, and after the handler masks D the access is made',
    (_, before, write, iss) => {
      const b = new DebugBench()
      b.ram.setBigUint64(at, BigInt(before), true)
      write(b)
      b.watchAt(0, at)
      b.load(VECTORS + 0x200, a => a.hvc(0x104).eret())
      expect(b.vector()).toBe(4)
      expect(b.esr).toEqual({ ec: EC.WATCHPOINT, il: 1, iss })
      expect([b.get('FAR_EL1'), b.ram.getBigUint64(at, true)]).toEqual([BigInt(at), BigInt(before)])
      b.set('SPSR_EL1', b.get('SPSR_EL1') | 0x200n)
      expect(b.run().left).toBe(1)
      expect(b.ram.getBigUint64(at, true)).toBe(iss === 0x62 ? 0x55n : 0n)
    },
  )

  // [what, value, control, access address, store, fires with FAR]
  // biome-ignore format: table
  const cases: readonly [string, number, bigint, number, boolean, number | undefined][] = [
    ['loads only, a store',          at,     WATCH ^ (2n << 3n),          at,     true,  undefined],
    ['loads only, a load',           at,     WATCH ^ (2n << 3n),          at,     false, at],
    ['stores only, a load',          at,     WATCH ^ (1n << 3n),          at,     false, undefined],
    ['LSC 0',                        at,     WATCH & ~0x18n,              at,     true,  undefined],
    ['byte 3 of eight',              at,     (WATCH & ~0x1fe0n) | (8n << 5n), at, false, at + 3],
    ['bytes 4 to 7, by bytes 0 to 3', at,    (WATCH & ~0x1fe0n) | (0xf0n << 5n), at - 8, false, undefined],
    ['upper word by value',          at + 4, (WATCH & ~0x1fe0n) | (0x0fn << 5n), at, false, at + 4],
    ['upper word, BAS 7:4 ignored',  at + 4, (WATCH & ~0x1fe0n) | (0xf0n << 5n), at, false, undefined],
    ['no byte',                      at,     WATCH & ~0x1fe0n,            at,     false, undefined],
    ['a range of 2^12, its end',     at,     WATCH | (12n << 24n),        at + 0xff8, false, at + 0xff8],
    ['a range of 2^12, past it',     at,     WATCH | (12n << 24n),        at + 0x1000, false, undefined],
    ['a range under its value',      at + 8, WATCH | (12n << 24n),        at,     false, at],
    ['reserved mask 1',              at,     WATCH | (1n << 24n),         at,     false, undefined],
    ['for EL0 at EL1',               at,     WATCH ^ 2n,                  at,     false, undefined],
    ['disabled',                     at,     WATCH ^ 1n,                  at,     false, undefined],
    ['linked to none',               at,     WATCH | LINKED,              at,     false, undefined],
  ]
  it.each(cases)('A-25: %s', (_, value, control, address, store, far) => {
    const b = new DebugBench()
    b.program(a => (store ? a.mov(1, address).str(0, 1) : a.mov(1, address).ldr(0, 1)).hvc(1))
    b.watchAt(WATCHPOINTS - 1, value, control)
    expect(b.outcome()).toBe(far === undefined ? 'done' : EC.WATCHPOINT)
    if (far !== undefined) expect(b.get('FAR_EL1')).toBe(BigInt(far))
  })

  it('the lowest of several hits is reported, and a neighbour is not', () => {
    const b = new DebugBench()
    b.program(a => a.mov(1, at).ldrb(0, 1, 9).ldr(0, 1).hvc(1))
    b.watchAt(0, at, (WATCH & ~0x1fe0n) | (0x40n << 5n))
    b.watchAt(1, at, (WATCH & ~0x1fe0n) | (0x04n << 5n))
    expect(b.outcome()).toBe(EC.WATCHPOINT)
    expect([b.get('FAR_EL1'), b.get('ELR_EL1')]).toEqual([BigInt(at + 2), BigInt(CODE + 8)])
  })

  it('LDTR has the privilege of EL0, and an abort comes before a watchpoint', () => {
    const b = new DebugBench()
    // LDTR x0, [x1]
    b.program(a => a.mov(1, at).word(0xf8400820).hvc(1))
    b.watchAt(0, at, WATCH ^ 4n)
    expect(b.outcome(), 'EL1 watched').toBe('done')
    b.put(WCR(0), WATCH ^ 2n)
    b.core.setPstate(5)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome(), 'EL0 watched').toBe(EC.WATCHPOINT)
    b.program(a => a.mov(1, at + 1).ldr(0, 1))
    b.core.setPstate(5)
    b.put(WCR(0), WATCH)
    expect(b.outcome(), 'misaligned with stage 1 off').toBe(EC.DATA_ABORT)
  })

  it('DC ZVA and DC IVAC write all of their block', () => {
    const b = new DebugBench()
    b.watchAt(0, at + 0x38)
    b.ram.setUint8(at, 0xee)
    b.program(a => a.mov(1, at).sys(systemKey(1, 0, 7, 6, 1), 1))
    expect(b.outcome()).toBe(EC.WATCHPOINT)
    expect([b.esr.iss, b.get('FAR_EL1')]).toEqual([0x162, BigInt(at + 0x38)])
    // With stage 1 on and identity mapped, ZVA is allowed.
    b.ram.setBigUint64(0x10_0000, 0x701n | (1n << 2n), true)
    b.set('MAIR_EL1', 0xff00n)
    b.set('TCR_EL1', 25n | (4n << 32n))
    b.set('TTBR0_EL1', 0x10_0000n)
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | 1n)
    b.core.setPstate(5)
    b.program(a =>
      a
        .mov(1, at)
        .sys(systemKey(1, 3, 7, 4, 1), 1)
        .hvc(1),
    )
    expect(b.outcome()).toBe(EC.WATCHPOINT)
    expect([b.esr.iss, b.ram.getUint8(at)]).toEqual([0x62, 0xee])
    b.put(WCR(0), 0n)
    b.core.setPstate(5)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome()).toBe('done')
    expect(b.ram.getUint8(at)).toBe(0)
  })

  it('an atomic that only its store matches is reported as a write', () => {
    const b = new DebugBench()
    // LDADD x0, x2, [x1]
    b.program(a => a.mov(1, at).mov(0, 1).word(0xf8200022).hvc(1))
    b.watchAt(0, at, WATCH ^ (1n << 3n))
    expect(b.outcome()).toBe(EC.WATCHPOINT)
    expect(b.esr.iss).toBe(0x62)
    b.put(WCR(0), WATCH)
    b.core.setPstate(5)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome()).toBe(EC.WATCHPOINT)
    expect(b.esr.iss).toBe(0x22)
  })
})

describe('linked', () => {
  const contexts = [BREAKPOINTS - 2, BREAKPOINTS - 1]
  const breaks = Array.from({ length: BREAKPOINTS }, (_, n) => n).flatMap(n =>
    contexts.filter(c => c !== n).map(c => [n, c] as const),
  )

  it.each(breaks)('A-28: breakpoint %i with context %i', (n, c) => {
    const b = new DebugBench()
    b.program(a => a.nop().hvc(1))
    b.breakAt(c, 0x1233n, BREAK | LINKED_CONTEXT)
    b.breakAt(n, CODE, BREAK | LINKED | link(c))
    b.set('CONTEXTIDR_EL1', 0x1234n)
    expect(b.outcome()).toBe('done')
    b.set('CONTEXTIDR_EL1', 0x1233n)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome()).toBe(EC.BREAKPOINT)
  })

  const watches = Array.from({ length: WATCHPOINTS }, (_, n) =>
    contexts.map(c => [n, c] as const),
  ).flat()
  it.each(watches)('A-28: watchpoint %i with context %i', (n, c) => {
    const b = new DebugBench()
    b.program(a => a.mov(1, 0x5000).ldr(0, 1).hvc(1))
    b.breakAt(c, 0x1233n, BREAK | LINKED_CONTEXT)
    b.watchAt(n, 0x5000, WATCH | LINKED | link(c))
    b.set('CONTEXTIDR_EL1', 0x1234n)
    expect(b.outcome()).toBe('done')
    b.set('CONTEXTIDR_EL1', 0x1233n)
    b.core.state.pc = BigInt(CODE)
    expect(b.outcome()).toBe(EC.WATCHPOINT)
  })

  it.each([
    ['a breakpoint without contexts', 0, BREAK | LINKED_CONTEXT],
    ['a disabled one', 5, (BREAK | LINKED_CONTEXT) & ~1n],
    ['an unlinked context', 5, (BREAK & ~6n) | CONTEXT],
    ['one past the last', 6, 0n],
  ])('a link to %s never matches', (_, c, control) => {
    const b = new DebugBench()
    b.program(a => a.nop().hvc(1))
    if (c < BREAKPOINTS) b.breakAt(c, 0n, control)
    b.breakAt(1, CODE, BREAK | LINKED | link(c))
    expect(b.outcome()).toBe('done')
  })
})

describe('software step', () => {
  const handler = (b: Bench) => b.load(VECTORS + 0x200, a => a.hvc(0x104).eret())

  /** Steps of the guest: addresses at which a step exception was taken, until something else. */
  function steps(b: Bench, most = 16): bigint[] {
    const seen: bigint[] = []
    while (seen.length < most) {
      const { left } = b.run()
      if (left !== 0x104 || b.esr.ec !== EC.STEP) break
      seen.push(b.get('ELR_EL1'))
      b.set('SPSR_EL1', b.get('SPSR_EL1') | (1n << 21n))
    }
    return seen
  }

  it('A-28: three instructions give steps at start, +4 and +8; the last masks D', () => {
    const b = new DebugBench(KDE | SS)
    handler(b)
    b.program(a => a.nop().nop().daifset(8).nop().hvc(1))
    expect(steps(b)).toEqual([0, 4, 8].map(offset => BigInt(CODE + offset)))
    expect(b.core.state.pc).toBe(BigInt(CODE + 20))
  })

  it('active-not-pending executes one instruction, active-pending none; ISV and EX tell what was stepped', () => {
    const b = new DebugBench(KDE | SS)
    handler(b)
    b.program(a => a.mov(1, 0x5000).ldxr(0, 1).nop())
    const syndromes: number[] = []
    for (let i = 0; i < 4; i++) {
      b.run()
      syndromes.push(b.esr.iss)
      b.set('SPSR_EL1', b.get('SPSR_EL1') | (1n << 21n))
    }
    // not stepped into, after MOV, after LDXR, after NOP
    expect(syndromes).toEqual([0x22, 0x100_0022, 0x100_0062, 0x100_0022])
  })

  it.each([
    ['SVC', (b: Bench) => b.program(a => a.svc()), 0n],
    ['BRK', (b: Bench) => b.program(a => a.brk()), 1n],
    ['UNDEFINED', (b: Bench) => b.program(a => a.word(0)), 1n],
  ])(
    'an exception from a stepped %s saves SS as whether the instruction is still to be done',
    (_, write, ss) => {
      const b = new DebugBench(KDE | SS)
      write(b)
      b.core.setPstate(0x20_0005)
      expect(b.vector()).toBe(4)
      expect((b.get('SPSR_EL1') >> 21n) & 1n).toBe(ss)
    },
  )

  it.each([
    ['to EL0 from EL1 with D set', 0x3c5, 0, SS | KDE, true],
    ['to EL1 with D clear from D set', 0x3c5, 5, SS | KDE, true],
    ['to EL1 with D clear from D clear', 5, 5, SS | KDE, false],
    ['to EL1 with D set', 0x3c5, 0x205, SS | KDE, false],
    ['to EL1 without KDE', 0x3c5, 5, SS, false],
    ['without MDSCR_EL1.SS', 0x3c5, 0, KDE, false],
  ])('ERET %s takes SS from SPSR: %4$s', (_, from, to, mdscr, taken) => {
    const b = new DebugBench(mdscr)
    b.program(a => a.eret())
    b.core.setPstate(from | (1 << 21))
    b.set('SPSR_EL1', BigInt(to | (1 << 21)))
    b.set('ELR_EL1', BigInt(CODE))
    b.core.run(1)
    expect(b.core.state.ss).toBe(taken ? 1 : 0)
  })

  it.each([
    ['with an ISB: the ISB itself is not stepped', true, 8],
    ['without one: a few instructions later', false, 20],
  ])('a write of MDSCR_EL1.SS takes effect %s', (_, isb, first) => {
    const b = new DebugBench(0n)
    b.program(a => {
      a.mov(9, KDE | SS).msr('MDSCR_EL1', 9)
      if (isb) a.isb()
      for (let i = 0; i < 8; i++) a.nop()
    })
    expect(b.vector()).toBe(4)
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.STEP, BigInt(CODE + 4 + first)])
  })

  it('EL0 is stepped without KDE and whatever D is', () => {
    const b = new DebugBench(SS)
    b.program(a => a.nop().nop())
    b.core.setPstate(0x20_0200)
    expect(b.vector()).toBe(8)
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.STEP_LOWER, BigInt(CODE + 4)])
  })

  it('A-31: a stepped load-exclusive, store-exclusive loop never completes', () => {
    const b = new DebugBench(KDE | SS)
    handler(b)
    b.program(a => a.mov(1, 0x5000).label('again').ldxr(0, 1).stxr(2, 0, 1).cbnz(2, 'again').hvc(1))
    const seen = steps(b, 60)
    expect(seen).toHaveLength(60)
    expect(new Set(seen.slice(1))).toEqual(new Set([4, 8, 12].map(o => BigInt(CODE + o))))
    b.set('MDSCR_EL1', 0n)
    expect(b.run().left, 'without the steps it does').toBe(1)
  })
})

describe('BRK', () => {
  it.each([
    ['MDE and KDE clear', 0n, 5],
    ['D set', MDE | KDE, 0x205],
  ])('is taken with %s: always enabled', (_, mdscr, pstate) => {
    const b = new DebugBench(mdscr)
    b.program(a => a.brk(0x123))
    b.core.setPstate(pstate)
    expect(b.vector()).toBe(4)
    expect(b.esr).toEqual({ ec: EC.BRK, il: 1, iss: 0x123 })
  })
})

describe('saved', () => {
  it('A-34: break- and watchpoints fire after a restore into another core', () => {
    const b = new DebugBench()
    b.breakAt(2, CODE + 8)
    b.watchAt(1, 0x5000)
    const saved = structuredClone(b.core.save())
    for (const [write, expected] of [
      [(x: Bench) => x.program(a => a.nop().nop().nop().hvc(1)), EC.BREAKPOINT],
      [(x: Bench) => x.program(a => a.mov(1, 0x5000).ldr(0, 1).hvc(1)), EC.WATCHPOINT],
    ] as const) {
      const other = new DebugBench(0n)
      other.core.restore(saved)
      write(other)
      expect(other.outcome()).toBe(expected)
    }
  })

  it('A-27: clearing every control and value register and the locks ends it all', () => {
    const b = new DebugBench()
    b.breakAt(0, CODE + 0x40)
    b.program(a => {
      a.set('OSDLR_EL1', 0).set('OSLAR_EL1', 0).set('MDSCR_EL1', 0).set('CONTEXTIDR_EL1', 0)
      for (let n = 0; n < BREAKPOINTS; n++) a.set(BVR(n), 0).set(BCR(n), 0)
      for (let n = 0; n < WATCHPOINTS; n++) a.set(WVR(n), 0).set(WCR(n), 0)
      a.isb().hvc(1)
    })
    b.breakAt(0, CODE + 0x800)
    expect(b.outcome()).toBe('done')
    expect(b.core.debug.live).toBe(false)
    expect(b.get('MDSCR_EL1') | b.core.registers.hostRead(keyOf('CONTEXTIDR_EL1'))!).toBe(0n)
  })
})
