// A VT-d unit over 16 MiB of RAM, programmed as a driver would: registers and tables by hand. Offsets and
// bits come from the tables under test only where a test is about something else.
import { VirtualClock } from '../../../src/base/clock.js'
import { TraceBus } from '../../../src/base/trace.js'
import { StaleUseDetector } from '../../../src/iommu/stale-use.js'
import type { VtdConfig } from '../../../src/iommu/vtd/config.js'
import type { VtdFault } from '../../../src/iommu/vtd/faults.js'
import type { VtdHooks } from '../../../src/iommu/vtd/hooks.js'
import { VtdUnit } from '../../../src/iommu/vtd/unit.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import type { RamRegion } from '../../../src/mem/ram.js'
import { watchRam } from '../../../src/mem/ram-watch.js'
import {
  type AtsInvalidation,
  MemoryRequest,
  NO_PASID,
  type PageGroupResponse,
  Translation,
} from '../../../src/pci/request.js'

export const REG = {
  VER: 0x00,
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  GSTS: 0x1c,
  RTADDR: 0x20,
  CCMD: 0x28,
  FSTS: 0x34,
  FECTL: 0x38,
  FEDATA: 0x3c,
  FEADDR: 0x40,
  IQH: 0x80,
  IQT: 0x88,
  IQA: 0x90,
  ICS: 0x9c,
  IECTL: 0xa0,
  IEDATA: 0xa4,
  IEADDR: 0xa8,
  IQERCD: 0xb0,
  IRTA: 0xb8,
  PQH: 0xc0,
  PQT: 0xc8,
  PQA: 0xd0,
  PRS: 0xdc,
  PECTL: 0xe0,
  PEDATA: 0xe4,
  PEADDR: 0xe8,
  IVA: 0xf0,
  IOTLB: 0xf8,
  FRCD: 0x220,
} as const
export const GCMD = {
  TE: 1 << 31,
  SRTP: 1 << 30,
  WBF: 1 << 27,
  QIE: 1 << 26,
  IRE: 1 << 25,
  SIRTP: 1 << 24,
  CFI: 1 << 23,
} as const
export const GSTS = { TES: 1 << 31, RTPS: 1 << 30, QIES: 1 << 26, IRES: 1 << 25, CFIS: 1 << 23 }

/** First- and second-stage entry bits. */
export const P = 1n
export const RW = 2n
export const US = 4n
export const PS = 0x80n
export const XD = 1n << 63n
export const FULL = P | RW | US
export const R2 = 1n
export const W2 = 2n

export interface Dma {
  pasid?: number
  write?: boolean
  execute?: boolean
  privileged?: boolean
  requester?: number
  at?: 0 | 2
}

export interface BenchOptions {
  config?: Partial<VtdConfig>
  hooks?: VtdHooks
  ramBytes?: number
  /** Looks for stale use. */
  detect?: boolean
}

export const BDF = 0x0100

export class Bench {
  readonly memory = new AddressSpace()
  readonly ram: RamRegion
  readonly clock = new VirtualClock()
  readonly trace = new TraceBus(this.clock)
  readonly messages: { requester: number; address: number; data: number }[] = []
  readonly responses: PageGroupResponse[] = []
  readonly invalidations: AtsInvalidation[] = []
  readonly faults: VtdFault[] = []
  /** What devices answer to an invalidation. */
  completes = true
  readonly unit: VtdUnit
  readonly request = new MemoryRequest()
  readonly answer = new Translation()
  #next = 0x10_0000
  #tail = 0
  queue = 0
  wide = true
  gsts = 0

  readonly detector: StaleUseDetector | undefined

