// The programs of kernels.c: built and run elsewhere by a cross compiler and qemu-aarch64, kept as images with their
// results, and run here on a flat machine.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ABORT, EC } from '../../src/cpu/a64/registers.js'
import { FlatMachine, FlatRegion } from './flat.js'

/** Names of the kernels, by number. */
// biome-ignore format: table
export const KERNELS = ['crc', 'sieve', 'copy', 'hash', 'sort', 'fib', 'division', 'wide', 'bits', 'atomics', 'matrix', 'mandelbrot', 'roots', 'lanes', 'conversions'] as const

/** One build. */
export interface KernelImage {
  /** Options of the compiler. */
  readonly options: string
  /** Who compiled and who ran it. */
  readonly tools: string
  /** Bytes from `IMAGE_BASE`, base64. */
  readonly image: string
  /** What each kernel gives for one round, hexadecimal. */
  readonly results: readonly string[]
}

export const IMAGE_BASE = 0x2000_0000
const IMAGE_BYTES = 0x4_0000

/** Builds the kernels with some options and has them run. */
export function buildKernels(folderOfSources: string, options: string): KernelImage {
  const gcc = process.env['AARCH64_GCC'] ?? 'aarch64-linux-gnu-gcc'
  const [qemu, ...words] = (process.env['QEMU_AARCH64'] ?? 'qemu-aarch64').split(' ')
  const folder = mkdtempSync(join(tmpdir(), 'a64-kernels-'))
  const [elf, flat, native] = ['elf', 'flat', 'native'].map(n => join(folder, n)) as [
    string,
    string,
    string,
  ]
  const source = join(folderOfSources, 'kernels.c')
  const common = [
    ...options.split(' '),
    '-ffreestanding',
    '-fno-pic',
    '-fno-stack-protector',
    '-nostdlib',
    '-static',
  ]
  const quiet = [
    '-fno-builtin',
    '-fno-math-errno',
    '-mno-outline-atomics',
    '-Wl,--build-id=none',
    '-Wl,--no-warn-rwx-segments',
  ]
  execFileSync(
    gcc,
    [
      ...common,
      ...quiet,
      '-Wl,-T',
      join(folderOfSources, 'kernels.ld'),
      '-Wl,-e,kernel',
      '-o',
      elf,
      source,
    ],
    { stdio: 'pipe' },
  )
  const copy = ['-O', 'binary', '--set-section-flags', '.image=alloc,load,contents', elf, flat]
  execFileSync(gcc.replace(/gcc$/, 'objcopy'), copy)
  execFileSync(gcc, [...common, ...quiet, '-DLINUX', '-o', native, source], { stdio: 'pipe' })
  const out = execFileSync(qemu!, [...words, '-cpu', 'neoverse-n1', native])
  const results: string[] = []
  for (let at = 0; at < out.length; at += 8) results.push(out.readBigUInt64LE(at).toString(16))
  const version = (program: string, ...more: string[]) =>
    execFileSync(program, [...more, '--version'], { encoding: 'utf8' }).split('\n')[0]!
  const image = readFileSync(flat)
    .toString('base64')
    .replace(/(A{4})+$/, '')
  const tools = `${version(gcc)}; ${version(qemu!, ...words)}`
  rmSync(folder, { recursive: true })
  return { options, tools, image, results }
}

/** A machine with an image in it. */
export class KernelMachine {
  readonly machine: FlatMachine
  readonly #region = new FlatRegion(IMAGE_BASE, IMAGE_BYTES)

  constructor(k: KernelImage) {
    this.#region.bytes.set(Buffer.from(k.image, 'base64'))
    this.machine = new FlatMachine([this.#region])
  }

  /** Calls kernel `n`; its result and the instructions it took. */
  run(n: number, rounds = 1): { result: string; instructions: number } {
    const { state } = this.machine
    const end = 0n
    state.pc = BigInt(IMAGE_BASE)
    state.sp = BigInt(IMAGE_BASE + IMAGE_BYTES - 16)
    state.setX(0, BigInt(n))
    state.setX(1, BigInt(rounds))
    state.setX(30, end)
    const instructions = this.machine.run(1e9)
    if (
      state.abort !== ABORT.EXCEPTION ||
      state.ec !== EC.INSTRUCTION_ABORT_LOWER ||
      state.pc !== end
    )
      throw new Error(
        `kernel ${KERNELS[n]} stopped at ${state.pc.toString(16)} with class ${state.ec}`,
      )
    return { result: state.x(0).toString(16), instructions }
  }
}
