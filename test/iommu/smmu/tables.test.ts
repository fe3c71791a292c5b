// Stream tables, STEs, CD tables and CDs: a row for each rule, with its section of IHI 0070 G.b.
import { describe, expect, it } from 'vitest'
import type { SmmuConfig } from '../../../src/iommu/smmu/config.js'
import { Bench, type CdFields, REG, RW, RW2, SID, type SteFields } from './bench.js'

const VA = 0x5000n
const PA = 0x50_0000

/** Rows as test cases: the name, and the rest. */
const named = <T extends readonly unknown[]>(rows: readonly (readonly [string, ...T])[]) =>
  rows.map(([name, ...rest]) => [name, rest as unknown as T] as const)

/** A stream of each kind with one page mapped at VA. */
function mapped(
  kind: 5 | 6 | 7,
  ste: Partial<SteFields>,
  cd: CdFields,
  config: Partial<SmmuConfig>,
) {
  const b = new Bench({ config }).start()
  const leaf = BigInt(PA) | (kind === 6 ? RW2 : RW)
  if (kind === 5) b.map(b.stage1(cd, ste), VA, leaf)
  else if (kind === 6) b.map(b.stage2(ste), VA, leaf)
  else b.map(b.nested(cd, ste).first, VA, leaf)
  return b
}

