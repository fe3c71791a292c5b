// Advanced SIMD integer instructions with three registers: three-same, three-different and by-element, vector and
// scalar (DDI 0487 C4.1.96.). Lane functions are in lane-arithmetic.ts.

import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import * as op from './lane-arithmetic.js'
import type { LaneOp, Shape } from './lanes.js'
import {
  broadcastLane,
  element,
  emitLanes,
  fpRow,
  laneCount,
  letter,
  type Of,
  scalar,
  setVector,
  V,
  vector,
} from './rows.js'
import type { Size } from './views.js'

const rows: Encoding[] = []

/** Sizes an instruction has, as letters: b h s d. */
const has = (sizes: string, size: number) => sizes.includes(letter(size))

type Same = Of<'Q' | 'size' | 'Rm' | 'Rn' | 'Rd'>

// Three-same: name, U, opcode, lane function, vector sizes, scalar sizes.
// biome-ignore format: table
const SAME: readonly (readonly [string, 0 | 1, string, LaneOp, string, string])[] = [
  ['SHADD',    0, '00000', op.HADD.S,  'bhs',  ''],     ['UHADD',    1, '00000', op.HADD.U,  'bhs',  ''],
  ['SQADD',    0, '00001', op.SQADD,   'bhsd', 'bhsd'], ['UQADD',    1, '00001', op.UQADD,   'bhsd', 'bhsd'],
  ['SRHADD',   0, '00010', op.RHADD.S, 'bhs',  ''],     ['URHADD',   1, '00010', op.RHADD.U, 'bhs',  ''],
  ['SHSUB',    0, '00100', op.HSUB.S,  'bhs',  ''],     ['UHSUB',    1, '00100', op.HSUB.U,  'bhs',  ''],
  ['SQSUB',    0, '00101', op.SQSUB,   'bhsd', 'bhsd'], ['UQSUB',    1, '00101', op.UQSUB,   'bhsd', 'bhsd'],
  ['CMGT',     0, '00110', op.GT.S,    'bhsd', 'd'],    ['CMHI',     1, '00110', op.GT.U,    'bhsd', 'd'],
  ['CMGE',     0, '00111', op.GE.S,    'bhsd', 'd'],    ['CMHS',     1, '00111', op.GE.U,    'bhsd', 'd'],
  ['SSHL',     0, '01000', op.SHL.S,   'bhsd', 'd'],    ['USHL',     1, '01000', op.SHL.U,   'bhsd', 'd'],
  ['SQSHL',    0, '01001', op.SQSHL,   'bhsd', 'bhsd'], ['UQSHL',    1, '01001', op.UQSHL,   'bhsd', 'bhsd'],
  ['SRSHL',    0, '01010', op.RSHL.S,  'bhsd', 'd'],    ['URSHL',    1, '01010', op.RSHL.U,  'bhsd', 'd'],
  ['SQRSHL',   0, '01011', op.SQRSHL,  'bhsd', 'bhsd'], ['UQRSHL',   1, '01011', op.UQRSHL,  'bhsd', 'bhsd'],
  ['SMAX',     0, '01100', op.MAX.S,   'bhs',  ''],     ['UMAX',     1, '01100', op.MAX.U,   'bhs',  ''],
  ['SMIN',     0, '01101', op.MIN.S,   'bhs',  ''],     ['UMIN',     1, '01101', op.MIN.U,   'bhs',  ''],
  ['SABD',     0, '01110', op.ABD.S,   'bhs',  ''],     ['UABD',     1, '01110', op.ABD.U,   'bhs',  ''],
  ['SABA',     0, '01111', op.ABA.S,   'bhs',  ''],     ['UABA',     1, '01111', op.ABA.U,   'bhs',  ''],
  ['ADD',      0, '10000', op.ADD,     'bhsd', 'd'],    ['SUB',      1, '10000', op.SUB,     'bhsd', 'd'],
  ['CMTST',    0, '10001', op.CMTST,   'bhsd', 'd'],    ['CMEQ',     1, '10001', op.CMEQ,    'bhsd', 'd'],
  ['MLA',      0, '10010', op.MLA,     'bhs',  ''],     ['MLS',      1, '10010', op.MLS,     'bhs',  ''],
  ['MUL',      0, '10011', op.MUL,     'bhs',  ''],     ['PMUL',     1, '10011', op.PMUL,    'b',    ''],
  ['SQDMULH',  0, '10110', op.SQDMULH, 'hs',   'hs'],   ['SQRDMULH', 1, '10110', op.SQRDMULH, 'hs',  'hs'],
]
// biome-ignore format: table
const PAIRS: typeof SAME = [
  ['SMAXP', 0, '10100', op.MAX.S, 'bhs',  ''], ['UMAXP', 1, '10100', op.MAX.U, 'bhs', ''],
  ['SMINP', 0, '10101', op.MIN.S, 'bhs',  ''], ['UMINP', 1, '10101', op.MIN.U, 'bhs', ''],
  ['ADDP',  0, '10111', op.ADD,   'bhsd', ''],
]

