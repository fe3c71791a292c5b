// The attributes of a GICv3 (Documentation of KVM's API, devices/arm-vgic-v3): its places, its size, its state.

import type { Process } from '../../../sys/process.js'
import { ICC_STATE } from '../../gic/system-registers.js'
import { refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { type Attribute, type Attributes, noAttribute, numberIn, numberOut } from './attributes.js'
import type { Vgic } from './vgic.js'
import type { Arm64Vm } from './vm.js'

/** What an address reads while it is not set. */
const UNSET = 0xffff_ffff_ffff_ffffn
/** Registers of the distributor that may be set before the controller is initialised: IIDR, TYPER2. */
const EARLY: ReadonlySet<number> = new Set([0x08, 0x0c])
/** A region's value: index 11:0, base 51:16, count 63:52, flags 15:12. */
const BASE = 0xf_ffff_ffff_0000n

export class VgicDevice implements Attributes {
  readonly #vm: Arm64Vm

  private constructor(vm: Arm64Vm) {
    this.#vm = vm
  }

  /** EEXIST: there is one; EBUSY: a vCPU has run without. */
  static create(vm: Arm64Vm): VgicDevice {
    if (vm.vgic.created) throw refuse('EEXIST', 'the VM has an interrupt controller')
    if ([...vm.vcpus.values()].some(v => v.hasRun)) throw refuse('EBUSY', 'a vCPU has run')
    vm.vgic.created = true
    return new VgicDevice(vm)
  }

  get #vgic(): Vgic {
    return this.#vm.vgic
  }

  has(a: Attribute): void {
    const attr = Number(a.attr)
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        if (
          attr === uapi.KVM_VGIC_V3_ADDR_TYPE_DIST ||
          attr === uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST ||
          attr === uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION
        )
          return
        break
      case uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      case uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      case uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
        if (this.#hasRegister(a)) return
        break
      case uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
        if (lineInfo(a) === 0) return
        break
      case uapi.KVM_DEV_ARM_VGIC_GRP_CTRL:
        if (
          attr === uapi.KVM_DEV_ARM_VGIC_CTRL_INIT ||
          attr === uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES
        )
          return
    }
    throw noAttribute(a)
  }

  get(a: Attribute, caller: Process): void {
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        this.#getAddress(a, caller)
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        numberOut(a, 4, BigInt(this.#vgic.interrupts), caller)
        return
    }
    const wide = a.group === uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS
    numberOut(a, wide ? 8 : 4, this.#access(a), caller)
  }

  set(a: Attribute, caller: Process): void {
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        this.#setAddress(a, caller)
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        this.#vgic.setInterrupts(Number(numberIn(a, 4, caller)))
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_CTRL:
        this.#control(a)
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
        // The value is fetched with the register, after the checks of the processor.
        this.#access(a, () => numberIn(a, 8, caller))
        return
      default: {
        if (!GROUPS.has(a.group)) throw noAttribute(a)
        this.#processor(a)
        const value = numberIn(a, 4, caller)
        this.#access(a, () => value)
      }
    }
  }

  #control(a: Attribute): void {
    switch (Number(a.attr)) {
      case uapi.KVM_DEV_ARM_VGIC_CTRL_INIT:
        this.#vgic.initialise()
        return
      case uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES:
        if (this.#vgic.gic?.writePendingTables() === false)
          throw refuse('EFAULT', 'a pending table is not in guest memory')
        return
    }
    throw noAttribute(a)
  }

  #getAddress(a: Attribute, caller: Process): void {
    const vgic = this.#vgic
    switch (Number(a.attr)) {
      case uapi.KVM_VGIC_V3_ADDR_TYPE_DIST:
        numberOut(a, 8, addressOf(vgic.distributor), caller)
        return
      case uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST:
        numberOut(a, 8, addressOf(vgic.regions[0]?.base), caller)
        return
      case uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: {
        const index = Number(numberIn(a, 8, caller) & 0xfffn)
        const region = vgic.regions[index]
        if (region === undefined) throw refuse('ENOENT', `no redistributor region ${index}`)
        const { base, count } = region
        numberOut(a, 8, (BigInt(count) << 52n) | BigInt(base) | BigInt(index), caller)
        return
      }
      case 0:
      case 1:
        // Addresses of a GICv2: the type is known, this device is another.
        throw refuse('ENXIO', 'the interrupt controller is a GICv3')
    }
    throw noAttribute(a)
  }

  #setAddress(a: Attribute, caller: Process): void {
    const value = numberIn(a, 8, caller)
    switch (Number(a.attr)) {
      case uapi.KVM_VGIC_V3_ADDR_TYPE_DIST:
        this.#vgic.setDistributor(value)
        return
      case uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST:
        this.#vgic.addRegion(0, value, 0)
        return
      case uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: {
        const count = Number(value >> 52n)
        const flags = Number((value >> 12n) & 15n)
        if (count === 0 || flags !== 0) throw refuse('EINVAL', `${count} redistributors`)
        this.#vgic.addRegion(Number(value & 0xfffn), value & BASE, count)
        return
      }
    }
    throw noAttribute(a)
  }

  // The vCPU that an attribute of a processor names; the first one's distributor is everybody's. EINVAL.
  #processor(a: Attribute) {
    const { vcpus } = this.#vm
    const affinity = Number(a.attr >> 32n)
    const found =
      a.group === uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
        ? [...vcpus.values()][0]
        : [...vcpus.values()].find(v => v.affinity === affinity)
    if (found === undefined) throw refuse('EINVAL', `no vCPU with affinity ${affinity}`)
    return found.processor
  }

  #hasRegister(a: Attribute): boolean {
    const { index } = this.#processor(a)
    const { gic } = this.#vgic
    const offset = Number(a.attr & 0xffff_ffffn)
    if (a.group === uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS) return ICC_STATE.has(offset & 0xffff)
    if (offset % 4 !== 0) return false
    if (gic === undefined) return EARLY.has(offset)
    return a.group === uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
      ? gic.distributor.userRead(offset) !== undefined
      : gic.processors[index]!.redistributor.userRead(offset) !== undefined
  }

  // Reads a register, or writes it when `value` is given. A place without a register reads zero and takes anything.
  #access(a: Attribute, value?: () => bigint): bigint {
    if (!GROUPS.has(a.group)) throw noAttribute(a)
    const { index } = this.#processor(a)
    const { gic } = this.#vgic
    const offset = Number(a.attr & 0xffff_ffffn)
    const distributor = a.group === uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
    if (gic === undefined) throw refuse('EBUSY', 'the interrupt controller is not initialised')
    const processor = gic.processors[index]!
    if (a.group === uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS) {
      const key = offset & 0xffff
      const given = value?.()
      if (!ICC_STATE.has(key)) throw refuse('ENOENT', `no register 0x${key.toString(16)}`)
      const register = processor.registers.get(key)!
      if (given !== undefined) register.write!(given)
      return given ?? register.read!()
    }
    if (a.group === uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO) {
      const first = Number(a.attr & 0x3ffn)
      if (lineInfo(a) !== 0 || first % 32 !== 0) throw refuse('EINVAL', `levels from ${first}`)
      if (value === undefined) return BigInt(gic.lines(index, first))
      gic.setLines(index, first, Number(value()))
      return 0n
    }
    const target = distributor ? gic.distributor : processor.redistributor
    if (value === undefined) return BigInt(target.userRead(offset) ?? 0)
    if (target.userWrite(offset, Number(value())) === 'refused')
      throw refuse('EINVAL', `register 0x${offset.toString(16)}`)
    return 0n
  }
}

const GROUPS: ReadonlySet<number> = new Set([
  uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
])

const lineInfo = (a: Attribute): number => Number((a.attr >> 10n) & 0x3f_ffffn)

const addressOf = (base: number | undefined): bigint => (base === undefined ? UNSET : BigInt(base))
