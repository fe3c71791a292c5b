// KVM_RUN: finishes the access of the last exit, lets the core run between the clock's events, waits while it is
// halted, and fills the shared page (`struct kvm_run`). An instruction takes virtual time; work that falls due happens
// between blocks. What entering, leaving and waiting mean on an architecture is in x86/run.ts and arm64/run.ts.

import { hex, PAGE_SIZE } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { TraceEvents, TracePoint } from '../../base/trace.js'
import type { AccessRecord } from '../accesses.js'
import type { Core, Exit } from '../core.js'
import { refuse } from './arguments.js'
import type { MemoryFault } from './memory/faulted-slots.js'
import './trace.js'
import * as uapi from './uapi/common.js'
import type { CommonRun } from './uapi/run.js'
import type { Vm } from './vm.js'

/** Most instructions between looks at `immediate_exit` and interrupts. */
const QUANTUM = 4096
/** Steps of the clock that a halted vCPU waits: far beyond any model's work, short of a hang. */
const PATIENCE = 1e6

/** A vCPU's processor as the loop sees it. */
export interface Runnable {
  readonly id: number
  readonly vm: Vm
  readonly core: Core
  readonly accesses: AccessRecord
  /** Address of the next instruction. */
  readonly pc: bigint
  /** Whether nothing runs until something wakes it. */
  readonly waits: boolean
  /** The owner has no memory where the guest's last access went. */
  memoryFault: boolean
  /** Instructions until the next timer is due, at least 1 and at most `most`. */
  budget(most: number): number
  /** Tells the clock of the instructions run since; what is due by now happens. */
  passTime(): void
}

/** Runs one processor on behalf of KVM_RUN. */
export abstract class RunLoop<P extends Runnable> {
  protected readonly processor: P
  readonly #run: CommonRun
  readonly #exits: TracePoint<TraceEvents['kvm.exit']>
  readonly #faults: TracePoint<TraceEvents['kvm.memory-fault']>

  constructor(processor: P, run: CommonRun) {
    this.processor = processor
    this.#run = run
    this.#exits = processor.vm.parts.trace.point('kvm.exit')
    this.#faults = processor.vm.parts.trace.point('kvm.memory-fault')
  }

  /** Takes what the owner left in the page; ErrnoError. */
  protected abstract begin(): void

  /** An exit to leave with at once because the state cannot be entered. */
  protected abstract entryProblem(): Exit | undefined

  /** Answers a device access from the page and lets the core go on after it. */
  protected abstract complete(): void

  /** Before each stretch of instructions; true when it made an exit instead. */
  protected abstract prepare(): boolean

  /** Turns an exit of the core into one of KVM; false when the guest can go on. */
  protected abstract leave(exit: Exit): boolean

  /** Tells the page what it tells after every return, EINTR included. */
  protected abstract publish(): void

  /**
   * Enters the guest until something needs the owner. ErrnoError: what `begin` refuses,
   * EINTR (`immediate_exit`, or a wait that nothing left can end), EFAULT (the guest touched memory its owner lacks).
   */
  enter(): void {
    this.begin()
    try {
      const finished = this.#finish()
      if (!finished) this.#loop()
    } finally {
      this.publish()
    }
  }

  // Completes what the last exit left open. True when that led to another exit.
  #finish(): boolean {
    const p = this.processor
    if (p.accesses.waiting === undefined) return false
    this.complete()
    const exit = p.core.step()
    p.passTime()
    return exit.kind !== 'limit' && this.leave(exit)
  }

  #loop(): void {
    const p = this.processor
    const problem = this.entryProblem()
    if (problem !== undefined) {
      this.leave(problem)
      return
    }
    // What an error other than EFAULT leaves here says nothing.
    this.#run.exit_reason = uapi.KVM_EXIT_UNKNOWN
    let patience = PATIENCE
    for (;;) {
      if (this.#run.immediate_exit !== 0) this.#interrupted('immediate_exit is set')
      p.vm.slots.refresh()
      if (p.waits) {
        if (patience-- === 0 || !p.vm.parts.clock.step())
          this.#interrupted('nothing is left that could wake it')
        continue
      }
      if (this.prepare()) return
      const exit = p.core.run(p.budget(QUANTUM))
      p.passTime()
      if (exit.kind !== 'limit' && this.leave(exit)) return
    }
  }

  /** EFAULT to the owner when the access that stopped the core went to a slot without memory behind it. */
  protected refuseFault(): void {
    const p = this.processor
    if (!p.memoryFault) return
    p.memoryFault = false
    p.accesses.forget()
    const exit = p.vm.privateMemory?.mappings.takeExit()
    if (exit !== undefined) this.#memoryFault(exit)
    this.#run.exit_reason = uapi.KVM_EXIT_UNKNOWN
    throw refuse('EFAULT', 'the guest touched a slot where its owner has no such memory')
  }

  // KVM_EXIT_MEMORY_FAULT: the only exit that comes with an error.
  #memoryFault({ gpa, isPrivate, code }: MemoryFault): never {
    const { memory_fault: told } = this.#run.u
    told.flags = isPrivate ? BigInt(uapi.KVM_MEMORY_EXIT_FLAG_PRIVATE) : 0n
    told.gpa = BigInt(gpa)
    told.size = BigInt(PAGE_SIZE)
    this.exit(uapi.KVM_EXIT_MEMORY_FAULT, 'MEMORY_FAULT', gpa)
    if (this.#faults.on)
      this.#faults.emit({ vcpu: this.processor.id, gpa, private: isPrivate, errno: code })
    throw refuse(code, `the guest's ${isPrivate ? 'private' : 'shared'} access to ${hex(gpa)}`)
  }

  /** KVM_EXIT_MMIO. */
  protected mmio({ write, address, bytes }: Extract<Exit, { kind: 'mmio' }>): true {
    const { mmio } = this.#run.u
    mmio.phys_addr = BigInt(address)
    mmio.data.fill(0)
    mmio.data.set(bytes)
    mmio.len = bytes.length
    mmio.is_write = write ? 1 : 0
    return this.exit(uapi.KVM_EXIT_MMIO, 'MMIO', address, write, bytes.length)
  }

  /** Leaves with a reason; the rest of the page is filled. */
  protected exit(
    code: number,
    reason: string,
    address?: number,
    write?: boolean,
    size?: number,
  ): true {
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
    const { id, pc } = this.processor
    this.#exits.emit({ vcpu: id, reason, rip: pc, ...access })
  }
}
