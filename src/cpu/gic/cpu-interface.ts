// The CPU interface: what ICC_*_EL1 registers do (IHI 0069H chapters 4 and 12.2). Five bits of priority, one register of
// active priorities for each group. Group 0 is signalled as FIQ, group 1 as IRQ. Keys of registers: system-registers.ts.

import type { Distributor } from './distributor.js'
import type { Redistributor } from './redistributor.js'
import { FIRST_LPI, IDLE_PRIORITY, PRIORITY_BITS, PRIORITY_MASK, SPURIOUS } from './registers.js'

/** Smallest binary points: every implemented bit of priority is group priority. */
const LEAST_BPR0 = 7 - PRIORITY_BITS
const LEAST_BPR1 = LEAST_BPR0 + 1
const CTLR_CBPR = 1
const CTLR_EOIMODE = 2
/** PRIbits, one less; IDbits 0: 16 bits of interrupt id. */
const CTLR_FIXED = (PRIORITY_BITS - 1) << 8

/** Delivers a software-generated interrupt to other processors. */
export type SendSgi = (value: bigint, groups: number) => void

/** One processor's CPU interface. */
export class CpuInterface {
  readonly redistributor: Redistributor
  readonly #distributor: Distributor
  readonly #send: SendSgi
  #pmr = 0
  #bpr0 = LEAST_BPR0
  #bpr1 = LEAST_BPR1
  #control = 0
  /** Group enables: bit 0 group 0, bit 1 group 1. */
  #groups = 0
  /** Active group priorities: bit n is priority 8n. */
  readonly #active = new Uint32Array(2)
  #stale = true
  #irq = false
  #fiq = false

  constructor(redistributor: Redistributor, distributor: Distributor, send: SendSgi) {
    this.redistributor = redistributor
    this.#distributor = distributor
    this.#send = send
  }

