// C programs of floating point and SIMD as gcc compiles them at -O2 and -O3, run here and by qemu-aarch64. Images and
// results are committed; UPDATE_GOLDEN=1 builds and runs them anew where there are aarch64-linux-gnu-gcc and QEMU.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { FlatMachine, FlatRegion } from '../../../diff/a64/flat.js'
import { ABORT, EC } from '../../../src/cpu/a64/registers.js'

interface Golden {
  readonly level: string
  readonly tools: string
  readonly image: string
  readonly results: readonly string[]
}

const IMAGE = 0x1000_0000
const SIZE = 0x1_0000

const golden = new URL('../../golden/a64/fp-kernels.json', import.meta.url)
const path = (name: string) => fileURLToPath(new URL(`./native/${name}`, import.meta.url))

const text = (command: string, args: readonly string[]) =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

function build(level: string): Golden {
  const folder = mkdtempSync(join(tmpdir(), 'a64-kernels-'))
  const [elf, flat, native] = ['a.elf', 'a.bin', 'native'].map(n => join(folder, n)) as [
    string,
    string,
    string,
  ]
  const options = [level, '-ffreestanding', '-fno-pic', '-fno-stack-protector', '-fno-math-errno']
  const link = ['-nostdlib', '-static', '-Wl,--build-id=none', '-Wl,--no-warn-rwx-segments']
  const gcc = 'aarch64-linux-gnu-gcc'
  text(gcc, [...options, ...link, '-Wl,-T', path('kernels.ld'), '-o', elf, path('kernels.c')])
  const section = '.image=alloc,load,contents'
  text('aarch64-linux-gnu-objcopy', ['-O', 'binary', '--set-section-flags', section, elf, flat])
  text(gcc, [...options, '-DNATIVE', ...link, '-o', native, path('kernels.c')])
  const results = text('qemu-aarch64', [native]).trimEnd().split('\n')
  const version = (name: string) => text(name, ['--version']).split('\n')[0]!
  const image = readFileSync(flat).toString('base64')
  rmSync(folder, { recursive: true })
  return { level, tools: `${version(gcc)}; ${version('qemu-aarch64')}`, image, results }
}

if (process.env['UPDATE_GOLDEN']) {
  try {
    writeFileSync(golden, `${JSON.stringify(['-O2', '-O3'].map(build), null, 1)}\n`)
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'ENOENT') throw e
  }
}

const NAMES = [
  'a product of matrices',
  'a Fourier transform',
  'strlen and memcpy, sixteen bytes at a time',
  'digits of doubles and back',
  'sums of products',
  'saturating arithmetic',
  'Mandelbrot iterations',
  'exponentials and roots',
  'interleaved pixels and permutations',
  'sorted doubles and conversions',
]

describe.each(JSON.parse(readFileSync(golden, 'utf8')) as Golden[])(
  'compiled with $level',
  ({ image, results }) => {
    it.each(results.map((result, n) => [NAMES[n]!, n, result] as const))('%s', (_, n, result) => {
      const region = new FlatRegion(IMAGE, SIZE)
      region.bytes.set(Buffer.from(image, 'base64'))
      const m = new FlatMachine([region])
      m.state.pc = BigInt(IMAGE)
      m.state.sp = BigInt(IMAGE + SIZE)
      m.state.setX(0, BigInt(n))
      m.run(10_000_000)
      expect({ abort: m.state.abort, ec: m.state.ec }).toEqual({
        abort: ABORT.EXCEPTION,
        ec: EC.BRK,
      })
      expect(m.state.x(0).toString(16).padStart(16, '0')).toBe(result)
    })
  },
)
