// What each invalidation drops, and what it leaves: stale until invalidated, exact after (IHI 0070 4.3, 4.4).
import { describe, expect, it } from 'vitest'
import { Bench, CR0, command, PRIVATE, REG, RW, RW2, SID, TLBI } from './bench.js'

const GLOBAL = RW & ~0x800n

/** Cached translations of every kind, by name: who asks, and for what. */
// biome-ignore format: table
const ENTRIES = {
  v1a1:    { sid: 1, va: 0x5000n },    // VMID 1, ASID 1
  v1a1b:   { sid: 1, va: 0x9000n },    // another page
  v1a1far: { sid: 1, va: 0x7fff_0000_5000n },
  v1a1g:   { sid: 1, va: 0x6000n },    // of all ASIDs
  v1a2:    { sid: 2, va: 0x5000n },    // VMID 1, ASID 2
  v1a2g:   { sid: 2, va: 0x6000n },
  v2a1:    { sid: 3, va: 0x5000n },    // VMID 2, ASID 1
  nested:  { sid: 4, va: 0x5000n },    // VMID 3, ASID 1, through stage 2
  ipa:     { sid: 5, va: 0x70_5000n }, // VMID 3, stage 2 alone
  ipaB:    { sid: 5, va: 0x70_9000n },
  el2:     { sid: 6, va: 0x5000n },    // EL2 or EL2-E2H with ASID 1
  el2g:    { sid: 6, va: 0x6000n },
  el2a2:   { sid: 7, va: 0x5000n },    // EL2-E2H with ASID 2
} as const
type Name = keyof typeof ENTRIES
const names = Object.keys(ENTRIES) as Name[]
const el1 = names.filter(n => !n.startsWith('el2'))

class Primed {
  readonly b: Bench
  readonly leaves: number[] = []
  constructor(e2h: boolean) {
    const b = new Bench().start({ cr2: e2h ? 3 : 2 })
    this.b = b
    const stage1 = (sid: number, vmid: number, asid: number, strw = 0) => {
      const root = b.alloc()
      b.ste({ config: 5, vmid, strw, ctx: b.cd({ ttb0: root, asid }) }, sid)
      this.leaves.push(b.map(root, 0x5000n, 0x50_0000n | RW))
      this.leaves.push(b.map(root, 0x9000n, 0x51_0000n | RW))
      this.leaves.push(b.map(root, 0x6000n, 0x52_0000n | GLOBAL))
      this.leaves.push(b.map(root, 0x7fff_0000_5000n, 0x53_0000n | RW))
    }
    stage1(1, 1, 1)
    stage1(2, 1, 2)
    stage1(3, 2, 1)
    stage1(6, 0, 1, 2)
    stage1(7, 0, 2, 2)
    const second = b.alloc()
    for (let i = 0n; i < 8n; i++)
      if (i !== 3n) b.map(second, i << 21n, (i << 21n) | (RW2 & ~2n), { leafLevel: 2 })
    this.leaves.push(b.map(second, 0x70_5000n, 0x54_0000n | RW2))
    this.leaves.push(b.map(second, 0x70_9000n, 0x55_0000n | RW2))
    const first = b.alloc()
    const stage2 = { vmid: 3, s2ttb: second }
    b.ste({ config: 7, ctx: b.cd({ ttb0: first, asid: 1 }), ...stage2 }, 4)
    this.leaves.push(b.map(first, 0x5000n, 0x56_0000n | RW))
    b.ste({ config: 6, ...stage2 }, 5)
    for (const name of names) expect(this.ask(name), name).toBeTypeOf('number')
    for (const leaf of this.leaves) b.store(leaf, 0n)
    for (const name of names) expect(this.ask(name), `${name} is stale`).toBeTypeOf('number')
  }
  ask(name: Name): number | string {
    return this.b.dma(ENTRIES[name].va, { requester: ENTRIES[name].sid })
  }
  /** What is gone. */
  gone(): Name[] {
    return names.filter(n => typeof this.ask(n) === 'string')
  }
}

