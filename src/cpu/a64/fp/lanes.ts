// Drives a function over the lanes of vector registers, in every shape Advanced SIMD has: lane by lane, pairs, long,
// wide, narrow, across. The functions themselves are lane-*.ts; numbers below 64 bits, bigints where a lane or a
// product needs them.

import type { Routine } from '../../ir/ops.js'
import { type A64Machine, routine } from '../machine.js'
import { SLOT } from '../registers.js'
import { FPSR } from './float-format.js'
import type { LaneViews, Size } from './views.js'

/**
 * What happens in one lane, of `x` from the first source, `y` from the second and `d`, the old destination; `bits` is
 * the width of the result. The result is cut to that width when it is stored.
 */
export interface LaneOp {
  readonly name: string
  /** Lanes are read as signed numbers. */
  readonly signed: boolean
  /** Serves sources and results below 64 bits, up to `upTo`. */
  readonly number?: (x: number, y: number, d: number, bits: number) => number
  /** Largest size of a source that `number` handles; 2 unless told. */
  readonly upTo?: Size
  readonly big: (x: bigint, y: bigint, d: bigint, bits: number) => bigint
}

/**
 * Which lanes meet.
 * `same`: x and y are lane i of each. `pairs`: lanes 2i and 2i+1 of the first source, then of the second.
 * `pairsLong`: lanes 2i and 2i+1 of the first source, the result twice as wide.
 * `long`: results twice as wide as both sources. `wide`: as wide as x, twice y. `narrow`: half as wide as both.
 */
export type Shape = 'same' | 'pairs' | 'pairsLong' | 'long' | 'wide' | 'narrow'

/** Set when a lane saturated; the driver turns it into FPSR.QC. */
let saturated = false

/** Cuts to the range of a signed number of that many bits. */
export function signedSaturate(v: number, bits: number): number {
  const limit = 2 ** (bits - 1)
  if (v >= -limit && v < limit) return v
  saturated = true
  return v < 0 ? -limit : limit - 1
}

/** Cuts to the range of an unsigned number of that many bits. */
export function unsignedSaturate(v: number, bits: number): number {
  if (v >= 0 && v < 2 ** bits) return v
  saturated = true
  return v < 0 ? 0 : 2 ** bits - 1
}

/** `signedSaturate` for 64-bit lanes and wide products. */
export function signedSaturateBig(v: bigint, bits: number): bigint {
  const limit = 1n << BigInt(bits - 1)
  if (v >= -limit && v < limit) return v
  saturated = true
  return v < 0n ? -limit : limit - 1n
}

/** `unsignedSaturate` for 64-bit lanes. */
export function unsignedSaturateBig(v: bigint, bits: number): bigint {
  if (v >= 0n && v >> BigInt(bits) === 0n) return v
  saturated = true
  return v < 0n ? 0n : (1n << BigInt(bits)) - 1n
}

/** Sets FPSR.QC if a lane saturated since the last call. */
export function recordSaturation(m: A64Machine): void {
  if (!saturated) return
  saturated = false
  m.state.r32[2 * SLOT.FPSR]! |= FPSR.QC
}

/** How many lanes a routine works on (its `imm`), and whether narrow sources or results are the upper half. */
export const lanes = (count: number, upper = 0): number => count | (upper << 8)

/** Sizes of the sources and the result for a shape over elements of `size`, the narrow side. */
function sizesOf(shape: Shape, size: Size): { x: Size; y: Size; result: Size } {
  const twice = (size + 1) as Size
  switch (shape) {
    case 'same':
    case 'pairs':
      return { x: size, y: size, result: size }
    case 'long':
    case 'pairsLong':
      return { x: size, y: size, result: twice }
    case 'wide':
      return { x: twice, y: size, result: twice }
    case 'narrow':
      return { x: twice, y: twice, result: size }
  }
}

const numbers = new Float64Array(16)
const bigs = new BigInt64Array(16)

/** The element as a bigint, with its sign when `signed`. */
function bigElement(v: LaneViews, signed: boolean, size: Size, index: number): bigint {
  if (size === 3) return signed ? v.s64[index]! : v.u64[index]!
  return BigInt((signed ? v.signed : v.unsigned)[size][index]!)
}

