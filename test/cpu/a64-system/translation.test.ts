// Translation, permissions, alignment and aborts as qemu-system-aarch64 answered them: a program that draws regimes and
// accesses prints what each ends in. `npm run diff:a64-system` runs more of it, and writes what is replayed here.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { patched, printed, type Run } from '../../../diff/a64-system/board.js'

const golden = resolve(import.meta.dirname, '../../golden/a64')
const image = new Uint8Array(readFileSync(resolve(golden, 'translation.elf')))

const RECORDED: readonly (readonly [string, Run])[] = [
  ['translation-cortex-a57', { seed: 1, cases: 240, granules: [4, 64] }],
  ['translation-neoverse-n1', { seed: 2, cases: 160, granules: [16] }],
]

describe('against qemu-system-aarch64', () => {
  it.each(RECORDED)('every case of %s ends as it did there', (file, run) => {
    const [head, ...lines] = readFileSync(resolve(golden, `${file}.txt`), 'utf8').split('\n')
    expect(head).toMatch(/^# QEMU emulator version \d+/)
    expect(printed(patched(image, run)).split('\n')).toEqual(lines)
    expect(lines.filter(line => /^[0-9a-f]+ e[01] /.test(line))).toHaveLength(run.cases)
  })
})
