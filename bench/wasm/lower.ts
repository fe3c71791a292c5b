// A spike, not an engine: the operations of one A64 block that branches to its own start, as a WebAssembly function.
// Slots become locals for as long as the loop runs. Flags are kept as the operands that made them until somebody asks.
// docs/decisions/0015-wasm-lowering.md says what is learnt from it.

import type { Block } from '../../src/cpu/a64/code-cache.js'
import { SLOT, SLOTS } from '../../src/cpu/a64/registers.js'
import { type IrOp, OP_NAMES, OPS, type OpName } from '../../src/cpu/ir/ops.js'
import { Code, moduleOf, type OP } from './encoder.js'

type WasmOp = keyof typeof OP

/** Where things are in the memory that function and guest share. */
export const LAYOUT = {
  /** The slots of `A64State`. */
  slots: 0,
  /** 256 entries of 16 bytes by bits 19:12 of the address: page address, then what to add for the place in memory. */
  tlb: 0x1000,
  ram: 0x1_0000,
} as const

// biome-ignore format: table
const BINARY: Partial<Record<OpName, WasmOp>> = {
  'i64.add': 'i64.add', 'i64.sub': 'i64.sub', 'i64.mul': 'i64.mul', 'i64.and': 'i64.and', 'i64.or': 'i64.or', 'i64.xor': 'i64.xor',
  'i64.shl': 'i64.shl', 'i64.shru': 'i64.shr_u', 'i64.shrs': 'i64.shr_s', 'i64.rotr': 'i64.rotr',
  'i64.ltu': 'i64.lt_u', 'i64.lts': 'i64.lt_s',
  'i32.add': 'i32.add', 'i32.sub': 'i32.sub', 'i32.mul': 'i32.mul', 'i32.and': 'i32.and', 'i32.or': 'i32.or', 'i32.xor': 'i32.xor',
  'i32.shl': 'i32.shl', 'i32.shru': 'i32.shr_u', 'i32.shrs': 'i32.shr_s', 'i32.rotr': 'i32.rotr',
  'i32.eq': 'i32.eq', 'i32.ltu': 'i32.lt_u', 'i32.lts': 'i32.lt_s',
}

/** With a constant second operand: `imm` sign-extended, except where `big` is it. */
// biome-ignore format: table
const CONSTANT: Partial<Record<OpName, WasmOp>> = {
  'i64.addk': 'i64.add', 'i64.andk': 'i64.and', 'i64.shlk': 'i64.shl', 'i64.shruk': 'i64.shr_u', 'i64.shrsk': 'i64.shr_s', 'i64.rotrk': 'i64.rotr',
  'i32.addk': 'i32.add', 'i32.andk': 'i32.and', 'i32.shlk': 'i32.shl', 'i32.shruk': 'i32.shr_u', 'i32.shrsk': 'i32.shr_s',
}

// biome-ignore format: table
const UNARY: Partial<Record<OpName, WasmOp>> = {
  'i64.eqz': 'i64.eqz', 'i32.eqz': 'i32.eqz', 'i32.clz': 'i32.clz', 'i32.extend8': 'i32.extend8_s', 'i32.extend16': 'i32.extend16_s',
}

// biome-ignore format: table
const ACCESSES: Partial<Record<OpName, readonly [WasmOp, number]>> = {
  'load.8': ['i64.load8_u', 1], 'load.16': ['i64.load16_u', 2], 'load.32': ['i64.load32_u', 4], 'load.64': ['i64.load', 8],
  'store.8': ['i64.store8', 1], 'store.16': ['i64.store16', 2], 'store.32': ['i64.store32', 4], 'store.64': ['i64.store', 8],
}

/** What the flags are now: the slot itself, or an addition, subtraction or logical result not yet turned into flags. */
interface Flags {
  readonly name: 'slot' | 'nzcv.add' | 'nzcv.sub' | 'nzcv.logic'
  readonly bits: number
}

const IN_SLOT: Flags = { name: 'slot', bits: 64 }
const kindOf = (f: Flags): number =>
  ['slot', 'nzcv.add', 'nzcv.sub', 'nzcv.logic'].indexOf(f.name) * 2 + (f.bits === 64 ? 1 : 0)

