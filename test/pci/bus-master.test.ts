import { describe, expect, it } from 'vitest'
import { type Iova, iova, pasid } from '../../src/base/addr.js'
import type { TraceEvents } from '../../src/base/trace.js'
import { pasidCapability } from '../../src/pci/extended/pasid.js'
import { COMPLETION } from '../../src/pci/request.js'
import { probe } from './probe.js'

const A = iova(0x4000n)
const four = () => new Uint8Array([1, 2, 3, 4])
const P5 = { pasid: pasid(5) }

describe('a request is refused before it leaves the function', () => {
  it.each([
    [
      'Bus Master Enable is clear',
      (p: Probe) => p.fn.config.write(4, 2, 2),
      {},
      'bus-master-disabled',
    ],
    [
      'Bus Master Enable of the bridge is clear',
      (p: Probe) => p.bridge.config.write(4, 2, 2),
      {},
      'bus-master-disabled',
    ],
    [
      'the function is in D3hot',
      (p: Probe) => p.fn.config.write(p.cap(1, false) + 4, 2, 3),
      {},
      'bus-master-disabled',
    ],
    [
      'PASID Enable is clear',
      (p: Probe) => p.fn.config.write(p.cap(0x1b) + 6, 2, 6),
      P5,
      'pasid-disabled',
    ],
    [
      'Execute Permission Enable is clear',
      (p: Probe) => p.fn.config.write(p.cap(0x1b) + 6, 2, 5),
      { ...P5, execute: true },
      'pasid-disabled',
    ],
    [
      'Privileged Mode Enable is clear',
      (p: Probe) => p.fn.config.write(p.cap(0x1b) + 6, 2, 3),
      { ...P5, privileged: true },
      'pasid-disabled',
    ],
    ['execute is asked for without a PASID', () => {}, { execute: true }, 'pasid-disabled'],
    [
      'the port blocks End-End TLP prefixes',
      (p: Probe) => p.bridge.config.write(0x40 + 0x28, 2, 0x8000),
      P5,
      'blocked',
    ],
    [
      'the port blocks translations, and ATS is on',
      (p: Probe) => p.bridge.config.write(p.bridge.capabilityOffset(0xd, true)! + 6, 2, 2),
      {},
      'blocked',
    ],
  ] as const)('%s (PCIe 7.5.1.1.3, 7.8.9.3, 2.2.10.2, 6.12.1.1)', (_name, arrange, tag, reason) => {
    const p = probe()
    p.h.complex.translator = p.t
    p.t.map(5, 0x4000, { output: 0x1000 })
    p.t.map(-1, 0x4000, { output: 0x1000 })
    expect(p.port.dma.write(A, four(), P5).ok).toBe(true)
    expect(p.port.dma.write(A, four()).ok).toBe(true)
    const asked = p.t.asked.length
    arrange(p)
    expect(p.port.dma.write(A, four(), tag)).toMatchObject({
      ok: false,
      reason,
      status: COMPLETION.UR,
      at: 0x4000n,
      done: 0,
    })
    expect(p.t.asked.length).toBe(asked)
  })

  it('a PASID beyond the width of the capability', () => {
    const p = probe([pasidCapability({ width: 8 })])
    expect(p.port.dma.read(A, four(), { pasid: pasid(255) }).ok).toBe(true)
    expect(p.port.dma.read(A, four(), { pasid: pasid(256) })).toMatchObject({
      reason: 'pasid-width',
    })
  })

  it('and goes through again when the enable comes back', () => {
    const p = probe()
    p.fn.config.write(4, 2, 2)
    expect(p.port.dma.read(A, four()).ok).toBe(false)
    p.fn.config.write(4, 2, 6)
    expect(p.port.dma.read(A, four()).ok).toBe(true)
  })

  it.each([
    ['prefix blocking logs TLP Prefix Blocked', 0x40 + 0x28, 0x8000, P5, 25],
    ['translation blocking logs ACS Violation', 0x150 + 6, 2, {}, 21],
  ])('%s in the port, once unmasked also as the first error', (_name, at, value, tag, bit) => {
    const p = probe()
    p.bridge.config.write(at, 2, value)
    p.port.dma.read(A, four(), tag)
    expect(p.bridge.config.read(0x104, 4)).toBe(2 ** bit)
    expect(p.bridge.config.read(0x118, 4)).toBe(bit)
    p.bridge.config.write(0x104, 4, 2 ** bit)
    expect(p.bridge.config.read(0x104, 4)).toBe(0)
  })
})

