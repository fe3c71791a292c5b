import { describe, expect, it } from 'vitest'
import { ShareabilityDomain } from '../../../src/cpu/a64/domain.js'
import { ACCESS, systemKey } from '../../../src/cpu/a64/ports.js'
import { ABORT, EC } from '../../../src/cpu/a64/registers.js'
import { VMSA_ENTRY } from '../../../src/paging/formats-vmsa.js'
import { Bench, CODE } from './asm.js'

const { valid, table, AP1, AP2, AF, nG, PXN, UXN, contiguous } = VMSA_ENTRY
const { PXNTable, UXNTable, APTable0, APTable1 } = VMSA_ENTRY
const PAGE = valid | table | AF

/** AttrIndx 0 is Normal, 1 Device-nGnRE. */
const MAIR = 0x04ffn
const DEVICE = 1n << 2n

const TABLES = 0x10_0000
const DATA = 0x20_0000

interface Shape {
  readonly granule: 4 | 16 | 64
  /** Low ends of the indices, from the root's down, for 48 bits. */
  readonly shifts: readonly number[]
  readonly tg0: bigint
  readonly tg1: bigint
  readonly first: number
}

const SHAPES: readonly Shape[] = [
  { granule: 4, shifts: [39, 30, 21, 12], tg0: 0n, tg1: 2n, first: 0 },
  { granule: 16, shifts: [47, 36, 25, 14], tg0: 2n, tg1: 1n, first: 0 },
  { granule: 64, shifts: [42, 29, 16], tg0: 1n, tg1: 3n, first: 1 },
]

/** A bench with tables of one shape at TABLES for both ranges; code and vectors mapped one to one for EL1. */
class Mapped extends Bench {
  readonly shape: Shape
  #next = TABLES

  constructor(shape = SHAPES[0]!, domain?: ShareabilityDomain) {
    super(domain ? { domain } : {})
    this.shape = shape
    const root0 = this.#table()
    const root1 = this.#table()
    this.roots = [root0, root1]
    this.set('MAIR_EL1', MAIR)
    // 48 bits each, IPS 44 bits, 16-bit ASIDs
    this.set(
      'TCR_EL1',
      16n | (16n << 16n) | (shape.tg0 << 14n) | (shape.tg1 << 30n) | (4n << 32n) | (1n << 36n),
    )
    this.set('TTBR0_EL1', root0)
    this.set('TTBR1_EL1', root1)
    // Vectors and programs.
    for (let at = 0; at < 2 * CODE; at += shape.granule * 1024)
      this.map(BigInt(at), PAGE | BigInt(at) | UXN)
    this.set('SCTLR_EL1', this.get('SCTLR_EL1') | 1n)
  }

  readonly roots: readonly [number, number]

  /** Writes the leaf entry of an address, with tables on the way. `level` ends early at a block. Address of the entry. */
  map(va: bigint, entry: bigint, tables = 0n, depth = this.shape.shifts.length - 1): number {
    let at = this.roots[(va >> 55n) & 1n ? 1 : 0]
    for (let i = 0; ; i++) {
      const shift = this.shape.shifts[i]!
      const bits = i === 0 ? 48 - shift : this.shape.shifts[i - 1]! - shift
      const slot = at + 8 * Number((va >> BigInt(shift)) & ((1n << BigInt(bits)) - 1n))
      if (i === depth) {
        this.ram.setBigUint64(slot, entry, true)
        return slot
      }
      let next = this.ram.getBigUint64(slot, true)
      if (next === 0n) {
        next = BigInt(this.#table()) | valid | table
        this.ram.setBigUint64(slot, next, true)
      }
      if (tables !== 0n) this.ram.setBigUint64(slot, next | tables, true)
      at = Number(next & 0xffff_ffff_f000n)
    }
  }

  #table(): number {
    const at = this.#next
    this.#next += this.shape.granule * 1024
    return at
  }

  /** Makes one access outside any program: the value or -1 with the fault in `core.state`. */
  access(va: bigint, access: number, el: 0 | 1 = 1, size = 1): number {
    const s = this.core.state
    s.abort = ABORT.NONE
    const before = s.el
    s.el = el
    const at = this.core.mmu.translate(
      Number(BigInt.asIntN(32, va >> 32n)),
      Number(BigInt.asIntN(32, va)),
      access,
      size,
    )
    s.el = before
    return at
  }

