// What KVM_RUN is on x86: state that cannot be entered, port exits, hypercalls, what the page tells of interrupts.

import { impossible } from '../../../base/errno.js'
import type { StructValue } from '../../../base/struct.js'
import type { Exit } from '../../core.js'
import { DR6_ONES } from '../../x86/breakpoints.js'
import { FLAG, SLOT } from '../../x86/registers.js'
import { refuse } from '../arguments.js'
import { RunLoop } from '../run.js'
import * as uapi from '../uapi.js'
import type { Processor } from './processor.js'
import { entryProblem } from './vcpu-state.js'

/** Exit reason of a processor that refuses guest state: bit 31, and basic reason 33 (SDM vol. 3, appendix C). */
const INVALID_GUEST_STATE = 0x8000_0021n
const DATA = uapi.KVM_PIO_PAGE_OFFSET * 4096

/** Runs one x86 processor on behalf of KVM_RUN. */
export class X86RunLoop extends RunLoop<Processor> {
  readonly #page: Uint8Array
  readonly #run: StructValue<(typeof uapi.kvm_run)['members']>
  /** A hypercall waits for its answer. */
  #hypercall = false

  constructor(processor: Processor, page: Uint8Array) {
    const run = uapi.kvm_run.at(page)
    super(processor, run)
    this.#page = page
    this.#run = run
    run.cr8 = 0n
    run.apic_base = BigInt(processor.apicBase)
  }

  protected begin(): void {
    const run = this.#run
    const p = this.processor
    if (run.kvm_valid_regs !== 0n || run.kvm_dirty_regs !== 0n)
      throw refuse('EINVAL', 'shared register classes are not offered')
    p.vm.sev?.refuseRun()
    if (p.apic === undefined && run.cr8 !== BigInt(p.state.cr8)) {
      if (run.cr8 > 15n) throw refuse('EINVAL', `CR8 ${run.cr8}`)
      p.state.cr8 = Number(run.cr8)
    }
    if (this.#hypercall) {
      this.#hypercall = false
      p.state.r64[SLOT.RAX] = run.u.hypercall.ret
    }
  }

  protected entryProblem(): Exit | undefined {
    const { parked, state, vm } = this.processor
    const reason = parked ? undefined : (vm.sev?.entryProblem() ?? entryProblem(state))
    return reason === undefined ? undefined : { kind: 'fail-entry', reason }
  }

  protected complete(): void {
    const { core, accesses, vm } = this.processor
    if (vm.sev) vm.sev.running = this.processor
    const { waiting } = accesses
    if (waiting?.write) core.completeAccess()
    else if (waiting?.kind === 'io') core.completeAccess(this.#page.subarray(DATA))
    else core.completeAccess(this.#run.u.mmio.data)
  }

  protected prepare(): false {
    const { core, apic, vm } = this.processor
    if (vm.sev) vm.sev.running = this.processor
    core.wantsInterruptWindow = apic === undefined && this.#run.request_interrupt_window !== 0
    return false
  }

  protected leave(exit: Exit): boolean {
    const p = this.processor
    const run = this.#run
    if (p.deliveryExit) {
      p.deliveryExit = false
      p.accesses.forget()
      if (!p.memoryFault) return this.#internalError(uapi.KVM_INTERNAL_ERROR_DELIVERY_EV)
    }
    this.refuseFault()
    switch (exit.kind) {
      case 'limit':
      case 'interrupted':
        return false
      case 'hlt':
        if (p.apic !== undefined) return false
        p.state.halted = false
        return this.exit(uapi.KVM_EXIT_HLT, 'HLT')
      case 'shutdown':
        return this.exit(uapi.KVM_EXIT_SHUTDOWN, 'SHUTDOWN')
      case 'io':
        return this.#io(exit)
      case 'mmio':
        return this.mmio(exit)
      case 'hypercall':
        return this.#askHypercall()
      case 'debug':
        Object.assign(run.u.debug.arch, { exception: exit.vector, pad: 0, pc: exit.address })
        run.u.debug.arch.dr6 = BigInt(exit.syndrome ?? DR6_ONES)
        run.u.debug.arch.dr7 = BigInt(p.core.breakpoints.control)
        return this.exit(uapi.KVM_EXIT_DEBUG, 'DEBUG')
      case 'interrupt-window':
        return this.exit(uapi.KVM_EXIT_IRQ_WINDOW_OPEN, 'IRQ_WINDOW_OPEN')
      case 'fail-entry':
        run.u.fail_entry.hardware_entry_failure_reason = INVALID_GUEST_STATE
        run.u.fail_entry.cpu = 0
        return this.exit(uapi.KVM_EXIT_FAIL_ENTRY, `FAIL_ENTRY: ${exit.reason}`)
      default:
        return impossible(exit, 'KVM_RUN')
    }
  }

  #io({ write, port, size, value }: Extract<Exit, { kind: 'io' }>): boolean {
    const { io } = this.#run.u
    io.direction = write ? uapi.KVM_EXIT_IO_OUT : uapi.KVM_EXIT_IO_IN
    io.size = size
    io.port = port
    io.count = 1
    io.data_offset = BigInt(DATA)
    for (let i = 0; i < size; i++) this.#page[DATA + i] = write ? value >>> (8 * i) : 0
    return this.exit(uapi.KVM_EXIT_IO, 'IO', port, write, size)
  }

  #askHypercall(): boolean {
    const { hypercall } = this.#run.u
    const { r64 } = this.processor.state
    hypercall.nr = r64[SLOT.RAX]!
    const given = [SLOT.RBX, SLOT.RCX, SLOT.RDX, SLOT.RSI]
    for (let i = 0; i < 6; i++) hypercall.args.set(i, i < given.length ? r64[given[i]!]! : 0n)
    hypercall.ret = 0n
    hypercall.longmode = 1
    this.#hypercall = true
    return this.exit(uapi.KVM_EXIT_HYPERCALL, 'HYPERCALL')
  }

  #internalError(suberror: number): boolean {
    const { internal } = this.#run.u
    internal.suberror = suberror
    internal.ndata = 0
    return this.exit(uapi.KVM_EXIT_INTERNAL_ERROR, 'INTERNAL_ERROR')
  }

  protected publish(): void {
    const p = this.processor
    const run = this.#run
    const open = (p.state.flags & FLAG.IF) !== 0
    run.if_flag = open ? 1 : 0
    run.ready_for_interrupt_injection =
      p.apic !== undefined || (open && !p.state.interruptShadow && p.queued < 0) ? 1 : 0
    run.cr8 = BigInt(p.state.cr8)
    run.apic_base = BigInt(p.apicBase)
  }
}
