// docs/registers is what the register tables say. `npm run docs:registers` writes it anew.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, it } from 'vitest'
import { type Bank, bankInfo } from '../../src/base/fields.js'
import { systemRegisterPage } from '../../src/cpu/a64/register-page.js'
import { pageName, registerIndex, registerPage } from '../../src/explain/register-page.js'
import { vtdBank } from '../../src/iommu/vtd/registers.js'

const src = resolve(import.meta.dirname, '../../src')
const docs = resolve(import.meta.dirname, '../../docs/registers')
const rooms = ['pci', 'iommu', 'cpu']

const isBank = (v: unknown): v is Bank =>
  typeof v === 'object' && v !== null && bankInfo(v as Bank) !== undefined

/** The banks that modules export; of VT-d the whole one, with a fault record and the virtual command registers. */
async function findBanks(): Promise<Map<string, Bank>> {
  const found = new Map<string, Bank>()
  for (const room of rooms)
    for (const file of readdirSync(join(src, room), { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts')) continue
      const exported = (await import(join(src, room, file))) as Record<string, unknown>
      for (const value of Object.values(exported))
        for (const v of [value, (value as { bar0?: unknown } | null)?.bar0])
          if (isBank(v) && Object.keys(v).length > 0) found.set(pageName(v), v)
    }
  found.set(
    'vt-d',
    vtdBank({
      faultRecords: 1,
      virtualCommand: true,
      edition: '3.3',
      protectedLowMemory: true,
      protectedHighMemory: true,
    }),
  )
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)))
}

const banks = await findBanks()

const pages = new Map([...banks].map(([file, bank]) => [`${file}.md`, registerPage(bank)] as const))
pages.set('a64-system-registers.md', systemRegisterPage())
pages.set(
  'README.md',
  `${registerIndex(banks)}\nThose of an A64 core, by name instead of address: [A64 system registers](a64-system-registers.md).\n`,
)

if (process.env['UPDATE_GOLDEN']) {
  rmSync(docs, { recursive: true, force: true })
  mkdirSync(docs)
  for (const [file, text] of pages) writeFileSync(join(docs, file), text)
}

it.each([...pages])('%s says what the tables say', (file, text) => {
  expect(readFileSync(join(docs, file), 'utf8')).toBe(text)
})

it('there is no page of a bank that is gone', () => {
  expect(readdirSync(docs).sort()).toEqual([...pages.keys()].sort())
})
