// Random VT-d cases. Most of a case is sound, so that walks get far; a few fields of it are not. Never
// drawn: writes to 0xFEEx_xxxx without PASID (they are interrupts, not DMA), requests that QEMU's devices
// cannot make, descriptors that stop the invalidation queue.
import { type Case, type Device, piecesOf, type Step } from '../case.js'
import type { Draw } from '../random.js'
import { drawInvalidation, drawRegisterInvalidation } from './invalidations.js'
import { drawLegacy, drawScalable } from './structures.js'
import { drawAccess, drawPath, type Mapping } from './tables.js'
import { AFTER_TABLES, DATA, RAM_BYTES, TABLES, UNITS } from './units.js'

/** A case being drawn. */
export class Plan {
  readonly draw: Draw
  readonly unit: string
  readonly words = new Map<number, bigint>()
  readonly pages = new Set<number>()
  readonly steps: Step[] = []
  readonly about: string[] = []
  /** The stage that translates: which entries tables are made of. */
  readonly stage: 'first' | 'second'
  readonly levels: number
  /** Address bits of the unit. */
  readonly width: number
  device: Device = 'testdev'
  root = 0
  did = 1
  readonly mappings: Mapping[] = []
  /** Words of the structures above the paging entries, where something may be changed later. */
  readonly structures: number[] = []
  #next = TABLES

  constructor(draw: Draw, unit: string, levels: number) {
    this.draw = draw
    this.unit = unit
    const { mode, config } = UNITS[unit]!
    this.stage = mode === 'first-stage' ? 'first' : 'second'
    this.width = config.hostAddressWidth!
    this.levels = levels
  }

  alloc(): number {
    const at = this.#next
    this.#next += 4096
    return at
  }

  set(at: number, value: bigint): void {
    this.words.set(at, BigInt.asUintN(64, value))
  }

  /** A page for data. */
  page(): number {
    const at = DATA + this.draw.below(8) * 4096
    this.pages.add(at)
    return at
  }
}

/** The case with this seed and index. */
export function drawCase(draw: Draw, id: string): Case {
  const unit = draw.weighted([
    [30, 'legacy'],
    [10, 'legacy-39'],
    [10, 'legacy-snoop-dt'],
    [20, 'second-stage'],
    [7, 'second-stage-39'],
    [25, 'first-stage'],
    [6, 'first-stage-no-1g'],
    [6, 'first-stage-svm'],
  ] as const)
  const { mode, config } = UNITS[unit]!
  const narrow = config.guestAddressWidth === 39
  const aw = narrow || draw.oneIn(mode === 'first-stage' ? 12 : 4) ? 1 : 2
  const p = new Plan(draw, unit, mode === 'first-stage' || aw === 2 ? 4 : 3)
  p.device = draw.weighted([
    [6, 'testdev'],
    [2, 'upper'],
    [3, 'edu'],
  ] as const)
  p.did = draw.oneIn(3) ? draw.below(0x1_0000) : 1 + draw.below(3)
  const table = p.alloc()
  if (mode === 'legacy') drawLegacy(p, table, aw)
  else drawScalable(p, table, aw)
  const paths = 1 + draw.below(3)
  for (let i = 0; i < paths; i++) p.mappings.push(drawPath(p, table))

  const queued = mode !== 'legacy' || !draw.oneIn(6)
  if (draw.oneIn(3)) drawStory(p, table, queued)
  else
    for (let n = 1 + draw.below(3); n > 0; n--) {
      if (p.steps.length > 0) flush(p, queued)
      p.steps.push(drawAccess(p, draw.pick(p.mappings), false))
    }
  for (const s of p.steps)
    if (s.op === 'dma') for (const piece of piecesOf(s.iova, s.length)) landings(p, piece.iova)
  return {
    id,
    unit,
    about: [mode, ...p.about].join(', '),
    setup: { RTADDR: BigInt(p.root), QIE: queued ? 1n : 0n },
    words: [...p.words].filter(([, value]) => value !== 0n),
    steps: p.steps,
    pages: [...p.pages],
  }
}

/** Drops everything, so that what comes next starts cold. */
function flush(p: Plan, queued: boolean): void {
  if (!queued) {
    p.steps.push({ op: 'register', offset: 0x28, value: (1n << 63n) | (1n << 61n) })
    p.steps.push({ op: 'register', offset: 0xf8, value: (1n << 63n) | (1n << 60n) })
    return
  }
  p.steps.push({ op: 'invalidate', words: [0x11n, 0n] })
  if (UNITS[p.unit]!.mode !== 'legacy') p.steps.push({ op: 'invalidate', words: [0x37n, 0n] })
  p.steps.push({ op: 'invalidate', words: [0x12n, 0n] })
}

/** Warms the caches, changes something, invalidates this or that or nothing, and looks again. */
function drawStory(p: Plan, table: number, queued: boolean): void {
  const { draw, steps } = p
  p.about.push('staleness')
  const m = draw.pick(p.mappings)
  const first = drawAccess(p, m, true)
  steps.push(first)
  if (p.device === 'edu' && draw.oneIn(3)) steps.push({ ...first, write: !first.write })
  if (draw.oneIn(3)) steps.push(drawAccess(p, draw.pick(p.mappings), true))
  const kind = draw.weighted([
    [6, 'leaf'],
    [3, 'entry'],
    [2, 'structure'],
    [1, 'nothing'],
  ] as const)
  if (kind === 'leaf' || kind === 'entry') {
    const at = kind === 'leaf' ? m.entries.at(-1)! : draw.pick(m.entries)
    const old = p.words.get(at) ?? 0n
    const page = BigInt(p.page())
    const large = m.pageBits > 12 && at === m.entries.at(-1)
    const value = draw.weighted([
      [3, large || at !== m.entries.at(-1) ? old & ~3n : (old & 0xfffn) | page],
      [2, old & ~(p.stage === 'first' ? 1n : 3n)],
      [1, old & ~2n],
      [1, old ^ 1n],
    ])
    steps.push({ op: 'store', at, value })
  } else if (kind === 'structure' && p.structures.length > 0) {
    const at = draw.pick(p.structures)
    const old = p.words.get(at) ?? 0n
    const other = p.alloc()
    p.mappings.push(drawPath(p, other, m.iova))
    const value = draw.weighted([
      [2, old & ~1n],
      [
        3,
        (old & BigInt(table)) === BigInt(table)
          ? (old & ~0xf_ffff_ffff_f000n) | BigInt(other)
          : old,
      ],
      [1, old ^ (1n << BigInt(draw.below(9)))],
    ])
    steps.push({ op: 'store', at, value })
  }
  for (let n = draw.below(3); n > 0; n--)
    steps.push(...(queued ? drawInvalidation(p, m) : drawRegisterInvalidation(p, m)))
  steps.push(draw.oneIn(5) ? drawAccess(p, m, true) : first)
  if (draw.oneIn(2)) {
    flush(p, queued)
    steps.push(first)
  }
}

/** Where a large page puts an access. */
function landings(p: Plan, iova: bigint): void {
  for (const m of p.mappings) {
    if (m.pageBits === 12) continue
    const mask = (1n << BigInt(m.pageBits)) - 1n
    const at = Number((m.target & ~mask) | (iova & mask & ~0xfffn))
    const spare = at >= 0x10_0000 && at < RAM_BYTES && (at < TABLES || at >= AFTER_TABLES)
    if (spare) p.pages.add(at)
  }
}
