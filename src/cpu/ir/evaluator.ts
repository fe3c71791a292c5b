// The reference engine: runs operations one after another over the slots. Every other engine must agree with it.
// i64 operations are bigint arithmetic whose result wraps when it is stored into the slot; i32 ones are plain numbers.
// The switch is over literal numbers, which V8 turns into a table: half as fast again as over names.

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
 * Runs the operations of one instruction. False when it ended early: `m.abort` says how, and memory and registers
 * hold only what the operations before the aborting one did. `outside` is handed to routines.
 */
export function evaluate(
  ops: readonly IrOp[],
  m: IrContext,
  memory: IrMemory,
  outside: unknown,
): boolean {
  const r64 = m.r64
  const r32 = m.r32
  for (let i = 0; i < ops.length; i++) {
    const op = ops[i]!
    const { d, a, b } = op
    // biome-ignore format: table
    switch (op.code) {
      case 0 /* i64.const */: r64[d] = op.big; break
      case 1 /* i64.mov */: r64[d] = r64[a]!; break
      case 2 /* i64.add */: r64[d] = r64[a]! + r64[b]!; break
      case 3 /* i64.sub */: r64[d] = r64[a]! - r64[b]!; break
      case 4 /* i64.mul */: r64[d] = r64[a]! * r64[b]!; break
      case 5 /* i64.and */: r64[d] = r64[a]! & r64[b]!; break
      case 6 /* i64.or */: r64[d] = r64[a]! | r64[b]!; break
      case 7 /* i64.xor */: r64[d] = r64[a]! ^ r64[b]!; break
      case 8 /* i64.shl */: r64[d] = r64[a]! << BigInt(r32[2 * b]! & 63); break
      case 9 /* i64.shru */: r64[d] = r64[a]! >> BigInt(r32[2 * b]! & 63); break
      case 10 /* i64.shrs */: r64[d] = signed(r64[a]!) >> BigInt(r32[2 * b]! & 63); break
      case 11 /* i64.clz */: {
        const hi = r32[2 * a + 1]!
        r32[2 * d] = hi !== 0 ? Math.clz32(hi) : 32 + Math.clz32(r32[2 * a]!)
        break
      }
      case 12 /* i64.ctz */: {
        const lo = r32[2 * a]!
        const hi = r32[2 * a + 1]!
        r32[2 * d] = lo !== 0 ? ctz32(lo) : hi !== 0 ? 32 + ctz32(hi) : 64
        break
      }
      case 13 /* i64.popcnt */: r32[2 * d] = popcount32(r32[2 * a]!) + popcount32(r32[2 * a + 1]!); break
      case 14 /* i64.eqz */: r32[2 * d] = (r32[2 * a]! | r32[2 * a + 1]!) === 0 ? 1 : 0; break
      case 15 /* i64.mulhu */: r64[d] = (r64[a]! * r64[b]!) >> 64n; break
      case 16 /* i64.mulhs */: r64[d] = (signed(r64[a]!) * signed(r64[b]!)) >> 64n; break
      case 17 /* i64.select */: r64[d] = r64[r32[2 * op.c]! !== 0 ? a : b]!; break
      case 18 /* i64.bswap */: {
        const lo = r32[2 * a]!
        r32[2 * d] = bswap32(r32[2 * a + 1]!)
        r32[2 * d + 1] = bswap32(lo)
        break
      }
      case 19 /* i64.address */: r64[d] = r64[a]! + r64[b]! * BigInt(op.imm) + op.big; break
      case 20 /* i64.extendu */: r32[2 * d] = r32[2 * a]!; r32[2 * d + 1] = 0; break
      case 21 /* i64.extends */: r32[2 * d + 1] = r32[2 * a]! >> 31; r32[2 * d] = r32[2 * a]!; break

      case 22 /* i32.const */: r32[2 * d] = op.imm; break
      case 23 /* i32.mov */: r32[2 * d] = r32[2 * a]!; break
      case 24 /* i32.add */: r32[2 * d] = r32[2 * a]! + r32[2 * b]!; break
      case 25 /* i32.sub */: r32[2 * d] = r32[2 * a]! - r32[2 * b]!; break
      case 26 /* i32.mul */: r32[2 * d] = Math.imul(r32[2 * a]!, r32[2 * b]!); break
      case 27 /* i32.and */: r32[2 * d] = r32[2 * a]! & r32[2 * b]!; break
      case 28 /* i32.andk */: r32[2 * d] = r32[2 * a]! & op.imm; break
      case 29 /* i32.or */: r32[2 * d] = r32[2 * a]! | r32[2 * b]!; break
      case 30 /* i32.xor */: r32[2 * d] = r32[2 * a]! ^ r32[2 * b]!; break
      case 31 /* i32.shl */: r32[2 * d] = r32[2 * a]! << r32[2 * b]!; break
      case 32 /* i32.shru */: r32[2 * d] = r32[2 * a]! >>> r32[2 * b]!; break
      case 33 /* i32.shrs */: r32[2 * d] = r32[2 * a]! >> r32[2 * b]!; break
      case 34 /* i32.eqz */: r32[2 * d] = r32[2 * a]! === 0 ? 1 : 0; break
      case 35 /* i32.eq */: r32[2 * d] = r32[2 * a]! === r32[2 * b]! ? 1 : 0; break
      case 36 /* i32.ltu */: r32[2 * d] = r32[2 * a]! >>> 0 < r32[2 * b]! >>> 0 ? 1 : 0; break
      case 37 /* i32.select */: r32[2 * d] = r32[2 * op.c]! !== 0 ? r32[2 * a]! : r32[2 * b]!; break
      case 38 /* i32.bswap */: r32[2 * d] = bswap32(r32[2 * a]!); break
      case 39 /* i32.extend8 */: r32[2 * d] = (r32[2 * a]! << 24) >> 24; break
      case 40 /* i32.extend16 */: r32[2 * d] = (r32[2 * a]! << 16) >> 16; break

      case 41 /* byte.get */: r32[2 * d] = m.r8[8 * a + op.imm]!; break
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
      case 48 /* status.test */: r32[2 * d] = statusTest(r32[2 * a]!, op.imm) ? 1 : 0; break

      case 49 /* load.8 */:
      case 50 /* load.16 */:
      case 51 /* load.32 */: {
        const size = 1 << (op.code - OPS['load.8'].code)
        const v = memory.load(r32[2 * a + 1]!, r32[2 * a]!, size, op.imm)
        if (m.abort !== 0) return false
        r32[2 * d] = v
        break
      }
      case 52 /* load.64 */:
        memory.load64(r32[2 * a + 1]!, r32[2 * a]!, op.imm, r32, 2 * d)
        if (m.abort !== 0) return false
        break
      case 53 /* store.8 */:
      case 54 /* store.16 */:
      case 55 /* store.32 */: {
        const size = 1 << (op.code - OPS['store.8'].code)
        memory.store(r32[2 * a + 1]!, r32[2 * a]!, size, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return false
        break
      }
      case 56 /* store.64 */:
        memory.store64(r32[2 * a + 1]!, r32[2 * a]!, r32[2 * b + 1]!, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return false
        break

      case 57 /* divide.u */:
      case 58 /* divide.s */:
        divide(m, op, op.code === OPS['divide.s'].code)
        if (m.abort !== 0) return false
        break
      case 59 /* trap */:
        m.raise(op.imm, op.big < 0n ? undefined : Number(op.big))
        return false
      case 60 /* skip.zero */:
        if (r32[2 * a]! === 0) i += op.imm
        break
      case 61 /* call */:
        op.routine!.run(outside as never, op)
        if (m.abort !== 0) return false
        break
      default:
        throw new Error(`no such operation: ${op.code}`)
    }
  }
  return true
}
