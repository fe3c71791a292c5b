// The other implementation: qemu-aarch64 running our runner program, built by a cross compiler.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Case, fromRecords, type Outcome, toRecords } from './cases.js'

/** How to reach it: `QEMU_AARCH64` (a command, words separated by spaces) and `AARCH64_GCC` override the names. */
const command = () => (process.env['QEMU_AARCH64'] ?? 'qemu-aarch64').split(' ')
const compiler = () => process.env['AARCH64_GCC'] ?? 'aarch64-linux-gnu-gcc'

/** The runner program's source, beside this file or, when compiled, beside its original. */
function source(): string {
  const here = join(import.meta.dirname, 'runner.c')
  return existsSync(here) ? here : resolve(import.meta.dirname, '../../../../diff/a64/runner.c')
}

/** Processors it models for us: `undefined` cases run on one without anything after Armv8.0. */
export const PROCESSORS = { plain: 'cortex-a57', later: 'neoverse-n1' } as const

/** A built runner. */
export class QemuRunner {
  /** What `--version` says. */
  readonly version: string
  readonly #folder: string
  readonly #program: string

  constructor() {
    const [name, ...words] = command()
    this.version = execFileSync(name!, [...words, '--version'], { encoding: 'utf8' }).split(
      '\n',
    )[0]!
    this.#folder = mkdtempSync(join(tmpdir(), 'a64-'))
    this.#program = join(this.#folder, 'runner')
    const options = [
      '-O2',
      '-ffreestanding',
      '-nostdlib',
      '-static',
      '-Wl,-Ttext-segment=0x5500000000',
    ]
    execFileSync(compiler(), [...options, '-o', this.#program, source()], { stdio: 'pipe' })
  }

  /**
   * What each case does there. All must be of one kind: `undefined` ones or not. QEMU itself dies once in some thousand
   * runs on a busy machine; then the same cases are run again.
   */
  run(cases: readonly Case[]): Outcome[] {
    const input = toRecords(cases)
    for (let tries = 1; ; tries++) {
      const answer = this.#once(cases[0]?.group === 'undefined', input)
      if (answer.status === 0 && answer.stdout.length > 0) return fromRecords(cases, answer.stdout)
      const end = `${answer.status ?? answer.signal} ${answer.stderr}`.trim()
      if (tries === 3) throw new Error(`the runner ended three times, with ${end}`)
      console.error(`the runner ended with ${end}; the same cases again`)
    }
  }

  #once(isUndefined: boolean, input: Uint8Array) {
    const [name, ...words] = command()
    const processor = isUndefined ? PROCESSORS.plain : PROCESSORS.later
    const args = [...words, '-cpu', processor, this.#program]
    return spawnSync(name!, args, { input, maxBuffer: 1 << 28 })
  }

  close(): void {
    rmSync(this.#folder, { recursive: true })
  }
}
