// The guest's virtual SMMUv3: the same unit class as the host's, over guest memory. What the guest does to its stream table
// and caches becomes SET_PASID_TABLE and CACHE_INVALIDATE of the device's container; page requests, stalls and refused
// requests of the devices come back into its queues (fault-records.ts), and its answers go out by the same way.

import { join } from '../../base/addr.js'
import { VirtualClock } from '../../base/clock.js'
import { ErrnoError } from '../../base/errno.js'
import { TraceBus } from '../../base/trace.js'
import type { PageRange } from '../../iommu/smmu/caches.js'
import type { SmmuConfig } from '../../iommu/smmu/config.js'
import type { ConfigScope, TlbScope } from '../../iommu/smmu/hooks.js'
import type { SmmuWire } from '../../iommu/smmu/msi.js'
import { queueBits } from '../../iommu/smmu/queues.js'
import { SmmuUnit } from '../../iommu/smmu/unit.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { PageGroupResponse, PageRequest } from '../../pci/request.js'
import type { UnrecoverableFault } from '../page-requests.js'
import '../trace.js'
import type { Invalidation, StreamConfig, TableContainer } from './container.js'
import { eventRecord, stallRecord } from './fault-records.js'
import { readStream, sameStream } from './stream-table.js'

/** A device behind the virtual unit. Its StreamID is its requester id in the guest. */
export interface VirtualStream {
  readonly stream: number
  readonly container: TableContainer
  /** Takes the guest's answer to a page request or a stall to the device. */
  respond(response: PageGroupResponse): void
}

/** What the virtual unit needs from the VMM around it. */
export interface VirtualSmmuParts {
  readonly memory: AddressSpace
  readonly streams: readonly VirtualStream[]
  readonly trace: TraceBus
  /** An interrupt of the unit's own. */
  readonly wire: (wire: SmmuWire) => void
}

/** PRI response codes (PCIe 10.4.2.1) for a stall that is resumed, and for one that is aborted. */
const RETRY = 0
const ABORT = 1

/** What the guest's unit offers: stage 1 with substreams; stage 2 is the host's. Nothing here depends on the host's features. */
export const VIRTUAL_SMMU: Partial<SmmuConfig> = {
  stage2: false,
  hyp: false,
  substreamIdBits: 16,
  outputAddressBits: 44,
  virtualAddressBits: 48,
  tableUpdates: 'none',
  granules: [12],
  msi: false,
  sev: false,
}

interface Known {
  readonly device: VirtualStream
  /** What is in front of the device now. */
  now: StreamConfig
  /** Stalls that the guest has not answered, by tag; the pasid of each. */
  readonly stalls: Map<number, number>
}

/** A virtual SMMUv3 in front of nesting containers. */
export class VirtualSmmu {
  readonly #unit: SmmuUnit
  readonly #clock = new VirtualClock()
  readonly #memory: AddressSpace
  readonly #streams = new Map<number, Known>()
  /** Records of stalls that found the event queue full: they are never lost (IHI 0070 3.12.2). */
  #waiting: { readonly stream: number; readonly tag: number; readonly record: Uint8Array }[] = []
  readonly #tablePoint
  readonly #invalidatePoint
  readonly #stallPoint
  readonly #resumePoint
  readonly #eventPoint

