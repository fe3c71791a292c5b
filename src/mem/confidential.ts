/**
 * Pages of host RAM that devices have no business with: private memory of guests, shared copies that a guest has
 * taken back, pages encrypted under a guest's key. Whoever makes a page so marks it; every DMA that ends in a
 * marked page is named before it moves a byte, with what became of the page, and refused unless it is ciphertext.
 * Next: address-space.ts holds the guard that request paths ask; pci/bus-master.ts asks it.
 */
import { hex, PAGE_SIZE } from '../base/addr.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { AddressSpace } from './address-space.js'

/** What a page of host RAM is, if it is not plain memory. */
export type PageState =
  /** A frame of a guest_memfd: the guest's private bytes. Devices are refused. */
  | { readonly kind: 'private' }
  /** The shared copy of a guest page that is private now: nobody's bytes. Devices are refused. */
  | { readonly kind: 'withdrawn' }
  /** Bytes under the key of an address-space identifier. Devices read ciphertext and write garbage. */
  | { readonly kind: 'encrypted'; readonly asid: number }

/** One thing that happened to a page. */
export interface PageEvent {
  /** Virtual time, ns. */
  readonly at: number
  /** What the page became; `plain` for ordinary memory. */
  readonly state: PageState['kind'] | 'plain'
  /** Who did it and how: `VM 1: KVM_SET_MEMORY_ATTRIBUTES, gpa 0x1000 private`. */
  readonly cause: string
}

/** A device's access to host RAM, inside one page. */
export interface DeviceAccess {
  readonly requester: number
  /** -1 without a prefix. */
  readonly pasid: number
  /** The address the device used, in signed halves. */
  readonly hi: number
  readonly lo: number
  /** Host physical address it led to. */
  readonly output: number
  readonly length: number
  readonly write: boolean
}

/** What request paths ask of host memory before they move bytes. */
export interface DeviceGuard {
  /** Whether [address, address + length) has only plain pages. */
  plain(address: number, length: number): boolean
  /** Whether an access may go on. Called for accesses that are not plain. */
  admits(access: DeviceAccess): boolean
}

/** A DMA that ended in a confidential page. */
export interface ConfidentialDma {
  /** Virtual time, ns. */
  readonly time: number
  readonly requester: number
  readonly pasid: number
  /** The address the device used. */
  readonly address: bigint
  /** Host physical address of the first byte. */
  readonly output: number
  readonly length: number
  readonly access: 'read' | 'write'
  readonly state: PageState
  /** `refused`: nothing moved. `ciphertext`: a read saw ciphertext, or a write made the page unreadable to its guest. */
  readonly outcome: 'refused' | 'ciphertext'
  /** What became of the page, oldest first. */
  readonly page: readonly PageEvent[]
  /** How this requester came to reach it, oldest first: maps, unmaps and accesses that somebody noted. */
  readonly mapping: readonly MappingEvent[]
}

/** One thing that happened to the way from a device to a page. */
export interface MappingEvent {
  /** Virtual time, ns. */
  readonly at: number
  /** In words: `VFIO_IOMMU_MAP_DMA iova 0x1000, 2 MiB`. */
  readonly what: string
}

declare module '../base/trace.js' {
  interface TraceEvents {
    /** A device reached a confidential page; emitted before anything moves. */
    'confidential-dma': ConfidentialDma
    /** A page stopped being plain memory, or became it again. `frame` is its number (address / 4096). */
    'confidential-page': { readonly frame: number; readonly pages: number } & PageEvent
  }
}

/** Events kept of a page. */
const KEPT = 8

interface Page {
  state: PageState | undefined
  readonly events: PageEvent[]
}

/** The confidential pages of one host memory. One exists per machine, from the first page on. */
export class ConfidentialPages implements DeviceGuard {
  readonly #memory: AddressSpace
  readonly #now: () => number
  readonly #pages = new Map<number, Page>()
  readonly #found: TracePoint<TraceEvents['confidential-dma']> | undefined
  readonly #changed: TracePoint<TraceEvents['confidential-page']> | undefined
  readonly #checkers = new Set<(found: ConfidentialDma) => void>()
  #count = 0
  /** Says how a requester came to an address; a checker puts itself here. */
  mappingHistory: ((access: DeviceAccess) => readonly MappingEvent[]) | undefined

