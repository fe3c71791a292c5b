// Compares the evaluator with the host's processor on random instructions; native.test.ts drives it.
// Needs gcc on an x86-64 host; says so by returning undefined.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type Case,
  caseRunner,
  differences,
  fromRecords,
  type Outcome,
  toRecords,
} from '../support/cases.js'
import { COMPARABLE, drawCase } from '../support/generate.js'
import { Random } from '../support/random.js'

/** A processor that runs batches of cases. */
export interface NativeRunner {
  run(cases: readonly Case[]): Outcome[]
  close(): void
}

/** Builds the runner, or answers undefined where it cannot be built or run. */
export function buildNativeRunner(): NativeRunner | undefined {
  if (process.arch !== 'x64' || process.platform !== 'linux') return undefined
  const folder = mkdtempSync(join(tmpdir(), 'x86-runner-'))
  const close = () => rmSync(folder, { recursive: true, force: true })
  const program = join(folder, 'runner')
  const source = fileURLToPath(new URL('./runner.c', import.meta.url))
  try {
    execFileSync('gcc', ['-O1', '-no-pie', '-o', program, source], { stdio: 'pipe' })
    execFileSync(program, { input: '' })
  } catch {
    close()
    return undefined
  }
  const run = (cases: readonly Case[]) =>
    fromRecords(execFileSync(program, { input: toRecords(cases), maxBuffer: 1 << 30 }))
  return { run, close }
}

/** Draws `count` cases from a seed, the encodings taking turns. */
export function drawCases(seed: number, count: number): Case[] {
  const random = new Random(seed)
  const cases: Case[] = []
  for (let i = 0; cases.length < count; i++) {
    const c = drawCase(COMPARABLE[i % COMPARABLE.length]!, random)
    if (c) cases.push(c)
  }
  return cases
}

const hex = (bytes: Uint8Array) => Array.from(bytes, b => b.toString(16).padStart(2, '0')).join(' ')

/** Runs cases on both and describes every difference. */
export function compare(native: NativeRunner, cases: readonly Case[]): string[] {
  const run = caseRunner()
  const theirs = native.run(cases)
  const found: string[] = []
  cases.forEach((c, i) => {
    const text = differences(c, run(c), theirs[i]!)
    if (text) found.push(`${c.name} [${hex(c.code)}] ${text}`)
  })
  return found
}
