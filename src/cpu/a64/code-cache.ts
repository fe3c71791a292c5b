// Decoded code by physical address, and running it. A block is used only while memory still holds the words it was
// made of, so code changed by anyone (the guest, the VMM, a device) is seen at the next block.

import type { AddressSpace } from '../../mem/address-space.js'
import { run } from '../ir/evaluator.js'
import { type IrOp, OPS } from '../ir/ops.js'
import { decode } from './decode.js'
import { Emitter } from './emitter.js'
import type { A64Machine } from './machine.js'
import { SLOT } from './registers.js'

/**
 * Instructions one after another inside one page, as one list of operations. PC stays where the block began, unless an
 * instruction hands it to a routine: `ahead` says by how many bytes it was moved. Only the last instruction may use NEXT
 * to go elsewhere.
 */
export interface Block {
  readonly address: number
  readonly words: Int32Array
  readonly ops: readonly IrOp[]
  /** Index of each instruction's first operation. */
  readonly starts: readonly number[]
  /** PC's distance from the block's start while each instruction runs. */
  readonly ahead: readonly number[]
  /** The last instruction sets NEXT. */
  readonly branches: boolean
  /** Its first instruction alone, once somebody stepped. */
  first: Block | undefined
}

const MOST_INSTRUCTIONS = 64
const MOST_BLOCKS = 1 << 16
/** Entries of the direct-mapped table before the map. */
const RECENT = 1 << 12

const emitter = new Emitter()

const { code: ADDK } = OPS['i64.addk']

/** Whether an operation needs PC (and then NEXT) to be this instruction's: offsets from PC are corrected instead. */
const needsPc = (op: IrOp): boolean =>
  op.routine !== undefined ||
  op.b === SLOT.PC ||
  op.c === SLOT.PC ||
  (op.a === SLOT.PC && op.code !== ADDK)

const usesNext = (op: IrOp): boolean =>
  op.routine !== undefined || op.a === SLOT.NEXT || op.d === SLOT.NEXT

/** What a word does, and whether it ends a block. UNDEFINED words raise. */
export function compile(word: number): { ops: readonly IrOp[]; ends: boolean } {
  emitter.begin()
  const insn = decode(word)
  if (insn) insn.encoding.emit(emitter, insn.fields)
  else emitter.undefined()
  return { ops: emitter.finish(), ends: insn === undefined || insn.encoding.ends }
}

/** `d` = `a` + a constant, made as all operations are: engines like objects of one shape. */
const addk = (d: number, a: number, imm: number): IrOp => {
  emitter.begin()
  return emitter.emit('i64.addk', { d, a, imm })
}

/** The block of some words: all of them, or up to the first that ends it. */
export function compileBlock(address: number, words: Int32Array): Block {
  const ops: IrOp[] = []
  const starts: number[] = []
  const aheads: number[] = []
  let ahead = 0
  let branches = false
  for (let i = 0; i < words.length; i++) {
    const { ops: own, ends } = compile(words[i]!)
    const at = 4 * i
    starts.push(ops.length)
    if (at !== ahead && own.some(needsPc)) {
      ops.push(addk(SLOT.PC, SLOT.PC, at - ahead))
      ahead = at
    }
    branches = own.some(usesNext)
    if (branches) ops.push(addk(SLOT.NEXT, SLOT.PC, at + 4 - ahead))
    for (const op of own) {
      const offset = op.a === SLOT.PC && op.code === ADDK && at !== ahead
      ops.push(offset ? addk(op.d, op.a, op.imm + at - ahead) : op)
    }
    aheads.push(ahead)
    if (ends) break
  }
  const own = words.slice(0, starts.length)
  return { address, words: own, ops, starts, ahead: aheads, branches, first: undefined }
}

/** The block's first `most` instructions. */
function head(block: Block, most: number): Block {
  if (block.starts.length <= most) return block
  if (most > 1) return compileBlock(block.address, block.words.subarray(0, most))
  return (block.first ??= compileBlock(block.address, block.words.subarray(0, 1)))
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
    const inRam = this.#ram(address)
    // Outside RAM a fetch reads one instruction and no more.
    const most = inRam ? Math.min(MOST_INSTRUCTIONS, (4096 - (address % 4096)) / 4) : 1
    const bytes = new Uint8Array(4 * most)
    this.#space.read(address, bytes)
    const block = compileBlock(address, new Int32Array(bytes.buffer))
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
 * with `state.abort` set, of the one that ended early.
 */
export function runBlock(m: A64Machine, block: Block, most: number): number {
  const { r32 } = m.state
  const { ops, starts, ahead, branches } = head(block, most)
  const count = starts.length
  const end = run(ops, m.state, m.memory, m)
  if (end === ops.length) {
    if (branches) {
      r32[2 * SLOT.PC] = r32[2 * SLOT.NEXT]!
      r32[2 * SLOT.PC + 1] = r32[2 * SLOT.NEXT + 1]!
    } else movePc(r32, 4 * count - ahead[count - 1]!)
    return count
  }
  let i = count - 1
  while (starts[i]! > end) i--
  movePc(r32, 4 * i - ahead[i]!)
  return i
}

function movePc(r32: Int32Array, bytes: number): void {
  const lo = (r32[2 * SLOT.PC]! + bytes) | 0
  r32[2 * SLOT.PC] = lo
  if (lo >>> 0 < bytes) r32[2 * SLOT.PC + 1] = r32[2 * SLOT.PC + 1]! + 1
}
