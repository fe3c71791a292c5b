// One vCPU's processor: the core with its memory, MSRs, CPUID, local APIC and time, put together. It is the system
// that instructions see (x86/ports.ts, SystemPort); the ioctls are in vcpu.ts and the run loop in run.ts.

import type { VirtualClock } from '../../../base/clock.js'
import type { TraceEvents, TracePoint } from '../../../base/trace.js'
import type { AccessRecord } from '../../accesses.js'
import type { Encryption } from '../../sev/encryption.js'
import { LocalApic } from '../../x86/apic.js'
import { writeControl } from '../../x86/control-registers.js'
import { X86Core } from '../../x86/core.js'
import { Cpuid } from '../../x86/cpuid.js'
import { EventDelivery } from '../../x86/exceptions.js'
import { isCanonical } from '../../x86/machine.js'
import { Mmu } from '../../x86/mmu.js'
import { MsrFile } from '../../x86/msr.js'
import type { SystemPort } from '../../x86/ports.js'
import {
  ABORT,
  EVENT,
  FLAG,
  type PendingEvent,
  SLOT,
  VECTOR,
  X86State,
} from '../../x86/registers.js'
import type { Runnable } from '../run.js'
import '../trace.js'
import {
  KVM_HC_MAP_GPA_RANGE,
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_UNINITIALIZED,
} from '../uapi.js'
import type { X86Vm } from './vm.js'

/** IA32_APIC_BASE of a vCPU whose local APIC is its owner's: enabled, bootstrap processor. */
const APIC_BASE = 0xfee0_0900
/** RAX after a hypercall that nobody knows (KVM_ENOSYS), and after one from user mode (KVM_EPERM). */
const HYPERCALL_UNKNOWN = -1000n
const HYPERCALL_REFUSED = -1n
/** RAX after MAP_GPA_RANGE of no whole pages (KVM_EINVAL). */
const HYPERCALL_INVALID = -22n

/** A vCPU's processor and what surrounds it. */
export class Processor implements SystemPort, Runnable {
  readonly id: number
  readonly vm: X86Vm
  readonly clock: VirtualClock
  readonly state = new X86State()
  readonly mmu: Mmu
  readonly msrs: MsrFile
  readonly leaves = new Cpuid()
  /** Undefined when the owner has the local APIC. */
  readonly apic: LocalApic | undefined
  readonly core: X86Core
  /** Vector of KVM_INTERRUPT waiting for delivery, or -1. */
  queued = -1
  /** The owner has no memory where the guest's last access went. */
  memoryFault = false
  /** The delivery of an event met an address without memory. */
  deliveryExit = false
  readonly #ns: number
  readonly #delivery: EventDelivery
  readonly #exceptions: TracePoint<TraceEvents['kvm.exception']>
  readonly #interrupts: TracePoint<TraceEvents['kvm.interrupt']>
  readonly #enqueues: TracePoint<TraceEvents['kvm.enqcmd']>
  #apicBase = APIC_BASE
  /** KVM_MP_STATE_* while it is neither running nor halted. */
  #parked: number | undefined
  /** Retired instructions that the clock was told of. */
  #told = 0

