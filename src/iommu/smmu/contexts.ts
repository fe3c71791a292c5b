/**
 * From a stream and a substream to a context descriptor: linear and two-level CD tables, read through stage 2
 * where there is one, and the rules that make a CD illegal (IHI 0070 5.4.2). Valid CDs are cached with their
 * STE. Which substream a request uses: requests.ts.
 */
import type { LayoutValue } from '../../base/fields.js'
import type { PageTableFormat } from '../../paging/format.js'

import type { NestedWalker } from '../../paging/nested.js'
import { ACCESS_FLAGS1, ACCESS_READ, ACCESS_SMAP, ACCESS_SMEP, Walk } from '../../paging/walk.js'
import type { Walker } from '../../paging/walker.js'
import { CD, CD_SIZE, CD_SPLIT, L1CD } from './cd.js'
import type { SmmuConfig } from './config.js'
import { CLASS, type EventName } from './events.js'
import type { FaultEntry } from './faults.js'
import { type Granule, outputWidth, stage1Format } from './formats.js'
import { STALL_MODEL } from './registers.js'
import { first, highOf, MOST_TXSZ, type Stream, type TableMemory, WORLD } from './streams.js'
import { type WalkFault, walkFault } from './walk-faults.js'
import type { Walkers } from './walkers.js'

/** One of the two input ranges of a CD. */
export interface Range {
  /** EPD: no walks. */
  readonly disabled: boolean
  readonly tbi: boolean
  readonly root: number
  readonly format: PageTableFormat
  /** The same with clean pages writable: decides whether dirty state may be set. */
  readonly cleanFormat: PageTableFormat
  /** Names the formats, for who keeps walkers. */
  readonly key: string
  walker: Walker | undefined
  nested: NestedWalker | undefined
}

/** A CD, digested. */
export interface Context {
  readonly substreamId: number
  readonly asid: number
  /** TTB0 and TTB1; the upper one is absent in EL2 contexts. */
  readonly lower: Range
  readonly upper: Range | undefined
  /** ACCESS_* of every walk: WXN, PAN, HA. */
  readonly modes: number
  /** HD: writes to clean pages set dirty state. */
  readonly dirty: boolean
  readonly record: boolean
  readonly stall: boolean
  /** The CD, for faults. */
  readonly entry: FaultEntry
}

/** Reads and caches CDs of one unit. After a lookup that found nothing, `failure` and the rest say why. */
export class Contexts {
  failure: EventName = 'C_BAD_CD'
  entries: readonly FaultEntry[] = []
  /** Where a fetch failed. */
  fetchAddress = 0
  /** Stage 2 refused the fetch: its fault. */
  walk: WalkFault | undefined = undefined
  readonly #memory: TableMemory
  readonly #config: SmmuConfig
  readonly #walkers: Walkers
  readonly #limit: number
  readonly #w = new Walk()
  readonly #l1 = L1CD.create()
  readonly #cd = CD.create()

  constructor(memory: TableMemory, config: SmmuConfig, walkers: Walkers) {
    this.#memory = memory
    this.#config = config
    this.#walkers = walkers
    this.#limit = 2 ** config.outputAddressBits
  }

