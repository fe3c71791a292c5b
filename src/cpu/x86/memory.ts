// Moves, exchanges, the stack and strings (SDM vol. 2, by mnemonic).

import type { Slot, Width } from '../ir/builder.js'
import { type Emitter, ZERO } from './emitter.js'
import { popFlags } from './far.js'
import { ACCESS } from './ports.js'
import { FLAG, FLAGS_WRITABLE, SLOT } from './registers.js'

export function MOV(b: Emitter): void {
  b.write(0, b.read(1))
}

export function MOVZX(b: Emitter): void {
  const v = b.read(1)
  b.write(0, b.width(0) === 8 ? b.zeroExtend(b.width(1), v) : v)
}

/** MOVSX and MOVSXD. */
export function MOVSX(b: Emitter): void {
  const w = b.width(0)
  const from = b.width(1)
  const v = b.read(1)
  b.write(0, w === 8 ? b.signExtend(from, v) : b.signExtend32(from, v))
}

export function LEA(b: Emitter): void {
  b.write(0, b.effectiveAddress(1))
}

function swapped(b: Emitter, w: Width, v: Slot): Slot {
  if (w === 8) return b.value('i64.bswap', { a: v })
  const r = b.value('i32.bswap', { a: v })
  return w === 4 ? r : b.value('i32.shru', { a: r, b: b.const32(16) })
}

export function MOVBE(b: Emitter): void {
  b.write(0, swapped(b, b.width(0), b.read(1)))
}

/** The source is read, and may fault, whatever the condition; a 32-bit destination is always cleared above. */
export function CMOVCC(b: Emitter): void {
  const w = b.width(0)
  const yes = b.condition(b.insn.encoding.condition)
  const v = b.read(1)
  b.write(0, b.select(w, yes, v, b.read(0)))
}

export function SETCC(b: Emitter): void {
  b.write(0, b.condition(b.insn.encoding.condition))
}

/** XCHG with memory is locked, prefix or not. 90 without REX.B is NOP, with F3 PAUSE. */
export function XCHG(b: Emitter): void {
  const w = b.width(0)
  const { encoding, bytes } = b.insn
  const first = b.operand(0)
  if (encoding.opcode === 0x90 && encoding.map === 0 && first.kind === 'register') {
    if (first.register === 0 && bytes.at(-1) === 0x90) return
  }
  const x = b.copy(w, b.modify(0))
  const y = b.copy(w, b.read(1))
  b.write(0, y)
  b.write(1, x)
}

export function XADD(b: Emitter): void {
  const w = b.width(0)
  const x = b.copy(w, b.modify(0))
  const y = b.copy(w, b.read(1))
  const r = b.add(w, x, y)
  if (b.isMemory(0)) b.write(0, r)
  b.flagsOfAdd(w, x, y, r)
  b.write(1, x)
  if (!b.isMemory(0)) b.write(0, r)
}

/** The destination is written either way, so that a read-only page faults either way. */
export function CMPXCHG(b: Emitter): void {
  const w = b.width(0)
  const old = b.copy(w, b.modify(0))
  const y = b.copy(w, b.read(1))
  const expected = b.copy(w, b.register(w, SLOT.RAX))
  const difference = b.sub(w, expected, old)
  const equal = b.isZero(w, difference)
  const different = b.value('i32.eqz', { a: equal })
  if (b.isMemory(0)) b.write(0, b.select(w, equal, y, old))
  b.flagsOfSub(w, expected, old, difference)
  b.when(different, () => b.setRegister(w, SLOT.RAX, old))
  if (!b.isMemory(0)) b.when(equal, () => b.write(0, y))
}

/** CMPXCHG8B, and CMPXCHG16B with REX.W, which wants its operand aligned. */
export function CMPXCHG8B(b: Emitter): void {
  const w: Width = b.size === 8 ? 8 : 4
  const low = b.address(0)
  const bits = b.accessBits(0)
  if (w === 8) {
    const misaligned = b.value('i32.andk', { a: low, imm: 15 })
    b.trapWhen(misaligned, 13, 0)
  }
  const high = b.value('i64.address', { a: low, b: ZERO, imm: 1, big: BigInt(w) })
  const oldLow = b.load(w, low, ACCESS.MODIFY | bits)
  const oldHigh = b.load(w, high, ACCESS.MODIFY | bits)
  const differ = b.logic(
    w,
    'or',
    b.logic(w, 'xor', oldLow, SLOT.RAX),
    b.logic(w, 'xor', oldHigh, SLOT.RDX),
  )
  const equal = b.isZero(w, differ)
  b.store(w, low, b.select(w, equal, SLOT.RBX, oldLow), ACCESS.WRITE | bits)
  b.store(w, high, b.select(w, equal, SLOT.RCX, oldHigh), ACCESS.WRITE | bits)
  b.putFlag(6, equal)
  b.when(b.value('i32.eqz', { a: equal }), () => {
    b.setRegister(w, SLOT.RAX, oldLow)
    b.setRegister(w, SLOT.RDX, oldHigh)
  })
}

