// VMSAv8-64: permissions by the tables of Arm ARM D8.4, start levels, faults of its own.

import { describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { explainWalk } from '../../src/paging/explain-walk.js'
import { VMSA_ENTRY, type VmsaOptions, vmsaFormat } from '../../src/paging/formats-vmsa.js'
import { createNestedWalker } from '../../src/paging/nested.js'
import {
  ACCESS_EXECUTE,
  ACCESS_FLAGS1,
  ACCESS_FLAGS2,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_SMAP,
  ACCESS_SMEP,
  ACCESS_USER,
  ACCESS_WRITE,
  failureName,
  PERM_GLOBAL,
  Walk,
} from '../../src/paging/walk.js'
import { createWalker } from '../../src/paging/walker.js'
import { hiOf, loOf, rightsOf } from './support.js'

const E = VMSA_ENTRY
const bits = (...names: (keyof typeof E)[]): bigint => names.reduce((v, n) => v | E[n], 0n)

/** Two levels, 30-bit inputs: a table entry at 0x1000 and a leaf at 0x2000. */
function twoLevels(options: VmsaOptions, table: bigint, leaf: bigint) {
  const space = new AddressSpace()
  space.addRam(0, new Uint8Array(0x1_0000))
  space.store(0x1000, 8, 0x2000n | 3n | table)
  space.store(0x2000, 8, 0x5000n | 3n | leaf)
  const format = vmsaFormat({ inputBits: 30, ...options })
  const walker = createWalker(format, space)
  const w = new Walk()
  const walk = (access: number, address = 0n): Walk => {
    walker(0x1000, hiOf(address), loOf(address), access, w)
    return w
  }
  return { space, format, walk }
}

const FIRST = ACCESS_READ | ACCESS_FLAGS1
const SECOND = ACCESS_READ | ACCESS_FLAGS2

describe('stage 1', () => {
  // D8.4.1: without hierarchical control or execute-never, r w x of EL1, then of EL0.
  it.each([
    ['AP 00', 0n, 'rwxX'],
    ['AP 01', bits('AP1'), 'rwRWX'],
    ['AP 10', bits('AP2'), 'rxX'],
    ['AP 11', bits('AP1', 'AP2'), 'rxRX'],
    ['AP 11 PXN', bits('AP1', 'AP2', 'PXN'), 'rRX'],
    ['AP 11 UXN', bits('AP1', 'AP2', 'UXN'), 'rxR'],
    ['AP 00 PXN UXN', bits('PXN', 'UXN'), 'rw'],
  ])('%s grants %s', (_, leaf, want) => {
    const { walk } = twoLevels({}, 0n, leaf | bits('AF', 'nG'))
    expect(rightsOf(walk(FIRST).permissions)).toBe(want)
  })

  it.each([
    ['APTable 01: no EL0', bits('APTable0'), bits('AP1'), 'rwxX'],
    ['APTable 10: no writes', bits('APTable1'), bits('AP1'), 'rxRX'],
    ['APTable 11: neither', bits('APTable0', 'APTable1'), bits('AP1'), 'rxX'],
    ['PXNTable', bits('PXNTable'), bits('AP1', 'AP2'), 'rRX'],
    ['UXNTable', bits('UXNTable'), bits('AP1', 'AP2'), 'rxR'],
  ])('%s limits what is below', (_, table, leaf, want) => {
    const { walk } = twoLevels({}, table, leaf | bits('AF', 'nG'))
    expect(rightsOf(walk(FIRST).permissions)).toBe(want)
  })

  it('ignores table permissions under HPD', () => {
    const all = bits('APTable0', 'APTable1', 'PXNTable', 'UXNTable')
    const { walk } = twoLevels({ hierarchical: false }, all, bits('AP1', 'AF', 'nG'))
    expect(rightsOf(walk(FIRST).permissions)).toBe('rwRWX')
  })

  it.each([
    ['WXN', ACCESS_SMEP, bits('AP1'), 'rwRW'],
    ['WXN on a read-only page', ACCESS_SMEP, bits('AP1', 'AP2'), 'rxRX'],
    ['PAN', ACCESS_SMAP, bits('AP1', 'AP2'), 'xRX'],
    ['PAN on a privileged page', ACCESS_SMAP, 0n, 'rwxX'],
  ])('%s', (_, mode, leaf, want) => {
    const { walk } = twoLevels({}, 0n, leaf | bits('AF', 'nG'))
    const w = walk(FIRST | mode | (ACCESS_USER * Number(want[0] === 'x')))
    expect(rightsOf(w.permissions)).toBe(want)
  })

  it('is global without nG', () => {
    expect(twoLevels({}, 0n, bits('AF')).walk(FIRST).permissions & PERM_GLOBAL).not.toBe(0)
    expect(twoLevels({}, 0n, bits('AF', 'nG')).walk(FIRST).permissions & PERM_GLOBAL).toBe(0)
  })

  it('faults on a clear access flag before permissions, or sets it', () => {
    const { space, walk } = twoLevels({}, 0n, bits('AP2', 'nG'))
    expect(failureName(walk(ACCESS_WRITE).failure)).toBe('accessFlag')
    expect(walk(ACCESS_WRITE)).toMatchObject({ level: 3, entryAt: 0x2000 })
    expect(failureName(walk(FIRST | ACCESS_PROBE).failure)).toBe('none')
    expect(space.load(0x2000, 8) & E.AF).toBe(0n)
    expect(failureName(walk(FIRST).failure)).toBe('none')
    expect(space.load(0x2000, 8) & E.AF).toBe(E.AF)
    expect(failureName(walk(ACCESS_READ).failure)).toBe('none')
    expect(failureName(walk(FIRST | ACCESS_WRITE).failure)).toBe('write')
    expect(space.load(0x1000, 8)).toBe(0x2003n)
  })

  it('has no block at level 3 and none above level 1', () => {
    const { space, walk } = twoLevels({}, 0n, bits('AF'))
    space.store(0x2000, 8, 0x5401n)
    expect(walk(FIRST)).toMatchObject({ failure: 1, level: 3, entryLo: 0x5401 })
    const walker = createWalker(vmsaFormat(), space)
    space.store(0x3000, 8, 0x5401n)
    const w = new Walk()
    expect(walker(0x3000, 0, 0, FIRST, w)).toBe(false)
    expect(w).toMatchObject({ failure: 1, level: 0 })
  })

  it('takes addresses with ones above in the upper range, with zeros in the lower', () => {
    const upper = twoLevels({ upper: true }, 0n, bits('AF'))
    const top = (1n << 64n) - (1n << 30n)
    expect(upper.walk(FIRST, top + 8n).output).toBe(0x5008)
    expect(failureName(upper.walk(FIRST, 8n).failure)).toBe('addressSize')
    const lower = twoLevels({}, 0n, bits('AF'))
    expect(lower.walk(FIRST, 8n).output).toBe(0x5008)
    expect(failureName(lower.walk(FIRST, top + 8n).failure)).toBe('addressSize')
    expect(failureName(lower.walk(FIRST, 1n << 30n).failure)).toBe('addressSize')
  })

  it('refuses output addresses beyond the configured size', () => {
    const { space, walk } = twoLevels({ outputBits: 40 }, 0n, bits('AF') | (1n << 40n))
    expect(walk(FIRST)).toMatchObject({ level: 3, stage: 1 })
    expect(failureName(walk(FIRST).failure)).toBe('addressSize')
    space.store(0x1000, 8, 0x2003n | (1n << 47n))
    expect(walk(FIRST).level).toBe(2)
    // Bits above the address field are ignored.
    space.store(0x1000, 8, 0x2003n | (1n << 50n))
    space.store(0x2000, 8, 0x5403n | (1n << 48n))
    expect(failureName(walk(FIRST).failure)).toBe('none')
  })

  it('tells the span of a contiguous run', () => {
    const { walk } = twoLevels({}, 0n, bits('AF', 'contiguous'))
    expect(walk(FIRST, 0x123n)).toMatchObject({ pageBits: 16, output: 0x5123 })
  })
})

describe('stage 2', () => {
  it.each([
    ['S2AP 00', 0n, 'xX'],
    ['S2AP 01', bits('S2AP_R'), 'rxRX'],
    ['S2AP 10', bits('S2AP_W'), 'wxWX'],
    ['S2AP 11', bits('S2AP_R', 'S2AP_W'), 'rwxRWX'],
    ['XN 01: EL0 only', bits('S2AP_R', 'XN0'), 'rRX'],
    ['XN 10: nobody', bits('S2AP_R', 'XN1'), 'rR'],
    ['XN 11: EL1 only', bits('S2AP_R', 'XN0', 'XN1'), 'rxR'],
  ])('%s grants %s', (_, leaf, want) => {
    const { walk } = twoLevels({ stage: 2 }, bits('APTable0', 'UXNTable'), leaf | bits('AF'))
    const access = want[0] === 'r' ? SECOND : want[0] === 'w' ? ACCESS_WRITE : ACCESS_EXECUTE
    expect(rightsOf(walk(access).permissions)).toBe(want)
  })

  it('indexes concatenated tables as one', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x2_0000))
    const format = vmsaFormat({ stage: 2, inputBits: 34, startLevel: 2 })
    const walker = createWalker(format, space)
    const w = new Walk()
    // Entry 0x1fff of sixteen tables at 0x1_0000.
    space.store(0x1_0000 + 0x1fff * 8, 8, 0x4020_0000n | 1n | bits('AF', 'S2AP_R'))
    const top = (1n << 34n) - 1n
    expect(walker(0x1_0000, hiOf(top), loOf(top), SECOND, w)).toBe(true)
    expect([w.output, w.pageBits]).toEqual([0x403f_ffff, 21])
  })

  it.each([
    [{ stage: 2, inputBits: 35, startLevel: 2 }, 'more than sixteen tables'],
    [{ stage: 1, inputBits: 40, startLevel: 1 }, 'concatenation in stage 1'],
    [{ stage: 2, inputBits: 30, startLevel: 1 }, 'a level that resolves nothing'],
  ] as [VmsaOptions, string][])('refuses %j: %s', options => {
    expect(() => vmsaFormat(options)).toThrow('no start at level')
  })
})

