// ATS: translation requests, translated requests, and who may send them (IHI 0070 3.9.1, 13.6, 13.7).
import { describe, expect, it } from 'vitest'
import { Bench, CR0, PRIVATE, REG, RO, RO2, RW, RW2, SID } from './bench.js'

const VA = 0x5000n
const CHECKED = CR0.SMMUEN | CR0.EVENTQEN | CR0.CMDQEN | CR0.ATSCHK
const REC = 2 | 8
const UXN = 1n << 54n

/** A nested stream with ATS, VA mapped to 0x600000 by way of the IPA 0x40000000. */
function split(eats: number, ste = {}) {
  const b = new Bench().start({ enable: CHECKED })
  const { first, second } = b.nested({}, { eats, ...ste })
  b.map(first, VA, 0x4000_0000n | RW)
  b.map(second, 0x4000_0000n, 0x60_0000n | RW2)
  return { b, first, second }
}

describe('3.9.1.2: answers to translation requests', () => {
  // biome-ignore format: table
  it.each([
    ['a writable page',                       RW, {}, 'rw- 0x500000/12'],
    ['a writable page, NW',                   RW, { noWrite: true }, 'r-- 0x500000/12'],
    ['a read-only page',                      RO, {}, 'r-- 0x500000/12'],
    ['a private page, without privilege',     PRIVATE, {}, 'none'],
    ['a private page, with privilege',        PRIVATE, { pasid: 1, privileged: true }, 'rw- 0x500000/12'],
    ['execute asked for and granted',         RO, { pasid: 1, execute: true }, 'r-x 0x500000/12'],
    ['execute asked for and not granted',     RO | UXN, { pasid: 1, execute: true }, 'r-- 0x500000/12'],
    ['execute not asked for',                 RO, { pasid: 1 }, 'r-- 0x500000/12'],
    ['nothing mapped',                        0n, {}, 'none'],
    ['the access flag clear',                 RW & ~0x400n, {}, 'none'],
  ] as const)('%s', (_, leaf, request, expected) => {
    const b = new Bench().start()
    const root = b.alloc()
    const table = b.substreams(1, { dss: 2, eats: 1 })
    for (const ssid of [0, 1]) b.cd({ ttb0: root }, table + ssid * 64)
    b.map(root, VA, leaf === 0n ? 0n : 0x50_0000n | leaf)
    expect(b.ats(VA, request)).toBe(expected)
    expect(b.pending(), 'nothing is recorded').toEqual([])
    expect(b.answer.global, 'never global').toBe(false)
  })

  // biome-ignore format: table
  it.each<[string, (b: Bench) => void, string, string, number[]]>([
    ['EATS 0',                     b => void b.stage1({}, { eats: 0 }), 'UR F_BAD_ATS_TREQ', 'UR F_BAD_ATS_TREQ', [5]],
    ['EATS 3 without DPT',         b => void b.stage1({}, { eats: 3 }), 'UR F_BAD_ATS_TREQ', 'UR F_BAD_ATS_TREQ', [5]],
    ['a bypassing stream',         b => void b.ste({ config: 4, eats: 1 }), 'UR F_BAD_ATS_TREQ', 'UR F_BAD_ATS_TREQ', [5]],
    ['an aborting stream',         b => void b.ste({ config: 0 }), 'UR', 'UR', []],
    ['C_BAD_STE',                  b => void b.ste({ config: 5, v: 0 }), 'CA C_BAD_STE', 'CA C_BAD_STE', [4]],
    ['C_BAD_CD',                   b => void b.stage1({ v: 0 }, { eats: 1 }), 'CA C_BAD_CD', 'CA C_BAD_CD', [10]],
    ['F_STREAM_DISABLED',          b => void b.substreams(2, { eats: 1 }), 'CA F_STREAM_DISABLED', 'CA F_STREAM_DISABLED', []],
    ['F_CD_FETCH',                 b => void b.ste({ config: 5, ctx: 0x4000_0000, eats: 1 }), 'CA F_CD_FETCH', 'CA F_CD_FETCH', [9]],
    ['F_WALK_EABT',                b => void b.store(b.stage1({}, { eats: 1 }), 0x4000_0003n), 'CA F_WALK_EABT', 'CA F_WALK_EABT', [11]],
    ['stage 2 fault of a CD fetch', b => void b.nested({}, { ctx: 0x4000_0000, eats: 1 }), 'none', 'none', []],
  ])('%s; recorded under REC_CFG_ATS', (_, setUp, quiet, answer, recorded) => {
    for (const cr2 of [2, REC]) {
      const b = new Bench().start({ cr2 })
      setUp(b)
      expect(b.ats(VA)).toBe(cr2 === 2 ? quiet : answer)
      const always = recorded[0] === 5
      expect(b.pending().map(e => e.type)).toEqual(cr2 === REC || always ? recorded : [])
    }
  })

  it('a stream outside the table: CA, recorded only under RECINVSID too', () => {
    for (const [cr2, types] of [
      [8, []],
      [REC, [2]],
    ] as const) {
      const b = new Bench().start({ cr2 })
      expect(b.ats(VA, { requester: 0x4000 })).toBe('CA C_BAD_STREAMID')
      expect(b.pending().map(e => e.type)).toEqual(types)
    }
  })

  it('SMMUEN clear: UR and F_BAD_ATS_TREQ, with what was asked for', () => {
    const b = new Bench().start({ enable: CR0.EVENTQEN })
    expect(b.ats(VA, { pasid: 4, privileged: true })).toBe('UR F_BAD_ATS_TREQ')
    expect(b.pending()).toMatchObject([
      { type: 5, sid: SID, ssv: 1, ssid: 4, addr: VA, rnw: 1, pnu: 1 },
    ])
  })

  it('dirty state and accessed flags are set for what was asked', () => {
    const DBM = 1n << 51n
    const b = new Bench().start()
    const leaf = b.map(
      b.stage1({ ha: 1, hd: 1 }, { eats: 1 }),
      VA,
      0x50_0000n | ((RO | DBM) & ~0x400n),
    )
    expect(b.ats(VA, { noWrite: true })).toBe('r-- 0x500000/12')
    expect(b.load(leaf)).toBe(0x50_0000n | RO | DBM)
    expect(b.ats(VA)).toBe('rw- 0x500000/12')
    expect(b.load(leaf)).toBe(0x50_0000n | RW | DBM)
  })

  it('13.6.4: S1DSS 1 skips stage 1: identity without stage 2, stage 2 alone with it', () => {
    const b = new Bench().start()
    b.substreams(2, { dss: 1, eats: 1 })
    expect(b.ats(VA)).toBe('rw- 0x5000/30')
    const n = split(1, { cdmax: 2, dss: 1 })
    expect(n.b.ats(0x4000_0000n)).toBe('rw- 0x600000/12')
    expect(n.b.ats(VA + 0x7000_0000n)).toBe('none')
  })

  it('nested: the smaller of both pages, and what both permit', () => {
    const { b, first } = split(1)
    expect(b.ats(VA)).toBe('rw- 0x600000/12')
    b.map(first, 0x4000_0000n, 0x20_0000n | (RO & ~2n), { leafLevel: 2 })
    expect(b.ats(0x4000_0000n)).toBe('r-- 0x200000/21')
  })
})

