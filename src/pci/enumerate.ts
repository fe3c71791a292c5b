/**
 * Host firmware: through memory-mapped configuration accesses only, numbers the buses, sizes the BARs,
 * assigns addresses and bridge windows, and enables decoding. Bus mastering of endpoints is left to
 * their drivers. Expansion ROMs and I/O BARs are not assigned.
 */
import type { AddressSpace } from '../mem/address-space.js'
import type { AddressRange } from './fabric.js'

/** Where to look and what to hand out. */
export interface EnumerateOptions {
  readonly memory: AddressSpace
  readonly ecamBase: number
  readonly window32: AddressRange
  /** Without it, 64-bit prefetchable BARs go below 4 GiB with the others. */
  readonly window64?: AddressRange
}

/** A BAR as firmware found it. */
export interface FoundBar {
  readonly index: number
  readonly size: number
  readonly wide: boolean
  readonly prefetchable: boolean
  /** Address assigned; undefined when its window was full. */
  address: number | undefined
}

/** A function as firmware found it. */
export interface FoundFunction {
  readonly bdf: number
  readonly vendorId: number
  readonly deviceId: number
  readonly classCode: number
  readonly bars: readonly FoundBar[]
  /** Bus numbers below, of a bridge. */
  readonly bridge?: { readonly secondary: number; readonly subordinate: number }
}

// biome-ignore format: table
const REG = {
  VENDOR:      0x00, COMMAND:   0x04, CLASS:       0x08, HEADER_TYPE: 0x0e,
  BAR0:        0x10, PRIMARY:   0x18, SECONDARY:   0x19, SUBORDINATE: 0x1a,
  MEMORY_BASE: 0x20, PREF_BASE: 0x24, PREF_UPPER_BASE: 0x28, PREF_UPPER_LIMIT: 0x2c,
}
const COMMAND_MEMORY = 2
const COMMAND_MASTER = 4
const MIB = 0x10_0000
const HIGH = 2 ** 32

/** Enumerates everything behind one ECAM and answers what was found, in order of the tree. */
export function enumerate(options: EnumerateOptions): FoundFunction[] {
  return new Firmware(options).run()
}

class Firmware {
  readonly #memory: AddressSpace
  readonly #ecam: number
  readonly #low: Cursor
  readonly #high: Cursor | undefined
  #lastBus = 0

  constructor(o: EnumerateOptions) {
    this.#memory = o.memory
    this.#ecam = o.ecamBase
    this.#low = new Cursor(o.window32)
    this.#high = o.window64 && new Cursor(o.window64)
  }

  run(): FoundFunction[] {
    return this.#bus(0)
  }

  /** Everything on a bus and below it: first endpoints here, largest BARs first, then bridge by bridge. */
  #bus(bus: number): FoundFunction[] {
    const here = this.#present(bus)
    const bars: [bdf: number, bar: FoundBar][] = []
    const found = new Map<number, FoundFunction>()
    for (const bdf of here) {
      const layout = this.#read(bdf, REG.HEADER_TYPE, 1) & 0x7f
      const f = this.#identify(bdf, layout === 1 ? 2 : 6)
      found.set(bdf, f)
      for (const bar of f.bars) bars.push([bdf, bar])
    }
    bars.sort((a, b) => b[1].size - a[1].size)
    for (const [bdf, bar] of bars) this.#assign(bdf, bar)
    return here.flatMap(bdf => {
      const f = found.get(bdf)!
      if ((this.#read(bdf, REG.HEADER_TYPE, 1) & 0x7f) === 1) return this.#bridge(bus, f)
      const decodes = f.bars.some(b => b.address !== undefined)
      this.#write(bdf, REG.COMMAND, 2, decodes ? COMMAND_MEMORY : 0)
      return [f]
    })
  }

  #bridge(primary: number, f: FoundFunction): FoundFunction[] {
    const { bdf } = f
    const secondary = ++this.#lastBus
    this.#write(bdf, REG.PRIMARY, 1, primary)
    this.#write(bdf, REG.SECONDARY, 1, secondary)
    this.#write(bdf, REG.SUBORDINATE, 1, 0xff)
    const low = this.#low.align(MIB)
    const high = this.#high?.align(MIB)
    const below = this.#bus(secondary)
    const subordinate = this.#lastBus
    this.#write(bdf, REG.SUBORDINATE, 1, subordinate)
    this.#window(bdf, REG.MEMORY_BASE, low, this.#low.align(MIB))
    this.#window(bdf, REG.PREF_BASE, high ?? 0, this.#high?.align(MIB) ?? 0)
    this.#write(bdf, REG.COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)
    return [{ ...f, bridge: { secondary, subordinate } }, ...below]
  }

