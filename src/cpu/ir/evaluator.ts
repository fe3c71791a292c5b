// The reference engine: runs operations one after another over the slots. Every other engine must agree with it.
// i64 sums, logic and shifts by constants work on the slots' halves, half as fast again as bigint; the other i64 operations
// are bigint arithmetic whose result wraps when it is stored into the slot; i32 ones are plain numbers.
// The switch is over literal numbers, which V8 turns into a table: half as fast again as over names.

import { nzcvOfAdd, nzcvOfLogic, nzcvOfSub, nzcvTest } from './nzcv.js'
import { type IrContext, type IrMemory, type IrOp, OPS } from './ops.js'
import { statusOfAdd, statusOfLogic, statusOfSub, statusTest } from './status.js'

const signed = (v: bigint) => BigInt.asIntN(64, v)

function bswap32(v: number): number {
  return (v << 24) | ((v & 0xff00) << 8) | ((v >>> 8) & 0xff00) | (v >>> 24)
}

function popcount32(v: number): number {
  let n = 0
  for (; v !== 0; v &= v - 1) n++
  return n
}

const ctz32 = (v: number) => 31 - Math.clz32(v & -v)

function rbit32(v: number): number {
  v = ((v >>> 1) & 0x5555_5555) | ((v & 0x5555_5555) << 1)
  v = ((v >>> 2) & 0x3333_3333) | ((v & 0x3333_3333) << 2)
  return bswap32(((v >>> 4) & 0x0f0f_0f0f) | ((v & 0x0f0f_0f0f) << 4))
}

/** Slot d becomes slot a rotated right by 0 to 63. */
function rotr64(r32: Int32Array, d: number, a: number, n: number): void {
  const x = r32[2 * a + (n >> 5)]!
  const y = r32[2 * a + 1 - (n >> 5)]!
  const k = n & 31
  r32[2 * d] = k === 0 ? x : (x >>> k) | (y << (32 - k))
  r32[2 * d + 1] = k === 0 ? y : (y >>> k) | (x << (32 - k))
}

/** Quotient and remainder in `bits` bits, or a trap; the dividend is `hi:lo` of that width each. */
function divide(m: IrContext, op: IrOp, isSigned: boolean): void {
  const bits = op.imm
  const r = m.r64
  const hi = BigInt.asUintN(bits, r[op.a]!)
  const lo = BigInt.asUintN(bits, r[op.b]!)
  let dividend = (hi << BigInt(bits)) | lo
  let divisor = BigInt.asUintN(bits, r[op.c]!)
  if (isSigned) {
    dividend = BigInt.asIntN(2 * bits, dividend)
    divisor = BigInt.asIntN(bits, divisor)
  }
  if (divisor === 0n) {
    m.raise(Number(op.big))
    return
  }
  const quotient = dividend / divisor
  const fits = isSigned ? BigInt.asIntN(bits, quotient) : BigInt.asUintN(bits, quotient)
  if (fits !== quotient) {
    m.raise(Number(op.big))
    return
  }
  r[op.d] = BigInt.asUintN(bits, quotient)
  r[op.d + 1] = BigInt.asUintN(bits, dividend % divisor)
}

/**
 * Runs the operations of an instruction, or of several in a row. Answers how many there were, or the index of the one
 * that ended early: then `m.abort` says how, and memory and registers hold only what the operations before it did.
 * `outside` is handed to routines.
 */
