/**
 * SMMUv3 events explained: from the structured fault, from a bare event name, or from an event record pasted
 * out of a real machine's log. Causes and cures: smmu-causes.ts.
 */
import { formatBdf, hex } from '../base/addr.js'
import { explainFields } from '../base/explain.js'
import type { Layout } from '../base/fields.js'
import { CD, L1CD } from '../iommu/smmu/cd.js'
import {
  ATS_REQUEST_RECORD,
  EVENT_SIZE,
  EVENTS,
  type EventName,
  eventName,
  FAULT_RECORD,
  FETCH_RECORD,
} from '../iommu/smmu/events.js'
import type { FaultTrail, FetchedStructure } from '../iommu/smmu/fault-trail.js'
import type { SmmuFault } from '../iommu/smmu/faults.js'
import { L1STD, STE } from '../iommu/smmu/ste.js'
import type { ExplainedNode, Explanation } from './explanation.js'
import { SMMU_CAUSES } from './smmu-causes.js'
import { fieldIs, structureNode, walkNode } from './structures.js'
import { RecordError } from './vtd-record.js'

/** A fault of a modelled unit. */
export function explainSmmuFault(f: SmmuFault): Explanation {
  const fate = {
    recorded: '',
    lost: ' Its record was lost: the event queue was full, disabled or broken.',
    suppressed: ' No record was wanted (CD.R, STE.S2R, CR2.RECINVSID).',
    merged: ' No record of its own: the last one in the event queue equals it and stands for both.',
    stalled: ' The transaction waits for CMD_RESUME.',
  }[f.record]
  const stage = f.stage === 0 ? '' : ` Stage ${f.stage} refused it.`
  const substream = f.pasid >= 0 ? `with SubstreamID ${f.pasid}` : 'without a SubstreamID'
  const summary = `${formatBdf(f.requester)} (stream ${hex(f.streamId)}) wanted to ${verb(f.access)} at ${hex(f.address)} ${substream}.${stage} ${sentence(f.meaning)}${fate}`
  return {
    ...common(f.name),
    summary,
    request: [
      ['source', `${formatBdf(f.requester)}, stream ${hex(f.streamId)}`],
      ['SubstreamID', f.pasid >= 0 ? `${f.pasid} (${hex(f.pasid)})` : 'none'],
      ['address', hex(f.address)],
      ['access', `${f.access}, ${f.privileged ? 'privileged' : 'unprivileged'}`],
      ...(f.stage === 2 ? [['IPA', hex(f.ipa)] as const] : []),
      ...(f.fetchAddress > 0 ? [['fetch address', hex(f.fetchAddress)] as const] : []),
      ['time', `${f.time} ns`],
    ],
    tree: faultTree(f),
  }
}

/** An event by name. */
export function explainSmmuEvent(name: EventName): Explanation {
  const answers = {
    UR: 'Unsupported Request',
    CA: 'Completer Abort',
    none: 'success without permissions',
  }
  const summary = `${sentence(EVENTS[name].meaning)} A translation request (ATS) that meets this is answered with ${answers[EVENTS[name].ats]}.`
  return { ...common(name), summary, request: [], tree: [] }
}

