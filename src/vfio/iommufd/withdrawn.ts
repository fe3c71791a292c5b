// Areas of pages that their guest has made private: taken out of every domain, and every cache, before the page is
// private, and put back when it is shared again. The area and its pins stay. type1's is vfio/withdrawn.ts.
import { ErrnoError } from '../../base/errno.js'
import type { PagingTable } from '../../iommu/user-tables.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import type { Area, Areas } from './areas.js'
import { EVERYTHING } from './span.js'

/** Keeps withdrawn pages out of the domains of one address space. */
export class WithdrawnAreas {
  readonly #areas: Areas
  readonly #domains: readonly PagingTable[]
  readonly #watched = new Map<ProcessMemory, () => void>()

  constructor(areas: Areas, domains: readonly PagingTable[]) {
    this.#areas = areas
    this.#domains = domains
  }

  /** Hears of a process's pages from now on. */
  watch(memory: ProcessMemory): void {
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
  }

  /** Takes what is withdrawn out of a domain that an area was just put into. */
  cut({ span, pages, vaddrPage }: Area, domain: PagingTable): void {
    const { withdrawals } = pages.memory
    for (let i = 0; i < span.pages; i++) {
      i += withdrawals.run(vaddrPage + i, span.pages - i)
      if (i < span.pages) domain.unmap(span.page + i, 1)
    }
  }

  #withdraw(memory: ProcessMemory, first: number, pages: number): void {
    const found = [...this.#overlapping(memory, first, pages)]
    for (const [area, from, count] of found)
      for (const domain of this.#domains) domain.unmap(area.span.page + from, count)
    if (found.length > 0) for (const domain of this.#domains) domain.flush()
  }

  // A page that cannot be mapped again for want of memory faults until it is mapped anew.
  #restore(memory: ProcessMemory, first: number, pages: number): void {
    for (const [area, from, count] of this.#overlapping(memory, first, pages))
      for (let i = from; i < from + count; i++) {
        if (memory.withdrawals.has(area.vaddrPage + i)) continue
        for (const domain of this.#domains) mapPage(domain, area, i)
      }
  }

  *#overlapping(
    memory: ProcessMemory,
    first: number,
    pages: number,
  ): Generator<[area: Area, from: number, count: number]> {
    for (const area of this.#areas.in(EVERYTHING)) {
      if (area.window === undefined || area.pages.memory !== memory) continue
      const low = Math.max(first, area.vaddrPage)
      const high = Math.min(first + pages, area.vaddrPage + area.span.pages)
      if (low < high) yield [area, low - area.vaddrPage, high - low]
    }
  }
}

function mapPage(domain: PagingTable, { span, pages, vaddrPage, prot, window }: Area, i: number) {
  if (domain.iovaToPhys(span.page + i) >= 0) return
  try {
    pages.frames(window!, vaddrPage + i, 1, (_, frame) => domain.map(span.page + i, frame, 1, prot))
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
  }
}
