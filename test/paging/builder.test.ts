import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { TableBuilder } from '../../src/paging/builder.js'
import type { PageTableFormat } from '../../src/paging/format.js'
import { VTD_SECOND_STAGE_4LEVEL } from '../../src/paging/formats-vtd.js'
import { X86_4LEVEL } from '../../src/paging/formats-x86.js'
import {
  ACCESS_FLAGS1,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WP,
  FAILURE,
  PERM_ALL,
  PERM_RW,
  Walk,
} from '../../src/paging/walk.js'
import { createWalker } from '../../src/paging/walker.js'
import { formats } from './formats.js'
import { hiOf, loOf, random } from './support.js'

const ANY = ACCESS_READ | ACCESS_USER | ACCESS_NXE | ACCESS_WP | ACCESS_FLAGS1 | ACCESS_FLAGS2

/** A builder over fresh memory that counts its tables. */
function setUp(format: PageTableFormat, bytes = 0x40_0000, freeing = true) {
  const space = new AddressSpace()
  const ram = space.addRam(0x8000_0000, new Uint8Array(bytes))
  let next = ram.base
  let tables = 0
  const free: number[] = []
  const take = (size: number): number => {
    next = Math.ceil(next / size) * size
    if (next + size > ram.base + ram.size) throw new ErrnoError('ENOMEM', 'no table left')
    return (next += size) - size
  }
  const builder: TableBuilder = new TableBuilder(format, space, {
    allocTable() {
      tables++
      return free.pop() ?? take(Math.max(4096, builder.tableBytes))
    },
    ...(freeing && {
      freeTable(at: number) {
        tables--
        free.push(at)
      },
    }),
  })
  const root = take(Math.max(4096, builder.rootBytes))
  const walker = createWalker(format, space)
  const w = new Walk()
  const walk = (address: bigint, access = ANY): Walk => {
    walker(root, hiOf(address), loOf(address), access, w)
    return w
  }
  return { space, builder, root, walk, tables: () => tables }
}

/** The page number of an input address whose bits below the format's width are given. */
function inputPage(format: PageTableFormat, low: bigint): number {
  const { bits, above } = format.input
  const width = BigInt(bits)
  const within = low & ((1n << width) - 1n)
  const ones = above === 'ones' || (above === 'sign' && within >> (width - 1n) !== 0n)
  return Number((ones ? within | ((1n << 64n) - (1n << width)) : within) >> 12n)
}

const bytesOf = (page: number): bigint => BigInt(page) << 12n

describe.each(formats)('$name', format => {
  const leaves = format.levels.filter(level => level.leaf !== undefined)
  const unit = format.levels.at(-1)!.index[1]

  it.each(leaves)('maps and finds a $name', level => {
    const { builder, root, walk } = setUp(format)
    const bits = level.index[1]
    const pages = 2 ** (bits - 12)
    const top = format.levels[0]!.index[0]
    const page = inputPage(format, (1n << BigInt(top)) | (1n << BigInt(bits)))
    const output = (format.input.bits < 40 ? 1 : 5) * pages
    builder.map(root, page, output, pages, PERM_ALL, bits)
    const offset = BigInt(2 ** bits - 8)
    const w = walk(bytesOf(page) + offset)
    expect(w.failure).toBe(FAILURE.none)
    expect([BigInt(w.output), w.pageBits]).toEqual([bytesOf(output) + offset, bits])
    if (pages * 4096 < 2 ** (top + 1)) {
      expect(walk(bytesOf(page ^ pages)).failure).toBe(FAILURE.notPresent)
    }
    expect(builder.unmap(root, page, pages)).toBe(pages)
    expect(walk(bytesOf(page)).failure).toBe(FAILURE.notPresent)
  })

  it('gives a walker what was mapped, whatever was mapped and unmapped before: seed 5', () => {
    const draw = random(5)
    const { builder, root, walk } = setUp(format, 0x800_0000)
    const mapped = new Map<number, number>()
    const step = 2 ** (unit - 12)
    const bases = [0n, 1n << 30n, (1n << BigInt(format.input.bits - 1)) - (1n << 26n)]
    for (let i = 0; i < 120; i++) {
      const page = inputPage(format, bases[draw(3)]! + BigInt(draw(64)) * BigInt(2 ** unit))
      const pages = step * [1, 2, 7, 16][draw(4)]!
      if (draw(3) > 0) {
        const output = draw(2 ** 15) * step
        const taken = Array.from({ length: pages / step }, (_, k) => page + k * step)
        const run = (): void => builder.map(root, page, output, pages, PERM_RW, 30)
        if (taken.some(p => mapped.has(p))) expect(run).toThrow('EEXIST')
        else {
          run()
          for (let k = 0; k < pages; k += step) mapped.set(page + k, output + k)
        }
      } else {
        let want = 0
        for (let k = 0; k < pages; k += step) want += mapped.delete(page + k) ? step : 0
        expect(builder.unmap(root, page, pages)).toBe(want)
      }
      for (let k = -step; k <= pages; k += step) {
        if (page + k < 0) continue
        const w = walk(bytesOf(page + k) + 0x123n)
        const want = mapped.get(page + k)
        const got = w.failure === FAILURE.none ? BigInt(w.output) : undefined
        if (want !== undefined) expect(got).toBe(bytesOf(want) + 0x123n)
        else expect(got).toBe(undefined)
      }
    }
  })
})

