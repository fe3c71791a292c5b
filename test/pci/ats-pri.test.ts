import { describe, expect, it } from 'vitest'
import { iova, pasid } from '../../src/base/addr.js'
import { TranslationCache } from '../../src/pci/atc.js'
import { AT, NO_PASID, PRG_RESPONSE } from '../../src/pci/request.js'
import { probe } from './probe.js'

const P5 = { pasid: pasid(5) }
const A = iova(0x4000n)
const bytes = () => new Uint8Array(16)

describe('ATS', () => {
  function ready() {
    const p = probe()
    p.h.complex.translator = p.t
    p.t.map(5, 0x4000, { output: 0x1000 })
    return p
  }
  const invalidate = (
    p: ReturnType<typeof ready>,
    at: number,
    pageBits = 12,
    pasid = 5,
    global = false,
  ) =>
    p.h.complex.downstream.invalidate({
      requester: p.fn.bdf,
      pasid,
      hi: 0,
      lo: at,
      pageBits,
      global,
    })

  it('asks once, then presents the cached answer as a translated request without prefix', () => {
    const p = ready()
    p.port.dma.read(A, bytes(), P5)
    p.port.dma.read(A, bytes(), P5)
    expect(p.t.asked.map(a => [a.at, a.pasid, a.address])).toEqual([
      [AT.TRANSLATION_REQUEST, 5, 0x4000],
      [AT.TRANSLATED, NO_PASID, 0x1000],
      [AT.TRANSLATED, NO_PASID, 0x1000],
    ])
  })

  it('uses a stale translation until it is invalidated, and not after', () => {
    const p = ready()
    p.port.dma.write(A, bytes(), P5)
    p.t.map(5, 0x4000, { output: 0x2000 })
    p.port.dma.write(A, bytes().fill(1), P5)
    expect([p.h.ram[0x1000], p.h.ram[0x2000]]).toEqual([1, 0])
    expect(invalidate(p, 0x4000)).toBe(true)
    p.port.dma.write(A, bytes().fill(2), P5)
    expect([p.h.ram[0x1000], p.h.ram[0x2000]]).toEqual([1, 2])
  })

  it.each([
    ['ATS is disabled', (p: ReturnType<typeof ready>) => p.fn.config.write(p.cap(0x0f) + 6, 2, 0)],
    ['the function was reset', (p: ReturnType<typeof ready>) => p.fn.reset()],
  ])('an invalidation gets no completion when %s', (_name, arrange) => {
    const p = ready()
    arrange(p)
    expect(invalidate(p, 0x4000)).toBe(false)
    expect(
      p.h.complex.downstream.invalidate({
        requester: 0x4200,
        pasid: 5,
        hi: 0,
        lo: 0,
        pageBits: 12,
        global: false,
      }),
    ).toBe(false)
  })

  it('disabling and enabling empties the cache', () => {
    const p = ready()
    p.port.dma.read(A, bytes(), P5)
    expect(p.fn.ats!.cache.count).toBe(1)
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0x8000)
    expect(p.fn.ats!.cache.count).toBe(0)
  })

  it('asks again when the kept answer does not permit the access', () => {
    const p = ready()
    p.t.map(5, 0x4000, { output: 0x1000, write: false })
    expect(p.port.dma.read(A, bytes(), P5).ok).toBe(true)
    expect(p.port.dma.write(A, bytes(), P5)).toMatchObject({
      reason: 'no-permission',
      recoverable: true,
      status: 0,
    })
    p.t.map(5, 0x4000, { output: 0x1000 })
    expect(p.port.dma.write(A, bytes(), P5).ok).toBe(true)
    expect(p.port.dma.read(A, bytes(), { ...P5, execute: true })).toMatchObject({
      reason: 'no-permission',
    })
  })

  it('not present is recoverable only while PRI is enabled', () => {
    const p = ready()
    const at = iova(0x5000n)
    expect(p.port.dma.read(at, bytes(), P5)).toMatchObject({
      reason: 'not-present',
      recoverable: true,
      at: 0x5000n,
    })
    p.fn.config.write(p.cap(0x13) + 4, 2, 0)
    expect(p.port.dma.read(at, bytes(), P5)).toMatchObject({
      reason: 'not-present',
      recoverable: false,
    })
  })

  it('a page marked for untranslated access is neither cached nor presented translated', () => {
    const p = ready()
    p.t.map(5, 0x4000, { output: 0x1000, untranslatedOnly: true })
    expect(p.port.dma.read(A, bytes(), P5).ok).toBe(true)
    expect(p.t.asked.map(a => a.at)).toEqual([AT.TRANSLATION_REQUEST, AT.UNTRANSLATED])
    expect(p.fn.ats!.cache.count).toBe(0)
  })

  const large = () => Uint8Array.from({ length: 0x4800 }, (_, i) => (i * 5 + (i >> 8)) & 0xff)

  it.each([
    ['consecutive', [2, 3, 4, 5, 6]],
    ['scattered', [9, 3, 4, 12, 2]],
    ['descending', [6, 5, 4, 3, 2]],
  ])('moves a transfer over %s pages whole, cached or not', (_name, frames) => {
    const p = ready()
    for (const [i, f] of frames.entries()) p.t.map(5, 0x8000 + i * 4096, { output: f * 4096 })
    for (let round = 0; round < 3; round++) {
      const from = large().map(v => v ^ round)
      expect(p.port.dma.write(iova(0x8400n), from, P5)).toEqual({ ok: true })
      const there = Array.from(
        from,
        (_, i) => p.h.ram[frames[(i + 0x400) >> 12]! * 4096 + ((i + 0x400) & 4095)]!,
      )
      expect(Uint8Array.from(there)).toEqual(from)
      const into = new Uint8Array(from.length)
      expect(p.port.dma.read(iova(0x8400n), into, P5)).toEqual({ ok: true })
      expect(into).toEqual(from)
    }
  })

  it('stops at a cached page that forbids the access, however its neighbours lie', () => {
    const p = ready()
    for (let i = 0; i < 4; i++)
      p.t.map(5, 0x8000 + i * 4096, { output: 0x4000 + i * 4096, write: i !== 2 })
    expect(p.port.dma.read(iova(0x8000n), large().subarray(0, 0x4000), P5).ok).toBe(true)
    expect(p.port.dma.write(iova(0x8000n), new Uint8Array(0x4000).fill(7), P5)).toMatchObject({
      reason: 'no-permission',
      at: 0xa000n,
      done: 0x2000,
    })
    expect([p.h.ram[0x5fff], p.h.ram[0x6000]]).toEqual([7, 0])
  })

  it('aligns its questions to the smallest translation unit', () => {
    const p = ready()
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0x8002)
    p.port.dma.translate(iova(0x7123n), {}, P5)
    expect(p.t.asked[0]!.address).toBe(0x4000)
  })

  it('prefetches by translate(), and refuses while ATS is off', () => {
    const p = ready()
    expect(p.port.dma.translate(A, { write: true }, P5)).toEqual({ ok: true })
    expect(p.fn.ats!.cache.entries()).toEqual([
      { pasid: 5, address: 0x4000n, pageBits: 12, output: 0x1000 },
    ])
    p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
    expect(p.port.dma.translate(A, {}, P5)).toMatchObject({ ok: false, reason: 'refused' })
  })
})

