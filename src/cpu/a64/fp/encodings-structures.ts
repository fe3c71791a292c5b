// Loads and stores of structures, LD1 to LD4, LD1R to LD4R and ST1 to ST4 (DDI 0487 C4.1.88). Elements are accessed
// one after another, as memory has them; a load writes registers only when all of it has been read.

import type { Slot } from '../../ir/builder.js'
import type { Emitter } from '../emitter.js'
import type { Encoding } from '../encodings.js'
import { type A64Machine, routine } from '../machine.js'
import { ACCESS } from '../ports.js'
import { ABORT } from '../registers.js'
import { reg, regsp } from '../text.js'
import { fpRow, letter, type Of, V, vector } from './rows.js'

const rows: Encoding[] = []

/** Bytes of registers read before any of them is written. */
const buffer = new Uint8Array(64)
const words = new Int32Array(buffer.buffer)
const VECTORS = 8 * V(0)

/** Where the bytes of a structure access belong: start in the vector file of each of `count` elements of 2^size bytes. */
function* elementsOf(t: number, selem: number, rpt: number, lanes: number, size: number) {
  for (let r = 0; r < rpt; r++)
    for (let e = 0; e < lanes; e++)
      for (let s = 0; s < selem; s++) yield VECTORS + 16 * ((t + r * selem + s) & 31) + (e << size)
}

/** The byte positions in the register file of a list of elements, in memory order. */
function places(elements: Iterable<number>, size: number): Int16Array {
  const bytes: number[] = []
  for (const at of elements) for (let i = 0; i < 1 << size; i++) bytes.push(at + i)
  return Int16Array.from(bytes)
}

/** Bytes of one memory access: elements, or eight where that keeps every access aligned. */
const chunkOf = (lo: number, bytes: number, size: number): number =>
  ((lo | bytes) & 7) === 0 ? 8 : 1 << size

/** Calls `access` for the address of each chunk, as halves, until one aborts. */
function eachChunk(
  m: A64Machine,
  at: Slot,
  bytes: number,
  chunk: number,
  access: (hi: number, lo: number, from: number) => void,
): void {
  const base = m.state.r32[2 * at]! >>> 0
  const high = m.state.r32[2 * at + 1]!
  for (let i = 0; i < bytes && m.state.abort === ABORT.NONE; i += chunk) {
    const low = base + i
    access(low >= 2 ** 32 ? (high + 1) | 0 : high, low | 0, i)
  }
}

/** Loads into the buffer; false when it aborts. */
function gather(m: A64Machine, at: Slot, bytes: number, size: number): boolean {
  const { state, memory } = m
  const chunk = chunkOf(state.r32[2 * at]!, bytes, size)
  eachChunk(m, at, bytes, chunk, (hi, lo, i) => {
    if (chunk === 8) memory.load64(hi, lo, ACCESS.READ, words, i >> 2)
    else {
      const v = memory.load(hi, lo, chunk, ACCESS.READ)
      for (let k = 0; k < chunk; k++) buffer[i + k] = v >> (8 * k)
    }
  })
  return state.abort === ABORT.NONE
}

/** Stores from the buffer. */
function scatter(m: A64Machine, at: Slot, bytes: number, size: number): void {
  const { state, memory } = m
  const chunk = chunkOf(state.r32[2 * at]!, bytes, size)
  eachChunk(m, at, bytes, chunk, (hi, lo, i) => {
    if (chunk === 8) memory.store64(hi, lo, words[(i >> 2) + 1]!, words[i >> 2]!, ACCESS.WRITE)
    else {
      let v = 0
      for (let k = 0; k < chunk; k++) v |= buffer[i + k]! << (8 * k)
      memory.store(hi, lo, chunk, v, ACCESS.WRITE)
    }
  })
}

/** One structure access, worked out when it is decoded. */
interface Structure {
  readonly load: boolean
  /** log2 of the element size. */
  readonly size: number
  /** Byte positions in the register file, in memory order. */
  readonly places: Int16Array
  /** Bytes of each loaded register that are replaced; the rest of it is zeroed. 0: only the places are written. */
  readonly whole: number
  /** First register and how many. */
  readonly first: number
  readonly count: number
  /** Each loaded element fills its register (LD1R to LD4R). */
  readonly replicate: boolean
}

