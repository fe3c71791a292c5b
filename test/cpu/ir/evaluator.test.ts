// Every operation against values worked out by hand.

import { expect, it } from 'vitest'
import { IrBuilder } from '../../../src/cpu/ir/builder.js'
import { evaluate } from '../../../src/cpu/ir/evaluator.js'
import {
  type IrContext,
  type IrMemory,
  type IrOp,
  OP_NAMES,
  OPS,
  type OpName,
} from '../../../src/cpu/ir/ops.js'
import { printOps } from '../../../src/cpu/ir/print.js'

class Context implements IrContext {
  readonly r64 = new BigUint64Array(64)
  readonly r32 = new Int32Array(this.r64.buffer)
  readonly r8 = new Uint8Array(this.r64.buffer)
  abort = 0
  raised = ''
  raise(vector: number, error?: number): void {
    this.abort = 1
    this.raised = `${vector}/${error}`
  }
}

/** Sixteen bytes of memory; an access at 0xbad aborts. */
class Memory implements IrMemory {
  readonly view = new DataView(new ArrayBuffer(16))
  readonly seen: string[] = []
  readonly context: Context
  constructor(context: Context) {
    this.context = context
  }
  #refuses(lo: number, what: string): boolean {
    this.seen.push(what)
    if (lo === 0xbad) this.context.raise(14, 0)
    return lo === 0xbad
  }
  load(_hi: number, lo: number, size: number, access: number): number {
    if (this.#refuses(lo, `load ${size} ${access}`)) return 0
    if (size === 1) return this.view.getUint8(lo)
    return size === 2 ? this.view.getUint16(lo, true) : this.view.getInt32(lo, true)
  }
  load64(_hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (this.#refuses(lo, `load 8 ${access}`)) return
    into[at] = this.view.getInt32(lo, true)
    into[at + 1] = this.view.getInt32(lo + 4, true)
  }
  store(_hi: number, lo: number, size: number, value: number, access: number): void {
    if (this.#refuses(lo, `store ${size} ${access}`)) return
    if (size === 1) this.view.setUint8(lo, value)
    else if (size === 2) this.view.setUint16(lo, value, true)
    else this.view.setInt32(lo, value, true)
  }
  store64(_hi: number, lo: number, hi: number, low: number, access: number): void {
    if (this.#refuses(lo, `store 8 ${access}`)) return
    this.view.setInt32(lo, low, true)
    this.view.setInt32(lo + 4, hi, true)
  }
  load128(_hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    if (this.#refuses(lo, `load 16 ${access}`)) return
    for (let i = 0; i < 4; i++) into[at + i] = this.view.getInt32(lo + 4 * i, true)
  }
  store128(_hi: number, lo: number, access: number, from: Int32Array, at: number): void {
    if (this.#refuses(lo, `store 16 ${access}`)) return
    for (let i = 0; i < 4; i++) this.view.setInt32(lo + 4 * i, from[at + i]!, true)
  }
}

const [D, A, B, C] = [1, 4, 5, 6]
const op = (name: OpName, f: Partial<IrOp> = {}): IrOp => ({
  code: OPS[name].code,
  d: D,
  a: A,
  b: B,
  c: C,
  imm: 0,
  big: 0n,
  routine: undefined,
  ...f,
})

interface Row {
  readonly name: OpName
  readonly a?: bigint
  readonly b?: bigint
  readonly c?: bigint
  readonly f?: Partial<IrOp>
  readonly want: bigint
}

const ALL = 0xffff_ffff_ffff_ffffn
const MIN = 0x8000_0000_0000_0000n
const FLAGS = 0x8d5

// biome-ignore format: table
const rows: Row[] = [
  { name: 'i64.const', f: { big: -2n }, want: ALL - 1n },
  { name: 'i64.mov', a: 7n, want: 7n },
  { name: 'i64.add', a: ALL, b: 2n, want: 1n },
  { name: 'i64.sub', a: 1n, b: 2n, want: ALL },
  { name: 'i64.mul', a: ALL, b: ALL, want: 1n },
  { name: 'i64.and', a: 0xf0f0n, b: 0xff00n, want: 0xf000n },
  { name: 'i64.or', a: 0xf0n, b: 0x0fn, want: 0xffn },
  { name: 'i64.xor', a: 0xffn, b: 0x0fn, want: 0xf0n },
  { name: 'i64.shl', a: 3n, b: 63n, want: MIN },
  { name: 'i64.shl', a: 3n, b: 64n, want: 3n },
  { name: 'i64.shru', a: MIN, b: 63n, want: 1n },
  { name: 'i64.shrs', a: MIN, b: 63n, want: ALL },
  { name: 'i64.clz', a: 0n, want: 64n },
  { name: 'i64.clz', a: 1n << 40n, want: 23n },
  { name: 'i64.ctz', a: 0n, want: 64n },
  { name: 'i64.ctz', a: 1n << 40n, want: 40n },
  { name: 'i64.popcnt', a: ALL - 1n, want: 63n },
  { name: 'i64.eqz', a: MIN, want: 0n },
  { name: 'i64.eqz', a: 0n, want: 1n },
  { name: 'i64.mulhu', a: ALL, b: ALL, want: ALL - 1n },
  { name: 'i64.mulhs', a: ALL, b: ALL, want: 0n },
  { name: 'i64.mulhs', a: MIN, b: 2n, want: ALL },
  { name: 'i64.select', a: 1n, b: 2n, c: 5n, want: 1n },
  { name: 'i64.select', a: 1n, b: 2n, c: 0n, want: 2n },
  { name: 'i64.bswap', a: 0x0102030405060708n, want: 0x0807060504030201n },
  { name: 'i64.address', a: ALL, b: 3n, f: { imm: 8, big: -16n }, want: 7n },
  { name: 'i64.extendu', a: ALL, want: 0xffff_ffffn },
  { name: 'i64.extends', a: 0x8000_0000n, want: 0xffff_ffff_8000_0000n },
  { name: 'i32.const', f: { imm: -1 }, want: 0xffff_ffffn },
  { name: 'i32.mov', a: 0x1_0000_0002n, want: 2n },
  { name: 'i32.add', a: 0xffff_ffffn, b: 2n, want: 1n },
  { name: 'i32.sub', a: 0n, b: 1n, want: 0xffff_ffffn },
  { name: 'i32.mul', a: 0x1_0001n, b: 0x1_0001n, want: 0x2_0001n },
  { name: 'i32.and', a: 6n, b: 3n, want: 2n },
  { name: 'i32.andk', a: 0x1ffn, f: { imm: 0xff }, want: 0xffn },
  { name: 'i32.or', a: 4n, b: 1n, want: 5n },
  { name: 'i32.xor', a: 6n, b: 3n, want: 5n },
  { name: 'i32.shl', a: 1n, b: 33n, want: 2n },
  { name: 'i32.shru', a: 0x8000_0000n, b: 31n, want: 1n },
  { name: 'i32.shrs', a: 0x8000_0000n, b: 31n, want: 0xffff_ffffn },
  { name: 'i32.eqz', a: 0x1_0000_0000n, want: 1n },
  { name: 'i32.eq', a: 5n, b: 0x1_0000_0005n, want: 1n },
  { name: 'i32.ltu', a: 0x7fff_ffffn, b: 0x8000_0000n, want: 1n },
  { name: 'i32.select', a: 1n, b: 2n, c: 0n, want: 2n },
  { name: 'i32.bswap', a: 0x01020304n, want: 0x04030201n },
  { name: 'i32.extend8', a: 0x180n, want: 0xffff_ff80n },
  { name: 'i32.extend16', a: 0x1_8000n, want: 0xffff_8000n },
  { name: 'byte.get', a: 0x1234n, f: { imm: 1 }, want: 0x12n },
  // 0x7f + 1 = 0x80 in 8 bits: OF SF AF set; all other flags cleared from the old value.
  { name: 'status.add', a: 0x7fn, b: 1n, c: 0x80n, f: { imm: (FLAGS << 8) | 8 }, want: 0x890n },
  { name: 'status.add', a: ALL, b: 1n, c: 0n, f: { imm: (FLAGS << 8) | 64 }, want: 0x55n },
  { name: 'status.sub', a: 0n, b: 1n, c: 0xffffn, f: { imm: (FLAGS << 8) | 16 }, want: 0x95n },
  { name: 'status.sub', a: 0x8000_0000n, b: 1n, c: 0x7fff_ffffn, f: { imm: (FLAGS << 8) | 32 }, want: 0x814n },
  { name: 'status.logic', c: 0n, f: { imm: (FLAGS << 8) | 32 }, want: 0x44n },
  { name: 'status.put', a: ALL, f: { imm: 0x41 }, want: 0x41n },
  { name: 'status.test', a: 0x40n, f: { imm: 4 }, want: 1n },
  { name: 'load.8', a: 0n, f: { imm: 1 }, want: 0xf0n },
  { name: 'load.16', a: 0n, f: { imm: 1 }, want: 0xf1f0n },
  { name: 'load.32', a: 0n, f: { imm: 1 }, want: 0xf3f2_f1f0n },
  { name: 'load.64', a: 0n, f: { imm: 1 }, want: 0xf7f6_f5f4_f3f2_f1f0n },
  { name: 'i64.addk', a: 1n, f: { imm: -2 }, want: ALL },
  { name: 'i64.addk', a: 0xffff_ffffn, f: { imm: 1 }, want: 0x1_0000_0000n },
  { name: 'i64.andk', a: ALL, f: { big: MIN | 5n }, want: MIN | 5n },
  { name: 'i64.shlk', a: 3n, f: { imm: 63 }, want: MIN },
  { name: 'i64.shlk', a: MIN | 1n, f: { imm: 0 }, want: MIN | 1n },
  { name: 'i64.shlk', a: 0x8000_0001n, f: { imm: 1 }, want: 0x1_0000_0002n },
  { name: 'i64.shruk', a: MIN, f: { imm: 32 }, want: 0x8000_0000n },
  { name: 'i64.shruk', a: MIN | 6n, f: { imm: 1 }, want: 0x4000_0000_0000_0003n },
  { name: 'i64.shrsk', a: MIN, f: { imm: 33 }, want: 0xffff_ffff_c000_0000n },
  { name: 'i64.shrsk', a: MIN, f: { imm: 32 }, want: 0xffff_ffff_8000_0000n },
  { name: 'i64.shrsk', a: MIN, f: { imm: 4 }, want: 0xf800_0000_0000_0000n },
  { name: 'i32.addk', a: 0xffff_ffffn, f: { imm: 2 }, want: 1n },
  { name: 'i32.shlk', a: 3n, f: { imm: 31 }, want: 0x8000_0000n },
  { name: 'i32.shruk', a: 0x8000_0000n, f: { imm: 31 }, want: 1n },
  { name: 'i32.shrsk', a: 0x8000_0000n, f: { imm: 31 }, want: 0xffff_ffffn },
  { name: 'i64.rotr', a: 1n, b: 65n, want: MIN },
  { name: 'i64.rotr', a: 0x1_0000_0002n, b: 32n, want: 0x2_0000_0001n },
  { name: 'i64.rotrk', a: 0x1_0000_0003n, f: { imm: 33 }, want: 0x8000_0001_8000_0000n },
  { name: 'i32.rotr', a: 3n, b: 33n, want: 0x8000_0001n },
  { name: 'i64.ltu', a: 1n, b: MIN, want: 1n },
  { name: 'i64.lts', a: 1n, b: MIN, want: 0n },
  { name: 'i32.lts', a: 0x8000_0000n, b: 0n, want: 1n },
  { name: 'i32.clz', a: 0xf_0000_0000n, want: 32n },
  { name: 'i64.rbit', a: 0x8000_0000_0000_0003n, want: 0xc000_0000_0000_0001n },
  { name: 'i32.rbit', a: 0x0000_0503n, want: 0xc0a0_0000n },
  { name: 'i64.divu', a: ALL, b: 2n, want: MIN - 1n },
  { name: 'i64.divu', a: 5n, b: 0n, want: 0n },
  { name: 'i64.divs', a: ALL - 6n, b: 2n, want: ALL - 2n },
  { name: 'i64.divs', a: MIN, b: ALL, want: MIN },
  { name: 'i32.divu', a: 0xffff_fffen, b: 3n, want: 0x5555_5554n },
  { name: 'i32.divu', a: 9n, b: 0n, want: 0n },
  { name: 'i32.divs', a: 0xffff_fff9n, b: 2n, want: 0xffff_fffdn },
  { name: 'i32.divs', a: 0x8000_0000n, b: 0xffff_ffffn, want: 0x8000_0000n },
  { name: 'i64.muladd', a: ALL, b: 3n, c: 5n, want: 2n },
  { name: 'i64.mulsub', a: ALL, b: 3n, c: 5n, want: 8n },
  { name: 'nzcv.add', a: 0x7fff_ffffn, b: 1n, c: 0x8000_0000n, f: { imm: 32 }, want: 0x9000_0000n },
  { name: 'nzcv.add', a: ALL, b: 1n, c: 0n, f: { imm: 64 }, want: 0x6000_0000n },
  { name: 'nzcv.sub', a: 0n, b: 1n, c: ALL, f: { imm: 64 }, want: 0x8000_0000n },
  { name: 'nzcv.sub', a: 0x8000_0000n, b: 1n, c: 0x7fff_ffffn, f: { imm: 32 }, want: 0x3000_0000n },
  { name: 'nzcv.logic', c: MIN, f: { imm: 64 }, want: 0x8000_0000n },
  { name: 'nzcv.logic', c: MIN, f: { imm: 32 }, want: 0x4000_0000n },
  { name: 'nzcv.test', a: 0x9000_0000n, f: { imm: 10 }, want: 1n },
  { name: 'nzcv.test', a: 0x6000_0000n, f: { imm: 8 }, want: 0n },
  { name: 'nzcv.test', a: 0n, f: { imm: 15 }, want: 1n },
  { name: 'divide.u', a: 1n, b: 0n, c: 16n, f: { imm: 64 }, want: 1n << 60n },
  { name: 'divide.s', a: ALL, b: ALL - 6n, c: 2n, f: { imm: 64 }, want: ALL - 2n },
]

function run(o: IrOp, row: Partial<Row>): { context: Context; memory: Memory; ok: boolean } {
  const context = new Context()
  const memory = new Memory(context)
  for (let i = 0; i < 16; i++) memory.view.setUint8(i, 0xf0 + i)
  context.r64[A] = row.a ?? 0n
  context.r64[B] = row.b ?? 0n
  context.r64[C] = row.c ?? 0n
  // A result is the whole slot; what merges into a slot starts from zero.
  if (OPS[OP_NAMES[o.code]!].result !== 'none') context.r64[D] = 0xdead_beef_dead_beefn
  return { context, memory, ok: evaluate([o], context, memory, context) }
}

it.each(rows)('$name of $a $b $c gives $want', row => {
  const { context, ok } = run(op(row.name, row.f), row)
  expect(ok).toBe(true)
  expect(context.r64[D]).toBe(row.want)
})

it('keeps the rest of a slot when a part is written', () => {
  const context = new Context()
  const memory = new Memory(context)
  context.r64[D] = 0x1122_3344_5566_7788n
  context.r64[A] = ALL
  evaluate([op('byte.put', { imm: 1 })], context, memory, context)
  expect(context.r64[D]).toBe(0x1122_3344_5566_ff88n)
  evaluate([op('word.put')], context, memory, context)
  expect(context.r64[D]).toBe(0x1122_3344_5566_ffffn)
})

it.each([
  ['store.8', 0xf7f6_f5f4_f3f2_f188n],
  ['store.16', 0xf7f6_f5f4_f3f2_7788n],
  ['store.32', 0xf7f6_f5f4_5566_7788n],
  ['store.64', 0x1122_3344_5566_7788n],
] as const)('%s writes its width and no more', (name, want) => {
  const { memory } = run(op(name, { imm: 2 }), { a: 0n, b: 0x1122_3344_5566_7788n })
  expect(memory.view.getBigUint64(0, true)).toBe(want)
})

it('moves sixteen bytes between memory and two slots', () => {
  const { context } = run(op('load.128'), { a: 0n })
  expect(context.r64[D]).toBe(0xf7f6_f5f4_f3f2_f1f0n)
  expect(context.r64[D + 1]).toBe(0xfffe_fdfc_fbfa_f9f8n)
  const { memory } = run(op('store.128'), { a: 0n, b: 1n, c: 2n })
  expect(memory.view.getBigUint64(0, true)).toBe(1n)
  expect(memory.view.getBigUint64(8, true)).toBe(2n)
})

it.each(['load.8', 'load.64', 'load.128', 'store.16', 'store.64', 'store.128'] as const)(
  '%s that faults stops the instruction and leaves its destination',
  name => {
    const context = new Context()
    const memory = new Memory(context)
    context.r64[A] = 0xbadn
    context.r64[D] = 42n
    const ops = [op(name), op('i64.const', { d: D, big: 7n })]
    expect(evaluate(ops, context, memory, context)).toBe(false)
    expect(context.r64[D]).toBe(42n)
    expect(context.raised).toBe('14/0')
  },
)

it.each([
  ['divide.u', 'by zero', 0n, 1n, 0n],
  ['divide.u', 'too large', 1n, 0n, 1n],
  ['divide.s', 'of the smallest by minus one', ALL, MIN, ALL],
] as const)('%s raises its vector %s', (name, _what, a, b, c) => {
  const { context, ok } = run(op(name, { imm: 64, big: 9n }), { a, b, c })
  expect(ok).toBe(false)
  expect(context.raised).toBe('9/undefined')
})

it('leaves the remainder beside the quotient', () => {
  const { context } = run(op('divide.s', { imm: 64 }), { a: ALL, b: ALL - 6n, c: 2n })
  expect(context.r64[D + 1]).toBe(ALL)
})

it('skips a group when its condition is zero (or set), and hands routines what they need', () => {
  const calls: number[] = []
  const b = new IrBuilder(8, 32)
  const routine = { name: 'note', run: (_: Context, o: IrOp) => calls.push(o.imm) }
  b.when(b.const32(0), () => b.call(routine, { imm: 1 }))
  b.when(b.const32(1), () => b.call(routine, { imm: 2 }))
  b.unless(b.const32(0), () => b.call(routine, { imm: 3 }))
  b.unless(b.const32(1), () => b.call(routine, { imm: 4 }))
  const context = new Context()
  expect(evaluate(b.finish(), context, new Memory(context), context)).toBe(true)
  expect(calls).toEqual([2, 3])
  b.begin()
  b.trap(13, 0)
  expect(evaluate(b.finish(), context, new Memory(context), context)).toBe(false)
  expect(context.raised).toBe('13/0')
})

it('has a case for every operation', () => {
  const shown = new Set<string>(rows.map(r => r.name))
  const elsewhere = [
    'byte.put',
    'word.put',
    'store.8',
    'store.16',
    'store.32',
    'store.64',
    'load.128',
    'store.128',
    'trap',
    'skip.zero',
    'skip.set',
    'call',
  ]
  for (const name of Object.keys(OPS))
    expect(shown.has(name) || elsewhere.includes(name), name).toBe(true)
  const codes = Object.values(OPS).map(row => row.code)
  expect(codes).toEqual(codes.map((_, i) => i))
})

it('prints operations a person can read', () => {
  const b = new IrBuilder(8, 32)
  const sum = b.add(2, b.const32(5), 4)
  b.when(b.isZero(2, sum), () => b.store(8, 3, sum, 2))
  b.trap(6)
  expect(printOps(b.finish(), slot => (slot === 3 ? 'rbx' : `s${slot}`))).toBe(
    [
      '  0  i32.const s8, #5',
      '  1  i32.add s9, s8, s4',
      '  2  i32.andk s10, s9, #65535',
      '  3  i32.eqz s11, s10',
      '  4  skip.zero s11, -> 6',
      '  5  store.64 rbx, s10, #2',
      '  6  trap #6, #-0x1',
    ].join('\n'),
  )
})
