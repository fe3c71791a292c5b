/**
 * Which commands each change of the tables asks for (IHI 0070 3.21, 3.17). A device's cache is told only after
 * the unit's own caches, or it could fetch the old translation again.
 */
import { halves, split } from '../../base/addr.js'
import {
  ATC_INV_COMMAND,
  CFGI_ALL_RANGE,
  CFGI_STE_RANGE_COMMAND,
  CMD,
  CONFIG_COMMAND,
  PRI_RESP_COMMAND,
  RESUME_COMMAND,
  TLBI_COMMAND,
} from './commands.js'
import type { SmmuDevice } from './driver-device.js'
import type { CommandQueue, Completion } from './driver-queue.js'

/** ATC_INV.Size of the whole address space: 2^52 pages. */
export const WHOLE_SIZE = 52
/** Without range invalidation: more pages than this are invalidated as a whole. */
const SINGLE_PAGES = 64
/** TLBI.TG by log2 of the granule. */
const TG: Readonly<Record<number, number>> = { 12: 1, 14: 2, 16: 3 }
const PAGE_BITS = 12
/** A range command counts up to 32 units of 2^SCALE granules. */
const NUM_LIMIT = 32
const HI = 2 ** 20 // pages in 2^32 bytes

/** Commands of one unit, kept and rewritten. */
export class SmmuCommands {
  readonly #queue: CommandQueue
  readonly #ranges: boolean
  readonly #config = CONFIG_COMMAND.create()
  readonly #tlbi = TLBI_COMMAND.create()
  readonly #atc = ATC_INV_COMMAND.create({ OPCODE: CMD.ATC_INV })
  readonly #response = PRI_RESP_COMMAND.create({ OPCODE: CMD.PRI_RESP })
  readonly #resume = RESUME_COMMAND.create()

  /** `ranges`: the unit has range invalidation (IDR3.RIL). */
  constructor(queue: CommandQueue, ranges: boolean) {
    this.#queue = queue
    this.#ranges = ranges
  }

