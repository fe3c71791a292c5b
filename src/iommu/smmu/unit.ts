/**
 * An SMMUv3: its registers and what happens when software writes them. The parts do the work: streams.ts and
 * contexts.ts (tables), translate.ts and ats.ts (requests), execute.ts (commands), faults.ts, stalls.ts,
 * page-requests.ts, msi.ts. Secure and Realm state, ATOS, MPAM, performance monitors and broadcast
 * invalidation are not there: their registers read zero. The driver's half is driver.ts.
 */
import type { VirtualClock } from '../../base/clock.js'
import { type LiveRegisters, RegisterFile } from '../../base/registers.js'
import type { TraceBus, TracePoint } from '../../base/trace.js'
import type { AddressSpace, MmioTarget } from '../../mem/address-space.js'
import type { CacheObserver } from '../../pci/atc-observer.js'
import {
  AT,
  COMPLETION,
  MemoryRequest,
  NO_PASID,
  type PageGroupResponse,
  type PageRequest,
  Translation,
} from '../../pci/request.js'
import type { DownstreamPort, MessageSink, UpstreamTranslator } from '../../pci/upstream.js'
import type { StaleUseDetector } from '../stale-use.js'
import { type SmmuConfig, setIdentification, smmuConfig } from './config.js'
import { EVENT_SIZE } from './events.js'
import { Commands } from './execute.js'
import type { FaultTrail } from './fault-trail.js'
import { FaultLog, type SmmuFault } from './faults.js'
import { GlobalErrors } from './global-errors.js'
import type { SmmuHooks } from './hooks.js'
import { Interrupts, type SmmuWire } from './msi.js'
import { PageRequestQueue } from './page-requests.js'
import { OutputQueue } from './queues.js'
import { GUARDED, SMMU, SMMU_MMIO_SIZE, type SMMU_REGISTERS, STALL_MODEL } from './registers.js'
import type { SmmuStaleUse } from './stale-use.js'
import { Stalls } from './stalls.js'
import type { RegisterEvent } from './trace.js'
import { Translator } from './translate.js'

/** What a unit is built from. */
export interface SmmuUnitOptions {
  /** Physical memory: the unit reads its tables and queues there, and answers with its addresses. */
  readonly memory: AddressSpace
  /** Changes to `SMMU_DEFAULTS`. */
  readonly config?: Partial<SmmuConfig>
  /** Where invalidations, page group responses and the outcome of stalls go. */
  readonly downstream: DownstreamPort
  /** Where interrupt messages go, of functions and the unit's own: writes to the doorbell. */
  readonly interrupts: MessageSink
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** For a unit that a VMM shows to its guest. */
  readonly hooks?: SmmuHooks
  /** Looks for stale use while there is one. */
  readonly staleUse?: StaleUseDetector | undefined
  /** Called at every fault, recorded or not. */
  readonly onFault?: (fault: SmmuFault) => void
  /** Interrupts whose message address is zero. */
  readonly wire?: (wire: SmmuWire) => void
  /** CMD_SYNC with CS = SIG_SEV. */
  readonly sendEvent?: () => void
}

/** The bit that makes a register read-only, by the register's words. */
const GUARDS = new Map<number, keyof typeof GUARDED>()
for (const [bit, names] of Object.entries(GUARDED))
  for (const name of names) {
    const { offset, size } = SMMU[name]
    for (let at = offset; at < offset + size; at += 4)
      GUARDS.set(at >> 2, bit as keyof typeof GUARDED)
  }

/**
 * An SMMUv3. It translates requests (`UpstreamTranslator`) and the addresses of interrupt messages, which to
 * it are ordinary writes (`MessageSink`), and answers at its register pages (`MmioTarget`).
 */
export class SmmuUnit implements UpstreamTranslator, MessageSink, MmioTarget {
  readonly config: SmmuConfig
  /** Live registers, for the model and for tests; software uses `read` and `write`. */
  readonly regs: LiveRegisters<typeof SMMU_REGISTERS>
  readonly #file: RegisterFile<typeof SMMU_REGISTERS>
  readonly #downstream: DownstreamPort
  readonly #hooks: SmmuHooks
  readonly #faults: FaultLog
  readonly #stalls: Stalls
  readonly #translator: Translator
  readonly #interrupts: Interrupts
  readonly #events: OutputQueue
  readonly #commands: Commands
  readonly #pageRequests: PageRequestQueue
  readonly #register: TracePoint<RegisterEvent>
  readonly #response: TracePoint<PageGroupResponse>
  readonly #message = new MemoryRequest()
  readonly #answer = new Translation()
  readonly #stale: SmmuStaleUse | undefined

