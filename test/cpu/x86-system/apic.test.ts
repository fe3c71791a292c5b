// The local APIC by itself: destinations, priorities, saved state.
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../../src/base/clock.js'
import { DELIVERY, type IpiCommand, LocalApic } from '../../../src/cpu/x86/apic.js'

function apic(id = 0) {
  const clock = new VirtualClock()
  const sent: IpiCommand[] = []
  let nmis = 0
  let priority = -1
  const unit = new LocalApic(id, {
    clock,
    now: () => clock.now,
    nmi: () => nmis++,
    taskPriority: tpr => {
      priority = tpr
    },
    send: command => sent.push(command),
  })
  const write = (offset: number, value: number) => unit.write(offset, 4, BigInt(value >>> 0))
  write(0xf0, 0x1ff)
  return { clock, unit, sent, write, nmis: () => nmis, priority: () => priority }
}

describe('destinations', () => {
  it.each([
    ['physical, its id', 3, false, true],
    ['physical, another id', 2, false, false],
    ['physical, broadcast', 0xff, false, true],
    ['logical flat, its bit among others', 0b1010, true, true],
    ['logical flat, other bits', 0b0101, true, false],
  ])('%s', (_, destination, logical, accepted) => {
    const { unit, write } = apic(3)
    write(0xd0, 0b1000 << 24)
    expect(unit.accepts(destination, logical)).toBe(accepted)
  })

  it.each([
    ['its cluster and bit', 0x24, true],
    ['its cluster, another bit', 0x28, false],
    ['another cluster', 0x34, false],
  ])('logical cluster: %s', (_, destination, accepted) => {
    const { unit, write } = apic()
    write(0xe0, 0x0fff_ffff)
    write(0xd0, 0x24 << 24)
    expect(unit.accepts(destination, true)).toBe(accepted)
  })
})

describe('priority', () => {
  it('the pending vector is the highest one above the processor priority', () => {
    const { unit } = apic()
    for (const vector of [0x31, 0x72, 0x45]) unit.deliver(vector, DELIVERY.FIXED)
    expect(unit.acknowledge()).toBe(0x72)
    expect([unit.processorPriority, unit.pending]).toEqual([0x70, -1])
    unit.write(0xb0, 4, 0n)
    expect(unit.acknowledge()).toBe(0x45)
    expect(unit.pending).toBe(-1)
  })

  it('a task priority above the vector in service is the processor priority', () => {
    const { unit, write, priority } = apic()
    unit.deliver(0x41, DELIVERY.FIXED)
    unit.acknowledge()
    write(0x80, 0x68)
    expect([unit.processorPriority, priority()]).toEqual([0x68, 0x68])
  })

  it('acknowledging with nothing pending changes nothing', () => {
    const { unit } = apic()
    expect(unit.acknowledge()).toBe(-1)
  })
})

describe('the ICR', () => {
  it.each([
    ['a destination', 0x4041, { shorthand: 0, destination: 9, logical: false, mode: 0 }],
    ['a logical destination', 0x4941, { shorthand: 0, destination: 9, logical: true, mode: 1 }],
    ['all', 0x8_4041, { shorthand: 2 }],
    ['all but itself', 0xc_4041, { shorthand: 3 }],
  ])('sends to %s', (_, low, command) => {
    const { sent, write } = apic()
    write(0x310, 9 << 24)
    write(0x300, low)
    expect(sent).toMatchObject([{ vector: 0x41, ...command }])
  })

  it('NMI to itself arrives', () => {
    const { write, nmis } = apic()
    write(0x300, 0x4_4400)
    expect(nmis()).toBe(1)
  })
})

describe('the timer', () => {
  it.each([
    [0b1011, 1],
    [0b0000, 2],
    [0b0011, 16],
    [0b1010, 128],
  ])('divide code %i makes a tick of %i ns', (code, ns) => {
    const { clock, unit, write } = apic()
    write(0x3e0, code)
    write(0x320, 0x40)
    write(0x380, 100)
    clock.advance(100 * ns - 1)
    expect([unit.pending, unit.read(0x390, 4)]).toEqual([-1, 1n])
    clock.advance(1)
    expect(unit.pending).toBe(0x40)
  })

  it('a masked timer counts without interrupting, and zero stops it', () => {
    const { clock, unit, write } = apic()
    write(0x380, 100)
    expect(clock.pending).toBe(1)
    write(0x380, 0)
    expect(clock.pending).toBe(0)
    write(0x380, 100)
    clock.settle()
    expect(unit.pending).toBe(-1)
  })

  it('goes on after its registers were saved and restored elsewhere', () => {
    const first = apic()
    first.write(0x3e0, 0b1011)
    first.write(0x320, 0x40)
    first.write(0x380, 1000)
    first.clock.advance(400)
    const second = apic()
    second.unit.restore(first.unit.save())
    second.clock.advance(599)
    expect(second.unit.pending).toBe(-1)
    second.clock.advance(1)
    expect(second.unit.pending).toBe(0x40)
  })

  it('one that has fired does not fire again when restored', () => {
    const first = apic()
    first.write(0x320, 0x40)
    first.write(0x380, 10)
    first.clock.settle()
    first.unit.acknowledge()
    const second = apic()
    second.unit.restore(first.unit.save())
    expect(second.clock.pending).toBe(0)
  })
})

it('disabling it by software masks every local entry', () => {
  const { unit, write } = apic()
  write(0x320, 0x40)
  write(0x350, 0x700)
  write(0xf0, 0xff)
  expect([unit.read(0x320, 4), unit.read(0x350, 4)]).toEqual([0x1_0040n, 0x1_0700n])
  write(0x320, 0x40)
  expect(unit.read(0x320, 4)).toBe(0x1_0040n)
  expect(unit.deliver(0x41, DELIVERY.FIXED)).toBe(false)
})
