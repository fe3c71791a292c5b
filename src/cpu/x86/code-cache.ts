// Decoded code by guest-physical address. A block is used only while memory still holds the bytes it was made of, so
// code changed by anyone (the guest, the VMM, a device) is seen at the next block.

import type { IrOp } from '../ir/ops.js'
import { type Decoded, decode, MAX_LENGTH } from './decode.js'
import { Emitter } from './emitter.js'
import type { Instruction } from './operands.js'
import { VECTOR } from './registers.js'
import { requireSupervisor } from './system.js'

/** Memory that code is fetched from. */
export interface CodeMemory {
  /** Changes whenever `ramAt` may answer differently. */
  readonly generation: number
  ramAt(
    address: number,
  ): { readonly base: number; readonly size: number; readonly bytes: Uint8Array } | undefined
  read(address: number, into: Uint8Array, start?: number, length?: number): boolean
}

/** An instruction ready to run. */
export interface CompiledInstruction {
  readonly ops: readonly IrOp[]
  readonly length: bigint
  /** With a REP prefix: it comes back to itself. */
  readonly repeats: boolean
}

/** Instructions one after another inside one page (or a single one that crosses into the next). */
export interface Block {
  readonly page: number
  /** Page of the second part of a crossing instruction, else -1. */
  readonly secondPage: number
  readonly bytes: Uint8Array
  readonly instructions: readonly CompiledInstruction[]
  /** Steps to take before events are looked at: more than instructions when the last repeats. */
  readonly steps: number
}

/** Iterations of a repeated string instruction before events are looked at again. */
const MOST_ITERATIONS = 256

const MOST_INSTRUCTIONS = 48
const MOST_BLOCKS = 1 << 16

const emitter = new Emitter()

/** The operations of a decoded instruction. */
export function compile(insn: Instruction): readonly IrOp[] {
  emitter.start(insn)
  if (insn.encoding.attributes.has('cpl0')) emitter.call(requireSupervisor)
  insn.encoding.emit(emitter)
  return emitter.finish()
}

function compileFault(vector: number, error?: number): readonly IrOp[] {
  emitter.begin()
  emitter.trap(vector, error)
  return emitter.finish()
}

function compiled(d: Exclude<Decoded, 'short'>): CompiledInstruction {
  if (d === 'ud' || d === 'gp') {
    const ops = d === 'ud' ? compileFault(VECTOR.UD) : compileFault(VECTOR.GP, 0)
    return { ops, length: 1n, repeats: false }
  }
  const { attributes } = d.encoding
  return {
    ops: compile(d),
    length: BigInt(d.length),
    repeats: d.repeat !== '' && (attributes.has('rep') || attributes.has('repz')),
  }
}

const endsBlock = (d: Exclude<Decoded, 'short'>): boolean =>
  typeof d === 'string' || d.encoding.attributes.has('ends')

/** Finds or makes the block at a physical address. */
export class CodeCache {
  #space: CodeMemory
  #blocks = new Map<number, Block>()
  #region: { readonly base: number; readonly size: number; readonly bytes: Uint8Array } | undefined
  #generation = -1

  constructor(space: CodeMemory) {
    this.#space = space
  }

  /** Fetches from other memory from now on. */
  useMemory(space: CodeMemory): void {
    this.#space = space
    this.#generation = -1
    this.#region = undefined
    this.#blocks = new Map()
  }

  /**
   * The block at `address`. `second` answers where the next page is when an instruction reaches into it, or -1 having
   * raised a fault; then the answer is undefined.
   */
  find(address: number, second: () => number): Block | undefined {
    const known = this.#blocks.get(address)
    if (known) {
      const other = known.secondPage < 0 ? -1 : second()
      if (known.secondPage >= 0 && other < 0) return undefined
      if (this.#unchanged(known, address, other)) return known
    }
    return this.#make(address, second)
  }

  /** The RAM that holds an address, remembered from the last time. */
  #ram(address: number) {
    const r = this.#region
    if (r && this.#generation === this.#space.generation) {
      if (address >= r.base && address < r.base + r.size) return r
    }
    this.#generation = this.#space.generation
    this.#region = this.#space.ramAt(address)
    return this.#region
  }

  #unchanged(block: Block, address: number, second: number): boolean {
    const ram = this.#ram(address)
    if (!ram) return false
    const { bytes } = block
    const inPage = block.secondPage < 0 ? bytes.length : 4096 - (address % 4096)
    const at = address - ram.base
    for (let i = 0; i < inPage; i++) if (ram.bytes[at + i] !== bytes[i]) return false
    if (block.secondPage < 0) return true
    if (Math.floor(second / 4096) !== block.secondPage) return false
    const rest = new Uint8Array(bytes.length - inPage)
    this.#space.read(second, rest)
    return rest.every((v, i) => v === bytes[inPage + i])
  }

  #make(address: number, second: () => number): Block | undefined {
    const page = Math.floor(address / 4096)
    const left = 4096 - (address % 4096)
    // Outside RAM a fetch reads no further than one instruction can reach.
    const most = this.#ram(address) ? MOST_INSTRUCTIONS * MAX_LENGTH : MAX_LENGTH
    const code = new Uint8Array(Math.min(left, most))
    this.#space.read(address, code)
    const instructions: CompiledInstruction[] = []
    let at = 0
    let seen = 0
    while (at < code.length && instructions.length < MOST_INSTRUCTIONS) {
      const d = decode(code.subarray(at, at + MAX_LENGTH))
      if (d === 'short') break
      const insn = compiled(d)
      instructions.push(insn)
      seen = typeof d === 'string' ? Math.min(code.length, at + MAX_LENGTH) : at + d.length
      if (endsBlock(d) || insn.repeats) break
      at = seen
    }
    if (instructions.length === 0) return this.#crossing(address, code, second)
    return this.#keep(address, {
      page,
      secondPage: -1,
      bytes: code.slice(0, seen),
      instructions,
      steps: instructions.length + (instructions.at(-1)!.repeats ? MOST_ITERATIONS : 0),
    })
  }

  #crossing(address: number, head: Uint8Array, second: () => number): Block | undefined {
    const other = second()
    if (other < 0) return undefined
    const bytes = new Uint8Array(MAX_LENGTH)
    bytes.set(head)
    this.#space.read(other, bytes, head.length, MAX_LENGTH - head.length)
    const d = decode(bytes)
    if (d === 'short') throw new Error('15 bytes hold every instruction')
    const insn = compiled(d)
    return this.#keep(address, {
      page: Math.floor(address / 4096),
      secondPage: Math.floor(other / 4096),
      bytes: typeof d === 'string' ? bytes : bytes.slice(0, d.length),
      instructions: [insn],
      steps: insn.repeats ? MOST_ITERATIONS : 1,
    })
  }

  /** Code outside RAM may read differently every time and is not kept. */
  #keep(address: number, block: Block): Block {
    if (this.#ram(address)) {
      if (this.#blocks.size >= MOST_BLOCKS) this.#blocks = new Map()
      this.#blocks.set(address, block)
    }
    return block
  }
}
