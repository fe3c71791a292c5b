// Hardware breakpoints (SDM vol. 3, 18.2): DR0 to DR3 as DR7 enables them, for instructions, for data and, under CR4.DE, for
// ports. The registers are the guest's, or a debugger's from outside, whose hits then are its alone (KVM_SET_GUEST_DEBUG).

import { join } from '../../base/addr.js'
import { ACCESS, type MemoryPort } from './ports.js'
import { ABORT, CR4, FLAG, SLOT, type X86State } from './registers.js'

/** Bits of DR6 beside the four breakpoints'. */
export const DR6 = { BD: 1 << 13, BS: 1 << 14 } as const
/** Bits of DR6 that read as one. */
export const DR6_ONES = 0xffff_0ff0
/** DR7.GD: any use of a debug register is a debug exception. */
export const DR7_GD = 1 << 13

/** Values of R/W: when a breakpoint matches. */
const KIND = { EXECUTE: 0, WRITE: 1, PORT: 2, ACCESS: 3 } as const
/** Bytes by LEN. */
const LENGTHS = [1n, 2n, 8n, 4n] as const

/** The breakpoints of one processor. */
export class Breakpoints implements MemoryPort {
  storedPage = -1
  storedFirstPage = -1
  /** Breakpoints, as bits of DR6, that the instruction being executed has met. */
  hits = 0
  readonly #state: X86State
  readonly #memory: MemoryPort
  /** The low half of the guest's DR7, as a number. */
  readonly #dr7: Uint32Array
  #host: BigUint64Array | undefined

  constructor(state: X86State, memory: MemoryPort) {
    this.#state = state
    this.#memory = memory
    this.#dr7 = new Uint32Array(state.dr.buffer, state.dr.byteOffset + 7 * 8, 1)
  }

  /** DR0 to DR7 of a debugger outside; while there is one, the guest's own match nothing. */
  set host(registers: BigUint64Array | undefined) {
    this.#host = registers
  }

  /** Whether hits are the debugger's outside. */
  get owned(): boolean {
    return this.#host !== undefined
  }

  /** DR7 as it holds now. */
  get control(): number {
    return this.#host === undefined ? this.#dr7[0]! : Number(this.#host[7]! & 0xffff_ffffn)
  }

  /** Whether any breakpoint is enabled. */
  get armed(): boolean {
    return (this.control & 0xff) !== 0
  }

  /** Instruction breakpoints at RIP, as bits of DR6; none while RF is set. */
  atInstruction(): number {
    const { flags, r64 } = this.#state
    if ((flags & FLAG.RF) !== 0) return 0
    const rip = r64[SLOT.RIP]!
    return this.#match(rip, 1n, kind => kind === KIND.EXECUTE)
  }

  /** A port was read or written. */
  port(port: number, size: number): void {
    if (!this.armed || (this.#state.cr4 & CR4.DE) === 0) return
    this.hits |= this.#match(BigInt(port), BigInt(size), kind => kind === KIND.PORT)
  }

  // ---- memory, watched ----

  load(hi: number, lo: number, size: number, access: number): number {
    const v = this.#memory.load(hi, lo, size, access)
    this.#touched(hi, lo, size, access, false)
    return v
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    this.#memory.load64(hi, lo, access, into, at)
    this.#touched(hi, lo, 8, access, false)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    this.#memory.store(hi, lo, size, value, access)
    this.#touched(hi, lo, size, access, true)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    this.#memory.store64(hi, lo, valueHi, valueLo, access)
    this.#touched(hi, lo, 8, access, true)
  }

  read(hi: number, lo: number, into: Uint8Array, access: number): void {
    this.#memory.read(hi, lo, into, access)
    this.#touched(hi, lo, into.length, access, false)
  }

  write(hi: number, lo: number, from: Uint8Array, access: number): void {
    this.#memory.write(hi, lo, from, access)
    this.#touched(hi, lo, from.length, access, true)
  }

  enqueue(hi: number, lo: number, bytes: Uint8Array): boolean {
    const accepted = this.#memory.enqueue(hi, lo, bytes)
    this.#touched(hi, lo, bytes.length, ACCESS.WRITE, true)
    return accepted
  }

  translate(hi: number, lo: number, access: number): number {
    return this.#memory.translate(hi, lo, access)
  }

  #touched(hi: number, lo: number, size: number, access: number, write: boolean): void {
    if (write) {
      this.storedPage = this.#memory.storedPage
      this.storedFirstPage = this.#memory.storedFirstPage
    }
    if (this.#state.abort !== ABORT.NONE || (access & ACCESS.SYSTEM) !== 0) return
    this.hits |= this.#match(
      join(hi, lo),
      BigInt(size),
      kind => kind === KIND.ACCESS || (kind === KIND.WRITE && write),
    )
  }

  #match(address: bigint, size: bigint, matches: (kind: number) => boolean): number {
    const registers = this.#host ?? this.#state.dr
    const { control } = this
    let hit = 0
    for (let n = 0; n < 4; n++) {
      if (((control >>> (2 * n)) & 3) === 0 || !matches((control >>> (16 + 4 * n)) & 3)) continue
      const length = LENGTHS[(control >>> (18 + 4 * n)) & 3]!
      const first = registers[n]! & -length
      if (address < first + length && first < address + size) hit |= 1 << n
    }
    return hit
  }
}
