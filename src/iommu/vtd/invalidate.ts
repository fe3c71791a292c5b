/**
 * Invalidation: the queue with its descriptors, and the two invalidation registers of legacy mode
 * (VT-d 6.5, 11.4.6). Descriptors execute one at a time, in order, when software moves the tail. What
 * is dropped is caches.ts's and remap.ts's business; errors go to the fault log.
 */
import type { Timer } from '../../base/clock.js'
import type { Field, Layout } from '../../base/fields.js'
import type { LiveRegisters } from '../../base/registers.js'
import type { TracePoint } from '../../base/trace.js'
import {
  type AtsInvalidation,
  NO_PASID,
  type PageGroupResponse,
  PRG_RESPONSE,
} from '../../pci/request.js'
import { MAMV, type VtdConfig } from './config.js'
import {
  CONTEXT_CACHE_DESCRIPTOR,
  DESCRIPTOR,
  DEVICE_TLB_DESCRIPTOR,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
  IOTLB_DESCRIPTOR,
  PAGE_GROUP_RESPONSE_DESCRIPTOR,
  PASID_CACHE_DESCRIPTOR,
  PASID_DEVICE_TLB_DESCRIPTOR,
  PASID_IOTLB_DESCRIPTOR,
  WAIT_DESCRIPTOR,
} from './descriptors.js'
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
  readonly regs: LiveRegisters<typeof VTD_REGISTERS>
  readonly config: VtdConfig
  readonly memory: {
    read(addr: number, into: Uint8Array): boolean
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

const buffer = (): Uint8Array => new Uint8Array(32)

/** The bits of a descriptor that may be set, word by word. */
function allowed(layout: Layout, also: readonly (readonly [hi: number, lo: number])[] = []) {
  const words = new Uint32Array(8)
  const ranges = Object.values<Field>(layout.fields).map(f => [f.hi, f.lo] as const)
  for (const [hi, lo] of [...ranges, ...also])
    for (let bit = lo; bit <= hi; bit++) words[bit >> 5]! |= 1 << (bit & 31)
  return words
}

const ALLOWED: Readonly<Record<number, Uint32Array>> = {
  [DESCRIPTOR.CONTEXT_CACHE]: allowed(CONTEXT_CACHE_DESCRIPTOR),
  [DESCRIPTOR.IOTLB]: allowed(IOTLB_DESCRIPTOR),
  [DESCRIPTOR.DEVICE_TLB]: allowed(DEVICE_TLB_DESCRIPTOR),
  [DESCRIPTOR.INTERRUPT_ENTRY_CACHE]: allowed(INTERRUPT_ENTRY_CACHE_DESCRIPTOR),
  [DESCRIPTOR.WAIT]: allowed(WAIT_DESCRIPTOR),
  [DESCRIPTOR.PASID_IOTLB]: allowed(PASID_IOTLB_DESCRIPTOR),
  [DESCRIPTOR.PASID_CACHE]: allowed(PASID_CACHE_DESCRIPTOR),
  [DESCRIPTOR.PASID_DEVICE_TLB]: allowed(PASID_DEVICE_TLB_DESCRIPTOR),
  // Bit 66 is ignored: older software copies LPIG there.
  [DESCRIPTOR.PAGE_GROUP_RESPONSE]: allowed(PAGE_GROUP_RESPONSE_DESCRIPTOR, [[66, 66]]),
}

/** The invalidation queue and registers of one unit. */
export class Invalidation {
  readonly #t: InvalidationTargets
  readonly #event: EventInterrupt
  readonly #point: TracePoint<InvalidationEvent>
  readonly #bytes = buffer()
  readonly #words = new Uint32Array(this.#bytes.buffer)
  readonly #contextCache = CONTEXT_CACHE_DESCRIPTOR.at(this.#bytes)
  readonly #pasidCache = PASID_CACHE_DESCRIPTOR.at(this.#bytes)
  readonly #iotlb = IOTLB_DESCRIPTOR.at(this.#bytes)
  readonly #pasidIotlb = PASID_IOTLB_DESCRIPTOR.at(this.#bytes)
  readonly #deviceTlb = DEVICE_TLB_DESCRIPTOR.at(this.#bytes)
  readonly #pasidDeviceTlb = PASID_DEVICE_TLB_DESCRIPTOR.at(this.#bytes)
  readonly #entryCache = INTERRUPT_ENTRY_CACHE_DESCRIPTOR.at(this.#bytes)
  readonly #wait = WAIT_DESCRIPTOR.at(this.#bytes)
  readonly #response = PAGE_GROUP_RESPONSE_DESCRIPTOR.at(this.#bytes)
  readonly #half = new Uint8Array(this.#bytes.buffer, 0, 16)
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
    const { regs } = this.#t
    for (let left = 256 << regs.IQA_REG.QS; this.#executeOne(); left--) {
      if (left === 0) {
        this.#again.start()
        break
      }
    }
    this.#running = false
  }

  /** Executes the descriptor at the head; false when there is none or the queue is stopped. */
  #executeOne(): boolean {
    const { regs, config, memory } = this.#t
    if (!regs.GSTS_REG.QIES || regs.FSTS_REG.IQE || regs.FSTS_REG.ITE) return false
    const { DW: wide, QS } = regs.IQA_REG
    const units = 256 << QS // a queue's size in 16-byte units, as heads and tails count
    const tail = regs.IQT_REG.QT
    const head = regs.IQH_REG.QH
    if (head === tail) {
      if (this.#timedOut >= 0) this.#timeOut()
      return false
    }
    const mode = this.#t.caches.mode
    if (tail >= units) return this.#error(IQEI.INVALID_TAIL)
    if (wide && (tail & 1) !== 0) return this.#error(IQEI.MISALIGNED_TAIL)
    if (mode === 2) return this.#error(IQEI.INVALID_TTM)
    if (wide ? !config.scalableMode && !config.abortDma : mode !== TTM.LEGACY)
      return this.#error(IQEI.INVALID_WIDTH)
    const at = regs.IQA_REG.IQA + head * 16
    if (!memory.read(at, wide ? this.#bytes : this.#half)) return this.#error(IQEI.FETCH_FAILED)
    if (!wide) this.#words.fill(0, 4)

    const type = ((this.#words[0]! >>> 5) & 0x70) | (this.#words[0]! & 0xf)
    if (!this.#known(type, wide && mode !== TTM.LEGACY)) return this.#error(IQEI.INVALID_TYPE)
    if (!this.#wellFormed(type)) return this.#error(IQEI.RESERVED_FIELD)
    const step = wide ? 2 : 1
    regs.IQH_REG.QH = head + step >= units ? 0 : head + step
    this.#execute(type)
    return true
  }

  #known(type: number, withPasid: boolean): boolean {
    const { config } = this.#t
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE:
      case DESCRIPTOR.IOTLB:
      case DESCRIPTOR.WAIT:
        return true
      case DESCRIPTOR.INTERRUPT_ENTRY_CACHE:
        return config.interruptRemapping
      case DESCRIPTOR.DEVICE_TLB:
        return config.deviceTlb
      case DESCRIPTOR.PASID_IOTLB:
      case DESCRIPTOR.PASID_CACHE:
        return withPasid
      case DESCRIPTOR.PASID_DEVICE_TLB:
        return withPasid && config.deviceTlb
      case DESCRIPTOR.PAGE_GROUP_RESPONSE:
        return withPasid && config.pageRequests
      default:
        return false
    }
  }

  /** Checks reserved fields and reserved values of granularities. */
  #wellFormed(type: number): boolean {
    const { config } = this.#t
    const words = this.#words
    const mask = ALLOWED[type]!
    for (let i = 0; i < 8; i++) if ((words[i]! & ~mask[i]!) !== 0) return false
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE:
        return this.#contextCache.G !== 0
      case DESCRIPTOR.PASID_CACHE:
        return this.#pasidCache.G !== 2
      case DESCRIPTOR.IOTLB:
        return this.#iotlb.G !== 0 && (this.#iotlb.G !== 3 || this.#iotlb.AM <= MAMV)
      case DESCRIPTOR.PASID_IOTLB:
        return this.#pasidIotlb.G >= 2
      case DESCRIPTOR.WAIT:
        return config.pageRequestDrain || !this.#wait.PD
      case DESCRIPTOR.DEVICE_TLB:
        return (
          config.deviceTlbThrottle || (this.#deviceTlb.PFSID_HI | this.#deviceTlb.PFSID_LO) === 0
        )
      case DESCRIPTOR.PASID_DEVICE_TLB:
        return (
          config.deviceTlbThrottle ||
          (this.#pasidDeviceTlb.PFSID_HI | this.#pasidDeviceTlb.PFSID_LO) === 0
        )
      default:
        return true
    }
  }

  #execute(type: number): void {
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE: {
        const { G, DID, SID, FM } = this.#contextCache
        this.contextCache(G, DID, SID, FM)
        return
      }
      case DESCRIPTOR.PASID_CACHE:
        this.#executePasidCache()
        return
      case DESCRIPTOR.IOTLB: {
        const d = this.#iotlb
        this.iotlb(d.G, d.DID, d.ADDR_HI | 0, (d.ADDR_LO << 12) | 0, d.AM, d.IH)
        return
      }
      case DESCRIPTOR.PASID_IOTLB:
        this.#executePasidIotlb()
        return
      case DESCRIPTOR.DEVICE_TLB: {
        const d = this.#deviceTlb
        this.#executeDeviceTlb(d.SID, NO_PASID, d.ADDR_HI | 0, (d.ADDR_LO << 12) | 0, d.S, false)
        return
      }
      case DESCRIPTOR.PASID_DEVICE_TLB: {
        const d = this.#pasidDeviceTlb
        this.#executeDeviceTlb(d.SID, d.PASID, d.ADDR_HI | 0, (d.ADDR_LO << 12) | 0, d.S, d.G)
        return
      }
      case DESCRIPTOR.INTERRUPT_ENTRY_CACHE: {
        const { G, IIDX, IM } = this.#entryCache
        this.#t.interruptEntries(G ? IIDX : undefined, IM)
        this.#trace('interrupt-entry-cache', G ? `index ${IIDX} mask ${IM}` : 'global')
        this.#t.hooks.interruptEntryCacheInvalidated?.(G ? IIDX : undefined, IM)
        return
      }
      case DESCRIPTOR.WAIT:
        this.#executeWait()
        return
      default: {
        const { RID, PP, PASID, PRGI, RC } = this.#response
        const code =
          RC === 0 ? PRG_RESPONSE.SUCCESS : RC === 1 ? PRG_RESPONSE.INVALID : PRG_RESPONSE.FAILURE
        this.#t.respond({ requester: RID, pasid: PP ? PASID : NO_PASID, prgIndex: PRGI, code })
        return
      }
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
        ...(scope === 'page' && { address: address(hi, lo), pageBits: 12 + order }),
      })
    t.hooks.iotlbInvalidated?.(scope, did, NO_PASID, hi, lo, order, leaf)
  }

  #executePasidCache(): void {
    const { G, DID, PASID } = this.#pasidCache
    const scope = G === 3 ? 'global' : G === 1 ? 'pasid' : 'domain'
    this.#t.caches.pasidCache(scope, DID, PASID)
    if (this.#point.on)
      this.#point.emit({
        what: 'pasid-cache',
        scope,
        ...(scope !== 'global' && { did: DID }),
        ...(scope === 'pasid' && { pasid: PASID }),
      })
    this.#t.hooks.pasidCacheInvalidated?.(scope, DID, PASID)
  }

  #executePasidIotlb(): void {
    const d = this.#pasidIotlb
    const { DID, PASID, AM } = d
    const page = d.G === 3
    const hi = d.ADDR_HI | 0
    const lo = (d.ADDR_LO << 12) | 0
    this.#t.caches.pasidIotlb(page ? 'page' : 'pasid', DID, PASID, hi, lo, AM)
    if (this.#point.on)
      this.#point.emit({
        what: 'pasid-iotlb',
        scope: page ? 'page' : 'pasid',
        did: DID,
        pasid: PASID,
        ...(page && { address: address(hi, lo), pageBits: 12 + AM }),
      })
    this.#t.hooks.iotlbInvalidated?.(page ? 'pasid-page' : 'pasid', DID, PASID, hi, lo, AM, d.IH)
  }

  #executeDeviceTlb(
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
        address: address(i.hi, i.lo),
        pageBits: bits,
      })
    this.#t.hooks.deviceTlbInvalidated?.(requester, pasid, i.hi, i.lo, bits, global)
  }

  #executeWait(): void {
    if (this.#timedOut >= 0) {
      this.#timeOut()
      return
    }
    const { SW, IF, STDATA, STADDR } = this.#wait
    if (SW) this.#t.memory.writeU32(STADDR % 2 ** this.#t.config.hostAddressWidth, STDATA)
    this.#trace('wait', SW ? 'status' : IF ? 'interrupt' : 'fence')
    const { ICS_REG } = this.#t.regs
    if (!IF || ICS_REG.IWC) return
    ICS_REG.IWC = true
    this.#event.raise()
  }

  #timeOut(): void {
    const { IQERCD_REG } = this.#t.regs
    IQERCD_REG.ITESID = this.#timedOut
    this.#timedOut = -1
    this.#trace('queue-error', 'time-out')
    this.#t.faults.error('ITE')
  }

  #error(code: number): boolean {
    this.#t.regs.IQERCD_REG.IQEI = code
    this.#trace('queue-error', `IQEI ${code}`)
    this.#t.faults.error('IQE')
    return false
  }

  #trace(what: InvalidationEvent['what'], scope: string): void {
    if (this.#point.on) this.#point.emit({ what, scope })
  }
}

const address = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)

/** log2 of the range that an address with S set stands for: the lowest clear bit from 12 up ends it (PCIe 10.2.3.2). */
function sizeBits(hi: number, lo: number): number {
  let bit = 12
  while (bit < 64 && ((bit < 32 ? lo >>> bit : hi >>> (bit - 32)) & 1) !== 0) bit++
  return Math.min(bit + 1, 64)
}
