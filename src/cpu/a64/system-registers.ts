// The system registers of one processing element: MRS and MSR with every check that comes before them, values as MRS
// reads them and as the hardware uses them (sync.ts), access for the host. Rows: system-register-table.ts.

import { CCSIDR } from './id-registers.js'
import { type A64State, EC } from './registers.js'
import type { ContextSync, SynchronisedRegister } from './sync.js'
import {
  keyOf,
  type RegisterAccess,
  SYSTEM_REGISTERS,
  type SystemRegisterName,
  type SystemRegisterRow,
} from './system-register-table.js'
import { type HypervisorTraps, systemSyndrome, trappedFromEl0 } from './traps.js'

/** Behaviour of a register that is not plain storage. What is absent stays plain. */
export interface RegisterBehaviour {
  /** What MRS reads. */
  read?(): bigint
  /** What MSR does; the value is not masked. */
  write?(value: bigint): void
  /** True: the access is UNDEFINED now. */
  refuses?(): boolean
  /** What EL1 may do where that differs from the table. */
  readonly access?: RegisterAccess
  /** What a host's write does where that differs from MSR; false: refused. */
  hostWrite?(value: bigint): boolean
}

/** One register of one processing element. */
export class SystemRegister implements SynchronisedRegister {
  readonly name: string
  readonly row: SystemRegisterRow
  value: bigint
  effective: bigint
  behaviour: RegisterBehaviour | undefined
  /** False while nobody provides a register that lives elsewhere. */
  exists: boolean
  /** What a reset gives it: the row's value but for MPIDR_EL1. */
  reset: bigint
  readonly #listeners: (() => void)[] = []

  constructor(name: string, row: SystemRegisterRow) {
    this.name = name
    this.row = row
    this.value = this.effective = this.reset = row.reset
    this.exists = !row.elsewhere
  }

  get use(): SystemRegisterRow['use'] {
    return this.row.use
  }

  /** Calls `listener` whenever the effective value may have changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  changed(): void {
    for (const listener of this.#listeners) listener()
  }

  /** Reads as MRS does, without its checks. */
  read(): bigint {
    return this.behaviour?.read === undefined ? this.value : this.behaviour.read()
  }
}

/** Place of each encoding in the list of registers, plus one. */
const PLACES = new Uint16Array(0x1_0000)
const NAMES = [...SYSTEM_REGISTERS.keys()]
NAMES.forEach((name, i) => {
  PLACES[SYSTEM_REGISTERS.get(name)!.key] = i + 1
})

/** Registers that a host reaches by other ids (core registers, timers), or that have nothing to keep. */
const UNLISTED: ReadonlySet<string> = new Set(
  // biome-ignore format: table
  [
    'SPSR_EL1', 'ELR_EL1', 'SP_EL0', 'SPSel', 'CurrentEL', 'DAIF', 'ISR_EL1', 'CCSIDR_EL1', 'OSDTRRX_EL1', 'OSDTRTX_EL1',
    'OSECCR_EL1', 'MDRAR_EL1', 'OSLAR_EL1', 'OSDLR_EL1', 'DBGPRCR_EL1', 'DBGCLAIMSET_EL1', 'DBGCLAIMCLR_EL1',
    'DBGAUTHSTATUS_EL1', 'MDCCSR_EL0', 'DBGDTR_EL0', 'DBGDTRRX_EL0', 'DCZID_EL0',
  ],
)

/** What becomes of a value that the host writes. */
export type HostWrite = 'done' | 'refused' | 'unknown'

/** The registers of one processing element. */
export class SystemRegisters {
  readonly sync: ContextSync
  readonly traps: HypervisorTraps
  readonly #state: A64State
  readonly #registers: readonly SystemRegister[]
  readonly #sctlr: SystemRegister
  readonly #cntkctl: SystemRegister
  readonly #mdscr: SystemRegister

  constructor(state: A64State, sync: ContextSync, traps: HypervisorTraps) {
    this.#state = state
    this.sync = sync
    this.traps = traps
    this.#registers = [...SYSTEM_REGISTERS].map(([name, row]) => new SystemRegister(name, row))
    this.#sctlr = this.named('SCTLR_EL1')
    this.#cntkctl = this.named('CNTKCTL_EL1')
    this.#mdscr = this.named('MDSCR_EL1')
    this.named('SP_EL0').behaviour = {
      read: () => state.stack(0),
      write: v => state.setStack(0, v),
      refuses: () => state.spsel === 0,
    }
    this.named('SPSel').behaviour = {
      read: () => BigInt(state.spsel),
      write: v => state.setMode(state.el, v & 1n ? 1 : 0),
    }
    this.named('CurrentEL').behaviour = { read: () => BigInt(state.el << 2) }
    this.named('DAIF').behaviour = {
      read: () => BigInt(state.daif << 6),
      write: v => {
        state.daif = Number((v >> 6n) & 15n)
      },
    }
    const csselr = this.named('CSSELR_EL1')
    this.named('CCSIDR_EL1').behaviour = {
      // 0: L1 data, 1: L1 instruction, 2: L2 (bit 0 is instruction)
      read: () => CCSIDR[Number(csselr.value)] ?? 0n,
    }
  }

