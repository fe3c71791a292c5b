// A virtual machine: guest-physical memory in slots, local APICs, interrupt routes, PASID translation, vCPUs
// (KVM's API, "VM ioctls"). It belongs to the address space that made it and lives as long as it or a vCPU is open.

import { AddressSpace } from '../../mem/address-space.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import { copyIn, copyInBytes, copyOutBytes, refuse, sameMemory } from './arguments.js'
import { extension, MAX_ROUTES, MAX_VCPUS } from './extensions.js'
import { IrqRouting } from './irq-routing.js'
import { PasidTranslation } from './pasid.js'
import { SlotTable } from './slots.js'
import type { KvmParts } from './system.js'
import * as uapi from './uapi.js'
import { Vcpu } from './vcpu.js'

/** The highest address of the three pages that KVM_SET_TSS_ADDR asks for. */
const TSS_LIMIT = 0xffff_ffff - 3 * 4096 + 1

/** The file behind a VM's descriptor, and the VM. */
export class Vm implements OpenFile {
  readonly kind = 'kvm-vm'
  readonly parts: KvmParts
  /** Guest-physical memory. */
  readonly memory = new AddressSpace()
  readonly slots: SlotTable
  readonly pasids = new PasidTranslation()
  readonly interrupts: IrqRouting
  /** Identity of the address space that made it. */
  readonly mm: object
  readonly #vcpus = new Map<number, Vcpu>()
  readonly #stopPasids: (() => void) | undefined
  readonly #gone: () => void
  #references = 1
  #irqchip = false
  #hypercallExits = 0n

  constructor(parts: KvmParts, owner: Process, gone: () => void) {
    this.parts = parts
    this.mm = owner.mm
    this.#gone = gone
    // Refused with EBUSY when the address space has PASIDs already: their bindings would be missed.
    this.#stopPasids = parts.pasidSource?.subscribe(owner.mm, this.pasids)
    this.slots = new SlotTable(this.memory, owner.memory, () => {
      for (const vcpu of this.#vcpus.values()) vcpu.memoryChanged()
    })
    this.interrupts = new IrqRouting(() => this.#apics(), MAX_ROUTES)
  }

  /** vCPUs by id. */
  get vcpus(): ReadonlyMap<number, Vcpu> {
    return this.#vcpus
  }

  /** Whether local APICs are the kernel's (KVM_CREATE_IRQCHIP). */
  get hasIrqchip(): boolean {
    return this.#irqchip
  }

  /** Whether a hypercall goes to the owner (KVM_CAP_EXIT_HYPERCALL). */
  exitsOn(hypercall: bigint): boolean {
    return hypercall < 64n && ((this.#hypercallExits >> hypercall) & 1n) === 1n
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    sameMemory(this.mm, caller)
    switch (cmd) {
      case uapi.KVM_CREATE_VCPU:
        return this.#createVcpu(arg, caller)
      case uapi.KVM_SET_USER_MEMORY_REGION:
        this.slots.set(copyIn(caller, arg, uapi.kvm_userspace_memory_region))
        return 0
      case uapi.KVM_GET_DIRTY_LOG:
        return this.#dirtyLog(arg, caller)
      case uapi.KVM_SET_TSS_ADDR:
        if (arg > TSS_LIMIT) throw refuse('EINVAL', 'the TSS pages lie above 4 GiB')
        return 0
      case uapi.KVM_SET_IDENTITY_MAP_ADDR:
        copyInBytes(caller, arg, 8)
        if (this.#vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
        return 0
      case uapi.KVM_CREATE_IRQCHIP:
        if (this.#irqchip) throw refuse('EEXIST', 'the VM has its interrupt controllers')
        if (this.#vcpus.size > 0) throw refuse('EINVAL', 'there are vCPUs already')
        caller.kernel.failures.step('interrupt controllers')
        this.#irqchip = true
        return 0
      case uapi.KVM_SIGNAL_MSI:
        return this.#signalMsi(arg, caller)
      case uapi.KVM_SET_GSI_ROUTING:
        return this.#setRouting(arg, caller)
      case uapi.KVM_IRQFD: {
        const { fd, gsi, flags } = copyIn(caller, arg, uapi.kvm_irqfd)
        if (!this.#irqchip) throw refuse('EINVAL', 'the VM has no interrupt controllers')
        this.interrupts.irqfd(fd, gsi, flags, caller)
        return 0
      }
      case uapi.KVM_ENABLE_CAP:
        return this.#enable(arg, caller)
      case uapi.KVM_CHECK_EXTENSION:
        return extension(arg)
    }
    throw refuse('ENOTTY', `a VM knows no request 0x${cmd.toString(16)}`)
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
    this.#stopPasids?.()
    for (const vcpu of this.#vcpus.values()) vcpu.destroy()
    this.slots.release()
    this.#gone()
  }

  #createVcpu(id: number, caller: Process): number {
    if (id >= MAX_VCPUS) throw refuse('EINVAL', `vCPU ${id} of ${MAX_VCPUS}`)
    if (this.#vcpus.has(id)) throw refuse('EEXIST', `vCPU ${id} exists`)
    caller.kernel.failures.step('a vCPU')
    caller.fds.reserve()
    const vcpu = new Vcpu(this, id)
    this.#vcpus.set(id, vcpu)
    this.get()
    return caller.fds.install(vcpu)
  }

  #dirtyLog(arg: number, caller: Process): number {
    const { slot, dirty_bitmap } = copyIn(caller, arg, uapi.kvm_dirty_log)
    if (slot > 0xffff) throw refuse('EINVAL', `slot ${slot}`)
    const bitmap = this.slots.dirtyPages(slot)
    if (bitmap === undefined) throw refuse('ENOENT', `slot ${slot} has no dirty log`)
    copyOutBytes(caller, Number(dirty_bitmap), bitmap)
    return 0
  }

  #signalMsi(arg: number, caller: Process): number {
    const msi = copyIn(caller, arg, uapi.kvm_msi)
    if (!this.#irqchip || msi.flags !== 0)
      throw refuse('EINVAL', 'no local APIC takes this message')
    return this.interrupts.message({
      addressLow: msi.address_lo,
      addressHigh: msi.address_hi,
      data: msi.data,
    })
  }

  #setRouting(arg: number, caller: Process): number {
    const { nr, flags } = copyIn(caller, arg, uapi.kvm_irq_routing)
    if (!this.#irqchip || nr > MAX_ROUTES || flags !== 0) throw refuse('EINVAL', `${nr} routes`)
    caller.kernel.failures.step('routes')
    const routing = copyIn(caller, arg, uapi.kvm_irq_routing, nr * uapi.kvm_irq_routing_entry.size)
    this.interrupts.set(routing.entries)
    return 0
  }

  #enable(arg: number, caller: Process): number {
    const { cap, flags, args } = copyIn(caller, arg, uapi.kvm_enable_cap)
    const mask = args.get(0)
    const supported = BigInt(extension(uapi.KVM_CAP_EXIT_HYPERCALL))
    if (flags !== 0 || cap !== uapi.KVM_CAP_EXIT_HYPERCALL || (mask & ~supported) !== 0n)
      throw refuse('EINVAL', `capability ${cap} cannot be enabled so`)
    this.#hypercallExits = mask
    return 0
  }

  *#apics() {
    for (const { apic } of this.#vcpus.values()) if (apic !== undefined) yield apic
  }
}
