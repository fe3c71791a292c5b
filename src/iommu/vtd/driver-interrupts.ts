/**
 * Interrupt remapping from the driver's side: a table of remapped interrupts in host memory, one entry a
 * vector, each usable by one function only. Devices get messages in remappable format (VT-d 5.1.2.2);
 * compatibility format is blocked. Posted interrupts and 32-bit APIC ids are not used.
 */
import { ErrnoError } from '../../base/errno.js'
import { IdAllocator } from '../../base/ids.js'
import type { FrameAllocator } from '../../mem/frames.js'
import type { HostInterrupts } from '../../pci/host-interrupts.js'
import { MESSAGE_BASE } from '../../pci/request.js'
import type { DeviceVector } from '../domain.js'
import type { VtdInvalidator } from './driver-invalidate.js'
import type { UnitRegisters } from './driver-registers.js'
import { IRTE } from './tables.js'

const ENTRIES = 4096
const PAGES = (ENTRIES * IRTE.size) / 4096
const SOURCE_ID = 1 // IRTE.SVT
const REMAPPABLE = 1 << 4
const SUBHANDLE_VALID = 1 << 3

/** The interrupt remapping table of one unit. */
export class InterruptTable {
  readonly #frames: FrameAllocator
  readonly #interrupts: HostInterrupts
  readonly #invalidator: VtdInvalidator
  readonly #table: number
  readonly #handles = new IdAllocator(0, ENTRIES - 1)
  readonly #vectors = new Map<number, number>()

  constructor(
    frames: FrameAllocator,
    interrupts: HostInterrupts,
    invalidator: VtdInvalidator,
    registers: UnitRegisters,
  ) {
    this.#frames = frames
    this.#interrupts = interrupts
    this.#invalidator = invalidator
    this.#table = frames.alloc(PAGES)
    registers.write('IRTA_REG', { IRTA: this.#table, S: Math.log2(ENTRIES) - 1 })
  }

  /**
   * A vector that only `bdf` can raise, or `count` of them with handles in a row, which the data of a message are
   * added to. ENOSPC when table or host vectors are exhausted.
   */
  allocate(bdf: number, handler: (index: number) => void, count = 1): DeviceVector {
    const first = this.#freeHandles(count)
    const host = this.#interrupts.allocate(handler, undefined, count)
    for (let i = 0; i < count; i++) {
      this.#handles.take(first + i)
      this.#vectors.set(first + i, host.vector + i)
      const entry = IRTE.create({
        V: (host.data & 0xff) + i,
        DST: ((host.address >>> 12) & 0xff) << 8,
        SVT: SOURCE_ID,
        SID: bdf,
        P: true,
      })
      this.#store(first + i, entry.words)
    }
    const format = count === 1 ? REMAPPABLE : REMAPPABLE | SUBHANDLE_VALID
    return {
      address: MESSAGE_BASE + (((first & 0x7fff) << 5) | format),
      data: 0,
      free: () => {
        for (let i = 0; i < count; i++) this.#release(first + i)
      },
    }
  }

  /** Gives the table back; the unit must not use it any more. */
  free(): void {
    for (const handle of [...this.#vectors.keys()]) this.#release(handle)
    this.#frames.free(this.#table, PAGES)
  }

  #freeHandles(count: number): number {
    for (let first = this.#handles.nextFree(0); first >= 0; ) {
      let n = 1
      while (n < count && first + n < ENTRIES && !this.#handles.has(first + n)) n++
      if (n === count) return first
      first = first + n < ENTRIES ? this.#handles.nextFree(first + n) : -1
    }
    throw new ErrnoError('ENOSPC', 'the interrupt remapping table is full')
  }

  #release(handle: number): void {
    const vector = this.#vectors.get(handle)
    if (vector === undefined) return
    this.#vectors.delete(handle)
    this.#store(handle, IRTE.create().words)
    this.#invalidator.interruptEntry(handle)
    this.#handles.free(handle)
    this.#interrupts.free(vector)
  }

  /** The word with the present bit goes first when it is cleared, last when it is set. */
  #store(handle: number, words: Uint32Array): void {
    const at = this.#table + handle * IRTE.size
    const space = this.#frames.space
    if ((words[0]! & 1) === 0) space.writeU32(at, 0)
    for (let i = words.length - 1; i >= 0; i--) space.writeU32(at + 4 * i, words[i]!)
  }
}
