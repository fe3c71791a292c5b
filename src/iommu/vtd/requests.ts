/**
 * What all kinds of requests share: finding the binding that governs one, its privilege and what it may
 * ask for, the interrupt address range, and reporting why it was refused.
 */
import { join } from '../../base/addr.js'
import { AT, type MemoryRequest, NO_PASID, type Translation } from '../../pci/request.js'
import type { VtdConfig } from './config.js'
import type { Binding, Context, Entries } from './entries.js'
import type { FaultName } from './fault-reasons.js'
import type { FaultAccess, FaultEntry, FaultLog } from './faults.js'
import { TTM } from './registers.js'
import { TT } from './tables.js'

const HI = 0x1_0000_0000
/** First megabyte of the interrupt address range, FEEx_xxxxh. */
const INTERRUPT_MEGABYTE = 0xfee
/** log2 of what an answer without tables is told to hold for: the interrupt range is one such piece. */
export const IDENTITY_BITS = 20

/** Which kind of request asks for the binding. */
export type Purpose = 'untranslated' | 'translation' | 'page-request'

/** Finds what governs a request. After a lookup that found nothing, `failure`, `why` and `suppress` tell. */
export class Requests {
  readonly entries: Entries
  readonly #pasidLimit: number
  readonly #faults: FaultLog
  readonly #limit: number
  #ridPrivileged = false

  constructor(entries: Entries, config: VtdConfig, faults: FaultLog) {
    this.entries = entries
    this.#pasidLimit = 2 ** config.pasidBits
    this.#faults = faults
    this.#limit = 2 ** config.hostAddressWidth
  }

  /** The binding of a request. */
  locate(requester: number, pasid: number, purpose: Purpose): Binding | undefined {
    const { entries } = this
    this.#ridPrivileged = false
    if (entries.mode === TTM.LEGACY) {
      if (purpose === 'page-request') return entries.refuse('legacyModePageRequest')
      if (pasid !== NO_PASID) return entries.refuse('legacyModeWithPasid')
    }
    const c = entries.context(requester)
    if (!c) return undefined
    if (c.binding) {
      if (purpose === 'translation' && c.tt !== TT.DEVICE_TLB)
        return entries.refuse('translationTypeBlocked', c.suppress)
      return c.binding
    }
    this.#ridPrivileged = c.ridPrivileged
    if (purpose === 'translation' && !c.deviceTlb)
      return entries.refuse('deviceTlbDisabled', c.suppress)
    if (purpose === 'page-request' && !c.pageRequests)
      return entries.refuse('pageRequestDisabled', c.suppress)
    if (pasid === NO_PASID) return entries.binding(requester, c, c.ridPasid)
    const refused = this.#pasidRefused(c, pasid)
    return refused ? entries.refuse(refused, c.suppress) : entries.binding(requester, c, pasid)
  }

  /** The privilege of the request whose binding was located last: its prefix's, or the context entry's. */
  privileged(r: MemoryRequest): boolean {
    return r.pasid !== NO_PASID ? r.privileged : this.#ridPrivileged
  }

  /** Why a binding does not take a request with these bits. */
  forbids(b: Binding, privileged: boolean, execute: boolean): FaultName | undefined {
    if (b.legacy) return undefined
    if (privileged && !b.supervisorAllowed) return 'supervisorDisabled'
    return execute && !b.executeAllowed ? 'executeRequestDisabled' : undefined
  }

  /** Why a host address may not be used as it is. */
  refusesHostAddress(legacy: boolean, hi: number, lo: number): FaultName | undefined {
    if (addressOf(hi, lo) >= this.#limit)
      return legacy ? 'addressBeyondWidth' : 'hostAddressBeyondWidth'
    return isInterruptRange(hi, lo) ? interruptOutputFault(legacy) : undefined
  }

  /** The entry that the last failed lookup stopped at. */
  why(): readonly FaultEntry[] {
    return this.entries.entry ? [this.entries.entry] : []
  }

  /** Reports the fault of a request. */
  report(
    r: MemoryRequest,
    name: FaultName,
    entries: readonly FaultEntry[],
    suppress: boolean,
  ): void {
    this.#faults.report(
      {
        name,
        requester: r.requester,
        pasid: r.pasid,
        address: join(r.hi, r.lo),
        access: accessOf(r),
        privileged: this.privileged(r),
        at: r.at,
        entries,
      },
      suppress,
    )
  }

  #pasidRefused(c: Context, pasid: number): FaultName | undefined {
    if (pasid >= this.#pasidLimit) return 'pasidBeyondSize'
    if (!c.pasids) return 'pasidDisabled'
    if (pasid >= c.limit) return 'pasidBeyondDirectory'
    return pasid === c.ridPasid ? 'pasidIsRidPasid' : undefined
  }
}

/** The entry a binding was read from, for faults. */
export const bindingEntry = (b: Binding): readonly FaultEntry[] => [
  {
    kind: b.legacy ? 'context' : 'pasid-table',
    at: b.entryAt,
    value: join(b.entryHi, b.entryLo),
    level: 0,
  },
]

/** Answers that nothing is allowed. */
export function deny(into: Translation, status: Translation['status']): void {
  into.status = status
  into.output = 0
  into.pageBits = 12
  into.read = into.write = into.execute = into.privileged = false
  into.global = into.untranslatedOnly = false
}

/** What a request wanted, in a fault's words. A translation request wants to write unless it says otherwise. */
export function accessOf(r: MemoryRequest): FaultAccess {
  if (r.at === AT.TRANSLATION_REQUEST) return r.noWrite ? 'read' : 'write'
  if (r.write) return 'write'
  return r.execute ? 'execute' : 'read'
}

/** An address of 52 bits at most; wider ones lose low bits and are refused by their callers. */
export const addressOf = (hi: number, lo: number): number => (hi >>> 0) * HI + (lo >>> 0)

export const isInterruptRange = (hi: number, lo: number): boolean =>
  hi === 0 && lo >>> 20 === INTERRUPT_MEGABYTE

export const isInterruptOutput = (output: number): boolean =>
  output >= 0xfee0_0000 && output < 0xfef0_0000

/** True when the page around `output` overlaps the interrupt address range. */
export function coversInterruptRange(output: number, pageBits: number): boolean {
  if (pageBits === 12) return isInterruptOutput(output)
  const size = 2 ** pageBits
  const base = output - (output % size)
  return base < 0xfef0_0000 && base + size > 0xfee0_0000
}

/** The fault of a translation that leads into the interrupt address range. */
export const interruptOutputFault = (legacy: boolean): FaultName =>
  legacy ? 'outputIsInterruptRange' : 'smOutputIsInterruptRange'
