/**
 * From a StreamID to a stream table entry: linear and two-level tables, the rules that make an STE illegal
 * (IHI 0070 5.2.2), and the STE cache. An STE that is invalid or illegal is never cached, nor are level 1
 * descriptors. CDs found through an STE are cached with it: contexts.ts.
 */
import { halves, join, split } from '../../base/addr.js'
import type { LayoutValue } from '../../base/fields.js'
import type { PageTableFormat } from '../../paging/format.js'
import { ACCESS_FLAGS2 } from '../../paging/walk.js'
import type { Walker } from '../../paging/walker.js'
import { NO_PASID } from '../../pci/request.js'
import type { SmmuConfig } from './config.js'
import type { Context } from './contexts.js'
import type { EventName } from './events.js'
import type { FaultEntry } from './faults.js'
import { type Granule, outputWidth, stage2Format } from './formats.js'
import { STALL_MODEL, STRTAB_FMT } from './registers.js'
import type { Binding } from './requests.js'
import { EATS, L1STD, STE, STE_CONFIG } from './ste.js'

/** Bytes of an STE. */
export const STE_SIZE = 64

/** Translation regimes that a stream can belong to; they tag TLB entries. */
export const WORLD = { EL1: 0, EL2: 1, EL2_E2H: 2 } as const

/** Stage 2 of a stream. */
export interface Stage2 {
  readonly format: PageTableFormat
  /** Names the format, for who keeps walkers. */
  readonly key: string
  readonly root: number
  /** ACCESS_* of every walk: ACCESS_FLAGS2 when accessed flags are set. */
  readonly modes: number
  /** S2R and S2S. */
  readonly record: boolean
  readonly stall: boolean
  walker: Walker | undefined
}

/** An STE, digested. */
export interface Stream {
  readonly streamId: number
  /** Nothing passes. */
  readonly abort: boolean
  readonly stage1: boolean
  readonly stage2: Stage2 | undefined
  readonly contextPtr: number
  readonly s1Fmt: number
  readonly s1CdMax: number
  readonly s1Dss: number
  readonly stallDisabled: boolean
  /** As programmed; what it comes to also depends on CR0.ATSCHK. */
  readonly eats: number
  readonly world: number
  /** Tag of TLB entries: S2VMID where it counts. */
  readonly vmid: number
  readonly privCfg: number
  readonly instCfg: number
  readonly ppar: boolean
  /** STE.MEV. */
  readonly mergesEvents: boolean
  /** The STE, for faults. */
  readonly entry: FaultEntry
  readonly contexts: Map<number, Context>
  readonly bindings: Map<number, Binding>
}

/** Memory as tables are read. */
export interface TableMemory {
  read(addr: number, into: Uint8Array): boolean
}

/** The stream table registers. */
export interface StreamTableRegisters {
  readonly STRTAB_BASE: { readonly ADDR: number }
  readonly STRTAB_BASE_CFG: {
    readonly FMT: number
    readonly SPLIT: number
    readonly LOG2SIZE: number
  }
  readonly CR2: { readonly E2H: boolean }
}

/** Reads and caches STEs of one unit. After a lookup that found nothing, `failure` and the rest say why. */
export class Streams {
  failure: EventName = 'C_BAD_STREAMID'
  entries: readonly FaultEntry[] = []
  fetchAddress = 0
  readonly #memory: TableMemory
  readonly #config: SmmuConfig
  readonly #regs: StreamTableRegisters
  readonly #limit: number
  readonly #streams = new Map<number, Stream>()
  readonly #l1 = L1STD.create()
  readonly #ste = STE.create()

  constructor(memory: TableMemory, config: SmmuConfig, regs: StreamTableRegisters) {
    this.#memory = memory
    this.#config = config
    this.#regs = regs
    this.#limit = 2 ** config.outputAddressBits
  }

