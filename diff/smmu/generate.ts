// Random SMMUv3 cases. Most of a case is sound, so that walks get far; a few fields of it are not. Never
// drawn: S2AA64 = 0 under stage 2 and address sizes beyond 48 bits (QEMU ends itself), commands that stop the queue, transfers that are not
// whole aligned words (QEMU makes several transactions of one), stage 1 tables larger than the stage 2 pages
// that they lie in (QEMU asks stage 2 for the address of the table, not of the descriptor).
import { type Case, type Device, piecesOf, type Step } from '../case.js'
import type { Draw } from '../random.js'
import { drawInvalidation } from './invalidations.js'
import { drawCd, drawStreamTable, type Stage } from './structures.js'
import { drawAccess, drawPath, type Mapping } from './tables.js'
import { COMMANDS, DATA, RAM, RAM_BYTES, TABLES, TABLES_END } from './units.js'

/** What the STE is about. */
export type Mode = 'bypass' | 'stage-1' | 'stage-2' | 'nested'

/** A case being drawn. */
export class Plan {
  readonly draw: Draw
  readonly mode: Mode
  readonly words = new Map<number, bigint>()
  readonly pages = new Set<number>()
  /** Pages larger than 4 KiB, with their sizes. */
  readonly large = new Set<readonly [at: number, bytes: number]>()
  readonly steps: Step[] = []
  readonly about: string[] = []
  readonly setup: Record<string, bigint> = {}
  readonly mappings: Mapping[] = []
  /** Words of STE and CD, where something may be changed later. */
  readonly structures: number[] = []
  device: Device = 'testdev'
  asid = 0
  vmid = 0
  /** What turns a physical address into the intermediate one that stage 2 takes to it. */
  offset = 0
  /** There was not enough room for the tables. */
  full = false
  #next = TABLES

  constructor(draw: Draw, mode: Mode) {
    this.draw = draw
    this.mode = mode
  }