describe('5.2.2: what makes an STE illegal', () => {
  const wide = 2 ** 48
  // biome-ignore format: table
  const rows: readonly (readonly [string, 5 | 6 | 7, Partial<SteFields>, Partial<SmmuConfig>, Partial<SteFields>?])[] = [
    ['V clear',                                     5, { v: 0 }, {}],
    ['stage 1 where there is none',                 5, {}, { stage1: false }],
    ['stage 2 where there is none',                 6, {}, { stage2: false }],
    ['both where there is no stage 2',              7, {}, { stage2: false }],
    ['EATS split without nesting',                  5, { eats: 2 }, {}, { eats: 1 }],
    ['EATS split with S2S',                         7, { eats: 2, s2s: 1 }, {}, { eats: 2 }],
    ['EATS split where NS1ATS says there is none',  7, { eats: 2 }, { splitStageAts: false }, { eats: 1 }],
    ['EATS full with S2S',                          6, { eats: 1, s2s: 1 }, {}, { s2s: 1 }],
    ['STRW 1',                                      5, { strw: 1 }, {}, { strw: 2 }],
    ['STRW 3',                                      5, { strw: 3 }, {}],
    ['S1STALLD where faults cannot stall',          5, { stalld: 1 }, { stallModel: 1 }],
    ['S1CDMax above SSIDSIZE',                      5, { cdmax: 9, dss: 2 }, { substreamIdBits: 8 }, { cdmax: 8, dss: 2 }],
    ['S1Fmt two-level, 4 KB, without CD2L',         5, { s1fmt: 1, cdmax: 2, dss: 2 }, { twoLevelCdTables: false }],
    ['S1Fmt two-level, 64 KB, without CD2L',        5, { s1fmt: 2, cdmax: 2, dss: 2 }, { twoLevelCdTables: false }],
    ['S1ContextPtr beyond the output size',         5, { ctx: wide }, {}],
    ['S2S where faults cannot stall',               6, { s2s: 1 }, { stallModel: 1 }],
    ['S2S clear where faults must stall',           6, { s2s: 0 }, { stallModel: 2 }, { s2s: 1 }],
    ['S2AA64 clear',                                6, { aa64: 0 }, {}],
    ['S2ENDI',                                      6, { endi: 1 }, {}],
    ['S2HA without HTTU',                           6, { ha: 1 }, { tableUpdates: 'none' }],
    ['S2HD without HTTU',                           6, { hd: 1 }, { tableUpdates: 'none' }],
    ['S2HD with HTTU of the accessed flag',         6, { ha: 1, hd: 1 }, { tableUpdates: 'accessed' }, { ha: 1 }],
    ['S2TG reserved',                               6, { tg: 3 }, {}],
    ['S2TG that is not there',                      6, { tg: 2, sl0: 2 }, { granules: [12, 16] }],
    ['S2TTB beyond S2PS',                           6, { ps: 0, s2ttb: 2 ** 32 }, {}, { ps: 0 }],
    ['S2T0SZ below 16',                             6, { t0sz: 15 }, {}],
    ['S2T0SZ below 64 - OAS',                       6, { t0sz: 19, ps: 4 }, { outputAddressBits: 44 }, { t0sz: 20, ps: 4 }],
    ['S2T0SZ above 39',                             6, { t0sz: 40, sl0: 0 }, {}, { t0sz: 39, sl0: 0 }],
    ['S2SL0 3',                                     6, { sl0: 3 }, {}],
    ['S2SL0 too low for more than 16 tables',       6, { t0sz: 20, sl0: 1 }, {}],
    ['S2SL0 too high for the input',                6, { t0sz: 25, sl0: 2 }, {}],
    ['S2SL0 2 with an output of 42 bits',           6, { t0sz: 22, sl0: 2, ps: 3 }, { outputAddressBits: 42 }, { t0sz: 25, sl0: 1, ps: 3 }],
    ['16-bit S2VMID with 8-bit VMIDs',              6, { vmid: 0x100 }, { vmid16: false }, { vmid: 0xff }],
    ['16-bit S2VMID with 8-bit VMIDs, stage 1',     5, { vmid: 0x100 }, { vmid16: false }],
  ]
  it.each(named(rows))('%s', (_, [kind, ste, config, legal = {}]) => {
    const b = mapped(kind, ste, {}, config)
    expect(b.dma(VA)).toBe('C_BAD_STE')
    expect(b.pending()).toMatchObject([{ type: 4, sid: SID, ssv: 0, s2: 0, addr: 0n }])
    // The same without the offence is not illegal; it may fail for other reasons where stages are missing.
    const missing = config.stage1 === false || config.stage2 === false
    const again = mapped(kind, legal, { s: config.stallModel === 2 ? 1 : 0 }, missing ? {} : config)
    expect(again.dma(VA)).not.toBe('C_BAD_STE')
  })

  it.each([
    [
      'stage 2 fields of a stage 1 stream',
      5,
      { aa64: 0, t0sz: 63, tg: 3, s2s: 1, ha: 1 },
      { tableUpdates: 'none' },
    ],
    ['stage 1 fields of a stage 2 stream', 6, { ctx: 2 ** 48, cdmax: 31, s1fmt: 1 }, {}],
    ['STRW of a nested stream', 7, { strw: 3 }, {}],
    ['STRW without EL2', 5, { strw: 3 }, { hyp: false }],
    ['S1CDMax without substreams', 5, { cdmax: 31 }, { substreamIdBits: 0 }],
    ['S1Fmt with one CD', 5, { s1fmt: 1 }, { twoLevelCdTables: false }],
  ] as const)('ignores %s', (_, kind, ste, config) => {
    expect(mapped(kind, ste, {}, config).dma(VA)).toBe(PA)
  })

  it.each([0, 1, 2, 3])(
    'Config %i aborts without an event, whatever else is in the STE',
    config => {
      const b = new Bench().start()
      b.ste({ config, aa64: 0, strw: 3, cdmax: 31 })
      expect(b.dma(VA)).toBe('status 1')
      expect(b.pending()).toEqual([])
      expect(b.faults).toEqual([])
    },
  )
})