function emitStructure(b: Emitter, name: string, at: Slot, s: Structure): void {
  const bytes = s.places.length
  b.call(
    routine(name, (m, { a }) => {
      const { r8, lanes } = m.state
      if (!s.load) {
        s.places.forEach((place, i) => {
          buffer[i] = r8[place]!
        })
        scatter(m, a, bytes, s.size)
        return
      }
      if (!gather(m, a, bytes, s.size)) return
      s.places.forEach((place, i) => {
        r8[place] = buffer[i]!
      })
      if (s.whole === 0) return
      for (let i = 0; i < s.count; i++) {
        const slot = V((s.first + i) & 31)
        if (s.replicate)
          for (let k = 1 << s.size; k < s.whole; k += 1 << s.size)
            r8.copyWithin(8 * slot + k, 8 * slot, 8 * slot + (1 << s.size))
        lanes.clearAbove(slot, s.whole)
      }
    }),
    { a: at },
  )
}

/** Runs the access at the base register and, post-indexed, moves the base by `bytes` or by a register. */
function withBase(
  b: Emitter,
  f: Of<'Rn'>,
  post: { Rm: number } | undefined,
  name: string,
  s: Structure,
): void {
  const base = b.base(f.Rn)
  emitStructure(b, name, base, s)
  if (!post) return
  if (post.Rm === 31) b.emit('i64.addk', { d: f.Rn, a: base, imm: s.places.length })
  else b.emit('i64.add', { d: f.Rn, a: base, b: post.Rm })
}

/** `{v0.8b-v3.8b}`, `{v31.8b, v0.8b}`; the arrangement or element after each name. */
function list(t: number, count: number, suffix: string): string {
  const name = (i: number) => `v${(t + i) & 31}.${suffix}`
  const last = (t + count - 1) & 31
  if (count > 2 && last > t) return `{${name(0)}-${name(count - 1)}}`
  return `{${Array.from({ length: count }, (_, i) => name(i)).join(', ')}}`
}

const after = (f: Of<'Rn'>, post: { Rm: number } | undefined, bytes: number): string => {
  if (!post) return `[${regsp(1, f.Rn)}]`
  return `[${regsp(1, f.Rn)}], ${post.Rm === 31 ? `#${bytes}` : reg(1, post.Rm)}`
}

/** The two patterns, plain and post-indexed, of a structure group. */
const FORMS = [
  ['', '0', '0 00000'],
  [', post-index', '1', '0 Rm:5'],
] as const

type Multiple = Of<'Q' | 'L' | 'size' | 'Rn' | 'Rt' | 'Rm'>

// Multiple structures: name, opcode, registers per structure, structures per lane number.
// biome-ignore format: table
const MULTIPLE = [
  ['LD4/ST4', '0000', 4, 1], ['LD1/ST1 (four registers)', '0010', 1, 4], ['LD3/ST3', '0100', 3, 1],
  ['LD1/ST1 (three registers)', '0110', 1, 3], ['LD1/ST1 (one register)', '0111', 1, 1],
  ['LD2/ST2', '1000', 2, 1], ['LD1/ST1 (two registers)', '1010', 1, 2],
] as const
for (const [name, opcode, selem, rpt] of MULTIPLE)
  for (const [suffix, bit, rest] of FORMS) {
    const post = (f: Multiple) => (bit === '1' ? f : undefined)
    const count = selem * rpt
    rows.push(
      fpRow<keyof Multiple>(
        `${name}, multiple structures${suffix}`,
        'simd structures',
        `0 Q 0011 0 0 ${bit} L ${rest} ${opcode} size:2 Rn:5 Rt:5`,
        {
          allocated: f => f.size < 3 || f.Q === 1 || selem === 1,
          emit(b, f) {
            const whole = f.Q ? 16 : 8
            const elements = elementsOf(f.Rt, selem, rpt, whole >> f.size, f.size)
            withBase(b, f, post(f), `${f.L ? 'ld' : 'st'}${selem}`, {
              load: f.L === 1,
              size: f.size,
              places: places(elements, f.size),
              whole,
              first: f.Rt,
              count,
              replicate: false,
            })
          },
          print: f =>
            `${f.L ? 'ld' : 'st'}${selem} ${list(f.Rt, count, vector(f.size, f.Q, 0).slice(3))}, ${after(f, post(f), count * (f.Q ? 16 : 8))}`,
          memory: f => ({ base: f.Rn, displacement: 0, bytes: count * (f.Q ? 16 : 8) }),
        },
      ),
    )
  }