  constructor({ memory, streams, trace, wire }: VirtualSmmuParts) {
    this.#memory = memory
    this.#tablePoint = trace.point('vmm.table')
    this.#invalidatePoint = trace.point('vmm.smmu-invalidate')
    this.#stallPoint = trace.point('vmm.stall')
    this.#resumePoint = trace.point('vmm.resume')
    this.#eventPoint = trace.point('vmm.smmu-event')
    for (const device of streams)
      this.#streams.set(device.stream, { device, now: { kind: 'bypass' }, stalls: new Map() })
    const respond = (r: PageGroupResponse) => this.#streams.get(r.requester)?.device.respond(r)
    this.#unit = new SmmuUnit({
      memory,
      config: VIRTUAL_SMMU,
      downstream: { invalidate: () => true, respond },
      interrupts: { message: () => {} },
      clock: this.#clock,
      // The guest's unit is not the machine's: its own commands would only confuse the trace.
      trace: new TraceBus(),
      wire,
      hooks: {
        enabled: () => this.#reconcileAll(),
        configInvalidated: (scope, stream, substream, bits) =>
          this.#configInvalidated(scope, stream, substream, bits),
        tlbInvalidated: (scope, _vmid, asid, range, leaf) =>
          this.#tlbInvalidated(scope, asid, range, leaf),
        deviceTlbInvalidated: (requester, pasid, hi, lo, pageBits, global) =>
          this.#deviceTlbInvalidated(requester, global ? -1 : pasid, hi, lo, pageBits),
        pageGroupResponse: respond,
        stallResumed: (stream, tag, retry) => this.#resume(stream, tag, retry),
        stallsTerminated: stream => this.#terminate(stream),
      },
    })
  }

  /** The guest's register read. */
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    return this.#unit.read(offset, size)
  }

  /** The guest's register write, with everything that follows from it. */
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    const { GBPA, CR0ACK } = this.#unit.regs
    const aborting = GBPA.ABORT
    this.#unit.write(offset, size, value)
    this.#clock.settle()
    if (aborting !== GBPA.ABORT && !CR0ACK.SMMUEN) this.#reconcileAll()
    this.#flush()
  }

  /** What is in front of a stream's device now. */
  stage(stream: number): StreamConfig | undefined {
    return this.#streams.get(stream)?.now
  }

  /** Puts a page request into the guest's queue. One that cannot be queued the unit answers itself (IHI 0070 8.1). */
  pageRequest(request: PageRequest): void {
    this.#unit.injectPageRequest(request)
    this.#clock.settle()
  }

  /** Tells the guest of a stalled access; false when nobody will ever answer it. */
  stall(request: PageRequest): boolean {
    const known = this.#streams.get(request.requester)
    const { CR0ACK } = this.#unit.regs
    if (known === undefined || !CR0ACK.SMMUEN || !CR0ACK.EVENTQEN) return false
    const { requester: stream, pasid, prgIndex: tag, write, hi, lo } = request
    known.stalls.set(tag, pasid)
    if (this.#stallPoint.on)
      this.#stallPoint.emit({ stream, pasid, tag, address: join(hi, lo), write })
    this.#waiting.push({ stream, tag, record: stallRecord(request) })
    this.#flush()
    return true
  }

  /** Tells the guest of a refused request, as far as its queue has room. */
  refused(stream: number, fault: UnrecoverableFault): void {
    const event = eventRecord(stream, fault)
    if (event === undefined) return
    this.#unit.injectEvent(event.record)
    this.#clock.settle()
    if (this.#eventPoint.on) this.#eventPoint.emit(event)
  }

  // Stalls go in as far as there is room; the rest follows when the guest has taken some.
  #flush(): void {
    while (
      this.#waiting.length > 0 &&
      this.#hasRoom() &&
      this.#unit.injectEvent(this.#waiting[0]!.record)
    )
      this.#waiting.shift()
    this.#clock.settle()
  }

  // A record that finds no room would count as lost.
  #hasRoom(): boolean {
    const { EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS } = this.#unit.regs
    const bits = queueBits(EVENTQ_BASE, this.#unit.config.eventQueueBits)
    return ((EVENTQ_PROD.WR - EVENTQ_CONS.RD) & (2 ** (bits + 1) - 1)) < 2 ** bits
  }

  #reconcileAll(): void {
    for (const known of this.#streams.values()) this.#reconcile(known)
  }

  /** Makes the stage in front of a device what the guest's registers and its entry say. */
  #reconcile(known: Known): void {
    const wanted = this.#wanted(known.device.stream)
    if (sameStream(known.now, wanted)) {
      if (wanted.kind === 'translate') this.#invalidate(known, { cache: 'contexts' })
      return
    }
    const refused = this.#set(known, wanted)
    // Never less than the guest asked for: what the host refuses, the device does not get.
    if (refused !== undefined) this.#set(known, { kind: 'abort' })
    if (wanted.kind !== 'translate') this.#terminate(known.device.stream)
  }

  #set(known: Known, config: StreamConfig): string | undefined {
    const refused = attempt(() => known.device.container.setTable(config))
    if (refused === undefined) known.now = config
    if (this.#tablePoint.on) {
      const { table, contextBits } =
        config.kind === 'translate' ? config : { table: 0, contextBits: 0 }
      const { stream } = known.device
      this.#tablePoint.emit({
        stream,
        config: config.kind,
        table,
        contextBits,
        ...refusal(refused),
      })
    }
    return refused
  }

  #wanted(stream: number): StreamConfig {
    const { CR0ACK, GBPA, STRTAB_BASE, STRTAB_BASE_CFG } = this.#unit.regs
    if (!CR0ACK.SMMUEN) return { kind: GBPA.ABORT ? 'abort' : 'bypass' }
    const table = {
      base: STRTAB_BASE.ADDR,
      format: STRTAB_BASE_CFG.FMT,
      split: STRTAB_BASE_CFG.SPLIT,
      log2size: STRTAB_BASE_CFG.LOG2SIZE,
    }
    return readStream(this.#memory, table, stream, this.#unit.config.substreamIdBits)
  }

  #configInvalidated(scope: ConfigScope, stream: number, pasid: number, bits: number): void {
    if (!this.#unit.regs.CR0ACK.SMMUEN) return
    for (const known of this.#streams.values()) {
      const mine = known.device.stream
      const named =
        scope === 'all' ||
        (scope === 'range'
          ? Math.floor(mine / 2 ** bits) === Math.floor(stream / 2 ** bits)
          : mine === stream)
      if (!named) continue
      if (scope === 'substream') this.#invalidate(known, { cache: 'contexts', pasid })
      else if (scope === 'substreams') this.#invalidate(known, { cache: 'contexts' })
      else this.#reconcile(known)
    }
  }

  #tlbInvalidated(
    scope: TlbScope,
    asid: number,
    range: PageRange | undefined,
    leaf: boolean,
  ): void {
    const byAsid = scope === 'nh-asid' || scope === 'nh-va'
    const pages = range && {
      address: BigInt(range.page) << 12n,
      pages: range.count,
      leaf,
    }
    for (const known of this.#streams.values())
      this.#invalidate(known, { cache: 'tlb', ...(byAsid ? { asid } : {}), ...pages })
  }

  #deviceTlbInvalidated(
    requester: number,
    pasid: number,
    hi: number,
    lo: number,
    pageBits: number,
  ): void {
    const known = this.#streams.get(requester)
    if (known === undefined) return
    const whole = pageBits >= 64
    // Without a PASID only a range can be named: the widest one is everything.
    const pages =
      whole && pasid >= 0 ? {} : { address: whole ? 0n : join(hi, lo), pages: 2 ** (pageBits - 12) }
    this.#invalidate(known, { cache: 'device-tlb', ...(pasid >= 0 ? { pasid } : {}), ...pages })
  }

  #invalidate(known: Known, what: Invalidation): void {
    if (known.now.kind !== 'translate') return
    const refused = attempt(() => known.device.container.invalidate(what))
    if (!this.#invalidatePoint.on) return
    const { leaf: _, ...told } = what
    this.#invalidatePoint.emit({ stream: known.device.stream, ...told, ...refusal(refused) })
  }

  #resume(stream: number, tag: number, retry: boolean): void {
    const known = this.#streams.get(stream)
    const pasid = known?.stalls.get(tag)
    if (known === undefined || pasid === undefined) return
    known.stalls.delete(tag)
    // One that was answered unseen is told no more.
    this.#waiting = this.#waiting.filter(w => w.stream !== stream || w.tag !== tag)
    if (this.#resumePoint.on) this.#resumePoint.emit({ stream, tag, retry })
    const code = retry ? RETRY : ABORT
    known.device.respond({ requester: stream, pasid, prgIndex: tag, code })
  }

  #terminate(stream: number): void {
    const known = this.#streams.get(stream)
    if (known !== undefined)
      for (const tag of [...known.stalls.keys()]) this.#resume(stream, tag, false)
  }
}

/** Runs an ioctl whose refusal the guest must not crash the VMM with; the errno's name, or undefined. */
function attempt(call: () => void): string | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

const refusal = (refused: string | undefined) => (refused === undefined ? {} : { refused })
