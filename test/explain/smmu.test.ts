// Explanations of SMMUv3 events, against what a unit recorded. Golden texts: `npx vitest run test/explain -u`.
import { describe, expect, it } from 'vitest'
import {
  type ExplainedNode,
  explain,
  explainSmmuEvent,
  explainSmmuRecord,
  explanation,
  explanationText,
} from '../../src/explain/index.js'
import { EVENTS, type EventName } from '../../src/iommu/smmu/events.js'
import { Bench, CR0, REG, RW, SID } from '../iommu/smmu/bench.js'

const VA = 0x4000_5000n
const PAGE = 0x50_0000n
const NOWHERE = 0x7000_0000
const ENABLE = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN | CR0.ATSCHK

type Story = readonly [event: EventName, what: string, refused: string, story: (b: Bench) => void]

// biome-ignore format: table
const stories: readonly Story[] = [
  ['C_BAD_STE',          'never written',               'V (bit 0) is 0',                           b => { b.dma(VA) }],
  ['C_BAD_STE',          'illegal',                     'a field has a value that is illegal here (5.2.2, 5.4.2), or that the unit does not support', b => { b.stage2({ tg: 3 }); b.dma(VA) }],
  ['C_BAD_CD',           'never written',               'V (bit 31) is 0',                          b => { b.stage1({ v: 0 }); b.dma(VA) }],
  ['C_BAD_SUBSTREAMID',  'beyond the CD table',         'Config (bits 3:1) is S1, S1CDMax (bits 63:59) is 0x0', b => { b.stage1(); b.dma(VA, { pasid: 5 }) }],
  ['F_STREAM_DISABLED',  'without a SubstreamID',       'S1DSS (bits 65:64) is terminate',          b => { b.substreams(6); b.dma(VA) }],
  ['F_CD_FETCH',         'CD outside memory',           'there is no memory at this address',       b => { b.ste({ config: 5, ctx: NOWHERE }); b.dma(VA) }],
  ['F_STE_FETCH',        'table outside memory',        'there is no memory at this address',       b => { b.w32(REG.CR0, 0); b.w64(REG.STRTAB_BASE, NOWHERE); b.w32(REG.CR0, ENABLE); b.dma(VA) }],
  ['F_TRANSL_FORBIDDEN', 'translated',                  'EATS (bits 93:92) is none',                b => { b.stage1(); b.dma(VA, { at: 2 }) }],
  ['F_TRANSLATION',      'nothing mapped',              'valid (bit 0) is 0',                       b => { b.stage1(); b.dma(VA, { write: true }) }],
  ['F_TRANSLATION',      'outside the range',           'the address is wider than the tables translate', b => { b.stage1({ t0sz: 32 }); b.dma(1n << 40n) }],
  ['F_TRANSLATION',      'IPA not mapped',              'valid (bit 0) is 0',                       b => { const n = b.nested(); b.map(n.first, VA, 0x7000_0000n | RW); b.dma(VA) }],
  ['F_ADDR_SIZE',        'page beyond IPS',             'bit 40 lead beyond the output size',       b => { const r = b.stage1({ ips: 0 }); b.map(r, VA, (1n << 40n) | RW); b.dma(VA) }],
  ['F_ACCESS',           'AF clear',                    'AF (bit 10) is 0, and the walker does not set it', b => { const r = b.stage1(); b.map(r, VA, PAGE | (RW & ~0x400n)); b.dma(VA) }],
  ['F_PERMISSION',       'read-only page',              'AP2 (bit 7), or APTable of a table above, makes it read-only', b => { const r = b.stage1(); b.map(r, VA, PAGE | RW | 0x80n); b.dma(VA, { write: true }) }],
  ['F_WALK_EABT',        'table outside memory',        'there is no memory at this address',       b => { const r = b.stage1(); b.store(r, BigInt(NOWHERE) | 3n); b.dma(VA) }],
]

const refusals = (nodes: readonly ExplainedNode[]): string[] =>
  nodes.flatMap(n => [
    ...(n.refused === undefined ? [] : [n.refused]),
    ...refusals(n.children ?? []),
  ])

const raise = (story: (b: Bench) => void): Bench => {
  const b = new Bench({ ramBytes: 8 << 20 }).start({ enable: ENABLE })
  story(b)
  return b
}

describe('SMMUv3 events explained', () => {
  it.each(stories)('%s (%s): %s', (name, _what, refused, story) => {
    const fault = raise(story).unit.lastFault!
    expect(fault.name).toBe(name)
    expect(refusals(explanation(fault).tree)).toEqual([refused])
  })

  it('reads well', async () => {
    const texts = stories.map(([, , , story]) => explain(raise(story).unit.lastFault!))
    await expect(`${texts.join(`\n\n${'='.repeat(100)}\n\n`)}\n`).toMatchFileSnapshot(
      '../golden/explain/smmu.txt',
    )
  })

  it('every event explains itself without a fault', async () => {
    const texts = Object.keys(EVENTS).map(n => explanationText(explainSmmuEvent(n as EventName)))
    await expect(`${texts.join('\n\n')}\n`).toMatchFileSnapshot('../golden/explain/smmu-events.txt')
  })

  it('decodes the record that the unit wrote', () => {
    const b = raise(s => {
      s.stage1()
      s.dma(VA, { write: true })
    })
    const words = [0, 8, 16, 24].map(i => b.load(b.events + i))
    const e = explainSmmuRecord(words)
    expect(e.title).toMatch(/^SMMUv3 event 0x10 F_TRANSLATION/)
    expect(e.request).toEqual([
      ['stream', `0x${SID.toString(16)}`],
      ['address', '0x40005000'],
      ['access', 'write'],
    ])
  })

  it.each([
    ['of the wrong length', [0n], /four 64-bit words/],
    ['with an unknown number', [0xeen, 0n, 0n, 0n], /event 0xee/],
  ])('refuses a record %s', (_, words, message) => {
    expect(() => explainSmmuRecord(words)).toThrow(message)
  })
})
