// Event delivery in IA-32e mode (SDM vol. 3, ch. 6): gate, target code segment, stack, frame, flags, and what becomes
// of a fault in the middle of it. Task gates, compatibility-mode handlers and shadow stacks are not modelled.
// Who decides that an event is due is the core's run loop.

import { DR7_GD } from './breakpoints.js'
import { high, isCanonical, low } from './machine.js'
import { ACCESS, type MemoryPort } from './ports.js'
import {
  ABORT,
  EVENT,
  FLAG,
  type PendingEvent,
  SEGMENT,
  type Segment,
  VECTOR,
  type X86State,
} from './registers.js'

const GATE_INTERRUPT = 14
const GATE_TRAP = 15
const EXT = 1
const IDT = 2

/** Classes of table 6-4: how two exceptions combine (table 6-5). */
type Class = 'benign' | 'contributory' | 'page-fault' | 'double-fault'

function classOf(event: PendingEvent): Class {
  if (event.kind !== EVENT.EXCEPTION) return 'benign'
  switch (event.vector) {
    case VECTOR.DE:
    case VECTOR.TS:
    case VECTOR.NP:
    case VECTOR.SS:
    case VECTOR.GP:
    case VECTOR.CP:
      return 'contributory'
    case VECTOR.PF:
    case VECTOR.VE:
      return 'page-fault'
    case VECTOR.DF:
      return 'double-fault'
  }
  return 'benign'
}

/** Exceptions that report the instruction as restartable: RF is set in the image they push (6.6 and 17.3.1.1). */
const isFault = (event: PendingEvent): boolean =>
  event.kind === EVENT.EXCEPTION &&
  (event.vector !== VECTOR.DB || event.fault === true) &&
  event.vector !== VECTOR.BP &&
  event.vector !== VECTOR.OF &&
  event.vector !== VECTOR.DF &&
  event.vector !== VECTOR.MC

/** The event that a fault during the delivery of `first` leads to, or undefined: triple fault. */
function combine(first: PendingEvent, vector: number, error: number | undefined) {
  const second: PendingEvent = { kind: EVENT.EXCEPTION, vector, error }
  const [a, b] = [classOf(first), classOf(second)]
  const doubled =
    (a === 'contributory' && b === 'contributory') ||
    (a === 'page-fault' && (b === 'page-fault' || b === 'contributory'))
  if (doubled) return { kind: EVENT.EXCEPTION, vector: VECTOR.DF, error: 0 }
  return a === 'double-fault' && b !== 'benign' ? undefined : second
}

/** Delivers events through the IDT of one processor. */
export class EventDelivery {
  readonly #state: X86State
  readonly #memory: MemoryPort
  readonly #heard: (event: PendingEvent) => void
  readonly #gate = new Uint8Array(16)
  readonly #descriptor = new Uint8Array(8)
  readonly #eight = new Uint8Array(8)
  readonly #frame = new Uint8Array(48)

  /** `heard` is told of each event at the moment its delivery begins. */
  constructor(state: X86State, memory: MemoryPort, heard: (event: PendingEvent) => void) {
    this.#state = state
    this.#memory = memory
    this.#heard = heard
  }

  /**
   * Delivers an event; what it turns into on the way is delivered instead. False: triple fault. With `ABORT.EXIT`
   * on the state, memory of the delivery itself had no home and nothing was changed.
   */
  deliver(event: PendingEvent): boolean {
    const s = this.#state
    let current: PendingEvent | undefined = event
    // Each failure moves towards double fault, so four rounds always suffice.
    while (current !== undefined) {
      this.#heard(current)
      s.abort = ABORT.NONE
      if (this.#attempt(current)) {
        if (current.kind === EVENT.NMI) s.nmiBlocked = true
        if (current.vector === VECTOR.DB) s.dr[7] = s.dr[7]! & ~BigInt(DR7_GD)
        return true
      }
      if (s.abort === ABORT.EXIT) return true
      const { vector, error } = s
      s.abort = ABORT.NONE
      current = combine(current, vector, error)
    }
    return false
  }

