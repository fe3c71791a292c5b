// Where a mapping goes that names no IOVA: the lowest hole that fits, aligned so that large IOMMU pages can be used
// when the user's address allows them; never the first or last page. A hint keeps filling upwards cheap.
import { ErrnoError } from '../../base/errno.js'
import type { IovaRange } from '../../iommu/domain.js'
import type { Areas } from './areas.js'
import { isWhole, lastPage, type Span } from './span.js'

/** Mappings are aligned for large pages up to this, in pages: 2 MiB. */
const LARGEST = 512
/** First page used and page after the last. */
const FIRST = 1
const END = 2 ** 52 - 1

/** Finds room in one address space. */
export class IovaFinder {
  readonly #areas: Areas
  // No page below is free.
  #hint = FIRST

  constructor(areas: Areas) {
    this.#areas = areas
  }

  /** Something was unmapped. */
  freed(span: Span): void {
    if (span.page < this.#hint) this.#hint = Math.max(FIRST, span.page)
  }

  /** A reserved range is reserved no more. */
  widened(): void {
    this.#hint = FIRST
  }

  /** Room for `length` bytes of memory at that address; undefined when there is none. EOVERFLOW beyond half of all. */
  find(
    vaddrPage: number,
    vaddrSkip: number,
    length: Span,
    allowed: readonly Span[],
    reserved: readonly IovaRange[],
  ): Span | undefined {
    if (length.pages >= 2 ** 51) throw new ErrnoError('EOVERFLOW', 'the mapping is too large')
    const bytes = length.pages * 4096 - length.skip - length.spare
    const pages = Math.ceil((vaddrSkip + bytes) / 4096)
    const spare = pages * 4096 - vaddrSkip - bytes
    const step = alignment(vaddrPage, vaddrSkip, pages)
    if (allowed.length === 0) {
      const found = this.#search(this.#hint, END - 1, pages, step, reserved)
      if (found === undefined) return undefined
      if (found === this.#hint && isWhole(length) && vaddrSkip === 0) this.#hint += pages
      return { page: found, pages, skip: vaddrSkip, spare }
    }
    for (const span of [...allowed].sort((a, b) => a.page - b.page)) {
      const first = Math.max(FIRST, span.skip > vaddrSkip ? span.page + 1 : span.page)
      const last = Math.min(END - 1, span.spare > spare ? lastPage(span) - 1 : lastPage(span))
      const found = this.#search(first, last, pages, step, reserved)
      if (found !== undefined) return { page: found, pages, skip: vaddrSkip, spare }
    }
    return undefined
  }

  #search(
    from: number,
    last: number,
    pages: number,
    step: number,
    reserved: readonly IovaRange[],
  ): number | undefined {
    let page = Math.ceil(from / step) * step
    while (page + pages - 1 <= last) {
      const end = page + pages - 1
      const range = reserved.find(r => r.startPage <= end && page <= r.endPage)
      const area = range ? undefined : this.#areas.first({ page, pages, skip: 0, spare: 0 })
      if (range === undefined && area === undefined) return page
      const taken = range ? range.endPage : lastPage(area!.span)
      page = Math.ceil((taken + 1) / step) * step
    }
    return undefined
  }
}

/** Pages that the place is a multiple of: what length and user address have in common, at most a large page. */
function alignment(vaddrPage: number, vaddrSkip: number, pages: number): number {
  if (vaddrSkip !== 0) return 1
  let step = 1
  while (step < LARGEST && step < pages && vaddrPage % (step * 2) === 0) step *= 2
  return step
}
