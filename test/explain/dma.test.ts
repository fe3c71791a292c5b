import { describe, expect, it } from 'vitest'
import type { Iova } from '../../src/base/addr.js'
import { DMA_CAUSES } from '../../src/explain/dma-causes.js'
import { explain, explanation } from '../../src/explain/index.js'
import type { DmaFailureReason } from '../../src/pci/dma.js'

const reasons = Object.keys(DMA_CAUSES) as DmaFailureReason[]
const event = (failure: DmaFailureReason | undefined) => ({
  requester: 0x100,
  pasid: 5,
  hi: 0,
  lo: 0x4000_5000,
  length: 64,
  write: true,
  at: 0,
  output: -1,
  failure,
})

describe('refused completions explained', () => {
  it.each(reasons)('%s, as the trace tells it and as the device sees it', reason => {
    const told = explanation(event(reason))
    expect(told.summary).toContain('0000:01:00.0 wanted to write at 0x40005000 with PASID 5')
    expect(told).toMatchObject({
      title: expect.stringContaining(reason),
      cause: DMA_CAUSES[reason].cause,
    })
    const at = 0x4000_5000n as Iova
    const seen = explanation({ ok: false, reason, status: 1, at, done: 16, recoverable: false })
    expect(seen.summary).toContain('stopped at 0x40005000 after 16 bytes')
    expect(seen.cure).toBe(told.cure)
  })
  it('says when a page request may help', () => {
    const at = 0x1000n as Iova
    const text = explain({
      ok: false,
      reason: 'not-present',
      status: 0,
      at,
      done: 0,
      recoverable: true,
    })
    expect(text.replaceAll('\n', ' ')).toContain('A page request may help.')
  })
  it('a request that was not refused is the caller’s mistake', () => {
    expect(() => explain(event(undefined))).toThrow(/was not refused/)
  })
})
