// What a device gets of pages that are not for devices (F-2, C-26), and who hears of it before a byte moves.
import { describe, expect, it } from 'vitest'
import { iova } from '../../src/base/addr.js'
import {
  type ConfidentialDma,
  ConfidentialPages,
  describePageState,
  type PageState,
} from '../../src/mem/confidential.js'
import { probe } from './probe.js'

const P5 = { pasid: 5 as never }
const FRAME = 0x10

/** A probe whose address 0x4000_0000 + n pages leads to frame 0x0f + n: the second page is `state`. */
function with_(state: PageState) {
  const p = probe()
  p.fn.config.write(p.cap(0x0f) + 6, 2, 0)
  p.h.complex.translator = p.t
  for (let i = 0; i < 3; i++) p.t.map(5, 0x4000_0000 + i * 4096, { output: 0xf000 + i * 4096 })
  const pages = ConfidentialPages.of(p.h.memory, p.h.clock, p.h.trace)
  const found: ConfidentialDma[] = []
  pages.onFound(f => found.push(f))
  pages.mark(FRAME, 1, state, 'made so')
  p.h.ram.fill(7, 0x1_0000, 0x1_1000)
  return { p, pages, found }
}

const REFUSED: PageState[] = [{ kind: 'private' }, { kind: 'withdrawn' }]

describe.each(REFUSED)('F-2: a page that is $kind', state => {
  it.each([true, false])('refuses a transfer that ends in it (write %s), nothing moves', write => {
    const { p, found } = with_(state)
    const bytes = new Uint8Array([1, 2, 3, 4])
    const at = iova(0x4000_1010n)
    const answer = write ? p.port.dma.write(at, bytes, P5) : p.port.dma.read(at, bytes, P5)
    expect(answer).toMatchObject({ ok: false, reason: 'confidential', status: 4, at: 0x4000_1010n })
    expect([...bytes]).toEqual([1, 2, 3, 4])
    expect(p.h.ram[0x1_0010]).toBe(7)
    expect(found).toEqual([
      {
        time: 0,
        requester: p.fn.bdf,
        pasid: 5,
        address: 0x4000_1010n,
        output: 0x1_0010,
        length: 4,
        access: write ? 'write' : 'read',
        state,
        outcome: 'refused',
        page: [{ at: 0, state: state.kind, cause: 'made so' }],
        mapping: [],
      },
    ])
  })

  it('lets the pages before it be written, as with any refused page', () => {
    const { p } = with_(state)
    const answer = p.port.dma.write(iova(0x4000_0000n), new Uint8Array(0x3000).fill(9), P5)
    expect(answer).toMatchObject({ ok: false, reason: 'confidential', done: 4096 })
    expect([p.h.ram[0xffff], p.h.ram[0x1_0000], p.h.ram[0x1_1000]]).toEqual([9, 7, 0])
  })

  it('is met by transfers that went there before it became so, and not after it is plain again', () => {
    const { p, pages } = with_(state)
    pages.mark(FRAME, 1, undefined, 'given back')
    const four = new Uint8Array(4)
    const at = iova(0x4000_1000n)
    for (let i = 0; i < 3; i++) expect(p.port.dma.write(at, four, P5)).toEqual({ ok: true })
    pages.mark(FRAME, 1, state, 'again')
    expect(p.port.dma.write(at, four, P5)).toMatchObject({ reason: 'confidential' })
    pages.mark(FRAME, 1, undefined, 'given back')
    expect(p.port.dma.write(at, four, P5)).toEqual({ ok: true })
    expect(pages.count).toBe(0)
  })
})

describe('C-26: an encrypted page', () => {
  it('is read as the ciphertext it holds and can be overwritten, and both are named first', () => {
    const { p, found } = with_({ kind: 'encrypted', asid: 3 })
    const bytes = new Uint8Array(4)
    expect(p.port.dma.read(iova(0x4000_1000n), bytes, P5)).toEqual({ ok: true })
    expect([...bytes]).toEqual([7, 7, 7, 7])
    p.port.dma.write(iova(0x4000_0ffen), new Uint8Array([1, 2, 3, 4]), P5)
    expect([...p.h.ram.subarray(0xfffe, 0x1_0003)]).toEqual([1, 2, 3, 4, 7])
    expect(found.map(f => [f.access, f.outcome, f.output])).toEqual([
      ['read', 'ciphertext', 0x1_0000],
      ['write', 'ciphertext', 0x1_0000],
    ])
  })
})

describe('the history of a page', () => {
  it('holds its last eight changes, and is kept when the page is plain again', () => {
    const { p, pages } = with_({ kind: 'private' })
    for (let i = 0; i < 5; i++) {
      p.h.clock.advance(10)
      pages.mark(FRAME, 1, undefined, `back ${i}`)
      pages.mark(FRAME, 1, { kind: 'withdrawn' }, `taken ${i}`)
    }
    const history = pages.history(FRAME)
    expect(history).toHaveLength(8)
    expect(history.at(-1)).toEqual({ at: 50, state: 'withdrawn', cause: 'taken 4' })
    expect(pages.history(FRAME + 1)).toEqual([])
    expect(pages.state(FRAME + 1)).toBeUndefined()
  })

  it('is on the trace bus, as is every access', () => {
    const { p, pages } = with_({ kind: 'private' })
    p.h.trace.keep(8)
    pages.mark(FRAME, 2, { kind: 'encrypted', asid: 1 }, 'launch')
    p.port.dma.read(iova(0x4000_1000n), new Uint8Array(4), P5)
    const names = p.h.trace.recent().map(r => r.name)
    expect(names).toEqual(['confidential-page', 'confidential-dma', 'dma'])
  })
})

it.each([
  [{ kind: 'private' }, 'private memory of a guest'],
  [{ kind: 'withdrawn' }, 'the shared copy of a page that its guest has made private'],
  [{ kind: 'encrypted', asid: 17 }, 'encrypted under ASID 0x11'],
] as const)('%j in words', (state, words) => {
  expect(describePageState(state)).toBe(words)
})