describe('5.4.2: what makes a CD illegal', () => {
  // biome-ignore format: table
  const rows: readonly (readonly [string, CdFields, Partial<SmmuConfig>, CdFields?, Partial<SteFields>?])[] = [
    ['V clear',                                  { v: 0 }, {}],
    ['A clear, as TERM_MODEL has no RAZ/WI',     { a: 0 }, {}],
    ['AA64 clear',                               { aa64: 0 }, {}],
    ['S where faults cannot stall',              { s: 1 }, { stallModel: 1 }],
    ['S under S1STALLD',                         { s: 1 }, {}, {}, { stalld: 1 }],
    ['S clear where faults must stall',          { s: 0 }, { stallModel: 2 }, { s: 1 }],
    ['ENDI',                                     { endi: 1 }, {}],
    ['HA without HTTU',                          { ha: 1 }, { tableUpdates: 'none' }],
    ['HD without HTTU',                          { hd: 1 }, { tableUpdates: 'none' }],
    ['HD with HTTU of the accessed flag',        { ha: 1, hd: 1 }, { tableUpdates: 'accessed' }, { ha: 1 }],
    ['16-bit ASID with 8-bit ASIDs',             { asid: 0x100 }, { asid16: false }, { asid: 0xff }],
    ['T0SZ below 16',                            { t0sz: 15 }, {}],
    ['T0SZ below 12 with 64 KB pages',           { t0sz: 11, tg0: 1 }, {}, { t0sz: 12, tg0: 1 }],
    ['T0SZ below 16 with 64 KB, 48-bit VAs',     { t0sz: 12, tg0: 1 }, { virtualAddressBits: 48 }, { t0sz: 16, tg0: 1 }],
    ['T0SZ above 39',                            { t0sz: 40 }, {}, { t0sz: 39 }],
    ['T1SZ of a range in use',                   { epd1: 0, t1sz: 40 }, {}, { epd1: 0 }],
    ['TG0 reserved',                             { tg0: 3 }, {}],
    ['TG1 reserved',                             { epd1: 0, tg1: 0 }, {}, { epd1: 0, tg1: 1 }],
    ['a granule that is not there',              { tg0: 2 }, { granules: [12] }],
    ['TTB0 beyond IPS',                          { ips: 0, ttb0: 2 ** 32 }, {}, { ips: 0 }],
    ['TTB1 beyond IPS',                          { ips: 0, ttb1: 2 ** 32, epd1: 0 }, {}, { ips: 0, epd1: 0 }],
  ]
  it.each(named(rows))('%s', (_, [cd, config, legal = {}, ste = {}]) => {
    const b = mapped(5, ste, cd, config)
    expect(b.dma(VA)).toBe('C_BAD_CD')
    expect(b.pending()).toMatchObject([{ type: 0x0a, sid: SID, ssv: 0 }])
    expect(mapped(5, {}, legal, config).dma(VA)).not.toBe('C_BAD_CD')
  })

  it.each([
    ['T1SZ, TG1 and TTB1 under EPD1', { epd1: 1, t1sz: 63, tg1: 0, ttb1: 2 ** 50 }],
    ['ENDI with both ranges disabled', { epd0: 1, endi: 1 }],
    ['T0SZ, TG0 and TTB0 under EPD0', { epd0: 1, t0sz: 63, tg0: 3, ttb0: 2 ** 50 }],
  ])('5.4.1.1: ignores %s', (_, cd) => {
    expect(mapped(5, {}, cd, {}).dma(VA)).toBe('epd0' in cd ? 'F_TRANSLATION' : PA)
  })
})

