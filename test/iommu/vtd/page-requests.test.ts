import { describe, expect, it } from 'vitest'
import { PAGE_REQUEST_DESCRIPTOR } from '../../../src/iommu/vtd/tables.js'
import type { PageRequest } from '../../../src/pci/request.js'
import { BDF, Bench, type BenchOptions, descriptor, FULL, GCMD, REG } from './bench.js'

const ask = (more: Partial<PageRequest> = {}): PageRequest => ({
  requester: BDF,
  pasid: 5,
  hi: 0x7f00,
  lo: 0x1234_5000,
  read: true,
  write: false,
  execute: false,
  privileged: false,
  prgIndex: 9,
  last: true,
  ...more,
})

/** A unit with a page request queue of 2^order pages; PASID 5 has a first stage without mappings. */
function ready(options: BenchOptions = {}) {
  const b = new Bench(options)
  b.startQueue()
  const tables = b.scalable()
  const fs = b.alloc()
  b.firstStage(tables.directory, 5, fs, 3)
  b.firstStage(tables.directory, 0, b.alloc(), 3)
  const queue = b.alloc()
  b.w64(REG.PQA, queue)
  b.w32(REG.PEADDR, 0xfee0_3000)
  b.w32(REG.PEDATA, 0x43)
  b.w32(REG.PECTL, 0)
  b.enable()
  return { b, queue, fs, ...tables }
}

