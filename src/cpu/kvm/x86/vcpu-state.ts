// A vCPU's state between the structures of KVM and the core, with the checks that SET_SREGS makes and those that a
// processor makes when it enters a guest (SDM vol. 3, 27.3.1).

import type { StructValue } from '../../../base/struct.js'
import { CR4_DEFINED, isCr0Valid } from '../../x86/control-registers.js'
import { isCanonical } from '../../x86/machine.js'
import {
  CR0,
  CR4,
  EFER,
  EVENT,
  FLAGS_FIXED,
  FLAGS_WRITABLE,
  SEGMENT,
  type Segment,
  VECTOR,
  type X86State,
} from '../../x86/registers.js'
import * as uapi from '../uapi.js'

type Value<T> = T extends { readonly members: infer M } ? StructValue<M> : never
export type Regs = Value<typeof uapi.kvm_regs>
export type Sregs = Value<typeof uapi.kvm_sregs>
export type Events = Value<typeof uapi.kvm_vcpu_events>
type KvmSegment = Value<typeof uapi.kvm_segment>

// In the order of the general registers' encoding.
const GENERAL = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr'] as const

export function saveRegs(s: X86State): Regs {
  const regs = uapi.kvm_regs({ rip: s.rip, rflags: BigInt(s.flags >>> 0) })
  GENERAL.forEach((name, i) => {
    regs[name] = s.r64[i]!
  })
  return regs
}

/** Loads general registers, RIP and RFLAGS; an exception that waits for delivery is dropped, as KVM does. */
export function loadRegs(s: X86State, regs: Regs): void {
  GENERAL.forEach((name, i) => {
    s.r64[i] = regs[name]
  })
  // An instruction that is half done goes on only where it was.
  if (regs.rip !== s.rip) s.accesses.forget()
  s.rip = regs.rip
  s.flags = Number(BigInt.asIntN(32, regs.rflags)) | FLAGS_FIXED
  if (s.event?.kind === EVENT.EXCEPTION) s.event = undefined
}

function saveSegment(into: KvmSegment, from: Segment): void {
  const { base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable } = from
  Object.assign(into, { base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable })
}

function loadSegment(into: Segment, from: KvmSegment): void {
  into.base = from.base
  into.limit = from.limit
  into.selector = from.selector
  into.type = from.type & 15
  into.present = from.present & 1
  into.dpl = from.dpl & 3
  into.db = from.db & 1
  into.s = from.s & 1
  into.l = from.l & 1
  into.g = from.g & 1
  into.avl = from.avl & 1
  into.unusable = from.unusable !== 0 || from.present === 0 ? 1 : 0
}

/** Segments, tables and control registers. `apic_base` and `interrupt_bitmap` are the caller's. */
export function saveSregs(s: X86State): Sregs {
  const sregs = uapi.kvm_sregs()
  SEGMENTS.forEach((name, i) => {
    saveSegment(sregs[name], s.segments[i]!)
  })
  Object.assign(sregs.gdt, s.gdtr)
  Object.assign(sregs.idt, s.idtr)
  sregs.cr0 = BigInt(s.cr0 >>> 0)
  sregs.cr2 = s.cr2
  sregs.cr3 = s.cr3
  sregs.cr4 = BigInt(s.cr4 >>> 0)
  sregs.cr8 = BigInt(s.cr8)
  sregs.efer = BigInt(s.efer >>> 0)
  return sregs
}

/** What SET_SREGS refuses with EINVAL; undefined when the values go together. */
export function sregsProblem(sregs: Sregs): string | undefined {
  const { cr0, cr3, cr4, efer } = sregs
  const has = (v: bigint, bit: number) => (v & BigInt(bit)) !== 0n
  if (!isCr0Valid(cr0)) return 'CR0 is inconsistent'
  if ((cr4 & ~BigInt(CR4_DEFINED)) !== 0n) return 'CR4 has reserved bits set'
  if (has(cr4, CR4.PCIDE) && !has(efer, EFER.LMA)) return 'CR4.PCIDE outside IA-32e mode'
  if (has(efer, EFER.LME) && has(cr0, CR0.PG)) {
    if (!has(cr4, CR4.PAE) || !has(efer, EFER.LMA)) return 'IA-32e mode without PAE or LMA'
    if (cr3 >> 52n !== 0n) return 'CR3 is no physical address'
  } else if (has(efer, EFER.LMA) || sregs.cs.l !== 0) return 'long mode without LME and paging'
  return undefined
}

/** Loads what `saveSregs` saves. CPL becomes SS.DPL. */
export function loadSregs(s: X86State, sregs: Sregs): void {
  SEGMENTS.forEach((name, i) => {
    loadSegment(s.segments[i]!, sregs[name])
  })
  s.gdtr.base = sregs.gdt.base
  s.gdtr.limit = sregs.gdt.limit
  s.idtr.base = sregs.idt.base
  s.idtr.limit = sregs.idt.limit
  s.cr0 = Number(sregs.cr0 & 0xffff_ffffn)
  s.cr2 = sregs.cr2
  s.cr3 = sregs.cr3
  s.cr4 = Number(sregs.cr4)
  s.cr8 = Number(sregs.cr8 & 15n)
  s.efer = Number(sregs.efer & BigInt(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE))
  s.cpl = s.ss.dpl
}

