// Conversions between floating point in a vector register and integers in a general one, as routines: the common
// cases on the host's doubles, the others by float-convert.ts.

import type { Routine } from '../../ir/ops.js'
import { type A64Machine, routine } from '../machine.js'
import { SLOT } from '../registers.js'
import { convert, fromFixed, toFixed } from './float-convert.js'
import { narrowDouble } from './float-fast.js'
import { FPCR, HALF, ROUNDING, type Rounding } from './float-format.js'
import {
  enterFloat,
  type FloatSize,
  formatOf,
  isHostLike,
  isInexactKnown,
  isResult,
  leaveFloat,
} from './float-lanes.js'

/** A double rounded to an integral one as a mode says; halves are rare enough to be left to the reference (NaN). */
function integral(x: number, mode: Rounding): number {
  switch (mode) {
    case ROUNDING.ZERO:
      return Math.trunc(x)
    case ROUNDING.MINUS:
      return Math.floor(x)
    case ROUNDING.PLUS:
      return Math.ceil(x)
    default: {
      const low = Math.floor(x)
      if (x - low === 0.5) return Number.NaN
      return x - low < 0.5 ? low : low + 1
    }
  }
}

const built = new Map<string, Routine<A64Machine>>()

function memo(key: string, make: () => Routine<A64Machine>): Routine<A64Machine> {
  let r = built.get(key)
  if (!r) {
    r = make()
    built.set(key, r)
  }
  return r
}

/** Float in a, times 2^imm, to an integer of 32 or 64 bits in general register d. */
export function toInteger(
  name: string,
  size: FloatSize,
  wide: number,
  unsigned: boolean,
  mode: Rounding,
): Routine<A64Machine> {
  return memo(`${name} ${size} ${wide}`, () =>
    routine(`${name}.${wide ? 64 : 32}.${size}`, (m, { d, a, imm: fraction }) => {
      const s = m.state
      const v = s.lanes
      const at = v.index(size, a)
      const x = size === 3 ? v.f64[at]! : v.f32[at]!
      const t = fraction === 0 ? integral(x, mode) : Number.NaN
      const certain = t === x || isInexactKnown(s)
      const flushing = (s.r32[2 * SLOT.FPCR]! & FPCR.FZ) !== 0
      if (certain && !flushing && t < 2 ** 31 && t >= (unsigned ? 0 : -(2 ** 31))) {
        s.r32[2 * d] = t
        s.r32[2 * d + 1] = wide && t < 0 ? -1 : 0
        return
      }
      const env = enterFloat(s)
      const f = formatOf(size)
      s.r64[d] = toFixed(f, v.bits(size, at), wide ? 64 : 32, fraction, unsigned, env, mode)
      leaveFloat(s)
    }),
  )
}

/** Integer of 32 or 64 bits in general register a, divided by 2^imm, to a float in d. */
export function fromInteger(size: FloatSize, wide: number, unsigned: boolean): Routine<A64Machine> {
  const name = unsigned ? 'ucvtf' : 'scvtf'
  return memo(`${name} ${size} ${wide}`, () =>
    routine(`${name}.${wide ? 64 : 32}.${size}`, (m, { d, a, imm: fraction }) => {
      const s = m.state
      const v = s.lanes
      const low = unsigned || wide ? s.r32[2 * a]! >>> 0 : s.r32[2 * a]!
      const high = s.r32[2 * a + 1]!
      const x = wide ? (unsigned ? high >>> 0 : high) * 2 ** 32 + low : low
      const f = size === 3 ? v.f64 : v.f32
      if (fraction === 0 && Math.abs(x) < 2 ** 53 && (size === 3 || Math.fround(x) === x)) {
        f[v.index(size, d)] = x
      } else {
        const bits = wide ? 64 : 32
        const value = unsigned ? BigInt.asUintN(bits, s.r64[a]!) : BigInt.asIntN(bits, s.r64[a]!)
        const env = enterFloat(s)
        v.setBits(size, v.index(size, d), fromFixed(formatOf(size), value, fraction, env))
        leaveFloat(s)
      }
      v.clearAbove(d, 1 << size)
    }),
  )
}

const FORMATS = { 1: HALF, 2: formatOf(2), 3: formatOf(3) } as const
type AnySize = keyof typeof FORMATS

/** FCVT: the float in a of one size to one of another in d. */
export function convertScalar(to: AnySize, from: AnySize): Routine<A64Machine> {
  return memo(`fcvt ${to} ${from}`, () =>
    routine(`fcvt.${to}.${from}`, (m, { d, a }) => {
      convertLane(m, to, d, 0, from, a, 0)
      m.state.lanes.clearAbove(d, 1 << to)
    }),
  )
}

/** Lane j of a, of one size, into lane i of d; `mode` is FPCR's unless told. */
export function convertLane(
  m: A64Machine,
  to: AnySize,
  d: number,
  i: number,
  from: AnySize,
  a: number,
  j: number,
  mode?: Rounding,
): void {
  const s = m.state
  const v = s.lanes
  const x = v.index(from, a) + j
  const r = v.index(to, d) + i
  if (mode === undefined && from === 2 && to === 3) {
    const single = v.f32[x]!
    if (!Number.isNaN(single) && isHostLike(s, 2, single)) {
      v.f64[r] = single
      return
    }
  }
  if (mode === undefined && from === 3 && to === 2 && isHostLike(s, 3, v.f64[x]!)) {
    const short = narrowDouble(v.f64[x]!, isInexactKnown(s))
    if (isResult(s, 2, short)) {
      v.f32[r] = short
      return
    }
  }
  const env = enterFloat(s)
  v.setBits(to, r, convert(FORMATS[to], FORMATS[from], v.bits(from, x), env, mode ?? env.rounding))
  leaveFloat(s)
}
