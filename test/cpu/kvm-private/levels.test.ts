// How large pages are mapped (D-10 to D-15): what bounds a level, mixed blocks against a look at every page, and what
// is mapped before and after a conversion.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MemoryAttributes } from '../../../src/cpu/kvm/memory/attributes.js'
import { blockOf, LEVEL_PAGES, MappingLevels } from '../../../src/cpu/kvm/memory/mapping-levels.js'
import { Slot } from '../../../src/cpu/kvm/memory/slot.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { createRam } from '../../../src/mem/ram.js'
import { AT } from '../kvm/guest.js'
import { GPA, MIB2, PAGE, PrivateGuest } from './guest.js'

const GIB = 2 ** 30

function slotOf(base: number, size: number, user = base): Slot {
  return new Slot({ id: 1, base, pages: size / PAGE, user, flags: 0, dirty: undefined })
}

/** The largest level of the page at an address of a slot, given private ranges. */
function most(slot: Slot, at: number, ...ranges: [number, number][]): number {
  const attributes = new MemoryAttributes()
  for (const [start, end] of ranges) attributes.set(start / PAGE, (end - start) / PAGE, true)
  return new MappingLevels(slot, attributes).most(at / PAGE)
}

describe('D-10, D-12: the largest level of a page', () => {
  const whole = slotOf(GIB, 2 * GIB)
  // biome-ignore format: table
  it.each<[string, Slot, number, [number, number][], number]>([
    ['a slot of whole GiB',                              whole, GIB + 5 * MIB2, [], 3],
    ['all of it private',                                whole, GIB + 5 * MIB2, [[GIB, 3 * GIB]], 3],
    ['a page of the GiB private',                        whole, GIB + 5 * MIB2, [[GIB, GIB + PAGE]], 2],
    ['a page of the 2 MiB private',                      whole, GIB, [[GIB + 5 * PAGE, GIB + 6 * PAGE]], 1],
    ['the private page itself',                          whole, GIB + 5 * PAGE, [[GIB + 5 * PAGE, GIB + 6 * PAGE]], 1],
    ['a page of the other GiB private',                  whole, GIB, [[2 * GIB, 2 * GIB + PAGE]], 3],
    ['a private range up to the block',                  whole, GIB + MIB2, [[0, GIB + MIB2]], 2],
    ['the head of a slot that begins inside a GiB',      slotOf(GIB + MIB2, 2 * GIB), GIB + MIB2, [], 2],
    ['a GiB inside that slot',                           slotOf(GIB + MIB2, 2 * GIB), 2 * GIB, [], 3],
    ['the tail of a slot that ends inside a GiB',        slotOf(GIB, GIB + MIB2), 2 * GIB, [], 2],
    ['the head of a slot that begins inside 2 MiB',      slotOf(GIB + PAGE, MIB2), GIB + PAGE, [], 1],
    ['the tail of a slot that ends inside 2 MiB',        slotOf(GIB, MIB2 + PAGE), GIB + MIB2, [], 1],
    ['2 MiB inside that slot',                           slotOf(GIB, MIB2 + PAGE), GIB + PAGE, [], 2],
    ['user memory 4 KiB off',                            slotOf(GIB, 2 * GIB, GIB + PAGE), GIB, [], 1],
    ['user memory 2 MiB off',                            slotOf(GIB, 2 * GIB, GIB + MIB2), GIB, [], 2],
    ['user memory 1 GiB off',                            slotOf(GIB, 2 * GIB, 5 * GIB), GIB, [], 3],
  ])('%s', (_, slot, at, ranges, level) => {
    expect(most(slot, at, ...ranges)).toBe(level)
  })

  it('goes down from the level asked for', () => {
    const levels = new MappingLevels(whole, new MemoryAttributes())
    expect(([1, 2, 3] as const).map(asked => levels.most(GIB / PAGE, asked))).toEqual([1, 2, 3])
  })
})

describe('D-11: what the query says and what a fault maps', () => {
  it('a private page: the query by slot and attribute alone, the fault by its memory too', () => {
    const g = new PrivateGuest()
    g.slot2({ size: MIB2, memfd: g.createMemfd(MIB2), user: BigInt(MIB2) })
    g.attributes(GPA, MIB2, true)
    g.peek(GPA)
    expect(g.kvm.slots.at(GPA)!.levels!.most(GPA / PAGE)).toBe(2)
    expect(g.mapped(GPA)).toBe('1P')
  })
})

