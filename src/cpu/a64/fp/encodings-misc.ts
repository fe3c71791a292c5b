// Advanced SIMD integer instructions with two registers: two-register miscellaneous, across lanes, scalar pairwise
// (DDI 0487 C4.1.96). The floating-point ones of these groups are in encodings-vector-float.ts.

import type { Encoding } from '../encodings.js'
import { routine } from '../machine.js'
import { unsignedRecipEstimate, unsignedRsqrtEstimate } from './float-estimate.js'
import * as op from './lane-arithmetic.js'
import { acrossRoutine, type LaneOp } from './lanes.js'
import {
  emitLanes,
  fpRow,
  laneCount,
  letter,
  type Of,
  replicated,
  scalar,
  setVector,
  splat,
  V,
  vector,
} from './rows.js'
import type { Size } from './views.js'

const rows: Encoding[] = []

const has = (sizes: string, size: number) => sizes.includes(letter(size))

type Two = Of<'Q' | 'size' | 'Rn' | 'Rd'>

/** Pattern of a two-register miscellaneous instruction. */
const pattern = (u: 0 | 1, opcode: string, size = 'size:2') =>
  `0 Q ${u} 01110 ${size} 10000 ${opcode} 10 Rn:5 Rd:5`

// name, U, opcode, lane function, sizes, scalar sizes. Comparisons are with zero, which print as the last operand.
// biome-ignore format: table
const LANEWISE: readonly (readonly [string, 0 | 1, string, LaneOp, string, string])[] = [
  ['SUQADD', 0, '00011', op.SUQADD, 'bhsd', 'bhsd'], ['USQADD', 1, '00011', op.USQADD, 'bhsd', 'bhsd'],
  ['CLS',    0, '00100', op.CLS,    'bhs',  ''],     ['CLZ',    1, '00100', op.CLZ,    'bhs',  ''],
  ['CNT',    0, '00101', op.CNT,    'b',    ''],
  ['SQABS',  0, '00111', op.SQABS,  'bhsd', 'bhsd'], ['SQNEG',  1, '00111', op.SQNEG,  'bhsd', 'bhsd'],
  ['ABS',    0, '01011', op.ABS,    'bhsd', 'd'],    ['NEG',    1, '01011', op.NEG,    'bhsd', 'd'],
  ['CMGT',   0, '01000', op.GT.S,   'bhsd', 'd'],    ['CMGE',   1, '01000', op.GE.S,   'bhsd', 'd'],
  ['CMEQ',   0, '01001', op.CMEQ,   'bhsd', 'd'],    ['CMLE',   1, '01001', op.CMLE,   'bhsd', 'd'],
  ['CMLT',   0, '01010', op.CMLT,   'bhsd', 'd'],
]

for (const [name, u, opcode, lane, sizes, scalars] of LANEWISE) {
  const compares = name.startsWith('CM')
  const title = compares ? `${name} (zero` : `${name} (`
  const mnemonic = name.toLowerCase()
  const end = compares ? ', #0' : ''
  // CLS and CLZ are also instructions of general registers.
  const only = name === 'CNT'
  rows.push(
    fpRow<keyof Two>(
      only ? name : compares ? `${title}, vector)` : `${title}vector)`,
      'simd two-register misc',
      pattern(u, opcode),
      {
        allocated: f => has(sizes, f.size) && (f.size < 3 || f.Q === 1),
        emit(b, f) {
          const at = { d: V(f.Rd), a: V(f.Rn), b: replicated(b, 0n) }
          emitLanes(b, lane, 'same', f.size as Size, at, laneCount(f.size, f.Q))
        },
        print: f => `${mnemonic} ${vector(f.size, f.Q, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}${end}`,
      },
    ),
  )
  if (!scalars) continue
  rows.push(
    fpRow<'size' | 'Rn' | 'Rd'>(
      compares ? `${title}, scalar)` : `${title}scalar)`,
      'simd scalar two-register misc',
      `01 ${u} 11110 size:2 10000 ${opcode} 10 Rn:5 Rd:5`,
      {
        allocated: f => has(scalars, f.size),
        emit(b, f) {
          const at = { d: V(f.Rd), a: V(f.Rn), b: replicated(b, 0n) }
          emitLanes(b, lane, 'same', f.size as Size, at, 1)
        },
        print: f => `${mnemonic} ${scalar(f.size, f.Rd)}, ${scalar(f.size, f.Rn)}${end}`,
      },
    ),
  )
}

// Bits and the order of elements.

