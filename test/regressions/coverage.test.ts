// Every edge case of the documented list, E01 to E170, has a test with its id in the name; on SMMUv3 those
// that smmuv3-ids.ts gives a meaning there.
import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { idOf, idsOf, NOT_SMMUV3, SMMUV3_CASES } from './smmuv3-ids.js'

const tests = resolve(import.meta.dirname, '..')
// In gdb's protocol E01 is a reply.
const files = readdirSync(tests, { recursive: true, encoding: 'utf8' }).filter(
  file => file.endsWith('.test.ts') && !/coverage\.test|vmm.gdb/.test(file),
)
/** Ids in strings of a file that begin like the name of a test or of a row of one. */
const namesIn = (file: string): string[] => {
  const code = readFileSync(resolve(tests, file), 'utf8').replace(/^\s*(\/\/|\*|\/\*).*$/gm, '')
  return [...code.matchAll(/['"`]((?:V7R? |.{0,60}\()?E\d{2,3}\b[^'"`\n]*)/g)].flatMap(m =>
    [...m[1]!.matchAll(/\bE\d{2,3}\b/g)].map(id => id[0]),
  )
}
const SMMUV3 = 'regressions/smmuv3.test.ts'
const named = new Set(files.filter(file => file !== SMMUV3).flatMap(namesIn))
const ids = Array.from({ length: 170 }, (_, i) => idOf(i + 1))

it('names every id in a test', () => {
  expect(ids.filter(id => !named.has(id))).toEqual([])
})
it('names no id that the list does not have', () => {
  expect([...named].filter(id => !ids.includes(id))).toEqual([])
})
it('on SMMUv3 every id has a meaning or a reason why not, once', () => {
  expect([...idsOf(SMMUV3_CASES), ...idsOf(NOT_SMMUV3)].sort()).toEqual([...ids].sort())
})
it('on SMMUv3 the ids with a meaning are those that tests name', () => {
  expect(files).toContain(SMMUV3)
  expect([...new Set(namesIn(SMMUV3))].sort()).toEqual(idsOf(SMMUV3_CASES).sort())
})
