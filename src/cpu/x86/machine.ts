// What routines (instructions too stateful for operations) work on, and the checks many of them share.

import { highHalf as high, lowHalf as low } from '../../base/addr.js'
import type { IrOp, Routine } from '../ir/ops.js'
import type { MemoryPort, SystemPort } from './ports.js'
import { ABORT, CR4, FLAG, SLOT, VECTOR, type X86State } from './registers.js'

/** A processor's state with its two ports. */
export interface X86Machine {
  readonly state: X86State
  readonly memory: MemoryPort
  readonly system: SystemPort
}

/** Names a routine. Its operand slots are `op.d`, `op.a`, `op.b`, its constant `op.imm`. */
export function routine(name: string, run: (m: X86Machine, op: IrOp) => void): Routine<X86Machine> {
  return { name, run }
}

export { high, low }

/** Whether bits 63:47 (63:56 with LA57) are equal (SDM vol. 1, 3.3.7.1). */
export function isCanonical(s: X86State, v: bigint): boolean {
  const bits = s.cr4 & CR4.LA57 ? 57 : 48
  return BigInt.asUintN(64, BigInt.asIntN(bits, v)) === v
}

/** Whether CPL may change IF and use ports without the bitmap. */
export const hasIoPrivilege = (s: X86State): boolean => s.cpl <= (s.flags & FLAG.IOPL) >> 12

/** #GP(0). */
export const generalProtection = (s: X86State): void => s.raise(VECTOR.GP, 0)

/** Reads 1 to 8 bytes as a number of 64 bits; zero when it aborts. */
export function loadValue(m: X86Machine, at: bigint, size: number, access: number): bigint {
  if (size < 8) return BigInt(m.memory.load(high(at), low(at), size, access) >>> 0)
  const t = SLOT.SCRATCH
  m.state.r64[t] = 0n
  m.memory.load64(high(at), low(at), access, m.state.r32, 2 * t)
  return m.state.r64[t]!
}

/** Writes 1 to 8 bytes. */
export function storeValue(
  m: X86Machine,
  at: bigint,
  size: number,
  v: bigint,
  access: number,
): void {
  if (size < 8) m.memory.store(high(at), low(at), size, low(v), access)
  else m.memory.store64(high(at), low(at), high(v), low(v), access)
}

export const aborted = (m: X86Machine): boolean => m.state.abort !== ABORT.NONE
