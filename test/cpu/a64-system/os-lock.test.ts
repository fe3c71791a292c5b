import { describe, expect, it } from 'vitest'
import { TraceBus } from '../../../src/base/trace.js'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import { EC } from '../../../src/cpu/a64/registers.js'
import { keyOf } from '../../../src/cpu/a64/system-register-table.js'
import { HypervisorTraps, MDCR } from '../../../src/cpu/a64/traps.js'
import { Bench, CODE, VECTORS } from './asm.js'

const BVR0 = systemKey(2, 0, 0, 0, 4)
const BCR0 = systemKey(2, 0, 0, 0, 5)
const WVR0 = systemKey(2, 0, 0, 0, 6)
const WCR0 = systemKey(2, 0, 0, 0, 7)
const MDE = 1n << 15n
const KDE = 1n << 13n
const ALWAYS = MDCR.TDOSA | MDCR.TDRA

const values = () => ({
  bvr: new BigUint64Array(16),
  bcr: new Int32Array(16),
  wvr: new BigUint64Array(16),
  wcr: new Int32Array(16),
})

const unmasked = (b: Bench) => b.core.setPstate(5)

describe('registers', () => {
  it('B-1: OSLSR_EL1 resets to 8, implemented and unlocked', () => {
    expect(new Bench().get('OSLSR_EL1')).toBe(8n)
  })

  it('B-1: the architecture resets it to locked, by option', () => {
    const b = new Bench({ osLock: 'locked' })
    expect(b.get('OSLSR_EL1')).toBe(10n)
    b.set('OSLSR_EL1', 8n)
    b.core.reset()
    expect(b.get('OSLSR_EL1')).toBe(10n)
  })

  it('OSLAR_EL1 bit 0 becomes OSLK at once, its other bits are ignored', () => {
    const b = new Bench()
    b.program(a =>
      a.set('OSLAR_EL1', -1n).mrs(0, 'OSLSR_EL1').set('OSLAR_EL1', -2n).mrs(1, 'OSLSR_EL1').hvc(1),
    )
    b.run()
    expect([b.x(0), b.x(1)]).toEqual([10n, 8n])
  })

  it.each([
    ['B-2: a read of OSLAR_EL1', (b: Bench) => b.program(a => a.mrs(0, 'OSLAR_EL1'))],
    ['B-2: a write to OSLSR_EL1', (b: Bench) => b.program(a => a.msr('OSLSR_EL1', 0))],
  ])('%s is UNDEFINED, with the lock open and closed', (_, write) => {
    const b = new Bench()
    for (const locked of [8n, 10n]) {
      b.set('OSLSR_EL1', locked)
      write(b)
      expect(b.vector()).toBe(4)
      expect(b.esr).toEqual({ ec: EC.UNKNOWN, il: 1, iss: 0 })
      expect(b.get('OSLSR_EL1')).toBe(locked)
    }
  })

  it.each(['OSDLR_EL1', 'DBGPRCR_EL1'] as const)('%s reads as zero and ignores writes', name => {
    const b = new Bench()
    b.program(a => a.set(name, -1n).mrs(0, name).hvc(1))
    expect(b.run().left).toBe(1)
    expect(b.x(0)).toBe(0n)
  })

  it('B-3: the host may set and clear OSLK and change no other bit', () => {
    const { registers, debug } = new Bench().core
    const key = keyOf('OSLSR_EL1')
    const write = (v: bigint) => [registers.hostWrite(key, v), debug.lock.locked]
    expect(write(10n)).toEqual(['done', true])
    expect(write(8n)).toEqual(['done', false])
    for (const refused of [0n, 2n, 9n, 12n, 0x18n, (1n << 32n) | 8n])
      expect(write(refused)).toEqual(['refused', false])
    expect(registers.hostWrite(keyOf('OSLAR_EL1'), 1n)).toBe('unknown')
  })

  it('B-18: a protected VM sees no lock: its registers read as zero and ignore writes', () => {
    const b = new Bench({ osLock: 'hidden' })
    b.program(a =>
      a
        .set('OSLAR_EL1', 1)
        .mrs(0, 'OSLAR_EL1')
        .mrs(1, 'OSLSR_EL1')
        .msr('OSLSR_EL1', 9)
        .mrs(2, 'OSDLR_EL1')
        .hvc(1),
    )
    expect(b.run().left).toBe(1)
    expect([b.x(0), b.x(1), b.x(2), b.core.debug.lock.locked]).toEqual([0n, 0n, 0n, false])
    expect(b.core.registers.hostWrite(keyOf('OSLSR_EL1'), 8n)).toBe('refused')
  })

  it('B-16: locked is a boolean', () => {
    const { debug } = new Bench().core
    expect(debug.lock.locked).toBe(false)
  })
})

