// The two sides an x86 core reaches out through: memory by linear address, and the system around it.
// mmu.ts implements the first; the vCPU (kvm/) assembles the second from msr.ts, exceptions.ts and apic.ts.

import type { X86State } from './registers.js'

/** What an access is for. One or more bits; the port finds user or supervisor in `state.cpl`. */
export const ACCESS = {
  READ: 1,
  WRITE: 2,
  /** A read whose location is written next: it faults as a write, so that the write cannot. */
  MODIFY: 3,
  FETCH: 4,
  /** An implicit supervisor access (descriptor tables, TSS) whatever CPL is. */
  SYSTEM: 8,
  /** Through SS: a non-canonical address is #SS(0) and not #GP(0). */
  STACK: 16,
  /** Part of a locked operation. */
  LOCKED: 32,
} as const

/**
 * Memory by linear address, given as signed 32-bit halves.
 *
 * Checks canonical form and paging; on a violation it calls `state.raise` or `state.pageFault`, changes no memory and
 * returns anything (zero). An access nobody claims asks `state.accesses` for an
 * answer and, having none, sets `state.abort` to `ABORT.EXIT`. Callers look at `state.abort`.
 * An access may cross a page: both pages are checked before either is written.
 */
export interface MemoryPort {
  /** Zero-extended value of 1, 2 or 4 bytes, as a signed 32-bit number. */
  load(hi: number, lo: number, size: number, access: number): number
  /** Eight bytes into `into[at]` (low half) and `into[at + 1]`; untouched when it aborts. */
  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void
  store(hi: number, lo: number, size: number, value: number, access: number): void
  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void
  /** Any number of bytes, at most a page: operands of 16 and 64 bytes, frames, descriptors. */
  read(hi: number, lo: number, into: Uint8Array, access: number): void
  write(hi: number, lo: number, from: Uint8Array, access: number): void
  /** One 64-byte deferrable write (ENQCMD), aligned: true when accepted, false when the target says retry. */
  enqueue(hi: number, lo: number, bytes: Uint8Array): boolean
  /** Guest-physical address behind a linear one, or -1 having raised the exception. No memory is touched beyond A/D bits. */
  translate(hi: number, lo: number, access: number): number
  /** Physical page number (address / 4096) of the last store, second page of a crossing one. The core watches it for code. */
  storedPage: number
  /** The first page of the last store, when it crossed; else equal to `storedPage`. */
  storedFirstPage: number
}

/** What privileged instructions ask of the processor's surroundings. Exceptions are raised on the state, as above. */
export interface SystemPort {
  /** A port read of 1, 2 or 4 bytes; may abort with `ABORT.EXIT`. */
  portIn(port: number, size: number): number
  portOut(port: number, size: number, value: number): void
  /** RDMSR/WRMSR after the privilege check: #GP for what does not exist or reserved bits. */
  readMsr(index: number): bigint
  writeMsr(index: number, value: bigint): void
  /** MOV to CR0, CR3, CR4, CR8 and LMSW, CLTS: checks the value (#GP), stores it and drops translations. */
  writeControl(n: number, value: bigint): void
  /** EAX, EBX, ECX, EDX of a leaf. */
  cpuid(leaf: number, subleaf: number, into: Uint32Array): void
  tsc(): bigint
  /** INVLPG. */
  invalidatePage(linear: bigint): void
  /** INVPCID type 0..3 (SDM vol. 2). Values are already checked. */
  invalidatePcid(type: number, pcid: number, linear: bigint): void
  /** VMCALL, VMMCALL: sets `state.leave`, or answers in registers. */
  hypercall(): void
  /** The PASID a device must see for this one (vsva: guest to host), or -1 when it has none. */
  translatePasid(pasid: number): number
  /**
   * Delivers an event through the IDT: frame, stack, CS:RIP. `state.rip` is the return address. Contributory faults become
   * #DF inside. False: triple fault. May leave `ABORT.EXIT` when its own memory has no home.
   */
  deliver(event: NonNullable<X86State['event']>): boolean
  /** Highest-priority interrupt that could be taken now, or -1: asked before blocks while RFLAGS.IF is set. */
  pendingInterrupt(): number
  /** Takes it: the controller marks it in service. */
  acknowledgeInterrupt(): number
}
