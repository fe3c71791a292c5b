import { describe, expect, it } from 'vitest'
import { TraceBus } from '../../../src/base/trace.js'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import { EC } from '../../../src/cpu/a64/registers.js'
import { keyOf, SYSTEM_REGISTERS } from '../../../src/cpu/a64/system-register-table.js'
import { CPTR, HCR, systemSyndrome } from '../../../src/cpu/a64/traps.js'
import { type Asm, Bench, CODE, VECTORS } from './asm.js'

const rows = [...SYSTEM_REGISTERS].map(([name, row]) => ({ name, ...row }))

/** Runs one MRS or MSR at an exception level: the class it ends in, or 'done'. */
function access(b: Bench, key: number, what: 'read' | 'write', el: 0 | 1): number | 'done' {
  b.program(a => (what === 'read' ? a.mrs(3, key) : a.msr(key, 3)).hvc(1).svc(0x99))
  b.core.setPstate(el === 1 ? 5 : 0)
  const { left } = b.run()
  if (left === 1) return 'done'
  if (left === undefined) throw new Error('it went nowhere')
  const { ec, iss } = b.esr
  // At EL0 HVC is UNDEFINED too: past the access that is a success.
  return ec === EC.UNKNOWN && b.get('ELR_EL1') === BigInt(CODE + 4)
    ? 'done'
    : ec === EC.SVC && iss === 0x99
      ? 'done'
      : ec
}

describe('access', () => {
  const b = new Bench()
  // EL0 may do everything that EL1 can let it do.
  b.set('SCTLR_EL1', b.get('SCTLR_EL1') | (1n << 9n) | (1n << 15n))
  const plain = rows.filter(
    r => !r.elsewhere && r.name !== 'SPSel' && r.name !== 'DAIF' && r.name !== 'SCTLR_EL1',
  )

  it.each(plain)('$name: EL1 $el1, EL0 $el0, and UNDEFINED otherwise', r => {
    for (const [el, rights] of [
      [1, r.el1],
      [0, r.el0],
    ] as const) {
      expect(access(b, r.key, 'read', el)).toBe(rights[0] === 'r' ? 'done' : EC.UNKNOWN)
      if (r.name === 'MDSCR_EL1' || r.name === 'VBAR_EL1' || r.name === 'OSLAR_EL1') continue
      b.core.state.setX(3, 0n)
      expect(access(b, r.key, 'write', el)).toBe(rights[1] === 'w' ? 'done' : EC.UNKNOWN)
    }
  })

  it.each(rows.filter(r => r.elsewhere))('$name is UNDEFINED until somebody provides it', r => {
    const own = new Bench()
    expect(access(own, r.key, r.el1[0] === 'r' ? 'read' : 'write', 1)).toBe(EC.UNKNOWN)
    const seen: bigint[] = []
    own.core.registers.provide(r.key, { read: () => 0x77n, write: v => void seen.push(v) })
    if (r.el1[0] === 'r') {
      expect(access(own, r.key, 'read', 1)).toBe('done')
      expect(own.x(3)).toBe(0x77n)
    }
    if (r.el1[1] === 'w') {
      own.core.state.setX(3, 0x55n)
      expect(access(own, r.key, 'write', 1)).toBe('done')
      expect(seen).toEqual([0x55n])
    }
  })

  it.each([
    ['SCTLR_EL2', systemKey(3, 4, 1, 0, 0)],
    ['SCTLR_EL3', systemKey(3, 6, 1, 0, 0)],
    ['PMCR_EL0', systemKey(3, 3, 9, 12, 0)],
    ['implementation defined', systemKey(3, 0, 15, 0, 0)],
    ['PAN', systemKey(3, 0, 4, 2, 3)],
    ['DBGBVR6_EL1, one past the last', systemKey(2, 0, 0, 6, 4)],
    ['DBGWVR4_EL1, one past the last', systemKey(2, 0, 0, 4, 6)],
  ])('%s is UNDEFINED at both levels', (_, key) => {
    for (const el of [0, 1] as const) {
      for (const what of ['read', 'write'] as const)
        expect(access(b, key, what, el)).toBe(EC.UNKNOWN)
    }
  })

  it.each([
    ['CTR_EL0', 'SCTLR_EL1', 1n << 15n, 'set'],
    ['DAIF', 'SCTLR_EL1', 1n << 9n, 'set'],
    ['MDCCSR_EL0', 'MDSCR_EL1', 1n << 12n, 'clear'],
    ['CNTFRQ_EL0', 'CNTKCTL_EL1', 1n, 'set'],
    ['CNTFRQ_EL0', 'CNTKCTL_EL1', 2n, 'set'],
    ['CNTPCT_EL0', 'CNTKCTL_EL1', 1n, 'set'],
    ['CNTVCT_EL0', 'CNTKCTL_EL1', 2n, 'set'],
    ['CNTV_CTL_EL0', 'CNTKCTL_EL1', 0x100n, 'set'],
    ['CNTP_CTL_EL0', 'CNTKCTL_EL1', 0x200n, 'set'],
  ] as const)('%s at EL0 is trapped to EL1 by %s bit 0x%x', (name, control, bit, runs) => {
    const own = new Bench()
    own.core.registers.provide(keyOf(name), { read: () => 1n })
    const rest = own.get(control) & ~bit
    own.set(control, runs === 'set' ? rest : rest | bit)
    expect(access(own, keyOf(name), 'read', 0)).toBe(EC.SYSTEM)
    expect(own.esr.iss).toBe(systemSyndrome(keyOf(name), 3, true))
    own.set(control, runs === 'set' ? rest | bit : rest)
    expect(access(own, keyOf(name), 'read', 0)).toBe('done')
  })

  it('a trapped access tells op0, op2, op1, CRn, Rt, CRm and direction in its syndrome', () => {
    const own = new Bench()
    own.core.setPstate(0)
    own.program(a => a.msr('DAIF', 21))
    own.vector()
    const iss = (3 << 20) | (1 << 17) | (3 << 14) | (4 << 10) | (21 << 5) | (2 << 1)
    expect(own.esr).toEqual({ ec: EC.SYSTEM, il: 1, iss })
    own.core.setPstate(0)
    own.program(a => a.daifclr(2))
    own.vector()
    const immediate = (7 << 17) | (3 << 14) | (4 << 10) | (31 << 5) | (2 << 1)
    expect(own.esr).toEqual({ ec: EC.SYSTEM, il: 1, iss: immediate })
  })

  it('MSR SPSel at EL0 is UNDEFINED', () => {
    const own = new Bench()
    own.core.setPstate(0)
    own.program(a => a.spsel(1))
    own.vector()
    expect(own.esr.ec).toBe(EC.UNKNOWN)
  })
})