/** A guest that meets a breakpoint, a watchpoint and a step, each at its own place, and a BRK. */
function guest(b: Bench, locked: boolean): void {
  b.load(VECTORS + 0x200, a => a.hvc(0x104).eret())
  b.program(a =>
    a
      .set('OSLAR_EL1', locked ? 1 : 0)
      .isb()
      .mrs(0, 'OSLSR_EL1')
      .set('MDSCR_EL1', MDE | KDE)
      .isb()
      .set(BVR0, 0)
      .set(BCR0, 0x1e7)
      .isb()
      .mov(1, 0x5000)
      .mov(2, 0x77)
      .set(WVR0, 0x5000)
      .set(WCR0, 0x1fff)
      .isb()
      .str(2, 1)
      .label('stored')
      .nop()
      .brk(9)
      .hvc(2),
  )
}

describe('effect', () => {
  it('B-5, B-8, B-19: under the lock a breakpoint does not fire and the watched store completes', () => {
    const b = new Bench()
    guest(b, true)
    unmasked(b)
    expect(b.vector()).toBe(4)
    expect(b.esr.ec, 'B-6: BRK is taken').toBe(EC.BRK)
    expect(b.x(0)).toBe(10n)
    expect(b.ram.getBigUint64(0x5000, true)).toBe(0x77n)
  })

  it('B-19: with the lock open the same watchpoint fires and the store waits', () => {
    const b = new Bench()
    guest(b, false)
    unmasked(b)
    b.vector()
    expect([b.esr.ec, b.ram.getBigUint64(0x5000, true)]).toEqual([EC.WATCHPOINT, 0n])
  })

  it.each([
    ['a breakpoint', EC.BREAKPOINT, MDE | KDE],
    ['a step', EC.STEP, KDE | 1n],
    ['a watchpoint', EC.WATCHPOINT, MDE | KDE],
  ])('B-5, B-19: %s waits for the lock to open', (_, ec, mdscr) => {
    for (const locked of [true, false]) {
      const b = new Bench()
      const { registers } = b.core
      b.program(a => a.mov(1, 0x5000).ldr(0, 1).nop().hvc(1))
      b.set('MDSCR_EL1', mdscr)
      if (ec === EC.BREAKPOINT) {
        registers.hostWrite(BVR0, BigInt(CODE + 8))
        registers.hostWrite(BCR0, 0x1e7n)
      } else if (ec === EC.WATCHPOINT) {
        registers.hostWrite(WVR0, 0x5000n)
        registers.hostWrite(WCR0, 0x1fffn)
      }
      b.set('OSLSR_EL1', locked ? 10n : 8n)
      unmasked(b)
      const { left } = b.run()
      expect(left === 1 ? 'done' : b.esr.ec).toBe(locked ? 'done' : ec)
    }
  })

  it('B-5: nor do they fire at EL0', () => {
    const b = new Bench()
    b.program(a => a.nop().svc())
    b.set('MDSCR_EL1', MDE | 1n)
    b.core.registers.hostWrite(BVR0, BigInt(CODE))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    b.set('OSLSR_EL1', 10n)
    b.core.setPstate(0)
    expect(b.vector()).toBe(8)
    expect(b.esr.ec).toBe(EC.SVC)
  })

  it('B-6: BRK under the lock is taken with EC 0x3c and its comment', () => {
    const b = new Bench()
    b.set('OSLSR_EL1', 10n)
    b.program(a => a.brk(0x42))
    b.vector()
    expect(b.esr).toEqual({ ec: EC.BRK, il: 1, iss: 0x42 })
  })

  it('B-7: MDSCR_EL1 reads back under the lock what was written, and takes effect when it opens', () => {
    const b = new Bench()
    b.load(VECTORS + 0x200, a => a.hvc(0x104))
    const p = b.program(a =>
      a
        .set('OSLAR_EL1', 1)
        .set('MDSCR_EL1', MDE | KDE | 1n)
        .isb()
        .mrs(0, 'MDSCR_EL1')
        .mov(3, 0)
        .msr('OSLAR_EL1', 3)
        .label('open')
        .nop(),
    )
    b.core.registers.hostWrite(BVR0, BigInt(p.at('open') - 8))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    unmasked(b)
    b.vector()
    expect(b.x(0)).toBe(MDE | KDE | 1n)
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.STEP, BigInt(p.at('open'))])
  })

  it("B-9: two guests do not see each other's lock", () => {
    const [one, two] = [new Bench(), new Bench({ id: 1 })]
    one.program(a => a.set('OSLAR_EL1', 1).hvc(1))
    one.run()
    expect([one.get('OSLSR_EL1'), two.get('OSLSR_EL1')]).toEqual([10n, 8n])
    two.core.registers.hostWrite(BVR0, BigInt(CODE))
    two.core.registers.hostWrite(BCR0, 0x1e7n)
    two.set('MDSCR_EL1', MDE | KDE)
    two.program(a => a.nop())
    unmasked(two)
    two.vector()
    expect(two.esr.ec).toBe(EC.BREAKPOINT)
  })

  it('B-10: closing and opening take effect at once, without ISB and with the registers loaded', () => {
    const b = new Bench()
    b.load(VECTORS + 0x200, a => a.hvc(0x104))
    const p = b.program(a =>
      a
        .mov(1, 1)
        .mov(2, 0)
        .msr('OSLAR_EL1', 1)
        .label('closed')
        .nop()
        .msr('OSLAR_EL1', 2)
        .label('open')
        .nop(),
    )
    b.core.registers.hostWrite(BVR0, BigInt(p.at('closed')))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    b.core.registers.hostWrite(systemKey(2, 0, 0, 1, 4), BigInt(p.at('open')))
    b.core.registers.hostWrite(systemKey(2, 0, 0, 1, 5), 0x1e7n)
    b.set('MDSCR_EL1', MDE | KDE)
    unmasked(b)
    b.vector()
    expect(b.get('ELR_EL1')).toBe(BigInt(p.at('open')))
  })

  it("MDSCR_EL1: the external debugger's bits can be written under the lock only", () => {
    const b = new Bench()
    b.program(a =>
      a
        .set('MDSCR_EL1', -1n)
        .mrs(0, 'MDSCR_EL1')
        .set('OSLAR_EL1', 1)
        .set('MDSCR_EL1', -1n)
        .mrs(1, 'MDSCR_EL1')
        .hvc(1),
    )
    expect(b.run().left).toBe(1)
    expect([b.x(0), b.x(1)]).toEqual([0xb001n, 0x6ce0_f041n])
  })
})

