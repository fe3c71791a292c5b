// Random tables and requests: the unit against the plain reference, outcome by outcome, and the tables that
// both leave behind word by word: 20,000 walks in every run, 200,000 in a long one.
import { describe, expect, it } from 'vitest'
import { Draw } from '../../../diff/random.js'
import type { VtdConfig } from '../../../src/iommu/vtd/config.js'
import { NO_PASID } from '../../../src/pci/request.js'
import { often, PATIENCE } from '../../support/long.js'
import { BDF, Bench, GCMD, REG } from './bench.js'
import { Reference, type Request, type Unit, unitOf } from './reference.js'

const WALKS = often(20_000, 200_000)
/** Requests of one set of tables. */
const PER_CASE = 12
const RAM = 2 << 20
const DATA = 0x10_0000

interface Setup {
  readonly name: string
  /** The unit of a case: it is asked what it can do, as software would. */
  config(draw: Draw): Partial<VtdConfig>
  /** Cases that one unit serves. */
  readonly each: number
  readonly legacy: boolean | 'sometimes'
  /** Faults that must have been met. */
  readonly met: readonly number[]
}

const SCALABLE = [0x5a, 0x71, 0x72, 0x76, 0x79, 0x7a, 0x80, 0x81, 0x85]
const LEGACY = [0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0a, 0x0b, 0x0c]
const ALL = Number.POSITIVE_INFINITY

const FEATURES = [
  ...['passThrough', 'deviceTlb', 'firstStage', 'firstStage5Level', 'firstStage1GPages'],
  ...['secondStage', 'secondStageAccessedDirty', 'extendedAccessed', 'memoryTypes', 'nesting'],
  ...['ridPasid', 'ridPriv', 'supervisorRequests', 'executeRequests', 'pageRequests'],
  ...['snoopControl', 'pageWalkSnoop'],
] as const

/** Any combination of capabilities; what needs something that is missing is then missing too. */
function anyConfig(draw: Draw): Partial<VtdConfig> {
  return {
    ...Object.fromEntries(FEATURES.map(name => [name, !draw.oneIn(4)])),
    scalableMode: !draw.oneIn(8),
    queuedInvalidation: !draw.oneIn(12),
    hostAddressWidth: draw.pick([36, 39, 46, 52]),
    guestAddressWidth: draw.pick([39, 48, 57]),
    domainIdBits: draw.pick([4, 8, 16]),
    pasidBits: draw.pick([0, 6, 10, 20]),
    secondStageLargePages: draw.pick([[], [21], [21, 30], [30]]),
  }
}

const setups: readonly Setup[] = [
  {
    name: '48 bits, everything',
    config: () => ({}),
    each: ALL,
    legacy: false,
    met: SCALABLE,
  },
  {
    name: '57 bits, five levels',
    config: () => ({
      hostAddressWidth: 52,
      guestAddressWidth: 57,
      firstStage5Level: true,
      snoopControl: false,
    }),
    each: ALL,
    legacy: false,
    met: SCALABLE,
  },
  {
    name: 'legacy mode, 57 bits',
    config: () => ({ hostAddressWidth: 52, guestAddressWidth: 57 }),
    each: ALL,
    legacy: true,
    met: LEGACY,
  },
  {
    name: 'any combination of capabilities',
    config: anyConfig,
    each: 8,
    legacy: 'sometimes',
    met: [...SCALABLE, ...LEGACY, 0x42, 0x45, 0x48, 0x5b, 0x5c, 0x5d, 0x83, 0x84, 0x89],
  },
]

/** Tables of one case, in RAM that starts at 0. */
class Tables {
  readonly draw: Draw
  readonly unit: Unit
  readonly words = new Map<number, bigint>()
  readonly addresses: bigint[] = []
  readonly pasids: number[] = []
  root = 0n
  #next = 0x1000

  constructor(draw: Draw, unit: Unit, legacy: boolean) {
    this.draw = draw
    this.unit = unit
    if (legacy) this.#legacy()
    else this.#scalable()
  }