const V1 = { vmid: 1, asid: 1 }
// biome-ignore format: table
const scopes: readonly (readonly [string, readonly bigint[], readonly Name[]])[] = [
  ['NSNH_ALL: all of EL1',                    command.tlbi(TLBI.NSNH_ALL), el1],
  ['NH_ALL: stage 1 of a VMID',               command.tlbi(TLBI.NH_ALL, { vmid: 1 }), ['v1a1', 'v1a1b', 'v1a1far', 'v1a1g', 'v1a2', 'v1a2g']],
  ['NH_ALL: nested too, not stage 2 alone',   command.tlbi(TLBI.NH_ALL, { vmid: 3 }), ['nested']],
  ['NH_ALL: another VMID',                    command.tlbi(TLBI.NH_ALL, { vmid: 9 }), []],
  ['NH_ASID: not entries of all ASIDs',       command.tlbi(TLBI.NH_ASID, V1), ['v1a1', 'v1a1b', 'v1a1far']],
  ['NH_ASID: nested',                         command.tlbi(TLBI.NH_ASID, { vmid: 3, asid: 1 }), ['nested']],
  ['NH_ASID: another ASID',                   command.tlbi(TLBI.NH_ASID, { vmid: 1, asid: 9 }), []],
  ['NH_VA: one page of an ASID',              command.tlbiVa(TLBI.NH_VA, 0x5000n, V1), ['v1a1']],
  ['NH_VA: Leaf makes no difference here',    command.tlbiVa(TLBI.NH_VA, 0x5000n, { ...V1, leaf: 1 }), ['v1a1']],
  ['NH_VA: entries of all ASIDs, of any',     command.tlbiVa(TLBI.NH_VA, 0x6000n, { vmid: 1, asid: 9 }), ['v1a1g', 'v1a2g']],
  ['NH_VA: high addresses',                   command.tlbiVa(TLBI.NH_VA, 0x7fff_0000_5000n, V1), ['v1a1far']],
  ['NH_VA: another page',                     command.tlbiVa(TLBI.NH_VA, 0x4000n, V1), []],
  ['NH_VA: another VMID',                     command.tlbiVa(TLBI.NH_VA, 0x5000n, { vmid: 9, asid: 1 }), []],
  ['NH_VAA: one page of all ASIDs',           command.tlbiVa(TLBI.NH_VAA, 0x5000n, { vmid: 1 }), ['v1a1', 'v1a2']],
  ['NH_VAA: not stage 2 alone',               command.tlbiVa(TLBI.NH_VAA, 0x70_5000n, { vmid: 3 }), []],
  ['S12_VMALL: both stages of a VMID',        command.tlbi(TLBI.S12_VMALL, { vmid: 3 }), ['nested', 'ipa', 'ipaB']],
  ['S2_IPA: stage 2 alone',                   command.tlbiVa(TLBI.S2_IPA, 0x70_5000n, { vmid: 3 }), ['ipa']],
  ['S2_IPA: not what holds a stage 1',        command.tlbiVa(TLBI.S2_IPA, 0x5000n, { vmid: 3 }), []],
  ['range: 5 pages from 0x4000 (4K)',         command.tlbiVa(TLBI.NH_VA, 0x4000n, { ...V1, tg: 1, num: 4, scale: 0 }), ['v1a1', 'v1a1g', 'v1a2g']],
  ['range: 6 pages from 0x4000 (4K)',         command.tlbiVa(TLBI.NH_VA, 0x4000n, { ...V1, tg: 1, num: 5, scale: 0 }), ['v1a1', 'v1a1b', 'v1a1g', 'v1a2g']],
  ['range: 2^SCALE pages (4K)',               command.tlbiVa(TLBI.NH_VA, 0x8000n, { ...V1, tg: 1, num: 0, scale: 1 }), ['v1a1b']],
  ['range: one page with a level hint',       command.tlbiVa(TLBI.NH_VA, 0x5000n, { ...V1, tg: 1, ttl: 3 }), ['v1a1']],
  ['range: granules of 16 KB',                command.tlbiVa(TLBI.NH_VAA, 0x4000n, { vmid: 1, tg: 2, ttl: 3 }), ['v1a1', 'v1a1g', 'v1a2', 'v1a2g']],
  ['range: granules of 64 KB',                command.tlbiVa(TLBI.NH_VAA, 0n, { vmid: 1, tg: 3, ttl: 3 }), ['v1a1', 'v1a1b', 'v1a1g', 'v1a2', 'v1a2g']],
  ['range: the largest',                      command.tlbiVa(TLBI.NH_VAA, 0n, { vmid: 1, tg: 3, num: 31, scale: 31 }), ['v1a1', 'v1a1b', 'v1a1far', 'v1a1g', 'v1a2', 'v1a2g']],
  ['range: beyond the top of the space',      command.tlbiVa(TLBI.NH_VAA, 0xffff_ffff_ffff_f000n, { vmid: 1, tg: 1, num: 31, scale: 31 }), []],
  ['range: IPAs',                             command.tlbiVa(TLBI.S2_IPA, 0x70_0000n, { vmid: 3, tg: 1, num: 9 }), ['ipa', 'ipaB']],
  ['EL2_ALL',                                 command.tlbi(TLBI.EL2_ALL), ['el2', 'el2g', 'el2a2']],
]
// biome-ignore format: table
const el2Scopes: readonly (readonly [string, boolean, readonly bigint[], readonly Name[]])[] = [
  ['EL2_ASID: ASIDs only with E2H',           false, command.tlbi(TLBI.EL2_ASID, { asid: 1 }), []],
  ['EL2_ASID',                                true,  command.tlbi(TLBI.EL2_ASID, { asid: 1 }), ['el2']],
  ['EL2_VA: without E2H there is one space',  false, command.tlbiVa(TLBI.EL2_VA, 0x5000n, { asid: 1 }), ['el2', 'el2a2']],
  ['EL2_VA: one ASID',                        true,  command.tlbiVa(TLBI.EL2_VA, 0x5000n, { asid: 1 }), ['el2']],
  ['EL2_VA: entries of all ASIDs',            true,  command.tlbiVa(TLBI.EL2_VA, 0x6000n, { asid: 2 }), ['el2g']],
  ['EL2_VAA: every ASID',                     true,  command.tlbiVa(TLBI.EL2_VAA, 0x5000n), ['el2', 'el2a2']],
  ['EL2_ALL',                                 true,  command.tlbi(TLBI.EL2_ALL), ['el2', 'el2g', 'el2a2']],
]

