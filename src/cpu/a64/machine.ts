// What routines (instructions too stateful for operations) work on.

import type { IrOp, Routine } from '../ir/ops.js'
import type { MemoryPort, SystemPort } from './ports.js'
import type { A64State } from './registers.js'

/** A processing element's state with its two ports. */
export interface A64Machine {
  readonly state: A64State
  readonly memory: MemoryPort
  readonly system: SystemPort
}

/** Names a routine. Its operand slots are `op.d`, `op.a`, `op.b`, its constants `op.imm` and `op.big`. */
export function routine(name: string, run: (m: A64Machine, op: IrOp) => void): Routine<A64Machine> {
  return { name, run }
}
