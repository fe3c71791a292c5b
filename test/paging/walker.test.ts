import { describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { explainWalk } from '../../src/paging/explain-walk.js'
import type { PageTableFormat } from '../../src/paging/format.js'
import { VTD_FIRST_STAGE_4LEVEL, VTD_SECOND_STAGE_4LEVEL } from '../../src/paging/formats-vtd.js'
import { X86_4LEVEL, X86_5LEVEL } from '../../src/paging/formats-x86.js'
import {
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  type EntryInto,
  type EntrySource,
  FAILURE,
  type FailureName,
  failureName,
  Walk,
} from '../../src/paging/walk.js'
import { createWalker } from '../../src/paging/walker.js'
import { hiOf, loOf } from './support.js'

const READ = ACCESS_READ | ACCESS_NXE

/** One 4 KiB page at the address whose indices are all `index`, in tables from `base` on. */
function onePage(space: AddressSpace, base: number, levels: number, index: number): bigint {
  let address = 0n
  for (let d = 0; d < levels; d++) {
    const next = d + 1 === levels ? 0x5000 : base + 0x1000 * (d + 1)
    space.store(base + 0x1000 * d + index * 8, 8, BigInt(next) | 0x27n)
    address = (address << 9n) | BigInt(index)
  }
  return address << 12n
}

function walkerOf(format: PageTableFormat, source: EntrySource) {
  const walker = createWalker(format, source)
  const w = new Walk()
  return (root: number, address: bigint, access = READ): Walk => {
    walker(root, hiOf(address), loOf(address), access, w)
    return w
  }
}

describe('a walker', () => {
  it.each([
    ['4-level', X86_4LEVEL, 0x0000_7fff_ffff_ffffn, 0xffff_8000_0000_0000n],
    ['5-level', X86_5LEVEL, 0x00ff_ffff_ffff_ffffn, 0xff00_0000_0000_0000n],
  ])('%s takes canonical addresses only', (_, format, low, high) => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const walk = walkerOf(format, space)
    const name = (address: bigint): FailureName => failureName(walk(0x1000, address).failure)
    expect([name(low), name(high), name((1n << 64n) - 1n)]).toEqual(Array(3).fill('notPresent'))
    expect([name(low + 1n), name(high - 1n), name(1n << 63n)]).toEqual(
      Array(3).fill('nonCanonical'),
    )
    expect(walk(0x1000, low + 1n)).toMatchObject({ depth: -1, entryAt: -1 })
  })

  it('ignores bits of the root that the size of its table makes zero', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 3)
    const walk = walkerOf(X86_4LEVEL, space)
    expect(walk(0x1fff, address).output).toBe(0x5000)
  })

  it('finds tables in any region, also above 4 GiB and across its multiples', () => {
    const space = new AddressSpace()
    space.addRam(0x1000, new Uint8Array(0x1000))
    space.addRam(0xffff_e000, new Uint8Array(0x4000))
    space.addRam(0xf_0000_0000_0000, new Uint8Array(0x1000))
    const at = [0x1000, 0xffff_f000, 0x1_0000_0000, 0xf_0000_0000_0000]
    for (const [i, table] of at.entries()) {
      space.store(table + 8, 8, BigInt(at[i + 1] ?? 0xabc_d000) | 0x27n)
    }
    const walk = walkerOf(X86_4LEVEL, space)
    const address = (1n << 39n) | (1n << 30n) | (1n << 21n) | (1n << 12n)
    for (let i = 0; i < 3; i++) expect(walk(0x1000, address).output).toBe(0xabc_d000)
    expect(walk(0xf_0000_0000_0000, address)).toMatchObject({
      failure: FAILURE.unreadable,
      depth: 1,
      entryAt: 0xabc_d008,
    })
  })

  it('tells where there is no memory for an entry', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x2000))
    space.store(0x1000, 8, 0x9000_0000_0027n)
    const walk = walkerOf(VTD_FIRST_STAGE_4LEVEL, space)
    expect(walk(0x1000, 0n)).toMatchObject({
      failure: FAILURE.unreadable,
      depth: 1,
      level: 3,
      entryAt: 0x9000_0000_0000,
      entryLo: 0,
      entryHi: 0,
    })
    expect(walk(0xfee0_0000, 0n).failure).toBe(FAILURE.interruptRange)
    expect(walkerOf(VTD_SECOND_STAGE_4LEVEL, space)(0xfee0_0000, 0n).failure).toBe(
      FAILURE.unreadable,
    )
  })

  it('sees memory come and go', () => {
    const space = new AddressSpace()
    const ram = space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 5)
    const walk = walkerOf(X86_4LEVEL, space)
    expect(walk(0x1000, address).failure).toBe(FAILURE.none)
    space.remove(ram)
    expect(walk(0x1000, address).failure).toBe(FAILURE.unreadable)
    space.addRam(0, ram.bytes)
    expect(walk(0x1000, address).failure).toBe(FAILURE.none)
  })

  it('needs no more of a source than reading and setting bits', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 1)
    let reads = 0
    const plain: EntrySource = {
      readEntry(at: number, into: EntryInto) {
        reads++
        return space.readEntry(at, into)
      },
      orEntry: (at, lo, hi) => space.orEntry(at, lo, hi),
    }
    const walk = walkerOf(X86_4LEVEL, plain)
    expect(walk(0x1000, address).output).toBe(0x5000)
    expect(reads).toBe(4)
  })

  it('reports flags that cannot be written', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 0)
    const readOnly: EntrySource = {
      readEntry: (at, into) => space.readEntry(at, into),
      orEntry: () => false,
    }
    const walk = walkerOf(X86_4LEVEL, readOnly)
    expect(walk(0x1000, address).failure).toBe(FAILURE.none)
    expect(walk(0x1000, address, ACCESS_WRITE | ACCESS_NXE)).toMatchObject({
      failure: FAILURE.flagUpdate,
      depth: 3,
      entryAt: 0x4000,
    })
  })

  it('lets a probe see what a write would still have to set', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 0)
    const walk = walkerOf(X86_4LEVEL, space)
    const probe = ACCESS_WRITE | ACCESS_USER | ACCESS_NXE | ACCESS_PROBE
    expect(walk(0x1000, address, probe)).toMatchObject({ failure: FAILURE.none, dirty: false })
    expect(space.load(0x4000, 8)).toBe(0x5027n)
    expect(walk(0x1000, address, probe & ~ACCESS_PROBE).dirty).toBe(true)
    expect(space.load(0x4000, 8)).toBe(0x5067n)
    expect(walk(0x1000, address, probe).dirty).toBe(true)
  })

  it('marks only what changes in the dirty log of its tables', () => {
    const space = new AddressSpace()
    const ram = space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 0)
    const marked: number[] = []
    ram.dirty = { mark: (offset: number) => void marked.push(offset) } as unknown as NonNullable<
      typeof ram.dirty
    >
    const walk = walkerOf(X86_4LEVEL, space)
    walk(0x1000, address)
    expect(marked).toEqual([])
    walk(0x1000, address, ACCESS_WRITE | ACCESS_NXE)
    expect(marked).toEqual([0x4000])
  })

  it('is explained', () => {
    const space = new AddressSpace()
    space.addRam(0, new Uint8Array(0x1_0000))
    const address = onePage(space, 0x1000, 4, 511)
    expect(
      explainWalk(X86_4LEVEL, space, 0x1000, address | (0xffffn << 48n), READ).join('\n'),
    ).toMatchInlineSnapshot(`
      "x86-64, 4-level: 0xfffffffffffff000, read
        PML4E at 0x1ff8 = 0x0000000000002027 P RW US A
        PDPTE at 0x2ff8 = 0x0000000000003027 P RW US A
        PDE at 0x3ff8 = 0x0000000000004027 P RW US A
        PTE at 0x4ff8 = 0x0000000000005027 P RW US A
        gives 0x5000: 4 KiB, supervisor rwx, user rwx"
    `)
    expect(explainWalk(X86_4LEVEL, space, 0x1000, address).join('\n')).toMatchInlineSnapshot(`
      "x86-64, 4-level: 0xfffffffff000, read
        stops: the address is not canonical"
    `)
    space.store(0x3ff8, 8, 0xa0n)
    const write = ACCESS_WRITE | ACCESS_USER | ACCESS_NXE
    expect(
      explainWalk(X86_4LEVEL, space, 0x1000, address | (0xffffn << 48n), write).join('\n'),
    ).toMatchInlineSnapshot(`
      "x86-64, 4-level: 0xfffffffffffff000, write by a user
        PML4E at 0x1ff8 = 0x0000000000002027 P RW US A
        PDPTE at 0x2ff8 = 0x0000000000003027 P RW US A
        PDE at 0x3ff8 = 0x00000000000000a0 A
        stops: not present"
    `)
  })
})
