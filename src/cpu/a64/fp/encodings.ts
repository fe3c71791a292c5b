// Every row of floating point and Advanced SIMD. decode.ts puts them behind the others.

import type { Encoding } from '../encodings.js'
import { SIMD_COPY } from './encodings-copy.js'
import { SIMD_INTEGER } from './encodings-integer.js'
import { SIMD_MEMORY } from './encodings-memory.js'
import { SIMD_MISC } from './encodings-misc.js'
import { FP_SCALAR } from './encodings-scalar.js'
import { SIMD_SHIFT } from './encodings-shift.js'
import { SIMD_STRUCTURES } from './encodings-structures.js'
import { SIMD_FLOAT } from './encodings-vector-float.js'

/** Floating point and Advanced SIMD of Armv8.0-A, without the cryptographic instructions and FEAT_FP16. */
export const FP_ENCODINGS: readonly Encoding[] = [
  ...FP_SCALAR,
  ...SIMD_MEMORY,
  ...SIMD_STRUCTURES,
  ...SIMD_INTEGER,
  ...SIMD_MISC,
  ...SIMD_SHIFT,
  ...SIMD_COPY,
  ...SIMD_FLOAT,
]