describe('traps and ownership', () => {
  // B-14's model, in B-11's words.
  it.each([
    ['nobody has touched anything', (_: Bench) => {}, 'free', ALWAYS | MDCR.TDA],
    ['the guest armed MDE', (b: Bench) => b.set('MDSCR_EL1', MDE), 'guest', ALWAYS],
    ['the guest armed KDE', (b: Bench) => b.set('MDSCR_EL1', KDE), 'guest', ALWAYS],
    [
      'the lock is closed',
      (b: Bench) => {
        b.set('MDSCR_EL1', MDE)
        b.set('OSLSR_EL1', 10n)
      },
      'host',
      ALWAYS | MDCR.TDA,
    ],
    [
      'the host debugs',
      (b: Bench) => b.core.setGuestDebug({ singleStep: false }),
      'host',
      ALWAYS | MDCR.TDE | MDCR.TDA,
    ],
    [
      'the host debugs an armed guest with hardware',
      (b: Bench) => {
        b.set('MDSCR_EL1', MDE)
        b.core.setGuestDebug({ singleStep: false, hardware: values() })
      },
      'host',
      ALWAYS | MDCR.TDE | MDCR.TDA,
    ],
  ] as const)('B-11, B-14: when %s', (_, arrange, owner, mdcr) => {
    const b = new Bench()
    arrange(b)
    expect([b.core.debug.owner, b.core.traps.mdcr]).toEqual([owner, mdcr])
  })

  it('B-17: that the host debugs and that the lock is closed are two questions', () => {
    const b = new Bench()
    b.set('OSLSR_EL1', 10n)
    expect([b.core.debug.guestDebug, b.core.debug.lock.locked]).toEqual([undefined, true])
    b.set('OSLSR_EL1', 8n)
    b.core.setGuestDebug({ singleStep: false })
    expect([b.core.debug.guestDebug !== undefined, b.core.debug.lock.locked]).toEqual([true, false])
  })

  it('B-11: the bits are TDE 8, TDA 9, TDOSA 10, TDRA 11', () => {
    expect(Object.values(MDCR)).toEqual([1 << 8, 1 << 9, 1 << 10, 1 << 11])
    expect(new HypervisorTraps().mdcr).toBe(ALWAYS)
  })

  it('B-14: a trapped access to a break- or watchpoint register moves free to guest until the next entry, never host', () => {
    const b = new Bench()
    b.program(a => a.mrs(0, 'MDCCINT_EL1').mrs(0, BVR0).mrs(0, BVR0).hvc(1))
    const owners = [1, 2, 3].map(n => {
      b.core.state.pc = BigInt(CODE)
      b.core.run(n)
      return [b.core.debug.owner, b.core.traps.count]
    })
    expect(owners).toEqual([
      ['free', 1],
      ['guest', 3],
      // entered again: free at first, then the guest's once more
      ['guest', 5],
    ])
    b.core.setGuestDebug({ singleStep: false })
    b.core.state.pc = BigInt(CODE)
    b.core.run(3)
    expect([b.core.debug.owner, b.core.traps.count]).toEqual(['host', 8])
  })

  it.each([
    ['OSLAR_EL1', MDCR.TDOSA, 'write'],
    ['OSLSR_EL1', MDCR.TDOSA, 'read'],
    ['OSDLR_EL1', MDCR.TDOSA, 'read'],
    ['DBGPRCR_EL1', MDCR.TDOSA, 'read'],
    ['MDRAR_EL1', MDCR.TDRA, 'read'],
    ['MDSCR_EL1', MDCR.TDA, 'read'],
    ['DBGCLAIMSET_EL1', MDCR.TDA, 'read'],
  ] as const)('B-18: %s is trapped by its bit of MDCR_EL2 and emulated', (name, bit, what) => {
    const trace = new TraceBus()
    const heard: string[] = []
    trace.listen('a64.trap', e => heard.push(e.register))
    const b = new Bench({ trace })
    b.program(a => (what === 'read' ? a.mrs(0, name) : a.msr(name, 0)).hvc(1))
    expect(b.run().left).toBe(1)
    expect(heard).toEqual([name])
    b.core.traps.mdcr &= ~bit
    expect(
      b.core.traps.register(
        name.startsWith('OS') || name === 'DBGPRCR_EL1'
          ? 'os-debug'
          : name === 'MDRAR_EL1'
            ? 'debug-rom'
            : 'debug',
        what === 'write',
      ),
    ).toBe(false)
  })

  it('A-33, B-12: what the host asks for while the guest is loaded counts from its next instruction, and so does its end', () => {
    const b = new Bench()
    b.set('MDSCR_EL1', MDE | KDE)
    b.core.registers.hostWrite(BVR0, BigInt(CODE + 8))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    b.program(a => a.nop().nop().nop().hvc(1))
    unmasked(b)
    b.core.run(1)
    const hardware = values()
    hardware.bvr[0] = BigInt(CODE + 4)
    hardware.bcr[0] = 0x1e7
    b.core.setGuestDebug({ singleStep: false, hardware })
    expect(b.core.traps.mdcr).toBe(ALWAYS | MDCR.TDE | MDCR.TDA)
    expect(b.run().exit).toMatchObject({
      kind: 'debug',
      vector: EC.BREAKPOINT_LOWER,
      address: BigInt(CODE + 4),
    })
    b.core.setGuestDebug(undefined)
    expect(b.core.traps.mdcr).toBe(ALWAYS)
    b.vector()
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.BREAKPOINT, BigInt(CODE + 8)])
  })

  it("B-13: under the lock the host's breakpoints, watchpoints and steps work, and the lock can be seen before injecting", () => {
    const b = new Bench()
    b.set('OSLSR_EL1', 10n)
    b.program(a => a.nop().mov(1, 0x5000).ldr(0, 1).hvc(1))
    const hardware = values()
    hardware.bvr[3] = BigInt(CODE + 4)
    hardware.bcr[3] = 0x1e7
    hardware.wvr[2] = 0x5000n
    hardware.wcr[2] = 0x1fff
    b.core.setGuestDebug({ singleStep: false, hardware })
    expect(b.run().exit).toMatchObject({
      vector: EC.BREAKPOINT_LOWER,
      address: BigInt(CODE + 4),
      syndrome: 0xc200_0022,
    })
    hardware.bcr[3] = 0
    b.core.setGuestDebug({ singleStep: false, hardware })
    expect(b.run().exit).toMatchObject({
      vector: EC.WATCHPOINT_LOWER,
      address: BigInt(CODE + 8),
      far: 0x5000n,
      syndrome: 0xd200_0022,
    })
    b.core.setGuestDebug({ singleStep: true })
    expect(b.run().exit).toMatchObject({
      vector: EC.STEP_LOWER,
      address: BigInt(CODE + 12),
      syndrome: 0xcb00_0022,
    })
    expect(b.core.debug.lock.locked).toBe(true)
  })

  it('TDE: BRK goes to a host that debugs, whatever it asked for, and the guest sees nothing', () => {
    const b = new Bench()
    b.set('ESR_EL1', 0x1111n)
    b.program(a => a.brk(0x77))
    b.core.setGuestDebug({ singleStep: false })
    expect(b.run().exit).toEqual({
      kind: 'debug',
      vector: EC.BRK,
      address: BigInt(CODE),
      syndrome: 0xf200_0077,
      far: 0n,
    })
    expect(b.get('ESR_EL1')).toBe(0x1111n)
    b.core.setGuestDebug(undefined)
    expect(b.vector()).toBe(4)
  })
})

