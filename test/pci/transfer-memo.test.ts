// What a function remembers of its transfers, and what makes it forget.
import { describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { DirtyLog } from '../../src/mem/dirty-log.js'
import { createRam } from '../../src/mem/ram.js'
import { TranslationCache } from '../../src/pci/atc.js'
import type { DmaTag } from '../../src/pci/dma.js'
import type { AtsCapability } from '../../src/pci/extended/ats.js'
import type { Fabric } from '../../src/pci/node.js'
import { RamCopy } from '../../src/pci/ram-copy.js'
import { AT, MemoryRequest, NO_PASID } from '../../src/pci/request.js'
import { TransferMemo } from '../../src/pci/transfer-memo.js'
import { ASK_EACH_TIME, type UpstreamTranslator } from '../../src/pci/upstream.js'
import { probe } from './probe.js'

const RAM = 0x4000_0000
const [HI, LO] = [7, 0x8000_1000 | 0]
const TAG: DmaTag = { pasid: 5 }
/** A request with this tag. */
const tagged = ({ pasid = NO_PASID, execute = false, privileged = false }: DmaTag) =>
  Object.assign(new MemoryRequest(), { pasid, execute, privileged })

const translator = (answers: number | undefined): UpstreamTranslator => ({
  ...(answers !== undefined && { answers }),
  translate() {},
  translateAts() {},
  pageRequest() {},
})

/** A memo that knows `length` bytes at HI:LO, for reading and for writing. */
function known(length = 4096, answers: number | undefined = 1) {
  const memory = new AddressSpace()
  const ram = memory.addRam(RAM, createRam(0x10000))
  ram.bytes.forEach((_, i) => {
    ram.bytes[i] = (i * 7) ^ (i >> 8)
  })
  const fabric = { memory, copies: new RamCopy(), translator: translator(answers), epoch: 1 }
  const cache = new TranslationCache()
  const memo = new TransferMemo(fabric as unknown as Fabric, { cache } as AtsCapability)
  for (const write of [false, true])
    memo.keep(write, HI, LO, tagged(TAG), ram, RAM + 0x3000, length)
  const bytes = new Uint8Array(16)
  const moves = (lo = LO, into = bytes, tag = TAG) => memo.move(false, HI, lo, tag, into)
  return { memory, ram, fabric, cache, memo, bytes, moves }
}

describe('a known stretch', () => {
  it.each([
    [0, 16],
    [1, 1],
    [4095, 1],
    [100, 3996],
    [0, 4096],
  ])('is read and written at %i, %i bytes', (offset, length) => {
    const k = known()
    const at = 0x3000 + offset
    const into = new Uint8Array(length)
    expect(k.moves(LO + offset, into)).toBe(true)
    expect(into).toEqual(k.ram.bytes.slice(at, at + length))
    k.ram.dirty = new DirtyLog(16)
    expect(k.memo.move(true, HI, LO + offset, TAG, into.fill(9))).toBe(true)
    expect(k.ram.bytes.slice(at, at + length)).toEqual(into)
    expect(k.ram.bytes[at - 1]).not.toBe(9)
    expect(k.ram.dirty.has(3)).toBe(true)
  })

  it('is as long as it was, not longer', () => {
    const k = known(6000)
    expect(k.moves(LO, new Uint8Array(6000))).toBe(true)
    expect(k.moves(LO + 1, new Uint8Array(6000))).toBe(false)
    expect(k.moves(LO, new Uint8Array(6001))).toBe(false)
  })

  it('gives the bytes that are there now', () => {
    const k = known()
    k.moves()
    k.ram.bytes[0x3002] = 0xee
    expect(k.moves()).toBe(true)
    expect(k.bytes[2]).toBe(0xee)
  })
})

describe('nothing is known', () => {
  it.each([
    ['another PASID', { pasid: 6 }],
    ['no PASID', {}],
    ['execution', { pasid: 5, execute: true }],
    ['privilege', { pasid: 5, privileged: true }],
    ['a PASID of more than 20 bits', { pasid: 0x10_0005 }],
  ])('for %s', (_name, tag) => {
    expect(known().moves(LO, new Uint8Array(1), tag)).toBe(false)
  })

  it.each([0x10_0000, -1])(
    'for the number %i in place of a PASID, where requests without one went',
    pasid => {
      const k = known()
      k.memo.keep(false, HI, LO, tagged({}), k.ram, RAM, 4096)
      expect(k.moves(LO, k.bytes, {})).toBe(true)
      expect(k.moves(LO, k.bytes, { pasid })).toBe(false)
    },
  )

  it('for a PASID whose stretches have the same place', () => {
    const k = known()
    for (let pasid = 6; pasid < 2000; pasid++) expect(k.moves(LO, k.bytes, { pasid })).toBe(false)
  })

  it('for writing what was only read', () => {
    const k = known()
    const tag = { pasid: 9 }
    k.memo.keep(false, HI, LO, tagged(tag), k.ram, RAM, 4096)
    expect(k.memo.move(true, HI, LO, tag, k.bytes)).toBe(false)
  })

  it.each([
    ['beside it', HI, LO + 4096],
    ['2^20 bytes on, at the same place', HI, LO + 0x10_0000],
    ['4 GiB on', HI + 1, LO],
  ])('for an address %s', (_name, hi, lo) => {
    const k = known()
    expect(k.memo.move(false, hi, lo, TAG, k.bytes)).toBe(false)
  })

  it.each([
    ['wants to see every request', ASK_EACH_TIME],
    ['says nothing of its answers', undefined],
  ])('while the translator %s', (_name, answers) => {
    const k = known()
    k.fabric.translator = translator(answers)
    k.memo.keep(false, HI, LO, tagged(TAG), k.ram, RAM, 4096)
    expect(k.moves()).toBe(false)
  })

  it.each([
    ['the translator', k => Object.assign(k.fabric.translator, { answers: 2 })],
    ['another translator', k => Object.assign(k.fabric, { translator: translator(1) })],
    ['a configuration write', k => k.fabric.epoch++],
    ['the memory map', k => k.memory.remove(k.ram)],
    [
      'an insertion into the cache',
      k => k.cache.insert({ pasid: 5, privileged: false, hi: 0, lo: 0 }, 0, 12, true, true, false),
    ],
    ['the end of ATS', k => k.cache.clear()],
  ] satisfies [string, (k: ReturnType<typeof known>) => unknown][])(
    'after a change of %s',
    (_name, change) => {
      const k = known()
      expect(k.moves()).toBe(true)
      change(k)
      expect(k.moves()).toBe(false)
    },
  )

  it('after an invalidation that dropped an entry of the cache', () => {
    const k = known()
    const entry = { pasid: 5, privileged: false, hi: HI, lo: LO }
    k.cache.insert(entry, RAM + 0x3000, 12, true, true, false)
    k.memo.keep(false, HI, LO, tagged(TAG), k.ram, RAM + 0x3000, 4096)
    expect(k.moves()).toBe(true)
    k.cache.invalidate({ requester: 0, pasid: 5, hi: HI, lo: LO, pageBits: 12, global: false })
    expect(k.moves()).toBe(false)
  })

  it('of a stretch that leaves its region', () => {
    const k = known()
    const tag = { pasid: 9 }
    for (const start of [RAM - 8, RAM + 0x10000 - 4088])
      k.memo.keep(false, HI, LO, tagged(tag), k.ram, start, 4096)
    expect(k.moves(LO, k.bytes, tag)).toBe(false)
  })
})

describe('a function', () => {
  function remembering() {
    const p = probe()
    Object.assign(p.t, { answers: 1 })
    p.h.complex.translator = p.t
    p.h.ram.fill(8, 0x8000, 0x9000)
    p.h.ram.fill(9, 0x9000, 0xa000)
    return p
  }

  it('asks once about a page, and goes by the answer for all of it', () => {
    const p = remembering()
    p.t.map(5, 0x5000, { output: 0x8000 })
    const bytes = new Uint8Array(4)
    p.fn.dma.read(0, 0x5ff0, bytes, { pasid: 5 })
    p.t.asked.length = 0
    expect(p.fn.dma.read(0, 0x5000, bytes, { pasid: 5 })).toBe(true)
    expect(p.t.asked).toEqual([])
    expect(bytes[0]).toBe(8)
    p.t.unmap(5, 0x5000)
    Object.assign(p.t, { answers: 2 })
    p.fn.ats!.cache.clear()
    expect(p.fn.dma.read(0, 0x5000, bytes, { pasid: 5 })).toBe(false)
  })

  it('keeps its PASIDs apart when a register it writes makes it ask under another', () => {
    const p = remembering()
    p.t.map(5, 0x4000, { output: p.fn.bars[0]!.address() })
    p.t.map(5, 0x5000, { output: 0x8000 })
    p.t.map(6, 0x5000, { output: 0x9000 })
    const bytes = new Uint8Array(4)
    const other = new Uint8Array(4)
    p.whenWritten(() => p.fn.dma.read(0, 0x5000, other, { pasid: 6 }))
    p.fn.dma.read(0, 0x5000, other, { pasid: 6 })
    p.fn.dma.write(0, 0x4000, bytes, { pasid: 5 })
    expect(p.fn.dma.read(0, 0x5000, bytes, { pasid: 5 })).toBe(true)
    expect([bytes[0], other[0]]).toEqual([8, 9])
  })

  it('does not take the way of an interrupt message for other writes', () => {
    const p = remembering()
    p.t.map(-1, 0x7000, { output: 0x8000 })
    expect(p.fn.dma.sendMessage(0, 0x7000, 5)).toBe(true)
    p.t.asked.length = 0
    p.fn.dma.write(0, 0x7000, new Uint8Array(4))
    expect(p.t.asked[0]?.at).toBe(AT.TRANSLATION_REQUEST)
  })
})

describe('an invalidation of one page', () => {
  it('drops the entries of a PASID, privileged and not, and of every size', () => {
    const c = new TranslationCache()
    for (const privileged of [false, true])
      for (const bits of [12, 21, 30])
        c.insert({ pasid: 5, privileged, hi: 0, lo: 0x4000_5000 }, 0, bits, true, true, false)
    c.insert({ pasid: 6, privileged: false, hi: 0, lo: 0x4000_5000 }, 0, 12, true, true, false)
    const page = { requester: 0, hi: 0, lo: 0x4000_5000, pageBits: 12, global: false }
    expect(c.invalidate({ ...page, pasid: 5 })).toBe(6)
    expect(c.entries().map(e => e.pasid)).toEqual([6])
  })
})
