// Advanced SIMD shifts by an immediate, vector and scalar (DDI 0487 C4.1.96). The amount is encoded as immh:immb, whose
// leading one tells the element size; lanes are shifted by a register full of that amount, negative for right.

import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import * as op from './lane-arithmetic.js'
import type { LaneOp } from './lanes.js'
import { emitLanes, fpRow, laneCount, letter, type Of, scalar, splat, V, vector } from './rows.js'
import type { Size } from './views.js'

const rows: Encoding[] = []

type Immediate = Of<'immh' | 'immb'>
type Shift = Of<'Q' | 'immh' | 'immb' | 'Rn' | 'Rd'>

/** log2 of the element size in bytes; immh is not zero. */
export const sizeOfShift = (f: Immediate): Size => (31 - Math.clz32(f.immh)) as Size

/** How far right: twice the element's bits less the field. */
export const rightShift = (f: Immediate): number =>
  (16 << sizeOfShift(f)) - ((f.immh << 3) | f.immb)

const leftShift = (f: Immediate): number => ((f.immh << 3) | f.immb) - (8 << sizeOfShift(f))

const has = (sizes: string, f: Immediate) => f.immh !== 0 && sizes.includes(letter(sizeOfShift(f)))

/** Whether the lane function takes right shifts as they are (SRI); the others take negative amounts. */
type Direction = 'left' | 'right' | 'insert'

const amount = (direction: Direction, f: Immediate): number =>
  direction === 'left' ? leftShift(f) : rightShift(f)

function amounts(b: Emitter, direction: Direction, size: Size, f: Immediate): number {
  const n = amount(direction, f)
  return splat(b, size, direction === 'right' ? -n : n)
}

// name, U, opcode, lane function, direction, scalar sizes; vectors have all four.
// biome-ignore format: table
const SAME: readonly (readonly [string, 0 | 1, string, LaneOp, Direction, string])[] = [
  ['SSHR',   0, '00000', op.SHL.S,  'right',  'd'],    ['USHR',  1, '00000', op.SHL.U,  'right', 'd'],
  ['SSRA',   0, '00010', op.SRA.S,  'right',  'd'],    ['USRA',  1, '00010', op.SRA.U,  'right', 'd'],
  ['SRSHR',  0, '00100', op.RSHL.S, 'right',  'd'],    ['URSHR', 1, '00100', op.RSHL.U, 'right', 'd'],
  ['SRSRA',  0, '00110', op.RSRA.S, 'right',  'd'],    ['URSRA', 1, '00110', op.RSRA.U, 'right', 'd'],
  ['SHL',    0, '01010', op.SHL.U,  'left',   'd'],    ['SRI',   1, '01000', op.SRI,    'insert', 'd'],
  ['SLI',    1, '01010', op.SLI,    'left',   'd'],    ['SQSHLU', 1, '01100', op.SQSHLU, 'left', 'bhsd'],
  ['SQSHL',  0, '01110', op.SQSHL,  'left',   'bhsd'], ['UQSHL', 1, '01110', op.UQSHL,  'left',  'bhsd'],
]

for (const [name, u, opcode, lane, direction, scalars] of SAME) {
  const mnemonic = name.toLowerCase()
  const title = name.endsWith('QSHL') ? `${name} (immediate, ` : `${name} (`
  rows.push(
    fpRow<keyof Shift>(
      `${title}vector)`,
      'simd shift by immediate',
      `0 Q ${u} 011110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => f.immh !== 0 && (f.immh < 8 || f.Q === 1),
        emit(b, f) {
          const size = sizeOfShift(f)
          const at = { d: V(f.Rd), a: V(f.Rn), b: amounts(b, direction, size, f) }
          emitLanes(b, lane, 'same', size, at, laneCount(size, f.Q))
        },
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic} ${vector(size, f.Q, f.Rd)}, ${vector(size, f.Q, f.Rn)}, #${amount(direction, f)}`
        },
      },
    ),
    fpRow<keyof Omit<Shift, 'Q'>>(
      `${title}scalar)`,
      'simd scalar shift by immediate',
      `01 ${u} 111110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => has(scalars, f),
        emit(b, f) {
          const size = sizeOfShift(f)
          const at = { d: V(f.Rd), a: V(f.Rn), b: amounts(b, direction, size, f) }
          emitLanes(b, lane, 'same', size, at, 1)
        },
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic} ${scalar(size, f.Rd)}, ${scalar(size, f.Rn)}, #${amount(direction, f)}`
        },
      },
    ),
  )
}

