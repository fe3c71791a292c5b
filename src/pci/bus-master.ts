/**
 * A function's way to memory: who may issue what (Bus Master Enable up the tree, PASID enables), pieces of
 * one page, translation by the unit above or by the function's own cache, and the copy itself.
 * The hot path of the project: nothing here allocates, or touches a bigint, per page.
 * Next: device-model.ts (what a device sees of it), upstream.ts (who translates), ats-requester.ts (the cache),
 * transfer-memo.ts (transfers that need not ask again).
 */
import { joinNumber } from '../base/addr.js'
import type { TraceEvents, TracePoint } from '../base/trace.js'
import type { RamRegion } from '../mem/ram.js'
import { AtsRequester } from './ats-requester.js'
import type { DmaFailureReason, DmaTag } from './dma.js'
import type { AtsCapability } from './extended/ats.js'
import type { PasidCapability } from './extended/pasid.js'
import type { Fabric, PciNode } from './node.js'
import type { RamCopy } from './ram-copy.js'
import {
  AT,
  COMPLETION,
  type CompletionStatus,
  crossesMessages,
  isMessage,
  MemoryRequest,
  NO_PASID,
  NOT_STALLED,
  Translation,
} from './request.js'
import { TransferMemo } from './transfer-memo.js'

const NO_TAG: DmaTag = {}

/** The bus master of one function. After a refused transfer the `failed…` members say what happened. */
export class BusMaster {
  failedReason: DmaFailureReason = 'refused'
  failedStatus: CompletionStatus = COMPLETION.SC
  /** Address of the first byte not transferred. */
  failedHi = 0
  failedLo = 0
  /** Bytes transferred before it. */
  failedDone = 0
  /** With reason `stalled`: what `DownstreamPort.resume` will name. */
  failedToken = NOT_STALLED
  readonly #node: PciNode
  readonly #fabric: Fabric
  readonly #ats: AtsCapability | undefined
  readonly #requester: AtsRequester | undefined
  readonly #pasid: PasidCapability | undefined
  readonly #request = new MemoryRequest()
  readonly #answer = new Translation()
  readonly #trace: TracePoint<TraceEvents['dma']>
  readonly #message = new Uint8Array(4)
  readonly #messageView = new DataView(this.#message.buffer)
  /** The fabric's epoch at which the tag in `#request` was admitted. */
  #admittedAt = -1
  /** The function's translation cache is in use; as of that epoch. */
  #cached = false
  readonly #copies: RamCopy
  readonly #memo: TransferMemo

  constructor(node: PciNode, ats?: AtsCapability, pasid?: PasidCapability) {
    this.#node = node
    this.#fabric = node.fabric
    this.#copies = node.fabric.copies
    this.#ats = ats
    this.#requester = ats && new AtsRequester(ats, this.#request, this.#answer)
    this.#pasid = pasid
    this.#trace = node.fabric.trace.point('dma')
    this.#memo = new TransferMemo(node.fabric, ats)
  }

