/**
 * Where a function's transfers went lately: stretches of RAM by the page they begin in and the tag. A stretch is
 * used again as long as nothing that decided it has changed: configuration, the unit above, the function's
 * own translation cache, the memory map. So a repeated transfer asks nobody, and a changed one everybody.
 * Next: bus-master.ts.
 */
import type { RamRegion } from '../mem/ram.js'
import type { DmaTag } from './dma.js'
import type { AtsCapability } from './extended/ats.js'
import type { Fabric } from './node.js'
import { type MemoryRequest, NO_PASID } from './request.js'
import { ASK_EACH_TIME, type UpstreamTranslator } from './upstream.js'

const STRETCHES = 256
/** Words of a stretch: the first page's address, tag and access, age, bytes known from the page's start on. */
const WORDS = 5
const HI = 1
const KEY = 2
const AGE = 3
const BYTES = 4
const LAST_AGE = 0x7fff_ffff
const NO_BYTES = new Uint8Array(0)

/** Tag and access as one number. PASIDs take the low 20 bits. */
const keyOf = (
  pasid: number | undefined,
  execute: boolean,
  privileged: boolean,
  write: boolean,
): number =>
  (pasid === undefined ? 0x10_0000 : pasid) |
  (execute ? 0x20_0000 : 0) |
  (privileged ? 0x40_0000 : 0) |
  (write ? 0x80_0000 : 0)

/** The stretches of one function. */
export class TransferMemo {
  readonly #fabric: Fabric
  readonly #ats: AtsCapability | undefined
  readonly #stretches = new Int32Array(STRETCHES * WORDS)
  /** Where the first page is. */
  readonly #start = new Float64Array(STRETCHES)
  readonly #regions: (RamRegion | undefined)[] = new Array(STRETCHES).fill(undefined)
  /** The bytes moved last, and where in the first page they began. */
  readonly #views: Uint8Array[] = new Array(STRETCHES).fill(NO_BYTES)
  readonly #offsets = new Int32Array(STRETCHES)
  /** Stretches of another age are forgotten. */
  #age = 1
  // What the stretches of this age go by.
  #translator: UpstreamTranslator | undefined
  #answers = ASK_EACH_TIME
  #epoch = -1
  #changes = -1
  #generation = -1

  constructor(fabric: Fabric, ats: AtsCapability | undefined) {
    this.#fabric = fabric
    this.#ats = ats
  }

  /** Moves the bytes of a transfer whose place is known; false when it is not. */
  move(write: boolean, hi: number, lo: number, tag: DmaTag, bytes: Uint8Array): boolean {
    if (!this.#current()) return false
    const { pasid } = tag
    if (pasid !== undefined && pasid >>> 20 !== 0) return false
    const key = keyOf(pasid, tag.execute === true, tag.privileged === true, write)
    const slot = slotOf(lo, key)
    const at = slot * WORDS
    const s = this.#stretches
    const offset = lo & 4095
    const { length } = bytes
    if (s[at] !== (lo & -4096) || s[at + HI] !== hi || s[at + KEY] !== key) return false
    if (s[at + AGE] !== this.#age || offset + length > s[at + BYTES]!) return false
    let view = this.#views[slot]!
    if (this.#offsets[slot] !== offset || view.length !== length)
      view = this.#look(slot, offset, length)
    if (!write) bytes.set(view)
    else {
      view.set(bytes)
      const region = this.#regions[slot]!
      if (region.dirty !== undefined)
        region.wrote(this.#start[slot]! + offset - region.base, length, 'device')
    }
    return true
  }

  /**
   * Remembers that `length` bytes from the start of the page of hi:lo on are those at `start` in `region`, for
   * access and the tag of the request.
   */
  keep(
    write: boolean,
    hi: number,
    lo: number,
    request: MemoryRequest,
    region: RamRegion,
    start: number,
    length: number,
  ): void {
    if (!this.#current() || length > 0x7fff_ffff) return
    if (start < region.base || start + length > region.base + region.size) return
    const { pasid, execute, privileged } = request
    const key = keyOf(pasid === NO_PASID ? undefined : pasid, execute, privileged, write)
    const slot = slotOf(lo, key)
    const at = slot * WORDS
    const s = this.#stretches
    s[at] = lo & -4096
    s[at + HI] = hi
    s[at + KEY] = key
    s[at + AGE] = this.#age
    s[at + BYTES] = length
    this.#regions[slot] = region
    this.#start[slot] = start
    this.#views[slot] = NO_BYTES
    this.#offsets[slot] = -1
  }

  #look(slot: number, offset: number, length: number): Uint8Array {
    const view = this.#fabric.copies.view(this.#regions[slot]!, this.#start[slot]! + offset, length)
    this.#views[slot] = view
    this.#offsets[slot] = offset
    return view
  }

  /** Forgets everything when something has changed; false when the translator wants to be asked. */
  #current(): boolean {
    const { translator, epoch, memory } = this.#fabric
    const answers = translator?.answers ?? ASK_EACH_TIME
    const changes = this.#ats === undefined ? 0 : this.#ats.cache.changes
    if (
      answers !== this.#answers ||
      changes !== this.#changes ||
      epoch !== this.#epoch ||
      memory.generation !== this.#generation ||
      translator !== this.#translator
    ) {
      this.#answers = answers
      this.#changes = changes
      this.#epoch = epoch
      this.#generation = memory.generation
      this.#translator = translator
      if (this.#age++ === LAST_AGE) {
        this.#stretches.fill(0)
        this.#age = 1
      }
    }
    return answers !== ASK_EACH_TIME
  }
}

const slotOf = (lo: number, key: number): number =>
  ((lo >>> 12) + Math.imul(key, 0x9e35) + (key >>> 16)) & (STRETCHES - 1)
