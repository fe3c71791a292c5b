// Firmware registers: which PSCI a VM speaks, which mitigations and services its hypervisor offers (Documentation of
// KVM's API for arm64, "KVM Pseudo-registers"). No mitigation is announced, and no service beyond PSCI.

import { refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { registerSize } from './ids.js'
import type { Arm64Vm } from './vm.js'

/** PSCI versions: major in the upper half. */
export const PSCI_VERSION = { V0_1: 1, V0_2: 2, V1_0: 0x1_0000, V1_1: 0x1_0001 } as const

/** Ids of firmware registers, in KVM's order. */
export const FIRMWARE_IDS: readonly bigint[] = [
  uapi.KVM_REG_ARM_PSCI_VERSION,
  uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1,
  uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2,
  uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3,
  uapi.KVM_REG_ARM_STD_BMAP,
  uapi.KVM_REG_ARM_STD_HYP_BMAP,
  uapi.KVM_REG_ARM_VENDOR_HYP_BMAP,
  uapi.KVM_REG_ARM_VENDOR_HYP_BMAP_2,
]
const KNOWN: ReadonlySet<bigint> = new Set(FIRMWARE_IDS)

/** Level of a mitigation: bits 3:0. Level 0 is "not available", level 1 of the second "unknown", which counts as 0. */
const LEVEL = 0xfn

/** The value of a firmware register; ENOENT. */
export function readFirmware(vm: Arm64Vm, id: bigint): bigint {
  if (!KNOWN.has(id)) throw refuse('ENOENT', `no firmware register 0x${id.toString(16)}`)
  return id === uapi.KVM_REG_ARM_PSCI_VERSION ? BigInt(vm.psciVersion) : 0n
}

/** ENOENT for an id whose size is not that of a firmware register: looked at before the value. */
export function checkFirmwareSize(id: bigint): void {
  if (registerSize(id) !== 8) throw refuse('ENOENT', 'a firmware register has 8 bytes')
}

/** Sets a firmware register; ENOENT, EINVAL. */
export function writeFirmware(vm: Arm64Vm, id: bigint, value: bigint): void {
  if (!KNOWN.has(id)) throw refuse('ENOENT', `no firmware register 0x${id.toString(16)}`)
  if (id === uapi.KVM_REG_ARM_PSCI_VERSION) {
    const old = value === BigInt(PSCI_VERSION.V0_1)
    const known = Object.values(PSCI_VERSION).some(v => BigInt(v) === value)
    if (!known || old === vm.hasFeature(uapi.KVM_ARM_VCPU_PSCI_0_2))
      throw refuse('EINVAL', `PSCI version 0x${value.toString(16)}`)
    vm.psciVersion = Number(value)
    return
  }
  const unknown = id === uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 && value === 1n
  if ((value & ~LEVEL) !== 0n || (value !== 0n && !unknown))
    throw refuse('EINVAL', `firmware register 0x${id.toString(16)}: 0x${value.toString(16)}`)
}
