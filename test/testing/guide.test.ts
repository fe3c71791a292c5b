import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'

const read = (path: string) => readFileSync(resolve(import.meta.dirname, path), 'utf8')

it('the guide shows the regression that is run', () => {
  const blocks = [...read('../../docs/guides/pasid.md').matchAll(/```ts\n([\s\S]*?)```/g)]
  expect(blocks[1]![1]).toBe(read('example.test.ts'))
})
