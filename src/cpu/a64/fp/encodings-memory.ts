// Loads and stores of vector registers: single, pair, literal, and the structures LD1 to LD4 and ST1 to ST4
// (DDI 0487 C4.1.88). A load writes registers only when all of it has been read.

import type { Slot } from '../../ir/builder.js'
import type { Emitter } from '../emitter.js'
import { type Encoding, type MemoryUse, signed } from '../encodings.js'
import { type A64Machine, routine } from '../machine.js'
import { type Writeback, withAddress } from '../memory-ops.js'
import { ACCESS } from '../ports.js'
import { ABORT, SLOT } from '../registers.js'
import { address, EXTENDS, label, reg, regsp } from '../text.js'
import { fpRow, letter, type Of, scalar, V, vector } from './rows.js'

const rows: Encoding[] = []

// One register.

const load128 = routine('load128', (m, { d, a }) => {
  const { r32 } = m.state
  m.memory.load128(r32[2 * a + 1]!, r32[2 * a]!, ACCESS.READ, r32, 2 * d)
})

const store128 = routine('store128', (m, { a, b }) => {
  const { r32 } = m.state
  m.memory.store128(r32[2 * a + 1]!, r32[2 * a]!, ACCESS.WRITE, r32, 2 * b)
})

/** A value of 2^size bytes from memory in two fresh slots, extended with zeros. */
function loadValue(b: Emitter, size: number, at: Slot): Slot {
  const v = b.temp(2)
  if (size === 4) b.call(load128, { d: v, a: at })
  else {
    const x = b.load((1 << size) as 1 | 2 | 4 | 8, at, ACCESS.READ)
    b.emit(size === 3 ? 'i64.mov' : 'i64.extendu', { d: v, a: x })
    b.emit('i64.const', { d: v + 1 })
  }
  return v
}

/** Writes it to vector register t. */
function setWhole(b: Emitter, t: number, v: Slot): void {
  b.emit('i64.mov', { d: V(t), a: v })
  b.emit('i64.mov', { d: V(t) + 1, a: v + 1 })
}

function storeValue(b: Emitter, size: number, t: number, at: Slot): void {
  if (size === 4) b.call(store128, { a: at, b: V(t) })
  else b.store((1 << size) as 1 | 2 | 4 | 8, at, V(t), ACCESS.WRITE)
}

function transfer(b: Emitter, load: number, size: number, t: number, at: Slot): void {
  if (load) setWhole(b, t, loadValue(b, size, at))
  else storeValue(b, size, t, at)
}

/** log2 of the bytes: opc bit 1 makes a byte sixteen. */
const sizeOf = (f: Of<'size' | 'opcH'>): number => (f.opcH ? 4 : f.size)
const isSized = (f: Of<'size' | 'opcH'>): boolean => f.opcH === 0 || f.size === 0
const text = (f: Of<'size' | 'opcH' | 'L' | 'Rt'>, stem: string): string =>
  `${f.L ? 'ld' : 'st'}${stem} ${scalar(sizeOf(f), f.Rt)}`

type Unsigned = Of<'size' | 'opcH' | 'L' | 'imm12' | 'Rn' | 'Rt'>
type Immediate = Of<'size' | 'opcH' | 'L' | 'imm9' | 'Rn' | 'Rt'>

const GROUP = 'simd load-store'
const use = (f: Of<'size' | 'opcH' | 'Rn'>, displacement: number): MemoryUse => ({
  base: f.Rn,
  displacement,
  bytes: 1 << sizeOf(f),
})

rows.push(
  fpRow<keyof Unsigned>(
    'LDR/STR (SIMD, unsigned offset)',
    GROUP,
    'size:2 111101 opcH L imm12:12 Rn:5 Rt:5',
    {
      allocated: isSized,
      emit: (b, f) =>
        withAddress(b, f.Rn, f.imm12 << sizeOf(f), 'none', at =>
          transfer(b, f.L, sizeOf(f), f.Rt, at),
        ),
      print: f => `${text(f, 'r')}, ${address(f.Rn, f.imm12 << sizeOf(f))}`,
      memory: f => use(f, f.imm12 << sizeOf(f)),
    },
  ),
)