describe("D-10: a shared page also by the owner's mapping", () => {
  const USER = 0x7000_0000_0000n
  it.each([
    ['one mapping over the block', [[0, MIB2]], '2S'],
    [
      'two mappings that meet inside the block',
      [
        [0, MIB2 / 2],
        [MIB2 / 2, MIB2 / 2],
      ],
      '1S',
    ],
    [
      'a hole inside the block',
      [
        [0, MIB2 / 2],
        [MIB2 / 2 + PAGE, MIB2 / 2 - PAGE],
      ],
      '1S',
    ],
  ] as [string, [number, number][], string][])('%s', (_, pieces, level) => {
    const g = new PrivateGuest()
    for (const [at, size] of pieces) g.sys.process.memory.mmap(size, { at: USER + BigInt(at) })
    g.slot2({ size: MIB2, user: USER })
    g.poke(GPA + PAGE, 1)
    expect(g.mapped(GPA)).toBe(level === '2S' ? '2S' : undefined)
    expect(g.mapped(GPA + PAGE)).toBe(level)
  })

  it.each([
    ['dirty logging', { flags: uapi.KVM_MEM_LOG_DIRTY_PAGES }, '1S'],
    ['none', {}, '2S'],
  ])('%s', (_, change, level) => {
    const g = new PrivateGuest()
    g.sys.process.memory.mmap(MIB2, { at: USER })
    g.slot2({ size: MIB2, user: USER, ...change })
    g.poke(GPA, 1)
    expect(g.mapped(GPA)).toBe(level)
  })

  it('D-12: code is mapped small under the workaround for large executable pages, data is not', () => {
    const g = new PrivateGuest({ memfd: { smallCode: true } })
    const { bytes } = g.sys.process.memory.mmap(2 * MIB2, { at: USER })
    g.slot2({ size: 2 * MIB2, user: USER })
    bytes.set([0xb0, 4, 0xe6, 0x10, 0xeb, 0xfe])
    g.setRegs({ rip: BigInt(GPA) })
    expect(g.answer()).toBe(4)
    g.peek(GPA + MIB2)
    expect([g.mapped(GPA), g.mapped(GPA + MIB2)]).toEqual(['1S', '2S'])
  })

  it("a device's registers are mapped as the owner has them, and reached", () => {
    const g = new PrivateGuest()
    const seen: string[] = []
    const target = {
      read: (offset: number, size: number) => {
        seen.push(`r${offset}.${size}`)
        return 0x5an
      },
      write: (offset: number, size: number, v: bigint) => void seen.push(`w${offset}.${size}=${v}`),
    }
    g.host.memory.addMmio(0xc000_0000, 0x2000, target, 'bar')
    const { space } = { space: g.host.memory }
    const bar = g.sys.process.memory.mmap(0x2000, { backing: { space, hpa: 0xc000_0000 } })
    g.slot2({ size: 0x2000, user: bar.vaddr })
    expect(g.peek(GPA + 0x1004)).toBe(0x5a)
    g.poke(GPA + 8, 3)
    expect(seen).toEqual(['r4100.1', 'w8.1=3'])
    g.attributes(GPA, PAGE, true)
    expect(g.peek(GPA + 8)).toMatch(/^fault 8/)
  })
})

describe('D-13: before an attribute changes', () => {
  it('the whole range is unmapped, also where the slot cannot be private', () => {
    const g = new PrivateGuest()
    const shared = g.sys.mmap(4 * PAGE)
    g.slot2({ size: 4 * PAGE, user: shared.vaddr })
    for (let i = 0; i < 4; i++) g.peek(GPA + i * PAGE)
    g.attributes(GPA + PAGE, 2 * PAGE, true)
    const kinds = [0, 1, 2, 3].map(i => g.mapped(GPA + i * PAGE))
    expect(kinds).toEqual(['1S', undefined, undefined, '1S'])
    expect(g.peek(GPA + PAGE)).toMatch(/^fault 8/)
  })
})

