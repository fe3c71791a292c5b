// A memory port without paging: linear addresses are offsets into a few windows. Everything outside faults.

import { X86Core } from '../../../../src/cpu/x86/core.js'
import { high, low } from '../../../../src/cpu/x86/machine.js'
import { ACCESS, type MemoryPort, type SystemPort } from '../../../../src/cpu/x86/ports.js'
import {
  ABORT,
  CR0,
  CR4,
  EFER,
  FLAGS_FIXED,
  type PendingEvent,
  SEGMENT,
  VECTOR,
  X86State,
} from '../../../../src/cpu/x86/registers.js'
import { setFlatCode, setFlatStack } from '../../../../src/cpu/x86/segments.js'
import { AddressSpace } from '../../../../src/mem/address-space.js'

/** Linear equals physical; RAM is what the space has; `readOnly` pages refuse writes. */
export class FlatMemory implements MemoryPort {
  storedPage = -1
  storedFirstPage = -1
  readonly readOnly = new Set<number>()
  /** Answers of `enqueue`, and what was enqueued. */
  accept = true
  readonly enqueued: { at: number; bytes: Uint8Array }[] = []
  readonly #state: X86State
  readonly #space: AddressSpace

  constructor(state: X86State, space: AddressSpace) {
    this.#state = state
    this.#space = space
  }

  #page(hi: number, lo: number, access: number): number {
    const at = (hi >>> 0) * 2 ** 32 + (lo >>> 0)
    const write = (access & ACCESS.WRITE) !== 0
    const linear = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)
    const canonical = BigInt.asUintN(64, BigInt.asIntN(48, linear)) === linear
    if (!canonical) {
      this.#state.raise(access & ACCESS.STACK ? VECTOR.SS : VECTOR.GP, 0)
      return -1
    }
    const refused = write && this.readOnly.has(Math.floor(at / 4096))
    const present = this.#space.ramAt(at) !== undefined
    if (present && !refused) return at
    const user = this.#state.cpl === 3 && !(access & ACCESS.SYSTEM) ? 4 : 0
    const fetch = access & ACCESS.FETCH ? 16 : 0
    this.#state.pageFault(linear, (present ? 1 : 0) | (write ? 2 : 0) | user | fetch)
    return -1
  }

  #range(hi: number, lo: number, length: number, access: number): number {
    const at = this.#page(hi, lo, access)
    if (at < 0) return -1
    const last = at + length - 1
    if (Math.floor(last / 4096) !== Math.floor(at / 4096)) {
      const next = Math.floor(last / 4096) * 4096
      if (this.#page(Math.floor(next / 2 ** 32) | 0, next | 0, access) < 0) return -1
    }
    return at
  }

  load(hi: number, lo: number, size: number, access: number): number {
    const at = this.#range(hi, lo, size, access)
    return at < 0 ? 0 : Number(this.#space.load(at, size as 1 | 2 | 4)) | 0
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    const from = this.#range(hi, lo, 8, access)
    if (from < 0) return
    const v = this.#space.load(from, 8)
    into[at] = low(v)
    into[at + 1] = high(v)
  }

  #stored(at: number, length: number): void {
    this.storedFirstPage = Math.floor(at / 4096)
    this.storedPage = Math.floor((at + length - 1) / 4096)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    const at = this.#range(hi, lo, size, access)
    if (at < 0) return
    this.#space.store(at, size as 1 | 2 | 4, BigInt.asUintN(8 * size, BigInt(value)))
    this.#stored(at, size)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    const at = this.#range(hi, lo, 8, access)
    if (at < 0) return
    this.#space.store(at, 8, (BigInt(valueHi >>> 0) << 32n) | BigInt(valueLo >>> 0))
    this.#stored(at, 8)
  }

  read(hi: number, lo: number, into: Uint8Array, access: number): void {
    const at = this.#range(hi, lo, into.length, access)
    if (at >= 0) this.#space.read(at, into)
  }

  write(hi: number, lo: number, from: Uint8Array, access: number): void {
    const at = this.#range(hi, lo, from.length, access)
    if (at < 0) return
    this.#space.write(at, from)
    this.#stored(at, from.length)
  }

  enqueue(hi: number, lo: number, bytes: Uint8Array): boolean {
    const at = this.#range(hi, lo, 64, ACCESS.WRITE)
    if (at < 0) return false
    this.enqueued.push({ at, bytes: bytes.slice() })
    return this.accept
  }

  translate(hi: number, lo: number, access: number): number {
    return this.#page(hi, lo, access)
  }
}

