// Stream tables, STEs and CDs of random SMMUv3 cases.
import type { Plan } from './generate.js'
import { DATA, STREAMS } from './units.js'

/** One table that translates: a range of a CD, or stage 2. */
export interface Stage {
  readonly number: 1 | 2
  /** log2 of the granule. */
  readonly granule: number
  readonly inputBits: number
  /** Start level. */
  readonly level: number
  readonly root: number
  /** The upper range of a CD. */
  readonly upper: boolean
  readonly tbi: boolean
}

/** Nothing is there: neither memory nor a device. */
const HOLE = 0xc_0000_0000n
const ADDRESS_BITS = [32, 36, 40, 42, 44, 48] as const

/** log2 of a granule by TG0 and S2TG, and by TG1. */
const TG0 = [12, 16, 14] as const
const TG1 = { 14: 1, 12: 2, 16: 3 } as const

/** The stream table and the STE. Answers its stage 2 and where its CD is to be; -1 for none. */
export function drawStreamTable(p: Plan): { second: Stage | undefined; context: number } {
  const { draw, mode, setup } = p
  const stream = STREAMS[p.device]
  const twoLevel = draw.oneIn(4)
  const bits = draw.oneIn(10) ? 3 + draw.below(5) : 8
  setup['SMMUEN'] = draw.oneIn(40) ? 0n : 1n
  if (!draw.oneIn(20)) setup['CR2'] = 2n
  if (setup['SMMUEN'] === 0n && draw.oneIn(2)) setup['GBPA'] = 1n << 20n
  let at: number
  if (twoLevel) {
    const split = draw.pick([6, 8, 10])
    const l1 = p.alloc()
    const l2 = p.alloc(64 << split)
    const inner = stream % 2 ** split
    const enough = draw.oneIn(8) ? 1 + draw.below(12) : split + 1
    const entry = l1 + ((stream - inner) / 2 ** split) * 8
    let descriptor = BigInt(l2) | BigInt(enough)
    if (draw.oneIn(20)) descriptor &= ~0x1fn
    p.set(entry, descriptor)
    at = l2 + inner * 64
    setup['STRTAB_BASE'] = BigInt(l1)
    setup['STRTAB_BASE_CFG'] = BigInt(bits | (split << 6) | (1 << 16))
    p.about.push(`split ${split}`)
  } else {
    const table = p.alloc(64 << 8)
    at = table + stream * 64
    setup['STRTAB_BASE'] = BigInt(table)
    setup['STRTAB_BASE_CFG'] = BigInt(bits)
  }
  const config = { bypass: 4n, 'stage-1': 5n, 'stage-2': 6n, nested: 7n }[mode]
  const ste = [1n | (config << 1n), 0n, BigInt(p.vmid), 0n, 0n, 0n, 0n, 0n]
  if (mode === 'nested') p.offset = draw.pick([0, 0x2_0000_0000, 0x10_0000_0000])
  const second = mode === 'stage-2' || mode === 'nested' ? drawSecond(p, ste) : undefined
  const context = mode === 'stage-1' || mode === 'nested' ? p.alloc() : -1
  if (context >= 0) ste[0]! |= BigInt(context + p.offset)
  if (mode === 'bypass' && draw.oneIn(4)) ste[0] = 1n | (BigInt(draw.below(4)) << 1n)
  if (draw.oneIn(10)) flawSte(p, ste)
  for (const [i, word] of ste.entries()) p.set(at + i * 8, word)
  p.structures.push(at)
  if (second) p.structures.push(at + 16)
  return { second, context }
}