  constructor(vm: X86Vm, id: number) {
    const { clock, trace, nsPerInstruction = 1 } = vm.parts
    this.id = id
    this.vm = vm
    this.clock = clock
    this.#ns = nsPerInstruction
    this.#exceptions = trace.point('kvm.exception')
    this.#interrupts = trace.point('kvm.interrupt')
    this.#enqueues = trace.point('kvm.enqcmd')
    this.state.reset()
    this.apic = vm.hasIrqchip ? this.#makeApic() : undefined
    if (this.apic !== undefined && id > 0) this.#parked = KVM_MP_STATE_UNINITIALIZED
    this.mmu = new Mmu(this.state, {
      memory: vm.memory,
      apicPage: () => this.apic?.page ?? -1,
      apicRead: (offset, size) => this.apic!.read(offset, size),
      apicWrite: (offset, size, value) => this.apic!.write(offset, size, value),
      readOnly: ram => vm.slots.readOnly(ram),
      populate: (address, fetch) => vm.slots.populate(address, fetch),
      owed: address => vm.privateMemory?.mappings.exitAt(address) !== undefined,
      leaving: (address, write) => (this.memoryFault = vm.slots.isFault(address, write)),
    })
    this.msrs = new MsrFile(this.state, {
      tsc: () => BigInt(Math.floor(this.now())),
      apicBase: () => BigInt(this.apicBase),
      setApicBase: value => this.setApicBase(value),
      pagingChanged: () => this.mmu.controlsChanged(),
      canonical: value => isCanonical(this.state, value),
      sevStatus: () => vm.sev?.status,
    })
    this.#delivery = new EventDelivery(this.state, this.mmu, event => this.#heard(event))
    const { state, mmu: memory } = this
    this.core = new X86Core({ state, memory, system: this, space: vm.memory })
    const encryption = vm.sev?.encryption
    if (encryption) this.encrypt(encryption)
  }

  /** Works under a guest's memory key from now on. */
  encrypt(encryption: Encryption): void {
    this.mmu.encrypt(encryption)
    this.core.fetchFrom(encryption.memory)
  }

  get accesses(): AccessRecord {
    return this.state.accesses
  }

  get pc(): bigint {
    return this.state.rip
  }

  // ---- time ----

