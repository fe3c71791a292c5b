// Guest memory as a debugger sees it: by virtual address, page by page, with the breakpoint instructions it put there
// hidden under the bytes they stand for.

import { AddressSpace } from '../../mem/address-space.js'
import type { DebuggedCpu, DebugTarget } from './target.js'

const PAGE = 4096n
const MASK64 = 0xffff_ffff_ffff_ffffn

/** Reads and writes guest memory, and keeps breakpoint instructions in it. */
export class MemoryBreakpoints {
  readonly #cpu: DebuggedCpu
  readonly #target: DebugTarget
  /** The same RAM by guest-physical address: writes this way are heard by whoever records a machine. */
  readonly #memory = new AddressSpace()
  /** What was where a breakpoint instruction is, by offset in RAM; `address` is where the debugger put it. */
  readonly #saved = new Map<number, { readonly address: bigint; readonly bytes: Uint8Array }>()

  constructor(cpu: DebuggedCpu, target: DebugTarget) {
    this.#cpu = cpu
    this.#target = target
    this.#memory.addRam(cpu.ramBase, cpu.ram)
  }

  /** Whether there is a breakpoint instruction. */
  get any(): boolean {
    return this.#saved.size > 0
  }

  /** Whether there is one at an address. */
  has(address: bigint): boolean {
    return [...this.#saved.values()].some(s => s.address === address)
  }

  /** The bytes from an address on, as far as they are mapped to RAM. */
  read(address: bigint, length: number): Uint8Array {
    const into = new Uint8Array(length)
    let done = 0
    while (done < length) {
      const place = this.#place((address + BigInt(done)) & MASK64, length - done)
      if (place === undefined) break
      into.set(this.#cpu.ram.subarray(place.offset, place.offset + place.length), done)
      this.#hide(into, done, place)
      done += place.length
    }
    return into.subarray(0, done)
  }

  /** Writes all of it or, where some is not mapped to RAM, nothing; permissions do not hold for a debugger. */
  write(address: bigint, bytes: Uint8Array): boolean {
    const places: Place[] = []
    for (let done = 0; done < bytes.length; ) {
      const place = this.#place((address + BigInt(done)) & MASK64, bytes.length - done)
      if (place === undefined) return false
      places.push(place)
      done += place.length
    }
    let done = 0
    for (const place of places) {
      this.#put(place, bytes.subarray(done, done + place.length))
      done += place.length
    }
    return true
  }

  /** Puts a breakpoint instruction at an address; false where it does not fit. */
  insert(address: bigint): boolean {
    const { breakpoint } = this.#target
    const place = this.#place(address, breakpoint.length)
    if (place?.length !== breakpoint.length) return false
    const { ram } = this.#cpu
    const { offset, length } = place
    if (this.#saved.has(offset)) return true
    this.#saved.set(offset, { address, bytes: ram.slice(offset, offset + length) })
    this.#store(offset, breakpoint)
    return true
  }

  /** Takes it away again. */
  remove(address: bigint): boolean {
    for (const [offset, saved] of this.#saved) {
      if (saved.address !== address) continue
      this.#store(offset, saved.bytes)
      this.#saved.delete(offset)
    }
    return true
  }

  /** Takes all of them away. */
  clear(): void {
    for (const { address } of [...this.#saved.values()]) this.remove(address)
  }

  // The run of RAM behind an address, at most to the end of its page.
  #place(address: bigint, most: number): Place | undefined {
    const { ram, ramBase } = this.#cpu
    const at = this.#target.translate(address)
    if (at === undefined || at < ramBase || at >= ramBase + ram.length) return undefined
    const room = Math.min(Number(PAGE - (address % PAGE)), ramBase + ram.length - at)
    return { offset: at - ramBase, length: Math.min(most, room) }
  }

  // Shows what breakpoint instructions cover in a copy that begins at `at`.
  #hide(copy: Uint8Array, at: number, { offset, length }: Place): void {
    for (const [start, { bytes }] of this.#saved)
      for (let i = 0; i < bytes.length; i++) {
        const n = start + i - offset
        if (n >= 0 && n < length) copy[at + n] = bytes[i]!
      }
  }

  #store(offset: number, bytes: Uint8Array): void {
    this.#memory.write(this.#cpu.ramBase + offset, bytes)
  }

  // A byte under a breakpoint instruction is kept for later.
  #put({ offset }: Place, bytes: Uint8Array): void {
    for (const [i, byte] of bytes.entries()) {
      const at = offset + i
      const covered = [...this.#saved].find(([s, { bytes: b }]) => at >= s && at < s + b.length)
      if (covered === undefined) this.#store(at, Uint8Array.of(byte))
      else covered[1].bytes[at - covered[0]] = byte
    }
  }
}

interface Place {
  readonly offset: number
  readonly length: number
}