  constructor(options: SmmuUnitOptions) {
    const { memory, clock, trace } = options
    const config = smmuConfig(options.config)
    this.config = config
    this.#downstream = options.downstream
    this.#hooks = options.hooks ?? {}
    this.#register = trace.point('smmu.register')
    this.#response = trace.point('smmu.page-response')
    this.#file = new RegisterFile<typeof SMMU_REGISTERS>(SMMU, {
      onWrite: {
        CR0: () => this.#control(),
        IRQ_CTRL: written => {
          this.regs.IRQ_CTRLACK.$value = written.$value & 7n
        },
        GBPA: () => {
          this.regs.GBPA.UPDATE = false
          this.#translator.caches.touch()
        },
        GERRORN: () => {
          this.#commands.run()
          this.#stalls.flush()
        },
        CMDQ_PROD: () => this.#commands.run(),
        EVENTQ_CONS: () => this.#stalls.flush(),
      },
    })
    const { regs } = this.#file
    this.regs = regs
    const interrupts = new Interrupts(regs, config, {
      messages: options.interrupts,
      memory,
      wire: options.wire,
    })
    this.#interrupts = interrupts
    const errors = new GlobalErrors(regs, () => interrupts.globalError())
    interrupts.errors = errors
    this.#events = new OutputQueue(
      {
        base: regs.EVENTQ_BASE,
        producer: regs.EVENTQ_PROD,
        consumer: regs.EVENTQ_CONS,
        enabled: () => regs.CR0ACK.EVENTQEN,
      },
      memory,
      errors,
      'EVENTQ_ABT_ERR',
      config.eventQueueBits,
      () => interrupts.eventQueue(),
    )
    const faults = new FaultLog(
      this.#events,
      clock,
      trace.point('smmu.fault'),
      config.eventMergeNs,
      options.onFault,
    )
    this.#faults = faults
    const { downstream } = options
    const stalls = new Stalls(
      faults,
      trace.point('smmu.stall'),
      config.stalls,
      downstream.resume && ((...answer) => downstream.resume?.(...answer)),
    )
    this.#stalls = stalls
    const translator = new Translator(
      memory,
      config,
      regs,
      { faults, stalls },
      trace.point('smmu.translate'),
    )
    this.#translator = translator
    const respond = (r: PageGroupResponse) => this.#respond(r)
    this.#pageRequests = new PageRequestQueue(
      {
        queue: new OutputQueue(
          {
            base: regs.PRIQ_BASE,
            producer: regs.PRIQ_PROD,
            consumer: regs.PRIQ_CONS,
            enabled: () => config.pri && regs.CR0ACK.PRIQEN,
          },
          memory,
          errors,
          'PRIQ_ABT_ERR',
          config.priQueueBits,
          () => this.#pageRequests.filled(),
        ),
        irq: regs.PRIQ_IRQ_CFG2,
        streamId: requester => config.streams.streamId(requester),
        responsePasid: requester => translator.stream(requester)?.ppar,
        respond,
        interrupt: () => interrupts.priQueue(),
      },
      config.priResponsePasid,
      trace.point('smmu.page-request'),
    )
    this.#commands = new Commands(
      {
        regs,
        config,
        memory,
        errors,
        hooks: this.#hooks,
        streams: translator.streams,
        caches: translator.caches,
        stalls,
        interrupts,
        deviceTlb: i => this.#downstream.invalidate(i),
        respond,
        sendEvent: () => options.sendEvent?.(),
      },
      trace.point('smmu.command'),
      run => clock.timer(run),
    )
    if (options.staleUse) this.#stale = translator.detect(options.staleUse)
    this.reset()
  }

  /** Power-on reset: registers, caches and queues; memory is as it was. */
  reset(): void {
    this.#file.reset()
    setIdentification(this.regs, this.config)
    this.#translator.reset()
    this.#stalls.reset()
    this.#commands.reset()
    this.#faults.reset()
  }

  /** The last fault of this unit, recorded or not. */
  get lastFault(): SmmuFault | undefined {
    return this.#faults.last
  }

  /** Stalled transactions that wait for software. */
  get stalled(): number {
    return this.#stalls.count
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

  /** Software's write to a register, with everything that follows from it. */
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (this.#register.on) this.#traceRegister(true, offset, size, value)
    if (this.#ignored(offset, size, value)) return
    if (size === 4) this.#file.write32(offset, Number(BigInt.asUintN(32, value)))
    else this.#file.write(offset, size, value)
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

  /** Puts an event record of 32 bytes into the event queue, for a VMM that forwards one; false when it was lost. */
  injectEvent(record: Uint8Array): boolean {
    if (record.length !== EVENT_SIZE) throw new Error(`an event record of ${record.length} bytes`)
    return this.#events.push(record)
  }

  /**
   * An interrupt message: a dword written without a PASID. It is translated as any write is; when it comes
   * out at the doorbell it goes on as an interrupt, otherwise into memory.
   */
  message(requester: number, address: number, data: number): void {
    const r = this.#message
    r.requester = requester
    r.pasid = NO_PASID
    r.write = true
    r.at = AT.UNTRANSLATED
    r.hi = (address / 2 ** 32) | 0
    r.lo = address | 0
    r.length = 4
    this.#translator.translate(r, this.#answer)
    if (this.#answer.status === COMPLETION.SC)
      this.#interrupts.deliver(requester, this.#answer.output, data)
  }

  /** CR0, 6.3.9: every change takes effect at once. */
  #control(): void {
    const { config, regs } = this
    const { CR0, CR0ACK } = regs
    const wasEnabled = CR0ACK.SMMUEN
    CR0ACK.CMDQEN = CR0.CMDQEN
    CR0ACK.EVENTQEN = CR0.EVENTQEN
    if (!CR0.EVENTQEN) this.#faults.separate()
    CR0ACK.PRIQEN = CR0.PRIQEN && config.pri
    CR0ACK.ATSCHK = CR0.ATSCHK && config.ats
    CR0ACK.SMMUEN = CR0.SMMUEN
    this.#translator.caches.touch()
    if (wasEnabled !== CR0.SMMUEN) {
      if (wasEnabled && config.stallModel !== STALL_MODEL.TERMINATE)
        this.#stalls.terminate(undefined)
      this.#hooks.enabled?.(CR0.SMMUEN)
    }
    this.#commands.run()
    this.#stalls.flush()
  }

  /** Writes that have no effect: registers in use, and GBPA without UPDATE. */
  #ignored(offset: number, size: number, value: bigint): boolean {
    const { GBPA } = SMMU
    if (offset < GBPA.offset + GBPA.size && offset + size > GBPA.offset)
      return offset !== GBPA.offset || (value & 0x8000_0000n) === 0n
    for (let word = offset >> 2; word <= (offset + size - 1) >> 2; word++)
      if (this.#inUse(word)) return true
    return false
  }

  /** Whether a register at this word is read-only now. */
  #inUse(word: number): boolean {
    const { CR0ACK, IRQ_CTRLACK } = this.regs
    switch (GUARDS.get(word)) {
      case 'SMMUEN':
        return CR0ACK.SMMUEN
      case 'CMDQEN':
        return CR0ACK.CMDQEN
      case 'EVENTQEN':
        return CR0ACK.EVENTQEN
      case 'PRIQEN':
        return CR0ACK.PRIQEN
      case 'GERROR_IRQEN':
        return IRQ_CTRLACK.GERROR_IRQEN
      case 'EVENTQ_IRQEN':
        return IRQ_CTRLACK.EVENTQ_IRQEN
      case 'PRIQ_IRQEN':
        return IRQ_CTRLACK.PRIQ_IRQEN
      default:
        return false
    }
  }

  #respond(r: PageGroupResponse): void {
    if (this.#response.on) this.#response.emit({ ...r })
    if (this.#hooks.pageGroupResponse) this.#hooks.pageGroupResponse(r)
    else this.#downstream.respond(r)
  }

  #traceRegister(write: boolean, offset: number, size: number, value: bigint): void {
    const found = Object.entries(SMMU).find(
      ([, r]) => offset >= r.offset && offset < r.offset + r.size,
    )
    this.#register.emit({ write, name: found?.[0] ?? '-', offset, size, value })
  }

  /** Bytes of MMIO space the unit decodes. */
  static readonly mmioSize = SMMU_MMIO_SIZE
}
