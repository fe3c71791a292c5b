// The VMM's side of KVM on arm64: one VM with a GICv3 and an ITS, one vCPU at EL1, and the loop around KVM_RUN.

import { ErrnoError } from '../../base/errno.js'
import {
  KVM_ARM_IRQ_TYPE_SHIFT,
  KVM_ARM_IRQ_TYPE_SPI,
  KVM_ARM_PREFERRED_TARGET,
  KVM_ARM_VCPU_INIT,
  KVM_ARM_VCPU_PSCI_0_2,
  KVM_CREATE_DEVICE,
  KVM_CREATE_VCPU,
  KVM_CREATE_VM,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_TYPE_ARM_VGIC_ITS,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  KVM_EXIT_INTR,
  KVM_EXIT_MMIO,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_IRQ_LINE,
  KVM_MSI_VALID_DEVID,
  KVM_REG_ARM_CORE,
  KVM_REG_ARM64,
  KVM_REG_SIZE_U64,
  KVM_RUN,
  KVM_SET_DEVICE_ATTR,
  KVM_SET_ONE_REG,
  KVM_SET_USER_MEMORY_REGION,
  KVM_SIGNAL_MSI,
  KVM_VGIC_ITS_ADDR_TYPE,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  kvm_create_device,
  kvm_device_attr,
  kvm_irq_level,
  kvm_msi,
  kvm_one_reg,
  kvm_regs,
  kvm_run,
  kvm_userspace_memory_region,
  kvm_vcpu_init,
} from '../../cpu/kvm/uapi/arm64.js'
import type { Sys } from '../../sys/sys.js'
import type { Arm64Entry } from './boot.js'
import { ARM64_MAP } from './map.js'

/** What the guest does outside its memory, for whoever emulates it. */
export interface MmioDevices {
  mmioRead(address: number, size: number): bigint
  mmioWrite(address: number, size: number, value: bigint): void
}

/** Why the vCPU stopped for good, or that it only paused. */
export type Arm64Pause =
  | { readonly kind: 'again' }
  | { readonly kind: 'halted' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'unexpected'; readonly reason: number }

/** EL1h, interrupts and debug exceptions masked. */
const PSTATE_EL1H = 0x3c5n
/** Register ids of the core registers: offsets into struct kvm_regs in units of four bytes. */
const coreRegister = (offset: number): bigint =>
  KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | BigInt(offset / 4)
const { regs: REGS } = kvm_regs.offsets
const X0 = coreRegister(REGS)
const PC = coreRegister(REGS + 32 * 8)
const PSTATE = coreRegister(REGS + 33 * 8)

/** One virtual machine with one vCPU. */
export class Arm64GuestVm {
  readonly #sys: Sys
  readonly #kvm: number
  readonly #vm: number
  readonly #vcpu: number
  readonly #devices: number[] = []
  readonly #run
  readonly #page: Uint8Array
  readonly #slots = new Set<number>()

