// KVM's structures and numbers against the C compiler, members of anonymous and nested parts included. The answers
// are kept in test/golden/kvm-abi. Regenerate: UPDATE_GOLDEN=1 npx vitest run test/abi/kvm.test.ts
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AnyStruct, Member } from '../../src/base/struct.js'
import * as uapi from '../../src/cpu/kvm/uapi.js'
import { ask, canAsk, editionOf, readGolden, type Source, writeGolden } from './compiler.js'

const structs = Object.values(uapi).filter(
  (v): v is typeof v & AnyStruct => typeof v === 'function' && 'ctype' in v,
) as AnyStruct[]
const numbers = new Map(
  Object.entries(uapi).filter((e): e is [string, number] => typeof e[1] === 'number'),
)

// Members below the first level, as C spells them; `u` of kvm_run is anonymous there.
const nested = new Map<string, number>()
const isStruct = (m: unknown): m is AnyStruct => typeof m === 'function'
function descend(top: AnyStruct, part: AnyStruct, path: string[], base: number): void {
  for (const [name, m] of Object.entries(part.members as Record<string, Member>)) {
    const anonymous = top.ctype === 'struct kvm_run' && path.length === 0 && name === 'u'
    const here = anonymous ? path : [...path, name]
    const at = base + (part.offsets as Record<string, number>)[name]!
    if (part !== top) nested.set(`offsetof(${top.ctype}, ${here.join('.')})`, at)
    if (isStruct(m)) descend(top, m, here, at)
  }
}
for (const s of structs) descend(s, s, [], 0)

const directory = join(import.meta.dirname, '../golden/kvm-abi')
const source: Source = { include: ['linux/kvm.h', 'linux/kvm_para.h'] }
const compiler = canAsk(source)
const answers = () => ask(source, structs, [...numbers.keys(), ...nested.keys()])

if (compiler && process.env['UPDATE_GOLDEN']) {
  mkdirSync(directory, { recursive: true })
  const edition = editionOf(source)
  writeGolden(join(directory, `${edition.toLowerCase().replace(' ', '-')}.json`), answers())
}

function compare(said: ReturnType<typeof answers>): void {
  for (const s of structs) {
    const theirs = said.structs[s.ctype]
    if (theirs === undefined) continue
    expect(s.size, `sizeof(${s.ctype})`).toBe(theirs.size)
    for (const [member, offset] of Object.entries(theirs.members))
      expect(s.offsets[member], `offsetof(${s.ctype}, ${member})`).toBe(offset)
  }
  for (const [name, value] of Object.entries(said.constants)) {
    const ours = numbers.get(name) ?? nested.get(name)
    expect(ours! >>> 0, name).toBe(value >>> 0)
  }
}

const editions = readdirSync(directory).map(f => readGolden(join(directory, f))!)

describe('KVM structures and numbers', () => {
  it.each(editions.map(e => [e.edition, e] as const))('agree with %s', (_, golden) => {
    compare(golden)
  })

  it('every structure and number was answered by a compiler', () => {
    const known = new Set(editions.flatMap(e => Object.keys(e.structs)))
    expect(structs.map(s => s.ctype).filter(c => !known.has(c))).toEqual([])
    const values = new Set(editions.flatMap(e => Object.keys(e.constants)))
    expect([...numbers.keys(), ...nested.keys()].filter(n => !values.has(n))).toEqual([])
  })

  it.runIf(compiler)('agree with the headers and compiler of this machine', () => {
    compare(answers())
  })
})
