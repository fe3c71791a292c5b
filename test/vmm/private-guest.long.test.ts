// The conversion cases (D-28, D-29) with a guest that gcc built, its VMM in TypeScript: vCPUs taken in turns, slots that
// share one file, without and with fallocate, more words looked at. One arrangement of each runs always, in
// test/cli/private-memory.test.ts.
import { expect, it } from 'vitest'
import { isLong, PATIENCE } from '../support/long.js'
import { conversionsOf, runPrivateGuest } from './private.js'

const arrangements: [number, number, number][] = isLong
  ? [
      [1, 1, 64],
      [2, 1, 4088],
      [3, 4, 4088],
      [8, 8, 4088],
    ]
  : []

it.each(arrangements)(
  'D-29: %i vCPUs convert, %i slots, a word every %i bytes',
  (vcpus, slots, step) => {
    const given = { program: 'conversions', vcpus, slots, step } as const
    const { end, machine, sys, used } = runPrivateGuest(given)
    expect(end).toEqual({ done: vcpus, failure: undefined, conversions: conversionsOf(vcpus) })
    // F-5: closed in its own order, nothing is left.
    sys.exit()
    expect(machine.kernel.frames.used).toBe(used)
    expect(machine.memory.guard).toMatchObject({ count: 0 })
  },
  PATIENCE,
)

const holes: [number, number][] = isLong
  ? [
      [1, 64],
      [8, 4088],
    ]
  : [[1, 4088]]

it.each(holes)(
  'D-29: a hole frees private memory, on %i vCPUs, a word every %i bytes',
  (vcpus, step) => {
    const { end } = runPrivateGuest({ program: 'holes', vcpus, step })
    expect(end).toMatchObject({ done: vcpus, failure: undefined })
  },
  PATIENCE,
)
