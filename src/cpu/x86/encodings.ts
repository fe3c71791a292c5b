// The opcode map of 64-bit mode (SDM vol. 2, appendix A), integer and system parts, one row an encoding. Decoder,
// disassembler and the random-test generator read this table; behaviour is in the functions it names.
// A pattern is: mandatory prefix (np nf 66 f3 f2), opcode bytes, then +r (register in the opcode), +c (condition),
// /n (ModRM.reg) or =xx (the ModRM byte). Anything that has no row is #UD.

import * as control from './control.js'
import * as enqueue from './enqueue.js'
import * as far from './far.js'
import * as integer from './integer.js'
import * as io from './io.js'
import * as memory from './memory.js'
import type { Attribute, Encoding, OperandKind, OperandSize, OperandSpec } from './operands.js'
import { FLAG } from './registers.js'
import * as shifts from './shifts.js'
import * as system from './system.js'
import * as tables from './tables.js'

/** Condition names, by number. */
// biome-ignore format: table
export const CONDITIONS = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'] as const

const rows: Encoding[] = []
const { AF, CF, OF, PF, SF, ZF } = FLAG

function operand(text: string): OperandSpec {
  const fixed: Record<string, OperandSpec> = {
    AL: { kind: 'A', size: 'b' },
    AX: { kind: 'A', size: 'w' },
    rAX: { kind: 'A', size: 'v' },
    eAX: { kind: 'A', size: 'z' },
    CL: { kind: 'CL', size: 'b' },
    DX: { kind: 'DX', size: 'w' },
    FS: { kind: 'FS', size: 'w' },
    GS: { kind: 'GS', size: 'w' },
    '1': { kind: '1', size: 'b' },
  }
  return fixed[text] ?? { kind: text[0] as OperandKind, size: text[1] as OperandSize }
}

/** Adds one row, or sixteen for a pattern with +c. */
function x(
  pattern: string,
  operands: string,
  name: string,
  emit: Encoding['emit'],
  attributes = '',
  undefinedFlags = 0,
): void {
  const words = pattern.split(' ')
  const prefix = /^(np|nf|66|f3|f2)$/.test(words[0]!)
    ? (words.shift() as Encoding['prefix'])
    : 'any'
  let map = 0
  let opcode = 0
  let extension = -1
  let modrm = -1
  let conditions = false
  for (const word of words) {
    if (word.startsWith('/')) extension = Number(word.slice(1))
    else if (word.startsWith('=')) modrm = Number.parseInt(word.slice(1), 16)
    else if (word === '+c') conditions = true
    else if (word !== '+r') {
      if (map === 0 && opcode === 0x0f) map = 1
      else if (map === 1 && (opcode === 0x38 || opcode === 0x3a)) map = opcode === 0x38 ? 2 : 3
      opcode = Number.parseInt(word, 16)
    }
  }
  const specs = operands.split(' ').filter(Boolean).map(operand)
  const hasModrm =
    extension >= 0 ||
    modrm >= 0 ||
    specs.some(s => 'EMRGSCD'.includes(s.kind) && s.kind.length === 1)
  const row: Encoding = {
    map,
    opcode,
    prefix,
    extension,
    modrm,
    hasModrm,
    name,
    operands: specs,
    attributes: new Set(attributes.split(' ').filter(Boolean) as Attribute[]),
    undefinedFlags,
    condition: -1,
    emit,
  }
  if (!conditions) rows.push(row)
  else
    CONDITIONS.forEach((c, i) => {
      rows.push({ ...row, opcode: opcode + i, name: name + c, condition: i })
    })
}

const hex = (n: number) => n.toString(16).padStart(2, '0')

