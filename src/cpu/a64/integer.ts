// Data processing, immediate and register (DDI 0487, C6.2): what each instruction does, as operations.

import type { Slot } from '../ir/builder.js'
import { type Emitter, type Width, widthOf } from './emitter.js'
import { type A64Machine, routine } from './machine.js'
import { SLOT } from './registers.js'

/** Adds or subtracts two slots into Rd, with or without flags; `d` 31 is SP when `toSp`. */
function addSub(
  b: Emitter,
  w: Width,
  op: number,
  flags: number,
  d: number,
  x: Slot,
  y: Slot,
  toSp = false,
): void {
  const name = op ? 'sub' : 'add'
  if (!flags) {
    if (d !== 31 || toSp) b.emit(w === 8 ? `i64.${name}` : `i32.${name}`, { d, a: x, b: y })
    return
  }
  const r = op ? b.sub(w, x, y) : b.add(w, x, y)
  b.emit(`nzcv.${name}`, { d: SLOT.NZCV, a: x, b: y, c: r, imm: 8 * w })
  b.setX(w, d, r)
}

interface AddSub {
  readonly sf: number
  readonly op: number
  readonly S: number
  readonly Rn: number
  readonly Rd: number
}

export function ADD_IMMEDIATE(b: Emitter, f: AddSub & { sh: number; imm12: number }): void {
  const w = widthOf(f.sf)
  const v = f.imm12 << (f.sh ? 12 : 0)
  if (!f.S) {
    b.emit(w === 8 ? 'i64.addk' : 'i32.addk', { d: f.Rd, a: f.Rn, imm: f.op ? -v : v })
    return
  }
  addSub(b, w, f.op, 1, f.Rd, b.xsp(f.Rn), b.constant(w, BigInt(v)))
}

export function ADD_SHIFTED(
  b: Emitter,
  f: AddSub & { shift: number; Rm: number; imm6: number },
): void {
  const w = widthOf(f.sf)
  addSub(b, w, f.op, f.S, f.Rd, b.x(f.Rn), b.shifted(w, f.Rm, f.shift, f.imm6))
}

export function ADD_EXTENDED(
  b: Emitter,
  f: AddSub & { Rm: number; option: number; imm3: number },
): void {
  const w = widthOf(f.sf)
  const y = b.extended(w, f.Rm, f.option, f.imm3)
  addSub(b, w, f.op, f.S, f.Rd, b.xsp(f.Rn), y, !f.S)
}

/** ADC, ADCS, SBC, SBCS. */
export function ADC(b: Emitter, f: AddSub & { Rm: number }): void {
  const w = widthOf(f.sf)
  const [x, y] = [b.x(f.Rn), b.x(f.Rm)]
  const carry = b.value('i32.andk', { a: b.value('i32.shruk', { a: SLOT.NZCV, imm: 29 }), imm: 1 })
  const r = f.op
    ? b.sub(w, b.sub(w, x, y), b.logic(4, 'xor', carry, b.const32(1)))
    : b.add(w, b.add(w, x, y), carry)
  if (f.S) {
    const name = f.op ? 'nzcv.sub' : 'nzcv.add'
    b.emit(name, { d: SLOT.NZCV, a: x, b: y, c: r, imm: 8 * w })
  }
  b.setX(w, f.Rd, r)
}

/** AND, ORR, EOR and ANDS of two slots; opc as encoded. */
function logical(
  b: Emitter,
  w: Width,
  opc: number,
  d: number,
  x: Slot,
  y: Slot,
  toSp = false,
): void {
  const r = b.logic(w, opc === 1 ? 'or' : opc === 2 ? 'xor' : 'and', x, y)
  if (opc === 3) b.emit('nzcv.logic', { d: SLOT.NZCV, c: r, imm: 8 * w })
  if (toSp) b.setXsp(w, d, r)
  else b.setX(w, d, r)
}

/**
 * The value of a logical immediate (DDI 0487, DecodeBitMasks), or undefined when it is reserved: a run of ones in an
 * element of 2 to 64 bits, rotated and repeated. Without `sf` the value has 32 bits.
 */
