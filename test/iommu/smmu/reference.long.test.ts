// Random tables of every kind: the unit against a plain reference, outcome, record and flags left in memory.
import { describe, expect, it } from 'vitest'
import { Bench, command, SID, TLBI } from './bench.js'
import { type Random, random } from './random.js'
import { type Access, type Outcome, reference, type Stage, type Words } from './reference.js'

const AREA = 0x20_0000
const SIZES = [32, 36, 40, 42, 44, 48]
const PAGE_ENDS = { 12: [3, 3, 3, 2, 1], 14: [3, 3, 2], 16: [3, 3, 2] } as const
const TG = { 12: 0, 14: 2, 16: 1 } as const
const TG1 = { 12: 2, 14: 1, 16: 3 } as const

const levelOf = (granule: number, inputBits: number): number =>
  4 - Math.ceil((inputBits - granule) / (granule - 3))

/** A random leaf for stage 1: mostly usable, sometimes not. */
function leaf(r: Random, output: bigint, isPage: boolean): bigint {
  let d = output | (isPage ? 3n : 1n) | 0x400n | 0x40n
  for (const n of [6, 7, 11, 51, 53, 54]) if (r.chance(0.25)) d ^= 1n << BigInt(n)
  if (r.chance(0.15)) d &= ~0x400n
  if (r.chance(0.04)) d ^= 1n << BigInt(r.pick([0, 1, 36, 44, 47, 49, 52, 58]))
  return d
}

class Case {
  readonly r: Random
  readonly b: Bench
  next = AREA
  first: Stage | undefined
  second: Stage | undefined
  readonly addresses: bigint[] = []
  /** STE.PRIVCFG and INSTCFG make requests so. */
  readonly privileged: boolean
  readonly fetches: boolean

  constructor(r: Random, b: Bench) {
    this.r = r
    this.b = b
    const kind = r.pick([5, 6, 7] as const)
    this.privileged = r.chance(0.4)
    this.fetches = r.chance(0.25)
    const secondStage = kind !== 5 ? this.#stage2() : undefined
    this.second = secondStage?.stage
    let ctx = 0
    let tables: number[] = []
    if (kind !== 6) {
      const { stage, cd, tables: used } = this.#stage1()
      this.first = stage
      tables = used
      ctx = this.#page(12)
      this.b.cd(cd, ctx)
    }
    if (secondStage) this.#fillStage2(tables, ctx)
    b.ste({
      config: kind,
      ctx,
      strw: this.first?.el2 ? 2 : 0,
      privcfg: this.privileged ? 3 : 0,
      instcfg: this.fetches ? 3 : 0,
      ...secondStage?.ste,
    })
  }

