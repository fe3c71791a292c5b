// Translation and its aborts, and debug exceptions, as qemu-system-aarch64 answered them: programs that draw regimes and
// accesses, or debug registers and instructions, print what each case ends in. `npm run diff:a64-system` runs more of
// them, and writes what is replayed here.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { patched, printed, type Run } from '../../../diff/a64-system/board.js'

const golden = resolve(import.meta.dirname, '../../golden/a64')

const RECORDED: readonly (readonly [string, string, Run])[] = [
  ['translation-cortex-a57', 'translation', { seed: 1, cases: 160, granules: [4, 64] }],
  ['translation-neoverse-n1', 'translation', { seed: 2, cases: 96, granules: [16] }],
  ['debug-cortex-a57', 'debug', { seed: 3, cases: 80, granules: [4] }],
]

describe('against qemu-system-aarch64', () => {
  it.each(RECORDED)('every case of %s ends as it did there', (file, program, run) => {
    const image = new Uint8Array(readFileSync(resolve(golden, `${program}.elf`)))
    const [head, ...lines] = readFileSync(resolve(golden, `${file}.txt`), 'utf8').split('\n')
    expect(head).toMatch(/^# QEMU emulator version \d+/)
    expect(printed(patched(image, run)).split('\n')).toEqual(lines)
    expect(lines.filter(line => /^[0-9a-f]+ (e[01]|pstate) /.test(line))).toHaveLength(run.cases)
  })
})
