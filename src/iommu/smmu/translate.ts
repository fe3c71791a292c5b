/**
 * The DMA path: untranslated requests (IHI 0070 3.3, 3.4). In front of the TLB lies a small table of
 * finished answers keyed by requester, PASID and page; it forgets everything at every invalidation.
 * Tables: streams.ts, contexts.ts; caches: caches.ts; ATS traffic: ats.ts; stalls: stalls.ts.
 */
import { join } from '../../base/addr.js'
import type { TracePoint } from '../../base/trace.js'
import { PERM_EXECUTE, PERM_READ, PERM_WRITE, Walk } from '../../paging/walk.js'
import {
  AT,
  COMPLETION,
  type MemoryRequest,
  NO_PASID,
  NOT_STALLED,
  type Translation,
} from '../../pci/request.js'
import { ASK_EACH_TIME } from '../../pci/upstream.js'
import type { StaleUseDetector } from '../stale-use.js'
import { AtsTranslator } from './ats.js'
import { Caches } from './caches.js'
import type { SmmuConfig } from './config.js'
import { Contexts } from './contexts.js'
import { CLASS } from './events.js'
import { TrailReader } from './fault-trail.js'
import { type FaultLog, type FaultReport, NO_DETAIL } from './faults.js'
import {
  addressOf,
  type Binding,
  bindingEntries,
  deny,
  executes,
  isBinding,
  privileged,
  type Refusal,
  Requests,
} from './requests.js'
import { SmmuStaleUse } from './stale-use.js'
import type { Stalls } from './stalls.js'
import { OVERRIDE } from './ste.js'
import { type Stream, Streams, type StreamTableRegisters, type TableMemory } from './streams.js'
import type { TranslationEvent } from './trace.js'
import { type WalkFault, walkFault } from './walk-faults.js'
import { rangeOf, USER_SHIFT, untagged, Walkers, type WalkMemory, walkAccess } from './walkers.js'

/** Permissions of one privilege, in the privileged one's place. */
const HALF = PERM_READ | PERM_WRITE | PERM_EXECUTE
/** log2 of what an answer without tables is told to hold for. */
const IDENTITY_BITS = 30

/** Answers in front of the TLB: 2^FRONT_BITS, 8 words each. */
const FRONT_BITS = 11
const FRONT_MASK = (1 << FRONT_BITS) - 1

/** The registers that translation looks at. */
export interface TranslationRegisters extends StreamTableRegisters {
  readonly CR0ACK: { readonly SMMUEN: boolean; readonly ATSCHK: boolean }
  readonly CR2: {
    readonly E2H: boolean
    readonly RECINVSID: boolean
    readonly REC_CFG_ATS: boolean
  }
  readonly GBPA: { readonly ABORT: boolean }
}

/** Where faults go: terminated ones and stalled ones. */
export interface FaultOutputs {
  readonly faults: FaultLog
  readonly stalls: Stalls
}

/** Translates the requests of one unit. */
export class Translator {
  readonly streams: Streams
  readonly caches: Caches
  readonly trails: TrailReader
  /** Set while stale use is looked for. */
  stale: SmmuStaleUse | undefined = undefined
  readonly #requests: Requests
  readonly #walkers: Walkers
  readonly #ats: AtsTranslator
  readonly #regs: TranslationRegisters
  readonly #out: FaultOutputs
  readonly #point: TracePoint<TranslationEvent>
  readonly #limit: number
  readonly #walk = new Walk()
  // Page, high half, PASID, requester | epoch, permissions | page bits << 8; and the output page.
  readonly #front = new Int32Array(8 << FRONT_BITS)
  readonly #frontOutput = new Float64Array(1 << FRONT_BITS)

