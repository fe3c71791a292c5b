// A physical access of a core, once translated: RAM at once, a device's region, or out of the core to whoever runs it.
// Next: mmu.ts translates.

import type { AddressSpace } from '../../mem/address-space.js'
import type { RamRegion } from '../../mem/ram.js'
import { type A64State, ABORT } from './registers.js'

/** What surrounds a processing element's memory. */
export interface MemorySurroundings {
  /** Whether writes to this RAM leave the core instead. */
  readOnly(ram: RamRegion): boolean
  /** Nothing is at this address: whether its owner could put memory there just now. */
  populate(address: number): boolean
  /** An access is about to leave the core; true when that is its owner's fault and nobody may answer it. */
  leaving(address: number, write: boolean): boolean
}

/** Surroundings of a machine whose memory is all there from the start. */
export const PLAIN_SURROUNDINGS: MemorySurroundings = {
  readOnly: () => false,
  populate: () => false,
  leaving: () => false,
}

/** Physical accesses of one processing element. */
export class PhysicalAccess {
  readonly #state: A64State
  readonly #around: MemorySurroundings
  readonly #memory: AddressSpace

  constructor(state: A64State, memory: AddressSpace, around: MemorySurroundings) {
    this.#state = state
    this.#around = around
    this.#memory = memory
  }

  /** Whether memory or a device is at an address. */
  home(address: number): boolean {
    return this.#memory.ramAt(address) !== undefined || this.#memory.mmioAt(address) !== undefined
  }

  /** Reads `length` bytes of one page into `into` from its byte `start`. */
  read(address: number, into: Uint8Array, start: number, length: number): void {
    if (this.home(address) || this.#around.populate(address))
      this.#memory.read(address, into, start, length)
    else this.#leave(address, into, start, length, false)
  }

  /** Writes `length` bytes of `from`, from its byte `start`, inside one page. */
  write(address: number, from: Uint8Array, start: number, length: number): void {
    if (!this.home(address)) this.#around.populate(address)
    const ram = this.#memory.ramAt(address)
    const here = ram === undefined ? this.#memory.mmioAt(address) : !this.#around.readOnly(ram)
    if (here) this.#memory.write(address, from, start, length)
    else this.#leave(address, from, start, length, true)
  }

  // Leaves the core, at most eight bytes at a time; the instruction runs again with the answers.
  #leave(address: number, bytes: Uint8Array, start: number, length: number, write: boolean): void {
    const s = this.#state
    // Nobody answers this one; answers so far go with the instruction.
    if (this.#around.leaving(address, write)) s.accesses.forget()
    for (let done = 0; done < length; ) {
      const at = address + done
      const size = Math.min(length - done, 8)
      const piece = new Uint8Array(size)
      if (write) piece.set(bytes.subarray(start + done, start + done + size))
      const answer = s.accesses.ask({ kind: 'mmio', write, address: at, bytes: piece })
      if (answer === undefined) {
        s.abort = ABORT.EXIT
        return
      }
      if (!write) bytes.set(answer.subarray(0, size), start + done)
      done += size
    }
  }
}
