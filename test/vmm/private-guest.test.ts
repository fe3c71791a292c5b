// The conversion cases (D-28, D-29) with a guest that gcc built, its VMM in TypeScript. More of them: private-guest.long.test.ts.
import { expect, it } from 'vitest'
import { conversionsOf, runPrivateGuest } from './private.js'

it('D-29: two vCPUs convert, two slots share one file, without and with fallocate', () => {
  const { end } = runPrivateGuest({ program: 'conversions', vcpus: 2, slots: 2 })
  expect(end).toEqual({ done: 2, failure: undefined, conversions: conversionsOf(2) })
})

it('D-29: a hole frees private memory: the next fault reads zero', () => {
  const { end } = runPrivateGuest({ program: 'holes' })
  expect(end).toMatchObject({ done: 1, failure: undefined })
})

it('F-5: closed in its own order, a VM with private memory leaves nothing', () => {
  const { machine, sys, used } = runPrivateGuest({ program: 'tour' })
  sys.exit()
  expect(machine.kernel.frames.used).toBe(used)
  expect(machine.memory.guard).toMatchObject({ count: 0 })
})