// biome-ignore format: table
const IMMEDIATE: readonly (readonly [string, string, string, Writeback])[] = [
  ['LDUR/STUR (SIMD)', '00', 'ur', 'none'], ['LDR/STR (SIMD, post-index)', '01', 'r', 'post'],
  ['LDR/STR (SIMD, pre-index)', '11', 'r', 'pre'],
]
/** `[x1, #8]!`, `[x1], #8` or `[x1, #8]`. */
function indexed(n: number, offset: number, writeback: Writeback): string {
  if (writeback === 'post') return `[${regsp(1, n)}], #${offset}`
  if (writeback === 'pre') return `[${regsp(1, n)}, #${offset}]!`
  return address(n, offset)
}
for (const [name, bits, stem, writeback] of IMMEDIATE)
  rows.push(
    fpRow<keyof Immediate>(name, GROUP, `size:2 111100 opcH L 0 imm9:9 ${bits} Rn:5 Rt:5`, {
      allocated: isSized,
      emit: (b, f) =>
        withAddress(b, f.Rn, signed(f.imm9, 9), writeback, at =>
          transfer(b, f.L, sizeOf(f), f.Rt, at),
        ),
      print: f => `${text(f, stem)}, ${indexed(f.Rn, signed(f.imm9, 9), writeback)}`,
      memory: f => use(f, writeback === 'post' ? 0 : signed(f.imm9, 9)),
    }),
  )

type Register = Of<'size' | 'opcH' | 'L' | 'Rm' | 'option' | 'S' | 'Rn' | 'Rt'>

rows.push(
  fpRow<keyof Register>(
    'LDR/STR (SIMD, register)',
    GROUP,
    'size:2 111100 opcH L 1 Rm:5 option:3 S 10 Rn:5 Rt:5',
    {
      allocated: f => isSized(f) && (f.option & 2) !== 0,
      emit(b, f) {
        const index = b.extended(8, f.Rm, f.option, f.S ? sizeOf(f) : 0)
        const at = b.value('i64.add', { a: b.base(f.Rn), b: index })
        transfer(b, f.L, sizeOf(f), f.Rt, at)
      },
      print(f) {
        const by = f.S ? ` #${sizeOf(f)}` : ''
        const plain = f.S ? `, lsl${by}` : ''
        const extend = f.option === 3 ? plain : `, ${EXTENDS[f.option]!}${by}`
        return `${text(f, 'r')}, [${regsp(1, f.Rn)}, ${reg(f.option & 1, f.Rm)}${extend}]`
      },
      memory: f => ({
        ...use(f, 0),
        index: { register: f.Rm, option: f.option, shift: f.S ? sizeOf(f) : 0 },
      }),
    },
  ),
  fpRow<'opc' | 'imm19' | 'Rt'>('LDR (SIMD, literal)', GROUP, 'opc:2 011100 imm19:19 Rt:5', {
    allocated: f => f.opc !== 3,
    emit(b, f) {
      const at = b.value('i64.addk', { a: SLOT.PC, imm: signed(f.imm19, 19) * 4 })
      setWhole(b, f.Rt, loadValue(b, 2 + f.opc, at))
    },
    print: (f, pc) => `ldr ${scalar(2 + f.opc, f.Rt)}, ${label(pc, signed(f.imm19, 19) * 4)}`,
  }),
)

// Pairs.

type Pair = Of<'opc' | 'L' | 'imm7' | 'Rt2' | 'Rn' | 'Rt'>

const pairOffset = (f: Pair): number => signed(f.imm7, 7) * (4 << f.opc)