/** Lowers one block. */
class Lowering {
  readonly code = new Code()
  readonly #block: Block
  /** Local of each slot in use. */
  readonly #locals = new Map<number, number>()
  readonly #written = new Set<number>()
  /** Flag producers, as they occur. */
  readonly #producers: Flags[] = []
  #flags: Flags | undefined
  #depth = 0

  // Locals: the argument (iterations to do), then i32 ones, then i64 ones.
  readonly #left = 0
  readonly #done = 1
  readonly #exitAt = 2
  readonly #kind = 3
  readonly #entry = 4
  readonly #i32Locals = 4
  readonly #address = 5
  readonly #of = { a: 6, b: 7, c: 8 }

  constructor(block: Block) {
    this.#block = block
    for (const op of block.ops) {
      const row = OPS[OP_NAMES[op.code]!]
      const operands = row.operands.split(' ')
      for (const letter of ['a', 'b', 'c'] as const)
        if (operands.includes(letter)) this.#local(op[letter])
      if (row.result !== 'none') {
        this.#local(op.d)
        this.#written.add(op.d)
      }
    }
    for (const slot of [SLOT.PC, SLOT.NEXT, SLOT.NZCV]) {
      this.#local(slot)
      this.#written.add(slot)
    }
  }

  #local(slot: number): number {
    const known = this.#locals.get(slot)
    if (known !== undefined) return known
    const local = 9 + this.#locals.size
    this.#locals.set(slot, local)
    return local
  }

  #get64(slot: number): Code {
    return slot === SLOT.ZERO ? this.code.const64(0n) : this.code.get(this.#locals.get(slot)!)
  }

  #get32(slot: number): Code {
    return slot === SLOT.ZERO ? this.code.const32(0) : this.#get64(slot).op('i32.wrap_i64')
  }

  #set64(slot: number): void {
    this.code.set(this.#locals.get(slot)!)
  }

  /** An i32 on the stack becomes the slot. */
  #set32(slot: number): void {
    this.code.op('i64.extend_i32_u')
    this.#set64(slot)
  }

  /** The module, or undefined when an operation has no lowering here. */
  module(): Uint8Array | undefined {
    const { code } = this
    for (const [slot, local] of this.#locals)
      code
        .const32(LAYOUT.slots + 8 * slot)
        .memory('i64.load', 0)
        .set(local)
    code.const32(-1).set(this.#exitAt)
    code.open('block').open('loop')
    this.#depth = 2
    if (!this.#body()) return undefined
    // Round again: done iterations, budget, and NEXT back at the start.
    code.get(this.#done).const32(1).op('i32.add').set(this.#done)
    this.#get64(SLOT.NEXT)
    this.#get64(SLOT.PC).op('i64.eq')
    code.get(this.#left).const32(1).op('i32.sub').tee(this.#left).const32(0).op('i32.gt_s')
    code.op('i32.and').branch('br_if', 0)
    code.op('end').op('end')
    this.#epilogue()
    return moduleOf(code, { i32: this.#i32Locals, i64: 4 + this.#locals.size })
  }

  #body(): boolean {
    const { ops, starts } = this.#block
    const ends: number[] = []
    let instruction = -1
    for (let i = 0; i < ops.length; i++) {
      while (ends.at(-1) === i) {
        ends.pop()
        this.code.op('end')
        this.#depth--
      }
      while (starts[instruction + 1] === i) instruction++
      const op = ops[i]!
      const name = OP_NAMES[op.code]!
      if (name === 'skip.zero' || name === 'skip.set') {
        this.#get32(op.a)
        if (name === 'skip.set') this.code.op('i32.eqz')
        this.code.open('if')
        this.#depth++
        ends.push(i + 1 + op.imm)
      } else if (!this.#lower(name, op, instruction)) return false
    }
    for (const _ of ends) {
      this.code.op('end')
      this.#depth--
    }
    return true
  }

  #lower(name: OpName, op: IrOp, instruction: number): boolean {
    const { code } = this
    const wide = name.startsWith('i64')
    const get = (slot: number) => (wide ? this.#get64(slot) : this.#get32(slot))
    const set = () => (OPS[name].result === 'i64' ? this.#set64(op.d) : this.#set32(op.d))
    const [binary, constant, unary] = [BINARY[name], CONSTANT[name], UNARY[name]]
    const access = ACCESSES[name]
    if (binary) {
      get(op.a)
      get(op.b).op(binary)
      set()
    } else if (constant) {
      get(op.a)
      if (wide) code.const64(name === 'i64.andk' ? op.big : BigInt(op.imm))
      else code.const32(op.imm)
      code.op(constant)
      set()
    } else if (unary) {
      get(op.a).op(unary)
      set()
    } else if (access) this.#access(access, op, instruction)
    else if (name === 'i64.const') code.const64(op.big).set(this.#locals.get(op.d)!)
    else if (name === 'i32.const') code.const64(BigInt(op.imm >>> 0)).set(this.#locals.get(op.d)!)
    else if (name === 'i64.mov') this.#get64(op.a).set(this.#locals.get(op.d)!)
    else if (name === 'i32.mov' || name === 'i64.extendu') {
      this.#get32(op.a)
      this.#set32(op.d)
    } else if (name === 'i64.extends') {
      this.#get32(op.a).op('i64.extend_i32_s')
      this.#set64(op.d)
    } else if (name === 'i64.clz') {
      this.#get64(op.a).op('i64.clz')
      this.#set64(op.d)
    } else if (name === 'i64.select' || name === 'i32.select') {
      get(op.a)
      get(op.b)
      this.#get32(op.c).op('select')
      set()
      if (op.d === SLOT.NZCV) {
        this.#flags = IN_SLOT
        code.const32(kindOf(IN_SLOT)).set(this.#kind)
      }
    } else if (name === 'i64.muladd' || name === 'i64.mulsub') {
      this.#get64(op.c)
      this.#get64(op.a)
      this.#get64(op.b)
        .op('i64.mul')
        .op(name === 'i64.muladd' ? 'i64.add' : 'i64.sub')
      this.#set64(op.d)
    } else if (name === 'nzcv.add' || name === 'nzcv.sub' || name === 'nzcv.logic') {
      if (op.d !== SLOT.NZCV) return false
      this.#produce(name, op)
    } else if (name === 'nzcv.test') {
      if (op.a !== SLOT.NZCV || this.#flags === undefined) return false
      this.#test(this.#flags, op.imm)
      this.#set32(op.d)
    } else return false
    return true
  }

  /** Keeps the operands; which operation it was is also known at run time, for the way out. */
  #produce(name: 'nzcv.add' | 'nzcv.sub' | 'nzcv.logic', op: IrOp): void {
    const flags = { name, bits: op.imm }
    if (!this.#producers.some(p => kindOf(p) === kindOf(flags))) this.#producers.push(flags)
    if (name !== 'nzcv.logic') {
      this.#get64(op.a).set(this.#of.a)
      this.#get64(op.b).set(this.#of.b)
    }
    this.#get64(op.c).set(this.#of.c)
    this.code.const32(kindOf(flags)).set(this.#kind)
    this.#flags = flags
  }

  /** N, Z, C or V as 0 or 1. */
  #flag(f: Flags, flag: 'N' | 'Z' | 'C' | 'V'): void {
    const { code } = this
    const { a, b, c } = this.#of
    const top = BigInt(f.bits - 1)
    if (f.name === 'slot') {
      const bit = { N: 31, Z: 30, C: 29, V: 28 }[flag]
      this.#get32(SLOT.NZCV).const32(bit).op('i32.shr_u').const32(1).op('i32.and')
      return
    }
    if (flag === 'Z') {
      if (f.bits === 64) code.get(c).op('i64.eqz')
      else code.get(c).op('i32.wrap_i64').op('i32.eqz')
      return
    }
    if (f.name === 'nzcv.logic' && flag !== 'N') {
      code.const32(0)
      return
    }
    const other = () => {
      code.get(b)
      if (f.name === 'nzcv.sub') code.const64(-1n).op('i64.xor')
    }
    if (flag === 'N') code.get(c)
    else if (flag === 'C') {
      // (a & b) | ((a | b) & ~c), b inverted for a subtraction
      code.get(a)
      other()
      code.op('i64.and').get(a)
      other()
      code.op('i64.or').get(c).const64(-1n).op('i64.xor').op('i64.and').op('i64.or')
    } else {
      code.get(a).get(c).op('i64.xor')
      other()
      code.get(c).op('i64.xor').op('i64.and')
    }
    code.const64(top).op('i64.shr_u').op('i32.wrap_i64').const32(1).op('i32.and')
  }

  /** Condition `n` as 0 or 1. */
  #test(f: Flags, n: number): void {
    const { code } = this
    const not = () => code.op('i32.eqz')
    const signedLess = () => {
      this.#flag(f, 'N')
      this.#flag(f, 'V')
      code.op('i32.xor')
    }
    const pair = n >> 1
    if (pair === 7) code.const32(1)
    else if (pair < 4) this.#flag(f, (['Z', 'C', 'N', 'V'] as const)[pair]!)
    else if (pair === 4) {
      this.#flag(f, 'C')
      this.#flag(f, 'Z')
      not().op('i32.and')
    } else {
      signedLess()
      not()
      if (pair === 6) {
        this.#flag(f, 'Z')
        not().op('i32.and')
      }
    }
    if ((n & 1) === 1 && pair !== 7) not()
  }

  /** Looks the page up; leaves the loop before this instruction when it is not there or the address is misaligned. */
  #access([wasm, size]: readonly [WasmOp, number], op: IrOp, instruction: number): void {
    const { code } = this
    const store = wasm.includes('store')
    this.#get64(op.a).tee(this.#address)
    code
      .op('i32.wrap_i64')
      .const32(12)
      .op('i32.shr_u')
      .const32(255)
      .op('i32.and')
      .const32(4)
      .op('i32.shl')
      .tee(this.#entry)
    code.memory('i64.load', LAYOUT.tlb)
    code
      .get(this.#address)
      .const64(~BigInt(0xfff & ~(size - 1)))
      .op('i64.and')
      .op('i64.ne')
    code.open('if').const32(instruction).set(this.#exitAt).branch('br', this.#depth).op('end')
    code
      .get(this.#address)
      .op('i32.wrap_i64')
      .get(this.#entry)
      .memory('i32.load', LAYOUT.tlb + 8)
      .op('i32.add')
    if (store) this.#get64(op.b).memory(wasm, 0)
    else {
      code.memory(wasm, 0)
      this.#set64(op.d)
    }
  }

  /** Flags and PC become what they are, registers go back to memory; the result is the instructions done. */
  #epilogue(): void {
    const { code } = this
    for (const f of this.#producers) {
      code.get(this.#kind).const32(kindOf(f)).op('i32.eq').open('if')
      code.const32(0)
      for (const [flag, bit] of [
        ['N', 31],
        ['Z', 30],
        ['C', 29],
        ['V', 28],
      ] as const) {
        this.#flag(f, flag)
        code.const32(bit).op('i32.shl').op('i32.or')
      }
      this.#set32(SLOT.NZCV)
      code.op('end')
    }
    code.get(this.#exitAt).const32(0).op('i32.lt_s').open('if')
    this.#get64(SLOT.NEXT)
    this.#set64(SLOT.PC)
    code.op('end')
    code.get(this.#exitAt).const32(0).op('i32.lt_s').op('i32.eqz').open('if')
    this.#get64(SLOT.PC)
    code.get(this.#exitAt).const32(2).op('i32.shl').op('i64.extend_i32_u').op('i64.add')
    this.#set64(SLOT.PC)
    code.op('end')
    for (const slot of this.#written) {
      if (slot >= SLOT.TEMP) continue
      code.const32(LAYOUT.slots + 8 * slot)
      this.#get64(slot).memory('i64.store', 0)
    }
    code.get(this.#done).const32(this.#block.starts.length).op('i32.mul')
    code.get(this.#exitAt).const32(0).get(this.#exitAt).const32(0).op('i32.gt_s')
    code.op('select').op('i32.add')
  }
}

/** A module for a block, or undefined when it has an operation without lowering, or moves PC on the way. */
export function lower(block: Block): Uint8Array | undefined {
  if (!block.branches || block.ahead.some(n => n !== 0)) return undefined
  return new Lowering(block).module()
}

/** Bytes of the slots, copied in before and out after. */
export const SLOT_BYTES = 8 * SLOTS
