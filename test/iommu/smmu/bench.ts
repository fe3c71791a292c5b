// An SMMUv3 over 16 MiB of RAM, programmed as a driver would: registers and tables by hand. Offsets and bit
// positions are written down here a second time, so that the tables of src are tested by them.
import { VirtualClock } from '../../../src/base/clock.js'
import { TraceBus } from '../../../src/base/trace.js'
import type { SmmuConfig } from '../../../src/iommu/smmu/config.js'
import type { SmmuFault } from '../../../src/iommu/smmu/faults.js'
import type { SmmuHooks } from '../../../src/iommu/smmu/hooks.js'
import { SmmuUnit } from '../../../src/iommu/smmu/unit.js'
import { StaleUseDetector } from '../../../src/iommu/stale-use.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { watchRam } from '../../../src/mem/ram-watch.js'
import {
  type AtsInvalidation,
  MemoryRequest,
  NO_PASID,
  type PageGroupResponse,
  Translation,
} from '../../../src/pci/request.js'

// biome-ignore format: table
export const REG = {
  IDR0: 0x00, IDR1: 0x04, IDR2: 0x08, IDR3: 0x0c, IDR4: 0x10, IDR5: 0x14, IIDR: 0x18, AIDR: 0x1c,
  CR0: 0x20, CR0ACK: 0x24, CR1: 0x28, CR2: 0x2c, GBPA: 0x44, IRQ_CTRL: 0x50, IRQ_CTRLACK: 0x54,
  GERROR: 0x60, GERRORN: 0x64, GERROR_IRQ_CFG0: 0x68, GERROR_IRQ_CFG1: 0x70,
  STRTAB_BASE: 0x80, STRTAB_BASE_CFG: 0x88, CMDQ_BASE: 0x90, CMDQ_PROD: 0x98, CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0, EVENTQ_IRQ_CFG0: 0xb0, EVENTQ_IRQ_CFG1: 0xb8,
  PRIQ_BASE: 0xc0, PRIQ_IRQ_CFG0: 0xd0, PRIQ_IRQ_CFG1: 0xd8, PRIQ_IRQ_CFG2: 0xdc,
  EVENTQ_PROD: 0x100a8, EVENTQ_CONS: 0x100ac, PRIQ_PROD: 0x100c8, PRIQ_CONS: 0x100cc,
} as const
export const CR0 = { SMMUEN: 1, PRIQEN: 2, EVENTQEN: 4, CMDQEN: 8, ATSCHK: 16 } as const
export const GERR = { CMDQ: 1, EVENTQ_ABT: 4, PRIQ_ABT: 8, MSI_CMDQ: 16, MSI_EVENTQ: 32 } as const

/** VMSAv8-64 descriptors: a table, and pages at stage 1 (AP, AF, nG) and stage 2 (S2AP, AF). */
export const TABLE = 3n
export const RW = 0x443n | 0x800n
export const RO = RW | 0x80n
export const PRIVATE = 0x403n | 0x800n
export const RW2 = 0x4c3n
export const RO2 = 0x443n
export const WO2 = 0x483n

export interface SteFields {
  config: number
  v?: number
  s1fmt?: number
  ctx?: number
  cdmax?: number
  dss?: number
  stalld?: number
  eats?: number
  strw?: number
  ppar?: number
  mev?: number
  privcfg?: number
  instcfg?: number
  vmid?: number
  t0sz?: number
  sl0?: number
  tg?: number
  ps?: number
  aa64?: number
  endi?: number
  affd?: number
  ha?: number
  hd?: number
  s2s?: number
  s2r?: number
  s2ttb?: number
}

const at = (value: number | undefined, shift: number): bigint => BigInt(value ?? 0) << BigInt(shift)

