/**
 * From where a walk stopped to the specification's fault reason (VT-d 7.1.3) and to the entries that
 * explain it. Runs on faults only.
 */
import { join } from '../../base/addr.js'
import { DURING, FAILURE, type Walk } from '../../paging/walk.js'
import type { Binding } from './entries.js'
import type { FaultName } from './fault-reasons.js'
import type { FaultEntry } from './faults.js'
import { bindingEntry } from './requests.js'
import { PGTT } from './tables.js'

/** The fault reason of a failed walk; `write` is the access that was asked for. */
export function walkFault(w: Walk, b: Binding, write: boolean): FaultName {
  if (b.legacy) return legacyFault(w, write)
  if (w.stage === 1) return firstStageFault(w)
  return b.pgtt === PGTT.NESTED && w.during !== DURING.page
    ? nestedEntryFault(w)
    : secondStageFault(w, b)
}

function legacyFault(w: Walk, write: boolean): FaultName {
  switch (w.failure) {
    case FAILURE.reserved:
      return 'pagingEntryReserved'
    case FAILURE.addressSize:
    case FAILURE.nonCanonical:
      return 'addressBeyondWidth'
    case FAILURE.unreadable:
      return w.depth <= 0 ? 'contextEntryInvalid' : 'pagingEntryUnreadable'
    default:
      return write ? 'writeNotPermitted' : 'readNotPermitted'
  }
}

function firstStageFault(w: Walk): FaultName {
  switch (w.failure) {
    case FAILURE.notPresent:
      return 'fsEntryNotPresent'
    case FAILURE.reserved:
      return 'fsEntryReserved'
    case FAILURE.nonCanonical:
      return 'notCanonical'
    case FAILURE.addressSize:
      return 'fsAddressBeyondWidth'
    case FAILURE.user:
      return 'userAccessToSupervisor'
    case FAILURE.write:
      return 'smWriteNotPermitted'
    case FAILURE.execute:
    case FAILURE.smep:
      return 'executeNotPermitted'
    case FAILURE.flagUpdate:
      return 'fsFlagUpdateFailed'
    case FAILURE.unreadable:
    case FAILURE.interruptRange:
      return w.depth <= 0 ? 'fsTopEntryUnreadable' : 'fsEntryUnreadable'
    default:
      return 'smReadNotPermitted'
  }
}

/** The second stage of a first-stage entry failed. */
function nestedEntryFault(w: Walk): FaultName {
  if (w.failure === FAILURE.addressSize) return 'fsAddressBeyondWidth'
  if (w.during === DURING.flags && w.failure === FAILURE.write) return 'fsEntryNotWritable'
  if (w.failure === FAILURE.read)
    return w.firstDepth <= 0 ? 'fsTopEntryNotReadable' : 'fsEntryNotReadable'
  return secondStageTableFault(w)
}

function secondStageFault(w: Walk, b: Binding): FaultName {
  switch (w.failure) {
    case FAILURE.read:
      return 'smReadNotPermitted'
    case FAILURE.write:
      return 'smWriteNotPermitted'
    case FAILURE.execute:
      return 'executeNotPermitted'
    case FAILURE.addressSize:
    case FAILURE.nonCanonical:
      return b.pgtt === PGTT.NESTED ? 'fsAddressBeyondWidth' : 'smAddressBeyondWidth'
    default:
      return secondStageTableFault(w)
  }
}

function secondStageTableFault(w: Walk): FaultName {
  switch (w.failure) {
    case FAILURE.reserved:
      return 'ssEntryReserved'
    case FAILURE.unreadable:
      return w.depth <= 0 ? 'ssTopEntryUnreadable' : 'ssEntryUnreadable'
    case FAILURE.flagUpdate:
      return 'ssFlagUpdateFailed'
    default:
      return 'ssEntryNotPresent'
  }
}

/** The entries a failed walk stopped at, the first stage's before the second's. */
export function walkEntries(w: Walk, b: Binding): FaultEntry[] {
  const entries = [...bindingEntry(b)]
  if (w.depth >= 0)
    entries.push({
      kind: w.stage === 1 ? 'first-stage' : 'second-stage',
      at: w.entryAt,
      value: join(w.entryHi, w.entryLo),
      level: w.level,
    })
  return entries
}