function same(shape: Shape, [name, u, opcode, lane, sizes, scalars]: (typeof SAME)[number]): void {
  const mnemonic = name.toLowerCase()
  rows.push(
    fpRow<keyof Same>(
      `${name} (vector)`,
      'simd three same',
      `0 Q ${u} 01110 size:2 1 Rm:5 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => has(sizes, f.size) && (f.size < 3 || f.Q === 1),
        emit: (b, f) =>
          emitLanes(b, lane, shape, f.size as Size, threeOf(f), laneCount(f.size, f.Q)),
        print: f => `${mnemonic} ${[f.Rd, f.Rn, f.Rm].map(r => vector(f.size, f.Q, r)).join(', ')}`,
      },
    ),
  )
  if (!scalars) return
  rows.push(
    fpRow<keyof Same>(
      `${name} (scalar)`,
      'simd scalar three same',
      `01 ${u} 11110 size:2 1 Rm:5 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => has(scalars, f.size),
        emit: (b, f) => emitLanes(b, lane, shape, f.size as Size, threeOf(f), 1),
        print: f => `${mnemonic} ${[f.Rd, f.Rn, f.Rm].map(r => scalar(f.size, r)).join(', ')}`,
      },
    ),
  )
}

const threeOf = (f: Of<'Rm' | 'Rn' | 'Rd'>) => ({ d: V(f.Rd), a: V(f.Rn), b: V(f.Rm) })

for (const r of SAME) same('same', r)
for (const r of PAIRS) same('pairs', r)

// Three-same, logical: size is part of the opcode. Whole registers, in operations rather than lanes.

type Logic = Of<'Q' | 'Rm' | 'Rn' | 'Rd'>

function logical(
  name: string,
  u: 0 | 1,
  size: string,
  half: (b: Emitter, x: number, y: number, d: number) => number,
  print?: (f: Logic) => string,
): void {
  rows.push(
    fpRow<keyof Logic>(
      name === 'ORR' || name === 'BIC' ? `${name} (vector, register)` : `${name} (vector)`,
      'simd three same',
      `0 Q ${u} 01110 ${size} 1 Rm:5 00011 1 Rn:5 Rd:5`,
      {
        emit(b, f) {
          const low = half(b, V(f.Rn), V(f.Rm), V(f.Rd))
          const high = f.Q ? half(b, V(f.Rn) + 1, V(f.Rm) + 1, V(f.Rd) + 1) : low
          setVector(b, f.Rd, f.Q, low, high)
        },
        print: f =>
          print?.(f) ??
          `${name.toLowerCase()} ${[f.Rd, f.Rn, f.Rm].map(r => vector(0, f.Q, r)).join(', ')}`,
      },
    ),
  )
}

/** Bits of `x` where `mask` has ones, of `y` elsewhere. */
const choose = (b: Emitter, mask: number, x: number, y: number) =>
  b.logic(8, 'xor', y, b.logic(8, 'and', b.logic(8, 'xor', x, y), mask))

logical('AND', 0, '00', (b, x, y) => b.logic(8, 'and', x, y))
logical('BIC', 0, '01', (b, x, y) => b.logic(8, 'and', x, b.not(8, y)))
logical(
  'ORR',
  0,
  '10',
  (b, x, y) => b.logic(8, 'or', x, y),
  f =>
    f.Rn === f.Rm
      ? `mov ${vector(0, f.Q, f.Rd)}, ${vector(0, f.Q, f.Rn)}`
      : `orr ${[f.Rd, f.Rn, f.Rm].map(r => vector(0, f.Q, r)).join(', ')}`,
)
logical('ORN', 0, '11', (b, x, y) => b.logic(8, 'or', x, b.not(8, y)))
logical('EOR', 1, '00', (b, x, y) => b.logic(8, 'xor', x, y))
logical('BSL', 1, '01', (b, x, y, d) => choose(b, d, x, y))
logical('BIT', 1, '10', (b, x, y, d) => choose(b, y, x, d))
logical('BIF', 1, '11', (b, x, y, d) => choose(b, y, d, x))

