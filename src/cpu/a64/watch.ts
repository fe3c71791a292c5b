// Memory that is looked at: the MMU with watchpoints in front of it, and with strict synchronisation's question whether
// an access went by a register whose write still waits. The core puts it in the MMU's place while there is a reason.

import { highHalf, join } from '../../base/addr.js'
import type { Debug } from './debug.js'
import { LSC } from './debug-match.js'
import { DATA_ABORT, type Mmu } from './mmu.js'
import { ACCESS, type MemoryPort } from './ports.js'
import { FSC } from './regime.js'
import { type A64State, ABORT, EC } from './registers.js'
import type { ContextSync } from './sync.js'

/** What stands in front of the MMU. */
export interface WatchParts {
  readonly state: A64State
  readonly mmu: Mmu
  readonly debug: Debug
  readonly sync: ContextSync
}

/** The MMU's memory, watched. A watchpoint is less urgent than any fault of the same access (DDI 0487, D1.3.5.5). */
export class WatchedMemory implements MemoryPort {
  readonly #state: A64State
  readonly #mmu: Mmu
  readonly #debug: Debug
  readonly #sync: ContextSync

  constructor({ state, mmu, debug, sync }: WatchParts) {
    this.#state = state
    this.#mmu = mmu
    this.#debug = debug
    this.#sync = sync
  }

  get storedPage(): number {
    return this.#mmu.storedPage
  }

  set storedPage(page: number) {
    this.#mmu.storedPage = page
  }

  get storedFirstPage(): number {
    return this.#mmu.storedFirstPage
  }

  set storedFirstPage(page: number) {
    this.#mmu.storedFirstPage = page
  }

  load(hi: number, lo: number, size: number, access: number): number {
    return this.#passes(hi, lo, size, access) ? this.#mmu.load(hi, lo, size, access) : 0
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (this.#passes(hi, lo, 8, access)) this.#mmu.load64(hi, lo, access, into, at)
  }

  load128(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (this.#passes(hi, lo, 16, access)) this.#mmu.load128(hi, lo, access, into, at)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    if (this.#passes(hi, lo, size, access)) this.#mmu.store(hi, lo, size, value, access)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    if (this.#passes(hi, lo, 8, access)) this.#mmu.store64(hi, lo, valueHi, valueLo, access)
  }

  store128(hi: number, lo: number, access: number, from: Int32Array, at: number): void {
    if (this.#passes(hi, lo, 16, access)) this.#mmu.store128(hi, lo, access, from, at)
  }

  translate(hi: number, lo: number, access: number, size = 1): number {
    if ((access & ACCESS.FETCH) === 0 && !this.#passes(hi, lo, size, access)) return -1
    return this.#mmu.translate(hi, lo, access, size)
  }

  #passes(hi: number, lo: number, size: number, access: number): boolean {
    const s = this.#state
    if (this.#mmu.translate(hi, lo, access, size) < 0) return false
    const last = lo + size - 1
    if (lo >>> 12 !== last >>> 12) {
      const end = last & -4096
      const carry = last >>> 0 < lo >>> 0 ? 1 : 0
      if (this.#mmu.translate((hi + carry) | 0, end, access) < 0) return false
    }
    const el = (access & ACCESS.UNPRIVILEGED) !== 0 ? 0 : s.el
    const what =
      ((access & ACCESS.READ) !== 0 ? LSC.LOAD : 0) |
      ((access & ACCESS.WRITE) !== 0 ? LSC.STORE : 0)
    const address = join(this.#mmu.regime.untagged(hi), lo)
    if (this.#sync.waiting) this.#used(address, size, el, what)
    if (!this.#debug.watching) return true
    const hit = this.#debug.watchpoint(address, size, el, what)
    if (hit < 0n) return true
    // Of an access that does both, a read that matches is what is reported.
    const read = what & LSC.LOAD && this.#debug.watchpoint(address, size, el, LSC.LOAD) >= 0n
    s.far = hit
    s.raise(
      s.el === 0 ? EC.WATCHPOINT_LOWER : EC.WATCHPOINT,
      FSC.DEBUG | (read ? 0 : DATA_ABORT.WNR),
    )
    return s.abort === ABORT.NONE
  }

  #used(address: bigint, size: number, el: number, what: number): void {
    const { pc } = this.#state
    if (this.#sync.waits('translation'))
      for (const register of this.#mmu.usedFor(highHalf(address))) this.#sync.used(register, pc)
    if (this.#sync.waits('debug') && this.#debug.watchpointDiffers(address, size, el, what))
      this.#sync.usedAll('debug', pc)
  }
}
