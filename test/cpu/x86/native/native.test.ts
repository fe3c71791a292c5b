// The outsider: this host's processor. Skips itself by having no cases where there is no compiler; the golden
// selection (golden.test.ts) runs everywhere.

import { afterAll, expect, it } from 'vitest'
import { buildNativeRunner, compare, drawCases } from './diff.js'

const SEED = Number(process.env['X86_DIFF_SEED'] ?? 20)
const COUNT = Number(process.env['X86_DIFF_COUNT'] ?? 6000)

const native = buildNativeRunner()
afterAll(() => native?.close())

it(`agrees with the host's processor on ${COUNT} random instructions, seed ${SEED}`, () => {
  const found = native ? compare(native, drawCases(SEED, COUNT)) : []
  expect(found.slice(0, 40)).toEqual([])
}, 120_000)
