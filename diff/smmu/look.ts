// Looks into an SMMUv3 case from outside of the unit.
import type { Case } from '../case.js'
import type { Difference } from '../deviation.js'
import { wordsBefore } from '../rewrite.js'
import { STREAMS } from './units.js'

/** Where the STE of a case's stream is; -1 when its stream table has none. */
export function steOf(c: Case): number {
  const dma = c.steps.find(s => s.op === 'dma')
  if (dma?.op !== 'dma') return -1
  const stream = STREAMS[dma.device]
  const base = Number(c.setup['STRTAB_BASE']!)
  const config = Number(c.setup['STRTAB_BASE_CFG']!)
  if (config < 0x1_0000) return base + stream * 64
  const split = (config >> 6) & 31
  const inner = stream % 2 ** split
  const l1 = new Map(c.words).get(base + ((stream - inner) / 2 ** split) * 8) ?? 0n
  return Number(l1 & 0xf_ffff_ffff_ffc0n) + inner * 64
}

/** A word of a case as it begins. */
export const wordOf = (c: Case, at: number): bigint => new Map(c.words).get(at) ?? 0n

/** The STE of a case before its DMA number `index`, cached or not. */
export function steWords(c: Case, index = 0): bigint[] {
  const words = wordsBefore(c, index)
  return Array.from({ length: 8 }, (_, i) => words.get(steOf(c) + i * 8) ?? 0n)
}

/** Where stage 2 puts an intermediate address: cases put all of memory at one distance. */
const physical = (ipa: bigint): number => Number(ipa & 0xffff_ffffn)

/** Where the CD of a case is; -1 when its STE has none. */
export function cdOf(c: Case): number {
  const [lo = 0n] = steWords(c)
  return (lo & 2n) === 2n ? physical(lo & 0xf_ffff_ffff_ffc0n) : -1
}

/** The DMA a difference is about. */
export const dmaOf = (d: Difference) => dmaOfCase(d.case, d.index)
const dmaOfCase = (c: Case, index: number) => c.steps.filter(s => s.op === 'dma')[index]

/** Where the level 1 descriptor of a case's stream is; -1 for a linear table. */
export function spanAt(c: Case): number {
  const config = Number(c.setup['STRTAB_BASE_CFG']!)
  const dma = c.steps.find(s => s.op === 'dma')
  if (config < 0x1_0000 || dma?.op !== 'dma') return -1
  const stream = STREAMS[dma.device]
  return Number(c.setup['STRTAB_BASE']!) + Math.floor(stream / 2 ** ((config >> 6) & 31)) * 8
}

/** Values of all words, as the case begins or as stored, that are not STEs or CDs. */
export function tableWords(c: Case): bigint[] {
  const [ste, cd] = [steOf(c), cdOf(c)]
  const stored = c.steps.flatMap(s => (s.op === 'store' ? [[s.at, s.value] as const] : []))
  return [...c.words, ...stored]
    .filter(([at]) => !(at >= ste && at < ste + 64) && !(at >= cd && at < cd + 64))
    .map(([, value]) => value)
}

/** Address bits that index the first table of stage 2; undefined without one. */
export function startBits(c: Case, index = 0): number | undefined {
  const [lo = 0n, , s2 = 0n] = steWords(c, index)
  const granule = [12, 16, 14][Number((s2 >> 46n) & 3n)]
  if ((lo & 4n) === 0n || granule === undefined) return undefined
  const level = (granule === 12 ? 2 : 3) - Number((s2 >> 38n) & 3n)
  return 64 - Number((s2 >> 32n) & 63n) - (granule + (3 - level) * (granule - 3))
}

/** The concatenated tables that stage 2 starts with; undefined when there is one. */
export function concatenation(c: Case): { root: number; bytes: number; count: number } | undefined {
  const [, , s2 = 0n, ttb = 0n] = steWords(c)
  const bits = startBits(c)
  if (bits === undefined) return undefined
  const granule = [12, 16, 14][Number((s2 >> 46n) & 3n)]!
  const extra = bits - (granule - 3)
  if (extra <= 0 || extra > 4) return undefined
  return { root: Number(ttb & 0xf_ffff_ffff_fff0n), bytes: 2 ** granule, count: 2 ** extra }
}

