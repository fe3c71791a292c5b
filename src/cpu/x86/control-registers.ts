// What MOV to CR0, CR3, CR4 and CR8 checks and does in 64-bit mode (SDM vol. 3, 2.5 and 4.10.4; vol. 2, "MOV to control
// registers"). Leaving 64-bit mode is refused where the architecture would refuse it, and nowhere else possible.

import type { Mmu } from './mmu.js'
import { CR0, CR4, EFER, type X86State } from './registers.js'

/** CR4 bits that exist here; the rest are reserved. */
export const CR4_DEFINED =
  CR4.TSD |
  CR4.DE |
  CR4.PSE |
  CR4.PAE |
  CR4.MCE |
  CR4.PGE |
  CR4.PCE |
  CR4.OSFXSR |
  CR4.OSXMMEXCPT |
  CR4.UMIP |
  CR4.LA57 |
  CR4.FSGSBASE |
  CR4.PCIDE |
  CR4.SMEP |
  CR4.SMAP
/** CR0 bits that exist; writes to the others are ignored. */
const CR0_DEFINED =
  CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG
/** Bits of CR4 that decide what translations mean, or whose change drops them (4.10.4.1). */
const CR4_PAGING = CR4.PSE | CR4.PAE | CR4.PGE | CR4.LA57 | CR4.PCIDE | CR4.SMEP | CR4.SMAP
const CR3_KEEP = 1n << 63n
/** Bits above the physical address width, bit 63 aside. */
const CR3_RESERVED = 0x7ff0_0000_0000_0000n

/** Whether a CR0 value is consistent in itself: PG needs PE, NW needs CD. */
export const isCr0Valid = (v: bigint): boolean =>
  v >> 32n === 0n &&
  ((v & 0x8000_0000n) === 0n || (v & BigInt(CR0.PE)) !== 0n) &&
  ((v & BigInt(CR0.NW)) === 0n || (v & BigInt(CR0.CD)) !== 0n)

/** Writes a control register; false is #GP(0) and nothing changed. `taskPriority` is told of CR8. */
export function writeControl(
  s: X86State,
  mmu: Mmu,
  n: number,
  v: bigint,
  taskPriority: (cr8: number) => void,
): boolean {
  switch (n) {
    case 0:
      return writeCr0(s, mmu, v)
    case 3:
      return writeCr3(s, mmu, v)
    case 4:
      return writeCr4(s, mmu, v)
    case 8:
      if (v > 15n) return false
      s.cr8 = Number(v)
      taskPriority(s.cr8)
      return true
  }
  return false
}

function writeCr0(s: X86State, mmu: Mmu, v: bigint): boolean {
  if (!isCr0Valid(v)) return false
  const value = (Number(v) & CR0_DEFINED) | CR0.ET
  // In 64-bit mode PG cannot be cleared.
  if ((value & CR0.PG) === 0 && (s.efer & EFER.LMA) !== 0) return false
  const changed = value ^ s.cr0
  s.cr0 = value >>> 0
  if ((changed & (CR0.PG | CR0.WP)) !== 0) mmu.controlsChanged()
  return true
}

function writeCr3(s: X86State, mmu: Mmu, v: bigint): boolean {
  const pcide = (s.cr4 & CR4.PCIDE) !== 0
  if ((v & (CR3_RESERVED | mmu.reservedRoot)) !== 0n || (!pcide && (v & CR3_KEEP) !== 0n))
    return false
  s.cr3 = v & ~CR3_KEEP
  mmu.rootChanged((v & CR3_KEEP) !== 0n)
  return true
}

function writeCr4(s: X86State, mmu: Mmu, v: bigint): boolean {
  if (v >> 32n !== 0n) return false
  const value = Number(v)
  const changed = value ^ s.cr4
  if ((value & ~CR4_DEFINED) !== 0) return false
  if ((s.efer & EFER.LMA) !== 0 && ((value & CR4.PAE) === 0 || (changed & CR4.LA57) !== 0))
    return false
  if ((changed & value & CR4.PCIDE) !== 0 && (s.cr3 & 0xfffn) !== 0n) return false
  s.cr4 = value
  if ((changed & CR4_PAGING) !== 0) mmu.controlsChanged()
  return true
}
