// Descriptors and segment registers (SDM vol. 3, 3.4, 3.5, 5.5 to 5.8). Only what 64-bit mode needs: code segments must
// have L set, and gates are for interrupts alone; a far transfer to anything else is #GP(selector).

import { aborted, high, loadValue, low, type X86Machine } from './machine.js'
import { ACCESS } from './ports.js'
import { SEGMENT, type Segment, VECTOR } from './registers.js'

/** A descriptor as it stands in its table, and where. */
export interface Descriptor {
  /** Its two words. */
  readonly lo: number
  readonly hi: number
  /** Linear address of its first byte. */
  readonly at: bigint
  readonly type: number
  readonly s: number
  readonly dpl: number
  readonly present: number
  readonly l: number
  readonly db: number
}

/** Takes 8 raw bytes apart. */
function parseDescriptor(raw: bigint, at: bigint): Descriptor {
  const lo = low(raw)
  const hi = high(raw)
  return {
    lo,
    hi,
    at,
    type: (hi >>> 8) & 15,
    s: (hi >>> 12) & 1,
    dpl: (hi >>> 13) & 3,
    present: (hi >>> 15) & 1,
    l: (hi >>> 21) & 1,
    db: (hi >>> 22) & 1,
  }
}

/** Reads the descriptor a selector names; #GP(selector) beyond the table. Undefined when it aborted. */
export function readDescriptor(m: X86Machine, selector: number): Descriptor | undefined {
  const { state } = m
  const error = selector & 0xfffc
  const local = (selector & 4) !== 0
  const ldt = state.ldtr
  const base = local ? ldt.base : state.gdtr.base
  const limit = local ? (ldt.unusable ? -1 : ldt.limit) : state.gdtr.limit
  if ((selector | 7) > limit) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  const at = BigInt.asUintN(64, base + BigInt(selector & 0xfff8))
  const raw = loadValue(m, at, 8, ACCESS.READ | ACCESS.SYSTEM)
  return aborted(m) ? undefined : parseDescriptor(raw, at)
}

/** Copies a descriptor into a segment register's hidden part; `upper` extends the base of a system segment. */
export function setSegment(s: Segment, selector: number, d: Descriptor, upper = 0n): void {
  const { lo, hi } = d
  const limit = (lo & 0xffff) | (hi & 0xf_0000)
  const base = (lo >>> 16) | ((hi & 0xff) << 16) | (hi & 0xff00_0000)
  s.g = (hi >>> 23) & 1
  s.selector = selector
  s.limit = s.g ? ((limit << 12) | 0xfff) >>> 0 : limit
  s.base = BigInt(base >>> 0) | (upper << 32n)
  s.type = d.type
  s.s = d.s
  s.dpl = d.dpl
  s.present = d.present
  s.avl = (hi >>> 20) & 1
  s.l = d.l
  s.db = d.db
  s.unusable = 0
}

/** A null selector: nothing can be reached through it, and its base is zero. */
export function setNull(s: Segment, selector: number): void {
  s.selector = selector
  s.base = 0n
  s.limit = s.type = s.s = s.dpl = s.present = s.avl = s.l = s.db = s.g = 0
  s.unusable = 1
}

/** Byte 5 of a descriptor: P, DPL, S and type. */
export const accessByte = (d: Descriptor): number => (d.hi >>> 8) & 0xff

/** Sets the accessed bit, in memory too. Returns the descriptor as it is then. */
function touch(m: X86Machine, d: Descriptor): Descriptor {
  if (d.type & 1) return d
  const at = d.at + 5n
  m.memory.store(high(at), low(at), 1, accessByte(d) | 1, ACCESS.WRITE | ACCESS.SYSTEM)
  return { ...d, type: d.type | 1 }
}

const isWritableData = (d: Descriptor) => d.s === 1 && (d.type & 0b1010) === 0b0010
const isReadable = (d: Descriptor) => d.s === 1 && ((d.type & 8) === 0 || (d.type & 2) !== 0)
const isCode = (d: Descriptor) => d.s === 1 && (d.type & 8) !== 0
const isConforming = (d: Descriptor) => (d.type & 0b1100) === 0b1100

/** Checks what SS may become when the privilege level is `cpl`. Undefined with nothing raised: null is allowed. */
export function stackDescriptor(
  m: X86Machine,
  selector: number,
  cpl: number,
): Descriptor | undefined {
  const { state } = m
  if ((selector & 0xfffc) === 0) {
    if (cpl === 3 || (selector & 3) !== cpl) state.raise(VECTOR.GP, 0)
    return undefined
  }
  const error = selector & 0xfffc
  const d = readDescriptor(m, selector)
  if (!d) return undefined
  if ((selector & 3) !== cpl || d.dpl !== cpl || !isWritableData(d)) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  if (!d.present) {
    state.raise(VECTOR.SS, error)
    return undefined
  }
  return d
}

