/**
 * Interrupt remapping: what becomes of interrupt requests (VT-d 5.1). Compatibility format passes or is
 * blocked by CFI; remappable format goes through the interrupt remapping table and its entry cache.
 * What posted entries then do: posting.ts. Next: invalidate.ts, which clears the cache.
 */
import { join } from '../../base/addr.js'
import type { EntryInto } from '../../mem/address-space.js'
import { MESSAGE_BASE, NO_PASID } from '../../pci/request.js'
import type { MessageSink } from '../../pci/upstream.js'
import type { VtdConfig } from './config.js'
import { messageAddress } from './events.js'
import type { FaultName } from './fault-reasons.js'
import type { FaultEntry, FaultLog } from './faults.js'
import { InterruptPoster, type PostingMemory } from './posting.js'
import { addressOf } from './requests.js'

/** One cached table entry: a message that is ready to be sent, or a descriptor to post into. */
interface RemappedInterrupt {
  /** Of the message, or of the descriptor. */
  readonly address: number
  /** Of the message, or the vector to post. */
  readonly data: number
  readonly posted: boolean
  readonly urgent: boolean
  readonly svt: number
  readonly sq: number
  readonly sid: number
  readonly suppress: boolean
}

const SVT_SOURCE_ID = 1
const SVT_BUS_RANGE = 2
/** Function bits that SQ ignores. */
const SQ_MASK = [0, 4, 6, 7]

/** IRTE bit 15, IM. */
const IM = 0x8000
/** IRTE bits 31:0 that are reserved in a remapped entry: 14:12, IM (set only where nothing is posted), 31:24. */
const RESERVED_LO = 0xff00_f000
/** IRTE bits 37:0 that are reserved in a posted entry: 7:2, 13:12, 31:24; and 37:32. */
const POSTED_RESERVED_LO = 0xff00_30fc
const POSTED_RESERVED_HI = 0x3f
const URG = 0x4000
/** IRTE bits 127:84. */
const RESERVED_SOURCE = 0xfff0_0000

/** Remaps the interrupt requests of one unit. */
export class InterruptRemapper {
  #enabled = false
  #compatibility = false
  #table = 0
  #entries = 0
  #extended = false
  readonly #memory: PostingMemory
  readonly #sink: MessageSink
  readonly #faults: FaultLog
  readonly #cache = new Map<number, RemappedInterrupt>()
  readonly #lo: EntryInto = { entryLo: 0, entryHi: 0 }
  readonly #hi: EntryInto = { entryLo: 0, entryHi: 0 }

  readonly #poster: InterruptPoster | undefined

  constructor(memory: PostingMemory, sink: MessageSink, faults: FaultLog, c: VtdConfig) {
    this.#memory = memory
    if (c.postedInterrupts)
      this.#poster = new InterruptPoster(memory, sink, 2 ** c.hostAddressWidth)
    this.#sink = sink
    this.#faults = faults
  }

  /** SIRTP: the table's address, number of entries, and whether they hold 32-bit APIC ids. */
  latch(table: number, entries: number, extended: boolean): void {
    this.#table = table
    this.#entries = entries
    this.#extended = extended
    this.#cache.clear()
  }

  /** IRES and CFIS. */
  enable(enabled: boolean, compatibility: boolean): void {
    this.#enabled = enabled
    this.#compatibility = compatibility
  }

  reset(): void {
    this.enable(false, false)
    this.latch(0, 0, false)
  }

