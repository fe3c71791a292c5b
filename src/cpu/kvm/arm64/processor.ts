// One arm64 vCPU's processor: the core with its timer, interrupt inputs and PSCI state, put together. The ioctls are in
// vcpu.ts and the run loop in run.ts.

import { A64Core } from '../../a64/core.js'
import { mpidr } from '../../a64/id-registers.js'
import { type A64State, EC } from '../../a64/registers.js'
import { keyOf, type SystemRegisterName } from '../../a64/system-register-table.js'
import { GenericTimer } from '../../a64/timer.js'
import type { AccessRecord } from '../../accesses.js'
import type { GicProcessor } from '../../gic/gic.js'
import type { Runnable } from '../run.js'
import type { PsciCpu } from './psci.js'
import type { Arm64Vm } from './vm.js'

/** ISS of a synchronous external abort that is on no table walk: FnV, and DFSC. */
const EXTERNAL_ABORT = 0x410

/** Where a vCPU's life stands beside running: off, or asleep until an interrupt. */
export type Rest = 'off' | 'suspended'

/** An arm64 vCPU's processor and what surrounds it. */
export class Arm64Processor implements Runnable, PsciCpu {
  readonly id: number
  readonly vm: Arm64Vm
  /** Place among the VM's vCPUs, by which its GIC knows it. */
  readonly index: number
  readonly core: A64Core
  readonly timer: GenericTimer
  /** MPIDR_EL1's affinity fields. */
  readonly affinity: bigint
  /** Inputs that the owner moves by KVM_IRQ_LINE while it has the interrupt controller. */
  irqLine = false
  fiqLine = false
  memoryFault = false
  /** Set while it does not run. */
  rest: Rest | undefined
  /** SPSR_abt, SPSR_und, SPSR_irq, SPSR_fiq: kept for the owner, used by nobody. */
  readonly spsr32 = new BigUint64Array(4)
  /** Other registers that are listed and that the core does not have, by key. */
  readonly kept = new Map<number, bigint>()
  readonly #ns: number
  #gic: GicProcessor | undefined
  /** Retired instructions that the clock was told of. */
  #told = 0

  constructor(vm: Arm64Vm, id: number) {
    const { clock, trace, nsPerInstruction = 1 } = vm.parts
    this.id = id
    this.vm = vm
    this.index = vm.vcpus.size
    this.affinity = mpidr(id) & 0xff_00ff_ffffn
    this.#ns = nsPerInstruction
    this.core = new A64Core({
      id,
      memory: vm.memory,
      domain: vm.domain,
      around: {
        readOnly: ram => vm.slots.readOnly(ram),
        populate: address => vm.slots.populate(address),
        leaving: (address, write) => (this.memoryFault = vm.slots.isFault(address, write)),
      },
      interrupts: this.#inputs(),
      trace,
      ...vm.parts.a64,
    })
    this.timer = new GenericTimer({
      clock,
      now: () => this.now(),
      line: (intid, level) => vm.vgic.gic?.setPpi(this.index, intid, level),
    })
    for (const [key, register] of this.timer.registers) this.core.registers.provide(key, register)
  }

  // ---- state ----

  get state(): A64State {
    return this.core.state
  }

  get accesses(): AccessRecord {
    return this.core.state.accesses
  }

  get pc(): bigint {
    return this.core.state.pc
  }

  /** Sends it elsewhere; an instruction that is half done goes on only where it was. */
  setPc(pc: bigint): void {
    if (pc !== this.state.pc) this.accesses.forget()
    this.state.pc = pc
  }

  /** PSTATE in SPSR's layout. */
  get pstate(): bigint {
    return BigInt(this.core.pstate)
  }

  set pstate(value: bigint) {
    this.core.setPstate(Number(value & 0xffff_ffffn))
  }

  named(name: SystemRegisterName): bigint {
    return this.core.registers.hostRead(keyOf(name))!
  }

  setNamed(name: SystemRegisterName, value: bigint): void {
    this.core.registers.hostWrite(keyOf(name), value)
  }

  /** Warm reset, with what the VM's owner made of the identification. */
  reset(): void {
    this.core.reset()
    this.spsr32.fill(0n)
    this.kept.clear()
    this.timer.virtual.control = this.timer.physical.control = 0
    const { registers } = this.core
    registers.setId(keyOf('MPIDR_EL1'), mpidr(this.id))
    for (const [key, value] of this.vm.identification) registers.setId(key, value)
  }

  /** Takes a synchronous external abort on a data access at once; FAR keeps its value. */
  abort(): void {
    const ec = this.state.el === 0 ? EC.DATA_ABORT_LOWER : EC.DATA_ABORT
    this.core.inject(ec, EXTERNAL_ABORT)
  }

  // ---- interrupts ----

  /** Its share of an interrupt controller, which has just been made. */
  connect(gic: GicProcessor): void {
    this.#gic = gic
    for (const [key, register] of gic.registers) this.core.registers.provide(key, register)
    for (const timer of [this.timer.physical, this.timer.virtual])
      this.vm.vgic.gic?.setPpi(this.index, timer.intid, timer.level)
  }

  #inputs() {
    const irq = () => this.irqLine || this.#gic?.cpuInterface.irq === true
    const fiq = () => this.fiqLine || this.#gic?.cpuInterface.fiq === true
    return {
      get irq() {
        return irq()
      },
      get fiq() {
        return fiq()
      },
    }
  }

  /** Whether an interrupt is signalled, masked or not: what ends WFI. */
  get signalled(): boolean {
    return (
      this.irqLine ||
      this.fiqLine ||
      this.#gic?.cpuInterface.irq === true ||
      this.#gic?.cpuInterface.fiq === true ||
      this.core.serrorPending !== undefined
    )
  }

  get waits(): boolean {
    if (this.rest === 'off') return true
    return (this.rest === 'suspended' || this.core.halted) && !this.signalled
  }

  // ---- time ----

  /** Virtual time as the running instruction sees it, in ns. */
  now(): number {
    return this.vm.parts.clock.now + (this.core.retired - this.#told) * this.#ns
  }

  budget(most: number): number {
    const { nextAt, now } = this.vm.parts.clock
    if (nextAt === undefined) return most
    return Math.max(1, Math.min(most, Math.ceil((nextAt - now) / this.#ns)))
  }

  passTime(): void {
    const ran = this.core.retired - this.#told
    this.#told = this.core.retired
    this.vm.parts.clock.advance(ran * this.#ns)
  }

  /** Stops what it has on the clock. */
  release(): void {
    this.timer.release()
    this.core.release()
  }

  // ---- PSCI ----

  get powered(): boolean {
    return this.rest !== 'off'
  }

  powerOn(entry: bigint, context: bigint): void {
    this.reset()
    this.state.pc = entry
    this.state.setX(0, context)
    this.rest = undefined
  }

  powerOff(): void {
    this.rest = 'off'
  }
}
