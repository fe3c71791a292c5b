// A host's SEV as the kernel finds it: the firmware, where processors have the C-bit, which kinds of guests there may
// be, and what CPUID says of it all (leaf 8000_001F; APM vol. 3, E.4.17). C.4 row 17.

import type { VirtualClock } from '../../base/clock.js'
import type { TraceBus } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { CpuidEntry } from '../x86/cpuid.js'
import type { CryptoProvider } from './crypto.js'
import { type EncryptionBit, guestBits } from './encryption.js'
import { SevFirmware } from './firmware.js'

/** What a machine may say of its SEV. Everything has a default. */
export interface SevOptions {
  /** Bit of a table entry that asks for encryption. Default 47. */
  readonly cBit?: number
  /** Physical address bits that guests lose. Default 5, which leaves 47. */
  readonly reduction?: number
  /** Highest ASID. Default 15. */
  readonly asids?: number
  /** Lowest ASID of a guest whose register state is not encrypted. Default 1: there are no others. */
  readonly minPlainAsid?: number
  /** Whether VMs of type 4 can be made. Default false. */
  readonly snp?: boolean
  /** Any text: every key comes from it. */
  readonly seed?: string
  /** Who computes; pure JavaScript by default. */
  readonly crypto?: CryptoProvider
}

/** One host's SEV. */
export interface SevPlatform {
  readonly firmware: SevFirmware
  readonly bit: EncryptionBit
  /** Whether guests with encrypted register state have ASIDs. */
  readonly es: boolean
  readonly snp: boolean
}

/** Builds a host's SEV. RangeError for options that contradict each other. */
export function createSevPlatform(
  options: SevOptions,
  host: {
    readonly memory: AddressSpace
    readonly clock: VirtualClock
    readonly trace: TraceBus
    readonly addressBits: number
  },
): SevPlatform {
  const { cBit = 47, reduction = 5, minPlainAsid = 1, snp = false, seed = '', ...rest } = options
  const bit = { cBit, reduction }
  guestBits(bit, host.addressBits)
  const firmware = new SevFirmware({
    ...rest,
    ...host,
    minPlainAsid,
    seed: new TextEncoder().encode(seed),
  })
  return { firmware, bit, es: minPlainAsid > 1, snp }
}

const HIGHEST_LEAF = 0x8000_0000
const SEV_LEAF = 0x8000_001f
/** EAX of the leaf. */
const FEATURE = { SEV: 1 << 1, ES: 1 << 3, SNP: 1 << 4 } as const

/** A host's CPUID leaves with those that tell of its SEV. */
export function withSevLeaves(
  leaves: readonly CpuidEntry[],
  { firmware, bit, es, snp }: SevPlatform,
): readonly CpuidEntry[] {
  const eax = FEATURE.SEV | (es ? FEATURE.ES : 0) | (snp ? FEATURE.SNP : 0)
  const ebx = bit.cBit | (bit.reduction << 6)
  const { max, minPlain } = firmware.asids
  const sev = { leaf: SEV_LEAF, subleaf: 0, indexed: false, eax, ebx, ecx: max, edx: minPlain }
  const known = leaves.map(l =>
    l.leaf === HIGHEST_LEAF && l.eax < SEV_LEAF ? { ...l, eax: SEV_LEAF } : l,
  )
  return [...known, sev]
}
