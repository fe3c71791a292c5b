// The conversion cases (D-29) in every arrangement: vCPUs, slots that share one file, every word looked at.
import { expect, it } from 'vitest'
import { conversionsOf, runPrivateGuest } from './private.js'

const long = process.env['VFIO_EMU_LONG'] !== undefined

it.runIf(long).each([
  [1, 1, true],
  [1, 4, false],
  [2, 1, false],
  [3, 4, false],
  [4, 2, false],
  [8, 8, false],
])(
  'D-29: %i vCPUs, %i slots, every word %s',
  (vcpus, slots, everyWord) => {
    const { end } = runPrivateGuest({ program: 'conversions', vcpus, slots, everyWord })
    expect(end).toEqual({ done: vcpus, failure: undefined, conversions: conversionsOf(vcpus) })
  },
  300_000,
)

it.runIf(long).each([
  [4, true],
  [8, false],
])(
  'D-29: holes on %i vCPUs, every word %s',
  (vcpus, everyWord) => {
    const { end } = runPrivateGuest({ program: 'holes', vcpus, everyWord })
    expect(end).toMatchObject({ done: vcpus, failure: undefined })
  },
  300_000,
)
