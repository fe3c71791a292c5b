/**
 * SMMUv3 event records, IHI 0070 G.b 7.3: number, section, what a record says. A transaction that causes
 * one is terminated with an abort, or stalled where `stalls` allows it. Left out is what cannot arise here:
 * F_UUT, F_TLB_CONFLICT, F_CFG_CONFLICT, F_VMS_FETCH, E_PAGE_REQUEST. Who raises them: streams.ts,
 * contexts.ts, translate.ts; who writes them: event-queue.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Bytes of an event record. */
export const EVENT_SIZE = 32

/** What kind of access led to a fault. */
export const CLASS = {
  CD: 0, // fetching a context descriptor
  TT: 1, // fetching a stage 1 table descriptor
  IN: 2, // the address that a stage was given
} as const

/** What a record holds besides event number and StreamID. */
export type EventShape =
  /** Nothing. */
  | 'stream'
  /** SSV and SubstreamID. */
  | 'substream'
  /** SubstreamID, which is always valid, without SSV. */
  | 'bad-substream'
  /** SSV, SubstreamID and the physical address of the fetch. */
  | 'fetch'
  /** The address and the permissions that a translation request asked for. */
  | 'request'
  /** The address and RnW. */
  | 'translated'
  /** The transaction, stage and class, and the physical address of the fetch. */
  | 'walk'
  /** The transaction, stage and class, IPA, Stall and STAG. */
  | 'fault'

/** One type of event. */
export interface EventType {
  /** EventID. */
  readonly code: number
  readonly section: string
  readonly shape: EventShape
  /** The answer to a translation request (ATS) that meets it: UR, CA, or success with R = W = 0 (3.9.1.2). */
  readonly ats: 'UR' | 'CA' | 'none'
  readonly meaning: string
}

const event = (
  code: number,
  section: string,
  shape: EventShape,
  ats: EventType['ats'],
  meaning: string,
): EventType => ({ code, section, shape, ats, meaning })

/** Events by their name. */
// biome-ignore format: table
export const EVENTS = {
  C_BAD_STREAMID:     event(0x02, '7.3.3',  'substream',     'CA',   'the StreamID is outside the stream table, or its level 1 descriptor covers no such STE'),
  F_STE_FETCH:        event(0x03, '7.3.4',  'fetch',         'CA',   'the STE or its level 1 descriptor could not be read'),
  C_BAD_STE:          event(0x04, '7.3.5',  'substream',     'CA',   'V is clear in the STE, or it is illegal'),
  F_BAD_ATS_TREQ:     event(0x05, '7.3.6',  'request',       'UR',   'a translation request where ATS is not enabled'),
  F_STREAM_DISABLED:  event(0x06, '7.3.7',  'stream',        'CA',   'no SubstreamID where S1DSS is 0, or SubstreamID 0 where S1DSS is 2'),
  F_TRANSL_FORBIDDEN: event(0x07, '7.3.8',  'translated',    'none', 'a translated transaction where ATS is not enabled'),
  C_BAD_SUBSTREAMID:  event(0x08, '7.3.9',  'bad-substream', 'CA',   'a SubstreamID where there is no stage 1 or no substreams, outside the CD table, or behind an invalid level 1 descriptor'),
  F_CD_FETCH:         event(0x09, '7.3.10', 'fetch',         'CA',   'the CD or its level 1 descriptor could not be read'),
  C_BAD_CD:           event(0x0a, '7.3.11', 'substream',     'CA',   'V is clear in the CD, or it is illegal'),
  F_WALK_EABT:        event(0x0b, '7.3.12', 'walk',          'CA',   'a table descriptor could not be read or written'),
  F_TRANSLATION:      event(0x10, '7.3.13', 'fault',         'none', 'no valid descriptor, an address outside the input range, or a range whose walks are disabled'),
  F_ADDR_SIZE:        event(0x11, '7.3.14', 'fault',         'none', 'an output address is wider than the stage allows'),
  F_ACCESS:           event(0x12, '7.3.15', 'fault',         'none', 'AF is clear in a page or block descriptor'),
  F_PERMISSION:       event(0x13, '7.3.16', 'fault',         'none', 'the descriptors do not permit the access'),
} as const satisfies Record<string, EventType>

/** Name of an event. */
export type EventName = keyof typeof EVENTS

const nameOf = new Map<number, EventName>()
for (const [name, e] of Object.entries(EVENTS)) nameOf.set(e.code, name as EventName)

/** The name of the event with this number, if there is one. */
export const eventName = (code: number): EventName | undefined => nameOf.get(code)

const head = {
  StreamID: bits(63, 32, 'stream'),
  SubstreamID: bits(31, 12, 'substream'),
  SSV: flag(11, 'SubstreamID is valid'),
  EventID: bits(7, 0, 'EVENTS'),
}
const inputAddress = {
  InputAddr_HI: bits(191, 160, 'address 63:32 of the transaction'),
  InputAddr_LO: bits(159, 128, 'address 31:0'),
}
const transaction = {
  ...inputAddress,
  CLASS: oneOf(105, 104, { CD: 0, TT: 1, IN: 2 }, 'access that failed'),
  S2: flag(103, 'stage 2 failed'),
  RnW: flag(99, 'the transaction is a read'),
  InD: flag(98, 'the transaction is an instruction fetch'),
  PnU: flag(97, 'the transaction is privileged'),
}

/** A record of shape `fault`, and the fields that every record has. */
export const FAULT_RECORD = layout('SMMUv3 fault record', EVENT_SIZE, {
  IPA: page(247, 204, 'stage 2: its input address'),
  ...transaction,
  NSIPA: flag(100, 'Secure streams only'),
  Stall: flag(95, 'the transaction waits for CMD_RESUME'),
  STAG: bits(79, 64, 'names the stalled transaction'),
  ...head,
})

/** A record of shape `walk` or `fetch`; a fetch has no transaction. */
export const FETCH_RECORD = layout('SMMUv3 fetch record', EVENT_SIZE, {
  FetchAddr: page(247, 195, 'physical address of the fetch'),
  ...transaction,
  Reason: bits(79, 64, 'implementation defined: 0'),
  ...head,
})

/** A record of shape `request`: F_BAD_ATS_TREQ. */
export const ATS_REQUEST_RECORD = layout('SMMUv3 F_BAD_ATS_TREQ', EVENT_SIZE, {
  ...inputAddress,
  Span: bits(115, 108, 'translations asked for, in units of the smallest'),
  R: flag(100, 'read permission was asked for: always'),
  W: flag(99, 'write permission was asked for'),
  X: flag(98, 'execute permission was asked for'),
  PRIV: flag(97, 'privileged access was asked for'),
  ...head,
})

/** A page request in the PRI queue, 8.2. */
export const PRI_RECORD = layout('SMMUv3 page request', 16, {
  ADDR_HI: bits(127, 96, 'page address 63:32'),
  ADDR_LO: bits(95, 76, 'page address 31:12'),
  PRGIndex: bits(72, 64, 'page request group'),
  SSV: flag(63, 'SubstreamID is valid'),
  Last: flag(62, 'last of its group'),
  W: flag(61, 'write access is wanted'),
  R: flag(60, 'read access is wanted'),
  X: flag(59, 'execute access is wanted'),
  Priv: flag(58, 'privileged access is wanted'),
  SubstreamID: bits(51, 32, 'PASID'),
  StreamID: bits(31, 0, 'stream'),
})
/** Bytes of a page request. */
export const PRI_SIZE = 16
