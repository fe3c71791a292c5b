// Instruction cases that qemu-aarch64 ran once, replayed. The first line says which version answered and how to record
// them anew; a line is words, slot, seed, changes to the state, then signal, PC, window hash and what changed.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { caseRunner, differences, fromLine, toLine } from '../../../diff/a64/cases.js'
import { coreSubject, flatSubject } from '../../../diff/a64/subjects.js'
import { disassemble } from '../../../src/cpu/a64/disassemble.js'

const golden = new URL('../../golden/a64/instructions.txt', import.meta.url)
const lines = readFileSync(golden, 'utf8').trimEnd().split('\n').slice(1)

const subjects = [
  ['a flat machine', flatSubject],
  ['the core at EL0 with translation on', coreSubject],
] as const

describe('recorded instructions', () => {
  it.each(subjects)(`do on %s what qemu-aarch64 did, ${lines.length} cases`, (_name, subject) => {
    const run = caseRunner(subject())
    const found = lines.flatMap(line => {
      const { c, o } = fromLine(line)
      const text = differences(run(c), o)
      return text ? [`${c.words.map(w => disassemble(w)).join('; ')}: ${text}`] : []
    })
    expect(lines.length).toBeGreaterThan(3000)
    expect(found).toEqual([])
  })

  it('are read and written alike', () => {
    for (const line of lines.slice(0, 100)) {
      const { c, o } = fromLine(line)
      expect(toLine(c, o)).toBe(line)
    }
  })
})
