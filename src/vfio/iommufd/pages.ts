// A user's memory behind mapped areas: pinned while a domain maps it, once for all domains and copies that share
// it, and counted for the user, the process or nobody. Unlike type1's, nothing is pinned before there is a domain,
// and device windows cannot be mapped. uapi linux/iommufd.h, IOMMU_IOAS_MAP and IOMMU_OPTION_RLIMIT_MODE.
import { hex, PAGE_SIZE } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { ProcessMemory } from '../../mem/process-memory.js'

/** Whose account pinned pages are on. */
export type AccountMode = 'user' | 'process'

/** Locked pages of a user: all processes of a machine have the same one. */
export class UserAccount {
  #locked = 0

  get lockedPages(): number {
    return this.#locked
  }

  /** False, and nothing counted, when that passes the caller's RLIMIT_MEMLOCK. */
  lock(pages: number, limit: number): boolean {
    if (this.#locked + pages > limit) return false
    this.#locked += pages
    return true
  }

  unlock(pages: number): void {
    if (pages > this.#locked) throw new Error(`${pages} pages unlocked of ${this.#locked}`)
    this.#locked -= pages
  }
}

/** Pinned pages: a range of a user's memory, as runs of frames. */
export interface PinnedWindow {
  /** First page, counted from the start of the pages it belongs to. */
  first: number
  pages: number
  /** Frame and length of each run. */
  runs: number[]
  /** Areas that need it. */
  holders: number
}

/** A range of one process's memory. */
export class UserPages {
  readonly memory: ProcessMemory
  /** First page of the process's addresses. */
  readonly vaddrPage: number
  readonly writable: boolean
  readonly #account: UserAccount | undefined
  readonly #counted: boolean
  readonly #windows: PinnedWindow[] = []

  /** `account`: the user's; undefined counts for the process. With CAP_IPC_LOCK nothing is counted. */
  constructor(
    memory: ProcessMemory,
    vaddrPage: number,
    writable: boolean,
    account: UserAccount | undefined,
  ) {
    this.memory = memory
    this.vaddrPage = vaddrPage
    this.writable = writable
    this.#account = account
    this.#counted = !memory.capIpcLock
  }

  /** Pins a range, or shares pins that cover it. EFAULT, ENOMEM (RLIMIT_MEMLOCK); then nothing is pinned. */
  hold(vaddrPage: number, pages: number): PinnedWindow {
    const first = vaddrPage - this.vaddrPage
    const known = this.#windows.find(w => w.first <= first && first + pages <= w.first + w.pages)
    if (known !== undefined) {
      known.holders++
      return known
    }
    const window: PinnedWindow = { first, pages: 0, runs: [], holders: 1 }
    try {
      while (window.pages < pages) this.#pin(window, pages - window.pages)
    } catch (error) {
      this.#unpin(window)
      throw error
    }
    this.#windows.push(window)
    return window
  }

  /** One area needs it no more. */
  drop(window: PinnedWindow): void {
    if (--window.holders > 0) return
    this.#windows.splice(this.#windows.indexOf(window), 1)
    this.#unpin(window)
  }

  /** An area was cut before page `at` of the process: answers the window of its second part. */
  cut(window: PinnedWindow, vaddrPage: number): PinnedWindow {
    const at = vaddrPage - this.vaddrPage - window.first
    if (window.holders > 1 || at <= 0) {
      window.holders++
      return window
    }
    const second: PinnedWindow = {
      first: window.first + at,
      pages: window.pages - at,
      runs: [],
      holders: 1,
    }
    const firstRuns: number[] = []
    let page = 0
    for (let i = 0; i < window.runs.length; i += 2) {
      const frame = window.runs[i]!
      const n = window.runs[i + 1]!
      const before = Math.min(Math.max(at - page, 0), n)
      if (before > 0) firstRuns.push(frame, before)
      if (before < n) second.runs.push(frame + before, n - before)
      page += n
    }
    window.runs = firstRuns
    window.pages = at
    this.#windows.push(second)
    return second
  }

  /** Calls `visit` for each run of frames of a range that a window covers. */
  frames(
    window: PinnedWindow,
    vaddrPage: number,
    pages: number,
    visit: (index: number, frame: number, pages: number) => void,
  ): void {
    const from = vaddrPage - this.vaddrPage - window.first
    let page = 0
    for (let i = 0; i < window.runs.length; i += 2) {
      const n = window.runs[i + 1]!
      const begin = Math.max(from, page)
      const end = Math.min(from + pages, page + n)
      if (begin < end) visit(begin - from, window.runs[i]! + begin - page, end - begin)
      page += n
    }
  }

  #pin(window: PinnedWindow, pages: number): void {
    const { memory } = this
    const vaddr = this.vaddrPage + window.first + window.pages
    if (memory.frames.failures.armed) memory.frames.failures.step('pages of a process')
    const run = memory.pinRun(vaddr, pages, this.writable)
    if (run.pages === 0 || run.reserved)
      throw new ErrnoError(
        'EFAULT',
        `user memory at ${hex(vaddr * PAGE_SIZE)} cannot be pinned for ${this.writable ? 'writing' : 'reading'}`,
      )
    const { hpaPage, pages: n } = run
    if (!this.#lock(n)) {
      memory.unpin(hpaPage, n)
      throw new ErrnoError('ENOMEM', `${n} more pinned pages pass RLIMIT_MEMLOCK`)
    }
    window.runs.push(hpaPage, n)
    window.pages += n
  }

  #unpin(window: PinnedWindow): void {
    for (let i = 0; i < window.runs.length; i += 2)
      this.memory.unpin(window.runs[i]!, window.runs[i + 1]!)
    if (!this.#counted || window.pages === 0) return
    if (this.#account) this.#account.unlock(window.pages)
    else this.memory.unlock(window.pages)
  }

  #lock(pages: number): boolean {
    if (!this.#counted) return true
    if (this.#account) return this.#account.lock(pages, this.memory.memlockLimitPages)
    return this.memory.lock(pages, false)
  }
}
