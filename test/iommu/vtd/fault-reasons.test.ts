import { describe, expect, it } from 'vitest'
import { FAULT_REASONS, type FaultName, faultName } from '../../../src/iommu/vtd/fault-reasons.js'
import { BDF, Bench, FULL, REG } from './bench.js'
import { first, LEAF, NOWHERE, nested, read, rows, scalable } from './fault-stories.js'

describe('VT-d fault reasons', () => {
  it.each(
    rows.map(([name, code, section, story, options]) => ({ name, code, section, story, options })),
  )('$name is recorded as $code ($section)', ({ name, code, story, options }) => {
    const b = new Bench(options)
    expect(story(b)).toBe(name)
    expect(b.answer.status).toBe(1)
    expect(FAULT_REASONS[name].code).toBe(code)
    expect(b.record(0)).toMatchObject({ f: true, reason: code })
    expect(b.r32(REG.FSTS)).toBe(2)
    expect(b.unit.lastFault).toMatchObject({ name, code, record: 'recorded' })
  })

  it('every reason has a row, or a test of its own elsewhere', () => {
    const elsewhere: FaultName[] = [
      // page-requests.test.ts
      'legacyModePageRequest',
      'pageRequestDisabled',
      // remap.test.ts
      'interruptReserved',
      'interruptIndexTooLarge',
      'irteNotPresent',
      'irteUnreadable',
      'irteReserved',
      'compatibilityBlocked',
      'sourceIdRefused',
      // posting.test.ts
      'postedUnreadable',
      'postedReserved',
    ]
    const covered = new Set([...rows.map(([name]) => name), ...elsewhere])
    expect(Object.keys(FAULT_REASONS).filter(name => !covered.has(name as FaultName))).toEqual([])
  })

  it('numbers are unique and lead back to names', () => {
    for (const [name, r] of Object.entries(FAULT_REASONS)) expect(faultName(r.code)).toBe(name)
    expect(faultName(0xff)).toBeUndefined()
  })
})

describe('VT-d fault details', () => {
  it('keeps the entry a walk stopped at, its level and its raw value', () => {
    const b = new Bench()
    const fs = first(b, 0x50_0004n)
    expect(read(b)).toBe('fsEntryNotPresent')
    const [table, entry] = b.unit.lastFault!.entries
    expect(table).toMatchObject({ kind: 'pasid-table' })
    expect(table!.value & ~0xfffn).toBe(0n)
    const l3 = b.load(fs) & ~0xfffn
    const l2 = b.load(Number(l3) + 8) & ~0xfffn
    const l1 = b.load(Number(l2)) & ~0xfffn
    expect(entry).toEqual({
      kind: 'first-stage',
      at: Number(l1) + 5 * 8,
      value: 0x50_0004n,
      level: 1,
    })
  })

  it('tells the second stage entry that refused a first-stage table', () => {
    const b = new Bench()
    nested(b, LEAF | FULL, gpa => (gpa === Number(LEAF) ? 3n : 0n))
    expect(read(b)).toBe('ssEntryNotPresent')
    expect(b.unit.lastFault!.entries.at(-1)).toMatchObject({ kind: 'second-stage', value: 0n })
  })

  it.each([
    ['a PASID request', { pasid: 5, write: true }, { type: 0, pasid: 5, exe: false, priv: false }],
    ['a read', { pasid: 5 }, { type: 2, pasid: 5 }],
    [
      'an execute request',
      { pasid: 5, execute: true, privileged: true },
      { type: 2, exe: true, priv: true },
    ],
  ] as const)('%s is recorded with its attributes', (_what, dma, record) => {
    const b = new Bench()
    scalable(b)
    b.dma(0x1234_5678_9abcn, dma)
    expect(b.record(0)).toMatchObject({ sid: BDF, address: 0x1234_5678_9000n, at: 0, ...record })
  })

  it.each([
    [
      'context entry',
      (b: Bench) => {
        const t = scalable(b)
        b.store(t.context, b.load(t.context) | 2n)
      },
    ],
    [
      'context entry that is not present',
      (b: Bench) => {
        const t = scalable(b)
        b.store(t.context, 2n)
      },
    ],
    [
      'PASID directory entry',
      (b: Bench) => {
        const t = scalable(b)
        b.store(t.directory, 2n)
      },
    ],
    [
      'PASID table entry',
      (b: Bench) => {
        const t = scalable(b)
        b.pasidEntry(t.directory, 5, [2n])
      },
    ],
  ])('FPD of a %s keeps the record away, not the fault', (_what, arrange) => {
    const b = new Bench()
    arrange(b)
    expect(read(b)).not.toBeTypeOf('number')
    expect(b.r32(REG.FSTS)).toBe(0)
    expect(b.record(0).f).toBe(false)
    expect(b.unit.lastFault).toMatchObject({ record: 'suppressed' })
  })

  it('FPD does not suppress what is not qualified', () => {
    const b = new Bench()
    const t = scalable(b)
    b.store(t.context, NOWHERE | 0x1fn)
    expect(read(b)).toBe('pasidDirectoryUnreadable')
    expect(b.record(0).f).toBe(true)
  })
})