describe('values', () => {
  it.each(rows.filter(r => r.el1 === 'rw' && r.mask !== 0n && !r.elsewhere))(
    '$name keeps its writable bits and no others',
    r => {
      const b = new Bench()
      const register = b.core.registers.at(r.key)!
      b.core.registers.store(register, (1n << 64n) - 1n)
      // A context breakpoint's value has bits 1:0, an address's has not; control registers say which it is.
      const address = /^DBGBVR/.test(r.name) ? ~3n : -1n
      if (r.name === 'SPSel') expect(register.read()).toBe(1n)
      else expect(register.read()).toBe((r.mask | r.reset) & address & ((1n << 64n) - 1n))
      b.core.registers.store(register, 0n)
      expect(register.read()).toBe(r.reset & ~r.mask)
    },
  )

  it('say what the processor is: cortex-a57 level with LSE and CRC32', () => {
    const b = new Bench({ id: 0x123 })
    const field = (name: Parameters<Bench['get']>[0], at: bigint) => (b.get(name) >> at) & 15n
    expect(field('ID_AA64PFR0_EL1', 0n)).toBe(1n)
    expect(field('ID_AA64PFR0_EL1', 4n)).toBe(1n)
    expect(field('ID_AA64PFR0_EL1', 24n)).toBe(1n)
    expect(b.get('ID_AA64ISAR0_EL1')).toBe(0x21_0000n)
    expect(b.get('ID_AA64MMFR0_EL1')).toBe(0x10_0024n)
    expect(b.get('CTR_EL0')).toBe(0x8444_c004n)
    expect(b.get('DCZID_EL0')).toBe(4n)
    expect(b.get('MPIDR_EL1')).toBe(0x8000_1203n)
  })

  it('A-26: DebugVer 6, six breakpoints of which the last two know contexts, four watchpoints', () => {
    const dfr = new Bench().get('ID_AA64DFR0_EL1')
    const field = (at: bigint) => (dfr >> at) & 15n
    expect([field(0n), field(12n), field(20n), field(28n)]).toEqual([6n, 5n, 3n, 1n])
  })

  it('CCSIDR_EL1 follows CSSELR_EL1, and the caches that CLIDR_EL1 names have one', () => {
    const b = new Bench()
    const sizes = [0n, 1n, 2n].map(level => {
      b.set('CSSELR_EL1', level)
      const v = b.get('CCSIDR_EL1')
      const line = 16n << (v & 7n)
      return Number(line * (((v >> 3n) & 0x3ffn) + 1n) * (((v >> 13n) & 0x7fffn) + 1n))
    })
    expect(sizes).toEqual([32 << 10, 48 << 10, 2 << 20])
  })

  it('ISR_EL1 shows what is pending, masked or not', () => {
    const lines = { irq: true, fiq: false }
    const b = new Bench({ interrupts: lines })
    b.core.pendSerror()
    expect(b.get('ISR_EL1')).toBe(0x180n)
    lines.fiq = true
    expect(b.get('ISR_EL1')).toBe(0x1c0n)
  })

  it('a reset gives every register its reset value again', () => {
    const b = new Bench({ id: 2 })
    for (const r of rows)
      if (r.el1 === 'rw' && !r.elsewhere) b.core.registers.store(b.core.registers.at(r.key)!, ~0n)
    b.core.reset()
    for (const r of rows) {
      const reset = r.name === 'MPIDR_EL1' ? 0x8000_0002n : r.reset
      if (!['SPSel', 'DAIF', 'CurrentEL', 'CCSIDR_EL1'].includes(r.name))
        expect(b.core.registers.at(r.key)!.read(), r.name).toBe(reset)
    }
    expect(b.core.pstate).toBe(0x3c5)
  })
})

