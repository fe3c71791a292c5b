// Encodings of data processing, immediate and register (DDI 0487, C4.1).

import { type Encoding, row, signed } from './encodings.js'
import * as integer from './integer.js'
import { CONDITIONS, EXTENDS, hex, label, reg, regsp, shiftText } from './text.js'

const NAMES = { add: ['add', 'sub'], adds: ['adds', 'subs'], compare: ['cmn', 'cmp'] } as const

const immediate = (f: { sh: number; imm12: number }) => `${hex(f.imm12)}${f.sh ? ', lsl #12' : ''}`

/** LSL of the extended register is spelled as such, or not at all, where SP is an operand. */
function extendText(f: { sf: number; option: number; imm3: number }, withSp: boolean): string {
  const amount = f.imm3 ? ` #${f.imm3}` : ''
  if (withSp && f.option === (f.sf ? 3 : 2)) return amount ? `, lsl${amount}` : ''
  return `, ${EXTENDS[f.option]!}${amount}`
}

const addSub: Encoding[] = [
  row('ADD/SUB (immediate)', 'add-sub', 'sf op S 100010 sh imm12:12 Rn:5 Rd:5', {
    emit: integer.ADD_IMMEDIATE,
    print: f => {
      const n = regsp(f.sf, f.Rn)
      if (f.S && f.Rd === 31) return `${NAMES.compare[f.op]} ${n}, ${immediate(f)}`
      if (f.S) return `${NAMES.adds[f.op]} ${reg(f.sf, f.Rd)}, ${n}, ${immediate(f)}`
      const d = regsp(f.sf, f.Rd)
      if (!f.op && !f.sh && f.imm12 === 0 && (f.Rd === 31 || f.Rn === 31)) return `mov ${d}, ${n}`
      return `${NAMES.add[f.op]} ${d}, ${n}, ${immediate(f)}`
    },
  }),
  row('ADD/SUB (shifted register)', 'add-sub', 'sf op S 01011 shift:2 0 Rm:5 imm6:6 Rn:5 Rd:5', {
    allocated: f => f.shift !== 3 && (f.sf === 1 || f.imm6 < 32),
    emit: integer.ADD_SHIFTED,
    print: f => {
      const [d, n] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn)]
      const m = `${reg(f.sf, f.Rm)}${shiftText(f.shift, f.imm6)}`
      if (f.S && f.Rd === 31) return `${NAMES.compare[f.op]} ${n}, ${m}`
      if (f.op && f.Rn === 31) return `${f.S ? 'negs' : 'neg'} ${d}, ${m}`
      return `${(f.S ? NAMES.adds : NAMES.add)[f.op]} ${d}, ${n}, ${m}`
    },
  }),
  row(
    'ADD/SUB (extended register)',
    'add-sub',
    'sf op S 01011 00 1 Rm:5 option:3 imm3:3 Rn:5 Rd:5',
    {
      allocated: f => f.imm3 <= 4,
      emit: integer.ADD_EXTENDED,
      print: f => {
        const n = regsp(f.sf, f.Rn)
        const m = reg(f.sf && (f.option & 3) === 3 ? 1 : 0, f.Rm)
        const tail = extendText(f, f.Rn === 31 || (!f.S && f.Rd === 31))
        if (f.S && f.Rd === 31) return `${NAMES.compare[f.op]} ${n}, ${m}${tail}`
        if (f.S) return `${NAMES.adds[f.op]} ${reg(f.sf, f.Rd)}, ${n}, ${m}${tail}`
        return `${NAMES.add[f.op]} ${regsp(f.sf, f.Rd)}, ${n}, ${m}${tail}`
      },
    },
  ),
  row('ADC/SBC', 'add-sub', 'sf op S 11010000 Rm:5 000000 Rn:5 Rd:5', {
    emit: integer.ADC,
    print: f => {
      const [d, n, m] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn), reg(f.sf, f.Rm)]
      const s = f.S ? 's' : ''
      if (f.op && f.Rn === 31) return `ngc${s} ${d}, ${m}`
      return `${f.op ? 'sbc' : 'adc'}${s} ${d}, ${n}, ${m}`
    },
  }),
]

/** Whether MOVZ or MOVN can make the value, so that MOV means that one (DDI 0487, MoveWidePreferred). */
function prefersMoveWide(sf: number, v: bigint): boolean {
  const bits = sf ? 64 : 32
  for (let at = 0; at < bits; at += 16) {
    const rest = ~(0xffffn << BigInt(at))
    if ((v & rest) === 0n || (BigInt.asUintN(bits, ~v) & rest) === 0n) return true
  }
  return false
}

const AND = ['and', 'orr', 'eor', 'ands'] as const
const BIC = ['bic', 'orn', 'eon', 'bics'] as const