  /** Nothing is cached any more: configuration, and translations of every world below EL3. */
  all(el2: boolean): void {
    this.#queue.submit(
      CFGI_STE_RANGE_COMMAND.create({ OPCODE: CMD.CFGI_STE_RANGE, Range: CFGI_ALL_RANGE }),
    )
    if (el2) this.#tagged(CMD.TLBI_EL2_ALL, 0, 0)
    this.#tagged(CMD.TLBI_NSNH_ALL, 0, 0)
    this.complete()
  }

  /** An STE changed; with `descriptor`, the level 1 descriptor above it too. Waits. */
  stream(streamId: number, descriptor: boolean): void {
    this.#configure(CMD.CFGI_STE, streamId, 0, !descriptor)
    this.complete()
  }

  /** A CD of a stream changed, and perhaps the level 1 descriptor above it. */
  context(streamId: number, substreamId: number): void {
    this.#configure(CMD.CFGI_CD, streamId, substreamId, false)
  }

  /** Every CD of a stream. */
  contexts(streamId: number): void {
    this.#configure(CMD.CFGI_CD_ALL, streamId, 0, false)
  }

  /** Stage 2 translations of pages of a VMID. `leaf`: only last-level entries changed. */
  ipa(vmid: number, page: number, pages: number, leaf: boolean): void {
    if (this.#ranges || pages <= SINGLE_PAGES)
      this.#range(CMD.TLBI_S2_IPA, vmid, 0, page, pages, PAGE_BITS, leaf)
    else this.guest(vmid)
  }

  /** Everything of a VMID, both stages. */
  guest(vmid: number): void {
    this.#tagged(CMD.TLBI_S12_VMALL, vmid, 0)
  }

  /** Stage 1 and nested translations of a VMID. */
  stage1(vmid: number): void {
    this.#tagged(CMD.TLBI_NH_ALL, vmid, 0)
  }

  /** Stage 1 and nested translations of one ASID. */
  asid(vmid: number, asid: number): void {
    this.#tagged(CMD.TLBI_NH_ASID, vmid, asid)
  }

  /** `count` granules of one ASID, or of all when `asid` is undefined, from the one that holds a 4 KiB page. */
  va(
    vmid: number,
    asid: number | undefined,
    page: number,
    count: number,
    granuleBits: number,
    leaf: boolean,
  ): void {
    if (!this.#ranges && count > SINGLE_PAGES) {
      if (asid === undefined) this.stage1(vmid)
      else this.asid(vmid, asid)
    } else if (asid === undefined)
      this.#range(CMD.TLBI_NH_VAA, vmid, 0, page, count, granuleBits, leaf)
    else this.#range(CMD.TLBI_NH_VA, vmid, asid, page, count, granuleBits, leaf)
  }

  /** What a device caches: 2^size pages at `addr`, under a PASID, under every one (`global`), or without one. */
  deviceTlb(
    device: SmmuDevice,
    pasid: number | undefined,
    addr: bigint,
    size: number,
    global = false,
  ): void {
    split(addr)
    this.#invalidateDevice(device, pasid, global, halves[1]!, halves[0]! >>> 12, size)
  }

  /** 2^size pages from an aligned page, without PASID. */
  deviceTlbPages(device: SmmuDevice, page: number, size: number): void {
    this.#invalidateDevice(device, undefined, false, Math.floor(page / HI), page % HI, size)
  }

  /** Everything a device caches. */
  deviceTlbAll(device: SmmuDevice): void {
    this.#invalidateDevice(device, undefined, false, 0, 0, WHOLE_SIZE)
    if (device.pasidOn) this.#invalidateDevice(device, 0, true, 0, 0, WHOLE_SIZE)
  }

  /** Answers a page request group; `code` of PRI_RESP. Waits. */
  respond(streamId: number, pasid: number | undefined, index: number, code: number): void {
    const c = this.#response
    c.StreamID = streamId
    c.SSV = pasid !== undefined
    c.SubstreamID = pasid ?? 0
    c.PRGIndex = index
    c.Resp = code
    this.#queue.submit(c)
    this.complete()
  }

  /** Lets a stalled transaction go on, or aborts it. Waits. */
  resume(streamId: number, stag: number, retry: boolean): void {
    const c = this.#resume
    c.OPCODE = CMD.RESUME
    c.StreamID = streamId
    c.STAG = stag
    c.Ac = retry
    c.Ab = !retry
    this.#queue.submit(c)
    this.complete()
  }

  /** Aborts every stalled transaction of a stream. Waits. */
  terminate(streamId: number): void {
    const c = this.#resume
    c.OPCODE = CMD.STALL_TERM
    c.StreamID = streamId
    c.STAG = 0
    c.Ac = c.Ab = false
    this.#queue.submit(c)
    this.complete()
  }

  /** Later commands wait for earlier ones. */
  fence(): void {
    this.#queue.fence()
  }

  /** Waits for everything submitted. */
  complete(): Completion {
    return this.#queue.complete()
  }

  #configure(opcode: number, streamId: number, substreamId: number, leaf: boolean): void {
    const c = this.#config
    c.OPCODE = opcode
    c.StreamID = streamId
    c.SubstreamID = substreamId
    c.Leaf = leaf
    this.#queue.submit(c)
  }

  #tagged(opcode: number, vmid: number, asid: number): void {
    const c = this.#tlbi
    c.words.fill(0)
    c.OPCODE = opcode
    c.VMID = vmid
    c.ASID = asid
    this.#queue.submit(c)
  }

  /** One range command that covers the granules, or a command for each. */
  #range(
    opcode: number,
    vmid: number,
    asid: number,
    page: number,
    count: number,
    granuleBits: number,
    leaf: boolean,
  ): void {
    const c = this.#tlbi
    c.words.fill(0)
    c.OPCODE = opcode
    c.VMID = vmid
    c.ASID = asid
    c.Leaf = leaf
    if (count > 1 && this.#ranges) {
      let scale = 0
      let units = count
      while (units > NUM_LIMIT) {
        units = Math.ceil(units / 2)
        scale++
      }
      c.TG = TG[granuleBits]!
      c.SCALE = scale
      c.NUM = units - 1
      this.#at(page)
      return
    }
    const step = 2 ** (granuleBits - PAGE_BITS)
    for (let i = 0; i < count; i++) this.#at(page + i * step)
  }

  #at(page: number): void {
    const c = this.#tlbi
    c.ADDR_LO = page % HI
    c.ADDR_HI = Math.floor(page / HI)
    this.#queue.submit(c)
  }

  #invalidateDevice(
    device: SmmuDevice,
    pasid: number | undefined,
    everyPasid: boolean,
    hi: number,
    lo: number,
    size: number,
  ): void {
    const c = this.#atc
    c.StreamID = device.bdf
    c.SSV = pasid !== undefined
    c.SubstreamID = pasid ?? 0
    c.G = everyPasid
    c.Size = size
    // Bits below the size are ignored by the unit.
    c.ADDR_HI = hi
    c.ADDR_LO = lo
    this.#queue.submit(c)
  }
}
