// Looks into an SMMUv3 case from outside of the unit.
import type { Case } from '../case.js'
import type { Difference } from '../deviation.js'
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

/** The STE of a case as it begins. */
export const steWords = (c: Case): bigint[] =>
  Array.from({ length: 8 }, (_, i) => wordOf(c, steOf(c) + i * 8))

/** Where stage 2 puts an intermediate address: cases put all of memory at one distance. */
const physical = (ipa: bigint): number => Number(ipa & 0xffff_ffffn)

/** Where the CD of a case is; -1 when its STE has none. */
export function cdOf(c: Case): number {
  const [lo = 0n] = steWords(c)
  return (lo & 2n) === 2n ? physical(lo & 0xf_ffff_ffff_ffc0n) : -1
}

/** The DMA a difference is about. */
export const dmaOf = (d: Difference) => d.case.steps.filter(s => s.op === 'dma')[d.index]

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

/** The concatenated tables that stage 2 starts with; undefined when there is one. */
export function concatenation(c: Case): { root: number; bytes: number; count: number } | undefined {
  const [lo = 0n, , s2 = 0n, ttb = 0n] = steWords(c)
  if ((lo & 4n) === 0n) return undefined
  const field = (from: bigint, mask: bigint) => Number((s2 >> from) & mask)
  const granule = [12, 16, 14][field(46n, 3n)]
  if (granule === undefined) return undefined
  const start = (granule === 12 ? 2 : 3) - field(38n, 3n)
  const extra = 64 - field(32n, 63n) - (granule + (4 - start) * (granule - 3))
  if (extra <= 0 || extra > 4) return undefined
  return { root: Number(ttb & 0xf_ffff_ffff_fff0n), bytes: 2 ** granule, count: 2 ** extra }
}