/** The byte is read, for the fault it may raise; there is no cache to flush. */
export function CLFLUSH(b: Emitter): void {
  b.read(0)
}

// The stack. In 64-bit mode SS has no base and pushes are of 8 bytes, or of 2 with the prefix 66.

const plus = (b: Emitter, a: Slot, n: number): Slot =>
  b.value('i64.address', { a, b: ZERO, imm: 1, big: BigInt(n) })

/** Stores below RSP and moves RSP, in this order. */
export function push(b: Emitter, w: Width, v: Slot): void {
  const to = plus(b, SLOT.RSP, -w)
  b.store(w, to, v, ACCESS.WRITE | ACCESS.STACK)
  b.setRegister(8, SLOT.RSP, to)
}

export function PUSH(b: Emitter): void {
  push(b, b.size as Width, b.read(0))
}

/** RSP moves before the destination's address is computed (SDM vol. 2, "POP"). */
export function POP(b: Emitter): void {
  const w = b.size as Width
  const v = b.load(w, SLOT.RSP, ACCESS.READ | ACCESS.STACK)
  if (!b.isMemory(0)) {
    b.setRegister(8, SLOT.RSP, plus(b, SLOT.RSP, w))
    b.write(0, v)
    return
  }
  const o = b.operand(0)
  if (o.kind === 'memory' && o.memory.base === SLOT.RSP) {
    const by = b.const64(BigInt(w))
    b.displace(0, by)
  }
  b.write(0, v)
  b.setRegister(8, SLOT.RSP, plus(b, SLOT.RSP, w))
}

/** VM and RF read as zero. */
export function PUSHF(b: Emitter): void {
  const v = b.value('i32.andk', { a: SLOT.FLAGS, imm: ~(FLAG.VM | FLAG.RF) })
  push(b, b.size as Width, b.size === 8 ? b.zeroExtend(4, v) : v)
}

export function POPF(b: Emitter): void {
  const w = b.size as Width
  const v = b.load(w, SLOT.RSP, ACCESS.READ | ACCESS.STACK)
  const mask = w === 2 ? FLAGS_WRITABLE & 0xffff : FLAGS_WRITABLE
  b.call(popFlags, { a: v, imm: mask })
  b.setRegister(8, SLOT.RSP, plus(b, SLOT.RSP, w))
}

/** Nesting levels above zero copy frame pointers; all accesses come before RSP and RBP change. */
export function ENTER(b: Emitter): void {
  const w = b.size as Width
  const [space, nesting] = b.insn.operands
  const bytes = space?.kind === 'immediate' ? Number(space.value) : 0
  const level = nesting?.kind === 'immediate' ? Number(nesting.value) & 31 : 0
  const stack = ACCESS.WRITE | ACCESS.STACK
  const frame = plus(b, SLOT.RSP, -w)
  b.store(w, frame, SLOT.RBP, stack)
  for (let i = 1; i < level; i++) {
    const pointer = b.load(w, plus(b, SLOT.RBP, -w * i), ACCESS.READ | ACCESS.STACK)
    b.store(w, plus(b, frame, -w * i), pointer, stack)
  }
  if (level > 0) b.store(w, plus(b, frame, -w * level), frame, stack)
  const end = plus(b, frame, -w * level - bytes)
  // The new top is touched as a write would, so that a following push cannot be the first to fault.
  b.load(1, end, ACCESS.MODIFY | ACCESS.STACK)
  b.setRegister(8, SLOT.RSP, end)
  b.setRegister(w, SLOT.RBP, frame)
}

export function LEAVE(b: Emitter): void {
  const w = b.size as Width
  const from = b.copy(8, SLOT.RBP)
  const v = b.load(w, from, ACCESS.READ | ACCESS.STACK)
  b.setRegister(8, SLOT.RSP, plus(b, from, w))
  b.setRegister(w, SLOT.RBP, v)
}

