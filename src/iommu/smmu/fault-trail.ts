/**
 * The way to a fault: stream table and CD structures and the descriptors that the unit read for a transaction,
 * as memory holds them when the fault is found. Runs on faults only; what it says in words: src/explain.
 */
import { halves, highHalf, split } from '../../base/addr.js'
import { ACCESS_FLAGS2, ACCESS_READ } from '../../paging/walk.js'
import { nestedWalkSteps, type StageWalk, walkSteps } from '../../paging/walk-steps.js'
import type { SmmuConfig } from './config.js'
import { Contexts } from './contexts.js'
import { EVENTS } from './events.js'
import type { FaultEntry, FaultReport } from './faults.js'
import { type Binding, isBinding, Requests } from './requests.js'
import {
  type Stage2,
  type Stream,
  Streams,
  type StreamTableRegisters,
  type TableMemory,
} from './streams.js'
import { rangeOf, untagged, Walkers, type WalkMemory, walkAccess } from './walkers.js'

/** A structure as read. */
export interface FetchedStructure {
  readonly kind: 'l1std' | 'ste' | 'l1cd' | 'cd'
  /** Its physical address; of a CD structure under stage 2, its IPA. */
  readonly at: number
  readonly physical: number
  /** 64-bit words; undefined when there is no memory at the address. */
  readonly words: readonly bigint[] | undefined
}

/** What was read on the way, outermost first. */
export interface FaultTrail {
  readonly structures: readonly FetchedStructure[]
  /** The translation tables; of a nested translation that got through stage 1, two walks. */
  readonly walks: readonly StageWalk[]
}

const SIZES = { l1std: 8, ste: 64, l1cd: 8, cd: 64 } as const

/** Reads trails from the tables of one unit, past its caches. */
export class TrailReader {
  readonly #memory: TableMemory & WalkMemory
  readonly #streams: Streams
  readonly #contexts: Contexts
  readonly #requests: Requests
  readonly #walkers: Walkers
  readonly #limit: number

  constructor(memory: TableMemory & WalkMemory, config: SmmuConfig, regs: StreamTableRegisters) {
    this.#memory = memory
    this.#streams = new Streams(memory, config, regs)
    this.#walkers = new Walkers(memory)
    this.#contexts = new Contexts(memory, config, this.#walkers)
    this.#requests = new Requests(this.#streams, this.#contexts, config)
    this.#limit = 2 ** config.outputAddressBits
  }

  /** The way to a fault. */
  read(f: FaultReport): FaultTrail {
    const { shape } = EVENTS[f.name]
    const walked = shape === 'fault' || shape === 'walk'
    const { structures, walks } = this.#trail(
      f.requester,
      f.pasid,
      walked ? f.address : undefined,
      f,
    )
    // The STE alone decides about these.
    const early = shape === 'stream' || shape === 'request' || shape === 'translated'
    const read = early ? structures.filter(s => s.kind === 'l1std' || s.kind === 'ste') : structures
    return { structures: read, walks }
  }

  /** All structures and tables for an address, whether or not anything refuses it. */
  whole(requester: number, pasid: number, address: bigint, write: boolean): FaultTrail {
    const access = write ? 'write' : 'read'
    return this.#trail(requester, pasid, address, { access, privileged: false })
  }

  /** The structures for a substream, as far as they lead. */
  structures(requester: number, pasid: number): FaultTrail {
    return this.#trail(requester, pasid, undefined, { access: 'read', privileged: false })
  }

  /** The STE of a requester as memory holds it; undefined when there is none. */
  stream(requester: number): Stream | undefined {
    this.#streams.clear()
    return this.#requests.stream(requester)
  }

  /** The binding of a transaction as the tables say now; undefined when there is none. */
  binding(requester: number, pasid: number): Binding | undefined {
    this.#streams.clear()
    const stream = this.#requests.stream(requester)
    if (!stream || stream.abort) return undefined
    const b = this.#requests.binding(stream, pasid)
    return isBinding(b) ? b : undefined
  }

  /** The walks of a binding; none when it has no stage. */
  walk(b: Binding, address: bigint, access: number): StageWalk[] {
    split(address)
    const range = rangeOf(b, halves[1]!)
    const { stage2 } = b.stream
    if (!b.context) return stage2 ? [this.#second(stage2, address, access)] : []
    if (!range || range.disabled) return []
    const hi = untagged(range, highHalf(address))
    const input = BigInt.asUintN(64, (BigInt(hi) << 32n) | (address & 0xffff_ffffn))
    const memory = this.#memory
    return stage2
      ? nestedWalkSteps(range.format, stage2.format, memory, range.root, stage2.root, input, access)
      : [walkSteps(range.format, memory, range.root, input, access)]
  }

  #trail(
    requester: number,
    pasid: number,
    address: bigint | undefined,
    f: Pick<FaultReport, 'access' | 'privileged'>,
  ): FaultTrail {
    this.#streams.clear()
    const stream = this.#requests.stream(requester)
    const found = [...this.#streams.entries]
    if (!stream) {
      const { failure, fetchAddress } = this.#streams
      const lost = failure === 'F_STE_FETCH' ? [unread('ste', fetchAddress)] : []
      return { structures: [...this.#of(found, undefined), ...lost], walks: [] }
    }
    if (stream.abort) return { structures: this.#of(found, undefined), walks: [] }
    const b = this.#requests.binding(stream, pasid)
    const { stage2 } = stream
    if (!isBinding(b)) {
      const refusedByStage2 = b.ofStage2 && stage2
      const at = BigInt(Math.max(b.ipa, 0))
      const walks = refusedByStage2 ? [this.#second(stage2, at, ACCESS_READ | stage2.modes)] : []
      const lost = b.name === 'F_CD_FETCH' ? [unread('cd', b.fetchAddress)] : []
      const read = this.#of([...found.slice(0, -1), ...b.entries], stage2)
      return { structures: [...read, ...lost], walks }
    }
    const structures = b.context ? [...found.slice(0, -1), ...this.#contexts.entries] : found
    const wanted = walkAccess(b, f.access === 'write', f.access === 'execute', f.privileged)
    const walks = address === undefined ? [] : this.walk(b, address, wanted)
    return { structures: this.#of(structures, stage2), walks }
  }

  #second(stage2: Stage2, address: bigint, access: number): StageWalk {
    const wanted = (access & 7) | (access & ACCESS_FLAGS2)
    return walkSteps(stage2.format, this.#memory, stage2.root, address, wanted)
  }

  /** The structures among entries, whole. */
  #of(entries: readonly FaultEntry[], stage2: Stage2 | undefined): FetchedStructure[] {
    const structures: FetchedStructure[] = []
    for (const { kind, at } of entries) {
      if (kind === 'stage-1' || kind === 'stage-2') continue
      const behind = kind === 'cd' || kind === 'l1cd'
      const physical = behind ? this.#walkers.physical(stage2, at) : at
      const bytes = new Uint8Array(SIZES[kind])
      const there = physical < this.#limit && this.#memory.read(physical, bytes)
      const words = there ? [...new BigUint64Array(bytes.buffer)] : undefined
      structures.push({ kind, at, physical, words })
    }
    return structures
  }
}

/** A structure, or the level 1 descriptor before it, that could not be read. */
const unread = (kind: FetchedStructure['kind'], at: number): FetchedStructure => ({
  kind,
  at,
  physical: at,
  words: undefined,
})
