/**
 * From where a walk stopped to the event that reports it (IHI 0070 7.3.12 to 7.3.16) and to the descriptors
 * that explain it. Runs on faults only.
 */
import { join } from '../../base/addr.js'
import { DURING, FAILURE, type Walk } from '../../paging/walk.js'
import { CLASS, type EventName } from './events.js'
import type { FaultEntry, FaultReport } from './faults.js'

/** What a failed walk adds to a report. */
export type WalkFault = Pick<
  FaultReport,
  'name' | 'stage' | 'class' | 'ipa' | 'fetchAddress' | 'entries'
>

/**
 * The fault of a failed walk. `page` is the CLASS of a stage 2 walk that was not made for a stage 1
 * descriptor, `input` the address it was given where that was not stage 1's output.
 */
export function walkFault(w: Walk, page: number, input?: number): WalkFault {
  const name = eventOf(w)
  const second = w.stage === 2
  const descriptor = second && w.during !== DURING.page
  return {
    name,
    stage: w.stage,
    class: second ? (descriptor ? CLASS.TT : page) : name === 'F_WALK_EABT' ? CLASS.TT : CLASS.IN,
    ipa: second ? (input ?? w.intermediate) : 0,
    fetchAddress: name === 'F_WALK_EABT' ? w.entryAt : 0,
    entries: walkEntries(w),
  }
}

function eventOf(w: Walk): EventName {
  switch (w.failure) {
    case FAILURE.addressSize:
      // Of the output in a descriptor; an input that is too wide has met none.
      return w.depth < 0 ? 'F_TRANSLATION' : 'F_ADDR_SIZE'
    case FAILURE.accessFlag:
      return 'F_ACCESS'
    case FAILURE.unreadable:
    case FAILURE.flagUpdate:
      return 'F_WALK_EABT'
    case FAILURE.notPresent:
      return 'F_TRANSLATION'
    default:
      return 'F_PERMISSION'
  }
}

/** The descriptor a failed walk stopped at. */
export function walkEntries(w: Walk): FaultEntry[] {
  if (w.depth < 0) return []
  return [
    {
      kind: w.stage === 1 ? 'stage-1' : 'stage-2',
      at: w.entryAt,
      value: join(w.entryHi, w.entryLo),
      level: w.level,
    },
  ]
}
