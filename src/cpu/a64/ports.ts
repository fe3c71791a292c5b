// The two sides an A64 core reaches out through: memory by virtual address, and the system around it.
// mmu.ts implements the first, core.ts the second.

/** What an access is for. One or more bits; the port finds the exception level in `state.el`. */
export const ACCESS = {
  READ: 1,
  WRITE: 2,
  /** A read whose location is written next: it faults as a write, so that the write cannot. */
  MODIFY: 3,
  FETCH: 4,
  /** LDTR and STTR: with the permissions of EL0. */
  UNPRIVILEGED: 8,
  /** Single-copy atomic: a misaligned address is an alignment fault whatever SCTLR_EL1.A is. */
  ATOMIC: 16,
  /** Load-acquire or store-release; aligned as atomics are. */
  ORDERED: 32,
  /** LDXR, STXR and their kin; aligned as atomics are. */
  EXCLUSIVE: 64,
} as const

/**
 * Memory by virtual address, given as signed 32-bit halves.
 *
 * Checks tags, translation, permission and alignment; on a violation it sets `state.far`, calls `state.raise` with a
 * data or instruction abort, changes no memory and returns anything (zero). An access nobody claims asks
 * `state.accesses` for an answer and, having none, sets `state.abort` to `ABORT.EXIT`. Callers look at `state.abort`.
 * An access may cross a page: both pages are checked before either is written.
 */
export interface MemoryPort {
  /** Zero-extended value of 1, 2 or 4 bytes, as a signed 32-bit number. */
  load(hi: number, lo: number, size: number, access: number): number
  /** Eight bytes into `into[at]` (low half) and `into[at + 1]`; untouched when it aborts. */
  load64(hi: number, lo: number, access: number, into: Int32Array, at: number): void
  /** Sixteen bytes into `into[at]` to `into[at + 3]`; untouched when it aborts. */
  load128(hi: number, lo: number, access: number, into: Int32Array, at: number): void
  store(hi: number, lo: number, size: number, value: number, access: number): void
  store64(hi: number, lo: number, valueHi: number, valueLo: number, access: number): void
  /** Sixteen bytes from `from[at]` to `from[at + 3]`, all or nothing. */
  store128(hi: number, lo: number, access: number, from: Int32Array, at: number): void
  /** Physical address behind a virtual one of `size` bytes (1 unless told), or -1 having raised the exception. */
  translate(hi: number, lo: number, access: number, size?: number): number
  /** Physical page number (address / 4096) of the last store, second page of a crossing one. The core watches it for code. */
  storedPage: number
  /** The first page of the last store, when it crossed; else equal to `storedPage`. */
  storedFirstPage: number
}

/** A system register or instruction: op0, op1, CRn, CRm and op2 in 16 bits, as KVM's register ids have them. */
export const systemKey = (
  op0: number,
  op1: number,
  crn: number,
  crm: number,
  op2: number,
): number => (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2

/** PSTATE fields that MSR (immediate) writes: op1 << 3 | op2 of its encoding. */
export const PSTATE_FIELD = { SPSEL: 0o05, DAIFSET: 0o36, DAIFCLR: 0o37 } as const

/**
 * What system instructions ask of the processing element's surroundings. Exceptions (UNDEFINED, traps) are raised on
 * the state, as above. `target` is the number of the general register that the instruction names, for syndromes.
 */
export interface SystemPort {
  /** MRS. NZCV, FPCR and FPSR do not come here. */
  readRegister(key: number, target: number): bigint
  /** MSR (register). */
  writeRegister(key: number, value: bigint, target: number): void
  /** SYS: cache, TLB and address translation instructions. */
  systemInstruction(key: number, value: bigint, target: number): void
  /** SYSL: its result. */
  systemResult(key: number, target: number): bigint
  /** MSR (immediate); `field` is one of `PSTATE_FIELD`. */
  writePstate(field: number, value: number): void
  /** ERET: sets `NEXT` and PSTATE. */
  exceptionReturn(): void
  supervisorCall(value: number): void
  hypervisorCall(value: number): void
  secureMonitorCall(value: number): void
  /** BRK. */
  breakpoint(value: number): void
  /** HLT: UNDEFINED unless halting debug is modelled. */
  halt(value: number): void
  waitForInterrupt(): void
  waitForEvent(): void
  /** SEV and SEVL. */
  sendEvent(local: boolean): void
  /** DSB, DMB and ISB; `option` is CRm. ISB is the context synchronisation event. */
  barrier(kind: 'dsb' | 'dmb' | 'isb', option: number): void
  /** Raises FP_ACCESS when CPACR_EL1 (or the hypervisor) traps floating point and SIMD here. */
  checkFp(): void
}
