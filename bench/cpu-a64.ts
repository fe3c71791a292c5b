// Guest instructions a second of the A64 evaluator, with translation on: six C kernels compiled by gcc at -O2.

import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { IMAGE_BASE, KERNELS, type KernelImage } from '../diff/a64/kernels.js'
import { A64Core } from '../src/cpu/a64/core.js'
import { decode } from '../src/cpu/a64/decode.js'
import { keyOf, SCTLR, type SystemRegisterName } from '../src/cpu/a64/system-register-table.js'
import { AddressSpace } from '../src/mem/address-space.js'
import { plainMips, type Row } from './harness.js'

const RAM_BYTES = 0x8_0000
const TABLE = IMAGE_BASE + 0x7_0000
const STACK = IMAGE_BASE + 0x6_0000
/** WFI, where kernels return to. */
const END = STACK
const WFI = 0xd503_207f | 0

/** Kernels of the mix, and how many rounds make some milliseconds of each. */
const MIX = ['crc', 'sieve', 'copy', 'hash', 'sort', 'fib'] as const
const ROUNDS = 4n

/** A core at EL1 whose first GiB is mapped to itself by one level-1 block, the image in it. */
export class KernelCore {
  readonly core: A64Core
  readonly #ram = new Uint8Array(RAM_BYTES)

  constructor(image: Uint8Array) {
    const space = new AddressSpace()
    space.addRam(IMAGE_BASE, this.#ram)
    this.#ram.set(image)
    const view = new DataView(this.#ram.buffer)
    // Block, AttrIndx 0, inner shareable, accessed; privileged read and write.
    view.setBigUint64(TABLE - IMAGE_BASE, 0x701n, true)
    view.setInt32(END - IMAGE_BASE, WFI, true)
    this.core = new A64Core({ memory: space })
    const registers: readonly (readonly [SystemRegisterName, bigint])[] = [
      ['MAIR_EL1', 0xffn],
      ['TTBR0_EL1', BigInt(TABLE)],
      ['TCR_EL1', 25n | (1n << 23n)], // T0SZ: 39 bits, 4 KiB granule; EPD1
      ['CPACR_EL1', 3n << 20n],
      ['SCTLR_EL1', BigInt(SCTLR.M | SCTLR.C | SCTLR.I) | 0x30d0_0980n],
    ]
    for (const [name, value] of registers) {
      if (this.core.registers.hostWrite(keyOf(name), value) !== 'done')
        throw new Error(`${name} does not take its value`)
    }
  }

  /** Calls kernel `n`; instructions and result. */
  run(n: number, rounds: bigint): { instructions: number; result: bigint } {
    const { core } = this
    const { state } = core
    state.pc = BigInt(IMAGE_BASE)
    state.sp = BigInt(STACK - 16)
    state.setX(0, BigInt(n))
    state.setX(1, rounds)
    state.setX(30, BigInt(END))
    const before = core.retired
    const exit = core.run(1e9)
    if (exit.kind !== 'hlt') throw new Error(`kernel ${KERNELS[n]} ended with ${exit.kind}`)
    core.halted = false
    return { instructions: core.retired - before, result: state.x(0) }
  }

  /** Of every hundred instructions that a kernel executes, how many load or store, and how many branch. */
  mix(n: number): { memory: number; branch: number } {
    const { core } = this
    const { state } = core
    let [total, memory, branch] = [0, 0, 0]
    const view = new DataView(this.#ram.buffer)
    state.pc = BigInt(IMAGE_BASE)
    state.sp = BigInt(STACK - 16)
    state.setX(0, BigInt(n))
    state.setX(1, 1n)
    state.setX(30, BigInt(END))
    for (; state.pc !== BigInt(END); total++) {
      const insn = decode(view.getInt32(Number(state.pc) - IMAGE_BASE, true))!
      if (insn.encoding.memory) memory++
      if (insn.encoding.group === 'branch') branch++
      core.step()
    }
    return { memory: memory / total, branch: branch / total }
  }
}

const nowNs = () => Number(process.hrtime.bigint())

/** MIPS of one kernel: the best of several runs, the first ones to warm up. */
function mipsOf(machine: KernelCore, n: number): number {
  let best = 0
  for (let i = 0; i < 6; i++) {
    const start = nowNs()
    const { instructions } = machine.run(n, ROUNDS)
    best = Math.max(best, (instructions * 1000) / (nowNs() - start))
  }
  return best
}

/** The committed images, built as test/cpu/a64/kernels.test.ts says. */
export function kernelImages(): readonly KernelImage[] {
  const name = 'test/golden/a64/kernels.json'
  const [here, built] = ['..', '../../..'].map(up => resolve(import.meta.dirname, up, name))
  return JSON.parse(readFileSync(existsSync(here!) ? here! : built!, 'utf8')) as KernelImage[]
}

export function cpuA64Rows(): Row[] {
  const built = kernelImages()[0]!
  const machine = new KernelCore(Buffer.from(built.image, 'base64'))
  const figures = MIX.map(name => {
    const n = KERNELS.indexOf(name)
    const { result } = machine.run(n, 1n)
    if (result.toString(16) !== built.results[n]) throw new Error(`${name} gives ${result}`)
    return { name, mips: mipsOf(machine, n), ...machine.mix(n) }
  })
  const mean = (of: (f: (typeof figures)[number]) => number) =>
    figures.reduce((sum, f) => sum + of(f), 0) / figures.length
  const value = Math.exp(mean(f => Math.log(f.mips)))
  const baseline = plainMips()
  const percent = (v: number) => `${Math.round(100 * v)} %`
  const each = figures.map(f => `${f.name} ${f.mips.toFixed(0)}`).join(', ')
  return [
    {
      id: 'cpu-a64',
      what: `A64 evaluator, 4 KiB granule translation on, geometric mean of six kernels by gcc -O2 (${each}): ${percent(mean(f => f.memory))} loads and stores, ${percent(mean(f => f.branch))} branches`,
      value,
      unit: 'MIPS',
      baseline,
      ratio: value / baseline,
      target: null,
      targetOf: 'value',
      pass: true,
    },
  ]
}