// Arithmetic, first half of the one-byte map.
const { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP } = integer
// biome-ignore format: table
const ALU = [['add', ADD, 0], ['or', OR, AF], ['adc', ADC, 0], ['sbb', SBB, 0], ['and', AND, AF], ['sub', SUB, 0], ['xor', XOR, AF], ['cmp', CMP, 0]] as const
ALU.forEach(([name, emit, undef], i) => {
  const lock = name === 'cmp' ? '' : 'lock'
  const at = i * 8
  x(hex(at), 'Eb Gb', name, emit, lock, undef)
  x(hex(at + 1), 'Ev Gv', name, emit, lock, undef)
  x(hex(at + 2), 'Gb Eb', name, emit, '', undef)
  x(hex(at + 3), 'Gv Ev', name, emit, '', undef)
  x(hex(at + 4), 'AL Ib', name, emit, '', undef)
  x(hex(at + 5), 'rAX Iz', name, emit, '', undef)
  x(`80 /${i}`, 'Eb Ib', name, emit, lock, undef)
  x(`81 /${i}`, 'Ev Iz', name, emit, lock, undef)
  x(`83 /${i}`, 'Ev Is', name, emit, lock, undef)
})
x('84', 'Eb Gb', 'test', integer.TEST, '', AF)
x('85', 'Ev Gv', 'test', integer.TEST, '', AF)
x('a8', 'AL Ib', 'test', integer.TEST, '', AF)
x('a9', 'rAX Iz', 'test', integer.TEST, '', AF)
for (const digit of [0, 1]) {
  x(`f6 /${digit}`, 'Eb Ib', 'test', integer.TEST, '', AF)
  x(`f7 /${digit}`, 'Ev Iz', 'test', integer.TEST, '', AF)
}
for (const [op, e] of [
  ['f6', 'Eb'],
  ['f7', 'Ev'],
] as const) {
  x(`${op} /2`, e, 'not', integer.NOT, 'lock')
  x(`${op} /3`, e, 'neg', integer.NEG, 'lock')
  x(`${op} /4`, e, 'mul', integer.MUL, '', SF | ZF | AF | PF)
  x(`${op} /5`, e, 'imul', integer.IMUL1, '', SF | ZF | AF | PF)
  x(`${op} /6`, e, 'div', integer.DIV, '', CF | OF | SF | ZF | AF | PF)
  x(`${op} /7`, e, 'idiv', integer.IDIV, '', CF | OF | SF | ZF | AF | PF)
}
x('fe /0', 'Eb', 'inc', integer.INC, 'lock')
x('fe /1', 'Eb', 'dec', integer.DEC, 'lock')
x('ff /0', 'Ev', 'inc', integer.INC, 'lock')
x('ff /1', 'Ev', 'dec', integer.DEC, 'lock')
x('69', 'Gv Ev Iz', 'imul', integer.IMUL3, '', SF | ZF | AF | PF)
x('6b', 'Gv Ev Is', 'imul', integer.IMUL3, '', SF | ZF | AF | PF)
x('0f af', 'Gv Ev', 'imul', integer.IMUL2, '', SF | ZF | AF | PF)
x('98', '', 'cbw', integer.CBW)
x('99', '', 'cwd', integer.CWD)

// Shifts and rotates. /6 is SHL by another name.
// biome-ignore format: table
const SHIFTS = [['rol', shifts.ROL, 0], ['ror', shifts.ROR, 0], ['rcl', shifts.RCL, 0], ['rcr', shifts.RCR, 0], ['shl', shifts.SHL, AF], ['shr', shifts.SHR, AF], ['shl', shifts.SHL, AF], ['sar', shifts.SAR, AF]] as const
SHIFTS.forEach(([name, emit, undef], i) => {
  x(`c0 /${i}`, 'Eb Ib', name, emit, 'count', undef)
  x(`c1 /${i}`, 'Ev Ib', name, emit, 'count', undef)
  x(`d0 /${i}`, 'Eb 1', name, emit, 'count', undef)
  x(`d1 /${i}`, 'Ev 1', name, emit, 'count', undef)
  x(`d2 /${i}`, 'Eb CL', name, emit, 'count', undef)
  x(`d3 /${i}`, 'Ev CL', name, emit, 'count', undef)
})
x('0f a4', 'Ev Gv Ib', 'shld', shifts.SHLD, 'count', AF)
x('0f a5', 'Ev Gv CL', 'shld', shifts.SHLD, 'count', AF)
x('0f ac', 'Ev Gv Ib', 'shrd', shifts.SHRD, 'count', AF)
x('0f ad', 'Ev Gv CL', 'shrd', shifts.SHRD, 'count', AF)

// Bits.
// biome-ignore format: table
const BITS = [['bt', shifts.BT, 'a3', 4], ['bts', shifts.BTS, 'ab', 5], ['btr', shifts.BTR, 'b3', 6], ['btc', shifts.BTC, 'bb', 7]] as const
for (const [name, emit, op, digit] of BITS) {
  const lock = name === 'bt' ? '' : 'lock'
  x(`0f ${op}`, 'Ev Gv', name, emit, lock, OF | SF | AF | PF)
  x(`0f ba /${digit}`, 'Ev Ib', name, emit, lock, OF | SF | AF | PF)
}
x('nf 0f bc', 'Gv Ev', 'bsf', shifts.BSF, '', CF | OF | SF | AF | PF)
x('nf 0f bd', 'Gv Ev', 'bsr', shifts.BSR, '', CF | OF | SF | AF | PF)
x('f3 0f bc', 'Gv Ev', 'tzcnt', shifts.TZCNT, '', OF | SF | AF | PF)
x('f3 0f bd', 'Gv Ev', 'lzcnt', shifts.LZCNT, '', OF | SF | AF | PF)
x('f3 0f b8', 'Gv Ev', 'popcnt', shifts.POPCNT)
x('0f c8 +r', 'Zy', 'bswap', shifts.BSWAP)

