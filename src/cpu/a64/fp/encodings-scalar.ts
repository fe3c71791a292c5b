// Scalar floating point: arithmetic, comparison, selection, moves, conversions (DDI 0487 C4.1.96, "Floating-point ...").
// Half precision has conversions only; FEAT_FP16 is not modelled, so its encodings are UNDEFINED.

import type { Slot } from '../../ir/builder.js'
import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import { routine } from '../machine.js'
import { SLOT } from '../registers.js'
import { CONDITIONS, reg } from '../text.js'
import { floatImmediate, floatText, floatValue } from './encodings-copy.js'
import { compare } from './float-compare.js'
import { ROUNDING } from './float-format.js'
import { convertScalar, fromInteger, toInteger } from './float-integers.js'
import * as op from './float-lanes.js'
import {
  enterFloat,
  type FloatOp,
  type FloatSize,
  floatRoutine,
  floatRoutine3,
  formatOf,
  leaveFloat,
} from './float-lanes.js'
import { fpRow, type Of, scalar, V } from './rows.js'

const rows: Encoding[] = []

/** log2 of the bytes of a ftype: 0 single, 1 double, 3 half. */
const sizeOf = (f: Of<'ftype'>): FloatSize => (f.ftype ? 3 : 2)
const isFloat = (f: Of<'ftype'>): boolean => f.ftype < 2

// One source.

type One = Of<'ftype' | 'Rn' | 'Rd'>

/** Writes the lowest bits of a vector register from a slot, the rest being zero. */
function setScalar(b: Emitter, size: FloatSize, d: number, a: Slot): void {
  b.emit(size === 3 ? 'i64.mov' : 'i64.extendu', { d: V(d), a })
  b.emit('i64.const', { d: V(d) + 1, big: 0n })
}

function one(name: string, opcode: string, emit: (b: Emitter, f: One, size: FloatSize) => void) {
  const mnemonic = name.split(' ')[0]!.toLowerCase()
  rows.push(
    fpRow<keyof One>(name, 'fp one source', `00011110 ftype:2 1 ${opcode} 10000 Rn:5 Rd:5`, {
      allocated: isFloat,
      emit: (b, f) => emit(b, f, sizeOf(f)),
      print: f => `${mnemonic} ${scalar(sizeOf(f), f.Rd)}, ${scalar(sizeOf(f), f.Rn)}`,
    }),
  )
}

const signBit = (size: FloatSize): bigint => formatOf(size).signBit

one('FMOV (register)', '000000', (b, f, size) => setScalar(b, size, f.Rd, V(f.Rn)))
one('FABS (scalar)', '000001', (b, f, size) =>
  setScalar(b, size, f.Rd, b.logic(8, 'and', V(f.Rn), b.const64(signBit(size) - 1n))),
)
one('FNEG (scalar)', '000010', (b, f, size) =>
  setScalar(b, size, f.Rd, b.logic(8, 'xor', V(f.Rn), b.const64(signBit(size)))),
)

// biome-ignore format: table
const ONE: readonly (readonly [string, string, FloatOp])[] = [
  ['FSQRT',  '000011', op.FSQRT],
  ['FRINTN', '001000', op.FRINTN], ['FRINTP', '001001', op.FRINTP], ['FRINTM', '001010', op.FRINTM],
  ['FRINTZ', '001011', op.FRINTZ], ['FRINTA', '001100', op.FRINTA], ['FRINTX', '001110', op.FRINTX],
  ['FRINTI', '001111', op.FRINTI],
]
for (const [name, opcode, operation] of ONE)
  one(`${name} (scalar)`, opcode, (b, f, size) =>
    b.call(floatRoutine(operation, size), { d: V(f.Rd), a: V(f.Rn), imm: 1 }),
  )

/** Size of FCVT's operands, as its two fields say them. */
const SIZES = [2, 3, undefined, 1] as const

rows.push(
  fpRow<'ftype' | 'opc' | 'Rn' | 'Rd'>(
    'FCVT',
    'fp convert precision',
    '00011110 ftype:2 1 0001 opc:2 10000 Rn:5 Rd:5',
    {
      allocated: f => f.ftype !== f.opc && f.ftype !== 2 && f.opc !== 2,
      emit: (b, f) =>
        b.call(convertScalar(SIZES[f.opc]!, SIZES[f.ftype]!), { d: V(f.Rd), a: V(f.Rn) }),
      print: f => `fcvt ${scalar(SIZES[f.opc]!, f.Rd)}, ${scalar(SIZES[f.ftype]!, f.Rn)}`,
    },
  ),
)

