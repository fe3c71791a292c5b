/**
 * How an address is translated, as a readable tree: the configuration structures and page tables that a unit
 * would read for it, as memory holds them now. Sets no flags and fills no cache.
 */
import { formatBdf, hex, parseBdf } from '../base/addr.js'
import { SmmuUnit } from '../iommu/smmu/unit.js'
import type { VtdUnit } from '../iommu/vtd/unit.js'
import type { StageWalk } from '../paging/walk-steps.js'
import { type ExplainedNode, nodeLines } from './explanation.js'
import { smmuTrailTree } from './smmu.js'
import { vtdTrailTree } from './vtd.js'

/** Which address of whom. */
export interface WalkRequest {
  /** Requester id, or `0000:bb:dd.f`. */
  readonly bdf: number | string
  /** PASID or SubstreamID; none for requests without one. */
  readonly pasid?: number | undefined
  readonly iova: bigint
  /** Ask to write rather than to read. */
  readonly write?: boolean
  /** Also show the second-stage walk of every first-stage entry. */
  readonly full?: boolean
}

/** What the tables say of an address. */
export interface WalkTree {
  readonly requester: number
  /** -1 without one. */
  readonly pasid: number
  readonly iova: bigint
  readonly access: 'read' | 'write'
  readonly nodes: readonly ExplainedNode[]
  /** Physical address; undefined when there is no translation. */
  readonly output: number | undefined
}

/** The tree of an address in a machine, or behind any unit. RangeError for a `bdf` that is none. */
export function walkTree(
  { unit }: { readonly unit: VtdUnit | SmmuUnit },
  { bdf, pasid = -1, iova, write = false, full = false }: WalkRequest,
): WalkTree {
  const requester = typeof bdf === 'number' ? bdf : parseBdf(bdf)
  if (requester === undefined)
    throw new RangeError(`'${bdf}' is no PCI address: write 0000:bb:dd.f`)
  const { nodes, walks } = look(unit, requester, pasid, iova, write, full)
  const access = write ? 'write' : 'read'
  return { requester, pasid, iova, access, nodes, output: walks.at(-1)?.output }
}

function look(
  unit: VtdUnit | SmmuUnit,
  requester: number,
  pasid: number,
  iova: bigint,
  write: boolean,
  full: boolean,
): { readonly nodes: ExplainedNode[]; readonly walks: readonly StageWalk[] } {
  if (unit instanceof SmmuUnit) {
    const trail = unit.look(requester, pasid, iova, write)
    return { nodes: smmuTrailTree(trail, undefined, full), walks: trail.walks }
  }
  const trail = unit.look(requester, pasid, iova, write)
  return { nodes: vtdTrailTree(trail, full), walks: trail.walks }
}

/** A tree as text. */
export function walkTreeText(t: WalkTree): string {
  const under = t.pasid >= 0 ? `PASID ${t.pasid}` : 'no PASID'
  const end =
    t.output === undefined ? 'no translation' : `${hex(t.iova)} is physical ${hex(t.output)}`
  return [
    `${formatBdf(t.requester)}, ${under}, ${t.access} at ${hex(t.iova)}`,
    ...t.nodes.flatMap(n => nodeLines(n, '  ')),
    end,
  ].join('\n')
}