const logical: Encoding[] = [
  row('AND/ORR/EOR/ANDS (immediate)', 'logical', 'sf opc:2 100100 N immr:6 imms:6 Rn:5 Rd:5', {
    allocated: f => integer.bitMask(f.sf, f.N, f.imms, f.immr) !== undefined,
    emit: integer.LOGICAL_IMMEDIATE,
    print: f => {
      const v = integer.bitMask(f.sf, f.N, f.imms, f.immr)!
      const d = f.opc === 3 ? reg(f.sf, f.Rd) : regsp(f.sf, f.Rd)
      if (f.opc === 3 && f.Rd === 31) return `tst ${reg(f.sf, f.Rn)}, ${hex(v)}`
      if (f.opc === 1 && f.Rn === 31 && !prefersMoveWide(f.sf, v)) return `mov ${d}, ${hex(v)}`
      return `${AND[f.opc]!} ${d}, ${reg(f.sf, f.Rn)}, ${hex(v)}`
    },
  }),
  row(
    'AND/BIC/ORR/ORN/EOR/EON (shifted register)',
    'logical',
    'sf opc:2 01010 shift:2 N Rm:5 imm6:6 Rn:5 Rd:5',
    {
      allocated: f => f.sf === 1 || f.imm6 < 32,
      emit: integer.LOGICAL_SHIFTED,
      print: f => {
        const [d, n] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn)]
        const m = `${reg(f.sf, f.Rm)}${shiftText(f.shift, f.imm6)}`
        if (f.opc === 3 && !f.N && f.Rd === 31) return `tst ${n}, ${m}`
        if (f.opc === 1 && f.Rn === 31) {
          if (f.N) return `mvn ${d}, ${m}`
          if (f.shift === 0 && f.imm6 === 0) return `mov ${d}, ${m}`
        }
        return `${(f.N ? BIC : AND)[f.opc]!} ${d}, ${n}, ${m}`
      },
    },
  ),
]

const moves: Encoding[] = [
  row('MOVN/MOVZ/MOVK', 'move-wide', 'sf opc:2 100101 hw:2 imm16:16 Rd:5', {
    allocated: f => f.opc !== 1 && (f.sf === 1 || f.hw < 2),
    emit: integer.MOVE_WIDE,
    print: f => {
      const d = reg(f.sf, f.Rd)
      const shifted = `${hex(f.imm16)}${f.hw ? `, lsl #${16 * f.hw}` : ''}`
      if (f.opc === 3) return `movk ${d}, ${shifted}`
      const v = BigInt(f.imm16) << BigInt(16 * f.hw)
      const plain = f.imm16 !== 0 || f.hw === 0
      if (f.opc === 2) return plain ? `mov ${d}, ${hex(v)}` : `movz ${d}, ${shifted}`
      if (!plain || (!f.sf && f.imm16 === 0xffff)) return `movn ${d}, ${shifted}`
      return `mov ${d}, ${hex(BigInt.asUintN(f.sf ? 64 : 32, ~v))}`
    },
  }),
  row('ADR', 'pc-relative', '0 immlo:2 10000 immhi:19 Rd:5', {
    emit: integer.ADR,
    print: (f, pc) => `adr ${reg(1, f.Rd)}, ${label(pc, (signed(f.immhi, 19) << 2) | f.immlo)}`,
  }),
  row('ADRP', 'pc-relative', '1 immlo:2 10000 immhi:19 Rd:5', {
    emit: integer.ADRP,
    print: (f, pc) => {
      const pages = BigInt((signed(f.immhi, 19) << 2) | f.immlo)
      return `adrp ${reg(1, f.Rd)}, ${label(pc & ~0xfffn, pages << 12n)}`
    },
  }),
]

interface Bitfield {
  readonly sf: number
  readonly opc: number
  readonly immr: number
  readonly imms: number
  readonly Rn: number
  readonly Rd: number
}

/** The alias that says what a bitfield move does. */
function bitfieldText(f: Bitfield): string {
  const bits = f.sf ? 64 : 32
  const [d, n] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn)]
  const insert = `#${(bits - f.immr) % bits}, #${f.imms + 1}`
  const extract = `#${f.immr}, #${f.imms - f.immr + 1}`
  if (f.opc === 1) {
    if (f.imms >= f.immr) return `bfxil ${d}, ${n}, ${extract}`
    return f.Rn === 31 ? `bfc ${d}, ${insert}` : `bfi ${d}, ${n}, ${insert}`
  }
  const s = f.opc === 0 ? 's' : 'u'
  if (f.imms === bits - 1) return `${s === 's' ? 'asr' : 'lsr'} ${d}, ${n}, #${f.immr}`
  if (s === 'u' && f.imms + 1 === f.immr) return `lsl ${d}, ${n}, #${bits - 1 - f.imms}`
  if (f.imms < f.immr) return `${s}bfiz ${d}, ${n}, ${insert}`
  const extends_ = { 7: 'xtb', 15: 'xth', 31: 'xtw' } as Readonly<Record<number, string>>
  const name = f.immr === 0 ? extends_[f.imms] : undefined
  if (name && (s === 's' ? f.imms < bits - 1 : !f.sf)) return `${s}${name} ${d}, ${reg(0, f.Rn)}`
  return `${s}bfx ${d}, ${n}, ${extract}`
}

