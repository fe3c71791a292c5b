// An x86 vCPU's descriptor: registers in and out. What surrounds the core is processor.ts.

import type { StructValue } from '../../../base/struct.js'
import type { Process } from '../../../sys/process.js'
import type { Encryption } from '../../sev/encryption.js'
import type { LocalApic } from '../../x86/apic.js'
import { EVENT, VECTOR } from '../../x86/registers.js'
import { copyIn, copyInBytes, copyOut, copyOutBytes, refuse } from '../arguments.js'
import { preFault } from '../memory/calls.js'
import * as uapi from '../uapi.js'
import { Vcpu } from '../vcpu.js'
import { fromEntry2, MAX_CPUID_ENTRIES, toEntry2 } from './cpuid-entries.js'
import { DEBUG_CONTROLS, RUN_BYTES } from './extensions.js'
import { Processor } from './processor.js'
import { X86RunLoop } from './run.js'
import * as transfer from './vcpu-state.js'
import type { X86Vm } from './vm.js'
import { mayPreFault } from './vm-types.js'

/** Most entries of KVM_GET_MSRS and KVM_SET_MSRS, plus one. */
const MAX_MSRS = 256
const TSC_KHZ = 1_000_000

/** The file behind an x86 vCPU's descriptor. */
export class X86Vcpu extends Vcpu {
  readonly #vm: X86Vm
  readonly #processor: Processor
  readonly #loop: X86RunLoop
  /** Stored only: nothing here computes with x87 or SSE registers. */
  #fpu = uapi.kvm_fpu({ fcw: 0x37f, mxcsr: 0x1f80 })

  constructor(vm: X86Vm, id: number) {
    super(vm, id, RUN_BYTES)
    this.#vm = vm
    this.#processor = new Processor(vm, id)
    this.#loop = new X86RunLoop(this.#processor, this.page)
  }

  /** Its local APIC, when that is the kernel's. */
  get apic(): LocalApic | undefined {
    return this.#processor.apic
  }

  /** Every register that a call could show, interrupts in service and pending, and the run page. */
  digest(): Uint8Array {
    const { state, queued, mpState } = this.#processor
    const { star, lstar, cstar, sfmask, kernelGsBase, tscAux, pasid } = state
    const others = [star, lstar, cstar, sfmask, kernelGsBase, tscAux, pasid, mpState].map(BigInt)
    const parts = [
      transfer.saveRegs(state).bytes,
      this.#sregs().bytes,
      this.#debugRegisters().bytes,
      transfer.saveEvents(state, queued).bytes,
      new Uint8Array(BigUint64Array.from(others).buffer),
      ...(this.apic ? [this.apic.save()] : []),
      this.page,
    ]
    return Uint8Array.from(parts.flatMap(part => [...part]))
  }

  /** Works under a guest's memory key from now on. */
  encrypt(encryption: Encryption): void {
    this.#processor.encrypt(encryption)
  }

