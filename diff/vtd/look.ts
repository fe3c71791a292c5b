// Looks into a VT-d case from outside of the unit: the structures that a requester's DMA goes through, as
// the words of the case have them.
import type { Case, Step } from '../case.js'
import type { Difference } from '../deviation.js'
import { wordsBefore } from '../rewrite.js'
import { REGISTER, REQUESTERS, UNITS } from './units.js'

const PAGE = 0xf_ffff_ffff_f000n

/** Where the scalable-mode structures of a case are, by the device that its first DMA is of. */
export function scalablePlaces(
  c: Case,
): { context: number; directory: number; pasid: number } | undefined {
  const root = c.setup['RTADDR']!
  if ((root & 0x400n) === 0n) return undefined
  const dma = c.steps.find(s => s.op === 'dma')
  if (dma?.op !== 'dma') return undefined
  const requester = REQUESTERS[dma.device]
  const words = new Map(c.words)
  const word = (at: number) => words.get(at) ?? 0n
  // Flaws leave low address bits alone: tables are below 4 GiB.
  const page = (v: bigint) => Number(v & PAGE & 0xffff_ffffn)
  const context =
    page(word(Number(root & ~0xfffn) + (requester & 0x80 ? 8 : 0))) + (requester & 0x7f) * 32
  const directory = page(word(context))
  return { context, directory, pasid: page(word(directory)) }
}

/** The PASID table entry that governs a DMA. */
export function pasidEntry(d: Difference): bigint[] {
  const places = scalablePlaces(d.case)
  if (!places) return []
  const words = wordsBefore(d.case, d.index)
  return Array.from({ length: 8 }, (_, i) => words.get(places.pasid + i * 8) ?? 0n)
}

/** The same case with other invalidations, queued or by CCMD_REG. */
export function mapInvalidations(
  c: Case,
  change: (words: readonly [bigint, bigint]) => readonly [bigint, bigint],
): Case | undefined {
  let changed = false
  const apply = (words: readonly [bigint, bigint]) => {
    const now = change(words)
    changed ||= now !== words
    return now
  }
  const steps = c.steps.map((s): Step => {
    if (s.op === 'invalidate') return { ...s, words: apply(s.words) }
    if (s.op !== 'register' || s.offset !== REGISTER.CCMD) return s
    const [lo] = apply([descriptorOfCcmd(s.value), 0n])
    return { ...s, value: (1n << 63n) | (((lo >> 4n) & 3n) << 61n) | (s.value & 0x3_ffff_ffffn) }
  })
  return changed ? { ...c, steps } : undefined
}

/** The descriptor that stands for a value of CCMD_REG. */
const descriptorOfCcmd = (v: bigint): bigint =>
  1n |
  (((v >> 61n) & 3n) << 4n) |
  ((v & 0xffffn) << 16n) |
  (((v >> 16n) & 0xffffn) << 32n) |
  (((v >> 32n) & 3n) << 48n)

/** Domains of the case's requester. */
function domainsOf(c: Case): bigint[] {
  const places = scalablePlaces(c)
  const at = places ? places.pasid + 8 : legacyContext(c) + 8
  const values = [
    ...c.words,
    ...c.steps.flatMap(s => (s.op === 'store' ? [[s.at, s.value] as const] : [])),
  ]
  return values.filter(([a]) => a === at).map(([, v]) => (places ? v : v >> 8n) & 0xffffn)
}

function legacyContext(c: Case): number {
  const dma = c.steps.find(s => s.op === 'dma')
  const root = new Map(c.words).get(Number(c.setup['RTADDR']!)) ?? 0n
  return Number(root & PAGE & 0xffff_ffffn) + (dma?.op === 'dma' ? REQUESTERS[dma.device] : 0) * 16
}

/** True when between two DMAs something was dropped that could have been cached of the first one's tables. */
export function iotlbInvalidated(c: Case, from: number, to: number): boolean {
  const domains = domainsOf(c)
  let range = 0n
  return between(c, from, to).some(s => {
    if (s.op === 'register') {
      if (s.offset === REGISTER.IVA) range = s.value
      if (s.offset !== REGISTER.IOTLB) return false
      const scope = (s.value >> 60n) & 3n
      if (scope === 3n && !covers(c, from, range)) return false
      return scope === 1n || domains.includes((s.value >> 32n) & 0xffffn)
    }
    if (s.op !== 'invalidate') return false
    const [lo, hi] = s.words
    const type = lo & 15n
    if (type !== 2n && type !== 6n) return false
    const scope = (lo >> 4n) & 3n
    // Those of a PASID reach entries of this PASID; those of its pages only where they are first-stage ones.
    if (type === 6n && ((lo >> 32n) & 0xf_ffffn) !== 0n) return false
    if (type === 6n && scope === 3n && UNITS[c.unit]!.mode !== 'first-stage') return false
    if (scope === 3n && !covers(c, from, hi)) return false
    return (type === 2n && scope === 1n) || domains.includes((lo >> 16n) & 0xffffn)
  })
}