// Moves.
x('88', 'Eb Gb', 'mov', memory.MOV)
x('89', 'Ev Gv', 'mov', memory.MOV)
x('8a', 'Gb Eb', 'mov', memory.MOV)
x('8b', 'Gv Ev', 'mov', memory.MOV)
x('c6 /0', 'Eb Ib', 'mov', memory.MOV)
x('c7 /0', 'Ev Iz', 'mov', memory.MOV)
x('b0 +r', 'Zb Ib', 'mov', memory.MOV)
x('b8 +r', 'Zv Iv', 'mov', memory.MOV)
x('a0', 'AL Ob', 'movabs', memory.MOV)
x('a1', 'rAX Ov', 'movabs', memory.MOV)
x('a2', 'Ob AL', 'movabs', memory.MOV)
x('a3', 'Ov rAX', 'movabs', memory.MOV)
x('0f b6', 'Gv Eb', 'movzx', memory.MOVZX)
x('0f b7', 'Gv Ew', 'movzx', memory.MOVZX)
x('0f be', 'Gv Eb', 'movsx', memory.MOVSX)
x('0f bf', 'Gv Ew', 'movsx', memory.MOVSX)
x('63', 'Gv Ed', 'movsxd', memory.MOVSX)
x('8d', 'Gv Mn', 'lea', memory.LEA)
x('np 0f c3', 'My Gy', 'movnti', memory.MOV)
x('nf 0f 38 f0', 'Gv Mv', 'movbe', memory.MOVBE)
x('nf 0f 38 f1', 'Mv Gv', 'movbe', memory.MOVBE)
x('0f 40 +c', 'Gv Ev', 'cmov', memory.CMOVCC)
x('0f 90 +c', 'Eb', 'set', memory.SETCC)
x('86', 'Eb Gb', 'xchg', memory.XCHG, 'lock')
x('87', 'Ev Gv', 'xchg', memory.XCHG, 'lock')
x('90 +r', 'Zv rAX', 'xchg', memory.XCHG)
x('0f c0', 'Eb Gb', 'xadd', memory.XADD, 'lock')
x('0f c1', 'Ev Gv', 'xadd', memory.XADD, 'lock')
x('0f b0', 'Eb Gb', 'cmpxchg', memory.CMPXCHG, 'lock')
x('0f b1', 'Ev Gv', 'cmpxchg', memory.CMPXCHG, 'lock')
x('0f c7 /1', 'Mp', 'cmpxchg8b', memory.CMPXCHG8B, 'lock')

// The stack.
x('50 +r', 'Zv', 'push', memory.PUSH, 'd64')
x('58 +r', 'Zv', 'pop', memory.POP, 'd64')
x('68', 'Iz', 'push', memory.PUSH, 'd64')
x('6a', 'Is', 'push', memory.PUSH, 'd64')
x('ff /6', 'Ev', 'push', memory.PUSH, 'd64')
x('8f /0', 'Ev', 'pop', memory.POP, 'd64')
x('9c', '', 'pushf', memory.PUSHF, 'd64 special')
x('9d', '', 'popf', memory.POPF, 'd64 special ends')
x('c8', 'Iw Ib', 'enter', memory.ENTER, 'd64')
x('c9', '', 'leave', memory.LEAVE, 'd64')
x('0f a0', 'FS', 'push', tables.PUSH_SEG, 'd64 special')
x('0f a8', 'GS', 'push', tables.PUSH_SEG, 'd64 special')
x('0f a1', 'FS', 'pop', tables.POP_SEG, 'd64 special')
x('0f a9', 'GS', 'pop', tables.POP_SEG, 'd64 special')

// Strings.
x('a4', '', 'movsb', memory.MOVS, 'rep')
x('a5', '', 'movs', memory.MOVS, 'rep')
x('a6', '', 'cmpsb', memory.CMPS, 'repz')
x('a7', '', 'cmps', memory.CMPS, 'repz')
x('aa', '', 'stosb', memory.STOS, 'rep')
x('ab', '', 'stos', memory.STOS, 'rep')
x('ac', '', 'lodsb', memory.LODS, 'rep')
x('ad', '', 'lods', memory.LODS, 'rep')
x('ae', '', 'scasb', memory.SCAS, 'repz')
x('af', '', 'scas', memory.SCAS, 'repz')
x('6c', '', 'insb', io.INS, 'rep special ends')
x('6d', '', 'ins', io.INS, 'rep special ends')
x('6e', '', 'outsb', io.OUTS, 'rep special ends')
x('6f', '', 'outs', io.OUTS, 'rep special ends')

