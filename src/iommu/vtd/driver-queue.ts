/**
 * The driver's end of queued invalidation: descriptors in host memory, one tail write a batch, completion by
 * the status word of a wait descriptor. Nothing is allocated on this path. Next: descriptors.ts (layouts).
 */
import { hex } from '../../base/addr.js'
import type { VirtualClock } from '../../base/clock.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import { DESCRIPTOR, WAIT_DESCRIPTOR } from './descriptors.js'
import type { UnitRegisters } from './driver-registers.js'
import { VTD } from './registers.js'

const PAGES = 2
const DESCRIPTOR_BYTES = 32
const ENTRIES = (PAGES * 4096) / DESCRIPTOR_BYTES
/** A queue that is full looks empty, and the last place is for the wait descriptor. */
const ROOM = ENTRIES - 2

/** A descriptor of one of the 32-byte layouts. */
export interface Descriptor {
  readonly words: Uint32Array
}

/** What went wrong with a batch; a time-out is a device that did not answer. */
export type Completion = 'done' | 'time-out'

/** One unit's invalidation queue, with 256-bit descriptors. */
export class InvalidationQueue {
  readonly #memory: AddressSpace
  readonly #frames: FrameAllocator
  readonly #registers: UnitRegisters
  readonly #clock: VirtualClock
  readonly #queue: number
  readonly #status: number
  readonly #tailRegister: number
  readonly #wait = WAIT_DESCRIPTOR.create({ TYPE: DESCRIPTOR.WAIT, SW: true })
  readonly #drain: Descriptor
  readonly #fence = WAIT_DESCRIPTOR.create({ TYPE: DESCRIPTOR.WAIT, FN: true })
  #tail = 0
  #waiting = 0
  #sequence = 0

  constructor(
    memory: AddressSpace,
    frames: FrameAllocator,
    registers: UnitRegisters,
    clock: VirtualClock,
  ) {
    this.#memory = memory
    this.#frames = frames
    this.#registers = registers
    this.#clock = clock
    this.#queue = frames.alloc(PAGES)
    this.#status = frames.alloc()
    this.#tailRegister = registers.base + VTD.IQT_REG.offset
    this.#wait.STADDR = this.#status
    this.#drain = WAIT_DESCRIPTOR.create({
      TYPE: DESCRIPTOR.WAIT,
      SW: true,
      FN: true,
      PD: true,
      STADDR: this.#status,
    })
    registers.write('IQT_REG', {})
    registers.write('IQA_REG', { IQA: this.#queue, DW: true, QS: Math.log2(PAGES) })
  }

  /** Adds a descriptor to the batch. */
  submit(d: Descriptor): void {
    if (this.#waiting >= ROOM) this.complete()
    this.#put(d.words)
  }

  /** Descriptors that follow wait for those before them. */
  fence(): void {
    this.submit(this.#fence)
  }

  /**
   * Hands the batch to the unit and waits until all of it is done; with `drain`, also until the page requests
   * that devices sent before are in the page request queue.
   */
  complete(drain = false): Completion {
    const wait = drain ? this.#drain : this.#wait
    const sequence = (this.#sequence + 1) | 0
    this.#sequence = sequence
    wait.words[1] = sequence
    this.#put(wait.words)
    this.#waiting = 0
    this.#memory.writeU32(this.#tailRegister, this.#tail * DESCRIPTOR_BYTES)
    const reached = this.#memory.readU32(this.#status) | 0
    return ((reached - sequence) | 0) >= 0 ? 'done' : this.#slowly(sequence)
  }

  /** Gives the queue's memory back; the unit must not use it any more. */
  free(): void {
    this.#frames.free(this.#queue, PAGES)
    this.#frames.free(this.#status)
  }

  #put(words: Uint32Array): void {
    const { ram } = this.#frames
    const offset = this.#queue - ram.base + this.#tail * DESCRIPTOR_BYTES
    for (let i = 0; i < 8; i++) ram.words[(offset >>> 2) + i] = words[i]!
    if (ram.dirty !== undefined) ram.wrote(offset, DESCRIPTOR_BYTES)
    this.#tail = (this.#tail + 1) % ENTRIES
    this.#waiting++
  }

  /** The unit works later, or stopped. */
  #slowly(sequence: number): Completion {
    for (;;) {
      const { IQE, ITE } = this.#registers.read('FSTS_REG')
      if (IQE) {
        const { QH } = this.#registers.read('IQH_REG')
        const { IQEI } = this.#registers.read('IQERCD_REG')
        throw new Error(`VT-d: the queue stopped at ${hex(QH * 16)}, reason ${IQEI}`)
      }
      if (ITE) {
        // The unit drops waits that were pending: ask again. What timed out is the device's loss.
        this.#registers.write('FSTS_REG', { ITE: true })
        this.complete()
        return 'time-out'
      }
      const reached = this.#memory.readU32(this.#status) | 0
      if (((reached - sequence) | 0) >= 0) return 'done'
      if (!this.#clock.step()) throw new Error('VT-d: the invalidation queue does not move')
    }
  }
}
