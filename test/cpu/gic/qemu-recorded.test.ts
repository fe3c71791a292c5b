// What QEMU answered to random operations on its GICv3 and ITS, and what ours answers. The operations are a guest
// program's (diff/gic/guest.c); each line is a case and a hash of everything seen in it. `npm run diff:gic` compares anew.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { runOurs, withParameters } from '../../../diff/gic/guest.js'

const golden = resolve(import.meta.dirname, '../../golden/gic')
const [head = '', ...recorded] = readFileSync(resolve(golden, 'qemu.txt'), 'utf8')
  .trimEnd()
  .split('\n')
const seed = Number(/seed (\d+)/.exec(head)?.[1])
const image = readFileSync(resolve(golden, 'qemu.elf'))

it(`${recorded.length} cases of 48 operations come out as on ${head}`, () => {
  const cases = recorded.length
  expect(cases).toBeGreaterThan(100)
  const ours = runOurs(withParameters(image, { seed, from: 0, cases, verbose: false }))
  expect(ours).toEqual(recorded)
})
