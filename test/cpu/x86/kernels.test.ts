// C programs compiled by gcc at -O2 and -Os, run here and on a real processor. The images and their results are
// committed; UPDATE_GOLDEN=1 builds and runs them anew on an x86-64 host with gcc.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { SLOT } from '../../../src/cpu/x86/registers.js'
import { CODE, DATA, flatCore } from './support/flat.js'

interface Golden {
  readonly level: string
  readonly image: string
  readonly results: readonly string[]
}

const golden = new URL('../../golden/x86/kernels.json', import.meta.url)
const path = (name: string) => fileURLToPath(new URL(`./native/${name}`, import.meta.url))

function build(level: string): Golden {
  const folder = mkdtempSync(join(tmpdir(), 'x86-kernels-'))
  const [elf, flat, native] = ['a.elf', 'a.bin', 'native'].map(n => join(folder, n)) as [
    string,
    string,
    string,
  ]
  const options = [
    '-mgeneral-regs-only',
    '-mno-red-zone',
    '-ffreestanding',
    '-fno-pic',
    '-fno-stack-protector',
    '-fcf-protection=none',
  ]
  const link = [
    '-no-pie',
    '-nostdlib',
    '-static',
    '-Wl,--build-id=none',
    '-Wl,-T',
    path('kernels.ld'),
  ]
  execFileSync('gcc', [level, '-mpopcnt', ...options, ...link, '-o', elf, path('kernels.c')], {
    stdio: 'pipe',
  })
  execFileSync('objcopy', [
    '-O',
    'binary',
    '--set-section-flags',
    '.image=alloc,load,contents',
    elf,
    flat,
  ])
  execFileSync('gcc', [
    level,
    '-mpopcnt',
    '-DNATIVE',
    '-fno-builtin-printf',
    '-o',
    native,
    path('kernels.c'),
  ])
  const results = execFileSync(native, { encoding: 'utf8' }).trim().split('\n')
  const image = readFileSync(flat).toString('base64')
  rmSync(folder, { recursive: true })
  return { level, image, results }
}

if (process.env['UPDATE_GOLDEN'])
  writeFileSync(golden, `${JSON.stringify(['-O2', '-Os'].map(build), undefined, 1)}\n`)

const programs = JSON.parse(readFileSync(golden, 'utf8')) as Golden[]

describe.each(programs)('gcc $level', ({ image, results }) => {
  it.each(results.map((want, n) => [n, want] as const))('kernel %i gives %s', (n, want) => {
    const { core, state, code } = flatCore()
    code.set(Buffer.from(image, 'base64'))
    state.rip = BigInt(CODE)
    state.r64[SLOT.RDI] = BigInt(n)
    state.r64[SLOT.RSP] = BigInt(DATA + 0x3ff8)
    expect(core.run(2_000_000)).toEqual({ kind: 'hlt' })
    expect(state.r64[SLOT.RAX]!.toString(16).padStart(16, '0')).toBe(want)
  })
})
