// Fresh random instructions on qemu-aarch64 and here, where it and a cross compiler are installed; `npm run diff:a64` does
// the same by the million.

import { expect, it } from 'vitest'
import { type Case, caseRunner, differences } from '../../../diff/a64/cases.js'
import { kinds } from '../../../diff/a64/generate.js'
import { QemuRunner } from '../../../diff/a64/qemu.js'
import { flatSubject } from '../../../diff/a64/subjects.js'
import { Draw } from '../../../diff/random.js'
import { disassemble } from '../../../src/cpu/a64/disassemble.js'
import { isLong, PATIENCE } from '../../support/long.js'

const SEED = 4
/** Cases a batch; the runner takes 1024. */
const BATCH = 1000
const BATCHES = isLong ? 50 : 1

function runner(): QemuRunner | undefined {
  try {
    return new QemuRunner()
  } catch {
    return undefined
  }
}

const all = kinds()
const groups = {
  undefined: all.filter(k => k.group === 'undefined'),
  allocated: all.filter(k => k.group !== 'undefined'),
}

it.each(['allocated', 'undefined'] as const)(
  `agrees with an installed qemu-aarch64 on %s encodings, ${BATCH * BATCHES} cases of seed ${SEED}`,
  name => {
    const qemu = runner()
    if (!qemu) return
    const run = caseRunner(flatSubject())
    const found: string[] = []
    for (let batch = 0; batch < BATCHES; batch++) {
      const cases: Case[] = []
      for (let i = 0; cases.length < BATCH; i++) {
        const draw = new Draw(SEED, 4 * BATCH * batch + i)
        const c = draw.pick(groups[name]).draw(cases.length, draw)
        if (c) cases.push(c)
      }
      qemu.run(cases).forEach((theirs, i) => {
        const c = cases[i]!
        const text = differences(run(c), theirs)
        if (text) found.push(`${c.words.map(w => disassemble(w)).join('; ')}: ${text}`)
      })
    }
    qemu.close()
    expect(found).toEqual([])
  },
  PATIENCE,
)