describe('the translation cache', () => {
  const ask = (lo: number, pasid = 5, hi = 0) => ({ pasid, privileged: false, hi, lo })
  const inv = (lo: number, pageBits: number, pasid = 5, global = false, hi = 0) => ({
    requester: 0,
    pasid,
    hi,
    lo,
    pageBits,
    global,
  })
  const put = (c: TranslationCache, lo: number, bits = 12, pasid = 5) =>
    c.insert(ask(lo, pasid), 0x1000_0000 + (lo >>> 0), bits, true, true, false)

  it.each([12, 21, 30])('finds every byte of a page of 2^%i, and none beside it', bits => {
    const c = new TranslationCache()
    put(c, 0x4000_0000, bits)
    const last = 0x4000_0000 + 2 ** bits - 1
    expect(c.output(c.lookup(ask(last | 0)), last | 0)).toBe(0x1000_0000 + last)
    expect(c.lookup(ask((last + 1) | 0))).toBe(-1)
    expect(c.lookup(ask(0x3fff_ffff))).toBe(-1)
    expect(c.lookup(ask(0x4000_0000, 6))).toBe(-1)
    expect(c.lookup(ask(0x4000_0000, 5, 1))).toBe(-1)
    expect(c.lookup({ ...ask(0x4000_0000), privileged: true })).toBe(-1)
  })

  it.each([
    ['the page itself', inv(0x20_0000, 12), true],
    ['a page beside it', inv(0x40_0000, 12), false],
    ['one small page inside the large one', inv(0x3f_f000, 12), true],
    ['a range around it', inv(0, 30), true],
    ['everything', inv(0, 64), true],
    ['a range in another 4 GiB', inv(0x20_0000, 21, 5, false, 1), false],
    ['a range of 2^33 around it', inv(0, 33, 5, false, 1), true],
    ['another PASID', inv(0x20_0000, 21, 6), false],
    ['no PASID', inv(0, 64, NO_PASID), false],
    ['all PASIDs by Global Invalidate', inv(0x20_0000, 21, 6, true), true],
  ])('a 2 MiB page and an invalidation of %s', (_name, i, dropped) => {
    const c = new TranslationCache()
    put(c, 0x20_0000, 21)
    expect(c.invalidate(i)).toBe(dropped ? 1 : 0)
    expect(c.lookup(ask(0x20_0000)) === -1).toBe(dropped)
  })

  it('agrees with a plain map under random inserts and invalidations, seed 99', () => {
    const c = new TranslationCache()
    const model = new Map<string, { lo: number; bits: number; pasid: number }>()
    let s = 99
    const random = (n: number) => {
      s = (Math.imul(s, 1_664_525) + 1_013_904_223) >>> 0
      return (s >>> 8) % n
    }
    for (let i = 0; i < 4000; i++) {
      const bits = [12, 12, 21][random(3)]!
      const pasid = random(3)
      const lo = (random(64) << 12) | (random(4) << 21)
      if (random(4)) {
        put(c, lo, bits, pasid)
        const base = lo & (-1 << bits)
        model.set(`${pasid}:${bits}:${base}`, { lo: base, bits, pasid })
      } else {
        const range = [12, 14, 21, 23][random(4)]!
        const global = random(5) === 0
        c.invalidate(inv(lo, range, pasid, global))
        for (const [key, e] of model) {
          const shift = Math.max(range, e.bits)
          if ((global || e.pasid === pasid) && e.lo >> shift === lo >> shift) model.delete(key)
        }
      }
      // The cache may have evicted; it must never hold what the model dropped.
      for (const e of i % 50 ? [] : c.entries())
        expect(model.has(`${e.pasid}:${e.pageBits}:${Number(e.address)}`)).toBe(true)
    }
    expect(c.count).toBeGreaterThan(10)
    expect(c.count).toBeLessThanOrEqual(1024)
  })
})