describe('5.1: stream tables', () => {
  it('covers StreamIDs below 2^LOG2SIZE; C_BAD_STREAMID above, recorded under RECINVSID', () => {
    for (const cr2 of [0, 2]) {
      const b = new Bench().start({ cr2 })
      b.ste({ config: 4 }, 511)
      expect(b.dma(VA, { requester: 511 })).toBe(Number(VA))
      expect(b.dma(VA, { requester: 512 })).toBe('C_BAD_STREAMID')
      expect(b.pending()).toMatchObject(cr2 ? [{ type: 2, sid: 512 }] : [])
      expect(b.faults[0]!.record).toBe(cr2 ? 'recorded' : 'suppressed')
    }
  })

  it.each([
    [6, 6],
    [8, 8],
    [10, 10],
    [7, 6],
  ])('two-level with SPLIT %i splits at %i bits', (split, low) => {
    const b = new Bench()
    b.start({ enable: 0 })
    const l1 = b.alloc(4)
    const l2 = b.alloc(16)
    const sid = (3 << low) | 5
    b.store(l1 + (sid >> low) * 8, BigInt(l2) | BigInt(low + 1))
    b.w64(REG.STRTAB_BASE, l1)
    b.w32(REG.STRTAB_BASE_CFG, 16 | (split << 6) | (1 << 16))
    b.words(l2 + (sid & ((1 << low) - 1)) * 64, [9n, 0n])
    b.w32(REG.CR0, 0xf)
    expect(b.dma(VA, { requester: sid })).toBe(Number(VA))
    expect(b.dma(VA, { requester: sid + 1 })).toBe('C_BAD_STE')
    expect(b.dma(VA, { requester: 1 << low })).toBe('C_BAD_STREAMID')
  })

  // biome-ignore format: table
  it.each([
    ['0 covers nothing',                 0, 0, 'C_BAD_STREAMID'],
    ['1 covers one stream',              1, 0, 0x5000],
    ['1 does not cover the second',      1, 1, 'C_BAD_STREAMID'],
    ['3 covers four streams',            3, 3, 0x5000],
    ['3 does not cover the fifth',       3, 4, 'C_BAD_STREAMID'],
    ['above SPLIT + 1 covers nothing',   10, 0, 'C_BAD_STREAMID'],
    ['12 is reserved and covers none',   12, 0, 'C_BAD_STREAMID'],
  ] as const)('L1STD.Span %s', (_, span, sid, expected) => {
    const b = new Bench()
    b.start({ enable: 0 })
    const l1 = b.alloc()
    const l2 = b.alloc(4)
    b.store(l1, BigInt(l2) | BigInt(span))
    for (let i = 0; i < 8; i++) b.words(l2 + i * 64, [9n, 0n])
    b.w64(REG.STRTAB_BASE, l1)
    b.w32(REG.STRTAB_BASE_CFG, 16 | (8 << 6) | (1 << 16))
    b.w32(REG.CR0, 0xf)
    expect(b.dma(VA, { requester: sid })).toBe(expected)
  })

  it('7.3.4: an STE or L1STD that cannot be read is F_STE_FETCH, with its address', () => {
    const b = new Bench()
    b.start({ enable: 0 })
    b.w64(REG.STRTAB_BASE, 0x4000_0000)
    b.w32(REG.CR0, 0xf)
    expect(b.dma(VA)).toBe('F_STE_FETCH')
    expect(b.pending()).toMatchObject([{ type: 3, sid: SID, ipa: BigInt(0x4000_0000 + SID * 64) }])
    const c = new Bench()
    c.start({ enable: 0 })
    c.w64(REG.STRTAB_BASE, 0x4000_0000)
    c.w32(REG.STRTAB_BASE_CFG, 16 | (8 << 6) | (1 << 16))
    c.w32(REG.CR0, 0xf)
    expect(c.dma(VA)).toBe('F_STE_FETCH')
    expect(c.pending()).toMatchObject([{ type: 3, ipa: BigInt(0x4000_0000 + (SID >> 8) * 8) }])
  })
})