/** MOV or POP to ES, SS, DS, FS, GS. */
export function loadDataSegment(m: X86Machine, number: number, selector: number): void {
  const { state } = m
  const s = state.segments[number]!
  if (number === SEGMENT.SS) {
    const d = stackDescriptor(m, selector, state.cpl)
    if (aborted(m)) return
    if (!d) {
      setNull(s, selector)
      return
    }
    const touched = touch(m, d)
    if (!aborted(m)) setSegment(s, selector, touched)
    return
  }
  if ((selector & 0xfffc) === 0) {
    setNull(s, selector)
    return
  }
  const error = selector & 0xfffc
  const d = readDescriptor(m, selector)
  if (!d) return
  const rpl = selector & 3
  const allowed = isConforming(d) || (rpl <= d.dpl && state.cpl <= d.dpl)
  if (!isReadable(d) || !allowed) {
    state.raise(VECTOR.GP, error)
    return
  }
  if (!d.present) {
    state.raise(VECTOR.NP, error)
    return
  }
  const touched = touch(m, d)
  if (!aborted(m)) setSegment(s, selector, touched)
}

/** Checks a code segment a far return goes to: its privilege is the selector's. */
export function returnCodeDescriptor(m: X86Machine, selector: number): Descriptor | undefined {
  const { state } = m
  const error = selector & 0xfffc
  if (error === 0) {
    state.raise(VECTOR.GP, 0)
    return undefined
  }
  const d = readDescriptor(m, selector)
  if (!d) return undefined
  const rpl = selector & 3
  const level = isConforming(d) ? d.dpl <= rpl : d.dpl === rpl
  if (!isCode(d) || rpl < state.cpl || !level || !d.l || d.db) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  if (!d.present) {
    state.raise(VECTOR.NP, error)
    return undefined
  }
  return touch(m, d)
}

/** Checks a code segment that a far jump or call names: the privilege level stays. */
export function jumpCodeDescriptor(m: X86Machine, selector: number): Descriptor | undefined {
  const { state } = m
  const error = selector & 0xfffc
  if (error === 0) {
    state.raise(VECTOR.GP, 0)
    return undefined
  }
  const d = readDescriptor(m, selector)
  if (!d) return undefined
  const level = isConforming(d)
    ? d.dpl <= state.cpl
    : (selector & 3) <= state.cpl && d.dpl === state.cpl
  if (!isCode(d) || !level || !d.l || d.db) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  if (!d.present) {
    state.raise(VECTOR.NP, error)
    return undefined
  }
  return touch(m, d)
}

/** After a return to a less privileged level, data segments it may not use become null (SDM vol. 2, "IRET"). */
export function dropPrivilegedSegments(m: X86Machine): void {
  const { state } = m
  for (const number of [SEGMENT.ES, SEGMENT.DS, SEGMENT.FS, SEGMENT.GS]) {
    const s = state.segments[number]!
    const usable = !s.unusable && s.s === 1 && (s.type & 0b1100) !== 0b1100
    if (usable && s.dpl < state.cpl) setNull(s, 0)
  }
}

/** The flat 64-bit code segment that SYSCALL and SYSRET load without looking at a table. */
export function setFlatCode(s: Segment, selector: number, dpl: number): void {
  s.selector = selector
  s.base = 0n
  s.limit = 0xffff_ffff
  s.type = 11
  s.s = s.present = s.l = s.g = 1
  s.dpl = dpl
  s.avl = s.db = s.unusable = 0
}

/** The flat stack segment beside it. */
export function setFlatStack(s: Segment, selector: number, dpl: number): void {
  setFlatCode(s, selector, dpl)
  s.type = 3
  s.l = 0
  s.db = 1
}

/** LLDT and LTR: a 16-byte system descriptor of a type in the GDT. Undefined when it aborted. */
export function readSystemDescriptor(
  m: X86Machine,
  selector: number,
  type: number,
): { d: Descriptor; upper: bigint } | undefined {
  const { state } = m
  const error = selector & 0xfffc
  const fits = (selector & 4) === 0 && (selector & 0xfff8) + 15 <= state.gdtr.limit
  if (!fits) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  const d = readDescriptor(m, selector)
  if (!d) return undefined
  const upper = loadValue(m, d.at + 8n, 4, ACCESS.READ | ACCESS.SYSTEM)
  const last = loadValue(m, d.at + 12n, 4, ACCESS.READ | ACCESS.SYSTEM)
  if (aborted(m)) return undefined
  if (d.s !== 0 || d.type !== type || last & 0x1f00n) {
    state.raise(VECTOR.GP, error)
    return undefined
  }
  if (!d.present) {
    state.raise(VECTOR.NP, error)
    return undefined
  }
  return { d, upper }
}