type Probe = ReturnType<typeof probe>

const SILENT = { translateAts() {}, pageRequest() {} }

describe('untranslated requests', () => {
  function direct() {
    const p = probe()
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
    return p
  }

  it('are physical without a translator, up to 52 bits', () => {
    const p = direct()
    p.port.dma.write(A, four())
    expect([...p.h.ram.subarray(0x4000, 0x4004)]).toEqual([1, 2, 3, 4])
    expect(p.port.dma.read(iova(1n << 60n), four())).toMatchObject({
      reason: 'unclaimed',
      at: 1n << 60n,
    })
    expect(p.port.dma.read(iova(0x9000_0000n), four())).toMatchObject({ reason: 'unclaimed' })
  })

  it.each([1, 3, 24, 25, 64, 65, 4095, 4096, 4097, 10_000])(
    'of %i bytes arrive whole, in order, at any offset, through scattered pages',
    length => {
      for (const offset of [0, 1, 0xfff, 0x800]) {
        const p = direct()
        p.h.complex.translator = p.t
        const physical = [7, 3, 4, 5, 20].map(n => n * 4096)
        for (const [i, output] of physical.entries()) p.t.map(5, 0x7fff_f000 + i * 4096, { output })
        const from = Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff)
        const start = iova(0x7fff_f000n + BigInt(offset))
        expect(p.port.dma.write(start, from, P5)).toEqual({ ok: true })
        const bytes = Array.from(from, (_, i) => {
          const v = offset + i
          return p.h.ram[physical[v >> 12]! + (v & 4095)]
        })
        expect(Uint8Array.from(bytes as number[])).toEqual(from)
        const into = new Uint8Array(length)
        expect(p.port.dma.read({ hi: 0, lo: Number(start) | 0 }, into, P5)).toEqual({ ok: true })
        expect(into).toEqual(from)
        for (const a of p.t.asked) expect((a.address & 4095) + a.length).toBeLessThanOrEqual(4096)
      }
    },
  )

  it('cross from the low to the high half of the address', () => {
    const p = direct()
    p.h.complex.translator = p.t
    p.t.map(5, 0xffff_f000, { output: 0x1000 })
    p.t.pages.set('5:1048576', { output: 0x2000 })
    expect(p.port.dma.write(iova(0xffff_fffen), four(), P5).ok).toBe(true)
    expect([...p.h.ram.subarray(0x1ffe, 0x2002)]).toEqual([1, 2, 3, 4])
  })

  it('do not wrap at the top of the address space', () => {
    const p = direct()
    p.h.complex.translator = {
      ...SILENT,
      translate: (_r, into) => Object.assign(into, { status: 0, output: 0x1000, pageBits: 12 }),
    }
    expect(p.port.dma.write(iova(2n ** 64n - 2n), four(), P5)).toMatchObject({
      reason: 'unclaimed',
      done: 2,
      at: 0n,
    })
  })

  it.each([
    ['UR', COMPLETION.UR, 'refused'],
    ['CA', COMPLETION.CA, 'aborted'],
  ] as const)('report %s, what was done before, and where', (_name, status, reason) => {
    const p = direct()
    p.t.map(5, 0x4000, { output: 0x1000 })
    p.h.complex.translator = {
      ...SILENT,
      translate(r, into) {
        p.t.translate(r, into)
        if (into.status !== COMPLETION.SC) into.status = status
      },
    }
    const from = new Uint8Array(0x1800).fill(9)
    expect(p.port.dma.write(A, from, P5)).toEqual({
      ok: false,
      reason,
      status,
      at: 0x5000n as Iova,
      done: 0x1000,
      recoverable: false,
    })
    expect(p.h.ram[0x1fff]).toBe(9)
    expect(p.h.ram[0x2000]).toBe(0)
  })

  it('use one answer for a whole large page, but never across the message range', () => {
    const p = direct()
    const asked: number[] = []
    p.h.complex.translator = {
      ...SILENT,
      translate(r, into) {
        asked.push(r.lo >>> 0)
        Object.assign(into, { status: 0, output: (r.lo >>> 0) & 0xf_ffff, pageBits: 30 })
      },
    }
    expect(p.port.dma.read(iova(0x4000_0000n), new Uint8Array(0x2000), P5).ok).toBe(true)
    expect(asked).toEqual([0x4000_0000])
    expect(p.port.dma.read(iova(0xfedf_f000n), new Uint8Array(0x2000))).toMatchObject({
      reason: 'refused',
      at: 0xfee0_0000n,
    })
  })
})

