// From bytes to an instruction, by the table in encodings.ts (SDM vol. 2, 2.1 to 2.2). 64-bit mode only.
// Takes at most 15 bytes and never fails: what cannot be decoded says which exception it is.

import { ENCODINGS } from './encodings.js'
import type { Encoding, Instruction, MemoryReference, Operand, OperandSpec } from './operands.js'

/** Longest instruction (SDM vol. 2, 2.3.11). */
export const MAX_LENGTH = 15

/** `short`: the bytes end before the instruction does. `ud`, `gp`: the exception it raises when executed. */
export type Decoded = Instruction | 'short' | 'ud' | 'gp'

/** Rows by map and opcode; rows whose register is in the opcode appear eight times. */
const byOpcode: Encoding[][] = []
for (const e of ENCODINGS) {
  const wide = e.operands.some(o => o.kind === 'Z') ? 8 : 1
  for (let i = 0; i < wide; i++) {
    const key = e.map * 256 + e.opcode + i
    ;(byOpcode[key] ??= []).push(e)
  }
}
// A row that names the whole ModRM byte goes before one that names its middle, and that before one that does not.
const specific = (e: Encoding) => (e.modrm >= 0 ? 0 : e.extension >= 0 ? 1 : 2)
for (const rows of byOpcode) rows?.sort((a, b) => specific(a) - specific(b))

interface Prefixes {
  operand: boolean
  address: boolean
  lock: boolean
  repeat: '' | 'f3' | 'f2'
  segment: number
  /** REX byte or 0. */
  rex: number
}

/** Reads bytes in order and remembers having run out. */
class Reader {
  readonly bytes: Uint8Array
  readonly end: number
  at = 0
  short = false

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.end = Math.min(bytes.length, MAX_LENGTH)
  }

  peek(): number {
    if (this.at < this.end) return this.bytes[this.at]!
    this.short = true
    return 0
  }

  next(): number {
    const v = this.peek()
    this.at++
    return v
  }

  /** A little-endian number of `size` bytes with its sign. */
  signed(size: number): bigint {
    let v = 0n
    for (let i = 0; i < size; i++) v |= BigInt(this.next()) << BigInt(8 * i)
    return BigInt.asIntN(8 * size, v)
  }
}

function prefixes(r: Reader): Prefixes {
  const p: Prefixes = {
    operand: false,
    address: false,
    lock: false,
    repeat: '',
    segment: -1,
    rex: 0,
  }
  for (; !r.short; r.at++) {
    const b = r.peek()
    if (b === 0x66) p.operand = true
    else if (b === 0x67) p.address = true
    else if (b === 0xf0) p.lock = true
    else if (b === 0xf2) p.repeat = 'f2'
    else if (b === 0xf3) p.repeat = 'f3'
    else if (b === 0x64) p.segment = 4
    else if (b === 0x65) p.segment = 5
    else if (b === 0x26 || b === 0x2e || b === 0x36 || b === 0x3e) {
      // No base in 64-bit mode, and no effect on an FS or GS prefix before it.
    } else if (b >= 0x40 && b <= 0x4f) {
      p.rex = b
      continue
    } else break
    p.rex = 0 // REX counts only directly before the opcode
  }
  return p
}

function prefixAllows(e: Encoding, p: Prefixes): boolean {
  switch (e.prefix) {
    case 'any':
      return true
    case 'nf':
      return p.repeat === ''
    case 'np':
      return p.repeat === '' && !p.operand
    case '66':
      return p.repeat === '' && p.operand
    default:
      return p.repeat === e.prefix
  }
}

/** Which row the opcode, prefixes and ModRM byte select. */
function select(r: Reader, map: number, opcode: number, p: Prefixes): Encoding | undefined {
  const rows = byOpcode[map * 256 + opcode]
  if (!rows) return undefined
  for (const e of rows) {
    if (!prefixAllows(e, p)) continue
    if (!e.hasModrm) return e
    const modrm = r.peek()
    if (r.short) return e
    if (e.modrm >= 0 && e.modrm !== modrm) continue
    if (e.extension >= 0 && e.extension !== ((modrm >> 3) & 7)) continue
    // MOV to and from control and debug registers ignores ModRM.mod.
    const ignoresMod = e.operands.some(o => o.kind === 'C' || o.kind === 'D')
    if (!ignoresMod && modrm < 0xc0 && e.operands.some(o => o.kind === 'R')) continue
    if (modrm >= 0xc0 && e.operands.some(o => o.kind === 'M')) continue
    return e
  }
  return undefined
}

function memoryReference(r: Reader, modrm: number, p: Prefixes): MemoryReference {
  const mod = modrm >> 6
  const rm = modrm & 7
  let base = rm | ((p.rex & 1) << 3)
  let index = -1
  let scale = 1
  let disp = 0n
  if (rm === 4) {
    const sib = r.next()
    base = (sib & 7) | ((p.rex & 1) << 3)
    index = ((sib >> 3) & 7) | ((p.rex & 2) << 2)
    scale = 1 << (sib >> 6)
    if (index === 4) index = -1
    if ((sib & 7) === 5 && mod === 0) {
      base = -1
      disp = r.signed(4)
    }
  } else if (rm === 5 && mod === 0) {
    base = 16
    disp = r.signed(4)
  }
  if (mod === 1) disp = r.signed(1)
  if (mod === 2) disp = r.signed(4)
  return { base, index, scale, disp, segment: p.segment, addressSize: p.address ? 4 : 8 }
}

