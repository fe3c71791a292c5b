// Runs a statically linked Linux program at EL0 on the flat machine: ELF, stack, auxiliary vector, and the dozen system
// calls that a C library makes around standard output. No files, threads, signals or time: those answer ENOSYS.

import { systemKey } from '../../src/cpu/a64/ports.js'
import { type A64State, ABORT, EC } from '../../src/cpu/a64/registers.js'
import { FlatMachine, FlatRegion, UserSystem } from './flat.js'

/** What became of a program. */
export interface ProgramResult {
  readonly output: Uint8Array
  /** The status it exited with; undefined when an exception or the limit ended it. */
  readonly status: number | undefined
  readonly retired: number
  /** Why it ended otherwise. */
  readonly trouble: string
}

const IMAGE = 0x40_0000
const IMAGE_BYTES = 16 << 20
const STACK = 0x7f00_0000
const STACK_BYTES = 1 << 20
const HEAP = 0x8000_0000
const HEAP_BYTES = 64 << 20
const PAGE = 4096

/** Types of the auxiliary vector (ELF, Linux). */
const AT = { PHDR: 3, PHENT: 4, PHNUM: 5, PAGESZ: 6, ENTRY: 9, HWCAP: 16, RANDOM: 25 } as const
/** FP and Advanced SIMD. */
const HWCAP = 3n

/** Numbers of system calls. */
const CALL = {
  ioctl: 29,
  write: 64,
  writev: 66,
  fstat: 80,
  exit: 93,
  exit_group: 94,
  set_tid_address: 96,
  brk: 214,
  munmap: 215,
  mmap: 222,
  mprotect: 226,
  getrandom: 278,
} as const
const ENOSYS = 38
const ENOMEM = 12

const TPIDR_EL0 = systemKey(3, 3, 13, 0, 2)
const CTR_EL0 = systemKey(3, 3, 0, 0, 1)
const DCZID_EL0 = systemKey(3, 3, 0, 0, 7)
const DC_ZVA = systemKey(1, 3, 7, 4, 1)

/** The registers and instructions that Linux lets EL0 have. */
class LinuxSystem extends UserSystem {
  #thread = 0n
  readonly #zero: (address: number) => void

  constructor(state: A64State, zero: (address: number) => void) {
    super(state)
    this.#zero = zero
  }

  override readRegister(key?: number): bigint {
    if (key === TPIDR_EL0) return this.#thread
    if (key === CTR_EL0) return 0x8444_c004n
    return key === DCZID_EL0 ? 4n : super.readRegister()
  }

  override writeRegister(key?: number, value?: bigint): void {
    if (key === TPIDR_EL0) this.#thread = value!
    else super.writeRegister()
  }

  override systemInstruction(key?: number, value?: bigint): void {
    if (key === DC_ZVA) this.#zero(Number(value! & ~63n))
    else super.systemInstruction()
  }
}