/** True when a range of pages, as a descriptor or IVA_REG names it, holds some of the page that a DMA used. */
function covers(c: Case, index: number, range: bigint): boolean {
  const { iova } = c.steps.filter(s => s.op === 'dma')[index]!
  const bits = 12n + (range & 63n)
  const page = BigInt(3 + 9 * (pathOf(c, index).at(-1)?.level ?? 1))
  const size = bits > page ? bits : page
  return range >> size === iova >> size
}

/** True when between two DMAs software changed what leads to the paging entries. */
export function structuresChanged(c: Case, from: number, to: number): boolean {
  const places = scalablePlaces(c)
  const root = Number(c.setup['RTADDR']! & ~0xfffn)
  const ranges: readonly (readonly [at: number, bytes: number])[] = places
    ? [
        [root, 4096],
        [places.context, 32],
        [places.directory, 8],
        [places.pasid, 64],
      ]
    : [
        [root, 4096],
        [legacyContext(c), 16],
      ]
  return between(c, from, to).some(
    s => s.op === 'store' && ranges.some(([at, bytes]) => s.at >= at && s.at < at + bytes),
  )
}

/** True when between two DMAs context or PASID entries were dropped. */
export const entriesInvalidated = (c: Case, from: number, to: number): boolean =>
  between(c, from, to).some(
    s =>
      (s.op === 'register' && s.offset === REGISTER.CCMD) ||
      (s.op === 'invalidate' && [1n, 7n].includes(s.words[0] & 15n)),
  )

/** The steps between two DMAs. */
function between(c: Case, from: number, to: number): Step[] {
  let n = -1
  return c.steps.filter(s => {
    if (s.op === 'dma') n++
    return s.op !== 'dma' && n >= from && n < to
  })
}

/** A paging entry, and the level of the table it is in. */
interface PagingEntry {
  readonly at: number
  readonly value: bigint
  readonly level: number
}

/** The paging entries that a DMA's first byte leads through, as far as they can be followed, before DMA number `asOf`. */
export function pathOf(c: Case, index: number, asOf = index): PagingEntry[] {
  const dma = c.steps.filter(s => s.op === 'dma')[index]!
  const words = wordsBefore(c, asOf)
  const word = (at: number) => words.get(at) ?? 0n
  const places = scalablePlaces(c)
  const first = UNITS[c.unit]!.mode === 'first-stage'
  const low = places ? word(places.pasid) : word(legacyContext(c) + 8)
  const aw = Number(places ? (low >> 2n) & 7n : low & 7n)
  const root = places ? word(places.pasid + (first ? 16 : 0)) : word(legacyContext(c))
  const entries: PagingEntry[] = []
  let table = Number(root & PAGE)
  for (let level = first ? 4 : aw + 2; level > 0; level--) {
    const at = table + Number((dma.iova >> BigInt(3 + 9 * level)) & 0x1ffn) * 8
    const value = word(at)
    entries.push({ at, value, level })
    if ((value & 3n) === 0n || (value & 0x80n) !== 0n) break
    table = Number(value & PAGE)
  }
  return entries
}

/** True when QEMU let an earlier DMA in the other direction pass nearby, and may have its translation in the IOTLB. */
export function cachedForOther(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  const here = dmas[d.index]
  return dmas
    .slice(0, Math.max(d.index, 0))
    .some(
      (s, i) =>
        s.write !== here?.write &&
        s.iova >> 30n === (here?.iova ?? 0n) >> 30n &&
        d.all.qemu.dma[i]!.landed.every(at => at !== null) &&
        !iotlbInvalidated(d.case, i, d.index),
    )
}

/** True when QEMU put a DMA where an earlier one went, and nothing in between dropped its IOTLB entry. */
export function staleIn(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  const here = dmas[d.index]
  const [at] = d.qemu.landed
  if (!here || at === null || at === undefined) return false
  return dmas.slice(0, d.index).some((s, i) => {
    const [was] = d.all.qemu.dma[i]!.landed
    if (was === null || was === undefined || iotlbInvalidated(d.case, i, d.index)) return false
    return BigInt(was) - s.iova === BigInt(at) - here.iova
  })
}
