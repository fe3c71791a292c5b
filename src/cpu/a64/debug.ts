// Self-hosted debug of one processing element (DDI 0487, D2): which debug exceptions can occur now and to whom they go.
// The guest's debug registers, the host's (KVM_SET_GUEST_DEBUG), who owns the hardware, and MDCR_EL2 that follows.
// Matching is in debug-match.ts, watchpoints meet accesses in watch.ts, the order of events is core.ts.

import {
  anyBreakpoint,
  anyWatchpoint,
  breakpointMatches,
  type DebugValues,
  noDebugValues,
  watchpointMatch,
} from './debug-match.js'
import { SPSR } from './exceptions.js'
import { BREAKPOINTS, CONTEXT_BREAKPOINTS, WATCHPOINTS } from './id-registers.js'
import { OsLock, type OsLockKind } from './os-lock.js'
import { systemKey } from './ports.js'
import { type A64State, DAIF } from './registers.js'
import { MDSCR, MDSCR_LOCKED_MASK } from './system-register-table.js'
import type { SystemRegister, SystemRegisters } from './system-registers.js'
import { MDCR } from './traps.js'

/** What the host asks for with KVM_SET_GUEST_DEBUG. BRK goes to it as soon as it asks for anything. */
export interface GuestDebug {
  readonly singleStep: boolean
  /** The host's own breakpoints and watchpoints; the guest's have no effect then or otherwise. */
  readonly hardware?: Omit<DebugValues, 'context'> | undefined
}

/** Who the debug hardware works for: nobody has touched it yet, the guest, or the host. */
export type DebugOwner = 'free' | 'guest' | 'host'

/** Where a debug exception goes. */
export type DebugTarget = 'none' | 'guest' | 'host'

type View = 'effective' | 'value'

/** Instructions after a write of MDSCR_EL1.SS before stepping begins without a context synchronisation event. */
const STEP_LAG = 4

/** Debug of one processing element. */
export class Debug {
  readonly lock: OsLock
  /** The run loop must look between instructions. */
  live = false
  /** Accesses must be compared with watchpoints. */
  watching = false
  readonly #state: A64State
  readonly #registers: SystemRegisters
  readonly #mdscr: SystemRegister
  readonly #contextidr: SystemRegister
  readonly #bvr: readonly SystemRegister[]
  readonly #bcr: readonly SystemRegister[]
  readonly #wvr: readonly SystemRegister[]
  readonly #wcr: readonly SystemRegister[]
  readonly #guest = noDebugValues()
  readonly #written = noDebugValues()
  readonly #host = noDebugValues()
  #hostAsks: GuestDebug | undefined
  /** The context synchronisation event that MDSCR_EL1.SS was set after, and the instructions it still waits for one. */
  #setAfter = -1
  #lag = 0
  /** A break- or watchpoint register was accessed since the last entry. */
  #touched = false