  /** Whether the processor's IRQ input is high. */
  get irq(): boolean {
    if (this.#stale) this.#choose()
    return this.#irq
  }

  /** Whether the processor's FIQ input is high. */
  get fiq(): boolean {
    if (this.#stale) this.#choose()
    return this.#fiq
  }

  /** Something changed: the inputs are worked out when next asked for. */
  changed(): void {
    this.#stale = true
  }

  /** ICC_IAR<group>: takes the pending interrupt of the group into service; 1023 when none is signalled. */
  acknowledge(group: number): number {
    if (!(group === 0 ? this.fiq : this.irq)) return SPURIOUS
    const { redistributor } = this
    const { best, bestPriority } = redistributor
    const bit = this.#groupPriority(bestPriority, group) >> (8 - PRIORITY_BITS)
    this.#active[group]! |= 1 << bit
    if (best >= FIRST_LPI) redistributor.lpis.clear(best)
    else this.#range(best).activate(best)
    this.#stale = true
    return best
  }

  /** ICC_HPPIR<group>: what would be acknowledged, priority mask and running priority aside. */
  highestPending(group: number): number {
    if (this.#stale) this.#choose()
    const { best, bestGroup } = this.redistributor
    return best >= 0 && bestGroup === group ? best : SPURIOUS
  }

  /** ICC_EOIR<group>: the running priority drops; unless EOImode is set the interrupt is deactivated too. */
  endOfInterrupt(group: number, intid: number): void {
    if (intid >= 1020 && intid < FIRST_LPI) return
    const highest = this.#runningGroup()
    if (highest !== group) return
    this.#active[group]! &= this.#active[group]! - 1
    this.#stale = true
    if ((this.#control & CTLR_EOIMODE) === 0) this.#deactivate(intid)
  }

  /** ICC_DIR: deactivates, when EOImode separates that from the priority drop. */
  deactivate(intid: number): void {
    if (this.#control & CTLR_EOIMODE) this.#deactivate(intid)
  }

  /** ICC_RPR: priority of what is being served, 0xff when nothing is. */
  get runningPriority(): number {
    const bits = (this.#active[0]! | this.#active[1]!) >>> 0
    if (bits === 0) return IDLE_PRIORITY
    return (31 - Math.clz32(bits & -bits)) << (8 - PRIORITY_BITS)
  }

  get priorityMask(): number {
    return this.#pmr
  }

  set priorityMask(value: number) {
    this.#pmr = value & PRIORITY_MASK
    this.#stale = true
  }

  /** ICC_BPR<group>. With CBPR set that of group 1 reads one more than that of group 0, and takes no writes. */
  binaryPoint(group: number): number {
    if (group === 0) return this.#bpr0
    return this.#control & CTLR_CBPR ? Math.min(this.#bpr0 + 1, 7) : this.#bpr1
  }

  setBinaryPoint(group: number, value: number): void {
    const point = value & 7
    if (group === 0) this.#bpr0 = Math.max(point, LEAST_BPR0)
    else if ((this.#control & CTLR_CBPR) === 0) this.#bpr1 = Math.max(point, LEAST_BPR1)
    this.#stale = true
  }

  get control(): number {
    return CTLR_FIXED | this.#control
  }

  set control(value: number) {
    this.#control = value & (CTLR_CBPR | CTLR_EOIMODE)
    this.#stale = true
  }

  groupEnabled(group: number): boolean {
    return (this.#groups & (1 << group)) !== 0
  }

  enableGroup(group: number, on: boolean): void {
    this.#groups = on ? this.#groups | (1 << group) : this.#groups & ~(1 << group)
    this.#stale = true
  }

  /** ICC_AP0R0 and ICC_AP1R0. */
  activePriorities(group: number): number {
    return this.#active[group]!
  }

  setActivePriorities(group: number, value: number): void {
    this.#active[group] = value
    this.#stale = true
  }

  /** ICC_SGI0R, ICC_SGI1R, ICC_ASGI1R: `groups` are those the targets' SGI may belong to. */
  sendSgi(value: bigint, groups: number): void {
    this.#send(value, groups)
  }

  save(): readonly number[] {
    const [pmr, bpr0, bpr1, groups] = [this.#pmr, this.#bpr0, this.#bpr1, this.#groups]
    return [pmr, bpr0, bpr1, this.#control, groups, this.#active[0]!, this.#active[1]!]
  }

  restore(saved: readonly number[]): void {
    const [pmr, bpr0, bpr1, control, groups, active0, active1] = saved
    this.priorityMask = pmr!
    this.#bpr0 = bpr0!
    this.#bpr1 = bpr1!
    this.control = control!
    this.#groups = groups!
    this.#active[0] = active0!
    this.#active[1] = active1!
  }

  #choose(): void {
    this.#stale = false
    const { redistributor } = this
    redistributor.choose(this.#groups & this.#distributor.groups)
    const { best, bestPriority, bestGroup } = redistributor
    const signalled =
      best >= 0 && bestPriority < this.#pmr && this.#preempts(bestPriority, bestGroup)
    this.#irq = signalled && bestGroup === 1
    this.#fiq = signalled && bestGroup === 0
  }

  // Both priorities are compared in the bits that are group priority to the one that wants to preempt.
  #preempts(priority: number, group: number): boolean {
    const running = this.runningPriority
    if (running === IDLE_PRIORITY) return true
    return this.#groupPriority(priority, group) < this.#groupPriority(running, group)
  }

  // Group 1's binary point counts from the bit above (one Security state, IHI 0069H 4.8.2).
  #groupPriority(priority: number, group: number): number {
    const common = group === 0 || (this.#control & CTLR_CBPR) !== 0
    return priority & (common ? 0xff << (this.#bpr0 + 1) : 0xff << this.#bpr1) & 0xff
  }

  #runningGroup(): number {
    const [zero, one] = this.#active
    if (zero === 0 && one === 0) return -1
    if (zero === 0) return 1
    if (one === 0) return 0
    return lowest(zero!) <= lowest(one!) ? 0 : 1
  }

  #deactivate(intid: number): void {
    if (intid < this.#distributor.interrupts && intid < 1020) this.#range(intid).deactivate(intid)
  }

  #range(intid: number) {
    return intid < 32 ? this.redistributor.interrupts : this.#distributor.spis
  }
}

const lowest = (bits: number): number => 31 - Math.clz32(bits & -bits)
