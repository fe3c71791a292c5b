// Random tables and random accesses: the walkers against the plain reference, outcome by outcome, and the
// tables they leave behind bit by bit.

import { describe, expect, it } from 'vitest'
import type { AddressSpace } from '../../src/mem/address-space.js'
import { TableWalk } from '../../src/paging/engine.js'
import type { PageTableFormat } from '../../src/paging/format.js'
import { vtdFirstStage, vtdSecondStage } from '../../src/paging/formats-vtd.js'
import { x86Format } from '../../src/paging/formats-x86.js'
import { createNestedWalker } from '../../src/paging/nested.js'
import { FAILURE, Walk } from '../../src/paging/walk.js'
import { createWalker } from '../../src/paging/walker.js'
import { type RefAccess, type RefFormat, refNested, refWalk } from './reference.js'
import {
  accessOf,
  entries,
  expected,
  hiOf,
  line,
  loOf,
  memory,
  Overlay,
  outcome,
  Recorder,
  random,
} from './support.js'

interface Case {
  name: string
  format: PageTableFormat
  ref: RefFormat
}

const x86 = (levels: 4 | 5, physicalBits: number, gigabytePages: boolean): Case => ({
  name: `x86 ${levels}-level, ${physicalBits} bits${gigabytePages ? ', 1 GB' : ''}`,
  format: x86Format({ levels, physicalBits, gigabytePages }),
  ref: { kind: 'x86', levels, physicalBits, gigabytePages },
})

const first = (levels: 4 | 5, physicalBits: number): Case => ({
  name: `VT-d first stage ${levels}-level, ${physicalBits} bits`,
  format: vtdFirstStage({ levels, physicalBits }),
  ref: { kind: 'x86', levels, physicalBits, gigabytePages: true },
})

const second = (
  levels: 3 | 4 | 5,
  physicalBits: number,
  more: {
    inputBits?: number
    snoopControl?: boolean
    transientMapping?: boolean
    execute?: boolean
  },
): Case => ({
  name: `VT-d second stage ${levels}-level, ${physicalBits} bits ${JSON.stringify(more)}`,
  format: vtdSecondStage({ levels, physicalBits, ...more }),
  ref: { kind: 'second', levels, physicalBits, gigabytePages: true, ...more },
})

const cases: Case[] = [
  x86(4, 52, true),
  x86(4, 40, false),
  x86(5, 46, true),
  first(4, 46),
  first(5, 52),
  second(3, 39, {}),
  second(4, 46, { snoopControl: false }),
  second(4, 52, { execute: true, transientMapping: true, inputBits: 45 }),
  second(5, 48, { inputBits: 57 }),
]

type Draw = (below: number) => number
const INDICES = [0, 1, 255, 256, 511]

/**
 * An entry: mostly a sound one to a table or page, sometimes anything; the more `sound`, the rarer. The more
 * `warm`, the more accessed and dirty flags are set.
 */
function entry(
  draw: Draw,
  ref: RefFormat,
  targets: readonly number[],
  sound: number,
  warm: number,
): bigint {
  if (draw(8 * sound) === 0) return BigInt(draw(0x8000_0000)) | (BigInt(draw(0x8000_0000)) << 33n)
  let e = BigInt(targets[draw(targets.length)]!)
  const flag = (bit: number, oneIn: number): void => {
    if (draw(oneIn) === 0) e |= 1n << BigInt(bit)
  }
  if (draw(2 * sound) === 0) e = BigInt(draw(0x40)) << 30n // aligned for every block
  for (const bit of [0, 1, 2]) if (draw(sound) !== 0) e |= 1n << BigInt(bit)
  for (const bit of [5, 6, 8, 9, 10]) if (draw(warm) !== 0) e |= 1n << BigInt(bit)
  flag(7, sound)
  for (const bit of [11, 12, 13, 20, 45, 47, 51, 62, 63]) flag(bit, 5 * sound)
  if (ref.kind === 'x86') flag(63, sound)
  return e
}

/** Fills pages with entries at a few indices, so that walks meet them. */
function fill(
  draw: Draw,
  space: AddressSpace,
  ref: RefFormat,
  pages: readonly number[],
  targets: readonly number[],
  sound = 8,
  warm = 2,
): void {
  for (const page of pages) {
    for (const index of INDICES)
      space.store(page + index * 8, 8, entry(draw, ref, targets, sound, warm))
  }
}

function address(draw: Draw, ref: RefFormat): bigint {
  let a = 0n
  for (let level = 0; level < ref.levels; level++) {
    a = (a << 9n) | BigInt(INDICES[draw(5)]!)
  }
  a = (a << 12n) | BigInt(draw(4096))
  const width = BigInt(12 + 9 * ref.levels)
  if (ref.kind === 'x86' && a >> (width - 1n) !== 0n) a |= (1n << 64n) - (1n << width)
  if (draw(30) === 0) a ^= 1n << BigInt(ref.levels * 9 + draw(64 - ref.levels * 9))
  if (ref.inputBits !== undefined && draw(10) !== 0) a &= (1n << BigInt(ref.inputBits)) - 1n
  return a
}

