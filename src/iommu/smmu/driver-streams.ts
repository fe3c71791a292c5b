/**
 * The stream table in host memory as the driver writes it: two-level where the unit has that, with a second
 * level for each bus in use. An STE's valid bit is written last and cleared first; what is not there faults as
 * C_BAD_STE or C_BAD_STREAMID. Layouts: ste.ts; who invalidates: driver.ts.
 */
import type { FrameAllocator } from '../../mem/frames.js'
import type { SmmuRegisters } from './driver-registers.js'
import { STRTAB_FMT } from './registers.js'
import { L1STD, STE } from './ste.js'

/** StreamID bits of a second-level table: the functions of one bus. */
const SPLIT = 8
const LEAF_PAGES = (2 ** SPLIT * STE.size) / 4096

/** A stream table entry. */
export interface StreamEntry {
  readonly words: Uint32Array
}

/** The stream table of one unit. */
export class StreamTable {
  readonly #frames: FrameAllocator
  readonly #base: number
  readonly #pages: number
  readonly #bits: number
  readonly #twoLevel: boolean
  /** Second-level tables by their first StreamID >> SPLIT, with the number of entries in use. */
  readonly #leaves = new Map<number, { readonly at: number; used: number }>()
  readonly #unlinked: number[] = []

  /** Programs the table's registers for `bits` StreamID bits. ENOMEM. */
  constructor(frames: FrameAllocator, registers: SmmuRegisters, bits: number, twoLevel: boolean) {
    this.#frames = frames
    this.#bits = bits
    this.#twoLevel = twoLevel && bits > SPLIT
    const bytes = this.#twoLevel ? 2 ** (bits - SPLIT) * L1STD.size : 2 ** bits * STE.size
    this.#pages = Math.max(1, bytes / 4096)
    this.#base = frames.alloc(this.#pages, this.#pages)
    const FMT = this.#twoLevel ? STRTAB_FMT.TWO_LEVEL : STRTAB_FMT.LINEAR
    registers.write('STRTAB_BASE', { ADDR: this.#base })
    registers.write('STRTAB_BASE_CFG', { FMT, SPLIT: this.#twoLevel ? SPLIT : 0, LOG2SIZE: bits })
  }

  /** Whether the table can have an entry for a stream. */
  covers(streamId: number): boolean {
    return streamId < 2 ** this.#bits
  }

  /** Makes room for a stream that has no entry, which stays invalid; true when a second level was linked. ENOMEM. */
  reserve(streamId: number): boolean {
    const leaf = this.#leaves.get(streamId >> SPLIT)
    if (!this.#twoLevel || leaf !== undefined) {
      if (leaf) leaf.used++
      return false
    }
    const at = this.#frames.alloc(LEAF_PAGES, LEAF_PAGES)
    this.#leaves.set(streamId >> SPLIT, { at, used: 1 })
    this.#link(streamId, L1STD.create({ L2Ptr: at, Span: SPLIT + 1 }))
    return true
  }

  /** Writes the entry of a stream that is invalid now. */
  set(streamId: number, entry: StreamEntry): void {
    this.#store(this.#at(streamId), entry.words)
  }

  /** Makes the entry of a stream invalid; its room stays. */
  invalidate(streamId: number): void {
    this.#frames.space.writeU32(this.#at(streamId), 0)
  }

  /** Gives the room of an invalid entry back; true when that unlinked a second level. */
  unreserve(streamId: number): boolean {
    this.#store(this.#at(streamId), new Uint32Array(STE.size / 4))
    const leaf = this.#leaves.get(streamId >> SPLIT)
    if (leaf === undefined || --leaf.used > 0) return false
    this.#link(streamId, L1STD.create())
    this.#leaves.delete(streamId >> SPLIT)
    this.#unlinked.push(leaf.at)
    return true
  }

  /** Frees what was unlinked, once the unit has dropped what it cached. */
  release(): void {
    for (const at of this.#unlinked.splice(0)) this.#frames.free(at, LEAF_PAGES)
  }

  /** Gives everything back; the unit must not know the table any more. */
  free(): void {
    this.release()
    for (const { at } of this.#leaves.values()) this.#frames.free(at, LEAF_PAGES)
    this.#frames.free(this.#base, this.#pages)
  }

  #at(streamId: number): number {
    if (!this.#twoLevel) return this.#base + streamId * STE.size
    const leaf = this.#leaves.get(streamId >> SPLIT)
    if (leaf === undefined) throw new Error(`SMMUv3 driver: no room for stream ${streamId}`)
    return leaf.at + (streamId % 2 ** SPLIT) * STE.size
  }

  #link(streamId: number, descriptor: StreamEntry): void {
    this.#store(this.#base + (streamId >> SPLIT) * L1STD.size, descriptor.words)
  }

  /** First word last: it has the valid bit, or the span. */
  #store(at: number, words: Uint32Array): void {
    for (let i = words.length - 1; i >= 0; i--) this.#frames.space.writeU32(at + 4 * i, words[i]!)
  }
}
