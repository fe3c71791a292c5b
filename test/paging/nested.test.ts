// Every place where a two-stage walk can stop, made one by one in tables that are otherwise whole.

import { beforeEach, describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { TableBuilder } from '../../src/paging/builder.js'
import { explainNestedWalk } from '../../src/paging/explain-walk.js'
import { vtdFirstStage, vtdSecondStage } from '../../src/paging/formats-vtd.js'
import { createNestedWalker } from '../../src/paging/nested.js'
import {
  ACCESS_EXECUTE,
  ACCESS_EXTENDED,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  DURING,
  FAILURE,
  failureName,
  PERM_ALL,
  PERM_RW,
  Walk,
} from '../../src/paging/walk.js'
import { hiOf, loOf } from './support.js'

const FIRST = vtdFirstStage()
const SECOND = vtdSecondStage({ physicalBits: 46 })
const VA = 0x7f12_3456_7000n
const PAGE_GPA = 0x40_5000
const READ = ACCESS_READ | ACCESS_USER | ACCESS_NXE
const WRITE = ACCESS_WRITE | ACCESS_USER | ACCESS_NXE

// Host memory at 0; guest physical memory is host memory 16 MiB further up, page by page.
const GUEST = 0x100_0000

function setUp(secondBits = 12, firstBits = 12) {
  const space = new AddressSpace()
  space.addRam(0, new Uint8Array(0x280_0000))
  let host = 0x1000
  const second = new TableBuilder(SECOND, space, { allocTable: () => (host += 4096) - 4096 })
  const secondRoot = (host += 4096) - 4096
  second.map(secondRoot, 0, GUEST >> 12, 0x800, PERM_RW, secondBits)
  let guest = 0x1000
  const guestSpace = new AddressSpace()
  guestSpace.addRam(0, space.ramAt(0)!.bytes.subarray(GUEST))
  const first = new TableBuilder(FIRST, guestSpace, { allocTable: () => (guest += 4096) - 4096 })
  const firstRoot = (guest += 4096) - 4096
  const block = 2 ** (firstBits - 12)
  const from = Number(VA >> 12n)
  const to = PAGE_GPA >> 12
  first.map(firstRoot, from - (from % block), to - (to % block), block, PERM_ALL, firstBits)
  const walker = createNestedWalker(FIRST, SECOND, space)
  const w = new Walk()
  /** Address of the first stage's entry at a depth, as a GPA. */
  const firstEntry = (depth: number): number => first.entryAt(firstRoot, Number(VA >> 12n), depth)
  /** Address of the second stage's entry for a GPA at a depth. */
  const secondEntry = (gpa: number, depth: number): number =>
    second.entryAt(secondRoot, gpa >> 12, depth)
  return {
    space,
    guestSpace,
    firstRoot,
    secondRoot,
    firstEntry,
    secondEntry,
    walk(access = READ, at = VA, root = firstRoot) {
      walker(root, secondRoot, hiOf(at), loOf(at), access, w)
      return w
    },
    explain: (access = READ) =>
      explainNestedWalk(FIRST, SECOND, space, firstRoot, secondRoot, VA, access),
    // One table serves many guest pages: this gives a page a second-stage entry of its own value.
    remap(gpa: number, change: (entry: bigint) => bigint) {
      const at = secondEntry(gpa, 3)
      space.store(at, 8, change(space.load(at, 8)))
    },
  }
}

let m: ReturnType<typeof setUp>
beforeEach(() => {
  m = setUp()
})

describe.each([
  [12, 21, 12],
  [21, 12, 12],
  [21, 21, 21],
] as const)('pages of 2^%d through pages of 2^%d bytes', (firstBits, secondBits, both) => {
  it('give the smaller size and the sum of both offsets, and keep flags in both', () => {
    m = setUp(secondBits, firstBits)
    const offset = firstBits === 12 ? 0x123 : Number(VA & 0x1f_ffffn) | 0x123
    const page = firstBits === 12 ? PAGE_GPA : PAGE_GPA & ~0x1f_ffff
    for (const access of [READ, WRITE, WRITE, WRITE | ACCESS_FLAGS2, READ | ACCESS_FLAGS2]) {
      const w = m.walk(access, VA | 0x123n)
      expect(failureName(w.failure)).toBe('none')
      expect([w.output, w.pageBits]).toEqual([GUEST + page + offset, both])
    }
    const leaf = m.secondEntry(page + offset, secondBits === 21 ? 2 : 3)
    expect(m.space.load(leaf, 8) & 0x300n).toBe(0x300n)
    m.space.store(leaf, 8, m.space.load(leaf, 8) & ~1n)
    expect(failureName(m.walk(READ, VA | 0x123n).failure)).toBe('read')
    m.space.store(leaf, 8, m.space.load(leaf, 8) | 1n | (1n << 62n))
    expect(failureName(m.walk(READ, VA | 0x123n).failure)).toBe('reserved')
  })
})

const depths = [0, 1, 2, 3] as const
const levels = [4, 3, 2, 1] as const

describe('a nested walk', () => {
  it('ends at the host address of the guest page', () => {
    const w = m.walk(WRITE, VA + 0x123n)
    expect(failureName(w.failure)).toBe('none')
    expect([w.output, w.pageBits, w.permissions]).toEqual([GUEST + PAGE_GPA + 0x123, 12, PERM_ALL])
  })

  it.each(depths)('stops at first-stage entry %d when it is not present', depth => {
    const at = m.firstEntry(depth)
    m.guestSpace.store(at, 8, 0x5000n)
    const w = m.walk()
    expect(w).toMatchObject({
      failure: FAILURE.notPresent,
      stage: 1,
      during: DURING.page,
      depth,
      level: levels[depth],
      entryAt: at,
      entryLo: 0x5000,
      entryHi: 0,
    })
  })

  it.each(depths)(
    'tells a reserved address bit of a narrow unit in first-stage entry %d',
    depth => {
      const narrow = createNestedWalker(vtdFirstStage({ physicalBits: 40 }), SECOND, m.space)
      const at = m.firstEntry(depth)
      m.guestSpace.store(at, 8, m.guestSpace.load(at, 8) | (1n << 45n))
      const w = new Walk()
      expect(narrow(m.firstRoot, m.secondRoot, hiOf(VA), loOf(VA), READ, w)).toBe(false)
      expect(w).toMatchObject({
        failure: FAILURE.reserved,
        stage: 1,
        depth,
        entryAt: at,
        entryHi: 0x2000,
      })
    },
  )

  it.each(depths)('stops in the second stage of first-stage entry %d', depth => {
    const gpa = m.firstEntry(depth)
    const at = m.secondEntry(gpa, 3)
    m.remap(gpa, () => 0n)
    expect(m.walk()).toMatchObject({
      failure: FAILURE.notPresent,
      stage: 2,
      during: DURING.entry,
      depth: 3,
      level: 1,
      entryAt: at,
      entryLo: 0,
      firstDepth: depth,
      firstLevel: levels[depth],
      intermediate: gpa,
    })
  })

  it.each(depths)('needs read permission for first-stage entry %d', depth => {
    m.remap(m.firstEntry(depth), e => e & ~1n)
    expect(m.walk(WRITE)).toMatchObject({
      failure: FAILURE.read,
      stage: 2,
      during: DURING.entry,
      firstDepth: depth,
    })
  })

  it.each(depths)('needs write permission for the flags of first-stage entry %d', depth => {
    const gpa = m.firstEntry(depth)
    m.remap(gpa, e => e & ~2n)
    expect(m.walk()).toMatchObject({
      failure: FAILURE.write,
      stage: 2,
      during: DURING.flags,
      firstDepth: depth,
      intermediate: gpa,
    })
    m.guestSpace.orEntry(gpa, 0x20, 0)
    expect(m.walk().failure).toBe(FAILURE.none)
    expect(m.walk(READ | ACCESS_EXTENDED)).toMatchObject({
      failure: FAILURE.write,
      during: DURING.flags,
    })
    expect(m.walk(READ | ACCESS_EXTENDED | ACCESS_PROBE).failure).toBe(FAILURE.none)
  })

  it.each(depths)('stops at second-stage entry %d of the final page', depth => {
    const at = m.secondEntry(PAGE_GPA, depth)
    m.space.store(at, 8, m.space.load(at, 8) | (1n << 50n))
    const w = m.walk()
    // Upper entries serve the first-stage tables too, and those are met first.
    const shared = depth < 2
    expect(w).toMatchObject({
      failure: FAILURE.reserved,
      stage: 2,
      during: shared ? DURING.entry : DURING.page,
      entryAt: at,
      entryHi: 0x4_0000,
      intermediate: shared ? m.firstEntry(0) : PAGE_GPA,
      firstDepth: shared ? 0 : 3,
    })
  })

  it('keeps write permission of the two stages apart', () => {
    m.remap(PAGE_GPA, e => e & ~2n)
    expect(m.walk()).toMatchObject({ failure: FAILURE.none, permissions: PERM_ALL & ~0x12 })
    expect(m.walk(WRITE)).toMatchObject({ failure: FAILURE.write, stage: 2, during: DURING.page })
    m = setUp()
    const at = m.firstEntry(3)
    m.guestSpace.store(at, 8, m.guestSpace.load(at, 8) & ~2n)
    expect(m.walk(WRITE)).toMatchObject({ failure: FAILURE.write, stage: 1, during: DURING.page })
  })

  it('leaves the dirty flag alone when the second stage refuses the write', () => {
    m.remap(PAGE_GPA, e => e & ~2n)
    m.walk(WRITE)
    expect(m.guestSpace.load(m.firstEntry(3), 8) & 0x60n).toBe(0n)
  })

  it('refuses a first-stage pointer or output wider than the second stage', () => {
    const narrow = createNestedWalker(FIRST, vtdSecondStage({ levels: 3, inputBits: 36 }), m.space)
    const w = new Walk()
    const walk = (root: number): boolean =>
      narrow(root, m.secondEntry(0, 1) & ~0xfff, hiOf(VA), loOf(VA), READ, w)
    expect(walk(2 ** 36)).toBe(false)
    expect(w).toMatchObject({
      failure: FAILURE.addressSize,
      stage: 2,
      during: DURING.entry,
      firstDepth: 0,
    })
    expect(w.depth).toBe(-1)
    expect(walk(m.firstRoot)).toBe(true)
    const at = m.firstEntry(3)
    m.guestSpace.store(at, 8, m.guestSpace.load(at, 8) | (1n << 36n))
    expect(walk(m.firstRoot)).toBe(false)
    expect(w).toMatchObject({ failure: FAILURE.addressSize, stage: 2, during: DURING.page })
  })

  it('refuses a first-stage table that the second stage puts into the interrupt range', () => {
    m.remap(m.firstEntry(1), () => 0xfee0_0003n)
    expect(m.walk()).toMatchObject({ failure: FAILURE.interruptRange, stage: 1, depth: 1 })
  })

  it('sets flags of both stages, each where it is due', () => {
    m.walk(WRITE | ACCESS_EXTENDED | ACCESS_FLAGS2)
    const first = depths.map(d => m.guestSpace.load(m.firstEntry(d), 8) & 0x460n)
    expect(first).toEqual([0x420n, 0x420n, 0x420n, 0x460n])
    const second = depths.map(d => m.space.load(m.secondEntry(PAGE_GPA, d), 8) & 0x300n)
    expect(second).toEqual([0x100n, 0x100n, 0x100n, 0x300n])
    // The flags of first-stage entries were written: their pages are dirty in the second stage.
    expect(m.space.load(m.secondEntry(m.firstEntry(2), 3), 8) & 0x300n).toBe(0x300n)
  })

  it('without SSADE leaves second-stage entries as they are', () => {
    m.walk(WRITE)
    expect(m.space.load(m.secondEntry(PAGE_GPA, 3), 8) & 0x300n).toBe(0n)
    expect(m.walk(WRITE).dirty).toBe(true)
    expect(m.walk(READ | ACCESS_FLAGS2)).toMatchObject({ dirty: false })
    expect(m.walk(READ | ACCESS_FLAGS2).cacheable & 0x12).toBe(0)
    expect(m.walk(WRITE | ACCESS_FLAGS2).cacheable & 0x12).toBe(0x12)
  })

  it('follows the modes of the first stage only', () => {
    const at = m.firstEntry(3)
    m.guestSpace.store(at, 8, m.guestSpace.load(at, 8) & ~4n)
    expect(m.walk()).toMatchObject({ failure: FAILURE.user, stage: 1 })
    expect(m.walk(READ & ~ACCESS_USER).failure).toBe(FAILURE.none)
    m.guestSpace.store(at, 8, m.guestSpace.load(at, 8) | (1n << 63n))
    expect(m.walk(ACCESS_EXECUTE | ACCESS_NXE)).toMatchObject({
      failure: FAILURE.execute,
      stage: 1,
    })
    expect(m.walk(ACCESS_EXECUTE)).toMatchObject({ failure: FAILURE.reserved, stage: 1 })
  })

  it('notices that memory was taken away between two walks', () => {
    expect(m.walk().failure).toBe(FAILURE.none)
    m.space.remove(m.space.ramAt(0)!)
    expect(m.walk()).toMatchObject({
      failure: FAILURE.unreadable,
      stage: 2,
      during: DURING.entry,
      depth: 0,
    })
  })

  it('does not read through tables that went while the second stage was not asked', () => {
    expect(m.walk().failure).toBe(FAILURE.none)
    m.space.remove(m.space.ramAt(0)!)
    expect(m.walk(READ, VA, 2 ** 48).failure).toBe(FAILURE.addressSize)
    expect(m.walk()).toMatchObject({
      failure: FAILURE.unreadable,
      stage: 2,
      during: DURING.entry,
      firstDepth: 0,
    })
  })

  it('is explained entry by entry', () => {
    expect(m.explain(WRITE).join('\n')).toMatchInlineSnapshot(`
      "VT-d first-stage, 4-level: 0x7f1234567000, write by a user
        FS-PML4E at 0x17f0 = 0x0000000000002007 P RW US
          VT-d second-stage, 4-level: 0x17f0, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4008 = 0x0000000001001003 R W
            gives 0x10017f0: 4 KiB, supervisor rwx, user rwx
        FS-PDPE at 0x2240 = 0x0000000000003007 P RW US
          VT-d second-stage, 4-level: 0x2240, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4010 = 0x0000000001002003 R W
            gives 0x1002240: 4 KiB, supervisor rwx, user rwx
        FS-PDE at 0x3d10 = 0x0000000000004007 P RW US
          VT-d second-stage, 4-level: 0x3d10, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4018 = 0x0000000001003003 R W
            gives 0x1003d10: 4 KiB, supervisor rwx, user rwx
        FS-PTE at 0x4b38 = 0x0000000000405007 P RW US
          VT-d second-stage, 4-level: 0x4b38, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4020 = 0x0000000001004003 R W
            gives 0x1004b38: 4 KiB, supervisor rwx, user rwx
        gives 0x405000: 4 KiB, supervisor rwx, user rwx
      VT-d second-stage, 4-level: 0x405000, write
        SS-PML4E at 0x1000 = 0x0000000000002003 R W
        SS-PDPE at 0x2000 = 0x0000000000003003 R W
        SS-PDE at 0x3010 = 0x0000000000006003 R W
        SS-PTE at 0x6028 = 0x0000000001405003 R W
        gives 0x1405000: 4 KiB, supervisor rwx, user rwx"
    `)
    m.remap(m.firstEntry(2), () => 0n)
    expect(m.explain().join('\n')).toMatchInlineSnapshot(`
      "VT-d first-stage, 4-level: 0x7f1234567000, read by a user
        FS-PML4E at 0x17f0 = 0x0000000000002007 P RW US
          VT-d second-stage, 4-level: 0x17f0, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4008 = 0x0000000001001003 R W
            gives 0x10017f0: 4 KiB, supervisor rwx, user rwx
        FS-PDPE at 0x2240 = 0x0000000000003007 P RW US
          VT-d second-stage, 4-level: 0x2240, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4010 = 0x0000000001002003 R W
            gives 0x1002240: 4 KiB, supervisor rwx, user rwx
        FS-PDE at 0x3d10
          VT-d second-stage, 4-level: 0x3d10, read
            SS-PML4E at 0x1000 = 0x0000000000002003 R W
            SS-PDPE at 0x2000 = 0x0000000000003003 R W
            SS-PDE at 0x3000 = 0x0000000000004003 R W
            SS-PTE at 0x4018 = 0x0000000000000000
            stops: not present
        stops: that entry is out of reach"
    `)
    expect(m.guestSpace.load(m.firstEntry(0), 8) & 0x20n).toBe(0n)
  })
})
