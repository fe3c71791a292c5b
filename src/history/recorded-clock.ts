// The clock of a recorded machine: when its owner lets time go on, that is an input. What the machine itself
// does with the clock in the middle of an input (a vCPU that runs) follows from the input.

import { VirtualClock } from '../base/clock.js'
import type { Ran } from './log.js'
import type { Recorder } from './recorder.js'

/** `VirtualClock` of a recorded machine. */
export class RecordedClock extends VirtualClock {
  readonly #recorder: Recorder

  constructor(recorder: Recorder) {
    super()
    this.#recorder = recorder
  }

  override step(): boolean {
    return this.#keep({ op: 'step' }, () => super.step())
  }

  override advance(ns: number): void {
    this.#keep({ op: 'advance', ns }, () => super.advance(ns))
  }

  override settle(limit?: number): void {
    this.#keep({ op: 'settle' }, () => super.settle(limit))
  }

  #keep<T>(input: Ran, run: () => T): T {
    return this.#recorder.inside ? run() : this.#recorder.during(input, run)
  }
}
