// A small assembler for test programs, and a bench: a core with RAM at 0 whose sixteen vectors leave by HVC.

import { A64Core, type A64CoreParts } from '../../../src/cpu/a64/core.js'
import { keyOf, type SystemRegisterName } from '../../../src/cpu/a64/system-register-table.js'
import type { Exit } from '../../../src/cpu/core.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { createRam } from '../../../src/mem/ram.js'

export const RAM_SIZE = 0x40_0000
/** Where the bench's programs start, and where its vectors are. */
export const CODE = 0x1_0000
export const VECTORS = 0x8000
export const STACK = 0x7000n

/** Programs, word by word. Registers are numbers; 31 is SP in bases and XZR elsewhere. */
export class Asm {
  readonly words: number[] = []
  readonly origin: number
  readonly #labels = new Map<string, number>()
  readonly #fixups: (() => void)[] = []

  constructor(origin = CODE) {
    this.origin = origin
  }

  get here(): number {
    return this.origin + 4 * this.words.length
  }

  word(...words: number[]): this {
    this.words.push(...words)
    return this
  }

  label(name: string): this {
    this.#labels.set(name, this.here)
    return this
  }

  /** Address of a label. */
  at(name: string): number {
    return this.#labels.get(name)!
  }

  nop = () => this.word(0xd503201f)
  isb = () => this.word(0xd5033fdf)
  eret = () => this.word(0xd69f03e0)
  wfi = () => this.word(0xd503207f)
  wfe = () => this.word(0xd503205f)
  ret = () => this.word(0xd65f03c0)
  svc = (imm = 0) => this.word(0xd4000001 | (imm << 5))
  hvc = (imm = 0) => this.word(0xd4000002 | (imm << 5))
  smc = (imm = 0) => this.word(0xd4000003 | (imm << 5))
  brk = (imm = 0) => this.word(0xd4200000 | (imm << 5))
  hlt = (imm = 0) => this.word(0xd4400000 | (imm << 5))
  daifset = (imm: number) => this.word(0xd50340df | (imm << 8))
  daifclr = (imm: number) => this.word(0xd50340ff | (imm << 8))
  spsel = (imm: number) => this.word(0xd50040bf | (imm << 8))
  br = (n: number) => this.word(0xd61f0000 | (n << 5))

  mov(d: number, value: bigint | number): this {
    const v = BigInt.asUintN(64, BigInt(value))
    for (let i = 0; i < 4; i++) {
      const half = Number((v >> BigInt(16 * i)) & 0xffffn)
      if (i === 0) this.word(0xd2800000 | (half << 5) | d)
      else if (half !== 0) this.word(0xf2800000 | (i << 21) | (half << 5) | d)
    }
    return this
  }

  /** ADD d, n, #imm (n or d 31: SP). */
  add = (d: number, n: number, imm: number) => this.word(0x91000000 | (imm << 10) | (n << 5) | d)
  mrs = (t: number, name: SystemRegisterName | number) => this.word(0xd5200000 | system(name) | t)
  msr = (name: SystemRegisterName | number, t: number) => this.word(0xd5000000 | system(name) | t)
  /** SYS with a key whose op0 is 1. */
  sys = (key: number, t = 31) => this.word(0xd5000000 | (key << 5) | t)
  /** MSR of a constant through X9. */
  set = (name: SystemRegisterName | number, value: bigint | number) =>
    this.mov(9, value).msr(name, 9)

  ldr = (t: number, n: number, offset = 0) =>
    this.word(0xf9400000 | ((offset / 8) << 10) | (n << 5) | t)
  str = (t: number, n: number, offset = 0) =>
    this.word(0xf9000000 | ((offset / 8) << 10) | (n << 5) | t)
  ldrb = (t: number, n: number, offset = 0) => this.word(0x39400000 | (offset << 10) | (n << 5) | t)
  strb = (t: number, n: number, offset = 0) => this.word(0x39000000 | (offset << 10) | (n << 5) | t)
  ldxr = (t: number, n: number) => this.word(0xc85f7c00 | (n << 5) | t)
  stxr = (s: number, t: number, n: number) => this.word(0xc8007c00 | (s << 16) | (n << 5) | t)

  b(name: string): this {
    return this.#branch(name, offset => 0x14000000 | (offset & 0x3ff_ffff))
  }

  cbnz(t: number, name: string): this {
    return this.#branch(name, offset => 0xb5000000 | ((offset & 0x7_ffff) << 5) | t)
  }

  /** Bytes, with branches resolved. */
  finish(): Uint8Array {
    for (const fix of this.#fixups) fix()
    return new Uint8Array(new Int32Array(this.words).buffer)
  }

  #branch(name: string, encode: (offset: number) => number): this {
    const i = this.words.length
    const from = this.here
    this.#fixups.push(() => {
      this.words[i] = encode((this.at(name) - from) / 4)
    })
    return this.word(0)
  }
}

const system = (name: SystemRegisterName | number): number =>
  (typeof name === 'number' ? name : keyOf(name)) << 5

/** What a program did. */
export interface Ran {
  readonly exit: Exit
  /** Immediate of the HVC that ended it: 0x100 + index for a vector. */
  readonly left: number | undefined
}

/** A core with 4 MiB of RAM at 0. Vectors leave with `HVC 0x100 + index`. */
export class Bench {
  readonly space = new AddressSpace()
  readonly ram: DataView
  readonly bytes: Uint8Array
  readonly core: A64Core

  constructor(parts: Partial<A64CoreParts> = {}) {
    this.bytes = createRam(RAM_SIZE)
    this.space.addRam(0, this.bytes)
    this.ram = new DataView(this.bytes.buffer, this.bytes.byteOffset, RAM_SIZE)
    this.core = new A64Core({ memory: this.space, ...parts })
    for (let i = 0; i < 16; i++) this.load(VECTORS + 0x80 * i, a => a.hvc(0x100 + i).eret())
    this.set('VBAR_EL1', BigInt(VECTORS))
    this.core.state.setStack(1, STACK)
    this.core.state.pc = BigInt(CODE)
  }

  /** Puts a program into RAM; the assembler it was written with. */
  load(at: number, write: (a: Asm) => void): Asm {
    const a = new Asm(at)
    write(a)
    this.bytes.set(a.finish(), at)
    return a
  }

  /** Puts a program at CODE, and PC there. */
  program(write: (a: Asm) => void): Asm {
    this.core.state.pc = BigInt(CODE)
    return this.load(CODE, write)
  }

  get(name: SystemRegisterName): bigint {
    return this.core.registers.named(name).read()
  }

  set(name: SystemRegisterName, value: bigint | number): void {
    this.core.registers.hostWrite(keyOf(name), BigInt(value))
  }

  x(n: number): bigint {
    return this.core.state.x(n)
  }

  run(most = 10_000): Ran {
    const exit = this.core.run(most)
    return { exit, left: exit.kind === 'hypercall' ? exit.immediate : undefined }
  }

  /** Runs until an exit and expects the program to leave through a vector; its index. */
  vector(): number {
    const { exit, left } = this.run()
    if (left === undefined || left < 0x100) throw new Error(`no vector, but ${exit.kind} ${left}`)
    return left - 0x100
  }

  /** ESR_EL1 in its parts. */
  get esr(): { ec: number; il: number; iss: number } {
    const v = Number(this.get('ESR_EL1'))
    return { ec: (v >>> 26) & 63, il: (v >>> 25) & 1, iss: v & 0x1ff_ffff }
  }
}
