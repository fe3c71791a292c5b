// Which of a guest's PASID entries are bound on the host, and what must change after the guest said that
// entries changed. Reads the guest's own tables in guest memory, as the hardware would (VT-d 9.2-9.6).

import {
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PASIDS_PER_TABLE,
  PGTT,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../iommu/vtd/tables.js'
import type { AddressSpace } from '../mem/address-space.js'

/** A guest PASID entry that can be bound: a present first-stage-only one. */
export interface GuestBinding {
  readonly root: number
  readonly did: number
  readonly supervisor: boolean
  /** Guest virtual address bits: 48 or 57. */
  readonly addressWidth: number
}

/** Reads one function's PASID table in guest memory. */
export class GuestPasidTable {
  readonly #memory: AddressSpace
  readonly #bdf: number
  readonly #addresses: number
  /** Scalable-mode root table, 0 while the guest has none. */
  root = 0

  /** What a guest's root has above `addressBits` (its C-bit, if its memory is encrypted) is no address. */
  constructor(memory: AddressSpace, bdf: number, addressBits = 52) {
    this.#memory = memory
    this.#bdf = bdf
    this.#addresses = 2 ** addressBits
  }

  /** The binding that the guest's entry for `pasid` asks for; undefined for none. */
  entry(pasid: number): GuestBinding | undefined {
    const directory = this.#directory()
    if (!directory || pasid >= directory.entries * PASIDS_PER_TABLE) return undefined
    const table = this.#table(directory.at, Math.floor(pasid / PASIDS_PER_TABLE))
    return table === 0
      ? undefined
      : this.#binding(table + (pasid % PASIDS_PER_TABLE) * PASID_ENTRY.size)
  }

  /** All bindings the guest's table asks for. */
  *entries(): Generator<[pasid: number, binding: GuestBinding]> {
    const directory = this.#directory()
    for (let d = 0; directory && d < directory.entries; d++) {
      const table = this.#table(directory.at, d)
      for (let i = 0; table !== 0 && i < PASIDS_PER_TABLE; i++) {
        const binding = this.#binding(table + i * PASID_ENTRY.size)
        if (binding) yield [d * PASIDS_PER_TABLE + i, binding]
      }
    }
  }

  #directory(): { at: number; entries: number } | undefined {
    if (this.root === 0) return undefined
    const root = SM_ROOT_ENTRY.create()
    if (!this.#memory.read(this.root + (this.#bdf >> 8) * SM_ROOT_ENTRY.size, root.bytes))
      return undefined
    const devfn = this.#bdf & 0xff
    const upper = devfn >= 128
    if (!(upper ? root.UP : root.LP)) return undefined
    const context = SM_CONTEXT_ENTRY.create()
    const at = (upper ? root.UCTP : root.LCTP) + (devfn & 127) * SM_CONTEXT_ENTRY.size
    if (!this.#memory.read(at, context.bytes) || !context.P || !context.PASIDE) return undefined
    return { at: context.PASIDDIRPTR, entries: 2 ** (context.PDTS + 7) }
  }

  #table(directory: number, index: number): number {
    const entry = PASID_DIRECTORY_ENTRY.create()
    const there = this.#memory.read(directory + index * PASID_DIRECTORY_ENTRY.size, entry.bytes)
    return there && entry.P ? entry.SMPTBLPTR : 0
  }

  #binding(at: number): GuestBinding | undefined {
    const entry = PASID_ENTRY.create()
    if (!this.#memory.read(at, entry.bytes) || !entry.P) return undefined
    if (entry.PGTT !== PGTT.FIRST_STAGE || entry.FSPM > 1) return undefined
    return {
      root: entry.FSPTPTR % this.#addresses,
      did: entry.DID,
      supervisor: entry.SRE,
      addressWidth: entry.FSPM === 1 ? 57 : 48,
    }
  }
}
