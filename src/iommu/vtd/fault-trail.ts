/**
 * The way to a fault: every structure and paging entry that the unit read for the request, as memory holds
 * them when the fault is found. Runs on faults only; what it says in words: src/explain.
 */
import { join } from '../../base/addr.js'
import type { EntryInto, EntrySource } from '../../paging/walk.js'
import { nestedWalkSteps, type StageWalk, walkSteps } from '../../paging/walk-steps.js'
import { AT, NO_PASID } from '../../pci/request.js'
import type { VtdConfig } from './config.js'
import { type Binding, type Context, Entries } from './entries.js'
import { FAULT_REASONS } from './fault-reasons.js'
import type { FaultEntry, FaultReport } from './faults.js'
import { TTM } from './registers.js'
import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASIDS_PER_TABLE,
  PGTT,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from './tables.js'
import { type Walkers, walkAccess } from './walkers.js'

/** A structure as read. */
export interface FetchedStructure {
  readonly kind: Exclude<FaultEntry['kind'], 'first-stage' | 'second-stage'>
  readonly at: number
  /** 64-bit words; undefined when there is no memory at the address. */
  readonly words: readonly bigint[] | undefined
}

/** What was read on the way, outermost first. */
export interface FaultTrail {
  /** The latched translation table mode. */
  readonly mode: 'legacy' | 'scalable' | 'reserved' | 'abort-dma'
  readonly structures: readonly FetchedStructure[]
  /** The page tables; of a nested translation that got through the first stage, two walks. */
  readonly walks: readonly StageWalk[]
}

/** Where a lookup can stop, in order; a fault's condition code begins with the place. */
const REACH = { RTA: 0, LRT: 1, SRT: 1, LCT: 2, SCT: 2, SPD: 3, SPT: 4 } as const
const CONTEXT = 2
const PASID_TABLE = 4
const TABLES = 5

const MODES = ['legacy', 'scalable', 'reserved', 'abort-dma'] as const

/** Reads trails from the tables of one unit. */
export class TrailReader {
  readonly #memory: EntrySource
  readonly #entries: Entries
  readonly #fresh: Entries
  readonly #walkers: Walkers
  readonly #limit: number
  readonly #into: EntryInto = { entryLo: 0, entryHi: 0 }

  /** `entries` holds the latched root table. */
  constructor(memory: EntrySource, config: VtdConfig, entries: Entries, walkers: Walkers) {
    this.#memory = memory
    this.#entries = entries
    this.#fresh = new Entries(memory, config)
    this.#walkers = walkers
    this.#limit = 2 ** config.hostAddressWidth
  }

