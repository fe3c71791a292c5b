// Translation and its aborts, and debug exceptions, as qemu-system-aarch64 answered them: programs that draw regimes and
// accesses, or debug registers and instructions, print what each case ends in. `npm run diff:a64-system` runs more of
// them, and writes what is replayed here.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { patched, printed, type Run } from '../../../diff/a64-system/board.js'
import { isLong, often } from '../../support/long.js'

const golden = resolve(import.meta.dirname, '../../golden/a64')

const RECORDED: readonly (readonly [string, string, Run])[] = [
  ['translation-cortex-a57', 'translation', { seed: 1, cases: often(80, 160), granules: [4, 64] }],
  ['translation-neoverse-n1', 'translation', { seed: 2, cases: often(48, 96), granules: [16] }],
  ['debug-cortex-a57', 'debug', { seed: 3, cases: often(30, 80), granules: [4] }],
]

/** A line that tells of a case begins with its number. */
const isCase = (line: string) => /^[0-9a-f]+ (e[01]|pstate) /.test(line)

describe('against qemu-system-aarch64', () => {
  it.each(RECORDED)('%s: every case ends as it did there', (file, program, run) => {
    const image = new Uint8Array(readFileSync(resolve(golden, `${program}.elf`)))
    const [head, ...lines] = readFileSync(resolve(golden, `${file}.txt`), 'utf8').split('\n')
    expect(head).toMatch(/^# QEMU emulator version \d+/)
    const ours = printed(patched(image, run)).split('\n')
    expect(ours.filter(isCase)).toHaveLength(run.cases)
    expect(ours.slice(-2)).toEqual(['end', ''])
    expect(ours.slice(0, -2)).toEqual(lines.slice(0, ours.length - 2))
  })

  it.runIf(isLong)(
    'every encoding of a system register is there, UNDEFINED or trapped as it is there',
    () => {
      const image = new Uint8Array(readFileSync(resolve(golden, 'registers.elf')))
      const [, ...lines] = readFileSync(resolve(golden, 'registers-cortex-a57.txt'), 'utf8').split(
        '\n',
      )
      const ours = printed(patched(image, { seed: 1, cases: 1, granules: [4] }))
      expect(ours.split('\n')).toEqual(lines)
      expect(lines.length).toBeGreaterThan(100)
    },
  )
})
