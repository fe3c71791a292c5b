/**
 * What a virtual unit tells its VMM. Each hook runs after the unit did its own architectural work for
 * the descriptor or command; a physical unit has none.
 */
import type { PageGroupResponse } from '../../pci/request.js'

/** The answer to a virtual command. */
export interface VirtualCommandResult {
  /** The unit turns it into the number that its edition gives it (VCRSP_REG.SC). */
  readonly status: 'success' | 'no-pasid' | 'invalid-pasid' | 'undefined'
  /** VCRSP_REG.RSLT, for an allocation the PASID. */
  readonly result: number
}

/** Callbacks of a virtual unit; all are optional. */
export interface VtdHooks {
  contextCacheInvalidated?(
    granularity: 'global' | 'domain' | 'device',
    did: number,
    sid: number,
    functionMask: number,
  ): void
  pasidCacheInvalidated?(
    granularity: 'global' | 'domain' | 'pasid',
    did: number,
    pasid: number,
  ): void
  /** `order` is the address mask: 2^order pages from `hi:lo`; `leaf` is the invalidation hint. */
  iotlbInvalidated?(
    kind: 'global' | 'domain' | 'page' | 'pasid' | 'pasid-page',
    did: number,
    pasid: number,
    hi: number,
    lo: number,
    order: number,
    leaf: boolean,
  ): void
  deviceTlbInvalidated?(
    requester: number,
    pasid: number,
    hi: number,
    lo: number,
    pageBits: number,
    global: boolean,
  ): void
  interruptEntryCacheInvalidated?(index: number | undefined, mask: number): void
  /** Takes the place of sending the response downstream. */
  pageGroupResponse?(r: PageGroupResponse): void
  /** Executes a virtual command; without it every command is undefined. */
  virtualCommand?(command: number, operand: number): VirtualCommandResult
}