describe('5.2, 5.3: substreams', () => {
  it.each([
    ['linear', 0, 4, 9],
    ['two-level, 4 KB', 1, 10, 0x145],
    ['two-level, 4 KB, one table', 1, 4, 9],
    ['two-level, 64 KB', 2, 12, 0x845],
  ] as const)('%s: each substream has its own CD', (_, s1fmt, cdmax, pasid) => {
    const b = new Bench().start()
    const low = [0, 6, 10][s1fmt]!
    const table = b.alloc(s1fmt === 0 ? Math.max(2 ** (cdmax - 6), 1) : 1)
    b.ste({ config: 5, ctx: table, cdmax, s1fmt, dss: 2 })
    const roots = [0, 1, pasid].map(ssid => {
      const root = b.alloc()
      let at = table + ssid * 64
      if (s1fmt !== 0) {
        const l1 = table + (ssid >> low) * 8
        if (b.load(l1) === 0n) b.store(l1, BigInt(b.alloc(2 ** (low - 6))) | 1n)
        at = Number(b.load(l1) & ~0xfffn) + (ssid & (2 ** low - 1)) * 64
      }
      b.cd({ ttb0: root, asid: ssid + 1 }, at)
      return root
    })
    for (const [i, root] of roots.entries()) b.map(root, VA, (BigInt(i + 1) << 20n) | RW)
    expect(b.dma(VA)).toBe(0x10_0000)
    expect(b.dma(VA, { pasid: 1 })).toBe(0x20_0000)
    expect(b.dma(VA, { pasid })).toBe(0x30_0000)
    expect(b.dma(VA, { pasid: 2 ** cdmax })).toBe('C_BAD_SUBSTREAMID')
    expect(b.pending()).toMatchObject([{ type: 8, ssv: 0, ssid: 2 ** cdmax }])
  })

  // biome-ignore format: table
  it.each([
    ['0 terminates without a SubstreamID',    0, -1, 'F_STREAM_DISABLED'],
    ['0 leaves substream 0 ordinary',         0, 0, 0x30_0000],
    ['1 bypasses without a SubstreamID',      1, -1, 0x5000],
    ['1 leaves substream 0 ordinary',         1, 0, 0x30_0000],
    ['2 uses CD 0 without a SubstreamID',     2, -1, 0x30_0000],
    ['2 refuses substream 0',                 2, 0, 'F_STREAM_DISABLED'],
    ['3 is reserved and terminates',          3, -1, 'F_STREAM_DISABLED'],
  ] as const)('S1DSS %s', (_, dss, pasid, expected) => {
    const b = new Bench().start()
    const table = b.substreams(4, { dss })
    const root = b.alloc()
    b.cd({ ttb0: root }, table)
    b.map(root, VA, 0x30_0000n | RW)
    expect(b.dma(VA, { pasid })).toBe(expected)
    if (typeof expected === 'string')
      expect(b.pending(), 'the record has no SubstreamID').toMatchObject([{ type: 6, ssv: 0, ssid: 0 }])
  })

  it('S1DSS 1 on a nested stream leaves stage 2', () => {
    const b = new Bench().start()
    const { second } = b.nested({}, { cdmax: 4, dss: 1 })
    b.map(second, 0x4000_0000n, 0x70_0000n | RW2)
    expect(b.dma(0x4000_0000n)).toBe(0x70_0000)
    expect(b.dma(0x5000_0000n)).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([{ s2: 1, cls: 2, ipa: 0x5000_0000n }])
  })

  it.each([
    ['a bypassing stream', { config: 4 }],
    ['a stage 2 stream', { config: 6 }],
    ['a stage 1 stream without substreams', { config: 5 }],
  ])('7.3.9: a SubstreamID on %s is C_BAD_SUBSTREAMID', (_, ste) => {
    const b = new Bench().start()
    b.ste({ ...ste, ctx: b.cd({}), s2ttb: b.alloc() })
    expect(b.dma(VA, { pasid: 3 })).toBe('C_BAD_SUBSTREAMID')
    expect(b.pending()).toMatchObject([{ type: 8, ssid: 3, sid: SID }])
  })

  it('7.3.9: an L1CD that is invalid or points too far is C_BAD_SUBSTREAMID', () => {
    const b = new Bench({ config: { outputAddressBits: 40 } }).start()
    const table = b.alloc()
    b.ste({ config: 5, ctx: table, cdmax: 10, s1fmt: 1, dss: 2, ps: 2 })
    b.store(table + 8, (1n << 40n) | 1n)
    expect(b.dma(VA)).toBe('C_BAD_SUBSTREAMID')
    expect(b.dma(VA, { pasid: 70 })).toBe('C_BAD_SUBSTREAMID')
    expect(b.pending()).toMatchObject([{ ssid: 0 }, { ssid: 70 }])
  })

  it('7.3.10: a CD or L1CD that cannot be read is F_CD_FETCH, with its address', () => {
    const b = new Bench().start()
    b.ste({ config: 5, ctx: 0x4000_0000, cdmax: 10, dss: 2 })
    expect(b.dma(VA, { pasid: 5 })).toBe('F_CD_FETCH')
    b.ste({ config: 5, ctx: 0x4000_0000, cdmax: 10, s1fmt: 1, dss: 2 }, SID + 1)
    expect(b.dma(VA, { requester: SID + 1 })).toBe('F_CD_FETCH')
    expect(b.pending()).toMatchObject([
      { type: 9, ssv: 1, ssid: 5, ipa: 0x4000_0140n },
      { type: 9, ssv: 0, ipa: 0x4000_0000n },
    ])
  })

  it('7.3.13: stage 2 faults of a CD fetch have CLASS CD and the address of the CD', () => {
    const b = new Bench().start()
    b.nested({}, { ctx: 0x4000_0040 })
    expect(b.dma(VA, { write: true })).toBe('F_TRANSLATION')
    expect(b.pending()).toMatchObject([
      { type: 0x10, s2: 1, cls: 0, rnw: 0, addr: VA, ipa: 0x4000_0000n },
    ])
  })
})
