// From PC to code: tag, alignment, translation, and the page of the last fetch remembered while nothing has changed.

import type { Block, CodeCache } from './code-cache.js'
import type { Mmu } from './mmu.js'
import { ACCESS } from './ports.js'
import { type A64State, EC, SLOT } from './registers.js'

/** Fetches for one processing element. */
export class Fetcher {
  readonly #state: A64State
  readonly #mmu: Mmu
  readonly #code: CodeCache
  /** Page of the last fetch, for an exception level and while `epoch` is the TLB's: virtual halves, physical address. */
  #lo = 0
  #hi = 0
  #el = 0
  #epoch = -1
  #page = 0

  constructor(state: A64State, mmu: Mmu, code: CodeCache) {
    this.#state = state
    this.#mmu = mmu
    this.#code = code
  }

  /** The block at PC, or undefined with the exception on the state. */
  next(): Block | undefined {
    const { r32, el } = this.#state
    const lo = r32[2 * SLOT.PC]!
    const hi = r32[2 * SLOT.PC + 1]!
    const offset = lo - this.#lo
    if (
      offset >= 0 &&
      offset < 4096 &&
      (lo & 3) === 0 &&
      hi === this.#hi &&
      el === this.#el &&
      this.#mmu.tlb.epoch === this.#epoch
    )
      return this.#code.find(this.#page + offset)
    return this.#translate(hi, lo)
  }

  #translate(taggedHi: number, lo: number): Block | undefined {
    const state = this.#state
    // An address tag does not become part of PC.
    const hi = this.#mmu.regime.untagged(taggedHi)
    state.r32[2 * SLOT.PC + 1] = hi
    if ((lo & 3) !== 0) {
      state.far = state.pc
      state.raise(EC.PC_ALIGNMENT)
      return undefined
    }
    const address = this.#mmu.translate(hi, lo, ACCESS.FETCH)
    if (address < 0) return undefined
    const offset = lo & 4095
    this.#lo = lo - offset
    this.#hi = hi
    this.#el = state.el
    this.#epoch = this.#mmu.tlb.epoch
    this.#page = address - offset
    return this.#code.find(address)
  }
}