// Three-different: name, U, opcode, lane function, shape, sizes of the narrow side, scalar sizes.
// biome-ignore format: table
const DIFFERENT: readonly (readonly [string, 0 | 1, string, LaneOp, Shape, string, string])[] = [
  ['SADDL',  0, '0000', op.ADDL.S, 'long',   'bhs', ''], ['UADDL',  1, '0000', op.ADDL.U,  'long',   'bhs', ''],
  ['SADDW',  0, '0001', op.ADDL.S, 'wide',   'bhs', ''], ['UADDW',  1, '0001', op.ADDL.U,  'wide',   'bhs', ''],
  ['SSUBL',  0, '0010', op.SUBL.S, 'long',   'bhs', ''], ['USUBL',  1, '0010', op.SUBL.U,  'long',   'bhs', ''],
  ['SSUBW',  0, '0011', op.SUBL.S, 'wide',   'bhs', ''], ['USUBW',  1, '0011', op.SUBL.U,  'wide',   'bhs', ''],
  ['ADDHN',  0, '0100', op.ADDHN,  'narrow', 'bhs', ''], ['RADDHN', 1, '0100', op.RADDHN,  'narrow', 'bhs', ''],
  ['SABAL',  0, '0101', op.ABA.S,  'long',   'bhs', ''], ['UABAL',  1, '0101', op.ABA.U,   'long',   'bhs', ''],
  ['SUBHN',  0, '0110', op.SUBHN,  'narrow', 'bhs', ''], ['RSUBHN', 1, '0110', op.RSUBHN,  'narrow', 'bhs', ''],
  ['SABDL',  0, '0111', op.ABD.S,  'long',   'bhs', ''], ['UABDL',  1, '0111', op.ABD.U,   'long',   'bhs', ''],
  ['SMLAL',  0, '1000', op.MLAL.S, 'long',   'bhs', ''], ['UMLAL',  1, '1000', op.MLAL.U,  'long',   'bhs', ''],
  ['SMLSL',  0, '1010', op.MLSL.S, 'long',   'bhs', ''], ['UMLSL',  1, '1010', op.MLSL.U,  'long',   'bhs', ''],
  ['SMULL',  0, '1100', op.MULL.S, 'long',   'bhs', ''], ['UMULL',  1, '1100', op.MULL.U,  'long',   'bhs', ''],
  ['SQDMLAL', 0, '1001', op.SQDMLAL, 'long', 'hs', 'hs'], ['SQDMLSL', 0, '1011', op.SQDMLSL, 'long', 'hs', 'hs'],
  ['SQDMULL', 0, '1101', op.SQDMULL, 'long', 'hs', 'hs'], ['PMULL',  0, '1110', op.PMUL,   'long',   'b',   ''],
]

/** Operands of the three shapes that differ in size, as printed. */
function printDifferent(shape: Shape, f: Same): string {
  const wide = (r: number) => vector(f.size + 1, 1, r)
  const narrow = (r: number) => vector(f.size, f.Q, r)
  const d = shape === 'narrow' ? narrow(f.Rd) : wide(f.Rd)
  const n = shape === 'long' ? narrow(f.Rn) : wide(f.Rn)
  const m = shape === 'narrow' ? wide(f.Rm) : narrow(f.Rm)
  return `${d}, ${n}, ${m}`
}

for (const [name, u, opcode, lane, shape, sizes, scalars] of DIFFERENT) {
  const mnemonic = name.toLowerCase()
  rows.push(
    fpRow<keyof Same>(
      scalars ? `${name} (vector)` : name,
      'simd three different',
      `0 Q ${u} 01110 size:2 1 Rm:5 ${opcode} 00 Rn:5 Rd:5`,
      {
        allocated: f => has(sizes, f.size),
        emit: (b, f) =>
          emitLanes(b, lane, shape, f.size as Size, threeOf(f), laneCount(f.size, 0), f.Q),
        print: f => `${mnemonic}${f.Q ? '2' : ''} ${printDifferent(shape, f)}`,
      },
    ),
  )
  if (!scalars) continue
  rows.push(
    fpRow<keyof Same>(
      `${name} (scalar)`,
      'simd scalar three different',
      `01 ${u} 11110 size:2 1 Rm:5 ${opcode} 00 Rn:5 Rd:5`,
      {
        allocated: f => has(scalars, f.size),
        emit: (b, f) => emitLanes(b, lane, shape, f.size as Size, threeOf(f), 1),
        print: f =>
          `${mnemonic} ${scalar(f.size + 1, f.Rd)}, ${scalar(f.size, f.Rn)}, ${scalar(f.size, f.Rm)}`,
      },
    ),
  )
}

