/**
 * Interrupt remapping from the driver's side: a table of remapped interrupts in host memory, one entry a
 * vector, each usable by one function only. Devices get messages in remappable format (VT-d 5.1.2.2);
 * compatibility format is blocked. Posted interrupts and 32-bit APIC ids are not used.
 */
import { ErrnoError } from '../../base/errno.js'
import { IdAllocator } from '../../base/ids.js'
import type { FrameAllocator } from '../../mem/frames.js'
import type { HostInterrupts, HostVector } from '../../pci/host-interrupts.js'
import { MESSAGE_BASE } from '../../pci/request.js'
import type { DeviceVector } from '../domain.js'
import type { VtdInvalidator } from './driver-invalidate.js'
import type { UnitRegisters } from './driver-registers.js'
import { IRTE } from './tables.js'

const ENTRIES = 4096
const PAGES = (ENTRIES * IRTE.size) / 4096
const SOURCE_ID = 1 // IRTE.SVT
const REMAPPABLE = 1 << 4

/** The interrupt remapping table of one unit. */
export class InterruptTable {
  readonly #frames: FrameAllocator
  readonly #interrupts: HostInterrupts
  readonly #invalidator: VtdInvalidator
  readonly #table: number
  readonly #handles = new IdAllocator(0, ENTRIES - 1)
  readonly #vectors = new Map<number, HostVector>()

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

  /** A vector that only `bdf` can raise. ENOSPC when table or host vectors are exhausted. */
  allocate(bdf: number, handler: () => void): DeviceVector {
    const handle = this.#handles.nextFree(0)
    if (handle < 0) throw new ErrnoError('ENOSPC', 'the interrupt remapping table is full')
    const host = this.#interrupts.allocate(handler)
    this.#handles.take(handle)
    this.#vectors.set(handle, host)
    const entry = IRTE.create({
      V: host.data & 0xff,
      DST: ((host.address >>> 12) & 0xff) << 8,
      SVT: SOURCE_ID,
      SID: bdf,
      P: true,
    })
    this.#store(handle, entry.words)
    return {
      address: MESSAGE_BASE + (((handle & 0x7fff) << 5) | REMAPPABLE),
      data: 0,
      free: () => this.#release(handle),
    }
  }

  /** Gives the table back; the unit must not use it any more. */
  free(): void {
    for (const handle of [...this.#vectors.keys()]) this.#release(handle)
    this.#frames.free(this.#table, PAGES)
  }

  #release(handle: number): void {
    const host = this.#vectors.get(handle)
    if (host === undefined) return
    this.#vectors.delete(handle)
    this.#store(handle, IRTE.create().words)
    this.#invalidator.interruptEntry(handle)
    this.#handles.free(handle)
    this.#interrupts.free(host.vector)
  }

  /** The word with the present bit goes first when it is cleared, last when it is set. */
  #store(handle: number, words: Uint32Array): void {
    const at = this.#table + handle * IRTE.size
    const space = this.#frames.space
    if ((words[0]! & 1) === 0) space.writeU32(at, 0)
    for (let i = words.length - 1; i >= 0; i--) space.writeU32(at + 4 * i, words[i]!)
  }
}