describe('the host', () => {
  it('reads and writes by key without traps, seen at once', () => {
    const b = new Bench({ sync: 'strict' })
    expect(b.core.registers.hostWrite(keyOf('TPIDR_EL1'), 0x1234n)).toBe('done')
    expect(b.core.registers.hostRead(keyOf('TPIDR_EL1'))).toBe(0x1234n)
    b.core.registers.hostWrite(keyOf('SCTLR_EL1'), 0x30d0_0981n)
    expect(b.core.mmu.regime.enabled).toBe(true)
  })

  it('may give a read-only register its own value and no other, unless by setId', () => {
    const { registers } = new Bench().core
    const key = keyOf('ID_AA64ISAR0_EL1')
    expect(registers.hostWrite(key, 0x21_0000n)).toBe('done')
    expect(registers.hostWrite(key, 0n)).toBe('refused')
    registers.setId(key, 0x1_0000n)
    registers.reset()
    expect(registers.hostRead(key)).toBe(0x1_0000n)
    expect(registers.hostRead(systemKey(3, 4, 1, 0, 0))).toBeUndefined()
    expect(registers.hostWrite(systemKey(3, 4, 1, 0, 0), 0n)).toBe('unknown')
  })

  it('B-3: the list has OSLSR_EL1 and the debug registers, and neither OSLAR_EL1 nor core registers', () => {
    const list = new Bench().core.registers.list()
    expect(list).toContain(keyOf('OSLSR_EL1'))
    expect(keyOf('OSLSR_EL1').toString(16), 'low half of 0x603000000013808c').toBe('808c')
    expect(list).toContain(systemKey(2, 0, 0, 5, 4))
    for (const name of ['OSLAR_EL1', 'ELR_EL1', 'SP_EL0', 'CNTV_CTL_EL0'] as const)
      expect(list).not.toContain(keyOf(name))
    expect(list).toEqual([...list].sort((a, b) => a - b))
  })
})

describe('the hypervisor', () => {
  it.each([
    ['SCTLR_EL1', 'hcr', HCR.TVM, 'write'],
    ['TTBR0_EL1', 'hcr', HCR.TRVM, 'read'],
    ['REVIDR_EL1', 'hcr', HCR.TID1, 'read'],
    ['CLIDR_EL1', 'hcr', HCR.TID2, 'read'],
    ['CTR_EL0', 'hcr', HCR.TID2, 'read'],
    ['ID_AA64MMFR0_EL1', 'hcr', HCR.TID3, 'read'],
    ['ACTLR_EL1', 'hcr', HCR.TACR, 'read'],
    ['CPACR_EL1', 'cptr', CPTR.TCPAC, 'read'],
  ] as const)('takes %s by a bit of %s, emulates it and tells', (name, register, bit, what) => {
    const trace = new TraceBus()
    const heard: unknown[] = []
    trace.listen('a64.trap', e => heard.push(e))
    const b = new Bench({ trace })
    const { traps } = b.core
    for (const on of [false, true]) {
      traps[register] = on ? bit : 0
      b.core.state.setX(3, b.get(name))
      expect(access(b, keyOf(name), what, 1)).toBe('done')
    }
    expect(heard).toEqual([
      {
        vcpu: 0,
        pc: BigInt(CODE),
        ec: EC.SYSTEM,
        iss: systemSyndrome(keyOf(name), 3, what === 'read'),
        register: name,
      },
    ])
  })
})

