// The local APIC in xAPIC mode (SDM vol. 3, ch. 11): what message-signalled interrupts, inter-processor interrupts to
// oneself and a timer need. The bus runs at 1 GHz of virtual time. LINT, thermal and performance entries are storage;
// x2APIC, TSC-deadline and level-triggered EOI broadcast are not modelled. Registers are tabled in apic-registers.ts.

import type { Timer, VirtualClock } from '../../base/clock.js'
import { RegisterFile } from '../../base/registers.js'
import { LAPIC } from './apic-registers.js'

/** Delivery modes of messages and of the ICR (SDM vol. 3, 11.6.1). */
export const DELIVERY = {
  FIXED: 0,
  LOWEST: 1,
  SMI: 2,
  NMI: 4,
  INIT: 5,
  STARTUP: 6,
  EXTINT: 7,
} as const

const ISR = 0x100
const TMR = 0x180
const IRR = 0x200
/** Power-up base: 0xfee0_0000, enabled (bit 11). Bit 8 is set on the bootstrap processor. */
const BASE_RESET = 0xfee0_0800
const BASE_ENABLE = 1 << 11
const BASE_BSP = 1 << 8
const ESR_RECEIVE_ILLEGAL = 1 << 6
const ESR_SEND_ILLEGAL = 1 << 5

/** What an APIC needs of the processor it belongs to. */
export interface ApicSurroundings {
  readonly clock: VirtualClock
  /** Current instant in ns, at least as late as the clock's. */
  now(): number
  /** An NMI arrived. */
  nmi(): void
  /** TPR changed by its register; CR8 follows. */
  taskPriority(tpr: number): void
  /** An ICR command other than to oneself. */
  send(command: IpiCommand): void
}

/** A message for other APICs. */
export interface IpiCommand {
  readonly vector: number
  readonly mode: number
  readonly logical: boolean
  /** 0 by destination, 2 all, 3 all but the sender. */
  readonly shorthand: number
  readonly destination: number
}

/** One local APIC. */
export class LocalApic {
  readonly #around: ApicSurroundings
  readonly #file: RegisterFile<typeof LAPIC>
  readonly #words: Uint32Array
  readonly #timer: Timer
  readonly #bsp: number
  #base: number
  /** Errors seen since ESR was last written. */
  #errors = 0
  /** Instant the running count started, in ns; the count is TMICT. */
  #started = 0
  #running = false
  /** Divider of the running count. */
  #divide = 2

