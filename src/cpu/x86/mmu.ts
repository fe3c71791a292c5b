// Linear memory of an x86-64 processor (SDM vol. 3, ch. 4): canonical form, the walk (paging/), the TLB, page faults.
// Paging is 4-level or 5-level and always on, as in IA-32e mode. Protection keys are not modelled.
// RAM is reached through the TLB; where any other access goes is in physical.ts.

import { halves, join, split } from '../../base/addr.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { RamRegion } from '../../mem/ram.js'
import { X86_4LEVEL, X86_5LEVEL, x86Format } from '../../paging/formats-x86.js'
import {
  ACCESS_AC,
  ACCESS_EXECUTE,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_SMAP,
  ACCESS_SMEP,
  ACCESS_USER,
  ACCESS_WP,
  ACCESS_WRITE,
  FAILURE,
  PERM_GLOBAL,
  Walk,
} from '../../paging/walk.js'
import { createWalker, type Walker } from '../../paging/walker.js'
import { type Encryption, isPrivateAccess } from '../sev/encryption.js'
import { CIPHERED, PlainPage } from '../sev/private-memory.js'
import { allowed, errorCode, NEEDS } from './permissions.js'
import { type MemorySurroundings, PhysicalAccess } from './physical.js'
import { ACCESS, type MemoryPort } from './ports.js'
import { ABORT, CR0, CR4, EFER, FLAG, VECTOR, type X86State } from './registers.js'
import { ALLOW, Tlb } from './tlb.js'

/** Code is looked for anew where nothing was. */
const FETCHES = ALLOW.SUPERVISOR_FETCH | ALLOW.USER_FETCH
const CR3_ROOT = 0xf_ffff_ffff_f000n

/** The memory of one processor, by linear address. */
export class Mmu implements MemoryPort {
  storedPage = -1
  storedFirstPage = -1
  readonly tlb = new Tlb()
  readonly #state: X86State
  readonly #around: MemorySurroundings
  readonly #memory: AddressSpace
  readonly #physical: PhysicalAccess
  #fourLevel: Walker
  #fiveLevel: Walker
  readonly #walk = new Walk()
  #walker: Walker
  /** The guest's memory key, if it has one. */
  #encryption: Encryption | undefined
  /** Under a key: by buffer, where the pages are whose own bytes translations may lead to. */
  readonly #shared = new Map<ArrayBufferLike, Set<number>>()
  #root = 0
  /** Control bits in the walker's words. */
  #modes = 0
  #smap = false
  /** Canonical addresses have equal bits from here on in their high half. */
  #signShift = 15
  readonly #eight = new Uint8Array(8)
  readonly #eightView = new DataView(this.#eight.buffer)
  readonly #sized = [1, 2, 4, 8].map(n => this.#eight.subarray(0, n))

  constructor(state: X86State, around: MemorySurroundings) {
    this.#state = state
    this.#around = around
    this.#memory = around.memory
    this.#physical = new PhysicalAccess(state, around)
    this.#fourLevel = createWalker(X86_4LEVEL, around.memory)
    this.#fiveLevel = createWalker(X86_5LEVEL, around.memory)
    this.#walker = this.#fourLevel
    this.reload()
  }

  // ---- control ----

  /** Takes the control registers as they are and drops every translation. */
  reload(): void {
    const s = this.#state
    this.controlsChanged()
    this.#setRoot()
    this.tlb.pcid = (s.cr4 & CR4.PCIDE) !== 0 ? Number(s.cr3 & 0xfffn) : 0
  }

  /** CR0, CR4 or EFER changed in a bit that paging uses: new modes, no translation survives. */
  controlsChanged(): void {
    const s = this.#state
    const five = (s.cr4 & CR4.LA57) !== 0
    this.#walker = five ? this.#fiveLevel : this.#fourLevel
    this.#signShift = five ? 24 : 15
    this.#smap = (s.cr4 & CR4.SMAP) !== 0
    this.#modes =
      ((s.cr0 & CR0.WP) !== 0 ? ACCESS_WP : 0) |
      ((s.cr4 & CR4.SMEP) !== 0 ? ACCESS_SMEP : 0) |
      ((s.efer & EFER.NXE) !== 0 ? ACCESS_NXE : 0)
    if ((s.cr4 & CR4.PCIDE) === 0) this.tlb.pcid = 0
    this.flush()
  }

  /**
   * From now on this processor works under a memory key: tables are private, the leaf's C-bit decides for data (APM
   * vol. 2, 15.34). Its translations to plaintext end when the plaintext is put away.
   */
  encrypt(encryption: Encryption): void {
    const { memory, cBit: encryptionBit, physicalBits } = encryption
    const walker = (levels: 4 | 5) =>
      createWalker(x86Format({ levels, physicalBits, encryptionBit }), memory.tables)
    this.#encryption = encryption
    this.#fourLevel = walker(4)
    this.#fiveLevel = walker(5)
    this.#physical.encrypt(memory)
    this.reload()
  }

