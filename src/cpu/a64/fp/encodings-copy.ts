// Advanced SIMD instructions that move elements: copy, permute, extract, table lookup, modified immediate
// (DDI 0487 C4.1.96).

import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import { routine } from '../machine.js'
import { reg } from '../text.js'
import {
  element,
  fpRow,
  laneCount,
  type Of,
  replicated,
  scalar,
  setVector,
  V,
  vector,
} from './rows.js'
import type { Size } from './views.js'

const rows: Encoding[] = []

// Copy. The lowest one in imm5 tells the size, what is above it the index.

const sizeOfCopy = (f: Of<'imm5'>): Size => (31 - Math.clz32(f.imm5 & -f.imm5)) as Size
const indexOf = (f: Of<'imm5'>): number => f.imm5 >> (sizeOfCopy(f) + 1)
const isSized = (f: Of<'imm5'>): boolean => (f.imm5 & 15) !== 0

const SIZES = [0, 1, 2, 3] as const

/** Lane `imm` of a in the lowest `b` lanes of d. */
const duplicate = SIZES.map(size =>
  routine(`dup.${size}`, (m, { d, a, b: count, imm: index }) => {
    const v = m.state.lanes
    const to = v.index(size, d)
    if (size === 3) v.u64.fill(v.u64[v.index(3, a) + index]!, to, to + count)
    else v.unsigned[size].fill(v.unsigned[size][v.index(size, a) + index]!, to, to + count)
    v.clearAbove(d, count << size)
  }),
)

/** Lane `b` of a into lane `imm` of d. */
const insert = SIZES.map(size =>
  routine(`ins.${size}`, (m, { d, a, b: from, imm: to }) => {
    const v = m.state.lanes
    v.setBits(size, v.index(size, d) + to, v.bits(size, v.index(size, a) + from))
  }),
)

/** Lane `imm` of a as an i32, zero- or sign-extended. */
const extract = ([false, true] as const).map(signed =>
  ([0, 1, 2] as const).map(size =>
    routine(`${signed ? 'smov' : 'umov'}.${size}`, (m, { d, a, imm: index }) => {
      const v = m.state.lanes
      m.state.r32[2 * d] = (signed ? v.signed : v.unsigned)[size][v.index(size, a) + index]!
    }),
  ),
)

type Copy = Of<'Q' | 'imm5' | 'Rn' | 'Rd'>

const copy = (q: string, op: 0 | 1, imm4: string) =>
  `0 ${q} ${op} 01110000 imm5:5 0 ${imm4} 1 Rn:5 Rd:5`

rows.push(
  fpRow<keyof Copy>('DUP (element, vector)', 'simd copy', copy('Q', 0, '0000'), {
    allocated: f => isSized(f) && (f.Q === 1 || sizeOfCopy(f) < 3),
    emit(b, f) {
      const size = sizeOfCopy(f)
      const at = { d: V(f.Rd), a: V(f.Rn), b: laneCount(size, f.Q), imm: indexOf(f) }
      b.call(duplicate[size]!, at)
    },
    print: f =>
      `dup ${vector(sizeOfCopy(f), f.Q, f.Rd)}, ${element(sizeOfCopy(f), f.Rn, indexOf(f))}`,
  }),
  fpRow<'imm5' | 'Rn' | 'Rd'>(
    'DUP (element, scalar)',
    'simd scalar copy',
    '01 0 11110000 imm5:5 0 0000 1 Rn:5 Rd:5',
    {
      allocated: isSized,
      emit: (b, f) =>
        b.call(duplicate[sizeOfCopy(f)]!, { d: V(f.Rd), a: V(f.Rn), b: 1, imm: indexOf(f) }),
      print: f => `mov ${scalar(sizeOfCopy(f), f.Rd)}, ${element(sizeOfCopy(f), f.Rn, indexOf(f))}`,
    },
  ),
  fpRow<keyof Copy>('DUP (general)', 'simd copy', copy('Q', 0, '0001'), {
    allocated: f => isSized(f) && (f.Q === 1 || sizeOfCopy(f) < 3),
    emit(b, f) {
      const size = sizeOfCopy(f)
      b.call(duplicate[size]!, { d: V(f.Rd), a: b.x(f.Rn), b: laneCount(size, f.Q) })
    },
    print: f =>
      `dup ${vector(sizeOfCopy(f), f.Q, f.Rd)}, ${reg(sizeOfCopy(f) === 3 ? 1 : 0, f.Rn)}`,
  }),
  fpRow<'imm5' | 'Rn' | 'Rd'>('INS (general)', 'simd copy', copy('1', 0, '0011'), {
    allocated: isSized,
    emit: (b, f) => b.call(insert[sizeOfCopy(f)]!, { d: V(f.Rd), a: b.x(f.Rn), imm: indexOf(f) }),
    print: f =>
      `mov ${element(sizeOfCopy(f), f.Rd, indexOf(f))}, ${reg(sizeOfCopy(f) === 3 ? 1 : 0, f.Rn)}`,
  }),
  fpRow<'imm5' | 'imm4' | 'Rn' | 'Rd'>(
    'INS (element)',
    'simd copy',
    '0 1 1 01110000 imm5:5 0 imm4:4 1 Rn:5 Rd:5',
    {
      allocated: isSized,
      emit(b, f) {
        const size = sizeOfCopy(f)
        const at = { d: V(f.Rd), a: V(f.Rn), b: f.imm4 >> size, imm: indexOf(f) }
        b.call(insert[size]!, at)
      },
      print(f) {
        const size = sizeOfCopy(f)
        return `mov ${element(size, f.Rd, indexOf(f))}, ${element(size, f.Rn, f.imm4 >> size)}`
      },
    },
  ),
)

