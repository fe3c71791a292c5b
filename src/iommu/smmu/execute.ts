/**
 * The command queue (IHI 0070 chapter 4, 7.1): commands execute one at a time, in order, when software moves
 * PROD. A command that cannot be executed stops the queue on itself with CMDQ_CONS.ERR and a global error.
 * What is dropped is streams.ts's and caches.ts's business.
 */
import type { Timer } from '../../base/clock.js'
import type { LiveRegisters } from '../../base/registers.js'
import type { TracePoint } from '../../base/trace.js'
import {
  type AtsInvalidation,
  NO_PASID,
  type PageGroupResponse,
  PRG_RESPONSE,
} from '../../pci/request.js'
import type { Caches, PageRange } from './caches.js'
import {
  ATC_INV_COMMAND,
  CFGI_ALL_RANGE,
  CFGI_STE_RANGE_COMMAND,
  CMD,
  COMMAND_SIZE,
  CONFIG_COMMAND,
  PRI_RESP,
  PRI_RESP_COMMAND,
  RESUME_COMMAND,
  SYNC_COMMAND,
  SYNC_CS,
  TLBI_COMMAND,
} from './commands.js'
import type { SmmuConfig } from './config.js'
import type { GlobalErrors } from './global-errors.js'
import type { SmmuHooks, TlbScope } from './hooks.js'
import type { Interrupts } from './msi.js'
import { queueAddress, queueBits } from './queues.js'
import { CERROR, type SMMU_REGISTERS, STALL_MODEL } from './registers.js'
import type { Stalls } from './stalls.js'
import { type Streams, WORLD } from './streams.js'

/** An executed command, for the trace. */
export interface CommandEvent {
  /** Name of the opcode; `error` for one that stopped the queue. */
  readonly command: keyof typeof CMD | 'error'
  /** CERROR of an error, 0 otherwise. */
  readonly error: number
  /** The command as it stands in the queue. */
  readonly low: bigint
  readonly high: bigint
}

/** What commands act on and where they reach out. */
export interface CommandTargets {
  readonly regs: LiveRegisters<typeof SMMU_REGISTERS>
  readonly config: SmmuConfig
  readonly memory: { read(addr: number, into: Uint8Array): boolean }
  readonly errors: GlobalErrors
  readonly hooks: SmmuHooks
  readonly streams: Streams
  readonly caches: Caches
  readonly stalls: Stalls
  readonly interrupts: Interrupts
  /** True when the function completed the invalidation. */
  deviceTlb(i: AtsInvalidation): boolean
  respond(r: PageGroupResponse): void
  /** CMD_SYNC with CS = SIG_SEV. */
  sendEvent(): void
}

const names = new Map<number, keyof typeof CMD>()
for (const [name, code] of Object.entries(CMD)) names.set(code, name as keyof typeof CMD)

/** log2 of granules by TG of a TLBI command, in pages of 4 KB. */
const TG_PAGES = [0, 0, 2, 4] as const

