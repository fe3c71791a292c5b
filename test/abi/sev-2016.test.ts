// The structures of the 2016 SEV calls, which no kernel header has: the C compiler lays out our own field lists.
// Regenerate: UPDATE_GOLDEN=1 npx vitest run test/abi/sev-2016.test.ts
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { AnyStruct } from '../../src/base/struct.js'
import * as sev from '../../src/cpu/kvm/uapi/sev-2016.js'
import { ask, canAsk, readGolden, type Source, writeGolden } from './compiler.js'

const source: Source = { include: ['sev-2016.h'], directories: [import.meta.dirname] }
const file = join(import.meta.dirname, '../golden/sev-2016-abi.json')
const structs = Object.values(sev).filter(
  (v): v is typeof v & AnyStruct => typeof v === 'function' && 'ctype' in v,
) as AnyStruct[]
const answers = () => ({ ...ask(source, structs, ['KVM_SEV_ISSUE_CMD']), edition: 'SEV, 2016' })

if (process.env.UPDATE_GOLDEN) writeGolden(file, answers())

it.each(structs.map(s => [s.ctype, s] as const))(
  'C-13 %s is laid out as a compiler does',
  (_, s) => {
    expect({ size: s.size, members: s.offsets }).toEqual(readGolden(file)!.structs[s.ctype])
  },
)

it('C-13 the number of the call, and sizes, are those of the proposal', () => {
  expect(sev.KVM_SEV_ISSUE_CMD).toBe(0xc018_aeb8)
  expect(readGolden(file)!.constants.KVM_SEV_ISSUE_CMD).toBe(0xc018_aeb8)
  expect(structs.map(s => s.size)).toEqual([24, 92, 16, 56, 8, 24])
})

it.runIf(canAsk(source))('the compiler of this machine agrees', () => {
  expect(readGolden(file)).toEqual(answers())
})