describe('both stages', () => {
  it.each([
    [4, 30, 40],
    [16, 30, 40],
    [64, 30, 40],
    [4, 48, 39],
  ] as const)('translate %d KB, %d bits through 4 KB, %d bits', (granule, bits1, bits2) => {
    const space = new AddressSpace()
    const ram = space.addRam(0, new Uint8Array(0x20_0000))
    const first = vmsaFormat({ granule, inputBits: bits1 })
    const second = vmsaFormat({ stage: 2, inputBits: bits2, startLevel: 1 })
    const rw = bits('AF', 'S2AP_R', 'S2AP_W')
    // Stage 2: 1 MiB from 0 by pages, each 1 MiB further up; two tables at its start.
    space.store(0x2000, 8, 0x4003n)
    space.store(0x4000, 8, 0x5003n)
    for (let i = 0; i < 256; i++)
      space.store(0x5000 + i * 8, 8, BigInt(0x10_0000 + i * 4096) | 3n | rw)
    // Stage 1: tables at guest 0x1_0000 and 0x2_0000 on, one entry in each.
    const depth = first.levels.length
    for (let d = 0; d < depth; d++) {
      const at = 0x10_0000 + 0x1_0000 * (d + 1)
      const next =
        d + 1 === depth ? 0x8_0000n | bits('AF', 'AP1', 'nG') : BigInt(0x1_0000 * (d + 2))
      space.store(at + 8, 8, next | 3n)
    }
    const va = first.levels.reduce((a, level) => a | (1n << BigInt(level.index[1])), 0x678n)
    const walker = createNestedWalker(first, second, space)
    const w = new Walk()
    const walk = (access: number): string => {
      walker(0x1_0000, 0x2000, hiOf(va), loOf(va), access, w)
      return failureName(w.failure)
    }
    expect(walk(FIRST | ACCESS_USER)).toBe('none')
    expect([w.output, w.pageBits, rightsOf(w.permissions)]).toEqual([0x18_0678, 12, 'rwRWX'])
    expect(ram.size).toBeGreaterThan(w.output)

    space.store(0x5000 + 0x10 * 8, 8, 0x11_0000n | 3n | bits('S2AP_R'))
    expect(walk(FIRST)).toBe('accessFlag')
    expect(w).toMatchObject({ stage: 2, during: 1, firstDepth: 0, intermediate: 0x1_0008 })
    expect(walk(FIRST | ACCESS_FLAGS2)).toBe('none')
  })
})

it('a walk of VMSA tables is explained', () => {
  const { space, format } = twoLevels({}, bits('APTable1'), bits('AF', 'AP1', 'UXN'))
  expect(
    explainWalk(format, space, 0x1000, 0x123n, FIRST | ACCESS_WRITE).join('\n'),
  ).toMatchInlineSnapshot(`
    "VMSAv8-64 stage 1, 4 KB, 30 bits: 0x123, read and write
      level 2 at 0x1000 = 0x4000000000002003 APTable1
      level 3 page at 0x2000 = 0x0040000000005443 AP1 AF UXN
      stops: writes are not permitted"
  `)
})
