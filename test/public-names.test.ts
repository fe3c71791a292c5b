import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '..')
const { exports } = JSON.parse(readFileSync(resolve(root, 'package.json'), 'utf8')) as {
  exports: Record<string, { types: string; default: string }>
}

describe('public surface', () => {
  it('has exactly these entries', () => {
    expect(Object.keys(exports)).toEqual([
      '.',
      './pci',
      './iommu',
      './vfio',
      './cpu',
      './uapi',
      './uapi-arm64',
      './testing',
      './device',
    ])
  })
  it.each(Object.entries(exports))(
    '%s exports the names that are pinned',
    async (entry, { default: path, types }) => {
      const source = path.replace('./dist/', 'src/').replace(/\.js$/, '.ts')
      expect(types).toBe(path.replace(/\.js$/, '.d.ts'))
      const names = Object.keys(await import(resolve(root, source))).sort()
      await expect(`${names.join('\n')}\n`).toMatchFileSnapshot(
        `golden/public-names/${entry.slice(2) || 'index'}.txt`,
      )
    },
  )
})