export function run(
  ops: readonly IrOp[],
  m: IrContext,
  memory: IrMemory,
  outside: unknown,
): number {
  const r64 = m.r64
  const r32 = m.r32
  for (let i = 0; i < ops.length; i++) {
    const op = ops[i]!
    const { d, a, b } = op
    // biome-ignore format: table
    switch (op.code) {
      case 0 /* i64.const */: r64[d] = op.big; break
      case 1 /* i64.mov */: r32[2 * d + 1] = r32[2 * a + 1]!; r32[2 * d] = r32[2 * a]!; break
      case 2 /* i64.add */: {
        const x = r32[2 * a]!
        const lo = (x + r32[2 * b]!) | 0
        r32[2 * d + 1] = r32[2 * a + 1]! + r32[2 * b + 1]! + (lo >>> 0 < x >>> 0 ? 1 : 0)
        r32[2 * d] = lo
        break
      }
      case 3 /* i64.sub */: {
        const x = r32[2 * a]!
        const y = r32[2 * b]!
        r32[2 * d + 1] = r32[2 * a + 1]! - r32[2 * b + 1]! - (x >>> 0 < y >>> 0 ? 1 : 0)
        r32[2 * d] = x - y
        break
      }
      case 4 /* i64.mul */: r64[d] = r64[a]! * r64[b]!; break
      case 5 /* i64.and */: {
        const lo = r32[2 * a]! & r32[2 * b]!
        r32[2 * d + 1] = r32[2 * a + 1]! & r32[2 * b + 1]!
        r32[2 * d] = lo
        break
      }
      case 6 /* i64.or */: {
        const lo = r32[2 * a]! | r32[2 * b]!
        r32[2 * d + 1] = r32[2 * a + 1]! | r32[2 * b + 1]!
        r32[2 * d] = lo
        break
      }
      case 7 /* i64.xor */: {
        const lo = r32[2 * a]! ^ r32[2 * b]!
        r32[2 * d + 1] = r32[2 * a + 1]! ^ r32[2 * b + 1]!
        r32[2 * d] = lo
        break
      }
      case 8 /* i64.shl */: r64[d] = r64[a]! << BigInt(r32[2 * b]! & 63); break
      case 9 /* i64.shru */: r64[d] = r64[a]! >> BigInt(r32[2 * b]! & 63); break
      case 10 /* i64.shrs */: r64[d] = signed(r64[a]!) >> BigInt(r32[2 * b]! & 63); break
      case 11 /* i64.clz */: {
        const hi = r32[2 * a + 1]!
        r32[2 * d] = hi !== 0 ? Math.clz32(hi) : 32 + Math.clz32(r32[2 * a]!)
        r32[2 * d + 1] = 0
        break
      }
      case 12 /* i64.ctz */: {
        const lo = r32[2 * a]!
        const hi = r32[2 * a + 1]!
        r32[2 * d] = lo !== 0 ? ctz32(lo) : hi !== 0 ? 32 + ctz32(hi) : 64
        r32[2 * d + 1] = 0
        break
      }
      case 13 /* i64.popcnt */: r32[2 * d] = popcount32(r32[2 * a]!) + popcount32(r32[2 * a + 1]!); r32[2 * d + 1] = 0; break
      case 14 /* i64.eqz */: r32[2 * d] = (r32[2 * a]! | r32[2 * a + 1]!) === 0 ? 1 : 0; r32[2 * d + 1] = 0; break
      case 15 /* i64.mulhu */: r64[d] = (r64[a]! * r64[b]!) >> 64n; break
      case 16 /* i64.mulhs */: r64[d] = (signed(r64[a]!) * signed(r64[b]!)) >> 64n; break
      case 17 /* i64.select */: {
        const from = r32[2 * op.c]! !== 0 ? a : b
        r32[2 * d + 1] = r32[2 * from + 1]!
        r32[2 * d] = r32[2 * from]!
        break
      }
      case 18 /* i64.bswap */: {
        const lo = r32[2 * a]!
        r32[2 * d] = bswap32(r32[2 * a + 1]!)
        r32[2 * d + 1] = bswap32(lo)
        break
      }
      case 19 /* i64.address */: r64[d] = r64[a]! + r64[b]! * BigInt(op.imm) + op.big; break
      case 20 /* i64.extendu */: r32[2 * d] = r32[2 * a]!; r32[2 * d + 1] = 0; break
      case 21 /* i64.extends */: r32[2 * d + 1] = r32[2 * a]! >> 31; r32[2 * d] = r32[2 * a]!; break

      case 22 /* i32.const */: r32[2 * d] = op.imm; r32[2 * d + 1] = 0; break
      case 23 /* i32.mov */: r32[2 * d] = r32[2 * a]!; r32[2 * d + 1] = 0; break
      case 24 /* i32.add */: r32[2 * d] = r32[2 * a]! + r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 25 /* i32.sub */: r32[2 * d] = r32[2 * a]! - r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 26 /* i32.mul */: r32[2 * d] = Math.imul(r32[2 * a]!, r32[2 * b]!); r32[2 * d + 1] = 0; break
      case 27 /* i32.and */: r32[2 * d] = r32[2 * a]! & r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 28 /* i32.andk */: r32[2 * d] = r32[2 * a]! & op.imm; r32[2 * d + 1] = 0; break
      case 29 /* i32.or */: r32[2 * d] = r32[2 * a]! | r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 30 /* i32.xor */: r32[2 * d] = r32[2 * a]! ^ r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 31 /* i32.shl */: r32[2 * d] = r32[2 * a]! << r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 32 /* i32.shru */: r32[2 * d] = r32[2 * a]! >>> r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 33 /* i32.shrs */: r32[2 * d] = r32[2 * a]! >> r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 34 /* i32.eqz */: r32[2 * d] = r32[2 * a]! === 0 ? 1 : 0; r32[2 * d + 1] = 0; break
      case 35 /* i32.eq */: r32[2 * d] = r32[2 * a]! === r32[2 * b]! ? 1 : 0; r32[2 * d + 1] = 0; break
      case 36 /* i32.ltu */: r32[2 * d] = r32[2 * a]! >>> 0 < r32[2 * b]! >>> 0 ? 1 : 0; r32[2 * d + 1] = 0; break
      case 37 /* i32.select */: r32[2 * d] = r32[2 * op.c]! !== 0 ? r32[2 * a]! : r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 38 /* i32.bswap */: r32[2 * d] = bswap32(r32[2 * a]!); r32[2 * d + 1] = 0; break
      case 39 /* i32.extend8 */: r32[2 * d] = (r32[2 * a]! << 24) >> 24; r32[2 * d + 1] = 0; break
      case 40 /* i32.extend16 */: r32[2 * d] = (r32[2 * a]! << 16) >> 16; r32[2 * d + 1] = 0; break

      case 41 /* byte.get */: r32[2 * d] = m.r8[8 * a + op.imm]!; r32[2 * d + 1] = 0; break
      case 42 /* byte.put */: m.r8[8 * d + op.imm] = r32[2 * a]!; break
      case 43 /* word.put */: r32[2 * d] = (r32[2 * d]! & ~0xffff) | (r32[2 * a]! & 0xffff); break

      case 44 /* status.add */: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfAdd(r32, a, b, op.c, op.imm & 0xff) & mask)
        break
      }
      case 45 /* status.sub */: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfSub(r32, a, b, op.c, op.imm & 0xff) & mask)
        break
      }
      case 46 /* status.logic */: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfLogic(r32, op.c, op.imm & 0xff) & mask)
        break
      }
      case 47 /* status.put */: r32[2 * d] = (r32[2 * d]! & ~op.imm) | (r32[2 * a]! & op.imm); break
      case 48 /* status.test */: r32[2 * d] = statusTest(r32[2 * a]!, op.imm) ? 1 : 0; r32[2 * d + 1] = 0; break

      case 49 /* load.8 */:
      case 50 /* load.16 */:
      case 51 /* load.32 */: {
        const size = 1 << (op.code - OPS['load.8'].code)
        const v = memory.load(r32[2 * a + 1]!, r32[2 * a]!, size, op.imm)
        if (m.abort !== 0) return i
        r32[2 * d] = v
        r32[2 * d + 1] = 0
        break
      }
      case 52 /* load.64 */:
        memory.load64(r32[2 * a + 1]!, r32[2 * a]!, op.imm, r32, 2 * d)
        if (m.abort !== 0) return i
        break
      case 53 /* store.8 */:
      case 54 /* store.16 */:
      case 55 /* store.32 */: {
        const size = 1 << (op.code - OPS['store.8'].code)
        memory.store(r32[2 * a + 1]!, r32[2 * a]!, size, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return i
        break
      }
      case 56 /* store.64 */:
        memory.store64(r32[2 * a + 1]!, r32[2 * a]!, r32[2 * b + 1]!, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return i
        break

      case 57 /* divide.u */:
      case 58 /* divide.s */:
        divide(m, op, op.code === OPS['divide.s'].code)
        if (m.abort !== 0) return i
        break
      case 59 /* trap */:
        m.raise(op.imm, op.big < 0n ? undefined : Number(op.big))
        return i
      case 60 /* skip.zero */:
        if (r32[2 * a]! === 0) i += op.imm
        break
      case 61 /* call */:
        op.routine!.run(outside as never, op)
        if (m.abort !== 0) return i
        break

      case 62 /* i64.addk */: {
        const k = op.imm
        const lo = (r32[2 * a]! + k) | 0
        r32[2 * d + 1] = r32[2 * a + 1]! + (k >> 31) + (lo >>> 0 < k >>> 0 ? 1 : 0)
        r32[2 * d] = lo
        break
      }
      case 63 /* i64.andk */: r64[d] = r64[a]! & op.big; break
      case 64 /* i64.shlk */: {
        const n = op.imm
        const lo = r32[2 * a]!
        if (n >= 32) r32[2 * d + 1] = lo << (n - 32)
        else if (n === 0) r32[2 * d + 1] = r32[2 * a + 1]!
        else r32[2 * d + 1] = (r32[2 * a + 1]! << n) | (lo >>> (32 - n))
        r32[2 * d] = n >= 32 ? 0 : lo << n
        break
      }
      case 65 /* i64.shruk */:
      case 66 /* i64.shrsk */: {
        const n = op.imm
        const hi = r32[2 * a + 1]!
        const above = op.code === 66 ? hi >> 31 : 0
        if (n >= 32) r32[2 * d] = n === 32 ? hi : (hi >>> (n - 32)) | (above << (64 - n))
        else if (n === 0) r32[2 * d] = r32[2 * a]!
        else r32[2 * d] = (r32[2 * a]! >>> n) | (hi << (32 - n))
        r32[2 * d + 1] = n >= 32 ? above : n === 0 ? hi : (hi >>> n) | (above << (32 - n))
        break
      }
      case 67 /* i32.addk */: r32[2 * d] = r32[2 * a]! + op.imm; r32[2 * d + 1] = 0; break
      case 68 /* i32.shlk */: r32[2 * d] = r32[2 * a]! << op.imm; r32[2 * d + 1] = 0; break
      case 69 /* i32.shruk */: r32[2 * d] = r32[2 * a]! >>> op.imm; r32[2 * d + 1] = 0; break
      case 70 /* i32.shrsk */: r32[2 * d] = r32[2 * a]! >> op.imm; r32[2 * d + 1] = 0; break

      case 71 /* i64.rotr */: rotr64(r32, d, a, r32[2 * b]! & 63); break
      case 72 /* i64.rotrk */: rotr64(r32, d, a, op.imm); break
      case 73 /* i32.rotr */: {
        const n = r32[2 * b]! & 31
        const v = r32[2 * a]!
        r32[2 * d] = n === 0 ? v : (v >>> n) | (v << (32 - n))
        r32[2 * d + 1] = 0
        break
      }
      case 74 /* i64.ltu */: r32[2 * d] = r64[a]! < r64[b]! ? 1 : 0; r32[2 * d + 1] = 0; break
      case 75 /* i64.lts */: r32[2 * d] = signed(r64[a]!) < signed(r64[b]!) ? 1 : 0; r32[2 * d + 1] = 0; break
      case 76 /* i32.lts */: r32[2 * d] = r32[2 * a]! < r32[2 * b]! ? 1 : 0; r32[2 * d + 1] = 0; break
      case 77 /* i32.clz */: r32[2 * d] = Math.clz32(r32[2 * a]!); r32[2 * d + 1] = 0; break
      case 78 /* i64.rbit */: {
        const lo = r32[2 * a]!
        r32[2 * d] = rbit32(r32[2 * a + 1]!)
        r32[2 * d + 1] = rbit32(lo)
        break
      }
      case 79 /* i32.rbit */: r32[2 * d] = rbit32(r32[2 * a]!); r32[2 * d + 1] = 0; break
      case 80 /* i64.divu */: r64[d] = r64[b] === 0n ? 0n : r64[a]! / r64[b]!; break
      case 81 /* i64.divs */: r64[d] = r64[b] === 0n ? 0n : signed(r64[a]!) / signed(r64[b]!); break
      case 82 /* i32.divu */: r32[2 * d] = (r32[2 * a]! >>> 0) / (r32[2 * b]! >>> 0); r32[2 * d + 1] = 0; break
      case 83 /* i32.divs */: r32[2 * d] = r32[2 * a]! / r32[2 * b]!; r32[2 * d + 1] = 0; break
      case 84 /* i64.muladd */: r64[d] = r64[op.c]! + r64[a]! * r64[b]!; break
      case 85 /* i64.mulsub */: r64[d] = r64[op.c]! - r64[a]! * r64[b]!; break

      case 86 /* nzcv.add */: r32[2 * d] = nzcvOfAdd(r32, a, b, op.c, op.imm); r32[2 * d + 1] = 0; break
      case 87 /* nzcv.sub */: r32[2 * d] = nzcvOfSub(r32, a, b, op.c, op.imm); r32[2 * d + 1] = 0; break
      case 88 /* nzcv.logic */: r32[2 * d] = nzcvOfLogic(r32, op.c, op.imm); r32[2 * d + 1] = 0; break
      case 89 /* nzcv.test */: r32[2 * d] = nzcvTest(r32[2 * a]!, op.imm) ? 1 : 0; r32[2 * d + 1] = 0; break

      case 90 /* load.128 */:
        memory.load128!(r32[2 * a + 1]!, r32[2 * a]!, op.imm, r32, 2 * d)
        if (m.abort !== 0) return i
        break
      case 91 /* store.128 */:
        memory.store128!(r32[2 * a + 1]!, r32[2 * a]!, op.imm, r32, 2 * b)
        if (m.abort !== 0) return i
        break

      case 92 /* skip.set */:
        if (r32[2 * a]! !== 0) i += op.imm
        break
      default:
        throw new Error(`no such operation: ${op.code}`)
    }
  }
  return ops.length
}

/** `run`, for one instruction: false when it ended early. */
export const evaluate = (
  ops: readonly IrOp[],
  m: IrContext,
  memory: IrMemory,
  outside: unknown,
): boolean => run(ops, m, memory, outside) === ops.length
