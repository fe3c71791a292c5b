// Random instruction cases from the encoding table: operands, prefixes and a state in which most of them do not fault.

import { ENCODINGS } from '../../../../src/cpu/x86/encodings.js'
import type { Encoding } from '../../../../src/cpu/x86/operands.js'
import { FLAG } from '../../../../src/cpu/x86/registers.js'
import { type Case, COMPARED, GS_BASE } from './cases.js'
import { CODE, DATA } from './flat.js'
import type { Random } from './random.js'

/** Rows whose effect is the same in a user process and here. */
export const COMPARABLE: readonly Encoding[] = ENCODINGS.filter(e => !e.attributes.has('special'))

const INTERESTING = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
]

const mask64 = (v: bigint) => BigInt.asUintN(64, v)

/** A value of a kind that finds mistakes: edges, small numbers, random bits. */
function value(r: Random): bigint {
  const kind = r.below(4)
  if (kind === 0) return r.pick(INTERESTING)
  if (kind === 1) return BigInt(r.below(70))
  if (kind === 2) return mask64(-BigInt(r.below(70)))
  return r.wide()
}

/** An address inside the window, away from its ends nearly always. */
function place(r: Random): bigint {
  const aligned = r.oneIn(2) ? ~15 : ~0
  if (r.oneIn(50)) return BigInt(DATA + (r.oneIn(2) ? 4096 - r.below(12) : -r.below(12)))
  return BigInt(DATA + 0x600 + (r.below(0x400) & aligned))
}

/** What the encoder collects. */
interface Draft {
  readonly prefixes: number[]
  rex: number
  modrm: number
  readonly tail: number[]
  readonly regs: BigUint64Array
}

const little = (v: bigint, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Number((v >> BigInt(8 * i)) & 0xffn))

/** ModRM, SIB and displacement of a memory operand, and registers that make it point into the window. */
function memoryOperand(r: Random, d: Draft, at: bigint, fixedLength: number): void {
  const narrow = d.prefixes.includes(0x67)
  const gs = d.prefixes.includes(0x65) ? BigInt(GS_BASE) : 0n
  const target = at - gs
  const dirty = narrow ? BigInt(r.next()) << 32n : 0n
  const form = r.below(10)
  if (form === 0) {
    // RIP-relative: the displacement counts from the end, which `fixedLength` tells.
    d.modrm |= 5
    d.rex |= r.below(2)
    d.tail.push(...little(target - BigInt(CODE + fixedLength + 4), 4))
    return
  }
  if (form === 1) {
    d.modrm |= 4
    d.tail.push(0x25, ...little(target, 4))
    return
  }
  const size = r.below(3)
  const disp =
    size === 0 ? 0n : size === 1 ? BigInt(r.below(256) - 128) : BigInt(r.below(4096) - 2048)
  let base = r.below(16)
  if (size === 0 && (base & 7) === 5) base = 3
  d.rex |= base >> 3
  d.modrm |= size << 6
  let offset = disp
  if ((base & 7) === 4 || r.oneIn(2)) {
    const index = r.below(16)
    const scale = r.below(4)
    d.modrm |= 4
    d.tail.push((scale << 6) | ((index & 7) << 3) | (base & 7))
    d.rex |= (index >> 3) << 1
    if (index !== 4 && index !== base) {
      const v = BigInt(r.below(64) - 32)
      d.regs[index] = mask64(v)
      offset += v << BigInt(scale)
    } else if (index === base && index !== 4) {
      d.regs[base] = mask64(target / BigInt((1 << scale) + 1)) | dirty
      d.tail.push(...little(disp, size === 0 ? 0 : size === 1 ? 1 : 4))
      return
    }
  } else d.modrm |= base & 7
  d.tail.push(...little(disp, size === 0 ? 0 : size === 1 ? 1 : 4))
  d.regs[base] = mask64(target - offset) | dirty
}

/** The status flags a shift leaves undefined (SDM vol. 2), and whether its result is. */
function shiftRules(e: Encoding, n: number, width: number): number | 'skip' {
  if (n === 0) return 0
  let undef = e.undefinedFlags
  if (n !== 1) undef |= FLAG.OF
  const rotate = e.name.startsWith('r')
  if (!rotate && n >= width) undef |= FLAG.CF
  if (e.name.startsWith('sh') && e.name.endsWith('d') && n > width) return 'skip'
  return undef
}

