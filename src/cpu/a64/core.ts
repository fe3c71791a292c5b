// The A64 core: fetches blocks, runs them on the evaluator, and takes exceptions in between (DDI 0487, D1.3.5).
// AArch64 EL0 and EL1. While debug or a waiting register write asks for it, it goes instruction by instruction and asks
// in the architecture's order: software step, PC alignment, instruction abort, breakpoint, illegal state, the instruction.

import { lowHalf } from '../../base/addr.js'
import type { TraceBus } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { Core, Exit } from '../core.js'
import { CodeCache, runBlock } from './code-cache.js'
import { Debug, type GuestDebug } from './debug.js'
import { type DomainMember, ShareabilityDomain } from './domain.js'
import { Exceptions, KIND, reportsAddress, syndrome } from './exceptions.js'
import { Fetcher } from './fetcher.js'
import { mpidr } from './id-registers.js'
import type { A64Machine } from './machine.js'
import { Mmu } from './mmu.js'
import type { OsLockKind } from './os-lock.js'
import { type MemorySurroundings, PLAIN_SURROUNDINGS } from './physical.js'
import type { MemoryPort } from './ports.js'
import { FSC } from './regime.js'
import { A64State, ABORT, DAIF, EC, SLOT } from './registers.js'
import { type A64Snapshot, restoreState, saveState } from './snapshot.js'
import { ContextSync, type SyncMode } from './sync.js'
import { A64System } from './system.js'
import { SystemOperations } from './system-ops.js'
import { keyOf } from './system-register-table.js'
import { SystemRegisters } from './system-registers.js'
import { HypervisorTraps } from './traps.js'
import { WatchedMemory } from './watch.js'

/** The interrupt inputs of a core, as levels. */
export interface InterruptInputs {
  readonly irq: boolean
  readonly fiq: boolean
}

/** Parts an A64 core is made of. */
export interface A64CoreParts {
  /** Number of the vCPU: MPIDR_EL1 follows. Default 0. */
  readonly id?: number
  /** Guest-physical memory. */
  readonly memory: AddressSpace
  /** The cores of the same VM. Default: none but this. */
  readonly domain?: ShareabilityDomain
  readonly around?: MemorySurroundings
  readonly interrupts?: InterruptInputs
  /** `strict` holds register writes back until they are synchronised, and finds uses before that. Default immediate. */
  readonly sync?: SyncMode
  /** The OS Lock at reset: open as KVM has it (the default), locked as the architecture has it, or hidden. */
  readonly osLock?: OsLockKind
  readonly trace?: TraceBus
}

const QUIET: InterruptInputs = { irq: false, fiq: false }

/** ISS of a software step exception: ISV, and EX for a stepped load-exclusive. */
const STEP = { ISV: 1 << 24, EX: 1 << 6 } as const

/** Load-exclusives of registers and pairs, acquiring or not. */
const isLoadExclusive = (word: number): boolean => (word & 0x3fc0_0000) === 0x0840_0000

/** One A64 processing element. */
export class A64Core implements Core, A64Machine {
  readonly id: number
  readonly state = new A64State()
  readonly sync: ContextSync
  readonly traps: HypervisorTraps
  readonly registers: SystemRegisters
  readonly exceptions: Exceptions
  readonly debug: Debug
  readonly mmu: Mmu
  readonly system: A64System
  /** Where data accesses go: the MMU, or what watches it. */
  memory: MemoryPort
  /** WFI waits for an interrupt. */
  halted = false
  /** ISS of an SError that waits to be taken. */
  serrorPending: number | undefined
  readonly #fetcher: Fetcher
  readonly #domain: ShareabilityDomain
  readonly #member: DomainMember
  readonly #watched: WatchedMemory
  readonly #interrupts: InterruptInputs
  #retired = 0
  #exitRequested = false
  /** The exit that ended the block, if one did. */
  #exit: Exit | undefined
  /** What the instruction before was to software step: nothing, stepped, or a stepped load-exclusive. */
  #stepped: 'no' | 'yes' | 'exclusive' = 'no'