export function bitMask(sf: number, n: number, imms: number, immr: number): bigint | undefined {
  if (!sf && n) return undefined
  const length = 31 - Math.clz32((n << 6) | (~imms & 0x3f))
  if (length < 1) return undefined
  const size = 1 << length
  const ones = imms & (size - 1)
  if (ones === size - 1) return undefined
  const rotate = BigInt(immr & (size - 1))
  const bits = BigInt(size)
  const run = (1n << BigInt(ones + 1)) - 1n
  let element = BigInt.asUintN(size, (run >> rotate) | (run << (bits - rotate)))
  for (let s = bits; s < (sf ? 64n : 32n); s *= 2n) element |= element << s
  return element
}

export function LOGICAL_IMMEDIATE(
  b: Emitter,
  f: {
    sf: number
    opc: number
    N: number
    immr: number
    imms: number
    Rn: number
    Rd: number
  },
): void {
  const w = widthOf(f.sf)
  const v = bitMask(f.sf, f.N, f.imms, f.immr)!
  if (f.opc === 1 && f.Rn === 31) b.emit('i64.const', { d: f.Rd, big: v })
  else if (f.opc === 0) {
    if (f.sf) b.emit('i64.andk', { d: f.Rd, a: b.x(f.Rn), big: v })
    else b.emit('i32.andk', { d: f.Rd, a: b.x(f.Rn), imm: Number(v) | 0 })
  } else logical(b, w, f.opc, f.Rd, b.x(f.Rn), b.constant(w, v), f.opc !== 3)
}

export function LOGICAL_SHIFTED(
  b: Emitter,
  f: {
    sf: number
    opc: number
    shift: number
    N: number
    Rm: number
    imm6: number
    Rn: number
    Rd: number
  },
): void {
  const w = widthOf(f.sf)
  const y = b.shifted(w, f.Rm, f.shift, f.imm6)
  if (f.opc === 1 && f.Rn === 31 && !f.N) b.setX(w, f.Rd, y)
  else logical(b, w, f.opc, f.Rd, b.x(f.Rn), f.N ? b.not(w, y) : y)
}

/** MOVN, MOVZ, MOVK. */
export function MOVE_WIDE(
  b: Emitter,
  f: { sf: number; opc: number; hw: number; imm16: number; Rd: number },
): void {
  if (f.Rd === 31) return
  const at = BigInt(16 * f.hw)
  const v = BigInt(f.imm16) << at
  const bits = f.sf ? 64 : 32
  if (f.opc === 2) b.emit('i64.const', { d: f.Rd, big: v })
  else if (f.opc === 0) b.emit('i64.const', { d: f.Rd, big: BigInt.asUintN(bits, ~v) })
  else {
    const keep = BigInt.asUintN(bits, ~(0xffffn << at))
    const kept = b.value('i64.andk', { a: f.Rd, big: keep })
    b.emit('i64.or', { d: f.Rd, a: kept, b: b.const64(v) })
  }
}

export function ADR(b: Emitter, f: { immlo: number; immhi: number; Rd: number }): void {
  if (f.Rd === 31) return
  const offset = ((f.immhi << 13) >> 11) | f.immlo
  b.emit('i64.addk', { d: f.Rd, a: SLOT.PC, imm: offset })
}

export function ADRP(b: Emitter, f: { immlo: number; immhi: number; Rd: number }): void {
  if (f.Rd === 31) return
  const pages = ((f.immhi << 13) >> 11) | f.immlo
  const page = b.value('i64.andk', { a: SLOT.PC, big: 0xffff_ffff_ffff_f000n })
  b.emit('i64.add', {
    d: f.Rd,
    a: page,
    b: b.const64(BigInt.asUintN(64, BigInt(pages) << 12n)),
  })
}

/** SBFM, BFM, UBFM: bits immr to imms to the bottom, or the bottom imms + 1 bits up to where rotation takes them. */
export function BITFIELD(
  b: Emitter,
  f: { sf: number; opc: number; immr: number; imms: number; Rn: number; Rd: number },
): void {
  if (f.Rd === 31) return
  const w = widthOf(f.sf)
  const bits = 8 * w
  const left = bits - 1 - f.imms
  const right = f.imms >= f.immr ? left + f.immr : f.immr - f.imms - 1
  const i = w === 8 ? 'i64' : 'i32'
  const last = f.opc === 0 ? (`${i}.shrsk` as const) : (`${i}.shruk` as const)
  const x = b.x(f.Rn)
  const up =
    left === 0 ? x : right === 0 && f.opc !== 1 ? -1 : b.value(`${i}.shlk`, { a: x, imm: left })
  if (up < 0) b.emit(`${i}.shlk`, { d: f.Rd, a: x, imm: left })
  else if (f.opc !== 1) b.emit(last, { d: f.Rd, a: up, imm: right })
  else {
    const moved = b.value(last, { a: up, imm: right })
    const width = f.imms >= f.immr ? f.imms - f.immr + 1 : f.imms + 1
    const at = f.imms >= f.immr ? 0 : bits - f.immr
    const keep = BigInt.asUintN(bits, ~(((1n << BigInt(width)) - 1n) << BigInt(at)))
    const kept = b.value('i64.andk', { a: f.Rd, big: keep })
    b.emit('i64.or', { d: f.Rd, a: kept, b: moved })
  }
}

