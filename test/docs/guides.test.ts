import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it, vi } from 'vitest'

const guides = resolve(import.meta.dirname, '../../docs/guides')
const read = (file: string) => readFileSync(resolve(guides, file), 'utf8')

/** What a program prints when it is run. */
async function outputOf(example: string): Promise<string> {
  const lines: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation(line => void lines.push(String(line)))
  try {
    await import(resolve(guides, example))
  } finally {
    log.mockRestore()
  }
  return lines.join('\n')
}

describe.each([
  'first-passthrough',
  'writing-a-device',
  'pasid',
  'sva-on-smmuv3',
  'reading-a-fault',
  'record-replay',
  'sev',
  'private-memory',
  'guest-tests',
])('guide %s', name => {
  const text = read(`${name}.md`)
  const block = (language: string) =>
    new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(text)?.[1]

  it('shows the program that is run', () => {
    expect(block('ts')).toBe(read(`examples/${name}.ts`))
  })
  it('says what the program prints', async () => {
    expect(block('text')?.trimEnd()).toBe(await outputOf(`examples/${name}.ts`))
  })
})

it('the README shows the program that is run, and what it prints', async () => {
  const readme = readFileSync(resolve(guides, '../../README.md'), 'utf8')
  const program = /```ts\n([\s\S]*?)```/.exec(readme)![1]!
  expect(program).toBe(read('examples/readme.ts'))
  expect(await outputOf('examples/readme.ts')).toBe(/console\.log\(.*\/\/ (.*)$/m.exec(program)![1])
})
