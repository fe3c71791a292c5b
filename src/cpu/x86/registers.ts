// The architectural state of an x86-64 logical processor (SDM vol. 3 ch. 2, vol. 1 ch. 3).
// Everything instructions compute with lives in one buffer of 64-bit slots, which generated code can share;
// system registers are plain fields. What the bits mean to paging is in mmu.ts, to events in exceptions.ts.

import { AccessRecord } from '../accesses.js'
import type { Exit } from '../core.js'

/** Numbers of the 64-bit slots. General registers have their encoding as number. */
// biome-ignore format: table
export const SLOT = {
  RAX: 0, RCX: 1, RDX: 2, RBX: 3, RSP: 4, RBP: 5, RSI: 6, RDI: 7,
  R8: 8, R9: 9, R10: 10, R11: 11, R12: 12, R13: 13, R14: 14, R15: 15,
  RIP: 16,     // of the instruction being executed
  NEXT: 17,    // where execution goes when it retires
  FLAGS: 18,   // RFLAGS; bits 63:32 are always zero
  ES_BASE: 20, CS_BASE: 21, SS_BASE: 22, DS_BASE: 23, FS_BASE: 24, GS_BASE: 25, LDTR_BASE: 26, TR_BASE: 27,
  SCRATCH: 30, // for routines
  TEMP: 32,    // first slot free for an instruction's intermediate values
} as const

/** Slots in the buffer: 32 of registers, the rest for intermediate values of one instruction. */
export const SLOTS = 256

/** Bits of RFLAGS (SDM vol. 1, 3.4.3). */
// biome-ignore format: table
export const FLAG = {
  CF: 1 << 0,  PF: 1 << 2,  AF: 1 << 4,  ZF: 1 << 6,  SF: 1 << 7,  TF: 1 << 8,  IF: 1 << 9,  DF: 1 << 10, OF: 1 << 11,
  IOPL: 3 << 12, NT: 1 << 14, RF: 1 << 16, VM: 1 << 17, AC: 1 << 18, VIF: 1 << 19, VIP: 1 << 20, ID: 1 << 21,
} as const

/** Bit 1 of RFLAGS reads as one. */
export const FLAGS_FIXED = 2
/** Every RFLAGS bit that software may set. */
export const FLAGS_WRITABLE =
  FLAG.CF |
  FLAG.PF |
  FLAG.AF |
  FLAG.ZF |
  FLAG.SF |
  FLAG.TF |
  FLAG.IF |
  FLAG.DF |
  FLAG.OF |
  FLAG.IOPL |
  FLAG.NT |
  FLAG.RF |
  FLAG.AC |
  FLAG.ID

/** Exception vectors (SDM vol. 3, table 6-1). */
// biome-ignore format: table
export const VECTOR = {
  DE: 0, DB: 1, NMI: 2, BP: 3, OF: 4, BR: 5, UD: 6, NM: 7, DF: 8, TS: 10, NP: 11, SS: 12, GP: 13, PF: 14,
  MF: 16, AC: 17, MC: 18, XM: 19, VE: 20, CP: 21,
} as const

/** Bits of CR0 (SDM vol. 3, 2.5). */
// biome-ignore format: table
export const CR0 = {
  PE: 1 << 0, MP: 1 << 1, EM: 1 << 2, TS: 1 << 3, ET: 1 << 4, NE: 1 << 5, WP: 1 << 16, AM: 1 << 18, NW: 1 << 29,
  CD: 1 << 30, PG: 0x8000_0000,
} as const

/** Bits of CR4 (SDM vol. 3, 2.5). */
// biome-ignore format: table
export const CR4 = {
  VME: 1 << 0, PVI: 1 << 1, TSD: 1 << 2, DE: 1 << 3, PSE: 1 << 4, PAE: 1 << 5, MCE: 1 << 6, PGE: 1 << 7, PCE: 1 << 8,
  OSFXSR: 1 << 9, OSXMMEXCPT: 1 << 10, UMIP: 1 << 11, LA57: 1 << 12, VMXE: 1 << 13, SMXE: 1 << 14, FSGSBASE: 1 << 16,
  PCIDE: 1 << 17, OSXSAVE: 1 << 18, SMEP: 1 << 20, SMAP: 1 << 21, PKE: 1 << 22,
} as const

