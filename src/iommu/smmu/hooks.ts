/**
 * What a virtual unit tells its VMM. Each hook runs after the unit did its own architectural work for the
 * command; a physical unit has none.
 */
import type { PageGroupResponse } from '../../pci/request.js'
import type { PageRange } from './caches.js'

/** Scope of a configuration invalidation. */
export type ConfigScope = 'all' | 'range' | 'stream' | 'substreams' | 'substream'
/** Scope of a TLB invalidation, by its command. */
export type TlbScope =
  | 'nsnh-all'
  | 'nh-all'
  | 'nh-asid'
  | 'nh-va'
  | 'nh-vaa'
  | 's12-vmall'
  | 's2-ipa'
  | 'el2-all'
  | 'el2-asid'
  | 'el2-va'
  | 'el2-vaa'

/** Callbacks of a virtual unit; all are optional. */
export interface SmmuHooks {
  /** `bits`: log2 of the streams that a range names. */
  configInvalidated?(scope: ConfigScope, streamId: number, substreamId: number, bits: number): void
  /** `range` is there for scopes by address; `leaf` is the hint. */
  tlbInvalidated?(
    scope: TlbScope,
    vmid: number,
    asid: number,
    range: PageRange | undefined,
    leaf: boolean,
  ): void
  /** `pageBits` 64: everything; `global`: all PASIDs. */
  deviceTlbInvalidated?(
    requester: number,
    pasid: number,
    hi: number,
    lo: number,
    pageBits: number,
    global: boolean,
  ): void
  /** Takes the place of sending the response downstream. */
  pageGroupResponse?(r: PageGroupResponse): void
  /** Software answered a stall record; also one that `injectEvent` put there. */
  stallResumed?(streamId: number, stag: number, retry: boolean): void
  /** CMD_STALL_TERM. */
  stallsTerminated?(streamId: number): void
  /** CR0, STRTAB_BASE or STRTAB_BASE_CFG took effect. */
  enabled?(smmuen: boolean): void
}
