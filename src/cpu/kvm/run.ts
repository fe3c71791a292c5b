// KVM_RUN: finishes the access of the last exit, lets the core run between the clock's events, waits in HLT, and
// fills the shared page (`struct kvm_run`). An instruction takes virtual time; work that falls due happens between blocks.

import { ErrnoError, impossible } from '../../base/errno.js'
import type { TraceEvents, TracePoint } from '../../base/trace.js'
import type { Exit } from '../core.js'
import { FLAG, SLOT } from '../x86/registers.js'
import { refuse } from './arguments.js'
import type { Processor } from './processor.js'
import * as uapi from './uapi.js'
import { entryProblem } from './vcpu-state.js'

/** Most instructions between looks at `immediate_exit` and interrupts. */
const QUANTUM = 4096
/** Steps of the clock that HLT waits: far beyond any model's work, short of a hang. */
const PATIENCE = 1e6
/** Exit reason of a processor that refuses guest state: bit 31, and basic reason 33 (SDM vol. 3, appendix C). */
const INVALID_GUEST_STATE = 0x8000_0021n
const DATA = uapi.KVM_PIO_PAGE_OFFSET * 4096

/** Runs one processor on behalf of KVM_RUN. */
export class RunLoop {
  readonly #p: Processor
  readonly #page: Uint8Array
  readonly #run
  readonly #exits: TracePoint<TraceEvents['kvm.exit']>
  /** A hypercall waits for its answer. */
  #hypercall = false

  constructor(processor: Processor, page: Uint8Array) {
    this.#p = processor
    this.#page = page
    this.#run = uapi.kvm_run.at(page)
    this.#exits = processor.vm.parts.trace.point('kvm.exit')
    this.#run.cr8 = 0n
    this.#run.apic_base = BigInt(processor.apicBase)
  }

  /**
   * Enters the guest until something needs the owner. ErrnoError: EINVAL (register classes in `kvm_valid_regs`),
   * EINTR (`immediate_exit`, or a wait that nothing left can end), EFAULT (the guest touched memory its owner lacks).
   */
  enter(): void {
    const run = this.#run
    const p = this.#p
    if (run.kvm_valid_regs !== 0n || run.kvm_dirty_regs !== 0n)
      throw refuse('EINVAL', 'shared register classes are not offered')
    if (p.apic === undefined && run.cr8 !== BigInt(p.state.cr8)) {
      if (run.cr8 > 15n) throw refuse('EINVAL', `CR8 ${run.cr8}`)
      p.state.cr8 = Number(run.cr8)
    }
    try {
      const finished = this.#finish()
      if (!finished) this.#loop()
    } finally {
      this.#publish()
    }
  }