// Narrowing right shifts: name, U, opcode, lane function, with scalar forms.
// biome-ignore format: table
const NARROW: readonly (readonly [string, 0 | 1, string, LaneOp, boolean])[] = [
  ['SHRN',   0, '10000', op.SHL.U,  false], ['SQSHRUN',  1, '10000', op.SQSHLU,  true],
  ['RSHRN',  0, '10001', op.RSHL.U, false], ['SQRSHRUN', 1, '10001', op.SQRSHLU, true],
  ['SQSHRN', 0, '10010', op.SQSHL,  true],  ['UQSHRN',   1, '10010', op.UQSHL,   true],
  ['SQRSHRN', 0, '10011', op.SQRSHL, true], ['UQRSHRN',  1, '10011', op.UQRSHL,  true],
]

for (const [name, u, opcode, lane, hasScalar] of NARROW) {
  const mnemonic = name.toLowerCase()
  // The amounts are lanes of the wide side.
  const by = (b: Emitter, size: Size, f: Immediate) => splat(b, (size + 1) as Size, -rightShift(f))
  rows.push(
    fpRow<keyof Shift>(
      hasScalar ? `${name} (vector)` : name,
      'simd shift by immediate',
      `0 Q ${u} 011110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => has('bhs', f),
        emit(b, f) {
          const size = sizeOfShift(f)
          const at = { d: V(f.Rd), a: V(f.Rn), b: by(b, size, f) }
          emitLanes(b, lane, 'narrow', size, at, laneCount(size, 0), f.Q)
        },
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic}${f.Q ? '2' : ''} ${vector(size, f.Q, f.Rd)}, ${vector(size + 1, 1, f.Rn)}, #${rightShift(f)}`
        },
      },
    ),
  )
  if (!hasScalar) continue
  rows.push(
    fpRow<keyof Omit<Shift, 'Q'>>(
      `${name} (scalar)`,
      'simd scalar shift by immediate',
      `01 ${u} 111110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => has('bhs', f),
        emit(b, f) {
          const size = sizeOfShift(f)
          emitLanes(b, lane, 'narrow', size, { d: V(f.Rd), a: V(f.Rn), b: by(b, size, f) }, 1)
        },
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic} ${scalar(size, f.Rd)}, ${scalar(size + 1, f.Rn)}, #${rightShift(f)}`
        },
      },
    ),
  )
}

// Widening left shifts; by zero they are SXTL and UXTL.
// biome-ignore format: table
for (const [name, u, lane, alias] of [['SSHLL', 0, op.SHL.S, 'sxtl'], ['USHLL', 1, op.SHL.U, 'uxtl']] as const)
  rows.push(
    fpRow<keyof Shift>(
      name,
      'simd shift by immediate',
      `0 Q ${u} 011110 immh:4 immb:3 10100 1 Rn:5 Rd:5`,
      {
        allocated: f => has('bhs', f),
        emit(b, f) {
          const size = sizeOfShift(f)
          const at = { d: V(f.Rd), a: V(f.Rn), b: amounts(b, 'left', size, f) }
          emitLanes(b, lane, 'long', size, at, laneCount(size, 0), f.Q)
        },
        print(f) {
          const size = sizeOfShift(f)
          const by = leftShift(f)
          const upper = f.Q ? '2' : ''
          const operands = `${vector(size + 1, 1, f.Rd)}, ${vector(size, f.Q, f.Rn)}`
          return by === 0
            ? `${alias}${upper} ${operands}`
            : `${name.toLowerCase()}${upper} ${operands}, #${by}`
        },
      },
    ),
  )

export const SIMD_SHIFT: readonly Encoding[] = rows
