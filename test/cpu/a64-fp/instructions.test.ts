// Properties of every floating-point and SIMD row: trapped before anything happens, nothing half-loaded, nothing
// written beside the destination. What the instructions compute is compared with QEMU (diff/a64) and by kernels.

import { expect, it } from 'vitest'
import { FlatMachine, FlatRegion } from '../../../diff/a64/flat.js'
import { decode, encode } from '../../../src/cpu/a64/decode.js'
import { Emitter } from '../../../src/cpu/a64/emitter.js'
import type { Encoding } from '../../../src/cpu/a64/encodings.js'
import { FP_ENCODINGS } from '../../../src/cpu/a64/fp/encodings.js'
import { ABORT, EC, SLOT } from '../../../src/cpu/a64/registers.js'
import { evaluate } from '../../../src/cpu/ir/evaluator.js'
import { xorshift } from '../../support/random.js'

const SEED = 7
const DATA = 0x10_0000
const SIZE = 4096

/** Fields that the row has, drawn until they are allocated. */
function drawFields(e: Encoding, random: (limit: number) => number): Record<string, number> {
  for (;;) {
    const fields = Object.fromEntries(
      e.fields.map(([name, { width }]) => [name, random(2 ** width)]),
    )
    if (e.allocated(fields) && decode(encode(e, fields))?.encoding === e) return fields
  }
}

/** A machine whose registers hold numbers of a seed, and all general ones the address `base`. */
function machineWith(base: number): { m: FlatMachine; data: FlatRegion } {
  const data = new FlatRegion(DATA, SIZE)
  const m = new FlatMachine([new FlatRegion(0x1000, SIZE), data])
  const random = xorshift(SEED)
  for (let i = 2 * SLOT.V; i < 2 * SLOT.TEMP; i++) m.state.r32[i] = random(2 ** 32)
  for (let i = 0; i < data.words.length; i++) data.words[i] = i
  for (let n = 0; n < 32; n++) m.state.r64[n] = BigInt(base)
  return { m, data }
}

function run(m: FlatMachine, e: Encoding, fields: Record<string, number>): void {
  const b = new Emitter()
  e.emit(b, fields)
  m.state.abort = ABORT.NONE
  evaluate(b.finish(), m.state, m.memory, m)
}

/** X0 to SP, NZCV to FPSR and the vectors, and unless left out the data. */
function text(m: FlatMachine, data?: FlatRegion): string {
  const { r8 } = m.state
  const parts = [
    r8.subarray(0, 8 * 32),
    r8.subarray(8 * SLOT.NZCV, 8 * SLOT.SCRATCH),
    r8.subarray(8 * SLOT.V, 8 * SLOT.TEMP),
    data?.bytes ?? r8.subarray(0, 0),
  ]
  return parts.map(p => Buffer.from(p).toString('latin1')).join()
}

/** How the instruction ended: the class of its exception, or nothing. */
const ending = (m: FlatMachine): number | undefined =>
  m.state.abort === ABORT.EXCEPTION ? m.state.ec : undefined

it(`traps each of ${FP_ENCODINGS.length} rows before anything changes when floating point is disabled`, () => {
  const random = xorshift(SEED)
  const wrong = FP_ENCODINGS.filter(e => {
    const { m, data } = machineWith(DATA + 512)
    m.system.checkFp = () => m.state.raise(EC.FP_ACCESS, 0x1e0_0000)
    const before = text(m, data)
    run(m, e, drawFields(e, random))
    return ending(m) !== EC.FP_ACCESS || text(m, data) !== before
  })
  expect(wrong.map(e => e.name)).toEqual([])
})

const accesses = FP_ENCODINGS.filter(e => e.memory)

it(`leaves all registers when one of ${accesses.length} kinds of access faults in its last byte`, () => {
  const random = xorshift(SEED)
  const wrong: string[] = []
  for (const e of accesses)
    for (let i = 0; i < 10; i++) {
      const fields = drawFields(e, random)
      const use = e.memory!(fields)
      if (use.index) continue
      const { m } = machineWith(DATA + SIZE + 1 - use.bytes - use.displacement)
      const before = text(m)
      run(m, e, fields)
      if (ending(m) !== EC.DATA_ABORT_LOWER || text(m) !== before) wrong.push(e.name)
    }
  expect(wrong).toEqual([])
})

const arithmetic = FP_ENCODINGS.filter(e => !e.memory)

it(`writes one vector register or none in each of ${arithmetic.length} rows`, () => {
  const random = xorshift(SEED)
  const wrong: string[] = []
  for (const e of arithmetic)
    for (let i = 0; i < 2; i++) {
      const fields = drawFields(e, random)
      // A literal just after the code that holds it.
      if ('imm19' in fields) fields['imm19'] = 16
      const { m } = machineWith(DATA)
      m.state.pc = 0x1000n
      const before = m.state.r32.slice(2 * SLOT.V, 2 * SLOT.TEMP)
      run(m, e, fields)
      const target = fields['Rd'] ?? fields['Rt'] ?? -1
      const after = m.state.r32.subarray(2 * SLOT.V, 2 * SLOT.TEMP)
      const beside = after.some((v, k) => v !== before[k] && k >> 2 !== target)
      if (ending(m) !== undefined || beside) wrong.push(e.name)
    }
  expect(wrong).toEqual([])
})

it('names every row once', () => {
  const names = FP_ENCODINGS.map(e => e.name)
  expect(names.filter((n, i) => names.indexOf(n) !== i)).toEqual([])
})
