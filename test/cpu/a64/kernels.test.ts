// C programs compiled by gcc at several levels, run here and by qemu-aarch64. The images and their results are
// committed; UPDATE_GOLDEN=1 builds and runs them anew where a cross compiler and QEMU are installed.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import {
  buildKernels,
  KERNELS,
  type KernelImage,
  KernelMachine,
} from '../../../diff/a64/kernels.js'

const golden = new URL('../../golden/a64/kernels.json', import.meta.url)

const BUILDS = [
  '-O2 -mgeneral-regs-only -march=armv8-a',
  '-Os -march=armv8-a+lse',
  '-O3 -march=armv8-a+crc -ffast-math',
]

if (process.env['UPDATE_GOLDEN']) {
  const sources = fileURLToPath(new URL('../../../diff/a64/', import.meta.url))
  const built = BUILDS.map(options => buildKernels(sources, options))
  writeFileSync(golden, `${JSON.stringify(built, undefined, 1)}\n`)
}

const images = JSON.parse(readFileSync(golden, 'utf8')) as KernelImage[]

describe.each(images)('gcc $options', image => {
  const machine = new KernelMachine(image)
  it.each(image.results.map((want, n) => [KERNELS[n], n, want] as const))(
    '%s',
    (_name, n, want) => {
      expect(machine.run(n).result).toBe(want)
    },
  )
})
