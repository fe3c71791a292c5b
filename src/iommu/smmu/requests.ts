/**
 * What all kinds of requests share: finding the STE and CD that govern one (IHI 0070 3.3.3, the substream
 * rules of 5.2), what the request counts as after STE overrides, and reporting why it was refused.
 */
import { join } from '../../base/addr.js'
import { AT, type MemoryRequest, NO_PASID, type Translation } from '../../pci/request.js'
import { IOTLB_FIRST, IOTLB_NESTED, IOTLB_SECOND } from '../iotlb.js'
import { domainOf, NO_ASID } from './caches.js'
import type { SmmuConfig } from './config.js'
import type { Context, Contexts } from './contexts.js'
import type { EventName } from './events.js'
import { type FaultAccess, type FaultEntry, type FaultReport, NO_DETAIL } from './faults.js'
import { OVERRIDE, S1DSS } from './ste.js'
import type { Stream, Streams } from './streams.js'

/** How requests of one stream under one substream, or without, are translated. */
export interface Binding {
  readonly stream: Stream
  /** Absent: stage 1 is bypassed. */
  readonly context: Context | undefined
  /** ACCESS_* of every walk. */
  readonly modes: number
  /** Tags of TLB entries, and of those that belong to all ASIDs. */
  readonly domain: number
  readonly asid: number
  readonly source: number
  readonly globalSource: number
  /** IOTLB_*. */
  readonly kind: number
}

/** Why a request has no binding. */
export interface Refusal extends Omit<FaultReport, RequestPart> {
  /** The fault is a stage 2's that refused a CD fetch: STE.S2R and S2S govern it. */
  readonly ofStage2: boolean
}
type RequestPart =
  | 'requester'
  | 'streamId'
  | 'pasid'
  | 'address'
  | 'access'
  | 'privileged'
  | 'at'
  | 'mergeable'

/** Events that come before an STE is found; no MEV keeps them from being merged (7.3.1). */
const BEFORE_STE: readonly EventName[] = ['C_BAD_STREAMID', 'F_STE_FETCH', 'C_BAD_STE']

/** Finds what governs a request. */
export class Requests {
  readonly streams: Streams
  readonly #contexts: Contexts
  readonly #config: SmmuConfig

  constructor(streams: Streams, contexts: Contexts, config: SmmuConfig) {
    this.streams = streams
    this.#contexts = contexts
    this.#config = config
  }

  streamId(requester: number): number {
    return this.#config.streams.streamId(requester)
  }

  /** The STE of a requester; when there is none, `streamRefusal` tells. */
  stream(requester: number): Stream | undefined {
    return this.streams.lookup(this.streamId(requester))
  }

  streamRefusal(): Refusal {
    const { failure: name, entries, fetchAddress } = this.streams
    return { ...NO_DETAIL, name, entries, fetchAddress, ofStage2: false }
  }

  /** The binding of requests with this PASID, of a stream that lets traffic pass; or why there is none. */
  binding(stream: Stream, pasid: number): Binding | Refusal {
    const known = stream.bindings.get(pasid)
    if (known) return known
    let substream = 0
    let stage1 = stream.stage1
    if (pasid !== NO_PASID) {
      if (!stage1 || stream.s1CdMax === 0 || pasid >= 2 ** stream.s1CdMax)
        return refusal('C_BAD_SUBSTREAMID', stream)
      if (pasid === 0 && stream.s1Dss === S1DSS.SUBSTREAM_0)
        return refusal('F_STREAM_DISABLED', stream)
      substream = pasid
    } else if (stage1 && stream.s1CdMax > 0) {
      if (stream.s1Dss === S1DSS.BYPASS) stage1 = false
      else if (stream.s1Dss !== S1DSS.SUBSTREAM_0) return refusal('F_STREAM_DISABLED', stream)
    }
    let context: Context | undefined
    if (stage1) {
      const contexts = this.#contexts
      context = contexts.lookup(stream, substream)
      if (!context) {
        const { failure: name, walk, fetchAddress, entries } = contexts
        return walk
          ? { ...walk, entries: [...entries, ...walk.entries], ofStage2: true }
          : { ...NO_DETAIL, name, fetchAddress, entries, ofStage2: false }
      }
    }
    const binding = bind(stream, context)
    stream.bindings.set(pasid, binding)
    return binding
  }

  /** The report of a request's fault. */
  report(
    r: MemoryRequest,
    stream: Stream | undefined,
    why: Omit<FaultReport, RequestPart>,
  ): FaultReport {
    const write = r.at === AT.TRANSLATION_REQUEST ? !r.noWrite : r.write
    const access: FaultAccess = write ? 'write' : executes(r, stream) ? 'execute' : 'read'
    return {
      ...why,
      requester: r.requester,
      streamId: this.streamId(r.requester),
      pasid: r.pasid,
      address: join(r.hi, r.lo),
      access,
      privileged: privileged(r, stream),
      at: r.at,
      mergeable: stream?.mergesEvents ?? BEFORE_STE.includes(why.name),
    }
  }
}

/** True of what `binding` answers when there is one. */
export const isBinding = (found: Binding | Refusal): found is Binding => 'stream' in found

const refusal = (name: EventName, stream: Stream): Refusal => ({
  ...NO_DETAIL,
  name,
  entries: [stream.entry],
  ofStage2: false,
})

function bind(stream: Stream, context: Context | undefined): Binding {
  const { stage2, world, vmid } = stream
  const both = stage2 ? 1 : 0
  const asid = context ? context.asid : NO_ASID
  return {
    stream,
    context,
    modes: (context?.modes ?? 0) | (stage2?.modes ?? 0),
    domain: domainOf(world, vmid),
    asid,
    // Translations of one stage and of two are never each other's.
    source: both,
    globalSource: asid * 2 + both,
    kind: context ? (stage2 ? IOTLB_NESTED : IOTLB_FIRST) : IOTLB_SECOND,
  }
}

/** Whether a request counts as privileged (PRIVCFG). */
export function privileged(r: MemoryRequest, stream: Stream | undefined): boolean {
  const config = stream?.privCfg ?? OVERRIDE.INCOMING
  if (config === OVERRIDE.SET) return true
  return config !== OVERRIDE.CLEAR && r.pasid !== NO_PASID && r.privileged
}

/** Whether a read counts as an instruction fetch (INSTCFG). */
export function executes(r: MemoryRequest, stream: Stream | undefined): boolean {
  if (r.write) return false
  const config = stream?.instCfg ?? OVERRIDE.INCOMING
  if (config === OVERRIDE.SET) return true
  return config !== OVERRIDE.CLEAR && r.pasid !== NO_PASID && r.execute
}

/** Answers that nothing is allowed. */
export function deny(into: Translation, status: Translation['status']): void {
  into.status = status
  into.output = 0
  into.pageBits = 12
  into.read = into.write = into.execute = into.privileged = false
  into.global = into.untranslatedOnly = false
}

/** The CD and STE on the way to a walk, for faults. */
export const bindingEntries = (b: Binding): readonly FaultEntry[] =>
  b.context ? [b.stream.entry, b.context.entry] : [b.stream.entry]

/** An address of 52 bits at most; wider ones lose low bits and are refused by their callers. */
export const addressOf = (hi: number, lo: number): number => (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0)
