// Walks as an SMMU configures them: permissions, flags, ranges, granules, nesting, and the record of each fault.
import { describe, expect, it } from 'vitest'
import {
  Bench,
  type CdFields,
  command,
  type Dma,
  PRIVATE,
  REG,
  RO,
  RO2,
  RW,
  RW2,
  SID,
  type SteFields,
  WO2,
} from './bench.js'

const VA = 0x5000n
const PA = 0x50_0000
const AT = BigInt(PA)
const UXN = 1n << 54n
const PXN = 1n << 53n
const AF = 0x400n
const DBM = 1n << 51n

describe('stage 1 permissions (Arm ARM D8.4; IHI 0070 3.3.4)', () => {
  const user = {}
  const priv = { pasid: 1, privileged: true }
  const exec = { pasid: 1, execute: true }
  const privExec = { pasid: 1, privileged: true, execute: true }
  const ok = PA
  const no = 'F_PERMISSION'
  // biome-ignore format: table
  it.each<[string, bigint, CdFields, Dma, number | string, bigint?]>([
    ['AP 01: unprivileged read',                   RW, {}, user, ok],
    ['AP 01: unprivileged write',                  RW, {}, { write: true }, ok],
    ['AP 11: unprivileged read',                   RO, {}, user, ok],
    ['AP 11: unprivileged write',                  RO, {}, { write: true }, no],
    ['AP 00: unprivileged read',                   PRIVATE, {}, user, no],
    ['AP 00: privileged read',                     PRIVATE, {}, priv, ok],
    ['AP 00: privileged write',                    PRIVATE, {}, { ...priv, write: true }, ok],
    ['AP 10: privileged write',                    PRIVATE | 0x80n, {}, { ...priv, write: true }, no],
    ['privilege counts only with a PASID',         PRIVATE, {}, { privileged: true }, no],
    ['UXN: unprivileged fetch',                    RO | UXN, {}, exec, no],
    ['UXN clear: unprivileged fetch',              RO | PXN, {}, exec, ok],
    ['PXN: privileged fetch',                      RO | PXN, {}, privExec, no],
    ['a fetch counts only with a PASID',           RO | UXN | PXN, {}, { execute: true }, ok],
    ['what EL0 may write EL1 does not execute',    RW, {}, privExec, no],
    ['execute-only: fetch',                        PRIVATE | PXN, {}, exec, ok],
    ['execute-only: read',                         PRIVATE | PXN, {}, { pasid: 1 }, no],
    ['WXN: fetch of what is writable',             RW, { wxn: 1 }, exec, no],
    ['WXN: fetch of what is not',                  RO, { wxn: 1 }, exec, ok],
    ['PAN: privileged read of a user page',        RW, { pan: 1 }, priv, no],
    ['PAN: privileged read of a private page',     PRIVATE, { pan: 1 }, priv, ok],
    ['APTable[0]: no unprivileged access below',   RW, {}, user, no, 1n << 61n],
    ['APTable[1]: no writes below',                RW, {}, { write: true }, no, 1n << 62n],
    ['APTable[1] leaves reads',                    RW, {}, user, ok, 1n << 62n],
    ['UXNTable: no unprivileged fetches below',    RO, {}, exec, no, 1n << 60n],
    ['PXNTable: no privileged fetches below',      RO, {}, privExec, no, 1n << 59n],
    ['HAD0: tables limit nothing',                 RW, { had0: 1 }, { write: true }, ok, 3n << 61n],
  ])('%s', (_, leaf, cd, dma, expected, table = 0n) => {
    const b = new Bench().start()
    const root = b.alloc()
    const at = b.substreams(1, { dss: 2 })
    for (const ssid of [0, 1]) b.cd({ ttb0: root, ...cd }, at + ssid * 64)
    b.map(root, VA, AT | leaf, { table: 3n | table })
    expect(b.dma(VA, dma)).toBe(expected)
    expect(b.dma(VA, dma), 'again, cached').toBe(expected)
    if (expected === no) {
      const [record] = b.pending()
      const { privileged, pasid, execute, write } = dma
      expect(record).toMatchObject({
        type: 0x13,
        s2: 0,
        cls: 2,
        addr: VA,
        rnw: write ? 0 : 1,
        pnu: pasid && privileged ? 1 : 0,
        ind: pasid && execute ? 1 : 0,
        ssv: pasid ? 1 : 0,
        ssid: pasid ?? 0,
        stall: 0,
      })
    }
  })

  it('an entry cached for one privilege does not serve the other', () => {
    const b = new Bench().start()
    const root = b.alloc()
    b.cd({ ttb0: root }, b.substreams(1) + 64)
    b.map(root, VA, AT | PRIVATE)
    expect(b.dma(VA, { pasid: 1, privileged: true })).toBe(PA)
    expect(b.dma(VA, { pasid: 1 })).toBe('F_PERMISSION')
    expect(b.dma(VA, { pasid: 1, privileged: true })).toBe(PA)
  })

  // biome-ignore format: table
  it.each<[string, Partial<SteFields>, bigint, Dma, number | string]>([
    ['PRIVCFG 3: privileged without a PASID',   { privcfg: 3 }, PRIVATE, {}, ok],
    ['PRIVCFG 2: never privileged',             { privcfg: 2 }, PRIVATE, { privileged: true }, no],
    ['PRIVCFG 1: as it came',                   { privcfg: 1 }, PRIVATE, {}, no],
    ['INSTCFG 3: reads are fetches',            { instcfg: 3 }, RO | UXN, {}, no],
    ['INSTCFG 3: writes are not',               { instcfg: 3 }, RW | UXN, { write: true }, ok],
    ['INSTCFG 2: fetches are reads',            { instcfg: 2 }, RO | UXN, { execute: true }, ok],
  ])('5.2: %s', (_, ste, leaf, dma, expected) => {
    const b = new Bench().start()
    b.map(b.stage1({}, ste), VA, AT | leaf)
    expect(b.dma(VA, dma)).toBe(expected)
    expect(b.dma(VA, dma), 'again, cached').toBe(expected)
    const plain = new Bench({ config: { permissionOverrides: false } }).start()
    plain.map(plain.stage1({}, ste), VA, AT | leaf)
    expect(plain.dma(VA), 'without ATTR_PERMS_OVR').toBe(leaf === PRIVATE ? no : ok)
  })

  it('EL2 contexts know one privilege: AP[1] and PXN mean nothing', () => {
    const b = new Bench().start()
    b.map(b.stage1({}, { strw: 2 }), VA, AT | (PRIVATE & ~0x40n) | PXN)
    expect(b.dma(VA, { write: true })).toBe(PA)
    const x = new Bench().start()
    x.map(x.stage1({}, { strw: 2 }), VA, AT | RW | UXN)
    expect(x.dma(VA)).toBe(PA)
  })
})