describe('the message range 0xfee00000', () => {
  it('takes aligned dword writes without a PASID as interrupts', () => {
    const p = probe()
    const seen: number[][] = []
    p.h.complex.messages = { message: (...m) => seen.push(m) }
    p.h.complex.translator = p.t
    expect(p.port.dma.write(iova(0xfee0_1004n), four()).ok).toBe(true)
    expect(seen).toEqual([[p.fn.bdf, 0xfee0_1004, 0x0403_0201]])
    expect(p.t.asked).toEqual([])
  })

  it.each([
    ['a read', false, 0xfee0_0000n, 4],
    ['a misaligned write', true, 0xfee0_0002n, 4],
    ['a write of 8 bytes', true, 0xfee0_0000n, 8],
  ])('refuses %s', (_name, write, at, length) => {
    const p = probe()
    const bytes = new Uint8Array(length)
    const result = write ? p.port.dma.write(iova(at), bytes) : p.port.dma.read(iova(at), bytes)
    expect(result).toMatchObject({ reason: 'refused', status: COMPLETION.UR })
  })

  it('is ordinary memory to requests with a PASID', () => {
    const p = probe()
    p.h.complex.translator = p.t
    p.t.map(5, 0xfee0_0000, { output: 0x3000 })
    expect(p.port.dma.write(iova(0xfee0_0000n), four(), P5).ok).toBe(true)
    expect(p.h.ram[0x3003]).toBe(4)
  })
})

describe('peer-to-peer', () => {
  it('goes up, is translated, and reaches a BAR through host memory', () => {
    const p = probe()
    p.h.complex.translator = p.t
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
    p.t.map(5, 0x4000, { output: p.fn.bars[0]!.address() })
    expect(p.port.dma.write(A, four(), P5).ok).toBe(true)
    expect(p.writes).toEqual([0x0403_0201])
    const into = new Uint8Array(4)
    expect(p.port.dma.read(A, into, P5).ok).toBe(true)
    expect(into).toEqual(four())
  })

  it('a register that makes the function issue a request does not change the one under way', () => {
    const p = probe()
    p.h.complex.translator = p.t
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
    p.t.map(5, 0x4000, { output: p.fn.bars[0]!.address() })
    p.t.map(5, 0x5000, { output: 0x8000 })
    p.t.map(6, 0x5000, { output: 0x9000 })
    p.whenWritten(() => p.port.dma.read(iova(0x5000n), new Uint8Array(4), { pasid: pasid(6) }))
    const from = new Uint8Array(0x1004).fill(7)
    expect(p.port.dma.write(A, from, P5).ok).toBe(true)
    expect(p.h.ram[0x8000]).toBe(7)
    expect(p.h.ram[0x9000]).toBe(0)
  })
})

it('DMA is traced piece by piece, with the reason of a refusal', () => {
  const p = probe()
  p.h.complex.translator = p.t
  p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
  p.t.map(5, 0x4000, { output: 0x1000 })
  const seen: TraceEvents['dma'][] = []
  p.h.trace.listen('dma', e => seen.push(e))
  p.port.dma.write(A, new Uint8Array(0x1004), P5)
  expect(seen.map(e => [e.lo, e.length, e.output, e.failure])).toEqual([
    [0x4000, 0x1000, 0x1000, undefined],
    [0x5000, 4, -1, 'refused'],
  ])
})
