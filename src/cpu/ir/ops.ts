// The intermediate representation: few, typed, side-effect-explicit operations over numbered 64-bit slots.
// An i64 operand is a whole slot, an i32 operand its low half; an i32 result clears the upper half of its slot.
// Registers are slots too, so an operation may name them directly. Most operations are one WebAssembly instruction
// (docs/decisions/0015-wasm-lowering.md); evaluator.ts gives the reference meaning.

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

const op = (
  code: number,
  result: OpRow['result'],
  operands = '',
  effect: OpRow['effect'] = '',
): OpRow => ({ code, result, operands, effect })

/** Every operation, by name; the numbers are those of the evaluator's switch. Operand letters: a b c slots, n the number `imm`, k the constant `big`, h a routine. */
// biome-ignore format: table
export const OPS = {
  'i64.const':   op(0, 'i64', 'k'),
  'i64.mov':     op(1, 'i64', 'a'),
  'i64.add':     op(2, 'i64', 'a b'),
  'i64.sub':     op(3, 'i64', 'a b'),
  'i64.mul':     op(4, 'i64', 'a b'),
  'i64.and':     op(5, 'i64', 'a b'),
  'i64.or':      op(6, 'i64', 'a b'),
  'i64.xor':     op(7, 'i64', 'a b'),
  'i64.shl':     op(8, 'i64', 'a b'),           // shift counts are i32 and taken modulo the width
  'i64.shru':    op(9, 'i64', 'a b'),
  'i64.shrs':    op(10, 'i64', 'a b'),
  'i64.clz':     op(11, 'i32', 'a'),             // 64 for zero
  'i64.ctz':     op(12, 'i32', 'a'),
  'i64.popcnt':  op(13, 'i32', 'a'),
  'i64.eqz':     op(14, 'i32', 'a'),
  'i64.mulhu':   op(15, 'i64', 'a b'),           // bits 127:64 of the product
  'i64.mulhs':   op(16, 'i64', 'a b'),
  'i64.select':  op(17, 'i64', 'c a b'),         // a when c is not zero
  'i64.bswap':   op(18, 'i64', 'a'),
  'i64.address': op(19, 'i64', 'a b n k'),       // a + b * n + k
  'i64.extendu': op(20, 'i64', 'a'),             // from i32
  'i64.extends': op(21, 'i64', 'a'),

  'i32.const':   op(22, 'i32', 'n'),
  'i32.mov':     op(23, 'i32', 'a'),             // also narrows an i64
  'i32.add':     op(24, 'i32', 'a b'),
  'i32.sub':     op(25, 'i32', 'a b'),
  'i32.mul':     op(26, 'i32', 'a b'),
  'i32.and':     op(27, 'i32', 'a b'),
  'i32.andk':    op(28, 'i32', 'a n'),
  'i32.or':      op(29, 'i32', 'a b'),
  'i32.xor':     op(30, 'i32', 'a b'),
  'i32.shl':     op(31, 'i32', 'a b'),
  'i32.shru':    op(32, 'i32', 'a b'),
  'i32.shrs':    op(33, 'i32', 'a b'),
  'i32.eqz':     op(34, 'i32', 'a'),
  'i32.eq':      op(35, 'i32', 'a b'),
  'i32.ltu':     op(36, 'i32', 'a b'),
  'i32.select':  op(37, 'i32', 'c a b'),
  'i32.bswap':   op(38, 'i32', 'a'),
  'i32.extend8': op(39, 'i32', 'a'),             // sign of bit 7 upwards
  'i32.extend16': op(40, 'i32', 'a'),

  'byte.get':    op(41, 'i32', 'a n'),           // byte n of slot a
  'byte.put':    op(42, 'none', 'd a n'),        // byte n of slot d, the rest stays
  'word.put':    op(43, 'none', 'd a'),          // bits 15:0 of slot d, the rest stays

  // x86 status flags (CF PF AF ZF SF OF in their EFLAGS places), merged into slot d under a mask.
  // n holds the width in bits in 7:0 and the mask above; c is what the operation made of a and b, and of a carry.
  'status.add':   op(44, 'none', 'd a b c n'),
  'status.sub':   op(45, 'none', 'd a b c n'),
  'status.logic': op(46, 'none', 'd c n'),
  'status.put':   op(47, 'none', 'd a n'),       // bits of a; n is the mask alone
  'status.test':  op(48, 'i32', 'a n'),          // x86 condition n, 0 to 15, of the flags in a

  // n is the access (READ, WRITE, MODIFY and what modifies them); the address is linear, an i64.
  'load.8':      op(49, 'i32', 'a n', 'memory'),
  'load.16':     op(50, 'i32', 'a n', 'memory'),
  'load.32':     op(51, 'i32', 'a n', 'memory'),
  'load.64':     op(52, 'i64', 'a n', 'memory'),
  'store.8':     op(53, 'none', 'a b n', 'memory'),
  'store.16':    op(54, 'none', 'a b n', 'memory'),
  'store.32':    op(55, 'none', 'a b n', 'memory'),
  'store.64':    op(56, 'none', 'a b n', 'memory'),

  // Quotient to d and remainder to d + 1 of the double-width a:b by c, in n bits; raises vector k.
  'divide.u':    op(57, 'i64', 'a b c n k', 'trap'),
  'divide.s':    op(58, 'i64', 'a b c n k', 'trap'),
  'trap':        op(59, 'none', 'n k', 'trap'),  // raises vector n with error code k (negative: none)
  'skip.zero':   op(60, 'none', 'a n', 'skip'),  // passes over n operations when a is zero
  'call':        op(61, 'none', 'h d a b n k', 'call'),

  // Operands in the operation itself: n is a count or an i32 taken with its sign, k 64 bits.
  'i64.addk':    op(62, 'i64', 'a n'),
  'i64.andk':    op(63, 'i64', 'a k'),
  'i64.shlk':    op(64, 'i64', 'a n'),
  'i64.shruk':   op(65, 'i64', 'a n'),
  'i64.shrsk':   op(66, 'i64', 'a n'),
  'i32.addk':    op(67, 'i32', 'a n'),
  'i32.shlk':    op(68, 'i32', 'a n'),
  'i32.shruk':   op(69, 'i32', 'a n'),
  'i32.shrsk':   op(70, 'i32', 'a n'),

  'i64.rotr':    op(71, 'i64', 'a b'),
  'i64.rotrk':   op(72, 'i64', 'a n'),
  'i32.rotr':    op(73, 'i32', 'a b'),
  'i64.ltu':     op(74, 'i32', 'a b'),
  'i64.lts':     op(75, 'i32', 'a b'),
  'i32.lts':     op(76, 'i32', 'a b'),
  'i32.clz':     op(77, 'i32', 'a'),             // 32 for zero
  'i64.rbit':    op(78, 'i64', 'a'),
  'i32.rbit':    op(79, 'i32', 'a'),
  'i64.divu':    op(80, 'i64', 'a b'),           // towards zero; by zero gives zero, and so no operation raises
  'i64.divs':    op(81, 'i64', 'a b'),           // the least number by -1 is itself
  'i32.divu':    op(82, 'i32', 'a b'),
  'i32.divs':    op(83, 'i32', 'a b'),
  'i64.muladd':  op(84, 'i64', 'a b c'),         // c + a * b
  'i64.mulsub':  op(85, 'i64', 'a b c'),         // c - a * b

  // Arm's flags (N Z C V in bits 31:28), written to slot d; operands as those of status.add. n is the width in bits.
  'nzcv.add':    op(86, 'i32', 'a b c n'),
  'nzcv.sub':    op(87, 'i32', 'a b c n'),       // C is set when there was no borrow
  'nzcv.logic':  op(88, 'i32', 'c n'),
  'nzcv.test':   op(89, 'i32', 'a n'),           // Arm condition n, 0 to 15, of the flags in a

  // Sixteen bytes to or from slots d or b and the one after it.
  'load.128':    op(90, 'none', 'd a n', 'memory'),
  'store.128':   op(91, 'none', 'a b n', 'memory'),

  'skip.set':    op(92, 'none', 'a n', 'skip'),  // passes over n operations when a is not zero
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
  /** Only of architectures with 128-bit registers: four words from `at`. */
  load128?(hi: number, lo: number, access: number, into: Int32Array, at: number): void
  store128?(hi: number, lo: number, access: number, from: Int32Array, at: number): void
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
