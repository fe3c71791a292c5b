// A physical access of a core, once translated: RAM at once, the local APIC's page, a device's region, or out of the
// core to whoever runs it. Next: mmu.ts translates; kvm/processor.ts says what surrounds it.

import { halves, split } from '../../base/addr.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { RamRegion } from '../../mem/ram.js'
import { CIPHERED, type PrivateMemory } from '../sev/private-memory.js'
import { ABORT, type X86State } from './registers.js'

/** What surrounds a processor's memory. */
export interface MemorySurroundings {
  /** Guest-physical memory. */
  readonly memory: AddressSpace
  /** Physical address of the local APIC's page, or -1. Read when translations are dropped. */
  apicPage(): number
  apicRead(offset: number, size: number): bigint
  apicWrite(offset: number, size: number, value: bigint): void
  /** Whether writes to this RAM leave the core instead. */
  readOnly(ram: RamRegion): boolean
  /** Nothing is at this address: whether its owner could put memory there just now, for data or `fetch`es. */
  populate(address: number, fetch?: boolean): boolean
  /** Nothing could be put there, and the owner must settle that before the guest goes on, whatever it wanted there. */
  owed?(address: number): boolean
  /** An access is about to leave the core; true when that is its owner's fault and nobody may answer it. */
  leaving(address: number, write: boolean): boolean
}

/** Physical accesses of one processor. */
export class PhysicalAccess {
  /** Physical address of the local APIC's page, or -1. */
  apicPage = -1
  readonly #state: X86State
  readonly #around: MemorySurroundings
  readonly #memory: AddressSpace
  #cipher: PrivateMemory | undefined

  constructor(state: X86State, around: MemorySurroundings) {
    this.#state = state
    this.#around = around
    this.#memory = around.memory
  }

  /** Puts the accesses of a guest with an encryption key between this processor and its memory. */
  encrypt(cipher: PrivateMemory | undefined): void {
    this.#cipher = cipher
  }

  /** Whether memory or a device is at an address. */
  home(address: number): boolean {
    return this.#memory.ramAt(address) !== undefined || this.#memory.mmioAt(address) !== undefined
  }

  /**
   * Whether a table, or code, cannot be had from an address where nothing is, because its owner owes memory there.
   * Leaves the core then; otherwise the bytes read all-ones.
   */
  leavesFor(address: number, fetch: boolean): boolean {
    const around = this.#around
    const owed = fetch || around.owed?.(address) === true
    if (!owed || !around.leaving(address, false)) return false
    const { accesses } = this.#state
    accesses.forget()
    accesses.ask({ kind: 'mmio', write: false, address, bytes: new Uint8Array(8) })
    this.#state.abort = ABORT.EXIT
    return true
  }

  /** Reads `length` bytes of one page into `into` from its byte `start`. */
  read(address: number, into: Uint8Array, start: number, length: number): void {
    const cipher = this.#cipher
    if (cipher !== undefined) {
      if (address >= CIPHERED) {
        cipher.read(address, into, start, length)
        return
      }
      this.#open(cipher, address, false)
    }
    const apic = address - this.apicPage
    if (this.apicPage >= 0 && apic >= 0 && apic < 4096) {
      split(length > 8 ? 0n : this.#around.apicRead(apic, length))
      for (let i = 0; i < length; i++) {
        into[start + i] = i < 8 ? halves[i >> 2]! >>> (8 * (i & 3)) : 0
      }
    } else if (this.home(address) || this.#around.populate(address))
      this.#memory.read(address, into, start, length)
    else this.#leave(address, into, start, length, false)
  }

  /** Writes `length` bytes of `from`, from its byte `start`, inside one page. */
  write(address: number, from: Uint8Array, start: number, length: number): void {
    const cipher = this.#cipher
    if (cipher !== undefined) {
      if (address >= CIPHERED) {
        const at = address - CIPHERED
        const ram = this.#memory.ramAt(at)
        if (ram !== undefined && this.#around.readOnly(ram))
          this.#leave(at, from, start, length, true)
        else cipher.write(address, from, start, length)
        return
      }
      this.#open(cipher, address, true)
    }
    const apic = address - this.apicPage
    if (this.apicPage >= 0 && apic >= 0 && apic < 4096) {
      if (length > 8) return
      const eight = new Uint8Array(8)
      eight.set(from.subarray(start, start + length))
      const value = new DataView(eight.buffer).getBigUint64(0, true)
      this.#around.apicWrite(apic, length, value)
      return
    }
    if (!this.home(address)) this.#around.populate(address)
    const ram = this.#memory.ramAt(address)
    const here = ram === undefined ? this.#memory.mmioAt(address) : !this.#around.readOnly(ram)
    if (here) this.#memory.write(address, from, start, length)
    else this.#leave(address, from, start, length, true)
  }

  // Before an access that is not private: what others see of the page, or of all memory if a device hears of it.
  #open(cipher: PrivateMemory, address: number, write: boolean): void {
    if (this.#memory.ramAt(address) === undefined) cipher.settle()
    else cipher.share(address, write)
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