/** Lane into a general register; Q is the width of the register. */
function move(b: Emitter, f: Copy, signed: boolean): void {
  const size = sizeOfCopy(f)
  if (size === 3) {
    b.setX(8, f.Rd, V(f.Rn) + indexOf(f))
    return
  }
  const v = b.temp()
  b.call(extract[signed ? 1 : 0]![size]!, { d: v, a: V(f.Rn), imm: indexOf(f) })
  if (signed && f.Q) b.setX(8, f.Rd, b.signExtend(4, v))
  else b.setX(4, f.Rd, v)
}

rows.push(
  fpRow<keyof Copy>('SMOV', 'simd copy', copy('Q', 0, '0101'), {
    allocated: f => isSized(f) && sizeOfCopy(f) < 2 + f.Q,
    emit: (b, f) => move(b, f, true),
    print: f => `smov ${reg(f.Q, f.Rd)}, ${element(sizeOfCopy(f), f.Rn, indexOf(f))}`,
  }),
  fpRow<keyof Copy>('UMOV', 'simd copy', copy('Q', 0, '0111'), {
    allocated: f => isSized(f) && (f.Q === 1 ? sizeOfCopy(f) === 3 : sizeOfCopy(f) < 3),
    emit: (b, f) => move(b, f, false),
    print: f =>
      `${sizeOfCopy(f) < 2 ? 'umov' : 'mov'} ${reg(f.Q, f.Rd)}, ${element(sizeOfCopy(f), f.Rn, indexOf(f))}`,
  }),
)

// Permute: which lane of Vn:Vm each result lane is. `half` lanes are in each half, `part` is 0 or 1.

type Choice = (i: number, count: number, part: number) => number

const unzip: Choice = (i, _count, part) => 2 * i + part
const transpose: Choice = (i, count, part) => (i & ~1) + part + (i & 1 ? count : 0)
const zip: Choice = (i, count, part) => (i >> 1) + (part ? count >> 1 : 0) + (i & 1 ? count : 0)

const permute = (name: string, choice: Choice, part: number) =>
  SIZES.map(size =>
    routine(`${name}.${size}`, (m, { d, a, b, imm: count }) => {
      const v = m.state.lanes
      const taken: bigint[] = []
      for (let i = 0; i < count; i++) {
        const from = choice(i, count, part)
        const at = from < count ? v.index(size, a) + from : v.index(size, b) + from - count
        taken.push(v.bits(size, at))
      }
      taken.forEach((bits, i) => {
        v.setBits(size, v.index(size, d) + i, bits)
      })
      v.clearAbove(d, count << size)
    }),
  )

type Three = Of<'Q' | 'size' | 'Rm' | 'Rn' | 'Rd'>

// biome-ignore format: table
const PERMUTE = [
  ['UZP1', '001', unzip, 0], ['TRN1', '010', transpose, 0], ['ZIP1', '011', zip, 0],
  ['UZP2', '101', unzip, 1], ['TRN2', '110', transpose, 1], ['ZIP2', '111', zip, 1],
] as const
for (const [name, opcode, choice, part] of PERMUTE) {
  const mnemonic = name.toLowerCase()
  const routines = permute(mnemonic, choice, part)
  rows.push(
    fpRow<keyof Three>(name, 'simd permute', `0 Q 001110 size:2 0 Rm:5 0 ${opcode} 10 Rn:5 Rd:5`, {
      allocated: f => f.size < 3 || f.Q === 1,
      emit: (b, f) =>
        b.call(routines[f.size]!, {
          d: V(f.Rd),
          a: V(f.Rn),
          b: V(f.Rm),
          imm: laneCount(f.size, f.Q),
        }),
      print: f => `${mnemonic} ${[f.Rd, f.Rn, f.Rm].map(r => vector(f.size, f.Q, r)).join(', ')}`,
    }),
  )
}

