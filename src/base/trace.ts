/**
 * The trace bus: what the model says about itself. A listener may look and must not matter, so its
 * exceptions never reach the model. Unheard points cost one property read.
 * Next: each room declares its own events with `declare module` on `TraceEvents`.
 */
import type { VirtualClock } from './clock.js'
import { type Observers, observers } from './events.js'

/** Events by name. A room adds its own: `declare module '../base/trace.js' { interface TraceEvents { dma: … } }`. */
export interface TraceEvents {
  /** A remark of the program's own, to find one's way in a trace. */
  note: { text: string }
}

/** Name of a trace event. */
export type TraceName = keyof TraceEvents & string

/** One kept event: when (virtual ns), which, and its place in the order of all events heard. */
export interface TraceRecord {
  readonly order: number
  readonly at: number
  readonly name: TraceName
  readonly event: TraceEvents[TraceName]
}

/** One kind of event at its source. Hot code asks `on` before it builds an event. */
export class TracePoint<E = unknown> {
  /** True while anybody listens; kept by the bus. */
  on = false
  readonly #send: (event: E) => void

  constructor(send: (event: E) => void) {
    this.#send = send
  }

  emit(event: E): void {
    if (this.on) this.#send(event)
  }
}

type Listener = (event: TraceEvents[TraceName], name: TraceName) => void

/** A machine's trace bus. */
export class TraceBus {
  readonly #clock: VirtualClock | undefined
  readonly #observers: Observers<Record<string, unknown>> = observers()
  readonly #points = new Map<string, TracePoint<never>>()
  readonly #listeners = new Map<string, number>()
  #kept: TraceRecord[] = []
  #keep = 0
  // Place of the oldest kept record once all places are taken.
  #oldest = 0
  #order = 0

  /** With a clock, kept records carry its time; without one they carry 0. */
  constructor(clock?: VirtualClock) {
    this.#clock = clock
  }

  /** The point for an event's name; models ask once and keep it. */
  point<K extends TraceName>(name: K): TracePoint<TraceEvents[K]> {
    let point = this.#points.get(name) as TracePoint<TraceEvents[K]> | undefined
    if (point === undefined) {
      point = new TracePoint<TraceEvents[K]>(event => this.#send(name, event))
      this.#points.set(name, point)
      this.#update()
    }
    return point
  }

  /** Calls `listener` at every event of that name, or of all with `*`. Returns what ends it. */
  listen<K extends TraceName>(
    name: K,
    listener: (event: TraceEvents[K], name: K) => void,
  ): () => void
  listen(name: '*', listener: Listener): () => void
  listen(name: string, listener: (event: never, name: never) => void): () => void {
    const call = (event: unknown, of: string) => {
      try {
        listener(event as never, of as never)
      } catch (error) {
        // Surfaces as an unhandled rejection, outside the model.
        void Promise.reject(error)
      }
    }
    const one = (event: unknown) => call(event, name)
    const all = (of: string, event: unknown) => call(event, of)
    if (name === '*') this.#observers.on('*', all)
    else this.#observers.on(name, one)
    this.#count(name, 1)
    let listening = true
    return () => {
      if (!listening) return
      listening = false
      if (name === '*') this.#observers.off('*', all)
      else this.#observers.off(name, one)
      this.#count(name, -1)
    }
  }

  /** Keeps the last `records` events of any name, 0 none. What was kept so far is dropped. */
  keep(records: number): void {
    this.#keep = records
    this.#kept = []
    this.#oldest = 0
    this.#update()
  }

  /** The kept records, oldest first. */
  recent(): TraceRecord[] {
    return [...this.#kept.slice(this.#oldest), ...this.#kept.slice(0, this.#oldest)]
  }

  #send<K extends TraceName>(name: K, event: TraceEvents[K]): void {
    const order = this.#order++
    if (this.#keep > 0) {
      const record = { order, at: this.#clock?.now ?? 0, name, event }
      if (this.#kept.length < this.#keep) this.#kept.push(record)
      else {
        this.#kept[this.#oldest] = record
        this.#oldest = (this.#oldest + 1) % this.#keep
      }
    }
    this.#observers.emit(name, event)
  }

  #count(name: string, change: number): void {
    this.#listeners.set(name, (this.#listeners.get(name) ?? 0) + change)
    this.#update()
  }

  #update(): void {
    const all = this.#keep > 0 || (this.#listeners.get('*') ?? 0) > 0
    for (const [name, point] of this.#points) {
      point.on = all || (this.#listeners.get(name) ?? 0) > 0
    }
  }
}