  /** Class and status of the fault of the last access. */
  get fault() {
    const { ec, iss, far } = this.core.state
    return { ec, status: iss & 63, wnr: (iss >> 6) & 1, far }
  }
}

const HIGH = 0xffff_0000_0000_0000n

describe.each(SHAPES)('tables of $granule KB', shape => {
  const page = BigInt(shape.granule * 1024)
  const last = 3

  it.each([
    ['TTBR0_EL1', 0x7f00_1234_0000n],
    ['TTBR1_EL1', HIGH | 0x7f00_1234_0000n],
  ])('translate through %s and tag what they found', (_, va) => {
    const b = new Mapped(shape)
    const at = va & ~(page - 1n)
    b.map(at, PAGE | BigInt(DATA))
    expect(b.access(at + 0x123n, ACCESS.READ)).toBe(DATA + 0x123)
    expect(b.access(at + page - 1n, ACCESS.WRITE)).toBe(DATA + Number(page) - 1)
  })

  it.each([0, 1, 2, 3].filter(level => level >= shape.first))(
    'an invalid entry at level %i is a translation fault of that level',
    level => {
      const b = new Mapped(shape)
      const va = 0x7f00_1234_0000n
      b.map(va, PAGE | BigInt(DATA))
      b.map(va, 0n, 0n, level - shape.first)
      expect(b.access(va, ACCESS.READ)).toBe(-1)
      expect(b.fault).toEqual({ ec: EC.DATA_ABORT, status: 4 + level, wnr: 0, far: va })
      expect(b.access(va, ACCESS.FETCH, 0)).toBe(-1)
      expect(b.fault.ec).toBe(EC.INSTRUCTION_ABORT_LOWER)
    },
  )

  it('an output address wider than TCR_EL1.IPS is an address size fault of its level', () => {
    const b = new Mapped(shape)
    const va = 0x7f00_1234_0000n
    b.map(va, PAGE | (1n << 45n))
    expect(b.access(va, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(last)
    b.map(va, valid | table | (1n << 46n), 0n, 1)
    expect(b.access(va, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(shape.first + 1)
  })

  it('a clear access flag is an access flag fault', () => {
    const b = new Mapped(shape)
    b.map(0x4000_0000n, (PAGE ^ AF) | BigInt(DATA))
    expect(b.access(0x4000_0000n, ACCESS.WRITE)).toBe(-1)
    expect(b.fault).toMatchObject({ status: 8 + last, wnr: 1 })
  })

  it('a table in a place without memory is an external abort on the walk', () => {
    const b = new Mapped(shape)
    b.map(0x4000_0000n, valid | table | 0x8_0000_0000n, 0n, shape.shifts.length - 2)
    expect(b.access(0x4000_0000n, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(0x14 + last)
  })

  it('a block maps its whole span', () => {
    const b = new Mapped(shape)
    const depth = shape.shifts.length - 2
    const span = 1n << BigInt(shape.shifts[depth]!)
    b.map(0x8_0000_0000n, valid | AF | AP1, 0n, depth)
    expect(b.access(0x8_0000_0000n + span - 8n, ACCESS.READ)).toBe(Number(span) - 8)
  })
})

// The rows of D8.4.1: [what, leaf, tables above, EL1 rwx, EL0 rwx].
// biome-ignore format: table
const PERMISSIONS: readonly [string, bigint, bigint, string, string][] = [
  ['AP 00',                       0n,              0n,        'rwx', '--x'],
  ['AP 01',                       AP1,             0n,        'rw-', 'rwx'],
  ['AP 10',                       AP2,             0n,        'r-x', '--x'],
  ['AP 11',                       AP1 | AP2,       0n,        'r-x', 'r-x'],
  ['AP 00, PXN',                  PXN,             0n,        'rw-', '--x'],
  ['AP 01, UXN',                  AP1 | UXN,       0n,        'rw-', 'rw-'],
  ['AP 11, PXN and UXN',          AP1 | AP2 | PXN | UXN, 0n,  'r--', 'r--'],
  ['AP 01 under APTable[0]',      AP1,             APTable0,  'rwx', '--x'],
  ['AP 01 under APTable[1]',      AP1,             APTable1,  'r-x', 'r-x'],
  ['AP 11 under PXNTable',        AP1 | AP2,       PXNTable,  'r--', 'r-x'],
  ['AP 11 under UXNTable',        AP1 | AP2,       UXNTable,  'r-x', 'r--'],
]

const letters = (b: Mapped, va: bigint, el: 0 | 1): string =>
  [ACCESS.READ, ACCESS.WRITE, ACCESS.FETCH]
    .map((what, i) => (b.access(va, what, el) >= 0 ? 'rwx'[i] : '-'))
    .join('')

describe('permissions', () => {
  const va = 0x4000_0000n

  it.each(PERMISSIONS)('%s', (_, leaf, tables, el1, el0) => {
    const b = new Mapped()
    b.map(va, PAGE | leaf | BigInt(DATA), tables)
    expect([letters(b, va, 1), letters(b, va, 0)]).toEqual([el1, el0])
    expect(b.access(va, ACCESS.READ | ACCESS.UNPRIVILEGED) >= 0, 'LDTR').toBe(el0[0] === 'r')
    expect(b.access(va, ACCESS.WRITE | ACCESS.UNPRIVILEGED) >= 0, 'STTR').toBe(el0[1] === 'w')
  })

  it.each([
    ['AP 00', 0n, 'rw-', '--x'],
    ['AP 01', AP1, 'rw-', 'rw-'],
    ['AP 11', AP1 | AP2, 'r-x', 'r-x'],
  ])('SCTLR_EL1.WXN: %s', (_, leaf, el1, el0) => {
    const b = new Mapped()
    b.map(va, PAGE | leaf | BigInt(DATA))
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | (1n << 19n))
    expect([letters(b, va, 1), letters(b, va, 0)]).toEqual([el1, el0])
  })

  it('a permission fault names level, direction and level of the processor', () => {
    const b = new Mapped()
    b.map(va, PAGE | AP2 | BigInt(DATA))
    expect(b.access(va + 5n, ACCESS.WRITE)).toBe(-1)
    expect(b.fault).toEqual({ ec: EC.DATA_ABORT, status: 0xf, wnr: 1, far: va + 5n })
    expect(b.access(va, ACCESS.READ, 0)).toBe(-1)
    expect(b.fault).toMatchObject({ ec: EC.DATA_ABORT_LOWER, status: 0xf, wnr: 0 })
  })

  it('an atomic is blamed for its read where the read alone would fault, else for its write', () => {
    const b = new Mapped()
    b.map(va, PAGE | AP2 | BigInt(DATA))
    expect(b.access(va, ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC)).toBe(-1)
    expect(b.fault.wnr).toBe(1)
    expect(b.access(va, ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC, 0)).toBe(-1)
    expect(b.fault.wnr).toBe(0)
    expect(b.access(0x5000_0000n, ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC)).toBe(-1)
    expect(b.fault.wnr).toBe(0)
  })
})

describe('addresses', () => {
  it.each([
    ['between the ranges', 0x0001_0000_0000_0000n],
    ['below the upper range', 0xfffe_ffff_ffff_f000n],
    ['with a tag that is not ignored', 0x5500_0000_4000_0000n],
  ])('an address %s is a translation fault of level 0', (_, va) => {
    const b = new Mapped()
    b.map(0x4000_0000n, PAGE | BigInt(DATA))
    expect(b.access(va, ACCESS.READ)).toBe(-1)
    expect(b.fault).toMatchObject({ status: 4, far: va })
  })

  it('TCR_EL1.TBI0 and TBI1 make bits 63:56 of their range count for nothing; FAR keeps them', () => {
    const b = new Mapped()
    b.map(0x4000_0000n, PAGE | BigInt(DATA))
    b.map(HIGH | 0x4000_0000n, PAGE | BigInt(DATA + 0x1000))
    b.set('TCR_EL1', b.get('TCR_EL1') | (3n << 37n))
    expect(b.access(0x5500_0000_4000_0010n, ACCESS.READ)).toBe(DATA + 0x10)
    expect(b.access(0xaaff_0000_4000_0010n, ACCESS.READ)).toBe(DATA + 0x1010)
    expect(b.access(0x5500_0000_5000_0000n, ACCESS.READ)).toBe(-1)
    expect(b.fault.far).toBe(0x5500_0000_5000_0000n)
  })

  it('a tag does not become part of PC', () => {
    const b = new Mapped()
    b.set('TCR_EL1', b.get('TCR_EL1') | (1n << 37n))
    b.program(a => a.mov(0, 0x7700_0000_0000_0000n | BigInt(CODE + 0x100)).br(0))
    b.load(CODE + 0x100, a => a.hvc(1))
    expect(b.run().left).toBe(1)
    expect(b.core.state.pc).toBe(BigInt(CODE + 0x104))
  })

  it.each([
    ['EPD0', 7n, 0x4000_0000n],
    ['EPD1', 23n, HIGH | 0x4000_0000n],
  ])('TCR_EL1.%s turns a TLB miss into a translation fault of level 0', (_, bit, va) => {
    const b = new Mapped()
    b.map(va, PAGE | BigInt(DATA))
    b.set('TCR_EL1', b.get('TCR_EL1') | (1n << bit))
    expect(b.access(va, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(4)
  })

  it.each([
    [25, 0x80_0000_0000n],
    [39, 0x200_0000n],
  ])('TCR_EL1.T0SZ = %i ends the lower range at its width', (size, end) => {
    const b = new Mapped()
    b.set('TCR_EL1', (b.get('TCR_EL1') & ~63n) | BigInt(size))
    expect(b.access(end, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(4)
    // One bit less: the root is found and its entry is not valid.
    expect(b.access(end - 8n, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(size === 25 ? 5 : 6)
  })

  it('a table base beyond TCR_EL1.IPS is an address size fault of level 0', () => {
    const b = new Mapped()
    b.set('TTBR1_EL1', 1n << 45n)
    expect(b.access(HIGH | 0x4000_0000n, ACCESS.READ)).toBe(-1)
    expect(b.fault.status).toBe(0)
  })

  it('with stage 1 off addresses are physical, up to the 44 bits there are', () => {
    const b = new Bench()
    const { mmu, state } = b.core
    expect(mmu.translate(0, 0x1234, ACCESS.READ)).toBe(0x1234)
    expect(mmu.translate(0x1000, 0, ACCESS.READ)).toBe(-1)
    expect(state.iss & 63).toBe(0)
  })

  it('an instruction fetch where nothing is, is an external abort', () => {
    const b = new Bench()
    b.core.state.pc = 0x9_0000_0000n
    expect(b.vector()).toBe(4)
    expect(b.esr).toEqual({ ec: EC.INSTRUCTION_ABORT, il: 1, iss: 0x10 })
    expect(b.get('FAR_EL1')).toBe(0x9_0000_0000n)
  })
})

describe('alignment', () => {
  const va = 0x4000_0000n
  const ATOMIC = ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC

  it.each([
    ['plain', ACCESS.READ, 0n, 0n, true],
    ['plain, SCTLR_EL1.A', ACCESS.READ, 0n, 2n, false],
    ['plain, to Device memory', ACCESS.READ, DEVICE, 0n, false],
    ['atomic', ATOMIC, 0n, 0n, false],
    ['acquire', ACCESS.READ | ACCESS.ORDERED, 0n, 0n, false],
    ['exclusive', ACCESS.READ | ACCESS.EXCLUSIVE, 0n, 0n, false],
  ])('a misaligned access: %s', (_, access, attribute, control, fine) => {
    const b = new Mapped()
    b.map(va, PAGE | attribute | BigInt(DATA))
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | control)
    expect(b.access(va + 4n, access, 1, 8) >= 0).toBe(fine)
    if (!fine) expect(b.fault).toMatchObject({ status: 0x21, far: va + 4n })
    expect(b.access(va + 8n, access, 1, 8) >= 0, 'aligned').toBe(true)
  })

  it('with stage 1 off all data is Device memory', () => {
    const b = new Bench()
    b.program(a => a.mov(1, 0x5001).ldr(0, 1))
    // LDUR x0, [x1]: LDR with an unscaled offset has the same rule
    expect(b.vector()).toBe(4)
    expect(b.esr).toEqual({ ec: EC.DATA_ABORT, il: 1, iss: 0x21 })
    expect(b.get('FAR_EL1')).toBe(0x5001n)
  })

  it('SCTLR_EL1.A is looked at before the tables, the memory type after them and before permission', () => {
    const b = new Mapped()
    expect(b.access(0x5000_0001n, ACCESS.READ, 1, 8)).toBe(-1)
    expect(b.fault.status, 'unmapped').toBe(5)
    b.map(va, PAGE | DEVICE | AP2 | BigInt(DATA))
    expect(b.access(va + 1n, ACCESS.WRITE, 1, 8)).toBe(-1)
    expect(b.fault.status, 'read-only Device').toBe(0x21)
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | 2n)
    expect(b.access(0x5000_0001n, ACCESS.READ, 1, 8)).toBe(-1)
    expect(b.fault.status, 'unmapped under A').toBe(0x21)
  })

  it('an access that crosses into an unmapped page changes nothing and names the second page', () => {
    const b = new Mapped()
    b.map(va, PAGE | BigInt(DATA))
    b.ram.setBigUint64(DATA + 0xff8, 0x1122_3344_5566_7788n, true)
    b.program(a =>
      a
        .mov(1, va + 0xffcn)
        .mov(0, -1n)
        .str(0, 1),
    )
    expect(b.vector()).toBe(4)
    expect(b.esr.iss).toBe(0x47)
    expect(b.get('FAR_EL1')).toBe(va + 0x1000n)
    expect(b.ram.getBigUint64(DATA + 0xff8, true)).toBe(0x1122_3344_5566_7788n)
  })
})

const tlbi = (crm: number, op2: number) => systemKey(1, 0, 8, crm, op2)

describe('TLB invalidation', () => {
  const va = 0x4000_0000n
  const other = 0x4000_1000n
  /** Translations held: ours, another page, another ASID, a global one. */
  const probes = [
    ['ours', va, 5],
    ['page', other, 5],
    ['asid', va, 6],
    ['asid page', other, 6],
    ['global', 0x4000_2000n, 5],
  ] as const

  // Which of them an operation with ASID 5 and the address drops.
  // biome-ignore format: table
  const cases: readonly [string, number, bigint, readonly string[]][] = [
    ['VMALLE1', 0, va,            ['ours', 'page', 'asid', 'asid page', 'global']],
    ['VAE1',    1, va,            ['ours']],
    ['VALE1',   5, va,            ['ours']],
    ['VAAE1',   3, va,            ['ours', 'asid']],
    ['VAALE1',  7, va,            ['ours', 'asid']],
    ['ASIDE1',  2, va,            ['ours', 'page']],
    ['VAE1 of a global page', 1, 0x4000_2000n, ['global']],
    ['VAE1 elsewhere', 1, 0x7000_0000n, []],
  ]

  function filled(domain?: ShareabilityDomain): Mapped {
    const b = new Mapped(SHAPES[0], domain)
    b.map(va, PAGE | nG | BigInt(DATA))
    b.map(other, PAGE | nG | BigInt(DATA))
    b.map(0x4000_2000n, PAGE | BigInt(DATA))
    for (const [, at, asid] of probes) {
      b.set('TTBR0_EL1', BigInt(b.roots[0]) | (BigInt(asid) << 48n))
      b.access(at, ACCESS.READ)
    }
    // The tables change under the TLB: what is still held is stale.
    for (const [, at] of probes) b.map(at, 0n)
    return b
  }

  // Direct-mapped: ASIDs 5 and 6 of one page share a place, so each is looked at on its own.
  const held = (b: Mapped, name: string): boolean => {
    const [, at, asid] = probes.find(p => p[0] === name)!
    b.set('TTBR0_EL1', BigInt(b.roots[0]) | (BigInt(asid) << 48n))
    return b.access(at, ACCESS.READ) >= 0
  }

  const runs = cases.flatMap(([name, op2, at, drops]) =>
    [7, 3].flatMap(crm => probes.map(([what]) => ({ name, op2, at, drops, crm, what }))),
  )
  it.each(runs)('TLBI $name (CRm $crm) and the $what translation', c => {
    const b = new Mapped()
    const [, at, asid] = probes.find(p => p[0] === c.what)!
    b.map(at, PAGE | (c.what === 'global' ? 0n : nG) | BigInt(DATA))
    b.set('TTBR0_EL1', BigInt(b.roots[0]) | (BigInt(asid) << 48n))
    expect(b.access(at, ACCESS.READ)).toBe(DATA)
    b.map(at, 0n)
    expect(b.access(at, ACCESS.READ), 'stale').toBe(DATA)
    b.core.state.abort = ABORT.NONE
    b.core.system.systemInstruction(tlbi(c.crm, c.op2), (5n << 48n) | (c.at >> 12n), 0)
    expect(b.core.state.abort).toBe(ABORT.NONE)
    expect(b.access(at, ACCESS.READ) >= 0).toBe(!c.drops.includes(c.what))
  })

  it('keeps ASIDs apart and shows a global page to all of them', () => {
    const b = filled()
    expect(['asid page', 'global', 'page'].map(name => held(b, name))).toEqual([true, true, false])
  })

  it('the Inner Shareable forms reach every core of the VM, the others only their own', () => {
    const domain = new ShareabilityDomain()
    const cores = [new Mapped(SHAPES[0], domain), new Mapped(SHAPES[0], domain)]
    for (const b of cores) {
      b.map(va, PAGE | BigInt(DATA))
      b.access(va, ACCESS.READ)
      b.map(va, 0n)
    }
    const [one, two] = cores as [Mapped, Mapped]
    one.core.system.systemInstruction(tlbi(7, 1), va >> 12n, 0)
    expect([one.access(va, ACCESS.READ), two.access(va, ACCESS.READ)]).toEqual([-1, DATA])
    one.core.system.systemInstruction(tlbi(3, 1), va >> 12n, 0)
    expect(two.access(va, ACCESS.READ)).toBe(-1)
  })

  it('one page of a block or of a contiguous run takes the whole of it along', () => {
    const b = new Mapped()
    b.map(0x8_0000_0000n, valid | AF, 0n, 2)
    for (let i = 0n; i < 16n; i++)
      b.map(va + 0x1000n * i, PAGE | contiguous | (BigInt(DATA) + 0x1000n * i))
    for (const at of [0x8_0000_0000n, 0x8_0001_0000n, va, va + 0x5000n]) {
      expect(b.access(at, ACCESS.READ)).toBeGreaterThanOrEqual(0)
    }
    b.map(0x8_0000_0000n, 0n, 0n, 2)
    for (let i = 0n; i < 16n; i++) b.map(va + 0x1000n * i, 0n)
    b.core.system.systemInstruction(tlbi(7, 1), (0x8_0000_0000n + 0x7000n) >> 12n, 0)
    b.core.system.systemInstruction(tlbi(7, 1), (va + 0xf000n) >> 12n, 0)
    for (const at of [0x8_0000_0000n, 0x8_0001_0000n, va, va + 0x5000n]) {
      expect(b.access(at, ACCESS.READ)).toBe(-1)
    }
  })

  it('a new table base keeps what is cached under its ASID, TCR_EL1.A1 takes the ASID of TTBR1_EL1', () => {
    const b = new Mapped()
    b.map(va, PAGE | nG | BigInt(DATA))
    b.set('TTBR1_EL1', BigInt(b.roots[1]) | (9n << 48n))
    b.set('TCR_EL1', b.get('TCR_EL1') | (1n << 22n))
    expect(b.core.mmu.tlb.asid).toBe(9)
    b.access(va, ACCESS.READ)
    b.map(va, 0n)
    b.set('TTBR0_EL1', BigInt(b.roots[0]) | (1n << 48n))
    expect(b.access(va, ACCESS.READ)).toBe(DATA)
    b.set('TTBR1_EL1', BigInt(b.roots[1]) | (10n << 48n))
    expect(b.access(va, ACCESS.READ)).toBe(-1)
  })

  it('with TCR_EL1.AS clear an ASID has eight bits', () => {
    const b = new Mapped()
    b.set('TCR_EL1', b.get('TCR_EL1') & ~(1n << 36n))
    b.set('TTBR0_EL1', BigInt(b.roots[0]) | (0x1234n << 48n))
    expect(b.core.mmu.tlb.asid).toBe(0x34)
  })
})

describe('system instructions', () => {
  const va = 0x4000_0000n
  const DC = {
    IVAC: systemKey(1, 0, 7, 6, 1),
    ISW: systemKey(1, 0, 7, 6, 2),
    CVAC: systemKey(1, 3, 7, 10, 1),
    CVAU: systemKey(1, 3, 7, 11, 1),
    CIVAC: systemKey(1, 3, 7, 14, 1),
    ZVA: systemKey(1, 3, 7, 4, 1),
  }
  const IC = { IALLU: systemKey(1, 0, 7, 5, 0), IVAU: systemKey(1, 3, 7, 5, 1) }

  const run = (b: Mapped, key: number, value: bigint, el: 0 | 1 = 1) => {
    const s = b.core.state
    s.abort = ABORT.NONE
    s.el = el
    b.core.system.systemInstruction(key, value, 7)
    s.el = 1
    return s.abort === ABORT.NONE ? 'done' : s.ec
  }

  it.each([
    ['IC IALLU', IC.IALLU, 'UNDEFINED'],
    ['DC IVAC', DC.IVAC, 'UNDEFINED'],
    ['DC ISW', DC.ISW, 'UNDEFINED'],
    ['TLBI VMALLE1', tlbi(7, 0), 'UNDEFINED'],
    ['AT S1E1R', systemKey(1, 0, 7, 8, 0), 'UNDEFINED'],
    ['DC CVAU', DC.CVAU, 26],
    ['DC CVAC', DC.CVAC, 26],
    ['DC CIVAC', DC.CIVAC, 26],
    ['IC IVAU', IC.IVAU, 26],
    ['DC ZVA', DC.ZVA, 14],
  ] as const)('%s at EL0: UNDEFINED, or by a bit of SCTLR_EL1', (_, key, bit) => {
    const b = new Mapped()
    b.map(va, PAGE | AP1 | BigInt(DATA))
    if (bit === 'UNDEFINED') {
      expect(run(b, key, va, 0)).toBe(EC.UNKNOWN)
      return
    }
    expect(run(b, key, va, 0)).toBe(EC.SYSTEM)
    const [op1, crm, op2] = [(key >> 11) & 7, (key >> 3) & 15, key & 7]
    const iss = (1 << 20) | (op2 << 17) | (op1 << 14) | (7 << 10) | (7 << 5) | (crm << 1)
    expect(b.core.state.iss).toBe(iss)
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | (1n << BigInt(bit)))
    expect(run(b, key, va, 0)).toBe('done')
  })

  it.each([
    ['DC CVAC of an unmapped page', DC.CVAC, 0x5000_0000n, 1, 6 | 0x140],
    ['IC IVAU of an unmapped page', IC.IVAU, 0x5000_0000n, 1, 6 | 0x140],
    ['DC IVAC of a read-only page', DC.IVAC, va, 1, 0xf | 0x140],
    ['DC CIVAC of a read-only page', DC.CIVAC, va, 1, undefined],
    ['DC CIVAC at EL0 of what it may not read', DC.CIVAC, va + 0x1000n, 0, 0xf | 0x140],
  ] as const)('%s: WnR and CM are set', (_, key, at, el, iss) => {
    const b = new Mapped()
    b.map(va, PAGE | AP2 | BigInt(DATA))
    b.map(va + 0x1000n, PAGE | BigInt(DATA))
    b.set('SCTLR_EL1', b.get('SCTLR_EL1') | (1n << 26n))
    const ec = run(b, key, at, el)
    if (iss === undefined) expect(ec).toBe('done')
    else {
      expect(ec).toBe(el === 0 ? EC.DATA_ABORT_LOWER : EC.DATA_ABORT)
      expect([b.core.state.iss, b.core.state.far]).toEqual([iss, at])
    }
  })

  it('DC ZVA clears the 64 bytes around its address and faults on Device memory', () => {
    const b = new Mapped()
    b.map(va, PAGE | BigInt(DATA))
    b.map(va + 0x1000n, PAGE | DEVICE | BigInt(DATA))
    b.bytes.fill(0xee, DATA, DATA + 256)
    expect(run(b, DC.ZVA, va + 0x4dn)).toBe('done')
    expect([...b.bytes.subarray(DATA, DATA + 256)].map(v => (v === 0 ? 0 : 1))).toEqual(
      Array.from({ length: 256 }, (_, i) => (i >= 64 && i < 128 ? 0 : 1)),
    )
    expect(run(b, DC.ZVA, va + 0x1004n)).toBe(EC.DATA_ABORT)
    expect([b.core.state.iss, b.core.state.far]).toEqual([0x61, va + 0x1004n])
  })

  it.each([
    ['S1E1R', 0, va, PAGE | AP2, 0xff00_0000_0000_0a00n | BigInt(DATA)],
    ['S1E1W', 1, va, PAGE | AP2, (0xfn << 1n) | 0x801n],
    ['S1E0R', 2, va, PAGE, (0xfn << 1n) | 0x801n],
    ['S1E0W', 3, va, PAGE | AP1 | (3n << 8n), 0xff00_0000_0000_0b80n | BigInt(DATA)],
    ['S1E1R of Device memory', 0, va, PAGE | DEVICE, 0x0400_0000_0000_0b00n | BigInt(DATA)],
    ['S1E1R of nothing', 0, 0x5000_0000n, PAGE, (6n << 1n) | 0x801n],
  ] as const)('AT %s puts its answer into PAR_EL1 and raises nothing', (_, op2, at, leaf, par) => {
    const b = new Mapped()
    b.map(va, leaf | BigInt(DATA))
    expect(run(b, systemKey(1, 0, 7, 8, op2), at + 0x123n)).toBe('done')
    expect(b.get('PAR_EL1')).toBe(par)
  })

  it.each([
    ['an EL2 invalidation', systemKey(1, 4, 8, 7, 1)],
    ['DC CVAP', systemKey(1, 3, 7, 12, 1)],
    ['AT S12E1R', systemKey(1, 4, 7, 8, 4)],
  ])('%s is UNDEFINED', (_, key) => {
    expect(run(new Mapped(), key, 0n)).toBe(EC.UNKNOWN)
  })
})

describe('physical accesses', () => {
  it('what nobody claims leaves as MMIO and the instruction finishes with the answer', () => {
    const b = new Bench()
    b.program(a => a.mov(1, 0x900_0000).ldr(0, 1).str(0, 1, 8).hvc(1))
    const read = b.run().exit
    expect(read).toEqual({
      kind: 'mmio',
      write: false,
      address: 0x900_0000,
      bytes: new Uint8Array(8),
    })
    b.core.completeAccess(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    expect(b.run().exit).toMatchObject({
      kind: 'mmio',
      write: true,
      address: 0x900_0008,
      bytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    })
    b.core.completeAccess()
    expect(b.run().left).toBe(1)
  })

  it('a store by another core clears the exclusive monitor on its 64 bytes and on no others', () => {
    const domain = new ShareabilityDomain()
    const b = new Bench({ domain })
    const state = b.core.state
    const other = new Bench({ domain })
    for (const [at, kept] of [
      [0x5000, false],
      [0x503f, false],
      [0x5040, true],
      [0x4fff, true],
    ] as const) {
      state.armExclusive(0x5008, 8)
      other.core.mmu.store(0, at, 1, 1, ACCESS.WRITE)
      expect(state.exclusive, at.toString(16)).toBe(kept)
    }
  })
})

describe('code', () => {
  it('runs from where translation put it, and a vector that is unmapped faults on itself', () => {
    const b = new Mapped()
    b.set('VBAR_EL1', 0x6000_0000n)
    b.program(a => a.svc())
    b.core.run(3)
    expect(b.get('ELR_EL1')).toBe(0x6000_0200n)
    expect(b.esr).toEqual({ ec: EC.INSTRUCTION_ABORT, il: 1, iss: 5 })
  })
})