  /** A register of the table. */
  named(name: SystemRegisterName): SystemRegister {
    return this.at(keyOf(name))!
  }

  /** The register of an encoding, existing or not yet provided; undefined for an unallocated one. */
  at(key: number): SystemRegister | undefined {
    const place = PLACES[key]!
    return place === 0 ? undefined : this.#registers[place - 1]
  }

  /** Puts a register's behaviour in: GIC and timer make theirs exist with it. */
  provide(key: number, behaviour: RegisterBehaviour): void {
    const r = this.at(key)
    if (r === undefined) throw new Error(`no system register 0x${key.toString(16)}`)
    r.behaviour = behaviour
    r.exists = true
  }

  /** MRS. Raises UNDEFINED, or a trap to EL1, on the state. */
  read(key: number, target: number): bigint {
    const r = this.#accessible(key, target, true)
    if (r === undefined) return 0n
    return r.read()
  }

  /** MSR (register). */
  write(key: number, value: bigint, target: number): void {
    const r = this.#accessible(key, target, false)
    if (r !== undefined) this.store(r, value)
  }

  /** Writes as MSR does, after its checks. */
  store(r: SystemRegister, value: bigint): void {
    if (r.behaviour?.write !== undefined) r.behaviour.write(value)
    else this.set(r, (value & r.row.mask) | (r.row.reset & ~r.row.mask))
  }

  /** Gives a register's storage a value; those who use it see that when `sync` says. */
  set(r: SystemRegister, value: bigint): void {
    r.value = value
    this.sync.written(r, this.#state.pc)
  }

  /** Gives a register's storage a value that everybody sees at once: what hardware writes. */
  put(r: SystemRegister, value: bigint): void {
    r.value = r.effective = value
  }

  // ---- the host ----

  /** Encodings of what a host may get, in rising order. */
  list(): number[] {
    return this.#registers
      .filter(r => !r.row.elsewhere && !UNLISTED.has(r.name))
      .map(r => r.row.key)
      .sort((a, b) => a - b)
  }

  /** Reads for the host; undefined where nothing is. */
  hostRead(key: number): bigint | undefined {
    const r = this.at(key)
    return r?.exists === true && r.row.el1 !== '-w' ? r.read() : undefined
  }

  /** Writes for the host, seen at once. Registers that only read take their own value and refuse any other. */
  hostWrite(key: number, value: bigint): HostWrite {
    const r = this.at(key)
    if (r?.exists !== true || r.row.el1 === '-w') return 'unknown'
    if (r.behaviour?.hostWrite !== undefined)
      return r.behaviour.hostWrite(value) ? 'done' : 'refused'
    if (r.row.el1 === 'r-') return value === r.read() ? 'done' : 'refused'
    this.store(r, value)
    this.sync.synchronise()
    return 'done'
  }

  /** Gives an identification register another value, for this processing element, across resets. */
  setId(key: number, value: bigint): void {
    const r = this.at(key)
    if (r?.row.el1 !== 'r-') throw new Error(`no identification register 0x${key.toString(16)}`)
    r.reset = value
    this.put(r, value)
  }

  /** Every stored value that is not its reset value, by name. */
  save(): Record<string, bigint> {
    const saved: Record<string, bigint> = {}
    for (const r of this.#registers) if (r.value !== r.reset) saved[r.name] = r.value
    return saved
  }

  /** Takes values saved before; the rest get their reset values. Names that nobody knows are refused with an Error. */
  restore(saved: Readonly<Record<string, bigint>>): void {
    for (const name of Object.keys(saved)) {
      if (!SYSTEM_REGISTERS.has(name)) throw new Error(`no system register ${name}`)
    }
    for (const r of this.#registers) r.value = r.effective = saved[r.name] ?? r.reset
    this.#tellAll()
  }

  /** Warm reset. What providers keep is theirs. */
  reset(): void {
    this.sync.synchronise()
    for (const r of this.#registers) r.value = r.effective = r.reset
    this.#tellAll()
  }

  #tellAll(): void {
    for (const r of this.#registers) r.changed()
  }

  /** The register, if the access goes through; otherwise the exception is on the state. */
  #accessible(key: number, target: number, read: boolean): SystemRegister | undefined {
    const s = this.#state
    const r = this.at(key)
    if (r === undefined || !r.exists) {
      s.undefined()
      return undefined
    }
    const { row } = r
    const access = s.el === 0 ? row.el0 : (r.behaviour?.access ?? row.el1)
    if ((read ? access[0] !== 'r' : access[1] !== 'w') || r.behaviour?.refuses?.() === true) {
      s.undefined()
      return undefined
    }
    if (row.group === '') return r
    if (s.el === 0 && trappedFromEl0(row.group, this.#el0Controls)) {
      s.raise(EC.SYSTEM, systemSyndrome(key, target, read))
      return undefined
    }
    if (this.traps.register(row.group, !read))
      this.traps.takenSystem(s.pc, key, target, read, r.name)
    return r
  }

  get #el0Controls() {
    return {
      sctlr: Number(this.#sctlr.effective),
      cntkctl: Number(this.#cntkctl.read()),
      mdscr: Number(this.#mdscr.effective),
    }
  }
}