  constructor({ config, hooks, ramBytes = 16 << 20, detect = false }: BenchOptions = {}) {
    const bytes = new Uint8Array(ramBytes)
    this.detector = detect
      ? new StaleUseDetector(this.clock, this.trace, this.memory, { base: 0, bytes })
      : undefined
    if (this.detector) watchRam(bytes, this.detector)
    this.ram = this.memory.addRam(0, bytes)
    this.unit = new VtdUnit({
      memory: this.memory,
      ...(config && { config }),
      ...(hooks && { hooks }),
      downstream: {
        invalidate: i => {
          this.invalidations.push({ ...i })
          return this.completes
        },
        respond: r => this.responses.push(r),
      },
      interrupts: {
        message: (requester, address, data) => this.messages.push({ requester, address, data }),
      },
      clock: this.clock,
      trace: this.trace,
      onFault: fault => this.faults.push(fault),
      staleUse: this.detector,
    })
  }

  /** Zeroed pages, 4 KiB aligned. */
  alloc(pages = 1): number {
    const at = this.#next
    this.#next += pages * 4096
    return at
  }

  r32 = (offset: number): number => Number(this.unit.read(offset, 4))
  r64 = (offset: number): bigint => this.unit.read(offset, 8)
  w32 = (offset: number, value: number): void => this.unit.write(offset, 4, BigInt(value >>> 0))
  w64 = (offset: number, value: bigint | number): void => this.unit.write(offset, 8, BigInt(value))
  store = (at: number, value: bigint | number): boolean => this.memory.store(at, 8, BigInt(value))
  load = (at: number): bigint => this.memory.load(at, 8)

  /** Issues a command beside the levels that are on. */
  command(bits: number): void {
    const levels = GCMD.TE | GCMD.QIE | GCMD.IRE | GCMD.CFI
    this.gsts = (this.r32(REG.GSTS) & levels) | bits
    this.w32(REG.GCMD, this.gsts)
  }

  /** Drops levels. */
  off(bits: number): void {
    this.w32(REG.GCMD, this.r32(REG.GSTS) & (GCMD.TE | GCMD.QIE | GCMD.IRE | GCMD.CFI) & ~bits)
  }

  /** Sets the invalidation queue up: 256-bit descriptors unless told otherwise. */
  startQueue(wide = true, order = 0): void {
    this.wide = wide
    this.queue = this.alloc(1 << order)
    this.#tail = 0
    this.w64(REG.IQT, 0)
    this.w64(REG.IQA, BigInt(this.queue) | (wide ? 0x800n : 0n) | BigInt(order))
    this.command(GCMD.QIE)
  }

