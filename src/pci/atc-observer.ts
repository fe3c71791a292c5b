/**
 * A device's translation cache that tells what it keeps and when it is used, for detectors of stale use. A
 * transfer asks it page by page. Ordinary caches know nothing of observers: atc.ts.
 */
import { type AtcAsk, TranslationCache } from './atc.js'

/** Hears what a cache does. */
export interface CacheObserver {
  /** A translation was kept. */
  kept(ask: AtcAsk): void
  /** A held translation, which permits the access, answers `output` for the address asked. */
  used(ask: AtcAsk, output: number): void
}

/** A cache with an observer. */
export class ObservedCache extends TranslationCache {
  readonly #observer: CacheObserver

  constructor(observer: CacheObserver) {
    super()
    this.#observer = observer
  }

  override lookup(ask: AtcAsk): number {
    const slot = super.lookup(ask)
    if (slot >= 0 && this.permits(slot, ask.write === true, ask.execute === true))
      this.#observer.used(ask, this.output(slot, ask.lo))
    return slot
  }

  override insert(
    ask: AtcAsk,
    output: number,
    pageBits: number,
    read: boolean,
    write: boolean,
    execute: boolean,
  ): number {
    const slot = super.insert(ask, output, pageBits, read, write, execute)
    this.#observer.kept(ask)
    return slot
  }

  override span(slot: number, ask: AtcAsk, limit: number): number {
    // Up to the end of the 4 KiB page: the next one is looked up, and so observed.
    return slot < 0 ? 0 : Math.min(limit, 4096 - (ask.lo & 4095))
  }
}