// Two and three sources.

type Two = Of<'ftype' | 'Rm' | 'Rn' | 'Rd'>

// biome-ignore format: table
const TWO = [
  ['FMUL', '0000', op.FMUL], ['FDIV', '0001', op.FDIV], ['FADD', '0010', op.FADD], ['FSUB', '0011', op.FSUB],
  ['FMAX', '0100', op.FMAX], ['FMIN', '0101', op.FMIN], ['FMAXNM', '0110', op.FMAXNM], ['FMINNM', '0111', op.FMINNM],
  ['FNMUL', '1000', op.FNMUL],
] as const
for (const [name, opcode, operation] of TWO)
  rows.push(
    fpRow<keyof Two>(
      name === 'FNMUL' ? name : `${name} (scalar)`,
      'fp two source',
      `00011110 ftype:2 1 Rm:5 ${opcode} 10 Rn:5 Rd:5`,
      {
        allocated: isFloat,
        emit: (b, f) =>
          b.call(floatRoutine(operation, sizeOf(f)), {
            d: V(f.Rd),
            a: V(f.Rn),
            b: V(f.Rm),
            imm: 1,
          }),
        print: f =>
          `${name.toLowerCase()} ${[f.Rd, f.Rn, f.Rm].map(r => scalar(sizeOf(f), r)).join(', ')}`,
      },
    ),
  )

type Three = Of<'ftype' | 'Rm' | 'Ra' | 'Rn' | 'Rd'>

// biome-ignore format: table
const THREE = [['FMADD', 0, 0, op.FMADD], ['FMSUB', 0, 1, op.FMSUB], ['FNMADD', 1, 0, op.FNMADD], ['FNMSUB', 1, 1, op.FNMSUB]] as const
for (const [name, o1, o0, operation] of THREE)
  rows.push(
    fpRow<keyof Three>(
      name,
      'fp three source',
      `00011111 ftype:2 ${o1} Rm:5 ${o0} Ra:5 Rn:5 Rd:5`,
      {
        allocated: isFloat,
        emit: (b, f) =>
          b.call(floatRoutine3(operation, sizeOf(f)), {
            d: V(f.Rd),
            a: V(f.Rn),
            b: V(f.Rm),
            imm: V(f.Ra),
          }),
        print: f =>
          `${name.toLowerCase()} ${[f.Rd, f.Rn, f.Rm, f.Ra].map(r => scalar(sizeOf(f), r)).join(', ')}`,
      },
    ),
  )

// Comparison and selection.

/** NZCV of a compared with b; imm 1 signals quiet NaNs too. */
const compares = ([2, 3] as const).map(size =>
  routine(`fcmp.${size}`, (m, { a, b, imm: signal }) => {
    const s = m.state
    const v = s.lanes
    const f = size === 3 ? v.f64 : v.f32
    const x = f[v.index(size, a)]!
    const y = f[v.index(size, b)]!
    if (!Number.isNaN(x + y) && op.isHostLike(s, size, x, y)) {
      s.nzcv = x < y ? LESS : x === y ? EQUAL : GREATER
      return
    }
    const env = enterFloat(s)
    const at = (slot: number) => v.bits(size, v.index(size, slot))
    s.nzcv = compare(formatOf(size), at(a), at(b), signal !== 0, env) << 28
    leaveFloat(s)
  }),
)
const LESS = 0x8000_0000
const EQUAL = 0x6000_0000
const GREATER = 0x2000_0000

type Compare = Of<'ftype' | 'Rm' | 'Rn' | 'e' | 'z'>