/** The command queue of one unit. */
export class Commands {
  readonly #t: CommandTargets
  readonly #point: TracePoint<CommandEvent>
  readonly #bytes = new Uint8Array(COMMAND_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #config = CONFIG_COMMAND.at(this.#bytes)
  readonly #range = CFGI_STE_RANGE_COMMAND.at(this.#bytes)
  readonly #tlbi = TLBI_COMMAND.at(this.#bytes)
  readonly #atc = ATC_INV_COMMAND.at(this.#bytes)
  readonly #response = PRI_RESP_COMMAND.at(this.#bytes)
  readonly #resume = RESUME_COMMAND.at(this.#bytes)
  readonly #sync = SYNC_COMMAND.at(this.#bytes)
  readonly #ats: AtsInvalidation = {
    requester: 0,
    pasid: NO_PASID,
    hi: 0,
    lo: 0,
    pageBits: 12,
    global: false,
  }
  readonly #limit: number
  /** Continues a queue that keeps being fed. */
  readonly #again: Timer
  #running = false
  /** An ATC invalidation did not complete: the next CMD_SYNC says so. */
  #timedOut = false

  constructor(
    targets: CommandTargets,
    point: TracePoint<CommandEvent>,
    timer: (run: () => void) => Timer,
  ) {
    this.#t = targets
    this.#limit = 2 ** targets.config.outputAddressBits
    this.#point = point
    this.#again = timer(() => this.run())
  }

  reset(): void {
    this.#again.cancel()
    this.#timedOut = false
  }

  /** Executes what is queued, at most one queue's worth a call: one that its own effects feed goes on from the clock. */
  run(): void {
    if (this.#running) return
    this.#running = true
    const { regs, config } = this.#t
    for (
      let left = 1 << queueBits(regs.CMDQ_BASE, config.commandQueueBits);
      this.#executeOne();
      left--
    ) {
      if (left === 0) {
        this.#again.start()
        break
      }
    }
    this.#running = false
  }

  /** Executes the command at CONS; false when there is none or the queue is stopped. */
  #executeOne(): boolean {
    const { regs, config, errors, memory } = this.#t
    if (!regs.CR0ACK.CMDQEN || errors.active('CMDQ_ERR')) return false
    const { CMDQ_BASE, CMDQ_PROD, CMDQ_CONS } = regs
    const bits = queueBits(CMDQ_BASE, config.commandQueueBits)
    const all = (2 << bits) - 1
    const consumer = CMDQ_CONS.RD & all
    if (consumer === (CMDQ_PROD.WR & all)) return false
    const at = queueAddress(CMDQ_BASE, bits, COMMAND_SIZE) + (consumer & (all >> 1)) * COMMAND_SIZE
    if (at >= this.#limit || !memory.read(at, this.#bytes)) return this.#stop(CERROR.ABT)
    const opcode = this.#config.OPCODE
    const error = this.#config.SSec ? CERROR.ILL : this.#execute(opcode)
    if (error !== CERROR.NONE) return this.#stop(error)
    CMDQ_CONS.RD = (consumer + 1) & all
    if (this.#point.on) this.#trace(names.get(opcode)!, CERROR.NONE)
    return true
  }

  /** Executes a command; answers a CERROR. */
  #execute(opcode: number): number {
    switch (opcode) {
      case CMD.PREFETCH_CONFIG:
      case CMD.PREFETCH_ADDR:
        return CERROR.NONE
      case CMD.CFGI_STE:
      case CMD.CFGI_STE_RANGE:
      case CMD.CFGI_CD:
      case CMD.CFGI_CD_ALL:
        return this.#invalidateConfiguration(opcode)
      case CMD.ATC_INV:
        return this.#invalidateDevice()
      case CMD.PRI_RESP:
        return this.#respond()
      case CMD.RESUME:
      case CMD.STALL_TERM:
        return this.#answerStall(opcode)
      case CMD.SYNC:
        return this.#synchronize()
      default:
        return this.#invalidateTlb(opcode)
    }
  }

  #invalidateConfiguration(opcode: number): number {
    const { config, streams, caches, hooks } = this.#t
    const { StreamID, SubstreamID } = this.#config
    if ((opcode === CMD.CFGI_CD || opcode === CMD.CFGI_CD_ALL) && !config.stage1) return CERROR.ILL
    switch (opcode) {
      case CMD.CFGI_STE:
        streams.forget(StreamID)
        hooks.configInvalidated?.('stream', StreamID, NO_PASID, 0)
        break
      case CMD.CFGI_STE_RANGE: {
        const { Range } = this.#range
        const all = Range === CFGI_ALL_RANGE
        if (all) streams.clear()
        else streams.forgetRange(StreamID, Range + 1)
        hooks.configInvalidated?.(all ? 'all' : 'range', StreamID, NO_PASID, all ? 32 : Range + 1)
        break
      }
      case CMD.CFGI_CD:
        streams.forgetContexts(StreamID, SubstreamID)
        hooks.configInvalidated?.('substream', StreamID, SubstreamID, 0)
        break
      default:
        streams.forgetContexts(StreamID, undefined)
        hooks.configInvalidated?.('substreams', StreamID, NO_PASID, 0)
    }
    caches.touch()
    return CERROR.NONE
  }

  #invalidateTlb(opcode: number): number {
    const { config, caches, regs } = this.#t
    const { VMID, ASID } = this.#tlbi
    const vmid = config.stage2 ? VMID : 0
    const el2 = regs.CR2.E2H ? WORLD.EL2_E2H : WORLD.EL2
    if (opcode >= CMD.TLBI_NH_ALL && opcode <= CMD.TLBI_NH_VAA && !config.stage1) return CERROR.ILL
    if (opcode >= CMD.TLBI_EL2_ALL && opcode <= CMD.TLBI_EL2_VAA && !config.hyp) return CERROR.ILL
    if ((opcode === CMD.TLBI_S12_VMALL || opcode === CMD.TLBI_S2_IPA) && !config.stage2)
      return CERROR.ILL
    switch (opcode) {
      case CMD.TLBI_NSNH_ALL:
        caches.allEl1()
        return this.#done('nsnh-all')
      case CMD.TLBI_NH_ALL:
        caches.vmid(vmid, false)
        return this.#done('nh-all')
      case CMD.TLBI_NH_ASID:
        caches.asid(WORLD.EL1, vmid, ASID)
        return this.#done('nh-asid')
      case CMD.TLBI_NH_VA:
        return this.#byAddress('nh-va', range => caches.address(WORLD.EL1, vmid, ASID, range))
      case CMD.TLBI_NH_VAA:
        return this.#byAddress('nh-vaa', range => caches.addressOfAll(WORLD.EL1, vmid, range))
      case CMD.TLBI_S12_VMALL:
        caches.vmid(vmid, true)
        return this.#done('s12-vmall')
      case CMD.TLBI_S2_IPA:
        return this.#byAddress('s2-ipa', range => caches.intermediate(vmid, range))
      case CMD.TLBI_EL2_ALL:
        caches.allEl2()
        return this.#done('el2-all')
      case CMD.TLBI_EL2_ASID:
        caches.asid(WORLD.EL2_E2H, 0, ASID)
        return this.#done('el2-asid')
      case CMD.TLBI_EL2_VA:
        return this.#byAddress('el2-va', range =>
          caches.address(el2, 0, el2 === WORLD.EL2_E2H ? ASID : -1, range),
        )
      case CMD.TLBI_EL2_VAA:
        return this.#byAddress('el2-vaa', range => caches.addressOfAll(el2, 0, range))
      default:
        return CERROR.ILL
    }
  }

  #done(scope: TlbScope, range?: PageRange): number {
    const { VMID, ASID, Leaf } = this.#tlbi
    this.#t.hooks.tlbInvalidated?.(scope, VMID, ASID, range, Leaf)
    return CERROR.NONE
  }

  /** Decodes the range of a command by address, 4.4.1.1. */
  #byAddress(scope: TlbScope, invalidate: (range: PageRange) => void): number {
    const { TG, TTL, SCALE, NUM, ADDR_HI, ADDR_LO } = this.#tlbi
    const page = ADDR_HI * 2 ** 20 + ADDR_LO
    const ranged = this.#t.config.rangeInvalidation && TG !== 0
    // Level 1 of the 16 KB granule holds no blocks: the hint is none.
    const hint = TG === 2 && TTL === 1 ? 0 : TTL
    if (ranged && hint === 0 && SCALE === 0 && NUM === 0) return CERROR.ILL
    const count = ranged ? (NUM + 1) * 2 ** SCALE * 2 ** TG_PAGES[TG as 1 | 2 | 3] : 1
    const range = { page, count }
    invalidate(range)
    return this.#done(scope, range)
  }

  #invalidateDevice(): number {
    const { config, hooks } = this.#t
    if (!config.ats) return CERROR.ILL
    const { Size, StreamID, SSV, SubstreamID, G, ADDR_HI, ADDR_LO } = this.#atc
    if (Size > 52) return CERROR.ILL
    if (!this.#t.regs.CR0ACK.SMMUEN) return CERROR.NONE
    const i = this.#ats
    const bits = 12 + Size
    const lo = ADDR_LO << 12
    i.requester = config.streams.requester(StreamID)
    i.pasid = SSV ? SubstreamID : NO_PASID
    i.global = SSV && G
    i.pageBits = bits
    i.hi = bits >= 64 ? 0 : bits > 32 ? ADDR_HI & (-1 << (bits - 32)) : ADDR_HI | 0
    i.lo = bits >= 32 ? 0 : lo & (-1 << bits)
    if (i.requester < 0 || !this.#t.deviceTlb(i)) this.#timedOut = true
    hooks.deviceTlbInvalidated?.(i.requester, i.pasid, i.hi, i.lo, bits, i.global)
    return CERROR.NONE
  }

  #respond(): number {
    const { config } = this.#t
    const { Resp, StreamID, SSV, SubstreamID, PRGIndex } = this.#response
    if (!config.pri || Resp > PRI_RESP.SUCCESS) return CERROR.ILL
    const requester = config.streams.requester(StreamID)
    if (requester >= 0 && this.#t.regs.CR0ACK.SMMUEN)
      this.#t.respond({
        requester,
        pasid: SSV ? SubstreamID : NO_PASID,
        prgIndex: PRGIndex,
        code: [PRG_RESPONSE.FAILURE, PRG_RESPONSE.INVALID, PRG_RESPONSE.SUCCESS][Resp]!,
      })
    return CERROR.NONE
  }

  #answerStall(opcode: number): number {
    const { config, stalls, hooks } = this.#t
    if (config.stallModel === STALL_MODEL.TERMINATE) return CERROR.ILL
    const { StreamID, STAG, Ac } = this.#resume
    if (opcode === CMD.RESUME) {
      stalls.resume(StreamID, STAG, Ac)
      hooks.stallResumed?.(StreamID, STAG, Ac)
    } else {
      stalls.terminate(StreamID)
      hooks.stallsTerminated?.(StreamID)
    }
    return CERROR.NONE
  }

  #synchronize(): number {
    const { config, interrupts, stalls } = this.#t
    const { CS, MSIAddress, MSIData } = this.#sync
    if (CS > SYNC_CS.SEV) return CERROR.ILL
    if (this.#timedOut) {
      this.#timedOut = false
      return CERROR.ATC_INV_SYNC
    }
    stalls.synchronize()
    if (CS === SYNC_CS.IRQ) interrupts.sync(MSIAddress, MSIData)
    else if (CS === SYNC_CS.SEV && config.sev) this.#t.sendEvent()
    return CERROR.NONE
  }

  #stop(error: number): false {
    this.#t.regs.CMDQ_CONS.ERR = error
    if (this.#point.on) this.#trace('error', error)
    this.#t.errors.raise('CMDQ_ERR')
    return false
  }

  #trace(command: CommandEvent['command'], error: number): void {
    const low = this.#view.getBigUint64(0, true)
    this.#point.emit({ command, error, low, high: this.#view.getBigUint64(8, true) })
  }
}