/** The words of an STE. Stage 2 defaults: 48 bits, 4 KB, start at level 0. */
export const steWords = (f: SteFields): bigint[] => [
  at(f.v ?? 1, 0) | at(f.config, 1) | at(f.s1fmt, 4) | at(f.ctx, 0) | at(f.cdmax, 59),
  at(f.dss, 0) |
    at(f.ppar, 18) |
    at(f.mev, 19) |
    at(f.stalld, 27) |
    at(f.eats, 28) |
    at(f.strw, 30) |
    at(f.privcfg, 48) |
    at(f.instcfg, 50),
  at(f.vmid, 0) |
    at(f.t0sz ?? 16, 32) |
    at(f.sl0 ?? 2, 38) |
    at(f.tg, 46) |
    at(f.ps ?? 5, 48) |
    at(f.aa64 ?? 1, 51) |
    at(f.endi, 52) |
    at(f.affd, 53) |
    at(f.hd, 55) |
    at(f.ha, 56) |
    at(f.s2s, 57) |
    at(f.s2r ?? 1, 58),
  at(f.s2ttb, 0),
  0n,
  0n,
  0n,
  0n,
]

export interface CdFields {
  v?: number
  ttb0?: number
  ttb1?: number
  t0sz?: number
  t1sz?: number
  tg0?: number
  tg1?: number
  epd0?: number
  epd1?: number
  endi?: number
  ips?: number
  affd?: number
  wxn?: number
  tbi?: number
  pan?: number
  aa64?: number
  hd?: number
  ha?: number
  s?: number
  r?: number
  a?: number
  asid?: number
  had0?: number
  had1?: number
}

/** The words of a CD: 48 bits and 4 KB in both ranges, the upper one disabled. */
export const cdWords = (f: CdFields): bigint[] => [
  at(f.t0sz ?? 16, 0) |
    at(f.tg0, 6) |
    at(f.epd0, 14) |
    at(f.endi, 15) |
    at(f.t1sz ?? 16, 16) |
    at(f.tg1 ?? 2, 22) |
    at(f.epd1 ?? 1, 30) |
    at(f.v ?? 1, 31) |
    at(f.ips ?? 5, 32) |
    at(f.affd, 35) |
    at(f.wxn, 36) |
    at(f.tbi, 38) |
    at(f.pan, 40) |
    at(f.aa64 ?? 1, 41) |
    at(f.hd, 42) |
    at(f.ha, 43) |
    at(f.s, 44) |
    at(f.r ?? 1, 45) |
    at(f.a ?? 1, 46) |
    at(f.asid, 48),
  at(f.ttb0, 0) | at(f.had0, 1),
  at(f.ttb1, 0) | at(f.had1, 1),
  0n,
  0n,
  0n,
  0n,
  0n,
]

/** Commands, as the specification lays them out. */
export const command = {
  cfgiSte: (sid: number, leaf = 0): bigint[] => [0x03n | at(sid, 32), BigInt(leaf)],
  cfgiRange: (sid: number, range: number): bigint[] => [0x04n | at(sid, 32), BigInt(range)],
  cfgiAll: (): bigint[] => [0x04n, 31n],
  cfgiCd: (sid: number, ssid: number): bigint[] => [0x05n | at(ssid, 12) | at(sid, 32), 0n],
  cfgiCdAll: (sid: number): bigint[] => [0x06n | at(sid, 32), 0n],
  tlbi: (opcode: number, o: { vmid?: number; asid?: number } = {}): bigint[] => [
    BigInt(opcode) | at(o.vmid, 32) | at(o.asid, 48),
    0n,
  ],
  tlbiVa: (
    opcode: number,
    va: bigint,
    o: {
      vmid?: number
      asid?: number
      tg?: number
      ttl?: number
      num?: number
      scale?: number
      leaf?: number
    } = {},
  ): bigint[] => [
    BigInt(opcode) | at(o.num, 12) | at(o.scale, 20) | at(o.vmid, 32) | at(o.asid, 48),
    at(o.leaf, 0) | at(o.ttl, 8) | at(o.tg, 10) | (va & 0xffff_ffff_ffff_f000n),
  ],
  atcInv: (sid: number, va: bigint, size: number, ssid = -1, global = 0): bigint[] => [
    0x40n | at(global, 9) | (ssid >= 0 ? 0x800n | at(ssid, 12) : 0n) | at(sid, 32),
    BigInt(size) | (va & 0xffff_ffff_ffff_f000n),
  ],
  priResp: (sid: number, prg: number, resp: number, ssid = -1): bigint[] => [
    0x41n | (ssid >= 0 ? 0x800n | at(ssid, 12) : 0n) | at(sid, 32),
    BigInt(prg) | at(resp, 12),
  ],
  resume: (sid: number, stag: number, action: number): bigint[] => [
    0x44n | at(action, 12) | at(sid, 32),
    BigInt(stag),
  ],
  stallTerm: (sid: number): bigint[] => [0x45n | at(sid, 32), 0n],
  sync: (cs = 0, address = 0, data = 0): bigint[] => [
    0x46n | at(cs, 12) | at(data, 32),
    BigInt(address),
  ],
}
export const TLBI = {
  NH_ALL: 0x10,
  NH_ASID: 0x11,
  NH_VA: 0x12,
  NH_VAA: 0x13,
  EL2_ALL: 0x20,
  EL2_ASID: 0x21,
  EL2_VA: 0x22,
  EL2_VAA: 0x23,
  S12_VMALL: 0x28,
  S2_IPA: 0x2a,
  NSNH_ALL: 0x30,
} as const

