// Every format of the project, by name, for describe.each.

import type { PageTableFormat } from '../../src/paging/format.js'
import { vmsaFormat } from '../../src/paging/formats-vmsa.js'
import { vtdFirstStage, vtdSecondStage } from '../../src/paging/formats-vtd.js'
import { x86Format } from '../../src/paging/formats-x86.js'

const concatenated = {
  4: { inputBits: 42, startLevel: 1 },
  16: { inputBits: 39, startLevel: 2 },
  64: { inputBits: 45, startLevel: 2 },
} as const

export const formats: readonly PageTableFormat[] = [
  x86Format(),
  x86Format({ levels: 5 }),
  vtdFirstStage(),
  vtdFirstStage({ levels: 5 }),
  vtdSecondStage({ levels: 3 }),
  vtdSecondStage(),
  vtdSecondStage({ levels: 5, execute: true }),
  ...([4, 16, 64] as const).flatMap(granule => [
    vmsaFormat({ granule }),
    vmsaFormat({ granule, inputBits: 39, upper: true }),
    vmsaFormat({ granule, inputBits: 31 }),
    vmsaFormat({ granule, stage: 2, inputBits: 42, outputBits: 44 }),
    // Eight tables next to each other.
    vmsaFormat({ granule, stage: 2, ...concatenated[granule] }),
  ]),
]
