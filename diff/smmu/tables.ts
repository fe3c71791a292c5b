// Translation table descriptors of random SMMUv3 cases (VMSAv8-64), and accesses to what they map.
import type { Step } from '../case.js'
import type { Plan } from './generate.js'
import type { Stage } from './structures.js'
import { DATA } from './units.js'

/** A path through the tables. */
export interface Mapping {
  /** As a DMA names it: with the bits of the upper range, without a tag. */
  readonly iova: bigint
  /** Addresses of its descriptors, the start level's first. */
  readonly entries: readonly number[]
  /** log2 of the granule, and of the page or block it ends in. */
  readonly granule: number
  readonly pageBits: number
  /** Physical address of the page or block. */
  readonly target: bigint
  readonly stage: Stage
}

type Flaw =
  | 'none'
  | 'absent'
  | 'no-read'
  | 'no-write'
  | 'no-access-flag'
  | 'privileged'
  | 'reserved'
  | 'wide'
  | 'hole'
  | 'block'

/** What a path is to be, where that is not left to chance. */
export interface Wanted {
  readonly iova: bigint
  readonly level: number
  readonly target: bigint
  readonly flaw: Flaw | 'missing'
}

/** Levels that can have blocks, by granule. */
const BLOCKS: Readonly<Record<number, readonly number[]>> = { 12: [1, 2], 14: [2], 16: [2] }

/** Address bits of a descriptor. */
const ADDRESS = 0xffff_ffff_f000n

/** A path from the root of a stage to a page or block; its descriptors are usually sound. */
export function drawPath(p: Plan, stage: Stage, wanted?: Wanted): Mapping {
  const { draw } = p
  const { granule } = stage
  const stride = granule - 3
  const blocks = BLOCKS[granule]!.filter(l => l >= stage.level)
  const leafLevel = wanted?.level ?? (blocks.length > 0 && draw.oneIn(4) ? draw.pick(blocks) : 3)
  const pageBits = granule + (3 - leafLevel) * stride
  const mask = (1n << BigInt(stage.inputBits)) - 1n
  let input = wanted?.iova ?? draw.bits(64) & mask & ~((1n << BigInt(granule)) - 1n)
  if (!wanted && p.mappings.length > 0 && draw.oneIn(2))
    input =
      (p.mappings[0]!.iova ^ (draw.bits(2) << BigInt(granule + stride * draw.below(2)))) & mask
  // What a block of 1 GB (or 512 MB) maps must be RAM.
  const ram = (1n << 26n) - 1n
  if (!wanted && pageBits >= 29)
    input = (input & ~((1n << 29n) - 1n)) | (0x200_0000n & ram) | (input & 0x1ff_f000n)
  input &= mask
  const flawed =
    !wanted && draw.oneIn(3) ? stage.level + draw.below(leafLevel - stage.level + 1) : -1
  const flaw =
    wanted && wanted.flaw !== 'missing'
      ? wanted.flaw
      : draw.weighted<Flaw>([
          [3, 'absent'],
          [1, 'no-read'],
          [4, 'no-write'],
          [3, 'no-access-flag'],
          [2, 'privileged'],
          [2, 'reserved'],
          [2, 'wide'],
          [1, 'hole'],
          [2, 'block'],
        ])
  const entries: number[] = []
  let target = wanted?.target ?? 0n
  let table = stage.root
  for (let level = stage.level; level <= leafLevel; level++) {
    const shift = BigInt(granule + (3 - level) * stride)
    const width = level === stage.level ? stage.inputBits - Number(shift) : stride
    const index = Number((input >> shift) & ((1n << BigInt(width)) - 1n))
    const at = table + index * 8
    entries.push(at)
    const leaf = level === leafLevel
    const known = p.words.get(at)
    if (
      known !== undefined &&
      !leaf &&
      (known & 3n) === 3n &&
      (known & ~0xf000_0000_0000_0000n) < 1n << 41n
    ) {
      const next = Number(known & ADDRESS & ~((1n << BigInt(granule)) - 1n)) - offsetOf(p, stage)
      if (next > stage.root && next < DATA) {
        table = next
        continue
      }
    }
    if (!leaf) table = p.alloc(2 ** granule)
    else if (!wanted)
      target = BigInt(
        pageBits > 25
          ? 0x4000_0000
          : pageBits > granule
            ? DATA + draw.below(pageBits > 21 ? 1 : 16) * 2 ** pageBits
            : p.page(2 ** granule),
      )
    const address = (leaf ? target : BigInt(table)) + BigInt(offsetOf(p, stage))
    const which = wanted ? (leaf ? flaw : 'none') : level === flawed ? flaw : 'none'
    p.set(at, drawDescriptor(p, stage, level, leaf, address, which))
  }
  if (flawed >= 0) p.about.push(`${flaw} at level ${flawed}`)
  if (pageBits > granule && !wanted) p.about.push(`block of 2^${pageBits}`)
  const high = stage.upper ? BigInt.asUintN(64, -1n << BigInt(stage.inputBits)) : 0n
  return { iova: input | high, entries, granule, pageBits, target, stage }
}

