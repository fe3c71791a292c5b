// What the firmware keeps of one guest, and the same as plain data (rule F-6).

import type { GuestState } from './codes.js'
import { GUEST_STATE } from './codes.js'
import type { TransportKeys } from './keys.js'
import type { SevEdition } from './policy.js'

/** A guest as the firmware knows it. */
export interface GuestContext {
  readonly handle: number
  readonly edition: SevEdition
  readonly policy: number
  state: GuestState
  /** The ASID that carries its key, once activated. */
  asid: number | undefined
  /** Memory encryption key and tweak key. */
  readonly key: Uint8Array
  transport: TransportKeys
  /** What was encrypted so far, in order; digested when the launch is measured. */
  launched: Uint8Array[]
  /** After LAUNCH_MEASURE. */
  measure: Uint8Array | undefined
  mnonce: Uint8Array | undefined
}

/** A guest context as plain data; byte strings are hexadecimal. */
export interface SavedGuest {
  readonly handle: number
  readonly edition: SevEdition
  readonly policy: number
  readonly state: number
  readonly asid: number | null
  readonly key: string
  readonly tek: string
  readonly tik: string
  readonly launched: string
  readonly measure: string | null
  readonly mnonce: string | null
}

/** Bytes as hexadecimal. */
export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('')

/** Hexadecimal as bytes. RangeError for anything else. */
export function fromHex(text: string): Uint8Array {
  if (!/^([0-9a-f]{2})*$/i.test(text)) throw new RangeError('not a hexadecimal byte string')
  return Uint8Array.from({ length: text.length / 2 }, (_, i) =>
    Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
  )
}

/** A context as plain data. */
export const saveGuest = (g: GuestContext): SavedGuest => ({
  handle: g.handle,
  edition: g.edition,
  policy: g.policy,
  state: g.state,
  asid: g.asid ?? null,
  key: toHex(g.key),
  tek: toHex(g.transport.tek),
  tik: toHex(g.transport.tik),
  launched: g.launched.map(toHex).join(''),
  measure: g.measure === undefined ? null : toHex(g.measure),
  mnonce: g.mnonce === undefined ? null : toHex(g.mnonce),
})

/** A context from plain data. RangeError when it is none. */
export function restoreGuest(s: SavedGuest): GuestContext {
  const state = Object.values(GUEST_STATE).find(v => v === s.state)
  if (state === undefined) throw new RangeError(`guest ${s.handle}: state ${s.state}`)
  const key = fromHex(s.key)
  if (key.length !== 32) throw new RangeError(`guest ${s.handle}: a key of ${key.length} bytes`)
  return {
    handle: s.handle,
    edition: s.edition,
    policy: s.policy,
    state,
    asid: s.asid ?? undefined,
    key,
    transport: { tek: fromHex(s.tek), tik: fromHex(s.tik) },
    launched: s.launched === '' ? [] : [fromHex(s.launched)],
    measure: s.measure === null ? undefined : fromHex(s.measure),
    mnonce: s.mnonce === null ? undefined : fromHex(s.mnonce),
  }
}
