// What KVM_RUN is on arm64: PSCI calls answered here, system events and debug exits told to the owner, timer lines when
// the owner has the interrupt controller. WFI never leaves: the vCPU waits for an interrupt.

import { ErrnoError } from '../../../base/errno.js'
import type { StructValue } from '../../../base/struct.js'
import type { Exit } from '../../core.js'
import { RunLoop } from '../run.js'
import * as uapi from '../uapi/arm64.js'
import type { Arm64Processor } from './processor.js'
import { PSCI_RESULT, type PsciOutcome, psciCall } from './psci.js'

/** `flags` of a reset by SYSTEM_RESET2. */
const PSCI_RESET2 = 1n
/** EC of a watchpoint from a lower exception level, as ESR_EL2 has it. */
const WATCHPOINT_LOWER = 0x34

/** The exit of a software step after an instruction that was no load-exclusive. */
const STEPPED = { kind: 'debug', vector: 0x32, syndrome: 0xcb00_0022 } as const

/** Runs one arm64 processor on behalf of KVM_RUN. */
export class Arm64RunLoop extends RunLoop<Arm64Processor> {
  readonly #run: StructValue<(typeof uapi.kvm_run)['members']>

  constructor(processor: Arm64Processor, page: Uint8Array) {
    const run = uapi.kvm_run.at(page)
    super(processor, run)
    this.#run = run
  }

  protected begin(): void {
    this.#run.flags = 0
  }

  protected entryProblem(): undefined {
    return undefined
  }

  protected complete(): void {
    const { core, accesses } = this.processor
    if (accesses.waiting?.write) core.completeAccess()
    else core.completeAccess(this.#run.u.mmio.data)
  }

  // A suspended vCPU that something wakes tells its owner and stays suspended.
  protected prepare(): boolean {
    return this.processor.rest === 'suspended' && this.#systemEvent('wakeup', 0n)
  }

  protected leave(exit: Exit): boolean {
    this.refuseFault()
    switch (exit.kind) {
      case 'limit':
      case 'interrupted':
      case 'hlt':
        return this.#timerMoved()
      case 'mmio':
        return this.mmio(exit)
      case 'hypercall':
        return this.#call(exit.call === 'smc') || this.#stepped()
      case 'debug':
        return this.#debug(exit)
      default:
        throw new Error(`an arm64 core left with ${exit.kind}`)
    }
  }

  protected publish(): void {
    if (!this.processor.vm.hasIrqchip) this.#run.s.regs.device_irq_level = this.#timerLevels
  }

  // HVC and SMC: what the owner asked for, PSCI, and whatever nobody knows.
  #call(secure: boolean): boolean {
    const p = this.processor
    const { state, vm } = p
    const cpus = [...vm.vcpus.values()].map(v => v.processor)
    const args = [state.x(1), state.x(2), state.x(3)] as const
    const id = Number(state.x(0) & 0xffff_ffffn)
    switch (vm.smccc.actionOf(id)) {
      case uapi.KVM_SMCCC_FILTER_FWD_TO_USER:
        return this.#forward(id, secure)
      case uapi.KVM_SMCCC_FILTER_DENY:
        return this.#settle({ kind: 'return', value: PSCI_RESULT.NOT_SUPPORTED })
    }
    return this.#settle(psciCall(id, args, p, cpus, vm.psciVersion))
  }

  #settle(outcome: PsciOutcome): boolean {
    const { state, core } = this.processor
    switch (outcome.kind) {
      case 'return':
        state.setX(0, BigInt.asUintN(64, outcome.value))
        for (const unused of [1, 2, 3]) state.setX(unused, 0n)
        return false
      case 'suspend':
        state.setX(0, PSCI_RESULT.SUCCESS)
        core.halted = true
        return false
      case 'off':
        return false
      case 'system-event':
        // Should the owner run it again, it finds that the call failed.
        state.setX(0, BigInt.asUintN(64, -6n))
        return this.#systemEvent(outcome.event, outcome.reset2 ? PSCI_RESET2 : 0n)
    }
  }

  // The owner finds the arguments in the registers, and leaves its results there.
  #forward(id: number, secure: boolean): true {
    const { hypercall } = this.#run.u
    hypercall.bytes.fill(0)
    hypercall.nr = BigInt(id)
    // Here the flags are 64 bits wide, over what x86 calls longmode and pad.
    hypercall.longmode = secure ? uapi.KVM_HYPERCALL_EXIT_SMC : 0
    return this.exit(uapi.KVM_EXIT_HYPERCALL, 'HYPERCALL')
  }

  #systemEvent(event: 'shutdown' | 'reset' | 'wakeup', flags: bigint): true {
    const { system_event } = this.#run.u
    system_event.type = EVENTS[event]
    system_event.ndata = 1
    system_event.data.set(0, flags)
    return this.exit(uapi.KVM_EXIT_SYSTEM_EVENT, `SYSTEM_EVENT ${event}`)
  }

  #debug({ syndrome = 0, far = 0n }: Extract<Exit, { kind: 'debug' }>): true {
    const { arch } = this.#run.u.debug
    arch.hsr = syndrome >>> 0
    arch.hsr_high = 0
    if (syndrome >>> 26 === WATCHPOINT_LOWER) arch.far = far
    this.#run.flags = uapi.KVM_DEBUG_ARCH_HSR_HIGH_VALID
    return this.exit(uapi.KVM_EXIT_DEBUG, 'DEBUG')
  }

  // A call is one instruction to an owner that steps.
  #stepped(): boolean {
    const { core } = this.processor
    return core.debug.hostSteps && this.#debug({ ...STEPPED, address: core.state.pc })
  }

  get #timerLevels(): bigint {
    const { physical, virtual } = this.processor.timer
    return BigInt(
      (virtual.level ? uapi.KVM_ARM_DEV_EL1_VTIMER : 0) |
        (physical.level ? uapi.KVM_ARM_DEV_EL1_PTIMER : 0),
    )
  }

  // KVM_CAP_ARM_USER_IRQ: the owner hears when an output is not what the page says.
  #timerMoved(): false {
    const { vm } = this.processor
    if (!vm.hasIrqchip && this.#run.s.regs.device_irq_level !== this.#timerLevels) {
      this.exit(uapi.KVM_EXIT_INTR, 'INTR')
      throw new ErrnoError('EINTR', 'KVM_RUN: a timer’s output has moved')
    }
    return false
  }
}

const EVENTS = {
  shutdown: uapi.KVM_SYSTEM_EVENT_SHUTDOWN,
  reset: uapi.KVM_SYSTEM_EVENT_RESET,
  wakeup: uapi.KVM_SYSTEM_EVENT_WAKEUP,
} as const