// Control transfer.
x('70 +c', 'Js', 'j', control.JCC, 'f64 ends')
x('0f 80 +c', 'Jz', 'j', control.JCC, 'f64 ends')
x('e0', 'Js', 'loopne', control.LOOPNE, 'f64 ends')
x('e1', 'Js', 'loope', control.LOOPE, 'f64 ends')
x('e2', 'Js', 'loop', control.LOOP, 'f64 ends')
x('e3', 'Js', 'jrcxz', control.JRCXZ, 'f64 ends')
x('e8', 'Jz', 'call', control.CALL, 'f64 ends')
x('e9', 'Jz', 'jmp', control.JMP, 'f64 ends')
x('eb', 'Js', 'jmp', control.JMP, 'f64 ends')
x('ff /2', 'Ev', 'call', control.CALL_INDIRECT, 'f64 ends special')
x('ff /4', 'Ev', 'jmp', control.JMP_INDIRECT, 'f64 ends special')
x('c2', 'Iw', 'ret', control.RET, 'f64 ends special')
x('c3', '', 'ret', control.RET, 'f64 ends special')
x('ff /3', 'Mp', 'call', far.CALL_FAR, 'ends special')
x('ff /5', 'Mp', 'jmp', far.JMP_FAR, 'ends special')
x('ca', 'Iw', 'retf', far.RET_FAR, 'ends special')
x('cb', '', 'retf', far.RET_FAR, 'ends special')
x('cf', '', 'iret', far.IRET, 'ends special')
x('cc', '', 'int3', far.INT3, 'ends special')
x('cd', 'Ib', 'int', far.INT, 'ends special')
x('f1', '', 'int1', far.INT1, 'ends special')
x('0f 0b', '', 'ud2', far.UD, 'ends')
x('0f b9', 'Gv Ev', 'ud1', far.UD, 'ends')
x('0f ff', 'Gv Ev', 'ud0', far.UD, 'ends')
x('0f 05', '', 'syscall', far.SYSCALL, 'ends special')
x('0f 07', '', 'sysret', far.SYSRET, 'cpl0 ends special')

// Flags and hints.
x('9e', '', 'sahf', control.SAHF)
x('9f', '', 'lahf', control.LAHF)
x('f5', '', 'cmc', control.CMC)
x('f8', '', 'clc', control.CLC)
x('f9', '', 'stc', control.STC)
x('fc', '', 'cld', control.CLD)
x('fd', '', 'std', control.STD)
x('fa', '', 'cli', system.CLI, 'special ends')
x('fb', '', 'sti', system.STI, 'special ends')
x('f3 0f 1e =fa', '', 'endbr64', control.NOP)
const PREFETCHES_TO_WRITE = ['prefetch', 'prefetchw', 'prefetchwt1']
for (let i = 0; i < 8; i++) {
  x(`0f 0d /${i}`, 'Mn', PREFETCHES_TO_WRITE[i] ?? 'prefetch', control.NOP)
}
const PREFETCHES = ['prefetchnta', 'prefetcht0', 'prefetcht1', 'prefetcht2']
PREFETCHES.forEach((name, i) => {
  x(`0f 18 /${i}`, 'Mn', name, control.NOP)
})
for (let op = 0x18; op <= 0x1f; op++) x(`0f ${hex(op)}`, 'Ev', 'nop', control.NOP)
for (let rm = 0xe8; rm <= 0xff; rm++) {
  const name = rm < 0xf0 ? 'lfence' : rm < 0xf8 ? 'mfence' : 'sfence'
  x(`np 0f ae =${hex(rm)}`, '', name, control.NOP)
}
x('np 0f ae /7', 'Mb', 'clflush', memory.CLFLUSH, 'special')
x('66 0f ae /7', 'Mb', 'clflushopt', memory.CLFLUSH, 'special')
x('66 0f ae /6', 'Mb', 'clwb', memory.CLFLUSH, 'special')

