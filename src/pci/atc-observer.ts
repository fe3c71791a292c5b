/**
 * A device's translation cache that tells what it keeps and when it is used, page by page, for detectors of
 * stale use. Ordinary caches know nothing of observers: atc.ts.
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

  override span(
    slot: number,
    ask: AtcAsk,
    limit: number,
    write: boolean,
    execute: boolean,
  ): number {
    const bytes = super.span(slot, ask, limit, write, execute)
    const { pasid, privileged, hi, lo } = ask
    for (let done = 4096 - (lo & 4095); done < bytes; done += 4096)
      this.lookup({ pasid, privileged, hi, lo: (lo + done) | 0, write, execute })
    return bytes
  }
}