/** EXTR: `imms` is the lowest bit taken of Rn:Rm. */
export function EXTR(
  b: Emitter,
  f: { sf: number; Rm: number; imms: number; Rn: number; Rd: number },
): void {
  const w = widthOf(f.sf)
  if (f.imms === 0) {
    b.setX(w, f.Rd, b.x(f.Rm))
    return
  }
  const i = w === 8 ? 'i64' : 'i32'
  const low = b.value(`${i}.shruk`, { a: b.x(f.Rm), imm: f.imms })
  const high = b.value(`${i}.shlk`, { a: b.x(f.Rn), imm: 8 * w - f.imms })
  b.setX(w, f.Rd, b.logic(w, 'or', low, high))
}

/** CCMP and CCMN, register or immediate: the comparison's flags, or those in the instruction. */
export function CCMP(
  b: Emitter,
  f: { sf: number; op: number; Rm: number; cond: number; Rn: number; nzcv: number },
  immediate: boolean,
): void {
  const w = widthOf(f.sf)
  const x = b.x(f.Rn)
  const y = immediate ? b.constant(w, BigInt(f.Rm)) : b.x(f.Rm)
  const r = f.op ? b.sub(w, x, y) : b.add(w, x, y)
  const name = f.op ? 'nzcv.sub' : 'nzcv.add'
  const compared = b.value(name, { a: x, b: y, c: r, imm: 8 * w })
  const other = b.const32(f.nzcv << 28)
  b.emit('i32.select', { d: SLOT.NZCV, c: b.condition(f.cond), a: compared, b: other })
}

/** CSEL, CSINC, CSINV, CSNEG. */
export function CSEL(
  b: Emitter,
  f: { sf: number; op: number; Rm: number; cond: number; o2: number; Rn: number; Rd: number },
): void {
  if (f.Rd === 31) return
  const w = widthOf(f.sf)
  let y = b.x(f.Rm)
  if (f.op && f.o2) y = b.sub(w, SLOT.ZERO, y)
  else if (f.op) y = b.not(w, y)
  else if (f.o2) y = b.value(w === 8 ? 'i64.addk' : 'i32.addk', { a: y, imm: 1 })
  const name = w === 8 ? 'i64.select' : 'i32.select'
  b.emit(name, { d: f.Rd, c: b.condition(f.cond), a: b.x(f.Rn), b: y })
}

type Unary = { sf: number; Rn: number; Rd: number }
type Binary = { sf: number; Rm: number; Rn: number; Rd: number }

export const RBIT = (b: Emitter, f: Unary): void =>
  b.setX(widthOf(f.sf), f.Rd, b.value(f.sf ? 'i64.rbit' : 'i32.rbit', { a: b.x(f.Rn) }))

export const CLZ = (b: Emitter, f: Unary): void =>
  b.setX(8, f.Rd, b.value(f.sf ? 'i64.clz' : 'i32.clz', { a: b.x(f.Rn) }))

/** CLS: leading bits equal to the sign, without it. */
export function CLS(b: Emitter, f: Unary): void {
  const i = f.sf ? 'i64' : 'i32'
  const x = b.x(f.Rn)
  const changes = b.value(`${i}.xor`, { a: x, b: b.value(`${i}.shrsk`, { a: x, imm: 1 }) })
  const zeros = b.value(`${i}.clz`, { a: changes })
  b.setX(8, f.Rd, b.value('i32.addk', { a: zeros, imm: -1 }))
}

/** REV of the whole register. */
export const REV = (b: Emitter, f: Unary): void =>
  b.setX(widthOf(f.sf), f.Rd, b.value(f.sf ? 'i64.bswap' : 'i32.bswap', { a: b.x(f.Rn) }))

