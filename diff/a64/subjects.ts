// What instruction cases run on: the flat machine, or the whole core at EL0 with translation on, whose exceptions go
// through vectors to EL1 and leave by HVC.

import { A64Core } from '../../src/cpu/a64/core.js'
import { type A64State, ABORT } from '../../src/cpu/a64/registers.js'
import { keyOf, SCTLR, type SystemRegisterName } from '../../src/cpu/a64/system-register-table.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { CODE, SLOT_COUNT, SLOT_WORDS, WINDOW, WINDOW_BYTES } from './cases.js'
import { FlatMachine, FlatRegion } from './flat.js'

const CODE_BYTES = 4 * SLOT_WORDS * SLOT_COUNT

/** Something that executes. */
export interface Subject {
  readonly state: A64State
  /** The words of the code region and of the window. */
  readonly code: Int32Array
  readonly window: Int32Array
  /** Before a case, with registers, SP and NZCV on the state already. */
  start(pc: bigint): void
  /** Runs to an exception, at most so many instructions; its class and syndrome, with PC and NZCV back on the state. */
  run(most: number): { ec: number; iss: number } | undefined
}

/** A core without MMU and exceptions. */
export function flatSubject(): Subject {
  const code = new FlatRegion(CODE, CODE_BYTES)
  const data = new FlatRegion(WINDOW, WINDOW_BYTES)
  const machine = new FlatMachine([code, data])
  const { state } = machine
  return {
    state,
    code: code.words,
    window: data.words,
    start: pc => {
      state.pc = pc
      state.clearExclusive()
    },
    run: most => {
      machine.run(most)
      return state.abort === ABORT.EXCEPTION ? { ec: state.ec, iss: state.iss } : undefined
    },
  }
}

/** Physical memory of the core: tables, vectors, then code and window as far apart as in the virtual addresses. */
const RAM = 0x4000_0000
const TABLES = RAM
const VECTORS = RAM + 0x4000
const PLACED = RAM + 0x1_0000
const RAM_BYTES = 0x1_0000 + (WINDOW - CODE) + WINDOW_BYTES
/** Virtual page of the vectors, in the same 2 MiB as the code. */
const VECTORS_AT = CODE + 0x10_0000
const HVC = 0xd400_0002 | 0

// Descriptors: valid pages, accessed, inner shareable, normal memory; then who may do what.
const PAGE = 0x703n
const USER_CODE = PAGE | 0xc0n | (1n << 53n) // read-only for both, PXN
const USER_DATA = PAGE | 0x40n | (3n << 53n)
const KERNEL_CODE = PAGE | 0x80n | (1n << 54n)

/** The whole core. */
export function coreSubject(): Subject {
  const ram = new Uint8Array(RAM_BYTES)
  const view = new DataView(ram.buffer)
  const space = new AddressSpace()
  space.addRam(RAM, ram)
  const entry = (table: number, index: number, value: bigint) =>
    view.setBigUint64(table - RAM + 8 * index, value, true)
  const [level1, level2, level3] = [TABLES, TABLES + 0x1000, TABLES + 0x2000]
  entry(level1, CODE / 2 ** 30, BigInt(level2) | 3n)
  entry(level2, 0, BigInt(level3) | 3n)
  const map = (at: number, physical: number, bytes: number, attributes: bigint) => {
    for (let page = 0; page < bytes; page += 4096)
      entry(level3, (at + page - CODE) / 4096, BigInt(physical + page) | attributes)
  }
  map(CODE, PLACED, CODE_BYTES, USER_CODE)
  map(WINDOW, PLACED + WINDOW - CODE, WINDOW_BYTES, USER_DATA)
  map(VECTORS_AT, VECTORS, 4096, KERNEL_CODE)
  for (let vector = 0; vector < 0x800; vector += 0x80)
    view.setInt32(VECTORS - RAM + vector, HVC, true)

  const core = new A64Core({ memory: space })
  const { state } = core
  const write = (name: SystemRegisterName, value: bigint) => {
    if (core.registers.hostWrite(keyOf(name), value) !== 'done')
      throw new Error(`${name} does not take its value`)
  }
  write('MAIR_EL1', 0xffn)
  write('TTBR0_EL1', BigInt(level1))
  write('TCR_EL1', 25n | (1n << 23n)) // 39 bits, 4 KiB granule; EPD1
  write('VBAR_EL1', BigInt(VECTORS_AT))
  write('CPACR_EL1', 3n << 20n)
  write('SCTLR_EL1', BigInt(SCTLR.M | SCTLR.C | SCTLR.I) | 0x30d0_0980n)
  const read = (name: SystemRegisterName) => core.registers.hostRead(keyOf(name))!
  return {
    state,
    code: new Int32Array(ram.buffer, PLACED - RAM, CODE_BYTES / 4),
    window: new Int32Array(ram.buffer, PLACED - RAM + WINDOW - CODE, WINDOW_BYTES / 4),
    start: pc => {
      const { sp, nzcv } = state
      core.setPstate(0x3c0 | nzcv)
      state.setStack(0, sp)
      state.pc = pc
      state.clearExclusive()
    },
    run: most => {
      const exit = core.run(most)
      if (exit.kind !== 'hypercall') return undefined
      const esr = Number(read('ESR_EL1'))
      state.pc = read('ELR_EL1')
      const spsr = Number(read('SPSR_EL1'))
      core.setPstate(0x3c0)
      state.nzcv = spsr
      return { ec: esr >>> 26, iss: esr & 0x1ff_ffff }
    },
  }
}
