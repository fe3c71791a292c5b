// KVM's structures and numbers against the C compiler, members of anonymous and nested parts included, as programs for
// x86-64 and for arm64 see them. The answers are kept in test/golden/kvm-abi and kvm-abi-arm64. Regenerate:
// UPDATE_GOLDEN=1 [LINUX_HEADERS=<x86 headers>] [LINUX_HEADERS_ARM64=<arm64 headers>] npx vitest run test/abi/kvm.test.ts
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AnyStruct, Member } from '../../src/base/struct.js'
import * as arm64 from '../../src/cpu/kvm/uapi/arm64.js'
import * as x86 from '../../src/cpu/kvm/uapi.js'
import { ask, canAsk, editionOf, readGolden, type Source, writeGolden } from './compiler.js'

/** What one architecture's programs see, and who can be asked about it here. */
interface Side {
  readonly name: string
  readonly uapi: Readonly<Record<string, unknown>>
  readonly directory: string
  readonly sources: Source[]
}

const include = ['linux/kvm.h']
const golden = (name: string) => join(import.meta.dirname, '../golden', name)
const headers = (variable: string): Source[] => {
  const directory = process.env[variable]
  return directory ? [{ include, directories: [directory] }] : []
}
const target = {
  compiler: 'aarch64-linux-gnu-gcc',
  run: ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'],
}
const SIDES: readonly Side[] = [
  {
    name: 'x86-64',
    uapi: x86,
    directory: golden('kvm-abi'),
    sources: [{ include: [...include, 'linux/kvm_para.h'] }, ...headers('LINUX_HEADERS')],
  },
  {
    name: 'arm64',
    uapi: arm64,
    directory: golden('kvm-abi-arm64'),
    sources: [{ include, target }, ...headers('LINUX_HEADERS_ARM64')],
  },
]

describe.each(SIDES)('KVM structures and numbers on $name', side => {
  const { uapi, directory } = side
  const structs = Object.values(uapi).filter(
    (v): v is AnyStruct => typeof v === 'function' && 'ctype' in v,
  )
  // Numbers of 64 bits are asked for by halves.
  const numbers = new Map<string, number>()
  for (const [name, v] of Object.entries(uapi)) {
    if (typeof v === 'number') numbers.set(name, v)
    if (typeof v !== 'bigint') continue
    numbers.set(`(unsigned)((${name}) >> 32)`, Number(v >> 32n))
    numbers.set(`(unsigned)(${name})`, Number(v & 0xffff_ffffn))
  }

  // Members below the first level, as C spells them; `u` of kvm_run is anonymous there.
  const nested = new Map<string, number>()
  const isStruct = (m: unknown): m is AnyStruct => typeof m === 'function'
  const descend = (top: AnyStruct, part: AnyStruct, path: string[], base: number): void => {
    for (const [name, m] of Object.entries(part.members as Record<string, Member>)) {
      const anonymous = top.ctype === 'struct kvm_run' && path.length === 0 && name === 'u'
      const here = anonymous ? path : [...path, name]
      const at = base + (part.offsets as Record<string, number>)[name]!
      if (part !== top) nested.set(`offsetof(${top.ctype}, ${here.join('.')})`, at)
      if (isStruct(m)) descend(top, m, here, at)
    }
  }
  for (const s of structs) descend(s, s, [], 0)

  const sources = side.sources.filter(canAsk)
  const answersOf = (source: Source) => ask(source, structs, [...numbers.keys(), ...nested.keys()])

  if (process.env['UPDATE_GOLDEN']) {
    mkdirSync(directory, { recursive: true })
    for (const source of sources) {
      const file = `${editionOf(source).toLowerCase().replace(' ', '-')}.json`
      writeGolden(join(directory, file), answersOf(source))
    }
  }

  function compare(said: ReturnType<typeof answersOf>): void {
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

  it.each(editions.map(e => [e.edition, e] as const))('agree with %s', (_, said) => {
    compare(said)
  })

  it('every structure and number was answered by a compiler', () => {
    const known = new Set(editions.flatMap(e => Object.keys(e.structs)))
    expect(structs.map(s => s.ctype).filter(c => !known.has(c))).toEqual([])
    const values = new Set(editions.flatMap(e => Object.keys(e.constants)))
    expect([...numbers.keys(), ...nested.keys()].filter(n => !values.has(n))).toEqual([])
  })

  it.runIf(sources.length > 0)('agree with the headers and compiler of this machine', () => {
    for (const source of sources) compare(answersOf(source))
  })
})
