// Failure on demand: steps inside a call that can run out of something pass by here, and a test says which of them
// fails. Costs one look at `armed` while nobody asks. Driver calls fail by other means: testing/stand-in.ts.
import { ErrnoError, type ErrnoName } from './errno.js'

/** Steps that can be made to fail. */
export class Failures {
  /** Whether some step is to fail; ask before calling `step` on a hot path. */
  armed = false
  #left = 0
  #code: ErrnoName | undefined = undefined
  #passed: string[] = []

  /** Lets the nth step from now on fail once, the first being 1; with its own errno unless `code` names another. */
  failNth(n: number, code?: ErrnoName): void {
    this.armed = true
    this.#left = n
    this.#code = code
    this.#passed = []
  }

  /** Lets nothing fail, and notes the steps until `disarm`. */
  watch(): void {
    this.failNth(Number.POSITIVE_INFINITY)
  }

  /** Nothing fails any more. Answers the steps since the last call here, the one that failed included. */
  disarm(): readonly string[] {
    this.armed = false
    return this.#passed
  }

  /** A step that could fail, with `code` mostly: the ErrnoError, when it is its turn. */
  step(what: string, code: ErrnoName = 'ENOMEM', syscall = 'ioctl'): void {
    if (!this.armed) return
    this.#passed.push(what)
    if (--this.#left > 0) return
    this.armed = false
    throw new ErrnoError(this.#code ?? code, `${what}: made to fail`, syscall)
  }
}