  /** Root table, context table, and a second stage. */
  #legacy(): void {
    const { draw, unit } = this
    const flaw = draw.oneIn(8) ? draw.below(3) : -1
    const spoil = (n: number, value: bigint) => (n === flaw ? this.#spoil(value) : value)
    const [root, contexts, second] = [this.#page(), this.#page(), this.#page()]
    this.root = BigInt(root)
    this.words.set(root + (BDF >> 8) * 16, spoil(0, BigInt(contexts) | 1n))
    const type = BigInt(
      draw.weighted([
        [8, 0],
        [2, 1],
        [2, 2],
      ]),
    )
    const aw = draw.oneIn(30) ? draw.below(8) : 1 + draw.below((unit.mgaw - 30) / 9)
    const at = contexts + (BDF & 0xff) * 16
    this.words.set(at, spoil(1, BigInt(second) | (type << 2n) | draw.some(2n) | 1n))
    this.words.set(
      at + 8,
      spoil(2, BigInt(aw) | draw.some(0x78n) | (draw.bits(this.#domainBits()) << 8n)),
    )
    this.#fill(second, Math.min(Math.max(2 + aw, 3), 5), 'second')
  }

  /** True where a feature is there, and now and then where it is not. */
  #if(feature: boolean): boolean {
    return feature || this.draw.oneIn(15)
  }

  #domainBits(): number {
    return this.draw.oneIn(30) ? 16 : this.unit.domainBits
  }

  #scalable(): void {
    const { draw, unit } = this
    const root = this.#page()
    const contexts = this.#page()
    const directory = this.#page()
    this.root = BigInt(root)
    const flaw = draw.oneIn(12) ? draw.below(8) : -1
    const spoil = (n: number, value: bigint) => (n === flaw ? this.#spoil(value) : value)
    this.words.set(root + (BDF >> 8) * 16, spoil(0, BigInt(contexts) | 1n))
    const at = contexts + (BDF & 0x7f) * 32
    const rid = this.#if(unit.ridPasid) ? draw.below(64) : 0
    const reach = BigInt(draw.below(8)) << 9n
    let enables = this.#if(unit.pasidBits > 0) ? 8n : 0n
    if (draw.oneIn(2) && this.#if(unit.deviceTlb)) enables |= 4n
    if (draw.oneIn(3) && this.#if(unit.pageRequests)) enables |= 0x14n
    const priv = draw.oneIn(unit.ridPriv ? 4 : 12) ? 1n << 20n : 0n
    this.words.set(at, spoil(1, BigInt(directory) | 1n | enables | reach))
    this.words.set(at + 8, spoil(2, BigInt(rid) | priv))
    const table = this.#page()
    this.words.set(directory, spoil(3, BigInt(table) | 1n))
    for (const pasid of [rid, (rid + 1) % 64, (rid + 9) % 64]) {
      this.pasids.push(pasid)
      this.#pasid(table + pasid * 64)
    }
  }

  /** Where free memory begins. */
  get end(): number {
    return this.#next
  }

  #page(): number {
    const at = this.#next
    this.#next += 4096
    return at
  }

  /** A word with something wrong. */
  #spoil(value: bigint): bigint {
    const { draw } = this
    return draw.oneIn(3) ? value & ~1n : value ^ (1n << BigInt(draw.below(64)))
  }

  #pasid(at: number): void {
    const { draw, unit: u } = this
    const kinds = [
      ...(u.first ? [1, 1] : []),
      ...(u.second ? [2, 2] : []),
      ...(u.nested ? [3, 3, 3, 3] : []),
      ...(u.passThrough ? [4] : []),
    ]
    const pgtt = draw.oneIn(30) || kinds.length === 0 ? draw.below(8) : draw.pick(kinds)
    const most = (u.mgaw - 30) / 9
    const aw = draw.oneIn(40) ? draw.below(8) : 1 + draw.below(most)
    const five = u.fiveLevel && draw.oneIn(2)
    const [first, second] = [this.#page(), this.#page()]
    const some = (mask: bigint, feature: boolean) => (this.#if(feature) ? draw.some(mask) : 0n)
    let w0 = BigInt(second) | 1n | (BigInt(aw) << 2n) | (BigInt(pgtt) << 6n)
    w0 |= some(0x200n, u.secondFlags) | (draw.oneIn(3) ? some(0x20n, u.execute) : 0n)
    let w2 = BigInt(first) | (five ? 4n : 0n) | some(0x20n, true)
    if (this.#if(u.supervisor)) w2 |= draw.oneIn(6) ? 0n : 1n
    if (this.#if(u.execute)) w2 |= draw.oneIn(6) ? 0n : 2n
    w2 |= some(0x50n, u.supervisor) | some(0x80n, u.extendedAccessed)
    const attributes = some(1n << 23n, u.walkSnoop) | some(1n << 24n, u.snoopControl)
    // PASIDs of one domain would have to have one second stage.
    const did = (draw.bits(this.#domainBits()) & ~3n) | BigInt(this.pasids.length & 3)
    const words = [w0, did | attributes, w2, 0n, 0n, 0n, 0n, 0n]
    if (draw.oneIn(20)) {
      const n = draw.below(draw.oneIn(3) ? 8 : 3)
      words[n] = this.#spoil(words[n]!)
    }
    for (const [i, w] of words.entries()) this.words.set(at + i * 8, w)
    this.#fill(first, five ? 5 : 4, 'first')
    this.#fill(second, Math.min(Math.max(2 + aw, 3), 5), 'second')
  }

  /** A few paths through one table; first-stage ones are where requests go. */
  #fill(root: number, levels: number, stage: 'first' | 'second'): void {
    const { draw } = this
    for (let i = 0; i < (stage === 'first' ? 3 : 2); i++) {
      const large = stage === 'first' || this.#if(this.unit.megabytePages)
      const huge = this.#if(stage === 'first' ? this.unit.gigabyteFirst : this.unit.gigabytePages)
      const leafLevel = draw.weighted([
        [8, 1],
        [large ? 2 : 0, 2],
        [huge ? 1 : 0, 3],
      ])
      let address = draw.bits(12 + 9 * levels) & ~0xfffn
      if (stage === 'first' && ((address >> BigInt(11 + 9 * levels)) & 1n) === 1n)
        address |= -1n << BigInt(12 + 9 * levels)
      address = BigInt.asUintN(64, address)
      this.#path(root, levels, leafLevel, address, BigInt(DATA + draw.below(16) * 4096), stage)
      this.addresses.push(address)
    }
    if (stage === 'first') return
    // What a nested first stage leads to: all of RAM at its own address, for the most part.
    const leafLevel = this.unit.megabytePages && draw.oneIn(2) ? 2 : 1
    const step = 1n << BigInt(12 + 9 * (leafLevel - 1))
    for (let at = 0n; at < BigInt(RAM) && at < 0x4_0000n * step; at += step) {
      if (leafLevel === 1 && at >= BigInt(this.#next) && at < BigInt(DATA)) continue
      if (at >= BigInt(DATA) + 0x1_0000n) break
      this.#path(root, levels, leafLevel, at, at, stage)
    }
  }

  #path(
    root: number,
    levels: number,
    leafLevel: number,
    address: bigint,
    target: bigint,
    stage: 'first' | 'second',
  ): void {
    let table = root
    for (let level = levels; level >= leafLevel; level--) {
      const at = table + Number((address >> BigInt(3 + 9 * level)) & 0x1ffn) * 8
      const leaf = level === leafLevel
      const known = this.words.get(at)
      if (known !== undefined) {
        if (leaf || (known & 0x80n) !== 0n) return
        table = Number(known & 0x1f_f000n)
        continue
      }
      if (!leaf) table = this.#page()
      const mask = (1n << BigInt(12 + 9 * (level - 1))) - 1n
      const base = leaf ? target & ~mask : BigInt(table)
      this.words.set(at, this.#entry(level, leaf, base, stage))
    }
  }

  #entry(level: number, leaf: boolean, address: bigint, stage: 'first' | 'second'): bigint {
    const { draw } = this
    const first = stage === 'first'
    let e = address | 7n | (leaf && level > 1 ? 0x80n : 0n)
    if (draw.oneIn(3)) e |= draw.some(first ? 0x8000_0000_0000_0760n : 0x8300_0000_0000_0378n)
    if (!first && leaf && this.unit.snoopControl && draw.oneIn(4)) e |= 0x800n
    if (draw.oneIn(24)) e &= ~draw.bitOf(7n)
    if (draw.oneIn(60)) e &= ~3n
    if (level > 3 && draw.oneIn(40)) e |= 0x80n
    if (draw.oneIn(60)) e ^= 1n << BigInt(draw.below(64))
    if (leaf && level === 1 && draw.oneIn(60)) e = (e & 0xfffn) | 0xfee0_0000n
    return e
  }

  request(legacy: boolean): Request {
    const { draw } = this
    let address = draw.pick(this.addresses) | BigInt(draw.below(4096))
    if (draw.oneIn(10)) address ^= 1n << BigInt(12 + draw.below(52))
    if (draw.oneIn(6)) address = BigInt(DATA + draw.below(0x1_0000))
    const tagged = legacy ? draw.oneIn(60) : !draw.oneIn(3)
    const execute = draw.oneIn(4)
    const pasid = legacy || draw.oneIn(30) ? draw.below(0x10_0000) : draw.pick(this.pasids)
    // Without PASID this range is for interrupts.
    if (!tagged && address >> 20n === 0xfeen) address = 0n
    return {
      requester: BDF,
      pasid: tagged ? pasid : -1,
      address,
      write: !execute && draw.oneIn(2),
      execute,
      privileged: draw.oneIn(3),
    }
  }
}

function check(setup: Setup, walks: number, seed: number): Set<number> {
  let b = new Bench({ config: {}, ramBytes: RAM })
  let unit: Unit | undefined
  let used = 0
  const seen = new Set<number>()
  for (let n = 0; n < walks / PER_CASE; n++) {
    const draw = new Draw(seed, n)
    if (!unit || n % setup.each === 0) {
      b = new Bench({ config: setup.config(draw), ramBytes: RAM })
      unit = unitOf(b.r64(REG.CAP), b.r64(REG.ECAP), b.unit.config.hostAddressWidth)
    }
    const some = setup.legacy === 'sometimes' && (!unit.scalable || draw.oneIn(4))
    const legacy = setup.legacy === true || some
    const tables = new Tables(draw, unit, legacy)
    b.ram.bytes.fill(0, 0, used)
    used = tables.end
    for (const [at, value] of tables.words) b.store(at, BigInt.asUintN(64, value))
    const overlay = new Map<bigint, bigint>()
    const reference = new Reference(unit, {
      read: at => overlay.get(at) ?? (at < BigInt(RAM) ? b.load(Number(at)) : undefined),
      write: (at, value) => overlay.set(at, value),
    })
    b.unit.reset()
    b.w64(REG.RTADDR, tables.root | (legacy ? 0n : 0x400n))
    b.command(GCMD.SRTP)
    b.enable()
    for (let i = 0; i < PER_CASE; i++) {
      const r = tables.request(legacy)
      overlay.clear()
      const expected = legacy
        ? reference.legacyRequest(tables.root, r)
        : reference.request(tables.root, r)
      b.faults.length = 0
      const { pasid, write, execute, privileged } = r
      const got = b.dma(r.address, {
        pasid: pasid < 0 ? NO_PASID : pasid,
        write,
        execute,
        privileged,
      })
      const fault = b.faults[0]?.code
      const story = `seed ${seed}/${n}, request ${i}: ${JSON.stringify(r, (_, v) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v))}`
      if ('fault' in expected)
        expect(`${story} ${fault?.toString(16)}`).toBe(`${story} ${expected.fault.toString(16)}`)
      else expect(`${story} ${got}`).toBe(`${story} ${expected.output}`)
      for (const [at, value] of overlay)
        if (b.load(Number(at)) !== value)
          expect(`${story} ${at.toString(16)}: ${b.load(Number(at)).toString(16)}`).toBe(
            `${story} ${at.toString(16)}: ${value.toString(16)}`,
          )
      seen.add('fault' in expected ? expected.fault : 0)
    }
  }
  return seen
}

describe('VT-d against a second reading of the specification', () => {
  it.each(setups)(
    `$name: one in ${setups.length} of ${WALKS} random walks, seed 11`,
    setup => {
      const seen = check(setup, WALKS / setups.length, 11)
      expect([...seen]).toEqual(expect.arrayContaining([0, ...setup.met]))
    },
    PATIENCE,
  )
})