describe('a builder', () => {
  it('splits a block that is unmapped in part and keeps its permissions and flags', () => {
    const { space, builder, root, walk } = setUp(X86_4LEVEL)
    builder.map(root, 0x4_0000, 0x8_0000, 0x4_0000, PERM_RW, 30)
    walk(0x4000_0000n, ANY | ACCESS_PROBE)
    space.orEntry(builder.entryAt(root, 0x4_0000, 1), 0x60, 0)
    expect(builder.unmap(root, 0x4_0001, 1)).toBe(1)
    expect(walk(0x4000_1000n).failure).toBe(FAILURE.notPresent)
    const below = walk(0x4000_0000n, ANY | ACCESS_PROBE)
    expect([below.output, below.pageBits, below.dirty]).toEqual([0x8000_0000, 12, true])
    const beside = walk(0x4020_0000n, ANY | ACCESS_PROBE)
    expect([beside.output, beside.pageBits, beside.dirty]).toEqual([0x8020_0000, 21, true])
    expect(beside.permissions & PERM_RW).toBe(PERM_RW)
  })

  it('gives back the tables whose whole span is unmapped', () => {
    const { builder, root, tables } = setUp(VTD_SECOND_STAGE_4LEVEL)
    builder.map(root, 0, 0x1000, 0x500, PERM_RW)
    expect(tables()).toBe(5)
    expect(builder.unmap(root, 0, 0x400)).toBe(0x400)
    expect(tables()).toBe(3)
    expect(builder.unmap(root, 0, 2 ** 36)).toBe(0x100)
    expect(tables()).toBe(0)
  })

  it('leaves tables linked when nobody takes them', () => {
    const { builder, root, tables, walk } = setUp(VTD_SECOND_STAGE_4LEVEL, 0x10_0000, false)
    builder.map(root, 0, 0x1000, 0x200, PERM_RW)
    builder.unmap(root, 0, 0x200)
    builder.map(root, 0, 0x2000, 0x200, PERM_RW)
    expect(tables()).toBe(3)
    expect(walk(0n).output).toBe(0x200_0000)
  })

  it('uses a block only where both addresses and the size allow', () => {
    const { builder, root, walk } = setUp(X86_4LEVEL)
    builder.map(root, 0x1ff, 0x3ff, 0x402, PERM_RW, 21)
    expect(walk(0x1f_f000n).pageBits).toBe(12)
    expect(walk(0x20_0000n).pageBits).toBe(21)
    expect(walk(0x40_0000n).pageBits).toBe(21)
    expect(walk(0x60_0000n).pageBits).toBe(12)
    builder.map(root, 0x1000, 0x1001, 0x200, PERM_RW, 21)
    expect(walk(0x100_0000n).pageBits).toBe(12)
  })

  it('maps all or nothing', () => {
    const { builder, root, walk } = setUp(X86_4LEVEL)
    builder.map(root, 0x105, 0x9000, 1, PERM_RW)
    expect(() => builder.map(root, 0x100, 0x8000, 8, PERM_RW)).toThrow('EEXIST')
    expect(walk(0x10_0000n).failure).toBe(FAILURE.notPresent)
    expect(walk(0x10_5000n).output).toBe(0x900_0000)
    const short = setUp(X86_4LEVEL, 0x4000)
    expect(() => short.builder.map(short.root, 0x1ff, 0x8000, 2, PERM_RW)).toThrow('ENOMEM')
    expect(short.walk(0x1f_f000n).failure).toBe(FAILURE.notPresent)
  })

  it('refuses pages smaller than the format has, and addresses wider', () => {
    const { builder, root } = setUp(formats.find(f => f.name.includes('16 KB'))!)
    expect(() => builder.map(root, 1, 4, 4, PERM_RW)).toThrow('EINVAL')
    expect(() => builder.map(root, 4, 4, 2, PERM_RW)).toThrow('EINVAL')
    expect(() => builder.map(root, 2 ** 36, 4, 4, PERM_RW)).toThrow('EINVAL')
  })

  it('says where the entry of a page is', () => {
    const { space, builder, root } = setUp(X86_4LEVEL)
    expect(builder.entryAt(root, 0x1234)).toBe(-1)
    builder.map(root, 0x1234, 0x777, 1, PERM_RW)
    expect(space.load(builder.entryAt(root, 0x1234), 8) & 0xf_ffff_f000n).toBe(0x77_7000n)
    expect(builder.entryAt(root, 0x1234, 0)).toBe(root)
  })
})
