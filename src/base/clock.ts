/**
 * Virtual time. Everything that happens "later" in the model is a timer here; nothing reads a real clock.
 * Timers due at the same instant run in the order they were started, so a run is repeatable.
 * Next: the machine's `settle()` and `step()`.
 */

/** Work to be done at a later instant; made by `VirtualClock.later` or, to be started again and again, `timer`. */
export class Timer {
  /** Instant it is due, in ns of virtual time; meaningful while `pending`. */
  at = 0
  /** Place in the clock's heap, -1 when not pending. For the clock only. */
  index = -1
  /** Order among timers of one instant. For the clock only. */
  order = 0
  readonly run: () => void
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock, run: () => void) {
    this.#clock = clock
    this.run = run
  }

  get pending(): boolean {
    return this.index >= 0
  }

  /** (Re)starts the timer `delayNs` from now, behind everything already due at that instant. */
  start(delayNs = 0): this {
    this.#clock.schedule(this, delayNs)
    return this
  }

  /** Takes the timer off the clock; harmless when it is not pending. */
  cancel(): void {
    this.#clock.unschedule(this)
  }
}

/** The machine's only clock: `now` in nanoseconds, moved by `step`, `advance` and `settle` alone. */
export class VirtualClock {
  /** Virtual nanoseconds since the machine was built; never goes back. */
  now = 0
  #order = 0
  // A binary heap by (at, order).
  readonly #heap: Timer[] = []

  /** Number of timers waiting. */
  get pending(): number {
    return this.#heap.length
  }

  /** Instant of the next timer, in ns; undefined when none waits. */
  get nextAt(): number | undefined {
    return this.#heap[0]?.at
  }

  /** Runs `run` once, `delayNs` from now (0: at this instant, after what is already due). */
  later(run: () => void, delayNs = 0): Timer {
    return new Timer(this, run).start(delayNs)
  }

  /** Makes a timer that is not started; a model keeps one and starts it without allocating. */
  timer(run: () => void): Timer {
    return new Timer(this, run)
  }

  /** Runs the next timer, moving `now` to its instant; false when none waits. */
  step(): boolean {
    const timer = this.#heap[0]
    if (timer === undefined) return false
    this.unschedule(timer)
    if (timer.at > this.now) this.now = timer.at
    timer.run()
    return true
  }

  /** Moves time on by `ns`, running what falls due on the way, also what that work starts. */
  advance(ns: number): void {
    const until = this.now + ns
    while (this.#heap.length > 0 && this.#heap[0]!.at <= until) this.step()
    if (until > this.now) this.now = until
  }

  /** Steps until nothing waits. More than `limit` steps mean a model that feeds itself: an Error. */
  settle(limit = 1e6): void {
    for (let steps = 0; this.step(); steps++) {
      if (steps >= limit) throw new Error(`the clock did not settle in ${limit} steps`)
    }
  }

  /** See `Timer.start`. */
  schedule(timer: Timer, delayNs: number): void {
    if (!(delayNs >= 0)) throw new Error(`a timer cannot be due ${delayNs} ns from now`)
    this.unschedule(timer)
    timer.at = this.now + delayNs
    timer.order = this.#order++
    this.#heap.push(timer)
    this.#rise(timer, this.#heap.length - 1)
  }

  /** See `Timer.cancel`. */
  unschedule(timer: Timer): void {
    const index = timer.index
    if (index < 0) return
    timer.index = -1
    const last = this.#heap.pop()!
    if (last === timer) return
    this.#rise(last, index)
    this.#sink(last, last.index)
  }

  #rise(timer: Timer, from: number): void {
    const heap = this.#heap
    let i = from
    while (i > 0) {
      const parent = heap[(i - 1) >> 1]!
      if (!before(timer, parent)) break
      heap[i] = parent
      parent.index = i
      i = (i - 1) >> 1
    }
    heap[i] = timer
    timer.index = i
  }

  #sink(timer: Timer, from: number): void {
    const heap = this.#heap
    let i = from
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      const least = heap[child]!
      if (!before(least, timer)) break
      heap[i] = least
      least.index = i
      i = child
    }
    heap[i] = timer
    timer.index = i
  }
}

const before = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)
