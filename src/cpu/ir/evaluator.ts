// The reference engine: runs operations one after another over the slots. Every other engine must agree with it.
// i64 operations are bigint arithmetic whose result wraps when it is stored into the slot; i32 ones are plain numbers.

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
      case OPS['i64.const'].code: r64[d] = op.big; break
      case OPS['i64.mov'].code: r64[d] = r64[a]!; break
      case OPS['i64.add'].code: r64[d] = r64[a]! + r64[b]!; break
      case OPS['i64.sub'].code: r64[d] = r64[a]! - r64[b]!; break
      case OPS['i64.mul'].code: r64[d] = r64[a]! * r64[b]!; break
      case OPS['i64.and'].code: r64[d] = r64[a]! & r64[b]!; break
      case OPS['i64.or'].code: r64[d] = r64[a]! | r64[b]!; break
      case OPS['i64.xor'].code: r64[d] = r64[a]! ^ r64[b]!; break
      case OPS['i64.shl'].code: r64[d] = r64[a]! << BigInt(r32[2 * b]! & 63); break
      case OPS['i64.shru'].code: r64[d] = r64[a]! >> BigInt(r32[2 * b]! & 63); break
      case OPS['i64.shrs'].code: r64[d] = signed(r64[a]!) >> BigInt(r32[2 * b]! & 63); break
      case OPS['i64.clz'].code: {
        const hi = r32[2 * a + 1]!
        r32[2 * d] = hi !== 0 ? Math.clz32(hi) : 32 + Math.clz32(r32[2 * a]!)
        break
      }
      case OPS['i64.ctz'].code: {
        const lo = r32[2 * a]!
        const hi = r32[2 * a + 1]!
        r32[2 * d] = lo !== 0 ? ctz32(lo) : hi !== 0 ? 32 + ctz32(hi) : 64
        break
      }
      case OPS['i64.popcnt'].code: r32[2 * d] = popcount32(r32[2 * a]!) + popcount32(r32[2 * a + 1]!); break
      case OPS['i64.eqz'].code: r32[2 * d] = (r32[2 * a]! | r32[2 * a + 1]!) === 0 ? 1 : 0; break
      case OPS['i64.mulhu'].code: r64[d] = (r64[a]! * r64[b]!) >> 64n; break
      case OPS['i64.mulhs'].code: r64[d] = (signed(r64[a]!) * signed(r64[b]!)) >> 64n; break
      case OPS['i64.select'].code: r64[d] = r32[2 * op.c]! !== 0 ? r64[a]! : r64[b]!; break
      case OPS['i64.bswap'].code: {
        const lo = r32[2 * a]!
        r32[2 * d] = bswap32(r32[2 * a + 1]!)
        r32[2 * d + 1] = bswap32(lo)
        break
      }
      case OPS['i64.address'].code: r64[d] = r64[a]! + r64[b]! * BigInt(op.imm) + op.big; break
      case OPS['i64.extendu'].code: r32[2 * d] = r32[2 * a]!; r32[2 * d + 1] = 0; break
      case OPS['i64.extends'].code: r32[2 * d + 1] = r32[2 * a]! >> 31; r32[2 * d] = r32[2 * a]!; break

      case OPS['i32.const'].code: r32[2 * d] = op.imm; break
      case OPS['i32.mov'].code: r32[2 * d] = r32[2 * a]!; break
      case OPS['i32.add'].code: r32[2 * d] = r32[2 * a]! + r32[2 * b]!; break
      case OPS['i32.sub'].code: r32[2 * d] = r32[2 * a]! - r32[2 * b]!; break
      case OPS['i32.mul'].code: r32[2 * d] = Math.imul(r32[2 * a]!, r32[2 * b]!); break
      case OPS['i32.and'].code: r32[2 * d] = r32[2 * a]! & r32[2 * b]!; break
      case OPS['i32.andk'].code: r32[2 * d] = r32[2 * a]! & op.imm; break
      case OPS['i32.or'].code: r32[2 * d] = r32[2 * a]! | r32[2 * b]!; break
      case OPS['i32.xor'].code: r32[2 * d] = r32[2 * a]! ^ r32[2 * b]!; break
      case OPS['i32.shl'].code: r32[2 * d] = r32[2 * a]! << r32[2 * b]!; break
      case OPS['i32.shru'].code: r32[2 * d] = r32[2 * a]! >>> r32[2 * b]!; break
      case OPS['i32.shrs'].code: r32[2 * d] = r32[2 * a]! >> r32[2 * b]!; break
      case OPS['i32.eqz'].code: r32[2 * d] = r32[2 * a]! === 0 ? 1 : 0; break
      case OPS['i32.eq'].code: r32[2 * d] = r32[2 * a]! === r32[2 * b]! ? 1 : 0; break
      case OPS['i32.ltu'].code: r32[2 * d] = r32[2 * a]! >>> 0 < r32[2 * b]! >>> 0 ? 1 : 0; break
      case OPS['i32.select'].code: r32[2 * d] = r32[2 * op.c]! !== 0 ? r32[2 * a]! : r32[2 * b]!; break
      case OPS['i32.bswap'].code: r32[2 * d] = bswap32(r32[2 * a]!); break
      case OPS['i32.extend8'].code: r32[2 * d] = (r32[2 * a]! << 24) >> 24; break
      case OPS['i32.extend16'].code: r32[2 * d] = (r32[2 * a]! << 16) >> 16; break

      case OPS['byte.get'].code: r32[2 * d] = m.r8[8 * a + op.imm]!; break
      case OPS['byte.put'].code: m.r8[8 * d + op.imm] = r32[2 * a]!; break
      case OPS['word.put'].code: r32[2 * d] = (r32[2 * d]! & ~0xffff) | (r32[2 * a]! & 0xffff); break

      case OPS['status.add'].code: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfAdd(r32, a, b, op.c, op.imm & 0xff) & mask)
        break
      }
      case OPS['status.sub'].code: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfSub(r32, a, b, op.c, op.imm & 0xff) & mask)
        break
      }
      case OPS['status.logic'].code: {
        const mask = op.imm >> 8
        r32[2 * d] = (r32[2 * d]! & ~mask) | (statusOfLogic(r32, op.c, op.imm & 0xff) & mask)
        break
      }
      case OPS['status.put'].code: r32[2 * d] = (r32[2 * d]! & ~op.imm) | (r32[2 * a]! & op.imm); break
      case OPS['status.test'].code: r32[2 * d] = statusTest(r32[2 * a]!, op.imm) ? 1 : 0; break

      case OPS['load.8'].code:
      case OPS['load.16'].code:
      case OPS['load.32'].code: {
        const size = 1 << (op.code - OPS['load.8'].code)
        const v = memory.load(r32[2 * a + 1]!, r32[2 * a]!, size, op.imm)
        if (m.abort !== 0) return false
        r32[2 * d] = v
        break
      }
      case OPS['load.64'].code:
        memory.load64(r32[2 * a + 1]!, r32[2 * a]!, op.imm, r32, 2 * d)
        if (m.abort !== 0) return false
        break
      case OPS['store.8'].code:
      case OPS['store.16'].code:
      case OPS['store.32'].code: {
        const size = 1 << (op.code - OPS['store.8'].code)
        memory.store(r32[2 * a + 1]!, r32[2 * a]!, size, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return false
        break
      }
      case OPS['store.64'].code:
        memory.store64(r32[2 * a + 1]!, r32[2 * a]!, r32[2 * b + 1]!, r32[2 * b]!, op.imm)
        if (m.abort !== 0) return false
        break

      case OPS['divide.u'].code:
      case OPS['divide.s'].code:
        divide(m, op, op.code === OPS['divide.s'].code)
        if (m.abort !== 0) return false
        break
      case OPS['trap'].code:
        m.raise(op.imm, op.big < 0n ? undefined : Number(op.big))
        return false
      case OPS['skip.zero'].code:
        if (r32[2 * a]! === 0) i += op.imm
        break
      case OPS['call'].code:
        op.routine!.run(outside as never, op)
        if (m.abort !== 0) return false
        break
      default:
        throw new Error(`no such operation: ${op.code}`)
    }
  }
  return true
}