class Program {
  readonly #regions = [
    new FlatRegion(IMAGE, IMAGE_BYTES),
    new FlatRegion(STACK, STACK_BYTES),
    new FlatRegion(HEAP, HEAP_BYTES),
  ]
  readonly #m = new FlatMachine(this.#regions, s => new LinuxSystem(s, at => this.#zero(at)))
  readonly #output: Uint8Array[] = []
  #break = IMAGE
  #mapped = HEAP
  #status: number | undefined

  /** Bytes at an address; a copy of nothing when they are not all there. */
  #bytes(at: number, size: number): Uint8Array {
    const r = this.#regions.find(x => at >= x.base && at + size <= x.base + x.bytes.length)
    return r ? r.bytes.subarray(at - r.base, at - r.base + size) : new Uint8Array(size)
  }

  #zero(at: number): void {
    this.#bytes(at, 64).fill(0)
  }

  #word(at: number): number {
    const b = this.#bytes(at, 8)
    return Number(new DataView(b.buffer, b.byteOffset).getBigUint64(0, true))
  }

  /** Loads the segments and makes the stack that the entry point expects. */
  load(elf: Uint8Array, args: readonly string[]): void {
    const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength)
    const field = (at: number) => Number(view.getBigUint64(at, true))
    const [entry, headers, count] = [field(24), field(32), view.getUint16(56, true)]
    for (let i = 0; i < count; i++) {
      const at = headers + 56 * i
      if (view.getUint32(at, true) !== 1) continue
      const [offset, address, size] = [field(at + 8), field(at + 16), field(at + 32)]
      this.#bytes(address, size).set(elf.subarray(offset, offset + size))
      this.#break = Math.max(this.#break, address + field(at + 40))
    }
    this.#break = Math.ceil(this.#break / PAGE) * PAGE

    let sp = STACK + STACK_BYTES
    const push = (bytes: Uint8Array): bigint => {
      sp -= bytes.length
      this.#bytes(sp, bytes.length).set(bytes)
      return BigInt(sp)
    }
    const text = args.map(a => push(new TextEncoder().encode(`${a}\0`)))
    const random = push(new Uint8Array(16))
    // biome-ignore format: table
    const auxiliary = [
      AT.PHDR, IMAGE + headers, AT.PHENT, 56, AT.PHNUM, count, AT.PAGESZ, PAGE, AT.ENTRY, entry,
      AT.HWCAP, HWCAP, AT.RANDOM, random, 0, 0,
    ].map(BigInt)
    const words = [BigInt(args.length), ...text, 0n, 0n, ...auxiliary]
    sp = (sp - 8 * words.length) & ~15
    const table = this.#bytes(sp, 8 * words.length)
    const out = new DataView(table.buffer, table.byteOffset)
    words.forEach((w, i) => {
      out.setBigUint64(8 * i, w, true)
    })
    this.#m.state.sp = BigInt(sp)
    this.#m.state.pc = BigInt(entry)
  }

  #write(at: number, size: number): number {
    this.#output.push(this.#bytes(at, size).slice())
    return size
  }

  /** One system call; its result, negative for an error. */
  #call(n: number, a: readonly number[]): number {
    const [x0, x1, x2] = a as [number, number, number]
    switch (n) {
      case CALL.write:
        return this.#write(x1, x2)
      case CALL.writev: {
        let total = 0
        for (let i = 0; i < x2; i++)
          total += this.#write(this.#word(x1 + 16 * i), this.#word(x1 + 16 * i + 8))
        return total
      }
      case CALL.brk:
        if (x0 >= this.#break && x0 <= IMAGE + IMAGE_BYTES) this.#break = x0
        return this.#break
      case CALL.mmap: {
        const at = this.#mapped
        if (at + x1 > HEAP + HEAP_BYTES) return -ENOMEM
        this.#mapped += Math.ceil(x1 / PAGE) * PAGE
        return at
      }
      case CALL.fstat:
        // A pipe, so that output is not written line by line.
        this.#bytes(x1, 128).fill(0)
        this.#bytes(x1 + 16, 4).set([0, 0x10, 0, 0])
        return 0
      case CALL.set_tid_address:
        return 1
      case CALL.munmap:
      case CALL.mprotect:
        return 0
      case CALL.getrandom:
        this.#bytes(x0, x1).fill(1)
        return x1
      default:
        return -ENOSYS
    }
  }

  run(most: number): ProgramResult {
    const { state } = this.#m
    let retired = 0
    let trouble = 'the limit of instructions'
    while (retired < most) {
      retired += this.#m.run(most - retired)
      if (state.abort === ABORT.NONE) break
      if (state.ec !== EC.SVC) {
        trouble = `exception class 0x${state.ec.toString(16)} at 0x${state.pc.toString(16)}`
        break
      }
      const n = Number(state.x(8))
      const args = Array.from({ length: 6 }, (_, i) => Number(BigInt.asIntN(64, state.x(i))))
      if (n === CALL.exit || n === CALL.exit_group) {
        this.#status = args[0]! & 0xff
        trouble = ''
        break
      }
      state.setX(0, BigInt.asUintN(64, BigInt(this.#call(n, args))))
      state.pc += 4n
      retired++
    }
    const output = new Uint8Array(this.#output.reduce((sum, b) => sum + b.length, 0))
    let at = 0
    for (const b of this.#output) {
      output.set(b, at)
      at += b.length
    }
    return { output, status: this.#status, retired, trouble }
  }
}

/** Runs a program with arguments (its own name first) for at most that many instructions. */
export function runProgram(elf: Uint8Array, args: readonly string[], most: number): ProgramResult {
  const p = new Program()
  p.load(elf, args)
  return p.run(most)
}
