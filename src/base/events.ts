/**
 * The one file that knows the event packages. Under `module: NodeNext` the typings of mitt 3 and
 * typed-emitter 2 do not resolve as ES modules, and `events` has none; here each gets its plain type.
 * Models do not use these: mitt carries observation (trace.ts), emitters serve a program's outer edge.
 */
import { EventEmitter } from 'events'
import * as mittModule from 'mitt'
import type * as typedEmitter from 'typed-emitter'

/** Listeners by name; what mitt makes. */
export interface Observers<Events extends Record<string, unknown>> {
  on<K extends keyof Events>(name: K, listener: (event: Events[K]) => void): void
  on(name: '*', listener: (name: keyof Events, event: Events[keyof Events]) => void): void
  off<K extends keyof Events>(name: K, listener: (event: Events[K]) => void): void
  off(name: '*', listener: (name: keyof Events, event: Events[keyof Events]) => void): void
  emit<K extends keyof Events>(name: K, event: Events[K]): void
}

/** Makes an empty set of observers. */
export const observers = mittModule.default as unknown as <
  Events extends Record<string, unknown>,
>() => Observers<Events>

/** Node's own emitter idioms (`once`, `AbortSignal`), with the events' types. */
export type Emitter<Events extends typedEmitter.EventMap> = typedEmitter.default<Events>

/** Makes an emitter for a long-lived handle that a program awaits. */
export function emitter<Events extends typedEmitter.EventMap>(): Emitter<Events> {
  return new EventEmitter() as Emitter<Events>
}