  constructor(parts: A64CoreParts) {
    const { id = 0, memory: space, trace, domain = new ShareabilityDomain() } = parts
    const { around = PLAIN_SURROUNDINGS } = parts
    const { state } = this
    this.id = id
    this.#interrupts = parts.interrupts ?? QUIET
    this.sync = new ContextSync(id, trace?.point('a64.use-before-isb'))
    this.traps = new HypervisorTraps(id, trace?.point('a64.trap'))
    const registers = new SystemRegisters(state, this.sync, this.traps)
    this.registers = registers
    registers.setId(keyOf('MPIDR_EL1'), mpidr(id))
    this.exceptions = new Exceptions(state, registers, id, trace?.point('a64.exception'))
    this.mmu = new Mmu({ state, registers, memory: space, domain, around })
    registers.named('SCTLR_EL1').onChange(() => this.exceptions.modeChanged())
    this.debug = new Debug(state, registers, parts.osLock)
    const { mmu, sync, debug, exceptions, traps } = this
    this.#watched = new WatchedMemory({ state, mmu, debug, sync })
    this.memory = mmu
    this.#fetcher = new Fetcher(state, mmu, new CodeCache(space))
    const operations = new SystemOperations({
      state,
      registers,
      traps,
      mmu,
      domain,
      memory: () => this.memory,
    })
    this.system = new A64System({
      state,
      registers,
      traps,
      operations,
      exceptions,
      debug,
      sleep: () => (this.halted = true),
    })
    registers.named('ISR_EL1').behaviour = { read: () => BigInt(this.#pending << 6) }
    this.#domain = domain
    this.#member = { state, tlb: mmu.tlb }
    domain.join(this.#member)
    this.reset()
    sync.mode = parts.sync ?? 'immediate'
  }

  /** Warm reset: EL1h, everything masked, translation off. PC and general registers are zero. */
  reset(): void {
    this.state.reset()
    this.registers.reset()
    this.exceptions.modeChanged()
    this.debug.load()
    this.mmu.reload()
    this.halted = this.system.event = false
    this.serrorPending = undefined
    this.#stepped = 'no'
    this.#exit = undefined
  }

  // ---- the owner's view ----

  /** Instructions retired, exceptions taken between instructions each counting as one. */
  get retired(): number {
    return this.#retired
  }

  requestExit(): void {
    this.#exitRequested = true
  }

  completeAccess(bytes?: Uint8Array): void {
    this.state.accesses.answer(bytes)
  }

  /** PSTATE in SPSR's layout. */
  get pstate(): number {
    return this.exceptions.pstate
  }

  /** False, with nothing changed, for a mode that does not exist. */
  setPstate(value: number): boolean {
    return this.exceptions.setPstate(value)
  }

  /** KVM_SET_GUEST_DEBUG; undefined ends debugging. */
  setGuestDebug(asked: GuestDebug | undefined): void {
    this.debug.guestDebug = asked
  }

  /** Makes an SError pending; it is taken when PSTATE.A allows. */
  pendSerror(iss = 0): void {
    this.serrorPending = iss
  }

  /** Guest-physical memory is not what it was: drops every translation. */
  flush(): void {
    this.mmu.reload()
  }

  /** Takes a synchronous exception to EL1 before the next instruction: UNDEFINED, an external abort. */
  inject(ec: number, iss: number, far?: bigint): void {
    this.state.accesses.forget()
    this.halted = false
    this.#take(ec, iss, this.state.pc, far)
    this.#exit = undefined
  }

  // ---- saved state ----

  /** Everything there is to save between two instructions; one that waits for a device starts again. */
  save(): A64Snapshot {
    const { halted, serrorPending, pstate } = this
    return {
      ...saveState(this.state),
      pstate,
      registers: this.registers.save(),
      halted,
      event: this.system.event,
      serror: serrorPending,
    }
  }

  /** Takes what `save` gave, of this or another core; translations and findings start anew. */
  restore(snapshot: A64Snapshot): void {
    this.reset()
    this.setPstate(snapshot.pstate)
    restoreState(this.state, snapshot)
    this.registers.restore(snapshot.registers)
    this.debug.refresh()
    this.mmu.reload()
    this.halted = snapshot.halted
    this.system.event = snapshot.event
    this.serrorPending = snapshot.serror
  }

  /** Leaves the domain: nobody's invalidations reach it any more. */
  release(): void {
    this.#domain.leave(this.#member)
  }

  // ---- running ----

  step(): Exit {
    return this.run(1)
  }

  run(maxInstructions: number): Exit {
    const { state, debug } = this
    if (state.accesses.waiting) return state.accesses.waiting
    debug.load()
    const end = this.#retired + maxInstructions
    while (this.#retired < end) {
      const half = state.accesses.open
      if (!half) {
        if (this.#exitRequested) {
          this.#exitRequested = false
          return { kind: 'interrupted' }
        }
        const exit = this.#interrupted()
        if (exit) return exit
        if (this.#retired >= end) break
      } else state.accesses.restart()
      if (debug.live || this.sync.waiting || state.il !== 0) this.#runWatched(half)
      else {
        this.memory = this.mmu
        this.#stepped = 'no'
        const block = this.#fetcher.next()
        if (block) this.#retired += runBlock(this, block, half ? 1 : end - this.#retired)
        this.#finish(half)
      }
      if (this.#exit) {
        const exit = this.#exit
        this.#exit = undefined
        return exit
      }
    }
    return { kind: 'limit' }
  }

  /** Physical SError, IRQ and FIQ, as A, I and F in `daif`'s places. */
  get #pending(): number {
    const { irq, fiq } = this.#interrupts
    return (this.serrorPending !== undefined ? DAIF.A : 0) | (irq ? DAIF.I : 0) | (fiq ? DAIF.F : 0)
  }

  /** Takes what is pending and not masked, and notices that WFI still waits. */
  #interrupted(): Exit | undefined {
    const { state } = this
    const pending = this.#pending
    if (this.halted) {
      if (pending === 0) return { kind: 'hlt' }
      this.halted = false
    }
    const due = pending & ~state.daif
    if (due === 0) return undefined
    const elr = state.pc
    if ((due & DAIF.A) !== 0) {
      const esr = syndrome(EC.SERROR, this.serrorPending!)
      this.serrorPending = undefined
      this.exceptions.take(KIND.SERROR, { elr, esr })
    } else this.exceptions.take((due & DAIF.F) !== 0 ? KIND.FIQ : KIND.IRQ, { elr })
    return this.#entered()
  }

  /** An exception was taken between instructions. A host that steps sees the vector. */
  #entered(): Exit | undefined {
    this.#retired++
    this.#stepped = 'no'
    return this.debug.hostSteps ? this.#stepExit(FSC.DEBUG) : undefined
  }

  /** One instruction, with every question that comes before it. */
  #runWatched(half: boolean): void {
    const { state, debug } = this
    const stepping = debug.guestSteps
    if (!half && stepping && state.ss === 0) {
      const iss = FSC.DEBUG | this.#stepSyndrome()
      this.#take(state.el === 0 ? EC.STEP_LOWER : EC.STEP, iss, state.pc)
      return
    }
    const block = this.#fetcher.next()
    if (block && !half && this.#stopsBefore()) return
    const word = block?.words[0] ?? 0
    this.memory = debug.watching || this.sync.waiting ? this.#watched : this.mmu
    const done = block ? runBlock(this, block, 1) : 0
    this.memory = this.mmu
    this.#retired += done
    if (done > 0) {
      if (stepping) state.ss = 0
      const stepped = stepping || debug.hostSteps
      this.#stepped = !stepped ? 'no' : isLoadExclusive(word) ? 'exclusive' : 'yes'
      if (debug.hostSteps && state.leave === undefined)
        this.#exit = this.#stepExit(FSC.DEBUG | this.#stepSyndrome())
    } else if (stepping && state.abort === ABORT.EXCEPTION && state.ec === EC.SVC) state.ss = 0
    this.#finish(half)
  }

  /** Breakpoint, then illegal execution state. True: the instruction does not run. */
  #stopsBefore(): boolean {
    const { state, debug } = this
    const { pc, el } = state
    if (this.sync.waits('debug') && debug.breakpointDiffers(pc)) this.sync.usedAll('debug', pc)
    const target = debug.breakpoint(pc)
    if (target === 'host') {
      this.#exit = this.#debugExit(EC.BREAKPOINT_LOWER, FSC.DEBUG)
      return true
    }
    if (target === 'guest')
      this.#take(el === 0 ? EC.BREAKPOINT_LOWER : EC.BREAKPOINT, FSC.DEBUG, pc)
    else if (state.il !== 0) this.#take(EC.ILLEGAL_STATE, 0, pc)
    else return false
    return true
  }

