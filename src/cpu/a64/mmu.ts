// Memory of an A64 processing element by virtual address: tags, TLB, translation, permission, alignment, and the data and
// instruction aborts they end in (DDI 0487, D8, B2.6). RAM is reached through the TLB; where any other access goes is in
// physical.ts. What tables mean is in regime.ts; watchpoints and strict synchronisation wrap this (watch.ts).

import { join } from '../../base/addr.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { RamRegion } from '../../mem/ram.js'
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  PERM_GLOBAL,
  PERM_USER_WRITE,
  PERM_WRITE,
} from '../../paging/walk.js'
import type { ShareabilityDomain } from './domain.js'
import { type MemorySurroundings, PhysicalAccess } from './physical.js'
import { ACCESS, type MemoryPort } from './ports.js'
import { FSC, Regime } from './regime.js'
import { type A64State, ABORT, EC } from './registers.js'
import { SCTLR } from './system-register-table.js'
import type { SystemRegister, SystemRegisters } from './system-registers.js'
import { Tlb } from './tlb.js'

/** Bits of a data abort's syndrome (D24.2, "ISS encoding for an exception from a Data Abort"). */
export const DATA_ABORT = { WNR: 1 << 6, CM: 1 << 8 } as const

/** Accesses whose address must be a multiple of their size. */
const ALIGNED = ACCESS.ATOMIC | ACCESS.ORDERED | ACCESS.EXCLUSIVE
const WHAT = ACCESS.READ | ACCESS.WRITE | ACCESS.FETCH

/** Parts of an MMU. */
export interface MmuParts {
  readonly state: A64State
  readonly registers: SystemRegisters
  readonly memory: AddressSpace
  readonly domain: ShareabilityDomain
  readonly around: MemorySurroundings
}

/** The memory of one processing element, by virtual address. */
export class Mmu implements MemoryPort {
  storedPage = -1
  storedFirstPage = -1
  readonly tlb = new Tlb()
  readonly regime: Regime
  readonly #state: A64State
  readonly #memory: AddressSpace
  readonly #domain: ShareabilityDomain
  readonly #around: MemorySurroundings
  readonly #physical: PhysicalAccess
  readonly #control: Record<'sctlr' | 'tcr' | 'ttbr0' | 'ttbr1' | 'mair', SystemRegister>
  /** SCTLR_EL1.A. */
  #checksAlignment = false
  readonly #bytes = new Uint8Array(16)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #sized = Array.from({ length: 17 }, (_, n) => this.#bytes.subarray(0, n))

