// Decoded code by physical address, and running it. A block is used only while memory still holds the words it was
// made of, so code changed by anyone (the guest, the VMM, a device) is seen at the next block.

import type { AddressSpace } from '../../mem/address-space.js'
import { evaluate } from '../ir/evaluator.js'
import type { IrOp } from '../ir/ops.js'
import { decode } from './decode.js'
import { Emitter } from './emitter.js'
import type { A64Machine } from './machine.js'
import { SLOT } from './registers.js'

/** An instruction ready to run. */
export interface CompiledInstruction {
  readonly ops: readonly IrOp[]
  /** It reads or writes PC or NEXT, or calls a routine that may. */
  readonly usesPc: boolean
}

/** Instructions one after another inside one page. */
export interface Block {
  readonly address: number
  readonly page: number
  readonly words: Int32Array
  readonly instructions: readonly CompiledInstruction[]
}

const MOST_INSTRUCTIONS = 64
const MOST_BLOCKS = 1 << 16
/** Entries of the direct-mapped table before the map. */
const RECENT = 1 << 12

const emitter = new Emitter()

const usesPc = (op: IrOp): boolean =>
  op.routine !== undefined ||
  [op.a, op.b, op.c, op.d].some(slot => slot === SLOT.PC || slot === SLOT.NEXT)

/** What a word does, and whether it ends a block. UNDEFINED words raise. */
export function compile(word: number): { instruction: CompiledInstruction; ends: boolean } {
  emitter.begin()
  const insn = decode(word)
  if (insn) insn.encoding.emit(emitter, insn.fields)
  else emitter.undefined()
  const ops = emitter.finish()
  return {
    instruction: { ops, usesPc: ops.some(usesPc) },
    ends: insn === undefined || insn.encoding.ends,
  }
}

/** Finds or makes the block at a physical address. */
export class CodeCache {
  readonly #space: AddressSpace
  #blocks = new Map<number, Block>()
  #recent: (Block | undefined)[] = new Array(RECENT)
  #base = 0
  #end = -1
  #words: Int32Array = new Int32Array(0)
  #generation = -1

  constructor(space: AddressSpace) {
    this.#space = space
  }

  /** The block at `address`, a multiple of four. */
  find(address: number): Block {
    const recent = this.#recent[(address / 4) & (RECENT - 1)]
    if (recent !== undefined && recent.address === address && this.#unchanged(recent)) return recent
    const known = this.#blocks.get(address)
    const block = known !== undefined && this.#unchanged(known) ? known : this.#make(address)
    this.#recent[(address / 4) & (RECENT - 1)] = block
    return block
  }

  /** Makes `#words` the RAM around an address; false outside RAM. */
  #ram(address: number): boolean {
    if (this.#generation === this.#space.generation) {
      if (address >= this.#base && address < this.#end) return true
    }
    this.#generation = this.#space.generation
    this.#end = -1
    const ram = this.#space.ramAt(address)
    if (ram === undefined || ram.bytes.byteOffset % 4 !== 0) return false
    const { buffer, byteOffset, length } = ram.bytes
    this.#base = ram.base
    this.#end = ram.base + ram.size
    this.#words = new Int32Array(buffer, byteOffset, length >> 2)
    return true
  }

  #unchanged(block: Block): boolean {
    if (!this.#ram(block.address)) return false
    const { words } = block
    const ram = this.#words
    const at = (block.address - this.#base) / 4
    for (let i = 0; i < words.length; i++) if (ram[at + i] !== words[i]) return false
    return true
  }

  #make(address: number): Block {
    const page = Math.floor(address / 4096)
    const inRam = this.#ram(address)
    // Outside RAM a fetch reads one instruction and no more.
    const most = inRam ? Math.min(MOST_INSTRUCTIONS, ((page + 1) * 4096 - address) / 4) : 1
    const bytes = new Uint8Array(4 * most)
    this.#space.read(address, bytes)
    const words = new Int32Array(bytes.buffer)
    const instructions: CompiledInstruction[] = []
    for (const word of words) {
      const { instruction, ends } = compile(word)
      instructions.push(instruction)
      if (ends) break
    }
    const block = { address, page, words: words.slice(0, instructions.length), instructions }
    // Code outside RAM may read differently every time and is not kept.
    if (inRam) {
      if (this.#blocks.size >= MOST_BLOCKS) this.#blocks = new Map()
      this.#blocks.set(address, block)
    }
    return block
  }
}

/**
 * Runs at most `most` instructions of the block at PC. Answers how many retired; PC is then that of the next one, or,
 * with `state.abort` set, of the one that ended early. Stops after a store into the block's own page.
 */
export function runBlock(m: A64Machine, block: Block, most: number): number {
  const { state, memory } = m
  const { r32 } = state
  const { instructions, page } = block
  const lo = r32[2 * SLOT.PC]!
  const hi = r32[2 * SLOT.PC + 1]!
  const n = Math.min(instructions.length, most)
  memory.storedPage = memory.storedFirstPage = -1
  let done = 0
  while (done < n) {
    const insn = instructions[done]!
    if (insn.usesPc) {
      r32[2 * SLOT.PC] = lo + 4 * done
      const next = (lo + 4 * done + 4) | 0
      r32[2 * SLOT.NEXT] = next
      r32[2 * SLOT.NEXT + 1] = next === 0 ? hi + 1 : hi
      if (!evaluate(insn.ops, state, memory, m)) return done
      done++
      r32[2 * SLOT.PC] = r32[2 * SLOT.NEXT]!
      r32[2 * SLOT.PC + 1] = r32[2 * SLOT.NEXT + 1]!
      if (done === n) return done
    } else {
      if (!evaluate(insn.ops, state, memory, m)) {
        r32[2 * SLOT.PC] = lo + 4 * done
        return done
      }
      done++
    }
    if (memory.storedPage === page || memory.storedFirstPage === page) break
  }
  const pc = (lo + 4 * done) | 0
  r32[2 * SLOT.PC] = pc
  r32[2 * SLOT.PC + 1] = pc === 0 ? hi + 1 : hi
  return done
}