describe('4.4: TLB invalidation drops exactly', () => {
  it.each(scopes)('%s', (_, words, expected) => {
    const p = new Primed(false)
    p.b.submit([...words], command.sync())
    expect(p.b.r32(REG.GERROR)).toBe(0)
    expect(p.gone()).toEqual(expected)
  })
  it.each(el2Scopes)('%s (E2H %s)', (_, e2h, words, expected) => {
    const p = new Primed(e2h)
    p.b.submit([...words])
    expect(p.gone()).toEqual(expected)
  })

  it('a large page goes with any address inside it', () => {
    const b = new Bench().start()
    const leaf = b.map(b.stage1(), 0x20_0000n, 0x40_0000n | (RW & ~2n), { leafLevel: 2 })
    expect(b.dma(0x2f_1234n)).toBe(0x4f_1234)
    b.store(leaf, 0n)
    b.submit(command.tlbiVa(TLBI.NH_VA, 0x40_0000n))
    expect(b.dma(0x2f_1234n)).toBe(0x4f_1234)
    b.submit(command.tlbiVa(TLBI.NH_VA, 0x30_0000n))
    expect(b.dma(0x2f_1234n)).toBe('F_TRANSLATION')
  })

  it('a run of contiguous entries is held as one, and goes as one', () => {
    const b = new Bench().start()
    const root = b.stage1()
    const leaves = Array.from({ length: 16 }, (_, i) =>
      b.map(root, 0x1_0000n + BigInt(i * 4096), BigInt(0x5_0000 + i * 4096) | RW | (1n << 52n)),
    )
    expect(b.dma(0x1_3000n)).toBe(0x5_3000)
    expect(b.answer.pageBits).toBe(16)
    for (const leaf of leaves) b.store(leaf, 0n)
    expect(b.dma(0x1_f000n)).toBe(0x5_f000)
    b.submit(command.tlbiVa(TLBI.NH_VA, 0x1_0000n))
    expect(b.dma(0x1_f000n)).toBe('F_TRANSLATION')
  })

  it('a contiguous hint on entries that are no run holds for a page only', () => {
    const b = new Bench().start()
    const root = b.stage1()
    b.map(root, 0x1_0000n, 0x6_1000n | RW | (1n << 52n))
    b.map(root, 0x1_1000n, 0x7_0000n | RW)
    expect(b.dma(0x1_0000n)).toBe(0x6_1000)
    expect(b.dma(0x1_1000n)).toBe(0x7_0000)
  })

  it('the upper range is invalidated by its own addresses', () => {
    const b = new Bench().start()
    const root = b.alloc()
    b.stage1({ epd1: 0, ttb1: root, asid: 3 })
    const leaf = b.map(root, 0x5000n, 0x50_0000n | RW)
    const va = 0xffff_0000_0000_5000n
    expect(b.dma(va)).toBe(0x50_0000)
    b.store(leaf, 0n)
    b.submit(command.tlbiVa(TLBI.NH_VA, 0x5000n, { asid: 3 }))
    expect(b.dma(va)).toBe(0x50_0000)
    b.submit(command.tlbiVa(TLBI.NH_VA, va, { asid: 3 }))
    expect(b.dma(va)).toBe('F_TRANSLATION')
  })
})

