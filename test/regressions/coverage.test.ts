// Every edge case of the documented list, E01 to E170, has a test with its id in the name.
import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'

const tests = resolve(import.meta.dirname, '..')
const named = new Set(
  readdirSync(tests, { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.test.ts') && !file.endsWith('coverage.test.ts'))
    .flatMap(file => {
      const code = readFileSync(resolve(tests, file), 'utf8').replace(/^\s*(\/\/|\*|\/\*).*$/gm, '')
      // Strings that begin like the name of a test or of a row of one.
      return [...code.matchAll(/['"`]((?:V7R? |.{0,60}\()?E\d{2,3}\b[^'"`\n]*)/g)].flatMap(m =>
        [...m[1]!.matchAll(/\bE\d{2,3}\b/g)].map(id => id[0]),
      )
    }),
)
const ids = Array.from({ length: 170 }, (_, i) => `E${String(i + 1).padStart(2, '0')}`)

it('names every id in a test', () => {
  expect(ids.filter(id => !named.has(id))).toEqual([])
})
it('names no id that the list does not have', () => {
  expect([...named].filter(id => !ids.includes(id))).toEqual([])
})
