// A virtual machine: guest-physical memory in slots, interrupt routes, vCPUs (KVM's API, "VM ioctls"). It belongs to
// the address space that made it and lives as long as it or a vCPU is open. x86/vm.ts and arm64/vm.ts complete it.

import type { ErrnoName } from '../../base/errno.js'
import { AddressSpace } from '../../mem/address-space.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import { copyIn, copyOutBytes, refuse, sameMemory } from './arguments.js'
import { calls } from './calls.js'
import { type Extensions, MAX_ROUTES, MAX_VCPUS } from './extensions.js'
import { type IrqRouting, signalMsi } from './irq-routing.js'
import { PrivateMemory } from './memory/private-memory.js'
import type { MappingParts } from './memory/slot-mappings.js'
import { WholeSlots } from './memory/whole-slots.js'
import { SlotTable } from './slots.js'
import type { KvmParts } from './system.js'
import * as uapi from './uapi/common.js'
import type { Vcpu } from './vcpu.js'

/** What an architecture tells of a VM when it is made. */
export interface VmMakeup {
  /** Bits of guest-physical addresses. */
  readonly addressBits: number
  readonly extensions: Extensions
  /** For VMs whose guest may have private memory: whether pages have attributes. */
  readonly memory?: { readonly attributes: boolean }
  /** Runs when the last descriptor into the VM is closed. */
  readonly gone: () => void
}

/** The file behind a VM's descriptor, and the VM. */
export abstract class Vm<V extends Vcpu = Vcpu> implements OpenFile {
  readonly kind = 'kvm-vm'
  readonly parts: KvmParts
  /** Guest-physical memory. */
  readonly memory = new AddressSpace()
  readonly slots: SlotTable
  /** Identity of the address space that made it. */
  readonly mm: object
  readonly #makeup: VmMakeup
  readonly #vcpus = new Map<number, V>()
  #privateMemory: PrivateMemory | undefined
  #references = 1
  #dead = false