  /** What the 2016 launch measures of it: `struct kvm_regs`, then `struct kvm_sregs`. */
  measuredState(): Uint8Array {
    const regs = transfer.saveRegs(this.#processor.state).bytes
    const sregs = this.#sregs().bytes
    const state = new Uint8Array(regs.length + sregs.length)
    state.set(regs)
    state.set(sregs, regs.length)
    return state
  }

  memoryChanged(): void {
    this.#processor.mmu.flush()
  }

  destroy(): void {
    this.#processor.release()
  }

  protected run(): void {
    this.begun()
    this.#loop.enter()
  }

  protected answer(cmd: number, arg: number, caller: Process): number | undefined {
    const { state } = this.#processor
    switch (cmd) {
      case uapi.KVM_GET_REGS:
        copyOut(caller, arg, transfer.saveRegs(state))
        return 0
      case uapi.KVM_SET_REGS:
        transfer.loadRegs(state, copyIn(caller, arg, uapi.kvm_regs))
        return 0
      case uapi.KVM_GET_SREGS:
        copyOut(caller, arg, this.#sregs())
        return 0
      case uapi.KVM_SET_SREGS:
        return this.#setSregs(copyIn(caller, arg, uapi.kvm_sregs))
      case uapi.KVM_TRANSLATE:
        return this.#translate(arg, caller)
      case uapi.KVM_INTERRUPT:
        return this.#interrupt(copyIn(caller, arg, uapi.kvm_interrupt).irq)
      case uapi.KVM_NMI:
        state.nmiPending = true
        return 0
      case uapi.KVM_GET_MSRS:
        return this.#getMsrs(arg, caller)
      case uapi.KVM_SET_MSRS:
        return this.#setMsrs(arg, caller)
      case uapi.KVM_SET_CPUID2:
        return this.#setCpuid(arg, caller)
      case uapi.KVM_GET_CPUID2:
        return this.#getCpuid(arg, caller)
      case uapi.KVM_GET_FPU:
        copyOut(caller, arg, this.#fpu)
        return 0
      case uapi.KVM_SET_FPU:
        this.#fpu = copyIn(caller, arg, uapi.kvm_fpu)
        return 0
      case uapi.KVM_GET_LAPIC:
        copyOutBytes(caller, arg, this.#lapic().save())
        return 0
      case uapi.KVM_SET_LAPIC: {
        const apic = this.#lapic()
        apic.restore(copyInBytes(caller, arg, uapi.kvm_lapic_state.size))
        return 0
      }
      case uapi.KVM_GET_MP_STATE:
        copyOut(caller, arg, uapi.kvm_mp_state({ mp_state: this.#processor.mpState }))
        return 0
      case uapi.KVM_SET_MP_STATE:
        return this.#setMpState(copyIn(caller, arg, uapi.kvm_mp_state).mp_state)
      case uapi.KVM_GET_VCPU_EVENTS:
        copyOut(caller, arg, transfer.saveEvents(state, this.#processor.queued))
        return 0
      case uapi.KVM_SET_VCPU_EVENTS:
        return this.#setEvents(copyIn(caller, arg, uapi.kvm_vcpu_events))
      case uapi.KVM_GET_DEBUGREGS:
        copyOut(caller, arg, this.#debugRegisters())
        return 0
      case uapi.KVM_SET_DEBUGREGS:
        return this.#setDebugRegisters(copyIn(caller, arg, uapi.kvm_debugregs))
      case uapi.KVM_SET_GUEST_DEBUG:
        return this.#setGuestDebug(copyIn(caller, arg, uapi.kvm_guest_debug))
      case uapi.KVM_GET_TSC_KHZ:
        return TSC_KHZ
      case uapi.KVM_PRE_FAULT_MEMORY:
        return preFault(this.#vm, mayPreFault(this.#vm.type), arg, caller)
    }
    return undefined
  }

  #sregs(): transfer.Sregs {
    const p = this.#processor
    const sregs = transfer.saveSregs(p.state)
    sregs.apic_base = BigInt(p.apicBase)
    if (p.queued >= 0) sregs.interrupt_bitmap.set(p.queued >> 6, 1n << BigInt(p.queued & 63))
    return sregs
  }

  #setSregs(sregs: transfer.Sregs): number {
    const p = this.#processor
    const problem = transfer.sregsProblem(sregs)
    if (problem !== undefined) throw refuse('EINVAL', problem)
    if (!p.setApicBase(sregs.apic_base)) throw refuse('EINVAL', 'apic_base has reserved bits set')
    transfer.loadSregs(p.state, sregs)
    p.setTaskPriority(p.state.cr8)
    p.mmu.reload()
    if (p.apic === undefined) {
      const word = [...sregs.interrupt_bitmap].findIndex(v => v !== 0n)
      if (word >= 0) {
        let bit = 0
        while (((sregs.interrupt_bitmap.get(word) >> BigInt(bit)) & 1n) === 0n) bit++
        p.queued = word * 64 + bit
      }
    }
    return 0
  }

  #translate(arg: number, caller: Process): number {
    const t = copyIn(caller, arg, uapi.kvm_translation)
    const found = this.#processor.mmu.probe(t.linear_address)
    this.#processor.vm.sev?.settle()
    t.physical_address = found === undefined ? 0xffff_ffff_ffff_ffffn : BigInt(found.address)
    t.valid = found === undefined ? 0 : 1
    t.writeable = 1
    t.usermode = 0
    copyOut(caller, arg, t)
    return 0
  }

  #interrupt(irq: number): number {
    if (irq >= uapi.KVM_NR_INTERRUPTS) throw refuse('EINVAL', `vector ${irq}`)
    if (this.#processor.apic !== undefined) throw refuse('ENXIO', 'the kernel has the local APIC')
    this.#processor.queued = irq
    return 0
  }

  // Returns how many were read before the first that does not exist.
  #getMsrs(arg: number, caller: Process): number {
    const msrs = this.#msrs(arg, caller)
    let done = 0
    for (const entry of msrs.entries) {
      const value = this.#processor.msrs.read(entry.index)
      if (value === undefined) break
      entry.data = value
      done++
    }
    copyOut(caller, arg, msrs)
    return done
  }

  #setMsrs(arg: number, caller: Process): number {
    let done = 0
    for (const { index, data } of this.#msrs(arg, caller).entries) {
      if (!this.#processor.msrs.write(index, data, true)) break
      done++
    }
    return done
  }

  #msrs(arg: number, caller: Process) {
    const { nmsrs } = copyIn(caller, arg, uapi.kvm_msrs)
    if (nmsrs >= MAX_MSRS) throw refuse('E2BIG', `${nmsrs} MSRs at once`)
    caller.kernel.failures.step('MSRs')
    return copyIn(caller, arg, uapi.kvm_msrs, nmsrs * uapi.kvm_msr_entry.size)
  }

  #setCpuid(arg: number, caller: Process): number {
    const { nent } = copyIn(caller, arg, uapi.kvm_cpuid2)
    if (nent > MAX_CPUID_ENTRIES) throw refuse('E2BIG', `${nent} leaves`)
    caller.kernel.failures.step('CPUID leaves')
    const given = copyIn(caller, arg, uapi.kvm_cpuid2, nent * uapi.kvm_cpuid_entry2.size)
    const entries = [...given.entries].map(fromEntry2)
    const { leaves } = this.#processor
    if (this.hasRun && JSON.stringify(entries) !== JSON.stringify(leaves.entries))
      throw refuse('EINVAL', 'the vCPU has run: its CPUID stays')
    leaves.set(entries)
    return 0
  }

  #getCpuid(arg: number, caller: Process): number {
    const { nent } = copyIn(caller, arg, uapi.kvm_cpuid2)
    const { entries } = this.#processor.leaves
    if (nent < entries.length) throw refuse('E2BIG', `${entries.length} leaves`)
    copyOut(caller, arg, uapi.kvm_cpuid2({ nent: entries.length, entries: entries.map(toEntry2) }))
    return 0
  }

  #lapic(): LocalApic {
    const { apic } = this.#processor
    if (apic === undefined) throw refuse('EINVAL', 'the kernel has no local APIC for this vCPU')
    return apic
  }

  #setMpState(value: number): number {
    const known = value <= uapi.KVM_MP_STATE_SIPI_RECEIVED
    const inKernel = this.#processor.apic !== undefined
    if (!known || (!inKernel && value !== uapi.KVM_MP_STATE_RUNNABLE))
      throw refuse('EINVAL', `mp_state ${value}`)
    this.#processor.mpState = value
    return 0
  }

  #setEvents(events: transfer.Events): number {
    const problem = transfer.eventsProblem(events)
    if (problem !== undefined) throw refuse('EINVAL', problem)
    const queued = transfer.loadEvents(this.#processor.state, events)
    if (queued >= 0 || this.#processor.apic === undefined) this.#processor.queued = queued
    return 0
  }

  #debugRegisters() {
    const { dr } = this.#processor.state
    return uapi.kvm_debugregs({ db: [...dr.subarray(0, 4)], dr6: dr[6]!, dr7: dr[7]! })
  }

  #setDebugRegisters(regs: StructValue<(typeof uapi.kvm_debugregs)['members']>): number {
    if (regs.flags !== 0n) throw refuse('EINVAL', 'debug register flags')
    if (regs.dr6 >> 32n !== 0n || regs.dr7 >> 32n !== 0n)
      throw refuse('EINVAL', 'DR6 and DR7 have 32 bits')
    const { dr } = this.#processor.state
    dr.set([...regs.db])
    dr[6] = (regs.dr6 & 0xe00fn) | 0xffff_0ff0n
    dr[7] = (regs.dr7 & 0xffff_2bffn) | 0x400n
    return 0
  }

  #setGuestDebug({ control, arch }: StructValue<(typeof uapi.kvm_guest_debug)['members']>): number {
    if ((control & ~DEBUG_CONTROLS) !== 0) throw refuse('EINVAL', `guest debug control ${control}`)
    const { core, state } = this.#processor
    if ((control & (uapi.KVM_GUESTDBG_INJECT_DB | uapi.KVM_GUESTDBG_INJECT_BP)) !== 0) {
      if (state.event !== undefined) throw refuse('EBUSY', 'an event waits for delivery')
      // #BP is that of the INT3 at RIP, and returns behind it.
      state.event =
        (control & uapi.KVM_GUESTDBG_INJECT_DB) !== 0
          ? { kind: EVENT.EXCEPTION, vector: VECTOR.DB, error: undefined }
          : { kind: EVENT.SOFTWARE, vector: VECTOR.BP, error: undefined, length: 1 }
    }
    const on = (bit: number) => (control & uapi.KVM_GUESTDBG_ENABLE) !== 0 && (control & bit) !== 0
    core.debug.singleStep = on(uapi.KVM_GUESTDBG_SINGLESTEP)
    core.debug.softwareBreakpoints = on(uapi.KVM_GUESTDBG_USE_SW_BP)
    core.debug.blockInterrupts = on(uapi.KVM_GUESTDBG_BLOCKIRQ)
    core.breakpoints.host = on(uapi.KVM_GUESTDBG_USE_HW_BP)
      ? BigUint64Array.from(arch.debugreg)
      : undefined
    return 0
  }
}
