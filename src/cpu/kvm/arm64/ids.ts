// Ids of registers for KVM_GET_ONE_REG: architecture, size, kind and number in 64 bits (Documentation of KVM's API, 4.68).

import * as uapi from '../uapi/arm64.js'

/** Bytes that an id says its register has. */
export const registerSize = (id: bigint): number =>
  2 ** Number((id & uapi.KVM_REG_SIZE_MASK) >> 52n)

/** Id of a system register by its key, which has op0, op1, CRn, CRm and op2 in 16 bits. */
export const systemId = (key: number): bigint =>
  uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | BigInt(key)
