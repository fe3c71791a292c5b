/**
 * A VT-d remapping unit: its registers and what happens when software writes them. The parts do the
 * work: entries.ts and translate.ts (requests), invalidate.ts (queue), faults.ts, page-requests.ts and
 * remap.ts (interrupts), protected.ts (memory). The advanced fault log, MTRRs, performance monitoring and
 * enhanced commands are not there: their registers read zero. The driver's half is driver.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { type LiveRegisters, RegisterFile } from '../../base/registers.js'
import type { TraceBus, TracePoint } from '../../base/trace.js'
import type { AddressSpace, MmioTarget } from '../../mem/address-space.js'
import type { CacheObserver } from '../../pci/atc-observer.js'
import type {
  AtsInvalidation,
  MemoryRequest,
  PageGroupResponse,
  PageRequest,
  Translation,
} from '../../pci/request.js'
import type { DownstreamPort, MessageSink, UpstreamTranslator } from '../../pci/upstream.js'
import type { StaleUseDetector } from '../stale-use.js'
import { setCapabilities, type VtdConfig, vtdConfig } from './config.js'
import { EventInterrupt } from './events.js'
import type { FaultTrail } from './fault-trail.js'
import { FaultLog, type VtdFault } from './faults.js'
import type { VirtualCommandResult, VtdHooks } from './hooks.js'
import { Invalidation } from './invalidate.js'
import { PageRequestQueue } from './page-requests.js'
import {
  FRCD_OFFSET,
  FRCD_SIZE,
  TTM,
  VCRSP_STATUS,
  VIRTUAL_COMMAND,
  VTD_MMIO_SIZE,
  type VTD_REGISTERS,
  vtdBank,
} from './registers.js'
import { InterruptRemapper } from './remap.js'
import type { VtdStaleUse } from './stale-use.js'
import type { RegisterEvent } from './trace.js'
import { Translator } from './translate.js'

/** What a unit is built from. */
export interface VtdUnitOptions {
  /** Physical memory: the unit reads its tables and queues there, and answers with its addresses. */
  readonly memory: AddressSpace
  /** Changes to `VTD_DEFAULTS`. */
  readonly config?: Partial<VtdConfig>
  /** Where invalidations and page group responses go. */
  readonly downstream: DownstreamPort
  /** Where interrupts go: remapped ones of functions, and the unit's own. */
  readonly interrupts: MessageSink
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** For a unit that a VMM shows to its guest. */
  readonly hooks?: VtdHooks
  /** Looks for stale use while there is one. */
  readonly staleUse?: StaleUseDetector | undefined
  /** Called at every fault, recorded or not. */
  readonly onFault?: (fault: VtdFault) => void
}

/**
 * A VT-d unit. It translates requests (`UpstreamTranslator`), remaps interrupt messages (`MessageSink`)
 * and answers at its register page (`MmioTarget`).
 */
export class VtdUnit implements UpstreamTranslator, MessageSink, MmioTarget {
  readonly config: VtdConfig
  /** Live registers, for the model and for tests; software uses `read` and `write`. */
  readonly regs: LiveRegisters<typeof VTD_REGISTERS>
  readonly #file: RegisterFile<typeof VTD_REGISTERS>
  readonly #downstream: DownstreamPort
  readonly #hooks: VtdHooks
  readonly #faults: FaultLog
  readonly #remapper: InterruptRemapper
  readonly #translator: Translator
  readonly #invalidation: Invalidation
  readonly #pageRequests: PageRequestQueue
  readonly #faultEvent: EventInterrupt
  readonly #completionEvent: EventInterrupt
  readonly #pageRequestEvent: EventInterrupt
  readonly #register: TracePoint<RegisterEvent>
  readonly #response: TracePoint<PageGroupResponse>
  readonly #names: readonly (readonly [name: string, offset: number, size: number])[]
  /** Offsets of VCMD_REG and VCRSP_REG; -1 without virtual commands. */
  readonly #vcmd: number = -1
  readonly #vcrsp: number = -1
  readonly #stale: VtdStaleUse | undefined

