import { describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { irqTest } from '../../src/pci/devices/irq-test.js'
import { connect, enableAll, host, peek, poke } from './host.js'

const { CTRL, LEVEL } = irqTest.bar0
const COMMAND = 4
const STATUS = 6
const INTERRUPT_STATUS = 8
const DISABLE = 0x400

function setup() {
  const h = host(irqTest)
  const fn = h.functions[0]!
  enableAll(fn)
  const levels: boolean[] = []
  fn.line!.connect(asserted => levels.push(asserted))
  const raise = () => poke(h, fn, CTRL.offset, 1n)
  const drop = () => poke(h, fn, LEVEL.offset, 1n)
  const status = () => fn.config.read(STATUS, 2) & INTERRUPT_STATUS
  return { h, fn, levels, raise, drop, status }
}

describe('the interrupt pin', () => {
  it.each([
    ['a device with a pin', irqTest, 1],
    ['a device without', dmaCopy, 0],
  ] as const)('of %s reads as such, and is read-only', (_, model, pin) => {
    const fn = host(model).functions[0]!
    fn.config.write(0x3d, 1, 4)
    expect(fn.config.read(0x3d, 1)).toBe(pin)
    expect(fn.line !== undefined).toBe(pin !== 0)
  })
  it('is a level: raised once, held, and dropped by the device', () => {
    const { levels, raise, drop, status } = setup()
    raise()
    raise()
    expect(levels).toEqual([true])
    expect(status()).toBe(INTERRUPT_STATUS)
    drop()
    expect(levels).toEqual([true, false])
    expect(status()).toBe(0)
  })
  it('does not reach the host while disabled, but still shows in Status', () => {
    const { fn, levels, raise, status } = setup()
    fn.config.write(COMMAND, 2, 6 | DISABLE)
    raise()
    expect(levels).toEqual([])
    expect(status()).toBe(INTERRUPT_STATUS)
    fn.config.write(COMMAND, 2, 6)
    fn.config.write(COMMAND, 2, 6 | DISABLE)
    expect(levels).toEqual([true, false])
  })
  it.each([0x05, 0x11])('gives way to messages of capability %i', id => {
    const { fn, levels, raise } = setup()
    raise()
    const control = fn.capabilityOffset(id, false)! + 2
    fn.config.write(control, 2, id === 5 ? 1 : 0x8000)
    fn.config.write(control, 2, 0)
    expect(levels).toEqual([true, false, true])
  })
  it('drops in D3 and returns in D0, unless the function was reset', () => {
    const { h, fn, levels, raise, status } = setup()
    raise()
    const power = fn.capabilityOffset(1, false)! + 4
    fn.config.write(power, 2, 3)
    expect(levels).toEqual([true, false])
    fn.reset()
    enableAll(fn)
    expect(levels).toEqual([true, false])
    expect(status()).toBe(0)
    expect(fn.config.read(0x3d, 1)).toBe(1)
    expect(peek(h, fn, LEVEL.offset)).toBe(0n)
  })
  it('tells a handler that comes late, and is saved and restored', () => {
    const { fn, levels, raise, drop } = setup()
    raise()
    const saved = fn.save()
    drop()
    fn.restore(saved)
    expect(levels).toEqual([true, false, true])
    const late: boolean[] = []
    fn.line!.connect(asserted => late.push(asserted))
    expect(late).toEqual([true])
  })
  it('does not move for messages', () => {
    const { h, fn, levels } = setup()
    let raised = 0
    connect(h, fn, 2, () => raised++)
    poke(h, fn, irqTest.bar0.MESSAGE.offset, 2n)
    expect([raised, levels]).toEqual([1, []])
  })
})