/** REV32: each word of an X register. */
export const REV32 = (b: Emitter, f: Unary): void =>
  b.setX(8, f.Rd, b.value('i64.rotrk', { a: b.value('i64.bswap', { a: b.x(f.Rn) }), imm: 32 }))

export function REV16(b: Emitter, f: Unary): void {
  const x = b.x(f.Rn)
  const even = BigInt.asUintN(f.sf ? 64 : 32, 0x00ff_00ff_00ff_00ffn)
  const down = b.value('i64.andk', { a: b.value('i64.shruk', { a: x, imm: 8 }), big: even })
  const up = b.value('i64.shlk', { a: b.value('i64.andk', { a: x, big: even }), imm: 8 })
  b.setX(8, f.Rd, b.value('i64.or', { a: down, b: up }))
}

/** UDIV and SDIV: by zero gives zero. */
export const DIV =
  (kind: 'divu' | 'divs') =>
  (b: Emitter, f: Binary): void => {
    const name = f.sf ? (`i64.${kind}` as const) : (`i32.${kind}` as const)
    b.setX(widthOf(f.sf), f.Rd, b.value(name, { a: b.x(f.Rn), b: b.x(f.Rm) }))
  }

/** LSLV, LSRV, ASRV, RORV: the count modulo the width. */
export const SHIFT =
  (kind: 'shl' | 'shru' | 'shrs' | 'rotr') =>
  (b: Emitter, f: Binary): void => {
    const name = f.sf ? (`i64.${kind}` as const) : (`i32.${kind}` as const)
    b.setX(widthOf(f.sf), f.Rd, b.value(name, { a: b.x(f.Rn), b: b.x(f.Rm) }))
  }

/** The bit-reversed polynomials of CRC-32 (0x04C11DB7) and CRC-32C (0x1EDC6F41). */
const POLYNOMIALS = [0xedb8_8320 | 0, 0x82f6_3b78 | 0] as const

/** CRC32 and CRC32C: `d` becomes the CRC `a` after `1 << (imm & 3)` bytes of `b`; bit 2 of imm chooses the polynomial. */
export const crc32 = routine('crc32', ({ state }: A64Machine, op) => {
  const polynomial = POLYNOMIALS[(op.imm >> 2) as 0 | 1]
  const bytes = 1 << (op.imm & 3)
  let crc = state.r32[2 * op.a]!
  for (let i = 0; i < bytes; i++) {
    crc ^= state.r8[8 * op.b + i]!
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? polynomial : 0)
  }
  state.r32[2 * op.d] = crc
  state.r32[2 * op.d + 1] = 0
})

export function CRC32(
  b: Emitter,
  f: { C: number; sz: number; Rm: number; Rn: number; Rd: number },
): void {
  const d = b.temp()
  b.call(crc32, { d, a: b.x(f.Rn), b: b.x(f.Rm), imm: (f.C << 2) | f.sz })
  b.setX(4, f.Rd, d)
}

/** MADD and MSUB. */
export function MADD(b: Emitter, f: Binary & { o0: number; Ra: number }): void {
  const [x, y, a] = [b.x(f.Rn), b.x(f.Rm), b.x(f.Ra)]
  if (f.sf) b.setX(8, f.Rd, b.value(f.o0 ? 'i64.mulsub' : 'i64.muladd', { a: x, b: y, c: a }))
  else b.setX(4, f.Rd, f.o0 ? b.sub(4, a, b.mul(4, x, y)) : b.add(4, a, b.mul(4, x, y)))
}

/** SMADDL, SMSUBL, UMADDL, UMSUBL. */
export function MADDL(
  b: Emitter,
  f: { U: number; Rm: number; o0: number; Ra: number; Rn: number; Rd: number },
): void {
  const extend = f.U ? 'i64.extendu' : 'i64.extends'
  const x = b.value(extend, { a: b.x(f.Rn) })
  const y = b.value(extend, { a: b.x(f.Rm) })
  const name = f.o0 ? 'i64.mulsub' : 'i64.muladd'
  b.setX(8, f.Rd, b.value(name, { a: x, b: y, c: b.x(f.Ra) }))
}

/** SMULH and UMULH. */
export const MULH = (b: Emitter, f: { U: number; Rm: number; Rn: number; Rd: number }): void =>
  b.setX(8, f.Rd, b.value(f.U ? 'i64.mulhu' : 'i64.mulhs', { a: b.x(f.Rn), b: b.x(f.Rm) }))