describe('4.4: commands that are CERROR_ILL', () => {
  // biome-ignore format: table
  it.each([
    ['NH_ALL without stage 1', { stage1: false }, command.tlbi(TLBI.NH_ALL)],
    ['NH_VAA without stage 1', { stage1: false }, command.tlbiVa(TLBI.NH_VAA, 0n)],
    ['S12_VMALL without stage 2', { stage2: false }, command.tlbi(TLBI.S12_VMALL)],
    ['S2_IPA without stage 2', { stage2: false }, command.tlbiVa(TLBI.S2_IPA, 0n)],
    ['EL2_ALL without EL2', { hyp: false }, command.tlbi(TLBI.EL2_ALL)],
    ['CFGI_CD without stage 1', { stage1: false }, command.cfgiCd(SID, 0)],
    ['ATC_INV without ATS', { ats: false }, command.atcInv(SID, 0n, 0)],
    ['ATC_INV of more than everything', {}, command.atcInv(SID, 0n, 53)],
    ['PRI_RESP without PRI', { pri: false }, command.priResp(SID, 0, 2)],
    ['PRI_RESP with a reserved response', {}, command.priResp(SID, 0, 3)],
    ['RESUME where nothing stalls', { stallModel: 1 as const }, command.resume(SID, 0, 1)],
    ['STALL_TERM where nothing stalls', { stallModel: 1 as const }, command.stallTerm(SID)],
    ['SYNC with CS 3', {}, command.sync(3)],
    ['TLBI_EL3_ALL on this queue', {}, command.tlbi(0x18)],
    ['an SSec command', {}, [0x403n | (1n << 32n), 0n]],
    ['opcode 0', {}, [0n, 0n]],
    ['an opcode that is not defined', {}, [0x7fn, 0n]],
    ['a range of nothing', {}, command.tlbiVa(TLBI.NH_VA, 0n, { tg: 1 })],
    ['a range of nothing whose hint is none', {}, command.tlbiVa(TLBI.NH_VA, 0n, { tg: 2, ttl: 1 })],
  ])('%s', (_, config, words) => {
    const b = new Bench({ config }).start()
    b.submit(command.sync(), words, command.sync())
    expect(b.r32(REG.CMDQ_CONS), 'stays on the command, with ERR').toBe(0x100_0001)
    expect(b.r32(REG.GERROR)).toBe(1)
  })

  it('NSNH_ALL is always there', () => {
    const b = new Bench({ config: { stage1: false } }).start()
    b.submit(command.tlbi(TLBI.NSNH_ALL))
    expect(b.r32(REG.GERROR)).toBe(0)
  })
})