  /** Bits of CR3 that are beyond the guest's physical addresses, C-bit aside. */
  get reservedRoot(): bigint {
    const e = this.#encryption
    return e === undefined ? 0n : CR3_ROOT & ~e.addressMask & ~(1n << BigInt(e.cBit))
  }

  /** Plaintext was put away. */
  plaintextGone(): void {
    this.tlb.flushWhere(i => this.tlb.ram[i] instanceof PlainPage)
  }

  /** A page got plaintext: what leads to its own bytes goes. */
  plaintextMade({ home, offset }: PlainPage): void {
    const at = home.bytes.byteOffset + offset
    if (!this.#shared.get(home.bytes.buffer)?.delete(at)) return
    this.tlb.flushWhere(i => {
      const ram = this.tlb.ram[i]
      if (ram === undefined || ram.bytes.buffer !== home.bytes.buffer) return false
      return ram.bytes.byteOffset + this.tlb.offset[i]! === at
    })
  }

  /** Drops every translation, and looks again where the APIC is. */
  flush(): void {
    this.tlb.flush()
    this.#physical.apicPage = this.#around.apicPage()
  }

  /** MOV to CR3 happened; `keep` is bit 63 of the value under CR4.PCIDE (SDM vol. 3, 4.10.4.1). */
  rootChanged(keep: boolean): void {
    const s = this.#state
    this.#setRoot()
    if ((s.cr4 & CR4.PCIDE) !== 0) {
      this.tlb.pcid = Number(s.cr3 & 0xfffn)
      if (!keep) this.tlb.flushContext(this.tlb.pcid)
    } else this.tlb.flushContext()
  }

  /** INVLPG. */
  invalidatePage(linear: bigint): void {
    split(linear)
    this.tlb.flushPage(halves[1]!, halves[0]!, this.tlb.pcid, true)
  }

  /** INVPCID, type 0 to 3. */
  invalidatePcid(type: number, pcid: number, linear: bigint): void {
    split(linear)
    if (type === 0) this.tlb.flushPage(halves[1]!, halves[0]!, pcid, false)
    else if (type === 1) this.tlb.flushContext(pcid)
    else if (type === 2) this.tlb.flush()
    else this.tlb.flushContext()
  }

  /** Whether an address given by its high half is canonical now. */
  canonical(hi: number): boolean {
    const sign = hi >> this.#signShift
    return sign === 0 || sign === -1
  }

  /**
   * What the tables say about an address, without a trace: physical address and PERM_*, or undefined. For debuggers.
   */
  probe(linear: bigint): { readonly address: number; readonly permissions: number } | undefined {
    split(linear)
    const [lo, hi] = [halves[0]!, halves[1]!]
    if (!this.canonical(hi)) return undefined
    const w = this.#walk
    const asked = this.#modes | ACCESS_PROBE
    while (!this.#walker(this.#root, hi, lo, asked, w))
      if (w.failure !== FAILURE.unreadable || !this.#around.populate(w.entryAt)) return undefined
    return { address: w.output, permissions: w.permissions }
  }

  // ---- the port ----

  load(hi: number, lo: number, size: number, access: number): number {
    const i = this.tlb.find(hi, lo)
    const at = lo & 4095
    if (i >= 0 && at + size <= 4096) {
      const need = this.#need(access)
      const view = this.tlb.view[i]
      if (view !== undefined && (this.tlb.allow[i]! & need) === need) {
        const offset = this.tlb.offset[i]! + at
        if (size === 4) return view.getInt32(offset, true)
        return size === 1 ? view.getUint8(offset) : view.getUint16(offset, true)
      }
    }
    this.read(hi, lo, this.#sized[size === 4 ? 2 : size - 1]!, access)
    if (this.#state.abort !== ABORT.NONE) return 0
    if (size === 4) return this.#eightView.getInt32(0, true)
    return size === 1 ? this.#eight[0]! : this.#eightView.getUint16(0, true)
  }

  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void {
    const i = this.tlb.find(hi, lo)
    const page = lo & 4095
    if (i >= 0 && page <= 4088) {
      const need = this.#need(access)
      const view = this.tlb.view[i]
      if (view !== undefined && (this.tlb.allow[i]! & need) === need) {
        const offset = this.tlb.offset[i]! + page
        into[at] = view.getInt32(offset, true)
        into[at + 1] = view.getInt32(offset + 4, true)
        return
      }
    }
    this.read(hi, lo, this.#sized[3]!, access)
    if (this.#state.abort !== ABORT.NONE) return
    into[at] = this.#eightView.getInt32(0, true)
    into[at + 1] = this.#eightView.getInt32(4, true)
  }

  store(hi: number, lo: number, size: number, value: number, access: number): void {
    const i = this.tlb.find(hi, lo)
    const at = lo & 4095
    if (i >= 0 && at + size <= 4096) {
      const need = this.#need(access)
      const view = this.tlb.view[i]
      if (view !== undefined && (this.tlb.allow[i]! & need) === need) {
        const offset = this.tlb.offset[i]! + at
        if (size === 4) view.setInt32(offset, value, true)
        else if (size === 1) view.setUint8(offset, value)
        else view.setUint16(offset, value, true)
        this.#stored(i, at, size)
        return
      }
    }
    this.#eightView.setInt32(0, value, true)
    this.write(hi, lo, this.#sized[size === 4 ? 2 : size - 1]!, access)
  }

  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void {
    const i = this.tlb.find(hi, lo)
    const at = lo & 4095
    if (i >= 0 && at <= 4088) {
      const need = this.#need(access)
      const view = this.tlb.view[i]
      if (view !== undefined && (this.tlb.allow[i]! & need) === need) {
        const offset = this.tlb.offset[i]! + at
        view.setInt32(offset, valueLo, true)
        view.setInt32(offset + 4, valueHi, true)
        this.#stored(i, at, 8)
        return
      }
    }
    this.#eightView.setInt32(0, valueLo, true)
    this.#eightView.setInt32(4, valueHi, true)
    this.write(hi, lo, this.#sized[3]!, access)
  }

  read(hi: number, lo: number, into: Uint8Array, access: number): void {
    const first = Math.min(into.length, 4096 - (lo & 4095))
    const a = this.translate(hi, lo, access)
    if (a < 0) return
    if (first === into.length) {
      this.#physical.read(a, into, 0, first)
      return
    }
    const b = this.#translateNext(hi, lo, access)
    if (b < 0) return
    this.#physical.read(a, into, 0, first)
    if (this.#state.abort === ABORT.NONE) {
      this.#physical.read(b, into, first, into.length - first)
    }
  }

  write(hi: number, lo: number, from: Uint8Array, access: number): void {
    const first = Math.min(from.length, 4096 - (lo & 4095))
    const a = this.translate(hi, lo, access)
    if (a < 0) return
    let b = -1
    if (first < from.length) {
      b = this.#translateNext(hi, lo, access)
      if (b < 0) return
    }
    this.storedFirstPage = Math.floor(a / 4096)
    this.storedPage = b < 0 ? this.storedFirstPage : Math.floor(b / 4096)
    this.#physical.write(a, from, 0, first)
    if (b >= 0 && this.#state.abort === ABORT.NONE) {
      this.#physical.write(b, from, first, from.length - first)
    }
  }

  enqueue(hi: number, lo: number, bytes: Uint8Array): boolean {
    const at = this.translate(hi, lo, ACCESS.WRITE)
    if (at < 0) return false
    this.#encryption?.memory.settle()
    return this.#memory.writeDeferrable(at, bytes)
  }

  translate(hi: number, lo: number, access: number): number {
    const need = this.#need(access)
    let i = this.tlb.find(hi, lo)
    if (i < 0 || (this.tlb.allow[i]! & need) !== need) {
      i = this.#fill(hi, lo, access)
      if (i < 0) return -1
    }
    return this.tlb.page[i]! + (lo & 4095)
  }

  // ---- inside ----

  #setRoot(): void {
    const mask = this.#encryption?.addressMask ?? CR3_ROOT
    this.#root = Number(this.#state.cr3 & CR3_ROOT & mask)
  }

  #need(access: number): number {
    const s = this.#state
    const system = (access & ACCESS.SYSTEM) !== 0
    const user = s.cpl === 3 && !system
    const smap = this.#smap && (system || (s.flags & FLAG.AC) === 0)
    return NEEDS[(access & 7) | (user ? 8 : 0) | (smap ? 16 : 0)]!
  }

  #translateNext(hi: number, lo: number, access: number): number {
    const next = ((lo & ~4095) + 4096) | 0
    return this.translate(next === 0 ? (hi + 1) | 0 : hi, next, access)
  }

  // Walks and keeps what it found; -1 having raised the exception.
  #fill(hi: number, lo: number, access: number): number {
    const s = this.#state
    if (!this.canonical(hi)) {
      s.raise((access & ACCESS.STACK) !== 0 ? VECTOR.SS : VECTOR.GP, 0)
      return -1
    }
    const system = (access & ACCESS.SYSTEM) !== 0
    const user = s.cpl === 3 && !system
    const w = this.#walk
    const asked =
      this.#modes |
      ((access & ACCESS.READ) !== 0 ? ACCESS_READ : 0) |
      ((access & ACCESS.WRITE) !== 0 ? ACCESS_WRITE : 0) |
      ((access & ACCESS.FETCH) !== 0 ? ACCESS_EXECUTE : 0) |
      (user ? ACCESS_USER : 0) |
      (this.#smap ? ACCESS_SMAP : 0) |
      (!system && (s.flags & FLAG.AC) !== 0 ? ACCESS_AC : 0)
    let found = this.#walker(this.#root, hi, lo, asked, w)
    // Each level's table may appear in turn.
    while (!found && w.failure === FAILURE.unreadable && this.#around.populate(w.entryAt))
      found = this.#walker(this.#root, hi, lo, asked, w)
    if (!found) {
      const gone = w.failure === FAILURE.unreadable && this.#physical.leavesFor(w.entryAt, false)
      if (!gone) s.pageFault(join(hi, lo), errorCode(this.#walk.failure, access, user, this.#modes))
      return -1
    }
    const page = w.output - (w.output % 4096)
    if (page !== this.#physical.apicPage && !this.#physical.home(page)) {
      const fetch = (access & ACCESS.FETCH) !== 0
      if (!this.#around.populate(page, fetch) && fetch && this.#physical.leavesFor(page, true))
        return -1
    }
    return this.#keep(hi, lo, (access & ACCESS.WRITE) !== 0)
  }

  #keep(hi: number, lo: number, write: boolean): number {
    const w = this.#walk
    const { permissions, dirty } = w
    const page = w.output - (w.output % 4096)
    const apic = page === this.#physical.apicPage
    if (this.#encryption !== undefined && !apic) return this.#keepUnderKey(hi, lo, page, write)
    const i = this.tlb.take(hi, lo, w.pageBits, (permissions & PERM_GLOBAL) !== 0 && this.#pge)
    const ram = apic ? undefined : this.#memory.ramAt(page)
    const writes = dirty && (ram === undefined || !this.#around.readOnly(ram))
    this.tlb.allow[i] = allowed(permissions, writes, this.#modes)
    this.tlb.page[i] = page
    if (ram !== undefined) {
      this.tlb.ram[i] = ram
      this.tlb.view[i] = viewOf(ram)
      this.tlb.offset[i] = page - ram.base
    } else if (!apic && !this.#physical.home(page)) this.tlb.allow[i]! &= ~FETCHES
    return i
  }

  // A page under a key: plaintext for a private leaf, its own bytes for a shared one. A shared page is written through
  // the translation only once a write was asked for, so that the first write is noticed.
  #keepUnderKey(hi: number, lo: number, page: number, write: boolean): number {
    const w = this.#walk
    const { permissions, dirty } = w
    const { memory, leafBit } = this.#encryption!
    const own = this.#memory.ramAt(page)
    const leaf = (memory.lastEntryHigh & leafBit) !== 0
    const isPrivate = own !== undefined && isPrivateAccess('data', true, leaf)
    const plain = isPrivate ? memory.page(page) : undefined
    if (own !== undefined && !isPrivate) memory.share(page, write)
    const i = this.tlb.take(hi, lo, w.pageBits, (permissions & PERM_GLOBAL) !== 0 && this.#pge)
    const writable = own === undefined || !this.#around.readOnly(own)
    this.tlb.allow[i] = allowed(permissions, dirty && writable && (isPrivate || write), this.#modes)
    this.tlb.page[i] = plain === undefined ? page : page + CIPHERED
    const ram = plain ?? own
    if (ram !== undefined) {
      this.tlb.ram[i] = ram
      this.tlb.view[i] = viewOf(ram)
      this.tlb.offset[i] = plain === undefined ? page - ram.base : 0
      if (plain === undefined) this.#noteShared(ram, page)
    }
    return i
  }

  #noteShared({ bytes, base }: RamRegion, page: number): void {
    let pages = this.#shared.get(bytes.buffer)
    if (pages === undefined) this.#shared.set(bytes.buffer, (pages = new Set()))
    pages.add(bytes.byteOffset + page - base)
  }

  get #pge(): boolean {
    return (this.#state.cr4 & CR4.PGE) !== 0
  }

  #stored(i: number, at: number, size: number): void {
    const ram = this.tlb.ram[i]!
    if (ram.dirty !== undefined) ram.wrote(this.tlb.offset[i]! + at, size)
    this.storedPage = this.storedFirstPage = this.tlb.page[i]! / 4096
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