describe('3.9.1.3: translated requests', () => {
  // biome-ignore format: table
  it.each<[string, boolean, (b: Bench) => void, number | string, number[]]>([
    ['unchecked: passes whatever the STE says',   false, b => void b.ste({ config: 0 }), 0x70_0000, []],
    ['EATS full',                                 true, b => void b.stage1({}, { eats: 1 }), 0x70_0000, []],
    ['EATS none: forbidden',                      true, b => void b.stage1(), 'F_TRANSL_FORBIDDEN', [7]],
    ['a bypassing stream: forbidden',             true, b => void b.ste({ config: 4, eats: 1 }), 'F_TRANSL_FORBIDDEN', [7]],
    ['an aborting stream: aborted',               true, b => void b.ste({ config: 0 }), 'status 1', []],
    ['C_BAD_STE: aborted, not recorded',          true, b => void b.ste({ config: 5, v: 0 }), 'C_BAD_STE', []],
  ])('%s', (_, checked, setUp, expected, recorded) => {
    const b = new Bench().start({ enable: checked ? CHECKED : CHECKED & ~CR0.ATSCHK })
    setUp(b)
    expect(b.dma(0x70_0000n, { at: 2, write: true })).toBe(expected)
    expect(b.pending().map(e => e.type)).toEqual(recorded)
    if (recorded.length) expect(b.pending()).toMatchObject([{ sid: SID, rnw: 0, addr: 0x70_0000n, ssv: 0 }])
  })

  it('REC_CFG_ATS records configuration errors, RECINVSID or not', () => {
    const b = new Bench().start({ enable: CHECKED, cr2: 8 })
    b.dma(0x70_0000n, { at: 2 })
    b.dma(0x70_0000n, { at: 2, requester: 0x4000 })
    expect(b.pending().map(e => e.type)).toEqual([4, 2])
  })

  it('SMMUEN clear, or a unit without ATS: forbidden', () => {
    const off = new Bench().start({ enable: CR0.EVENTQEN })
    expect(off.dma(0x70_0000n, { at: 2 })).toBe('F_TRANSL_FORBIDDEN')
    const without = new Bench({ config: { ats: false } }).start()
    without.stage1({}, { eats: 1 })
    expect(without.dma(0x70_0000n, { at: 2 })).toBe('F_TRANSL_FORBIDDEN')
    expect(without.ats(VA)).toBe('UR F_BAD_ATS_TREQ')
  })

  it('an address beyond the output size is aborted', () => {
    const b = new Bench().start({ enable: CHECKED & ~CR0.ATSCHK })
    expect(b.dma(1n << 48n, { at: 2 })).toBe('status 1')
  })

  it('an untranslated answer in front of the TLB does not serve a translated request', () => {
    const b = new Bench().start({ enable: CHECKED })
    b.map(b.stage1(), VA, 0x50_0000n | RW)
    expect(b.dma(VA)).toBe(0x50_0000)
    expect(b.dma(VA, { at: 2 })).toBe('F_TRANSL_FORBIDDEN')
  })
})