describe('steps from the host', () => {
  it('A-30: 3,000 of them, one instruction each, while the guest writes and reads debug registers', () => {
    const b = new Bench()
    const p = b.program(a => {
      a.mov(0, 0).mov(4, 0).label('loop').add(0, 0, 4)
      for (const [v, c] of [
        [BVR0, 5],
        [WVR0, 6],
      ] as const) {
        a.msr(v, 0).isb().mrs(c, v)
        // x4 |= x0 ^ readback
        a.word(0xca000000 | (c << 16) | (0 << 5) | 7).word(0xaa070084)
      }
      a.b('loop')
    })
    const first = p.at('loop')
    const last = p.here - 4
    b.core.setGuestDebug({ singleStep: true })
    let pc = BigInt(CODE)
    for (let i = 0; i < 3_000; i++) {
      const exit = b.core.run(1_000)
      const expected = pc === BigInt(last) ? BigInt(first) : pc + 4n
      if (exit.kind !== 'debug' || exit.address !== expected || exit.syndrome !== 0xcb00_0022)
        expect.fail(`step ${i}: ${exit.kind} at ${b.core.state.pc}`)
      pc = expected
    }
    expect(b.x(4), 'every value read back').toBe(0n)
    expect(b.x(0)).toBeGreaterThan(800n)
    b.core.setGuestDebug({ singleStep: false })
    expect(b.core.run(100).kind, 'dropping SINGLESTEP ends it').toBe('limit')
  })

  it('A-29: without host debugging nothing of it leaves the guest', () => {
    const b = new Bench()
    b.set('MDSCR_EL1', MDE | KDE | 1n)
    b.core.registers.hostWrite(BVR0, BigInt(CODE))
    b.core.registers.hostWrite(BCR0, 0x1e7n)
    b.load(VECTORS + 0x200, a => a.wfi())
    b.program(a => a.nop())
    unmasked(b)
    expect(b.run().exit.kind).toBe('hlt')
  })

  it("B-15: PSTATE.SS and the guest's own step survive steps of the host", () => {
    const b = new Bench()
    b.set('MDSCR_EL1', KDE | 1n)
    b.program(a => a.nop().nop().nop().nop())
    b.core.setPstate(0x20_0005)
    b.core.setGuestDebug({ singleStep: true })
    for (let i = 1; i <= 2; i++) {
      expect(b.run().exit).toMatchObject({ kind: 'debug', address: BigInt(CODE + 4 * i) })
      expect(b.core.pstate).toBe(0x20_0005)
    }
    b.core.setGuestDebug(undefined)
    b.vector()
    expect([b.esr.ec, b.get('ELR_EL1')]).toEqual([EC.STEP, BigInt(CODE + 12)])
  })

  it("B-15: an exception during a step of the host saves the guest's own SS", () => {
    const b = new Bench()
    b.program(a => a.word(0))
    b.core.setPstate(0x20_0005)
    b.core.setGuestDebug({ singleStep: true })
    expect(b.run().exit).toMatchObject({
      kind: 'debug',
      address: BigInt(VECTORS + 0x200),
      syndrome: 0xca00_0022,
    })
    expect(b.get('SPSR_EL1')).toBe(0x20_0005n)
  })

  it('A-31: a stepped load-exclusive, store-exclusive loop never completes; EX tells of the load', () => {
    const b = new Bench()
    b.program(a => a.mov(1, 0x5000).label('again').ldxr(0, 1).stxr(2, 0, 1).cbnz(2, 'again').hvc(1))
    b.core.setGuestDebug({ singleStep: true })
    const seen = new Set<string>()
    for (let i = 0; i < 60; i++) {
      const { exit } = b.run()
      if (exit.kind === 'debug')
        seen.add(`${Number(exit.address) - CODE} ${exit.syndrome?.toString(16)}`)
    }
    expect([...seen].sort()).toEqual(['12 cb000022', '4 cb000022', '8 cb000062'])
  })

  it('an interrupt taken during a step is what the host sees next', () => {
    const lines = { irq: true, fiq: false }
    const b = new Bench({ interrupts: lines })
    b.program(a => a.nop())
    unmasked(b)
    b.core.setGuestDebug({ singleStep: true })
    expect(b.run().exit).toMatchObject({ kind: 'debug', address: BigInt(VECTORS + 0x280) })
  })
})