  /** After a block: the exception or exit that it ended with, if any. */
  #finish(half: boolean): void {
    const { state } = this
    const { abort } = state
    state.abort = ABORT.NONE
    if (abort === ABORT.EXIT) {
      const exit = state.accesses.waiting
      if (!exit) throw new Error('an access left the core without saying which')
      this.#exit = exit
      return
    }
    if (half || abort !== ABORT.NONE) state.accesses.forget()
    if (abort === ABORT.EXCEPTION) this.#raised()
    if (state.leave) {
      this.#exit = state.leave
      state.leave = undefined
    }
  }

  /** Takes the exception that an instruction raised, or hands it to the host that debugs. */
  #raised(): void {
    const { state, debug } = this
    const { ec, iss } = state
    const watchpoint = ec === EC.WATCHPOINT || ec === EC.WATCHPOINT_LOWER
    if (debug.guestDebug !== undefined && (ec === EC.BRK || watchpoint)) {
      this.#exit = this.#debugExit(watchpoint ? EC.WATCHPOINT_LOWER : ec, iss)
      return
    }
    // Only a call returns to the instruction after it.
    const elr = ec === EC.SVC ? state.r64[SLOT.NEXT]! : state.pc
    this.#take(ec, iss, elr, reportsAddress(ec) ? state.far : undefined)
  }

  /** Takes a synchronous exception to EL1. */
  #take(ec: number, iss: number, elr: bigint, far?: bigint): void {
    const esr = syndrome(ec, iss)
    this.exceptions.take(KIND.SYNC, far === undefined ? { elr, esr } : { elr, esr, far })
    this.#exit = this.#entered()
  }

  /** ISS bits of a step that follows what ran last. */
  #stepSyndrome(): number {
    return this.#stepped === 'no' ? 0 : STEP.ISV | (this.#stepped === 'exclusive' ? STEP.EX : 0)
  }

  #stepExit(iss: number): Exit {
    return this.#debugExit(EC.STEP_LOWER, iss)
  }

  /** A debug exception to the host. Taking it, and the return from it, clear the exclusive monitor. */
  #debugExit(ec: number, iss: number): Exit {
    const { state } = this
    state.clearExclusive()
    this.sync.synchronise()
    this.#stepped = 'no'
    return {
      kind: 'debug',
      vector: ec,
      address: state.pc,
      syndrome: lowHalf(syndrome(ec, iss)) >>> 0,
      far: ec === EC.WATCHPOINT_LOWER ? state.far : 0n,
    }
  }
}
