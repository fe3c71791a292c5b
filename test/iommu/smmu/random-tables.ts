// Random streams for the comparison with the plain reference: CD tables, both stages, granules, concatenated
// tables, contiguous runs, flags, tagged addresses, and in a wide unit addresses of 52 bits.
import type { Bench } from './bench.js'
import type { Random } from './random.js'
import type { Stage, Stream } from './reference.js'

/** Where the tables of a case are in its RAM, and from where on there is data. */
export const AREA = 0x20_0000
const DATA = 0x80_0000
const SIZES = [32, 36, 40, 42, 44, 48, 52]
const PAGE_ENDS = { 12: [3, 3, 3, 2, 1], 14: [3, 3, 2], 16: [3, 3, 2, 1] } as const
const TG = { 12: 0, 14: 2, 16: 1 } as const
const TG1 = { 12: 2, 14: 1, 16: 3 } as const
/** Pages of a contiguous run (Arm ARM D8.6.1). */
const RUN = { 12: 16, 14: 128, 16: 32 } as const
const CONTIGUOUS = 1n << 52n

const levelOf = (granule: number, inputBits: number): number =>
  4 - Math.ceil((inputBits - granule) / (granule - 3))

/** Widths, S2SL0 and start levels of stage 2, with a single or a few concatenated tables. */
const STARTS: Record<number, readonly (readonly [t0sz: number, sl0: number, level: number])[]> = {
  12: [
    [16, 2, 0],
    [24, 1, 1],
    [25, 1, 1],
    [22, 1, 1],
  ],
  14: [
    [16, 2, 1],
    [17, 2, 1],
    [24, 1, 2],
  ],
  16: [
    [16, 2, 1],
    [22, 1, 2],
    [20, 1, 2],
  ],
}

/** The unit that a case is for: its RAM, and whether it has 52-bit addresses. */
export interface Subject {
  readonly b: Bench
  /** Where its tables are, and its bytes. */
  readonly base: number
  readonly ram: Uint8Array
  readonly wide: boolean
}

/** One stream with its tables. */
export class Case {
  readonly stream: Stream
  readonly addresses: bigint[] = []
  /** STE.PRIVCFG and INSTCFG make requests so. */
  readonly privileged: boolean
  readonly fetches: boolean
  /** Substreams with a CD. */
  readonly substreams: number[] = [0]
  next: number
  readonly #r: Random
  readonly #b: Bench
  readonly #base: number
  readonly #wide: boolean
  /** Entries of contiguous runs, which must stay alike. */
  readonly #runs = new Set<number>()

  constructor(r: Random, { b, base, wide }: Subject) {
    this.#r = r
    this.#b = b
    this.#base = base
    this.#wide = wide
    this.next = base + AREA
    const kind = r.pick([5, 6, 7] as const)
    this.privileged = r.chance(0.4)
    this.fetches = r.chance(0.25)
    const two = kind !== 5 ? this.#stage2(kind === 7) : undefined
    const contexts = new Map<number, Stage>()
    const tables: number[] = []
    const cds: number[] = []
    const el2 = kind === 5 && r.chance(0.2)
    // EL2 contexts have no ASID that would tell them apart.
    const cdmax = kind !== 6 && !el2 && r.chance(0.4) ? r.pick([1, 3, 6, 8]) : 0
    const fmt = cdmax > 6 || (cdmax > 0 && r.chance(0.4)) ? 1 : 0
    const dss = r.below(3)
    let ctx = 0
    if (kind !== 6) {
      if (cdmax > 0) this.substreams.push(1 + r.below(2 ** cdmax - 1))
      ctx = this.#page(Math.max(fmt === 1 ? 12 : 6 + cdmax, 12))
      cds.push(ctx)
      const inner = new Map<number, number>()
      for (const ssid of new Set(this.substreams)) {
        const one = this.#stage1(el2)
        tables.push(...one.tables)
        let at = ctx + ssid * 64
        if (fmt === 1) {
          const l1 = ssid >> 6
          if (!inner.has(l1)) {
            const page = this.#page(12)
            inner.set(l1, page)
            cds.push(page)
            if (!r.chance(0.1)) b.store(ctx + l1 * 8, BigInt(page) | 1n)
          }
          at = inner.get(l1)! + (ssid & 63) * 64
        }
        const valid = !r.chance(0.05)
        b.cd({ ...one.cd, v: Number(valid), asid: ssid }, at)
        contexts.set(ssid, one.stage)
      }
    }
    if (two) this.#fillStage2(two.stage, tables, cds)
    this.stream = {
      stage1: kind !== 6,
      second: two?.stage,
      oas: wide ? 52 : 48,
      s1CdMax: cdmax,
      s1Dss: dss,
      s1Fmt: fmt,
      contextPtr: BigInt(ctx),
      contexts,
    }
    b.ste({
      config: kind,
      ctx,
      cdmax,
      dss,
      s1fmt: fmt,
      strw: el2 ? 2 : 0,
      privcfg: this.privileged ? 3 : 0,
      instcfg: this.fetches ? 3 : 0,
      ...two?.ste,
    })
  }

