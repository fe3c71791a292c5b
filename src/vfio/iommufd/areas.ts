// The mapped areas of one address space, ascending. Areas of whole pages are in a map that stays flat; others, which
// only an address space without a domain has, in a short list beside it.
import { IntervalMap } from '../../base/interval-map.js'
import type { PinnedWindow, UserPages } from './pages.js'
import { inside, isWhole, lastPage, overlap, type Span, startsBefore } from './span.js'

/** One area: a range of IOVA on a part of a user's pages. */
export interface Area {
  readonly span: Span
  readonly pages: UserPages
  /** Where the user's memory begins: page, and bytes into it. */
  readonly vaddrPage: number
  readonly vaddrSkip: number
  /** IOMMU_READ and IOMMU_WRITE. */
  readonly prot: number
  /** Pins, while a domain maps it. */
  window: PinnedWindow | undefined
}

/** All areas of one address space. */
export class Areas {
  readonly #whole = new IntervalMap<Area>()
  readonly #cursor = this.#whole.cursor()
  readonly #odd: Area[] = []

  get size(): number {
    return this.#whole.size + this.#odd.length
  }

  insert(area: Area): void {
    const { span } = area
    if (isWhole(span)) {
      this.#whole.insert(span.page, lastPage(span), area)
      return
    }
    const at = this.#odd.findIndex(o => startsBefore(span, o.span))
    this.#odd.splice(at < 0 ? this.#odd.length : at, 0, area)
  }

  remove(area: Area): void {
    if (isWhole(area.span)) this.#whole.remove(area.span.page)
    else this.#odd.splice(this.#odd.indexOf(area), 1)
  }

  /** The lowest area that shares a byte with the range. */
  first(span: Span): Area | undefined {
    const cursor = this.#cursor
    let found: Area | undefined
    if (cursor.seek(span.page) && cursor.start <= lastPage(span)) found = cursor.value
    if (this.#odd.length === 0) return found
    const odd = this.#odd.find(o => overlap(o.span, span))
    return odd !== undefined && (found === undefined || startsBefore(odd.span, found.span))
      ? odd
      : found
  }

  /** The areas that share a byte with the range, ascending; they may be removed meanwhile. */
  in(span: Span): Area[] {
    const found: Area[] = []
    const cursor = this.#cursor
    const last = lastPage(span)
    for (let more = cursor.seek(span.page); more && cursor.start <= last; more = cursor.next())
      found.push(cursor.value)
    if (this.#odd.length === 0) return found
    found.push(...this.#odd.filter(o => overlap(o.span, span)))
    return found.sort((a, b) => (startsBefore(a.span, b.span) ? -1 : 1))
  }

  /** The areas that cover a range without a hole, ascending; undefined when something is missing. */
  covering(span: Span): Area[] | undefined {
    const found = this.in(span)
    let page = span.page
    let skip = span.skip
    for (const { span: s } of found) {
      if (s.page > page || (s.page === page && s.skip > skip)) return undefined
      skip = 4096 - s.spare
      page = lastPage(s)
      if (skip === 4096) {
        page++
        skip = 0
      }
    }
    const last = found.at(-1)
    return last !== undefined &&
      inside(
        { ...span, page: lastPage(span), pages: 1, skip: 0 },
        {
          page: 0,
          pages: lastPage(last.span) + 1,
          skip: 0,
          spare: last.span.spare,
        },
      )
      ? found
      : undefined
  }
}
