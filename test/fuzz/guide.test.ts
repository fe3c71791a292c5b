// docs/guides/fuzzing.md shows what the tools say.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { modelSubject } from '../../fuzz/subjects.js'

const guide = resolve(import.meta.dirname, '../../docs/guides/fuzzing.md')

it('the guide shows the report of the command above it', () => {
  const text = readFileSync(guide, 'utf8')
  const shown = /```text\n(seed 1: [\s\S]*?)\n```/.exec(text)?.[1]
  expect(shown).toBe(modelSubject({ commands: 120, profile: 'V7' }).run(1).failure?.report)
})
