// Checks that whole groups of instructions begin with.

import { routine } from './machine.js'
import { EC } from './registers.js'

/** First operation of every floating-point and SIMD instruction. */
export const checkFp = routine('checkFp', ({ system }) => system.checkFp())

/** Run when SP is misaligned and about to be a base register (DDI 0487, "SP alignment checking"). */
export const checkStack = routine('checkStack', ({ state }) => {
  if (state.checksStack) state.raise(EC.SP_ALIGNMENT)
})
