// Segment registers and descriptor tables, to and from registers and memory (SDM vol. 2 by mnemonic).
// What a selector may name and how its hidden part is filled is in segments.ts.

import type { Slot, Width } from '../ir/builder.js'
import { type Emitter, ZERO } from './emitter.js'
import { aborted, generalProtection, high, isCanonical, low, routine } from './machine.js'
import { ACCESS } from './ports.js'
import { CR4, SEGMENT, SLOT, VECTOR } from './registers.js'
import * as segments from './segments.js'

// Segment registers.

/** Selector of segment imm to d. */
const readSelector = routine('readSelector', (m, op) => {
  m.state.r64[op.d] = BigInt(m.state.segments[op.imm]!.selector)
})

/** Loads segment imm with the selector in a; after SS, interrupts wait for one instruction. */
const writeSelector = routine('writeSelector', (m, op) => {
  segments.loadDataSegment(m, op.imm, m.state.r32[2 * op.a]! & 0xffff)
  if (op.imm === SEGMENT.SS && !aborted(m)) m.state.interruptShadow = true
})

/** Segment number of operand n; -1 for one that does not exist. */
function segmentNumber(b: Emitter, n: number): number {
  const o = b.operand(n)
  return o.kind === 'segment' && o.register <= SEGMENT.GS ? o.register : -1
}

function selectorOf(b: Emitter, number: number): Slot {
  const v = b.temp()
  b.call(readSelector, { d: v, imm: number })
  return v
}

/** A selector goes to memory as 16 bits and to a register zero-extended. */
export function writeSelectorOut(b: Emitter, v: Slot): void {
  if (b.isMemory(0)) b.store(2, b.address(0), v, ACCESS.WRITE | b.accessBits(0))
  else b.write(0, v)
}

export function MOV_FROM_SEG(b: Emitter): void {
  const number = segmentNumber(b, 1)
  if (number < 0) {
    b.trap(VECTOR.UD)
    return
  }
  writeSelectorOut(b, selectorOf(b, number))
}

export function MOV_TO_SEG(b: Emitter): void {
  const number = segmentNumber(b, 0)
  if (number < 0 || number === SEGMENT.CS) {
    b.trap(VECTOR.UD)
    return
  }
  b.call(writeSelector, { a: b.read(1), imm: number })
}

export function PUSH_SEG(b: Emitter): void {
  const v = selectorOf(b, segmentNumber(b, 0))
  const w = b.size as Width
  const to = b.value('i64.address', { a: SLOT.RSP, b: ZERO, imm: 1, big: BigInt(-w) })
  b.store(w, to, v, ACCESS.WRITE | ACCESS.STACK)
  b.setRegister(8, SLOT.RSP, to)
}

export function POP_SEG(b: Emitter): void {
  const w = b.size as Width
  const v = b.load(w, SLOT.RSP, ACCESS.READ | ACCESS.STACK)
  b.call(writeSelector, { a: v, imm: segmentNumber(b, 0) })
  b.emit('i64.address', { d: SLOT.RSP, a: SLOT.RSP, b: ZERO, imm: 1, big: BigInt(w) })
}

// Descriptor tables. Storing them is refused above CPL 0 when CR4.UMIP is set.

/** #GP(0) above CPL 0 when CR4.UMIP is set. */
export const refuseUserMode = routine('refuseUserMode', m => {
  if (m.state.cpl > 0 && m.state.cr4 & CR4.UMIP) generalProtection(m.state)
})

const tableBytes = new Uint8Array(10)
const tableView = new DataView(tableBytes.buffer)

/** Limit and base of the table imm (0 GDT, 1 IDT) to the address in a. */
const storeTable = routine('storeTable', (m, op) => {
  const { state } = m
  const table = op.imm === 0 ? state.gdtr : state.idtr
  tableView.setUint16(0, table.limit, true)
  tableView.setBigUint64(2, table.base, true)
  const at = state.r64[op.a]!
  m.memory.write(high(at), low(at), tableBytes, ACCESS.WRITE)
})

const loadTable = routine('loadTable', (m, op) => {
  const { state } = m
  const at = state.r64[op.a]!
  m.memory.read(high(at), low(at), tableBytes, ACCESS.READ)
  if (aborted(m)) return
  const base = tableView.getBigUint64(2, true)
  if (!isCanonical(state, base)) return generalProtection(state)
  const table = op.imm === 0 ? state.gdtr : state.idtr
  table.limit = tableView.getUint16(0, true)
  table.base = base
})

function store(b: Emitter, table: number): void {
  b.call(refuseUserMode)
  b.call(storeTable, { a: b.address(0), imm: table })
}

export function SGDT(b: Emitter): void {
  store(b, 0)
}

export function SIDT(b: Emitter): void {
  store(b, 1)
}

export function LGDT(b: Emitter): void {
  b.call(loadTable, { a: b.address(0), imm: 0 })
}

export function LIDT(b: Emitter): void {
  b.call(loadTable, { a: b.address(0), imm: 1 })
}

export function SLDT(b: Emitter): void {
  b.call(refuseUserMode)
  writeSelectorOut(b, selectorOf(b, SEGMENT.LDTR))
}

export function STR(b: Emitter): void {
  b.call(refuseUserMode)
  writeSelectorOut(b, selectorOf(b, SEGMENT.TR))
}

const LDT_TYPE = 2
const TSS_AVAILABLE = 9
const TSS_BUSY = 11

const lldt = routine('lldt', (m, op) => {
  const { state } = m
  const selector = state.r32[2 * op.a]! & 0xffff
  if ((selector & 0xfffc) === 0) return segments.setNull(state.ldtr, selector)
  const found = segments.readSystemDescriptor(m, selector, LDT_TYPE)
  if (found) segments.setSegment(state.ldtr, selector, found.d, found.upper)
})

const ltr = routine('ltr', (m, op) => {
  const { state } = m
  const selector = state.r32[2 * op.a]! & 0xffff
  if ((selector & 0xfffc) === 0) return generalProtection(state)
  const found = segments.readSystemDescriptor(m, selector, TSS_AVAILABLE)
  if (!found) return
  const { d, upper } = found
  const at = d.at + 5n
  m.memory.store(high(at), low(at), 1, segments.accessByte(d) | 2, ACCESS.WRITE | ACCESS.SYSTEM)
  if (aborted(m)) return
  segments.setSegment(state.tr, selector, { ...d, type: TSS_BUSY }, upper)
})

export function LLDT(b: Emitter): void {
  b.call(lldt, { a: b.read(0) })
}

export function LTR(b: Emitter): void {
  b.call(ltr, { a: b.read(0) })
}
