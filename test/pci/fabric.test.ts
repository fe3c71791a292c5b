import { describe, expect, it } from 'vitest'
import { bank, bits, r32 } from '../../src/base/fields.js'
import type { MmioTarget } from '../../src/mem/address-space.js'
import { acs, defineDevice, msix } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { nullDevice } from '../../src/pci/devices/null.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import { type DeviceModel, PciFunction } from '../../src/pci/function.js'
import { HostInterrupts } from '../../src/pci/host-interrupts.js'
import { connect, host, peek, poke } from './host.js'
import { probe } from './probe.js'

const ECAM = 0xe000_0000

describe('enumeration, through ECAM alone', () => {
  it('numbers buses in order and puts every BAR into the window of its bridge', () => {
    const h = host(dmaCopy, svaEngine, nullDevice)
    expect(h.found.map(f => f.bdf)).toEqual([0x08, 0x100, 0x10, 0x200, 0x18, 0x300])
    expect(h.functions.map(f => f.bdf)).toEqual([0x100, 0x200, 0x300])
    for (const fn of h.functions) {
      const [memory] = fn.bus.bridge!.windows()
      for (const bar of fn.bars) {
        if (!bar.size) continue
        expect(bar.address() % bar.size).toBe(0)
        expect(bar.address()).toBeGreaterThanOrEqual(memory.first)
        expect(bar.address() + bar.size - 1).toBeLessThanOrEqual(memory.last)
      }
    }
    const all = h.functions.flatMap(f => f.bars.filter(b => b.size).map(b => [b.address(), b.size]))
    all.sort((a, b) => a[0]! - b[0]!)
    for (let i = 1; i < all.length; i++)
      expect(all[i]![0]).toBeGreaterThanOrEqual(all[i - 1]![0]! + all[i - 1]![1]!)
  })

  it('leaves bus mastering to drivers, and enables bridges', () => {
    const h = host(dmaCopy)
    expect(h.functions[0]!.config.read(4, 2)).toBe(2)
    expect(h.ports[0]!.config.read(4, 2)).toBe(6)
  })

  it('gives the same answer when it runs again', () => {
    const h = host(dmaCopy, svaEngine)
    expect(h.scan()).toEqual(h.found)
  })

  it('finds every function of a multi-function device', () => {
    const h = host(nullDevice)
    h.ports[0]!.add(dmaCopy, 3)
    expect(h.scan().map(f => f.bdf)).toEqual([0x08, 0x100, 0x103])
    expect(h.functions[0]!.config.read(0x0e, 1)).toBe(0x80)
    h.functions[0]!.reset()
    expect(h.functions[0]!.config.read(0x0e, 1)).toBe(0x80)
  })

  it('an integrated endpoint sits on bus 0, without a link', () => {
    const h = host()
    const fn = h.complex.add(dmaCopy, { device: 5 })
    h.scan()
    expect(fn.bdf).toBe(0x28)
    expect((fn.config.read(0x42, 2) >> 4) & 15).toBe(9)
    expect(fn.config.read(0x4c, 4)).toBe(0)
    expect(peek(h, fn, 0x1c)).toBe(0n)
  })

  it('puts 64-bit prefetchable BARs above 4 GiB, behind the prefetchable window', () => {
    const bytes = new Map<number, bigint>()
    const identity = { vendorId: 1, deviceId: 2, classCode: 0 }
    const target: MmioTarget = {
      read: offset => bytes.get(offset) ?? 0n,
      write: (offset, _size, value) => bytes.set(offset, value),
    }
    const bar = { index: 2, size: 2 ** 33, wide: true, prefetchable: true, target }
    const wide: DeviceModel = {
      name: 'wide',
      identity,
      build: (bus, devfn) =>
        new PciFunction(bus, devfn, { name: 'wide', identity, capabilities: [], bars: [bar] }),
    }
    const h = host(wide)
    expect(h.found[1]!.bars).toEqual([
      { index: 2, size: 2 ** 33, wide: true, prefetchable: true, address: 0x40_0000_0000 },
    ])
    const at = h.functions[0]!.bars[2]!.address()
    h.memory.store(at + 2 ** 32, 8, 7n)
    expect(bytes.get(2 ** 32)).toBe(7n)
    expect(h.ports[0]!.windows()[1]).toEqual({ first: at, last: at + 2 ** 33 - 1 })
  })
})