  /** Virtual time as the running instruction sees it, in ns. */
  now(): number {
    return this.clock.now + (this.core.retired - this.#told) * this.#ns
  }

  /** Instructions until the next timer is due, at least 1 and at most `most`. */
  budget(most: number): number {
    const { nextAt, now } = this.clock
    if (nextAt === undefined) return most
    return Math.max(1, Math.min(most, Math.ceil((nextAt - now) / this.#ns)))
  }

  /** Tells the clock of the instructions run since; what is due by now happens. */
  passTime(): void {
    this.vm.sev?.settle()
    const ran = this.core.retired - this.#told
    this.#told = this.core.retired
    this.clock.advance(ran * this.#ns)
  }

  // ---- state that is not the core's ----

  get apicBase(): number {
    return this.apic?.base ?? this.#apicBase
  }

  /** False for a value that IA32_APIC_BASE cannot take. */
  setApicBase(value: bigint): boolean {
    if (this.apic === undefined) {
      if (value >> 52n !== 0n) return false
      this.#apicBase = Number(value)
      return true
    }
    if (!this.apic.setBase(value)) return false
    this.mmu.flush()
    return true
  }

  /** CR8 was set; TPR follows. */
  setTaskPriority(cr8: number): void {
    if (this.apic !== undefined) this.apic.taskPriority = cr8 << 4
  }

  /** KVM_MP_STATE_*. */
  get mpState(): number {
    return this.#parked ?? (this.state.halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE)
  }

  set mpState(value: number) {
    const runs = value === KVM_MP_STATE_RUNNABLE || value === KVM_MP_STATE_HALTED
    this.#parked = runs ? undefined : value
    this.state.halted = value === KVM_MP_STATE_HALTED
  }

  /** Whether it waits for another processor to start it. */
  get parked(): boolean {
    return this.#parked !== undefined
  }

  /** Whether it is parked, or halted with nothing pending. */
  get waits(): boolean {
    return this.parked || (this.state.halted && !this.#wakes())
  }

  // Whether something that is pending would end HLT.
  #wakes(): boolean {
    const { state } = this
    if (state.event !== undefined || (state.nmiPending && !state.nmiBlocked)) return true
    return (state.flags & FLAG.IF) !== 0 && !state.interruptShadow && this.pendingInterrupt() >= 0
  }

  /** Stops what it has on the clock. */
  release(): void {
    this.apic?.release()
  }

  // ---- what instructions ask for ----

  portIn(port: number, size: number): number {
    const answer = this.state.accesses.ask({ kind: 'io', write: false, port, size, value: 0 })
    if (answer === undefined) {
      this.state.abort = ABORT.EXIT
      return 0
    }
    this.core.breakpoints.port(port, size)
    let value = 0
    for (let i = size - 1; i >= 0; i--) value = (value << 8) | answer[i]!
    return value
  }

  portOut(port: number, size: number, value: number): void {
    const answer = this.state.accesses.ask({ kind: 'io', write: true, port, size, value })
    if (answer === undefined) this.state.abort = ABORT.EXIT
    else this.core.breakpoints.port(port, size)
  }

  readMsr(index: number): bigint {
    const value = this.msrs.read(index)
    if (value === undefined) this.state.raise(VECTOR.GP, 0)
    return value ?? 0n
  }

  writeMsr(index: number, value: bigint): void {
    if (!this.msrs.write(index, value)) this.state.raise(VECTOR.GP, 0)
  }

  writeControl(n: number, value: bigint): void {
    const done = writeControl(this.state, this.mmu, n, value, cr8 => this.setTaskPriority(cr8))
    if (!done) this.state.raise(VECTOR.GP, 0)
  }

  cpuid(leaf: number, subleaf: number, into: Uint32Array): void {
    this.leaves.read(leaf, subleaf, into, this.state, (this.apicBase & 0x800) !== 0)
  }

  tsc(): bigint {
    return this.msrs.tsc()
  }

  invalidatePage(linear: bigint): void {
    this.mmu.invalidatePage(linear)
  }

  invalidatePcid(type: number, pcid: number, linear: bigint): void {
    this.mmu.invalidatePcid(type, pcid, linear)
  }

  hypercall(): void {
    const { state } = this
    const number = state.r64[SLOT.RAX]!
    const answer = this.#refusal(number)
    if (answer === undefined) state.leave = { kind: 'hypercall' }
    else state.r64[SLOT.RAX] = BigInt.asUintN(64, answer)
  }

  // What a hypercall answers that does not go to the owner.
  #refusal(number: bigint): bigint | undefined {
    const { cpl, r64 } = this.state
    if (cpl !== 0) return HYPERCALL_REFUSED
    if (!this.vm.exitsOn(number)) return HYPERCALL_UNKNOWN
    const [gpa, pages] = [r64[SLOT.RBX]!, r64[SLOT.RCX]!]
    const range = gpa % 4096n === 0n && pages !== 0n && gpa / 4096n + pages < 1n << 64n
    return number === BigInt(KVM_HC_MAP_GPA_RANGE) && !range ? HYPERCALL_INVALID : undefined
  }

  translatePasid(guest: number): number {
    const host = this.vm.pasids.translate(guest)
    if (this.#enqueues.on) this.#enqueues.emit({ vcpu: this.id, guest, host })
    return host
  }

  deliver(event: PendingEvent): boolean {
    const delivered = this.#delivery.deliver(event)
    if (this.state.abort === ABORT.EXIT) this.deliveryExit = true
    return delivered
  }

  pendingInterrupt(): number {
    return this.apic === undefined ? this.queued : this.apic.pending
  }

  acknowledgeInterrupt(): number {
    if (this.apic !== undefined) return this.apic.acknowledge()
    const vector = this.queued
    this.queued = -1
    return vector
  }

  #makeApic(): LocalApic {
    const apic: LocalApic = new LocalApic(this.id, {
      clock: this.clock,
      now: () => this.now(),
      nmi: () => {
        this.state.nmiPending = true
      },
      taskPriority: tpr => {
        this.state.cr8 = tpr >> 4
      },
      send: command => this.vm.messages.command(command, apic),
    })
    return apic
  }

  #heard(event: PendingEvent): void {
    const { state, id: vcpu } = this
    const { vector, error } = event
    if (event.kind === EVENT.EXTERNAL || event.kind === EVENT.NMI) {
      if (this.#interrupts.on) this.#interrupts.emit({ vcpu, vector, rip: state.rip })
    } else if (this.#exceptions.on) {
      const cr2 = vector === VECTOR.PF ? state.cr2 : undefined
      this.#exceptions.emit({ vcpu, vector, error, rip: state.rip, cr2, cpl: state.cpl })
    }
  }
}