// biome-ignore format: table
const PAIRS: readonly (readonly [string, string, string, Writeback])[] = [
  ['LDNP/STNP (SIMD)', '000', 'np', 'none'], ['LDP/STP (SIMD, post-index)', '001', 'p', 'post'],
  ['LDP/STP (SIMD, offset)', '010', 'p', 'none'], ['LDP/STP (SIMD, pre-index)', '011', 'p', 'pre'],
]
for (const [name, bits, stem, writeback] of PAIRS)
  rows.push(
    fpRow<keyof Pair>(
      name,
      'simd load-store-pair',
      `opc:2 1011 ${bits.slice(0, 1)} ${bits.slice(1)} L imm7:7 Rt2:5 Rn:5 Rt:5`,
      {
        allocated: f => f.opc !== 3,
        emit: (b, f) =>
          withAddress(b, f.Rn, pairOffset(f), writeback, at => {
            const size = 2 + f.opc
            const second = b.value('i64.addk', { a: at, imm: 1 << size })
            if (!f.L) {
              storeValue(b, size, f.Rt, at)
              storeValue(b, size, f.Rt2, second)
              return
            }
            const x = loadValue(b, size, at)
            const y = loadValue(b, size, second)
            setWhole(b, f.Rt, x)
            setWhole(b, f.Rt2, y)
          }),
        print: f =>
          `${f.L ? 'ld' : 'st'}${stem} ${scalar(2 + f.opc, f.Rt)}, ${scalar(2 + f.opc, f.Rt2)}, ${indexed(f.Rn, pairOffset(f), writeback)}`,
        memory: f => ({
          base: f.Rn,
          displacement: writeback === 'post' ? 0 : pairOffset(f),
          bytes: 8 << f.opc,
        }),
      },
    ),
  )

// Structures. Which bytes go where is in `imm`: see `transferOf`. Lanes are handled one after another, as memory has
// them: element e of register r of `selem`, for every e.

/** Bytes of registers read before any of them is written. */
const buffer = new Uint8Array(64)
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

/** Loads `to.length` bytes into the buffer; false when it aborts. Accesses are of element size. */
function gather(m: A64Machine, at: bigint, bytes: number, size: number): boolean {
  const s = m.state
  const t = SLOT.SCRATCH
  for (let i = 0; i < bytes; i += 1 << size) {
    s.r64[t] = at + BigInt(i)
    const lo = s.r32[2 * t]!
    const hi = s.r32[2 * t + 1]!
    if (size === 3) m.memory.load64(hi, lo, ACCESS.READ, s.r32, 2 * (t + 1))
    else s.r32[2 * (t + 1)] = m.memory.load(hi, lo, 1 << size, ACCESS.READ)
    if (s.abort !== ABORT.NONE) return false
    buffer.set(s.r8.subarray(8 * (t + 1), 8 * (t + 1) + (1 << size)), i)
  }
  return true
}

/** Stores them from the buffer. */
function scatter(m: A64Machine, at: bigint, bytes: number, size: number): void {
  const s = m.state
  const t = SLOT.SCRATCH
  for (let i = 0; i < bytes; i += 1 << size) {
    s.r64[t] = at + BigInt(i)
    s.r8.set(buffer.subarray(i, i + (1 << size)), 8 * (t + 1))
    const lo = s.r32[2 * t]!
    const hi = s.r32[2 * t + 1]!
    const low = s.r32[2 * (t + 1)]!
    if (size === 3) m.memory.store64(hi, lo, s.r32[2 * (t + 1) + 1]!, low, ACCESS.WRITE)
    else m.memory.store(hi, lo, 1 << size, low, ACCESS.WRITE)
    if (s.abort !== ABORT.NONE) return
  }
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
      const { r8, r64, lanes } = m.state
      if (!s.load) {
        s.places.forEach((place, i) => {
          buffer[i] = r8[place]!
        })
        scatter(m, r64[a]!, bytes, s.size)
        return
      }
      if (!gather(m, r64[a]!, bytes, s.size)) return
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

export const SIMD_MEMORY: readonly Encoding[] = rows