  constructor({ state, registers, memory, domain, around }: MmuParts) {
    this.#state = state
    this.#memory = memory
    this.#domain = domain
    this.#around = around
    this.#physical = new PhysicalAccess(state, memory, around)
    this.#control = {
      sctlr: registers.named('SCTLR_EL1'),
      tcr: registers.named('TCR_EL1'),
      ttbr0: registers.named('TTBR0_EL1'),
      ttbr1: registers.named('TTBR1_EL1'),
      mair: registers.named('MAIR_EL1'),
    }
    this.regime = new Regime(memory, this.#values())
    const { ttbr0, ttbr1, sctlr, tcr, mair } = this.#control
    // A new table base keeps what is cached; the other registers are permitted to be cached with it, and are not.
    for (const r of [ttbr0, ttbr1]) r.onChange(() => this.#configure())
    for (const r of [sctlr, tcr, mair]) r.onChange(() => this.reload())
    this.reload()
  }

  // ---- control ----

  /** Takes the control registers as they are and drops every translation. */
  reload(): void {
    this.tlb.flush()
    this.#configure()
  }

  /** The registers that translating an address goes by now, which is SCTLR_EL1 alone while stage 1 is off. */
  usedFor(hi: number): readonly SystemRegister[] {
    const { sctlr, tcr, mair, ttbr0, ttbr1 } = this.#control
    if (!this.regime.enabled) return [sctlr]
    return [sctlr, tcr, mair, (hi & 0x80_0000) === 0 ? ttbr0 : ttbr1]
  }

  // ---- the port ----

  load(hi: number, lo: number, size: number, access: number): number {
    const i = this.tlb.find(hi, lo)
    if (i >= 0 && (lo & (size - 1)) === 0) {
      const view = this.tlb.reads[i]
      if (view !== undefined && this.#permits(i, access)) {
        const at = this.tlb.offset[i]! + (lo & 4095)
        if (size === 4) return view.getInt32(at, true)
        return size === 1 ? view.getUint8(at) : view.getUint16(at, true)
      }
    }
    this.read(hi, lo, this.#sized[size]!, access)
    if (this.#state.abort !== ABORT.NONE) return 0
    if (size === 4) return this.#view.getInt32(0, true)
    return size === 1 ? this.#bytes[0]! : this.#view.getUint16(0, true)
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    const i = this.tlb.find(hi, lo)
    if (i >= 0 && (lo & 7) === 0) {
      const view = this.tlb.reads[i]
      if (view !== undefined && this.#permits(i, access)) {
        const offset = this.tlb.offset[i]! + (lo & 4095)
        into[at] = view.getInt32(offset, true)
        into[at + 1] = view.getInt32(offset + 4, true)
        return
      }
    }
    this.read(hi, lo, this.#sized[8]!, access)
    if (this.#state.abort !== ABORT.NONE) return
    into[at] = this.#view.getInt32(0, true)
    into[at + 1] = this.#view.getInt32(4, true)
  }

  load128(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    this.read(hi, lo, this.#bytes, access)
    if (this.#state.abort !== ABORT.NONE) return
    for (let n = 0; n < 4; n++) into[at + n] = this.#view.getInt32(4 * n, true)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    const i = this.tlb.find(hi, lo)
    if (i >= 0 && (lo & (size - 1)) === 0) {
      const view = this.tlb.writes[i]
      if (view !== undefined && this.#permits(i, access)) {
        const at = lo & 4095
        const offset = this.tlb.offset[i]! + at
        if (size === 4) view.setInt32(offset, value, true)
        else if (size === 1) view.setUint8(offset, value)
        else view.setUint16(offset, value, true)
        this.#stored(i, at, size)
        return
      }
    }
    this.#view.setInt32(0, value, true)
    this.write(hi, lo, this.#sized[size]!, access)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    const i = this.tlb.find(hi, lo)
    if (i >= 0 && (lo & 7) === 0) {
      const view = this.tlb.writes[i]
      if (view !== undefined && this.#permits(i, access)) {
        const at = lo & 4095
        const offset = this.tlb.offset[i]! + at
        view.setInt32(offset, valueLo, true)
        view.setInt32(offset + 4, valueHi, true)
        this.#stored(i, at, 8)
        return
      }
    }
    this.#view.setInt32(0, valueLo, true)
    this.#view.setInt32(4, valueHi, true)
    this.write(hi, lo, this.#sized[8]!, access)
  }

  store128(hi: number, lo: number, access: number, from: Int32Array, at: number): void {
    for (let n = 0; n < 4; n++) this.#view.setInt32(4 * n, from[at + n]!, true)
    this.write(hi, lo, this.#bytes, access)
  }

  /** Any number of bytes, at most a page. */
  read(hi: number, lo: number, into: Uint8Array, access: number): void {
    const size = into.length
    const a = this.translate(hi, lo, access, size)
    if (a < 0) return
    const first = Math.min(size, 4096 - (lo & 4095))
    if (first === size) {
      this.#physical.read(a, into, 0, first)
      return
    }
    const b = this.#translateNext(hi, lo, access)
    if (b < 0) return
    this.#physical.read(a, into, 0, first)
    if (this.#state.abort === ABORT.NONE) this.#physical.read(b, into, first, size - first)
  }

  /** Any number of bytes, at most a page; all or nothing as far as translation goes. */
  write(hi: number, lo: number, from: Uint8Array, access: number): void {
    const size = from.length
    const a = this.translate(hi, lo, access, size)
    if (a < 0) return
    const first = Math.min(size, 4096 - (lo & 4095))
    let b = -1
    if (first < size) {
      b = this.#translateNext(hi, lo, access)
      if (b < 0) return
    }
    this.storedFirstPage = Math.floor(a / 4096)
    this.storedPage = b < 0 ? this.storedFirstPage : Math.floor(b / 4096)
    this.#physical.write(a, from, 0, first)
    if (this.#state.abort !== ABORT.NONE) return
    this.#domain.wrote(a, first)
    if (b < 0) return
    this.#physical.write(b, from, first, size - first)
    this.#domain.wrote(b, size - first)
  }

  translate(hi: number, lo: number, access: number, size = 1): number {
    const misaligned = size > 1 && (lo & (size - 1)) !== 0 && (size & (size - 1)) === 0
    if (misaligned && (this.#checksAlignment || (access & ALIGNED) !== 0)) {
      this.abort(hi, lo, access, FSC.ALIGNMENT)
      return -1
    }
    let i = this.tlb.find(hi, lo)
    if (i < 0 || !this.#permits(i, access)) {
      i = this.#fill(hi, lo, access, misaligned)
      if (i < 0) return -1
    }
    if (misaligned && this.tlb.device[i] !== 0) {
      this.abort(hi, lo, access, FSC.ALIGNMENT)
      return -1
    }
    return this.tlb.page[i]! + (lo & 4095)
  }

  /** Whether an address that has just been translated leads to memory of a Device type. */
  leadsToDevice(hi: number, lo: number): boolean {
    const i = this.tlb.find(this.regime.untagged(hi), lo)
    return i >= 0 && this.tlb.device[i] !== 0
  }

  /** Raises the abort that an access ends in. `iss` is ORed in: CM of cache maintenance. */
  abort(hi: number, lo: number, access: number, status: number, iss = 0): void {
    const s = this.#state
    if (s.abort !== ABORT.NONE) return
    s.far = join(hi, lo)
    if ((access & ACCESS.FETCH) !== 0) {
      s.raise(s.el === 0 ? EC.INSTRUCTION_ABORT_LOWER : EC.INSTRUCTION_ABORT, status)
      return
    }
    const write = this.#blamesWrite(hi, lo, access, status) ? DATA_ABORT.WNR : 0
    s.raise(s.el === 0 ? EC.DATA_ABORT_LOWER : EC.DATA_ABORT, status | write | iss)
  }

  // ---- inside ----

  #configure(): void {
    this.regime.configure(this.#values())
    this.tlb.asid = this.regime.asid
    this.#checksAlignment = (Number(this.#control.sctlr.effective) & SCTLR.A) !== 0
  }

  #values() {
    const { sctlr, tcr, ttbr0, ttbr1, mair } = this.#control
    return {
      sctlr: sctlr.effective,
      tcr: tcr.effective,
      ttbr0: ttbr0.effective,
      ttbr1: ttbr1.effective,
      mair: mair.effective,
    }
  }

  // PERM_* and ACCESS.READ, WRITE and FETCH have the same places; EL0's are three bits up.
  #permits(i: number, access: number): boolean {
    const user = this.#state.el === 0 || (access & ACCESS.UNPRIVILEGED) !== 0
    const need = (access & WHAT) << (user ? 3 : 0)
    return (this.tlb.permissions[i]! & need) === need
  }

  #translateNext(hi: number, lo: number, access: number): number {
    const next = ((lo & ~4095) + 4096) | 0
    return this.translate(next === 0 ? (hi + 1) | 0 : hi, next, access)
  }

  // Walks and keeps what it found; -1 having raised the abort.
  #fill(hi: number, lo: number, access: number, misaligned: boolean): number {
    const { regime } = this
    const plain = regime.untagged(hi)
    if (plain !== hi) {
      const i = this.tlb.find(plain, lo)
      if (i >= 0 && this.#permits(i, access)) return i
    }
    const failed = this.#walk(plain, lo, access)
    if (failed !== 0) {
      const status = -1 - failed
      // Alignment to the memory type comes before permission.
      const device = misaligned && (status & 0x3c) === FSC.PERMISSION && this.#isDevice(plain, lo)
      this.abort(hi, lo, access, device ? FSC.ALIGNMENT : status)
      return -1
    }
    const i = this.#keep(plain, lo)
    if ((access & ACCESS.FETCH) !== 0 && !this.#physical.home(this.tlb.page[i]!)) {
      this.abort(hi, lo, access, FSC.EXTERNAL)
      return -1
    }
    return i
  }

  // 0 with the regime's fields set, or the failure.
  #walk(hi: number, lo: number, access: number): number {
    const { regime } = this
    const user = this.#state.el === 0 || (access & ACCESS.UNPRIVILEGED) !== 0
    const asked =
      ((access & ACCESS.READ) !== 0 ? ACCESS_READ : 0) |
      ((access & ACCESS.WRITE) !== 0 ? ACCESS_WRITE : 0) |
      ((access & ACCESS.FETCH) !== 0 ? ACCESS_EXECUTE : 0) |
      (user ? ACCESS_USER : 0)
    let failed = regime.translate(hi, lo, asked)
    // Each level's table may appear in turn.
    while (
      failed !== 0 &&
      ((-1 - failed) & 0x3c) === FSC.EXTERNAL_ON_WALK &&
      this.#around.populate(regime.unreadableAt)
    )
      failed = regime.translate(hi, lo, asked)
    return failed
  }

  #isDevice(hi: number, lo: number): boolean {
    return this.regime.translate(hi, lo, 0) === 0 && this.regime.device
  }

  #keep(hi: number, lo: number): number {
    const { regime, tlb } = this
    const { output, permissions, pageBits } = regime
    const page = output - (output % 4096)
    if (!this.#physical.home(page)) this.#around.populate(page)
    const i = tlb.take(hi, lo, pageBits, (permissions & PERM_GLOBAL) !== 0)
    const ram = this.#memory.ramAt(page)
    tlb.permissions[i] = permissions & ~PERM_GLOBAL
    tlb.page[i] = page
    tlb.device[i] = regime.device ? 1 : 0
    if (ram !== undefined) {
      tlb.ram[i] = ram
      tlb.offset[i] = page - ram.base
      tlb.reads[i] = viewOf(ram)
      if ((permissions & (PERM_WRITE | PERM_USER_WRITE)) !== 0 && !this.#around.readOnly(ram))
        tlb.writes[i] = tlb.reads[i]
    }
    return i
  }

  // WnR of an access that both reads and writes: 0 if reading alone would have failed too.
  #blamesWrite(hi: number, lo: number, access: number, status: number): boolean {
    if ((access & ACCESS.WRITE) === 0) return false
    if ((access & ACCESS.READ) === 0) return true
    if ((status & 0x3c) !== FSC.PERMISSION) return false
    return this.#walk(this.regime.untagged(hi), lo, access & ~ACCESS.WRITE) === 0
  }

  #stored(i: number, at: number, size: number): void {
    const ram = this.tlb.ram[i]!
    if (ram.dirty !== undefined) ram.wrote(this.tlb.offset[i]! + at, size)
    const page = this.tlb.page[i]!
    this.storedPage = this.storedFirstPage = page / 4096
    this.#domain.wrote(page + at, size)
  }
}

const views = new WeakMap<RamRegion, DataView>()
function viewOf(ram: RamRegion): DataView {
  let view = views.get(ram)
  if (view === undefined) {
    view = new DataView(ram.bytes.buffer, ram.bytes.byteOffset, ram.size)
    views.set(ram, view)
  }
  return view
}
