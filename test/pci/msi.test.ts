import { describe, expect, it } from 'vitest'
import { bank, bits, r32 } from '../../src/base/fields.js'
import { decodeConfig } from '../../src/pci/config-image.js'
import { defineDevice, msi } from '../../src/pci/device-model.js'
import { freeVectors, HostInterrupts } from '../../src/pci/host-interrupts.js'
import { enableAll, host, poke } from './host.js'

const MESSAGES = 0xfee0_0000

const bell = (vectors: number, masking?: boolean) =>
  defineDevice({
    name: 'bell',
    identity: { vendorId: 1, deviceId: 2, classCode: 0x088000 },
    capabilities: [msi({ vectors, ...(masking === undefined ? {} : { masking }) })],
    bar0: bank('bell', { RING: r32(0, '1', { VECTOR: bits(7, 0, 'wo', 'the vector to raise') }) }),
    create: port => ({ onWrite: { RING: ({ VECTOR }) => port.interrupt(VECTOR) } }),
  })

/** Enabled for 2^`log` vectors with data 0x60. */
function setup(vectors: number, log: number, masking?: boolean) {
  const h = host(bell(vectors, masking))
  const fn = h.functions[0]!
  const sent: [number, number][] = []
  h.complex.messages = { message: (_, address, data) => sent.push([address - MESSAGES, data]) }
  enableAll(fn)
  const at = fn.capabilityOffset(5, false)!
  fn.config.write(at + 4, 4, MESSAGES + 0x1000)
  fn.config.write(at + 0xc, 2, 0x60)
  const control = (enable: number) => fn.config.write(at + 2, 2, (log << 4) | enable)
  control(1)
  return { h, fn, at, sent, control, ring: (v: number) => poke(h, fn, 0, BigInt(v)) }
}

describe('MSI', () => {
  it.each([
    [1, true, 0x0180],
    [8, true, 0x0186],
    [32, false, 0x008a],
  ] as const)(
    'of %d vectors, masking %s, shows Message Control %s',
    (vectors, masking, control) => {
      const fn = host(bell(vectors, masking)).functions[0]!
      const at = fn.capabilityOffset(5, false)!
      expect(fn.config.read(at + 2, 2)).toBe(control)
      fn.config.write(at + 2, 2, 0xffff)
      expect(fn.config.read(at + 2, 2)).toBe(control | 0x71)
      fn.reset()
      expect(fn.config.read(at + 2, 2)).toBe(control)
    },
  )
  it.each([0, 3, 33, 64])('cannot have %d vectors', vectors => {
    expect(() => host(bell(vectors))).toThrow(RangeError)
  })
  // biome-ignore format: table
  it.each([
    [8, 3, [0, 5, 7], [0x60, 0x65, 0x67]],
    [8, 1, [0, 5, 6], [0x60, 0x61, 0x60]],
    [8, 0, [0, 5, 7], [0x60, 0x60, 0x60]],
    [2, 5, [0, 1, 2], [0x60, 0x61]],
  ])('of %d vectors, 2^%d given, sends for %j the data %j', (vectors, log, rung, data) => {
    const { sent, ring } = setup(vectors, log)
    for (const v of rung) ring(v)
    expect(sent).toEqual(data.map(d => [0x1000, d]))
  })
  it('loses what is raised while disabled', () => {
    const { sent, control, ring } = setup(4, 2)
    control(0)
    ring(1)
    control(1)
    expect(sent).toEqual([])
  })
  it('keeps a masked vector pending and sends it once when the mask opens', () => {
    const { fn, at, sent, ring } = setup(4, 2)
    fn.config.write(at + 0x10, 4, 0b0110)
    for (const v of [0, 1, 1, 2]) ring(v)
    expect(sent).toEqual([[0x1000, 0x60]])
    expect(fn.config.read(at + 0x14, 4)).toBe(0b0110)
    fn.config.write(at + 0x10, 4, 0b0100)
    expect(sent.slice(1)).toEqual([[0x1000, 0x61]])
    expect(fn.config.read(at + 0x14, 4)).toBe(0b0100)
  })
  it('keeps what is pending over save and restore', () => {
    const { fn, at, sent, ring } = setup(1, 0)
    fn.config.write(at + 0x10, 4, 1)
    ring(0)
    const saved = fn.save()
    fn.reset()
    fn.restore(saved)
    fn.config.write(at + 0x10, 4, 0)
    expect(sent).toEqual([[0x1000, 0x60]])
  })
  it('is told of by the configuration decoder', () => {
    const { fn } = setup(8, 2)
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => fn.config.read(i, 1))
    const found = decodeConfig({ bdf: fn.bdf, bytes }).capabilities.find(c => c.id === 5)
    expect(found!.values).toMatchObject({ Enable: 1, Vectors: 8, Vectors_Enabled: 4, Masking: 1 })
  })
})

describe('vectors of the host', () => {
  it.each([2, 4, 8, 16, 32])('come in blocks of %d whose data share all but the low bits', n => {
    const interrupts = new HostInterrupts()
    const single = interrupts.allocate(() => {})
    const heard: number[] = []
    const { address, data, vector } = interrupts.allocate(i => heard.push(i), undefined, n)
    expect(data % n).toBe(0)
    for (let i = 0; i < n; i++) interrupts.message(0, address, data | i)
    expect(heard).toEqual(Array.from({ length: n }, (_, i) => i))
    expect(interrupts.used).toBe(n + 1)
    freeVectors(interrupts, vector, n)
    interrupts.free(single.vector)
    expect(interrupts.used).toBe(0)
    interrupts.message(0, address, data)
    expect(interrupts.spurious).toBe(1)
  })
  it('of a block never overlap those of another, and what a block skips is used', () => {
    const interrupts = new HostInterrupts()
    const held = new Set<number>()
    const take = (n: number) => {
      const { vector } = interrupts.allocate(() => {}, undefined, n)
      for (let v = vector; v < vector + n; v++) {
        expect(held.has(v), `vector ${v}`).toBe(false)
        held.add(v)
      }
    }
    for (const n of [1, 32, 1, 2, 8, 1, 16, 4, 1, 1, 32]) take(n)
    expect(interrupts.used).toBe(99)
    while (held.size < 128) take(1)
    expect(Math.max(...held)).toBe(127)
  })
  it('run out for a block before they do for one', () => {
    const interrupts = new HostInterrupts()
    for (let i = 0; i < 256 * 192 - 1; i++) interrupts.allocate(() => {})
    expect(() => interrupts.allocate(() => {}, undefined, 2)).toThrow('every interrupt vector')
    interrupts.allocate(() => {})
    expect(() => interrupts.allocate(() => {})).toThrow('every interrupt vector')
  })
})