  /** The CD of a substream that the stream's CD table reaches. */
  lookup(stream: Stream, substreamId: number): Context | undefined {
    const known = stream.contexts.get(substreamId)
    if (known) return known
    this.walk = undefined
    this.entries = [stream.entry]
    const at = this.#locate(stream, substreamId)
    if (at < 0) return undefined
    const cd = this.#cd
    if (!this.#read(stream, at, cd.bytes)) return undefined
    const entry: FaultEntry = { kind: 'cd', at, value: first(cd.bytes), level: 0 }
    this.entries = [...this.entries, entry]
    const context = this.#illegal(stream, cd) ? undefined : this.#digest(stream, substreamId, entry)
    if (!context) return this.#fail('C_BAD_CD')
    stream.contexts.set(substreamId, context)
    return context
  }

  /** Address of a CD, an IPA under stage 2; -1 when there is none. */
  #locate(stream: Stream, substreamId: number): number {
    const { contextPtr, s1CdMax, s1Fmt } = stream
    const low = s1CdMax > 0 ? (CD_SPLIT[s1Fmt] ?? 0) : 0
    if (low === 0) return contextPtr - (contextPtr % (CD_SIZE * 2 ** s1CdMax)) + substreamId * 64
    const inner = substreamId & ((1 << low) - 1)
    const bytes = Math.max(8 * 2 ** Math.max(s1CdMax - low, 0), 64)
    const at = contextPtr - (contextPtr % bytes) + (substreamId >>> low) * 8
    const l1 = this.#l1
    if (!this.#read(stream, at, l1.bytes)) return -1
    this.entries = [...this.entries, { kind: 'l1cd', at, value: first(l1.bytes), level: 0 }]
    if (!l1.V || l1.L2Ptr >= this.#limit) {
      this.#fail('C_BAD_SUBSTREAMID')
      return -1
    }
    return l1.L2Ptr - (l1.L2Ptr % (low === 10 ? 0x1_0000 : 0x1000)) + inner * CD_SIZE
  }

  /** CdIllegal, 5.4.2. */
  #illegal(stream: Stream, cd: CdValue): boolean {
    const c = this.#config
    // A clear is RAZ/WI on termination, which TERM_MODEL says is not there.
    if (!cd.V || !cd.A || !cd.AA64) return true
    if (cd.S && (stream.stallDisabled || c.stallModel === STALL_MODEL.TERMINATE)) return true
    if (!cd.S && c.stallModel === STALL_MODEL.STALL) return true
    if ((cd.HA || cd.HD) && c.tableUpdates === 'none') return true
    if (cd.HD && c.tableUpdates === 'accessed') return true
    if (stream.world !== WORLD.EL2 && !c.asid16 && cd.ASID > 0xff) return true
    const el2 = stream.world === WORLD.EL2
    const lower = el2 || !cd.EPD0
    const upper = !el2 && !cd.EPD1
    if ((lower || upper) && cd.ENDI) return true
    return (
      (lower && this.#rangeIllegal(cd, TG0[cd.TG0], cd.T0SZ, cd.TTB0)) ||
      (upper && this.#rangeIllegal(cd, TG1[cd.TG1], cd.T1SZ, cd.TTB1))
    )
  }

  #rangeIllegal(cd: CdValue, granule: Granule | undefined, txsz: number, ttb: number): boolean {
    const c = this.#config
    if (granule === undefined || !c.granules.includes(granule)) return true
    const least = granule === 16 && c.virtualAddressBits === 52 ? 12 : 16
    return txsz < least || txsz > MOST_TXSZ || ttb >= 2 ** this.#outputBits(granule, cd)
  }

  #digest(stream: Stream, substreamId: number, entry: FaultEntry): Context {
    const cd = this.#cd
    const el2 = stream.world === WORLD.EL2
    const accessFlag = cd.HA || !cd.AFFD
    const range = (
      disabled: boolean,
      tbi: boolean,
      granule: Granule | undefined,
      txsz: number,
      ttb: number,
      had: boolean,
      upper: boolean,
    ): Range => {
      const used = disabled ? 12 : granule!
      const options = {
        granule: used,
        inputBits: disabled ? 48 : 64 - txsz,
        outputBits: this.#outputBits(used, cd),
        wide: used === 16 && this.#config.outputAddressBits === 52,
        accessFlag,
        upper,
        unprivileged: !el2,
        hierarchical: !(this.#config.hierarchicalDisable && had),
      } as const
      return {
        disabled,
        tbi,
        root: ttb,
        format: stage1Format(options),
        cleanFormat: stage1Format({ ...options, writableClean: true }),
        key: Object.values(options).join(' '),
        walker: undefined,
        nested: undefined,
      }
    }
    return {
      substreamId,
      asid: el2 ? -1 : cd.ASID,
      lower: range(!el2 && cd.EPD0, cd.TBI0, TG0[cd.TG0], cd.T0SZ, cd.TTB0, cd.HAD0, false),
      upper: el2
        ? undefined
        : range(cd.EPD1, cd.TBI1, TG1[cd.TG1], cd.T1SZ, cd.TTB1, cd.HAD1, true),
      modes:
        (cd.WXN ? ACCESS_SMEP : 0) |
        (cd.PAN && !el2 ? ACCESS_SMAP : 0) |
        (cd.HA ? ACCESS_FLAGS1 : 0),
      dirty: cd.HA && cd.HD,
      record: cd.R,
      stall: cd.S,
      entry,
    }
  }

  #outputBits(granule: Granule, { IPS }: CdValue): number {
    return outputWidth(granule, IPS, this.#config.outputAddressBits)
  }

  /** Reads a structure at an address, an IPA under stage 2. */
  #read(stream: Stream, at: number, into: Uint8Array): boolean {
    let physical = at
    const { stage2 } = stream
    if (stage2) {
      const w = this.#w
      const walker = this.#walkers.second(stage2)
      if (!walker(stage2.root, highOf(at), at | 0, ACCESS_READ | stage2.modes, w)) {
        const fault = walkFault(w, CLASS.CD, at)
        this.walk = fault
        this.#fail(fault.name)
        return false
      }
      physical = w.output
    }
    if (physical < this.#limit && this.#memory.read(physical, into)) return true
    this.fetchAddress = physical
    this.#fail('F_CD_FETCH')
    return false
  }

  #fail(name: EventName): undefined {
    this.failure = name
    return undefined
  }
}

type CdValue = LayoutValue<(typeof CD)['fields']>

/** Granules by TG0 and TG1. */
const TG0: readonly (Granule | undefined)[] = [12, 16, 14, undefined]
const TG1: readonly (Granule | undefined)[] = [undefined, 14, 12, 16]
