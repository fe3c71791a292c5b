// Every edge case of the documented list has a test with its id in the name. What has none is listed with the
// reason; the list can only shrink.
import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'

const IOMMUFD = 'iommufd comes with its own calls'

// biome-ignore format: table
const missing: Readonly<Record<string, string>> = {
  E140: IOMMUFD, E141: IOMMUFD, E142: IOMMUFD, E143: IOMMUFD, E144: IOMMUFD, E145: IOMMUFD, E146: IOMMUFD, E147: IOMMUFD,
  E148: IOMMUFD, E149: IOMMUFD, E150: IOMMUFD, E151: IOMMUFD, E152: IOMMUFD, E153: IOMMUFD, E154: IOMMUFD, E155: IOMMUFD,
}

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

it('names every id from E01 to E170 in a test, but those that are listed', () => {
  expect(ids.filter(id => !named.has(id) && !(id in missing))).toEqual([])
})
it('lists 16 ids at most', () => {
  expect(Object.keys(missing).length).toBeLessThanOrEqual(16)
})
it('names no id that the list does not have', () => {
  expect([...named].filter(id => !ids.includes(id))).toEqual([])
})
