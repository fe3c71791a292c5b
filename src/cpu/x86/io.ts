// Port input and output (SDM vol. 1, ch. 19): privilege by IOPL or the TSS bitmap, then the system port.

import type { Slot, Width } from '../ir/builder.js'
import type { Emitter } from './emitter.js'
import {
  aborted,
  generalProtection,
  hasIoPrivilege,
  loadValue,
  routine,
  type X86Machine,
} from './machine.js'
import { elementWidth, repeated, stringAdvance, stringPointer } from './memory.js'
import { ACCESS } from './ports.js'
import { SLOT } from './registers.js'

const SYSTEM_READ = ACCESS.READ | ACCESS.SYSTEM

/** The permission bitmap of the 64-bit TSS: one bit a port, all of them clear. */
function mayUse(m: X86Machine, port: number, size: number): boolean {
  const { state } = m
  if (hasIoPrivilege(state)) return true
  const { tr } = state
  if (tr.unusable || tr.limit < 103) {
    generalProtection(state)
    return false
  }
  const map = Number(loadValue(m, BigInt.asUintN(64, tr.base + 102n), 2, SYSTEM_READ))
  if (aborted(m)) return false
  const at = map + (port >> 3)
  if (at + 1 > tr.limit) {
    generalProtection(state)
    return false
  }
  const bits = Number(loadValue(m, BigInt.asUintN(64, tr.base + BigInt(at)), 2, SYSTEM_READ))
  if (aborted(m)) return false
  if ((bits >> (port & 7)) & ((1 << size) - 1)) {
    generalProtection(state)
    return false
  }
  return true
}

/** Port in a, size in imm, value to d. */
const portIn = routine('portIn', (m, op) => {
  const port = m.state.r32[2 * op.a]! & 0xffff
  if (!mayUse(m, port, op.imm)) return
  const v = m.system.portIn(port, op.imm)
  if (!aborted(m)) m.state.r32[2 * op.d] = v
})

/** Port in a, value in b, size in imm. */
const portOut = routine('portOut', (m, op) => {
  const port = m.state.r32[2 * op.a]! & 0xffff
  if (!mayUse(m, port, op.imm)) return
  const v = m.state.r32[2 * op.b]!
  const cut = op.imm === 4 ? v >>> 0 : v & ((1 << (8 * op.imm)) - 1)
  m.system.portOut(port, op.imm, cut)
})

/** An 8-bit immediate port is zero-extended. */
function portOf(b: Emitter, n: number): Slot {
  const o = b.operand(n)
  return o.kind === 'immediate' ? b.const32(Number(o.value & 0xffn)) : b.read(n)
}

export function IN(b: Emitter): void {
  const v = b.temp()
  b.call(portIn, { d: v, a: portOf(b, 1), imm: b.width(0) })
  b.write(0, b.cut(b.width(0), v))
}

export function OUT(b: Emitter): void {
  b.call(portOut, { a: portOf(b, 0), b: b.read(1), imm: b.width(1) })
}

const width = (b: Emitter): Width => Math.min(4, elementWidth(b)) as Width

/** The destination is touched first, so that the port is not read for nothing. */
export function INS(b: Emitter): void {
  const w = width(b)
  repeated(b, () => {
    const to = stringPointer(b, SLOT.RDI)
    b.load(w, to, ACCESS.MODIFY)
    const v = b.temp()
    b.call(portIn, { d: v, a: b.register(2, SLOT.RDX), imm: w })
    b.store(w, to, v, ACCESS.WRITE)
    stringAdvance(b, w, SLOT.RDI)
  })
}

export function OUTS(b: Emitter): void {
  const w = width(b)
  repeated(b, () => {
    const v = b.load(w, stringPointer(b, SLOT.RSI), ACCESS.READ)
    b.call(portOut, { a: b.register(2, SLOT.RDX), b: v, imm: w })
    stringAdvance(b, w, SLOT.RSI)
  })
}