rows.push(
  fpRow<keyof Compare>(
    'FCMP, FCMPE',
    'fp compare',
    '00011110 ftype:2 1 Rm:5 00 1000 Rn:5 e z 000',
    {
      allocated: isFloat,
      emit(b, f) {
        const at = { a: V(f.Rn), b: f.z ? SLOT.ZERO : V(f.Rm), imm: f.e }
        b.call(compares[sizeOf(f) - 2]!, at)
      },
      print: f =>
        `fcmp${f.e ? 'e' : ''} ${scalar(sizeOf(f), f.Rn)}, ${f.z ? '#0.0' : scalar(sizeOf(f), f.Rm)}`,
    },
  ),
  fpRow<'ftype' | 'Rm' | 'cond' | 'Rn' | 'op' | 'nzcv'>(
    'FCCMP, FCCMPE',
    'fp conditional compare',
    '00011110 ftype:2 1 Rm:5 cond:4 01 Rn:5 op nzcv:4',
    {
      allocated: isFloat,
      emit(b, f) {
        const holds = b.condition(f.cond)
        b.emit('i32.const', { d: SLOT.NZCV, imm: f.nzcv << 28 })
        b.when(holds, () => b.call(compares[sizeOf(f) - 2]!, { a: V(f.Rn), b: V(f.Rm), imm: f.op }))
      },
      print: f =>
        `fccmp${f.op ? 'e' : ''} ${scalar(sizeOf(f), f.Rn)}, ${scalar(sizeOf(f), f.Rm)}, #0x${f.nzcv.toString(16)}, ${CONDITIONS[f.cond]!}`,
    },
  ),
  fpRow<'ftype' | 'Rm' | 'cond' | 'Rn' | 'Rd'>(
    'FCSEL',
    'fp conditional select',
    '00011110 ftype:2 1 Rm:5 cond:4 11 Rn:5 Rd:5',
    {
      allocated: isFloat,
      emit: (b, f) =>
        setScalar(b, sizeOf(f), f.Rd, b.select(8, b.condition(f.cond), V(f.Rn), V(f.Rm))),
      print: f =>
        `fcsel ${[f.Rd, f.Rn, f.Rm].map(r => scalar(sizeOf(f), r)).join(', ')}, ${CONDITIONS[f.cond]!}`,
    },
  ),
  fpRow<'ftype' | 'imm8' | 'Rd'>(
    'FMOV (scalar, immediate)',
    'fp immediate',
    '00011110 ftype:2 1 imm8:8 100 00000 Rd:5',
    {
      allocated: isFloat,
      emit: (b, f) => setScalar(b, sizeOf(f), f.Rd, b.const64(floatImmediate(f.imm8, sizeOf(f)))),
      print: f => `fmov ${scalar(sizeOf(f), f.Rd)}, #${floatText(floatValue(f.imm8))}`,
    },
  ),
)

// To and from general registers.

type Convert = Of<'sf' | 'ftype' | 'Rn' | 'Rd'>
type Fixed = Of<'sf' | 'ftype' | 'scale' | 'Rn' | 'Rd'>

/** Bits below the binary point. */
const fractionBits = (f: Fixed): number => 64 - f.scale
const isFixed = (f: Fixed): boolean => isFloat(f) && (f.sf === 1 || f.scale >= 32)

const { TIES_EVEN, PLUS, MINUS, ZERO, TIES_AWAY } = ROUNDING
// biome-ignore format: table
const TO_INTEGER = [
  ['FCVTNS', '00 000', false, TIES_EVEN], ['FCVTNU', '00 001', true, TIES_EVEN],
  ['FCVTPS', '01 000', false, PLUS],      ['FCVTPU', '01 001', true, PLUS],
  ['FCVTMS', '10 000', false, MINUS],     ['FCVTMU', '10 001', true, MINUS],
  ['FCVTZS', '11 000', false, ZERO],      ['FCVTZU', '11 001', true, ZERO],
  ['FCVTAS', '00 100', false, TIES_AWAY], ['FCVTAU', '00 101', true, TIES_AWAY],
] as const
for (const [name, opcode, unsigned, mode] of TO_INTEGER) {
  const mnemonic = name.toLowerCase()
  const truncates = mode === ZERO
  const emit = (b: Emitter, f: Convert, imm: number) =>
    // With XZR as target only the exceptions remain.
    b.call(toInteger(mnemonic, sizeOf(f), f.sf, unsigned, mode), {
      d: f.Rd === 31 ? b.temp() : f.Rd,
      a: V(f.Rn),
      imm,
    })
  rows.push(
    fpRow<keyof Convert>(
      truncates ? `${name} (scalar, integer)` : `${name} (scalar)`,
      'fp to integer',
      `sf 0011110 ftype:2 1 ${opcode} 000000 Rn:5 Rd:5`,
      {
        allocated: isFloat,
        emit: (b, f) => emit(b, f, 0),
        print: f => `${mnemonic} ${reg(f.sf, f.Rd)}, ${scalar(sizeOf(f), f.Rn)}`,
      },
    ),
  )
  if (!truncates) continue
  rows.push(
    fpRow<keyof Fixed>(
      `${name} (scalar, fixed-point)`,
      'fp to fixed',
      `sf 0011110 ftype:2 0 ${opcode} scale:6 Rn:5 Rd:5`,
      {
        allocated: isFixed,
        emit: (b, f) => emit(b, f, fractionBits(f)),
        print: f =>
          `${mnemonic} ${reg(f.sf, f.Rd)}, ${scalar(sizeOf(f), f.Rn)}, #${fractionBits(f)}`,
      },
    ),
  )
}

