// The intermediate representation: few, typed, side-effect-explicit operations over numbered 64-bit slots.
// An i64 operand is a whole slot, an i32 operand its low half. Registers are slots too, so an operation may name them
// directly. Every operation has an obvious WebAssembly counterpart; evaluator.ts gives the reference meaning.

/**
 * One row an operation: number, result type, operand types, and what it may do besides writing `d`.
 * `effect`: '' none, 'memory' may abort the instruction, 'trap' may raise, 'skip' passes over following operations,
 * 'call' runs a named routine of the architecture.
 */
interface OpRow {
  readonly code: number
  readonly result: 'i64' | 'i32' | 'none'
  readonly operands: string
  readonly effect: '' | 'memory' | 'trap' | 'skip' | 'call'
}

let next = 0
const op = (result: OpRow['result'], operands = '', effect: OpRow['effect'] = ''): OpRow => ({
  code: next++,
  result,
  operands,
  effect,
})

/** Every operation. Operand letters: a b c slots, n the number `imm`, k the constant `big`, h a routine. */
// biome-ignore format: table
export const OPS = {
  'i64.const':   op('i64', 'k'),
  'i64.mov':     op('i64', 'a'),
  'i64.add':     op('i64', 'a b'),
  'i64.sub':     op('i64', 'a b'),
  'i64.mul':     op('i64', 'a b'),
  'i64.and':     op('i64', 'a b'),
  'i64.or':      op('i64', 'a b'),
  'i64.xor':     op('i64', 'a b'),
  'i64.shl':     op('i64', 'a b'),           // shift counts are i32 and taken modulo the width
  'i64.shru':    op('i64', 'a b'),
  'i64.shrs':    op('i64', 'a b'),
  'i64.clz':     op('i32', 'a'),             // 64 for zero
  'i64.ctz':     op('i32', 'a'),
  'i64.popcnt':  op('i32', 'a'),
  'i64.eqz':     op('i32', 'a'),
  'i64.mulhu':   op('i64', 'a b'),           // bits 127:64 of the product
  'i64.mulhs':   op('i64', 'a b'),
  'i64.select':  op('i64', 'c a b'),         // a when c is not zero
  'i64.bswap':   op('i64', 'a'),
  'i64.address': op('i64', 'a b n k'),       // a + b * n + k
  'i64.extendu': op('i64', 'a'),             // from i32
  'i64.extends': op('i64', 'a'),

  'i32.const':   op('i32', 'n'),
  'i32.mov':     op('i32', 'a'),             // also narrows an i64
  'i32.add':     op('i32', 'a b'),
  'i32.sub':     op('i32', 'a b'),
  'i32.mul':     op('i32', 'a b'),
  'i32.and':     op('i32', 'a b'),
  'i32.andk':    op('i32', 'a n'),
  'i32.or':      op('i32', 'a b'),
  'i32.xor':     op('i32', 'a b'),
  'i32.shl':     op('i32', 'a b'),
  'i32.shru':    op('i32', 'a b'),
  'i32.shrs':    op('i32', 'a b'),
  'i32.eqz':     op('i32', 'a'),
  'i32.eq':      op('i32', 'a b'),
  'i32.ltu':     op('i32', 'a b'),
  'i32.select':  op('i32', 'c a b'),
  'i32.bswap':   op('i32', 'a'),
  'i32.extend8': op('i32', 'a'),             // sign of bit 7 upwards
  'i32.extend16': op('i32', 'a'),

  'byte.get':    op('i32', 'a n'),           // byte n of slot a
  'byte.put':    op('none', 'd a n'),        // byte n of slot d, the rest stays
  'word.put':    op('none', 'd a'),          // bits 15:0 of slot d, the rest stays

  // x86 status flags (CF PF AF ZF SF OF in their EFLAGS places), merged into slot d under a mask.
  // n holds the width in bits in 7:0 and the mask above; c is what the operation made of a and b, and of a carry.
  'status.add':   op('none', 'd a b c n'),
  'status.sub':   op('none', 'd a b c n'),
  'status.logic': op('none', 'd c n'),
  'status.put':   op('none', 'd a n'),       // bits of a; n is the mask alone
  'status.test':  op('i32', 'a n'),          // x86 condition n, 0 to 15, of the flags in a

  // n is the access (READ, WRITE, MODIFY and what modifies them); the address is linear, an i64.
  'load.8':      op('i32', 'a n', 'memory'),
  'load.16':     op('i32', 'a n', 'memory'),
  'load.32':     op('i32', 'a n', 'memory'),
  'load.64':     op('i64', 'a n', 'memory'),
  'store.8':     op('none', 'a b n', 'memory'),
  'store.16':    op('none', 'a b n', 'memory'),
  'store.32':    op('none', 'a b n', 'memory'),
  'store.64':    op('none', 'a b n', 'memory'),

  // Quotient to d and remainder to d + 1 of the double-width a:b by c, in n bits; raises vector k.
  'divide.u':    op('i64', 'a b c n k', 'trap'),
  'divide.s':    op('i64', 'a b c n k', 'trap'),
  'trap':        op('none', 'n k', 'trap'),  // raises vector n with error code k (negative: none)
  'skip.zero':   op('none', 'a n', 'skip'),  // passes over n operations when a is zero
  'call':        op('none', 'h d a b n k', 'call'),
} as const satisfies Record<string, OpRow>

export type OpName = keyof typeof OPS

/** Names by number. */
export const OP_NAMES = Object.keys(OPS) as OpName[]

/** What an evaluator needs of the architecture's state. */
export interface IrContext {
  readonly r64: BigUint64Array
  readonly r32: Int32Array
  readonly r8: Uint8Array
  /** Not zero once the instruction must end early. */
  abort: number
  raise(vector: number, error?: number): void
}

/** Memory by linear address, as signed halves; see x86/ports.ts for the full promise. */
export interface IrMemory {
  load(hi: number, lo: number, size: number, access: number): number
  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void
  store(hi: number, lo: number, size: number, value: number, access: number): void
  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void
}

/** A routine too large or too stateful for operations: descriptor loads, event returns, ports. */
export interface Routine<C = never> {
  readonly name: string
  run(context: C, op: IrOp): void
}

/** One operation. Fields that the row does not name are zero. */
export interface IrOp {
  readonly code: number
  readonly d: number
  readonly a: number
  readonly b: number
  readonly c: number
  /** `imm` of a skip is filled in when its end is known. */
  imm: number
  readonly big: bigint
  readonly routine: Routine | undefined
}
