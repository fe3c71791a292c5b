// The confidential-DMA checker: names every DMA that reached for a page which is not for devices, before it moved a byte,
// with both histories: what became of the page, and how the device came to its address. It changes nothing that software
// sees; the pages themselves are kept in mem/confidential.ts.

import { formatBdf, hex, join } from './base/addr.js'
import type { VirtualClock } from './base/clock.js'
import type { TraceBus, TraceEvents } from './base/trace.js'
import type { AddressSpace } from './mem/address-space.js'
import {
  type ConfidentialDma,
  ConfidentialPages,
  type DeviceAccess,
  describePageState,
  type MappingEvent,
} from './mem/confidential.js'
import './pci/dma.js'
import './vfio/trace.js'

/** Events kept for a range of I/O virtual addresses, and ranges kept. */
const KEPT = 8
const RANGES = 4096
const PAGE = 4096n

/** A range that was mapped for DMA, as long as anybody may ask for it. */
interface Range {
  readonly first: bigint
  readonly last: bigint
  readonly events: MappingEvent[]
  /** Parts that left the IOMMU because a guest took them back. */
  withdrawn: Withdrawn[]
}

interface Withdrawn {
  readonly first: bigint
  readonly last: bigint
  readonly hpa: number
}

/** Listens to one machine. */
export class ConfidentialDmaChecker {
  /** Everything found, in order. */
  readonly found: ConfidentialDma[] = []
  readonly #clock: VirtualClock
  readonly #pages: ConfidentialPages
  readonly #ranges: Range[] = []

  constructor(memory: AddressSpace, clock: VirtualClock, trace: TraceBus) {
    this.#clock = clock
    this.#pages = ConfidentialPages.of(memory, clock, trace)
    this.#pages.mappingHistory = access => this.#history(join(access.hi, access.lo))
    this.#pages.onFound(found => this.found.push(found))
    trace.listen('vfio.map', e => this.#mapped(e))
    trace.listen('vfio.unmap', e => this.#unmapped(e))
    trace.listen('vfio.withdraw', e => this.#withdraw(e))
    trace.listen('dma', e => this.#missed(e))
  }

  #mapped({ iova, vaddr, size, read, write }: TraceEvents['vfio.map']): void {
    const access = `${read ? 'read' : ''}${read && write ? ' and ' : ''}${write ? 'write' : ''}`
    const what = `VFIO_IOMMU_MAP_DMA: iova ${hex(iova)}, ${hex(size)} bytes at ${hex(vaddr)}, to ${access}`
    const events = [{ at: this.#clock.now, what }]
    this.#ranges.push({ first: iova, last: iova + size - 1n, events, withdrawn: [] })
    if (this.#ranges.length > RANGES) this.#ranges.shift()
  }

  #unmapped({ iova, size }: TraceEvents['vfio.unmap']): void {
    for (const range of this.#over(iova, iova + size - 1n)) {
      this.#note(range, `VFIO_IOMMU_UNMAP_DMA: iova ${hex(iova)}, ${hex(size)} bytes`)
      range.withdrawn = []
    }
  }

  #withdraw({ iova, size, hpa, withdrawn }: TraceEvents['vfio.withdraw']): void {
    const [first, last] = [iova, iova + size - 1n]
    for (const range of this.#over(first, last)) {
      const what = withdrawn ? 'left the IOMMU and every cache' : 'was mapped again'
      this.#note(range, `iova ${hex(iova)}, ${hex(size)} bytes, ${what}`)
      if (withdrawn) range.withdrawn.push({ first, last, hpa })
      else range.withdrawn = range.withdrawn.filter(w => w.first > last || w.last < first)
    }
  }

  // The IOMMU refused what the guest has taken back: nothing moved, and it is named all the same.
  #missed({ requester, pasid, hi, lo, length, write, failure }: TraceEvents['dma']): void {
    if (failure === undefined || failure === 'confidential' || pasid >= 0) return
    const address = join(hi, lo)
    const inside = (w: Withdrawn) => address >= w.first && address <= w.last
    const part = this.#ranges.findLast(r => r.withdrawn.some(inside))?.withdrawn.find(inside)
    if (part === undefined) return
    const frame = Math.floor((part.hpa + Number(address - part.first)) / Number(PAGE))
    this.found.push({
      time: this.#clock.now,
      requester,
      pasid,
      address,
      output: -1,
      length,
      access: write ? 'write' : 'read',
      state: { kind: 'withdrawn' },
      outcome: 'refused',
      page: [...this.#pages.history(frame)],
      mapping: this.#history(address),
    })
  }

  #history(address: bigint): readonly MappingEvent[] {
    const page = address - (address % PAGE)
    return [...this.#over(page, page + PAGE - 1n)]
      .flatMap(range => range.events)
      .sort((a, b) => a.at - b.at)
      .slice(-KEPT)
  }

  #note(range: Range, what: string): void {
    range.events.push({ at: this.#clock.now, what })
    if (range.events.length > KEPT) range.events.splice(1, 1)
  }

  *#over(first: bigint, last: bigint): Generator<Range> {
    for (const range of this.#ranges) if (range.first <= last && range.last >= first) yield range
  }
}

/** A finding as a paragraph a person can act on. */
export function describeConfidentialDma(found: ConfidentialDma): string {
  const { requester, pasid, address, output, length, access, state, outcome } = found
  const who = `${formatBdf(requester)}${pasid >= 0 ? ` PASID ${pasid}` : ''}`
  const where = output < 0 ? hex(address) : `${hex(address)} (host ${hex(output)})`
  const consequence =
    outcome === 'refused'
      ? 'It was refused; no byte moved.'
      : access === 'read'
        ? 'It saw ciphertext.'
        : 'What it wrote the guest cannot decrypt.'
  const lines = [
    `DMA ${access} of ${length} bytes by ${who} at ${where} reached ${describePageState(state)}. ${consequence}`,
  ]
  const list = (title: string, events: readonly (readonly [number, string])[]) => {
    if (events.length === 0) return
    lines.push(`  ${title}:`)
    for (const [at, what] of events) lines.push(`    ${(at / 1000).toFixed(3)} µs  ${what}`)
  }
  list(
    'the page',
    found.page.map(e => [e.at, `${e.state}: ${e.cause}`] as const),
  )
  list(
    "the device's way to it",
    found.mapping.map(e => [e.at, e.what] as const),
  )
  return lines.join('\n')
}

export type { ConfidentialDma, DeviceAccess }
