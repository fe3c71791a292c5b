// A VM's GICv3 on its way into being: created, told its size and its places, initialised, mapped with the first KVM_RUN
// (Documentation of KVM's API, devices/arm-vgic-v3 and arm-vgic-its). The controller itself is ../../gic; the device
// files through which this is told are vgic-device.ts and its-device.ts.

import { PAGE_SIZE } from '../../../base/addr.js'
import type { ErrnoName } from '../../../base/errno.js'
import type { AddressSpace, MmioTarget } from '../../../mem/address-space.js'
import { Gic } from '../../gic/gic.js'
import { GIC_FRAME, GITS_TRANSLATER, ITS_SIZE, REDISTRIBUTOR_SIZE } from '../../gic/registers.js'
import { refuse } from '../arguments.js'
import type { IrqTarget, Message } from '../irq-routing.js'
import { KVM_MSI_VALID_DEVID } from '../uapi/common.js'
import type { Arm64Vm } from './vm.js'

/** SGIs, PPIs and SPIs when nobody says how many. */
const DEFAULT_INTERRUPTS = 256
const PRIVATE = 32
const MAX_INTERRUPTS = 1023
/** Pins of KVM_IRQ_ROUTING_IRQCHIP: the SPIs there can be. */
const PINS = 1020 - PRIVATE

/** Redistributors of some vCPUs at an address; `count` 0 is all of them. */
interface RedistributorRegion {
  readonly base: number
  readonly count: number
}

/** An ITS that the owner created. */
export interface ItsPlace {
  base: number | undefined
}

/** The interrupt controller of a VM, from KVM_CREATE_DEVICE on. */
export class Vgic implements IrqTarget {
  readonly messageFlags = KVM_MSI_VALID_DEVID
  readonly #vm: Arm64Vm
  /** Whether KVM_CREATE_DEVICE made it. */
  created = false
  #interrupts: number | undefined
  #distributor: number | undefined
  readonly #regions: RedistributorRegion[] = []
  #its: ItsPlace | undefined
  #gic: Gic | undefined
  #mapped = false

  constructor(vm: Arm64Vm) {
    this.#vm = vm
  }

  /** The controller; undefined until it is initialised. */
  get gic(): Gic | undefined {
    return this.#gic
  }

  /** Whether KVM_CREATE_DEVICE made an ITS: messages must then name their device. */
  get hasIts(): boolean {
    return this.#its !== undefined
  }

  /** KVM_DEV_ARM_VGIC_GRP_NR_IRQS: 32 until told or initialised. */
  get interrupts(): number {
    return this.#interrupts ?? PRIVATE
  }