/** A system that records events instead of delivering them: the first one stops the core. */
export class RecordingSystem implements SystemPort {
  readonly events: PendingEvent[] = []
  readonly ports: string[] = []
  readonly controls: string[] = []
  readonly msrs = new Map<number, bigint>()
  readonly pasids = new Map<number, number>()
  interrupt = -1
  /** Undefined: port reads leave the core. */
  input: number | undefined = 0x5a
  /** Called instead of stopping at an event. */
  onEvent: ((e: PendingEvent) => boolean) | undefined
  readonly #state: X86State

  constructor(state: X86State) {
    this.#state = state
  }

  portIn(port: number, size: number): number {
    if (this.input !== undefined) return this.input
    const bytes = this.#state.accesses.ask({ kind: 'io', write: false, port, size, value: 0 })
    if (bytes) return bytes.reduce((v, b, i) => v | (b << (8 * i)), 0)
    this.#state.abort = ABORT.EXIT
    return 0
  }

  portOut(port: number, size: number, value: number): void {
    if (this.input === undefined) {
      if (!this.#state.accesses.ask({ kind: 'io', write: true, port, size, value })) {
        this.#state.abort = ABORT.EXIT
        return
      }
    }
    this.ports.push(`${port.toString(16)}.${size}=${value.toString(16)}`)
  }

  readMsr(index: number): bigint {
    const v = this.msrs.get(index)
    if (v === undefined) this.#state.raise(VECTOR.GP, 0)
    return v ?? 0n
  }

  writeMsr(index: number, value: bigint): void {
    if (!this.msrs.has(index)) this.#state.raise(VECTOR.GP, 0)
    else this.msrs.set(index, value)
  }

  writeControl(n: number, value: bigint): void {
    this.controls.push(`cr${n}=${value.toString(16)}`)
    if (n === 0) this.#state.cr0 = Number(value)
    if (n === 3) this.#state.cr3 = value
    if (n === 4) this.#state.cr4 = Number(value)
    if (n === 8) this.#state.cr8 = Number(value)
  }

  cpuid(leaf: number, subleaf: number, into: Uint32Array): void {
    into.set([leaf, subleaf, 0x11, 0x22])
  }

  tsc(): bigint {
    return 0x1_2345_6789n
  }

  invalidatePage(linear: bigint): void {
    this.controls.push(`invlpg ${linear.toString(16)}`)
  }

  invalidatePcid(type: number, pcid: number, linear: bigint): void {
    this.controls.push(`invpcid ${type} ${pcid} ${linear.toString(16)}`)
  }

  hypercall(): void {
    this.#state.leave = { kind: 'hypercall' }
  }

  translatePasid(pasid: number): number {
    return this.pasids.get(pasid) ?? -1
  }

  deliver(event: PendingEvent): boolean {
    this.events.push(event)
    return this.onEvent?.(event) ?? false
  }

  pendingInterrupt(): number {
    return this.interrupt
  }

  acknowledgeInterrupt(): number {
    const v = this.interrupt
    this.interrupt = -1
    return v
  }
}

export const CODE = 0x2000_0000
export const DATA = 0x3000_0000

/** A core in 64-bit mode over flat memory: code at CODE, 16 KiB of data at DATA. */
export function flatCore(cpl = 0) {
  const state = new X86State()
  state.reset()
  state.cr0 |= CR0.PE | CR0.PG
  state.cr4 |= CR4.PAE | CR4.FSGSBASE
  state.efer = EFER.LMA | EFER.LME | EFER.SCE | EFER.NXE
  setFlatCode(state.cs, 0x08 | cpl, cpl)
  setFlatStack(state.ss, 0x10 | cpl, cpl)
  for (const n of [SEGMENT.ES, SEGMENT.DS, SEGMENT.FS, SEGMENT.GS])
    setFlatStack(state.segments[n]!, 0x10 | cpl, cpl)
  state.cpl = cpl
  state.flags = FLAGS_FIXED
  const space = new AddressSpace()
  const code = new Uint8Array(0x4000)
  const data = new Uint8Array(0x4000)
  space.addRam(CODE, code)
  space.addRam(DATA, data)
  const memory = new FlatMemory(state, space)
  const system = new RecordingSystem(state)
  const core = new X86Core({ state, memory, system, space })
  state.rip = BigInt(CODE)
  return { core, state, memory, system, space, code, data }
}
