/**
 * VT-d faults explained: from the structured fault with its trail, from a bare reason number, or from a
 * record pasted out of a real machine's log (vtd-record.ts). Causes and cures: vtd-causes.ts.
 */
import { formatBdf, hex } from '../base/addr.js'
import type { Layout } from '../base/fields.js'
import { FAULT_REASONS, type FaultName } from '../iommu/vtd/fault-reasons.js'
import type { FaultTrail, FetchedStructure } from '../iommu/vtd/fault-trail.js'
import type { VtdFault } from '../iommu/vtd/faults.js'
import {
  CONTEXT_ENTRY,
  IRTE,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  POSTED_IRTE,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../iommu/vtd/tables.js'
import type { ExplainedNode, Explanation } from './explanation.js'
import { fieldIs, structureNode, walkNode } from './structures.js'
import { VTD_CAUSES } from './vtd-causes.js'
import { afterAll, REQUEST, refusedBeyond, structureRefusal } from './vtd-refusal.js'

/** CAP_REG.PI, and IM of an interrupt remapping table entry. */
const CAP_PI = 1n << 59n
const IRTE_IM = 1n << 15n

/** What a request is known to have been; a record tells less than a fault. */
export type VtdRequest = Pick<
  VtdFault,
  'name' | 'requester' | 'pasid' | 'address' | 'access' | 'privileged' | 'at'
>

/** A fault of a modelled unit. */
export function explainVtdFault(f: VtdFault): Explanation {
  const { trail } = f
  const tree = trail ? trailNodes(f, trail) : []
  const refused = refusal(tree)
  const fate = {
    recorded: '',
    overflow: ' Its record was lost: no fault recording register was free (FSTS_REG.PFO).',
    suppressed: ' It was not recorded: FPD is set in a structure on the way.',
  }[f.record]
  const walked =
    trail === undefined || refused === undefined ? sentence(f.meaning) : ending(trail, refused)
  return {
    ...common(f),
    summary: `${asked(f)} ${walked}${fate}`,
    request: [...requestRows(f), ['time', `${f.time} ns`]],
    tree,
  }
}

/** A reason number alone; undefined when there is no such reason here. */
export function explainVtdReason(name: FaultName): Explanation {
  const { condition, qualified, ats, meaning } = FAULT_REASONS[name]
  const answers = {
    UR: 'Unsupported Request',
    CA: 'Completer Abort',
    none: 'success without permissions (and no record)',
  }
  const summary = [
    sentence(meaning),
    'An untranslated or translated request that meets this is completed as Unsupported Request;',
    `a translation request (ATS) is answered with ${answers[ats]}.`,
    qualified
      ? 'FPD in a structure on the way keeps it out of the fault registers.'
      : 'It is recorded whatever FPD says.',
  ].join(' ')
  return { ...common({ name }), title: title(name, condition), summary, request: [], tree: [] }
}

/** What a fault record says of a request; the tables behind it are not known. */
export function explainVtdRequest(r: VtdRequest): Explanation {
  return {
    ...common(r),
    summary: `${asked(r)} ${sentence(FAULT_REASONS[r.name].meaning)}`,
    request: requestRows(r),
    tree: [],
  }
}

/** Structures and page tables as nodes, of an address that nothing need refuse; with `full` also second stages that lead on. */
export const vtdTrailTree = (trail: FaultTrail, full = false): ExplainedNode[] => [
  ...trail.structures.map((s, i) => {
    const { title, layout } = kindOf(trail.mode, s)
    const last = i === trail.structures.length - 1 && trail.walks.length === 0
    return structureNode(title, layout, s, last ? absent(trail, layout, s) : undefined)
  }),
  ...trail.walks.map(w => walkNode(w, full)),
]

/** The present flag of the last structure of a way that led nowhere. */
function absent({ mode }: FaultTrail, layout: Layout, { words, kind }: FetchedStructure) {
  if (words === undefined || (mode === 'scalable' && kind === 'root')) return undefined
  const present = fieldIs(layout, words, 'P')
  return present.endsWith(' is 0') ? present : undefined
}

function common({ name }: { readonly name: FaultName }) {
  const { condition } = FAULT_REASONS[name]
  const [cause, cure] = VTD_CAUSES[name]
  const section = condition.endsWith('h')
    ? `VT-d 5.1.4.1, fault reason ${condition}`
    : `VT-d 7.1.3, condition ${condition}`
  return { title: title(name, condition), section, cause, cure }
}

function title(name: FaultName, condition: string): string {
  const { code, meaning } = FAULT_REASONS[name]
  const number = `${code.toString(16).toUpperCase().padStart(2, '0')}h`
  const [, sub] = condition.split('.')
  return `VT-d fault ${number}${sub === undefined ? '' : ` (${condition})`}: ${meaning}`
}

const sentence = (text: string): string => `${text[0]!.toUpperCase()}${text.slice(1)}.`

const ADDRESS_TYPES = ['untranslated', 'translation request (ATS)', 'translated', 'reserved']
const WANTED = {
  read: 'wanted to read',
  write: 'wanted to write',
  execute: 'wanted to execute',
  'page-request': 'asked for the page',
  interrupt: 'sent an interrupt',
} as const

function asked(r: VtdRequest): string {
  const who = formatBdf(r.requester)
  if (r.access === 'interrupt') return `${who} sent an interrupt with index ${hex(r.address)}.`
  const under = r.pasid >= 0 ? `with PASID ${r.pasid}` : 'without a PASID'
  const how = r.at === 0 ? '' : `, by a ${ADDRESS_TYPES[r.at]}${r.at === 2 ? ' request' : ''}`
  return `${who} ${WANTED[r.access]} at ${hex(r.address)} ${under}${how}.`
}

function requestRows(r: VtdRequest): [string, string][] {
  const rows: [string, string][] = [['source', formatBdf(r.requester)]]
  if (r.access === 'interrupt') return [...rows, ['interrupt index', hex(r.address)]]
  return [
    ...rows,
    ['PASID', r.pasid >= 0 ? `${r.pasid} (${hex(r.pasid)})` : 'none'],
    ['address', hex(r.address)],
    ['access', `${r.access}, ${r.privileged ? 'privileged' : 'user'}`],
    ['address type', `${r.at}: ${ADDRESS_TYPES[r.at]}`],
  ]
}

/** Where the unit came to. */
function ending({ mode }: FaultTrail, refused: string): string {
  const [, why] = refused.split(`${REQUEST}, where `)
  return why === undefined
    ? `The unit, in ${mode} mode, came to ${/^(the |RTADDR)/.test(refused) ? '' : 'the '}${refused}.`
    : `The unit, in ${mode} mode, refused ${REQUEST}: ${why}.`
}

/** The innermost refusal of a tree, with the entry it is about. */
function refusal(nodes: readonly ExplainedNode[]): string | undefined {
  for (const n of [...nodes].reverse()) {
    const below = refusal(n.children ?? [])
    if (below !== undefined) return below
    if (n.refused !== undefined) return `${n.text.split(/ = | \(at |: /)[0]}, where ${n.refused}`
  }
  return undefined
}

function trailNodes(f: VtdFault, trail: FaultTrail): ExplainedNode[] {
  const beyond = refusedBeyond(f)
  const stop = trail.walks.length > 0 || beyond !== undefined ? -1 : trail.structures.length - 1
  const structures = trail.structures.map((s, i) => {
    const { title, layout } = kindOf(trail.mode, s, (f.cap & CAP_PI) !== 0n)
    const why = i === stop && s.words ? structureRefusal(f, s, layout, s.words) : undefined
    return structureNode(title, layout, s, why)
  })
  const end = beyond ?? afterAll(f, trail)
  return [...structures, ...trail.walks.map(w => walkNode(w)), ...(end === undefined ? [] : [end])]
}

function kindOf(
  mode: FaultTrail['mode'],
  { kind, words }: FetchedStructure,
  posts = false,
): { readonly title: string; readonly layout: Layout } {
  const scalable = mode === 'scalable'
  const found = {
    root: scalable ? SM_ROOT_ENTRY : ROOT_ENTRY,
    context: scalable ? SM_CONTEXT_ENTRY : CONTEXT_ENTRY,
    'pasid-directory': PASID_DIRECTORY_ENTRY,
    'pasid-table': PASID_ENTRY,
    irte: posts && words && (words[0]! & IRTE_IM) !== 0n ? POSTED_IRTE : IRTE,
  }[kind]
  return { title: found.name.replace('VT-d ', ''), layout: found as unknown as Layout }
}
