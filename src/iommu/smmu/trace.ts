/** Trace points of an SMMUv3. Events are built only while somebody listens. */
import type { PageGroupResponse, PageRequest } from '../../pci/request.js'
import type { CommandEvent } from './execute.js'
import type { FaultAccess, SmmuFault } from './faults.js'
import type { PageRequestOutcome } from './page-requests.js'
import type { StallEvent } from './stalls.js'

/** One stage of a translation. */
export interface TranslatedStage {
  readonly stage: 1 | 2
  readonly input: bigint
  readonly output: bigint
  /** log2 of the page it holds for; of a nested stage 1, of the smaller page of both. */
  readonly pageBits: number
}

/** One answered translation. */
export interface TranslationEvent {
  readonly requester: number
  readonly streamId: number
  /** `NO_PASID` for a request without one. */
  readonly pasid: number
  readonly address: bigint
  readonly access: FaultAccess
  /** Address Type of the request. */
  readonly at: number
  readonly mode: 'off' | 'bypass' | 'stage-1' | 'stage-2' | 'nested' | 'translated'
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
    'smmu.translate': TranslationEvent
    'smmu.fault': SmmuFault
    'smmu.stall': StallEvent
    'smmu.command': CommandEvent
    'smmu.page-request': { readonly request: PageRequest; readonly outcome: PageRequestOutcome }
    'smmu.page-response': PageGroupResponse
    'smmu.register': RegisterEvent
  }
}