/** One case for an encoding, or undefined when the draw has no defined outcome. */
export function drawCase(e: Encoding, r: Random): Case | undefined {
  const regs = new BigUint64Array(16)
  for (let i = 0; i < 16; i++) regs[i] = value(r)
  regs[4] = place(r)
  const d: Draft = { prefixes: [], rex: 0, modrm: 0, tail: [], regs }
  const isString = e.attributes.has('rep') || e.attributes.has('repz')
  const kinds = e.operands.map(o => o.kind)
  const sized = e.operands.some(o => 'vzsy'.includes(o.size)) || isString || /^c[bw]/.test(e.name)
  const isFar = e.attributes.has('f64')

  // Prefixes. A wide operand is as likely as the others.
  const narrows = e.operands.some(o => 'vz'.includes(o.size)) || isString || /^c[bw]/.test(e.name)
  const width = !sized || isFar ? 4 : r.pick(narrows ? [2, 4, 4, 8, 8] : [4, 8])
  if (width === 2 && e.prefix !== 'np' && e.prefix !== '66') d.prefixes.push(0x66)
  if (width === 8) d.rex |= 0x48
  if (e.prefix === '66') d.prefixes.push(0x66)
  if (e.prefix === 'f2' || e.prefix === 'f3') d.prefixes.push(e.prefix === 'f2' ? 0xf2 : 0xf3)
  if (isString && !r.oneIn(3)) d.prefixes.push(r.pick([0xf2, 0xf3]))
  if (r.oneIn(10) && !isFar) d.prefixes.push(0x67)
  if (r.oneIn(8)) d.prefixes.push(r.pick([0x65, 0x65, 0x2e, 0x3e]))
  if (r.oneIn(40)) d.prefixes.push(r.pick([0x26, 0x36]))
  if (r.oneIn(4)) d.rex |= 0x40

  const opcode = [e.opcode]
  if (kinds.includes('Z')) {
    const n = r.below(16)
    opcode[0]! += n & 7
    d.rex |= n >> 3
  }
  if (e.map > 0) opcode.unshift(...[[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][e.map]!)

  // Immediates come last; their length is needed for RIP-relative operands.
  let immediate: number[] = []
  let count = -1
  const operandBytes = d.prefixes.includes(0x66) && e.prefix !== '66' && width !== 8 ? 2 : width
  e.operands.forEach(o => {
    if (o.kind === 'I') {
      const size =
        { b: 1, s: 1, w: 2, z: operandBytes === 2 ? 2 : 4 }[o.size as 'b'] ?? operandBytes
      const v = value(r)
      count = Number(v & 0xffn)
      immediate = [...immediate, ...little(v, size)]
    }
  })
  if (e.name === 'enter') {
    // Small frames: the window holds 4 KiB.
    const level = r.oneIn(2) ? 0 : r.below(5)
    immediate = [...little(BigInt(r.below(256)), 2), level]
    regs[5] = place(r)
  }
  if (e.name === 'leave') regs[5] = place(r)
  if (kinds.includes('J')) {
    const bytes = e.operands[0]!.size === 's' ? 1 : 4
    immediate = little(3n, bytes)
  }

  if (e.modrm >= 0) d.modrm = e.modrm
  else if (e.hasModrm) {
    const memory = kinds.includes('M') || (!kinds.includes('R') && r.oneIn(2))
    const reg = e.extension >= 0 ? e.extension : r.below(16)
    d.modrm = (reg & 7) << 3
    if (e.extension < 0) d.rex |= (reg >> 3) << 2
    if (memory) {
      if (e.attributes.has('lock') && r.oneIn(3)) d.prefixes.push(0xf0)
      // Bit strings reach as far as the register says.
      if (/^bt/.test(e.name) && e.extension < 0) regs[reg] = mask64(BigInt(r.below(8192) - 4096))
      const at = place(r)
      const rexLength = 1
      const fixed = d.prefixes.length + rexLength + opcode.length + 1 + immediate.length
      d.rex |= 0x40
      memoryOperand(r, d, at, fixed)
    } else {
      const rm = r.below(16)
      d.modrm |= 0xc0 | (rm & 7)
      d.rex |= rm >> 3
    }
  }
  if (kinds.includes('O')) d.tail.push(...little(place(r), d.prefixes.includes(0x67) ? 4 : 8))
  if (isString) {
    const dirty = d.prefixes.includes(0x67) ? BigInt(r.next()) << 32n : 0n
    regs[6] = place(r) | dirty
    regs[7] = place(r) | dirty
    regs[1] = BigInt(r.below(14)) | dirty
  }
  if (e.name.startsWith('loop')) regs[1] = r.oneIn(4) ? value(r) : BigInt(r.below(3))
  if (d.rex) d.rex |= 0x40

  const bytes = [...d.prefixes, ...(d.rex ? [d.rex] : []), ...opcode]
  if (e.hasModrm) bytes.push(d.modrm)
  bytes.push(...d.tail, ...immediate)
  // A taken branch skips `inc r8`.
  if (kinds.includes('J')) bytes.push(0x49, 0xff, 0xc0)
  if (bytes.length > 20) return undefined

  let undefinedFlags = e.undefinedFlags
  if (e.attributes.has('count')) {
    const bits = 8 * (e.operands[0]!.size === 'b' ? 1 : operandBytes)
    if (kinds.includes('CL')) count = Number(regs[1]! & 0xffn)
    if (kinds.includes('1')) count = 1
    const rule = shiftRules(e, count & (bits === 64 ? 63 : 31), bits)
    if (rule === 'skip') return undefined
    undefinedFlags = rule
  }
  const flags = (r.next() & COMPARED & ~FLAG.DF) | (r.oneIn(3) ? FLAG.DF : 0)
  return { code: new Uint8Array(bytes), regs, flags, seed: r.next(), undefinedFlags, name: e.name }
}