  #page(bits: number): number {
    const at = Math.ceil(this.next / 2 ** bits) * 2 ** bits
    this.next = at + 2 ** bits
    return at
  }

  #stage1() {
    const { r, b } = this
    const granule = r.pick([12, 14, 16] as const)
    const inputBits = r.pick([48, 48, 40, 36, 25 + r.below(24)])
    const ips = r.pick([5, 5, 5, 4, 2, 0])
    const upper = r.chance(0.3)
    const el2 = this.second === undefined && !upper && r.chance(0.2)
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
    const startLevel = levelOf(granule, inputBits)
    const root = this.#page(granule)
    const tables = [root]
    const fresh = () => {
      tables.push(this.#page(granule))
      return tables.at(-1)!
    }
    for (let i = 0; i < 3; i++) {
      const va = this.#address(inputBits)
      const end = Math.max(r.pick(PAGE_ENDS[granule]), startLevel)
      const table = 3n | (r.chance(0.1) ? BigInt(r.below(16)) << 59n : 0n)
      const output = BigInt(0x80_0000 + r.below(0x40) * 0x1_0000)
      b.map(root, va, leaf(r, end === 3 ? output : 0n, end === 3), {
        granule,
        from: startLevel,
        inputBits,
        leafLevel: end,
        table,
        fresh,
      })
      this.addresses.push(upper ? BigInt.asUintN(64, va - (1n << BigInt(inputBits))) : va)
    }
    if (r.chance(0.15)) this.#corrupt(tables)
    const size = 64 - inputBits
    const stage: Stage = {
      granule,
      inputBits,
      startLevel,
      root: BigInt(root),
      outputBits: SIZES[ips]!,
      upper,
      affd: flags.affd === 1,
      ha: ha === 1,
      hd: hd === 1,
      el2,
      hierarchical: had === 0,
      wxn: flags.wxn === 1,
      pan: flags.pan === 1,
    }
    const range = upper
      ? { ttb1: root, t1sz: size, tg1: TG1[granule], epd0: 1, epd1: 0, had1: had }
      : { ttb0: root, t0sz: size, tg0: TG[granule], had0: had }
    return { stage, tables, cd: { ips, ...flags, ...range } }
  }

  #stage2() {
    const { r } = this
    const granule = r.pick([12, 14, 16] as const)
    // Widths that start at a level with a single or a few concatenated tables.
    const [t0sz, sl0, level] = r.pick(
      {
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
      }[granule] as [number, number, number][],
    )
    const inputBits = 64 - t0sz
    const [ha, hd] = r.pick([
      [0, 0],
      [1, 0],
      [1, 1],
    ] as const)
    const affd = Number(r.chance(0.2))
    const ps = r.pick([5, 5, 4, 2])
    const entries = inputBits - (granule + (3 - level) * (granule - 3))
    const root = this.#page(Math.max(entries + 3, 12))
    const stage: Stage = {
      granule,
      inputBits,
      startLevel: level,
      root: BigInt(root),
      outputBits: SIZES[ps]!,
      upper: false,
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

  /** Stage 2 of stage 1's tables, the CD and the pages; alone, of a few addresses. */
  #fillStage2(tables: readonly number[], ctx: number): void {
    const { r, b, second } = this
    const { granule, inputBits, startLevel: from, root } = second!
    const page = 2 ** granule
    const made: number[] = []
    const fresh = () => {
      made.push(this.#page(granule))
      return made.at(-1)!
    }
    const map = (ipa: bigint, output: bigint, attributes: bigint) => {
      const options = { granule, from, inputBits, fresh }
      b.map(Number(root), ipa, output | attributes, options)
    }
    const attributes = () => {
      let d = 0x4c3n
      if (r.chance(0.2)) d ^= 1n << BigInt(r.pick([6, 7, 7, 7, 10, 51, 54]))
      if (r.chance(0.2)) d |= 1n << 51n
      return d
    }
    if (!this.first) {
      for (let i = 0; i < 3; i++) {
        const ipa = this.#address(inputBits)
        map(ipa, BigInt(0x80_0000 + r.below(0x40) * 0x1_0000), attributes())
        this.addresses.push(ipa)
      }
      if (r.chance(0.2)) this.#corrupt([Number(root), ...made])
      return
    }
    const seen = new Set<number>()
    const cover = (at: number, always: boolean) => {
      const ipa = at - (at % page)
      if (seen.has(ipa)) return
      seen.add(ipa)
      if (always || r.chance(0.95)) map(BigInt(ipa), BigInt(ipa), always ? 0x4c3n : attributes())
    }
    cover(ctx, true)
    for (const t of tables)
      for (let at = t; at < t + 2 ** this.first.granule; at += page) cover(at, false)
    for (let at = 0x80_0000; at < 0xc0_0000; at += 0x1_0000) if (r.chance(0.8)) cover(at, false)
  }

  #corrupt(tables: readonly number[]): void {
    const { r, b } = this
    const used: number[] = []
    for (const t of tables) for (let at = t; at < t + 4096; at += 8) if (b.load(at)) used.push(at)
    if (used.length) {
      const at = r.pick(used)
      b.store(at, b.load(at) ^ (1n << BigInt(r.pick([0, 1, 10, 33, 45, 47, 50]))))
    }
  }

  #address(bits: number): bigint {
    let v = 0n
    for (let i = 0; i < bits; i += 16) v = (v << 16n) | BigInt(this.r.below(0x1_0000))
    return v & ((1n << BigInt(bits)) - 1n)
  }

  /** An address near a mapped one, or anywhere. */
  pickAddress(): bigint {
    const { r } = this
    const near = r.pick(this.addresses)
    if (r.chance(0.75)) return near
    return r.chance(0.5)
      ? near ^ (1n << BigInt(r.below(64)))
      : BigInt.asUintN(64, this.#address(64))
  }
}