describe('stage 1 ranges (IHI 0070 3.4, 5.4)', () => {
  const HIGH = 0xffff_0000_0000_5000n
  // biome-ignore format: table
  it.each<[string, CdFields, bigint, 'lower' | 'upper' | 'fault']>([
    ['below 2^48',                         {}, VA, 'lower'],
    ['above 2^48 - 1',                     {}, 1n << 48n, 'fault'],
    ['the upper range',                    {}, HIGH, 'upper'],
    ['just below the upper range',         {}, 0xfffe_ffff_ffff_f000n, 'fault'],
    ['T0SZ 25: below 2^39',                { t0sz: 25 }, VA, 'lower'],
    ['T0SZ 25: above 2^39 - 1',            { t0sz: 25 }, 1n << 39n, 'fault'],
    ['T1SZ 25: the upper 2^39',            { t1sz: 25 }, 0xffff_ff80_0000_5000n, 'upper'],
    ['T1SZ 25: below them',                { t1sz: 25 }, HIGH, 'fault'],
    ['EPD0',                               { epd0: 1 }, VA, 'fault'],
    ['EPD1',                               { epd1: 1 }, HIGH, 'fault'],
    ['TBI0: any top byte',                 { tbi: 1 }, 0x5a00_0000_0000_5000n, 'lower'],
    ['TBI0 off',                           {}, 0x5a00_0000_0000_5000n, 'fault'],
    ['TBI0: bits 55:48 still count',       { tbi: 1 }, 0x5a01_0000_0000_5000n, 'fault'],
    ['TBI0 does not apply above',          { tbi: 1 }, 0x5aff_0000_0000_5000n, 'fault'],
    ['TBI1: any top byte',                 { tbi: 2 }, 0x5aff_0000_0000_5000n, 'upper'],
  ])('%s', (_, cd, va, expected) => {
    const b = new Bench().start()
    const [lower, upper] = [b.alloc(), b.alloc()]
    b.stage1({ ttb0: lower, ttb1: upper, epd1: 0, ...cd })
    const width = (t: number | undefined) => 64 - (t ?? 16)
    for (const [root, bits, pa] of [
      [lower, width(cd.t0sz), 0x50_0000n],
      [upper, width(cd.t1sz), 0x60_0000n],
    ] as const)
      b.map(root, VA, pa | RW, { from: bits > 39 ? 0 : 1, inputBits: bits })
    const outcome = { lower: 0x50_0000, upper: 0x60_0000, fault: 'F_TRANSLATION' }[expected]
    expect(b.dma(va)).toBe(outcome)
    expect(b.dma(va)).toBe(outcome)
    if (expected === 'fault')
      expect(b.pending()[0], 'the address as it came').toMatchObject({ s2: 0, cls: 2, addr: va })
  })

  it('EL2 contexts have one range', () => {
    const b = new Bench().start()
    const root = b.stage1({ epd1: 0, epd0: 1 }, { strw: 2 })
    b.map(root, VA, AT | RW)
    expect(b.dma(VA), 'EPD0 is ignored').toBe(PA)
    expect(b.dma(HIGH)).toBe('F_TRANSLATION')
  })

  // biome-ignore format: table
  it.each([
    ['16K page', 14, 16, 1, 3, 0x8000n],
    ['16K block of 32 MB', 14, 16, 0, 2, 0x400_0000n],
    ['16K, 39 bits', 14, 25, 1, 3, 0x8000n],
    ['64K page', 16, 16, 1, 3, 0x3_0000n],
    ['64K block of 512 MB', 16, 16, 1, 2, 0x4000_0000n],
    ['64K page, 52 bits', 16, 12, 1, 3, 0x8_0000_0003_0000n],
    ['4K block of 2 MB', 12, 16, 0, 2, 0x40_0000n],
    ['4K block of 1 GB', 12, 16, 0, 1, 0x8000_0000n],
  ] as const)('%s', (_, granule, t0sz, from0, leafLevel, va) => {
    const b = new Bench().start()
    const inputBits = 64 - t0sz
    const start = granule === 14 ? (inputBits > 47 ? 0 : 1) : from0
    const root = b.alloc(16)
    b.stage1({ ttb0: root, t0sz, tg0: { 12: 0, 14: 2, 16: 1 }[granule] })
    const block = leafLevel < 3
    const from = granule === 14 && inputBits === 39 ? 1 : start
    b.map(root, va, block ? RW & ~2n : (0x90_0000n & -(1n << BigInt(granule))) | RW, {
      granule, from, inputBits, leafLevel,
    })
    const offset = 0x1234n
    const base = block ? 0 : 0x90_0000
    expect(b.dma(va + offset)).toBe(base + Number(offset))
  })
})

