/**
 * The bytes of a DMA transfer between RAM and a device's buffer, without a new view per page.
 * Next: bus-master.ts.
 */
import type { RamRegion } from '../mem/ram.js'

/** Views remembered, made on first use. */
const VIEWS = 8192
/** Copies up to this many bytes with a loop; a view and a call cost about as much (measured, Node 20). */
const LOOP = 24
const NO_BYTES = new Uint8Array(0)

/** Copies for all requesters of a fabric. */
export class RamCopy {
  /** Views of RAM by place and length: devices read the same descriptors and pages again. */
  readonly #views: Uint8Array[] = new Array(VIEWS).fill(NO_BYTES)
  readonly #viewRegion: (RamRegion | undefined)[] = new Array(VIEWS).fill(undefined)
  readonly #viewAt = new Float64Array(VIEWS)

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
    } else bytes.set(this.view(region, end - length, length), from)
    if (write && region.dirty !== undefined) region.wrote(at, length, 'device')
  }

  /** The bytes of a region at a physical address. */
  view(region: RamRegion, address: number, length: number): Uint8Array {
    const at = address - region.base
    const slot = (Math.imul(at >>> 4, 0x9e3779b1) >>> 19) & (VIEWS - 1)
    const known = this.#views[slot]!
    if (this.#viewAt[slot] === at && known.length === length && this.#viewRegion[slot] === region)
      return known
    const view = region.bytes.subarray(at, at + length)
    this.#views[slot] = view
    this.#viewAt[slot] = at
    this.#viewRegion[slot] = region
    return view
  }
}
