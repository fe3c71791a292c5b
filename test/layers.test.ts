import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const src = resolve(import.meta.dirname, '../src')
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(f => f.endsWith('.ts'))

// biome-ignore format: table
const mayImport: Record<string, readonly string[]> = {
  base:    [],
  mem:     ['base'],
  sys:     ['base', 'mem'],
  paging:  ['base', 'mem'],
  pci:     ['base', 'mem'],
  iommu:   ['base', 'mem', 'paging', 'pci'],
  history: ['base', 'mem', 'sys'],
  explain: ['base', 'mem', 'paging', 'pci', 'iommu'],
  cpu:     ['base', 'mem', 'sys', 'paging'],
  vfio:    ['base', 'mem', 'sys', 'pci', 'iommu'],
  vmm:     ['base', 'mem', 'sys', 'paging', 'pci', 'iommu', 'vfio/uapi', 'cpu/kvm/uapi'],
}

const importsOf = (file: string): string[] =>
  [...readFileSync(join(src, file), 'utf8').matchAll(/(?:from|import\(?)\s*'([^']+)'/g)].map(
    m => m[1]!,
  )

describe('layers', () => {
  const roomed = files.filter(f => f.split('/')[0]! in mayImport)

  it.each(roomed)('%s imports only what lies beneath it', file => {
    const room = file.split('/')[0]!
    for (const path of importsOf(file)) {
      if (!path.startsWith('.')) continue
      const to = relative(src, resolve(dirname(join(src, file)), path))
      const allowed = [room, ...mayImport[room]!].some(
        r => to === `${r}.js` || to.startsWith(`${r}/`),
      )
      expect(allowed, `${file} -> ${to}`).toBe(true)
    }
  })

  it.each(roomed)('%s runs in a browser: no node: import, no wall clock, no chance', file => {
    for (const path of importsOf(file)) expect(path).not.toMatch(/^node:/)
    const code = readFileSync(join(src, file), 'utf8').replace(/\/\/.*|\/\*[\s\S]*?\*\//g, '')
    expect(code).not.toMatch(/Date\.now|performance\.now|Math\.random|\bBuffer\b|process\.env/)
  })

  it('only base/events.ts knows the event packages', () => {
    const users = files.filter(f => importsOf(f).some(p => /^(mitt|typed-emitter|events)$/.test(p)))
    expect(users).toEqual(['base/events.ts'])
  })
})
