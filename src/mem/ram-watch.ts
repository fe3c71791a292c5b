/**
 * Watching RAM: somebody hears of every write to the bytes of one memory, through whichever region it is made,
 * a processor's, a device's or the host's. What writes `bytes` past the regions is not heard. For detectors;
 * regions made before the watch began tell nothing.
 */
import type { RamRegion } from './ram.js'

/** Who writes, where the way of the write tells. */
export type Writer = 'driver' | 'device'

/** Hears of writes. */
export interface RamWatcher {
  /** `length` bytes at `offset` of a region are as `by` has just written them. */
  wrote(region: RamRegion, offset: number, length: number, by: Writer | undefined): void
}

const watchers = new WeakMap<ArrayBufferLike, RamWatcher>()

/** Two that hear the same. */
class Both implements RamWatcher {
  readonly #first: RamWatcher
  readonly #second: RamWatcher

  constructor(first: RamWatcher, second: RamWatcher) {
    this.#first = first
    this.#second = second
  }

  wrote(region: RamRegion, offset: number, length: number, by: Writer | undefined): void {
    this.#first.wrote(region, offset, length, by)
    this.#second.wrote(region, offset, length, by)
  }
}

/** From now on, regions made over the memory that `bytes` is part of tell `watcher` of their writes. */
export function watchRam(bytes: Uint8Array, watcher: RamWatcher): void {
  const before = watchers.get(bytes.buffer)
  watchers.set(bytes.buffer, before === undefined ? watcher : new Both(before, watcher))
}

/** Who watches the memory that `bytes` is part of. */
export const watcherOf = (bytes: Uint8Array): RamWatcher | undefined => watchers.get(bytes.buffer)
