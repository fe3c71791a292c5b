/**
 * The one door to explanations: any table-declared value, any fault, any refused completion. `explain` gives
 * text for people, `explanation` the same as data. Which is which is told by what the value holds.
 */
import { explain as explainValue } from '../base/explain.js'
import { layoutFor } from '../base/fields.js'
import type { TraceEvents } from '../base/trace.js'
import type { SmmuFault } from '../iommu/smmu/faults.js'
import type { StaleUse } from '../iommu/stale-use.js'
import type { VtdFault } from '../iommu/vtd/faults.js'
import type { ConfidentialDma } from '../mem/confidential.js'
import type { DmaFailure } from '../pci/device-model.js'
import { explainConfidentialDma } from './confidential.js'
import { explainDmaEvent, explainDmaFailure } from './dma.js'
import { type Explanation, explanationText } from './explanation.js'
import { explainSmmuFault } from './smmu.js'
import { explainStaleUse } from './stale-use.js'
import { explainVtdFault } from './vtd.js'

export type { ExplainedNode, Explanation } from './explanation.js'
export { explanationText } from './explanation.js'
export { explainSmmuEvent, explainSmmuRecord } from './smmu.js'
export { explainVtdReason } from './vtd.js'
export { explainVtdRecord, RecordError } from './vtd-record.js'
export { type WalkRequest, type WalkTree, walkTree, walkTreeText } from './walk-tree.js'

/** What can be explained beside values of declared layouts. */
export type Explainable =
  | VtdFault
  | SmmuFault
  | StaleUse
  | ConfidentialDma
  | DmaFailure
  | TraceEvents['dma']

/** A fault, or a completion that refused something, as data. Error for anything else. */
export function explanation(value: Explainable): Explanation {
  if ('condition' in value) return explainVtdFault(value)
  if ('streamId' in value) return explainSmmuFault(value)
  if ('cache' in value) return explainStaleUse(value)
  if ('outcome' in value) return explainConfidentialDma(value)
  if ('ok' in value) return explainDmaFailure(value)
  if (value.failure !== undefined) return explainDmaEvent(value, value.failure)
  throw new Error('explain: this request was not refused')
}

/**
 * Explains a value in words: a fault or refused completion (`Explainable`) as a report with what was read on
 * the way, cause and cure; a value of a declared layout field by field, zero fields left out unless `all`.
 *
 * @example console.log(explain(machine.unit.lastFault!))
 */
export function explain(value: object, options: { readonly all?: boolean } = {}): string {
  return layoutFor(value) === undefined
    ? explanationText(explanation(value as Explainable))
    : explainValue(value, options)
}