  /** The way to a fault. */
  read(report: FaultReport): FaultTrail {
    const { requester, pasid, access, entries } = report
    if (access === 'interrupt') {
      const structures = entries.map(e => this.#structure('irte', e.at, 16))
      return { mode: this.#mode(), structures, walks: [] }
    }
    const reach = reachOf(report)
    const structures = this.#structures(requester, pasid, reach)
    if (reach < TABLES) return { mode: this.#mode(), structures, walks: [] }
    const b = this.binding(requester, pasid)
    if (!b) return { mode: this.#mode(), structures, walks: [] }
    const execute = access === 'execute' && pasid !== NO_PASID
    const wanted = walkAccess(b, access === 'write', execute, report.privileged)
    return { mode: this.#mode(), structures, walks: this.walk(b, report.address, wanted) }
  }

  /** All structures and tables for an address, whether or not anything refuses it. */
  whole(requester: number, pasid: number, address: bigint, write: boolean): FaultTrail {
    const structures = this.#structures(requester, pasid, PASID_TABLE)
    const b = this.binding(requester, pasid)
    const walks = b ? this.walk(b, address, walkAccess(b, write, false, false)) : []
    return { mode: this.#mode(), structures, walks }
  }

  /** The structures for a PASID, as far as they lead. */
  structures(requester: number, pasid: number): FetchedStructure[] {
    return this.#structures(requester, pasid, PASID_TABLE)
  }

  /** The context entry of a requester as the tables say now, past all caches. */
  context(requester: number): Context | undefined {
    const fresh = this.#fresh
    fresh.root = this.#entries.root
    fresh.mode = this.#entries.mode
    fresh.clear()
    return fresh.context(requester)
  }

  /** The binding of a request as the tables say now, past all caches. */
  binding(requester: number, pasid: number): Binding | undefined {
    const c = this.context(requester)
    if (!c) return undefined
    if (c.binding) return c.binding
    const id = pasid === NO_PASID ? c.ridPasid : pasid
    return id < c.limit ? this.#fresh.binding(requester, c, id) : undefined
  }

  /** The walks of a binding; none when it passes addresses through. */
  walk(b: Binding, address: bigint, access: number): StageWalk[] {
    const { first, second } = this.#walkers.formats(b)
    const memory = this.#memory
    if (b.pgtt === PGTT.FIRST_STAGE) return [walkSteps(first, memory, b.firstRoot, address, access)]
    if (b.pgtt === PGTT.SECOND_STAGE)
      return [walkSteps(second, memory, b.secondRoot, address, access)]
    if (b.pgtt !== PGTT.NESTED) return []
    return nestedWalkSteps(first, second, memory, b.firstRoot, b.secondRoot, address, access)
  }

  #mode(): FaultTrail['mode'] {
    return MODES[this.#entries.mode & 3]!
  }

  #structures(requester: number, pasid: number, reach: number): FetchedStructure[] {
    const { root, mode } = this.#entries
    if (reach === 0 || (mode !== TTM.LEGACY && mode !== TTM.SCALABLE)) return []
    const found = [this.#structure('root', root + (requester >>> 8) * 16, 16)]
    const at = contextAt(bytesOf(found[0]!), mode, requester)
    if (at === undefined || reach < CONTEXT) return found
    found.push(this.#structure('context', at, mode === TTM.LEGACY ? 16 : 32))
    if (mode === TTM.LEGACY || reach === CONTEXT) return found
    const context = SM_CONTEXT_ENTRY.at(bytesOf(found[1]!))
    if (!context.P) return found
    const id = pasid === NO_PASID ? context.RID_PASID : pasid
    if (id >= 2 ** (context.PDTS + 13)) return found
    const slot = context.PASIDDIRPTR + Math.floor(id / PASIDS_PER_TABLE) * 8
    found.push(this.#structure('pasid-directory', slot, 8))
    const { P, SMPTBLPTR } = PASID_DIRECTORY_ENTRY.at(bytesOf(found[2]!))
    if (P && reach >= PASID_TABLE)
      found.push(this.#structure('pasid-table', SMPTBLPTR + (id % PASIDS_PER_TABLE) * 64, 64))
    return found
  }

  #structure(kind: FetchedStructure['kind'], at: number, bytes: number): FetchedStructure {
    const words: bigint[] = []
    for (let i = 0; i < bytes; i += 8) {
      if (at + i >= this.#limit || !this.#memory.readEntry(at + i, this.#into))
        return { kind, at, words: undefined }
      words.push(BigInt.asUintN(64, join(this.#into.entryHi, this.#into.entryLo)))
    }
    return { kind, at, words }
  }
}

/** How far the lookup of a failed request came. */
function reachOf({ name, access, at }: FaultReport): number {
  const [place] = FAULT_REASONS[name].condition.split('.')
  if (name === 'notAnInterrupt') return 0
  const reach = place! in REACH ? REACH[place as keyof typeof REACH] : TABLES
  if (at === AT.TRANSLATED || name === 'pasidBeyondSize') return Math.min(reach, CONTEXT)
  return access === 'page-request' ? Math.min(reach, PASID_TABLE) : reach
}

/** Address of a requester's context entry; undefined when the root entry has none. */
function contextAt(root: Uint8Array, mode: number, requester: number): number | undefined {
  if (mode === TTM.LEGACY) {
    const { P, CTP } = ROOT_ENTRY.at(root)
    return P ? CTP + (requester & 0xff) * CONTEXT_ENTRY.size : undefined
  }
  const { LP, LCTP, UP, UCTP } = SM_ROOT_ENTRY.at(root)
  const upper = (requester & 0x80) !== 0
  if (!(upper ? UP : LP)) return undefined
  return (upper ? UCTP : LCTP) + (requester & 0x7f) * SM_CONTEXT_ENTRY.size
}

/** The bytes of a structure; of an unreadable one zeros, in which nothing is present. */
export function bytesOf({ words }: FetchedStructure): Uint8Array {
  const bytes = new Uint8Array(Math.max(64, 8 * (words?.length ?? 0)))
  if (words) new BigUint64Array(bytes.buffer).set(words)
  return bytes
}
