/**
 * Pages of a process that devices may not have for now: the shared copies of guest pages that the guest has made
 * private. Nobody can pin them, and whoever maps them for devices hears of it before and unmaps them.
 * Next: process-memory.ts (pins), vfio/withdrawn.ts (mappings for devices).
 */

/** Hears that pages are no longer for devices, before that is so, or that they may be again. */
export type WithdrawalListener = (firstPage: number, pages: number, withdrawn: boolean) => void

/** Somebody who withdraws pages; asked each time, so it keeps the truth. */
export interface Withdrawer {
  /** The first withdrawn page of [first, first + pages), or -1. */
  firstWithdrawn(first: number, pages: number): number
}

/** The withdrawn pages of one process, by virtual page number. */
export class Withdrawals {
  readonly #withdrawers = new Set<Withdrawer>()
  readonly #listeners = new Set<WithdrawalListener>()

  /** Whether anybody might withdraw pages. */
  get any(): boolean {
    return this.#withdrawers.size > 0
  }

  /** Whether a page is withdrawn. */
  has(page: number): boolean {
    return this.run(page, 1) === 0
  }

  /** How many of `pages` from `first` on come before one that is withdrawn. */
  run(first: number, pages: number): number {
    let most = pages
    if (this.#withdrawers.size === 0) return most
    for (const withdrawer of this.#withdrawers) {
      const page = withdrawer.firstWithdrawn(first, most)
      if (page >= 0) most = page - first
    }
    return most
  }

  /** Lets somebody withdraw pages. Returns what ends it. */
  add(withdrawer: Withdrawer): () => void {
    this.#withdrawers.add(withdrawer)
    return () => this.#withdrawers.delete(withdrawer)
  }

  /** Tells that pages are about to be withdrawn, or that one who did no longer does. */
  tell(first: number, pages: number, withdrawn: boolean): void {
    for (const listener of [...this.#listeners]) listener(first, pages, withdrawn)
  }

  /** Calls `listener` before pages are withdrawn and after they are given back. Returns what ends it. */
  listen(listener: WithdrawalListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
