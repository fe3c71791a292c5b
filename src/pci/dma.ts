/**
 * Words of the request path: why a request fails, how one is tagged, and its trace event.
 * Next: bus-master.ts (the path itself), device-model.ts (what devices see).
 */
declare module '../base/trace.js' {
  interface TraceEvents {
    /** One piece of a function's memory request: where it went, or why it was refused. */
    dma: {
      requester: number
      pasid: number
      hi: number
      lo: number
      length: number
      write: boolean
      at: number
      /** Physical address; -1 when refused. */
      output: number
      failure: DmaFailureReason | undefined
    }
  }
}

/** Why a request did not go through, as far as the function can know. */
export type DmaFailureReason =
  /** Bus Master Enable is clear in the function or a bridge above, or the function is not in D0. */
  | 'bus-master-disabled'
  /** The PASID capability is absent or disabled, or lacks the enable for execute or privileged (PCIe 6.20.1). */
  | 'pasid-disabled'
  /** The PASID does not fit Max PASID Width (PCIe 7.8.9.2). */
  | 'pasid-width'
  /** A port refused the request: prefix blocking (PCIe 2.2.10.2) or ACS translation blocking (6.12.1.1). */
  | 'blocked'
  /** The translator answered Unsupported Request. */
  | 'refused'
  /** The translator answered Completer Abort. */
  | 'aborted'
  /** The page is private memory of a guest, or was shared with devices and is no more. */
  | 'confidential'
  /** The translator holds the request until software decides (SMMUv3 stall model): not the last word. */
  | 'stalled'
  /** ATS: no translation now; a page request may help. */
  | 'not-present'
  /** ATS: a translation, but not for this access; a page request may help. */
  | 'no-permission'
  /** Nothing answers at the physical address, or the address leaves 64 bits. */
  | 'unclaimed'

/** What the request path looks at in a tag. Missing `pasid`: no prefix. */
export interface DmaTag {
  readonly pasid?: number | undefined
  readonly execute?: boolean | undefined
  readonly privileged?: boolean | undefined
}