describe('access flag and dirty state (IHI 0070 3.13)', () => {
  // biome-ignore format: table
  it.each<[string, CdFields, bigint, boolean, number | string, bigint]>([
    ['AF clear faults',                        {}, RW & ~AF, false, 'F_ACCESS', RW & ~AF],
    ['AFFD: AF is not looked at',              { affd: 1 }, RW & ~AF, false, PA, RW & ~AF],
    ['HA sets AF',                             { ha: 1 }, RW & ~AF, false, PA, RW],
    ['HA overrules AFFD',                      { ha: 1, affd: 1 }, RW & ~AF, false, PA, RW],
    ['HA alone: a clean page is read-only',    { ha: 1 }, RO | DBM, true, 'F_PERMISSION', RO | DBM],
    ['HA and HD: a write makes it dirty',      { ha: 1, hd: 1 }, RO | DBM, true, PA, RW | DBM],
    ['a read leaves it clean',                 { ha: 1, hd: 1 }, RO | DBM, false, PA, RO | DBM],
    ['without DBM it is read-only',            { ha: 1, hd: 1 }, RO, true, 'F_PERMISSION', RO],
    ['both flags at once',                     { ha: 1, hd: 1 }, (RO | DBM) & ~AF, true, PA, RW | DBM],
    ['HD without HA is nothing',               { hd: 1 }, RO | DBM, true, 'F_PERMISSION', RO | DBM],
    ['a refused access sets no flag',          { ha: 1 }, RO & ~AF, true, 'F_PERMISSION', RO & ~AF],
  ])('stage 1: %s', (_, cd, leaf, write, expected, after) => {
    const b = new Bench().start()
    const at = b.map(b.stage1(cd), VA, AT | leaf)
    expect(b.dma(VA, { write })).toBe(expected)
    expect(b.load(at)).toBe(AT | after)
  })

  it('stage 1: a page cached clean is walked again for a write', () => {
    const b = new Bench().start()
    const at = b.map(b.stage1({ ha: 1, hd: 1 }), VA, AT | RO | DBM)
    expect(b.dma(VA)).toBe(PA)
    expect(b.answer.write, 'the answer does not promise writes').toBe(false)
    expect(b.dma(VA, { write: true })).toBe(PA)
    expect(b.load(at)).toBe(AT | RW | DBM)
  })

  // biome-ignore format: table
  it.each<[string, Partial<SteFields>, bigint, boolean, number | string, bigint]>([
    ['AF clear faults',                      {}, RW2 & ~AF, false, 'F_ACCESS', RW2 & ~AF],
    ['S2AFFD: AF is not looked at',          { affd: 1 }, RW2 & ~AF, false, PA, RW2 & ~AF],
    ['S2HA sets AF',                         { ha: 1 }, RW2 & ~AF, false, PA, RW2],
    ['S2HA and S2HD: a write makes dirty',   { ha: 1, hd: 1 }, RO2 | DBM, true, PA, RW2 | DBM],
    ['a read leaves it clean',               { ha: 1, hd: 1 }, RO2 | DBM, false, PA, RO2 | DBM],
    ['without DBM it is read-only',          { ha: 1, hd: 1 }, RO2, true, 'F_PERMISSION', RO2],
    ['S2HA alone',                           { ha: 1 }, RO2 | DBM, true, 'F_PERMISSION', RO2 | DBM],
  ])('stage 2: %s', (_, ste, leaf, write, expected, after) => {
    const b = new Bench().start()
    const at = b.map(b.stage2(ste), VA, AT | leaf)
    expect(b.dma(VA, { write })).toBe(expected)
    expect(b.load(at)).toBe(AT | after)
  })

  it('nested: dirty state of stage 1 needs a writable stage 2 page under the descriptor', () => {
    const b = new Bench().start()
    const { first, second } = b.nested({ ha: 1, hd: 1 })
    const leaf = b.map(first, VA, AT | RO | DBM)
    // Stage 2 of the block that the tables lie in: read-only.
    b.map(second, BigInt(leaf), BigInt(leaf & -0x20_0000) | (RO2 & ~2n), { leafLevel: 2 })
    expect(b.dma(VA, { write: true })).toBe('F_PERMISSION')
    expect(b.load(leaf)).toBe(AT | RO | DBM)
    expect(b.pending()).toMatchObject([
      { type: 0x13, s2: 1, cls: 1, rnw: 0, addr: VA, ipa: BigInt(leaf & -4096) },
    ])
    b.map(second, BigInt(leaf), BigInt(leaf & -0x20_0000) | (RW2 & ~2n), { leafLevel: 2 })
    expect(b.dma(VA, { write: true })).toBe(PA)
    expect(b.load(leaf)).toBe(AT | RW | DBM)
  })

  it('nested: nothing is marked dirty when stage 2 refuses the page itself', () => {
    const b = new Bench().start()
    const { first, second } = b.nested({ ha: 1, hd: 1 })
    const leaf = b.map(first, VA, 0x80_0000n | RO | DBM)
    b.map(second, 0x80_0000n, 0x80_0000n | (RO2 & ~2n), { leafLevel: 2 })
    expect(b.dma(VA, { write: true })).toBe('F_PERMISSION')
    expect(b.pending()).toMatchObject([{ s2: 1, cls: 2, ipa: 0x80_0000n }])
    expect(b.load(leaf)).toBe(0x80_0000n | RO | DBM)
  })
})