  #attempt(event: PendingEvent): boolean {
    const s = this.#state
    const software = event.kind === EVENT.SOFTWARE
    const ext = software ? 0 : EXT
    const at = event.vector * 16
    const gateError = at / 2 + IDT + ext
    if (at + 15 > s.idtr.limit) return this.#fault(VECTOR.GP, gateError)
    if (!this.#read(s.idtr.base + BigInt(at), this.#gate)) return false
    const gate = new DataView(this.#gate.buffer)
    const attributes = gate.getUint8(5)
    const type = attributes & 31
    if (type !== GATE_INTERRUPT && type !== GATE_TRAP) return this.#fault(VECTOR.GP, gateError)
    if (software && ((attributes >> 5) & 3) < s.cpl) return this.#fault(VECTOR.GP, gateError)
    if ((attributes & 0x80) === 0) return this.#fault(VECTOR.NP, gateError)

    const selector = gate.getUint16(2, true)
    const code = this.#codeSegment(selector, ext)
    if (code === undefined) return false
    const dpl = (code.getUint8(5) >> 5) & 3
    const conforming = (code.getUint8(5) & 4) !== 0
    const cpl = conforming ? s.cpl : dpl
    const inner = cpl < s.cpl
    const target =
      (BigInt(gate.getUint32(8, true)) << 32n) |
      BigInt(gate.getUint16(0, true)) |
      (BigInt(gate.getUint16(6, true)) << 16n)
    const ist = gate.getUint8(4) & 7
    const top = this.#stack(ist, inner, cpl, ext)
    if (top === undefined) return false
    if (!isCanonical(s, top)) return this.#fault(VECTOR.SS, ext)
    const rsp = this.#push(event, top & ~15n, cpl)
    if (rsp === undefined) return false
    if (!isCanonical(s, target)) return this.#fault(VECTOR.GP, ext)

    this.#enter(selector, code, cpl)
    if (inner) this.#nullStack(cpl)
    s.r64[4] = rsp
    s.rip = target
    const clear = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM | (type === GATE_INTERRUPT ? FLAG.IF : 0)
    s.flags &= ~clear
    return true
  }

  #codeSegment(selector: number, ext: number): DataView | undefined {
    const s = this.#state
    const error = (selector & 0xfffc) | ext
    if ((selector & 0xfffc) === 0) {
      this.#fault(VECTOR.GP, ext)
      return undefined
    }
    const local = (selector & 4) !== 0
    const table = local ? { base: s.ldtr.base, limit: s.ldtr.limit } : s.gdtr
    if ((local && s.ldtr.unusable !== 0) || (selector | 7) > table.limit) {
      this.#fault(VECTOR.GP, error)
      return undefined
    }
    if (!this.#read(table.base + BigInt(selector & 0xfff8), this.#descriptor)) return undefined
    const view = new DataView(this.#descriptor.buffer)
    const attributes = view.getUint8(5)
    const code = (attributes & 0x18) === 0x18
    const long = (view.getUint8(6) & 0x60) === 0x20
    if (!code || !long || ((attributes >> 5) & 3) > s.cpl) this.#fault(VECTOR.GP, error)
    else if ((attributes & 0x80) === 0) this.#fault(VECTOR.NP, error)
    else return view
    return undefined
  }

  // Top of the stack the frame goes to: IST entry, RSP of the inner level, or where RSP is.
  #stack(ist: number, inner: boolean, cpl: number, ext: number): bigint | undefined {
    const s = this.#state
    if (ist === 0 && !inner) return s.r64[4]!
    const at = ist !== 0 ? 28 + 8 * ist : 4 + 8 * cpl
    if (at + 7 > s.tr.limit) {
      this.#fault(VECTOR.TS, (s.tr.selector & 0xfffc) | ext)
      return undefined
    }
    if (!this.#read(s.tr.base + BigInt(at), this.#eight)) return undefined
    return new DataView(this.#eight.buffer).getBigUint64(0, true)
  }

  // Writes the frame below `top` with the rights of the level it is for; returns the new RSP.
  #push(event: PendingEvent, top: bigint, cpl: number): bigint | undefined {
    const s = this.#state
    const length = event.error === undefined ? 40 : 48
    const view = new DataView(this.#frame.buffer)
    let at = 0
    const put = (value: bigint) => {
      view.setBigUint64(at, value, true)
      at += 8
    }
    const length64 = BigInt(event.length ?? 0)
    if (event.error !== undefined) put(BigInt(event.error >>> 0))
    put(event.kind === EVENT.SOFTWARE ? s.rip + length64 : s.rip)
    put(BigInt(s.cs.selector))
    put(BigInt((s.flags | (isFault(event) ? FLAG.RF : 0)) >>> 0))
    put(s.r64[4]!)
    put(BigInt(s.ss.selector))
    const rsp = BigInt.asUintN(64, top - BigInt(length))
    const before = s.cpl
    s.cpl = cpl
    this.#memory.write(
      high(rsp),
      low(rsp),
      this.#frame.subarray(0, length),
      ACCESS.WRITE | ACCESS.STACK,
    )
    s.cpl = before
    return s.abort === ABORT.NONE ? rsp : undefined
  }

  #enter(selector: number, code: DataView, cpl: number): void {
    const s = this.#state
    const { cs } = s
    const attributes = code.getUint8(5)
    const limit = code.getUint16(0, true) | ((code.getUint8(6) & 15) << 16)
    cs.selector = (selector & 0xfffc) | cpl
    cs.base = 0n
    cs.g = code.getUint8(6) >> 7
    cs.limit = cs.g === 1 ? ((limit << 12) | 0xfff) >>> 0 : limit
    cs.type = attributes & 15
    cs.s = 1
    cs.dpl = (attributes >> 5) & 3
    cs.present = 1
    cs.avl = (code.getUint8(6) >> 4) & 1
    cs.l = 1
    cs.db = 0
    cs.unusable = 0
    s.cpl = cpl
  }

  // An inner level starts with a null SS whose RPL is the new CPL (6.14.2).
  #nullStack(cpl: number): void {
    const ss: Segment = this.#state.segments[SEGMENT.SS]!
    ss.selector = cpl
    ss.unusable = 1
    ss.dpl = cpl
  }

  #read(linear: bigint, into: Uint8Array): boolean {
    this.#memory.read(high(linear), low(linear), into, ACCESS.READ | ACCESS.SYSTEM)
    return this.#state.abort === ABORT.NONE
  }

  #fault(vector: number, error: number): false {
    this.#state.raise(vector, error)
    return false
  }
}