const bitfields: Encoding[] = [
  row('SBFM/BFM/UBFM', 'bitfield', 'sf opc:2 100110 N immr:6 imms:6 Rn:5 Rd:5', {
    allocated: f => f.opc !== 3 && f.N === f.sf && (f.sf === 1 || (f.immr < 32 && f.imms < 32)),
    emit: integer.BITFIELD,
    print: bitfieldText,
  }),
  row('EXTR', 'bitfield', 'sf 00 100111 N 0 Rm:5 imms:6 Rn:5 Rd:5', {
    allocated: f => f.N === f.sf && (f.sf === 1 || f.imms < 32),
    emit: integer.EXTR,
    print: f => {
      const [d, n, m] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn), reg(f.sf, f.Rm)]
      return f.Rn === f.Rm ? `ror ${d}, ${n}, #${f.imms}` : `extr ${d}, ${n}, ${m}, #${f.imms}`
    },
  }),
]

const condition = (n: number) => CONDITIONS[n]!

const conditional: Encoding[] = [
  row('CCMN/CCMP (register)', 'conditional', 'sf op 1 11010010 Rm:5 cond:4 00 Rn:5 0 nzcv:4', {
    emit: (b, f) => integer.CCMP(b, f, false),
    print: f =>
      `${f.op ? 'ccmp' : 'ccmn'} ${reg(f.sf, f.Rn)}, ${reg(f.sf, f.Rm)}, ${hex(f.nzcv)}, ${condition(f.cond)}`,
  }),
  row('CCMN/CCMP (immediate)', 'conditional', 'sf op 1 11010010 imm5:5 cond:4 10 Rn:5 0 nzcv:4', {
    emit: (b, f) => integer.CCMP(b, { ...f, Rm: f.imm5 }, true),
    print: f =>
      `${f.op ? 'ccmp' : 'ccmn'} ${reg(f.sf, f.Rn)}, ${hex(f.imm5)}, ${hex(f.nzcv)}, ${condition(f.cond)}`,
  }),
  row('CSEL/CSINC/CSINV/CSNEG', 'conditional', 'sf op 0 11010100 Rm:5 cond:4 0 o2 Rn:5 Rd:5', {
    emit: integer.CSEL,
    print: f => {
      const [d, n, m] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn), reg(f.sf, f.Rm)]
      const inverse = condition(f.cond ^ 1)
      const name = (['csel', 'csinc', 'csinv', 'csneg'] as const)[2 * f.op + f.o2]!
      if (f.cond < 14 && f.Rn === f.Rm && name !== 'csel') {
        if (name === 'csneg') return `cneg ${d}, ${n}, ${inverse}`
        const [set, change] = name === 'csinc' ? ['cset', 'cinc'] : ['csetm', 'cinv']
        return f.Rn === 31 ? `${set} ${d}, ${inverse}` : `${change} ${d}, ${n}, ${inverse}`
      }
      return `${name} ${d}, ${n}, ${m}, ${condition(f.cond)}`
    },
  }),
]

type UnaryFields = { readonly sf: number; readonly Rn: number; readonly Rd: number }
type BinaryFields = UnaryFields & { readonly Rm: number }

const unary = (name: string) => (f: UnaryFields) => `${name} ${reg(f.sf, f.Rd)}, ${reg(f.sf, f.Rn)}`
const binary = (name: string) => (f: BinaryFields) =>
  `${name} ${reg(f.sf, f.Rd)}, ${reg(f.sf, f.Rn)}, ${reg(f.sf, f.Rm)}`