// System registers and tables.
x('8c', 'Ev Sw', 'mov', tables.MOV_FROM_SEG, 'special')
x('8e', 'Sw Ew', 'mov', tables.MOV_TO_SEG, 'special ends')
x('0f 20', 'Rq Cq', 'mov', system.MOV_FROM_CR, 'f64 cpl0 special')
x('0f 22', 'Cq Rq', 'mov', system.MOV_TO_CR, 'f64 cpl0 special ends')
x('0f 21', 'Rq Dq', 'mov', system.MOV_FROM_DR, 'f64 cpl0 special')
x('0f 23', 'Dq Rq', 'mov', system.MOV_TO_DR, 'f64 cpl0 special ends')
x('0f 00 /0', 'Ev', 'sldt', tables.SLDT, 'special')
x('0f 00 /1', 'Ev', 'str', tables.STR, 'special')
x('0f 00 /2', 'Ew', 'lldt', tables.LLDT, 'cpl0 special ends')
x('0f 00 /3', 'Ew', 'ltr', tables.LTR, 'cpl0 special ends')
x('0f 01 /0', 'Mn', 'sgdt', tables.SGDT, 'special')
x('0f 01 /1', 'Mn', 'sidt', tables.SIDT, 'special')
x('0f 01 /2', 'Mn', 'lgdt', tables.LGDT, 'cpl0 special ends')
x('0f 01 /3', 'Mn', 'lidt', tables.LIDT, 'cpl0 special ends')
x('0f 01 /4', 'Ev', 'smsw', system.SMSW, 'special')
x('0f 01 /6', 'Ew', 'lmsw', system.LMSW, 'cpl0 special ends')
x('0f 01 /7', 'Mn', 'invlpg', system.INVLPG, 'cpl0 special ends')
x('66 0f 38 82', 'Gq Mo', 'invpcid', system.INVPCID, 'f64 cpl0 special ends')
x('0f 01 =c1', '', 'vmcall', system.VMCALL, 'special ends')
x('0f 01 =d9', '', 'vmmcall', system.VMCALL, 'special ends')
x('0f 01 =f8', '', 'swapgs', system.SWAPGS, 'cpl0 special ends')
x('0f 01 =f9', '', 'rdtscp', system.RDTSCP, 'special ends')
x('0f 01 =ca', '', 'clac', system.CLAC, 'special ends')
x('0f 01 =cb', '', 'stac', system.STAC, 'special ends')
x('0f 06', '', 'clts', system.CLTS, 'cpl0 special ends')
x('0f 08', '', 'invd', system.PRIVILEGED_NOP, 'cpl0 special ends')
x('0f 09', '', 'wbinvd', system.PRIVILEGED_NOP, 'cpl0 special ends')
x('0f 30', '', 'wrmsr', system.WRMSR, 'cpl0 special ends')
x('0f 31', '', 'rdtsc', system.RDTSC, 'special ends')
x('0f 32', '', 'rdmsr', system.RDMSR, 'cpl0 special ends')
x('0f a2', '', 'cpuid', system.CPUID, 'special ends')
x('f3 0f c7 /7', 'Rq', 'rdpid', system.RDPID, 'f64 special')
x('f3 0f ae /0', 'Ry', 'rdfsbase', system.RDFSBASE, 'special')
x('f3 0f ae /1', 'Ry', 'rdgsbase', system.RDGSBASE, 'special')
x('f3 0f ae /2', 'Ry', 'wrfsbase', system.WRFSBASE, 'special ends')
x('f3 0f ae /3', 'Ry', 'wrgsbase', system.WRGSBASE, 'special ends')
x('f4', '', 'hlt', system.HLT, 'cpl0 special ends')
x('e4', 'AL Ib', 'in', io.IN, 'special ends')
x('e5', 'eAX Ib', 'in', io.IN, 'special ends')
x('e6', 'Ib AL', 'out', io.OUT, 'special ends')
x('e7', 'Ib eAX', 'out', io.OUT, 'special ends')
x('ec', 'AL DX', 'in', io.IN, 'special ends')
x('ed', 'eAX DX', 'in', io.IN, 'special ends')
x('ee', 'DX AL', 'out', io.OUT, 'special ends')
x('ef', 'DX eAX', 'out', io.OUT, 'special ends')

// Direct stores and work queues (SDM vol. 2, "MOVDIRI", "MOVDIR64B", "ENQCMD", "ENQCMDS").
x('np 0f 38 f9', 'My Gy', 'movdiri', memory.MOV, 'special')
x('66 0f 38 f8', 'Ga Mx', 'movdir64b', enqueue.MOVDIR64B, 'special')
x('f2 0f 38 f8', 'Ga Mx', 'enqcmd', enqueue.ENQCMD, 'special ends')
x('f3 0f 38 f8', 'Ga Mx', 'enqcmds', enqueue.ENQCMDS, 'cpl0 special ends')

/** Every encoding, in the order of the sections above. */
export const ENCODINGS: readonly Encoding[] = rows
