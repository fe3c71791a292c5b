/**
 * The bytes of a DMA transfer between RAM and a device's buffer, without a new view per page.
 * Next: bus-master.ts.
 */
import type { RamRegion } from '../mem/ram.js'

/** Pages remembered: 32 MiB worth of views, made on first use. */
const PAGE_VIEWS = 8192
/** Copies up to this many bytes with a loop; a view and a call cost about as much (measured, Node 20). */
const LOOP = 24
const NO_BYTES = new Uint8Array(0)

/** Copies for all requesters of a fabric. */
export class RamCopy {
  /** Views of whole RAM pages, by page number, so that a 4 KiB read needs no new view. */
  readonly #views: Uint8Array[] = new Array(PAGE_VIEWS).fill(NO_BYTES)
  readonly #viewRegion: (RamRegion | undefined)[] = new Array(PAGE_VIEWS).fill(undefined)
  readonly #viewAt = new Float64Array(PAGE_VIEWS)

  /** Copies bytes `from` to `to` of the transfer; the last of them belongs just below address `end`. */
  copy(
    write: boolean,
    region: RamRegion,
    end: number,
    bytes: Uint8Array,
    from: number,
    to: number,
  ): void {
    const ram = region.bytes
    const length = to - from
    const at = end - length - region.base
    if (length <= LOOP) {
      if (write) for (let i = 0; i < length; i++) ram[at + i] = bytes[from + i]!
      else for (let i = 0; i < length; i++) bytes[from + i] = ram[at + i]!
    } else if (write) {
      ram.set(length === bytes.length ? bytes : bytes.subarray(from, to), at)
    } else if (length === 4096 && (at & 4095) === 0) {
      bytes.set(this.#pageView(region, at), from)
    } else {
      bytes.set(ram.subarray(at, at + length), from)
    }
    if (write && region.dirty !== undefined) region.wrote(at, length)
  }

  #pageView(region: RamRegion, at: number): Uint8Array {
    const slot = (at >>> 12) & (PAGE_VIEWS - 1)
    if (this.#viewAt[slot] === at && this.#viewRegion[slot] === region) return this.#views[slot]!
    const view = region.bytes.subarray(at, at + 4096)
    this.#views[slot] = view
    this.#viewAt[slot] = at
    this.#viewRegion[slot] = region
    return view
  }
}