describe('4.3: configuration invalidation', () => {
  /** A cached STE of two streams, and CDs of two substreams of the first. */
  function primed() {
    const b = new Bench().start()
    const table = b.substreams(2, { dss: 2 })
    for (const ssid of [0, 1, 2]) {
      const root = b.alloc()
      b.cd({ ttb0: root, asid: ssid + 1 }, table + ssid * 64)
      b.map(root, 0x5000n, 0x50_0000n | RW)
    }
    b.ste({ config: 4 }, SID + 1)
    const ask = {
      plain: () => b.dma(0x5000n),
      one: () => b.dma(0x5000n, { pasid: 1 }),
      two: () => b.dma(0x5000n, { pasid: 2 }),
      other: () => b.dma(0x5000n, { requester: SID + 1 }),
    }
    for (const [name, dma] of Object.entries(ask)) expect(dma(), name).toBeTypeOf('number')
    // Everything in memory becomes invalid; the translations themselves stay cached.
    b.ste({ config: 4, v: 0 })
    b.ste({ config: 4, v: 0 }, SID + 1)
    for (const ssid of [0, 1, 2]) b.cd({ v: 0 }, table + ssid * 64)
    const gone = () =>
      Object.entries(ask)
        .filter(([, dma]) => typeof dma() === 'string')
        .map(([name]) => name)
    expect(gone(), 'all stale').toEqual([])
    return { b, gone }
  }

  // biome-ignore format: table
  it.each([
    ['CFGI_STE: one stream with its CDs',   command.cfgiSte(SID), ['plain', 'one', 'two']],
    ['CFGI_STE with Leaf: the same here',   command.cfgiSte(SID, 1), ['plain', 'one', 'two']],
    ['CFGI_STE: another stream',            command.cfgiSte(SID + 2), []],
    ['CFGI_STE_RANGE: both of a pair',      command.cfgiRange(SID + 1, 0), ['plain', 'one', 'two', 'other']],
    ['CFGI_STE_RANGE: 2^31 streams',        command.cfgiRange(0, 30), ['plain', 'one', 'two', 'other']],
    ['CFGI_STE_RANGE: other streams',       command.cfgiRange(SID + 2, 0), []],
    ['CFGI_ALL',                            command.cfgiAll(), ['plain', 'one', 'two', 'other']],
    ['CFGI_CD: one substream',              command.cfgiCd(SID, 1), ['one']],
    ['CFGI_CD: CD 0 of S1DSS 2',            command.cfgiCd(SID, 0), ['plain']],
    ['CFGI_CD: of another stream',          command.cfgiCd(SID + 1, 1), []],
    ['CFGI_CD_ALL: all of a stream',        command.cfgiCdAll(SID), ['plain', 'one', 'two']],
    ['TLBI does not touch configuration',   command.tlbi(TLBI.NSNH_ALL), []],
  ] as const)('%s', (_, words, expected) => {
    const { b, gone } = primed()
    b.submit([...words])
    expect(gone()).toEqual(expected)
  })

  it('a change of TTB0 needs both: the CD is read again, the translation is still the old one', () => {
    const b = new Bench().start()
    const [before, after] = [b.alloc(), b.alloc()]
    const cd = b.cd({ ttb0: before, asid: 5 })
    b.ste({ config: 5, ctx: cd })
    b.map(before, 0x5000n, 0x50_0000n | PRIVATE)
    b.map(after, 0x5000n, 0x60_0000n | RW)
    b.map(before, 0x6000n, 0x51_0000n | RW)
    expect(b.dma(0x5000n)).toBe('F_PERMISSION')
    expect(b.dma(0x6000n)).toBe(0x51_0000)
    b.cd({ ttb0: after, asid: 5 }, cd)
    b.submit(command.cfgiCd(SID, 0))
    expect(b.dma(0x5000n), 'nothing was cached of a fault').toBe(0x60_0000)
    expect(b.dma(0x6000n)).toBe(0x51_0000)
    b.submit(command.tlbi(TLBI.NH_ASID, { asid: 5 }))
    expect(b.dma(0x6000n)).toBe('F_TRANSLATION')
  })

  it('caches survive SMMUEN, which only decides whether they are used', () => {
    const b = new Bench().start()
    const leaf = b.map(b.stage1(), 0x5000n, 0x50_0000n | RW)
    b.dma(0x5000n)
    b.store(leaf, 0n)
    b.w32(REG.CR0, CR0.CMDQEN)
    expect(b.dma(0x5000n)).toBe(0x5000)
    b.w32(REG.CR0, CR0.CMDQEN | CR0.SMMUEN)
    expect(b.dma(0x5000n)).toBe(0x50_0000)
  })
})
