// VT-d, as the runner sees it.
import type { Architecture } from '../architectures.js'
import { DEVIATIONS } from './deviations.js'
import { drawCase } from './generate.js'
import { OurVtd } from './ours.js'
import { QemuVtd } from './qemu.js'
import { UNITS } from './units.js'

let ours: OurVtd | undefined
const unit = (): OurVtd => (ours ??= new OurVtd())

export const VTD: Architecture = {
  name: 'VT-d',
  oracle: 'intel-iommu on q35',
  binary: 'qemu-system-x86_64',
  deviations: DEVIATIONS,
  draw: drawCase,
  answer: c => unit().run(c),
  subjectOf: c => c.unit,
  start: unit => QemuVtd.start(UNITS[unit]!),
  story: c => unit().story(c),
}
