// The lowering spike of bench/: a loop as WebAssembly does what the evaluator does.

import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { sameAnswer } from '../../../bench/wasm-lowering.js'
import { KERNELS, type KernelImage } from '../../../diff/a64/kernels.js'

const images = JSON.parse(
  readFileSync(new URL('../../golden/a64/kernels.json', import.meta.url), 'utf8'),
) as KernelImage[]

it.each(['crc', 'copy', 'hash'] as const)(
  'the inner loop of %s gives the same answer translated',
  name => {
    const { evaluated, translated, instructions } = sameAnswer(name, 1)
    expect(translated).toBe(evaluated)
    expect(translated).toBe(images[0]!.results[KERNELS.indexOf(name)])
    expect(instructions).toBeGreaterThan(10_000)
  },
)