for (const [name, opcode, unsigned] of [
  ['SCVTF', '010', false],
  ['UCVTF', '011', true],
] as const) {
  const mnemonic = name.toLowerCase()
  const emit = (b: Emitter, f: Convert, imm: number) =>
    b.call(fromInteger(sizeOf(f), f.sf, unsigned), { d: V(f.Rd), a: b.x(f.Rn), imm })
  rows.push(
    fpRow<keyof Convert>(
      `${name} (scalar, integer)`,
      'fp from integer',
      `sf 0011110 ftype:2 1 00 ${opcode} 000000 Rn:5 Rd:5`,
      {
        allocated: isFloat,
        emit: (b, f) => emit(b, f, 0),
        print: f => `${mnemonic} ${scalar(sizeOf(f), f.Rd)}, ${reg(f.sf, f.Rn)}`,
      },
    ),
    fpRow<keyof Fixed>(
      `${name} (scalar, fixed-point)`,
      'fp from fixed',
      `sf 0011110 ftype:2 0 00 ${opcode} scale:6 Rn:5 Rd:5`,
      {
        allocated: isFixed,
        emit: (b, f) => emit(b, f, fractionBits(f)),
        print: f =>
          `${mnemonic} ${scalar(sizeOf(f), f.Rd)}, ${reg(f.sf, f.Rn)}, #${fractionBits(f)}`,
      },
    ),
  )
}

type Move = Of<'Rn' | 'Rd'>

rows.push(
  fpRow<'sf' | 'ftype' | 'Rn' | 'Rd'>(
    'FMOV (to general)',
    'fp move general',
    'sf 0011110 ftype:2 1 00 110 000000 Rn:5 Rd:5',
    {
      allocated: f => f.ftype === f.sf,
      emit: (b, f) => b.setX(f.sf ? 8 : 4, f.Rd, V(f.Rn)),
      print: f => `fmov ${reg(f.sf, f.Rd)}, ${scalar(sizeOf(f), f.Rn)}`,
    },
  ),
  fpRow<'sf' | 'ftype' | 'Rn' | 'Rd'>(
    'FMOV (from general)',
    'fp move general',
    'sf 0011110 ftype:2 1 00 111 000000 Rn:5 Rd:5',
    {
      allocated: f => f.ftype === f.sf,
      emit: (b, f) => setScalar(b, sizeOf(f), f.Rd, b.x(f.Rn)),
      print: f => `fmov ${scalar(sizeOf(f), f.Rd)}, ${reg(f.sf, f.Rn)}`,
    },
  ),
  fpRow<keyof Move>(
    'FMOV (top half to general)',
    'fp move general',
    '1 0011110 10 1 01 110 000000 Rn:5 Rd:5',
    {
      emit: (b, f) => b.setX(8, f.Rd, V(f.Rn) + 1),
      print: f => `fmov ${reg(1, f.Rd)}, v${f.Rn}.d[1]`,
    },
  ),
  fpRow<keyof Move>(
    'FMOV (general to top half)',
    'fp move general',
    '1 0011110 10 1 01 111 000000 Rn:5 Rd:5',
    {
      emit: (b, f) => b.emit('i64.mov', { d: V(f.Rd) + 1, a: b.x(f.Rn) }),
      print: f => `fmov v${f.Rd}.d[1], ${reg(1, f.Rn)}`,
    },
  ),
)

export const FP_SCALAR: readonly Encoding[] = rows