  constructor(
    memory: TableMemory & WalkMemory,
    config: SmmuConfig,
    regs: TranslationRegisters,
    out: FaultOutputs,
    point: TracePoint<TranslationEvent>,
  ) {
    this.#regs = regs
    this.#out = out
    this.#point = point
    this.#limit = 2 ** config.outputAddressBits
    this.streams = new Streams(memory, config, regs)
    this.caches = new Caches(config.tlbEntries, () => this.#front.fill(0))
    this.#walkers = new Walkers(memory)
    const contexts = new Contexts(memory, config, this.#walkers)
    this.#requests = new Requests(this.streams, contexts, config)
    this.#ats = new AtsTranslator(this.#requests, this.#walkers, config, regs, out.faults)
    this.trails = new TrailReader(memory, config, regs)
    out.faults.trail = report => this.trails.read(report)
  }

  /** Looks for stale use from now on. */
  detect(detector: StaleUseDetector): SmmuStaleUse {
    const { caches, trails } = this
    this.stale = new SmmuStaleUse(detector, { caches, trails, walkers: this.#walkers })
    return this.stale
  }

  reset(): void {
    this.streams.clear()
    this.caches.clear()
  }

  /** Changes when an answer may not be given again; see `UpstreamTranslator`. */
  get answers(): number {
    return this.#point.on ? ASK_EACH_TIME : this.caches.epochs
  }

  /** Answers an untranslated or translated request; see `UpstreamTranslator`. */
  translate(r: MemoryRequest, into: Translation): void {
    const { lo, hi, pasid, requester } = r
    const slot =
      ((lo >>> 12) + Math.imul(pasid, 0x9e35) + Math.imul(hi, 0x85eb) + requester) & FRONT_MASK
    const front = this.#front
    const i = slot << 3
    if (
      front[i] === (lo & -4096) &&
      front[i + 1] === hi &&
      front[i + 2] === pasid &&
      front[i + 3] === (requester | this.caches.epoch) &&
      r.at === AT.UNTRANSLATED
    ) {
      const word = front[i + 4]!
      const rights = r.privileged ? word : word >> USER_SHIFT
      const need = r.write ? PERM_WRITE : r.execute ? PERM_EXECUTE : PERM_READ
      if ((rights & need) !== 0 && !this.#point.on) {
        into.status = COMPLETION.SC
        into.output = this.#frontOutput[slot]! + (lo & 4095)
        into.pageBits = word >> 8
        into.read = (rights & PERM_READ) !== 0
        into.write = (rights & PERM_WRITE) !== 0
        return
      }
    }
    into.stalled = NOT_STALLED
    if (r.at !== AT.UNTRANSLATED) this.#translated(r, into)
    else if (this.#regs.CR0ACK.SMMUEN) this.#untranslated(r, into, slot)
    else this.#bypassed(r, into)
  }

  /** Answers a translation request; see `UpstreamTranslator`. */
  translateAts(r: MemoryRequest, into: Translation): void {
    into.stalled = NOT_STALLED
    const b = this.#ats.request(r, into)
    if (b) this.stale?.located(r, b)
    if (b && this.#point.on) this.#traceTables(r, b, into, false)
  }

  /** The STE of a requester, for automatic PRG responses; undefined when it cannot be used. */
  stream(requester: number): Stream | undefined {
    return this.#regs.CR0ACK.SMMUEN ? this.#requests.stream(requester) : undefined
  }

  #translated(r: MemoryRequest, into: Translation): void {
    const b = this.#ats.translated(r, into)
    if (b === 'pass') this.#identity(r, into, 'translated')
    else if (b && this.#point.on) this.#traceTables(r, b, into, false)
  }

  /** SMMUEN is clear: 3.11, 6.3.14. */
  #bypassed(r: MemoryRequest, into: Translation): void {
    if (this.#regs.GBPA.ABORT || addressOf(r.hi, r.lo) >= this.#limit) deny(into, COMPLETION.UR)
    else this.#identity(r, into, 'off')
  }

  /** An untranslated request that the front table does not answer. */
  #untranslated(r: MemoryRequest, into: Translation, slot: number): void {
    const requests = this.#requests
    const stream = requests.stream(r.requester)
    if (!stream) {
      this.#terminate(r, into, undefined, requests.streamRefusal())
      return
    }
    if (stream.abort) {
      deny(into, COMPLETION.UR)
      return
    }
    if (!stream.stage1 && !stream.stage2 && r.pasid === NO_PASID) {
      if (this.#fits(r, into, stream)) this.#identity(r, into, 'bypass')
      return
    }
    const b = requests.binding(stream, r.pasid)
    if (!isBinding(b)) {
      if (b.ofStage2) this.#faulted(r, into, stream, undefined, b)
      else this.#terminate(r, into, stream, b)
      return
    }
    this.stale?.located(r, b)
    if (b.context) this.#throughTables(r, into, b, slot)
    else if (this.#fits(r, into, stream)) {
      if (stream.stage2) this.#throughTables(r, into, b, slot)
      else this.#identity(r, into, 'bypass')
    }
  }

  /** The check of an address that bypasses stage 1 (7.3.14); refuses the request when it fails. */
  #fits(r: MemoryRequest, into: Translation, stream: Stream): boolean {
    if (addressOf(r.hi, r.lo) < this.#limit) return true
    const entries = [stream.entry]
    this.#terminate(r, into, stream, {
      ...NO_DETAIL,
      name: 'F_ADDR_SIZE',
      stage: 1,
      class: CLASS.IN,
      entries,
    })
    return false
  }

  #throughTables(r: MemoryRequest, into: Translation, b: Binding, slot: number): void {
    const { lo } = r
    const { caches } = this
    const { stream } = b
    const hi = untagged(rangeOf(b, r.hi), r.hi)
    const execute = executes(r, stream)
    const shift = privileged(r, stream) ? 0 : USER_SHIFT
    const need = r.write ? PERM_WRITE : execute ? PERM_EXECUTE : PERM_READ
    const cached = caches.find(b, hi, lo) && ((caches.rights >> shift) & need) !== 0
    if (!cached) {
      const w = this.#walk
      if (!this.#walkers.walk(b, hi, lo, walkAccess(b, r.write, execute, shift === 0), w)) {
        this.#faulted(r, into, stream, b, this.#walkFault(w, b, r))
        return
      }
      caches.keep(b, hi, lo, w.pageBits, w.output, w.cacheable)
      this.stale?.kept(r, b)
    } else this.stale?.used(r, b)
    const { rights, output, pageBits } = caches
    const half = (rights >> shift) & HALF
    into.status = COMPLETION.SC
    into.output = output
    into.pageBits = pageBits
    into.read = (half & PERM_READ) !== 0
    // A clean page is written only after a walk has set its dirty state.
    into.write = (half & PERM_WRITE) !== 0
    if (!this.stale) this.#fillFront(r, b, rights, slot, into)
    if (this.#point.on) this.#traceTables(r, b, into, cached)
  }

  #walkFault(w: Walk, b: Binding, r: MemoryRequest): WalkFault {
    const input = b.context ? undefined : addressOf(r.hi, r.lo)
    const fault = walkFault(w, CLASS.IN, input)
    const entries = [...bindingEntries(b), ...fault.entries]
    const behind = fault.name === 'F_WALK_EABT' && fault.stage === 1
    const { fetchAddress: at } = fault
    const fetchAddress = behind ? this.#walkers.physical(b.stream.stage2, at) : at
    return { ...fault, entries, fetchAddress }
  }

  /** Keeps an answer where the next request of this kind looks first. */
  #fillFront(
    r: MemoryRequest,
    b: Binding,
    rights: number,
    slot: number,
    { output, pageBits }: Translation,
  ): void {
    const { privCfg, instCfg } = b.stream
    const high = rights & HALF
    const low = (rights >> USER_SHIFT) & HALF
    const plain = r.pasid === NO_PASID
    const forPrivileged =
      privCfg === OVERRIDE.CLEAR || (plain && privCfg !== OVERRIDE.SET) ? low : high
    const forOthers = privCfg === OVERRIDE.SET ? high : low
    const kept =
      asAsked(forPrivileged, instCfg, plain) | (asAsked(forOthers, instCfg, plain) << USER_SHIFT)
    const front = this.#front
    const i = slot << 3
    front[i] = r.lo & -4096
    front[i + 1] = r.hi
    front[i + 2] = r.pasid
    front[i + 3] = r.requester | this.caches.epoch
    front[i + 4] = kept | (pageBits << 8)
    this.#frontOutput[slot] = output - (r.lo & 4095)
  }

  #identity(r: MemoryRequest, into: Translation, mode: TranslationEvent['mode']): void {
    into.status = COMPLETION.SC
    into.output = addressOf(r.hi, r.lo)
    into.pageBits = IDENTITY_BITS
    into.read = into.write = true
    if (this.#point.on)
      this.#point.emit({ ...this.#traced(r, into), mode, cached: false, stages: [] })
  }

  /** A configuration error, or a fault that nothing configures: terminated and recorded. */
  #terminate(
    r: MemoryRequest,
    into: Translation,
    stream: Stream | undefined,
    why: Omit<Refusal, 'ofStage2'>,
  ): void {
    deny(into, COMPLETION.UR)
    const wanted = why.name !== 'C_BAD_STREAMID' || this.#regs.CR2.RECINVSID
    this.#out.faults.report(this.#requests.report(r, stream, why), wanted)
  }

  /** A fault of a stage, recorded or stalled as the CD or STE asks for (5.5). */
  #faulted(
    r: MemoryRequest,
    into: Translation,
    stream: Stream,
    b: Binding | undefined,
    why: WalkFault,
  ): void {
    if (why.name === 'F_WALK_EABT') {
      this.#terminate(r, into, stream, why)
      return
    }
    deny(into, COMPLETION.UR)
    const { record, stall } = (why.stage === 2 ? stream.stage2 : b?.context)!
    const report: FaultReport = this.#requests.report(r, stream, why)
    if (stall) into.stalled = this.#out.stalls.hold(report)
    else this.#out.faults.report(report, record)
  }