/** Bytes `imm` onwards of b:a, eight or sixteen of them each. */
const EXTRACT = ([8, 16] as const).map(bytes =>
  routine(`ext.${bytes}`, (m, { d, a, b, imm: from }) => {
    const { u8 } = m.state.lanes
    const both = new Uint8Array(2 * bytes)
    both.set(u8.subarray(8 * a, 8 * a + bytes))
    both.set(u8.subarray(8 * b, 8 * b + bytes), bytes)
    u8.set(both.subarray(from, from + bytes), 8 * d)
    m.state.lanes.clearAbove(d, bytes)
  }),
)

rows.push(
  fpRow<'Q' | 'Rm' | 'imm4' | 'Rn' | 'Rd'>(
    'EXT',
    'simd extract',
    '0 Q 101110 00 0 Rm:5 0 imm4:4 0 Rn:5 Rd:5',
    {
      allocated: f => f.Q === 1 || f.imm4 < 8,
      emit: (b, f) => b.call(EXTRACT[f.Q]!, { d: V(f.Rd), a: V(f.Rn), b: V(f.Rm), imm: f.imm4 }),
      print: f => `ext ${[f.Rd, f.Rn, f.Rm].map(r => vector(0, f.Q, r)).join(', ')}, #${f.imm4}`,
    },
  ),
)

/** Looks the bytes of b up in `imm` registers from a, wrapping after V31; TBX keeps what is out of range. */
const lookUp = (name: string, keep: boolean) =>
  ([8, 16] as const).map(bytes =>
    routine(`${name}.${bytes}`, (m, { d, a, b, imm: registers }) => {
      const { u8 } = m.state.lanes
      const table = new Uint8Array(64)
      for (let i = 0; i < registers; i++) {
        const from = 8 * V((((a - V(0)) >> 1) + i) & 31)
        table.set(u8.subarray(from, from + 16), 16 * i)
      }
      const indexes = u8.slice(8 * b, 8 * b + bytes)
      indexes.forEach((index, i) => {
        if (index < 16 * registers) u8[8 * d + i] = table[index]!
        else if (!keep) u8[8 * d + i] = 0
      })
      m.state.lanes.clearAbove(d, bytes)
    }),
  )

type Lookup = Of<'Q' | 'Rm' | 'len' | 'Rn' | 'Rd'>

// biome-ignore format: table
for (const [name, op, routines] of [['TBL', 0, lookUp('tbl', false)], ['TBX', 1, lookUp('tbx', true)]] as const)
  rows.push(
    fpRow<keyof Lookup>(
      name,
      'simd table lookup',
      `0 Q 001110 00 0 Rm:5 0 len:2 ${op} 00 Rn:5 Rd:5`,
      {
        emit: (b, f) =>
          b.call(routines[f.Q]!, { d: V(f.Rd), a: V(f.Rn), b: V(f.Rm), imm: f.len + 1 }),
        print: f =>
          `${name.toLowerCase()} ${vector(0, f.Q, f.Rd)}, {${tableRegisters(f.Rn, f.len + 1)}}, ${vector(0, f.Q, f.Rm)}`,
      },
    ),
  )

/** The registers of a list as binutils prints them: a range when it does not wrap. */
function tableRegisters(first: number, count: number): string {
  const last = (first + count - 1) & 31
  if (count > 2 && last > first) return `v${first}.16b-v${last}.16b`
  return Array.from({ length: count }, (_, i) => `v${(first + i) & 31}.16b`).join(', ')
}

// Modified immediate: eight bits, spread as cmode and op say (AdvSIMDExpandImm).

type Modified = Of<'Q' | 'op' | 'abc' | 'cmode' | 'defgh' | 'Rd'>

const imm8 = (f: Modified) => (f.abc << 5) | f.defgh

/** Repeats the low `bits` of a pattern up to 64. */
function repeated(pattern: bigint, bits: number): bigint {
  let v = pattern
  for (let w = bits; w < 64; w *= 2) v |= v << BigInt(w)
  return v
}

