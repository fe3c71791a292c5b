// The C compiler reads our structures. Its answers are kept in test/golden/abi, one file an edition, so the
// suite runs without one. Regenerate: UPDATE_GOLDEN=1 [LINUX_HEADERS=<dir with linux/>] npx vitest run test/abi
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AnyStruct } from '../../src/base/struct.js'
import * as sev2016 from '../../src/cpu/kvm/uapi/sev-2016.js'
import * as kvm from '../../src/cpu/kvm/uapi.js'
import * as uapi from '../../src/uapi.js'
import {
  type Answers,
  ask,
  canAsk,
  editionOf,
  readGolden,
  type Source,
  writeGolden,
} from './compiler.js'

// KVM's are asked about in kvm.test.ts and sev-2016.test.ts.
const others = new Set<unknown>([...Object.values(kvm), ...Object.values(sev2016)])
const structs = Object.values(uapi).filter(
  (v): v is typeof v & AnyStruct => typeof v === 'function' && 'ctype' in v && !others.has(v),
) as AnyStruct[]
const numbers = new Map(
  Object.entries(uapi).filter((e): e is [string, number] => typeof e[1] === 'number'),
)
const goldens = join(import.meta.dirname, '../golden/abi')

// Sizes that changed between editions: we lay out the newest, handlers take the earlier size as well.
const earlier: Record<string, number[]> = {
  'struct vfio_device_info': [20], // before its pad was named
}

const kernel = (...directories: string[]): Source => ({
  include: ['linux/vfio.h', 'linux/iommu.h', 'linux/iommufd.h', 'linux/kvm.h'].filter(h =>
    canAsk({ include: [h], directories }),
  ),
  directories,
})
const vsva: Source = { include: ['vsva.h'], directories: [import.meta.dirname] }
const fileOf = (edition: string) => join(goldens, `${edition.toLowerCase().replace(' ', '-')}.json`)

const headers = process.env['LINUX_HEADERS']
const sources = new Map<string, Source>()
if (canAsk({ include: ['linux/vfio.h'] })) {
  for (const source of [kernel(), ...(headers ? [kernel(headers)] : [])])
    sources.set(editionOf(source), source)
  sources.set('vSVA', vsva)
}

function answersOf(edition: string, source: Source): Answers {
  const said = ask(source, structs, [...numbers.keys()])
  if (edition !== 'vSVA') return said
  // The list includes the installed stock header: what that one knows is not the list's answer.
  const stock = ask(kernel(), structs, [])
  for (const known of Object.keys(stock.structs)) delete said.structs[known]
  return { ...said, edition, constants: {} }
}

if (process.env['UPDATE_GOLDEN'])
  for (const [edition, source] of sources) writeGolden(fileOf(edition), answersOf(edition, source))

function compare(said: Answers) {
  for (const s of structs) {
    const theirs = said.structs[s.ctype]
    if (!theirs) continue
    expect([s.size, ...(earlier[s.ctype] ?? [])], `sizeof(${s.ctype})`).toContain(theirs.size)
    for (const [member, offset] of Object.entries(theirs.members))
      expect(s.offsets[member], `offsetof(${s.ctype}, ${member})`).toBe(offset)
  }
  for (const [name, value] of Object.entries(said.constants))
    expect(numbers.get(name)! >>> 0, name).toBe(value >>> 0) // C's 1 << 31 is negative
}

const editions = readdirSync(goldens).map(f => readGolden(join(goldens, f))!)

describe('uapi structures and numbers', () => {
  it.each(editions.map(e => [e.edition, e] as const))('agree with %s', (_, golden) => {
    expect(Object.keys(golden.structs).length).toBeGreaterThan(10)
    compare(golden)
  })

  it.each(structs.map(s => [s.ctype, s] as const))('%s was laid out by a compiler', (ctype, s) => {
    const members = new Set(editions.flatMap(e => Object.keys(e.structs[ctype]?.members ?? {})))
    expect([...members].sort()).toEqual(Object.keys(s.offsets).sort())
  })

  it.runIf(sources.size)('agree with the headers and compiler of this machine', () => {
    for (const [edition, source] of sources) {
      const said = answersOf(edition, source)
      expect(Object.keys(said.structs).length).toBeGreaterThan(10)
      compare(said)
    }
  })
})