describe('D-15: one page in the middle of a private 2 MiB block', () => {
  it('converted gives 4 KiB mappings, converted back 2 MiB again, with nothing stale in between', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    const user = 0x7000_0000_0000n
    const shared = g.sys.process.memory.mmap(MIB2, { at: user })
    g.slot2({ size: MIB2, memfd: g.createMemfd(MIB2), user })
    g.attributes(GPA, MIB2, true)
    const middle = GPA + 300 * PAGE
    for (const at of [GPA, middle, GPA + MIB2 - PAGE]) g.poke(at, 0x10)
    expect(g.mapped(middle)).toBe('2P')
    shared.bytes.fill(0x77)

    g.attributes(middle, PAGE, false)
    expect(g.mapped(GPA)).toBeUndefined()
    expect([g.peek(GPA), g.peek(middle), g.peek(middle + PAGE)]).toEqual([0x10, 0x77, 0])
    expect([GPA, middle, middle + PAGE].map(at => g.mapped(at))).toEqual(['1P', '1S', '1P'])
    g.poke(middle, 0x20)
    expect(shared.bytes[300 * PAGE]).toBe(0x20)

    g.attributes(middle, PAGE, true)
    expect([g.peek(middle), g.mapped(middle), g.mapped(GPA)]).toEqual([0x10, '2P', '2P'])
    g.poke(middle, 0x30)
    expect(shared.bytes[300 * PAGE]).toBe(0x20)
  })
})

describe('D-10, D-15: 1 GiB of the owner', () => {
  it('is one mapping; a private page in it leaves 2 MiB blocks beside 4 KiB pages, until it is shared again', () => {
    const g = new PrivateGuest()
    const at = BigInt(64 * GIB)
    const backing = { bytes: createRam(GIB) }
    const memory = g.sys.process.memory.mmap(GIB, { at, backing })
    g.slot2({ size: GIB, user: at })
    const [near, far] = [GPA + 300 * MIB2 + 5 * PAGE, GPA + 9 * PAGE]
    g.poke(near, 1)
    expect([g.mapped(near), g.mapped(far)]).toEqual(['3S', '3S'])
    g.attributes(near + PAGE, PAGE, true)
    expect([g.peek(near), g.peek(far)]).toEqual([1, 0])
    expect([g.mapped(near), g.mapped(far)]).toEqual(['1S', '2S'])
    g.attributes(near + PAGE, PAGE, false)
    g.poke(near + PAGE, 2)
    expect(memory.bytes[300 * MIB2 + 6 * PAGE]).toBe(2)
    expect([g.mapped(near), g.mapped(far), g.peek(near)]).toEqual(['3S', '3S', 1])
  })
})

describe('D-14: mixed blocks after every change', () => {
  // A slot of 3 GiB and a bit that begins and ends inside a 2 MiB block; ranges around block borders.
  const base = GIB - 5 * MIB2 - 3 * PAGE
  const slot = slotOf(base, 3 * GIB + 7 * MIB2 + 9 * PAGE)
  const borders = [slot.first, slot.last + 1]
  for (let gib = 0; gib <= 4; gib++)
    for (const mib of [0, 1, 2, 255, 511])
      for (const page of [-1, 0, 1, 200]) borders.push((gib * GIB + mib * MIB2) / PAGE + page)
  const points = borders.filter(p => p >= 0)
  const change = fc
    .tuple(fc.constantFrom(...points), fc.constantFrom(...points), fc.boolean())
    .filter(([a, b]) => a !== b)
    .map(([a, b, kind]) => [Math.min(a, b), Math.abs(a - b), kind] as const)

  function mixedByPage(attributes: MemoryAttributes, gfn: number, level: 2 | 3): boolean {
    const block = blockOf(gfn, level)
    const pages = LEVEL_PAGES[level]
    if (block < slot.first || block + pages - 1 > slot.last) return false
    let inPrivate = 0
    for (const r of attributes.privateRanges(block, block + pages - 1))
      inPrivate += r.last - r.first + 1
    return inPrivate > 0 && inPrivate < pages
  }

  it('are those with private and shared pages, and a new slot finds the same', () => {
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), changes => {
        const attributes = new MemoryAttributes()
        const levels = new MappingLevels(slot, attributes)
        for (const [first, pages, kind] of changes) {
          attributes.set(first, pages, kind)
          const [from, to] = [Math.max(first, slot.first), Math.min(first + pages - 1, slot.last)]
          if (from <= to) levels.changed(from, to)
        }
        const fresh = new MappingLevels(slot, attributes)
        for (const gfn of points.filter(p => p >= slot.first && p <= slot.last))
          for (const level of [2, 3] as const) {
            const mixed = mixedByPage(attributes, gfn, level)
            expect(levels.mixed(gfn, level), `level ${level} of ${gfn.toString(16)}`).toBe(mixed)
            expect(fresh.mixed(gfn, level)).toBe(mixed)
          }
      }),
      { seed: 15, numRuns: 50 },
    )
  })
})

it('a guest page that is read from tables is mapped like any other', () => {
  const g = new PrivateGuest()
  g.peek(AT.DATA)
  expect(g.mapped(AT.PML4)).toBe('1S')
})
