// What a processor needs to know to work under a guest's key (rules C-24, C-25; APM vol. 2, 15.34): the memory seen
// through the key, where the C-bit is, and how many address bits it leaves.

import type { PrivateMemory } from './private-memory.js'

/** Where a platform has its C-bit, and what that costs (CPUID 8000_001F EBX). */
export interface EncryptionBit {
  /** Bit of a table entry, and of a physical address, that asks for encryption: 32 to 51. */
  readonly cBit: number
  /** Physical address bits that go with it. */
  readonly reduction: number
}

/** One guest's encryption as its processors see it. */
export interface Encryption {
  readonly memory: PrivateMemory
  readonly cBit: number
  /** The C-bit in the high half of an entry. */
  readonly leafBit: number
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number
  /** Bits of CR3 and of entries that are address. */
  readonly addressMask: bigint
}

/** RangeError when the C-bit would lie among the address bits that are left, or above what an entry has. */
export function encryptionOf(
  memory: PrivateMemory,
  { cBit, reduction }: EncryptionBit,
  hostBits: number,
): Encryption {
  const physicalBits = guestBits({ cBit, reduction }, hostBits)
  const leafBit = 1 << (cBit - 32)
  return { memory, cBit, leafBit, physicalBits, addressMask: (1n << BigInt(physicalBits)) - 1n }
}

/** Width of guest-physical addresses that a C-bit leaves of `hostBits`. RangeError as above. */
export function guestBits({ cBit, reduction }: EncryptionBit, hostBits: number): number {
  const left = hostBits - reduction
  if (!Number.isInteger(cBit) || cBit < 32 || cBit > 51 || left > cBit || left <= 32)
    throw new RangeError(`C-bit ${cBit} with ${left} of ${hostBits} address bits`)
  return left
}

/** What an access is for. */
export type AccessKind = 'fetch' | 'table' | 'data'

/**
 * Whether an access goes through the key: fetches and reads of tables always, data always while paging is off, else by
 * the leaf's C-bit.
 */
export const isPrivateAccess = (kind: AccessKind, paging: boolean, leafCBit: boolean): boolean =>
  kind !== 'data' || !paging || leafCBit