/** Bits of IA32_EFER (SDM vol. 3, 2.2.1). */
export const EFER = { SCE: 1 << 0, LME: 1 << 8, LMA: 1 << 10, NXE: 1 << 11 } as const

/** Order of `state.segments`, equal to the encoding of segment registers; LDTR and TR follow. */
export const SEGMENT = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const

/** A segment register with its hidden part. The base lives in a slot, where address arithmetic finds it. */
export class Segment {
  selector = 0
  /** Last valid byte offset, after the granularity bit was applied. */
  limit = 0xffff
  /** Descriptor type, 4 bits (SDM vol. 3, 3.4.5.1 and 3.5). */
  type = 0
  /** S: 1 for code and data, 0 for system descriptors. */
  s = 0
  dpl = 0
  present = 0
  avl = 0
  /** L: 64-bit code. */
  l = 0
  db = 0
  g = 0
  /** A null selector was loaded. */
  unusable = 1
  readonly #slots: BigUint64Array
  readonly #slot: number

  constructor(slots: BigUint64Array, slot: number) {
    this.#slots = slots
    this.#slot = slot
  }

  get base(): bigint {
    return this.#slots[this.#slot]!
  }

  set base(v: bigint) {
    this.#slots[this.#slot] = v
  }
}

/** Base and limit of the GDT or IDT. */
export interface DescriptorTable {
  base: bigint
  limit: number
}

/** How the instruction being executed ends early. */
export const ABORT = {
  NONE: 0,
  /** `vector` and `error` say which. */
  EXCEPTION: 1,
  /** An access leaves the core; `accesses` says which. */
  EXIT: 2,
  /** `event` is to be delivered with RIP at this instruction (INT n). */
  EVENT: 3,
} as const

/** Where an event waiting for delivery comes from; delivery differs (SDM vol. 3, 6.12 and 6.15). */
export const EVENT = { EXTERNAL: 0, NMI: 2, EXCEPTION: 3, SOFTWARE: 4 } as const

/** An event that must be delivered before the next instruction (what KVM calls injected). */
export interface PendingEvent {
  readonly kind: (typeof EVENT)[keyof typeof EVENT]
  readonly vector: number
  /** Undefined when the vector pushes no error code. */
  readonly error: number | undefined
  /** Software events only: the length of the INT instruction, whose end is the return address. */
  readonly length?: number
  /** Debug exceptions only: before the instruction, which then is to run with RF set. */
  readonly fault?: boolean
}

/**
 * One logical processor's registers.
 *
 * A routine that finds a guest exception calls `raise` and returns; whoever called it looks at `abort` and
 * returns too. Nothing is thrown. The first exception of an instruction stands.
 */
export class X86State {
  /** The slots as bytes, 16-bit, 32-bit and 64-bit units. Little-endian, as all hosts of WebAssembly. */
  readonly buffer = new ArrayBuffer(SLOTS * 8)
  readonly r64 = new BigUint64Array(this.buffer)
  readonly r32 = new Int32Array(this.buffer)
  readonly r8 = new Uint8Array(this.buffer)

  readonly segments: readonly Segment[] = Array.from(
    { length: 8 },
    (_, i) => new Segment(this.r64, SLOT.ES_BASE + i),
  )
  readonly gdtr: DescriptorTable = { base: 0n, limit: 0xffff }
  readonly idtr: DescriptorTable = { base: 0n, limit: 0xffff }

  /** CR0, CR4 and EFER use bits 31:0 only and are unsigned numbers; test them with the masks above. */
  cr0 = 0x6000_0010
  cr2 = 0n
  cr3 = 0n
  cr4 = 0
  /** Task priority, 4 bits. */
  cr8 = 0
  efer = 0
  readonly dr = new BigUint64Array([0n, 0n, 0n, 0n, 0n, 0n, 0xffff_0ff0n, 0x400n])