  #traceTables(r: MemoryRequest, b: Binding, into: Translation, cached: boolean): void {
    const access = walkAccess(b, r.write, false, privileged(r, b.stream))
    const hi = untagged(rangeOf(b, r.hi), r.hi)
    this.#point.emit({
      ...this.#traced(r, into),
      mode: b.context ? (b.stream.stage2 ? 'nested' : 'stage-1') : 'stage-2',
      cached,
      stages: cached ? [] : this.#walkers.stages(b, hi, r.lo, access),
    })
  }

  /** What every translation event says. */
  #traced(r: MemoryRequest, into: Translation) {
    const asksToWrite = r.at === AT.TRANSLATION_REQUEST ? !r.noWrite : r.write
    const access = asksToWrite
      ? ('write' as const)
      : r.execute
        ? ('execute' as const)
        : ('read' as const)
    return {
      requester: r.requester,
      streamId: this.#requests.streamId(r.requester),
      pasid: r.pasid,
      address: join(r.hi, r.lo),
      access,
      at: r.at,
      output: BigInt(into.output),
      pageBits: into.pageBits,
    }
  }
}

/** Permissions as the front table compares them: what a read needs stands in R, what an execute request needs in X. */
function asAsked(rights: number, instCfg: number, plain: boolean): number {
  const forced = instCfg === OVERRIDE.SET
  const never = instCfg === OVERRIDE.CLEAR || (plain && !forced)
  const read = (rights & (forced ? PERM_EXECUTE : PERM_READ)) !== 0
  const fetch = (rights & (never ? PERM_READ : PERM_EXECUTE)) !== 0
  return (rights & PERM_WRITE) | (read ? PERM_READ : 0) | (fetch ? PERM_EXECUTE : 0)
}