function access(draw: Draw): RefAccess {
  const flip = (): boolean => draw(2) === 0
  const kind = draw(4)
  return {
    read: kind !== 1 || flip(),
    write: kind === 1,
    fetch: kind === 2,
    user: flip(),
    wp: flip(),
    smep: flip(),
    smap: flip(),
    ac: flip(),
    nxe: draw(6) !== 0,
    extended: flip(),
    flags2: flip(),
    probe: draw(4) === 0,
  }
}

describe.each(cases)('$name', ({ format, ref }) => {
  it('walks 1500 random accesses as the reference does, seed 7', () => {
    const draw = random(7)
    const { space, alloc, allocHigh } = memory()
    const pages = [...Array.from({ length: 10 }, alloc), allocHigh(), allocHigh()]
    fill(draw, space, ref, pages, pages, 8, 50)
    const source = new Recorder(space)
    const walker = createWalker(format, source)
    const complete = new TableWalk(format, source)
    const w = new Walk()
    const seen = new Set<string>()
    const extends_ = format.flags?.extended !== undefined
    for (let i = 0; i < 1500; i++) {
      if (i % 10 === 0) {
        fill(draw, space, ref, [pages[draw(12)]!], pages, 8, i % 20 === 0 ? 2 : 50)
      }
      const input = address(draw, ref)
      const a = access(draw)
      const root = pages[draw(2) === 0 ? 0 : 10]!
      const overlay = new Overlay(space)
      const extended = a.extended === true && extends_
      const result = refWalk(ref, overlay, BigInt(root), input, { ...a, extended })
      seen.add(result.failure)
      const want = `${i}: ${line(expected(result))} | ${entries(overlay.written)}`

      walker(root, hiOf(input), loOf(input), accessOf(a), w)
      expect(`${i}: ${line(outcome(w))} | ${source.undo()}`).toBe(want)

      complete.setRoot(root)
      const failure = complete.translate(hiOf(input), loOf(input), accessOf(a))
      const { rights, pageBits } = complete
      const same = failure !== FAILURE.none || rights === w.permissions
      expect(`${i}: ${failure} ${same} | ${source.undo()}`).toBe(
        `${i}: ${w.failure} true | ${entries(overlay.written)}`,
      )
      if (failure === FAILURE.none) expect(pageBits).toBe(w.pageBits)
    }
    expect([...seen]).toEqual(expect.arrayContaining(['none', 'notPresent', 'reserved', 'write']))
  })
})

describe.each([
  ['4 over 4', first(4, 52), second(4, 46, {})],
  ['5 over 3', first(5, 52), second(3, 46, { inputBits: 39 })],
  ['4 over 5 with execute', first(4, 46), second(5, 46, { execute: true })],
] as const)('nested %s', (_, one, two) => {
  it('walks 3000 random accesses as the reference does, seed 11', () => {
    const draw = random(11)
    const { space, alloc, allocHigh } = memory()
    const source = new Recorder(space)
    const walker = createNestedWalker(one.format, two.format, source)
    const w = new Walk()
    const seen = new Set<string>()
    const tables = Array.from({ length: 6 }, alloc)
    const guest = [...Array.from({ length: 11 }, alloc), allocHigh()]
    const gpa = (): number => Number(address(draw, two.ref) & 0x7f_ffff_f000n)
    const gpas = Array.from({ length: 24 }, gpa)
    for (let i = 0; i < 3000; i++) {
      if (i % 20 === 0) {
        // The last level's tables are two of their own, so that walks end in guest pages.
        const levels = two.ref.levels
        const warm = i % 40 === 0 ? 2 : 60
        for (let level = levels; level > 0; level--) {
          const own = [tables[levels - level]!]
          fill(
            draw,
            space,
            two.ref,
            own,
            level === 1 ? guest : [tables[levels - level + 1]!],
            60,
            warm,
          )
        }
        fill(draw, space, one.ref, guest, gpas, 12, warm)
      }
      const input = address(draw, one.ref)
      const a = access(draw)
      const firstRoot = gpas[draw(gpas.length)]!
      const overlay = new Overlay(space)
      const [r1, r2] = [BigInt(firstRoot), BigInt(tables[0]!)]
      const result = refNested(one.ref, two.ref, overlay, r1, r2, input, a)
      seen.add(`${result.failure} ${result.during} ${result.stage}`)
      walker(firstRoot, tables[0]!, hiOf(input), loOf(input), accessOf(a), w)
      expect(`${i}: ${line(outcome(w))} | ${source.undo()}`).toBe(
        `${i}: ${line(expected(result))} | ${entries(overlay.written)}`,
      )
    }
    expect([...seen].sort()).toEqual(
      expect.arrayContaining([
        'none page 2',
        'notPresent entry 2',
        'notPresent page 1',
        'notPresent page 2',
        'read entry 2',
        'reserved entry 2',
        'reserved page 1',
        'write flags 2',
      ]),
    )
  })
})