  /** EINVAL for a number that no GIC has, EBUSY once there is one. */
  setInterrupts(n: number): void {
    if (n < PRIVATE + 32 || n > MAX_INTERRUPTS || n % 32 !== 0)
      throw refuse('EINVAL', `${n} interrupts`)
    if (this.#interrupts !== undefined) throw refuse('EBUSY', 'the number of interrupts is fixed')
    this.#interrupts = n
  }

  get distributor(): number | undefined {
    return this.#distributor
  }

  /** EEXIST, EINVAL (alignment), E2BIG. */
  setDistributor(address: bigint): void {
    this.#checkRange(this.#distributor, address, BigInt(GIC_FRAME))
    this.#distributor = Number(address)
  }

  /** Regions of redistributors, in the order they were given. */
  get regions(): readonly RedistributorRegion[] {
    return this.#regions
  }

  /** `count` 0: one region for all, before which there may be none. EINVAL, EEXIST, E2BIG. */
  addRegion(index: number, address: bigint, count: number): void {
    const size = BigInt((count === 0 ? this.#vm.vcpus.size : count) * REDISTRIBUTOR_SIZE)
    if (address + size > 1n << 64n) throw refuse('EINVAL', 'redistributors beyond all addresses')
    const last = this.#regions.at(-1)
    if (last === undefined ? index !== 0 : count === 0 && last.count !== 0)
      throw refuse('EINVAL', `redistributor region ${index}`)
    if (last !== undefined && count === 0) throw refuse('EEXIST', 'redistributors have their place')
    if (last !== undefined && (last.count === 0 || index !== this.#regions.length))
      throw refuse('EINVAL', `redistributor region ${index} after ${this.#regions.length}`)
    const end = address + size
    const distributor = this.#distributor
    if (count === 0 && distributor !== undefined)
      if (address < BigInt(distributor + GIC_FRAME) && BigInt(distributor) < end)
        throw refuse('EINVAL', 'redistributors over the distributor')
    for (const r of this.#regions)
      if (address < BigInt(r.base + this.#sizeOf(r)) && BigInt(r.base) < end)
        throw refuse('EINVAL', 'redistributor regions overlap')
    this.#checkRange(undefined, address, size)
    this.#regions.push({ base: Number(address), count })
  }

  /** Makes an ITS, which still has to be placed. EBUSY: there is one, and one is what a VM can have here. */
  createIts(): ItsPlace {
    if (this.#its !== undefined) throw refuse('EBUSY', 'the VM has its ITS')
    this.#its = { base: undefined }
    this.#gic?.addIts()
    return this.#its
  }

  /** EEXIST, EINVAL, E2BIG; EBUSY where the guest has something else. */
  placeIts(its: ItsPlace, address: bigint): void {
    this.#checkRange(its.base, address, BigInt(ITS_SIZE))
    its.base = Number(address)
    if (this.#gic !== undefined) this.#mapIts()
  }

  /** KVM_DEV_ARM_VGIC_CTRL_INIT; a second one does nothing. */
  initialise(): void {
    if (this.#gic !== undefined) return
    this.#interrupts ??= DEFAULT_INTERRUPTS
    const { memory, vcpus } = this.#vm
    const its = this.#its !== undefined
    this.#gic = new Gic({ memory, interrupts: this.#interrupts, its })
    for (const vcpu of vcpus.values()) vcpu.processor.connect(this.#gic.addProcessor(vcpu.affinity))
    if (this.#its?.base !== undefined) this.#mapIts()
  }

  /** What the first KVM_RUN of a VM does: ENXIO (a place is missing), EINVAL (overlap), EBUSY (not initialised). */
  map(): void {
    if (this.#mapped) return
    const frames = this.#redistributors()
    const distributor = this.#distributor
    if (frames.length < this.#vm.vcpus.size) throw refuse('ENXIO', 'a redistributor has no place')
    if (distributor === undefined) throw refuse('ENXIO', 'the distributor has no place')
    const overlap = (at: number) =>
      at < distributor + GIC_FRAME && distributor < at + REDISTRIBUTOR_SIZE
    if (frames.some(overlap)) throw refuse('EINVAL', 'frames of the GIC overlap')
    if (this.#gic === undefined) throw refuse('EBUSY', 'the GIC is not initialised')
    for (const at of frames) this.#free(at, REDISTRIBUTOR_SIZE)
    this.#free(distributor, GIC_FRAME)
    this.#place(distributor, GIC_FRAME, this.#gic.distributor, 'distributor')
    for (const [i, { redistributor }] of this.#gic.processors.entries())
      this.#place(frames[i]!, REDISTRIBUTOR_SIZE, redistributor, `redistributor ${i}`)
    this.#mapped = true
  }

  // ---- what routes see ----

  get present(): boolean {
    return this.created
  }

  /** A message reaches the ITS at whose doorbell it is written, and names its device. */
  message({ addressLow, addressHigh, data, device }: Message): number | ErrnoName {
    if (this.#its === undefined) return 'ENODEV'
    const base = this.#its.base
    const address = addressHigh * 2 ** 32 + addressLow
    const its = this.#gic?.its
    if (device === undefined || base === undefined || address !== base + GITS_TRANSLATER)
      return 'EINVAL'
    const outcome = its?.translate(device, data) ?? 'disabled'
    return outcome === 'disabled' ? 'EBUSY' : outcome === 'delivered' ? 1 : 0
  }

  hasPin(irqchip: number, pin: number): boolean {
    return irqchip === 0 && pin < PINS
  }

  pulse(_irqchip: number, pin: number): void {
    this.#gic?.setSpi(pin + PRIVATE, true)
    this.#gic?.setSpi(pin + PRIVATE, false)
  }

  /** Without routes, an interrupt number is an SPI's. */
  defaultPin(gsi: number): number | undefined {
    return gsi < this.interrupts - PRIVATE ? gsi : undefined
  }

  #sizeOf({ count }: RedistributorRegion): number {
    return (count === 0 ? this.#vm.vcpus.size : count) * REDISTRIBUTOR_SIZE
  }

  // Addresses of redistributors, one for each vCPU as far as regions reach.
  #redistributors(): number[] {
    const frames: number[] = []
    const { size } = this.#vm.vcpus
    for (const { base, count } of this.#regions)
      for (let i = 0; frames.length < size && (count === 0 || i < count); i++)
        frames.push(base + i * REDISTRIBUTOR_SIZE)
    return frames
  }

  #checkRange(now: number | undefined, address: bigint, size: bigint): void {
    if (now !== undefined) throw refuse('EEXIST', 'it has its place')
    if (address % BigInt(GIC_FRAME) !== 0n || address + size > 1n << 64n)
      throw refuse('EINVAL', 'frames lie at multiples of 64 KB')
    if (address + size > 1n << BigInt(this.#vm.addressBits))
      throw refuse('E2BIG', 'frames beyond guest-physical memory')
  }

  #mapIts(): void {
    const { base } = this.#its!
    this.#free(base!, ITS_SIZE)
    this.#place(base!, ITS_SIZE, this.#gic!.its!, 'ITS')
  }

  #free(base: number, size: number): void {
    const { memory } = this.#vm
    for (let at = base; at < base + size; at += PAGE_SIZE)
      if (memory.ramAt(at) !== undefined || memory.mmioAt(at) !== undefined)
        throw refuse('EBUSY', 'there is something where the GIC is to be')
  }

  #place(base: number, size: number, target: MmioTarget, name: string): void {
    const memory: AddressSpace = this.#vm.memory
    memory.addMmio(base, size, target, name)
  }
}
