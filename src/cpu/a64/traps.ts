// Who may take an access away from the instruction that makes it: EL1 from EL0 (SCTLR_EL1, CNTKCTL_EL1, MDSCR_EL1,
// CPACR_EL1), and the hypervisor from both by HCR_EL2, MDCR_EL2 and CPTR_EL2 (DDI 0487, D1.3.6, D24.2).
// There is no guest at EL2: those three registers are configuration, and a trap to EL2 ends in `HypervisorTraps`, which
// emulates the access as KVM does. What decides MDCR_EL2 is debug-owner.ts.

import type { TraceEvents, TracePoint } from '../../base/trace.js'
import './trace.js'
import { EC } from './registers.js'
import type { RegisterGroup } from './system-register-table.js'

/** Bits of HCR_EL2 that trap. */
// biome-ignore format: table
export const HCR = {
  TWI: 1 << 13, TWE: 1 << 14, TID1: 1 << 16, TID2: 1 << 17, TID3: 1 << 18, TSC: 1 << 19, TIDCP: 1 << 20, TACR: 1 << 21,
  TSW: 1 << 22, TPCP: 1 << 23, TPU: 1 << 24, TTLB: 1 << 25, TVM: 1 << 26, TDZ: 1 << 28, HCD: 1 << 29, TRVM: 1 << 30,
} as const

/** Bits of MDCR_EL2. */
export const MDCR = { TDE: 1 << 8, TDA: 1 << 9, TDOSA: 1 << 10, TDRA: 1 << 11 } as const

/** Bits of CPTR_EL2. */
export const CPTR = { TFP: 1 << 10, TCPAC: 1 << 31 } as const

/** HCR_EL2 as KVM has it for a guest that runs: set/way operations, SMC, ACTLR, identification, implementation defined. */
export const HCR_KVM = HCR.TSC | HCR.TSW | HCR.TIDCP | HCR.TACR | HCR.TID3

/** Bits of CNTKCTL_EL1 that let EL0 in. */
const CNTKCTL = { EL0PCTEN: 1, EL0VCTEN: 2, EL0VTEN: 0x100, EL0PTEN: 0x200 } as const

/** Syndrome of a trapped MSR, MRS or system instruction: register in 16 bits, target register, 1 for reads. */
export const systemSyndrome = (key: number, target: number, read: boolean): number =>
  (((key >> 14) & 3) << 20) |
  ((key & 7) << 17) |
  (((key >> 11) & 7) << 14) |
  (((key >> 7) & 15) << 10) |
  (target << 5) |
  (((key >> 3) & 15) << 1) |
  (read ? 1 : 0)

/** Control bits of EL1 that EL0 accesses are subject to. */
export interface El0Controls {
  readonly sctlr: number
  readonly cntkctl: number
  readonly mdscr: number
}

/** SCTLR_EL1.UCT, UMA; MDSCR_EL1.TDCC. */
const UCT = 1 << 15
const UMA = 1 << 9
const TDCC = 1 << 12

/** Whether an EL0 access to a register of the group is trapped to EL1. */
export function trappedFromEl0(group: RegisterGroup, c: El0Controls): boolean {
  switch (group) {
    case 'ctr':
      return (c.sctlr & UCT) === 0
    case 'daif':
      return (c.sctlr & UMA) === 0
    case 'dcc':
      return (c.mdscr & TDCC) !== 0
    case 'cnt-frq':
      return (c.cntkctl & (CNTKCTL.EL0PCTEN | CNTKCTL.EL0VCTEN)) === 0
    case 'cnt-pct':
      return (c.cntkctl & CNTKCTL.EL0PCTEN) === 0
    case 'cnt-vct':
      return (c.cntkctl & CNTKCTL.EL0VCTEN) === 0
    case 'cnt-p':
      return (c.cntkctl & CNTKCTL.EL0PTEN) === 0
    case 'cnt-v':
      return (c.cntkctl & CNTKCTL.EL0VTEN) === 0
  }
  return false
}

/** The hypervisor's trap configuration of one vCPU, and what happens to what it traps. */
export class HypervisorTraps {
  /** Bits 31:0 of HCR_EL2, MDCR_EL2 and CPTR_EL2, signed. */
  hcr: number = HCR_KVM
  mdcr: number = MDCR.TDOSA | MDCR.TDRA
  cptr = 0
  /** Accesses taken so far. */
  count = 0
  /** Told of each register or instruction taken, before it is emulated. */
  heard: ((register: string) => void) | undefined
  readonly #vcpu: number
  readonly #point: TracePoint<TraceEvents['a64.trap']> | undefined

  constructor(vcpu = 0, point?: TracePoint<TraceEvents['a64.trap']>) {
    this.#vcpu = vcpu
    this.#point = point
  }

  /** Whether an access to a register of the group goes to EL2. */
  register(group: RegisterGroup, write: boolean): boolean {
    switch (group) {
      case 'vm':
        return (this.hcr & (write ? HCR.TVM : HCR.TRVM)) !== 0
      case 'id1':
        return (this.hcr & HCR.TID1) !== 0
      case 'id2':
      case 'ctr':
        return (this.hcr & HCR.TID2) !== 0
      case 'id3':
        return (this.hcr & HCR.TID3) !== 0
      case 'actlr':
        return (this.hcr & HCR.TACR) !== 0
      case 'fp-control':
        return (this.cptr & CPTR.TCPAC) !== 0
      case 'debug':
      case 'dcc':
        return (this.mdcr & MDCR.TDA) !== 0
      case 'os-debug':
        return (this.mdcr & MDCR.TDOSA) !== 0
      case 'debug-rom':
        return (this.mdcr & MDCR.TDRA) !== 0
    }
    return false
  }

  /** Records that the instruction at `pc` was trapped; whoever asked goes on as the hypervisor's emulation of it. */
  taken(pc: bigint, ec: number, iss: number, register: string): void {
    this.count++
    this.heard?.(register)
    if (this.#point?.on) this.#point.emit({ vcpu: this.#vcpu, pc, ec, iss, register })
  }

  /** The same for a system register or instruction. */
  takenSystem(pc: bigint, key: number, target: number, read: boolean, register: string): void {
    this.taken(pc, EC.SYSTEM, systemSyndrome(key, target, read), register)
  }
}
