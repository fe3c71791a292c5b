// Random SMMUv3 configurations as QEMU answered them; where we differ, diff/smmu/deviations.ts says why.
import { SMMUV3 } from '../../../diff/smmu/architecture.js'
import { replay } from '../qemu-replay.js'

replay(SMMUV3, new URL('../../golden/smmu/qemu-11.1.3-random.ndjson', import.meta.url), 4)