  // Completes what the last exit left open. True when that led to another exit.
  #finish(): boolean {
    const p = this.#p
    const { waiting } = p.state.accesses
    if (this.#hypercall) {
      this.#hypercall = false
      p.state.r64[SLOT.RAX] = this.#run.u.hypercall.ret
    }
    if (waiting === undefined) return false
    if (waiting.write) p.core.completeAccess()
    else if (waiting.kind === 'io') p.core.completeAccess(this.#page.subarray(DATA))
    else p.core.completeAccess(this.#run.u.mmio.data)
    const exit = p.core.step()
    p.passTime()
    return exit.kind !== 'limit' && this.#leave(exit)
  }

  #loop(): void {
    const p = this.#p
    const { state, core, clock } = p
    const problem = entryProblem(state)
    if (problem !== undefined && !p.parked) {
      this.#leave({ kind: 'fail-entry', reason: problem })
      return
    }
    let patience = PATIENCE
    for (;;) {
      if (this.#run.immediate_exit !== 0) this.#interrupted('immediate_exit is set')
      p.vm.slots.refresh()
      if (p.parked || (state.halted && !p.wakes)) {
        if (patience-- === 0 || !clock.step())
          this.#interrupted('nothing is left that could wake it')
        continue
      }
      core.wantsInterruptWindow = p.apic === undefined && this.#run.request_interrupt_window !== 0
      const exit = core.run(p.budget(QUANTUM))
      p.passTime()
      if (exit.kind !== 'limit' && this.#leave(exit)) return
    }
  }

  // Turns an exit of the core into one of KVM; false when the guest can go on.
  #leave(exit: Exit): boolean {
    const p = this.#p
    const run = this.#run
    if (p.deliveryExit) {
      p.deliveryExit = false
      p.state.accesses.forget()
      if (!p.memoryFault) {
        return this.#internalError(uapi.KVM_INTERNAL_ERROR_DELIVERY_EV)
      }
    }
    if (p.memoryFault) {
      p.memoryFault = false
      p.state.accesses.forget()
      run.exit_reason = uapi.KVM_EXIT_UNKNOWN
      throw refuse('EFAULT', 'the guest touched a slot where its owner has no such memory')
    }
    switch (exit.kind) {
      case 'limit':
      case 'interrupted':
        return false
      case 'hlt':
        if (p.apic !== undefined) return false
        p.state.halted = false
        return this.#exit(uapi.KVM_EXIT_HLT, 'HLT')
      case 'shutdown':
        return this.#exit(uapi.KVM_EXIT_SHUTDOWN, 'SHUTDOWN')
      case 'io':
        return this.#io(exit)
      case 'mmio':
        return this.#mmio(exit)
      case 'hypercall':
        return this.#askHypercall()
      case 'debug':
        Object.assign(run.u.debug.arch, { exception: exit.vector, pad: 0, pc: exit.address })
        run.u.debug.arch.dr6 = p.state.dr[6]!
        run.u.debug.arch.dr7 = p.state.dr[7]!
        return this.#exit(uapi.KVM_EXIT_DEBUG, 'DEBUG')
      case 'interrupt-window':
        return this.#exit(uapi.KVM_EXIT_IRQ_WINDOW_OPEN, 'IRQ_WINDOW_OPEN')
      case 'fail-entry':
        run.u.fail_entry.hardware_entry_failure_reason = INVALID_GUEST_STATE
        run.u.fail_entry.cpu = 0
        return this.#exit(uapi.KVM_EXIT_FAIL_ENTRY, `FAIL_ENTRY: ${exit.reason}`)
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
    return this.#exit(uapi.KVM_EXIT_IO, 'IO', port, write, size)
  }

  #mmio({ write, address, bytes }: Extract<Exit, { kind: 'mmio' }>): boolean {
    const { mmio } = this.#run.u
    mmio.phys_addr = BigInt(address)
    mmio.data.fill(0)
    mmio.data.set(bytes)
    mmio.len = bytes.length
    mmio.is_write = write ? 1 : 0
    return this.#exit(uapi.KVM_EXIT_MMIO, 'MMIO', address, write, bytes.length)
  }

  #askHypercall(): boolean {
    const { hypercall } = this.#run.u
    const { r64 } = this.#p.state
    hypercall.nr = r64[SLOT.RAX]!
    const given = [SLOT.RBX, SLOT.RCX, SLOT.RDX, SLOT.RSI]
    for (let i = 0; i < 6; i++) hypercall.args.set(i, i < given.length ? r64[given[i]!]! : 0n)
    hypercall.ret = 0n
    hypercall.longmode = 1
    this.#hypercall = true
    return this.#exit(uapi.KVM_EXIT_HYPERCALL, 'HYPERCALL')
  }

  #internalError(suberror: number): boolean {
    const { internal } = this.#run.u
    internal.suberror = suberror
    internal.ndata = 0
    return this.#exit(uapi.KVM_EXIT_INTERNAL_ERROR, 'INTERNAL_ERROR')
  }

  #exit(code: number, reason: string, address?: number, write?: boolean, size?: number): true {
    this.#run.exit_reason = code
    this.#trace(reason, address, write, size)
    return true
  }

  #interrupted(why: string): never {
    this.#run.exit_reason = uapi.KVM_EXIT_INTR
    this.#trace('INTR')
    throw new ErrnoError('EINTR', `KVM_RUN: ${why}`)
  }

  #trace(reason: string, address?: number, write?: boolean, size?: number): void {
    if (!this.#exits.on) return
    const access = address === undefined ? {} : { address, write: write === true, size: size ?? 0 }
    this.#exits.emit({ vcpu: this.#p.id, reason, rip: this.#p.state.rip, ...access })
  }

  // What the page tells after every return, EINTR included.
  #publish(): void {
    const p = this.#p
    const run = this.#run
    const open = (p.state.flags & FLAG.IF) !== 0
    run.if_flag = open ? 1 : 0
    run.ready_for_interrupt_injection =
      p.apic !== undefined || (open && !p.state.interruptShadow && p.queued < 0) ? 1 : 0
    run.cr8 = BigInt(p.state.cr8)
    run.apic_base = BigInt(p.apicBase)
  }
}