  /** Reads `bytes.length` bytes at the address into `bytes`. */
  read(hi: number, lo: number, bytes: Uint8Array, tag: DmaTag = NO_TAG): boolean {
    if (!this.#trace.on && this.#memo.move(false, hi, lo, tag, bytes)) return true
    if (!this.#admitted(tag) && !this.#admit(hi, lo, tag)) return false
    const room = 4096 - (lo & 4095)
    return bytes.length <= room && this.#direct(hi, lo)
      ? this.#one(false, hi, lo, bytes)
      : this.#transfer(false, hi, lo, bytes)
  }

  /** Writes `bytes` at the address. Pages before a refused one are written. */
  write(hi: number, lo: number, bytes: Uint8Array, tag: DmaTag = NO_TAG): boolean {
    if (!this.#trace.on && this.#memo.move(true, hi, lo, tag, bytes)) return true
    if (!this.#admitted(tag) && !this.#admit(hi, lo, tag)) return false
    const room = 4096 - (lo & 4095)
    return bytes.length <= room && this.#direct(hi, lo)
      ? this.#one(true, hi, lo, bytes)
      : this.#transfer(true, hi, lo, bytes)
  }

  /** Sends an interrupt message: an untranslated dword write without a PASID, wherever its address is. */
  sendMessage(hi: number, lo: number, data: number): boolean {
    this.#messageView.setUint32(0, data, true)
    return this.#admit(hi, lo, NO_TAG, true) && this.#transfer(true, hi, lo, this.#message)
  }

  /**
   * Asks for a translation of the page of an address and keeps it in the function's cache, moving no
   * data. False, with the reason, when there is none or ATS is disabled.
   */
  translate(hi: number, lo: number, write: boolean, tag: DmaTag = NO_TAG): boolean {
    if (!this.#admit(hi, lo, tag)) return false
    const { translator } = this.#fabric
    const r = this.#request
    r.write = write
    r.hi = hi
    r.lo = lo
    r.length = 1
    if (!this.#ats?.enabled || !translator) return this.#fail('refused', COMPLETION.UR, 0)
    return this.#requester!.prefetch(translator) || this.#withheld(0)
  }

  /** Whether the last admission holds: same tag, and no configuration register changed since. */
  #admitted(tag: DmaTag): boolean {
    const r = this.#request
    return (
      this.#admittedAt === this.#fabric.epoch &&
      (tag.pasid === undefined ? r.pasid < 0 : tag.pasid === r.pasid) &&
      (tag.execute === true) === r.execute &&
      (tag.privileged === true) === r.privileged
    )
  }

  /** Checks everything that does not depend on the piece, and fills the request's tag. */
  #admit(hi: number, lo: number, tag: DmaTag, interrupt = false): boolean {
    const node = this.#node
    const r = this.#request
    r.requester = node.bdf
    r.hi = hi
    r.lo = lo
    r.pasid = NO_PASID
    r.execute = false
    r.privileged = false
    this.#admittedAt = -1
    if (!node.masterEnabled) return this.#fail('bus-master-disabled', COMPLETION.UR, 0)
    if (tag.pasid !== undefined) {
      const capability = this.#pasid
      if (!capability?.enabled) return this.#fail('pasid-disabled', COMPLETION.UR, 0)
      if (tag.pasid >>> capability.width !== 0) return this.#fail('pasid-width', COMPLETION.UR, 0)
      r.pasid = tag.pasid
      r.execute = tag.execute === true
      r.privileged = tag.privileged === true
      if ((r.execute && !capability.execute) || (r.privileged && !capability.privileged))
        return this.#fail('pasid-disabled', COMPLETION.UR, 0)
    } else if (tag.execute || tag.privileged) return this.#fail('pasid-disabled', COMPLETION.UR, 0) // both bits live in the prefix
    const bridge = node.bus.bridge
    this.#cached = !interrupt && this.#ats?.enabled === true
    const message = interrupt || (r.pasid < 0 && isMessage(hi, lo))
    const translated = this.#cached && !message
    if (bridge && !bridge.forwards(r.pasid >= 0, translated))
      return this.#fail(bridge.masterEnabled ? 'blocked' : 'bus-master-disabled', COMPLETION.UR, 0)
    if (!message) this.#admittedAt = this.#fabric.epoch
    return true
  }

  /** Whether the short way will do: translated above, no message, nobody listening. */
  #direct(hi: number, lo: number): boolean {
    return (
      !this.#trace.on &&
      this.#fabric.translator !== undefined &&
      (this.#request.pasid >= 0 || !isMessage(hi, lo))
    )
  }

  /** The common case, cut short: a transfer inside one page, translated above. As `#transfer` does it. */
  #one(write: boolean, hi: number, lo: number, bytes: Uint8Array): boolean {
    const length = bytes.length
    const r = this.#request
    const answer = this.#answer
    const { memory, translator } = this.#fabric
    r.at = AT.UNTRANSLATED
    r.write = write
    r.hi = hi
    r.lo = lo
    r.length = length
    if (length === 0) return true
    this.#requester?.begin()
    if (!this.#cached) translator!.translate(r, answer)
    else if (!this.#requester!.translate(translator!, length)) return this.#withheld(0)
    if (answer.status !== COMPLETION.SC) return this.#denied(answer.status, 0)
    const output = answer.output
    const region = memory.ramAt(output)
    if (region !== undefined && output + length <= region.base + region.size) {
      const plain = memory.guard === undefined || memory.guard.plain(output, length)
      if (!plain && !this.#admits(output)) return this.#fail('confidential', COMPLETION.CA, 0)
      this.#copies.copy(write, region, output + length, bytes, 0, length)
      if (plain) this.#memo.keep(write, hi, lo, r, region, output - (lo & 4095), 4096)
      return true
    }
    const { pasid, execute, privileged } = r
    const homed = write ? this.#post(output, bytes, 0, length) : memory.read(output, bytes)
    this.#retag(hi, lo, write, pasid, execute, privileged)
    return homed || this.#fail('unclaimed', COMPLETION.UR, 0)
  }

  #transfer(write: boolean, startHi: number, startLo: number, bytes: Uint8Array): boolean {
    const { memory, translator } = this.#fabric
    const cached = this.#cached && translator !== undefined
    const r = this.#request
    const answer = this.#answer
    const length = bytes.length
    const tracing = this.#trace.on
    const { pasid, execute, privileged } = r
    const prefixed = pasid >= 0
    this.#requester?.begin()
    r.write = write
    r.at = AT.UNTRANSLATED
    let hi = startHi
    let lo = startLo
    // Pieces that follow each other in one RAM region wait here and are copied at once.
    let run: RamRegion | undefined
    let runFrom = 0
    let runEnd = -1
    let runLimit = -1
    const { guard } = memory
    let plain = true
    let done = 0
    while (done < length) {
      let piece = 4096 - (lo & 4095)
      if (piece > length - done) piece = length - done
      r.hi = hi
      r.lo = lo
      r.length = piece
      let output = -1
      if (!prefixed && isMessage(hi, lo)) {
        if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
        return this.#toMessage(write, hi, lo, bytes, done)
      }
      if (translator === undefined) {
        if (hi >>> 20 === 0) output = joinNumber(hi, lo)
      } else {
        if (!cached) translator.translate(r, answer)
        else if (!this.#requester!.translate(translator, length - done)) {
          if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
          return this.#withheld(done)
        }
        if (answer.status !== COMPLETION.SC) {
          if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
          return this.#denied(answer.status, done)
        }
        output = answer.output
        if (cached) piece = r.length
        else if (answer.pageBits > 12) {
          // The answer holds for a larger page: take what the transfer needs of it.
          piece = this.#widen(prefixed, answer.pageBits, hi, lo, piece, length - done)
          r.length = piece
        }
      }
      if (guard !== undefined && output >= 0 && !guard.plain(output, piece)) {
        // Page by page from here: those before a refused one move.
        plain = false
        piece = Math.min(piece, 4096 - (lo & 4095))
        r.length = piece
        if (!guard.plain(output, piece) && !this.#admits(output)) {
          if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
          return this.#fail('confidential', COMPLETION.CA, done)
        }
      }
      if (output === runEnd && output + piece <= runLimit) runEnd += piece
      else {
        if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
        run = output < 0 ? undefined : memory.ramAt(output)
        runFrom = done
        if (run !== undefined && output + piece <= run.base + run.size) {
          runEnd = output + piece
          runLimit = run.base + run.size
        } else {
          run = undefined
          runEnd = runLimit = -1
          const homed =
            output >= 0 &&
            (write
              ? this.#post(output, bytes, done, piece)
              : memory.read(output, bytes, done, piece))
          // A register written may make this very function issue requests, through the same objects.
          this.#retag(hi, lo, write, pasid, execute, privileged)
          if (!homed) return this.#fail('unclaimed', COMPLETION.UR, done)
        }
      }
      if (tracing) this.#traced(output, undefined)
      done += piece
      lo = (lo + piece) | 0
      // A piece that is not the last ends at a page's end, so a carry leaves the low half zero.
      if (lo === 0) {
        hi = (hi + 1) | 0
        if (hi === 0 && done < length) {
          if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
          r.hi = r.lo = 0
          return this.#fail('unclaimed', COMPLETION.UR, done)
        }
      }
    }
    if (run) this.#copies.copy(write, run, runEnd, bytes, runFrom, done)
    const admitted = this.#admittedAt === this.#fabric.epoch
    if (run && runFrom === 0 && translator !== undefined && !tracing && admitted && plain) {
      const known = length + (startLo & 4095)
      this.#memo.keep(write, startHi, startLo, r, run, runEnd - known, known)
    }
    return true
  }

  /** Whether the guard of memory lets the piece in the request through, which leads to `output`. */
  #admits(output: number): boolean {
    const { requester, pasid, hi, lo, length, write } = this.#request
    const access = { requester, pasid, hi, lo, output, length, write }
    return this.#fabric.memory.guard!.admits(access)
  }

  /** A write of one dword to the message range is an interrupt; anything else there is refused (VT-d 3.14). */
  #toMessage(write: boolean, hi: number, lo: number, bytes: Uint8Array, done: number): boolean {
    if (!write || bytes.length !== 4 || lo & 3) return this.#fail('refused', COMPLETION.UR, done)
    const data = bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)
    if (this.#trace.on) this.#traced(joinNumber(hi, lo), undefined)
    this.#fabric.messages.message(this.#request.requester, lo >>> 0, data >>> 0)
    return true
  }

  /** A write that left RAM: to whatever answers there, or a message to the doorbell that translation led to. */
  #post(output: number, bytes: Uint8Array, from: number, length: number): boolean {
    const { memory, doorbell } = this.#fabric
    const within = doorbell !== undefined ? output - doorbell.base : -1
    if (doorbell === undefined || within < 0 || within >= doorbell.size || length !== 4)
      return memory.write(output, bytes, from, length)
    this.#message.set(bytes.subarray(from, from + 4))
    const data = this.#messageView.getUint32(0, true)
    doorbell.sink.message(this.#request.requester, output, data)
    return true
  }

  /** How much of the transfer one answer for a page above 4 KiB covers. */
  #widen(
    prefixed: boolean,
    pageBits: number,
    hi: number,
    lo: number,
    piece: number,
    left: number,
  ): number {
    const size = 1 << Math.min(pageBits, 30)
    const wide = Math.min(size - (lo & (size - 1)), left)
    return !prefixed && crossesMessages(hi, lo, wide) ? piece : wide
  }

  #retag(
    hi: number,
    lo: number,
    write: boolean,
    pasid: number,
    execute: boolean,
    privileged: boolean,
  ): void {
    const r = this.#request
    this.#requester?.begin()
    this.#admittedAt = -1
    r.hi = hi
    r.lo = lo
    r.at = AT.UNTRANSLATED
    r.write = write
    r.pasid = pasid
    r.execute = execute
    r.privileged = privileged
  }

  #denied(status: CompletionStatus, done: number): false {
    this.failedToken = this.#answer.stalled
    if (this.failedToken !== NOT_STALLED) return this.#fail('stalled', status, done)
    return this.#fail(status === COMPLETION.CA ? 'aborted' : 'refused', status, done)
  }

  /** ATS gave no translation. */
  #withheld(done: number): false {
    const { reason, status } = this.#requester!
    return this.#fail(reason, status, done)
  }

  #fail(reason: DmaFailureReason, status: CompletionStatus, done: number): false {
    const r = this.#request
    this.failedReason = reason
    this.failedStatus = status
    this.failedHi = r.hi
    this.failedLo = r.lo
    this.failedDone = done
    if (this.#trace.on) this.#traced(-1, reason)
    return false
  }

  #traced(output: number, failure: DmaFailureReason | undefined): void {
    const { requester, pasid, hi, lo, length, write, at } = this.#request
    this.#trace.emit({ requester, pasid, hi, lo, length, write, at, output, failure })
  }
}