rows.push(
  fpRow<'Q' | 'Rn' | 'Rd'>('NOT', 'simd two-register misc', pattern(1, '00101', '00'), {
    emit(b, f) {
      const low = b.not(8, V(f.Rn))
      setVector(b, f.Rd, f.Q, low, f.Q ? b.not(8, V(f.Rn) + 1) : low)
    },
    print: f => `mvn ${vector(0, f.Q, f.Rd)}, ${vector(0, f.Q, f.Rn)}`,
  }),
  fpRow<'Q' | 'Rn' | 'Rd'>('RBIT (vector)', 'simd two-register misc', pattern(1, '00101', '01'), {
    emit(b, f) {
      const at = { d: V(f.Rd), a: V(f.Rn), b: V(f.Rn) }
      emitLanes(b, op.RBIT, 'same', 0, at, laneCount(0, f.Q))
    },
    print: f => `rbit ${vector(0, f.Q, f.Rd)}, ${vector(0, f.Q, f.Rn)}`,
  }),
)

/** Reverses the elements of each group of 2^group bytes. */
const reverse = ([0, 1, 2] as const).map(size =>
  routine(`reverse.${size}`, (m, { d, a, b: group, imm: Q }) => {
    const v = m.state.lanes
    const count = laneCount(size, Q)
    const flip = (1 << (group - size)) - 1
    const from = v.index(size, a)
    const taken = Array.from({ length: count }, (_, i) => v.bits(size, from + (i ^ flip)))
    taken.forEach((bits, i) => {
      v.setBits(size, v.index(size, d) + i, bits)
    })
    v.clearAbove(d, count << size)
  }),
)

// biome-ignore format: table
const REVERSE = [['REV64', 0, '00000', 3], ['REV32 (vector)', 1, '00000', 2], ['REV16 (vector)', 0, '00001', 1]] as const
for (const [name, u, opcode, group] of REVERSE)
  rows.push(
    fpRow<keyof Two>(name, 'simd two-register misc', pattern(u, opcode), {
      allocated: f => f.size < group,
      emit: (b, f) => b.call(reverse[f.size]!, { d: V(f.Rd), a: V(f.Rn), b: group, imm: f.Q }),
      print: f =>
        `${name.split(' ')[0]!.toLowerCase()} ${vector(f.size, f.Q, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}`,
    }),
  )

// Adjacent pairs into lanes twice as wide; ADALP accumulates.

// biome-ignore format: table
const PAIRS_LONG = [
  ['SADDLP', 0, '00010', op.ADDL.S],  ['UADDLP', 1, '00010', op.ADDL.U],
  ['SADALP', 0, '00110', op.ADALP.S], ['UADALP', 1, '00110', op.ADALP.U],
] as const
for (const [name, u, opcode, lane] of PAIRS_LONG)
  rows.push(
    fpRow<keyof Two>(name, 'simd two-register misc', pattern(u, opcode), {
      allocated: f => f.size < 3,
      emit(b, f) {
        const at = { d: V(f.Rd), a: V(f.Rn), b: V(f.Rn) }
        emitLanes(b, lane, 'pairsLong', f.size as Size, at, laneCount(f.size + 1, f.Q))
      },
      print: f =>
        `${name.toLowerCase()} ${vector(f.size + 1, f.Q, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}`,
    }),
  )

// Narrowing, with Q for the upper half, and SHLL, which widens by a shift of the element's own width.

// biome-ignore format: table
const EXTRACT: readonly (readonly [string, 0 | 1, string, LaneOp, boolean])[] = [
  ['XTN',   0, '10010', op.XTN,   false], ['SQXTUN', 1, '10010', op.SQXTUN, true],
  ['SQXTN', 0, '10100', op.SQXTN, true],  ['UQXTN',  1, '10100', op.UQXTN,  true],
]
for (const [name, u, opcode, lane, hasScalar] of EXTRACT) {
  const mnemonic = name.toLowerCase()
  rows.push(
    fpRow<keyof Two>(
      hasScalar ? `${name} (vector)` : name,
      'simd two-register misc',
      pattern(u, opcode),
      {
        allocated: f => f.size < 3,
        emit(b, f) {
          const at = { d: V(f.Rd), a: V(f.Rn), b: V(f.Rn) }
          emitLanes(b, lane, 'narrow', f.size as Size, at, laneCount(f.size, 0), f.Q)
        },
        print: f =>
          `${mnemonic}${f.Q ? '2' : ''} ${vector(f.size, f.Q, f.Rd)}, ${vector(f.size + 1, 1, f.Rn)}`,
      },
    ),
  )
  if (!hasScalar) continue
  rows.push(
    fpRow<'size' | 'Rn' | 'Rd'>(
      `${name} (scalar)`,
      'simd scalar two-register misc',
      `01 ${u} 11110 size:2 10000 ${opcode} 10 Rn:5 Rd:5`,
      {
        allocated: f => f.size < 3,
        emit: (b, f) =>
          emitLanes(b, lane, 'narrow', f.size as Size, { d: V(f.Rd), a: V(f.Rn), b: V(f.Rn) }, 1),
        print: f => `${mnemonic} ${scalar(f.size, f.Rd)}, ${scalar(f.size + 1, f.Rn)}`,
      },
    ),
  )
}

