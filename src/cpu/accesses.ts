// Device accesses that leave the core in the middle of an instruction.
// An instruction that meets one is abandoned without a trace, the exit is taken, and after the answer it is executed
// again from its start; the accesses it already made are answered from this record, in order.

import type { Exit } from './core.js'

type AccessExit = Extract<Exit, { kind: 'io' | 'mmio' }>

/** The answered accesses of the instruction in progress, and the one that waits. */
export class AccessRecord {
  #answers: Uint8Array[] = []
  #at = 0
  #waiting: AccessExit | undefined

  /**
   * Asks for the next access of this instruction. Its answer, or undefined: then the caller sets `ABORT.EXIT` and
   * returns. A write's answer is the empty array.
   */
  ask(exit: AccessExit): Uint8Array | undefined {
    const answer = this.#answers[this.#at]
    if (answer) {
      this.#at++
      return answer
    }
    this.#waiting = exit
    return undefined
  }

  /** The exit that waits for an answer. */
  get waiting(): AccessExit | undefined {
    return this.#waiting
  }

  /** True while an instruction is half done: it must run before any event is delivered. */
  get open(): boolean {
    return this.#answers.length > 0
  }

  /** Records the answer to `waiting`. Without a waiting access it does nothing. */
  answer(bytes: Uint8Array = new Uint8Array(0)): void {
    const waiting = this.#waiting
    if (!waiting) return
    const length = waiting.write ? 0 : waiting.kind === 'io' ? waiting.size : waiting.bytes.length
    const kept = new Uint8Array(length)
    kept.set(bytes.subarray(0, length))
    this.#answers.push(kept)
    this.#waiting = undefined
  }

  /** Before an instruction is executed again: its accesses are asked for from the first. */
  restart(): void {
    this.#at = 0
  }

  /** The instruction has retired or faulted. */
  forget(): void {
    if (this.#answers.length > 0) this.#answers = []
    this.#at = 0
    this.#waiting = undefined
  }
}
