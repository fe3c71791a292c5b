// Ranges of 64-bit addresses by the byte, exact without a bigint: the pages they touch, and the bytes missing at
// both ends. An IOAS without a domain takes such ranges; with one they are whole pages. Who keeps them: areas.ts.

const PAGE = 4096
const HALF = 0x1_0000_0000

/** A range that is not empty. `page` and `pages` are exact: at most 2^52. */
export interface Span {
  /** First page it touches, and how many it touches. */
  readonly page: number
  readonly pages: number
  /** Bytes of the first page before it, and of the last page behind it. */
  readonly skip: number
  readonly spare: number
}

/** Whole pages. */
export const pageSpan = (page: number, pages: number): Span => ({ page, pages, skip: 0, spare: 0 })

/** Everything there is. */
export const EVERYTHING: Span = pageSpan(0, 2 ** 52)

/** The range of a start and a length (not 0) in unsigned halves; undefined when it wraps. */
export function spanOf(
  hi: number,
  lo: number,
  lengthHi: number,
  lengthLo: number,
): Span | undefined {
  const lessLo = lengthLo === 0 ? HALF - 1 : lengthLo - 1
  const lessHi = lengthLo === 0 ? lengthHi - 1 : lengthHi
  const sum = lo + lessLo
  const lastLo = sum >= HALF ? sum - HALF : sum
  const lastHi = hi + lessHi + (sum >= HALF ? 1 : 0)
  if (lastHi >= HALF) return undefined
  return between(hi, lo, lastHi, lastLo)
}

/** The range from a first to a last byte, in unsigned halves. */
export function between(hi: number, lo: number, lastHi: number, lastLo: number): Span {
  const page = hi * 0x10_0000 + (lo >>> 12)
  const last = lastHi * 0x10_0000 + (lastLo >>> 12)
  return { page, pages: last - page + 1, skip: lo & 4095, spare: 4095 - (lastLo & 4095) }
}

/** Whether it is made of whole pages. */
export const isWhole = (s: Span): boolean => s.skip === 0 && s.spare === 0

/** Its last page. */
export const lastPage = (s: Span): number => s.page + s.pages - 1

/** Whether `a` begins before `b` does. */
export const startsBefore = (a: Span, b: Span): boolean =>
  a.page < b.page || (a.page === b.page && a.skip < b.skip)

/** Whether `a` ends behind the end of `b`. */
export const endsBehind = (a: Span, b: Span): boolean =>
  lastPage(a) > lastPage(b) || (lastPage(a) === lastPage(b) && a.spare < b.spare)

/** Whether two ranges share a byte. */
export function overlap(a: Span, b: Span): boolean {
  const lastA = lastPage(a)
  const lastB = lastPage(b)
  if (lastA < b.page || lastB < a.page) return false
  if (lastA === b.page && PAGE - 1 - a.spare < b.skip) return false
  return !(lastB === a.page && PAGE - 1 - b.spare < a.skip)
}

/** Whether `a` lies in `b`. */
export const inside = (a: Span, b: Span): boolean => !startsBefore(a, b) && !endsBehind(a, b)

/** Bytes; exact up to 2^53. */
export const bytesOf = (s: Span): number => s.pages * PAGE - s.skip - s.spare

/** Bytes. */
export const length64 = (s: Span): bigint => BigInt(s.pages) * 4096n - BigInt(s.skip + s.spare)

/** First byte and last byte. */
export const start64 = (s: Span): bigint => BigInt(s.page) * 4096n + BigInt(s.skip)
export const last64 = (s: Span): bigint => start64(s) + length64(s) - 1n

/** The range as hexadecimal, for messages. */
export const show = (s: Span): string => `0x${start64(s).toString(16)}..0x${last64(s).toString(16)}`

/** Whether start and length are multiples of `alignment`, a power of two up to a page. */
export const aligned = (s: Span, alignment: number): boolean =>
  ((s.skip | (PAGE - s.spare)) & (alignment - 1)) === 0