describe('ECAM', () => {
  it.each([1, 2, 4, 8] as const)('reads ones of %i bytes where no function is', size => {
    const h = host(dmaCopy)
    for (const bdf of [0, 0x101, 0x108, 0x200, 0xffff])
      expect(h.memory.load(ECAM + bdf * 4096, size)).toBe((1n << BigInt(size * 8)) - 1n)
  })

  it('reaches eight bytes as two dwords', () => {
    const h = host(dmaCopy)
    expect(h.memory.load(ECAM + 0x100 * 4096, 8)).toBe(0x0010_0002_0d0c_1234n)
    h.memory.store(ECAM + 0x100 * 4096 + 0x10, 8, 0xffff_ffff_ffff_ffffn)
    expect(h.functions[0]!.config.read(0x10, 4)).toBe(0xffff_f000)
  })

  it('follows the bus number that software programs into the port', () => {
    const h = host(dmaCopy)
    const [port, fn] = [h.ports[0]!, h.functions[0]!]
    port.config.write(0x18, 4, 0x0009_0900)
    expect(fn.bdf).toBe(0x900)
    expect(h.complex.function(0x900)).toBe(fn)
    expect(h.complex.function(0x100)).toBeUndefined()
    port.config.write(0x18, 4, 0x0008_0900)
    expect(h.complex.function(0x900)).toBeUndefined()
  })
})

describe('the tree', () => {
  it.each([
    ['a taken place', (h: ReturnType<typeof host>) => h.ports[0]!.add(dmaCopy, 0)],
    [
      'a function without function 0',
      (h: ReturnType<typeof host>) => h.complex.addRootPort().add(dmaCopy, 1),
    ],
    [
      'a device number above 0 on a link',
      (h: ReturnType<typeof host>) => h.ports[0]!.add(dmaCopy, 8),
    ],
  ])('refuses %s', (_name, add) => {
    expect(() => add(host(dmaCopy))).toThrow(RangeError)
  })

  it('ports with and without ACS', () => {
    const h = host()
    const [with_, without] = [h.complex.addRootPort(), h.complex.addRootPort({ acs: false })]
    expect(with_.capabilityOffset(0x0d, true)).toBe(0x150)
    expect(without.capabilityOffset(0x0d, true)).toBeUndefined()
    with_.config.write(0x156, 2, 0xffff)
    expect(with_.config.read(0x154, 4)).toBe(0x005f_005f)
  })

  it('a function keeps only the ACS controls it has', () => {
    const h = host(
      defineDevice({
        name: 'acs',
        identity: { vendorId: 1, deviceId: 1, classCode: 0 },
        capabilities: [acs()],
        bar0: bank('acs', { A: r32(0, '1', { V: bits(31, 0, 'rw') }) }),
        create: () => ({}),
      }),
    )
    h.functions[0]!.config.write(0x106, 2, 0xffff)
    expect(h.functions[0]!.config.read(0x104, 4)).toBe(0x004c_004c)
  })
})

