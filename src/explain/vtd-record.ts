/** A VT-d fault recording register (11.4.7.6) decoded, as a machine's log or a debugger prints it: 128 bits. */
import { hex, highHalf } from '../base/addr.js'
import { explainFields } from '../base/explain.js'
import { layout } from '../base/fields.js'
import { FAULT_REASONS, faultName } from '../iommu/vtd/fault-reasons.js'
import { frcdHigh, frcdLow } from '../iommu/vtd/registers.js'
import type { Explanation } from './explanation.js'
import { explainVtdRequest } from './vtd.js'

const LOW = layout('VT-d fault record, low half', 8, frcdLow(0).fields)
const HIGH = layout('VT-d fault record, high half', 8, frcdHigh(0).fields)

/** With T2: what kind of request it was. */
const TYPES = ['write', 'page-request', 'read', 'read'] as const

/** A record of which nothing is known here, or that is no record. */
export class RecordError extends Error {
  override readonly name = 'RecordError'
}

/** Explains a record from its two halves; halves the wrong way round are recognised by F. RecordError says what is wrong. */
export function explainVtdRecord(low: bigint, high: bigint): Explanation {
  const F = 1n << 63n
  const [lo, hi] = (high & F) === 0n && (low & F) !== 0n ? [high, low] : [low, high]
  const l = LOW.create()
  const h = HIGH.create()
  new BigUint64Array(l.bytes.buffer)[0] = lo
  new BigUint64Array(h.bytes.buffer)[0] = hi
  if (!h.F)
    throw new RecordError(
      'F (bit 127) is clear in this record: it holds no fault. Give both 64-bit halves, low half first.',
    )
  const name = faultName(h.FR)
  if (name === undefined)
    throw new RecordError(
      `fault reason ${hex(h.FR)} is not one that is modelled here; see VT-d 7.1.3`,
    )
  const interrupt = FAULT_REASONS[name].condition.endsWith('h')
  const kind = TYPES[(h.T1 ? 2 : 0) | (h.T2 ? 1 : 0)]!
  const e = explainVtdRequest({
    name,
    requester: h.SID,
    pasid: h.PP ? h.PV : -1,
    address: interrupt ? BigInt(highHalf(lo) >>> 16) : lo & ~0xfffn,
    access: interrupt ? 'interrupt' : kind === 'read' && h.EXE ? 'execute' : kind,
    privileged: h.PRIV,
    at: h.AT,
  })
  const shown = (f: { readonly value: string }) => f.value !== '0' && f.value !== '0x0'
  const fields = [
    ...explainFields(HIGH.fields, h).map(f => ({ ...f, position: above(f.position) })),
    ...explainFields(LOW.fields, l),
  ].filter(shown)
  return { ...e, tree: [{ text: 'fault record', words: [lo, hi], fields }] }
}

/** A position in the high half, as one in the whole record. */
const above = (position: string): string =>
  position
    .split(':')
    .map(p => `${Number(p) + 64}`)
    .join(':')