/** An event record of four 64-bit words, in address order. RecordError says what is wrong with it. */
export function explainSmmuRecord(words: readonly bigint[]): Explanation {
  if (words.length !== EVENT_SIZE / 8)
    throw new RecordError(`an event record is four 64-bit words; here are ${words.length}`)
  const code = Number(words[0]! & 0xffn)
  const name = eventName(code)
  if (name === undefined)
    throw new RecordError(`event ${hex(code, 2)} is not one that is modelled here; see SMMUv3 7.3`)
  const bytes = new Uint8Array(EVENT_SIZE)
  new BigUint64Array(bytes.buffer).set(words)
  const { shape } = EVENTS[name]
  const layout: Layout = (shape === 'walk' || shape === 'fetch'
    ? FETCH_RECORD
    : shape === 'request'
      ? ATS_REQUEST_RECORD
      : FAULT_RECORD) as unknown as Layout
  const r = FAULT_RECORD.at(bytes)
  const address = words[2]!
  const hasRequest =
    shape === 'walk' || shape === 'fault' || shape === 'translated' || shape === 'request'
  const access = shape === 'request' ? 'translate' : r.InD ? 'execute' : r.RnW ? 'read' : 'write'
  const request: [string, string][] = [['stream', hex(r.StreamID)]]
  if (shape === 'bad-substream' || r.SSV)
    request.push(['SubstreamID', `${r.SubstreamID} (${hex(r.SubstreamID)})`])
  if (hasRequest) request.push(['address', hex(address)], ['access', access])
  const stage = (shape === 'walk' || shape === 'fault') && r.S2 ? ' Stage 2 refused it.' : ''
  const where = hasRequest ? ` wanted to ${verb(access)} at ${hex(address)}` : ' sent a transaction'
  const fields = explainFields(layout.fields, layout.at(bytes)).filter(
    f => f.value !== '0' && f.value !== '0x0',
  )
  return {
    ...common(name),
    summary: `Stream ${hex(r.StreamID)}${where}.${stage} ${sentence(EVENTS[name].meaning)}`,
    request,
    tree: [{ text: 'event record', words, fields }],
  }
}

function common(name: EventName) {
  const { code, section, meaning } = EVENTS[name]
  const [cause, cure] = SMMU_CAUSES[name]
  return {
    title: `SMMUv3 event ${hex(code, 2)} ${name}: ${meaning}`,
    section: `SMMUv3 ${section}`,
    cause,
    cure,
  }
}

const sentence = (text: string): string => `${text[0]!.toUpperCase()}${text.slice(1)}.`

const verb = (access: string): string => (access === 'page-request' ? 'have the page' : access)

const LAYOUTS = { l1std: L1STD, ste: STE, l1cd: L1CD, cd: CD } as const

/** Structures and tables as nodes; what `refused` says is put on the last structure when no walk tells. */
export function smmuTrailTree(trail: FaultTrail, refused?: Refused, full = false): ExplainedNode[] {
  const stop = trail.walks.length > 0 ? -1 : trail.structures.length - 1
  return [
    ...trail.structures.map((s, i) => {
      const layout = LAYOUTS[s.kind] as unknown as Layout
      const why = i === stop && s.words ? refused?.(s, layout, s.words) : undefined
      const node = structureNode(layout.name.replace('SMMUv3 ', ''), layout, s, why)
      return s.physical === s.at
        ? node
        : { ...node, text: node.text.replace(hex(s.at), `${hex(s.at)} (at ${hex(s.physical)})`) }
    }),
    ...trail.walks.map(w => walkNode(w, full)),
  ]
}

type Refused = (s: FetchedStructure, layout: Layout, words: readonly bigint[]) => string | undefined

function faultTree(f: SmmuFault): ExplainedNode[] {
  if (!f.trail) return []
  return smmuTrailTree(f.trail, (s, layout, words) => {
    switch (f.name) {
      case 'C_BAD_STREAMID':
        return s.kind === 'l1std' ? fieldIs(layout, words, 'Span') : undefined
      case 'C_BAD_STE':
      case 'C_BAD_CD':
        return / is 0$/.test(fieldIs(layout, words, 'V'))
          ? fieldIs(layout, words, 'V')
          : 'a field has a value that is illegal here (5.2.2, 5.4.2), or that the unit does not support'
      case 'F_BAD_ATS_TREQ':
      case 'F_TRANSL_FORBIDDEN':
        return s.kind === 'ste' ? fieldIs(layout, words, 'EATS') : undefined
      case 'F_STREAM_DISABLED':
        return s.kind === 'ste' ? fieldIs(layout, words, 'S1DSS') : undefined
      case 'C_BAD_SUBSTREAMID':
        return s.kind === 'l1cd'
          ? fieldIs(layout, words, 'V')
          : s.kind === 'ste'
            ? `${fieldIs(layout, words, 'Config')}, ${fieldIs(layout, words, 'S1CDMax')}`
            : undefined
      default:
        return undefined
    }
  })
}