type Single = Of<'Q' | 'L' | 'R' | 'opH' | 'o' | 'S' | 'size' | 'Rn' | 'Rt' | 'Rm'>

/** Registers of a structure: opcode<0> and R. */
const selemOf = (f: Of<'o' | 'R'>): number => ((f.o << 1) | f.R) + 1

/** Size and lane of a single structure; undefined when reserved. opH is opcode<2:1>. */
function laneOf(f: Single): { size: number; index: number } | undefined {
  if (f.opH === 0) return { size: 0, index: (f.Q << 3) | (f.S << 2) | f.size }
  if (f.opH === 1)
    return f.size & 1 ? undefined : { size: 1, index: (f.Q << 2) | (f.S << 1) | (f.size >> 1) }
  if (f.size === 0) return { size: 2, index: (f.Q << 1) | f.S }
  return f.size === 1 && f.S === 0 ? { size: 3, index: f.Q } : undefined
}

for (const [suffix, bit, rest] of FORMS) {
  const post = (f: Of<'Rm'>) => (bit === '1' ? f : undefined)
  const registers = rest.slice(2)
  rows.push(
    fpRow<keyof Single>(
      `LD1-LD4/ST1-ST4, single structure${suffix}`,
      'simd structures',
      `0 Q 0011 0 1 ${bit} L R ${registers} opH:2 o S size:2 Rn:5 Rt:5`,
      {
        allocated: f => f.opH < 3 && laneOf(f) !== undefined,
        emit(b, f) {
          const { size, index } = laneOf(f)!
          const selem = selemOf(f)
          const elements = Array.from(
            { length: selem },
            (_, i) => VECTORS + 16 * ((f.Rt + i) & 31) + (index << size),
          )
          withBase(b, f, post(f), `${f.L ? 'ld' : 'st'}${selem}.lane`, {
            load: f.L === 1,
            size,
            places: places(elements, size),
            whole: 0,
            first: f.Rt,
            count: selem,
            replicate: false,
          })
        },
        print(f) {
          const { size, index } = laneOf(f)!
          const selem = selemOf(f)
          return `${f.L ? 'ld' : 'st'}${selem} ${list(f.Rt, selem, letter(size))}[${index}], ${after(f, post(f), selem << size)}`
        },
        memory: f => ({
          base: f.Rn,
          displacement: 0,
          bytes: selemOf(f) << (laneOf(f)?.size ?? 0),
        }),
      },
    ),
    fpRow<'Q' | 'R' | 'o' | 'size' | 'Rn' | 'Rt' | 'Rm'>(
      `LD1R-LD4R${suffix}`,
      'simd structures',
      `0 Q 0011 0 1 ${bit} 1 R ${registers} 11 o 0 size:2 Rn:5 Rt:5`,
      {
        emit(b, f) {
          const selem = selemOf(f)
          withBase(b, f, post(f), `ld${selem}r`, {
            load: true,
            size: f.size,
            places: places(elementsOf(f.Rt, selem, 1, 1, f.size), f.size),
            whole: f.Q ? 16 : 8,
            first: f.Rt,
            count: selem,
            replicate: true,
          })
        },
        print: f =>
          `ld${selemOf(f)}r ${list(f.Rt, selemOf(f), vector(f.size, f.Q, 0).slice(3))}, ${after(f, post(f), selemOf(f) << f.size)}`,
        memory: f => ({ base: f.Rn, displacement: 0, bytes: selemOf(f) << f.size }),
      },
    ),
  )
}

export const SIMD_STRUCTURES: readonly Encoding[] = rows
