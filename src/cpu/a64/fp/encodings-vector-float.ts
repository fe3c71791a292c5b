// Advanced SIMD floating point, vector and scalar forms: three-same, by element, two-register miscellaneous, across
// lanes, pairs, conversions (DDI 0487 C4.1.96). FEAT_FP16 is not modelled: lanes are singles and doubles.

import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import { routine } from '../machine.js'
import { SLOT } from '../registers.js'
import { rightShift, sizeOfShift } from './encodings-shift.js'
import { ROUNDING } from './float-format.js'
import { convertLane } from './float-integers.js'
import * as op from './float-lanes.js'
import {
  type FloatOp,
  type FloatSize,
  floatAcrossRoutine,
  floatPairRoutine,
  floatRoutine,
  formatOf,
} from './float-lanes.js'
import {
  broadcastLane,
  element,
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

const sizeOf = (f: Of<'sz'>): FloatSize => (f.sz ? 3 : 2)
/** A vector of one double is reserved. */
const isVector = (f: Of<'Q' | 'sz'>): boolean => f.Q === 1 || f.sz === 0

// Three-same: name, U, a, opcode, operation, forms: v vector, s scalar, p pairs.
// biome-ignore format: table
const SAME: readonly (readonly [string, 0 | 1, 0 | 1, string, FloatOp, string])[] = [
  ['FMAXNM', 0, 0, '11000', op.FMAXNM, 'v'],  ['FMAXNMP', 1, 0, '11000', op.FMAXNM, 'p'],
  ['FMLA',   0, 0, '11001', op.FMADD,  'v'],
  ['FADD',   0, 0, '11010', op.FADD,   'v'],  ['FADDP',   1, 0, '11010', op.FADD,   'p'],
  ['FMULX',  0, 0, '11011', op.FMULX,  'vs'], ['FMUL',    1, 0, '11011', op.FMUL,   'v'],
  ['FCMEQ',  0, 0, '11100', op.FCMEQ,  'vs'], ['FCMGE',   1, 0, '11100', op.FCMGE,  'vs'],
                                              ['FACGE',   1, 0, '11101', op.FACGE,  'vs'],
  ['FMAX',   0, 0, '11110', op.FMAX,   'v'],  ['FMAXP',   1, 0, '11110', op.FMAX,   'p'],
  ['FRECPS', 0, 0, '11111', op.FRECPS, 'vs'], ['FDIV',    1, 0, '11111', op.FDIV,   'v'],
  ['FMINNM', 0, 1, '11000', op.FMINNM, 'v'],  ['FMINNMP', 1, 1, '11000', op.FMINNM, 'p'],
  ['FMLS',   0, 1, '11001', op.FMSUB,  'v'],
  ['FSUB',   0, 1, '11010', op.FSUB,   'v'],  ['FABD',    1, 1, '11010', op.FABD,   'vs'],
                                              ['FCMGT',   1, 1, '11100', op.FCMGT,  'vs'],
                                              ['FACGT',   1, 1, '11101', op.FACGT,  'vs'],
  ['FMIN',   0, 1, '11110', op.FMIN,   'v'],  ['FMINP',   1, 1, '11110', op.FMIN,   'p'],
  ['FRSQRTS', 0, 1, '11111', op.FRSQRTS, 'vs'],
]

type Same = Of<'Q' | 'sz' | 'Rm' | 'Rn' | 'Rd'>

for (const [name, u, a, opcode, operation, forms] of SAME) {
  const mnemonic = name.toLowerCase()
  const of = forms === 'p' ? floatPairRoutine : floatRoutine
  rows.push(
    fpRow<keyof Same>(
      `${name} (vector)`,
      'simd fp three same',
      `0 Q ${u} 01110 ${a} sz 1 Rm:5 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: isVector,
        emit: (b, f) =>
          b.call(of(operation, sizeOf(f)), {
            d: V(f.Rd),
            a: V(f.Rn),
            b: V(f.Rm),
            imm: laneCount(sizeOf(f), f.Q),
          }),
        print: f =>
          `${mnemonic} ${[f.Rd, f.Rn, f.Rm].map(r => vector(sizeOf(f), f.Q, r)).join(', ')}`,
      },
    ),
  )
  if (!forms.includes('s')) continue
  rows.push(
    fpRow<keyof Omit<Same, 'Q'>>(
      `${name} (vector, scalar form)`,
      'simd scalar fp three same',
      `01 ${u} 11110 ${a} sz 1 Rm:5 ${opcode} 1 Rn:5 Rd:5`,
      {
        emit: (b, f) =>
          b.call(floatRoutine(operation, sizeOf(f)), {
            d: V(f.Rd),
            a: V(f.Rn),
            b: V(f.Rm),
            imm: 1,
          }),
        print: f => `${mnemonic} ${[f.Rd, f.Rn, f.Rm].map(r => scalar(sizeOf(f), r)).join(', ')}`,
      },
    ),
  )
}

// By element.

type ByElement = Of<'Q' | 'sz' | 'L' | 'M' | 'Rm' | 'H' | 'Rn' | 'Rd'>

const register = (f: Omit<ByElement, 'Q'>) => (f.M << 4) | f.Rm
const index = (f: Omit<ByElement, 'Q'>) => (f.sz ? f.H : (f.H << 1) | f.L)

// biome-ignore format: table
const BY_ELEMENT = [
  ['FMLA', 0, '0001', op.FMADD], ['FMLS', 0, '0101', op.FMSUB], ['FMUL', 0, '1001', op.FMUL], ['FMULX', 1, '1001', op.FMULX],
] as const
for (const [name, u, opcode, operation] of BY_ELEMENT) {
  const mnemonic = name.toLowerCase()
  const emit = (b: Emitter, f: Omit<ByElement, 'Q'>, count: number) => {
    const size = sizeOf(f)
    const at = { d: V(f.Rd), a: V(f.Rn), b: broadcastLane(b, size, V(register(f)), index(f)) }
    b.call(floatRoutine(operation, size), { ...at, imm: count })
  }
  rows.push(
    fpRow<keyof ByElement>(
      `${name} (by element, vector)`,
      'simd fp by element',
      `0 Q ${u} 01111 1 sz L M Rm:4 ${opcode} H 0 Rn:5 Rd:5`,
      {
        allocated: f => isVector(f) && !(f.sz && f.L),
        emit: (b, f) => emit(b, f, laneCount(sizeOf(f), f.Q)),
        print: f =>
          `${mnemonic} ${vector(sizeOf(f), f.Q, f.Rd)}, ${vector(sizeOf(f), f.Q, f.Rn)}, ${element(sizeOf(f), register(f), index(f))}`,
      },
    ),
    fpRow<keyof Omit<ByElement, 'Q'>>(
      `${name} (by element, scalar)`,
      'simd scalar fp by element',
      `01 ${u} 11111 1 sz L M Rm:4 ${opcode} H 0 Rn:5 Rd:5`,
      {
        allocated: f => !(f.sz && f.L),
        emit: (b, f) => emit(b, f, 1),
        print: f =>
          `${mnemonic} ${scalar(sizeOf(f), f.Rd)}, ${scalar(sizeOf(f), f.Rn)}, ${element(sizeOf(f), register(f), index(f))}`,
      },
    ),
  )
}

// Two registers: name, U, a, opcode, operation, forms. Those with '0' compare with zero.
const { TIES_EVEN, PLUS, MINUS, ZERO, TIES_AWAY } = ROUNDING
// biome-ignore format: table
const TWO: readonly (readonly [string, 0 | 1, 0 | 1, string, FloatOp, string])[] = [
  ['FRINTN', 0, 0, '11000', op.FRINTN, 'v'],  ['FRINTA', 1, 0, '11000', op.FRINTA, 'v'],
  ['FRINTM', 0, 0, '11001', op.FRINTM, 'v'],  ['FRINTX', 1, 0, '11001', op.FRINTX, 'v'],
  ['FRINTP', 0, 1, '11000', op.FRINTP, 'v'],
  ['FRINTZ', 0, 1, '11001', op.FRINTZ, 'v'],  ['FRINTI', 1, 1, '11001', op.FRINTI, 'v'],
  ['FCVTNS', 0, 0, '11010', op.toFixedOp('fcvtns', false, TIES_EVEN), 'vs'],
  ['FCVTNU', 1, 0, '11010', op.toFixedOp('fcvtnu', true, TIES_EVEN),  'vs'],
  ['FCVTMS', 0, 0, '11011', op.toFixedOp('fcvtms', false, MINUS),     'vs'],
  ['FCVTMU', 1, 0, '11011', op.toFixedOp('fcvtmu', true, MINUS),      'vs'],
  ['FCVTAS', 0, 0, '11100', op.toFixedOp('fcvtas', false, TIES_AWAY), 'vs'],
  ['FCVTAU', 1, 0, '11100', op.toFixedOp('fcvtau', true, TIES_AWAY),  'vs'],
  ['FCVTPS', 0, 1, '11010', op.toFixedOp('fcvtps', false, PLUS),      'vs'],
  ['FCVTPU', 1, 1, '11010', op.toFixedOp('fcvtpu', true, PLUS),       'vs'],
  ['FCVTZS', 0, 1, '11011', op.toFixedOp('fcvtzs', false, ZERO),      'vsi'],
  ['FCVTZU', 1, 1, '11011', op.toFixedOp('fcvtzu', true, ZERO),       'vsi'],
  ['SCVTF',  0, 0, '11101', op.SCVTF,   'vsi'], ['UCVTF',   1, 0, '11101', op.UCVTF,   'vsi'],
  ['FCMGT',  0, 1, '01100', op.FCMGT,   'vs0'], ['FCMGE',   1, 1, '01100', op.FCMGE,   'vs0'],
  ['FCMEQ',  0, 1, '01101', op.FCMEQ,   'vs0'], ['FCMLE',   1, 1, '01101', op.FCMLE,   'vs0'],
  ['FCMLT',  0, 1, '01110', op.FCMLT,   'vs0'],
  ['FRECPE', 0, 1, '11101', op.FRECPE,  'vs'],  ['FRSQRTE', 1, 1, '11101', op.FRSQRTE, 'vs'],
  ['FRECPX', 0, 1, '11111', op.FRECPX,  's'],   ['FSQRT',   1, 1, '11111', op.FSQRT,   'v'],
]

type Two = Of<'Q' | 'sz' | 'Rn' | 'Rd'>

for (const [name, u, a, opcode, operation, forms] of TWO) {
  const mnemonic = name.toLowerCase()
  const end = forms.includes('0') ? ', #0.0' : ''
  const kind = forms.includes('0')
    ? 'zero, '
    : forms.includes('i')
      ? 'vector, integer, '
      : 'vector, '
  // The other source is zero: what is compared with, and the fraction bits of a conversion.
  const emit = (b: Emitter, f: Omit<Two, 'Q'>, count: number) =>
    b.call(floatRoutine(operation, sizeOf(f)), {
      d: V(f.Rd),
      a: V(f.Rn),
      b: replicated(b, 0n),
      imm: count,
    })
  if (forms.includes('v'))
    rows.push(
      fpRow<keyof Two>(
        `${name} (${kind}vector form)`,
        'simd fp two-register misc',
        `0 Q ${u} 01110 ${a} sz 10000 ${opcode} 10 Rn:5 Rd:5`,
        {
          allocated: isVector,
          emit: (b, f) => emit(b, f, laneCount(sizeOf(f), f.Q)),
          print: f =>
            `${mnemonic} ${vector(sizeOf(f), f.Q, f.Rd)}, ${vector(sizeOf(f), f.Q, f.Rn)}${end}`,
        },
      ),
    )
  if (forms.includes('s'))
    rows.push(
      fpRow<keyof Omit<Two, 'Q'>>(
        `${name} (${kind}scalar form)`,
        'simd scalar fp two-register misc',
        `01 ${u} 11110 ${a} sz 10000 ${opcode} 10 Rn:5 Rd:5`,
        {
          emit: (b, f) => emit(b, f, 1),
          print: f => `${mnemonic} ${scalar(sizeOf(f), f.Rd)}, ${scalar(sizeOf(f), f.Rn)}${end}`,
        },
      ),
    )
}

// Signs, in operations.
for (const [name, u] of [
  ['FABS', 0],
  ['FNEG', 1],
] as const)
  rows.push(
    fpRow<keyof Two>(
      `${name} (vector)`,
      'simd fp two-register misc',
      `0 Q ${u} 01110 1 sz 10000 01111 10 Rn:5 Rd:5`,
      {
        allocated: isVector,
        emit(b, f) {
          const sign = formatOf(sizeOf(f)).signBit
          const signs = f.sz ? sign : sign | (sign << 32n)
          const mask = b.const64(u ? signs : BigInt.asUintN(64, ~signs))
          const half = (slot: number) => b.logic(8, u ? 'xor' : 'and', slot, mask)
          const low = half(V(f.Rn))
          setVector(b, f.Rd, f.Q, low, f.Q ? half(V(f.Rn) + 1) : low)
        },
        print: f =>
          `${name.toLowerCase()} ${vector(sizeOf(f), f.Q, f.Rd)}, ${vector(sizeOf(f), f.Q, f.Rn)}`,
      },
    ),
  )

// Precision: FCVTL, FCVTN, FCVTXN. sz tells the wider side; Q takes or fills the upper half.

type AnySize = 1 | 2 | 3

const narrow = ([2, 3] as const).map(from =>
  [undefined, ROUNDING.ODD].map(mode =>
    routine(
      `fcvt${mode === undefined ? '' : 'x'}n.${from}`,
      (m, { d, a, b: upper, imm: count }) => {
        const v = m.state.lanes
        const to = (from - 1) as AnySize
        const t = SLOT.SCRATCH
        for (let i = 0; i < count; i++) convertLane(m, to, t, i, from, a, i, mode)
        for (let i = 0; i < count; i++)
          v.setBits(to, v.index(to, d) + upper * count + i, v.bits(to, v.index(to, t) + i))
        if (!upper) v.clearAbove(d, count << to)
      },
    ),
  ),
)

const widen = ([2, 3] as const).map(to =>
  routine(`fcvtl.${to}`, (m, { d, a, b: upper }) => {
    const from = (to - 1) as AnySize
    const count = 16 >> to
    const t = SLOT.SCRATCH
    for (let i = 0; i < count; i++) convertLane(m, to, t, i, from, a, upper * count + i)
    m.state.r64[d] = m.state.r64[t]!
    m.state.r64[d + 1] = m.state.r64[t + 1]!
  }),
)

const upperName = (mnemonic: string, Q: number) => `${mnemonic}${Q ? '2' : ''}`

rows.push(
  fpRow<keyof Two>(
    'FCVTN',
    'simd fp convert precision',
    '0 Q 0 01110 0 sz 10000 10110 10 Rn:5 Rd:5',
    {
      emit: (b, f) =>
        b.call(narrow[f.sz]![0]!, { d: V(f.Rd), a: V(f.Rn), b: f.Q, imm: 16 >> sizeOf(f) }),
      print: f =>
        `${upperName('fcvtn', f.Q)} ${vector(sizeOf(f) - 1, f.Q, f.Rd)}, ${vector(sizeOf(f), 1, f.Rn)}`,
    },
  ),
  fpRow<'Q' | 'Rn' | 'Rd'>(
    'FCVTXN (vector)',
    'simd fp convert precision',
    '0 Q 1 01110 0 1 10000 10110 10 Rn:5 Rd:5',
    {
      emit: (b, f) => b.call(narrow[1]![1]!, { d: V(f.Rd), a: V(f.Rn), b: f.Q, imm: 2 }),
      print: f => `${upperName('fcvtxn', f.Q)} ${vector(2, f.Q, f.Rd)}, ${vector(3, 1, f.Rn)}`,
    },
  ),
  fpRow<'Rn' | 'Rd'>(
    'FCVTXN (scalar)',
    'simd scalar fp convert precision',
    '01 1 11110 0 1 10000 10110 10 Rn:5 Rd:5',
    {
      emit: (b, f) => b.call(narrow[1]![1]!, { d: V(f.Rd), a: V(f.Rn), imm: 1 }),
      print: f => `fcvtxn ${scalar(2, f.Rd)}, ${scalar(3, f.Rn)}`,
    },
  ),
  fpRow<keyof Two>(
    'FCVTL',
    'simd fp convert precision',
    '0 Q 0 01110 0 sz 10000 10111 10 Rn:5 Rd:5',
    {
      emit: (b, f) => b.call(widen[f.sz]!, { d: V(f.Rd), a: V(f.Rn), b: f.Q }),
      print: f =>
        `${upperName('fcvtl', f.Q)} ${vector(sizeOf(f), 1, f.Rd)}, ${vector(sizeOf(f) - 1, f.Q, f.Rn)}`,
    },
  ),
)

// Fixed point: the fraction bits are encoded as right shifts are.

type Fixed = Of<'Q' | 'immh' | 'immb' | 'Rn' | 'Rd'>
const isFixed = (f: Of<'immh'>): boolean => f.immh >= 4

// biome-ignore format: table
const FIXED = [
  ['SCVTF', 0, '11100', op.SCVTF], ['UCVTF', 1, '11100', op.UCVTF],
  ['FCVTZS', 0, '11111', op.toFixedOp('fcvtzs', false, ZERO)], ['FCVTZU', 1, '11111', op.toFixedOp('fcvtzu', true, ZERO)],
] as const
for (const [name, u, opcode, operation] of FIXED) {
  const mnemonic = name.toLowerCase()
  const emit = (b: Emitter, f: Omit<Fixed, 'Q'>, count: (size: Size) => number) => {
    const size = sizeOfShift(f)
    const at = { d: V(f.Rd), a: V(f.Rn), b: splat(b, size, rightShift(f)) }
    b.call(floatRoutine(operation, size as FloatSize), { ...at, imm: count(size) })
  }
  rows.push(
    fpRow<keyof Fixed>(
      `${name} (vector, fixed-point, vector form)`,
      'simd fp fixed-point',
      `0 Q ${u} 011110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: f => isFixed(f) && (f.immh < 8 || f.Q === 1),
        emit: (b, f) => emit(b, f, size => laneCount(size, f.Q)),
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic} ${vector(size, f.Q, f.Rd)}, ${vector(size, f.Q, f.Rn)}, #${rightShift(f)}`
        },
      },
    ),
    fpRow<keyof Omit<Fixed, 'Q'>>(
      `${name} (vector, fixed-point, scalar form)`,
      'simd scalar fp fixed-point',
      `01 ${u} 111110 immh:4 immb:3 ${opcode} 1 Rn:5 Rd:5`,
      {
        allocated: isFixed,
        emit: (b, f) => emit(b, f, () => 1),
        print(f) {
          const size = sizeOfShift(f)
          return `${mnemonic} ${scalar(size, f.Rd)}, ${scalar(size, f.Rn)}, #${rightShift(f)}`
        },
      },
    ),
  )
}