describe('the hypervisor and instructions', () => {
  const tlbi = systemKey(1, 0, 8, 7, 0)
  const MINUS = { ec: EC.SYSTEM }
  it.each([
    ['TLBI VMALLE1', 'hcr', HCR.TTLB, (a: Asm) => a.sys(tlbi), MINUS],
    ['IC IALLU', 'hcr', HCR.TPU, (a: Asm) => a.sys(systemKey(1, 0, 7, 5, 0)), MINUS],
    ['DC CISW', 'hcr', HCR.TSW, (a: Asm) => a.sys(systemKey(1, 0, 7, 14, 2), 0), MINUS],
    ['DC CIVAC', 'hcr', HCR.TPCP, (a: Asm) => a.sys(systemKey(1, 3, 7, 14, 1), 0), MINUS],
    ['WFI', 'hcr', HCR.TWI, (a: Asm) => a.wfi(), { ec: EC.WFX, iss: 0x1e0_0000 }],
    ['WFE', 'hcr', HCR.TWE, (a: Asm) => a.wfe(), { ec: EC.WFX, iss: 0x1e0_0001 }],
    ['SMC', 'hcr', HCR.TSC, (a: Asm) => a.smc(5), { ec: EC.SMC, iss: 5 }],
    ['FP', 'cptr', CPTR.TFP, (a: Asm) => a.word(0x1e604000), { ec: EC.FP_ACCESS, iss: 0x1e0_0000 }],
  ] as const)(
    'takes %s by a bit of %s, emulates it and tells',
    (name, register, bit, write, told) => {
      const trace = new TraceBus()
      const heard: unknown[] = []
      trace.listen('a64.trap', e => heard.push(e))
      const b = new Bench({ trace, interrupts: { irq: true, fiq: false } })
      b.set('CPACR_EL1', 3n << 20n)
      for (const on of [false, true]) {
        b.core.traps[register] = on ? bit : 0
        b.program(a => write(a).hvc(1))
        const { exit } = b.run()
        // Without TSC there is nothing that an SMC could reach.
        if (name === 'SMC') expect(exit.kind === 'hypercall' && exit.call).toBe(on ? 'smc' : 'hvc')
        else expect(exit).toMatchObject({ kind: 'hypercall', immediate: 1 })
      }
      expect(heard).toMatchObject([{ pc: BigInt(CODE), register: name, ...told }])
      expect(heard).toHaveLength(1)
    },
  )

  it('HCR_EL2.HCD makes HVC UNDEFINED', () => {
    const b = new Bench()
    b.core.traps.hcr |= HCR.HCD
    b.load(VECTORS + 0x200, a => a.smc(0x99))
    b.program(a => a.hvc(1))
    expect(b.run().exit).toMatchObject({ kind: 'hypercall', call: 'smc', immediate: 0x99 })
    expect(b.esr.ec).toBe(EC.UNKNOWN)
  })
})

describe('saved state', () => {
  it('A-34: is plain data that another core takes', () => {
    const b = new Bench()
    b.core.setPstate(0x6000_0004)
    for (let n = 0; n < 31; n++) b.core.state.setX(n, BigInt(n) * 0x1_0000_0001n)
    b.core.state.setStack(0, 0x1111n)
    b.core.state.setStack(1, 0x2222n)
    b.set('TPIDR_EL0', 0x3333n)
    b.set('MDSCR_EL1', 0x8000n)
    b.core.registers.hostWrite(systemKey(2, 0, 0, 5, 4), 0x4447n)
    b.core.registers.hostWrite(keyOf('OSLSR_EL1'), 10n)
    b.core.state.armExclusive(0x5000, 8)
    b.core.pendSerror(7)
    b.core.halted = true
    const saved = structuredClone(b.core.save())
    const other = new Bench()
    other.core.restore(saved)
    expect(other.core.save()).toEqual(saved)
    expect(other.core.debug.lock.locked).toBe(true)
    expect(other.core.state.sp).toBe(0x1111n)
  })

  it('B-4: one without OSLSR_EL1 means unlocked', () => {
    const b = new Bench()
    b.core.registers.hostWrite(keyOf('OSLSR_EL1'), 10n)
    const saved = b.core.save()
    const { OSLSR_EL1, ...registers } = saved.registers
    expect(OSLSR_EL1).toBe(10n)
    b.core.restore({ ...saved, registers })
    expect(b.core.debug.lock.locked).toBe(false)
  })
})
