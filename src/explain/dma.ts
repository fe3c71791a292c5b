/** Refused completions explained: what a device's request was answered with, and why that may be. */
import { formatBdf, hex, join } from '../base/addr.js'
import type { TraceEvents } from '../base/trace.js'
import type { DmaFailure } from '../pci/device-model.js'
import type { DmaFailureReason } from '../pci/dma.js'
import { COMPLETION } from '../pci/request.js'
import { DMA_CAUSES } from './dma-causes.js'
import type { Explanation } from './explanation.js'

const STATUS: Readonly<Record<number, string>> = {
  [COMPLETION.SC]: 'SC (success, without the permission)',
  [COMPLETION.UR]: 'UR (Unsupported Request)',
  [COMPLETION.CA]: 'CA (Completer Abort)',
}

/** The answer a device's own port gave it. */
export function explainDmaFailure(f: DmaFailure): Explanation {
  const { meaning } = DMA_CAUSES[f.reason]
  const help = f.recoverable ? ' A page request may help.' : ''
  return explained(
    f.reason,
    `The request stopped at ${hex(f.at)} after ${f.done} bytes: ${meaning}.${help}`,
    [
      ['first byte not moved', hex(f.at)],
      ['bytes moved', `${f.done}`],
      ['completion', STATUS[f.status]!],
    ],
  )
}

/** A refused piece of a request, from the trace. */
export function explainDmaEvent(e: TraceEvents['dma'], reason: DmaFailureReason): Explanation {
  const address = join(e.hi, e.lo)
  const who = formatBdf(e.requester)
  const under = e.pasid >= 0 ? `with PASID ${e.pasid}` : 'without a PASID'
  const { meaning } = DMA_CAUSES[reason]
  return explained(
    reason,
    `${who} wanted to ${e.write ? 'write' : 'read'} at ${hex(address)} ${under}: ${meaning}.`,
    [
      ['source', who],
      ['PASID', e.pasid >= 0 ? `${e.pasid} (${hex(e.pasid)})` : 'none'],
      ['address', hex(address)],
      ['access', `${e.write ? 'write' : 'read'} of ${e.length} bytes`],
    ],
  )
}

function explained(
  reason: DmaFailureReason,
  summary: string,
  request: Explanation['request'],
): Explanation {
  const { section, cause, cure, meaning } = DMA_CAUSES[reason]
  return { title: `DMA ${reason}: ${meaning}`, summary, request, tree: [], section, cause, cure }
}