describe('VT-d page requests', () => {
  it('writes a descriptor, moves the tail, and interrupts once', () => {
    const { b, queue } = ready()
    b.unit.pageRequest(ask({ write: true, execute: true, privileged: true }))
    expect(b.r64(REG.PQT)).toBe(32n)
    expect(b.r32(REG.PRS)).toBe(1)
    expect(b.messages).toEqual([{ requester: 0xffff, address: 0xfee0_3000, data: 0x43 }])
    // By hand, from VT-d 7.4.1.1.
    expect(b.load(queue)).toBe(1n | (1n << 8n) | (0x100n << 16n) | (5n << 32n) | (3n << 52n))
    expect(b.load(queue + 8)).toBe(7n | (9n << 3n) | 0x7f00_1234_5000n)
    expect(b.load(queue + 16)).toBe(0n)
    b.unit.pageRequest(ask({ pasid: -1 }))
    expect(b.r64(REG.PQT)).toBe(64n)
    expect(b.messages, 'PPR is still set').toHaveLength(1)
    b.w32(REG.PRS, 1)
    b.unit.pageRequest(ask())
    expect(b.messages).toHaveLength(2)
    expect(b.responses).toEqual([])
  })

  it('a request without PASID says so', () => {
    const { b, queue } = ready()
    b.unit.pageRequest(ask({ pasid: -1, execute: true, privileged: true }))
    const d = PAGE_REQUEST_DESCRIPTOR.at(b.ram.bytes, queue)
    expect(d).toMatchObject({ PP: false, PASID: 0, EXR: false, PMR: false, RDR: true })
  })

  it('holds a masked interrupt until it is unmasked', () => {
    const { b } = ready()
    b.w32(REG.PECTL, 0x8000_0000)
    b.unit.pageRequest(ask())
    expect(b.r32(REG.PECTL)).toBe(0xc000_0000)
    b.w32(REG.PECTL, 0)
    expect(b.messages).toHaveLength(1)
  })

  it('a full queue sets PRO and answers the last request of a group with success', () => {
    const { b } = ready()
    for (let i = 0; i < 127; i++) b.unit.pageRequest(ask({ prgIndex: i }))
    expect(b.r64(REG.PQT), 'one entry stays free').toBe(127n * 32n)
    expect(b.unit.injectPageRequest(ask({ prgIndex: 200, last: false }))).toBe(false)
    expect(b.r32(REG.PRS)).toBe(3)
    expect(b.responses).toEqual([])
    b.unit.pageRequest(ask({ prgIndex: 200 }))
    expect(b.responses).toEqual([{ requester: BDF, pasid: 5, prgIndex: 200, code: 0 }])
    // Room alone does not help: software clears PRO.
    b.w64(REG.PQH, 64n)
    expect(b.unit.injectPageRequest(ask())).toBe(false)
    b.w32(REG.PRS, 2)
    expect(b.unit.injectPageRequest(ask())).toBe(true)
    expect(b.r64(REG.PQT), 'wrapped').toBe(0n)
  })

  it('overflow interrupts when nothing was pending before', () => {
    const { b } = ready()
    b.w64(REG.PQH, 32n)
    b.unit.pageRequest(ask())
    expect(b.r32(REG.PRS)).toBe(2)
    expect(b.messages).toHaveLength(1)
  })

  // biome-ignore format: table
  it.each([
    ['legacyModePageRequest', 0x32, (b: Bench) => b.legacy(b.alloc())],
    ['abortDmaMode', 0x33, (b: Bench) => { b.w64(REG.RTADDR, 0xc00n); b.command(GCMD.SRTP) }],
    ['smContextNotPresent', 0x41, (b: Bench) => { const t = b.scalable(); b.store(t.context, 0n) }],
    ['pageRequestDisabled', 0x47, (b: Bench) => b.scalable(BDF, 0b01100n)],
    ['pasidDisabled', 0x45, (b: Bench) => b.scalable(BDF, 0b10100n)],
    ['pasidDirectoryNotPresent', 0x51, (b: Bench) => b.scalable()],
    ['pasidEntryNotPresent', 0x59, (b: Bench) => { const t = b.scalable(); b.pasidEntry(t.directory, 5, [0n]) }],
  ] as const)('%s: recorded as reason %i and answered "invalid"', (name, code, arrange) => {
    const { b } = ready()
    arrange(b)
    expect(b.unit.injectPageRequest(ask())).toBe(false)
    expect(b.record(0)).toMatchObject({ f: true, reason: code, type: 1, sid: BDF, pasid: 5 })
    expect(b.unit.lastFault).toMatchObject({ name, access: 'page-request' })
    expect(b.responses).toEqual([{ requester: BDF, pasid: 5, prgIndex: 9, code: 1 }])
    b.unit.pageRequest(ask({ last: false }))
    expect(b.responses, 'dropped: nobody waits').toHaveLength(1)
    expect(b.r64(REG.PQT)).toBe(0n)
  })

  it('a stop marker gets no response', () => {
    const { b } = ready()
    b.scalable()
    b.unit.pageRequest(ask({ read: false, write: false }))
    expect(b.responses).toEqual([])
  })

  it('forgets the page, so that a permission raised without invalidation is seen', () => {
    const { b, fs } = ready()
    const va = 0x7f00_1234_5000n
    const leaf = b.map(fs, va, 0x50_0000n | FULL)
    expect(b.dma(va, { pasid: 5 })).toBe(0x50_0000)
    b.store(leaf, 0x60_0000n | FULL)
    expect(b.dma(va, { pasid: 5 })).toBe(0x50_0000)
    b.unit.pageRequest(ask())
    expect(b.dma(va, { pasid: 5 })).toBe(0x60_0000)
  })

  it('a queue where no memory is answers "invalid"', () => {
    const { b } = ready()
    b.w64(REG.PQA, 0x7000_0000n)
    expect(b.unit.injectPageRequest(ask())).toBe(false)
    expect(b.responses).toHaveLength(1)
    expect(b.responses[0]!.code).toBe(1)
  })

  it.each([
    [0, 0],
    [1, 1],
    [15, 15],
    [7, 15],
  ])('software answers through the queue: response code %i is sent as %i', (rc, code) => {
    const { b } = ready()
    b.submit(
      descriptor.pageGroupResponse(BDF, 5, 9, rc),
      descriptor.pageGroupResponse(BDF, undefined, 511, rc),
    )
    expect(b.responses).toEqual([
      { requester: BDF, pasid: 5, prgIndex: 9, code },
      { requester: BDF, pasid: -1, prgIndex: 511, code },
    ])
  })

  it('tells the trace what became of a request and its response', () => {
    const { b } = ready()
    const seen: unknown[] = []
    b.trace.listen('vtd.page-request', e => seen.push(e.outcome))
    b.trace.listen('vtd.page-response', e => seen.push(e.code))
    b.unit.pageRequest(ask())
    b.submit(descriptor.pageGroupResponse(BDF, 5, 9, 0))
    b.unit.pageRequest(ask({ pasid: 6 }))
    expect(seen).toEqual(['queued', 0, 'refused', 1])
  })
})
