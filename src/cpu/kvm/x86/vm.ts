// An x86 virtual machine: local APICs, PASID translation for ENQCMD, hypercalls that exit.

import type { Process } from '../../../sys/process.js'
import { PHYSICAL_ADDRESS_BITS } from '../../x86/cpuid.js'
import { copyInBytes, refuse } from '../arguments.js'
import { calls, joinCalls } from '../calls.js'
import { IrqRouting } from '../irq-routing.js'
import { MEMORY_CALLS } from '../memory/calls.js'
import { memfdFlags } from '../memory/private-memory.js'
import { PasidTranslation } from '../pasid.js'
import type { KvmParts } from '../system.js'
import * as uapi from '../uapi.js'
import { VM_CALLS, Vm } from '../vm.js'
import { HYPERCALLS, X86_EXTENSIONS } from './extensions.js'
import { ApicMessages } from './messages.js'
import { SevVm } from './sev.js'
import { SEV_2016_CALLS } from './sev-2016.js'
import { SEV_CALLS } from './sev-current.js'
import { X86Vcpu } from './vcpu.js'
import { hasPrivateMemory, vmTypes } from './vm-types.js'

/** The highest address of the three pages that KVM_SET_TSS_ADDR asks for. */
const TSS_LIMIT = 0xffff_ffff - 3 * 4096 + 1

/** The file behind an x86 VM's descriptor, and the VM. */
export class X86Vm extends Vm<X86Vcpu> {
  readonly pasids = new PasidTranslation()
  readonly messages: ApicMessages
  readonly interrupts: IrqRouting
  /** KVM_CREATE_VM's argument: KVM_X86_*_VM. */
  readonly type: number
  /** Undefined on hosts without SEV. */
  readonly sev: SevVm | undefined
  readonly #stopPasids: (() => void) | undefined
  #irqchip = false
  #hypercallExits = 0n

  constructor(parts: KvmParts, type: number, owner: Process, gone: () => void) {
    const attributes = hasPrivateMemory(type)
    const faulted = attributes || parts.guestMemfd?.edition === 'mmap'
    super(parts, owner, {
      addressBits: PHYSICAL_ADDRESS_BITS,
      extensions: X86_EXTENSIONS,
      gone,
      ...(faulted && { memory: { attributes } }),
    })
    // Refused with EBUSY when the address space has PASIDs already: their bindings would be missed.
    this.#stopPasids = parts.pasidSource?.subscribe(owner.mm, this.pasids)
    this.messages = new ApicMessages(
      () => this.#apics(),
      () => this.#irqchip,
    )
    this.interrupts = new IrqRouting(this.messages)
    this.type = type
    this.sev = parts.sev && new SevVm(this, parts.sev, owner)
  }

  /** Whether local APICs are the kernel's (KVM_CREATE_IRQCHIP). */
  get hasIrqchip(): boolean {
    return this.#irqchip
  }

  /** KVM_CREATE_IRQCHIP. */
  createIrqchip(caller: Process): number {
    if (this.#irqchip) throw refuse('EEXIST', 'the VM has its interrupt controllers')
    if (this.vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
    caller.kernel.failures.step('interrupt controllers')
    this.#irqchip = true
    return 0
  }

  /** Whether a hypercall goes to the owner (KVM_CAP_EXIT_HYPERCALL). */
  exitsOn(hypercall: bigint): boolean {
    return hypercall < 64n && ((this.#hypercallExits >> hypercall) & 1n) === 1n
  }

  /** Slots, which pages are private, and the state of an encrypted guest. */
  digest(): Uint8Array {
    const slots = [...this.slots].map(s => [s.id, s.first, s.pages, s.user, s.flags, s.memfd?.page])
    const ranges = [...(this.privateMemory?.attributes.privateRanges() ?? [])]
    return new TextEncoder().encode(JSON.stringify({ slots, ranges, sev: this.sev?.state }))
  }

  override extension(n: number): number {
    switch (n) {
      case uapi.KVM_CAP_VM_TYPES:
        return vmTypes(this.parts.sev)
      case uapi.KVM_CAP_MEMORY_ATTRIBUTES:
        return Number(this.privateMemory?.supported ?? 0n)
      case uapi.KVM_CAP_GUEST_MEMFD:
        return this.privateMemory === undefined ? 0 : 1
      case uapi.KVM_CAP_GUEST_MEMFD_FLAGS:
        return memfdFlags(this.parts.guestMemfd, hasPrivateMemory(this.type))
      default:
        return super.extension(n)
    }
  }

  enable(cap: number, flags: number, args: readonly bigint[]): void {
    const mask = args[0]!
    const supported = BigInt(HYPERCALLS)
    if (flags !== 0 || cap !== uapi.KVM_CAP_EXIT_HYPERCALL || (mask & ~supported) !== 0n)
      throw refuse('EINVAL', `capability ${cap} cannot be enabled so`)
    this.#hypercallExits = mask
  }

  protected makeVcpu(id: number): X86Vcpu {
    return new X86Vcpu(this, id)
  }

  protected answer(cmd: number, arg: number, caller: Process): number | undefined {
    return CALLS.get(cmd)?.(this, arg, caller)
  }

  protected override destroy(): void {
    this.#stopPasids?.()
    this.sev?.release()
    super.destroy()
  }

  *#apics() {
    for (const { apic } of this.vcpus.values()) if (apic !== undefined) yield apic
  }
}

const CALLS = joinCalls<X86Vm>(
  VM_CALLS,
  MEMORY_CALLS,
  SEV_CALLS,
  SEV_2016_CALLS,
  calls<X86Vm>([
    [uapi.KVM_SET_TSS_ADDR, (_, arg) => setTssAddress(arg)],
    [uapi.KVM_SET_IDENTITY_MAP_ADDR, setIdentityMapAddress],
    [uapi.KVM_CREATE_IRQCHIP, (vm, _, caller) => vm.createIrqchip(caller)],
  ]),
)

function setTssAddress(arg: number): number {
  if (arg > TSS_LIMIT) throw refuse('EINVAL', 'the TSS pages lie above 4 GiB')
  return 0
}

function setIdentityMapAddress(vm: X86Vm, arg: number, caller: Process): number {
  copyInBytes(caller, arg, 8)
  if (vm.vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
  return 0
}
