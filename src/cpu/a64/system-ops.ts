// System instructions: TLB invalidation, cache maintenance, address translation (DDI 0487, C5.3 to C5.5).
// There are no caches, so maintenance has no effect but the faults and traps that it is architected to have.

import { highHalf, lowHalf } from '../../base/addr.js'
import { ACCESS_READ, ACCESS_USER, ACCESS_WRITE } from '../../paging/walk.js'
import type { ShareabilityDomain } from './domain.js'
import { ZVA_BLOCK } from './id-registers.js'
import { DATA_ABORT, type Mmu } from './mmu.js'
import { ACCESS, type MemoryPort, systemKey } from './ports.js'
import { FSC } from './regime.js'
import { type A64State, ABORT, EC } from './registers.js'
import { SCTLR } from './system-register-table.js'
import type { SystemRegister, SystemRegisters } from './system-registers.js'
import type { Tlb } from './tlb.js'
import { HCR, type HypervisorTraps, systemSyndrome } from './traps.js'

type Kind =
  | 'tlb-all'
  | 'tlb-va'
  | 'tlb-asid'
  | 'tlb-va-any'
  | 'cache-all'
  | 'cache-way'
  | 'cache-va'
  | 'cache-invalidate'
  | 'zero'
  | 'at'

interface Row {
  readonly name: string
  readonly kind: Kind
  /** Bit of HCR_EL2 that takes it away. */
  readonly trap: number
  /** Bit of SCTLR_EL1 that lets EL0 use it; 0: UNDEFINED at EL0. */
  readonly el0: number
  /** TLBI: on every processing element. AT: for a write (1), as EL0 (2). */
  readonly variant: number
}

/** Invalidations of the Inner Shareable domain. */
const IS = 1
const AS_WRITE = 1
/** Bytes that DC ZVA clears, and of a cache line. */
const BLOCK = 1 << ZVA_BLOCK
const AS_EL0 = 2

const entry = (
  name: string,
  [op1, crm, op2]: readonly [number, number, number],
  kind: Kind,
  trap: number,
  el0 = 0,
  variant = 0,
): readonly [number, Row] => {
  const crn = kind.startsWith('tlb') ? 8 : 7
  return [systemKey(1, op1, crn, crm, op2), { name, kind, trap, el0, variant }]
}

// The last-level forms (VALE1, VAALE1) have their own names and the same effect: tlb.ts holds nothing else.
// biome-ignore format: table
const OPERATIONS: ReadonlyMap<number, Row> = new Map([
  entry('TLBI VMALLE1IS', [0, 3, 0],  'tlb-all',    HCR.TTLB, 0, IS),
  entry('TLBI VAE1IS',    [0, 3, 1],  'tlb-va',     HCR.TTLB, 0, IS),
  entry('TLBI ASIDE1IS',  [0, 3, 2],  'tlb-asid',   HCR.TTLB, 0, IS),
  entry('TLBI VAAE1IS',   [0, 3, 3],  'tlb-va-any', HCR.TTLB, 0, IS),
  entry('TLBI VALE1IS',   [0, 3, 5],  'tlb-va',     HCR.TTLB, 0, IS),
  entry('TLBI VAALE1IS',  [0, 3, 7],  'tlb-va-any', HCR.TTLB, 0, IS),
  entry('TLBI VMALLE1',   [0, 7, 0],  'tlb-all',    HCR.TTLB),
  entry('TLBI VAE1',      [0, 7, 1],  'tlb-va',     HCR.TTLB),
  entry('TLBI ASIDE1',    [0, 7, 2],  'tlb-asid',   HCR.TTLB),
  entry('TLBI VAAE1',     [0, 7, 3],  'tlb-va-any', HCR.TTLB),
  entry('TLBI VALE1',     [0, 7, 5],  'tlb-va',     HCR.TTLB),
  entry('TLBI VAALE1',    [0, 7, 7],  'tlb-va-any', HCR.TTLB),
  entry('IC IALLUIS',     [0, 1, 0],  'cache-all',  HCR.TPU),
  entry('IC IALLU',       [0, 5, 0],  'cache-all',  HCR.TPU),
  entry('IC IVAU',        [3, 5, 1],  'cache-va',   HCR.TPU, SCTLR.UCI),
  entry('DC IVAC',        [0, 6, 1],  'cache-invalidate', HCR.TPCP),
  entry('DC ISW',         [0, 6, 2],  'cache-way',  HCR.TSW),
  entry('DC CSW',         [0, 10, 2], 'cache-way',  HCR.TSW),
  entry('DC CISW',        [0, 14, 2], 'cache-way',  HCR.TSW),
  entry('DC CVAC',        [3, 10, 1], 'cache-va',   HCR.TPCP, SCTLR.UCI),
  entry('DC CVAU',        [3, 11, 1], 'cache-va',   HCR.TPU, SCTLR.UCI),
  entry('DC CIVAC',       [3, 14, 1], 'cache-va',   HCR.TPCP, SCTLR.UCI),
  entry('DC ZVA',         [3, 4, 1],  'zero',       HCR.TDZ, SCTLR.DZE),
  entry('AT S1E1R',       [0, 8, 0],  'at',         0),
  entry('AT S1E1W',       [0, 8, 1],  'at',         0, 0, AS_WRITE),
  entry('AT S1E0R',       [0, 8, 2],  'at',         0, 0, AS_EL0),
  entry('AT S1E0W',       [0, 8, 3],  'at',         0, 0, AS_EL0 | AS_WRITE),
])

/** Bits of PAR_EL1 (D24.2). */
const PAR = { F: 1n, NS: 1n << 9n, RES1: 1n << 11n, ADDRESS: 0xffff_ffff_f000n } as const

