/**
 * Who hears of PASID events, and in which order: one global chain, one chain for each set, and
 * subscribers that name an address space before its set exists. Handlers run at once and must not cause
 * another event; work that takes time is queued on the clock. Next: ioasid.ts raises the events.
 */
import { ErrnoError } from '../base/errno.js'
import type { IoasidSet } from './ioasid-set.js'

/** Events, numbered as the IOASID series does. */
export const IOASID_EVENT = { ALLOC: 1, FREE: 2, BIND: 3, UNBIND: 4 } as const
/** One of the events. */
export type IoasidEvent = (typeof IOASID_EVENT)[keyof typeof IOASID_EVENT]

/** What a subscriber is; it decides who hears first. */
export type IoasidPriority = 'cpu' | 'iommu' | 'device' | 'last'

/**
 * Order of handlers, higher first, in the two readings of the series. All agree that the CPU comes
 * first: no new request may start with a PASID that is going away.
 */
export const NOTIFY_ORDER = {
  /** The code of A2 to A4 and the A4 document; the default. */
  code: { cpu: 3, iommu: 2, device: 1, last: 0 },
  /** The A3 document. */
  document: { cpu: 3, device: 2, iommu: 1, last: 0 },
} as const satisfies Record<string, Record<IoasidPriority, number>>

/** A subscriber. `spid` is INVALID_IOASID when the id has no set-private id; `data` is the id's private data. */
export interface IoasidNotifier {
  readonly priority: IoasidPriority
  notify(event: IoasidEvent, id: number, spid: number, set: IoasidSet, data: unknown): void
}

/** Subscribers by priority; those of equal priority in order of registration. */
export class NotifierChain {
  readonly blocks: IoasidNotifier[] = []

  add(block: IoasidNotifier, order: Record<IoasidPriority, number>): void {
    const rank = order[block.priority]
    let at = this.blocks.length
    while (at > 0 && order[this.blocks[at - 1]!.priority] < rank) at--
    this.blocks.splice(at, 0, block)
  }

  remove(block: IoasidNotifier): boolean {
    const at = this.blocks.indexOf(block)
    if (at < 0) return false
    this.blocks.splice(at, 1)
    return true
  }
}

/**
 * Subscriptions by address space. One waits while its set does not exist, joins the set's chain when it
 * is created, and waits again when it dies.
 */
export class MmSubscriptions {
  readonly #byMm = new Map<object, Set<IoasidNotifier>>()
  readonly #order: Record<IoasidPriority, number>

  constructor(order: Record<IoasidPriority, number>) {
    this.#order = order
  }

  /** EBUSY when this pair is registered already, or when the set holds ids: past events are not replayed. */
  add(mm: object, block: IoasidNotifier, set: IoasidSet | undefined): void {
    const blocks = this.#byMm.get(mm)
    if (blocks?.has(block))
      throw new ErrnoError('EBUSY', 'ioasid: this subscriber is registered for the address space')
    if (set !== undefined) {
      if (set.count > 0) throw new ErrnoError('EBUSY', 'ioasid: the set has ids already')
      set.chain.add(block, this.#order)
    }
    if (blocks) blocks.add(block)
    else this.#byMm.set(mm, new Set([block]))
  }

  /** Ends a subscription, waiting or not; harmless when there is none. */
  remove(mm: object, block: IoasidNotifier, set: IoasidSet | undefined): void {
    const blocks = this.#byMm.get(mm)
    if (!blocks?.delete(block)) return
    if (blocks.size === 0) this.#byMm.delete(mm)
    set?.chain.remove(block)
  }

  /** The set of `mm` exists now: who waited for it hears from here on. */
  activate(mm: object, set: IoasidSet): void {
    for (const block of this.#byMm.get(mm) ?? []) set.chain.add(block, this.#order)
  }
}
