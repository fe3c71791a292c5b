// Explanations of VT-d faults. The texts are golden: update with `npx vitest run test/explain -u`, and read the diff.
import { describe, expect, it } from 'vitest'
import {
  type ExplainedNode,
  explain,
  explainVtdReason,
  explainVtdRecord,
  explanation,
  explanationText,
} from '../../src/explain/index.js'
import { FAULT_REASONS, type FaultName } from '../../src/iommu/vtd/fault-reasons.js'
import type { VtdFault } from '../../src/iommu/vtd/faults.js'
import { SM_CONTEXT_ENTRY } from '../../src/iommu/vtd/tables.js'
import { BDF, Bench, FULL, GCMD, REG } from '../iommu/vtd/bench.js'
import { first, LEAF, read, rows, scalable, VA } from '../iommu/vtd/fault-stories.js'

const faults = new Map<(typeof rows)[number], VtdFault>()

function faultOf(row: (typeof rows)[number]): VtdFault {
  const [, , , story, options] = row
  let fault = faults.get(row)
  if (!fault) {
    const b = new Bench({ ramBytes: 6 << 20, ...options })
    story(b)
    fault = b.unit.lastFault!
    faults.set(row, fault)
  }
  return fault
}

const refusals = (nodes: readonly ExplainedNode[]): string[] =>
  nodes.flatMap(n => [
    ...(n.refused === undefined ? [] : [n.refused]),
    ...refusals(n.children ?? []),
  ])

const stories = rows.map(row => ({ name: row[0], section: row[2], row }))

describe('VT-d faults explained', () => {
  it.each(stories)('$name ($section) names the one thing that refused it', ({ row }) => {
    const e = explanation(faultOf(row))
    expect(refusals(e.tree)).toHaveLength(1)
    expect(e.summary).toContain(refusals(e.tree)[0])
    for (const line of explanationText(e).split('\n')) expect(line.length).toBeLessThanOrEqual(110)
  })

  // biome-ignore format: table
  it.each<readonly [section: string, refused: string]>([
    ['LCT.4.1',                       'AW (bits 66:64) is 0 (reserved)'],
    ['LCT.4.2 without device TLBs',   'TT (bits 3:2) is deviceTlb, ECAP_REG.DT is 0'],
    ['LGN.2 nothing mapped',          'R and W (bits 1:0) are 0: not present'],
    ['SRT.2 upper',                   'UP (bit 64) is 0'],
    ['SCT.3 PRE without PRS',         'PRE (bit 4) is 1, but ECAP_REG.PRS is 0'],
    ['SCT.6',                         'PASIDE (bit 3) is 0'],
    ['SPT.2',                         'P (bit 0) is 0'],
    ['SPT.3',                         'bit 10 must be zero'],
    ['SPT.3 SSADE without SSADS',     'SSADE (bit 9) is 1, but ECAP_REG.SSADS is 0'],
    ['SPT.3 domain id too wide',      'a field is wider than the unit: its domain ids (CAP_REG.ND) or its host addresses'],
    ['SPT.4.2 nested without NEST',   'PGTT (bits 8:6) is nested, ECAP_REG.NEST is 0'],
    ['SFS.3',                         'bit 49 must be zero'],
    ['SGN.2',                         'US (bit 2) is 0: for supervisors only'],
    ['SGN.6 of the final page',       'W (bit 1) is 0: no writes'],
    ['SFS.10',                        'A (bit 5) is 0, and memory did not take the update'],
    ['SFS.10 of a write',             'D (bit 6) is 0, and memory did not take the update'],
    ['SSS.6',                         'A (bit 8) is 0, and memory did not take the update'],
    ['SFS.8',                         'SS-PTE at 0x10a818 of the second stage has W (bit 1) 0: they cannot be written'],
  ])('%s: %s', (section, refused) => {
    expect(refusals(explanation(faultOf(rows.find(r => r[2] === section)!)).tree)).toEqual([refused])
  })

  const families = [...new Set(rows.map(([name]) => familyOf(name)))]
  it.each(families)('reads well: %s', async family => {
    const texts = rows
      .filter(([name], i) => familyOf(name) === family && rows.findIndex(r => r[0] === name) === i)
      .map(row => explain(faultOf(row)))
    await expect(`${texts.join(`\n\n${'='.repeat(100)}\n\n`)}\n`).toMatchFileSnapshot(
      `../golden/explain/vtd-${family}.txt`,
    )
  })

  it('every reason explains itself without a fault', async () => {
    const texts = Object.keys(FAULT_REASONS).map(n =>
      explanationText(explainVtdReason(n as FaultName)),
    )
    await expect(`${texts.join('\n\n')}\n`).toMatchFileSnapshot('../golden/explain/vtd-reasons.txt')
  })

  it('reads the tables as they are when the fault is found, not when it is explained', () => {
    const b = new Bench()
    const fs = first(b, 0n)
    expect(read(b)).toBe('fsEntryNotPresent')
    const before = explain(b.unit.lastFault!)
    b.map(fs, VA, LEAF | FULL)
    expect(explain(b.unit.lastFault!)).toBe(before)
  })

  it('says that a cached entry refused what the tables allow by now', () => {
    const b = new Bench()
    const { directory, context } = scalable(b, 0b10100n)
    b.firstStage(directory, 5, b.alloc())
    expect(read(b)).toBe('pasidDisabled')
    b.store(context, b.load(context) | 8n)
    expect(read(b)).toBe('pasidDisabled')
    expect(explain(b.unit.lastFault!)).toContain('PASIDE (bit 3) is 1')
  })

  it('shows the interrupt remapping entry that a message met', () => {
    const b = new Bench()
    const table = b.alloc()
    b.w64(REG.IRTA, table | 7)
    b.command(GCMD.SIRTP)
    b.command(GCMD.IRE)
    b.unit.message(BDF, 0xfee0_0010 | (3 << 5), 0)
    const text = explain(b.unit.lastFault!)
    expect(text).toContain('sent an interrupt with index 0x3')
    expect(text).toMatch(/interrupt remapping table entry at 0x100030[\s\S]*✗ P \(bit 0\) is 0/)
  })

  it('still prints values of declared layouts, by the same name', () => {
    expect(explain(SM_CONTEXT_ENTRY.create({ P: true, PDTS: 3 }))).toMatch(
      /^VT-d scalable-mode context entry\n.*PDTS {2}0x3/,
    )
  })
})

describe('VT-d fault records explained', () => {
  it('decodes what the unit recorded, either half first', () => {
    const b = new Bench()
    scalable(b)
    b.dma(0x1234_5678_9abcn, { pasid: 5, write: true })
    const lo = b.r64(REG.FRCD)
    const hi = b.r64(REG.FRCD + 8)
    const text = explanationText(explainVtdRecord(lo, hi))
    expect(text).toContain('wanted to write at 0x123456789000 with PASID 5')
    expect(text).toContain('VT-d fault 51h (SPD.2)')
    expect(explanationText(explainVtdRecord(hi, lo))).toBe(text)
  })
  it.each([
    ['holds no fault', 0n, 0n, /holds no fault/],
    ['has an unknown reason', 0n, (1n << 63n) | (0xeen << 32n), /fault reason 0xee/],
  ])('refuses a record that %s', (_, lo, hi, message) => {
    expect(() => explainVtdRecord(lo, hi)).toThrow(message)
  })
})

/** Where a reason's condition belongs, in lower case. */
function familyOf(name: FaultName): string {
  const [place, number] = FAULT_REASONS[name].condition.split('.')
  return number === undefined ? 'interrupt' : place!.toLowerCase()
}