  constructor(sys: Sys) {
    this.#sys = sys
    this.#kvm = sys.open('/dev/kvm')
    this.#vm = sys.ioctl(this.#kvm, KVM_CREATE_VM, 0)
    this.#vcpu = sys.ioctl(this.#vm, KVM_CREATE_VCPU, 0)
    const length = sys.ioctl(this.#kvm, KVM_GET_VCPU_MMAP_SIZE)
    this.#page = sys.mmap({ fd: this.#vcpu, offset: 0n, length }).bytes
    this.#run = kvm_run.at(this.#page)
    const target = kvm_vcpu_init()
    sys.ioctl(this.#vm, KVM_ARM_PREFERRED_TARGET, target)
    target.features.set(0, 1 << KVM_ARM_VCPU_PSCI_0_2)
    sys.ioctl(this.#vcpu, KVM_ARM_VCPU_INIT, target)
    const gic = this.#createDevice(KVM_DEV_TYPE_ARM_VGIC_V3)
    this.#place(gic, KVM_VGIC_V3_ADDR_TYPE_DIST, ARM64_MAP.GIC_DISTRIBUTOR)
    this.#place(gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, ARM64_MAP.GIC_REDISTRIBUTOR)
    this.#attribute(gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
    const its = this.#createDevice(KVM_DEV_TYPE_ARM_VGIC_ITS)
    this.#place(its, KVM_VGIC_ITS_ADDR_TYPE, ARM64_MAP.GIC_ITS)
    this.#attribute(its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
  }

  /** The vCPU's descriptor and mapped pages, for a debugger. */
  get cpu(): { readonly fd: number; readonly page: Uint8Array } {
    return { fd: this.#vcpu, page: this.#page }
  }

  /** Puts `size` bytes at process address `vaddr` at guest address `gpa`; size 0 takes the slot away. */
  setSlot(slot: number, gpa: number, size: number, vaddr: bigint): void {
    if (size === 0 && !this.#slots.has(slot)) return
    const region = kvm_userspace_memory_region({
      slot,
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(size),
      userspace_addr: vaddr,
    })
    this.#sys.ioctl(this.#vm, KVM_SET_USER_MEMORY_REGION, region)
    if (size === 0) this.#slots.delete(slot)
    else this.#slots.add(slot)
  }

  /** The same for an address of the guest's choosing: false when the kernel refuses it (an overlap, say). */
  trySlot(slot: number, gpa: number, size: number, vaddr: bigint): boolean {
    try {
      this.setSlot(slot, gpa, size, vaddr)
      return true
    } catch (error) {
      if (error instanceof ErrnoError) return false
      throw error
    }
  }

  /** Enters at EL1 with the MMU off. */
  setEntry({ pc, x0 }: Arm64Entry): void {
    this.#setRegister(X0, x0)
    this.#setRegister(PC, pc)
    this.#setRegister(PSTATE, PSTATE_EL1H)
  }

  /** Raises an edge on an SPI. */
  pulse(intid: number): void {
    const irq = (KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT) | intid
    for (const level of [1, 0])
      this.#sys.ioctl(this.#vm, KVM_IRQ_LINE, kvm_irq_level({ irq, level }))
  }

  /** Delivers a device's interrupt message. One that the guest's ITS knows nothing of is lost, as on hardware. */
  signalMsi(device: number, address: number, data: number): void {
    const flags = KVM_MSI_VALID_DEVID
    const message = kvm_msi({ address_lo: address, data, flags, devid: device })
    try {
      this.#sys.ioctl(this.#vm, KVM_SIGNAL_MSI, message)
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
    }
  }

  /** Makes KVM_RUN return before the next instruction, once. */
  kick(): void {
    this.#run.immediate_exit = 1
  }

  /** Runs the vCPU until it needs us, and serves what it needs. */
  runOnce(devices: MmioDevices): Arm64Pause {
    try {
      this.#sys.ioctl(this.#vcpu, KVM_RUN)
    } catch (error) {
      if (!(error instanceof ErrnoError) || error.code !== 'EINTR') throw error
      const kicked = this.#run.immediate_exit !== 0
      this.#run.immediate_exit = 0
      return { kind: kicked ? 'again' : 'halted' }
    }
    switch (this.#run.exit_reason) {
      case KVM_EXIT_MMIO:
        this.#mmio(devices)
        return { kind: 'again' }
      case KVM_EXIT_INTR:
        return { kind: 'again' }
      case KVM_EXIT_SYSTEM_EVENT:
        return { kind: 'shutdown' }
      default:
        return { kind: 'unexpected', reason: this.#run.exit_reason }
    }
  }

  close(): void {
    for (const fd of this.#devices) this.#sys.close(fd)
    this.#sys.close(this.#vcpu)
    this.#sys.close(this.#vm)
    this.#sys.close(this.#kvm)
  }

  #mmio(devices: MmioDevices): void {
    const { phys_addr, data, len, is_write } = this.#run.u.mmio
    const address = Number(phys_addr)
    const view = new DataView(data.buffer, data.byteOffset, 8)
    if (is_write)
      devices.mmioWrite(address, len, BigInt.asUintN(8 * len, view.getBigUint64(0, true)))
    else view.setBigUint64(0, devices.mmioRead(address, len), true)
  }

  #createDevice(type: number): number {
    const device = kvm_create_device({ type })
    this.#sys.ioctl(this.#vm, KVM_CREATE_DEVICE, device)
    this.#devices.push(device.fd)
    return device.fd
  }

  #place(device: number, what: number, address: number): void {
    this.#attribute(device, KVM_DEV_ARM_VGIC_GRP_ADDR, what, BigInt(address))
  }

  #attribute(device: number, group: number, attr: number, value?: bigint): void {
    this.#withValue(value, addr =>
      this.#sys.ioctl(
        device,
        KVM_SET_DEVICE_ATTR,
        kvm_device_attr({ group, attr: BigInt(attr), addr }),
      ),
    )
  }

  #setRegister(id: bigint, value: bigint): void {
    this.#withValue(value, addr =>
      this.#sys.ioctl(this.#vcpu, KVM_SET_ONE_REG, kvm_one_reg({ id, addr })),
    )
  }

  // The kernel reads values through a pointer: a page of the VMM's own lends itself for the call.
  #withValue(value: bigint | undefined, call: (addr: bigint) => void): void {
    if (value === undefined) {
      call(0n)
      return
    }
    const page = this.#sys.mmap(4096)
    try {
      page.store(0, 8, value)
      call(page.vaddr)
    } finally {
      this.#sys.munmap(page.vaddr, 4096)
    }
  }
}
