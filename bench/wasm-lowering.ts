// The hottest loop of some C kernels lowered to WebAssembly (wasm/lower.ts), beside the evaluator on the same loop.

import { FlatMachine, FlatRegion } from '../diff/a64/flat.js'
import { KERNELS, type KernelImage } from '../diff/a64/kernels.js'
import { type Block, CodeCache, runBlock } from '../src/cpu/a64/code-cache.js'
import { ABORT } from '../src/cpu/a64/registers.js'
import { AddressSpace } from '../src/mem/address-space.js'
import { kernelImages } from './cpu-a64.js'
import type { Row } from './harness.js'
import { instantiate, newMemory } from './wasm/api.js'
import { LAYOUT, lower, SLOT_BYTES } from './wasm/lower.js'

const BASE = 0x2000_0000
const BYTES = 0x4_0000
const LOOPS = ['crc', 'copy', 'hash'] as const
const ROUNDS = 40

const nowNs = () => Number(process.hrtime.bigint())

/** A kernel on a flat machine whose RAM lies in a WebAssembly memory, with one of its loops translated or not. */
class Spike {
  readonly #memory = newMemory(LAYOUT.ram + BYTES)
  readonly #region: FlatRegion
  readonly #machine: FlatMachine
  readonly #code: CodeCache
  readonly #slots: Uint8Array
  readonly #kernel: number

  constructor(image: KernelImage, kernel: number) {
    const { buffer } = this.#memory
    this.#region = new FlatRegion(BASE, BYTES, new Uint8Array(buffer, LAYOUT.ram, BYTES))
    this.#region.bytes.set(Buffer.from(image.image, 'base64'))
    this.#machine = new FlatMachine([this.#region])
    const space = new AddressSpace()
    space.addRam(BASE, this.#region.bytes)
    this.#code = new CodeCache(space)
    this.#slots = new Uint8Array(buffer, LAYOUT.slots, SLOT_BYTES)
    this.#kernel = kernel
    this.#fillTlb()
  }

  /** Every page of RAM has its entry: 64 pages, 256 entries. */
  #fillTlb(): void {
    const view = new DataView(this.#memory.buffer)
    for (let i = 0; i < 256; i++) view.setBigInt64(LAYOUT.tlb + 16 * i, -1n, true)
    for (let page = BASE; page < BASE + BYTES; page += 4096) {
      const at = LAYOUT.tlb + 16 * ((page >>> 12) & 255)
      view.setBigInt64(at, BigInt(page), true)
      view.setInt32(at + 8, LAYOUT.ram - BASE, true)
    }
  }

  /**
   * Runs the kernel; `loop` at address `at` takes the place of the block there. Its result, the instructions inside
   * the loop, and the best MIPS of all its entries: others run on this machine too.
   */
  run(at: number, loop?: (iterations: number) => number, rounds = ROUNDS) {
    const { state } = this.#machine
    state.abort = ABORT.NONE
    state.pc = BigInt(BASE)
    state.sp = BigInt(BASE + BYTES - 16)
    state.setX(0, BigInt(this.#kernel))
    state.setX(1, BigInt(rounds))
    state.setX(30, 0n)
    let instructions = 0
    let mips = 0
    for (;;) {
      const pc = Number(state.pc)
      if (pc === 0) return { result: state.x(0).toString(16), instructions, mips }
      if (state.abort !== ABORT.NONE) throw new Error(`stopped at ${pc.toString(16)}`)
      if (pc !== at) {
        runBlock(this.#machine, this.#code.find(pc), 1e9)
        continue
      }
      // All iterations in a row, so that the clock is read seldom.
      const before = instructions
      const start = nowNs()
      if (loop) {
        this.#slots.set(state.r8)
        instructions += loop(0x7fff_ffff)
        state.r8.set(this.#slots)
        if (Number(state.pc) === at)
          instructions += runBlock(this.#machine, this.#code.find(at), 1e9)
      } else {
        do {
          instructions += runBlock(this.#machine, this.#code.find(at), 1e9)
        } while (Number(state.pc) === at)
      }
      mips = Math.max(mips, ((instructions - before) * 1000) / (nowNs() - start))
    }
  }

  /** The block that branches to itself in which most instructions are spent. */
  hottest(): Block {
    const { state } = this.#machine
    const spent = new Map<number, number>()
    state.pc = BigInt(BASE)
    state.sp = BigInt(BASE + BYTES - 16)
    state.setX(0, BigInt(this.#kernel))
    state.setX(1, 1n)
    state.setX(30, 0n)
    while (state.pc !== 0n) {
      const at = Number(state.pc)
      const done = runBlock(this.#machine, this.#code.find(at), 1e9)
      if (Number(state.pc) === at) spent.set(at, (spent.get(at) ?? 0) + done)
    }
    const [at] = [...spent].sort((a, b) => b[1] - a[1])[0]!
    return this.#code.find(at)
  }

  /** The hottest loop as a function, and its size. */
  translate(): { block: Block; loop: (iterations: number) => number; bytes: number } {
    const block = this.hottest()
    const module = lower(block)
    if (!module) throw new Error(`the loop of ${KERNELS[this.#kernel]} has no lowering`)
    return { block, loop: instantiate(module, this.#memory), bytes: module.length }
  }
}

/** One loop both ways: the same answers, and how fast. */
function rowOf(name: (typeof LOOPS)[number]): Row {
  const kernel = KERNELS.indexOf(name)
  const spike = new Spike(kernelImages()[0]!, kernel)
  const { block, loop, bytes } = spike.translate()
  const best = { translated: 0, evaluated: 0 }
  for (let i = 0; i < 5; i++) {
    const evaluated = spike.run(block.address)
    const translated = spike.run(block.address, loop)
    if (
      evaluated.result !== translated.result ||
      evaluated.instructions !== translated.instructions
    )
      throw new Error(
        `${name}: the translation gives ${translated.result}, the evaluator ${evaluated.result}`,
      )
    best.translated = Math.max(best.translated, translated.mips)
    best.evaluated = Math.max(best.evaluated, evaluated.mips)
  }
  return {
    id: `wasm-lowering ${name}`,
    what: `the inner loop of ${name}, ${block.words.length} instructions, ${block.ops.length} operations, as ${bytes} bytes of WebAssembly; baseline: the evaluator on the same loop`,
    value: best.translated,
    unit: 'MIPS',
    baseline: best.evaluated,
    ratio: best.translated / best.evaluated,
    target: null,
    targetOf: 'value',
    pass: true,
  }
}

export function wasmLoweringRows(): Row[] {
  return LOOPS.map(rowOf)
}

/** The answers of both ways after some rounds of a kernel, and the instructions that were translated. */
export function sameAnswer(
  name: (typeof LOOPS)[number],
  rounds: number,
): { evaluated: string; translated: string; instructions: number } {
  const spike = new Spike(kernelImages()[0]!, KERNELS.indexOf(name))
  const { block, loop } = spike.translate()
  const translated = spike.run(block.address, loop, rounds)
  return {
    evaluated: spike.run(block.address, undefined, rounds).result,
    translated: translated.result,
    instructions: translated.instructions,
  }
}