describe('stage 2 (IHI 0070 5.2, Arm ARM D8.2)', () => {
  // biome-ignore format: table
  it.each<[string, bigint, Dma, number | string]>([
    ['S2AP 11: write',      RW2, { write: true }, PA],
    ['S2AP 01: read',       RO2, {}, PA],
    ['S2AP 01: write',      RO2, { write: true }, 'F_PERMISSION'],
    ['S2AP 10: write',      WO2, { write: true }, PA],
    ['S2AP 10: read',       WO2, {}, 'F_PERMISSION'],
    ['an invalid entry',    0n, {}, 'F_TRANSLATION'],
    ['a block at level 3',  RW2 & ~2n, {}, 'F_TRANSLATION'],
  ])('%s', (_, leaf, dma, expected) => {
    const b = new Bench().start()
    b.map(b.stage2(), VA, leaf === 0n ? 0n : AT | leaf)
    expect(b.dma(VA, dma)).toBe(expected)
    if (typeof expected === 'string')
      expect(b.pending()).toMatchObject([{ s2: 1, cls: 2, addr: VA, ipa: VA }])
  })

  // biome-ignore format: table
  it.each([
    ['4K, 16 tables at level 1',   { t0sz: 21, sl0: 1, tg: 0 }, 12, 1, 0x700_0000_5000n],
    ['4K, level 1, one table',     { t0sz: 25, sl0: 1, tg: 0 }, 12, 1, 0x70_0000_5000n],
    ['4K, 16 tables at level 2',   { t0sz: 30, sl0: 0, tg: 0 }, 12, 2, 0x3_0000_5000n],
    ['16K, level 1',               { t0sz: 17, sl0: 2, tg: 2 }, 14, 1, 0x7000_0000_8000n],
    ['16K, level 2, 16 tables',    { t0sz: 24, sl0: 1, tg: 2 }, 14, 2, 0xf0_0000_8000n],
    ['64K, level 1',               { t0sz: 16, sl0: 2, tg: 1 }, 16, 1, 0xf000_0003_0000n],
    ['64K, level 2, 16 tables',    { t0sz: 18, sl0: 1, tg: 1 }, 16, 2, 0x3000_0003_0000n],
  ] as const)('start level: %s', (_, ste, granule, from, ipa) => {
    const b = new Bench().start()
    const root = b.alloc(256)
    b.stage2({ ...ste, s2ttb: root })
    const leaf = 0x90_0000n | RW2
    b.map(root, ipa, leaf, { granule, from, inputBits: 64 - ste.t0sz })
    expect(b.dma(ipa + 0x123n)).toBe(0x90_0123)
    const beyond = 1n << BigInt(64 - ste.t0sz)
    if (ste.t0sz > 16) expect(b.dma(beyond)).toBe('F_TRANSLATION')
  })

  it('7.3.14: an input wider than the intermediate size is a stage 1 address size fault', () => {
    const b = new Bench({ config: { outputAddressBits: 40 } }).start()
    b.stage2({ t0sz: 24, ps: 2, sl0: 1 })
    expect(b.dma(1n << 40n)).toBe('F_ADDR_SIZE')
    b.ste({ config: 4 }, SID + 1)
    expect(b.dma(1n << 40n, { requester: SID + 1 })).toBe('F_ADDR_SIZE')
    expect(b.pending()).toMatchObject([
      { type: 0x11, s2: 0, cls: 2, addr: 1n << 40n },
      { type: 0x11, s2: 0, cls: 2, addr: 1n << 40n },
    ])
  })

  it('5.5: S2R clear keeps faults out of the queue, but not external aborts', () => {
    const b = new Bench().start()
    const root = b.stage2({ s2r: 0 })
    expect(b.dma(VA)).toBe('F_TRANSLATION')
    expect(b.pending()).toEqual([])
    b.store(root, 0x4000_0003n)
    expect(b.dma(VA)).toBe('F_WALK_EABT')
    expect(b.pending()).toMatchObject([{ type: 0x0b, s2: 1, cls: 2, ipa: 0x4000_0000n }])
  })

  it('5.5: CD.R clear keeps faults out of the queue', () => {
    const b = new Bench().start()
    b.stage1({ r: 0 })
    expect(b.dma(VA)).toBe('F_TRANSLATION')
    expect(b.pending()).toEqual([])
    expect(b.unit.lastFault).toMatchObject({ name: 'F_TRANSLATION', record: 'suppressed' })
  })
})

