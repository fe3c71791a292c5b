// A processing element without MMU, exception model or devices: a page of code, a page of data, everything else faults.
// What the differential runner, the recorded cases and the kernels run on.

import { CodeCache as Cache, type CodeCache, runBlock } from '../../src/cpu/a64/code-cache.js'
import type { A64Machine } from '../../src/cpu/a64/machine.js'
import { ACCESS, type MemoryPort, type SystemPort } from '../../src/cpu/a64/ports.js'
import { A64State, ABORT, EC, SLOT } from '../../src/cpu/a64/registers.js'
import { AddressSpace } from '../../src/mem/address-space.js'

/** DFSC of a data abort: an address that nothing translates, or a misaligned one. */
const TRANSLATION = 0x07
const ALIGNMENT = 0x21

/** RAM at a place, seen by virtual address equal to physical. */
export class FlatRegion {
  readonly base: number
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly view: DataView

  constructor(base: number, size: number, bytes = new Uint8Array(size)) {
    this.base = base
    this.bytes = bytes
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, size / 4)
    this.view = new DataView(bytes.buffer, bytes.byteOffset, size)
  }
}

/** Memory that is a few regions. `executable` ones are fetched from, and may be read. */
export class FlatMemory implements MemoryPort {
  storedPage = -1
  storedFirstPage = -1
  /** Of the last access: where in `#region` it lies. */
  #at = 0
  #region: FlatRegion
  readonly #state: A64State
  readonly #regions: readonly FlatRegion[]

  constructor(state: A64State, regions: readonly FlatRegion[]) {
    this.#state = state
    this.#regions = regions
    this.#region = regions[0]!
  }

  /** Finds an access; false after raising a data abort. */
  #find(hi: number, lo: number, size: number, access: number): boolean {
    const aligned = ACCESS.ATOMIC | ACCESS.ORDERED | ACCESS.EXCLUSIVE
    if ((access & aligned) !== 0 && (lo & (size - 1)) !== 0) return this.#fault(hi, lo, ALIGNMENT)
    const address = (hi >>> 0) * 2 ** 32 + (lo >>> 0)
    let r = this.#region
    if (address < r.base || address + size > r.base + r.bytes.length) {
      const other = this.#regions.find(
        x => address >= x.base && address + size <= x.base + x.bytes.length,
      )
      if (other === undefined) return this.#fault(hi, lo, TRANSLATION)
      this.#region = r = other
    }
    this.#at = address - r.base
    return true
  }

  #fault(hi: number, lo: number, status: number): boolean {
    this.#state.far = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)
    this.#state.raise(this.#state.el === 0 ? EC.DATA_ABORT_LOWER : EC.DATA_ABORT, status)
    return false
  }

  #stored(size: number): void {
    const first = this.#region.base + this.#at
    this.storedFirstPage = Math.floor(first / 4096)
    this.storedPage = Math.floor((first + size - 1) / 4096)
    const s = this.#state
    if (s.exclusive && Math.floor(first / 64) === Math.floor(s.exclusiveAddress / 64))
      s.clearExclusive()
  }

  load(hi: number, lo: number, size: number, access: number): number {
    if (!this.#find(hi, lo, size, access)) return 0
    const { view } = this.#region
    if (size === 4) return view.getInt32(this.#at, true)
    return size === 1 ? view.getUint8(this.#at) : view.getUint16(this.#at, true)
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (!this.#find(hi, lo, 8, access)) return
    into[at] = this.#region.view.getInt32(this.#at, true)
    into[at + 1] = this.#region.view.getInt32(this.#at + 4, true)
  }

  load128(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (!this.#find(hi, lo, 16, access)) return
    for (let i = 0; i < 4; i++) into[at + i] = this.#region.view.getInt32(this.#at + 4 * i, true)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    if (!this.#find(hi, lo, size, access)) return
    const { view } = this.#region
    if (size === 4) view.setInt32(this.#at, value, true)
    else if (size === 1) view.setUint8(this.#at, value)
    else view.setUint16(this.#at, value, true)
    this.#stored(size)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    if (!this.#find(hi, lo, 8, access)) return
    this.#region.view.setInt32(this.#at, valueLo, true)
    this.#region.view.setInt32(this.#at + 4, valueHi, true)
    this.#stored(8)
  }

  store128(hi: number, lo: number, access: number, from: Int32Array, at: number): void {
    if (!this.#find(hi, lo, 16, access)) return
    for (let i = 0; i < 4; i++) this.#region.view.setInt32(this.#at + 4 * i, from[at + i]!, true)
    this.#stored(16)
  }

  translate(hi: number, lo: number, access: number, size = 1): number {
    return this.#find(hi, lo, size, access) ? this.#region.base + this.#at : -1
  }
}

/** The system as a program at EL0 sees it: nearly everything is UNDEFINED. */
export class UserSystem implements SystemPort {
  readonly #state: A64State

  constructor(state: A64State) {
    this.#state = state
  }

  #undefined(): void {
    this.#state.undefined()
  }

  readRegister(): bigint {
    this.#undefined()
    return 0n
  }
  writeRegister(): void {
    this.#undefined()
  }
  systemInstruction(): void {
    this.#undefined()
  }
  systemResult(): bigint {
    this.#undefined()
    return 0n
  }
  writePstate(): void {
    this.#undefined()
  }
  exceptionReturn(): void {
    this.#undefined()
  }
  supervisorCall(value: number): void {
    this.#state.raise(EC.SVC, value)
  }
  hypervisorCall(): void {
    this.#undefined()
  }
  secureMonitorCall(): void {
    this.#undefined()
  }
  breakpoint(value: number): void {
    this.#state.raise(EC.BRK, value)
  }
  halt(): void {
    this.#undefined()
  }
  waitForInterrupt(): void {}
  waitForEvent(): void {}
  sendEvent(): void {}
  barrier(): void {}
  checkFp(): void {}
}

/** A machine at EL0 over some regions; code is fetched from the first. */
export class FlatMachine implements A64Machine {
  readonly state = new A64State()
  readonly memory: FlatMemory
  readonly system: UserSystem
  readonly #code: CodeCache
  readonly #region: FlatRegion

  /** `system` makes what system instructions ask. */
  constructor(regions: readonly FlatRegion[], system = (s: A64State) => new UserSystem(s)) {
    const space = new AddressSpace()
    for (const r of regions) space.addRam(r.base, r.bytes)
    this.#region = regions[0]!
    this.memory = new FlatMemory(this.state, regions)
    this.system = system(this.state)
    this.#code = new Cache(space)
    this.state.setMode(0, 0)
  }

  /** Runs until an exception or `most` instructions; answers how many retired. `state.abort` says which. */
  run(most: number): number {
    const { state } = this
    const { base, bytes } = this.#region
    let done = 0
    state.abort = ABORT.NONE
    while (done < most && state.abort === ABORT.NONE) {
      const lo = state.r32[2 * SLOT.PC]!
      const address = (state.r32[2 * SLOT.PC + 1]! >>> 0) * 2 ** 32 + (lo >>> 0)
      if (lo & 3) state.raise(EC.PC_ALIGNMENT)
      else if (address < base || address >= base + bytes.length)
        state.raise(EC.INSTRUCTION_ABORT_LOWER, TRANSLATION)
      else done += runBlock(this, this.#code.find(address), most - done)
    }
    return done
  }
}
