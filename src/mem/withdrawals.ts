/**
 * Pages of a process that devices may not have for now: the shared copies of guest pages that the guest has made
 * private. Nobody can pin them, and whoever maps them for devices hears of it before and unmaps them.
 * Next: process-memory.ts (pins), vfio/withdrawn.ts (mappings for devices).
 */

/** Hears that pages are no longer for devices, before that is so, or that they are again. */
export type WithdrawalListener = (firstPage: number, pages: number, withdrawn: boolean) => void

/** The withdrawn pages of one process, by virtual page number. */
export class Withdrawals {
  readonly #listeners = new Set<WithdrawalListener>()
  readonly #counts = new Map<number, number>()

  /** Withdrawn pages. */
  get size(): number {
    return this.#counts.size
  }

  /** Whether a page is withdrawn. */
  has(page: number): boolean {
    return this.#counts.size > 0 && this.#counts.has(page)
  }

  /** How many of `pages` from `first` on come before one that is withdrawn. */
  run(first: number, pages: number): number {
    if (this.#counts.size === 0) return pages
    for (let i = 0; i < pages; i++) if (this.#counts.has(first + i)) return i
    return pages
  }

  /** Takes pages away from devices; listeners act first. Counted: as many `restore`s give a page back. */
  withdraw(first: number, pages: number): void {
    for (const listener of [...this.#listeners]) listener(first, pages, true)
    for (let page = first; page < first + pages; page++)
      this.#counts.set(page, (this.#counts.get(page) ?? 0) + 1)
  }

  /** Gives pages back, then tells. A page that was not withdrawn is an Error. */
  restore(first: number, pages: number): void {
    for (let page = first; page < first + pages; page++) {
      const count = this.#counts.get(page)
      if (count === undefined) throw new Error(`page ${page} was not withdrawn`)
      if (count > 1) this.#counts.set(page, count - 1)
      else this.#counts.delete(page)
    }
    for (const listener of [...this.#listeners]) listener(first, pages, false)
  }

  /** Calls `listener` before pages are withdrawn and after they are restored. Returns what ends it. */
  listen(listener: WithdrawalListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
