// Where QEMU's smmuv3 parts from IHI 0070 (G.b), or chose otherwise than we where the specification leaves a
// choice. Each is as narrow as its predicate can be; what is not here is a bug.
import type { Deviation } from '../deviation.js'
import { CACHED } from './cached.js'
import { FORMS } from './differing.js'
import { LIKENESSES } from './likenesses.js'

export const DEVIATIONS: readonly Deviation[] = [...FORMS, ...CACHED, ...LIKENESSES]