  /** An interrupt request arrives: it is passed on, remapped, or blocked with a fault. */
  message(requester: number, address: number, data: number): void {
    if (!this.#enabled) {
      this.#sink.message(requester, address, data)
      return
    }
    if ((address & 0xfff0_0000) >>> 0 !== MESSAGE_BASE) {
      this.#fault('notAnInterrupt', requester, 0)
      return
    }
    if ((address & 0x10) === 0) {
      if (this.#extended || !this.#compatibility) this.#fault('compatibilityBlocked', requester, 0)
      else this.#sink.message(requester, address, data)
      return
    }
    const handle = ((address >>> 5) & 0x7fff) | ((address & 4) << 13)
    const subhandleValid = (address & 8) !== 0
    if (subhandleValid && data >>> 16 !== 0) {
      this.#fault('interruptReserved', requester, handle)
      return
    }
    const index = subhandleValid ? handle + (data & 0xffff) : handle
    if (index >= this.#entries) {
      this.#fault('interruptIndexTooLarge', requester, index)
      return
    }
    const entry = this.#cache.get(index) ?? this.#fetch(requester, index)
    if (!entry) return
    if (!this.#mayUse(entry, requester)) {
      this.#fault('sourceIdRefused', requester, index, entry.suppress, this.#entry(index))
      return
    }
    if (!entry.posted) this.#sink.message(requester, entry.address, entry.data)
    else this.#post(requester, index, entry)
  }

  /** Drops cached entries: all, or 2^mask from an aligned index. */
  invalidate(index?: number, mask = 0): void {
    if (index === undefined) {
      this.#cache.clear()
      return
    }
    const first = index & ~((1 << Math.min(mask, 16)) - 1)
    const end = first + 2 ** Math.min(mask, 16)
    if (end - first <= this.#cache.size) for (let i = first; i < end; i++) this.#cache.delete(i)
    else for (const i of this.#cache.keys()) if (i >= first && i < end) this.#cache.delete(i)
  }

  #fetch(requester: number, index: number): RemappedInterrupt | undefined {
    const at = this.#table + index * 16
    const lo = this.#lo
    const hi = this.#hi
    if (!this.#memory.readEntry(at, lo) || !this.#memory.readEntry(at + 8, hi)) {
      this.#fault('irteUnreadable', requester, index)
      return undefined
    }
    const suppress = (lo.entryLo & 2) !== 0
    const where = { kind: 'irte', at, value: join(lo.entryHi, lo.entryLo), level: 0 } as const
    if ((lo.entryLo & 1) === 0) {
      this.#fault('irteNotPresent', requester, index, suppress, where)
      return undefined
    }
    const source = hi.entryLo
    const svt = (source >>> 18) & 3
    const posted = this.#poster !== undefined && (lo.entryLo & IM) !== 0
    if ((source & RESERVED_SOURCE) !== 0 || svt === 3 || this.#reserved(posted)) {
      this.#fault('irteReserved', requester, index, suppress, where)
      return undefined
    }
    const entry: RemappedInterrupt = {
      address: posted ? addressOf(hi.entryHi, lo.entryHi) : this.#messageAddress(),
      data: posted ? (lo.entryLo >>> 16) & 0xff : this.#messageData(),
      posted,
      urgent: (lo.entryLo & URG) !== 0,
      svt,
      sq: (source >>> 16) & 3,
      sid: source & 0xffff,
      suppress,
    }
    this.#cache.set(index, entry)
    return entry
  }

  /** Whether the fields that a format has for itself hold something reserved, VT-d 9.9 and 9.10. */
  #reserved(posted: boolean): boolean {
    const lo = this.#lo
    if (posted)
      return (lo.entryLo & POSTED_RESERVED_LO) !== 0 || (lo.entryHi & POSTED_RESERVED_HI) !== 0
    return (
      (lo.entryLo & RESERVED_LO) !== 0 ||
      this.#hi.entryHi !== 0 ||
      (!this.#extended && (lo.entryHi & 0xffff_00ff) !== 0)
    )
  }

  #messageAddress(): number {
    const { entryLo: flags, entryHi: dst } = this.#lo
    const destination = this.#extended ? dst >>> 0 : (dst >>> 8) & 0xff
    return messageAddress(destination, (flags & 4) !== 0, (flags & 8) !== 0)
  }

  #messageData(): number {
    const { entryLo: flags } = this.#lo
    const level = (flags & 0x10) !== 0
    // Level is always asserted (VT-d 5.1.4).
    return ((flags >>> 16) & 0xff) | (((flags >>> 5) & 7) << 8) | 0x4000 | (level ? 0x8000 : 0)
  }

  #post(requester: number, index: number, entry: RemappedInterrupt): void {
    const { address, data, urgent, suppress } = entry
    const result = this.#poster!.post(address, data, urgent, this.#extended)
    if (result !== 'posted') this.#fault(result, requester, index, suppress, this.#entry(index))
  }

  /** An entry as memory holds it now, for a fault. */
  #entry(index: number): FaultEntry {
    const at = this.#table + index * 16
    this.#memory.readEntry(at, this.#lo)
    return { kind: 'irte', at, value: join(this.#lo.entryHi, this.#lo.entryLo), level: 0 }
  }

  #mayUse({ svt, sq, sid }: RemappedInterrupt, requester: number): boolean {
    if (svt === SVT_SOURCE_ID) return ((requester ^ sid) & ~SQ_MASK[sq]! & 0xffff) === 0
    if (svt !== SVT_BUS_RANGE) return true
    const bus = requester >>> 8
    return bus >= sid >>> 8 && bus <= (sid & 0xff)
  }

  #fault(
    name: FaultName,
    requester: number,
    index: number,
    suppress = false,
    entry?: FaultEntry,
  ): void {
    this.#faults.report(
      {
        name,
        requester,
        pasid: NO_PASID,
        address: BigInt(index),
        access: 'interrupt',
        privileged: false,
        at: 0,
        entries: entry ? [entry] : [],
      },
      suppress,
    )
  }
}
