// Instruction cases that a real processor ran once, replayed. UPDATE_GOLDEN=1 records them anew on an x86-64 host
// with gcc; the lines are name, code, flags, undefined flags, window seed, then flags, length, window hash, fault,
// registers before, registers that changed.

import { readFileSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { buildNativeRunner, drawCases } from './native/diff.js'
import { caseRunner, differences, fromLine, toLine } from './support/cases.js'

const golden = new URL('../../golden/x86/instructions.txt', import.meta.url)

if (process.env['UPDATE_GOLDEN']) {
  const native = buildNativeRunner()
  if (native) {
    const cases = drawCases(1, 3000)
    const outcomes = native.run(cases)
    const lines = cases.map((c, i) => toLine(c, outcomes[i]!))
    writeFileSync(golden, `${lines.join('\n')}\n`)
    native.close()
  }
}

const lines = readFileSync(golden, 'utf8').trimEnd().split('\n')

it(`does with ${lines.length} recorded instructions what a processor did`, () => {
  const run = caseRunner()
  const found = lines.flatMap(line => {
    const { c, o } = fromLine(line)
    const text = differences(c, run(c), o)
    return text ? [`${line.split(' ', 2).join(' ')}: ${text}`] : []
  })
  expect(lines.length).toBeGreaterThan(2000)
  expect(found).toEqual([])
})