  /** The STE of a stream. */
  lookup(streamId: number): Stream | undefined {
    const known = this.#streams.get(streamId)
    if (known) return known
    this.entries = []
    const at = this.#locate(streamId)
    if (at < 0) return undefined
    if (!this.#read(at, this.#ste.bytes)) {
      this.fetchAddress = at
      return this.#fail('F_STE_FETCH')
    }
    const ste = this.#ste
    const entry: FaultEntry = { kind: 'ste', at, value: first(ste.bytes), level: 0 }
    this.entries = [...this.entries, entry]
    if (!ste.V || (ste.Config >= STE_CONFIG.BYPASS && this.#illegal(ste)))
      return this.#fail('C_BAD_STE')
    const stream = this.#digest(streamId, ste, entry)
    this.#streams.set(streamId, stream)
    return stream
  }

  /** Drops the STE of a stream, and its CDs. */
  forget(streamId: number): void {
    this.#streams.delete(streamId)
  }

  /** Drops the STEs of 2^bits aligned streams. */
  forgetRange(streamId: number, bits: number): void {
    const span = 2 ** bits
    const from = streamId - (streamId % span)
    if (span <= this.#streams.size)
      for (let id = from; id < from + span; id++) this.#streams.delete(id)
    else
      for (const key of this.#streams.keys())
        if (key >= from && key < from + span) this.#streams.delete(key)
  }

  /** Drops one CD of a stream, or all. */
  forgetContexts(streamId: number, substreamId: number | undefined): void {
    const stream = this.#streams.get(streamId)
    if (!stream) return
    const { contexts, bindings } = stream
    if (substreamId === undefined) {
      contexts.clear()
      bindings.clear()
      return
    }
    contexts.delete(substreamId)
    bindings.delete(substreamId)
    // Requests without a PASID go by CD 0, if by any.
    if (substreamId === 0) bindings.delete(NO_PASID)
  }

  /** Drops everything. */
  clear(): void {
    this.#streams.clear()
  }

  /** Address of an STE; -1 when there is none. */
  #locate(streamId: number): number {
    const { STRTAB_BASE, STRTAB_BASE_CFG } = this.#regs
    const { FMT } = STRTAB_BASE_CFG
    const { streamIdBits, twoLevelStreamTables } = this.#config
    const bits = Math.min(STRTAB_BASE_CFG.LOG2SIZE, streamIdBits)
    if (streamId >= 2 ** bits) return this.#none()
    if (FMT !== STRTAB_FMT.TWO_LEVEL || !twoLevelStreamTables) {
      const bytes = STE_SIZE * 2 ** bits
      return STRTAB_BASE.ADDR - (STRTAB_BASE.ADDR % bytes) + streamId * STE_SIZE
    }
    const { SPLIT } = STRTAB_BASE_CFG
    const low = SPLIT === 8 || SPLIT === 10 ? SPLIT : 6
    const bytes = Math.max(8 * 2 ** Math.max(bits - low, 0), 64)
    const inner = streamId % 2 ** low
    const at = STRTAB_BASE.ADDR - (STRTAB_BASE.ADDR % bytes) + ((streamId - inner) / 2 ** low) * 8
    if (!this.#read(at, this.#l1.bytes)) {
      this.fetchAddress = at
      this.#fail('F_STE_FETCH')
      return -1
    }
    const { Span, L2Ptr } = this.#l1
    this.entries = [{ kind: 'l1std', at, value: first(this.#l1.bytes), level: 0 }]
    if (Span === 0 || Span > 11 || Span > low + 1 || inner >= 2 ** (Span - 1)) return this.#none()
    return L2Ptr - (L2Ptr % (STE_SIZE * 2 ** (Span - 1))) + inner * STE_SIZE
  }

  #none(): number {
    this.#fail('C_BAD_STREAMID')
    return -1
  }

  /** SteIllegal, 5.2.2, for a valid STE that lets traffic pass. */
  #illegal(ste: SteValue): boolean {
    const c = this.#config
    const stage1 = (ste.Config & 1) !== 0
    const stage2 = (ste.Config & 2) !== 0
    if ((stage1 && !c.stage1) || (stage2 && !c.stage2)) return true
    if (c.ats && (stage1 || stage2)) {
      if (ste.EATS === EATS.SPLIT && (!(stage1 && stage2) || ste.S2S || !c.splitStageAts))
        return true
      if (ste.EATS === EATS.FULL && stage2 && ste.S2S) return true
    }
    if (this.#usesStrw(ste) && (ste.STRW & 1) !== 0) return true
    if (stage1 && this.#stage1Illegal(ste)) return true
    if (stage2 && this.#stage2Illegal(ste)) return true
    return this.#usesVmid(ste) && !c.vmid16 && ste.S2VMID > 0xff
  }

  #stage1Illegal(ste: SteValue): boolean {
    const c = this.#config
    if (ste.S1STALLD && c.stallModel !== STALL_MODEL.STALL_AND_TERMINATE) return true
    if (c.substreamIdBits > 0) {
      if (ste.S1CDMax > c.substreamIdBits) return true
      if (ste.S1CDMax > 0 && !c.twoLevelCdTables && (ste.S1Fmt === 1 || ste.S1Fmt === 2))
        return true
    }
    return ste.S1ContextPtr >= this.#limit
  }

  #stage2Illegal(ste: SteValue): boolean {
    const c = this.#config
    if (ste.S2S ? c.stallModel === STALL_MODEL.TERMINATE : c.stallModel === STALL_MODEL.STALL)
      return true
    if (!ste.S2AA64 || ste.S2ENDI) return true
    if ((ste.S2HA || ste.S2HD) && c.tableUpdates === 'none') return true
    if (ste.S2HD && c.tableUpdates === 'accessed') return true
    const granule = S2_GRANULES[ste.S2TG]
    if (granule === undefined || !c.granules.includes(granule)) return true
    if (ste.S2TTB >= 2 ** this.#outputBits(granule, ste)) return true
    const least = Math.max(granule === 16 ? 12 : 16, 64 - c.outputAddressBits)
    if (ste.S2T0SZ < least || ste.S2T0SZ > MOST_TXSZ) return true
    return startLevel(granule, ste.S2SL0, 64 - ste.S2T0SZ, c.outputAddressBits) === undefined
  }

  #digest(streamId: number, ste: SteValue, entry: FaultEntry): Stream {
    const c = this.#config
    const passes = ste.Config >= STE_CONFIG.BYPASS
    const stage1 = passes && (ste.Config & 1) !== 0
    const overrides = c.permissionOverrides
    const el2 = stage1 && this.#usesStrw(ste) && ste.STRW === 2
    return {
      streamId,
      abort: !passes,
      stage1,
      stage2: passes && (ste.Config & 2) !== 0 ? this.#stage2(ste) : undefined,
      contextPtr: ste.S1ContextPtr,
      s1Fmt: ste.S1Fmt,
      s1CdMax: c.substreamIdBits > 0 ? ste.S1CDMax : 0,
      s1Dss: ste.S1DSS,
      stallDisabled: ste.S1STALLD,
      eats: c.ats && ste.EATS !== EATS.DPT ? ste.EATS : EATS.NONE,
      world: el2 ? (this.#regs.CR2.E2H ? WORLD.EL2_E2H : WORLD.EL2) : WORLD.EL1,
      vmid: this.#usesVmid(ste) ? ste.S2VMID : 0,
      privCfg: overrides ? ste.PRIVCFG : 0,
      instCfg: overrides ? ste.INSTCFG : 0,
      ppar: ste.PPAR,
      mergesEvents: ste.MEV,
      entry,
      contexts: new Map(),
      bindings: new Map(),
    }
  }

  #stage2(ste: SteValue): Stage2 {
    const granule = S2_GRANULES[ste.S2TG]!
    const inputBits = 64 - ste.S2T0SZ
    const outputBits = this.#outputBits(granule, ste)
    const wide = granule === 16 && this.#config.outputAddressBits === 52
    const accessFlag = ste.S2HA || !ste.S2AFFD
    const dirty = ste.S2HA && ste.S2HD
    const level = startLevel(granule, ste.S2SL0, inputBits, this.#config.outputAddressBits)!
    const options = { granule, inputBits, outputBits, wide, accessFlag, dirty, startLevel: level }
    return {
      format: stage2Format(options),
      key: Object.values(options).join(' '),
      root: ste.S2TTB,
      modes: ste.S2HA ? ACCESS_FLAGS2 : 0,
      record: ste.S2R,
      stall: ste.S2S,
      walker: undefined,
    }
  }

  #outputBits(granule: Granule, { S2PS }: SteValue): number {
    return outputWidth(granule, S2PS, this.#config.outputAddressBits)
  }

  /** IgnoreSTESTRW, 5.2.2. */
  #usesStrw(ste: SteValue): boolean {
    return this.#config.hyp && ste.Config === STE_CONFIG.S1
  }

  /** IgnoreSTES2VMID, 5.2.2. */
  #usesVmid(ste: SteValue): boolean {
    if (!this.#config.stage2 || ste.Config <= STE_CONFIG.BYPASS) return false
    return !this.#usesStrw(ste) || ste.STRW === 0
  }

  #read(at: number, into: Uint8Array): boolean {
    return at < this.#limit && this.#memory.read(at, into)
  }

  #fail(name: EventName): undefined {
    this.failure = name
    return undefined
  }
}

type SteValue = LayoutValue<(typeof STE)['fields']>

/** Largest TxSZ without small translation tables. */
export const MOST_TXSZ = 39

/** Granules by S2TG. */
const S2_GRANULES: readonly (Granule | undefined)[] = [12, 16, 14, undefined]

/** Start levels by granule and S2SL0. */
const START_LEVELS: Readonly<Record<Granule, readonly (0 | 1 | 2 | 3 | undefined)[]>> = {
  12: [2, 1, 0, undefined],
  14: [3, 2, 1, undefined],
  16: [3, 2, 1, undefined],
}

/** The stage 2 start level, where S2SL0 agrees with the granule and input size (Arm ARM D8.2.9). */
function startLevel(
  granule: Granule,
  sl0: number,
  inputBits: number,
  outputBits: number,
): 0 | 1 | 2 | 3 | undefined {
  const level = START_LEVELS[granule][sl0]
  if (level === undefined || (sl0 === 2 && outputBits <= (granule === 14 ? 40 : 42)))
    return undefined
  const stride = granule - 3
  const own = inputBits - (granule + (3 - level) * stride)
  // Up to 16 tables may lie side by side.
  return own >= 1 && own <= stride + 4 ? level : undefined
}

/** The first 8 bytes of a structure. */
export function first(bytes: Uint8Array): bigint {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, 2)
  return join(words[1]! | 0, words[0]! | 0)
}

/** High and low half of a physical address. */
export const highOf = (address: number): number => (address / 2 ** 32) | 0
/** Bits 63:32 and 31:0 of a bigint, at once. */
export function halvesOf(address: bigint): readonly [hi: number, lo: number] {
  split(address)
  return [halves[1]!, halves[0]!]
}
