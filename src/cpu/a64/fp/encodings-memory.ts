// Loads and stores of vector registers, single, pair and literal (DDI 0487 C4.1.88). A load writes registers only when
// all of it has been read. Structures are in encodings-structures.ts.

import type { Slot } from '../../ir/builder.js'
import type { Emitter } from '../emitter.js'
import { type Encoding, type MemoryUse, signed } from '../encodings.js'
import { routine } from '../machine.js'
import { type Writeback, withAddress } from '../memory-ops.js'
import { ACCESS } from '../ports.js'
import { SLOT } from '../registers.js'
import { address, EXTENDS, label, reg, regsp } from '../text.js'
import { fpRow, type Of, scalar, V } from './rows.js'

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

export const SIMD_MEMORY: readonly Encoding[] = rows
