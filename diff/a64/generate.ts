// Random instruction cases from the encoding table: fields at random, then registers so that loads and stores find the
// window and branches a place where execution stops.

import { decode, ENCODINGS, encode } from '../../src/cpu/a64/decode.js'
import type { Encoding, MemoryUse } from '../../src/cpu/a64/encodings.js'
import { systemKey } from '../../src/cpu/a64/ports.js'
import type { Draw } from '../random.js'
import {
  type Case,
  CODE,
  codeAddress,
  FIRST_WORD,
  MOST_WORDS,
  SLOT_COUNT,
  SLOT_WORDS,
  stateOf,
  WINDOW,
  WINDOW_BYTES,
} from './cases.js'

type Fields = Record<string, number>
type Change = [index: number, value: number]

/** Random values for the fields of a row until they are allocated; undefined when none were in many tries. */
export function drawFields(e: Encoding, draw: Draw, allocated = true): Fields | undefined {
  for (let i = 0; i < 300; i++) {
    const f: Fields = {}
    for (const [name, { width }] of e.fields) f[name] = draw.word() >>> (32 - width)
    if (e.allocated(f) === allocated) return f
  }
  return undefined
}

const high = (address: number) => Math.floor(address / 2 ** 32) | 0

/** Sets a general register (31: SP) to an address. */
const pointTo = (n: number, address: number): Change[] => [
  [2 * n, address | 0],
  [2 * n + 1, high(address)],
]

/** What an index register adds, as the halves of the state give it; a 64-bit number. */
function indexValue(s: Int32Array, use: NonNullable<MemoryUse['index']>): bigint {
  if (use.register === 31) return 0n
  const lo = BigInt(s[2 * use.register]! >>> 0)
  const v = (BigInt(s[2 * use.register + 1]!) << 32n) | lo
  const bits = 8 << (use.option & 3)
  const extended = use.option & 4 ? BigInt.asIntN(bits, v) : BigInt.asUintN(bits, v)
  return extended << BigInt(use.shift)
}

/** A place in the window for an access; rarely misaligned, and more rarely nowhere at all. */
function drawTarget(use: MemoryUse, draw: Draw): number {
  if (draw.oneIn(40)) return WINDOW - 0x1_0000 * (1 + draw.below(4))
  const room = WINDOW_BYTES - use.bytes
  const at = draw.below(room + 1)
  const to = use.align ?? (draw.oneIn(4) ? 1 : Math.min(16, use.bytes))
  return WINDOW + (use.align && draw.oneIn(16) ? at : at - (at % to))
}

/** Changes that put an access where it should go; undefined when these fields cannot be. */
function aim(use: MemoryUse, s: Int32Array, draw: Draw): Change[] | undefined {
  const { index } = use
  if (index && index.register === use.base && index.register !== 31) return undefined
  let base = BigInt(drawTarget(use, draw)) - BigInt(use.displacement)
  if (index) base -= indexValue(s, index)
  base = BigInt.asIntN(64, base)
  return [
    [2 * use.base, Number(BigInt.asIntN(32, base))],
    [2 * use.base + 1, Number(base >> 32n)],
  ]
}

/** Offset in words of a relative branch: near and never onto the case itself, or out of all that is mapped. */
function drawOffset(width: number, draw: Draw): number {
  const near = 2 + draw.below(FIRST_WORD - 4)
  if (!draw.oneIn(8)) return draw.oneIn(2) ? near : -near
  const far = draw.word() >> (32 - width)
  return Math.abs(far) * 4 > 4 * SLOT_WORDS * SLOT_COUNT + 0x10_0000 ? far : near
}

/** Where an indirect branch may go: the words around the case, nowhere, or (rarely) a misaligned address. */
function drawDestination(slot: number, draw: Draw): number {
  if (draw.oneIn(8)) return draw.word() & ~3
  const at = codeAddress(slot) + 4 * (draw.oneIn(2) ? 2 + draw.below(20) : -2 - draw.below(20))
  return draw.oneIn(16) ? at + 2 : at
}

/** A literal load's distance in words to somewhere in the window. */
function drawLiteral(slot: number, draw: Draw): number {
  const at = WINDOW + 4 * draw.below(WINDOW_BYTES / 4 - 4)
  return (at - codeAddress(slot)) / 4
}

