/**
 * Physical addresses: RAM and MMIO regions side by side. Table entries and words in RAM are read at the
 * price of an array index; everything else is split into the accesses a bus would make.
 * What has no home reads all-ones and takes no writes. Next: frames.ts, process-memory.ts.
 */
import { halves, hex, join, split } from '../base/addr.js'
import type { DeviceGuard } from './confidential.js'
import { copy, RamRegion } from './ram.js'

/** What answers accesses at an MMIO address. Offsets are relative to the region; accesses never cross its end. */
export interface MmioTarget {
  read(offset: number, size: 1 | 2 | 4 | 8): bigint
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void
  /** A 4-byte aligned write without a bigint, for targets that are rung often; as `write` otherwise. */
  write32?(offset: number, value: number): void
  /** The same for a read: an unsigned number. */
  read32?(offset: number): number
  /**
   * Takes one 64-byte write at a 64-byte aligned offset. `deferrable` tells a Deferrable Memory Write
   * (ENQCMD; PCIe 6.32), answered true for accepted, false for retry, from a posted one (MOVDIR64B),
   * whose answer is dropped. Without this hook a posted write arrives in 8-byte pieces and a
   * deferrable one is answered retry.
   */
  write64?(offset: number, bytes: Uint8Array, deferrable: boolean): boolean
}

/** Where `readEntry` leaves the two halves of an 8-byte entry. */
export interface EntryInto {
  entryLo: number
  entryHi: number
}

/** An MMIO target at a physical address. */
export class MmioRegion {
  readonly kind = 'mmio'
  readonly base: number
  readonly size: number
  readonly target: MmioTarget
  /** For messages and traces. */
  readonly name: string

  constructor(base: number, size: number, target: MmioTarget, name: string) {
    this.base = base
    this.size = size
    this.target = target
    this.name = name
  }
}

export type Region = RamRegion | MmioRegion

/** RAM and MMIO by physical address, below 2^52. */
export class AddressSpace {
  /** Counts additions and removals, for whoever caches what lies at an address. */
  generation = 0
  /** Set while some pages are not for devices; request paths ask it. A change of its answers counts in `generation`. */
  guard: DeviceGuard | undefined = undefined
  readonly #none = new RamRegion(0, new Uint8Array(0))
  #regions: Region[] = []
  #ram: RamRegion = this.#none
  #mmio: MmioRegion | undefined = undefined

  /** All regions, by address. */
  get regions(): readonly Region[] {
    return this.#regions
  }

  /** Puts `bytes` at `base` as RAM. Both must be multiples of 8; overlap is an Error. */
  addRam(base: number, bytes: Uint8Array): RamRegion {
    const region = new RamRegion(base, bytes)
    this.#add(region, 'RAM')
    return region
  }

  /** Puts a target at `base`. Overlap is an Error. */
  addMmio(base: number, size: number, target: MmioTarget, name: string): MmioRegion {
    const region = new MmioRegion(base, size, target, name)
    this.#add(region, name)
    return region
  }