  constructor(parts: KvmParts, owner: Process, makeup: VmMakeup) {
    this.parts = parts
    this.mm = owner.mm
    this.#makeup = makeup
    this.slots = new SlotTable({
      memory: this.memory,
      user: owner.memory,
      addressBits: makeup.addressBits,
      memfds: makeup.memory !== undefined,
      changed: () => {
        for (const vcpu of this.#vcpus.values()) vcpu.memoryChanged()
      },
      mappings: mapping => {
        if (makeup.memory === undefined) return new WholeSlots(mapping)
        this.#privateMemory = this.#makePrivateMemory(owner, makeup.memory.attributes, mapping)
        return this.#privateMemory.mappings
      },
    })
  }

  /** Private memory, where the guest may have any. */
  get privateMemory(): PrivateMemory | undefined {
    return this.#privateMemory
  }

  abstract readonly interrupts: IrqRouting

  /** Whether the interrupt controllers are the kernel's. */
  abstract get hasIrqchip(): boolean

  /** A vCPU that nobody knows yet. */
  protected abstract makeVcpu(id: number): V

  /** What KVM_ENABLE_CAP does; EINVAL for what cannot be enabled so. */
  abstract enable(cap: number, flags: number, args: readonly bigint[]): void

  /** Answers a request of the VM's own table, or undefined: there is no such request. */
  protected abstract answer(cmd: number, arg: number, caller: Process): number | undefined

  /** What a request is that no table has. */
  protected get unknownRequest(): ErrnoName {
    return 'ENOTTY'
  }

  /** vCPUs by id. */
  get vcpus(): ReadonlyMap<number, V> {
    return this.#vcpus
  }

  /** The answer of KVM_CHECK_EXTENSION. */
  extension(n: number): number {
    return this.#makeup.extensions.get(n) ?? 0
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    this.admit(caller)
    const answer = this.answer(cmd, arg, caller)
    if (answer === undefined)
      throw refuse(this.unknownRequest, `a VM knows no request 0x${cmd.toString(16)}`)
    return answer
  }

  /** Whether this process may use the VM: EIO from another address space, and once the VM is dead. */
  admit(caller: Process): void {
    sameMemory(this.mm, caller)
    if (this.#dead) throw refuse('EIO', 'the VM is dead')
  }

  /** From now on no request of the VM, its vCPUs and its devices is answered: it failed half-way. */
  die(): void {
    this.#dead = true
  }

  release(): void {
    this.interrupts.release()
    this.put()
  }

  /** Holds the VM for a vCPU. */
  get(): void {
    this.#references++
  }

  put(): void {
    if (--this.#references > 0) return
    this.destroy()
    this.#makeup.gone()
  }

  /** Lets go of what the VM has elsewhere; nobody can reach it any more. */
  protected destroy(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.destroy()
    this.slots.release()
    this.#privateMemory?.release()
  }

  #makePrivateMemory(owner: Process, attributes: boolean, mapping: MappingParts): PrivateMemory {
    const { kernel, trace, guestMemfd = {} } = this.parts
    return new PrivateMemory(
      {
        name: `VM of process ${owner.pid}`,
        kernel,
        trace,
        options: guestMemfd,
        attributes,
        put: () => this.put(),
      },
      mapping,
    )
  }

  /** KVM_CREATE_VCPU: the new descriptor. */
  createVcpu(id: number, caller: Process): number {
    if (id >= MAX_VCPUS) throw refuse('EINVAL', `vCPU ${id} of ${MAX_VCPUS}`)
    if (this.#vcpus.has(id)) throw refuse('EEXIST', `vCPU ${id} exists`)
    caller.kernel.failures.step('a vCPU')
    caller.fds.reserve()
    const vcpu = this.makeVcpu(id)
    this.#vcpus.set(id, vcpu)
    this.get()
    return caller.fds.install(vcpu)
  }
}

/** Requests that every VM answers. */
export const VM_CALLS = calls<Vm>([
  [uapi.KVM_CREATE_VCPU, (vm, arg, caller) => vm.createVcpu(arg, caller)],
  [uapi.KVM_SET_USER_MEMORY_REGION, setMemoryRegion],
  [uapi.KVM_GET_DIRTY_LOG, dirtyLog],
  [uapi.KVM_SIGNAL_MSI, (vm, arg, caller) => signalMsi(vm.interrupts, arg, caller)],
  [uapi.KVM_SET_GSI_ROUTING, setRouting],
  [uapi.KVM_IRQFD, irqfd],
  [uapi.KVM_ENABLE_CAP, enable],
  [uapi.KVM_CHECK_EXTENSION, (vm, arg) => vm.extension(arg)],
])

function setMemoryRegion(vm: Vm, arg: number, caller: Process): number {
  vm.slots.set(copyIn(caller, arg, uapi.kvm_userspace_memory_region))
  return 0
}

function dirtyLog(vm: Vm, arg: number, caller: Process): number {
  const { slot, dirty_bitmap } = copyIn(caller, arg, uapi.kvm_dirty_log)
  if (slot > 0xffff) throw refuse('EINVAL', `slot ${slot}`)
  const bitmap = vm.slots.dirtyPages(slot)
  if (bitmap === undefined) throw refuse('ENOENT', `slot ${slot} has no dirty log`)
  copyOutBytes(caller, Number(dirty_bitmap), bitmap)
  return 0
}

function setRouting(vm: Vm, arg: number, caller: Process): number {
  const { nr, flags } = copyIn(caller, arg, uapi.kvm_irq_routing)
  if (!vm.hasIrqchip || nr > MAX_ROUTES || flags !== 0) throw refuse('EINVAL', `${nr} routes`)
  caller.kernel.failures.step('routes')
  const routing = copyIn(caller, arg, uapi.kvm_irq_routing, nr * uapi.kvm_irq_routing_entry.size)
  vm.interrupts.set(routing.entries)
  return 0
}

function irqfd(vm: Vm, arg: number, caller: Process): number {
  const { fd, gsi, flags } = copyIn(caller, arg, uapi.kvm_irqfd)
  if (!vm.hasIrqchip) throw refuse('EINVAL', 'the VM has no interrupt controllers')
  vm.interrupts.irqfd(fd, gsi, flags, caller)
  return 0
}

function enable(vm: Vm, arg: number, caller: Process): number {
  const { cap, flags, args } = copyIn(caller, arg, uapi.kvm_enable_cap)
  vm.enable(cap, flags, [...args])
  return 0
}
