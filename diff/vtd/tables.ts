// Paging entries of random VT-d cases, and accesses to what they map.
import type { Step } from '../case.js'
import type { Plan } from './generate.js'
import { DATA, UNITS } from './units.js'

/** A path through the tables. */
export interface Mapping {
  readonly iova: bigint
  /** Addresses of its entries, root's first. */
  readonly entries: readonly number[]
  /** log2 of the page it ends in. */
  readonly pageBits: number
  readonly target: bigint
}

/** Bits of an entry that mean nothing to the unit. */
const IGNORED = { first: 0x7ff0_0000_0000_0e18n, second: 0xbff0_0000_0000_0478n } as const

/** What can be wrong with an entry. */
type Flaw = 'none' | 'absent' | 'no-read' | 'no-write' | 'reserved' | 'wide' | 'hole' | 'supervisor'

/** A path from a root to a page; its entries are usually sound. */
export function drawPath(p: Plan, root: number, at?: bigint): Mapping {
  const { draw, levels, stage } = p
  const leafLevel = draw.weighted([
    [12, 1],
    [4, 2],
    [2, 3],
    [draw.oneIn(12) ? 1 : 0, levels],
  ])
  const width = 12 + 9 * levels
  let iova = at ?? drawAddress(p, width, leafLevel)
  if (leafLevel >= 3) iova = (iova & ~0x3fff_ffffn) | BigInt(DATA) | (iova & 0x1ff_f000n)
  // The one entry with a flaw, if there is one.
  const flawed = draw.oneIn(3) ? leafLevel + draw.below(levels - leafLevel + 1) : 0
  const flaw = draw.weighted<Flaw>([
    [3, 'absent'],
    [2, 'no-read'],
    [4, 'no-write'],
    [5, 'reserved'],
    [2, 'wide'],
    [1, 'hole'],
    [stage === 'first' ? 3 : 0, 'supervisor'],
  ])
  const entries: number[] = []
  const pageBits = 12 + 9 * (leafLevel - 1)
  let target = 0n
  let table = root
  for (let level = levels; level >= leafLevel; level--) {
    const index = Number((iova >> BigInt(3 + 9 * level)) & 0x1ffn)
    const entryAt = table + index * 8
    entries.push(entryAt)
    const leaf = level === leafLevel
    const known = p.words.get(entryAt)
    const reuse = known !== undefined && !leaf && (known & 0x80n) === 0n
    if (reuse) {
      table = Number(known & 0xf_ffff_f000n)
      if (table >= root && table < DATA) continue
    }
    if (!leaf) table = p.alloc()
    else if (level === 1) target = BigInt(p.page())
    else if (level === 2) target = BigInt(DATA + draw.below(16) * 0x20_0000)
    const address = leaf ? target : BigInt(table)
    p.set(entryAt, drawEntry(p, level, leaf, address, level === flawed ? flaw : 'none'))
  }
  if (flawed > 0) p.about.push(`${flaw} at level ${flawed}`)
  if (leafLevel > 1) p.about.push(`page of 2^${pageBits}`)
  return { iova, entries, pageBits, target }
}

function drawAddress(p: Plan, width: number, leafLevel: number): bigint {
  const { draw } = p
  let iova = draw.bits(width) & ~0xfffn
  // Tables meet: often only a few indices differ.
  if (draw.oneIn(2) && p.mappings.length > 0)
    iova = p.mappings[0]!.iova ^ (draw.bits(2) << BigInt(3 + 9 * (leafLevel + draw.below(2))))
  if (p.stage === 'first' && ((iova >> BigInt(width - 1)) & 1n) !== 0n) iova |= -1n << BigInt(width)
  return BigInt.asUintN(64, iova)
}

function drawEntry(p: Plan, level: number, leaf: boolean, address: bigint, flaw: Flaw): bigint {
  const { draw, stage, width } = p
  const first = stage === 'first'
  let e = address | (first ? 7n : 3n)
  if (leaf && level > 1) e |= 0x80n
  if (draw.oneIn(3)) e |= draw.some(IGNORED[stage])
  // Flags that are kept, or not: accessed, dirty, global, execute-disable; snooping where there is such a thing.
  if (draw.oneIn(3)) e |= draw.some(first ? 0x8000_0000_0000_0160n : 0x300n)
  if (!first && leaf && UNITS[p.unit]!.config.snoopControl && draw.oneIn(3)) e |= 0x800n
  if (!first && leaf && UNITS[p.unit]!.config.deviceTlb && draw.oneIn(3)) e |= 1n << 62n
  switch (flaw) {
    case 'absent':
      return e & (first ? ~1n : ~3n)
    case 'no-read':
      return first ? e : e & ~1n
    case 'no-write':
      return e & ~2n
    case 'supervisor':
      return e & ~4n
    case 'reserved':
      return e | reservedBit(p, level, leaf)
    case 'wide':
      return e | (1n << BigInt(width + draw.below(52 - width)))
    case 'hole':
      return (e & ~0xf_ffff_ffff_f000n) | 0x8000_0000n
    default:
      return e
  }
}

/** A bit that must not be set in an entry of this kind, or is not there to be trusted. */
function reservedBit(p: Plan, level: number, leaf: boolean): bigint {
  const { draw, stage } = p
  const choices: bigint[] = [1n << BigInt(p.width + draw.below(52 - p.width))]
  if (level >= 4) choices.push(0x80n)
  if (leaf && level > 1) choices.push(draw.bitOf((1n << BigInt(3 + 9 * level)) - 0x2000n))
  if (leaf && level > 1) choices.push(0x1000n)
  if (stage === 'second') choices.push(0x800n)
  if (stage === 'second' && leaf) choices.push(1n << 62n)
  return draw.pick(choices)
}

/** An access to a mapping, or beside it. */
export function drawAccess(p: Plan, m: Mapping, sound: boolean): Step & { op: 'dma' } {
  const { draw, levels, device } = p
  const width = 12 + 9 * levels
  const offset = BigInt(draw.below(1024) * 4)
  let iova = m.iova | offset
  if (m.pageBits > 12 && draw.oneIn(2)) {
    const inside = draw.bits(Math.min(m.pageBits, 25)) & ~3n
    iova = (iova & ~((1n << BigInt(Math.min(m.pageBits, 25))) - 1n)) | inside
  }
  if (!sound) {
    if (draw.oneIn(8)) iova ^= 1n << BigInt(12 + draw.below(width - 12))
    if (draw.oneIn(10)) iova ^= 1n << BigInt(width - 1 + draw.below(65 - width))
  }
  let length = 4
  if (!sound && draw.oneIn(12)) {
    iova |= 0xffcn
    length = 8
  }
  const write = device !== 'edu' || draw.oneIn(3)
  iova = BigInt.asUintN(64, iova)
  // A write there is an interrupt; and a transfer that starts below may end there.
  if (iova >> 20n === 0xfeen || (iova + 8n) >> 20n === 0xfeen) iova ^= 1n << 30n
  return { op: 'dma', device, write, iova, length }
}