  /** Programs a bridge window; an empty one gets a base above its limit. */
  #window(bdf: number, register: number, start: number, end: number): void {
    const [base, limit] = end > start ? [start, end - 1] : [0xfff0_0000, 0]
    const field = (address: number) => ((address % HIGH) / 0x10000) & 0xfff0
    this.#write(bdf, register, 4, field(base) + field(limit) * 0x10000)
    if (register !== REG.PREF_BASE) return
    this.#write(bdf, REG.PREF_UPPER_BASE, 4, Math.floor(base / HIGH))
    this.#write(bdf, REG.PREF_UPPER_LIMIT, 4, Math.floor(limit / HIGH))
  }

  #present(bus: number): number[] {
    const out: number[] = []
    for (let device = 0; device < 32; device++) {
      const first = (bus << 8) | (device << 3)
      if (this.#read(first, REG.VENDOR, 2) === 0xffff) continue
      const functions = this.#read(first, REG.HEADER_TYPE, 1) & 0x80 ? 8 : 1
      for (let fn = 0; fn < functions; fn++)
        if (this.#read(first | fn, REG.VENDOR, 2) !== 0xffff) out.push(first | fn)
    }
    return out
  }

  #identify(bdf: number, registers: number): FoundFunction {
    const id = this.#read(bdf, REG.VENDOR, 4)
    return {
      bdf,
      vendorId: id & 0xffff,
      deviceId: id >>> 16,
      classCode: this.#read(bdf, REG.CLASS, 4) >>> 8,
      bars: this.#size(bdf, registers),
    }
  }

  /** Sizes BARs by writing ones and reading which bits stick (PCIe 7.5.1.2.1), decoding switched off. */
  #size(bdf: number, registers: number): FoundBar[] {
    this.#write(bdf, REG.COMMAND, 2, 0)
    const out: FoundBar[] = []
    for (let index = 0; index < registers; index++) {
      const at = REG.BAR0 + index * 4
      const mask = this.#probe(bdf, at)
      if (mask === 0 || mask & 1) continue
      const wide = (mask & 6) === 4
      const upper = wide ? this.#probe(bdf, at + 4) : 0xffff_ffff
      const bits = (BigInt(upper) << 32n) | BigInt((mask & -16) >>> 0)
      const size = Number(BigInt.asUintN(64, -bits))
      out.push({ index, size, wide, prefetchable: (mask & 8) !== 0, address: undefined })
      if (wide) index++
    }
    return out
  }

  #probe(bdf: number, at: number): number {
    const before = this.#read(bdf, at, 4)
    this.#write(bdf, at, 4, 0xffff_ffff)
    const mask = this.#read(bdf, at, 4)
    this.#write(bdf, at, 4, before)
    return mask
  }

  #assign(bdf: number, bar: FoundBar): void {
    const cursor = bar.wide && bar.prefetchable && this.#high ? this.#high : this.#low
    const address = cursor.take(bar.size)
    bar.address = address
    if (address === undefined) return
    this.#write(bdf, REG.BAR0 + bar.index * 4, 4, address % HIGH)
    if (bar.wide) this.#write(bdf, REG.BAR0 + bar.index * 4 + 4, 4, Math.floor(address / HIGH))
  }

  #read(bdf: number, offset: number, size: 1 | 2 | 4): number {
    return Number(this.#memory.load(this.#ecam + bdf * 4096 + offset, size))
  }

  #write(bdf: number, offset: number, size: 1 | 2 | 4, value: number): void {
    this.#memory.store(this.#ecam + bdf * 4096 + offset, size, BigInt(value))
  }
}

/** Hands out a window from the bottom up. */
class Cursor {
  readonly #end: number
  #next: number

  constructor(window: AddressRange) {
    this.#next = window.base
    this.#end = window.base + window.size
  }

  /** Moves up to a multiple of `unit` and says where that is. */
  align(unit: number): number {
    this.#next = Math.min(Math.ceil(this.#next / unit) * unit, this.#end)
    return this.#next
  }

  /** `size` bytes aligned to their size; undefined when they do not fit. */
  take(size: number): number | undefined {
    const at = Math.ceil(this.#next / size) * size
    if (at + size > this.#end) return undefined
    this.#next = at + size
    return at
  }
}