describe('MSI-X', () => {
  const ready = () => {
    const p = probe()
    const seen: number[] = []
    for (let v = 0; v < 3; v++) connect(p.h, p.fn, v, () => seen.push(v))
    const at = p.cap(0x11, false) + 2
    return {
      ...p,
      seen,
      control: (v: number) => p.fn.config.write(at, 2, v),
      mask: (v: number, on: bigint) => poke(p.h, p.fn, v * 16 + 12, on, 4, 2),
      pba: () => peek(p.h, p.fn, p.fn.msix!.pbaOffset, 8, 2),
    }
  }

  it('sends a message for each vector raised', () => {
    const m = ready()
    m.port.interrupt(2)
    m.port.interrupt(0)
    expect(m.seen).toEqual([2, 0])
  })

  it.each([
    [
      'its vector is masked',
      (m: ReturnType<typeof ready>) => m.mask(1, 1n),
      (m: ReturnType<typeof ready>) => m.mask(1, 0n),
    ],
    [
      'the function is masked',
      (m: ReturnType<typeof ready>) => m.control(0xc000),
      (m: ReturnType<typeof ready>) => m.control(0x8000),
    ],
  ])('keeps an interrupt pending while %s, and sends it once on unmask', (_name, close, open) => {
    const m = ready()
    close(m)
    m.port.interrupt(1)
    m.port.interrupt(1)
    expect([m.seen, m.pba()]).toEqual([[], 2n])
    open(m)
    expect([m.seen, m.pba()]).toEqual([[1], 0n])
  })

  it.each([
    ['MSI-X is disabled', (m: ReturnType<typeof ready>) => m.control(0)],
    [
      'the function may not master the bus',
      (m: ReturnType<typeof ready>) => m.fn.config.write(4, 2, 2),
    ],
  ])('sends nothing when %s', (_name, arrange) => {
    const m = ready()
    arrange(m)
    m.port.interrupt(1)
    expect([m.seen, m.pba()]).toEqual([[], 0n])
  })

  it('ignores a vector that does not exist', () => {
    const m = ready()
    m.mask(2, 1n)
    m.port.interrupt(3)
    m.port.interrupt(-1)
    expect([m.seen, m.pba()]).toEqual([[], 0n])
  })

  it('writes to ordinary memory when the message address is not the message range', () => {
    const m = ready()
    m.fn.config.write(m.cap(0x0f) + 6, 2, 0)
    poke(m.h, m.fn, 0, 0x3000n, 8, 2)
    poke(m.h, m.fn, 8, 0x1234n, 4, 2)
    m.port.interrupt(0)
    expect(m.h.memory.load(0x3000, 4)).toBe(0x1234n)
  })

  it('the pending bits are read-only, and the table keeps one control bit', () => {
    const m = ready()
    poke(m.h, m.fn, m.fn.msix!.pbaOffset, 0xffn, 8, 2)
    expect(m.pba()).toBe(0n)
    poke(m.h, m.fn, 12, 0xffff_ffffn, 4, 2)
    expect(peek(m.h, m.fn, 12, 4, 2)).toBe(1n)
  })

  it.each([
    [1, 0x1000],
    [128, 0x1000],
    [129, 0x2000],
    [2048, 0x1_0000],
  ])('%i vectors take 0x%s bytes, the pending bits in the upper half', (vectors, size) => {
    const h = host(
      defineDevice({
        name: 'many',
        identity: { vendorId: 1, deviceId: 1, classCode: 0 },
        capabilities: [msix({ vectors, bar: 4 })],
        bar0: bank('many', { A: r32(0, '1', { V: bits(31, 0, 'rw') }) }),
        create: () => ({}),
      }),
    )
    const fn = h.functions[0]!
    expect(fn.bars[4]!.size).toBe(size)
    expect(fn.msix!.pbaOffset).toBe(size / 2)
    expect(peek(h, fn, (vectors - 1) * 16 + 12, 4, 4)).toBe(1n)
  })
})

describe('host interrupts', () => {
  it('give each handler its own message, beyond one processor, and forget freed ones', () => {
    const i = new HostInterrupts()
    const seen: number[] = []
    const vectors = Array.from({ length: 500 }, (_, n) => i.allocate(() => seen.push(n)))
    expect(new Set(vectors.map(v => `${v.address}:${v.data}`)).size).toBe(500)
    for (const n of [0, 191, 192, 499]) i.message(0, vectors[n]!.address, vectors[n]!.data)
    expect(seen).toEqual([0, 191, 192, 499])
    i.free(vectors[192]!.vector)
    i.message(0, vectors[192]!.address, vectors[192]!.data)
    i.message(0, 0xfee0_0000, 0x10)
    expect(i.spurious).toBe(2)
    expect(i.allocate(() => {}).vector).toBe(192)
    expect(() => i.free(1000)).toThrow('not allocated')
  })
})

describe('64-byte writes', () => {
  it('to a BAR without portal: posted ones arrive in pieces, deferrable ones are retried', () => {
    const p = probe()
    const at = p.fn.bars[0]!.address()
    const bytes = new Uint8Array(64).fill(0xab)
    expect(p.h.memory.writeDeferrable(at, bytes)).toBe(false)
    expect(p.writes).toEqual([])
    p.h.memory.write(at, bytes)
    expect(p.writes).toEqual([0xabab_abab])
  })

  it('gather from smaller posted writes in order, and are lost out of order', () => {
    const submitted: number[] = []
    const h = host(
      defineDevice({
        name: 'portal',
        identity: { vendorId: 1, deviceId: 1, classCode: 0 },
        bar0: bank('portal', { A: r32(0, '1', { V: bits(31, 0, 'rw') }) }),
        portal: { bar: 4, size: 4096 },
        create: () => ({
          portal: (offset, bytes, deferrable) => {
            submitted.push(offset, bytes[63]!, Number(deferrable))
            return true
          },
        }),
      }),
    )
    const at = h.functions[0]!.bars[4]!.address() + 0x40
    for (let i = 0; i < 64; i += 8) h.memory.store(at + i, 8, BigInt(i) << 56n)
    expect(submitted).toEqual([0x40, 56, 0])
    for (const i of [0, 8, 24, 16, 32, 40, 48, 56]) h.memory.store(at + i, 8, 1n)
    expect(submitted.length).toBe(3)
    expect(h.memory.writeDeferrable(at, new Uint8Array(64))).toBe(true)
    expect(submitted.slice(3)).toEqual([0x40, 0, 1])
  })
})
