// The x86-64 core: fetches blocks, runs them on the evaluator, and takes events in between (SDM vol. 3, 6.9).
// 64-bit mode only: any other mode is refused at entry. While breakpoints are armed it runs instruction by instruction.

import type { AddressSpace } from '../../mem/address-space.js'
import type { Core, Exit } from '../core.js'
import { evaluate } from '../ir/evaluator.js'
import { Breakpoints, DR6, DR6_ONES } from './breakpoints.js'
import { type Block, CodeCache, type CodeMemory } from './code-cache.js'
import type { X86Machine } from './machine.js'
import { ACCESS, type MemoryPort, type SystemPort } from './ports.js'
import {
  ABORT,
  CR0,
  EFER,
  EVENT,
  FLAG,
  type PendingEvent,
  SLOT,
  VECTOR,
  type X86State,
} from './registers.js'

/** Parts an x86 core is made of. `space` is the guest-physical memory that `memory` translates into. */
export interface X86CoreParts {
  readonly state: X86State
  readonly memory: MemoryPort
  readonly system: SystemPort
  readonly space: AddressSpace
}

/** One x86-64 logical processor. */
export class X86Core implements Core, X86Machine {
  readonly state: X86State
  readonly system: SystemPort
  readonly breakpoints: Breakpoints
  /** What a debugger asked for (KVM_SET_GUEST_DEBUG): exits instead of exceptions. */
  readonly debug = { singleStep: false, softwareBreakpoints: false, blockInterrupts: false }
  /** Leave with `interrupt-window` as soon as an external interrupt could be delivered. */
  wantsInterruptWindow = false

  readonly #code: CodeCache
  readonly #plain: MemoryPort
  /** Plain memory, or the breakpoints' view of it. */
  #memory: MemoryPort
  #retired = 0
  #exitRequested = false
  /** The exit that ended the block, if one did. */
  #exit: Exit | undefined
  /** An event's delivery waits for a device access. */
  #delivering = false

  constructor(parts: X86CoreParts) {
    this.state = parts.state
    this.#plain = this.#memory = parts.memory
    this.breakpoints = new Breakpoints(parts.state, parts.memory)
    this.system = parts.system
    this.#code = new CodeCache(parts.space)
  }

  get memory(): MemoryPort {
    return this.#memory
  }

  /** Instructions retired, iterations of string instructions and deliveries of events each counting as one. */
  get retired(): number {
    return this.#retired
  }

  /** Fetches code from other memory than it was made with: plaintext of encrypted pages. */
  fetchFrom(memory: CodeMemory): void {
    this.#code.useMemory(memory)
  }

  requestExit(): void {
    this.#exitRequested = true
  }

  completeAccess(bytes?: Uint8Array): void {
    this.state.accesses.answer(bytes)
  }

  step(): Exit {
    return this.run(1)
  }

  run(maxInstructions: number): Exit {
    const { state } = this
    const refused = this.#refuses()
    if (refused) return { kind: 'fail-entry', reason: refused }
    if (state.accesses.waiting) return state.accesses.waiting
    const end = this.#retired + maxInstructions
    while (this.#retired < end) {
      const half = state.accesses.open
      if (this.#exitRequested && !half) {
        this.#exitRequested = false
        return { kind: 'interrupted' }
      }
      if (!half || this.#delivering) {
        const exit = this.#takeEvents()
        if (exit) return exit
        if (this.#retired >= end) break
      }
      if (half || !this.breakpoints.armed || !this.#atBreakpoint()) {
        const block = this.#nextBlock()
        if (block) this.#runBlock(block, end - this.#retired)
        else this.#endEarly()
      }
      if (this.#exit) {
        const exit = this.#exit
        this.#exit = undefined
        return exit
      }
    }
    return { kind: 'limit' }
  }

  /** Why this state cannot be entered; empty when it can. */
  #refuses(): string {
    const { cr0, efer, cs } = this.state
    if (!(cr0 & CR0.PE) || !(cr0 & CR0.PG))
      return 'CR0.PE and CR0.PG must be set: only 64-bit mode is modelled'
    if (!(efer & EFER.LMA)) return 'EFER.LMA must be set: only 64-bit mode is modelled'
    if (!cs.l || cs.unusable) return 'CS.L must be set: only 64-bit mode is modelled'
    return ''
  }

