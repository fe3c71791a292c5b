// An I/O address space: what is mapped where, in every domain over it; what devices reserve and users allow.
// Knows no ioctl structure: ioas.ts and compat.ts do. Whatever is refused changes nothing, unmapping of several
// areas included. uapi linux/iommufd.h, "I/O address space".
import { ErrnoError } from '../../base/errno.js'
import { IOMMU_WRITE, type IovaRange } from '../../iommu/domain.js'
import type { PagingTable } from '../../iommu/user-tables.js'
import { type Area, Areas } from './areas.js'
import { IovaFinder } from './iova-finder.js'
import type { UserPages } from './pages.js'
import {
  aligned,
  EVERYTHING,
  endsBehind,
  isWhole,
  lastPage,
  overlap,
  pageSpan,
  type Span,
  show,
  startsBefore,
} from './span.js'
import { WithdrawnAreas } from './withdrawn.js'

/** A part of a user's pages to be mapped: `length` as a range from 0. */
export interface Piece {
  readonly pages: UserPages
  readonly vaddrPage: number
  readonly vaddrSkip: number
  /** A range of the piece's length. */
  readonly span: Span
}

interface Reserved extends IovaRange {
  readonly owner: object
}

const LAST_PAGE = 2 ** 52 - 1

/** One address space. */
export class IoPageTable {
  readonly areas = new Areas()
  readonly #domains: PagingTable[] = []
  readonly #withdrawn = new WithdrawnAreas(this.areas, this.#domains)
  readonly #finder: IovaFinder
  #reserved: Reserved[] = []
  #allowed: readonly Span[] = []
  #alignment = 1
  #largePages = true

  constructor() {
    this.#finder = new IovaFinder(this.areas)
  }

  /** Bytes that IOVA, length and user address are multiples of; 1 without a domain. */
  get alignment(): number {
    return this.#alignment
  }

  get domains(): readonly PagingTable[] {
    return this.#domains
  }

  get largePages(): boolean {
    return this.#largePages
  }

  /** What is neither reserved nor beyond a domain's tables, ascending; both ends included. */
  ranges(): IovaRange[] {
    const out: IovaRange[] = []
    let next = 0
    for (const { startPage, endPage } of [...this.#reserved].sort(
      (a, b) => a.startPage - b.startPage,
    )) {
      if (startPage > next) out.push({ startPage: next, endPage: startPage - 1 })
      next = Math.max(next, endPage + 1)
    }
    if (next <= LAST_PAGE) out.push({ startPage: next, endPage: LAST_PAGE })
    return out
  }