  private constructor(memory: AddressSpace, now: () => number, trace: TraceBus | undefined) {
    this.#memory = memory
    this.#now = now
    this.#found = trace?.point('confidential-dma')
    this.#changed = trace?.point('confidential-page')
  }

  /** The confidential pages of a host's memory, made on first use and put before its devices. */
  static of(
    memory: AddressSpace,
    clock?: { readonly now: number },
    trace?: TraceBus,
  ): ConfidentialPages {
    if (memory.guard instanceof ConfidentialPages) return memory.guard
    const made = new ConfidentialPages(memory, () => clock?.now ?? 0, trace)
    memory.guard = made
    memory.generation++
    return made
  }

  /** Pages that are not plain now. */
  get count(): number {
    return this.#count
  }

  /** State of a frame (address / 4096); undefined for plain memory. */
  state(frame: number): PageState | undefined {
    return this.#pages.get(frame)?.state
  }

  /** What became of a frame, oldest first, at most the last 8. */
  history(frame: number): readonly PageEvent[] {
    return this.#pages.get(frame)?.events ?? []
  }

  /**
   * Makes `pages` frames from `frame` on confidential, or plain again with `undefined`. Requesters that remember
   * where their transfers went ask anew. `cause` says who did it, for people.
   */
  mark(frame: number, pages: number, state: PageState | undefined, cause: string): void {
    const event: PageEvent = { at: this.#now(), state: state?.kind ?? 'plain', cause }
    for (let i = frame; i < frame + pages; i++) this.#markOne(i, state, event)
    this.#memory.generation++
    if (this.#changed?.on) this.#changed.emit({ frame, pages, ...event })
  }

  /** Calls `checker` at every DMA to a confidential page, before it has an effect. Returns what ends it. */
  onFound(checker: (found: ConfidentialDma) => void): () => void {
    this.#checkers.add(checker)
    return () => this.#checkers.delete(checker)
  }

  plain(address: number, length: number): boolean {
    if (this.#count === 0) return true
    const last = Math.floor((address + length - 1) / PAGE_SIZE)
    for (let frame = Math.floor(address / PAGE_SIZE); frame <= last; frame++)
      if (this.#pages.get(frame)?.state !== undefined) return false
    return true
  }

  admits(access: DeviceAccess): boolean {
    const { output, length, requester, pasid, write } = access
    const first = Math.floor(output / PAGE_SIZE)
    const last = Math.floor((output + length - 1) / PAGE_SIZE)
    let admitted = true
    for (let frame = first; frame <= last; frame++) {
      const page = this.#pages.get(frame)
      const state = page?.state
      if (page === undefined || state === undefined) continue
      const refused = state.kind !== 'encrypted'
      if (refused) admitted = false
      if (!this.#found?.on && this.#checkers.size === 0) continue
      const found: ConfidentialDma = {
        time: this.#now(),
        requester,
        pasid,
        address: (BigInt(access.hi >>> 0) << 32n) | BigInt(access.lo >>> 0),
        output,
        length,
        access: write ? 'write' : 'read',
        state,
        outcome: refused ? 'refused' : 'ciphertext',
        page: [...page.events],
        mapping: this.mappingHistory?.(access) ?? [],
      }
      for (const checker of [...this.#checkers]) checker(found)
      this.#found?.emit(found)
    }
    return admitted
  }

  #markOne(frame: number, state: PageState | undefined, event: PageEvent): void {
    let page = this.#pages.get(frame)
    if (page === undefined) {
      if (state === undefined) return
      page = { state: undefined, events: [] }
      this.#pages.set(frame, page)
    }
    this.#count += Number(state !== undefined) - Number(page.state !== undefined)
    page.state = state
    page.events.push(event)
    if (page.events.length > KEPT) page.events.shift()
  }
}

/** A page's state in words. */
export function describePageState(state: PageState): string {
  switch (state.kind) {
    case 'private':
      return 'private memory of a guest'
    case 'withdrawn':
      return 'the shared copy of a page that its guest has made private'
    case 'encrypted':
      return `encrypted under ASID ${hex(state.asid)}`
  }
}
