// A processing element's state as plain data: numbers, bigints, arrays and records, which structuredClone and history/
// take as they are. Caches (TLB, decoded code, what debug registers come to) are made again from it.

import { type A64State, SLOT } from './registers.js'

const VECTORS = 32

/** What `A64State` holds beside PSTATE. */
export interface StateSnapshot {
  /** X0 to X30. */
  readonly x: readonly bigint[]
  /** SP_EL0 and SP_EL1. */
  readonly stacks: readonly [bigint, bigint]
  readonly pc: bigint
  /** V0 to V31, low half and high half of each. */
  readonly v: readonly bigint[]
  readonly fpcr: bigint
  readonly fpsr: bigint
  /** The exclusive monitor: address and size, or undefined while it is clear. */
  readonly exclusive: readonly [address: number, size: number] | undefined
}

/** Saved state of an A64 core: system registers by name, those with their reset value left out. */
export interface A64Snapshot extends StateSnapshot {
  /** In SPSR's layout. */
  readonly pstate: number
  readonly registers: Readonly<Record<string, bigint>>
  readonly halted: boolean
  /** The event register of WFE. */
  readonly event: boolean
  /** ISS of a pending SError. */
  readonly serror: number | undefined
}

export function saveState(s: A64State): StateSnapshot {
  return {
    x: [...s.r64.subarray(0, 31)],
    stacks: [s.stack(0), s.stack(1)],
    pc: s.pc,
    v: [...s.r64.subarray(SLOT.V, SLOT.V + 2 * VECTORS)],
    fpcr: s.r64[SLOT.FPCR]!,
    fpsr: s.r64[SLOT.FPSR]!,
    exclusive: s.exclusive ? [s.exclusiveAddress, s.exclusiveSize] : undefined,
  }
}

/** Restores under a PSTATE that is already set. */
export function restoreState(s: A64State, from: StateSnapshot): void {
  s.r64.set(from.x)
  s.r64.set(from.v, SLOT.V)
  s.setStack(0, from.stacks[0])
  s.setStack(1, from.stacks[1])
  s.pc = from.pc
  s.r64[SLOT.FPCR] = from.fpcr
  s.r64[SLOT.FPSR] = from.fpsr
  if (from.exclusive) s.armExclusive(...from.exclusive)
  else s.clearExclusive()
}