describe('13.6.3: split-stage ATS', () => {
  it('answers with the intermediate address, and translates it when it comes back', () => {
    const { b } = split(2)
    expect(b.ats(VA)).toBe('rw- 0x40000000/12')
    expect(b.dma(0x4000_0000n, { at: 2, write: true })).toBe(0x60_0000)
    expect(b.dma(VA), 'untranslated requests pass both stages').toBe(0x60_0000)
  })

  it('refuses what stage 2 does not permit, with an event', () => {
    const { b, second } = split(2)
    b.map(second, 0x4000_0000n, 0x60_0000n | RO2)
    expect(b.ats(VA)).toBe('r-- 0x40000000/12')
    expect(b.dma(0x4000_0000n, { at: 2 })).toBe(0x60_0000)
    expect(b.dma(0x4000_0000n, { at: 2, write: true })).toBe('F_PERMISSION')
    expect(b.dma(0x5000_0000n, { at: 2 })).toBe('F_TRANSLATION')
    expect(b.dma(1n << 48n, { at: 2 })).toBe('F_ADDR_SIZE')
    expect(b.pending()).toMatchObject([
      { type: 0x13, s2: 1, cls: 2, ipa: 0x4000_0000n },
      { type: 0x10, s2: 1, cls: 2, ipa: 0x5000_0000n },
      { type: 0x11, s2: 0, cls: 2 },
    ])
  })

  it('is no ATS at all without ATSCHK', () => {
    const { b } = split(2)
    b.w32(REG.CR0, CHECKED & ~CR0.ATSCHK)
    expect(b.ats(VA)).toBe('UR F_BAD_ATS_TREQ')
  })

  it('13.6.5: with stage 1 skipped answers the address itself, with the permissions of stage 2', () => {
    const { b, second } = split(2, { cdmax: 2, dss: 1 })
    b.map(second, 0x4000_0000n, 0x60_0000n | RO2)
    expect(b.ats(0x4000_0000n)).toBe('r-- 0x40000000/12')
  })
})
