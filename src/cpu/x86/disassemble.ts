// Instructions as text in Intel's syntax, spelled as binutils spells them, from the same table that decodes them.
// Prefixes that change nothing are not shown.

import { decode } from './decode.js'
import type { Instruction, MemoryReference, Operand } from './operands.js'

// biome-ignore format: table
const NAMES: Record<number, readonly string[]> = {
  8: ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
  4: ['eax', 'ecx', 'edx', 'ebx', 'esp', 'ebp', 'esi', 'edi', 'r8d', 'r9d', 'r10d', 'r11d', 'r12d', 'r13d', 'r14d', 'r15d'],
  2: ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di', 'r8w', 'r9w', 'r10w', 'r11w', 'r12w', 'r13w', 'r14w', 'r15w'],
  1: ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil', 'r8b', 'r9b', 'r10b', 'r11b', 'r12b', 'r13b', 'r14b', 'r15b'],
}
const HIGH = ['ah', 'ch', 'dh', 'bh']
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', '?', '?']
// biome-ignore format: table
const POINTERS: Record<number, string> = {
  1: 'BYTE PTR ', 2: 'WORD PTR ', 4: 'DWORD PTR ', 8: 'QWORD PTR ', 16: 'XMMWORD PTR ',
}

/** Name of a general register. */
export function registerName(register: number, size: number, high = false): string {
  return high ? HIGH[register]! : NAMES[size]![register]!
}

const hex = (v: bigint) => `0x${v.toString(16)}`

/** Size words that do not follow from the operand: none for addresses, one byte for what names a cache line. */
function pointerWord(insn: Instruction, size: number): string {
  const { name, operands } = insn.encoding
  if (/^(prefetch|clflush|clwb|invlpg)/.test(name)) return POINTERS[1]!
  if (operands.some(o => o.size === 'p')) {
    if (name === 'cmpxchg8b') return POINTERS[insn.operandSize === 8 ? 16 : 8]!
    return insn.operandSize === 2
      ? 'DWORD PTR '
      : insn.operandSize === 8
        ? 'TBYTE PTR '
        : 'FWORD PTR '
  }
  if (size === 16 || size === 64) return ''
  // A selector is 16 bits in memory whatever the operand size.
  if (/^(sldt|str|smsw)$/.test(name) || operands.some(o => o.kind === 'S')) return POINTERS[2]!
  return POINTERS[size] ?? ''
}

function addressText(m: MemoryReference, shown: boolean): string {
  const prefix = m.segment < 0 ? '' : `${SEGMENTS[m.segment]!}:`
  const size = m.addressSize
  const terms: string[] = []
  if (m.base === 16) terms.push(size === 8 ? 'rip' : 'eip')
  else if (m.base >= 0) terms.push(NAMES[size]![m.base]!)
  if (m.index >= 0) terms.push(`${NAMES[size]![m.index]!}*${m.scale}`)
  if (terms.length === 0) {
    const at = BigInt.asUintN(8 * size, m.disp)
    return `${prefix || 'ds:'}${hex(at)}`
  }
  let text = terms.join('+')
  if (m.disp < 0n) text += `-${hex(-m.disp)}`
  else if (m.disp > 0n || shown) text += `+${hex(m.disp)}`
  return `${prefix}[${text}]`
}

/** Whether the encoding carries a displacement, which is then shown even when it is zero. */
function hasDisplacement(insn: Instruction, m: MemoryReference): boolean {
  if (m.base < 0 || m.base === 16) return true
  const { bytes, encoding } = insn
  let at = 0
  while (isPrefix(bytes[at]!)) at++
  const modrm = bytes[at + (encoding.map === 0 ? 1 : encoding.map === 1 ? 2 : 3)]!
  return modrm >> 6 !== 0
}

const isPrefix = (b: number) =>
  [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65].includes(b) ||
  (b & 0xf0) === 0x40

function operandText(insn: Instruction, o: Operand, address: bigint): string {
  switch (o.kind) {
    case 'register':
      if (insn.operands[0]!.kind === 'segment') return registerName(o.register, 4)
      return registerName(o.register, o.size, o.high)
    case 'segment':
      return SEGMENTS[o.register]!
    case 'control':
      return `cr${o.register}`
    case 'debug':
      return `dr${o.register}`
    case 'immediate':
      return insn.encoding.operands.some(s => s.kind === '1') ? '1' : hex(o.value)
    case 'relative':
      return hex(BigInt.asUintN(64, address + BigInt(insn.length) + o.value))
    case 'memory': {
      const text = addressText(o.memory, hasDisplacement(insn, o.memory))
      return /^(lea|movabs)$/.test(insn.encoding.name) ? text : pointerWord(insn, o.size) + text
    }
  }
}

