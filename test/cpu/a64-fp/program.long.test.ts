// A statically linked C library's own floating point and string functions, run here and by qemu-aarch64: the same
// output byte for byte. Does nothing where there is no cross compiler or no QEMU.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'
import { runProgram } from '../../../diff/a64/program.js'
import { often } from '../../support/long.js'

const ROUNDS = often(1, 60)

const gcc = process.env['AARCH64_GCC'] ?? 'aarch64-linux-gnu-gcc'
const [qemu, ...words] = (process.env['QEMU_AARCH64'] ?? 'qemu-aarch64').split(' ')
const source = fileURLToPath(new URL('../../../diff/a64/programs/libc.c', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'a64-program-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The program, or undefined where it cannot be built. */
function build(): string | undefined {
  const file = join(folder, 'program')
  try {
    execFileSync(gcc, ['-O2', '-static', '-o', file, source, '-lm'], { stdio: 'pipe' })
    execFileSync(qemu!, [...words, '--version'], { stdio: 'pipe' })
    return file
  } catch {
    return undefined
  }
}

it(`prints what QEMU prints of numbers, functions and strings, ${ROUNDS} rounds`, () => {
  const file = build()
  if (file === undefined) return
  const arg = String(ROUNDS)
  const theirs = spawnSync(qemu!, [...words, '-cpu', 'cortex-a57', file, arg])
  const ours = runProgram(readFileSync(file), [file, arg], 1_000_000_000)
  expect(ours.trouble).toBe('')
  expect(Buffer.from(ours.output).toString()).toBe(theirs.stdout.toString())
  expect(ours.status).toBe(theirs.status)
  expect(theirs.status).toBe(7)
}, 240_000)