/** What system instructions work on. `memory` is what data accesses go through at the moment. */
export interface SystemOperationParts {
  readonly state: A64State
  readonly registers: SystemRegisters
  readonly traps: HypervisorTraps
  readonly mmu: Mmu
  readonly domain: ShareabilityDomain
  memory(): MemoryPort
}

/** System instructions of one processing element. */
export class SystemOperations {
  readonly #parts: SystemOperationParts
  readonly #sctlr: SystemRegister
  readonly #tcr: SystemRegister
  readonly #par: SystemRegister
  readonly #zeros = new Int32Array(4)

  constructor(parts: SystemOperationParts) {
    this.#parts = parts
    this.#sctlr = parts.registers.named('SCTLR_EL1')
    this.#tcr = parts.registers.named('TCR_EL1')
    this.#par = parts.registers.named('PAR_EL1')
  }

  /** Executes SYS; UNDEFINED, traps and faults are raised on the state. */
  execute(key: number, value: bigint, target: number): void {
    const { state, traps } = this.#parts
    const row = OPERATIONS.get(key)
    if (row === undefined || (state.el === 0 && row.el0 === 0)) {
      state.undefined()
      return
    }
    if (state.el === 0 && (Number(this.#sctlr.effective) & row.el0) === 0) {
      state.raise(EC.SYSTEM, systemSyndrome(key, target, false))
      return
    }
    if ((traps.hcr & row.trap) !== 0) traps.takenSystem(state.pc, key, target, false, row.name)
    const scope = scopeOf(row.kind, value, (this.#tcr.effective >> 36n) & 1n ? 0xffff : 0xff)
    if (scope !== undefined) this.#invalidate(scope, row.variant === IS)
    else if (row.kind === 'at') this.#translate(value, row.variant)
    else if (row.kind === 'zero') this.#zero(value)
    else if (row.kind === 'cache-va') this.#maintain(value, state.el === 0 ? ACCESS.READ : 0)
    else if (row.kind === 'cache-invalidate') this.#maintain(value, ACCESS.WRITE)
  }

  #invalidate(scope: (tlb: Tlb) => void, broadcast: boolean): void {
    if (broadcast) this.#parts.domain.broadcast(scope)
    else scope(this.#parts.mmu.tlb)
  }

  // By VA: nothing happens to memory, but the address must translate. Discarding a line counts as writing it.
  #maintain(value: bigint, access: number): void {
    const { state, mmu } = this.#parts
    const hi = highHalf(value)
    const lo = lowHalf(value)
    mmu.translate(hi, lo, access)
    if (access === ACCESS.WRITE && state.abort === ABORT.NONE)
      this.#parts.memory().translate(hi, lo & -BLOCK, access, BLOCK)
    if (state.abort === ABORT.EXCEPTION) state.iss |= DATA_ABORT.CM | DATA_ABORT.WNR
  }

  // All or nothing: the block lies in one page. Faults report the address as it was given.
  #zero(value: bigint): void {
    const { state, mmu } = this.#parts
    const hi = highHalf(value)
    const lo = lowHalf(value)
    if (mmu.translate(hi, lo, ACCESS.WRITE) < 0) return
    if (mmu.leadsToDevice(hi, lo)) {
      mmu.abort(hi, lo, ACCESS.WRITE, FSC.ALIGNMENT)
      return
    }
    const memory = this.#parts.memory()
    const start = lo & -BLOCK
    memory.translate(hi, start, ACCESS.WRITE, BLOCK)
    for (let at = 0; at < BLOCK && state.abort === ABORT.NONE; at += 16)
      memory.store128(hi, start + at, ACCESS.WRITE, this.#zeros, 0)
  }

  // Into PAR_EL1; only a table that cannot be read is an exception.
  #translate(value: bigint, variant: number): void {
    const { registers, mmu, state } = this.#parts
    const { regime } = mmu
    const access =
      ((variant & AS_WRITE) !== 0 ? ACCESS_WRITE : ACCESS_READ) |
      ((variant & AS_EL0) !== 0 ? ACCESS_USER : 0)
    const failed = regime.translate(regime.untagged(highHalf(value)), lowHalf(value), access)
    if (failed !== 0 && ((-1 - failed) & 0x3c) === FSC.EXTERNAL_ON_WALK) {
      mmu.abort(highHalf(value), lowHalf(value), ACCESS.READ, -1 - failed)
      state.iss |= DATA_ABORT.CM | DATA_ABORT.WNR
      return
    }
    const result =
      failed === 0
        ? PAR.NS |
          (BigInt(regime.output) & PAR.ADDRESS) |
          (BigInt(regime.attribute) << 56n) |
          (BigInt(regime.shareability) << 7n)
        : PAR.F | (BigInt(-1 - failed) << 1n)
    registers.put(this.#par, result | PAR.RES1)
  }
}

/** What a TLB invalidation drops; undefined for other instructions. */
function scopeOf(kind: Kind, value: bigint, asids: number): ((tlb: Tlb) => void) | undefined {
  const asid = Number(value >> 48n) & asids
  // VA[55:12] in bits 43:0, with its sign above.
  const va = BigInt.asIntN(56, value << 12n)
  const hi = highHalf(va)
  const lo = lowHalf(va)
  switch (kind) {
    case 'tlb-all':
      return tlb => tlb.flush()
    case 'tlb-asid':
      return tlb => tlb.flushAsid(asid)
    case 'tlb-va':
      return tlb => tlb.flushPage(hi, lo, asid)
    case 'tlb-va-any':
      return tlb => tlb.flushPage(hi, lo, -1)
  }
  return undefined
}
