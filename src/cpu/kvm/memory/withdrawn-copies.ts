// The owner's memory behind private guest pages: shared copies that nobody should use now. Devices lose them before a
// page becomes private (mappings are taken down, pins refused, the frames marked) and may have them when it is shared again.

import type { ConfidentialPages } from '../../../mem/confidential.js'
import type { ProcessMemory } from '../../../mem/process-memory.js'
import type { Withdrawer } from '../../../mem/withdrawals.js'
import type { MemoryAttributes } from './attributes.js'
import type { Slot } from './slot.js'

/** What the copies are of. */
export interface CopyParts {
  /** Names the VM in the history of pages. */
  readonly name: string
  readonly user: ProcessMemory
  readonly states: ConfidentialPages
  readonly attributes: MemoryAttributes
  readonly slots: () => Iterable<Slot>
  /** Who sees to it that devices have them no more. */
  readonly devices: 'withdrawn' | 'owner'
}

/** The withdrawn copies of one VM. */
export class WithdrawnCopies implements Withdrawer {
  readonly #parts: CopyParts
  /** Frames that are marked, by the owner's page. */
  readonly #marked = new Map<number, number>()
  readonly #stop: () => void

  constructor(parts: CopyParts) {
    this.#parts = parts
    this.#stop = this.#tells ? parts.user.withdrawals.add(this) : () => {}
  }

  get #tells(): boolean {
    return this.#parts.devices === 'withdrawn'
  }

  firstWithdrawn(first: number, pages: number): number {
    let found = -1
    for (const slot of this.#parts.slots()) {
      const low = Math.max(first, slot.userPage(slot.first))
      const high = Math.min(first + pages - 1, slot.userPage(slot.last))
      if (low > high) continue
      const shift = slot.userPage(slot.first) - slot.first
      for (const range of this.#parts.attributes.privateRanges(low - shift, high - shift)) {
        const page = range.first + shift
        if (found < 0 || page < found) found = page
        break
      }
    }
    return found
  }

  /** A slot is new: where its pages are private already, what is behind them is nobody's. */
  slotAdded(slot: Slot): void {
    for (const { first, last } of this.#parts.attributes.privateRanges(slot.first, slot.last))
      this.#withdraw(slot, first, last, 'a slot over it was created')
  }

  /** A slot went, and is not among the slots any more. */
  slotRemoved(slot: Slot): void {
    const ranges = [...this.#parts.attributes.privateRanges(slot.first, slot.last)]
    for (const { first, last } of ranges)
      this.#restore(slot, first, last, 'the slot over it was deleted')
  }

  /** Guest pages [first, last] are about to become private. */
  becomingPrivate(first: number, last: number): void {
    for (const [slot, from, to] of this.#within(first, last))
      this.#withdraw(slot, from, to, 'KVM_SET_MEMORY_ATTRIBUTES made its page private')
  }

  /** Guest pages [first, last] have become shared. */
  becameShared(first: number, last: number): void {
    for (const [slot, from, to] of this.#within(first, last))
      this.#restore(slot, from, to, 'KVM_SET_MEMORY_ATTRIBUTES made its page shared')
  }

  /** The owner's pages stop being what they were: their frames may become somebody else's. */
  userChanging(first: number, pages: number): void {
    this.#unmark(first, pages, 'its owner unmapped or protected it', true)
  }

  /** They are what they will be. */
  userChanged(first: number, pages: number): void {
    for (const slot of this.#parts.slots()) {
      const low = Math.max(first, slot.userPage(slot.first))
      const high = Math.min(first + pages - 1, slot.userPage(slot.last))
      const shift = slot.userPage(slot.first) - slot.first
      if (low > high) continue
      for (const r of this.#parts.attributes.privateRanges(low - shift, high - shift))
        this.#mark(r.first + shift, r.last + shift, 'its guest page is private')
    }
  }

  /** The VM is gone; so are its slots. */
  release(): void {
    this.#stop()
    this.#unmark(0, Infinity, 'the VM is gone', true)
  }

  *#within(first: number, last: number): Generator<[slot: Slot, first: number, last: number]> {
    for (const slot of this.#parts.slots()) {
      const [from, to] = [Math.max(first, slot.first), Math.min(last, slot.last)]
      if (from <= to) yield [slot, from, to]
    }
  }

  // Mappings for devices go first; they are told before the frames change.
  #withdraw(slot: Slot, first: number, last: number, why: string): void {
    const page = slot.userPage(first)
    if (this.#tells) this.#parts.user.withdrawals.tell(page, last - first + 1, true)
    this.#mark(page, page + last - first, why)
  }

  #restore(slot: Slot, first: number, last: number, why: string): void {
    const page = slot.userPage(first)
    const pages = last - first + 1
    this.#unmark(page, pages, why, false)
    if (this.#tells) this.#parts.user.withdrawals.tell(page, pages, false)
  }

  #mark(first: number, last: number, why: string): void {
    const { user, states, name } = this.#parts
    for (const extent of user.extents(first, last)) {
      if (extent.frame < 0) continue
      const from = Math.max(first, extent.first)
      const frame = extent.frame + from - extent.first
      const pages = Math.min(last, extent.last) - from + 1
      for (let i = 0; i < pages; i++) this.#marked.set(from + i, frame + i)
      states.mark(frame, pages, { kind: 'withdrawn' }, `${name}: ${why}`)
    }
  }

  // Pages that another slot still withdraws stay marked, unless `all`.
  #unmark(first: number, pages: number, why: string, all: boolean): void {
    const { states, name } = this.#parts
    for (const page of this.#markedIn(first, pages)) {
      if (!all && this.firstWithdrawn(page, 1) === page) continue
      states.mark(this.#marked.get(page)!, 1, undefined, `${name}: ${why}`)
      this.#marked.delete(page)
    }
  }

  // By the shorter of the two: the range, or all that is marked.
  #markedIn(first: number, pages: number): number[] {
    if (pages > this.#marked.size)
      return [...this.#marked.keys()].filter(page => page >= first && page < first + pages)
    return Array.from({ length: pages }, (_, i) => first + i).filter(p => this.#marked.has(p))
  }
}
