import { describe, expect, it } from 'vitest'
import { BDF, Bench, FULL, P, R2, REG, RW, US, W2, XD } from './bench.js'

const VA = 0x4000_5000n
const A = 0x50_0000n

function scalable(low?: bigint, rid?: bigint) {
  const b = new Bench()
  const tables = b.scalable(BDF, low, rid)
  b.enable()
  return { b, ...tables }
}
function first(leaf: bigint | undefined, flags = 0n) {
  const s = scalable()
  const fs = s.b.alloc()
  const at = leaf === undefined ? 0 : s.b.map(fs, VA, leaf)
  s.b.firstStage(s.directory, 5, fs, 1, flags)
  return { ...s, fs, leaf: at }
}

describe('VT-d translation requests', () => {
  it('are refused without record while translation is off', () => {
    const b = new Bench()
    expect(b.ats(VA)).toBe('UR')
    expect(b.r32(REG.FSTS)).toBe(0)
  })

  // biome-ignore format: table
  it.each([
    ['a writable page', A | FULL, {}, 'rw- 0x500000/12'],
    ['a read-only page', A | P | US, {}, 'r-- 0x500000/12'],
    ['No Write', A | FULL, { noWrite: true }, 'r-- 0x500000/12'],
    ['a page that is not there', 0n, {}, 'none'],
    ["a supervisor's page", A | P | RW, {}, 'none'],
    ['reserved bits', A | FULL | (1n << 49n), {}, 'none'],
    ['privileged without SRE', A | FULL, { privileged: true }, 'none'],
    ['execute without ERE', A | FULL, { execute: true }, 'none'],
  ] as const)('first stage: %s', (_what, leaf, dma, answer) => {
    const { b } = first(leaf)
    expect(b.ats(VA, { pasid: 5, ...dma })).toBe(answer)
    expect(b.r32(REG.FSTS), 'recoverable: not recorded').toBe(0)
  })

  it('sets the dirty flag for a device that may write, and only then', () => {
    const { b, leaf } = first(A | FULL)
    b.ats(VA, { pasid: 5, noWrite: true })
    expect(b.load(leaf) & 0x60n).toBe(0x20n)
    b.ats(VA, { pasid: 5 })
    expect(b.load(leaf) & 0x60n).toBe(0x60n)
  })

  it('grants execute when asked, allowed and ERE', () => {
    const { b, leaf } = first(A | FULL, 0x22n)
    expect(b.ats(VA, { pasid: 5, execute: true })).toBe('rwx 0x500000/12')
    b.store(leaf, A | FULL | XD)
    expect(b.ats(VA, { pasid: 5, execute: true })).toBe('rw- 0x500000/12')
    expect(b.ats(VA, { pasid: 5 }), 'not asked').toBe('rw- 0x500000/12')
  })

  it('tells the size of the page: the smaller of two stages', () => {
    const { b, directory } = scalable()
    const fs = b.alloc()
    const ss = b.alloc()
    for (let gpa = 0; gpa < 0x100_0000; gpa += 0x20_0000)
      b.map2(ss, BigInt(gpa), BigInt(gpa) | 0x83n, { leafLevel: 2 })
    b.map(fs, VA, A | FULL)
    b.map(fs, 0x4020_0000n, 0x40_0000n | FULL | 0x80n, { leafLevel: 2 })
    b.nested(directory, 5, fs, ss)
    expect(b.ats(VA, { pasid: 5 })).toBe('rw- 0x500000/12')
    expect(b.ats(0x4021_0000n, { pasid: 5 })).toBe('rw- 0x410000/21')
  })

  it('passes through', () => {
    const { b, directory } = scalable()
    b.pasidEntry(directory, 5, [0x101n, 1n, 0n])
    expect(b.ats(0x12_3000n, { pasid: 5 })).toBe('rw- 0x123000/20')
    expect(b.ats(1n << 48n, { pasid: 5 }), 'SGN.4.2').toBe('none')
  })

  it('second-stage permissions are those of the entries', () => {
    const { b, directory } = scalable()
    const ss = b.alloc()
    b.map2(ss, VA, A | W2)
    b.map2(ss, VA + 4096n, A | R2)
    b.secondStage(directory, 5, ss)
    expect(b.ats(VA, { pasid: 5 })).toBe('-w- 0x500000/12')
    expect(b.ats(VA + 4096n, { pasid: 5 })).toBe('r-- 0x500000/12')
    expect(b.ats(VA + 8192n, { pasid: 5 }), 'SSS.2').toBe('none')
  })

  // biome-ignore format: table
  it.each([
    ['DTE clear (SCT.5)', 'UR deviceTlbDisabled', () => scalable(0b01000n).b],
    ['PASID directory entry not present (SPD.2)', 'none', () => scalable().b],
    ['PASID entry not present (SPT.2)', 'none', () => { const s = scalable(); s.b.pasidEntry(s.directory, 5, [0n]); return s.b }],
    ['PASID entry invalid (SPT.4)', 'CA pasidEntryInvalid', () => { const s = scalable(); s.b.pasidEntry(s.directory, 5, [1n]); return s.b }],
    ['context entry not present (SCT.2)', 'UR smContextNotPresent', () => { const s = scalable(); s.b.store(s.context, 0n); return s.b }],
    ['context entry reserved (SCT.3)', 'CA smContextReserved', () => scalable(0x3cn).b],
    ['second-stage entry reserved (SSS.3)', 'CA ssEntryReserved', () => { const s = scalable(); const ss = s.b.alloc(); s.b.map2(ss, VA, A | 3n | (1n << 49n)); s.b.secondStage(s.directory, 5, ss); return s.b }],
    ['output in the interrupt range (SGN.8.2)', 'CA smOutputIsInterruptRange', () => first(0xfee0_0000n | FULL).b],
    ['legacy mode with PASID (RTA.2)', 'UR legacyModeWithPasid', () => { const b = new Bench(); b.legacy(b.alloc(), { tt: 1n }); b.enable(); return b }],
  ] as const)('%s: %s', (_what, answer, arrange) => {
    const b = arrange()
    expect(b.ats(VA, { pasid: 5 })).toBe(answer)
    expect(b.r32(REG.FSTS)).toBe(answer === 'none' ? 0 : 2)
  })

  it.each([
    [0n, 'UR translationTypeBlocked'],
    [1n, 'rw- 0x500000/12'],
    [2n, 'UR translationTypeBlocked'],
  ])('legacy mode, TT %i: %s', (tt, answer) => {
    const b = new Bench()
    const table = b.alloc()
    b.map2(table, VA, A | 3n)
    b.legacy(table, { tt })
    b.enable()
    expect(b.ats(VA)).toBe(answer)
  })

  it('the interrupt range is to be written untranslated (S.1, S.2)', () => {
    const { b } = scalable()
    expect(b.ats(0xfee0_1000n)).toBe('-w- 0xfee01000/12')
    expect(b.answer.untranslatedOnly).toBe(true)
    expect(b.ats(0xfee0_1000n, { noWrite: true })).toBe('none')
  })

  it('RID_PASID and RID_PRIV govern requests without PASID', () => {
    const { b, directory } = scalable(undefined, 5n | (1n << 20n))
    const fs = b.alloc()
    b.map(fs, VA, A | P | RW)
    b.firstStage(directory, 5, fs, 1, 1n)
    expect(b.ats(VA)).toBe('rw- 0x500000/12')
    expect(b.answer.privileged, 'no PASID: no Priv').toBe(false)
    expect(b.dma(VA)).toBe(0x50_0000)
  })
})

describe('VT-d translated requests', () => {
  it('pass where the device may have a TLB', () => {
    const { b } = scalable()
    expect(b.dma(0x12_3456n, { at: 2 })).toBe(0x12_3456)
    const l = new Bench()
    l.legacy(l.alloc(), { tt: 1n })
    l.enable()
    expect(l.dma(0x12_3456n, { at: 2 })).toBe(0x12_3456)
  })

  it.each([0n, 2n])('are refused with TT %i', tt => {
    const b = new Bench()
    b.legacy(b.alloc(), { tt })
    b.enable()
    expect(b.dma(0x1000n, { at: 2 })).toBe('translationTypeBlocked')
    expect(b.record(0)).toMatchObject({ at: 2 })
  })

  it('are refused while translation is off', () => {
    expect(new Bench().dma(0x1000n, { at: 2 })).toBe('status 1')
  })
})
