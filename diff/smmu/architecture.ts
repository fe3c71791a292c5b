// SMMUv3, as the runner sees it.
import type { Architecture } from '../architectures.js'
import { DEVIATIONS } from './deviations.js'
import { drawCase } from './generate.js'
import { OurSmmu } from './ours.js'
import { QemuSmmu } from './qemu.js'

let ours: OurSmmu | undefined
const unit = (): OurSmmu => (ours ??= new OurSmmu())

export const SMMUV3: Architecture = {
  name: 'SMMUv3',
  oracle: 'smmuv3 on virt',
  binary: 'qemu-system-aarch64',
  deviations: DEVIATIONS,
  draw: drawCase,
  answer: c => unit().run(c),
  // QEMU does not notice that a two-level stream table became a linear one.
  subjectOf: c => (c.setup['STRTAB_BASE_CFG']! & 0x3_0000n ? 'two-level' : 'linear'),
  start: () => QemuSmmu.start(),
  story: c => unit().story(c),
}
