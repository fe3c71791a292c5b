// How the rows of the floating-point and SIMD tables are written: the trap check at their head, registers and
// arrangements as binutils prints them, and the few emissions that several tables share.

import type { Slot } from '../../ir/builder.js'
import type { Emitter } from '../emitter.js'
import { type Encoding, type RowSpec, row } from '../encodings.js'
import { routine } from '../machine.js'
import { vectorSlot } from '../registers.js'
import { checkFp } from '../routines.js'
import type { LaneOp, Shape } from './lanes.js'
import { laneRoutine, lanes } from './lanes.js'
import type { Size } from './views.js'

/** Fields by name; a pattern put together from parts cannot tell its names to the compiler, so the caller does. */
export type Of<N extends string> = Readonly<Record<N, number>>

/** A row whose instruction is trapped by CPACR_EL1.FPEN. `N` are the names of the pattern's fields. */
export function fpRow<N extends string>(
  name: string,
  group: string,
  pattern: string,
  spec: RowSpec<N>,
): Encoding {
  const { emit } = spec
  const checked: RowSpec<N> = {
    ...spec,
    emit(b, f) {
      b.call(checkFp)
      emit(b, f)
    },
  }
  return row(name, group, pattern, checked as unknown as RowSpec<string>)
}

/** Slots of vector register n. */
export const V = (n: number): Slot => vectorSlot(n)

const LETTERS = ['b', 'h', 's', 'd', 'q'] as const

/** Letter of an element or scalar register of 2^size bytes. */
export const letter = (size: number): string => LETTERS[size]!

/** Scalar register n of 2^size bytes, as `d3`. */
export const scalar = (size: number, n: number): string => `${letter(size)}${n}`

/** Lanes in a vector register of 8 (Q 0) or 16 bytes. */
export const laneCount = (size: number, Q: number): number => (Q ? 16 : 8) >> size

/** Vector register n with its arrangement, as `v3.4s`. */
export const vector = (size: number, Q: number, n: number): string =>
  `v${n}.${laneCount(size, Q)}${letter(size)}`

/** One lane of vector register n, as `v3.s[1]`. */
export const element = (size: number, n: number, index: number): string =>
  `v${n}.${letter(size)}[${index}]`

/** Emits a lane operation in a shape on `count` lanes. */
export function emitLanes(
  b: Emitter,
  op: LaneOp,
  shape: Shape,
  size: Size,
  at: { d: Slot; a: Slot; b: Slot },
  count: number,
  upper = 0,
): void {
  b.call(laneRoutine(op, shape, size), { ...at, imm: lanes(count, upper) })
}

/** Two consecutive slots holding a 64-bit pattern twice. */
export function replicated(b: Emitter, pattern: bigint): Slot {
  const t = b.temp(2)
  b.emit('i64.const', { d: t, big: pattern })
  b.emit('i64.const', { d: t + 1, big: pattern })
  return t
}

/** The lanes of a vector all equal to a small number, negative ones too. */
export function splat(b: Emitter, size: Size, v: number): Slot {
  const bits = 8 << size
  let pattern = BigInt.asUintN(bits, BigInt(v))
  for (let w = bits; w < 64; w *= 2) pattern |= pattern << BigInt(w)
  return replicated(b, pattern)
}

/** Writes a vector register from two 64-bit values; Q 0 clears the upper one. */
export function setVector(b: Emitter, d: number, Q: number, low: Slot, high: Slot): void {
  b.emit('i64.mov', { d: V(d), a: low })
  if (Q) b.emit('i64.mov', { d: V(d) + 1, a: high })
  else b.emit('i64.const', { d: V(d) + 1, big: 0n })
}

const broadcast = ([0, 1, 2, 3] as const).map(size =>
  routine(`broadcast.${size}`, (m, { d, a, imm: index }) => {
    const v = m.state.lanes
    const value = v.bits(size, v.index(size, a) + index)
    for (let i = 0; i < 16 >> size; i++) v.setBits(size, v.index(size, d) + i, value)
  }),
)

/** Lane `index` of slots `a` in every lane of two fresh slots. */
export function broadcastLane(b: Emitter, size: Size, a: Slot, index: number): Slot {
  const d = b.temp(2)
  b.call(broadcast[size]!, { d, a, imm: index })
  return d
}
