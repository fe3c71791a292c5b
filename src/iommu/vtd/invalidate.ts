/**
 * Invalidation: the queue with its descriptors, and the two invalidation registers of legacy mode
 * (VT-d 6.5, 11.4.6). Descriptors execute one at a time, in order, when software moves the tail. What
 * is dropped is caches.ts's and remap.ts's business; errors go to the fault log.
 */
import { join } from '../../base/addr.js'
import type { Timer } from '../../base/clock.js'
import type { LiveRegisters } from '../../base/registers.js'
import type { TracePoint } from '../../base/trace.js'
import type { EntryInto } from '../../mem/address-space.js'
import {
  type AtsInvalidation,
  NO_PASID,
  type PageGroupResponse,
  PRG_RESPONSE,
} from '../../pci/request.js'
import type { VtdConfig } from './config.js'
import { knownDescriptor, wellFormedDescriptor } from './descriptor-check.js'
import { DESCRIPTOR } from './descriptors.js'
import type { EventInterrupt } from './events.js'
import type { FaultLog } from './faults.js'
import type { VtdHooks } from './hooks.js'
import { IQEI, TTM, type VTD_REGISTERS } from './registers.js'

/** An executed invalidation, for the trace. */
export interface InvalidationEvent {
  readonly what:
    | 'context-cache'
    | 'pasid-cache'
    | 'iotlb'
    | 'pasid-iotlb'
    | 'device-tlb'
    | 'interrupt-entry-cache'
    | 'wait'
    | 'page-group-response'
    | 'queue-error'
  /** Granularity, or the IQEI code of an error. */
  readonly scope: string
  readonly did?: number
  readonly pasid?: number
  readonly requester?: number
  readonly address?: bigint
  readonly pageBits?: number
}

/** The translation caches, by the scopes that descriptors name. */
export interface TranslationCaches {
  /** Latched translation table mode. */
  readonly mode: number
  contextCache(
    scope: 'global' | 'domain' | 'device',
    did: number,
    sid: number,
    ignore: number,
  ): void
  pasidCache(scope: 'global' | 'domain' | 'pasid', did: number, pasid: number): void
  iotlb(
    scope: 'global' | 'domain' | 'page',
    did: number,
    hi: number,
    lo: number,
    order: number,
  ): void
  pasidIotlb(
    scope: 'pasid' | 'page',
    did: number,
    pasid: number,
    hi: number,
    lo: number,
    order: number,
  ): void
}

/** What the queue invalidates and where it reaches out. */
export interface InvalidationTargets {
  /** The register file's bytes. */
  readonly bytes: Uint8Array
  readonly regs: LiveRegisters<typeof VTD_REGISTERS>
  readonly config: VtdConfig
  readonly memory: {
    readEntry(at: number, into: EntryInto): boolean
    writeU32(addr: number, value: number): boolean
  }
  readonly faults: FaultLog
  readonly hooks: VtdHooks
  readonly caches: TranslationCaches
  interruptEntries(index: number | undefined, mask: number): void
  deviceTlb(i: AtsInvalidation): boolean
  respond(r: PageGroupResponse): void
}

/** Function bits that FM ignores (VT-d table 21). */
const FUNCTION_MASK = [0, 4, 6, 7] as const

// Words of the register file, and bits in them, that every descriptor touches.
const GSTS = 0x1c >> 2
const QIES = 1 << 26
const FSTS = 0x34 >> 2
const STOPPED = 0x50 // IQE, ITE
const IQH = 0x80 >> 2
const IQT = 0x88 >> 2
const IQA = 0x90 >> 2
const DW = 0x800
/** IQH and IQT count bytes; their low 4 bits are reserved. */
const OFFSET = 0x7_fff0