/** Why a processor would not enter a guest in this state, or undefined. */
export function entryProblem(s: X86State): string | undefined {
  const { cs, ss, tr, ldtr } = s
  if ((s.cr0 & CR0.PG) === 0 || (s.efer & EFER.LMA) === 0)
    return 'only IA-32e mode is modelled: CR0.PG and EFER.LMA must be set'
  if (cs.unusable !== 0 || cs.s === 0 || (cs.type & 9) !== 9)
    return 'CS is no accessed code segment'
  if (cs.l === 0 || cs.db !== 0) return 'CS is no 64-bit segment'
  if ((cs.type & 4) === 0 ? cs.dpl !== ss.dpl : cs.dpl > ss.dpl) return 'CS.DPL and SS.DPL disagree'
  if (ss.unusable === 0 && (ss.s === 0 || (ss.type & 11) !== 3)) return 'SS is no writable segment'
  for (const n of [SEGMENT.ES, SEGMENT.DS, SEGMENT.FS, SEGMENT.GS]) {
    const d = s.segments[n]!
    const readable = (d.type & 8) === 0 || (d.type & 2) !== 0
    if (d.unusable === 0 && (d.s === 0 || (d.type & 1) === 0 || !readable))
      return `${SEGMENTS[n]} is no accessed data segment`
  }
  if (tr.unusable !== 0 || tr.s !== 0 || tr.type !== 11) return 'TR holds no busy 64-bit TSS'
  if (ldtr.unusable === 0 && (ldtr.s !== 0 || ldtr.type !== 2)) return 'LDTR holds no LDT'
  for (const base of [s.rip, tr.base, s.gdtr.base, s.idtr.base])
    if (!isCanonical(s, base)) return 'RIP or a base is not canonical'
  for (const n of [SEGMENT.FS, SEGMENT.GS])
    if (!isCanonical(s, s.segments[n]!.base)) return 'a base is not canonical'
  if ((s.flags & ~(FLAGS_WRITABLE | FLAGS_FIXED)) !== 0) return 'RFLAGS has reserved bits set'
  return undefined
}

const PUSHES_ERROR: ReadonlySet<number> = new Set([
  VECTOR.DF,
  VECTOR.TS,
  VECTOR.NP,
  VECTOR.SS,
  VECTOR.GP,
  VECTOR.PF,
  VECTOR.AC,
  VECTOR.CP,
])

/** Events under way. `queued` is the vector of KVM_INTERRUPT that was not delivered yet, or -1. */
export function saveEvents(s: X86State, queued: number): Events {
  const events = uapi.kvm_vcpu_events()
  const { event } = s
  if (event?.kind === EVENT.EXCEPTION) {
    const { vector, error } = event
    Object.assign(events.exception, {
      injected: 1,
      nr: vector,
      has_error_code: error === undefined ? 0 : 1,
      error_code: error ?? 0,
    })
  } else if (event !== undefined && event.kind !== EVENT.NMI) {
    Object.assign(events.interrupt, {
      injected: 1,
      nr: event.vector,
      soft: event.kind === EVENT.SOFTWARE ? 1 : 0,
    })
  } else if (queued >= 0) Object.assign(events.interrupt, { injected: 1, nr: queued })
  events.interrupt.shadow = s.interruptShadow ? uapi.KVM_X86_SHADOW_INT_STI : 0
  events.nmi.injected = event?.kind === EVENT.NMI ? 1 : 0
  events.nmi.pending = s.nmiPending ? 1 : 0
  events.nmi.masked = s.nmiBlocked ? 1 : 0
  events.flags = uapi.KVM_VCPUEVENT_VALID_NMI_PENDING | uapi.KVM_VCPUEVENT_VALID_SHADOW
  return events
}

/** What SET_VCPU_EVENTS refuses with EINVAL. */
export function eventsProblem(e: Events): string | undefined {
  const known =
    uapi.KVM_VCPUEVENT_VALID_NMI_PENDING |
    uapi.KVM_VCPUEVENT_VALID_SIPI_VECTOR |
    uapi.KVM_VCPUEVENT_VALID_SHADOW
  if ((e.flags & ~known) !== 0) return 'unknown flags'
  const { injected, nr } = e.exception
  if (injected !== 0 && (nr > 31 || nr === VECTOR.NMI)) return `exception ${nr} does not exist`
  return undefined
}

/** Loads events; returns the queued interrupt vector, or -1. */
export function loadEvents(s: X86State, e: Events): number {
  const { exception, interrupt, nmi } = e
  s.event = undefined
  let queued = -1
  if (exception.injected !== 0) {
    const error =
      exception.has_error_code !== 0 && PUSHES_ERROR.has(exception.nr)
        ? exception.error_code
        : undefined
    s.event = { kind: EVENT.EXCEPTION, vector: exception.nr, error }
  } else if (interrupt.injected !== 0 && interrupt.soft !== 0) {
    s.event = { kind: EVENT.SOFTWARE, vector: interrupt.nr, error: undefined, length: 0 }
  } else if (interrupt.injected !== 0) queued = interrupt.nr
  else if (nmi.injected !== 0) s.event = { kind: EVENT.NMI, vector: VECTOR.NMI, error: undefined }
  if ((e.flags & uapi.KVM_VCPUEVENT_VALID_SHADOW) !== 0) s.interruptShadow = interrupt.shadow !== 0
  if ((e.flags & uapi.KVM_VCPUEVENT_VALID_NMI_PENDING) !== 0) s.nmiPending = nmi.pending !== 0
  s.nmiBlocked = nmi.masked !== 0
  return queued
}