  star = 0n
  lstar = 0n
  cstar = 0n
  /** IA32_FMASK. */
  sfmask = 0n
  kernelGsBase = 0n
  tscAux = 0
  /** IA32_PASID: bit 31 valid, bits 19:0 the PASID that ENQCMD sends (SDM vol. 4). */
  pasid = 0

  cpl = 0
  /** Interrupts are held off until the next instruction has retired (after STI or MOV SS). */
  interruptShadow = false
  halted = false
  nmiPending = false
  /** NMIs are blocked until IRET. */
  nmiBlocked = false
  /** Delivered before anything else; set by `raise` on the way out, or by KVM_SET_VCPU_EVENTS. */
  event: PendingEvent | undefined

  /** Device accesses of the instruction in progress that left the core; ports ask it before they abort. */
  readonly accesses = new AccessRecord()
  /** Set by a port: stop with this exit once the instruction has retired. */
  leave: Exit | undefined

  /** One of `ABORT`; the run loop clears it. */
  abort: number = ABORT.NONE
  /** The exception behind `ABORT.EXCEPTION`. */
  vector = 0
  error: number | undefined

  get rip(): bigint {
    return this.r64[SLOT.RIP]!
  }

  set rip(v: bigint) {
    this.r64[SLOT.RIP] = v
  }

  /** RFLAGS as a number; bits 63:32 are zero. */
  get flags(): number {
    return this.r32[SLOT.FLAGS * 2]!
  }

  set flags(v: number) {
    this.r32[SLOT.FLAGS * 2] = v
    this.r32[SLOT.FLAGS * 2 + 1] = 0
  }

  get cs(): Segment {
    return this.segments[SEGMENT.CS]!
  }

  get ss(): Segment {
    return this.segments[SEGMENT.SS]!
  }

  get tr(): Segment {
    return this.segments[SEGMENT.TR]!
  }

  get ldtr(): Segment {
    return this.segments[SEGMENT.LDTR]!
  }

  /** Ends the instruction with an exception. `error` for the vectors that push one. */
  raise(vector: number, error?: number): void {
    if (this.abort !== ABORT.NONE) return
    this.abort = ABORT.EXCEPTION
    this.vector = vector
    this.error = error
  }

  /** #PF with its CR2 (SDM vol. 3, 4.7). */
  pageFault(linear: bigint, error: number): void {
    if (this.abort !== ABORT.NONE) return
    this.cr2 = linear
    this.raise(VECTOR.PF, error)
  }

  /** Power-up values (SDM vol. 3, table 9-1), as far as they are modelled. */
  reset(): void {
    this.r64.fill(0n)
    this.rip = 0xfff0n
    this.flags = FLAGS_FIXED
    for (const s of this.segments) {
      s.selector = 0
      s.limit = 0xffff
      s.type = 3
      s.s = 1
      s.dpl = s.avl = s.l = s.db = s.g = s.unusable = 0
      s.present = 1
    }
    this.cs.selector = 0xf000
    this.cs.base = 0xffff_0000n
    this.cs.type = 11
    this.ldtr.s = this.tr.s = 0
    this.ldtr.type = 2
    this.tr.type = 11
    this.gdtr.base = this.idtr.base = 0n
    this.gdtr.limit = this.idtr.limit = 0xffff
    this.cr0 = 0x6000_0010
    this.cr2 = this.cr3 = 0n
    this.cr4 = this.cr8 = this.efer = 0
    this.dr.set([0n, 0n, 0n, 0n, 0n, 0n, 0xffff_0ff0n, 0x400n])
    this.star = this.lstar = this.cstar = this.sfmask = this.kernelGsBase = 0n
    this.tscAux = this.pasid = this.cpl = 0
    this.interruptShadow = this.halted = this.nmiPending = this.nmiBlocked = false
    this.event = this.leave = undefined
    this.accesses.forget()
    this.abort = ABORT.NONE
  }
}