function build(op: LaneOp, shape: Shape, size: Size): Routine<A64Machine> {
  const sizes = sizesOf(shape, size)
  const bits = 8 << sizes.result
  const largest = Math.max(sizes.x, sizes.result)
  const byNumber = largest < 3 && sizes.x <= (op.upTo ?? 2) ? op.number : undefined
  const paired = shape === 'pairs' || shape === 'pairsLong'
  const xUpper = shape === 'long' ? 1 : 0
  const yUpper = shape === 'long' || shape === 'wide' ? 1 : 0

  /** Records saturation, and zeroes what lies above the result. */
  function finish(m: A64Machine, d: number, count: number, upper: number): void {
    recordSaturation(m)
    const keepsLower = shape === 'narrow' && upper !== 0
    if (!keepsLower) m.state.lanes.clearAbove(d, count << sizes.result)
  }

  /** Index of a lane of a slot. */
  const start = (v: LaneViews, s: Size, slot: number, lane: number) => v.index(s, slot) + lane

  if (byNumber && shape === 'same')
    return routine(`${op.name}.${size}`, (m, { d, a, b, imm: count }) => {
      const v = m.state.lanes
      const from = (op.signed ? v.signed : v.unsigned)[size as 0 | 1 | 2]
      const x = start(v, size, a, 0)
      const y = start(v, size, b, 0)
      const r = start(v, size, d, 0)
      for (let i = 0; i < count; i++)
        from[r + i] = byNumber(from[x + i]!, from[y + i]!, from[r + i]!, bits)
      finish(m, d, count, 0)
    })

  if (byNumber)
    return routine(`${op.name}.${shape}.${size}`, (m, { d, a, b, imm }) => {
      const count = imm & 0xff
      const upper = imm >> 8
      const v = m.state.lanes
      const view = op.signed ? v.signed : v.unsigned
      const xs = view[sizes.x as 0 | 1 | 2]
      const ys = view[sizes.y as 0 | 1 | 2]
      const out = view[sizes.result as 0 | 1 | 2]
      const r = start(v, sizes.result, d, shape === 'narrow' ? upper * count : 0)
      const x = start(v, sizes.x, a, upper * xUpper * count)
      const y = start(v, sizes.y, b, upper * yUpper * count)
      const half = shape === 'pairs' ? count >> 1 : count
      for (let i = 0; i < count; i++) {
        const pair = i < half ? x + 2 * i : y + 2 * (i - half)
        const left = paired ? xs[pair]! : xs[x + i]!
        const right = paired ? xs[pair + 1]! : ys[y + i]!
        numbers[i] = byNumber(left, right, out[r + i]!, bits)
      }
      for (let i = 0; i < count; i++) out[r + i] = numbers[i]!
      finish(m, d, count, upper)
    })

  return routine(`${op.name}.${shape}.${size}`, (m, { d, a, b, imm }) => {
    const count = imm & 0xff
    const upper = imm >> 8
    const v = m.state.lanes
    const { signed } = op
    const r = start(v, sizes.result, d, shape === 'narrow' ? upper * count : 0)
    const x = start(v, sizes.x, a, upper * xUpper * count)
    const y = start(v, sizes.y, b, upper * yUpper * count)
    const half = shape === 'pairs' ? count >> 1 : count
    for (let i = 0; i < count; i++) {
      const pair = i < half ? x + 2 * i : y + 2 * (i - half)
      const left = bigElement(v, signed, sizes.x, paired ? pair : x + i)
      const right = bigElement(v, signed, sizes.y, paired ? pair + 1 : y + i)
      bigs[i] = op.big(left, right, bigElement(v, signed, sizes.result, r + i), bits)
    }
    for (let i = 0; i < count; i++) v.setBits(sizes.result, r + i, BigInt.asUintN(bits, bigs[i]!))
    finish(m, d, count, upper)
  })
}

const built = new Map<string, Routine<A64Machine>>()

/** The routine that runs a lane function in a shape over elements of `size`; operands d a b, and `imm` from `lanes`. */
export function laneRoutine(op: LaneOp, shape: Shape, size: Size): Routine<A64Machine> {
  const key = `${op.name} ${shape} ${size}`
  let r = built.get(key)
  if (!r) {
    r = build(op, shape, size)
    built.set(key, r)
  }
  return r
}

/** Folds the lanes of a source into one lane of `size`, or twice that when `long`. */
export function acrossRoutine(op: LaneOp, size: Size, long: boolean): Routine<A64Machine> {
  const key = `${op.name} across ${size} ${long}`
  let r = built.get(key)
  if (r) return r
  const result = (long ? size + 1 : size) as Size
  r = routine(`${op.name}.across.${size}`, (m, { d, a, imm: count }) => {
    const v = m.state.lanes
    const x = v.index(size, a)
    let total = bigElement(v, op.signed, size, x)
    for (let i = 1; i < count; i++)
      total = op.big(total, bigElement(v, op.signed, size, x + i), 0n, 8 << result)
    v.setBits(result, v.index(result, d), BigInt.asUintN(8 << result, total))
    v.clearAbove(d, 1 << result)
  })
  built.set(key, r)
  return r
}
