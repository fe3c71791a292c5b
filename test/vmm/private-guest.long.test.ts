// The conversion cases (D-28, D-29) with a guest that gcc built, its VMM in TypeScript: vCPUs taken in turns, slots that
// share one file, without and with fallocate, every word looked at. One arrangement of each runs always, in
// test/cli/private-memory.test.ts.
import { expect, it } from 'vitest'
import { isLong, PATIENCE } from '../support/long.js'
import { conversionsOf, runPrivateGuest } from './private.js'

const arrangements: [number, number, boolean][] = isLong
  ? [
      [1, 1, true],
      [2, 1, false],
      [3, 4, false],
      [8, 8, false],
    ]
  : []

it.each(arrangements)(
  'D-29: %i vCPUs convert, %i slots, every word %s',
  (vcpus, slots, everyWord) => {
    const given = { program: 'conversions', vcpus, slots, everyWord } as const
    const { end, machine, sys, used } = runPrivateGuest(given)
    expect(end).toEqual({ done: vcpus, failure: undefined, conversions: conversionsOf(vcpus) })
    // F-5: closed in its own order, nothing is left.
    sys.exit()
    expect(machine.kernel.frames.used).toBe(used)
    expect(machine.memory.guard).toMatchObject({ count: 0 })
  },
  PATIENCE,
)

const holes: [number, boolean][] = isLong
  ? [
      [1, true],
      [8, false],
    ]
  : [[1, false]]

it.each(holes)(
  'D-29: a hole frees private memory, on %i vCPUs, every word %s',
  (vcpus, everyWord) => {
    const { end } = runPrivateGuest({ program: 'holes', vcpus, everyWord })
    expect(end).toMatchObject({ done: vcpus, failure: undefined })
  },
  PATIENCE,
)