  /** Delivers what is due before the next instruction, in order of priority. */
  #takeEvents(): Exit | undefined {
    const { state } = this
    if (state.event) return this.#deliver(state.event)
    if (this.debug.blockInterrupts) return state.halted ? { kind: 'hlt' } : undefined
    if (state.nmiPending && !state.nmiBlocked && !state.interruptShadow) {
      state.nmiPending = false
      return this.#deliver({ kind: EVENT.NMI, vector: VECTOR.NMI, error: undefined })
    }
    if (state.flags & FLAG.IF && !state.interruptShadow) {
      if (this.system.pendingInterrupt() >= 0) {
        const vector = this.system.acknowledgeInterrupt()
        return this.#deliver({ kind: EVENT.EXTERNAL, vector, error: undefined })
      }
      if (this.wantsInterruptWindow) return { kind: 'interrupt-window' }
    }
    return state.halted ? { kind: 'hlt' } : undefined
  }

  #deliver(event: PendingEvent): Exit | undefined {
    const { state } = this
    state.event = event
    state.halted = false
    state.accesses.restart()
    const delivered = this.system.deliver(event)
    this.#delivering = state.abort === ABORT.EXIT
    state.abort = ABORT.NONE
    if (this.#delivering) return state.accesses.waiting
    state.accesses.forget()
    state.event = undefined
    this.#retired++
    return delivered ? undefined : { kind: 'shutdown' }
  }

  /** The block at RIP, or undefined with the state aborted. */
  #nextBlock(): Block | undefined {
    const { state } = this
    const memory = this.#plain
    const lo = state.r32[2 * SLOT.RIP]!
    const hi = state.r32[2 * SLOT.RIP + 1]!
    const address = memory.translate(hi, lo, ACCESS.FETCH)
    if (address < 0) return undefined
    return this.#code.find(address, () => {
      const next = (lo | 4095) + 1
      return memory.translate(next === 0 ? (hi + 1) | 0 : hi, next | 0, ACCESS.FETCH)
    })
  }

  #runBlock(block: Block, budget: number): void {
    const { state, breakpoints } = this
    const watched = breakpoints.armed
    const memory = watched ? breakpoints : this.#plain
    this.#memory = memory
    const { r64 } = state
    const { instructions } = block
    const replays = state.accesses.open
    const shadow = state.interruptShadow
    const traps = (state.flags & FLAG.TF) !== 0
    const resumes = state.flags & FLAG.RF
    const single = replays || shadow || traps || watched || resumes !== 0 || this.debug.singleStep
    if (replays) state.accesses.restart()
    state.interruptShadow = false
    // RF holds for one instruction; what faults or is done again has it still.
    if (resumes) state.flags &= ~FLAG.RF
    breakpoints.hits = 0
    const most = single ? 1 : Math.min(budget, block.steps)
    memory.storedPage = memory.storedFirstPage = -1
    let done = 0
    let i = 0
    while (i < instructions.length && done < most) {
      const insn = instructions[i]!
      r64[SLOT.NEXT] = r64[SLOT.RIP]! + insn.length
      if (!evaluate(insn.ops, state, memory, this)) {
        this.#retired += done
        if (shadow && state.abort === ABORT.EXIT) state.interruptShadow = true
        if (state.abort === ABORT.EXIT || state.abort === ABORT.EXCEPTION) state.flags |= resumes
        this.#endEarly()
        return
      }
      const again = insn.repeats && r64[SLOT.NEXT] === r64[SLOT.RIP]
      r64[SLOT.RIP] = r64[SLOT.NEXT]!
      done++
      if (!again) i++
      if (memory.storedPage === block.page || memory.storedFirstPage === block.page) break
    }
    this.#retired += done
    if (replays) state.accesses.forget()
    this.#debugTraps(traps)
    if (state.leave) {
      this.#exit = state.leave
      state.leave = undefined
    }
  }

  /** After an instruction: data breakpoints and single steps, the guest's and the debugger's outside. */
  #debugTraps(traps: boolean): void {
    const { hits, owned } = this.breakpoints
    const guests = (owned ? 0 : hits) | (traps ? DR6.BS : 0)
    const hosts = (owned ? hits : 0) | (this.debug.singleStep ? DR6.BS : 0)
    if (guests !== 0) this.#debugException(guests, false)
    if (hosts !== 0) this.#exit = this.#debugExit(hosts)
  }

  /** True when an instruction breakpoint is at RIP: the exception, or the exit, that it is was made. */
  #atBreakpoint(): boolean {
    const { state, breakpoints } = this
    const hits = breakpoints.atInstruction()
    if (hits === 0) return false
    if (breakpoints.owned) {
      // As the frame of the exception would have it: the instruction runs when the guest goes on.
      state.flags |= FLAG.RF
      this.#exit = this.#debugExit(hits)
    } else this.#debugException(hits, true)
    return true
  }

  #debugException(bits: number, fault: boolean): void {
    const { state } = this
    state.dr[6] = (state.dr[6]! & ~15n) | BigInt(bits)
    state.event ??= { kind: EVENT.EXCEPTION, vector: VECTOR.DB, error: undefined, fault }
  }

  #debugExit(bits: number): Exit {
    const syndrome = (DR6_ONES | bits) >>> 0
    return { kind: 'debug', vector: VECTOR.DB, address: this.state.rip, syndrome }
  }

  /** Turns `state.abort` into the event to deliver next or the exit to leave with. */
  #endEarly(): void {
    const { state } = this
    const { abort, event } = state
    state.abort = ABORT.NONE
    if (abort === ABORT.EXIT) {
      const exit = state.accesses.waiting
      if (!exit) throw new Error('an access left the core without saying which')
      this.#exit = exit
      return
    }
    state.accesses.forget()
    if (abort === ABORT.EXCEPTION) {
      const { vector, error } = state
      state.event = { kind: EVENT.EXCEPTION, vector, error, fault: true }
    } else if (
      this.debug.softwareBreakpoints &&
      event?.vector === VECTOR.BP &&
      event.length === 1
    ) {
      state.event = undefined
      this.#exit = { kind: 'debug', vector: VECTOR.BP, address: state.rip }
    }
  }
}