// Strings. One iteration is one execution: while REP has more to do, RIP stays where it is, so that registers are
// exact at every fault and interrupts come in between.

const stringWidth = (b: Emitter): Width => ((b.insn.encoding.opcode & 1) === 0 ? 1 : b.size)

/** rSI or rDI as a linear address. Only the source takes a segment prefix. */
function pointer(b: Emitter, register: number): Slot {
  const a = b.insn.addressSize === 8 ? register : b.value('i64.extendu', { a: register })
  if (register !== SLOT.RSI) return a
  const { segment } = b.insn
  return segment < 0 ? a : b.value('i64.add', { a, b: SLOT.ES_BASE + segment })
}

/** Moves rSI or rDI by the width, downwards when DF is set. */
function advance(b: Emitter, w: Width, register: number): void {
  const down = b.value('i32.andk', { a: SLOT.FLAGS, imm: FLAG.DF })
  const by = b.select(8, down, b.const64(BigInt(-w)), b.const64(BigInt(w)))
  const moved = b.value('i64.add', { a: register, b: by })
  b.setRegister(b.insn.addressSize, register, moved)
}

/** Wraps one iteration in REP: nothing at count zero, again while there is more (and ZF agrees). */
export function repeated(b: Emitter, body: () => void, looksAtZero = false): void {
  const { repeat, addressSize } = b.insn
  if (repeat === '') {
    body()
    return
  }
  const some = b.value('i32.eqz', { a: b.isZero(addressSize, SLOT.RCX) })
  b.when(some, () => {
    body()
    const left = b.value('i64.address', { a: SLOT.RCX, b: ZERO, imm: 1, big: -1n })
    b.setRegister(addressSize, SLOT.RCX, left)
    let more = b.value('i32.eqz', { a: b.isZero(addressSize, left) })
    if (looksAtZero) {
      const goes = b.condition(repeat === 'f3' ? 4 : 5)
      more = b.value('i32.and', { a: more, b: goes })
    }
    b.emit('i64.select', { d: SLOT.NEXT, c: more, a: SLOT.RIP, b: SLOT.NEXT })
  })
}

export function MOVS(b: Emitter): void {
  const w = stringWidth(b)
  repeated(b, () => {
    const v = b.load(w, pointer(b, SLOT.RSI), ACCESS.READ)
    b.store(w, pointer(b, SLOT.RDI), v, ACCESS.WRITE)
    advance(b, w, SLOT.RSI)
    advance(b, w, SLOT.RDI)
  })
}

export function STOS(b: Emitter): void {
  const w = stringWidth(b)
  repeated(b, () => {
    b.store(w, pointer(b, SLOT.RDI), b.register(w, SLOT.RAX), ACCESS.WRITE)
    advance(b, w, SLOT.RDI)
  })
}

export function LODS(b: Emitter): void {
  const w = stringWidth(b)
  repeated(b, () => {
    const v = b.load(w, pointer(b, SLOT.RSI), ACCESS.READ)
    b.setRegister(w, SLOT.RAX, v)
    advance(b, w, SLOT.RSI)
  })
}

export function CMPS(b: Emitter): void {
  const w = stringWidth(b)
  repeated(
    b,
    () => {
      const x = b.load(w, pointer(b, SLOT.RSI), ACCESS.READ)
      const y = b.load(w, pointer(b, SLOT.RDI), ACCESS.READ)
      b.flagsOfSub(w, x, y, b.sub(w, x, y))
      advance(b, w, SLOT.RSI)
      advance(b, w, SLOT.RDI)
    },
    true,
  )
}

export function SCAS(b: Emitter): void {
  const w = stringWidth(b)
  repeated(
    b,
    () => {
      const x = b.register(w, SLOT.RAX)
      const y = b.load(w, pointer(b, SLOT.RDI), ACCESS.READ)
      b.flagsOfSub(w, x, y, b.sub(w, x, y))
      advance(b, w, SLOT.RDI)
    },
    true,
  )
}

/** Width of a string instruction's element; shared with INS and OUTS. */
export const elementWidth = stringWidth
/** Linear address in rSI or rDI; shared with INS and OUTS. */
export const stringPointer = pointer
/** Moves rSI or rDI; shared with INS and OUTS. */
export const stringAdvance = advance