// By element: the second source is one lane, broadcast first.
// biome-ignore format: table
const BY_ELEMENT: readonly (readonly [string, 0 | 1, string, LaneOp, Shape, boolean])[] = [
  ['MLA',      1, '0000', op.MLA,      'same', false], ['MLS',      1, '0100', op.MLS,      'same', false],
  ['MUL',      0, '1000', op.MUL,      'same', false],
  ['SMLAL',    0, '0010', op.MLAL.S,   'long', false], ['UMLAL',    1, '0010', op.MLAL.U,   'long', false],
  ['SMLSL',    0, '0110', op.MLSL.S,   'long', false], ['UMLSL',    1, '0110', op.MLSL.U,   'long', false],
  ['SMULL',    0, '1010', op.MULL.S,   'long', false], ['UMULL',    1, '1010', op.MULL.U,   'long', false],
  ['SQDMLAL',  0, '0011', op.SQDMLAL,  'long', true],  ['SQDMLSL',  0, '0111', op.SQDMLSL,  'long', true],
  ['SQDMULL',  0, '1011', op.SQDMULL,  'long', true],
  ['SQDMULH',  0, '1100', op.SQDMULH,  'same', true],  ['SQRDMULH', 0, '1101', op.SQRDMULH, 'same', true],
]

type ByElement = Of<'Q' | 'size' | 'L' | 'M' | 'Rm' | 'H' | 'Rn' | 'Rd'>

/** The lane that is multiplied with: halves have a 4-bit register number and three bits of index. */
function lane(f: Omit<ByElement, 'Q'>): { register: number; index: number } {
  return f.size === 1
    ? { register: f.Rm, index: (f.H << 2) | (f.L << 1) | f.M }
    : { register: (f.M << 4) | f.Rm, index: (f.H << 1) | f.L }
}

for (const [name, u, opcode, fn, shape, scalars] of BY_ELEMENT) {
  const mnemonic = name.toLowerCase()
  const other = (b: Emitter, f: ByElement) => {
    const { register, index } = lane(f)
    return broadcastLane(b, f.size as Size, V(register), index)
  }
  const printed = (f: ByElement) => {
    const { register, index } = lane(f)
    return element(f.size, register, index)
  }
  rows.push(
    fpRow<keyof ByElement>(
      scalars ? `${name} (by element, vector)` : `${name} (by element)`,
      'simd by element',
      `0 Q ${u} 01111 size:2 L M Rm:4 ${opcode} H 0 Rn:5 Rd:5`,
      {
        allocated: f => has('hs', f.size),
        emit(b, f) {
          const at = { d: V(f.Rd), a: V(f.Rn), b: other(b, f) }
          const count = laneCount(f.size, shape === 'long' ? 0 : f.Q)
          emitLanes(b, fn, shape, f.size as Size, at, count, shape === 'long' ? f.Q : 0)
        },
        print: f =>
          shape === 'long'
            ? `${mnemonic}${f.Q ? '2' : ''} ${vector(f.size + 1, 1, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}, ${printed(f)}`
            : `${mnemonic} ${vector(f.size, f.Q, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}, ${printed(f)}`,
      },
    ),
  )
  if (!scalars) continue
  rows.push(
    fpRow<keyof ByElement>(
      `${name} (by element, scalar)`,
      'simd scalar by element',
      `01 ${u} 11111 size:2 L M Rm:4 ${opcode} H 0 Rn:5 Rd:5`,
      {
        allocated: f => has('hs', f.size),
        emit: (b, f) =>
          emitLanes(b, fn, shape, f.size as Size, { d: V(f.Rd), a: V(f.Rn), b: other(b, f) }, 1),
        print: f =>
          `${mnemonic} ${scalar(shape === 'long' ? f.size + 1 : f.size, f.Rd)}, ${scalar(f.size, f.Rn)}, ${printed(f)}`,
      },
    ),
  )
}

export const SIMD_INTEGER: readonly Encoding[] = rows