// biome-ignore format: table
const oneSource: Encoding[] = [
  row('RBIT',  'one-source', 'sf 1 0 11010110 00000 000000 Rn:5 Rd:5', { emit: integer.RBIT, print: unary('rbit') }),
  row('REV16', 'one-source', 'sf 1 0 11010110 00000 000001 Rn:5 Rd:5', { emit: integer.REV16, print: unary('rev16') }),
  row('REV (32-bit)', 'one-source', '0 1 0 11010110 00000 000010 Rn:5 Rd:5', { emit: (b, f) => integer.REV(b, { ...f, sf: 0 }), print: f => unary('rev')({ ...f, sf: 0 }) }),
  row('REV32', 'one-source', '1 1 0 11010110 00000 000010 Rn:5 Rd:5', { emit: (b, f) => integer.REV32(b, { ...f, sf: 1 }), print: f => unary('rev32')({ ...f, sf: 1 }) }),
  row('REV (64-bit)', 'one-source', '1 1 0 11010110 00000 000011 Rn:5 Rd:5', { emit: (b, f) => integer.REV(b, { ...f, sf: 1 }), print: f => unary('rev')({ ...f, sf: 1 }) }),
  row('CLZ',   'one-source', 'sf 1 0 11010110 00000 000100 Rn:5 Rd:5', { emit: integer.CLZ, print: unary('clz') }),
  row('CLS',   'one-source', 'sf 1 0 11010110 00000 000101 Rn:5 Rd:5', { emit: integer.CLS, print: unary('cls') }),
]

// biome-ignore format: table
const twoSource: Encoding[] = [
  row('UDIV', 'divide', 'sf 0 0 11010110 Rm:5 000010 Rn:5 Rd:5', { emit: integer.DIV('divu'), print: binary('udiv') }),
  row('SDIV', 'divide', 'sf 0 0 11010110 Rm:5 000011 Rn:5 Rd:5', { emit: integer.DIV('divs'), print: binary('sdiv') }),
  row('LSLV', 'shift',  'sf 0 0 11010110 Rm:5 001000 Rn:5 Rd:5', { emit: integer.SHIFT('shl'), print: binary('lsl') }),
  row('LSRV', 'shift',  'sf 0 0 11010110 Rm:5 001001 Rn:5 Rd:5', { emit: integer.SHIFT('shru'), print: binary('lsr') }),
  row('ASRV', 'shift',  'sf 0 0 11010110 Rm:5 001010 Rn:5 Rd:5', { emit: integer.SHIFT('shrs'), print: binary('asr') }),
  row('RORV', 'shift',  'sf 0 0 11010110 Rm:5 001011 Rn:5 Rd:5', { emit: integer.SHIFT('rotr'), print: binary('ror') }),
  row('CRC32/CRC32C', 'crc32', 'sf 0 0 11010110 Rm:5 010 C sz:2 Rn:5 Rd:5', {
    allocated: f => f.sf === (f.sz === 3 ? 1 : 0),
    emit: integer.CRC32,
    print: f => `crc32${f.C ? 'c' : ''}${'bhwx'[f.sz]!} ${reg(0, f.Rd)}, ${reg(0, f.Rn)}, ${reg(f.sf, f.Rm)}`,
    feature: 'FEAT_CRC32',
  }),
]

const threeSource: Encoding[] = [
  row('MADD/MSUB', 'multiply', 'sf 00 11011 000 Rm:5 o0 Ra:5 Rn:5 Rd:5', {
    emit: integer.MADD,
    print: f => {
      const [d, n, m] = [reg(f.sf, f.Rd), reg(f.sf, f.Rn), reg(f.sf, f.Rm)]
      if (f.Ra === 31) return `${f.o0 ? 'mneg' : 'mul'} ${d}, ${n}, ${m}`
      return `${f.o0 ? 'msub' : 'madd'} ${d}, ${n}, ${m}, ${reg(f.sf, f.Ra)}`
    },
  }),
  row('SMADDL/SMSUBL/UMADDL/UMSUBL', 'multiply', '1 00 11011 U 01 Rm:5 o0 Ra:5 Rn:5 Rd:5', {
    emit: integer.MADDL,
    print: f => {
      const [d, n, m] = [reg(1, f.Rd), reg(0, f.Rn), reg(0, f.Rm)]
      const sign = f.U ? 'u' : 's'
      if (f.Ra === 31) return `${sign}${f.o0 ? 'mnegl' : 'mull'} ${d}, ${n}, ${m}`
      return `${sign}${f.o0 ? 'msubl' : 'maddl'} ${d}, ${n}, ${m}, ${reg(1, f.Ra)}`
    },
  }),
  row('SMULH/UMULH', 'multiply', '1 00 11011 U 10 Rm:5 0 xxxxx Rn:5 Rd:5', {
    emit: integer.MULH,
    print: f => `${f.U ? 'umulh' : 'smulh'} ${reg(1, f.Rd)}, ${reg(1, f.Rn)}, ${reg(1, f.Rm)}`,
  }),
]

/** Data processing, immediate and register. */
export const INTEGER_ENCODINGS: readonly Encoding[] = [
  ...addSub,
  ...logical,
  ...moves,
  ...bitfields,
  ...conditional,
  ...oneSource,
  ...twoSource,
  ...threeSource,
]