  constructor(id: number, around: ApicSurroundings) {
    this.#around = around
    this.#bsp = id === 0 ? BASE_BSP : 0
    this.#base = BASE_RESET + this.#bsp
    const masked = () => this.#maskWhileDisabled()
    this.#file = new RegisterFile(LAPIC, {
      onRead: {
        PPR: () => {
          this.#file.regs.PPR.PRIORITY = this.processorPriority
        },
        TMCCT: () => {
          this.#file.regs.TMCCT.COUNT = this.#count()
        },
      },
      onWrite: {
        TPR: () => around.taskPriority(this.taskPriority),
        EOI: () => this.#endOfInterrupt(),
        SVR: masked,
        ESR: () => {
          this.#file.regs.ESR.$value = BigInt(this.#errors)
          this.#errors = 0
        },
        ICR_LOW: () => this.#command(),
        TMICT: () => this.#start(),
        TDCR: () => this.#changeDivider(),
        LVT_CMCI: masked,
        LVT_TIMER: masked,
        LVT_THERMAL: masked,
        LVT_PERF: masked,
        LVT_LINT0: masked,
        LVT_LINT1: masked,
        LVT_ERROR: masked,
      },
    })
    this.#words = new Uint32Array(this.#file.bytes.buffer, 0, LAPIC_BYTES >> 2)
    this.#file.regs.ID.ID = id
    this.#timer = around.clock.timer(() => this.#expired())
  }

  /** IA32_APIC_BASE as stored. */
  get base(): number {
    return this.#base
  }

  /** Physical address of the register page, or -1 while the APIC is globally disabled. */
  get page(): number {
    return (this.#base & BASE_ENABLE) === 0 ? -1 : this.#base - (this.#base % 4096)
  }

  /** Writes IA32_APIC_BASE; false for reserved bits, x2APIC (bit 10) among them. */
  setBase(value: bigint): boolean {
    if ((value & ~0xf_ffff_ffff_f900n) !== 0n) return false
    this.#base = Number(value & ~BigInt(BASE_BSP)) + this.#bsp
    return true
  }

  get id(): number {
    return this.#file.regs.ID.ID
  }

  /** TPR, 8 bits. */
  get taskPriority(): number {
    return this.#words[0x80 >> 2]! & 0xff
  }

  set taskPriority(v: number) {
    this.#words[0x80 >> 2] = v & 0xff
  }

  /** PPR, 8 bits (SDM vol. 3, 11.8.3.1). */
  get processorPriority(): number {
    const service = this.#highest(ISR)
    const tpr = this.taskPriority
    return tpr >> 4 >= service >> 4 || service < 0 ? tpr : service & 0xf0
  }

  /** Highest requested vector that priority lets through, or -1. */
  get pending(): number {
    const vector = this.#highest(IRR)
    return vector >> 4 > this.processorPriority >> 4 ? vector : -1
  }

  /** Moves the pending vector into service and returns it; -1 when none is. */
  acknowledge(): number {
    const vector = this.pending
    if (vector < 0) return -1
    this.#clear(IRR, vector)
    this.#set(ISR, vector)
    return vector
  }

  /** Whether a message with this destination is for this APIC (SDM vol. 3, 11.6.2). */
  accepts(destination: number, logical: boolean): boolean {
    if (destination === 0xff) return true
    if (!logical) return destination === this.id
    const ldr = this.#file.regs.LDR.LOGICAL
    if (this.#file.regs.DFR.MODEL === 0xf) return (ldr & destination) !== 0
    return ldr >> 4 === destination >> 4 && (ldr & destination & 0xf) !== 0
  }

  /** Takes a message. False when it is dropped: APIC disabled, or a mode without a meaning here. */
  deliver(vector: number, mode: number, level = false): boolean {
    if (this.page < 0) return false
    switch (mode) {
      case DELIVERY.FIXED:
      case DELIVERY.LOWEST:
        if (!this.#file.regs.SVR.ENABLE) return false
        if (vector < 16) {
          this.#error(ESR_RECEIVE_ILLEGAL)
          return true
        }
        this.#set(IRR, vector)
        if (level) this.#set(TMR, vector)
        else this.#clear(TMR, vector)
        return true
      case DELIVERY.NMI:
        this.#around.nmi()
        return true
    }
    return false
  }

  /** An access to the register page: 32 bits at multiples of 16; narrower reads see their bytes. */
  read(offset: number, size: number): bigint {
    return offset + size > LAPIC_BYTES || (offset & 15) + size > 4
      ? 0n
      : this.#file.read(offset, size)
  }

  /** Writes other than of 32 bits at a multiple of 16 are ignored, as KVM does. */
  write(offset: number, size: number, value: bigint): void {
    if (size !== 4 || (offset & 15) !== 0) return
    this.#file.write32(offset, Number(value & 0xffff_ffffn))
  }

  /** The register page, as KVM_GET_LAPIC has it. */
  save(): Uint8Array {
    this.#file.regs.PPR.PRIORITY = this.processorPriority
    this.#file.regs.TMCCT.COUNT = this.#count()
    return this.#file.save()
  }

  /** Takes registers back; the timer goes on with the current count. */
  restore(saved: Uint8Array): void {
    this.#file.restore(saved)
    this.#file.regs.VERSION.$value = 0x5_0014n
    this.#around.taskPriority(this.taskPriority)
    const { LVT_TIMER, TMICT, TMCCT } = this.#file.regs
    const left = TMCCT.COUNT
    this.#timer.cancel()
    this.#running = TMICT.COUNT > 0 && (left > 0 || LVT_TIMER.PERIODIC)
    if (this.#running) this.#arm(Math.max(0, TMICT.COUNT - left))
  }

  /** Stops the timer for good. */
  release(): void {
    this.#timer.cancel()
  }

  #command(): void {
    const { VECTOR, MODE, SHORTHAND, LOGICAL } = this.#file.regs.ICR_LOW
    const destination = this.#file.regs.ICR_HIGH.DESTINATION
    if (VECTOR < 16 && (MODE === DELIVERY.FIXED || MODE === DELIVERY.LOWEST)) {
      this.#error(ESR_SEND_ILLEGAL)
      return
    }
    if (SHORTHAND === 1) this.deliver(VECTOR, MODE)
    else
      this.#around.send({
        vector: VECTOR,
        mode: MODE,
        logical: LOGICAL,
        shorthand: SHORTHAND,
        destination,
      })
  }

  #endOfInterrupt(): void {
    const vector = this.#highest(ISR)
    if (vector < 0) return
    this.#clear(ISR, vector)
  }

  // While software has the APIC disabled every LVT mask bit is set (SDM vol. 3, 11.4.7.2).
  #maskWhileDisabled(): void {
    const regs = this.#file.regs
    if (regs.SVR.ENABLE) return
    for (const entry of [
      regs.LVT_CMCI,
      regs.LVT_TIMER,
      regs.LVT_THERMAL,
      regs.LVT_PERF,
      regs.LVT_LINT0,
      regs.LVT_LINT1,
      regs.LVT_ERROR,
    ])
      entry.MASK = true
  }

  #error(bit: number): void {
    this.#errors |= bit
    const { MASK, VECTOR } = this.#file.regs.LVT_ERROR
    if (!MASK && VECTOR >= 16) this.deliver(VECTOR, DELIVERY.FIXED)
  }

  get #divider(): number {
    const { DIVIDE, DIVIDE_HIGH } = this.#file.regs.TDCR
    const code = DIVIDE | (DIVIDE_HIGH ? 4 : 0)
    return code === 7 ? 1 : 2 << code
  }

  #start(): void {
    this.#timer.cancel()
    this.#running = this.#file.regs.TMICT.COUNT > 0
    if (this.#running) this.#arm(0)
  }

  // Lets the count run with `ticks` of it gone.
  #arm(ticks: number): void {
    this.#divide = this.#divider
    this.#started = this.#around.now() - ticks * this.#divide
    const due = this.#started + this.#file.regs.TMICT.COUNT * this.#divide
    this.#timer.start(Math.max(0, due - this.#around.clock.now))
  }

  // A new divider: the count goes on from where it is.
  #changeDivider(): void {
    if (this.#running) this.#arm(this.#file.regs.TMICT.COUNT - this.#count())
  }

  #count(): number {
    if (!this.#running) return 0
    const ticks = Math.floor((this.#around.now() - this.#started) / this.#divide)
    return Math.max(0, this.#file.regs.TMICT.COUNT - ticks)
  }

  #expired(): void {
    const { PERIODIC, MASK, VECTOR } = this.#file.regs.LVT_TIMER
    this.#running = PERIODIC
    if (PERIODIC) {
      const period = this.#file.regs.TMICT.COUNT * this.#divide
      this.#started += period
      this.#timer.start(Math.max(0, this.#started + period - this.#around.clock.now))
    }
    if (!MASK) this.deliver(VECTOR, DELIVERY.FIXED)
  }

  // Vector registers: 32 vectors a word, a word every 16 bytes.
  #highest(bank: number): number {
    for (let i = 7; i >= 0; i--) {
      const word = this.#words[(bank >> 2) + i * 4]!
      if (word !== 0) return i * 32 + 31 - Math.clz32(word)
    }
    return -1
  }

  #set(bank: number, vector: number): void {
    this.#words[(bank >> 2) + (vector >> 5) * 4]! |= 1 << (vector & 31)
  }

  #clear(bank: number, vector: number): void {
    this.#words[(bank >> 2) + (vector >> 5) * 4]! &= ~(1 << (vector & 31))
  }
}

const LAPIC_BYTES = 0x400
