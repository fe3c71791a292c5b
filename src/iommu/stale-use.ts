/**
 * The stale-use detector: remembers which table words each cached translation was made from, hears who writes
 * them, and reports a translation that is used although a walk would no longer give it. It changes nothing that
 * software can see. What is compared is its unit's business: vtd/stale-use.ts, smmu/stale-use.ts.
 */
import type { VirtualClock } from '../base/clock.js'
import type { TraceBus, TracePoint } from '../base/trace.js'
import type { RamRegion } from '../mem/ram.js'
import type { RamWatcher, Writer } from '../mem/ram-watch.js'
import type { EntryInto, EntrySource } from '../paging/walk.js'
import type { StageWalk } from '../paging/walk-steps.js'

/** A change of a table that nobody invalidated for. */
export interface TableChange {
  /** Name of the structure or paging entry. */
  readonly entry: string
  /** Stage of a paging entry; 0 of a structure. */
  readonly stage: 0 | 1 | 2
  /** Physical address of the 64-bit word. */
  readonly at: number
  /** The word when the translation was cached, and now. */
  readonly before: bigint
  readonly after: bigint
  /** Who wrote it last; `unseen`: a process through memory of its own, or a test. */
  readonly by: 'guest processor' | 'host' | 'host driver' | 'device DMA' | 'unseen'
  /** Virtual time of that write, ns; of an unseen one, when it was noticed. */
  readonly time: number
}

/** A translation that was used after its tables changed, without the invalidation in between. */
export interface StaleUse {
  /** Virtual time, ns. */
  readonly time: number
  /** What still held it. */
  readonly cache:
    | 'context cache'
    | 'PASID cache'
    | 'STE cache'
    | 'CD cache'
    | 'IOTLB'
    | 'device TLB'
  readonly requester: number
  /** `NO_PASID` when the request carried none. */
  readonly pasid: number
  readonly address: bigint
  readonly access: 'read' | 'write' | 'execute'
  /** Physical address that was used; -1 where the tables that lead to one are stale. */
  readonly used: number
  /** The one that a walk gives now; -1 when it gives none. */
  readonly now: number
  /** What changed since, in the order of the walk. */
  readonly changes: readonly TableChange[]
  /** The invalidation that the architecture requires. */
  readonly missing: string
  readonly section: string
}

declare module '../base/trace.js' {
  interface TraceEvents {
    'stale-use': StaleUse
  }
}

/** A word that a translation was made from. */
export interface PathWord {
  readonly entry: string
  readonly stage: 0 | 1 | 2
  readonly at: number
  readonly value: bigint
  /** Bits that walkers set by themselves. */
  readonly flags: bigint
}

/** A watched word: its value, and who gave it that. */
interface WatchedWord {
  value: bigint
  by: TableChange['by']
  time: number
}

const PAGE = 4096

/** Watches one machine's tables. */
export class StaleUseDetector implements RamWatcher {
  /** Everything reported, in order. */
  readonly uses: StaleUse[] = []
  readonly #clock: VirtualClock
  readonly #memory: EntrySource
  readonly #point: TracePoint<StaleUse>
  readonly #ram: { readonly base: number; readonly bytes: Uint8Array }
  /** Watched words by page and address. */
  readonly #pages = new Map<number, Map<number, WatchedWord>>()
  readonly #reported = new Set<string>()
  readonly #into: EntryInto = { entryLo: 0, entryHi: 0 }
  readonly #pair = new BigUint64Array(1)
  readonly #halves = new Int32Array(this.#pair.buffer)

  /** `ram` is where the watched bytes lie in host memory. */
  constructor(
    clock: VirtualClock,
    trace: TraceBus,
    memory: EntrySource,
    ram: { readonly base: number; readonly bytes: Uint8Array },
  ) {
    this.#clock = clock
    this.#memory = memory
    this.#point = trace.point('stale-use')
    this.#ram = ram
  }

  wrote(region: RamRegion, offset: number, length: number, by: Writer | undefined): void {
    const { base, bytes } = this.#ram
    const start = base + region.bytes.byteOffset - bytes.byteOffset + offset
    const end = start + length
    const name =
      by === undefined ? this.#writer(region) : by === 'driver' ? 'host driver' : 'device DMA'
    for (let page = start - (start % PAGE); page < end; page += PAGE) {
      const words = this.#pages.get(page)
      if (!words) continue
      for (const [at, word] of words) {
        if (at + 8 <= start || at >= end) continue
        const value = this.#read(at)
        if (value === word.value) continue
        word.value = value
        word.by = name
        word.time = this.#clock.now
      }
    }
  }

  /** Watches the words of a way from now on. */
  watch(path: readonly PathWord[]): void {
    for (const { at } of path) {
      const page = at - (at % PAGE)
      let words = this.#pages.get(page)
      if (!words) {
        words = new Map()
        this.#pages.set(page, words)
      }
      const value = this.#read(at)
      if (words.get(at)?.value !== value)
        words.set(at, { value, by: 'unseen', time: this.#clock.now })
    }
  }

  /** What changed of a way since it was taken. */
  changes(path: readonly PathWord[]): TableChange[] {
    const changes: TableChange[] = []
    for (const { entry, stage, at, value, flags } of path) {
      const after = this.#read(at)
      if (((after ^ value) & ~flags) === 0n) continue
      const word = this.#pages.get(at - (at % PAGE))?.get(at)
      const seen = word?.value === after
      const by = seen ? word.by : 'unseen'
      changes.push({
        stage,
        entry,
        at,
        before: value,
        after,
        by,
        time: seen ? word.time : this.#clock.now,
      })
    }
    return changes
  }

  /** Reports a use, once for each page, cache and state of the tables. */
  report(use: Omit<StaleUse, 'time'>): void {
    const { cache, requester, pasid, address, changes } = use
    const state = changes.map(c => `${c.at}=${c.after}`).join()
    const key = `${cache} ${requester} ${pasid} ${address & ~0xfffn} ${state}`
    if (this.#reported.has(key)) return
    this.#reported.add(key)
    const complete: StaleUse = { time: this.#clock.now, ...use }
    this.uses.push(complete)
    if (this.#point.on) this.#point.emit(complete)
  }

  /** Regions other than the host's own are a guest's view of the same bytes. */
  #writer(region: RamRegion): TableChange['by'] {
    return region.bytes.length === this.#ram.bytes.length ? 'host' : 'guest processor'
  }

  #read(at: number): bigint {
    this.#memory.readEntry(at, this.#into)
    this.#halves[0] = this.#into.entryLo
    this.#halves[1] = this.#into.entryHi
    return this.#pair[0]!
  }
}

/** The words of a structure at `at`, named. */
export const structureWords = (
  entry: string,
  at: number,
  words: readonly bigint[] | undefined,
): PathWord[] =>
  (words ?? []).map((value, i) => ({ entry, at: at + 8 * i, value, flags: 0n, stage: 0 as const }))

/** The words of a walk and of the second-stage walks in it; `flags` tells what walkers change in a value by themselves. */
export function walkWords(w: StageWalk, flags: (raw: bigint, stage: 1 | 2) => bigint): PathWord[] {
  const { stage } = w
  return w.steps.flatMap(({ below, name: entry, raw: value, physical: at }) => [
    ...(below ? walkWords(below, flags) : []),
    ...(value === undefined || at === undefined
      ? []
      : [{ entry, stage, at, value, flags: flags(value, stage) }]),
  ])
}