  #page(bits: number): number {
    const at = Math.ceil(this.next / 2 ** bits) * 2 ** bits
    this.next = at + 2 ** bits
    return at
  }

  #data(step: number): bigint {
    return BigInt(this.#base + DATA + this.#r.below(0x40_0000 / step) * step)
  }

  /** An address as a descriptor holds it. */
  #spell(address: bigint): bigint {
    return (address & 0xffff_ffff_ffffn) | ((address >> 48n) << 12n)
  }

  /** Writes the entries that lead to one leaf; answers where the leaf is, or -1 where a block is in the way. */
  #map(
    s: Stage,
    address: bigint,
    leaf: bigint,
    { end = 3, table = 3n, fresh }: { end?: number; table?: bigint; fresh: () => number },
  ): number {
    const b = this.#b
    let base = Number(s.root)
    for (let level = s.startLevel; ; level++) {
      const low = s.granule + (3 - level) * (s.granule - 3)
      const width = level === s.startLevel ? s.inputBits - low : s.granule - 3
      const at = base + Number((address >> BigInt(low)) & ((1n << BigInt(width)) - 1n)) * 8
      const known = b.load(at)
      if (level === end) {
        if (known === 0n) b.store(at, leaf)
        return at
      }
      if (known === 0n) {
        base = fresh()
        b.store(at, this.#spell(BigInt(base)) | table)
        continue
      }
      if ((known & 3n) !== 3n) return -1
      const upper = this.#wide ? ((known >> 12n) & 15n) << 48n : 0n
      base = Number((known & 0xffff_ffff_f000n & (-1n << BigInt(s.granule))) | upper)
    }
  }

  /** A random leaf for stage 1: mostly usable, sometimes not. */
  #leaf(output: bigint, isPage: boolean): bigint {
    const r = this.#r
    let d = this.#spell(output) | (isPage ? 3n : 1n) | 0x400n | 0x40n
    for (const n of [6, 7, 11, 51, 53, 54]) if (r.chance(0.25)) d ^= 1n << BigInt(n)
    // Global pages would be the other context's too.
    if (this.substreams.length > 1) d |= 0x800n
    if (r.chance(0.15)) d &= ~0x400n
    if (r.chance(0.04)) d ^= 1n << BigInt(r.pick([0, 1, 13, 36, 44, 47, 49, 58]))
    return d
  }

  #stage1(el2: boolean) {
    const r = this.#r
    const granule = this.#wide ? 16 : r.pick([12, 14, 16] as const)
    const widest = granule === 16 ? 52 : 48
    const inputBits = r.pick([widest, 48, 40, 36, 25 + r.below(24)])
    const ips = this.#wide ? r.pick([6, 6, 6, 6, 6]) : r.pick([5, 5, 5, 4, 2, 0])
    const upper = !el2 && r.chance(0.3)
    const [ha, hd] = r.pick([
      [0, 0],
      [1, 0],
      [1, 1],
      [0, 1],
    ] as const)
    const flags = {
      ha,
      hd,
      affd: Number(r.chance(0.2)),
      wxn: Number(r.chance(0.2)),
      pan: Number(r.chance(0.2)),
    }
    const had = Number(r.chance(0.2))
    // TBI0, TBI1.
    const tbi = r.chance(0.3) ? 1 + r.below(3) : 0
    const startLevel = levelOf(granule, inputBits)
    const root = this.#page(granule)
    const tables = [root]
    const fresh = () => {
      tables.push(this.#page(granule))
      return tables.at(-1)!
    }
    const stage: Stage = {
      granule,
      inputBits,
      startLevel,
      root: BigInt(root),
      outputBits: SIZES[ips]!,
      wide: this.#wide,
      upper,
      tagged: (tbi & (upper ? 2 : 1)) !== 0,
      affd: flags.affd === 1,
      ha: ha === 1,
      hd: hd === 1,
      el2,
      hierarchical: had === 0,
      wxn: flags.wxn === 1,
      pan: flags.pan === 1,
    }
    for (let i = 0; i < 3; i++) {
      const va = this.#address(inputBits)
      let end = Math.max(r.pick(PAGE_ENDS[granule]), startLevel)
      if (granule === 16 && end === 1 && !(this.#wide && r.chance(0.5)))
        end = startLevel === 1 ? 2 : end
      const table = 3n | (r.chance(0.1) ? BigInt(r.below(16)) << 59n : 0n)
      // The first mapping finds tables empty.
      const run = i === 0 && end === 3 && r.chance(0.5) ? RUN[granule] : 1
      this.addresses.push(upper ? BigInt.asUintN(64, va - (1n << BigInt(inputBits))) : va)
      if (run > 1) {
        this.#run(stage, va, run, { table, fresh })
        continue
      }
      const output = end === 3 ? this.#data(0x1_0000) : 0n
      this.#map(stage, va, this.#leaf(output, end === 3), { end, table, fresh })
    }
    if (r.chance(0.15)) this.#corrupt(tables)
    const size = 64 - inputBits
    const range = upper
      ? { ttb1: root, t1sz: size, tg1: TG1[granule], epd0: 1, epd1: 0, had1: had }
      : { ttb0: root, t0sz: size, tg0: TG[granule], had0: had }
    return { stage, tables, cd: { ips, tbi, ...flags, ...range } }
  }

  /** A contiguous run that holds an address: entries that are alike. */
  #run(s: Stage, va: bigint, pages: number, options: { table: bigint; fresh: () => number }): void {
    const page = 1n << BigInt(s.granule)
    const span = page * BigInt(pages)
    const first = va & -span
    const output = this.#data(0x20_0000)
    const leaf = this.#leaf(0n, true) | CONTIGUOUS
    for (let i = 0n; i < pages; i++) {
      const at = this.#map(s, first + i * page, leaf | this.#spell(output + i * page), options)
      this.#runs.add(at)
    }
    for (let i = 1; i < 4; i++) this.addresses.push(va ^ (page * BigInt(this.#r.below(pages))))
  }

  #stage2(nested: boolean) {
    const r = this.#r
    const granule = this.#wide ? 16 : r.pick([12, 14, 16] as const)
    // What a wide unit nests is above 48 bits.
    const whole: readonly [number, number, number] = [12, 2, 1]
    const starts = this.#wide ? [whole, ...(nested ? [] : STARTS[16]!)] : STARTS[granule]!
    const [t0sz, sl0, level] = r.pick(starts)
    const inputBits = 64 - t0sz
    const [ha, hd] = r.pick([
      [0, 0],
      [1, 0],
      [1, 1],
    ] as const)
    const affd = Number(r.chance(0.2))
    const ps = this.#wide ? 6 : r.pick([5, 5, 4, 2])
    const entries = inputBits - (granule + (3 - level) * (granule - 3))
    const root = this.#page(Math.max(entries + 3, 12))
    const stage: Stage = {
      granule,
      inputBits,
      startLevel: level,
      root: BigInt(root),
      outputBits: SIZES[ps]!,
      wide: this.#wide,
      upper: false,
      tagged: false,
      affd: affd === 1,
      ha: ha === 1,
      hd: hd === 1,
      el2: false,
      hierarchical: false,
      wxn: false,
      pan: false,
    }
    return { stage, ste: { s2ttb: root, t0sz, sl0, tg: TG[granule], ps, ha, hd, affd } }
  }

  /** Stage 2 of stage 1's tables, the CDs and the pages; alone, of a few addresses. */
  #fillStage2(s: Stage, tables: readonly number[], cds: readonly number[]): void {
    const r = this.#r
    const page = 2 ** s.granule
    const made: number[] = []
    const fresh = () => {
      made.push(this.#page(s.granule))
      return made.at(-1)!
    }
    const attributes = () => {
      let d = 0x4c3n
      if (r.chance(0.2)) d ^= 1n << BigInt(r.pick([6, 7, 7, 7, 10, 51, 54]))
      if (r.chance(0.2)) d |= 1n << 51n
      return d
    }
    if (cds.length === 0) {
      for (let i = 0; i < 3; i++) {
        const ipa = this.#address(s.inputBits)
        const end = s.granule === 16 && this.#wide && r.chance(0.2) ? 1 : r.pick([3, 3, 2])
        const d = end === 3 ? attributes() : attributes() & ~2n
        const output = end === 3 ? this.#data(0x1_0000) : 0n
        this.#map(s, ipa, this.#spell(output) | d, { end: Math.max(end, s.startLevel), fresh })
        this.addresses.push(ipa)
      }
      if (r.chance(0.2)) this.#corrupt([Number(s.root), ...made])
      return
    }
    const seen = new Set<number>()
    const cover = (at: number, always: boolean) => {
      const ipa = at - (at % page)
      if (seen.has(ipa)) return
      seen.add(ipa)
      const d = always ? 0x4c3n : attributes()
      if (always || r.chance(0.95))
        this.#map(s, BigInt(ipa), this.#spell(BigInt(ipa)) | d, { fresh })
    }
    for (const at of cds) for (let n = 0; n < 0x4000; n += 4096) cover(at + n, true)
    for (const t of tables) for (let at = t; at < t + 0x1_0000; at += page) cover(at, false)
    const data = this.#base + DATA
    for (let at = data; at < data + 0x40_0000; at += 0x1_0000) if (r.chance(0.8)) cover(at, false)
  }

  #corrupt(tables: readonly number[]): void {
    const used: number[] = []
    for (const t of tables)
      for (let at = t; at < t + 4096; at += 8)
        if (!this.#runs.has(at) && this.#b.load(at)) used.push(at)
    if (used.length) {
      const at = this.#r.pick(used)
      this.#b.store(at, this.#b.load(at) ^ (1n << BigInt(this.#r.pick([0, 1, 10, 33, 45, 47, 50]))))
    }
  }

  #address(bits: number): bigint {
    let v = 0n
    for (let i = 0; i < bits; i += 16) v = (v << 16n) | BigInt(this.#r.below(0x1_0000))
    return v & ((1n << BigInt(bits)) - 1n)
  }

  /** An address near a mapped one, or anywhere. */
  pickAddress(): bigint {
    const r = this.#r
    const near = r.pick(this.addresses)
    if (r.chance(0.75)) return near
    if (r.chance(0.3)) return near ^ (BigInt(r.below(256)) << 56n)
    return r.chance(0.5)
      ? near ^ (1n << BigInt(r.below(64)))
      : BigInt.asUintN(64, this.#address(64))
  }

  /** Whether an entry belongs to a contiguous run, any of whose entries may get the flags. */
  isRun(at: number): boolean {
    return this.#runs.has(at)
  }
}
