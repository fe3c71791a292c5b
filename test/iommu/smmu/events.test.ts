// Every event that can arise, provoked, and its record word for word: IHI 0070 7.3, a row a type.
import { describe, expect, it } from 'vitest'
import { EVENTS, type EventName } from '../../../src/iommu/smmu/events.js'
import { Bench, CR0, type EventRecord, REG, RO, RW, SID } from './bench.js'

const VA = 0x4000_5678n
const PAGE = 0x50_0000n
const NOWHERE = 0x7000_0000n
const ALL = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN | CR0.ATSCHK

/** The fields of a record that are not zero, besides its type and stream. */
type Said = Partial<EventRecord>
type Row = readonly [
  name: EventName,
  type: number,
  section: string,
  what: string,
  provoke: (b: Bench) => unknown,
  said: Said,
]

const substreams = (b: Bench) => {
  const table = b.substreams(6)
  b.cd({ ttb0: b.alloc() }, table + 5 * 64)
  return table
}
/** Nested, with a page that stage 2 does not have. */
const behindStage2 = (b: Bench, leaf: bigint) => {
  const { first } = b.nested()
  b.map(first, VA, leaf)
}
const noStreams = (b: Bench, at: bigint) => {
  b.w32(REG.CR0, 0)
  b.w64(REG.STRTAB_BASE, at)
  b.w32(REG.CR0, ALL)
}

// biome-ignore format: table
const rows: readonly Row[] = [
  ['C_BAD_STREAMID',     0x02, '7.3.3',  'a stream beyond the table',         b => b.dma(VA, { requester: 0x0300 }),                                                      { sid: 0x300 }],
  ['C_BAD_STREAMID',     0x02, '7.3.3',  'the same under a substream',        b => b.dma(VA, { requester: 0x0300, pasid: 5 }),                                            { sid: 0x300, ssv: 1, ssid: 5 }],
  ['F_STE_FETCH',        0x03, '7.3.4',  'no memory at the STE',              b => { noStreams(b, NOWHERE); b.dma(VA) },                                                  { ipa: NOWHERE + 0x4000n }],
  ['C_BAD_STE',          0x04, '7.3.5',  'V clear',                           b => b.dma(VA),                                                                             {}],
  ['F_BAD_ATS_TREQ',     0x05, '7.3.6',  'a translation request, EATS 0',     b => { b.stage1(); b.ats(VA) },                                                             { addr: VA & ~0xfffn }],
  ['F_STREAM_DISABLED',  0x06, '7.3.7',  'no substream, S1DSS 0',             b => { substreams(b); b.dma(VA) },                                                          {}],
  ['F_TRANSL_FORBIDDEN', 0x07, '7.3.8',  'a translated write, EATS 0',        b => { b.stage1(); b.dma(VA, { at: 2, write: true }) },                                     { addr: VA }],
  ['F_TRANSL_FORBIDDEN', 0x07, '7.3.8',  'a translated read',                 b => { b.stage1(); b.dma(VA, { at: 2 }) },                                                  { addr: VA, rnw: 1 }],
  ['C_BAD_SUBSTREAMID',  0x08, '7.3.9',  'a substream beyond the CD table',   b => { substreams(b); b.dma(VA, { pasid: 0x40 }) },                                         { ssid: 0x40 }],
  ['F_CD_FETCH',         0x09, '7.3.10', 'no memory at the CD',               b => { b.ste({ config: 5, ctx: Number(NOWHERE), cdmax: 6 }); b.dma(VA, { pasid: 5 }) },     { ssv: 1, ssid: 5, ipa: NOWHERE + 0x140n }],
  ['C_BAD_CD',           0x0a, '7.3.11', 'V clear',                           b => { substreams(b); b.dma(VA, { pasid: 6 }) },                                            { ssv: 1, ssid: 6 }],
  ['F_WALK_EABT',        0x0b, '7.3.12', 'no memory at a table',              b => { const r = b.stage1(); b.store(r, NOWHERE | 3n); b.dma(VA) },                         { cls: 1, rnw: 1, addr: VA, ipa: NOWHERE + 8n }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'no entry, a read',                  b => { b.stage1(); b.dma(VA) },                                                             { cls: 2, rnw: 1, addr: VA }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'no entry, a privileged fetch',      b => { substreams(b); b.dma(VA, { pasid: 5, execute: true, privileged: true }) },           { ssv: 1, ssid: 5, cls: 2, rnw: 1, ind: 1, pnu: 1, addr: VA }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'stage 2 has no page, a write',      b => { behindStage2(b, NOWHERE | RW); b.dma(VA, { write: true }) },                         { s2: 1, cls: 2, addr: VA, ipa: NOWHERE }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'stage 2 has no table of stage 1',   b => { b.nested({ ttb0: Number(NOWHERE) }); b.dma(VA) },                                    { s2: 1, cls: 1, rnw: 1, addr: VA, ipa: NOWHERE }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'stage 2 has no CD',                 b => { b.nested({}, { ctx: Number(NOWHERE) }); b.dma(VA) },                                 { s2: 1, cls: 0, rnw: 1, addr: VA, ipa: NOWHERE }],
  ['F_TRANSLATION',      0x10, '7.3.13', 'a stall',                           b => { b.stage1({ s: 1 }); b.dma(VA) },                                                     { cls: 2, rnw: 1, addr: VA, stall: 1 }],
  ['F_ADDR_SIZE',        0x11, '7.3.14', 'a page beyond IPS',                 b => { const r = b.stage1({ ips: 0 }); b.map(r, VA, (1n << 40n) | RW); b.dma(VA) },         { cls: 2, rnw: 1, addr: VA }],
  ['F_ACCESS',           0x12, '7.3.15', 'AF clear',                          b => { const r = b.stage1(); b.map(r, VA, PAGE | (RW & ~0x400n)); b.dma(VA) },              { cls: 2, rnw: 1, addr: VA }],
  ['F_PERMISSION',       0x13, '7.3.16', 'a write to a read-only page',       b => { const r = b.stage1(); b.map(r, VA, PAGE | RO); b.dma(VA, { write: true }) },         { cls: 2, addr: VA }],
]

describe('event records', () => {
  it.each(rows)('%s is type %i (%s): %s', (name, type, _section, _what, provoke, said) => {
    const b = new Bench({ ramBytes: 8 << 20 }).start({ enable: ALL })
    provoke(b)
    const [record, ...more] = b.pending()
    expect(more).toEqual([])
    expect(b.unit.lastFault?.name).toBe(name)
    const { stag: _, ...fields } = record!
    const nothing = { ssv: 0, ssid: 0, stall: 0, pnu: 0, ind: 0, rnw: 0, s2: 0, cls: 0 }
    const shape = EVENTS[name].shape
    // Which bits F_BAD_ATS_TREQ has there is its own (ats.test.ts).
    const own = shape === 'request' ? { rnw: 1, s2: fields.s2, cls: fields.cls } : {}
    expect(fields).toEqual({ type, sid: SID, addr: 0n, ipa: 0n, ...nothing, ...own, ...said })
  })

  it('there is a row for every event', () => {
    expect([...new Set(rows.map(([name]) => name))]).toEqual(Object.keys(EVENTS))
    for (const [name, type, section] of rows)
      expect([EVENTS[name].code, EVENTS[name].section]).toEqual([type, section])
  })
})