/** The invalidation queue and registers of one unit. */
export class Invalidation {
  readonly #t: InvalidationTargets
  readonly #event: EventInterrupt
  readonly #point: TracePoint<InvalidationEvent>
  readonly #registers: Int32Array
  /** The descriptor being executed; positions are those of descriptors.ts. */
  readonly #words = new Int32Array(8)
  readonly #pair: EntryInto = { entryLo: 0, entryHi: 0 }
  readonly #addressLimit: number
  readonly #domainMask: number
  readonly #ats: AtsInvalidation = {
    requester: 0,
    pasid: NO_PASID,
    hi: 0,
    lo: 0,
    pageBits: 12,
    global: false,
  }
  /** Continues a queue that software or a status write keeps feeding. */
  readonly #again: Timer
  #running = false
  /** A device did not complete its invalidation: the next wait descriptor is aborted with ITE. */
  #timedOut = -1

  constructor(
    targets: InvalidationTargets,
    event: EventInterrupt,
    point: TracePoint<InvalidationEvent>,
    timer: (run: () => void) => Timer,
  ) {
    this.#t = targets
    const { bytes } = targets
    this.#registers = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
    this.#addressLimit = 2 ** targets.config.hostAddressWidth
    this.#domainMask = 2 ** targets.config.domainIdBits - 1
    this.#event = event
    this.#point = point
    this.#again = timer(() => this.run())
  }

  reset(): void {
    this.#again.cancel()
    this.#timedOut = -1
  }

  /** Queued invalidation was switched off. */
  disable(): void {
    this.#t.regs.IQH_REG.QH = 0
    this.#timedOut = -1
  }

  /** Software wrote ICS_REG. */
  acknowledge(): void {
    if (!this.#t.regs.ICS_REG.IWC) this.#event.serviced()
  }

  /**
   * Executes what is queued. At most one queue's worth a call: a queue whose own status writes move its
   * tail goes on from the clock.
   */
  run(): void {
    if (this.#running) return
    this.#running = true
    try {
      let left = 256 << (this.#registers[IQA]! & 7)
      while (this.#executeOne()) {
        if (left-- > 0) continue
        this.#again.start()
        return
      }
    } finally {
      this.#running = false
    }
  }

  /** Executes the descriptor at the head; false when there is none or the queue is stopped. */
  #executeOne(): boolean {
    const r = this.#registers
    if ((r[GSTS]! & QIES) === 0 || (r[FSTS]! & STOPPED) !== 0) return false
    const head = r[IQH]!
    const tail = r[IQT]! & OFFSET
    if (head === tail) {
      if (this.#timedOut >= 0) this.#timeOut()
      return false
    }
    const { caches, config } = this.#t
    const wide = (r[IQA]! & DW) !== 0
    const bytes = 4096 << (r[IQA]! & 7)
    const { mode } = caches
    if (tail >= bytes) return this.#error(IQEI.INVALID_TAIL)
    if (wide && (tail & 16) !== 0) return this.#error(IQEI.MISALIGNED_TAIL)
    if (mode === TTM.RESERVED) return this.#error(IQEI.INVALID_TTM)
    if (wide ? !config.scalableMode && !config.abortDma : mode !== TTM.LEGACY)
      return this.#error(IQEI.INVALID_WIDTH)
    const size = wide ? 32 : 16
    if (!this.#fetch(head, size)) return this.#error(IQEI.FETCH_FAILED)

    const words = this.#words
    const type = ((words[0]! >>> 5) & 0x70) | (words[0]! & 0xf)
    if (!knownDescriptor(type, wide && mode !== TTM.LEGACY, config))
      return this.#error(IQEI.INVALID_TYPE)
    if (!wellFormedDescriptor(type, words, config)) return this.#error(IQEI.RESERVED_FIELD)
    r[IQH] = head + size >= bytes ? 0 : head + size
    this.#execute(type)
    return true
  }

  /** Reads the descriptor at an offset of the queue. */
  #fetch(offset: number, size: number): boolean {
    const words = this.#words
    const pair = this.#pair
    const base =
      (this.#registers[IQA + 1]! >>> 0) * 2 ** 32 + ((this.#registers[IQA]! & -4096) >>> 0)
    if (size < 32) words.fill(0, size >> 2)
    for (let i = 0; i < size; i += 8) {
      const at = base + offset + i
      if (at >= this.#addressLimit || !this.#t.memory.readEntry(at, pair)) return false
      words[i >> 2] = pair.entryLo
      words[(i >> 2) + 1] = pair.entryHi
    }
    return true
  }

  #execute(type: number): void {
    const words = this.#words
    const w0 = words[0]!
    const w1 = words[1]!
    const w2 = words[2]!
    const hi = words[3]!
    const granularity = (w0 >>> 4) & 3
    const did = (w0 >>> 16) & this.#domainMask
    const pasid = w1 & 0xf_ffff
    const lo = w2 & -4096
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE:
        this.contextCache(granularity, did, w1 & 0xffff, (w1 >>> 16) & 3)
        return
      case DESCRIPTOR.PASID_CACHE:
        this.#pasidCache(granularity, did, pasid)
        return
      case DESCRIPTOR.IOTLB:
        this.iotlb(granularity, did, hi, lo, w2 & 63, (w2 & 64) !== 0)
        return
      case DESCRIPTOR.PASID_IOTLB:
        this.#pasidIotlb(granularity === 3, did, pasid, hi, lo, w2 & 63, (w2 & 64) !== 0)
        return
      case DESCRIPTOR.DEVICE_TLB:
        this.#deviceTlb(w1 & 0xffff, NO_PASID, hi, lo, (w2 & 1) !== 0, false)
        return
      case DESCRIPTOR.PASID_DEVICE_TLB:
        this.#deviceTlb(w0 >>> 16, pasid, hi, lo, (w2 & 0x800) !== 0, (w2 & 1) !== 0)
        return
      case DESCRIPTOR.INTERRUPT_ENTRY_CACHE:
        this.#interruptEntries((w0 & 16) !== 0 ? w1 & 0xffff : undefined, w0 >>> 27)
        return
      case DESCRIPTOR.WAIT:
        this.#wait(
          (w0 & 0x20) !== 0,
          (w0 & 0x10) !== 0,
          w1,
          (hi >>> 0) * 2 ** 32 + ((w2 & ~3) >>> 0),
        )
        return
      default:
        this.#t.respond({
          requester: w0 >>> 16,
          pasid: (w0 & 16) !== 0 ? pasid : NO_PASID,
          prgIndex: (w2 >>> 3) & 0x1ff,
          code: responseCode((w0 >>> 12) & 15),
        })
    }
  }

  /** Invalidates the context cache: of a descriptor or of CCMD_REG. Granularity as both encode it. */
  contextCache(granularity: number, did: number, sid: number, fm: number): void {
    const t = this.#t
    const legacy = t.caches.mode === TTM.LEGACY
    const scope = granularity === 3 ? 'device' : granularity === 2 && legacy ? 'domain' : 'global'
    t.caches.contextCache(scope, legacy ? did : -1, sid, FUNCTION_MASK[fm]!)
    if (this.#point.on)
      this.#point.emit({
        what: 'context-cache',
        scope,
        did,
        ...(scope === 'device' && { requester: sid }),
      })
    t.hooks.contextCacheInvalidated?.(scope, did, sid, fm)
  }

  /** Invalidates the IOTLB by domain: of a descriptor or of IOTLB_REG. Granularity as both encode it. */
  iotlb(
    granularity: number,
    did: number,
    hi: number,
    lo: number,
    order: number,
    leaf: boolean,
  ): void {
    const t = this.#t
    const scope = granularity === 3 ? 'page' : granularity === 2 ? 'domain' : 'global'
    t.caches.iotlb(scope, did, hi, lo, order)
    if (this.#point.on)
      this.#point.emit({
        what: 'iotlb',
        scope,
        ...(scope !== 'global' && { did }),
        ...(scope === 'page' && { address: join(hi, lo), pageBits: 12 + order }),
      })
    t.hooks.iotlbInvalidated?.(scope, did, NO_PASID, hi, lo, order, leaf)
  }

  #pasidCache(granularity: number, did: number, pasid: number): void {
    const scope = granularity === 3 ? 'global' : granularity === 1 ? 'pasid' : 'domain'
    this.#t.caches.pasidCache(scope, did, pasid)
    if (this.#point.on)
      this.#point.emit({
        what: 'pasid-cache',
        scope,
        ...(scope !== 'global' && { did }),
        ...(scope === 'pasid' && { pasid }),
      })
    this.#t.hooks.pasidCacheInvalidated?.(scope, did, pasid)
  }

  #pasidIotlb(
    page: boolean,
    did: number,
    pasid: number,
    hi: number,
    lo: number,
    order: number,
    leaf: boolean,
  ): void {
    this.#t.caches.pasidIotlb(page ? 'page' : 'pasid', did, pasid, hi, lo, order)
    if (this.#point.on)
      this.#point.emit({
        what: 'pasid-iotlb',
        scope: page ? 'page' : 'pasid',
        did,
        pasid,
        ...(page && { address: join(hi, lo), pageBits: 12 + order }),
      })
    const kind = page ? 'pasid-page' : 'pasid'
    this.#t.hooks.iotlbInvalidated?.(kind, did, pasid, hi, lo, order, leaf)
  }

  #interruptEntries(index: number | undefined, mask: number): void {
    this.#t.interruptEntries(index, mask)
    if (this.#point.on)
      this.#point.emit({
        what: 'interrupt-entry-cache',
        scope: index === undefined ? 'global' : `index ${index} mask ${mask}`,
      })
    this.#t.hooks.interruptEntryCacheInvalidated?.(index, mask)
  }

  #deviceTlb(
    requester: number,
    pasid: number,
    hi: number,
    lo: number,
    sized: boolean,
    global: boolean,
  ): void {
    const i = this.#ats
    const bits = sized ? sizeBits(hi, lo) : 12
    i.requester = requester
    i.pasid = pasid
    i.hi = bits >= 64 ? 0 : bits > 32 ? hi & ~((1 << (bits - 32)) - 1) : hi
    i.lo = bits >= 32 ? 0 : lo & ~((1 << bits) - 1)
    i.pageBits = bits
    i.global = global
    const completed = this.#t.deviceTlb(i)
    if (!completed && this.#timedOut < 0) this.#timedOut = requester
    if (this.#point.on)
      this.#point.emit({
        what: 'device-tlb',
        scope: completed ? 'completed' : 'timed out',
        requester,
        ...(pasid !== NO_PASID && { pasid }),
        address: join(i.hi, i.lo),
        pageBits: bits,
      })
    this.#t.hooks.deviceTlbInvalidated?.(requester, pasid, i.hi, i.lo, bits, global)
  }

  #wait(writes: boolean, interrupts: boolean, data: number, address: number): void {
    if (this.#timedOut >= 0) {
      this.#timeOut()
      return
    }
    if (writes) this.#t.memory.writeU32(address % this.#addressLimit, data >>> 0)
    if (this.#point.on)
      this.#point.emit({
        what: 'wait',
        scope: writes ? 'status' : interrupts ? 'interrupt' : 'fence',
      })
    const { ICS_REG } = this.#t.regs
    if (!interrupts || ICS_REG.IWC) return
    ICS_REG.IWC = true
    this.#event.raise()
  }

  #timeOut(): void {
    const { IQERCD_REG } = this.#t.regs
    IQERCD_REG.ITESID = this.#timedOut
    this.#timedOut = -1
    if (this.#point.on) this.#point.emit({ what: 'queue-error', scope: 'time-out' })
    this.#t.faults.error('ITE')
  }

  #error(code: number): boolean {
    this.#t.regs.IQERCD_REG.IQEI = code
    if (this.#point.on) this.#point.emit({ what: 'queue-error', scope: `IQEI ${code}` })
    this.#t.faults.error('IQE')
    return false
  }
}

/** Response codes 2 to 14 are reserved: the device is told of a failure. */
const responseCode = (rc: number): PageGroupResponse['code'] =>
  rc === 0 ? PRG_RESPONSE.SUCCESS : rc === 1 ? PRG_RESPONSE.INVALID : PRG_RESPONSE.FAILURE

/** log2 of the range that an address with S set stands for: the lowest clear bit from 12 up ends it (PCIe 10.2.3.2). */
function sizeBits(hi: number, lo: number): number {
  let bit = 12
  while (bit < 64 && ((bit < 32 ? lo >>> bit : hi >>> (bit - 32)) & 1) !== 0) bit++
  return Math.min(bit + 1, 64)
}
