// The Inner Shareable domain of a VM: the processing elements that hear each other's broadcast TLB invalidations and
// whose stores clear each other's exclusive monitors (DDI 0487, B2.9, D8.16).

import type { A64State } from './registers.js'
import type { Tlb } from './tlb.js'

/** Bytes that one exclusive monitor covers: the exclusives reservation granule, CTR_EL0.ERG. */
export const GRANULE = 64

/** What a processing element shows the others. */
export interface DomainMember {
  readonly state: A64State
  readonly tlb: Tlb
}

/** The processing elements of one VM. */
export class ShareabilityDomain {
  readonly #members: DomainMember[] = []

  join(member: DomainMember): void {
    this.#members.push(member)
  }

  leave(member: DomainMember): void {
    const i = this.#members.indexOf(member)
    if (i >= 0) this.#members.splice(i, 1)
  }

  /** Makes an invalidation on every member. */
  broadcast(invalidate: (tlb: Tlb) => void): void {
    for (const { tlb } of this.#members) invalidate(tlb)
  }

  /** `size` bytes at a physical address were written: monitors on them are cleared. */
  wrote(address: number, size: number): void {
    const members = this.#members
    for (let i = 0; i < members.length; i++) {
      const { state } = members[i]!
      if (!state.exclusive) continue
      const granule = Math.floor(state.exclusiveAddress / GRANULE) * GRANULE
      if (address < granule + GRANULE && address + size > granule) state.clearExclusive()
    }
  }
}
