import { describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import type { PciFunction } from '../../src/pci/function.js'
import { connect, type Host, host, peek, poke, TableTranslator } from './host.js'

const { SRC, DST, LEN, PASID, CTRL, STATUS } = dmaCopy.bar0
const text = 'passthrough'

function ready() {
  const h = host(dmaCopy)
  const fn = h.functions[0]!
  fn.config.write(4, 2, 6)
  h.ram.set(new TextEncoder().encode(text), 0x1000)
  const start = (src: bigint, dst: bigint, length: number) => {
    poke(h, fn, SRC.offset, src, 8)
    poke(h, fn, DST.offset, dst, 8)
    poke(h, fn, LEN.offset, BigInt(length))
    poke(h, fn, CTRL.offset, 1n)
  }
  const at = (address: number) =>
    new TextDecoder().decode(h.ram.subarray(address, address + text.length))
  return { h, fn, start, at }
}

describe('dma-copy', () => {
  it('copies memory, sets DONE and raises its vector', () => {
    const { h, fn, start, at } = ready()
    let interrupts = 0
    connect(h, fn, 0, () => interrupts++)
    start(0x1000n, 0x2000n, text.length)
    expect(at(0x2000)).not.toBe(text)
    h.clock.settle()
    expect(at(0x2000)).toBe(text)
    expect(peek(h, fn, STATUS.offset)).toBe(1n)
    expect(interrupts).toBe(1)
  })

  it('reports FAULT and writes nothing when the translator refuses the source', () => {
    const { h, fn, start, at } = ready()
    h.complex.translator = new TableTranslator()
    start(0x1000n, 0x2000n, text.length)
    h.clock.settle()
    expect(peek(h, fn, STATUS.offset)).toBe(3n)
    expect(at(0x2000)).toBe('\0'.repeat(text.length))
    poke(h, fn, STATUS.offset, 2n)
    expect(peek(h, fn, STATUS.offset)).toBe(1n)
  })

  it('uses the PASID it was given, and faults while the PASID capability is disabled', () => {
    const { h, fn, start, at } = ready()
    const t = new TableTranslator()
    h.complex.translator = t
    t.map(5, 0x7000, { output: 0x1000 })
    t.map(5, 0x8000, { output: 0x3000 })
    poke(h, fn, PASID.offset, 0x8000_0005n)
    start(0x7000n, 0x8000n, text.length)
    h.clock.settle()
    expect(peek(h, fn, STATUS.offset)).toBe(3n)
    expect(t.asked).toEqual([])

    fn.config.write(fn.capabilityOffset(0x1b, true)! + 6, 2, 1)
    start(0x7000n, 0x8000n, text.length)
    h.clock.settle()
    expect(at(0x3000)).toBe(text)
  })

  it.each([
    ['function-level reset', (_h: Host, fn: PciFunction) => fn.config.write(0x48, 2, 0x8000)],
    ['hot reset of the link', (h: Host) => h.ports[0]!.config.write(0x3e, 2, 0x40)],
    ['reset by VFIO', (_h: Host, fn: PciFunction) => fn.reset()],
  ])('never ends a copy that a %s interrupted, whatever is enabled afterwards', (_name, reset) => {
    const { h, fn, start, at } = ready()
    start(0x1000n, 0x2000n, text.length)
    reset(h, fn)
    expect(fn.bars[0]!.enabled).toBe(false)
    expect(h.clock.pending).toBe(0)
    h.scan()
    fn.config.write(4, 2, 6)
    h.clock.settle()
    expect(at(0x2000)).toBe('\0'.repeat(text.length))
    expect(peek(h, fn, STATUS.offset)).toBe(0n)
  })
})