  constructor(options: VtdUnitOptions) {
    const { memory, interrupts, clock, trace } = options
    const config = vtdConfig(options.config)
    this.config = config
    this.#downstream = options.downstream
    this.#hooks = options.hooks ?? {}
    this.#register = trace.point('vtd.register')
    this.#response = trace.point('vtd.page-response')
    const bank = vtdBank(config)
    this.#names = Object.entries(bank).map(([name, r]) => [name, r.offset, r.size] as const)
    if (config.virtualCommand) {
      this.#vcmd = VIRTUAL_COMMAND[config.edition].VCMD_REG.offset
      this.#vcrsp = VIRTUAL_COMMAND[config.edition].VCRSP_REG.offset
    }
    this.#file = new RegisterFile<typeof VTD_REGISTERS>(bank, {
      onWrite: {
        GCMD_REG: command => this.#globalCommand(command),
        CCMD_REG: () => this.#contextCommand(),
        IOTLB_REG: () => this.#iotlbCommand(),
        FSTS_REG: () => this.#faultStatusWritten(),
        FECTL_REG: () => this.#faultEvent.deliver(),
        IECTL_REG: () => this.#completionEvent.deliver(),
        PECTL_REG: () => this.#pageRequestEvent.deliver(),
        PMEN_REG: () => this.#protect(),
        IQT_REG: () => this.#invalidation.run(),
        ICS_REG: () => this.#invalidation.acknowledge(),
        PRS_REG: () => this.#pageRequests.acknowledge(),
      },
    })
    const { regs } = this.#file
    this.regs = regs
    this.#faultEvent = new EventInterrupt(
      regs.FECTL_REG,
      regs.FEDATA_REG,
      regs.FEADDR_REG,
      regs.FEUADDR_REG,
      interrupts,
    )
    this.#completionEvent = new EventInterrupt(
      regs.IECTL_REG,
      regs.IEDATA_REG,
      regs.IEADDR_REG,
      regs.IEUADDR_REG,
      interrupts,
    )
    this.#pageRequestEvent = new EventInterrupt(
      regs.PECTL_REG,
      regs.PEDATA_REG,
      regs.PEADDR_REG,
      regs.PEUADDR_REG,
      interrupts,
    )
    const faults = new FaultLog(
      this.#file,
      config.faultRecords,
      this.#faultEvent,
      clock,
      trace.point('vtd.fault'),
      options.onFault,
    )
    this.#faults = faults
    this.#remapper = new InterruptRemapper(memory, interrupts, faults, config)
    const translator = new Translator(memory, config, faults, trace.point('vtd.translate'))
    this.#translator = translator
    const respond = (r: PageGroupResponse) => this.#respond(r)
    this.#pageRequests = new PageRequestQueue(
      {
        regs,
        memory,
        admit: m => translator.admitPageRequest(m),
        forget: m => translator.forgetPage(m),
        respond,
      },
      this.#pageRequestEvent,
      trace.point('vtd.page-request'),
    )
    this.#invalidation = new Invalidation(
      {
        bytes: this.#file.bytes,
        regs,
        config,
        memory,
        faults,
        hooks: this.#hooks,
        caches: translator.caches,
        interruptEntries: (index, mask) => this.#remapper.invalidate(index, mask),
        deviceTlb: (i: AtsInvalidation) => this.#downstream.invalidate(i),
        respond,
      },
      this.#completionEvent,
      trace.point('vtd.invalidate'),
      run => clock.timer(run),
    )
    if (options.staleUse) this.#stale = translator.detect(options.staleUse)
    this.reset()
  }

  /** Power-on reset: registers, caches and queues; memory is as it was. */
  reset(): void {
    this.#file.reset()
    setCapabilities(this.regs, this.config)
    if (this.config.virtualCommand)
      this.#file.bytes[VIRTUAL_COMMAND[this.config.edition].VCCAP_REG.offset] = 1
    this.#protect()
    this.#translator.reset()
    this.#remapper.reset()
    this.#invalidation.reset()
    this.#faults.reset()
  }

  /** The last fault of this unit, recorded or not. */
  get lastFault(): VtdFault | undefined {
    return this.#faults.last
  }

  /** Latched address of the scalable-mode root table; 0 while there is none. */
  get rootTable(): number {
    return this.regs.GSTS_REG.RTPS && this.#translator.entries.mode === TTM.SCALABLE
      ? this.#translator.entries.root
      : 0
  }

  /** What a function's translation cache must tell so that stale use in it is found; undefined when nobody looks. */
  cacheObserver(requester: () => number): CacheObserver | undefined {
    return this.#stale?.observer(requester)
  }

  /** What the tables say of an address under a PASID (or `NO_PASID`), past all caches and without a trace in them. */
  look(requester: number, pasid: number, address: bigint, write = false): FaultTrail {
    return this.#translator.trails.whole(requester, pasid, address, write)
  }

  /** Software's read of a register. */
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    const value = this.#file.read(offset, size)
    if (this.#register.on) this.#traceRegister(false, offset, size, value)
    return value
  }

  /** The same for an aligned 32-bit word. */
  read32(offset: number): number {
    return this.#register.on ? Number(this.read(offset, 4)) : this.#file.read32(offset)
  }

  /** Software's write to a register, with everything that follows from it. */
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (this.#register.on) this.#traceRegister(true, offset, size, value)
    this.#file.write(offset, size, value)
    const records = FRCD_OFFSET + this.config.faultRecords * FRCD_SIZE
    if (offset + size > FRCD_OFFSET && offset < records) this.#faults.acknowledge()
    if (offset <= this.#vcmd && offset + size > this.#vcmd) this.#virtualCommand()
  }

  /** The same for an aligned 32-bit word, which is how a driver rings the queue. */
  write32(offset: number, value: number): void {
    const plain = offset < FRCD_OFFSET && offset >>> 3 !== this.#vcmd >>> 3
    if (this.#register.on || !plain) this.write(offset, 4, BigInt(value >>> 0))
    else this.#file.write32(offset, value)
  }

  get answers(): number {
    return this.#translator.answers
  }

  translate(r: MemoryRequest, into: Translation): void {
    this.#translator.translate(r, into)
  }

  translateAts(r: MemoryRequest, into: Translation): void {
    this.#translator.translateAts(r, into)
  }

  pageRequest(m: PageRequest): void {
    this.#pageRequests.take(m)
  }

  /** Puts a page request into this unit's queue as a device would; false when it was not queued. */
  injectPageRequest(m: PageRequest): boolean {
    return this.#pageRequests.take(m) === 'queued'
  }

  message(requester: number, address: number, data: number): void {
    this.#remapper.message(requester, address, data)
  }

  #respond(r: PageGroupResponse): void {
    if (this.#response.on) this.#response.emit({ ...r })
    if (this.#hooks.pageGroupResponse) this.#hooks.pageGroupResponse(r)
    else this.#downstream.respond(r)
  }

  /** GCMD_REG, 11.4.4.1: TE, QIE, IRE and CFI are levels, the rest are commands. */
  #globalCommand(command: {
    readonly TE: boolean
    readonly SRTP: boolean
    readonly QIE: boolean
    readonly IRE: boolean
    readonly SIRTP: boolean
    readonly CFI: boolean
  }): void {
    const { config, regs } = this
    const { GSTS_REG: status } = regs
    const width = 2 ** config.hostAddressWidth
    if (command.SRTP) {
      this.#translator.latchRoot(regs.RTADDR_REG.RTA % width, regs.RTADDR_REG.TTM)
      status.RTPS = true
    }
    if (command.SIRTP && config.interruptRemapping) {
      const { IRTA, S, EIME } = regs.IRTA_REG
      this.#remapper.latch(IRTA % width, 2 << S, EIME && config.extendedInterruptMode)
      status.IRTPS = true
    }
    status.TES = command.TE
    this.#translator.enable(command.TE)
    status.IRES = command.IRE && config.interruptRemapping
    status.CFIS = command.CFI && config.interruptRemapping
    this.#remapper.enable(status.IRES, status.CFIS)
    if (!status.TES && !status.IRES) this.#faults.rewind()
    const queue = command.QIE && config.queuedInvalidation
    if (status.QIES !== queue) {
      status.QIES = queue
      if (!queue) this.#invalidation.disable()
    }
    this.#invalidation.run()
  }

  /** PMEN_REG, 11.4.8.1: answers of before do not hold any more. */
  #protect(): void {
    this.#translator.protectedMemory.latch(this.regs, this.config)
    this.#translator.caches.touch()
  }

  /** CCMD_REG, 11.4.6.1: legacy mode only; granularity 0 in CAIG means refused. */
  #contextCommand(): void {
    const { CCMD_REG: ccmd } = this.regs
    if (!ccmd.ICC) return
    ccmd.CAIG = this.#registerInvalidation() ? ccmd.CIRG : 0
    if (ccmd.CAIG !== 0) this.#invalidation.contextCache(ccmd.CAIG, ccmd.DID, ccmd.SID, ccmd.FM)
    ccmd.ICC = false
  }

  /** IOTLB_REG, 11.4.6.3. */
  #iotlbCommand(): void {
    const { IOTLB_REG: command, IVA_REG: iva } = this.regs
    if (!command.IVT) return
    const usable =
      this.#registerInvalidation() && (command.IIRG !== 3 || iva.AM <= this.regs.CAP_REG.MAMV)
    command.IAIG = usable ? command.IIRG : 0
    if (command.IAIG !== 0) {
      const page = iva.ADDR
      const hi = Number(page >> 20n) | 0
      const lo = Number((page << 12n) & 0xffff_ffffn) | 0
      this.#invalidation.iotlb(command.IAIG, command.DID, hi, lo, iva.AM, iva.IH)
    }
    command.IVT = false
  }

  #registerInvalidation(): boolean {
    return this.#translator.entries.mode === TTM.LEGACY && this.config.version.major <= 5
  }

  #faultStatusWritten(): void {
    this.#faults.acknowledge()
    this.#invalidation.run()
  }

  /** VCMD_REG, 11.4.16.1: the response is there when the write returns. */
  #virtualCommand(): void {
    const view = new DataView(this.#file.bytes.buffer, this.#file.bytes.byteOffset)
    const value = view.getBigUint64(this.#vcmd, true)
    const { edition } = this.config
    const modern = edition === '3.3'
    const operand = Number((value >> (modern ? 16n : 8n)) & 0xf_ffffn)
    const answer: VirtualCommandResult = this.#hooks.virtualCommand?.(
      Number(value & 0xffn),
      operand,
    ) ?? { status: 'undefined', result: 0 }
    const codes = VCRSP_STATUS[edition]
    const status = {
      success: codes.SUCCESS,
      'no-pasid': codes.NO_PASID,
      'invalid-pasid': codes.INVALID_PASID,
      undefined: codes.UNDEFINED_COMMAND,
    }[answer.status]
    const result = BigInt(answer.result & 0xf_ffff) << (modern ? 16n : 8n)
    view.setBigUint64(this.#vcrsp, result | BigInt(status << 1), true)
  }

  #traceRegister(write: boolean, offset: number, size: number, value: bigint): void {
    const found = this.#names.find(([, at, bytes]) => offset >= at && offset < at + bytes)
    this.#register.emit({ write, name: found?.[0] ?? '-', offset, size, value })
  }

  /** Bytes of MMIO space the unit decodes. */
  static readonly mmioSize = VTD_MMIO_SIZE
}
