// The arm64 main job under strict synchronisation, as `run --strict-sync` has it: no ISB is missing in its guest.
import { expect, it } from 'vitest'
import { guestOf, readImage, runGuest } from '../../src/cli/guest.js'
import { ARM64_MACHINE } from '../../src/cli/machine-file.js'
import { Story } from '../../src/cli/story.js'
import { createMachine } from '../../src/machine.js'

it.runIf(process.env['VFIO_EMU_LONG'])(
  'A-32: the arm64 guest of the main job misses no ISB',
  () => {
    const machine = createMachine({ ...ARM64_MACHINE, a64: { sync: 'strict' } })
    const story = new Story(machine, () => {})
    const image = readImage(guestOf(ARM64_MACHINE), ARM64_MACHINE.iommu)
    expect(runGuest(machine, image)).toEqual({ kind: 'exit', code: 0 })
    expect(story.totals.unsynchronised).toBe(0)
  },
)
