// The generic timer of one processor (DDI 0487 chapter D12): the physical and the virtual counter, a timer on each, on
// the machine's clock. A tick is a nanosecond. No event stream, no timer of EL2; CNTKCTL_EL1 and who may access what is traps.ts.

import type { Timer, VirtualClock } from '../../base/clock.js'
import type { SystemRegister } from '../gic/system-registers.js'
import { systemKey } from './ports.js'

/** CNTFRQ_EL0: ticks in a second. */
export const COUNTER_HZ = 1_000_000_000

const MASK64 = 0xffff_ffff_ffff_ffffn
/** Delays beyond this, 104 days, are not put on the clock. */
const FAR = 2n ** 53n

const CTL_ENABLE = 1
const CTL_IMASK = 2
const CTL_ISTATUS = 4

// biome-ignore format: table
export const CNT = {
  FRQ:    systemKey(3, 3, 14, 0, 0),
  PCT:    systemKey(3, 3, 14, 0, 1),
  VCT:    systemKey(3, 3, 14, 0, 2),
  P_TVAL: systemKey(3, 3, 14, 2, 0),
  P_CTL:  systemKey(3, 3, 14, 2, 1),
  P_CVAL: systemKey(3, 3, 14, 2, 2),
  V_TVAL: systemKey(3, 3, 14, 3, 0),
  V_CTL:  systemKey(3, 3, 14, 3, 1),
  V_CVAL: systemKey(3, 3, 14, 3, 2),
} as const

/** What a timer stands on. */
export interface TimerSurroundings {
  readonly clock: VirtualClock
  /** Current instant in ns, at least as late as the clock's. */
  now(): number
  /** A timer's output moved; `intid` is that of its PPI. */
  line(intid: number, level: boolean): void
}

/** A counter with an offset and a timer that compares with it. */
export class CounterTimer {
  /** PPI of the output: 30 for the physical one, 27 for the virtual one unless KVM was told otherwise. */
  intid: number
  readonly #around: TimerSurroundings
  readonly #timer: Timer
  #offset = 0n
  #compare = 0n
  #control = 0
  #level = false

  constructor(intid: number, around: TimerSurroundings) {
    this.intid = intid
    this.#around = around
    this.#timer = around.clock.timer(() => this.#update())
  }

  /** CNTPCT_EL0 or CNTVCT_EL0. Setting it moves the offset from the machine's time. */
  get count(): bigint {
    return (BigInt(Math.floor(this.#around.now())) - this.#offset) & MASK64
  }

  set count(value: bigint) {
    this.#offset = BigInt(Math.floor(this.#around.now())) - value
    this.#update()
  }

  /** What the count is behind the machine's time by: CNTVOFF_EL2. */
  get offset(): bigint {
    return this.#offset & MASK64
  }

  set offset(value: bigint) {
    this.#offset = value
    this.#update()
  }

  /** CVAL. */
  get compare(): bigint {
    return this.#compare
  }

  set compare(value: bigint) {
    this.#compare = value & MASK64
    this.#update()
  }

  /** TVAL: the signed distance to CVAL, 32 bits. */
  get left(): bigint {
    return (this.#compare - this.count) & 0xffff_ffffn
  }

  set left(value: bigint) {
    this.compare = this.count + BigInt.asIntN(32, value)
  }

  /** CTL, with ISTATUS. */
  get control(): number {
    return this.#control | (this.#met ? CTL_ISTATUS : 0)
  }

  set control(value: number) {
    this.#control = value & (CTL_ENABLE | CTL_IMASK)
    this.#update()
  }

  /** Level of the output. */
  get level(): boolean {
    return this.#level
  }

  /** Stops the timer for good. */
  release(): void {
    this.#timer.cancel()
  }

  get #met(): boolean {
    return (this.#control & CTL_ENABLE) !== 0 && this.count >= this.#compare
  }

  #update(): void {
    this.#timer.cancel()
    const met = this.#met
    if (!met && (this.#control & CTL_ENABLE) !== 0) {
      const { clock } = this.#around
      const ticks = this.#compare - this.count
      if (ticks < FAR) {
        const due = Math.floor(this.#around.now()) + Number(ticks)
        this.#timer.start(Math.max(0, due - clock.now))
      }
    }
    const level = met && (this.#control & CTL_IMASK) === 0
    if (level === this.#level) return
    this.#level = level
    this.#around.line(this.intid, level)
  }
}

/** A processor's generic timer. */
export class GenericTimer {
  readonly physical: CounterTimer
  readonly virtual: CounterTimer
  /** System registers by key; the frequency takes no writes at EL1. */
  readonly registers: ReadonlyMap<number, SystemRegister>

  constructor(around: TimerSurroundings) {
    this.physical = new CounterTimer(30, around)
    this.virtual = new CounterTimer(27, around)
    const { physical, virtual } = this
    this.registers = new Map<number, SystemRegister>([
      [CNT.FRQ, { read: () => BigInt(COUNTER_HZ) }],
      [CNT.PCT, { read: () => physical.count }],
      [CNT.VCT, { read: () => virtual.count }],
      [CNT.P_TVAL, leftOf(physical)],
      [CNT.P_CTL, controlOf(physical)],
      [CNT.P_CVAL, compareOf(physical)],
      [CNT.V_TVAL, leftOf(virtual)],
      [CNT.V_CTL, controlOf(virtual)],
      [CNT.V_CVAL, compareOf(virtual)],
    ])
  }

  /** Stops both timers for good. */
  release(): void {
    this.physical.release()
    this.virtual.release()
  }

  save(): readonly bigint[] {
    return [this.physical, this.virtual].flatMap(t => [t.count, t.compare, BigInt(t.control)])
  }

  /** Takes back what `save` gave; counters go on from where they were. */
  restore(saved: readonly bigint[]): void {
    for (const [i, timer] of [this.physical, this.virtual].entries()) {
      timer.control = 0
      timer.count = saved[3 * i]!
      timer.compare = saved[3 * i + 1]!
      timer.control = Number(saved[3 * i + 2]!)
    }
  }
}

const leftOf = (t: CounterTimer): SystemRegister => ({
  read: () => t.left,
  write: v => {
    t.left = v
  },
})

const controlOf = (t: CounterTimer): SystemRegister => ({
  read: () => BigInt(t.control),
  write: v => {
    t.control = Number(v & 0xffff_ffffn)
  },
})

const compareOf = (t: CounterTimer): SystemRegister => ({
  read: () => t.compare,
  write: v => {
    t.compare = v
  },
})