  constructor(state: A64State, registers: SystemRegisters, lock: OsLockKind = 'open') {
    this.#state = state
    this.#registers = registers
    this.#mdscr = registers.named('MDSCR_EL1')
    this.#contextidr = registers.named('CONTEXTIDR_EL1')
    const numbered = (count: number, op2: number) =>
      Array.from({ length: count }, (_, n) => registers.at(systemKey(2, 0, 0, n, op2))!)
    this.#bvr = numbered(BREAKPOINTS, 4)
    this.#bcr = numbered(BREAKPOINTS, 5)
    this.#wvr = numbered(WATCHPOINTS, 6)
    this.#wcr = numbered(WATCHPOINTS, 7)
    this.lock = new OsLock(registers, () => this.refresh(), lock)
    this.#mdscr.behaviour = {
      write: v => this.#writeMdscr(v),
      hostWrite: v => {
        this.#registers.set(this.#mdscr, v & MDSCR_LOCKED_MASK)
        return true
      },
    }
    for (let n = BREAKPOINTS - CONTEXT_BREAKPOINTS; n < BREAKPOINTS; n++) {
      const value = this.#bvr[n]!
      // Bits 1:0 are part of a context and not of an address.
      const isContext = () => ((this.#bcr[n]!.value >> 20n) & 15n) >= 2n
      value.behaviour = { read: () => (isContext() ? value.value : value.value & ~3n) }
    }
    const changed = () => this.refresh()
    for (const r of [this.#mdscr, this.#contextidr, ...this.#bvr, ...this.#bcr]) r.onChange(changed)
    for (const r of [...this.#wvr, ...this.#wcr]) r.onChange(changed)
    registers.traps.heard = name => {
      if (!/^DBG[BW][VC]R/.test(name)) return
      this.#touched = true
      this.refresh()
    }
    this.refresh()
  }

  // ---- ownership and configuration ----

  /** What the host asks for; undefined: nothing. Takes effect at once. */
  set guestDebug(asked: GuestDebug | undefined) {
    this.#hostAsks = asked
    const { hardware } = asked ?? {}
    const none = noDebugValues()
    for (const name of ['bvr', 'bcr', 'wvr', 'wcr'] as const) {
      const from = hardware?.[name] ?? none[name]
      for (let n = 0; n < this.#host[name].length; n++) this.#host[name][n] = from[n] ?? 0
    }
    this.refresh()
  }

  get guestDebug(): GuestDebug | undefined {
    return this.#hostAsks
  }

  /** Whether the host steps. */
  get hostSteps(): boolean {
    return this.#hostAsks?.singleStep === true
  }

  /** A locked OS Lock takes the hardware from the guest, and so does a host that debugs. */
  get owner(): DebugOwner {
    if (this.#hostAsks !== undefined || this.lock.locked) return 'host'
    const armed = Number(this.#mdscr.effective) & (MDSCR.KDE | MDSCR.MDE)
    return armed !== 0 || this.#touched ? 'guest' : 'free'
  }

  /** The processing element is about to be entered: who has not armed anything is asked again before the next access. */
  load(): void {
    this.#touched = false
    this.refresh()
  }

  /** Works out again what follows from registers, lock and host. */
  refresh(): void {
    this.#take(this.#guest, 'effective')
    const { owner } = this
    const asked = this.#hostAsks
    this.#registers.traps.mdcr =
      MDCR.TDOSA |
      MDCR.TDRA |
      (asked !== undefined ? MDCR.TDE : 0) |
      (owner !== 'guest' ? MDCR.TDA : 0)
    this.#host.context = this.#guest.context
    const mdscr = Number(this.#mdscr.effective)
    if (owner === 'host') {
      this.watching = asked?.hardware !== undefined && anyWatchpoint(this.#host)
      this.live = asked !== undefined && (asked.singleStep || asked.hardware !== undefined)
      return
    }
    const monitors = (mdscr & MDSCR.MDE) !== 0
    this.watching = monitors && anyWatchpoint(this.#guest)
    this.live =
      this.watching || (monitors && anyBreakpoint(this.#guest)) || (mdscr & MDSCR.SS) !== 0
  }

  // ---- what occurs now ----

  /**
   * Whether software step is active for the guest: PSTATE.SS tells pending from not pending. Asked once for each
   * instruction. Applied at once, the write of MDSCR_EL1.SS would have the ISB after it stepped, which no hardware does:
   * this one bit waits for a context synchronisation event, or a few instructions.
   */
  get guestSteps(): boolean {
    if (!this.#stepsUnder('effective')) return false
    if (this.#setAfter !== this.#registers.sync.events) return true
    return --this.#lag < 0
  }

  /** Where the breakpoint exception for the instruction at `pc` goes, if there is one. */
  breakpoint(pc: bigint): DebugTarget {
    const s = this.#state
    if (this.#hostAsks?.hardware !== undefined)
      return breakpointMatches(this.#host, pc, s.el) ? 'host' : 'none'
    return this.#monitorsUnder('effective') && breakpointMatches(this.#guest, pc, s.el)
      ? 'guest'
      : 'none'
  }

  /** The lowest watched address of an access with the privilege of `el`, or -1. Compare `owner` for where it goes. */
  watchpoint(address: bigint, size: number, el: number, what: number): bigint {
    if (this.#hostAsks?.hardware !== undefined)
      return watchpointMatch(this.#host, address, size, el, what)
    if (!this.#monitorsUnder('effective')) return -1n
    return watchpointMatch(this.#guest, address, size, el, what)
  }

  /** PSTATE.SS after ERET to an exception level with SPSR's D (DDI 0487, "DebugExceptionReturnSS"). */
  stepBitOnReturn(spsr: number, el: number): number {
    const { effective } = this.#mdscr
    if ((Number(effective) & MDSCR.SS) === 0 || this.lock.locked) return 0
    const from = this.#enabledFrom('effective', this.#state.el, (this.#state.daif & DAIF.D) !== 0)
    const to = this.#enabledFrom('effective', el, (spsr & SPSR.D) !== 0)
    return !from && to && (spsr & SPSR.SS) !== 0 ? 1 : 0
  }

  // ---- strict synchronisation ----

  /** Whether writes that wait for an ISB would have made the instruction at `pc` meet a different debug event. */
  breakpointDiffers(pc: bigint): boolean {
    if (this.#hostAsks !== undefined) return false
    this.#take(this.#written, 'value')
    const { el } = this.#state
    const now = this.#monitorsUnder('effective') && breakpointMatches(this.#guest, pc, el)
    const then = this.#monitorsUnder('value') && breakpointMatches(this.#written, pc, el)
    return now !== then || this.#stepsUnder('effective') !== this.#stepsUnder('value')
  }

  /** The same for an access. */
  watchpointDiffers(address: bigint, size: number, el: number, what: number): boolean {
    if (this.#hostAsks !== undefined) return false
    this.#take(this.#written, 'value')
    const match = (view: View, v: DebugValues) =>
      this.#monitorsUnder(view) ? watchpointMatch(v, address, size, el, what) : -1n
    return match('effective', this.#guest) !== match('value', this.#written)
  }

  // ---- inside ----

  #enabledFrom(view: View, el: number, masked: boolean): boolean {
    if (el === 0) return true
    return (Number(this.#mdscr[view]) & MDSCR.KDE) !== 0 && !masked
  }

  /** Breakpoint and watchpoint exceptions to EL1 are enabled here. */
  #monitorsUnder(view: View): boolean {
    return (Number(this.#mdscr[view]) & MDSCR.MDE) !== 0 && this.#enabledHere(view)
  }

  #stepsUnder(view: View): boolean {
    return (Number(this.#mdscr[view]) & MDSCR.SS) !== 0 && this.#enabledHere(view)
  }

  #enabledHere(view: View): boolean {
    const s = this.#state
    if (this.#hostAsks !== undefined || this.lock.locked) return false
    return this.#enabledFrom(view, s.el, (s.daif & DAIF.D) !== 0)
  }

  #take(into: DebugValues, view: View): void {
    for (let n = 0; n < BREAKPOINTS; n++) {
      into.bvr[n] = this.#bvr[n]![view]
      into.bcr[n] = Number(this.#bcr[n]![view])
    }
    for (let n = 0; n < WATCHPOINTS; n++) {
      into.wvr[n] = this.#wvr[n]![view]
      into.wcr[n] = Number(this.#wcr[n]![view])
    }
    into.context = Number(this.#contextidr[view])
  }

  // Bits of the external debugger are read-only unless the OS Lock is closed.
  #writeMdscr(v: bigint): void {
    const r = this.#mdscr
    const mask = this.lock.locked ? MDSCR_LOCKED_MASK : r.row.mask
    if ((Number(v & ~r.value) & MDSCR.SS) !== 0) {
      this.#setAfter = this.#registers.sync.events
      this.#lag = STEP_LAG
    }
    this.#registers.set(r, (v & mask) | (r.value & ~mask))
  }
}
