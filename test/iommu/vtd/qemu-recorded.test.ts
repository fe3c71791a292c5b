// Random VT-d configurations as QEMU answered them; where we differ, diff/vtd/deviations.ts says why.
import { VTD } from '../../../diff/vtd/architecture.js'
import { replay } from '../qemu-replay.js'

replay(VTD, new URL('../../golden/vtd/qemu-11.1.3-random.ndjson', import.meta.url), 8)