describe('PRI', () => {
  function ready() {
    const p = probe()
    p.h.complex.translator = p.t
    p.fn.config.write(p.cap(0x13) + 12, 4, 4)
    const answers: number[] = []
    const ask = (pages = 1, at = 0x4000n) =>
      p.port.dma.pageRequest(iova(at), { pages, write: true }, P5, code => answers.push(code))
    const respond = (n: number, code: 0 | 1 | 15 = 0, over = {}) => {
      const { requester, pasid, prgIndex } = p.t.pageRequests[n]!
      p.h.complex.downstream.respond({ requester, pasid, prgIndex, code, ...over })
      p.h.clock.settle()
    }
    const status = () => p.fn.config.read(p.cap(0x13) + 6, 2)
    return { ...p, answers, ask, respond, status }
  }

  it('sends a group page by page under one index, the last marked', () => {
    const p = ready()
    expect(p.ask(3, 0xffff_f123n)).toEqual({ ok: true })
    expect(p.t.pageRequests.map(m => [m.hi, m.lo >>> 0, m.last, m.prgIndex, m.write])).toEqual([
      [0, 0xffff_f000, false, 0, true],
      [1, 0, false, 0, true],
      [1, 0x1000, true, 0, true],
    ])
  })

  it.each([
    ['SUCCESS', 0, PRG_RESPONSE.SUCCESS],
    ['INVALID', 1, PRG_RESPONSE.INVALID],
    ['FAILURE', 15, PRG_RESPONSE.FAILURE],
  ] as const)('delivers %s once, later', (_name, code, expected) => {
    const p = ready()
    p.ask()
    p.respond(0, code)
    p.respond(0, code)
    expect(p.answers).toEqual([expected])
  })

  it('treats a reserved response code as failure (PCIe 10.4.2.1)', () => {
    const p = ready()
    p.ask()
    p.respond(0, 7 as 15)
    expect(p.answers).toEqual([PRG_RESPONSE.FAILURE])
    expect(p.status() & 1).toBe(1)
  })

  it('keeps to Outstanding Page Request Allocation, in pages', () => {
    const p = ready()
    expect(p.ask(3).ok).toBe(true)
    expect(p.ask(2)).toEqual({ ok: false, reason: 'full' })
    expect(p.ask(1).ok).toBe(true)
    p.respond(0)
    expect(p.ask(3).ok).toBe(true)
    expect(new Set(p.t.pageRequests.map(m => m.prgIndex)).size).toBe(3)
  })

  it.each([
    ['of an unknown index', { prgIndex: 400 }],
    ['with another PASID', { pasid: 6 }],
    ['without the PASID', { pasid: NO_PASID }],
  ])('a response %s sets Unexpected PRG Index and answers nobody', (_name, over) => {
    const p = ready()
    p.ask()
    p.respond(0, 0, over)
    expect(p.answers).toEqual([])
    expect(p.status() & 3).toBe(2)
    p.fn.config.write(p.cap(0x13) + 6, 2, 2)
    expect(p.status() & 3).toBe(0)
  })

  it('a failure ends every outstanding request, and stops new ones until it is cleared', () => {
    const p = ready()
    p.ask()
    p.ask()
    p.respond(1, 15)
    expect(p.answers).toEqual([15, 15])
    expect(p.ask()).toEqual({ ok: false, reason: 'failed' })
    p.fn.config.write(p.cap(0x13) + 6, 2, 1)
    expect(p.ask().ok).toBe(true)
  })

  it('Stopped is clear while enabled or while something is outstanding', () => {
    const p = ready()
    const control = (v: number) => p.fn.config.write(p.cap(0x13) + 4, 2, v)
    const stopped = () => (p.status() >> 8) & 1
    p.ask()
    control(0)
    expect(stopped()).toBe(0)
    expect(p.ask()).toEqual({ ok: false, reason: 'disabled' })
    p.respond(0)
    expect(stopped()).toBe(1)
    control(1)
    expect(stopped()).toBe(0)
    p.ask()
    control(0)
    control(2)
    expect(stopped()).toBe(1)
    expect(p.fn.pri!.outstandingPages).toBe(0)
    expect(p.fn.config.read(p.cap(0x13) + 4, 2)).toBe(0)
  })

  it('a function reset drops outstanding requests and their callbacks', () => {
    const p = ready()
    p.ask()
    p.fn.reset()
    p.respond(0)
    expect(p.answers).toEqual([])
  })
})