/** VFPExpandImm as a bit pattern: eight bits as a single or a double. */
export function floatImmediate(v: number, size: 2 | 3): bigint {
  const exponentBits = size === 3 ? 11 : 8
  const fractionBits = size === 3 ? 52 : 23
  const b6 = (v >> 6) & 1
  const sign = BigInt(v >> 7) << BigInt(exponentBits + fractionBits)
  // NOT(b6), b6 repeated, then bits 5:4.
  const upper = b6 ? (1 << (exponentBits - 3)) - 1 : 1 << (exponentBits - 3)
  const exponent = BigInt((upper << 2) | ((v >> 4) & 3))
  return sign | (exponent << BigInt(fractionBits)) | (BigInt(v & 15) << BigInt(fractionBits - 4))
}

/** The value that an eight-bit immediate stands for. */
export function floatValue(v: number): number {
  const sign = v & 0x80 ? -1 : 1
  const exponent = (((v >> 4) & 3) | (v & 0x40 ? 0 : 4)) - 3
  return sign * (1 + (v & 15) / 16) * 2 ** exponent
}

/** A number as binutils prints immediates of FMOV. */
export const floatText = (v: number): string =>
  v.toExponential(18).replace(/e([+-])(\d)$/, 'e$10$2')

function expand(f: Modified): bigint {
  const v = BigInt(imm8(f))
  const kind = f.cmode >> 1
  if (kind < 4) return repeated(v << BigInt(8 * kind), 32)
  if (kind < 6) return repeated(v << BigInt(8 * (kind - 4)), 16)
  if (kind === 6) return repeated(f.cmode & 1 ? (v << 16n) | 0xffffn : (v << 8n) | 0xffn, 32)
  if (f.cmode === 14) return f.op ? wholeBytes(imm8(f)) : repeated(v, 8)
  return f.op ? floatImmediate(imm8(f), 3) : repeated(floatImmediate(imm8(f), 2), 32)
}

/** Each of eight bits as a byte of ones or zeros. */
function wholeBytes(v: number): bigint {
  let r = 0n
  for (let i = 0; i < 8; i++) if ((v >> i) & 1) r |= 0xffn << BigInt(8 * i)
  return r
}

/** Which instruction it is: op and the lowest bit of cmode tell within each kind. */
function modifiedName(f: Modified): 'movi' | 'mvni' | 'orr' | 'bic' | 'fmov' {
  if (f.cmode === 15) return 'fmov'
  if (f.cmode < 12 && f.cmode & 1) return f.op ? 'bic' : 'orr'
  return f.op && f.cmode !== 14 ? 'mvni' : 'movi'
}

function printModified(f: Modified): string {
  const name = modifiedName(f)
  const kind = f.cmode >> 1
  const value = `#0x${imm8(f).toString(16)}`
  if (name === 'fmov')
    return `fmov ${vector(f.op ? 3 : 2, f.Q, f.Rd)}, #${floatText(floatValue(imm8(f)))}`
  if (f.cmode === 14 && f.op) {
    const all = `#0x${wholeBytes(imm8(f)).toString(16)}`
    return f.Q ? `movi ${vector(3, 1, f.Rd)}, ${all}` : `movi ${scalar(3, f.Rd)}, ${all}`
  }
  if (f.cmode === 14) return `movi ${vector(0, f.Q, f.Rd)}, ${value}`
  const target = vector(kind < 4 || kind === 6 ? 2 : 1, f.Q, f.Rd)
  if (kind === 6) return `${name} ${target}, ${value}, msl #${f.cmode & 1 ? 16 : 8}`
  const by = 8 * (kind & 3)
  return `${name} ${target}, ${value}${by === 0 ? '' : `, lsl #${by}`}`
}

rows.push(
  fpRow<keyof Modified>(
    'MOVI, MVNI, ORR, BIC, FMOV (vector, immediate)',
    'simd modified immediate',
    '0 Q op 0111100000 abc:3 cmode:4 0 1 defgh:5 Rd:5',
    {
      allocated: f => !(f.cmode === 15 && f.op === 1 && f.Q === 0),
      emit(b, f) {
        const name = modifiedName(f)
        const inverted = name === 'mvni' || name === 'bic'
        const v = replicated(b, BigInt.asUintN(64, inverted ? ~expand(f) : expand(f)))
        if (name !== 'orr' && name !== 'bic') {
          setVector(b, f.Rd, f.Q, v, v)
          return
        }
        const how = name === 'orr' ? 'or' : 'and'
        const low = b.logic(8, how, V(f.Rd), v)
        setVector(b, f.Rd, f.Q, low, f.Q ? b.logic(8, how, V(f.Rd) + 1, v) : low)
      },
      print: printModified,
    },
  ),
)

export const SIMD_COPY: readonly Encoding[] = rows
