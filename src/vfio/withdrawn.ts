// Mappings of pages that their guest has made private: taken out of every IOMMU domain, and out of every cache, before
// the page is private, and put back when it is shared again. The mapping itself, its pins and its account stay.
// Next: mem/withdrawals.ts says which pages; dma.ts keeps the mappings.
import { PAGE_SIZE } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { Domain } from '../iommu/domain.js'
import type { ProcessMemory } from '../mem/process-memory.js'
import type { DmaMapping } from './dma.js'
import './trace.js'

/** What it needs of the mappings of a container. */
export interface WithdrawnParts {
  readonly domains: readonly Domain[]
  /** Every mapping. */
  readonly all: () => Iterable<DmaMapping>
  readonly trace: TraceBus
}

/** Keeps withdrawn pages out of the domains of one container. */
export class WithdrawnMappings {
  readonly #parts: WithdrawnParts
  readonly #point: TracePoint<TraceEvents['vfio.withdraw']>
  readonly #watched = new Map<ProcessMemory, () => void>()
  /** The memory asked for last. */
  #last: ProcessMemory | undefined

  constructor(parts: WithdrawnParts) {
    this.#parts = parts
    this.#point = parts.trace.point('vfio.withdraw')
  }

  /** Hears of a process's pages from now on. */
  watch(memory: ProcessMemory): void {
    if (memory === this.#last) return
    this.#last = memory
    if (this.#watched.has(memory)) return
    const stop = memory.withdrawals.listen((first, pages, withdrawn) =>
      withdrawn ? this.#withdraw(memory, first, pages) : this.#restore(memory, first, pages),
    )
    this.#watched.set(memory, stop)
  }

  /** Hears of nothing any more. */
  stop(): void {
    for (const stop of this.#watched.values()) stop()
    this.#watched.clear()
    this.#last = undefined
  }

  /** Takes what is withdrawn out of a domain that a mapping was just put into. */
  cut(m: DmaMapping, domain: Domain): void {
    const { withdrawals } = m.memory
    for (let i = 0; i < m.pages; i++) {
      i += withdrawals.run(m.vaddrPage + i, m.pages - i)
      if (i < m.pages) domain.unmap(m.iovaPage + i, 1)
    }
  }

  #withdraw(memory: ProcessMemory, first: number, pages: number): void {
    const { domains } = this.#parts
    let any = false
    for (const [m, from, count] of this.#overlapping(memory, first, pages)) {
      for (const domain of domains) domain.unmap(m.iovaPage + from, count)
      any = true
      this.#tell(m, from, count, true)
    }
    if (any) for (const domain of domains) domain.flush()
  }

  // A page that cannot be mapped again for want of memory faults until it is mapped anew.
  #restore(memory: ProcessMemory, first: number, pages: number): void {
    for (const [m, from, count] of this.#overlapping(memory, first, pages)) {
      for (let i = from; i < from + count; i++) {
        if (memory.withdrawals.has(m.vaddrPage + i)) continue
        for (const domain of this.#parts.domains) mapPage(domain, m, i)
      }
      this.#tell(m, from, count, false)
    }
  }

  *#overlapping(
    memory: ProcessMemory,
    first: number,
    pages: number,
  ): Generator<[mapping: DmaMapping, from: number, count: number]> {
    for (const m of [...this.#parts.all()]) {
      if (m.memory !== memory || m.suspended) continue
      const low = Math.max(first, m.vaddrPage)
      const high = Math.min(first + pages, m.vaddrPage + m.pages)
      if (low < high) yield [m, low - m.vaddrPage, high - low]
    }
  }

  #tell(m: DmaMapping, from: number, pages: number, withdrawn: boolean): void {
    if (!this.#point.on) return
    const bytes = (n: number) => BigInt(n) * BigInt(PAGE_SIZE)
    const frame = frameOf(m, from)
    const hpa = frame < 0 ? -1 : frame * PAGE_SIZE
    this.#point.emit({ iova: bytes(m.iovaPage + from), size: bytes(pages), hpa, withdrawn })
  }
}

function mapPage(domain: Domain, m: DmaMapping, page: number): void {
  const frame = frameOf(m, page)
  if (frame < 0 || domain.iovaToPhys(m.iovaPage + page) >= 0) return
  try {
    domain.map(m.iovaPage + page, frame, 1, m.prot)
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
  }
}

// The frame that is pinned for a page of a mapping; -1 while nothing is.
function frameOf(m: DmaMapping, page: number): number {
  if (page < m.runPages) return m.hpaPage + page
  let left = page - m.runPages
  const { more = [] } = m
  for (let i = 0; i < more.length; i += 3) {
    if (left < more[i + 1]!) return more[i]! + left
    left -= more[i + 1]!
  }
  return -1
}