rows.push(
  fpRow<keyof Two>('SHLL', 'simd two-register misc', pattern(1, '10011'), {
    allocated: f => f.size < 3,
    emit(b, f) {
      const size = f.size as Size
      const at = { d: V(f.Rd), a: V(f.Rn), b: splat(b, size, 8 << size) }
      emitLanes(b, op.SHL.U, 'long', size, at, laneCount(size, 0), f.Q)
    },
    print: f =>
      `shll${f.Q ? '2' : ''} ${vector(f.size + 1, 1, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}, #${8 << f.size}`,
  }),
)

// Estimates on fixed-point numbers.

const estimate = (name: string, of: (v: number) => number) =>
  routine(name, (m, { d, a, imm: count }) => {
    const v = m.state.lanes
    for (let i = 0; i < count; i++)
      v.signed[2][v.index(2, d) + i] = of(v.signed[2][v.index(2, a) + i]!)
    v.clearAbove(d, 4 * count)
  })
const urecpe = estimate('urecpe', unsignedRecipEstimate)
const ursqrte = estimate('ursqrte', unsignedRsqrtEstimate)
// biome-ignore format: table
for (const [name, u, r] of [['URECPE', 0, urecpe], ['URSQRTE', 1, ursqrte]] as const)
  rows.push(
    fpRow<'Q' | 'Rn' | 'Rd'>(name, 'simd two-register misc', pattern(u, '11100', '10'), {
      emit: (b, f) => b.call(r, { d: V(f.Rd), a: V(f.Rn), imm: laneCount(2, f.Q) }),
      print: f => `${name.toLowerCase()} ${vector(2, f.Q, f.Rd)}, ${vector(2, f.Q, f.Rn)}`,
    }),
  )

// Across lanes: name, U, opcode, lane function, result twice as wide.
// biome-ignore format: table
const ACROSS = [
  ['SADDLV', 0, '00011', op.ADDL.S, true],  ['UADDLV', 1, '00011', op.ADDL.U, true],
  ['SMAXV',  0, '01010', op.MAX.S,  false], ['UMAXV',  1, '01010', op.MAX.U,  false],
  ['SMINV',  0, '11010', op.MIN.S,  false], ['UMINV',  1, '11010', op.MIN.U,  false],
  ['ADDV',   0, '11011', op.ADD,    false],
] as const
for (const [name, u, opcode, lane, long] of ACROSS)
  rows.push(
    fpRow<keyof Two>(
      name,
      'simd across lanes',
      `0 Q ${u} 01110 size:2 11000 ${opcode} 10 Rn:5 Rd:5`,
      {
        allocated: f => f.size < 2 || (f.size === 2 && f.Q === 1),
        emit: (b, f) =>
          b.call(acrossRoutine(lane, f.size as Size, long), {
            d: V(f.Rd),
            a: V(f.Rn),
            imm: laneCount(f.size, f.Q),
          }),
        print: f =>
          `${name.toLowerCase()} ${scalar(long ? f.size + 1 : f.size, f.Rd)}, ${vector(f.size, f.Q, f.Rn)}`,
      },
    ),
  )

rows.push(
  fpRow<'Rn' | 'Rd'>(
    'ADDP (scalar)',
    'simd scalar pairwise',
    '01 0 11110 11 11000 11011 10 Rn:5 Rd:5',
    {
      emit: (b, f) => b.call(acrossRoutine(op.ADD, 3, false), { d: V(f.Rd), a: V(f.Rn), imm: 2 }),
      print: f => `addp ${scalar(3, f.Rd)}, ${vector(3, 1, f.Rn)}`,
    },
  ),
)

export const SIMD_MISC: readonly Encoding[] = rows
