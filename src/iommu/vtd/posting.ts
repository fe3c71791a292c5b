/**
 * Posted interrupts: an interrupt request becomes a bit in a descriptor in memory, and perhaps a
 * notification (VT-d 5.2.3, 9.11). Descriptors are never cached: software switches SN, NV and NDST while
 * interrupts arrive. Which table entries post: remap.ts.
 */
import type { EntryInto } from '../../mem/address-space.js'
import type { MessageSink } from '../../pci/upstream.js'
import { messageAddress, UNIT_REQUESTER } from './events.js'

/** Memory that descriptors are read from and posted into. */
export interface PostingMemory {
  /** The RAM at an address. */
  ramAt(at: number): object | undefined
  readEntry(at: number, into: EntryInto): boolean
  orEntry(at: number, lo: number, hi: number): boolean
}

/** What became of a posting. */
export type Posting = 'posted' | 'postedUnreadable' | 'postedReserved'

// POSTED_DESCRIPTOR bits 319:256, from byte 32 on: the low word holds ON, SN and NV, the high one NDST.
const CONTROL = 32
const BYTES = 64
const ON = 1
const SN = 2
/** Bits 271:258 and 287:280. */
const RESERVED_CONTROL = 0xff00_fffc
/** NDST without 32-bit APIC ids: all but bits 15:8. */
const RESERVED_DESTINATION = 0xffff_00ff

/** Posts the interrupts of one unit. */
export class InterruptPoster {
  readonly #memory: PostingMemory
  readonly #sink: MessageSink
  readonly #limit: number
  readonly #into: EntryInto = { entryLo: 0, entryHi: 0 }

  /** Descriptors lie below `limit`; notifications go to `sink` and are not remapped. */
  constructor(memory: PostingMemory, sink: MessageSink, limit: number) {
    this.#memory = memory
    this.#sink = sink
    this.#limit = limit
  }

  /**
   * Posts vector 0 to 255 into the descriptor at `at`, a multiple of 64. Notifies unless a notification
   * is outstanding (ON), or suppressed (SN) and the interrupt not urgent. A refusal changes nothing.
   */
  post(at: number, vector: number, urgent: boolean, extended: boolean): Posting {
    const memory = this.#memory
    const into = this.#into
    // A descriptor in a device's registers could make the device interrupt again, and so on.
    if (at >= this.#limit || memory.ramAt(at) === undefined) return 'postedUnreadable'
    let reserved = 0
    for (let offset = CONTROL + 8; offset < BYTES; offset += 8) {
      if (!memory.readEntry(at + offset, into)) return 'postedUnreadable'
      reserved |= into.entryLo | into.entryHi
    }
    if (!memory.readEntry(at + CONTROL, into)) return 'postedUnreadable'
    const { entryLo: control, entryHi: destination } = into
    reserved |= control & RESERVED_CONTROL
    if (!extended) reserved |= destination & RESERVED_DESTINATION
    if (reserved !== 0) return 'postedReserved'
    const bit = 1 << (vector & 31)
    const high = (vector & 32) !== 0
    if (!memory.orEntry(at + (vector >> 6) * 8, high ? 0 : bit, high ? bit : 0))
      return 'postedUnreadable'
    if ((control & ON) !== 0 || ((control & SN) !== 0 && !urgent)) return 'posted'
    memory.orEntry(at + CONTROL, ON, 0)
    const id = extended ? destination >>> 0 : (destination >>> 8) & 0xff
    // Fixed, physical, edge, asserted.
    const data = ((control >>> 16) & 0xff) | 0x4000
    this.#sink.message(UNIT_REQUESTER, messageAddress(id, false, false), data)
    return 'posted'
  }
}
