// KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_GET_REG_LIST (Documentation of KVM's API, 4.68, 4.69, 4.77): core registers,
// system registers, timers, firmware registers, cache geometry. What may be set to what is each kind's own.

import type { Process } from '../../../sys/process.js'
import { CCSIDR } from '../../a64/id-registers.js'
import { copyIn, copyInBytes, copyOut, copyOutBytes, refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { CORE_IDS, coreWriter, readCore } from './core-registers.js'
import {
  checkFirmwareSize,
  FIRMWARE_IDS,
  readFirmware,
  writeFirmware,
} from './firmware-registers.js'
import { registerSize } from './ids.js'
import type { Arm64Processor } from './processor.js'
import {
  cacheOf,
  DEMUX_IDS,
  isAarch32Id,
  isFeatureId,
  isFeatureValue,
  KEY,
  SYSTEM_IDS,
  systemKeyOf,
} from './system-ids.js'

/** Every id of a vCPU, in KVM's order. */
export const REGISTER_LIST: readonly bigint[] = [
  ...CORE_IDS,
  ...FIRMWARE_IDS,
  ...SYSTEM_IDS,
  ...DEMUX_IDS,
]

/** KVM_GET_REG_LIST. E2BIG, with the number written, when there is no room. */
export function registerList(arg: number, caller: Process): number {
  const header = copyIn(caller, arg, uapi.kvm_reg_list)
  const room = header.n
  header.n = BigInt(REGISTER_LIST.length)
  copyOut(caller, arg, header)
  if (room < header.n) throw refuse('E2BIG', `${header.n} registers`)
  copyOut(caller, arg, uapi.kvm_reg_list({ n: header.n, reg: REGISTER_LIST }))
  return 0
}

/** KVM_GET_ONE_REG. EINVAL: not an arm64 id; ENOENT: no such register; EFAULT. */
export function getOneReg(p: Arm64Processor, arg: number, caller: Process): number {
  const { id, addr } = copyIn(caller, arg, uapi.kvm_one_reg)
  copyOutBytes(caller, Number(addr), bytesOf(p, id))
  return 0
}

function bytesOf(p: Arm64Processor, id: bigint): Uint8Array {
  switch (kindOf(id)) {
    case uapi.KVM_REG_ARM_CORE:
      return readCore(p, id)
    case uapi.KVM_REG_ARM_FW:
    case uapi.KVM_REG_ARM_FW_FEAT_BMAP:
      return pack(readFirmware(p.vm, id), 8)
    case uapi.KVM_REG_ARM_DEMUX: {
      const cache = cacheOf(id)
      if (cache === undefined) throw unknown(id)
      return pack(CCSIDR[cache] ?? 0n, 4)
    }
  }
  const key = systemKeyOf(id)
  if (key === undefined) throw unknown(id)
  return pack(readSystem(p, key), 8)
}

/** KVM_SET_ONE_REG. EINVAL: not an arm64 id, or a value that the register does not take; ENOENT; EBUSY: too late; EFAULT. */
export function setOneReg(p: Arm64Processor, arg: number, caller: Process): number {
  const { id, addr } = copyIn(caller, arg, uapi.kvm_one_reg)
  const at = Number(addr)
  switch (kindOf(id)) {
    case uapi.KVM_REG_ARM_CORE: {
      const write = coreWriter(p, id)
      write(copyInBytes(caller, at, registerSize(id)))
      return 0
    }
    case uapi.KVM_REG_ARM_FW:
    case uapi.KVM_REG_ARM_FW_FEAT_BMAP:
      checkFirmwareSize(id)
      writeFirmware(p.vm, id, unpack(copyInBytes(caller, at, 8)))
      return 0
    case uapi.KVM_REG_ARM_DEMUX: {
      const cache = cacheOf(id)
      if (cache === undefined) throw unknown(id)
      if (unpack(copyInBytes(caller, at, 4)) !== (CCSIDR[cache] ?? 0n))
        throw refuse('EINVAL', 'caches are what they are')
      return 0
    }
  }
  const value = unpack(copyInBytes(caller, at, 8))
  const key = systemKeyOf(id)
  if (key === undefined) throw unknown(id)
  writeSystem(p, key, value)
  return 0
}

// Bits 31:16 of an id; EINVAL when those above do not say arm64 and a size.
function kindOf(id: bigint): bigint {
  if ((id & ~uapi.KVM_REG_SIZE_MASK) >> 32n !== uapi.KVM_REG_ARM64 >> 32n)
    throw refuse('EINVAL', `0x${id.toString(16)} is no register id of arm64`)
  return id & uapi.KVM_REG_ARM_COPROC_MASK
}

function readSystem(p: Arm64Processor, key: number): bigint {
  return p.core.registers.hostRead(key) ?? p.kept.get(key) ?? 0n
}

function writeSystem(p: Arm64Processor, key: number, value: bigint): void {
  const { registers } = p.core
  if (key === KEY.CNTPCT) p.timer.physical.count = value
  else if (key === KEY.CNTVCT) p.timer.virtual.count = value
  else if (key === KEY.MPIDR) registers.setId(key, value)
  else if (isFeatureId(key)) writeFeature(p, key, value)
  else {
    const outcome = registers.hostWrite(key, value)
    if (outcome === 'refused')
      throw refuse('EINVAL', `a register that is 0x${readSystem(p, key).toString(16)} for good`)
    if (outcome === 'unknown') p.kept.set(key, value)
  }
}

// Identification is the VM's: it can be lowered while no vCPU has run.
function writeFeature(p: Arm64Processor, key: number, value: bigint): void {
  if (isAarch32Id(key)) return
  const { vm } = p
  const now = readSystem(p, key)
  if (vm.hasRun) {
    if (value !== now) throw refuse('EBUSY', 'the VM has run: its identification stays')
    return
  }
  const most = p.core.registers.at(key)!.row.reset
  if (!isFeatureValue(key, most, value))
    throw refuse('EINVAL', `0x${value.toString(16)} is not within 0x${most.toString(16)}`)
  vm.identification.set(key, value)
  for (const vcpu of vm.vcpus.values()) vcpu.processor.core.registers.setId(key, value)
}

const unknown = (id: bigint) => refuse('ENOENT', `no register 0x${id.toString(16)}`)

function pack(value: bigint, bytes: 4 | 8): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt.asUintN(64, value), true)
  return new Uint8Array(view.buffer, 0, bytes)
}

function unpack(bytes: Uint8Array): bigint {
  return bytes.reduceRight((v, byte) => (v << 8n) | BigInt(byte), 0n)
}