function flawSte(p: Plan, ste: bigint[]): void {
  const { draw } = p
  const flaw = draw.pick([
    'V',
    'config',
    'S1CDMax',
    'S1Fmt',
    'pointer',
    'hole',
    'S1STALLD',
    'EATS',
    'STRW',
    'S1DSS',
    'words',
  ] as const)
  p.about.push(`STE: ${flaw}`)
  switch (flaw) {
    case 'V':
      ste[0]! &= ~1n
      break
    case 'config':
      ste[0] = (ste[0]! & ~0xen) | (BigInt(draw.below(5)) << 1n)
      break
    case 'S1CDMax':
      ste[0]! |= BigInt(1 + draw.below(31)) << 59n
      break
    case 'S1Fmt':
      ste[0]! |= BigInt(1 + draw.below(3)) << 4n
      break
    case 'pointer':
      ste[0]! |= 1n << BigInt(44 + draw.below(8))
      break
    case 'hole':
      ste[0] = (ste[0]! & ~0xf_ffff_ffff_ffc0n) | HOLE
      break
    case 'S1STALLD':
      ste[1]! |= 1n << 27n
      break
    case 'EATS':
      ste[1]! |= BigInt(1 + draw.below(3)) << 28n
      break
    case 'STRW':
      ste[1]! |= BigInt(1 + draw.below(3)) << 30n
      break
    case 'S1DSS':
      ste[1]! |= BigInt(1 + draw.below(3))
      break
    default:
      ste[4 + draw.below(4)] = draw.bits(64)
  }
}

/** S2 fields of an STE. */
function drawSecond(p: Plan, ste: bigint[]): Stage {
  const { draw } = p
  const nested = p.mode === 'nested'
  const tg = draw.weighted([
    [7, 0],
    [2, 1],
    [2, 2],
  ])
  const granule = TG0[tg]!
  const stride = granule - 3
  const inputBits = 44 - draw.below(nested ? 4 : 12)
  let t0sz = 64 - inputBits
  // The lowest start level that SL0 can name for that width: up to 16 tables side by side.
  const levels = [0, 1, 2, 3].filter(level => {
    const own = inputBits - (granule + (3 - level) * stride)
    return own >= 1 && own <= stride + 4 && level >= (granule === 12 ? 0 : 1)
  })
  const level = draw.pick(levels)
  const sl0 = granule === 12 ? 2 - level : 3 - level
  const own = Math.max(inputBits - (granule + (3 - level) * stride), 0)
  const root = p.alloc(Math.max(8 * 2 ** own, 64))
  let ps = nested || !draw.oneIn(4) ? 4 : draw.below(6)
  let s2 =
    (1n << 51n) |
    (draw.oneIn(4) ? 0n : 1n << 58n) |
    (draw.oneIn(4) ? 1n << 53n : 0n) |
    (draw.oneIn(4) ? draw.some(0x3f00_0000_0000n >> 0n) & (0x3fn << 40n) : 0n)
  let sl = sl0
  if (draw.oneIn(14)) {
    const flaw = draw.pick([
      'S2S',
      'S2HA',
      'S2HD',
      'S2ENDI',
      'S2TG',
      'T0SZ',
      'SL0',
      'TTB',
      'PS',
    ] as const)
    p.about.push(`STE: ${flaw}`)
    if (flaw === 'S2S') s2 |= 1n << 57n
    else if (flaw === 'S2HA') s2 |= 1n << 56n
    else if (flaw === 'S2HD') s2 |= 1n << 55n
    else if (flaw === 'S2ENDI') s2 |= 1n << 52n
    else if (flaw === 'S2TG') s2 |= 3n << 46n
    else if (flaw === 'T0SZ') t0sz = draw.below(64)
    else if (flaw === 'SL0') sl = draw.below(4)
    else if (flaw === 'PS') ps = draw.below(6)
    else ste[3]! |= 1n << BigInt(40 + draw.below(12))
  }
  ste[2]! |=
    s2 | (BigInt(t0sz) << 32n) | (BigInt(sl) << 38n) | (BigInt(tg) << 46n) | (BigInt(ps) << 48n)
  ste[3]! |= BigInt(root)
  p.about.push(
    `stage 2 2^${granule} from level ${level}, ${inputBits} bits to ${ADDRESS_BITS[ps] ?? ps}`,
  )
  return { number: 2, granule, inputBits, level, root, upper: false, tbi: false }
}