/** True when stage 2 lets an intermediate address be read, by the words before a DMA. */
export function stage2Reads(c: Case, ipa: bigint, index: number): boolean {
  const words = wordsBefore(c, index)
  const [, , s2 = 0n, ttb = 0n] = steWords(c, index)
  const granule = [12, 16, 14][Number((s2 >> 46n) & 3n)]
  const bits = startBits(c, index)
  if (granule === undefined || bits === undefined) return false
  if (ipa >> (64n - ((s2 >> 32n) & 63n)) !== 0n) return false
  let table = Number(ttb & 0xf_ffff_ffff_fff0n)
  const start = (granule === 12 ? 2 : 3) - Number((s2 >> 38n) & 3n)
  for (let level = start; level <= 3; level++) {
    const low = BigInt(granule + (3 - level) * (granule - 3))
    const mask = (1n << BigInt(level === start ? bits : granule - 3)) - 1n
    const entry = words.get(table + Number((ipa >> low) & mask) * 8) ?? 0n
    if ((entry & 1n) === 0n || (level === 3 && (entry & 2n) === 0n)) return false
    if (level === 3 || (entry & 2n) === 0n)
      return (entry & 0x40n) !== 0n && ((entry & 0x400n) !== 0n || (s2 & (1n << 53n)) !== 0n)
    table = Number(entry & 0xffff_ffff_f000n)
  }
  return false
}

/** True when a case changes its STE or CD. */
export function changesConfiguration(c: Case): boolean {
  const [ste, cd] = [steOf(c), cdOf(c)]
  return c.steps.some(
    s => s.op === 'store' && ((s.at >= ste && s.at < ste + 64) || (s.at >= cd && s.at < cd + 64)),
  )
}

/** Commands that reach stage 2: TLBI_S12_VMALL, TLBI_S2_IPA, TLBI_NSNH_ALL. */
export const STAGE_2_COMMANDS: readonly bigint[] = [0x28n, 0x2an, 0x30n]

/**
 * True when a TLB invalidation of this VMID was queued between the last change before a DMA and the DMA; with
 * `commands`, one of those.
 */
export function tlbInvalidated(c: Case, index: number, commands?: readonly bigint[]): boolean {
  const vmid = steWords(c, index)[2]! & 0xffffn
  let n = 0
  let invalidated = false
  for (const s of c.steps) {
    if (s.op === 'dma' && n++ === index) break
    if (s.op === 'store') invalidated = false
    if (s.op !== 'invalidate') continue
    const op = s.words[0] & 0xffn
    if (op === 0x2an && c.unit === 'stage-1') continue
    if (commands && !commands.includes(op)) continue
    if (op === 0x11n && s.words[0] >> 48n !== wordOf(c, cdOf(c)) >> 48n) continue
    const ours = op === 0x30n || ((s.words[0] >> 32n) & 0xffffn) === vmid
    const elsewhere =
      [0x12n, 0x13n, 0x2an].includes(op) && !covers(s.words, dmaOfCase(c, index)?.iova ?? 0n)
    if (op >= 0x10n && op <= 0x30n && ours && !elsewhere) invalidated = true
  }
  return invalidated
}

/** True when the page or range that a command names holds some of the page of an address. */
function covers([lo, hi]: readonly [bigint, bigint], iova: bigint): boolean {
  const page = (a: bigint) => BigInt.asUintN(44, a >> 12n)
  const tg = (hi >> 10n) & 3n
  if (tg === 0n) return page(hi) === page(iova)
  const pages = (((lo >> 12n) & 31n) + 1n) << ((lo >> 20n) & 31n)
  const distance = BigInt.asUintN(44, page(iova) - page(hi))
  return distance < pages << (2n * tg - 2n)
}

/** True when QEMU put a DMA where an earlier one to the same 64 KB went, as if nothing had changed. */
export function earlierPage(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  const [at] = d.qemu.landed
  const here = dmas[d.index]
  if (at === null || at === undefined || !here) return false
  return d.all.qemu.dma.slice(0, d.index).some((earlier, i) => {
    const { iova } = dmas[i]!
    const [was] = earlier.landed
    if (was === null || was === undefined || iova >> 16n !== here.iova >> 16n) return false
    return iova >> 12n !== here.iova >> 12n && BigInt(was) - iova === BigInt(at) - here.iova
  })
}

/** True when QEMU put a DMA where an earlier one to the same page went. */
export function repeats(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  const here = dmas[d.index]
  const [at] = d.qemu.landed
  if (!here || at === null || at === undefined) return false
  return d.all.qemu.dma.slice(0, d.index).some((earlier, i) => {
    const [was] = earlier.landed
    return (
      was !== null && was !== undefined && BigInt(was) - dmas[i]!.iova === BigInt(at) - here.iova
    )
  })
}

/** True when QEMU let an earlier DMA to the same gigabyte pass, and may have cached its translation. */
export function cachedEarlier(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  return d.all.qemu.dma
    .slice(0, Math.max(d.index, 0))
    .some((o, i) => o.faults.length === 0 && dmas[i]!.iova >> 30n === dmas[d.index]!.iova >> 30n)
}