  /** Queues descriptors as their first two 64-bit words. */
  submit(...descriptors: (readonly [bigint, bigint])[]): void {
    const size = this.wide ? 32 : 16
    const bytes = 4096 << Number(this.r64(REG.IQA) & 7n)
    for (const [lo, hi] of descriptors) {
      this.store(this.queue + this.#tail, lo)
      this.store(this.queue + this.#tail + 8, hi)
      this.#tail = (this.#tail + size) % bytes
    }
    this.w64(REG.IQT, this.#tail)
  }

  /** Scalable mode: a root table, and a context entry of `requester`; answers the PASID directory. */
  scalable(
    requester = BDF,
    low = 0b11100n,
    rid = 0n,
  ): { root: number; context: number; directory: number } {
    const root = this.alloc()
    const context = this.alloc()
    const directory = this.alloc()
    const bus = root + (requester >> 8) * 16 + (requester & 0x80 ? 8 : 0)
    this.store(bus, BigInt(context) | 1n)
    const at = context + (requester & 0x7f) * 32
    this.store(at, BigInt(directory) | low | 1n)
    this.store(at + 8, rid)
    this.w64(REG.RTADDR, BigInt(root) | 0x400n)
    this.command(GCMD.SRTP)
    return { root, context: at, directory }
  }

  /** Writes a PASID table entry: its first three 64-bit words. Answers its address. */
  pasidEntry(directory: number, pasid: number, words: readonly bigint[]): number {
    const slot = directory + (pasid >> 6) * 8
    if (this.load(slot) === 0n) this.store(slot, BigInt(this.alloc()) | 1n)
    const at = Number(this.load(slot) & ~0xfffn) + (pasid & 63) * 64
    for (const [i, w] of words.entries()) this.store(at + i * 8, w)
    return at
  }

  /** PASID entries of each kind, 4-level, domain `did`. */
  firstStage(directory: number, pasid: number, root: number, did = 1, flags = 0n): number {
    return this.pasidEntry(directory, pasid, [1n | (1n << 6n), BigInt(did), BigInt(root) | flags])
  }
  secondStage(directory: number, pasid: number, root: number, did = 1): number {
    return this.pasidEntry(directory, pasid, [
      BigInt(root) | 1n | (2n << 2n) | (2n << 6n),
      BigInt(did),
      0n,
    ])
  }
  nested(
    directory: number,
    pasid: number,
    first: number,
    second: number,
    did = 1,
    flags = 0n,
  ): number {
    return this.pasidEntry(directory, pasid, [
      BigInt(second) | 1n | (2n << 2n) | (3n << 6n),
      BigInt(did),
      BigInt(first) | flags,
    ])
  }

  /** Legacy mode: root and context entry of `requester` (tt, aw 2). */
  legacy(root: number, { requester = BDF, tt = 0n, aw = 2n, did = 1n, low = 1n } = {}): number {
    const table = this.alloc()
    const context = this.alloc()
    this.store(table + (requester >> 8) * 16, BigInt(context) | 1n)
    const at = context + (requester & 0xff) * 16
    this.store(at, BigInt(root) | (tt << 2n) | low)
    this.store(at + 8, aw | (did << 8n))
    this.w64(REG.RTADDR, table)
    this.command(GCMD.SRTP)
    return at
  }

  /**
   * Writes the entries of one mapping. `place` turns an address of the tables' own space into where it is
   * in RAM (identity unless nested). Answers the leaf entry's address in RAM.
   */
  map(
    root: number,
    va: bigint,
    leaf: bigint,
    {
      levels = 4,
      leafLevel = 1,
      table = FULL,
      place = (a: number) => a,
      fresh = () => this.alloc(),
    } = {},
  ): number {
    let base = root
    for (let level = levels; ; level--) {
      const index = Number((va >> BigInt(12 + 9 * (level - 1))) & 0x1ffn)
      const at = place(base + index * 8)
      if (level === leafLevel) {
        this.store(at, leaf)
        return at
      }
      let entry = this.load(at)
      if (entry === 0n) {
        entry = BigInt(fresh()) | table
        this.store(at, entry)
      }
      base = Number(entry & 0xf_ffff_ffff_f000n)
    }
  }
  map2(
    root: number,
    va: bigint,
    leaf: bigint,
    options: { levels?: number; leafLevel?: number } = {},
  ): number {
    return this.map(root, va, leaf, { ...options, table: R2 | W2 })
  }

  enable(): void {
    this.command(GCMD.TE)
  }

  #fill(va: bigint, o: Dma): MemoryRequest {
    const r = this.request
    r.requester = o.requester ?? BDF
    r.pasid = o.pasid ?? NO_PASID
    r.write = o.write ?? false
    r.execute = o.execute ?? false
    r.privileged = o.privileged ?? false
    r.at = o.at ?? 0
    r.hi = Number(BigInt.asIntN(32, va >> 32n))
    r.lo = Number(BigInt.asIntN(32, va))
    r.length = 4
    return r
  }

  /** A DMA: the output address, or the name of the fault. */
  dma(va: bigint, o: Dma = {}): number | string {
    const before = this.faults.length
    this.unit.translate(this.#fill(va, o), this.answer)
    if (this.answer.status === 0) return this.answer.output
    return this.faults[before]?.name ?? `status ${this.answer.status}`
  }

  /** A translation request: what the completion says. */
  ats(va: bigint, o: Dma & { noWrite?: boolean } = {}): string {
    const r = this.#fill(va, o)
    r.at = 1
    r.noWrite = o.noWrite ?? false
    const before = this.faults.length
    this.unit.translateAts(r, this.answer)
    r.noWrite = false
    const a = this.answer
    if (a.status !== 0)
      return `${a.status === 1 ? 'UR' : 'CA'} ${this.faults[before]?.name ?? ''}`.trim()
    const rights = `${a.read ? 'r' : '-'}${a.write ? 'w' : '-'}${a.execute ? 'x' : '-'}`
    return a.read || a.write ? `${rights} 0x${a.output.toString(16)}/${a.pageBits}` : 'none'
  }

  /** A fault record, as software reads it. */
  record(index: number): {
    f: boolean
    reason: number
    sid: number
    address: bigint
    type: number
    pasid: number | undefined
    at: number
    exe: boolean
    priv: boolean
  } {
    const lo = this.r64(REG.FRCD + index * 16)
    const hi = this.r64(REG.FRCD + index * 16 + 8)
    const bits = (from: number, width: number) =>
      Number((hi >> BigInt(from)) & ((1n << BigInt(width)) - 1n))
    return {
      f: bits(63, 1) === 1,
      reason: bits(32, 8),
      sid: bits(0, 16),
      address: lo,
      type: bits(62, 1) * 2 + bits(28, 1),
      pasid: bits(31, 1) ? bits(40, 20) : undefined,
      at: bits(60, 2),
      exe: bits(30, 1) === 1,
      priv: bits(29, 1) === 1,
    }
  }
}

/** Descriptors as 64-bit word pairs. */
const d = (lo: bigint | number, hi: bigint | number = 0n) => [BigInt(lo), BigInt(hi)] as const
const big = BigInt
export const descriptor = {
  contextGlobal: () => d(1n | (1n << 4n)),
  contextDomain: (did: number) => d(1n | (2n << 4n) | (big(did) << 16n)),
  contextDevice: (did: number, sid: number, fm = 0) =>
    d(1n | (3n << 4n) | (big(did) << 16n) | (big(sid) << 32n) | (big(fm) << 48n)),
  iotlbGlobal: () => d(2n | (1n << 4n)),
  iotlbDomain: (did: number) => d(2n | (2n << 4n) | (big(did) << 16n)),
  iotlbPage: (did: number, va: bigint, am = 0, ih = 0) =>
    d(2n | (3n << 4n) | (big(did) << 16n), va | (big(ih) << 6n) | big(am)),
  deviceTlb: (sid: number, va: bigint, s = 0n) => d(3n | (big(sid) << 32n), va | s),
  entryCache: (index?: number, mask = 0) =>
    index === undefined ? d(4n) : d(4n | 16n | (big(mask) << 27n) | (big(index) << 32n)),
  wait: (address: number, data: number, flags = 0x20n) =>
    d(5n | flags | (big(data) << 32n), big(address)),
  pasidIotlb: (did: number, pasid: number) =>
    d(6n | (2n << 4n) | (big(did) << 16n) | (big(pasid) << 32n)),
  pasidIotlbPage: (did: number, pasid: number, va: bigint, am = 0, ih = 0) =>
    d(6n | (3n << 4n) | (big(did) << 16n) | (big(pasid) << 32n), va | (big(ih) << 6n) | big(am)),
  pasidCacheDomain: (did: number) => d(7n | (big(did) << 16n)),
  pasidCache: (did: number, pasid: number) =>
    d(7n | (1n << 4n) | (big(did) << 16n) | (big(pasid) << 32n)),
  pasidCacheGlobal: () => d(7n | (3n << 4n)),
  pasidDeviceTlb: (sid: number, pasid: number, va: bigint, s = 0n, g = 0n) =>
    d(8n | (big(sid) << 16n) | (big(pasid) << 32n), va | (s << 11n) | g),
  pageGroupResponse: (rid: number, pasid: number | undefined, prgi: number, code: number) =>
    d(
      9n |
        (pasid === undefined ? 0n : 16n | (big(pasid) << 32n)) |
        (big(code) << 12n) |
        (big(rid) << 16n),
      big(prgi) << 3n,
    ),
}