export interface Dma {
  pasid?: number
  write?: boolean
  execute?: boolean
  privileged?: boolean
  requester?: number
  at?: 0 | 2
}

/** A record of the event queue, field by field. */
export interface EventRecord {
  type: number
  ssv: number
  ssid: number
  sid: number
  stag: number
  stall: number
  pnu: number
  ind: number
  rnw: number
  s2: number
  cls: number
  addr: bigint
  ipa: bigint
}

export interface BenchOptions {
  config?: Partial<SmmuConfig>
  hooks?: SmmuHooks
  ramBytes?: number
  /** Looks for stale use. */
  detect?: boolean
  ramBase?: number
}

export const SID = 0x0100
const QUEUE_BITS = 6

export class Bench {
  readonly memory = new AddressSpace()
  readonly ram
  readonly clock = new VirtualClock()
  readonly trace = new TraceBus(this.clock)
  readonly messages: { requester: number; address: number; data: number }[] = []
  readonly wires: string[] = []
  readonly responses: PageGroupResponse[] = []
  readonly invalidations: AtsInvalidation[] = []
  readonly resumed: { requester: number; token: number; retry: boolean }[] = []
  readonly faults: SmmuFault[] = []
  /** What devices answer to an invalidation. */
  completes = true
  sevs = 0
  readonly unit: SmmuUnit
  readonly request = new MemoryRequest()
  readonly answer = new Translation()
  #next: number
  #prod = 0
  commands = 0
  events = 0
  pri = 0
  streams = 0

  readonly detector: StaleUseDetector | undefined

  constructor({
    config,
    hooks,
    ramBytes = 16 << 20,
    ramBase = 0,
    detect = false,
  }: BenchOptions = {}) {
    const bytes = new Uint8Array(ramBytes)
    this.detector = detect
      ? new StaleUseDetector(this.clock, this.trace, this.memory, { base: ramBase, bytes })
      : undefined
    if (this.detector) watchRam(bytes, this.detector)
    this.ram = this.memory.addRam(ramBase, bytes)
    this.#next = ramBase + 0x10_0000
    this.unit = new SmmuUnit({
      memory: this.memory,
      ...(config && { config }),
      ...(hooks && { hooks }),
      downstream: {
        invalidate: i => {
          this.invalidations.push({ ...i })
          return this.completes
        },
        respond: r => this.responses.push(r),
        resume: (requester, token, retry) => this.resumed.push({ requester, token, retry }),
      },
      interrupts: {
        message: (requester, address, data) => this.messages.push({ requester, address, data }),
      },
      clock: this.clock,
      trace: this.trace,
      onFault: fault => this.faults.push(fault),
      staleUse: this.detector,
      wire: wire => this.wires.push(wire),
      sendEvent: () => this.sevs++,
    })
  }

