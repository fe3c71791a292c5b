// Every register bank of the project against its own access column: what software writes, what it reads back.
import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Bank, bankInfo, type Field, type Register } from '../src/base/fields.js'
import { RegisterFile } from '../src/base/registers.js'

const src = resolve(import.meta.dirname, '../src')
const rooms = ['pci', 'iommu', 'cpu']
const files = rooms.flatMap(room =>
  readdirSync(join(src, room), { recursive: true, encoding: 'utf8' })
    .filter(f => f.endsWith('.ts') && !f.endsWith('.d.ts'))
    .map(f => join(src, room, f)),
)

const isBank = (v: unknown): v is Bank =>
  typeof v === 'object' && v !== null && bankInfo(v as Bank) !== undefined

const banks = new Map<string, Bank>()
for (const file of files)
  for (const value of Object.values((await import(file)) as Record<string, unknown>))
    for (const v of [value, (value as { bar0?: unknown } | null)?.bar0])
      if (isBank(v)) banks.set(bankInfo(v).name, v)

/** Bits of a register by access. */
function masks(r: Register): Record<string, bigint> {
  const out: Record<string, bigint> = { rw: 0n, ro: 0n, wo: 0n, rw1c: 0n, rw1s: 0n, hwinit: 0n }
  for (const f of Object.values<Field>(r.fields))
    out[f.access]! |= ((1n << BigInt(f.hi - f.lo + 1)) - 1n) << BigInt(f.lo)
  return out
}

it('finds the banks of the units and devices', () => {
  for (const name of ['VT-d', 'sva-engine', 'dma-copy']) expect([...banks.keys()]).toContain(name)
})

describe.each([...banks])('%s', (_, bank) => {
  it.each(Object.entries<Register>(bank))('%s obeys its access column', (__, r) => {
    const all = (1n << BigInt(8 * r.size)) - 1n
    const { rw, wo, rw1c, rw1s } = masks(r) as {
      rw: bigint
      wo: bigint
      rw1c: bigint
      rw1s: bigint
    }
    const file = new RegisterFile(bank)
    const fixed = r.reset & ~rw & ~rw1c & ~rw1s & ~wo
    expect(file.read(r.offset, r.size)).toBe(r.reset & ~wo)
    file.write(r.offset, r.size, all)
    expect(file.read(r.offset, r.size)).toBe(rw | rw1s | fixed)
    file.write(r.offset, r.size, 0n)
    expect(file.read(r.offset, r.size)).toBe(rw1s | fixed)
    file.reset()
    if (r.size < 4 || r.offset % 4) return
    for (let i = 0; i < r.size; i += 4) file.write32(r.offset + i, 0xffff_ffff)
    expect(file.read(r.offset, r.size)).toBe(rw | rw1s | fixed)
  })
  it.each(Object.entries<Register>(bank))(
    '%s is described: section, and a meaning for each field',
    (__, r) => {
      expect(r.spec).not.toBe('')
      for (const [name, f] of Object.entries<Field>(r.fields))
        expect(f.doc || f.values, name).toBeTruthy()
    },
  )
})