  /** Takes a region away; false when it is not here. */
  remove(region: Region): boolean {
    const index = this.#regions.indexOf(region)
    if (index < 0) return false
    this.#regions.splice(index, 1)
    if (this.#ram === region) this.#ram = this.#none
    if (this.#mmio === region) this.#mmio = undefined
    this.generation++
    return true
  }

  /** The RAM region that holds this byte. */
  ramAt(addr: number): RamRegion | undefined {
    const offset = addr - this.#ram.base
    if (offset >= 0 && offset < this.#ram.size) return this.#ram
    const region = this.#find(addr)
    if (region?.kind !== 'ram') return undefined
    this.#ram = region
    return region
  }

  /** The MMIO region that holds this byte. */
  mmioAt(addr: number): MmioRegion | undefined {
    const last = this.#mmio
    if (last !== undefined && addr >= last.base && addr < last.base + last.size) return last
    const region = this.#find(addr)
    if (region?.kind !== 'mmio') return undefined
    this.#mmio = region
    return region
  }

  /**
   * Reads `length` bytes at `addr` into `into` from its byte `start`. Bytes without a home read 0xff
   * and make the answer false.
   */
  read(addr: number, into: Uint8Array, start = 0, length = into.length - start): boolean {
    const ram = this.ramAt(addr)
    if (ram !== undefined) {
      const offset = addr - ram.base
      if (offset + length <= ram.size) {
        copy(ram.bytes, offset, into, start, length)
        return true
      }
    }
    return this.#readPieces(addr, into, start, length)
  }

  /** Writes `length` bytes of `from`, from its byte `start`, at `addr`. Bytes without a home are dropped: false. */
  write(addr: number, from: Uint8Array, start = 0, length = from.length - start): boolean {
    const ram = this.ramAt(addr)
    if (ram !== undefined) {
      const offset = addr - ram.base
      if (offset + length <= ram.size) {
        copy(from, start, ram.bytes, offset, length)
        if (ram.dirty !== undefined) ram.wrote(offset, length)
        return true
      }
    }
    return this.#writePieces(addr, from, start, length)
  }

  /** A little-endian value of 1, 2, 4 or 8 bytes; all-ones where there is no home. */
  load(addr: number, size: 1 | 2 | 4 | 8): bigint {
    const ram = this.ramAt(addr)
    if (ram !== undefined && size === 8 && addr % 8 === 0) {
      const i = (addr - ram.base) >>> 2
      return join(ram.words[i + 1]!, ram.words[i]!)
    }
    const mmio = ram === undefined ? this.mmioAt(addr) : undefined
    if (mmio !== undefined && addr + size <= mmio.base + mmio.size) {
      return BigInt.asUintN(size * 8, mmio.target.read(addr - mmio.base, size))
    }
    const bytes = new Uint8Array(8)
    this.read(addr, bytes, 0, size)
    return join(word(bytes, 4), word(bytes, 0))
  }

  /** Stores a little-endian value; false where there is no home. Higher bits of `value` are ignored. */
  store(addr: number, size: 1 | 2 | 4 | 8, value: bigint): boolean {
    const mmio = this.ramAt(addr) === undefined ? this.mmioAt(addr) : undefined
    if (mmio !== undefined && addr + size <= mmio.base + mmio.size) {
      mmio.target.write(addr - mmio.base, size, BigInt.asUintN(size * 8, value))
      return true
    }
    split(value)
    const bytes = new Uint8Array(8)
    for (let i = 0; i < 8; i++) bytes[i] = halves[i >> 2]! >>> (8 * (i & 3))
    return this.write(addr, bytes, 0, size)
  }

  /** A 4-byte aligned word as an unsigned number; 0xffff_ffff where there is no home. */
  readU32(addr: number): number {
    const ram = this.#ram
    const offset = addr - ram.base
    if (offset >= 0 && offset <= ram.size - 4) return ram.words[offset >>> 2]! >>> 0
    const mmio = this.#mmio
    if (mmio?.target.read32 !== undefined) {
      const at = addr - mmio.base
      if (at >= 0 && at <= mmio.size - 4) return mmio.target.read32(at)
    }
    return this.ramAt(addr) !== undefined ? this.readU32(addr) : Number(this.load(addr, 4))
  }

  /** Writes a 4-byte aligned word; false where there is no home. */
  writeU32(addr: number, value: number): boolean {
    const ram = this.#ram
    const offset = addr - ram.base
    if (offset >= 0 && offset <= ram.size - 4) {
      ram.words[offset >>> 2] = value
      if (ram.dirty !== undefined) ram.wrote(offset, 4)
      return true
    }
    const mmio = this.#mmio
    if (mmio?.target.write32 !== undefined) {
      const at = addr - mmio.base
      if (at >= 0 && at <= mmio.size - 4) {
        mmio.target.write32(at, value)
        return true
      }
    }
    return this.ramAt(addr) !== undefined
      ? this.writeU32(addr, value)
      : this.store(addr, 4, BigInt(value >>> 0))
  }

  /** Reads an 8-byte aligned table entry; false (and all-ones) where there is no home. */
  readEntry(at: number, into: EntryInto): boolean {
    const ram = this.#ram
    const offset = at - ram.base
    if (offset >= 0 && offset <= ram.size - 8) {
      const i = offset >>> 2
      into.entryLo = ram.words[i]!
      into.entryHi = ram.words[i + 1]!
      return true
    }
    return this.#readEntryElsewhere(at, into)
  }

  /** Sets bits in an 8-byte aligned table entry in one step; false where there is no home. */
  orEntry(at: number, lo: number, hi: number): boolean {
    const ram = this.#ram
    const offset = at - ram.base
    if (offset >= 0 && offset <= ram.size - 8) {
      const i = offset >>> 2
      ram.words[i] = ram.words[i]! | lo
      ram.words[i + 1] = ram.words[i + 1]! | hi
      if (ram.dirty !== undefined) ram.wrote(offset, 8)
      return true
    }
    return this.#orEntryElsewhere(at, lo, hi)
  }

  /**
   * A Deferrable Memory Write of 64 bytes at a 64-byte aligned address (ENQCMD): true when the
   * target accepted it, false for retry, which is also the answer of RAM and of targets that know no
   * such write.
   */
  writeDeferrable(addr: number, bytes: Uint8Array): boolean {
    const region = this.mmioAt(addr)
    if (region?.target.write64 === undefined) return false
    return region.target.write64(addr - region.base, bytes, true)
  }

  #add(region: Region, name: string): void {
    const { base, size } = region
    if (!Number.isSafeInteger(base) || base < 0 || !(size > 0) || base + size > 2 ** 52) {
      throw new Error(`${name}: ${hex(size)} bytes at ${hex(base)} is not a physical range`)
    }
    const regions = this.#regions
    let i = 0
    while (i < regions.length && regions[i]!.base < base) i++
    const below = regions[i - 1]
    const above = regions[i]
    if (
      (below !== undefined && below.base + below.size > base) ||
      (above !== undefined && base + size > above.base)
    ) {
      throw new Error(`${name}: ${hex(size)} bytes at ${hex(base)} overlap another region`)
    }
    regions.splice(i, 0, region)
    this.generation++
  }

  #at(addr: number): Region | undefined {
    return this.ramAt(addr) ?? this.mmioAt(addr)
  }

  /** Bytes from `addr`, which has no home, to the next region. */
  #gap(addr: number): number {
    for (const region of this.#regions) if (region.base > addr) return region.base - addr
    return Number.POSITIVE_INFINITY
  }

  #find(addr: number): Region | undefined {
    const regions = this.#regions
    let low = 0
    let high = regions.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const region = regions[middle]!
      if (addr >= region.base && addr < region.base + region.size) return region
      if (addr < region.base) high = middle - 1
      else low = middle + 1
    }
    return undefined
  }

  #readEntryElsewhere(at: number, into: EntryInto): boolean {
    if (this.ramAt(at) !== undefined) return this.readEntry(at, into)
    const home = this.mmioAt(at) !== undefined
    split(home ? this.load(at, 8) : -1n)
    into.entryLo = halves[0]!
    into.entryHi = halves[1]!
    return home
  }

  #orEntryElsewhere(at: number, lo: number, hi: number): boolean {
    if (this.ramAt(at) !== undefined) return this.orEntry(at, lo, hi)
    if (this.mmioAt(at) === undefined) return false
    return this.store(at, 8, this.load(at, 8) | join(hi, lo))
  }

  #readPieces(addr: number, into: Uint8Array, start: number, length: number): boolean {
    let complete = true
    let done = 0
    while (done < length) {
      const at = addr + done
      const region = this.#at(at)
      if (region === undefined) {
        const piece = Math.min(length - done, this.#gap(at))
        into.fill(0xff, start + done, start + done + piece)
        complete = false
        done += piece
      } else if (region.kind === 'ram') {
        const offset = at - region.base
        const piece = Math.min(length - done, region.size - offset)
        copy(region.bytes, offset, into, start + done, piece)
        done += piece
      } else {
        const offset = at - region.base
        const size = busSize(offset, Math.min(length - done, region.size - offset))
        split(region.target.read(offset, size))
        for (let i = 0; i < size; i++) {
          into[start + done + i] = halves[i >> 2]! >>> (8 * (i & 3))
        }
        done += size
      }
    }
    return complete
  }

  #writePieces(addr: number, from: Uint8Array, start: number, length: number): boolean {
    let complete = true
    let done = 0
    while (done < length) {
      const at = addr + done
      const region = this.#at(at)
      if (region === undefined) {
        complete = false
        done += this.#gap(at)
      } else if (region.kind === 'ram') {
        const offset = at - region.base
        const piece = Math.min(length - done, region.size - offset)
        copy(from, start + done, region.bytes, offset, piece)
        if (region.dirty !== undefined) region.wrote(offset, piece)
        done += piece
      } else {
        done += this.#writeMmio(region, at - region.base, from, start + done, length - done)
      }
    }
    return complete
  }

  // One access of the bus; returns its size.
  #writeMmio(
    region: MmioRegion,
    offset: number,
    from: Uint8Array,
    start: number,
    length: number,
  ): number {
    const room = Math.min(length, region.size - offset)
    if (room >= 64 && offset % 64 === 0 && region.target.write64 !== undefined) {
      region.target.write64(offset, from.subarray(start, start + 64), false)
      return 64
    }
    const size = busSize(offset, room)
    const bytes = new Uint8Array(8)
    copy(from, start, bytes, 0, size)
    region.target.write(offset, size, join(word(bytes, 4), word(bytes, 0)))
    return size
  }
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}

/** The widest naturally aligned access at `offset` that fits in `length` bytes. */
function busSize(offset: number, length: number): 1 | 2 | 4 | 8 {
  const low = offset % 8
  if (low === 0 && length >= 8) return 8
  if ((low & 3) === 0 && length >= 4) return 4
  if ((low & 1) === 0 && length >= 2) return 2
  return 1
}