const SEED = 0x5e11
const CASES = 500

describe('the unit agrees with the reference on random tables', () => {
  it.each([0, 1, 2])(`seed 0x${SEED.toString(16)} + %i: ${CASES} tables, 4 accesses each`, part => {
    const r = random(SEED + part)
    const b = new Bench().start({ cr2: 2 })
    const tally: Record<string, number> = {}
    let used = AREA
    for (let i = 0; i < CASES; i++) {
      b.ram.bytes.fill(0, AREA, used)
      const c = new Case(r, b)
      used = c.next
      expect(used).toBeLessThanOrEqual(0x80_0000)
      b.submit(command.cfgiAll(), command.tlbi(TLBI.NSNH_ALL), command.tlbi(TLBI.EL2_ALL))
      for (let n = 0; n < 4; n++) {
        const va = c.pickAddress()
        const write = r.chance(0.4)
        const access: Access = { write, execute: c.fetches && !write, privileged: c.privileged }
        const expected = predict(c, va, access)
        const label = `part ${part} case ${i} access ${n}: 0x${va.toString(16)} ${JSON.stringify(access)}`
        const got = ask(b, va, access)
        if (got.text !== expected.text)
          expect(`${label} → ${got.text}`).toBe(`${label} → ${expected.text}`)
        for (const [at, value] of expected.written)
          expect(b.load(Number(at)), `${label}: descriptor 0x${at.toString(16)}`).toBe(value)
        expect(ask(b, va, access).text, `${label}, again`).toBe(expected.text)
        const key = expected.text.split(' ')[0]!.replace(/^0x.*/, 'ok')
        tally[key] = (tally[key] ?? 0) + 1
        b.submit(command.tlbi(TLBI.NSNH_ALL), command.tlbi(TLBI.EL2_ALL))
      }
    }
    // Every outcome was met often enough to mean something.
    for (const name of ['ok', 'F_TRANSLATION', 'F_ADDR_SIZE', 'F_ACCESS', 'F_PERMISSION'])
      expect(tally[name], JSON.stringify(tally)).toBeGreaterThan(15)
  })
})

/** What the reference says, and which descriptors it changed; the memory stays as it was. */
function predict(c: Case, va: bigint, access: Access) {
  const written = new Map<bigint, bigint>()
  const { ram } = c.b
  const memory: Words = {
    read: at =>
      at + 8n > BigInt(ram.size) ? undefined : (written.get(at) ?? c.b.load(Number(at))),
    write: (at, value) => written.set(at, value) !== undefined,
  }
  let outcome: Outcome
  if (!c.first && va >> 48n) outcome = { event: 'F_ADDR_SIZE', stage: 1, class: 2, ipa: 0n }
  else {
    // The CD is read first, through stage 2.
    if (c.first?.el2 && va >> 63n) outcome = { event: 'F_TRANSLATION', stage: 1, class: 2, ipa: 0n }
    else outcome = reference(c.first, c.second, va, access, memory)
  }
  return { text: print(outcome), written }
}

const print = (o: Outcome): string =>
  'output' in o
    ? `0x${o.output.toString(16)}`
    : `${o.event} stage ${o.stage} class ${o.class} ipa 0x${o.ipa.toString(16)}`

function ask(b: Bench, va: bigint, access: Access): { text: string } {
  b.faults.length = 0
  const got = b.dma(va, { write: access.write, requester: SID })
  b.consume()
  if (typeof got === 'number') return { text: `0x${got.toString(16)}` }
  const f = b.faults[0]!
  return {
    text: `${f.name} stage ${f.stage} class ${f.class} ipa 0x${(f.ipa - (f.ipa % 4096)).toString(16)}`,
  }
}