describe('7.3: the record of a nested fault names stage, class and address', () => {
  it('of a stage 1 descriptor that stage 2 does not map', () => {
    const b = new Bench().start()
    const { first } = b.nested()
    b.store(first, 0x4000_0003n)
    expect(b.dma(VA, { write: true })).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([
      { type: 0x10, s2: 1, cls: 1, rnw: 0, addr: VA, ipa: 0x4000_0000n },
    ])
    expect(b.unit.lastFault!.entries.map(e => e.kind)).toEqual(['ste', 'cd', 'stage-2'])
  })

  it('of the page itself', () => {
    const b = new Bench().start()
    b.map(b.nested().first, VA, 0x4000_0000n | RW)
    expect(b.dma(VA + 0x123n)).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([
      { type: 0x10, s2: 1, cls: 2, rnw: 1, addr: VA + 0x123n, ipa: 0x4000_0000n },
    ])
  })

  it('of a page that stage 2 makes read-only, though stage 1 does not', () => {
    const b = new Bench().start()
    const { first, second } = b.nested()
    b.map(first, VA, 0x4000_0000n | RW)
    b.map(second, 0x4000_0000n, 0x90_0000n | RO2)
    expect(b.dma(VA)).toBe(0x90_0000)
    expect(b.dma(VA, { write: true })).toBe('F_PERMISSION')
    expect(b.pending()).toMatchObject([{ type: 0x13, s2: 1, cls: 2, ipa: 0x4000_0000n }])
  })

  it('of an output beyond IPS, and of one beyond S2PS', () => {
    const b = new Bench().start()
    b.map(b.stage1({ ips: 0 }), VA, 0x1_0000_0000n | RW)
    expect(b.dma(VA)).toBe('F_ADDR_SIZE')
    b.map(b.stage2({ ps: 0, s2ttb: 0x20_0000 }), VA, 0n)
    b.map(0x20_0000, VA, 0x1_0000_0000n | RW2)
    b.submit(command.cfgiAll(), command.tlbi(0x30))
    expect(b.dma(VA)).toBe('F_ADDR_SIZE')
    expect(b.pending()).toMatchObject([
      { type: 0x11, s2: 0, cls: 2 },
      { type: 0x11, s2: 1, cls: 2, ipa: VA },
    ])
  })

  it('of a table beyond IPS', () => {
    const b = new Bench().start()
    const root = b.stage1({ ips: 0 })
    b.store(root, 0x1_0000_0003n)
    expect(b.dma(VA)).toBe('F_ADDR_SIZE')
  })

  it('7.3.12: of a table that cannot be read: CLASS TT and the physical address', () => {
    const b = new Bench().start()
    const root = b.stage1()
    b.store(root, 0x4000_0003n)
    expect(b.dma(VA)).toBe('F_WALK_EABT')
    const n = new Bench().start()
    const { first, second } = n.nested()
    n.map(second, 0x4000_0000n, 0x5000_0000n | RW2)
    n.store(first, 0x4000_0003n)
    expect(n.dma(VA)).toBe('F_WALK_EABT')
    for (const [bench, ipa] of [
      [b, 0x4000_0000n],
      [n, 0x5000_0000n],
    ] as const)
      expect(bench.pending()).toMatchObject([
        { type: 0x0b, s2: 0, cls: 1, addr: VA, ipa, stall: 0 },
      ])
  })

  it('a fault with PASID has SSV and SubstreamID', () => {
    const b = new Bench().start()
    b.cd({ ttb0: b.alloc() }, b.substreams(4) + 7 * 64)
    expect(b.dma(VA, { pasid: 7, execute: true, privileged: true })).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([
      { ssv: 1, ssid: 7, sid: SID, rnw: 1, ind: 1, pnu: 1, s2: 0, cls: 2 },
    ])
  })
})

describe('SMMUEN clear', () => {
  it('lets traffic pass as it is, with or without PASID, up to the output size', () => {
    const b = new Bench()
    expect(b.dma(VA, { pasid: 5 })).toBe(Number(VA))
    expect(b.dma(1n << 48n)).toBe('status 1')
    expect(b.faults).toEqual([])
  })
  it('GBPA.ABORT aborts it without an event', () => {
    const b = new Bench()
    b.w32(REG.GBPA, 0x8010_0000)
    expect(b.dma(VA)).toBe('status 1')
    expect(b.faults).toEqual([])
  })
})