/** Stage 1 tables of a nested case speak of intermediate addresses. */
const offsetOf = (p: Plan, stage: Stage): number => (stage.number === 1 ? p.offset : 0)

function drawDescriptor(
  p: Plan,
  stage: Stage,
  level: number,
  leaf: boolean,
  address: bigint,
  flaw: Flaw,
): bigint {
  const { draw } = p
  const first = stage.number === 1
  let e = address | (leaf && level < 3 ? 1n : 3n)
  if (leaf) {
    e |= 0x400n | (first ? 0x40n : 0xc0n)
    // Attributes that mean nothing to a DMA: memory type, shareability, nG, contiguous, execute-never, software.
    if (draw.oneIn(3)) e |= draw.some(first ? 0xf0_0b3cn << 0n : 0x33cn) & ~0xf0_0000n
    if (draw.oneIn(3)) e |= draw.some((0x3n << 53n) | (0xfn << 55n) | (0xfn << 59n))
    if (first && draw.oneIn(2)) e |= 0x800n
    if (draw.oneIn(12)) e |= 1n << 52n
  } else {
    if (draw.oneIn(3)) e |= draw.some(0x7ffn << 52n) & (0x7fn << 52n)
    if (draw.oneIn(4)) e |= draw.some(0xffcn)
    if (first && draw.oneIn(12)) e |= draw.some(3n << 59n) | (draw.oneIn(3) ? 1n << 63n : 0n)
  }
  switch (flaw) {
    case 'absent':
      return e & ~1n
    case 'no-read':
      return first ? e : e & ~0x40n
    case 'no-write':
      if (!leaf) return first ? e | (2n << 61n) : e
      return first ? e | 0x80n : e & ~0x80n
    case 'no-access-flag':
      return leaf ? e & ~0x400n : e
    case 'privileged':
      if (!leaf) return first ? e | (1n << 61n) : e
      return first ? e & ~0x40n : e
    case 'reserved':
      return e | (1n << BigInt(48 + draw.below(3)))
    case 'wide':
      return e | (1n << BigInt(40 + draw.below(8)))
    case 'hole':
      return (e & ~ADDRESS) | 0x8_0000_0000n
    case 'block':
      // Never a table of what is data: its contents are each side's own.
      return e & ~2n
    default:
      return e
  }
}

/** An access to a mapping, or beside it. */
export function drawAccess(p: Plan, sound: boolean): Step & { op: 'dma' } {
  const { draw, device } = p
  const write = device !== 'edu' || draw.oneIn(3)
  const offset = BigInt(draw.below(1024) * 4)
  const [m] = p.mappings.length ? [draw.pick(p.mappings)] : []
  if (!m)
    return {
      op: 'dma',
      device,
      write,
      iova: BigInt(DATA + draw.below(64) * 4096) + offset,
      length: 4,
    }
  let { iova } = m
  const within = BigInt(Math.min(m.pageBits, 25))
  if (draw.oneIn(2)) iova = (iova & ~((1n << within) - 1n)) | (draw.bits(Number(within)) & ~0xfffn)
  iova |= offset
  const { inputBits, tbi } = m.stage
  if (tbi && draw.oneIn(3)) iova = (iova & ((1n << 56n) - 1n)) | (draw.bits(8) << 56n)
  if (!sound) {
    if (draw.oneIn(8)) iova ^= 1n << BigInt(12 + draw.below(inputBits - 12))
    if (draw.oneIn(10)) iova ^= 1n << BigInt(inputBits - 1 + draw.below(65 - inputBits))
  }
  let length = 4
  if (!sound && draw.oneIn(12)) {
    iova |= 0xffcn
    length = 8
  }
  return { op: 'dma', device, write, iova: BigInt.asUintN(64, iova), length }
}
