// The generic timer by itself, on a clock that is moved by hand (DDI 0487 D12).
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../../src/base/clock.js'
import { CNT, GenericTimer } from '../../../src/cpu/a64/timer.js'

function timer() {
  const clock = new VirtualClock()
  const lines: string[] = []
  const unit = new GenericTimer({
    clock,
    now: () => clock.now,
    line: (intid, level) => lines.push(`${intid} ${level ? 'high' : 'low'} at ${clock.now}`),
  })
  const read = (name: keyof typeof CNT) => unit.registers.get(CNT[name])!.read!()
  const write = (name: keyof typeof CNT, value: bigint) =>
    unit.registers.get(CNT[name])!.write!(value)
  return { clock, unit, lines, read, write }
}

describe.each([
  ['virtual', 'V', 27],
  ['physical', 'P', 30],
] as const)('the %s timer', (_, which, intid) => {
  it('fires when the count reaches CVAL, and says so in ISTATUS', () => {
    const { clock, lines, read, write } = timer()
    write(`${which}_CVAL`, 500n)
    write(`${which}_CTL`, 1n)
    clock.advance(499)
    expect([read(`${which}_CTL`), lines]).toEqual([1n, []])
    clock.advance(1)
    expect([read(`${which}_CTL`), lines]).toEqual([5n, [`${intid} high at 500`]])
  })

  it('TVAL is the signed distance to CVAL', () => {
    const { clock, read, write } = timer()
    clock.advance(1000)
    write(`${which}_TVAL`, 0xffff_ff00n)
    expect([read(`${which}_CVAL`), read(`${which}_TVAL`)]).toEqual([744n, 0xffff_ff00n])
    write(`${which}_TVAL`, 16n)
    clock.advance(20)
    expect([read(`${which}_CVAL`), read(`${which}_TVAL`)]).toEqual([1016n, 0xffff_fffcn])
  })

  it('its output is a level: a mask, a later CVAL or disabling lowers it', () => {
    const { clock, lines, write } = timer()
    clock.advance(100)
    write(`${which}_CTL`, 1n)
    write(`${which}_CTL`, 3n)
    write(`${which}_CTL`, 1n)
    write(`${which}_CVAL`, 200n)
    clock.advance(100)
    write(`${which}_CTL`, 0n)
    expect(lines.map(l => l.split(' ').slice(1).join(' '))).toEqual([
      'high at 100',
      'low at 100',
      'high at 100',
      'low at 100',
      'high at 200',
      'low at 200',
    ])
  })

  it('a CVAL beyond all time waits for ever and keeps no clock busy', () => {
    const { clock, read, write } = timer()
    write(`${which}_CVAL`, (1n << 64n) - 1n)
    write(`${which}_CTL`, 1n)
    expect([clock.pending, read(`${which}_CTL`)]).toEqual([0, 1n])
  })
})

it('the counters go with the clock at CNTFRQ; an offset belongs to one of them', () => {
  const { clock, unit, read } = timer()
  clock.advance(1_000_000_000)
  expect(read('PCT')).toBe(read('FRQ'))
  unit.virtual.count = 5n
  clock.advance(10)
  expect([read('VCT'), read('PCT'), unit.virtual.offset]).toEqual([
    15n,
    1_000_000_010n,
    999_999_995n,
  ])
})

it('CNTFRQ_EL0 and the counters take no writes', () => {
  const { unit } = timer()
  for (const name of ['FRQ', 'PCT', 'VCT'] as const)
    expect(unit.registers.get(CNT[name])!.write).toBeUndefined()
})

it('a saved timer goes on where it was, on another clock', () => {
  const from = timer()
  from.clock.advance(1000)
  from.write('V_CVAL', 1600n)
  from.write('V_CTL', 1n)
  const to = timer()
  to.unit.restore(from.unit.save())
  to.clock.advance(599)
  expect(to.lines).toEqual([])
  to.clock.advance(1)
  expect([to.lines, to.read('VCT')]).toEqual([['27 high at 600'], 1600n])
})
