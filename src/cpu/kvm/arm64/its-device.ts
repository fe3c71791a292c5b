// The attributes of an ITS (Documentation of KVM's API, devices/arm-vgic-its). Its tables are in guest memory at all
// times, so that saving and restoring them moves nothing.

import type { Process } from '../../../sys/process.js'
import { refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { type Attribute, type Attributes, noAttribute, numberIn, numberOut } from './attributes.js'
import type { ItsPlace, Vgic } from './vgic.js'

const UNSET = 0xffff_ffff_ffff_ffffn
/** Registers between these are 64 bits wide, the others 32. */
const TYPER = 0x0008
const PIDR4 = 0xffd0

export class ItsDevice implements Attributes {
  readonly #vgic: Vgic
  readonly #place: ItsPlace

  constructor(vgic: Vgic) {
    this.#vgic = vgic
    this.#place = vgic.createIts()
  }

  has(a: Attribute): void {
    const attr = Number(a.attr)
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        if (attr === uapi.KVM_VGIC_ITS_ADDR_TYPE) return
        break
      case uapi.KVM_DEV_ARM_VGIC_GRP_CTRL:
        if (CONTROLS.has(attr)) return
        break
      case uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
        aligned(attr)
        if (this.#vgic.gic?.its?.userRead(attr) !== undefined) return
    }
    throw noAttribute(a)
  }

  get(a: Attribute, caller: Process): void {
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        if (Number(a.attr) !== uapi.KVM_VGIC_ITS_ADDR_TYPE) throw refuse('ENODEV', 'no such place')
        numberOut(a, 8, this.#place.base === undefined ? UNSET : BigInt(this.#place.base), caller)
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS: {
        const value = this.#its(a).userRead(Number(a.attr))
        if (value === undefined) throw noAttribute(a)
        numberOut(a, 8, value, caller)
        return
      }
    }
    throw noAttribute(a)
  }

  set(a: Attribute, caller: Process): void {
    switch (a.group) {
      case uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
        if (Number(a.attr) !== uapi.KVM_VGIC_ITS_ADDR_TYPE) throw refuse('ENODEV', 'no such place')
        this.#vgic.placeIts(this.#place, numberIn(a, 8, caller))
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_CTRL:
        if (!CONTROLS.has(Number(a.attr))) throw noAttribute(a)
        if (Number(a.attr) === uapi.KVM_DEV_ARM_ITS_CTRL_RESET) this.#vgic.gic?.its?.reset()
        return
      case uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS: {
        const value = numberIn(a, 8, caller)
        const its = this.#its(a)
        if (its.userRead(Number(a.attr)) === undefined) throw noAttribute(a)
        if (!its.userWrite(Number(a.attr), value)) throw refuse('EINVAL', 'another ITS’s state')
        return
      }
    }
    throw noAttribute(a)
  }

  // EINVAL: not aligned; ENXIO: not placed, or nothing there to ask.
  #its(a: Attribute) {
    aligned(Number(a.attr))
    const its = this.#vgic.gic?.its
    if (this.#place.base === undefined || its === undefined) throw noAttribute(a)
    return its
  }
}

const CONTROLS: ReadonlySet<number> = new Set([
  uapi.KVM_DEV_ARM_VGIC_CTRL_INIT,
  uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
  uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
  uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
])

function aligned(offset: number): void {
  const step = offset < TYPER || offset >= PIDR4 ? 4 : 8
  if (offset % step !== 0) throw refuse('EINVAL', `offset 0x${offset.toString(16)}`)
}