function sizeOf(spec: OperandSpec, operandSize: number, p: Prefixes): number {
  switch (spec.size) {
    case 'b':
    case 's':
      return 1
    case 'w':
      return 2
    case 'd':
      return operandSize === 2 ? 2 : 4
    case 'q':
      return 8
    case 'y':
      return p.rex & 8 ? 8 : 4
    case 'z':
      return operandSize === 2 ? 2 : 4
    case 'o':
      return 16
    case 'x':
      return 64
    case 'a':
      return p.address ? 4 : 8
    case 'n':
      return 0
    default:
      return operandSize // v, and p whose routine knows
  }
}

function register(number: number, size: number, p: Prefixes): Operand {
  const high = size === 1 && p.rex === 0 && number >= 4 && number < 8
  return { kind: 'register', register: high ? number - 4 : number, size, high }
}

/** Decodes the instruction at the start of `bytes`. */
export function decode(bytes: Uint8Array): Decoded {
  const r = new Reader(bytes)
  const p = prefixes(r)
  const outOfBytes = () => (bytes.length >= MAX_LENGTH ? 'gp' : 'short')
  let map = 0
  let opcode = r.next()
  if (opcode === 0x0f) {
    map = 1
    opcode = r.next()
    if (opcode === 0x38 || opcode === 0x3a) {
      map = opcode === 0x38 ? 2 : 3
      opcode = r.next()
    }
  }
  if (r.short) return outOfBytes()
  const e = select(r, map, opcode, p)
  if (r.short) return outOfBytes()
  if (!e) return 'ud'

  let operandSize: 2 | 4 | 8 = p.rex & 8 ? 8 : p.operand && e.prefix !== '66' ? 2 : 4
  if (e.attributes.has('f64') || (e.attributes.has('d64') && operandSize === 4)) operandSize = 8

  const modrm = e.hasModrm ? r.next() : 0
  const rm = (modrm & 7) | ((p.rex & 1) << 3)
  const reg = ((modrm >> 3) & 7) | ((p.rex & 4) << 1)
  const ignoresMod = e.operands.some(o => o.kind === 'C' || o.kind === 'D')
  const isMemory = e.hasModrm && modrm < 0xc0 && e.modrm < 0 && !ignoresMod
  const memory = isMemory ? memoryReference(r, modrm, p) : undefined
  const operands: Operand[] = []
  for (const spec of e.operands) {
    const size = sizeOf(spec, operandSize, p)
    switch (spec.kind) {
      case 'E':
      case 'M':
      case 'R':
        operands.push(memory ? { kind: 'memory', memory, size } : register(rm, size, p))
        break
      case 'G':
        operands.push(register(reg, size, p))
        break
      case 'S':
        operands.push({ kind: 'segment', register: reg & 7, size })
        break
      case 'C':
        operands.push({ kind: 'control', register: reg, size })
        break
      case 'D':
        operands.push({ kind: 'debug', register: reg, size })
        break
      case 'Z':
        operands.push(register((opcode & 7) | ((p.rex & 1) << 3), size, p))
        break
      case 'A':
        operands.push(register(0, size, p))
        break
      case 'CL':
        operands.push(register(1, 1, p))
        break
      case 'DX':
        operands.push(register(2, 2, p))
        break
      case 'FS':
      case 'GS':
        operands.push({ kind: 'segment', register: spec.kind === 'FS' ? 4 : 5, size: operandSize })
        break
      case '1':
        operands.push({ kind: 'immediate', value: 1n, size: 1 })
        break
      case 'I': {
        // An immediate that operates at the operand size is extended to it with its sign.
        const value = r.signed(size)
        const extended = spec.size === 's' || spec.size === 'z' ? operandSize : size
        operands.push({
          kind: 'immediate',
          value: BigInt.asUintN(8 * extended, value),
          size: extended,
        })
        break
      }
      case 'J':
        operands.push({ kind: 'relative', value: r.signed(size), size: 8 })
        break
      case 'O': {
        const disp = r.signed(p.address ? 4 : 8)
        const whole = p.address ? BigInt.asUintN(32, disp) : disp
        const at: MemoryReference = {
          base: -1,
          index: -1,
          scale: 1,
          disp: whole,
          segment: p.segment,
          addressSize: 8,
        }
        operands.push({ kind: 'memory', memory: at, size })
        break
      }
    }
  }
  if (r.short) return outOfBytes()
  if (p.lock && !(e.attributes.has('lock') && operands[0]!.kind === 'memory')) return 'ud'
  return {
    encoding: e,
    bytes: bytes.slice(0, r.at),
    length: r.at,
    operandSize,
    addressSize: p.address ? 4 : 8,
    operands,
    lock: p.lock,
    repeat: p.repeat,
    segment: p.segment,
  }
}