  /** Zeroed pages, aligned to their own number of pages. */
  alloc(pages = 1): number {
    const bytes = pages * 4096
    const start = Math.ceil(this.#next / bytes) * bytes
    this.#next = start + bytes
    return start
  }

  r32 = (offset: number): number => Number(this.unit.read(offset, 4))
  w32 = (offset: number, value: number): void => this.unit.write(offset, 4, BigInt(value >>> 0))
  w64 = (offset: number, value: bigint | number): void => this.unit.write(offset, 8, BigInt(value))
  store = (address: number, value: bigint | number): boolean =>
    this.memory.store(address, 8, BigInt(value))
  load = (address: number): bigint => this.memory.load(address, 8)
  words = (address: number, values: readonly bigint[]): void => {
    for (const [i, value] of values.entries()) this.store(address + i * 8, value)
  }

  /** Sets queues and a linear stream table of 512 streams up, and switches everything on. */
  start({ enable = CR0.SMMUEN | CR0.PRIQEN | CR0.EVENTQEN | CR0.CMDQEN, cr2 = 2 } = {}): this {
    this.streams = this.alloc(8)
    this.commands = this.alloc()
    this.events = this.alloc()
    this.pri = this.alloc()
    this.w64(REG.STRTAB_BASE, this.streams)
    this.w32(REG.STRTAB_BASE_CFG, 9)
    this.w64(REG.CMDQ_BASE, this.commands | QUEUE_BITS)
    this.w64(REG.EVENTQ_BASE, this.events | QUEUE_BITS)
    this.w64(REG.PRIQ_BASE, this.pri | QUEUE_BITS)
    this.w32(REG.CR2, cr2)
    this.w32(REG.CR0, enable)
    return this
  }

  ste(fields: SteFields, sid = SID): number {
    const address = this.streams + sid * 64
    this.words(address, steWords(fields))
    return address
  }
  /** A CD in a page of its own, or at `address`. */
  cd(fields: CdFields, address = this.alloc()): number {
    this.words(address, cdWords(fields))
    return address
  }

  /** Queues commands and moves PROD. */
  submit(...commands: readonly bigint[][]): void {
    for (const words of commands) {
      this.words(this.commands + (this.#prod & (2 ** QUEUE_BITS - 1)) * 16, words)
      this.#prod = (this.#prod + 1) % 2 ** (QUEUE_BITS + 1)
    }
    this.w32(REG.CMDQ_PROD, this.#prod)
  }

  /**
   * Writes the entries of one mapping of 4 KB granules. `place` turns an address of the tables' own space into
   * where it is in RAM (identity unless nested). Answers the leaf entry's address in RAM.
   */
  map(
    root: number,
    va: bigint,
    leaf: bigint,
    {
      from = 0,
      leafLevel = 3,
      granule = 12,
      inputBits = 48,
      table = TABLE,
      place = (a: number) => a,
      fresh = () => this.alloc(2 ** (granule - 12)),
    } = {},
  ): number {
    let base = root
    for (let level = from; ; level++) {
      const stride = granule - 3
      const low = granule + (3 - level) * stride
      const width = level === from ? inputBits - low : stride
      const index = Number((va >> BigInt(low)) & (2n ** BigInt(width) - 1n))
      const address = place(base + index * 8)
      if (level === leafLevel) {
        this.store(address, leaf)
        return address
      }
      let entry = this.load(address)
      if (entry === 0n) {
        entry = BigInt(fresh()) | table
        this.store(address, entry)
      }
      base = Number(entry & 0xffff_ffff_f000n)
    }
  }

  /** A stream with stage 1 alone and one CD; answers the root table. */
  stage1(cd: CdFields = {}, ste: Partial<SteFields> = {}): number {
    const root = this.alloc()
    this.ste({ config: 5, ctx: this.cd({ ttb0: root, ...cd }), ...ste })
    return root
  }
  /** A stream with stage 2 alone; answers the root table. */
  stage2(ste: Partial<SteFields> = {}): number {
    const root = this.alloc()
    this.ste({ config: 6, s2ttb: root, ...ste })
    return root
  }
  /** A nested stream whose stage 2 maps the RAM below 16 MiB to itself, by 2 MB blocks; answers both roots. */
  nested(cd: CdFields = {}, ste: Partial<SteFields> = {}): { first: number; second: number } {
    const second = this.alloc()
    for (let i = 0n; i < 8n; i++)
      this.map(second, i << 21n, (i << 21n) | (RW2 & ~2n), { leafLevel: 2 })
    const first = this.alloc()
    this.ste({ config: 7, ctx: this.cd({ ttb0: first, ...cd }), s2ttb: second, ...ste })
    return { first, second }
  }
  /** A table of 2^cdmax CDs for a stream with substreams; answers its address. */
  substreams(cdmax: number, ste: Partial<SteFields> = {}): number {
    const table = this.alloc(Math.max(2 ** (cdmax - 6), 1))
    this.ste({ config: 5, ctx: table, cdmax, ...ste })
    return table
  }

  fill(va: bigint, o: Dma = {}): MemoryRequest {
    const r = this.request
    r.requester = o.requester ?? SID
    r.pasid = o.pasid ?? NO_PASID
    r.write = o.write ?? false
    r.execute = o.execute ?? false
    r.privileged = o.privileged ?? false
    r.at = o.at ?? 0
    r.noWrite = false
    r.hi = Number(BigInt.asIntN(32, va >> 32n))
    r.lo = Number(BigInt.asIntN(32, va))
    r.length = 4
    return r
  }

  /** A DMA: the output address, the name of the fault, or the status where there is no fault. */
  dma(va: bigint, o: Dma = {}): number | string {
    const before = this.faults.length
    this.unit.translate(this.fill(va, o), this.answer)
    if (this.answer.status === 0) return this.answer.output
    return this.faults[before]?.name ?? `status ${this.answer.status}`
  }

  /** A translation request: what the completion says. */
  ats(va: bigint, o: Dma & { noWrite?: boolean } = {}): string {
    const r = this.fill(va, o)
    r.at = 1
    r.noWrite = o.noWrite ?? false
    const before = this.faults.length
    this.unit.translateAts(r, this.answer)
    const a = this.answer
    if (a.status !== 0)
      return `${a.status === 1 ? 'UR' : 'CA'} ${this.faults[before]?.name ?? ''}`.trim()
    const rights = `${a.read ? 'r' : '-'}${a.write ? 'w' : '-'}${a.execute ? 'x' : '-'}`
    return a.read || a.write ? `${rights} 0x${a.output.toString(16)}/${a.pageBits}` : 'none'
  }

  /** Records in the event queue that software has not consumed. */
  pending(): EventRecord[] {
    const all = 2 ** (QUEUE_BITS + 1) - 1
    const records: EventRecord[] = []
    const end = this.r32(REG.EVENTQ_PROD) & all
    for (let i = this.r32(REG.EVENTQ_CONS) & all; i !== end; i = (i + 1) & all) {
      const base = this.events + (i & (all >> 1)) * 32
      const [w0, w1, w2, w3] = [0, 8, 16, 24].map(o => this.load(base + o)) as [
        bigint,
        bigint,
        bigint,
        bigint,
      ]
      const f = (w: bigint, hi: number, lo: number): number =>
        Number((w >> BigInt(lo)) & (2n ** BigInt(hi - lo + 1) - 1n))
      records.push({
        type: f(w0, 7, 0),
        ssv: f(w0, 11, 11),
        ssid: f(w0, 31, 12),
        sid: f(w0, 63, 32),
        stag: f(w1, 15, 0),
        stall: f(w1, 31, 31),
        pnu: f(w1, 33, 33),
        ind: f(w1, 34, 34),
        rnw: f(w1, 35, 35),
        s2: f(w1, 39, 39),
        cls: f(w1, 41, 40),
        addr: w2,
        ipa: w3,
      })
    }
    return records
  }

  /** Consumes all records. */
  consume(): void {
    const ack = this.r32(REG.EVENTQ_PROD)
    this.w32(REG.EVENTQ_CONS, ack)
  }
}