/** Fields whose combination the architecture leaves open, or that other implementations answer differently. */
function isOpen(e: Encoding, f: Fields): boolean {
  if (e.group === 'load-store-pair') return f['L'] === 1 && f['Rt'] === f['Rt2']
  if (e.group === 'exclusive') {
    const pair = e.name.startsWith('LDXP')
    if (f['L'] === 1) return pair && f['Rt'] === f['Rt2']
    const status = f['Rs']
    return (
      status === f['Rt'] || (pair && status === f['Rt2']) || (status === f['Rn'] && status !== 31)
    )
  }
  return false
}

interface Drawn {
  readonly word: number
  readonly changes: readonly Change[]
}

/** One instruction of a row, for the first word of a slot. */
function drawInstruction(e: Encoding, slot: number, seed: number, draw: Draw): Drawn | undefined {
  for (let tries = 0; tries < 50; tries++) {
    const f = drawFields(e, draw)
    if (!f) return undefined
    if (isOpen(e, f)) continue
    const changes: Change[] = []
    for (const [name, { width }] of e.fields) {
      const mask = 2 ** width - 1
      if (e.group === 'branch' && /^imm(14|19|26)$/.test(name))
        f[name] = drawOffset(width, draw) & mask
      else if (name === 'imm19') f[name] = drawLiteral(slot, draw) & mask
    }
    const target = e.target?.(f)
    if (target !== undefined && target !== 31)
      changes.push(...pointTo(target, drawDestination(slot, draw)))
    const use = e.memory?.(f)
    if (use) {
      const aimed = aim(use, stateOf({ seed, changes }), draw)
      if (!aimed) continue
      changes.push(...aimed)
    }
    const word = encode(e, f, -1)
    // Some words of a row belong to a more specific one.
    if (decode(word)?.encoding === e) return { word, changes }
  }
  return undefined
}

/** One case of a row. */
export function drawCase(e: Encoding, slot: number, draw: Draw): Case | undefined {
  const seed = draw.word()
  const drawn = drawInstruction(e, slot, seed, draw)
  if (!drawn) return undefined
  return { name: e.name, group: e.group, words: [drawn.word], slot, seed, changes: drawn.changes }
}

const rows = ENCODINGS.filter(e => e.special === undefined)
const plain = rows.filter(e => !e.memory && !e.ends && !e.name.includes('literal'))
const accesses = rows.filter(e => e.memory && e.group !== 'exclusive')
const row = (name: string) => ENCODINGS.find(e => e.name === name)!
const [ldxr, ldxp, clrex] = [row('LDXR/STXR'), row('LDXP/STXP'), row('CLREX')]

/**
 * Several instructions one after another: register-only ones, and in half of the cases a load or store whose base and index
 * those before it leave alone.
 */
function drawSequence(slot: number, draw: Draw): Case | undefined {
  const seed = draw.word()
  const count = 2 + draw.below(MOST_WORDS - 1)
  const access = draw.oneIn(2) ? drawInstruction(draw.pick(accesses), slot, seed, draw) : undefined
  const words: number[] = []
  for (const before = access ? draw.below(count) : count; words.length < before; ) {
    const drawn = drawInstruction(draw.pick(plain), slot, seed, draw)
    if (drawn && !(access && mayWriteAddress(drawn.word, access.word))) words.push(drawn.word)
  }
  if (access) words.push(access.word)
  while (words.length < count) {
    const drawn = drawInstruction(draw.pick(plain), slot, seed, draw)
    if (drawn) words.push(drawn.word)
  }
  const changes = access?.changes ?? []
  return { name: 'sequence', group: 'sequence', words, slot, seed, changes }
}

/** Whether the register in bits 4:0 of one word is in the address fields of the other. */
const mayWriteAddress = (word: number, access: number): boolean =>
  (word & 31) === ((access >>> 5) & 31) || (word & 31) === ((access >>> 16) & 31)

/** A load-exclusive and the store-exclusive after it, with or without something between that disarms the monitor. */
function drawExclusive(slot: number, draw: Draw): Case | undefined {
  const e = draw.pick([ldxr, ldxp])
  const seed = draw.word()
  const pair = e === ldxp
  const n = draw.below(32)
  const load: Fields = { ...drawFields(e, draw)!, L: 1, Rn: n }
  const store: Fields = { ...drawFields(e, draw)!, L: 0, Rn: n }
  if (pair) store['sz'] = load['sz']!
  else store['size'] = load['size']!
  const loaded = pair ? [load['Rt'], load['Rt2']] : [load['Rt']]
  if (loaded.includes(n) && n !== 31) return undefined
  if (isOpen(e, load) || isOpen(e, store)) return undefined
  const changes = aim({ ...e.memory!(load) }, stateOf({ seed, changes: [] }), draw)
  if (!changes) return undefined
  const between = draw.oneIn(8) ? [encode(clrex, { CRm: 15 })] : []
  if (draw.oneIn(4)) between.push(...(drawSequenceWithout(n, seed, slot, draw) ?? []))
  const words = [encode(e, load, -1), ...between, encode(e, store, -1)]
  return { name: e.name, group: 'exclusive', words, slot, seed, changes }
}