  /** Replaces the ranges that automatic placement uses. EADDRINUSE when one touches a reserved range. */
  allow(spans: readonly Span[]): void {
    const taken = spans.find(s => this.#isReserved(s))
    if (taken) throw new ErrnoError('EADDRINUSE', `IOVA ${show(taken)} is reserved`)
    this.#allowed = spans
  }

  /** Reserves ranges for a device or domain. EADDRINUSE when one touches a mapping or an allowed range. */
  reserve(owner: object, ranges: readonly IovaRange[]): void {
    for (const { startPage, endPage } of ranges) {
      const span = pageSpan(startPage, endPage - startPage + 1)
      if (this.areas.first(span) || this.#allowed.some(a => overlap(a, span)))
        throw new ErrnoError('EADDRINUSE', `reserved IOVA ${show(span)} is mapped or allowed`)
    }
    for (const { startPage, endPage } of ranges) this.#reserved.push({ startPage, endPage, owner })
  }

  unreserve(owner: object): void {
    this.#reserved = this.#reserved.filter(r => r.owner !== owner)
    this.#finder.widened()
  }

  /** Large IOMMU pages on or off. EINVAL to change while something is mapped in a domain. */
  setLargePages(on: boolean): void {
    if (on === this.#largePages) return
    if (this.#domains.length > 0 && this.areas.size > 0)
      throw new ErrnoError('EINVAL', 'huge pages: something is mapped')
    if (!on && !this.#fits(4096))
      throw new ErrnoError('EADDRINUSE', 'huge pages: a mapping is no whole pages')
    this.#largePages = on
    this.#realign()
  }

  /**
   * Maps pieces one after the other at a place, or where there is room. EINVAL alignment, reserved; EEXIST; ENOSPC;
   * EPERM writing through what is read-only; EFAULT, ENOMEM when it must be pinned. Answers where.
   */
  map(pieces: readonly Piece[], at: Span | undefined, length: Span, prot: number): Span {
    this.checkLength(length)
    const span = at === undefined ? this.#place(pieces[0]!, length) : this.#check(at)
    const made: Area[] = []
    try {
      if (prot & IOMMU_WRITE && pieces.some(p => !p.pages.writable))
        throw new ErrnoError('EPERM', 'the memory was mapped for reading only')
      if (pieces.some(p => p.vaddrSkip & (this.#alignment - 1)))
        throw new ErrnoError('EINVAL', `the user address is no multiple of ${this.#alignment}`)
      let from = span
      for (const piece of pieces) {
        const part = piece.span === length ? span : leading(from, piece.span)
        const { pages, vaddrPage, vaddrSkip } = piece
        const { failures } = pages.memory.frames
        if (failures.armed) failures.step('an area')
        const area: Area = { span: part, pages, vaddrPage, vaddrSkip, prot, window: undefined }
        if (this.#domains.length > 0) this.#fill(area)
        this.areas.insert(area)
        made.push(area)
        if (made.length < pieces.length) from = behind(from, part)
      }
    } catch (error) {
      this.#removeAll(made)
      this.#finder.freed(span)
      throw error
    }
    return span
  }

  /** The parts of users' memory that a range shows. ENOENT when it is not mapped without a hole. */
  pieces(span: Span): Piece[] {
    const areas = this.areas.covering(span)
    if (areas === undefined)
      throw new ErrnoError('ENOENT', `IOVA ${show(span)} is not mapped whole`)
    return areas.map(({ span: s, pages, vaddrPage, vaddrSkip }) => {
      const cut = clip(s, span)
      const bytes = vaddrSkip + (cut.page - s.page) * 4096 + cut.skip - s.skip
      return {
        pages,
        vaddrPage: vaddrPage + Math.floor(bytes / 4096),
        vaddrSkip: bytes % 4096,
        span: cut,
      }
    })
  }

  /** EINVAL for a length that cannot be mapped. */
  checkLength(length: Span): void {
    if (!aligned(length, this.#alignment))
      throw new ErrnoError('EINVAL', `the length is no multiple of ${this.#alignment}`)
  }

  /** Unmaps the areas in a range and answers them. ENOENT, and nothing done, when it would cut one. */
  unmap(span: Span): Area[] {
    const found = this.areas.in(span)
    const cut = found.find(({ span: s }) => startsBefore(s, span) || endsBehind(s, span))
    if (cut) throw new ErrnoError('ENOENT', `unmapping would cut the area ${show(cut.span)}`)
    this.#removeAll(found)
    return found
  }

  /** Cuts the areas that a range begins or ends in; for address spaces without large pages. */
  cut(span: Span): void {
    for (const area of this.areas.in(span)) {
      if (startsBefore(area.span, span)) this.#cutAt(area, span.page)
    }
    for (const area of this.areas.in(span)) {
      if (endsBehind(area.span, span)) this.#cutAt(area, lastPage(span) + 1)
    }
  }

  /** Puts a domain over it, with everything mapped. EADDRINUSE, EFAULT, ENOMEM leave it as it was. */
  addDomain(domain: PagingTable): void {
    const smallest = Math.max(4096, domain.pgsizes[0] ?? 4096)
    if (!this.#fits(smallest))
      throw new ErrnoError('EADDRINUSE', `a mapping is no multiple of ${smallest}`)
    this.reserve(domain, [{ startPage: domain.apertureEndPage + 1, endPage: LAST_PAGE }])
    this.#domains.push(domain)
    const done: Area[] = []
    try {
      for (const area of this.areas.in(EVERYTHING)) {
        this.#fill(area, domain)
        done.push(area)
      }
    } catch (error) {
      this.#domains.pop()
      for (const area of done) this.#empty(area, domain)
      domain.flush()
      for (const area of done) this.#release(area)
      this.unreserve(domain)
      throw error
    }
    this.#realign()
  }

  /** Takes a domain off. */
  removeDomain(domain: PagingTable): void {
    this.#domains.splice(this.#domains.indexOf(domain), 1)
    const areas = this.areas.in(EVERYTHING)
    for (const area of areas) this.#empty(area, domain)
    domain.flush()
    for (const area of areas) this.#release(area)
    this.unreserve(domain)
    this.#realign()
    if (this.#domains.length === 0) this.#withdrawn.stop()
  }

  /** Unmaps everything; for its end. */
  clear(): void {
    this.#removeAll(this.areas.in(EVERYTHING))
  }

  #check(span: Span): Span {
    if (!aligned(span, this.#alignment))
      throw new ErrnoError('EINVAL', `IOVA ${show(span)} is no multiple of ${this.#alignment}`)
    if (this.#isReserved(span)) throw new ErrnoError('EINVAL', `IOVA ${show(span)} is reserved`)
    if (this.areas.first(span)) throw new ErrnoError('EEXIST', `IOVA ${show(span)} is mapped`)
    return span
  }

  #place(first: Piece, length: Span): Span {
    const { vaddrPage, vaddrSkip } = first
    const found = this.#finder.find(vaddrPage, vaddrSkip, length, this.#allowed, this.#reserved)
    if (found === undefined) throw new ErrnoError('ENOSPC', 'no room for the mapping')
    return this.#check(found)
  }

  #isReserved(span: Span): boolean {
    const last = lastPage(span)
    return this.#reserved.some(r => r.startPage <= last && span.page <= r.endPage)
  }

  /** Whether every area may be in a domain with pages of that size. */
  #fits(size: number): boolean {
    return this.areas
      .in(EVERYTHING)
      .every(a => isWhole(a.span) && aligned(a.span, size) && (a.vaddrSkip & (size - 1)) === 0)
  }

  #realign(): void {
    this.#alignment = this.#domains.reduce(
      (most, d) => Math.max(most, d.pgsizes[0] ?? 4096),
      this.#largePages ? 1 : 4096,
    )
  }

  // Pins an area and maps it into one domain or all; undone when refused.
  #fill(area: Area, only?: PagingTable): void {
    const { span, pages, vaddrPage, prot } = area
    const window = pages.hold(vaddrPage, span.pages)
    this.#withdrawn.watch(pages.memory)
    const domains = only ? [only] : this.#domains
    let n = 0
    try {
      for (; n < domains.length; n++) {
        pages.frames(window, vaddrPage, span.pages, (index, frame, run) =>
          this.#mapRun(domains[n]!, span.page + index, frame, run, prot),
        )
        if (pages.memory.withdrawals.any) this.#withdrawn.cut(area, domains[n]!)
      }
    } catch (error) {
      for (let i = 0; i <= n; i++) {
        domains[i]!.unmap(span.page, span.pages)
        domains[i]!.flush()
      }
      pages.drop(window)
      throw error
    }
    // One hold an area, however many domains.
    if (area.window === undefined) area.window = window
    else pages.drop(window)
  }

  #mapRun(domain: PagingTable, page: number, frame: number, run: number, prot: number): void {
    if (this.#largePages) domain.map(page, frame, run, prot)
    else for (let i = 0; i < run; i++) domain.map(page + i, frame + i, 1, prot)
  }

  #empty({ span }: Area, domain: PagingTable): void {
    domain.unmap(span.page, span.pages)
  }

  // Lets pins go that no domain needs.
  #release(area: Area): void {
    if (this.#domains.length > 0 || area.window === undefined) return
    area.pages.drop(area.window)
    area.window = undefined
  }

  #removeAll(areas: readonly Area[]): void {
    for (const area of areas) {
      for (const domain of this.#domains) this.#empty(area, domain)
      this.areas.remove(area)
      this.#finder.freed(area.span)
    }
    for (const domain of this.#domains) domain.flush()
    for (const area of areas) {
      if (area.window) area.pages.drop(area.window)
      area.window = undefined
    }
  }

  #cutAt(area: Area, page: number): void {
    const { span, pages, vaddrPage, vaddrSkip, prot, window } = area
    const n = page - span.page
    const second = window && pages.cut(window, vaddrPage + n)
    this.areas.remove(area)
    this.areas.insert({ ...area, span: pageSpan(span.page, n) })
    this.areas.insert({
      span: pageSpan(page, span.pages - n),
      pages,
      vaddrPage: vaddrPage + n,
      vaddrSkip,
      prot,
      window: second,
    })
  }
}

/** The part of `s` that lies in `bounds`. */
function clip(s: Span, bounds: Span): Span {
  const from = startsBefore(s, bounds) ? bounds : s
  const to = endsBehind(s, bounds) ? bounds : s
  return { page: from.page, skip: from.skip, pages: lastPage(to) - from.page + 1, spare: to.spare }
}

/** As many bytes as `length` has, from the start of `s`. */
function leading(s: Span, length: Span): Span {
  const bytes = length.pages * 4096 - length.skip - length.spare
  const end = s.skip + bytes
  const pages = Math.ceil(end / 4096)
  return { page: s.page, skip: s.skip, pages, spare: pages * 4096 - end }
}

/** What is left of `s` behind its leading part. */
function behind(s: Span, part: Span): Span {
  const last = lastPage(part)
  const page = part.spare === 0 ? last + 1 : last
  return {
    page,
    skip: part.spare === 0 ? 0 : 4096 - part.spare,
    pages: lastPage(s) - page + 1,
    spare: s.spare,
  }
}