// Across four singles, and the scalar pair forms.
// biome-ignore format: table
const REDUCE = [
  ['FMAXNM', 0, '01100', op.FMAXNM], ['FMINNM', 1, '01100', op.FMINNM],
  ['FMAX',   0, '01111', op.FMAX],   ['FMIN',   1, '01111', op.FMIN],
  ['FADD',   0, '01101', op.FADD],
] as const
for (const [name, a, opcode, operation] of REDUCE) {
  const mnemonic = name.toLowerCase()
  if (name !== 'FADD')
    rows.push(
      fpRow<'Rn' | 'Rd'>(
        `${name}V`,
        'simd fp across lanes',
        `0 1 1 01110 ${a} 0 11000 ${opcode} 10 Rn:5 Rd:5`,
        {
          emit: (b, f) => b.call(floatAcrossRoutine(operation), { d: V(f.Rd), a: V(f.Rn) }),
          print: f => `${mnemonic}v ${scalar(2, f.Rd)}, ${vector(2, 1, f.Rn)}`,
        },
      ),
    )
  rows.push(
    fpRow<'sz' | 'Rn' | 'Rd'>(
      `${name}P (scalar)`,
      'simd scalar fp pairwise',
      `01 1 11110 ${a} sz 11000 ${opcode} 10 Rn:5 Rd:5`,
      {
        emit: (b, f) =>
          b.call(floatPairRoutine(operation, sizeOf(f)), {
            d: V(f.Rd),
            a: V(f.Rn),
            b: V(f.Rn),
            imm: 1,
          }),
        print: f => {
          const size = sizeOf(f)
          return `${mnemonic}p ${scalar(size, f.Rd)}, v${f.Rn}.2${letter(size)}`
        },
      },
    ),
  )
}

export const SIMD_FLOAT: readonly Encoding[] = rows
