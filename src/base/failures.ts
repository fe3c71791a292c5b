// Failure on demand: steps inside a call that can run out of something pass by here, and a test says which of them
// fails. Costs one look at `armed` while nobody asks. Frames and driver calls fail by other means: testing/stand-in.ts.
import { ErrnoError, type ErrnoName } from './errno.js'

/** Steps that can be made to fail. */
export class Failures {
  /** Whether some step is to fail; ask before calling `step` on a hot path. */
  armed = false
  #left = 0
  #code: ErrnoName = 'ENOMEM'

  /** Lets the nth step from now on fail once, the first being 1. */
  failNth(n: number, code: ErrnoName = 'ENOMEM'): void {
    this.armed = true
    this.#left = n
    this.#code = code
  }

  /** Nothing fails any more. */
  disarm(): void {
    this.armed = false
  }

  /** A step that could fail: the ErrnoError asked for, when it is its turn. */
  step(what: string): void {
    if (!this.armed || --this.#left > 0) return
    this.armed = false
    throw new ErrnoError(this.#code, `${what}: made to fail`)
  }
}