/** An instruction that leaves register n alone. */
function drawSequenceWithout(
  n: number,
  seed: number,
  slot: number,
  draw: Draw,
): number[] | undefined {
  const e = draw.pick(plain)
  const drawn = drawInstruction(e, slot, seed, draw)
  if (!drawn || (drawn.word & 31) === n) return undefined
  return [drawn.word]
}

/** NZCV, FPCR and FPSR, with the bits that this version of the architecture has: others may mean something elsewhere. */
const STATUS = [
  { key: systemKey(3, 3, 4, 2, 0), bits: 0xf000_0000 },
  { key: systemKey(3, 3, 4, 4, 0), bits: 0x07c0_0000 },
  { key: systemKey(3, 3, 4, 4, 1), bits: 0x0800_009f },
] as const

/** MRS and MSR of NZCV, FPCR and FPSR: one write or not, then two reads. */
function drawStatus(slot: number, draw: Draw): Case {
  const read = () => 0xd530_0000 | (draw.pick(STATUS).key << 5) | draw.below(32)
  const words: number[] = []
  const changes: Change[] = []
  if (!draw.oneIn(4)) {
    const { key, bits } = draw.pick(STATUS)
    const n = draw.below(32)
    words.push(0xd510_0000 | (key << 5) | n)
    if (n < 31) changes.push([2 * n, draw.word() & bits])
  }
  words.push(read(), read())
  return { name: 'MRS/MSR', group: 'status', words, slot, seed: draw.word(), changes }
}

/** Instructions of later versions that a processor of Armv8.0 with the Cryptographic Extension has and ours has not. */
const isCrypto = (word: number) =>
  (word & 0xff3e_0c00) >>> 0 === 0x4e28_0800 ||
  (word & 0xff20_8c00) >>> 0 === 0x5e00_0000 ||
  (word & 0xff3e_0c00) >>> 0 === 0x5e28_0800 ||
  (word & 0xbf20_fc00) >>> 0 === 0x0e20_e000

/** A word that ours calls UNDEFINED: any word, or a reserved combination of a row's fields. */
function drawUndefined(slot: number, draw: Draw): Case | undefined {
  for (let i = 0; i < 100; i++) {
    let word = draw.word()
    if (draw.oneIn(2)) {
      const e = draw.pick(ENCODINGS)
      const f = drawFields(e, draw, false)
      if (f) word = encode(e, f, -1) >>> 0
      else word = (e.value ^ (1 << draw.below(32)) ^ (draw.word() & ~e.mask)) >>> 0
    }
    if (decode(word) || isCrypto(word)) continue
    const seed = draw.word()
    return { name: 'UNDEFINED', group: 'undefined', words: [word], slot, seed, changes: [] }
  }
  return undefined
}

/** A kind of case: the classes of the table and those that are more than one instruction. */
export interface Kind {
  readonly group: string
  /** Rows of the group. */
  readonly rows: readonly Encoding[]
  readonly draw: (slot: number, draw: Draw) => Case | undefined
}

/** Every kind, by group. `undefined` cases need an Armv8.0 processor, the others one with what rows name as feature. */
export function kinds(): Kind[] {
  const groups = [...new Set(rows.map(e => e.group))]
  const ofTable = groups.map(group => {
    const own = rows.filter(e => e.group === group)
    return {
      group,
      rows: own,
      draw: (slot: number, draw: Draw) => {
        if (group === 'exclusive' && !draw.oneIn(4)) return drawExclusive(slot, draw)
        return drawCase(draw.pick(own), slot, draw)
      },
    }
  })
  return [
    ...ofTable,
    { group: 'sequence', rows: [], draw: drawSequence },
    { group: 'status', rows: [], draw: drawStatus },
    { group: 'undefined', rows: [], draw: drawUndefined },
  ]
}

/** Where nothing is: checked so that a far branch cannot meet another case. */
if (WINDOW + WINDOW_BYTES > CODE + 0x10_0000) throw new Error('literal loads reach 1 MiB')