/** A CD. Answers the ranges that can translate. */
export function drawCd(p: Plan, at: number): Stage[] {
  const { draw } = p
  const ranges = draw.weighted([
    [6, 1],
    [2, 2],
    [2, 3],
  ])
  const stages: Stage[] = []
  let lo = (1n << 31n) | (1n << 41n) | (1n << 46n) | (BigInt(p.asid) << 48n)
  if (!draw.oneIn(6)) lo |= 1n << 45n
  if (draw.oneIn(5)) lo |= 1n << 35n
  if (draw.oneIn(8)) lo |= 1n << 36n
  if (draw.oneIn(8)) lo |= 1n << 40n
  if (draw.oneIn(4)) lo |= draw.some((0x3fn << 8n) | (0x3fn << 24n))
  const ips = p.mode === 'nested' || !draw.oneIn(4) ? 4 : draw.below(6)
  lo |= BigInt(ips) << 32n
  const tables = [0n, 0n]
  for (const upper of [false, true]) {
    const tg = draw.weighted([
      [7, 0],
      [2, 1],
      [2, 2],
    ])
    const granule = TG0[tg]!
    const stride = granule - 3
    // Even: 48 bits; odd: what VMSA allows.
    const inputBits = draw.oneIn(2) ? 48 : 25 + draw.below(24)
    const level = Math.max(4 - Math.ceil((inputBits - granule) / stride), 0)
    const own = inputBits - (granule + (3 - level) * stride)
    const on = (ranges & (upper ? 2 : 1)) !== 0
    const tbi = draw.oneIn(4)
    const root = on ? p.alloc(Math.max(8 * 2 ** own, 64)) : 0
    const field = BigInt(64 - inputBits) | (BigInt(upper ? TG1[granule] : tg) << 6n)
    lo |= field << (upper ? 16n : 0n)
    if (!on) lo |= upper ? 1n << 30n : 1n << 14n
    if (tbi) lo |= upper ? 1n << 39n : 1n << 38n
    tables[upper ? 1 : 0] = BigInt(root + (on ? p.offset : 0)) | (draw.oneIn(4) ? 2n : 0n)
    if (on) stages.push({ number: 1, granule, inputBits, level, root, upper, tbi })
    if (on) p.about.push(`${upper ? 'TTB1' : 'TTB0'} 2^${granule}, ${inputBits} bits`)
  }
  if (draw.oneIn(8)) {
    const flaw = draw.pick([
      'V',
      'AA64',
      'A',
      'S',
      'HA',
      'HD',
      'ENDI',
      'TG0',
      'TG1',
      'T0SZ',
      'T1SZ',
      'TTB0',
      'IPS',
      'NSCFG',
      'UWXN',
      'words',
    ] as const)
    p.about.push(`CD: ${flaw}`)
    if (flaw === 'V') lo &= ~(1n << 31n)
    else if (flaw === 'AA64') lo &= ~(1n << 41n)
    else if (flaw === 'A') lo &= ~(1n << 46n)
    else if (flaw === 'S') lo |= 1n << 44n
    else if (flaw === 'HA') lo |= 1n << 43n
    else if (flaw === 'HD') lo |= 1n << 42n
    else if (flaw === 'ENDI') lo |= 1n << 15n
    else if (flaw === 'TG0') lo |= 3n << 6n
    else if (flaw === 'TG1') lo &= ~(3n << 22n)
    else if (flaw === 'T0SZ') lo = (lo & ~0x3fn) | BigInt(draw.below(64))
    else if (flaw === 'T1SZ') lo = (lo & ~(0x3fn << 16n)) | (BigInt(draw.below(64)) << 16n)
    else if (flaw === 'TTB0') tables[0]! |= 1n << BigInt(40 + draw.below(12))
    else if (flaw === 'IPS') lo = (lo & ~(7n << 32n)) | (BigInt(draw.below(6)) << 32n)
    else if (flaw === 'NSCFG') tables[0]! |= 1n
    else if (flaw === 'UWXN') lo |= 1n << 37n
    else p.set(at + 32 + draw.below(4) * 8, draw.bits(64))
  }
  p.set(at, lo)
  p.set(at + 8, tables[0]!)
  p.set(at + 16, tables[1]!)
  p.set(at + 24, draw.bits(64))
  p.structures.push(at, at)
  return stages.length > 0 ? stages : [none()]
}

const none = (): Stage => ({
  number: 1,
  granule: 12,
  inputBits: 48,
  level: 0,
  root: DATA,
  upper: false,
  tbi: false,
})