  /** Memory for a table, aligned to its size. */
  alloc(bytes = 4096): number {
    const at = Math.ceil(this.#next / bytes) * bytes
    this.#next = at + bytes
    this.full ||= this.#next > TABLES_END
    return at
  }

  set(at: number, value: bigint): void {
    this.words.set(at, BigInt.asUintN(64, value))
  }

  word(at: number): bigint {
    return this.words.get(at) ?? 0n
  }

  /** A page for data of that granule. */
  page(bytes = 4096): number {
    const at = DATA + this.draw.below(8) * bytes
    this.pages.add(at)
    if (bytes > 4096) this.large.add([at, bytes])
    return at
  }
}

/** The case with this seed and index. */
export function drawCase(draw: Draw, id: string): Case {
  for (;;) {
    const c = attempt(draw, id)
    if (c) return c
  }
}

function attempt(draw: Draw, id: string): Case | undefined {
  const mode = draw.weighted([
    [1, 'bypass'],
    [9, 'stage-1'],
    [6, 'stage-2'],
    [6, 'nested'],
  ] as const)
  const p = new Plan(draw, mode)
  p.device = draw.weighted([
    [6, 'testdev'],
    [2, 'upper'],
    [4, 'edu'],
  ] as const)
  p.asid = draw.oneIn(3) ? draw.below(0x1_0000) : 1 + draw.below(3)
  p.vmid = draw.oneIn(3) ? draw.below(0x1_0000) : 1 + draw.below(3)
  const stages: Stage[] = []
  const { second, context } = drawStreamTable(p)
  if (context >= 0) stages.push(...drawCd(p, context))
  if (mode === 'stage-2' && second) stages.push(second)
  for (let i = 1 + draw.below(3); i > 0 && stages.length > 0; i--)
    p.mappings.push(drawPath(p, draw.pick(stages)))
  if (mode === 'nested' && second) mapSecond(p, second, stages)
  if (draw.oneIn(3)) drawStory(p)
  else
    for (let n = 1 + draw.below(3); n > 0; n--) {
      if (p.steps.length > 0) flush(p)
      p.steps.push(drawAccess(p, false))
    }
  for (const s of p.steps)
    if (s.op === 'dma') for (const piece of piecesOf(s.iova, s.length)) landings(p, piece.iova)
  if (p.full) return undefined
  return {
    id,
    unit: mode,
    about: p.about.join(', '),
    setup: p.setup,
    words: [...p.words].filter(([, value]) => value !== 0n),
    steps: p.steps,
    pages: [...p.pages],
  }
}

/** Stage 2 of everything that stage 1 leads to: tables, CD and data, perhaps without one of them. */
function mapSecond(p: Plan, second: Stage, stages: readonly Stage[]): void {
  const { draw } = p
  const blocks = draw.oneIn(2) || stages.some(s => s.granule > second.granule)
  const size = 2 ** (blocks ? 2 * second.granule - 3 : second.granule)
  const places = new Set<number>()
  const add = (at: number) => places.add(at - (at % size))
  for (const at of p.words.keys()) add(at)
  for (const stage of stages) add(stage.root)
  for (const at of p.pages) add(at)
  for (const m of p.mappings) if (m.pageBits > second.granule) add(Number(m.target))
  const all = [...places]
  const odd = draw.oneIn(3) ? draw.pick(all) : -1
  for (const at of all) {
    const level = blocks ? 2 : 3
    const flaw =
      at === odd
        ? draw.pick(['absent', 'no-write', 'no-read', 'no-access-flag', 'wide', 'missing'] as const)
        : 'none'
    if (flaw !== 'none') p.about.push(`stage 2 of 0x${at.toString(16)}: ${flaw}`)
    if (flaw === 'missing') continue
    drawPath(p, second, { iova: BigInt(at + p.offset), level, target: BigInt(at), flaw })
  }
}

function flush(p: Plan): void {
  p.steps.push({ op: 'invalidate', words: [0x04n, 31n] }, { op: 'invalidate', words: [0x30n, 0n] })
}

/** Warms the caches, changes something, invalidates this or that or nothing, and looks again. */
function drawStory(p: Plan): void {
  const { draw, steps } = p
  p.about.push('staleness')
  const first = drawAccess(p, true)
  steps.push(first)
  if (p.device === 'edu' && draw.oneIn(3)) steps.push({ ...first, write: !first.write })
  if (draw.oneIn(3)) steps.push(drawAccess(p, true))
  const m = p.mappings.length ? draw.pick(p.mappings) : undefined
  const kind = draw.weighted([
    [m ? 6 : 0, 'leaf'],
    [m ? 3 : 0, 'entry'],
    [3, 'structure'],
    [1, 'nothing'],
  ] as const)
  if (m && (kind === 'leaf' || kind === 'entry')) {
    const at = kind === 'leaf' ? m.entries.at(-1)! : draw.pick(m.entries)
    const old = p.word(at)
    const page = BigInt(p.page(2 ** m.granule) + p.offset)
    const leaf = at === m.entries.at(-1) && m.pageBits === m.granule
    const value = draw.weighted([
      [3, leaf ? (old & ~0xffff_ffff_f000n) | page : old & ~1n],
      [2, old & ~1n],
      [1, old ^ 0x80n],
      [1, old & ~0x400n],
    ])
    steps.push({ op: 'store', at, value })
  } else if (kind === 'structure') {
    const at = draw.pick(p.structures)
    // Fields whose change says something, and nothing that QEMU cannot bear (S2AA64, bit 51).
    const value =
      p.word(at) ^ draw.pick([1n, 1n << 48n, 1n << 45n, 1n << 31n, 1n << 12n, 1n << 35n])
    steps.push({ op: 'store', at, value })
  }
  for (let n = draw.below(3); n > 0; n--) steps.push(drawInvalidation(p, m))
  steps.push(draw.oneIn(5) ? drawAccess(p, true) : first)
  if (draw.oneIn(2)) {
    flush(p)
    steps.push(first)
  }
}

/** Where a block puts an access. */
function landings(p: Plan, iova: bigint): void {
  for (const m of p.mappings) {
    const mask = (1n << BigInt(m.pageBits)) - 1n
    const at = Number((m.target & ~mask) | (iova & mask & ~0xfffn))
    const spare = at >= RAM + 0x10_0000 && at < RAM + RAM_BYTES
    if (spare && (at < TABLES || at >= COMMANDS + 0x1_0000)) p.pages.add(at)
  }
  for (const [at, bytes] of p.large) p.pages.add(at + Number(iova & BigInt(bytes - 1) & ~0xfffn))
  if (p.mode === 'bypass') p.pages.add(Number(iova & ~0xfffn))
}
