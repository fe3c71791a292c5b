import { beforeEach, describe, expect, it } from 'vitest'
import { AddressSpace, type MmioTarget } from '../../src/mem/address-space.js'
import { DirtyLog } from '../../src/mem/dirty-log.js'

/** An MMIO target that notes each access and reads as its offset in every byte. */
class Notes implements MmioTarget {
  readonly seen: string[] = []
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    this.seen.push(`r${size} ${offset}`)
    let value = 0n
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt((offset + i) & 0xff)
    return value
  }
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.seen.push(`w${size} ${offset} ${value.toString(16)}`)
  }
}

const counting = (length: number, from = 1) => Uint8Array.from({ length }, (_, i) => from + i)

describe('AddressSpace', () => {
  let space: AddressSpace
  let low: Uint8Array
  let high: Uint8Array
  let notes: Notes

  // RAM at 0 and, above 4 GiB, at 0x1_0000_0000; registers at 0x2000, directly behind the low RAM.
  beforeEach(() => {
    space = new AddressSpace()
    low = new Uint8Array(0x2000)
    high = new Uint8Array(0x1000)
    notes = new Notes()
    space.addRam(0, low)
    space.addRam(0x1_0000_0000, high)
    space.addMmio(0x2000, 0x100, notes, 'notes')
  })

  it.each([1, 7, 16, 17, 64, 65, 300])('moves %i bytes to RAM and back', length => {
    const bytes = counting(length)
    expect(space.write(0x1_0000_0003, bytes)).toBe(true)
    expect(high.subarray(3, 3 + length)).toEqual(bytes)
    expect([high[2], high[3 + length]]).toEqual([0, 0])
    const back = new Uint8Array(length)
    expect(space.read(0x1_0000_0003, back)).toBe(true)
    expect(back).toEqual(bytes)
  })

  it.each([5, 100])('moves a part of an array: %i bytes', length => {
    space.write(0x100, counting(200), 20, length)
    expect(low.subarray(0x100, 0x100 + length)).toEqual(counting(length, 21))
    const into = new Uint8Array(200)
    space.read(0x100, into, 50, length)
    expect(into.subarray(50, 50 + length)).toEqual(counting(length, 21))
    expect([into[49], into[50 + length]]).toEqual([0, 0])
  })

  it('answers all-ones and false where there is no home, and drops writes', () => {
    const into = new Uint8Array(4)
    expect(space.read(0x9000, into)).toBe(false)
    expect([...into]).toEqual([255, 255, 255, 255])
    expect(space.load(0x9000, 2)).toBe(0xffffn)
    expect(space.readU32(0x9000)).toBe(0xffff_ffff)
    expect(space.write(0x9000, into)).toBe(false)
    expect(space.store(0x9000, 8, 1n)).toBe(false)
    expect(space.writeU32(0x9000, 1)).toBe(false)
    expect(space.orEntry(0x9000, 1, 0)).toBe(false)
    const entry = { entryLo: 0, entryHi: 0 }
    expect(space.readEntry(0x9000, entry)).toBe(false)
    expect(entry).toEqual({ entryLo: -1, entryHi: -1 })
  })

  it.each([-8, Number.NaN, 2 ** 64])('has nothing at address %s', addr => {
    expect(space.ramAt(addr)).toBeUndefined()
    expect(space.mmioAt(addr)).toBeUndefined()
    expect(space.read(addr, new Uint8Array(1))).toBe(false)
  })

  it('does what it can of an access that runs off the end of memory', () => {
    high.fill(7)
    const into = new Uint8Array(8)
    expect(space.read(0x1_0000_0ffc, into)).toBe(false)
    expect([...into]).toEqual([7, 7, 7, 7, 255, 255, 255, 255])
    expect(space.write(0x1_0000_0ffe, counting(4))).toBe(false)
    expect([high[0xffe], high[0xfff]]).toEqual([1, 2])
    expect(space.write(0x2_0000_0000, counting(100))).toBe(false)
  })

  it('reads on into RAM after a hole', () => {
    high[0] = 9
    const into = new Uint8Array(2)
    expect(space.read(0xffff_ffff, into)).toBe(false)
    expect([...into]).toEqual([255, 9])
  })

  it('splits MMIO into the widest aligned accesses', () => {
    const into = new Uint8Array(15)
    expect(space.read(0x2001, into)).toBe(true)
    expect(notes.seen).toEqual(['r1 1', 'r2 2', 'r4 4', 'r8 8'])
    expect([...into]).toEqual([...counting(15)])
    notes.seen.length = 0
    space.write(0x2004, counting(7))
    expect(notes.seen).toEqual(['w4 4 4030201', 'w2 8 605', 'w1 10 7'])
  })

  it('crosses from RAM into registers', () => {
    low[0x1fff] = 0xaa
    const into = new Uint8Array(3)
    space.read(0x1fff, into)
    expect([...into]).toEqual([0xaa, 0, 1])
    expect(notes.seen).toEqual(['r2 0'])
    space.write(0x1ffe, counting(4))
    expect([low[0x1ffe], low[0x1fff]]).toEqual([1, 2])
    expect(notes.seen).toEqual(['r2 0', 'w2 0 403'])
  })

  it.each([1, 2, 4, 8] as const)('loads and stores %i bytes as one access of a register', size => {
    space.load(0x2010, size)
    space.store(0x2010, size, 0xffff_eeee_dddd_ccccn)
    const value = BigInt.asUintN(size * 8, 0xffff_eeee_dddd_ccccn).toString(16)
    expect(notes.seen).toEqual([`r${size} 16`, `w${size} 16 ${value}`])
  })

  it.each([1, 2, 4, 8] as const)('loads and stores %i bytes of RAM at any alignment', size => {
    const value = BigInt.asUintN(size * 8, 0x8877_6655_4433_2211n)
    for (const at of [0x40, 0x43]) {
      expect(space.store(at, size, value)).toBe(true)
      expect(space.load(at, size)).toBe(value)
    }
    expect(low[0x43 + size]).toBe(0)
  })

  it('reads, writes and sets bits of table entries in RAM', () => {
    space.writeU32(0x1008, 0x8000_0001)
    space.writeU32(0x100c, 0x7fff_ffff)
    const entry = { entryLo: 0, entryHi: 0 }
    expect(space.readEntry(0x1008, entry)).toBe(true)
    expect(entry).toEqual({ entryLo: -0x7fff_ffff, entryHi: 0x7fff_ffff })
    expect(space.orEntry(0x1008, 0x60, -0x8000_0000)).toBe(true)
    expect(space.load(0x1008, 8)).toBe(0xffff_ffff_8000_0061n)
    expect(space.readU32(0x1008)).toBe(0x8000_0061)
    // The other region, then back: the lookup follows.
    expect(space.readEntry(0x1_0000_0ff8, entry)).toBe(true)
    expect(entry).toEqual({ entryLo: 0, entryHi: 0 })
    expect(space.orEntry(0x0ff8, 1, 2)).toBe(true)
    expect(space.load(0x0ff8, 8)).toBe(0x2_0000_0001n)
  })

  it('reads and sets bits of entries that lie in registers', () => {
    const entry = { entryLo: 0, entryHi: 0 }
    expect(space.readEntry(0x2008, entry)).toBe(true)
    expect(entry).toEqual({ entryLo: 0x0b0a_0908, entryHi: 0x0f0e_0d0c })
    expect(space.orEntry(0x2008, 0xf0, 0)).toBe(true)
    expect(notes.seen.at(-1)).toBe('w8 8 f0e0d0c0b0a09f8')
  })

  it('delivers an aligned 64-byte write whole to a target that takes it', () => {
    const seen: [number, Uint8Array, boolean][] = []
    const portal: MmioTarget = {
      read: () => 0n,
      write: (offset, size) => seen.push([offset, new Uint8Array(size), false]),
      write64: (offset, bytes, deferrable) => {
        seen.push([offset, bytes.slice(), deferrable])
        return offset === 0x40
      },
    }
    space.addMmio(0x8000, 0x1000, portal, 'portal')
    expect(space.write(0x8040, counting(72))).toBe(true)
    expect(seen).toEqual([
      [0x40, counting(64), false],
      [0x80, new Uint8Array(8), false],
    ])
    seen.length = 0
    expect(space.writeDeferrable(0x8040, counting(64))).toBe(true)
    expect(space.writeDeferrable(0x8080, counting(64))).toBe(false)
    expect(seen.map(s => s[2])).toEqual([true, true])
    space.write(0x8008, counting(64))
    expect(seen.slice(2).every(s => s[1].length === 8)).toBe(true)
  })

  it.each([
    [0x0, 'RAM'],
    [0x2000, 'registers that know no such write'],
    [0x9000, 'nothing'],
  ])('answers retry to a deferrable write at 0x%s: %s', addr => {
    expect(space.writeDeferrable(addr, counting(64))).toBe(false)
    expect(notes.seen).toEqual([])
    expect(low.every(b => b === 0)).toBe(true)
  })

  it.each([
    [0x1ff8, 0x10],
    [0x20f8, 8],
    [0, 8],
    [0xffff_f000, 0x2000],
  ])('refuses overlap: %i, %i bytes', (base, size) => {
    expect(() => space.addRam(base, new Uint8Array(size))).toThrow(/overlap/)
    expect(() => space.addMmio(base, size, notes, 'other')).toThrow(/other: .*overlap/)
  })

  it.each([
    [-8, 8],
    [2 ** 52, 8],
    [Number.NaN, 8],
  ])('refuses a base of %s', (base, size) => {
    expect(() => space.addMmio(base, size, notes, 'far')).toThrow(/not a physical range/)
  })

  it.each([
    [0x4004, 8],
    [0x4000, 12],
  ])('refuses RAM that is not made of aligned 8-byte units: %i, %i', (base, size) => {
    expect(() => space.addRam(base, new Uint8Array(size))).toThrow(/aligned/)
  })

  it('forgets a removed region at once, and counts changes', () => {
    const before = space.generation
    const region = space.ramAt(0)!
    const mmio = space.mmioAt(0x2000)!
    expect(space.remove(region)).toBe(true)
    expect(space.remove(region)).toBe(false)
    expect(space.remove(mmio)).toBe(true)
    expect(space.generation).toBe(before + 2)
    const entry = { entryLo: 0, entryHi: 0 }
    expect([space.readEntry(0, entry), space.ramAt(0), space.mmioAt(0x2000)]).toEqual([
      false,
      undefined,
      undefined,
    ])
    space.addRam(0, new Uint8Array(0x10))
    expect(space.generation).toBe(before + 3)
    expect(space.readEntry(0, entry)).toBe(true)
  })

  it('marks written pages in a region that has a dirty log', () => {
    const ram = space.ramAt(0)!
    ram.dirty = new DirtyLog(2)
    space.load(0x1000, 4)
    space.write(0xff0, counting(8))
    expect([ram.dirty.has(0), ram.dirty.has(1)]).toEqual([true, false])
    ram.dirty.clear()
    space.orEntry(0x1000, 1, 0)
    expect([ram.dirty.has(0), ram.dirty.has(1)]).toEqual([false, true])
    ram.dirty.clear()
    space.writeU32(0xffc, 1)
    space.write(0x1ffe, counting(4))
    expect(ram.dirty.count).toBe(2)
  })
})