/** The segment prefix nearest to the opcode, or 0. */
function lastSegmentPrefix(insn: Instruction): number {
  let last = 0
  for (const b of insn.bytes) {
    if (!isPrefix(b)) break
    if ([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65].includes(b)) last = b
  }
  return last
}

/** Operands of string instructions, which the encoding does not have. */
function stringOperands(insn: Instruction): string {
  const { name } = insn.encoding
  const size = name.endsWith('b') ? 1 : insn.operandSize
  const wide = name.startsWith('ins') || name.startsWith('outs') ? Math.min(4, size) : size
  const pointer = POINTERS[wide]!
  const [si, di] = insn.addressSize === 8 ? ['rsi', 'rdi'] : ['esi', 'edi']
  const segment = insn.segment < 0 ? 'ds' : SEGMENTS[insn.segment]!
  const source = `${pointer}${segment}:[${si}]`
  const target = `${pointer}es:[${di}]`
  const register = registerName(0, size)
  switch (name.slice(0, 4)) {
    case 'movs':
      return `${target},${source}`
    case 'cmps':
      return `${source},${target}`
    case 'stos':
      return `${target},${register}`
    case 'lods':
      return `${register},${source}`
    case 'scas':
      return `${register},${target}`
    case 'outs':
      return `dx,${source}`
    default:
      return `${target},dx`
  }
}

const isString = (insn: Instruction) =>
  insn.encoding.attributes.has('rep') || insn.encoding.attributes.has('repz')

/** Mnemonics that depend on the operand size or on prefixes. */
function mnemonic(insn: Instruction): string {
  const { name, opcode, map, operands } = insn.encoding
  const size = insn.operandSize
  const pick = (two: string, four: string, eight: string) =>
    size === 2 ? two : size === 4 ? four : eight
  if (isString(insn)) {
    const stem = name.endsWith('b') ? name.slice(0, -1) : name
    const word = name.startsWith('ins') ? 'ins' : name.startsWith('outs') ? 'outs' : stem
    if (insn.repeat === '') return word
    const equal = insn.encoding.attributes.has('repz') ? 'repz ' : 'rep '
    return `${insn.repeat === 'f3' ? equal : 'repnz '}${word}`
  }
  if (name === 'cbw') return pick('cbw', 'cwde', 'cdqe')
  if (name === 'cwd') return pick('cwd', 'cdq', 'cqo')
  if (name === 'iret') return pick('iretw', 'iret', 'iretq')
  if (name === 'sysret') return pick('sysretd', 'sysretd', 'sysretq')
  if (name === 'pushf' || name === 'popf') return size === 2 ? `${name}w` : name
  if (opcode === 0xff && /^(call|jmp)$/.test(name) && lastSegmentPrefix(insn) === 0x3e)
    return `notrack ${name}`
  if (name === 'push' && operands[0]?.kind === 'I' && size === 2) return 'pushw'
  if (name === 'cmpxchg8b' && size === 8) return 'cmpxchg16b'
  if (map === 0 && opcode === 0x90 && isPlainNop(insn))
    return insn.repeat === 'f3' ? 'pause' : 'nop'
  if (name === 'mov' && operands[1]?.kind === 'I' && operands[1].size === 'v' && size === 8)
    return 'movabs'
  return name
}

/** 90 without REX.B and without 66. */
function isPlainNop(insn: Instruction): boolean {
  const o = insn.operands[0]
  return (
    o?.kind === 'register' &&
    o.register === 0 &&
    insn.bytes.at(-1) === 0x90 &&
    insn.operandSize !== 2
  )
}

/** Text of a decoded instruction at an address. */
export function formatInstruction(insn: Instruction, address = 0n): string {
  const word = `${insn.lock ? 'lock ' : ''}${mnemonic(insn)}`
  if (word === 'nop' && insn.encoding.opcode === 0x90) return word
  if (word === 'pause') return word
  if (isString(insn)) return `${word} ${stringOperands(insn)}`
  const operands = insn.operands.map(o => operandText(insn, o, address))
  return operands.length === 0 ? word : `${word} ${operands.join(',')}`
}

/** Text and length of the instruction at the start of `bytes`; what is none is one `(bad)` byte. */
export function disassemble(bytes: Uint8Array, address = 0n): { text: string; length: number } {
  const insn = decode(bytes)
  if (typeof insn === 'string') return { text: '(bad)', length: 1 }
  return { text: formatInstruction(insn, address), length: insn.length }
}
