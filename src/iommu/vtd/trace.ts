/** Trace points of a VT-d unit. Events are built only while somebody listens. */
import type { PageGroupResponse, PageRequest } from '../../pci/request.js'
import type { FaultAccess, VtdFault } from './faults.js'
import type { InvalidationEvent } from './invalidate.js'
import type { PageRequestOutcome } from './page-requests.js'

/** One stage of a translation. */
export interface TranslatedStage {
  readonly stage: 'first' | 'second'
  readonly input: bigint
  readonly output: bigint
  /** log2 of the page the stage mapped. */
  readonly pageBits: number
  /** Level of the leaf: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB. */
  readonly level: number
}

/** One answered translation. */
export interface TranslationEvent {
  readonly requester: number
  /** `NO_PASID` for a request without one. */
  readonly pasid: number
  readonly address: bigint
  readonly access: FaultAccess
  /** Address Type of the request. */
  readonly at: number
  /** Domain id; -1 while translation is off. */
  readonly did: number
  readonly mode: 'off' | 'pass-through' | 'first-stage' | 'second-stage' | 'nested' | 'translated'
  readonly output: bigint
  readonly pageBits: number
  /** True when no table was walked. */
  readonly cached: boolean
  /** The stages walked, in order; empty when cached or not translated. */
  readonly stages: readonly TranslatedStage[]
}

/** Software's access to a register. */
export interface RegisterEvent {
  readonly write: boolean
  readonly name: string
  readonly offset: number
  readonly size: number
  readonly value: bigint
}

declare module '../../base/trace.js' {
  interface TraceEvents {
    'vtd.translate': TranslationEvent
    'vtd.fault': VtdFault
    'vtd.invalidate': InvalidationEvent
    'vtd.page-request': { readonly request: PageRequest; readonly outcome: PageRequestOutcome }
    'vtd.page-response': PageGroupResponse
    'vtd.register': RegisterEvent
  }
}
